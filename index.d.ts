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

/** Whose direct messages count: OpenClaw's `dmPolicy` and `allowFrom`. */
export declare class Allowlist {
  /**
   * Entries are ids, or `*`. A name admits nobody, because anybody can take it, unless `matchNames` says so (OpenClaw's
   * `dangerouslyAllowNameMatching`). Default of `policy`: `pairing`.
   */
  constructor(entries: string[], options?: { policy?: 'open' | 'allowlist' | 'pairing' | 'disabled'; matchNames?: boolean })
  /** Whether a direct message of this sender counts; `reason` is OpenClaw's code. */
  check(sender: { id: string; username?: string; name?: string }): { allowed: boolean; reason: 'dm_policy_open' | 'dm_policy_allowlisted' | 'dm_policy_pairing_required' | 'dm_policy_not_allowlisted' | 'dm_policy_disabled' }
}

/**
 * A secret that cannot be printed: `toString`, `toJSON`, `util.inspect` and a clone's only property, `secret`, give
 * "[REDACTED]". Its bytes lie in memory of their own that is wiped when the key is collected, locked against swapping where
 * the system allows it, and left out of core dumps on Linux.
 *
 * A JavaScript string cannot be wiped: give and take bytes where that matters.
 */
export declare class ApiKey {
  /** Copies the bytes, or the string as UTF-8; bytes are the caller's to wipe. Throws `VALIDATION` for none. */
  constructor(secret: string | Uint8Array)
  /** How many bytes it has. */
  get length(): number
  /** Whether it begins so, such as with "sk-". */
  startsWith(prefix: string): boolean
  /** Whether it is the same secret, in a time that depends on the lengths alone. */
  equals(other: ApiKey | string | Uint8Array): boolean
  /** The secret as a string, which cannot be wiped. Throws `VALIDATION` if it is not UTF-8. */
  expose(): string
  /** The secret as bytes; the caller wipes them with `fill(0)`. */
  exposeBytes(): Uint8Array
  /** "[REDACTED]" */
  toString(): string
  /** "[REDACTED]" */
  toJSON(): string
}

/**
 * The auth profiles of a credential store, which many processes may share: API keys, bearer tokens and OAuth sign-ins,
 * which of them is used when, and one refresh at a time.
 */
export declare class AuthProfiles {
  /** The profiles of a store. Rejects with `CRYPTO` if what is stored of them cannot be read. */
  static open(store: CredentialStore, options?: AuthProfilesOptions): Promise<AuthProfiles>
  /** Every profile, or those of a provider, by id. */
  list(provider?: string): Promise<AuthProfile[]>
  /**
   * Adds a profile, or replaces the one of this id, and forgets its failures. Rejects with `VALIDATION` if the secrets
   * are not those of its type.
   */
  add(profile: AuthProfile, secrets: AuthSecrets): Promise<void>
  /** Removes a profile and its secrets; false if there was none. */
  remove(id: string): Promise<boolean>
  /**
   * A secret that can be used for the provider: of the preferred profile if that can be used, else of the first in order
   * that can. An OAuth token is refreshed first if it has less than five minutes to live, once, however many tasks
   * and processes ask. The order is OpenClaw's: `setOrder`, else OAuth before tokens before keys, the longest unused
   * first.
   *
   * Rejects with `CREDENTIAL_NOT_FOUND` if the provider has no profile, `AUTH_EXPIRED` if someone must sign in again,
   * `AUTH_REFRESH` if a token cannot be refreshed now, and `LIMIT` with `retryAfterMs` if every profile cools down.
   */
  resolve(provider: string, options?: ResolveOptions): Promise<{ profile: AuthProfile, key: ApiKey }>
  /**
   * Records that a call with this profile failed, and until when it is not to be used. `rate_limit`: 30 s, doubled with each
   * failed attempt after a window, to a day at most; `billing`: 10 min; the others: 30 s, 1 min, 5 min. `retryAfterMs`, what
   * the server asked for, counts instead, to a day at most. While a window is open, only that makes it longer.
   */
  markFailure(id: string, reason: 'rate_limit' | 'auth' | 'billing' | 'overloaded' | 'timeout', retryAfterMs?: number): Promise<{ cooldownUntilMs: number }>
  /** Records that a call with this profile succeeded: its failures are forgotten. */
  markSuccess(id: string): Promise<void>
  /** Uses these profiles of a provider, in this order, and no others; with none, all of them in OpenClaw's order. */
  setOrder(provider: string, ids: string[]): Promise<void>
  /**
   * Keeps a provider's OAuth endpoints in the store, so that every process can refresh the tokens of profiles that were added
   * without any. Profiles that signed in, or were imported with theirs, keep those.
   */
  registerProvider(provider: OAuthProvider): Promise<void>
  /**
   * Imports the text of OpenClaw's older `auth-profiles.json` or `auth.json`. A profile that is here already stays, the
   * endpoints in the text are those of its own profiles only, and cooldowns are left behind; `skipped` says which profiles
   * were not imported, and why.
   */
  importLegacy(authProfilesJson: string | Uint8Array): Promise<{ imported: number, skipped: string[] }>
  /**
   * Signs in, and stores the tokens as a profile, together with the `tokenUrl` and `clientId` they came from: they are
   * refreshed there and nowhere else. With a browser on this machine: authorization code with PKCE, S256, and a redirect to
   * 127.0.0.1 whose `state` is checked. Elsewhere: device code.
   *
   * Rejects with `AUTH_EXPIRED` if the person said no or took too long, `AUTH_REFRESH` if the server gave no tokens, `IO`
   * if the redirect's port is taken, and, before anyone is asked, `VALIDATION` for a profile's id that is not 1 to 100 bytes
   * of printable text.
   */
  login(provider: OAuthProvider, options: AuthLoginOptions): Promise<AuthProfile>
}

/**
 * An OpenClaw config that was read: its value after `$include` and `${ENV}`, where each part of it was written,
 * and what is wrong with it.
 */
export declare class Config {
  /** Reads the config. */
  static load(options?: ConfigOptions): Promise<Config>
  /** Reads the config on the calling thread, for callers that cannot wait. */
  static loadSync(options?: ConfigOptions): Config
  /**
   * Has the installed OpenClaw print the schema of its config, plugins included, and stores it, mode 0600, below
   * its state folder, for every `load` until OpenClaw or its plugins change. Runs `node` (default: this one) for
   * some seconds. Fails with `CONFIG_NOT_FOUND` if there is no OpenClaw.
   */
  static refreshSchema(options?: ConfigOptions, node?: string): Promise<void>
  /** The config file. */
  get path(): string
  /** Every file that was read, the config first. */
  get files(): Array<string>
  /** OpenClaw's own: SHA-256 of the config's text and, for each include, its path, target and hash. */
  get revision(): string
  /** After `$include` and `${ENV}`. A fresh value at each read. */
  get value(): unknown
  /** As authored: `$include` and `${ENV}` untouched. A fresh value at each read. */
  get source(): unknown
  /** What is wrong with the config. */
  get issues(): ConfigIssue[]
  /** The value at a path such as `agents.list[0].id` or `models["a.b"]`; undefined if there is none. */
  get(path: string): unknown
  /**
   * Where the value at a path came from: its file and position, and through which kind of file or environment
   * variable; null if there is none.
   */
  explain(path: string): ConfigExplanation | null
  /** The value with every secret replaced by OpenClaw's mark. A fresh value at each call. */
  redacted(): unknown
  /**
   * Edits the file in which each value lives: comments, key order, quotes, `$include`, `${ENV}` and unknown keys
   * survive. All changes are one commit (OpenClaw's lock file and a kernel lock, write, fsync, rename, `.bak`
   * ring, mode 0600) and so must belong to one file. Resolves with the config as it then is.
   *
   * Rejects with `CONFIG_CONFLICT` if the config on disk is not this one any more, with `CONFIG_SHRINK` if more
   * than half of the bytes or a top-level key would go, with `CONFIG_PATH` for a path that cannot be edited. The
   * files are then what they were.
   */
  edit(changes: ConfigChange[], options?: ConfigEditOptions): Promise<Config>
  /**
   * Each new good revision of the config and of its included files, coalesced, with the config paths at which it
   * differs from the last good one. A bad revision comes as its error, and the last good one stays; the next
   * good one then comes even if nothing differs. `break` stops watching.
   */
  watch(options?: ConfigWatchOptions): AsyncIterableIterator<ConfigUpdate>
}

