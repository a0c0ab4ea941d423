//! What a tool gives, and how it is kept within bounds.

use std::collections::VecDeque;

use serde_json::{Value, json};

/// A part of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// For the model to read.
    Text(String),
    /// For it to look at: base64, and the MIME type.
    Image {
        /// The bytes, as base64.
        data: String,
        /// Such as `image/png`.
        mime_type: String,
    },
}

/// What a tool gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// What the model gets to see.
    pub content: Vec<Content>,
    /// What else the caller gets.
    pub details: Option<Value>,
    /// Whether the tool could not do what it was asked for.
    pub is_error: bool,
}

impl Output {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { content: vec![Content::Text(text.into())], details: None, is_error: false }
    }

    /// A text that says what went wrong.
    pub fn error(text: impl Into<String>) -> Self {
        Self { is_error: true, ..Self::text(text) }
    }

    /// Adds what else the caller gets.
    #[must_use]
    pub fn with(self, details: Value) -> Self {
        Self { details: Some(details), ..self }
    }

    /// At most `most` bytes of text, base64 and details; what is cut says so.
    pub(super) fn within(self, most: usize) -> Self {
        let mut left = most;
        let mut content = Vec::with_capacity(self.content.len());
        for part in self.content {
            let part = match part {
                Content::Text(text) => Content::Text(cut(text, left)),
                Content::Image { data, .. } if data.len() > left => {
                    let what = format!(
                        "[an image of {} bytes is left out: a result has {most} at most]",
                        data.len()
                    );
                    Content::Text(cut(what, left.max(128)))
                }
                image @ Content::Image { .. } => image,
            };
            left = left.saturating_sub(match &part {
                Content::Text(text) => text.len(),
                Content::Image { data, .. } => data.len(),
            });
            content.push(part);
        }
        let details = self.details.filter(|details| details.to_string().len() <= left.max(1024));
        Self { content, details, is_error: self.is_error }
    }

    /// As a message of the conversation: one JSON text.
    pub(super) fn message(&self, call: &str, tool: &str) -> String {
        let content: Vec<_> = self.content.iter().map(Content::to_json).collect();
        let mut message = json!({
            "role": "toolResult", "toolCallId": call, "toolName": tool, "content": content, "isError": self.is_error,
        });
        if let (Some(details), Some(object)) = (&self.details, message.as_object_mut()) {
            object.insert("details".to_owned(), details.clone());
        }
        message.to_string()
    }
}

impl Content {
    fn to_json(&self) -> Value {
        match self {
            Self::Text(text) => json!({ "type": "text", "text": text }),
            Self::Image { data, mime_type } => {
                json!({ "type": "image", "data": data, "mimeType": mime_type })
            }
        }
    }
}

/// The head and the tail of a text of more than `most` bytes, and between them how much went.
pub(super) fn cut(text: String, most: usize) -> String {
    if text.len() <= most {
        return text;
    }
    let mut kept = HeadAndTail::new(most);
    kept.push(text.as_bytes());
    kept.into_text()
}

/// The first and the last half of what comes, and how much went between them.
pub(super) struct HeadAndTail {
    most: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    pub(super) dropped: u64,
}

impl HeadAndTail {
    pub(super) const fn new(most: usize) -> Self {
        Self { most, head: Vec::new(), tail: VecDeque::new(), dropped: 0 }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let half = self.most - self.most / 2;
        let (first, rest) = bytes.split_at(bytes.len().min(half.saturating_sub(self.head.len())));
        self.head.extend_from_slice(first);
        let room = self.most / 2;
        let skipped = rest.len().saturating_sub(room);
        let rest = rest.get(skipped..).unwrap_or_default();
        let over = (self.tail.len() + rest.len()).saturating_sub(room);
        self.tail.drain(..over);
        self.tail.extend(rest);
        self.dropped += (skipped + over) as u64;
    }

    /// As text; what is no UTF-8, also where it was cut, is shown as U+FFFD.
    pub(super) fn into_text(self) -> String {
        let (mut head, mut tail) = (self.head, Vec::from(self.tail));
        if self.dropped == 0 {
            head.append(&mut tail);
            return String::from_utf8_lossy(&head).into_owned();
        }
        // A character that was cut apart is no nonsense of the command's.
        let mut dropped = self.dropped;
        while let Some(&byte) = head.last()
            && let Err(error) = std::str::from_utf8(&head)
            && error.error_len().is_none()
        {
            head.pop();
            dropped += 1;
            if byte >= 0xC0 {
                break;
            }
        }
        let broken = tail.iter().take(3).take_while(|byte| (0x80..0xC0).contains(*byte)).count();
        tail.drain(..broken);
        dropped += broken as u64;
        let (head, tail) = (String::from_utf8_lossy(&head), String::from_utf8_lossy(&tail));
        format!("{head}\n[… {dropped} bytes left out …]\n{tail}")
    }
}
