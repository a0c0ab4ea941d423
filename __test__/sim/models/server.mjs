/**
 * Five model APIs on one loopback port: Anthropic messages, OpenAI chat completions and responses, Gemini and Ollama.
 * A request is held to the rules of the real API, and refused with its status and body where it breaks one. What is
 * answered is a fixture, the bytes of one answer of that API, sent in whatever pieces and with whatever faults a test
 * asks for.
 *
 *     const server = await startModelApis();
 *     new OpenAI({ apiKey: server.apiKey, baseURL: server.url("openai-completions", { chunkBytes: 1 }) });
 *     await server.close();
 *
 * The model that is asked for names the fixture: `text`, `tools`, `rate-limited` … (see `fixtureNames`); `long` is an
 * answer made to measure. How it is sent is a plan, which stands in the URL, so that tests need not take turns:
 *   chunkBytes      each write has so many bytes; `splitAt`: two writes, cut there
 *   eventsPerWrite  each write has so many events
 *   delayMs         between two writes; `firstByteMs`: before the first; `headersMs`: before the status line
 *   cutEvents       the body ends after so many events; `cutBytes`: after so many bytes
 *   after           how it ends there: "end" (default), "reset", "hang", or "ping" (comments or pings for ever)
 *   tokens          how long `long` is; `perSecond`: how fast, an event a write unless `eventsPerWrite` says otherwise
 *   encode          "gzip", "br" or "zstd": the body is compressed, each write so that it can be read at once, if the
 *                   request accepts it
 *   status, headers, contentType, body   in place of the fixture's own; `fixture`: in place of the model
 *   models          further names that a model may have
 *   fail            the first so many requests of a key get `fail.model` instead: { key, times, model }
 *   dribble         the head comes a byte at a time, for ever, with so many milliseconds between
 */
import { randomBytes } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createSecureServer } from "node:http2";
import { createServer as createTlsServer } from "node:https";
import { fileURLToPath } from "node:url";
import { anthropicMessages } from "../model/anthropic.mjs";
import { ApiError } from "../model/error.mjs";
import { openaiChat } from "../model/openai-chat.mjs";
import { openaiResponses } from "../model/openai-responses.mjs";
import { encoder } from "./encoding.mjs";
import { gemini } from "./gemini.mjs";
import { ollama } from "./ollama.mjs";
import { longStream } from "./streams.mjs";

const fixtures = new URL("./fixtures/", import.meta.url);
const MAX_BODY = 32 << 20;

/** OpenClaw's ids of the APIs. */
export const APIS = [
  "anthropic-messages",
  "openai-completions",
  "openai-responses",
  "google-generative-ai",
  "ollama",
];
const families = {
  "anthropic-messages": anthropicMessages,
  "openai-completions": openaiChat,
  "openai-responses": openaiResponses,
  "google-generative-ai": gemini,
  ollama,
};
const base = {
  "anthropic-messages": "",
  "openai-completions": "/v1",
  "openai-responses": "/v1",
  "google-generative-ai": "/v1beta",
  ollama: "",
};

/** What each fixture of an API that is a stream should come to: content, stop reason, usage, or a word of its error. */
export function expectations(api) {
  return JSON.parse(readFileSync(new URL(`${api}/expected.json`, fixtures), "utf8"));
}

/** A fixture's status and bytes. */
export function fixture(api, name) {
  const found = readdirSync(new URL(`${api}/`, fixtures)).find((file) => {
    const [stem, ...rest] = file.split(".");
    return stem === name && stem !== "expected" && rest.length;
  });
  if (!found) return undefined;
  const status = Number(/\.(\d{3})\.json$/.exec(found)?.[1] ?? 200);
  return { status, body: readFileSync(new URL(`${api}/${found}`, fixtures)) };
}

/** The names of an API's fixtures. */
export function fixtureNames(api) {
  const names = readdirSync(new URL(`${api}/`, fixtures)).map((file) => file.split(".")[0]);
  return names.filter((name) => name !== "expected");
}

