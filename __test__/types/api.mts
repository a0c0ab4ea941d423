// Compiled, never run: what the declarations promise, and what they must refuse.
import {
  Allowlist,
  ApiKey,
  type AuthProfile,
  AuthProfiles,
  buildSessionKey,
  Channel,
  ChannelRegistry,
  type ChannelStatus,
  type CheckedUrl,
  Config,
  CredentialStore,
  checkUrl,
  chunkMarkdown,
  coreInfo,
  type EventKind,
  EventStore,
  type FetchedUrl,
  fetchChecked,
  type InboundMessage,
  type KeySource,
  memoryUsage,
  type NewEvent,
  onLog,
  type Projection,
  parseJson5,
  parseSessionKey,
  Router,
  resolveBeneath,
  type Sandbox,
  type SandboxFs,
  type SendReceipt,
  type StoredEvent,
  TelegramChannel,
  ToolRegistry,
  validateMessage,
  WhatsAppChannel,
} from "@openclaw/core";

export const document: unknown = parseJson5("{ a: 1 }");
// @ts-expect-error the text is required
parseJson5();
// @ts-expect-error a Buffer is not a string
parseJson5(Buffer.from("{}"));
// @ts-expect-error the value is unknown until it is checked
parseJson5("{ a: 1 }").a;

const info = coreInfo();
export const version: string = info.version;
export const target: string = info.target;
export const capability: { name: string; available: boolean; reason?: string } | undefined =
  info.capabilities[0];

const config: Config = await Config.load({ env: { HOME: undefined }, missingEnv: "error", schema: false });
// @ts-expect-error there are two ways to meet a missing variable
await Config.load({ missingEnv: "ignore" });
// @ts-expect-error values are fresh, and not set
config.value = {};
export const port: unknown = config.get("gateway.port");
export const line: number | undefined = config.explain("gateway.port")?.line;
export const errors: string[] = config.issues
  .filter(({ severity }) => severity === "error")
  .map(({ path }) => path);
export const edited: Promise<Config> = config.edit(
  [
    { op: "set", path: "a", value: 1 },
    { op: "unset", path: "b" },
  ],
  {
    allowShrink: true,
  },
);
// @ts-expect-error there is no such operation
config.edit([{ op: "delete", path: "a" }]);
for await (const update of config.watch({ signal: AbortSignal.timeout(1) })) {
  export_(update.changedPaths, update.config?.path, update.error?.message);
}

export const key: { agentId: string; rest: string } | null = parseSessionKey("agent:main:main");
export const built: string = buildSessionKey({
  agentId: "main",
  peer: { kind: "direct", id: "1" },
  dmScope: "per-peer",
});
// @ts-expect-error there is no such scope
buildSessionKey({ agentId: "main", dmScope: "per-planet" });
const stop: () => void = onLog("info", (records) => records.map(({ level, fields }) => [level, fields.file]));
stop();

const event: NewEvent = { sessionKey: "agent:main:main", agentId: "main", kind: "message_received", data: 1 };
await using store: EventStore = await EventStore.open("store", {
  durability: "interval",
  flushMs: 10,
  retention: { maxAgeMs: 1 },
  nats: { servers: ["nats://localhost"], stream: "EVENTS" },
});
// @ts-expect-error there are two kinds of durability
await EventStore.open("store", { durability: "perhaps" });
// @ts-expect-error stores are opened, which takes time
new EventStore("store").read;
export const appended: StoredEvent = await store.append({ ...event, kind: "a kind of my own" });
export const origin: string = appended.origin.replica;
// @ts-expect-error data is unknown until it is checked
appended.data.text;
// @ts-expect-error an event has a session
store.append({ agentId: "main", kind: "x", data: null });
export const all: StoredEvent[] = await store.appendBatch([event]);
export const kinds: EventKind[] = (
  await store.read("agent:main:main", { kinds: ["tool_called", "mine"] })
).map(({ kind }) => kind);
for await (const { seq, clock } of store.follow({ signal: AbortSignal.timeout(1) }))
  export_([clock], `${seq}`, undefined);
