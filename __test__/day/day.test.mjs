// A short day of the bench's, with every module native: bursts, tools, long answers, a model that is down, 429s, a JavaScript thread
// that stands still, SIGKILL, a full disk and an edited config. What the ten minutes measure has to hold here, too.
import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { live } from "../../benches/day/live.mjs";
import { daysScript, PEOPLE, PLATFORMS } from "../../benches/day/script.mjs";

describe("a day, with every module native", () => {
  let day;
  before(async () => {
    day = await live("native", daysScript({ minutes: 1.5 }), { say: console.log });
  });

  test("every message is answered, and once", () => {
    assert.deepEqual(day.lost, [], JSON.stringify(day.otherTexts));
    assert.deepEqual(day.doubled, []);
  });

  test("what the agents were asked to write is written", () => {
    assert.deepEqual(day.edits.missing, []);
  });

  test("the event store is whole", () => {
    assert.equal(day.verified.code, 0, day.verified.text);
  });

  test("no secret is on the disk in clear, and no rule of a platform was broken", () => {
    assert.deepEqual(day.secrets, []);
    assert.deepEqual(day.platformRules, []);
  });

  test("nothing outlives a gateway that ends by itself", () => {
    assert.deepEqual(day.leftBehind, []);
  });
});

/** Everybody writes in the second before the disk is full and the second after: it fills up in the middle of turns. */
function turnsOnAFullDisk() {
  const fullMs = 8000;
  const events = [{ atMs: fullMs, do: "disk", forMs: 10_000 }];
  const write = (atMs, platform, person) =>
    events.push({ atMs, do: "message", ask: "plain", platform, person });
  for (const [nth, platform] of PLATFORMS.entries()) {
    for (let person = 0; person < PEOPLE - 1; person++) {
      write(fullMs - 800 + 250 * nth + 100 * person, platform, person);
      write(fullMs + 300 + 250 * nth + 200 * person, platform, person);
    }
    write(30_000, platform, nth);
  }
  events.sort((one, other) => one.atMs - other.atMs);
  let number = 0;
  for (const event of events) if (event.do === "message") event.number = ++number;
  return { lengthMs: 35_000, seed: 1, events, streamWords: 200 };
}

describe("a disk that fills up under the turns of many, with every module native", () => {
  let day;
  before(async () => {
    day = await live("native", turnsOnAFullDisk(), { say: console.log });
  });

  test("every message is answered, and once", (t) => {
    if (!day.did.some(({ what, did }) => what === "disk" && did))
      t.diagnostic(`no disk was full: ${day.disk}`);
    assert.deepEqual(day.lost, [], JSON.stringify(day.otherTexts));
    assert.deepEqual(day.doubled, []);
  });

  test("the event store is whole", () => {
    assert.equal(day.verified.code, 0, day.verified.text);
  });
});
