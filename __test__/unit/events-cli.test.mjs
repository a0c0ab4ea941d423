// `openclaw-core events` over a store of its own: what it prints, what it exits with.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { runEvents } from "../../dist/events-cli.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const { EventStore } = createRequire(import.meta.url)("../../index.js");
const cli = join(root, "dist/cli.js");
const DAY = 24 * 3_600_000;

let folder;
let store;

/** The command in a process of its own. */
function run(...args) {
  const env = { ...process.env, OPENCLAW_STATE_DIR: join(folder, "state"), NO_COLOR: undefined };
  delete env.NO_COLOR;
  const result = spawnSync(process.execPath, [cli, "events", ...args], {
    encoding: "utf8",
    env,
    cwd: folder,
    timeout: 60_000,
  });
  return { code: result.status, stdout: result.stdout, stderr: result.stderr };
}
const offline = (...args) => run(...args, "--offline", "--store", store);

/** The command in this process, on a terminal of the test's own. */
async function onTerminal(
  args,
  { env = {}, columns = 100, refusal = "connect ECONNREFUSED 127.0.0.1:1" } = {},
) {
  const seen = { stdout: "", stderr: "" };
  const output = (name) => ({
    isTTY: true,
    columns,
    write(text) {
      seen[name] += text;
    },
  });
  const code = await runEvents([...args, "--store", store], {
    program: "openclaw core events",
    env: { HOME: folder, OPENCLAW_STATE_DIR: join(folder, "state"), ...env },
    stdout: output("stdout"),
    stderr: output("stderr"),
    signal: new AbortController().signal,
    async gateway() {
      throw new Error(refusal);
    },
  });
  return { code, ...seen };
}

const message = (role, text, more = {}) => ({
  sessionId: "s1",
  entry: {
    type: "message",
    id: `${role}-${text.length}`,
    parentId: null,
    timestamp: "2026-11-21T06:50:05.045Z",
    message: { role, content: [{ type: "text", text }], ...more },
  },
});

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "openclaw-core-events-cli-"));
  store = join(folder, "state", "core", "events");
  mkdirSync(store, { recursive: true });
  const open = await EventStore.open(store);
  const day = Date.UTC(2026, 10, 20);
  const at = (sessionKey, agentId, timestampMs, kind, data) => ({
    sessionKey,
    agentId,
    timestampMs,
    kind,
    data,
  });
  await open.appendBatch([
    at("agent:main:main", "main", day, "session_started", {
      sessionId: "s1",
      entry: { type: "session", version: 4, id: "s1" },
    }),
    at(
      "agent:main:main",
      "main",
      day + 1,
      "message_received",
      message("user", "What is on the third shelf?"),
    ),
    at("agent:main:main", "main", day + 2, "tool_called", {
      sessionId: "s1",
      toolCallId: "t1",
      name: "read",
      arguments: { path: "note.txt" },
    }),
    at(
      "agent:main:main",
      "main",
      day + 3,
      "agent_response",
      message("assistant", "A kettle.", { usage: { input: 1200, output: 34, totalTokens: 1234 } }),
    ),
    at("agent:main:main", "main", day + 4, "agent_lifecycle", {
      runId: "r1",
      seq: 9,
      stream: "lifecycle",
      data: { phase: "end", terminalReply: { text: "A kettle." } },
    }),
    at("agent:work:telegram:direct:7", "work", day + DAY, "message_received", {
      text: "evil \u001b[31mred\u001b]0;title\u0007 \u202Etext",
    }),
    at("agent:work:telegram:direct:77", "work", day + 2 * DAY, "message_received", { text: "later" }),
  ]);
  await open.close();
});
after(() => rmSync(folder, { recursive: true, force: true }));

