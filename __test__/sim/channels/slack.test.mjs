// The simulated Slack as Bolt sees it: that client decides whether it speaks as Slack does.
import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import bolt from "@slack/bolt";
import { deferred, eventually, startSimulator, within } from "./simulator.mjs";

const { App, LogLevel } = bolt;
const ackMs = 4000;
let sim;
let apps = [];
before(async () => {
  sim = await startSimulator("slack", { ping_ms: 5000, ack_ms: ackMs, retries: [200, 20_000, 20_000] });
  await sim.do("channel", { id: "C1", name: "general" });
  await sim.do("user", { id: "U1" });
});
after(() => sim.close());
afterEach(async () => {
  await within(Promise.all(apps.map((app) => app.stop())));
  apps = [];
});

const options = () => ({
  token: "xoxb-sim",
  appToken: "xapp-sim",
  socketMode: true,
  logLevel: LogLevel.ERROR,
  clientOptions: { slackApiUrl: `${sim.url}/api/`, retryConfig: { retries: 0 } },
});

async function started(more = {}, listen = () => {}) {
  const app = new App({ ...options(), ...more });
  apps.push(app);
  listen(app);
  const from = await position();
  await app.start();
  await sim.seen(outFrame("hello"), { after: from });
  return app;
}

const outFrame = (label) => (line) => line.what === "out" && line.label === label;
const position = async () => ((await sim.log()).at(-1)?.n ?? -1) + 1;
const failed = (code) => (error) => error.data?.error === code;
const acks = (lines) => lines.filter((line) => line.what === "in" && line.frame.includes?.("envelope_id"));
async function brokenBy(act) {
  const before = (await sim.violations()).length;
  await act();
  return (await sim.violations()).slice(before).map(({ rule }) => rule);
}

test("a message is acknowledged and answered in its thread; the bot's own do not loop", async () => {
  const got = deferred();
  const seen = [];
  const app = await started({}, (app) =>
    app.message(async ({ message, say }) => {
      seen.push(message.text);
      const sent = await say({ text: "heard", thread_ts: message.ts });
      got.resolve({ message, sent });
    }),
  );
  const from = await position();
  const { ts } = await sim.do("message", { channel: "C1", from: "U1", text: "hello" });
  const { message, sent } = await got.promise;
  assert.equal(message.ts, ts);
  assert.equal(message.channel_type, "channel");
  const { messages } = await app.client.conversations.replies({ channel: "C1", ts });
  assert.deepEqual(
    messages.map((known) => [known.ts, known.text]),
    [
      [ts, "hello"],
      [sent.ts, "heard"],
    ],
  );
  await sim.seen((line) => acks([line]).length > 0, { after: from });
  assert.deepEqual(seen, ["hello"]);
  assert.deepEqual(await sim.violations(), []);
});

test("a mention in a channel is an event of its own; a direct message says that it is one", async () => {
  const mentioned = deferred();
  const direct = deferred();
  await started({}, (app) => {
    app.event("app_mention", async ({ event }) => mentioned.resolve(event));
    app.message(async ({ message }) => {
      if (message.channel_type === "im") direct.resolve(message);
    });
  });
  await sim.do("message", { channel: "C1", from: "U1", text: "<@U0BOT> you there?" });
  assert.equal((await mentioned.promise).text, "<@U0BOT> you there?");
  const { channel } = await sim.do("message", { from: "U1", text: "psst" });
  assert.equal((await direct.promise).channel, channel);
});

test("what is not acknowledged in time comes again, as the same event", async () => {
  const seen = [];
  const first = deferred();
  const second = deferred();
  await started({}, (app) =>
    app.message(async ({ body }) => {
      seen.push(body.event_id);
      (seen.length === 1 ? first : second).resolve();
    }),
  );
  const from = await position();
  await sim.fault({ at: "in", match: "envelope_id", do: "drop" });
  await sim.do("message", { channel: "C1", from: "U1", text: "again" });
  await sim.seen(({ what }) => what === "fault", { after: from });
  await first.promise;
  await second.promise;
  assert.equal(new Set(seen).size, 1);
  const again = await sim.seen((line) => line.what === "out" && line.frame?.includes?.('"retry_attempt":1'), {
    after: from,
  });
  await sim.seen((line) => acks([line]).length > 0, { after: again.n });
});

