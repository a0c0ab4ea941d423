// The simulated homeserver as matrix-js-sdk sees it: that client decides whether it speaks as Matrix does.
import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import sdk, {
  ClientEvent,
  EventType,
  MatrixError,
  MsgType,
  ReceiptType,
  RelationType,
  RoomEvent,
  RoomMemberEvent,
  SyncState,
} from "matrix-js-sdk";
import { deferred, startSimulator, within } from "./simulator.mjs";

const silent = { trace() {}, debug() {}, info() {}, warn() {}, error() {}, getChild: () => silent };
const me = "@sim:sim";
let sim;
let clients = [];
let room;
let rooms = 0;
before(async () => {
  sim = await startSimulator("matrix", { burst: 1000, per_ms: 10 });
});
after(() => sim.close());
afterEach(() => {
  for (const client of clients) client.stopClient();
  clients = [];
});

function newClient(more = {}) {
  const client = sdk.createClient({
    baseUrl: sim.url,
    userId: me,
    accessToken: "sim-token",
    deviceId: "SIMDEVICE",
    logger: silent,
    ...more,
  });
  clients.push(client);
  return client;
}

async function newRoom(more = {}) {
  rooms += 1;
  room = `!room${rooms}:sim`;
  await sim.do("room", { id: room, name: `Room ${rooms}`, ...more });
  return room;
}

async function syncing(client = newClient()) {
  const synced = deferred();
  client.on(ClientEvent.Sync, (state) => {
    if (state === SyncState.Syncing || state === SyncState.Prepared) synced.resolve();
  });
  await client.startClient({ initialSyncLimit: 10 });
  await synced.promise;
  return client;
}

const refusal = (status, code) => (error) =>
  error instanceof MatrixError && error.httpStatus === status && error.errcode === code;
/** The messages of others, as they come. */
function listen(client) {
  const texts = [];
  const waiting = [];
  client.on(RoomEvent.Timeline, (event, _room, toStartOfTimeline) => {
    if (toStartOfTimeline || event.getSender() === me || event.getType() !== EventType.RoomMessage) return;
    texts.push(event.getContent().body);
    for (const check of waiting) check();
  });
  return {
    texts,
    count: (n) =>
      within(
        new Promise((resolve) => {
          const check = () => texts.length >= n && resolve();
          waiting.push(check);
          check();
        }),
      ),
  };
}
async function brokenBy(act) {
  const before = (await sim.violations()).length;
  await act();
  return (await sim.violations()).slice(before).map(({ rule }) => rule);
}

test("one logs in with a password, and not with another", async () => {
  const client = sdk.createClient({ baseUrl: sim.url });
  const login = (password) =>
    client.loginRequest({
      type: "m.login.password",
      identifier: { type: "m.id.user", user: "sim" },
      password,
    });
  await assert.rejects(login("wrong"), refusal(403, "M_FORBIDDEN"));
  const { access_token, user_id, device_id } = await login("sim-password");
  assert.equal(user_id, me);
  const who = await newClient({ accessToken: access_token, deviceId: device_id }).whoami();
  assert.equal(who.device_id, device_id);
  await assert.rejects(newClient({ accessToken: "stale" }).whoami(), refusal(401, "M_UNKNOWN_TOKEN"));
});

test("messages come by sync, in order and once, and are answered", async () => {
  await newRoom();
  const broken = await brokenBy(async () => {
    const client = await syncing();
    const heard = listen(client);
    assert.equal(client.getRoom(room).name, `Room ${rooms}`);
    for (const text of ["one", "two", "three"]) await sim.do("message", { room, text });
    await heard.count(3);
    assert.deepEqual(heard.texts, ["one", "two", "three"]);
    const { event_id } = await client.sendTextMessage(room, "answer");
    const sent = (await sim.state()).rooms[room].events.find((event) => event.event_id === event_id);
    assert.equal(sent.content.body, "answer");
    assert.equal(sent.sender, me);
  });
  assert.deepEqual(broken, []);
});

test("a sync whose answer was lost is asked for again from the same token", async () => {
  await newRoom();
  const client = await syncing();
  const heard = listen(client);
  await sim.fault({ at: "answer", match: "/sync", do: "drop" });
  await sim.do("message", { room, text: "lost?" });
  await heard.count(1);
  await sim.do("message", { room, text: "next" });
  await heard.count(2);
  assert.deepEqual(heard.texts, ["lost?", "next"]);
});

test("the same transaction id is the same event", async () => {
  await newRoom();
  const client = newClient();
  const send = (transaction) =>
    client.sendEvent(room, EventType.RoomMessage, { msgtype: MsgType.Text, body: "once" }, transaction);
  const first = await send("t1");
  assert.equal((await send("t1")).event_id, first.event_id);
  assert.notEqual((await send("t2")).event_id, first.event_id);
});

test("an invitation is told, accepted and left", async () => {
  const client = await syncing();
  const invited = deferred();
  client.on(RoomEvent.MyMembership, (known, membership) => {
    if (membership === "invite") invited.resolve(known.roomId);
  });
  await newRoom({ invite: true, direct: true });
  assert.equal(await invited.promise, room);
  await assert.rejects(client.sendTextMessage(room, "too early"), refusal(403, "M_FORBIDDEN"));
  await client.joinRoom(room);
  await client.sendTextMessage(room, "joined");
  await client.leave(room);
  assert.equal((await sim.state()).rooms[room].membership, "leave");
  await assert.rejects(client.joinRoom("!none:sim"), refusal(404, "M_NOT_FOUND"));
});

