// The plugin's own model providers, for those who choose them: connection, stream and message are native throughout.
// OpenClaw's runner owns retries and failover, so a call here is one request.
import { createHash } from "node:crypto";
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
  /** What the user says of the model: OpenClaw's cap of its context, Ollama's options, and what its server can do. */
  contextTokens?: number;
  params?: Json;
  compat?: Json;
  /** The API's words for OpenClaw's levels of thinking; null for one that the model has not. */
  thinkingLevelMap?: Record<string, string | null>;
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
  topP?: number;
  frequencyPenalty?: number;
  presencePenalty?: number;
  seed?: number;
  stop?: string[];
  responseFormat?: Json;
  sessionId?: string;
  promptCacheKey?: string;
  metadata?: Json;
  reasoning?: string;
  thinkingBudgets?: Record<string, number>;
  cacheRetention?: "none" | "short" | "long";
  serviceTier?: string;
  toolChoice?: unknown;
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
  splitSystemPromptCacheBoundary(text: string): { stablePrefix: string; dynamicSuffix: string } | undefined;
  stripSystemPromptCacheBoundary(text: string): string;
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
  const carried: Partial<Model> = {};
  for (const key of ["contextTokens", "params", "compat", "thinkingLevelMap"] as const) {
    const value = first(key);
    if (value !== undefined) Object.assign(carried, { [key]: value });
  }
  return {
    ...carried,
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
  const headers = callHeaders(family, model, options);
  const stream = provider.stream(encode(family, model, context, options, runtime), {
    retries: 0,
    // How long an answer may take is for OpenClaw's runner to say.
    timeouts: { firstByteMs: timeoutMs ?? 0, idleMs: timeoutMs ?? 0, totalMs: 0 },
    ...(signal && { signal }),
    ...(headers && { headers }),
    ...(onPayload && { onPayload: (payload: unknown) => onPayload(payload, model) }),
    ...(onResponse && {
      onResponse: async (response: { status: number; headers: Record<string, string> }) => {
        await onResponse(response, model);
      },
    }),
  });
  return adapt(stream);
}

/** Clients that were asked of late, the last one last: their connections serve the next call as well. */
const clients = new Map<string, InstanceType<Addon[Class]>>();
const MAX_CLIENTS = 16;

function client(addon: Addon, family: Family, model: Model, options: Options) {
  const { id, provider, baseUrl, headers, cost } = model;
  const apiKey = options.apiKey ?? "";
  const what = JSON.stringify([family.class, provider, baseUrl, apiKey, headers, id, cost]);
  // No key is kept where it need not be.
  const name = createHash("sha256").update(what).digest("base64");
  const known = clients.get(name);
  clients.delete(name);
  const found =
    known ??
    new addon[family.class]({
      id: provider,
      apiKey,
      baseUrl,
      ...(headers && { headers }),
      prices: { [id]: cost },
    });
  clients.set(name, found);
  const [oldest] = clients.keys();
  if (clients.size > MAX_CLIENTS && oldest !== undefined) clients.delete(oldest);
  return found;
}

/** Keys of a Claude subscription, by the mark that OpenClaw tells them by. */
const isSubscription = (family: Family, { apiKey }: Options) =>
  family.api === "anthropic-messages" && apiKey?.includes("sk-ant-oat") === true;

/** What Anthropic takes a subscription's requests by, as OpenClaw's transport says it (2026.9). */
const CLAUDE_CODE = {
  betas: ["claude-code-20250219", "oauth-2025-04-20"],
  version: "2.1.278",
  identity: "You are Claude Code, Anthropic's official CLI for Claude.",
};

function callHeaders(family: Family, model: Model, options: Options): Record<string, string> | undefined {
  if (!isSubscription(family, options)) return options.headers;
  const headers: Record<string, string> = {};
  const betas = [...CLAUDE_CODE.betas];
  for (const [name, value] of Object.entries({ ...model.headers, ...options.headers }))
    if (name.toLowerCase() !== "anthropic-beta") headers[name] = value;
    else betas.push(...value.split(",").map((beta) => beta.trim()));
  const named = Object.keys(headers).map((name) => name.toLowerCase());
  return {
    ...(!named.includes("user-agent") && { "user-agent": `claude-cli/${CLAUDE_CODE.version}` }),
    ...(!named.includes("x-app") && { "x-app": "cli" }),
    ...headers,
    "anthropic-beta": [...new Set(betas)].filter(Boolean).join(","),
  };
}

