// POST /v1/chat/completions
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
  "messages model audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens metadata modalities moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity web_search_options".split(
    " ",
  ),
);
const ROLES = ["system", "assistant", "user", "function", "tool", "developer"];
const PARTS = {
  user: ["text", "image_url", "input_audio", "file"],
  assistant: ["text", "refusal"],
  tool: ["text"],
  system: ["text"],
  developer: ["text"],
  function: ["text"],
};

export const openaiChat = {
  ...openaiCommon,
  api: "openai-completions",
  path: "/v1/chat/completions",

  check(state, body) {
    const stray = Object.keys(body).find((key) => !KEYS.has(key));
    if (stray) throw invalid(`Unrecognized request argument supplied: ${stray}`);
    checkModel(state, body);
    require(body.messages, "messages", "an array of objects", Array.isArray);
    if (body.messages.length === 0)
      throw invalid(
        "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
        "messages",
        "empty_array",
      );
    body.messages.forEach(checkMessage);
    checkPairs(body.messages);
    optional(body.stream, "stream", "a boolean", (value) => typeof value === "boolean");
    if (body.stream_options && body.stream !== true)
      throw invalid(
        "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
        "stream_options",
      );
    if (body.max_tokens != null && body.max_completion_tokens != null) {
      throw invalid(
        "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
        "max_tokens",
        "invalid_parameter_combination",
      );
    }
    atLeast(body.max_tokens, "max_tokens", 1);
    atLeast(body.max_completion_tokens, "max_completion_tokens", 1);
    between(body.temperature, "temperature", 0, 2);
    between(body.top_p, "top_p", 0, 1);
    if (body.n != null && body.n !== 1)
      throw invalid("This server gives one choice: 'n' must be 1.", "n", "unsupported_value");
    checkTools(body);
  },

  turn(_state, { messages, tools, tool_choice }) {
    const last = messages.findLastIndex(({ role }) => role === "assistant");
    const names = new Map((messages[last]?.tool_calls ?? []).map((call) => [call.id, call.function.name]));
    const since = messages.slice(last + 1);
    return {
      user: since
        .filter(({ role }) => role === "user")
        .map(({ content }) => textOf(content))
        .join("\n"),
      tools: offered(
        (tools ?? []).map((tool) => tool.function.name),
        tool_choice,
        (choice) => choice.function?.name,
      ),
      toolResults: since
        .filter(({ role }) => role === "tool")
        .map((result) => ({
          id: result.tool_call_id,
          name: names.get(result.tool_call_id),
          text: textOf(result.content),
          isError: false,
        })),
    };
  },

  message(state, body, { text, toolCalls = [] }) {
    const calls = toolCalls.map((call) => ({
      id: state.nextId("call_"),
      type: "function",
      function: { name: call.name, arguments: JSON.stringify(call.arguments) },
    }));
    const prompt = tokens(body.messages) + tokens(body.tools ?? []);
    const completion = tokens(text ?? "") + tokens(calls);
    return {
      id: state.nextId("chatcmpl-"),
      created: Math.floor(Date.now() / 1000),
      model: body.model,
      text: text ?? null,
      calls,
      finish: calls.length ? "tool_calls" : "stop",
      usage: {
        prompt_tokens: prompt,
        completion_tokens: completion,
        total_tokens: prompt + completion,
        prompt_tokens_details: { cached_tokens: 0 },
        completion_tokens_details: { reasoning_tokens: 0 },
      },
    };
  },

  whole: ({ id, created, model, text, calls, finish, usage }) => ({
    id,
    object: "chat.completion",
    created,
    model,
    choices: [
      {
        index: 0,
        message: {
          role: "assistant",
          content: text,
          refusal: null,
          ...(calls.length ? { tool_calls: calls } : {}),
        },
        logprobs: null,
        finish_reason: finish,
      },
    ],
    usage,
  }),

  *events({ id, created, model, text, calls, finish, usage }, body) {
    const wantsUsage = body.stream_options?.include_usage === true;
    const chunk = (choices, used = null) => ({
      id,
      object: "chat.completion.chunk",
      created,
      model,
      choices,
      ...(wantsUsage ? { usage: used } : {}),
    });
    const delta = (value, reason = null) =>
      chunk([{ index: 0, delta: value, logprobs: null, finish_reason: reason }]);
    yield delta({ role: "assistant", content: text === null ? null : "", refusal: null });
    for (const piece of pieces(text ?? "")) yield delta({ content: piece });
    for (const [index, { id: callId, function: fn }] of calls.entries()) {
      yield delta({
        tool_calls: [{ index, id: callId, type: "function", function: { name: fn.name, arguments: "" } }],
      });
      for (const part of fn.arguments.match(/.{1,12}/gsu))
        yield delta({ tool_calls: [{ index, function: { arguments: part } }] });
    }
    yield delta({}, finish);
    if (wantsUsage) yield chunk([], usage);
  },
  frame: (event) => `data: ${JSON.stringify(event)}\n\n`,
  lastFrame: "data: [DONE]\n\n",
};

