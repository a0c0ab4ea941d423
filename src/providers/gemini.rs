//! Google's Gemini API.
//!
//! By the API reference, <https://ai.google.dev/api/generate-content>. Calls come whole. The API has no end mark of its own:
//! an answer is complete once a candidate has a `finishReason` and the server has closed the stream; counts may follow the
//! reason.
//!
//! Gemini signs parts and wants each signature back in the very part it came with, so a signed part is a block of its own,
//! even where it has no text, and is replayed only to the model it came from.

use reqwest::header::HeaderValue;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::api::{
    Api, Endpoint, Flow, Framing, HttpRequest, Model, ModelPage, Reducer, count, elements, failed,
    incomplete, lossy_text, malformed, members, text,
};
use super::builder::MessageBuilder;
use super::message::{StopReason, Usage};
use super::ollama::tool_name_of;
use super::openai::{check_choice, made_id, not_models, result_text};
use super::request::{
    CacheRetention, CompletionRequest, Content, Message, ResponseFormat, Thinking, Tool, ToolChoice,
    check_strict, refused,
};
use crate::Result;

const API: &str = "google-generative-ai";
/// What the API takes for a call that it did not sign: <https://ai.google.dev/gemini-api/docs/thought-signatures>.
const UNSIGNED: &str = "skip_thought_signature_validator";

/// Calls of one answer; no model makes so many.
const CALLS: usize = 1024;

/// `POST /models/{model}:streamGenerateContent`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gemini;

impl Api for Gemini {
    fn id(&self) -> &'static str {
        API
    }

    fn provider(&self) -> &'static str {
        "google"
    }

    fn base_url(&self) -> &'static str {
        "https://generativelanguage.googleapis.com/v1beta"
    }

    fn request(&self, request: &CompletionRequest, endpoint: &Endpoint) -> Result<HttpRequest> {
        let model = model_path(&request.model)?;
        let url = endpoint.url(&format!("/{model}:streamGenerateContent"), &[("alt", "sse")])?;
        let mut extra = request.extra.clone();
        let payload = payload(request, endpoint, extra.shift_remove("generationConfig"))?;
        Ok(HttpRequest::post(url, payload, &extra)
            .header("accept", HeaderValue::from_static("text/event-stream"))
            .header_if("x-goog-api-key", endpoint.key_header("")?))
    }

    fn framing(&self) -> Framing {
        Framing::Sse
    }

    fn reducer(&self) -> Box<dyn Reducer> {
        Box::<Answer>::default()
    }

    fn models_request(&self, endpoint: &Endpoint, after: Option<&str>) -> Result<HttpRequest> {
        let page = after.map(|after| ("pageToken", after));
        let query: Vec<_> = std::iter::once(("pageSize", "1000")).chain(page).collect();
        let get = HttpRequest::get(endpoint.url("/models", &query)?);
        Ok(get.header_if("x-goog-api-key", endpoint.key_header("")?))
    }

    fn models(&self, body: &str) -> Result<ModelPage> {
        let list: Value = serde_json::from_str(body).map_err(|error| not_models(&error))?;
        let Some(models) = list.get("models").and_then(Value::as_array) else {
            return Err(not_models(&"`models` is no array"));
        };
        let model = |value: &Value| {
            let name = value.get("name")?.as_str()?;
            Some(Model {
                id: name.strip_prefix("models/").unwrap_or(name).to_owned(),
                name: value.get("displayName").and_then(Value::as_str).map(str::to_owned),
                context_window: value.get("inputTokenLimit").and_then(Value::as_u64),
                max_output: value.get("outputTokenLimit").and_then(Value::as_u64),
            })
        };
        let next = list.get("nextPageToken").and_then(Value::as_str).filter(|next| !next.is_empty());
        Ok(ModelPage { models: models.iter().filter_map(model).collect(), next: next.map(str::to_owned) })
    }
}

// ── request ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/// The model as a part of the URL. What is no plain name could lead elsewhere.
fn model_path(model: &str) -> Result<String> {
    let plain = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._@".contains(&byte))
    };
    if !model.split('/').all(plain) {
        return Err(refused("model", "is no name of a model that a URL of Gemini's can hold"));
    }
    Ok(if model.contains('/') { model.to_owned() } else { format!("models/{model}") })
}

/// Whether a model is older than Gemini 3, by its name, or a Gemma: no signatures, no pictures in results.
fn is_old(model: &str) -> bool {
    let name = model.to_ascii_lowercase();
    let version = |after: &str| after.split(['.', '-']).next()?.parse::<u32>().ok();
    name.contains("gemma")
        || name
            .rsplit_once("gemini-")
            .and_then(|(_, after)| version(after))
            .is_some_and(|version| version < 3)
}

