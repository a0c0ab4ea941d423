//! What comes from the homeserver by `/sync`: rooms' timelines, gaps in them, what a room is, invitations.

use std::time::Duration;

use reqwest::Method;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::inbound::{self, Joined, Page, Sync};
use super::{ANSWER, CALL, Content, Invitation, Join, Matrix, REMEMBERED, refused, text};
use crate::channels::message::{Chat, ChatKind, InboundMessage};
use crate::channels::platform::{Failed, Fate, Link};
use crate::channels::wire::Reply;
use crate::{Code, CoreError, Result};

/// How long `/sync` may wait for something to tell.
const POLL: Duration = Duration::from_secs(30);
/// For the way there and back, and a busy server.
const SLACK: Duration = Duration::from_secs(15);
/// The first `/sync` of an account in many rooms takes its time.
const FIRST: Duration = Duration::from_mins(5);
/// For joining rooms, between two requests; attempts at one; and rooms that wait for another attempt.
const JOINING: Duration = Duration::from_secs(10);
const TRIES: u32 = 5;
const INVITATIONS: usize = 100;
/// For learning what a room is, while everything else waits; and until that is tried again, if it could not be learned.
pub(super) const ASKING: Duration = Duration::from_secs(10);
pub(super) const UNSURE: Duration = Duration::from_mins(1);
/// Pages of 100 events that a gap in a room's timeline may have.
const PAGES: usize = 50;
/// So long, and so many attempts, everything else waits for what one room's timeline left out, if a homeserver that is
/// there does not give it.
const GAP: Duration = Duration::from_mins(5);
const GAP_TRIES: u32 = 8;

/// Kinds of events that are asked for.
const EVENTS: [&str; 8] = [
    "m.room.message",
    "m.sticker",
    "m.reaction",
    "m.room.redaction",
    "m.room.encrypted",
    "m.room.encryption",
    "m.room.name",
    "m.room.member",
];

/// Whether the homeserver does not know where we were. Synapse says `M_UNKNOWN`, others `M_INVALID_PARAM`.
fn is_bad_position(failed: &Failed) -> bool {
    let said = failed.error.message();
    let codes = ["(M_UNKNOWN_POS)", "(M_INVALID_PARAM)", "(M_UNKNOWN)"];
    failed.error.details().status == Some(400) && codes.iter().any(|code| said.ends_with(code))
}

impl Matrix {
    /// Polls until the connection breaks.
    pub(super) async fn poll(&self, link: &Link) -> Result<()> {
        let outcome = self.sync(link).await;
        // Nobody tells any more of rooms that become encrypted.
        self.known().synced = None;
        outcome
    }

    async fn sync(&self, link: &Link) -> Result<()> {
        let me = self.me().await.map_err(|failed| failed.error)?.to_owned();
        let path = ["client", "v3", "user", me.as_str(), "account_data", "m.direct"];
        let direct = self.find(&path).await.map_err(|failed| failed.error)?;
        link.verified();
        self.set_direct(&direct.unwrap_or_default());
        // A token of another user's, or of none.
        let cursor = link.cursor();
        let since = cursor.as_deref().and_then(|cursor| cursor.split_once(' '));
        let mut since = since.filter(|(user, _)| *user == me).map(|(_, since)| since.to_owned());
        let mut first = true;
        loop {
            let asked = self.ask_sync(since.as_deref(), first).await;
            let reply = match asked {
                Err(failed) if since.is_some() && is_bad_position(&failed) => {
                    tracing::error!(error = %failed.error, "the homeserver no longer knows where we were: what came since is lost");
                    since = None;
                    continue;
                }
                asked => asked.map_err(|failed| failed.error)?,
            };
            let sync: Sync = serde_json::from_slice(&reply.body).map_err(|_| {
                CoreError::new(Code::Network, "sync: the homeserver's answer is not of the form of one")
            })?;
            let mut messages = Vec::new();
            for (room, joined) in sync.rooms.join {
                self.joined(&me, &room, joined, since.as_deref(), link, &mut messages).await?;
            }
            for raw in &sync.account_data.events {
                let event: Value = serde_json::from_str(raw.get()).unwrap_or_default();
                if text(&event, "type") == Some("m.direct") {
                    self.set_direct(event.get("content").unwrap_or(&Value::Null));
                }
            }
            for room in sync.rooms.leave.keys() {
                let mut known = self.known();
                known.chats.remove(room);
                known.unsure.remove(room);
                known.invited.remove(room);
            }
            let new =
                sync.rooms.invite.into_iter().map(|(room, invited)| (room, invited.invite_state.events, 0));
            self.accept(&me, new.collect()).await?;
            // Only once they are on the disk does the homeserver learn, by the next request, that they have arrived.
            link.receive(messages, Some(format!("{me} {}", sync.next_batch))).await?;
            self.known().synced = Some(Instant::now());
            since = Some(sync.next_batch);
            first = false;
        }
    }

