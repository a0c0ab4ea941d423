/**
 * Configs to hold validators against each other: realistic good ones, and seeded variations of them that are
 * good or bad in every way a person or a tool gets a config wrong.
 */

/** A small seeded generator (mulberry32): equal seeds give equal configs on every machine. */
export function seeded(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return {
    chance: (p) => next() < p,
    below: (n) => Math.floor(next() * n),
    pick: (list) => list[Math.floor(next() * list.length)],
  };
}

/** Hand-written configs that stock OpenClaw accepts, each about one kind of installation. */
export const GOOD = {
  empty: {},
  minimal: { gateway: { mode: "local" } },
  personal: {
    meta: { lastTouchedVersion: "2026.9.6" },
    gateway: {
      mode: "local",
      port: 18789,
      bind: "loopback",
      auth: { mode: "token", token: "0123456789abcdef0123456789abcdef" },
      controlUi: { enabled: true, basePath: "/ui" },
    },
    agents: {
      defaults: {
        model: { primary: "anthropic/claude-sonnet-4-5", fallbacks: ["openai/gpt-5"] },
        workspace: "~/openclaw",
        timeoutSeconds: 600,
        heartbeat: { every: "30m", target: "last" },
      },
      entries: { main: { name: "Main", identity: { name: "Molty", emoji: "🦞" } } },
    },
    channels: {
      telegram: {
        enabled: true,
        botToken: "123456:abcdefghijklmnopqrstuvwxyz",
        dmPolicy: "pairing",
        groups: { "*": { requireMention: true } },
      },
    },
    messages: { ackReaction: "👀", ackReactionScope: "group-mentions", inbound: { debounceMs: 500 } },
    logging: { level: "info", consoleLevel: "warn", consoleStyle: "pretty" },
    session: { dmScope: "per-channel-peer", reset: { mode: "daily", atHour: 4 } },
  },
  team: {
    agents: {
      ownership: "explicit",
      defaults: {
        workspace: "/srv/openclaw/default",
        model: "openai/gpt-5",
        sandbox: {
          mode: "non-main",
          scope: "agent",
          docker: { image: "openclaw-sandbox:bookworm", network: "none" },
        },
        heartbeat: { every: "1h", agentId: "ops" },
        subagents: { maxConcurrent: 4 },
      },
      entries: {
        ops: {
          name: "Operations",
          workspace: "/srv/openclaw/ops",
          tools: { profile: "coding", deny: ["browser"] },
          groupChat: { mentionPatterns: ["@ops", "ops:"] },
        },
        support: {
          name: "Support",
          workspace: "/srv/openclaw/support",
          model: { primary: "anthropic/claude-sonnet-4-5" },
          tools: { allow: ["read", "message"] },
        },
      },
    },
    bindings: [
      {
        agentId: "ops",
        match: { channel: "slack", accountId: "default", peer: { kind: "channel", id: "C0123456" } },
      },
      { agentId: "support", match: { channel: "discord", guildId: "123456789012345678" } },
    ],
    channels: {
      slack: { enabled: true, mode: "socket", botToken: "xoxb-1-2-abc", appToken: "xapp-1-A-1-abc" },
      discord: {
        enabled: true,
        token: "discord-bot-token",
        groupPolicy: "allowlist",
        guilds: {
          "123456789012345678": {
            requireMention: true,
            channels: { "234567890123456789": { enabled: true } },
          },
        },
      },
      defaults: { groupPolicy: "allowlist" },
    },
    session: { dmScope: "per-account-channel-peer" },
    tools: {
      profile: "full",
      exec: { host: "gateway" },
      agentToAgent: { enabled: true, allow: ["ops", "support"] },
      elevated: { enabled: true, allowFrom: { slack: ["U0123456"] } },
    },
    cron: { enabled: true },
  },
  models: {
    models: {
      mode: "merge",
      providers: {
        local: {
          baseUrl: "http://127.0.0.1:11434/v1",
          apiKey: "not-needed",
          api: "openai-completions",
          models: [
            {
              id: "qwen3-coder",
              name: "Qwen 3 Coder",
              reasoning: false,
              input: ["text"],
              cost: { input: 0, output: 0, cacheRead: 0, cacheWrite: 0 },
              contextWindow: 131072,
              maxTokens: 8192,
            },
          ],
        },
        gateway: {
          baseUrl: "https://llm.example.com/v1",
          apiKey: { source: "env", provider: "default", id: "LLM_API_KEY" },
          api: "anthropic-messages",
          headers: { "x-team": "research" },
          models: [
            {
              id: "m1",
              name: "Model One",
              reasoning: true,
              input: ["text", "image"],
              contextWindow: 200000,
              maxTokens: 64000,
            },
          ],
        },
      },
    },
    agents: {
      defaults: {
        model: { primary: "local/qwen3-coder" },
        models: {
          "local/qwen3-coder": { alias: "qwen" },
          "gateway/m1": { alias: "one", params: { temperature: 0.2 } },
        },
      },
    },
    auth: {
      profiles: { "openai:default": { provider: "openai", mode: "api_key" } },
      order: { openai: ["openai:default"] },
    },
    secrets: { providers: { default: { source: "env" } } },
  },
  automation: {
    hooks: {
      enabled: true,
      token: "hook-token-0123456789",
      path: "/hooks",
      mappings: [
        { id: "ci", match: { path: "ci" }, action: "agent", messageTemplate: "CI: {{body}}", deliver: false },
        { match: { source: "gmail" }, action: "wake", wakeMode: "now", textTemplate: "mail" },
      ],
    },
    cron: { enabled: true, sessionRetention: "24h" },
    env: { vars: { TZ: "UTC" }, shellEnv: { enabled: false } },
    browser: { enabled: true, headless: true, profiles: { work: { cdpPort: 18801 } } },
    skills: {
      allowBundled: ["github"],
      entries: { github: { enabled: true } },
      install: { nodeManager: "npm" },
    },
    commands: { native: "auto", text: true, config: false },
    discovery: { mdns: { mode: "minimal" } },
    update: { channel: "stable", checkOnStart: false },
  },
  plugins: {
    plugins: {
      enabled: true,
      allow: ["webhooks", "memory-core"],
      deny: ["imap"],
      slots: { memory: "memory-core" },
      entries: {
        webhooks: {
          enabled: true,
          config: { routes: { one: { path: "/one", sessionKey: "agent:main:main", secret: "s" } } },
        },
        "memory-core": { enabled: true },
      },
    },
    memory: {},
    mcp: { servers: { files: { command: "npx", args: ["-y", "server-filesystem", "/data"] } } },
    ui: { seamColor: "#FF4500" },
    talk: { provider: "elevenlabs", silenceTimeoutMs: 900 },
    tts: { auto: "off" },
    acp: { enabled: true, defaultAgent: "codex" },
    approvals: { exec: { enabled: true, mode: "session" } },
    broadcast: { strategy: "parallel" },
  },
  channels: {
    channels: {
      whatsapp: {
        dmPolicy: "allowlist",
        allowFrom: ["+15555550123"],
        groups: { "*": { requireMention: true } },
      },
      signal: { enabled: true, account: "+15555550123" },
      imessage: { enabled: false, cliPath: "imsg" },
      googlechat: {
        enabled: true,
        serviceAccountFile: "/etc/gc.json",
        audienceType: "app-url",
        audience: "https://x.example",
      },
      msteams: { enabled: false, appId: "a", appPassword: "b", tenantId: "c" },
      irc: { host: "irc.libera.chat", nick: "claw", channels: ["#openclaw"] },
      telegram: {
        accounts: {
          one: { botToken: "1:abcdef", allowFrom: [123456789], dmPolicy: "allowlist" },
          two: {
            botToken: "2:abcdef",
            streaming: { mode: "partial" },
            groups: { "-1001": { enabled: true } },
          },
        },
        defaultAccount: "one",
      },
      modelByChannel: { telegram: { "-1001": "openai/gpt-5" } },
    },
    surfaces: { telegram: { silentReply: { group: "allow" } } },
    logging: { file: "/var/log/openclaw.log" },
  },
  remote: {
    gateway: {
      mode: "remote",
      remote: { url: "wss://gw.example.com", token: "t" },
      auth: { mode: "password", password: { source: "env", provider: "default", id: "GW_PASSWORD" } },
      tls: { enabled: true, autoGenerate: true },
      trustedProxies: ["10.0.0.1"],
      reload: { mode: "hybrid" },
      http: { endpoints: { chatCompletions: { enabled: true } } },
    },
    nodeHost: { browserProxy: { enabled: false } },
    diagnostics: { enabled: true, flags: ["telegram.*"] },
    security: {},
    attachments: {},
    accessGroups: { admins: { type: "message.senders", members: { telegram: ["1"] } } },
  },
};

