// Where `events` commands get their events from: a store that is open here, or one that a running gateway has open.

import type { MirrorStatus } from "./mirror.js";
import {
  codeOf,
  type EventStore,
  type ImportProgress,
  type ImportReport,
  messageOf,
  type Projection,
  type Range,
  type SessionsQuery,
  type StoredEvent,
  type StoreStats,
  type Verified,
} from "./store.js";

/** What an event store can be asked, whoever has it open. */
export interface EventSource {
  /** `gateway`: of a running gateway. `snapshot`: as it was a moment ago. `store`: opened here, alone. */
  readonly kind: "gateway" | "snapshot" | "store";
  readonly path: string;
  sessions(query: SessionsQuery): Promise<Projection[]>;
  session(sessionKey: string): Promise<Projection | null>;
  /** Events in the order asked for, as many as `limit` says. */
  read(sessionKey: string, range: Range): AsyncIterable<StoredEvent>;
  /** The last `last` events, of one session or all, then each new one as it comes. */
  tail(options: { sessionKey?: string; last: number; signal: AbortSignal }): AsyncIterable<StoredEvent>;
  verify(options: { rebuild: boolean; signal: AbortSignal }): Promise<Verified>;
  export(sessionKey: string): Promise<string>;
  import(
    stateDir: string,
    options: { dryRun: boolean; signal: AbortSignal; onProgress(progress: ImportProgress): void },
  ): Promise<ImportReport>;
  status(): Promise<{ stats: StoreStats; mirror?: MirrorStatus }>;
  close(): Promise<void>;
}

const PAGE = 200;
const LEAVE_MS = 5_000;
/** Sessions whose ends are compared to find the latest events of a store. */
const RECENT_SESSIONS = 20;

/** A store that is open in this process. */
export class StoreSource implements EventSource {
  constructor(
    readonly kind: "snapshot" | "store",
    readonly path: string,
    readonly store: EventStore,
  ) {}

  sessions(query: SessionsQuery): Promise<Projection[]> {
    return this.store.sessions(query);
  }

  session(sessionKey: string): Promise<Projection | null> {
    return this.store.projection(sessionKey);
  }

  async *read(
    sessionKey: string,
    { limit = Number.POSITIVE_INFINITY, ...range }: Range,
  ): AsyncIterable<StoredEvent> {
    let rest = limit;
    while (rest > 0) {
      const events = await this.store.read(sessionKey, { ...range, limit: Math.min(rest, PAGE) });
      yield* events;
      const last = events.at(-1);
      if (!last || events.length < Math.min(rest, PAGE)) return;
      rest -= events.length;
      if (range.reverse) range.before = last.seq;
      else range.after = last.seq;
    }
  }

  async *tail(options: {
    sessionKey?: string;
    last: number;
    signal: AbortSignal;
  }): AsyncIterable<StoredEvent> {
    const { sessionKey, last, signal } = options;
    const events = await this.latest(sessionKey, Math.max(last, 1));
    if (last > 0) yield* events;
    const after = events.at(-1)?.id;
    yield* this.store.follow({
      ...(sessionKey !== undefined && { sessionKey }),
      ...(after !== undefined && { after }),
      signal,
    });
  }

  /** The latest events in the order in which they were written. */
  async latest(sessionKey: string | undefined, count: number): Promise<StoredEvent[]> {
    const keys =
      sessionKey !== undefined
        ? [sessionKey]
        : (await this.store.sessions({ order: "recent", limit: RECENT_SESSIONS })).map(
            (session) => session.sessionKey,
          );
    const ends = await Promise.all(keys.map((key) => this.store.read(key, { reverse: true, limit: count })));
    if (sessionKey !== undefined) return (ends[0] ?? []).reverse();
    return ends
      .flat()
      .sort((a, b) => (a.clock < b.clock ? -1 : a.clock > b.clock ? 1 : a.seq - b.seq))
      .slice(-count);
  }

  verify({ rebuild, signal }: { rebuild: boolean; signal: AbortSignal }): Promise<Verified> {
    return this.store.verify({ rebuild, signal });
  }

  export(sessionKey: string): Promise<string> {
    return this.store.exportTranscript(sessionKey);
  }

  import(
    stateDir: string,
    options: { dryRun: boolean; signal: AbortSignal; onProgress(progress: ImportProgress): void },
  ): Promise<ImportReport> {
    return this.store.importOpenClaw(stateDir, options);
  }

  async status(): Promise<{ stats: StoreStats }> {
    return { stats: await this.store.stats() };
  }

  close(): Promise<void> {
    return this.store.close();
  }
}

/** Calls a method of a running gateway. */
export type Call = (
  method: string,
  params: Record<string, unknown>,
  options: { scope: "operator.read" | "operator.admin"; signal?: AbortSignal },
) => Promise<Record<string, unknown>>;