    /// The first of a connection does not wait: it tells whether the homeserver is there.
    async fn ask_sync(&self, since: Option<&str>, first: bool) -> Result<Reply, Failed> {
        let limit = if since.is_some() { 100 } else { 1 };
        let filter = json!({
            "presence": { "types": [] },
            "account_data": { "types": ["m.direct"] },
            "room": {
                "timeline": { "limit": limit, "types": EVENTS },
                "state": {
                    "types": ["m.room.encryption", "m.room.name", "m.room.member"],
                    "lazy_load_members": true,
                },
                "ephemeral": { "types": [] },
                "account_data": { "types": [] },
            },
        });
        let mut url = self.url(&["client", "v3", "sync"]).map_err(refused)?;
        let wait = if first { Duration::ZERO } else { POLL };
        url.query_pairs_mut()
            .append_pair("timeout", &wait.as_millis().to_string())
            .append_pair("filter", &filter.to_string());
        if let Some(since) = since {
            url.query_pairs_mut().append_pair("since", since);
        }
        let limit = if since.is_none() { FIRST } else { wait + SLACK };
        self.ask(Method::GET, url, Content::None, limit, ANSWER).await
    }

    pub(super) fn set_direct(&self, content: &Value) {
        let mut known = self.known();
        known.direct = content.as_object().cloned().unwrap_or_default();
        known.chats.clear();
    }

    /// Reads what a room has to tell.
    pub(super) async fn joined(
        &self,
        me: &str,
        room: &str,
        joined: Joined,
        since: Option<&str>,
        link: &Link,
        messages: &mut Vec<InboundMessage>,
    ) -> Result<()> {
        let mut raws = joined.timeline.events;
        let joins = |raw: &RawValue| {
            let event: Value = serde_json::from_str(raw.get()).unwrap_or_default();
            let mine = text(&event, "type") == Some("m.room.member") && text(&event, "state_key") == Some(me);
            let membership = |path: &str| event.pointer(path).and_then(Value::as_str).map(str::to_owned);
            let now = membership("/content/membership").filter(|_| mine)?;
            // Who was there already has changed a name.
            let before = membership("/unsigned/prev_content/membership");
            (before.as_ref() != Some(&now)).then_some(now)
        };
        // What was written before we were invited was not written to us.
        let invited = raws.iter().rposition(|raw| joins(raw).as_deref() == Some("invite"));
        let entered = raws.iter().position(|raw| joins(raw).as_deref() == Some("join"));
        let entered_in_state =
            joined.state.events.iter().any(|raw| joins(raw).is_some()) && joined.timeline.limited;
        for raw in &joined.state.events {
            self.note(room, &serde_json::from_str(raw.get()).unwrap_or_default());
        }
        let Some(since) = since else {
            for raw in &raws {
                self.note(room, &serde_json::from_str(raw.get()).unwrap_or_default());
            }
            return Ok(());
        };
        if let (true, Some(from), None, false) =
            (joined.timeline.limited, &joined.timeline.prev_batch, invited.or(entered), entered_in_state)
        {
            let mut missed = self.gap(room, from, since).await?;
            missed.append(&mut raws);
            raws = missed;
        }
        let start = invited.or(entered).map_or(0, |at| at + 1);
        for (at, raw) in raws.iter().enumerate() {
            let event: Value = serde_json::from_str(raw.get()).unwrap_or_default();
            self.note(room, &event);
            if at < start {
                continue;
            }
            let Some(sender) = text(&event, "sender") else { continue };
            if sender == me {
                if let Some(id) = text(&event, "event_id") {
                    self.known().remember(id);
                }
                continue;
            }
            if text(&event, "type") == Some("m.room.encrypted") {
                self.warn(room, link);
                continue;
            }
            if text(&event, "type").is_none_or(|kind| {
                !matches!(kind, "m.room.message" | "m.sticker" | "m.reaction" | "m.room.redaction")
            }) {
                continue;
            }
            let chat = self.chat_or_group(room, link).await?;
            let read = {
                let known = self.known();
                let name = known.names.get(&(room.to_owned(), sender.to_owned())).map(String::as_str);
                let is_mine = |id: &str| known.mine.iter().any(|mine| mine == id);
                inbound::read(&event, raw, me, &chat, name, is_mine)
            };
            messages.extend(read);
        }
        Ok(())
    }

