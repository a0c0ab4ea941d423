// Reads the transcripts of one OpenClaw agent database, in a process of its own.
//
// The core starts it (its text is part of the binary) under a Node that has node:sqlite. A second SQLite in OpenClaw's
// own process would drop that process's file locks, so the database is never opened there. Nor is it opened here: the
// database and its write-ahead log are copied, and the copy is read, so that nothing beside the source is made or
// changed, and a gateway that runs is not held up.
//
// In, as JSON on stdin: { database?, sessionsDir, scratch }. Out, on stdout: lines of JSON, and behind a line with
// `bytes` that many bytes of a transcript entry and a line feed. The last line is { t: "end" }.
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { Readable } from "node:stream";
import zlib from "node:zlib";

/** How often a copy is tried that a writer disturbs, and how long is waited in between. */
const COPY_TRIES = 20;
const COPY_WAIT_MS = 150;
/** OpenClaw's own limits. */
const MAX_COLD_BYTES = 64 << 20;
const MAX_ROW_BYTES = 4 << 20;

let job;
const pending = [];
let pendingBytes = 0;

/** Blocks while the reader is busy: that is the back-pressure. */
function flush() {
  let rest = Buffer.concat(pending);
  pending.length = 0;
  pendingBytes = 0;
  while (rest.length > 0) {
    try {
      rest = rest.subarray(fs.writeSync(1, rest));
    } catch (error) {
      if (error.code === "EPIPE" || error.code === "EOF") {
        // Nobody reads any more, and perhaps nobody is left to clear up.
        if (job) fs.rmSync(job.scratch, { recursive: true, force: true });
        process.exit(0);
      }
      if (error.code !== "EAGAIN") throw error;
      sleep(5);
    }
  }
}

function put(bytes) {
  pending.push(bytes);
  pendingBytes += bytes.length;
  if (pendingBytes >= 65_536) flush();
}

const say = (message) => put(Buffer.from(`${JSON.stringify(message)}\n`));
const sleep = (ms) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
const words = (error) => (error instanceof Error ? error.message : String(error));

function entry(line, at, bytes) {
  say({ t: "entry", line, at, bytes: bytes.length });
  put(bytes);
  put(Buffer.from("\n"));
}

const skip = (file, line, reason) => say({ t: "skip", file, line, reason });

// ── the copy ─────────────────────────────────────────────────────────────────────────────────────────────────────

function stat(file) {
  const found = fs.statSync(file, { bigint: true, throwIfNoEntry: false });
  return found && `${found.ino} ${found.size} ${found.mtimeNs} ${found.ctimeNs}`;
}

/** The first bytes of a file; empty if there is none. */
function head(file, length) {
  let descriptor;
  try {
    descriptor = fs.openSync(file, "r");
    const bytes = Buffer.alloc(length);
    return bytes.subarray(0, fs.readSync(descriptor, bytes, 0, length, 0));
  } catch (error) {
    if (error.code === "ENOENT") return Buffer.alloc(0);
    throw error;
  } finally {
    if (descriptor !== undefined) fs.closeSync(descriptor);
  }
}

/** The header of a write-ahead log, whose salts change whenever it starts anew; empty if there is no log. */
function logHeader(file) {
  const header = head(`${file}-wal`, 32);
  return header.length === 32 ? header : Buffer.alloc(0);
}

/**
 * Copies a database with its log, so that the copy is a state that the database was in.
 *
 * With a log: what a checkpoint moves into the database meanwhile stands in the log, as long as the log has not begun
 * anew; so the database is copied first, the log second, and the log's header must be the same throughout. A last frame
 * that is cut short is dropped by SQLite, by its checksum. Without one: the database must not have changed.
 */
function copyDatabase(source, target) {
  for (let attempt = 1; ; attempt++) {
    for (const suffix of ["", "-wal", "-journal", "-shm"]) fs.rmSync(target + suffix, { force: true });
    const before = { log: logHeader(source), journal: stat(`${source}-journal`), file: stat(source) };
    let problem;
    try {
      fs.copyFileSync(source, target, fs.constants.COPYFILE_FICLONE);
      if (before.log.length > 0) fs.copyFileSync(`${source}-wal`, `${target}-wal`);
      if (before.journal) fs.copyFileSync(`${source}-journal`, `${target}-journal`);
    } catch (error) {
      if (error.code === "ENOSPC" || error.code === "EDQUOT")
        throw new Error(`there is no room in ${path.dirname(target)} for a copy of ${source}`);
      if (error.code !== "ENOENT" || !fs.existsSync(source)) throw error;
      problem = error;
    }
    const after = { log: logHeader(source), journal: stat(`${source}-journal`), file: stat(source) };
    const logged = before.log.length > 0;
    const steady =
      !problem &&
      before.log.equals(after.log) &&
      before.journal === after.journal &&
      (logged ? logHeader(target).equals(before.log) : before.file === after.file);
    if (steady) {
      // A source may be read-only; SQLite plays its log into the copy.
      for (const suffix of ["", "-wal", "-journal"])
        if (fs.existsSync(target + suffix)) fs.chmodSync(target + suffix, 0o600);
      return;
    }
    if (attempt === COPY_TRIES)
      throw new Error(
        `${source} kept changing while it was copied (${attempt} tries): try again when OpenClaw is less busy, or stop its gateway`,
      );
    sleep(COPY_WAIT_MS);
  }
}

