//! Ollama's own API.
//!
//! By the API reference, <https://docs.ollama.com/api/chat>. An answer is one JSON text a line, and ends with the line that
//! says `"done": true`. Calls come whole.

use reqwest::header::HeaderValue;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::api::{
    Api, Endpoint, Flow, Framing, HttpRequest, Model, ModelPage, Reducer, count, elements, failed,
    incomplete, lossy_text, malformed, members, text,
};
use super::builder::MessageBuilder;
use super::message::{StopReason, Usage};
use super::openai::{function_tools, made_id, not_models, result_text};
use super::request::{
    CacheRetention, CompletionRequest, Content, Message, ResponseFormat, Thinking, ToolChoice, check_strict,
    refused,
};
use crate::Result;

const API: &str = "ollama";
/// Calls of one answer; no model makes so many.
const CALLS: usize = 1024;

/// `POST /api/chat`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ollama;

impl Api for Ollama {
    fn id(&self) -> &'static str {
        API
    }

    fn provider(&self) -> &'static str {
        "ollama"
    }

    fn base_url(&self) -> &'static str {
        "http://127.0.0.1:11434"
    }

    fn request(&self, request: &CompletionRequest, endpoint: &Endpoint) -> Result<HttpRequest> {
        let mut extra = request.extra.clone();
        // It is in the payload's own.
        extra.shift_remove("options");
        let post = HttpRequest::post(endpoint.url("/api/chat", &[])?, payload(request)?, &extra);
        Ok(post
            .header("accept", HeaderValue::from_static("application/x-ndjson"))
            .header_if("authorization", endpoint.key_header("Bearer ")?))
    }

    fn framing(&self) -> Framing {
        Framing::Ndjson
    }

    fn reducer(&self) -> Box<dyn Reducer> {
        Box::<Chat>::default()
    }

    fn models_request(&self, endpoint: &Endpoint, _after: Option<&str>) -> Result<HttpRequest> {
        let get = HttpRequest::get(endpoint.url("/api/tags", &[])?);
        Ok(get.header_if("authorization", endpoint.key_header("Bearer ")?))
    }

    fn models(&self, body: &str) -> Result<ModelPage> {
        let list: Value = serde_json::from_str(body).map_err(|error| not_models(&error))?;
        let Some(models) = list.get("models").and_then(Value::as_array) else {
            return Err(not_models(&"`models` is no array"));
        };
        let model = |value: &Value| {
            let name = value.get("name").or_else(|| value.get("model"))?.as_str()?;
            Some(Model { id: name.to_owned(), ..Model::default() })
        };
        Ok(ModelPage { models: models.iter().filter_map(model).collect(), next: None })
    }
}

// ── request ─────────────────────────────────────────────────────────────────────────────────────────────────────────

fn payload(request: &CompletionRequest) -> Result<Map<String, Value>> {
    let mut payload = Map::new();
    let mut set = |name: &str, value: Value| _ = payload.insert(name.into(), value);
    set("model", request.model.as_str().into());
    set("messages", messages(request)?);
    set("stream", true.into());
    match &request.tool_choice {
        None | Some(ToolChoice::Auto) => {
            if !request.tools.is_empty() {
                set("tools", function_tools(&request.tools));
            }
        }
        // Tools that are not offered are not called.
        Some(ToolChoice::None) => {}
        Some(ToolChoice::Required | ToolChoice::Tool(_)) => {
            return Err(refused(
                "toolChoice",
                "cannot be said to Ollama, where the model calls tools as it likes",
            ));
        }
    }
    if request.parallel_tool_calls == Some(false) {
        return Err(refused("parallelToolCalls", "cannot be forbidden at Ollama"));
    }
    if request.cache == CacheRetention::Long {
        return Err(refused("cache", "cannot be \"long\" at Ollama: put `keep_alive` into `extra`"));
    }
    if request.service_tier.is_some() {
        return Err(refused("serviceTier", "is not known to Ollama"));
    }
    match &request.thinking {
        None => {}
        Some(Thinking::Effort(effort)) => set("think", think(&request.model, effort)?),
        Some(Thinking::Budget(_)) => {
            return Err(refused("thinking.budgetTokens", "cannot be said to Ollama: use `thinking.effort`"));
        }
    }
    match &request.response_format {
        None => {}
        Some(ResponseFormat::Json) => set("format", "json".into()),
        Some(ResponseFormat::Schema { schema, strict, .. }) => {
            check_strict(*strict)?;
            set("format", Value::Object(schema.clone()));
        }
    }
    let mut options = Map::new();
    if let Some(tokens) = request.max_tokens {
        options.insert("num_predict".into(), tokens.into());
    }
    if let Some(temperature) = request.temperature {
        options.insert("temperature".into(), temperature.into());
    }
    if !request.stop.is_empty() {
        options.insert("stop".into(), request.stop.clone().into());
    }
    // Over these, not in their place: `extra.options` is where all else of Ollama's options goes.
    match request.extra.get("options") {
        None => {}
        Some(Value::Object(more)) => options.extend(more.clone()),
        Some(_) => return Err(refused("extra.options", "must be an object")),
    }
    if !options.is_empty() {
        set("options", options.into());
    }
    Ok(payload)
}

