//! Matrix, by the Client-Server API of a homeserver: <https://spec.matrix.org/latest/client-server-api/>.
//!
//! Messages come by `/sync`, and its token moves on only once they are on the disk. What is sent has a transaction id, so
//! that the homeserver makes one event of all attempts.
//!
//! End-to-end encryption is not built in. What is written in an encrypted room is not read, and nothing is sent to one: before
//! each message it is certain that its room is not encrypted, by what `/sync` told or by asking.

mod html;
mod inbound;
mod send;
mod sync;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, Url};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_util::bytes::Bytes;

use super::Boxed;
use super::chunk::{Mode, Unit, split_rendered};
use super::message::{Attachment, Chat, Format, OutboundMessage, Part};
use super::platform::{Call, Done, Failed, Fate, Limits, Link, Platform, Scope, Settings};
use super::wire::{self, HttpRequest, Reply, Wire};
use crate::secrets::Secret;
use crate::validation::fetch::{FetchOptions, fetch};
use crate::{Code, CoreError, Result};

/// Bytes of a text, and of its HTML. An event has 65536 at most, with both of them as JSON.
const TEXT: usize = 12_000;
/// Any other call.
const CALL: Duration = Duration::from_secs(30);
/// A file.
const UPLOAD: Duration = Duration::from_mins(5);
/// The most bytes of an answer.
const ANSWER: usize = 64 << 20;
/// Our latest events, and names of users, that are remembered.
const REMEMBERED: usize = 4096;

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
    /// Whose timeline was cut short: since when the homeserver does not give what it left out, and how often it did not.
    gaps: HashMap<String, (Instant, u32)>,
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

fn text<'v>(value: &'v Value, field: &str) -> Option<&'v str> {
    value.get(field).and_then(Value::as_str)
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