function openCopy(DatabaseSync, source, scratch) {
  const copy = path.join(scratch, "agent.sqlite");
  copyDatabase(source, copy);
  const database = new DatabaseSync(copy);
  // Alone with the copy: the log's index needs no file then.
  database.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA trusted_schema = OFF;");
  database.prepare("SELECT count(*) FROM sqlite_master").get();
  // Nothing stays behind, however this process ends. Windows cannot remove open files: there the core does it.
  if (process.platform !== "win32")
    for (const suffix of ["", "-wal", "-journal"]) fs.rmSync(copy + suffix, { force: true });
  return database;
}

// ── transcripts ──────────────────────────────────────────────────────────────────────────────────────────────────

const columnsOf = (database, table) =>
  new Set(
    database
      .prepare(`PRAGMA table_info(${table})`)
      .all()
      .map(({ name }) => name),
  );

/** Session ids and the keys they belong to. The tables' names have changed over the releases. */
function readWindows(database) {
  const windows = new Map();
  for (const [table, id] of [
    ["session_windows", "session_id"],
    ["sessions", "session_id"],
    ["session_nodes", "current_session_id"],
    ["session_entries", "session_id"],
  ]) {
    const columns = columnsOf(database, table);
    if (!columns.has(id) || !columns.has("session_key")) continue;
    const order = columns.has("created_at") ? "ORDER BY created_at" : "";
    for (const row of database
      .prepare(`SELECT ${id} AS id, session_key AS key FROM ${table} ${order}`)
      .iterate())
      if (typeof row.id === "string" && typeof row.key === "string" && !windows.has(row.id))
        windows.set(row.id, row.key);
  }
  return windows;
}

/** The entries of JSONL in a stream, one by one. */
async function* lines(stream) {
  let parts = [];
  for await (const chunk of stream) {
    let start = 0;
    for (let end = chunk.indexOf(10); end >= 0; start = end + 1, end = chunk.indexOf(10, start)) {
      yield Buffer.concat([...parts, chunk.subarray(start, end)]);
      parts = [];
    }
    if (start < chunk.length) parts.push(chunk.subarray(start));
  }
  if (parts.length > 0) yield Buffer.concat(parts);
}

/** An archived transcript, which is JSONL, perhaps compressed. */
async function readArchive(file, sessionId, sessionKey, source, compressed) {
  say({ t: "transcript", file, sessionId, sessionKey });
  let line = 0;
  try {
    const stream = compressed ? source.pipe(zlib.createZstdDecompress()) : source;
    for await (const text of lines(stream)) entry(++line, null, text);
  } catch (error) {
    skip(file, line + 1, `the archive cannot be read further: ${words(error)}`);
  }
}

function checked(bytes, sha256) {
  if (createHash("sha256").update(bytes).digest("hex") !== sha256)
    throw new Error("its bytes do not match their registered hash");
  return bytes;
}

/** A transcript in cold storage: an archive of its rows, in the database or beside it. */
function readCold(sessionsDir, row) {
  const bytes =
    row.storage === "sqlite"
      ? row.archive_blob
      : fs.readFileSync(path.join(sessionsDir, "cold", path.basename(row.archive_name)));
  const text = zlib.zstdDecompressSync(checked(bytes, row.archive_sha256), {
    maxOutputLength: MAX_COLD_BYTES,
  });
  for (const line of text.toString("utf8").split("\n")) {
    if (!line) continue;
    const record = JSON.parse(line);
    if (record.kind !== "event") continue;
    entry(record.row.seq + 1, record.row.created_at, Buffer.from(record.row.event_json));
  }
}