/// Only `gpt-oss` thinks by degrees; the others do or do not.
fn think(model: &str, effort: &str) -> Result<Value> {
    let degrees = model.contains("gpt-oss");
    Ok(match effort {
        "none" | "off" => false.into(),
        "minimal" | "low" if degrees => "low".into(),
        "medium" if degrees => "medium".into(),
        "high" | "xhigh" | "max" if degrees => "high".into(),
        "minimal" | "low" | "medium" | "high" | "xhigh" | "max" => true.into(),
        _ => return Err(refused("thinking.effort", "is no degree of thinking that Ollama has")),
    })
}

fn messages(request: &CompletionRequest) -> Result<Value> {
    let mut out = Vec::with_capacity(request.messages.len() + 1);
    if let Some(system) = &request.system {
        out.push(json!({ "role": "system", "content": system }));
    }
    for (at, message) in request.messages.iter().enumerate() {
        out.push(match message {
            Message::User { content } => with_images(json!({ "role": "user", "content": result_text(content) }), content),
            Message::Assistant { content, .. } => assistant(content),
            Message::ToolResult { tool_call_id, tool_name, content, .. } => {
                let name = tool_name_of(request, at, tool_call_id, tool_name)?;
                let content_text = result_text(content);
                let message = json!({ "role": "tool", "content": content_text, "tool_name": name, "tool_call_id": tool_call_id });
                with_images(message, content)
            }
        });
    }
    Ok(out.into())
}

fn with_images(mut message: Value, content: &[Content]) -> Value {
    let images: Vec<Value> = content
        .iter()
        .filter_map(|part| match part {
            Content::Image { data, .. } => Some(data.as_str().into()),
            _ => None,
        })
        .collect();
    if let (false, Some(message)) = (images.is_empty(), message.as_object_mut()) {
        message.insert("images".into(), images.into());
    }
    message
}

/// The name of the tool that a result is of: its own, or that of the call it answers.
pub(super) fn tool_name_of<'a>(
    request: &'a CompletionRequest,
    at: usize,
    call: &str,
    own: &'a str,
) -> Result<&'a str> {
    if !own.is_empty() {
        return Ok(own);
    }
    let before = request.messages.get(..at).unwrap_or_default().iter().rev();
    let parts = before.filter_map(|message| match message {
        Message::Assistant { content, .. } => Some(content),
        _ => None,
    });
    let name = parts.flatten().find_map(|part| match part {
        Content::ToolCall { id, name, .. } if id == call => Some(name.as_str()),
        _ => None,
    });
    name.ok_or_else(|| {
        refused(&format!("messages[{at}].toolName"), "is missing, and no call has the result's id")
    })
}

