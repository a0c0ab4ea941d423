//! Anthropic's Messages API (`anthropic-messages`).
//!
//! Source: the API reference, `POST /v1/messages` and "Streaming messages", version `2023-06-01`. What of it becomes which
//! field, and which stop reason which, is as in OpenClaw 2026.9 (`packages/ai/src/transports/anthropic-*.ts`).
//!
//! | stop reason | becomes |
//! |---|---|
//! | `end_turn`, `stop_sequence`, `pause_turn`, `compaction` | `stop` |
//! | `max_tokens`, `model_context_window_exceeded` | `length` |
//! | `tool_use` | `toolUse` |
//! | `refusal`, `sensitive`, any other | `error`, with the reason in the message |

use std::fmt::Write as _;

use reqwest::header::HeaderValue;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::api::{
    Api, Endpoint, Flow, Framing, HttpRequest, Model, ModelPage, Reducer, count, failed, incomplete,
    lossy_text, malformed, members,
};
use super::builder::MessageBuilder;
use super::message::{StopReason, Usage};
use super::request::{
    CacheRetention, CompletionRequest, Content, Message, ResponseFormat, Thinking, ToolChoice, check_strict,
    refused,
};
use crate::{Code, CoreError, Result};

const ID: &str = "anthropic-messages";
/// The API wants a limit; this is one that every model since Claude 3 allows.
const MAX_TOKENS: u64 = 4096;
/// The least that a model may think.
const LEAST: u64 = 1024;
/// Keys that are OAuth tokens go into another header, and need this.
const OAUTH_BETA: HeaderValue = HeaderValue::from_static("oauth-2025-04-20");
const VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");
/// What stands in OpenClaw for reasoning that is hidden.
const REDACTED: &str = "[Reasoning redacted]";

/// The API.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anthropic;

impl Api for Anthropic {
    fn id(&self) -> &'static str {
        ID
    }

    fn provider(&self) -> &'static str {
        "anthropic"
    }

    fn base_url(&self) -> &'static str {
        "https://api.anthropic.com"
    }

    fn request(&self, request: &CompletionRequest, endpoint: &Endpoint) -> Result<HttpRequest> {
        let url = versioned(endpoint, "/messages", &[])?;
        let call = HttpRequest::post(url, payload(request, endpoint)?, &request.extra);
        authorized(call, endpoint)
    }

    fn framing(&self) -> Framing {
        Framing::Sse
    }

    fn reducer(&self) -> Box<dyn Reducer> {
        Box::<Stream>::default()
    }

    fn models_request(&self, endpoint: &Endpoint, after: Option<&str>) -> Result<HttpRequest> {
        let mut query = vec![("limit", "1000")];
        query.extend(after.map(|after| ("after_id", after)));
        authorized(HttpRequest::get(versioned(endpoint, "/models", &query)?), endpoint)
    }

    fn models(&self, body: &str) -> Result<ModelPage> {
        let wrong = |error| malformed(ID, format_args!("the list of models cannot be read: {error}"));
        let list: Value = serde_json::from_str(body).map_err(wrong)?;
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let data = list.get("data").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let models = data
            .iter()
            .filter_map(|entry| {
                Some(Model {
                    id: text(entry, "id")?,
                    name: text(entry, "display_name"),
                    context_window: entry.get("max_input_tokens").and_then(Value::as_u64),
                    max_output: entry.get("max_tokens").and_then(Value::as_u64),
                })
            })
            .collect();
        let more = list.get("has_more").and_then(Value::as_bool).unwrap_or_default();
        Ok(ModelPage { models, next: text(&list, "last_id").filter(|_| more) })
    }
}

/// A base URL may end with `/v1` or not.
fn versioned(endpoint: &Endpoint, path: &str, query: &[(&str, &str)]) -> Result<reqwest::Url> {
    let url = endpoint.url("", &[])?;
    let version = if url.path().trim_end_matches('/').ends_with("/v1") { "" } else { "/v1" };
    endpoint.url(&format!("{version}{path}"), query)
}

