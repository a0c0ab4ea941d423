// POST /v1/responses
import {
  atLeast,
  between,
  checkFunction,
  checkModel,
  invalid,
  isObject,
  isString,
  offered,
  oneOf,
  openaiCommon,
  optional,
  require,
  textOf,
} from "./openai.mjs";
import { pieces, tokens } from "./script.mjs";

const KEYS = new Set(
  "background context_management conversation include input instructions max_output_tokens max_tool_calls metadata model moderation parallel_tool_calls previous_response_id prompt prompt_cache_key prompt_cache_options prompt_cache_retention reasoning safety_identifier service_tier store stream stream_options temperature text tool_choice tools top_logprobs top_p truncation user".split(
    " ",
  ),
);
const ROLES = ["assistant", "system", "developer", "user"];
const ITEMS = ["message", "function_call", "function_call_output", "reasoning", "item_reference"];
const PARTS = {
  assistant: ["output_text", "refusal"],
  user: ["input_text", "input_image", "input_file"],
  system: ["input_text"],
  developer: ["input_text"],
};

export const openaiResponses = {
  ...openaiCommon,
  api: "openai-responses",
  path: "/v1/responses",

  check(state, body) {
    const stray = Object.keys(body).find((key) => !KEYS.has(key));
    if (stray) throw invalid(`Unknown parameter: '${stray}'.`, stray, "unknown_parameter");
    checkModel(state, body);
    if (body.previous_response_id != null && !state.responses.has(body.previous_response_id)) {
      throw invalid(
        `Previous response with id '${body.previous_response_id}' not found.`,
        "previous_response_id",
        "previous_response_not_found",
      );
    }
    require(body.input, "input", "a string or an array of objects", (value) =>
      isString(value) || Array.isArray(value));
    const items = conversation(state, body);
    if (items.length === 0)
      throw invalid(
        "One of \"input\" or \"previous_response_id\" or 'prompt' or 'conversation_id' must be provided.",
        "input",
        "missing_required_parameter",
      );
    if (Array.isArray(body.input)) body.input.forEach(checkItem);
    checkPairs(items);
    optional(body.stream, "stream", "a boolean", (value) => typeof value === "boolean");
    atLeast(body.max_output_tokens, "max_output_tokens", 16);
    between(body.temperature, "temperature", 0, 2);
    between(body.top_p, "top_p", 0, 1);
    optional(body.tools, "tools", "an array of objects", Array.isArray);
    body.tools?.forEach((tool, index) => {
      require(tool?.type, `tools[${index}].type`, "a string", isString);
      oneOf(tool.type, `tools[${index}].type`, ["function"]);
      checkFunction(tool, `tools[${index}]`);
    });
  },

  turn(state, body) {
    const items = conversation(state, body);
    const last = items.findLastIndex((item) => item.type === "function_call" || item.role === "assistant");
    const names = new Map(
      items.filter((item) => item.type === "function_call").map((item) => [item.call_id, item.name]),
    );
    const since = items.slice(last + 1);
    return {
      user: since
        .filter(({ role }) => role === "user")
        .map(({ content }) => textOf(content))
        .join("\n"),
      tools: offered(
        (body.tools ?? []).map(({ name }) => name),
        body.tool_choice,
        (choice) => choice.name,
      ),
      toolResults: since
        .filter(({ type }) => type === "function_call_output")
        .map((item) => ({
          id: item.call_id,
          name: names.get(item.call_id),
          text: textOf(item.output),
          isError: false,
        })),
    };
  },

  message(state, body, { text, toolCalls = [] }) {
    const output = [];
    if (text)
      output.push({
        type: "message",
        id: state.nextId("msg_"),
        status: "completed",
        role: "assistant",
        content: [{ type: "output_text", annotations: [], logprobs: [], text }],
      });
    for (const call of toolCalls) {
      output.push({
        type: "function_call",
        id: state.nextId("fc_"),
        call_id: state.nextId("call_"),
        name: call.name,
        arguments: JSON.stringify(call.arguments),
        status: "completed",
      });
    }
    const input =
      tokens(conversation(state, body)) + tokens(body.tools ?? []) + tokens(body.instructions ?? "");
    const used = tokens(output);
    const response = {
      id: state.nextId("resp_"),
      object: "response",
      created_at: Math.floor(Date.now() / 1000),
      status: "completed",
      error: null,
      incomplete_details: null,
      instructions: body.instructions ?? null,
      max_output_tokens: body.max_output_tokens ?? null,
      model: body.model,
      output,
      parallel_tool_calls: body.parallel_tool_calls ?? true,
      previous_response_id: body.previous_response_id ?? null,
      reasoning: { effort: null, summary: null },
      store: body.store ?? true,
      temperature: body.temperature ?? 1,
      text: { format: { type: "text" } },
      tool_choice: body.tool_choice ?? "auto",
      tools: body.tools ?? [],
      top_p: body.top_p ?? 1,
      truncation: "disabled",
      usage: {
        input_tokens: input,
        input_tokens_details: { cached_tokens: 0 },
        output_tokens: used,
        output_tokens_details: { reasoning_tokens: 0 },
        total_tokens: input + used,
      },
      metadata: body.metadata ?? {},
    };
    if (response.store) state.responses.set(response.id, [...conversation(state, body), ...output]);
    return response;
  },

  whole: (response) => response,

  *events(response) {
    let sequence = 0;
    const event = (type, fields) => ({ type, sequence_number: sequence++, ...fields });
    const started = { ...response, status: "in_progress", output: [], usage: null };
    yield event("response.created", { response: started });
    yield event("response.in_progress", { response: started });
    for (const [output_index, item] of response.output.entries()) {
      const at = { item_id: item.id, output_index };
      if (item.type === "message") {
        const [part] = item.content;
        yield event("response.output_item.added", {
          output_index,
          item: { ...item, status: "in_progress", content: [] },
        });
        yield event("response.content_part.added", { ...at, content_index: 0, part: { ...part, text: "" } });
        for (const delta of pieces(part.text))
          yield event("response.output_text.delta", { ...at, content_index: 0, delta, logprobs: [] });
        yield event("response.output_text.done", { ...at, content_index: 0, text: part.text, logprobs: [] });
        yield event("response.content_part.done", { ...at, content_index: 0, part });
      } else {
        yield event("response.output_item.added", {
          output_index,
          item: { ...item, status: "in_progress", arguments: "" },
        });
        for (const delta of item.arguments.match(/.{1,12}/gsu))
          yield event("response.function_call_arguments.delta", { ...at, delta });
        yield event("response.function_call_arguments.done", {
          ...at,
          name: item.name,
          arguments: item.arguments,
        });
      }
      yield event("response.output_item.done", { output_index, item });
    }
    yield event("response.completed", { response });
  },
  frame: (event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`,
  streamError: ({ type, message, param }) => ({
    type: "error",
    code: type,
    message,
    param,
    sequence_number: 0,
  }),
};

/** Everything that was said, with what an earlier response holds. */
function conversation(state, { input, previous_response_id }) {
  const own = isString(input) ? [{ type: "message", role: "user", content: input }] : input;
  return [...(state.responses.get(previous_response_id) ?? []), ...own];
}

function checkItem(item, index) {
  const at = `input[${index}]`;
  if (!isObject(item)) throw invalid(`Invalid type for '${at}': expected an object.`, at, "invalid_type");
  const type = item.type ?? (item.role ? "message" : undefined);
  require(type, `${at}.type`, "a string", isString);
  oneOf(type, `${at}.type`, ITEMS);
  if (type === "message") {
    require(item.role, `${at}.role`, "a string", isString);
    oneOf(item.role, `${at}.role`, ROLES);
    require(item.content, `${at}.content`, "a string or an array of objects", (value) =>
      isString(value) || Array.isArray(value));
    if (Array.isArray(item.content)) {
      item.content.forEach((part, i) => {
        require(part?.type, `${at}.content[${i}].type`, "a string", isString);
        oneOf(part.type, `${at}.content[${i}].type`, PARTS[item.role]);
        if (part.type.endsWith("_text")) require(part.text, `${at}.content[${i}].text`, "a string", isString);
      });
    }
  }
  if (type === "function_call")
    for (const key of ["call_id", "name", "arguments"])
      require(item[key], `${at}.${key}`, "a string", isString);
  if (type === "function_call_output") {
    require(item.call_id, `${at}.call_id`, "a string", isString);
    require(item.output, `${at}.output`, "a string or an array of objects", (value) =>
      isString(value) || Array.isArray(value));
  }
}

function checkPairs(items) {
  const calls = new Set();
  const answered = new Set();
  for (const item of items) {
    if (item.type === "function_call") calls.add(item.call_id);
    if (item.type !== "function_call_output") continue;
    if (!calls.has(item.call_id))
      throw invalid(`No tool call found for function call output with call_id ${item.call_id}.`, "input");
    answered.add(item.call_id);
  }
  const open = [...calls].find((id) => !answered.has(id));
  if (open) throw invalid(`No tool output found for function call ${open}.`, "input");
}
