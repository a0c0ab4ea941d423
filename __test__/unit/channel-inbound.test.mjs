// When a message of a channel is acknowledged, whatever OpenClaw does with its turn.
import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { handle } from "../../dist/adapters/channel-inbound.js";
import { chatOf, nativeId, Turns } from "../../dist/adapters/channel-lane.js";
import { PLATFORMS } from "../../dist/adapters/channel-table.js";

/** A message, and a lane on which OpenClaw admits everything and does `dispatch` with the turn; the first acks fail. */
function meet(dispatch, failures = [], turns = new Turns(), cfg = {}) {
  const stop = new AbortController();
  const seen = { acks: 0, begun: 0, released: 0, ids: [], modes: [], warned: [] };
  const message = {
    ...{ id: "m1", messageId: "1", kind: "message", text: "hello", redelivered: false, attachments: [] },
    ...{ sender: { id: "7" }, chat: { id: "7", kind: "direct" } },
    ack: async () => {
      await turn();
      const failure = failures.shift();
      if (failure) throw failure;
      seen.acks++;
    },
  };
  const lane = {
    platform: PLATFORMS.find(({ id }) => id === "core-telegram"),
    account: { accountId: "default", config: {} },
    cfg,
    channel: {},
    signal: stop.signal,
    turns,
    release: async () => void seen.released++,
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
        buildContext: ({ messageId }) => {
          seen.ids.push(messageId);
          return {};
        },
        dispatch: ({ turnAdoptionLifecycle, replyOptions }) => {
          seen.modes.push(replyOptions.queueModeOverride);
          return dispatch(turnAdoptionLifecycle, seen);
        },
      },
    },
  };
  const done = handle(lane, message, () => {
    seen.begun++;
  });
  return { seen, done, stop };
}

test("a turn that ends is acknowledged then", async () => {
  const { seen, done } = meet(async (lifecycle) => {
    await lifecycle.onAdopted();
  });
  await done;
  assert.ok(seen.acks > 0);
  // OpenClaw may not have been able to write that it ended.
  assert.deepEqual([seen.begun, seen.released], [1, 1]);
});

/** What OpenClaw does with a message while a turn runs: it is queued, dropped once it is withdrawn, and known from then on. */
const queue = async (lifecycle) => {
  lifecycle.onDeferred();
  await turn();
  assert.ok(
    !lifecycle.abortSignal.aborted,
    "OpenClaw says that there is no answer if it is withdrawn before this returns",
  );
  lifecycle.abortSignal.addEventListener("abort", () => {
    lifecycle.onAbandoned();
    lifecycle.onSettled();
  });
};
const settle = async () => {
  for (let n = 0; n < 20; n++) await turn();
};
/** Something that ends when it is told to. */
const lasting = () => {
  let end;
  const over = new Promise((resolve) => {
    end = resolve;
  });
  return { over, end };
};

for (const whose of ["a channel", "somebody else"])
  test(`what comes while a turn of ${whose} runs stays in the inbox and holds up no other, and begins when that turn ends`, async () => {
    const turns = new Turns();
    const { over, end } = lasting();
    const first =
      whose === "a channel" &&
      meet(
        async (lifecycle) => {
          await lifecycle.onAdopted();
          await over;
        },
        [],
        turns,
      );
    await settle();
    let running = true;
    const order = [];
    const later = ["second", "third"].map((name) =>
      meet(
        async (lifecycle) => {
          if (running) return queue(lifecycle);
          order.push(name);
          await lifecycle.onAdopted();
        },
        [],
        turns,
      ),
    );
    await settle();
    assert.deepEqual([later[0].seen.acks, later[0].seen.begun], [0, 1]);
    running = false;
    end();
    await Promise.all([first, ...later].map((one) => one?.done));
    assert.deepEqual(order, ["second", "third"]);
    assert.equal(turns.end("agent:main:main"), undefined, "a turn that is over counts as running");
    for (const { seen, stop } of later) {
      assert.deepEqual([seen.acks > 0, seen.warned], [true, []]);
      assert.equal(getEventListeners(stop.signal, "abort").length, 0, "the channel keeps something of each");
    }
  });

test("what was withdrawn from the queue comes under another id, is out of the queue for good, and not passed over", async () => {
  let dispatched = 0;
  const { seen, done, stop } = meet(async (lifecycle) => {
    if (++dispatched > 2) return;
    await queue(lifecycle);
    // As it is being taken out of the queue.
    lifecycle.abortSignal.addEventListener("abort", () => {
      assert.rejects(lifecycle.onAdopted(), /withdrawn/).then(() => seen.refused++);
    });
  });
  seen.refused = 0;
  while (seen.warned.length === 0) await turn();
  assert.match(seen.warned[0], /passed it over; again in 1 s/);
  assert.deepEqual([seen.acks, seen.refused, seen.ids.map(nativeId)], [0, 2, ["1", "1", "1"]]);
  assert.equal(new Set(seen.ids).size, 3);
  stop.abort();
  await done;
});

