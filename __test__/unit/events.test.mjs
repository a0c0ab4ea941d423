// `EventStore` as JavaScript sees it.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import * as fc from "fast-check";
import core from "../../index.js";

const { EventStore } = core;
const root = fileURLToPath(new URL("../..", import.meta.url));
const KEY = "agent:main:main";

const folders = [];
after(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

function scratch() {
  const folder = mkdtempSync(join(tmpdir(), "openclaw-core-events-"));
  folders.push(folder);
  return join(folder, "store");
}

/** A store that is closed after the test. */
async function open(t, options, path = scratch()) {
  const store = await EventStore.open(path, options);
  t.after(() => store.close());
  return store;
}

const event = (text, more) => ({
  sessionKey: KEY,
  agentId: "main",
  kind: "message_received",
  data: { text },
  ...more,
});
const events = (count, more) => Array.from({ length: count }, (_, index) => event(`message ${index}`, more));
const texts = (list) => list.map(({ data }) => data.text);

async function take(stream, count) {
  const taken = [];
  if (count > 0) for await (const element of stream) if (taken.push(element) === count) break;
  return taken;
}

/** Runs a script that has `core`, `path` and `event`, in a process of its own; it must end by itself. */
function fresh(script, path, { args = [], code = 0 } = {}) {
  const { status, signal, stdout, stderr } = spawnSync(
    process.execPath,
    [...args, "--input-type=module", "-e", prelude(path) + script],
    { cwd: root, encoding: "utf8", timeout: 60_000 },
  );
  assert.deepEqual({ status, signal }, { status: code, signal: null }, stderr);
  return stdout.trim() === "" ? undefined : JSON.parse(stdout);
}

const prelude = (path) => `
  import core from ${JSON.stringify(join(root, "index.js"))};
  const { EventStore } = core;
  const path = ${JSON.stringify(path)};
  const event = (text, more) =>
    ({ sessionKey: ${JSON.stringify(KEY)}, agentId: "main", kind: "message_received", data: { text }, ...more });
`;

describe("append and read", () => {
  test("an event comes back as it was given, with what the store adds", async (t) => {
    const store = await open(t, { replica: "here" });
    const data = JSON.parse(
      '{"text":"Gr\\u00fc\\u00dfe \\ud83d\\ude80","__proto__":{"a":[1,null]},"lone":"\\ud800"}',
    );
    const stored = await store.append(event("", { data, timestampMs: 5, id: "mine" }));
    const { clock, hash, ...rest } = stored;
    assert.deepEqual(rest, {
      sessionKey: KEY,
      agentId: "main",
      kind: "message_received",
      data,
      timestampMs: 5,
      id: "mine",
      seq: 1,
      origin: { replica: "here", seq: 1 },
    });
    assert.ok(Object.hasOwn(stored.data, "__proto__"));
    assert.match(clock, /^[0-9a-f]{16}$/);
    assert.match(hash, /^[0-9a-f]{64}$/);
    assert.deepEqual(await store.read(KEY), [stored]);
    assert.deepEqual(await store.append(event("another", { id: "mine" })), stored);
    assert.equal((await store.stats()).events, 1);

    const before = Date.now();
    const second = await store.append(event("two", { data: undefined }));
    assert.equal(second.data, null);
    assert.equal(second.id, "here-2");
    assert.ok(second.timestampMs >= before - 1 && second.timestampMs <= Date.now());
    assert.equal(store.replica, "here");
    assert.equal((await store.append(event("", { data: 0n.toString() }))).data, "0");
  });

  test("appends that are not awaited are in the order of their calls, with batches between", async (t) => {
    const store = await open(t, { durability: "interval" });
    const appended = [];
    for (let index = 0; index < 300; index += 3) {
      appended.push(store.append(event(index)));
      appended.push(store.appendBatch([event(index + 1), event(index + 2)]));
    }
    const stored = (await Promise.all(appended)).flat();
    assert.deepEqual(
      texts(stored),
      Array.from({ length: 300 }, (_, index) => index),
    );
    assert.deepEqual(
      stored.map(({ seq }) => seq),
      Array.from({ length: 300 }, (_, index) => index + 1),
    );
    assert.deepEqual(await store.read(KEY), stored);
    assert.deepEqual(await store.appendBatch([]), []);
  });

  test("a batch with one wrong event is not appended at all", async (t) => {
    const store = await open(t);
    await assert.rejects(store.appendBatch([event("a"), event("b", { kind: "" })]), {
      code: "EVENT_INVALID",
    });
    assert.deepEqual(await store.read(KEY), []);
    assert.equal(await store.projection(KEY), null);
  });

  test("a range of a session is read, forward and backward, by number and kind", async (t) => {
    const store = await open(t);
    await store.appendBatch(events(10));
    await store.appendBatch(events(3, { kind: "my_own" }));
    await store.append(event("elsewhere", { sessionKey: `${KEY}:thread:1` }));
    const seqs = async (options) => (await store.read(KEY, options)).map(({ seq }) => seq);
    assert.deepEqual(await seqs(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
    assert.deepEqual(await seqs({ after: 2, before: 6 }), [3, 4, 5]);
    assert.deepEqual(await seqs({ after: 2, limit: 2 }), [3, 4]);
    assert.deepEqual(await seqs({ reverse: true, limit: 2 }), [13, 12]);
    assert.deepEqual(await seqs({ reverse: true, before: 3 }), [2, 1]);
    assert.deepEqual(await seqs({ kinds: ["my_own"] }), [11, 12, 13]);
    assert.deepEqual(await seqs({ kinds: [] }), []);
    assert.deepEqual(await seqs({ limit: 0 }), []);
    assert.deepEqual(await store.read("agent:main"), []);
  });

  test("a result of megabytes is parsed in slices, each in a turn of the event loop of its own", async (t) => {
    const store = await open(t, { durability: "interval" });
    const stored = [];
    for (let batch = 0; batch < 4; batch++)
      stored.push(...(await store.appendBatch(events(1000, { data: { text: "ü".repeat(900), batch } }))));
    const large = await store.append(event("x".repeat(500_000)));
    stored.push(large);
    let [turns, busy] = [0, true];
    const turning = (async () => {
      for (; busy; turns++) await turn();
    })();
    const { parse } = JSON;
    const slices = [];
    JSON.parse = (text) => {
      slices.push({ turn: turns, length: text.length });
      return parse(text);
    };
    try {
      assert.deepEqual(await store.read(KEY), stored);
    } finally {
      JSON.parse = parse;
      busy = false;
      await turning;
    }
    assert.ok(slices.length > 30, `${slices.length} slices`);
    assert.equal(new Set(slices.map(({ turn }) => turn)).size, slices.length, "two slices in one turn");
    // One event is never cut.
    const most = 128 * 1024;
    assert.ok(slices.filter(({ length }) => length > most).length <= 1, JSON.stringify(slices));
  });
});

describe("refusals", () => {
  test("events that are wrong are rejected with what is wrong, and change nothing", async (t) => {
    const store = await open(t, { maxEventBytes: 1000 });
    const circle = {};
    circle.circle = circle;
    const nested = (depth) => JSON.parse("[".repeat(depth) + "]".repeat(depth));
    const cases = [
      [event("", { sessionKey: "" }), "EVENT_INVALID", /sessionKey/],
      [event("", { sessionKey: "a\u0000b" }), "EVENT_INVALID", /U\+0000/],
      [event("", { sessionKey: "k".repeat(2000) }), "EVENT_INVALID", /2000 bytes/],
      [event("", { sessionKey: "\ud800" }), "EVENT_INVALID", /event 0/],
      [event("", { sessionKey: 5 }), "EVENT_INVALID", /event 0/],
      [event("", { agentId: undefined }), "EVENT_INVALID", /agentId/],
      [event("", { kind: "session_deleted" }), "EVENT_INVALID", /deleteSession/],
      [event("", { timestampMs: "1" }), "EVENT_INVALID", /event 0/],
      [event("", { timestampMs: Number.NaN }), "EVENT_INVALID", /NaN/],
      [event("", { timestampMs: 1e300 }), "EVENT_INVALID", /timestampMs/],
      [event("", { id: "" }), "EVENT_INVALID", /id/],
      [event("", { data: nested(300) }), "EVENT_INVALID", /300 deep/],
      [event("x".repeat(1000)), "EVENT_TOO_LARGE", /maxEventBytes/],
      [event("", { data: 1n }), "EVENT_INVALID", /BigInt/],
      [event("", { data: circle }), "EVENT_INVALID", /circular/],
      [5, "EVENT_INVALID", /event 0/],
      [null, "EVENT_INVALID", /event 0/],
      [undefined, "EVENT_INVALID", /event 0/],
      [[], "EVENT_INVALID", /event 0/],
    ];
    for (const [wrong, code, message] of cases) {
      await assert.rejects(store.append(wrong), { code, message });
      await assert.rejects(store.appendBatch([event("fine"), wrong]), { code });
    }
    for (const wrong of [undefined, null, 5, "[]", {}, event("no array")])
      await assert.rejects(store.appendBatch(wrong), { code: "EVENT_INVALID" });
    assert.equal((await store.stats()).events, 0);
  });

  test("what JSON cannot say is the cause of the error, whatever was thrown", async (t) => {
    const store = await open(t);
    const reason = new Error("not today");
    const data = {
      toJSON() {
        throw reason;
      },
    };
    await assert.rejects(store.append(event("", { data })), (error) => error.cause === reason);
    await assert.rejects(store.append(event("", { data: 1n })), (error) => error.cause instanceof TypeError);
    // A getter may do anything, even append.
    let inner;
    const nesting = {
      get text() {
        inner = store.append(event("inner"));
        return "outer";
      },
    };
    const outer = await store.append(event("", { data: nesting }));
    assert.deepEqual([(await inner).seq, outer.seq, outer.data], [1, 2, { text: "outer" }]);
  });

  test("arguments of the wrong kind are told at once", async (t) => {
    const store = await open(t);
    const refused = (call, message = /must be/) => assert.throws(call, { code: "VALIDATION", message });
    for (const path of [undefined, 5, null, {}]) refused(() => EventStore.open(path), /`path`/);
    for (const options of [5, "x", true]) refused(() => EventStore.open(scratch(), options), /`options`/);
    for (const [name, wrong] of Object.entries({
      durability: ["sometimes", "", 1],
      flushMs: [-1, 0, "1", Number.NaN, 1.5, 2 ** 60],
      cacheBytes: [-1, 0, "1", Number.POSITIVE_INFINITY],
      maxEventBytes: [-1, 0, 0.5, "1"],
      replica: [5, {}],
      readOnly: ["yes", 1],
      retention: [5, "x", { maxAgeMs: -1 }, { maxBytes: "1" }],
      nats: [5, {}, { servers: "nats://a", stream: "s" }, { servers: [1], stream: "s" }, { servers: [] }],
    }))
      for (const value of wrong)
        refused(() => EventStore.open(scratch(), { [name]: value }), new RegExp(`\`${name}|\`max|\`servers`));
    for (const wrong of ["a b", "", "x".repeat(65)])
      await assert.rejects(EventStore.open(scratch(), { replica: wrong }), { code: "VALIDATION" });

    for (const key of [undefined, 5, null, "\ud800"]) {
      refused(() => store.read(key), /`sessionKey`/);
      refused(() => store.projection(key), /`sessionKey`/);
      refused(() => store.deleteSession(key), /`sessionKey`/);
    }
    for (const [name, wrong] of Object.entries({
      after: [-1, 1.5, "1"],
      before: [-1, {}],
      limit: [-1, "1", Number.NaN],
      reverse: [1, "no"],
      kinds: ["x", [1], {}],
    }))
      for (const value of wrong) refused(() => store.read(KEY, { [name]: value }), new RegExp(`\`${name}\``));
    for (const [name, wrong] of Object.entries({
      prefix: [5],
      agentId: [5],
      after: [5],
      limit: [-1],
      order: ["newest", 5],
    }))
      for (const value of wrong) refused(() => store.sessions({ [name]: value }), new RegExp(`\`${name}\``));
    for (const wrong of [{ sessionKey: 5 }, { after: 5 }, { signal: 5 }, 5])
      refused(() => store.follow(wrong));
    refused(() => store.prune({ maxAgeMs: -5 }), /`maxAgeMs`/);
    refused(() => store.prune({ signal: {} }), /`signal`/);
    refused(() => store.verify({ rebuild: 1 }), /`rebuild`/);
    refused(() => store.changes(5), /`since`/);
    refused(() => store.changes("{}"), /`since`/);
    refused(() => store.changes({ a: "x" }), /`a`/);
    refused(() => store.changes({}, { limit: -1 }), /`limit`/);
    for (const wrong of [undefined, "x", [1], new ArrayBuffer(4)])
      refused(() => store.merge(wrong), /`changes`/);
    await assert.rejects(store.merge(new Uint8Array([1, 2, 3])), { code: "EVENT_INVALID" });
    await assert.rejects(store.sessions({ after: "agent:main:none" }), { code: "VALIDATION" });
  });

  test("a closed store refuses everything, and is closed once however often it is told", async () => {
    const store = await EventStore.open(scratch());
    const last = store.append(event("last"));
    const [first, second] = [store.close(), store.close()];
    assert.equal((await last).seq, 1);
    assert.deepEqual(await Promise.all([first, second, store.close()]), [undefined, undefined, undefined]);
    const calls = {
      append: () => store.append(event("late")),
      appendBatch: () => store.appendBatch([]),
      read: () => store.read(KEY),
      projection: () => store.projection(KEY),
      sessions: () => store.sessions(),
      deleteSession: () => store.deleteSession(KEY),
      prune: () => store.prune({ maxBytes: 0 }),
      compact: () => store.compact(),
      version: () => store.version(),
      changes: () => store.changes(),
      verify: () => store.verify(),
      rebuild: () => store.verify({ rebuild: true }),
      stats: () => store.stats(),
      follow: () => store.follow().next(),
    };
    for (const [name, call] of Object.entries(calls))
      await assert.rejects(call, { code: "STORE_CLOSED" }, name);
    await store[Symbol.asyncDispose]();
  });
});

describe("sessions", () => {
  test("the list holds for each session what its projection says, whatever that is", async (t) => {
    const store = await open(t, { durability: "interval" });
    const number = fc.oneof(fc.nat(), fc.double({ noNaN: true }), fc.constant(null));
    const usage = fc.record(
      {
        input: number,
        output: number,
        cacheRead: number,
        cacheWrite: number,
        cacheWrite1h: number,
        totalTokens: number,
        reasoning: number,
        cost: fc.record(
          { input: number, output: number, cacheRead: number, cacheWrite: number, total: number },
          { requiredKeys: [] },
        ),
      },
      { requiredKeys: [] },
    );
    const [data] = [
      fc.oneof(
        fc.record({ text: fc.string({ unit: "binary" }), usage }, { requiredKeys: [] }),
        fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 2 })),
        fc.jsonValue({ maxDepth: 2 }),
      ),
    ];
    const kinds = [
      "agent_response",
      "message_received",
      "state_changed",
      "tool_called",
      "session_ended",
      "x",
    ];
    const generated = fc.sample(
      fc.record({
        sessionKey: fc.nat(400).map((number) => `agent:ü "${number}"`),
        agentId: fc.constantFrom("main", "ops", 'a"\\b', "ü"),
        kind: fc.constantFrom(...kinds),
        data,
        timestampMs: fc.integer({ min: -(10 ** 12), max: 10 ** 13 }),
      }),
      { numRuns: 2500, seed: 11 },
    );
    await store.appendBatch(generated);
    const list = await store.sessions();
    assert.equal(list.length, new Set(generated.map(({ sessionKey }) => sessionKey)).size);
    for (const session of list) assert.deepEqual(session, await store.projection(session.sessionKey));
    const text = JSON.stringify(list[0]);
    assert.equal(text, JSON.stringify(await store.projection(list[0].sessionKey)));
    assert.ok(list.some(({ state }) => Object.keys(state).length > 0));
    assert.ok(list.some(({ usage: { cost } }) => cost?.total !== undefined));
    assert.ok(list.some(({ lastMessage }) => lastMessage === undefined));
  });

  test("they are listed by recency or key, by prefix and agent, in pages", async (t) => {
    const store = await open(t);
    await store.appendBatch(
      ["c", "a", "b", "d"].map((name, index) =>
        event(name, {
          sessionKey: `agent:${name}:main`,
          agentId: name < "c" ? "low" : "high",
          timestampMs: index,
        }),
      ),
    );
    const keys = async (options) =>
      (await store.sessions(options)).map(({ lastMessage }) => lastMessage).join("");
    assert.equal(await keys(), "dbac");
    assert.equal(await keys({ order: "recent", limit: 2 }), "db");
    assert.equal(await keys({ after: "agent:b:main" }), "ac");
    assert.equal(await keys({ order: "key" }), "abcd");
    assert.equal(await keys({ order: "key", after: "agent:a:main", limit: 2 }), "bc");
    assert.equal(await keys({ prefix: "agent:a" }), "a");
    assert.equal(await keys({ agentId: "high" }), "dc");
    assert.equal(await keys({ limit: 0 }), "");
  });

  test("to list thousands costs the JS thread less than to parse their JSON", async (t) => {
    const store = await open(t, { durability: "interval" });
    const usage = {
      input: 1234,
      output: 56,
      cacheRead: 789,
      totalTokens: 2079,
      cost: { input: 0.5, total: 0.5 },
    };
    for (let batch = 0; batch < 10; batch++)
      await store.appendBatch(
        Array.from({ length: 500 }, (_, index) =>
          event(`the answer to number ${index} is as long as most are, and no longer than that`, {
            sessionKey: `agent:main:telegram:direct:${batch * 500 + index}`,
            kind: "agent_response",
            data: { text: "x".repeat(100), usage },
          }),
        ),
      );
    const whole = JSON.stringify(await store.sessions());
    assert.equal(JSON.parse(whole).length, 5000);
    if (process.threadCpuUsage === undefined)
      return t.diagnostic("not timed: this Node has no threadCpuUsage");
    const cpu = () => {
      const { user, system } = process.threadCpuUsage();
      return user + system;
    };
    // Many runs, for the clock of a thread ticks in milliseconds.
    const runs = 20;
    let start = cpu();
    for (let run = 0; run < runs; run++) JSON.parse(whole);
    const parse = (cpu() - start) / runs;
    start = cpu();
    for (let run = 0; run < runs; run++) await store.sessions();
    const list = (cpu() - start) / runs;
    assert.ok(list < parse, `the JS thread worked ${list} µs; parsing the whole takes ${parse} µs`);
  });

  test("a deleted session is gone, and its numbers go on", async (t) => {
    const store = await open(t);
    await store.appendBatch(events(5));
    assert.equal(await store.deleteSession(KEY), 5);
    assert.deepEqual(await store.read(KEY), []);
    assert.deepEqual(await store.sessions(), []);
    assert.equal((await store.read(KEY, { kinds: ["session_deleted"] })).length, 1);
    assert.ok((await store.append(event("again"))).seq > 5);
    assert.equal(await store.deleteSession("agent:none:main"), 0);
  });
});

