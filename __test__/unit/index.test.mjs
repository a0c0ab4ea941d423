// The index of an OpenClaw install: which chunk holds which function.
import assert from "node:assert/strict";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { findFunctions, loadIndex } from "../../dist/chunks.js";
import { installAt, installOf } from "../../dist/install.js";
import { satisfies } from "../../dist/status.js";

const target = {
  kind: "function",
  module: "config",
  region: "src/a.ts",
  name: "parse",
  shape: /^\(raw\) \{ return JSON\.parse\(raw\); \}$/,
};
const chunk = (name = "parse", body = "return JSON.parse(raw);", region = "src/a.ts") =>
  `import x from "y";\n//#region ${region}\n/** Why. */\nfunction ${name}(raw) {\n\t${body}\n}\n//#endregion\nexport { ${name} as t };\n`;

describe("finding a function", () => {
  test("takes it by region, name and shape, whatever the bundler appended to the name", () => {
    for (const name of ["parse", "parse$1", "parse$23"]) {
      const { found, problems } = findFunctions(chunk(name), [target]);
      assert.deepEqual(found, [{ region: "src/a.ts", name: "parse", binding: name }]);
      assert.deepEqual(problems, []);
    }
  });

  test("takes it with comments and other white space inside", () => {
    const source = chunk("parse", "// because\n\t/* it is */ return   JSON.parse(raw);");
    assert.equal(findFunctions(source, [target]).found.length, 1);
  });

  test("leaves it alone, and says why, where the region, the name or the code is another", () => {
    for (const [source, reason] of [
      [chunk("parse", "return JSON.parse(raw, reviver);"), /not the one/],
      [chunk("parse", "return JSON.parse(raw);", "src/b.ts"), /marker/],
      [chunk("parse", "return JSON.parse(raw);", "src/a.tsx"), /marker/],
      [chunk("parseAll"), /no top-level function/],
      ["//#region src/a.ts\nlet parse = (raw) => JSON.parse(raw);\n//#endregion\n", /no top-level function/],
      ["function parse(a){return JSON.parse(a)}", /marker/],
    ]) {
      const { found, problems } = findFunctions(source, [target]);
      assert.deepEqual(found, [], source);
      assert.match(problems[0].reason, reason);
    }
  });

  test("does not take a function of the same name from the next region", () => {
    const source = `//#region src/a.ts\nlet a;\n//#endregion\n${chunk("parse", "return JSON.parse(raw);", "src/b.ts")}`;
    assert.deepEqual(findFunctions(source, [target]).found, []);
  });
});

