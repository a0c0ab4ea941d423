// The mirror between OpenClaw's events and a real store: nothing is lost without being named, nothing is kept twice.
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import fc from "fast-check";
import { isDelta, Mirror } from "../../dist/events/mirror.js";

const { EventStore } = createRequire(import.meta.url)("../../index.js");
const SESSION = { agentId: "main", sessionKey: "agent:main:main", sessionId: "s1" };

let folder;
let mirrors;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "openclaw-core-mirror-"));
  mirrors = [];
});
afterEach(async () => {
  for (const mirror of mirrors) await mirror.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** OpenClaw's transcripts, by its reader's rules: a page holds so many bytes, a cursor is a place in one version. */
class Host {
  version = 1;
  entries = [];
  reads = 0;
  ids = 0;
  failing = false;
  constructor(entries = 0) {
    if (entries > 0)
      this.entries.push({ type: "session", version: 4, id: "s1", timestamp: "2026-01-01T00:00:00Z" });
    for (let n = 1; n < entries; n++) this.say(n % 2 ? "user" : "assistant", `text ${n}`);
  }
  say(role, text, calls = []) {
    const content = [
      { type: "text", text },
      ...calls.map((id) => ({ type: "toolCall", id, name: "read", arguments: {} })),
    ];
    const id = `e${++this.ids}`;
    this.entries.push({ type: "message", id, timestamp: "2026-01-01T00:00:01Z", message: { role, content } });
  }
  sessions() {
    return [{ ...SESSION, updatedAt: Date.now() }];
  }
  async read(session, cursor, maxBytes) {
    assert.deepEqual(session, SESSION);
    this.reads++;
    if (this.failing) throw new Error("the database is busy");
    const [version, place] = (cursor ?? `${this.version}:0`).split(":").map(Number);
    let next = version === this.version ? place : 0;
    const entries = [];
    let bytes = 0;
    while (next < this.entries.length) {
      const size = JSON.stringify(this.entries[next]).length;
      if (bytes + size > maxBytes) {
        if (entries.length === 0)
          return { entries, cursor: `${this.version}:${next}`, more: true, oversized: size };
        break;
      }
      bytes += size;
      entries.push(this.entries[next++]);
    }
    return { entries, cursor: `${this.version}:${next}`, more: next < this.entries.length };
  }
}

function makeMirror(host, { said = [], ...options } = {}) {
  const mirror = new Mirror({
    path: join(folder, "events"),
    open: (path, settings) => EventStore.open(path, settings),
    store: { durability: "always" },
    transcripts: async () => host,
    deltas: false,
    queue: { events: 10_000, bytes: 64 << 20 },
    log: { info: (text) => said.push(text), warn: (text) => said.push(text) },
    ...options,
  });
  mirrors.push(mirror);
  return mirror;
}

/** Waits until everything that the mirror knows of is in the store. */
async function quiet(mirror) {
  const end = Date.now() + 20_000;
  for (;;) {
    const { state, queue, pendingTranscripts } = mirror.status();
    if (state === "mirroring" && queue.events === 0 && pendingTranscripts === 0) return;
    assert.ok(Date.now() < end, JSON.stringify(mirror.status()));
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** All that the store holds of the session, once the mirror has stopped. */
async function contents() {
  const store = await EventStore.open(join(folder, "events"));
  try {
    const found = await store.read(SESSION.sessionKey);
    assert.deepEqual(
      found.map(({ seq }) => seq),
      found.map((_, index) => index + 1),
    );
    assert.equal(new Set(found.map(({ id }) => id)).size, found.length);
    return found;
  } finally {
    await store.close();
  }
}

const entriesOf = (found) => found.filter(({ data }) => data?.entry).map(({ data }) => data.entry);

let clock = Date.UTC(2026, 0, 1);
const event = (seq, more = {}) => ({
  runId: "r1",
  seq,
  stream: "item",
  ts: clock++,
  data: { phase: "start", title: `step ${seq}` },
  sessionKey: SESSION.sessionKey,
  agentId: "main",
  ...more,
});
const lifecycle = (seq, phase, more = {}) =>
  event(seq, { stream: "lifecycle", data: { phase }, sessionId: "s1", ...more });

function lostOf(found, runId = "r1") {
  return found.flatMap(({ kind, data }) =>
    kind === "events_lost" && data.runs?.[runId]
      ? data.runs[runId].split(",").flatMap((range) => {
          const [from, to = from] = range.split("-").map(Number);
          return Array.from({ length: to - from + 1 }, (_, index) => from + index);
        })
      : [],
  );
}

describe("the mirror", () => {
  test("keeps a transcript of many pages letter for letter, and an entry larger than a page", async () => {
    const host = new Host(3_000);
    host.say("assistant", "x".repeat(1 << 20));
    host.say("user", "after it");
    const mirror = makeMirror(host);
    await mirror.start();
    await mirror.stop();
    assert.deepEqual(entriesOf(await contents()), host.entries);
  });

  test("reads on where it was, after a stop and after a crash", async () => {
    const host = new Host(10);
    const first = makeMirror(host);
    await first.start();
    await first.stop();
    host.say("user", "while nobody looked");
    const second = makeMirror(host);
    await second.start();
    await second.stop();
    // A crash in which the cursors were lost, not the events.
    rmSync(join(folder, "events", "transcripts.jsonl"));
    const third = makeMirror(host);
    third.grown(SESSION);
    await third.start();
    host.say("assistant", "and again");
    third.grown(SESSION);
    await third.stop();
    assert.deepEqual(entriesOf(await contents()), host.entries);
  });

  test("reads a rewritten transcript from its start, which is harmless", async () => {
    const host = new Host(6);
    const mirror = makeMirror(host);
    await mirror.start();
    await quiet(mirror);
    host.version++;
    host.entries.splice(1, 2);
    host.say("user", "new in the second version");
    mirror.grown(SESSION);
    await mirror.stop();
    const ids = entriesOf(await contents()).map(({ id }) => id);
    assert.equal(new Set(ids).size, ids.length);
    assert.equal(ids.length, 7);
  });

  test("keeps a tool call once, though the message and the run both tell of it", async () => {
    const host = new Host(2);
    const mirror = makeMirror(host);
    await mirror.start();
    mirror.agentEvent(lifecycle(1, "start"));
    host.say("assistant", "I will look", ["call-1"]);
    mirror.agentEvent(
      event(2, { stream: "tool", data: { phase: "start", name: "read", toolCallId: "call-1", args: {} } }),
    );
    mirror.agentEvent(
      event(3, { stream: "tool", data: { phase: "start", name: "read", toolCallId: "call-2", args: {} } }),
    );
    mirror.grown(SESSION);
    await mirror.stop();
    const calls = (await contents()).filter(({ kind }) => kind === "tool_called");
    assert.deepEqual(
      calls.map(({ data }) => data),
      [
        { sessionId: "s1", toolCallId: "call-1", name: "read", arguments: {} },
        { sessionId: "s1", toolCallId: "call-2", name: "read", arguments: {} },
      ],
    );
  });

  test("names every number of a run that is not in the store, whatever was dropped or not delivered", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({ delivered: fc.boolean(), delta: fc.boolean(), pause: fc.integer({ min: 0, max: 3 }) }),
          {
            minLength: 20,
            maxLength: 60,
            size: "max",
          },
        ),
        fc.integer({ min: 1, max: 4 }),
        async (steps, places) => {
          rmSync(join(folder, "events"), { recursive: true, force: true });
          const mirror = makeMirror(new Host(), { queue: { events: places, bytes: 1 << 20 } });
          await mirror.start();
          const expected = [];
          let last = 0;
          for (const [index, { delivered, delta, pause }] of steps.entries()) {
            if (!delivered) continue;
            last = index + 1;
            const told = event(last, delta ? { stream: "assistant" } : {});
            mirror.agentEvent(told);
            if (!isDelta(told)) expected.push(last);
            if (pause === 3) await new Promise((resolve) => setTimeout(resolve, 25));
          }
          await mirror.stop();
          const found = await contents();
          const kept = found.flatMap(({ kind, data }) => (kind === "agent_item" ? [data.seq] : []));
          const lost = new Set(lostOf(found));
          for (const seq of expected) assert.ok(kept.includes(seq) !== lost.has(seq), `event ${seq}`);
          for (let seq = 1; seq <= last; seq++) {
            const delivered = steps[seq - 1].delivered;
            if (!delivered) assert.ok(lost.has(seq), `event ${seq} was not delivered`);
          }
        },
      ),
      { numRuns: 15 },
    );
  });

  test("holds a bounded queue while the store is locked, and goes on when it is free", async () => {
    const host = new Host(4);
    const said = [];
    mkdirSync(join(folder, "events"));
    const holder = await EventStore.open(join(folder, "events"));
    const mirror = makeMirror(host, { said, queue: { events: 3, bytes: 1 << 20 } });
    await assert.rejects(mirror.start(), { code: "STORE_LOCKED" });
    for (let seq = 1; seq <= 9; seq++) mirror.agentEvent(event(seq));
    assert.deepEqual(mirror.status().queue.events, 3);
    assert.equal(mirror.status().state, "waiting");
    assert.equal(mirror.status().lost, 6);
    await holder.close();
    await quiet(mirror);
    await mirror.stop();
    const found = await contents();
    assert.deepEqual(entriesOf(found), host.entries);
    assert.deepEqual(lostOf(found), [4, 5, 6, 7, 8, 9]);
    assert.equal(said.filter((text) => text.includes("nothing is mirrored")).length, 1, said.join("\n"));
    assert.ok(
      said.some((text) => text.includes("again")),
      said.join("\n"),
    );
  });

  test("says once what is wrong with a store that cannot be opened, and lets the caller go on", async () => {
    const said = [];
    writeFileSync(join(folder, "events"), "a file where the folder should be");
    const mirror = makeMirror(new Host(2), { said });
    await assert.rejects(mirror.start());
    mirror.agentEvent(event(1));
    await new Promise((resolve) => setTimeout(resolve, 1_200));
    await mirror.stop();
    assert.equal(said.filter((text) => text.includes("nothing is mirrored")).length, 1, said.join("\n"));
    assert.equal(mirror.status().state, "stopped");
  });

  test("lets no event that the store refuses stand in the way of the others", async () => {
    const said = [];
    const mirror = makeMirror(new Host(2), { said });
    await mirror.start();
    for (let seq = 1; seq <= 20; seq++) {
      const wrong = seq === 7 || seq === 8;
      mirror.hookEvent({
        ...{ sessionKey: SESSION.sessionKey, agentId: "main", kind: "message_arrived", timestampMs: 1 },
        id: wrong ? `arrived:\u0000${seq}` : `arrived:${seq}`,
        data: { seq },
      });
    }
    await mirror.stop();
    const found = await contents();
    assert.equal(found.filter(({ kind }) => kind === "message_arrived").length, 18);
    assert.equal(mirror.status().refused, 2);
    assert.equal(said.filter((text) => text.includes("refused")).length, 1);
    assert.equal(found.find(({ kind }) => kind === "events_lost").data.kinds.message_arrived, 2);
  });

  test("goes on with agent events when a transcript cannot be read, and reads it when it can", async () => {
    const host = new Host(5);
    const said = [];
    host.failing = true;
    const mirror = makeMirror(host, { said });
    await mirror.start();
    mirror.agentEvent(lifecycle(1, "start"));
    await quiet(mirror);
    assert.ok(host.reads > 0);
    host.failing = false;
    mirror.agentEvent(lifecycle(2, "end"));
    await mirror.stop();
    const found = await contents();
    assert.deepEqual(entriesOf(found), host.entries);
    assert.equal(found.filter(({ kind }) => kind === "agent_lifecycle").length, 2);
    assert.equal(said.filter((text) => text.includes("could not be read")).length, 1);
  });

  test("leaves out how far a run has come, and keeps how it went", async () => {
    const told = [
      event(1, { stream: "run_status", data: { phase: "preparing_context" } }),
      lifecycle(2, "start"),
      event(3, { stream: "run_status", data: { phase: "starting_model" } }),
      lifecycle(4, "model"),
      event(5, { stream: "run_status", data: { phase: "retrying", reason: "timeout" } }),
      event(6, { stream: "usage", data: { outputTokens: 3 } }),
      lifecycle(7, "finishing"),
      lifecycle(8, "end"),
    ];
    for (const [deltas, kept] of [
      [false, [2, 5, 6, 8]],
      [true, [1, 2, 3, 4, 5, 6, 7, 8]],
    ]) {
      rmSync(join(folder, "events"), { recursive: true, force: true });
      const mirror = makeMirror(new Host(1), { deltas });
      await mirror.start();
      for (const one of told) mirror.agentEvent(one);
      await mirror.stop();
      const found = await contents();
      assert.deepEqual(
        found.flatMap(({ kind, data }) => (kind.startsWith("agent_") && data.runId ? [data.seq] : [])),
        kept,
      );
      assert.deepEqual(lostOf(found), []);
    }
  });

  test("keeps the events of a run that is resumed and counts from 1 again", async () => {
    const mirror = makeMirror(new Host(1));
    await mirror.start();
    mirror.agentEvent(lifecycle(1, "start"));
    mirror.agentEvent(event(2));
    await mirror.stop();
    const next = makeMirror(new Host(1));
    await next.start();
    next.agentEvent(lifecycle(1, "start"));
    next.agentEvent(event(2));
    next.agentEvent(lifecycle(3, "end"));
    await next.stop();
    const found = (await contents()).filter(({ kind }) => kind.startsWith("agent_"));
    // What is new of a batch is stored before what looked known, so by their time.
    found.sort((a, b) => a.timestampMs - b.timestampMs);
    assert.deepEqual(
      found.map(({ data }) => data.seq),
      [1, 2, 1, 2, 3],
    );
  });

  test("keeps nothing of an incognito session", async () => {
    const host = new Host(1);
    const mirror = makeMirror(host);
    await mirror.start();
    const sessionKey = "agent:main:dashboard:incognito-1";
    mirror.agentEvent(lifecycle(1, "start", { sessionKey }));
    // Some of its events come without the key.
    mirror.agentEvent(event(4, { sessionKey: undefined }));
    mirror.grown({ ...SESSION, sessionKey });
    mirror.hookEvent({ sessionKey, agentId: "main", kind: "message_arrived", data: {} });
    await mirror.stop();
    const store = await EventStore.open(join(folder, "events"));
    const keys = (await store.sessions()).map((session) => session.sessionKey);
    await store.close();
    assert.deepEqual(keys, [SESSION.sessionKey]);
  });
});
