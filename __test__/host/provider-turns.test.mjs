// Turns in one gateway of stock OpenClaw, on every API, by both ways in: native code behind OpenClaw's own transports,
// and the plugin's own providers.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { startModelApis } from "../sim/models/server.mjs";
import { createHome, until } from "./fixture.mjs";
import { connectGateway } from "./gateway-client.mjs";
import { installPlugin } from "./installed-plugin.mjs";
import { counted, modelProvider, moduleStats, turnConfig } from "./model-turn.mjs";
import { png } from "./picture.mjs";
import { stockRoot } from "./stock.mjs";

const BUSY = "sk-sim-busy-profile";
/** `text` comes at once, and `long` for as long as nobody ends it. */
const PLAN = { tokens: 20_000, perSecond: 200, eventsPerWrite: 1 };
/** Who serves each API, by each way. */
const WAYS = {
  swap: {
    "anthropic-messages": "anthropic",
    "openai-completions": "openai",
    "openai-responses": "loopback",
    "google-generative-ai": "google",
  },
  plugin: {
    "anthropic-messages": "core-anthropic",
    "openai-completions": "core-openai",
    "openai-responses": "core-openai-responses",
    "google-generative-ai": "core-google",
    ollama: "core-ollama",
  },
};
const CASES = Object.entries(WAYS).flatMap(([way, providers]) =>
  Object.entries(providers).map(([api, provider]) => ({ way, api, provider })),
);
const TRANSPORTS = {
  "anthropic-messages": "createAnthropicMessagesTransportStreamFn",
  "openai-completions": "createOpenAICompletionsTransportStreamFn",
  "openai-responses": "createOpenAIResponsesTransportStreamFn",
  "google-generative-ai": "createGoogleTransportStreamFn",
};

/** The images in a request's body, as base64, where each API has them. */
const IMAGES = {
  "anthropic-messages": ({ messages }) =>
    messages.flatMap(({ content }) => content).map(({ source }) => source?.data),
  "openai-completions": ({ messages }) =>
    messages.flatMap(({ content }) => content).map((part) => part?.image_url?.url?.split("base64,")[1]),
  "openai-responses": ({ input }) =>
    input.flatMap(({ content }) => content).map((part) => part?.image_url?.split("base64,")[1]),
  "google-generative-ai": ({ contents }) =>
    contents.flatMap(({ parts }) => parts).map(({ inlineData }) => inlineData?.data),
  ollama: ({ messages }) => messages.flatMap(({ images }) => images ?? []),
};

/** Puts the keys of two profiles into OpenClaw's own store, by OpenClaw's own function. */
const PROFILES = `
const { upsertAuthProfileWithLock } = await import(process.argv[1]);
for (const [profileId, provider, key] of JSON.parse(process.argv[2]))
  await upsertAuthProfileWithLock({ profileId, credential: { type: "api_key", provider, key } });
`;

