// A gateway whose JS thread stands still: polls, acknowledgements and pings go on, and what came is delivered after.
//
// For 60 s with OPENCLAW_CORE_BLOCK_SECONDS=60, with the platforms' own deadlines. Otherwise for 8 s, and the simulated
// platforms are quicker: polls of 1 s instead of 30; Slack pings each second instead of each tenth, and ends a connection
// after 15 s instead of five hours. Its 3 s for an acknowledgement are the same.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { startSimulator } from "./simulator.mjs";

const whole = Number(process.env.OPENCLAW_CORE_BLOCK_SECONDS ?? 0);
const seconds = whole || 8;
const folder = mkdtempSync(join(tmpdir(), "openclaw-core-blocked-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const file = fileURLToPath(new URL("core-blocked-bot.mjs", import.meta.url));

/** What a bot says, from its start to its end, while `act` gets its lines as they come. */
async function run(options, act) {
  const child = spawn(process.execPath, [file, JSON.stringify(options)], {
    stdio: ["ignore", "pipe", "inherit"],
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
  try {
    await act({ blocked, awake, closed });
    return said;
  } finally {
    child.kill("SIGKILL");
  }
}

/** Blocks a bot while messages come, and looks at what the platform saw of it, and at what it got. */
async function blockedBot(sim, adapter, options, { send, received }) {
  let from = 0;
  const texts = [];
  const end = "the end";
  const store = join(folder, adapter);
  const said = await run({ adapter, options, store, ms: seconds * 1000, last: end }, async (bot) => {
    await send("first");
    await bot.blocked;
    from = ((await sim.log()).at(-1)?.n ?? -1) + 1;
    let standing = true;
    bot.awake.finally(() => (standing = false)).catch(() => {});
    while (standing) {
      const text = `during ${texts.length}`;
      await send(text);
      texts.push(text);
      await delay(100);
    }
    const { state, waiting } = await bot.awake;
    assert.equal(state, "running");
    // All but the last of them were taken in while nobody looked.
    assert.ok(waiting >= texts.length - 3, `${waiting} of ${texts.length} had come`);
    await received();
    await send(end);
    await bot.closed;
  });
  const got = said.filter(({ what }) => what === "message");
  assert.deepEqual(
    got.map(({ text }) => text),
    [...texts, end],
  );
  assert.ok(got.every(({ redelivered }) => redelivered === false));
  assert.deepEqual(await sim.violations(), []);
  return (await sim.log(from)).filter(({ n }) => n >= from);
}

test(`Telegram: the thread stands still for ${seconds} s, and polls go on`, async () => {
  const sim = await startSimulator("telegram", { token: "123456:sim-token", flood: false });
  try {
    const pollSeconds = whole ? 30 : 1;
    const lines = await blockedBot(
      sim,
      "TelegramChannel",
      { token: "123456:sim-token", baseUrl: sim.url, pollSeconds },
      {
        send: (text) => sim.do("message", { from: 501, text }),
        received: async () => {
          // Told so by the offset of the next poll.
          while ((await sim.state()).pending.length > 0) await delay(10);
        },
      },
    );
    const polls = lines.filter(({ request }) => request?.path.endsWith("/getUpdates"));
    assert.ok(polls.length >= seconds / pollSeconds, `${polls.length} polls`);
  } finally {
    await sim.close();
  }
});

test(`Slack: the thread stands still for ${seconds} s, every envelope is acknowledged in time, and every ping answered`, async () => {
  const quicker = whole ? {} : { ping_ms: 1000, lifetime_ms: 15_000 };
  const sim = await startSimulator("slack", { limits: false, ...quicker });
  try {
    const lines = await blockedBot(
      sim,
      "SlackChannel",
      { token: "xoxb-sim", appToken: "xapp-sim", baseUrl: `${sim.url}/api` },
      {
        send: (text) => sim.do("message", { from: "U1", text }),
        received: async () => {
          while ((await sim.state()).unacknowledged.length > 0) await delay(10);
        },
      },
    );
    const { lost } = await sim.state();
    assert.deepEqual(lost, []);
    const frames = (what, matches) => lines.filter((line) => line.what === what && matches(line));
    const sent = frames("out", ({ label }) => label === "events_api message");
    for (const { frame } of sent) assert.equal(JSON.parse(frame).retry_attempt, 0, "an envelope came again");
    const pings = frames("out", ({ label }) => label === "ping");
    assert.ok(pings.length > 0, "Slack did not ping in the time");
  } finally {
    await sim.close();
  }
});
