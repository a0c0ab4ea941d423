// What becomes of a message that a crash brings again: `finish`, on sessions and transcripts that OpenClaw's own code writes
// and reads. The crash is that they are older than this process. And what becomes of a turn whose end OpenClaw could not write:
// `release`.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { registerHooks } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";

const state = mkdtempSync(join(tmpdir(), "openclaw-core-crash-"));
process.env.OPENCLAW_STATE_DIR = state;
// OpenClaw writes something when the process ends.
after(() => process.on("exit", () => rmSync(state, { recursive: true, force: true })));
// As OpenClaw resolves its SDK for its plugins.
registerHooks({
  resolve: (name, context, next) =>
    next(name, name.startsWith("openclaw/") ? { ...context, parentURL: import.meta.url } : context),
});
const { finish, queued, release } = await import("../../dist/adapters/channel-crash.js");
const { handle } = await import("../../dist/adapters/channel-inbound.js");
const { chatOf, key, Turns } = await import("../../dist/adapters/channel-lane.js");
const { Outcome } = await import("../../dist/adapters/channel-outcome.js");
const { PLATFORMS } = await import("../../dist/adapters/channel-table.js");
const sessions = await import("openclaw/plugin-sdk/session-store-runtime");
const transcripts = await import("openclaw/plugin-sdk/session-transcript-runtime");
const harness = await import("openclaw/plugin-sdk/agent-harness-runtime");

const platform = PLATFORMS.find(({ id }) => id === "core-telegram");
/** A minute before this process. */
const BEGAN = Math.round(performance.timeOrigin) - 60_000;
const ANSWER = "The kettle is on the third shelf, behind the tea.";
let chats = 0;

const user = (messageId, rest = {}) => ({
  ...{ role: "user", content: "Where is the kettle?" },
  ...{ __openclaw: { transport: { channel: platform.id, messageId } } },
  ...rest,
});
const said = (text, stopReason = "stop") => ({
  ...{ role: "assistant", stopReason },
  content: [{ type: "text", text }],
});

/**
 * A chat whose message 1 comes again. `transcript` are the messages of its session, a second apart, `entry` is what OpenClaw
 * knows of it, both given the message's full id and the chat.
 */
async function crashed({ transcript, entry = () => ({}), refusal, config = {}, failed, beganMs = BEGAN }) {
  const chat = String(++chats);
  const route = { agentId: "main", sessionKey: `agent:main:${platform.id}:direct:${chat}` };
  const message = {
    ...{ id: `update-${chat}`, messageId: "1", kind: "message", text: "Where is the kettle?" },
    ...{ sender: { id: chat }, chat: { id: chat, kind: "direct" } },
  };
  const sessionId = randomUUID();
  const remember = (entry) =>
    sessions.upsertSessionEntry({ ...route, entry: { sessionId, updatedAt: beganMs, ...entry } });
  if (transcript) await remember({ status: "done", ...entry(chat) });
  for (const [second, one] of (transcript?.(`${chat}#1`) ?? []).entries()) {
    const now = beganMs + second * 1000;
    const place = { ...route, sessionId, now };
    await transcripts.appendSessionTranscriptMessageByIdentity({
      ...place,
      message: { timestamp: now, ...one },
    });
  }
  const seen = { sent: [], begun: 0, log: [] };
  const log = (text) => seen.log.push(text);
  const lane = {
    ...{ platform, cfg: {}, account: { accountId: "default", config } },
    ...{ turns: new Turns(), signal: new AbortController().signal },
    log: { info: log, warn: log, error: log },
    deliver: async ({ text, mediaUrls, replyToId }, _message, _route, key) => {
      if (refusal) throw refusal;
      seen.sent.push({
        text,
        key,
        ...(mediaUrls.length > 0 && { mediaUrls }),
        ...(replyToId && { replyToId }),
      });
    },
  };
  const aftermath = { said: [] };
  if (failed) aftermath.failed = Object.assign(new Outcome(route.sessionKey), { sinceMs: beganMs }, failed);
  const look = () => finish(lane, message, route, aftermath, () => seen.begun++);
  const known = () => sessions.getSessionEntry({ ...route, readConsistency: "latest" });
  return {
    lane,
    message,
    route,
    seen,
    look,
    aftermath,
    remember,
    known,
    own: key(message.id, "after a crash"),
  };
}