/** Where each event of a body ends. */
export function eventEnds(api, body) {
  const text = body.toString("latin1");
  const pattern = api === "ollama" ? /\n/g : /\r\n\r\n|\n\n|\r\r/g;
  const ends = [...text.matchAll(pattern)].map((match) => match.index + match[0].length);
  if (ends.at(-1) !== body.length) ends.push(body.length);
  return ends;
}

/** The base URL of an API as its official client wants it, with a plan for what is sent. */
export function baseUrl(origin, api, plan = {}) {
  return `${origin}/~${Buffer.from(JSON.stringify(plan)).toString("base64url")}${base[api]}`;
}

/**
 * Starts the APIs on a free port of 127.0.0.1. Whoever comes with `busyKey` is told 529, and to come again in an hour.
 * `requests` is the log, one record a request, in order of arrival. With
 * `http2`, which needs `tls`, HTTP/2 is spoken with whoever offers it.
 */
export async function startModelApis({
  apiKey = `sk-sim-${randomBytes(12).toString("hex")}`,
  busyKey,
  tls,
  http2 = false,
  host = "127.0.0.1",
} = {}) {
  const state = {
    apiKey,
    busyKey,
    responses: new Map(),
    failures: new Map(),
    nextId: (prefix) => `${prefix}${randomBytes(12).toString("hex")}`,
  };
  const requests = [];
  const listener = (request, response) => {
    const { method, url: path, headers, httpVersion } = request;
    const record = { method, path, headers, httpVersion };
    requests.push(record);
    record.closed = new Promise((resolve) => {
      response.once("close", () => {
        record.aborted = !response.writableFinished;
        record.closedMs = performance.now();
        resolve();
      });
    });
    answer(state, request, response, record).catch((error) => {
      record.error = error.message;
      response.destroy();
    });
  };
  const server = http2
    ? createSecureServer({ ...tls, allowHTTP1: true }, listener)
    : tls
      ? createTlsServer(tls, listener)
      : createServer(listener);
  const connections = new Set();
  let opened = 0;
  server.on("connection", (socket) => {
    opened++;
    connections.add(socket);
    socket.once("close", () => connections.delete(socket));
  });
  await new Promise((resolve, reject) => server.once("error", reject).listen(0, host, resolve));
  const origin = `${tls ? "https" : "http"}://${host.includes(":") ? `[${host}]` : host}:${server.address().port}`;
  return {
    origin,
    apiKey,
    requests,
    port: server.address().port,
    /** How many connections there have been. */
    connections: () => opened,
    url: (api, plan) => baseUrl(origin, api, plan),
    async close() {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of connections) socket.destroy();
      await closed;
    },
  };
}

/** Which API a path belongs to, and the model it names. */
function route(method, path, headers) {
  const models = /^\/(v1beta|v1)\/models$/.exec(path)?.[1];
  if (method === "GET" && models === "v1beta") return { api: "google-generative-ai", list: true };
  if (method === "GET" && models)
    return { api: headers["anthropic-version"] ? "anthropic-messages" : "openai-completions", list: true };
  if (method === "GET" && path === "/api/tags") return { api: "ollama", list: true };
  const google = /^\/v1beta\/(?:models\/)?([^/:]+):(streamGenerateContent|generateContent)$/.exec(path);
  if (google) return { api: "google-generative-ai", model: decodeURIComponent(google[1]), verb: google[2] };
  if (path === "/v1/messages") return { api: "anthropic-messages" };
  if (path === "/v1/chat/completions") return { api: "openai-completions" };
  if (path === "/v1/responses") return { api: "openai-responses" };
  if (path === "/api/chat") return { api: "ollama" };
  return {};
}