const projection: Projection | null = await store.projection("agent:main:main");
export const spent: number | undefined = projection?.usage.cost?.total;
export const state: unknown = projection?.state.key;
// @ts-expect-error what was not told is absent
export const input: number = projection?.usage.input;
export const recent: Projection[] = await store.sessions({ order: "recent", limit: 10 });
export const merged: { applied: number; known: number } = await store.merge(
  await store.changes(await store.version(), { limit: 10 }),
);
export const problems: { sessionKey: string; seq: number; problem: string }[] = (await store.verify())
  .problems;
export const freed: number = (await store.prune({ maxBytes: 1 })).bytes + (await store.compact()).after;
export const deleted: number = await store.deleteSession("agent:main:main");
export const link: string | null | undefined = (await store.stats()).nats?.error;
export const held: number | undefined = memoryUsage().owners.events;

declare function export_(changed: string[], path: string | undefined, message: string | undefined): void;

const profiles: AuthProfiles = await AuthProfiles.open(
  await CredentialStore.open("store", { keyFile: "key" }),
);
export const resolved: Promise<{ profile: AuthProfile; key: ApiKey }> = profiles.resolve("openai", {
  preferred: "openai:work",
  signal: AbortSignal.timeout(1),
});
await profiles.add({ id: "a", provider: "openai", type: "api_key" }, { apiKey: "sk" });
// @ts-expect-error there is no such type
await profiles.add({ id: "a", provider: "openai", type: "password" }, { apiKey: "sk" });
export const rest: Promise<{ cooldownUntilMs: number }> = profiles.markFailure("a", "rate_limit", 1000);
// @ts-expect-error there is no such reason
await profiles.markFailure("a", "bad luck");
export const signedIn: Promise<AuthProfile> = profiles.login(
  { id: "sim", clientId: "c", tokenUrl: "https://id.example/token", scopes: [] },
  { onPrompt: ({ url, userCode }: { url: string; userCode?: string }) => void [url, userCode] },
);
export const vault = await CredentialStore.open(
  "vault",
  { keyFile: "vault.key" },
  { create: true, minGeneration: 1 },
);
await vault.set("a", new ApiKey(new Uint8Array(1)));
await vault.set("a", "text");
export const apiKey: ApiKey = await vault.get("a");
export const bytes: Uint8Array = apiKey.exposeBytes();
export const shown: [string, string, boolean] = [apiKey.toString(), apiKey.toJSON(), apiKey.equals(bytes)];
export const listed: { name: string; createdMs: number; updatedMs: number }[] = await vault.list();
export const found: ("key-beside-data" | "modes" | "damaged" | "key" | "memory")[] = (
  await vault.audit()
).map(({ kind }) => kind);
export const keySource: KeySource = { keychain: { service: "openclaw", account: "core" } };
await vault.rotateKey(keySource);
// @ts-expect-error a number is no secret
new ApiKey(1);
// @ts-expect-error a keychain item has an account
await vault.rotateKey({ keychain: { service: "openclaw" } });
const { ok, text: same, issues } = validateMessage("text", { maxChars: 10, allowBidi: true });
export const verdict: [boolean, string, number | undefined] = [ok, same, issues[0]?.offset];
// @ts-expect-error there is no such issue
issues[0]?.code === "TOO_SHORT";
// @ts-expect-error limits are numbers
validateMessage("text", { maxChars: "10" });
export const beneath: Promise<string> = resolveBeneath("root", "path");
export const checked: Promise<CheckedUrl> = checkUrl("https://example.com/", { allowHosts: ["a"] });
export const fetched: Promise<FetchedUrl> = fetchChecked("https://example.com/", {
  policy: { allowPrivate: false },
  maxBytes: 1,
  headers: { accept: "text/html" },
  signal: AbortSignal.timeout(1),
});
export const body: Promise<Buffer> = fetched.then((answer) => answer.body);
// @ts-expect-error only a GET
fetchChecked("https://example.com/", { method: "POST" });

declare const files: SandboxFs;
export const file: Promise<Buffer> = files.readFile("a", { maxBytes: 10, signal: AbortSignal.timeout(1) });
export const written: Promise<void> = files.writeFile("a", new Uint8Array(1), {
  mkdir: true,
  exclusive: true,
});
export const created: Promise<boolean> = files.createFile("a", "text");
export const entries: Promise<{ name: string; isDirectory: boolean }[]> = files.readDirectory(".");
export const seen: Promise<{ type: "file" | "directory" | "other"; size: number; mtimeMs: number } | null> =
  files.stat("a");
