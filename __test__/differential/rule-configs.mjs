/** Configs about one rule of OpenClaw each, to hold validators against each other. */

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
