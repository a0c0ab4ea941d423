// What a crash left of a message's turn, and the answer that nobody else brings to its chat any more.
import type { InboundMessage } from "../../index.js";
import { openTranscripts, type Session, type Transcripts } from "../events/host.js";
import { messageOf, type Route, sdk } from "./channel-host.js";
import { fullId, key, type Lane } from "./channel-lane.js";

/** Of a transcript, at a time. */
const PAGE_BYTES = 4 << 20;
/** How long at most an answer that OpenClaw prepared in this process is waited for. */
const PREPARED_MS = 60_000;

/** Why a model stopped when it had said all. */
const ENDS = new Set(["stop", "length"]);

/** Of OpenClaw's entry of a session. */
interface SessionEntry {
  status?: string;
  /** Of the run that has to deliver; another one while OpenClaw takes up what a crash interrupted. */
  restartRecoveryDeliveryRunId?: string;
  /** The answer, from when it is there to when it was delivered. */
  pendingFinalDelivery?: {
    kind: string;
    text?: string;
    intentId?: string;
    createdAt: number;
    deliveries?: { id: string; state: string }[];
  };
}
interface SessionStore {
  getSessionEntry(params: Place & { readConsistency: "latest" }): SessionEntry | undefined;
  patchSessionEntry(
    params: Place & { update: (entry: SessionEntry) => { pendingFinalDelivery: undefined } | null },
  ): Promise<unknown>;
}
type Place = Pick<Session, "agentId" | "sessionKey">;
interface Sanitizer {
  sanitizeAssistantVisibleText(text: string): string;
  stripInlineDirectiveTagsForDelivery(text: string): { text: string };
}
interface Silence {
  isSilentReplyPayloadText(text: string): boolean;
}

/** A message's turn, as its session's transcript has it. */
interface Turn {
  /** When it began. */
  atMs: number;
  /** Whether the model has said anything. */
  answered: boolean;
  /** The last that it said, as it said it, unless that was nothing to be sent. */
  answer?: string;
}

/** What a message that comes again has met since. */
export interface Aftermath {
  /** What OpenClaw sent to its chat. */
  said: string[];
  /** The run that crashed, there after the first look. */
  crashed?: string | undefined;
  /** Until when what OpenClaw prepared in this process is waited for; there once its session was found busy. */
  patience?: number;
  /** Whether the session was busy at the last look. */
  busy: boolean;
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
): Promise<"none" | "busy" | "over"> {
  const { account, log, platform } = lane;
  const transcripts = await openTranscripts(lane.cfg);
  const session = sessionOf(transcripts, route);
  const turn = session && (await turnOf(transcripts, session, platform.id, fullId(message)));
  if (!turn) return "none";
  // Of this process, which brings it to its end.
  if (isMine(turn.atMs)) return "over";

  const store = await sdk<SessionStore>("session-store-runtime");
  for (const name of ["getSessionEntry", "patchSessionEntry"] as const)
    if (typeof store[name] !== "function") throw new Error(`OpenClaw's plugin SDK has no ${name}`);
  const place: Place = { agentId: session.agentId, sessionKey: session.sessionKey };
  const entry = store.getSessionEntry({ ...place, readConsistency: "latest" }) ?? {};
  const pending = entry.pendingFinalDelivery;
  const run = entry.restartRecoveryDeliveryRunId;
  if (!("crashed" in aftermath)) aftermath.crashed = run;
  const was = aftermath.busy;
  aftermath.busy =
    entry.status === "running" ||
    (run !== undefined && run !== aftermath.crashed) ||
    (isMine(pending?.createdAt) && Date.now() < (aftermath.patience ?? Number.POSITIVE_INFINITY));
  // What has just ended may be on its way out.
  if (aftermath.busy || was) {
    aftermath.patience ??= Date.now() + PREPARED_MS;
    return "busy";
  }

  const prepared =
    pending?.kind === "replayable" && pending.createdAt >= turn.atMs && !isMine(pending.createdAt)
      ? pending
      : undefined;
  const [delivery, ...others] = prepared?.deliveries ?? [];
  if (others.length > 0 || delivery?.state === "delivered" || delivery?.state === "suppressed") return "over";
  const text = (prepared?.text ?? (await visible(turn.answer))).trim();
  // It may have crashed before its model said anything, and before OpenClaw knew it as one that runs.
  if (text === "") return turn.answered ? "over" : "none";
  if (aftermath.said.some((part) => part.trim() !== "" && text.includes(part.trim()))) return "over";
  // If OpenClaw's queue has it, or the outbox from there, it has this key. The queue forgets it, should the session's next
  // turn end before the queue comes to it.
  const id = delivery ? queued(delivery.id) : key(message.id, "after a crash");
  const quotes = (account.config.replyToMode ?? "off") !== "off";
  await lane.deliver({ text, ...(quotes && { replyToId: message.messageId }) }, message, route, id);
  log?.info?.(`${platform.id}: the answer to ${message.id}, which a crash had held up, was sent`);
  if (prepared) {
    const update = ({ pendingFinalDelivery }: SessionEntry) =>
      pendingFinalDelivery?.intentId === prepared.intentId ? { pendingFinalDelivery: undefined } : null;
    await store
      .patchSessionEntry({ ...place, update })
      .catch((error) => log?.warn?.(`${platform.id}: ${place.sessionKey}: ${messageOf(error)}`));
  }
  return "over";
}

const isMine = (atMs = 0): boolean => atMs >= performance.timeOrigin;

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
    provenance?: { kind?: string };
    __openclaw?: { transport?: { channel?: string; messageId?: string } };
  };
}

/** Whether a transcript has a message as a turn: OpenClaw then answers it, or did. */
async function turnOf(
  transcripts: Transcripts,
  session: Session,
  channel: string,
  id: string,
): Promise<Turn | undefined> {
  let turn: Turn | undefined;
  let cursor: string | undefined;
  let bytes = PAGE_BYTES;
  for (;;) {
    const page = await transcripts.read(session, cursor, bytes);
    if (!page) return turn;
    for (const entry of page.entries as TranscriptEntry[]) {
      const message = entry?.message;
      if (message?.role === "user") {
        const transport = message.__openclaw?.transport;
        if (transport?.channel === channel && transport.messageId === id)
          turn = { atMs: Date.parse(entry.timestamp ?? ""), answered: false };
        // What OpenClaw says to a turn that it takes up is no other turn.
        else if (turn && message.provenance?.kind !== "internal_system") return turn;
      } else if (message?.role === "assistant" && turn) {
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
