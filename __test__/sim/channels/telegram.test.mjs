// The simulated Telegram as grammY sees it: that client decides whether it speaks as the Bot API does.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, beforeEach, test } from "node:test";
import {
  Bot,
  GrammyError,
  HttpError,
  InlineKeyboard,
  InputFile,
  InputMediaBuilder,
  webhookCallback,
} from "grammy";
import { deferred, startSimulator, within } from "./simulator.mjs";

const token = "123456:sim-token";
const png = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=",
  "base64",
);
let sim;
let bot;
before(async () => {
  sim = await startSimulator("telegram", { token });
});
after(() => sim.close());
let group = -1000;
beforeEach(() => {
  bot = newBot();
  group -= 1;
});

function newBot(botToken = token) {
  return new Bot(botToken, { client: { apiRoot: sim.url } });
}

/** Polls while `act` runs. */
async function polling(botToRun, act, options = {}) {
  const started = deferred();
  const errors = [];
  botToRun.catch((error) => errors.push(error));
  const running = botToRun.start({ onStart: started.resolve, ...options });
  running.catch(started.reject);
  await started.promise;
  try {
    return await act(running);
  } finally {
    const from = (await sim.log()).length;
    const stopping = botToRun.stop();
    // It confirms what it has by a last poll, which is made to wait as it is a short one.
    await sim.seen(({ request }) => request?.body?.limit === 1, { after: from });
    await sim.advance(3000);
    await within(stopping);
    assert.deepEqual(errors, []);
  }
}

const refusal = (code, description) => (error) =>
  error instanceof GrammyError &&
  error.error_code === code &&
  (description instanceof RegExp ? description.test(error.description) : error.description === description);

const newViolations = async (act) => {
  const before = (await sim.violations()).length;
  await act();
  return (await sim.violations()).slice(before).map(({ rule }) => rule);
};

test("the bot knows itself", async () => {
  await bot.init();
  assert.equal(bot.botInfo.username, "sim_bot");
  await assert.rejects(newBot("123456:wrong").api.getMe(), refusal(401, "Unauthorized"));
  await assert.rejects(newBot("wrong").api.getMe(), refusal(404, "Not Found"));
});

test("a message is answered, and its update is confirmed by the next offset", async () => {
  const got = deferred();
  bot.on("message:text", async (ctx) => {
    await ctx.reply(`<b>you said</b> ${ctx.msg.text}`, {
      parse_mode: "HTML",
      reply_parameters: { message_id: ctx.msg.message_id },
    });
    got.resolve(ctx);
  });
  await polling(bot, async () => {
    const { message_id } = await sim.do("message", { from: 71, text: "hello 😀" });
    const ctx = await got.promise;
    assert.equal(ctx.from.id, 71);
    assert.equal(ctx.chat.type, "private");
    const { messages } = (await sim.state()).chats[71];
    assert.equal(messages[1].text, "you said hello 😀");
    assert.deepEqual(messages[1].entities, [{ offset: 0, length: 8, type: "bold" }]);
    assert.equal(messages[1].reply_to_message.message_id, message_id);
  });
  assert.deepEqual((await sim.state()).pending, []);
});

test("an update whose answer was lost comes again", async () => {
  const ids = [];
  const got = deferred();
  bot.on("message:text", (ctx) => {
    ids.push(ctx.update.update_id);
    got.resolve();
  });
  await polling(bot, async () => {
    const from = (await sim.log()).length;
    await sim.fault({ at: "answer", match: "getUpdates", do: "drop" });
    const { update_id } = await sim.do("message", { from: 71, text: "once" });
    await sim.seen(({ what }) => what === "fault", { after: from });
    await got.promise;
    assert.deepEqual(ids, [update_id]);
  });
});

test("a second poller ends the first with 409", async () => {
  const first = bot.api.getUpdates({ timeout: 20 });
  const ended = assert.rejects(first, refusal(409, /^Conflict: terminated by other getUpdates request;/));
  await sim.seen(({ what, request }) => what === "request" && request.body?.timeout === 20);
  const broken = await newViolations(async () => {
    const abort = new AbortController();
    const second = newBot().api.getUpdates({ timeout: 19 }, abort.signal);
    await ended;
    abort.abort();
    await assert.rejects(second);
  });
  assert.deepEqual(broken, ["telegram.one-poller"]);
});

test("one poller after another never sees a conflict", async () => {
  const broken = await newViolations(async () => {
    for (let round = 0; round < 5; round += 1) {
      const poll = newBot().api.getUpdates({ timeout: 20, offset: -1 });
      await sim.do("message", { from: 71, text: `round ${round}` });
      const [{ update_id }] = await poll;
      assert.deepEqual(await newBot().api.getUpdates({ timeout: 0, offset: update_id + 1 }), []);
    }
  });
  assert.deepEqual(broken, []);
});

