//! Matrix, by the Client-Server API of a homeserver: <https://spec.matrix.org/latest/client-server-api/>.
//!
//! Messages come by `/sync`, and its token moves on only once they are on the disk. What is sent has a transaction id, so
//! that the homeserver makes one event of all attempts.
//!
//! End-to-end encryption is not built in. What is written in an encrypted room is not read, and nothing is sent to one: before
//! each message it is certain that its room is not encrypted, by what `/sync` told or by asking.

mod html;
mod inbound;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data_encoding::HEXLOWER;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, Url};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_util::bytes::Bytes;

use self::inbound::{Joined, Page, Sync};
use super::chunk::{Mode, Unit, split_rendered};
use super::message::{
    Attachment, Chat, ChatKind, Format, InboundMessage, OutboundFile, OutboundMessage, Part,
};
use super::platform::{Call, Done, Failed, Fate, Limits, Link, Platform, Scope, Settings};
use super::wire::{self, HttpRequest, Reply, Wire};
use super::{Boxed, sniff};
use crate::secrets::Secret;
use crate::validation::fetch::{FetchOptions, fetch};
use crate::{Code, CoreError, Result};

/// Bytes of a text, and of its HTML. An event has 65536 at most, with both of them as JSON.
const TEXT: usize = 12_000;
/// Bytes of an event's content.
const CONTENT: usize = 64_000;
/// How long `/sync` may wait for something to tell.
const POLL: Duration = Duration::from_secs(30);
/// For the way there and back, and a busy server.
const SLACK: Duration = Duration::from_secs(15);
/// The first `/sync` of an account in many rooms takes its time.
const FIRST: Duration = Duration::from_mins(5);
/// Any other call.
const CALL: Duration = Duration::from_secs(30);
/// A file.
const UPLOAD: Duration = Duration::from_mins(5);
/// The most bytes of an answer.
const ANSWER: usize = 64 << 20;
/// So old may what `/sync` told of a room's encryption be; past that, it is asked for.
const FRESH: Duration = Duration::from_mins(1);
/// For joining rooms, between two requests; attempts at one; and rooms that wait for another attempt.
const JOINING: Duration = Duration::from_secs(10);
const TRIES: u32 = 5;
const INVITATIONS: usize = 100;
/// For learning what a room is, while everything else waits; and until that is tried again, if it could not be learned.
const ASKING: Duration = Duration::from_secs(10);
const UNSURE: Duration = Duration::from_mins(1);
/// Pages of 100 events that a gap in a room's timeline may have.
const PAGES: usize = 50;
/// Our latest events, and names of users, that are remembered.
const REMEMBERED: usize = 4096;

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

/// Which invitations are accepted.
enum Join {
    No,
    Always,
    /// Of these rooms, and by these users.
    Listed(HashSet<String>),
}

/// A user on a homeserver.
pub struct Matrix {
    token: Secret,
    base: Url,
    wire: Arc<dyn Wire>,
    join: Join,
    me: OnceCell<String>,
    upload_limit: OnceCell<Option<u64>>,
    known: Mutex<Known>,
}

/// The room, its state as far as who is invited may see it, and attempts to join it.
type Invitation = (String, Vec<Box<RawValue>>, u32);

/// What is known of rooms, until the process ends.
#[derive(Default)]
struct Known {
    /// When the homeserver last told everything.
    synced: Option<Instant>,
    /// Whether they are encrypted. From yes there is no way back.
    encrypted: HashMap<String, bool>,
    /// What they are called, and whether they are direct; taken out whenever who is in them, or the name, changes.
    chats: HashMap<String, Chat>,
    /// Of which the homeserver does not say what they are, and when it is asked again.
    unsure: HashMap<String, Instant>,
    /// `m.direct`, as it is: the rooms of each user. It is the user's, and what we do not understand of it stays.
    direct: Map<String, Value>,
    /// Invited as direct by somebody.
    invited: HashSet<String>,
    /// Not accepted yet.
    invitations: Vec<Invitation>,
    names: HashMap<(String, String), String>,
    /// Our own latest events, for answers to them.
    mine: VecDeque<String>,
    /// What was uploaded for a part, by its key and the file's number: a repeated event is the same.
    uploaded: HashMap<(String, usize), String>,
    /// Encrypted rooms that were complained of.
    warned: HashSet<String>,
}

