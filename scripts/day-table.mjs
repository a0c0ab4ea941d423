// Keeps the README's account of one day, and its plot, equal to what was measured: docs/benchmarks/day.json.
//
//   node scripts/day-table.mjs --check | --write
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { dayBlock, dayPlot } from "../benches/day/report.mjs";

const begin = "<!-- one day: made by scripts/day-table.mjs -->";
const end = "<!-- end of one day -->";
const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const path = (name) => join(root, name);
const { values } = parseArgs({ options: { check: { type: "boolean" }, write: { type: "boolean" } } });

const readme = readFileSync(path("README.md"), "utf8");
const from = readme.indexOf(begin);
const to = readme.indexOf(end);
const measured = existsSync(path("docs/benchmarks/day.json"));
if (measured !== from >= 0 || to < from) {
  console.error(
    `day-table: README.md must have the lines "${begin}" and "${end}" if, and only if, a day was measured`,
  );
  process.exit(1);
}
if (!measured) process.exit(0);
const day = JSON.parse(readFileSync(path("docs/benchmarks/day.json"), "utf8"));
const wanted = {
  "README.md": `${readme.slice(0, from)}${begin}\n${dayBlock(day)}\n${readme.slice(to)}`,
  "docs/benchmarks/day.svg": dayPlot(day),
};
for (const [name, text] of Object.entries(wanted)) {
  if (values.write) writeFileSync(path(name), text);
  else if (!existsSync(path(name)) || readFileSync(path(name), "utf8") !== text) {
    console.error(`day-table: ${name} is stale; run \`node scripts/day-table.mjs --write\` and commit`);
    process.exitCode = 1;
  }
}
