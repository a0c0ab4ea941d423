// Import of what stock OpenClaw has recorded, and export of what its own reader takes.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { zstdCompressSync } from "node:zlib";
import { startModelServer } from "../sim/model/server.mjs";
import { createHome, until } from "./fixture.mjs";
import { stockFunction } from "./stock.mjs";
import { configureTurn, runTurn } from "./turn.mjs";

const root = fileURLToPath(new URL("../../", import.meta.url));
const { EventStore, transcriptEvents } = createRequire(import.meta.url)("../../index.js");
const KEY = "agent:main:main";
// Long and regular enough for OpenClaw to compress the rows that hold it.
const note = Array.from({ length: 120 }, (_, n) => `the kettle is on shelf ${n % 7}`).join(", ");

let base;
before(() => {
  base = mkdtempSync(join(tmpdir(), "openclaw-core-import-"));
});
after(() => rmSync(base, { recursive: true, force: true }));

const folder = (name) => mkdtempSync(join(base, `${name}-`));

async function openStore(t, options) {
  const store = await EventStore.open(join(folder("store"), "events"), options);
  t.after(() => store.close());
  return store;
}

/** Every file under a folder, by its bytes. */
function hashes(path) {
  return Object.fromEntries(
    readdirSync(path, { recursive: true, withFileTypes: true })
      .map((entry) => {
        const file = join(entry.parentPath, entry.name);
        return [
          file,
          entry.isFile() ? createHash("sha256").update(readFileSync(file)).digest("hex") : "folder",
        ];
      })
      .sort(),
  );
}

const databaseOf = (stateDir, agent = "main") =>
  join(stateDir, "agents", agent, "agent", "openclaw-agent.sqlite");

/** What a database of OpenClaw holds, read from a copy of it. */
function rowsOf(stateDir) {
  const copy = folder("rows");
  for (const suffix of ["", "-wal"])
    if (existsSync(databaseOf(stateDir) + suffix))
      cpSync(databaseOf(stateDir) + suffix, join(copy, `db${suffix}`));
  const database = new DatabaseSync(join(copy, "db"));
  try {
    const { zstdDecompressSync } = createRequire(import.meta.url)("node:zlib");
    return database
      .prepare("SELECT session_id, event_json, event_zstd FROM transcript_events ORDER BY session_id, seq")
      .all()
      .map((row) => ({
        sessionId: row.session_id,
        compressed: row.event_zstd !== null,
        text: row.event_json ?? zstdDecompressSync(row.event_zstd).toString("utf8"),
      }));
  } finally {
    database.close();
  }
}

/** What an event must be for an entry of a transcript. */
function expectedEvents(rows) {
  return rows.flatMap(({ sessionId, text }) => {
    const entry = JSON.parse(text);
    const data = { sessionId, entry };
    if (entry.type === "session") return [{ kind: "session_started", id: `session:${sessionId}`, data }];
    const kinds = { user: "message_received", assistant: "agent_response", toolResult: "tool_result" };
    const kind = kinds[entry.message?.role] ?? `transcript_${entry.type}`;
    const calls = (entry.message?.role === "assistant" ? entry.message.content : [])
      .filter(({ type }) => type === "toolCall")
      .map(({ id, name, arguments: args }) => ({
        kind: "tool_called",
        id: `tool:${sessionId}:${id}`,
        data: { sessionId, toolCallId: id, name, arguments: args },
      }));
    return [{ kind, id: `transcript:${sessionId}:${entry.id}`, data }, ...calls];
  });
}

const brief = ({ kind, id, data }) => ({ kind, id, data });

