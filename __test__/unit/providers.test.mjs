// The provider classes as JavaScript sees them: events, messages, hooks, aborts, back-pressure, errors.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import { connect, createServer as createTcpServer } from "node:net";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { AnthropicProvider, ApiKey, FailoverProvider, Provider } from "../../index.js";
import { nativeClient } from "../sim/models/native.mjs";
import { APIS, expectations, startModelApis } from "../sim/models/server.mjs";

const ask = (model, more) => ({ model, messages: [{ role: "user", content: "Hi" }], ...more });

let server;
before(async () => {
  server = await startModelApis();
});
after(() => server.close());

function make(api, plan, more) {
  return nativeClient(api, { apiKey: server.apiKey, baseUrl: server.url(api, plan), proxy: "", ...more });
}

const anthropic = (plan, more) => make("anthropic-messages", plan, more);

async function collect(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

/** The request that the server saw last. */
const last = () => server.requests.at(-1);

for (const api of APIS) {
  test(`${api}: what the events tell piece by piece is what the message says`, async () => {
    for (const name of ["text", "thinking", "tools", "parallel"]) {
      const events = await collect(make(api, { chunkBytes: 7 }).stream(ask(name)));
      const { message } = events.at(-1);
      assert.equal(events.at(-1).type, "done", `${name}: ${events.at(-1).cause}`);
      assert.equal(events[0].type, "start");
      const told = [];
      for (const event of events) {
        const block = event.contentIndex;
        if (event.type.endsWith("_start")) told[block] = { type: event.type, text: "" };
        else if (event.type.endsWith("_delta")) told[block].text += event.delta;
        else if (event.type === "toolcall_end") assert.deepEqual(event.toolCall, message.content[block]);
        else if (event.type.endsWith("_end")) assert.equal(event.content, told[block].text || event.content);
      }
      assert.equal(told.length, message.content.length);
      for (const [index, block] of message.content.entries()) {
        if (block.type === "text") assert.equal(told[index].text, block.text);
        else if (block.type === "thinking" && !block.redacted) assert.equal(told[index].text, block.thinking);
        else if (block.type === "toolCall" && told[index].text)
          assert.deepEqual(JSON.parse(told[index].text), block.arguments);
      }
      // The message that grew along the way came to the same.
      const { partial } = events[1];
      assert.deepEqual(partial.content, message.content);
      assert.deepEqual([partial.api, partial.model, partial.role], [api, name, "assistant"]);
      assert.deepEqual(message.content, expectations(api)[name].content);
    }
  });

  test(`${api}: an answer that breaks off is an error with what came until then, never a message`, async () => {
    const provider = make(api, { cutEvents: 1, fixture: "text" });
    const events = await collect(provider.stream(ask("text")));
    const end = events.at(-1);
    assert.deepEqual([end.type, end.reason, end.cause.code], ["error", "error", "PROVIDER_STREAM"]);
    assert.equal(end.error.stopReason, "error");
    assert.equal(end.error.errorMessage, end.cause.message);
    await assert.rejects(provider.complete(ask("text")), { code: "PROVIDER_STREAM" });
    assert.deepEqual([provider.usage().requests, provider.usage().failures], [2, 2]);
  });
}

test("partial grows with what was read, not with what has arrived", async () => {
  const stream = anthropic().stream(ask("text"));
  let text = "";
  for await (const event of stream) {
    if (event.type !== "text_delta") continue;
    text += event.delta;
    assert.equal(event.partial.content[0].text, text);
  }
});

test("result gives the message to whoever does not read, and leaves the events to whoever does later", async () => {
  const stream = anthropic().stream(ask("text"));
  const message = await stream.result();
  assert.equal(message.stopReason, "stop");
  const events = await collect(stream);
  assert.equal(events[0].type, "start");
  assert.deepEqual(events.at(-1).message, message);
  assert.deepEqual(await collect(stream), []);
  // After a failure as well, it does not reject.
  const failed = await anthropic().stream(ask("too-long")).result();
  assert.equal(failed.stopReason, "error");
  assert.match(failed.errorMessage, /^anthropic answered 400 Bad Request: invalid_request_error: /);
});

test("calls of next that are not waited for are answered in order", async () => {
  const stream = anthropic({ delayMs: 5, eventsPerWrite: 1 }).stream(ask("text"));
  const results = await Promise.all(Array.from({ length: 30 }, () => stream.next()));
  const types = results.filter((result) => !result.done).map((result) => result.value.type);
  assert.equal(types[0], "start");
  assert.equal(types.at(-1), "done");
  assert.deepEqual(
    results.map((result) => result.done),
    results.map((_, index) => index >= types.length),
  );
});

test("an abort ends the stream with its reason, closes the connection, and no other event follows", async () => {
  const reason = new Error("enough");
  const controller = new AbortController();
  const stream = anthropic({ tokens: 100_000, perSecond: 500 }).stream(ask("long"), {
    signal: controller.signal,
  });
  const events = [];
  let aborted = false;
  for await (const event of stream) {
    events.push(event);
    if (aborted) assert.equal(event.type, "error");
    if (event.type === "text_delta" && !aborted) {
      aborted = true;
      controller.abort(reason);
    }
  }
  const end = events.at(-1);
  assert.deepEqual([end.reason, end.cause, end.error.stopReason], ["aborted", reason, "aborted"]);
  await last().closed;
  assert.equal(last().aborted, true);
  // So does a signal that has fired already, and one that fires while nothing has come.
  for (const [plan, fire] of [
    [{}, () => AbortSignal.abort("why")],
    [{ headersMs: 60_000 }, () => AbortSignal.timeout(20)],
    [{ firstByteMs: 60_000 }, () => AbortSignal.timeout(20)],
  ]) {
    const signal = fire();
    const [end, ...more] = await collect(anthropic(plan).stream(ask("text"), { signal }));
    assert.deepEqual([end.type, end.reason, end.cause, more], ["error", "aborted", signal.reason, []]);
  }
  const signal = AbortSignal.timeout(20);
  await assert.rejects(anthropic({ headersMs: 60_000 }).complete(ask("text"), { signal }), (error) => {
    assert.equal(error, signal.reason);
    return true;
  });
  await assert.rejects(
    anthropic().listModels({ signal: AbortSignal.abort("no") }),
    (error) => error === "no",
  );
});

test("an abort is the end of what has come as well, if nobody has read it yet", async () => {
  const aborted = (controller, more) => [["error", "aborted", controller.signal.reason, "aborted"], ...more];
  const rest = async (stream) =>
    (await collect(stream)).map(({ type, reason, cause, error }) => [type, reason, cause, error?.stopReason]);
  // All of it has crossed, and the reader is at its first words.
  const controller = new AbortController();
  let stream = anthropic().stream(ask("tools"), { signal: controller.signal });
  for (;;) {
    const { value } = await stream.next();
    if (value.type === "text_delta") break;
  }
  await last().closed;
  controller.abort();
  assert.deepEqual(await rest(stream), aborted(controller, []));
  const message = await stream.result();
  assert.equal(message.stopReason, "aborted");
  // Nobody has seen the end of the calls, so they are not made.
  assert.deepEqual(
    message.content.map(({ type }) => type),
    ["text"],
  );
  // The message is known, and nothing was read.
  const late = new AbortController();
  stream = anthropic().stream(ask("text"), { signal: late.signal });
  assert.equal((await stream.result()).stopReason, "stop");
  late.abort();
  assert.deepEqual(await rest(stream), aborted(late, []));
  // Nothing was read at all: no hook is called.
  const early = new AbortController();
  const heads = [];
  const onResponse = ({ status }) => heads.push(status);
  const before = server.requests.length;
  stream = anthropic().stream(ask("text"), { signal: early.signal, onResponse });
  while (server.requests.length === before) await new Promise(setImmediate);
  await last().closed;
  early.abort();
  assert.deepEqual([await rest(stream), heads], [aborted(early, []), []]);
});

test("an abort ends the handshake of TLS, and a request that is on its way", async () => {
  const messages = [{ role: "user", content: "x".repeat(8 << 20) }];
  for (const scheme of ["https", "http"]) {
    // It accepts, and reads nothing.
    const mute = createTcpServer({ pauseOnConnect: true }).listen(0, "127.0.0.1");
    await once(mute, "listening");
    const baseUrl = `${scheme}://127.0.0.1:${mute.address().port}`;
    const controller = new AbortController();
    const { signal } = controller;
    const provider = new AnthropicProvider({ apiKey: "k", baseUrl, proxy: "" });
    const events = collect(provider.stream(ask("text", { messages }), { signal }));
    const [socket] = await once(mute, "connection");
    socket.on("error", () => {});
    controller.abort();
    assert.deepEqual(
      (await events).map(({ type, reason, cause }) => [type, reason, cause]),
      [["error", "aborted", signal.reason]],
      scheme,
    );
    const closed = once(socket, "close");
    socket.resume();
    await closed;
    mute.close();
  }
});

test("an abort and the time for the whole call end a hook that does not come back", async () => {
  const never = () => new Promise(() => {});
  for (const hook of ["onPayload", "onResponse"]) {
    const signal = AbortSignal.timeout(20);
    const aborts = anthropic().stream(ask("text"), { signal, [hook]: never });
    assert.deepEqual(
      (await collect(aborts)).map(({ type, reason, cause }) => [type, reason, cause]),
      [["error", "aborted", signal.reason]],
    );
    assert.equal((await aborts.result()).stopReason, "aborted");
    const late = anthropic().stream(ask("text"), { timeouts: { totalMs: 20 }, [hook]: never });
    const events = await collect(late);
    assert.deepEqual(
      events.map(({ reason, cause }) => [reason, cause.code, cause.phase]),
      [["error", "TIMEOUT", "total"]],
    );
    assert.equal(await late.result(), events[0].error);
    await assert.rejects(anthropic().complete(ask("text"), { timeouts: { totalMs: 20 }, [hook]: never }), {
      code: "TIMEOUT",
    });
  }
});

test("result settles whatever a reader has begun, and no event is lost or given twice by it", async () => {
  const slow = () => anthropic({ eventsPerWrite: 1, delayMs: 5 }).stream(ask("text"));
  const types = (await collect(slow())).map(({ type }) => type);
  for (const begin of [
    (stream) => stream[Symbol.asyncIterator]() && [],
    async (stream) => [await stream.next()],
    (stream) => Promise.all([stream.next(), stream.result()]).then(([first]) => [first]),
    async (stream) => {
      stream.result();
      return [await stream.next(), await stream.next()];
    },
  ]) {
    const stream = slow();
    const read = await begin(stream);
    const message = await stream.result();
    assert.equal(message.stopReason, "stop");
    const events = [...read.map(({ value }) => value), ...(await collect(stream))];
    assert.deepEqual(
      events.map(({ type }) => type),
      types,
    );
    assert.equal(events.at(-1).message, message);
  }
});

test("an answer that is left holds no call whose arguments are not all there", async () => {
  const stream = anthropic({ cutEvents: 8, after: "hang" }).stream(ask("tools"));
  for await (const { type } of stream) if (type === "toolcall_delta") break;
  const { stopReason, content } = await stream.result();
  assert.deepEqual([stopReason, content.map(({ type }) => type)], ["aborted", ["text"]]);
});

test("a copy of an event is the event", async () => {
  for (const event of await collect(anthropic().stream(ask("tools")))) {
    if (event.type === "done") continue;
    assert.ok(Object.hasOwn(event, "partial") && { ...event }.partial === event.partial, event.type);
    assert.deepEqual(structuredClone(event), { ...event });
  }
});

test("each thread has clients of its own, and one that is ended in the middle lets go of its connection", async () => {
  const source = `
    const { parentPort, workerData } = require("node:worker_threads");
    const { AnthropicProvider } = require(workerData.core);
    (async () => {
      const provider = new AnthropicProvider({ apiKey: workerData.apiKey, baseUrl: workerData.baseUrl, proxy: "" });
      let text = "";
      for await (const event of provider.stream({ model: workerData.model, messages: [{ role: "user", content: "Hi" }] })) {
        if (event.type === "text_delta") text += event.delta;
        if (event.type === "text_delta" && workerData.model === "long") parentPort.postMessage("begun");
        if (event.type === "done") parentPort.postMessage({ text, content: event.message.content });
        if (event.type === "error") throw event.cause;
      }
    })();`;
  const start = (model, plan) =>
    new Worker(source, {
      eval: true,
      workerData: {
        model,
        apiKey: server.apiKey,
        baseUrl: server.url("anthropic-messages", plan),
        core: fileURLToPath(new URL("../../index.js", import.meta.url)),
      },
    });
  const { content } = await anthropic().complete(ask("text"));
  const workers = Array.from({ length: 3 }, () => start("text", { chunkBytes: 7 }));
  const ends = workers.map((worker) => Promise.all([once(worker, "message"), once(worker, "exit")]));
  for (const [[answer], [code]] of await Promise.all(ends))
    assert.deepEqual([answer, code], [{ text: content[0].text, content }, 0]);
  const ended = start("long", { tokens: 100_000, perSecond: 500 });
  await once(ended, "message");
  const request = last();
  await ended.terminate();
  await request.closed;
  assert.equal(request.aborted, true);
});

test("break closes the connection", async () => {
  for await (const event of anthropic({ tokens: 100_000, perSecond: 500 }).stream(ask("long")))
    if (event.type === "text_delta") break;
  await last().closed;
  assert.equal(last().aborted, true);
});

test("a reader that does not read holds the server back, and then gets everything", async () => {
  const tokens = 400_000;
  const provider = anthropic({ tokens, eventsPerWrite: 200 });
  const stream = provider.stream(ask("long"));
  const iterator = stream[Symbol.asyncIterator]();
  await iterator.next();
  // The server writes until nobody takes it any more: buffers of two sockets, and the queue.
  let sent = -1;
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 200));
    if (last().sentBytes === sent) break;
    sent = last().sentBytes;
  }
  const held = sent;
  let deltas = 0;
  let end;
  for (;;) {
    const { done, value } = await iterator.next();
    if (done) break;
    if (value.type === "text_delta") deltas += 1;
    end = value;
  }
  assert.equal(end.type, "done", String(end.cause));
  assert.equal(deltas, tokens);
  assert.ok(held < last().sentBytes / 2, `${held} of ${last().sentBytes} bytes were taken`);
});