export const place: Promise<string> = files.resolvePath("a", { keepLast: true });
// @ts-expect-error what is written is bytes or text
files.writeFile("a", 7);

declare const sandbox: Sandbox;
const tools = new ToolRegistry({ sandbox, timeoutMs: 1000, maxResultBytes: 4096 });
tools.registerBuiltin("exec", "read");
tools.register(
  { name: "a", description: "", parameters: { type: "object" } },
  async (_args: unknown, { signal, toolCallId }) => `${toolCallId} ${signal.aborted}`,
);
export const toolResult: Promise<{ role: "toolResult"; toolCallId: string; isError: boolean }> =
  tools.execute(
    { id: "1", name: "a", arguments: {} },
    { signal: AbortSignal.timeout(1), onUpdate: (partial: unknown) => partial },
  );
// @ts-expect-error a tool has a schema
tools.register({ name: "a", description: "" }, () => "");
export const known: string[] = tools.list().map(({ name }) => name);

declare const channelStore: EventStore;
const telegram = new TelegramChannel({ token: new ApiKey("1:x"), store: channelStore, pollSeconds: 1 });
export const hooked: Channel = new TelegramChannel({
  token: "1:x",
  store: channelStore,
  accountId: "work",
  baseUrl: "http://localhost:8081",
  webhook: { host: "127.0.0.1", port: 8443, path: "/", secret: new ApiKey("s") },
  webhookUrl: "https://bot.example/",
});
// @ts-expect-error Telegram has to know where it reaches the webhook
new TelegramChannel({ token: "1:x", store: channelStore, webhook: { port: 1, secret: "s" } });
new TelegramChannel({
  token: "1:x",
  store: channelStore,
  // @ts-expect-error there are no polls beside a webhook
  pollSeconds: 1,
  webhook: { port: 1, secret: "s" },
  webhookUrl: "https://x",
});
// @ts-expect-error what comes in and goes out is kept in a store
new TelegramChannel({ token: "1:x" });
// @ts-expect-error Meta calls a webhook
new WhatsAppChannel({ token: "x", verifyToken: "y", phoneNumberId: "1", store: channelStore });
// @ts-expect-error a channel is made as one of its classes
new Channel({ store: channelStore }, "telegram");
for await (const message of telegram.messages({ signal: AbortSignal.timeout(1) })) {
  const inbound: InboundMessage = message;
  const file: Buffer | undefined = await inbound.attachments[0]?.download({ maxBytes: 1 });
  const receipt: SendReceipt = await telegram.send(
    {
      to: inbound.chat.id,
      text: `${file?.length}`,
      format: "plain",
      attachments: [{ data: new Uint8Array(1), name: "a" }],
      replyToId: inbound.messageId,
      ...(inbound.threadId !== undefined && { threadId: inbound.threadId }),
      silent: true,
      idempotencyKey: inbound.id,
    },
    { signal: AbortSignal.timeout(1) },
  );
  await telegram.edit(inbound.chat.id, receipt.messageIds[0] ?? "", "new");
  await telegram.react(inbound.chat.id, inbound.messageId, "👍");
  await telegram.typing(inbound.chat.id);
  await inbound.ack();
  // @ts-expect-error a name is no identity: it may be missing
  inbound.sender.name.length;
  break;
}
export const channelStatus: ChannelStatus = telegram.status();
const registry = new ChannelRegistry();
registry.add(telegram);
// @ts-expect-error there may be none
registry.get("telegram").id;
export const channels: { id: string; accountId: string; status: ChannelStatus }[] = registry.list();
await registry.closeAll();
export const route: { agentId: string; sessionKey: string; mainSessionKey: string; matchedBy: string } =
  new Router({}).resolve({
    channel: "telegram",
    accountId: "default",
    peer: { kind: "group", id: "-1" },
    parentPeer: { kind: "channel", id: "1" },
    guildId: "1",
    teamId: "1",
    memberRoleIds: ["1"],
  });
export const decision: { allowed: boolean; reason: string } = new Allowlist(["1"], {
  policy: "pairing",
}).check({
  id: "1",
  username: "a",
  name: "b",
});
// @ts-expect-error there are four policies
new Allowlist([], { policy: "everybody" });
export const parts: string[] = chunkMarkdown("text", { limit: 10, unit: "utf8", mode: "newline" });
// @ts-expect-error parts have a limit
chunkMarkdown("text", {});
