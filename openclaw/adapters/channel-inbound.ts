// One message of a platform on its way to an agent: whether OpenClaw admits it, and how its turn begins.
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import type { InboundMessage } from "../../index.js";
import { type Aftermath, AGAIN, finish } from "./channel-crash.js";
import { type Conversation, type Ingress, messageOf, type Route, sdk } from "./channel-host.js";
import { chatOf, DISK_SECONDS, fullId, isOfTheDisk, key, type Lane } from "./channel-lane.js";
import { contextOf, type Dispatched, dispatch, fetchMedia, type Media } from "./channel-turn.js";

/** A turn that could not begin is begun again after so many seconds, and then given up. */
const RETRY_SECONDS = [1, 5, 30, 120];
/** At most between two turns for one message that failed for want of a disk; the first wait is `DISK_SECONDS`. */
const DISK_MAX_SECONDS = 20;
/** Between two times that OpenClaw is asked whether a turn is over which no channel began, at first and at most. */
const [ASK_AGAIN_MS, ASK_AGAIN_MAX_MS] = [25, 1000];

/**
 * Takes a message to its end. `begun` is called once the next message of the same chat may begin: this one's turn was
 * taken over by OpenClaw, waits for another, or will not come.
 *
 * What comes while a turn runs stays in the inbox until that one is over. OpenClaw would queue it, in memory, and a turn out
 * of its queue is none that it takes up after a crash, as it does with one that begins at once: so it is withdrawn from
 * the queue, and comes anew.
 */
export async function handle(lane: Lane, message: InboundMessage, begun: () => void): Promise<void> {
  // Whoever changes a message, or reacts to one, asks for nothing. Programs would answer each other for ever.
  if (message.kind === "edit" || message.kind === "reaction" || message.sender.isBot) return message.ack();
  const aftermath: Aftermath = { said: [] };
  const chat = chatOf(lane.platform.id, lane.account.accountId, message.chat.id);
  // Whoever sends the answer waits for this: were it acknowledged only when OpenClaw has ended the turn, another crash until
  // then would have it sent again.
  const heard = async (text: string) => {
    aftermath.said.push(text);
    if (await aftermath.turn?.isAnswer(text)) await message.ack();
  };
  let deaf: (() => void) | undefined;
  const listen = () => {
    deaf ??= lane.turns.listen(chat, (text) =>
      heard(text).catch((error) =>
        lane.log?.warn?.(`${lane.platform.id}: message ${message.id}: ${messageOf(error)}`),
      ),
    );
  };
  const entrance: Entrance = {
    again: false,
    aftermath,
    listen,
    inLine: false,
    withdrawn: 0,
    asked: 0,
    failed: 0,
  };
  if (message.redelivered) {
    entrance.again = true;
    listen();
  }
  try {
    const busy = await enter(lane, message, entrance, begun);
    if (!busy) return;
    begun();
    entrance.inLine = true;
    await new Promise<void>((done, failed) => {
      lane.turns.waiting.next(busy.session, async (mine) => {
        await busy.over;
        await enter(lane, message, entrance, mine).then(() => done(), failed);
      });
    });
  } finally {
    deaf?.();
    entrance.held?.();
  }
}

/** A message on its way in. */
interface Entrance {
  /** Its turn may have begun before. */
  again: boolean;
  aftermath: Aftermath;
  /** From then on, what goes out to its chat may be its answer. */
  listen(): void;
  /** It is the first of those that wait. */
  inLine: boolean;
  /** How often it was withdrawn from OpenClaw's queue, and how often in vain asked whether the turn before is over. */
  withdrawn: number;
  asked: number;
  /** What its id has behind it since a turn of it came to nothing. */
  anew?: string;
  /** How many of its turns failed for want of a disk; until the next begins, it holds its session. */
  failed: number;
  held?: (() => void) | undefined;
  media?: Media;
}

/** A turn that a message has to wait for; `over` settles when it may be over. */
interface Busy {
  session: string;
  over: Promise<void>;
}