describe("openclaw-core events", () => {
  test("list shows the sessions, the most recent first, and says where they are from", () => {
    const { code, stdout, stderr } = offline("list");
    assert.equal(code, 0, stderr);
    const lines = stdout.split("\n");
    assert.match(lines[0], /^SESSION +AGENT +EVENTS +MESSAGES +TOOLS +TOKENS +LAST +LAST MESSAGE$/);
    assert.deepEqual(
      lines.slice(1, 4).map((line) => line.split(" ")[0]),
      ["agent:work:telegram:direct:77", "agent:work:telegram:direct:7", "agent:main:main"],
    );
    assert.match(
      lines[3],
      /^agent:main:main +main +5 +2 +1 +1,234 +2026-11-\d\d \d\d:\d\d:\d\d +A kettle\.$/,
    );
    assert.match(stdout, /^3 sessions; from a copy of the store as it was just now, /m);
    assert.equal(stderr, "");
  });

  test("says in a few words why no gateway answered", async () => {
    // A gateway without the plugin asks for an administrator's scope: what it does not know may be anything.
    for (const [refusal, said] of [
      ["connect ECONNREFUSED 127.0.0.1:1", "no gateway is running"],
      [
        "unknown method: core.events.status",
        "the gateway runs without this plugin, or with its module events off",
      ],
      [
        "missing scope: operator.admin",
        "the gateway runs without this plugin, or with its module events off",
      ],
      ["missing scope: operator.read", "no gateway answers: missing scope: operator.read"],
      ["unauthorized: wrong \u001b[31mtoken", "no gateway answers: unauthorized: wrong "],
    ]) {
      const { code, stdout, stderr } = await onTerminal(["list"], { env: { NO_COLOR: "1" }, refusal });
      assert.equal(code, 0, stderr);
      const footer = stdout.trimEnd().split("\n").at(-1);
      assert.ok(footer.includes(said), `${refusal}: ${footer}`);
      assert.ok(!footer.includes("\u001b"));
    }
  });

  test("list narrows by agent and prefix, orders by key, and stops at a limit", () => {
    const keys = (...args) =>
      JSON.parse(offline("list", "--json", ...args).stdout).sessions.map((s) => s.sessionKey);
    assert.deepEqual(keys("--agent", "main"), ["agent:main:main"]);
    assert.deepEqual(keys("--prefix", "agent:work:telegram:direct:77"), ["agent:work:telegram:direct:77"]);
    assert.deepEqual(keys("--order", "key"), [
      "agent:main:main",
      "agent:work:telegram:direct:7",
      "agent:work:telegram:direct:77",
    ]);
    assert.deepEqual(keys("--limit", "1"), ["agent:work:telegram:direct:77"]);
    assert.match(offline("list", "--limit", "1").stdout, /no more than 1 shown/);
  });

  test("show prints the events of a session that a part of its key names", () => {
    const { code, stdout } = offline("show", "main:main");
    assert.equal(code, 0);
    assert.match(stdout, /^agent:main:main {2}5 events, 2 messages, 1 tool call, 1,234 tokens, /);
    assert.match(stdout, /^ +2 {2}\S+ \S+ {2}message_received +What is on the third shelf\?$/m);
    assert.match(stdout, /^ +3 {2}\S+ \S+ {2}tool_called +read \{"path":"note\.txt"\}$/m);
    assert.match(stdout, /agent_lifecycle +end$/m);
    const seqs = (...args) =>
      JSON.parse(offline("show", "main:main", "--json", ...args).stdout).events.map((e) => e.seq);
    assert.deepEqual(seqs(), [1, 2, 3, 4, 5]);
    assert.deepEqual(seqs("--limit", "2"), [4, 5]);
    assert.deepEqual(seqs("--after", "1", "--limit", "2"), [2, 3]);
    assert.deepEqual(seqs("--before", "3"), [1, 2]);
    assert.deepEqual(seqs("--reverse", "--limit", "2"), [5, 4]);
    assert.deepEqual(seqs("--kind", "tool_called", "--kind", "session_started"), [1, 3]);
  });

  test("a session that is not there, or that could be several, is an error that helps", () => {
    const none = offline("show", "nobody");
    assert.equal(none.code, 1);
    assert.match(none.stderr, /there is no session "nobody"; `openclaw-core events list` shows them/);
    const several = offline("show", "telegram");
    assert.equal(several.code, 1);
    assert.match(
      several.stderr,
      /"telegram" is part of 2 session keys, such as agent:work:telegram:direct:7/,
    );
    // A whole key is itself, though it is a part of another one.
    assert.equal(offline("show", "agent:work:telegram:direct:7").code, 0);
  });

  test("what others wrote cannot steer the terminal", () => {
    for (const args of [["list"], ["show", "agent:work:telegram:direct:7"], ["tail"]]) {
      const { stdout } = offline(...args);
      assert.match(stdout, /evil .*red/, args.join(" "));
      assert.doesNotMatch(stdout.replaceAll("\n", ""), /[\p{Cc}\u202e]/u, args.join(" "));
    }
  });

  test("colours are for terminals that want them, and lines are as long as the terminal", async () => {
    const coloured = await onTerminal(["show", "main:main"], { columns: 60 });
    assert.equal(coloured.code, 0, coloured.stderr);
    assert.ok(coloured.stdout.includes("\x1b[36magent:main:main\x1b[0m"), coloured.stdout);
    const rows = coloured.stdout.split("\n").filter((line) => /^ +\d/.test(line));
    assert.equal(rows.length, 5);
    for (const row of rows) assert.ok(row.length <= 60, row);
    const bare = await onTerminal(["show", "main:main"], { env: { NO_COLOR: "1" } });
    assert.ok(!bare.stdout.includes("\x1b"));
    assert.ok(!offline("show", "main:main").stdout.includes("\x1b"));
  });

  test("progress is written over on a terminal and nowhere else", async () => {
    const { stderr, stdout } = await onTerminal(["verify"], { env: { NO_COLOR: "1" } });
    assert.equal(stderr, "\r\x1b[Kreading …\r\x1b[K");
    assert.match(stdout, /^ok 7 events in 3 sessions: every hash is right$/m);
    assert.equal(offline("verify").stderr, "");
  });

  test("tail shows the latest events and ends where nothing more can come", () => {
    const { code, stdout, stderr } = offline("tail", "--json", "--limit", "2");
    assert.equal(code, 1);
    assert.match(stderr, /nothing more will come/);
    const lines = stdout.trim().split("\n").map(JSON.parse);
    assert.deepEqual(
      lines.map(({ sessionKey }) => sessionKey),
      ["agent:work:telegram:direct:7", "agent:work:telegram:direct:77"],
    );
  });

  test("export writes a transcript, and over nothing", () => {
    const out = join(folder, "transcript.jsonl");
    assert.equal(offline("export", "main:main", "--out", out).code, 0);
    const lines = readFileSync(out, "utf8").trim().split("\n").map(JSON.parse);
    assert.equal(lines[0].type, "session");
    assert.deepEqual(
      lines.flatMap((line) => line.message?.role ?? []),
      ["user", "assistant"],
    );
    const again = offline("export", "main:main", "--out", out);
    assert.equal(again.code, 1);
    assert.match(again.stderr, /exists already/);
    assert.equal(offline("export", "main:main").stdout, readFileSync(out, "utf8"));
  });

  test("verify and status answer in JSON as well", () => {
    const verified = JSON.parse(offline("verify", "--json").stdout);
    assert.deepEqual(verified, { source: "snapshot", store, ok: true, sessions: 3, events: 7, problems: [] });
    const { stats, source } = JSON.parse(offline("status", "--json").stdout);
    assert.equal(source, "snapshot");
    assert.deepEqual([stats.sessions, stats.events], [3, 7]);
    assert.match(offline("status").stdout, /^events +7$/m);
  });

  test("arguments that say nothing clear are refused with code 2 and a hint", () => {
    for (const [args, what] of [
      [[], /a command is needed: list, show, tail, verify, export, import or status/],
      [["lst"], /unknown command "lst"/],
      [["list", "--sorted"], /Unknown option '--sorted'/],
      [["list", "extra"], /unexpected argument "extra"/],
      [["list", "--limit", "many"], /--limit is a whole number, not "many"/],
      [["list", "--order", "size"], /--order is recent or key/],
      [["show"], /which session\?/],
      [["show", "main:main", "--after", "-1"], /--after/],
    ]) {
      const { code, stdout, stderr } = offline(...args);
      assert.equal(code, 2, args.join(" "));
      assert.match(stderr, what);
      assert.match(stderr, /Try: openclaw-core events --help/);
      assert.equal(stdout, "");
    }
    const help = run("--help");
    assert.equal(help.code, 0);
    assert.match(help.stdout, /usage: openclaw-core events <command>/);
  });

  test("a store that is not there is named, and not made", () => {
    const missing = join(folder, "nowhere");
    const { code, stderr } = run("list", "--offline", "--store", missing);
    assert.equal(code, 1);
    assert.match(stderr, new RegExp(`there is no event store at ${missing}`));
    assert.ok(!existsSync(missing));
  });

  test("a store that is being written can be read, and cannot be written by a second one", async () => {
    const open = await EventStore.open(store);
    try {
      assert.equal(JSON.parse(offline("list", "--json").stdout).sessions.length, 3);
      assert.equal(offline("verify").code, 0);
      const second = offline("import", folder);
      assert.equal(second.code, 1);
      assert.match(second.stderr, /STORE_LOCKED: /);
      assert.match(second.stderr, new RegExp(`\\b${process.pid}\\b`), "does not name who has it");
    } finally {
      await open.close();
    }
  });

  test("the store is where the config says, and the state folder's own otherwise", () => {
    const sessions = () => JSON.parse(run("list", "--offline", "--json").stdout);
    assert.equal(sessions().store, store);
    const config = join(folder, "state", "openclaw.json");
    writeFileSync(
      config,
      "{ plugins: { entries: { core: { config: { events: { path: 'elsewhere' } } } } } }",
    );
    try {
      const { code, stderr } = run("list", "--offline");
      assert.equal(code, 1);
      assert.match(stderr, new RegExp(`no event store at ${join(folder, "state", "elsewhere")}`));
    } finally {
      rmSync(config);
    }
  });
});
