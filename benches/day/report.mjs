// What is made of a measured day: the README's table, docs/benchmarks/day.md's two, and the plots; from the JSON files beside
// that page alone.
import { floors } from "./soak.mjs";

const ms = (value) =>
  value === null
    ? "never"
    : value >= 10_000
      ? `${(value / 1000).toFixed(0)} s`
      : value >= 1000
        ? `${(value / 1000).toFixed(1)} s`
        : `${Math.round(value)} ms`;
const mib = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
const pair = ({ p50, p99 }) => `${ms(p50)} / ${ms(p99)}`;
const never = (value) => value ?? Number.POSITIVE_INFINITY;
const list = (values) => String(values.length);

/** Label, what is shown of a side, and what it is compared by: less is better. */
const ROWS = [
  ["messages that people wrote", ({ messages }) => String(messages)],
  ["… never answered", ({ lost }) => list(lost), ({ lost }) => lost.length],
  ["… answered twice", ({ doubled }) => list(doubled), ({ doubled }) => doubled.length],
  ["… with half an answer left standing", ({ torn }) => list(torn), ({ torn }) => torn.length],
  [
    "… answered after a later one of the same chat",
    ({ outOfOrder }) => String(outOfOrder),
    ({ outOfOrder }) => outOfOrder,
  ],
  ["whole answer, p50 / p99", ({ reply }) => pair(reply), ({ reply }) => never(reply.p99)],
  [
    "first words of it, p50 / p99",
    ({ firstWords }) => pair(firstWords),
    ({ firstWords }) => never(firstWords.p50),
  ],
  ["OpenClaw's warnings and excuses", (side) => String(excuses(side)), excuses],
  ["tasks with a file: asked", ({ edits }) => String(edits.asked)],
  ["… not done", ({ edits }) => list(edits.missing), ({ edits }) => edits.missing.length],
  ["… done twice", ({ edits }) => list(edits.doubled), ({ edits }) => edits.doubled.length],
  ["event loop late, p50 / p99 (without the stall)", ({ loop }) => pair(loop), ({ loop }) => loop.p99],
  ["processor time", ({ cpuSeconds }) => `${cpuSeconds.toFixed(0)} s`, ({ cpuSeconds }) => cpuSeconds],
  ["… for each message that was answered", (side) => ms(perAnswer(side)), (side) => perAnswer(side)],
  [
    "the gateway's memory, median / most",
    ({ rss }) => `${rss.medianMiB.toFixed(0)} / ${rss.mainMiB.toFixed(0)} MiB`,
    ({ rss }) => rss.medianMiB,
  ],
  [
    "… of which the core's own, most",
    ({ core }) => (core ? `${mib(core.peakBytes)} (${owners(core)})` : "–"),
  ],
  ["processes started by the gateway", ({ spawned }) => String(spawned), ({ spawned }) => spawned],
  [
    "files on disk that hold a secret in clear",
    ({ secrets }) => list(secrets),
    ({ secrets }) => secrets.length,
  ],
  [
    "gateway starts, median",
    (side) => `${startsOf(side).length}, ${ms(middle(startsOf(side)))}`,
    (side) => middle(startsOf(side)),
  ],
];

/** "⚠️ OpenClaw couldn't produce …", "I couldn’t confirm whether …": what a person reads who waits for an answer. */
function excuses({ otherTexts }) {
  return otherTexts.filter(({ text }) => /^(?:⚠|I couldn.t confirm)/u.test(text)).length;
}
const perAnswer = ({ cpuSeconds, messages, lost }) => (cpuSeconds * 1000) / (messages - lost.length);
const startsOf = ({ starts }) => starts.map(({ tookMs }) => tookMs).filter((took) => took !== null);
const middle = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
const owners = ({ owners }) =>
  Object.entries(owners)
    .filter(([, bytes]) => bytes > 50_000)
    .sort(([, a], [, b]) => b - a)
    .slice(0, 4)
    .map(([name, bytes]) => `${name} ${(bytes / 2 ** 20).toFixed(1)}`)
    .join(", ");

