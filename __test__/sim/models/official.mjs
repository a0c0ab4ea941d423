// The APIs' own clients, those that OpenClaw is shipped with, asked for one answer each: what they make of the same bytes.
import { createRequire } from "node:module";

const hostRequire = createRequire(new URL("../../host/package.json", import.meta.url));
const load = async (name) => import(hostRequire.resolve(name));

/**
 * Asks for an answer and gives { text, thinking, toolCalls: [{ id, name, arguments }], stop, usage } in the API's own
 * words and counts, or { error }. `seen`, if given, is called at each event.
 */
export async function askOfficial(api, { server, model, plan, body = {}, seen = () => {}, apiKey }) {
  const client = await officialClient(api, server.url(api, plan), apiKey ?? server.apiKey);
  try {
    return await ask[api](client, model, body, seen);
  } catch (error) {
    return { error };
  }
}

/** The API's own client, which does not retry. */
export async function officialClient(api, baseURL, apiKey) {
  const options = { apiKey, baseURL, maxRetries: 0 };
  if (api === "anthropic-messages") return new (await load("@anthropic-ai/sdk")).default(options);
  if (api === "openai-completions" || api === "openai-responses")
    return new (await load("openai")).default(options);
  if (api === "google-generative-ai") {
    const { GoogleGenAI } = await load("@google/genai");
    const origin = baseURL.replace(/\/v1beta$/, "");
    return new GoogleGenAI({ apiKey, httpOptions: { baseUrl: origin, retryOptions: { attempts: 1 } } });
  }
  throw new Error(`${api} has no official client here`);
}

const user = [{ role: "user", content: "hello" }];
const json = (text) => (text.trim() === "" ? {} : JSON.parse(text));

const ask = {
  async "anthropic-messages"(client, model, body, seen) {
    const stream = client.messages.stream({ model, max_tokens: 1024, messages: user, ...body });
    for await (const event of stream) seen(event);
    const message = await stream.finalMessage();
    const pick = (type, field) =>
      message.content
        .filter((block) => block.type === type)
        .map((block) => block[field])
        .join("");
    return {
      text: pick("text", "text"),
      thinking: pick("thinking", "thinking"),
      toolCalls: message.content
        .filter(({ type }) => type === "tool_use")
        .map(({ id, name, input }) => ({ id, name, arguments: input })),
      stop: message.stop_reason,
      usage: message.usage,
    };
  },

  async "openai-completions"(client, model, body, seen) {
    const options = { include_usage: true };
    const request = { model, messages: user, stream: true, stream_options: options, ...body };
    const result = { text: "", thinking: "", toolCalls: [], stop: null, usage: undefined };
    for await (const chunk of await client.chat.completions.create(request)) {
      seen(chunk);
      if (chunk.usage) result.usage = chunk.usage;
      const choice = chunk.choices[0];
      if (!choice) continue;
      result.stop = choice.finish_reason ?? result.stop;
      result.text += choice.delta.content ?? choice.delta.refusal ?? "";
      result.thinking += choice.delta.reasoning_content ?? choice.delta.reasoning ?? "";
      for (const call of choice.delta.tool_calls ?? []) {
        result.toolCalls[call.index] ??= { id: call.id, name: call.function.name, arguments: "" };
        result.toolCalls[call.index].arguments += call.function.arguments ?? "";
      }
    }
    // The plain stream of this client takes any end for a good one.
    if (result.stop === null) throw new Error("the stream ended without a finish reason");
    for (const call of result.toolCalls) call.arguments = json(call.arguments);
    return result;
  },

  async "openai-responses"(client, model, body, seen) {
    let response;
    const stream = await client.responses.create({ model, input: "hello", stream: true, ...body });
    for await (const event of stream) {
      seen(event);
      if (["response.completed", "response.incomplete", "response.failed"].includes(event.type))
        response = event.response;
    }
    if (!response) throw new Error("the stream ended without a terminal event");
    if (response.error) throw new Error(`${response.error.code}: ${response.error.message}`);
    const messages = response.output.filter(({ type }) => type === "message");
    return {
      text: messages.flatMap(({ content }) => content.map((part) => part.text ?? part.refusal)).join(""),
      thinking: response.output
        .filter(({ type }) => type === "reasoning")
        .flatMap(({ summary }) => summary.map(({ text }) => text))
        .join("\n\n"),
      toolCalls: response.output
        .filter(({ type }) => type === "function_call")
        .map((item) => ({
          id: `${item.call_id}|${item.id}`,
          name: item.name,
          arguments: json(item.arguments),
        })),
      stop: response.incomplete_details?.reason ?? response.status,
      usage: response.usage,
    };
  },

  async "google-generative-ai"(client, model, body, seen) {
    const result = { text: "", thinking: "", toolCalls: [], stop: undefined, usage: undefined };
    const request = { model, contents: "hello", ...body };
    for await (const chunk of await client.models.generateContentStream(request)) {
      seen(chunk);
      if (chunk.promptFeedback?.blockReason) throw new Error(chunk.promptFeedback.blockReason);
      const candidate = chunk.candidates?.[0];
      result.stop = candidate?.finishReason ?? result.stop;
      result.usage = chunk.usageMetadata ?? result.usage;
      for (const part of candidate?.content?.parts ?? []) {
        if (part.text) result[part.thought ? "thinking" : "text"] += part.text;
        if (part.functionCall)
          result.toolCalls.push({
            id: part.functionCall.id,
            name: part.functionCall.name,
            arguments: part.functionCall.args,
          });
      }
    }
    if (!result.stop) throw new Error("the stream ended without a finish reason");
    return result;
  },
};
