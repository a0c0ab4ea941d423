// The providers module inside stock OpenClaw: the same transcripts with it and without it, on every transport.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { expectations, startModelApis } from "../sim/models/server.mjs";
import { createHome } from "./fixture.mjs";
import { counted, level, modelProvider, moduleStats, transcript, turnConfig } from "./model-turn.mjs";
import { askTransports } from "./transport-probe.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));

const TRANSPORTS = {
  "anthropic-messages": "createAnthropicMessagesTransportStreamFn",
  "openai-completions": "createOpenAICompletionsTransportStreamFn",
  "openai-responses": "createOpenAIResponsesTransportStreamFn",
  "google-generative-ai": "createGoogleTransportStreamFn",
};

/** OpenClaw's runner asks again for a minute or two, unless it is told that it would be in vain. */
const BUSY = { headers: { "retry-after": "3600" } };

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

/** Where OpenClaw's own reading of bytes falls short, and the relay's does not. */
const STOCK_FAILS = new Set([
  // An event whose data is in several lines, or whose lines end with CR, is lost.
  "anthropic-messages/quirks",
  // The last event is lost if the stream ends without a blank line.
  "openai-responses/unterminated",
  "google-generative-ai/unterminated",
]);
/** Where native code makes another message of the same bytes than OpenClaw does: what the shadow is there to say. */
const SHADOW_DIFFERS = new Set([
  ...STOCK_FAILS,
  // OpenClaw joins thoughts that native code keeps apart by their signatures.
  "google-generative-ai/thinking",
  // OpenClaw hands on a call whose arguments are no object.
  "google-generative-ai/bad-arguments",
]);

describe("OpenClaw's own transports, by every recorded answer", () => {
  let home;
  before(async () => {
    home = await createHome({ config: "{}" });
  });
  after(() => home?.remove());

  const jobs = (plan) =>
    Object.keys(TRANSPORTS).flatMap((api) =>
      Object.keys(expectations(api)).map((id) => ({
        name: `${api}/${id}`,
        ...{ api, id, baseUrl: server.url(api, plan), apiKey: server.apiKey },
      })),
    );
  const messages = ({ results }) => results.map(({ message }) => level(message, home));

  for (const [words, plan] of Object.entries({
    "in one piece": {},
    "in pieces of 7 bytes": { chunkBytes: 7 },
    "an event a write": { eventsPerWrite: 1 },
  })) {
    test(`${words}: the same messages with the core as without it`, async () => {
      const asked = jobs(plan);
      const stock = messages(await askTransports(home, asked));
      const statsDir = join(home.dir, `stats-${words.length}`);
      const env = { OPENCLAW_CORE: "require", OPENCLAW_CORE_STATS_DIR: statsDir };
      const native = messages(await askTransports(home, asked, { core: root, env }));
      for (const [index, { name }] of asked.entries()) {
        // A difference that is gone is one that need not be listed.
        if (STOCK_FAILS.has(name)) assert.notDeepEqual(native[index], stock[index], name);
        else assert.deepEqual(native[index], stock[index], name);
      }
      const modules = moduleStats(statsDir, "providers");
      const sums = Object.values(TRANSPORTS).map((name) => counted(modules, name));
      assert.equal(
        sums.reduce((sum, { native }) => sum + native, 0),
        asked.length,
        JSON.stringify(sums),
      );
    });
  }

  test("the shadow changes nothing, and tells of the answers that native code reads in another way", async () => {
    const asked = jobs({});
    const stock = messages(await askTransports(home, asked));
    const reports = join(home.dir, "reports");
    const env = { OPENCLAW_CORE_PROVIDERS: "shadow", OPENCLAW_CORE_REPORT_DIR: reports };
    assert.deepEqual(messages(await askTransports(home, asked, { core: root, env })), stock);
    const lines = readFileSync(join(reports, "shadow-providers.jsonl"), "utf8").trim().split("\n");
    const told = lines.map((line) => JSON.parse(line));
    const summary = told.find(({ kind }) => kind === "summary");
    assert.deepEqual(
      { compared: summary.compared, differences: summary.differences, dropped: summary.dropped },
      { compared: asked.length, differences: SHADOW_DIFFERS.size, dropped: 0 },
      lines.join("\n"),
    );
    // The report says where, not what.
    for (const words of ["world", "Grüße", "世界", "toolu_01A"])
      assert.ok(!lines.join().includes(words), words);
  });

  test("an abort within an answer ends it, and its connection", async () => {
    const from = server.requests.length;
    const plan = { tokens: 2000, eventsPerWrite: 1, perSecond: 200 };
    const asked = Object.keys(TRANSPORTS).map((api) => ({
      ...{ api, id: "long", baseUrl: server.url(api, plan), apiKey: server.apiKey, stopAfter: 5 },
    }));
    const env = { OPENCLAW_CORE: "require" };
    for (const message of messages(await askTransports(home, asked, { core: root, env }))) {
      assert.equal(message.stopReason, "aborted");
    }
    const requests = server.requests.slice(from);
    assert.equal(requests.length, asked.length);
    for (const request of requests) {
      await request.closed;
      assert.equal(request.aborted, true);
    }
  });
});

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
      // OpenClaw joins Gemini's thoughts, which native code keeps apart by their signatures.
      const differences = compared.reduce((sum, counts) => sum + counts.differences, 0);
      assert.equal(differences, api === "google-generative-ai" ? 1 : 0, report(shadow.home));
    });
  }

  test("a 529 of the first provider is answered by the next one, as in stock", async (t) => {
    const overloaded = async (core) => {
      const home = await createHome();
      t.after(() => home.remove());
      const providers = {
        first: modelProvider(server, "anthropic-messages", BUSY, ["overloaded"]),
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
});

function report(home) {
  try {
    return readFileSync(join(home.stateDir, "openclaw-core/shadow-providers.jsonl"), "utf8");
  } catch {
    return "no report";
  }
}
