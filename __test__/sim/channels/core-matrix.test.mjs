// Our Matrix channel against the simulated homeserver, over TCP, with a store on the disk.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import core from "../../../index.js";
import { inTurn, killedAtEachStep, logged, loggedText, ownSteps, position, startBot } from "./kills.mjs";
import { startSimulator } from "./simulator.mjs";

const me = "@sim:sim";
// One process of a machine receives with a token: another run of these tests has another.
const token = `sim-token-${process.pid}`;
const folder = mkdtempSync(join(tmpdir(), "openclaw-core-matrix-"));
let sim;
before(async () => {
  sim = await startSimulator("matrix", { token, limits: false });
});
after(async () => {
  await sim.close();
  rmSync(folder, { recursive: true, force: true });
});

let stores = 0;
async function withChannel(act, options = {}) {
  const store = await core.EventStore.open(join(folder, `store-${stores++}`));
  const channel = new core.MatrixChannel({ token, baseUrl: sim.url, store, ...options });
  try {
    return await act(channel, store);
  } finally {
    await channel.close();
    await store.close();
  }
}

/** A poll for what is new. */
const isSync = ({ what, request }) =>
  what === "request" && request.path.endsWith("/sync") && "since" in request.query;

/** An iteration that has been told where we are: what is written from now on is new to it. */
async function listening(channel) {
  const after = await position(sim);
  const iteration = channel.messages();
  const pending = iteration.next();
  pending.catch(() => {});
  await sim.seen(isSync, { after });
  const queue = [pending];
  return {
    async take() {
      const { value } = await (queue.shift() ?? iteration.next());
      await value.ack();
      return value;
    },
    end: () => iteration.return(),
  };
}

const own = async (room) =>
  (await sim.state()).rooms[room].events.filter(
    (event) => event.sender === me && event.state_key === undefined,
  );

test("a message comes in, and an answer goes out", async () => {
  await sim.do("room", { id: "!a:sim" });
  await withChannel(async (channel) => {
    assert.equal(channel.id, "matrix");
    const messages = await listening(channel);
    const { event_id } = await sim.do("message", { room: "!a:sim", text: "hello" });
    const message = await messages.take();
    assert.equal(message.text, "hello");
    assert.equal(message.messageId, event_id);
    assert.deepEqual(message.chat, { kind: "direct", id: "!a:sim" });
    const receipt = await channel.send({ to: "!a:sim", text: "**hi**", replyToId: event_id });
    assert.equal(receipt.state, "accepted");
    await channel.edit("!a:sim", receipt.messageIds[0], "_new_");
    await channel.react("!a:sim", event_id, "👍");
    await channel.react("!a:sim", event_id, "");
    await channel.typing("!a:sim");
    const [first, edit, reaction, redaction] = await own("!a:sim");
    assert.equal(first.content.formatted_body, "<b>hi</b>");
    assert.equal(edit.content["m.relates_to"].event_id, receipt.messageIds[0]);
    assert.equal(redaction.redacts, reaction.event_id);
    assert.deepEqual((await sim.state()).rooms["!a:sim"].typing, [me]);
    assert.equal(channel.status().state, "running");
    await messages.end();
  });
});

test("files go both ways, and their size is bounded", async () => {
  await sim.do("room", { id: "!files:sim", name: "Files", members: ["@bob:sim"] });
  await withChannel(async (channel) => {
    const messages = await listening(channel);
    const data = Buffer.from("hello file");
    const file = { name: "a.txt", mime: "text/plain", base64: data.toString("base64") };
    await sim.do("message", { room: "!files:sim", file });
    const message = await messages.take();
    assert.deepEqual(message.chat, { kind: "group", id: "!files:sim", title: "Files" });
    assert.deepEqual(await message.attachments[0].download(), data);
    await assert.rejects(message.attachments[0].download({ maxBytes: 3 }), { code: "LIMIT" });
    const receipt = await channel.send({
      to: "!files:sim",
      text: "look",
      attachments: [{ data, name: "b.txt" }],
    });
    assert.equal(receipt.messageIds.length, 2);
    await messages.end();
  });
});

