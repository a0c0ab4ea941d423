// The addon's own clients, by the API that each speaks.
import core from "../../../index.js";

const CLASSES = {
  "anthropic-messages": core.AnthropicProvider,
  "openai-completions": core.OpenAiProvider,
  "openai-responses": core.OpenAiResponsesProvider,
  "google-generative-ai": core.GeminiProvider,
  ollama: core.OllamaProvider,
};

/** The native client of an API. */
export function nativeClient(api, options) {
  return new CLASSES[api](options);
}
