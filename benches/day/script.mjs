// The day as data: what happens when, the same for each seed, whoever lives through it. Times are fractions of the day, so that
// an hour and a minute have the same shape; how many messages there are follows its length.
import { random } from "../measure.mjs";

export const PLATFORMS = ["telegram", "discord", "slack"];
/** People of each platform; the last is let in by the config that is edited while all runs. */
export const PEOPLE = 5;
export const LATE = PEOPLE - 1;
/** Ordinary messages in ten minutes; bursts, edits and long answers come on top. */
const STEADY = 130;
const BURST = 12;

/**
 * The whole day: `{ lengthMs, events }`, events in order of their `atMs`. A `message` has a number that is in its text and in
 * its answer. Without `disasters` nothing ends the process and no disk is full: that is the soak.
 */
export function daysScript({ minutes = 10, seed = 1, disasters = true } = {}) {
  const lengthMs = minutes * 60_000;
  const next = random(seed);
  const pick = (list) => list[Math.floor(next() * list.length)];
  const share = Math.min(1, minutes / 10);
  const many = (ofTen) => Math.max(1, Math.round((ofTen * minutes) / 10));
  const events = [];
  const at = (part, event) => events.push({ atMs: Math.round(part * lengthMs), ...event });
  const message = (part, ask, more = {}) =>
    at(part, { do: "message", ask, platform: pick(PLATFORMS), person: Math.floor(next() * LATE), ...more });

  for (let n = 0; n < many(STEADY); n++) message(0.01 + 0.97 * next(), "plain");
  for (let n = 0; n < many(18); n++) message(0.02 + 0.9 * next(), "edit");
  for (let n = 0; n < many(9); n++) message(0.02 + 0.9 * next(), "stream");
  // Many at once: of everybody, and of one person without waiting for an answer.
  const size = Math.max(3, Math.round(BURST * Math.sqrt(share)));
  const burst = (part, more) => {
    for (let n = 0; n < size; n++) message(part + (n * 150) / lengthMs, "plain", more);
  };
  const bursts = minutes > 10 ? Math.round(minutes / 2) : 3;
  for (let n = 0; n < bursts; n++) burst(0.08 + (0.8 * n) / bursts);
  for (const platform of PLATFORMS) burst(0.15 + 0.2 * next(), { platform, person: 0 });

  at(0.3, { do: "outage", forMs: 0.03 * lengthMs });
  at(0.38, { do: "limits" });
  at(0.2, { do: "config", lets: "late" });
  // Time to read it, then those who were let in.
  const after = 0.2 + Math.max(0.02, 12_000 / lengthMs);
  for (let n = 0; n < many(12); n++) message(after + (0.95 - after) * next(), "plain", { person: LATE });
  at(0.9, { do: "config", lets: "late", acks: true });

  at(0.44, { do: "stall", forMs: Math.min(60_000, lengthMs / 10) });
  if (disasters) {
    for (const part of [0.6, 0.72]) {
      burst(part - 500 / lengthMs);
      message(part - 1000 / lengthMs, "edit");
      message(part - 2000 / lengthMs, "stream");
      at(part, { do: "kill" });
    }
    at(0.82, { do: "disk", forMs: 0.04 * lengthMs });
    burst(0.83);
  } else burst(0.6);

  events.sort((one, other) => one.atMs - other.atMs);
  let number = 0;
  for (const event of events) if (event.do === "message") event.number = ++number;
  return { lengthMs, seed, events, streamWords: Math.round(Math.max(200, Math.min(2000, 200 * minutes))) };
}

const four = (number) => String(number).padStart(4, "0");
/** What a person writes. */
export const question = ({ number, ask }) =>
  `${ask === "plain" ? "A question," : "A task,"} ask${four(number)} ${ask}: what is it about?`;
export const begun = (number) => `begin${four(number)}`;
export const ended = (number) => `end${four(number)}`;
export const fileOf = (number) => `day-${four(number)}.md`;
export const numbersOf = (text, word) =>
  [...text.matchAll(new RegExp(`${word}(\\d{4})`, "g"))].map(([, n]) => Number(n));
