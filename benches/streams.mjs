// One answer read to its end by each contender, and what that takes: for the bench, and for processes of its own.
//
//   node --expose-gc streams.mjs CONTENDER API ORIGIN KEY COUNT
//
// opens COUNT streams that have said something and now are silent, and prints the bytes that each holds.
import { fileURLToPath } from "node:url";
import { nativeClient } from "../__test__/sim/models/native.mjs";
import { officialClient } from "../__test__/sim/models/official.mjs";
import { baseUrl } from "../__test__/sim/models/server.mjs";

const user = [{ role: "user", content: "hello" }];
const model = "long";

// Each gives an async iterable of events for a signal, and the text of one of them.
const official = {
  "anthropic-messages": {
    open: (client, signal) =>
      client.messages.create({ model, max_tokens: 1024, messages: user, stream: true }, { signal }),
    text: (event) => (event.type === "content_block_delta" ? event.delta.text : undefined),
  },
  "openai-completions": {
    open: (client, signal) =>
      client.chat.completions.create(
        { model, messages: user, stream: true, stream_options: { include_usage: true } },
        { signal },
      ),
    text: (chunk) => chunk.choices[0]?.delta.content,
  },
  "openai-responses": {
    open: (client, signal) => client.responses.create({ model, input: "hello", stream: true }, { signal }),
    text: (event) => (event.type === "response.output_text.delta" ? event.delta : undefined),
  },
  "google-generative-ai": {
    open: (client, signal) =>
      client.models.generateContentStream({ model, contents: "hello", config: { abortSignal: signal } }),
    text: (chunk) => chunk.candidates?.[0]?.content?.parts?.[0]?.text,
  },
};

/** What reads streams of an API: `core`, or the API's own client. Made once, used for many calls, as programs do. */
export async function reader(contender, api, { origin, apiKey }, plan) {
  const url = baseUrl(origin, api, plan);
  if (contender === "core") {
    const provider = nativeClient(api, { apiKey, baseUrl: url });
    const request = { model, messages: user, maxTokens: 1024 };
    return {
      open: async (signal) => provider.stream(request, { retries: 0, signal }),
      text: (event) => (event.type === "text_delta" ? event.delta : undefined),
      failed: (event) => (event.type === "error" ? event.cause : undefined),
    };
  }
  const client = await officialClient(api, url, apiKey);
  const { open, text } = official[api];
  return { open: async (signal) => open(client, signal), text, failed: () => undefined };
}

/** Reads one answer to its end. Gives its text and the milliseconds to the first of it; `seen` is called at each delta. */
export async function readAll({ open, text, failed }, seen) {
  const start = performance.now();
  let firstMs;
  let whole = "";
  for await (const event of await open()) {
    const delta = text(event);
    if (delta) {
      seen?.();
      firstMs ??= performance.now() - start;
      whole += delta;
    }
    const error = failed(event);
    if (error) throw error;
  }
  return { text: whole, firstMs };
}

async function memory(contender, api, server, count) {
  const plan = { tokens: 200, cutEvents: 100, eventsPerWrite: 1, after: "hang" };
  const stop = new AbortController();
  const contents = await reader(contender, api, server, plan);
  // Until it is as silent as it will be: the hundredth event has come.
  const upToSilence = async () => {
    const events = (await contents.open(stop.signal))[Symbol.asyncIterator]();
    let deltas = 0;
    while (deltas < 90) {
      const { value, done } = await events.next();
      if (done) throw new Error("the stream ended early");
      if (contents.failed(value)) throw contents.failed(value);
      if (contents.text(value)) deltas++;
    }
    return events;
  };
  const settle = async () => {
    for (let turn = 0; turn < 5; turn++) {
      globalThis.gc();
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return process.memoryUsage().rss;
  };
  const held = await Promise.all(Array.from({ length: 20 }, upToSilence));
  const before = await settle();
  held.push(...(await Promise.all(Array.from({ length: count }, upToSilence))));
  const after = await settle();
  console.log(JSON.stringify({ bytesPerStream: (after - before) / count, held: held.length }));
  stop.abort();
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [contender, api, origin, apiKey, count] = process.argv.slice(2);
  await memory(contender, api, { origin, apiKey }, Number(count));
  process.exit();
}
