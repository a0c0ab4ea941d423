//! What `/sync` gives, and its events as messages. <https://spec.matrix.org/latest/client-server-api/#syncing>

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::channels::message::{Attachment, AttachmentKind, Chat, InboundKind, InboundMessage, Sender};

/// A part that is not of its form is empty: one room's may not keep everything else from coming.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(reader: D) -> Result<T, D::Error> {
    let raw = Box::<RawValue>::deserialize(reader)?;
    Ok(serde_json::from_str(raw.get()).unwrap_or_default())
}

/// As [`lenient`], for each value of a map.
fn lenient_values<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(
    reader: D,
) -> Result<BTreeMap<String, T>, D::Error> {
    let rooms: BTreeMap<String, Box<RawValue>> = lenient(reader)?;
    Ok(rooms.into_iter().map(|(id, raw)| (id, serde_json::from_str(raw.get()).unwrap_or_default())).collect())
}

/// An answer of `/sync`.
#[derive(Deserialize)]
pub(super) struct Sync {
    pub(super) next_batch: String,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) rooms: Rooms,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) account_data: Events,
}

#[derive(Default, Deserialize)]
pub(super) struct Rooms {
    #[serde(default, deserialize_with = "lenient_values")]
    pub(super) join: BTreeMap<String, Joined>,
    #[serde(default, deserialize_with = "lenient_values")]
    pub(super) invite: BTreeMap<String, Invited>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) leave: BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
pub(super) struct Events {
    #[serde(default, deserialize_with = "lenient")]
    pub(super) events: Vec<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
pub(super) struct Timeline {
    #[serde(default, deserialize_with = "lenient")]
    pub(super) events: Vec<Box<RawValue>>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) limited: bool,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) prev_batch: Option<String>,
}

#[derive(Default, Deserialize)]
pub(super) struct Joined {
    #[serde(default, deserialize_with = "lenient")]
    pub(super) timeline: Timeline,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) state: Events,
}

#[derive(Default, Deserialize)]
pub(super) struct Invited {
    #[serde(default, deserialize_with = "lenient")]
    pub(super) invite_state: Events,
}

/// A page of `/messages`.
#[derive(Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    pub(super) chunk: Vec<Box<RawValue>>,
    pub(super) end: Option<String>,
}

