//! Events as messages.

use serde_json::Value;
use serde_json::value::RawValue;

use super::at;
use crate::channels::message::{
    Attachment, AttachmentKind, Chat, ChatKind, InboundKind, InboundMessage, Sender,
};

/// Discord's ids hold the time since this.
const EPOCH_MS: u64 = 1_420_070_400_000;

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Of the types of messages, those that somebody wrote; the others are Discord's own notes.
/// <https://docs.discord.com/developers/resources/message#message-object-message-types>: DEFAULT, REPLY,
/// `CHAT_INPUT_COMMAND`, `CONTEXT_MENU_COMMAND`.
const WRITTEN: [u64; 4] = [0, 19, 20, 23];

/// The message in an event, if it is one for us, and the type of its channel, if the event says it. `session` and `seq`
/// name the event where nothing in it does.
pub(super) fn read(
    kind: &str,
    data: &RawValue,
    me: &str,
    session: &str,
    seq: u64,
) -> Option<(InboundMessage, Option<u64>)> {
    if !matches!(
        kind,
        "MESSAGE_CREATE"
            | "MESSAGE_UPDATE"
            | "MESSAGE_REACTION_ADD"
            | "MESSAGE_REACTION_REMOVE"
            | "INTERACTION_CREATE"
    ) {
        return None;
    }
    let event: Value = serde_json::from_str(data.get()).ok()?;
    let author = match kind {
        "MESSAGE_CREATE" | "MESSAGE_UPDATE" => event.get("author")?.clone(),
        "INTERACTION_CREATE" => event.pointer("/member/user").or(event.get("user"))?.clone(),
        _ => event
            .pointer("/member/user")
            .cloned()
            .unwrap_or_else(|| serde_json::json!({ "id": at(&event, "user_id") })),
    };
    let sender = Sender {
        id: text(&author, "id").to_owned(),
        name: ["global_name", "username"]
            .iter()
            .find_map(|name| Some(author.get(name)?.as_str()?.to_owned())),
        username: author.get("username").and_then(Value::as_str).map(str::to_owned),
        is_bot: author.get("bot").and_then(Value::as_bool).unwrap_or(false)
            || at(&event, "webhook_id").is_string(),
    };
    if sender.id.is_empty() || sender.id == me {
        return None;
    }
    let channel = text(&event, "channel_id").to_owned();
    let direct = event.get("guild_id").and_then(Value::as_str).is_none();
    let channel_type =
        event.get("channel_type").or_else(|| event.pointer("/channel/type")).and_then(Value::as_u64);
    let chat_kind = match (direct, channel_type) {
        (_, Some(3)) => ChatKind::Group,
        (true, _) => ChatKind::Direct,
        _ => ChatKind::Channel,
    };
    let direct = chat_kind == ChatKind::Direct;
    let mut message = InboundMessage {
        id: text(&event, "id").to_owned(),
        kind: InboundKind::Message,
        message_id: text(&event, "id").to_owned(),
        chat: Chat { kind: chat_kind, id: channel, title: None },
        sender,
        text: text(&event, "content").to_owned(),
        mentions_me: direct,
        attachments: Vec::new(),
        reply_to_id: None,
        thread_id: None,
        timestamp_ms: 0,
        raw: data.to_owned(),
    };
    match kind {
        "MESSAGE_CREATE" | "MESSAGE_UPDATE" => {
            let written = event.get("type").and_then(Value::as_u64).unwrap_or(0);
            if !WRITTEN.contains(&written) {
                return None;
            }
            if kind == "MESSAGE_UPDATE" {
                // Without it, only what Discord itself added has changed: a preview of a link.
                let edited = event.get("edited_timestamp").and_then(Value::as_str)?;
                message.kind = InboundKind::Edit;
                message.id = format!("{}:edit:{edited}", message.id);
            }
            read_content(&event, me, &mut message);
        }
        "INTERACTION_CREATE" => {
            message.mentions_me = true;
            read_interaction(&event, &mut message)?;
        }
        _ => {
            message.kind = InboundKind::Reaction;
            text(&event, "message_id").clone_into(&mut message.message_id);
            message.id = format!("{session}:{seq}");
            if kind == "MESSAGE_REACTION_ADD" {
                pointed(&event, "/emoji/name").clone_into(&mut message.text);
                message.mentions_me |= text(&event, "message_author_id") == me;
            }
        }
    }
    let ms = message.message_id.parse::<u64>().map_or(0, |id| (id >> 22) + EPOCH_MS);
    message.timestamp_ms = i64::try_from(ms).unwrap_or(0);
    (!message.id.is_empty() && message.id.len() <= 400 && !message.chat.id.is_empty())
        .then_some((message, channel_type))
}