describe("follow", () => {
  test("history, then what comes: nothing is missed, nothing comes twice", async (t) => {
    const store = await open(t, { durability: "interval" });
    await store.appendBatch(events(2500));
    const followed = take(store.follow(), 5000);
    for (let index = 2500; index < 5000; index += 25)
      await store.appendBatch(Array.from({ length: 25 }, (_, next) => event(`message ${index + next}`)));
    assert.deepEqual(
      (await followed).map(({ seq }) => seq),
      Array.from({ length: 5000 }, (_, index) => index + 1),
    );
  });

  test("it begins after an event, and keeps to one session if told to", async (t) => {
    const store = await open(t);
    const [, second] = await store.appendBatch(events(3));
    const other = event("other", { sessionKey: "agent:other:main" });
    await store.append(other);
    await store.append(event("last"));
    assert.deepEqual(texts(await take(store.follow({ after: second.id }), 3)), [
      "message 2",
      "other",
      "last",
    ]);
    assert.deepEqual(texts(await take(store.follow({ after: second.id, sessionKey: KEY }), 2)), [
      "message 2",
      "last",
    ]);
    const lost = store.follow({ after: "no such event" });
    await assert.rejects(lost.next(), { code: "VALIDATION", message: /no such event/ });
    assert.deepEqual(await lost.next(), { done: true });
  });

  test("a hundred and fifty followers see everything, and none holds up another or the writer", async (t) => {
    const store = await open(t, { durability: "interval" });
    await store.appendBatch(events(100));
    const idle = Array.from({ length: 50 }, () => store.follow());
    const followers = Array.from({ length: 150 }, () => take(store.follow(), 400));
    for (let batch = 0; batch < 30; batch++) await store.appendBatch(events(10));
    for (const seen of await Promise.all(followers))
      assert.deepEqual(
        seen.map(({ seq }) => seq),
        Array.from({ length: 400 }, (_, index) => index + 1),
      );
    for (const stream of idle) assert.equal((await stream.next()).value.seq, 1);
    for (const stream of idle) await stream.return();
  });

  test("elements cross in batches: far fewer turns of the loop than elements", async (t) => {
    const store = await open(t, { durability: "interval" });
    await store.appendBatch(events(4000));
    const stream = store.follow();
    await stream.next();
    let turns = 0;
    let last;
    for (let left = 3999; left > 0; left--) {
      // An answer that is there already comes before the loop turns.
      let turned = false;
      const immediate = setImmediate(() => {
        turned = true;
      });
      last = await stream.next();
      clearImmediate(immediate);
      if (turned) turns++;
    }
    assert.equal(last.value.seq, 4000);
    assert.ok(turns < 200, `${turns} turns`);
    await stream.return();
  });

  test("a follower that does not read holds no more than a few batches", () => {
    const path = scratch();
    const { grown } = fresh(
      `
      const store = await EventStore.open(path, { durability: "interval" });
      const big = Array.from({ length: 64 }, () => event("x".repeat(16_000)));
      for (let batch = 0; batch < 40; batch++) await store.appendBatch(big);
      const before = core.memoryUsage().owners.node;
      const streams = Array.from({ length: 20 }, () => store.follow());
      for (const stream of streams) await stream.next();
      await new Promise((resolve) => setTimeout(resolve, 300));
      const grown = core.memoryUsage().owners.node - before;
      for (const stream of streams) await stream.return();
      await store.close();
      console.log(JSON.stringify({ grown }));`,
      path,
    );
    // Each of twenty could hold 40 MB.
    assert.ok(grown < 20 * 2_000_000, `${grown} bytes`);
  });

  test("parallel calls of next() are answered in their order", async (t) => {
    const store = await open(t, { durability: "interval" });
    const stream = store.follow();
    const order = [];
    const calls = Array.from({ length: 90 }, (_, index) =>
      stream.next().then(({ value }) => {
        order.push(index);
        return value.seq;
      }),
    );
    for (let batch = 0; batch < 9; batch++) await store.appendBatch(events(10));
    const expected = Array.from({ length: 90 }, (_, index) => index);
    assert.deepEqual(
      await Promise.all(calls),
      expected.map((index) => index + 1),
    );
    assert.deepEqual(order, expected);
    const [waiting, ended] = [stream.next(), stream.return()];
    assert.deepEqual(await Promise.all([waiting, ended]), [{ done: true }, { done: true }]);
    assert.deepEqual(await stream.next(), { done: true });
  });

  test("the contract of an async iterable: iterable itself, ended by break, by an error in the body, by disposal", async (t) => {
    const store = await open(t);
    await store.appendBatch(events(50));
    const stream = store.follow();
    assert.equal(stream[Symbol.asyncIterator](), stream);
    for await (const { seq } of stream) if (seq === 3) break;
    assert.deepEqual(await stream.next(), { done: true });
    const thrown = new Error("enough");
    const second = store.follow();
    await assert.rejects(async () => {
      for await (const _ of second) throw thrown;
    }, thrown);
    assert.deepEqual(await second.next(), { done: true });
    const third = store.follow();
    await third.next();
    await third[Symbol.asyncDispose]();
    assert.deepEqual(await third.next(), { done: true });
  });

  test("an abort ends it with the signal's own reason, whatever that is, and once", async (t) => {
    const store = await open(t);
    await store.appendBatch(events(20));
    for (const reason of [new Error("mine"), "text", 5, null, Symbol("s"), { an: "object" }]) {
      for (const waiting of [false, true]) {
        const controller = new AbortController();
        const stream = store.follow({ signal: controller.signal });
        if (waiting) await take({ [Symbol.asyncIterator]: () => ({ next: () => stream.next() }) }, 20);
        else await stream.next();
        const next = waiting ? stream.next() : undefined;
        controller.abort(reason);
        const seen = await (next ?? stream.next()).then(
          () => assert.fail("it went on"),
          (error) => error,
        );
        assert.equal(seen, reason);
        assert.deepEqual(await stream.next(), { done: true });
      }
    }
    const aborted = store.follow({ signal: AbortSignal.abort() });
    await assert.rejects(aborted.next(), { name: "AbortError" });
    assert.deepEqual(await aborted.next(), { done: true });
  });

  test("it ends when the store is closed", async () => {
    const store = await EventStore.open(scratch());
    await store.append(event("one"));
    const seen = [];
    const reading = (async () => {
      for await (const { seq } of store.follow()) seen.push(seq);
    })();
    while (seen.length === 0) await turn();
    await store.close();
    await reading;
    assert.deepEqual(seen, [1]);
  });
});

