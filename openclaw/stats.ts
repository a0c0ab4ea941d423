// Counts of what each module did in this process, written at exit for whoever asked for them.
import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { threadId } from "node:worker_threads";
import type { ModuleName } from "./modules.js";
import type { ShadowCounts } from "./shadow.js";

/** What was counted of one replaced function. */
export interface FunctionStats {
  calls: number;
  /** UTF-8 bytes of the inputs. */
  bytes: number;
  /** Calls that native code answered. */
  native: number;
  /** Calls that needed neither side, such as strict JSON, which JSON.parse answers. */
  passed: number;
  /** Calls that the original answered: refused by native code, or not asked of it. */
  original: number;
  /** Time of the calls that native code answered. */
  nativeNs: number;
  /** Time of the original on those same inputs; only with OPENCLAW_CORE_STATS=timing. */
  originalNs: number;
  /** How many of those inputs the original was timed on. */
  timed: number;
  /** The first of them as pairs, native and original, for a median that one interrupted call does not move. */
  pairs: [nativeNs: number, originalNs: number][];
}

/** Pairs that one function keeps. */
export const MAX_PAIRS = 256;

/** How a module was attached in one process. */
export interface ModuleStats {
  attached: "native" | "typescript" | "shadow" | "off";
  how: "swap" | "plugin" | "library";
  functions: Record<string, FunctionStats>;
  reason?: string;
  shadow?: ShadowCounts;
}

/** One process's file. */
export interface ProcessStats {
  runId: string | null;
  pid: number;
  threadId: number;
  openclawVersion: string;
  node: string;
  /** Time the addon took to load here; 0 where nothing needed it. */
  addonLoadNs: number;
  modules: Partial<Record<ModuleName, ModuleStats>>;
}

/** Fresh counts. */
export function newFunctionStats(): FunctionStats {
  return {
    calls: 0,
    bytes: 0,
    native: 0,
    passed: 0,
    original: 0,
    nativeNs: 0,
    originalNs: 0,
    timed: 0,
    pairs: [],
  };
}

/** Writes one process's counts; never throws, since it runs while the host ends. */
export function writeStats(folder: string, stats: ProcessStats): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    // A pid may come back within one run.
    const name = `${stats.pid}-${threadId}-${Date.now().toString(36)}.json`;
    const temporary = join(folder, `.${name}.tmp`);
    writeFileSync(temporary, JSON.stringify(stats), { mode: 0o600 });
    renameSync(temporary, join(folder, name));
  } catch {
    // Counting must not disturb what is counted.
  }
}
