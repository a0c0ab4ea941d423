//! Envelopes as messages. Their form: <https://github.com/AsamK/signal-cli/blob/master/src/main/java/org/asamk/signal/json>.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::channels::message::{
    Attachment, AttachmentKind, Chat, ChatKind, InboundKind, InboundMessage, Sender,
};

/// The bot itself.
pub(super) struct Me {
    /// Its number.
    pub(super) account: String,
    /// Its UUID, if the caller told.
    pub(super) uuid: Option<String>,
}

impl Me {
    fn is(&self, number: Option<&str>, uuid: Option<&str>) -> bool {
        number == Some(self.account.as_str()) || (uuid.is_some() && uuid == self.uuid.as_deref())
    }
}

/// What the daemon told; none if it is nothing that somebody wrote: receipts, signs of typing, what our own other devices
/// sent.
pub(super) fn read(json: &[u8], me: &Me) -> Option<InboundMessage> {
    let text = std::str::from_utf8(json).ok()?;
    let event: Value = serde_json::from_str(text).ok()?;
    let envelope = event.get("envelope")?;
    let number = string(envelope, "sourceNumber");
    let uuid = string(envelope, "sourceUuid");
    if me.is(number, uuid) {
        return None;
    }
    let author = number
        .map(str::to_owned)
        .or_else(|| uuid.map(|uuid| format!("uuid:{uuid}")))
        .or_else(|| string(envelope, "source").map(str::to_owned))?;
    let edit = envelope.get("editMessage");
    let data = edit.map_or_else(|| envelope.get("dataMessage"), |edit| edit.get("dataMessage"))?;
    let sent = data.get("timestamp").or_else(|| envelope.get("timestamp")).and_then(Value::as_u64)?;
    let group = data.get("groupInfo").filter(|group| !group.is_null());
    let chat = match group {
        None => Chat { kind: ChatKind::Direct, id: author.clone(), title: None },
        Some(group) => Chat {
            kind: ChatKind::Group,
            id: format!("group:{}", string(group, "groupId")?),
            title: string(group, "groupName").map(str::to_owned),
        },
    };
    let direct = chat.kind == ChatKind::Direct;
    let mut message = InboundMessage {
        id: format!("m:{author}:{sent}"),
        kind: InboundKind::Message,
        message_id: format!("{sent}:{author}"),
        sender: Sender {
            id: author.clone(),
            name: string(envelope, "sourceName").map(str::to_owned),
            username: None,
            is_bot: false,
        },
        chat,
        text: String::new(),
        mentions_me: direct,
        attachments: Vec::new(),
        reply_to_id: None,
        thread_id: None,
        timestamp_ms: i64::try_from(sent).unwrap_or(i64::MAX),
        raw: RawValue::from_string(text.to_owned()).ok()?,
    };
    let present = |field: &str| data.get(field).filter(|value| !value.is_null());
    if let Some(edit) = edit {
        let target = edit.get("targetSentTimestamp").and_then(Value::as_u64)?;
        message.kind = InboundKind::Edit;
        message.id = format!("e:{author}:{sent}");
        message.message_id = format!("{target}:{author}");
    } else if let Some(reaction) = present("reaction") {
        let target = reaction.get("targetSentTimestamp").and_then(Value::as_u64)?;
        let removed = reaction.get("isRemove").and_then(Value::as_bool) == Some(true);
        let (number, uuid) = (string(reaction, "targetAuthorNumber"), string(reaction, "targetAuthorUuid"));
        message.kind = InboundKind::Reaction;
        message.id = format!("r:{author}:{sent}");
        message.message_id = format!("{target}:{}", person(reaction, "targetAuthor")?);
        message.mentions_me |= me.is(number, uuid);
        message.text = string(reaction, "emoji").filter(|_| !removed).unwrap_or_default().into();
        return Some(message);
    } else if let Some(deleted) = present("remoteDelete") {
        message.kind = InboundKind::Edit;
        message.id = format!("d:{author}:{sent}");
        message.message_id = format!("{}:{author}", deleted.get("timestamp").and_then(Value::as_u64)?);
        return Some(message);
    }
    let mut text = string(data, "message").unwrap_or_default().to_owned();
    message.mentions_me |= mentions(&mut text, data, me);
    if let Some(quote) = present("quote") {
        let (number, uuid) = (string(quote, "authorNumber"), string(quote, "authorUuid"));
        message.mentions_me |= me.is(number.or_else(|| string(quote, "author")), uuid);
        let target = quote.get("id").and_then(Value::as_u64);
        message.reply_to_id = target.zip(person(quote, "author")).map(|(at, who)| format!("{at}:{who}"));
    }
    let files = data.get("attachments").and_then(Value::as_array).into_iter().flatten();
    message.attachments = files.filter_map(|file| attachment(file, &message.chat.id)).collect();
    if text.is_empty() && message.attachments.is_empty() {
        // A sticker lies on the daemon's disk, which no call of it reads.
        text = if present("sticker").is_some() {
            "(sticker)".into()
        } else if let Some(contact) = data.pointer("/contacts/0") {
            let name = contact.pointer("/name/display").and_then(Value::as_str).unwrap_or_default();
            let number = contact.pointer("/phone/0/value").and_then(Value::as_str).unwrap_or_default();
            format!("Contact: {name}, {number}")
        } else {
            // A timer was set, or a group changed.
            return None;
        };
    }
    message.text = text;
    Some(message)
}

