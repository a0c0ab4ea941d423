// The mirror: what happens in the gateway, kept in the event store.
//
// Two ways lead in. What OpenClaw commits to a transcript is pulled from there by cursor, whenever something says that
// the transcript grew: live, after a gap and at start it is the same reading, and it waits for the store, so it can
// neither overflow nor be lost. What exists only in the moment (agent events, hooks) is pushed into a bounded queue,
// which never waits: when it is full, events are dropped, counted by their numbers, and the loss becomes an event.
import { AsyncLocalStorage } from "node:async_hooks";
import { randomUUID } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { Cursors } from "./cursors.js";
import { type AgentEvent, isIncognito, type Session, type Transcripts } from "./host.js";
import { Runs } from "./runs.js";
import {
  codeOf,
  type EventStore,
  messageOf,
  type NewEvent,
  type StoredEvent,
  type StoreOptions,
  transcriptEvents,
} from "./store.js";

export interface MirrorOptions {
  path: string;
  open: (path: string, options: StoreOptions) => Promise<EventStore>;
  store: StoreOptions;
  transcripts: () => Promise<Transcripts>;
  /** Keep the pieces of messages that are still being written. */
  deltas: boolean;
  queue: { events: number; bytes: number };
  log: { info(text: string): void; warn(text: string): void };
  health?: { reportFailure(error: unknown): void; clearFailure(): void } | undefined;
}

/** What `openclaw core events status` shows of a running mirror. */
export interface MirrorStatus {
  state: "opening" | "mirroring" | "waiting" | "stopped";
  path: string;
  /** Why it waits, or what it cannot do. */
  problem?: string;
  appended: number;
  refused: number;
  lost: number;
  queue: { events: number; bytes: number };
  /** Transcripts that are known to have grown and were not read yet. */
  pendingTranscripts: number;
}

/** How long the first event waits for company before the store is called. */
const LINGER_MS = 20;
const BATCH_EVENTS = 256;
const BATCH_BYTES = 1 << 20;
/** Read, converted and given to the store in one go: about a millisecond of the event loop. */
const PAGE_BYTES = 64 << 10;
/** What OpenClaw's reader gives at most. */
const MAX_PAGE_BYTES = 64 << 20;
const RETRY_MS = [500, 1_000, 2_000, 5_000, 10_000];
/** OpenClaw gives a service that it replaces five seconds to stop. */
const DRAIN_MS = 4_000;
/** Errors by which the store says that it is the event that is wrong. */
const REFUSALS = new Set(["EVENT_INVALID", "EVENT_TOO_LARGE"]);

interface Queued {
  event: NewEvent;
  bytes: number;
  /** For an event of a run: which, and its number there. */
  run?: { id: string; seq: number };
}

export class Mirror {
  readonly path: string;
  readonly #options: MirrorOptions;
  readonly #runs = new Runs();
  /**
   * Runs a function as if nobody had called it. Listeners run inside an agent's turn, whose context would follow into
   * every timer set there, and OpenClaw's reader would then show the transcript as that turn may see it.
   */
  readonly #detached = AsyncLocalStorage.snapshot();
  #state: MirrorStatus["state"] = "opening";
  #problem: string | undefined;
  #store: EventStore | undefined;
  #transcripts: Transcripts | undefined;
  #cursors: Cursors | undefined;
  readonly #queue: Queued[] = [];
  #queuedBytes = 0;
  /** Transcripts to read, by key; one that grows while it is read comes again. */
  readonly #grown = new Map<string, Session>();
  #pumping: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #failures = 0;
  #stopping = false;
  #appended = 0;
  #refused = 0;
  #lost = 0;
  #saidRefused = false;
  /** OpenClaw's dates of the sessions that were found at start, until they are read. */
  readonly #listedAt = new Map<string, number>();
  readonly #unreadable = new Set<string>();

  constructor(options: MirrorOptions) {
    this.#options = options;
    this.path = options.path;
  }