/// What an event says in a room that is not encrypted. None if it is nothing that somebody wrote to be read.
pub(super) fn read(
    event: &Value,
    raw: &RawValue,
    me: &str,
    chat: &Chat,
    name: Option<&str>,
    is_mine: impl Fn(&str) -> bool,
) -> Option<InboundMessage> {
    let id = text(event, "event_id")?;
    let sender = text(event, "sender")?;
    let content = event.get("content")?;
    let direct = chat.kind == crate::channels::message::ChatKind::Direct;
    let mut message = InboundMessage {
        id: id.to_owned(),
        kind: InboundKind::Message,
        message_id: id.to_owned(),
        chat: chat.clone(),
        sender: Sender {
            id: sender.to_owned(),
            name: name.map(str::to_owned),
            username: None,
            is_bot: false,
        },
        text: String::new(),
        mentions_me: direct,
        attachments: Vec::new(),
        reply_to_id: None,
        thread_id: None,
        timestamp_ms: event.get("origin_server_ts").and_then(Value::as_i64).unwrap_or(0),
        raw: raw.to_owned(),
    };
    let relation = content.get("m.relates_to");
    let related = |field: &str| relation.and_then(|relation| text(relation, field));
    match text(event, "type")? {
        "m.reaction" if related("rel_type") == Some("m.annotation") => {
            message.kind = InboundKind::Reaction;
            message.message_id = related("event_id")?.into();
            message.text = related("key")?.into();
            message.mentions_me |= is_mine(&message.message_id);
            return Some(message);
        }
        // Nothing is left of what was written.
        "m.room.redaction" => {
            let target = text(event, "redacts").or_else(|| text(content, "redacts"))?;
            message.kind = InboundKind::Edit;
            message.message_id = target.into();
            return Some(message);
        }
        "m.sticker" => {
            message.attachments.extend(attachment(content, AttachmentKind::Sticker));
            message.text = text(content, "body").unwrap_or_default().into();
        }
        "m.room.message" => {
            let content = if related("rel_type") == Some("m.replace") {
                message.kind = InboundKind::Edit;
                message.message_id = related("event_id")?.into();
                content.get("m.new_content")?
            } else {
                content
            };
            let kind = match text(content, "msgtype")? {
                // What a program says to nobody: "must never be automatically responded to".
                "m.notice" => return None,
                "m.image" => Some(AttachmentKind::Image),
                "m.audio" => Some(AttachmentKind::Audio),
                "m.video" => Some(AttachmentKind::Video),
                "m.file" => Some(AttachmentKind::File),
                _ => None,
            };
            let body = text(content, "body").unwrap_or_default();
            if let Some(kind) = kind {
                message.attachments.extend(attachment(content, kind));
                // Beside a file's name, the body is what is said about it.
                let named = text(content, "filename").is_some_and(|name| name != body);
                message.text = if named { body.to_owned() } else { String::new() };
            } else {
                message.text = body.into();
            }
            message.mentions_me |= mentions(content, me);
        }
        _ => return None,
    }
    let falls_back =
        relation.and_then(|relation| relation.get("is_falling_back")) == Some(&Value::Bool(true));
    let reply = relation.and_then(|relation| relation.pointer("/m.in_reply_to/event_id")?.as_str());
    if let Some(reply) = reply.filter(|_| !falls_back) {
        message.reply_to_id = Some(reply.to_owned());
        message.mentions_me |= is_mine(reply);
        message.text = without_fallback(&message.text);
    }
    if related("rel_type") == Some("m.thread") {
        message.thread_id = related("event_id").map(str::to_owned);
    }
    Some(message).filter(|message| {
        message.kind == InboundKind::Edit || !message.text.is_empty() || !message.attachments.is_empty()
    })
}

fn text<'v>(value: &'v Value, field: &str) -> Option<&'v str> {
    value.get(field).and_then(Value::as_str)
}

/// <https://spec.matrix.org/latest/client-server-api/#user-and-room-mentions>; without the field, which older clients do
/// not send, what is written counts.
fn mentions(content: &Value, me: &str) -> bool {
    match content.get("m.mentions") {
        Some(mentions) => {
            let users = mentions.get("user_ids").and_then(Value::as_array);
            users.into_iter().flatten().any(|user| user == me)
        }
        None => {
            text(content, "body").is_some_and(|body| body.contains(me))
                || text(content, "formatted_body")
                    .is_some_and(|html| html.contains(&format!("https://matrix.to/#/{me}\"")))
        }
    }
}

/// Older clients repeat what they answer in lines that begin with `> `, and a blank line after them.
fn without_fallback(body: &str) -> String {
    if !body.starts_with("> <") {
        return body.to_owned();
    }
    let mut rest = body;
    while rest.starts_with("> ") {
        rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
    }
    rest.strip_prefix('\n').unwrap_or(rest).to_owned()
}

/// A file that is not encrypted.
fn attachment(content: &Value, kind: AttachmentKind) -> Option<Attachment> {
    let url = text(content, "url").filter(|url| url.starts_with("mxc://"))?;
    let info = content.get("info");
    Some(Attachment {
        kind,
        name: text(content, "filename").or_else(|| text(content, "body")).map(str::to_owned),
        mime_type: info.and_then(|info| text(info, "mimetype")).map(str::to_owned),
        size: info.and_then(|info| info.get("size")?.as_u64()),
        handle: url.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_older_clients_repeat_is_left_out() {
        for (body, rest) in [
            ("> <@a:b> one\n> two\n\nanswer", "answer"),
            ("> quoted by hand\n\ntext", "> quoted by hand\n\ntext"),
            ("> <@a:b> only", ""),
            ("plain", "plain"),
        ] {
            assert_eq!(without_fallback(body), rest);
        }
    }
}
