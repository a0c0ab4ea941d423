//! What is asked of a model, in OpenClaw's shapes.
//!
//! A request comes as the JSON text of the caller's object and is read into types at once
//! ([`CompletionRequest::from_json`]). A field of the wrong kind, or one that nobody knows, is a `PROVIDER_REQUEST` that
//! names it. Messages may carry more than is read here: OpenClaw's transcripts do.

use serde_json::{Map, Value};

use super::api::Endpoint;
use crate::{Code, CoreError, Result};

/// What is asked of a model.
#[derive(Clone, Debug, Default)]
pub struct CompletionRequest {
    /// The model's id as the API knows it.
    pub model: String,
    /// The system prompt.
    pub system: Option<String>,
    /// The conversation, oldest first.
    pub messages: Vec<Message>,
    /// What the model may call.
    pub tools: Vec<Tool>,
    /// Whether it may, must not, or must call a tool. Default: the API's own, which is that it may.
    pub tool_choice: Option<ToolChoice>,
    /// Whether it may call several tools in one turn. Default: the API's own.
    pub parallel_tool_calls: Option<bool>,
    /// The most tokens of the answer.
    pub max_tokens: Option<u64>,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Texts at which the answer ends.
    pub stop: Vec<String>,
    /// Whether, and how much, the model thinks first. Default: the API's own.
    pub thinking: Option<Thinking>,
    /// For how long the prompt is to be cached.
    pub cache: CacheRetention,
    /// The form of the answer.
    pub response_format: Option<ResponseFormat>,
    /// The API's service tier, in its own word.
    pub service_tier: Option<String>,
    /// Fields of the API's payload that go in as they are, over those that were derived.
    pub extra: Map<String, Value>,
}

/// A turn of the conversation.
#[derive(Clone, Debug)]
pub enum Message {
    /// What the user said.
    User {
        /// Text and images.
        content: Vec<Content>,
    },
    /// What a model answered.
    Assistant {
        /// Text, thinking and tool calls, in order.
        content: Vec<Content>,
        /// Where it came from.
        source: Source,
    },
    /// What a tool gave.
    ToolResult {
        /// Which call it answers.
        tool_call_id: String,
        /// The tool's name.
        tool_name: String,
        /// Text and images.
        content: Vec<Content>,
        /// Whether the tool failed.
        is_error: bool,
    },
}

/// Where an answer came from, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The API, such as `anthropic-messages`.
    pub api: Option<String>,
    /// The provider's id.
    pub provider: Option<String>,
    /// The model.
    pub model: Option<String>,
}

impl Source {
    /// Whether it is the one that is asked now. Signatures mean nothing to any other.
    pub fn is(&self, api: &str, endpoint: &Endpoint, request: &CompletionRequest) -> bool {
        [(&self.api, api), (&self.provider, &endpoint.provider), (&self.model, &request.model)]
            .into_iter()
            .all(|(mine, asked)| mine.as_deref().is_none_or(|mine| mine == asked))
    }
}

/// A part of a message.
#[derive(Clone, Debug)]
pub enum Content {
    /// Text.
    Text {
        /// The text.
        text: String,
        /// What an API wants back with it, untouched.
        signature: Option<String>,
    },
    /// The model's reasoning.
    Thinking {
        /// The reasoning as far as the API shows it.
        thinking: String,
        /// What the API wants back with it, untouched.
        signature: Option<String>,
        /// Whether the reasoning itself is hidden; then the signature holds it, encrypted.
        redacted: bool,
    },
    /// An image.
    Image {
        /// Base64.
        data: String,
        /// Such as `image/png`.
        mime_type: String,
    },
    /// A call of a tool.
    ToolCall {
        /// The call's id, which its result repeats.
        id: String,
        /// The tool's name.
        name: String,
        /// A JSON object.
        arguments: Map<String, Value>,
        /// What an API wants back with it, untouched.
        thought_signature: Option<String>,
    },
}

/// What a model may call.
#[derive(Clone, Debug)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// The JSON Schema of its arguments.
    pub parameters: Map<String, Value>,
}

/// Whether a model calls tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolChoice {
    /// As it likes.
    Auto,
    /// No.
    None,
    /// At least one.
    Required,
    /// This one.
    Tool(String),
}

