// `ApiKey` and `CredentialStore`: what they show, what they refuse, what they keep.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { format, inspect } from "node:util";
import { deserialize, serialize } from "node:v8";
import { MessageChannel, receiveMessageOnPort } from "node:worker_threads";

const root = fileURLToPath(new URL("../..", import.meta.url));
const { ApiKey, CredentialStore } = createRequire(import.meta.url)("../../index.js");
const SECRET = "sk-test-0123456789abcdef";
const REDACTED = "[REDACTED]";
const code = (expected) => (error) => {
  assert.ok(error instanceof Error, String(error));
  assert.equal(error.code, expected, error.message);
  return true;
};

let base;
before(() => {
  base = mkdtempSync(join(tmpdir(), "openclaw-core-secrets-"));
});
after(() => rmSync(base, { recursive: true, force: true }));
const folder = () => mkdtempSync(join(base, "store-"));
const raw = () => ({ raw: randomBytes(32) });

describe("an ApiKey", () => {
  test("has no form that shows the secret", () => {
    const key = new ApiKey(SECRET);
    assert.equal(`${key}`, REDACTED);
    assert.equal(String(key), REDACTED);
    assert.equal(key.toString(), REDACTED);
    assert.equal(JSON.stringify({ key }), `{"key":"${REDACTED}"}`);
    assert.equal(inspect(key), REDACTED);
    assert.equal(inspect({ key, keys: [key] }, { depth: 9 }), `{ key: ${REDACTED}, keys: [ ${REDACTED} ] }`);
    assert.deepEqual(structuredClone(key), { secret: REDACTED });
    assert.deepEqual({ ...key }, { secret: REDACTED });
    assert.deepEqual(deserialize(serialize(key)), { secret: REDACTED });
    const { port1, port2 } = new MessageChannel();
    port1.postMessage({ key });
    assert.deepEqual(receiveMessageOnPort(port2).message, { key: { secret: REDACTED } });
    port1.close();
    const shown = [
      format("%s %o %O %j %d", key, key, key, key, key),
      inspect(key, { showHidden: true, getters: true, depth: null, customInspect: false }),
      inspect(new Error("x", { cause: key })),
      JSON.stringify(Object.getOwnPropertyDescriptors(key)),
      Object.entries(key).join(),
      [key].join(),
    ];
    for (const text of shown) assert.ok(!text.includes("0123456789"), text);
  });

  test("as it comes out of a store shows no more than one that was made", async () => {
    const store = await CredentialStore.open(folder(), raw());
    await store.set("a", SECRET);
    const key = await store.get("a");
    assert.ok(key instanceof ApiKey);
    assert.equal(inspect([key]), `[ ${REDACTED} ]`);
    assert.deepEqual(structuredClone(key), { secret: REDACTED });
    assert.equal(key.expose(), SECRET);
  });

  test("can be compared, measured and exposed", () => {
    const key = new ApiKey(Buffer.from(SECRET));
    assert.equal(key.length, SECRET.length);
    assert.equal(new ApiKey("ä€😀").length, 9);
    assert.ok(
      key.startsWith("sk-") && key.startsWith("") && !key.startsWith("sk_") && !key.startsWith(`${SECRET}x`),
    );
    assert.ok(key.equals(SECRET) && key.equals(new ApiKey(SECRET)) && key.equals(Buffer.from(SECRET)));
    assert.ok(
      !key.equals(`${SECRET}x`) &&
        !key.equals(SECRET.slice(1)) &&
        !key.equals("") &&
        !key.equals(new ApiKey("x")),
    );
    assert.equal(key.expose(), SECRET);
    assert.deepEqual(Buffer.from(key.exposeBytes()), Buffer.from(SECRET));
    // Of a view, its part alone; and later changes of the bytes are not seen.
    const bytes = Buffer.from(`xx${SECRET}xx`);
    const part = new ApiKey(bytes.subarray(2, -2));
    bytes.fill(0);
    assert.equal(part.expose(), SECRET);
    const binary = new ApiKey(Uint8Array.of(0xff, 0));
    assert.throws(() => binary.expose(), code("VALIDATION"));
    assert.deepEqual([...binary.exposeBytes()], [0xff, 0]);
  });

  test("is made of a string or of bytes, and of nothing else", () => {
    const views = [
      new Uint8Array(),
      new Uint16Array(2),
      new ArrayBuffer(3),
      new DataView(new ArrayBuffer(3)),
    ];
    const others = [undefined, null, 1, {}, [], "", "\ud800", Object.create(ApiKey.prototype)];
    for (const wrong of [...views, ...others]) assert.throws(() => new ApiKey(wrong), code("VALIDATION"));
    for (const self of [undefined, globalThis, {}]) {
      assert.throws(() => ApiKey.call(self, SECRET), code("VALIDATION"));
      assert.ok(self === undefined || !("secret" in self));
    }
    const key = new ApiKey(SECRET);
    for (const wrong of [undefined, null, 1, {}]) assert.throws(() => key.equals(wrong), code("VALIDATION"));
    assert.throws(() => key.startsWith(1), code("VALIDATION"));
    assert.throws(() => ApiKey.prototype.expose.call({}));
  });
});

