// The native addon, loaded at first use and never before.
import { createRequire } from "node:module";

/** The package's own exports. */
export type Addon = typeof import("../index.js");

let loaded: { addon: Addon } | { error: Error } | undefined;
let loadNs = 0;

/** The addon, or why there is none on this machine. */
export function loadAddon(): { addon: Addon } | { error: Error } {
  if (loaded) return loaded;
  const start = process.hrtime.bigint();
  try {
    const addon = createRequire(import.meta.url)("../index.js") as Addon;
    loaded = { addon };
  } catch (error) {
    loaded = { error: error instanceof Error ? error : new Error(String(error)) };
  }
  loadNs = Number(process.hrtime.bigint() - start);
  return loaded;
}

/** Whether this thread has tried to load the addon, how that went, and the time it took. */
export function addonState(): { tried: boolean; error?: string; loadNs: number } {
  if (!loaded) return { tried: false, loadNs: 0 };
  return "error" in loaded ? { tried: true, error: loaded.error.message, loadNs } : { tried: true, loadNs };
}
