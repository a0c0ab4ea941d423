// The channels `core-telegram` and so on: one OpenClaw channel plugin for each platform of the table, around the native
// adapter. Connections, heartbeats and acknowledgements run on native threads; policy, pairing, sessions and turns are
// OpenClaw's.
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import type { EventStore, InboundMessage } from "../../index.js";
import { type Addon, loadAddon } from "../addon.js";
import { GATEWAY_CACHE_BYTES } from "../events/store.js";
import type { Mode } from "../switch.js";
import { isRefused, queued, release } from "./channel-crash.js";
import {
  type Account,
  type ActionContext,
  type HostConfig,
  type HostRuntime,
  messageOf,
  type NativeChannel,
  type ReplyPayload,
  type Route,
  type Section,
  type SendContext,
  type Snapshot,
  type StartContext,
  sdk,
  type UnknownSend,
} from "./channel-host.js";
import { handle } from "./channel-inbound.js";
import {
  chatOf,
  type Delivered,
  type Lane,
  Line,
  nativeId,
  onceTheDiskTakesIt,
  Turns,
} from "./channel-lane.js";
import { isAccount, PLATFORMS, type PlatformRow } from "./channel-table.js";
import { answered } from "./channel-turn.js";

/** The part of OpenClaw's plugin API that is used here. */
export interface ChannelsApi {
  registrationMode?: string;
  registerChannel?(registration: { plugin: unknown }): void;
  runtime?: HostRuntime;
}

const DEFAULT_ACCOUNT = "default";
/** Fields that are read for each message: an edit of one is no reason to start an account again. */
const LIVE = [
  ...["dmPolicy", "allowFrom", "groupPolicy", "groupAllowFrom", "groups"],
  ...["replyToMode", "mediaMaxMb", "defaultTo"],
] as const satisfies (keyof Section)[];
const live = (path: string) => LIVE.flatMap((field) => [`${path}.${field}`, `${path}.accounts.*.${field}`]);
/** What OpenClaw starts a channel again for unless it says that it need not. These are OpenClaw's to read, or read live. */
const OF_ALL_CHANNELS = [
  ...["agents.defaults.mediaMaxMb", "channels.defaults", "channels.modelByChannel", "messages.inbound"],
  ...["messages.ackReactionScope", "commands", "accessGroups", "tts", "surfaces", "acp.stream"],
  "diagnostics.flags",
];
/** How often an account's health is reported. */
const REPORT_MS = 1000;
const MEDIA_MAX_MB = 20;

/** OpenClaw registers a plugin several times in a process, from more than one copy of this file. */
interface Shared {
  /** The running accounts, by channel and account. */
  running: Map<string, Running>;
  /** Inboxes and outboxes of all accounts, while one runs. */
  store?: { opened: Promise<EventStore>; users: number };
  /** The one before, while it closes: two cannot be open. */
  closing?: Promise<void>;
  turns: Turns;
}
interface Running {
  channel: NativeChannel;
  sent(): void;
}
const SHARED = Symbol.for("openclaw.core.channels");
function shared(): Shared {
  const global = globalThis as Record<symbol, unknown>;
  global[SHARED] ??= { running: new Map(), turns: new Turns() };
  return global[SHARED] as Shared;
}

/** Registers the channels; nothing native is loaded before an account starts. */
export function registerChannels(api: ChannelsApi, mode: Mode): void {
  if (mode === "off" || api.registrationMode === "tool-discovery") return;
  for (const platform of PLATFORMS) api.registerChannel?.({ plugin: channelPlugin(platform, api.runtime) });
}

const record = (value: unknown): Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : {};
const isText = (value: unknown): value is string => typeof value === "string" && value.trim() !== "";
const accountKey = (id: string | null | undefined) => id?.trim().toLowerCase() || DEFAULT_ACCOUNT;
const keyOf = (platform: PlatformRow, accountId: string) => `${platform.id}\n${accountId}`;

function sectionOf(cfg: HostConfig, platform: PlatformRow): Section {
  return record(cfg.channels?.[platform.id]) as Section;
}

/** The accounts by name; the values of the section itself are the account `default`, if there is one. */
export function listAccounts(cfg: HostConfig, platform: PlatformRow): string[] {
  const section = sectionOf(cfg, platform);
  const ids = Object.keys(record(section.accounts)).map(accountKey);
  if (ids.length === 0 || isAccount(platform, section)) ids.unshift(DEFAULT_ACCOUNT);
  return [...new Set(ids)];
}

