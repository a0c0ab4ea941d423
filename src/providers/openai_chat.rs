//! OpenAI's chat completions, and every server that speaks as it does: OpenRouter, Groq, vLLM, LM Studio, llama.cpp,
//! LiteLLM, Azure.
//!
//! By the API reference, <https://platform.openai.com/docs/api-reference/chat>. What compatible servers add or leave out
//! is read as OpenClaw's own transport reads it: reasoning under three names, content in parts, calls without an index.
//!
//! An answer ends with `data: [DONE]`. `finish_reason` alone is no end: counts come after it. Reasoning that stands in the
//! text between tags is dropped, as OpenClaw does (`tags`).

use std::borrow::Cow;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::api::{
    Api, Endpoint, Flow, Framing, HttpRequest, ModelPage, Reducer, count, elements, incomplete, lossy_text,
    malformed, members, text,
};
use super::builder::MessageBuilder;
use super::message::{Block, StopReason, Usage};
use super::openai;
use super::request::{CompletionRequest, Content, Message, ResponseFormat, Thinking, ToolChoice, refused};
use super::tags::{TagFilter, is_plain};
use crate::Result;

const API: &str = "openai-completions";
/// The names of reasoning, in the order in which they are looked for. One that came is what it is replayed by.
const REASONING: [&str; 3] = ["reasoning_content", "reasoning", "reasoning_text"];
/// Calls of one answer; no model makes so many.
const CALLS: usize = 1024;

/// `POST /chat/completions`.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenAiChat;

impl Api for OpenAiChat {
    fn id(&self) -> &'static str {
        API
    }

    fn provider(&self) -> &'static str {
        "openai"
    }

    fn base_url(&self) -> &'static str {
        openai::BASE_URL
    }

    fn request(&self, request: &CompletionRequest, endpoint: &Endpoint) -> Result<HttpRequest> {
        openai::post(endpoint, "/chat/completions", payload(request, endpoint)?, &request.extra)
    }

    fn framing(&self) -> Framing {
        Framing::Sse
    }

    fn reducer(&self) -> Box<dyn Reducer> {
        Box::<Chat>::default()
    }

    fn models_request(&self, endpoint: &Endpoint, _after: Option<&str>) -> Result<HttpRequest> {
        openai::models_request(endpoint)
    }

    fn models(&self, body: &str) -> Result<ModelPage> {
        openai::models(body)
    }
}

// ── request ─────────────────────────────────────────────────────────────────────────────────────────────────────────

fn payload(request: &CompletionRequest, endpoint: &Endpoint) -> Result<Map<String, Value>> {
    openai::check_choice(request)?;
    let mut payload = Map::new();
    let mut set = |name: &str, value: Value| _ = payload.insert(name.into(), value);
    set("model", request.model.as_str().into());
    set("messages", messages(request, endpoint));
    set("stream", true.into());
    set("stream_options", json!({ "include_usage": true }));
    if !request.tools.is_empty() {
        set("tools", openai::function_tools(&request.tools));
        if let Some(choice) = &request.tool_choice {
            set("tool_choice", tool_choice(choice));
        }
        if let Some(parallel) = request.parallel_tool_calls {
            set("parallel_tool_calls", parallel.into());
        }
    }
    if let Some(tokens) = request.max_tokens {
        // OpenAI's reasoning models refuse the old name; other servers may not know the new one.
        let name = if openai::is_openai(endpoint) { "max_completion_tokens" } else { "max_tokens" };
        set(name, tokens.into());
    }
    if let Some(temperature) = request.temperature {
        set("temperature", temperature.into());
    }
    if !request.stop.is_empty() {
        set("stop", request.stop.clone().into());
    }
    match &request.thinking {
        None => {}
        Some(Thinking::Effort(effort)) => set("reasoning_effort", effort.as_str().into()),
        Some(Thinking::Budget(_)) => {
            return Err(refused(
                "thinking.budgetTokens",
                "cannot be said in chat completions: use `thinking.effort`, or the field that your server has, in `extra`",
            ));
        }
    }
    if let Some((name, value)) = openai::retention(request, endpoint) {
        set(name, value);
    }
    match &request.response_format {
        None => {}
        Some(ResponseFormat::Json) => set("response_format", json!({ "type": "json_object" })),
        Some(format) => {
            let schema = openai::schema_format(format);
            set("response_format", json!({ "type": "json_schema", "json_schema": schema }));
        }
    }
    if let Some(tier) = &request.service_tier {
        set("service_tier", tier.as_str().into());
    }
    Ok(payload)
}

