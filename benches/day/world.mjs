// What is outside of the gateway: the simulated platforms, and a ledger of what was asked and what came of it. Nothing here
// asks the gateway anything.

import { CASES } from "../../__test__/host/channel-cases.mjs";
import { startSimulator } from "../../__test__/sim/channels/simulator.mjs";
import { begun, ended, numbersOf, PEOPLE, PLATFORMS, question } from "./script.mjs";

const person = {
  telegram: (index) => String(71 + index),
  discord: (index) => `8000000000000000${71 + index}`,
  slack: (index) => `U${71 + index}`,
};
const PRESENT = {
  telegram: ({ request }) => request?.path.endsWith("/getUpdates"),
  discord: ({ label }) => label === "READY",
  slack: ({ label }) => label === "hello",
};
const SENDS = { telegram: "sendMessage", discord: "/messages", slack: "chat.postMessage" };

export const people = (platform) => Array.from({ length: PEOPLE }, (_, index) => person[platform](index));

/** Slack tells an event that nobody acknowledged again: at once, after a minute, after five. */
const SLACK_RETRIES_MS = [1000, 60_000, 300_000];

/** `share`: how much shorter than ten minutes the day is, and with it what Slack waits. */
export async function startWorld({ share = 1 } = {}) {
  const sims = {};
  const ledger = new Map();
  const readers = [];
  let stopped = false;
  for (const platform of PLATFORMS) {
    const retries = platform === "slack" && {
      retries: SLACK_RETRIES_MS.map((wait) => Math.ceil(wait * share)),
    };
    sims[platform] = await startSimulator(platform, { ...CASES[`core-${platform}`].options, ...retries });
    readers.push(read(platform));
  }

  /** Follows a platform's log: when the first words of an answer, and its end, were taken by the platform. */
  async function read(platform) {
    const waiting = new Map();
    const lines = [];
    // The log's clock against ours: the line that came here soonest tells.
    let offset = Number.POSITIVE_INFINITY;
    for (let next = 0; !stopped; ) {
      const got = await sims[platform].log(`${next}&wait=1000`).catch(() => []);
      const now = performance.now();
      for (const line of got) {
        next = line.n + 1;
        offset = Math.min(offset, now - line.at);
        if (line.what === "request" && line.request.method !== "GET") {
          const text = JSON.stringify(line.request.body ?? "");
          const found = { begun: numbersOf(text, "begin"), ended: numbersOf(text, "end") };
          if (found.begun.length + found.ended.length > 0) waiting.set(line.id, found);
        } else if (line.what === "answer" && waiting.has(line.id)) {
          const { status, body } = line.answer;
          if (status < 300 && body?.ok !== false) lines.push({ at: line.at, ...waiting.get(line.id) });
          waiting.delete(line.id);
        }
      }
      for (const { at, ...found } of lines.splice(0))
        for (const [what, numbers] of Object.entries(found))
          for (const number of numbers) {
            const entry = ledger.get(number);
            if (entry) entry[`${what}Ms`] ??= at + offset;
          }
    }
  }

  return {
    sims,
    ledger,
    /** Somebody writes; the platform has it when this resolves. */
    async write({ platform, person: index, number, ask }) {
      const to = person[platform](index);
      ledger.set(number, { number, platform, to, ask, askedMs: performance.now() });
      await CASES[`core-${platform}`].write(sims[platform], to, question({ number, ask }));
    },
    /** Resolves once the bot is there on each platform: what Discord tells to nobody is lost, whoever comes later. */
    connected: () =>
      Promise.all(
        PLATFORMS.map((platform) =>
          sims[platform].seen((line) => PRESENT[platform](line), { timeoutMs: 300_000 }),
        ),
      ),
    answered: (number) => ledger.get(number)?.endedMs !== undefined,
    /** The platforms refuse to take what the bot writes, for a moment. */
    limit: () =>
      Promise.all(
        PLATFORMS.map((platform) =>
          sims[platform].fault({
            ...{ at: "request", match: SENDS[platform], times: 3 },
            ...{ do: "status", status: 429, retry_after_ms: 1500 },
          }),
        ),
      ),
    /** What stands in the chats in the end, question by question. */
    async account() {
      const chats = new Map();
      const broken = [];
      for (const platform of PLATFORMS) {
        const state = await sims[platform].state();
        for (const to of people(platform))
          chats.set(
            `${platform} ${to}`,
            CASES[`core-${platform}`].said(state, to).map(({ text }) => text),
          );
        for (const { rule, text } of await sims[platform].violations()) broken.push({ platform, rule, text });
      }
      const entries = [...ledger.values()].map((entry) => {
        const said = chats.get(`${entry.platform} ${entry.to}`) ?? [];
        const whole = said.filter((text) => text.includes(ended(entry.number))).length;
        const begins = said.filter((text) => text.includes(begun(entry.number))).length;
        return { ...entry, whole, torn: Math.max(0, begins - whole) };
      });
      const others = [...chats].flatMap(([chat, said]) =>
        said
          .filter((text) => !/begin\d{4}|end\d{4}/.test(text))
          .map((text) => ({ chat, text: text.slice(0, 200) })),
      );
      return { entries, others, broken };
    },
    async close() {
      stopped = true;
      await Promise.allSettled(readers);
      for (const sim of Object.values(sims)) await sim.close();
    },
  };
}

/** Answers that a chat heard after the answer to a later question. */
export function outOfOrder(entries) {
  const chats = Map.groupBy(entries, ({ platform, to }) => `${platform} ${to}`);
  let count = 0;
  for (const chat of chats.values()) {
    const heard = chat.filter(({ endedMs }) => endedMs !== undefined).sort((a, b) => a.number - b.number);
    let latest = Number.NEGATIVE_INFINITY;
    for (const { endedMs } of heard) {
      if (endedMs < latest) count++;
      latest = Math.max(latest, endedMs);
    }
  }
  return count;
}