fn authorized(call: HttpRequest, endpoint: &Endpoint) -> Result<HttpRequest> {
    let call = call.header("anthropic-version", VERSION);
    // OpenClaw tells a subscription's token by the same mark.
    let oauth =
        endpoint.key.as_ref().is_some_and(|key| memchr::memmem::find(key.expose(), b"sk-ant-oat").is_some());
    if oauth {
        let bearer = endpoint.key_header("Bearer ")?;
        return Ok(call.header("anthropic-beta", OAUTH_BETA).header_if("authorization", bearer));
    }
    Ok(call.header_if("x-api-key", endpoint.key_header("")?))
}

// ── the request ─────────────────────────────────────────────────────────────────────────────────────────────────────

fn payload(request: &CompletionRequest, endpoint: &Endpoint) -> Result<Map<String, Value>> {
    let mut payload = Map::new();
    let cache = match request.cache {
        CacheRetention::None => None,
        CacheRetention::Short => Some(json!({ "type": "ephemeral" })),
        CacheRetention::Long => Some(json!({ "type": "ephemeral", "ttl": "1h" })),
    };
    payload.insert("model".into(), request.model.as_str().into());
    let (budget, most) = limits(request)?;
    let thinks = request.thinking.as_ref().is_some_and(|how| *how != Thinking::Effort("none".into()));
    if thinks && matches!(request.tool_choice, Some(ToolChoice::Required | ToolChoice::Tool(_))) {
        return Err(refused(
            "toolChoice",
            "can only be \"auto\" or \"none\" at Anthropic while the model thinks",
        ));
    }
    payload.insert("max_tokens".into(), most.into());
    payload.insert("stream".into(), true.into());
    if let Some(system) = request.system.as_deref().filter(|system| !system.trim().is_empty()) {
        let mut block = json!({ "type": "text", "text": system });
        mark(&mut block, cache.as_ref());
        payload.insert("system".into(), Value::Array(vec![block]));
    }
    let mut messages = messages(request, endpoint)?;
    // The prompt up to here is what the next turn begins with.
    let last =
        messages.iter_mut().rev().find(|message| message.get("role").is_some_and(|role| role == "user"));
    if let Some(block) = last
        .and_then(|message| message.get_mut("content"))
        .and_then(Value::as_array_mut)
        .and_then(|content| content.last_mut())
    {
        mark(block, cache.as_ref());
    }
    payload.insert("messages".into(), messages.into());
    if !request.tools.is_empty() {
        let mut tools: Vec<Value> = request
            .tools
            .iter()
            .map(|tool| {
                let mut schema = tool.parameters.clone();
                schema.entry("type").or_insert_with(|| "object".into());
                json!({ "name": tool.name, "description": tool.description, "input_schema": schema })
            })
            .collect();
        if let Some(last) = tools.last_mut() {
            mark(last, cache.as_ref());
        }
        payload.insert("tools".into(), tools.into());
    }
    if let Some(choice) = tool_choice(request)? {
        payload.insert("tool_choice".into(), choice);
    }
    if let Some(temperature) = request.temperature {
        if thinks {
            return Err(refused("temperature", "cannot be set at Anthropic while the model thinks"));
        }
        payload.insert("temperature".into(), temperature.into());
    }
    if !request.stop.is_empty() {
        payload.insert("stop_sequences".into(), request.stop.clone().into());
    }
    let mut output = Map::new();
    if let Some(thinking) = thinking(request, budget, &mut output) {
        payload.insert("thinking".into(), thinking);
    }
    match &request.response_format {
        Some(ResponseFormat::Schema { schema, strict, .. }) => {
            check_strict(*strict)?;
            output.insert("format".into(), json!({ "type": "json_schema", "schema": schema }));
        }
        Some(ResponseFormat::Json) => {
            return Err(refused(
                "responseFormat",
                "must be of the type \"jsonSchema\" at Anthropic: it wants a schema",
            ));
        }
        None => {}
    }
    if !output.is_empty() {
        payload.insert("output_config".into(), output.into());
    }
    if let Some(tier) = &request.service_tier {
        payload.insert("service_tier".into(), tier.as_str().into());
    }
    Ok(payload)
}