function checkMessage(message, index) {
  const at = `messages[${index}]`;
  if (!isObject(message)) throw invalid(`Invalid type for '${at}': expected an object.`, at, "invalid_type");
  require(message.role, `${at}.role`, "a string", isString);
  oneOf(message.role, `${at}.role`, ROLES);
  const calls = message.role === "assistant" && message.tool_calls != null;
  if (message.content === undefined || message.content === null) {
    if (
      message.role !== "assistant" ||
      !(calls || message.refusal || message.audio || message.function_call)
    ) {
      throw message.content === undefined
        ? invalid(
            `Missing required parameter: '${at}.content'.`,
            `${at}.content`,
            "missing_required_parameter",
          )
        : invalid(`Invalid value for 'content': expected a string, got null.`, `${at}.content`);
    }
  } else if (Array.isArray(message.content)) {
    message.content.forEach((part, i) => {
      require(part?.type, `${at}.content[${i}].type`, "a string", isString);
      oneOf(part.type, `${at}.content[${i}].type`, PARTS[message.role]);
      if (part.type === "text") require(part.text, `${at}.content[${i}].text`, "a string", isString);
    });
  } else if (!isString(message.content)) {
    throw invalid(
      `Invalid type for '${at}.content': expected one of a string or array of objects.`,
      `${at}.content`,
      "invalid_type",
    );
  }
  if (message.role === "tool") require(message.tool_call_id, `${at}.tool_call_id`, "a string", isString);
  if (!calls) return;
  optional(message.tool_calls, `${at}.tool_calls`, "an array of objects", Array.isArray);
  if (message.tool_calls.length === 0) {
    throw invalid(
      `Invalid '${at}.tool_calls': empty array. Expected an array with minimum length 1, but got an empty array instead.`,
      `${at}.tool_calls`,
      "empty_array",
    );
  }
  message.tool_calls.forEach((call, i) => {
    const where = `${at}.tool_calls[${i}]`;
    require(call.id, `${where}.id`, "a string", isString);
    require(call.type, `${where}.type`, "a string", isString);
    require(call.function, `${where}.function`, "an object", isObject);
    require(call.function.name, `${where}.function.name`, "a string", isString);
    require(call.function.arguments, `${where}.function.arguments`, "a string", isString);
  });
}

/** Every tool call is answered, right after the message that makes it, and nothing else is. */
function checkPairs(messages) {
  let open = new Set();
  let from = -1;
  const unanswered = () =>
    invalid(
      `An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The following tool_call_ids did not have response messages: ${[...open].join(", ")}`,
      `messages.[${from + 1}].role`,
    );
  let answering = false;
  messages.forEach((message, index) => {
    if (message.role === "tool") {
      if (!answering || !open.delete(message.tool_call_id)) {
        throw invalid(
          "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.",
          `messages.[${index}].role`,
        );
      }
      return;
    }
    if (open.size) throw unanswered();
    answering = message.role === "assistant" && Boolean(message.tool_calls);
    open = new Set(answering ? message.tool_calls.map(({ id }) => id) : []);
    from = index;
  });
  if (open.size) throw unanswered();
}

function checkTools({ tools, tool_choice, parallel_tool_calls }) {
  if (tools == null) {
    if (tool_choice != null && tool_choice !== "none")
      throw invalid(
        "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.",
        "tool_choice",
      );
    if (parallel_tool_calls != null)
      throw invalid(
        "Invalid value for 'parallel_tool_calls': 'parallel_tool_calls' is only allowed when 'tools' are specified.",
        "parallel_tool_calls",
      );
    return;
  }
  optional(tools, "tools", "an array of objects", Array.isArray);
  if (tools.length === 0)
    throw invalid(
      "Invalid 'tools': empty array. Expected an array with minimum length 1, but got an empty array instead.",
      "tools",
      "empty_array",
    );
  if (tools.length > 128)
    throw invalid(
      `Invalid 'tools': array too long. Expected an array with maximum length 128, but got an array with length ${tools.length} instead.`,
      "tools",
      "array_above_max_length",
    );
  tools.forEach((tool, index) => {
    require(tool?.type, `tools[${index}].type`, "a string", isString);
    oneOf(tool.type, `tools[${index}].type`, ["function", "custom"]);
    require(tool[tool.type], `tools[${index}].${tool.type}`, "an object", isObject);
    checkFunction(tool[tool.type], `tools[${index}].${tool.type}`);
  });
}
