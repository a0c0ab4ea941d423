// When a message of a channel is acknowledged, whatever OpenClaw does with its turn.
import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { describe, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { handle } from "../../dist/adapters/channel-inbound.js";
import { chatOf, nativeId, Turns } from "../../dist/adapters/channel-lane.js";
import { Outcome } from "../../dist/adapters/channel-outcome.js";
import { PLATFORMS } from "../../dist/adapters/channel-table.js";

/** A message, and a lane on which OpenClaw admits everything and does `dispatch` with the turn; the first acks fail. */
function meet(dispatch, failures = [], turns = new Turns(), cfg = {}) {
  const stop = new AbortController();
  const seen = { acks: 0, begun: 0, released: 0, ids: [], modes: [], warned: [], sent: [] };
  const listeners = new Set();
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
    core: {
      events: {
        onAgentEvent: (listener) => {
          listeners.add(listener);
          return () => listeners.delete(listener);
        },
      },
    },
    deliver: async ({ text }) => void seen.sent.push(text),
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
        dispatch: (turn) => {
          const { turnAdoptionLifecycle, replyOptions } = turn;
          seen.modes.push(replyOptions.queueModeOverride);
          const tell = (event) => {
            for (const listener of listeners) listener({ sessionKey: "agent:main:main", ...event });
          };
          return dispatch(turnAdoptionLifecycle, seen, { ...turn, tell });
        },
      },
    },
  };
  const done = handle(lane, message, () => {
    seen.begun++;
  });
  return { seen, done, stop, listeners };
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

const FULL = { stream: "lifecycle", data: { phase: "error", error: "database or disk is full" } };
const EXCUSE = { text: "Something went wrong. Please try again.", isError: true };

test("a turn that failed for want of a disk is not over: OpenClaw's excuse is held back, and nobody overtakes", async () => {
  const turns = new Turns();
  let said;
  const { seen, done, stop, listeners } = meet(
    async (lifecycle, _seen, { tell, replyPipeline }) => {
      await lifecycle.onAdopted();
      tell(FULL);
      said = replyPipeline.transformReplyPayload(EXCUSE);
    },
    [],
    turns,
  );
  while (seen.warned.length === 0) await turn();
  assert.equal(said, null);
  assert.match(seen.warned[0], /the turn of m1 came to nothing: database or disk is full; again in 5 s/);
  assert.deepEqual([seen.acks, seen.released, listeners.size], [0, 1, 0]);
  // It began in its chat; its session waits for it.
  assert.equal(seen.begun, 1);
  const next = meet(async (lifecycle) => lifecycle.onAdopted(), [], turns);
  await settle();
  assert.deepEqual([next.seen.ids, next.seen.begun], [[], 1]);
  stop.abort();
  await done;
  assert.equal(seen.acks, 0);
  await next.done;
  assert.equal(next.seen.ids.length, 1);
  assert.equal(turns.held("agent:main:main"), undefined);
});

test("what fails while it is in OpenClaw's queue is out of it", async () => {
  const signals = [];
  const { seen, done, stop } = meet(async (lifecycle) => {
    signals.push(lifecycle.abortSignal);
    lifecycle.onDeferred();
    throw new Error("the queue failed");
  });
  while (seen.warned.length === 0) await turn();
  assert.match(seen.warned[0], /the queue failed; again in 1 s/);
  assert.equal(signals[0].aborted, true);
  stop.abort();
  await done;
  assert.equal(seen.acks, 0);
});

test("a turn that failed for want of a disk while the channel stops is left to the next start", async () => {
  const { seen, done, stop } = meet(async (lifecycle, _seen, { tell, replyPipeline }) => {
    await lifecycle.onAdopted();
    tell(FULL);
    replyPipeline.transformReplyPayload(EXCUSE);
    stop.abort();
  });
  await done;
  assert.deepEqual([seen.acks, seen.sent], [0, []]);
});

