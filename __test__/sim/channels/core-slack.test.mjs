// Our Slack channel against the simulated Slack, over TCP, with a store on the disk.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import core from "../../../index.js";
import { killedAtEachStep, logged, loggedText, ownSteps, position, startBot } from "./kills.mjs";
import { eventually, startSimulator } from "./simulator.mjs";

const folder = mkdtempSync(join(tmpdir(), "openclaw-core-slack-"));
// One process of a machine receives with a token: another run of these tests has another.
const appToken = `xapp-${process.pid}`;
// The last tries of Slack itself come minutes later.
const quick = { limits: false, retries: Array(60).fill(1000), app_token: appToken };
let sim;
before(async () => {
  sim = await startSimulator("slack", quick);
  await sim.do("channel", { id: "C1", name: "general" });
});
after(async () => {
  await sim.close();
  rmSync(folder, { recursive: true, force: true });
});

let stores = 0;
/** A channel with a store of its own while `act` runs. */
async function withChannel(act) {
  const store = await core.EventStore.open(join(folder, `store-${stores++}`));
  const channel = new core.SlackChannel({
    token: "xoxb-sim",
    appToken: new core.ApiKey(appToken),
    baseUrl: `${sim.url}/api`,
    store,
  });
  try {
    return await act(channel);
  } finally {
    await channel.close();
    await store.close();
  }
}

/** The next `count` messages, acknowledged. */
async function take(channel, count) {
  const got = [];
  for await (const message of channel.messages()) {
    got.push(message);
    await message.ack();
    if (got.length === count) break;
  }
  return got;
}

test("a message comes in, and an answer, an edit, a reaction and a file go out", async () => {
  await withChannel(async (channel) => {
    assert.equal(channel.id, "slack");
    await sim.do("message", { channel: "C1", from: "U1", text: "hello <@U0BOT>" });
    const [message] = await take(channel, 1);
    assert.equal(message.text, "hello @sim");
    assert.equal(message.mentionsMe, true);
    assert.deepEqual(message.chat, { kind: "channel", id: "C1" });
    assert.equal(message.raw.event.text, "hello <@U0BOT>");
    const { state, messageIds } = await channel.send({
      to: "C1",
      text: "**hi** <!channel>",
      threadId: message.messageId,
    });
    assert.equal(state, "accepted");
    const find = async (ts) => (await sim.state()).messages.C1.find((known) => known.ts === ts);
    assert.equal((await find(messageIds[0])).text, "*hi* &lt;!channel&gt;");
    assert.equal((await find(messageIds[0])).thread_ts, message.messageId);
    await channel.edit("C1", messageIds[0], "_new_");
    assert.equal((await find(messageIds[0])).text, "_new_");
    await channel.react("C1", message.messageId, "👍");
    assert.equal((await find(message.messageId)).reactions[0].name, "+1");
    const data = Buffer.from("hello file");
    await channel.send({ to: "C1", text: "look", attachments: [{ data, name: "a.txt" }] });
    const last = (await sim.state()).messages.C1.at(-1);
    assert.deepEqual([last.text, last.files[0].name, last.files[0].size], ["look", "a.txt", data.length]);
    assert.equal(channel.status().state, "running");
  });
  assert.equal((await sim.state()).sockets, 0);
});

test("the program of the documentation answers", async () => {
  const page = readFileSync(new URL("../../../docs/channels/slack.md", import.meta.url), "utf8");
  const [, program] = /^ {3}```js\n([\s\S]*?)^ {3}```$/m.exec(page);
  const cwd = join(folder, "documented");
  mkdirSync(join(cwd, "node_modules/@openclaw"), { recursive: true });
  symlinkSync(fileURLToPath(new URL("../../..", import.meta.url)), join(cwd, "node_modules/@openclaw/core"));
  writeFileSync(join(cwd, "bot.mjs"), program);
  const env = { SLACK_BOT_TOKEN: "xoxb-sim", SLACK_APP_TOKEN: appToken, SLACK_BASE_URL: `${sim.url}/api` };
  const from = await position(sim);
  const bot = spawn(process.execPath, ["bot.mjs"], {
    cwd,
    env: { ...process.env, ...env },
    stdio: ["ignore", "inherit", "inherit"],
  });
  const ended = once(bot, "exit");
  await sim.seen(({ label }) => label === "hello", { after: from });
  await sim.do("message", { channel: "C1", from: "U1", text: "not for it" });
  await sim.do("message", { channel: "C1", from: "U1", text: "<@U0BOT> hello" });
  const posted = ({ what, request }) => what === "request" && request.path.endsWith("chat.postMessage");
  const { request } = await sim.seen(posted, { after: from });
  assert.equal(request.body.text, "You said *@sim hello*");
  // What it has not acknowledged would come again, to the next test's channel.
  await settled(sim);
  bot.kill("SIGKILL");
  await ended;
});