describe("a session of stock OpenClaw", () => {
  let server;
  let home;
  let rows;
  before(async () => {
    server = await startModelServer();
    home = await createHome();
    await configureTurn(home, server);
    const { problems, stdout, stderr } = await runTurn(home, server, { note });
    assert.deepEqual(problems, [], `${stdout}\n${stderr}`);
    rows = rowsOf(home.stateDir);
    assert.ok(rows.length > 6, `the turn left ${rows.length} rows`);
    assert.ok(
      rows.some(({ compressed }) => compressed),
      "OpenClaw compressed no row: the test sees less than it should",
    );
  });
  after(async () => {
    await home?.remove();
    await server?.close();
  });

  test("comes in whole, once, and its source stays as it was", async (t) => {
    const store = await openStore(t);
    const source = hashes(home.stateDir);
    const expected = expectedEvents(rows);

    const dry = await store.importOpenClaw(home.stateDir, { dryRun: true });
    assert.deepEqual(dry, { sessions: 1, events: expected.length, skipped: [], alreadyPresent: 0 });
    assert.deepEqual(await store.sessions(), []);

    const progress = [];
    const report = await store.importOpenClaw(home.stateDir, { onProgress: (step) => progress.push(step) });
    assert.deepEqual(report, dry);
    const last = progress.at(-1);
    assert.ok(last.total > 0 && last.done === last.total, JSON.stringify(progress));

    const events = await store.read(KEY);
    assert.deepEqual(events.map(brief), expected);
    assert.ok(events.every(({ agentId, sessionKey }) => agentId === "main" && sessionKey === KEY));
    for (const { data, timestampMs } of events)
      if (data.entry) assert.equal(timestampMs, Date.parse(data.entry.timestamp));
    const [projection] = await store.sessions();
    assert.equal(projection.messages, 3);
    assert.equal(projection.toolCalls, 1);

    assert.deepEqual(await store.importOpenClaw(home.stateDir), {
      ...report,
      events: 0,
      alreadyPresent: expected.length,
    });
    assert.deepEqual(hashes(home.stateDir), source);
  });

  test("gives the events that transcriptEvents makes of its entries", async (t) => {
    const store = await openStore(t);
    await store.importOpenClaw(home.stateDir);
    const [{ sessionId }] = rows;
    const made = transcriptEvents(
      { sessionKey: KEY, agentId: "main", sessionId },
      rows.map(({ text }) => JSON.parse(text)),
    );
    const stored = (await store.read(KEY)).map(({ sessionKey, agentId, kind, data, timestampMs, id }) => ({
      sessionKey,
      agentId,
      kind,
      data,
      timestampMs,
      id,
    }));
    assert.deepEqual(made, stored);
    assert.throws(() => transcriptEvents({ sessionKey: KEY, agentId: "main", sessionId }, [1]), {
      code: "EVENT_INVALID",
    });
  });

  test("goes out as a transcript that OpenClaw's own reader takes, and comes back as nothing new", async (t) => {
    const store = await openStore(t);
    await store.importOpenClaw(home.stateDir);
    const text = await store.exportTranscript(KEY);
    const original = rows.map((row) => JSON.parse(row.text));
    assert.equal(original[0].version, 4);

    const parse = await stockFunction("src/agents/sessions/session-manager-codec.ts", "parseSessionEntries");
    const partition = await stockFunction(
      "src/config/sessions/session-entry-codec.ts",
      "partitionSessionFileEntries",
    );
    const assertCurrent = await stockFunction(
      "src/config/sessions/session-entry-codec.ts",
      "assertCurrentSessionTranscriptHeader",
    );
    const context = await stockFunction(
      "src/agents/sessions/session-manager-codec.ts",
      "buildSessionContext",
    );
    const entries = parse(text);
    assert.deepEqual(entries, original);
    assertCurrent(entries[0]);
    const { fileEntries, opaqueEntries } = partition(entries);
    assert.deepEqual(opaqueEntries, []);
    assert.equal(fileEntries.length, entries.length);
    const read = context(fileEntries.slice(1));
    assert.deepEqual(
      read,
      context(partition(parse(rows.map((row) => row.text).join("\n"))).fileEntries.slice(1)),
    );
    assert.ok(JSON.stringify(read.messages).includes(note.slice(0, 40)));

    // As a state folder of its own.
    const copy = folder("exported");
    const sessions = join(copy, "agents/main/sessions");
    mkdirSync(sessions, { recursive: true });
    const { sessionId } = rows[0];
    writeFileSync(join(sessions, "sessions.json"), JSON.stringify({ [KEY]: { sessionId, updatedAt: 1 } }));
    writeFileSync(join(sessions, `${sessionId}.jsonl`), text);
    const again = await store.importOpenClaw(copy);
    assert.deepEqual([again.events, again.skipped], [0, []]);
    const other = await openStore(t);
    await other.importOpenClaw(copy);
    assert.equal(await other.exportTranscript(KEY), text);
  });

  test("goes back into a fresh OpenClaw through that OpenClaw's own importer", async (t) => {
    const store = await openStore(t);
    await store.importOpenClaw(home.stateDir);
    const fresh = await createHome({ config: "{ gateway: { mode: 'local' } }" });
    t.after(() => fresh.remove());
    const { sessionId } = rows[0];
    const file = await fresh.write("exported.jsonl", await store.exportTranscript(KEY));
    const stock = JSON.stringify(fileURLToPath(new URL("stock.mjs", import.meta.url)));
    const { code, stdout, stderr } = await fresh.node(
      [
        "--no-warnings",
        "--input-type=module",
        "--eval",
        `const { stockFunction } = await import(${stock});
         const batch = await stockFunction("src/config/sessions/session-accessor.sqlite-import.ts", "importSqliteSessionRowsBatch");
         const reader = await stockFunction("src/commands/doctor-session-sqlite-readers.ts", "createTranscriptEventReader");
         const [{ transcriptEvents }] = await batch([{
           agentId: "main", storePath: ${JSON.stringify(databaseOf(fresh.stateDir))}, sessionKey: ${JSON.stringify(KEY)},
           entry: { sessionId: ${JSON.stringify(sessionId)}, updatedAt: Date.now() },
           readTranscriptEvents: reader(${JSON.stringify(file)}, ${JSON.stringify(sessionId)}),
         }]);
         console.log("imported " + transcriptEvents);
         process.exit(0);`,
      ],
      { timeoutMs: 16_000 },
    );
    assert.equal(code, 0, stderr);
    assert.match(stdout, new RegExp(`imported ${rows.length}`));
    assert.deepEqual(
      rowsOf(fresh.stateDir).map(({ text }) => JSON.parse(text)),
      rows.map(({ text }) => JSON.parse(text)),
    );
    // The same facts, though they went round by another database.
    const report = await store.importOpenClaw(fresh.stateDir);
    assert.deepEqual([report.events, report.skipped], [0, []]);
  });

  test("is read beside a gateway that runs, and out of the log that a killed one leaves", async (t) => {
    const live = await createHome();
    t.after(() => live.remove());
    await configureTurn(live, server);
    let gateway = await live.startGateway();
    t.after(() => gateway?.stop());
    writeFileSync(join(live.workspace, "note.txt"), note);
    const ask = async () => {
      const args = ["agent", "--agent", "main", "--message", "What does note.txt say?", "--json"];
      const { code, stdout, stderr } = await live.openclaw(args);
      assert.equal(code, 0, `${stdout}\n${stderr}\n${gateway.log()}`);
      assert.ok(stdout.includes("the kettle"), stdout);
    };
    await ask();
    const agent = dirname(databaseOf(live.stateDir));
    const files = readdirSync(agent);
    assert.ok(files.includes("openclaw-agent.sqlite-wal"), `the gateway has no log open: ${files}`);
    const store = await openStore(t);
    const first = await store.importOpenClaw(live.stateDir);
    assert.deepEqual(first.skipped, []);
    assert.deepEqual(readdirSync(agent), files);
    const [projection] = await store.sessions();
    assert.equal(projection.messages, 3);

    // It goes on as if nothing had been.
    await ask();
    const second = await store.importOpenClaw(live.stateDir);
    assert.ok(second.events >= 4 && second.alreadyPresent === first.events, JSON.stringify(second));

    process.kill(-gateway.pid, "SIGKILL");
    await until(async () => !(await fetch(`${gateway.url}/healthz`).catch(() => undefined)), {
      timeoutMessage: "the gateway outlives SIGKILL",
    });
    await gateway.stop();
    gateway = undefined;
    const source = hashes(live.stateDir);
    assert.ok(
      readFileSync(`${databaseOf(live.stateDir)}-wal`).length > 0,
      "the killed gateway left no log: the test sees less than it should",
    );
    const fresh = await openStore(t);
    const report = await fresh.importOpenClaw(live.stateDir);
    assert.deepEqual(
      (await fresh.read(projection.sessionKey)).map(brief),
      expectedEvents(rowsOf(live.stateDir)),
    );
    assert.deepEqual(report.skipped, []);
    assert.deepEqual(hashes(live.stateDir), source);
  });

  test("is read out of cold storage", async (t) => {
    const stateDir = folder("cold");
    cpSync(home.stateDir, stateDir, { recursive: true });
    const { sessionId } = rows[0];
    const cold = await createHome();
    t.after(() => cold.remove());
    const stock = JSON.stringify(fileURLToPath(new URL("stock.mjs", import.meta.url)));
    const path = databaseOf(stateDir);
    // OpenClaw's own archive of the transcript; then, as OpenClaw does, its row instead of the transcript's.
    const { code, stdout, stderr } = await cold.node(
      [
        "--no-warnings",
        "--input-type=module",
        "--eval",
        `const { stockFunction } = await import(${stock});
         const prepare = await stockFunction("src/config/sessions/session-cold-storage-worker.ts", "prepareSessionColdBatchInWorker");
         const snapshot = await stockFunction("src/config/sessions/session-accessor.sqlite-delete-snapshot.ts", "readSessionStateDeleteSnapshot");
         const { DatabaseSync } = await import("node:sqlite");
         const database = new DatabaseSync(${JSON.stringify(path)});
         const databaseOptions = { agentId: "main", path: ${JSON.stringify(path)} };
         const sessionId = ${JSON.stringify(sessionId)};
         database.prepare("INSERT OR IGNORE INTO transcript_rewrite_watermarks VALUES (?, 'a', 1)").run(sessionId);
         const plan = { sessionId, databaseOptions, snapshot: snapshot(database, sessionId) };
         const { prepared: [{ archive }] } = await prepare({ databaseOptions, maxBytes: 1 << 26, externalizations: [], plans: [plan] });
         const names = Object.keys(archive);
         database.prepare(\`INSERT INTO session_transcript_cold_archives (\${names}) VALUES (\${names.map(() => "?")})\`).run(...Object.values(archive));
         database.prepare("DELETE FROM transcript_events WHERE session_id = ?").run(sessionId);
         database.close();
         console.log("archived " + archive.event_count);
         process.exit(0);`,
      ],
      { timeoutMs: 16_000, env: { OPENCLAW_STATE_DIR: stateDir } },
    );
    assert.equal(code, 0, stderr);
    assert.match(stdout, new RegExp(`archived ${rows.length}`));
    assert.deepEqual(rowsOf(stateDir), []);
    const store = await openStore(t);
    const report = await store.importOpenClaw(stateDir);
    assert.deepEqual(report.skipped, []);
    assert.deepEqual((await store.read(KEY)).map(brief), expectedEvents(rows));

    const [archive] = readdirSync(join(stateDir, "agents/main/sessions/cold"));
    writeFileSync(join(stateDir, "agents/main/sessions/cold", archive), "no archive");
    const damaged = await (await openStore(t)).importOpenClaw(stateDir);
    assert.equal(damaged.events, 0);
    assert.match(damaged.skipped[0].reason, /do not match their registered hash/);
  });
});