    /// What a timeline that was cut short left out, in order.
    async fn gap(&self, room: &str, from: &str, since: &str) -> Result<Vec<Box<RawValue>>> {
        let mut missed = Vec::new();
        let mut from = from.to_owned();
        for number in 0..=PAGES {
            if number == PAGES {
                tracing::error!(room, "more events were missed than are fetched: the oldest are lost");
                break;
            }
            let mut url = self.url(&["client", "v3", "rooms", room, "messages"])?;
            url.query_pairs_mut()
                .append_pair("dir", "b")
                .append_pair("from", &from)
                .append_pair("to", since)
                .append_pair("limit", "100")
                .append_pair("filter", &json!({ "types": EVENTS }).to_string());
            let reply = match self.ask(Method::GET, url, Content::None, CALL, ANSWER).await {
                // It would refuse the next time, too, and everything else would wait for that.
                Err(failed) if failed.fate == Fate::Refused && failed.error.code() == Code::ChannelSend => {
                    tracing::error!(room, error = %failed.error, "what was missed is not to be had: it is lost");
                    break;
                }
                Err(failed) if self.gap_stays(room, &failed) => {
                    tracing::error!(room, error = %failed.error, "what was missed is not given: it is lost");
                    break;
                }
                reply => reply.map_err(|failed| failed.error)?,
            };
            let page: Page = serde_json::from_slice(&reply.body).map_err(|_| {
                CoreError::new(Code::Network, "messages: the homeserver gave no page of events")
            })?;
            missed.extend(page.chunk);
            match page.end {
                Some(end) if end != from => from = end,
                _ => break,
            }
        }
        self.known().gaps.remove(room);
        missed.reverse();
        Ok(missed)
    }

    /// Whether a homeserver that answers `/sync` each time has kept what a room's timeline left out for too long.
    fn gap_stays(&self, room: &str, failed: &Failed) -> bool {
        if matches!(failed.error.code(), Code::ChannelAuth | Code::ChannelRateLimited) {
            return false;
        }
        let mut known = self.known();
        let (since, tries) = known.gaps.entry(room.to_owned()).or_insert_with(|| (Instant::now(), 0));
        *tries += 1;
        *tries >= GAP_TRIES && since.elapsed() >= GAP
    }

    /// Takes note of a state event.
    fn note(&self, room: &str, event: &Value) {
        if event.get("state_key").is_none() {
            return;
        }
        let mut known = self.known();
        match text(event, "type") {
            Some("m.room.encryption") => _ = known.encrypted.insert(room.to_owned(), true),
            Some("m.room.name") => _ = known.chats.remove(room),
            Some("m.room.member") => {
                known.chats.remove(room);
                let name = event.get("content").and_then(|content| text(content, "displayname"));
                if let (Some(user), Some(name)) = (text(event, "state_key"), name) {
                    if known.names.len() >= REMEMBERED {
                        known.names.clear();
                    }
                    known.names.insert((room.to_owned(), user.to_owned()), name.to_owned());
                }
            }
            _ => {}
        }
    }

    fn warn(&self, room: &str, link: &Link) {
        self.known().encrypted.insert(room.to_owned(), true);
        if self.known().warned.insert(room.to_owned()) {
            let notice = format!(
                "the room {room} is encrypted: what is written there is not read, and nothing is sent there"
            );
            tracing::warn!("{notice}");
            link.notice(notice);
        }
    }

