// Puts the core's functions in place of OpenClaw's as its chunks load. Nothing on disk changes: a load hook prepends
// an assignment to the chunk's first line, so that the hoisted function's name means the replacement, for callers
// within the chunk and for every importer, and no line moves.
import module, { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { threadId } from "node:worker_threads";
import { configReplacements } from "./adapters/config.js";
import { providerReplacements } from "./adapters/providers.js";
import { validationReplacements } from "./adapters/validation.js";
import { type Addon, addonState, loadAddon } from "./addon.js";
import {
  bundles,
  findFunctions,
  importsOf,
  type LoadedIndex,
  loadIndex,
  type SwapFunction,
  type SwapTarget,
} from "./chunks.js";
import { cacheDir, type Install, stateDir } from "./install.js";
import { MODULES, type ModuleName, swapTargets } from "./modules.js";
import { Background, Shadow } from "./shadow.js";
import { type FunctionStats, MAX_PAIRS, type ModuleStats, newFunctionStats, writeStats } from "./stats.js";
import type { Mode, Switches } from "./switch.js";

type Environment = Readonly<Record<string, string | undefined>>;
type Replacements = Record<string, (original: never) => unknown>;

/** The replacements of each module that attaches by swap. */
const REPLACEMENTS: Partial<Record<ModuleName, (runtime: ModuleRuntime) => Replacements>> = {
  config: configReplacements,
  providers: providerReplacements,
  validation: validationReplacements,
};

/** The key of this thread's one core on `globalThis`; the prepended text finds it there. */
export const CORE = Symbol.for("openclaw.core");

/** Part of Node's hook interface that the core uses; Node 20 has none of it. */
interface HookApi {
  registerHooks?(hooks: {
    load(url: string, context: unknown, next: (url: string, context: unknown) => LoadResult): LoadResult;
  }): { deregister(): void };
}
interface LoadResult {
  format?: string | null;
  source?: string | ArrayBufferView | ArrayBuffer | null;
}

/** Whether this Node can swap functions as they load. */
export function canHook(): boolean {
  return typeof (module as HookApi).registerHooks === "function";
}

/** One module inside a running OpenClaw: its mode, its counts, and which side answers. */
export class ModuleRuntime {
  readonly name: ModuleName;
  /** May be changed while the process runs; `off` then means that the originals answer. */
  mode: Mode;
  readonly shadow: Shadow;
  readonly functions = new Map<string, FunctionStats>();
  readonly #core: Core;

  constructor(core: Core, name: ModuleName, mode: Mode) {
    this.#core = core;
    this.name = name;
    this.mode = mode;
    this.shadow = new Shadow(name, core.background, core.reportFolder, {
      module: name,
      openclaw: core.install.version,
      pid: process.pid,
    });
  }

  /** The addon, unless the module is off or there is none on this machine. */
  addon(): Addon | undefined {
    return this.mode === "off" ? undefined : this.#core.addon(this.name);
  }

  /** Counts a call whose answer comes later and in parts: who gave it is for the caller to count. */
  begin(name: string): FunctionStats {
    return this.#count(name, "");
  }

  /** A call that the module answers as OpenClaw does, with nothing native to gain. */
  passed(name: string, input: string): void {
    this.#count(name, input).passed++;
  }

  /**
   * A call that native code may answer. Both sides must depend on the input alone; what native code throws is
   * dropped and the original answers. `failed` says of an answer that it stands for an error.
   */
  call<T>(
    name: string,
    input: string,
    original: () => T,
    native: (addon: Addon) => T,
    failed?: (answer: T) => boolean,
  ): T {
    const stats = this.#count(name, input);
    const addon = this.mode === "off" ? undefined : this.#core.addon(this.name);
    if (!addon) {
      stats.original++;
      return original();
    }
    if (this.mode === "shadow") {
      stats.original++;
      const answered = (): T => {
        const answer = original();
        if (failed?.(answer)) throw new Error("the original reports an error");
        return answer;
      };
      this.shadow.observe(name, input, answered, () => native(addon));
      return original();
    }
    const { timing } = this.#core;
    const start = this.#core.counting ? process.hrtime.bigint() : 0n;
    let answer: T;
    try {
      answer = native(addon);
    } catch {
      stats.original++;
      return original();
    }
    const nativeNs = this.#core.counting ? Number(process.hrtime.bigint() - start) : 0;
    stats.nativeNs += nativeNs;
    stats.native++;
    if (timing) {
      this.#core.background.add(input.length, () => {
        // Once unmeasured: the addon's loading is not counted either, and OpenClaw loads npm json5 at first use.
        if (stats.timed === 0) original();
        const start = process.hrtime.bigint();
        original();
        const originalNs = Number(process.hrtime.bigint() - start);
        stats.originalNs += originalNs;
        stats.timed++;
        if (stats.pairs.length < MAX_PAIRS) stats.pairs.push([nativeNs, originalNs]);
      });
    }
    return answer;
  }

  #count(name: string, input: string): FunctionStats {
    let stats = this.functions.get(name);
    if (!stats) {
      stats = newFunctionStats();
      this.functions.set(name, stats);
    }
    stats.calls++;
    if (this.#core.counting) stats.bytes += Buffer.byteLength(input);
    return stats;
  }
}