fn payload(
    request: &CompletionRequest,
    endpoint: &Endpoint,
    config: Option<Value>,
) -> Result<Map<String, Value>> {
    check_choice(request)?;
    let mut payload = Map::new();
    let mut set = |name: &str, value: Value| _ = payload.insert(name.into(), value);
    set("contents", contents(request, endpoint)?);
    if let Some(system) = &request.system {
        set("systemInstruction", json!({ "parts": [{ "text": system }] }));
    }
    if !request.tools.is_empty() {
        let declaration = |tool: &Tool| {
            let Tool { name, description, parameters } = tool;
            let mut declaration = json!({ "name": name, "description": description });
            if let (false, Some(fields)) = (parameters.is_empty(), declaration.as_object_mut()) {
                fields.insert("parametersJsonSchema".into(), Value::Object(parameters.clone()));
            }
            declaration
        };
        let declarations: Vec<_> = request.tools.iter().map(declaration).collect();
        set("tools", json!([{ "functionDeclarations": declarations }]));
        let mode = match &request.tool_choice {
            None => None,
            Some(ToolChoice::Auto) => Some(json!({ "mode": "AUTO" })),
            Some(ToolChoice::None) => Some(json!({ "mode": "NONE" })),
            Some(ToolChoice::Required) => Some(json!({ "mode": "ANY" })),
            Some(ToolChoice::Tool(name)) => Some(json!({ "mode": "ANY", "allowedFunctionNames": [name] })),
        };
        if let Some(mode) = mode {
            set("toolConfig", json!({ "functionCallingConfig": mode }));
        }
    }
    if request.parallel_tool_calls == Some(false) {
        return Err(refused("parallelToolCalls", "cannot be forbidden at Gemini"));
    }
    if request.cache == CacheRetention::Long {
        return Err(refused(
            "cache",
            "cannot be \"long\" at Gemini: make a cache, and name it as `cachedContent` in `extra`",
        ));
    }
    if let Some(tier) = &request.service_tier {
        set("serviceTier", tier.as_str().into());
    }
    let mut own = generation_config(request)?;
    match config {
        None => {}
        // Over ours, not in their place.
        Some(Value::Object(more)) => own.extend(more),
        Some(_) => return Err(refused("extra.generationConfig", "must be an object")),
    }
    if !own.is_empty() {
        set("generationConfig", own.into());
    }
    Ok(payload)
}

fn generation_config(request: &CompletionRequest) -> Result<Map<String, Value>> {
    let mut config = Map::new();
    let mut set = |name: &str, value: Value| _ = config.insert(name.into(), value);
    if let Some(temperature) = request.temperature {
        set("temperature", temperature.into());
    }
    if let Some(tokens) = request.max_tokens {
        set("maxOutputTokens", tokens.into());
    }
    if !request.stop.is_empty() {
        set("stopSequences", request.stop.clone().into());
    }
    match &request.thinking {
        None => {}
        Some(Thinking::Budget(tokens)) => {
            set("thinkingConfig", json!({ "includeThoughts": true, "thinkingBudget": tokens }));
        }
        Some(Thinking::Effort(effort)) => set("thinkingConfig", thinking(&request.model, effort)?),
    }
    match &request.response_format {
        None => {}
        Some(ResponseFormat::Json) => set("responseMimeType", "application/json".into()),
        Some(ResponseFormat::Schema { schema, strict, .. }) => {
            check_strict(*strict)?;
            set("responseMimeType", "application/json".into());
            set("responseJsonSchema", Value::Object(schema.clone()));
        }
    }
    Ok(config)
}

