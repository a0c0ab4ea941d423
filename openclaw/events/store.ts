// The event store as the plugin and the command line use it: its shapes, its place, and how it is opened.
import { homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";
import type { EventStore, EventStoreOptions, ImportOpenClawOptions, NewEvent } from "../../index.js";
import { type Addon, loadAddon } from "../addon.js";
import type { Session } from "./host.js";

/** `plugins.entries.core.config.events`; its schema is in openclaw.plugin.json. */
export interface EventsConfig {
  enabled?: boolean;
  path?: string;
  deltas?: boolean;
  durability?: "always" | "interval";
  retention?: { maxAgeDays?: number; maxBytes?: number };
  queue?: { events?: number; bytes?: number };
}

export type {
  EventStore,
  EventStoreOptions as StoreOptions,
  EventStoreStats as StoreStats,
  ImportReport,
  ListSessionsOptions as SessionsQuery,
  NewEvent,
  Projection,
  ReadEventsOptions as Range,
  StoredEvent,
  VerifyReport as Verified,
} from "../../index.js";

/** How far an import is, in bytes of OpenClaw's files. */
export type ImportProgress = Parameters<NonNullable<ImportOpenClawOptions["onProgress"]>>[0];

function addon(): Addon {
  const loaded = loadAddon();
  if ("error" in loaded) throw loaded.error;
  return loaded.addon;
}

/**
 * A gateway writes much and reads little: what it wants to know again, the kernel's own cache has. Beyond this sled holds a
 * page in each of its 256 shards, until the store's sweep of each minute.
 */
export const GATEWAY_CACHE_BYTES = 256 << 10;

/** Opens the store at `path`. */
export function openStore(path: string, options: EventStoreOptions = {}): Promise<EventStore> {
  return addon().EventStore.open(path, options);
}

/** The events that these entries of a session's transcript are, whoever read them: the import gives the same. */
export function transcriptEvents(session: Session, entries: unknown[]): NewEvent[] {
  return addon().transcriptEvents(session, entries);
}

/** Where the store lies: as configured (relative to the state folder), or `core/events` in the state folder. */
export function storePath(stateDir: string, config: EventsConfig = {}): string {
  const path = config.path?.trim();
  if (!path) return join(stateDir, "core", "events");
  if (path === "~" || path.startsWith("~/")) return join(homedir(), path.slice(1));
  return isAbsolute(path) ? path : resolve(stateDir, path);
}

/** The code of an error of the core, or of Node. */
export function codeOf(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" ? code : undefined;
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
