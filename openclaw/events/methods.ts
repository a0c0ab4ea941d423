// The gateway methods of the event store. Answers are kept well below the size of a gateway's frame.
import { randomUUID } from "node:crypto";
import type { Mirror } from "./mirror.js";
import { StoreSource } from "./source.js";
import { codeOf, type ImportProgress, messageOf, type StoredEvent } from "./store.js";

export type Answer = Record<string, unknown>;
type Params = Record<string, unknown>;
interface Context {
  mirror: Mirror | undefined;
  jobs: Jobs;
}
interface Method {
  scope: "operator.read" | "operator.admin";
  run(context: Context, params: Params): Promise<Answer> | Answer;
}

const ANSWER_CHARS = 2 << 20;
const MAX_EVENT_CHARS = 16 << 20;
const MAX_PAGE = 1_000;
/** How long a call waits for something to tell. */
const WAIT_MS = 15_000;
/** A tail or a finished job that nobody asks for any more ends after this. */
const IDLE_MS = 120_000;
const MAX_TAILS = 32;

export const METHODS: Record<string, Method> = {
  "core.events.status": {
    scope: "operator.read",
    async run({ mirror, jobs }) {
      if (!mirror) throw new Error("this gateway does not mirror events: it is switched off by its config");
      const stats = await mirror.store?.stats();
      return { mirror: { ...mirror.status(), tails: jobs.tails }, ...(stats && { stats }) };
    },
  },

  "core.events.sessions": {
    scope: "operator.read",
    async run(context, params) {
      const limit = Math.min(number(params, "limit") ?? MAX_PAGE, MAX_PAGE);
      const sessions = await open(context).sessions({
        ...optional("prefix", text(params, "prefix")),
        ...optional("agentId", text(params, "agentId")),
        ...optional("after", text(params, "after")),
        ...(params.order === "key" ? { order: "key" } : { order: "recent" }),
        limit,
      });
      const page = fitting(sessions);
      return { sessions: page, more: page.length < sessions.length || sessions.length === limit };
    },
  },

  "core.events.session": {
    scope: "operator.read",
    async run(context, params) {
      return { session: await open(context).session(required(params, "sessionKey")) };
    },
  },

  "core.events.read": {
    scope: "operator.read",
    async run(context, params) {
      const limit = Math.min(number(params, "limit") ?? MAX_PAGE, MAX_PAGE);
      const kinds = Array.isArray(params.kinds) ? params.kinds.map(String) : undefined;
      const events = await open(context).store.read(required(params, "sessionKey"), {
        ...optional("after", number(params, "after")),
        ...optional("before", number(params, "before")),
        ...optional("kinds", kinds),
        reverse: params.reverse === true,
        limit,
      });
      const page = fitting(events.map(shortened));
      return { events: page, more: page.length < events.length || events.length === limit };
    },
  },

  "core.events.tail": {
    scope: "operator.read",
    async run(context, params) {
      const name = text(params, "tail");
      if (name === undefined) {
        return {
          tail: context.jobs.tail(open(context), text(params, "sessionKey"), number(params, "last") ?? 0),
        };
      }
      if (params.end === true) return { ended: await context.jobs.endTail(name) };
      return { events: await context.jobs.nextOfTail(name) };
    },
  },

  "core.events.verify": {
    scope: "operator.read",
    run(context, params) {
      if (params.rebuild === true) throw new Error("rebuilding is core.events.rebuild");
      const source = open(context);
      return { job: context.jobs.start((signal) => source.verify({ rebuild: false, signal })) };
    },
  },

  "core.events.rebuild": {
    scope: "operator.admin",
    run(context) {
      const source = open(context);
      return { job: context.jobs.start((signal) => source.verify({ rebuild: true, signal })) };
    },
  },

  "core.events.export": {
    scope: "operator.read",
    run(context, params) {
      const source = open(context);
      const sessionKey = required(params, "sessionKey");
      return { job: context.jobs.start(() => source.export(sessionKey)) };
    },
  },

  "core.events.import": {
    scope: "operator.admin",
    run(context, params) {
      const source = open(context);
      const stateDir = required(params, "stateDir");
      const dryRun = params.dryRun === true;
      return {
        job: context.jobs.start((signal, onProgress) =>
          source.import(stateDir, { dryRun, signal, onProgress }),
        ),
      };
    },
  },

  "core.events.job": {
    scope: "operator.read",
    run({ jobs }, params) {
      const job = required(params, "job");
      if (params.cancel === true) return { cancelled: jobs.cancel(job) };
      return jobs.ask(job, number(params, "offset") ?? 0);
    },
  },
};

interface Job {
  cancel: AbortController;
  settled: Promise<void>;
  progress?: ImportProgress;
  /** The result as JSON. */
  text?: string;
  error?: { code?: string; message: string };
  idle: NodeJS.Timeout;
}
interface Tail {
  cancel: AbortController;
  events: AsyncIterator<StoredEvent>;
  /** What is waited for already: a call that gave up waiting leaves it to the next. */
  next?: Promise<IteratorResult<StoredEvent>>;
  idle: NodeJS.Timeout;
}

/** What outlives a single call: long work, and followers of the store. */
export class Jobs {
  readonly #jobs = new Map<string, Job>();
  readonly #tails = new Map<string, Tail>();

  /** How many followers there are. */
  get tails(): number {
    return this.#tails.size;
  }

