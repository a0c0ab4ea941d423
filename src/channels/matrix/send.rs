//! What goes to the homeserver: events, files, reactions, and never in clear to an encrypted room.

use std::time::Duration;

use data_encoding::HEXLOWER;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{ANSWER, CALL, Content, Matrix, REMEMBERED, UPLOAD, html, refused, text};
use crate::channels::message::{Format, OutboundFile, OutboundMessage, Part};
use crate::channels::platform::{Call, Done, Failed, Fate};
use crate::channels::sniff;
use crate::{Code, CoreError};

/// Bytes of an event's content.
const CONTENT: usize = 64_000;
/// So old may what `/sync` told of a room's encryption be; past that, it is asked for.
const FRESH: Duration = Duration::from_mins(1);

/// Nothing was sent yet, whatever became of the question before it.
fn unsent(failed: Failed) -> Failed {
    let fate = if failed.fate == Fate::Refused { Fate::Refused } else { Fate::Unsent };
    Failed { fate, ..failed }
}

fn encrypted(room: &str) -> CoreError {
    let message = format!(
        "the room {room} is encrypted, which this channel cannot read or write: nothing is sent there in clear; use a \
         room without encryption"
    );
    CoreError::new(Code::ChannelSend, message)
}

impl Matrix {
    /// The room that `to` names.
    async fn room(&self, to: &str) -> Result<String, Failed> {
        if to.starts_with('!') {
            return Ok(to.to_owned());
        }
        let me = self.me().await.map_err(unsent)?;
        if self.known().synced.is_none() {
            let path = ["client", "v3", "user", me, "account_data", "m.direct"];
            let direct = self.find(&path).await.map_err(unsent)?;
            self.set_direct(&direct.unwrap_or_default());
        }
        let last = |rooms: &Value| rooms.as_array()?.last()?.as_str().map(str::to_owned);
        let room = self.known().direct.get(to).and_then(last);
        room.ok_or_else(|| {
            let message =
                format!("there is no direct room with {to}; name a room (!…), or have them write first");
            refused(CoreError::new(Code::ChannelSend, message))
        })
    }

    /// Makes sure that a room is not encrypted.
    pub(super) async fn in_clear(&self, room: &str) -> Result<(), Failed> {
        let told = {
            let known = self.known();
            let fresh = known.synced.is_some_and(|synced| synced.elapsed() < FRESH);
            known.encrypted.get(room).copied().filter(|yes| *yes || fresh)
        };
        let yes = if let Some(yes) = told {
            yes
        } else {
            let path = ["client", "v3", "rooms", room, "state", "m.room.encryption", ""];
            let yes = match self.json(Method::GET, &path, Content::None).await {
                Ok(_) => true,
                // Only this says that there is none: another refusal, or a proxy's 404, says nothing of it.
                Err(failed) if failed.error.message().ends_with("(M_NOT_FOUND)") => false,
                Err(failed) => return Err(unsent(failed)),
            };
            // What came by `/sync` meanwhile counts.
            let mut known = self.known();
            let known = known.encrypted.entry(room.to_owned()).or_insert(yes);
            *known |= yes;
            *known
        };
        if yes { Err(refused(encrypted(room))) } else { Ok(()) }
    }

    async fn send_event(
        &self,
        room: &str,
        kind: &str,
        transaction: &str,
        content: &Value,
    ) -> Result<String, Failed> {
        if content.to_string().len() > CONTENT {
            let message = format!("an event of Matrix has at most {CONTENT} bytes: the text is too long");
            return Err(refused(CoreError::new(Code::ChannelSend, message)));
        }
        self.in_clear(room).await?;
        let path = ["client", "v3", "rooms", room, "send", kind, transaction];
        let sent = self.json(Method::PUT, &path, Content::Json(content)).await?;
        let id = text(&sent, "event_id").map(str::to_owned).ok_or_else(|| {
            let message = "send: the homeserver gave no event id";
            Failed::new(Fate::Unknown, CoreError::new(Code::Network, message))
        })?;
        self.known().remember(&id);
        Ok(id)
    }

