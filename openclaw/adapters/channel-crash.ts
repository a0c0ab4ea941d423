// What a crash or a full disk left of a message's turn, and the answer that nobody else brings to its chat any more.
import { setTimeout as sleep } from "node:timers/promises";
import type { InboundMessage } from "../../index.js";
import { openTranscripts, type Session, type Transcripts } from "../events/host.js";
import { messageOf, type Route, sdk } from "./channel-host.js";
import { fullId, key, type Lane, onceTheDiskTakesIt } from "./channel-lane.js";
import type { Outcome } from "./channel-outcome.js";

/** Of a transcript, at a time. */
const PAGE_BYTES = 4 << 20;
/**
 * How long at most OpenClaw is waited for: until a turn that it takes up is over (it takes up one after the other), and until
 * what it prepared is sent.
 */
const [TURN_MS, PREPARED_MS] = [3_600_000, 60_000];
/** How long the end of a turn may take to be written. */
const END_MS = 5000;
/** What OpenClaw calls what it says to a turn that it takes up. */
const RECOVERY = "main_session_restart_recovery";
/** How OpenClaw writes a file of an answer that it keeps as text. */
const MEDIA = /^MEDIA:(.*)$/gm;
/** What is shorter is a part of an answer by chance. */
const PART_CHARS = 40;
/** What stands behind the id of a message in the turns for it after the first. */
export const AGAIN = "again-";
/** Why a model stopped when it had said all. */
const ENDS = new Set(["stop", "length"]);

/** Of OpenClaw's entry of a session. */
interface SessionEntry {
  status?: string;
  /** OpenClaw will take it up. */
  abortedLastRun?: boolean;
  startedAt?: number;
  endedAt?: number;
  /** Of the run that has to deliver; another one while OpenClaw takes up what a crash interrupted. */
  restartRecoveryDeliveryRunId?: string;
  restartRecoveryDeliveryReceiptState?: string;
  /** The answer, from when it is there to when it was delivered. */
  pendingFinalDelivery?: {
    kind: string;
    text?: string;
    intentId?: string;
    createdAt: number;
    context?: { channel?: string; to?: string; accountId?: string };
    deliveries?: { id: string; state: string }[];
  };
}
interface SessionStore {
  getSessionEntry(params: Place & { readConsistency: "latest" }): SessionEntry | undefined;
  patchSessionEntry(params: Place & { update: (entry: SessionEntry) => Patch | null }): Promise<unknown>;
}
type Patch = { [name in keyof SessionEntry]: SessionEntry[name] | undefined };
type Place = Pick<Session, "agentId" | "sessionKey">;
interface Runs {
  resolveActiveEmbeddedRunSessionId(sessionKey: string): string | undefined;
}
interface Sanitizer {
  sanitizeAssistantVisibleText(text: string): string;
  stripInlineDirectiveTagsForDelivery(text: string): { text: string };
}
interface Silence {
  isSilentReplyPayloadText(text: string): boolean;
}

/** A message's turn, as its session's transcript has it. */
interface Turn {
  /** When it began, and the next one in its session. */
  atMs: number;
  nextMs: number;
  /** Whether the model has said anything. */
  answered: boolean;
  /** The last that it said, as it said it, unless that was nothing to be sent. */
  answer?: string;
}

/** What a message that comes again has met since. */
export interface Aftermath {
  /** What OpenClaw sent to its chat. */
  said: string[];
  /** There once its turn was found. */
  turn?:
    | {
        /** Of this run, which has crashed. */
        run: string | undefined;
        foundMs: number;
        /** Whether OpenClaw was at it at the last look. */
        busy: boolean;
        /** Whether something that was said to its chat was the answer to it. */
        isAnswer(said: string): Promise<boolean>;
      }
    | undefined;
  /** There if the turn was this process's, and failed for want of a disk: nobody else brings it to its end. */
  failed?: Outcome | undefined;
}

