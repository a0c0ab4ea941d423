// What holds for every export: errors with codes, no panic that reaches Node, a log that holds nothing up.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import core from "../../index.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), "openclaw-core-unit-"));
after(() => rmSync(scratch, { recursive: true, force: true }));

test("a panic is an Error with the code INTERNAL, on whichever thread it happens, and Node lives on", async () => {
  const built = spawnSync("cargo", ["build", "--quiet", "--lib", "--features", "panics"], {
    cwd: root,
    encoding: "utf8",
  });
  assert.equal(built.status, 0, built.stderr);
  const name = { darwin: "libopenclaw_core.dylib", win32: "openclaw_core.dll" };
  const target = process.env.CARGO_TARGET_DIR ?? join(root, "target");
  const addon = join(scratch, "panics.node");
  copyFileSync(join(target, "debug", name[process.platform] ?? "libopenclaw_core.so"), addon);
  const panics = createRequire(import.meta.url)(addon);
  const expected = { name: "Error", code: "INTERNAL", message: /a bug, on purpose/ };
  for (let turn = 0; turn < 3; turn++) {
    assert.throws(() => panics.panicSync(), expected);
    await assert.rejects(panics.panicAsync(), expected);
    await assert.rejects(panics.panicBlocking(), { name: "Error", code: "INTERNAL" });
  }
  assert.deepEqual(panics.parseJson5("{a: 1}"), { a: 1 });
});

test("every function that is exported to Node catches panics", () => {
  const folder = join(root, "src/node");
  let seen = 0;
  for (const file of readdirSync(folder)) {
    const source = readFileSync(join(folder, file), "utf8");
    for (const [text, attribute] of source.matchAll(
      /#\[napi(\((?:[^[\]]|\[[^\]]*\])*?\))?\]\s*(?:#\[[^\n]*\]\s*)*pub (?:async )?fn/g,
    )) {
      seen++;
      // What runs at import catches by itself: napi knows no attribute for it.
      const body = source.slice(source.indexOf(text)).split("\n}\n", 1)[0];
      const where = attribute === "(module_exports)" ? body : (attribute ?? "");
      assert.match(where, /\bcatch_unwind\b/, `${file}: ${text}`);
    }
  }
  assert.ok(seen > 15, `only ${seen} exports were found`);
});

test("coreInfo names the version, the platform and what is built in", () => {
  const info = core.coreInfo();
  assert.equal(info.version, JSON.parse(readFileSync(join(root, "package.json"), "utf8")).version);
  assert.ok(
    info.target.startsWith({ linux: "linux", darwin: "macos", win32: "windows" }[process.platform]),
    info.target,
  );
  assert.deepEqual(
    info.capabilities.map(({ name, available }) => [name, available]),
    [
      ["types", true],
      ["config", true],
      ["events", true],
    ],
  );
});