/// Models before Gemini 3 know budgets only. The budgets are OpenClaw's.
fn thinking(model: &str, effort: &str) -> Result<Value> {
    if let Some((_, after)) = model.to_ascii_lowercase().split_once("gemma") {
        let level = match effort {
            // The only one that thinks, and knows two degrees.
            _ if !after.trim_start_matches('-').starts_with('4') => None,
            "minimal" | "low" => Some("MINIMAL"),
            "medium" | "high" => Some("HIGH"),
            _ => None,
        };
        let level = level
            .ok_or_else(|| refused("thinking.effort", "is no degree of thinking that this Gemma has"))?;
        return Ok(json!({ "includeThoughts": true, "thinkingLevel": level }));
    }
    let old = is_old(model);
    if effort == "none" && old {
        return Ok(json!({ "thinkingBudget": 0 }));
    }
    let (pro, lite) = (model.contains("2.5-pro"), model.contains("flash-lite"));
    let budget = match effort {
        "minimal" if lite => 512,
        "minimal" => 128,
        "low" => 2048,
        "medium" => 8192,
        "high" if pro => 32768,
        "high" => 24576,
        _ => {
            return Err(refused(
                "thinking.effort",
                "is no degree of thinking that this model of Gemini's has",
            ));
        }
    };
    Ok(if old {
        json!({ "includeThoughts": true, "thinkingBudget": budget })
    } else {
        // The greater ones know two degrees, as OpenClaw has it.
        let level = match effort {
            "minimal" | "low" if model.contains("-pro") => "LOW",
            "medium" | "high" if model.contains("-pro") => "HIGH",
            _ => &effort.to_ascii_uppercase(),
        };
        json!({ "includeThoughts": true, "thinkingLevel": level })
    })
}

fn contents(request: &CompletionRequest, endpoint: &Endpoint) -> Result<Value> {
    let new = !is_old(&request.model);
    let mut out: Vec<Value> = Vec::with_capacity(request.messages.len());
    // All results of one turn are one content; pictures that old models do not take in a result come after it.
    let (mut results, mut pictures) = (Vec::new(), Vec::new());
    // Calls that are replayed with their ids: their results have them too.
    let mut own_calls: Vec<&str> = Vec::new();
    for (at, message) in request.messages.iter().enumerate() {
        if !matches!(message, Message::ToolResult { .. }) {
            flush(&mut out, &mut results, &mut pictures);
        }
        match message {
            Message::User { content } => {
                let mut parts: Vec<_> = content.iter().filter_map(user_part).collect();
                if parts.is_empty() {
                    // A content without parts is refused.
                    parts.push(json!({ "text": " " }));
                }
                out.push(content_of("user", &parts));
            }
            Message::Assistant { content, source } => {
                let own = source.is(API, endpoint, request);
                let parts = model_parts(content, own, new);
                if own {
                    own_calls.extend(content.iter().filter_map(|part| match part {
                        Content::ToolCall { id, .. } => Some(id.as_str()),
                        _ => None,
                    }));
                }
                if !parts.is_empty() {
                    out.push(content_of("model", &parts));
                }
            }
            Message::ToolResult { tool_call_id, tool_name, content, is_error } => {
                let name = tool_name_of(request, at, tool_call_id, tool_name)?;
                let images: Vec<_> = content.iter().filter_map(image_part).collect();
                let words = match result_text(content) {
                    words if words.is_empty() && !images.is_empty() => "(see attached image)".into(),
                    words => words,
                };
                let field = if *is_error { "error" } else { "output" };
                let mut response = json!({ "name": name, "response": { field: words } });
                if let Some(fields) = response.as_object_mut() {
                    if own_calls.contains(&tool_call_id.as_str()) {
                        fields.insert("id".into(), tool_call_id.as_str().into());
                    }
                    if !images.is_empty() && new {
                        fields.insert("parts".into(), images.into());
                    } else {
                        pictures.extend(images);
                    }
                }
                results.push(json!({ "functionResponse": response }));
            }
        }
    }
    flush(&mut out, &mut results, &mut pictures);
    Ok(out.into())
}

fn content_of(role: &str, parts: &[Value]) -> Value {
    json!({ "role": role, "parts": parts })
}

fn flush(out: &mut Vec<Value>, results: &mut Vec<Value>, pictures: &mut Vec<Value>) {
    if !results.is_empty() {
        out.push(content_of("user", &std::mem::take(results)));
    }
    if !pictures.is_empty() {
        let mut parts = vec![json!({ "text": "Tool result image:" })];
        parts.append(pictures);
        out.push(content_of("user", &parts));
    }
}

fn image_part(part: &Content) -> Option<Value> {
    let Content::Image { data, mime_type } = part else { return None };
    Some(json!({ "inlineData": { "mimeType": mime_type, "data": data } }))
}

fn user_part(part: &Content) -> Option<Value> {
    match part {
        Content::Text { text, .. } if text.is_empty() => None,
        Content::Text { text, .. } => Some(json!({ "text": text })),
        _ => image_part(part),
    }
}