/**
 * Takes a message that comes again to the end of the turn that it had. "none" if it had none; "busy" as long as OpenClaw is at
 * it.
 *
 * After a crash OpenClaw takes up what was running. It does not take up what had its answer: that session is marked as done
 * some time before the answer is in OpenClaw's queue, seconds if many are busy. A message is not acknowledged before
 * something went out to its chat: so the answer to one that comes again did not, or only just.
 */
export async function finish(
  lane: Lane,
  message: InboundMessage,
  route: Route,
  aftermath: Aftermath,
  begun: () => void,
): Promise<"none" | "busy" | "over"> {
  const { account, log, platform } = lane;
  const transcripts = await openTranscripts(lane.cfg);
  const session = sessionOf(transcripts, route);
  if (!session) return "none";
  const { failed } = aftermath;
  const find = async (): Promise<Turn | undefined> =>
    (await turnOf(transcripts, session, platform.id, fullId(message))) ??
    (failed?.acted ? { atMs: failed.sinceMs, nextMs: Number.POSITIVE_INFINITY, answered: true } : undefined);
  const store = await sessionStore();
  const place: Place = { agentId: session.agentId, sessionKey: session.sessionKey };
  const entry = store.getSessionEntry({ ...place, readConsistency: "latest" }) ?? {};
  const run = entry.restartRecoveryDeliveryRunId;

  const now = Date.now();
  let turn: Turn | undefined;
  if (aftermath.turn === undefined) {
    turn = await find();
    if (!turn) return "none";
    // Of this process, which brings it to its end.
    if (isMine(turn.atMs) && !failed) return "over";
    const isAnswer = async (said: string) => {
      const answer = withoutMedia(await visible((await find())?.answer));
      return answer !== "" && isSame(said, answer);
    };
    aftermath.turn = { run, foundMs: now, busy: false, isAnswer };
  }
  const known = aftermath.turn;
  const was = known.busy;
  const pending = isHeldBack(entry.pendingFinalDelivery) ? undefined : entry.pendingFinalDelivery;
  known.busy =
    ((entry.status === "running" || (run !== undefined && run !== known.run)) &&
      now < known.foundMs + TURN_MS) ||
    (isMine(pending?.createdAt) &&
      now < (pending?.createdAt ?? 0) + PREPARED_MS &&
      !(failed && (pending?.createdAt ?? 0) >= failed.sinceMs));
  // What has just ended may be on its way out.
  if (known.busy || was) {
    if (entry.status === "running" && !(await activity(lane, session.sessionKey))())
      await release(lane, place);
    return "busy";
  }
  turn ??= await find();
  if (!turn) return "over";

  const { context } = pending ?? {};
  const isOfChat =
    context?.channel === platform.id &&
    platform.target(context.to ?? "") === message.chat.id &&
    (context.accountId ?? account.accountId) === account.accountId;
  const isOfTurn = (atMs: number) =>
    atMs >= turn.atMs && atMs < turn.nextMs && (failed !== undefined || !isMine(atMs));
  const prepared = pending && isOfChat && isOfTurn(pending.createdAt) ? pending : undefined;
  const deliveries = prepared?.deliveries ?? [];
  const [delivery, ...others] = deliveries;
  const all = (...states: string[]) => deliveries.every(({ state }) => states.includes(state));
  // Of several OpenClaw knows what became of which, and of the text only that of all.
  if (delivery && !(others.length === 0 ? all("prepared", "queued", "unknown") : all("prepared")))
    return "over";
  const own = prepared?.kind === "replayable" ? (prepared.text ?? "") : await visible(turn.answer);
  const last = own === "" && (turn.answered || failed?.acted) ? failed?.payload : undefined;
  const whole = last?.text ?? own;
  const text = withoutMedia(whole);
  const mediaUrls = last?.mediaUrls ?? Array.from(whole.matchAll(MEDIA), ([, url = ""]) => url.trim());
  // It may have crashed before its model said anything, and before OpenClaw knew it as one that runs.
  if (text === "" && mediaUrls.length === 0) return turn.answered ? "over" : "none";
  // With files it has no key in OpenClaw's queue.
  if (mediaUrls.length > 0 && delivery && !all("prepared")) return "over";
  if (text !== "" && aftermath.said.some((said) => isSame(said, text))) return "over";
  // If OpenClaw's queue has it, or the outbox from there, it has this key. The queue forgets it, should the session's next
  // turn end before the queue comes to it.
  const id = delivery && others.length === 0 ? queued(delivery.id) : key(message.id, "after a crash");
  const quotes = (account.config.replyToMode ?? "off") !== "off";
  const payload = { text, ...(quotes && { replyToId: message.messageId }) };
  const sending = lane.deliver({ ...payload, mediaUrls }, message, route, id);
  // The outbox keeps the order of a chat; others need not wait for the platform.
  begun();
  try {
    await sending;
    const what = failed ? "a full disk" : "a crash";
    log?.info?.(`${platform.id}: the answer to ${message.id}, which ${what} had held up, was sent`);
  } catch (error) {
    if (!isRefused(error)) throw error;
    log?.error?.(`${platform.id}: the answer to ${message.id} was refused: ${messageOf(error)}`);
  }
  if (prepared) {
    const update = ({ pendingFinalDelivery }: SessionEntry) =>
      pendingFinalDelivery?.intentId === prepared.intentId ? { pendingFinalDelivery: undefined } : null;
    await store
      .patchSessionEntry({ ...place, update })
      .catch((error) => log?.warn?.(`${platform.id}: ${place.sessionKey}: ${messageOf(error)}`));
  }
  return "over";
}

