// The plugin's own model providers, for those who choose them: connection, stream and message are native throughout.
// OpenClaw's runner owns retries and failover, so a call here is one request.
import type { CompletionRequest, Message, ProviderStream, StreamEvent } from "../index.js";
import { type Addon, loadAddon } from "./addon.js";

type Json = Record<string, unknown>;
type Class =
  | "AnthropicProvider"
  | "OpenAiProvider"
  | "OpenAiResponsesProvider"
  | "GeminiProvider"
  | "OllamaProvider";

/** One provider of the plugin: OpenClaw's provider whose keys and models it shares, its API, and the native class. */
interface Family {
  id: string;
  label: string;
  of: string;
  api: string;
  class: Class;
  baseUrl: string;
}

/** As in the plugin's manifest, whose `providerAuthAliases` say the same of keys. */
export const FAMILIES: readonly Family[] = [
  {
    id: "core-anthropic",
    label: "Anthropic, native",
    of: "anthropic",
    api: "anthropic-messages",
    class: "AnthropicProvider",
    baseUrl: "https://api.anthropic.com",
  },
  {
    id: "core-openai",
    label: "OpenAI chat completions, native",
    of: "openai",
    api: "openai-completions",
    class: "OpenAiProvider",
    baseUrl: "https://api.openai.com/v1",
  },
  {
    id: "core-openai-responses",
    label: "OpenAI responses, native",
    of: "openai",
    api: "openai-responses",
    class: "OpenAiResponsesProvider",
    baseUrl: "https://api.openai.com/v1",
  },
  {
    id: "core-google",
    label: "Gemini, native",
    of: "google",
    api: "google-generative-ai",
    class: "GeminiProvider",
    baseUrl: "https://generativelanguage.googleapis.com/v1beta",
  },
  {
    id: "core-ollama",
    label: "Ollama, native",
    of: "ollama",
    api: "ollama",
    class: "OllamaProvider",
    baseUrl: "http://127.0.0.1:11434",
  },
];

interface Cost {
  input: number;
  output: number;
  cacheRead: number;
  cacheWrite: number;
}
interface Model {
  id: string;
  name: string;
  provider: string;
  api: string;
  baseUrl: string;
  reasoning: boolean;
  input: string[];
  cost: Cost;
  contextWindow: number;
  maxTokens: number;
  headers?: Record<string, string>;
}
interface Context {
  systemPrompt?: string;
  messages: Json[];
  tools?: { name: string; description?: string; parameters: Json }[];
}
interface Options {
  apiKey?: string;
  signal?: AbortSignal;
  headers?: Record<string, string>;
  maxTokens?: number;
  temperature?: number;
  stop?: string[];
  reasoning?: string;
  thinkingBudgets?: Record<string, number>;
  cacheRetention?: "none" | "short" | "long";
  serviceTier?: string;
  toolChoice?: CompletionRequest["toolChoice"];
  timeoutMs?: number;
  onPayload?: (payload: unknown, model: Model) => unknown;
  onResponse?: (response: { status: number; headers: Record<string, string> }, model: Model) => unknown;
}
interface EventStream extends AsyncIterable<unknown> {
  result(): Promise<unknown>;
}
type StreamFn = (model: Model, context: Context, options?: Options) => Promise<EventStream>;

interface ProviderConfig {
  baseUrl?: string;
  headers?: Record<string, string>;
  models?: (Partial<Model> & { id: string })[];
}
interface DynamicModel {
  modelId: string;
  config?: { models?: { providers?: Record<string, ProviderConfig> } };
  modelRegistry?: { find?(provider: string, id: string): Partial<Model> | undefined };
}

/** The part of OpenClaw's plugin API that is used here. */
export interface ProvidersApi {
  registerProvider(provider: {
    id: string;
    label: string;
    auth: [];
    resolveDynamicModel(context: DynamicModel): Model;
    createStreamFn(): StreamFn;
  }): void;
}

