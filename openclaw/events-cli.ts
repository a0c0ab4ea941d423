// `openclaw core events …` and `openclaw-core events …`: how a person reads the event store. A running gateway, which
// has the store open, is asked first; without one the store itself is read.
import { existsSync } from "node:fs";
import { realpath, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { loadAddon } from "./addon.js";
import {
  clean,
  count,
  type Output,
  Progress,
  painter,
  plural,
  printTable,
  roomOf,
  shorten,
  summary,
  time,
} from "./events/print.js";
import { type Call, type EventSource, GatewaySource, gatewayError, StoreSource } from "./events/source.js";
import {
  codeOf,
  type EventsConfig,
  messageOf,
  openStore,
  type Projection,
  type Range,
  type StoredEvent,
  storePath,
} from "./events/store.js";
import { stateDir } from "./install.js";
import type { Paint } from "./status.js";

/** What of OpenClaw's plugin SDK calls a running gateway. */
export interface GatewayRuntime {
  callGatewayFromCli(
    method: string,
    options: { url?: string; token?: string; timeout: string; json: boolean },
    params: unknown,
    extra: { progress: boolean; scopes: string[]; signal?: AbortSignal },
  ): Promise<Record<string, unknown>>;
}

/** Where the command runs. */
export interface Terminal {
  /** How the command is called, for messages: `openclaw core events`. */
  program: string;
  env: Readonly<Record<string, string | undefined>>;
  stdout: Output;
  stderr: Output;
  /** The client of OpenClaw, of the one at a path if that is given; or an error that says why there is none. */
  gateway(openclaw?: string): Promise<GatewayRuntime>;
  /** Aborted by Ctrl-C. */
  signal: AbortSignal;
}
const HELP = (program: string) => `${program}: the events of the agents

usage: ${program} <command> [options]

commands
  list               sessions, the most recent first
  show SESSION       events of a session: its key, or a part that only one key has
  tail [SESSION]     the latest events, and each new one as it comes
  verify             reads everything and checks every hash; exit code 1 if something is wrong
  export SESSION     the session as an OpenClaw transcript (JSONL)
  import [FOLDER]    takes in the sessions of an OpenClaw state folder (default: the one in use)
  status             what is mirrored, what was lost, how large the store is

options
  --json             machine-readable: one object; for tail, one event a line
  --store PATH       the store (default: as the config says, or core/events in the state folder)
  --offline          do not ask a running gateway
  --url, --token     the gateway to ask, as for \`openclaw gateway call\`
  --openclaw PATH    the OpenClaw whose client asks it (default: of this project, on PATH, or global)
  --limit N|all      list: sessions, default 50; show: events, default 100; tail: earlier events, default 10
  --agent ID, --prefix TEXT, --order recent|key            list
  --after SEQ, --before SEQ, --reverse, --kind KIND …      show
  --rebuild          verify: make the projections anew from the log
  --out FILE         export: to a file that is not there yet
  --dry-run          import: say what would be taken in
`;
const COMMANDS = ["list", "show", "tail", "verify", "export", "import", "status"] as const;
type Command = (typeof COMMANDS)[number];

/** Something in the arguments; exit code 2. */
class UsageError extends Error {}
/** Something that is not as the command needs it; exit code 1. */
class Failure extends Error {}

interface Options {
  json: boolean;
  offline: boolean;
  store?: string;
  url?: string;
  token?: string;
  openclaw?: string;
  limit?: string;
  agent?: string;
  prefix?: string;
  order?: string;
  after?: string;
  before?: string;
  reverse: boolean;
  kind?: string[];
  rebuild: boolean;
  out?: string;
  "dry-run": boolean;
}

interface Run {
  terminal: Terminal;
  options: Options;
  source: EventSource;
  /** Why the gateway was not asked, if it was not. */
  note?: string;
  paint: Paint;
}

/** Runs one command; gives the exit code. */
export async function runEvents(args: string[], terminal: Terminal): Promise<number> {
  let source: EventSource | undefined;
  try {
    const { command, rest, options } = parse(args);
    if (!command) {
      terminal.stdout.write(HELP(terminal.program));
      return 0;
    }
    const opened = await openSource(command, options, terminal);
    source = opened.source;
    return await RUN[command](
      { terminal, options, ...opened, paint: painter(terminal.stdout, terminal.env) },
      rest,
    );
  } catch (error) {
    if (terminal.signal.aborted) return 130;
    const prefix = `${terminal.program}: `;
    if (error instanceof UsageError) {
      terminal.stderr.write(`${prefix}${error.message}\nTry: ${terminal.program} --help\n`);
      return 2;
    }
    const code = codeOf(error);
    terminal.stderr.write(
      `${prefix}${code && !(error instanceof Failure) ? `${code}: ` : ""}${messageOf(error)}\n`,
    );
    return 1;
  } finally {
    await source?.close().catch(() => {});
  }
}

const RUN: Record<Command, (run: Run, rest: string[]) => Promise<number>> = {
  async list({ terminal, options, source, note, paint }, rest) {
    noMore(rest);
    const order = options.order ?? "recent";
    if (order !== "recent" && order !== "key") throw new UsageError("--order is recent or key");
    const limit = limitOf(options.limit, 50);
    const sessions = await source.sessions({
      order,
      ...(limit !== undefined && { limit }),
      ...(options.agent !== undefined && { agentId: options.agent }),
      ...(options.prefix !== undefined && { prefix: options.prefix }),
    });
    if (options.json) return printJson(terminal, { ...origin(source, note), sessions });
    const rows = sessions.map((session) => [
      clean(session.sessionKey),
      clean(session.agentId),
      count(session.events),
      count(session.messages),
      count(session.toolCalls),
      count(tokensOf(session)),
      `${time(session.lastMs)}${session.ended ? " ended" : ""}`,
      clean(session.lastMessage ?? ""),
    ]);
    const heads = ["SESSION", "AGENT", "EVENTS", "MESSAGES", "TOOLS", "TOKENS", "LAST", "LAST MESSAGE"];
    printTable(terminal.stdout, paint, heads, rows, new Set([2, 3, 4, 5]));
    const more =
      limit !== undefined && sessions.length === limit ? `, no more than ${limit} shown (--limit)` : "";
    terminal.stdout.write(
      paint("quiet", `${plural(sessions.length, "session")}${more}; ${footer(source, note)}`),
    );
    terminal.stdout.write("\n");
    return 0;
  },

  async show({ terminal, options, source, note, paint }, rest) {
    const session = await findSession(source, rest, terminal);
    const limit = limitOf(options.limit, 100);
    const after = numberOf("after", options.after);
    const before = numberOf("before", options.before);
    // Without a place to begin at, the latest are what one wants to see.
    const backwards = options.reverse || after === undefined;
    const range: Range = {
      ...(after !== undefined && { after }),
      ...(before !== undefined && { before }),
      ...(limit !== undefined && { limit }),
      ...(options.kind && { kinds: options.kind }),
      ...(backwards && { reverse: true }),
    };
    const events: StoredEvent[] = [];
    for await (const event of source.read(session.sessionKey, range)) events.push(event);
    if (backwards && !options.reverse) events.reverse();
    if (options.json) return printJson(terminal, { ...origin(source, note), session, events });
    terminal.stdout.write(
      `${paint("note", clean(session.sessionKey))}  ${[
        plural(session.events, "event"),
        plural(session.messages, "message"),
        plural(session.toolCalls, "tool call"),
        ...(tokensOf(session) === undefined ? [] : [`${count(tokensOf(session))} tokens`]),
        `${time(session.firstMs)} to ${time(session.lastMs)}${session.ended ? ", ended" : ""}`,
      ].join(", ")}\n\n`,
    );
    const rows = events.map((event) => [
      count(event.seq),
      time(event.timestampMs),
      clean(event.kind),
      summary(event),
    ]);
    printTable(terminal.stdout, paint, ["SEQ", "TIME", "KIND", "WHAT"], rows, new Set([0]));
    const hidden = session.events - events.length;
    const more = hidden > 0 ? `, ${count(hidden)} not shown (--limit, --before, --after, --kind)` : "";
    terminal.stdout.write(
      `${paint("quiet", `${plural(events.length, "event")}${more}; ${footer(source, note)}`)}\n`,
    );
    return 0;
  },

  async tail({ terminal, options, source, note, paint }, rest) {
    const session = rest.length > 0 ? await findSession(source, rest, terminal) : undefined;
    const last = limitOf(options.limit, 10) ?? Number.MAX_SAFE_INTEGER;
    terminal.stderr.write(`${footer(source, note)}\n`);
    const print = (event: StoredEvent) => {
      if (options.json) {
        terminal.stdout.write(`${JSON.stringify(event)}\n`);
        return;
      }
      const parts: [Parameters<Paint>[0], string][] = [
        ["quiet", time(event.timestampMs)],
        ...(session ? [] : ([["note", clean(event.sessionKey)]] as [Parameters<Paint>[0], string][])),
        ["good", clean(event.kind)],
      ];
      const used = parts.reduce((sum, [, text]) => sum + text.length + 2, 0);
      const line = [
        ...parts.map(([tone, text]) => paint(tone, text)),
        shorten(summary(event), Math.max(roomOf(terminal.stdout) - used, 10)),
      ];
      terminal.stdout.write(`${line.join("  ")}\n`);
    };
    const { signal } = terminal;
    if (source instanceof StoreSource && source.kind === "snapshot") {
      for (const event of await source.latest(session?.sessionKey, last)) print(event);
      terminal.stderr.write(
        "nothing more will come: no gateway answers here, and this is a copy of the store\n",
      );
      return 1;
    }
    const of = session ? { sessionKey: session.sessionKey } : {};
    for await (const event of source.tail({ ...of, last, signal })) print(event);
    return signal.aborted ? 130 : 0;
  },

  async verify({ terminal, options, source, note, paint }, rest) {
    noMore(rest);
    const progress = new Progress(terminal.stderr, terminal.env);
    progress.show(options.rebuild ? "reading and rebuilding …" : "reading …");
    const { signal } = terminal;
    const found = await source.verify({ rebuild: options.rebuild, signal }).finally(() => progress.end());
    if (options.json) printJson(terminal, { ...origin(source, note), ...found });
    else {
      for (const { sessionKey, seq, problem } of found.problems) {
        terminal.stdout.write(`${paint("bad", "FAIL")} ${clean(sessionKey)} ${seq}: ${clean(problem)}\n`);
      }
      const read = `${plural(found.events, "event")} in ${plural(found.sessions, "session")}`;
      terminal.stdout.write(
        found.ok
          ? `${paint("good", "ok")} ${read}: every hash is right\n`
          : `${paint("bad", "damaged")} ${read}: ${plural(found.problems.length, "problem")}\n`,
      );
      terminal.stdout.write(`${paint("quiet", footer(source, note))}\n`);
    }
    return found.ok ? 0 : 1;
  },

  async export({ terminal, options, source, note }, rest) {
    const session = await findSession(source, rest, terminal);
    const transcript = await source.export(session.sessionKey);
    if (options.out === undefined) {
      // The transcript is JSON lines already.
      terminal.stdout.write(transcript);
      return 0;
    }
    const file = resolve(options.out);
    await writeFile(file, transcript, { flag: "wx", mode: 0o600 }).catch((error) => {
      throw codeOf(error) === "EEXIST"
        ? new Failure(`${file} exists already; name a file that does not`)
        : error;
    });
    const lines = transcript.split("\n").filter(Boolean).length;
    if (options.json) return printJson(terminal, { ...origin(source, note), file, lines });
    terminal.stdout.write(`${plural(lines, "line")} written to ${file}\n`);
    return 0;
  },

  async import({ terminal, options, source, note, paint }, rest) {
    const [given, ...more] = rest;
    noMore(more);
    const folder = resolve(given ?? stateDir(terminal.env));
    if (!existsSync(folder)) throw new Failure(`there is no folder ${folder}`);
    const progress = new Progress(terminal.stderr, terminal.env);
    const report = await source
      .import(folder, {
        dryRun: options["dry-run"],
        signal: terminal.signal,
        onProgress: ({ done, total }) =>
          progress.show(
            `${Math.floor((100 * done) / Math.max(total, 1))} % of ${(total / 1e6).toFixed(1)} MB …`,
          ),
      })
      .finally(() => progress.end());
    if (options.json)
      return printJson(terminal, { ...origin(source, note), dryRun: options["dry-run"], ...report });
    for (const { file, line, reason } of report.skipped) {
      terminal.stdout.write(`${paint("bad", "skipped")} ${clean(file)}:${line}: ${clean(reason)}\n`);
    }
    terminal.stdout.write(
      `${options["dry-run"] ? "would take in" : "took in"} ${plural(report.events, "event")} of ` +
        `${plural(report.sessions, "session")}; ${count(report.alreadyPresent)} were there already, ` +
        `${plural(report.skipped.length, "line")} skipped\n`,
    );
    terminal.stdout.write(`${paint("quiet", footer(source, note))}\n`);
    return 0;
  },

  async status({ terminal, options, source, note, paint }, rest) {
    noMore(rest);
    const { stats, mirror } = await source.status();
    if (options.json)
      return printJson(terminal, { ...origin(source, note), stats, ...(mirror && { mirror }) });
    const lines: [string, string][] = [
      ["store", source.path],
      ["sessions", count(stats.sessions)],
      ["events", count(stats.events)],
      ["on disk", `${(stats.diskBytes / 1e6).toFixed(1)} MB`],
    ];
    if (mirror) {
      lines.push(
        ["mirror", mirror.state === "mirroring" ? paint("good", mirror.state) : paint("bad", mirror.state)],
        ...(mirror.problem === undefined ? [] : ([["problem", clean(mirror.problem)]] as [string, string][])),
        ["stored since start", count(mirror.appended)],
        ["lost since start", count(mirror.lost)],
        ["refused since start", count(mirror.refused)],
        [
          "waiting",
          `${plural(mirror.queue.events, "event")}, ${plural(mirror.pendingTranscripts, "transcript")}`,
        ],
      );
    }
    for (const [name, value] of lines) terminal.stdout.write(`${name.padEnd(20)} ${value}\n`);
    terminal.stdout.write(`${paint("quiet", footer(source, note))}\n`);
    return 0;
  },
};

function parse(args: string[]): { command: Command | undefined; rest: string[]; options: Options } {
  try {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        json: { type: "boolean", default: false },
        offline: { type: "boolean", default: false },
        store: { type: "string" },
        url: { type: "string" },
        token: { type: "string" },
        openclaw: { type: "string" },
        limit: { type: "string" },
        agent: { type: "string" },
        prefix: { type: "string" },
        order: { type: "string" },
        after: { type: "string" },
        before: { type: "string" },
        reverse: { type: "boolean", default: false },
        kind: { type: "string", multiple: true },
        rebuild: { type: "boolean", default: false },
        out: { type: "string" },
        "dry-run": { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
      },
    });
    const [name, ...rest] = positionals;
    const { help, ...options } = values;
    if (help || name === "help") return { command: undefined, rest, options: options as Options };
    const command = COMMANDS.find((known) => known === name);
    if (!command) {
      const known = `${COMMANDS.slice(0, -1).join(", ")} or ${COMMANDS.at(-1)}`;
      throw new UsageError(
        name === undefined
          ? `a command is needed: ${known}`
          : `unknown command ${JSON.stringify(name)}: it is ${known}`,
      );
    }
    return { command, rest, options: options as Options };
  } catch (error) {
    if (codeOf(error)?.startsWith("ERR_PARSE_ARGS")) throw new UsageError(messageOf(error));
    throw error;
  }
}