test("a handler that acknowledges too late is told so by a violation and a second delivery", async () => {
  const again = deferred();
  let deliveries = 0;
  await started({}, (app) =>
    app.event("reaction_added", async () => {
      deliveries += 1;
      if (deliveries === 2) again.resolve();
    }),
  );
  // The client acknowledges events by itself, so the acknowledgement is held up on its way.
  const { ts } = await sim.do("message", { channel: "C1", from: "U1", text: "react to this" });
  const from = await position();
  await sim.fault({ at: "in", match: "envelope_id", do: "stall", ms: ackMs + 800 });
  await sim.do("react", { channel: "C1", ts, from: "U1", name: "eyes" });
  await again.promise;
  await sim.seen((line) => line.what === "violation" && line.rule === "slack.ack", { after: from });
});

test("asked to refresh, it opens a new connection, and nothing is lost", async () => {
  const got = deferred();
  await started({}, (app) =>
    app.message(async ({ message }) => {
      if (message.text === "meanwhile") got.resolve();
    }),
  );
  const from = await position();
  await sim.do("disconnect", { reason: "refresh_requested" });
  await sim.do("message", { channel: "C1", from: "U1", text: "meanwhile" });
  await sim.seen(outFrame("hello"), { after: from });
  await got.promise;
  assert.equal((await sim.state()).lost.length, 0);
});

test("a half-open connection is noticed by the missing pong", async () => {
  const got = deferred();
  await started({}, (app) =>
    app.message(async ({ message }) => {
      if (message.text === "over the new one") got.resolve();
    }),
  );
  const from = await position();
  await sim.sockets("half_open");
  await sim.seen(outFrame("hello"), { after: from });
  await sim.do("message", { channel: "C1", from: "U1", text: "over the new one" });
  await got.promise;
  // A command that went to the dead one would be lost to the tests after this.
  await eventually(async () => (await sim.state()).sockets === 1);
});

test("edits, deletions and reactions, both ways", async () => {
  const events = [];
  const done = deferred();
  const app = await started({}, (app) => {
    const note = (what) => {
      events.push(what);
      if (events.length === 3) done.resolve();
    };
    app.event("message", async ({ event }) => {
      if (event.subtype === "message_changed" && event.message.user === "U1") note(event.message.text);
      if (event.subtype === "message_deleted") note("deleted");
    });
    app.event("reaction_added", async ({ event }) => {
      if (event.user === "U1") note(event.reaction);
    });
  });
  const { ts } = await sim.do("message", { channel: "C1", from: "U1", text: "draft" });
  await sim.do("edit", { channel: "C1", ts, text: "final" });
  await sim.do("react", { channel: "C1", ts, from: "U1", name: "wave" });
  await sim.do("delete", { channel: "C1", ts });
  await done.promise;
  assert.deepEqual(events.toSorted(), ["deleted", "final", "wave"]);

  const { client } = app;
  const sent = await client.chat.postMessage({ channel: "C1", text: "mine" });
  await client.chat.update({ channel: "C1", ts: sent.ts, text: "mine, edited" });
  await client.reactions.add({ channel: "C1", timestamp: sent.ts, name: "eyes" });
  await assert.rejects(
    client.reactions.add({ channel: "C1", timestamp: sent.ts, name: "eyes" }),
    failed("already_reacted"),
  );
  const { messages } = await sim.state();
  const known = messages.C1.find((message) => message.ts === sent.ts);
  assert.equal(known.text, "mine, edited");
  assert.equal(known.reactions[0].name, "eyes");
  await assert.rejects(
    client.chat.update({ channel: "C1", ts: "1.2", text: "x" }),
    failed("message_not_found"),
  );
  await assert.rejects(client.chat.postMessage({ channel: "C404", text: "x" }), failed("channel_not_found"));
  await assert.rejects(
    client.chat.postMessage({
      channel: "C1",
      text: "",
      blocks: [{ type: "section", text: { type: "mrkdwn", text: "x".repeat(3001) } }],
    }),
    failed("invalid_blocks"),
  );
});