/** The answer as OpenClaw keeps it until it is delivered. */
const pending = (chat, rest = {}) => ({
  pendingFinalDelivery: {
    ...{ kind: "replayable", text: ANSWER, intentId: "intent", createdAt: BEGAN + 1500 },
    context: { channel: platform.id, to: chat, accountId: "default" },
    ...rest,
  },
});
const deliveries = (...states) => ({ deliveries: states.map((state, n) => ({ id: `queued-${n}`, state })) });

describe("a message that comes again after a crash", () => {
  test("has no turn where OpenClaw has no session, or not the message", async () => {
    const nowhere = await crashed({});
    assert.equal(await nowhere.look(), "none");
    const other = await crashed({ transcript: () => [user("7#99"), said("Something else.")] });
    assert.equal(await other.look(), "none");
    assert.deepEqual([...nowhere.seen.sent, ...other.seen.sent], []);
  });

  test("has a turn to come where the model had not said anything", async () => {
    const silent = await crashed({ transcript: (id) => [user(id)] });
    assert.equal(await silent.look(), "none");
  });

  test("is a turn of this process, if it began in it", async () => {
    const mine = await crashed({
      transcript: (id) => [user(id), said(ANSWER)],
      beganMs: Math.ceil(performance.timeOrigin),
    });
    assert.equal(await mine.look(), "over");
    assert.deepEqual(mine.seen.sent, []);
  });

  test("is answered with what the model had said, once the answer is nowhere", async () => {
    const lost = await crashed({
      transcript: (id) => [
        user(id),
        said("I will look.", "toolUse"),
        said(ANSWER),
        user("1#2"),
        said("Later."),
      ],
      config: { replyToMode: "first" },
    });
    assert.equal(await lost.look(), "over");
    assert.deepEqual(lost.seen.sent, [{ text: ANSWER, key: lost.own, replyToId: "1" }]);
    assert.equal(lost.seen.begun, 1);
  });

  test("is answered with what follows OpenClaw's own recovery, which is no turn of another", async () => {
    const recovered = await crashed({
      transcript: (id) => [
        user(id),
        said("", "aborted"),
        user("", { provenance: { kind: "internal_system", sourceTool: "main_session_restart_recovery" } }),
        said(ANSWER),
      ],
    });
    assert.equal(await recovered.look(), "over");
    assert.deepEqual(recovered.seen.sent, [{ text: ANSWER, key: recovered.own }]);
  });

  for (const [why, ...transcript] of [
    ["what was said before a tool was called", said("I will look.", "toolUse")],
    ["what broke off", said("The kettle is", "error")],
    ["a model's silence", said("NO_REPLY")],
  ])
    test(`is not answered with ${why}`, async () => {
      const none = await crashed({ transcript: (id) => [user(id), ...transcript] });
      assert.equal(await none.look(), "over");
      assert.deepEqual(none.seen.sent, []);
    });

  for (const [what, text] of [
    ["the answer", ANSWER],
    ["the answer behind a prefix", `[kitchen]  ${ANSWER}`],
    ["a part of it", "The kettle is on the third shelf, behind the"],
  ])
    test(`is over where its chat had ${what}`, async () => {
      const heard = await crashed({ transcript: (id) => [user(id), said(ANSWER)] });
      heard.aftermath.said.push(text);
      assert.equal(await heard.look(), "over");
      assert.deepEqual(heard.seen.sent, []);
    });

  test("is answered where its chat had something else", async () => {
    const heard = await crashed({ transcript: (id) => [user(id), said(ANSWER)] });
    heard.aftermath.said.push("The kettle", "Good morning.");
    assert.equal(await heard.look(), "over");
    assert.equal(heard.seen.sent.length, 1);
  });

  test("waits as long as OpenClaw is at it, and once more", async () => {
    const running = await crashed({
      transcript: (id) => [user(id), said(ANSWER)],
      entry: () => ({ status: "running" }),
    });
    assert.deepEqual([await running.look(), await running.look()], ["busy", "busy"]);
    await running.remember({ status: "done" });
    assert.deepEqual([await running.look(), await running.look()], ["busy", "over"]);
    assert.deepEqual([running.seen.sent.length, running.seen.begun], [1, 1]);
  });

  test("does not wait for a turn of OpenClaw's that is over and whose end it could not write", async () => {
    const taken = await crashed({
      transcript: (id) => [user(id), said(ANSWER)],
      entry: () => ({ status: "running", startedAt: Math.ceil(performance.timeOrigin) + 10 }),
    });
    assert.equal(await taken.look(), "busy");
    assert.equal(taken.known().status, "done");
    assert.equal(await taken.look(), "busy");
    assert.equal(await taken.look(), "over");
    assert.deepEqual(taken.seen.sent, [{ text: ANSWER, key: taken.own }]);
  });

  test("is acknowledged before OpenClaw knows that the answer is out: another crash may come then", async () => {
    const { lane, message, route, remember, seen } = await crashed({
      transcript: (id) => [user(id), said(ANSWER)],
      entry: () => ({ status: "running", restartRecoveryDeliveryRunId: "recovery" }),
    });
    const chat = chatOf(platform.id, "default", message.chat.id);
    let acknowledged = 0;
    const coming = { ...message, redelivered: true, ack: async () => void acknowledged++ };
    lane.runtime = { routing: { resolveAgentRoute: () => route } };
    let over = false;
    const handled = handle(lane, coming, () => {}).then(() => {
      over = true;
    });
    for (const end = performance.now() + 30_000; acknowledged === 0 && performance.now() < end; ) {
      await lane.turns.sent(chat, "I'm continuing your interrupted request now.");
      assert.equal(acknowledged, 0);
      await lane.turns.sent(chat, ANSWER);
      await new Promise(setImmediate);
    }
    assert.deepEqual([acknowledged, over], [1, false]);
    await remember({ status: "done" });
    await handled;
    assert.deepEqual(seen.sent, []);
  });

  test("waits for what this process is about to send", async () => {
    const now = { createdAt: Math.ceil(performance.timeOrigin) };
    const ready = await crashed({
      transcript: (id) => [user(id), said(ANSWER)],
      entry: (chat) => pending(chat, now),
    });
    assert.equal(await ready.look(), "busy");
    assert.deepEqual(ready.seen.sent, []);
  });

  for (const [what, states, sent] of [
    ["that was only prepared", ["prepared"], (own) => ({ text: ANSWER, key: queued("queued-0"), own })],
    ["in OpenClaw's queue", ["queued"], (own) => ({ text: ANSWER, key: queued("queued-0"), own })],
    ["of which nobody knows whether", ["unknown"], (own) => ({ text: ANSWER, key: queued("queued-0"), own })],
    [
      "in several parts, none of them delivered",
      ["prepared", "prepared"],
      (own) => ({ text: ANSWER, key: own, own }),
    ],
    ["that was delivered", ["delivered"], undefined],
    ["in several parts, one of them delivered", ["delivered", "queued"], undefined],
  ])
    test(`has an answer ${what}`, async () => {
      const held = await crashed({
        // The transcript's own words are not what OpenClaw was about to send.
        transcript: (id) => [user(id), said("As the model said it.")],
        entry: (chat) => pending(chat, deliveries(...states)),
      });
      assert.equal(await held.look(), "over");
      const { own, ...expected } = sent?.(held.own) ?? {};
      assert.deepEqual(held.seen.sent, sent ? [expected] : []);
      // What was sent here is nothing that OpenClaw has to think of any more.
      assert.equal(held.known().pendingFinalDelivery === undefined, sent !== undefined);
    });

  for (const [whose, rest] of [
    ["another chat", (chat) => ({ context: { channel: platform.id, to: `${chat}9`, accountId: "default" } })],
    ["another account", (chat) => ({ context: { channel: platform.id, to: chat, accountId: "work" } })],
    ["a later turn", () => ({ createdAt: BEGAN + 2500 })],
    ["an earlier turn", () => ({ createdAt: BEGAN - 1 })],
  ])
    test(`leaves the answer of ${whose} alone`, async () => {
      const others = await crashed({
        transcript: (id) => [user(id), said(ANSWER), user("1#2")],
        entry: (chat) => pending(chat, { text: "Not this one.", ...deliveries("queued"), ...rest(chat) }),
      });
      assert.equal(await others.look(), "over");
      assert.deepEqual(others.seen.sent, [{ text: ANSWER, key: others.own }]);
      assert.ok(others.known().pendingFinalDelivery);
    });

  test("has files in its answer, which OpenClaw's queue alone knows how to send once it has them", async () => {
    const text = `${ANSWER}\nMEDIA:/tmp/kettle.png\nMEDIA: https://example.org/tea.png`;
    const given = (state) => ({
      transcript: (id) => [user(id), said(ANSWER)],
      entry: (chat) => pending(chat, { text, ...deliveries(state) }),
    });
    const [prepared, waiting] = [await crashed(given("prepared")), await crashed(given("queued"))];
    assert.deepEqual([await prepared.look(), await waiting.look()], ["over", "over"]);
    const mediaUrls = ["/tmp/kettle.png", "https://example.org/tea.png"];
    assert.deepEqual(prepared.seen.sent, [{ text: ANSWER, key: queued("queued-0"), mediaUrls }]);
    assert.deepEqual(waiting.seen.sent, []);
  });

  test("is over if the platform refuses its answer, and comes again if nobody knows", async () => {
    const refusal = (code) => Object.assign(new Error("chat not found"), { code });
    const given = { transcript: (id) => [user(id), said(ANSWER)] };
    const refused = await crashed({ ...given, refusal: refusal("CHANNEL_SEND") });
    assert.equal(await refused.look(), "over");
    assert.match(refused.seen.log.join(), /update-\d+ was refused: chat not found/);
    const closed = await crashed({ ...given, refusal: refusal("CHANNEL_CLOSED") });
    await assert.rejects(closed.look(), /chat not found/);
  });

  test("is found behind entries that are too large for a page", async () => {
    const large = await crashed({ transcript: (id) => [said("x".repeat(5 << 20)), user(id), said(ANSWER)] });
    assert.equal(await large.look(), "over");
    assert.deepEqual(large.seen.sent, [{ text: ANSWER, key: large.own }]);
  });
});