fn tool_choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => "auto".into(),
        ToolChoice::None => "none".into(),
        ToolChoice::Required => "required".into(),
        ToolChoice::Tool(name) => json!({ "type": "function", "function": { "name": name } }),
    }
}

fn messages(request: &CompletionRequest, endpoint: &Endpoint) -> Value {
    let mut out = Vec::with_capacity(request.messages.len() + 1);
    if let Some(system) = &request.system {
        out.push(json!({ "role": "system", "content": system }));
    }
    // A tool's result holds no images here: they follow its run of results, as a message of the user's.
    let mut images = Vec::new();
    let mut results = 0;
    for message in &request.messages {
        let Message::ToolResult { tool_call_id, tool_name, content, .. } = message else {
            results = 0;
            flush(&mut out, &mut images);
            match message {
                Message::User { content } => out.push(json!({ "role": "user", "content": user(content) })),
                Message::Assistant { content, source } => {
                    let own = source.is(API, endpoint, request);
                    out.extend(assistant(content, own));
                }
                Message::ToolResult { .. } => {}
            }
            continue;
        };
        results += 1;
        let text = openai::result_text(content);
        let pictures: Vec<_> = content.iter().filter_map(image).collect();
        let text = match text.is_empty() {
            true if pictures.is_empty() => "(no output)".into(),
            true => "(see attached image)".into(),
            false => text,
        };
        out.push(json!({ "role": "tool", "content": text, "tool_call_id": openai::call_id(tool_call_id) }));
        if !pictures.is_empty() {
            let text = format!("Image(s) from tool result #{results} ({tool_name}):");
            images.push(json!({ "type": "text", "text": text }));
            images.extend(pictures);
        }
    }
    flush(&mut out, &mut images);
    out.into()
}

fn flush(out: &mut Vec<Value>, images: &mut Vec<Value>) {
    if !images.is_empty() {
        out.push(json!({ "role": "user", "content": std::mem::take(images) }));
    }
}

fn image(part: &Content) -> Option<Value> {
    let Content::Image { data, mime_type } = part else { return None };
    Some(json!({ "type": "image_url", "image_url": { "url": openai::image_url(mime_type, data) } }))
}

fn user(content: &[Content]) -> Value {
    // Some servers take nothing but a string, and it is the same to all others.
    if let [Content::Text { text, .. }] = content {
        return text.as_str().into();
    }
    let part = |part: &Content| match part {
        Content::Text { text, .. } => Some(json!({ "type": "text", "text": text })),
        _ => image(part),
    };
    content.iter().filter_map(part).collect()
}

/// None for an answer of which nothing is left to say.
fn assistant(content: &[Content], own: bool) -> Option<Value> {
    let mut message = Map::new();
    message.insert("role".into(), "assistant".into());
    message.insert("content".into(), Value::Null);
    let (mut texts, mut thoughts) = (Vec::new(), Vec::new());
    let (mut calls, mut details) = (Vec::new(), Vec::new());
    let mut field = None;
    for part in content {
        match part {
            Content::Text { text, .. } if !text.trim().is_empty() => texts.push(text.as_str()),
            Content::Thinking { thinking, signature: Some(signature), .. } if own && !thinking.is_empty() => {
                field = field.or_else(|| REASONING.into_iter().find(|name| name == signature));
                thoughts.push(thinking.as_str());
            }
            Content::ToolCall { id, name, arguments, thought_signature } => {
                let arguments = Value::Object(arguments.clone()).to_string();
                let mut call = json!({ "id": openai::call_id(id), "type": "function", "function": { "name": name, "arguments": arguments } });
                if let (Some(signature), true, Some(call)) = (thought_signature, own, call.as_object_mut()) {
                    if let Ok(detail @ Value::Object(_)) = serde_json::from_str(signature) {
                        details.push(detail);
                    } else {
                        let google = json!({ "google": { "thought_signature": signature } });
                        call.insert("extra_content".into(), google);
                    }
                }
                calls.push(call);
            }
            _ => {}
        }
    }
    if texts.is_empty() && calls.is_empty() {
        return None;
    }
    if !texts.is_empty() {
        message.insert("content".into(), texts.join("\n").into());
    }
    if let Some(field) = field {
        message.insert(field.into(), thoughts.join("\n").into());
    }
    if !calls.is_empty() {
        message.insert("tool_calls".into(), calls.into());
    }
    if !details.is_empty() {
        message.insert("reasoning_details".into(), details.into());
    }
    Some(message.into())
}

