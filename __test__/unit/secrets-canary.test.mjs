// Random canaries go as bytes through every API of the store and the profiles that takes bytes; then the process crashes. They must be nowhere: not in its output, its
// logs and errors, nor in a child's environment or arguments, nor in any file, nor in the core dump that the kernel writes.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const LENGTH = 32;
/** What each canary is used as; the child reads them in this order. */
const USES = [
  "control",
  "held",
  "stored",
  "storedBytes",
  "dropped",
  "exposed",
  "compared",
  "rawKey",
  "nextKey",
  "wrongKey",
  "passphrase",
  "tooLong",
  "overwritten",
  "profileKey",
  "profileToken",
  "profileAccess",
  "profileRefresh",
  "profileUnknown",
  "imported",
];

const CHILD = `
const { readSync, writeFileSync, readFileSync } = require("node:fs");
const { execFileSync } = require("node:child_process");
const { inspect } = require("node:util");
const { ApiKey, AuthProfiles, CredentialStore, onLog } = require(process.argv[3]);
const dir = process.argv[1];
const uses = JSON.parse(process.argv[2]);

// Straight from the pipe into memory that is wiped after use.
const canaries = {};
for (const use of uses) {
  // Outside of V8's heap, where bytes are copied when garbage is collected.
  const bytes = new Uint8Array(new ArrayBuffer(${LENGTH}));
  for (let at = 0; at < bytes.length; ) at += readSync(3, bytes, at, bytes.length - at);
  canaries[use] = bytes;
}
const key = (use) => new ApiKey(canaries[use]);
const failed = (promise) => promise.then(() => { throw new Error("did not fail"); }, (error) => console.error(inspect(error, { depth: 9, showHidden: true })));

(async () => {
  onLog("trace", (record) => console.log("log", inspect(record)));
  const held = key("held");
  const store = await CredentialStore.open(dir + "/one", { raw: canaries.rawKey });
  await store.set("stored", key("stored"));
  await store.set("bytes", canaries.storedBytes);
  await store.set("again", canaries.overwritten);
  await store.set("again", "other");
  const got = await store.get("stored");
  console.log(held, got, String(got), JSON.stringify(got), structuredClone(got), await store.list());
  await (async () => {
    let dropped = key("dropped");
    await store.set("dropped", dropped);
    dropped = await store.get("dropped");
    await store.delete("dropped");
  })();
  const exposed = key("exposed").exposeBytes();
  exposed.fill(0);
  key("compared").equals(canaries.compared);
  got.equals(canaries.compared);
  got.startsWith("sk-");
  await store.rotateKey({ raw: canaries.nextKey });
  await (await store.get("bytes")).equals(canaries.storedBytes);
  await failed(CredentialStore.open(dir + "/one", { raw: canaries.wrongKey }));
  await failed(CredentialStore.open(dir + "/one", { passphrase: canaries.passphrase }));
  const second = await CredentialStore.open(dir + "/two", { passphrase: canaries.passphrase });
  await second.set("a", got);
  const third = await CredentialStore.open(dir + "/three", { keyFile: dir + "/../key" });
  await third.set("a", got);
  await third.rotateKey({ keyFile: dir + "/../key" });
  const long = new Uint8Array(2 ** 20 + ${LENGTH});
  long.set(canaries.tooLong, 7);
  await failed(store.set("long", long));
  long.fill(0);
  await failed(store.set("../" + "x", got));
  const profiles = await AuthProfiles.open(third);
  const add = async (id, type, secrets, expiresMs) => profiles.add({ id, provider: id, type, expiresMs }, secrets);
  await add("key", "api_key", { apiKey: canaries.profileKey });
  await add("token", "token", { accessToken: key("profileToken") });
  await add("oauth", "oauth", { accessToken: canaries.profileAccess, refreshToken: canaries.profileRefresh }, Date.now() + 3.6e6);
  await failed(add("wrong", "no such type", { apiKey: canaries.profileUnknown }));
  // Its canary as the hexadecimal digits that JSON can hold, never as a string.
  const legacy = new Uint8Array(new ArrayBuffer(4096)).fill(32);
  const encoder = new TextEncoder();
  const head = encoder.encodeInto('{"profiles":{"old":{"type":"api_key","provider":"old","key":"', legacy).written;
  canaries.imported.forEach((byte, at) => {
    legacy[head + 2 * at] = "0123456789abcdef".charCodeAt(byte >> 4);
    legacy[head + 2 * at + 1] = "0123456789abcdef".charCodeAt(byte & 15);
  });
  encoder.encodeInto('"}}}', legacy.subarray(head + ${2 * LENGTH}));
  console.log(await profiles.importLegacy(legacy));
  legacy[head - 1] = 0;
  await failed(profiles.importLegacy(legacy));
  legacy.fill(0);
  for (const provider of ["key", "token", "oauth", "old"]) console.log(await profiles.resolve(provider));
  console.log(profiles, await profiles.list());
  console.log(await store.audit(), await second.audit(), await third.audit());
  // A file that does not authenticate.
  const file = dir + "/two/credentials.vault";
  const bytes = readFileSync(file);
  bytes[bytes.length - 50] ^= 1;
  writeFileSync(file, bytes);
  await failed(second.get("a"));

  for (const use of uses) if (use !== "control") canaries[use].fill(0);
  for (let turn = 0; turn < 5; turn++) {
    gc();
    await new Promise((resolve) => setImmediate(resolve));
  }
  // What a tool would inherit.
  console.log(execFileSync("cat", ["/proc/self/environ", "/proc/self/cmdline"], { encoding: "latin1" }));
  process.send("ready");
  process.once("message", () => {
    // Still in use when it dies.
    if (held.length + got.length !== ${2 * LENGTH} || canaries.control.length !== ${LENGTH}) throw new Error("lost");
    process.abort();
  });
})().catch((error) => { console.error("FAILED", error); process.exit(1); });
`;