/**
 * An async iterable over what the core sends. `break` (or `return()`) stops the producer; the stream ends when the
 * producer drops its sender. An error ends it too.
 */
export declare class CoreStream {
  /** The next element. */
  next(): Promise<IteratorResult<unknown, undefined>>
  /** Stops the producer. */
  return(): Promise<IteratorResult<unknown, undefined>>
  /** The stream itself. */
  [globalThis.Symbol.asyncIterator](): this
  /** Stops the producer, for `await using`. */
  [globalThis.Symbol.asyncDispose](): Promise<unknown>
}

/**
 * Credentials by name in one encrypted file, `credentials.vault`, that many processes may read and write: AES-256-GCM, with
 * each entry bound to its name, version and store, and the whole file authenticated.
 *
 * Names are 1 to 128 of `A-Z a-z 0-9 . _ / -`, begin with a letter or digit, and have neither `..` nor `//`; every
 * method rejects others with `CREDENTIAL_NAME`. A file that was altered is refused with `CRYPTO`.
 */
export declare class CredentialStore {
  /**
   * Opens the store in a folder, or creates it (0700, files 0600). A key file or keychain item that a new store is to
   * have is created too. A key is 32 random bytes: raw, or as 64 hexadecimal digits (`openssl rand -hex 32`).
   *
   * Rejects with `CREDENTIAL_KEY` if the key is missing or another one, and with `CRYPTO` if the file was altered.
   */
  static open(dir: string, key: KeySource, options?: CredentialStoreOptions): Promise<CredentialStore>
  /** Stores a secret of 1 byte to 1 MiB, replacing the one of this name. It is on disk when this resolves. */
  set(name: string, secret: ApiKey | string | Uint8Array): Promise<void>
  /** The secret of this name; rejects with `CREDENTIAL_NOT_FOUND` if there is none. */
  get(name: string): Promise<ApiKey>
  /** Whether there is a secret of this name. */
  has(name: string): Promise<boolean>
  /** Every name, in order. */
  list(): Promise<CredentialInfo[]>
  /** Removes a secret; false if there was none. */
  delete(name: string): Promise<boolean>
  /**
   * Gives the store a new data key, encrypts every entry anew and has `next` open it. When this rejects, nothing was
   * changed; when the process is killed, all or nothing. A key file or keychain item that opened the store until now gets a
   * new key above the older ones; `LIMIT` if it has no room for another.
   */
  rotateKey(next: KeySource): Promise<void>
  /**
   * How often the store was written. Kept elsewhere and given to `open` as `minGeneration`, it tells when the whole file was
   * put back to an older one, which nothing in the file itself can.
   */
  generation(): Promise<number>
  /**
   * Reads everything anew and says what is wrong: a key, or a copy of it, that lies beside the data; files that others
   * may read or write; what does not authenticate; a weak passphrase.
   */
  audit(): Promise<CredentialIssue[]>
}

/**
 * An append-only log of everything that the agents did, in a folder that one process writes. Its events survive
 * crashes, their sessions have projections, and it merges with the logs of other machines.
 *
 * Close it in the end; one that is forgotten is closed when it is collected, or at exit.
 */
export declare class EventStore {
  /**
   * Opens the store in a folder, which is made if need be.
   *
   * Rejects with `STORE_LOCKED` if another process, or another store in this one, has it open to write, and with
   * `STORE_CORRUPT` if it is damaged beyond what can be put right.
   */
  static open(path: string, options?: EventStoreOptions): Promise<EventStore>
  /** The store's folder. */
  get path(): string
  /** The name under which the store writes. */
  get replica(): string
  /**
   * Appends an event; resolves with the event as it is stored, which with `durability: "always"` is then on disk. An
   * id that is known gives the event that has it, and appends nothing. Appends are in the order of the calls.
   *
   * Rejects with `EVENT_INVALID` or `EVENT_TOO_LARGE`; nothing is then appended.
   */
  append(event: NewEvent): Promise<StoredEvent>
  /** Appends events: all of them or, on any failure, none. */
  appendBatch(events: NewEvent[]): Promise<StoredEvent[]>
  /**
   * Events of a session, in the order of `seq`. Rejects with `STORE_CORRUPT` if one of them is damaged, and with
   * `LIMIT` for more than 256 MiB at once.
   */
  read(sessionKey: string, options?: ReadEventsOptions): Promise<StoredEvent[]>
  /**
   * Every event after `after`, or from the first on, in the order in which they arrived here; then those that come. It
   * misses none. A slow reader holds up nobody. `break` ends it, `close()` too. With `durability: "interval"` it ends
   * with `IO` if the store failed, as on a full disk, and lost events that it had acknowledged.
   */
  follow(options?: FollowEventsOptions): AsyncIterableIterator<StoredEvent>
  /** What is known of a session; null if it has no events. */
  projection(sessionKey: string): Promise<Projection | null>
  /** What is known of many sessions. */
  sessions(options?: ListSessionsOptions): Promise<Projection[]>
  /**
   * Deletes a session's events, and resolves with their number. An event that says so stays, and merges: it covers what
   * was known here, so that an event that another replica appends meanwhile survives.
   */
  deleteSession(sessionKey: string): Promise<number>
  /**
   * Takes sessions away that are too old, or the oldest until the others fit, while the store is used. Nothing without
   * a limit.
   */
  prune(options?: PruneOptions): Promise<PruneReport>
  /** Gives the disk back what deleted events and old versions of records take, while the store is used. */
  compact(options?: AbortOptions): Promise<CompactReport>
  /** Which events are here: for each replica the numbers of what it wrote, as "40" for all up to 40, or "40,43-45". */
  version(): Promise<Record<string, string>>
  /**
   * The events that are here and not in `since`, for `merge` of another store: at most 32 MiB of them, so that one
   * calls again with the version that the other then has, until it merges none.
   */
  changes(since?: Record<string, string>, options?: ChangesOptions): Promise<Uint8Array>
  /**
   * Takes in the changes of another store, in any order and any number of times. Rejects with `EVENT_INVALID` if they
   * are damaged; nothing of them is then taken in.
   */
  merge(changes: Uint8Array): Promise<MergeReport>
  /** Checks every event, every chain of hashes, and every projection. */
  verify(options?: VerifyOptions): Promise<VerifyReport>
  /** Sizes. */
  stats(): Promise<EventStoreStats>
  /**
   * Puts everything on disk and ends. Appends that were made before are written; later calls reject with
   * `STORE_CLOSED`. A second call waits for the first.
   */
  close(): Promise<void>
  /** As `close()`, for `await using`. */
  [globalThis.Symbol.asyncDispose](): Promise<void>
  /**
   * Takes in what OpenClaw has recorded: `sessions.json` and JSONL of 2026.2 to 2026.5, SQLite of 2026.6 and later.
   * The source is never written. What is there already is not added again, and what cannot be read is reported by
   * file and line.
   */
  importOpenClaw(stateDir: string, options?: ImportOpenClawOptions): Promise<ImportReport>
  /** One session as an OpenClaw transcript: JSONL, header version 4. If a session was reset, the stretch since. */
  exportTranscript(sessionKey: string): Promise<string>
}

