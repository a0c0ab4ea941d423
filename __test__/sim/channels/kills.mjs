// Ends a bot with SIGKILL at each step of a message's way, again and again, and looks at what became of the messages.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { PATIENCE_MS } from "./simulator.mjs";

const file = fileURLToPath(new URL("kills-bot.mjs", import.meta.url));

/** A bot in a process of its own; `line` waits for something that it says, `lines` until it has said it so many times. */
export function startBot(adapter, options, store) {
  const child = spawn(process.execPath, [file, JSON.stringify({ adapter, options, store })], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  // A test that fails must not leave it behind.
  const end = () => child.kill("SIGKILL");
  process.on("exit", end);
  const said = [];
  const waiting = new Set();
  createInterface({ input: child.stdout }).on("line", (line) => {
    said.push(JSON.parse(line));
    for (const look of waiting) look();
  });
  const ended = once(child, "close").then(() => {
    process.off("exit", end);
    for (const look of waiting) look("ended");
  });
  const lines = (matches, count) =>
    new Promise((resolve, reject) => {
      const look = (end) => {
        const found = said.filter(matches);
        if (found.length < count && !end) return;
        waiting.delete(look);
        clearTimeout(patience);
        if (found.length >= count) resolve(found);
        else reject(new Error(`the bot ${end} before it said what was waited for: ${JSON.stringify(said)}`));
      };
      const patience = setTimeout(look, PATIENCE_MS, "went on for long");
      waiting.add(look);
      look();
    });
  return {
    said,
    lines,
    line: async (matches) => (await lines(matches, 1))[0],
    async kill() {
      end();
      await ended;
    },
  };
}

/** The number of the next line of the log. */
export const position = async (sim) => ((await sim.log()).at(-1)?.n ?? -1) + 1;

const names = (line, texts) => {
  const json = JSON.stringify(line);
  return texts.some((text) => json.includes(text));
};

/** A step: the bot has said this of one of the texts. */
export const said =
  (what) =>
  ({ bot, texts }) =>
    bot.line((line) => line.what === what && texts.includes(line.text));

/** A step: the platform has logged such a line. */
export const logged =
  (matches) =>
  ({ sim, from }) =>
    sim.seen(matches, { after: from });

/** A step: such a line of the platform's log has one of the texts in it. */
export const loggedText =
  (matches) =>
  ({ sim, from, texts }) =>
    sim.seen((line) => matches(line) && names(line, texts), { after: from });

/** A step: one, and after it the other. */
export const inTurn = (first, next) => async (context) => {
  const { n } = await first(context);
  return next({ ...context, from: n + 1 });
};

/** What all bots say of themselves. */
export const ownSteps = { delivered: said("delivered"), sent: said("sent"), acked: said("acked") };

/**
 * Three messages, to three chats, for each of `steps` in each round; the bot is killed when it has got that far. Then
 * nothing is lost (but what `mayBeLost`), nothing comes as new twice or after it was acknowledged, nothing is answered twice
 * (and with `keyed` nothing once begun is left unanswered), and each chat is in order: `inOrder` picks out of all texts those whose
 * order the platform vouches for.
 *
 * `write(chat, text)`: somebody writes in chat 0 to 3; `answers()`: the texts of the bot's messages; `connected(context)`
 * resolves when the platform can reach the bot, `settled()` when it has nothing more to deliver. What is written last in
 * `lastChats` comes after everything else.
 */
export async function killedAtEachStep({
  sim,
  adapter,
  options,
  store,
  steps,
  write,
  answers,
  rounds = 3,
  keyed = false,
  lastChats = [3],
  connected = async () => {},
  settled = async () => {},
  mayBeLost = async () => [],
  inOrder = async (texts) => texts,
}) {
  const all = [];
  const lives = [];
  /** Waits until the bot is done with what came before. */
  const calm = async (bot, text) => {
    for (const chat of lastChats) await write(chat, text);
    await bot.lines((line) => line.what === "acked" && line.text === text, lastChats.length);
  };
  for (let round = 0; round < rounds; round++)
    for (const [step, reached] of Object.entries(steps)) {
      const born = await position(sim);
      const bot = startBot(adapter, options, store);
      lives.push(bot.said);
      await connected({ sim, from: born });
      // What the last life left undone is done before this one ends: who dies twice over a message does not get it again.
      await calm(bot, `${round}-${step}-calm`);
      const from = await position(sim);
      const texts = [0, 1, 2].map((chat) => `${round}-${step}-${chat}`);
      all.push(...texts);
      for (const [chat, text] of texts.entries()) await write(chat, text);
      await reached({ bot, texts, sim, from });
      await bot.kill();
    }
  const last = startBot(adapter, options, store);
  lives.push(last.said);
  await settled();
  await calm(last, "end");
  await last.kill();

  const lines = lives.flat();
  const shown = await answers();
  const losable = await mayBeLost(all);
  const lost = [];
  let redelivered = 0;
  for (const text of all) {
    const deliveries = lines.filter((line) => line.what === "delivered" && line.text === text);
    if (deliveries.length === 0) {
      assert.ok(losable.includes(text), `${text} was lost`);
      lost.push(text);
      continue;
    }
    const fresh = deliveries.filter((line) => !line.redelivered).length;
    assert.ok(deliveries.length <= 2, `${text} was delivered ${deliveries.length} times`);
    assert.ok(fresh <= 1, `${text} came twice as new`);
    if (deliveries.length === 2) assert.equal(deliveries[1].redelivered, true);
    redelivered += deliveries.length - fresh;
    const acked = lines.findIndex((line) => line.what === "acked" && line.text === text);
    const again = lines.findLastIndex((line) => line.what === "delivered" && line.text === text);
    if (acked >= 0) assert.ok(again < acked, `${text} came again after it was done`);
    const times = shown.filter((answer) => answer === `re: ${text}`).length;
    assert.ok(times <= 1, `${text} was answered ${times} times`);
    const states = lines
      .filter((line) => line.what === "sent" && line.text === text)
      .map(({ state }) => state);
    if (states.includes("accepted")) assert.equal(times, 1, `no answer to ${text}`);
    if (keyed && acked >= 0) assert.deepEqual([...new Set(states)], ["accepted"], `the answer to ${text}`);
  }
  const delivered = all.filter((text) => !lost.includes(text));
  const ordered = await inOrder(delivered);
  assert.ok(ordered.length >= lives.length / 2, `of ${all.length} messages, ${ordered.length} have an order`);
  for (const chat of [0, 1, 2]) {
    const first = ordered
      .filter((text) => text.endsWith(`-${chat}`))
      .map((text) => lines.findIndex((line) => line.what === "delivered" && line.text === text));
    const sorted = first.toSorted((a, b) => a - b);
    assert.deepEqual(first, sorted, `chat ${chat} is out of order`);
  }
  assert.ok(redelivered > 0, "no crash came between delivery and acknowledgement: the matrix has a hole");
  return { lives: lives.length, messages: all.length, redelivered, lost };
}