// ── answer ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Reads one answer.
#[derive(Debug, Default)]
struct Chat {
    /// The text or thinking block that grows.
    open: Option<(Kind, usize)>,
    calls: Vec<Call>,
    tags: TagFilter,
    /// Signatures of calls that have not come yet: the call's id, and the detail.
    details: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
}

#[derive(Debug)]
struct Call {
    /// The server's number of it, if it gave one.
    number: Option<u64>,
    id: String,
    block: usize,
}

impl Reducer for Chat {
    fn event(&mut self, _name: &str, data: &str, out: &mut MessageBuilder) -> Result<Flow> {
        if data.trim_ascii() == "[DONE]" {
            self.finish(out)?;
            return Ok(Flow::End);
        }
        let [id, model, choices, counts, error] = members(data, ["id", "model", "choices", "usage", "error"])
            .map_err(|error| malformed(API, error))?;
        if let Some(error) = error {
            return Err(openai::failure(API, error));
        }
        out.start();
        if let (None, Some(id)) = (&out.message().response_id, id.and_then(text)) {
            out.set_response_id(&id);
        }
        if let (None, Some(model)) = (&out.message().response_model, model.and_then(text))
            && !model.is_empty()
            && model != out.message().model
        {
            out.set_response_model(&model);
        }
        let mut inner = None;
        for choice in choices.map(elements).unwrap_or_default() {
            let [number, delta, message, reason, own_counts] =
                members(choice.get(), ["index", "delta", "message", "finish_reason", "usage"])
                    .map_err(|error| malformed(API, error))?;
            // A message is one answer, however many were asked for.
            if number.and_then(count).is_some_and(|number| number > 0) {
                continue;
            }
            inner = own_counts.or(inner);
            if let Some(delta) = delta.or(message) {
                self.delta(delta, out)?;
            }
            if let Some(reason) = reason.and_then(text) {
                stop(&reason, out);
            }
        }
        if let Some(counts) = counts.or(inner) {
            out.usage().update(&usage(counts));
        }
        Ok(Flow::Continue)
    }

    fn end(&mut self, _out: &mut MessageBuilder) -> Result<()> {
        Err(incomplete(API))
    }
}

fn stop(reason: &str, out: &mut MessageBuilder) {
    match reason {
        "" => {}
        "stop" | "end" => out.stop(StopReason::Stop),
        "length" => out.stop(StopReason::Length),
        "tool_calls" | "tool_call" | "function_call" => out.stop(StopReason::ToolUse),
        other => out.stop_with_error(format!("Provider finish_reason: {other}")),
    }
}

impl Chat {
    /// All of the answer has come. A server that was told which tool to call says `stop` and not `tool_calls`.
    fn finish(&mut self, out: &mut MessageBuilder) -> Result<()> {
        self.end_tags(out)?;
        match out.stopped() {
            Some(StopReason::Stop | StopReason::ToolUse) => {}
            _ => return Ok(()),
        }
        for call in &self.calls {
            out.tool_end(call.block);
        }
        out.stop(if self.calls.is_empty() { StopReason::Stop } else { StopReason::ToolUse });
        Ok(())
    }

    /// A delta of the text, which may hold tags.
    fn words(&mut self, json: &RawValue, out: &mut MessageBuilder) -> Result<()> {
        if self.tags.is_idle() && is_plain(json.get()) {
            let block = self.text(out);
            return out.delta_json(block, json);
        }
        let Some(words) = lossy_text(json) else { return Ok(()) };
        let before = match (self.open, out.message().content.last()) {
            (Some((Kind::Text, _)), Some(Block::Text { text, .. })) => text.as_str(),
            _ => "",
        };
        let mut shown = String::new();
        self.tags.push(&words, before, &mut shown);
        out.unseen(words.len().saturating_sub(shown.len()))?;
        self.show(&shown, out)
    }

    /// What may have become a tag does not.
    fn end_tags(&mut self, out: &mut MessageBuilder) -> Result<()> {
        if self.tags.is_idle() {
            return Ok(());
        }
        let mut shown = String::new();
        self.tags.flush(&mut shown);
        self.show(&shown, out)
    }

    fn show(&mut self, shown: &str, out: &mut MessageBuilder) -> Result<()> {
        if shown.is_empty() {
            return Ok(());
        }
        let block = self.text(out);
        out.text_delta(block, shown)
    }