test("the log arrives in batches with its fields, without values of the config, until it is stopped", async () => {
  const path = join(scratch, "openclaw.json");
  const secret = "canary-7d1f";
  writeFileSync(path, `{gateway: {port: 1, auth: {mode: "token", token: "${secret}"}}}`);
  const records = [];
  const stop = core.onLog("debug", (batch) => records.push(...batch));
  const config = await core.Config.load({ path, schema: false });
  await config.edit([{ op: "set", path: "gateway.port", value: 2 }]);
  for (let turn = 0; turn < 500 && !records.some(({ message }) => message === "config edited"); turn++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  const loaded = records.find(({ message }) => message === "config loaded");
  assert.equal(loaded?.level, "debug");
  assert.equal(loaded.fields.file, path);
  assert.ok(Math.abs(loaded.timeMs - Date.now()) < 60_000);
  const edited = records.find(({ message }) => message === "config edited");
  assert.deepEqual([edited?.level, edited?.fields.changes], ["info", 1]);
  assert.ok(!JSON.stringify(records).includes(secret));
  stop();
  const heard = records.length;
  await core.Config.load({ path, schema: false });
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(records.length, heard);
  assert.throws(() => core.onLog("loud", () => {}), {
    code: "VALIDATION",
    message: /`level` must be one of error, warn/,
  });
});

test("a process that only listens to the log ends by itself", () => {
  const code = `require(${JSON.stringify(join(root, "index.js"))}).onLog("trace", () => {})`;
  const { status, signal } = spawnSync(process.execPath, ["-e", code], { timeout: 20_000 });
  assert.deepEqual([status, signal], [0, null]);
});

test("a load that is aborted after it began rejects with the signal's reason, unless it was quicker", async () => {
  const path = join(scratch, "openclaw.json");
  const reason = new TypeError("enough");
  const controller = new AbortController();
  const loading = core.Config.load({ path, signal: controller.signal });
  controller.abort(reason);
  // The load may have been quicker; then it is good.
  const outcome = await loading.then(
    (config) => config.constructor.name,
    (error) => error,
  );
  assert.ok(outcome === reason || outcome === "Config", String(outcome));
});

test("a signal's reason is what an aborted call rejects with, whatever it is", async () => {
  const path = join(scratch, "openclaw.json");
  for (const reason of [new TypeError("enough"), { why: 1 }, "why", 7, null, false, 10n, Symbol("why")]) {
    const signal = AbortSignal.abort(reason);
    const outcome = await core.Config.load({ path, signal }).then(assert.fail, (error) => error);
    assert.equal(outcome, reason);
    const stream = (await core.Config.load({ path, schema: false })).watch({ signal });
    assert.equal(await stream.next().then(assert.fail, (error) => error), reason);
  }
});

test("an edit that is aborted either rejects and wrote nothing, or wrote and resolves", async () => {
  const path = join(scratch, "aborted.json");
  writeFileSync(path, "{count: 0}", { mode: 0o600 });
  let config = await core.Config.load({ path, schema: false });
  let written = 0;
  let refused = 0;
  for (let turn = 0; turn < 60; turn++) {
    const controller = new AbortController();
    const editing = config.edit([{ op: "set", path: "count", value: turn + 1 }], {
      signal: controller.signal,
    });
    // At once, some time on the way, and, so that a slow machine sees both outcomes, when it is over.
    if (turn % 3 === 0) controller.abort("now");
    else if (turn % 3 === 1) setTimeout(() => controller.abort("soon"), (turn % 20) / 4);
    else editing.then(() => controller.abort("too late"));
    const before = config.get("count");
    const resolved = await editing.then(
      (next) => next,
      (error) => assert.match(error, /^(now|soon)$/),
    );
    config = await core.Config.load({ path, schema: false });
    assert.equal(config.get("count"), resolved ? turn + 1 : before);
    if (resolved) written++;
    else refused++;
  }
  assert.ok(written > 0 && refused > 0, `${written} written, ${refused} refused: only one kind was seen`);
});

test("arguments of the wrong kind are refused by name, and no other config is read instead", async () => {
  const path = join(scratch, "openclaw.json");
  const config = await core.Config.load({ path, schema: false });
  for (const [call, name] of [
    [() => core.Config.load(path), "options"],
    [() => core.Config.loadSync(5), "options"],
    [() => core.Config.load({ path: 5 }), "path"],
    [() => core.Config.load({ path, signal: 5 }), "signal"],
    [() => core.Config.load({ path, signal: {} }), "signal"],
    [() => core.Config.load({ path, schema: 5 }), "schema"],
    [() => config.watch("x"), "options"],
    [() => config.edit(), "changes"],
    [() => config.edit([{ op: "set", path: "a", value: 1n }]), "changes"],
    [() => config.edit([{ op: "set", path: "a", value: NaN }]), "changes"],
    [() => config.edit([{ op: "set", path: "a", value: 1 }], { allowShrink: "yes" }), "allowShrink"],
  ]) {
    const outcome = await (async () => call())().then(
      () => undefined,
      (error) => error,
    );
    assert.equal(outcome?.code, "VALIDATION", `${call}: ${outcome}`);
    assert.match(outcome.message, new RegExp(`\\b${name}\\b`), String(call));
  }
});

test("a pipe in the place of a config is refused and holds nobody up", {
  skip: process.platform === "win32" && "there are no such pipes",
}, async () => {
  const path = join(scratch, "pipe.json");
  assert.equal(spawnSync("mkfifo", [path]).status, 0);
  await Promise.all(
    Array.from({ length: 16 }, () =>
      assert.rejects(core.Config.load({ path }), { code: "IO", message: /not a regular file/ }),
    ),
  );
});

const isRoot = process.getuid?.() === 0;
test("root edits a user's config as that user's", {
  skip: !isRoot && "only root can give a file to a user",
}, async () => {
  const path = join(scratch, "theirs.json");
  writeFileSync(path, "{a: 1}", { mode: 0o640 });
  chownSync(path, 1234, 4321);
  await (await core.Config.load({ path, schema: false })).edit([{ op: "set", path: "a", value: 2 }]);
  const { uid, gid, mode } = statSync(path);
  assert.deepEqual([uid, gid, mode & 0o777], [1234, 4321, 0o600]);
});

test("a link above the config that is turned elsewhere is noticed", async () => {
  for (const port of [1, 2]) {
    mkdirSync(join(scratch, `release-${port}`));
    writeFileSync(join(scratch, `release-${port}/openclaw.json`), `{port: ${port}}`, { mode: 0o600 });
  }
  const link = join(scratch, "current");
  symlinkSync("release-1", link);
  const config = await core.Config.load({ path: join(link, "openclaw.json"), schema: false });
  const changes = config.watch({ signal: AbortSignal.timeout(20_000) });
  // Once a change has come, the watch stands, and what comes after it is not found by its first look.
  let next = changes.next();
  writeFileSync(join(scratch, "release-1/openclaw.json"), "{port: 3}");
  assert.equal((await next).value.config.get("port"), 3);
  next = changes.next();
  symlinkSync("release-2", `${link}.new`);
  renameSync(`${link}.new`, link);
  const { value } = await next;
  assert.deepEqual(value.changedPaths, ["port"]);
  assert.equal(value.config.get("port"), 2);
  await changes.return();
});

test("a config of 10 MB is read, edited and explained", async () => {
  const path = join(scratch, "ten-megabytes.json5");
  const line = `    "${"x".repeat(90)}", // one of many\n`;
  const count = Math.ceil(10_000_000 / line.length);
  writeFileSync(path, `{\n  notes: [\n${line.repeat(count)}  ],\n  port: 1,\n}\n`, { mode: 0o600 });
  const config = await core.Config.load({ path, schema: false });
  assert.equal(config.get("notes").length, count);
  assert.equal(config.explain("port").line, count + 4);
  const edited = await config.edit([{ op: "set", path: "port", value: 2 }]);
  assert.equal(edited.get("port"), 2);
  assert.equal(readFileSync(path, "utf8").split("// one of many").length - 1, count);
});

test("a config that may not be read, and a folder that may not be written, give IO and lose nothing", (t) => {
  const folder = join(scratch, "read-only");
  mkdirSync(folder);
  for (const name of ["closed.json", "open.json"]) writeFileSync(join(folder, name), "{a: 1}");
  chmodSync(join(folder, "closed.json"), 0o000);
  chmodSync(join(folder, "open.json"), 0o444);
  chmodSync(folder, 0o555);
  chmodSync(scratch, 0o755);
  const code = `
    const { Config } = require(${JSON.stringify(join(root, "index.js"))});
    const at = (name) => ({ path: ${JSON.stringify(folder)} + "/" + name, schema: false, env: {} });
    (async () => {
      const closed = await Config.load(at("closed.json")).catch(({ code, message }) => ({ code, message }));
      const config = await Config.load(at("open.json"));
      const edit = await config.edit([{ op: "set", path: "a", value: 2 }]).catch(({ code, message }) => ({ code, message }));
      console.log(JSON.stringify({ closed, edit }));
    })();`;
  // Modes do not bind root.
  const user = isRoot ? { uid: 65534, gid: 65534 } : {};
  const reach = `require("node:fs").accessSync(${JSON.stringify(join(root, "index.js"))})`;
  if (spawnSync(process.execPath, ["-e", reach], { ...user, cwd: "/" }).status !== 0) {
    t.skip("another user than root cannot reach this checkout, or this Node");
    return;
  }
  const { status, stdout, stderr, error } = spawnSync(process.execPath, ["-e", code], {
    ...user,
    encoding: "utf8",
    cwd: "/",
  });
  assert.equal(status, 0, `${stderr}${error ?? ""}`);
  const { closed, edit } = JSON.parse(stdout);
  assert.equal(closed.code, "IO");
  assert.match(closed.message, /closed\.json.*(permission|denied)/i);
  assert.equal(edit.code, "IO");
  assert.match(edit.message, /open\.json/);
  assert.equal(readFileSync(join(folder, "open.json"), "utf8"), "{a: 1}");
  assert.deepEqual(readdirSync(folder).sort(), ["closed.json", "open.json"]);
});

test("V8 collects configs for what they hold outside of its heap", () => {
  const path = join(scratch, "large.json");
  const notes = Array.from({ length: 20_000 }, (_, i) => `note ${i}`);
  writeFileSync(path, JSON.stringify({ notes }), { mode: 0o600 });
  const code = `
    const { Config } = require(${JSON.stringify(join(root, "index.js"))});
    (async () => {
      const before = process.memoryUsage().rss;
      for (let i = 0; i < 300; i++) await Config.load({ path: ${JSON.stringify(path)}, schema: false });
      console.log(process.memoryUsage().rss - before);
    })();`;
  const { status, stdout, stderr } = spawnSync(process.execPath, ["-e", code], { encoding: "utf8" });
  assert.equal(status, 0, stderr);
  // Each holds some 3 MB. Left to V8's own heap, which sees 300 small objects, two thirds more would stay.
  assert.ok(Number(stdout) < 200e6, `300 dropped configs left ${stdout.trim()} bytes`);
});
