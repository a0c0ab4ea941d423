/** What happened: one of these, or any other word. */
export type EventKind = 'session_started' | 'message_received' | 'message_sent' | 'tool_called' | 'tool_result' | 'agent_response' | 'state_changed' | 'session_ended' | (string & {})
/** Where the key of a `CredentialStore` comes from. A passphrase is stretched by Argon2id (RFC 9106: 64 MiB, 3 passes, 4 lanes); all others are 32 random bytes. */
export type KeySource = { passphrase: string | Uint8Array | ApiKey } | { keyFile: string } | { keychain: { service: string; account: string } } | { systemdCredential: string } | { raw: Uint8Array | ApiKey }

/** Token counts of an answer. A count that the API did not send is absent, never 0. */
export interface Usage {
  /** Of the prompt, cached parts not counted. */
  input?: number
  /** Of the answer, reasoning included. */
  output?: number
  /** Of the prompt, read from the cache. */
  cacheRead?: number
  /** Of the prompt, written to the cache. */
  cacheWrite?: number
  /** The part of `cacheWrite` that is kept for an hour. */
  cacheWrite1h?: number
  /** The sum of the four, or what the API says it is. */
  totalTokens?: number
  /** The part of `output` that is reasoning. */
  reasoning?: number
  /** In the currency of `prices`, by OpenClaw's own calculation. */
  cost?: { input: number; output: number; cacheRead: number; cacheWrite: number; total: number }
}
/** A part of a message, in OpenClaw's shape. Signatures are what the API wants back, untouched. */
export type Content =
  | { type: 'text'; text: string; textSignature?: string }
  | { type: 'thinking'; thinking: string; thinkingSignature?: string; redacted?: boolean }
  | { type: 'image'; data: string; mimeType: string }
  | { type: 'toolCall'; id: string; name: string; arguments: Record<string, unknown>; thoughtSignature?: string }
/** A turn of a conversation, in OpenClaw's shape; what else OpenClaw's transcripts hold is ignored. */
export type Message =
  | { role: 'user'; content: string | Content[] }
  | { role: 'assistant'; content: Content[]; api?: string; provider?: string; model?: string }
  | { role: 'toolResult'; toolCallId: string; toolName: string; content: Content[]; isError?: boolean }
/** What a model may call; `parameters` is the JSON Schema of its arguments. */
export interface Tool { name: string; description: string; parameters: object }
/** What is asked of a model. What the API cannot express is a `PROVIDER_REQUEST` that names the field in `path`. */
export interface CompletionRequest {
  /** The model's id as the API knows it. */
  model: string
  /** The system prompt. */
  system?: string
  /** The conversation, oldest first. */
  messages: Message[]
  /** What the model may call. */
  tools?: Tool[]
  /** Default: as the API has it, which is 'auto'. */
  toolChoice?: 'auto' | 'none' | 'required' | { name: string }
  /** Whether one answer may call several tools. Default: the API's own. */
  parallelToolCalls?: boolean
  /** The most tokens of the answer. */
  maxTokens?: number
  /** Sampling temperature. */
  temperature?: number
  /** Texts at which the answer ends. */
  stop?: string[]
  /** How much the model thinks first. Default: the API's own. */
  thinking?: { budgetTokens: number } | { effort: 'minimal' | 'low' | 'medium' | 'high' | (string & {}) }
  /** For how long the prompt is cached: the API's usual time, or its longer one. Default: 'none'. */
  cache?: 'none' | 'short' | 'long'
  /** The form of the answer. */
  responseFormat?: { type: 'json' } | { type: 'jsonSchema'; name?: string; schema: object; strict?: boolean }
  /** The API's service tier, in its own word. */
  serviceTier?: string
  /** Fields of the API's payload that go in as they are, over those that were derived. */
  extra?: Record<string, unknown>
}
/** An answer, as OpenClaw keeps it in its transcripts. */
export interface AssistantMessage {
  role: 'assistant'
  content: Content[]
  api: string
  provider: string
  model: string
  /** The API's id of the answer. */
  responseId?: string
  /** The model that says it answered. */
  responseModel?: string
  /** Absent if the API sent no count. */
  usage?: Usage
  stopReason: 'stop' | 'length' | 'toolUse' | 'error' | 'aborted'
  errorMessage?: string
  /** When the call began, in milliseconds since 1970. */
  timestamp: number
}
/**
 * What happens in a stream. `partial` is the message so far: one object that grows; a tool call's arguments are in it
 * once they are whole. `toolcall_end` follows only when the whole answer has come, and each call's arguments are one
 * complete JSON object. The last event is `done` or `error`; `cause` is an `Error` with a `code`, or the signal's reason.
 */
export type StreamEvent =
  | { type: 'start'; readonly partial: AssistantMessage }
  | { type: 'text_start' | 'thinking_start'; contentIndex: number; readonly partial: AssistantMessage }
  | { type: 'toolcall_start'; contentIndex: number; id: string; name: string; readonly partial: AssistantMessage }
  | { type: 'text_delta' | 'thinking_delta' | 'toolcall_delta'; contentIndex: number; delta: string; readonly partial: AssistantMessage }
  | { type: 'text_end' | 'thinking_end'; contentIndex: number; content: string; readonly partial: AssistantMessage }
  | { type: 'toolcall_end'; contentIndex: number; toolCall: Extract<Content, { type: 'toolCall' }>; readonly partial: AssistantMessage }
  | { type: 'done'; reason: 'stop' | 'length' | 'toolUse'; message: AssistantMessage }
  | { type: 'error'; reason: 'aborted' | 'error'; error: AssistantMessage; cause: unknown }