/** The core inside one thread of one OpenClaw process. */
export class Core {
  readonly install: Install;
  readonly background = new Background();
  /** Whether anybody asked for counts of bytes and time. */
  readonly counting: boolean;
  readonly timing: boolean;
  readonly modules = new Map<ModuleName, ModuleRuntime>();
  /** Of modules that OpenClaw reaches through its plugin surface. */
  readonly #surfaces = new Map<ModuleName, Map<string, FunctionStats>>();
  readonly #env: Environment;
  readonly #switches: Switches;
  readonly #warn: (message: string) => void;
  readonly #targets: SwapTarget[];
  readonly #replacements = new Map<string, (original: never) => unknown>();
  #index: LoadedIndex | undefined;

  constructor(install: Install, switches: Switches, env: Environment, warn: (message: string) => void) {
    this.install = install;
    this.#switches = switches;
    this.#env = env;
    this.#warn = warn;
    this.timing = env.OPENCLAW_CORE_STATS === "timing";
    this.counting = this.timing || Boolean(env.OPENCLAW_CORE_STATS_DIR);
    const wanted = MODULES.map(({ name }) => name).filter((name) => switches.mode(name) !== "off");
    this.#targets = swapTargets(wanted);
    for (const name of new Set(this.#targets.map(({ module }) => module))) {
      const runtime = new ModuleRuntime(this, name, switches.mode(name));
      this.modules.set(name, runtime);
      for (const [key, make] of Object.entries(REPLACEMENTS[name]?.(runtime) ?? {})) {
        this.#replacements.set(key, make);
      }
    }
  }

  /** Where differences are reported: OpenClaw's own state folder once it is there, and never made by the core. */
  readonly reportFolder = (): string | undefined => reportFolder(this.#env);

  /** The addon, or nothing after the one warning that there is none. */
  addon(wantedBy: ModuleName): Addon | undefined {
    const loaded = loadAddon();
    if ("addon" in loaded) return loaded.addon;
    this.#warn(`${wantedBy} stays TypeScript: ${loaded.error.message}`);
    return undefined;
  }

  /** Which chunks hold what; read or made at first need. */
  index(): LoadedIndex {
    this.#index ??= loadIndex(this.install, this.#functions(), cacheDir(this.#env));
    return this.#index;
  }

  /** What keeps the module from being native in this OpenClaw, in one sentence each. */
  missing(name: ModuleName): string[] {
    const row = MODULES.find((candidate) => candidate.name === name);
    if (row?.state !== "native") return [`the module ${name} is not built in this version of the core`];
    const missing: string[] = [];
    const loaded = loadAddon();
    if ("error" in loaded) missing.push(loaded.error.message);
    if (row.attaches !== "swap") return missing;
    if (!canHook()) missing.push(noHooks());
    for (const target of this.#targets.filter(({ module }) => module === name)) {
      const why = target.kind === "function" ? this.#notFound(target) : this.#notInstalled(target.package);
      if (why) missing.push(why);
    }
    return missing;
  }

  /** Installs the load hook; returns what takes it out again. */
  hook(): () => void {
    const packages = this.#packageFiles();
    const folders = bundles(this.install, this.#functions()).map(({ folder, prefix }) => ({
      url: `${pathToFileURL(folder).href}/`,
      folder,
      prefix,
    }));
    const hooks = (module as HookApi).registerHooks?.({
      load: (url, context, next) => {
        const result = next(url, context);
        try {
          for (const { url: dist, folder, prefix } of folders) {
            if (url.startsWith(dist)) return this.#chunk(prefix, folder, url.slice(dist.length), result);
          }
          const name = packages.get(url);
          return name ? this.#package(name, result) : result;
        } catch (error) {
          // What goes wrong here must not keep OpenClaw from starting.
          this.#warn(`stays TypeScript: ${url} cannot be read for it (${error})`);
          return result;
        }
      },
    });
    return () => hooks?.deregister();
  }

