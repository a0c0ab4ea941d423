// What OpenClaw's queue is told of a message whose sending it saw begin and not end.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Turns } from "../../dist/adapters/channel-lane.js";
import { PLATFORMS } from "../../dist/adapters/channel-table.js";
import { channelPlugin } from "../../dist/adapters/channels.js";

const telegram = PLATFORMS.find(({ id }) => id === "core-telegram");
const { durableFinal } = channelPlugin(telegram, {}).message;
const cfg = { channels: { [telegram.id]: { botToken: "1:a" } } };
const asked = (more) => ({
  ...{ cfg, accountId: "default", to: "7", queueId: "q1", payloads: [{ text: "hello" }] },
  ...more,
});

/** Asks while an account runs whose outbox does `send`. */
async function ask(send, more) {
  const calls = [];
  const channel = {
    send: async (message) => {
      calls.push(message);
      return send(message);
    },
  };
  const running = new Map([[`${telegram.id}\ndefault`, { channel, sent: () => {} }]]);
  globalThis[Symbol.for("openclaw.core.channels")] = { running, turns: new Turns() };
  try {
    return { told: await durableFinal.reconcileUnknownSend(asked(more)), calls };
  } finally {
    delete globalThis[Symbol.for("openclaw.core.channels")];
  }
}
const receipt = (state) => () => ({ state, messageIds: ["100"], attempts: 1 });
const failing = (code) => () => {
  throw Object.assign(new Error("chat not found"), { code });
};

test("the outbox is asked under the key of OpenClaw's queue, so that it sends once", async () => {
  const { told, calls } = await ask(receipt("accepted"), { replyToId: "7#5", threadId: 3 });
  assert.equal(told.status, "sent");
  assert.deepEqual(told.receipt.platformMessageIds, ["100"]);
  assert.deepEqual(calls, [
    { to: "7", text: "hello", replyToId: "5", threadId: "3", idempotencyKey: "q1:0" },
  ]);
});

test("the reply that took effect counts, and none if that is none", async () => {
  const { calls } = await ask(receipt("accepted"), { replyToId: "7#5", effectiveReplyToId: null });
  assert.equal(calls[0].replyToId, undefined);
});

test("what nobody knows, and what the platform refuses, is not asked again", async () => {
  const { told } = await ask(receipt("unknown"));
  assert.deepEqual([told.status, told.retryable], ["unresolved", false]);
  assert.match(told.error, /nobody knows whether/);
  const refused = await ask(failing("CHANNEL_SEND"));
  assert.deepEqual(refused.told, { status: "unresolved", error: "chat not found", retryable: false });
});

test("what is no answer of the platform's is asked again", async () => {
  await assert.rejects(ask(failing("CHANNEL_CLOSED")), /chat not found/);
  await assert.rejects(durableFinal.reconcileUnknownSend(asked()), /does not run in this process/);
});

test("files and several messages have no key in OpenClaw's queue: nothing is sent", async () => {
  for (const payloads of [
    [{ text: "a" }, { text: "b" }],
    [{ text: "a", mediaUrl: "/tmp/a.png" }],
    [{ text: "a", mediaUrls: ["/tmp/a.png"] }],
    [{ text: " " }],
    [],
  ]) {
    const { told, calls } = await ask(receipt("accepted"), { payloads });
    assert.deepEqual([told.status, told.retryable, calls.length], ["unresolved", false, 0]);
  }
});

test("what the disk does not take is sent when it does, under its key, until OpenClaw gives it up", async () => {
  const plugin = channelPlugin(telegram, {});
  const sent = async (more, { refusals, signal }) => {
    const calls = [];
    const send = async (message) => {
      calls.push(message);
      return (calls.length <= refusals ? failing("IO") : receipt("accepted"))();
    };
    const running = new Map([[`${telegram.id}\ndefault`, { channel: { send }, sent: () => {} }]]);
    globalThis[Symbol.for("openclaw.core.channels")] = { running, turns: new Turns() };
    const context = { cfg, accountId: "default", to: "7", text: "hello", ...more, ...(signal && { signal }) };
    const outcome = await plugin.outbound.sendText(context).then(
      ({ messageId }) => messageId,
      ({ code }) => code,
    );
    return { outcome, keys: calls.map(({ idempotencyKey }) => idempotencyKey) };
  };
  try {
    const given = AbortSignal.abort();
    const [queue, tool, gone] = await Promise.all([
      sent({ deliveryQueueId: "q1", deliveryPartIndex: 2 }, { refusals: 1 }),
      sent({}, { refusals: 1 }),
      sent({ deliveryQueueId: "q1" }, { refusals: 1, signal: given }),
    ]);
    assert.deepEqual(queue, { outcome: "100", keys: ["q1:2", "q1:2"] });
    assert.equal(tool.outcome, "100");
    assert.equal(new Set(tool.keys).size, 1);
    assert.notEqual(tool.keys[0], undefined);
    assert.deepEqual(gone, { outcome: "IO", keys: ["q1:0"] });
  } finally {
    delete globalThis[Symbol.for("openclaw.core.channels")];
  }
});
