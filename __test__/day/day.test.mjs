// A short day of the bench's, with every module native: bursts, tools, long answers, a model that is down, 429s, a JavaScript thread
// that stands still, SIGKILL, a full disk and an edited config. What the ten minutes measure has to hold here, too.
import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { live } from "../../benches/day/live.mjs";
import { daysScript } from "../../benches/day/script.mjs";

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