    /// What a room is: direct if somebody says so (`m.direct`, the invitation) or it has no name, and nobody else is there.
    async fn chat(&self, room: &str) -> Result<Chat> {
        if let Some(chat) = self.known().chats.get(room) {
            return Ok(chat.clone());
        }
        let failed = |failed: Failed| failed.error;
        let base = ["client", "v3", "rooms", room];
        let path = |rest: &[&'static str]| [&base[..], rest].concat();
        let name = self.find(&path(&["state", "m.room.name", ""])).await.map_err(failed)?;
        let title = name.as_ref().and_then(|name| text(name, "name")).filter(|name| !name.is_empty());
        let members = self.find(&path(&["joined_members"])).await.map_err(failed)?;
        let members = members.and_then(|members| members.get("joined")?.as_object().map(Map::len));
        let mut known = self.known();
        let alone = members.is_some_and(|count| count <= 2);
        let direct = alone && (known.is_direct(room) || title.is_none());
        let chat = Chat {
            kind: if direct { ChatKind::Direct } else { ChatKind::Group },
            id: room.to_owned(),
            title: title.map(str::to_owned),
        };
        known.chats.insert(room.to_owned(), chat.clone());
        Ok(chat)
    }

    /// As [`Self::chat`]; but a room of which a homeserver that is there lastingly does not say what it is, is a group: all
    /// others would wait for it, and what several read was not said to us alone.
    async fn chat_or_group(&self, room: &str, link: &Link) -> Result<Chat> {
        let group = || Chat { kind: ChatKind::Group, id: room.to_owned(), title: None };
        let unsure = self.known().unsure.get(room).copied();
        if unsure.is_some_and(|until| Instant::now() < until) {
            return Ok(group());
        }
        let until = Instant::now() + ASKING;
        let mut wait = Duration::from_secs(1);
        let error = loop {
            let error = match tokio::time::timeout_at(until, self.chat(room)).await {
                Ok(Ok(chat)) => {
                    let settled = {
                        let mut known = self.known();
                        known.unsure.remove(room).is_some() && known.unsure.is_empty()
                    };
                    if settled {
                        link.notice(String::new());
                    }
                    return Ok(chat);
                }
                Ok(Err(error)) if matches!(error.code(), Code::ChannelAuth | Code::ChannelRateLimited) => {
                    return Err(error);
                }
                Ok(Err(error)) => error.message().to_owned(),
                Err(_) => "no answer in time".to_owned(),
            };
            // Once it is known to be so, one attempt will do.
            if unsure.is_some() || Instant::now() + wait >= until {
                break error;
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        };
        // If it says nothing at all, all rooms wait.
        let there = self.json(Method::GET, &["client", "v3", "account", "whoami"], Content::None).await;
        there.map_err(|failed| failed.error)?;
        let notice = format!(
            "the homeserver does not say who is in the room {room} ({error}): until it does, what is written there is a \
             group's"
        );
        tracing::warn!("{notice}");
        link.notice(notice);
        self.known().unsure.insert(room.to_owned(), Instant::now() + UNSURE);
        Ok(group())
    }

    /// Accepts invitations, as far as a short time allows; the rest is for the next time. Anybody may invite to a room
    /// that nobody can join, and is not to hold up what others write.
    async fn accept(&self, me: &str, new: Vec<Invitation>) -> Result<()> {
        let mut waiting = std::mem::take(&mut self.known().invitations);
        waiting.extend(new);
        let until = Instant::now() + JOINING;
        for (room, state, tries) in waiting {
            let joined = tokio::time::timeout_at(until, self.invited(me, &room, &state)).await;
            let error = match joined {
                Ok(Ok(())) => continue,
                Ok(Err(error)) if error.code() == Code::ChannelAuth => return Err(error),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            let again = tries + 1 < TRIES && self.known().invitations.len() < INVITATIONS;
            tracing::warn!(room, error, again, "a room was not joined");
            if again {
                self.known().invitations.push((room, state, tries + 1));
            }
        }
        Ok(())
    }

    /// Joins a room if it may.
    async fn invited(&self, me: &str, room: &str, state: &[Box<RawValue>]) -> Result<()> {
        let events: Vec<Value> =
            state.iter().filter_map(|raw| serde_json::from_str(raw.get()).ok()).collect();
        let invitation = events.iter().rfind(|event| {
            text(event, "type") == Some("m.room.member") && text(event, "state_key") == Some(me)
        });
        let by = invitation.and_then(|event| text(event, "sender")).unwrap_or_default();
        let allowed = match &self.join {
            Join::No => false,
            Join::Always => true,
            Join::Listed(list) => list.contains(room) || list.contains(by),
        };
        if !allowed {
            tracing::info!(room, by, "an invitation is not accepted: `autoJoin` does not allow it");
            return Ok(());
        }
        let direct = invitation.and_then(|event| event.pointer("/content/is_direct"));
        let direct = direct == Some(&Value::Bool(true)) && !by.is_empty();
        if direct {
            // Before the first message of it can come.
            self.known().invited.insert(room.to_owned());
        }
        let path = ["client", "v3", "rooms", room, "join"];
        match self.json(Method::POST, &path, Content::Json(&json!({}))).await {
            Ok(_) => {}
            // It was withdrawn, or the room is closed to us.
            Err(failed) if failed.fate == Fate::Refused && failed.error.code() == Code::ChannelSend => {
                tracing::warn!(room, error = %failed.error, "a room cannot be joined");
                return Ok(());
            }
            Err(failed) => return Err(failed.error),
        }
        if !direct {
            return Ok(());
        }
        let content = {
            let mut known = self.known();
            let rooms = known.direct.entry(by).or_insert_with(|| json!([]));
            if let Some(rooms) = rooms.as_array_mut().filter(|rooms| !rooms.iter().any(|known| known == room))
            {
                rooms.push(room.into());
            }
            Value::Object(known.direct.clone())
        };
        let path = ["client", "v3", "user", me, "account_data", "m.direct"];
        self.json(Method::PUT, &path, Content::Json(&content)).await.map_err(|failed| failed.error)?;
        Ok(())
    }
}
