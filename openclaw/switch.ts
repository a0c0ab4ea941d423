// The switch: how each module is to behave, from the environment and the plugin's config.
import { MODULE_NAMES, type ModuleName } from "./modules.js";

/** What a module may be asked to do. */
export const MODES = ["auto", "require", "shadow", "off"] as const;

/** `auto`: native where it can be. `require`: native or no start. `shadow`: both, TypeScript answers. `off`: nothing. */
export type Mode = (typeof MODES)[number];

/** Names that begin like a module's switch and are something else. */
const OTHER_VARIABLES = new Set([
  "OPENCLAW_CORE_RUN_ID",
  "OPENCLAW_CORE_STATS",
  "OPENCLAW_CORE_STATS_DIR",
  "OPENCLAW_CORE_CACHE_DIR",
  "OPENCLAW_CORE_REPORT_DIR",
  "OPENCLAW_CORE_WARNED",
]);

/** A switch with a value, or for a module, that does not exist. */
export class SwitchError extends Error {
  override name = "SwitchError";
}

/** The mode of each module, and where it was set. */
export class Switches {
  readonly #modes: ReadonlyMap<ModuleName, { mode: Mode; source: string }>;

  private constructor(modes: ReadonlyMap<ModuleName, { mode: Mode; source: string }>) {
    this.#modes = modes;
  }

  /**
   * A module's own variable beats `OPENCLAW_CORE`, and both beat the plugin's config: whoever starts the process has
   * the last word. A value that is none of the four throws SwitchError.
   */
  static read(
    env: Readonly<Record<string, string | undefined>>,
    pluginModules: Readonly<Record<string, unknown>> = {},
  ): Switches {
    const modes = new Map<ModuleName, { mode: Mode; source: string }>();
    const all = readMode("OPENCLAW_CORE", env.OPENCLAW_CORE);
    for (const name of Object.keys(pluginModules)) {
      if (!(MODULE_NAMES as readonly string[]).includes(name)) {
        throw new SwitchError(
          `plugins.entries.core.config.modules.${name} names no module; the modules are ${MODULE_NAMES.join(", ")}`,
        );
      }
    }
    for (const name of MODULE_NAMES) {
      const variable = variableOf(name);
      const path = `plugins.entries.core.config.modules.${name}`;
      const own = readMode(variable, env[variable]);
      const plugin = readMode(path, pluginModules[name]);
      if (own) modes.set(name, { mode: own, source: variable });
      else if (all) modes.set(name, { mode: all, source: "OPENCLAW_CORE" });
      else if (plugin) modes.set(name, { mode: plugin, source: path });
      else modes.set(name, { mode: "auto", source: "default" });
    }
    return new Switches(modes);
  }

  /** How the module is to behave. */
  mode(name: ModuleName): Mode {
    return this.#modes.get(name)?.mode ?? "auto";
  }

  /** The variable or config path that said so, or `default`. */
  source(name: ModuleName): string {
    return this.#modes.get(name)?.source ?? "default";
  }
}

/** The variable that switches one module. */
export function variableOf(name: ModuleName): string {
  return `OPENCLAW_CORE_${name.toUpperCase()}`;
}

/** Variables that look like a switch and belong to no module: a misspelt one would otherwise do nothing, silently. */
export function unknownSwitches(env: Readonly<Record<string, string | undefined>>): string[] {
  const known = new Set<string>(MODULE_NAMES.map(variableOf));
  return Object.keys(env).filter(
    (name) => name.startsWith("OPENCLAW_CORE_") && !known.has(name) && !OTHER_VARIABLES.has(name),
  );
}

function readMode(where: string, value: unknown): Mode | undefined {
  if (value === undefined || value === "") return undefined;
  const mode = MODES.find((candidate) => candidate === value);
  if (mode) return mode;
  throw new SwitchError(`${where} is ${JSON.stringify(value)}; it must be one of ${MODES.join(", ")}`);
}
