// Agent turns of stock OpenClaw against the loopback model APIs, and the transcripts that they leave.
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";

export const cost = { input: 3, output: 15, cacheRead: 0.3, cacheWrite: 3.75 };

/** A provider of OpenClaw's config that speaks `api`, with the models of these names. */
export function modelProvider(server, api, plan, models) {
  return {
    baseUrl: server.url(api, plan),
    apiKey: server.apiKey,
    api,
    models: models.map((id) => ({
      id,
      name: id,
      reasoning: true,
      input: ["text", "image"],
      cost,
      contextWindow: 128_000,
      maxTokens: 4096,
    })),
  };
}

/** A config whose agent asks `primary`, and then `fallbacks`. */
export function turnConfig(home, { primary, fallbacks = [], providers, plugins }) {
  return {
    gateway: {
      mode: "local",
      bind: "loopback",
      port: home.port,
      auth: { mode: "token", token: home.token },
    },
    agents: {
      defaults: {
        model: { primary, fallbacks },
        workspace: home.workspace,
        skipBootstrap: true,
        thinkingDefault: "low",
      },
    },
    models: { providers },
    ...(plugins && { plugins }),
  };
}

/** The messages of an agent's transcripts, oldest first, with what differs from run to run made equal. */
export function transcript(home, agent = "main") {
  const file = join(home.stateDir, "agents", agent, "agent/openclaw-agent.sqlite");
  const copy = mkdtempSync(join(tmpdir(), "openclaw-core-transcript-"));
  try {
    for (const end of ["", "-wal"])
      if (existsSync(file + end)) copyFileSync(file + end, join(copy, `db${end}`));
    const database = new DatabaseSync(join(copy, "db"));
    const rows = database.prepare("SELECT event_json AS json FROM transcript_events ORDER BY rowid").all();
    database.close();
    const events = rows.filter(({ json }) => json !== null).map(({ json }) => JSON.parse(json));
    return events.filter(({ type }) => type === "message").map(({ message }) => level(message, home));
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}

/** A message without what differs from run to run. */
export function level(message, home) {
  const text = JSON.stringify(message, (key, value) =>
    // The hashes are of the server's address, which has the plan in it, and of the session's id.
    /^(timestamp|idempotencyKey|senderIsOwner|runId|durationMs|baseUrlHash|sessionHash)$/.test(key)
      ? undefined
      : value,
  );
  return JSON.parse(
    text
      .replaceAll(home.dir, "<home>")
      .replace(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, "<uuid>")
      // What OpenClaw makes up for a block or a call that has no id of its own.
      .replace(/(commentary|final-answer)-(\d+)-[0-9a-f]{24}/g, "$1-$2-<id>")
      .replace(/\b(\w+)_\d{13}_\d+/g, "$1_<id>")
      .replace(/\bcall_[0-9a-f]{24}\b/g, "call_<id>")
      .replace(/sha256:[0-9a-f]{12}/g, "<hash>")
      .replace(/127\.0\.0\.1:\d+/g, "<server>")
      .replace(/\d{4}-\d\d-\d\d[T ][\d:.]+(?:Z|[+-]\d\d:\d\d)?/g, "<time>"),
  );
}

/** The counts of a module, of every process that wrote some. */
export function moduleStats(folder, name) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((file) => file.endsWith(".json") && !file.startsWith("."))
    .map((file) => JSON.parse(readFileSync(join(folder, file), "utf8")).modules[name]);
}

/** The sums of one function's counts. */
export function counted(modules, name) {
  const sums = { calls: 0, native: 0, original: 0, bytes: 0 };
  for (const { functions } of modules)
    for (const key of Object.keys(sums)) sums[key] += functions[name]?.[key] ?? 0;
  return sums;
}