test("replies, threads, edits, reactions, redactions, typing and receipts", async () => {
  await newRoom();
  const client = await syncing();
  const heard = listen(client);
  const typed = deferred();
  client.on(RoomMemberEvent.Typing, (_event, member) => {
    if (member.typing && member.userId !== me) typed.resolve(member.userId);
  });
  const { event_id } = await sim.do("message", { room, text: "root" });
  await heard.count(1);
  await client.sendEvent(room, EventType.RoomMessage, {
    msgtype: MsgType.Text,
    body: "in the thread",
    "m.relates_to": { rel_type: RelationType.Thread, event_id },
  });
  const mine = await client.sendTextMessage(room, "draft");
  await client.sendEvent(room, EventType.RoomMessage, {
    msgtype: MsgType.Text,
    body: "* final",
    "m.new_content": { msgtype: MsgType.Text, body: "final" },
    "m.relates_to": { rel_type: RelationType.Replace, event_id: mine.event_id },
  });
  await client.sendEvent(room, EventType.Reaction, {
    "m.relates_to": { rel_type: RelationType.Annotation, event_id, key: "👍" },
  });
  await client.sendTyping(room, true, 10_000);
  await client.sendReadReceipt(client.getRoom(room).findEventById(event_id), ReceiptType.Read);
  await client.redactEvent(room, mine.event_id);
  const state = (await sim.state()).rooms[room];
  assert.deepEqual(state.typing, [me]);
  assert.equal(state.read[me], event_id);
  assert.deepEqual(state.events.find((event) => event.event_id === mine.event_id).content, {});

  await sim.do("typing", { room, typing: true });
  assert.equal(await typed.promise, "@alice:sim");
  const redacted = deferred();
  client.getRoom(room).on(RoomEvent.Redaction, (event) => redacted.resolve(event.event.redacts));
  await sim.do("redact", { room, event: event_id });
  assert.equal(await redacted.promise, event_id);
});

test("media goes up, and comes down with the token alone", async () => {
  await newRoom();
  const client = await syncing();
  const got = deferred();
  client.on(RoomEvent.Timeline, (event) => {
    if (event.getContent().msgtype === "m.image") got.resolve(event.getContent());
  });
  const { content_uri } = await client.uploadContent(Buffer.from("contents"), { type: "text/plain" });
  const authorized = { headers: { authorization: "Bearer sim-token" } };
  const url = client.mxcUrlToHttp(content_uri, undefined, undefined, undefined, false, true, true);
  assert.equal(await (await fetch(url, authorized)).text(), "contents");
  assert.equal((await fetch(url)).status, 401);
  assert.equal((await fetch(client.mxcUrlToHttp(content_uri), authorized)).status, 404, "the old endpoint");
  await sim.do("message", {
    room,
    file: { name: "a.png", mime: "image/png", base64: Buffer.from("inbound").toString("base64") },
  });
  const content = await got.promise;
  assert.equal(content.info.size, 7);
  const inbound = client.mxcUrlToHttp(content.url, undefined, undefined, undefined, false, true, true);
  assert.equal(await (await fetch(inbound, authorized)).text(), "inbound");
});

test("a limit is M_LIMIT_EXCEEDED with retry_after_ms, and obeying it is enough", async () => {
  const strict = await startSimulator("matrix");
  try {
    await strict.do("room", { id: "!strict:sim" });
    const send = (n) =>
      fetch(`${strict.url}/_matrix/client/v3/rooms/!strict:sim/send/m.room.message/t${n}`, {
        method: "PUT",
        headers: { authorization: "Bearer sim-token" },
        body: JSON.stringify({ msgtype: "m.text", body: "x" }),
      });
    let refused;
    let n = 0;
    for (; !refused && n < 100; n += 1) {
      const answer = await send(n);
      if (answer.status === 429) refused = await answer.json();
    }
    assert.equal(refused.errcode, "M_LIMIT_EXCEEDED");
    assert.equal((await send(n)).status, 429);
    assert.deepEqual(
      (await strict.violations()).map(({ rule }) => rule),
      ["matrix.rate-limit"],
    );
    await strict.advance(refused.retry_after_ms);
    assert.equal((await send(n)).status, 200);
    // The client waits as long as it is told, by itself.
    await strict.do("limit", { ms: 300 });
    const client = newClient({ baseUrl: strict.url });
    await client.sendTextMessage("!strict:sim", "patient");
    const { events } = (await strict.state()).rooms["!strict:sim"];
    assert.equal(events.at(-1).content.body, "patient");
  } finally {
    await strict.close();
  }
});

test("an event has at most 65536 bytes", async () => {
  await newRoom();
  await assert.rejects(newClient().sendTextMessage(room, "x".repeat(65_536)), refusal(413, "M_TOO_LARGE"));
});

test("every rule names its source", async () => {
  for (const { id, text, source } of await sim.rules()) {
    assert.match(id, /^matrix\./);
    assert.ok(text.length > 10);
    assert.match(source, /^https:\/\/spec\.matrix\.org\//);
  }
});
