// Long answers in the shape of each API, for measuring: one buffer an event, so that the server only writes.
const WORDS = "the quick brown fox jumps over a lazy dog while größere Wörter 世界 and 👍 pass by ".match(
  /\S+\s/gu,
);

/** The text of a stream of so many tokens, a word each. */
export function longText(tokens) {
  let text = "";
  for (let index = 0; index < tokens; index++) text += WORDS[index % WORDS.length];
  return text;
}

const sse = (event, name) =>
  Buffer.from(`${name ? `event: ${name}\n` : ""}data: ${JSON.stringify(event)}\n\n`);
const line = (value) => Buffer.from(`${JSON.stringify(value)}\n`);

/** The events of an answer of so many tokens, one token a delta. */
export function longStream(api, tokens) {
  const { head, delta, tail } = shapes[api](tokens);
  const events = [...head];
  for (let index = 0; index < tokens; index++) events.push(delta(WORDS[index % WORDS.length], index));
  return [...events, ...tail];
}

const shapes = {
  "anthropic-messages": (tokens) => {
    const named = (event) => sse(event, event.type);
    return {
      head: [
        named({
          type: "message_start",
          message: {
            id: "msg_long",
            type: "message",
            role: "assistant",
            model: "long",
            content: [],
            stop_reason: null,
            stop_sequence: null,
            usage: { input_tokens: 9, output_tokens: 1 },
          },
        }),
        named({ type: "content_block_start", index: 0, content_block: { type: "text", text: "" } }),
      ],
      delta: (text) => named({ type: "content_block_delta", index: 0, delta: { type: "text_delta", text } }),
      tail: [
        named({ type: "content_block_stop", index: 0 }),
        named({
          type: "message_delta",
          delta: { stop_reason: "end_turn", stop_sequence: null },
          usage: { output_tokens: tokens },
        }),
        named({ type: "message_stop" }),
      ],
    };
  },
  "openai-completions": (tokens) => {
    const chunk = (delta, finish_reason = null) => ({
      id: "chatcmpl-long",
      object: "chat.completion.chunk",
      created: 1790000000,
      model: "long",
      service_tier: "default",
      system_fingerprint: "fp_1",
      choices: [{ index: 0, delta, logprobs: null, finish_reason }],
      usage: null,
    });
    const usage = { prompt_tokens: 9, completion_tokens: tokens, total_tokens: tokens + 9 };
    return {
      head: [sse(chunk({ role: "assistant", content: "", refusal: null }))],
      delta: (content) => sse(chunk({ content })),
      tail: [
        sse(chunk({}, "stop")),
        sse({ ...chunk({}), choices: [], usage }),
        Buffer.from("data: [DONE]\n\n"),
      ],
    };
  },
  "openai-responses": (tokens) => {
    let sequence_number = 0;
    const named = (event) => sse({ ...event, sequence_number: sequence_number++ }, event.type);
    const text = longText(tokens);
    const item = { id: "msg_long", type: "message", role: "assistant" };
    const part = { type: "output_text", annotations: [], text: "" };
    const at = { item_id: "msg_long", output_index: 0, content_index: 0 };
    const response = { id: "resp_long", object: "response", created_at: 1790000000, model: "long" };
    const usage = {
      input_tokens: 9,
      input_tokens_details: { cached_tokens: 0 },
      output_tokens: tokens,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens: tokens + 9,
    };
    const done = { ...item, status: "completed", content: [{ ...part, text }] };
    return {
      head: [
        named({ type: "response.created", response: { ...response, status: "in_progress", output: [] } }),
        named({
          type: "response.output_item.added",
          output_index: 0,
          item: { ...item, status: "in_progress", content: [] },
        }),
        named({ type: "response.content_part.added", ...at, part }),
      ],
      delta: (delta) => named({ type: "response.output_text.delta", ...at, delta, logprobs: [] }),
      get tail() {
        return [
          named({ type: "response.output_text.done", ...at, text, logprobs: [] }),
          named({ type: "response.content_part.done", ...at, part: { ...part, text } }),
          named({ type: "response.output_item.done", output_index: 0, item: done }),
          named({
            type: "response.completed",
            response: { ...response, status: "completed", output: [done], usage },
          }),
        ];
      },
    };
  },
  "google-generative-ai": (tokens) => {
    const chunk = (text, finishReason) => ({
      candidates: [
        { content: { parts: [{ text }], role: "model" }, index: 0, ...(finishReason && { finishReason }) },
      ],
      usageMetadata: { promptTokenCount: 9, candidatesTokenCount: tokens, totalTokenCount: tokens + 9 },
      modelVersion: "long",
      responseId: "gr_long",
    });
    const framed = (value) => Buffer.from(`data: ${JSON.stringify(value)}\r\n\r\n`);
    return { head: [], delta: (text) => framed(chunk(text)), tail: [framed(chunk("", "STOP"))] };
  },
  ollama: (tokens) => {
    const part = (content) => ({
      model: "long",
      created_at: "2026-09-01T00:00:00Z",
      message: { role: "assistant", content },
      done: false,
    });
    const end = {
      ...part(""),
      done: true,
      done_reason: "stop",
      total_duration: 1,
      prompt_eval_count: 9,
      eval_count: tokens,
    };
    return { head: [], delta: (text) => line(part(text)), tail: [line(end)] };
  },
};
