//! Discord, by its Gateway, version 10, and its HTTP API: <https://docs.discord.com/developers/reference>.
//!
//! One connection at a time. A session is resumed, also by the next process: its id and the number of the last event that is
//! on the disk are the cursor. After three attempts that did not resume it, or where Discord says so, a new one begins.

mod gateway;
mod inbound;
mod interactions;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, USER_AGENT};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;
use tokio_util::bytes::Bytes;

use self::gateway::Resumption;
use self::interactions::Interaction;
use super::chunk::{Mode, Unit, split_rendered};
use super::message::{Attachment, ChatKind, Format, InboundMessage, OutboundFile, OutboundMessage, Part};
use super::platform::{Call, Done, Failed, Fate, Limits, Link, Platform, Rate, Scope, Settings};
use super::wire::{self, Form, HttpRequest, Reply, Wire};
use super::{Boxed, Surroundings, sniff};
use crate::secrets::Secret;
use crate::{Code, CoreError, Result};

/// Where the API is.
const BASE_URL: &str = "https://discord.com/api/v10";
/// Where files are that came with messages.
const FILE_HOSTS: [&str; 2] = ["cdn.discordapp.com", "media.discordapp.net"];
/// Characters of a message; counted in UTF-16 units here, which are never fewer.
const TEXT: usize = 2000;
/// Files of a message.
const FILES: usize = 10;
/// A call.
const CALL: Duration = Duration::from_secs(30);
/// To ask for a channel that a message was written in; messages wait for it.
const LOOKUP: Duration = Duration::from_secs(1);
/// Channels, and people, that are remembered.
const KNOWN: usize = 20_000;
/// A call with files.
const UPLOAD: Duration = Duration::from_mins(5);
/// The most bytes of an answer.
const ANSWER: usize = 8 << 20;
/// Guilds, messages and reactions there and in direct messages, and what messages say.
const INTENTS: u64 = 1 | 1 << 9 | 1 << 10 | 1 << 12 | 1 << 13 | 1 << 15;

/// A bot.
pub struct Discord {
    token: Secret,
    base: Url,
    wire: Arc<dyn Wire>,
    surroundings: Arc<dyn Surroundings>,
    intents: u64,
    me: OnceCell<String>,
    resumption: Mutex<Resumption>,
    /// The bot's slash commands, as Discord takes them, and whether Discord has them.
    commands: Option<Value>,
    registered: AtomicBool,
    interactions: Mutex<VecDeque<Interaction>>,
    places: Mutex<HashMap<String, Place>>,
    /// The conversations with people, by person.
    direct: Mutex<HashMap<String, String>>,
}

/// A channel, as far as a message needs it.
#[derive(Clone, Deserialize)]
struct Place {
    id: String,
    #[serde(rename = "type")]
    kind: u64,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    parent_id: Option<String>,
}

/// Of the types of channels, the threads'.
fn is_thread(kind: u64) -> bool {
    (10..=12).contains(&kind)
}

/// `token`, `baseUrl` (ends with `/api/v10`), `intents` (the Gateway's, as a number), and `commands` (a list in Discord's
/// form; it replaces what the bot has registered).
pub fn open(settings: Settings) -> Result<Box<dyn Platform>> {
    let token = settings.secret("token")?;
    let text = token.expose_str()?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.starts_with("Bot ") {
        let message =
            "`token` must be a bot's token as the Developer Portal shows it, without `Bot ` before it";
        return Err(CoreError::new(Code::Validation, message));
    }
    let mut base = wire::base(settings.base_url.as_deref().unwrap_or(BASE_URL))?;
    let path = base.path().trim_end_matches('/').to_owned();
    base.set_path(&path);
    if settings.webhook.is_some() {
        let message = "`webhook`: this adapter receives from the Gateway; leave the option out";
        return Err(CoreError::new(Code::Validation, message));
    }
    let intents = match settings.options.get("intents") {
        None => INTENTS,
        Some(value) => value.as_u64().ok_or_else(|| {
            CoreError::new(Code::Validation, "`intents` must be a whole number, the sum of Gateway intents")
        })?,
    };
    let commands = settings.options.get("commands").cloned();
    if commands.as_ref().is_some_and(|commands| !commands.is_array()) {
        let message = "`commands` must be a list of Discord's application commands";
        return Err(CoreError::new(Code::Validation, message));
    }
    Ok(Box::new(Discord {
        token,
        base,
        wire: settings.wire,
        surroundings: settings.surroundings,
        intents,
        me: OnceCell::new(),
        resumption: Mutex::default(),
        commands,
        registered: AtomicBool::new(false),
        interactions: Mutex::default(),
        places: Mutex::default(),
        direct: Mutex::default(),
    }))
}

