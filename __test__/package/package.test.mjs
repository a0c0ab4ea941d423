import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { NOTICES } from "../../scripts/sbom.mjs";
import { install, manifest, npm, pack, platform, root, run, scratch } from "./packed.mjs";

const nodes = ["20", "22", "24", "26"].map((major) => [
  major,
  join(root, `__test__/node/node_modules/node${major}-${process.platform}-${process.arch}/bin/node`),
]);

describe("the packed packages", () => {
  const tarballs = scratch("tarballs");
  // What a user's folder may be called.
  const app = scratch("my app – größer 東京");
  const without = scratch("without the binary");
  let packed;

  before(() => {
    packed = pack(tarballs.folder);
    install(app.folder, [packed.main.path, packed.native.path]);
    install(without.folder, [packed.main.path], ["--omit=optional"]);
  });
  after(() => {
    for (const { remove } of [tarballs, app, without]) remove();
  });

  const node = (args, { cwd = app.folder, command = process.execPath } = {}) => {
    const result = run(command, args, { cwd, timeout: 30_000 });
    assert.equal(result.error, undefined, `node did not end: ${result.error}`);
    return result;
  };
  const prints = (result, expected) => {
    assert.equal(result.stderr, "");
    assert.equal(result.stdout.trim(), expected);
    assert.equal(result.status, 0);
  };

  test("the main package holds its loader, types, dist and documents, and no binary, source or test", () => {
    const files = packed.main.files.map(({ path }) => path);
    const outside = files.filter((path) => !path.startsWith("dist/")).sort();
    const expected = [
      "CHANGELOG.md",
      "LICENSE",
      "README.md",
      "index.d.ts",
      "index.js",
      "openclaw.plugin.json",
      "package.json",
    ];
    assert.deepEqual(outside, expected);
    const inside = files.filter((path) => path.startsWith("dist/"));
    assert.ok(
      inside.includes("dist/package.json") &&
        inside.includes("dist/cli.js") &&
        inside.includes("dist/register.js"),
    );
    for (const path of inside) assert.match(path, /(?:\.d\.ts|\.js|\/package\.json)$/);
  });

  test("every file that package.json points at is in the tarball", () => {
    const files = new Set(packed.main.files.map(({ path }) => path));
    const targets = [
      manifest.main,
      manifest.types,
      ...Object.values(manifest.bin),
      ...manifest.openclaw.extensions,
    ];
    const collect = (entry) =>
      typeof entry === "string" ? targets.push(entry) : Object.values(entry).forEach(collect);
    collect(manifest.exports);
    for (const target of targets)
      assert.ok(files.has(target.replace(/^\.\//, "")), `${target} is not packed`);
  });

  test("the platform package holds the binary and stays within 15 MiB unpacked", () => {
    const files = packed.native.files.map(({ path }) => path).sort();
    const expected = ["LICENSE", "README.md", NOTICES, `core.${platform}.node`, "package.json"];
    if (platform.startsWith("linux")) expected.push("openclaw-core-init");
    assert.deepEqual(files, expected.sort());
    assert.ok(packed.native.unpackedSize <= 15 * 1024 * 1024, `${packed.native.unpackedSize} bytes`);
  });

  test("there is one platform package for each target, of the same version and engines", () => {
    const folders = readdirSync(join(root, "npm"));
    assert.equal(folders.length, manifest.napi.targets.length);
    for (const folder of folders) {
      const own = JSON.parse(readFileSync(join(root, "npm", folder, "package.json"), "utf8"));
      assert.equal(own.name, `${manifest.name}-${folder}`);
      assert.equal(own.version, manifest.version);
      assert.deepEqual(own.engines, manifest.engines);
      const [system, cpu, abi] = folder.split("-");
      assert.deepEqual([own.os, own.cpu], [[system], [cpu]]);
      assert.deepEqual(own.libc, system === "linux" ? [{ gnu: "glibc", musl: "musl" }[abi]] : undefined);
      assert.match(readFileSync(join(root, "index.js"), "utf8"), new RegExp(`require\\("${own.name}"\\)`));
    }
  });

  test("nothing runs at install: no package has an install script", () => {
    for (const file of [
      "package.json",
      ...readdirSync(join(root, "npm")).map((name) => `npm/${name}/package.json`),
    ]) {
      const { scripts = {} } = JSON.parse(readFileSync(join(root, file), "utf8"));
      for (const name of ["preinstall", "install", "postinstall", "prepare"])
        assert.ok(!(name in scripts), `${file}: ${name}`);
    }
  });

  test("installed into a folder with spaces and letters beyond ASCII, it loads by require", () => {
    prints(node(["-e", 'console.log(require("@openclaw/core").parseJson5("{a:[1,],}").a[0])']), "1");
  });

  test("named and default imports give the same functions as require", () => {
    const code = `
      import core, { parseJson5, coreInfo } from "@openclaw/core";
      import { createRequire } from "node:module";
      const required = createRequire(process.cwd() + "/x.js")("@openclaw/core");
      console.log(parseJson5 === required.parseJson5 && core.coreInfo === coreInfo && coreInfo().version);`;
    prints(node(["--input-type=module", "-e", code]), manifest.version);
  });

  for (const [major, command] of nodes) {
    test(`it loads and parses under Node ${major}`, () => {
      const code =
        'console.log(process.versions.node.split(".")[0], require("@openclaw/core").parseJson5("0x10"))';
      prints(node(["-e", code], { command }), `${major} 16`);
    });
  }

  test("worker threads load it, use it and end, while the main thread goes on using it", () => {
    writeFileSync(
      join(app.folder, "workers.cjs"),
      `const { Worker, isMainThread, parentPort } = require("node:worker_threads");
       const { parseJson5 } = require("@openclaw/core");
       if (!isMainThread) parentPort.postMessage(parseJson5("{n: 2}").n);
       else (async () => {
         let sum = 0;
         for (let round = 0; round < 5; round++) {
           const results = Array.from({ length: 4 }, () => new Promise((resolve, reject) => {
             const worker = new Worker(__filename);
             let value;
             worker.on("message", (message) => (value = message));
             worker.on("error", reject);
             worker.on("exit", (code) => (code === 0 ? resolve(value) : reject(new Error("exit " + code))));
           }));
           for (const value of await Promise.all(results)) sum += value;
         }
         console.log(sum + parseJson5("1"));
       })();`,
    );
    prints(node(["workers.cjs"]), "41");
  });

  test("loaded twice in one process, from two paths, both work", () => {
    const code = `
      const first = require("@openclaw/core");
      for (const key of Object.keys(require.cache)) delete require.cache[key];
      const second = require("@openclaw/core");
      console.log(first !== second, first.parseJson5("[1]")[0] + second.parseJson5("[2]")[0]);`;
    prints(node(["-e", code]), "true 3");
  });

  test("without its platform package it ends in one sentence that names the package and the remedy", () => {
    const result = node(["-e", 'require("@openclaw/core")'], { cwd: without.folder });
    assert.equal(result.status, 1);
    const sentences = result.stderr.split("\n").filter((line) => line.includes(`@openclaw/core-${platform}`));
    assert.equal(sentences.length, 1, result.stderr);
    assert.match(sentences[0], /is not installed: install again without --omit=optional.*npm install/);
    assert.doesNotMatch(result.stderr, /^\s+at /m);
    assert.doesNotMatch(result.stderr, /Require stack/);
  });

  test("a caller can catch that failure by its code, from ESM too", () => {
    const code =
      'try { await import("@openclaw/core") } catch (error) { console.log(error.code, error instanceof Error) }';
    prints(node(["--input-type=module", "-e", code], { cwd: without.folder }), "CORE_BINARY_MISSING true");
  });

  test("the binary of another machine ends in one sentence that says why it cannot be loaded", () => {
    const broken = scratch("broken");
    try {
      install(broken.folder, [packed.main.path, packed.native.path]);
      const file = join(broken.folder, `node_modules/@openclaw/core-${platform}/core.${platform}.node`);
      assert.ok(existsSync(file));
      writeFileSync(file, "not a library");
      const result = node(["-e", 'require("@openclaw/core")'], { cwd: broken.folder });
      assert.equal(result.status, 1);
      assert.match(result.stderr, /is installed but its binary cannot be loaded \(.+\); reinstall it/);
      assert.doesNotMatch(result.stderr, /^\s+at /m);
    } finally {
      broken.remove();
    }
  });

  test("the command line program runs from node_modules/.bin", () => {
    const program = join(app.folder, "node_modules/.bin/openclaw-core");
    const result = run(program, ["--version"], { cwd: app.folder, timeout: 30_000 });
    assert.equal(result.status, 0, result.stderr);
    assert.match(result.stdout, new RegExp(manifest.version.replaceAll(".", "\\.")));
  });

  test("publint finds nothing", async () => {
    const { publint } = await import("publint");
    const { formatMessage } = await import("publint/utils");
    const { messages, pkg } = await publint({
      pkgDir: join(app.folder, "node_modules/@openclaw/core"),
      strict: true,
      pack: false,
    });
    assert.deepEqual(
      messages.map((message) => formatMessage(message, pkg, { color: false })),
      [],
    );
  });

  test("the types resolve for every module system that TypeScript knows", () => {
    const attw = join(root, "node_modules/@arethetypeswrong/cli/dist/index.js");
    // node10 does not know "exports", so it cannot see ./register; that entry is an ES module for --import alone.
    const result = node([
      attw,
      packed.main.path,
      "--profile",
      "node16",
      "--ignore-rules",
      "cjs-resolves-to-esm",
      "--no-emoji",
    ]);
    assert.equal(result.status, 0, result.stdout + result.stderr);
  });

  test("the tarball of the main package is small: the native code is not in it", () => {
    assert.ok(packed.main.size < 500_000, `${packed.main.size} bytes`);
    assert.ok(statSync(packed.native.path).size > packed.main.size);
    assert.match(npm(["ls", "--all"], app.folder), /@openclaw\/core@/);
  });
});
