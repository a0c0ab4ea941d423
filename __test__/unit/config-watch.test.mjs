// `Config.edit` and `Config.watch` as JavaScript sees them.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import core from "../../index.js";

const folders = [];
after(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

async function scratch(text, files = {}) {
  const folder = mkdtempSync(join(tmpdir(), "openclaw-core-config-"));
  folders.push(folder);
  const path = join(folder, "openclaw.json");
  for (const [name, content] of Object.entries({ "openclaw.json": text, ...files }))
    writeFileSync(join(folder, name), content);
  const load = (options) => core.Config.load({ path, schema: false, env: {}, ...options });
  return { folder, path, load, config: await load(), read: () => readFileSync(path, "utf8") };
}

describe("edit", () => {
  test("changes what it names, keeps the rest, and resolves with the config as it then is", async () => {
    const variable = "$".concat("{X}");
    const text = `// mine\n{\n  a: 1, // one\n  'b': { c: '${variable}' },\n  gone: 0,\n}\n`;
    const { config, load, read } = await scratch(text);
    const next = await config.edit(
      [
        { op: "set", path: "a", value: 2 },
        { op: "set", path: "b.list[0]", value: { "x y": ["\ud800", null, "ü"] } },
        { op: "unset", path: "gone" },
      ],
      { allowShrink: true },
    );
    assert.deepEqual(next.value, { a: 2, b: { c: variable, list: [{ "x y": ["\ud800", null, "ü"] }] } });
    assert.equal(next.revision, (await load()).revision);
    assert.ok(read().startsWith(`// mine\n{\n  a: 2, // one\n  'b': { c: '${variable}', list: [`), read());
    assert.deepEqual(config.get("a"), 1);
  });

  test("rejects with a typed error and leaves the file alone", async () => {
    const text = "{ a: 1, b: 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' }";
    const { folder, config, load, read } = await scratch(text);
    const set = (path, value) => config.edit([{ op: "set", path, value }]);
    await assert.rejects(set("a.b", 1), { code: "CONFIG_PATH", path: "a.b" });
    await assert.rejects(set("a..b", 1), { code: "CONFIG_PATH", path: "a..b" });
    await assert.rejects(set("b", 1), { code: "CONFIG_SHRINK" });
    await assert.rejects(config.edit([{ op: "unset", path: "a" }]), { code: "CONFIG_SHRINK", path: "a" });
    assert.throws(() => set("a", Number.NaN), { code: "VALIDATION" });
    for (const changes of [
      undefined,
      1,
      {},
      [1],
      [{ op: "set", path: "a" }],
      [{ op: "let", path: "a" }],
      [{ op: "unset" }],
    ])
      assert.throws(() => config.edit(changes), { code: "VALIDATION" });
    const readonly = await load({ env: { OPENCLAW_CONFIG_READONLY: "1" } });
    await assert.rejects(readonly.edit([{ op: "set", path: "a", value: 2 }]), { code: "CONFIG_READONLY" });
    await assert.rejects(
      config.edit([{ op: "set", path: "a", value: 2 }], { signal: AbortSignal.abort(new RangeError("no")) }),
      RangeError,
    );
    writeFileSync(config.path, text.replace("1", "3"));
    const { revision } = await load();
    await assert.rejects(set("a", 2), { code: "CONFIG_CONFLICT", revision });
    assert.equal(read(), text.replace("1", "3"));
    assert.deepEqual(readdirSync(folder), ["openclaw.json"]);
  });

  test("stops waiting for the lock when its signal fires", async () => {
    const { path, config, read } = await scratch("{ a: 1 }");
    writeFileSync(`${path}.lock`, JSON.stringify({ pid: process.pid }));
    const controller = new AbortController();
    const edit = config.edit([{ op: "set", path: "a", value: 2 }], { signal: controller.signal });
    const reason = new Error("enough");
    controller.abort(reason);
    await assert.rejects(edit, reason);
    assert.equal(read(), "{ a: 1 }");
  });

  test("refuses a config that its schema would refuse", async () => {
    const { config, load, read } = await scratch("{ a: 1 }");
    const schema = { type: "object", properties: { a: { type: "number" } } };
    const checked = await load({ schema });
    const change = [{ op: "set", path: "a", value: "x" }];
    await assert.rejects(checked.edit(change), { code: "CONFIG_INVALID", path: "a" });
    assert.equal(read(), "{ a: 1 }");
    await checked.edit(change, { validate: false });
    assert.equal((await config.edit([]).catch((error) => error)).code, "CONFIG_CONFLICT");
  });
});

/** Takes updates until one satisfies `wanted`. */
async function take(updates, wanted) {
  for (;;) {
    const { value, done } = await updates.next();
    assert.equal(done, false, "the watch ended");
    if (wanted(value)) return value;
  }
}

describe("watch", () => {
  test("tells of saves in place and by rename, of included files, and of bad revisions", {
    timeout: 60_000,
  }, async () => {
    const { folder, path, config } = await scratch("{ a: 1, i: { $include: './i.json' } }", {
      "i.json": "{}",
    });
    const updates = config.watch();
    const seen = take(updates, ({ config }) => config?.get("a") === 2);
    writeFileSync(path, "{ a: 2, i: { $include: './i.json' } }");
    assert.ok((await seen).changedPaths.includes("a"));

    writeFileSync(join(folder, "new"), "{ a: 3, i: { $include: './i.json' } }");
    renameSync(path, `${path}~`);
    renameSync(join(folder, "new"), path);
    const renamed = await take(updates, ({ config }) => config?.get("a") === 3);
    assert.ok(renamed.config instanceof core.Config);

    writeFileSync(join(folder, "i.json"), '{ "x": true }');
    const included = await take(updates, ({ config }) => config?.get("i.x") === true);
    assert.deepEqual(included.changedPaths, ["i.x"]);

    writeFileSync(path, "{ a: 4, ");
    const bad = await take(updates, ({ error }) => error !== undefined);
    assert.deepEqual([bad.error.code, bad.config, bad.changedPaths], ["CONFIG_PARSE", undefined, []]);
    assert.ok(bad.error instanceof Error);

    rmSync(path);
    await take(updates, ({ error }) => error?.code === "CONFIG_NOT_FOUND");
    writeFileSync(path, "{ a: 5 }");
    const back = await take(updates, ({ config }) => config?.get("a") === 5);
    assert.deepEqual(back.changedPaths, ["a", "i"]);
    assert.deepEqual(await updates.return(), { done: true });
    assert.deepEqual(await updates.next(), { done: true });
  });

  test("sees what the core itself writes", { timeout: 60_000 }, async () => {
    const { config } = await scratch("{ a: 1 }");
    const updates = config.watch();
    await config.edit([{ op: "set", path: "a", value: 2 }]);
    const { changedPaths } = await take(updates, ({ config }) => config?.get("a") === 2);
    assert.deepEqual(changedPaths, ["a"]);
    await updates.return();
  });

  test("ends with the signal's reason", { timeout: 60_000 }, async () => {
    const { config } = await scratch("{}");
    const controller = new AbortController();
    const next = config.watch({ signal: controller.signal }).next();
    const reason = new Error("closing");
    controller.abort(reason);
    await assert.rejects(next, reason);
    await assert.rejects(config.watch({ signal: controller.signal }).next(), reason);
  });

  test("lets the process end after break", { timeout: 60_000 }, async () => {
    const { path } = await scratch("{ a: 1 }");
    const script = `
      const { Config } = require("./index.js");
      const { writeFileSync } = require("node:fs");
      (async () => {
        const config = await Config.load({ path: process.argv[1], schema: false });
        setTimeout(() => writeFileSync(process.argv[1], "{ a: 2 }"), 50);
        for await (const update of config.watch()) if (update.config?.get("a") === 2) break;
        console.log("seen");
      })();`;
    const root = fileURLToPath(new URL("../..", import.meta.url));
    const run = spawnSync(process.execPath, ["-e", script, path], {
      cwd: root,
      encoding: "utf8",
      timeout: 50_000,
    });
    assert.deepEqual([run.status, run.stdout, run.stderr], [0, "seen\n", ""]);
  });
});