describe("turns on every API, by both ways", () => {
  let server;
  let home;
  let gateway;
  let client;
  let statsDir;

  before(async () => {
    server = await startModelApis({ busyKey: BUSY });
    home = await createHome();
    const provider = (api, models = ["text", "long"]) => {
      const { apiKey: _, ...rest } = modelProvider(server, api, PLAN, models);
      return rest;
    };
    const config = turnConfig(home, {
      primary: "anthropic/text",
      providers: {
        anthropic: provider("anthropic-messages"),
        openai: provider("openai-completions"),
        google: provider("google-generative-ai"),
        ollama: provider("ollama"),
        loopback: { ...provider("openai-responses"), apiKey: server.apiKey },
      },
      plugins: { entries: { core: { enabled: true } } },
    });
    config.agents.list = CASES.flatMap(({ way, api, provider }) =>
      ["text", "long"].map((model) => ({
        id: agent(way, api, model),
        workspace: home.workspace,
        model: { primary: `${provider}/${model}` },
      })),
    );
    // The first profile of each is always busy.
    config.auth = {
      order: { anthropic: ["anthropic:one", "anthropic:two"], openai: ["openai:one", "openai:two"] },
    };
    await installPlugin(home);
    await home.write("openclaw.json", config);
    const profiles = ["anthropic", "openai"].flatMap((of) => [
      [`${of}:one`, of, BUSY],
      [`${of}:two`, of, server.apiKey],
    ]);
    const script = join(stockRoot, "dist/plugin-sdk/provider-auth.js");
    const stored = await home.node([
      ...["--input-type=module", "-e", PROFILES, pathToFileURL(script).href, JSON.stringify(profiles)],
    ]);
    assert.equal(stored.code, 0, stored.stderr);
    statsDir = join(home.dir, "stats");
    gateway = await home.startGateway({
      core: { mode: "require", statsDir },
      env: { GEMINI_API_KEY: server.apiKey, OLLAMA_API_KEY: server.apiKey },
    });
    client = await connectGateway(gateway, home.token);
  });
  after(async () => {
    client?.close();
    await gateway?.stop();
    await home?.remove();
    await server?.close();
  });

  const agent = (way, api, model) => `${way}-${api}-${model}`;
  const send = (id, message, more) =>
    client.request("chat.send", {
      ...{ sessionKey: `agent:${id}:main`, message, idempotencyKey: randomUUID(), ...more },
    });
  /** The first request from `from` on that holds the words and passes. */
  const requested = (from, words, passes = () => true) =>
    until(
      () =>
        server.requests
          .slice(from)
          .find((request) => JSON.stringify(request.body ?? "").includes(words) && passes(request)),
      { timeoutMs: 60_000, timeoutMessage: () => `no request with ${words}\n${gateway.log()}` },
    );
  const key = ({ headers }) => headers["x-api-key"] ?? headers.authorization?.replace("Bearer ", "");

  // Each way has a provider of its own, as a profile that was busy is left alone for a while.
  for (const [way, api] of [
    ["swap", "openai-completions"],
    ["plugin", "anthropic-messages"],
  ])
    test(`${way}: a 529 of one profile is answered by the next of the same provider`, async () => {
      const from = server.requests.length;
      await send(agent(way, api, "text"), `failover by ${way}`);
      const answered = await requested(
        from,
        `failover by ${way}`,
        (request) => key(request) === server.apiKey,
      );
      await answered.closed;
      // OpenClaw asks another model for a title and the like.
      const asked = server.requests.slice(from).filter(({ model }) => model === "text");
      assert.deepEqual([...new Set(asked.map((request) => key(request)))], [BUSY, server.apiKey]);
      assert.deepEqual([...new Set(asked.map((request) => request.api))], [api]);
      assert.equal(answered.error, undefined);
    });

  for (const { way, api } of CASES) {
    test(`${way}: an image that the user attaches arrives at ${api}`, async () => {
      const from = server.requests.length;
      const content = png(2, 2).toString("base64");
      const attachments = [{ type: "image", mimeType: "image/png", fileName: "dot.png", content }];
      await send(agent(way, api, "text"), `what is it, ${way}?`, { attachments });
      const { body, error } = await requested(
        from,
        `what is it, ${way}?`,
        (request) => request.api === api && key(request) !== BUSY,
      );
      assert.equal(error, undefined);
      const images = IMAGES[api](body).filter(Boolean);
      assert.deepEqual(images, [content]);
    });

    test(`${way}: /stop ends an answer of ${api} that is under way, and its connection`, async () => {
      const from = server.requests.length;
      await send(agent(way, api, "long"), `begin, ${way}`);
      const request = await requested(
        from,
        `begin, ${way}`,
        (one) => one.api === api && one.sentBytes > 0 && !one.error,
      );
      await send(agent(way, api, "long"), "/stop");
      await request.closed;
      assert.equal(request.aborted, true);
    });
  }

  test("it was native code that read the answers of OpenClaw's own transports", async () => {
    client.close();
    client = undefined;
    await gateway.stop();
    gateway = undefined;
    const modules = moduleStats(statsDir, "providers");
    for (const name of Object.values(TRANSPORTS)) {
      const { native, original } = counted(modules, name);
      assert.ok(native >= 2 && original === 0, `${name}: ${native} native, ${original} original`);
    }
  });
});