fn assistant(content: &[Content]) -> Value {
    let (mut words, mut thoughts, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for part in content {
        match part {
            Content::Text { text, .. } => words.push(text.as_str()),
            // Reasoning of other APIs is no more than text here, and just as useful.
            Content::Thinking { thinking, redacted: false, .. } => thoughts.push(thinking.as_str()),
            Content::ToolCall { id, name, arguments, .. } => {
                calls.push(json!({ "id": id, "function": { "name": name, "arguments": arguments } }));
            }
            _ => {}
        }
    }
    let mut message = Map::new();
    message.insert("role".into(), "assistant".into());
    message.insert("content".into(), words.concat().into());
    if !thoughts.is_empty() {
        message.insert("thinking".into(), thoughts.concat().into());
    }
    if !calls.is_empty() {
        message.insert("tool_calls".into(), calls.into());
    }
    message.into()
}

// ── answer ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Reads one answer.
#[derive(Debug, Default)]
struct Chat {
    text: Option<usize>,
    thinking: Option<usize>,
    /// Calls come behind all text, as in OpenClaw, whatever came between them: id, name and arguments.
    calls: Vec<(String, String, String)>,
}

impl Reducer for Chat {
    fn event(&mut self, _name: &str, data: &str, out: &mut MessageBuilder) -> Result<Flow> {
        let [message, done, reason, error, created] =
            members(data, ["message", "done", "done_reason", "error", "created_at"])
                .map_err(|error| malformed(API, error))?;
        if let Some(error) = error {
            return Err(failed(API, None, &lossy_text(error).unwrap_or_default()));
        }
        out.start();
        if let Some(message) = message {
            let created = created.and_then(text).unwrap_or_default();
            self.message(message, &created, out)?;
        }
        if done.is_none_or(|done| done.get() != "true") {
            return Ok(Flow::Continue);
        }
        *out.usage() = usage(data);
        for (id, name, arguments) in &self.calls {
            let block = out.tool_start(id, name)?;
            out.tool_delta(block, arguments)?;
            out.tool_end(block);
        }
        let reason = reason.and_then(text);
        out.stop(match reason.as_deref() {
            Some("length") => StopReason::Length,
            _ if !self.calls.is_empty() => StopReason::ToolUse,
            _ => StopReason::Stop,
        });
        Ok(Flow::End)
    }

    fn end(&mut self, _out: &mut MessageBuilder) -> Result<()> {
        Err(incomplete(API))
    }
}

impl Chat {
    fn message(&mut self, message: &RawValue, created: &str, out: &mut MessageBuilder) -> Result<()> {
        let [content, thinking, calls] = members(message.get(), ["content", "thinking", "tool_calls"])
            .map_err(|error| malformed(API, error))?;
        if let Some(thinking) = thinking.filter(|thinking| thinking.get() != "\"\"") {
            if let Some(block) = self.text.take() {
                out.text_end(block);
            }
            let block = *self.thinking.get_or_insert_with(|| out.thinking_start());
            out.delta_json(block, thinking)?;
        }
        if let Some(content) = content.filter(|content| content.get() != "\"\"") {
            if let Some(block) = self.thinking.take() {
                out.thinking_end(block);
            }
            let block = *self.text.get_or_insert_with(|| out.text_start());
            out.delta_json(block, content)?;
        }
        calls.map(elements).unwrap_or_default().into_iter().try_for_each(|call| self.call(call, created, out))
    }

    fn call(&mut self, call: &RawValue, created: &str, out: &mut MessageBuilder) -> Result<()> {
        let [id, function] =
            members(call.get(), ["id", "function"]).map_err(|error| malformed(API, error))?;
        if self.calls.len() == CALLS {
            return Err(malformed(API, "too many tool calls"));
        }
        let function = function.ok_or_else(|| malformed(API, "a tool call without a function"))?;
        let [name, arguments] =
            members(function.get(), ["name", "arguments"]).map_err(|error| malformed(API, error))?;
        let name = name.and_then(lossy_text).unwrap_or_default();
        let id = id.and_then(text).filter(|id| !id.is_empty()).map(std::borrow::Cow::into_owned);
        let id = id.unwrap_or_else(|| {
            let time = out.message().timestamp_ms.to_string();
            made_id("ollama_call_", &[&time, created, &self.calls.len().to_string(), &name])
        });
        // Old models' templates give the text of an object.
        let arguments =
            arguments.map(|arguments| lossy_text(arguments).unwrap_or_else(|| arguments.get().into()));
        let arguments = arguments.unwrap_or_default().into_owned();
        out.unseen(arguments.len())?;
        self.calls.push((id, name.into_owned(), arguments));
        Ok(())
    }
}

/// The counts of the last line, as OpenClaw has them.
fn usage(line: &str) -> Usage {
    let Ok([prompt, cached, answer]) =
        members(line, ["prompt_eval_count", "prompt_eval_cached_count", "eval_count"])
    else {
        return Usage::default();
    };
    let prompt = prompt.and_then(count);
    let cache_read = cached.and_then(count).map(|cached| cached.min(prompt.unwrap_or_default()));
    let mut usage = Usage {
        input: prompt.map(|prompt| prompt.saturating_sub(cache_read.unwrap_or_default())),
        output: answer.and_then(count),
        cache_read,
        ..Usage::default()
    };
    usage.sum_up();
    usage
}
