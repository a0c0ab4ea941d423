// What stands between OpenClaw's connection to a model and OpenClaw's readers, where a connection or a caller misbehaves.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";
import { providerReplacements } from "../../dist/adapters/providers.js";

const core = createRequire(import.meta.url)("../../index.js");
const NAME = "createOpenAICompletionsTransportStreamFn";
const delta = (content, more) =>
  `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content }, finish_reason: null }], ...more })}\n\n`;

/** The module, in a mode, with what the shadow was asked to compare. */
function replacements(mode) {
  const observed = [];
  const runtime = {
    mode,
    addon: () => core,
    begin: () => ({ calls: 1, native: 0, original: 0, bytes: 0 }),
    shadow: { observe: (...args) => observed.push(args) },
  };
  return { observed, ...providerReplacements(runtime) };
}

/** A response whose body is these pieces, each when it is asked for, and then the error. */
function response(pieces, error) {
  const left = [...pieces];
  const body = new ReadableStream(
    {
      pull(controller) {
        const piece = left.shift();
        if (piece !== undefined) controller.enqueue(Buffer.from(piece));
        else if (error) controller.error(error);
        else controller.close();
      },
    },
    { highWaterMark: 0 },
  );
  return new Response(body, { headers: { "content-type": "text/event-stream" } });
}

function relayed({ shouldSanitizeOpenAISdkSseResponse: ask, sanitizeOpenAISdkSseResponse: sanitize }, from) {
  // OpenClaw asks whether it must clean the stream, and does so at once.
  ask(() => false)({});
  return sanitize((untouched) => untouched)(from);
}

/** The words that came, and what ended them. */
async function read(from) {
  let text = "";
  try {
    for await (const chunk of from.body) text += Buffer.from(chunk).toString();
  } catch (error) {
    return { text, error };
  }
  return { text };
}

const words = (text) =>
  [...text.matchAll(/^data: (\{.*)$/gm)]
    .map(([, json]) => JSON.parse(json).choices[0].delta.content)
    .join(" ");

test("what came within a beat before the connection broke is read before the error", async () => {
  const reset = new Error("reset");
  const pieces = [delta("one"), delta("two"), delta("three")];
  const stock = await read(response(pieces, reset));
  assert.deepEqual([words(stock.text), stock.error], ["one two three", reset]);
  const native = await read(relayed(replacements("auto"), response(pieces, reset)));
  assert.deepEqual([words(native.text).replaceAll(/\s/g, ""), native.error], ["onetwothree", reset]);
  // A line that the relay refuses is such an error as well.
  const long = await read(
    relayed(replacements("auto"), response([delta("one"), delta("two"), "data: x".padEnd(17 << 20, "x")])),
  );
  assert.deepEqual([words(long.text).replaceAll(/\s/g, ""), long.error.code], ["onetwo", "LIMIT"]);
});

test("OpenAI's padding does not keep the relay from joining what it says", async () => {
  const pieces = Array.from({ length: 50 }, (_, at) => delta(`w${at}`, { obfuscation: "x".repeat(at % 7) }));
  const { text } = await read(relayed(replacements("auto"), response([pieces.join(""), "data: [DONE]\n\n"])));
  assert.equal(text.match(/^data: \{/gm).length, 1);
  assert.equal(words(text), pieces.map((_, at) => `w${at}`).join(""));
});

/** A call of a transport in shadow mode; `give` makes of the stream what the transport returns. */
async function shadowed(pieces, give) {
  const module = replacements("shadow");
  const transport = module[NAME](() => () => {
    const reading = read(relayed(module, response(pieces)));
    const result = async () => {
      await reading;
      return { content: [{ type: "text", text: "hello" }], stopReason: "stop" };
    };
    return give({ result });
  });
  const stream = await transport()({ provider: "p", id: "m" }, {}, {});
  await stream.result?.().catch(() => {});
  await new Promise(setImmediate);
  return module.observed.length;
}

test("the shadow compares whole answers only, and harms no caller of a stream that is none", async () => {
  const answer = [delta("hello"), "data: [DONE]\n\n"];
  assert.equal(await shadowed(answer, (stream) => stream), 1);
  assert.equal(await shadowed(answer, async (stream) => stream), 1);
  const unhandled = [];
  const note = (error) => unhandled.push(error);
  process.on("unhandledRejection", note);
  try {
    assert.equal(await shadowed(answer, () => ({})), 0);
    assert.equal(await shadowed(answer, () => ({ result: () => Promise.reject(new Error("x")) })), 0);
    await new Promise((resolve) => setTimeout(resolve, 0));
    assert.deepEqual(unhandled, []);
  } finally {
    process.off("unhandledRejection", note);
  }
  // What is too long to keep says nothing about the whole.
  const long = Array.from({ length: 9 }, () => delta("x".repeat(1 << 20)));
  assert.equal(await shadowed([...long, ...answer], (stream) => stream), 0);
});