// ── databases made by hand: older schemas, archives, damage ───────────────────────────────────────────────────────

const line = (id, extra = "") =>
  `{"type":"custom","id":"${id}","parentId":null,"timestamp":"2026-06-01T00:00:00.000Z"${extra}}`;

/** A state folder with a database of one agent. */
function stateWith(fill) {
  const stateDir = folder("state");
  mkdirSync(dirname(databaseOf(stateDir)), { recursive: true });
  const database = new DatabaseSync(databaseOf(stateDir));
  fill(database, stateDir);
  database.close();
  return stateDir;
}

test("the first SQLite schema is read, and a row that is damaged is named", async (t) => {
  const stateDir = stateWith((database) => {
    database.exec(`
      CREATE TABLE session_entries (session_key TEXT PRIMARY KEY, session_id TEXT, entry_json TEXT);
      CREATE TABLE transcript_events (session_id TEXT, seq INTEGER, event_json TEXT, created_at INTEGER, PRIMARY KEY (session_id, seq));
      INSERT INTO session_entries VALUES ('agent:main:old', 's', '{}');
      INSERT INTO transcript_events VALUES ('s', 0, '${line("a")}', 5), ('s', 1, '{"type":', 6), ('s', 2, '{"type":"custom","id":"c"}', 7), ('lost', 0, '${line("d")}', 8);`);
  });
  const store = await openStore(t);
  const report = await store.importOpenClaw(stateDir);
  assert.deepEqual([report.sessions, report.events], [2, 3]);
  assert.deepEqual(
    report.skipped.map(({ file, line }) => [file, line]),
    [[databaseOf(stateDir), 2]],
  );
  const events = await store.read("agent:main:old");
  assert.deepEqual(
    events.map(({ id, timestampMs }) => [id, timestampMs]),
    [
      ["transcript:s:a", Date.parse("2026-06-01")],
      ["transcript:s:c", 7],
    ],
  );
  assert.equal((await store.read("agent:main:recovered:lost")).length, 1);
});

