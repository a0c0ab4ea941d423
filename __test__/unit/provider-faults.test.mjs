// What servers do to a client: storms of errors, redirects, silence of several kinds.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, describe, test } from "node:test";
import core from "../../index.js";
import { APIS, fixture, startModelApis } from "../sim/models/server.mjs";

const CLASSES = {
  "anthropic-messages": "AnthropicProvider",
  "openai-completions": "OpenAiProvider",
  "openai-responses": "OpenAiResponsesProvider",
  "google-generative-ai": "GeminiProvider",
  ollama: "OllamaProvider",
};
const CHAT = "openai-completions";

let server;
before(async () => {
  server = await startModelApis();
});
after(() => server.close());

function provider(api, plan, options = {}) {
  return new core[CLASSES[api]]({ apiKey: server.apiKey, baseUrl: server.url(api, plan), ...options });
}

const ask = (client, model, options = {}) =>
  client.complete(
    { model, messages: [{ role: "user", content: "hello" }], maxTokens: 100 },
    { retries: 0, ...options },
  );
const failure = (...args) =>
  ask(...args).then(
    (message) => assert.fail(`it is taken for an answer: ${JSON.stringify(message)}`),
    (error) => error,
  );
const asked = (key) => server.requests.filter(({ plan }) => plan?.fail?.key === key).length;

let key = 0;
for (const api of APIS) {
  describe(`${api}: a storm of errors`, () => {
    const failing = api === "ollama" ? ["overloaded"] : ["rate-limited", "overloaded"];
    for (const model of failing) {
      test(`${model} twice, then an answer: three attempts`, async () => {
        const fail = { key: `storm ${++key}`, times: 2, model };
        const headers = { "retry-after-ms": "1" };
        const message = await ask(provider(api, { fail, headers }), "text", { retries: 2 });
        assert.equal(message.stopReason, "stop");
        assert.equal(asked(fail.key), 3);
      });

      test(`${model} for ever: as many attempts as were allowed, and its error`, async () => {
        const fail = { key: `storm ${++key}`, times: 1000, model };
        const headers = { "retry-after-ms": "1" };
        const error = await failure(provider(api, { fail, headers }), "text", { retries: 3 });
        assert.deepEqual([error.code, error.status], ["PROVIDER_HTTP", fixture(api, model).status]);
        assert.equal(asked(fail.key), 4);
      });
    }

    test("what will not get better is not asked for again", async () => {
      const fail = { key: `storm ${++key}`, times: 1000, model: "too-long" };
      const error = await failure(provider(api, { fail }), "text", { retries: 3 });
      assert.deepEqual([error.code, error.status, asked(fail.key)], ["PROVIDER_HTTP", 400, 1]);
    });
  });
}

test("a server that wants to be left alone for longer than the cap is not asked again", async () => {
  const fail = { key: "cap", times: 1000, model: "rate-limited" };
  const client = provider(CHAT, { fail, headers: { "retry-after": "120" } });
  const error = await failure(client, "text", { retries: 3, retryAfterCapMs: 60_000 });
  assert.deepEqual([error.status, error.retryAfterMs, asked("cap")], [429, 120_000, 1]);
});

test("an answer that breaks off after its first words is not asked for again", async () => {
  const client = provider(CHAT, { cutEvents: 3, after: "reset" });
  const from = server.requests.length;
  const error = await failure(client, "text", { retries: 3 });
  assert.ok(["NETWORK", "PROVIDER_STREAM"].includes(error.code), error.stack);
  assert.equal(server.requests.length - from, 1);
});

test("a redirect is an error: the key goes nowhere but where it was sent", async () => {
  const reached = [];
  const elsewhere = createServer((request, response) => {
    reached.push(request.headers);
    response.end();
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => elsewhere.once("listening", resolve));
  const location = `http://127.0.0.1:${elsewhere.address().port}/v1/chat/completions`;
  for (const status of [301, 302, 307, 308]) {
    const error = await failure(provider(CHAT, { status, headers: { location }, body: "moved" }), "text");
    assert.deepEqual([error.code, error.status], ["PROVIDER_HTTP", status]);
  }
  assert.deepEqual(reached, []);
  elsewhere.close();
});

describe("silence", () => {
  const cases = {
    "a head that comes a byte at a time, for ever": [{ dribble: 10 }, "firstByte"],
    "no head": [{ headersMs: 3_600_000 }, "firstByte"],
    "a head and no body": [{ firstByteMs: 3_600_000 }, "firstByte"],
    "nothing after the first words": [{ cutEvents: 2, after: "hang" }, "idle"],
    "nothing but pings after the first words": [{ cutEvents: 2, after: "ping", delayMs: 5 }, "idle"],
  };
  for (const [what, [plan, phase]] of Object.entries(cases)) {
    for (const api of APIS) {
      test(`${api}: ${what} is a TIMEOUT, and the connection is closed`, async () => {
        const error = await failure(provider(api, plan), "text", { timeouts: { [`${phase}Ms`]: 200 } });
        assert.deepEqual([error.code, error.phase], ["TIMEOUT", phase], error.stack);
        await server.requests.at(-1).closed;
      });
    }
  }
});
