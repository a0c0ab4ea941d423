// What servers do to a client: storms of errors, redirects, silence of several kinds.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import core from "../../index.js";
import { nativeClient } from "../sim/models/native.mjs";
import { APIS, fixture, startModelApis } from "../sim/models/server.mjs";

const CHAT = "openai-completions";

let server;
before(async () => {
  server = await startModelApis();
});
after(() => server.close());

function provider(api, plan, options = {}) {
  return nativeClient(api, { apiKey: server.apiKey, baseUrl: server.url(api, plan), ...options });
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

describe("what was sent as a secret", () => {
  const secrets = {
    apiKey: "plain-looking-key-of-mine",
    client: "words-of-the-client",
    call: "words-of-the-call",
  };
  const said = Object.values(secrets).join(" and ");
  const answers = {
    "an error status": { status: 401, body: JSON.stringify({ error: { message: said, type: said } }) },
    "an error that is no JSON": { status: 500, body: said },
    "an error within the stream": {
      body: `data: ${JSON.stringify({ choices: [{ delta: { content: "x" } }] })}\n\ndata: ${JSON.stringify({ error: { message: said, type: said } })}\n\n`,
    },
    "an error in place of a stream": {
      contentType: "application/json",
      body: JSON.stringify({ error: { message: said } }),
    },
  };
  for (const [what, { status = 200, contentType = "text/event-stream", body }] of Object.entries(answers)) {
    test(`${what} does not bring it back`, async () => {
      const far = createServer((request, response) => {
        assert.equal(request.headers.authorization, `Bearer ${secrets.apiKey}`);
        assert.equal(request.headers["x-gateway"], secrets.client);
        assert.equal(request.headers["x-tenant"], secrets.call);
        response.writeHead(status, { "content-type": contentType }).end(body);
      }).listen(0, "127.0.0.1");
      await new Promise((resolve) => far.once("listening", resolve));
      const client = new core.OpenAiProvider({
        apiKey: secrets.apiKey,
        baseUrl: `http://127.0.0.1:${far.address().port}/v1`,
        headers: { "x-gateway": secrets.client },
      });
      const request = { model: "m", messages: [{ role: "user", content: "hello" }] };
      const stream = client.stream(request, { retries: 0, headers: { "x-tenant": secrets.call } });
      let last;
      for await (const event of stream) last = event;
      far.close();
      assert.equal(last.type, "error");
      const { cause } = last;
      const told = [cause.stack, cause.body, cause.errorType, JSON.stringify(last.error)].join("\n");
      assert.match(told, /\[REDACTED\]/);
      for (const secret of Object.values(secrets)) assert.ok(!told.includes(secret), told);
    });
  }
});

describe("failover with auth profiles", () => {
  let dir;
  let profiles;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "failover-"));
    const store = await core.CredentialStore.open(join(dir, "store"), { keyFile: join(dir, "key") });
    profiles = await core.AuthProfiles.open(store);
    for (const id of ["one", "two"])
      await profiles.add({ id, provider: "openai", type: "api_key" }, { apiKey: `sk-of-${id}-0123456789` });
  });
  after(() => rmSync(dir, { recursive: true, force: true }));
  const candidates = (plans) =>
    plans.map((plan, at) => ({
      provider: provider(CHAT, plan, { id: `p${at}` }),
      model: "text",
      profileId: ["one", "two"][at],
    }));
  const request = { model: "any", messages: [{ role: "user", content: "hello" }] };

  test("a profile that is out of credit is left alone by every FailoverProvider that is made later", async () => {
    const fail = { key: "billing", times: 1000, model: "rate-limited" };
    const broke = { fail, status: 402 };
    const first = new core.FailoverProvider(candidates([broke, {}]), { profiles });
    const message = await first.complete(request, { retries: 0 });
    assert.deepEqual([message.provider, message.attempts.map(({ reason }) => reason)], ["p1", ["billing"]]);
    assert.equal(asked("billing"), 1);
    const until = message.attempts[0].cooldownUntilMs;
    const second = new core.FailoverProvider(candidates([broke, {}]), { profiles });
    const again = await second.complete(request, { retries: 0 });
    assert.deepEqual(
      again.attempts.map(({ reason }) => reason),
      ["cooldown"],
    );
    assert.ok(Math.abs(again.attempts[0].cooldownUntilMs - until) < 60_000);
    assert.equal(asked("billing"), 1);
    // What is known to work again is asked again.
    await profiles.markSuccess("one");
    const third = new core.FailoverProvider(candidates([{}, {}]), { profiles });
    assert.equal((await third.complete(request, { retries: 0 })).provider, "p0");
  });
});

test("one total holds for all candidates of a failover", async () => {
  const hanging = () => ({ provider: provider(CHAT, { headersMs: 3_600_000 }), model: "text" });
  const from = server.requests.length;
  const failover = new core.FailoverProvider([hanging(), hanging(), hanging()]);
  const request = { model: "any", messages: [{ role: "user", content: "hello" }] };
  const error = await failover.complete(request, { retries: 0, timeouts: { totalMs: 200 } }).catch((e) => e);
  assert.deepEqual([error.code, error.phase], ["TIMEOUT", "total"]);
  assert.equal(server.requests.length - from, 1);
});

test("a line of more than 16 MiB is a LIMIT, and one a little shorter is read whole", async () => {
  const text = (bytes) =>
    `data: ${JSON.stringify({ choices: [{ delta: { content: "x".repeat(bytes) } }] })}\n\n`;
  const end = `data: ${JSON.stringify({ choices: [{ delta: {}, finish_reason: "stop" }] })}\n\ndata: [DONE]\n\n`;
  let body = text((16 << 20) - 100) + end;
  const far = createServer((_, response) =>
    response.writeHead(200, { "content-type": "text/event-stream" }).end(body),
  ).listen(0, "127.0.0.1");
  await new Promise((resolve) => far.once("listening", resolve));
  const client = new core.OpenAiProvider({ baseUrl: `http://127.0.0.1:${far.address().port}/v1` });
  const message = await ask(client, "m");
  assert.equal(message.content[0].text.length, (16 << 20) - 100);
  body = text(16 << 20) + end;
  assert.equal((await failure(client, "m")).code, "LIMIT");
  far.close();
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