const defaultAccount = (cfg: HostConfig, platform: PlatformRow) =>
  listAccounts(cfg, platform)[0] ?? DEFAULT_ACCOUNT;

/** An account with the section's values as its defaults. */
export function accountOf(cfg: HostConfig, platform: PlatformRow, id?: string | null): Account {
  const { accounts, ...top } = sectionOf(cfg, platform);
  const accountId = accountKey(id);
  const own = Object.entries(record(accounts)).find(([name]) => accountKey(name) === accountId)?.[1];
  const config = { ...top, ...record(own) } as Section;
  const given = (field: string) =>
    isText(config[field]) ||
    typeof config[field] === "number" ||
    Object.keys(record(config[field])).length > 0;
  return {
    accountId,
    ...(isText(config.name) && { name: config.name }),
    enabled: top.enabled !== false && config.enabled !== false,
    configured: platform.required.every(given),
    config,
  };
}

/** The options of the native class. A secret that OpenClaw did not resolve is an error that names it. */
export function nativeOptions(addon: Addon, platform: PlatformRow, { accountId, config }: Account) {
  const options: Record<string, unknown> = { accountId };
  const set = (option: string, value: unknown) => {
    const [whole = option, part] = option.split(".");
    if (part === undefined) options[whole] = value;
    else options[whole] = { ...record(options[whole]), [part]: value };
  };
  for (const [field, option] of Object.entries(platform.secrets)) {
    const value = config[field];
    if (value === undefined) continue;
    if (!isText(value))
      throw new Error(
        `channels.${platform.id}.${field} (account ${accountId}) is a reference that OpenClaw did not resolve: ` +
          "see `openclaw secrets audit`",
      );
    set(option, new addon.ApiKey(value.trim()));
  }
  for (const [field, option] of Object.entries(platform.options))
    if (config[field] !== undefined) set(option, config[field]);
  return options;
}

/** Opens the store for one more account. */
async function openStore(addon: Addon, stateDir: string): Promise<EventStore> {
  const all = shared();
  const open = async () => {
    await all.closing;
    const options = { durability: "always", cacheBytes: GATEWAY_CACHE_BYTES } as const;
    return addon.EventStore.open(join(stateDir, "core", "channels"), options);
  };
  all.store ??= { opened: open(), users: 0 };
  const { store } = all;
  store.users += 1;
  try {
    return await store.opened;
  } catch (error) {
    if (all.store === store) delete all.store;
    throw error;
  }
}

async function leaveStore(): Promise<void> {
  const all = shared();
  const { store } = all;
  if (!store) return;
  store.users -= 1;
  if (store.users > 0) return;
  delete all.store;
  const closing = store.opened.then((opened) => opened.close());
  // A failure is told to who closed it; whoever opens the next one sees whether that works.
  all.closing = closing.catch(() => {});
  await closing;
}

