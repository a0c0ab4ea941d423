// The plugin's own model providers, asked as OpenClaw asks them, with the options that its config can hold: each API is
// sent what it can take. In this process, so that a case costs one request.
import assert from "node:assert/strict";
import { registerHooks } from "node:module";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { startModelApis } from "../sim/models/server.mjs";
import { stockFunction, stockRoot } from "./stock.mjs";

// As the plugin finds it inside OpenClaw.
const inside = pathToFileURL(join(stockRoot, "../plugin.mjs")).href;
registerHooks({
  resolve: (name, context, next) =>
    name.startsWith("openclaw/") ? next(name, { ...context, parentURL: inside }) : next(name, context),
});
const { registerProviders, FAMILIES } = await import("../../dist/model-providers.js");
const offered = {};
registerProviders({ registerProvider: (provider) => (offered[provider.id] = provider) });

let server;
before(async () => {
  server = await startModelApis();
});
after(() => server.close());

const user = (content) => [{ role: "user", content, timestamp: 1 }];
const tools = [{ name: "read", description: "reads", parameters: { type: "object", properties: {} } }];

/** A model of the family as OpenClaw resolves it from the user's config. */
function model(id, more = {}, { plan = {}, from = server, named = "text" } = {}) {
  const family = FAMILIES.find((one) => one.id === id);
  const models = [{ id: named, reasoning: true, maxTokens: 8000, ...more }];
  const config = { models: { providers: { [id]: { baseUrl: from.url(family.api, plan), models } } } };
  return offered[id].resolveDynamicModel({ modelId: named, config });
}

function ask(
  id,
  { options = {}, context = {}, describe, plan, from = server, wrap = (streamFn) => streamFn },
) {
  const streamFn = wrap(offered[id].createStreamFn());
  const conversation = { systemPrompt: "Be brief.", messages: user("hi"), ...context };
  return streamFn(model(id, describe, plan), conversation, { apiKey: from.apiKey, ...options });
}

/** What the server was sent. A refusal, ours or the server's, is a failure of the test. */
async function sent(id, asked) {
  const { from = server } = asked;
  const stream = await ask(id, asked);
  const { stopReason, errorMessage } = await stream.result();
  assert.equal(stopReason, "stop", `${id} ${JSON.stringify(asked.options)}: ${errorMessage}`);
  return from.requests.at(-1);
}
const body = async (id, options, more) => (await sent(id, { options, ...more })).body;

const ALL = [...["core-anthropic", "core-openai", "core-openai-responses", "core-google", "core-ollama"]];

test("no option of OpenClaw's makes a call fail", async () => {
  for (const id of ALL)
    for (const options of [
      ...["none", "short", "long"].map((cacheRetention) => ({ cacheRetention })),
      ...["off", "minimal", "low", "medium", "high", "xhigh", "max", "adaptive"].map((reasoning) => ({
        reasoning,
      })),
      ...["auto", "any", "none", "required", { type: "tool", name: "read" }].map((toolChoice) => ({
        toolChoice,
      })),
      { toolChoice: { type: "function", function: { name: "read" } }, reasoning: "low", temperature: 0.5 },
      { serviceTier: "priority", stop: ["END"], sessionId: "s".repeat(80), metadata: { user_id: "u" } },
      { responseFormat: { type: "json_object" } },
      { responseFormat: { type: "json_schema", json_schema: { name: "n", schema: { type: "object" } } } },
      { responseFormat: { type: "object", properties: {} } },
    ])
      await sent(id, { options, context: { tools } });
});

test("the choice of a tool and the form of the answer go out in each API's own words", async () => {
  const context = { tools };
  const named = { type: "function", function: { name: "read" } };
  const choice = async (id, toolChoice, more) => {
    const { tool_choice, toolConfig } = await body(id, { toolChoice, ...more }, { context });
    return tool_choice ?? toolConfig?.functionCallingConfig;
  };
  assert.deepEqual(await choice("core-anthropic", named), { type: "tool", name: "read" });
  assert.deepEqual(await choice("core-anthropic", "any"), { type: "any" });
  // The API refuses it while the model thinks.
  assert.equal(await choice("core-anthropic", "any", { reasoning: "low" }), undefined);
  assert.deepEqual(await choice("core-openai", { type: "tool", name: "read" }), named);
  assert.equal(await choice("core-openai-responses", "any"), "required");
  assert.deepEqual(await choice("core-google", named), { mode: "ANY", allowedFunctionNames: ["read"] });
  assert.equal(await choice("core-ollama", named), undefined);

  const schema = { type: "object", properties: { a: { type: "string" } } };
  const responseFormat = { type: "json_schema", json_schema: { name: "n", schema, strict: true } };
  const chat = await body("core-openai", { responseFormat });
  assert.deepEqual(chat.response_format.json_schema, { name: "n", schema, strict: true });
  const { text } = await body("core-openai-responses", { responseFormat });
  assert.deepEqual(text.format, { type: "json_schema", name: "n", schema, strict: true });
  assert.deepEqual((await body("core-ollama", { responseFormat: schema })).format, schema);
  assert.equal((await body("core-ollama", { responseFormat: schema }, { context })).format, undefined);
});

