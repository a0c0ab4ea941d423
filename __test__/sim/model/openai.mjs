// What OpenAI's endpoints share: authentication, error bodies, and checks in the words of the API.
import { ApiError } from "./error.mjs";

const TYPE = "invalid_request_error";

/** A 400 in OpenAI's shape. */
export function invalid(message, param = null, code = null) {
  return new ApiError(400, TYPE, message, { param, code });
}

export const openaiCommon = {
  tooLarge: TYPE,

  authenticate({ apiKey }, headers) {
    const key = /^Bearer\s+(\S+)$/i.exec(headers.authorization ?? "")?.[1];
    if (!key) {
      throw new ApiError(
        401,
        TYPE,
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
      );
    }
    if (key !== apiKey)
      throw new ApiError(401, TYPE, `Incorrect API key provided: ${key.slice(0, 3)}***${key.slice(-4)}.`, {
        code: "invalid_api_key",
      });
  },

  errorBody: ({ message, type, param, code }) => ({ error: { message, type, param, code } }),
  streamError: ({ message, type, param, code }) => ({ error: { message, type, param, code } }),
  unknownUrl: (method, path, known) =>
    known
      ? new ApiError(405, TYPE, `Not allowed to ${method} on ${path}.`, { code: "method_not_supported" })
      : new ApiError(404, TYPE, `Invalid URL (${method} ${path})`),
  notJson: (why) => invalid(`We could not parse the JSON body of your request: ${why}.`),
  listModels: ({ models }) => ({
    object: "list",
    data: models.map((id) => ({ id, object: "model", created: 0, owned_by: "openclaw-core" })),
  }),
};

/** What a value is called in OpenAI's messages. */
export function kind(value) {
  if (value === null) return "null";
  if (Array.isArray(value)) return value.length ? "an array" : "an empty array";
  if (typeof value === "number") return Number.isInteger(value) ? "an integer" : "a decimal";
  return { object: "an object", string: value === "" ? "an empty string" : "a string", boolean: "a boolean" }[
    typeof value
  ];
}

/** `value` must be there and of the kind that `is` accepts. */
export function require(value, param, expected, is) {
  if (value === undefined)
    throw invalid(`Missing required parameter: '${param}'.`, param, "missing_required_parameter");
  optional(value, param, expected, is);
}

/** `value` may be absent or null, else `is` must accept it. */
export function optional(value, param, expected, is) {
  if (value === undefined || value === null || is(value)) return;
  throw invalid(
    `Invalid type for '${param}': expected ${expected}, but got ${kind(value)} instead.`,
    param,
    "invalid_type",
  );
}

export function oneOf(value, param, allowed) {
  if (allowed.includes(value)) return;
  const list = allowed.map((item) => `'${item}'`);
  throw invalid(
    `Invalid value: '${value}'. Supported values are: ${list.slice(0, -1).join(", ")}${list.length > 1 ? ", and " : ""}${list.at(-1)}.`,
    param,
    "invalid_value",
  );
}

export function between(value, param, low, high) {
  optional(value, param, "a decimal", (v) => typeof v === "number");
  if (typeof value !== "number") return;
  if (value < low)
    throw invalid(
      `Invalid '${param}': decimal below minimum value. Expected a value >= ${low}, but got ${value} instead.`,
      param,
      "decimal_below_min_value",
    );
  if (value > high)
    throw invalid(
      `Invalid '${param}': decimal above maximum value. Expected a value <= ${high}, but got ${value} instead.`,
      param,
      "decimal_above_max_value",
    );
}

export function atLeast(value, param, low) {
  optional(value, param, "an integer", Number.isInteger);
  if (Number.isInteger(value) && value < low) {
    throw invalid(
      `Invalid '${param}': integer below minimum value. Expected a value >= ${low}, but got ${value} instead.`,
      param,
      "integer_below_min_value",
    );
  }
}

export const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
export const isString = (value) => typeof value === "string";

export function checkModel({ models }, { model }) {
  if (model === undefined || model === "") throw invalid("you must provide a model parameter");
  optional(model, "model", "a string", isString);
  if (!models.includes(model)) {
    throw new ApiError(404, TYPE, `The model \`${model}\` does not exist or you do not have access to it.`, {
      code: "model_not_found",
    });
  }
}

/** A function's name and schema; `at` is where they stand in the request. */
export function checkFunction({ name, parameters, strict }, at) {
  require(name, `${at}.name`, "a string", isString);
  if (!/^[a-zA-Z0-9_-]+$/.test(name)) {
    throw invalid(
      `Invalid '${at}.name': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.`,
      `${at}.name`,
      "invalid_value",
    );
  }
  if (name.length > 64) {
    throw invalid(
      `Invalid '${at}.name': string too long. Expected a string with maximum length 64, but got a string with length ${name.length} instead.`,
      `${at}.name`,
      "string_above_max_length",
    );
  }
  optional(parameters, `${at}.parameters`, "an object", isObject);
  if (!parameters) return;
  const refuse = (why) =>
    invalid(
      `Invalid schema for function '${name}': ${why}`,
      `${at}.parameters`,
      "invalid_function_parameters",
    );
  if (parameters.type !== "object")
    throw refuse(
      `schema must be a JSON Schema of 'type: "object"', got 'type: "${parameters.type ?? "None"}"'.`,
    );
  if (strict === true) {
    if (parameters.additionalProperties !== false)
      throw refuse("In context=(), 'additionalProperties' is required to be supplied and to be false.");
    const missing = Object.keys(parameters.properties ?? {}).find(
      (key) => !(parameters.required ?? []).includes(key),
    );
    if (missing)
      throw refuse(
        `In context=(), 'required' is required to be supplied and to be an array including every key in properties. Missing '${missing}'.`,
      );
  }
  const untyped = Object.entries(parameters.properties ?? {}).find(
    ([, schema]) => isObject(schema) && schema.type === "array" && schema.items === undefined,
  );
  if (untyped) throw refuse(`In context=('properties', '${untyped[0]}'), array schema missing items.`);
}

/** `tool_choice` must agree with the tools; gives the names on offer. */
export function offered(names, choice, chosen) {
  if (choice === undefined || choice === null) return names;
  if (names.length === 0 && choice !== "none" && choice !== "auto")
    throw invalid(
      "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.",
      "tool_choice",
    );
  if (typeof choice === "string") {
    oneOf(choice, "tool_choice", ["none", "auto", "required"]);
    return choice === "none" ? [] : names;
  }
  const name = chosen(choice);
  if (!names.includes(name))
    throw invalid(`Tool choice '${name}' not found in 'tools' parameter.`, "tool_choice");
  return [name];
}

/** The text of a content that is a string or a list of parts with a `text`. */
export function textOf(content) {
  if (typeof content === "string") return content;
  return (content ?? []).map((part) => part.text ?? part.refusal ?? "").join("");
}
