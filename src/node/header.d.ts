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

/** Something that came with a message. */
export interface Attachment {
  /** What it is, as the platform says. */
  kind: 'image' | 'audio' | 'video' | 'file' | 'sticker'
  /** A file's name, as the sender wrote it: not to be used as a path. */
  name?: string
  /** As the platform says. */
  mimeType?: string
  /** In bytes, as the platform says. */
  size?: number
  /** The platform's own id of it. */
  readonly handle: string
  /** Fetches it; `LIMIT` as soon as it has more than `maxBytes` (20 MiB). */
  download(options?: { maxBytes?: number; signal?: AbortSignal }): Promise<Buffer>
}
/** What came in. */
export interface InboundMessage {
  /** Unique for the platform and account; delivered once. */
  id: string
  /** What happened. `edit`: `messageId` was changed. `reaction`: `text` is the emoji, "" if it was taken back. `callback`: `text` is a button's data. `command`: `text` is `/name arguments`. */
  kind: 'message' | 'edit' | 'reaction' | 'callback' | 'command'
  channel: string
  accountId: string
  /** The platform's id within the chat, for `replyToId`, `edit` and `react`. */
  messageId: string
  /** `id` is what `to` takes for an answer. */
  chat: { kind: 'direct' | 'group' | 'channel'; id: string; title?: string }
  /** Only `id` identifies: anybody can take any name. */
  sender: { id: string; name?: string; username?: string; isBot: boolean }
  text: string
  /** Whether it is meant for this bot: always in a direct chat; in others by a mention, an answer to it, or a command. */
  mentionsMe: boolean
  attachments: Attachment[]
  replyToId?: string
  threadId?: string
  /** Of an album: its items are one message, unless half a second passed between them. Then each has this. */
  albumId?: string
  timestampMs: number
  /** The platform's own object. */
  raw: unknown
  /** True only after a crash between delivery and `ack`: the same id a second time, at most once. */
  redelivered: boolean
  /** It is done: it will not come again. Resolves once that is on the disk. */
  ack(): Promise<void>
}
/** What is to be sent. */
export interface OutboundMessage {
  /** The chat. */
  to: string
  /** Of any length: it is split within the platform's limit, after rendering. */
  text?: string
  /** Markdown, rendered to the platform's own form, or just text. Default: 'markdown'. */
  format?: 'markdown' | 'plain'
  attachments?: { data: Uint8Array; name: string; mimeType?: string }[]
  replyToId?: string
  threadId?: string
  /** Without a sound. */
  silent?: boolean
  /** The same key twice is one message, also after a restart; the latest 2,048 at least are remembered. */
  idempotencyKey?: string
  /** What only this platform knows; the adapter's documentation says what. */
  extra?: Record<string, unknown>
}
/** What became of a message: `unknown` if the answer of the platform never came; it is not sent again then. */
export interface SendReceipt { messageIds: string[]; state: 'accepted' | 'unknown'; attempts: number }
/** How a channel is. */
export interface ChannelStatus {
  state: 'stopped' | 'connecting' | 'running' | 'backoff' | 'conflict' | 'failed'
  /** Milliseconds since the platform last proved to be there; an open socket is no proof. */
  lastVerifiedMs?: number
  error?: string
  /** Messages that wait to be sent. */
  queued: number
  /** Messages that wait to be delivered here. */
  waiting: number
}
/** Where a platform calls us: a port of this machine (`host`: '127.0.0.1', `path`: '/'), and what proves that a call is the platform's. */
export interface ChannelWebhook { host?: string; port: number; path?: string; secret: ApiKey | string }
/** What every channel is opened with. */
export interface ChannelOptions {
  /** Default: 'default'. */
  accountId?: string
  /** Where the platform's API is, if not where it usually is. */
  baseUrl?: string
  /** Where what comes in and goes out is kept. Its `durability` is the channel's. */
  store: EventStore
}
/** The messages of a channel. `break` gives back what was not looked at. */
export interface ChannelMessages extends AsyncIterableIterator<InboundMessage, undefined> {
  return(): Promise<IteratorReturnResult<undefined>>
  [Symbol.asyncDispose](): Promise<void>
}
/**
 * One account of one chat platform. Connections, heartbeats, acknowledgements, reconnects and sending run on the core's own
 * threads, however long JavaScript takes. Calls reject with `CHANNEL_AUTH`, `CHANNEL_CONFLICT`, `CHANNEL_SEND` (`status`),
 * `CHANNEL_CLOSED`, `NETWORK`, `TIMEOUT`, `LIMIT` and `VALIDATION`.
 */