/** What is used of OpenClaw's own: how it makes a conversation fit for a model that did not have all of it. */
interface TransportRuntime {
  transformTransportMessages(
    messages: Json[],
    model: Model,
    normalizeToolCallId?: (id: string) => string,
  ): Json[];
}

/** Offers the providers. No addon is loaded before one of them is asked. */
export function registerProviders(api: ProvidersApi): void {
  for (const family of FAMILIES) {
    api.registerProvider({
      id: family.id,
      label: family.label,
      auth: [],
      resolveDynamicModel: (context) => describeModel(family, context),
      createStreamFn: () => (model, context, options) => ask(family, model, context, options),
    });
  }
}

/** What OpenClaw knows of the model under its own provider; what only the user knows, under ours, counts more. */
function describeModel(family: Family, { modelId, config, modelRegistry }: DynamicModel): Model {
  const own = config?.models?.providers?.[family.id];
  const theirs = config?.models?.providers?.[family.of];
  const known = [
    own?.models?.find(({ id }) => id === modelId),
    theirs?.models?.find(({ id }) => id === modelId),
    modelRegistry?.find?.(family.of, modelId),
  ];
  const first = <K extends keyof Model>(key: K) => known.find((model) => model?.[key] !== undefined)?.[key];
  const headers = { ...theirs?.headers, ...own?.headers };
  return {
    id: modelId,
    name: first("name") ?? modelId,
    provider: family.id,
    api: family.api,
    baseUrl: own?.baseUrl ?? theirs?.baseUrl ?? family.baseUrl,
    reasoning: first("reasoning") ?? false,
    input: first("input") ?? ["text"],
    cost: first("cost") ?? { input: 0, output: 0, cacheRead: 0, cacheWrite: 0 },
    contextWindow: first("contextWindow") ?? 128_000,
    maxTokens: first("maxTokens") ?? 8192,
    ...(Object.keys(headers).length > 0 && { headers }),
  };
}

async function ask(
  family: Family,
  model: Model,
  context: Context,
  options: Options = {},
): Promise<EventStream> {
  const loaded = loadAddon();
  if ("error" in loaded) throw loaded.error;
  const sdk: string = "openclaw/plugin-sdk/provider-transport-runtime";
  const runtime = (await import(sdk)) as TransportRuntime;
  const provider = client(loaded.addon, family, model, options);
  const { onPayload, onResponse, signal, timeoutMs } = options;
  const stream = provider.stream(encode(family, model, context, options, runtime), {
    retries: 0,
    // How long an answer may take is for OpenClaw's runner to say.
    timeouts: { firstByteMs: timeoutMs ?? 0, idleMs: timeoutMs ?? 0, totalMs: 0 },
    ...(signal && { signal }),
    ...(options.headers && { headers: options.headers }),
    ...(onPayload && { onPayload: (payload: unknown) => onPayload(payload, model) }),
    ...(onResponse && {
      onResponse: async (response: { status: number; headers: Record<string, string> }) => {
        await onResponse(response, model);
      },
    }),
  });
  return adapt(stream);
}

function client(addon: Addon, family: Family, model: Model, options: Options) {
  return new addon[family.class]({
    id: model.provider,
    apiKey: options.apiKey ?? "",
    baseUrl: model.baseUrl,
    ...(model.headers && { headers: model.headers }),
    prices: { [model.id]: model.cost },
  });
}

/** Tokens of thinking for OpenClaw's levels, where an API counts them and OpenClaw's config does not. */
const BUDGETS: Record<string, number> = { minimal: 1024, low: 2048, medium: 8192, high: 16_384 };
/** Models of Anthropic's that decide for themselves how much they think. */
const ADAPTIVE = /claude-(?:opus|sonnet|haiku)-(?:4-[6-9]|[5-9])|claude-(?:fable|mythos)/;

