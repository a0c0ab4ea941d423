// The providers module inside stock OpenClaw: the same transcripts with it and without it, on every transport.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { startModelApis } from "../sim/models/server.mjs";
import { createHome, until } from "./fixture.mjs";
import { counted, modelProvider, moduleStats, transcript, turnConfig } from "./model-turn.mjs";

const TRANSPORTS = {
  "anthropic-messages": "createAnthropicMessagesTransportStreamFn",
  "openai-completions": "createOpenAICompletionsTransportStreamFn",
  "openai-responses": "createOpenAIResponsesTransportStreamFn",
  "google-generative-ai": "createGoogleTransportStreamFn",
};

let server;
let runs = 0;
before(async () => {
  server = await startModelApis();
});
after(() => server.close());

/** A turn in a home of its own: the model asks for tools first, then thinks and answers. */
async function turn(t, api, core, { model = "thinking", plan = {}, first = "tools", args = [] } = {}) {
  const home = await createHome();
  t.after(() => home.remove());
  const fail = first && { key: `turn-${++runs}`, times: 1, model: first };
  // OpenClaw's Gemini transport is that of its Google plugin, which serves the provider of that name.
  const id = api === "google-generative-ai" ? "google" : "loopback";
  const providers = { [id]: modelProvider(server, api, { ...plan, ...(fail && { fail }) }, [model]) };
  await home.write("openclaw.json", turnConfig(home, { primary: `${id}/${model}`, providers }));
  const statsDir = join(home.dir, "stats");
  const from = server.requests.length;
  const run = await home.openclaw(
    ["agent", "--local", "--agent", "main", "--message", "hello", "--json", ...args],
    { core: core && { ...core, statsDir } },
  );
  const requests = server.requests.slice(from);
  return {
    ...run,
    home,
    requests,
    messages: transcript(home),
    modules: moduleStats(statsDir, "providers"),
    bodies: requests.map(({ body }) => JSON.stringify(body)?.replaceAll(home.dir, "<home>")),
  };
}

describe("providers in stock OpenClaw", () => {
  for (const [api, name] of Object.entries(TRANSPORTS)) {
    test(`${api}: tools, results and thinking leave the same transcript, read natively and in the shadow`, async (t) => {
      const stock = await turn(t, api);
      assert.equal(stock.code, 0, stock.stderr);
      assert.ok(stock.requests.length >= 2, "the results of the tools went back to the model");
      const kinds = stock.messages.flatMap(({ content }) =>
        Array.isArray(content) ? content.map(({ type }) => type) : [],
      );
      for (const kind of ["text", "toolCall", "thinking"])
        assert.ok(kinds.includes(kind), `${kind}: ${kinds}`);

      // In pieces that cut characters and lines.
      const native = await turn(t, api, { mode: "require" }, { plan: { chunkBytes: 7 } });
      assert.equal(native.code, 0, native.stderr);
      assert.deepEqual(native.messages, stock.messages);
      const sums = counted(native.modules, name);
      assert.equal(sums.native, native.requests.length, JSON.stringify(sums));
      assert.equal(sums.original, 0);
      assert.ok(sums.bytes > 1000);

      const shadow = await turn(t, api, { mode: "auto", modules: { providers: "shadow" } });
      assert.equal(shadow.code, 0, shadow.stderr);
      assert.deepEqual(shadow.messages, stock.messages);
      const compared = shadow.modules.flatMap((module) => module.shadow ?? []);
      assert.equal(
        compared.reduce((sum, counts) => sum + counts.compared, 0),
        shadow.requests.length,
        JSON.stringify(shadow.modules),
      );
      assert.deepEqual(
        compared.filter(({ differences }) => differences > 0),
        [],
        report(shadow.home),
      );
    });
  }

  test("a 529 of the first provider is answered by the next one, as in stock", async (t) => {
    const overloaded = async (core) => {
      const home = await createHome();
      t.after(() => home.remove());
      const providers = {
        first: modelProvider(server, "anthropic-messages", {}, ["overloaded"]),
        second: modelProvider(server, "anthropic-messages", {}, ["text"]),
      };
      const config = { primary: "first/overloaded", fallbacks: ["second/text"], providers };
      await home.write("openclaw.json", turnConfig(home, config));
      const statsDir = join(home.dir, "stats");
      const run = await home.openclaw(
        ["agent", "--local", "--agent", "main", "--message", "hello", "--json"],
        { core: core && { ...core, statsDir } },
      );
      assert.equal(run.code, 0, run.stderr);
      return { messages: transcript(home), modules: moduleStats(statsDir, "providers") };
    };
    const stock = await overloaded();
    const native = await overloaded({ mode: "require" });
    assert.deepEqual(native.messages, stock.messages);
    assert.equal(native.messages.at(-1).provider, "second");
    const { calls, native: answered } = counted(native.modules, TRANSPORTS["anthropic-messages"]);
    assert.ok(
      calls > answered && answered === 1,
      "one call was answered, and the ones before it were refused",
    );
  });

  test("/stop ends an answer that is under way, and its connection", async (t) => {
    const home = await createHome();
    t.after(() => home.remove());
    const plan = { cutEvents: 5, after: "hang" };
    const providers = { loopback: modelProvider(server, "anthropic-messages", plan, ["text"]) };
    await home.write("openclaw.json", turnConfig(home, { primary: "loopback/text", providers }));
    const gateway = await home.startGateway({ core: { mode: "require" } });
    const from = server.requests.length;
    const send = (message, key) =>
      home.openclaw([
        ...["gateway", "call", "chat.send", "--json", "--token", home.token, "--params"],
        JSON.stringify({ sessionKey: "agent:main:main", message, idempotencyKey: key }),
      ]);
    const begun = await send("hello", "run-1");
    assert.equal(begun.code, 0, begun.stderr);
    const request = await until(() => server.requests[from], {
      timeoutMs: 60_000,
      timeoutMessage: () => gateway.log(),
    });
    // Some of the answer is there before it is stopped.
    await until(() => request.sentBytes > 0, { timeoutMessage: "nothing was sent" });
    const stopped = await send("/stop", "run-2");
    assert.equal(stopped.code, 0, stopped.stderr);
    await request.closed;
    assert.equal(request.aborted, true);
    await gateway.stop();
    const last = transcript(home)
      .filter(({ role }) => role === "assistant")
      .at(-1);
    assert.ok(!last || last.stopReason !== "stop", JSON.stringify(last));
  });
});

function report(home) {
  try {
    return readFileSync(join(home.stateDir, "openclaw-core/shadow-providers.jsonl"), "utf8");
  } catch {
    return "no report";
  }
}
