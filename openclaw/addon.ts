// The native addon, loaded at first use and never before.
import { createRequire } from "node:module";

/** The package's own exports. */
export type Addon = typeof import("../index.js");

/** Where a plugin's warnings go. */
export interface Logger {
  warn(text: string): void;
  error?(text: string): void;
}

let loaded: { addon: Addon } | { error: Error } | undefined;
let loadNs = 0;
let logger: Logger | undefined;
let listening = false;

/** The addon, or why there is none on this machine. */
export function loadAddon(): { addon: Addon } | { error: Error } {
  if (loaded) return loaded;
  const start = process.hrtime.bigint();
  try {
    const addon = createRequire(import.meta.url)("../index.js") as Addon;
    loaded = { addon };
    listen();
  } catch (error) {
    loaded = { error: error instanceof Error ? error : new Error(String(error)) };
  }
  loadNs = Number(process.hrtime.bigint() - start);
  return loaded;
}

/** What the core warns of goes to this log, from the moment that the addon is loaded. */
export function logTo(to: Logger | undefined): void {
  logger = to ?? logger;
  listen();
}

function listen(): void {
  if (listening || !logger || !loaded || "error" in loaded) return;
  listening = true;
  loaded.addon.onLog("warn", (records) => {
    for (const { level, target, message, fields } of records) {
      const details = Object.entries(fields).map(
        ([name, value]) => `, ${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`,
      );
      // Of `openclaw_core::channels::channel`, the last part.
      const text = `${target.split("::").at(-1)}: ${message}${details.join("")}`;
      if (level === "error" && logger?.error) logger.error(text);
      else logger?.warn(text);
    }
  });
}

/** Whether this thread has tried to load the addon, how that went, and the time it took. */
export function addonState(): { tried: boolean; error?: string; loadNs: number } {
  if (!loaded) return { tried: false, loadNs: 0 };
  return "error" in loaded ? { tried: true, error: loaded.error.message, loadNs } : { tried: true, loadNs };
}