/**
 * OpenClaw's bindings: to which agent a message goes, and which session it belongs to. Reads a config as OpenClaw has
 * it once it is loaded; equal to OpenClaw 2026.9's `resolveAgentRoute`.
 */
export declare class Router {
  /** Reads `agents`, `bindings` and `session` of a config. */
  constructor(config: unknown)
  /**
   * Where a message goes. The first binding of the most specific kind wins: the chat, its parent, all chats of the
   * kind, guild and role, guild, team, account, channel, and then the default agent.
   *
   * Throws `VALIDATION` where OpenClaw throws: several agents are configured and none is named, or the one that is
   * named does not exist.
   */
  resolve(input: { channel: string; accountId?: string; peer?: { kind: string; id: string }; parentPeer?: { kind: string; id: string }; guildId?: string; teamId?: string; memberRoleIds?: string[]; defaultAgentId?: string; dmScope?: string; groupScope?: string }): { agentId: string; channel: string; accountId: string; dmScope: string; groupScope: string; sessionKey: string; mainSessionKey: string; lastRoutePolicy: 'main' | 'session'; matchedBy: 'binding.peer' | 'binding.peer.parent' | 'binding.peer.wildcard' | 'binding.guild+roles' | 'binding.guild' | 'binding.team' | 'binding.account' | 'binding.channel' | 'default' }
}

/**
 * A place to run commands in: they see what its policy mounts, and end with all they started. It holds no process of
 * its own.
 */
export declare class Sandbox {
  /** Runs each primitive for real and says which backend would be used; takes less than a second. */
  static probe(): Promise<SandboxProbe>
  /**
   * A sandbox with this policy, after a command has seen from inside that it holds.
   *
   * Rejects with `SANDBOX_POLICY` (`path` names the field) or `SANDBOX_UNAVAILABLE` (`missing`, `remedy`). Nothing
   * ever runs on the host instead.
   */
  static create(policy: SandboxPolicy): Promise<Sandbox>
  /** What enforces the policy. */
  get backend(): 'bwrap' | 'landlock' | 'seatbelt' | 'jobobject'
  /** Where commands start, unless they say otherwise. */
  get workspace(): string
  /**
   * Runs a command to its end, that of all its processes: a text for the shell, or a program with its arguments.
   *
   * A command that fails or times out is a result; `SANDBOX_SPAWN` means that it never ran, or that the sandbox was
   * closed meanwhile.
   */
  run(command: string[] | string, options?: RunOptions): Promise<ProcessResult>
  /**
   * What a supervisor of the caller's own must exec to run the command in this sandbox: exactly this argv, with
   * exactly this environment. Its exit code is the command's, or 128 and the signal; 126 if it never ran. The limits
   * `idleMs` and `outputBytes` are the supervisor's to keep.
   */
  launch(command: string[] | string, options?: LaunchOptions): Promise<SandboxLaunch>
  /** What is enforced, as a command inside observes it: capabilities, filter, Landlock, mounts, network, limits. */
  explain(): Promise<Record<string, unknown>>
  /** Kills every command that `run` started, and waits until all are gone. What `launch` gave is its supervisor's. */
  close(): Promise<void>
  /** Its files, without a command. They can still be reached when the sandbox is closed. */
  get fs(): SandboxFs
}

/**
 * The files beneath a sandbox's mounts, read and written in this process, without a command.
 *
 * Paths are the sandbox's own; a relative one begins at the workspace. What is not mounted is not there: `PATH_ESCAPE`.
 * A read-only mount refuses changes, and whoever moves or swaps directories and links meanwhile leads nobody out.
 * Pipes, sockets and devices are refused with `IO`, and so is what the system refuses; a file with a second name (a hard
 * link), which may lie outside, with `PATH_ESCAPE`. There is none on Windows.
 */
export declare class SandboxFs {
  /** The files that a sandbox with this policy sees, without a sandbox. `SANDBOX_POLICY` names the field that is wrong. */
  static open(policy: SandboxPolicy): Promise<SandboxFs>
  /** What is in a file. */
  readFile(path: string, options?: SandboxReadOptions): Promise<Buffer>
  /** As `readFile`, with the path at which it was read. */
  readFileWithPath(path: string, options?: SandboxReadOptions): Promise<SandboxFile>
  /**
   * Writes a file: beside its place, synced, then renamed, so that a reader finds the old one or the new one. A symbolic
   * link is followed, and its target written. An earlier file's mode stays.
   */
  writeFile(path: string, data: Uint8Array | string, options?: SandboxWriteOptions): Promise<void>
  /** Creates a file as `writeFile` does with `exclusive`, and resolves with false if it exists. */
  createFile(path: string, data: Uint8Array | string, options?: SandboxWriteOptions): Promise<boolean>
  /** The names in a directory, sorted, without "." and "..". */
  readDirectory(path: string): Promise<SandboxEntry[]>
  /** What a path leads to; null if nothing is there. */
  stat(path: string): Promise<SandboxStat | null>
  /** Makes a directory, and those on the way to it that are missing. */
  mkdirp(path: string, options?: Pick<SandboxPathOptions, 'pinned'>): Promise<void>
  /** Removes a file, a symbolic link (not what it leads to), or a directory. A mount stays. */
  remove(path: string, options?: SandboxRemoveOptions): Promise<void>
  /** Renames a file, a symbolic link or a directory. What is at `to` is replaced if the system would. */
  rename(from: string, to: string): Promise<void>
  /** Copies a file, with its mode, as `writeFile` writes one. */
  copyFile(from: string, to: string, options?: SandboxWriteOptions): Promise<void>
  /**
   * Where a path leads, in the sandbox, without symbolic links. The end of it need not exist.
   *
   * It holds for as long as nobody moves anything: a call that is given it says `pinned`, and then fails rather than
   * go elsewhere.
   */
  resolvePath(path: string, options?: Pick<SandboxPathOptions, 'keepLast'>): Promise<string>
}

/**
 * Tools that a model calls: arguments are held against a schema, time and size are bounded, and every call has a result.
 *
 * What goes wrong in a tool is a result with `isError`, for the model to read: arguments that do not fit (every
 * violation is listed), a handler that throws, hangs or returns nonsense, a tool that is not there. Credentials and
 * secrets of the environment are masked in it.
 */
export declare class ToolRegistry {
  /** A registry without tools. */
  constructor(options?: ToolRegistryConfig)
  /**
   * Adds a tool. Its handler gets arguments that fit the schema; what it returns, or resolves with, is the result: a
   * string, an object with `content` (and `details`, `isError`), or any other JSON.
   *
   * Throws `VALIDATION` for a name that providers refuse or that is taken, and for parameters that are no JSON Schema.
   */
  register(tool: Tool, handler: (args: unknown, ctx: { signal: AbortSignal; toolCallId: string }) => unknown): void
  /**
   * Adds tools that are built in and work in the registry's sandbox: "exec" (a command for the shell), "read", "write",
   * "edit", "ls", "grep". Throws `VALIDATION` without a sandbox; there is only "exec" on Windows.
   */
  registerBuiltin(...names: string[]): void
  /** Takes a tool away; whether it was there. Calls that run go on. */
  unregister(name: string): boolean
  /** The tools there are, in the order in which they came: what to tell a model. */
  list(): Tool[]
  /** Runs a call, and resolves with its result, whatever goes wrong in the tool. */
  execute(call: ToolRequest, options?: ExecuteOptions): Promise<ToolResult>
}

