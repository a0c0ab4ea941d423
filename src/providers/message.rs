//! What a model answers, in OpenClaw's shapes.

use std::fmt::Write as _;

/// Token counts. A count that was not sent is absent, never 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// Of the prompt, cached parts not counted.
    pub input: Option<u64>,
    /// Of the answer, reasoning included.
    pub output: Option<u64>,
    /// Of the prompt, read from the cache.
    pub cache_read: Option<u64>,
    /// Of the prompt, written to the cache, for whatever time.
    pub cache_write: Option<u64>,
    /// The part of `cache_write` that is kept for an hour.
    pub cache_write_1h: Option<u64>,
    /// The sum of the four, or what the API itself says it is.
    pub total_tokens: Option<u64>,
    /// The part of `output` that is reasoning.
    pub reasoning: Option<u64>,
    /// In the currency of the prices, if the caller gave prices.
    pub cost: Option<Cost>,
}

/// What a call cost, by kind of token.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// `input`.
    pub input: f64,
    /// `output`.
    pub output: f64,
    /// `cacheRead`.
    pub cache_read: f64,
    /// `cacheWrite`.
    pub cache_write: f64,
    /// Their sum.
    pub total: f64,
}

impl Usage {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Sets `total_tokens` to the sum, if prompt and answer are known.
    pub fn sum_up(&mut self) {
        if let (Some(input), Some(output)) = (self.input, self.output) {
            let cached =
                self.cache_read.unwrap_or_default().saturating_add(self.cache_write.unwrap_or_default());
            self.total_tokens = Some(input.saturating_add(output).saturating_add(cached));
        }
    }

    /// Takes over what is counted later; what is not counted again stays.
    pub fn update(&mut self, later: &Self) {
        let pairs = [
            (&mut self.input, later.input),
            (&mut self.output, later.output),
            (&mut self.cache_read, later.cache_read),
            (&mut self.cache_write, later.cache_write),
            (&mut self.cache_write_1h, later.cache_write_1h),
            (&mut self.reasoning, later.reasoning),
            (&mut self.total_tokens, later.total_tokens),
        ];
        for (mine, later) in pairs {
            *mine = later.or(*mine);
        }
        self.sum_up();
    }

    /// Adds another call's counts; what neither knows stays absent.
    pub fn add(&mut self, other: &Self) {
        let sum = |mine: &mut Option<u64>, more: Option<u64>| {
            if let Some(more) = more {
                *mine = Some(mine.unwrap_or_default().saturating_add(more));
            }
        };
        sum(&mut self.input, other.input);
        sum(&mut self.output, other.output);
        sum(&mut self.cache_read, other.cache_read);
        sum(&mut self.cache_write, other.cache_write);
        sum(&mut self.cache_write_1h, other.cache_write_1h);
        sum(&mut self.total_tokens, other.total_tokens);
        sum(&mut self.reasoning, other.reasoning);
        if let Some(more) = other.cost {
            let mine = self.cost.get_or_insert_default();
            mine.input += more.input;
            mine.output += more.output;
            mine.cache_read += more.cache_read;
            mine.cache_write += more.cache_write;
            mine.total += more.total;
        }
    }

    /// Appends it as JSON.
    pub fn write_json(&self, out: &mut String) {
        let counts = [
            ("input", self.input),
            ("output", self.output),
            ("cacheRead", self.cache_read),
            ("cacheWrite", self.cache_write),
            ("cacheWrite1h", self.cache_write_1h),
            ("totalTokens", self.total_tokens),
            ("reasoning", self.reasoning),
        ];
        let mut separator = '{';
        for (name, count) in counts {
            let Some(count) = count else { continue };
            let _ = write!(out, "{separator}\"{name}\":{count}");
            separator = ',';
        }
        if let Some(cost) = &self.cost {
            let _ = write!(
                out,
                "{separator}\"cost\":{{\"input\":{},\"output\":{},\"cacheRead\":{},\"cacheWrite\":{},\"total\":{}}}",
                cost.input, cost.output, cost.cache_read, cost.cache_write, cost.total
            );
            separator = ',';
        }
        out.push_str(if separator == '{' { "{}" } else { "}" });
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// It is complete, or reached a stop text.
    Stop,
    /// It has as many tokens as it may.
    Length,
    /// The model waits for the results of its tool calls.
    ToolUse,
    /// It failed, was refused or was filtered; `error_message` says what happened.
    Error,
    /// The caller ended it.
    Aborted,
}

impl StopReason {
    /// OpenClaw's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolUse => "toolUse",
            Self::Error => "error",
            Self::Aborted => "aborted",
        }
    }
}