describe("a message whose turn failed for want of a disk, in this process", () => {
  const beganMs = Math.ceil(performance.timeOrigin) + 100;
  const given = (rest) => crashed({ beganMs, failed: {}, ...rest });

  test("has a turn to come where the transcript has no word of the model", async () => {
    for (const transcript of [undefined, () => [user("7#99")], (id) => [user(id)]])
      assert.equal(await (await given({ transcript: transcript ?? (() => []) })).look(), "none");
  });

  test("is answered with what the model had said", async () => {
    const lost = await given({ transcript: (id) => [user(id), said(ANSWER)] });
    assert.equal(await lost.look(), "over");
    assert.deepEqual(lost.seen.sent, [{ text: ANSWER, key: lost.own }]);
  });

  test("is answered by its last turn, if there were several", async () => {
    const twice = await given({
      transcript: (id) => [
        user(id),
        user("7#99"),
        said("Later."),
        user(`${id}#again-1`),
        said(ANSWER),
        user("7#100"),
      ],
    });
    assert.equal(await twice.look(), "over");
    assert.deepEqual(twice.seen.sent, [{ text: ANSWER, key: twice.own }]);
  });

  test("does not have it again once the model acted, but what OpenClaw had to say", async () => {
    const payload = { text: "Something went wrong.", isError: true };
    for (const transcript of [() => [], (id) => [user(id), said("I will look.", "toolUse")]]) {
      const acted = await given({ transcript, failed: { acted: true, excuse: payload } });
      assert.equal(await acted.look(), "over");
      assert.deepEqual(acted.seen.sent, [{ text: payload.text, key: acted.own }]);
    }
  });

  test("is answered under the key that OpenClaw's queue has, and without waiting for it", async () => {
    for (const state of ["prepared", "queued", "unknown"]) {
      const held = await given({
        transcript: (id) => [user(id), said("As the model said it.")],
        entry: (chat) => pending(chat, { createdAt: beganMs + 500, ...deliveries(state) }),
      });
      assert.equal(await held.look(), "over");
      assert.deepEqual(held.seen.sent, [{ text: ANSWER, key: queued("queued-0") }]);
      assert.equal(held.known().pendingFinalDelivery, undefined);
    }
  });

  test("does not have what was held back as its answer", async () => {
    const held = await given({
      transcript: (id) => [user(id)],
      entry: (chat) => pending(chat, { createdAt: beganMs + 500, ...deliveries("suppressed") }),
    });
    assert.equal(await held.look(), "none");
    assert.deepEqual(held.seen.sent, []);
  });
});