fn string<'v>(value: &'v Value, field: &str) -> Option<&'v str> {
    value.get(field).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// Somebody whom `field`, `fieldNumber` and `fieldUuid` name, as a chat has it.
fn person(value: &Value, field: &str) -> Option<String> {
    let number = string(value, &format!("{field}Number")).map(str::to_owned);
    let uuid = || string(value, &format!("{field}Uuid")).map(|uuid| format!("uuid:{uuid}"));
    number.or_else(uuid).or_else(|| string(value, field).map(str::to_owned))
}

/// Writes names in the place of mentions, each of them one U+FFFC; true if one is ours.
fn mentions(text: &mut String, data: &Value, me: &Me) -> bool {
    let mut mine = false;
    let mut places: Vec<(usize, usize, String)> = Vec::new();
    for mention in data.get("mentions").and_then(Value::as_array).into_iter().flatten() {
        let (number, uuid) = (string(mention, "number"), string(mention, "uuid"));
        mine |= me.is(number, uuid);
        let name = string(mention, "name").or(number).or(uuid).unwrap_or_default();
        let at = |field: &str| {
            mention.get(field).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok()).unwrap_or(0)
        };
        places.push((at("start"), at("length"), format!("@{name}")));
    }
    // From the last on: what comes before stays where it was.
    places.sort_by_key(|place| std::cmp::Reverse(place.0));
    for (start, length, name) in places {
        let (from, to) = (byte_at(text, start), byte_at(text, start.saturating_add(length)));
        text.replace_range(from..to.max(from), &name);
    }
    mine
}

/// Where that UTF-16 code unit is; the end if it is not there.
fn byte_at(text: &str, unit: usize) -> usize {
    let mut units = 0;
    for (at, c) in text.char_indices() {
        if units >= unit {
            return at;
        }
        units += c.len_utf16();
    }
    text.len()
}

fn attachment(file: &Value, chat: &str) -> Option<Attachment> {
    let mime = string(file, "contentType").unwrap_or_default();
    Some(Attachment {
        kind: match mime.split('/').next() {
            Some("image") => AttachmentKind::Image,
            Some("audio") => AttachmentKind::Audio,
            Some("video") => AttachmentKind::Video,
            _ => AttachmentKind::File,
        },
        name: string(file, "filename").map(str::to_owned),
        mime_type: Some(mime.to_owned()).filter(|mime| !mime.is_empty()),
        size: file.get("size").and_then(Value::as_u64),
        handle: format!("{} {chat}", string(file, "id")?),
    })
}
