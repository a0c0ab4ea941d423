//! OpenAI's responses.
//!
//! By the API reference, <https://platform.openai.com/docs/api-reference/responses>. Nothing is stored at OpenAI: what the
//! API wants back (reasoning, encrypted; the ids of items) is kept in the message's signatures, in OpenClaw's form. A call
//! has the id `call_id|item_id`, as in OpenClaw.
//!
//! An answer ends with `response.completed` or `response.incomplete`.

use std::fmt::Write as _;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::api::{
    Api, Endpoint, Flow, Framing, HttpRequest, ModelPage, Reducer, count, elements, failed, incomplete,
    lossy_text, malformed, members, text,
};
use super::builder::MessageBuilder;
use super::message::{Block, StopReason, Usage, write_string};
use super::openai;
use super::request::{
    CompletionRequest, Content, Message, ResponseFormat, Thinking, Tool, ToolChoice, refused,
};
use crate::Result;

const API: &str = "openai-responses";
/// Items of one answer; no model makes so many.
const ITEMS: usize = 4096;

/// `POST /responses`.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenAiResponses;

impl Api for OpenAiResponses {
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
        openai::post(endpoint, "/responses", payload(request, endpoint)?, &request.extra)
    }

    fn framing(&self) -> Framing {
        Framing::Sse
    }

    fn reducer(&self) -> Box<dyn Reducer> {
        Box::<Responses>::default()
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
    if let Some(system) = &request.system {
        set("instructions", system.as_str().into());
    }
    set("input", input(request, endpoint));
    set("stream", true.into());
    set("store", false.into());
    if !request.tools.is_empty() {
        let tool = |tool: &Tool| {
            // Strict is the default here, and refuses most schemas.
            json!({
                "type": "function", "name": tool.name, "description": tool.description,
                "parameters": openai::parameters(tool), "strict": false,
            })
        };
        set("tools", request.tools.iter().map(tool).collect());
        match &request.tool_choice {
            None => {}
            Some(ToolChoice::Auto) => set("tool_choice", "auto".into()),
            Some(ToolChoice::None) => set("tool_choice", "none".into()),
            Some(ToolChoice::Required) => set("tool_choice", "required".into()),
            Some(ToolChoice::Tool(name)) => {
                set("tool_choice", json!({ "type": "function", "name": name }));
            }
        }
        if let Some(parallel) = request.parallel_tool_calls {
            set("parallel_tool_calls", parallel.into());
        }
    }
    if let Some(tokens) = request.max_tokens {
        set("max_output_tokens", tokens.into());
    }
    if let Some(temperature) = request.temperature {
        set("temperature", temperature.into());
    }
    if !request.stop.is_empty() {
        return Err(refused("stop", "cannot be said to the responses API, which has no stop texts"));
    }
    match &request.thinking {
        None => {}
        Some(Thinking::Effort(effort)) => {
            set("reasoning", json!({ "effort": effort, "summary": "auto" }));
            // What is not stored comes back encrypted, for the next turn. A model that does not think refuses to be asked.
            set("include", json!(["reasoning.encrypted_content"]));
        }
        Some(Thinking::Budget(_)) => {
            return Err(refused(
                "thinking.budgetTokens",
                "cannot be said to the responses API: use `thinking.effort`",
            ));
        }
    }
    if let Some((name, value)) = openai::retention(request, endpoint) {
        set(name, value);
    }
    match &request.response_format {
        None => {}
        Some(ResponseFormat::Json) => set("text", json!({ "format": { "type": "json_object" } })),
        Some(format) => {
            let mut format = openai::schema_format(format).unwrap_or_default();
            format.insert("type".into(), "json_schema".into());
            set("text", json!({ "format": format }));
        }
    }
    if let Some(tier) = &request.service_tier {
        set("service_tier", tier.as_str().into());
    }
    Ok(payload)
}