impl Known {
    fn remember(&mut self, event: &str) {
        if self.mine.len() >= REMEMBERED {
            self.mine.pop_front();
        }
        self.mine.push_back(event.to_owned());
    }

    fn is_direct(&self, room: &str) -> bool {
        let mut rooms = self.direct.values().filter_map(Value::as_array).flatten();
        self.invited.contains(room) || rooms.any(|known| known == room)
    }
}

/// `token` (an access token), `baseUrl` (the homeserver), `autoJoin` (`off`, `allowlist` or `always`; `off` by default)
/// and `autoJoinAllowlist` (ids of rooms and users).
pub fn open(settings: Settings) -> Result<Box<dyn Platform>> {
    let wrong = |message: &str| CoreError::new(Code::Validation, message);
    let token =
        settings.secret("token").or_else(|error| settings.secret("accessToken").map_err(|_| error))?;
    if token.is_empty() || !token.expose().iter().all(u8::is_ascii_graphic) {
        return Err(wrong("`token` must be an access token"));
    }
    let base = settings
        .base_url
        .as_deref()
        .ok_or_else(|| wrong("`baseUrl` must be the homeserver's URL, such as https://matrix.example.org"))?;
    if settings.webhook.is_some() {
        return Err(wrong("`webhook`: this adapter receives by /sync; leave the option out"));
    }
    let listed = match settings.options.get("autoJoinAllowlist") {
        None => HashSet::new(),
        Some(list) => {
            let entry =
                |entry: &Value| entry.as_str().filter(|id| id.starts_with(['!', '@'])).map(str::to_owned);
            let list = list.as_array().and_then(|list| list.iter().map(entry).collect::<Option<_>>());
            list.ok_or_else(|| {
                wrong("`autoJoinAllowlist` must be an array of ids of rooms (!…) and users (@…)")
            })?
        }
    };
    let join = match settings.options.get("autoJoin").map(Value::as_str) {
        None | Some(Some("off")) => Join::No,
        Some(Some("always")) => Join::Always,
        Some(Some("allowlist")) => Join::Listed(listed),
        Some(_) => return Err(wrong("`autoJoin` must be off, allowlist or always")),
    };
    Ok(Box::new(Matrix {
        token,
        base: wire::base(base)?,
        wire: settings.wire,
        join,
        me: OnceCell::new(),
        upload_limit: OnceCell::new(),
        known: Mutex::default(),
    }))
}

/// What goes with a request.
enum Content<'c> {
    None,
    Json(&'c Value),
    Bytes(&'c Bytes, String),
}

fn refused(error: CoreError) -> Failed {
    Failed::new(Fate::Refused, error)
}

/// Nothing was sent yet, whatever became of the question before it.
fn unsent(failed: Failed) -> Failed {
    let fate = if failed.fate == Fate::Refused { Fate::Refused } else { Fate::Unsent };
    Failed { fate, ..failed }
}

fn text<'v>(value: &'v Value, field: &str) -> Option<&'v str> {
    value.get(field).and_then(Value::as_str)
}

/// Whether the homeserver does not know where we were. Synapse says `M_UNKNOWN`, others `M_INVALID_PARAM`.
fn is_bad_position(failed: &Failed) -> bool {
    let said = failed.error.message();
    let codes = ["(M_UNKNOWN_POS)", "(M_INVALID_PARAM)", "(M_UNKNOWN)"];
    failed.error.details().status == Some(400) && codes.iter().any(|code| said.ends_with(code))
}

fn encrypted(room: &str) -> CoreError {
    let message = format!(
        "the room {room} is encrypted, which this channel cannot read or write: nothing is sent there in clear; use a \
         room without encryption"
    );
    CoreError::new(Code::ChannelSend, message)
}

impl Matrix {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn url(&self, path: &[&str]) -> Result<Url> {
        let mut url = self.base.clone();
        let wrong = || CoreError::new(Code::Validation, "`baseUrl` is no base of a URL");
        url.path_segments_mut().map_err(|()| wrong())?.pop_if_empty().extend(["_matrix"]).extend(path);
        Ok(url)
    }