test("a process holds 200,000 keys, and as many that nobody holds", () => {
  const script = `const { ApiKey } = require("./index.js");
    const { readFileSync } = require("node:fs");
    const mappings = () => process.platform === "linux" ? readFileSync("/proc/self/maps", "utf8").split("\\n").length : 0;
    const before = mappings();
    const held = Array.from({ length: 200_000 }, (_, n) => new ApiKey("key " + n));
    for (let n = 0; n < 200_000; n++) new ApiKey("another " + n);
    // What has nothing to do with keys must go on too.
    const others = Array.from({ length: 200 }, () => new Uint8Array(200_000).fill(1));
    if (!held.every((key, n) => key.equals("key " + n)) || others.length !== 200) throw new Error("lost");
    console.log(mappings() - before);`;
  const { status, stdout, stderr } = spawnSync(process.execPath, ["-e", script], {
    cwd: root,
    encoding: "utf8",
    timeout: 120_000,
  });
  assert.equal(status, 0, stderr);
  assert.ok(Number(stdout) < 10_000, `${stdout} mappings`);
});

describe("a CredentialStore", () => {
  test("keeps secrets across openings, by every kind of key", async () => {
    const keys = {
      raw: raw(),
      keyFile: { keyFile: join(folder(), "key") },
      passphrase: { passphrase: "correct horse battery staple" },
      bytes: { passphrase: Buffer.from("correct horse battery staple") },
      key: { raw: new ApiKey(randomBytes(32)) },
    };
    for (const [kind, key] of Object.entries(keys)) {
      const dir = folder();
      const store = await CredentialStore.open(dir, key);
      await store.set("a", new ApiKey(SECRET));
      await store.set("b", SECRET.toUpperCase());
      await store.set("c", Buffer.from([0, 255]));
      const again = await CredentialStore.open(dir, key, { create: false });
      assert.equal((await again.get("a")).expose(), SECRET, kind);
      assert.equal((await again.get("b")).expose(), SECRET.toUpperCase());
      assert.deepEqual([...(await again.get("c")).exposeBytes()], [0, 255]);
      const bytes = readFileSync(join(dir, "credentials.vault"), "latin1");
      assert.ok(!bytes.includes(SECRET) && !bytes.includes(SECRET.toUpperCase()));
    }
  });

  test("lists, deletes, and says what is missing", async () => {
    const start = Date.now();
    const store = await CredentialStore.open(folder(), raw());
    assert.deepEqual(await store.list(), []);
    await store.set("b", "1");
    await store.set("a/x", "2");
    const [first, second] = await store.list();
    assert.deepEqual([first.name, second.name], ["a/x", "b"]);
    assert.ok(first.createdMs >= start && first.createdMs === first.updatedMs);
    assert.deepEqual([await store.has("b"), await store.has("c")], [true, false]);
    assert.equal(await store.generation(), 3);
    assert.deepEqual([await store.delete("b"), await store.delete("b")], [true, false]);
    await assert.rejects(store.get("b"), code("CREDENTIAL_NOT_FOUND"));
  });

  test("takes one form of names in every method", async () => {
    const dir = folder();
    const store = await CredentialStore.open(dir, raw());
    const before = readdirSync(base);
    const bad = [
      "",
      ".",
      "..",
      "../x",
      "a/../../x",
      "/etc/passwd",
      "a//b",
      "a\\..\\b",
      "a\0b",
      "a b",
      "ä",
      "%2e%2e/x",
      "\ud800",
      "x".repeat(129),
    ];
    for (const name of bad) {
      for (const call of [
        () => store.get(name),
        () => store.has(name),
        () => store.set(name, "x"),
        () => store.delete(name),
      ]) {
        await assert.rejects(call, code("CREDENTIAL_NAME"));
      }
    }
    for (const call of [
      () => store.get(1),
      () => store.set(null, "x"),
      () => store.set("a", 1),
      () => store.set("a", ""),
      () => store.set("a", "\ud800"),
      () => store.delete(),
    ]) {
      await assert.rejects(call(), code("VALIDATION"));
    }
    await assert.rejects(store.set("a", Buffer.alloc(2 ** 20 + 1, 1)), code("LIMIT"));
    assert.deepEqual(readdirSync(dir).sort(), ["LOCK", "credentials.vault"]);
    assert.deepEqual(readdirSync(base), before);
  });

  test("is opened by its key alone, and wrong keys are told apart from wrong arguments", async () => {
    const dir = folder();
    const key = raw();
    await CredentialStore.open(dir, key);
    for (const other of [
      raw(),
      { passphrase: "x" },
      { keyFile: join(base, "none") },
      { raw: randomBytes(16) },
      { systemdCredential: "none" },
    ]) {
      await assert.rejects(CredentialStore.open(dir, other), code("CREDENTIAL_KEY"));
    }
    for (const wrong of [
      undefined,
      null,
      "x",
      {},
      { passphrase: "" },
      { raw: "" },
      { raw: [1] },
      { keyFile: 1 },
      { keychain: "x" },
      { passphrase: "x", ...key },
    ]) {
      await assert.rejects(CredentialStore.open(dir, wrong), code("VALIDATION"));
    }
    await assert.rejects(CredentialStore.open(1, key), code("VALIDATION"));
    await assert.rejects((await CredentialStore.open(dir, key)).rotateKey({}), code("VALIDATION"));
    await assert.rejects(
      CredentialStore.open(join(base, "nowhere"), key, { create: false }),
      code("CREDENTIAL_NOT_FOUND"),
    );
    const store = await CredentialStore.open(dir, key, { minGeneration: 1 });
    await assert.rejects(CredentialStore.open(dir, key, { minGeneration: 2 }), code("CRYPTO"));
    const file = join(dir, "credentials.vault");
    const bytes = readFileSync(file);
    bytes[bytes.length - 1] ^= 1;
    rmSync(file);
    writeFileSync(file, bytes);
    await assert.rejects(store.list(), code("CRYPTO"));
    await assert.rejects(
      CredentialStore.open(dir, key),
      (error) => error.code === "CRYPTO" && error.file === file,
    );
  });

  test("reads a systemd credential", () => {
    const credentials = folder();
    writeFileSync(join(credentials, "vault.key"), randomBytes(32), { mode: 0o400 });
    const { status, stderr } = spawnSync(
      process.execPath,
      [
        "-e",
        `const { CredentialStore } = require("./index.js");
        CredentialStore.open(${JSON.stringify(folder())}, { systemdCredential: "vault.key" })
          .then((store) => store.set("a", "b"))
          .catch((error) => { console.error(error); process.exitCode = 1; });`,
      ],
      {
        cwd: root,
        env: { ...process.env, CREDENTIALS_DIRECTORY: credentials },
        encoding: "utf8",
        timeout: 60_000,
      },
    );
    assert.equal(status, 0, stderr);
  });

  test("lies where relative paths led when it was opened", () => {
    const [cwd, elsewhere] = [folder(), folder()];
    const script = `const { CredentialStore } = require(${JSON.stringify(join(root, "index.js"))});
      (async () => {
        const store = await CredentialStore.open("vault", { keyFile: "vault.key" });
        process.chdir(${JSON.stringify(elsewhere)});
        await store.set("a", "b");
        await store.rotateKey({ keyFile: ${JSON.stringify(join(cwd, "vault.key"))} });
        if (!(await store.get("a")).equals("b")) throw new Error("lost");
      })().catch((error) => { console.error(error); process.exitCode = 1; });`;
    const { status, stderr } = spawnSync(process.execPath, ["-e", script], {
      cwd,
      encoding: "utf8",
      timeout: 60_000,
    });
    assert.equal(status, 0, stderr);
    assert.deepEqual(
      [readdirSync(cwd).sort(), readdirSync(elsewhere)],
      [["vault", "vault.key", "vault.key.lock"], []],
    );
  });

  test("gets another key as a whole", async () => {
    const dir = folder();
    const [one, two] = [raw(), { keyFile: join(folder(), "key") }];
    const store = await CredentialStore.open(dir, one);
    const other = await CredentialStore.open(dir, one);
    await store.set("a", SECRET);
    await store.rotateKey(two);
    assert.ok((await store.get("a")).equals(SECRET));
    await assert.rejects(other.get("a"), code("CREDENTIAL_KEY"));
    await assert.rejects(CredentialStore.open(dir, one), code("CREDENTIAL_KEY"));
    assert.ok((await (await CredentialStore.open(dir, two)).get("a")).equals(SECRET));
    if (process.platform !== "win32") {
      assert.equal(statSync(two.keyFile).mode & 0o777, 0o600);
      assert.equal(statSync(join(dir, "credentials.vault")).mode & 0o777, 0o600);
    }
  });

  test("audits itself in plain words", async () => {
    const dir = folder();
    const store = await CredentialStore.open(dir, { keyFile: join(dir, "key") });
    const issues = await store.audit();
    const [beside] = issues.filter(({ kind }) => kind === "key-beside-data");
    assert.equal(beside.severity, "warning");
    assert.match(beside.message, /^the key lies beside the data: whoever copies /);
    assert.equal(beside.file, join(dir, "key"));
    if (process.platform !== "win32") {
      chmodSync(join(dir, "credentials.vault"), 0o644);
      const modes = (await store.audit()).filter(({ kind }) => kind === "modes");
      assert.deepEqual(
        modes.map(({ file }) => file),
        [join(dir, "credentials.vault")],
      );
    }
    writeFileSync(join(dir, "credentials.vault"), "OCVAULT1, but no more");
    assert.ok((await store.audit()).some(({ severity, kind }) => severity === "error" && kind === "damaged"));
  });

  test("is written by many calls at once, here and in other processes, and loses nothing", async () => {
    const dir = folder();
    const keyFile = join(folder(), "key");
    const store = await CredentialStore.open(dir, { keyFile });
    const script = `const { CredentialStore } = require("./index.js");
      CredentialStore.open(${JSON.stringify(dir)}, { keyFile: ${JSON.stringify(keyFile)} }).then((store) =>
        Promise.all(Array.from({ length: 20 }, (_, n) => store.set("child/" + n, "child " + n))));`;
    const here = Promise.all(Array.from({ length: 20 }, (_, n) => store.set(`here/${n}`, `here ${n}`)));
    const { status, stderr } = spawnSync(process.execPath, ["-e", script], {
      cwd: root,
      encoding: "utf8",
      timeout: 60_000,
    });
    assert.equal(status, 0, stderr);
    await here;
    for (let n = 0; n < 20; n++) {
      for (const who of ["here", "child"])
        assert.equal((await store.get(`${who}/${n}`)).expose(), `${who} ${n}`);
    }
    assert.equal(await store.generation(), 41);
  });
});