test("a connection that Slack refreshes or cuts is replaced, and nothing is lost", async () => {
  await withChannel(async (channel) => {
    await sim.do("message", { from: "U3", text: "first" });
    await take(channel, 1);
    // One that is half open is noticed after 30 s: that is tested where time is simulated.
    const ends = [
      () => sim.do("disconnect", { reason: "warning" }),
      () => sim.do("disconnect", { reason: "refresh_requested" }),
      () => sim.sockets("cut"),
    ];
    for (const [n, end] of ends.entries()) {
      await end();
      await sim.do("message", { from: "U3", text: `after ${n}` });
      const [message] = await take(channel, 1);
      assert.equal(message.text, `after ${n}`);
    }
    assert.deepEqual((await sim.state()).lost, []);
  });
  assert.equal((await sim.state()).sockets, 0);
  assert.deepEqual(await sim.violations(), []);
});

test("a token that is wrong or no token is said, and never repeated", async () => {
  const store = await core.EventStore.open(join(folder, "wrong"));
  const options = { baseUrl: `${sim.url}/api`, store };
  assert.throws(() => new core.SlackChannel({ ...options, token: "secret", appToken: "xapp-sim" }), {
    code: "VALIDATION",
    message: /^(?!.*secret).*xoxb-/,
  });
  assert.throws(() => new core.SlackChannel({ ...options, token: "xoxb-sim" }), { message: /`appToken`/ });
  const channel = new core.SlackChannel({ ...options, token: "xoxb-other", appToken: "xapp-other" });
  await assert.rejects(channel.messages().next(), { code: "CHANNEL_AUTH", message: /^(?!.*other)/ });
  assert.equal(channel.status().state, "failed");
  await channel.close();
  await store.close();
});

const isEnvelope = (line) => line.what === "out" && line.label === "events_api message";
const envelopes = (lines) => lines.filter(isEnvelope).map(({ n, frame }) => ({ n, ...JSON.parse(frame) }));
const acknowledged = (id) => (line) => line.what === "in" && line.frame.includes(id);
async function settled(slack) {
  await eventually(async () => (await slack.state()).unacknowledged.length === 0);
}
const botOptions = (slack) => ({ token: "xoxb-sim", appToken, baseUrl: `${slack.url}/api` });

test("an envelope whose acknowledgement is lost with the process comes again, and is not delivered again", async () => {
  const slack = await startSimulator("slack", quick);
  try {
    const store = join(folder, "before-ack");
    const options = botOptions(slack);
    const first = startBot("SlackChannel", options, store);
    await slack.seen((line) => line.label === "hello");
    // It is on the disk and with JavaScript, and Slack does not hear of it.
    await slack.fault({ at: "in", match: "envelope_id", do: "drop" });
    await slack.do("message", { from: "U4", text: "one" });
    await first.line((line) => line.what === "acked" && line.text === "one");
    await slack.seen(({ what }) => what === "fault");
    await first.kill();
    const from = await position(slack);
    const second = startBot("SlackChannel", options, store);
    const again = await slack.seen((line) => isEnvelope(line) && JSON.parse(line.frame).retry_attempt > 0, {
      after: from,
    });
    const { envelope_id: id } = JSON.parse(again.frame);
    await slack.seen(acknowledged(id), { after: again.n });
    await settled(slack);
    await slack.do("message", { from: "U4", text: "two" });
    await second.line((line) => line.what === "acked" && line.text === "two");
    await second.kill();
    const sent = envelopes(await slack.log()).filter(({ payload }) => payload.event.text === "one");
    assert.ok(sent.length >= 2);
    assert.equal(new Set(sent.map(({ payload }) => payload.event_id)).size, 1);
    assert.equal(new Set(sent.map(({ envelope_id }) => envelope_id)).size, sent.length);
    assert.deepEqual(
      second.said.filter(({ what }) => what === "delivered").map(({ text }) => text),
      ["two"],
    );
    assert.deepEqual((await slack.state()).lost, []);
  } finally {
    await slack.close();
  }
});