/** What aborts a call. */
export interface AbortOptions {
  /** The call rejects with its reason. */
  signal?: AbortSignal
}

/** How to sign in. */
export interface AuthLoginOptions {
  /** Called once, with the address to open. */
  onPrompt: (prompt: LoginPrompt) => void
  /** "browser": on this machine. "device": on any. Default: "browser" if the provider has an `authorizeUrl`. */
  flow?: 'browser' | 'device'
  /**
   * The profile to sign in. Default: `<provider>:<email>`, or `<provider>:default` if no email is known, as in OpenClaw, or
   * if the first were too long.
   */
  profileId?: string
  /** Aborts the call. */
  signal?: AbortSignal
}

/** An account with a provider. */
export interface AuthProfile {
  /** Such as "openai:user@example.com": 1 to 100 bytes of printable text. */
  id: string
  /** The provider's id, in lower case. */
  provider: string
  /** "oauth": tokens of a sign-in, refreshed before they expire. "token": a bearer token that nobody refreshes. */
  type: 'api_key' | 'oauth' | 'token'
  /** When the token expires, in milliseconds since 1970; absent if that is not known, or never. */
  expiresMs?: number
  /** Whose account it is. */
  email?: string
  /** True if the sign-in no longer holds: the profile is not used until someone signs in again. */
  signInAgain?: boolean
  /** Until when it is not used, in milliseconds since 1970; if that is past, one caller at a time may try. */
  cooldownUntilMs?: number
}

/** How authorization servers are reached. */
export interface AuthProfilesOptions {
  /**
   * The URL of an HTTP proxy; "" for none. Default: as `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
   * This machine is reached directly in any case.
   */
  proxy?: string
  /** A PEM file of certificate authorities to trust beside those of the system. */
  caFile?: string
}

/**
 * The secrets of a profile: `apiKey` for type `api_key`, `accessToken` for "token", and `accessToken`, `refreshToken` or
 * both for "oauth".
 */
export interface AuthSecrets {
  /** The access token. */
  accessToken?: ApiKey | string | Uint8Array
  /** The refresh token. */
  refreshToken?: ApiKey | string | Uint8Array
  /** The API key. */
  apiKey?: ApiKey | string | Uint8Array
}

/**
 * The key of the session that a message belongs to, as OpenClaw 2026.9 builds it (`buildAgentPeerSessionKey`, with
 * `:thread:<id>` behind it for a thread).
 *
 * Throws `VALIDATION` for a kind or scope that does not exist.
 */
export declare function buildSessionKey(parts: { agentId: string; channel?: string; accountId?: string; peer?: { kind: 'direct' | 'group' | 'channel'; id: string }; dmScope?: 'main' | 'per-peer' | 'per-channel-peer' | 'per-account-channel-peer'; threadId?: string }): string

/** What to hand over. */
export interface ChangesOptions {
  /** At most so many events. */
  limit?: number
}

/** A URL that may be fetched. */
export interface CheckedUrl {
  /** As the URL standard writes it. */
  url: string
  /** Every address of its host. Connect to these and not to the name, which may lead elsewhere by then. */
  addresses: Array<string>
}

/**
 * Checks a URL that the agent would fetch, and resolves its host.
 *
 * Rejects with `SSRF_BLOCKED` where it is not plainly written (a user name, percent-encoding or a backslash before the
 * path, an IPv4 address in another form than four decimal numbers), where its host is a name of local networks, or
 * where any address of its host is not public; with `VALIDATION` where it is no URL; with `NETWORK` where its host
 * has no address.
 */
export declare function checkUrl(url: string, policy?: FetchPolicy): Promise<CheckedUrl>

/**
 * Splits a text into parts within `limit`, in the platform's unit (default: UTF-16 code units), as OpenClaw's
 * `chunkMarkdownTextWithMode` does: at line ends and spaces, not in parentheses or fenced code if it can be helped, never
 * within a code point, and within a grapheme only if that alone is too long. A fence that is split is closed and opened
 * again. With `mode: 'newline'` between paragraphs, as many as fit. A code point that is wider than `limit` is a part.
 */
export declare function chunkMarkdown(text: string, options: { limit: number; unit?: 'utf16' | 'utf8' | 'chars'; mode?: 'length' | 'newline' }): string[]

/** Bytes on disk. */
export interface CompactReport {
  /** Before. */
  before: number
  /** After. */
  after: number
}

/** One change of one value. */
export interface ConfigChange {
  /** Whether to put a value in a place, making parents that are missing, or to take it away. */
  op: 'set' | 'unset'
  /** Where, such as `agents.list[0].id` or `models["a.b"]`: the grammar of `openclaw config set`. */
  path: string
  /** What to put there: needed with "set". */
  value?: unknown
}

/** What an edit may do. */
export interface ConfigEditOptions {
  /** Whether more than half of the file's bytes, or a top-level key, may go. Default: false. */
  allowShrink?: boolean
  /** Whether a config with an error that it had not before is refused with `CONFIG_INVALID`. Default: true. */
  validate?: boolean
  /** Aborts the call. An edit that has begun to write ends its commit. */
  signal?: AbortSignal
}

/** Where a value came from. */
export interface ConfigExplanation {
  /** The file in which it was written. */
  file: string
  /** 1-based. */
  line: number
  /** 1-based, in UTF-16 code units. */
  column: number
  /** The kind of file it came from, then "env" if its text refers to the environment. */
  via: Array<'root' | 'include' | 'env'>
  /** The first environment variable that went into it. */
  env?: string
}

/** Something wrong with a config. */
export interface ConfigIssue {
  /** How bad it is: OpenClaw does not start with an error. */
  severity: 'error' | 'warning'
  /** The config path; empty for the config as a whole. */
  path: string
  /** What is wrong. */
  message: string
  /** The file in which the value, or the object that lacks it, was written. */
  file?: string
  /** 1-based. */
  line?: number
  /** 1-based, in UTF-16 code units. */
  column?: number
  /** The values that would be right, where they can be listed. */
  allowedValues?: unknown[]
}

/** What to read, and how. */
export interface ConfigOptions {
  /**
   * Default: OpenClaw's own rule (`OPENCLAW_CONFIG_PATH`, `OPENCLAW_STATE_DIR`, `~/.openclaw/openclaw.json`,
   * older names).
   */
  path?: string
  /** Default: `process.env`. */
  env?: Record<string, string | undefined>
  /** Directories beside the config's own that `$include` may reach. Default: `OPENCLAW_INCLUDE_ROOTS`. */
  includeRoots?: string[]
  /**
   * What a reference to a variable that is unset or empty means. "warn", OpenClaw's rule and the default,
   * leaves the text and adds a warning; "error" fails with `CONFIG_ENV`.
   */
  missingEnv?: 'warn' | 'error'
  /**
   * JSON Schema to hold the value against, as `openclaw config schema` prints it; false for none. As
   * text it is the quickest: an object is written as text first, on this thread, in proportion to its size. Default: that of
   * the OpenClaw at `openclaw`, if `Config.refreshSchema()` has stored it; a warning tells if not.
   */
  schema?: object | string | false
  /**
   * The folder of the installed package `openclaw`. Default: the one that this process belongs to, or that Node
   * would find from the working directory, if any.
   */
  openclaw?: string
  /** Aborts the call. */
  signal?: AbortSignal
}

