//! Notifications as messages: <https://developers.facebook.com/docs/whatsapp/cloud-api/webhooks/components>.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::GraphError;
use crate::channels::message::{
    Attachment, AttachmentKind, Chat, ChatKind, InboundKind, InboundMessage, Sender,
};

/// What a call of the webhook said.
#[derive(Default)]
pub(super) struct Notification {
    pub(super) messages: Vec<InboundMessage>,
    pub(super) statuses: Vec<Status>,
}

/// What became of a message.
pub(super) struct Status {
    pub(super) id: String,
    pub(super) failed: Option<GraphError>,
}

/// The parts of a list; none of what is no list.
fn each<'a>(raw: Option<&&'a RawValue>) -> Vec<&'a RawValue> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

/// The members of an object; none of what is none.
fn members(raw: &RawValue) -> HashMap<String, &RawValue> {
    serde_json::from_str(raw.get()).unwrap_or_default()
}

/// Reads a signed body. What makes no sense is passed over: it would come for a week. Other numbers of the same app have
/// channels of their own.
pub(super) fn read(body: &[u8], phone_id: &str) -> Notification {
    let mut out = Notification::default();
    let Ok(body) = serde_json::from_slice::<&RawValue>(body) else { return out };
    let changes =
        each(members(body).get("entry")).into_iter().flat_map(|one| each(members(one).get("changes")));
    for value in changes.filter_map(|change| members(change).remove("value")).map(members) {
        let values = |field: &str| -> Vec<Value> {
            let each = each(value.get(field)).into_iter();
            each.filter_map(|raw| serde_json::from_str(raw.get()).ok()).collect()
        };
        let metadata = value.get("metadata").and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok());
        if metadata.is_none_or(|metadata| text(&metadata, "/phone_number_id") != phone_id) {
            continue;
        }
        let contacts = values("contacts");
        out.messages
            .extend(each(value.get("messages")).into_iter().filter_map(|raw| read_message(raw, &contacts)));
        out.statuses.extend(values("statuses").iter().filter_map(|status| {
            let error = status.get("errors").and_then(|errors| GraphError::deserialize(errors.get(0)?).ok());
            let failed = (text(status, "/status") == "failed").then(|| error.unwrap_or_default());
            Some(Status { id: some(status, "/id")?, failed })
        }));
    }
    out
}

fn read_message(raw: &RawValue, contacts: &[Value]) -> Option<InboundMessage> {
    let message: Value = serde_json::from_str(raw.get()).ok()?;
    // Who has taken a username shows no number: an id takes its place, and is taken for an answer.
    let from = some(&message, "/from").or_else(|| some(&message, "/from_user_id"))?;
    let id = some(&message, "/id")?;
    let group = some(&message, "/group_id");
    let kind = text(&message, "/type");
    let mut attachments = Vec::new();
    let mut what = InboundKind::Message;
    let mut message_id = id.clone();
    let mut reply_to_id = some(&message, "/context/id");
    let content = match kind {
        "text" => text(&message, "/text/body").to_owned(),
        "image" | "video" | "audio" | "document" | "sticker" => {
            let file = message.get(kind)?;
            attachments.push(Attachment {
                kind: match kind {
                    "image" => AttachmentKind::Image,
                    "video" => AttachmentKind::Video,
                    "audio" => AttachmentKind::Audio,
                    "sticker" => AttachmentKind::Sticker,
                    _ => AttachmentKind::File,
                },
                name: some(file, "/filename"),
                mime_type: some(file, "/mime_type"),
                size: file.get("file_size").and_then(Value::as_u64),
                handle: some(file, "/id")?,
            });
            text(file, "/caption").to_owned()
        }
        "reaction" => {
            what = InboundKind::Reaction;
            message_id = some(&message, "/reaction/message_id")?;
            text(&message, "/reaction/emoji").to_owned()
        }
        // A button of a template, one of a message, a line of a list.
        "button" | "interactive" => {
            what = InboundKind::Callback;
            message_id = reply_to_id.take().unwrap_or(message_id);
            let paths = [
                "/button/payload",
                "/button/text",
                "/interactive/button_reply/id",
                "/interactive/list_reply/id",
                "/interactive/nfm_reply/response_json",
            ];
            paths.iter().find_map(|path| some(&message, path))?
        }
        "location" => {
            let number = |path: &str| message.pointer(path).map(Value::to_string);
            let (latitude, longitude) = (number("/location/latitude")?, number("/location/longitude")?);
            let place = [text(&message, "/location/name"), text(&message, "/location/address")];
            let place: Vec<_> = place.into_iter().filter(|part| !part.is_empty()).collect();
            let place = if place.is_empty() { String::new() } else { format!(" ({})", place.join(", ")) };
            format!("Location: {latitude}, {longitude}{place}")
        }
        "contacts" => {
            let each = message.get("contacts").and_then(Value::as_array).into_iter().flatten();
            let each = each.map(|contact| {
                let phone = text(contact, "/phones/0/phone");
                format!("Contact: {}, {phone}", text(contact, "/name/formatted_name"))
            });
            each.collect::<Vec<_>>().join("\n")
        }
        "order" => {
            let items = message.pointer("/order/product_items").and_then(Value::as_array).map_or(0, Vec::len);
            format!("Order: {items} items. {}", text(&message, "/order/text")).trim().to_owned()
        }
        // Somebody has a new number, or used what the API does not show.
        _ => return None,
    };
    if content.is_empty() && attachments.is_empty() && what != InboundKind::Reaction {
        return None;
    }
    let contact =
        contacts.iter().find(|contact| text(contact, "/wa_id") == from || text(contact, "/user_id") == from);
    let seconds = text(&message, "/timestamp").parse::<i64>().unwrap_or(0);
    Some(InboundMessage {
        kind: what,
        message_id,
        sender: Sender {
            name: contact.and_then(|contact| some(contact, "/profile/name")),
            id: from.clone(),
            username: contact.and_then(|contact| some(contact, "/profile/username")),
            is_bot: false,
        },
        text: content,
        mentions_me: group.is_none(),
        chat: match group {
            Some(id) => Chat { kind: ChatKind::Group, id, title: None },
            None => Chat { kind: ChatKind::Direct, id: from, title: None },
        },
        attachments,
        reply_to_id,
        thread_id: None,
        timestamp_ms: seconds.saturating_mul(1000),
        raw: raw.to_owned(),
        id,
    })
}

fn text<'v>(value: &'v Value, path: &str) -> &'v str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn some(value: &Value, path: &str) -> Option<String> {
    Some(text(value, path)).filter(|text| !text.is_empty()).map(str::to_owned)
}