async function answer(state, request, response, record) {
  const url = new URL(request.url, "http://loopback");
  const [, coded, path] = /^(?:\/~([\w-]*))?(\/.*)$/.exec(url.pathname);
  const plan = coded ? JSON.parse(Buffer.from(coded, "base64url").toString()) : {};
  const { api, model: named, list, verb } = route(request.method, path, request.headers);
  const family = families[api] ?? openaiChat;
  Object.assign(record, { api, plan });
  try {
    if (!api || (request.method !== "POST" && !list))
      throw family.unknownUrl(request.method, path, api !== undefined);
    const own = { ...state, models: ["long", ...fixtureNames(api), ...(plan.models ?? [])] };
    const busy =
      state.busyKey && Object.values(request.headers).some((value) => value.includes(state.busyKey));
    if (!busy) family.authenticate(own, request.headers, url);
    if (list) return sendJson(response, 200, family.listModels(own));
    const body = parseBody(await readBody(request, family), request.headers, family);
    const model = named ?? body.model;
    Object.assign(record, { body, model });
    if (busy)
      throw new ApiError(529, "overloaded_error", "Overloaded", { headers: { "retry-after": "3600" } });
    family.check(own, body);
    if (api === "google-generative-ai") {
      if (verb !== "streamGenerateContent" || url.searchParams.get("alt") !== "sse")
        throw new Error("this server gives answers as event streams only: ?alt=sse");
    } else if (api === "ollama" ? body.stream === false : body.stream !== true)
      throw new Error("this server gives answers as streams only");
    await serve(state, api, plan, model, response, record);
  } catch (error) {
    // What is no refusal of the API is a fault of this server or its caller: a 500 that says so.
    const refusal = error instanceof ApiError ? error : new ApiError(500, "server_error", error.message);
    record.error = refusal.message;
    if (response.headersSent) response.destroy();
    else sendJson(response, refusal.status, family.errorBody(refusal, "req_sim"), refusal.headers);
  }
}

async function serve(state, api, asked, model, response, record) {
  const plan = asked.perSecond ? { eventsPerWrite: 1, ...asked } : asked;
  let name = plan.fixture ?? model;
  if (plan.fail) {
    const before = state.failures.get(plan.fail.key) ?? 0;
    state.failures.set(plan.fail.key, before + 1);
    if (before < plan.fail.times) name = plan.fail.model;
  }
  if (plan.dribble) return dribble(response, plan.dribble);
  const long = name === "long";
  const events = long ? longStream(api, plan.tokens ?? 2000) : undefined;
  const found = long ? { status: 200 } : (fixture(api, name) ?? { status: 200, body: Buffer.alloc(0) });
  const status = plan.status ?? found.status;
  const type =
    status !== 200
      ? "application/json"
      : api === "ollama"
        ? "application/x-ndjson"
        : "text/event-stream; charset=utf-8";
  const head = { "content-type": plan.contentType ?? type, "cache-control": "no-cache", ...plan.headers };
  const accepted = String(record.headers["accept-encoding"] ?? "").split(/\s*,\s*/);
  const coding = accepted.includes(plan.encode) ? encoder(plan.encode) : undefined;
  if (coding) head["content-encoding"] = plan.encode;
  if (plan.headersMs) await pause(plan.headersMs, response);
  response.socket?.setNoDelay(true);
  response.writeHead(status, head);
  response.flushHeaders();
  record.headersMs = performance.now();
  if (plan.firstByteMs) await pause(plan.firstByteMs, response);

  const { writes, cut } = pieces(
    api,
    plan,
    events,
    plan.body === undefined ? found.body : Buffer.from(plan.body),
  );
  const every = plan.perSecond ? (1000 * plan.eventsPerWrite) / plan.perSecond : plan.delayMs;
  const began = performance.now();
  for (const [index, piece] of writes.entries()) {
    const bytes = coding ? await coding.push(piece) : piece;
    // With HTTP/2, a response that was closed is not destroyed.
    if (response.destroyed || record.closedMs !== undefined) return;
    record.sentBytes = (record.sentBytes ?? 0) + bytes.length;
    const room = response.write(bytes);
    if (every) await pause(Math.max(0, began + (index + 1) * every - performance.now()), response);
    else if (!room) await new Promise((resolve) => response.once("drain", resolve).once("close", resolve));
    // Writes of one turn of the loop leave as one.
    else if (plan.chunkBytes || plan.splitAt || plan.eventsPerWrite) await new Promise(setImmediate);
  }
  if (!cut || !plan.after || plan.after === "end")
    return void response.end(coding && !cut ? await coding.end() : undefined);
  if (plan.after === "reset") return void response.socket?.resetAndDestroy();
  if (plan.after === "ping") {
    const ping =
      { "anthropic-messages": 'event: ping\ndata: {"type":"ping"}\n\n', ollama: "\n" }[api] ??
      ": keep-alive\n\n";
    while (!response.destroyed) {
      response.write(ping);
      await pause(plan.delayMs ?? 20, response);
    }
  }
}

