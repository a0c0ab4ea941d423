// When a message of a channel is acknowledged, whatever OpenClaw does with its turn.
import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { handle } from "../../dist/adapters/channel-inbound.js";
import { PLATFORMS } from "../../dist/adapters/channel-table.js";

/** A message, and a lane on which OpenClaw admits everything and does `dispatch` with the turn; the first acks fail. */
function meet(dispatch, failures = []) {
  const stop = new AbortController();
  const seen = { acks: 0, begun: 0, warned: [] };
  const message = {
    ...{ id: "m1", messageId: "1", kind: "message", text: "hello", redelivered: false, attachments: [] },
    ...{ sender: { id: "7" }, chat: { id: "7", kind: "direct" } },
    ack: async () => {
      const failure = failures.shift();
      if (failure) throw failure;
      seen.acks++;
    },
  };
  const lane = {
    platform: PLATFORMS.find(({ id }) => id === "core-telegram"),
    account: { accountId: "default", config: {} },
    cfg: {},
    channel: {},
    signal: stop.signal,
    log: { warn: (text) => seen.warned.push(text), error: (text) => seen.warned.push(text) },
    runtime: {
      routing: { resolveAgentRoute: () => ({ agentId: "main", sessionKey: "agent:main:main" }) },
      commands: { shouldHandleTextCommands: () => true },
      text: { hasControlCommand: () => false },
      mentions: { matchesMentionPatterns: () => false, buildMentionRegexes: () => [] },
      groups: {},
      inbound: {
        ingress: {
          resolveStable: async () => ({
            ...{ ingress: { admission: "dispatch" }, senderAccess: {} },
            ...{ commandAccess: {}, activationAccess: {} },
          }),
        },
        buildContext: () => ({}),
        dispatch: ({ turnAdoptionLifecycle }) => dispatch(turnAdoptionLifecycle, seen),
      },
    },
  };
  const done = handle(lane, message, () => {
    seen.begun++;
  });
  return { seen, done, stop };
}

test("a turn that begins at once is acknowledged then", async () => {
  const { seen, done } = meet(async (lifecycle) => {
    await lifecycle.onAdopted();
    lifecycle.onSettled();
  });
  await done;
  assert.ok(seen.acks > 0);
  assert.equal(seen.begun, 1);
});

test("what OpenClaw queues in memory is not acknowledged before its turn begins, and holds up no other", async () => {
  let lifecycle;
  const { seen, done } = meet(async (given) => {
    lifecycle = given;
    lifecycle.onDeferred();
  });
  for (let n = 0; n < 20; n++) await turn();
  assert.deepEqual([seen.acks, seen.begun], [0, 1]);
  await lifecycle.onAdopted();
  await done;
  assert.ok(seen.acks > 0);
});

test("what OpenClaw's queue takes up in another's turn is done", async () => {
  const { seen, done } = meet(async (lifecycle) => {
    lifecycle.onDeferred();
    lifecycle.onSettled();
  });
  await done;
  assert.equal(seen.acks, 1);
});

test("what is queued when the channel stops is left to the next start", async () => {
  const { seen, done, stop } = meet(async (lifecycle) => lifecycle.onDeferred());
  for (let n = 0; n < 20; n++) await turn();
  stop.abort();
  await done;
  assert.equal(seen.acks, 0);
});

test("what OpenClaw's queue gives up is tried again", async () => {
  const { seen, done, stop } = meet(async (lifecycle) => {
    lifecycle.onDeferred();
    lifecycle.onAbandoned();
    lifecycle.onSettled();
  });
  for (let n = 0; n < 20 && seen.warned.length === 0; n++) await turn();
  assert.match(seen.warned[0] ?? "", /gave it up; again in 1 s/);
  assert.equal(seen.acks, 0);
  stop.abort();
  await done;
  assert.equal(seen.acks, 0);
});

test("a turn whose beginning could not be written down has not begun, and is tried again", async () => {
  const lost = new Error("not written");
  const { seen, done, stop } = meet(async (lifecycle) => lifecycle.onAdopted(), [lost]);
  while (seen.warned.length === 0) await turn();
  assert.match(seen.warned[0], /not written; again in 1 s/);
  stop.abort();
  await done;
  assert.deepEqual([seen.acks, seen.begun], [0, 0]);
});

test("a full disk is waited for", async () => {
  const full = Object.assign(new Error("no space left"), { code: "IO" });
  const { seen, done, stop } = meet(async (lifecycle) => lifecycle.onAdopted(), [full]);
  while (seen.warned.length === 0) await turn();
  assert.match(seen.warned[0], /no space left; again in 5 s/);
  stop.abort();
  await done;
  assert.equal(seen.acks, 0);
});
