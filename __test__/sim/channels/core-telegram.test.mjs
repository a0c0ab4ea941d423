// Our Telegram channel against the simulated Bot API, over TCP, with a store on the disk.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import core from "../../../index.js";
import { freePort } from "../../free-port.mjs";
import { inTurn, killedAtEachStep, logged, loggedText, ownSteps } from "./kills.mjs";
import { startSimulator } from "./simulator.mjs";

const token = "123456:sim-token";
const folder = mkdtempSync(join(tmpdir(), "openclaw-core-telegram-"));
let sim;
before(async () => {
  sim = await startSimulator("telegram", { token, flood: false });
});
after(async () => {
  await sim.close();
  rmSync(folder, { recursive: true, force: true });
});

let stores = 0;
/** A channel with a store of its own while `act` runs. */
async function withChannel(act, options = {}) {
  const store = await core.EventStore.open(join(folder, `store-${stores++}`));
  const channel = new core.TelegramChannel({ token, baseUrl: sim.url, store, pollSeconds: 1, ...options });
  try {
    return await act(channel, store);
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

const texts = async (chat) => {
  const { messages } = (await sim.state()).chats[chat];
  return messages.filter((message) => message.from.is_bot).map((message) => message.text);
};

test("a message comes in, and an answer goes out", async () => {
  await withChannel(async (channel) => {
    assert.deepEqual(channel.status(), { state: "stopped", queued: 0, waiting: 0 });
    assert.equal(channel.id, "telegram");
    await sim.do("message", { from: 501, text: "hello" });
    const [message] = await take(channel, 1);
    assert.equal(message.text, "hello");
    assert.equal(message.channel, "telegram");
    assert.equal(message.redelivered, false);
    assert.deepEqual(message.chat, { kind: "direct", id: "501" });
    assert.equal(message.raw.message.text, "hello");
    const receipt = await channel.send({ to: "501", text: "**hi** there", replyToId: message.messageId });
    assert.equal(receipt.state, "accepted");
    assert.equal(receipt.messageIds.length, 1);
    await channel.edit("501", receipt.messageIds[0], "_new_");
    await channel.react("501", message.messageId, "👍");
    await channel.typing("501");
    assert.deepEqual(await texts(501), ["new"]);
    const { state, lastVerifiedMs, error } = channel.status();
    assert.equal(state, "running");
    assert.equal(error, undefined);
    assert.ok(lastVerifiedMs >= 0);
  });
});

test("media goes both ways, and its size is bounded", async () => {
  await withChannel(async (channel) => {
    const data = Buffer.from("hello file");
    await sim.do("message", {
      from: 502,
      media: { kind: "document", name: "a.txt", mime: "text/plain", base64: data.toString("base64") },
    });
    const [message] = await take(channel, 1);
    const [file] = message.attachments;
    assert.equal(file.name, "a.txt");
    assert.deepEqual(await file.download(), data);
    await assert.rejects(file.download({ maxBytes: 3 }), { code: "LIMIT" });
    const receipt = await channel.send({
      to: "502",
      text: "look",
      attachments: [{ data: message.attachments[0] && data, name: "b.txt" }],
    });
    assert.equal(receipt.messageIds.length, 1);
    await assert.rejects(channel.send({ to: "502", attachments: [{ name: "x" }] }), { code: "VALIDATION" });
    await assert.rejects(channel.send({ to: "502" }), { code: "VALIDATION" });
  });
});

test("break gives back what was not looked at; abort ends the iteration with its reason", async () => {
  await withChannel(async (channel) => {
    for (let n = 0; n < 5; n++) await sim.do("message", { from: 503, text: String(n) });
    assert.deepEqual(
      (await take(channel, 2)).map((m) => m.text),
      ["0", "1"],
    );
    const rest = await take(channel, 3);
    assert.deepEqual(
      rest.map((m) => [m.text, m.redelivered]),
      [
        ["2", false],
        ["3", false],
        ["4", false],
      ],
    );
    const controller = new AbortController();
    const waiting = channel.messages({ signal: controller.signal }).next();
    const reason = new Error("enough");
    controller.abort(reason);
    await assert.rejects(waiting, (error) => error === reason);
    const first = channel.messages();
    const pending = first.next();
    await assert.rejects(channel.messages().next(), {
      code: "VALIDATION",
      message: /one iteration at a time/,
    });
    await first.return();
    assert.deepEqual(await pending, { done: true, value: undefined });
  });
});

test("what was not looked at when a channel closes is the next channel's, and new to it", async () => {
  const store = await core.EventStore.open(join(folder, `store-${stores++}`));
  const open = () => new core.TelegramChannel({ token, baseUrl: sim.url, store, pollSeconds: 1 });
  for (let n = 0; n < 5; n++) await sim.do("message", { from: 513, text: String(n) });
  const first = open();
  const iteration = first.messages();
  const { value } = await iteration.next();
  await value.ack();
  await first.close();
  assert.deepEqual(await iteration.next(), { done: true, value: undefined });
  const second = open();
  assert.deepEqual(
    (await take(second, 4)).map((message) => [message.text, message.redelivered]),
    ["1", "2", "3", "4"].map((text) => [text, false]),
  );
  await second.close();
  await store.close();
});

test("one key is one message", async () => {
  await withChannel(async (channel) => {
    await sim.do("message", { from: 504, text: "hello" });
    await take(channel, 1);
    const send = () => channel.send({ to: "504", text: "once", idempotencyKey: "k" });
    const receipts = await Promise.all([send(), send()]);
    assert.deepEqual(receipts[0], receipts[1]);
    assert.deepEqual(await send(), receipts[0]);
    assert.deepEqual(await texts(504), ["once"]);
  });
});

test("by webhook: Telegram's calls are taken, and others are refused", async () => {
  const port = await freePort();
  const secret = "a-secret_of_ours";
  const url = `http://127.0.0.1:${port}/telegram`;
  const webhook = { port, path: "/telegram", secret: new core.ApiKey(secret) };
  const options = { pollSeconds: undefined, webhook, webhookUrl: url };
  await withChannel(async (channel) => {
    await sim.do("message", { from: 520, text: "first" });
    const [first] = await take(channel, 1);
    assert.equal(first.text, "first");
    assert.equal((await sim.state()).webhook.url, url);
    const post = (path, headers) =>
      fetch(`http://127.0.0.1:${port}${path}`, { method: "POST", headers, body: JSON.stringify(first.raw) });
    assert.equal((await post("/telegram", {})).status, 401);
    assert.equal((await post("/telegram", { "x-telegram-bot-api-secret-token": "another" })).status, 401);
    assert.equal((await post("/", { "x-telegram-bot-api-secret-token": secret })).status, 404);
    assert.equal((await post("/telegram", { "x-telegram-bot-api-secret-token": secret })).status, 200);
    // Refused twice on the way: it comes again.
    await sim.fault({ at: "call", match: "/telegram", do: "drop", times: 2 });
    for (let n = 0; n < 5; n++) await sim.do("message", { from: 520, text: String(n) });
    assert.deepEqual(
      (await take(channel, 5)).map(({ text }) => text),
      ["0", "1", "2", "3", "4"],
    );
    assert.equal(channel.status().state, "running");
    assert.equal((await channel.send({ to: "520", text: "hi" })).state, "accepted");
  }, options);
  // Polls end the webhook.
  await withChannel(async (channel) => {
    await sim.do("message", { from: 520, text: "by poll" });
    assert.equal((await take(channel, 1))[0].text, "by poll");
    assert.equal((await sim.state()).webhook.url, "");
  });
});

test("a token that is wrong, taken or no token is said, and never repeated", async () => {
  const store = await core.EventStore.open(join(folder, "wrong"));
  const options = { baseUrl: sim.url, store };
  assert.throws(() => new core.TelegramChannel({ ...options, token: "secret" }), {
    code: "VALIDATION",
    message: /^(?!.*secret).*@BotFather/,
  });
  assert.throws(() => new core.TelegramChannel({ ...options }), { code: "VALIDATION", message: /`token`/ });
  assert.throws(() => new core.TelegramChannel({ token, baseUrl: sim.url }), { message: /`store`/ });
  assert.throws(() => new core.Channel({}), { code: "VALIDATION" });
  const channel = new core.TelegramChannel({ ...options, token: new core.ApiKey("999:other") });
  await assert.rejects(channel.messages().next(), {
    code: "CHANNEL_AUTH",
    message: /^(?!.*999:other)/,
  });
  assert.equal(channel.status().state, "failed");
  await channel.close();
  await assert.rejects(channel.send({ to: "1", text: "x" }), { code: "CHANNEL_CLOSED" });
  assert.deepEqual(await channel.messages().next(), { done: true, value: undefined });
  await store.close();
});

test("a registry holds one channel of each account", async () => {
  await withChannel(async (channel, store) => {
    const registry = new core.ChannelRegistry();
    registry.add(channel);
    assert.throws(() => registry.add(channel), { code: "VALIDATION" });
    assert.throws(() => registry.add({}), { code: "VALIDATION" });
    const work = new core.TelegramChannel({ token: "5:x", baseUrl: sim.url, store, accountId: "Work" });
    registry.add(work);
    assert.equal(registry.get("telegram"), channel);
    assert.equal(registry.get("telegram", "work"), work);
    assert.equal(registry.get("discord"), null);
    assert.deepEqual(
      registry.list().map(({ id, accountId, status }) => [id, accountId, status.state]),
      [
        ["telegram", "default", "stopped"],
        ["telegram", "work", "stopped"],
      ],
    );
    await registry.closeAll();
    assert.deepEqual(registry.list(), []);
    await assert.rejects(channel.send({ to: "1", text: "x" }), { code: "CHANNEL_CLOSED" });
  });
});

test("killed at each step, a bot loses nothing and says nothing twice", async (t) => {
  const request = (method) => (line) => line.what === "request" && line.request.path.endsWith(method);
  const received = loggedText((line) => line.what === "answer");
  const chats = [601, 602, 603, 604];
  const outcome = await killedAtEachStep({
    sim,
    adapter: "TelegramChannel",
    options: { token, baseUrl: sim.url, pollSeconds: 1 },
    store: join(folder, "killed"),
    steps: {
      // The platform gave the messages: they are on the way to the disk.
      received,
      // They are on the disk, and the platform was told.
      confirmed: inTurn(received, logged(request("/getUpdates"))),
      ...ownSteps,
      sending: logged(request("/sendMessage")),
    },
    write: (chat, text) => sim.do("message", { from: chats[chat], text }),
    answers: async () => (await Promise.all(chats.map(texts))).flat(),
  });
  t.diagnostic(JSON.stringify(outcome));
  assert.deepEqual(
    (await sim.violations()).filter(({ rule }) => rule !== "telegram.token"),
    [],
  );
});
