// A gateway whose JS thread stands still: polls, heartbeats and acknowledgements go on, and what came is delivered after.
//
// With OPENCLAW_CORE_BLOCK_SECONDS=60 for 60 s, with the platforms' own intervals and deadlines. Otherwise for 8 s, with
// shorter intervals, and deadlines that a slow machine keeps too. Either way the thread goes on only when the platform has
// seen all that it is to see: it was seen without JavaScript, however long it took.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { freePort } from "../../free-port.mjs";
import { position } from "./kills.mjs";
import { eventually, startSimulator } from "./simulator.mjs";

const whole = Number(process.env.OPENCLAW_CORE_BLOCK_SECONDS ?? 0);
const seconds = whole || 8;
/** After this, what the platform has not seen does not come without JavaScript. */
const PATIENCE = 300_000;
/** No deadline, for a test. */
const NEVER = 3_600_000;
const folder = mkdtempSync(join(tmpdir(), "openclaw-core-blocked-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const file = fileURLToPath(new URL("core-blocked-bot.mjs", import.meta.url));

/** What a bot says, from its start to its end, while `act` gets its lines as they come, and lets it go on. */
async function run(options, act) {
  const child = spawn(process.execPath, [file, JSON.stringify(options)], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const said = [];
  const until = new Map();
  const line = (what) => {
    const waiting = Promise.withResolvers();
    until.set(what, waiting);
    return waiting.promise;
  };
  const blocked = line("blocked");
  const awake = line("awake");
  const closed = line("closed");
  for (const promise of [blocked, awake, closed]) promise.catch(() => {});
  const fail = (error) => {
    for (const { reject } of until.values()) reject(error);
  };
  child.once("error", fail);
  child.once("close", (code) => fail(new Error(`the bot ended with ${code}`)));
  createInterface({ input: child.stdout }).on("line", (text) => {
    const one = JSON.parse(text);
    said.push(one);
    until.get(one.what)?.resolve(one);
  });
  const patience = setTimeout(() => child.kill("SIGKILL"), 2 * PATIENCE);
  try {
    await act({ blocked, awake, closed, wake: () => child.stdin.write("\n") });
    return said;
  } finally {
    clearTimeout(patience);
    child.kill("SIGKILL");
  }
}

/**
 * Blocks a bot while messages come, and looks at what the platform saw of it meanwhile, and at what it got.
 *
 * `send(text)`: somebody writes; `connected(from)`: there is a bot to write to; `meanwhile()`: something else that happens;
 * `taken(lines, texts)`: whether these lines of the log show that the bot has all of it; `unordered`: the platform itself
 * keeps no order.
 */
async function blockedBot(t, sim, adapter, options, row) {
  const { send, connected = async () => {}, meanwhile = async () => {}, taken, unordered = false } = row;
  const texts = [];
  const end = "the end";
  const store = mkdtempSync(join(folder, "store-"));
  const born = await position(sim);
  let lines;
  const said = await run({ adapter, options, store, last: end }, async (bot) => {
    await connected(born);
    await send("first");
    await bot.blocked;
    const from = await position(sim);
    const since = performance.now();
    const enough = since + seconds * 1000;
    while (performance.now() < enough) {
      const text = `during ${texts.length}`;
      await send(text);
      texts.push(text);
      if (texts.length === 1) await meanwhile();
      await delay(100);
    }
    const log = async () => (await sim.log(from)).filter(({ n }) => n >= from);
    for (const limit = performance.now() + PATIENCE; !(await taken(await log(), texts)); await delay(100))
      assert.ok(performance.now() < limit, "the platform has not seen it all without JavaScript");
    // With what came while `taken` asked for more than these lines.
    lines = await log();
    const stood = Math.round(performance.now() - since);
    bot.wake();
    const { state, waiting } = await bot.awake;
    assert.equal(state, "running");
    t.diagnostic(`blocked for ${stood} ms, ${texts.length} messages came, ${waiting} waited on`);
    await send(end);
    await bot.closed;
  });
  const got = said.filter(({ what }) => what === "message");
  const order = (list) => (unordered ? list.toSorted() : list);
  assert.deepEqual(order(got.map(({ text }) => text)), order([...texts, end]));
  assert.ok(got.every(({ redelivered }) => redelivered === false));
  assert.deepEqual(await sim.violations(), []);
  return { lines, texts, got: got.map(({ text }) => text) };
}

/** Runs a row against a simulator of its own. */
const still = (name, platform, options, act) =>
  test(`${name} for ${seconds} s`, async (t) => {
    const sim = await startSimulator(platform, options);
    try {
      await act(t, sim);
    } finally {
      await sim.close();
    }
  });

const out = (label) => (line) => line.what === "out" && line.label === label;
const request = (suffix) => (line) => line.what === "request" && line.request.path.endsWith(suffix);
const ofConnections = ({ what }) => what === "gone" || what === "ended" || what === "upgrade";

/** Of calls of a webhook: each was answered with 200, and none came again. */
function answered(t, lines, texts) {
  const calls = lines.filter(({ what }) => what === "call");
  const ids = new Set(calls.map(({ id }) => id));
  const called = lines.filter(({ what, id }) => what === "called" && ids.has(id));
  assert.equal(calls.length, texts.length, "a call came again");
  assert.deepEqual(
    called.map(({ status }) => status),
    texts.map(() => 200),
  );
  const waits = calls.map(({ id, at }) => called.find((line) => line.id === id).at - at);
  t.diagnostic(`${calls.length} calls, each answered within ${Math.max(...waits)} ms`);
}

// One process of a machine receives for a bot: another run of these tests has others.
const own = process.pid;

describe("the thread stands still", { concurrency: true }, () => {
  const polled = `${own}:polled`;
  still("Telegram: polls go on", "telegram", { token: polled, flood: false }, async (t, sim) => {
    const pollSeconds = whole ? 30 : 1;
    const options = { token: polled, baseUrl: sim.url, pollSeconds };
    const polls = (lines) => lines.filter(request("/getUpdates")).length;
    const { lines } = await blockedBot(t, sim, "TelegramChannel", options, {
      send: (text) => sim.do("message", { from: 501, text }),
      // Told so by the offset of a poll.
      taken: async (lines) =>
        polls(lines) >= seconds / pollSeconds && (await sim.state()).pending.length === 0,
    });
    t.diagnostic(`${polls(lines)} polls`);
  });

  const hooked = `${own}:hooked`;
  still("Telegram: calls are answered", "telegram", { token: hooked, flood: false }, async (t, sim) => {
    const port = await freePort();
    const url = `http://127.0.0.1:${port}/telegram`;
    const webhook = { port, path: "/telegram", secret: "a-secret_of_ours" };
    const options = { token: hooked, baseUrl: sim.url, webhook, webhookUrl: url };
    const { lines, texts } = await blockedBot(t, sim, "TelegramChannel", options, {
      send: (text) => sim.do("message", { from: 501, text }),
      taken: async () => (await sim.state()).pending.length === 0,
    });
    answered(t, lines, texts);
  });

  const beats = whole ? {} : { heartbeat_ms: 4000, grace_ms: NEVER };
  const discord = { token: `sim-token-${own}`, limits: false, ...beats };
  still("Discord: the heart beats", "discord", discord, async (t, sim) => {
    const options = { token: discord.token, baseUrl: `${sim.url}/api/v10` };
    const heartbeats = (lines) =>
      lines
        .filter(({ what }) => what === "in")
        .map(({ n, frame }) => ({ n, ...JSON.parse(frame) }))
        .filter(({ op }) => op === 1);
    const { lines } = await blockedBot(t, sim, "DiscordChannel", options, {
      // What came before, Discord keeps for nobody.
      connected: (after) => sim.seen(out("READY"), { after }),
      send: (text) => sim.do("message", { from: "72", text }),
      taken: async (lines) => {
        const [session] = (await sim.state()).sessions;
        const seen = heartbeats(lines);
        // A heartbeat says how far the bot has got.
        return seen.length >= (whole ? 1 : 2) && seen.at(-1).d >= session.seq;
      },
    });
    assert.deepEqual(lines.filter(ofConnections), []);
    const { started, sessions } = await sim.state();
    assert.deepEqual([started, sessions.length], [1, 1], "there was a second session");
    t.diagnostic(`${heartbeats(lines).length} heartbeats, one connection, one session`);
  });

  const appToken = `xapp-${own}`;
  const pings = whole ? {} : { ping_ms: 4000, ack_ms: NEVER };
  const slack = { limits: false, app_token: appToken, ...pings };
  still(
    "Slack: envelopes are acknowledged, pings answered, a connection replaced",
    "slack",
    slack,
    async (t, sim) => {
      const options = { token: "xoxb-sim", appToken, baseUrl: `${sim.url}/api` };
      const isEnvelope = out("events_api message");
      const acks = (lines) =>
        new Map(
          lines
            .filter(({ what, frame }) => what === "in" && frame.includes("envelope_id"))
            .map(({ at, frame }) => [JSON.parse(frame).envelope_id, at]),
        );
      const { lines, texts, got } = await blockedBot(t, sim, "SlackChannel", options, {
        // What comes before, Slack sends a minute later.
        connected: (after) => sim.seen(out("hello"), { after }),
        send: (text) => sim.do("message", { from: "U1", text }),
        meanwhile: () => sim.do("disconnect", { reason: "warning" }),
        taken: async (lines) =>
          (await sim.state()).unacknowledged.length === 0 &&
          lines.some(out("hello")) &&
          lines.some(({ what, frame }) => what === "in" && frame === "pong"),
        // Of two connections, nothing says whose message comes first.
        unordered: true,
      });
      assert.deepEqual((await sim.state()).lost, []);
      const sent = lines.filter(isEnvelope).map(({ id, at, frame }) => ({ id, at, ...JSON.parse(frame) }));
      assert.equal(sent.length, texts.length, "an envelope came again");
      assert.ok(sent.every(({ retry_attempt: attempt }) => attempt === 0));
      for (const connection of Map.groupBy(sent, ({ id }) => id).values()) {
        const order = connection.map(({ payload }) => got.indexOf(payload.event.text));
        assert.deepEqual(
          order,
          order.toSorted((a, b) => a - b),
        );
      }
      const known = acks(lines);
      const waits = sent.map(({ at, envelope_id: id }) => known.get(id) - at);
      const pongs = lines.filter(({ what, frame }) => what === "in" && frame === "pong").length;
      t.diagnostic(`${sent.length} envelopes, acknowledged within ${Math.max(...waits)} ms; ${pongs} pongs`);
    },
  );

  const matrix = { token: `sim-token-${own}`, limits: false };
  still("Matrix: syncs go on", "matrix", matrix, async (t, sim) => {
    await sim.do("room", { id: "!still:sim" });
    const options = { token: matrix.token, baseUrl: sim.url };
    const isSync = (line) => request("/sync")(line) && "since" in line.request.query;
    const { lines } = await blockedBot(t, sim, "MatrixChannel", options, {
      connected: (after) => sim.seen(isSync, { after }),
      send: (text) => sim.do("message", { room: "!still:sim", text }),
      taken: (lines, texts) => {
        const last = lines.find(
          ({ what, answer }) => what === "answer" && JSON.stringify(answer).includes(`"${texts.at(-1)}"`),
        );
        // What comes after it was asked for.
        const next = last?.answer.body.next_batch;
        return lines.some((line) => isSync(line) && line.n > last?.n && line.request.query.since === next);
      },
    });
    t.diagnostic(`${lines.filter(isSync).length} syncs`);
  });

  still("WhatsApp: calls are answered", "whatsapp", {}, async (t, sim) => {
    const port = await freePort();
    const options = {
      token: "sim-token",
      verifyToken: "sim-verify",
      phoneNumberId: "100000000000001",
      webhook: { port, path: "/hook", secret: "sim-secret" },
      baseUrl: sim.url,
    };
    const { lines, texts } = await blockedBot(t, sim, "WhatsAppChannel", options, {
      connected: async (after) => {
        // The port is open before the number is asked for.
        await sim.seen(request("/v23.0/100000000000001"), { after });
        await sim.do("subscribe", { url: `http://127.0.0.1:${port}/hook` });
        await eventually(async () => (await sim.state()).verified);
      },
      send: (text) => sim.do("message", { from: "15551111111", text }),
      taken: async () => (await sim.state()).undelivered === 0,
      // Each notification is a connection of its own: nothing says which comes first.
      unordered: true,
    });
    answered(t, lines, texts);
  });

  const account = `+1556${String(own).padStart(7, "0")}`;
  const keptAlive = whole ? {} : { keep_alive_ms: 1000 };
  const signal = { account, receive_mode: "on-connection", limits: false, ...keptAlive };
  still(
    "Signal: the stream stays, and the daemon is told what was read",
    "signal",
    signal,
    async (t, sim) => {
      const options = { account, baseUrl: sim.url, sendReadReceipts: true };
      const timestamps = new Set();
      const receipts = (lines) => lines.filter(({ request }) => request?.body?.method === "sendReceipt");
      const { lines } = await blockedBot(t, sim, "SignalChannel", options, {
        send: async (text) => {
          const { timestamp } = await sim.do("message", { text });
          if (text.startsWith("during")) timestamps.add(timestamp);
        },
        taken: (lines) => {
          const read = new Set(receipts(lines).flatMap(({ request }) => request.body.params.targetTimestamp));
          return lines.some(out("keep-alive")) && timestamps.isSubsetOf(read);
        },
      });
      assert.deepEqual(lines.filter(request("/api/v1/events")), [], "the stream was opened again");
      assert.deepEqual((await sim.state()).gone, []);
      const alive = lines.filter(out("keep-alive")).length;
      t.diagnostic(
        `${receipts(lines).length} receipts for ${timestamps.size} messages, ${alive} signs of life, one stream`,
      );
    },
  );
});