/**
 * Ends a session's turn that is over and that OpenClaw still has as running. It writes the end of a turn once: if the disk
 * takes it not, the session takes no message of a channel until the gateway starts again, and then begins that turn anew.
 */
export async function release(lane: Lane, { agentId, sessionKey }: Place): Promise<void> {
  const { log, platform, signal } = lane;
  const place: Place = { agentId, sessionKey };
  try {
    const store = await sessionStore();
    const seen = await onceTheDiskTakesIt(signal, async () =>
      store.getSessionEntry({ ...place, readConsistency: "latest" }),
    );
    // What a crash left running, OpenClaw takes up, as soon as it has marked it.
    if (seen?.status !== "running" || !isMine(seen.startedAt)) return;
    // What has just ended may not be written yet.
    await sleep(END_MS, undefined, { signal });
    const isActive = await activity(lane, sessionKey);
    let ended = false;
    const update = ({ status, startedAt, abortedLastRun }: SessionEntry): Patch | null => {
      ended = status === "running" && startedAt === seen.startedAt && abortedLastRun !== true && !isActive();
      if (!ended) return null;
      return {
        ...{ status: "done", endedAt: Date.now() },
        restartRecoveryDeliveryReceiptState: undefined,
      };
    };
    await onceTheDiskTakesIt(signal, () => store.patchSessionEntry({ ...place, update }));
    if (ended) log?.warn?.(`${platform.id}: ${sessionKey}: OpenClaw could not write the end of a turn`);
  } catch (error) {
    if (!signal.aborted) log?.warn?.(`${platform.id}: ${sessionKey}: ${messageOf(error)}`);
  }
}

/** Whether a channel or OpenClaw itself is at a turn of a session. */
async function activity({ turns }: Lane, sessionKey: string): Promise<() => boolean> {
  const { resolveActiveEmbeddedRunSessionId } = await sdk<Partial<Runs>>("agent-harness-runtime");
  if (resolveActiveEmbeddedRunSessionId === undefined) return () => true;
  return () =>
    turns.end(sessionKey) !== undefined || resolveActiveEmbeddedRunSessionId(sessionKey) !== undefined;
}

async function sessionStore(): Promise<SessionStore> {
  const store = await sdk<SessionStore>("session-store-runtime");
  for (const name of ["getSessionEntry", "patchSessionEntry"] as const)
    if (typeof store[name] !== "function") throw new Error(`OpenClaw's plugin SDK has no ${name}`);
  return store;
}

/** Whether it goes nowhere any more. */
const isHeldBack = (pending: SessionEntry["pendingFinalDelivery"]): boolean =>
  (pending?.deliveries?.length ?? 0) > 0 &&
  pending?.deliveries?.every(({ state }) => state === "suppressed") === true;

