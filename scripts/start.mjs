// npm start: one real agent turn of stock OpenClaw with the core in place, and what each module did in it.
//
//   npm start [-- --api openai|responses|anthropic] [--json]
//
// Sets the machine up first. Ends with code 1 when the turn failed or native code answered nothing.
import { randomBytes } from "node:crypto";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { stagePlugin } from "./pack-plugin.mjs";
import { openclawVersion, SetupError, setup } from "./setup.mjs";

const apis = {
  openai: "openai-completions",
  responses: "openai-responses",
  anthropic: "anthropic-messages",
};
const { values: options } = parseArgs({
  options: { api: { type: "string", default: "openai" }, json: { type: "boolean" } },
});
if (!Object.hasOwn(apis, options.api)) {
  console.error(`--api is ${options.api}; it must be one of ${Object.keys(apis).join(", ")}`);
  process.exit(2);
}

const { NO_COLOR, FORCE_COLOR } = process.env;
const colour = (process.stdout.isTTY || FORCE_COLOR) && !NO_COLOR && !options.json;
const paint = (code) => (text) => (colour ? `\u001b[${code}m${text}\u001b[0m` : text);
const bold = paint(1);
const dim = paint(2);
const green = paint(32);
const red = paint(31);

try {
  await setup();
  const result = await play();
  console.log(options.json ? JSON.stringify(result, null, 2) : page(result));
  process.exitCode = result.problems.length === 0 ? 0 : 1;
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  console.error(`✗ ${error.message}`);
  process.exitCode = 1;
}

/** Runs the turn and gathers what the processes of OpenClaw wrote down about it. */
async function play() {
  // These need what the set-up has installed and built.
  const { createHome } = await import("../__test__/host/fixture.mjs");
  const { configureTurn, runTurn } = await import("../__test__/host/turn.mjs");
  const { startModelServer } = await import("../__test__/sim/model/server.mjs");
  const { execThenRead, readThenAnswer } = await import("../__test__/sim/model/script.mjs");
  const { MODULES } = await import("../dist/modules.js");
  const { Sandbox } = await import("../index.js");

  const runId = randomBytes(6).toString("hex");
  const note = `the word of this run is ${randomBytes(4).toString("hex")}`;
  const probe = await Sandbox.probe();
  const sandboxed = probe.backend === "bwrap";
  const server = await startModelServer({ script: sandboxed ? execThenRead() : readThenAnswer() });
  const statsDir = await mkdtemp(join(tmpdir(), "openclaw-core-stats-"));
  const home = await createHome();
  try {
    const plugin = join(home.dir, "plugin");
    if (sandboxed) stagePlugin(plugin);
    await configureTurn(home, server, apis[options.api], sandboxed ? { plugin } : {});
    console.error(
      `… one agent turn of OpenClaw ${openclawVersion()} against the model server on ${server.url}`,
    );
    const turn = await runTurn(home, server, { note, core: { mode: "auto", statsDir, timing: true, runId } });
    const processes = await readStats(statsDir, runId);
    const modules = MODULES.map((row) => summary(row, processes));
    const problems = [...turn.problems];
    if (processes.length === 0) problems.push("no process of OpenClaw reported what the core did in it");
    else if (!modules.some(({ native }) => native > 0)) problems.push("native code answered no call");
    const sandbox = sandboxOf(
      probe,
      modules.find(({ name }) => name === "sandbox"),
    );
    if (sandboxed && !(sandbox.commands > 0 && sandbox.fileCalls > 0))
      problems.push("the agent did not work in the sandbox");
    const { code, wallMs, cpuMs, maxRssKb, answer } = turn;
    return {
      runId,
      openclaw: processes[0]?.openclawVersion ?? openclawVersion(),
      node: processes[0]?.node,
      processes: processes.length,
      turn: {
        api: apis[options.api],
        code,
        wallMs: Math.round(wallMs),
        cpuMs,
        maxRssKb,
        answer,
        requests: turn.requests.map((request) => ({
          path: request.path,
          status: request.status,
          streamed: request.stream,
          events: request.events,
          toolCalls: request.reply?.toolCalls?.map(({ name }) => name) ?? [],
          toolResults: request.toolResults?.map(({ name }) => name) ?? [],
        })),
      },
      addonLoadMs: Math.max(0, ...processes.map(({ addonLoadNs }) => addonLoadNs)) / 1e6,
      sandbox,
      modules,
      problems,
      ...(turn.problems.length ? { output: (turn.stdout + turn.stderr).slice(-4000) } : {}),
    };
  } finally {
    await home.remove();
    await server.close();
    await rm(statsDir, { recursive: true, force: true });
  }
}

/** What the agent did in the sandbox, or what keeps it from there. */
function sandboxOf({ backend, checks }, { functions }) {
  const failed = checks.find(({ ok }) => !ok);
  if (backend !== "bwrap")
    return { backend: null, reason: failed && `${failed.name}: ${failed.detail}`, remedy: failed?.remedy };
  const calls = Object.entries(functions);
  const sum = (of) => of.reduce((total, [, { native }]) => total + native, 0);
  return {
    backend,
    commands: sum(calls.filter(([name]) => name === "exec")),
    fileCalls: sum(calls.filter(([name]) => name !== "exec")),
  };
}

