// Run under each Node release that is supported: one binary serves them all.
//
// Another processor's Node runs in an emulator, which LOAD_UNDER names for the processes that are started here.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));

/** Runs a script in a fresh process of this same Node; it must end by itself, silently, with code 0. */
function fresh(code) {
  const under = process.env.LOAD_UNDER;
  const [command, ...args] = [...(under ? [under] : []), process.execPath, "-e", code];
  const { status, signal, stdout, stderr } = spawnSync(command, args, {
    cwd: root,
    encoding: "utf8",
    timeout: under ? 300_000 : 30_000,
  });
  assert.deepEqual({ status, signal, stderr }, { status: 0, signal: null, stderr: "" });
  return stdout.trim();
}

test("the binary loads, says its version, and reads JSON5", () => {
  const { coreInfo, parseJson5 } = createRequire(import.meta.url)(root);
  assert.equal(coreInfo().version, version);
  assert.deepEqual(parseJson5("{ a: [0x10, +1, .5,], 'b': 'line \\\nend', }"), {
    a: [16, 1, 0.5],
    b: "line end",
  });
});

test("ES modules see each export of the binary by name", async () => {
  const required = createRequire(import.meta.url)(root);
  const { default: whole, ...named } = await import("../../index.js");
  delete named["module.exports"];
  assert.equal(whole, required);
  assert.deepEqual(Object.keys(named).sort(), Object.keys(required).sort());
});

test("an error has a code and a place", () => {
  const { parseJson5 } = createRequire(import.meta.url)(root);
  assert.throws(
    () => parseJson5("{\n  a: @\n}"),
    (error) =>
      error instanceof Error && error.code === "CONFIG_PARSE" && error.line === 2 && error.column > 0,
  );
});

test("a process that imported the core and used it ends by itself", () => {
  assert.equal(fresh('console.log(require("./index.js").parseJson5("[7]")[0])'), "7");
});

test("importing starts no thread and opens no file", {
  skip: process.platform !== "linux" && "reads /proc",
}, () => {
  const counts = fresh(`
    const { readdirSync } = require("node:fs");
    const count = () => ["task", "fd"].map((kind) => readdirSync("/proc/self/" + kind).length);
    const before = count();
    require("./index.js");
    console.log(JSON.stringify([before, count()]));`);
  const [before, after] = JSON.parse(counts);
  assert.deepEqual(after, before);
});

test("a worker thread that is terminated while it uses the core takes nothing with it", () => {
  const output = fresh(`
    const { Worker } = require("node:worker_threads");
    const code = 'const { parseJson5 } = require("./index.js"); require("node:worker_threads").parentPort.postMessage(1); for (;;) parseJson5("[1,2,3]")';
    let ended = 0;
    for (let index = 0; index < 3; index++) {
      const worker = new Worker(code, { eval: true });
      worker.on("message", () => worker.terminate());
      worker.on("exit", () => {
        if (++ended === 3) console.log(require("./index.js").parseJson5("'alive'"));
      });
    }`);
  assert.equal(output, "alive");
});