    async fn ask(
        &self,
        method: Method,
        url: Url,
        content: Content<'_>,
        limit: Duration,
        most: usize,
    ) -> Result<Reply, Failed> {
        let mut headers = HeaderMap::new();
        let bearer = format!("Bearer {}", self.token.expose_str().map_err(refused)?);
        if let Ok(mut bearer) = HeaderValue::try_from(bearer) {
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let body = match content {
            Content::None => Vec::new(),
            Content::Json(body) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                body.to_string().into()
            }
            Content::Bytes(bytes, kind) => {
                if let Ok(kind) = HeaderValue::try_from(kind) {
                    headers.insert(CONTENT_TYPE, kind);
                }
                bytes.to_vec()
            }
        };
        let what = url.path_segments().and_then(|path| path.map(str::to_owned).nth(3)).unwrap_or_default();
        let request = HttpRequest { method, url, headers, body };
        let reply = wire::ask(&*self.wire, request, limit, most).await?;
        if reply.status < 400 {
            return Ok(reply);
        }
        let said: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let code = text(&said, "errcode").unwrap_or_default();
        if reply.status == 429 || code == "M_LIMIT_EXCEEDED" {
            let header = reply.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
            let wait = said.get("retry_after_ms").and_then(Value::as_u64);
            let wait = wait.or_else(|| header.map(|seconds: u64| seconds.saturating_mul(1000)));
            return Err(Failed::rate_limited(&what, Duration::from_millis(wait.unwrap_or(1000)), Scope::Bot));
        }
        let message = match text(&said, "error") {
            Some(error) => format!("{what}: the homeserver says: {error} ({code})"),
            None => format!("{what}: the homeserver answered with {} and no JSON of its own", reply.status),
        };
        let token = matches!(code, "M_UNKNOWN_TOKEN" | "M_MISSING_TOKEN" | "M_USER_DEACTIVATED");
        let (fate, code) = match reply.status {
            401 => (Fate::Refused, Code::ChannelAuth),
            _ if token => (Fate::Refused, Code::ChannelAuth),
            500.. => (Fate::Unknown, Code::Network),
            _ => (Fate::Refused, Code::ChannelSend),
        };
        Err(Failed::new(fate, CoreError::new(code, message).with_status(reply.status)))
    }

    async fn json(&self, method: Method, path: &[&str], content: Content<'_>) -> Result<Value, Failed> {
        let reply = self.ask(method, self.url(path).map_err(refused)?, content, CALL, ANSWER).await?;
        serde_json::from_slice(&reply.body).map_err(|_| {
            let message = format!("the homeserver answered with {} and no JSON", reply.status);
            Failed::new(Fate::Unknown, CoreError::new(Code::Network, message).with_status(reply.status))
        })
    }

