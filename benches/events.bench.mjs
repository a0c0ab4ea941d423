// The event store against what a Node program would use instead: node:sqlite with WAL and synchronous=FULL, JSONL with
// fdatasync, and the bare write + fdatasync that no durable log can beat.
import fs from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { compareAsync, random, row } from "./measure.mjs";

export const title = "Event store";
export const node = "24";

const require = createRequire(import.meta.url);
const KILOBYTE = "x".repeat(930);
const AGENT = "agent:main:telegram:direct:12345678";

/** About 1 KB as JSON. */
const event = (sessionKey = AGENT, text = KILOBYTE) => ({
  sessionKey,
  agentId: "main",
  kind: "message_received",
  data: { text, from: "alice", channel: "telegram" },
});
const events = (count, sessionKey) => Array.from({ length: count }, () => event(sessionKey));

/** One INSERT a call, each a transaction of its own. */
function sqlite(path) {
  const db = new DatabaseSync(path);
  db.exec(
    "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE events (session TEXT, seq INTEGER, json TEXT, PRIMARY KEY (session, seq)) WITHOUT ROWID",
  );
  const insert = db.prepare("INSERT INTO events VALUES (?, ?, ?)");
  let seq = 0;
  return { append: (one) => insert.run(one.sessionKey, ++seq, JSON.stringify(one)), close: () => db.close() };
}

/** Appends lines; those that come while others are put on the disk share the next write and fdatasync. */
async function grouped(path) {
  const file = await fs.promises.open(path, "a");
  let waiting = [];
  let running = false;
  const drain = async () => {
    running = true;
    while (waiting.length > 0) {
      const group = waiting;
      waiting = [];
      await file.write(group.map(({ line }) => line).join(""));
      await file.datasync();
      for (const { resolve } of group) resolve();
    }
    running = false;
  };
  return {
    append: (one) =>
      new Promise((resolve) => {
        waiting.push({ line: `${JSON.stringify(one)}\n`, resolve });
        if (!running) drain();
      }),
    close: () => file.close(),
  };
}

/** `clients` that each append one event after the other; appends a second. */
async function concurrently(append, clients, each) {
  const start = performance.now();
  await Promise.all(
    Array.from({ length: clients }, async () => {
      for (let turn = 0; turn < each; turn++) await append(event());
    }),
  );
  return (clients * each * 1000) / (performance.now() - start);
}

const shuffled = (values, next) =>
  values
    .map((value) => [next(), value])
    .sort(([a], [b]) => a - b)
    .map(([, value]) => value);

async function durableRows(EventStore, scratch) {
  const store = await EventStore.open(join(scratch, "durable"));
  const database = sqlite(join(scratch, "durable.sqlite"));
  const lines = await grouped(join(scratch, "grouped.jsonl"));
  const plain = await fs.promises.open(join(scratch, "plain.jsonl"), "a");
  const bare = async (one) => {
    await plain.write(`${JSON.stringify(one)}\n`);
    await plain.datasync();
  };
  const next = random(3);
  const rate = { core: [], "node:sqlite FULL": [], "grouped write + fdatasync": [] };
  for (let turn = -2; turn < 15; turn++) {
    const contenders = shuffled(
      [
        ["core", (one) => store.append(one), 40],
        ["node:sqlite FULL", async (one) => database.append(one), 2],
        ["grouped write + fdatasync", lines.append, 40],
      ],
      next,
    );
    for (const [name, append, each] of contenders) {
      const speed = await concurrently(append, 64, each);
      if (turn >= 0) rate[name].push(speed);
    }
  }
  const single = { core: [], "bare write + fdatasync": [], "node:sqlite FULL": [] };
  for (let turn = -20; turn < 400; turn++) {
    const contenders = shuffled(
      [
        ["core", () => store.append(event())],
        ["bare write + fdatasync", () => bare(event())],
        ["node:sqlite FULL", async () => database.append(event())],
      ],
      next,
    );
    for (const [name, append] of contenders) {
      const start = performance.now();
      await append();
      if (turn >= 0) single[name].push((performance.now() - start) * 1000);
    }
  }
  await store.close();
  database.close();
  await lines.close();
  await plain.close();
  return [
    row({
      title: "64 durable appends at once",
      unit: "appends/s",
      samples: rate,
      smallerIsBetter: false,
      target: {
        text: "≥ 20× node:sqlite, ≥ 0.7× grouped writes",
        met: ({ contenders }) =>
          contenders.core.median >= 20 * contenders["node:sqlite FULL"].median &&
          contenders.core.median >= 0.7 * contenders["grouped write + fdatasync"].median,
      },
    }),
    row({
      title: "one durable append",
      unit: "µs",
      samples: single,
      target: {
        text: "p50 ≤ 2.5× bare write + fdatasync",
        met: ({ contenders }) => contenders.core.median <= 2.5 * contenders["bare write + fdatasync"].median,
      },
    }),
  ];
}

