//! Telegram, by its Bot API: <https://core.telegram.org/bots/api>.
//!
//! Updates come by long polling, or to a webhook. The offset that confirms them moves on, and the webhook answers, only once
//! they are on the disk. There is one poll at a time: a second one ends the first with 409. A webhook's calls are believed if
//! they have the secret that `setWebhook` was given. Texts go out as the Bot API's HTML.

pub(super) mod html;
mod inbound;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use reqwest::header::HeaderMap;
use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_util::bytes::Bytes;

use self::inbound::{Me, Updates};
use super::backoff::Backoff;
use super::chunk::{Mode, Unit, split_rendered};
use super::message::{Attachment, Format, OutboundFile, OutboundMessage, Part};
use super::platform::{Call, Done, Failed, Fate, Limits, Link, Platform, Rate, Scope, Settings, Webhook};
use super::webhook::{Called, Gate, Listener};
use super::wire::{self, Form, HttpRequest, Wire};
use super::{Boxed, Surroundings, sniff};
use crate::secrets::Secret;
use crate::{Code, CoreError, Result};

/// Where the Bot API is.
const BASE_URL: &str = "https://api.telegram.org";
/// Of a text, after its entities were parsed; counted here before that, which is never less.
const TEXT: usize = 4096;
/// Of a caption.
const CAPTION: usize = 1024;
/// Items of an album.
const ALBUM: usize = 10;
/// Seconds that a poll may take.
const POLL_SECONDS: u64 = 30;
/// Where messages come more often, several share a poll and a write to the disk. Telegram's own servers take longer than
/// that to answer; one of one's own does not.
const POLLS_APART: Duration = Duration::from_millis(4);
/// For the way there and back, and a busy server.
const SLACK: Duration = Duration::from_secs(15);
/// Any other call.
const CALL: Duration = Duration::from_secs(30);
/// A call with files.
const UPLOAD: Duration = Duration::from_mins(5);
/// The most bytes of an answer: a hundred updates.
const ANSWER: usize = 32 << 20;
/// Between looks at what Telegram says of the webhook.
const CHECK: Duration = Duration::from_mins(1);
/// Calls of the webhook that are written to the disk together.
const BATCH: usize = 64;

/// Kinds of updates that are received. Reactions come only if asked for, and only to administrators of a group.
const UPDATES: [&str; 6] = [
    "message",
    "edited_message",
    "channel_post",
    "edited_channel_post",
    "callback_query",
    "message_reaction",
];

/// A bot.
pub struct Telegram {
    token: Secret,
    base: String,
    wire: std::sync::Arc<dyn Wire>,
    surroundings: std::sync::Arc<dyn Surroundings>,
    poll_seconds: u64,
    paid: bool,
    hook: Option<Hook>,
    me: OnceCell<Me>,
}

/// Where Telegram calls us.
struct Hook {
    port: Webhook,
    /// As Telegram sees it.
    url: String,
}

/// <https://core.telegram.org/bots/api#webhookinfo>
#[derive(Deserialize)]
struct Info {
    url: String,
    /// Seconds since 1970; 0 for none.
    #[serde(default)]
    last_error_date: u64,
    #[serde(default)]
    last_error_message: String,
}

/// Buttons that are answered meanwhile: whoever pressed one sees a clock until then.
type Answers<'a> = FuturesUnordered<Boxed<'a, ()>>;