/** Gives the turn that has to be waited for, if there is one; rejects only if what is done cannot be acknowledged. */
async function enter(
  lane: Lane,
  message: InboundMessage,
  entrance: Entrance,
  begun: () => void,
): Promise<Busy | undefined> {
  const { log, platform, signal } = lane;
  for (let tries = 0, over = false; ; ) {
    if (signal.aborted && !over) return; // It comes again, and the transcript is asked then.
    try {
      if (!over) {
        const { taken, busy } = await attempt(lane, message, entrance, begun);
        if (busy !== undefined) {
          if (!entrance.inLine && !entrance.held) return busy;
          await busy.over;
          continue;
        }
        if (!taken && signal.aborted) return;
        over = true;
      }
      await message.ack();
      return;
    } catch (error) {
      if (signal.aborted) return;
      const fails = over ? "could not be acknowledged" : "could not begin a turn";
      const what = `${platform.id}: message ${message.id} ${fails}: ${messageOf(error)}`;
      const seconds = isOfTheDisk(error) ? DISK_SECONDS : RETRY_SECONDS[tries++];
      if (seconds === undefined) {
        log?.error?.(`${what}; it is given up`);
        if (!over) await message.ack();
        return;
      }
      log?.warn?.(`${what}; again in ${seconds} s`);
      entrance.again = true;
      await sleep(seconds * 1000, undefined, { signal }).catch(() => {});
    }
  }
}

/** `taken` once OpenClaw has the turn, or had it before, or none is due; `busy` while another runs in its session. */
interface Attempt {
  taken?: boolean;
  busy?: Busy;
}

async function attempt(
  lane: Lane,
  message: InboundMessage,
  entrance: Entrance,
  begun: () => void,
): Promise<Attempt> {
  const { platform, account, cfg, runtime } = lane;
  const accountId = account.accountId;
  const conversation: Conversation = { kind: message.chat.kind, id: message.chat.id };
  const direct = conversation.kind === "direct";
  // A direct chat belongs to the person; the platform may have another id for the chat.
  const peer: Conversation = direct ? { kind: "direct", id: message.sender.id } : conversation;
  const route = threaded(
    runtime.routing.resolveAgentRoute({ cfg, channel: platform.id, accountId, peer }),
    direct ? undefined : message.threadId,
  );
  const session = route.sessionKey;
  if (entrance.again) {
    const found = await finish(lane, message, route, entrance.aftermath, begun);
    if (found === "over") return { taken: true };
    if (found === "busy") return { busy: { session, over: later(ASK_AGAIN_MAX_MS, lane.signal) } };
    // A turn that came to nothing has taken the message's id.
    if (entrance.aftermath.turn || entrance.aftermath.failed) entrance.anew = `#${AGAIN}${Date.now()}`;
    entrance.aftermath.failed = undefined;
    entrance.again = false;
  }
  // Whoever waits goes first, but for a command; and before that, whoever was at it.
  const isCommand = message.kind === "command" || runtime.text.hasControlCommand(message.text, cfg);
  if (!isCommand && !entrance.held) {
    const held = lane.turns.held(session);
    if (held) return { busy: { session, over: held } };
    if (!entrance.inLine && lane.turns.waiting.has(session))
      return { busy: { session, over: Promise.resolve() } };
  }

  const id = `${fullId(message)}${entrance.anew ?? ""}`;
  const ingress = await admit(lane, message, id, conversation, route);
  const { admission } = ingress.ingress;
  if (admission !== "dispatch") {
    if (ingress.senderAccess.decision === "pairing" && message.kind === "message") await pair(lane, message);
    return { taken: true };
  }
  entrance.media ??= await fetchMedia(lane, message);
  // OpenClaw takes one id for one message, and passes over the second. `nativeId` reads either.
  const messageId =
    entrance.withdrawn > 0 ? `${id}#${entrance.withdrawn}` : entrance.anew ? id : message.messageId;
  const { media } = entrance;
  const admitted = { message, messageId, messageIdFull: id, conversation, peer, route, ingress, media };
  const turn = await dispatch(lane, admitted, contextOf(lane, admitted), {
    held: () => (isCommand || entrance.held ? undefined : lane.turns.held(session)),
    begun: () => {
      entrance.held?.();
      entrance.held = undefined;
      begun();
    },
  });
  if (turn.end) return ended(lane, message, route, entrance, turn);
  return notBegun(lane, route, entrance, turn);
}