/** A store that a running gateway has open. */
export class GatewaySource implements EventSource {
  readonly kind = "gateway";

  constructor(
    readonly path: string,
    readonly call: Call,
  ) {}

  async sessions({ limit = Number.POSITIVE_INFINITY, ...query }: SessionsQuery): Promise<Projection[]> {
    const sessions: Projection[] = [];
    for (;;) {
      const page = await this.#read<{ sessions: Projection[]; more: boolean }>("core.events.sessions", {
        ...query,
        limit: Math.min(limit - sessions.length, 1_000),
      });
      sessions.push(...page.sessions);
      const last = sessions.at(-1);
      if (!page.more || !last || sessions.length >= limit) return sessions;
      query.after = last.sessionKey;
    }
  }

  async session(sessionKey: string): Promise<Projection | null> {
    return (await this.#read<{ session: Projection | null }>("core.events.session", { sessionKey })).session;
  }

  async *read(
    sessionKey: string,
    { limit = Number.POSITIVE_INFINITY, ...range }: Range,
  ): AsyncIterable<StoredEvent> {
    let rest = limit;
    while (rest > 0) {
      const { events, more } = await this.#read<{ events: StoredEvent[]; more: boolean }>(
        "core.events.read",
        {
          sessionKey,
          ...range,
          limit: Math.min(rest, PAGE),
        },
      );
      yield* events;
      const last = events.at(-1);
      if (!more || !last) return;
      rest -= events.length;
      if (range.reverse) range.before = last.seq;
      else range.after = last.seq;
    }
  }

  async *tail(options: {
    sessionKey?: string;
    last: number;
    signal: AbortSignal;
  }): AsyncIterable<StoredEvent> {
    const { signal, ...start } = options;
    const { tail } = await this.#read<{ tail: string }>("core.events.tail", start);
    try {
      while (!signal.aborted) {
        const { events } = await this.#read<{ events: StoredEvent[] }>("core.events.tail", { tail }, signal);
        yield* events;
      }
    } finally {
      await this.#leave("core.events.tail", { tail, end: true });
    }
  }

  verify({ rebuild, signal }: { rebuild: boolean; signal: AbortSignal }): Promise<Verified> {
    return rebuild
      ? this.#job("operator.admin", "core.events.rebuild", {}, signal)
      : this.#job("operator.read", "core.events.verify", {}, signal);
  }

  export(sessionKey: string): Promise<string> {
    return this.#job("operator.read", "core.events.export", { sessionKey });
  }

  import(
    stateDir: string,
    options: { dryRun: boolean; signal: AbortSignal; onProgress(progress: ImportProgress): void },
  ): Promise<ImportReport> {
    const { dryRun, signal, onProgress } = options;
    return this.#job("operator.admin", "core.events.import", { stateDir, dryRun }, signal, onProgress);
  }

  async status(): Promise<{ stats: StoreStats; mirror?: MirrorStatus }> {
    return this.#read("core.events.status", {});
  }

  async close(): Promise<void> {}

  /** Ends what the gateway does for us. Ctrl-C may be why, so it is not ended by that itself. */
  async #leave(method: string, params: Record<string, unknown>): Promise<void> {
    const signal = AbortSignal.timeout(LEAVE_MS);
    await this.call(method, params, { scope: "operator.read", signal }).catch(() => {});
  }

  async #read<T>(method: string, params: object, signal?: AbortSignal): Promise<T> {
    const answer = await this.call(method, params as Record<string, unknown>, {
      scope: "operator.read",
      ...(signal && { signal }),
    });
    return answer as T;
  }

  /** Work that may take longer than a call: begun by one, asked after by others, its result fetched in parts. */
  async #job<T>(
    scope: "operator.read" | "operator.admin",
    method: string,
    params: Record<string, unknown>,
    signal?: AbortSignal,
    onProgress?: (progress: ImportProgress) => void,
  ): Promise<T> {
    const { job } = (await this.call(method, params, { scope })) as { job: string };
    let text = "";
    try {
      for (;;) {
        signal?.throwIfAborted();
        const answer = await this.#read<{
          done: boolean;
          progress?: ImportProgress;
          text?: string;
          error?: { code?: string; message: string };
        }>("core.events.job", { job, offset: text.length });
        if (answer.progress) onProgress?.(answer.progress);
        if (answer.error) throw Object.assign(new Error(answer.error.message), { code: answer.error.code });
        if (answer.text !== undefined) text += answer.text;
        if (answer.done) return JSON.parse(text);
      }
    } catch (error) {
      await this.#leave("core.events.job", { job, cancel: true });
      throw error;
    }
  }
}

/** An error of a store as a gateway tells it: the code is in the details. */
export function gatewayError(error: unknown): Error {
  const details = (error as { details?: { code?: unknown } } | null)?.details;
  const code = typeof details?.code === "string" ? details.code : codeOf(error);
  return Object.assign(new Error(messageOf(error)), { code });
}