    fn delta(&mut self, delta: &RawValue, out: &mut MessageBuilder) -> Result<()> {
        let [content, refusal, calls, legacy, details, first, second, third] = members(
            delta.get(),
            [
                "content",
                "refusal",
                "tool_calls",
                "function_call",
                "reasoning_details",
                "reasoning_content",
                "reasoning",
                "reasoning_text",
            ],
        )
        .map_err(|error| malformed(API, error))?;
        let mut thought = false;
        for (name, value) in REASONING.into_iter().zip([first, second, third]) {
            if let Some(value) = value.filter(|value| !is_empty(value) && value.get().starts_with('"')) {
                self.end_tags(out)?;
                self.tags.strict = true;
                let block = self.thinking(Some(name), out)?;
                out.delta_json(block, value)?;
                thought = true;
                break;
            }
        }
        for detail in details.map(elements).unwrap_or_default() {
            self.detail(detail, thought, out)?;
        }
        if let Some(content) = content {
            self.content(content, out)?;
        }
        if let Some(refusal) = refusal.filter(|refusal| !is_empty(refusal)) {
            self.words(refusal, out)?;
        }
        if calls.is_some_and(|calls| calls.get() != "[]") || legacy.is_some() {
            self.end_tags(out)?;
        }
        for call in calls.map(elements).unwrap_or_default() {
            let [number, id, function, extra] =
                members(call.get(), ["index", "id", "function", "extra_content"])
                    .map_err(|error| malformed(API, error))?;
            let signature = extra.and_then(google_signature);
            let id = id.and_then(lossy_text).unwrap_or_default();
            if let Some(function) = function {
                self.call(number.and_then(count), &id, function, signature.as_deref(), out)?;
            }
        }
        if let Some(function) = legacy {
            self.call(None, "", function, None, out)?;
        }
        Ok(())
    }

    /// Text, or parts of text and thinking, as Mistral sends them.
    fn content(&mut self, content: &RawValue, out: &mut MessageBuilder) -> Result<()> {
        match content.get().as_bytes().first() {
            Some(b'"') if !is_empty(content) => self.words(content, out),
            Some(b'[') => elements(content).into_iter().try_for_each(|part| self.part(part, None, out)),
            Some(b'{') => self.part(content, None, out),
            _ => Ok(()),
        }
    }

    fn part(&mut self, part: &RawValue, within: Option<Kind>, out: &mut MessageBuilder) -> Result<()> {
        let [kind, words, refusal, thinking] = members(part.get(), ["type", "text", "refusal", "thinking"])
            .map_err(|error| malformed(API, error))?;
        let kind = match kind.and_then(text).as_deref() {
            Some("thinking" | "reasoning") => Kind::Thinking,
            Some("text" | "output_text" | "refusal") => within.unwrap_or(Kind::Text),
            _ => return Ok(()),
        };
        let Some(words) = words.or(refusal).or(thinking) else { return Ok(()) };
        if words.get().starts_with('[') && within.is_none() {
            return elements(words).into_iter().try_for_each(|part| self.part(part, Some(kind), out));
        }
        if is_empty(words) {
            return Ok(());
        }
        if kind == Kind::Text {
            return self.words(words, out);
        }
        self.end_tags(out)?;
        let block = self.thinking(None, out)?;
        out.delta_json(block, words)
    }