test("polling and a webhook exclude each other; a call has the secret, is repeated until it is answered, in order", async () => {
  const calls = [];
  const done = deferred();
  bot.on("message:text", async (ctx) => {
    calls.push(ctx.msg.text);
    if (calls.length === 2) done.resolve();
  });
  const handle = webhookCallback(bot, "http", { secretToken: "s3cret" });
  let failures = 1;
  const server = createServer((request, response) => {
    if (failures > 0) {
      failures -= 1;
      response.writeHead(500).end();
    } else {
      handle(request, response);
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${server.address().port}/hook`;
  try {
    await assert.rejects(bot.api.setWebhook("ftp://x"), refusal(400, /An HTTPS URL must be provided/));
    await assert.rejects(
      bot.api.setWebhook(url, { secret_token: "with space" }),
      refusal(400, /unallowed characters/),
    );
    const poll = bot.api.getUpdates({ timeout: 30 });
    const ended = assert.rejects(poll, refusal(409, "Conflict: terminated by setWebhook request"));
    await sim.seen(({ what, request }) => what === "request" && request.body?.timeout === 30);
    await bot.api.setWebhook(url, { secret_token: "s3cret" });
    // A conflict that follows another within three seconds is told three seconds later.
    await sim.advance(3000);
    await ended;
    const conflict = assert.rejects(
      bot.api.getUpdates(),
      refusal(409, /^Conflict: can't use getUpdates method while webhook is active/),
    );
    await sim.seen(({ what, rule }) => what === "violation" && rule === "telegram.webhook-or-polling");
    await sim.advance(3000);
    await conflict;

    const firstCall = (await sim.log()).length;
    await sim.do("message", { from: 72, text: "first" });
    await sim.do("message", { from: 72, text: "second" });
    await sim.seen(({ what, status }) => what === "called" && status === 500, { after: firstCall });
    assert.match((await bot.api.getWebhookInfo()).last_error_message, /500/);
    await sim.advance(1000);
    await done.promise;
    assert.deepEqual(calls, ["first", "second"]);
    await sim.seen((line) => line.what === "called" && line.status === 200, { after: firstCall });
  } finally {
    await bot.api.deleteWebhook();
    server.close();
  }
});

test("texts have at most 4096 UTF-16 units, captions 1024, after their entities were parsed", async () => {
  await sim.do("message", { from: 73, text: "hi" });
  await bot.api.sendMessage(73, `<b>${"x".repeat(4096)}</b>`, { parse_mode: "HTML" });
  await assert.rejects(
    bot.api.sendMessage(73, "x".repeat(4097)),
    refusal(400, "Bad Request: message is too long"),
  );
  await bot.api.sendMessage(73, "😀".repeat(2048));
  await assert.rejects(bot.api.sendMessage(73, "😀".repeat(2049)), refusal(400, /too long/));
  await assert.rejects(bot.api.sendMessage(73, " \n "), refusal(400, "Bad Request: message text is empty"));
  await assert.rejects(
    bot.api.sendPhoto(73, new InputFile(png, "x.png"), { caption: "x".repeat(1025) }),
    refusal(400, "Bad Request: message caption is too long"),
  );
  await assert.rejects(
    bot.api.sendMessage(73, "<b>a<i>b</b></i>", { parse_mode: "HTML" }),
    refusal(
      400,
      'Bad Request: can\'t parse entities: Unmatched end tag at byte offset 8, expected "</i>", found "</b>"',
    ),
  );
  await assert.rejects(bot.api.sendMessage(9999, "x"), refusal(400, "Bad Request: chat not found"));
  await sim.do("block", { chat: 73 });
  await assert.rejects(bot.api.sendMessage(73, "x"), refusal(403, "Forbidden: bot was blocked by the user"));
});

test("a flood is answered with retry_after, and obeying it is enough", async () => {
  await sim.do("chat", { id: group, type: "supergroup", title: "Flood" });
  const sent = async () => bot.api.sendMessage(group, "x");
  for (let n = 0; n < 20; n += 1) await sent();
  const wait = await sent().then(
    () => assert.fail("the 21st message within a minute"),
    (error) => {
      assert.ok(refusal(429, /^Too Many Requests: retry after \d+$/)(error));
      return error.parameters.retry_after;
    },
  );
  assert.deepEqual(await newViolations(() => assert.rejects(sent(), refusal(429, /Too Many/))), [
    "telegram.flood-wait",
  ]);
  await sim.advance(wait * 1000);
  await sent();
});

test("photos, documents and albums go both ways", async () => {
  await sim.do("message", { from: 74, text: "hi" });
  const photo = await bot.api.sendPhoto(74, new InputFile(png, "dot.png"), {
    caption: "<i>dot</i>",
    parse_mode: "HTML",
  });
  assert.deepEqual(photo.caption_entities, [{ offset: 0, length: 3, type: "italic" }]);
  const document = await bot.api.sendDocument(74, new InputFile(Buffer.from("text"), "naïve.txt"));
  assert.equal(document.document.file_name, "naïve.txt");
  const again = await bot.api.sendDocument(74, document.document.file_id);
  assert.equal(again.document.file_unique_id, document.document.file_unique_id);
  await assert.rejects(bot.api.sendDocument(74, "nonsense"), refusal(400, /wrong file identifier/));
  await assert.rejects(
    bot.api.sendPhoto(74, new InputFile(Buffer.from("text"), "x.png")),
    refusal(400, "Bad Request: IMAGE_PROCESS_FAILED"),
  );
  await sim.advance(5000);
  const album = await bot.api.sendMediaGroup(74, [
    InputMediaBuilder.photo(new InputFile(png, "1.png"), { caption: "one" }),
    InputMediaBuilder.photo(new InputFile(png, "2.png")),
  ]);
  assert.equal(album.length, 2);
  assert.equal(album[0].media_group_id, album[1].media_group_id);
  await assert.rejects(
    bot.api.sendMediaGroup(74, [
      InputMediaBuilder.photo(new InputFile(png, "1.png")),
      InputMediaBuilder.document(new InputFile(png, "2.png")),
    ]),
    refusal(400, /can't be mixed/),
  );

  const got = deferred();
  bot.on("message:document", async (ctx) => got.resolve(await ctx.getFile()));
  await polling(bot, async () => {
    const bytes = Buffer.from("attached");
    await sim.do("message", {
      from: 74,
      text: "a file",
      media: { kind: "document", name: "a.txt", mime: "text/plain", base64: bytes.toString("base64") },
    });
    const file = await got.promise;
    const path = `${sim.url}/file/bot${token}/${file.file_path}`;
    assert.deepEqual(Buffer.from(await (await fetch(path)).arrayBuffer()), bytes);
    assert.equal((await fetch(path.replace(token, "1:other"))).status, 404);
    await sim.advance(3_600_001);
    assert.equal((await fetch(path)).status, 404, "the link is good for an hour");
  });
  const { message } = await sim.do("message", {
    from: 74,
    media: { kind: "document", name: "big.bin", size: 20 * 2 ** 20 + 1 },
  });
  await assert.rejects(
    bot.api.getFile(message.document.file_id),
    refusal(400, "Bad Request: file is too big"),
  );
});

test("topics, edits, reactions and buttons", async () => {
  await sim.do("chat", { id: group, type: "supergroup", title: "Forum", is_forum: true, admin: true });
  const { thread } = await sim.do("topic", { chat: group, name: "Talk" });
  const sent = await bot.api.sendMessage(group, "choose", {
    message_thread_id: thread,
    reply_markup: new InlineKeyboard().text("yes", "y"),
  });
  assert.equal(sent.message_thread_id, thread);
  await assert.rejects(
    bot.api.sendMessage(group, "x", { message_thread_id: 9999 }),
    refusal(400, "Bad Request: message thread not found"),
  );
  await assert.rejects(
    bot.api.sendMessage(group, "x", { reply_markup: new InlineKeyboard().text("yes", "y".repeat(65)) }),
    refusal(400, "Bad Request: BUTTON_DATA_INVALID"),
  );

  const pressed = deferred();
  const edited = deferred();
  const reacted = deferred();
  bot.callbackQuery("y", async (ctx) => {
    await ctx.answerCallbackQuery("done");
    await ctx.editMessageText("chosen");
    pressed.resolve(ctx.callbackQuery.id);
  });
  bot.on("edited_message:text", (ctx) => edited.resolve(ctx.editedMessage.text));
  bot.on("message_reaction", (ctx) => reacted.resolve(ctx.reactions().emojiAdded));
  await polling(
    bot,
    async () => {
      const { id } = await sim.do("press", { chat: group, message_id: sent.message_id, from: 75, data: "y" });
      assert.equal(await pressed.promise, id);
      const { message_id } = await sim.do("message", { chat: group, from: 75, thread, text: "draft" });
      await sim.do("edit", { chat: group, message_id, text: "final" });
      assert.equal(await edited.promise, "final");
      await sim.do("react", { chat: group, message_id, from: 75, emoji: "👍" });
      assert.deepEqual(await reacted.promise, ["👍"]);
      const state = await sim.state();
      assert.equal(state.callbacks[id].text, "done");
      assert.equal(
        state.chats[group].messages.find((message) => message.message_id === sent.message_id).text,
        "chosen",
      );
    },
    { allowed_updates: ["message", "edited_message", "callback_query", "message_reaction"] },
  );
  await assert.rejects(
    bot.api.editMessageText(group, sent.message_id, "chosen"),
    refusal(400, /^Bad Request: message is not modified/),
  );
  await bot.api.setMessageReaction(group, sent.message_id, [{ type: "emoji", emoji: "👀" }]);
  await assert.rejects(
    bot.api.setMessageReaction(group, sent.message_id, [{ type: "emoji", emoji: "🧇" }]),
    refusal(400, "Bad Request: REACTION_INVALID"),
  );
  await assert.rejects(bot.api.answerCallbackQuery("1"), refusal(400, /query is too old/));
});

test("what was not asked for in allowed_updates does not come", async () => {
  await bot.api.getUpdates({ timeout: 0, allowed_updates: ["message"] });
  const { message_id } = await sim.do("message", { from: 76, text: "a" });
  assert.equal((await sim.do("edit", { chat: 76, message_id, text: "b" })).update_id, null);
  const updates = await bot.api.getUpdates({ timeout: 0, allowed_updates: [] });
  await bot.api.getUpdates({ timeout: 0, offset: updates.at(-1).update_id + 1 });
  assert.deepEqual(
    updates.map(({ message }) => message?.text),
    ["a"],
  );
});

test("in a group with privacy mode, only what concerns the bot is heard", async () => {
  await sim.do("chat", { id: group, type: "supergroup", title: "Private" });
  const heard = [];
  const last = deferred();
  bot.on("message:text", (ctx) => {
    heard.push(ctx.msg.text);
    if (ctx.msg.text.includes("last")) last.resolve();
  });
  const ours = await bot.api.sendMessage(group, "from the bot");
  await polling(bot, async () => {
    const say = (text, more = {}) => sim.do("message", { chat: group, from: 77, text, ...more });
    await say("/general");
    await say("/general");
    await say("nothing");
    await say("hey @Sim_Bot, look");
    await say("hey @sim_bot_too");
    await say("/help@sim_bot");
    await say("a reply", { reply_to: ours.message_id });
    await say("last @sim_bot");
    await last.promise;
  });
  assert.deepEqual(heard, ["/general", "hey @Sim_Bot, look", "/help@sim_bot", "a reply", "last @sim_bot"]);
});

test("commands are set by scope and checked", async () => {
  await bot.api.setMyCommands([{ command: "help", description: "Says how" }]);
  assert.deepEqual(await bot.api.getMyCommands(), [{ command: "help", description: "Says how" }]);
  assert.deepEqual(await bot.api.getMyCommands({ scope: { type: "all_group_chats" } }), []);
  await assert.rejects(
    bot.api.setMyCommands([{ command: "Help", description: "x" }]),
    refusal(400, "Bad Request: BOT_COMMAND_INVALID"),
  );
});

test("a group that became a supergroup says so", async () => {
  await sim.do("chat", { id: -42, type: "group", title: "Old" });
  await sim.do("migrate", { chat: -42, to: -10042 });
  await assert.rejects(
    bot.api.sendMessage(-42, "x"),
    (error) => refusal(400, /upgraded/)(error) && error.parameters.migrate_to_chat_id === -10042,
  );
});

test("faults: a refusal, a broken connection, a stalled answer", async () => {
  await sim.do("message", { from: 78, text: "hi" });
  const count = async () => (await sim.state()).chats[78].messages.length;
  const before = await count();
  await sim.fault(
    { at: "request", match: "sendMessage", do: "status", status: 429, retry_after_ms: 4000 },
    { at: "request", match: "sendMessage", do: "status", status: 502 },
    { at: "request", match: "sendMessage", do: "drop" },
    { at: "answer", match: "sendMessage", do: "cut" },
  );
  const say = () => bot.api.sendMessage(78, "x");
  await assert.rejects(say(), (error) => error.error_code === 429 && error.parameters.retry_after === 4);
  await assert.rejects(say(), HttpError);
  await assert.rejects(say(), HttpError);
  assert.equal(await count(), before, "none of the three was sent");
  await assert.rejects(say(), HttpError);
  assert.equal(await count(), before + 1, "the fourth was, and nobody was told");
  await sim.fault({ at: "answer", match: "sendMessage", do: "stall", ms: 100_000 });
  const late = say();
  await sim.seen(({ what, fault }) => what === "fault" && fault.do === "stall");
  await sim.advance(100_000);
  await late;
});

test("every rule names its source", async () => {
  for (const { id, text, source } of await sim.rules()) {
    assert.match(id, /^telegram\./);
    assert.ok(text.length > 10);
    assert.match(source, /^https:\/\/core\.telegram\.org\//);
  }
});