/** Who is better, where a tenth makes no difference. */
function better(by, { native, stock }) {
  if (!by || !native || !stock) return "";
  const [one, other] = [by(native), by(stock)];
  const most = Math.max(one, other);
  if (one === other || (Number.isFinite(most) && most > 20 && Math.abs(one - other) <= 0.1 * most))
    return "equal";
  return one < other ? "native" : "**stock**";
}

/** The README's block. */
export function dayBlock({ machine, sides }) {
  const { native, stock } = sides;
  const rows = ROWS.map(([label, show, by]) => [
    label,
    stock ? show(stock) : "–",
    native ? show(native) : "–",
    better(by, sides),
  ]);
  const one = native ?? stock;
  const did = one.did.map(
    ({ what, did }) => `${NAMES[what] ?? what}${did === false ? " (**not done**)" : ""}`,
  );
  return [
    "![Every answer of one day, as it is and with every module native](docs/benchmarks/day.svg)",
    "",
    `One day in ${one.minutes} minutes, the same messages to stock OpenClaw ${machine.openclaw} and to the same with every module native, ` +
      `on simulated Telegram, Discord and Slack: bursts, agents that work on files, long answers; and ${listed(did)}. ` +
      `Stock runs its commands without a sandbox (this machine has no Docker); native runs them in bubblewrap.`,
    "",
    ...[["", "stock", "native", "better"], ["---", "---", "---", "---"], ...rows].map(
      (cells) => `| ${cells.join(" | ")} |`,
    ),
    "",
    `\`npm run bench day\`, ${machine.date}, ${machine.cpu}, commit ${machine.commit}. [What each row is](docs/benchmarks/day.md).`,
  ].join("\n");
}

const NAMES = {
  outage: "a model that is down",
  limits: "429s of model and platforms",
  stall: "a JS thread that stands still",
  kill: "`kill -9`",
  disk: "a full disk",
  config: "a config edited while running",
};

function listed(names) {
  const words = [...new Set(names)].map((name) => {
    const times = names.filter((other) => other === name).length;
    return times > 1 ? `${name} (${times}×)` : name;
  });
  return `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}

const BANDS = {
  outage: "model down",
  stall: "stall",
  kill: "kill −9",
  disk: "disk full",
  limits: "429",
  config: "config",
};

/** Every answer: when it was asked for, and how long it took, on a scale of powers; what never came stands on top. */
export function dayPlot({ sides, script }) {
  const [width, left, right, top, height] = [760, 52, 12, 40, 150];
  const room = width - left - right;
  const day = script.lengthMs;
  const x = (at) => left + (Math.min(at, day) / day) * room;
  const [low, high] = [100, 300_000];
  const y = (took) =>
    height - (Math.log(Math.min(high, Math.max(low, took)) / low) / Math.log(high / low)) * (height - 22);
  const parts = [];
  let base = top;
  for (const [name, title] of [
    ["stock", "stock OpenClaw"],
    ["native", "every module native"],
  ]) {
    const side = sides[name];
    if (!side) continue;
    const at = (value) => (base + value).toFixed(1);
    for (const { do: what, atMs, forMs = 0 } of script.events) {
      const wide = Math.max(1.5, x(atMs + forMs) - x(atMs));
      parts.push(
        `<rect class="band ${what === "limits" || what === "config" ? "mild" : ""}" x="${x(atMs).toFixed(1)}" y="${at(12)}" width="${wide.toFixed(1)}" height="${height - 12}"/>`,
      );
      if (base === top)
        parts.push(
          `<text class="what" x="${(x(atMs) + wide / 2).toFixed(1)}" y="${at(8)}" text-anchor="middle">${BANDS[what] ?? what}</text>`,
        );
    }
    for (const [took, word] of [
      [1000, "1 s"],
      [10_000, "10 s"],
      [100_000, "100 s"],
    ])
      parts.push(
        `<line class="grid" x1="${left}" x2="${width - right}" y1="${at(y(took))}" y2="${at(y(took))}"/>`,
        `<text class="axis" x="${left - 6}" y="${at(y(took) + 4)}" text-anchor="end">${word}</text>`,
      );
    for (const [asked, took] of side.delays)
      parts.push(`<circle class="${name}" cx="${x(asked).toFixed(1)}" cy="${at(y(took))}" r="2"/>`);
    for (const { askedMs } of side.lost)
      parts.push(`<path class="lost" d="M${(x(askedMs) - 3).toFixed(1)} ${at(15)}l6 6m0 -6l-6 6"/>`);
    parts.push(
      `<text class="name" x="${left + 4}" y="${at(height + 14)}">${title}: ${side.lost.length} of ${side.messages} never answered (×), an answer after ${pair(side.reply)} (p50 / p99)</text>`,
    );
    base += height + 30;
  }
  const label = "Every answer of one day: when it was asked for, and how long it took";
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${base}" width="${width}" height="${base}" role="img" aria-label="${label}">
<style>
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-size: 14px; font-weight: 600 } .name { font-weight: 600 } .axis, .what { fill: #57606a; font-size: 11px }
.native { fill: #0a7d5c; fill-opacity: .7 } .stock { fill: #6e7781; fill-opacity: .7 }
.band { fill: #cf222e; fill-opacity: .16 } .mild { fill: #57606a } .grid { stroke: #57606a; stroke-opacity: .25 }
.lost { stroke: #cf222e; stroke-width: 1.6; fill: none }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .axis, .what { fill: #9aa4ae } .native { fill: #2fbf91 } .stock { fill: #9aa4ae }
  .band { fill: #ff7b72; fill-opacity: .22 } .mild { fill: #9aa4ae } .grid { stroke: #9aa4ae } .lost { stroke: #ff7b72 }
}
</style>
<text class="title" x="12" y="18">${label}</text>
${parts.join("\n")}
</svg>
`;
}