test("onPayload may change what is sent, and onResponse sees each head before the events", async () => {
  const seen = [];
  const options = {
    onPayload: async (payload) => {
      seen.push(payload.model);
      return { ...payload, model: "text", metadata: { user_id: "x" } };
    },
    onResponse: ({ status, headers }) => seen.push(status, headers["content-type"]),
    retries: 1,
  };
  const stream = anthropic({ fail: { key: "hooks", times: 1, model: "overloaded" } }).stream(
    ask("tools"),
    options,
  );
  for await (const event of stream) {
    if (event.type === "start")
      assert.deepEqual(seen, ["tools", 529, "application/json", 200, "text/event-stream; charset=utf-8"]);
    if (event.type === "done") assert.equal(event.message.content.length, 1);
  }
  assert.equal(last().body.metadata.user_id, "x");
  seen.length = 0;
  await anthropic().complete(ask("tools"), options);
  assert.deepEqual(seen, ["tools", 200, "text/event-stream; charset=utf-8"]);
  assert.equal(
    (await anthropic().complete(ask("tools"), { onPayload: () => undefined })).stopReason,
    "toolUse",
  );
  // What a hook throws ends the call.
  const thrown = new Error("mine");
  const fails = () => {
    throw thrown;
  };
  for (const hook of ["onPayload", "onResponse"]) {
    const end = (await collect(anthropic().stream(ask("text"), { [hook]: fails }))).at(-1);
    assert.deepEqual([end.type, end.cause, end.error.errorMessage], ["error", thrown, "mine"]);
    await assert.rejects(anthropic().complete(ask("text"), { [hook]: fails }), thrown);
  }
});

