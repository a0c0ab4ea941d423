// `node --import @openclaw/core/register …`, or the same in NODE_OPTIONS. Every Node process under that variable runs
// this file, so one that is not OpenClaw leaves it after a look at its own main script.
import { writeSync } from "node:fs";
import { isMainThread } from "node:worker_threads";
import { type Install, installOf } from "./install.js";
import type { Switches as SwitchTable } from "./switch.js";

const install = process.argv[1] === undefined ? undefined : installOf(process.argv[1]);
if (install) await attach(install);

async function attach(install: Install): Promise<void> {
  const { Switches, SwitchError, unknownSwitches } = await import("./switch.js");
  const { MODULES, swapTargets } = await import("./modules.js");
  let switches: SwitchTable;
  try {
    switches = Switches.read(process.env);
  } catch (error) {
    if (!(error instanceof SwitchError)) throw error;
    return refuse(error.message);
  }
  const unknown = unknownSwitches(process.env);
  if (unknown.length > 0) {
    warn(
      `${unknown.join(", ")} switches nothing; the modules are ${MODULES.map(({ name }) => name).join(", ")}`,
    );
  }
  const names = MODULES.map(({ name }) => name);
  const on = names.filter((name) => switches.mode(name) !== "off");
  const counted = Boolean(process.env.OPENCLAW_CORE_STATS_DIR);
  // A module asked for by its own name must be there; OPENCLAW_CORE=require means those that attach today.
  const required = MODULES.filter(
    ({ name, state, attaches }) =>
      switches.mode(name) === "require" &&
      (switches.source(name) !== "OPENCLAW_CORE" || (state === "native" && attaches !== "library")),
  ).map(({ name }) => name);
  if (swapTargets(on).length === 0 && required.length === 0 && !counted) return;

  const { Core, CORE, canHook, noHooks } = await import("./swap.js");
  const holder = globalThis as Record<symbol, unknown>;
  if (holder[CORE]) return;
  const core = new Core(install, switches, process.env, warn);
  holder[CORE] = core;
  if (isMainThread) {
    const missing = required.flatMap((name) => core.missing(name).map((what) => `${name}: ${what}`));
    if (missing.length > 0)
      return refuse(`refusing to start, as required: ${[...new Set(missing)].join("; ")}`);
  }
  if (core.modules.size > 0) {
    if (canHook()) core.hook();
    else warn(`everything stays TypeScript: ${noHooks()}`);
  }
  process.once("exit", () => core.finish());
}

/** One warning for the whole tree of processes: the children inherit that it was given. */
function warn(message: string): void {
  if (process.env.OPENCLAW_CORE_WARNED) return;
  process.env.OPENCLAW_CORE_WARNED = "1";
  say(message);
}

function refuse(message: string): void {
  say(message);
  process.exit(1);
}

function say(message: string): void {
  try {
    writeSync(2, `openclaw-core: ${message}\n`);
  } catch {
    // Nobody reads this process's errors.
  }
}