/// How much a model thinks before it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thinking {
    /// At most so many tokens.
    Budget(u64),
    /// As the word says: `minimal`, `low`, `medium`, `high`; APIs know more of them (`xhigh`, `max`, `none`).
    Effort(String),
}

/// For how long a prompt is cached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheRetention {
    /// Nothing is marked. The API may cache by itself.
    #[default]
    None,
    /// The API's usual time; 5 minutes at Anthropic.
    Short,
    /// The API's longer time; an hour at Anthropic.
    Long,
}

/// The form of an answer.
#[derive(Clone, Debug)]
pub enum ResponseFormat {
    /// Any JSON object.
    Json,
    /// JSON that fits a schema.
    Schema {
        /// A name for the schema.
        name: String,
        /// The JSON Schema.
        schema: Map<String, Value>,
        /// Whether the API must enforce it exactly. Default: its own.
        strict: Option<bool>,
    },
}

/// The error of a request that cannot be sent: `field` is what is at fault, as JavaScript would name it.
pub fn refused(field: &str, words: &str) -> CoreError {
    CoreError::new(Code::ProviderRequest, format!("`{field}` {words}")).at_path(field)
}

impl CompletionRequest {
    /// Reads a request from the JSON text of the caller's object.
    ///
    /// # Errors
    /// `PROVIDER_REQUEST`: a field is of the wrong kind, missing or unknown; its name is in the message and in `path`.
    pub fn from_json(json: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(json).map_err(|error| {
            CoreError::new(Code::ProviderRequest, format!("the request is no JSON that can be read: {error}"))
        })?;
        let mut fields = Fields::new("request", value)?;
        let mut request = Self {
            model: fields.required_text("model")?,
            system: fields.text("system")?,
            tool_choice: fields.take("toolChoice").map(tool_choice).transpose()?,
            parallel_tool_calls: fields.flag("parallelToolCalls")?,
            max_tokens: fields.count("maxTokens")?,
            temperature: fields.number("temperature")?,
            thinking: fields.take("thinking").map(thinking).transpose()?,
            service_tier: fields.text("serviceTier")?,
            response_format: fields.take("responseFormat").map(response_format).transpose()?,
            extra: fields.object("extra")?.unwrap_or_default(),
            ..Self::default()
        };
        if request.model.is_empty() {
            return Err(refused("model", "names no model"));
        }
        request.cache = match fields.text("cache")?.as_deref() {
            None | Some("none") => CacheRetention::None,
            Some("short") => CacheRetention::Short,
            Some("long") => CacheRetention::Long,
            Some(other) => {
                return Err(refused(
                    "cache",
                    &format!("must be \"none\", \"short\" or \"long\", not {other:?}"),
                ));
            }
        };
        let messages = fields.take("messages").ok_or_else(|| refused("messages", "is missing"))?;
        for (at, value) in array("messages", messages)?.into_iter().enumerate() {
            request.messages.push(message(&format!("messages[{at}]"), value)?);
        }
        request.answer_calls();
        for (at, value) in fields.array("tools")?.into_iter().enumerate() {
            let name = format!("tools[{at}]");
            let mut fields = Fields::new(&name, value)?;
            request.tools.push(Tool {
                name: fields.required_text("name")?,
                description: fields.text("description")?.unwrap_or_default(),
                parameters: fields.object("parameters")?.unwrap_or_default(),
            });
            fields.nothing_else()?;
        }
        for (at, value) in fields.array("stop")?.into_iter().enumerate() {
            let Value::String(text) = value else {
                return Err(refused(&format!("stop[{at}]"), "must be a string"));
            };
            request.stop.push(text);
        }
        match fields.rest() {
            None => Ok(request),
            Some(unknown) => {
                Err(refused(&unknown, "is no field of a request: what only one API knows goes into `extra`"))
            }
        }
    }
}