    async fn upload(&self, key: &str, number: usize, file: &OutboundFile) -> Result<String, Failed> {
        let place = (key.to_owned(), number);
        if let Some(url) = self.known().uploaded.get(&place) {
            return Ok(url.clone());
        }
        let most = self.upload_limit.get_or_try_init(|| async {
            let config = self.find(&["client", "v1", "media", "config"]).await?;
            Ok(config.and_then(|config| config.get("m.upload.size")?.as_u64()))
        });
        if let Some(most) = most.await.map_err(unsent)?.filter(|most| file.data.len() as u64 > *most) {
            let message = format!("the homeserver takes files of at most {most} bytes");
            return Err(refused(CoreError::new(Code::ChannelSend, message)));
        }
        let mut url = self.url(&["media", "v3", "upload"]).map_err(refused)?;
        url.query_pairs_mut().append_pair("filename", &file.name);
        let content = Content::Bytes(&file.data, sniff::mime(file));
        let reply = self.ask(Method::POST, url, content, UPLOAD, ANSWER).await.map_err(unsent)?;
        let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let url = text(&answer, "content_uri").map(str::to_owned).ok_or_else(|| {
            let message = "upload: the homeserver gave no URI of the file";
            Failed::new(Fate::Unsent, CoreError::new(Code::Network, message))
        })?;
        let mut known = self.known();
        if known.uploaded.len() >= REMEMBERED {
            known.uploaded.clear();
        }
        known.uploaded.insert(place, url.clone());
        Ok(url)
    }

    async fn send(
        &self,
        room: &str,
        message: &OutboundMessage,
        part: &Part,
        index: usize,
        key: &str,
    ) -> Result<Vec<String>, Failed> {
        self.in_clear(room).await?;
        let mut content = match message.files.get(part.files.clone()).and_then(|files| files.first()) {
            None => written(&part.source, message.format),
            Some(file) => {
                let mime = sniff::mime(file);
                let kind = match mime.split('/').next() {
                    Some("image") => "m.image",
                    Some("audio") => "m.audio",
                    Some("video") => "m.video",
                    _ => "m.file",
                };
                let url = self.upload(key, part.files.start, file).await?;
                json!({ "msgtype": kind, "body": file.name, "filename": file.name, "url": url,
                    "info": { "mimetype": mime, "size": file.data.len() } })
            }
        };
        let reply = message.reply_to_id.as_ref().filter(|_| index == 0);
        let mut relation = Map::new();
        if let Some(thread) = &message.thread_id {
            relation.insert("rel_type".into(), "m.thread".into());
            relation.insert("event_id".into(), thread.as_str().into());
            relation.insert("is_falling_back".into(), reply.is_none().into());
        }
        // Clients without threads show what is in one as an answer.
        if let Some(target) = reply.or(message.thread_id.as_ref()) {
            relation.insert("m.in_reply_to".into(), json!({ "event_id": target }));
        }
        if let Some(content) = content.as_object_mut() {
            if !relation.is_empty() {
                content.insert("m.relates_to".into(), relation.into());
            }
            // Notices make no sound.
            if message.silent && content.get("msgtype").is_some_and(|kind| kind == "m.text") {
                content.insert("msgtype".into(), "m.notice".into());
            }
        }
        Ok(vec![self.send_event(room, "m.room.message", key, &content).await?])
    }