/** Runs an account until OpenClaw ends it. */
async function startAccount(platform: PlatformRow, core: HostRuntime | undefined, context: StartContext) {
  const { account, accountId, abortSignal, log, channelRuntime, cfg } = context;
  if (!channelRuntime)
    throw new Error("this OpenClaw gives a channel no runtime: 2026.9.6 or later is needed");
  const stateDir = core?.state?.resolveStateDir?.(process.env);
  if (stateDir === undefined) throw new Error("this OpenClaw does not say where its state is");
  const loaded = loadAddon();
  if ("error" in loaded) throw new Error(`${platform.id} cannot be loaded: ${loaded.error.message}`);
  const { addon } = loaded;
  const Native = (addon as unknown as Record<string, new (options: unknown) => NativeChannel>)[
    platform.className
  ];
  if (!Native) throw new Error(`the native addon has no ${platform.className}`);

  const report = reporter(context);
  const store = await openStore(addon, stateDir);
  let channel: NativeChannel | undefined;
  const timer = setInterval(() => channel && report(channel), REPORT_MS);
  const key = keyOf(platform, accountId);
  try {
    const native = new Native({ ...nativeOptions(addon, platform, account), store });
    channel = native;
    shared().running.set(key, {
      channel: native,
      sent: () => context.setStatus({ ...context.getStatus(), accountId, lastOutboundAt: Date.now() }),
    });
    const lane: Lane = {
      ...{ platform, channel: native, runtime: channelRuntime, core, log, signal: abortSignal },
      turns: shared().turns,
      // Agents, bindings and who may write may have changed since the account started.
      get cfg() {
        return core?.config?.current?.() ?? cfg;
      },
      get account() {
        return accountOf(lane.cfg, platform, accountId);
      },
      deliver: (payload, message, route, id) => deliver(lane, { payload, message, route, id }),
      release: (route) => release(lane, route),
    };
    // Turns begin in the order of their chat's messages; they end whenever they do.
    const chats = new Line();
    try {
      for await (const message of native.messages({ signal: abortSignal })) {
        context.setStatus({ ...context.getStatus(), accountId, lastInboundAt: Date.now() });
        const begun = chats.next(message.chat.id, (begun) =>
          handle(lane, message, begun).catch((error) =>
            log?.error?.(`${platform.id}: message ${message.id}: ${messageOf(error)}`),
          ),
        );
        // What has come often comes no more: were others taken meanwhile, they would go with the one that ends the process.
        if (message.redelivered) await begun;
      }
    } catch (error) {
      if (!abortSignal.aborted) {
        // What the platform refuses for good (a wrong token) is not tried again until somebody changes it.
        const code = (error as { code?: unknown } | null)?.code;
        if (code !== "CHANNEL_AUTH" && code !== "VALIDATION") throw error;
        log?.error?.(`${platform.id}: ${messageOf(error)}`);
        context.setStatus({
          ...context.getStatus(),
          ...{ accountId, running: false, connected: false, lifecycle: "blocked" },
          ...{ terminalDisconnect: true, lastError: messageOf(error) },
        });
        clearInterval(timer);
        await aborted(abortSignal);
      }
    }
  } finally {
    clearInterval(timer);
    shared().running.delete(key);
    await channel?.close().catch((error) => log?.warn?.(`${platform.id}: ${messageOf(error)}`));
    await leaveStore().catch((error) => log?.warn?.(`${platform.id}: ${messageOf(error)}`));
    const connected = false;
    context.setStatus({
      ...context.getStatus(),
      accountId,
      running: false,
      connected,
      lastStopAt: Date.now(),
    });
  }
}

const aborted = (signal: AbortSignal) =>
  new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });

/** Tells OpenClaw how an account is, in its words, whenever that changed. */
function reporter({ accountId, setStatus, getStatus, log }: StartContext): (channel: NativeChannel) => void {
  const started = Date.now();
  let before = "";
  setStatus({
    ...getStatus(),
    ...{ accountId, running: true, connected: false, lifecycle: "starting" },
    ...{ lastStartAt: started, lastError: null, terminalDisconnect: false },
  });
  return (channel) => {
    const { state, lastVerifiedMs, error } = channel.status();
    const connected = state === "running";
    const now = Date.now();
    const text = `${state} ${error ?? ""}`;
    const next: Snapshot = {
      ...getStatus(),
      accountId,
      connected,
      lifecycle: connected ? "ready" : before === "" || state === "connecting" ? "starting" : "recovering",
      lastError: error ?? null,
      ...(lastVerifiedMs !== undefined && { lastTransportActivityAt: now - lastVerifiedMs }),
    };
    if (text !== before) {
      if (connected) next.lastConnectedAt = now;
      else if (before.startsWith("running"))
        next.lastDisconnect = { at: now, ...(error !== undefined && { error }) };
      log?.info?.(`${state}${error === undefined ? "" : `: ${error}`}`);
      before = text;
    }
    setStatus(next);
  };
}

interface OutboundMedia {
  loadOutboundMediaFromUrl(
    url: string,
    options: Record<string, unknown>,
  ): Promise<{ buffer: Buffer; fileName?: string; contentType?: string }>;
}
interface MediaRoots {
  getAgentScopedMediaLocalRoots(cfg: HostConfig, agentId: string): readonly string[];
}

async function loadMedia(url: string, account: Account, access: Record<string, unknown>) {
  const { loadOutboundMediaFromUrl } = await sdk<OutboundMedia>("outbound-media");
  const maxBytes = Math.floor((account.config.mediaMaxMb ?? MEDIA_MAX_MB) * 1024 * 1024);
  const { buffer, fileName, contentType } = await loadOutboundMediaFromUrl(url, { ...access, maxBytes });
  return {
    data: new Uint8Array(buffer),
    name: fileName ?? "file",
    ...(contentType !== undefined && { mimeType: contentType }),
  };
}