    /// A detail of OpenRouter's: reasoning in clear, if it did not come otherwise, or encrypted, for one call.
    fn detail(&mut self, detail: &RawValue, thought: bool, out: &mut MessageBuilder) -> Result<()> {
        let Ok([kind, id, data, words]) = members(detail.get(), ["type", "id", "data", "text"]) else {
            return Ok(());
        };
        match (kind.and_then(text).as_deref(), words, id.and_then(text)) {
            (Some("reasoning.text"), Some(words), _) if !thought && !is_empty(words) => {
                self.end_tags(out)?;
                self.tags.strict = true;
                let block = self.thinking(Some("reasoning_details"), out)?;
                out.delta_json(block, words)
            }
            (Some("reasoning.encrypted"), _, Some(id)) if data.is_some_and(|data| !is_empty(data)) => {
                match self.calls.iter().find(|call| call.id == *id) {
                    Some(call) => out.signature(call.block, detail.get()),
                    None if self.details.len() < CALLS => {
                        self.details.push((id.into_owned(), detail.get().to_owned()));
                        Ok(())
                    }
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn call(
        &mut self,
        number: Option<u64>,
        id: &str,
        function: &RawValue,
        signature: Option<&str>,
        out: &mut MessageBuilder,
    ) -> Result<()> {
        let [name, arguments] =
            members(function.get(), ["name", "arguments"]).map_err(|error| malformed(API, error))?;
        let name = name.and_then(lossy_text).unwrap_or_default();
        // A call is known by its number, else by its id, else it is the last. Some servers number all of them 0: a new
        // name with a new id is a new call.
        let known = match (number, id) {
            (None, "") => self.calls.last(),
            (None, id) => self.calls.iter().rfind(|call| call.id == id),
            (number, _) => self.calls.iter().rfind(|call| call.number == number),
        };
        let known = known.filter(|call| name.is_empty() || id.is_empty() || call.id == id);
        let block = match known {
            Some(call) => call.block,
            None if name.is_empty() => return Err(malformed(API, "a tool call begins without a name")),
            None if self.calls.len() == CALLS => return Err(malformed(API, "too many tool calls")),
            None => {
                self.close(out);
                let id = if id.is_empty() {
                    let response = out.message().response_id.clone().unwrap_or_default();
                    let time = out.message().timestamp_ms.to_string();
                    openai::made_id("call_", &[&response, &time, &self.calls.len().to_string(), &name])
                } else {
                    id.to_owned()
                };
                let block = out.tool_start(&id, &name)?;
                if let Some(at) = self.details.iter().position(|(call, _)| *call == id) {
                    out.signature(block, &self.details.swap_remove(at).1)?;
                }
                self.calls.push(Call { number, id, block });
                block
            }
        };
        if let Some(signature) = signature {
            out.signature(block, signature)?;
        }
        match arguments {
            Some(arguments) if arguments.get().starts_with('"') => out.delta_json(block, arguments),
            // Some servers send an object where the API has its text.
            Some(arguments) => out.tool_delta(block, arguments.get()),
            None => Ok(()),
        }
    }

    fn text(&mut self, out: &mut MessageBuilder) -> usize {
        if let Some((Kind::Text, block)) = self.open {
            return block;
        }
        self.close(out);
        let block = out.text_start();
        self.open = Some((Kind::Text, block));
        block
    }

    /// The block of thinking, which has the name of the field it came in for its signature.
    fn thinking(&mut self, field: Option<&str>, out: &mut MessageBuilder) -> Result<usize> {
        if let Some((Kind::Thinking, block)) = self.open {
            return Ok(block);
        }
        self.close(out);
        let block = out.thinking_start();
        self.open = Some((Kind::Thinking, block));
        if let Some(field) = field {
            out.signature(block, field)?;
        }
        Ok(block)
    }

    fn close(&mut self, out: &mut MessageBuilder) {
        match self.open.take() {
            Some((Kind::Text, block)) => out.text_end(block),
            Some((Kind::Thinking, block)) => out.thinking_end(block),
            None => {}
        }
    }
}

fn is_empty(json: &RawValue) -> bool {
    json.get() == "\"\""
}

/// What Gemini wants back with a call, where Google's compatible endpoint has it.
fn google_signature(extra: &RawValue) -> Option<Cow<'_, str>> {
    let [google] = members(extra.get(), ["google"]).ok()?;
    let [signature] = members(google?.get(), ["thought_signature"]).ok()?;
    text(signature?).filter(|signature| !signature.is_empty())
}

/// The counts as OpenClaw has them: what was cached is no part of `input`.
fn usage(json: &RawValue) -> Usage {
    let Ok([prompt, answer, total, prompt_details, answer_details, hits, created]) = members(
        json.get(),
        [
            "prompt_tokens",
            "completion_tokens",
            "total_tokens",
            "prompt_tokens_details",
            "completion_tokens_details",
            "prompt_cache_hit_tokens",
            "cache_creation_input_tokens",
        ],
    ) else {
        return Usage::default();
    };
    let [cached, written, also_written] = prompt_details
        .and_then(|details| {
            members(details.get(), ["cached_tokens", "cache_write_tokens", "cache_creation_input_tokens"])
                .ok()
        })
        .unwrap_or_default();
    let [reasoning] = answer_details
        .and_then(|details| members(details.get(), ["reasoning_tokens"]).ok())
        .unwrap_or_default();
    let cache_read = cached.or(hits).and_then(count);
    let cache_write = written.or(also_written).or(created).and_then(count);
    let kept = cache_read.unwrap_or_default().saturating_add(cache_write.unwrap_or_default());
    let mut usage = Usage {
        input: prompt.and_then(count).map(|prompt| prompt.saturating_sub(kept)),
        output: answer.and_then(count),
        cache_read,
        cache_write,
        total_tokens: total.and_then(count),
        reasoning: reasoning.and_then(count),
        ..Usage::default()
    };
    usage.sum_up();
    usage
}