test("archives of a reset are read, those of a deletion are not, and a damaged one is named", async (t) => {
  const archive = (ids) => Buffer.from(ids.map((id) => `${line(id)}\n`).join(""));
  const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");
  const stateDir = stateWith((database, dir) => {
    database.exec(`
      CREATE TABLE session_windows (session_id TEXT PRIMARY KEY, session_key TEXT, created_at INTEGER);
      CREATE TABLE transcript_events (session_id TEXT, seq INTEGER, event_json TEXT, created_at INTEGER, event_zstd BLOB, event_utf8_bytes INTEGER, PRIMARY KEY (session_id, seq));
      CREATE TABLE session_transcript_archives (session_id TEXT, generation TEXT, session_key TEXT, reason TEXT, encoding TEXT, archive_blob BLOB, archive_sha256 TEXT, archive_name TEXT, created_at INTEGER);
      INSERT INTO session_windows VALUES ('now', '${KEY}', 1), ('filed', '${KEY}', 0);`);
    const put = database.prepare(
      "INSERT INTO session_transcript_archives VALUES (?, 'g', ?, ?, ?, ?, ?, ?, 1)",
    );
    const plain = archive(["p1", "p2"]);
    const packed = zstdCompressSync(archive(["z1", "z2"]));
    put.run(
      "plain",
      KEY,
      "reset",
      "identity",
      plain,
      sha256(plain),
      "plain.jsonl.reset.2026-06-01T00-00-00.000Z",
    );
    put.run(
      "packed",
      KEY,
      "reset",
      "zstd",
      packed,
      sha256(packed),
      "packed.jsonl.reset.2026-06-01T00-00-00.000Z.zst",
    );
    put.run(
      "gone",
      KEY,
      "deleted",
      "zstd",
      packed,
      sha256(packed),
      "gone.jsonl.deleted.2026-06-01T00-00-00.000Z.zst",
    );
    put.run(
      "bad",
      KEY,
      "reset",
      "zstd",
      packed,
      "0".repeat(64),
      "bad.jsonl.reset.2026-06-01T00-00-00.000Z.zst",
    );
    database
      .prepare("INSERT INTO transcript_events VALUES ('now', 0, NULL, 1, ?, 9)")
      .run(zstdCompressSync(Buffer.from(line("n1"))));
    database
      .prepare("INSERT INTO transcript_events VALUES ('now', 1, NULL, 1, ?, 9)")
      .run(Buffer.from("damaged"));
    const sessions = join(dir, "agents/main/sessions");
    mkdirSync(sessions, { recursive: true });
    // Published beside the database: one that the database has too, one that it has not, one that breaks off.
    writeFileSync(join(sessions, "packed.jsonl.reset.2026-06-01T00-00-00.000Z.zst"), packed);
    writeFileSync(
      join(sessions, "filed.jsonl.reset.2026-06-01T00-00-00.000Z.zst"),
      zstdCompressSync(archive(["f1"])),
    );
    const long = zstdCompressSync(archive(Array.from({ length: 5000 }, (_, n) => `${n}-${Math.sin(n)}`)));
    writeFileSync(
      join(sessions, "torn.jsonl.reset.2026-06-01T00-00-00.000Z.zst"),
      long.subarray(0, long.length >> 1),
    );
  });
  const source = hashes(stateDir);
  const store = await openStore(t);
  const report = await store.importOpenClaw(stateDir);
  const ids = (await store.read(KEY)).map(({ id }) => id);
  assert.deepEqual(
    ids.sort(),
    ["filed:f1", "now:n1", "packed:z1", "packed:z2", "plain:p1", "plain:p2"].map((id) => `transcript:${id}`),
  );
  const about = (part) =>
    report.skipped.find(({ file, reason }) => `${file} ${reason}`.includes(part))?.reason;
  assert.equal(about("gone.jsonl"), "deleted in OpenClaw");
  assert.match(about("bad.jsonl"), /do not match their registered hash/);
  assert.match(about("row 1 of session now"), /cannot be decoded/);
  assert.match(about("torn.jsonl"), /cannot be read further/);
  assert.equal(report.skipped.length, 4, JSON.stringify(report.skipped));
  assert.deepEqual(hashes(stateDir), source);
});