/** An answer that is not the last one of its turn, or whose turn OpenClaw's queue does not take. */
async function deliver(
  { platform, channel, cfg, log, account, signal }: Lane,
  answer: { payload: ReplyPayload; message: InboundMessage; route: Route; id: string },
): Promise<Delivered> {
  const { payload, message, route, id } = answer;
  const urls = payload.mediaUrls ?? (payload.mediaUrl === undefined ? [] : [payload.mediaUrl]);
  if (!isText(payload.text) && urls.length === 0) return { messageIds: [], visibleReplySent: false };
  const attachments = [];
  if (urls.length > 0) {
    const { getAgentScopedMediaLocalRoots } = await sdk<MediaRoots>("media-local-roots");
    const mediaLocalRoots = getAgentScopedMediaLocalRoots(cfg, route.agentId);
    for (const url of urls) attachments.push(await loadMedia(url, account, { mediaLocalRoots }));
  }
  const replyToId = answered(platform, message) ?? payload.replyToId;
  const outbound = {
    to: message.chat.id,
    text: payload.text ?? "",
    ...(attachments.length > 0 && { attachments }),
    ...(isText(replyToId) && { replyToId: nativeId(replyToId) }),
    ...(message.threadId !== undefined && { threadId: message.threadId }),
    idempotencyKey: id,
  };
  const receipt = await onceTheDiskTakesIt(signal, () => channel.send(outbound));
  if (receipt.state === "unknown") log?.warn?.(unknown(platform, message.chat.id));
  shared().running.get(keyOf(platform, account.accountId))?.sent();
  return { messageIds: receipt.messageIds, visibleReplySent: true };
}

const unknown = (platform: PlatformRow, to: string) =>
  `${platform.id}: nobody knows whether a message to ${to} arrived: the platform never answered. It is not sent again.`;

function runningAccount(platform: PlatformRow, accountId: string): Running {
  const running = shared().running.get(keyOf(platform, accountId));
  if (running) return running;
  throw new Error(
    `${platform.id}: the account ${accountId} does not run in this process: start the gateway, and see ` +
      "`openclaw channels status`",
  );
}

/** Reacts to a message, or changes one, for the agents' `message` tool or a command. */
async function act(platform: PlatformRow, context: ActionContext) {
  const { action, params, toolContext } = context;
  const accountId = accountKey(context.accountId ?? defaultAccount(context.cfg, platform));
  const { channel } = runningAccount(platform, accountId);
  const given = (name: string) => {
    const value = params[name];
    return isText(value) || typeof value === "number" ? String(value) : undefined;
  };
  const to = platform.target(given("to") ?? given("target") ?? toolContext?.currentChannelId ?? "");
  const messageId = nativeId(given("messageId") ?? toolContext?.currentMessageId?.toString() ?? "");
  if (to === "" || messageId === "")
    throw new Error(`${platform.id}: ${action} needs \`target\`, a chat, and \`messageId\`, a message of it`);
  // Who may do this may have changed while it waited.
  context.assertDirectAdapterHandoff?.();
  if (action === "react") {
    const emoji = given("emoji") ?? "";
    if (emoji === "" && params.remove !== true)
      throw new Error(`${platform.id}: react needs \`emoji\`, or \`remove: true\``);
    await channel.react(to, messageId, params.remove === true ? "" : emoji);
  } else if (action === "edit" && platform.edits) {
    const text = given("message");
    if (text === undefined) throw new Error(`${platform.id}: edit needs \`message\`, the new text`);
    await channel.edit(to, messageId, text);
  } else throw new Error(`${platform.id} cannot do ${action}`);
  const details = { ok: true, channel: platform.id, action, target: to, messageId };
  return { content: [{ type: "text", text: JSON.stringify(details) }], details };
}

/** Sends one message of OpenClaw's queue, of its message tool or of a command. */
async function send(platform: PlatformRow, context: SendContext) {
  const accountId = accountKey(context.accountId);
  const running = runningAccount(platform, accountId);
  const account = accountOf(context.cfg, platform, accountId);
  const { mediaAccess, mediaLocalRoots, mediaReadFile, mediaUrl } = context;
  const attachments =
    mediaUrl === undefined
      ? []
      : [await loadMedia(mediaUrl, account, { mediaAccess, mediaLocalRoots, mediaReadFile })];
  await context.onPlatformSendDispatch?.();
  context.assertDirectAdapterHandoff?.();
  const { replyToId, threadId, silent, signal } = context;
  const to = platform.target(context.to);
  const queue = context.deliveryQueueId;
  const outbound = {
    to,
    text: context.text,
    ...(attachments.length > 0 && { attachments }),
    ...(isText(replyToId) && { replyToId: nativeId(replyToId) }),
    ...(threadId !== undefined && threadId !== null && { threadId: String(threadId) }),
    ...(silent === true && { silent }),
    idempotencyKey: queue === undefined ? randomUUID() : queued(queue, context.deliveryPartIndex),
  };
  // OpenClaw gives up what was refused once.
  const receipt = await onceTheDiskTakesIt(signal, () =>
    running.channel.send(outbound, signal ? { signal } : {}),
  );
  running.sent();
  await shared().turns.sent(chatOf(platform.id, accountId, to), context.text);
  return {
    channel: platform.id,
    messageId: receipt.messageIds[0] ?? "unknown",
    target: { kind: "chat", id: to },
    meta: { state: receipt.state, messageIds: receipt.messageIds, attempts: receipt.attempts },
  };
}

