// Our WhatsApp channel against the simulated Cloud API, over TCP, with a store on the disk.
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import core from "../../../index.js";
import { freePort } from "../../free-port.mjs";
import { inTurn, killedAtEachStep, logged, loggedText, ownSteps, position, startBot } from "./kills.mjs";
import { eventually, startSimulator } from "./simulator.mjs";

const folder = mkdtempSync(join(tmpdir(), "openclaw-core-whatsapp-"));
const ANN = "15551111111";
let sim;
let store;
let channel;
let port;
before(async () => {
  sim = await startSimulator("whatsapp", { window_error: "response" });
  port = await freePort();
  store = await core.EventStore.open(join(folder, "store"));
  channel = new core.WhatsAppChannel({
    token: new core.ApiKey("sim-token"),
    verifyToken: "sim-verify",
    phoneNumberId: "100000000000001",
    webhook: { port, path: "/hook", secret: "sim-secret" },
    baseUrl: sim.url,
    store,
  });
});
after(async () => {
  await channel.close();
  await store.close();
  await sim.close();
  rmSync(folder, { recursive: true, force: true });
});

/** The next `count` messages, acknowledged. */
async function take(count) {
  const got = [];
  for await (const message of channel.messages()) {
    got.push(message);
    await message.ack();
    if (got.length === count) break;
  }
  return got;
}

const request = ({ what, request }) => what === "request" && request.path === "/v23.0/100000000000001";

test("the webhook is verified, a message comes in, and an answer goes out", async () => {
  const first = take(1);
  // The port is open before the number is asked for.
  await sim.seen(request);
  await sim.do("subscribe", { url: `http://127.0.0.1:${port}/hook` });
  await sim.do("message", { from: ANN, name: "Ann", text: "hello" });
  const [message] = await first;
  assert.equal(message.text, "hello");
  assert.equal(message.sender.name, "Ann");
  assert.deepEqual(message.chat, { kind: "direct", id: ANN });
  const { state } = await channel.send({ to: ANN, text: "**hi**", replyToId: message.messageId });
  assert.equal(state, "accepted");
  await channel.react(ANN, message.messageId, "👍");
  await channel.typing(ANN);
  const { sent, verifications } = await sim.state();
  assert.equal(sent[0].text.body, "*hi*");
  assert.deepEqual(verifications.map(({ expected, answered }) => [expected, answered]).toSorted(), [
    [false, false],
    [true, true],
  ]);
  assert.equal(channel.status().state, "running");
});

test("media goes both ways", async () => {
  const data = Buffer.from("%PDF-1.4\n");
  const file = { kind: "document", mime: "application/pdf", name: "a.pdf", base64: data.toString("base64") };
  await sim.do("message", { from: ANN, file });
  const [message] = await take(1);
  assert.equal(message.attachments[0].name, "a.pdf");
  assert.deepEqual(await message.attachments[0].download(), data);
  await assert.rejects(message.attachments[0].download({ maxBytes: 3 }), { code: "LIMIT" });
  await channel.send({ to: ANN, text: "look", attachments: [{ data, name: "b.pdf" }] });
  const { sent } = await sim.state();
  assert.deepEqual([sent.at(-1).type, sent.at(-1).document.filename], ["document", "b.pdf"]);
});

test("what is not signed is refused", async () => {
  await sim.do("forge", { from: ANN, text: "evil" });
  const { status } = await fetch(`http://127.0.0.1:${port}/hook`, { method: "POST", body: "{}" });
  assert.equal(status, 401);
  assert.equal((await fetch(`http://127.0.0.1:${port}/other`)).status, 404);
  await sim.do("message", { from: ANN, text: "good" });
  assert.equal((await take(1))[0].text, "good");
  assert.deepEqual(await sim.violations(), []);
});

test("what is not as Meta signed it is refused, and a repetition of what it signed comes to nothing", async () => {
  const post = (body, headers) => fetch(`http://127.0.0.1:${port}/hook`, { method: "POST", headers, body });
  const sign = (body, secret = "sim-secret", hash = "sha256") =>
    `${hash}=${createHmac(hash, secret).update(body).digest("hex")}`;
  const call = (id, text, at = Date.now()) =>
    JSON.stringify({
      entry: [
        {
          changes: [
            {
              field: "messages",
              value: {
                metadata: { phone_number_id: "100000000000001" },
                contacts: [],
                messages: [
                  {
                    id,
                    from: ANN,
                    timestamp: String(Math.floor(at / 1000)),
                    type: "text",
                    text: { body: text },
                  },
                ],
              },
            },
          ],
        },
      ],
    });
  const body = call("wamid.own", "signed");
  const good = sign(body);
  const refused = {
    "no signature": [body, {}],
    "another secret": [body, { "x-hub-signature-256": sign(body, "other") }],
    "another body": [call("wamid.own", "changed"), { "x-hub-signature-256": good }],
    "one byte more": [`${body} `, { "x-hub-signature-256": good }],
    "half a signature": [body, { "x-hub-signature-256": good.slice(0, -2) }],
    "no digits": [body, { "x-hub-signature-256": `${good.slice(0, -1)}g` }],
    "the older header alone": [body, { "x-hub-signature": sign(body, "sim-secret", "sha1") }],
    "the older hash": [body, { "x-hub-signature-256": sign(body, "sim-secret", "sha1") }],
    "two signatures, the wrong one first": [
      body,
      [
        ["x-hub-signature-256", sign(body, "other")],
        ["x-hub-signature-256", good],
      ],
    ],
  };
  for (const [name, [bytes, headers]] of Object.entries(refused))
    assert.equal((await post(bytes, headers)).status, 401, name);
  const headers = { "x-hub-signature-256": good };
  assert.equal((await post(body, headers)).status, 200);
  assert.deepEqual(
    (await take(1)).map(({ text, id }) => [text, id]),
    [["signed", "wamid.own"]],
  );
  // As often as somebody repeats it, now or when nobody knows its id any more.
  for (let n = 0; n < 3; n++) assert.equal((await post(body, headers)).status, 200);
  const old = call("wamid.old", "old", Date.now() - 9 * 86_400_000);
  assert.equal((await post(old, { "x-hub-signature-256": sign(old) })).status, 200);
  const next = call("wamid.next", "next");
  assert.equal((await post(next, { "x-hub-signature-256": sign(next) })).status, 200);
  assert.equal((await take(1))[0].text, "next");
  assert.equal(channel.status().waiting, 0);
});

