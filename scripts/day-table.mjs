// Keeps what the pages say of one day, of an hour of traffic and of the day in shadow mode, and the plots, equal to what was
// measured: docs/benchmarks/{day,soak,shadow}.json.
//
//   node scripts/day-table.mjs --check | --write
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { dayBlock, dayPlot, shadowBlock, soakBlock, soakPlot } from "../benches/day/report.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const path = (name) => join(root, name);
const read = (name) => readFileSync(path(name), "utf8");
const { values } = parseArgs({ options: { check: { type: "boolean" }, write: { type: "boolean" } } });

const SECTIONS = [
  { name: "one day", json: "day.json", page: "README.md", block: dayBlock, svg: "day.svg", plot: dayPlot },
  {
    name: "soak",
    json: "soak.json",
    page: "docs/benchmarks/day.md",
    block: soakBlock,
    svg: "soak.svg",
    plot: soakPlot,
  },
  { name: "shadow day", json: "shadow.json", page: "docs/benchmarks/day.md", block: shadowBlock },
];

const wanted = {};
for (const { name, json, page, block, svg, plot } of SECTIONS) {
  const begin = `<!-- ${name}: made by scripts/day-table.mjs -->`;
  const end = `<!-- end of ${name} -->`;
  const text = wanted[page] ?? read(page);
  const [from, to] = [text.indexOf(begin), text.indexOf(end)];
  const file = `docs/benchmarks/${json}`;
  if (existsSync(path(file)) !== from >= 0 || to < from) {
    console.error(
      `day-table: ${page} must have the lines "${begin}" and "${end}" if, and only if, there is ${file}`,
    );
    process.exit(1);
  }
  if (from < 0) continue;
  const result = JSON.parse(read(file));
  wanted[page] = `${text.slice(0, from)}${begin}\n${block(result)}\n${text.slice(to)}`;
  if (svg) wanted[`docs/benchmarks/${svg}`] = plot(result);
}
for (const [name, text] of Object.entries(wanted)) {
  if (values.write) writeFileSync(path(name), text);
  else if (!existsSync(path(name)) || read(name) !== text) {
    console.error(`day-table: ${name} is stale; run \`node scripts/day-table.mjs --write\` and commit`);
    process.exitCode = 1;
  }
}
