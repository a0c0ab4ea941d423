// Content codings of an answer that is sent piece by piece: what goes in with one `push` comes out with it, whole.
import { constants, createBrotliCompress, createGzip } from "node:zlib";

/** `push(bytes)` and `end()` give the bytes to send. */
export function encoder(coding) {
  if (coding === "zstd") return rawZstd();
  const stream =
    coding === "gzip"
      ? createGzip()
      : createBrotliCompress({ params: { [constants.BROTLI_PARAM_QUALITY]: 4 } });
  const chunks = [];
  stream.on("data", (chunk) => chunks.push(chunk));
  const taken = () => Buffer.concat(chunks.splice(0));
  return {
    async push(bytes) {
      stream.write(bytes);
      await new Promise((resolve) => stream.flush(resolve));
      return taken();
    },
    async end() {
      const ended = new Promise((resolve) => stream.once("end", resolve));
      stream.end();
      await ended;
      return taken();
    },
  };
}

/** A frame of raw blocks (RFC 8878, 3.1.1): Node has had zstd only since 22.15. */
function rawZstd() {
  const BLOCK = 128 << 10;
  let begun = false;
  // Magic number, no checksum, no content size, a window of 1 MiB.
  const head = () => {
    if (begun) return [];
    begun = true;
    return [Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x50])];
  };
  const block = (bytes, last) => {
    const header = Buffer.alloc(3);
    header.writeUIntLE((bytes.length << 3) | (last ? 1 : 0), 0, 3);
    return [header, bytes];
  };
  return {
    async push(bytes) {
      const parts = head();
      for (let at = 0; at < bytes.length; at += BLOCK)
        parts.push(...block(bytes.subarray(at, at + BLOCK), false));
      return Buffer.concat(parts);
    },
    async end() {
      return Buffer.concat([...head(), ...block(Buffer.alloc(0), true)]);
    },
  };
}
