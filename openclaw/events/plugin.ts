// What the plugin gives OpenClaw for the event store: a service that mirrors, listeners for what it mirrors, and the
// gateway methods by which `openclaw core events` reads a store that the gateway has open.
import type { Mode } from "../switch.js";
import { type AgentEvent, openTranscripts, type Session } from "./host.js";
import { type Answer, Jobs, METHODS } from "./methods.js";
import { isId, Mirror, type MirrorOptions } from "./mirror.js";
import {
  codeOf,
  type EventsConfig,
  GATEWAY_CACHE_BYTES,
  messageOf,
  type NewEvent,
  openStore,
  storePath,
} from "./store.js";

interface Logger {
  info(text: string): void;
  warn(text: string): void;
}
interface ServiceContext {
  config: unknown;
  stateDir: string;
  logger: Logger;
  serviceHealth?: MirrorOptions["health"];
}
interface GatewayRequest {
  params?: Record<string, unknown>;
  respond(ok: boolean, payload?: unknown, error?: { code: string; message: string; details?: unknown }): void;
}

/** The part of OpenClaw's plugin API that is used here. */
export interface EventsApi {
  registrationMode?: string;
  on?(hook: string, handler: (event: unknown, context: unknown) => void): void;
  registerService?(service: {
    id: string;
    reload?: { configPrefixes: string[] };
    start(context: ServiceContext): Promise<void>;
    stop(context: ServiceContext): Promise<void>;
  }): void;
  registerGatewayMethod?(
    name: string,
    handler: (request: GatewayRequest) => Promise<void>,
    options: { scope: string },
  ): void;
  agent?: {
    events?: {
      registerAgentEventSubscription(subscription: { id: string; handle(event: AgentEvent): void }): void;
    };
  };
  runtime?: {
    events?: { onSessionTranscriptUpdate(listener: (update: { target?: Session }) => void): () => void };
  };
}

/** OpenClaw registers a plugin several times in a process, from more than one copy of this file. There is one mirror. */
interface Shared {
  mirror?: Mirror;
  jobs: Jobs;
  stopListening?: () => void;
}
const SHARED = Symbol.for("openclaw.core.events");
function shared(): Shared {
  const global = globalThis as Record<symbol, unknown>;
  global[SHARED] ??= { jobs: new Jobs() };
  return global[SHARED] as Shared;
}

const CONFIG_PATH = "plugins.entries.core.config.events";

/** Registers everything of the event store with OpenClaw; opens nothing. */
export function registerEvents(api: EventsApi, mode: Mode): void {
  if (mode === "off") return;
  // Hooks may be called from any of the registrations; subscriptions and services only count in the full one.
  for (const [hook, handle] of Object.entries(HOOKS)) {
    api.on?.(hook, (event, context) => {
      const { mirror } = shared();
      if (mirror) handle(mirror, (event ?? {}) as HookEvent, (context ?? {}) as HookContext);
    });
  }
  for (const [name, { scope, run }] of Object.entries(METHODS)) {
    api.registerGatewayMethod?.(
      name,
      async ({ params, respond }) => {
        try {
          const { mirror, jobs } = shared();
          const answer: Answer = await run({ mirror, jobs }, params ?? {});
          respond(true, { ...answer, store: mirror?.path });
        } catch (error) {
          const code = codeOf(error);
          respond(false, undefined, {
            code: "UNAVAILABLE",
            message: messageOf(error),
            ...(code !== undefined && { details: { code } }),
          });
        }
      },
      { scope },
    );
  }
  if (api.registrationMode !== undefined && api.registrationMode !== "full") return;
  api.agent?.events?.registerAgentEventSubscription({
    id: "core-events",
    handle: (event) => shared().mirror?.agentEvent(event),
  });
  api.registerService?.({
    id: "core-events",
    reload: { configPrefixes: [CONFIG_PATH] },
    start: (context) => startMirror(api, context, mode),
    stop: stopMirror,
  });
}

async function startMirror(api: EventsApi, context: ServiceContext, mode: Mode): Promise<void> {
  const config = eventsConfig(context.config);
  if (config.enabled === false) return;
  await stopMirror();
  const { retention = {}, queue = {} } = config;
  const mirror = new Mirror({
    path: storePath(context.stateDir, config),
    open: openStore,
    store: {
      durability: config.durability ?? "always",
      cacheBytes: GATEWAY_CACHE_BYTES,
      ...(config.retention && {
        retention: {
          ...(retention.maxAgeDays !== undefined && { maxAgeMs: retention.maxAgeDays * 24 * 3_600_000 }),
          ...(retention.maxBytes !== undefined && { maxBytes: retention.maxBytes }),
        },
      }),
    },
    transcripts: () => openTranscripts(context.config),
    deltas: config.deltas === true,
    queue: { events: queue.events ?? 10_000, bytes: queue.bytes ?? 64 << 20 },
    log: context.logger,
    health: context.serviceHealth,
  });
  const global = shared();
  global.mirror = mirror;
  const stopListening = api.runtime?.events?.onSessionTranscriptUpdate(({ target }) => mirror.grown(target));
  if (stopListening) global.stopListening = stopListening;
  const opened = mirror.start();
  // A store that cannot be opened is the mirror's trouble, which it tells, and not the gateway's, unless that was asked.
  if (mode === "require") await opened;
  else opened.catch(() => {});
}