describe("upkeep", () => {
  test("two stores that exchange changes hold the same, whichever was first", async (t) => {
    const [left, right] = [await open(t, { replica: "left" }), await open(t, { replica: "right" })];
    await left.appendBatch(events(20));
    await right.appendBatch(events(30, { sessionKey: "agent:other:main" }));
    await right.append(event("from the right"));
    assert.deepEqual(await left.version(), { left: "20" });
    const changes = await left.changes();
    assert.ok(changes instanceof Uint8Array);
    assert.deepEqual(await right.merge(changes), { applied: 20, known: 0 });
    assert.deepEqual(await right.merge(changes), { applied: 0, known: 20 });
    assert.deepEqual(await left.merge(await right.changes(await left.version())), { applied: 31, known: 0 });
    assert.deepEqual(await left.version(), await right.version());
    assert.deepEqual(await left.sessions(), await right.sessions());
    const damaged = Uint8Array.from(changes);
    damaged[damaged.length >> 1] ^= 1;
    await assert.rejects(right.merge(damaged), { code: "EVENT_INVALID" });
    const first = await left.changes({}, { limit: 5 });
    const third = await open(t);
    assert.deepEqual(await third.merge(first), { applied: 5, known: 0 });
  });

  test("a sound store verifies, also after it was rebuilt, compacted and pruned", async (t) => {
    const store = await open(t, { durability: "interval" });
    for (let session = 0; session < 20; session++)
      await store.appendBatch(events(50, { sessionKey: `agent:main:${session}`, timestampMs: session }));
    const sound = { ok: true, sessions: 20, events: 1000, problems: [] };
    const before = await store.sessions();
    assert.deepEqual(await store.verify(), sound);
    assert.deepEqual(await store.verify({ rebuild: true }), sound);
    assert.deepEqual(await store.sessions(), before);
    const { before: large, after: small } = await store.compact();
    assert.ok(large > 0 && small > 0);
    const pruned = await store.prune({ maxAgeMs: 1000 });
    assert.deepEqual([pruned.sessions, pruned.events], [20, 1000]);
    assert.ok(pruned.bytes > 0);
    assert.deepEqual(await store.sessions(), []);
    assert.deepEqual(await store.prune(), { sessions: 0, events: 0, bytes: 0 });
    const { sessions, events: left, diskBytes, memoryBytes } = await store.stats();
    assert.deepEqual([sessions, left], [0, 0]);
    assert.ok(diskBytes > 0 && memoryBytes > 0);
  });

  test("long calls reject with the signal's reason", async (t) => {
    const store = await open(t);
    await store.appendBatch(events(10));
    const reason = new Error("no time");
    const signal = AbortSignal.abort(reason);
    const is = (error) => error === reason;
    await assert.rejects(store.verify({ signal }), is);
    await assert.rejects(store.prune({ maxBytes: 0, signal }), is);
    await assert.rejects(store.compact({ signal }), is);
    assert.equal((await store.read(KEY)).length, 10);
  });

  test("a store with a link works while no server is reached, and says so", async (t) => {
    // Nothing listens on the port of discard.
    const store = await open(t, { nats: { servers: ["nats://127.0.0.1:9"], stream: "EVENTS" } });
    await store.append(event("kept"));
    const { nats } = await store.stats();
    assert.deepEqual([nats.state, nats.stream, nats.server], ["connecting", "EVENTS", null]);
    assert.equal((await (await open(t)).stats()).nats, undefined);
  });
});

