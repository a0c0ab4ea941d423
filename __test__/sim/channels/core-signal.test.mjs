// Our Signal channel against the simulated daemon, over TCP, with a store on the disk.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import core from "../../../index.js";
import { inTurn, killedAtEachStep, logged, ownSteps } from "./kills.mjs";
import { startSimulator } from "./simulator.mjs";

// One process of a machine receives for an account: another run of these tests has another.
const account = `+1555${String(process.pid).padStart(7, "0")}`;
const alice = "+15551111111";
const folder = mkdtempSync(join(tmpdir(), "openclaw-core-signal-"));
let sim;
before(async () => {
  sim = await startSimulator("signal", { account, receive_mode: "on-connection", limits: false });
});
after(async () => {
  await sim.close();
  rmSync(folder, { recursive: true, force: true });
});

let stores = 0;
async function withChannel(act, options = {}) {
  const store = await core.EventStore.open(join(folder, `store-${stores++}`));
  const channel = new core.SignalChannel({ account, baseUrl: sim.url, store, ...options });
  try {
    return await act(channel, store);
  } finally {
    await channel.close();
    await store.close();
  }
}

async function take(channel, count) {
  const got = [];
  for await (const message of channel.messages()) {
    got.push(message);
    await message.ack();
    if (got.length === count) break;
  }
  return got;
}

const sent = async () => (await sim.state()).sent;

test("a message comes in, and an answer goes out", async () => {
  await withChannel(
    async (channel) => {
      assert.equal(channel.id, "signal");
      const { timestamp } = await sim.do("message", { text: "hello" });
      const [message] = await take(channel, 1);
      assert.equal(message.text, "hello");
      assert.equal(message.messageId, `${timestamp}:${alice}`);
      assert.deepEqual(message.chat, { kind: "direct", id: alice });
      const receipt = await channel.send({ to: alice, text: "**hi**", replyToId: message.messageId });
      assert.equal(receipt.state, "accepted");
      await channel.edit(alice, receipt.messageIds[0], "_new_");
      await channel.react(alice, message.messageId, "👍");
      await channel.typing(alice);
      const [first, edit] = await sent();
      assert.equal(first.message, "hi");
      assert.deepEqual(first.textStyle, ["0:2:BOLD"]);
      assert.equal(first.quoteTimestamp, timestamp);
      assert.equal(edit.editTimestamp, first.timestamp);
      const { reactions, typing, receipts } = await sim.state();
      assert.equal(reactions[0].targetAuthor, alice);
      assert.equal(typing.length, 1);
      assert.deepEqual(receipts[0].targetTimestamp, [timestamp]);
      assert.equal(channel.status().state, "running");
    },
    { sendReadReceipts: true },
  );
});

test("files go both ways, and their size is bounded; groups have names", async () => {
  await sim.do("group", { id: "R1+/==", name: "Group" });
  await withChannel(async (channel) => {
    const data = Buffer.from("hello file");
    await sim.do("message", {
      group: "R1+/==",
      files: [{ name: "a.txt", mime: "text/plain", base64: data.toString("base64") }],
    });
    const [message] = await take(channel, 1);
    assert.deepEqual(message.chat, { kind: "group", id: "group:R1+/==", title: "Group" });
    assert.deepEqual(await message.attachments[0].download(), data);
    await assert.rejects(message.attachments[0].download({ maxBytes: 3 }), { code: "LIMIT" });
    await channel.send({ to: message.chat.id, text: "look", attachments: [{ data, name: "b.txt" }] });
    const last = (await sent()).at(-1);
    assert.equal(last.groupId, "R1+/==");
    assert.equal(Buffer.from(last.attachments[0].split("base64,")[1], "base64").toString(), "hello file");
  });
});

test("a stream that ends is opened again, and an answer that is lost is not asked for again", async () => {
  await withChannel(async (channel) => {
    await sim.do("message", { text: "one" });
    assert.equal((await take(channel, 1))[0].text, "one");
    const iteration = channel.messages();
    const next = iteration.next();
    await sim.do("end");
    await sim.do("message", { text: "two" });
    assert.equal((await next).value.text, "two");
    await iteration.return();
    const before = (await sent()).length;
    await sim.fault({ at: "answer", match: "/api/v1/rpc", do: "drop" });
    const receipt = await channel.send({ to: alice, text: "lost answer" });
    assert.deepEqual(receipt, { messageIds: [], state: "unknown", attempts: 1 });
    assert.equal((await sent()).length, before + 1);
  });
});

test("killed at each step, a bot loses nothing that had reached it, and says nothing twice", async (t) => {
  const people = ["+15556666660", "+15556666661", "+15556666662", "+15556666663"];
  const timestamps = new Map();
  const rpc = (method) => (line) => line.what === "request" && line.request.body?.method === method;
  const received = logged((line) => line.what === "out" && line.label === "receive");
  const outcome = await killedAtEachStep({
    sim,
    adapter: "SignalChannel",
    options: { account, baseUrl: sim.url, sendReadReceipts: true },
    store: join(folder, "killed"),
    steps: {
      received,
      // The receipt of one of them: it is on the disk.
      confirmed: inTurn(received, logged(rpc("sendReceipt"))),
      ...ownSteps,
      sending: logged(rpc("send")),
    },
    connected: logged(({ what, request }) => what === "request" && request.path === "/api/v1/events"),
    write: async (chat, text) =>
      timestamps.set(text, (await sim.do("message", { from: people[chat], text })).timestamp),
    answers: async () => (await sent()).map(({ message }) => message),
    // The daemon knows no acknowledgement: what was on its way when the process ended does not come again. What it was
    // told to be read is on the disk.
    mayBeLost: async (texts) => {
      const read = new Set(
        (await sim.log())
          .filter(rpc("sendReceipt"))
          .flatMap(({ request }) => request.body.params.targetTimestamp),
      );
      return texts.filter((text) => !read.has(timestamps.get(text)));
    },
  });
  t.diagnostic(JSON.stringify(outcome));
  assert.ok(outcome.lost.length < outcome.messages / 2, `lost on the way: ${outcome.lost}`);
});

test("an account that the daemon does not have ends it, and no rule was broken", async () => {
  await withChannel(
    async (channel) => {
      await assert.rejects(channel.messages().next(), { code: "CHANNEL_AUTH" });
      assert.equal(channel.status().state, "failed");
    },
    { account: "+15999999999" },
  );
  const store = await core.EventStore.open(join(folder, "wrong"));
  assert.throws(() => new core.SignalChannel({ store }), { code: "VALIDATION", message: /`account`/ });
  await store.close();
  assert.deepEqual(await sim.violations(), []);
});
