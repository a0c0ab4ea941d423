//! What OpenAI's two APIs share: who calls, where to, lists of models, and how errors look.

use reqwest::header::HeaderValue;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::api::{Endpoint, HttpRequest, Model, ModelPage, failed, lossy_text, members};
use super::request::{CacheRetention, CompletionRequest, Content, ResponseFormat, Tool, ToolChoice, refused};
use crate::{Code, CoreError, Result};

/// Where both APIs are.
pub(super) const BASE_URL: &str = "https://api.openai.com/v1";

/// The host of an endpoint; empty if its URL is none, which is found out elsewhere.
fn host(endpoint: &Endpoint) -> String {
    let url = reqwest::Url::parse(&endpoint.base_url).ok();
    url.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
}

fn is_azure(host: &str) -> bool {
    host.ends_with(".azure.com")
}

/// Whether the endpoint is OpenAI's or Azure's: compatible ones may not know what is new there.
pub(super) fn is_openai(endpoint: &Endpoint) -> bool {
    let host = host(endpoint);
    host == "api.openai.com" || host.ends_with(".api.openai.com") || is_azure(&host)
}

/// Adds the key, as the endpoint wants it: Azure takes it in a header of its own.
pub(super) fn authorize(request: HttpRequest, endpoint: &Endpoint) -> Result<HttpRequest> {
    Ok(if is_azure(&host(endpoint)) {
        request.header_if("api-key", endpoint.key_header("")?)
    } else {
        request.header_if("authorization", endpoint.key_header("Bearer ")?)
    })
}

/// A `POST` of JSON with the key.
pub(super) fn post(
    endpoint: &Endpoint,
    path: &str,
    payload: Map<String, Value>,
    extra: &Map<String, Value>,
) -> Result<HttpRequest> {
    let request = HttpRequest::post(endpoint.url(path, &[])?, payload, extra);
    authorize(request.header("accept", HeaderValue::from_static("text/event-stream")), endpoint)
}

/// `GET /models`.
pub(super) fn models_request(endpoint: &Endpoint) -> Result<HttpRequest> {
    authorize(HttpRequest::get(endpoint.url("/models", &[])?), endpoint)
}

/// Reads a list of models. OpenAI tells no more than the id; OpenRouter, Groq and vLLM also tell the sizes, each by
/// names of its own.
pub(super) fn models(body: &str) -> Result<ModelPage> {
    let list: Value = serde_json::from_str(body).map_err(|error| not_models(&error))?;
    let Some(data) = list.get("data").or(Some(&list)).and_then(Value::as_array) else {
        return Err(not_models(&"`data` is no array"));
    };
    let model = |value: &Value| {
        let count = |names: &[&str]| names.iter().find_map(|name| value.pointer(name)?.as_u64());
        Some(Model {
            id: value.get("id")?.as_str()?.to_owned(),
            name: value.get("name").and_then(Value::as_str).map(str::to_owned),
            context_window: count(&[
                "/context_length",
                "/context_window",
                "/max_model_len",
                "/max_context_length",
            ]),
            max_output: count(&["/max_completion_tokens", "/top_provider/max_completion_tokens"]),
        })
    };
    Ok(ModelPage { models: data.iter().filter_map(model).collect(), next: None })
}

/// The answer to a request for models is none.
pub(super) fn not_models(words: &dyn std::fmt::Display) -> CoreError {
    CoreError::new(Code::ProviderStream, format!("the list of models cannot be read: {words}"))
}

/// An image as a URL.
pub(super) fn image_url(mime_type: &str, data: &str) -> String {
    format!("data:{mime_type};base64,{data}")
}

/// The id of a call without what the responses API's reducer adds to it.
pub(super) fn call_id(id: &str) -> &str {
    id.split_once('|').map_or(id, |(call, _)| call)
}