test("errors of the server have their status, type, body and time, and never the key", async () => {
  const limited = { retries: 0 };
  await assert.rejects(
    anthropic({ headers: { "retry-after": "7" } }).complete(ask("rate-limited"), limited),
    (error) => {
      assert.deepEqual(
        [error.code, error.status, error.retryAfterMs, error.errorType],
        ["PROVIDER_HTTP", 429, 7000, "rate_limit_error"],
      );
      assert.equal(JSON.parse(error.body).error.type, "rate_limit_error");
      return true;
    },
  );
  const echo = createServer((request, response) => {
    response.writeHead(401);
    response.end(`you sent ${request.headers["x-api-key"]}`);
  }).listen(0, "127.0.0.1");
  await once(echo, "listening");
  const secret = "sk-ant-api03-very-secret-very-secret-very-secret";
  const baseUrl = `http://127.0.0.1:${echo.address().port}`;
  await assert.rejects(
    new AnthropicProvider({ apiKey: secret, baseUrl, proxy: "" }).complete(ask("x")),
    (error) => {
      assert.equal(error.status, 401);
      assert.match(error.body, /^you sent /);
      assert.doesNotMatch(`${error.stack}${error.body}`, /very-secret/);
      return true;
    },
  );
  echo.close();
});

test("timers end what they watch, and say which one it was", async () => {
  for (const [plan, timeouts, phase] of [
    [{ headersMs: 60_000 }, { firstByteMs: 50 }, "firstByte"],
    [{ firstByteMs: 60_000 }, { firstByteMs: 50 }, "firstByte"],
    [{ dribble: 5 }, { firstByteMs: 50 }, "firstByte"],
    [{ cutEvents: 2, after: "hang" }, { idleMs: 50 }, "idle"],
    [{ cutEvents: 2, after: "ping" }, { idleMs: 100 }, "idle"],
    [{ tokens: 100_000, perSecond: 100, fixture: "long" }, { totalMs: 100 }, "total"],
  ]) {
    const end = (await collect(anthropic(plan).stream(ask("text"), { timeouts, retries: 0 }))).at(-1);
    assert.deepEqual(
      [end.type, end.cause?.code, end.cause?.phase],
      ["error", "TIMEOUT", phase],
      JSON.stringify(plan),
    );
    await last().closed;
    assert.equal(last().aborted, true);
  }
});

