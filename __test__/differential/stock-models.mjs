// OpenClaw's own transports, asked for one answer each.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { stockFunction } from "../host/stock.mjs";
import { officialClient } from "../sim/models/official.mjs";

const hostRequire = createRequire(new URL("../host/package.json", import.meta.url));
const transports = await import(
  pathToFileURL(hostRequire.resolve("@openclaw/ai/transports", { conditions: new Set(["import"]) })).href
).catch(() => import(new URL("../host/node_modules/@openclaw/ai/dist/transports.mjs", import.meta.url).href));

const streamFns = {
  "anthropic-messages": () => transports.createAnthropicMessagesTransportStreamFn(),
  "openai-completions": () => transports.createOpenAICompletionsTransportStreamFn(),
  "openai-responses": () => transports.createOpenAIResponsesTransportStreamFn(),
  ollama: async (baseUrl) =>
    (await stockFunction("extensions/ollama/src/stream.runtime.ts", "createOllamaStreamFn"))(baseUrl),
};

const cost = { input: 3, output: 15, cacheRead: 0.3, cacheWrite: 3.75 };

/** What OpenClaw calls the prices of a model, in dollars a million tokens. */
export const stockCost = cost;

/** OpenClaw's own message for the answer; one that failed has `stopReason` "error". */
export async function askStock(api, { server, model: id, plan, messages }) {
  const baseUrl = server.url(api, plan);
  const model = {
    id,
    name: id,
    api,
    provider: "sim",
    baseUrl,
    reasoning: true,
    input: ["text", "image"],
    cost,
    contextWindow: 100_000,
    maxTokens: 2000,
  };
  const context = {
    systemPrompt: "Be brief.",
    messages: messages ?? [{ role: "user", content: "hello", timestamp: 1 }],
  };
  if (api === "google-generative-ai") return google(model, server, baseUrl);
  const stream = await (await streamFns[api](baseUrl))(model, context, {
    apiKey: server.apiKey,
    maxTokens: 2000,
  });
  for await (const _ of stream);
  return stream.result();
}

/** Google's has no transport of its own: its client makes the chunks, and this makes the message of them. */
async function google(model, server, baseUrl) {
  const { createAssistantMessageEventStream } = await import(
    new URL("../host/node_modules/@openclaw/ai/dist/event-stream.mjs", import.meta.url).href
  );
  const output = {
    role: "assistant",
    content: [],
    api: model.api,
    provider: "sim",
    model: model.id,
    usage: {},
    stopReason: "stop",
    timestamp: Date.now(),
  };
  const stream = createAssistantMessageEventStream();
  try {
    const client = await officialClient(model.api, baseUrl, server.apiKey);
    let calls = 0;
    await transports.consumeGoogleGenerateContentStream({
      chunks: await client.models.generateContentStream({ model: model.id, contents: "hello" }),
      model,
      output,
      stream,
      nextToolCallId: () => `made_${++calls}`,
      preserveParts: false,
    });
  } catch (error) {
    output.stopReason = "error";
    output.errorMessage = error.message;
  }
  return output;
}