/// What goes with a request.
enum Content<'a> {
    None,
    Json(Value),
    Files(Value, &'a [OutboundFile]),
}

impl Discord {
    fn resumption(&self) -> MutexGuard<'_, Resumption> {
        self.resumption.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call of the HTTP API; `path` has been checked, or is made of ids.
    async fn ask(&self, method: Method, path: &[&str], content: Content<'_>) -> Result<Reply, Failed> {
        let refused = |error| Failed::new(Fate::Refused, error);
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path);
        }
        let name = format!("{method} {}", path.first().copied().unwrap_or_default());
        let (mut request, limit) = match content {
            Content::None => (HttpRequest { method, url, headers: HeaderMap::new(), body: Vec::new() }, CALL),
            Content::Json(body) => (wire::json(method, url, HeaderMap::new(), &body), CALL),
            Content::Files(body, files) => {
                let mut form = Form::new().map_err(refused)?;
                form.text("payload_json", &body.to_string());
                for (at, file) in files.iter().enumerate() {
                    form.file(&format!("files[{at}]"), &file.name, &sniff::mime(file), &file.data);
                }
                (form.request(url), UPLOAD)
            }
        };
        let authorization = format!("Bot {}", self.token.expose_str().map_err(refused)?);
        let mut authorization = HeaderValue::from_str(&authorization)
            .map_err(|_| refused(CoreError::new(Code::Validation, "`token` is no header")))?;
        authorization.set_sensitive(true);
        // Interactions are authorized by their own tokens, in the path.
        let own = !matches!(path, ["interactions" | "webhooks", ..]);
        if own {
            request.headers.insert(AUTHORIZATION, authorization);
        }
        let agent = concat!("DiscordBot (https://github.com/openclaw/core, ", env!("CARGO_PKG_VERSION"), ")");
        request.headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        let reply = wire::ask(&*self.wire, request, limit, ANSWER).await?;
        if reply.status < 400 {
            return Ok(reply);
        }
        let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        if reply.status == 429 {
            let seconds = at(&body, "retry_after").as_f64().or_else(|| header(&reply, "retry-after"));
            let wait = Duration::try_from_secs_f64(seconds.unwrap_or(1.0)).unwrap_or(CALL);
            // In whole milliseconds, and not too few.
            let wait = wait + Duration::from_micros(999);
            // What is no JSON is not the API's: what stands before it keeps this address out.
            let global = at(&body, "global") == true
                || reply.headers.contains_key("x-ratelimit-global")
                || !body.is_object();
            let scope = if global { Scope::Bot } else { Scope::Chat };
            return Err(Failed::rate_limited(&name, wait, scope));
        }
        let said = at(&body, "message").as_str().unwrap_or("no reason");
        let errors = at(&body, "errors");
        let why = if errors.is_object() { format!(" ({errors})") } else { String::new() };
        let hint = hint(at(&body, "code").as_u64().unwrap_or(0));
        let message = format!("{name}: Discord says {}: {said}{why}{hint}", reply.status);
        let (fate, code) = match reply.status {
            401 if own => (Fate::Refused, Code::ChannelAuth),
            500.. => (Fate::Unknown, Code::Network),
            _ => (Fate::Refused, Code::ChannelSend),
        };
        Err(Failed::new(fate, CoreError::new(code, message).with_status(reply.status)))
    }

    async fn value(&self, method: Method, path: &[&str], content: Content<'_>) -> Result<Value> {
        let reply = self.ask(method, path, content).await.map_err(|failed| failed.error)?;
        serde_json::from_slice(&reply.body).map_err(|_| {
            CoreError::new(Code::Network, "Discord's answer is no JSON").with_status(reply.status)
        })
    }

    /// The bot's id.
    async fn me(&self) -> Result<&str> {
        let asked = self.me.get_or_try_init(|| async {
            let me = self.value(Method::GET, &["users", "@me"], Content::None).await?;
            let id = at(&me, "id").as_str().map(str::to_owned);
            id.ok_or_else(|| CoreError::new(Code::Network, "Discord did not say who the bot is"))
        });
        asked.await.map(String::as_str)
    }

    /// Remembers channels.
    fn learn(&self, places: impl IntoIterator<Item = Place>) {
        let mut known = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        for place in places {
            if known.len() >= KNOWN {
                known.clear();
            }
            known.insert(place.id.clone(), place);
        }
    }

    fn known(&self, id: &str) -> Option<Place> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Puts a message of a thread into the channel above it. `kind` is the type of its channel, if the event said it.
    /// Where `ask` is true, Discord is asked for a channel that is not known; it becomes false if that does not help.
    async fn place(&self, message: &mut InboundMessage, kind: Option<u64>, ask: &mut bool) {
        if message.chat.kind != ChatKind::Channel {
            return;
        }
        let mut place = self.known(&message.chat.id);
        if *ask && place.is_none() && kind.is_none_or(is_thread) {
            // A resumed session does not begin with what there is.
            let path = ["channels", message.chat.id.as_str()];
            let asked = self.value(Method::GET, &path, Content::None);
            if let Ok(Ok(found)) = tokio::time::timeout(LOOKUP, asked).await {
                place = Place::deserialize(found).ok();
                self.learn(place.clone());
            }
            *ask = place.is_some();
        }
        if place.as_ref().map(|place| place.kind).or(kind).is_some_and(is_thread) {
            let thread = message.chat.id.clone();
            if let Some(parent) = place.and_then(|place| place.parent_id) {
                place = self.known(&parent);
                message.chat.id = parent;
            } else {
                place = None;
            }
            message.thread_id = Some(thread);
        }
        message.chat.title = place.and_then(|place| place.name);
    }

    /// The channel to write to: a channel's id, `channel:ID`, or `user:ID` for a direct message.
    async fn channel(&self, to: &str) -> Result<String, Failed> {
        if let Some(user) = to.strip_prefix("user:") {
            return self.direct(user).await;
        }
        let id = id("to", to.strip_prefix("channel:").unwrap_or(to))?;
        // A person's, as was found out before.
        let known = self.direct.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(known.get(id).cloned().unwrap_or_else(|| id.to_owned()))
    }

    /// The conversation with a person. Nothing is sent by this.
    async fn direct(&self, user: &str) -> Result<String, Failed> {
        let user = id("to", user)?;
        let known = || self.direct.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = known().get(user) {
            return Ok(id.clone());
        }
        let body = Content::Json(json!({ "recipient_id": user }));
        let opened = self.ask(Method::POST, &["users", "@me", "channels"], body).await;
        let opened = opened.map_err(|failed| match failed.fate {
            Fate::Unknown => Failed { fate: Fate::Unsent, ..failed },
            _ => failed,
        })?;
        let channel: Value = serde_json::from_slice(&opened.body).unwrap_or_default();
        let id = at(&channel, "id").as_str().map(str::to_owned).ok_or_else(|| {
            let error = CoreError::new(Code::Network, "Discord named no conversation with this person");
            Failed::new(Fate::Unsent, error)
        })?;
        let mut known = known();
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(user.to_owned(), id.clone());
        Ok(id)
    }

    async fn send(&self, call: &Call) -> Result<Done, Failed> {
        let Call::Send { message, part, index, key } = call else { return Ok(Done::default()) };
        let mut body = Map::new();
        if !part.text.is_empty() {
            body.insert("content".into(), part.text.clone().into());
        }
        // What a model writes must not call everybody.
        body.insert("allowed_mentions".into(), json!({ "parse": ["users"], "replied_user": true }));
        if message.silent {
            // SUPPRESS_NOTIFICATIONS
            body.insert("flags".into(), (1 << 12).into());
        }
        if *index == 0 {
            for name in ["components", "embeds"] {
                if let Some(value) = message.extra.as_ref().and_then(|extra| extra.get(name)) {
                    body.insert(name.into(), value.clone());
                }
            }
        }
        let files = message.files.get(part.files.clone()).unwrap_or_default();
        let content = |body: Map<String, Value>| match files {
            [] => Content::Json(Value::Object(body)),
            files => Content::Files(Value::Object(body), files),
        };
        let made = |reply: &Reply| {
            let sent: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
            let message_ids = at(&sent, "id").as_str().map(str::to_owned).into_iter().collect();
            Done { message_ids, pause: pause(reply) }
        };
        if let Some(reply) = &message.reply_to_id
            && let Some((application, token)) = self.follow_up(reply).await
        {
            let path = ["webhooks", application.as_str(), token.as_str()];
            match self.ask(Method::POST, &path, content(body.clone())).await {
                // The token is void: the channel is still there.
                Err(failed) if matches!(failed.error.details().status, Some(401 | 404)) => self.spent(reply),
                outcome => return outcome.map(|reply| made(&reply)),
            }
        }
        // A thread is a channel.
        let channel = self.channel(message.thread_id.as_deref().unwrap_or(&message.to)).await?;
        // Discord knows it again for some minutes, no longer: it helps, and nothing relies on it.
        let nonce: String = key.chars().take(25).collect();
        body.insert("nonce".into(), nonce.into());
        body.insert("enforce_nonce".into(), true.into());
        if let Some(reply) = message.reply_to_id.as_ref().filter(|_| *index == 0) {
            let reference = json!({ "message_id": reply, "fail_if_not_exists": false });
            body.insert("message_reference".into(), reference);
        }
        let reply = self.ask(Method::POST, &["channels", &channel, "messages"], content(body)).await?;
        Ok(made(&reply))
    }

    /// Makes a call, once.
    async fn once(&self, call: &Call) -> Result<Done, Failed> {
        let reply = match call {
            Call::Send { .. } => return self.send(call).await,
            Call::Edit { to, message_id, text } => {
                if Unit::Chars.width(text) > TEXT {
                    let message = format!("a message has at most {TEXT} characters, also after an edit");
                    return Err(Failed::new(Fate::Refused, CoreError::new(Code::ChannelSend, message)));
                }
                let channel = self.channel(to).await?;
                let body = json!({ "content": text, "allowed_mentions": { "parse": ["users"] } });
                let path = ["channels", &channel, "messages", id("messageId", message_id)?];
                Some(self.ask(Method::PATCH, &path, Content::Json(body)).await?)
            }
            Call::React { to, message_id, emoji } => {
                self.react(to, id("messageId", message_id)?, emoji).await?
            }
            Call::Typing { to, thread_id } => {
                let channel = self.channel(thread_id.as_deref().unwrap_or(to)).await?;
                Some(self.ask(Method::POST, &["channels", &channel, "typing"], Content::None).await?)
            }
        };
        Ok(Done { message_ids: Vec::new(), pause: reply.as_ref().and_then(pause) })
    }

    async fn react(&self, to: &str, message: &str, emoji: &str) -> Result<Option<Reply>, Failed> {
        let channel = self.channel(to).await?;
        // A custom one, as it stands in a text: `<:name:id>`, or `<a:name:id>`.
        let emoji = emoji.trim_start_matches("<a:").trim_start_matches("<:").trim_end_matches('>');
        if !emoji.is_empty() {
            let path = ["channels", &channel, "messages", message, "reactions", emoji, "@me"];
            return self.ask(Method::PUT, &path, Content::None).await.map(Some);
        }
        let reply =
            self.ask(Method::GET, &["channels", &channel, "messages", message], Content::None).await?;
        let known: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let mut last = None;
        for reaction in at(&known, "reactions").as_array().into_iter().flatten() {
            let name = at(at(reaction, "emoji"), "name").as_str().unwrap_or_default();
            if at(reaction, "me") == true && !name.is_empty() {
                let name = match at(at(reaction, "emoji"), "id").as_str() {
                    Some(id) => format!("{name}:{id}"),
                    None => name.to_owned(),
                };
                let path = ["channels", &channel, "messages", message, "reactions", &name, "@me"];
                last = Some(self.ask(Method::DELETE, &path, Content::None).await?);
            }
        }
        Ok(last)
    }
}