test("what comes while a turn runs does not steer it, unless the user has chosen so", async () => {
  const modeFor = async (queue) => {
    const { seen, done } = meet((lifecycle) => lifecycle.onAdopted(), [], new Turns(), {
      messages: { queue },
    });
    await done;
    return seen.modes[0];
  };
  assert.equal(await modeFor(undefined), "followup");
  assert.equal(await modeFor({ cap: 5, byChannel: { telegram: "steer" } }), "followup");
  assert.equal(await modeFor({ mode: "steer" }), undefined);
  assert.equal(await modeFor({ byChannel: { "core-telegram": "steer" } }), undefined);
});

test("what steers the turn that runs is OpenClaw's from then on, and begins no other", async () => {
  let dispatched = 0;
  const { seen, done } = meet(async (lifecycle) => {
    dispatched++;
    lifecycle.onDeferred();
    await lifecycle.onAdopted();
    lifecycle.onSettled();
  });
  await done;
  assert.deepEqual([seen.acks > 0, seen.begun, dispatched], [true, 1, 1]);
});

test("what begins out of OpenClaw's queue before it was said to wait begins once", async () => {
  let dispatched = 0;
  const { seen, done } = meet(async (lifecycle) => {
    dispatched++;
    lifecycle.onDeferred();
    // Not awaited: this returns while the beginning is being written down.
    lifecycle.onAdopted().then(() => lifecycle.onSettled());
  });
  await done;
  assert.deepEqual([seen.acks > 0, dispatched], [true, 1]);
});

test("who comes when a turn has just ended does not overtake who waits", async () => {
  const turns = new Turns();
  let running = true;
  const { over, end } = lasting();
  const order = [];
  const ask = (name) =>
    meet(
      async (lifecycle) => {
        if (running) return queue(lifecycle);
        if (name === "waits") await settle();
        order.push(name);
        await lifecycle.onAdopted();
      },
      [],
      turns,
    );
  const waits = ask("waits");
  await settle();
  const late = over
    .then(() => {
      running = false;
    })
    .then(() => ask("late").done);
  end();
  await Promise.all([waits.done, late]);
  assert.deepEqual(order, ["waits", "late"]);
});

test("what waits when the channel stops is left to the next start", async () => {
  const { seen, done, stop } = meet((lifecycle) => queue(lifecycle));
  await settle();
  stop.abort();
  await done;
  assert.equal(seen.acks, 0);
});

test("what OpenClaw gives up is tried again", async () => {
  const { seen, done, stop } = meet(async (lifecycle) => lifecycle.onAbandoned());
  for (let n = 0; n < 20 && seen.warned.length === 0; n++) await turn();
  assert.match(seen.warned[0] ?? "", /gave it up; again in 1 s/);
  // A turn before may be why.
  assert.deepEqual([seen.acks, seen.released], [0, 1]);
  stop.abort();
  await done;
  assert.equal(seen.acks, 0);
});

test("a turn that began is over when it ended, and acknowledged as soon as that can be written down", async () => {
  const lost = new Error("not written");
  let dispatched = 0;
  const { seen, done } = meet(
    async (lifecycle) => {
      dispatched++;
      await lifecycle.onAdopted();
    },
    [lost],
  );
  while (seen.warned.length === 0) await turn();
  assert.match(seen.warned[0], /could not be acknowledged: not written; again in 1 s/);
  await done;
  assert.deepEqual([dispatched, seen.acks, seen.begun], [1, 1, 1]);
});

test("a message is acknowledged when an answer has gone to its chat, and not when its turn begins", async () => {
  const turns = new Turns();
  const { over, end } = lasting();
  const { seen, done } = meet(
    async (lifecycle) => {
      await lifecycle.onAdopted();
      await over;
    },
    [],
    turns,
  );
  await settle();
  assert.deepEqual([seen.begun, seen.acks], [1, 0]);
  await turns.sent(chatOf("core-telegram", "default", "8"), "to somebody else");
  assert.equal(seen.acks, 0);
  await turns.sent(chatOf("core-telegram", "default", "7"), "an answer");
  assert.equal(seen.acks, 1);
  end();
  await done;
});

test("a turn that ended without an answer because the channel stops is left to the next start", async () => {
  const { over, end } = lasting();
  const { seen, done, stop } = meet(async (lifecycle) => {
    await lifecycle.onAdopted();
    await over;
    throw new Error("stopped");
  });
  await settle();
  stop.abort();
  end();
  await done;
  assert.deepEqual([seen.begun, seen.acks], [1, 0]);
});

test("a full disk is waited for", async () => {
  const full = Object.assign(new Error("no space left"), { code: "IO" });
  const { seen, done, stop } = meet(async () => {
    throw full;
  });
  while (seen.warned.length === 0) await turn();
  assert.match(seen.warned[0], /no space left; again in 5 s/);
  stop.abort();
  await done;
  assert.equal(seen.acks, 0);
});