/** The running gateway's store, or the one on disk. */
async function openSource(
  command: Command,
  options: Options,
  terminal: Terminal,
): Promise<{ source: EventSource; note?: string }> {
  const path = resolve(options.store ?? storePath(stateDir(terminal.env), readConfig(terminal.env)));
  let note: string | undefined;
  if (!options.offline) {
    try {
      const gateway = await askGateway(options, terminal);
      if (options.store === undefined || (await samePath(gateway.path, path))) return { source: gateway };
      note = `the gateway has another store, ${gateway.path}`;
    } catch (error) {
      if (options.url !== undefined) throw new Failure(`the gateway at ${options.url}: ${messageOf(error)}`);
      note = reason(error);
    }
  }
  const writes = command === "import" || options.rebuild;
  if (!existsSync(path) && command !== "import") {
    throw new Failure(
      `there is no event store at ${path}${note ? ` (${note})` : ""}. A gateway with the plugin makes one, and so does ` +
        `\`${terminal.program} import\``,
    );
  }
  const store = await openStore(path, writes ? {} : { readOnly: true });
  return {
    source: new StoreSource(writes ? "store" : "snapshot", path, store),
    ...(note !== undefined && { note }),
  };
}

async function askGateway(options: Options, terminal: Terminal): Promise<GatewaySource> {
  const runtime = await terminal.gateway(options.openclaw);
  const call: Call = async (method, params, { scope, signal = terminal.signal }) => {
    try {
      return await runtime.callGatewayFromCli(
        method,
        {
          ...(options.url !== undefined && { url: options.url }),
          ...(options.token !== undefined && { token: options.token }),
          timeout: "30000",
          json: true,
        },
        params,
        { progress: false, scopes: [scope], signal },
      );
    } catch (error) {
      throw gatewayError(error);
    }
  };
  const { store, stats, mirror } = await call("core.events.status", {}, { scope: "operator.read" });
  if (typeof store !== "string") throw new Error("it has no event store");
  if (!stats)
    throw new Error(`its event store is not open: ${(mirror as { problem?: string })?.problem ?? "not yet"}`);
  return new GatewaySource(store, call);
}

