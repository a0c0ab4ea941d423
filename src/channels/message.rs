//! Messages: what comes in, what goes out, and what became of it.
//!
//! The JSON forms are those that JavaScript sees; they are also what the event store keeps.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio_util::bytes::Bytes;

/// What kind of chat it is, in OpenClaw's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChatKind {
    /// With one person.
    #[default]
    Direct,
    /// With several.
    Group,
    /// A channel of a platform.
    Channel,
}

/// Where a message was written. `id` is what [`OutboundMessage::to`] takes for an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Chat {
    /// What kind of chat.
    pub kind: ChatKind,
    /// The platform's id of it.
    pub id: String,
    /// Its title, if it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub title: Option<String>,
}

/// Who wrote a message. Only `id` identifies: names are chosen by whoever bears them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sender {
    /// The platform's id.
    pub id: String,
    /// The name that is shown.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// The name by which the platform addresses, without a leading `@`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub username: Option<String>,
    /// Whether it is a program.
    pub is_bot: bool,
}

/// What an attachment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachmentKind {
    /// A picture.
    Image,
    /// Sound, voice messages included.
    Audio,
    /// A film, animations included.
    Video,
    /// Anything else.
    File,
    /// A sticker.
    Sticker,
}

/// Something that came with a message; [`super::Platform::download`] fetches it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// What it is, as the platform says.
    pub kind: AttachmentKind,
    /// A file's name, as the sender wrote it: not to be used as a path.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// As the platform says; what was downloaded is looked at.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mime_type: Option<String>,
    /// In bytes, as the platform says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
    /// What the adapter needs in order to fetch it, also after a restart: an id or a URL, and no secret.
    pub handle: String,
}

/// What happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InboundKind {
    /// A message was written.
    #[default]
    Message,
    /// A message was changed; `messageId` names it, and the text is the new one.
    Edit,
    /// Somebody reacted to `messageId`; the text is the emoji, empty if it was taken back.
    Reaction,
    /// Somebody pressed a button under `messageId`; the text is the button's data.
    Callback,
    /// A command of the platform's own (a slash command); the text is `/name arguments`.
    Command,
}

/// What came in, as an adapter gives it to [`super::Link::receive`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InboundMessage {
    /// Unique for the platform and account, and the same whenever the platform sends it again: of several with one
    /// id, one is delivered. 1 to 400 bytes.
    pub id: String,
    /// What happened.
    #[serde(default)]
    pub kind: InboundKind,
    /// The platform's id of the message within its chat, which answers, edits and reactions name.
    pub message_id: String,
    /// Where.
    pub chat: Chat,
    /// Who.
    pub sender: Sender,
    /// What, as plain text.
    pub text: String,
    /// Whether it is meant for this bot: always in a direct chat; in others if it mentions the bot, answers to it, or
    /// is a command for it.
    pub mentions_me: bool,
    /// What came with it.
    pub attachments: Vec<Attachment>,
    /// The message that it answers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reply_to_id: Option<String>,
    /// The thread or topic.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub thread_id: Option<String>,
    /// When it was written, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The platform's own JSON.
    pub raw: Box<RawValue>,
}

/// How a text is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Markdown, to be rendered to the platform's own form.
    #[default]
    Markdown,
    /// Just text.
    Plain,
}

/// A file to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundFile {
    /// What is in it.
    pub data: Bytes,
    /// Its name.
    pub name: String,
    /// Its type; by default that of its first bytes.
    pub mime_type: Option<String>,
}

/// A message to send.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboundMessage {
    /// The chat: [`Chat::id`], or what else the adapter's documentation names.
    pub to: String,
    /// The text, of any length.
    #[serde(default)]
    pub text: String,
    /// How it is written.
    #[serde(default)]
    pub format: Format,
    /// Files to send with it.
    #[serde(skip)]
    pub files: Vec<OutboundFile>,
    /// The message that it answers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reply_to_id: Option<String>,
    /// The thread or topic.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub thread_id: Option<String>,
    /// Without a sound.
    #[serde(default)]
    pub silent: bool,
    /// What only this platform knows, as its adapter documents: a template, buttons, blocks.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub extra: Option<Box<serde_json::Map<String, serde_json::Value>>>,
}

/// One call's share of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// As the platform takes it.
    pub text: String,
    /// What of the message's text it renders, to fall back on where the platform cannot read `text`.
    pub source: String,
    /// Which of the message's files go with it.
    pub files: Range<usize>,
}

/// What became of a message that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SendReceipt {
    /// The platform's ids of what it became: one or more for each part.
    pub message_ids: Vec<String>,
    /// What is known.
    pub state: SendState,
    /// How often the platform was called for it.
    pub attempts: u32,
}

/// What is known of a message that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SendState {
    /// The platform has it.
    Accepted,
    /// The platform may have all of it or some: the answer never came. It is not sent again.
    Unknown,
}