/// How many tokens the model may think, if that is said in tokens, and how many its answer may have in all.
fn limits(request: &CompletionRequest) -> Result<(Option<u64>, u64)> {
    let mut most = request.max_tokens;
    let budget = match &request.thinking {
        Some(Thinking::Budget(tokens)) if *tokens < LEAST => {
            return Err(refused("thinking.budgetTokens", "must be at least 1024 at Anthropic"));
        }
        Some(Thinking::Budget(tokens)) => Some(*tokens),
        Some(Thinking::Effort(effort)) if effort != "none" && !adapts(&request.model) => {
            // What is thought counts as output here, and some is to be left for the answer.
            let mut tokens = budget_of(effort)?;
            if let Some(most) = most.filter(|most| *most <= tokens) {
                tokens = most.saturating_sub(LEAST);
            }
            if tokens < LEAST {
                let words =
                    "leaves less than 1024 tokens to think: this model has budgets only, within `maxTokens`";
                return Err(refused("thinking.effort", words));
            }
            Some(tokens)
        }
        _ => None,
    };
    let most = *most.get_or_insert_with(|| MAX_TOKENS.saturating_add(budget.unwrap_or_default()));
    if budget.is_some_and(|budget| budget >= most) {
        return Err(refused("thinking.budgetTokens", "must be less than `maxTokens`, which includes it"));
    }
    Ok((budget, most))
}

/// What says whether, and how much, the model thinks; a word for it goes into `output`.
fn thinking(
    request: &CompletionRequest,
    budget: Option<u64>,
    output: &mut Map<String, Value>,
) -> Option<Value> {
    match &request.thinking {
        Some(Thinking::Effort(word)) if word == "none" => Some(json!({ "type": "disabled" })),
        Some(_) if budget.is_some() => Some(json!({ "type": "enabled", "budget_tokens": budget })),
        Some(Thinking::Effort(word)) => {
            // As OpenClaw maps them: the API has no lower word.
            let word = match word.as_str() {
                "minimal" => "low",
                "xhigh" if request.model.contains("4-6") => "high",
                word => word,
            };
            output.insert("effort".into(), word.into());
            Some(json!({ "type": "adaptive", "display": "summarized" }))
        }
        Some(Thinking::Budget(_)) | None => None,
    }
}

/// Whether a model decides itself how much it thinks, by the word it is given, as OpenClaw tells it from the name
/// (`supportsClaudeAdaptiveThinking`). Older ones refuse that, and models of others may: they know budgets.
fn adapts(model: &str) -> bool {
    let name = model.to_ascii_lowercase().replace(['.', '_'], "-");
    if matches!(name.as_str(), "opus" | "opus-5" | "opus-5-5") {
        return true;
    }
    let Some((_, family)) = name.split_once("claude-") else { return false };
    let mut parts = family.split(|char: char| !char.is_ascii_alphanumeric());
    let first = parts.next().unwrap_or_default();
    // Dates have eight digits, versions one or two. In Claude 3 and before, the number is first.
    let mut number = || parts.next().and_then(|part| part.parse::<u32>().ok()).filter(|number| *number < 100);
    match first {
        "opus" | "sonnet" => (number(), number()) >= (Some(4), Some(6)),
        "fable" | "mythos" => true,
        _ => first.parse::<u32>().is_err() && number() >= Some(5),
    }
}

