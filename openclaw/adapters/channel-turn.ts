// One turn of OpenClaw for a message: what it is told of the message, how it is begun, and what it comes to.
import type { Attachment, InboundMessage } from "../../index.js";
import {
  type Conversation,
  type HostConfig,
  type Ingress,
  messageOf,
  type ReplyPayload,
  type Route,
} from "./channel-host.js";
import { chatOf, key, type Lane } from "./channel-lane.js";
import { Outcome } from "./channel-outcome.js";
import type { PlatformRow } from "./channel-table.js";

const MEDIA_MAX_MB = 20;

/** A message that OpenClaw admits, and the session that its turn is of. */
export interface Admitted {
  message: InboundMessage;
  /** What OpenClaw knows it by, one for each of its turns. */
  messageId: string;
  messageIdFull: string;
  conversation: Conversation;
  peer: Conversation;
  route: Route;
  ingress: Ingress;
  media: Media;
}

/** What OpenClaw and its agent are told. */
export function contextOf({ platform, account, runtime }: Lane, admitted: Admitted): Record<string, unknown> {
  const { message, conversation, peer, route, ingress, media } = admitted;
  const { accountId } = account;
  const direct = conversation.kind === "direct";
  const label = message.chat.title ?? message.sender.name ?? message.sender.username ?? message.chat.id;
  const prefix = direct ? platform.id : `${platform.id}:${conversation.kind}`;
  const text = media.missing ? `${message.text}\n${media.missing}`.trim() : message.text;
  return runtime.inbound.buildContext({
    channel: platform.id,
    accountId,
    messageId: admitted.messageId,
    messageIdFull: admitted.messageIdFull,
    timestamp: message.timestampMs,
    from: `${prefix}:${direct ? message.sender.id : message.chat.id}`,
    sender: { ...message.sender, name: message.sender.name ?? message.sender.username },
    conversation: {
      ...conversation,
      label,
      ...(message.threadId !== undefined && { threadId: message.threadId }),
      routePeer: peer,
    },
    route: {
      agentId: route.agentId,
      dmScope: route.dmScope,
      accountId,
      routeSessionKey: route.sessionKey,
      dispatchSessionKey: route.sessionKey,
      mainSessionKey: route.mainSessionKey,
    },
    reply: {
      to: message.chat.id,
      originatingTo: message.chat.id,
      ...(message.replyToId !== undefined && { replyToId: message.replyToId }),
      ...(message.threadId !== undefined && { messageThreadId: message.threadId }),
    },
    message: { body: text, bodyForAgent: text, rawBody: message.text, commandBody: message.text },
    access: {
      commands: { authorized: ingress.commandAccess.authorized === true },
      mentions: {
        canDetectMention: true,
        wasMentioned: direct ? undefined : ingress.activationAccess.effectiveWasMentioned,
      },
    },
    ...(media.facts.length > 0 && { media: media.facts }),
    channelIngress: ingress,
  });
}

/** A turn that OpenClaw was offered. */
export interface Dispatched {
  outcome: Outcome;
  /** Ends it; there if OpenClaw has taken it over. */
  end: (() => void) | undefined;
  /** There if it could not begin, as another message holds the session. */
  held: Promise<void> | undefined;
  /** Whether OpenClaw has put it into its queue, or given it up. */
  queued: boolean;
  abandoned: boolean;
  /** Resolves once OpenClaw is through with it. */
  settled: Promise<void>;
  /** Takes it out of OpenClaw's queue. */
  withdraw(): void;
}