test("what cannot be reached is NETWORK or TIMEOUT, with no URL in it", async () => {
  const call = (baseUrl, options) =>
    new AnthropicProvider({ apiKey: "k", baseUrl, proxy: "" }).complete(ask("x"), { retries: 0, ...options });
  const free = createTcpServer().listen(0, "127.0.0.1");
  await once(free, "listening");
  const { port } = free.address();
  free.close();
  await once(free, "close");
  await assert.rejects(call(`http://user:passw0rd@127.0.0.1:${port}`), (error) => {
    assert.equal(error.code, "NETWORK");
    assert.doesNotMatch(`${error.stack}${error.cause?.stack}`, /passw0rd/);
    return true;
  });
  await assert.rejects(call("http://no-such-host.invalid"), { code: "NETWORK" });
  // A server that speaks no TLS, and one that accepts and says nothing: the handshake never ends.
  await assert.rejects(call(`https://127.0.0.1:${server.port}`), { code: "NETWORK" });
  const mute = createTcpServer(() => {}).listen(0, "127.0.0.1");
  await once(mute, "listening");
  await assert.rejects(call(`https://127.0.0.1:${mute.address().port}`, { timeouts: { connectMs: 50 } }), {
    code: "TIMEOUT",
    phase: "connect",
  });
  mute.close();
});