/** How a call is made. */
export interface CallOptions {
  /**
   * Aborts the call: the connection is closed, a hook is not waited for, and no event follows but the last, even if more
   * had come.
   */
  signal?: AbortSignal
  /**
   * Milliseconds; 0 for no limit. `connectMs`: until a connection stands, TLS included (10,000). `firstByteMs`: from the
   * beginning of an attempt to the first byte of the answer's body (300,000). `idleMs`: between two things that the model
   * says; pings are not that (120,000). `totalMs`: everything, retries included (none). What runs out is a `TIMEOUT` with
   * its name in `phase`.
   */
  timeouts?: { connectMs?: number; firstByteMs?: number; idleMs?: number; totalMs?: number }
  /**
   * How often a failed attempt is followed by another, while nothing of an answer has come: after 408, 409, 429, 5xx and
   * failing to connect. The wait is a random part of 500 ms, doubled each time to 8 s at most, behind what
   * `retry-after-ms` or `Retry-After` ask for. Default: 2.
   */
  retries?: number
  /** The longest wait that a server may ask for; a call that should wait longer fails at once. Default: 60,000. */
  retryAfterCapMs?: number
  /** Headers of this call, over those of the client. */
  headers?: Record<string, string>
  /** Sees the payload before it is sent; what it gives, unless undefined, is sent in its place. */
  onPayload?: (payload: unknown) => unknown
  /** Sees each answer's head before its events. */
  onResponse?: (response: { status: number; headers: Record<string, string> }) => unknown
}
/** Who calls, and whom. */
export interface ProviderOptions {
  /** "" or none for servers that want none. */
  apiKey?: ApiKey | string | Uint8Array
  /** Default: the API's own; another one for servers that speak the same API. */
  baseUrl?: string
  /** The provider's id in messages and errors. Default: 'anthropic', 'openai', 'google' or 'ollama'. */
  id?: string
  /** Headers of every call. */
  headers?: Record<string, string>
  /** The URL of an HTTP proxy; "" for none. Default: as `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say. */
  proxy?: string
  /** A PEM file of certificate authorities to trust beside those of the system. */
  caFile?: string
  /** By model, for a million tokens. */
  prices?: Record<string, { input: number; output: number; cacheRead?: number; cacheWrite?: number }>
}
/** An answer that streams: its events, once, and its message. Reading slowly holds the server back; `break` ends the call. */
export interface ProviderStream<M = AssistantMessage> extends AsyncIterableIterator<StreamEvent, undefined> {
  return(): Promise<IteratorReturnResult<undefined>>
  /**
   * The message, whether good or not; never rejects. The stream is read for it, as fast as it comes; events that nobody
   * has read yet are kept for whoever reads on.
   */
  result(): Promise<M>
  [Symbol.asyncDispose](): Promise<void>
}
/**
 * A client of a model provider. Nothing is connected before the first call. Calls reject with `PROVIDER_REQUEST` (the
 * request is wrong), `PROVIDER_HTTP` (`status`, `retryAfterMs`, `body`, `errorType`), `PROVIDER_STREAM` (the answer is
 * incomplete, malformed, refused or failed), `TIMEOUT` (`phase`), `NETWORK` and `LIMIT`.
 */
export declare class Provider {
  protected constructor(options: ProviderOptions, api: string)
  /** The provider's id. */
  get id(): string
  /** The whole answer. */
  complete(request: CompletionRequest, options?: CallOptions): Promise<AssistantMessage>
  /** The answer as it comes. Never throws once started: it ends with `done` or `error`. */
  stream(request: CompletionRequest, options?: CallOptions): ProviderStream
  /** What the provider offers, in its order. */
  listModels(options?: CallOptions): Promise<{ id: string; name?: string; contextWindow?: number; maxOutput?: number }[]>
  /** Sums since creation. Calls that were aborted are in neither number. */
  usage(): { requests: number; failures: number; byModel: Record<string, Usage> }
}
/** Anthropic's Messages API. */
export declare class AnthropicProvider extends Provider { constructor(options: ProviderOptions) }
/** OpenAI's Chat Completions API, which OpenRouter, Groq, vLLM, LM Studio and others speak, too. */
export declare class OpenAiProvider extends Provider { constructor(options: ProviderOptions) }
/** OpenAI's Responses API. */
export declare class OpenAiResponsesProvider extends Provider { constructor(options: ProviderOptions) }
/** Google's Gemini API. */
export declare class GeminiProvider extends Provider { constructor(options: ProviderOptions) }
/** Ollama's own API. */
export declare class OllamaProvider extends Provider { constructor(options: ProviderOptions) }
/** A candidate that did not answer; `reason` in OpenClaw's word, or 'cooldown' if it was not asked. Milliseconds since 1970. */
export interface FailedAttempt { provider: string; model: string; reason: string; status?: number; cooldownUntilMs?: number }
/**
 * Tries candidates in order until one answers; the message's `provider` and `model` say which, `attempts` why the others
 * did not. A candidate that failed cools down as an auth profile does; when its window ends, one call is let through.
 * A candidate that fails after it began to answer has the last word, and so has one that refuses, or whose model cannot
 * take so long a prompt.
 */
export declare class FailoverProvider {
  constructor(candidates: { provider: Provider; model: string; profileId?: string }[], options?: { profiles?: AuthProfiles; retryAfterCapMs?: number })
  /** The whole answer; `model` of the request is not looked at. */
  complete(request: Omit<CompletionRequest, 'model'> & { model?: string }, options?: Omit<CallOptions, 'onPayload'>): Promise<AssistantMessage & { attempts: FailedAttempt[] }>
  /** The answer as it comes. */
  stream(request: Omit<CompletionRequest, 'model'> & { model?: string }, options?: Omit<CallOptions, 'onPayload'>): ProviderStream<AssistantMessage & { attempts: FailedAttempt[] }>
}
