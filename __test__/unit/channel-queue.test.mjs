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