    /// Takes back our reactions to a message.
    async fn unreact(&self, room: &str, event: &str) -> Result<(), Failed> {
        let me = self.me().await?;
        let path = ["client", "v1", "rooms", room, "relations", event, "m.annotation", "m.reaction"];
        let mut url = self.url(&path).map_err(refused)?;
        url.query_pairs_mut().append_pair("limit", "100");
        let reply = self.ask(Method::GET, url, Content::None, CALL, ANSWER).await?;
        let found: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        for event in found.get("chunk").and_then(Value::as_array).into_iter().flatten() {
            let gone = event.pointer("/content/m.relates_to").is_none();
            let mine = text(event, "sender") == Some(me) && text(event, "type") == Some("m.reaction");
            if let Some(id) = text(event, "event_id").filter(|_| mine && !gone) {
                let path = ["client", "v3", "rooms", room, "redact", id, &transaction()?];
                self.json(Method::PUT, &path, Content::Json(&json!({}))).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn make(&self, call: &Call) -> Result<Done, Failed> {
        let room = self.room(call.to()).await?;
        match call {
            Call::Send { message, part, index, key } => {
                let message_ids = self.send(&room, message, part, *index, key).await?;
                return Ok(Done { message_ids, pause: None });
            }
            Call::Edit { message_id, text: markdown, .. } => {
                let new = written(markdown, Format::Markdown);
                let mut content = json!({
                    "msgtype": "m.text", "body": format!("* {markdown}"), "m.mentions": {},
                    "m.relates_to": { "rel_type": "m.replace", "event_id": event_id(message_id)? },
                });
                if let Some(content) = content.as_object_mut() {
                    content.insert("m.new_content".into(), new);
                }
                self.send_event(&room, "m.room.message", &transaction()?, &content).await?;
            }
            Call::React { message_id, emoji, .. } => {
                let event = event_id(message_id)?;
                if emoji.is_empty() {
                    self.in_clear(&room).await?;
                    self.unreact(&room, event).await?;
                    return Ok(Done::default());
                }
                let relation = json!({ "rel_type": "m.annotation", "event_id": event, "key": emoji });
                let content = json!({ "m.relates_to": relation });
                match self.send_event(&room, "m.reaction", &transaction()?, &content).await {
                    // It is there already.
                    Err(failed) if failed.error.message().contains("M_DUPLICATE_ANNOTATION") => {}
                    sent => _ = sent?,
                }
            }
            Call::Typing { .. } => {
                let me = self.me().await?;
                let path = ["client", "v3", "rooms", &room, "typing", me];
                let body = json!({ "typing": true, "timeout": 20_000 });
                self.json(Method::PUT, &path, Content::Json(&body)).await?;
            }
        }
        Ok(Done::default())
    }
}

fn event_id(id: &str) -> Result<&str, Failed> {
    Some(id).filter(|id| id.starts_with('$')).ok_or_else(|| {
        refused(CoreError::new(Code::Validation, "a message's id must be an event's: it begins with $"))
    })
}

/// For what may be done twice: the same content again is another event.
fn transaction() -> Result<String, Failed> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| {
        refused(CoreError::new(Code::Crypto, format!("the system gives no random numbers: {error}")))
    })?;
    Ok(HEXLOWER.encode(&random))
}

/// The content of a message. Who is named in it is mentioned, and nobody else.
fn written(source: &str, format: Format) -> Value {
    let users: Vec<&str> = source
        .split(|c: char| {
            c.is_whitespace() || matches!(c, ',' | ';' | '(' | ')' | '<' | '>' | '"' | '`' | '*')
        })
        .map(|word| word.trim_end_matches(['.', ':', '!', '?']))
        .filter(|word| {
            let rest = word.strip_prefix('@').and_then(|rest| rest.split_once(':'));
            rest.is_some_and(|(name, server)| !name.is_empty() && !server.is_empty() && !server.contains('/'))
        })
        .take(50)
        .collect();
    let mentions = if users.is_empty() { json!({}) } else { json!({ "user_ids": users }) };
    let mut content = json!({ "msgtype": "m.text", "body": source, "m.mentions": mentions });
    if format == Format::Markdown
        && let (Some(html), Some(content)) = (html::render(source), content.as_object_mut())
    {
        content.insert("format".into(), "org.matrix.custom.html".into());
        content.insert("formatted_body".into(), html.into());
    }
    content
}
