// The migration, module by module: what each one replaces in OpenClaw and how it gets there.
// The status table of README.md, `openclaw-core status` and the load hook all read this one table.

/** The modules in the order of the plan; a later one may build on an earlier one, never the other way. */
export const MODULE_NAMES = [
  "types",
  "config",
  "events",
  "secrets",
  "validation",
  "auth",
  "ipc",
  "providers",
  "sandbox",
  "tools",
  "workflow",
  "channels",
  "gateway",
  "plugins",
  "cli",
] as const;

/** A module of the plan. */
export type ModuleName = (typeof MODULE_NAMES)[number];

/** A function of OpenClaw, known by the source file it was written in and its name: both outlive a release. */
export interface FunctionTarget {
  kind: "function";
  /** The npm package of OpenClaw's whose chunks hold it; `openclaw` itself if there is none. */
  package?: string;
  /** The path in the bundler's `//#region` marker. */
  region: string;
  name: string;
  /**
   * What the function must look like, comments and white space aside, for the replacement to be its equal.
   * Rows that are not built have none.
   */
  shape?: RegExp;
  /** What the function stands on and the replacement does too, where a look at the function is not enough. */
  basis?: Basis;
}

/** Regions whose text must be one that the core was checked against. */
export interface Basis {
  /** In the function's own chunk, or in one that it imports. */
  regions: readonly string[];
  /** The first 16 digits of the SHA-256 of those texts, comments and white space aside: one for each kind of bundle. */
  known: readonly string[];
}

/** An npm package that OpenClaw imports by its bare name. */
export interface PackageTarget {
  kind: "package";
  package: string;
  /** The file that both `import` and `require` of the package end in. */
  file: string;
  name: string;
}

/** A place where OpenClaw lets a plugin answer. */
export interface SurfaceTarget {
  kind: "surface";
  name: string;
}

/** Something of OpenClaw that a module replaces. */
export type Target = FunctionTarget | PackageTarget | SurfaceTarget;

/** One row of the plan. */
export interface Row {
  name: ModuleName;
  replaces: readonly Target[];
  /** `swap`: as OpenClaw loads. `plugin`: through its plugin surface. `library`: only by `import`. */
  attaches: "swap" | "plugin" | "library";
  /** What the module exports from the package. */
  exports: readonly string[];
  state: "native" | "not built";
  /** Why a `library` row is not attached, or what is worth knowing about the row. */
  note?: string;
}

const fn = (region: string, name: string, shape?: RegExp): FunctionTarget =>
  shape ? { kind: "function", region, name, shape } : { kind: "function", region, name };
/** All that decides what OpenClaw's redaction makes of a text. */
const REDACTION: Basis = {
  regions: [
    "src/logging/redact.ts",
    "src/logging/redact-patterns.ts",
    "src/logging/redact-pattern-runtime.ts",
    "src/logging/redact-bounded.ts",
    "src/logging/redact-pem.ts",
    "packages/acp-core/src/structured-auth-redaction.ts",
    "packages/net-policy/src/redact-sensitive-url.ts",
    "packages/normalization-core/src/utf16-slice.ts",
  ],
  // OpenClaw 2026.9.6
  known: [
    "2497f1f1e906e267",
    "4dccf785095dd151",
    "824db129a2ce95bc",
    "c44cae99445a960a",
    "cd6ac397bc53e5c8",
    "d1e8f860d3632fd6",
  ],
};
/** All that decides what OpenClaw does with the body of a model's answer before one of its transports reads it. */
const MODEL_FETCH: Basis = {
  regions: ["src/agents/provider-transport-fetch.ts"],
  // OpenClaw 2026.9.6
  known: ["c710eb572c041838"],
};
/** A transport is called as it is, and watched; nothing in it matters but how it is made and called. */
const transport = (region: string, name: string, shape: RegExp, from?: string): FunctionTarget => ({
  ...fn(region, name, shape),
  ...(from && { package: from }),
});
const surface = (name: string): SurfaceTarget => ({ kind: "surface", name });