/** What a watch has found: a good revision or an error. */
export interface ConfigUpdate {
  /** The new good revision. */
  config?: Config
  /** Why there is none; the last good one stays. */
  error?: Error & { code: string }
  /** The config paths whose values differ from the last good revision; none with an error. */
  changedPaths: Array<string>
}

/** What ends a watch. */
export interface ConfigWatchOptions {
  /** Ends it with the signal's reason. */
  signal?: AbortSignal
}

/** A capability of the core, and whether it can run here. */
export interface CoreCapability {
  /** Its name in the migration table. */
  name: string
  /** Whether it can run here. */
  available: boolean
  /** Why not. */
  reason?: string
}

/** Version, target, and each capability with whether it can run here. */
export declare function coreInfo(): CoreInfo

/** What this binary is and can do. */
export interface CoreInfo {
  /** The version of the package. */
  version: string
  /** What it was built for: architecture, system and, on Linux, libc. */
  target: string
  /** Each capability that is built in. */
  capabilities: Array<CoreCapability>
}

/** What the core holds outside of V8. */
export interface CoreMemoryUsage {
  /** Bytes that are allocated now: the sum of `owners`. */
  total: number
  /**
   * The same by owner: `channels` for connections to chat platforms and messages that wait, `config` for configs, `events`
   * for event stores, `node` for what is on its way to or from JavaScript, `providers` for calls of models, `runtime` for tasks, `sandbox` for sandboxes and tools, `other` for
   * the rest.
   */
  owners: Record<string, number>
}

/** A credential's name, and since when it is there. */
export interface CredentialInfo {
  /** Its name. */
  name: string
  /** When it was first set, in milliseconds since 1970. */
  createdMs: number
  /** When it was last set, in milliseconds since 1970. */
  updatedMs: number
}

/** Something that `CredentialStore.audit` found. */
export interface CredentialIssue {
  /** "error": the store cannot be used as it is. */
  severity: 'error' | 'warning'
  /**
   * "key-beside-data": whoever copies the data has the key. "modes": others may read or write a file. "damaged": something
   * does not authenticate. "key": the key is missing, another one, or weak. "memory": secrets may be swapped to disk.
   */
  kind: 'key-beside-data' | 'modes' | 'damaged' | 'key' | 'memory'
  /** The credential; empty for the store as a whole. */
  path: string
  /** What is wrong, and what to do. */
  message: string
  /** The file or folder at fault. */
  file?: string
}

/** How a store is opened. */
export interface CredentialStoreOptions {
  /** Whether a store that is not there is created; otherwise `CREDENTIAL_NOT_FOUND`. Default: true. */
  create?: boolean
  /** The least `generation()` that is taken for the newest; `CRYPTO` below. Default: 0. */
  minGeneration?: number
}

/** Who wrote an event first. */
export interface EventOrigin {
  /** The replica. */
  replica: string
  /** The event's `seq` there. */
  seq: number
}

/** Something wrong with an event, or with what is derived from a session. */
export interface EventProblem {
  /** The session. */
  sessionKey: string
  /** The event; 0 for the session as a whole. */
  seq: number
  /** What is wrong. */
  problem: string
}

/** How a store is opened. */
export interface EventStoreOptions {
  /**
   * "always", the default: a resolved append is on disk. "interval": the end of the process without `close()`, or of
   * the machine, loses at most the last `flushMs`.
   */
  durability?: 'always' | 'interval'
  /** Milliseconds, with "interval". Default: 100. */
  flushMs?: number
  /** Bytes that the database may use as a cache, at least 256 KiB. Default: 32 MiB. */
  cacheBytes?: number
  /**
   * Bytes of one event's data as JSON, beyond which it is refused with `EVENT_TOO_LARGE`. Default: 16 MiB; at most
   * 64 MiB.
   */
  maxEventBytes?: number
  /**
   * The name under which a new store writes, unique among all that exchange events: up to 64 letters, digits, `_` or
   * `-`. Default: a random one.
   */
  replica?: string
  /** Whether to open a copy of the store as it is now, which can be read while another process writes. Default: false. */
  readOnly?: boolean
  /** What is pruned by itself while the store is open. Default: nothing. */
  retention?: RetentionOptions
  /**
   * Where the log is shared with other gateways, which then all have the same events. The store works on while no
   * server is reached. Default: nowhere.
   */
  nats?: NatsOptions
}

/** Sizes of a store. */
export interface EventStoreStats {
  /** Sessions with events. */
  sessions: number
  /** Their events. */
  events: number
  /** Bytes on disk. */
  diskBytes: number
  /** Bytes that all open stores of this process hold, outside of V8. */
  memoryBytes: number
  /** The link to a NATS server, if the store was opened with one. */
  nats?: NatsStatus
}

/** What a call is given. */
export interface ExecuteOptions {
  /** Aborts the call: the handler's signal fires, commands are killed, and the promise rejects with the reason. */
  signal?: AbortSignal
  /** Called with what the tool tells meanwhile. `exec`: `{ stream: "stdout" | "stderr", text }`, for each piece of output. */
  onUpdate?: (partial: unknown) => void
}

/**
 * A GET that connects only to addresses that `checkUrl` admits, at each of at most 5 redirects. It goes through no
 * proxy, and decompresses nothing.
 *
 * Rejects as `checkUrl` does, and with `LIMIT`, `TIMEOUT`, `NETWORK`, or the signal's reason.
 */
export declare function fetchChecked(url: string, options?: FetchCheckedOptions): Promise<FetchedUrl>

/** How to fetch. */
export interface FetchCheckedOptions {
  /** What may be reached. */
  policy?: FetchPolicy
  /** The most bytes of a body; `LIMIT` beyond. Default: 10 MiB. */
  maxBytes?: number
  /**
   * Sent with each request; after a redirect to another origin, only those that OpenClaw would send on too:
   * no `authorization`, no `cookie`, none of one's own. `host` and what frames a request cannot be set.
   */
  headers?: Record<string, string>
  /** For the whole, redirects included; `TIMEOUT` beyond. Default: 60,000. */
  timeoutMs?: number
  /** Aborts the call. */
  signal?: AbortSignal
}

/** An answer to `fetchChecked`. */
export interface FetchedUrl {
  /** The HTTP status; one of 400 or above is an answer too. */
  status: number
  /** By lower-case name; the values of one that came several times are joined by ", ". */
  headers: Record<string, string>
  /** As it was sent: compressed if `content-encoding` says so, which is not asked for. */
  body: Buffer
  /** Where the answer came from, after redirects. */
  url: string
}

/** What may be fetched beyond what is public. */
export interface FetchPolicy {
  /**
   * Whether networks of one's own may be reached: loopback, private, carrier-grade NAT and unique local addresses.
   * Link-local addresses, metadata services, multicast, reserved addresses and IPv6 transition forms never may.
   */
  allowPrivate?: boolean
  /**
   * Hosts for which `allowPrivate` holds: a name, `*.` and a name for all beneath it, or an address. A name that is
   * not `localhost` or beneath it still may not lead to loopback.
   */
  allowHosts?: string[]
}

/** What to follow. */
export interface FollowEventsOptions {
  /** One session; all by default. */
  sessionKey?: string
  /** The id of an event: only those that arrived after it. */
  after?: string
  /** Ends the stream with the signal's reason. */
  signal?: AbortSignal
}

