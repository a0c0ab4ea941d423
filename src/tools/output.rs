//! What a tool gives, and how it is kept within bounds.

use serde_json::{Value, json};

use crate::sandbox::HeadAndTail;

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