test("whom OpenClaw lets in before one whose turn failed gives way, and comes under another id", async () => {
  const turns = new Turns();
  let over;
  const { seen, done } = meet(
    async (lifecycle, seen) => {
      if (seen.ids.length > 1) return lifecycle.onAdopted();
      over = turns.hold("agent:main:main");
      await assert.rejects(async () => lifecycle.onAdopted(), /not the next/);
    },
    [],
    turns,
  );
  await settle();
  assert.deepEqual([seen.ids, seen.acks], [["1"], 0]);
  over();
  await done;
  assert.deepEqual(seen.ids, ["1", "7#1#1"]);
  assert.ok(seen.acks > 0);
});

test("an excuse that was held back is said after all, if there was an answer", async () => {
  const turns = new Turns();
  const { seen, done } = meet(
    async (lifecycle, _seen, { tell, replyPipeline }) => {
      await lifecycle.onAdopted();
      tell(FULL);
      assert.equal(replyPipeline.transformReplyPayload(EXCUSE), null);
      assert.ok(replyPipeline.transformReplyPayload({ text: "An answer." }));
      await turns.sent(chatOf("core-telegram", "default", "7"), "An answer.");
    },
    [],
    turns,
  );
  await done;
  assert.deepEqual(seen.sent, [EXCUSE.text]);
  assert.ok(seen.acks > 0);
});

describe("what a turn comes to", () => {
  const session = "agent:main:Main";
  const event = (data, rest = {}) => ({ sessionKey: "agent:main:main", stream: "lifecycle", data, ...rest });
  const ended = { phase: "end", terminalReply: { disposition: "visible", text: "The answer." } };
  const full = Object.assign(new Error("could not publish"), { cause: { errcode: 13 } });
  const cases = {
    "an excuse for a model that is down": { events: [{ phase: "error", error: "overloaded" }] },
    "an excuse for another session's disk": { events: [FULL.data], of: { sessionKey: "agent:main:other" } },
    "an excuse without a reason": { events: [{ phase: "end" }] },
    "an excuse for a full disk": { events: [FULL.data], held: true },
    "an excuse while OpenClaw does not read its database": {
      events: [{ phase: "error", error: "OpenClaw state database read admission changed" }],
      held: true,
    },
    "an excuse of a run that ended well": { events: [ended], held: true, payload: { text: "The answer." } },
    "an excuse behind an answer": { events: [FULL.data], before: { text: "The answer." } },
    "an excuse behind an answer that is out": {
      events: [FULL.data],
      before: { text: "The answer." },
      out: true,
    },
    "an answer": { say: { text: "The answer." }, events: [] },
    "that there is no answer, where it could not be sent for want of a disk": {
      ...{ say: { text: "No reply." }, events: [], before: { text: "The answer." } },
      ...{ failure: full, held: true, payload: { text: "The answer." } },
    },
    "that there is no answer, where OpenClaw's queue had no disk for it": {
      ...{ say: { text: "No reply." }, events: [], before: { text: "The answer." } },
      ...{
        failure: new Error("Delivery platform claim was lost: 1 | database or disk is full | unavailable"),
      },
      ...{ held: true, payload: { text: "The answer." } },
    },
    "that there is no answer, where the platform refused it": {
      ...{ say: { text: "No reply." }, events: [], before: { text: "The answer." } },
      failure: Object.assign(new Error("chat not found"), { code: "CHANNEL_SEND" }),
    },
  };
  for (const [
    what,
    { say = EXCUSE, events, of, before, out, failure, held = false, payload },
  ] of Object.entries(cases))
    test(`${what} is ${held ? "held back" : "said"}`, () => {
      const outcome = new Outcome(session);
      for (const data of events) outcome.observe(event(data, of));
      outcome.heard();
      if (before) outcome.say(before);
      if (out) outcome.heard();
      outcome.failure = failure;
      assert.equal(outcome.say(say), held ? null : say);
      assert.deepEqual([outcome.isLost, outcome.isOut], [held, out === true]);
      assert.deepEqual(outcome.payload, payload ?? (held ? EXCUSE : say));
    });

  test("the model acted if it said something, or used a tool", () => {
    const outcome = new Outcome(session);
    outcome.observe(event({ phase: "start" }));
    assert.equal(outcome.acted, false);
    outcome.observe(event({}, { stream: "tool" }));
    assert.equal(outcome.acted, true);
  });
});
