// Answers of models as a stream: the native clients against the APIs' own, on the same loopback server, which runs in a
// process of its own. CPU is that of the whole process, the core's threads included.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { createHome } from "../__test__/host/fixture.mjs";
import { askTransports } from "../__test__/host/transport-probe.mjs";
import { baseUrl, startModelApis } from "../__test__/sim/models/server.mjs";
import { longText } from "../__test__/sim/models/streams.mjs";
import { quantile, row } from "./measure.mjs";
import { readAll, reader } from "./streams.mjs";

export const title = "Model providers";
export const node = "24";

const require = createRequire(import.meta.url);
const OFFICIAL = {
  "anthropic-messages": "@anthropic-ai/sdk",
  "openai-completions": "openai (chat)",
  "openai-responses": "openai (responses)",
  "google-generative-ai": "@google/genai",
};
const TOKENS = 2000;
const STREAMS = 200;

async function serverApart() {
  const child = spawn(
    process.execPath,
    [fileURLToPath(new URL("../__test__/sim/models/server.mjs", import.meta.url))],
    { stdio: ["pipe", "pipe", "inherit"] },
  );
  const [line] = await once(createInterface(child.stdout), "line");
  return { ...JSON.parse(line), close: () => child.stdin.end() };
}

function exact(text, tokens, who) {
  if (text !== longText(tokens)) throw new Error(`${who} lost or changed text: ${text.length} characters`);
}

/** Microseconds of CPU a token, and milliseconds to the first token. */
async function oneByOne(api, server, eventsPerWrite) {
  const names = ["core", OFFICIAL[api]];
  const plan = { tokens: TOKENS, eventsPerWrite };
  const readers = {};
  for (const name of names) readers[name] = await reader(name, api, server, plan);
  const cpu = Object.fromEntries(names.map((name) => [name, []]));
  const first = Object.fromEntries(names.map((name) => [name, []]));
  // A gateway lives for days: what is measured is code that has been compiled.
  for (let turn = -15; turn < 25; turn++) {
    for (const name of turn % 2 ? names : [...names].reverse()) {
      const before = process.cpuUsage();
      const { text, firstMs } = await readAll(readers[name]);
      const { user, system } = process.cpuUsage(before);
      exact(text, TOKENS, name);
      if (turn < 0) continue;
      cpu[name].push((user + system) / TOKENS);
      first[name].push(firstMs);
    }
  }
  return { cpu, first };
}

async function singleRows(server) {
  const rows = [];
  for (const api of Object.keys(OFFICIAL)) {
    for (const eventsPerWrite of [1, 8]) {
      const { cpu, first } = await oneByOne(api, server, eventsPerWrite);
      const many = eventsPerWrite === 1 ? "an event a write" : "8 events a write";
      rows.push(
        row({
          title: `${api}: CPU a token, ${many}`,
          unit: "µs",
          samples: cpu,
          target: {
            text: "≤ 0.4× the official client",
            met: ({ ratios }) => ratios[OFFICIAL[api]].value >= 2.5,
          },
        }),
      );
      if (eventsPerWrite === 8) continue;
      rows.push(
        row({
          title: `${api}: first token`,
          unit: "ms",
          samples: first,
          target: {
            text: "no later than the official client",
            met: ({ ratios }) => ratios[OFFICIAL[api]].high >= 1,
          },
        }),
      );
    }
  }
  return rows;
}

/** 200 streams of 100 tokens a second each. */
async function atOnce(api, server) {
  const names = ["core", OFFICIAL[api]];
  const tokens = 400;
  const plan = { tokens, perSecond: 100, eventsPerWrite: 1 };
  const cpu = Object.fromEntries(names.map((name) => [name, []]));
  const delay = Object.fromEntries(names.map((name) => [name, []]));
  for (let turn = -1; turn < 4; turn++) {
    for (const name of turn % 2 ? names : [...names].reverse()) {
      const contents = await reader(name, api, server, plan);
      const monitor = monitorEventLoopDelay({ resolution: 1 });
      let tokensSeen = 0;
      const running = Array.from({ length: STREAMS }, () => readAll(contents, () => tokensSeen++));
      // Opening them is not what is measured.
      await new Promise((resolve) => setTimeout(resolve, 1000));
      const before = process.cpuUsage();
      const seenBefore = tokensSeen;
      monitor.enable();
      await new Promise((resolve) => setTimeout(resolve, 2500));
      monitor.disable();
      const { user, system } = process.cpuUsage(before);
      const tokensRead = tokensSeen - seenBefore;
      for (const { text } of await Promise.all(running)) exact(text, tokens, name);
      if (turn < 0) continue;
      // By token and not by second: on a busy machine the server, too, is late.
      cpu[name].push((user + system) / tokensRead);
      delay[name].push(monitor.percentile(99) / 1e6);
    }
  }
  const what = `${api}: ${STREAMS} streams of 100 tokens/s`;
  return [
    row({
      title: `${what}: event-loop delay, p99`,
      unit: "ms",
      samples: delay,
      target: { text: "≤ 10 ms", met: ({ contenders }) => contenders.core.median <= 10 },
    }),
    row({
      title: `${what}: CPU a token`,
      unit: "µs",
      samples: cpu,
      target: {
        text: "≤ half of the official client's",
        met: ({ ratios }) => ratios[OFFICIAL[api]].value >= 2,
      },
    }),
  ];
}