/// OpenClaw's budgets (`adjustMaxTokensForThinking`), whose words end at `high`.
fn budget_of(effort: &str) -> Result<u64> {
    Ok(match effort {
        "minimal" => LEAST,
        "low" => 2048,
        "medium" => 8192,
        "high" | "xhigh" | "max" => 16384,
        _ => {
            return Err(refused(
                "thinking.effort",
                "is no degree of thinking that this model of Anthropic's has",
            ));
        }
    })
}

fn mark(block: &mut Value, cache: Option<&Value>) {
    if let (Some(block), Some(cache)) = (block.as_object_mut(), cache) {
        // The API marks no thinking.
        if block.get("type").is_none_or(|kind| kind != "thinking" && kind != "redacted_thinking") {
            block.insert("cache_control".into(), cache.clone());
        }
    }
}

fn tool_choice(request: &CompletionRequest) -> Result<Option<Value>> {
    let mut choice = match &request.tool_choice {
        Some(ToolChoice::None) => return Ok(Some(json!({ "type": "none" }))),
        Some(ToolChoice::Auto) => json!({ "type": "auto" }),
        Some(ToolChoice::Required) => json!({ "type": "any" }),
        Some(ToolChoice::Tool(name)) => json!({ "type": "tool", "name": name }),
        None if request.parallel_tool_calls.is_some() && !request.tools.is_empty() => {
            json!({ "type": "auto" })
        }
        None => return Ok(None),
    };
    if request.tools.is_empty() {
        return Err(refused("toolChoice", "needs `tools`"));
    }
    if let (Some(parallel), Some(choice)) = (request.parallel_tool_calls, choice.as_object_mut()) {
        choice.insert("disable_parallel_tool_use".into(), (!parallel).into());
    }
    Ok(Some(choice))
}

/// An id as the API takes it, `^[a-zA-Z0-9_-]+$`, made as OpenClaw makes it: those of other APIs hold more.
fn tool_id(id: &str) -> String {
    let plain = |char: char| if char.is_ascii_alphanumeric() || char == '-' { char } else { '_' };
    id.chars().take(64).map(plain).collect()
}

fn messages(request: &CompletionRequest, endpoint: &Endpoint) -> Result<Vec<Value>> {
    let mut messages: Vec<Value> = Vec::new();
    // Results of calls that were made in one turn go back in one message.
    let mut results: Vec<Value> = Vec::new();
    for (at, message) in request.messages.iter().enumerate() {
        if !matches!(message, Message::ToolResult { .. }) && !results.is_empty() {
            messages.push(json!({ "role": "user", "content": std::mem::take(&mut results) }));
        }
        let (role, content) = match message {
            Message::User { content } => ("user", visible(at, content)?),
            Message::Assistant { content, source } => {
                let own = source.is(ID, endpoint, request);
                let blocks: Vec<Value> = content.iter().filter_map(|part| assistant(part, own)).collect();
                ("assistant", blocks)
            }
            Message::ToolResult { tool_call_id, content, is_error, .. } => {
                let mut content = visible(at, content)?;
                if content.is_empty() {
                    let words = if *is_error { "[tool error with no output]" } else { "(no output)" };
                    content.push(json!({ "type": "text", "text": words }));
                }
                let mut result = json!({ "type": "tool_result", "tool_use_id": tool_id(tool_call_id), "content": content });
                if *is_error && let Some(result) = result.as_object_mut() {
                    result.insert("is_error".into(), true.into());
                }
                results.push(result);
                continue;
            }
        };
        // The API refuses what is empty, and nothing is lost with it.
        if !content.is_empty() {
            messages.push(json!({ "role": role, "content": content }));
        }
    }
    if !results.is_empty() {
        messages.push(json!({ "role": "user", "content": results }));
    }
    if messages.is_empty() {
        return Err(refused("messages", "say nothing: at least one needs text or an image"));
    }
    Ok(messages)
}