/** Tokens of thinking for OpenClaw's levels, where an API counts them and OpenClaw's config does not. */
const BUDGETS: Record<string, number> = { minimal: 1024, low: 2048, medium: 8192, high: 16_384 };
/** Models of Anthropic's that decide for themselves how much they think. */
const ADAPTIVE = /claude-(?:opus|sonnet|haiku)-(?:4-[6-9]|[5-9])|claude-(?:fable|mythos)/;
/** OpenClaw's levels of thinking, upwards. */
const LEVELS = ["minimal", "low", "medium", "high", "xhigh", "max"];

/** The request: what the API cannot take is left out or brought down to what it can, as OpenClaw's own transports do. */
function encode(
  family: Family,
  model: Model,
  context: Context,
  options: Options,
  runtime: TransportRuntime,
): CompletionRequest {
  const { api } = family;
  const anthropic = api === "anthropic-messages";
  const openai = api === "openai-completions" || api === "openai-responses";
  const ollama = api === "ollama";
  const { temperature, stop, serviceTier } = options;
  const { maxTokens, thinking } = howMuch(family, model, options);
  const hasTools = Boolean(context.tools?.length);
  const toolChoice = readToolChoice(options.toolChoice);
  const isForced = toolChoice === "required" || typeof toolChoice === "object";
  const format = readFormat(options.responseFormat);
  const cache = retention(family, model, options);
  const extra: Json = {
    ...(ollama && ollamaExtra(model, options)),
    ...(anthropic && anthropicExtra(family, context, options, cache, runtime)),
    ...(openai && openaiExtra(model, options)),
  };
  const messages = runtime.transformTransportMessages(context.messages, model);
  return {
    model: model.id,
    ...(maxTokens !== undefined && { maxTokens }),
    messages: (model.input.includes("image")
      ? messages
      : messages.map(withoutImages)) as unknown as Message[],
    ...(context.systemPrompt && { system: runtime.stripSystemPromptCacheBoundary(context.systemPrompt) }),
    ...(hasTools && {
      tools: (context.tools ?? []).map(({ name, description, parameters }) => ({
        name,
        description: description ?? "",
        parameters,
      })),
      ...(toolChoice !== undefined &&
        // No model of Ollama's can be made to call; one of Anthropic's not while it thinks.
        !(isForced && (ollama || (anthropic && thinking))) && { toolChoice }),
    }),
    ...(temperature !== undefined && !(anthropic && thinking) && { temperature }),
    ...(stop?.length && api !== "openai-responses" && { stop }),
    ...(thinking && { thinking }),
    ...(format && (openai || (ollama && !hasTools)) && { responseFormat: format }),
    cache,
    ...(serviceTier && openai && { serviceTier }),
    ...(Object.keys(extra).length > 0 && { extra }),
  };
}

/** How much the model is to think, and how much it may say in all. */
function howMuch(
  { api }: Family,
  model: Model,
  options: Options,
): Pick<CompletionRequest, "maxTokens" | "thinking"> {
  const most = Math.min(model.maxTokens, 32_000);
  // Ollama's limit is the model's own, unless one is asked for.
  const maxTokens = options.maxTokens ?? (api === "ollama" ? undefined : most);
  const { reasoning } = options;
  if (!model.reasoning || !reasoning || reasoning === "off")
    return maxTokens === undefined ? {} : { maxTokens };
  const level = reachable(model, reasoning);
  const upToHigh = level === "xhigh" || level === "max" ? "high" : level;
  if (api === "anthropic-messages" && !ADAPTIVE.test(model.id)) {
    const wanted = options.thinkingBudgets?.[upToHigh] ?? BUDGETS[upToHigh] ?? 1024;
    const all = Math.min(model.maxTokens, (maxTokens ?? most) + wanted);
    // Thinking counts as output, and some is to be left for the answer.
    const budgetTokens = Math.min(wanted, all - 1024);
    return { maxTokens: all, ...(budgetTokens >= 1024 && { thinking: { budgetTokens } }) };
  }
  const limit = maxTokens === undefined ? {} : { maxTokens };
  const budgetTokens = options.thinkingBudgets?.[upToHigh];
  if (api === "google-generative-ai" && budgetTokens !== undefined && /gemini-[12]\b/.test(model.id))
    return { ...limit, thinking: { budgetTokens } };
  const mapped = model.thinkingLevelMap?.[level];
  const effort = mapped ?? (api === "google-generative-ai" || api === "ollama" ? upToHigh : level);
  // At Anthropic the model decides within the API's own limit; models of others do if they are not asked.
  if (effort === "adaptive" && api === "anthropic-messages")
    return { ...limit, thinking: { effort: "high" } };
  return effort === "adaptive" ? limit : { ...limit, thinking: { effort } };
}