/// A block of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// Text.
    Text {
        /// The text.
        text: String,
        /// `textSignature`.
        signature: Option<String>,
    },
    /// Reasoning.
    Thinking {
        /// The reasoning.
        thinking: String,
        /// `thinkingSignature`.
        signature: Option<String>,
        /// Whether it is hidden.
        redacted: bool,
    },
    /// A call of a tool.
    ToolCall {
        /// The call's id.
        id: String,
        /// The tool's name.
        name: String,
        /// JSON: in a finished message one object, before that whatever has come.
        arguments: String,
        /// `thoughtSignature`.
        thought_signature: Option<String>,
    },
}

/// An answer.
#[derive(Clone, Debug)]
pub struct AssistantMessage {
    /// Its parts.
    pub content: Vec<Block>,
    /// The API it came by.
    pub api: &'static str,
    /// The provider it came from.
    pub provider: String,
    /// The model that was asked.
    pub model: String,
    /// The API's id of the answer.
    pub response_id: Option<String>,
    /// The model that says it answered.
    pub response_model: Option<String>,
    /// What was counted.
    pub usage: Usage,
    /// Why it ended.
    pub stop_reason: StopReason,
    /// With [`StopReason::Error`] and [`StopReason::Aborted`].
    pub error_message: Option<String>,
    /// When the call began, in milliseconds since 1970.
    pub timestamp_ms: u64,
}

impl AssistantMessage {
    /// The message as JSON text, in the shape that OpenClaw keeps in its transcripts.
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(256);
        self.write_json(&mut out);
        out
    }

    /// Appends it as JSON.
    pub fn write_json(&self, out: &mut String) {
        out.push_str("{\"role\":\"assistant\",\"content\":[");
        for (index, block) in self.content.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            block.write_json(out);
        }
        out.push(']');
        member(out, "api", Some(self.api));
        member(out, "provider", Some(&self.provider));
        member(out, "model", Some(&self.model));
        member(out, "responseId", self.response_id.as_deref());
        member(out, "responseModel", self.response_model.as_deref());
        if !self.usage.is_empty() {
            out.push_str(",\"usage\":");
            self.usage.write_json(out);
        }
        member(out, "stopReason", Some(self.stop_reason.as_str()));
        member(out, "errorMessage", self.error_message.as_deref());
        let _ = write!(out, ",\"timestamp\":{}}}", self.timestamp_ms);
    }
}

impl Block {
    /// Appends it as JSON.
    pub fn write_json(&self, out: &mut String) {
        match self {
            Self::Text { text, signature } => {
                out.push_str("{\"type\":\"text\"");
                member(out, "text", Some(text));
                member(out, "textSignature", signature.as_deref());
            }
            Self::Thinking { thinking, signature, redacted } => {
                out.push_str("{\"type\":\"thinking\"");
                member(out, "thinking", Some(thinking));
                member(out, "thinkingSignature", signature.as_deref());
                if *redacted {
                    out.push_str(",\"redacted\":true");
                }
            }
            Self::ToolCall { id, name, arguments, thought_signature } => {
                out.push_str("{\"type\":\"toolCall\"");
                member(out, "id", Some(id));
                member(out, "name", Some(name));
                let _ = write!(out, ",\"arguments\":{arguments}");
                member(out, "thoughtSignature", thought_signature.as_deref());
            }
        }
        out.push('}');
    }
}

fn member(out: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        let _ = write!(out, ",\"{name}\":");
        write_string(out, value);
    }
}

/// Appends a JSON string.
pub fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(text.get(plain..at).unwrap_or_default());
        plain = at + 1;
        let _ = match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
                Ok(())
            }
            b'\n' => out.write_str("\\n"),
            other => write!(out, "\\u{other:04x}"),
        };
    }
    out.push_str(text.get(plain..).unwrap_or_default());
    out.push('"');
}