/// Text and images.
fn visible(at: usize, content: &[Content]) -> Result<Vec<Value>> {
    let mut blocks = Vec::new();
    for (part, content) in content.iter().enumerate() {
        match content {
            Content::Text { text, .. } if text.trim().is_empty() => {}
            Content::Text { text, .. } => blocks.push(json!({ "type": "text", "text": text })),
            Content::Image { data, mime_type } => {
                let known = ["image/jpeg", "image/png", "image/gif", "image/webp"];
                if !known.contains(&mime_type.as_str()) {
                    let field = format!("messages[{at}].content[{part}].mimeType");
                    let words = format!("is {mime_type:?}, and Anthropic takes only {}", known.join(", "));
                    return Err(refused(&field, &words));
                }
                blocks.push(json!({
                    "type": "image",
                    "source": { "type": "base64", "media_type": mime_type, "data": data },
                }));
            }
            Content::Thinking { .. } | Content::ToolCall { .. } => {}
        }
    }
    Ok(blocks)
}

/// A part of an earlier answer; `own` if this model gave it here, so that its signatures hold.
fn assistant(part: &Content, own: bool) -> Option<Value> {
    Some(match part {
        Content::Text { text, .. } if text.trim().is_empty() => return None,
        Content::Text { text, .. } => json!({ "type": "text", "text": text }),
        Content::Thinking { signature: Some(data), redacted: true, .. } if own => {
            json!({ "type": "redacted_thinking", "data": data })
        }
        Content::Thinking { redacted: true, .. } | Content::Image { .. } => return None,
        // Untouched, even where the thinking itself is empty: the signature covers it.
        Content::Thinking { thinking, signature: Some(signature), .. } if own && !signature.is_empty() => {
            json!({ "type": "thinking", "thinking": thinking, "signature": signature })
        }
        // What nobody signed, the API takes as text only; so does OpenClaw.
        Content::Thinking { thinking, .. } if thinking.trim().is_empty() => return None,
        Content::Thinking { thinking, .. } => json!({ "type": "text", "text": thinking }),
        Content::ToolCall { id, name, arguments, .. } => {
            json!({ "type": "tool_use", "id": tool_id(id), "name": name, "input": arguments })
        }
    })
}

// ── the answer ──────────────────────────────────────────────────────────────────────────────────────────────────────

/// One answer.
#[derive(Default)]
struct Stream {
    /// The block of the message for each block of the API that is open.
    open: Vec<(u64, Open)>,
    /// The arguments that came with the start of a call, for which none have come in deltas yet.
    whole: Vec<(usize, String)>,
    begun: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Text(usize),
    Thinking(usize),
    /// With whether its arguments come in deltas, and not with its start.
    Tool(usize),
    /// A kind that nobody knows.
    Other,
}

