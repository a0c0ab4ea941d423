// `npm run bench [name …]`: measures, and writes docs/benchmarks/: JSON, a Markdown table, and one plot a bench.
//
// Each bench runs in a process of its own, under the Node it needs. A bench that cannot run is a failed row.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { machine } from "../benches/machine.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const folder = join(root, "docs/benchmarks");
const known = readdirSync(join(root, "benches"))
  .filter((file) => file.endsWith(".bench.mjs"))
  .map((file) => file.slice(0, -".bench.mjs".length))
  .sort();

/** In the child: runs one bench and sends what it gives. */
async function runHere(name) {
  const bench = await import(pathToFileURL(join(root, "benches", `${name}.bench.mjs`)));
  const wanted = bench.node;
  if (wanted && process.versions.node.split(".")[0] !== wanted) {
    return { title: bench.title, error: `needs Node ${wanted}; this is ${process.version}` };
  }
  try {
    return { title: bench.title, node: process.version, rows: await bench.run() };
  } catch (error) {
    return { title: bench.title, error: String(error?.message ?? error) };
  }
}

function nodeFor(name) {
  const major = /^export const node = "(\d+)"/m.exec(
    readFileSync(join(root, "benches", `${name}.bench.mjs`), "utf8"),
  )?.[1];
  if (!major) return process.execPath;
  const pinned = join(
    root,
    `__test__/node/node_modules/node${major}-${process.platform}-${process.arch}/bin/node`,
  );
  return existsSync(pinned) ? pinned : process.execPath;
}