/** Why no gateway answered, in a few words. */
function reason(error: unknown): string {
  const text = messageOf(error).split("\n")[0] ?? "";
  // OpenClaw takes a method that it does not know for one of an administrator's.
  if (/unknown method|missing scope: operator\.admin/i.test(text))
    return "the gateway runs without this plugin, or with its module events off";
  if (/ECONNREFUSED|closed before|not running|1006/i.test(text)) return "no gateway is running";
  return `no gateway answers: ${clean(text)}`;
}

function readConfig(env: Terminal["env"]): EventsConfig {
  const loaded = loadAddon();
  if ("error" in loaded) throw loaded.error;
  try {
    const given = Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined);
    const config = loaded.addon.Config.loadSync({ env: Object.fromEntries(given) });
    return (config.get("plugins.entries.core.config.events") ?? {}) as EventsConfig;
  } catch {
    // Without a config, or with one that cannot be read, the store is where it is by default.
    return {};
  }
}

async function samePath(a: string, b: string): Promise<boolean> {
  const real = (path: string) => realpath(path).catch(() => path);
  return (await real(a)) === (await real(b));
}

/** The session that is meant: by its key, or by a part that only one key has. */
async function findSession(source: EventSource, rest: string[], terminal: Terminal): Promise<Projection> {
  const [name, ...more] = rest;
  if (name === undefined) throw new UsageError("which session? Name its key, or a part of it");
  noMore(more);
  const exact = await source.session(name);
  if (exact) return exact;
  const keys: Projection[] = [];
  for (const session of await source.sessions({ order: "recent", limit: 10_000 })) {
    if (session.sessionKey.includes(name)) keys.push(session);
  }
  const [only, ...others] = keys;
  if (!only)
    throw new Failure(`there is no session ${JSON.stringify(name)}; \`${terminal.program} list\` shows them`);
  if (others.length > 0) {
    const some = keys.slice(0, 5).map(({ sessionKey }) => clean(sessionKey));
    throw new Failure(
      `${JSON.stringify(name)} is part of ${keys.length} session keys, such as ${some.join(", ")}`,
    );
  }
  return only;
}

