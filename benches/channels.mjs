// A bot in a process of its own, for the bench of channels: its CPU is what the client costs, and nothing else.
//
//   node channels.mjs CONTENDER PLATFORM URL TOKEN FOLDER
//
// Told by messages of its parent: `{ mode: "in" | "answer", count }` counts what comes (and answers it), `{ mode: "out",
// count, perSecond, chats }` writes. Says "ready", and at the end what it took.
//
//   node --expose-gc channels.mjs idle CONTENDER FOLDER '[[URL, TOKEN], …]'
//
// opens these bots of Telegram, and prints the bytes of each by the difference between 8 of them and all.
import { createRequire } from "node:module";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const require = createRequire(new URL("../__test__/sim/channels/package.json", import.meta.url));
export const OURS = { telegram: "TelegramChannel", discord: "DiscordChannel" };
export const OTHERS = { telegram: "grammY", discord: "discord.js" };

/** The wall clock's microseconds: what the simulator's stamps are. */
function wallClock() {
  // Date has milliseconds: the moment at which it ticks is known better.
  const before = Date.now();
  let now = before;
  while (now === before) now = Date.now();
  const offset = now - performance.now();
  return () => Math.round((offset + performance.now()) * 1000);
}

const answerTo = (text) => `You said: ${text}`;

/** Each gives `listen(handler)`, whose handler gets `{ text, chat, answer }`, and `send(chat, text)`. */
const contenders = {
  core: (platform, url, token, folder) => coreWith({}, platform, url, token, join(folder, "store")),
  // As the other clients are: what came in the last moments before a power cut may be lost.
  "core, durability: 'interval'": (platform, url, token, folder) =>
    coreWith({ durability: "interval" }, platform, url, token, join(folder, "interval")),
  async grammY(_platform, url, token) {
    const { Bot } = require("grammy");
    const bot = new Bot(token, { client: { apiRoot: url } });
    return {
      async listen(handler) {
        bot.on("message:text", (ctx) =>
          handler({ text: ctx.msg.text, chat: ctx.chat.id, answer: (text) => ctx.reply(text) }),
        );
        await new Promise((resolve, reject) => {
          bot.start({ onStart: resolve }).catch(reject);
        });
      },
      send: (chat, text) => bot.api.sendMessage(chat, text),
    };
  },
  async "discord.js"(_platform, url, token) {
    const { Client, Events, GatewayIntentBits, Partials } = require("discord.js");
    const client = new Client({
      intents: [
        GatewayIntentBits.Guilds,
        GatewayIntentBits.GuildMessages,
        GatewayIntentBits.DirectMessages,
        GatewayIntentBits.MessageContent,
      ],
      partials: [Partials.Channel],
      rest: { api: `${url}/api` },
    });
    return {
      async listen(handler) {
        client.on(Events.MessageCreate, (message) => {
          if (message.author.bot) return;
          const answer = (text) => message.channel.send(text);
          handler({ text: message.content, chat: message.channelId, answer });
        });
        const ready = new Promise((resolve) => client.once(Events.ClientReady, resolve));
        await client.login(token);
        await ready;
      },
      send: async (chat, text) => (await client.channels.fetch(chat)).send(text),
    };
  },
};

async function coreWith(options, platform, url, token, folder) {
  const core = require("../../../index.js");
  const store = await core.EventStore.open(folder, options);
  const baseUrl = platform === "discord" ? `${url}/api/v10` : url;
  return coreBot(core, { store, token, baseUrl }, platform);
}

function coreBot(core, options, platform) {
  // Telegram's free limit is 30 messages a second.
  const paid = platform === "telegram" ? { paidBroadcast: true } : {};
  const channel = new core[OURS[platform]]({ ...options, ...paid });
  const send = async (chat, text) => {
    const { state } = await channel.send({ to: String(chat), text });
    if (state !== "accepted") throw new Error(`a message is ${state}`);
  };
  return {
    async listen(handler) {
      const messages = channel.messages();
      let next = messages.next();
      while (channel.status().state !== "running") await sleep(5);
      (async () => {
        for (;;) {
          const { value } = await next;
          next = messages.next();
          // As a gateway does it: what comes next does not wait for the answer.
          const { text, chat } = value;
          const done = handler({ text, chat: chat.id, answer: (answer) => send(chat.id, answer) });
          Promise.resolve(done).then(() => value.ack());
        }
      })().catch(fail);
    },
    send,
  };
}

function fail(error) {
  console.error(error);
  process.exit(1);
}

async function measured([contender, platform, url, token, folder]) {
  const us = wallClock();
  const bot = await contenders[contender](platform, url, token, folder);
  let job;
  /** The number and the time are in the text: "N µs". */
  const handler = async ({ text, chat, answer }) => {
    const now = us();
    const [number, sent] = text.split(" ").map(Number);
    const { mode, count, delays, last } = job;
    delays.push((now - sent) / 1000);
    if (number !== last.all + 1 || number <= (last[chat] ?? -1)) job.disorder++;
    last.all = last[chat] = number;
    if (mode === "answer") await answer(answerTo(`${text} sent${us()}`));
    if (++job.done === count) job.end();
  };
  await bot.listen(handler);

  process.on("message", async ({ mode, count, perSecond, chats }) => {
    const ended = Promise.withResolvers();
    job = { mode, count, delays: [], done: 0, disorder: 0, last: { all: -1 }, end: ended.resolve };
    globalThis.gc?.();
    const before = process.cpuUsage();
    const began = us();
    process.send("ready");
    if (mode === "out") {
      const sending = [];
      for (let n = 0; n < count; n++) {
        const wait = (n * 1000) / perSecond - (us() - began) / 1000;
        if (wait > 0) await sleep(wait);
        sending.push(bot.send(chats[n % chats.length], `${n} sent${us()}`));
      }
      await Promise.all(sending).catch(fail);
    } else {
      await ended.promise;
    }
    const tookMs = (us() - began) / 1000;
    const { user, system } = process.cpuUsage(before);
    process.send({ cpuUs: user + system, tookMs, delays: job.delays, disorder: job.disorder });
  });
  process.on("disconnect", () => process.exit(0));
  process.send("ready");
}

async function idle([contender, folder, bots]) {
  const FIRST = 8;
  const list = JSON.parse(bots);
  const core = contender === "core" ? require("../../../index.js") : undefined;
  const store = await core?.EventStore.open(join(folder, "store"));
  const kept = [];
  const open = async ([baseUrl, token]) => {
    const accountId = `account-${kept.length}`;
    const bot = core
      ? coreBot(core, { store, token, baseUrl, accountId }, "telegram")
      : await contenders[contender]("telegram", baseUrl, token);
    kept.push(bot);
    await bot.listen(() => {});
  };
  const settled = async () => {
    for (let n = 0; n < 5; n++) {
      await sleep(60);
      globalThis.gc();
    }
    const { owners } = core?.memoryUsage() ?? {};
    const held = owners && Object.values(owners).reduce((sum, bytes) => sum + bytes, 0);
    return { rss: process.memoryUsage().rss, held };
  };
  for (const bot of list.slice(0, FIRST)) await open(bot);
  const before = await settled();
  for (const bot of list.slice(FIRST)) await open(bot);
  const after = await settled();
  const more = list.length - FIRST;
  console.log(
    JSON.stringify({
      rss: (after.rss - before.rss) / more,
      held: core && (after.held - before.held) / more,
    }),
  );
  process.exit(0);
}

if (import.meta.main) {
  const [what, ...rest] = process.argv.slice(2);
  (what === "idle" ? idle(rest) : measured([what, ...rest])).catch(fail);
}
