// The event store as the plugin and the command line use it: its shapes, its place, and how it is opened.
import { homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";
import { loadAddon } from "../addon.js";
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

export interface NewEvent {
  sessionKey: string;
  agentId: string;
  kind: string;
  data: unknown;
  timestampMs?: number;
  id?: string;
}
export interface StoredEvent extends Required<NewEvent> {
  seq: number;
  origin: { replica: string; seq: number };
  clock: string;
  hash: string;
}
export interface Projection {
  sessionKey: string;
  agentId: string;
  firstMs: number;
  lastMs: number;
  events: number;
  messages: number;
  toolCalls: number;
  ended: boolean;
  usage: { input?: number; output?: number; totalTokens?: number } & Record<string, unknown>;
  state: Record<string, unknown>;
  lastMessage?: string;
}
export interface SessionsQuery {
  prefix?: string;
  agentId?: string;
  after?: string;
  limit?: number;
  order?: "recent" | "key";
}
export interface Range {
  after?: number;
  before?: number;
  limit?: number;
  reverse?: boolean;
  kinds?: string[];
}
export interface Verified {
  ok: boolean;
  sessions: number;
  events: number;
  problems: { sessionKey: string; seq: number; problem: string }[];
}
export interface ImportReport {
  sessions: number;
  events: number;
  skipped: { file: string; line: number; reason: string }[];
  alreadyPresent: number;
}
export interface ImportProgress {
  done: number;
  total: number;
}
export interface StoreStats {
  sessions: number;
  events: number;
  diskBytes: number;
  memoryBytes: number;
}
export interface StoreOptions {
  durability?: "always" | "interval";
  readOnly?: boolean;
  retention?: { maxAgeMs?: number; maxBytes?: number };
}
export interface EventStore {
  appendBatch(events: NewEvent[]): Promise<StoredEvent[]>;
  read(sessionKey: string, options?: Range): Promise<StoredEvent[]>;
  follow(options?: { sessionKey?: string; after?: string; signal?: AbortSignal }): AsyncIterable<StoredEvent>;
  projection(sessionKey: string): Promise<Projection | null>;
  sessions(options?: SessionsQuery): Promise<Projection[]>;
  importOpenClaw(
    stateDir: string,
    options?: { dryRun?: boolean; signal?: AbortSignal; onProgress?: (progress: ImportProgress) => void },
  ): Promise<ImportReport>;
  exportTranscript(sessionKey: string): Promise<string>;
  verify(options?: { rebuild?: boolean; signal?: AbortSignal }): Promise<Verified>;
  stats(): Promise<StoreStats>;
  close(): Promise<void>;
}
interface EventsAddon {
  EventStore: { open(path: string, options?: StoreOptions): Promise<EventStore> };
  transcriptEvents(session: Session, entries: unknown[]): NewEvent[];
}

function addon(): EventsAddon {
  const loaded = loadAddon();
  if ("error" in loaded) throw loaded.error;
  return loaded.addon as unknown as EventsAddon;
}

/** Opens the store at `path`. */
export function openStore(path: string, options: StoreOptions = {}): Promise<EventStore> {
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