test("levels of thinking that a model has not come down to those it has", async () => {
  const { generationConfig } = await body("core-google", { reasoning: "xhigh" });
  assert.deepEqual(generationConfig.thinkingConfig, { includeThoughts: true, thinkingLevel: "HIGH" });
  const plan = { named: "gemini-2.5-pro", plan: { fixture: "text" } };
  const old = await body("core-google", { reasoning: "low", thinkingBudgets: { low: 333 } }, { plan });
  assert.equal(old.generationConfig.thinkingConfig.thinkingBudget, 333);
  const effort = async (reasoning, thinkingLevelMap) =>
    (await body("core-openai", { reasoning }, { describe: { thinkingLevelMap } })).reasoning_effort;
  assert.equal(await effort("max", { max: null, xhigh: null }), "high");
  assert.equal(await effort("high", { high: "xhigh" }), "xhigh");
  assert.equal(await effort("adaptive"), undefined);
  // The server has no models of such names.
  const onPayload = (payload) => ({ ...payload, model: "text" });
  const claude = (named, reasoning) => body("core-anthropic", { reasoning, onPayload }, { plan: { named } });
  const adaptive = await claude("claude-opus-4-6", "adaptive");
  assert.deepEqual([adaptive.thinking.type, adaptive.output_config.effort], ["adaptive", "high"]);
  const counted = await claude("claude-sonnet-4-5", "max");
  assert.equal(counted.thinking.type, "enabled");
});

test("a prompt's cache has the key and the time that the server knows", async () => {
  const options = { sessionId: `${"ä".repeat(70)}`, cacheRetention: "long" };
  const describe = { compat: { supportsPromptCacheKey: true, supportsLongCacheRetention: true } };
  for (const id of ["core-openai", "core-openai-responses"]) {
    const known = await body(id, options, { describe });
    assert.deepEqual([known.prompt_cache_key, known.prompt_cache_retention], ["ä".repeat(64), "24h"]);
    const keyed = await body(id, { ...options, promptCacheKey: "k", cacheRetention: "short" }, { describe });
    assert.deepEqual([keyed.prompt_cache_key, keyed.prompt_cache_retention], ["k", undefined]);
    // A server that is not OpenAI's may refuse what it does not know.
    const other = await body(id, options);
    assert.deepEqual([other.prompt_cache_key, other.prompt_cache_retention], [undefined, undefined]);
  }
  const { metadata } = await body("core-anthropic", { metadata: { user_id: "u", more: 1 } });
  assert.deepEqual(metadata, { user_id: "u" });
});

test("OpenClaw's mark in the system prompt ends what is cached, and no model sees it", async () => {
  const systemPrompt = "Always.\n<!-- OPENCLAW_CACHE_BOUNDARY -->\nToday.";
  for (const id of ALL) {
    const request = await sent(id, { context: { systemPrompt } });
    assert.doesNotMatch(JSON.stringify(request.body), /OPENCLAW/);
    assert.match(JSON.stringify(request.body), /Always\..*Today\./);
    if (id === "core-anthropic")
      assert.deepEqual(request.body.system, [
        { type: "text", text: "Always.", cache_control: { type: "ephemeral" } },
        { type: "text", text: "Today." },
      ]);
  }
});

test("Ollama is told the context and the params of the user's config, and what a call asks for above them", async () => {
  const params = { num_ctx: 16_384, top_p: 0.9, temperature: 0.1, keep_alive: "5m", unknown: 1 };
  const describe = { params, contextTokens: 32_768 };
  const request = await body("core-ollama", { temperature: 0.7, maxTokens: 99, seed: 3 }, { describe });
  assert.deepEqual(request.options, {
    ...{ num_ctx: 16_384, top_p: 0.9, temperature: 0.7, num_predict: 99, seed: 3 },
  });
  assert.deepEqual([request.keep_alive, request.truncate, request.unknown], ["5m", false, undefined]);
  const capped = await body("core-ollama", {}, { describe: { contextTokens: 32_768 } });
  assert.deepEqual(capped.options, { num_ctx: 32_768 });
});