const isMine = (atMs = 0): boolean => atMs >= performance.timeOrigin;

const withoutMedia = (text: string): string => text.replace(MEDIA, "").trim();

/** Whether what was said to a chat was an answer, perhaps with a prefix, or a part of it. */
function isSame(said: string, answer: string): boolean {
  const [whole, wanted] = [said, answer].map((text) => text.replace(/\s+/g, " ").trim()) as [string, string];
  return whole.endsWith(wanted) || (whole.length >= PART_CHARS && wanted.includes(whole));
}

/** Whether a platform does not take a message, and will not later. */
export const isRefused = (error: unknown): boolean =>
  (error as { code?: unknown } | null)?.code === "CHANNEL_SEND";

/** The key under which a message of OpenClaw's queue goes out. */
export const queued = (queueId: string, part = 0): string => `${queueId}:${part}`;

/** What OpenClaw would send of what a model said. */
async function visible(answer: string | undefined): Promise<string> {
  if (answer === undefined) return "";
  const [
    { sanitizeAssistantVisibleText, stripInlineDirectiveTagsForDelivery },
    { isSilentReplyPayloadText },
  ] = await Promise.all([sdk<Sanitizer>("text-chunking"), sdk<Silence>("reply-chunking")]);
  const { text } = stripInlineDirectiveTagsForDelivery(sanitizeAssistantVisibleText(answer));
  return isSilentReplyPayloadText(text) ? "" : text;
}

const sessionOf = (transcripts: Transcripts, { agentId, sessionKey }: Route): Session | undefined =>
  transcripts
    .sessions()
    .find((one) => one.agentId === agentId && one.sessionKey.toLowerCase() === sessionKey.toLowerCase());

interface TranscriptEntry {
  timestamp?: string;
  message?: {
    role?: string;
    content?: string | { type?: string; text?: string }[];
    stopReason?: string;
    provenance?: { sourceTool?: string };
    __openclaw?: { transport?: { channel?: string; messageId?: string } };
  };
}

const isTurnOf = (messageId: string | undefined, id: string): boolean =>
  messageId === id || messageId?.startsWith(`${id}#${AGAIN}`) === true;

/** Whether a transcript has a message as a turn: OpenClaw then answers it, or did. */
async function turnOf(
  transcripts: Transcripts,
  session: Session,
  channel: string,
  id: string,
): Promise<Turn | undefined> {
  let turn: Turn | undefined;
  let isOpen = false;
  let cursor: string | undefined;
  let bytes = PAGE_BYTES;
  for (;;) {
    const page = await transcripts.read(session, cursor, bytes);
    if (!page) return turn;
    for (const entry of page.entries as TranscriptEntry[]) {
      const message = entry?.message;
      if (message?.role === "user") {
        const transport = message.__openclaw?.transport;
        const atMs = Date.parse(entry.timestamp ?? "");
        // The last, if it was begun again.
        if (transport?.channel === channel && isTurnOf(transport.messageId, id)) {
          turn = { atMs, nextMs: Number.POSITIVE_INFINITY, answered: false };
          isOpen = true;
        } else if (turn && isOpen && message.provenance?.sourceTool !== RECOVERY) {
          turn.nextMs = atMs;
          isOpen = false;
        }
      } else if (message?.role === "assistant" && turn && isOpen) {
        turn.answered = true;
        const { content = "", stopReason = "stop" } = message;
        // What was said before a tool was called, or broke off, is no answer.
        if (!ENDS.has(stopReason)) continue;
        const text =
          typeof content === "string"
            ? content
            : content.flatMap(({ type, text }) => (type === "text" && text ? [text] : [])).join("\n");
        if ((await visible(text)).trim() !== "") turn.answer = text;
      }
    }
    if (page.oversized !== undefined && page.oversized > bytes) {
      bytes = page.oversized;
      continue;
    }
    if (!page.more) return turn;
    cursor = page.cursor;
  }
}
