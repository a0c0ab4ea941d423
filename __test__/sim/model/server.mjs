/**
 * A model server on loopback: OpenAI chat completions and responses, Anthropic messages. What it answers is scripted;
 * what it accepts is not: a request that the real API would refuse is refused here with the same status and body.
 *
 *     const server = await startModelServer({ script: (turn) => ({ text: `you said ${turn.user}` }) });
 *     new OpenAI({ apiKey: server.apiKey, baseURL: server.openaiUrl });
 *     await server.close();
 *
 * A script gets a `turn` and gives a reply:
 *   turn   { api, model, user, tools, toolResults, body }: `user` is the text since the model last spoke, `tools` the
 *          names on offer, `toolResults` ({ id, name, text, isError }) what came back since then
 *   reply  { text, toolCalls: [{ name, arguments }] }, or { error: { status, type, message, code, headers } };
 *          `cutAfter: n` breaks the connection after n events, `failAfter: { events, type, message }` sends an error event,
 *          `eventDelayMs` spaces the events out
 */
import { randomBytes } from "node:crypto";
import { createServer } from "node:http";
import { anthropicMessages, anthropicTokens } from "./anthropic.mjs";
import { ApiError } from "./error.mjs";
import { openaiChat } from "./openai-chat.mjs";
import { openaiResponses } from "./openai-responses.mjs";
import { readThenAnswer } from "./script.mjs";

const MAX_BODY = 32 * 1024 * 1024;
const endpoints = [openaiChat, openaiResponses, anthropicMessages, anthropicTokens];

/**
 * Starts a server on a free port of 127.0.0.1. `models` are the ids it has, `apiKey` the one key it takes.
 * `requests` on the result is the log: one record a request, in order of arrival.
 */
export async function startModelServer({
  script = readThenAnswer(),
  models = ["sim-1"],
  apiKey = `sk-sim-${randomBytes(12).toString("hex")}`,
} = {}) {
  const requests = [];
  const state = {
    models,
    apiKey,
    responses: new Map(),
    nextId: (prefix) => `${prefix}${randomBytes(12).toString("hex")}`,
  };
  const server = createServer((request, response) => {
    const record = { method: request.method, path: request.url, startedMs: performance.now() };
    requests.push(record);
    answer(state, script, request, response, record)
      .catch((error) => {
        record.error = error.message;
        response.destroy();
      })
      .finally(() => (record.endedMs = performance.now()));
  });
  await new Promise((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${server.address().port}`;
  return {
    url,
    apiKey,
    models,
    requests,
    /** The base URL as OpenAI's client wants it. */
    openaiUrl: `${url}/v1`,
    /** The base URL as Anthropic's client wants it. */
    anthropicUrl: url,
    async close() {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}

async function answer(state, script, request, response, record) {
  const url = new URL(request.url, "http://loopback");
  // Anthropic's clients always name the version; OpenAI's never do.
  const isAnthropic =
    request.headers["anthropic-version"] !== undefined || url.pathname.startsWith("/v1/messages");
  const family = isAnthropic ? anthropicMessages : openaiChat;
  const requestId = state.nextId("req_");
  response.setHeader(isAnthropic ? "request-id" : "x-request-id", requestId);
  let endpoint;
  try {
    endpoint = endpoints.find(({ path }) => path === url.pathname);
    if (url.pathname === "/v1/models" && request.method === "GET") {
      family.authenticate(state, request.headers);
      return sendJson(response, 200, family.listModels(state), record);
    }
    if (!endpoint || request.method !== "POST")
      throw family.unknownUrl(request.method, url.pathname, endpoint !== undefined);
    record.api = endpoint.api;
    endpoint.authenticate(state, request.headers);
    const body = parseBody(await readBody(request, endpoint), request.headers, endpoint);
    Object.assign(record, { model: body.model, stream: body.stream === true, body });
    endpoint.check(state, body);
    if (!endpoint.turn) return sendJson(response, 200, endpoint.answer(body), record);

    const turn = { api: endpoint.api, model: body.model, body, ...endpoint.turn(state, body) };
    record.toolResults = turn.toolResults;
    const reply = await script(turn);
    checkReply(reply, turn);
    record.reply = reply;
    if (reply.error)
      throw new ApiError(reply.error.status, reply.error.type, reply.error.message, reply.error);
    const message = endpoint.message(state, body, reply);
    if (body.stream === true) await stream(response, endpoint, body, message, reply, record);
    else sendJson(response, 200, endpoint.whole(message, body), record);
  } catch (error) {
    // A fault of the script is the server's: the client sees a 500, the log says what it was.
    const refusal =
      error instanceof ApiError
        ? error
        : new ApiError(500, isAnthropic ? "api_error" : "server_error", error.message);
    record.error = refusal.message;
    if (response.headersSent) response.destroy();
    else
      sendJson(
        response,
        refusal.status,
        (endpoint ?? family).errorBody(refusal, requestId),
        record,
        refusal.headers,
      );
  }
}

function checkReply(reply, turn) {
  if (!reply || (reply.error === undefined && !reply.text && !reply.toolCalls?.length))
    throw new Error("the script gave no text, no tool call and no error");
  for (const { name } of reply.toolCalls ?? []) {
    if (!turn.tools.includes(name))
      throw new Error(
        `the script calls ${name}, which was not on offer (${turn.tools.join(", ") || "no tools"})`,
      );
  }
}

async function readBody(request, endpoint) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > MAX_BODY) throw new ApiError(413, endpoint.tooLarge, "Request exceeds the maximum size");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function parseBody(text, headers, endpoint) {
  if (!/^application\/json\b/i.test(headers["content-type"] ?? ""))
    throw endpoint.notJson(`Content-Type is ${headers["content-type"] ?? "missing"}`);
  try {
    const body = JSON.parse(text);
    if (body !== null && typeof body === "object" && !Array.isArray(body)) return body;
  } catch {
    // answered below, as a body that is no object
  }
  throw endpoint.notJson("not a JSON object");
}

function sendJson(response, status, body, record, headers = {}) {
  record.status = status;
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify(body));
}

async function stream(response, endpoint, body, message, reply, record) {
  record.status = 200;
  response.writeHead(200, {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    connection: "keep-alive",
  });
  record.events = 0;
  for (const event of endpoint.events(message, body)) {
    if (response.destroyed) {
      record.aborted = true;
      return;
    }
    if (record.events === reply.cutAfter) return void response.destroy();
    if (record.events === reply.failAfter?.events) {
      const { type, message } = reply.failAfter;
      return void response.end(endpoint.frame(endpoint.streamError(new ApiError(200, type, message))));
    }
    record.events += 1;
    if (!response.write(endpoint.frame(event)))
      await new Promise((resolve) => response.once("drain", resolve).once("close", resolve));
    if (reply.eventDelayMs) await new Promise((resolve) => setTimeout(resolve, reply.eventDelayMs));
  }
  response.end(endpoint.lastFrame ?? "");
}