test("a failure of which Meta tells late is in the status", async () => {
  const { messageIds } = await channel.send({ to: ANN, text: "on its way" });
  assert.equal(channel.status().error, undefined);
  const error = { code: 131026, title: "Message undeliverable", details: "Old app" };
  const from = await position(sim);
  await sim.do("status", { message: messageIds[0], to: ANN, status: "failed", error });
  await sim.seen(({ what, status }) => what === "called" && status === 200, { after: from });
  const { state, error: said } = channel.status();
  assert.equal(state, "running");
  assert.match(said, /not delivered.*Message undeliverable: Old app/);
  assert.ok(said.includes(messageIds[0]));
});

test("outside the 24 hours the error says what to do, and a template goes out", async () => {
  const to = "15552222222";
  await assert.rejects(channel.send({ to, text: "hi" }), {
    code: "CHANNEL_SEND",
    status: 400,
    message: /131047.*24 hours.*extra\.template/,
  });
  const template = { name: "hello_world", language: { code: "en_US" } };
  assert.equal((await channel.send({ to, extra: { template } })).state, "accepted");
});

test("killed at each step, a bot loses nothing and says nothing twice", async (t) => {
  const meta = await startSimulator("whatsapp", { limits: false });
  try {
    const hook = await freePort();
    const options = {
      token: "sim-token",
      verifyToken: "sim-verify",
      phoneNumberId: "100000000000001",
      webhook: { port: hook, path: "/hook", secret: "sim-secret" },
      baseUrl: meta.url,
    };
    const path = join(folder, "killed");
    const first = startBot("WhatsAppChannel", options, path);
    await meta.seen(request);
    await meta.do("subscribe", { url: `http://127.0.0.1:${hook}/hook` });
    await eventually(async () => (await meta.state()).verified);
    await first.kill();
    const isCall = (line) => line.what === "call" && line.request.body?.entry?.[0].changes[0].value.messages;
    const people = ["15553333330", "15553333331", "15553333332", "15553333333"];
    const outcome = await killedAtEachStep({
      sim: meta,
      adapter: "WhatsAppChannel",
      options,
      store: path,
      steps: {
        received: loggedText(isCall),
        // One of the calls since then was answered.
        confirmed: inTurn(
          loggedText(isCall),
          logged(({ what, status }) => what === "called" && status === 200),
        ),
        ...ownSteps,
        sending: logged(
          (line) =>
            line.what === "request" &&
            line.request.path.endsWith("/messages") &&
            line.request.body.type === "text",
        ),
      },
      write: (chat, text) => meta.do("message", { from: people[chat], text }),
      connected: logged(request),
      answers: async () => (await meta.state()).sent.map(({ text }) => text?.body),
      settled: async () => {
        await eventually(async () => (await meta.state()).undelivered === 0);
      },
      // Each notification is a connection of its own, and Meta keeps no order of what it has to send again: only one that
      // was sent once, after another was answered, comes after it.
      inOrder: async (texts) => {
        const log = await meta.log();
        const textOf = (line) => line.request.body.entry[0].changes[0].value.messages[0].text.body;
        const calls = log.filter(isCall).map(textOf);
        const once = texts.filter((text) => calls.indexOf(text) === calls.lastIndexOf(text));
        const open = new Map();
        const chain = [];
        let done = -1;
        for (const line of log) {
          if (isCall(line)) {
            open.set(line.id, { n: line.n, text: textOf(line) });
          } else if (line.what === "called" && line.status === 200 && open.has(line.id)) {
            const { n, text } = open.get(line.id);
            if (n < done || !once.includes(text)) continue;
            chain.push(text);
            done = line.n;
          }
        }
        return chain;
      },
    });
    t.diagnostic(JSON.stringify(outcome));
    assert.deepEqual(await meta.violations(), []);
  } finally {
    await meta.close();
  }
});