fn input(request: &CompletionRequest, endpoint: &Endpoint) -> Value {
    let mut out = Vec::with_capacity(request.messages.len());
    for message in &request.messages {
        match message {
            Message::User { content } => {
                let content: Vec<_> = content.iter().filter_map(input_part).collect();
                out.push(json!({ "type": "message", "role": "user", "content": content }));
            }
            Message::Assistant { content, source } => {
                let own = source.is(API, endpoint, request);
                out.extend(content.iter().filter_map(|part| output_item(part, own)));
            }
            Message::ToolResult { tool_call_id, content, .. } => {
                let parts: Vec<_> = content.iter().filter_map(input_part).collect();
                let pictures = content.iter().any(|part| matches!(part, Content::Image { .. }));
                let text = openai::result_text(content);
                let output: Value = match (pictures, text.is_empty()) {
                    (true, _) => parts.into(),
                    (false, true) => "(no output)".into(),
                    (false, false) => text.into(),
                };
                let call = openai::call_id(tool_call_id);
                out.push(json!({ "type": "function_call_output", "call_id": call, "output": output }));
            }
        }
    }
    out.into()
}

fn input_part(part: &Content) -> Option<Value> {
    Some(match part {
        Content::Text { text, .. } => json!({ "type": "input_text", "text": text }),
        Content::Image { data, mime_type } => {
            let url = openai::image_url(mime_type, data);
            json!({ "type": "input_image", "detail": "auto", "image_url": url })
        }
        _ => return None,
    })
}

/// An item of an earlier answer. Ids and reasoning go back as they came, if they came from this API and model: together,
/// since the API refuses one without the other.
fn output_item(part: &Content, own: bool) -> Option<Value> {
    match part {
        Content::Text { text, signature } if !text.is_empty() => {
            let content = json!([{ "type": "output_text", "text": text, "annotations": [] }]);
            let mut item =
                json!({ "type": "message", "role": "assistant", "content": content, "status": "completed" });
            let signed = signature.as_deref().filter(|_| own);
            let signed = signed.and_then(|signature| serde_json::from_str::<Value>(signature).ok());
            if let (Some(Value::Object(signed)), Some(item)) = (signed, item.as_object_mut()) {
                for name in ["id", "phase"] {
                    if let Some(value) = signed.get(name) {
                        item.insert(name.into(), value.clone());
                    }
                }
            }
            Some(item)
        }
        Content::Thinking { signature: Some(signature), .. } if own => {
            let item: Value = serde_json::from_str(signature).ok()?;
            (item.get("type").and_then(Value::as_str) == Some("reasoning")).then_some(item)
        }
        Content::ToolCall { id, name, arguments, .. } => {
            let arguments = Value::Object(arguments.clone()).to_string();
            let call = openai::call_id(id);
            let mut item =
                json!({ "type": "function_call", "call_id": call, "name": name, "arguments": arguments });
            if let (true, Some((_, own_id)), Some(item)) = (own, id.split_once('|'), item.as_object_mut()) {
                item.insert("id".into(), own_id.into());
            }
            Some(item)
        }
        _ => None,
    }
}

// ── answer ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Reads one answer.
#[derive(Debug, Default)]
struct Responses {
    items: Vec<Item>,
    /// Arguments came for a call that had not begun.
    lost: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    Call,
}

/// An item of the answer, which is a block of the message.
#[derive(Debug)]
struct Item {
    kind: Kind,
    /// `output_index`, if the server gave one.
    number: Option<u64>,
    id: String,
    block: usize,
    /// If anything of it has come in pieces: whether that was reasoning itself, and not its summary.
    streamed: Option<bool>,
    /// Its pieces came before it did.
    implied: bool,
    done: bool,
}