describe("the index of an install", () => {
  let base;
  let install;
  let cache;

  beforeEach(() => {
    base = mkdtempSync(join(tmpdir(), "openclaw-core-index-"));
    const root = join(base, "node_modules/openclaw");
    mkdirSync(join(root, "dist/extensions/x"), { recursive: true });
    writeFileSync(join(root, "package.json"), '{ "name": "openclaw", "version": "1.2.3" }');
    writeFileSync(join(root, "dist/extensions/x/package.json"), '{ "name": "openclaw-x" }');
    writeFileSync(join(root, "dist/extensions/x/main.js"), "");
    writeFileSync(join(root, "dist/a-Hash.mjs"), chunk());
    writeFileSync(join(root, "dist/other.mjs"), "export {};");
    install = installAt(root);
    cache = join(base, "cache");
  });
  afterEach(() => {
    chmodSync(base, 0o700);
    rmSync(base, { recursive: true, force: true });
  });

  const cacheFile = () =>
    join(
      cache,
      readdirSync(cache).find((name) => name.endsWith(".json")),
    );

  test("is scanned once, kept for this user only, and read from the cache after that", () => {
    const first = loadIndex(install, [target], cache);
    assert.equal(first.origin, "scan");
    assert.equal(first.notCached, undefined);
    assert.deepEqual(Object.keys(first.chunks), ["dist/a-Hash.mjs"]);
    assert.deepEqual(readdirSync(cache).length, 1, "no temporary file stays");
    if (process.platform !== "win32") {
      assert.equal(statSync(cacheFile()).mode & 0o777, 0o600);
      assert.equal(statSync(cache).mode & 0o777, 0o700);
    }
    const second = loadIndex(install, [target], cache);
    assert.equal(second.origin, "cache");
    assert.deepEqual(second.chunks, first.chunks);
  });

  test("is scanned again when the version, the files or what is looked for changes", () => {
    loadIndex(install, [target], cache);
    assert.equal(loadIndex({ ...install, version: "1.2.4" }, [target], cache).origin, "scan");
    assert.equal(loadIndex(install, [{ ...target, shape: /x/ }], cache).origin, "scan");
    utimesSync(join(install.root, "package.json"), 1, 1);
    assert.equal(loadIndex(install, [target], cache).origin, "scan");
    writeFileSync(join(install.root, "dist/b.mjs"), chunk("parse$1"));
    utimesSync(join(install.root, "dist"), 2, 2);
    const again = loadIndex(install, [target], cache);
    assert.deepEqual(Object.keys(again.chunks).sort(), ["dist/a-Hash.mjs", "dist/b.mjs"]);
  });

  test("is scanned again and written anew when the cache is truncated, garbage, or another's", () => {
    const good = loadIndex(install, [target], cache);
    const text = readFileSync(cacheFile(), "utf8");
    for (const bad of [
      "",
      text.slice(0, -5),
      "null",
      "[]",
      text.replace(/"key":"./, '"key":"z'),
      text.replace(/"chunks":\{.*?\]\}/, '"chunks":{"a":[{"name":7}]}'),
      text.replace(/"format":\d+/, '"format":0'),
    ]) {
      assert.notEqual(bad, text);
      writeFileSync(cacheFile(), bad);
      const index = loadIndex(install, [target], cache);
      assert.equal(index.origin, "scan", bad);
      assert.deepEqual(index.chunks, good.chunks);
      assert.equal(readFileSync(cacheFile(), "utf8"), text);
    }
  });

  test("works without a cache where none can be written, and says so", () => {
    writeFileSync(join(base, "file"), "");
    const index = loadIndex(install, [target], join(base, "file/cache"));
    assert.equal(index.origin, "scan");
    assert.match(index.notCached, /ENOTDIR|EEXIST|ENOENT/);
    assert.deepEqual(Object.keys(index.chunks), ["dist/a-Hash.mjs"]);
    assert.match(loadIndex(install, [target], undefined).notCached, /cache folder/);
  });

  test("reports a function that no chunk holds", () => {
    const missing = { ...target, name: "gone", region: "src/gone.ts" };
    const { problems } = loadIndex(install, [target, missing], cache);
    assert.deepEqual(problems, [
      { file: "dist", name: "gone", reason: "not found (looked for src/gone.ts)" },
    ]);
  });

  test("belongs to the OpenClaw a script is part of, nested packages notwithstanding, and to no other", () => {
    assert.equal(installOf(join(install.root, "dist/extensions/x/main.js")).version, "1.2.3");
    writeFileSync(join(base, "script.js"), "");
    assert.equal(installOf(join(base, "script.js")), undefined);
    assert.equal(installOf(join(base, "gone.js")), undefined);
  });
});

test("a Node version is held against a range of engines", () => {
  const range = ">=24.16.0 <25 || >=26.1.0";
  for (const [version, fits] of [
    ["24.15.9", false],
    ["24.16.0", true],
    ["24.99.0", true],
    ["25.0.0", false],
    ["26.0.9", false],
    ["26.1.0", true],
    ["27.0.0", true],
    ["20.20.2", false],
  ]) {
    assert.equal(satisfies(version, range), fits, version);
  }
  assert.equal(satisfies("1.0.0", ""), true);
});