/** How to import. */
export interface ImportOpenClawOptions {
  /** Whether to append nothing, and only tell what an import would do. Default: false. */
  dryRun?: boolean
  /**
   * The Node that reads SQLite, in a process of its own: 22.15 or newer. Default: the one that runs this, and the
   * `node` of PATH if that one has no `node:sqlite`.
   */
  node?: string
  /** Called now and then, in bytes of OpenClaw's files. */
  onProgress?: (progress: { done: number; total: number }) => void
  /** Aborts the call. What was appended before stays; another import goes on from there. */
  signal?: AbortSignal
}

/** What an import did, or would do. */
export interface ImportReport {
  /** Sessions, by key, of which something was found. */
  sessions: number
  /** Events that were added. */
  events: number
  /** What was left out. */
  skipped: Array<ImportSkipped>
  /** Events that were there already. */
  alreadyPresent: number
}

/** Something that an import left out, and why. */
export interface ImportSkipped {
  /** The file. */
  file: string
  /** 1-based; in a database, the row's `seq` + 1. 0 is the file as a whole. */
  line: number
  /** Why. */
  reason: string
}

/** What a command is given that somebody else starts. */
export interface LaunchOptions {
  /** Where it starts, in the sandbox; the workspace by default. */
  cwd?: string
  /** Variables beside those of the policy, and before them. */
  env?: Record<string, string>
  /** Gives it a terminal of its own. */
  pty?: boolean
}

/** Which sessions to list. */
export interface ListSessionsOptions {
  /** Only keys that begin so. */
  prefix?: string
  /** Only those of this agent. */
  agentId?: string
  /** The key of a session: only those that come after it in the order. */
  after?: string
  /** At most so many. */
  limit?: number
  /** "recent", the default: the session with the latest event first. "key": by their keys. */
  order?: 'recent' | 'key'
}

/** What a person is asked to do. */
export interface LoginPrompt {
  /** The address to open. */
  url: string
  /** The code to enter there, with a device code. */
  userCode?: string
}

/** One record of the core's log. */
export interface LogRecord {
  /** Milliseconds since 1970. */
  timeMs: number
  /** `error`, `warn`, `info`, `debug` or `trace`. */
  level: string
  /** The module that speaks. */
  target: string
  /** What it says. */
  message: string
  /** Its fields. */
  fields: Record<string, unknown>
}

/**
 * The bytes that the core has allocated outside of V8, by owner. They are counted as they are asked for: what the
 * allocator rounds up, or keeps to use again, is not among them; 20 MiB of the first event store, which sled asks for and
 * never touches, are.
 */
export declare function memoryUsage(): CoreMemoryUsage

/** What a merge took in. */
export interface MergeReport {
  /** Events that were new. */
  applied: number
  /** Events that were known. */
  known: number
}

/** Something wrong with a message. */
export interface MessageIssue {
  /**
   * What kind it is. Control characters are C0 but for tab, line feed and carriage return, DELETE, and C1; BIDI are
   * the embeddings, overrides and isolates of UAX #9, which show a text in another order than it is read in.
   */
  code: 'TOO_LONG' | 'TOO_MANY_BYTES' | 'CONTROL' | 'BIDI' | 'LONE_SURROGATE'
  /** For people. */
  message: string
  /** Where it starts, in UTF-16 code units; for a limit, what is first past it. */
  offset: number
}

/**
 * False only if `redact` would leave the text as it is; linear in the text. It is OpenClaw's own pre-filter, answer
 * for answer. With `patterns` it is true of every text but the empty one: what they match is not known beforehand.
 */
export declare function mightContainSecret(text: string, options?: RedactOptions): boolean

/** Where the log is shared between gateways: a stream of NATS `JetStream`. */
export interface NatsOptions {
  /** URLs such as `nats://127.0.0.1:4222`, or `tls://` ones. */
  servers: string[]
  /** The stream's name, which is made if need be: letters, digits, `_` or `-`. */
  stream: string
  /** The path of a credentials file. */
  credentials?: string
}

/** How the link to a NATS server fares. */
export interface NatsStatus {
  /**
   * `connecting` while no server is reached, `catching_up` while there are events to send or to take in, `live` when
   * there are none, `stopped` when the store is closed.
   */
  state: 'connecting' | 'catching_up' | 'live' | 'stopped'
  /** The stream's name. */
  stream: string
  /** Host and port of the server, when connected. */
  server?: string | null
  /** What this store wrote up to this number is in the stream. */
  sent: number
  /** How many more numbers there are to send. */
  unsent: number
  /** All of the stream up to this sequence is in this store. */
  received: number
  /** How many more messages there are to take in, as the server last said. */
  pending: number
  /** Messages that left the stream before this store saw them: the first and last sequence, and how many. */
  gap?: { first: number; last: number; messages: number } | null
  /** Messages that could not be merged. */
  rejected: number
  /** Set when another store writes under this one's name: nothing is sent any more. */
  conflict?: string | null
  /** Limits of the stream by which messages may go before a store has seen them. */
  forgets?: string | null
  /** What went wrong last; null when it goes well again. */
  error?: string | null
}

/** An event as it is given. What else there is to say belongs into `data`: other members are refused. */
export interface NewEvent {
  /** The session it belongs to: at most 1,024 bytes, and no control characters. */
  sessionKey: string
  /** The agent: at most 512 bytes, as the kind and the id. */
  agentId: string
  /** What happened. */
  kind: EventKind
  /** Anything that `JSON.stringify` takes, kept as it writes it; undefined is null. */
  data: unknown
  /** When it happened, in milliseconds since 1970; now by default. */
  timestampMs?: number
  /** The same id twice is one event: the first. By default a new one. */
  id?: string
}

/** A provider's OAuth endpoints. They must be HTTPS, or on this machine. The client is a public one, without a secret. */
export interface OAuthProvider {
  /** The provider's id, such as "openai". */
  id: string
  /** The client's id there. */
  clientId: string
  /** The authorization endpoint, for signing in with a browser on this machine (RFC 6749 with PKCE, RFC 7636). */
  authorizeUrl?: string
  /** The token endpoint. */
  tokenUrl: string
  /** The device authorization endpoint, for signing in with a browser elsewhere (RFC 8628). */
  deviceUrl?: string
  /** What to ask for. */
  scopes: Array<string>
  /** The port of the redirect to 127.0.0.1; 0 or none for any free one. */
  redirectPort?: number
  /**
   * The whole redirect URI, where the server has registered another than `http://127.0.0.1:<port>/callback`, such as
   * `http://localhost:1455/auth/callback`.
   */
  redirectUri?: string
}

/**
 * Sends the core's log to a listener, in batches, on a later turn of the event loop. A listener that falls more than
 * 1,024 records behind misses some, and a record says how many. Listening does not keep the process alive.
 *
 * Returns a function that stops it. Throws `VALIDATION` for a level that does not exist.
 */
export declare function onLog(level: 'error' | 'warn' | 'info' | 'debug' | 'trace', listener: (records: LogRecord[]) => void): () => void

/** The two halves of a session key. */
export interface ParsedSessionKey {
  /** Whose session it is. */
  agentId: string
  /** Which of its sessions. */
  rest: string
}

/**
 * A JSON5 text as a value, equal to what npm `json5` 2.2.3 makes of it: -0, NaN, the infinities, hexadecimal
 * numbers, `__proto__` keys, duplicate keys, key order and lone surrogates included.
 *
 * Throws `CONFIG_PARSE` with npm's message, `line` and `column`; also where more than 10,000 levels nest.
 */
export declare function parseJson5(text: string): unknown