/** The forms in which a canary could lie somewhere: halves too, since registers and cipher blocks hold 16 bytes. */
function forms(canary) {
  const halves = [canary.subarray(0, 16), canary.subarray(16)];
  return [
    ...halves,
    Buffer.from(canary.toString("hex")),
    Buffer.from(canary.toString("hex").toUpperCase()),
    Buffer.from(canary.toString("base64").slice(0, 40)),
    Buffer.from(canary.toString("base64url").slice(0, 40)),
    // As a string of two bytes a character, and as UTF-8 of one-byte characters.
    Buffer.from(halves[0].toString("latin1"), "utf16le"),
    Buffer.from(halves[0].toString("latin1"), "utf8"),
  ];
}

/** A file without its pages of zeros, of which a dump has many. */
function withoutZeros(file) {
  const page = 4096;
  const zeros = Buffer.alloc(page);
  const kept = [];
  const fd = openSync(file, "r");
  try {
    for (;;) {
      const chunk = Buffer.allocUnsafe(256 * page);
      const length = readSync(fd, chunk);
      if (length === 0) return Buffer.concat(kept);
      for (let at = 0; at < length; at += page) {
        const part = chunk.subarray(at, Math.min(at + page, length));
        if (!part.equals(zeros)) kept.push(Buffer.from(part));
      }
    }
  } finally {
    closeSync(fd);
  }
}

/** What a core dump of the process would hold, for machines on which dumps go elsewhere: without zeros. */
function memoryOf(pid) {
  const page = 4096;
  const zeros = Buffer.alloc(page);
  const kept = [];
  const fd = openSync(`/proc/${pid}/mem`, "r");
  try {
    const mappings = readFileSync(`/proc/${pid}/smaps`, "latin1").split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
    for (const mapping of mappings) {
      const [, from, to, mode, name] = /^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+ *(.*)/.exec(mapping);
      // Flag "dd": not dumped. What the kernel gives every process cannot be read.
      if (
        !mode.startsWith("rw") ||
        / dd\b/.test(/VmFlags:.*/.exec(mapping)?.[0] ?? "") ||
        name.startsWith("[v")
      )
        continue;
      // Pages that were never touched hold nothing, and there may be gigabytes of them.
      if (/^Rss: +0 kB/m.test(mapping) && /^Swap: +0 kB/m.test(mapping)) continue;
      const [start, end] = [Number.parseInt(from, 16), Number.parseInt(to, 16)];
      const chunk = Buffer.alloc(256 * page);
      for (let at = start; at < end; at += chunk.length) {
        const length = readSync(fd, chunk, 0, Math.min(chunk.length, end - at), at);
        for (let offset = 0; offset < length; offset += page) {
          const part = chunk.subarray(offset, Math.min(offset + page, length));
          if (!part.equals(zeros)) kept.push(Buffer.from(part));
        }
      }
    }
  } finally {
    closeSync(fd);
  }
  return Buffer.concat(kept);
}

