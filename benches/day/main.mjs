// `npm run bench day`, `soak` and `shadow-day`: a day of OpenClaw, measured whole, and what is made of it.
//
//   npm run bench day -- [--minutes 10] [--only native,stock] [--seed 1] [--out FOLDER]
//   npm run bench soak -- [--minutes 60]
//   npm run bench shadow-day -- [--minutes 10]
//
// What is shorter than ten minutes, or of one side alone, is printed and kept in no file, unless `--out` names a folder;
// there, the gateways' logs and what each message met are kept too.
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { simulatorBinary } from "../../__test__/sim/channels/simulator.mjs";
import { machine } from "../machine.mjs";
import { live } from "./live.mjs";
import { dayBlock } from "./report.mjs";
import { daysScript } from "./script.mjs";
import { shadowed } from "./shadow.mjs";
import { soaked } from "./soak.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    minutes: { type: "string" },
    only: { type: "string", default: "native,stock" },
    seed: { type: "string", default: "1" },
    out: { type: "string" },
  },
});
const [what = "day"] = positionals;

// The state's filesystem is mounted where nobody else sees it, and gone with these processes, however they end.
if (process.getuid?.() === 0 && process.env.DAY_MOUNTS !== "own") {
  const own = ["--mount", "--propagation", "private", process.execPath, ...process.argv.slice(1)];
  const run = spawnSync("unshare", own, { stdio: "inherit", env: { ...process.env, DAY_MOUNTS: "own" } });
  if (!run.error) process.exit(run.status ?? 1);
}
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));

const minutes = Number(values.minutes ?? (what === "soak" ? 60 : 10));
if (!(minutes > 0)) throw new Error("--minutes is a number above 0");
const options = { minutes, seed: Number(values.seed) };
const say = (text) => console.log(text);
if (values.out) mkdirSync(values.out, { recursive: true });
await simulatorBinary("quick");

/** Into the folder that is named, or the repository's where the run was a whole one. */
function keep(name, result, whole) {
  const folder = values.out ?? (whole ? join(root, "docs/benchmarks") : undefined);
  if (!folder) return console.log(JSON.stringify(result, null, 1));
  writeFileSync(join(folder, name), `${JSON.stringify(result, null, 1)}\n`);
  if (values.out) return;
  const written = spawnSync(process.execPath, [join(root, "scripts/day-table.mjs"), "--write"], {
    stdio: "inherit",
  });
  if (written.status !== 0) process.exitCode = 1;
}

if (what === "day") {
  const script = daysScript(options);
  const sides = {};
  for (const side of values.only.split(","))
    sides[side] = await live(side, script, { say, keep: values.out });
  const disasters = script.events.filter((event) => event.do !== "message");
  const day = { machine: machine(), script: { lengthMs: script.lengthMs, events: disasters }, sides };
  const whole = minutes >= 10 && sides.native && sides.stock;
  keep("day.json", day, whole);
  console.log(dayBlock(day));
} else if (what === "soak") {
  const script = daysScript({ ...options, disasters: false });
  const record = await live("native", script, { say, keep: values.out });
  const soak = { machine: machine(), ...soaked(record) };
  keep("soak.json", soak, minutes >= 60);
  console.log(soak.table);
  if (soak.failures.length > 0) process.exitCode = 1;
} else if (what === "shadow-day") {
  const shadow = { machine: machine(), ...(await shadowed(daysScript(options), { say })) };
  keep("shadow.json", shadow, minutes >= 10);
  console.log(shadow.table);
  if (shadow.failures.length > 0) process.exitCode = 1;
} else throw new Error(`there is no ${what}; there are day, soak, shadow-day`);
process.exit();