impl CompletionRequest {
    /// Gives each call that nobody answered, as after an abort, the result that OpenClaw gives it (`transformMessages`):
    /// all APIs but Ollama's refuse the conversation without.
    fn answer_calls(&mut self) {
        let mut messages = Vec::with_capacity(self.messages.len());
        let mut calls: Vec<(String, String)> = Vec::new();
        for message in std::mem::take(&mut self.messages) {
            match &message {
                Message::ToolResult { tool_call_id, .. } => {
                    calls.retain(|(id, _)| id.trim() != tool_call_id.trim());
                }
                _ => messages.extend(calls.drain(..).map(no_result)),
            }
            if let Message::Assistant { content, .. } = &message {
                calls.extend(content.iter().filter_map(|part| match part {
                    Content::ToolCall { id, name, .. } => Some((id.clone(), name.clone())),
                    _ => None,
                }));
            }
            messages.push(message);
        }
        messages.extend(calls.into_iter().map(no_result));
        self.messages = messages;
    }
}

fn no_result((tool_call_id, tool_name): (String, String)) -> Message {
    let content = vec![Content::Text { text: "No result provided".into(), signature: None }];
    Message::ToolResult { tool_call_id, tool_name, content, is_error: true }
}

/// Where a schema is enforced in any case, `strict: false` cannot be had.
pub fn check_strict(strict: Option<bool>) -> Result<()> {
    match strict {
        Some(false) => {
            Err(refused("responseFormat.strict", "cannot be false here: a schema is always enforced"))
        }
        _ => Ok(()),
    }
}

fn message(name: &str, value: Value) -> Result<Message> {
    let mut fields = Fields::new(name, value)?;
    let role = fields.required_text("role")?;
    if !matches!(role.as_str(), "user" | "assistant" | "toolResult") {
        let words = format!(
            "must be \"user\", \"assistant\" or \"toolResult\", not {role:?}; a system prompt goes into `system`"
        );
        return Err(refused(&format!("{name}.role"), &words));
    }
    let content = match fields.take("content") {
        Some(Value::String(text)) => vec![Content::Text { text, signature: None }],
        Some(value) => {
            let name = format!("{name}.content");
            let parts = array(&name, value)?.into_iter().enumerate();
            parts.map(|(at, part)| content(&format!("{name}[{at}]"), part, &role)).collect::<Result<_>>()?
        }
        None => return Err(refused(&format!("{name}.content"), "is missing")),
    };
    Ok(match role.as_str() {
        "user" => Message::User { content },
        "assistant" => Message::Assistant {
            content,
            source: Source {
                api: fields.text("api")?,
                provider: fields.text("provider")?,
                model: fields.text("model")?,
            },
        },
        _ => Message::ToolResult {
            tool_call_id: fields.required_text("toolCallId")?,
            tool_name: fields.text("toolName")?.unwrap_or_default(),
            content,
            is_error: fields.flag("isError")?.unwrap_or_default(),
        },
    })
}

fn content(name: &str, value: Value, role: &str) -> Result<Content> {
    let mut fields = Fields::new(name, value)?;
    let kind = fields.required_text("type")?;
    if fields.take("cache_control").is_some() {
        return Err(refused(&format!("{name}.cache_control"), "is not said here: `cache` marks the prompt"));
    }
    let assistant = role == "assistant";
    Ok(match kind.as_str() {
        "text" => {
            Content::Text { text: fields.required_text("text")?, signature: fields.text("textSignature")? }
        }
        "thinking" if assistant => Content::Thinking {
            thinking: fields.required_text("thinking")?,
            signature: fields.text("thinkingSignature")?,
            redacted: fields.flag("redacted")?.unwrap_or_default(),
        },
        "image" if !assistant => Content::Image {
            data: fields.required_text("data")?,
            mime_type: fields.required_text("mimeType")?,
        },
        "toolCall" if assistant => Content::ToolCall {
            id: fields.required_text("id")?,
            name: fields.required_text("name")?,
            arguments: fields.object("arguments")?.unwrap_or_default(),
            thought_signature: fields.text("thoughtSignature")?,
        },
        other => {
            let words = format!("is {other:?}, which a message of the role {role:?} cannot hold");
            return Err(refused(&format!("{name}.type"), &words));
        }
    })
}

fn tool_choice(value: Value) -> Result<ToolChoice> {
    Ok(match value {
        Value::String(word) if word == "auto" => ToolChoice::Auto,
        Value::String(word) if word == "none" => ToolChoice::None,
        Value::String(word) if word == "required" => ToolChoice::Required,
        Value::Object(_) => {
            let mut fields = Fields::new("toolChoice", value)?;
            let name = fields.required_text("name")?;
            fields.nothing_else()?;
            ToolChoice::Tool(name)
        }
        _ => {
            return Err(refused("toolChoice", "must be \"auto\", \"none\", \"required\" or { name }"));
        }
    })
}