/**
 * Whether a message of OpenClaw's queue, of whose sending OpenClaw saw the beginning and no end, was sent. One key is one
 * message for the outbox: so it is sent, if it was not.
 */
async function reconcile(platform: PlatformRow, context: UnknownSend) {
  const { queueId, payloads, replyToId, effectiveReplyToId = replyToId, ...rest } = context;
  const [payload] = payloads;
  if (payloads.length !== 1 || !isText(payload?.text) || payload.mediaUrl || payload.mediaUrls?.length)
    return { status: "unresolved", error: "it is not one text", retryable: false };
  const { text } = payload;
  const to = { ...rest, text, deliveryQueueId: queueId, replyToId: effectiveReplyToId ?? null };
  const sent = await send(platform, to).catch((error) => {
    if (!isRefused(error)) throw error;
    return messageOf(error);
  });
  if (typeof sent === "string") return { status: "unresolved", error: sent, retryable: false };
  const { state, messageIds } = sent.meta;
  if (state === "unknown")
    return { status: "unresolved", error: unknown(platform, context.to), retryable: false };
  return { status: "sent", receipt: { platformMessageIds: messageIds, parts: [], sentAt: Date.now() } };
}

/** What OpenClaw's queue may be given. */
const DURABLE = {
  ...{ text: true, media: true, replyTo: true, thread: true, silent: true },
  messageSendingHooks: true,
};

