//! Updates as messages.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::channels::message::{
    Attachment, AttachmentKind, Chat, ChatKind, InboundKind, InboundMessage, Sender,
};
use crate::{Code, CoreError, Result};

/// The bot itself.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Me {
    id: i64,
    #[serde(default)]
    username: String,
}

impl Me {
    pub(super) fn read(json: &str) -> Result<Self> {
        serde_json::from_str(json)
            .map_err(|_| CoreError::new(Code::Network, "getMe: Telegram did not say who the bot is"))
    }
}

/// What a poll, or calls of the webhook, gave.
#[derive(Default)]
pub(super) struct Updates {
    /// Nothing came.
    pub(super) empty: bool,
    /// The id of the last update, of any kind.
    pub(super) last: Option<i64>,
    pub(super) messages: Vec<InboundMessage>,
    /// Buttons that were pressed.
    pub(super) callbacks: Vec<String>,
}

#[derive(Deserialize)]
struct UpdateId {
    update_id: i64,
}

/// Reads the result of `getUpdates`. An update that makes no sense is passed over: it would come for ever.
pub(super) fn read(json: &str, me: &Me) -> Result<Updates> {
    let each: Vec<&RawValue> = serde_json::from_str(json)
        .map_err(|_| CoreError::new(Code::Network, "getUpdates: Telegram gave no list of updates"))?;
    let mut out = Updates { empty: each.is_empty(), ..Updates::default() };
    for raw in each {
        read_one(raw, me, &mut out);
    }
    Ok(out)
}

/// Reads an update.
pub(super) fn read_one(raw: &RawValue, me: &Me, out: &mut Updates) {
    let Ok(UpdateId { update_id }) = serde_json::from_str(raw.get()) else { return };
    out.last = out.last.max(Some(update_id));
    let Ok(update) = serde_json::from_str::<Value>(raw.get()) else { return };
    out.messages.extend(read_update(&update, update_id, raw, me, &mut out.callbacks));
}

/// The album of a message that was read.
pub(super) fn album(message: &InboundMessage) -> Option<String> {
    let raw = message.raw.get();
    if message.attachments.is_empty() || !raw.contains("media_group_id") {
        return None;
    }
    let update: Value = serde_json::from_str(raw).ok()?;
    let id = ["/message/media_group_id", "/channel_post/media_group_id"]
        .iter()
        .find_map(|path| update.pointer(path));
    Some(id?.as_str()?.to_owned())
}

fn read_update(
    update: &Value,
    update_id: i64,
    raw: &RawValue,
    me: &Me,
    callbacks: &mut Vec<String>,
) -> Option<InboundMessage> {
    let edited = ["edited_message", "edited_channel_post"].iter().find_map(|kind| update.get(kind));
    let written = ["message", "channel_post"].iter().find_map(|kind| update.get(kind));
    if let Some(message) = written.or(edited) {
        let mut read = read_message(message, raw, me)?;
        if edited.is_some() && written.is_none() {
            read.kind = InboundKind::Edit;
            read.id = format!("e:{}:{}:{update_id}", read.chat.id, read.message_id);
        }
        return Some(read);
    }
    if let Some(query) = update.get("callback_query") {
        let id = query.get("id")?.as_str()?.to_owned();
        callbacks.push(id.clone());
        let message = query.get("message")?;
        let chat = read_chat(message.get("chat")?)?;
        return Some(InboundMessage {
            id: format!("c:{id}"),
            kind: InboundKind::Callback,
            message_id: number(message, "message_id")?,
            chat,
            sender: read_user(query.get("from")?)?,
            text: string(query, "data"),
            mentions_me: true,
            attachments: Vec::new(),
            reply_to_id: None,
            thread_id: thread(message),
            timestamp_ms: message.get("date").and_then(Value::as_i64).unwrap_or(0).saturating_mul(1000),
            raw: raw.to_owned(),
        });
    }
    let reaction = update.get("message_reaction")?;
    let chat = read_chat(reaction.get("chat")?)?;
    let emoji = |field: &str| {
        let list = reaction.get(field).and_then(Value::as_array);
        list.and_then(|list| list.last()).map(|one| string(one, "emoji")).unwrap_or_default()
    };
    Some(InboundMessage {
        id: format!("r:{update_id}"),
        kind: InboundKind::Reaction,
        message_id: number(reaction, "message_id")?,
        sender: read_user(reaction.get("user").or_else(|| reaction.get("actor_chat"))?)?,
        text: emoji("new_reaction"),
        mentions_me: chat.kind == ChatKind::Direct,
        chat,
        attachments: Vec::new(),
        reply_to_id: None,
        thread_id: None,
        timestamp_ms: reaction.get("date").and_then(Value::as_i64).unwrap_or(0).saturating_mul(1000),
        raw: raw.to_owned(),
    })
}

