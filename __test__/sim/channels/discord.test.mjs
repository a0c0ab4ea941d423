// The simulated Discord as discord.js sees it: that client decides whether it speaks as Discord does.
import assert from "node:assert/strict";
import { once } from "node:events";
import { after, afterEach, before, test } from "node:test";
import { constants, inflateSync } from "node:zlib";
import {
  ActionRowBuilder,
  AttachmentBuilder,
  ButtonBuilder,
  ButtonStyle,
  Client,
  DiscordAPIError,
  Events,
  GatewayIntentBits,
  MessageFlags,
  Partials,
} from "discord.js";
import { deferred, startSimulator, within } from "./simulator.mjs";

const token = "sim-token";
const heartbeatMs = 3000;
let sim;
let clients = [];
before(async () => {
  sim = await startSimulator("discord", {
    token,
    identify_ms: 0,
    heartbeat_ms: heartbeatMs,
    grace_ms: 60_000,
    resume_ms: 120_000,
  });
  await sim.do("guild", { id: "1", name: "Guild" });
  await sim.do("channel", { id: "2", guild: "1", name: "general" });
});
after(() => sim.close());
afterEach(async () => {
  await within(Promise.all(clients.map((client) => client.destroy())));
  clients = [];
});

const intents = [
  GatewayIntentBits.Guilds,
  GatewayIntentBits.GuildMessages,
  GatewayIntentBits.GuildMessageReactions,
  GatewayIntentBits.DirectMessages,
  GatewayIntentBits.MessageContent,
];

function newClient(options = {}) {
  const client = new Client({
    intents,
    partials: [Partials.Channel, Partials.Message, Partials.Reaction],
    rest: { api: `${sim.url}/api`, retries: 0, cdn: sim.url },
    ...options,
  });
  clients.push(client);
  return client;
}

async function ready(client = newClient()) {
  const isReady = within(once(client, Events.ClientReady));
  await client.login(token);
  await isReady;
  return client;
}

const refusal = (status, code) => (error) =>
  error instanceof DiscordAPIError && error.status === status && error.code === code;

const position = async () => (await sim.log()).at(-1)?.n ?? 0;
const outFrame = (label) => (line) => line.what === "out" && line.label === label;
const inOp = (op) => (line) => line.what === "in" && JSON.parse(line.frame).op === op;

/** The rules that `act` breaks. */
async function brokenBy(act) {
  const before = (await sim.violations()).length;
  await act();
  return (await sim.violations()).slice(before).map(({ rule }) => rule);
}

test("a client logs in, keeps its heartbeat, and sees guild and channel", async () => {
  const broken = await brokenBy(async () => {
    const from = await position();
    const client = await ready();
    assert.equal(client.user.username, "sim");
    assert.equal(client.guilds.cache.get("1").name, "Guild");
    assert.equal(client.channels.cache.get("2").name, "general");
    for (let beats = 0, at = from; beats < 3; beats += 1)
      at = (await sim.seen(outFrame("HEARTBEAT_ACK"), { after: at })).n + 1;
    assert.equal((await sim.state()).sockets, 1);
  });
  assert.deepEqual(broken, []);
});

test("wrong tokens and intents that are not switched on are refused", async () => {
  await assert.rejects(newClient().login("wrong"), /invalid token/i);
  const strict = await startSimulator("discord", { token, privileged: 0 });
  try {
    const client = newClient({ rest: { api: `${strict.url}/api` } });
    await assert.rejects(client.login(token), /disallowed intents/i);
  } finally {
    await strict.close();
  }
});

test("a message in a guild is answered, with a reply, a mention and an edit", async () => {
  const client = await ready();
  const got = deferred();
  client.on(Events.MessageCreate, async (message) => {
    if (message.author.bot) return;
    const reply = await message.reply("heard");
    await reply.edit("heard you");
    got.resolve({ message, reply });
  });
  const { id } = await sim.do("message", { channel: "2", from: "71", text: `<@${client.user.id}> hello` });
  const { message, reply } = await got.promise;
  assert.equal(message.id, id);
  assert.equal(message.guildId, "1");
  assert.ok(message.mentions.has(client.user));
  assert.ok(Math.abs(message.createdTimestamp - Date.now()) < 60_000);
  const { messages } = (await sim.state()).channels[2];
  const sent = messages.find((known) => known.id === reply.id);
  assert.equal(sent.content, "heard you");
  assert.equal(sent.message_reference.message_id, id);
});

test("a direct message comes, and goes back", async () => {
  const client = await ready();
  const got = deferred();
  client.on(Events.MessageCreate, (message) => {
    if (!message.author.bot) got.resolve(message);
  });
  await sim.do("message", { from: "72", text: "psst" });
  const message = await got.promise;
  assert.equal(message.guildId, null);
  const user = await client.users.fetch("72");
  const sent = await user.send("yes?");
  assert.equal(sent.channelId, message.channelId);
});

