// POST /v1beta/models/{model}:generateContent and :streamGenerateContent, GET /v1beta/models, as the Gemini API
// reference (https://ai.google.dev/api/generate-content) has them.
import { ApiError } from "../model/error.mjs";

const KEYS = new Set(
  "contents systemInstruction system_instruction tools toolConfig tool_config safetySettings generationConfig generation_config cachedContent serviceTier store".split(
    " ",
  ),
);
const CONFIG = new Set(
  "stopSequences responseMimeType responseSchema responseJsonSchema responseModalities candidateCount maxOutputTokens temperature topP topK seed presencePenalty frequencyPenalty responseLogprobs logprobs enableEnhancedCivicAnswers speechConfig thinkingConfig imageConfig mediaResolution".split(
    " ",
  ),
);
const PART = new Set(
  "text inlineData inline_data functionCall functionResponse fileData executableCode codeExecutionResult thought thoughtSignature videoMetadata partMetadata mediaResolution".split(
    " ",
  ),
);
const DATA = [
  "text",
  "inlineData",
  "functionCall",
  "functionResponse",
  "fileData",
  "executableCode",
  "codeExecutionResult",
];
// The bytes of a protocol buffer in JSON may be in either alphabet.
const BYTES = /^[A-Za-z0-9+/_-]+={0,2}$/;
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;
const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

function invalid(message) {
  return new ApiError(400, "INVALID_ARGUMENT", message);
}

function known(value, keys, at) {
  for (const key of Object.keys(value)) {
    if (!keys.has(key))
      throw invalid(
        `Invalid JSON payload received. Unknown name "${key}"${at ? ` at '${at}'` : ""}: Cannot find field.`,
      );
  }
}

export const gemini = {
  api: "google-generative-ai",
  tooLarge: "INVALID_ARGUMENT",

  authenticate({ apiKey }, headers, url) {
    const key = headers["x-goog-api-key"] ?? url.searchParams.get("key");
    if (!key)
      throw new ApiError(
        403,
        "PERMISSION_DENIED",
        "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or other form of API consumer identity to call this API.",
      );
    if (key !== apiKey) throw invalid("API key not valid. Please pass a valid API key.");
  },

  errorBody: ({ status, type, message }) => ({ error: { code: status, message, status: type } }),
  notJson: (why) => invalid(`Invalid JSON payload received. ${why}`),
  unknownUrl: () => new ApiError(404, "NOT_FOUND", "Requested entity was not found."),
  listModels: ({ models }) => ({
    models: models.map((id) => ({
      name: `models/${id}`,
      displayName: id,
      inputTokenLimit: 1048576,
      outputTokenLimit: 65536,
      supportedGenerationMethods: ["generateContent", "countTokens"],
    })),
  }),

  check(_state, body) {
    known(body, KEYS, "");
    if (!Array.isArray(body.contents) || body.contents.length === 0)
      throw invalid("* GenerateContentRequest.contents: contents is not specified\n");
    let calls = [];
    body.contents.forEach((content, index) => {
      const at = `contents[${index}]`;
      if (!isObject(content))
        throw invalid(
          `Invalid value at '${at}' (type.googleapis.com/google.ai.generativelanguage.v1beta.Content)`,
        );
      known(content, new Set(["role", "parts"]), at);
      if (!["user", "model"].includes(content.role)) throw invalid("Please use a valid role: user, model.");
      if (!Array.isArray(content.parts) || content.parts.length === 0)
        throw invalid(`* GenerateContentRequest.${at}.parts: contents.parts must not be empty.\n`);
      for (const [i, part] of content.parts.entries()) checkPart(part, `${at}.parts[${i}]`);
      const responses = content.parts.filter((part) => part.functionResponse);
      if (content.role === "user" && (calls.length || responses.length)) {
        if (responses.length !== calls.length)
          throw invalid(
            "Please ensure that the number of function response parts is equal to the number of function call parts of the function call turn.",
          );
        responses.forEach(({ functionResponse: { id, name } }, i) => {
          if (name !== calls[i].name || (id !== undefined && id !== calls[i].id))
            throw invalid(
              "Please ensure that function response turn comes immediately after a function call turn.",
            );
        });
      }
      calls = content.role === "model" ? content.parts.flatMap((part) => part.functionCall ?? []) : [];
    });
    if (calls.length || body.contents.at(-1).role !== "user")
      throw invalid(
        "Please ensure that single turn requests end with a user role or the role field is empty.",
      );
    checkTools(body);
    checkConfig(body.generationConfig ?? {});
  },
};