/// An id, which is a number.
fn id<'t>(field: &str, text: &'t str) -> Result<&'t str, Failed> {
    if !text.is_empty() && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(text);
    }
    let message = match field {
        "to" => {
            "`to` must be the id of a channel or of a person: a number, or `channel:` or `user:` and a number"
                .into()
        }
        field => format!("`{field}` must be an id of Discord's, which is a number"),
    };
    Err(Failed::new(Fate::Refused, CoreError::new(Code::Validation, message)))
}

/// What to do, by Discord's code: <https://docs.discord.com/developers/topics/opcodes-and-status-codes#json>.
fn hint(code: u64) -> &'static str {
    match code {
        40_005 => ". A file is larger than this server allows",
        50_001 | 50_013 => ". Give the bot the permission in this channel",
        50_007 => ". The person takes no direct messages from the bot, or shares no server with it",
        _ => "",
    }
}

/// Just text, so that nothing of it is read as Markdown. Words with a link are left alone.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for word in text.split_inclusive(char::is_whitespace) {
        let begins = out.is_empty() || out.ends_with('\n');
        if word.contains("://") {
            out.push_str(word);
            continue;
        }
        for (at, character) in word.char_indices() {
            let line = begins && at == 0 && matches!(character, '#' | '>' | '-');
            if line || matches!(character, '\\' | '*' | '_' | '~' | '`' | '|' | '[' | '<') {
                out.push('\\');
            }
            out.push(character);
        }
    }
    out
}