describe("one writer", () => {
  test("a second store, in this process or another, is told at once who has it; a reader is not", async (t) => {
    const path = scratch();
    const store = await open(t, {}, path);
    await store.append(event("one"));
    await assert.rejects(EventStore.open(path), {
      code: "STORE_LOCKED",
      message: new RegExp(`this process.*${process.pid}`),
    });
    const other = fresh(
      `
      const start = performance.now();
      const { code, message } = await EventStore.open(path).catch((error) => error);
      const reader = await EventStore.open(path, { readOnly: true });
      const read = (await reader.read(event().sessionKey)).length;
      const write = await reader.append(event("two")).catch((error) => error.code);
      const followed = [];
      for await (const { seq } of reader.follow()) followed.push(seq);
      await reader.close();
      console.log(JSON.stringify({ code, message, read, write, followed }));`,
      path,
    );
    assert.equal(other.code, "STORE_LOCKED");
    assert.match(other.message, new RegExp(`process ${process.pid}\\b`));
    assert.deepEqual([other.read, other.write, other.followed], [1, "VALIDATION", [1]]);
    await store.close();
    const again = await open(t, {}, path);
    assert.deepEqual(texts(await again.read(KEY)), ["one"]);
  });

  test("a reader's copy is gone when it is closed, and when its process ends", async () => {
    const path = scratch();
    await (await EventStore.open(path)).close();
    const temporary = scratch();
    mkdirSync(temporary);
    const during = fresh(
      `
      const { readdirSync } = await import("node:fs");
      for (const name of ["TMPDIR", "TMP", "TEMP"]) process.env[name] = ${JSON.stringify(temporary)};
      const copies = () => readdirSync(${JSON.stringify(temporary)}).length;
      const [first, second] = [await EventStore.open(path, { readOnly: true }), await EventStore.open(path, { readOnly: true })];
      const open = copies();
      await first.close();
      console.log(JSON.stringify([open, copies()]));
      globalThis.kept = second;`,
      path,
    );
    assert.deepEqual(during, [2, 1]);
    assert.deepEqual(readdirSync(temporary), []);
  });

  test("a store that is forgotten is closed when it is collected", () => {
    const attempts = fresh(
      `
      let store = await EventStore.open(path, { durability: "interval", flushMs: 3_600_000 });
      await store.append(event("one"));
      store = undefined;
      let again;
      let attempts = 0;
      while (again === undefined) {
        if (++attempts === 1000) throw new Error("still locked");
        gc();
        await new Promise((resolve) => setImmediate(resolve));
        again = await EventStore.open(path).catch((error) => {
          if (error.code !== "STORE_LOCKED") throw error;
        });
      }
      const { length } = await again.read(event().sessionKey);
      if (length !== 1) throw new Error(length + " events");
      console.log(attempts);`,
      scratch(),
      { args: ["--expose-gc"] },
    );
    assert.ok(attempts >= 1);
  });

  test("a live follower keeps its store open though nobody else has it", () => {
    const followed = fresh(
      `
      let store = await EventStore.open(path);
      await store.append(event("one"));
      const stream = store.follow();
      await stream.next();
      const next = stream.next();
      store = undefined;
      for (let times = 0; times < 20; times++) {
        gc();
        await new Promise((resolve) => setImmediate(resolve));
      }
      const locked = await EventStore.open(path).catch(({ code }) => code);
      stream.return();
      console.log(JSON.stringify([locked, await next]));`,
      scratch(),
      { args: ["--expose-gc"] },
    );
    assert.deepEqual(followed, ["STORE_LOCKED", { done: true }]);
  });
});

