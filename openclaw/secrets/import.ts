// Secrets out of a file in clear: what stands there is taken as it is meant, or refused, or named as left out.
import { isUtf8 } from "node:buffer";
import { isName, isReserved } from "./names.js";

/** The most bytes of one secret that the store takes. */
const MAX_SECRET = 1 << 20;

/** What a file holds. */
export interface Found {
  secrets: Map<string, Buffer>;
  /** Names of what is empty, or no text. */
  skipped: string[];
}

/** Why a file is not taken in. It repeats no value, and no name that may be one. */
export class ImportError extends Error {}

const NEWLINE = 0x0a;
const RETURN = 0x0d;
const HASH = 0x23;
const EQUALS = 0x3d;
const BACKSLASH = 0x5c;
const QUOTES = [0x22, 0x27, 0x60];
const isBlank = (byte: number | undefined) => byte === 0x20 || byte === 0x09;
const endsLine = (byte: number | undefined) => byte === undefined || byte === NEWLINE || byte === RETURN;

/** The secrets of a JSON object or of NAME=value lines, each name with `prefix` before it. */
export function readSecrets(bytes: Buffer, prefix: string): Found {
  if (!isUtf8(bytes)) throw new ImportError("the file is not UTF-8 text");
  const found: Found = { secrets: new Map(), skipped: [] };
  const start = bytes.subarray(0, 3).equals(Buffer.from("\ufeff")) ? 3 : 0;
  const text = bytes.subarray(start);
  try {
    if (text.find((byte) => !isBlank(byte) && !endsLine(byte)) === 0x7b) readJson(text, prefix, found);
    else readLines(text, prefix, found);
  } catch (error) {
    for (const secret of found.secrets.values()) secret.fill(0);
    throw error;
  }
  return found;
}

function add({ secrets, skipped }: Found, name: string, place: string, value: Buffer): void {
  if (!isName(name)) {
    throw new ImportError(
      `${place}: the name is not 1 to 128 of A-Z a-z 0-9 . _ / - that begin with a letter or digit, without ".." and "//"`,
    );
  }
  if (isReserved(name)) throw new ImportError(`${place}: auth/… and auth.state are kept for auth profiles`);
  if (secrets.has(name) || skipped.includes(name))
    throw new ImportError(`${place}: the name stands there twice`);
  if (value.length > MAX_SECRET) throw new ImportError(`${place}: the value is longer than 1 MiB`);
  if (value.length === 0) skipped.push(name);
  else secrets.set(name, value);
}

/**
 * Lines as the `dotenv` package reads them: `export`, comments, and values in one of three quotes, over several lines too; in
 * double quotes `\n` and `\r` are what they stand for. What others read otherwise is refused.
 */
function readLines(bytes: Buffer, prefix: string, found: Found): void {
  let at = 0;
  let line = 1;
  const skipBlanks = () => {
    while (isBlank(bytes[at])) at += 1;
  };
  const skipLine = () => {
    while (!endsLine(bytes[at])) at += 1;
  };
  while (at < bytes.length) {
    const place = `line ${line}`;
    skipBlanks();
    if (endsLine(bytes[at])) {
      if (bytes[at] === NEWLINE) line += 1;
      at += 1;
      continue;
    }
    if (bytes[at] === HASH) {
      skipLine();
      continue;
    }
    const begin = at;
    while (!endsLine(bytes[at]) && bytes[at] !== EQUALS) at += 1;
    if (bytes[at] !== EQUALS || at === begin) throw new ImportError(`${place} is not of the form NAME=value`);
    const name = bytes
      .toString("latin1", begin, at)
      .trim()
      .replace(/^export\s+/, "");
    at += 1;
    skipBlanks();
    const quote = bytes[at] ?? 0;
    if (!QUOTES.includes(quote)) {
      const start = at;
      while (!endsLine(bytes[at]) && bytes[at] !== HASH) at += 1;
      if (bytes[at] === HASH && at > start && !isBlank(bytes[at - 1])) {
        throw new ImportError(
          `${place}: a # within a value begins a comment for some: put the value in quotes`,
        );
      }
      let end = at;
      while (end > start && isBlank(bytes[end - 1])) end -= 1;
      add(found, prefix + name, place, Buffer.from(bytes.subarray(start, end)));
    } else {
      const start = at + 1;
      at = start;
      while (at < bytes.length && bytes[at] !== quote)
        at += bytes[at] === BACKSLASH && bytes[at + 1] === quote ? 2 : 1;
      if (bytes[at] !== quote) throw new ImportError(`${place}: the quote that begins there has no end`);
      const value = bytes.subarray(start, at);
      if (value.includes(Buffer.of(BACKSLASH, quote))) {
        throw new ImportError(
          `${place}: a backslash before a quote means different things to different programs: use another quote`,
        );
      }
      line += value.reduce((count, byte) => count + (byte === NEWLINE ? 1 : 0), 0);
      at += 1;
      skipBlanks();
      if (!endsLine(bytes[at]) && bytes[at] !== HASH) {
        throw new ImportError(`${place}: there is something behind the quote that ends the value`);
      }
      add(found, prefix + name, place, quote === QUOTES[0] ? unescaped(value) : Buffer.from(value));
    }
    skipLine();
  }
}

/** With `\n` and `\r` as what they stand for. */
function unescaped(value: Buffer): Buffer {
  const kept = Buffer.alloc(value.length);
  let length = 0;
  for (let at = 0; at < value.length; at++) {
    const next = value[at] === BACKSLASH ? value[at + 1] : undefined;
    const meant = next === 0x6e ? NEWLINE : next === 0x72 ? RETURN : undefined;
    if (meant !== undefined) at += 1;
    kept[length] = meant ?? value[at] ?? 0;
    length += 1;
  }
  return kept.subarray(0, length);
}

/** The strings of a JSON object, such as OpenClaw's `file` provider reads: `{ providers: { openai: { apiKey } } }`. */
function readJson(bytes: Buffer, prefix: string, found: Found): void {
  let root: unknown;
  try {
    root = JSON.parse(bytes.toString("utf8"));
  } catch {
    // The parser's message quotes the text.
    throw new ImportError("the file is neither a JSON object nor NAME=value lines");
  }
  const walk = (value: unknown, path: string[], place: string): void => {
    if (typeof value === "object" && value !== null) {
      Object.entries(value).forEach(([name, inner], nth) => {
        const below = path.join("/");
        walk(inner, [...path, name], `member ${nth + 1} of ${isName(below) ? `"${below}"` : "the object"}`);
      });
      return;
    }
    const text = typeof value === "string" ? value : "";
    // A secret is text: a number has been rounded by now, perhaps.
    add(found, prefix + path.join("/"), place, Buffer.from(text));
  };
  walk(root, [], "the object");
}