  /** Called by the prepended text: the replacement of a function, or the function itself if there is none. */
  swap(name: string, original: (...args: unknown[]) => unknown): unknown {
    try {
      const make = this.#replacements.get(name);
      if (!make) return original;
      const replacement = make(original as never) as (...args: unknown[]) => unknown;
      for (const key of ["name", "length"] as const) {
        Object.defineProperty(replacement, key, { value: original[key], configurable: true });
      }
      return replacement;
    } catch (error) {
      this.#warn(`${name} stays TypeScript: ${error instanceof Error ? error.message : String(error)}`);
      return original;
    }
  }

  /** Called at the end of a package's file, with what the package exports. */
  amend(name: string, exported: unknown): void {
    try {
      this.#replacements.get(name)?.(exported as never);
    } catch (error) {
      this.#warn(`${name} stays TypeScript: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  /** Counts a call that a module answered through OpenClaw's plugin surface. */
  answered(module: ModuleName, name: string): void {
    const functions = this.#surfaces.get(module) ?? new Map<string, FunctionStats>();
    this.#surfaces.set(module, functions);
    const stats = functions.get(name) ?? newFunctionStats();
    functions.set(name, stats);
    stats.calls++;
    stats.native++;
  }

  /** Ends what still runs in the background and writes reports and counts. */
  finish(): void {
    this.background.finish();
    for (const runtime of this.modules.values()) runtime.shadow.report();
    const folder = this.#env.OPENCLAW_CORE_STATS_DIR;
    if (!folder) return;
    writeStats(folder, {
      runId: this.#env.OPENCLAW_CORE_RUN_ID ?? null,
      pid: process.pid,
      threadId,
      openclawVersion: this.install.version,
      node: process.versions.node,
      addonLoadNs: addonState().loadNs,
      modules: Object.fromEntries(MODULES.map(({ name }) => [name, this.#moduleStats(name)])),
    });
  }

  #moduleStats(name: ModuleName): ModuleStats {
    const row = MODULES.find((candidate) => candidate.name === name);
    const how = row?.attaches ?? "library";
    const runtime = this.modules.get(name);
    const mode = runtime?.mode ?? this.#switches.mode(name);
    if (mode === "off") return { attached: "off", how, functions: {}, reason: this.#switches.source(name) };
    if (row?.state !== "native") return { attached: "typescript", how, functions: {}, reason: "not built" };
    if (how === "library") {
      return { attached: "typescript", how, functions: {}, reason: row.note ?? "only by import" };
    }
    const functions = Object.fromEntries([
      ...(runtime?.functions ?? []),
      ...(this.#surfaces.get(name) ?? []),
    ]);
    const { error } = addonState();
    const reason = error ?? (canHook() ? this.#found() : noHooks());
    if (reason) return { attached: "typescript", how, functions, reason };
    return mode === "shadow"
      ? { attached: "shadow", how, functions, ...(runtime && { shadow: runtime.shadow.counts }) }
      : { attached: "native", how, functions };
  }

  /** Why nothing could be attached, if nothing could. */
  #found(): string | undefined {
    if (!this.#index || Object.keys(this.#index.chunks).length > 0) return undefined;
    return this.#index.problems.map(({ name, reason }) => `${name}: ${reason}`).join("; ");
  }

  #functions(): SwapFunction[] {
    return this.#targets.flatMap((target) => (target.kind === "function" ? [target] : []));
  }

  #notFound({ name, region }: SwapFunction): string | undefined {
    const { chunks, problems } = this.index();
    if (Object.values(chunks).some((found) => found.some((hit) => hit.name === name))) return undefined;
    const reasons = problems.filter((problem) => problem.name === name).map(({ reason }) => reason);
    return `${name} of ${region} in OpenClaw ${this.install.version}: ${reasons[0] ?? "not found"}`;
  }

  #notInstalled(name: string): string | undefined {
    return this.#resolve(name) ? undefined : `the package ${name} is not installed with OpenClaw`;
  }

  #resolve(name: string): string | undefined {
    try {
      return createRequire(join(this.install.root, "package.json")).resolve(name);
    } catch {
      return undefined;
    }
  }

  /** The file each package target lives in, as a URL. Other packages' copies are not touched. */
  #packageFiles(): Map<string, string> {
    const files = new Map<string, string>();
    for (const target of this.#targets) {
      if (target.kind !== "package") continue;
      const file = this.#resolve(target.package);
      const expected = join(target.package, target.file);
      if (file?.endsWith(expected)) files.set(pathToFileURL(file).href, target.name);
      else this.#warn(`${target.name} stays TypeScript: OpenClaw's ${target.package} has no ${target.file}`);
    }
    return files;
  }

  #chunk(prefix: string, folder: string, path: string, result: LoadResult): LoadResult {
    const name = decodeURI(path.split(/[?#]/, 1)[0] ?? path);
    const file = prefix + name;
    const first = this.#index === undefined;
    const { chunks } = this.index();
    if (first) this.#warnOfMissing();
    if (!Object.hasOwn(chunks, file) || result.format !== "module") return result;
    const source = textOf(result.source);
    if (source === undefined) return result;
    // The index only says where to look: what is replaced is decided by the text that runs.
    const own = this.#functions().filter((target) =>
      prefix === "dist/" ? target.package === undefined : prefix === `${target.package}/dist/`,
    );
    const { found } = findFunctions(source, own, importsOf(join(folder, name)));
    const head = found
      .map(
        ({ name, binding }) =>
          `${binding}=globalThis[Symbol.for("openclaw.core")].swap("${name}",${binding});`,
      )
      .join("");
    const shebang = source.startsWith("#!") ? source.indexOf("\n") + 1 : 0;
    return { ...result, source: source.slice(0, shebang) + head + source.slice(shebang) };
  }

  #package(name: string, result: LoadResult): LoadResult {
    const source = textOf(result.source);
    if (source === undefined) return result;
    // On the last line, after the exports are set, and in words that no export scanner takes for an export.
    const tail = `;globalThis[Symbol.for("openclaw.core")]?.amend("${name}",module["exports"]);`;
    return { ...result, source: `${source.trimEnd()}\n${tail}\n` };
  }

  #warnOfMissing(): void {
    const missing = this.#functions().flatMap((target) => this.#notFound(target) ?? []);
    if (missing.length > 0) this.#warn(`stays TypeScript: ${missing.join("; ")}`);
  }
}

/** Where differences are reported. */
export function reportFolder(env: Environment): string | undefined {
  if (env.OPENCLAW_CORE_REPORT_DIR) return env.OPENCLAW_CORE_REPORT_DIR;
  return join(stateDir(env), "openclaw-core");
}

/** Why this Node cannot swap. */
export function noHooks(): string {
  return `Node ${process.versions.node} has no module.registerHooks; OpenClaw's functions can be replaced from Node 22.15 on`;
}

function textOf(source: LoadResult["source"]): string | undefined {
  if (typeof source === "string") return source;
  if (!source) return undefined;
  const bytes = ArrayBuffer.isView(source)
    ? Buffer.from(source.buffer, source.byteOffset, source.byteLength)
    : Buffer.from(source);
  return bytes.toString("utf8");
}