async function readStats(folder, runId) {
  const files = (await readdir(folder)).filter((name) => name.endsWith(".json") && !name.startsWith("."));
  const all = await Promise.all(
    files.map(async (name) => JSON.parse(await readFile(join(folder, name), "utf8"))),
  );
  return all.filter((stats) => stats.runId === runId);
}

/** One row: sums over all processes of the run. */
function summary(row, processes) {
  const reports = processes.flatMap(({ modules }) => modules[row.name] ?? []);
  const functions = {};
  for (const report of reports) {
    for (const [name, stats] of Object.entries(report.functions)) {
      functions[name] ??= {};
      const sum = functions[name];
      for (const [key, value] of Object.entries(stats)) {
        sum[key] = Array.isArray(value) ? [...(sum[key] ?? []), ...value] : (sum[key] ?? 0) + value;
      }
    }
  }
  const total = (key) => Object.values(functions).reduce((sum, stats) => sum + stats[key], 0);
  const pairs = Object.values(functions).flatMap((stats) => stats.pairs);
  const nativeNsPerCall = median(pairs.map(([native]) => native));
  const originalNsPerCall = median(pairs.map(([, original]) => original));
  const attached = reports.find((report) => report.attached === "native") ?? reports[0];
  return {
    name: row.name,
    attached: attached?.attached ?? "typescript",
    how: row.attaches,
    reason: attached?.reason,
    calls: total("calls"),
    native: total("native"),
    bytes: total("bytes"),
    nativeNsPerCall,
    originalNsPerCall,
    timesFaster: nativeNsPerCall && originalNsPerCall && originalNsPerCall / nativeNsPerCall,
    functions,
  };
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? sorted[middle]
    : sorted.length
      ? (sorted[middle - 1] + sorted[middle]) / 2
      : undefined;
}

function page(result) {
  const { runId, openclaw, node, processes, turn, addonLoadMs, sandbox, modules, problems, output } = result;
  const lines = [""];
  const ok = problems.length === 0;
  const seconds = (ms) => (ms === undefined ? "?" : `${(ms / 1000).toFixed(1)} s`);
  lines.push(
    bold(`OpenClaw ${openclaw}, one agent turn with the core`) + dim(`  run ${runId}, Node ${node ?? "?"}`),
  );
  lines.push(`  ${ok ? green("✓") : red("✗")} answer   ${turn.answer ?? "none"}`);
  lines.push(`    model    ${turn.requests.map(step).join(" → ")} (${turn.api})`);
  lines.push(
    `    cost     ${seconds(turn.wallMs)}, ${seconds(turn.cpuMs)} of CPU, ` +
      `${(turn.maxRssKb / 1024).toFixed(0)} MiB at the peak; addon loaded in ${addonLoadMs.toFixed(1)} ms`,
  );
  lines.push(
    sandbox.backend
      ? `    sandbox  ${sandbox.backend}: ${sandbox.commands} command${sandbox.commands === 1 ? "" : "s"}, ` +
          `${sandbox.fileCalls} file calls without a process`
      : `    sandbox  none: ${sandbox.reason ?? "no backend works here"}${sandbox.remedy ? ` (${sandbox.remedy})` : ""}`,
  );
  lines.push("");
  const head = ["module", "runs as", "attached", "calls", "native", "native, each", "TypeScript", "ratio"];
  const rows = modules.map((module) => [
    module.name,
    module.attached === "native"
      ? "native"
      : module.attached === "typescript"
        ? "TypeScript"
        : module.attached,
    module.attached === "native" ? module.how : `(${module.how})`,
    String(module.calls),
    String(module.native),
    time(module.nativeNsPerCall),
    time(module.originalNsPerCall),
    module.timesFaster === undefined ? "–" : `${module.timesFaster.toFixed(1)}×`,
  ]);
  const widths = head.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => row[column].length)),
  );
  const line = (cells) =>
    `  ${cells.map((cell, i) => (i < 3 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join("  ")}`;
  lines.push(bold(line(head)));
  rows.forEach((row, i) => {
    const { attached } = modules[i];
    lines.push(attached === "native" ? green(line(row)) : dim(line(row)));
  });
  lines.push("");
  lines.push(
    dim(
      `  Counted in ${processes} process${processes === 1 ? "" : "es"} of run ${runId}. (In brackets: how a module will attach.)`,
    ),
  );
  lines.push(dim("  Calls that are not native needed neither side: strict JSON goes to JSON.parse."));
  lines.push(
    dim(
      "  Medians: each native call's input was given to the TypeScript original too, after the answer was out.",
    ),
  );
  for (const problem of problems) lines.push(red(`✗ ${problem}`));
  if (output) lines.push("", output);
  return lines.join("\n");
}

function step({ status, toolCalls, toolResults, events, streamed }) {
  if (status !== 200) return `refused with ${status}`;
  const what = toolCalls.length ? `calls ${toolCalls.join(", ")}` : "answers";
  const from = toolResults.length ? ` from ${toolResults.join(", ")}` : "";
  return `${what}${from}${streamed ? ` in ${events} events` : ""}`;
}

function time(ns) {
  if (ns === undefined) return "–";
  return ns < 1e6 ? `${(ns / 1e3).toFixed(1)} µs` : `${(ns / 1e6).toFixed(2)} ms`;
}