function readTranscripts(database, file, sessionsDir, windows) {
  const columns = columnsOf(database, "transcript_events");
  if (!columns.has("event_json")) {
    skip(file, 0, "the database has no table of transcripts that this release knows");
    return;
  }
  const utf8 = database.prepare("PRAGMA encoding").get().encoding === "UTF-8";
  const zstd = columns.has("event_zstd") ? "event_zstd" : "NULL";
  const created = columns.has("created_at") ? "created_at" : "NULL";
  const rows = database.prepare(
    `SELECT seq, ${created} AS at, ${utf8 ? "CAST(event_json AS BLOB)" : "event_json"} AS json, ${zstd} AS zstd
       FROM transcript_events WHERE session_id = ? ORDER BY seq`,
  );
  const cold = columnsOf(database, "session_transcript_cold_archives").has("archive_sha256")
    ? database.prepare("SELECT * FROM session_transcript_cold_archives WHERE session_id = ?")
    : undefined;
  const ids = new Set(windows.keys());
  for (const { id } of database.prepare("SELECT DISTINCT session_id AS id FROM transcript_events").iterate())
    ids.add(id);
  for (const id of ids) {
    say({ t: "transcript", file, sessionId: id, sessionKey: windows.get(id) });
    let line = 1;
    try {
      const archived = cold?.get(id);
      if (archived) readCold(sessionsDir, archived);
      for (const row of rows.iterate(id)) {
        line = row.seq + 1;
        try {
          const json = row.zstd
            ? zlib.zstdDecompressSync(row.zstd, { maxOutputLength: MAX_ROW_BYTES })
            : Buffer.from(row.json);
          entry(line, row.at, json);
        } catch (error) {
          skip(file, line, `row ${row.seq} of session ${id} cannot be decoded: ${words(error)}`);
        }
        line++;
      }
    } catch (error) {
      skip(file, line, `session ${id} cannot be read further: ${words(error)}`);
    }
  }
}

async function readArchives(database, file, sessionsDir) {
  const named = new Set();
  if (database && columnsOf(database, "session_transcript_archives").has("archive_blob")) {
    const names = database
      .prepare(
        `SELECT session_id AS id, generation, session_key AS key, reason, encoding, archive_name AS name
           FROM session_transcript_archives ORDER BY created_at`,
      )
      .all();
    const bytes = database.prepare(
      `SELECT archive_blob AS bytes, archive_sha256 AS sha256 FROM session_transcript_archives
        WHERE session_id = ? AND generation = ?`,
    );
    for (const { id, generation, key, reason, encoding, name } of names) {
      named.add(name);
      say({ t: "archive", name });
      const where = `${file}#${name}`;
      if (reason === "deleted") {
        skip(where, 0, "deleted in OpenClaw");
        continue;
      }
      let source;
      try {
        const row = bytes.get(id, generation);
        source = Readable.from([Buffer.from(checked(row.bytes, row.sha256))]);
      } catch (error) {
        skip(where, 0, `the archive cannot be read: ${words(error)}`);
        continue;
      }
      await readArchive(where, id, key, source, encoding === "zstd");
    }
  }
  for (const name of fs.existsSync(sessionsDir) ? fs.readdirSync(sessionsDir).sort() : []) {
    const [, id, reason] = /^(.+)\.jsonl\.(reset|deleted)\..+\.zst$/.exec(name) ?? [];
    if (!id || named.has(name)) continue;
    const where = path.join(sessionsDir, name);
    if (reason === "deleted") skip(where, 0, "deleted in OpenClaw");
    else await readArchive(where, id, undefined, fs.createReadStream(where), true);
  }
}

/** Bytes of all transcripts, for the progress. */
function totalBytes(database) {
  const sum = (sql) => {
    try {
      return database.prepare(sql).get().bytes ?? 0;
    } catch {
      return 0; // a table or a column that this schema has not
    }
  };
  const rows =
    sum("SELECT sum(coalesce(event_utf8_bytes, octet_length(event_json))) AS bytes FROM transcript_events") ||
    sum("SELECT sum(octet_length(event_json)) AS bytes FROM transcript_events");
  return rows + sum("SELECT sum(raw_bytes) AS bytes FROM session_transcript_cold_archives");
}

// ── the run ──────────────────────────────────────────────────────────────────────────────────────────────────────

const { DatabaseSync } = await import("node:sqlite").catch(() => ({}));
if (!DatabaseSync || !zlib.zstdDecompressSync) {
  say({ t: "unsupported", version: process.version });
  flush();
  process.exit(0);
}

async function run({ database: file, sessionsDir, scratch }) {
  let database;
  if (file) {
    try {
      database = openCopy(DatabaseSync, file, scratch);
      const windows = readWindows(database);
      for (const [sessionId, sessionKey] of windows) say({ t: "window", sessionId, sessionKey });
      say({ t: "total", bytes: totalBytes(database) });
      readTranscripts(database, file, sessionsDir, windows);
    } catch (error) {
      // SQLite's own verdict, such as "file is not a database", is about the source; all else is about us.
      if (error?.code !== "ERR_SQLITE_ERROR") throw error;
      skip(file, 0, `the database cannot be read: ${words(error)}`);
      database = undefined;
    }
  }
  await readArchives(database, file, sessionsDir);
}

job = JSON.parse(fs.readFileSync(0, "utf8"));
await run(job).then(
  () => say({ t: "end" }),
  (error) => say({ t: "failed", reason: words(error) }),
);
flush();
process.exit(0);