/// What somebody wrote, with names in place of ids, and what hangs on it.
fn read_content(event: &Value, me: &str, message: &mut InboundMessage) {
    let mentioned = event.get("mentions").and_then(Value::as_array);
    message.mentions_me |= mentioned.is_some_and(|list| list.iter().any(|user| text(user, "id") == me));
    message.mentions_me |= event.pointer("/referenced_message/author/id").and_then(Value::as_str) == Some(me);
    for user in mentioned.into_iter().flatten() {
        let name = ["global_name", "username"].iter().find_map(|name| user.get(name)?.as_str());
        for form in [format!("<@{}>", text(user, "id")), format!("<@!{}>", text(user, "id"))] {
            message.text = message.text.replace(&form, &format!("@{}", name.unwrap_or_default()));
        }
    }
    // What is forwarded has its content in a snapshot.
    let forwarded = event.pointer("/message_snapshots/0/message");
    if forwarded.is_none() {
        message.reply_to_id =
            event.pointer("/message_reference/message_id").and_then(Value::as_str).map(str::to_owned);
    }
    for event in std::iter::once(event).chain(forwarded) {
        if message.text.is_empty() {
            text(event, "content").clone_into(&mut message.text);
        }
        let list = |name: &str| event.get(name).and_then(Value::as_array).into_iter().flatten();
        message.attachments.extend(list("attachments").filter_map(attachment));
        message.attachments.extend(list("sticker_items").filter_map(sticker));
    }
}

/// A slash command, or a component that was used; none for what is neither.
fn read_interaction(event: &Value, message: &mut InboundMessage) -> Option<()> {
    let data = event.get("data")?;
    match event.get("type").and_then(Value::as_u64) {
        Some(2) => {
            message.kind = InboundKind::Command;
            message.text = format!("/{}", text(data, "name"));
            entered(data, &mut message.text);
        }
        Some(3) => {
            message.kind = InboundKind::Callback;
            let chosen = data.get("values").and_then(Value::as_array);
            let chosen: Vec<&str> = chosen.into_iter().flatten().filter_map(Value::as_str).collect();
            message.text =
                if chosen.is_empty() { text(data, "custom_id").to_owned() } else { chosen.join(",") };
            pointed(event, "/message/id").clone_into(&mut message.message_id);
        }
        _ => return None,
    }
    Some(())
}

fn pointed<'a>(event: &'a Value, pointer: &str) -> &'a str {
    event.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// What was entered after a command's name: of subcommands the names, of options the values.
fn entered(data: &Value, out: &mut String) {
    for option in data.get("options").and_then(Value::as_array).into_iter().flatten() {
        out.push(' ');
        match option.get("value") {
            None => out.push_str(text(option, "name")),
            Some(Value::String(value)) => out.push_str(value),
            Some(value) => out.push_str(&value.to_string()),
        }
        entered(option, out);
    }
}

/// <https://docs.discord.com/developers/reference#image-formatting>: of Lottie stickers there is no picture.
fn sticker(item: &Value) -> Option<Attachment> {
    let id = text(item, "id");
    let (host, ending) = match item.get("format_type").and_then(Value::as_u64)? {
        1 | 2 => ("cdn.discordapp.com", "png"),
        4 => ("media.discordapp.net", "gif"),
        _ => ("cdn.discordapp.com", "json"),
    };
    Some(Attachment {
        kind: AttachmentKind::Sticker,
        name: item.get("name").and_then(Value::as_str).map(str::to_owned),
        mime_type: None,
        size: None,
        handle: format!("https://{host}/stickers/{id}.{ending}"),
    })
}

fn attachment(file: &Value) -> Option<Attachment> {
    let mime_type = file.get("content_type").and_then(Value::as_str).map(str::to_owned);
    let kind = match mime_type.as_deref().and_then(|mime| mime.split('/').next()) {
        Some("image") => AttachmentKind::Image,
        Some("audio") => AttachmentKind::Audio,
        Some("video") => AttachmentKind::Video,
        _ => AttachmentKind::File,
    };
    Some(Attachment {
        kind,
        name: file.get("filename").and_then(Value::as_str).map(str::to_owned),
        mime_type,
        size: file.get("size").and_then(Value::as_u64),
        handle: file.get("url").and_then(Value::as_str)?.to_owned(),
    })
}
