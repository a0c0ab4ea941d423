// The platforms that the plugin's channels speak: what differs between them, in one place.

/** One platform. */
export interface PlatformRow {
  /** OpenClaw's channel, and the key under `channels` in its config. */
  id: string;
  /** The package's class. */
  className: string;
  label: string;
  /** In a list to choose from. */
  selectionLabel: string;
  blurb: string;
  /** Fields that are secrets, and the options of the class that they become; `a.b` is a part of the option `a`. */
  secrets: Readonly<Record<string, string>>;
  /** Other fields that the class takes, in the same way. */
  options: Readonly<Record<string, string>>;
  /** Without these, an account is not configured. */
  required: readonly string[];
  /** What a sender's id is called where a person reads it. */
  idLabel: string;
  /** A target as a user may write it (`telegram:123`, `@name`), as the platform takes it. */
  target(raw: string): string;
  /** Whether a target names a direct chat; undefined where the id does not tell. */
  isDirect(target: string): boolean | undefined;
  /** Text that fits one message for sure. */
  textLimit: number;
  /** Whether a message that was sent can be changed. */
  edits: boolean;
  /** Whether a slash command waits for an answer that names it. */
  awaitsAnswer?: boolean;
}

/** Whether a channel's section is an account itself, `default`, beside those under `accounts`. */
export const isAccount = ({ required }: PlatformRow, section: Readonly<Record<string, unknown>>): boolean =>
  required.some((field) => section[field] !== undefined);

/** A target without the channel's name before it. */
const bare = (names: readonly string[]) => (raw: string) =>
  raw.trim().replace(new RegExp(`^(?:${names.join("|")}):(?:group:|channel:|user:)?`, "i"), "");

/** The platforms whose native adapters are in the package. */
export const PLATFORMS: readonly PlatformRow[] = [
  {
    id: "core-telegram",
    className: "TelegramChannel",
    label: "Telegram (native)",
    selectionLabel: "Telegram (native Bot API)",
    blurb: "a bot of @BotFather's, polled by native threads that a busy gateway does not stop.",
    secrets: { botToken: "token" },
    options: { apiRoot: "baseUrl", pollSeconds: "pollSeconds" },
    required: ["botToken"],
    idLabel: "Telegram user id",
    target: bare(["core-telegram", "telegram", "tg"]),
    // Groups and channels have negative ids.
    isDirect: (target) => (/^-?\d+$/.test(target) ? !target.startsWith("-") : undefined),
    textLimit: 4000,
    edits: true,
  },
  {
    id: "core-discord",
    className: "DiscordChannel",
    label: "Discord (native)",
    selectionLabel: "Discord (native Gateway)",
    blurb: "a bot whose Gateway connection and slash commands are served by native threads.",
    secrets: { botToken: "token" },
    options: { apiRoot: "baseUrl", intents: "intents", commands: "commands" },
    required: ["botToken"],
    idLabel: "Discord user id",
    // Channels and users have ids of one kind; the adapter finds out which it is.
    target: bare(["core-discord", "discord"]),
    isDirect: () => undefined,
    textLimit: 2000,
    edits: true,
    awaitsAnswer: true,
  },
  {
    id: "core-slack",
    className: "SlackChannel",
    label: "Slack (native)",
    selectionLabel: "Slack (native Socket Mode)",
    blurb: "Socket Mode on native threads, which acknowledge in time whatever the gateway does.",
    secrets: { botToken: "token", appToken: "appToken" },
    options: { apiRoot: "baseUrl" },
    required: ["botToken", "appToken"],
    idLabel: "Slack user id",
    target: bare(["core-slack", "slack"]),
    isDirect: (target) => (/^[DUW]/.test(target) ? true : /^[CG]/.test(target) ? false : undefined),
    textLimit: 4000,
    edits: true,
  },
  {
    id: "core-signal",
    className: "SignalChannel",
    label: "Signal (native)",
    selectionLabel: "Signal (native, by signal-cli's daemon)",
    blurb: "a number that signal-cli's HTTP daemon serves.",
    secrets: {},
    options: {
      account: "account",
      accountUuid: "accountUuid",
      httpUrl: "baseUrl",
      sendReadReceipts: "sendReadReceipts",
    },
    required: ["account"],
    idLabel: "Signal number or uuid",
    // `group:`, `uuid:` and `username:` are the adapter's own.
    target: (raw) => raw.trim().replace(/^(?:core-)?signal:/i, ""),
    isDirect: (target) => !target.startsWith("group:"),
    textLimit: 4000,
    edits: true,
  },
  {
    id: "core-matrix",
    className: "MatrixChannel",
    label: "Matrix (native)",
    selectionLabel: "Matrix (native, without end-to-end encryption)",
    blurb: "a user of any homeserver; encrypted rooms are not read.",
    secrets: { accessToken: "token" },
    options: { homeserver: "baseUrl", autoJoin: "autoJoin", autoJoinAllowlist: "autoJoinAllowlist" },
    required: ["homeserver", "accessToken"],
    idLabel: "Matrix user id",
    target: (raw) => raw.trim().replace(/^(?:core-)?matrix:(?:room:|channel:|user:)?/i, ""),
    isDirect: (target) => (target.startsWith("@") ? true : undefined),
    textLimit: 4000,
    edits: true,
  },
  {
    id: "core-whatsapp",
    className: "WhatsAppChannel",
    label: "WhatsApp (native)",
    selectionLabel: "WhatsApp (native Business Cloud API)",
    blurb: "a business number of Meta's Cloud API, which calls a webhook.",
    secrets: { accessToken: "token", verifyToken: "verifyToken", appSecret: "webhook.secret" },
    options: {
      phoneNumberId: "phoneNumberId",
      apiVersion: "apiVersion",
      apiRoot: "baseUrl",
      webhookHost: "webhook.host",
      webhookPort: "webhook.port",
      webhookPath: "webhook.path",
    },
    required: ["accessToken", "verifyToken", "appSecret", "phoneNumberId", "webhookPort"],
    idLabel: "WhatsApp number",
    // Meta writes numbers without a plus.
    target: (raw) => bare(["core-whatsapp", "whatsapp"])(raw).replace(/^\+/, ""),
    isDirect: (target) => /^\d+$/.test(target) || undefined,
    textLimit: 4000,
    edits: false,
  },
];