describe("the end of a process", () => {
  const kept = async (path) => {
    const store = await EventStore.open(path);
    try {
      const { ok } = await store.verify();
      assert.ok(ok);
      return (await store.read(KEY)).length;
    } finally {
      await store.close();
    }
  };
  // Nothing is flushed by itself, so that only the end of the process can.
  const appended = `
    const store = await EventStore.open(path, { durability: "interval", flushMs: 3_600_000 });
    for (let index = 0; index < 100; index++) await store.append(event(index));
  `;

  for (const [how, script, code] of [
    ["by coming to its end", "", 0],
    ["by process.exit()", "process.exit(0);", 0],
    ["by process.exit() while appends are under way", "store.append(event('more')); process.exit(0);", 0],
    ["while a stream is open that nobody reads", "store.follow();", 0],
    ["by an error that nobody catches", "setImmediate(() => { throw new Error('on purpose'); });", 1],
    ["while it closes", "store.close(); process.exit(0);", 0],
  ])
    test(`${how} keeps what was acknowledged`, async () => {
      const path = scratch();
      fresh(appended + script, path, { code });
      assert.ok((await kept(path)) >= 100);
    });

  for (const [how, script] of [
    ["comes to its end", ""],
    ["exits", "process.exit(0);"],
    ["is terminated", "parentPort.postMessage('done'); setInterval(() => {}, 1000);"],
  ])
    test(`a worker thread that ${how} keeps what was acknowledged, and another may then open the store`, async () => {
      const path = scratch();
      const read = fresh(
        `
        import { Worker } from "node:worker_threads";
        const code = ${JSON.stringify(`${prelude(path).replace(/^\s*import core from (.*);$/m, "const core = require($1);")}
          const { parentPort } = require("node:worker_threads");
          (async () => { ${appended} ${script} })();`)};
        const worker = new Worker(code, { eval: true, execArgv: [] });
        worker.on("message", () => worker.terminate());
        await new Promise((resolve) => worker.on("exit", resolve));
        const store = await EventStore.open(path);
        console.log((await store.read(event().sessionKey)).length);`,
        path,
      );
      assert.equal(read, 100);
    });

  test("by kill -9 keeps what was acknowledged", async () => {
    const path = scratch();
    const child = spawn(
      process.execPath,
      [
        "--input-type=module",
        "-e",
        `${prelude(path)}
        const store = await EventStore.open(path);
        for (let index = 1; ; index++) {
          await store.append(event(index));
          process.stdout.write(index + "\\n");
        }`,
      ],
      { cwd: root, stdio: ["ignore", "pipe", "inherit"] },
    );
    let said = "";
    for await (const chunk of child.stdout) {
      said += chunk;
      if (said.split("\n").length > 200) child.kill("SIGKILL");
    }
    const acknowledged = Number(said.split("\n").at(-2));
    assert.ok(acknowledged >= 200);
    assert.ok((await kept(path)) >= acknowledged);
  });

  // A limit on the size of files stands for a disk that is full, and is not any more.
  const limitFiles = `
      const { spawnSync } = await import("node:child_process");
      const { statSync } = await import("node:fs");
      const { setTimeout: sleep } = await import("node:timers/promises");
      const limitFiles = (bytes) => {
        const { status, stderr } = spawnSync("prlimit", ["--pid", process.pid, "--fsize=" + bytes + ":unlimited"]);
        if (status !== 0) throw new Error("prlimit: " + stderr);
      };`;
  const noLimits = process.platform !== "linux" && "only on Linux does one process limit another's files";
  test("on a full disk refuses, and goes on by itself when there is room again", { skip: noLimits }, () => {
    const outcome = fresh(
      `
      ${limitFiles}
      const store = await EventStore.open(path);
      const kept = [];
      const refused = [];
      let n = 0;
      const append = async () => {
        const text = n++ + " " + "x".repeat(20_000);
        try {
          await store.append(event(text));
          kept.push(text);
          return true;
        } catch ({ code, message }) {
          if (code !== "IO") throw new Error(code + ": " + message);
          refused.push(text);
          return false;
        }
      };
      for (let round = 0; round < 3; round++) {
        for (let count = 0; count < 20; count++) if (!(await append())) throw new Error("refused on an empty disk");
        limitFiles(statSync(path + "/gen-1/db").size);
        const before = refused.length;
        while (refused.length < before + 20) await append();
        limitFiles("unlimited");
        for (const end = Date.now() + 60_000; !(await append()); await sleep(20))
          if (Date.now() > end) throw new Error("it does not go on");
      }
      const texts = (await store.read(event().sessionKey)).map(({ data }) => data.text);
      const { code, problems } = await store.verify().then((report) => ({ problems: report.problems }), (error) => error);
      await store.close();
      const again = await EventStore.open(path);
      const reopened = (await again.read(event().sessionKey)).map(({ data }) => data.text);
      await again.close();
      console.log(JSON.stringify({
        lost: kept.filter((text) => !texts.includes(text)).length,
        doubled: texts.length - new Set(texts).size,
        others: texts.filter((text) => !kept.includes(text) && !refused.includes(text)).length,
        same: JSON.stringify(texts) === JSON.stringify(reopened),
        refused: refused.length, code, problems,
      }));`,
      scratch(),
    );
    const { refused, ...rest } = outcome;
    assert.deepEqual(rest, { lost: 0, doubled: 0, others: 0, same: true, problems: [] });
    assert.ok(refused >= 60);
  });

  test("on a full disk, whoever follows a store that lost what it had acknowledged is told", {
    skip: noLimits,
  }, () => {
    const outcome = fresh(
      `
      ${limitFiles}
      const store = await EventStore.open(path, { durability: "interval", flushMs: 3_600_000 });
      const append = (text) => store.append(event(text + " ".repeat(20_000)));
      const textOf = ({ data }) => data.text.trim();
      const follow = store.follow();
      const session = store.follow({ sessionKey: event().sessionKey });
      const acknowledged = ["one", "two", "three"];
      for (const text of acknowledged) {
        await append(text);
        for (const each of [follow, session])
          if (textOf((await each.next()).value) !== text) throw new Error("not in order");
      }
      limitFiles(statSync(path + "/gen-1/db").size);
      while (await append("refused".repeat(100_000)).catch(({ code }) => code !== "IO"));
      limitFiles("unlimited");
      for (const end = Date.now() + 60_000; !(await append("after").catch(() => false)); await sleep(20))
        if (Date.now() > end) throw new Error("it does not go on");
      const ends = await Promise.all([follow, session].map((each) => each.next().catch(({ code }) => code)));
      const left = (await store.read(event().sessionKey)).map(textOf);
      const anew = [];
      for await (const one of store.follow()) if (anew.push(textOf(one)) === left.length) break;
      await store.close();
      console.log(JSON.stringify({
        lost: acknowledged.some((text) => !left.includes(text)),
        ends,
        whole: JSON.stringify(anew) === JSON.stringify(left),
      }));`,
      scratch(),
    );
    assert.deepEqual(outcome, { lost: true, ends: ["IO", "IO"], whole: true });
  });

  test("closing gives the memory back", () => {
    const held = fresh(
      `
      const { mkdtempSync } = await import("node:fs");
      const held = [];
      for (let round = 0; round < 4; round++) {
        const store = await EventStore.open(path + round, { durability: "interval" });
        const batch = Array.from({ length: 1000 }, (_, index) =>
          event("x".repeat(1000), { sessionKey: "agent:main:" + (index % 50) }));
        for (let index = 0; index < 10; index++) await store.appendBatch(batch);
        const full = core.memoryUsage().owners.events;
        await store.close();
        // The writer frees what is left after it has answered.
        let now = core.memoryUsage().owners.events;
        for (let turns = 0; turns < 100 && now > (held.at(-1)?.now ?? 0) + 600_000; turns++) {
          await new Promise((resolve) => setTimeout(resolve, 10));
          now = core.memoryUsage().owners.events;
        }
        held.push({ full, now });
      }
      console.log(JSON.stringify(held));`,
      scratch(),
    );
    // From the first store on, sled keeps empty tables for statistics; and of each database one buffer of half a
    // megabyte, which it never frees.
    const [first, ...later] = held;
    for (const [index, { full, now }] of later.entries()) {
      assert.ok(full - now > 10_000_000, JSON.stringify(held));
      assert.ok(now - first.now < 600_000 * (index + 1) + 300_000, JSON.stringify(held));
    }
  });
});