/** The soak's block: its goals, and the core's own bytes from minute to minute. */
export function soakBlock({ machine, table, record }) {
  return [
    table,
    "",
    "![The core's own bytes in an hour of traffic](soak.svg)",
    "",
    measured("soak", machine, record),
  ].join("\n");
}

export const shadowBlock = ({ machine, table, record }) =>
  [table, "", measured("shadow-day", machine, record)].join("\n");

const measured = (what, machine, { minutes, messages }) =>
  `\`npm run bench ${what}\`, ${minutes} minutes, ${messages} messages, ${machine.date}, ${machine.cpu}, commit ${machine.commit}.`;

export function soakPlot({ record }) {
  const [width, left, right, top, height] = [760, 52, 12, 34, 130];
  const least = floors(record.series).map(([minute, bytes]) => [minute, bytes / 2 ** 20]);
  const most = Math.ceil(Math.max(...least.map(([, size]) => size)) / 10) * 10;
  const x = (minute) => (left + (minute / record.minutes) * (width - left - right)).toFixed(1);
  const y = (size) => (top + height - (size / most) * (height - 10)).toFixed(1);
  const marks = [0, most / 2, most].map(
    (size) =>
      `<line class="grid" x1="${left}" x2="${width - right}" y1="${y(size)}" y2="${y(size)}"/>` +
      `<text class="axis" x="${left - 6}" y="${Number(y(size)) + 4}" text-anchor="end">${size} MiB</text>`,
  );
  for (let minute = 0; minute <= record.minutes; minute += 10)
    marks.push(
      `<text class="axis" x="${x(minute)}" y="${top + height + 16}" text-anchor="middle">${minute} min</text>`,
    );
  const label = "The core's own bytes in an hour of traffic, the least of each minute";
  const line = least.map(([minute, size]) => `${x(minute)},${y(size)}`).join(" ");
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${top + height + 24}" width="${width}" height="${top + height + 24}" role="img" aria-label="${label}">
<style>
text { font: 12px system-ui, sans-serif; fill: #24292f } .title { font-size: 14px; font-weight: 600 }
.axis { fill: #57606a; font-size: 11px } .grid { stroke: #57606a; stroke-opacity: .25 }
polyline { fill: none; stroke: #0a7d5c; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .axis { fill: #9aa4ae } .grid { stroke: #9aa4ae } polyline { stroke: #2fbf91 }
}
</style>
<text class="title" x="12" y="18">${label}</text>
${marks.join("\n")}
<polyline points="${line}"/>
</svg>
`;
}