/// `token`, `baseUrl` (a local Bot API server), `paidBroadcast`, and either `pollSeconds` (1 to 50, 30 by default), or
/// `webhook` with `webhookUrl`, the https URL at which Telegram reaches it.
pub fn open(settings: Settings) -> Result<Box<dyn Platform>> {
    let token = settings.secret("token")?;
    let text = token.expose_str()?;
    let plain = text.split_once(':').is_some_and(|(id, rest)| {
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()) && !rest.is_empty() && rest.chars().all(word)
    });
    if !plain {
        let message = "`token` must be a bot's token as @BotFather gives it: digits, a colon, and more";
        return Err(CoreError::new(Code::Validation, message));
    }
    let base = settings.base_url.unwrap_or_else(|| BASE_URL.into());
    let url = Url::parse(&base).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    if url.is_none_or(|url| url.query().is_some() || url.fragment().is_some()) {
        return Err(CoreError::new(
            Code::Validation,
            "`baseUrl` must be an http or https URL without a query",
        ));
    }
    let hook = hook(settings.webhook, settings.options.get("webhookUrl"), base != BASE_URL)?;
    let poll_seconds = match settings.options.get("pollSeconds") {
        None => POLL_SECONDS,
        Some(value) => value.as_u64().filter(|seconds| (1..=50).contains(seconds)).ok_or_else(|| {
            CoreError::new(Code::Validation, "`pollSeconds` must be a whole number from 1 to 50")
        })?,
    };
    let paid = match settings.options.get("paidBroadcast") {
        None => false,
        Some(value) => value
            .as_bool()
            .ok_or_else(|| CoreError::new(Code::Validation, "`paidBroadcast` must be true or false"))?,
    };
    Ok(Box::new(Telegram {
        token,
        base: base.trim_end_matches('/').to_owned(),
        wire: settings.wire,
        surroundings: settings.surroundings,
        poll_seconds,
        paid,
        hook,
        me: OnceCell::new(),
    }))
}

/// <https://core.telegram.org/bots/api#setwebhook>; a local Bot API server calls http URLs, too.
fn hook(port: Option<Webhook>, url: Option<&Value>, local: bool) -> Result<Option<Hook>> {
    let wrong = |message: &str| Err(CoreError::new(Code::Validation, message));
    let Some(port) = port else {
        return match url {
            None => Ok(None),
            Some(_) => wrong("`webhookUrl` needs `webhook`: { port, secret }, where its calls come out"),
        };
    };
    let secret = port.secret.expose();
    let word = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if !(1..=256).contains(&secret.len()) || !secret.iter().all(word) {
        return wrong("`webhook.secret` must be 1 to 256 of A-Z, a-z, 0-9, _ and -: make one up, at random");
    }
    let parsed = url.and_then(Value::as_str).and_then(|url| Some((url, Url::parse(url).ok()?)));
    let good = |url: &Url| {
        (url.scheme() == "https" || (local && url.scheme() == "http"))
            && url.username().is_empty()
            && url.password().is_none()
            && url.fragment().is_none()
    };
    match parsed.filter(|(_, url)| good(url)) {
        Some((url, _)) => Ok(Some(Hook { port, url: url.to_owned() })),
        None => wrong(
            "`webhookUrl` must be the https URL at which Telegram reaches the webhook, without a name, \
                       a password or a #",
        ),
    }
}

/// What the Bot API answers: <https://core.telegram.org/bots/api#making-requests>.
#[derive(Deserialize)]
struct Answer<'a> {
    ok: bool,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error_code: u16,
    #[serde(default)]
    description: String,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Default, Deserialize)]
struct Parameters {
    retry_after: Option<u64>,
    migrate_to_chat_id: Option<i64>,
}

/// A call that the Bot API refused.
struct Refusal {
    failed: Failed,
    /// The group has become a supergroup with this id.
    moved_to: Option<i64>,
}

impl From<Failed> for Refusal {
    fn from(failed: Failed) -> Self {
        Self { failed, moved_to: None }
    }
}