  /** Opens the store; rejects if that fails, and goes on trying. */
  async start(): Promise<void> {
    const opening = this.#open();
    this.#run(() => opening);
    await opening;
  }

  status(): MirrorStatus {
    return {
      state: this.#state,
      path: this.path,
      ...(this.#problem !== undefined && { problem: this.#problem }),
      appended: this.#appended,
      refused: this.#refused,
      lost: this.#lost,
      queue: { events: this.#queue.length, bytes: this.#queuedBytes },
      pendingTranscripts: this.#grown.size,
    };
  }

  /** The open store, for the gateway's methods. */
  get store(): EventStore | undefined {
    return this.#store;
  }

  /** A session's transcript may have grown. */
  grown(session: Partial<Session> | undefined): void {
    const { agentId, sessionKey, sessionId } = session ?? {};
    if (!agentId || !sessionKey || !sessionId || isIncognito(sessionKey)) return;
    this.#grown.set(`${agentId}\n${sessionId}`, { agentId, sessionKey, sessionId });
    this.#wake();
  }

  /** An event of an agent's run. The mirror owns the object. */
  agentEvent(event: AgentEvent): void {
    const run = this.#runs.see(event);
    if (isIncognito(run.sessionKey)) return;
    const { sessionKey, sessionId, agentId } = run;
    if (run.missed) this.#wake();
    const phase = event.data?.phase;
    if (event.stream === "lifecycle" && (phase === "end" || phase === "error")) this.grown(run);
    if (!this.#options.deltas && isDelta(event)) return;
    const { stream, data, seq, runId, ts } = event;
    const { toolCallId, name, args } = data ?? {};
    const id = `tool:${sessionId}:${toolCallId}`;
    if (stream === "tool" && phase === "start" && sessionId && typeof toolCallId === "string" && isId(id)) {
      // The same fact as the call in the assistant's message, and so the same event.
      this.#push({
        event: {
          sessionKey,
          agentId,
          kind: "tool_called",
          id,
          timestampMs: ts,
          data: { sessionId, toolCallId, name, arguments: args ?? {} },
        },
        run: { id: runId, seq },
      });
      return;
    }
    this.#push({
      event: {
        sessionKey,
        agentId,
        kind: `agent_${stream}`,
        id: `run:${runId}:${seq}`,
        timestampMs: ts,
        data: {
          runId,
          seq,
          stream,
          ...(sessionId && { sessionId }),
          data: this.#options.deltas ? data : withoutResult(stream, data),
        },
      },
      run: { id: runId, seq },
    });
  }

  /** Something that a hook saw. */
  hookEvent(event: NewEvent): void {
    if (!isIncognito(event.sessionKey)) this.#push({ event });
  }

  /** Writes what is queued and closes the store. What is not written in time is read from the transcripts at start. */
  async stop(): Promise<void> {
    if (this.#stopping) return;
    this.#stopping = true;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const deadline = Date.now() + DRAIN_MS;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`the store took longer than ${DRAIN_MS} ms`)), DRAIN_MS);
    });
    late.catch(() => {});
    try {
      await Promise.race([this.#pumping, late]);
      if (this.#store) await Promise.race([this.#drain(() => Date.now() < deadline), late]);
      else if (this.#queue.length > 0) throw new Error(this.#problem ?? "the store was not open");
    } catch (error) {
      this.#options.log.warn(`events: ${this.#queue.length} events were not stored: ${messageOf(error)}`);
    }
    clearTimeout(timer);
    if (this.#store) {
      await this.#cursors?.close().catch(() => {});
      await this.#store.close().catch((error) => {
        this.#options.log.warn(`events: the store did not close: ${messageOf(error)}`);
      });
    }
    this.#store = undefined;
    this.#state = "stopped";
  }

  async #open(): Promise<void> {
    const { path, open, store: options, log } = this.#options;
    await mkdir(path, { recursive: true, mode: 0o700 });
    const store = await open(path, options);
    try {
      this.#cursors = await Cursors.open(path);
    } catch (error) {
      await store.close().catch(() => {});
      throw error;
    }
    this.#store = store;
    this.#recovered();
    try {
      this.#transcripts ??= await this.#options.transcripts();
      this.#findGrown();
    } catch (error) {
      // Agent events and hooks are still worth having.
      this.#problem = `transcripts cannot be read: ${messageOf(error)}`;
      log.warn(`events: ${this.#problem}`);
    }
  }

  /** Marks every transcript that may hold what the store does not. */
  #findGrown(): void {
    const cursors = this.#cursors;
    if (!cursors || !this.#transcripts) return;
    const listed = this.#transcripts.sessions();
    for (const session of listed) {
      if (!cursors.mayHaveGrown(session)) continue;
      this.grown(session);
      this.#listedAt.set(`${session.agentId}\n${session.sessionId}`, session.updatedAt);
    }
    // Transcripts that a session left behind when it was reset, read to their ends once more.
    const current = new Set(listed.map(({ agentId, sessionId }) => `${agentId}\n${sessionId}`));
    for (const [key, session] of cursors.sessions()) {
      if (!current.has(key)) this.grown(session);
    }
  }

  #push(entry: Omit<Queued, "bytes">): void {
    if (this.#stopping && this.#state === "stopped") return;
    const bytes = sizeOf(entry.event.data) + 200;
    const { queue } = this.#options;
    if (this.#queue.length >= queue.events || this.#queuedBytes + bytes > queue.bytes) {
      this.#lost++;
      this.#runs.lost(entry.event, entry.run, "the queue was full");
    } else {
      this.#queue.push({ ...entry, bytes });
      this.#queuedBytes += bytes;
    }
    this.#wake();
  }

  #wake(): void {
    if (this.#timer || this.#pumping || this.#stopping) return;
    const delay =
      this.#state === "waiting"
        ? (RETRY_MS[Math.min(this.#failures, RETRY_MS.length) - 1] ?? LINGER_MS)
        : LINGER_MS;
    this.#detached(() => {
      this.#timer = setTimeout(() => {
        this.#timer = undefined;
        this.#run(() => this.#pump());
      }, delay);
      // A gateway that has nothing else to do may end; stop() writes the rest.
      this.#timer.unref();
    });
  }

  /** One thing at a time touches the store; whatever comes meanwhile is done after it. */
  #run(work: () => Promise<void>): void {
    this.#pumping = work()
      .catch((error) => this.#failed(error))
      .finally(() => {
        this.#pumping = undefined;
        if (this.#pending()) this.#wake();
      });
  }

  #pending(): boolean {
    return this.#queue.length > 0 || this.#grown.size > 0 || this.#runs.hasLosses || !this.#store;
  }

  async #pump(): Promise<void> {
    if (!this.#store) await this.#open();
    await this.#drain(() => !this.#stopping);
  }

  #failed(error: unknown): void {
    const { log, health } = this.#options;
    const problem = messageOf(error);
    // Once for each kind of trouble, not once for each try.
    if (this.#state !== "waiting" || problem !== this.#problem) {
      log.warn(
        `events: nothing is mirrored to ${this.path} for now, and the gateway goes on without: ` +
          `${codeOf(error) ?? "error"}: ${problem}`,
      );
      health?.reportFailure(error);
    }
    this.#failures++;
    this.#problem = problem;
    this.#state = "waiting";
    if (codeOf(error) === "STORE_CLOSED") this.#store = undefined;
  }

  #recovered(): void {
    if (this.#state === "waiting") {
      this.#options.log.info(`events: mirroring to ${this.path} again`);
      this.#problem = undefined;
    }
    this.#failures = 0;
    this.#state = "mirroring";
    this.#options.health?.clearFailure();
  }

  /** Transcripts first, so that a tool call comes after the message that asked for it. */
  async #drain(goOn: () => boolean): Promise<void> {
    while (goOn() && (this.#grown.size > 0 || this.#queue.length > 0 || this.#runs.hasLosses)) {
      await this.#readTranscripts(goOn);
      await this.#writeQueue();
      await this.#writeLosses();
    }
    if (this.#state === "waiting") this.#recovered();
    // With bounded loss a crash takes back what was acknowledged, and a cursor must not stand past it.
    if (this.#options.store.durability !== "interval") await this.#cursors?.save();
  }

  async #readTranscripts(goOn: () => boolean): Promise<void> {
    for (const [key, session] of [...this.#grown]) {
      if (!goOn()) return;
      this.#grown.delete(key);
      if (!this.#transcripts || !this.#cursors) continue;
      try {
        await this.#readTranscript(key, session, this.#transcripts, this.#cursors, goOn);
      } catch (error) {
        if (!(error instanceof ReadError)) {
          if (!this.#grown.has(key)) this.#grown.set(key, session);
          throw error;
        }
        // OpenClaw could not read this one. The others can be, and this one is tried when it grows and at start.
        if (this.#unreadable.has(key)) continue;
        this.#unreadable.add(key);
        this.#options.log.warn(
          `events: the transcript of ${session.sessionKey} could not be read: ${messageOf(error.cause)}`,
        );
      }
    }
  }

  async #readTranscript(
    key: string,
    session: Session,
    transcripts: Transcripts,
    cursors: Cursors,
    goOn: () => boolean,
  ): Promise<void> {
    let maxBytes = PAGE_BYTES;
    while (goOn()) {
      const page = await transcripts.read(session, cursors.get(key), maxBytes).catch((cause) => {
        throw new ReadError("unreadable transcript", { cause });
      });
      if (!page) {
        cursors.forget(key);
        return;
      }
      if (page.oversized !== undefined) {
        if (maxBytes >= MAX_PAGE_BYTES) {
          this.#options.log.warn(
            `events: an entry of ${page.oversized} bytes in the transcript of ${session.sessionKey} is too large ` +
              "for OpenClaw's reader; what follows it is not mirrored",
          );
          return;
        }
        maxBytes = Math.min(page.oversized, MAX_PAGE_BYTES);
        continue;
      }
      await this.#append(this.#transcriptEvents(session, page.entries));
      // Only now: what a cursor has passed is in the store.
      cursors.set(key, session, page.cursor);
      if (!page.more) {
        this.#unreadable.delete(key);
        const listedAt = this.#listedAt.get(key);
        if (listedAt !== undefined) cursors.settled(key, listedAt);
        this.#listedAt.delete(key);
        return;
      }
      maxBytes = PAGE_BYTES;
      await new Promise((resolve) => setImmediate(resolve));
    }
    this.#grown.set(key, session);
  }

  #transcriptEvents(session: Session, entries: unknown[]): NewEvent[] {
    if (entries.length === 0) return [];
    try {
      return transcriptEvents(session, entries);
    } catch (error) {
      if (entries.length > 1) return entries.flatMap((entry) => this.#transcriptEvents(session, [entry]));
      const { sessionKey, agentId } = session;
      const { id, type } = (entries[0] ?? {}) as { id?: string; type?: string };
      this.#refuse({ sessionKey, agentId, kind: `transcript_${type}`, ...(id && { id }), data: null }, error);
      return [];
    }
  }

  async #writeQueue(): Promise<void> {
    while (this.#queue.length > 0) {
      let bytes = 0;
      let count = 0;
      for (const entry of this.#queue) {
        if (count > 0 && (count >= BATCH_EVENTS || bytes + entry.bytes > BATCH_BYTES)) break;
        bytes += entry.bytes;
        count++;
      }
      // They stay in the queue until they are stored: it bounds what is under way, too.
      await this.#append(this.#queue.slice(0, count).map(({ event }) => event));
      this.#queue.splice(0, count);
      this.#queuedBytes -= bytes;
      if (this.#grown.size > 0) return;
    }
  }

  async #writeLosses(): Promise<void> {
    const losses = this.#runs.takeLosses();
    try {
      await this.#append(
        losses.map(({ sessionKey, agentId, data }) => ({
          sessionKey,
          agentId,
          kind: "events_lost",
          id: `lost:${randomUUID()}`,
          timestampMs: Date.now(),
          data,
        })),
      );
    } catch (error) {
      this.#runs.putBack(losses);
      throw error;
    }
    // What the transcript tells of the lost events is taken from there.
    for (const { agentId, sessionKey, sessionId } of losses) {
      if (sessionId) this.grown({ agentId, sessionKey, sessionId });
    }
  }

  async #append(events: NewEvent[]): Promise<void> {
    if (events.length === 0) return;
    const store = this.#store;
    if (!store) throw new Error("the store is not open");
    let stored: StoredEvent[];
    try {
      stored = await store.appendBatch(events);
    } catch (error) {
      // What is not data at all does not even reach the store.
      if (!(error instanceof TypeError) && !REFUSALS.has(codeOf(error) ?? "")) throw error;
      if (events.length > 1) {
        const middle = events.length >> 1;
        await this.#append(events.slice(0, middle));
        await this.#append(events.slice(middle));
        return;
      }
      const [event] = events;
      if (event) this.#refuse(event, error);
      return;
    }
    this.#appended += events.length;
    // A run that is resumed after a restart counts from 1 again. Its events are new ones.
    const again = events.filter((event, index) => {
      const known = stored[index];
      return event.id?.startsWith("run:") && known && known.timestampMs !== event.timestampMs;
    });
    if (again.length > 0) {
      await store.appendBatch(again.map((event) => ({ ...event, id: `${event.id}:${event.timestampMs}` })));
    }
  }

  /** The store will never take this event; it must not stand in the way of the others. */
  #refuse(event: NewEvent, error: unknown): void {
    this.#refused++;
    this.#runs.lost(event, undefined, `refused: ${messageOf(error)}`);
    if (this.#saidRefused) return;
    this.#saidRefused = true;
    this.#options.log.warn(
      `events: the store refused ${event.kind} ${event.id ?? ""} of ${event.sessionKey}: ${messageOf(error)}; ` +
        "further refusals are only counted",
    );
  }
}

