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
    logging: { file: "/tmp/openclaw.log" },
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

const one = (entry, rest = {}) => ({ agents: { entries: { main: entry } }, ...rest });
const docker = (settings) => ({ agents: { defaults: { sandbox: { docker: settings } } } });
const mcp = (server) => ({ mcp: { servers: { files: server } } });
const custom = (provider) => ({ models: { providers: { mine: provider } } });
const model = { id: "m", name: "M" };

/** Configs about one rule each, most of them broken in one way; the rules are OpenClaw's beyond its schema. */
export const RULES = {
  "no object": [],
  "roster: empty list": { agents: { list: [] } },
  "roster: list": { agents: { ownership: "explicit", list: [{ id: "a" }, { id: "b", default: false }] } },
  "roster: list without ownership": { agents: { list: [{ id: "a" }, { id: "b" }] } },
  "roster: list with a default": { agents: { list: [{ id: "a", default: true }, { id: "b" }] } },
  "roster: list with two equal ids": { agents: { list: [{ id: "a" }, { id: "a" }] } },
  "roster: list with an odd id": { agents: { list: [{ id: "Not Good" }] } },
  "roster: list with an unknown key": { agents: { list: [{ id: "a", bogus: 1 }] } },
  "roster: explicit without agents": { agents: { ownership: "explicit" } },
  "roster: two defaults": { agents: { entries: { a: { default: true }, b: { default: true } } } },
  "roster: explicit with a default": {
    agents: { ownership: "explicit", entries: { a: { default: true }, b: {} } },
  },
  "roster: keys of one agent": { agents: { ownership: "explicit", entries: { A: {}, a: {} } } },
  "roster: odd key": { agents: { entries: { "not good": {} } } },
  "old budgets": {
    agents: { defaults: { contextTokens: 1 } },
    ...custom({ baseUrl: "http://x", contextWindow: 9, models: [model] }),
  },
  "old budget of the wrong type": custom({ baseUrl: "http://x", contextTokens: "many", models: [model] }),
  "copilot discovery": {
    plugins: { entries: { "github-copilot": { config: { discovery: { enabled: true } } } } },
  },
  "agent unknown to a heartbeat": one(
    {},
    { agents: { defaults: { heartbeat: { agentId: "x" } }, entries: { main: {} } } },
  ),
  "agent unknown to talk": one({}, { talk: { agentId: "x" } }),
  "agent unknown to a binding": one({}, { bindings: [{ agentId: "x", match: { channel: "slack" } }] }),
  "agent unknown to a broadcast": one(
    {},
    { broadcast: { "slack:C1": ["main", "x"], "telegram:1": { agents: ["x"] } } },
  ),
  "broadcast group without a channel": { broadcast: { C1: { agents: ["main"] } } },
  "broadcast to too many": { broadcast: { "slack:C1": Array.from({ length: 17 }, () => "main") } },
  "binding without a channel": { bindings: [{ agentId: "main", match: { accountId: "a" } }] },
  "binding with an unknown key": { bindings: [{ agentId: "main", match: { channel: "slack", bogus: 1 } }] },
  "binding to a program without a peer": {
    bindings: [{ type: "acp", agentId: "main", match: { channel: "slack" } }],
  },
  "binding to a program, broken": {
    bindings: [{ type: "acp", agentId: "main", match: { channel: "slack" }, acp: { mode: "x" } }],
  },
  "bindings in a channel": { channels: { telegram: { bindings: { acp: {} } } } },
  "decision model": { agents: { defaults: { decisionModel: "gpt" } } },
  "decision model, off": { agents: { defaults: { decisionModel: " " } } },
  "models by wildcard": {
    agents: { defaults: { models: { "openai/*": { codeMode: true }, gpt: { pickerRuntimes: ["codex"] } } } },
  },
  "heartbeat times": {
    agents: { defaults: { heartbeat: { every: "soon", activeHours: { start: "24:00", end: "24:01" } } } },
  },
  "heartbeat times, good": {
    agents: { defaults: { heartbeat: { every: "1h30m", activeHours: { start: "08:00", end: "24:00" } } } },
  },
  "heartbeat target": { agents: { defaults: { heartbeat: { target: "nowhere" } } } },
  "heartbeat target, alias": { agents: { defaults: { heartbeat: { target: " GChat " } } } },
  "heartbeat target, blank": { agents: { defaults: { heartbeat: { target: " " } } } },
  "sandbox: host network": docker({ network: "HOST" }),
  "sandbox: another's network": docker({ network: "container:x" }),
  "sandbox: another's network, wanted": docker({
    network: "container:x",
    dangerouslyAllowContainerNamespaceJoin: true,
  }),
  "sandbox: profiles": docker({ seccompProfile: "unconfined", apparmorProfile: " Unconfined " }),
  "sandbox: binds": docker({ binds: ["", "data:/data", "/srv:/srv:ro", "C:\\x:/x", "~/x:/x"] }),
  "sandbox: browser": { agents: { defaults: { sandbox: { browser: { network: "host", binds: ["x"] } } } } },
  "sandbox: browser in another's network": {
    agents: { defaults: { sandbox: { browser: { network: "container:x" } } } },
  },
  "sandbox: variables": docker({ env: { "NOT-GOOD": "1", GOOD: "1", LINES: "a\nb" } }),
  "sandbox: variables of an agent": one({ sandbox: { docker: { env: { "1A": "x" } } } }),
  "sandbox: variables over ssh": one({ sandbox: { backend: "ssh", docker: { env: { "1A": "x" } } } }),
  "sandbox: variables, shared": one({ sandbox: { scope: "shared", docker: { env: { "1A": "x" } } } }),
  "tools: allow and alsoAllow": { tools: { allow: ["a"], alsoAllow: ["b"] } },
  "tools: allow and alsoAllow below": one({
    tools: { sandbox: { tools: { allow: ["a"], alsoAllow: ["b"] } } },
  }),
  "tools: mode and security": { tools: { exec: { mode: "ask", security: "deny" } } },
  "tools: old web search": { tools: { web: { search: { apiKey: "x", brave: {}, other: 1 } } } },
  "tools: blank web search": { tools: { web: { search: { provider: " " } } } },
  "tools: unknown web search": { tools: { web: { search: { provider: "nobody" } } } },
  "browser profiles": {
    browser: {
      profiles: {
        a: {},
        b: { driver: "extension", cdpUrl: "http://x" },
        c: { cdpPort: 1, userDataDir: "/x" },
        "B!": { cdpPort: 1 },
      },
    },
  },
  "worker profiles": {
    cloudWorkers: {
      profiles: {
        " a": { provider: "p" },
        b: { provider: " ", suspendAfter: "30s" },
        c: { provider: "p", suspendAfter: "2h" },
      },
    },
  },
  "worker projects": {
    cloudWorkers: { projectProfiles: { "github.com/a/b": "x", "github.com/a": "x", "GitHub.com/a/b": "x" } },
  },
  "cron retention": { cron: { sessionRetention: "long" } },
  "cron retention, off": { cron: { sessionRetention: false } },
  "session upkeep": {
    session: {
      maintenance: {
        pruneAfter: 0,
        preserveRecent: "x",
        archiveDashboardAfter: 0,
        maxDiskBytes: "1xb",
        highWaterBytes: -1,
      },
    },
  },
  "session upkeep, good": {
    session: {
      maintenance: { pruneAfter: 30, preserveRecent: "7d", maxDiskBytes: "1.5gb", highWaterBytes: 5 },
    },
  },
  "transcript sizes": {
    agents: {
      defaults: {
        compaction: { maxActiveTranscriptBytes: "20mb", memoryFlush: { forceFlushTranscriptBytes: "lots" } },
      },
    },
  },
  "desktop password": { desktop: { host: { enabled: true, passwordFile: "x" } } },
  worktrees: { worktreeRoot: "trees" },
  "worktrees, blank": { worktreeRoot: "  " },
  "worktrees, at home": { worktreeRoot: "~/trees" },
  "portal on the gateway's port": {
    gateway: { port: 9000, portals: { ingress: { domain: "p.example", port: 9000 } } },
  },
  "portal on the gateway's domain": {
    gateway: {
      publicOrigin: "https://x.p.example",
      portals: { ingress: { domain: "p.example", port: 9001 } },
    },
  },
  "portal on an address": { gateway: { portals: { ingress: { domain: "10.0.0.1", port: 9001 } } } },
  "origin with a path": { gateway: { publicOrigin: "https://x.example/y" } },
  "origin over http": { gateway: { publicOrigin: "http://x.example" } },
  "origin at home": { gateway: { publicOrigin: "http://[::1]:8080" } },
  "edge headers": { gateway: { remote: { edgeAuth: { "x-a": "1", "X-A": "2" } } } },
  "edge headers of the transport": { gateway: { remote: { edgeAuth: { Host: "x" } } } },
  "edge headers, none": { gateway: { remote: { edgeAuth: {} } } },
  "edge headers, misnamed": { gateway: { remote: { edgeAuth: { "a b": "x" } } } },
  "roles without the default": {
    gateway: {
      roles: { default: "x", definitions: { y: { sessions: { others: "none" }, agents: "*", scopes: [] } } },
    },
  },
  "roles with odd agents": {
    gateway: {
      roles: {
        default: "y",
        definitions: { y: { sessions: { others: "none" }, agents: ["a!"], scopes: [] } },
      },
    },
  },
  "roles, none": { gateway: { roles: { default: "x", definitions: {} } } },
  "tls paths": { gateway: { tls: { certPath: " ", keyPath: "" } } },
  "tailscale on all interfaces": {
    gateway: { bind: "lan", tailscale: { mode: "serve" }, auth: { mode: "none" } },
  },
  "tailscale without auth": { gateway: { tailscale: { mode: "funnel" }, auth: { mode: "none" } } },
  "tailscale on a loopback of one's own": {
    gateway: { bind: "custom", customBindHost: "127.0.0.2", tailscale: { mode: "serve" } },
  },
  "hook without a key": {
    hooks: { mappings: [{ sessionMode: "persistent" }, { action: "wake", sessionMode: "persistent" }] },
  },
  "hook modules": {
    hooks: {
      mappings: [
        { transform: { module: "../x.js" } },
        { transform: { module: "/x.js" } },
        { transform: { module: "./a/x.js" } },
      ],
    },
  },
  "hook token as a reference": { hooks: { token: { source: "env", provider: "default", id: "X" } } },
  "mcp: stdio without a command": mcp({ transport: "stdio" }),
  "mcp: old keys": mcp({ command: "x", timeout: 5, disabled: true }),
  "mcp: not http": mcp({ url: "ftp://x.example" }),
  "mcp: no url": mcp({ url: "nothing" }),
  "mcp: per requester": mcp({
    url: "https://x.example",
    oauth: { identity: "per-requester", authProfileId: "a" },
  }),
  "mcp: metadata": mcp({
    url: "https://x.example",
    auth: "oauth",
    oauth: { clientMetadataUrl: "https://x.example/" },
  }),
  "mcp: blanks": mcp({ command: "x", toolFilter: { include: [" "] } }),
  "mcp: origin": { mcp: { apps: { sandboxOrigin: "https://x.example/y" } } },
  "mcp: names on a node": { nodeHost: { mcp: { servers: { " a": { command: "x" } } } } },
  "catalog over http": { models: { catalogRefresh: { url: "http://x.example" } } },
  "catalog at home": { models: { catalogRefresh: { url: "http://localhost:1/x" } } },
  "provider without a url": custom({ models: [model] }),
  "provider without models": custom({ baseUrl: "http://x" }),
  "provider that is known": { models: { providers: { OpenAI: {} } } },
  "secret hosts": {
    secrets: {
      egressProxy: { allowedHosts: ["a.example", "*.example", "a.example:1", "[::1]", "-a.example"] },
    },
  },
  "secret command": { secrets: { providers: { x: { source: "exec", command: "cat" } } } },
  "secret command for a shell": { secrets: { providers: { x: { source: "exec", command: "/bin/cat;ls" } } } },
  "secret references": {
    gateway: {
      auth: {
        token: { source: "file", provider: "x", id: "a" },
        password: { source: "exec", provider: "x", id: "../a" },
      },
    },
  },
  "secret reference of no kind": {
    gateway: { auth: { token: { source: "magic", provider: "x", id: "a" } } },
  },
  "secret reference to another kind": {
    secrets: { providers: { x: { source: "file", path: "/x" } } },
    gateway: { auth: { token: { source: "env", provider: "x", id: "A" } } },
  },
  "talk provider": { talk: { provider: "x", providers: { y: {} } } },
  "talk providers, none chosen": {
    talk: { providers: { x: {}, y: {} }, realtime: { providers: { x: {}, y: {} } } },
  },
  "access group of no kind": { accessGroups: { a: { type: "x" }, b: {}, c: { type: "message.senders" } } },
  "agent folders": {
    agents: { ownership: "explicit", entries: { a: { agentDir: "/srv/x" }, b: { agentDir: "/srv/x/" } } },
  },
  "avatar outside": one({ identity: { avatar: "../x.png" } }),
  "avatar at home": one({ identity: { avatar: "~/x.png" } }),
  "avatar by another scheme": one({ identity: { avatar: "ftp://x/y.png" } }),
  "avatar, good": one({ identity: { avatar: "a/../x.png" } }),
  "model policies": {
    agents: {
      defaults: {
        models: { "a/b": { alias: "Mine" } },
        modelPolicy: { allow: ["mine", "a/b", "a/*", "nope", "a/b*"] },
      },
    },
  },
  "channel that is unknown": { channels: { nowhere: {} } },
  "channel of a named plugin": { channels: { nowhere: {} }, plugins: { allow: ["nowhere"] } },
  "channel for tests": { channels: { "qa-channel": {} } },
  "channel that is null": { channels: { telegram: null } },
  "channel defaults, misspelled": { channels: { defaults: { grouppolicy: "open" } } },
  "channel and core": { channels: { telegram: { bogus: 1 } }, gateway: { bogus: 1 } },
  "channel with an unknown key and a wrong type": {
    channels: { discord: { bogus: 1, token: 5, accounts: { a: { dmPolicy: "x" } } } },
  },
  "webhook reference in a channel": {
    channels: {
      discord: { threadBindings: { webhookToken: { source: "env", provider: "default", id: "X" } } },
    },
  },
  "plugin config": {
    plugins: { entries: { webhooks: { config: { routes: { a: { path: "x", secret: 5 } }, bogus: 1 } } } },
  },
  "plugin without a config": {
    plugins: { entries: { webhooks: { enabled: true }, imap: { enabled: true } } },
  },
  "plugin that is unknown": {
    plugins: { entries: { nowhere: { enabled: true, config: { x: 1 } } }, allow: ["nobody"] },
  },
  "plugin entry, misspelled": { plugins: { entries: { webhooks: { enable: true } } } },
  "plugin path that is not there": { plugins: { load: { paths: ["/nowhere/at/all"] } } },
  "memory plugin that is unknown": { plugins: { slots: { memory: "nobody" } } },
  "memory plugin, none": { plugins: { slots: { memory: "None" } } },
  "memory plugin to install": { plugins: { slots: { memory: "memory-lancedb" } } },
};