impl Reducer for Responses {
    fn event(&mut self, name: &str, data: &str, out: &mut MessageBuilder) -> Result<Flow> {
        let [kind, number, id, delta, item, response] =
            members(data, ["type", "output_index", "item_id", "delta", "item", "response"])
                .map_err(|error| malformed(API, error))?;
        let kind = kind.and_then(text);
        let kind = kind.as_deref().unwrap_or(name);
        let number = number.and_then(count);
        let id = id.and_then(text);
        let id = id.as_deref().unwrap_or_default();
        let delta = delta.filter(|delta| delta.get() != "\"\"");
        match kind {
            // Azure says `response.text.delta`.
            "response.output_text.delta" | "response.text.delta" | "response.refusal.delta" => {
                self.delta(Kind::Text, false, (number, id), delta, out)?;
            }
            "response.reasoning_summary_text.delta" => {
                self.delta(Kind::Thinking, false, (number, id), delta, out)?;
            }
            "response.reasoning_text.delta" => {
                self.delta(Kind::Thinking, true, (number, id), delta, out)?;
            }
            "response.function_call_arguments.delta" => {
                self.delta(Kind::Call, false, (number, id), delta, out)?;
            }
            "response.reasoning_summary_part.added" => {
                if let Some(item) = self.find(Kind::Thinking, number, id)
                    && item.streamed == Some(false)
                {
                    out.thinking_delta(item.block, "\n\n")?;
                }
            }
            "response.output_item.added" => {
                if let Some(item) = item {
                    self.added(number, item, out)?;
                }
            }
            "response.output_item.done" => {
                if let Some(item) = item {
                    self.done(number, None, item, out)?;
                }
            }
            "response.created" | "response.in_progress" => {
                out.start();
                if let Some(response) = response {
                    identify(response, out);
                }
            }
            "response.completed" | "response.incomplete" => {
                let response = response.ok_or_else(|| malformed(API, "an end without its response"))?;
                self.ended(kind == "response.incomplete", response, out)?;
                return Ok(Flow::End);
            }
            "response.failed" => return Err(failure(response, out)),
            "error" => {
                let [error] = members(data, ["error"]).unwrap_or_default();
                let Some(error) = error else {
                    let [message, code] = members(data, ["message", "code"]).unwrap_or_default();
                    let code = code.and_then(lossy_text);
                    let message = message.and_then(lossy_text).unwrap_or_default();
                    return Err(failed(API, code.as_deref(), &message));
                };
                return Err(openai::failure(API, error));
            }
            _ => {}
        }
        Ok(Flow::Continue)
    }

    fn end(&mut self, _out: &mut MessageBuilder) -> Result<()> {
        Err(incomplete(API))
    }
}

impl Responses {
    /// The item by its number, else by its id, else the last of its kind that has no number.
    fn find(&mut self, kind: Kind, number: Option<u64>, id: &str) -> Option<&mut Item> {
        let open = |item: &Item| item.kind == kind && !item.done;
        let at =
            (self.items.iter().rposition(|item| open(item) && number.is_some() && item.number == number))
                .or_else(|| self.items.iter().rposition(|item| open(item) && !id.is_empty() && item.id == id))
                .or_else(|| {
                    let nameless = number.is_none() && id.is_empty();
                    self.items.iter().rposition(|item| {
                        open(item)
                            && (nameless || item.number.is_none() && (id.is_empty() || item.id.is_empty()))
                    })
                });
        self.items.get_mut(at?)
    }

    /// More of an item. `raw` tells reasoning itself from its summary: the first that comes counts.
    fn delta(
        &mut self,
        kind: Kind,
        raw: bool,
        (number, id): (Option<u64>, &str),
        delta: Option<&RawValue>,
        out: &mut MessageBuilder,
    ) -> Result<()> {
        let Some(delta) = delta else { return Ok(()) };
        if let Some(item) = self.find(kind, number, id) {
            let first = *item.streamed.get_or_insert(raw);
            return if first == raw { out.delta_json(item.block, delta) } else { Ok(()) };
        }
        let ended = |item: &Item| {
            item.kind == kind
                && (number.is_some() && item.number == number || !id.is_empty() && item.id == id)
        };
        if self.items.iter().any(ended) {
            return Ok(());
        }
        // It comes before its item, or the server tells of no items.
        let block = match kind {
            Kind::Text => out.text_start(),
            Kind::Thinking => out.thinking_start(),
            Kind::Call => {
                self.lost = true;
                return Ok(());
            }
        };
        self.push(Item {
            kind,
            number,
            id: id.into(),
            block,
            streamed: Some(raw),
            implied: true,
            done: false,
        })?;
        out.delta_json(block, delta)
    }

    fn push(&mut self, item: Item) -> Result<usize> {
        if self.items.len() == ITEMS {
            return Err(malformed(API, "too many items"));
        }
        self.items.push(item);
        Ok(self.items.len() - 1)
    }