export declare class Channel {
  protected constructor(options: ChannelOptions, id: string)
  /** The platform. */
  get id(): string
  get accountId(): string
  /** Connects, at the first call. Messages in the order of their chats; one iteration at a time. */
  messages(options?: { signal?: AbortSignal }): ChannelMessages
  /**
   * Resolves when it is known what became of the message. An abort takes back what was not begun. `LIMIT` while 64 MiB of
   * messages, their files and edits wait: send it again once others have gone.
   */
  send(message: OutboundMessage, options?: { signal?: AbortSignal }): Promise<SendReceipt>
  /** Of several edits of one message that wait, the last is made. */
  edit(to: string, messageId: string, text: string): Promise<void>
  /** "" takes the reaction back. */
  react(to: string, messageId: string, emoji: string): Promise<void>
  /** Dropped where it would have to wait. */
  typing(to: string, threadId?: string): Promise<void>
  status(): ChannelStatus
  /** What is queued goes out the next time. */
  close(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}
/**
 * A Telegram bot, by long polling, or by a webhook. `token` is @BotFather's; `pollSeconds` (30) how long one poll may take;
 * `paidBroadcast` (false) allows 1,000 calls a second, for a fee. `webhookUrl` is the https URL at which Telegram reaches
 * `webhook`; its `secret`, 1 to 256 of A-Z, a-z, 0-9, _ and -, comes with each of Telegram's calls. `extra.replyMarkup` is
 * the Bot API's `reply_markup`.
 */
export declare class TelegramChannel extends Channel { constructor(options: ChannelOptions & { token: ApiKey | string; paidBroadcast?: boolean } & ({ pollSeconds?: number; webhook?: undefined } | { webhook: ChannelWebhook; webhookUrl: string })) }
/**
 * A Discord bot, by the Gateway. `token` is the bot's, without `Bot `; `intents` the sum of Gateway intents, by default those of
 * messages and reactions, with their content; `commands`, in Discord's form, replace the bot's slash commands. `to` is a channel, or a
 * user for a direct message; in a thread, `threadId` is its id, which `edit`, `react` and `typing` take as `to`. A `replyToId` that
 * names a slash command answers it for 15 minutes. Of `extra`, `components` and `embeds` go with the message.
 */
export declare class DiscordChannel extends Channel { constructor(options: ChannelOptions & { token: ApiKey | string; intents?: number; commands?: Record<string, unknown>[] }) }
/**
 * A Slack app, by Socket Mode. `token` is the bot's (`xoxb-`), `appToken` the app-level one (`xapp-`). `to` is a channel
 * (`C…`, `G…`, `D…`) or a user (`U…`); `threadId` and `replyToId` are the `ts` of a message. Of `extra`, `blocks`,
 * `attachments`, `metadata`, `unfurl_links`, `unfurl_media` and `reply_broadcast` go to `chat.postMessage`. `react` takes
 * an emoji or Slack's name of it; `typing` shows in threads only. The id of a file that was sent is the file's.
 */
export declare class SlackChannel extends Channel { constructor(options: ChannelOptions & { token: ApiKey | string; appToken: ApiKey | string }) }
/**
 * A WhatsApp business number, by the Cloud API. `token` is a system user's, `webhook.secret` the app secret, `verifyToken`
 * the word that the app's webhook page has, too; `apiVersion` is 'v23.0'. `to` is a number with its country code. Outside
 * the 24 hours after a person's last message, all but templates reject with `CHANNEL_SEND`; the message begins with what
 * WhatsApp says, and names error 131047. Of `extra`, `template`, `interactive`, `location` or `contacts` makes a message of
 * that type; `previewUrl` shows links. `edit` rejects; `typing` marks the last message as read.
 */
export declare class WhatsAppChannel extends Channel { constructor(options: ChannelOptions & { token: ApiKey | string; verifyToken: ApiKey | string; phoneNumberId: string; apiVersion?: string; webhook: ChannelWebhook }) }
/**
 * An account of signal-cli's HTTP daemon. `account`: its number, with `+`. `accountUuid`: its UUID, by which newer clients mention
 * it. `baseUrl`: 'http://127.0.0.1:8080'. `sendReadReceipts` (false): in direct chats. Messages' ids are `timestamp:author`; `to` is
 * a number, `uuid:…`, `username:…` or `group:…`.
 */
export declare class SignalChannel extends Channel { constructor(options: ChannelOptions & { account: string; accountUuid?: string; sendReadReceipts?: boolean }) }
/**
 * A user of a Matrix homeserver, without end-to-end encryption: encrypted rooms are not read, and nothing is sent there. `token`: an
 * access token. `baseUrl`: the homeserver. `autoJoin` ('off'): which invitations are accepted; `autoJoinAllowlist`: ids of rooms, and of
 * users who invite. `to` is a room (`!…`), or a user (`@…`) with whom there is a direct room.
 */
export declare class MatrixChannel extends Channel { constructor(options: ChannelOptions & { token: ApiKey | string; baseUrl: string; autoJoin?: 'off' | 'allowlist' | 'always'; autoJoinAllowlist?: string[] }) }
/** Channels by platform and account. */
export declare class ChannelRegistry {
  /** Throws `VALIDATION` if there is one of this platform and account. */
  add(channel: Channel): void
  get(id: string, accountId?: string): Channel | null
  list(): { id: string; accountId: string; status: ChannelStatus }[]
  /** Closes all, and forgets them. */
  closeAll(): Promise<void>
}