    /// None if there is no such thing, or it is not for us.
    async fn find(&self, path: &[&str]) -> Result<Option<Value>, Failed> {
        match self.json(Method::GET, path, Content::None).await {
            Ok(found) => Ok(Some(found)),
            Err(failed) if matches!(failed.error.details().status, Some(403 | 404)) => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    async fn me(&self) -> Result<&str, Failed> {
        let asked = self.me.get_or_try_init(|| async {
            let who = self.json(Method::GET, &["client", "v3", "account", "whoami"], Content::None).await?;
            text(&who, "user_id").map(str::to_owned).ok_or_else(|| {
                let message = "whoami: the homeserver did not say who the token is of";
                Failed::new(Fate::Unknown, CoreError::new(Code::Network, message))
            })
        });
        asked.await.map(String::as_str)
    }

    // ── receiving ─────────────────────────────────────────────────────────────────────────────────────────────────

    /// Polls until the connection breaks.
    async fn poll(&self, link: &Link) -> Result<()> {
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

    fn set_direct(&self, content: &Value) {
        let mut known = self.known();
        known.direct = content.as_object().cloned().unwrap_or_default();
        known.chats.clear();
    }

    /// Reads what a room has to tell.
    async fn joined(
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
        missed.reverse();
        Ok(missed)
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

    // ── sending ───────────────────────────────────────────────────────────────────────────────────────────────────

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
    async fn in_clear(&self, room: &str) -> Result<(), Failed> {
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

    async fn make(&self, call: &Call) -> Result<Done, Failed> {
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

impl Platform for Matrix {
    fn id(&self) -> &'static str {
        "matrix"
    }

    /// Each homeserver has its own; it says when to wait.
    fn limits(&self) -> Limits {
        Limits { at_once: 4, ..Limits::default() }
    }

    fn knows_keys(&self) -> bool {
        true
    }

    fn identity(&self) -> Option<Secret> {
        Some(self.token.clone())
    }

    fn run<'a>(&'a self, link: &'a Link) -> Boxed<'a, Result<()>> {
        Box::pin(async move {
            tokio::select! {
                biased;
                // What was received and not confirmed comes again, and is known.
                () = link.closing().cancelled() => Ok(()),
                outcome = self.poll(link) => outcome,
            }
        })
    }

    fn render(&self, message: &OutboundMessage) -> Result<Vec<Part>> {
        if !message.to.starts_with(['!', '@']) {
            let message = "`to` must be a room's id (!…), or a user's (@…) with whom there is a direct room";
            return Err(CoreError::new(Code::Validation, message));
        }
        let event = |id: &Option<String>| id.as_ref().is_none_or(|id| id.starts_with('$'));
        if !event(&message.reply_to_id) || !event(&message.thread_id) {
            let message = "`replyToId` and `threadId` must be ids of events: they begin with $";
            return Err(CoreError::new(Code::Validation, message));
        }
        // As JSON, control characters are six bytes long, and nobody sees them.
        let text: String =
            message.text.trim().chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
        let render = |text: &str| match message.format {
            Format::Markdown => html::render(text).unwrap_or_else(|| text.to_owned()),
            Format::Plain => text.to_owned(),
        };
        let texts = split_rendered(&text, TEXT, Unit::Utf8, Mode::Length, &render);
        let texts = texts.into_iter().filter(|(source, _)| !source.trim().is_empty());
        let mut parts: Vec<Part> = texts.map(|(source, text)| Part { text, source, files: 0..0 }).collect();
        parts.extend((0..message.files.len()).map(|at| Part { files: at..at + 1, ..Part::default() }));
        if parts.is_empty() {
            return Err(CoreError::new(Code::Validation, "the message has neither text nor attachments"));
        }
        Ok(parts)
    }

    fn call<'a>(&'a self, call: &'a Call) -> Boxed<'a, Result<Done, Failed>> {
        Box::pin(self.make(call))
    }

    fn download<'a>(&'a self, attachment: &'a Attachment, most: usize) -> Boxed<'a, Result<Bytes>> {
        Box::pin(async move {
            let wrong = || CoreError::new(Code::Validation, "the attachment has no mxc:// URI");
            let media = attachment.handle.strip_prefix("mxc://").ok_or_else(wrong)?;
            let (server, id) = media.split_once('/').ok_or_else(wrong)?;
            let word = |text: &str, more: &str| {
                !text.is_empty()
                    && !text.starts_with('.')
                    && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
            };
            if !word(server, ".-:[]") || !word(id, "_-") {
                return Err(wrong());
            }
            let url = self.url(&["client", "v1", "media", "download", server, id])?;
            let reply = self.ask(Method::GET, url, Content::None, UPLOAD, most).await;
            let reply = reply.map_err(|failed| failed.error)?;
            if reply.status < 300 {
                return Ok(reply.body.into());
            }
            // It lies elsewhere, at an address that needs no token.
            let target = reply.headers.get(LOCATION).and_then(|url| url.to_str().ok()).ok_or_else(|| {
                let message = format!("the homeserver answered with {} when asked for a file", reply.status);
                CoreError::new(Code::Network, message).with_status(reply.status)
            })?;
            let fetched = fetch(target, &FetchOptions { max_bytes: most, ..FetchOptions::default() }).await?;
            if fetched.status != 200 {
                let message = format!("the file's server answered with {}", fetched.status);
                return Err(CoreError::new(Code::Network, message).with_status(fetched.status));
            }
            Ok(fetched.body.into())
        })
    }
}

#[cfg(test)]
mod tests;