/**
 * `agent:<agentId>:<rest>` as OpenClaw 2026.9 reads it (`parseAgentSessionKey`): folded to lower case but for the ids
 * that Signal and Matrix own. `null` where OpenClaw returns `null`.
 *
 * Costs more than the TypeScript it equals, for the crossing: import it where no OpenClaw is at hand.
 */
export declare function parseSessionKey(key: string): ParsedSessionKey | null

/** How a command ended, and what it used. */
export interface ProcessResult {
  /** Null if a signal ended it. */
  exitCode: number | null
  /** The signal that ended it, such as `SIGKILL`. */
  signal?: string
  /** At most `outputBytes`: where more came, its first and its last half. */
  stdout: Buffer
  /** The same of standard error. */
  stderr: Buffer
  /** Which limit on time ended it. */
  timedOut?: 'wall' | 'idle'
  /** Whether output is missing from the middle. */
  truncated: boolean
  /** How many bytes of output are missing. */
  droppedBytes: number
  /** From start to end, in milliseconds. */
  wallMs: number
  /** CPU time of all its processes, in milliseconds. */
  cpuMs: number
  /** The most memory it had, in bytes: of all its processes where a cgroup counts it, else of the largest of them. */
  peakMemoryBytes: number
}

/**
 * What is known of a session without reading it. It depends on the set of its events alone: replicas that have the same
 * events have the same projection.
 */
export interface Projection {
  /** The session. */
  sessionKey: string
  /** The agent of its latest event. */
  agentId: string
  /** The time of its earliest event. */
  firstMs: number
  /** The time of its latest event. */
  lastMs: number
  /** Its events. */
  events: number
  /** Those of kind `message_received`, `message_sent` or `agent_response`. */
  messages: number
  /** Those of kind `tool_called`. */
  toolCalls: number
  /** Whether it was ended, and neither started again nor written to since. */
  ended: boolean
  /** Sums over its agent's responses. */
  usage: Omit<Usage, 'cost'> & { cost?: Partial<NonNullable<Usage['cost']>> }
  /** What its `state_changed` events made: the last writer of each key wins. */
  state: Record<string, unknown>
  /** The beginning of its latest message. */
  lastMessage?: string
}

/** What to prune. */
export interface PruneOptions {
  /** Sessions whose latest event is older go. */
  maxAgeMs?: number
  /** The oldest sessions go, ended ones first, until the bytes of the events fit. */
  maxBytes?: number
  /** Aborts the call; what is pruned by then stays so. */
  signal?: AbortSignal
}

/** What a pruning took away. */
export interface PruneReport {
  /** Sessions. */
  sessions: number
  /** Their events. */
  events: number
  /** The events' bytes. */
  bytes: number
}

/** Which events of a session to read. */
export interface ReadEventsOptions {
  /** Only those with a greater `seq`. */
  after?: number
  /** Only those with a smaller `seq`. */
  before?: number
  /** At most so many. */
  limit?: number
  /** From the last to the first. Default: false. */
  reverse?: boolean
  /** Only these kinds. By default all but `session_deleted`. */
  kinds?: EventKind[]
}

/**
 * The text with every credential masked: `***`, or for 18 units and more the first six, `…` and the last four.
 * Equal to OpenClaw 2026.9.6's `redactSensitiveText`, which also masks values that it has registered itself. A text
 * without credentials is returned as it is.
 *
 * With `patterns`, those are looked for in place of the built-in ones, as OpenClaw does; assignments in URLs, form
 * bodies and `Authorization` headers, and AWS keys, are masked in any case. The last group that holds something is
 * the secret; without one, the whole match is. A pattern that does not compile, or that repeats what repeats, is
 * passed over, as in OpenClaw. They are run by the JavaScript engine, whose time has no bound.
 */
export declare function redact(text: string, options?: RedactOptions): string

/** Options of `redact` and `mightContainSecret`. */
export interface RedactOptions {
  /** JavaScript regular expressions, as `source` (flags `gi`) or `/source/flags`. */
  patterns?: string[]
}

/**
 * Where a path leads that must stay beneath `root`, given as relative to it or as beginning with it: an absolute path
 * without symbolic links. The end of it need not exist.
 *
 * Links are followed as Linux' `openat2` does with `RESOLVE_BENEATH`: within the root, and no absolute one; on Windows
 * none is. Rejects with `PATH_ESCAPE` where the path leads out or runs in circles, with `IO` where the
 * system refuses. The answer holds for as long as nobody moves anything.
 */
export declare function resolveBeneath(root: string, path: string): Promise<string>

/** What to prefer, and what aborts the call. */
export interface ResolveOptions {
  /** The profile to use if it can be used. */
  preferred?: string
  /** Aborts the wait; a refresh that is under way goes on. */
  signal?: AbortSignal
}

/** How long events are kept. */
export interface RetentionOptions {
  /** Sessions whose latest event is older go. */
  maxAgeMs?: number
  /** The oldest sessions go, ended ones first, until the bytes of the events fit. */
  maxBytes?: number
}

/** What a command is given. */
export interface RunOptions {
  /** What it reads; nothing by default. */
  stdin?: Uint8Array
  /** Where it starts, in the sandbox; the workspace by default. */
  cwd?: string
  /** Variables beside those of the policy, and before them. Nothing of this process's environment is passed on. */
  env?: Record<string, string>
  /** Gives it a terminal of its own, of 80 columns and 24 lines; all output is then on stdout. */
  pty?: boolean
  /** Kills it, and all it started. */
  signal?: AbortSignal
  /** Gets output as it comes. While it is not called, the command waits; if it throws, the command is killed. */
  onOutput?: (chunk: Buffer, stream: 'stdout' | 'stderr') => void
}

/** One primitive, and whether it works here. */
export interface SandboxCheck {
  /** Its name, such as `bwrap/user-namespaces`. */
  name: string
  /** Whether it did what it must. */
  ok: boolean
  /** What was seen. */
  detail: string
  /** What to do where it did not. */
  remedy?: string
}

/** A name in a directory. */
export interface SandboxEntry {
  /** The name; what is no UTF-8 in it is shown as U+FFFD. */
  name: string
  /** Whether it is a directory. A symbolic link is none. */
  isDirectory: boolean
}

/** What is in a file, and where it is. */
export interface SandboxFile {
  /** Its bytes. */
  data: Buffer
  /** Where it was read, in the sandbox, without symbolic links. */
  path: string
}

/** What a supervisor of the caller's own must exec. */
export interface SandboxLaunch {
  /** The program and its arguments, without a secret. */
  argv: Array<string>
  /** The whole environment to start it with. */
  env: Record<string, string>
}

/** Bounds of one command. */
export interface SandboxLimits {
  /** Bytes of memory of all its processes: 2 GiB by default. Without a cgroup it binds each process by itself. */
  memoryBytes?: number
  /** Processes and threads at once: 512 by default. */
  pids?: number
  /** Seconds of CPU time of each process: unbounded by default. */
  cpuSeconds?: number
  /** Milliseconds from start to end: 600,000 by default. */
  wallMs?: number
  /** Milliseconds without output: unbounded by default. */
  idleMs?: number
  /** Bytes of each output stream that are kept, the first and the last half: 1 MiB by default. `onOutput` gets all. */
  outputBytes?: number
  /** Bytes of a file, and of `/tmp`: 1 GiB by default. */
  fileBytes?: number
}

/** A file or folder, and where a sandbox sees it. */
export interface SandboxMount {
  /** An absolute path of this machine. */
  host: string
  /** An absolute path in the sandbox. */
  mount: string
  /** Whether it may be written. */
  access: 'ro' | 'rw'
}