/** The channel as OpenClaw takes it. */
export function channelPlugin(platform: PlatformRow, core: HostRuntime | undefined) {
  const path = `channels.${platform.id}`;
  const account = (cfg: HostConfig, id?: string | null) => accountOf(cfg, platform, id);
  const describe = ({ accountId, name, enabled, configured, config }: Account) => ({
    accountId,
    ...(name !== undefined && { name }),
    enabled,
    configured,
    tokenStatus: !configured
      ? "missing"
      : platform.required.every((field) => !(field in platform.secrets) || isText(config[field]))
        ? "available"
        : "configured_unavailable",
    dmPolicy: config.dmPolicy ?? "pairing",
  });
  return {
    id: platform.id,
    meta: {
      id: platform.id,
      label: platform.label,
      selectionLabel: platform.selectionLabel,
      docsPath: `/channels/${platform.id.replace("core-", "")}`,
      blurb: platform.blurb,
      markdownCapable: true,
    },
    capabilities: {
      chatTypes: ["direct", "group", "channel", "thread"],
      media: true,
      reactions: true,
      edit: platform.edits,
      reply: true,
      threads: true,
      blockStreaming: true,
    },
    reload: { configPrefixes: [path], noopPrefixes: [...OF_ALL_CHANNELS, ...live(path)] },
    config: {
      listAccountIds: (cfg: HostConfig) => listAccounts(cfg, platform),
      defaultAccountId: (cfg: HostConfig) => defaultAccount(cfg, platform),
      resolveAccount: account,
      inspectAccount: (cfg: HostConfig, id?: string | null) => describe(account(cfg, id)),
      isEnabled: ({ enabled }: Account) => enabled,
      isConfigured: ({ configured }: Account) => configured,
      unconfiguredReason: () => `${path}: ${platform.required.join(" and ")} must be set`,
      describeAccount: describe,
      resolveAllowFrom: ({ cfg, accountId }: { cfg: HostConfig; accountId?: string | null }) =>
        account(cfg, accountId).config.allowFrom,
      formatAllowFrom: ({ allowFrom }: { allowFrom: (string | number)[] }) =>
        allowFrom.map((entry) => platform.target(String(entry))).filter(isText),
      resolveDefaultTo: ({ cfg, accountId }: { cfg: HostConfig; accountId?: string | null }) =>
        account(cfg, accountId).config.defaultTo?.toString(),
    },
    security: {
      resolveDmPolicy: ({ account: { accountId, config }, cfg }: { account: Account; cfg: HostConfig }) => {
        const own = Object.keys(record(sectionOf(cfg, platform).accounts)).some(
          (name) => accountKey(name) === accountId,
        );
        const at = own ? `${path}.accounts.${accountId}` : path;
        return {
          policy: config.dmPolicy ?? "pairing",
          allowFrom: config.allowFrom ?? [],
          policyPath: `${at}.dmPolicy`,
          allowFromPath: `${at}.allowFrom`,
          approveHint: `openclaw pairing approve ${platform.id} <code>`,
          normalizeEntry: platform.target,
        };
      },
    },
    pairing: {
      idLabel: platform.idLabel,
      normalizeAllowEntry: platform.target,
      async notifyApproval({ id, accountId }: { id: string; accountId?: string }) {
        const running = shared().running.get(keyOf(platform, accountKey(accountId)));
        await running?.channel.send({ to: id, text: "OpenClaw: your access is approved." });
      },
    },
    groups: {
      resolveRequireMention: ({
        cfg,
        accountId,
        groupId,
      }: {
        cfg: HostConfig;
        accountId?: string | null;
        groupId?: string | null;
      }) => {
        const groups = account(cfg, accountId).config.groups;
        return (groups?.[groupId ?? ""] ?? groups?.["*"])?.requireMention ?? true;
      },
    },
    threading: {
      resolveReplyToMode: ({ cfg, accountId }: { cfg: HostConfig; accountId?: string | null }) =>
        account(cfg, accountId).config.replyToMode ?? "off",
    },
    messaging: {
      targetPrefixes: [platform.id],
      normalizeTarget: (raw: string) => platform.target(raw) || undefined,
      inferTargetChatType: ({ to }: { to: string }) => {
        const direct = platform.isDirect(platform.target(to));
        return direct === undefined ? undefined : direct ? "direct" : "group";
      },
      targetResolver: {
        looksLikeId: (raw: string) => platform.target(raw) !== "",
        hint: `<the ${platform.label} id of a chat>`,
      },
    },
    message: {
      durableFinal: {
        capabilities: { ...DURABLE, reconcileUnknownSend: true },
        automaticUnknownSendReconciliation: true,
        reconcileUnknownSendKinds: { text: true },
        reconcileUnknownSend: (context: UnknownSend) => reconcile(platform, context),
      },
    },
    outbound: {
      // The connection is the gateway's, and so are its inbox and outbox.
      deliveryMode: "gateway",
      // The native adapter renders, and then splits in the platform's own unit.
      chunker: null,
      textChunkLimit: platform.textLimit,
      deliveryCapabilities: { durableFinal: DURABLE },
      sendText: (context: SendContext) => send(platform, context),
      sendMedia: (context: SendContext) => send(platform, context),
    },
    actions: {
      describeMessageTool: ({ cfg, accountId }: { cfg: HostConfig; accountId?: string | null }) => {
        const ids = isText(accountId) ? [accountId] : listAccounts(cfg, platform);
        const usable = ids.map((id) => account(cfg, id)).some((one) => one.enabled && one.configured);
        return usable ? { actions: ["send", "react", ...(platform.edits ? ["edit"] : [])] } : null;
      },
      // Sending is `outbound`'s, and OpenClaw's queue is before it.
      supportsAction: ({ action }: { action: string }) =>
        action === "react" || (action === "edit" && platform.edits),
      resolveExecutionMode: () => "gateway",
      handleAction: (context: ActionContext) => act(platform, context),
    },
    heartbeat: {
      async sendTyping({ to, accountId, threadId }: SendContext) {
        const running = shared().running.get(keyOf(platform, accountKey(accountId)));
        const thread = threadId === undefined || threadId === null ? undefined : String(threadId);
        await running?.channel.typing(platform.target(to), thread);
      },
    },
    status: {
      defaultRuntime: { accountId: DEFAULT_ACCOUNT, running: false, connected: false, lastError: null },
      buildAccountSnapshot: ({ account: one, runtime }: { account: Account; runtime?: Snapshot }) => ({
        ...runtime,
        ...describe(one),
        mode: "native",
      }),
    },
    gateway: { startAccount: (context: StartContext) => startAccount(platform, core, context) },
  };
}
