// `node --import @openclaw/core/register …`, or the same in NODE_OPTIONS. Every Node process under that variable runs
// this file, so one that is not OpenClaw leaves it after a look at its own main script.
// It imports nothing before that look: the first `import` of a built-in module costs a process about 3 ms.
import type { Install } from "./install.js";
import type { Switches as SwitchTable } from "./switch.js";

const main = process.argv[1];
if (main !== undefined && mayBelongToOpenClaw(main)) {
  const { installOf } = await import("./install.js");
  const install = installOf(main);
  if (install) await attach(install);
}

/** False for most scripts that are not OpenClaw's: no package.json above them has the word. */
function mayBelongToOpenClaw(script: string): boolean {
  const fs = process.getBuiltinModule?.("node:fs");
  if (!fs) return true; // before Node 20.16
  try {
    let folder = fs.realpathSync(script);
    for (let at = lastSeparator(folder); at >= 0; at = lastSeparator(folder)) {
      folder = folder.slice(0, at);
      const file = `${folder}/package.json`;
      if (fs.existsSync(file) && fs.readFileSync(file, "utf8").includes('"openclaw"')) return true;
    }
  } catch {
    // A script that is not there, or a package.json that cannot be read.
  }
  return false;
}

function lastSeparator(path: string): number {
  return Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\"));
}

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

  const { isMainThread } = await import("node:worker_threads");
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
  // OpenClaw has about as many as Node takes without a warning: ours must not be the one too many.
  const most = process.getMaxListeners();
  if (most > 0) process.setMaxListeners(most + 1);
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
  const line = `openclaw-core: ${message}\n`;
  const fs = process.getBuiltinModule?.("node:fs");
  try {
    // Written before the process may end, also where stderr is asynchronous.
    if (fs) fs.writeSync(2, line);
    else process.stderr.write(line);
  } catch {
    // Nobody reads this process's errors.
  }
}
