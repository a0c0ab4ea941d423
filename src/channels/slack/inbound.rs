//! Envelopes as messages.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::emoji;
use crate::channels::marks;
use crate::channels::message::{
    Attachment, AttachmentKind, Chat, ChatKind, InboundKind, InboundMessage, Sender,
};

/// The bot itself, as `auth.test` has it.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Me {
    pub(super) user_id: String,
    #[serde(default)]
    pub(super) user: String,
    #[serde(default)]
    bot_id: String,
}

/// Reads what an envelope of this kind carries. What makes no sense is none: it is acknowledged, or it would come again.
/// `now_ms` is for what bears no time.
pub(super) fn read(kind: &str, payload: Option<&RawValue>, me: &Me, now_ms: i64) -> Option<InboundMessage> {
    let raw = payload?;
    let value: Value = serde_json::from_str(raw.get()).ok()?;
    match kind {
        "events_api" => {
            let event = value.get("event")?;
            match text(event, "type") {
                "message" | "app_mention" => read_message(event, raw, me),
                "reaction_added" => read_reaction(event, raw, me, true),
                "reaction_removed" => read_reaction(event, raw, me, false),
                _ => None,
            }
        }
        "slash_commands" => read_command(&value, raw, now_ms),
        "interactive" => read_action(&value, raw, now_ms),
        _ => None,
    }
}

fn read_message(event: &Value, raw: &RawValue, me: &Me) -> Option<InboundMessage> {
    let channel = text(event, "channel");
    let subtype = text(event, "subtype");
    let edited = subtype == "message_changed";
    let message = if edited { event.get("message")? } else { event };
    // Somebody joined, a topic was set, a link unfolded: nobody said anything.
    let said = ["", "file_share", "bot_message", "thread_broadcast", "me_message", "message_changed"];
    if !said.contains(&subtype) || (edited && message.get("edited").is_none()) {
        return None;
    }
    let own = (text(message, "user") == me.user_id && !me.user_id.is_empty())
        || (text(message, "bot_id") == me.bot_id && !me.bot_id.is_empty());
    if own || channel.is_empty() {
        return None;
    }
    let ts = some(message, "ts")?;
    let chat = Chat { kind: kind_of(text(event, "channel_type"), channel), id: channel.into(), title: None };
    let source = text(message, "text");
    let thread_id = some(message, "thread_ts").filter(|thread| *thread != ts);
    let mention = format!("<@{}", me.user_id);
    let mentions = |rest: &str| rest.starts_with(['>', '|']);
    let mentions_me = chat.kind == ChatKind::Direct
        || text(event, "type") == "app_mention"
        || source
            .match_indices(&mention)
            .any(|(at, found)| source.get(at + found.len()..).is_some_and(mentions))
        || text(message, "parent_user_id") == me.user_id;
    let attachments: Vec<_> =
        message.get("files").and_then(Value::as_array).into_iter().flatten().filter_map(attachment).collect();
    let content = marks::plain(source, &|user| (user == me.user_id).then(|| me.user.clone()));
    if content.is_empty() && attachments.is_empty() {
        return None;
    }
    let id = if edited {
        let at = message.pointer("/edited/ts").and_then(Value::as_str).unwrap_or_default();
        format!("e:{channel}:{ts}:{at}")
    } else {
        // A mention comes as a message and as a mention.
        format!("m:{channel}:{ts}")
    };
    Some(InboundMessage {
        id,
        kind: if edited { InboundKind::Edit } else { InboundKind::Message },
        sender: sender(message)?,
        text: content,
        mentions_me,
        attachments,
        reply_to_id: thread_id.clone(),
        thread_id,
        timestamp_ms: millis(&ts),
        message_id: ts,
        chat,
        raw: raw.to_owned(),
    })
}

fn read_reaction(event: &Value, raw: &RawValue, me: &Me, added: bool) -> Option<InboundMessage> {
    let user = some(event, "user")?;
    let (channel, ts) = (event.pointer("/item/channel")?.as_str()?, event.pointer("/item/ts")?.as_str()?);
    if user == me.user_id || channel.is_empty() {
        return None;
    }
    let (name, at) = (text(event, "reaction"), text(event, "event_ts"));
    let chat = Chat { kind: kind_of("", channel), id: channel.into(), title: None };
    Some(InboundMessage {
        id: format!("r:{channel}:{ts}:{user}:{name}:{}:{at}", u8::from(added)),
        kind: InboundKind::Reaction,
        message_id: ts.into(),
        mentions_me: chat.kind == ChatKind::Direct || text(event, "item_user") == me.user_id,
        chat,
        sender: Sender { id: user, ..Sender::default() },
        text: if added { emoji::emoji(name) } else { String::new() },
        attachments: Vec::new(),
        reply_to_id: None,
        thread_id: None,
        timestamp_ms: millis(at),
        raw: raw.to_owned(),
    })
}