test("requests and options that are wrong say where", async () => {
  const provider = anthropic();
  for (const [request, path] of [
    [ask(""), "model"],
    [ask("m", { topK: 3 }), "topK"],
    [{ model: "m" }, "messages"],
    [
      ask("m", { messages: [{ role: "user", content: [{ type: "image", data: "x" }] }] }),
      "messages[0].content[0].mimeType",
    ],
  ]) {
    await assert.rejects(provider.complete(request), { code: "PROVIDER_REQUEST", path });
    const [end] = await collect(provider.stream(request));
    assert.deepEqual([end.type, end.cause.code, end.cause.path], ["error", "PROVIDER_REQUEST", path]);
  }
  for (const wrong of [undefined, null, "x", 7]) {
    await assert.rejects(provider.complete(wrong), { code: "VALIDATION" });
    assert.throws(() => provider.stream(wrong), { code: "VALIDATION" });
  }
  for (const options of [
    "x",
    { onPayload: 3 },
    { retries: -1 },
    { timeouts: { idleMs: "soon" } },
    { timeouts: 5 },
    { headers: { "bad name": "x" } },
    { headers: { a: 1 } },
    { signal: {} },
  ]) {
    await assert.rejects(
      provider.complete(ask("text"), options),
      { code: "VALIDATION" },
      JSON.stringify(options),
    );
    assert.throws(
      () => provider.stream(ask("text"), options),
      { code: "VALIDATION" },
      JSON.stringify(options),
    );
  }
  assert.throws(() => new Provider({ apiKey: "k" }), { code: "VALIDATION" });
  assert.throws(() => new AnthropicProvider({ baseUrl: "nowhere" }), {
    code: "PROVIDER_REQUEST",
    path: "baseUrl",
  });
  assert.throws(() => new AnthropicProvider({ apiKey: 7 }), { code: "VALIDATION" });
  assert.throws(() => new AnthropicProvider({ prices: { m: { input: 1 } } }), { code: "VALIDATION" });
});

