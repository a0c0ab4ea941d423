// OpenClaw's own transports, asked directly in a process of OpenClaw: many answers for the price of one start.
import { readdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { stockLocation, stockRoot } from "./stock.mjs";

const google = stockLocation(
  "extensions/google/transport-stream.ts",
  "createGoogleGenerativeAiTransportStreamFn",
);
const host = readdirSync(join(stockRoot, "dist")).find((name) => /^ai-transport-host-.*\.mjs$/.test(name));
const url = (path) => JSON.stringify(pathToFileURL(path).href);

/** Runs behind the load hook. Each job is a model of the server; its answer is the message, and what it cost. */
const PROBE = `
if (process.env.PROBE_JOBS) {
const { readFileSync, writeFileSync } = await import("node:fs");
const jobs = JSON.parse(readFileSync(process.env.PROBE_JOBS, "utf8"));
const file = process.env.PROBE_JOBS;
delete process.env.PROBE_JOBS;
await import(${url(join(stockRoot, "dist", host))});
const ai = await import(${url(join(stockRoot, "../@openclaw/ai/dist/transports.mjs"))});
const { ${google.exported}: createGoogle } = await import(${url(google.path)});
const transports = {
  "anthropic-messages": ai.createAnthropicMessagesTransportStreamFn(),
  "openai-completions": ai.createOpenAICompletionsTransportStreamFn(),
  "openai-responses": ai.createOpenAIResponsesTransportStreamFn(),
  "google-generative-ai": createGoogle(),
};
const ask = async ({ api, id, baseUrl, apiKey, stopAfter }) => {
  const model = { id, name: id, api, provider: "sim", baseUrl, reasoning: true, input: ["text"],
    cost: { input: 3, output: 15, cacheRead: 0.3, cacheWrite: 3.75 }, contextWindow: 100000, maxTokens: 2000 };
  const abort = new AbortController();
  const began = performance.now();
  const stream = transports[api](model, { systemPrompt: "Be brief.", messages: [{ role: "user", content: "hello", timestamp: 1 }] },
    { apiKey, maxTokens: 2000, signal: abort.signal });
  let events = 0, firstMs;
  for await (const event of stream) {
    if (++events === stopAfter) abort.abort();
    if (firstMs === undefined && event.type.endsWith("_delta")) firstMs = performance.now() - began;
  }
  return { message: await stream.result(), events, firstMs };
};
const results = [];
for (const job of jobs) {
  const cpu = process.cpuUsage();
  const began = performance.now();
  const answers = job.times ? [] : await Promise.all([ask(job)]);
  for (let left = job.times ?? 0; left > 0; left--) answers.push(await ask(job));
  const { user, system } = process.cpuUsage(cpu);
  const { message, events } = answers[0];
  results.push({ message, events, firstMs: answers.map(({ firstMs }) => firstMs),
    cpuMs: (user + system) / 1000 / answers.length, wallMs: (performance.now() - began) / answers.length });
}
writeFileSync(file, JSON.stringify(results));
}
`;

/** What the transports of a stock OpenClaw answer, in order; `env` says how the core is to behave. */
export async function askTransports(home, jobs, { core, env, timeoutMs = 120_000 } = {}) {
  const probe = await home.write("probe.mjs", PROBE);
  const file = await home.write(`jobs-${Math.random().toString(36).slice(2)}.json`, jobs);
  const imports = [...(core ? [join(core, "dist/register.js")] : []), probe];
  const run = await home.node(
    [
      ...imports.map((path) => `--import=${pathToFileURL(path)}`),
      join(stockRoot, "openclaw.mjs"),
      "--version",
    ],
    { env: { PROBE_JOBS: file, ...env }, timeoutMs },
  );
  if (run.code !== 0) throw new Error(`the probe ended with ${run.code}: ${run.stderr}`);
  return { results: JSON.parse(await readFile(file, "utf8")), stderr: run.stderr };
}
