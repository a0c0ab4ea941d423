// POST /api/chat and GET /api/tags, as Ollama's API reference (https://docs.ollama.com/api) and server have them.
import { ApiError } from "../model/error.mjs";

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

function invalid(message) {
  return new ApiError(400, "", message);
}

/** What Go's decoder says of a value of the wrong kind. */
function wrongKind(value, field, type) {
  const kind = Array.isArray(value) ? "array" : value === null ? "null" : typeof value;
  return invalid(`json: cannot unmarshal ${kind} into Go struct field ${field} of type ${type}`);
}

export const ollama = {
  api: "ollama",
  tooLarge: "",

  // A server on the own machine asks for no key; one behind a gateway, or ollama.com, does.
  authenticate({ apiKey }, headers) {
    if (headers.authorization !== undefined && headers.authorization !== `Bearer ${apiKey}`)
      throw new ApiError(401, "", "unauthorized");
  },

  errorBody: ({ message }) => ({ error: message }),
  notJson: (why) => invalid(`invalid character: ${why}`),
  unknownUrl: () => new ApiError(404, "", "404 page not found"),
  listModels: ({ models }) => ({
    models: models.map((id) => ({
      name: id,
      model: id,
      modified_at: "2026-01-01T00:00:00Z",
      size: 1,
      digest: "0",
      details: {},
    })),
  }),

  check(_state, body) {
    if (typeof body.model !== "string" || body.model === "") throw invalid("model is required");
    if (body.messages !== undefined && !Array.isArray(body.messages))
      throw wrongKind(body.messages, "ChatRequest.messages", "[]api.Message");
    for (const message of body.messages ?? []) checkMessage(message);
    if (body.options !== undefined) checkOptions(body.options);
    if (
      body.think !== undefined &&
      typeof body.think !== "boolean" &&
      !["low", "medium", "high", "max"].includes(body.think)
    )
      throw invalid(
        `invalid think value: "${body.think}" (must be "high", "medium", "low", "max", true, or false)`,
      );
    if (body.format !== undefined && body.format !== "json" && !isObject(body.format))
      throw invalid(`invalid format: "${body.format}"; expected "json" or a valid JSON Schema object`);
    for (const tool of body.tools ?? []) {
      if (tool?.type !== "function" || !tool.function?.name) throw invalid("invalid tool");
      if (!isObject(tool.function.parameters))
        throw wrongKind(tool.function.parameters, "Tool.function.parameters", "api.ToolFunctionParameters");
    }
  },
};

function checkMessage(message) {
  if (!isObject(message)) throw wrongKind(message, "ChatRequest.messages", "api.Message");
  if (!["system", "user", "assistant", "tool"].includes(message.role))
    throw invalid(`invalid role: ${message.role}`);
  if (message.content !== undefined && typeof message.content !== "string")
    throw wrongKind(message.content, "Message.content", "string");
  for (const image of message.images ?? [])
    if (!BASE64.test(image)) throw invalid("illegal base64 data at input byte 4");
  for (const call of message.tool_calls ?? []) {
    if (!isObject(call.function?.arguments))
      throw wrongKind(
        call.function?.arguments,
        "ToolCallFunction.arguments",
        "api.ToolCallFunctionArguments",
      );
  }
}

function checkOptions(options) {
  if (!isObject(options)) throw wrongKind(options, "ChatRequest.options", "map[string]interface {}");
  for (const key of ["num_predict", "num_ctx", "top_k", "seed"])
    if (options[key] !== undefined && !Number.isInteger(options[key]))
      throw invalid(`option "${key}" must be of type integer`);
  if (
    options.stop !== undefined &&
    !(Array.isArray(options.stop) && options.stop.every((text) => typeof text === "string"))
  )
    throw invalid('option "stop" must be of type array of strings');
}