function encode(
  family: Family,
  model: Model,
  context: Context,
  options: Options,
  runtime: TransportRuntime,
): CompletionRequest {
  const { temperature, stop, reasoning, cacheRetention, serviceTier, toolChoice } = options;
  let maxTokens = options.maxTokens ?? Math.min(model.maxTokens, 32_000);
  let thinking: CompletionRequest["thinking"];
  if (model.reasoning && reasoning && reasoning !== "off") {
    if (family.api === "anthropic-messages" && !ADAPTIVE.test(model.id)) {
      const level = reasoning === "xhigh" || reasoning === "max" ? "high" : reasoning;
      const wanted = options.thinkingBudgets?.[level] ?? BUDGETS[level] ?? 1024;
      maxTokens = Math.min(model.maxTokens, maxTokens + wanted);
      // Thinking counts as output, and some is to be left for the answer.
      const budgetTokens = Math.min(wanted, maxTokens - 1024);
      if (budgetTokens >= 1024) thinking = { budgetTokens };
    } else {
      thinking = { effort: reasoning as "low" };
    }
  }
  const messages = runtime.transformTransportMessages(context.messages, model);
  return {
    model: model.id,
    maxTokens,
    messages: messages as unknown as Message[],
    ...(context.systemPrompt && { system: context.systemPrompt }),
    ...(context.tools?.length && {
      tools: context.tools.map(({ name, description, parameters }) => ({
        name,
        description: description ?? "",
        parameters,
      })),
      ...(toolChoice !== undefined && { toolChoice }),
    }),
    ...(temperature !== undefined && !thinking && { temperature }),
    ...(stop?.length && { stop }),
    ...(thinking && { thinking }),
    // OpenClaw's own default.
    cache: cacheRetention ?? "short",
    ...(serviceTier && { serviceTier }),
  };
}

/** The stream as OpenClaw wants it: every count is there, and an error says what failover is decided by. */
function adapt(stream: ProviderStream): EventStream {
  const ended = new WeakSet<object>();
  const whole = (message: Json, cause?: unknown) => {
    if (ended.has(message)) return message;
    ended.add(message);
    const usage = (message.usage ?? {}) as Json;
    const none = { input: 0, output: 0, cacheRead: 0, cacheWrite: 0 };
    message.usage = {
      ...none,
      totalTokens: 0,
      ...usage,
      cost: { ...none, total: 0, ...(usage.cost as Json) },
    };
    if (cause) Object.assign(message, describeFailure(cause as Failure));
    return message;
  };
  let settle: (message: unknown) => void;
  const result = new Promise<unknown>((resolve) => {
    settle = resolve;
  });
  let partial: Json | undefined;
  async function* events() {
    let last: Json | undefined;
    try {
      for await (const event of stream as AsyncIterable<StreamEvent>) {
        if (event.type === "done") {
          last = whole(event.message as unknown as Json);
          settle(last);
        } else if (event.type === "error") {
          last = whole(event.error as unknown as Json, event.reason === "error" ? event.cause : undefined);
          settle(last);
        } else if (!partial) {
          // One object for the whole answer, which grows with it.
          partial = (event as { partial?: unknown }).partial as Json | undefined;
          if (partial) Object.assign(whole(partial), { stopReason: "stop" });
        }
        yield event;
      }
    } finally {
      // Whoever stops reading has the message all the same.
      if (!last) settle(whole((await stream.result()) as unknown as Json));
    }
  }
  const iterator = events();
  let read = false;
  return {
    [Symbol.asyncIterator]() {
      read = true;
      return iterator;
    },
    result() {
      if (!read) void drain(this);
      return result;
    },
  };
}

async function drain(stream: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of stream);
}

interface Failure {
  code?: string;
  errorType?: string;
  message?: string;
  status?: number;
  retryAfterMs?: number;
  body?: string;
}

/** OpenClaw classifies a failure by the status and the words of the API, and waits as long as they say. */
function describeFailure({ code, errorType, message, status, retryAfterMs, body }: Failure): Json {
  const wait = retryAfterMs ? ` (try again in ${Math.ceil(retryAfterMs / 1000)}s)` : "";
  return {
    errorMessage: status ? `${status}: ${body || message}${wait}` : (message ?? "the call failed"),
    ...(code && !status && { errorCode: code }),
    ...(errorType && { errorType }),
    ...(body && { errorBody: body }),
  };
}