impl Reducer for Stream {
    fn event(&mut self, name: &str, data: &str, out: &mut MessageBuilder) -> Result<Flow> {
        if name == "ping" {
            return Ok(Flow::Continue);
        }
        let wrong = |error| malformed(ID, error);
        let [kind, index, delta, block, message, usage, error] =
            members(data, ["type", "index", "delta", "content_block", "message", "usage", "error"])
                .map_err(wrong)?;
        let kind = kind.and_then(lossy_text).unwrap_or_default();
        let index = index.and_then(count);
        match kind.as_ref() {
            "content_block_delta" => {
                let (Some(index), Some(delta)) = (index, delta) else {
                    return Err(malformed(ID, "a delta without index or content"));
                };
                self.delta(index, delta, out)?;
            }
            "content_block_start" => {
                let (Some(index), Some(block)) = (index, block) else {
                    return Err(malformed(ID, "a block without index or content"));
                };
                self.block(index, block, out)?;
            }
            "content_block_stop" => {
                let Some(index) = index else {
                    return Err(malformed(ID, "the end of a block without index"));
                };
                let at = self.open.iter().position(|open| open.0 == index);
                match at.map(|at| self.open.swap_remove(at).1) {
                    Some(Open::Text(block)) => out.text_end(block),
                    Some(Open::Thinking(block)) => out.thinking_end(block),
                    Some(Open::Tool(block)) => {
                        if let Some(at) = self.whole.iter().position(|whole| whole.0 == block) {
                            out.tool_delta(block, &self.whole.swap_remove(at).1)?;
                        }
                        out.tool_end(block);
                    }
                    Some(Open::Other) | None => {}
                }
            }
            "message_start" => {
                self.begun = true;
                if let Some(message) = message {
                    let [id, model, usage] =
                        members(message.get(), ["id", "model", "usage"]).map_err(wrong)?;
                    if let Some(id) = id.and_then(lossy_text) {
                        out.set_response_id(&id);
                    }
                    if let Some(model) = model.and_then(lossy_text) {
                        out.set_response_model(&model);
                    }
                    if let Some(usage) = usage {
                        count_up(out.usage(), usage)?;
                    }
                }
                out.start();
            }
            "message_delta" => {
                if let Some(usage) = usage {
                    count_up(out.usage(), usage)?;
                }
                if let Some(delta) = delta {
                    let [reason, details] =
                        members(delta.get(), ["stop_reason", "stop_details"]).map_err(wrong)?;
                    if let Some(reason) = reason.and_then(lossy_text) {
                        stop(&reason, details, out)?;
                    }
                }
            }
            "message_stop" => {
                // A limit may cut a call: what there is of the answer is good all the same.
                let cut = out.stopped() == Some(StopReason::Length);
                if !cut && self.open.iter().any(|open| matches!(open.1, Open::Tool(_))) {
                    return Err(malformed(ID, "the message ends within a tool call"));
                }
                return Ok(Flow::End);
            }
            "error" => {
                let [kind, message] = match error {
                    Some(error) if error.get().starts_with('{') => {
                        members(error.get(), ["type", "message"]).map_err(wrong)?
                    }
                    other => [None, other],
                };
                let message = message.and_then(lossy_text).unwrap_or_default();
                return Err(failed("Anthropic", kind.and_then(lossy_text).as_deref(), &message));
            }
            _ => {}
        }
        Ok(Flow::Continue)
    }

    fn end(&mut self, _out: &mut MessageBuilder) -> Result<()> {
        Err(incomplete(ID))
    }
}

impl Stream {
    fn block(&mut self, index: u64, block: &RawValue, out: &mut MessageBuilder) -> Result<()> {
        if !self.begun {
            return Err(malformed(ID, "a block before the message has begun"));
        }
        let [kind, text, thinking, signature, data, id, name, input] =
            members(block.get(), ["type", "text", "thinking", "signature", "data", "id", "name", "input"])
                .map_err(|error| malformed(ID, error))?;
        let word = |value: Option<&RawValue>| {
            value.and_then(lossy_text).map(std::borrow::Cow::into_owned).unwrap_or_default()
        };
        let open = match word(kind).as_str() {
            "text" => {
                let at = out.text_start();
                if let Some(text) = text {
                    out.delta_json(at, text)?;
                }
                Open::Text(at)
            }
            "thinking" => {
                let at = out.thinking_start();
                if let Some(thinking) = thinking {
                    out.delta_json(at, thinking)?;
                }
                let signature = word(signature);
                if !signature.is_empty() {
                    out.signature(at, &signature)?;
                }
                Open::Thinking(at)
            }
            "redacted_thinking" => Open::Thinking(out.redacted_thinking(REDACTED, &word(data))?),
            "tool_use" => {
                let at = out.tool_start(&word(id), &word(name))?;
                // The API sends `{}` here and the arguments in deltas; others that speak it send them whole, or both.
                if let Some(input) = input.map(RawValue::get).filter(|input| !is_empty_object(input)) {
                    self.whole.push((at, input.to_owned()));
                }
                Open::Tool(at)
            }
            _ => Open::Other,
        };
        self.open.retain(|open| open.0 != index);
        self.open.push((index, open));
        Ok(())
    }