impl Telegram {
    /// Calls a method, and gives its result as JSON.
    async fn ask(&self, method: &str, body: Content<'_>, limit: Duration) -> Result<String, Refusal> {
        let request = self.request(method, body).map_err(|error| Failed::new(Fate::Refused, error))?;
        let reply = wire::ask(&*self.wire, request, limit, ANSWER).await?;
        let unreadable = || {
            if reply.status == 429 {
                // Of a server before Telegram's.
                return Refusal::from(Failed::rate_limited(method, Duration::from_secs(1), Scope::Bot));
            }
            let message =
                format!("{method}: the Bot API answered with {} and no JSON of its own", reply.status);
            let fate = if reply.status < 500 && reply.status >= 400 { Fate::Refused } else { Fate::Unknown };
            Refusal::from(Failed::new(fate, CoreError::new(Code::Network, message).with_status(reply.status)))
        };
        let text = std::str::from_utf8(&reply.body).map_err(|_| unreadable())?;
        let answer: Answer<'_> = serde_json::from_str(text).map_err(|_| unreadable())?;
        if answer.ok {
            return Ok(answer.result.map_or("null", RawValue::get).to_owned());
        }
        let status = if answer.error_code == 0 { reply.status } else { answer.error_code };
        let said = |code| {
            let message = format!("{method}: Telegram says: {}", answer.description);
            CoreError::new(code, message).with_status(status)
        };
        let failed = match status {
            429 => {
                let wait = Duration::from_secs(answer.parameters.retry_after.unwrap_or(1));
                // It does not say whether it means the chat, the group or the bot, all of which have limits.
                Failed::rate_limited(method, wait, Scope::Unsaid)
            }
            401 | 404 => Failed::new(Fate::Refused, said(Code::ChannelAuth)),
            409 => Failed::new(Fate::Refused, said(Code::ChannelConflict)),
            500.. => Failed::new(Fate::Unknown, said(Code::Network)),
            _ => Failed::new(Fate::Refused, said(Code::ChannelSend)),
        };
        Err(Refusal { failed, moved_to: answer.parameters.migrate_to_chat_id })
    }

    fn request(&self, method: &str, body: Content<'_>) -> Result<HttpRequest> {
        let url = format!("{}/bot{}/{method}", self.base, self.token.expose_str()?);
        // The URL holds the token: no error says more of it.
        let url = Url::parse(&url)
            .map_err(|_| CoreError::new(Code::Validation, "`baseUrl` is no base of a URL"))?;
        Ok(match body {
            Content::Json(value) => wire::json(Method::POST, url, HeaderMap::new(), &value),
            Content::Form(fields, files) => {
                let mut form = Form::new()?;
                for (name, value) in fields {
                    let text = match &value {
                        Value::String(text) => text.clone(),
                        other => other.to_string(),
                    };
                    form.text(&name, &text);
                }
                for (field, file) in files {
                    form.file(&field, &file.name, &sniff::mime(file), &file.data);
                }
                form.request(url)
            }
        })
    }

    async fn call_json(&self, method: &str, body: Value) -> Result<String, Failed> {
        self.ask(method, Content::Json(body), CALL).await.map_err(|refusal| refusal.failed)
    }

    /// Who the bot is.
    async fn me(&self) -> Result<&Me> {
        self.me
            .get_or_try_init(|| async {
                let me = self.call_json("getMe", json!({})).await.map_err(|failed| failed.error)?;
                Me::read(&me)
            })
            .await
    }

    /// Polls until the connection breaks.
    async fn poll(&self, link: &Link) -> Result<()> {
        let me = self.me().await?;
        // getUpdates does not work beside a webhook; without one, this does nothing.
        self.call_json("deleteWebhook", json!({})).await.map_err(|failed| failed.error)?;
        link.verified();
        let mut answers = Answers::new();
        let mut offset: Option<i64> = link.cursor().and_then(|cursor| cursor.parse().ok());
        loop {
            let polled = Instant::now();
            let mut body = json!({ "timeout": self.poll_seconds, "limit": 100, "allowed_updates": UPDATES });
            if let (Some(offset), Some(body)) = (offset, body.as_object_mut()) {
                body.insert("offset".into(), offset.into());
            }
            let limit = Duration::from_secs(self.poll_seconds) + SLACK;
            let asked = self.ask("getUpdates", Content::Json(body), limit);
            let updates =
                beside(&mut answers, asked).await.map_err(|refusal| match refusal.failed.error.code() {
                    Code::ChannelConflict => conflict(&refusal.failed.error),
                    _ => refusal.failed.error,
                })?;
            let read = inbound::read(&updates, me)?;
            if let Some(last) = read.last {
                let next = last.saturating_add(1);
                link.receive(read.messages, Some(next.to_string())).await?;
                offset = Some(next);
            } else if read.empty {
                link.verified();
            } else {
                let message = "getUpdates: Telegram gave updates without ids";
                return Err(CoreError::new(Code::Network, message));
            }
            answers.extend(read.callbacks.into_iter().map(|id| self.answer(id)));
            tokio::time::sleep_until(polled + POLLS_APART).await;
        }
    }

