// The ways to a server: TLS, HTTP/2, IPv6, proxies, and bodies that are compressed.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer, request as httpRequest } from "node:http";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { nativeClient } from "../sim/models/native.mjs";
import { APIS, baseUrl, expectations, startModelApis } from "../sim/models/server.mjs";
import { longText } from "../sim/models/streams.mjs";

const CHAT = "openai-completions";
const tlsFile = (name) => fileURLToPath(new URL(`../sim/tls/${name}`, import.meta.url));
const tls = { key: readFileSync(tlsFile("server.key.pem")), cert: readFileSync(tlsFile("server.pem")) };

let server;
before(async () => {
  server = await startModelApis();
});
after(() => server.close());

function provider(api, plan, options = {}) {
  return nativeClient(api, { apiKey: server.apiKey, baseUrl: server.url(api, plan), ...options });
}

const request = (model) => ({ model, messages: [{ role: "user", content: "hello" }], maxTokens: 100 });
const ask = (client, model, options = {}) => client.complete(request(model), { retries: 0, ...options });
const failure = (...args) =>
  ask(...args).then(
    (message) => assert.fail(`it is taken for an answer: ${JSON.stringify(message)}`),
    (error) => error,
  );
const textOf = ({ content }) => content.map(({ text }) => text ?? "").join("");

describe("TLS", () => {
  let secure;
  before(async () => {
    secure = await startModelApis({
      apiKey: server.apiKey,
      tls,
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

test("a proxy is asked for the way, and no other", async (t) => {
  const through = [];
  const proxy = createServer((request, response) => {
    through.push(request.url);
    const { method, headers } = request;
    const url = request.url.replace("http://models.example", server.origin);
    request.pipe(
      httpRequest(url, { method, headers }, (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        answer.pipe(response);
      }),
    );
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => proxy.once("listening", resolve));
  const close = () => proxy.close();
  t.after(close);
  const options = {
    proxy: `http://127.0.0.1:${proxy.address().port}`,
    // Whatever is on this machine is reached directly.
    baseUrl: baseUrl("http://models.example", CHAT),
  };
  assert.equal((await ask(provider(CHAT, {}, options), "text")).stopReason, "stop");
  assert.deepEqual(through, [`${options.baseUrl}/chat/completions`]);
  close();
  const error = await failure(provider(CHAT, {}, options), "text");
  assert.equal(error.code, "NETWORK", error.stack);
});

describe("a body that is compressed", () => {
  for (const encode of ["gzip", "br", "zstd"]) {
    for (const api of APIS) {
      test(`${api}: ${encode} says the same, and says it at once`, async () => {
        const plain = await ask(provider(api, {}), "text");
        const before = server.requests.length;
        const coded = await ask(provider(api, { encode }), "text");
        assert.match(server.requests[before].headers["accept-encoding"], new RegExp(`\\b${encode}\\b`));
        assert.deepEqual(coded.content, plain.content);
        assert.deepEqual(coded.content, expectations(api).text.content);
        assert.deepEqual(coded.usage, plain.usage);
        // The rest never comes: what has come must be read without it.
        const stream = provider(api, {
          encode,
          tokens: 500,
          eventsPerWrite: 1,
          cutEvents: 60,
          after: "hang",
        });
        let text = "";
        for await (const event of stream.stream(request("long"), { retries: 0 })) {
          if (event.type !== "text_delta") continue;
          text += event.delta;
          if (text.length > 20) break;
        }
        assert.ok(longText(500).startsWith(text));
      });
    }

    test(`${encode} that breaks off is an error`, async () => {
      for (const cutEvents of [0, 1, 5, 20]) {
        const client = provider(CHAT, { encode, tokens: 50, eventsPerWrite: 1, cutEvents });
        const error = await failure(client, "long");
        assert.match(error.code, /^(NETWORK|PROVIDER_STREAM)$/, error.stack);
      }
    });
  }

  test("bytes that are not what they are said to be are an error, and so is a coding that nobody asked for", async () => {
    for (const coding of ["gzip", "br", "zstd", "deflate", "compress"]) {
      const error = await failure(provider(CHAT, { headers: { "content-encoding": coding } }), "text");
      assert.match(error.code, /^(NETWORK|PROVIDER_STREAM)$/, `${coding}: ${error.stack}`);
    }
  });

  test("an error's body is read as well", async () => {
    const error = await failure(provider(CHAT, { encode: "gzip" }), "rate-limited");
    assert.deepEqual([error.code, error.status], ["PROVIDER_HTTP", 429]);
    assert.match(error.body, /rate/i);
  });
});

describe("HTTP/2", () => {
  let secure;
  before(async () => {
    secure = await startModelApis({ apiKey: server.apiKey, tls, http2: true });
  });
  after(() => secure.close());
  const client = (api, plan) =>
    provider(api, plan, { baseUrl: secure.url(api, plan), caFile: tlsFile("ca.pem") });

  for (const api of APIS) {
    test(`${api}: every answer is the one of HTTP/1.1`, async () => {
      for (const name of Object.keys(expectations(api))) {
        const say = (client) =>
          ask(client, name).then(
            ({ content, usage, stopReason }) => ({ content, usage, stopReason }),
            ({ code, errorType }) => ({ code, errorType }),
          );
        assert.deepEqual(await say(client(api)), await say(provider(api)), name);
      }
      assert.equal(secure.requests.at(-1).httpVersion, "2.0");
    });
  }

  test("many streams share one connection, and the end of one is not that of the others", async () => {
    const before = secure.connections();
    const shared = client(CHAT, { tokens: 300, perSecond: 600, eventsPerWrite: 1 });
    assert.equal(textOf(await ask(shared, "long")), longText(300));
    assert.equal(secure.connections() - before, 1);
    const from = secure.requests.length;
    const stop = new AbortController();
    const running = Array.from({ length: 40 }, async (_, index) => {
      let text = "";
      for await (const event of shared.stream(request("long"), index % 2 ? { signal: stop.signal } : {})) {
        if (event.type === "text_delta") text += event.delta;
        if (index === 1 && text.length > 20) stop.abort();
        if (event.type === "error") return event.reason;
      }
      return text;
    });
    const outcomes = await Promise.all(running);
    for (const [index, outcome] of outcomes.entries())
      assert.equal(outcome, index % 2 ? "aborted" : longText(300), `stream ${index}`);
    assert.equal(secure.connections() - before, 1);
    const records = secure.requests.slice(from);
    await Promise.all(records.map(({ closed }) => closed));
    const whole = Math.max(...records.map(({ sentBytes }) => sentBytes));
    assert.equal(records.filter(({ sentBytes }) => sentBytes < whole).length, 20);
  });
});