test("a message has at most 2000 characters, and is not empty", async () => {
  const client = await ready();
  const channel = await client.channels.fetch("2");
  await channel.send("x".repeat(2000));
  await assert.rejects(channel.send("x".repeat(2001)), refusal(400, 50035));
  await assert.rejects(channel.send(" "), refusal(400, 50006));
  await assert.rejects(client.channels.fetch("404"), refusal(404, 10003));
});

test("files go both ways, threads are made, reactions and typing arrive", async () => {
  const client = await ready();
  const channel = await client.channels.fetch("2");
  const sent = await channel.send({
    content: "file",
    files: [new AttachmentBuilder(Buffer.from("contents"), { name: "a.txt" })],
    flags: MessageFlags.SuppressNotifications,
  });
  const [attachment] = sent.attachments.values();
  assert.equal(await (await fetch(attachment.url)).text(), "contents");

  const got = deferred();
  client.on(Events.MessageCreate, (message) => {
    if (!message.author.bot) got.resolve(message);
  });
  await sim.do("message", {
    channel: "2",
    from: "73",
    text: "look",
    files: [{ name: "b.bin", base64: Buffer.from("inbound").toString("base64"), mime: "image/png" }],
  });
  const message = await got.promise;
  const [inbound] = message.attachments.values();
  assert.equal(inbound.contentType, "image/png");
  assert.equal(await (await fetch(inbound.url)).text(), "inbound");

  const thread = await message.startThread({ name: "Talk" });
  assert.equal(thread.id, message.id);
  await thread.send("in the thread");
  await message.react("👍");
  await assert.rejects(message.react("nonsense"), refusal(400, 10014));
  await channel.sendTyping();
  const state = await sim.state();
  assert.equal(state.channels[thread.id].messages.at(-1).content, "in the thread");
  assert.deepEqual(
    state.reactions.map(({ emoji }) => emoji),
    ["👍"],
  );
  assert.equal(state.typing.at(-1).channel, "2");

  const reacted = within(once(client, Events.MessageReactionAdd));
  await sim.do("react", { message: sent.id, from: "73", emoji: "👀" });
  const [reaction] = await reacted;
  assert.equal(reaction.emoji.name, "👀");
  const deleted = within(once(client, Events.MessageDelete));
  await sim.do("delete", { message: message.id });
  assert.equal((await deleted)[0].id, message.id);
});

test("slash commands and buttons are answered once, within three seconds", async () => {
  const client = await ready();
  await client.application.commands.set([{ name: "ask", description: "Asks" }]);
  await assert.rejects(
    client.application.commands.set([{ name: "Not Valid", description: "x" }]),
    /Expected|validat|pattern|Invalid Form Body/i,
  );
  let next = deferred();
  client.on(Events.InteractionCreate, (interaction) => next.resolve(interaction));
  await sim.do("command", { channel: "2", from: "74", name: "ask" });
  const first = await next.promise;
  assert.ok(first.isChatInputCommand());
  await first.reply("answer");
  await first.editReply("better answer");
  assert.equal((await sim.state()).channels[2].messages.at(-1).content, "better answer");

  next = deferred();
  await sim.do("command", { channel: "2", from: "74", name: "ask" });
  const late = await next.promise;
  await sim.advance(3001);
  assert.deepEqual(await brokenBy(() => assert.rejects(late.reply("late"), refusal(404, 10062))), [
    "discord.interaction",
  ]);

  const channel = await client.channels.fetch("2");
  const row = new ActionRowBuilder().addComponents(
    new ButtonBuilder().setCustomId("yes").setLabel("Yes").setStyle(ButtonStyle.Primary),
  );
  const message = await channel.send({ content: "choose", components: [row] });
  next = deferred();
  await sim.do("press", { message: message.id, from: "74", custom_id: "yes" });
  const pressed = await next.promise;
  assert.equal(pressed.customId, "yes");
  await pressed.deferUpdate();
  await assert.rejects(
    client.rest.post(`/interactions/${pressed.id}/${pressed.token}/callback`, {
      body: { type: 6 },
      auth: false,
    }),
    refusal(400, 40060),
  );
});

test("a cut connection is resumed: what was said meanwhile is told once", async () => {
  const client = await ready();
  const texts = [];
  const done = deferred();
  client.on(Events.MessageCreate, (message) => {
    texts.push(message.content);
    if (message.content === "after") done.resolve();
  });
  await sim.do("message", { channel: "2", from: "75", text: "before" });
  const broken = await brokenBy(async () => {
    const from = await position();
    await sim.sockets("cut");
    await sim.do("message", { channel: "2", from: "75", text: "between" });
    await sim.seen(outFrame("RESUMED"), { after: from });
    await sim.do("message", { channel: "2", from: "75", text: "after" });
    await done.promise;
    assert.equal((await sim.log(from)).some(inOp(2)), false, "no Identify");
  });
  assert.deepEqual(texts, ["before", "between", "after"]);
  assert.deepEqual(broken, []);
  assert.equal((await sim.state()).sockets, 1);
});