test("a key may be a string, bytes, an ApiKey, or none; headers and ids are the caller's", async () => {
  const bytes = new TextEncoder().encode(server.apiKey);
  for (const apiKey of [server.apiKey, bytes, new ApiKey(server.apiKey)]) {
    const provider = anthropic({}, { apiKey, id: "mine", headers: { "x-a": "1", "x-b": "1" } });
    const message = await provider.complete(ask("text"), { headers: { "x-b": "2" } });
    assert.deepEqual([message.provider, provider.id], ["mine", "mine"]);
    assert.deepEqual([last().headers["x-a"], last().headers["x-b"]], ["1", "2"]);
  }
  for (const apiKey of [undefined, null, ""]) {
    await assert.rejects(anthropic({}, { apiKey }).complete(ask("text")), { status: 401 });
    assert.equal(last().headers["x-api-key"], undefined);
  }
});

test("half of a surrogate pair is left out of what is sent, and whole pairs are not", async () => {
  await anthropic().complete(
    ask("text", { messages: [{ role: "user", content: "a\ud83cb🎉\udc00 \\ud83c" }] }),
  );
  assert.deepEqual(last().body.messages[0].content, [{ type: "text", text: "ab🎉 \\ud83c" }]);
});

test("prices make costs, and sums are kept by model", async () => {
  const prices = { cache: { input: 3, output: 15, cacheRead: 0.3, cacheWrite: 3.75 } };
  const provider = anthropic({}, { prices });
  const { usage } = await provider.complete(ask("cache"));
  const hour = usage.cacheWrite1h ?? 0;
  const cost = {
    input: (usage.input * 3) / 1e6,
    output: (usage.output * 15) / 1e6,
    cacheRead: (usage.cacheRead * 0.3) / 1e6,
    cacheWrite: ((usage.cacheWrite - hour) * 3.75 + hour * 3 * 2) / 1e6,
  };
  const total = cost.input + cost.output + cost.cacheRead + cost.cacheWrite;
  assert.deepEqual(usage.cost, { ...cost, total });
  await provider.complete(ask("cache"));
  await provider.complete(ask("text"));
  const sums = provider.usage();
  assert.deepEqual(Object.keys(sums.byModel), ["cache", "text"]);
  assert.equal(sums.byModel.cache.output, usage.output * 2);
  assert.equal(sums.byModel.text.cost, undefined);
});