function filesBelow(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

test("canaries are nowhere but in ciphertext, not even in the core dump of a crash", {
  skip: process.platform !== "linux" && "reads the core dump that Linux writes",
}, async (t) => {
  const pattern = readFileSync("/proc/sys/kernel/core_pattern", "utf8").trim();
  const dumpsHere = !pattern.startsWith("|") && !pattern.includes("/");
  const scratch = mkdtempSync(join(tmpdir(), "openclaw-core-canary-"));
  t.after(() => rmSync(scratch, { recursive: true, force: true }));
  const canaries = Object.fromEntries(USES.map((use) => [use, randomBytes(LENGTH)]));
  // The key file holds its key in clear, as it must; the process that read it must not.
  const keyFile = randomBytes(LENGTH);
  writeFileSync(join(scratch, "key"), `${keyFile.toString("hex")}\n`, { mode: 0o600 });
  const dumps = join(scratch, "dumps");
  mkdirSync(dumps);
  const child = spawn(
    "sh",
    [
      "-c",
      'ulimit -c unlimited && exec "$@"',
      "sh",
      process.execPath,
      "--expose-gc",
      "-e",
      CHILD,
      join(scratch, "stores"),
      JSON.stringify(USES),
      join(root, "index.js"),
    ],
    {
      // The dump is written to the working directory of the process that dies.
      cwd: dumps,
      stdio: ["ignore", "pipe", "pipe", "pipe", "ipc"],
      env: { ...process.env, NODE_OPTIONS: "" },
    },
  );
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("latin1").on("data", (text) => (output += text));
  child.stdio[3].write(Buffer.concat(Object.values(canaries)));
  const died = new Promise((resolve) => child.once("close", (code, signal) => resolve({ code, signal })));
  await Promise.race([new Promise((resolve) => child.once("message", resolve)), died]);
  if (child.exitCode !== null) assert.fail(output);
  const proc = ["environ", "cmdline"].map((name) => readFileSync(`/proc/${child.pid}/${name}`));
  const status = readFileSync(`/proc/${child.pid}/status`, "utf8");
  const memory = memoryOf(child.pid);
  child.send("die");
  const { signal } = await died;
  assert.equal(signal, "SIGABRT", output);
  const [core] = filesBelow(dumps);
  assert.ok(core || !dumpsHere, "the kernel wrote no core dump");
  // Where dumps go elsewhere, the memory that would be in one.
  const dump = core ? withoutZeros(core) : memory;
  assert.ok(dump.length > 1_000_000, `${dump.length} bytes`);
  assert.ok(!core || dump.subarray(0, 4).equals(Buffer.from("\x7fELF")));
  console.log(
    `${core ? "core dump" : "memory"}: ${(dump.length / 1e6).toFixed(0)} MB that are not zero; ${/VmLck:.*/.exec(status)?.[0].replace(/\s+/g, " ")}`,
  );

  // The search finds what is there: this one was kept in a buffer of JavaScript's.
  for (const held of [dump, memory])
    assert.ok(held.includes(canaries.control), "the canary that must be in the memory is not");
  // And so is what the child said of itself.
  assert.ok(
    output.includes("[REDACTED]") && output.includes("CREDENTIAL_KEY") && output.includes("CRYPTO"),
    output,
  );

  const places = new Map([
    ["the core dump", dump],
    ["the memory", memory],
    ["the output", Buffer.from(output, "latin1")],
    ["/proc/pid/environ", proc[0]],
    ["/proc/pid/cmdline", proc[1]],
    ...filesBelow(scratch)
      .filter((file) => file !== join(scratch, "key") && file !== core)
      .map((file) => [file, readFileSync(file)]),
  ]);
  assert.ok([...places.keys()].some((file) => file.endsWith("one/credentials.vault")));
  const found = [];
  for (const [place, bytes] of places) {
    for (const [use, canary] of [...Object.entries(canaries), ["keyFile", keyFile]]) {
      if (use === "control") continue;
      forms(canary).forEach((form, nth) => {
        const at = bytes.indexOf(form);
        if (at >= 0) found.push(`${use}, form ${nth}, in ${place} at ${at}`);
      });
    }
  }
  assert.deepEqual(found, []);
});
