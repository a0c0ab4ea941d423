// The event store inside a stock gateway: what the agents do is mirrored, whole and once, through a full queue, a
// locked store and SIGKILL; and `openclaw core events` reads it.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { hostNode } from "../../scripts/setup.mjs";
import { startModelServer } from "../sim/model/server.mjs";
import { createHome, until } from "./fixture.mjs";
import { installPlugin } from "./installed-plugin.mjs";
import { stockRoot } from "./stock.mjs";
import { configureTurn } from "./turn.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const { EventStore } = createRequire(import.meta.url)("../../index.js");
const SESSION = "agent:main:main";
const NOTE = "the kettle is on the third shelf";

let server;
let home;
let gateway;
/** Set to hold the model's words back, so that something can happen in the middle of an answer. */
let eventDelayMs = 0;
const probeFile = () => join(home.dir, "probe.jsonl");
const storePath = () => join(home.stateDir, "core", "events");

before(async () => {
  server = await startModelServer({
    script: (turn) => {
      const [result] = turn.toolResults;
      const delayed = eventDelayMs > 0 ? { eventDelayMs } : {};
      if (result) return { ...delayed, text: `The file says: ${result.text.trim()}` };
      const file = /\b\w+\.txt\b/.exec(turn.user)?.[0];
      if (file) return { text: "I will look.", toolCalls: [{ name: "read", arguments: { path: file } }] };
      return { ...delayed, text: "One word after the other, so that there is a middle." };
    },
  });
  home = await createHome();
  await installPlugin(home);
});
after(async () => {
  await gateway?.stop();
  await home?.remove();
  await server?.close();
});

/** The config of a turn, with the plugin, the probe, and these settings of the store. */
async function configure(events) {
  await configureTurn(home, server);
  const config = await readFile(home.configPath, "utf8");
  const plugins = {
    load: { paths: [join(root, "__test__/host/probe")] },
    entries: {
      core: { enabled: true, config: { events } },
      "core-probe": { enabled: true, config: { file: probeFile() } },
    },
  };
  const more = `  channels: { probechat: { enabled: true } },\n  plugins: ${JSON.stringify(plugins)},\n`;
  const text = config.replace("  models: {", `${more}  models: {`);
  assert.notEqual(text, config);
  await home.write("openclaw.json", text);
  await writeFile(join(home.workspace, "note.txt"), `${NOTE}\n`);
}

const say = (message, options = []) =>
  home.openclaw(["agent", "--agent", "main", "--message", message, "--json", ...options], {
    timeoutMs: 90_000,
  });

async function turn(message) {
  let said = await say(message);
  // What OpenClaw asks for while it tidies its database up.
  if (said.stdout.includes("SESSION_WORK_START_CHANGED")) said = await say(message);
  const { code, stdout, stderr } = said;
  assert.equal(code, 0, `${stdout}\n${stderr}\n${gateway?.log().slice(-3_000)}`);
  return JSON.parse(stdout);
}

/** `openclaw core events …`, its JSON parsed if it was asked for. */
async function events(...args) {
  const result = await home.openclaw(["core", "events", ...args], { timeoutMs: 60_000 });
  return { ...result, json: args.includes("--json") ? parse(result.stdout) : undefined };
}

/** `openclaw-core events …` of the package itself, which is quicker to start. */
async function ownEvents(...args) {
  const command = [join(root, "dist/cli.js"), "events", ...args, "--openclaw", stockRoot];
  const result = await home.node(command, { timeoutMs: 60_000 });
  return { ...result, json: args.includes("--json") ? parse(result.stdout) : undefined };
}