function checkPart(part, at) {
  if (!isObject(part)) throw invalid(`Invalid value at '${at}'`);
  known(part, PART, at);
  const data = DATA.filter((key) => part[key] !== undefined);
  if (data.length !== 1)
    throw invalid(
      `* GenerateContentRequest.${at}.data: required oneof field 'data' must have one initialized field\n`,
    );
  if (
    part.inlineData &&
    (!part.inlineData.mimeType || !BASE64.test(part.inlineData.data ?? "") || !part.inlineData.data)
  )
    throw invalid(`Invalid value at '${at}.inline_data.data' (TYPE_BYTES), Base64 decoding failed`);
  if (part.thoughtSignature !== undefined && !BYTES.test(part.thoughtSignature))
    throw invalid(`Invalid value at '${at}.thought_signature' (TYPE_BYTES), Base64 decoding failed`);
  for (const field of ["functionCall", "functionResponse"]) {
    if (!part[field]) continue;
    if (!part[field].name)
      throw invalid(`* GenerateContentRequest.${at}.${field}.name: Name cannot be empty.\n`);
    const value = field === "functionCall" ? (part[field].args ?? {}) : part[field].response;
    if (!isObject(value))
      throw invalid(`Invalid value at '${at}.${field}' (type.googleapis.com/google.protobuf.Struct)`);
  }
}

function checkTools({ tools, toolConfig }) {
  if (tools === undefined) {
    if (toolConfig?.functionCallingConfig)
      throw invalid("Function calling config is set without function_declarations.");
    return;
  }
  tools.forEach((tool, i) => {
    tool.functionDeclarations?.forEach((fn, j) => {
      const at = `tools[${i}].function_declarations[${j}]`;
      known(
        fn,
        new Set([
          "name",
          "description",
          "parameters",
          "parametersJsonSchema",
          "behavior",
          "response",
          "responseJsonSchema",
        ]),
        at,
      );
      if (!/^[A-Za-z_][A-Za-z0-9_.:-]{0,127}$/.test(fn.name ?? ""))
        throw invalid(`* GenerateContentRequest.${at}.name: Invalid function name.\n`);
    });
  });
}

function checkConfig(config) {
  known(config, CONFIG, "generation_config");
  if (config.temperature !== undefined && !(config.temperature >= 0 && config.temperature <= 2))
    throw invalid(
      "* GenerateContentRequest.generation_config.temperature: temperature must be in the range [0.0, 2.0].\n",
    );
  if ((config.stopSequences?.length ?? 0) > 5)
    throw invalid("The number of stop sequences must be at most 5.");
  if (config.maxOutputTokens !== undefined && !(config.maxOutputTokens >= 1))
    throw invalid("max_output_tokens must be positive.");
  const thinking = config.thinkingConfig;
  if (!thinking) return;
  known(
    thinking,
    new Set(["includeThoughts", "thinkingBudget", "thinkingLevel"]),
    "generation_config.thinking_config",
  );
  if (thinking.thinkingBudget !== undefined && thinking.thinkingLevel !== undefined)
    throw invalid("You can only set only one of thinking budget and thinking level.");
  if (
    thinking.thinkingLevel !== undefined &&
    !["minimal", "low", "medium", "high", "MINIMAL", "LOW", "MEDIUM", "HIGH"].includes(thinking.thinkingLevel)
  )
    throw invalid(
      `Invalid value at 'generation_config.thinking_config.thinking_level': "${thinking.thinkingLevel}"`,
    );
}