function runApart(name) {
  return new Promise((resolve) => {
    const node = nodeFor(name);
    const child = spawn(node, [fileURLToPath(import.meta.url), "--here", name], {
      cwd: root,
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    let result;
    child.on("message", (message) => {
      result = message;
    });
    child.on("close", (status) =>
      resolve({ title: name, ...(result ?? { error: `the bench ended with status ${status}` }) }),
    );
  });
}

const number = (value) =>
  value >= 100
    ? value.toFixed(0)
    : value >= 10
      ? value.toFixed(1)
      : value >= 1
        ? value.toFixed(2)
        : value.toPrecision(2);
const times = ({ value, low, high }) => `${number(value)}× (${number(low)}–${number(high)})`;

function table(benches) {
  const lines = ["| what | ours | the other | ratio (95 %) | goal |", "|---|---|---|---|---|"];
  for (const { title, rows, error } of benches) {
    if (error) {
      lines.push(`| **${title}** | not measured: ${error} | | | |`);
      continue;
    }
    lines.push(`| **${title}** | | | | |`);
    for (const row of rows) {
      const own = row.contenders[row.ours];
      const goal = row.target ? `${row.target.text}: ${row.target.met ? "met" : "**not met**"}` : "";
      const others = Object.entries(row.ratios);
      const what = row.note ? `${row.title} (${row.note})` : row.title;
      const value = `${row.ours}: ${number(own.median)} ${row.unit}`;
      if (others.length === 0) lines.push(`| ${what} | ${value} | | | ${goal} |`);
      for (const [index, [name, ratio]] of others.entries()) {
        const other = `${name}: ${number(row.contenders[name].median)} ${row.unit}`;
        lines.push(
          index === 0
            ? `| ${what} | ${value} | ${other} | ${times(ratio)} | ${goal} |`
            : `| | | ${other} | ${times(ratio)} | |`,
        );
      }
    }
  }
  return lines.join("\n");
}

const escaped = (text) =>
  String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");

/** Bars, each row to its own scale; legible on light and on dark ground. */
function plot({ title, rows }) {
  const width = 760;
  const left = 250;
  const room = width - left - 190;
  const parts = [];
  let y = 34;
  for (const row of rows) {
    parts.push(
      `<text class="row" x="12" y="${y + 4}">${escaped(row.title)}${row.target ? escaped(` — goal ${row.target.text}`) : ""}</text>`,
    );
    y += 14;
    const largest = Math.max(...Object.values(row.contenders).map(({ p95 }) => p95));
    for (const [name, { median, p5, p95 }] of Object.entries(row.contenders)) {
      const at = (value) => left + (value / largest) * room;
      const ours = name === row.ours;
      const ratio = row.ratios[name] ? `  ${number(row.ratios[name].value)}×` : "";
      parts.push(
        `<text class="name" x="${left - 8}" y="${y + 11}" text-anchor="end">${escaped(name)}</text>`,
        `<rect class="${ours ? "ours" : "other"}" x="${left}" y="${y}" width="${Math.max(1.5, at(median) - left).toFixed(1)}" height="14" rx="2"/>`,
        `<line class="spread" x1="${at(p5).toFixed(1)}" x2="${at(p95).toFixed(1)}" y1="${y + 7}" y2="${y + 7}"/>`,
        `<text class="value" x="${(at(p95) + 8).toFixed(1)}" y="${y + 11}">${escaped(`${number(median)} ${row.unit}${ratio}`)}</text>`,
      );
      y += 19;
    }
    y += 16;
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${y}" width="${width}" height="${y}" role="img" aria-label="${escaped(title)}">
<style>
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-size: 14px; font-weight: 600 } .row { font-weight: 600 } .name, .value { fill: #57606a }
.ours { fill: #0a7d5c } .other { fill: #a8b1bb } .spread { stroke: #24292f; stroke-opacity: .55 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .name, .value { fill: #9aa4ae } .ours { fill: #2fbf91 } .other { fill: #57606a } .spread { stroke: #e6edf3 }
}
</style>
<text class="title" x="12" y="18">${escaped(title)}: median, with the 5th to 95th percentile; shorter is better</text>
${parts.join("\n")}
</svg>
`;
}

/** What the page says of it. */
const REPEAT = `
## How to repeat it
On a quiet machine, in a checkout:

\`\`\`sh
npm run setup -- --only root,node,host,judges,addon,bwrap
npm run bench json5   # or other names; without one, everything
git diff docs/benchmarks
\`\`\`

A bench is a file in [benches](../../benches): what it measures, how often, and its goals. Each runs in a process of its own, under the
Node it names, and the run ends with code 1 if a goal is not met. What was measured, on which machine, under which load and of
which commit goes into \`<name>.json\`; this page and the plots are made of these files.
`;

async function main(names) {
  const unknown = names.filter((name) => !known.includes(name));
  if (unknown.length > 0) {
    console.error(`bench: there is no ${unknown.join(", ")}; there are ${known.join(", ")}`);
    process.exit(2);
  }
  mkdirSync(folder, { recursive: true });
  for (const name of names.length > 0 ? names : known) {
    console.log(`measuring ${name} …`);
    const before = machine();
    const result = await runApart(name);
    writeFileSync(
      join(folder, `${name}.json`),
      `${JSON.stringify({ machine: before, ...result }, null, 2)}\n`,
    );
    if (result.rows) writeFileSync(join(folder, `${name}.svg`), plot(result));
    console.log(`${table([result])}\n`);
    if (result.error || result.rows.some(({ target }) => target && !target.met)) process.exitCode = 1;
  }
  const results = known
    .map((name) => join(folder, `${name}.json`))
    .filter(existsSync)
    .map((file) => JSON.parse(readFileSync(file, "utf8")));
  const where = results.map(
    ({ title, node, machine: m }) =>
      `- ${title}: ${m.date}, ${m.cpu}, ${m.memoryGiB} GiB, ${m.system}, Node ${node}, ${m.rustc}, OpenClaw ${m.openclaw}, json5 ${m.json5}, commit ${m.commit}, load ${m.load.join(" ")}`,
  );
  writeFileSync(
    join(folder, "README.md"),
    `# Benchmarks

Made by \`npm run bench\`, which measures the contenders in turns within one run. Medians; a ratio is the other's median
over ours, with its 95 % interval from 2,000 bootstrap draws. The JSON files hold the spread.
${REPEAT}
## Figures

${table(results)}

${known
  .filter((name) => existsSync(join(folder, `${name}.svg`)))
  .map((name) => `![${name}](${name}.svg)`)
  .join("\n\n")}

Measured on:

${where.join("\n")}
`,
  );
}

// A day takes half an hour and has a report of its own: only who names it gets it.
const days = ["day", "soak", "shadow-day"];
if (days.includes(process.argv[2])) {
  const pinned = join(root, `__test__/node/node_modules/node24-${process.platform}-${process.arch}/bin/node`);
  const args = [join(root, "benches/day/main.mjs"), ...process.argv.slice(2)];
  process.exitCode =
    spawnSync(existsSync(pinned) ? pinned : process.execPath, args, { stdio: "inherit" }).status ?? 1;
} else if (process.argv[2] === "--here") {
  const result = await runHere(process.argv[3]);
  process.send(result, () => process.exit(0));
} else {
  await main(process.argv.slice(2));
}