test("a file that is no database is named, and the other agents come in", async (t) => {
  const stateDir = stateWith((database) => {
    database.exec(`CREATE TABLE transcript_events (session_id TEXT, seq INTEGER, event_json TEXT, created_at INTEGER);
      INSERT INTO transcript_events VALUES ('s', 0, '${line("a")}', 5);`);
  });
  for (const [agent, text] of [
    ["broken", "no database at all, but longer than a header of one would be".repeat(20)],
    ["empty", ""],
  ]) {
    mkdirSync(dirname(databaseOf(stateDir, agent)), { recursive: true });
    writeFileSync(databaseOf(stateDir, agent), text);
  }
  const store = await openStore(t);
  const report = await store.importOpenClaw(stateDir);
  assert.equal(report.events, 1);
  assert.deepEqual(
    report.skipped.map(({ file, line, reason }) => [file, line, /not a database|no table/.exec(reason)?.[0]]),
    [
      [databaseOf(stateDir, "broken"), 0, "not a database"],
      [databaseOf(stateDir, "empty"), 0, "no table"],
    ],
  );
});

test("a Node without node:sqlite is an error that says which Node is needed", async (t) => {
  const stateDir = stateWith((database) => database.exec("CREATE TABLE transcript_events (event_json TEXT)"));
  const old = join(root, `__test__/node/node_modules/node20-${process.platform}-${process.arch}/bin/node`);
  assert.ok(existsSync(old), `the pinned Node 20 is not there: ${old}`);
  const store = await openStore(t);
  await assert.rejects(store.importOpenClaw(stateDir, { node: old }), (error) => {
    assert.equal(error.code, "IO");
    assert.match(error.message, /Node v20\.\d+\.\d+ has not both/);
    assert.match(error.message, /22\.15 or newer/);
    return true;
  });
  await assert.rejects(store.importOpenClaw(stateDir, { node: join(base, "none") }), /No such file/);
});