async function bulkRows(EventStore, scratch) {
  const rows = [];
  const folder = join(scratch, "bulk");
  const store = await EventStore.open(folder, { durability: "interval", flushMs: 100 });
  const long = "agent:main:long";
  const pour = async (sessionKey, count, inFlight = 4) => {
    let left = count;
    await Promise.all(
      Array.from({ length: inFlight }, async () => {
        while (left > 0) {
          const size = Math.min(64, left);
          left -= size;
          await store.appendBatch(events(size, sessionKey));
        }
      }),
    );
  };
  await pour("agent:main:warm", 20_000);
  const speeds = [];
  for (let turn = 0; turn < 12; turn++) {
    const start = performance.now();
    await pour(long, 12_800);
    speeds.push((12_800 * 1000) / (performance.now() - start));
  }
  rows.push(
    row({
      title: "appends of 1 KB in batches of 64, interval",
      unit: "appends/s",
      samples: { core: speeds },
      smallerIsBetter: false,
      target: { text: "≥ 50,000/s", met: ({ contenders }) => contenders.core.median >= 50_000 },
    }),
  );
  // The same append where the session has 100 events and where it has more than 100,000.
  const growth = { "at 100,000 events": [], "at 100 events": [] };
  for (let turn = 0; turn < 150; turn++) {
    const short = `agent:main:short:${turn}`;
    await pour(short, 100);
    const both = [
      ["at 100,000 events", long],
      ["at 100 events", short],
    ];
    for (const [name, sessionKey] of turn % 2 ? both : both.reverse()) {
      const batch = events(64, sessionKey);
      const start = performance.now();
      await store.appendBatch(batch);
      growth[name].push(((performance.now() - start) * 1000) / 64);
    }
  }
  rows.push(
    row({
      title: "append to a long session",
      unit: "µs an event",
      samples: growth,
      target: {
        text: "≤ 1.2× a short one",
        met: ({ contenders }) =>
          contenders["at 100,000 events"].median <= 1.2 * contenders["at 100 events"].median,
      },
    }),
  );
  await pour(long, 1_000_000 - 12 * 12_800 - 150 * 64);
  const pages = await compareAsync(
    {
      "first page": () => store.read(long, { limit: 50 }),
      "last page": () => store.read(long, { limit: 50, reverse: true }),
      projection: () => store.projection(long),
    },
    { turns: 200, warmUp: 20 },
  );
  rows.push(
    row({
      title: "page of 50 of a session of 1,000,000",
      unit: "ms",
      samples: { "first page": pages["first page"], "last page": pages["last page"] },
      target: { text: "≤ 2 ms", met: ({ contenders }) => contenders["first page"].median <= 2 },
    }),
    row({
      title: "projection of a session of 1,000,000",
      unit: "µs",
      samples: { core: pages.projection.map((ms) => ms * 1000) },
      target: { text: "≤ 100 µs", met: ({ contenders }) => contenders.core.median <= 100 },
    }),
  );
  const payload = (await store.projection(long)).events * JSON.stringify(event(long).data).length;
  const { after } = await store.compact();
  const { events: all } = await store.stats();
  const bytes = (payload / (await store.projection(long)).events) * all;
  rows.push(
    row({
      title: "disk after compaction, against the payload",
      unit: "×",
      samples: { core: [after / bytes] },
      target: { text: "≤ 3×", met: ({ contenders }) => contenders.core.median <= 3 },
    }),
  );
  await store.close();
  return rows;
}

async function listRow(EventStore, scratch) {
  const store = await EventStore.open(join(scratch, "many"), { durability: "interval" });
  for (let first = 0; first < 10_000; first += 100)
    await store.appendBatch(
      Array.from({ length: 300 }, (_, at) => ({
        ...event(`agent:main:telegram:direct:${1_000_000 + first + (at % 100)}`, `message ${at} of a talk`),
        kind: at % 3 ? "agent_response" : "message_received",
        data: { text: `message ${at} of a talk`, usage: { input: 100, output: 20, totalTokens: 120 } },
      })),
    );
  const total = [];
  const onThread = [];
  for (let turn = -5; turn < 40; turn++) {
    const start = performance.now();
    const busy = performance.eventLoopUtilization();
    const found = await store.sessions();
    const used = performance.eventLoopUtilization(busy).active;
    if (found.length !== 10_000) throw new Error(`${found.length} sessions were listed`);
    if (turn >= 0) {
      total.push(performance.now() - start);
      onThread.push(used);
    }
  }
  await store.close();
  return row({
    title: "list 10,000 sessions",
    unit: "ms",
    samples: { "in all": total, "on the JS thread": onThread },
    target: {
      text: "≤ 50 ms, ≤ 5 ms on the JS thread",
      met: ({ contenders }) =>
        contenders["in all"].median <= 50 && contenders["on the JS thread"].median <= 5,
    },
  });
}

export async function run() {
  const { EventStore } = require("../index.js");
  // Not a file system in memory, where nothing is durable.
  const scratch = fs.realpathSync(fs.mkdtempSync(join(os.tmpdir(), "openclaw-core-bench-")));
  try {
    const rows = await durableRows(EventStore, scratch);
    rows.push(await listRow(EventStore, scratch));
    rows.push(...(await bulkRows(EventStore, scratch)));
    for (const { title, contenders } of rows)
      console.error(
        title,
        Object.entries(contenders)
          .map(([name, { median }]) => `${name} ${median.toPrecision(4)}`)
          .join(" · "),
      );
    return rows;
  } finally {
    fs.rmSync(scratch, { recursive: true, force: true });
  }
}