    fn delta(&mut self, index: u64, delta: &RawValue, out: &mut MessageBuilder) -> Result<()> {
        let [kind, text, thinking, json, signature] =
            members(delta.get(), ["type", "text", "thinking", "partial_json", "signature"])
                .map_err(|error| malformed(ID, error))?;
        let open = self.open.iter().find(|open| open.0 == index).map(|open| open.1);
        let kind = kind.and_then(lossy_text).unwrap_or_default();
        match (kind.as_ref(), open) {
            ("text_delta", Some(Open::Text(at))) => text.map_or(Ok(()), |text| out.delta_json(at, text)),
            ("thinking_delta", Some(Open::Thinking(at))) => {
                thinking.map_or(Ok(()), |thinking| out.delta_json(at, thinking))
            }
            ("input_json_delta", Some(Open::Tool(at))) => {
                let Some(json) = json.filter(|json| json.get() != "\"\"") else { return Ok(()) };
                self.whole.retain(|whole| whole.0 != at);
                out.delta_json(at, json)
            }
            ("signature_delta", Some(Open::Thinking(at))) => match signature.and_then(lossy_text) {
                Some(signature) => out.signature(at, &signature),
                None => Ok(()),
            },
            (_, None) => Err(malformed(ID, format_args!("a delta for the block {index}, which is not open"))),
            // Citations, and kinds that are still to come.
            _ => Ok(()),
        }
    }
}

fn is_empty_object(json: &str) -> bool {
    json.strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .is_some_and(|inner| inner.trim().is_empty())
}

fn stop(reason: &str, details: Option<&RawValue>, out: &mut MessageBuilder) -> Result<()> {
    match reason {
        "end_turn" | "stop_sequence" | "pause_turn" | "compaction" => out.stop(StopReason::Stop),
        "max_tokens" | "model_context_window_exceeded" => out.stop(StopReason::Length),
        "tool_use" => out.stop(StopReason::ToolUse),
        "refusal" => {
            let [category, explanation] = match details {
                Some(details) if details.get().starts_with('{') => {
                    members(details.get(), ["category", "explanation"])
                        .map_err(|error| malformed(ID, error))?
                }
                _ => [None, None],
            };
            let mut words = String::from("Anthropic refusal");
            if let Some(category) = category.and_then(lossy_text) {
                let _ = write!(words, " (category: {category})");
            }
            match explanation.and_then(lossy_text) {
                Some(explanation) => _ = write!(words, ": {explanation}"),
                None => words.push('.'),
            }
            out.stop_with_error(words);
        }
        other => out.stop_with_error(format!("Anthropic stopped the answer: {other}")),
    }
    Ok(())
}

/// Later counts replace earlier ones; what an event leaves out stays.
fn count_up(usage: &mut Usage, sent: &RawValue) -> Result<()> {
    let [input, output, read, write, creation] = members(
        sent.get(),
        [
            "input_tokens",
            "output_tokens",
            "cache_read_input_tokens",
            "cache_creation_input_tokens",
            "cache_creation",
        ],
    )
    .map_err(|error| {
        CoreError::new(Code::ProviderStream, format!("the usage of {ID} makes no sense: {error}"))
    })?;
    let replace = |target: &mut Option<u64>, value: Option<&RawValue>| {
        if let Some(count) = value.and_then(count) {
            *target = Some(count);
        }
    };
    replace(&mut usage.input, input);
    replace(&mut usage.output, output);
    replace(&mut usage.cache_read, read);
    replace(&mut usage.cache_write, write);
    if let Some(creation) = creation
        && let Ok([hour]) = members(creation.get(), ["ephemeral_1h_input_tokens"])
    {
        replace(&mut usage.cache_write_1h, hour);
    }
    usage.sum_up();
    Ok(())
}

#[cfg(test)]
mod tests;