test("an aborted import of a database leaves no process and no copy", async (t) => {
  const stateDir = stateWith((database) => {
    database.exec(
      "CREATE TABLE transcript_events (session_id TEXT, seq INTEGER, event_json TEXT, created_at INTEGER); BEGIN",
    );
    const put = database.prepare("INSERT INTO transcript_events VALUES ('s', ?, ?, 1)");
    for (let n = 0; n < 6_000; n++) put.run(n, line(`e${n}`, `,"pad":"${"x".repeat(500)}"`));
    database.exec("COMMIT");
  });
  const where = join(folder("aborted"), "events");
  const store = await EventStore.open(where, { durability: "interval" });
  t.after(() => store.close());
  const controller = new AbortController();
  const reason = new Error("enough");
  const children = () =>
    spawnSync("ps", ["-o", "pid=,args=", "--ppid", String(process.pid)], { encoding: "utf8" })
      .stdout.split("\n")
      .filter((text) => text.includes("--input-type=module"));
  let seen = [];
  const work = store.importOpenClaw(stateDir, {
    signal: controller.signal,
    onProgress: () => {
      if (seen.length === 0) seen = children();
      controller.abort(reason);
    },
  });
  await assert.rejects(work, (error) => error === reason);
  assert.equal(seen.length, 1, "no reading process was seen");
  assert.deepEqual(children(), []);
  assert.deepEqual(
    readdirSync(where).filter((name) => name.includes("import")),
    [],
  );
  const [{ events }] = await store.sessions();
  assert.ok(events > 0 && events < 6_000, `${events} events`);
  const report = await store.importOpenClaw(stateDir);
  assert.deepEqual([report.events, report.alreadyPresent], [6_000 - events, events]);
});

