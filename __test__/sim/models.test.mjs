// The loopback model APIs as the APIs' own clients see them: they decide whether the fixtures are what the real ones send.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { askOfficial, officialClient } from "./models/official.mjs";
import { APIS, eventEnds, expectations, fixture, fixtureNames, startModelApis } from "./models/server.mjs";

const OFFICIAL = APIS.filter((api) => api !== "ollama");
let server;
before(async () => {
  server = await startModelApis();
});
after(() => server.close());

const texts = (content, type, field) =>
  content
    .filter((block) => block.type === type && !block.redacted)
    .map((block) => block[field])
    .join("");
const calls = (content) =>
  content
    .filter(({ type }) => type === "toolCall")
    .map(({ id, name, arguments: args }) => ({ id, name, arguments: args }));

// What a client may make of a broken answer is its own affair; that the answer is broken is seen elsewhere.
const TOLERATED = {
  "anthropic-messages": ["refusal", "bad-arguments"],
  "openai-completions": ["filtered", "bad-arguments"],
  "openai-responses": ["filtered", "bad-arguments"],
  "google-generative-ai": ["refusal", "bad-arguments", "malformed-call", "mid-error"],
};

for (const api of OFFICIAL) {
  describe(`${api}: the official client reads the fixture`, () => {
    for (const [name, expected] of Object.entries(expectations(api))) {
      test(name, async () => {
        const seen = await askOfficial(api, { server, model: name });
        if (expected.error) {
          if (TOLERATED[api].includes(name)) return;
          assert.ok(seen.error, "the client saw no error");
          assert.match(
            seen.error.message + JSON.stringify(seen.error.error ?? ""),
            new RegExp(expected.error, "i"),
          );
          return;
        }
        // Some clients lose an event that nothing but the end of the stream ends.
        if (name === "unterminated" && seen.error) return;
        assert.equal(seen.error, undefined, seen.error?.stack);
        assert.equal(seen.text, texts(expected.content, "text", "text"));
        assert.equal(seen.thinking, texts(expected.content, "thinking", "thinking"));
        assert.deepEqual(seen.toolCalls, calls(expected.content));
        assert.deepEqual(server.requests.at(-1).error, undefined);
      });
    }

    for (const name of fixtureNames(api).filter((name) => fixture(api, name).status !== 200)) {
      test(`${name}, as an error of its status`, async () => {
        const { error } = await askOfficial(api, { server, model: name });
        assert.equal(error?.status ?? error?.code, fixture(api, name).status, error);
      });
    }

    test("a wrong key is refused", async () => {
      const { error } = await askOfficial(api, { server, model: "text", apiKey: "sk-wrong" });
      assert.ok([400, 401].includes(error.status), error);
    });

    test("models are listed", async () => {
      const client = await officialClient(api, server.url(api), server.apiKey);
      const page = await client.models.list();
      const ids = [];
      for await (const model of page) ids.push((model.id ?? model.name).replace(/^models\//, ""));
      const shared = api === "openai-responses" ? "openai-completions" : api;
      assert.deepEqual(ids, ["long", ...fixtureNames(shared)]);
    });
  });
}

describe("a plan decides how the bytes leave", () => {
  const read = async (api, model, plan) => {
    const body = {
      "openai-completions": { model, messages: [{ role: "user", content: "hi" }], stream: true },
    }[api];
    const response = await fetch(`${server.url(api, plan)}/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${server.apiKey}` },
      body: JSON.stringify(body),
    });
    const chunks = [];
    for await (const chunk of response.body) chunks.push(Buffer.from(chunk));
    return { status: response.status, body: Buffer.concat(chunks), chunks };
  };
  const api = "openai-completions";
  const whole = fixture(api, "tools").body;

  test("in small pieces, and still whole", async () => {
    const { body, chunks } = await read(api, "tools", { chunkBytes: 100 });
    assert.deepEqual(body, whole);
    assert.ok(chunks.length > 5, `${chunks.length} pieces`);
  });

  test("cut after an event", async () => {
    const { body } = await read(api, "tools", { cutEvents: 3 });
    assert.deepEqual(body, whole.subarray(0, eventEnds(api, whole)[2]));
  });

  test("reset in the middle", async () => {
    await assert.rejects(read(api, "tools", { cutBytes: 200, after: "reset", delayMs: 5 }));
  });

  test("failing first and answering then", async () => {
    const fail = { key: "first", times: 1, model: "rate-limited" };
    assert.equal((await read(api, "text", { fail })).status, 429);
    assert.equal((await read(api, "text", { fail })).status, 200);
  });

  test("with pings for ever, until the client leaves", async () => {
    const stop = new AbortController();
    const response = await fetch(
      `${server.url(api, { cutEvents: 1, after: "ping", delayMs: 1 })}/chat/completions`,
      {
        method: "POST",
        headers: { "content-type": "application/json", authorization: `Bearer ${server.apiKey}` },
        body: JSON.stringify({ model: "text", messages: [{ role: "user", content: "hi" }], stream: true }),
        signal: stop.signal,
      },
    );
    let pings = 0;
    await assert.rejects(async () => {
      for await (const chunk of response.body) {
        pings += Buffer.from(chunk).toString().split(": keep-alive").length - 1;
        if (pings > 3) stop.abort();
      }
    });
    await server.requests.at(-1).closed;
    assert.equal(server.requests.at(-1).aborted, true);
  });
});