function memoryRow(api, server) {
  const script = fileURLToPath(new URL("./streams.mjs", import.meta.url));
  const samples = { core: [], [OFFICIAL[api]]: [] };
  for (let turn = 0; turn < 3; turn++) {
    for (const name of Object.keys(samples)) {
      const { status, stdout, stderr } = spawnSync(
        process.execPath,
        ["--expose-gc", script, name, api, server.origin, server.apiKey, String(STREAMS)],
        { encoding: "utf8", timeout: 60_000 },
      );
      if (status !== 0) throw new Error(`the memory of ${name} was not measured: ${stderr}`);
      samples[name].push(JSON.parse(stdout).bytesPerStream / 1024);
    }
  }
  return row({
    title: `${api}: memory of an open stream`,
    unit: "KiB",
    samples,
    target: { text: "≤ 256 KiB", met: ({ contenders }) => contenders.core.median <= 256 },
  });
}

/** From `abort()` to the server's seeing the connection closed, in the middle of an answer. */
async function abortRow(api) {
  const server = await startModelApis();
  const samples = { core: [], [OFFICIAL[api]]: [] };
  const plan = { tokens: 5000, perSecond: 500, eventsPerWrite: 1 };
  for (const name of Object.keys(samples)) {
    const contents = await reader(name, api, server, plan);
    for (let turn = 0; turn < 100; turn++) {
      const stop = new AbortController();
      let at;
      let deltas = 0;
      try {
        for await (const event of await contents.open(stop.signal)) {
          if (at !== undefined && contents.text(event)) throw new Error("an event came after the abort");
          if (contents.text(event) && ++deltas === 3) {
            at = performance.now();
            stop.abort();
          }
        }
      } catch (error) {
        if (at === undefined || /after the abort/.test(error.message)) throw error;
      }
      const record = server.requests.at(-1);
      await record.closed;
      samples[name].push(record.closedMs - at);
    }
  }
  await server.close();
  return row({
    title: `${api}: abort to closed connection`,
    unit: "ms",
    samples,
    target: { text: "p99 ≤ 50 ms", met: () => quantile(samples.core, 0.99) <= 50 },
    note: `p99 ${quantile(samples.core, 0.99).toFixed(1)} ms`,
  });
}

/** How far each timer is off, in real time. */
async function timerRows() {
  const core = require("../index.js");
  const server = await startModelApis();
  const SET = 150;
  const plans = {
    "first byte": [{ headersMs: 60_000 }, { firstByteMs: SET }],
    idle: [{ cutEvents: 1, after: "ping", delayMs: 10 }, { idleMs: SET }],
    total: [{ perSecond: 100, tokens: 5000, eventsPerWrite: 1 }, { totalMs: SET }],
  };
  const rows = [];
  for (const [what, [plan, timeouts]] of Object.entries(plans)) {
    const provider = new core.OpenAiProvider({
      apiKey: server.apiKey,
      baseUrl: server.url("openai-completions", plan),
    });
    const samples = { core: [] };
    for (let turn = 0; turn < 20; turn++) {
      const start = performance.now();
      let cause;
      for await (const event of provider.stream(
        { model: "long", messages: [{ role: "user", content: "x" }] },
        { retries: 0, timeouts },
      ))
        if (event.type === "error") cause = event.cause;
      if (cause?.code !== "TIMEOUT")
        throw new Error(`the ${what} timer gave ${cause?.code}: ${cause?.message}`);
      samples.core.push(performance.now() - start - SET);
    }
    rows.push(
      row({
        title: `timer "${what}", too late by`,
        unit: "ms",
        samples,
        target: {
          text: "±50 ms",
          met: () => samples.core.every((off) => off > -5 && off <= 50),
        },
      }),
    );
  }
  await server.close();
  return rows;
}

/** OpenClaw's own transports, with native code between them and the connection, and without. */
async function insideRows(server) {
  const home = await createHome({ config: "{}" });
  const jobs = Object.keys(OFFICIAL).map((api) => ({
    api,
    id: "long",
    baseUrl: baseUrl(server.origin, api, { tokens: TOKENS, eventsPerWrite: 8 }),
    apiKey: server.apiKey,
    times: 8,
  }));
  const core = fileURLToPath(new URL("..", import.meta.url));
  const ways = {
    "with the swap": { core, env: { OPENCLAW_CORE: "require" } },
    "as it is": {},
  };
  const rounds = Object.fromEntries(Object.keys(ways).map((name) => [name, []]));
  try {
    for (let turn = 0; turn < 5; turn++) {
      const names = Object.keys(ways);
      for (const name of turn % 2 ? names : names.reverse()) {
        const { results } = await askTransports(home, jobs, ways[name]);
        for (const { message } of results) {
          const text = message.content.map((block) => block.text ?? "").join("");
          exact(text, TOKENS, `OpenClaw ${name}`);
        }
        rounds[name].push(results);
      }
    }
  } finally {
    await home.remove();
  }
  return jobs.map(({ api }, index) =>
    row({
      title: `OpenClaw's own transport of ${api}: CPU a token`,
      unit: "µs",
      samples: Object.fromEntries(
        Object.entries(rounds).map(([name, results]) => [
          name,
          results.map((jobs) => (jobs[index].cpuMs * 1000) / TOKENS),
        ]),
      ),
      target: {
        text: "not slower than as it is",
        met: ({ ratios }) => ratios["as it is"].high >= 1,
      },
    }),
  );
}

export async function run() {
  const server = await serverApart();
  try {
    const rows = await singleRows(server);
    rows.push(...(await insideRows(server)));
    for (const api of ["anthropic-messages", "openai-completions"]) rows.push(...(await atOnce(api, server)));
    for (const api of ["anthropic-messages", "openai-completions"]) rows.push(memoryRow(api, server));
    for (const api of ["anthropic-messages", "openai-completions"]) rows.push(await abortRow(api));
    rows.push(...(await timerRows()));
    return rows;
  } finally {
    server.close();
  }
}