    fn added(
        &mut self,
        number: Option<u64>,
        json: &RawValue,
        out: &mut MessageBuilder,
    ) -> Result<Option<usize>> {
        let [kind, id, call, name, arguments] =
            members(json.get(), ["type", "id", "call_id", "name", "arguments"])
                .map_err(|error| malformed(API, error))?;
        let id = id.and_then(text).unwrap_or_default().into_owned();
        // What the server does by itself, such as a search, is no part of a message.
        let Some(kind) = kind_of(kind) else { return Ok(None) };
        let implied = |item: &Item| {
            item.implied && !item.done && item.kind == kind && (item.number == number || item.id == id)
        };
        if let Some(at) = self.items.iter().position(implied) {
            if let Some(item) = self.items.get_mut(at) {
                item.implied = false;
                item.number = number.or(item.number);
                item.id = id;
            }
            return Ok(Some(at));
        }
        let block = match kind {
            Kind::Text => out.text_start(),
            Kind::Thinking => out.thinking_start(),
            Kind::Call => {
                let name = name.and_then(lossy_text).unwrap_or_default();
                let mut call = call.and_then(text).unwrap_or_default().into_owned();
                if call.is_empty() {
                    let response = out.message().response_id.clone().unwrap_or_default();
                    call = openai::made_id("call_", &[&response, &self.items.len().to_string(), &name]);
                }
                if !id.is_empty() {
                    let _ = write!(call, "|{id}");
                }
                out.tool_start(&call, name.trim())?
            }
        };
        let mut item = Item { kind, number, id, block, streamed: None, implied: false, done: false };
        if let (Kind::Call, Some(arguments)) = (kind, arguments.filter(|arguments| arguments.get() != "\"\""))
        {
            out.delta_json(block, arguments)?;
            item.streamed = Some(false);
        }
        self.push(item).map(Some)
    }

    /// An item is complete, and comes once more in full: what did not come in pieces is taken from here. `known` is where
    /// it is, if the caller knows better than the item's id and number tell.
    fn done(
        &mut self,
        number: Option<u64>,
        known: Option<usize>,
        json: &RawValue,
        out: &mut MessageBuilder,
    ) -> Result<()> {
        let [kind, id, content, summary, arguments, phase, status] =
            members(json.get(), ["type", "id", "content", "summary", "arguments", "phase", "status"])
                .map_err(|error| malformed(API, error))?;
        let Some(kind) = kind_of(kind) else { return Ok(()) };
        let id = id.and_then(text).unwrap_or_default();
        let same = |item: &Item| {
            item.kind == kind && (if id.is_empty() { item.number == number } else { item.id == *id })
        };
        let known = self.items.iter().position(same).or(known).or_else(|| {
            self.items.iter().position(|item| item.kind == kind && number.is_some() && item.number == number)
        });
        let at = match known {
            Some(at) => Some(at),
            None => self.added(number, json, out)?,
        };
        let Some(item) = at.and_then(|at| self.items.get_mut(at)) else { return Ok(()) };
        if std::mem::replace(&mut item.done, true) {
            return Ok(());
        }
        let block = item.block;
        match kind {
            Kind::Text => {
                let whole = words(content, "");
                let streamed = match out.message().content.get(block) {
                    Some(Block::Text { text, .. }) => text.as_str(),
                    _ => "",
                };
                if let Some(rest) = whole.strip_prefix(streamed).map(str::to_owned) {
                    out.text_delta(block, &rest)?;
                }
                let mut signature = String::from("{\"v\":1,\"id\":");
                write_string(&mut signature, &id);
                if let Some(phase) = phase {
                    let _ = write!(signature, ",\"phase\":{}", phase.get());
                }
                signature.push('}');
                out.signature(block, &signature)?;
                out.text_end(block);
            }
            Kind::Thinking => {
                if item.streamed.is_none() {
                    let mut whole = words(summary, "\n\n");
                    if whole.is_empty() {
                        whole = words(content, "\n\n");
                    }
                    out.thinking_delta(block, &whole)?;
                }
                out.signature(block, json.get())?;
                out.thinking_end(block);
            }
            Kind::Call => {
                if status.and_then(text).is_some_and(|status| status == "incomplete") {
                    return Ok(());
                }
                match arguments.and_then(lossy_text).filter(|arguments| !arguments.is_empty()) {
                    Some(arguments) => out.tool_end_with(block, &arguments)?,
                    None if self.lost => {
                        return Err(malformed(API, "arguments of a call that has not begun"));
                    }
                    None => out.tool_end(block),
                }
            }
        }
        Ok(())
    }