test("files go up by the external upload, and come down with the token alone", async () => {
  const got = deferred();
  const app = await started({}, (app) =>
    app.event("message", async ({ event }) => {
      if (event.subtype === "file_share" && event.user === "U1") got.resolve(event);
    }),
  );
  await app.client.filesUploadV2({
    channel_id: "C1",
    initial_comment: "here",
    file: Buffer.from("contents"),
    filename: "a.txt",
  });
  const { messages } = await sim.state();
  const shared = messages.C1.at(-1);
  assert.equal(shared.text, "here");
  assert.equal(shared.files[0].name, "a.txt");
  await sim.do("message", {
    channel: "C1",
    from: "U1",
    text: "yours",
    files: [{ name: "b.bin", mime: "image/png", base64: Buffer.from("inbound").toString("base64") }],
  });
  const { files } = await got.promise;
  const authorized = await fetch(files[0].url_private, { headers: { authorization: "Bearer xoxb-sim" } });
  assert.equal(await authorized.text(), "inbound");
  const stranger = await fetch(files[0].url_private);
  assert.match(stranger.headers.get("content-type"), /text\/html/);
});

test("commands and buttons are acknowledged, and answered by response_url", async () => {
  const answered = deferred();
  const pressed = deferred();
  const app = await started({}, (app) => {
    app.command("/ask", async ({ command, ack, respond }) => {
      await ack();
      await respond({ text: `you asked ${command.text}`, response_type: "in_channel" });
      answered.resolve();
    });
    app.action("yes", async ({ ack, body, respond }) => {
      await ack();
      await respond({ text: "chosen", replace_original: true });
      pressed.resolve(body.user.id);
    });
  });
  await sim.do("command", { channel: "C1", from: "U1", command: "/ask", text: "why" });
  await answered.promise;
  const sent = await app.client.chat.postMessage({
    channel: "C1",
    text: "choose",
    blocks: [
      {
        type: "actions",
        elements: [
          { type: "button", action_id: "yes", value: "y", text: { type: "plain_text", text: "Yes" } },
        ],
      },
    ],
  });
  await sim.do("press", { channel: "C1", ts: sent.ts, from: "U1", action_id: "yes", value: "y" });
  assert.equal(await pressed.promise, "U1");
  const { messages } = await sim.state();
  assert.ok(messages.C1.some(({ text }) => text === "you asked why"));
  assert.equal(messages.C1.find(({ ts }) => ts === sent.ts).text, "chosen");
});

test("too many messages are refused with Retry-After, and obeying it is enough", async () => {
  const app = new App({
    ...options(),
    clientOptions: { ...options().clientOptions, rejectRateLimitedCalls: true },
  });
  await sim.do("channel", { id: "C2", name: "busy" });
  const post = () => app.client.chat.postMessage({ channel: "C2", text: "x" });
  let wait;
  for (let n = 0; wait === undefined && n < 100; n += 1)
    await post().catch((error) => {
      assert.equal(error.code, "slack_webapi_rate_limited_error");
      wait = error.retryAfter;
    });
  assert.ok(wait >= 1);
  assert.deepEqual(await brokenBy(() => assert.rejects(post())), ["slack.rate-limit"]);
  await sim.advance(wait * 1000);
  await post();
});

test("wrong tokens are refused", async () => {
  const bad = new App({ ...options(), token: "xoxb-wrong", tokenVerificationEnabled: false });
  await assert.rejects(bad.client.auth.test(), failed("invalid_auth"));
  const worse = new App({ ...options(), appToken: "xapp-wrong" });
  await assert.rejects(worse.start(), failed("invalid_auth"));
});

test("every rule names its source", async () => {
  for (const { id, text, source } of await sim.rules()) {
    assert.match(id, /^slack\./);
    assert.ok(text.length > 10);
    assert.match(source, /^https:\/\/docs\.slack\.dev\//);
  }
});