async function mirrorStatus() {
  const { json, stdout, stderr } = await ownEvents("status", "--json");
  assert.ok(json?.mirror, `${stdout}\n${stderr}`);
  return json;
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function probed() {
  if (!existsSync(probeFile())) return [];
  const lines = readFileSync(probeFile(), "utf8").split("\n");
  return lines.flatMap((line) => parse(line) ?? []);
}

/** Every stored event of the session, through the command. */
async function stored() {
  const { json, code, stdout, stderr } = await ownEvents("show", SESSION, "--limit", "all", "--json");
  assert.equal(code, 0, `${stdout.slice(0, 500)}\n${stderr}`);
  return json;
}

/** What the mirror had to keep is there: waits for it, then gives all of the session. */
async function settled(runId) {
  let last;
  await until(
    async () => {
      last = await stored();
      return last.events.some(
        ({ kind, data }) =>
          (kind === "agent_lifecycle" &&
            data.runId === runId &&
            ["end", "error"].includes(data.data.phase)) ||
          (kind === "events_lost" && data.runs?.[runId]),
      );
    },
    { timeoutMs: 30_000, timeoutMessage: () => `the end of run ${runId} is not in the store` },
  );
  return last;
}

/** Each entry of OpenClaw's transcripts is in the store, once, letter for letter and in order; and nothing else is. */
async function assertTranscriptsMirrored() {
  const { code, stdout, stderr } = await home.openclaw([
    "gateway",
    "call",
    "coreProbe.transcripts",
    "--json",
  ]);
  assert.equal(code, 0, stderr);
  const { transcripts } = JSON.parse(stdout);
  const of = transcripts.filter(({ sessionKey }) => sessionKey === SESSION);
  const entries = of.flatMap((transcript) => transcript.entries);
  assert.ok(entries.length > 0, "OpenClaw has no transcript");
  const mirrored = await until(
    async () => {
      const { events } = await stored();
      const found = events.filter(({ data }) => data?.entry).map(({ data }) => data.entry);
      return found.length >= entries.length ? found : undefined;
    },
    {
      timeoutMs: 30_000,
      timeoutMessage: () => `the store lacks some of ${entries.length} transcript entries`,
    },
  );
  assert.deepEqual(mirrored, entries);
  return entries;
}

/** The numbers of a run's events that the store says are lost. */
function lostOf(all, runId) {
  return new Set(
    all.flatMap(({ kind, data }) =>
      kind === "events_lost" && data.runs?.[runId]
        ? data.runs[runId].split(",").flatMap((range) => {
            const [from, to = from] = range.split("-").map(Number);
            return Array.from({ length: to - from + 1 }, (_, index) => from + index);
          })
        : [],
    ),
  );
}

/** What the mirror leaves out: pieces of what comes again, and how far a run has come. */
function isPassing({ stream, data: { phase } }) {
  if (["assistant", "thinking"].includes(stream) || phase === "update") return true;
  return (
    (stream === "run_status" && phase !== "retrying") ||
    (stream === "lifecycle" && ["model", "finishing"].includes(phase))
  );
}

/** Each event that OpenClaw told of is in the store, or left out, or is said to be lost. */
function assertAccounted(all, runId) {
  const told = probed()
    .flatMap(({ event }) => (event?.runId === runId ? [event] : []))
    .sort((a, b) => a.seq - b.seq);
  assert.ok(told.length >= 5, `the probe saw ${told.length} events of ${runId}`);
  assert.deepEqual(
    told.map(({ seq }) => seq),
    told.map((_, index) => index + 1),
  );
  const ids = new Map(all.map((event) => [event.id, event]));
  const lost = lostOf(all, runId);
  let kept = 0;
  for (const { seq, stream, data, sessionKey } of told) {
    assert.equal(sessionKey, SESSION);
    if (isPassing({ stream, data })) {
      assert.ok(!ids.has(`run:${runId}:${seq}`), `event ${seq} (${stream}) is in the store`);
      continue;
    }
    if (lost.has(seq)) continue;
    if (stream === "tool" && data.phase === "start") {
      const call = all.filter(
        ({ kind, data: { toolCallId } }) => kind === "tool_called" && toolCallId === data.toolCallId,
      );
      assert.equal(call.length, 1, `tool call ${data.toolCallId} is ${call.length} events`);
      assert.deepEqual(call[0].data.arguments, data.args);
      continue;
    }
    const event = ids.get(`run:${runId}:${seq}`);
    assert.ok(event, `event ${seq} (${stream}) of run ${runId} is not in the store`);
    assert.equal(event.kind, `agent_${stream}`);
    const { result: _result, ...rest } = data;
    assert.deepEqual(event.data.data, stream === "tool" ? rest : data);
    kept++;
  }
  return { kept, lost: lost.size };
}

function assertOnce(all) {
  const ids = all.map(({ id }) => id);
  assert.equal(new Set(ids).size, ids.length, "an id is there twice");
  assert.deepEqual(
    all.map(({ seq }) => seq),
    all.map((_, index) => index + 1),
  );
}

describe("a gateway with the event store", () => {
  test("mirrors a turn: every agent event by its number, the transcript letter for letter", async () => {
    await configure({});
    gateway = await home.startGateway();
    const { runId } = await turn("What does note.txt say?");
    const { events: all, source, store, session } = await settled(runId);
    assert.equal(source, "gateway");
    assert.equal(store, storePath());
    assert.equal(session.toolCalls, 1);
    const { kept, lost } = assertAccounted(all, runId);
    assert.equal(lost, 0);
    assert.ok(kept > 5, `${kept} agent events`);
    const entries = await assertTranscriptsMirrored();
    const roles = entries.flatMap(({ message }) => message?.role ?? []);
    assert.deepEqual(roles, ["user", "assistant", "toolResult", "assistant"]);
    assert.equal(session.messages, 3);
    assert.equal(all.filter(({ kind }) => kind === "tool_finished").length, 1);
    assertOnce((await stored()).events);
  });

  test("shows it: list, show, status, verify and export, as tables and as JSON, and follows what comes", async () => {
    const list = await events("list");
    assert.equal(list.code, 0, list.stderr);
    assert.match(list.stdout, /^SESSION +AGENT +EVENTS +MESSAGES +TOOLS/m);
    assert.match(list.stdout, /^agent:main:main +main +\d+ +3 +1 /m);
    assert.match(list.stdout, /from the running gateway/);
    assert.ok(!list.stdout.includes("\x1b"), "colours where there is no terminal");
    const json = await events("list", "--json");
    assert.equal(json.json?.source, "gateway", json.stdout);
    assert.equal(json.json.sessions[0].sessionKey, SESSION);

    const show = await ownEvents("show", "main:main", "--kind", "tool_called", "--kind", "agent_response");
    assert.match(show.stdout, /tool_called +read \{"path":"note\.txt"\}/);
    assert.match(show.stdout, new RegExp(`agent_response +The file says: ${NOTE}`));
    const { mirror } = await mirrorStatus();
    assert.equal(mirror.state, "mirroring");
    assert.deepEqual([mirror.lost, mirror.refused], [0, 0]);
    const verified = await ownEvents("verify", "--json");
    assert.equal(verified.json.ok, true, verified.stdout);
    assert.ok(verified.json.events > 10);
    const exported = await ownEvents("export", SESSION);
    const lines = exported.stdout.trim().split("\n").map(JSON.parse);
    assert.equal(lines[0].type, "session");
    assert.ok(lines.some(({ message }) => message?.role === "toolResult"));

    // A follower, ended by Ctrl-C when it has seen the end of a turn that began after it.
    const command = [join(root, "dist/cli.js"), "events", "tail", "--json", "--limit", "0"];
    const following = spawn(hostNode(), [...command, "--openclaw", stockRoot], {
      env: home.env(),
      cwd: home.workspace,
    });
    let text = "";
    following.stdout.setEncoding("utf8").on("data", (part) => {
      text += part;
    });
    const ended = new Promise((resolve) => following.once("close", resolve));
    try {
      await until(async () => (await mirrorStatus()).mirror.tails === 1, {
        timeoutMs: 30_000,
        timeoutMessage: "the tail did not begin",
      });
      const { runId } = await turn("hello");
      const seen = await until(
        () => {
          const all = text.split("\n").flatMap((line) => parse(line) ?? []);
          return all.some(({ kind, data }) => kind === "agent_lifecycle" && data.data.phase === "end") && all;
        },
        {
          timeoutMs: 20_000,
          timeoutMessage: () => `the tail did not show the turn:\n${text.slice(0, 2_000)}`,
        },
      );
      assert.ok(seen.some(({ kind }) => kind === "message_received"));
      assert.ok(
        seen.every(({ data }) => !data.runId || data.runId === runId),
        "events from before the tail",
      );
    } finally {
      following.kill("SIGINT");
    }
    assert.equal(await ended, 130);
    await until(async () => (await mirrorStatus()).mirror.tails === 0, {
      timeoutMs: 20_000,
      timeoutMessage: "the gateway still follows for a tail that has ended",
    });
  });

  test("keeps what channels bring and carry away, and each end of a session", async () => {
    const call = async (method, params) => {
      const args = ["gateway", "call", method, "--json", "--params", JSON.stringify(params)];
      const { code, stdout, stderr } = await home.openclaw(args);
      assert.equal(code, 0, `${stdout}\n${stderr}`);
      return JSON.parse(stdout);
    };
    const { runId } = await call("chat.send", {
      sessionKey: "main",
      message: "over chat",
      idempotencyKey: "k1",
    });
    await settled(runId);
    await call("send", { channel: "probechat", to: "alice", message: "hello alice", idempotencyKey: "k2" });
    // OpenClaw keeps the session's id when it resets it, so this is two ends of one id.
    await call("sessions.reset", { key: SESSION });
    await call("sessions.reset", { key: SESSION });
    const of = (all, name) => all.filter(({ kind }) => kind === name);
    const all = await until(
      async () => {
        const { events: found } = await stored();
        return (
          of(found, "message_delivered").length === 1 && of(found, "session_ended").length === 2 && found
        );
      },
      { timeoutMs: 20_000, timeoutMessage: "the hooks' events are not in the store" },
    );
    const [arrived, ...others] = of(all, "message_arrived");
    assert.deepEqual(others, []);
    assert.equal(arrived.data.content, "over chat");
    assert.equal(arrived.data.channelId, "webchat");
    const [delivered] = of(all, "message_delivered");
    assert.equal(delivered.id, "delivered:probechat:default:alice:sent-to-alice");
    assert.deepEqual([delivered.data.content, delivered.data.success], ["hello alice", true]);
    assert.deepEqual(
      of(all, "session_ended").map(({ data }) => data.reason),
      ["reset", "reset"],
    );
    await assertTranscriptsMirrored();
    assertOnce((await stored()).events);
  });

  test("loses nothing and doubles nothing by SIGKILL in the middle of an answer", async () => {
    eventDelayMs = 200;
    const running = say("hello again");
    const streaming = await until(
      () => probed().findLast(({ event }) => event?.stream === "assistant" && event.ts > Date.now() - 5_000),
      { timeoutMs: 60_000, everyMs: 5, timeoutMessage: "no answer began" },
    );
    process.kill(-gateway.pid, "SIGKILL");
    eventDelayMs = 0;
    await gateway.stop();
    await running;
    gateway = undefined;
    assert.ok(streaming.event.runId);

    // Nobody has the store open now: the command reads it by itself.
    const { source, note, events: all } = await stored();
    assert.equal(source, "snapshot");
    assert.match(note, /no gateway/);
    assertOnce(all);
    // And something happens while no gateway is there to mirror it.
    const local = await say("What does note.txt say?", ["--local"]);
    assert.equal(local.code, 0, local.stderr);
  });

  test("starts while the store is locked, says so once, and heals when it is free, a tiny queue notwithstanding", async () => {
    const holder = await EventStore.open(storePath());
    let released = false;
    try {
      await configure({ queue: { events: 2 } });
      gateway = await home.startGateway();
      await until(() => gateway.log().includes("nothing is mirrored"), {
        timeoutMs: 20_000,
        timeoutMessage: () => `nothing was said of the locked store\n${gateway.log()}`,
      });
      const { runId } = await turn("What does note.txt say?");
      assert.equal(gateway.log().match(/nothing is mirrored/g).length, 1);
      assert.match(gateway.log(), /nothing is mirrored to \S+core\/events for now.*STORE_LOCKED/);
      const locked = await ownEvents("import", "--offline");
      assert.equal(locked.code, 1);
      assert.match(locked.stderr, /STORE_LOCKED/);
      await holder.close();
      released = true;
      await until(() => gateway.log().includes("mirroring to"), {
        timeoutMs: 45_000,
        timeoutMessage: () => `the mirror did not begin again\n${gateway.log()}`,
      });
      const { events: all } = await settled(runId);
      const { lost } = assertAccounted(all, runId);
      assert.ok(lost > 0, "two places for events were enough");
    } finally {
      if (!released) await holder.close();
    }
    const { runId } = await turn("What does note.txt say?");
    await settled(runId);
    const entries = await assertTranscriptsMirrored();
    const calls = entries.flatMap(({ message }) =>
      message?.role === "assistant" ? message.content.filter(({ type }) => type === "toolCall") : [],
    );
    assert.equal(calls.length, 4);
    const { events: all } = await stored();
    assertOnce(all);
    assertAccounted(all, runId);
    assert.deepEqual(
      all
        .filter(({ kind }) => kind === "tool_called")
        .map(({ data }) => data.toolCallId)
        .sort(),
      calls.map(({ id }) => id).sort(),
    );
  });

  test("an import of the same OpenClaw, through the gateway that holds the store, finds nothing new", async () => {
    const before = await stored();
    const { code, json, stdout, stderr } = await ownEvents("import", home.stateDir, "--json");
    assert.equal(code, 0, `${stdout}\n${stderr}`);
    assert.equal(json.source, "gateway");
    assert.equal(json.events, 0, stdout);
    const entries = before.events.filter(({ data }) => data?.entry).length;
    assert.ok(json.alreadyPresent >= entries, `${json.alreadyPresent} of ${entries}`);
    assert.equal((await stored()).events.length, before.events.length);
  });

  test("drains and closes when it is told to stop", async () => {
    const { runId } = await turn("goodbye");
    const { code } = await gateway.stop();
    gateway = undefined;
    assert.equal(code, 0);
    const { events: all } = await stored();
    assertAccounted(all, runId);
    assert.ok(all.some(({ kind, data }) => kind === "agent_response" && data.entry.message.content[0].text));
    // The lock is free, so it can be opened to write.
    const store = await EventStore.open(storePath());
    await store.close();
  });
});
