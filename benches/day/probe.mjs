// Preloaded into a gateway, the same into each: once a second a line of how late its timers were and what the core holds, if
// it is there. SIGURG, which means nothing to OpenClaw and to Node, blocks the JavaScript thread.
import { openSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { isMainThread } from "node:worker_threads";

const { DAY_PROBE: folder, DAY_STALL_MS: stallMs } = process.env;
const TICK_MS = 20;

if (folder && isMainThread && process.argv.includes("gateway")) {
  const file = openSync(join(folder, `probe-${process.pid}.jsonl`), "a");
  const { cache } = createRequire(import.meta.url);
  let late = [];
  let ticks = 0;
  let expected = performance.now() + TICK_MS;
  setInterval(() => {
    const now = performance.now();
    ticks++;
    if (now - expected >= 5) late.push(Math.round((now - expected) * 10) / 10);
    expected = now + TICK_MS;
  }, TICK_MS).unref();
  setInterval(() => {
    const line = { atMs: Date.now(), pid: process.pid, ticks, late, core: coreBytes() };
    [late, ticks] = [[], 0];
    try {
      writeSync(file, `${JSON.stringify(line)}\n`);
    } catch {
      // What is measured goes on.
    }
  }, 1000).unref();
  process.on("SIGURG", () => {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(stallMs));
  });

  /** By owner, of each copy of the addon that is loaded. */
  function coreBytes() {
    let sums;
    for (const [path, module] of Object.entries(cache)) {
      if (!path.endsWith(".node") || typeof module.exports?.memoryUsage !== "function") continue;
      sums ??= {};
      for (const [owner, bytes] of Object.entries(module.exports.memoryUsage().owners))
        sums[owner] = (sums[owner] ?? 0) + bytes;
    }
    return sums;
  }
}