    fn answer(&self, id: String) -> Boxed<'_, ()> {
        Box::pin(async move {
            let body = json!({ "callback_query_id": id });
            if let Err(failed) = self.call_json("answerCallbackQuery", body).await {
                tracing::debug!(error = %failed.error, "a pressed button was not answered");
            }
        })
    }

    /// Listens until the port fails.
    async fn listen(&self, link: &Link, hook: &Hook) -> Result<()> {
        let me = self.me().await?;
        let at = SocketAddr::new(hook.port.host, hook.port.port);
        let mut port = self.wire.listen(at, gate(&hook.port)).await?;
        let body = json!({
            "url": hook.url, "secret_token": hook.port.secret.expose_str()?, "allowed_updates": UPDATES,
        });
        self.call_json("setWebhook", body).await.map_err(|failed| failed.error)?;
        link.verified();
        let mut answers = Answers::new();
        let mut backoff = Backoff::new(Duration::from_secs(1), CHECK);
        let mut checking = self.info_after(Duration::ZERO);
        let mut last_error = None;
        loop {
            tokio::select! {
                call = port.next() => {
                    let lost = || CoreError::new(Code::Network, "the webhook's port has failed");
                    let pressed = self.take_in(link, hook, me, call.ok_or_else(lost)?, &mut *port).await?;
                    answers.extend(pressed.into_iter().map(|id| self.answer(id)));
                }
                Some(()) = answers.next() => {}
                info = &mut checking => {
                    let wait = match info {
                        Ok(info) if info.url != hook.url => {
                            let message = "another program has set this bot's webhook elsewhere, or removed it: end that \
                                           program, or revoke the token with @BotFather";
                            return Err(CoreError::new(Code::ChannelConflict, message));
                        }
                        Ok(info) => {
                            link.verified();
                            let known = last_error.replace(info.last_error_date);
                            let fails = known.is_some_and(|known| known < info.last_error_date);
                            link.notice(if fails {
                                format!("Telegram does not reach the webhook: {}", info.last_error_message)
                            } else {
                                String::new()
                            });
                            backoff.reset();
                            CHECK
                        }
                        Err(error) if error.code() == Code::ChannelAuth => return Err(error),
                        Err(error) => {
                            tracing::warn!(%error, "the Bot API does not answer; the webhook stands");
                            let random = backoff.next(self.surroundings.chance());
                            error.details().retry_after_ms.map_or(random, Duration::from_millis)
                        }
                    };
                    checking = self.info_after(wait);
                }
            }
        }
    }

    /// What Telegram says of the webhook, after a while.
    fn info_after(&self, wait: Duration) -> Boxed<'_, Result<Info>> {
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            let info = self.call_json("getWebhookInfo", json!({})).await.map_err(|failed| failed.error)?;
            serde_json::from_str(&info).map_err(|_| {
                CoreError::new(Code::Network, "getWebhookInfo: Telegram did not say where the webhook is")
            })
        })
    }

    /// Answers a call, and what else has come by now, once their messages are on the disk. Gives the buttons that were
    /// pressed.
    async fn take_in(
        &self,
        link: &Link,
        hook: &Hook,
        me: &Me,
        first: Called,
        port: &mut dyn Listener,
    ) -> Result<Vec<String>> {
        let mut read = Updates::default();
        let mut good = Vec::new();
        let mut next = Some(first);
        while let Some(call) = next {
            if let Some(call) = examine(call, &hook.port) {
                let body = std::str::from_utf8(&call.body).ok();
                if let Some(update) = body.and_then(|body| serde_json::from_str(body).ok()) {
                    inbound::read_one(update, me, &mut read);
                } else {
                    // It would come for ever.
                    tracing::warn!("a call of the webhook was no update, and is passed over");
                }
                good.push(call);
            }
            next = if good.len() < BATCH { port.next().now_or_never().flatten() } else { None };
        }
        if good.is_empty() {
            return Ok(Vec::new());
        }
        let spooled = link.receive(read.messages, None).await;
        // Who is told anything else than 200 comes again.
        let status = if spooled.is_ok() { 200 } else { 500 };
        for call in good {
            call.answer(status, "");
        }
        spooled.map(|()| read.callbacks)
    }

    async fn send(
        &self,
        message: &OutboundMessage,
        part: &Part,
        index: usize,
    ) -> Result<Vec<String>, Refusal> {
        let mut chat = chat_id(&message.to);
        let mut plain = message.format == Format::Plain;
        let mut moved = false;
        loop {
            let outcome = self.send_to(&chat, message, part, index, plain).await;
            let Err(refusal) = outcome else { return outcome };
            // Both were refused: nothing was sent.
            if let Some(id) = refusal.moved_to.filter(|_| !moved) {
                chat = id.into();
                moved = true;
            } else if !plain && refusal.failed.error.message().contains("can't parse entities") {
                plain = true;
            } else {
                return Err(refusal);
            }
        }
    }

    async fn send_to(
        &self,
        chat: &Value,
        message: &OutboundMessage,
        part: &Part,
        index: usize,
        plain: bool,
    ) -> Result<Vec<String>, Refusal> {
        let mut fields = Map::new();
        fields.insert("chat_id".into(), chat.clone());
        if let Some(thread) = message.thread_id.as_ref().and_then(|id| id.parse::<i64>().ok()) {
            fields.insert("message_thread_id".into(), thread.into());
        }
        if message.silent {
            fields.insert("disable_notification".into(), true.into());
        }
        if self.paid {
            fields.insert("allow_paid_broadcast".into(), true.into());
        }
        if index == 0 {
            if let Some(id) = message.reply_to_id.as_ref().and_then(|id| id.parse::<i64>().ok()) {
                let reply = json!({ "message_id": id, "allow_sending_without_reply": true });
                fields.insert("reply_parameters".into(), reply);
            }
            if let Some(markup) = message.extra.as_ref().and_then(|extra| extra.get("replyMarkup")) {
                fields.insert("reply_markup".into(), markup.clone());
            }
        }
        let text = if plain { part.source.as_str() } else { part.text.as_str() };
        let say = |fields: &mut Map<String, Value>, name: &str| {
            if !text.is_empty() {
                fields.insert(name.into(), text.into());
                if !plain {
                    fields.insert("parse_mode".into(), "HTML".into());
                }
            }
        };
        let files = message.files.get(part.files.clone()).unwrap_or_default();
        let (method, content) = match files {
            [] => {
                say(&mut fields, "text");
                ("sendMessage", Content::Json(fields.into()))
            }
            [file] => {
                say(&mut fields, "caption");
                let (kind, method) = kind(file);
                (method, Content::Form(fields, vec![(kind.into(), file)]))
            }
            files => {
                let mut album = Vec::new();
                for (at, file) in files.iter().enumerate() {
                    let mut item = Map::new();
                    item.insert("type".into(), kind(file).0.into());
                    item.insert("media".into(), format!("attach://file{at}").into());
                    if at == 0 {
                        say(&mut item, "caption");
                    }
                    album.push(Value::Object(item));
                }
                fields.insert("media".into(), album.into());
                // An album has no buttons.
                fields.remove("reply_markup");
                let files = files.iter().enumerate().map(|(at, file)| (format!("file{at}"), file)).collect();
                ("sendMediaGroup", Content::Form(fields, files))
            }
        };
        let limit = if files.is_empty() { CALL } else { UPLOAD };
        let result = self.ask(method, content, limit).await?;
        let ids = match serde_json::from_str::<Value>(&result) {
            Ok(Value::Array(sent)) => sent.iter().filter_map(message_id).collect(),
            Ok(sent) => message_id(&sent).into_iter().collect(),
            Err(_) => Vec::new(),
        };
        Ok(ids)
    }
}

