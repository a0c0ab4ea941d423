// `memoryUsage`: what the core holds, by owner, against what the process sees.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import core from "../../index.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
let folder;
let path;
before(() => {
  folder = mkdtempSync(join(tmpdir(), "openclaw-core-memory-"));
  path = join(folder, "openclaw.json");
  const list = Array.from({ length: 40_000 }, (_, id) => ({ id: `agent-${id}`, tools: ["read", "exec"] }));
  writeFileSync(path, JSON.stringify({ agents: { list } }));
});
after(() => rmSync(folder, { recursive: true, force: true }));

/** What a script prints as JSON, run in a process of its own with the garbage collector at hand. */
function fresh(script) {
  const { status, stdout, stderr } = spawnSync(process.execPath, ["--expose-gc", "-e", script], {
    cwd: root,
    encoding: "utf8",
    timeout: 60_000,
  });
  assert.equal(status, 0, stderr);
  return JSON.parse(stdout);
}

test("the total is the sum over the owners, which have names", () => {
  const { total, owners } = core.memoryUsage();
  assert.deepEqual(Object.keys(owners).sort(), [
    "channels",
    "config",
    "events",
    "node",
    "other",
    "providers",
    "runtime",
    "sandbox",
  ]);
  assert.equal(
    total,
    Object.values(owners).reduce((sum, bytes) => sum + bytes, 0),
  );
  assert.ok(Object.values(owners).every((bytes) => Number.isSafeInteger(bytes) && bytes >= 0));
});

test("a config's bytes are its own from the load until it is collected, whatever thread frees them", () => {
  const [before, during, after] = fresh(`
    const { Config, memoryUsage } = require("./index.js");
    const held = [memoryUsage().owners.config];
    const load = () => Config.load({ path: ${JSON.stringify(path)}, env: {}, schema: false });
    (async () => {
      let configs = [await load(), await load()];
      held.push(memoryUsage().owners.config);
      configs = undefined;
      for (let turn = 0; turn < 100; turn++) {
        gc();
        await new Promise((resolve) => setImmediate(resolve));
        if (memoryUsage().owners.config === held[0]) break;
      }
      console.log(JSON.stringify([...held, memoryUsage().owners.config]));
    })();`);
  assert.equal(before, 0);
  // Two configs of 2 MB as text.
  assert.ok(during > 4_000_000, `${during}`);
  assert.equal(after, before);
});

test("the accounts explain nine tenths of the memory that the process gains", {
  skip: process.platform !== "linux" && "reads /proc/self/smaps",
}, () => {
  const { counted, resident } = fresh(`
    const { readFileSync } = require("node:fs");
    const { Config, memoryUsage } = require("./index.js");
    const load = () => Config.loadSync({ path: ${JSON.stringify(path)}, env: {}, schema: false });
    const dirty = () => {
      // What only this process has, outside of V8's heap.
      gc();
      const [, kilobytes] = /Private_Dirty: +(\\d+)/.exec(readFileSync("/proc/self/smaps_rollup", "utf8"));
      return Number(kilobytes) * 1024 - process.memoryUsage().heapTotal;
    };
    load();
    const before = [memoryUsage().total, dirty()];
    const configs = Array.from({ length: 4 }, load);
    const after = [memoryUsage().total, dirty()];
    console.log(JSON.stringify({ counted: after[0] - before[0], resident: after[1] - before[1], configs: configs.length }));`);
  assert.ok(counted > 50_000_000, `${counted}`);
  assert.ok(counted >= 0.9 * resident && counted <= 1.1 * resident, `${counted} of ${resident}`);
});
