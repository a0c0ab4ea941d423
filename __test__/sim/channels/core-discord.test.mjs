// Our Discord channel against the simulated Discord, over TCP, with a store on the disk.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import core from "../../../index.js";
import { killedAtEachStep, logged, ownSteps, position, startBot } from "./kills.mjs";
import { startSimulator } from "./simulator.mjs";

const token = `sim-token-${process.pid}`;
const me = "900000000000000001";
/** A heart that beats so often has many beats within a block of JavaScript. */
const heartbeatMs = 500;
const folder = mkdtempSync(join(tmpdir(), "openclaw-core-discord-"));
let sim;
before(async () => {
  sim = await startSimulator("discord", {
    token,
    limits: false,
    identify_ms: 0,
    heartbeat_ms: heartbeatMs,
    // A heartbeat may be as late as another one.
    grace_ms: heartbeatMs,
    resume_ms: 600_000,
  });
  await sim.do("guild", { id: "1", name: "Guild" });
  await sim.do("channel", { id: "2", guild: "1", name: "general" });
  await sim.do("channel", { id: "3", guild: "1", parent: "2", name: "Talk" });
});
after(async () => {
  await sim.close();
  rmSync(folder, { recursive: true, force: true });
});

let stores = 0;
/** A channel with a store of its own while `act` runs; it is connected by then. */
async function withChannel(act, options = {}) {
  const path = join(folder, `store-${stores++}`);
  const store = await core.EventStore.open(path);
  const channel = new core.DiscordChannel({
    token: new core.ApiKey(token),
    baseUrl: `${sim.url}/api/v10`,
    store,
    ...options,
  });
  try {
    const n = await position(sim);
    const first = channel.messages().next();
    await sim.seen(out("READY"), { after: n });
    await sim.do("message", { from: "70", text: "first" });
    await (await first).value.ack();
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

const out = (label) => (line) => line.what === "out" && line.label === label;
const request = (method, path) => (line) =>
  line.what === "request" && line.request.method === method && path.test(line.request.path);
const block = (ms) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
const messages = async (channel) => (await sim.state()).channels[channel].messages;
const texts = async (channel) =>
  (await messages(channel)).filter(({ author }) => author.bot).map(({ content }) => content);

test("a message comes in, and an answer, an edit, a reaction and a sign of typing go out", async () => {
  await withChannel(async (channel) => {
    assert.equal(channel.id, "discord");
    await sim.do("message", { channel: "2", from: "7", text: "just talk" });
    await sim.do("message", { channel: "2", from: "7", text: `hello <@${me}>` });
    const [talk, message] = await take(channel, 2);
    assert.deepEqual([talk.mentionsMe, message.mentionsMe], [false, true]);
    assert.equal(message.text, "hello @sim");
    assert.equal(message.raw.content, `hello <@${me}>`);
    assert.deepEqual(message.chat, { kind: "channel", id: "2", title: "general" });
    const { state, messageIds } = await channel.send({
      to: "2",
      text: "**hi** @everyone",
      replyToId: message.messageId,
    });
    assert.equal(state, "accepted");
    const find = async (id) => (await messages("2")).find((known) => known.id === id);
    assert.equal((await find(messageIds[0])).message_reference.message_id, message.messageId);
    await channel.edit("2", messageIds[0], "_new_");
    assert.equal((await find(messageIds[0])).content, "_new_");
    await channel.react("2", message.messageId, "👍");
    await channel.typing("2");
    const { reactions, typing } = await sim.state();
    assert.deepEqual([reactions.length, typing.length], [1, 1]);
    await channel.react("2", message.messageId, "");
    assert.deepEqual((await sim.state()).reactions, []);
    await channel.send({ to: "user:7", text: "to you" });
    assert.equal(channel.status().state, "running");
    assert.equal((await sim.state()).sockets, 1);
  });
  assert.equal((await sim.state()).sockets, 0);
});

test("files go both ways, and their size is bounded", async () => {
  await withChannel(async (channel) => {
    const data = Buffer.from("hello file");
    const files = [{ name: "a.txt", mime: "text/plain", base64: data.toString("base64") }];
    await sim.do("message", { from: "71", text: "look", files });
    const [message] = await take(channel, 1);
    const [file] = message.attachments;
    assert.deepEqual([file.name, file.mimeType, file.size], ["a.txt", "text/plain", data.length]);
    assert.deepEqual(await file.download(), data);
    await assert.rejects(file.download({ maxBytes: 3 }), { code: "LIMIT" });
    await channel.send({ to: message.chat.id, text: "yours", attachments: [{ data, name: "b.txt" }] });
    const last = (await messages(message.chat.id)).at(-1);
    assert.deepEqual([last.content, last.attachments[0].filename], ["yours", "b.txt"]);
    assert.equal(last.attachments[0].size, data.length);
  });
});

test("a thread is its channel's, and answers go into it", async () => {
  await withChannel(async (channel) => {
    const { id } = await sim.do("message", { channel: "3", from: "7", text: "in the thread" });
    const [message] = await take(channel, 1);
    assert.deepEqual(message.chat, { kind: "channel", id: "2", title: "general" });
    assert.deepEqual([message.threadId, message.messageId], ["3", id]);
    await channel.send({ to: message.chat.id, threadId: message.threadId, text: "there" });
    assert.deepEqual(await texts("3"), ["there"]);
  });
});

test("a slash command is acknowledged while JavaScript is blocked, and followed up", async () => {
  const commands = [{ name: "ask", description: "Ask" }];
  await withChannel(
    async (channel) => {
      await sim.seen(request("PUT", /\/commands$/));
      const iteration = channel.messages();
      const next = iteration.next();
      const n = await position(sim);
      const options = [{ name: "question", type: 3, value: "why?" }];
      const { id } = await sim.do("command", { channel: "2", from: "7", name: "ask", options });
      // Longer than Discord waits.
      block(4000);
      const log = await sim.log(n);
      const asked = log.find(out("INTERACTION_CREATE"));
      const acknowledged = log.find(request("POST", /\/callback$/));
      assert.ok(acknowledged.at - asked.at < 3000, `acknowledged after ${acknowledged.at - asked.at} ms`);
      assert.deepEqual((await sim.state()).answered, [id]);
      const { value: message } = await next;
      assert.deepEqual([message.kind, message.text, message.mentionsMe], ["command", "/ask why?", true]);
      await channel.send({ to: message.chat.id, replyToId: message.messageId, text: "because" });
      await message.ack();
      await iteration.return();
      assert.ok((await sim.log(n)).some(request("POST", /\/webhooks\//)));
      assert.equal((await texts("2")).at(-1), "because");
    },
    { commands },
  );
});

test("a connection that is cut, left half open or sent away is resumed, and nothing is lost", async () => {
  await withChannel(async (channel) => {
    const { started } = await sim.state();
    const ends = [
      () => sim.sockets("cut"),
      () => sim.sockets("half_open"),
      () => sim.do("reconnect"),
      () => sim.do("invalidate", { resumable: true }),
      () => sim.do("close", { code: 4000 }),
    ];
    for (const [n, end] of ends.entries()) {
      await end();
      await sim.do("message", { from: "73", text: `after ${n}` });
      const [message] = await take(channel, 1);
      assert.equal(message.text, `after ${n}`);
      assert.equal((await sim.state()).started, started, "it was not resumed");
    }
    assert.equal((await sim.state()).sockets, 1);
  });
  assert.deepEqual(await sim.violations(), []);
});

test("a token that is wrong or no token is said, and never repeated", async () => {
  const store = await core.EventStore.open(join(folder, "wrong"));
  const options = { baseUrl: `${sim.url}/api/v10`, store };
  assert.throws(() => new core.DiscordChannel({ ...options, token: "Bot secret" }), {
    code: "VALIDATION",
    message: /^(?!.*secret).*Developer Portal/,
  });
  assert.throws(() => new core.DiscordChannel(options), { code: "VALIDATION", message: /`token`/ });
  const channel = new core.DiscordChannel({ ...options, token: "other" });
  await assert.rejects(channel.messages().next(), { code: "CHANNEL_AUTH", message: /^(?!.*other)/ });
  assert.equal(channel.status().state, "failed");
  await channel.close();
  await store.close();
});

test("an intent that is not switched on is named", async () => {
  const other = await startSimulator("discord", { token: `${token}-other`, privileged: 0 });
  const store = await core.EventStore.open(join(folder, "intent"));
  const channel = new core.DiscordChannel({
    token: `${token}-other`,
    baseUrl: `${other.url}/api/v10`,
    store,
  });
  await assert.rejects(channel.messages().next(), {
    code: "CHANNEL_AUTH",
    message: /4014.*Message Content Intent/,
  });
  await channel.close();
  await store.close();
  await other.close();
});

test("killed at each step, a bot loses nothing and says nothing twice", async (t) => {
  const store = join(folder, "killed");
  const options = { token, baseUrl: `${sim.url}/api/v10` };
  const people = ["601", "602", "603", "604"];
  const connected = ({ what, label }) => what === "out" && (label === "READY" || label === "RESUMED");
  // A session there is before the first message: Discord keeps nothing for a bot that never came.
  const from = await position(sim);
  const first = startBot("DiscordChannel", options, store);
  await sim.seen(out("READY"), { after: from });
  await sim.do("message", { from: people[0], text: "begin" });
  await first.line((line) => line.what === "acked");
  await first.kill();
  const { started } = await sim.state();
  const chats = new Set();
  const outcome = await killedAtEachStep({
    sim,
    adapter: "DiscordChannel",
    options,
    store,
    steps: {
      // Discord told of the messages: they are on the way to the disk.
      told: logged(out("MESSAGE_CREATE")),
      ...ownSteps,
      sending: logged(request("POST", /\/messages$/)),
    },
    write: async (chat, text) =>
      chats.add((await sim.do("message", { from: people[chat], text })).channel_id),
    connected: logged(connected),
    answers: async () => (await Promise.all([...chats].map(texts))).flat(),
  });
  t.diagnostic(JSON.stringify(outcome));
  assert.equal((await sim.state()).started, started, "a session was not resumed");
  assert.deepEqual(
    (await sim.violations()).filter(({ rule }) => rule !== "discord.authentication"),
    [],
  );
});
