// What the messages of an account share on their way: the lane, the turns of their sessions, and their names.
import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { InboundMessage } from "../../index.js";
import type {
  Account,
  ChannelRuntime,
  HostConfig,
  HostRuntime,
  Log,
  NativeChannel,
  ReplyPayload,
  Route,
} from "./channel-host.js";
import type { PlatformRow } from "./channel-table.js";

/** What a message's way needs. */
export interface Lane {
  platform: PlatformRow;
  account: Account;
  cfg: HostConfig;
  channel: NativeChannel;
  runtime: ChannelRuntime;
  core: HostRuntime | undefined;
  log: Log | undefined;
  signal: AbortSignal;
  turns: Turns;
  deliver(payload: ReplyPayload, message: InboundMessage, route: Route, key: string): Promise<Delivered>;
  /** Ends a turn of a session that is over and whose end OpenClaw could not write; rejects never. */
  release(route: Route): Promise<void>;
}
export interface Delivered {
  messageIds: string[];
  visibleReplySent: boolean;
}

/** Begins work in the order of its key: the next one's once this one's has begun. */
export class Line {
  #last = new Map<string, Promise<void>>();

  /** Resolves once the work has begun, or will not. */
  next(key: string, run: (begun: () => void) => Promise<void>): Promise<void> {
    const before = this.#last.get(key) ?? Promise.resolve();
    const mine = before.then(
      () =>
        new Promise<void>((begun) => {
          run(begun).finally(begun);
        }),
    );
    this.#last.set(key, mine);
    mine.finally(() => {
      if (this.#last.get(key) === mine) this.#last.delete(key);
    });
    return mine;
  }

  /** Whether something of this key has not begun. */
  has(key: string): boolean {
    return this.#last.has(key);
  }
}

/** What goes on, by session. */
class Lasting {
  #of = new Map<string, Set<Promise<void>>>();

  begin(session: string): () => void {
    const all = this.#of.get(session) ?? new Set();
    let end = () => {};
    const over = new Promise<void>((resolve) => {
      end = resolve;
    });
    this.#of.set(session, all.add(over));
    return () => {
      all.delete(over);
      if (all.size === 0 && this.#of.get(session) === all) this.#of.delete(session);
      end();
    };
  }

  /** Of the first that ends. */
  end(session: string): Promise<void> | undefined {
    const all = this.#of.get(session);
    return all && Promise.race(all);
  }
}

type Listener = (text: string) => Promise<void> | void;

/** The turns of all channels, by session, and who has to know of what goes out. */
export class Turns {
  /** What waits for one. */
  readonly waiting = new Line();
  #running = new Lasting();
  #held = new Lasting();
  #listeners = new Map<string, Set<Listener>>();

  /** Gives what ends it. */
  begin = (session: string): (() => void) => this.#running.begin(session);

  /** The end of the turn that runs, if it is a channel's. */
  end = (session: string): Promise<void> | undefined => this.#running.end(session);

  /** Keeps others from beginning, for a message whose turn has to come anew; gives what ends this. */
  hold = (session: string): (() => void) => this.#held.begin(session);

  /** Resolves when whoever holds a session has its turn. */
  held = (session: string): Promise<void> | undefined => this.#held.end(session);

  /** Tells of each message that OpenClaw has sent to a chat; gives what ends this. */
  listen(chat: string, listener: Listener): () => void {
    const listeners = this.#listeners.get(chat) ?? new Set();
    this.#listeners.set(chat, listeners.add(listener));
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0 && this.#listeners.get(chat) === listeners) this.#listeners.delete(chat);
    };
  }

  /** Resolves once everybody who listens has done what there is to do before OpenClaw knows. */
  async sent(chat: string, text: string): Promise<void> {
    await Promise.all(Array.from(this.#listeners.get(chat) ?? [], (listener) => listener(text)));
  }
}

/** For what only its owner can mend, as long as it takes. */
export const DISK_SECONDS = 5;
/** The last: OpenClaw closes a database that failed, and may refuse to read it for a minute after the disk takes it again. */
const OF_THE_DISK = new Set<unknown>(["IO", "ENOSPC", "EIO", "STATE_DATABASE_READ_ADMISSION_INVALIDATED"]);
/** SQLITE_IOERR, SQLITE_FULL: <https://sqlite.org/rescode.html>. */
const SQLITE_OF_THE_DISK = new Set([10, 13]);
/** The same, where OpenClaw tells no more than the text. */
const IN_WORDS =
  /disk I\/O error|disk is full|no space left on device|state database read admission|database open was revoked/i;

/** Full, or broken: of the core's store, of a file, of OpenClaw's SQLite. */
export function isOfTheDisk(error: unknown): boolean {
  if (typeof error === "string") return IN_WORDS.test(error);
  if (typeof error !== "object" || error === null) return false;
  const { code, errcode, cause, message } = error as Record<
    "code" | "errcode" | "cause" | "message",
    unknown
  >;
  if (OF_THE_DISK.has(code) || SQLITE_OF_THE_DISK.has(Number(errcode) & 0xff) || isOfTheDisk(cause))
    return true;
  // OpenClaw puts several errors into the text of one.
  return typeof message === "string" && IN_WORDS.test(message);
}

/** Does what may be done twice as soon as the disk takes it. */
export async function onceTheDiskTakesIt<T>(
  signal: AbortSignal | undefined,
  act: () => Promise<T>,
): Promise<T> {
  for (;;) {
    try {
      return await act();
    } catch (error) {
      if (!isOfTheDisk(error) || signal?.aborted) throw error;
      await sleep(DISK_SECONDS * 1000, undefined, { signal }).catch(() => {});
    }
  }
}

/** What a chat is called among all accounts. */
export const chatOf = (channel: string, accountId: string, chat: string): string =>
  [channel, accountId, chat].join("\n");

/**
 * Unique for the account, unlike the platform's own id, which may be unique for the chat alone, and is that of the message
 * under which a button was pressed.
 */
export function fullId({ chat, id, kind, messageId }: InboundMessage): string {
  return [chat.id, messageId, ...(kind === "message" && messageId !== "" ? [] : [id])].join("#");
}
/** The platform's own id, out of either. */
export const nativeId = (id: string): string => (id.includes("#") ? (id.split("#")[1] ?? "") : id);

export const key = (...parts: string[]) =>
  createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 40);