/** Whether the store takes this as an id; the import replaces what it does not take by a digest. */
export function isId(text: string): boolean {
  return Buffer.byteLength(text) <= 512 && !/\p{Cc}/u.test(text);
}

class ReadError extends Error {}

/** What a run says only in passing: pieces of what comes again, whole, later on, and how far it has come. */
export function isDelta({ stream, data }: AgentEvent): boolean {
  const phase = data?.phase;
  switch (stream) {
    case "assistant":
    case "thinking":
      return true;
    case "item":
    case "tool":
    case "command_output":
      return phase === "update" || phase === "delta";
    case "run_status":
      // Shown until the model answers. Why a call is tried again is told nowhere else.
      return phase !== "retrying";
    case "lifecycle":
      // Each answer names its model, and the end of the run says what "finishing" does.
      return phase === "model" || phase === "finishing";
    default:
      return false;
  }
}

/** A tool's result without its content, which the transcript carries. */
function withoutResult(stream: string, data: Record<string, unknown>): Record<string, unknown> {
  if (stream !== "tool" || data?.phase !== "result") return data;
  const { result: _result, ...rest } = data;
  return rest;
}

/** About how many bytes a value takes as JSON, without making it. */
export function sizeOf(value: unknown): number {
  const stack = [value];
  let bytes = 0;
  while (stack.length > 0) {
    const next = stack.pop();
    if (typeof next === "string") bytes += next.length + 3;
    else if (Array.isArray(next)) for (const item of next) stack.push(item);
    else if (typeof next === "object" && next !== null) {
      for (const [key, item] of Object.entries(next)) {
        bytes += key.length + 4;
        stack.push(item);
      }
    } else bytes += 8;
  }
  return bytes;
}