const image = { type: "image", mimeType: "image/png", data: "iVBORw0KGgo=" };
const IMAGES = /iVBORw0KGgo=/g;

test("images, a user's and a tool's, go to models that see, and to no other", async () => {
  const call = { type: "toolCall", id: "call_1", name: "read", arguments: {} };
  for (const id of ALL) {
    const { api } = FAMILIES.find((one) => one.id === id);
    const messages = [
      ...user([{ type: "text", text: "look" }, image]),
      {
        role: "assistant",
        content: [call],
        api,
        provider: id,
        model: "text",
        stopReason: "toolUse",
        timestamp: 2,
      },
      {
        role: "toolResult",
        toolCallId: "call_1",
        toolName: "read",
        content: [image],
        isError: false,
        timestamp: 3,
      },
    ];
    const count = async (input) => {
      const { body } = await sent(id, { describe: { input }, context: { messages, tools } });
      return JSON.stringify(body).match(IMAGES)?.length ?? 0;
    };
    assert.deepEqual([await count(["text", "image"]), await count(["text"])], [2, 0], id);
  }
});

test("a Claude subscription's token speaks as Claude Code does, with the caller's betas", async () => {
  const own = await startModelApis({ apiKey: "sk-ant-oat01-simulated" });
  try {
    const more = { from: own, plan: { from: own } };
    const asked = { options: { headers: { "Anthropic-Beta": "context-1m-2025-08-07" } }, ...more };
    const { headers, body } = await sent("core-anthropic", asked);
    assert.equal(headers.authorization, `Bearer ${own.apiKey}`);
    assert.equal(headers["anthropic-beta"], "claude-code-20250219,oauth-2025-04-20,context-1m-2025-08-07");
    assert.match(body.system[1].text, /^You are Claude Code/);
    assert.deepEqual(body.system[2], {
      type: "text",
      text: "Be brief.",
      cache_control: { type: "ephemeral" },
    });
  } finally {
    await own.close();
  }
});

test("calls one after another share a connection", async () => {
  const own = await startModelApis();
  try {
    for (let call = 0; call < 5; call++) await sent("core-openai", { from: own, plan: { from: own } });
    assert.equal(own.requests.length, 5);
    assert.equal(own.connections(), 1);
  } finally {
    await own.close();
  }
});

test("OpenClaw's own wrappers of a stream find what they look for in its events", async () => {
  const wrapStreamFn = await stockFunction(
    "src/agents/plugin-text-transforms.ts",
    "wrapStreamFnTextTransforms",
  );
  const plan = { named: "tools", plan: { eventsPerWrite: 1 } };
  const { content } = await (await ask("core-openai", { plan })).result();
  const [word] = content.find(({ type }) => type === "text").text.split(/\W/);
  const wrap = (streamFn) => wrapStreamFn({ streamFn, output: [{ from: word, to: "Changed" }] });
  const types = [];
  for await (const event of await ask("core-openai", { plan, wrap })) {
    types.push(event.type);
    if (event.type === "done") assert.match(event.message.content[0].text, /^Changed/);
    else assert.equal(event.partial?.role, "assistant", event.type);
    if (event.type === "text_end") assert.match(event.partial.content[0].text, /^Changed/);
  }
  for (const type of ["start", "text_delta", "text_end", "toolcall_end", "done"])
    assert.ok(types.includes(type), type);
});

test("the message comes whatever was read before, and says why a call has failed", async () => {
  const slow = { plan: { eventsPerWrite: 1, delayMs: 5 } };
  const stream = await ask("core-openai", { plan: slow });
  const reader = stream[Symbol.asyncIterator]();
  assert.equal((await reader.next()).value.type, "start");
  const { stopReason, usage } = await stream.result();
  assert.deepEqual([stopReason, typeof usage.totalTokens], ["stop", "number"]);
  const rest = [];
  for await (const event of stream) rest.push(event.type);
  assert.equal(rest.at(-1), "done");

  for (const read of [false, true]) {
    const failed = await ask("core-anthropic", { plan: { plan: { fixture: "overloaded" } } });
    const events = [];
    if (read) for await (const event of failed) events.push(event);
    const message = await failed.result();
    assert.match(message.errorMessage, /^529: .*overloaded/is);
    if (!read) for await (const event of failed) events.push(event);
    assert.equal(events.at(-1).error, message);
  }
});