fn read_message(message: &Value, raw: &RawValue, me: &Me) -> Option<InboundMessage> {
    let chat = read_chat(message.get("chat")?)?;
    let message_id = number(message, "message_id")?;
    let caption = message.get("text").is_none();
    let (text, entities) = if caption { ("caption", "caption_entities") } else { ("text", "entities") };
    let (mut text, entities) = (string(message, text), message.get(entities).and_then(Value::as_array));
    let reply = message.get("reply_to_message");
    let mut mentions_me = chat.kind == ChatKind::Direct
        || reply.and_then(|reply| reply.pointer("/from/id")).and_then(Value::as_i64) == Some(me.id);
    let mut kind = InboundKind::Message;
    let mut command = None;
    for entity in entities.into_iter().flatten() {
        let (from, length) = (at(entity, "offset"), at(entity, "length"));
        let named = || slice(&text, from, length);
        match entity.get("type").and_then(Value::as_str) {
            Some("mention") => {
                mentions_me |= named().strip_prefix('@').is_some_and(|name| is_me(name, me));
            }
            Some("text_mention") => {
                mentions_me |= entity.pointer("/user/id").and_then(Value::as_i64) == Some(me.id);
            }
            Some("bot_command") => {
                let word = named();
                let for_me = word.split_once('@').is_none_or(|(_, name)| is_me(name, me));
                mentions_me |= for_me;
                if from == 0 && for_me {
                    kind = InboundKind::Command;
                    command = Some(word.to_owned());
                }
            }
            _ => {}
        }
    }
    // A command is the same whether it is addressed or not.
    if let Some((name, _)) = command.as_deref().and_then(|word| word.split_once('@')) {
        let rest = command.as_ref().and_then(|word| text.strip_prefix(word.as_str())).unwrap_or_default();
        text = format!("{name}{rest}");
    }
    let attachments = attachments(message);
    if text.is_empty() && attachments.is_empty() {
        // Neither said nor sent anything: somebody joined, a title was changed.
        text = described(message)?;
    }
    let sender = message.get("from").or_else(|| message.get("sender_chat")).or_else(|| message.get("chat"));
    Some(InboundMessage {
        // In a private chat, which has the person's id for every bot, each bot counts from 1.
        id: format!("m:{}:{}:{message_id}", me.id, chat.id),
        kind,
        message_id,
        sender: read_user(sender?)?,
        text,
        mentions_me,
        attachments,
        reply_to_id: reply.and_then(|reply| number(reply, "message_id")),
        thread_id: thread(message),
        timestamp_ms: message.get("date").and_then(Value::as_i64).unwrap_or(0).saturating_mul(1000),
        raw: raw.to_owned(),
        chat,
    })
}

fn is_me(name: &str, me: &Me) -> bool {
    !me.username.is_empty() && name.eq_ignore_ascii_case(&me.username)
}

/// Topics of a forum alone are threads: in other groups, `message_thread_id` is a chain of answers.
fn thread(message: &Value) -> Option<String> {
    let topic = message.get("is_topic_message").and_then(Value::as_bool) == Some(true);
    number(message, "message_thread_id").filter(|_| topic)
}