fn read_command(payload: &Value, raw: &RawValue, now_ms: i64) -> Option<InboundMessage> {
    let channel = some(payload, "channel_id")?;
    let trigger = some(payload, "trigger_id")?;
    let words = format!("{} {}", text(payload, "command"), marks::plain(text(payload, "text"), &|_| None));
    Some(InboundMessage {
        id: format!("s:{trigger}"),
        kind: InboundKind::Command,
        message_id: String::new(),
        chat: Chat { kind: kind_of("", &channel), id: channel, title: some(payload, "channel_name") },
        sender: Sender {
            id: some(payload, "user_id")?,
            username: some(payload, "user_name"),
            ..Sender::default()
        },
        text: words.trim().to_owned(),
        mentions_me: true,
        attachments: Vec::new(),
        reply_to_id: None,
        thread_id: None,
        timestamp_ms: now_ms,
        raw: raw.to_owned(),
    })
}

/// A button, or a choice out of a list.
fn read_action(payload: &Value, raw: &RawValue, now_ms: i64) -> Option<InboundMessage> {
    let action = payload.get("actions")?.as_array()?.first()?;
    let at = |path: &str| payload.pointer(path).and_then(Value::as_str).filter(|text| !text.is_empty());
    let channel = at("/channel/id").or_else(|| at("/container/channel_id"))?;
    let chosen =
        ["/value", "/selected_option/value", "/selected_user", "/selected_channel", "/selected_date"];
    let data = chosen.iter().find_map(|path| action.pointer(path).and_then(Value::as_str));
    let thread = at("/message/thread_ts").or_else(|| at("/container/thread_ts"));
    let message = at("/container/message_ts").or_else(|| at("/message/ts")).unwrap_or_default();
    Some(InboundMessage {
        id: format!("c:{}", some(payload, "trigger_id")?),
        kind: InboundKind::Callback,
        message_id: message.into(),
        chat: Chat {
            kind: kind_of("", channel),
            id: channel.into(),
            title: at("/channel/name").map(str::to_owned),
        },
        sender: Sender {
            id: at("/user/id")?.into(),
            username: at("/user/username").or_else(|| at("/user/name")).map(str::to_owned),
            ..Sender::default()
        },
        text: data.unwrap_or_else(|| text(action, "action_id")).to_owned(),
        mentions_me: true,
        attachments: Vec::new(),
        reply_to_id: None,
        thread_id: thread.filter(|thread| *thread != message).map(str::to_owned),
        timestamp_ms: now_ms,
        raw: raw.to_owned(),
    })
}

fn sender(message: &Value) -> Option<Sender> {
    let bot = some(message, "bot_id");
    let profile = |field: &str| {
        let path = format!("/user_profile/{field}");
        message.pointer(&path).and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned)
    };
    Some(Sender {
        is_bot: bot.is_some() || text(message, "subtype") == "bot_message",
        id: some(message, "user").or(bot)?,
        name: profile("real_name").or_else(|| profile("display_name")),
        username: some(message, "username").or_else(|| profile("name")),
    })
}

fn attachment(file: &Value) -> Option<Attachment> {
    // What was deleted, or is hidden by the plan, has nothing to fetch.
    if matches!(text(file, "mode"), "tombstone" | "hidden_by_limit") {
        return None;
    }
    let mime = some(file, "mimetype");
    let kind = match mime.as_deref().and_then(|mime| mime.split('/').next()) {
        Some("image") => AttachmentKind::Image,
        Some("audio") => AttachmentKind::Audio,
        // A voice message has the container of a film.
        Some("video") if text(file, "subtype") == "slack_audio" => AttachmentKind::Audio,
        Some("video") => AttachmentKind::Video,
        _ => AttachmentKind::File,
    };
    Some(Attachment {
        kind,
        name: some(file, "name"),
        mime_type: mime,
        size: file.get("size").and_then(Value::as_u64),
        handle: some(file, "id")?,
    })
}

/// As Slack says, else by the first letter of the id.
fn kind_of(channel_type: &str, channel: &str) -> ChatKind {
    match (channel_type, channel.chars().next()) {
        ("im", _) | ("", Some('D')) => ChatKind::Direct,
        ("mpim", _) => ChatKind::Group,
        _ => ChatKind::Channel,
    }
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn some(value: &Value, field: &str) -> Option<String> {
    Some(text(value, field)).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// `seconds.microseconds`, as milliseconds.
fn millis(ts: &str) -> i64 {
    let (seconds, rest) = ts.split_once('.').unwrap_or((ts, ""));
    let rest: String = rest.chars().chain("000".chars()).take(3).collect();
    let number = |text: &str| text.parse::<i64>().unwrap_or(0);
    number(seconds).saturating_mul(1000).saturating_add(number(&rest))
}
