// `openclaw config set` and the core's `edit` at the same time, on the same file.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import core from "../../index.js";
import { createHome } from "./fixture.mjs";

const STOCK_CALLS = 8;
const TRIES = 20;
const LONGEST_PAUSE = 5000;

const config = `{
  gateway: { mode: "local", auth: { mode: "token", token: "x" } },
  env: { vars: { FIRST: "1" } },
}
`;

test("stock writes and core edits lose nothing of each other", async (t) => {
  const home = await createHome({ config });
  t.after(() => home.remove());
  const path = join(home.stateDir, "openclaw.json");
  const load = () => core.Config.load({ path, schema: false });

  let running = true;
  let tried = 1;
  let edits = 0;
  let conflicts = 0;
  const coreWrites = (async () => {
    while (running) {
      // Stock reads, thinks for a second or more and only then writes: bursts with a pause between them let it
      // through at times, and meet it at any point.
      for (let burst = Math.ceil(Math.random() * 8); burst > 0; burst -= 1) {
        const current = await load();
        try {
          await current.edit([{ op: "set", path: `env.vars.CORE_${edits + 1}`, value: String(edits + 1) }]);
          edits += 1;
        } catch (error) {
          // Stock holds its lock for as long as a busy machine has it wait: nothing was written, and it is tried again.
          if (error.code === "TIMEOUT") continue;
          assert.equal(error.code, "CONFIG_CONFLICT", error.stack);
          assert.notEqual(error.revision, current.revision);
          conflicts += 1;
        }
      }
      // The more often stock was refused, the longer: it takes longer than that on a busy machine.
      await pause(Math.random() * LONGEST_PAUSE * tried);
    }
  })();

  let refusals = 0;
  let raced = 0;
  const stockWrites = (async () => {
    for (let call = 1; call <= STOCK_CALLS; call += 1) {
      for (let attempt = 1; ; attempt += 1) {
        tried = attempt;
        const before = edits;
        const run = await home.openclaw(["config", "set", `env.vars.STOCK_${call}`, `s${call}`]);
        if (edits > before) raced += 1;
        if (run.code === 0) break;
        // Stock refuses loudly when the file changed under it; that is its own rule, and nothing is lost.
        assert.match(run.stderr, /changed while this command was writing|file lock timeout/);
        refusals += 1;
        assert.ok(attempt < TRIES, `stock never got through: ${run.stderr}`);
      }
    }
  })();
  try {
    await stockWrites;
  } finally {
    running = false;
    await coreWrites;
  }

  const { FIRST, ...vars } = (await load()).get("env.vars");
  assert.equal(FIRST, "1");
  const expected = {};
  for (let n = 1; n <= edits; n += 1) expected[`CORE_${n}`] = String(n);
  for (let n = 1; n <= STOCK_CALLS; n += 1) expected[`STOCK_${n}`] = `s${n}`;
  assert.deepEqual(vars, expected);
  assert.ok(raced > 0, `${edits} core edits, none of them while stock ran`);
  assert.equal(existsSync(`${path}.lock`), false);
  assert.equal(JSON.parse(readFileSync(path, "utf8")).gateway.mode, "local");
  t.diagnostic(
    `${STOCK_CALLS} stock writes (${raced} with core edits meanwhile, ${refusals} refused and repeated), ${edits} core edits (${conflicts} conflicts)`,
  );
});