fn read_chat(chat: &Value) -> Option<Chat> {
    let kind = match chat.get("type").and_then(Value::as_str)? {
        "private" => ChatKind::Direct,
        "channel" => ChatKind::Channel,
        _ => ChatKind::Group,
    };
    let title = chat.get("title").and_then(Value::as_str).map(str::to_owned);
    Some(Chat { kind, id: number(chat, "id")?, title })
}

/// A user, or a chat that writes in its own name.
fn read_user(user: &Value) -> Option<Sender> {
    let names = ["first_name", "last_name", "title"].map(|field| string(user, field));
    let name = names.into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>().join(" ");
    Some(Sender {
        id: number(user, "id")?,
        name: Some(name).filter(|name| !name.is_empty()),
        username: user.get("username").and_then(Value::as_str).map(str::to_owned),
        is_bot: user.get("is_bot").and_then(Value::as_bool).unwrap_or(false),
    })
}

fn attachments(message: &Value) -> Vec<Attachment> {
    let one = |kind, file: &Value| {
        Some(Attachment {
            kind,
            name: file.get("file_name").and_then(Value::as_str).map(str::to_owned),
            mime_type: file.get("mime_type").and_then(Value::as_str).map(str::to_owned),
            size: file.get("file_size").and_then(Value::as_u64),
            handle: file.get("file_id")?.as_str()?.to_owned(),
        })
    };
    // Sizes of one photo; the last is the largest.
    if let Some(photo) = message.get("photo").and_then(Value::as_array).and_then(|sizes| sizes.last()) {
        let found = one(AttachmentKind::Image, photo);
        return found
            .map(|photo| Attachment { mime_type: Some("image/jpeg".into()), ..photo })
            .into_iter()
            .collect();
    }
    // An animation is a document, too.
    let kinds = [
        ("voice", AttachmentKind::Audio),
        ("audio", AttachmentKind::Audio),
        ("video", AttachmentKind::Video),
        ("video_note", AttachmentKind::Video),
        ("animation", AttachmentKind::Video),
        ("sticker", AttachmentKind::Sticker),
        ("document", AttachmentKind::File),
    ];
    let found = kinds.into_iter().find_map(|(field, kind)| one(kind, message.get(field)?));
    found.into_iter().collect()
}

/// What has no text of its own, in words.
fn described(message: &Value) -> Option<String> {
    let get = |path: &str| message.pointer(path);
    let text = |path: &str| get(path).and_then(Value::as_str).unwrap_or_default();
    if let (Some(latitude), Some(longitude)) = (get("/location/latitude"), get("/location/longitude")) {
        let title = text("/venue/title");
        let venue =
            if title.is_empty() { String::new() } else { format!(" ({title}, {})", text("/venue/address")) };
        return Some(format!("Location: {latitude}, {longitude}{venue}"));
    }
    if get("/contact").is_some() {
        let name = format!("{} {}", text("/contact/first_name"), text("/contact/last_name"));
        return Some(format!("Contact: {}, {}", name.trim(), text("/contact/phone_number")));
    }
    if get("/poll").is_some() {
        let options = get("/poll/options").and_then(Value::as_array).into_iter().flatten();
        let options: Vec<String> = options.map(|option| string(option, "text")).collect();
        return Some(format!("Poll: {} ({})", text("/poll/question"), options.join(" / ")));
    }
    let value = get("/dice/value")?;
    Some(format!("{} {value}", text("/dice/emoji")))
}

fn string(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn number(value: &Value, field: &str) -> Option<String> {
    value.get(field).and_then(Value::as_i64).map(|number| number.to_string())
}

fn at(entity: &Value, field: &str) -> usize {
    entity.get(field).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok()).unwrap_or(0)
}

/// A range of UTF-16 code units.
fn slice(text: &str, from: usize, length: usize) -> &str {
    let mut units = 0;
    let (mut start, mut end) = (text.len(), text.len());
    for (byte, c) in text.char_indices() {
        if units <= from {
            start = byte;
        }
        if units >= from.saturating_add(length) {
            end = byte;
            break;
        }
        units += c.len_utf16();
    }
    text.get(start..end).unwrap_or_default()
}