/** The writes that make up the body, and whether it was cut short. */
function pieces(api, plan, events, body) {
  const whole = body ?? Buffer.concat(events);
  let end = plan.cutBytes ?? whole.length;
  const ends = () => {
    if (!events) return eventEnds(api, whole);
    let at = 0;
    return events.map((event) => (at += event.length));
  };
  if (plan.cutEvents !== undefined)
    end = plan.cutEvents === 0 ? 0 : (ends()[plan.cutEvents - 1] ?? whole.length);
  const marks = [];
  if (plan.splitAt) marks.push(plan.splitAt);
  else if (plan.chunkBytes) for (let at = plan.chunkBytes; at < end; at += plan.chunkBytes) marks.push(at);
  else if (plan.eventsPerWrite)
    marks.push(...ends().filter((_, index) => (index + 1) % plan.eventsPerWrite === 0));
  const cuts = [0, ...marks.filter((at) => at > 0 && at < end), end];
  const writes = cuts.slice(1).map((to, index) => whole.subarray(cuts[index], to));
  return {
    writes: writes.filter((bytes) => bytes.length),
    cut: end < whole.length || plan.after !== undefined,
  };
}

async function dribble(response, everyMs) {
  const socket = response.socket;
  const head = Buffer.from(
    `HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n${"x-slow: 1\r\n".repeat(4096)}`,
  );
  for (const byte of head) {
    if (socket.destroyed) return;
    socket.write(Buffer.from([byte]));
    await pause(everyMs, response);
  }
  socket.destroy();
}

/** Waits, but not for a client that has left. */
function pause(ms, response) {
  return new Promise((resolve) => {
    if (response.destroyed) return resolve();
    const timer = setTimeout(done, ms);
    response.once("close", done);
    function done() {
      clearTimeout(timer);
      response.off("close", done);
      resolve();
    }
  });
}

async function readBody(request, family) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > MAX_BODY) throw new ApiError(413, family.tooLarge, "Request exceeds the maximum size");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function parseBody(text, headers, family) {
  if (!/^application\/json\b/i.test(headers["content-type"] ?? ""))
    throw family.notJson(`Content-Type is ${headers["content-type"] ?? "missing"}`);
  try {
    const body = JSON.parse(text);
    if (body !== null && typeof body === "object" && !Array.isArray(body)) return body;
  } catch {
    // answered below, as a body that is no object
  }
  throw family.notJson("not a JSON object");
}

function sendJson(response, status, body, headers = {}) {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify(body));
}

// `node server.mjs [key.pem cert.pem]` serves until its standard input ends: measuring wants it in another process.
if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [key, cert] = process.argv.slice(2);
  const tls = key && existsSync(key) ? { key: readFileSync(key), cert: readFileSync(cert) } : undefined;
  const server = await startModelApis({ tls });
  console.log(JSON.stringify({ origin: server.origin, apiKey: server.apiKey }));
  process.stdin.resume().once("end", () => server.close().then(() => process.exit()));
}
