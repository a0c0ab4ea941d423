import { live } from "./live.mjs";
import { daysScript } from "./script.mjs";

const [side, minutes] = process.argv.slice(2);
const r = await live(side, daysScript({ minutes: Number(minutes) }), {
  say: console.log,
  keep: `/tmp/day-${side}.json`,
  graceMs: 90_000,
});
const { delays, series, ...rest } = r;
console.log(JSON.stringify(rest, null, 1));