  start(
    work: (signal: AbortSignal, onProgress: (progress: ImportProgress) => void) => Promise<unknown>,
  ): string {
    const name = randomUUID();
    const cancel = new AbortController();
    const job: Job = { cancel, settled: Promise.resolve(), idle: this.#idle(() => this.cancel(name)) };
    job.settled = work(cancel.signal, (progress) => {
      job.progress = progress;
    }).then(
      (result) => {
        job.text = JSON.stringify(result);
      },
      (error) => {
        const code = codeOf(error);
        job.error = { message: messageOf(error), ...(code !== undefined && { code }) };
      },
    );
    this.#jobs.set(name, job);
    return name;
  }

  async ask(name: string, offset: number): Promise<Answer> {
    const job = this.#jobs.get(name);
    if (!job) throw new Error("that work is over, or was never begun here");
    job.idle.refresh();
    // Soon after it is done, or once a second, so that progress can be shown.
    await within(job.settled, 1_000);
    const answer: Answer = { done: false };
    if (job.progress) answer.progress = job.progress;
    if (job.error) answer.error = job.error;
    if (job.text !== undefined) {
      const end = Math.min(offset + ANSWER_CHARS, job.text.length);
      answer.text = job.text.slice(offset, end);
      answer.done = end === job.text.length;
    }
    if (answer.done || answer.error) this.cancel(name);
    return answer;
  }

  cancel(name: string): boolean {
    const job = this.#jobs.get(name);
    if (!job) return false;
    clearTimeout(job.idle);
    job.cancel.abort();
    return this.#jobs.delete(name);
  }

  tail(source: StoreSource, sessionKey: string | undefined, last: number): string {
    if (this.#tails.size >= MAX_TAILS) throw new Error(`${MAX_TAILS} tails are open already`);
    const name = randomUUID();
    const cancel = new AbortController();
    const events = source.tail({ ...optional("sessionKey", sessionKey), last, signal: cancel.signal });
    const idle = this.#idle(() => void this.endTail(name));
    this.#tails.set(name, { cancel, events: events[Symbol.asyncIterator](), idle });
    return name;
  }

  /** What has come since the last call; waits a while for the first. */
  async nextOfTail(name: string): Promise<StoredEvent[]> {
    const tail = this.#tails.get(name);
    if (!tail)
      throw new Error("that tail has ended: it was not read for a while, or the gateway was restarted");
    tail.idle.refresh();
    const events: StoredEvent[] = [];
    let chars = 0;
    while (events.length < MAX_PAGE && chars < ANSWER_CHARS) {
      if (!tail.next) {
        tail.next = tail.events.next();
        // The call that waited for it may be gone when it fails.
        tail.next.catch(() => {});
      }
      const step = await within(tail.next, events.length === 0 ? WAIT_MS : 0);
      if (!step) break;
      delete tail.next;
      if (step.done) {
        await this.endTail(name);
        break;
      }
      const event = shortened(step.value);
      events.push(event);
      chars += JSON.stringify(event).length;
    }
    return events;
  }

  async endTail(name: string): Promise<boolean> {
    const tail = this.#tails.get(name);
    if (!tail) return false;
    this.#tails.delete(name);
    clearTimeout(tail.idle);
    tail.cancel.abort();
    await tail.events.return?.().catch(() => {});
    return true;
  }

  /** The store is about to close. */
  cancelAll(): void {
    for (const name of [...this.#jobs.keys()]) this.cancel(name);
    for (const name of [...this.#tails.keys()]) void this.endTail(name);
  }

  #idle(end: () => void): NodeJS.Timeout {
    return setTimeout(end, IDLE_MS).unref();
  }
}

function open({ mirror }: Context): StoreSource {
  if (!mirror) throw new Error("this gateway does not mirror events: it is switched off by its config");
  if (!mirror.store) {
    const { problem } = mirror.status();
    throw Object.assign(new Error(problem ?? "the event store is not open yet"), { code: "STORE_CLOSED" });
  }
  return new StoreSource("store", mirror.path, mirror.store);
}

/** As many as fit into an answer, and at least one. */
function fitting<T>(items: T[]): T[] {
  let chars = 0;
  const end = items.findIndex((item, index) => {
    chars += JSON.stringify(item).length;
    return index > 0 && chars > ANSWER_CHARS;
  });
  return end < 0 ? items : items.slice(0, end);
}

/** An event that no frame can carry, without its data. */
function shortened(event: StoredEvent): StoredEvent {
  const chars = JSON.stringify(event.data)?.length ?? 0;
  return chars > MAX_EVENT_CHARS ? { ...event, data: { omittedCharacters: chars } } : event;
}

async function within<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, ms, undefined);
  });
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    clearTimeout(timer);
  }
}

function text(params: Params, name: string): string | undefined {
  const value = params[name];
  if (value === undefined) return undefined;
  if (typeof value !== "string") throw new Error(`${name} must be text`);
  return value;
}

function required(params: Params, name: string): string {
  const value = text(params, name);
  if (!value) throw new Error(`${name} is missing`);
  return value;
}

function number(params: Params, name: string): number | undefined {
  const value = params[name];
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
    throw new Error(`${name} must be a whole number, 0 or more`);
  }
  return value;
}

function optional<K extends string, V>(name: K, value: V | undefined): { [P in K]?: V } {
  return (value === undefined ? {} : { [name]: value }) as { [P in K]?: V };
}