fn model_parts(content: &[Content], own: bool, checks_signatures: bool) -> Vec<Value> {
    let mut parts = Vec::with_capacity(content.len());
    let mut called = false;
    for part in content {
        let (mut value, signature) = match part {
            Content::Text { text, signature } => (json!({ "text": text }), signature),
            Content::Thinking { thinking, signature, redacted: false } if own => {
                (json!({ "thought": true, "text": thinking }), signature)
            }
            Content::ToolCall { id, name, arguments, thought_signature } => {
                let mut call = json!({ "name": name, "args": arguments });
                if let (true, Some(fields)) = (own, call.as_object_mut()) {
                    fields.insert("id".into(), id.as_str().into());
                }
                (json!({ "functionCall": call }), thought_signature)
            }
            _ => continue,
        };
        let is_call = matches!(part, Content::ToolCall { .. });
        let signature = signature.as_deref().filter(|signature| own && is_base64(signature));
        // Of several calls in one turn the first is signed.
        let signature = signature.or((is_call && !called && checks_signatures).then_some(UNSIGNED));
        called |= is_call;
        let empty = matches!(part, Content::Text { text, .. } if text.trim().is_empty())
            || matches!(part, Content::Thinking { thinking, .. } if thinking.trim().is_empty());
        if let (Some(signature), Some(fields)) = (signature, value.as_object_mut()) {
            fields.insert("thoughtSignature".into(), signature.into());
        } else if empty {
            continue;
        }
        parts.push(value);
    }
    parts
}

fn is_base64(text: &str) -> bool {
    let (body, padding) = text.split_at(text.find('=').unwrap_or(text.len()));
    !body.is_empty()
        && text.len().is_multiple_of(4)
        && matches!(padding, "" | "=" | "==")
        && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte))
}

// ── answer ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Reads one answer.
#[derive(Debug, Default)]
struct Answer {
    /// The text or thinking block that grows.
    open: Option<(bool, usize)>,
    calls: Vec<String>,
    counts: [Option<u64>; 6],
}

impl Reducer for Answer {
    fn event(&mut self, _name: &str, data: &str, out: &mut MessageBuilder) -> Result<Flow> {
        let [candidates, counts, feedback, id, model, error] = members(
            data,
            ["candidates", "usageMetadata", "promptFeedback", "responseId", "modelVersion", "error"],
        )
        .map_err(|error| malformed(API, error))?;
        if let Some(error) = error {
            let [message, status] = members(error.get(), ["message", "status"]).unwrap_or_default();
            let message = message.and_then(lossy_text).unwrap_or_default();
            return Err(failed(API, status.and_then(text).as_deref(), &message));
        }
        out.start();
        if let (None, Some(id)) = (&out.message().response_id, id.and_then(text)) {
            out.set_response_id(&id);
        }
        if let (None, Some(model)) = (&out.message().response_model, model.and_then(text))
            && out.message().model.strip_prefix("models/").unwrap_or(&out.message().model) != model
        {
            out.set_response_model(&model);
        }
        if let Some(counts) = counts {
            self.count(counts, out);
        }
        // A message is one answer, however many were asked for.
        let first = |candidate: &&RawValue| match members(candidate.get(), ["index"]) {
            Ok([number]) => number.and_then(count).unwrap_or_default() == 0,
            Err(_) => true,
        };
        let candidates = candidates.map(elements).unwrap_or_default();
        let others = !candidates.is_empty();
        let candidate = candidates.into_iter().find(first);
        match (candidate, feedback) {
            (Some(candidate), _) => self.candidate(candidate, out)?,
            (None, Some(feedback)) if !others => {
                let [reason, message] =
                    members(feedback.get(), ["blockReason", "blockReasonMessage"]).unwrap_or_default();
                if let Some(reason) = reason.and_then(text) {
                    let message = message.and_then(lossy_text);
                    let message = message.as_deref().unwrap_or("the prompt was blocked");
                    return Err(failed(API, Some(&reason), message));
                }
            }
            (None, _) => {}
        }
        Ok(Flow::Continue)
    }

    fn end(&mut self, out: &mut MessageBuilder) -> Result<()> {
        match out.stopped() {
            None => Err(incomplete(API)),
            // A call may come after the reason.
            Some(StopReason::Stop) if !self.calls.is_empty() => {
                out.stop(StopReason::ToolUse);
                Ok(())
            }
            Some(_) => Ok(()),
        }
    }
}