function origin(source: EventSource, note: string | undefined): Record<string, string> {
  return { source: source.kind, store: source.path, ...(note !== undefined && { note }) };
}

function footer(source: EventSource, note: string | undefined): string {
  const from = {
    gateway: "from the running gateway",
    snapshot: "from a copy of the store as it was just now",
    store: "from the store",
  }[source.kind];
  return `${from}, ${source.path}${note === undefined ? "" : ` (${note})`}`;
}

function printJson(terminal: Terminal, value: unknown): number {
  terminal.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
  return 0;
}

function noMore(rest: string[]): void {
  if (rest.length > 0) throw new UsageError(`unexpected argument ${JSON.stringify(rest[0])}`);
}

function limitOf(given: string | undefined, byDefault: number): number | undefined {
  if (given === "all") return undefined;
  return numberOf("limit", given) ?? byDefault;
}

function numberOf(name: string, given: string | undefined): number | undefined {
  if (given === undefined) return undefined;
  const value = Number(given);
  if (!/^\d+$/.test(given) || !Number.isSafeInteger(value)) {
    throw new UsageError(`--${name} is a whole number, not ${JSON.stringify(given)}`);
  }
  return value;
}

function tokensOf({ usage }: Projection): number | undefined {
  if (usage?.totalTokens !== undefined) return usage.totalTokens;
  const { input, output } = usage ?? {};
  return input === undefined && output === undefined ? undefined : (input ?? 0) + (output ?? 0);
}

/** The process's own terminal, for `runEvents`. Ctrl-C ends the command in order. */
export function ownTerminal(program: string, gateway: Terminal["gateway"]): Terminal {
  const interrupted = new AbortController();
  process.once("SIGINT", () => interrupted.abort());
  // `… | head` has seen enough.
  process.stdout.on("error", (error) => {
    if (codeOf(error) === "EPIPE") process.exit(0);
    throw error;
  });
  return {
    program,
    env: process.env,
    stdout: process.stdout,
    stderr: process.stderr,
    gateway,
    signal: interrupted.signal,
  };
}

/** The client of an OpenClaw that is installed at `root`, for a process that is not OpenClaw's own. */
export async function gatewayOf(root: string): Promise<GatewayRuntime> {
  return (await import(
    pathToFileURL(join(root, "dist/plugin-sdk/gateway-runtime.js")).href
  )) as GatewayRuntime;
}