describe("a session that OpenClaw has as running", () => {
  const mine = () => Math.ceil(performance.timeOrigin) + 10;
  /** Releases it once `meanwhile` was done; gives what OpenClaw knows of it then. */
  async function released({ entry, before = () => {}, meanwhile = () => {} }) {
    const route = { agentId: "main", sessionKey: `agent:main:${platform.id}:direct:${++chats}` };
    const sessionId = randomUUID();
    const remember = (entry) =>
      sessions.upsertSessionEntry({ ...route, entry: { sessionId, updatedAt: Date.now(), ...entry } });
    const run = { restartRecoveryDeliveryRunId: "run" };
    await remember({ status: "running", startedAt: mine(), ...run, ...entry });
    const log = [];
    const write = (text) => log.push(text);
    const lane = {
      ...{ platform, turns: new Turns(), signal: new AbortController().signal },
      log: { info: write, warn: write, error: write },
    };
    before({ lane, route, sessionId });
    const over = release(lane, route);
    await meanwhile({ lane, route, sessionId, remember });
    await over;
    return { log, entry: sessions.getSessionEntry({ ...route, readConsistency: "latest" }) };
  }

  test("is ended if nothing runs in it: OpenClaw could not write that", async () => {
    const receipt = { restartRecoveryDeliveryReceiptState: "terminal-pending" };
    const { entry, log } = await released({ entry: receipt });
    assert.equal(entry.status, "done");
    assert.ok(entry.endedAt >= entry.startedAt);
    // What OpenClaw refuses the next message for.
    assert.equal(entry.restartRecoveryDeliveryReceiptState, undefined);
    assert.match(log.join(), /could not write the end of a turn/);
  });

  test("is left alone if something runs, or will", async () => {
    const left = {
      "a crash came, and OpenClaw takes it up": { entry: { startedAt: BEGAN } },
      "a stop came, and OpenClaw takes it up": { entry: { abortedLastRun: true } },
      "a turn of a channel runs": { before: ({ lane, route }) => lane.turns.begin(route.sessionKey) },
      "a turn of OpenClaw's runs": {
        before: ({ route, sessionId }) =>
          harness.setActiveEmbeddedRun(
            sessionId,
            { isStreaming: () => true, isCompacting: () => false, abort: () => {}, queueMessage: () => {} },
            route.sessionKey,
          ),
      },
      "a turn began meanwhile": {
        meanwhile: ({ remember }) => remember({ status: "running", startedAt: mine() + 1 }),
      },
      "its end came late": { meanwhile: ({ remember }) => remember({ status: "failed", startedAt: mine() }) },
      "it is over": { entry: { status: "timeout" } },
    };
    await Promise.all(
      Object.entries(left).map(async ([why, how]) => {
        const { entry, log } = await released(how);
        assert.deepEqual([entry.status === "done", entry.endedAt, log], [false, undefined, []], why);
      }),
    );
  });
});