const WRONG = [
  null,
  true,
  false,
  0,
  1,
  -1,
  1.5,
  1e9,
  "",
  " ",
  "auto",
  "x".repeat(40),
  [],
  {},
  [[]],
  [null],
  [{}],
  { a: { b: 1 } },
  ["a", ["b"]],
  // biome-ignore lint/suspicious/noTemplateCurlyInString: OpenClaw's own notation in a config
  "${UNSET}",
  "0",
  "true",
  "http://",
  "https://example.com",
  "12h",
  "*",
];

function isObject(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

/** Every place of a tree: its parent and the key under which it hangs there. */
function places(root) {
  const found = [];
  const visit = (parent) => {
    for (const key of Array.isArray(parent) ? parent.keys() : Object.keys(parent)) {
      found.push([parent, key]);
      if (parent[key] !== null && typeof parent[key] === "object") visit(parent[key]);
    }
  };
  visit(root);
  return found;
}

function resolve(schema, root) {
  let node = schema;
  for (let hops = 0; isObject(node) && node.$ref?.startsWith("#/") && hops < 8; hops += 1) {
    node = node.$ref
      .slice(2)
      .split("/")
      .reduce((at, key) => at?.[key], root);
  }
  return isObject(node) ? node : {};
}

/** A value that fits the schema in most cases, small and shallow. */
export function sample(schema, random, root = schema, depth = 0) {
  const base = isObject(schema.$defs) ? schema : root;
  const node = resolve(schema, base);
  if ("const" in node) return node.const;
  if (node.enum) return random.pick(node.enum);
  const branches = node.anyOf ?? node.oneOf;
  if (branches) return sample(random.pick(branches), random, base, depth);
  if (node.allOf) return sample(node.allOf[0], random, base, depth);
  switch (Array.isArray(node.type) ? random.pick(node.type) : node.type) {
    case "boolean":
      return random.chance(0.5);
    case "integer":
    case "number": {
      const low = node.minimum ?? (node.exclusiveMinimum === undefined ? 0 : node.exclusiveMinimum + 1);
      const high = Math.min(node.maximum ?? low + 100, low + 100_000);
      return random.chance(0.3) ? high : low + random.below(Math.max(1, Math.min(100, high - low + 1)));
    }
    case "string":
      if (node.format === "uri") return "https://example.com/x";
      if (node.format === "email") return "a@example.com";
      return random
        .pick(["main", "telegram", "alpha", "openai/gpt-5", "/srv/x", "30m", "ABC_KEY", "#ff8800"])
        .slice(0, node.maxLength ?? 99);
    case "array": {
      const count = Math.max(node.minItems ?? 0, random.below(3));
      const items = Array.isArray(node.items) ? node.items[0] : node.items;
      return Array.from({ length: count }, () =>
        isObject(items) ? sample(items, random, base, depth + 1) : "x",
      );
    }
    case "object": {
      const value = {};
      for (const [key, child] of Object.entries(node.properties ?? {})) {
        const wanted = node.required?.includes(key) || random.chance(depth > 1 ? 0.08 : 0.2);
        if (wanted && depth < 6) value[key] = sample(child, random, base, depth + 1);
      }
      if (isObject(node.additionalProperties) && Object.keys(value).length === 0 && depth < 4) {
        value[random.pick(["main", "alpha", "default"])] = sample(
          node.additionalProperties,
          random,
          base,
          depth + 1,
        );
      }
      return value;
    }
    default:
      return random.pick(["any", 1, true, {}]);
  }
}

/** Sets something that the schema names, somewhere along a random walk from the root. */
function setFromSchema(config, schema, random) {
  let at = config;
  let node = schema;
  let root = schema;
  for (let depth = 0; depth < 6; depth += 1) {
    if (isObject(node.$defs)) root = node;
    node = resolve(node, root);
    const names = Object.keys(node.properties ?? {}).filter((name) => name !== "$schema");
    if (names.length === 0 || !isObject(at)) return;
    const present = names.filter((name) => isObject(at[name]));
    const name = present.length > 0 && random.chance(0.6) ? random.pick(present) : random.pick(names);
    const child = node.properties[name];
    if (isObject(at[name]) && isObject(child.properties)) {
      at = at[name];
      node = child;
      continue;
    }
    at[name] = random.chance(0.75) ? sample(child, random, root, depth) : structuredClone(random.pick(WRONG));
    return;
  }
}

function mutate(config, schema, random) {
  const found = places(config);
  if (found.length === 0 || random.chance(0.35)) return setFromSchema(config, schema, random);
  const [parent, key] = random.pick(found);
  const value = parent[key];
  switch (random.below(6)) {
    case 0:
      parent[key] = structuredClone(random.pick(WRONG));
      break;
    case 1:
      if (Array.isArray(parent)) parent.splice(key, 1);
      else delete parent[key];
      break;
    case 2: {
      const owner = isObject(value) ? value : isObject(parent) ? parent : config;
      owner[random.pick(["bogus", "Enabled", "tokenn", "extra", "x-y"])] = structuredClone(
        random.pick(WRONG),
      );
      break;
    }
    case 3:
      if (typeof value === "number") parent[key] = random.pick([-1, 0, 0.5, value + 0.5, 1e12, -1e12, 70000]);
      else if (typeof value === "string")
        parent[key] = random.pick(["", "  ", `${value}x`, value.toUpperCase(), "x".repeat(300)]);
      else if (typeof value === "boolean") parent[key] = random.pick(["true", 1, null, !value]);
      else if (Array.isArray(value)) value.push(structuredClone(random.pick([...value, ...WRONG])));
      else parent[key] = [value];
      break;
    case 4:
      if (isObject(parent) && !Array.isArray(parent)) {
        parent[`${key}2`] = value;
        if (random.chance(0.5)) delete parent[key];
      } else parent[key] = [value];
      break;
    default:
      parent[key] = random.pick([null, [value], { value }, String(value)]);
  }
}

/** `count` configs, good and bad, from one seed: `[name, config]`, each beginning as one of `GOOD`. */
export function variations(schema, count, seed) {
  const random = seeded(seed);
  const names = Object.keys(GOOD);
  return Array.from({ length: count }, (_, index) => {
    const name = random.pick(names);
    const config = structuredClone(GOOD[name]);
    const changes = random.chance(0.7) ? 1 : 2 + random.below(3);
    for (let change = 0; change < changes; change += 1) mutate(config, schema, random);
    return [`${name} #${index}`, config];
  });
}
