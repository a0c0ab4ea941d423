// What servers do to a client: storms of errors, redirects, silence of several kinds, other people's certificates.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer, request as httpRequest } from "node:http";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import core from "../../index.js";
import { APIS, baseUrl, fixture, startModelApis } from "../sim/models/server.mjs";

const CLASSES = {
  "anthropic-messages": "AnthropicProvider",
  "openai-completions": "OpenAiProvider",
  "openai-responses": "OpenAiResponsesProvider",
  "google-generative-ai": "GeminiProvider",
  ollama: "OllamaProvider",
};
const CHAT = "openai-completions";
const tlsFile = (name) => fileURLToPath(new URL(`../sim/tls/${name}`, import.meta.url));

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

describe("TLS", () => {
  let secure;
  before(async () => {
    secure = await startModelApis({
      apiKey: server.apiKey,
      tls: { key: readFileSync(tlsFile("server.key.pem")), cert: readFileSync(tlsFile("server.pem")) },
    });
  });
  after(() => secure.close());

  test("a certificate that nobody vouches for is refused, and nothing is sent", async () => {
    const error = await failure(provider(CHAT, {}, { baseUrl: secure.url(CHAT) }), "text");
    assert.equal(error.code, "NETWORK", error.stack);
    assert.match(error.message, /certificate/i);
    assert.equal(secure.requests.length, 0);
  });

  test("an authority of one's own is taken from caFile", async () => {
    const client = provider(CHAT, {}, { baseUrl: secure.url(CHAT), caFile: tlsFile("ca.pem") });
    assert.equal((await ask(client, "text")).stopReason, "stop");
  });
});

test("a server on IPv6 is reached", async (t) => {
  let six;
  try {
    six = await startModelApis({ host: "::1", apiKey: server.apiKey });
  } catch (error) {
    return t.skip(`there is no IPv6 here: ${error.message}`);
  }
  const client = provider(CHAT, {}, { baseUrl: six.url(CHAT) });
  assert.equal((await ask(client, "text")).stopReason, "stop");
  await six.close();
});

test("a proxy is asked for the way, and no other", async () => {
  const through = [];
  const proxy = createServer((request, response) => {
    through.push(request.url);
    const { method, headers } = request;
    request.pipe(
      httpRequest(request.url, { method, headers }, (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        answer.pipe(response);
      }),
    );
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => proxy.once("listening", resolve));
  const url = `http://127.0.0.1:${proxy.address().port}`;
  assert.equal((await ask(provider(CHAT, {}, { proxy: url }), "text")).stopReason, "stop");
  assert.deepEqual(through, [`${baseUrl(server.origin, CHAT)}/chat/completions`]);
  proxy.close();
  const error = await failure(provider(CHAT, {}, { proxy: url }), "text");
  assert.equal(error.code, "NETWORK", error.stack);
});