/** The level, or the next one below it that the model has. */
function reachable({ thinkingLevelMap }: Model, level: string): string {
  const below = LEVELS.slice(0, LEVELS.indexOf(level) + 1).reverse();
  return below.find((name) => thinkingLevelMap?.[name] !== null) ?? level;
}

/** For how long the prompt is cached: OpenClaw's default is the short time, and only some servers know a longer one. */
function retention({ api }: Family, { baseUrl, compat }: Model, options: Options): "none" | "short" | "long" {
  const wanted = options.cacheRetention ?? "short";
  if (wanted !== "long") return wanted;
  if (api === "anthropic-messages") return compat?.supportsLongCacheRetention === false ? "short" : "long";
  // What other servers than OpenAI's own take is said with the key.
  const isOpenAis = api === "openai-completions" || api === "openai-responses";
  return isOpenAis && isOpenAi(baseUrl) && keepsLong({ baseUrl, compat }) ? "long" : "short";
}

function isOpenAi(baseUrl: string): boolean {
  const { protocol, hostname } = address(baseUrl);
  return protocol === "https:" && /(?:^|\.)api\.openai\.com$/.test(hostname);
}

function address(url: string): { protocol: string; hostname: string } {
  return URL.canParse(url) ? new URL(url) : { protocol: "", hostname: "" };
}

const takesCacheKey = ({ baseUrl, compat }: { baseUrl: string; compat: Json | undefined }) =>
  (compat?.supportsPromptCacheKey ?? isOpenAi(baseUrl)) === true;

const keepsLong = ({ baseUrl, compat }: { baseUrl: string; compat: Json | undefined }) =>
  takesCacheKey({ baseUrl, compat }) && (compat?.supportsLongCacheRetention ?? isOpenAi(baseUrl)) === true;

/** A choice, in the words of whatever API, in those of a request; none for what says nothing. */
function readToolChoice(choice: unknown): CompletionRequest["toolChoice"] {
  if (choice === "auto" || choice === "none" || choice === "required") return choice;
  if (choice === "any") return "required";
  if (typeof choice !== "object" || choice === null) return undefined;
  const { type, name, function: named } = choice as { type?: string; name?: unknown; function?: Json };
  const tool = name ?? named?.name;
  return typeof tool === "string" ? { name: tool } : readToolChoice(type);
}

/** As OpenAI writes it, or a bare schema. */
function readFormat(format: Json | undefined): CompletionRequest["responseFormat"] {
  if (!format || format.type === "text") return undefined;
  if (format.type === "json_object") return { type: "json" };
  const asked = format.type === "json_schema" ? (format.json_schema ?? format) : { schema: format };
  const { name, schema, strict } = asked as { name?: string; schema?: Json; strict?: boolean };
  return {
    type: "jsonSchema",
    name: name ?? "response",
    schema: schema ?? {},
    ...(strict !== undefined && { strict }),
  };
}

/** A message for a model that sees nothing: the words are OpenClaw's. */
function withoutImages(message: Json): Json {
  if (!Array.isArray(message.content)) return message;
  const text = "(image omitted: model does not support images)";
  const content: Json[] = [];
  for (const part of message.content as Json[])
    if (part.type !== "image") content.push(part);
    else if (content.at(-1)?.text !== text) content.push({ type: "text", text });
  return { ...message, content };
}

const OLLAMA_OPTIONS = new Set(
  (
    "num_keep seed num_predict top_k top_p min_p typical_p repeat_last_n temperature repeat_penalty " +
    "presence_penalty frequency_penalty stop num_ctx num_batch num_gpu main_gpu use_mmap num_thread"
  ).split(" "),
);
const OLLAMA_FIELDS = new Set(["format", "keep_alive", "truncate", "shift", "think"]);

/** What a model's `params` say to Ollama. What a call asks for counts more. */
function ollamaExtra(model: Model, options: Options): Json {
  const own: Json = {};
  const fields: Json = {};
  for (const [name, value] of Object.entries(model.params ?? {}))
    if (value === undefined) continue;
    else if (OLLAMA_OPTIONS.has(name)) own[name] = value;
    else if (OLLAMA_FIELDS.has(name)) fields[name] = value;
  const { contextTokens } = model;
  // Without it, Ollama cuts what an agent says to its own short default.
  if (contextTokens !== undefined && contextTokens > 0) own.num_ctx ??= Math.floor(contextTokens);
  const asked = {
    temperature: options.temperature,
    num_predict: options.maxTokens,
    top_p: options.topP,
    frequency_penalty: options.frequencyPenalty,
    presence_penalty: options.presencePenalty,
    seed: options.seed,
    stop: options.stop?.length ? options.stop : undefined,
  };
  for (const [name, value] of Object.entries(asked)) if (value !== undefined) own[name] = value;
  // Greedy, whatever the model's own file says.
  if (own.temperature === 0) own.top_p = 1;
  const isLocal = !/(?:^|\.)ollama\.com$/.test(address(model.baseUrl).hostname);
  return {
    // A prompt that is too long is an error, which OpenClaw answers by compaction; cut, it would be another prompt.
    ...(isLocal && !/[:-]cloud$/.test(model.id) && { truncate: false, shift: false }),
    ...fields,
    ...(Object.keys(own).length > 0 && { options: own }),
  };
}