test("asked to reconnect, it resumes; its session forgotten or invalid, it identifies anew", async () => {
  await ready();
  let from = await position();
  await sim.do("reconnect");
  await sim.seen(outFrame("RESUMED"), { after: from });

  from = await position();
  await sim.do("forget");
  await sim.sockets("cut");
  await sim.seen(inOp(6), { after: from });
  await sim.seen(outFrame("INVALID_SESSION"), { after: from });
  await sim.seen(outFrame("READY"), { after: from });

  from = await position();
  await sim.do("invalidate", { resumable: true });
  await sim.seen(outFrame("RESUMED"), { after: from });
  await sim.do("invalidate", { resumable: false });
  await sim.seen(outFrame("READY"), { after: from });
  assert.equal((await sim.state()).sockets, 1);
});

test("a half-open connection is noticed by the missing acknowledgement", async () => {
  await ready();
  const from = await position();
  await sim.sockets("half_open");
  // The client waits half a minute for the other side to close.
  await sim.seen(outFrame("RESUMED"), { after: from, timeoutMs: 90_000 });
});

test("a heartbeat that is asked for comes at once", async () => {
  await ready();
  const from = await position();
  await sim.do("request_heartbeat");
  await sim.seen(inOp(1), { after: from });
});

test("rate limits: the headers are enough to stay within them", async () => {
  const client = await ready();
  await sim.do("channel", { id: "3", guild: "1", name: "busy" });
  const channel = await client.channels.fetch("3");
  const broken = await brokenBy(async () => {
    await Promise.all(Array.from({ length: 7 }, (_, n) => channel.send(`message ${n}`)));
  });
  assert.deepEqual(broken, []);
  assert.deepEqual(
    (await sim.state()).channels[3].messages.map(({ content }) => content),
    Array.from({ length: 7 }, (_, n) => `message ${n}`),
  );
  // And one that takes no notice of them is refused.
  const send = () =>
    fetch(`${sim.url}/api/v10/channels/3/messages`, {
      method: "POST",
      headers: {
        authorization: `Bot ${token}`,
        "user-agent": "DiscordBot (https://example.org, 1.0)",
        "content-type": "application/json",
      },
      body: JSON.stringify({ content: "x" }),
    });
  const refused = await brokenBy(async () => {
    const answers = await Promise.all(Array.from({ length: 6 }, send));
    const last = answers.filter(({ status }) => status === 429);
    assert.ok(last.length >= 1);
    assert.ok((await last[0].json()).retry_after > 0);
    assert.equal(last[0].headers.get("x-ratelimit-remaining"), "0");
  });
  assert.ok(refused.includes("discord.rate-limit"));
});

test("without the intent for it, the content of what does not concern the bot is empty", async () => {
  const client = newClient({
    intents: intents.filter((intent) => intent !== GatewayIntentBits.MessageContent),
  });
  await ready(client);
  const contents = [];
  const done = deferred();
  client.on(Events.MessageCreate, (message) => {
    contents.push(message.content);
    if (contents.length === 3) done.resolve();
  });
  await sim.do("message", { channel: "2", from: "76", text: "secret" });
  await sim.do("message", { channel: "2", from: "76", text: `<@${client.user.id}> for you` });
  await sim.do("message", { from: "76", text: "direct" });
  await done.promise;
  assert.deepEqual(contents, ["", `<@${client.user.id}> for you`, "direct"]);
});

test("the stream is compressed for whoever asks: one zlib stream, flushed after each event", async () => {
  const socket = new WebSocket(`${sim.url.replace("http", "ws")}/?v=10&encoding=json&compress=zlib-stream`);
  socket.binaryType = "arraybuffer";
  const events = [];
  const got = deferred();
  let received = Buffer.alloc(0);
  let told = 0;
  socket.onmessage = ({ data }) => {
    const message = Buffer.from(data);
    assert.deepEqual([...message.subarray(-4)], [0, 0, 255, 255]);
    received = Buffer.concat([received, message]);
    const text = inflateSync(received, { finishFlush: constants.Z_SYNC_FLUSH }).toString();
    const event = JSON.parse(text.slice(told));
    told = text.length;
    events.push(event);
    if (event.op === 10)
      socket.send(JSON.stringify({ op: 2, d: { token, intents: 1 | (1 << 9), properties: {} } }));
    if (event.t === "GUILD_CREATE") got.resolve();
  };
  await got.promise;
  assert.deepEqual(
    events.map(({ op, t }) => t ?? op),
    [10, "READY", "GUILD_CREATE"],
  );
  socket.close(1000);
});

test("every rule names its source", async () => {
  for (const { id, text, source } of await sim.rules()) {
    assert.match(id, /^discord\./);
    assert.ok(text.length > 10);
    assert.match(source, /^https:\/\/docs\.discord\.com\/developers\//);
  }
});
