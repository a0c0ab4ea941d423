// POST /v1/messages and /v1/messages/count_tokens
import { ApiError } from "./error.mjs";
import { pieces, tokens } from "./script.mjs";

const KEYS = new Set(
  "max_tokens messages model cache_control container context_management inference_geo mcp_servers metadata output_config service_tier stop_sequences stream system temperature thinking tool_choice tools top_k top_p".split(
    " ",
  ),
);
const VERSIONS = ["2023-01-01", "2023-06-01"];
const BLOCKS = {
  user: ["text", "image", "document", "tool_result", "search_result"],
  assistant: ["text", "tool_use", "thinking", "redacted_thinking"],
};
const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

function invalid(message) {
  return new ApiError(400, "invalid_request_error", message);
}

function field(value, at, expected, is) {
  if (value === undefined) throw invalid(`${at}: Field required`);
  if (!is(value)) throw invalid(`${at}: Input should be a valid ${expected}`);
}

const isString = (value) => typeof value === "string";

const common = {
  tooLarge: "request_too_large",

  authenticate({ apiKey }, headers) {
    const bearer = /^Bearer\s+(\S+)$/i.exec(headers.authorization ?? "")?.[1];
    const key = headers["x-api-key"] ?? bearer;
    if (!key) throw new ApiError(401, "authentication_error", "x-api-key header is required");
    if (key !== apiKey)
      throw new ApiError(
        401,
        "authentication_error",
        headers["x-api-key"] ? "invalid x-api-key" : "Invalid bearer token",
      );
    const version = headers["anthropic-version"];
    if (!version) throw invalid("anthropic-version: header is required");
    if (!VERSIONS.includes(version)) throw invalid(`anthropic-version: "${version}" is not a valid version`);
  },

  errorBody: ({ type, message }, requestId) => ({
    type: "error",
    error: { type, message },
    request_id: requestId,
  }),
  streamError: ({ type, message }) => ({ type: "error", error: { type, message } }),
  unknownUrl: (_method, _path, known) =>
    known
      ? new ApiError(405, "invalid_request_error", "Method Not Allowed")
      : new ApiError(404, "not_found_error", "Not found"),
  notJson: (why) => invalid(`The request body is not valid JSON: ${why}`),
  listModels: ({ models }) => ({
    data: models.map((id) => ({ type: "model", id, display_name: id, created_at: "2026-01-01T00:00:00Z" })),
    has_more: false,
    first_id: models[0],
    last_id: models.at(-1),
  }),
};