/// All text of a tool's result, a block a line, as OpenClaw has it.
pub(super) fn result_text(content: &[Content]) -> String {
    let texts = content.iter().filter_map(|part| match part {
        Content::Text { text, .. } => Some(text.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}

/// The schema of a tool's arguments. A tool without arguments has none, and OpenAI wants an object all the same.
pub(super) fn parameters(tool: &Tool) -> Value {
    if tool.parameters.is_empty() {
        json!({ "type": "object", "properties": {} })
    } else {
        Value::Object(tool.parameters.clone())
    }
}

/// A call cannot be asked for where there is nothing to call.
pub(super) fn check_choice(request: &CompletionRequest) -> Result<()> {
    match request.tool_choice {
        Some(ToolChoice::Required | ToolChoice::Tool(_)) if request.tools.is_empty() => {
            Err(refused("toolChoice", "needs `tools`"))
        }
        _ => Ok(()),
    }
}

/// Models whose prompts OpenAI keeps for a day, as OpenClaw lists them (`resolveOpenAIPromptCacheParams`).
const KEPT_FOR_A_DAY: [&str; 12] = [
    "gpt-5.5",
    "gpt-5.5-pro",
    "gpt-5.4",
    "gpt-5.2",
    "gpt-5.1-codex-max",
    "gpt-5.1",
    "gpt-5.1-codex",
    "gpt-5.1-codex-mini",
    "gpt-5.1-chat-latest",
    "gpt-5",
    "gpt-5-codex",
    "gpt-4.1",
];

/// The field that has a prompt cached for longer, where there is one. Other servers, and other models, may refuse it.
pub(super) fn retention(request: &CompletionRequest, endpoint: &Endpoint) -> Option<(&'static str, Value)> {
    if request.cache != CacheRetention::Long || !is_openai(endpoint) {
        return None;
    }
    let version =
        request.model.strip_prefix("gpt-").unwrap_or_default().split('-').next().unwrap_or_default();
    let mut numbers = version.splitn(2, '.').map(|number| number.parse::<u32>().ok());
    if (numbers.next().flatten(), numbers.next().flatten()) >= (Some(5), Some(6)) {
        return Some(("prompt_cache_options", json!({ "ttl": "30m" })));
    }
    // Without the date of a snapshot.
    let plain = |char: char| char.is_ascii_digit() || char == '-';
    let model = match request.model.len().checked_sub("-2026-01-31".len()) {
        Some(at) => match request.model.split_at_checked(at) {
            Some((name, date)) if date.starts_with('-') && date.chars().all(plain) => name,
            _ => &request.model,
        },
        None => &request.model,
    };
    KEPT_FOR_A_DAY.contains(&model).then(|| ("prompt_cache_retention", "24h".into()))
}

/// Tools in the shape that chat completions and Ollama have.
pub(super) fn function_tools(tools: &[Tool]) -> Value {
    let tool = |tool: &Tool| {
        json!({ "type": "function", "function": {
            "name": tool.name, "description": tool.description, "parameters": parameters(tool),
        } })
    };
    tools.iter().map(tool).collect()
}

/// The fields of a `json_schema` format, which the two APIs put in different places.
pub(super) fn schema_format(format: &ResponseFormat) -> Option<Map<String, Value>> {
    let ResponseFormat::Schema { name, schema, strict } = format else { return None };
    let mut fields = Map::new();
    fields.insert("name".into(), name.as_str().into());
    fields.insert("schema".into(), Value::Object(schema.clone()));
    if let Some(strict) = strict {
        fields.insert("strict".into(), (*strict).into());
    }
    Some(fields)
}

/// The error that an `error` object tells of.
pub(super) fn failure(api: &str, error: &RawValue) -> CoreError {
    let Ok([message, kind, code]) = members(error.get(), ["message", "type", "code"]) else {
        // Some servers send but a text.
        return failed(api, None, &lossy_text(error).unwrap_or_default());
    };
    let word = |json: Option<&RawValue>| {
        let json = json?;
        let word = lossy_text(json).map_or_else(|| json.get().to_owned(), std::borrow::Cow::into_owned);
        (!word.is_empty() && word != "error").then_some(word)
    };
    let kind = word(kind).or_else(|| word(code));
    failed(api, kind.as_deref(), &word(message).unwrap_or_default())
}

/// An id for a call that the server gave none: the same for the same answer, another for every other.
pub(super) fn made_id(prefix: &str, parts: &[&str]) -> String {
    let mut hash = blake3::Hasher::new();
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let hex = hash.finalize().to_hex();
    format!("{prefix}{}", hex.get(..24).unwrap_or(&hex))
}