fn thinking(value: Value) -> Result<Thinking> {
    let mut fields = Fields::new("thinking", value)?;
    let (budget, effort) = (fields.count("budgetTokens")?, fields.text("effort")?);
    fields.nothing_else()?;
    match (budget, effort) {
        (Some(tokens), None) => Ok(Thinking::Budget(tokens)),
        (None, Some(effort)) => Ok(Thinking::Effort(effort)),
        _ => Err(refused("thinking", "must be either { budgetTokens } or { effort }")),
    }
}

fn response_format(value: Value) -> Result<ResponseFormat> {
    let mut fields = Fields::new("responseFormat", value)?;
    let format = match fields.required_text("type")?.as_str() {
        "json" => ResponseFormat::Json,
        "jsonSchema" => ResponseFormat::Schema {
            name: fields.text("name")?.unwrap_or_else(|| "answer".into()),
            schema: fields.object("schema")?.ok_or_else(|| refused("responseFormat.schema", "is missing"))?,
            strict: fields.flag("strict")?,
        },
        other => {
            let words = format!("must be \"json\" or \"jsonSchema\", not {other:?}");
            return Err(refused("responseFormat.type", &words));
        }
    };
    fields.nothing_else()?;
    Ok(format)
}

fn array(name: &str, value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(refused(name, "must be an array")),
    }
}

/// The members of an object, taken out one by one. `null` is no value, as `undefined` is none.
struct Fields<'a> {
    /// What the object is called, for errors.
    name: &'a str,
    members: Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn new(name: &'a str, value: Value) -> Result<Self> {
        match value {
            Value::Object(members) => Ok(Self { name, members }),
            _ => Err(refused(name, "must be an object")),
        }
    }

    fn wrong(&self, field: &str, words: &str) -> CoreError {
        let path = if self.name == "request" { field.to_owned() } else { format!("{}.{field}", self.name) };
        refused(&path, words)
    }

    fn take(&mut self, field: &str) -> Option<Value> {
        self.members.swap_remove(field).filter(|value| !value.is_null())
    }

    fn text(&mut self, field: &str) -> Result<Option<String>> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(field, "must be a string")),
        }
    }

    fn required_text(&mut self, field: &str) -> Result<String> {
        self.text(field)?.ok_or_else(|| self.wrong(field, "is missing"))
    }

    fn flag(&mut self, field: &str) -> Result<Option<bool>> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(self.wrong(field, "must be a boolean")),
        }
    }

    fn number(&mut self, field: &str) -> Result<Option<f64>> {
        match self.members.swap_remove(field) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(number.as_f64()),
            Some(_) => Err(self.wrong(field, "must be a finite number")),
        }
    }

    fn count(&mut self, field: &str) -> Result<Option<u64>> {
        // What JavaScript writes as `null` may have been NaN: that is not the same as nothing.
        match self.members.swap_remove(field) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(count) if count > 0 => Ok(Some(count)),
                _ => Err(self.wrong(field, "must be a whole number from 1 on")),
            },
        }
    }

    fn object(&mut self, field: &str) -> Result<Option<Map<String, Value>>> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Object(members)) => Ok(Some(members)),
            Some(_) => Err(self.wrong(field, "must be an object")),
        }
    }

    fn array(&mut self, field: &str) -> Result<Vec<Value>> {
        match self.take(field) {
            None => Ok(Vec::new()),
            Some(Value::Array(values)) => Ok(values),
            Some(_) => Err(self.wrong(field, "must be an array")),
        }
    }

    /// That there is no member that nobody took.
    fn nothing_else(&mut self) -> Result<()> {
        let left = self.members.iter().find(|(_, value)| !value.is_null()).map(|(name, _)| name.clone());
        left.map_or(Ok(()), |name| Err(self.wrong(&name, "is not known here")))
    }

    /// The name of a member that nobody took.
    fn rest(self) -> Option<String> {
        self.members.into_iter().find(|(_, value)| !value.is_null()).map(|(name, _)| name)
    }
}