/** What is left to do when a turn is over. */
async function ended(
  lane: Lane,
  message: InboundMessage,
  route: Route,
  entrance: Entrance,
  { outcome, end }: Dispatched,
): Promise<Attempt> {
  const { log, platform, signal } = lane;
  const session = route.sessionKey;
  const { isLost } = outcome;
  // Whoever came next would have its question answered, too.
  if (isLost) entrance.held = lane.turns.hold(session);
  end?.();
  void lane.release(route);
  // What a stop interrupted is looked at when it comes again.
  if (signal.aborted && (isLost || outcome.failure !== undefined)) return {};
  if (isLost) {
    // What there is of it is brought to its end as after a crash.
    entrance.aftermath.turn = undefined;
    entrance.aftermath.failed = outcome;
    entrance.listen();
    entrance.again = true;
    const seconds = Math.min(DISK_MAX_SECONDS, DISK_SECONDS * 2 ** entrance.failed++);
    log?.warn?.(
      `${platform.id}: the turn of ${message.id} came to nothing: ${outcome.why}; again in ${seconds} s`,
    );
    return { busy: { session, over: later(seconds * 1000, signal) } };
  }
  if (outcome.excuse)
    await lane
      .deliver(outcome.excuse, message, route, key(message.id, "excuse"))
      .catch((error) => log?.warn?.(`${platform.id}: message ${message.id}: ${messageOf(error)}`));
  return { taken: true };
}

/** Whom a turn has to wait for that did not begin; rejects if that is nobody. */
async function notBegun(lane: Lane, route: Route, entrance: Entrance, turn: Dispatched): Promise<Attempt> {
  const { turns, signal } = lane;
  const session = route.sessionKey;
  const { held, queued } = turn;
  let { failure } = turn.outcome;
  if (queued || held) {
    // It would stay in OpenClaw's queue; and before the dispatch is over, OpenClaw would tell the person that there is no
    // answer.
    turn.withdraw();
    entrance.withdrawn++;
  }
  if (held) return { busy: { session, over: held } };
  if (failure === undefined && queued) {
    let over = turns.end(session);
    if (over) entrance.asked = 0;
    else over = later(Math.min(ASK_AGAIN_MAX_MS, ASK_AGAIN_MS * 2 ** entrance.asked++), signal);
    return { busy: { session, over: orStopped(Promise.all([turn.settled, over]), signal) } };
  }
  if (failure === undefined && turn.abandoned) failure = new Error("OpenClaw gave it up");
  if (failure === undefined && entrance.withdrawn > 0) failure = new Error("OpenClaw passed it over");
  if (failure !== undefined) {
    await lane.release(route);
    throw failure;
  }
  return {};
}

const later = (ms: number, signal: AbortSignal): Promise<void> =>
  sleep(ms, undefined, { signal }).catch(() => {});

async function orStopped(over: Promise<unknown>, stop: AbortSignal): Promise<void> {
  if (stop.aborted) return;
  // A channel lives long: nothing of a message stays with its signal.
  const done = new AbortController();
  const stopped = once(stop, "abort", { signal: done.signal }).then(() => {});
  await Promise.race([over, stopped.catch(() => {})]);
  done.abort();
}

/** Threads of a group are sessions of their own, named as OpenClaw names them. */
function threaded(route: Route, threadId: string | undefined): Route {
  if (threadId === undefined) return route;
  return { ...route, sessionKey: `${route.sessionKey}:thread:${threadId.toLowerCase()}` };
}