/** How to follow a path. */
export interface SandboxPathOptions {
  /** Whether the last component, if it is a symbolic link, is not followed. Default: false. */
  keepLast?: boolean
  /** As in `SandboxWriteOptions`. */
  pinned?: boolean
}

/** What a sandbox may do. Fields that are not known are refused. */
export interface SandboxPolicy {
  /** The folder that it is for. */
  workspace: SandboxWorkspace
  /**
   * What else it sees. `/`, `/proc`, `/run`, `/etc`, a whole home, keys in it, OpenClaw's state directory (but its
   * workspaces), sockets and devices are refused.
   */
  mounts?: Array<SandboxMount>
  /** `none`, the default: no route, no DNS, no service of this machine. `host`: this machine's, loopback included. */
  network?: 'none' | 'host'
  /** Variables of every command. */
  env?: Record<string, string>
  /** Bounds of each command. */
  limits?: SandboxLimits
  /**
   * What enforces it: `auto`, the default, takes the strongest that works. `jobobject`, on Windows, is taken only by its
   * name: it keeps commands neither from reading files nor from the network.
   */
  backend?: 'auto' | 'bwrap' | 'landlock' | 'seatbelt' | 'jobobject'
}

/** What works here. */
export interface SandboxProbe {
  /** The backend that would be used. */
  backend: string | null
  /** Every primitive that was tried. */
  checks: Array<SandboxCheck>
}

/** How to read a file. */
export interface SandboxReadOptions {
  /** `LIMIT` if the file has more bytes, also if it grows meanwhile. Default: 256 MiB. */
  maxBytes?: number
  /** Aborts the call. */
  signal?: AbortSignal
}

/** How to remove something. */
export interface SandboxRemoveOptions {
  /** Whether a directory is removed with what is in it. Default: false. */
  recursive?: boolean
  /** Whether what does not exist is removed already. Default: false. */
  force?: boolean
  /** As in `SandboxWriteOptions`. */
  pinned?: boolean
  /** Aborts the call; what is removed by then stays so. */
  signal?: AbortSignal
}

/** What is known of a file without reading it. */
export interface SandboxStat {
  /** "other": a pipe, a socket, a device. */
  type: 'file' | 'directory' | 'other'
  /** Its bytes. */
  size: number
  /** When it was last written, in milliseconds since 1970. */
  mtimeMs: number
}

/** The folder that a sandbox is for. */
export interface SandboxWorkspace {
  /** An absolute path of this machine. Not looked at with the access `none`. */
  host: string
  /** Where the sandbox sees it: `/workspace` by default, and with the backend `landlock` always `host`. */
  mount?: string
  /** With `none`, an empty folder stands there. */
  access: 'none' | 'ro' | 'rw'
}

/** How to write a file. */
export interface SandboxWriteOptions {
  /** Whether directories on the way that are missing are made. Default: false. */
  mkdir?: boolean
  /** Whether the file must not exist, not even as a symbolic link: then `IO`. Default: false. */
  exclusive?: boolean
  /** Whether the path came from `resolvePath`: a symbolic link in it is then `PATH_ESCAPE`. Default: false. */
  pinned?: boolean
  /** Aborts the call; the file is then what it was. */
  signal?: AbortSignal
}

/** An event of the log. */
export interface StoredEvent {
  /** The session it belongs to. */
  sessionKey: string
  /** The agent. */
  agentId: string
  /** What happened. */
  kind: EventKind
  /** What was given. */
  data: unknown
  /** When it happened, in milliseconds since 1970. */
  timestampMs: number
  /** Names the event in every store. */
  id: string
  /** 1, 2, 3 … in its session in the order of arrival in this store: no gaps, never renumbered. */
  seq: number
  /** Who wrote it first. */
  origin: EventOrigin
  /** When it was written, by the origin's hybrid logical clock: 16 hexadecimal digits, which sort as text. */
  clock: string
  /** BLAKE3 over the hash of the event before it of this session and origin, and the event: the same on every replica. */
  hash: string
}

/** What a model is told of a tool. */
export interface Tool {
  /** 1 to 64 letters, digits, "_" and "-": what every provider takes. */
  name: string
  /** When to use it, and how. */
  description: string
  /** The JSON Schema of its arguments. */
  parameters: object
}

/** What is in a result: a text, or an image in base64. */
export interface ToolContent {
  /** Which of the two. */
  type: 'text' | 'image'
  /** The text. */
  text?: string
  /** The image, in base64. */
  data?: string
  /** Such as "image/png". */
  mimeType?: string
}

/** What the calls of a registry work in, and their bounds. */
export interface ToolRegistryConfig {
  /** What the built-in tools work in. */
  sandbox?: Sandbox
  /** How long a call may take, in milliseconds: 120,000 by default. */
  timeoutMs?: number
  /** Bytes of a result, from 1,024 on: 1 MiB by default. Of a longer text, head and tail stay. */
  maxResultBytes?: number
}

/** A call of a tool, as a model asks for it. */
export interface ToolRequest {
  /** The call's id. */
  id: string
  /** The tool's name. */
  name: string
  /** The arguments, whatever they are. */
  arguments: unknown
}

/** The result of a call, as a message of the conversation. */
export interface ToolResult {
  /** What kind of message it is. */
  role: 'toolResult'
  /** The call's id. */
  toolCallId: string
  /** The tool's name. */
  toolName: string
  /** What the model gets to see. */
  content: ({ type: 'text'; text: string } | { type: 'image'; data: string; mimeType: string })[]
  /** Whether the tool could not do what it was asked for. */
  isError: boolean
  /** What else there is to know, such as the `exitCode` of `exec`. */
  details?: Record<string, unknown>
}

/**
 * The events that entries of an OpenClaw transcript are: the same, with the same ids, as an import gives.
 *
 * Throws `EVENT_INVALID` for an entry that is not an object.
 */
export declare function transcriptEvents(transcript: TranscriptOwner, entries: unknown[]): NewEvent[]

/** Whose transcript it is, for `transcriptEvents`. */
export interface TranscriptOwner {
  /** The session key. */
  sessionKey: string
  /** The agent. */
  agentId: string
  /** OpenClaw's id of this stretch of the session. */
  sessionId: string
  /** The time of entries that bear none, in milliseconds since 1970. */
  writtenMs?: number
}

/** What `validateMessage` found. */
export interface ValidatedMessage {
  /** Whether there is no issue. */
  ok: boolean
  /** The text that was given, unchanged. */
  text: string
  /** At most 100, in the order of the text; characters of one kind in a row are one. */
  issues: Array<MessageIssue>
}

/**
 * Whether a text may go on as a message. It is never rewritten, and not normalised.
 *
 * `maxChars` counts UTF-16 code units, `maxBytes` bytes as UTF-8; there is no limit unless given. What lies past a limit
 * is not looked at. `allowControl` admits control characters, `allowBidi` bidirectional controls; half a surrogate pair
 * is always an issue. Throws `VALIDATION` for arguments of another type.
 */
export declare function validateMessage(text: string, limits?: { maxChars?: number; maxBytes?: number; allowControl?: boolean; allowBidi?: boolean }): ValidatedMessage

/** How to check. */
export interface VerifyOptions {
  /**
   * Whether to write the database anew from its records alone, projections and indices included, before. Default:
   * false.
   */
  rebuild?: boolean
  /** Aborts the call. */
  signal?: AbortSignal
}

/** What a check found. */
export interface VerifyReport {
  /** Whether nothing is wrong. */
  ok: boolean
  /** Sessions that were checked. */
  sessions: number
  /** Events that were checked. */
  events: number
  /** What is wrong. */
  problems: Array<EventProblem>
}