    fn ended(&mut self, cut: bool, response: &RawValue, out: &mut MessageBuilder) -> Result<()> {
        identify(response, out);
        let [output, counts, status, details, model] =
            members(response.get(), ["output", "usage", "status", "incomplete_details", "model"])
                .map_err(|error| malformed(API, error))?;
        // Some servers leave out the events of single items, and some name and count the items otherwise here: the first
        // message is the first message, whatever its id.
        let mut seen = [0; 3];
        for (number, json) in (0..).zip(output.map(elements).unwrap_or_default()) {
            let [kind] = members(json.get(), ["type"]).map_err(|error| malformed(API, error))?;
            let Some(kind) = kind_of(kind) else { continue };
            let Some(nth) = seen.get_mut(kind as usize) else { continue };
            let mut items = self.items.iter().enumerate().filter(|(_, item)| item.kind == kind);
            let known = items.nth(*nth).map(|(at, _)| at);
            *nth += 1;
            self.done(known.is_none().then_some(number), known, json, out)?;
        }
        if let Some(counts) = counts {
            *out.usage() = usage(counts);
        }
        if let Some(model) = model.and_then(text).filter(|model| *model != out.message().model) {
            out.set_response_model(&model);
        }
        let [reason] =
            details.and_then(|details| members(details.get(), ["reason"]).ok()).unwrap_or_default();
        let status = status.and_then(text);
        match (status.as_deref(), reason.and_then(text).as_deref()) {
            (Some("incomplete"), Some("content_filter")) => {
                out.stop_with_error("Provider incomplete_reason: content_filter");
            }
            (Some("incomplete"), _) => out.stop(StopReason::Length),
            (Some("failed" | "cancelled"), _) => return Err(failure(Some(response), out)),
            _ if cut => out.stop(StopReason::Length),
            _ if self.items.iter().any(|item| item.kind == Kind::Call) => out.stop(StopReason::ToolUse),
            _ => out.stop(StopReason::Stop),
        }
        Ok(())
    }
}

fn kind_of(kind: Option<&RawValue>) -> Option<Kind> {
    Some(match kind.and_then(text).as_deref()? {
        "message" => Kind::Text,
        "reasoning" => Kind::Thinking,
        "function_call" => Kind::Call,
        _ => return None,
    })
}

/// The texts of an item's parts.
fn words(parts: Option<&RawValue>, between: &str) -> String {
    let parts = parts.map(elements).unwrap_or_default();
    let words = parts.iter().filter_map(|part| {
        let [words, refusal] = members(part.get(), ["text", "refusal"]).ok()?;
        lossy_text(words.or(refusal)?)
    });
    words.collect::<Vec<_>>().join(between)
}

fn identify(response: &RawValue, out: &mut MessageBuilder) {
    if out.message().response_id.is_none()
        && let Ok([Some(id)]) = members(response.get(), ["id"])
        && let Some(id) = text(id)
    {
        out.set_response_id(&id);
    }
}

fn failure(response: Option<&RawValue>, out: &mut MessageBuilder) -> crate::CoreError {
    let Some(response) = response else { return failed(API, None, "") };
    identify(response, out);
    let Ok([error, counts, status]) = members(response.get(), ["error", "usage", "status"]) else {
        return failed(API, None, "");
    };
    if let Some(counts) = counts {
        *out.usage() = usage(counts);
    }
    let Some(error) = error else { return failed(API, status.and_then(text).as_deref(), "") };
    // The code says more than a type would; there is none.
    openai::failure(API, error)
}

/// The counts as OpenClaw has them: what was cached is no part of `input`.
fn usage(json: &RawValue) -> Usage {
    let Ok([prompt, answer, total, prompt_details, answer_details]) = members(
        json.get(),
        ["input_tokens", "output_tokens", "total_tokens", "input_tokens_details", "output_tokens_details"],
    ) else {
        return Usage::default();
    };
    let [cached, written] = prompt_details
        .and_then(|details| members(details.get(), ["cached_tokens", "cache_write_tokens"]).ok())
        .unwrap_or_default();
    let [reasoning] = answer_details
        .and_then(|details| members(details.get(), ["reasoning_tokens"]).ok())
        .unwrap_or_default();
    let cache_read = cached.and_then(count);
    let cache_write = written.and_then(count);
    let kept = cache_read.unwrap_or_default().saturating_add(cache_write.unwrap_or_default());
    let mut usage = Usage {
        input: prompt.and_then(count).map(|prompt| prompt.saturating_sub(kept)),
        output: answer.and_then(count),
        cache_read,
        cache_write,
        reasoning: reasoning.and_then(count),
        ..Usage::default()
    };
    usage.sum_up();
    usage.total_tokens = usage.total_tokens.max(total.and_then(count));
    usage
}
