// Resolves OpenClaw's exec SecretRefs (protocol 1) out of the credential store: a request as JSON on standard input, the
// values as JSON on standard output. It loads the store and nothing else, because OpenClaw starts it anew each time.
import { read } from "node:fs";
import { createRequire } from "node:module";
import { locate } from "./secrets/location.js";
import { isReserved } from "./secrets/names.js";

type Addon = typeof import("../index.js");
/** OpenClaw shows this code; any other text of a resolver it keeps to itself. */
const NOT_FOUND = { code: "NOT_FOUND" };
/** Protocol 1 has strings alone. */
const NOT_TEXT = { code: "NOT_TEXT" };

try {
  process.stdout.write(JSON.stringify(await answer()));
} catch (error) {
  // Messages of the core hold no secret.
  process.stderr.write(`openclaw-core secrets: ${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 1;
}

async function answer(): Promise<unknown> {
  const { CredentialStore } = createRequire(import.meta.url)("../index.js") as Addon;
  const { dir, key } = locate(process.env);
  if (key === "passphrase") {
    throw new Error(
      "nobody can be asked for a passphrase here: give the store a key file, keychain item or systemd credential",
    );
  }
  // The store opens while the request is read.
  const [store, ids] = await Promise.all([CredentialStore.open(dir, key, { create: false }), request()]);
  const values: [string, string][] = [];
  const errors: [string, object][] = [];
  for (const id of ids) {
    try {
      // The tokens of auth profiles are the core's own: a SecretRef would copy them to where they are not refreshed.
      if (isReserved(id)) errors.push([id, NOT_FOUND]);
      else values.push([id, (await store.get(id)).expose()]);
    } catch (error) {
      const { code } = error as { code?: string };
      if (code === "CREDENTIAL_NOT_FOUND" || code === "CREDENTIAL_NAME") errors.push([id, NOT_FOUND]);
      else if (code === "VALIDATION") errors.push([id, NOT_TEXT]);
      else throw error;
    }
  }
  return {
    protocolVersion: 1,
    values: Object.fromEntries(values),
    ...(errors.length > 0 && { errors: Object.fromEntries(errors) }),
  };
}

/** The ids that are asked for. */
async function request(): Promise<string[]> {
  const { protocolVersion, ids } = JSON.parse(await input());
  if (protocolVersion !== 1) throw new Error("only protocol version 1 is spoken here");
  if (!Array.isArray(ids) || ids.some((id) => typeof id !== "string"))
    throw new Error("`ids` must be strings");
  return ids;
}

/** Standard input to its end, without the machinery of `process.stdin`. */
async function input(): Promise<string> {
  const chunks: Buffer[] = [];
  for (;;) {
    const buffer = Buffer.alloc(64 * 1024);
    const length = await new Promise<number>((resolve, reject) => {
      const attempt = () =>
        read(0, buffer, 0, buffer.length, null, (error, count) => {
          if (error?.code === "EAGAIN") setTimeout(attempt, 1);
          else if (error && error.code !== "EOF") reject(error);
          else resolve(error ? 0 : count);
        });
      attempt();
    });
    if (length === 0) return Buffer.concat(chunks).toString("utf8");
    chunks.push(buffer.subarray(0, length));
  }
}