test("an envelope that was acknowledged does not come again, and its message comes from the disk", async () => {
  const slack = await startSimulator("slack", quick);
  try {
    const store = join(folder, "after-ack");
    const options = botOptions(slack);
    const first = startBot("SlackChannel", options, store);
    await slack.seen((line) => line.label === "hello");
    // The answer is held up, so that the bot is in the middle of it when it ends.
    await slack.fault({ at: "answer", match: "chat.postMessage", do: "stall", ms: 60_000 });
    await slack.do("message", { from: "U4", text: "one" });
    const envelope = await slack.seen(isEnvelope);
    await slack.seen(acknowledged(JSON.parse(envelope.frame).envelope_id));
    await first.line((line) => line.what === "delivered" && line.text === "one");
    await slack.seen((line) => line.what === "request" && line.request.path.endsWith("chat.postMessage"));
    await first.kill();
    const second = startBot("SlackChannel", options, store);
    const { redelivered } = await second.line((line) => line.what === "delivered" && line.text === "one");
    assert.equal(redelivered, true);
    // Nobody knows whether the answer went out: it is not sent again.
    const { state } = await second.line((line) => line.what === "sent" && line.text === "one");
    assert.equal(state, "unknown");
    await slack.do("message", { from: "U4", text: "two" });
    await second.line((line) => line.what === "acked" && line.text === "two");
    await second.kill();
    const sent = envelopes(await slack.log()).filter(({ payload }) => payload.event.text === "one");
    assert.equal(sent.length, 1, "it came again");
    const { messages } = await slack.state();
    const answers = Object.values(messages)
      .flat()
      .filter(({ user }) => user === "U0BOT");
    assert.deepEqual(
      answers.map(({ text }) => text),
      ["re: one", "re: two"],
    );
  } finally {
    await slack.close();
  }
});

test("killed at each step, a bot loses nothing and says nothing twice", async (t) => {
  const slack = await startSimulator("slack", quick);
  try {
    const users = ["U61", "U62", "U63", "U64"];
    const outcome = await killedAtEachStep({
      sim: slack,
      adapter: "SlackChannel",
      options: botOptions(slack),
      store: join(folder, "killed"),
      steps: {
        received: loggedText(isEnvelope),
        confirmed: async (context) => {
          const { n, frame } = await loggedText(isEnvelope)(context);
          await slack.seen(acknowledged(JSON.parse(frame).envelope_id), { after: n });
        },
        ...ownSteps,
        sending: logged((line) => line.what === "request" && line.request.path.endsWith("chat.postMessage")),
      },
      write: (chat, text) => slack.do("message", { from: users[chat], text }),
      answers: async () =>
        Object.values((await slack.state()).messages)
          .flat()
          .filter(({ user }) => user === "U0BOT")
          .map(({ text }) => text),
      settled: () => settled(slack),
      connected: logged(({ label }) => label === "hello"),
      // Slack keeps no order of what it has to send again.
      inOrder: async (texts) => {
        const sent = envelopes(await slack.log()).map(({ payload }) => payload.event.text);
        return sent.filter((text) => texts.includes(text) && sent.indexOf(text) === sent.lastIndexOf(text));
      },
    });
    t.diagnostic(JSON.stringify(outcome));
    assert.deepEqual((await slack.state()).lost, []);
    assert.deepEqual(await slack.violations(), []);
  } finally {
    await slack.close();
  }
});