/** Offers OpenClaw a turn, and resolves when that is over, queued or refused; rejects never. */
export async function dispatch(
  lane: Lane,
  { message, route }: Pick<Admitted, "message" | "route">,
  ctxPayload: Record<string, unknown>,
  gate: {
    /** Whom it has to wait for, if there is one. */
    held(): Promise<void> | undefined;
    /** OpenClaw has taken it over. */
    begun(): void;
  },
): Promise<Dispatched> {
  const { platform, account, cfg, runtime, channel, log } = lane;
  const { accountId } = account;
  const session = route.sessionKey;
  const withdrawn = new AbortController();
  const { promise: settled, resolve: settle } = withResolvers();
  const outcome = new Outcome(session);
  const turn: Dispatched = {
    outcome,
    end: undefined,
    held: undefined,
    queued: false,
    abandoned: false,
    settled,
    withdraw: () => withdrawn.abort(),
  };
  // What the platform shows as unanswered until then.
  const answers = answered(platform, message);
  let parts = 0;
  // What cannot be written down is tried again when the turn is over.
  const acknowledge = () => {
    outcome.heard();
    return message
      .ack()
      .catch((error) => log?.warn?.(`${platform.id}: message ${message.id}: ${messageOf(error)}`));
  };
  const events = lane.core?.events?.onAgentEvent?.((event) => outcome.observe(event));
  try {
    await runtime.inbound.dispatch({
      cfg,
      channel: platform.id,
      accountId,
      route: { agentId: route.agentId, dmScope: route.dmScope, sessionKey: session },
      ctxPayload,
      delivery: {
        observeMessageSent: true,
        // The last answer goes through OpenClaw's own queue on the disk, and from there to `outbound`: one that a crash
        // interrupted goes out under the key it had, and so once at most.
        durable:
          answers === undefined
            ? { replyToMode: account.config.replyToMode ?? "off" }
            : { replyToMode: "all", replyToId: answers },
        deliver: async (payload: ReplyPayload) => {
          const part = key(message.id, String(parts++));
          await acknowledge();
          return lane.deliver(payload, message, route, part);
        },
        onError: (error: unknown) => {
          outcome.failure = error;
          log?.error?.(`${platform.id}: an answer to ${message.id} was not sent: ${messageOf(error)}`);
        },
      },
      turnAdoptionLifecycle: {
        // What comes meanwhile is no part of this turn: each message has one of its own, with its id in the transcript.
        admission: "exclusive",
        onAdopted: async () => {
          // OpenClaw puts it back, and then drops it.
          if (withdrawn.signal.aborted)
            throw new Error(`${platform.id}: message ${message.id} was withdrawn`);
          turn.held = gate.held();
          if (turn.held) throw new Error(`${platform.id}: message ${message.id} is not the next`);
          const over = lane.turns.begin(session);
          const deaf = lane.turns.listen(chatOf(platform.id, accountId, message.chat.id), acknowledge);
          turn.end = () => {
            deaf();
            over();
          };
          gate.begun();
        },
        onDeferred: () => {
          turn.queued = true;
        },
        onAbandoned: () => {
          turn.abandoned = true;
        },
        onSettled: settle,
        abortSignal: AbortSignal.any([lane.signal, withdrawn.signal]),
      },
      replyOptions: { sourceReplyDeliveryMode: "automatic", ...queueMode(cfg, platform) },
      replyPipeline: {
        transformReplyPayload: (payload: ReplyPayload) => outcome.say(payload),
        typing: {
          start: () => channel.typing(message.chat.id, message.threadId),
          onStartError: () => {}, // shown or not, the answer comes
        },
      },
    });
  } catch (error) {
    outcome.failure = error;
    // What began is OpenClaw's to end.
    if (turn.end) log?.error?.(`${platform.id}: the turn of ${message.id}: ${messageOf(error)}`);
  } finally {
    events?.();
  }
  return turn;
}

/** `Promise.withResolvers`, which Node 20 lacks. */
function withResolvers(): { promise: Promise<void>; resolve(): void } {
  let resolve = () => {};
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}

/**
 * OpenClaw's default, `steer`, puts what comes into the turn that runs, which then has one answer for both, and that may be
 * none to the first: so it is `followup`, unless the user has chosen.
 */
function queueMode(cfg: HostConfig, { id }: PlatformRow): { queueModeOverride?: "followup" } {
  const queue = cfg.messages?.queue;
  return queue?.mode === undefined && queue?.byChannel?.[id] === undefined
    ? { queueModeOverride: "followup" }
    : {};
}

/** The id of a slash command, where the platform wants its answer to name it. */
export const answered = (platform: PlatformRow, { kind, messageId }: InboundMessage): string | undefined =>
  platform.awaitsAnswer === true && kind === "command" ? messageId : undefined;

interface MediaFact {
  path: string;
  contentType?: string;
  kind?: string;
  fileName?: string;
  sizeBytes: number;
  messageId: string;
}
/** What came with a message; `missing` says in words what could not be fetched. */
export interface Media {
  facts: MediaFact[];
  missing: string;
}

/** Fetches what came with a message into OpenClaw's media folder; what cannot be had is said in words. */
export async function fetchMedia(lane: Lane, message: InboundMessage): Promise<Media> {
  const { account, runtime, log, platform } = lane;
  const maxBytes = Math.floor((account.config.mediaMaxMb ?? MEDIA_MAX_MB) * 1024 * 1024);
  const facts: MediaFact[] = [];
  const missing: string[] = [];
  for (const attachment of message.attachments) {
    try {
      const data = await attachment.download({ maxBytes, signal: lane.signal });
      const saved = await runtime.media.saveMediaBuffer(
        data,
        attachment.mimeType,
        "inbound",
        maxBytes,
        attachment.name,
      );
      facts.push({
        path: saved.path,
        ...(saved.contentType !== undefined && { contentType: saved.contentType }),
        ...kindOf(attachment),
        ...(attachment.name !== undefined && { fileName: attachment.name }),
        sizeBytes: data.length,
        messageId: message.messageId,
      });
    } catch (error) {
      if (lane.signal.aborted) throw error;
      log?.warn?.(`${platform.id}: an attachment of ${message.id} was not fetched: ${messageOf(error)}`);
      missing.push(`[${attachment.kind} not available: ${messageOf(error)}]`);
    }
  }
  return { facts, missing: missing.join("\n") };
}

function kindOf({ kind }: Attachment): { kind?: string } {
  if (kind === "file") return {};
  return { kind: kind === "sticker" ? "image" : kind };
}
