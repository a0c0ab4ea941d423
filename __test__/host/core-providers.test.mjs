// The plugin's own model providers in stock OpenClaw: agent turns that native code carries from request to message.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { startModelApis } from "../sim/models/server.mjs";
import { createHome } from "./fixture.mjs";
import { installPlugin } from "./installed-plugin.mjs";
import { modelProvider, transcript, turnConfig } from "./model-turn.mjs";

const FAMILIES = {
  "core-anthropic": { of: "anthropic", api: "anthropic-messages", key: "ANTHROPIC_API_KEY" },
  "core-openai": { of: "openai", api: "openai-completions", key: "OPENAI_API_KEY" },
  "core-openai-responses": { of: "openai", api: "openai-responses", key: "OPENAI_API_KEY" },
  "core-google": { of: "google", api: "google-generative-ai", key: "GEMINI_API_KEY" },
  "core-ollama": { of: "ollama", api: "ollama", key: "OLLAMA_API_KEY" },
};

describe("the plugin's providers in stock OpenClaw", () => {
  let server;
  let home;
  let runs = 0;

  before(async () => {
    server = await startModelApis();
    home = await createHome();
    await installPlugin(home);
  });
  after(async () => {
    await home?.remove();
    await server?.close();
  });

  /** A config that knows the loopback server by the names of OpenClaw's own providers; the key is in the environment. */
  async function configure(id, models, { plan = {}, fallbacks, primary } = {}) {
    const { of, api } = FAMILIES[id];
    const { apiKey: _, ...provider } = modelProvider(server, api, plan, models);
    const config = turnConfig(home, {
      primary: primary ?? `${id}/${models[0]}`,
      fallbacks,
      providers: { [of]: provider },
      plugins: { entries: { core: { enabled: true } } },
    });
    await home.write("openclaw.json", config);
  }

  async function turn(id, session) {
    const from = server.requests.length;
    const run = await home.openclaw(
      [
        ...["agent", "--local", "--agent", "main", "--session-key", `agent:main:${session}`],
        ...["--message", "hello", "--json"],
      ],
      { env: { [FAMILIES[id].key]: server.apiKey } },
    );
    const provider = ({ provider: named }) => named === undefined || named === id;
    return { ...run, requests: server.requests.slice(from), messages: transcript(home).filter(provider) };
  }

  for (const [id, { api }] of Object.entries(FAMILIES)) {
    test(`${id}: a turn with tools, their results and thinking, with the key of OpenClaw's own provider`, async () => {
      const fail = { key: `core-${++runs}`, times: 1, model: "tools" };
      await configure(id, ["thinking"], { plan: { fail, chunkBytes: 9 } });
      const { code, stdout, stderr, requests, messages } = await turn(id, `turn-${runs}`);
      assert.equal(code, 0, `${stdout}\n${stderr}`);
      assert.ok(requests.length >= 2, "the results of the tools went back to the model");
      for (const { error, headers } of requests) {
        assert.equal(error, undefined);
        // OpenClaw's transports send the names of their own clients.
        assert.doesNotMatch(headers["user-agent"] ?? "", /node|undici|OpenAI\/JS|google-genai/i);
      }
      const answers = messages.filter(({ role, provider }) => role === "assistant" && provider === id);
      assert.deepEqual(
        answers.map(({ stopReason }) => stopReason),
        ["toolUse", "stop"],
      );
      for (const answer of answers) {
        assert.equal(answer.api, api);
        for (const count of ["input", "output", "cacheRead", "cacheWrite", "totalTokens"])
          assert.equal(typeof answer.usage[count], "number");
        assert.ok(
          answer.usage.cost.total > 0 || answer.usage.totalTokens === 0,
          JSON.stringify(answer.usage),
        );
      }
      assert.ok(answers[1].content.some(({ type }) => type === "thinking"));
      assert.ok(messages.some(({ role, toolName }) => role === "toolResult" && toolName === "read"));
    });
  }

  test("core-anthropic: a 529 is answered by the next candidate", async () => {
    // OpenClaw's runner asks again for a minute or two, unless it is told that it would be in vain.
    const plan = { headers: { "retry-after": "3600" } };
    await configure("core-anthropic", ["overloaded", "text"], { plan, fallbacks: ["core-anthropic/text"] });
    const { code, stderr, requests, messages } = await turn("core-anthropic", "overloaded");
    assert.equal(code, 0, stderr);
    assert.deepEqual([...new Set(requests.map(({ model }) => model))], ["overloaded", "text"]);
    assert.equal(messages.at(-1).model, "text");
  });
});