impl Answer {
    fn candidate(&mut self, candidate: &RawValue, out: &mut MessageBuilder) -> Result<()> {
        let [content, reason, message] =
            members(candidate.get(), ["content", "finishReason", "finishMessage"])
                .map_err(|error| malformed(API, error))?;
        if let Some(content) = content {
            let [parts] = members(content.get(), ["parts"]).map_err(|error| malformed(API, error))?;
            for part in parts.map(elements).unwrap_or_default() {
                self.part(part, out)?;
            }
        }
        let Some(reason) = reason.and_then(text) else { return Ok(()) };
        match &*reason {
            "" | "FINISH_REASON_UNSPECIFIED" => {}
            "STOP" => out.stop(StopReason::Stop),
            "MAX_TOKENS" => out.stop(StopReason::Length),
            other => {
                let message = message.and_then(lossy_text);
                let (colon, message) = match message.as_deref() {
                    Some(message) => (": ", message.get(..2000).unwrap_or(message)),
                    None => ("", ""),
                };
                out.stop_with_error(format!("Google generation stopped ({other}){colon}{message}"));
            }
        }
        Ok(())
    }

    fn part(&mut self, part: &RawValue, out: &mut MessageBuilder) -> Result<()> {
        let [words, thought, signature, call] =
            members(part.get(), ["text", "thought", "thoughtSignature", "functionCall"])
                .map_err(|error| malformed(API, error))?;
        let signature = signature.and_then(text).filter(|signature| !signature.is_empty());
        if let Some(call) = call {
            self.close(out);
            let block = self.call(call, out)?;
            if let Some(signature) = signature {
                out.signature(block, &signature)?;
            }
            out.tool_end(block);
            return Ok(());
        }
        let thinking = thought.is_some_and(|thought| thought.get() == "true");
        let empty = words.is_none_or(|words| words.get() == "\"\"");
        // A part of neither text nor signature is what the server did by itself, such as code that it ran.
        if empty && signature.is_none() {
            return Ok(());
        }
        if signature.is_some() {
            self.close(out);
        }
        let block = match self.open {
            Some((kind, block)) if kind == thinking => block,
            _ => {
                self.close(out);
                let block = if thinking { out.thinking_start() } else { out.text_start() };
                self.open = Some((thinking, block));
                block
            }
        };
        if let Some(words) = words {
            out.delta_json(block, words)?;
        }
        if let Some(signature) = signature {
            out.signature(block, &signature)?;
            self.close(out);
        }
        Ok(())
    }

    fn call(&mut self, call: &RawValue, out: &mut MessageBuilder) -> Result<usize> {
        let [id, name, args] =
            members(call.get(), ["id", "name", "args"]).map_err(|error| malformed(API, error))?;
        if self.calls.len() == CALLS {
            return Err(malformed(API, "too many tool calls"));
        }
        let name = name.and_then(lossy_text).unwrap_or_default();
        let id = id.and_then(text).map(std::borrow::Cow::into_owned).unwrap_or_default();
        let id = if id.is_empty() || self.calls.contains(&id) {
            let response = out.message().response_id.clone().unwrap_or_default();
            let time = out.message().timestamp_ms.to_string();
            made_id("call_", &[&response, &time, &self.calls.len().to_string(), &name])
        } else {
            id
        };
        let block = out.tool_start(&id, &name)?;
        self.calls.push(id);
        out.tool_delta(block, args.map_or("{}", RawValue::get))?;
        Ok(block)
    }

    fn close(&mut self, out: &mut MessageBuilder) {
        match self.open.take() {
            Some((true, block)) => out.thinking_end(block),
            Some((false, block)) => out.text_end(block),
            None => {}
        }
    }

    /// Each chunk repeats what is known by then; the first do not know the answer's counts.
    fn count(&mut self, counts: &RawValue, out: &mut MessageBuilder) {
        let names = [
            "promptTokenCount",
            "cachedContentTokenCount",
            "toolUsePromptTokenCount",
            "candidatesTokenCount",
            "thoughtsTokenCount",
            "totalTokenCount",
        ];
        let Ok(values) = members(counts.get(), names) else { return };
        for (known, value) in self.counts.iter_mut().zip(values) {
            *known = value.and_then(count).or(*known);
        }
        let [prompt, cached, tools, answer, thoughts, total] = self.counts;
        let mut usage = Usage {
            input: prompt.map(|prompt| {
                prompt.saturating_sub(cached.unwrap_or_default()).saturating_add(tools.unwrap_or_default())
            }),
            output: answer
                .or(thoughts)
                .map(|_| answer.unwrap_or_default().saturating_add(thoughts.unwrap_or_default())),
            cache_read: cached,
            reasoning: thoughts,
            ..Usage::default()
        };
        usage.sum_up();
        usage.total_tokens = total.or(usage.total_tokens);
        *out.usage() = usage;
    }
}