function openaiExtra({ baseUrl, compat, api }: Model, options: Options): Json {
  const key = options.promptCacheKey ?? options.sessionId;
  const chat = api === "openai-completions";
  const asked = {
    // The API takes 64 characters.
    prompt_cache_key:
      key && options.cacheRetention !== "none" && takesCacheKey({ baseUrl, compat })
        ? [...key].slice(0, 64).join("")
        : undefined,
    prompt_cache_retention:
      options.cacheRetention === "long" && !isOpenAi(baseUrl) && keepsLong({ baseUrl, compat })
        ? "24h"
        : undefined,
    top_p: options.topP,
    frequency_penalty: chat ? options.frequencyPenalty : undefined,
    presence_penalty: chat ? options.presencePenalty : undefined,
    seed: chat ? options.seed : undefined,
  };
  return Object.fromEntries(Object.entries(asked).filter(([, value]) => value !== undefined));
}

/** What is cached of the system prompt ends where OpenClaw says that it changes from turn to turn. */
function anthropicExtra(
  family: Family,
  { systemPrompt }: Context,
  options: Options,
  cache: "none" | "short" | "long",
  runtime: TransportRuntime,
): Json {
  const extra: Json = {};
  if (typeof options.metadata?.user_id === "string") extra.metadata = { user_id: options.metadata.user_id };
  const mark =
    cache === "none" ? {} : { cache_control: { type: "ephemeral", ...(cache === "long" && { ttl: "1h" }) } };
  const split = systemPrompt ? runtime.splitSystemPromptCacheBoundary(systemPrompt) : undefined;
  const isOauth = isSubscription(family, options);
  if (!isOauth && !split) return extra;
  const block = (text: string, marked: object = {}) =>
    text.trim() ? [{ type: "text", text: runtime.stripSystemPromptCacheBoundary(text), ...marked }] : [];
  const system = split
    ? [...block(split.stablePrefix, mark), ...block(split.dynamicSuffix)]
    : block(systemPrompt ?? "", mark);
  if (isOauth)
    system.unshift(
      ...block(`x-anthropic-billing-header: cc_version=${CLAUDE_CODE.version}; cc_entrypoint=sdk-cli;`),
      ...block(CLAUDE_CODE.identity, system.length > 0 ? {} : mark),
    );
  if (system.length > 0) extra.system = system;
  return extra;
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
  let partial: Json | undefined;
  const prepare = (result: IteratorResult<StreamEvent>) => {
    if (result.done) return result;
    const event = result.value;
    if (event.type === "done") whole(event.message as unknown as Json);
    else if (event.type === "error")
      whole(event.error as unknown as Json, event.reason === "error" ? event.cause : undefined);
    else if (!partial) {
      // One object for the whole answer, which grows with it.
      partial = event.partial as unknown as Json;
      Object.assign(whole(partial), { stopReason: "stop" });
    }
    return result;
  };
  const source = (stream as AsyncIterable<StreamEvent>)[Symbol.asyncIterator]();
  const read = () => source.next().then(prepare);
  const queue: IteratorResult<StreamEvent>[] = [];
  let draining: Promise<void> | undefined;
  const iterator: AsyncIterableIterator<StreamEvent> = {
    async next() {
      if (draining) await draining;
      return queue.shift() ?? read();
    },
    return: async () => {
      queue.length = 0;
      await stream.return?.();
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]: () => iterator,
  };
  const drain = async () => {
    for (let next = await read(); !next.done; next = await read()) queue.push(next);
  };
  let result: Promise<unknown> | undefined;
  return {
    [Symbol.asyncIterator]: () => iterator,
    /** Whoever reads nothing, or stops reading, has the message all the same. */
    result() {
      result ??= stream.result().then(async (message) => {
        // Only the last event says why.
        if (message.stopReason === "error") {
          draining = drain();
          await draining;
          draining = undefined;
        }
        return whole(message as unknown as Json);
      });
      return result;
    },
  };
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