/// Who calls is in the head.
fn gate(hook: &Webhook) -> Gate {
    let hook = hook.clone();
    Arc::new(move |method, path, headers| refusal(&hook, method, path, headers))
}

/// The status for a call that is not Telegram's.
fn refusal(hook: &Webhook, method: &Method, path: &str, headers: &HeaderMap) -> Option<u16> {
    if path != hook.path {
        return Some(404);
    }
    if *method != Method::POST {
        return Some(405);
    }
    let given = headers.get("x-telegram-bot-api-secret-token");
    if !given.is_some_and(|given| hook.secret.is(given.as_bytes())) {
        tracing::warn!("a call of the webhook did not have its secret, and is refused");
        return Some(401);
    }
    None
}

/// A call of the webhook that is Telegram's; any other is answered.
fn examine(call: Called, hook: &Webhook) -> Option<Called> {
    match refusal(hook, &call.method, &call.path, &call.headers) {
        None => Some(call),
        Some(status) => {
            call.answer(status, "");
            None
        }
    }
}

/// `work`, while buttons are answered.
async fn beside<T>(answers: &mut Answers<'_>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            Some(()) = answers.next() => {}
        }
    }
}

/// What goes with a request.
enum Content<'a> {
    Json(Value),
    Form(Map<String, Value>, Vec<(String, &'a OutboundFile)>),
}

fn conflict(said: &CoreError) -> CoreError {
    let message = format!(
        "{}. Another program, perhaps on another machine, polls with this bot's token: end it, or revoke the token with \
         @BotFather",
        said.message()
    );
    CoreError::new(Code::ChannelConflict, message).with_status(409)
}

fn message_id(sent: &Value) -> Option<String> {
    sent.get("message_id").and_then(Value::as_i64).map(|id| id.to_string())
}

/// A number, or the `@name` of a channel.
fn chat_id(to: &str) -> Value {
    to.parse::<i64>().map_or_else(|_| to.into(), Value::from)
}

/// What Telegram shows a file as: its field, and the method. Photos of more than 10 MB are files to it.
fn kind(file: &OutboundFile) -> (&'static str, &'static str) {
    let mime = sniff::mime(file);
    match mime.as_str() {
        "image/jpeg" | "image/png" | "image/webp" if file.data.len() <= 10_000_000 => ("photo", "sendPhoto"),
        "image/gif" => ("animation", "sendAnimation"),
        "video/mp4" => ("video", "sendVideo"),
        "audio/mpeg" | "audio/mp4" => ("audio", "sendAudio"),
        "audio/ogg" => ("voice", "sendVoice"),
        _ => ("document", "sendDocument"),
    }
}

impl Platform for Telegram {
    fn id(&self) -> &'static str {
        "telegram"
    }

    /// <https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this>, and for paid broadcasts
    /// <https://core.telegram.org/bots/api#sendmessage>.
    fn limits(&self) -> Limits {
        let rate = |count, seconds| vec![Rate { count, per: Duration::from_secs(seconds) }];
        let (bot, at_once) = if self.paid { (1000, 64) } else { (30, 4) };
        Limits {
            bot: rate(bot, 1),
            chat: rate(1, 1),
            group: Some((|chat| chat.starts_with('-') || chat.starts_with('@'), rate(20, 60))),
            at_once,
        }
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
                outcome = async {
                    match &self.hook {
                        Some(hook) => self.listen(link, hook).await,
                        None => self.poll(link).await,
                    }
                } => outcome,
            }
        })
    }

    fn render(&self, message: &OutboundMessage) -> Result<Vec<Part>> {
        let render = |text: &str| match message.format {
            Format::Markdown => html::render(text),
            Format::Plain => text.to_owned(),
        };
        let split = |limit| split_rendered(message.text.trim(), limit, Unit::Utf16, Mode::Length, &render);
        let mut parts = Vec::new();
        let mut caption = None;
        let short = |text: &str| text.len() <= 8 * CAPTION && Unit::Utf16.width(&render(text)) <= CAPTION;
        if message.files.is_empty() || !short(message.text.trim()) {
            let texts = split(TEXT).into_iter().filter(|(source, _)| !source.trim().is_empty());
            parts.extend(texts.map(|(source, text)| Part { text, source, files: 0..0 }));
        } else {
            caption = split(CAPTION).pop();
        }
        let mut from = 0;
        while from < message.files.len() {
            let to = from + album(message.files.get(from..).unwrap_or_default());
            let (source, text) = caption.take().unwrap_or_default();
            parts.push(Part { text, source, files: from..to });
            from = to;
        }
        if parts.is_empty() {
            return Err(CoreError::new(Code::Validation, "the message has neither text nor attachments"));
        }
        Ok(parts)
    }

    fn album(&self, message: &super::InboundMessage) -> Option<String> {
        inbound::album(message)
    }

    fn call<'a>(&'a self, call: &'a Call) -> Boxed<'a, Result<Done, Failed>> {
        Box::pin(async move {
            let (method, body) = match call {
                Call::Send { message, part, index, .. } => {
                    let sent = self.send(message, part, *index).await.map_err(|refusal| refusal.failed)?;
                    return Ok(Done { message_ids: sent, pause: None });
                }
                Call::Edit { to, message_id, text } => {
                    let rendered = if text.len() > 8 * TEXT { text.clone() } else { html::render(text) };
                    if Unit::Utf16.width(&rendered) > TEXT {
                        let message = format!("a message has at most {TEXT} characters, also after an edit");
                        return Err(Failed::new(Fate::Refused, CoreError::new(Code::ChannelSend, message)));
                    }
                    let body = json!({ "chat_id": chat_id(to), "message_id": chat_id(message_id), "text": rendered, "parse_mode": "HTML" });
                    ("editMessageText", body)
                }
                Call::React { to, message_id, emoji } => {
                    let reaction = if emoji.is_empty() {
                        json!([])
                    } else {
                        json!([{ "type": "emoji", "emoji": emoji }])
                    };
                    let body = json!({ "chat_id": chat_id(to), "message_id": chat_id(message_id), "reaction": reaction });
                    ("setMessageReaction", body)
                }
                Call::Typing { to, thread_id } => {
                    let mut body = json!({ "chat_id": chat_id(to), "action": "typing" });
                    let thread = thread_id.as_ref().and_then(|id| id.parse::<i64>().ok());
                    if let (Some(thread), Some(body)) = (thread, body.as_object_mut()) {
                        body.insert("message_thread_id".into(), thread.into());
                    }
                    ("sendChatAction", body)
                }
            };
            match self.call_json(method, body).await {
                // It says already what it should.
                Err(failed) if failed.error.message().contains("message is not modified") => {
                    Ok(Done::default())
                }
                Err(failed) => Err(failed),
                Ok(_) => Ok(Done::default()),
            }
        })
    }

    fn download<'a>(&'a self, attachment: &'a Attachment, most: usize) -> Boxed<'a, Result<Bytes>> {
        Box::pin(async move {
            let file = self.call_json("getFile", json!({ "file_id": attachment.handle })).await;
            let file: Value = serde_json::from_str(&file.map_err(|failed| failed.error)?).unwrap_or_default();
            let lost = || CoreError::new(Code::Network, "getFile: Telegram gave no path of the file");
            let path = file.get("file_path").and_then(Value::as_str).ok_or_else(lost)?;
            // It is part of a URL with the token in it.
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | '.');
            if path.contains("..") || !path.chars().all(plain) {
                return Err(lost());
            }
            let url = format!("{}/file/bot{}/{path}", self.base, self.token.expose_str()?);
            let url = Url::parse(&url).map_err(|_| lost())?;
            let request =
                HttpRequest { method: Method::GET, url, headers: HeaderMap::new(), body: Vec::new() };
            let reply = wire::ask(&*self.wire, request, UPLOAD, most).await.map_err(|failed| failed.error)?;
            if reply.status != 200 {
                let message = format!("Telegram answered with {} when asked for a file", reply.status);
                return Err(CoreError::new(Code::Network, message).with_status(reply.status));
            }
            Ok(reply.body.into())
        })
    }
}

/// How many files, from the first on, go out together: photos and videos are one kind, documents and audio each their own,
/// and anything else goes alone.
fn album(files: &[OutboundFile]) -> usize {
    let class = |file: &OutboundFile| match kind(file).0 {
        "photo" | "video" => Some("visual"),
        "document" => Some("document"),
        "audio" => Some("audio"),
        _ => None,
    };
    let Some(first) = files.first() else { return 1 };
    match class(first) {
        None => 1,
        wanted => files.iter().take(ALBUM).take_while(|file| class(file) == wanted).count(),
    }
}

#[cfg(test)]
mod tests;