/** The table of the migration. */
export const MODULES: readonly Row[] = [
  {
    name: "types",
    replaces: [fn("src/sessions/session-key-utils.ts", "parseAgentSessionKey")],
    attaches: "library",
    exports: ["parseSessionKey", "buildSessionKey"],
    state: "native",
    note: "by measurement: OpenClaw reads a session key in 0.3 µs, less than a call into native code costs",
  },
  {
    name: "config",
    replaces: [
      fn(
        "src/utils/parse-json-compat.ts",
        "parseJsonWithJson5Fallback",
        /^\(raw, json5\) \{ try \{ return JSON\.parse\(raw\); \} catch \{ return \(json5 \?\? loadJson5Parser\(\)\)\.parse\(raw\); \} \}$/,
      ),
      fn(
        "src/config/io.read-helpers.ts",
        "parseConfigJson5",
        /^\(raw, json5 = \w+\) \{ try \{ return \{ ok: true, parsed: parseJsonWithJson5Fallback(\$\d+)?\(raw, json5\) \}; \} catch \(err\) \{ return \{ ok: false, error: String\(err\) \}; \} \}$/,
      ),
      { kind: "package", package: "json5", file: "lib/index.js", name: "json5.parse" },
    ],
    attaches: "swap",
    exports: ["parseJson5", "Config"],
    state: "native",
    note: "strict JSON stays with JSON.parse, which nothing beats; what native code refuses, OpenClaw's own parser answers",
  },
  {
    name: "events",
    replaces: [
      surface("api.agent.events"),
      surface("api.runtime.events"),
      surface("api.on"),
      surface("api.registerService"),
    ],
    attaches: "plugin",
    exports: ["EventStore"],
    state: "native",
    note: "replaces nothing: the gateway's events and transcripts are mirrored into a store of its own",
  },
  {
    name: "secrets",
    replaces: [surface("secretProviderIntegrations")],
    attaches: "plugin",
    exports: ["CredentialStore", "ApiKey"],
    state: "native",
    note: "OpenClaw resolves its SecretRefs from an encrypted store, by its own exec protocol",
  },
  {
    name: "validation",
    replaces: [
      {
        ...fn(
          "src/logging/redact.ts",
          "redactSensitiveTextWithOptions",
          /^\(exactRedacted, resolvedOptions\) \{ if \(normalizeMode(\$\d+)?\(resolvedOptions\.mode\) === "off"\) return exactRedacted; if \(usesBuiltInRedactPatterns\(resolvedOptions\.patterns\) && !couldMatchDefaultRedactPatterns\(exactRedacted\)\) return exactRedacted; return redactText(\$\d+)?\(exactRedacted, resolveRedactOptions\(resolvedOptions\)\.patterns\); \}$/,
        ),
        basis: REDACTION,
      },
    ],
    attaches: "swap",
    exports: [
      "validateMessage",
      "resolveBeneath",
      "redact",
      "mightContainSecret",
      "checkUrl",
      "fetchChecked",
    ],
    state: "native",
    note: "OpenClaw masks registered values and runs users' patterns itself; code of OpenClaw's that is not known stays in place",
  },
  {
    name: "auth",
    replaces: [surface("api.registerProvider (auth)")],
    attaches: "library",
    exports: ["AuthProfiles"],
    state: "native",
    note: "OpenClaw's own profiles stay in its SQLite: two programs that refresh one sign-in would end it",
  },
  {
    name: "ipc",
    replaces: [fn("src/infra/sqlite-readonly-location.ts", "prepareReadOnlySourceSyncInProcess")],
    attaches: "swap",
    exports: [],
    state: "not built",
    note: "in a process of its own: two SQLite libraries in one process drop each other's locks",
  },
  {
    name: "providers",
    replaces: [
      {
        ...fn(
          "src/agents/provider-transport-fetch.ts",
          "sanitizeOpenAISdkSseResponse",
          /^\(response, options\) \{ /,
        ),
        basis: MODEL_FETCH,
      },
      {
        ...fn(
          "src/agents/provider-transport-fetch.ts",
          "shouldSanitizeOpenAISdkSseResponse",
          /^\(model\) \{ /,
        ),
        basis: MODEL_FETCH,
      },
      transport(
        "packages/ai/src/transports/anthropic-transport-stream.ts",
        "createAnthropicMessagesTransportStreamFn",
        /^\(\) \{ return \(rawModel, context, rawOptions\) => \{ /,
        "@openclaw/ai",
      ),
      transport(
        "packages/ai/src/transports/openai-completions-transport.ts",
        "createOpenAICompletionsTransportStreamFn",
        /^\(\) \{ return \(model, context, options\) => \{ /,
        "@openclaw/ai",
      ),
      transport(
        "packages/ai/src/transports/openai-responses-client.ts",
        "createOpenAIResponsesTransportStreamFn",
        /^\(\) \{ return createResponsesTransportExecutor\(\{ /,
        "@openclaw/ai",
      ),
      transport(
        "extensions/google/transport-stream.ts",
        "createGoogleTransportStreamFn",
        /^\(kind\) \{ return \(rawModel, context, rawOptions\) => \{ /,
      ),
      surface("api.registerProvider"),
    ],
    attaches: "swap",
    exports: [
      "AnthropicProvider",
      "OpenAiProvider",
      "OpenAiResponsesProvider",
      "GeminiProvider",
      "OllamaProvider",
      "FailoverProvider",
    ],
    state: "native",
    note: "requests, network policy and messages stay OpenClaw's; the plugin's core-anthropic, core-openai, core-openai-responses, core-google and core-ollama are native throughout",
  },
  {
    name: "sandbox",
    replaces: [surface("plugin-sdk/sandbox registerSandboxBackend")],
    attaches: "plugin",
    exports: ["Sandbox", "SandboxFs"],
    state: "native",
    note: "backend `bwrap`, beside OpenClaw's own: chosen by agents.defaults.sandbox.backend",
  },
  {
    name: "tools",
    replaces: [surface("api.registerTool")],
    attaches: "library",
    exports: ["ToolRegistry"],
    state: "native",
    note: "OpenClaw's own file tools reach the sandbox through its file bridge, which is SandboxFs",
  },
  {
    name: "workflow",
    replaces: [surface("api.registerDetachedTaskRuntime")],
    attaches: "plugin",
    exports: [],
    state: "not built",
  },
  {
    name: "channels",
    replaces: [surface("api.registerChannel")],
    attaches: "plugin",
    exports: [
      "TelegramChannel",
      "DiscordChannel",
      "SlackChannel",
      "SignalChannel",
      "MatrixChannel",
      "WhatsAppChannel",
      "ChannelRegistry",
      "Router",
      "Allowlist",
      "chunkMarkdown",
    ],
    state: "native",
    note: "channels core-telegram, core-discord, core-slack, core-signal, core-matrix and core-whatsapp, beside OpenClaw's own: for what a blocked or killed gateway loses, not for speed: on the disk before it is acknowledged, a message costs 0.6 to 3 times the processor time that it costs grammY or discord.js, which keep nothing; Router is for import only, by measurement: OpenClaw resolves a route in 1–9 µs, and crossing costs more",
  },
  {
    name: "gateway",
    replaces: [surface("api.registerGatewayMethod"), surface("api.registerHttpRoute")],
    attaches: "plugin",
    exports: [],
    state: "not built",
  },
  {
    name: "plugins",
    replaces: [fn("src/plugins/installed-plugin-index.ts", "buildInstalledPluginIndex")],
    attaches: "swap",
    exports: [],
    state: "not built",
  },
  {
    name: "cli",
    replaces: [surface("api.registerCli")],
    attaches: "plugin",
    exports: [],
    state: "not built",
    note: "the plugin's `openclaw core` command prints this table today; no native command yet",
  },
];

/** The functions and packages that the load hook replaces, with the module each belongs to. */
export function swapTargets(modules: readonly ModuleName[]): (Exclude<Target, SurfaceTarget> & {
  module: ModuleName;
})[] {
  return MODULES.filter(
    (row) => row.attaches === "swap" && row.state === "native" && modules.includes(row.name),
  ).flatMap((row) =>
    row.replaces.flatMap((target) => (target.kind === "surface" ? [] : [{ ...target, module: row.name }])),
  );
}

/** What a row replaces, in a few words. */
export function describeTarget(target: Target): string {
  switch (target.kind) {
    case "function":
      return `${target.name} (${target.region})`;
    case "package":
      return `${target.name} (npm ${target.package})`;
    case "surface":
      return target.name;
  }
}
