// The parts of OpenClaw that a channel is given or imports, as far as they are used here.
import type { ChannelStatus, InboundMessage } from "../../index.js";

/** OpenClaw's config, as far as it is read here. */
export interface HostConfig {
  channels?: Record<string, unknown>;
  messages?: { queue?: { mode?: string; byChannel?: Record<string, string> } };
  accessGroups?: unknown;
}

/** A channel's section of the config, or one account of it with the section's values as its defaults. */
export interface Section {
  enabled?: boolean;
  name?: string;
  dmPolicy?: "pairing" | "allowlist" | "open" | "disabled";
  allowFrom?: (string | number)[];
  groupPolicy?: "allowlist" | "open" | "disabled";
  groupAllowFrom?: (string | number)[];
  groups?: Record<string, GroupConfig>;
  mediaMaxMb?: number;
  replyToMode?: "off" | "first" | "all" | "batched";
  defaultTo?: string | number;
  accounts?: Record<string, Section>;
  [field: string]: unknown;
}
export interface GroupConfig {
  requireMention?: boolean;
  enabled?: boolean;
  allowFrom?: (string | number)[];
}

/** An account as OpenClaw hands it around. */
export interface Account {
  accountId: string;
  name?: string;
  enabled: boolean;
  configured: boolean;
  config: Section;
}

/** What an account reports; OpenClaw shows it in `openclaw channels status`, and its health monitor reads it. */
export interface Snapshot {
  accountId: string;
  running?: boolean;
  connected?: boolean;
  lifecycle?: "starting" | "ready" | "recovering" | "blocked" | "stopped";
  lastError?: string | null;
  lastStartAt?: number | null;
  lastStopAt?: number | null;
  lastConnectedAt?: number | null;
  lastDisconnect?: { at: number; error?: string } | null;
  lastTransportActivityAt?: number | null;
  lastInboundAt?: number | null;
  lastOutboundAt?: number | null;
  [field: string]: unknown;
}

export interface Log {
  info?(text: string): void;
  warn?(text: string): void;
  error?(text: string): void;
}

export interface Route {
  agentId: string;
  dmScope?: string;
  sessionKey: string;
  mainSessionKey: string;
}
export type Conversation = { kind: "direct" | "group" | "channel"; id: string };

export interface Ingress {
  ingress: { admission: string; decision: string; reasonCode: string };
  senderAccess: { decision: string };
  commandAccess: { authorized?: boolean };
  activationAccess: { effectiveWasMentioned?: boolean };
}

/** `api.runtime`; OpenClaw's pairing helper wants the whole. */
export interface HostRuntime {
  state?: { resolveStateDir?(env: NodeJS.ProcessEnv): string };
  config?: { current?(): HostConfig };
  events?: { onAgentEvent?(listener: (event: AgentEvent) => void): () => void };
}
/** What happens in a run, as OpenClaw tells everybody. */
export interface AgentEvent {
  sessionKey?: string;
  stream: string;
  data: {
    phase?: string;
    error?: unknown;
    /** With the phase "end": what the model said. */
    terminalReply?: { disposition?: string; text?: string };
  };
}

export interface ReplyPayload {
  text?: string;
  mediaUrl?: string;
  mediaUrls?: string[];
  replyToId?: string | null;
  /** What OpenClaw says of a turn that failed. */
  isError?: boolean;
}

/** `ctx.channelRuntime`. */
export interface ChannelRuntime {
  routing: { resolveAgentRoute(input: Record<string, unknown>): Route };
  groups: {
    resolveGroupPolicy(input: Record<string, unknown>): { allowed: boolean; groupConfig?: GroupConfig };
    resolveRequireMention(input: Record<string, unknown>): boolean;
  };
  mentions: {
    buildMentionRegexes(cfg: HostConfig, agentId: string): RegExp[];
    matchesMentionPatterns(text: string, patterns: RegExp[]): boolean;
  };
  text: { hasControlCommand(text: string, cfg: HostConfig): boolean };
  commands: { shouldHandleTextCommands(input: Record<string, unknown>): boolean };
  media: {
    saveMediaBuffer(
      data: Buffer,
      contentType: string | undefined,
      folder: string,
      maxBytes: number,
      fileName?: string,
    ): Promise<{ path: string; contentType?: string }>;
  };
  inbound: {
    ingress: { resolveStable(input: Record<string, unknown>): Promise<Ingress> };
    buildContext(input: Record<string, unknown>): Record<string, unknown>;
    dispatch(input: Record<string, unknown>): Promise<unknown>;
  };
}

/** What `gateway.startAccount` is called with. */
export interface StartContext {
  cfg: HostConfig;
  accountId: string;
  account: Account;
  abortSignal: AbortSignal;
  log?: Log;
  getStatus(): Snapshot;
  setStatus(next: Snapshot): void;
  channelRuntime?: ChannelRuntime;
}

/** What the outbound adapter is called with. */
export interface SendContext {
  cfg: HostConfig;
  to: string;
  text: string;
  mediaUrl?: string;
  accountId?: string | null;
  threadId?: string | number | null;
  replyToId?: string | null;
  silent?: boolean;
  signal?: AbortSignal;
  mediaAccess?: unknown;
  mediaLocalRoots?: readonly string[];
  mediaReadFile?: (path: string) => Promise<Buffer>;
  /** The same for the same message of OpenClaw's own queue, also after a restart. */
  deliveryQueueId?: string;
  deliveryPartIndex?: number;
  onPlatformSendDispatch?: () => Promise<void>;
  assertDirectAdapterHandoff?: () => void;
}

/** What OpenClaw asks after a crash that came while its queue was sending. */
export interface UnknownSend extends Omit<SendContext, "text" | "mediaUrl" | "deliveryQueueId"> {
  queueId: string;
  payloads: readonly ReplyPayload[];
  effectiveReplyToId?: string | null;
}

/** What an action of the agents' `message` tool, or of `openclaw message`, is called with. */
export interface ActionContext {
  action: string;
  cfg: HostConfig;
  params: Record<string, unknown>;
  accountId?: string | null;
  /** The conversation that the agent answers in. */
  toolContext?: { currentChannelId?: string; currentMessageId?: string | number };
  assertDirectAdapterHandoff?: () => void;
}

/** One of the package's channels, whichever. */
export interface NativeChannel {
  messages(options: { signal: AbortSignal }): AsyncIterable<InboundMessage>;
  send(
    message: {
      to: string;
      text?: string;
      attachments?: { data: Uint8Array; name: string; mimeType?: string }[];
      replyToId?: string;
      threadId?: string;
      silent?: boolean;
      idempotencyKey?: string;
    },
    options?: { signal?: AbortSignal },
  ): Promise<{ messageIds: string[]; state: "accepted" | "unknown"; attempts: number }>;
  edit(to: string, messageId: string, text: string): Promise<void>;
  react(to: string, messageId: string, emoji: string): Promise<void>;
  typing(to: string, threadId?: string): Promise<void>;
  status(): ChannelStatus;
  close(): Promise<void>;
}

/** Imports a part of OpenClaw's plugin SDK, which OpenClaw resolves for its plugins. */
export async function sdk<T>(name: string): Promise<T> {
  return (await import(`openclaw/plugin-sdk/${name}`)) as T;
}

export const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error));