fn header(reply: &Reply, name: &str) -> Option<f64> {
    reply.headers.get(name)?.to_str().ok()?.parse().ok()
}

/// <https://docs.discord.com/developers/topics/rate-limits#header-format>
fn pause(reply: &Reply) -> Option<(Scope, Duration)> {
    if header(reply, "x-ratelimit-remaining")? >= 1.0 {
        return None;
    }
    let wait = Duration::try_from_secs_f64(header(reply, "x-ratelimit-reset-after")?).ok()?;
    Some((Scope::Chat, wait))
}

impl Platform for Discord {
    fn id(&self) -> &'static str {
        "discord"
    }

    /// <https://docs.discord.com/developers/topics/rate-limits#global-rate-limit>; the others Discord names in each answer.
    fn limits(&self) -> Limits {
        let rate = |count, seconds| vec![Rate { count, per: Duration::from_secs(seconds) }];
        Limits { bot: rate(50, 1), chat: rate(5, 5), group: None, at_once: 4 }
    }

    fn identity(&self) -> Option<Secret> {
        Some(self.token.clone())
    }

    fn run<'a>(&'a self, link: &'a Link) -> Boxed<'a, Result<()>> {
        Box::pin(gateway::run(self, link))
    }

    fn render(&self, message: &OutboundMessage) -> Result<Vec<Part>> {
        let render = |text: &str| match message.format {
            Format::Markdown => text.to_owned(),
            Format::Plain => escape(text),
        };
        let texts = split_rendered(message.text.trim(), TEXT, Unit::Utf16, Mode::Length, &render);
        let mut parts: Vec<Part> = texts
            .into_iter()
            .filter(|(source, _)| !source.trim().is_empty())
            .map(|(source, text)| Part { source, text, files: 0..0 })
            .collect();
        let mut from = 0;
        while from < message.files.len() {
            let to = message.files.len().min(from + FILES);
            match parts.last_mut().filter(|part| part.files.is_empty()) {
                Some(part) => part.files = from..to,
                None => parts.push(Part { files: from..to, ..Part::default() }),
            }
            from = to;
        }
        let more = message
            .extra
            .as_ref()
            .is_some_and(|extra| extra.contains_key("components") || extra.contains_key("embeds"));
        if parts.is_empty() && more {
            parts.push(Part::default());
        }
        if parts.is_empty() {
            return Err(CoreError::new(Code::Validation, "the message has neither text nor attachments"));
        }
        Ok(parts)
    }

    fn call<'a>(&'a self, call: &'a Call) -> Boxed<'a, Result<Done, Failed>> {
        Box::pin(async move {
            let failed = match self.once(call).await {
                Err(failed) if failed.error.message().ends_with(": Unknown Channel") => failed,
                outcome => return outcome,
            };
            // People's ids look like channels'.
            let thread = match call {
                Call::Send { message, .. } => &message.thread_id,
                Call::Typing { thread_id, .. } => thread_id,
                _ => &None,
            };
            if thread.is_some() || !call.to().bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(failed);
            }
            match self.direct(call.to()).await {
                Ok(_) => self.once(call).await,
                Err(other) if other.fate == Fate::Refused => Err(failed),
                Err(other) => Err(other),
            }
        })
    }

    fn download<'a>(&'a self, attachment: &'a Attachment, most: usize) -> Boxed<'a, Result<Bytes>> {
        Box::pin(async move {
            let url = Url::parse(&attachment.handle).ok();
            // Discord's own files, or those of the server that stands in for it; nothing else is fetched.
            let own = |url: &Url| {
                let host = url.host_str().unwrap_or_default();
                url.scheme() == "https" && FILE_HOSTS.contains(&host)
                    || url.origin() == self.base.origin() && self.base.host_str() != Some("discord.com")
            };
            let url = url.filter(own).ok_or_else(|| {
                CoreError::new(Code::Validation, "an attachment that is not on Discord's own server")
            })?;
            let request =
                HttpRequest { method: Method::GET, url, headers: HeaderMap::new(), body: Vec::new() };
            let reply = wire::ask(&*self.wire, request, UPLOAD, most).await.map_err(|failed| failed.error)?;
            if reply.status != 200 {
                let message = format!("Discord answered with {} when asked for a file", reply.status);
                return Err(CoreError::new(Code::Network, message).with_status(reply.status));
            }
            Ok(reply.body.into())
        })
    }
}

/// A member of an object, or null.
fn at<'a>(value: &'a Value, name: &str) -> &'a Value {
    value.get(name).unwrap_or(&Value::Null)
}

#[cfg(test)]
mod tests;