test("what was written while nobody was there comes, and an answer that was lost is there once", async () => {
  await sim.do("room", { id: "!late:sim" });
  const path = join(folder, "late");
  const open = async (act) => {
    const store = await core.EventStore.open(path);
    const channel = new core.MatrixChannel({ token, baseUrl: sim.url, store });
    await act(channel);
    await channel.close();
    await store.close();
  };
  await open(async (channel) => (await listening(channel)).end());
  for (let n = 0; n < 150; n++) await sim.do("message", { room: "!late:sim", text: String(n) });
  await open(async (channel) => {
    const got = [];
    for await (const message of channel.messages()) {
      got.push(message.text);
      await message.ack();
      if (got.length === 150) break;
    }
    assert.deepEqual(
      got,
      Array.from({ length: 150 }, (_, n) => String(n)),
    );
    await sim.fault({ at: "answer", match: "/send/", do: "drop" });
    const receipt = await channel.send({ to: "!late:sim", text: "once" });
    assert.equal(receipt.state, "accepted");
    assert.equal(receipt.attempts, 2);
    assert.equal((await own("!late:sim")).length, 1);
  });
});

test("killed at each step, a bot loses nothing, says nothing twice, and every answer is there", async (t) => {
  const rooms = ["!kill0:sim", "!kill1:sim", "!kill2:sim"];
  for (const id of rooms) await sim.do("room", { id });
  const store = join(folder, "killed");
  const options = { token, baseUrl: sim.url };
  // Once it has been told where we are, what is written is new to it.
  const from = await position(sim);
  const first = startBot("MatrixChannel", options, store);
  await sim.seen(isSync, { after: from });
  await first.kill();
  const received = loggedText((line) => line.what === "answer" && line.answer.body?.next_batch);
  const outcome = await killedAtEachStep({
    sim,
    adapter: "MatrixChannel",
    options,
    store,
    keyed: true,
    // Between rooms there is no order.
    lastChats: [0, 1, 2],
    steps: {
      received,
      confirmed: inTurn(received, logged(isSync)),
      ...ownSteps,
      sending: logged(({ what, request }) => what === "request" && request.path.includes("/send/")),
    },
    write: (chat, text) => sim.do("message", { room: rooms[chat], text }),
    answers: async () => (await Promise.all(rooms.map(own))).flat().map(({ content }) => content.body),
  });
  t.diagnostic(JSON.stringify(outcome));
});

test("nothing goes to an encrypted room, and no invitation is accepted unasked", async () => {
  await sim.do("room", { id: "!e:sim" });
  const content = { algorithm: "m.megolm.v1.aes-sha2" };
  await sim.do("state", { room: "!e:sim", type: "m.room.encryption", content });
  await sim.do("room", { id: "!invited:sim", invite: true });
  await withChannel(async (channel) => {
    const refused = { code: "CHANNEL_SEND", message: /encrypted/ };
    await assert.rejects(channel.send({ to: "!e:sim", text: "x" }), refused);
    await assert.rejects(channel.react("!e:sim", "$x", "👍"), refused);
    const messages = await listening(channel);
    assert.equal((await sim.state()).rooms["!invited:sim"].membership, "invite");
    await messages.end();
  });
  assert.deepEqual(await own("!e:sim"), []);
});

test("a token that is revoked ends it and is never said; no rule was broken before", async () => {
  assert.deepEqual(await sim.violations(), []);
  await withChannel(async (channel) => {
    const rejected = assert.rejects(channel.messages().next(), {
      code: "CHANNEL_AUTH",
      message: /^(?!.*sim-token).*M_UNKNOWN_TOKEN/,
    });
    await sim.do("revoke");
    await rejected;
    assert.equal(channel.status().state, "failed");
  });
});