async function stopMirror(): Promise<void> {
  const global = shared();
  const { mirror, stopListening } = global;
  delete global.stopListening;
  stopListening?.();
  global.jobs.cancelAll();
  await mirror?.stop();
  if (global.mirror === mirror) delete global.mirror;
}

function eventsConfig(config: unknown): EventsConfig {
  let value = config;
  for (const key of CONFIG_PATH.split(".")) value = (value as Record<string, unknown> | undefined)?.[key];
  return (value ?? {}) as EventsConfig;
}

/** Fields that one hook or another gives. */
interface HookEvent extends Partial<Session> {
  messageId?: string;
  timestamp?: number;
  toolName?: string;
  toolCallId?: string;
  durationMs?: number;
  error?: string;
  runId?: string;
  reason?: string;
  nextSessionId?: string;
  to?: string;
  from?: string;
}
interface HookContext extends Partial<Session> {
  channelId?: string;
  accountId?: string;
  conversationId?: string;
  runId?: string;
}

const HOOKS: Record<string, (mirror: Mirror, event: HookEvent, context: HookContext) => void> = {
  message_received: (mirror, event, context) =>
    mirror.hookEvent(channelEvent("message_arrived", event, context, event.from)),
  message_sent: (mirror, event, context) =>
    mirror.hookEvent(channelEvent("message_delivered", event, context, event.to)),

  // The transcript's header is the same fact and says more.
  session_start: (mirror, event, context) => mirror.grown({ ...context, ...event }),

  session_end(mirror, event, context) {
    mirror.grown({ ...context, ...event });
    const { sessionId, sessionKey = context.sessionKey, reason, nextSessionId } = event;
    // The gateway ends, the session does not: it goes on with the next one.
    if (!sessionId || !sessionKey || reason === "shutdown" || reason === "restart") return;
    const endedMs = Date.now();
    mirror.hookEvent({
      sessionKey,
      agentId: context.agentId ?? agentOf(sessionKey),
      kind: "session_ended",
      // A reset may keep the session's id, and then comes again.
      id: `session-end:${sessionId}${nextSessionId === sessionId ? `:${endedMs}` : ""}`,
      timestampMs: endedMs,
      data: plain(event),
    });
  },

  after_tool_call(mirror, event, context) {
    const { toolCallId, toolName, durationMs, error } = event;
    const { sessionKey, sessionId } = context;
    if (!toolCallId || !sessionKey || !sessionId) return;
    const runId = event.runId ?? context.runId;
    mirror.hookEvent({
      sessionKey,
      agentId: context.agentId ?? agentOf(sessionKey),
      kind: "tool_finished",
      id: `tool-end:${sessionId}:${toolCallId}`,
      timestampMs: Date.now(),
      data: {
        sessionId,
        toolCallId,
        name: toolName,
        ...(runId && { runId }),
        ...(durationMs !== undefined && { durationMs }),
        ...(error !== undefined && { error }),
      },
    });
  },
};

function channelEvent(
  kind: "message_arrived" | "message_delivered",
  event: HookEvent,
  context: HookContext,
  peer: string | undefined,
): NewEvent {
  const { channelId = "unknown", accountId = "default", conversationId = peer ?? "unknown" } = context;
  const sessionKey =
    event.sessionKey ?? context.sessionKey ?? `channel:${channelId}:${accountId}:${conversationId}`;
  const name = kind === "message_arrived" ? "arrived" : "delivered";
  const id = `${name}:${channelId}:${accountId}:${conversationId}:${event.messageId}`;
  return {
    sessionKey,
    agentId: context.agentId ?? agentOf(sessionKey),
    kind,
    timestampMs: event.timestamp ?? Date.now(),
    ...(event.messageId && isId(id) && { id }),
    data: { channelId, accountId, conversationId, ...plain(event) },
  };
}

function agentOf(sessionKey: string): string {
  return /^agent:([^:]+):/.exec(sessionKey)?.[1] ?? "main";
}

/** A hook's event as data: OpenClaw goes on using the object, and some fields are not data. */
function plain(event: HookEvent): Record<string, unknown> {
  try {
    return JSON.parse(JSON.stringify(event));
  } catch {
    const { sessionId, sessionKey, messageId, reason } = event;
    return JSON.parse(JSON.stringify({ sessionId, sessionKey, messageId, reason }));
  }
}