/** OpenClaw's own decision: policy of direct chats and groups, allowlists, pairing, mentions, commands. */
async function admit(
  lane: Lane,
  message: InboundMessage,
  id: string,
  conversation: Conversation,
  route: Route,
): Promise<Ingress> {
  const { platform, account, cfg, runtime } = lane;
  const { config, accountId } = account;
  const group = conversation.kind !== "direct";
  const groupAllowFrom = config.groupAllowFrom ?? config.allowFrom ?? [];
  const scope = { cfg, channel: platform.id, accountId, groupId: conversation.id };
  const policy = group
    ? runtime.groups.resolveGroupPolicy({ ...scope, hasGroupAllowFrom: groupAllowFrom.length > 0 })
    : undefined;
  const own = policy?.groupConfig;
  const allowTextCommands = runtime.commands.shouldHandleTextCommands({
    cfg,
    surface: platform.id,
    commandSource: "text",
  });
  const hasControlCommand = runtime.text.hasControlCommand(message.text, cfg);
  const wasMentioned =
    message.mentionsMe ||
    runtime.mentions.matchesMentionPatterns(
      message.text,
      runtime.mentions.buildMentionRegexes(cfg, route.agentId),
    );
  return runtime.inbound.ingress.resolveStable({
    channelId: platform.id,
    accountId,
    cfg,
    accessGroups: cfg.accessGroups,
    identity: {
      key: "sender-id",
      entryIdPrefix: `${platform.id}-entry`,
      // Ids come from the platform itself; names are chosen by whoever bears them, and are not asked for.
      authentication: "verified",
      normalizeEntry: (entry: string) => platform.target(entry) || undefined,
      sensitivity: "pii",
    },
    // Whom the owner approved is admitted.
    useDefaultPairingStore: true,
    subject: { stableId: message.sender.id },
    conversation: {
      ...conversation,
      ...(message.threadId !== undefined && { threadId: message.threadId }),
    },
    contextBinding: {
      agentId: route.agentId,
      sessionKey: route.sessionKey,
      messageId: id,
      inboundEventKind: "user_request",
    },
    event: {
      kind: message.kind === "callback" ? "button" : "message",
      authMode: "inbound",
      mayPair: !group && message.kind === "message",
    },
    dmPolicy: config.dmPolicy ?? "pairing",
    groupPolicy: config.groupPolicy ?? "allowlist",
    allowFrom: config.allowFrom ?? [],
    groupAllowFrom,
    policy: {
      groupAllowFromFallbackToAllowFrom: true,
      ...(group && {
        activation: {
          requireMention: runtime.groups.resolveRequireMention(scope),
          allowTextCommands,
        },
      }),
    },
    ...(policy && {
      route: {
        id: "group",
        configured: true,
        matched: policy.allowed,
        allowed: policy.allowed && own?.enabled !== false,
        blockReason: "group_not_allowlisted",
        ...(own?.allowFrom && { senderPolicy: "replace", senderAllowFrom: own.allowFrom }),
      },
    }),
    mentionFacts: { canDetectMention: true, wasMentioned, hasAnyMention: wasMentioned },
    ...(hasControlCommand && { command: { allowTextCommands, hasControlCommand } }),
  });
}

interface Pairing {
  createChannelPairingController(input: { core: unknown; channel: string; accountId: string }): {
    issueChallenge(challenge: Record<string, unknown>): Promise<{ created: boolean }>;
  };
}

/** Tells a stranger the code that the owner approves, once. */
async function pair({ platform, account, channel, core, log }: Lane, message: InboundMessage): Promise<void> {
  const { createChannelPairingController } = await sdk<Pairing>("channel-pairing");
  const { accountId } = account;
  const { sender, chat } = message;
  await createChannelPairingController({ core, channel: platform.id, accountId }).issueChallenge({
    senderId: sender.id,
    senderIdLine: `Your ${platform.idLabel}: ${sender.id}`,
    meta: { name: sender.name, username: sender.username },
    sendPairingReply: (text: string) =>
      channel.send({ to: chat.id, text, idempotencyKey: key("pairing", message.id) }),
    onReplyError: (error: unknown) =>
      log?.warn?.(`${platform.id}: a pairing code was not sent: ${messageOf(error)}`),
  });
}