for (const journal of ["WAL", "DELETE"]) {
  test(`a database that is written all the time is read as it was at one moment (${journal})`, async (t) => {
    const stateDir = stateWith((database) => {
      database.exec(`PRAGMA journal_mode = ${journal};
        CREATE TABLE session_windows (session_id TEXT PRIMARY KEY, session_key TEXT, created_at INTEGER);
        CREATE TABLE transcript_events (session_id TEXT, seq INTEGER, event_json TEXT, created_at INTEGER, PRIMARY KEY (session_id, seq));
        INSERT INTO session_windows VALUES ('s', '${KEY}', 0);`);
    });
    // Five rows a transaction; a log that begins anew after some 50 pages.
    const writer = spawn(
      process.execPath,
      [
        "--no-warnings",
        "--input-type=module",
        "--eval",
        `import { DatabaseSync } from "node:sqlite";
         const database = new DatabaseSync(${JSON.stringify(databaseOf(stateDir))});
         database.exec("PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 50; PRAGMA busy_timeout = 5000");
         const put = database.prepare("INSERT INTO transcript_events VALUES ('s', ?, ?, 1)");
         const moved = database.prepare("UPDATE session_windows SET created_at = ?");
         let seq = 0;
         const burst = () => {
           for (let n = 0; n < 10; n++) {
             database.exec("BEGIN IMMEDIATE");
             for (let m = 0; m < 5; m++, seq++)
               put.run(seq, JSON.stringify({ type: "custom", id: "e" + seq, pad: "x".repeat((seq * 7919) % 3000) }));
             moved.run(seq);
             database.exec("COMMIT");
           }
           setTimeout(burst, 60);
         };
         burst();
         process.stdout.write("writing");`,
      ],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    t.after(() => writer.kill("SIGKILL"));
    await new Promise((resolve) => writer.stdout.once("data", resolve));
    const store = await openStore(t, { durability: "interval" });
    let before = 0;
    for (let run = 0; run < 15; run++) {
      const report = await store.importOpenClaw(stateDir);
      assert.deepEqual(report.skipped, []);
      const total = report.events + report.alreadyPresent;
      assert.equal(total % 5, 0, `${total} rows: half a transaction was read`);
      assert.ok(total >= before, `${total} rows after ${before}`);
      before = total;
    }
    const events = await store.read(KEY);
    assert.deepEqual(
      events.map(({ id }) => id),
      events.map((_, n) => `transcript:s:e${n}`),
    );
    assert.ok(events.length > 100, `only ${events.length} rows were written meanwhile`);
  });
}

// ── 2026.2 to 2026.5 ──────────────────────────────────────────────────────────────────────────────────────────────

test("sessions.json and JSONL of 2026.4 come in, damage is named by line, and nothing is written", async (t) => {
  const stateDir = folder("legacy");
  const sessions = join(stateDir, "agents/main/sessions");
  mkdirSync(sessions, { recursive: true });
  const id = "5f0e8a1c-2b7d-4e6f-9a3b-1c2d3e4f5a6b";
  const entries = [
    {
      type: "session",
      version: 3,
      id,
      timestamp: "2026-04-12T08:00:00.000Z",
      cwd: "/home/u/.openclaw/workspace",
    },
    {
      type: "model_change",
      id: "a1b2c3d4",
      parentId: null,
      timestamp: "2026-04-12T08:00:00.010Z",
      provider: "anthropic",
      modelId: "claude-opus-4-5",
    },
    {
      type: "message",
      id: "b1b2c3d4",
      parentId: "a1b2c3d4",
      timestamp: "2026-04-12T08:00:01.000Z",
      message: { role: "user", content: [{ type: "text", text: "hello" }], timestamp: 1775980801000 },
    },
    {
      type: "message",
      id: "c1b2c3d4",
      parentId: "b1b2c3d4",
      timestamp: "2026-04-12T08:00:02.000Z",
      message: {
        role: "assistant",
        content: [{ type: "toolCall", id: "toolu_1", name: "exec", arguments: { command: "date" } }],
        api: "anthropic-messages",
        provider: "anthropic",
        model: "claude-opus-4-5",
        usage: { input: 10, output: 20, cacheRead: 0, cacheWrite: 0, totalTokens: 30 },
        stopReason: "toolUse",
        timestamp: 1775980802000,
      },
    },
  ];
  const lines = entries.map((entry) => JSON.stringify(entry));
  lines.splice(2, 0, '{"type":"message","id":"half');
  writeFileSync(join(sessions, `${id}.jsonl`), `${lines.join("\n")}\n{"type":"mess`);
  writeFileSync(
    join(sessions, "sessions.json"),
    JSON.stringify({
      "agent:main:telegram:direct:42": {
        sessionId: id,
        updatedAt: 1775980802000,
        sessionFile: join(sessions, `${id}.jsonl`),
        chatType: "direct",
        compactionCount: 0,
        inputTokens: 10,
      },
    }),
  );
  const source = hashes(stateDir);
  const store = await openStore(t);
  const report = await store.importOpenClaw(stateDir);
  assert.deepEqual([report.sessions, report.events, report.alreadyPresent], [1, 5, 0]);
  assert.deepEqual(
    report.skipped.map(({ file, line }) => [file, line]),
    [
      [join(sessions, `${id}.jsonl`), 3],
      [join(sessions, `${id}.jsonl`), 6],
    ],
  );
  assert.match(report.skipped[1].reason, /torn/);
  const key = "agent:main:telegram:direct:42";
  const events = await store.read(key);
  assert.deepEqual(
    events.map(brief),
    expectedEvents(entries.map((e) => ({ sessionId: id, text: JSON.stringify(e) }))),
  );
  const [projection] = await store.sessions();
  assert.equal(projection.usage.output, 20);

  const parse = await stockFunction("src/agents/sessions/session-manager-codec.ts", "parseSessionEntries");
  assert.deepEqual(parse(await store.exportTranscript(key)), [
    { ...entries[0], version: 4 },
    ...entries.slice(1),
  ]);
  assert.deepEqual(hashes(stateDir), source);
});

test("wrong arguments are refused by name, and a folder that is not there is an error", async (t) => {
  const store = await openStore(t);
  assert.throws(() => store.importOpenClaw(7), { code: "VALIDATION" });
  assert.throws(() => store.importOpenClaw(base, 7), { code: "VALIDATION" });
  assert.throws(() => store.importOpenClaw(base, { dryRun: "yes" }), /`dryRun` must be a boolean/);
  assert.throws(() => store.importOpenClaw(base, { onProgress: 1 }), /`onProgress` must be a function/);
  assert.throws(() => store.importOpenClaw(base, { node: 1 }), /`node` must be a string/);
  await assert.rejects(store.importOpenClaw(join(base, "none")), { code: "IO" });
  await assert.rejects(store.exportTranscript("agent:main:none"), { code: "VALIDATION" });
  const aborted = AbortSignal.abort(new Error("before"));
  await assert.rejects(store.importOpenClaw(base, { signal: aborted }), /before/);
});