test("failover asks the next one, says why, and leaves the failed one alone for a while", async () => {
  const busy = make("anthropic-messages", { fixture: "overloaded" }, { id: "busy" });
  const limited = make(
    "openai-completions",
    { fixture: "rate-limited", headers: { "retry-after": "90" } },
    { id: "limited" },
  );
  const good = make("ollama", {}, { id: "good" });
  const failover = new FailoverProvider(
    [
      { provider: busy, model: "text" },
      { provider: limited, model: "text" },
      { provider: good, model: "text" },
    ],
    { retryAfterCapMs: 1000 },
  );
  const { messages } = ask("x");
  const first = await failover.complete({ messages }, { retries: 0 });
  assert.deepEqual([first.provider, first.model, first.stopReason], ["good", "text", "stop"]);
  assert.deepEqual(
    first.attempts.map(({ provider, model, reason, status }) => [provider, model, reason, status]),
    [
      ["busy", "text", "overloaded", 529],
      ["limited", "text", "rate_limit", 429],
    ],
  );
  const asked = server.requests.length;
  const events = await collect(failover.stream({ messages }));
  assert.equal(server.requests.length, asked + 1);
  assert.deepEqual(events.map((event) => event.type).filter((type) => type === "start").length, 1);
  const { message } = events.at(-1);
  assert.deepEqual(
    message.attempts.map(({ provider, reason, cooldownUntilMs }) => [provider, reason, cooldownUntilMs]),
    [
      ["busy", "cooldown", first.attempts[0].cooldownUntilMs],
      ["limited", "cooldown", first.attempts[1].cooldownUntilMs],
    ],
  );
  // Within one second, give or take the call itself: what the server asked for.
  assert.ok(first.attempts[1].cooldownUntilMs - first.attempts[0].cooldownUntilMs > 50_000);
  assert.throws(() => new FailoverProvider([]), { code: "VALIDATION" });
  assert.throws(() => new FailoverProvider([{ provider: {}, model: "x" }]), { code: "VALIDATION" });
  assert.throws(() => failover.stream({ messages }, { onPayload() {} }), { code: "VALIDATION" });
  const only = new FailoverProvider([{ provider: busy, model: "text" }]);
  const end = (await collect(only.stream({ messages }, { retries: 0 }))).at(-1);
  assert.deepEqual([end.type, end.error.attempts.length], ["error", 1]);
  const later = (await collect(only.stream({ messages }))).at(-1);
  assert.deepEqual([later.cause.code, later.error.attempts[0].reason], ["PROVIDER_HTTP", "cooldown"]);
  assert.ok(later.cause.retryAfterMs > 0);
});

test("a stream that nobody reads does not keep the process alive", () => {
  const script = `
    const { AnthropicProvider } = require(${JSON.stringify(fileURLToPath(new URL("../../index.js", import.meta.url)))});
    const provider = new AnthropicProvider({ apiKey: "k", baseUrl: process.argv[1], proxy: "" });
    provider.stream({ model: "text", messages: [{ role: "user", content: "x" }] });
  `;
  const run = spawnSync(
    process.execPath,
    ["-e", script, server.url("anthropic-messages", { headersMs: 600_000 })],
    {
      encoding: "utf8",
      timeout: 60_000,
    },
  );
  assert.deepEqual([run.status, run.stderr], [0, ""]);
});

test("connections are used again", async () => {
  const sockets = new Set();
  const raw = createServer((request, response) => {
    sockets.add(request.socket);
    request.resume();
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write('data: {"type":"message_start","message":{}}\n\n');
    response.write('data: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\n');
    // The end of the body comes later than the API's own end mark.
    response.write('data: {"type":"message_stop"}\n\n', () => setImmediate(() => response.end()));
  }).listen(0, "127.0.0.1");
  await once(raw, "listening");
  const baseUrl = `http://127.0.0.1:${raw.address().port}`;
  const provider = new AnthropicProvider({ baseUrl, proxy: "" });
  for (let call = 0; call < 5; call++) {
    await provider.complete(ask("x"));
    // Until the connection is free again, which another one shows.
    const probe = connect(raw.address().port, "127.0.0.1");
    await once(probe, "connect");
    probe.destroy();
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.equal(sockets.size, 1);
  raw.closeAllConnections();
  raw.close();
});