function check({ models }, body) {
  const stray = Object.keys(body).find((key) => !KEYS.has(key));
  if (stray) throw invalid(`${stray}: Extra inputs are not permitted`);
  field(body.model, "model", "string", isString);
  if (!models.includes(body.model)) throw new ApiError(404, "not_found_error", `model: ${body.model}`);
  field(body.messages, "messages", "list", Array.isArray);
  if (body.messages.length === 0) throw invalid("messages: at least one message is required");
  checkSystem(body.system);
  body.messages.forEach(checkMessage);
  if (body.messages[0].role !== "user") throw invalid('messages: first message must use the "user" role');
  checkLast(body.messages.at(-1));
  checkPairs(merged(body.messages));
  checkTools(body);
  const marks = JSON.stringify(body).match(/"cache_control":\{/g)?.length ?? 0;
  if (marks > 4) throw invalid(`A maximum of 4 blocks with cache_control may be provided. Found ${marks}.`);
}

function checkOptions(body) {
  field(body.max_tokens, "max_tokens", "integer", Number.isInteger);
  if (body.max_tokens < 1) throw invalid("max_tokens: must be greater than or equal to 1");
  if (body.temperature !== undefined && !(body.temperature >= 0 && body.temperature <= 1))
    throw invalid("temperature: range: 0..1");
  if (body.stream !== undefined && typeof body.stream !== "boolean")
    throw invalid("stream: Input should be a valid boolean");
  if (body.thinking?.type !== "enabled") return;
  if (!(body.thinking.budget_tokens >= 1024))
    throw invalid("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024");
  if (body.max_tokens <= body.thinking.budget_tokens)
    throw invalid("`max_tokens` must be greater than `thinking.budget_tokens`.");
}

export const anthropicMessages = {
  ...common,
  api: "anthropic-messages",
  path: "/v1/messages",

  check(state, body) {
    check(state, body);
    checkOptions(body);
  },

  turn(_state, { messages, tools, tool_choice }) {
    const last = messages.findLastIndex(({ role }) => role === "assistant");
    const names = new Map(
      blocks(messages[last]?.content)
        .filter(({ type }) => type === "tool_use")
        .map(({ id, name }) => [id, name]),
    );
    const since = messages.slice(last + 1).flatMap(({ content }) => blocks(content));
    const all = (tools ?? []).map(({ name }) => name);
    return {
      user: since
        .filter(({ type }) => type === "text")
        .map(({ text }) => text)
        .join("\n"),
      tools: tool_choice?.type === "none" ? [] : tool_choice?.type === "tool" ? [tool_choice.name] : all,
      toolResults: since
        .filter(({ type }) => type === "tool_result")
        .map((result) => ({
          id: result.tool_use_id,
          name: names.get(result.tool_use_id),
          text: blocks(result.content)
            .map(({ text }) => text ?? "")
            .join(""),
          isError: result.is_error === true,
        })),
    };
  },

  message(state, body, { text, toolCalls = [] }) {
    const content = [];
    if (text) content.push({ type: "text", text });
    for (const call of toolCalls)
      content.push({ type: "tool_use", id: state.nextId("toolu_"), name: call.name, input: call.arguments });
    return {
      id: state.nextId("msg_"),
      type: "message",
      role: "assistant",
      model: body.model,
      content,
      stop_reason: toolCalls.length ? "tool_use" : "end_turn",
      stop_sequence: null,
      usage: {
        input_tokens: inputTokens(body),
        cache_creation_input_tokens: 0,
        cache_read_input_tokens: 0,
        output_tokens: tokens(content),
        service_tier: "standard",
      },
    };
  },

  whole: (message) => message,

  *events(message) {
    const { usage } = message;
    yield {
      type: "message_start",
      message: { ...message, content: [], stop_reason: null, usage: { ...usage, output_tokens: 1 } },
    };
    for (const [index, block] of message.content.entries()) {
      const isText = block.type === "text";
      yield {
        type: "content_block_start",
        index,
        content_block: isText ? { type: "text", text: "" } : { ...block, input: {} },
      };
      if (index === 0) yield { type: "ping" };
      if (isText)
        for (const text of pieces(block.text))
          yield { type: "content_block_delta", index, delta: { type: "text_delta", text } };
      else
        for (const partial_json of ["", ...JSON.stringify(block.input).match(/.{1,12}/gsu)])
          yield { type: "content_block_delta", index, delta: { type: "input_json_delta", partial_json } };
      yield { type: "content_block_stop", index };
    }
    yield {
      type: "message_delta",
      delta: { stop_reason: message.stop_reason, stop_sequence: null },
      usage: { output_tokens: usage.output_tokens },
    };
    yield { type: "message_stop" };
  },
  frame: (event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`,
};

export const anthropicTokens = {
  ...common,
  api: "anthropic-messages",
  path: "/v1/messages/count_tokens",
  check,
  answer: (body) => ({ input_tokens: inputTokens(body) }),
};

function inputTokens({ messages, system = "", tools = [] }) {
  return tokens(messages) + tokens(system) + tokens(tools);
}

/** Content as a list of blocks: a bare string is one text block. */
function blocks(content) {
  if (content === undefined) return [];
  return typeof content === "string" ? [{ type: "text", text: content }] : content;
}

/** The API joins neighbours of one role into one message before it looks at them. */
function merged(messages) {
  const result = [];
  for (const { role, content } of messages) {
    const previous = result.at(-1);
    if (previous?.role === role) previous.content.push(...blocks(content));
    else result.push({ role, content: [...blocks(content)] });
  }
  return result;
}

function checkSystem(system) {
  if (system === undefined || isString(system)) return;
  field(system, "system", "list", Array.isArray);
  system.forEach((block, i) => {
    if (block?.type !== "text") throw invalid(`system.${i}.type: Input should be 'text'`);
    checkText(block, `system.${i}`, "system");
  });
}

function checkText(block, at, list) {
  field(block.text, `${at}.text`, "string", isString);
  if (block.text === "") throw invalid(`${list}: text content blocks must be non-empty`);
  if (block.text.trim() === "")
    throw invalid(`${list}: text content blocks must contain non-whitespace text`);
}

function checkMessage(message, index) {
  const at = `messages.${index}`;
  if (!isObject(message)) throw invalid(`${at}: Input should be a valid dictionary`);
  const { role, content } = message;
  field(role, `${at}.role`, "string", isString);
  if (role === "system")
    throw invalid(
      `messages: Unexpected role "system". The Messages API accepts a top-level \`system\` parameter, not "system" as an input message role.`,
    );
  if (role !== "user" && role !== "assistant")
    throw invalid(`messages: Unexpected role "${role}". Allowed roles are "user" or "assistant"`);
  const stray = Object.keys(message).find((key) => key !== "role" && key !== "content");
  if (stray) throw invalid(`${at}.${stray}: Extra inputs are not permitted`);
  field(content, `${at}.content`, "list", (value) => isString(value) || Array.isArray(value));
  if (content.length === 0) throw invalid(`${at}: ${role} messages must have non-empty content`);
  if (isString(content)) return checkText({ text: content }, at, "messages");
  content.forEach((block, i) => {
    const where = `${at}.content.${i}`;
    if (!BLOCKS[role].includes(block?.type)) {
      throw invalid(
        `${where}: Input tag '${block?.type}' found using 'type' does not match any of the expected tags: ${BLOCKS[role].map((tag) => `'${tag}'`).join(", ")}`,
      );
    }
    if (block.type === "text") checkText(block, where, "messages");
    if (block.type === "tool_use") {
      field(block.id, `${where}.tool_use.id`, "string", isString);
      if (!/^[a-zA-Z0-9_-]+$/.test(block.id))
        throw invalid(`${where}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'`);
      field(block.name, `${where}.tool_use.name`, "string", isString);
      field(block.input, `${where}.tool_use.input`, "dictionary", isObject);
    }
    if (block.type === "tool_result")
      field(block.tool_use_id, `${where}.tool_result.tool_use_id`, "string", isString);
    if (block.type === "thinking") field(block.signature, `${where}.thinking.signature`, "string", isString);
  });
}

function checkLast({ role, content }) {
  const last = blocks(content).at(-1);
  if (role === "assistant" && last.type === "text" && /\s$/.test(last.text))
    throw invalid("messages: final assistant content cannot end with trailing whitespace");
}

/** Each tool_use is answered at the head of the next message, and each tool_result answers one. */
function checkPairs(messages) {
  const seen = new Set();
  messages.forEach(({ content }, index) => {
    const ids = content.filter(({ type }) => type === "tool_use").map(({ id }) => id);
    for (const id of ids) {
      if (seen.has(id)) throw invalid("messages: `tool_use` ids must be unique");
      seen.add(id);
    }
    const next = messages[index + 1]?.content ?? [];
    const head = next
      .slice(0, next.findIndex(({ type }) => type !== "tool_result") >>> 0)
      .map((block) => block.tool_use_id);
    const open = ids.filter((id) => !head.includes(id));
    if (open.length) {
      throw invalid(
        `messages.${index}: \`tool_use\` ids were found without \`tool_result\` blocks immediately after: ${open.join(", ")}. Each \`tool_use\` block must have a corresponding \`tool_result\` block in the next message.`,
      );
    }
    const asked = (messages[index - 1]?.content ?? [])
      .filter(({ type }) => type === "tool_use")
      .map(({ id }) => id);
    content.forEach((block, i) => {
      if (block.type === "tool_result" && !asked.includes(block.tool_use_id)) {
        throw invalid(
          `messages.${index}.content.${i}: unexpected \`tool_use_id\` found in \`tool_result\` blocks: ${block.tool_use_id}. Each \`tool_result\` block must have a corresponding \`tool_use\` block in the previous message.`,
        );
      }
    });
    const answers = content.filter(({ type }) => type === "tool_result").map((block) => block.tool_use_id);
    if (new Set(answers).size < answers.length)
      throw invalid(
        `messages.${index}.content: each tool_use must have a single result. Found multiple \`tool_result\` blocks for one id`,
      );
  });
}

function checkTools({ tools, tool_choice, messages }) {
  if (tools === undefined) {
    if (tool_choice !== undefined) throw invalid("tool_choice: may only be specified while providing tools");
    const used = messages.some(({ content }) =>
      blocks(content).some(({ type }) => type === "tool_use" || type === "tool_result"),
    );
    if (used) throw invalid("Requests which include `tool_use` or `tool_result` blocks must define tools");
    return;
  }
  field(tools, "tools", "list", Array.isArray);
  tools.forEach((tool, i) => {
    const at = `tools.${i}.custom`;
    if (tool?.type !== undefined && tool.type !== "custom")
      throw invalid(
        `tools.${i}: Input tag '${tool.type}' found using 'type' does not match any of the expected tags: 'custom'`,
      );
    field(tool?.name, `${at}.name`, "string", isString);
    if (!/^[a-zA-Z0-9_-]{1,128}$/.test(tool.name))
      throw invalid(`${at}.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'`);
    field(tool.input_schema, `${at}.input_schema`, "dictionary", isObject);
    field(tool.input_schema.type, `${at}.input_schema.type`, "string", isString);
    if (tool.input_schema.type !== "object")
      throw invalid(`${at}.input_schema.type: Input should be 'object'`);
  });
  const names = tools.map(({ name }) => name);
  if (new Set(names).size < names.length) throw invalid("tools: Tool names must be unique.");
  if (tool_choice === undefined) return;
  if (!["auto", "any", "tool", "none"].includes(tool_choice?.type)) {
    throw invalid(
      `tool_choice: Input tag '${tool_choice?.type}' found using 'type' does not match any of the expected tags: 'auto', 'any', 'tool', 'none'`,
    );
  }
  if (tool_choice.type === "tool" && !names.includes(tool_choice.name))
    throw invalid(`Tool '${tool_choice.name}' not found in provided tools`);
}
