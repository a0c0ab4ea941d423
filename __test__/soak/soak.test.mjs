// A short soak of the bench's: the day's traffic without its disasters, with every module native, and what it leaves behind.
import assert from "node:assert/strict";
import { test } from "node:test";
import { live } from "../../benches/day/live.mjs";
import { daysScript } from "../../benches/day/script.mjs";
import { soaked } from "../../benches/day/soak.mjs";

test("all are answered, once and in order, and nothing is left behind", async () => {
  const record = await live("native", daysScript({ minutes: 2, disasters: false }), { say: console.log });
  const { failures, table } = soaked(record);
  assert.deepEqual(failures, [], table);
  assert.equal(record.outOfOrder, 0);
  assert.deepEqual([record.edits.missing, record.edits.doubled], [[], []]);
  assert.deepEqual([record.secrets, record.platformRules], [[], []]);
});
