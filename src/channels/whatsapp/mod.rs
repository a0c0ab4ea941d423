//! WhatsApp, by the Business Cloud API: <https://developers.facebook.com/docs/whatsapp/cloud-api>.
//!
//! Meta calls a webhook. What it says is believed if it is signed with the app secret, and answered with 200 once it is on
//! the disk. Outside the 24 hours after somebody's last message only templates reach them; that Meta refuses anything else
//! may come as late as in a notification, so a message to somebody who has not written lately waits for its first one.

mod inbound;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio_util::bytes::Bytes;

use self::inbound::{Notification, Status};
use super::backoff::Backoff;
use super::chunk::{Mode, Unit, split_rendered};
use super::marks::{self, Dialect};
use super::message::{Attachment, Format, OutboundFile, OutboundMessage, Part};
use super::platform::{Call, Done, Failed, Fate, Limits, Link, Platform, Rate, Scope, Settings, Webhook};
use super::webhook::{Called, Gate, Listener};
use super::wire::{self, Form, HttpRequest, Wire};
use super::{Boxed, Surroundings, sniff};
use crate::secrets::Secret;
use crate::{Code, CoreError, Result};

/// Where the Graph API is.
const BASE_URL: &str = "https://graph.facebook.com";
/// Its version, unless the caller names another.
const VERSION: &str = "v23.0";
/// Of a text: <https://developers.facebook.com/docs/whatsapp/cloud-api/reference/messages#text-object>.
const TEXT: usize = 4096;
/// Of a caption.
const CAPTION: usize = 1024;
/// Any call.
const CALL: Duration = Duration::from_secs(30);
/// A call with a file.
const TRANSFER: Duration = Duration::from_mins(5);
/// The most bytes of an answer.
const ANSWER: usize = 1 << 20;
/// Between proofs that the token is still good.
const CHECK: Duration = Duration::from_mins(5);
/// How long after a person's last message anything goes: 24 hours, less a quarter for clocks that differ.
const WINDOW_MS: u64 = 85_500_000;
/// For the first notification of what became of a message.
const TOLD: Duration = Duration::from_secs(10);
/// Calls of the webhook that are written to the disk together.
const BATCH: usize = 64;
/// People whose last message is remembered; messages whose fate is, and those that were reported as accepted.
const PEOPLE: usize = 20_000;
const FATES: usize = 512;
const ACCEPTED: usize = 4096;
/// Meta gives a notification up after 7 days. A message that is older was not sent now: somebody repeats a signed call, and
/// the inbox, which knows the latest ids alone, need not know this one any more.
const STALE_MS: u64 = 8 * 86_400_000;
/// What [`OutboundMessage::extra`] may hold: a message of that type.
const KINDS: [&str; 4] = ["template", "interactive", "location", "contacts"];

const UNSIGNED: &str = "a call of the webhook was not signed with the app secret, and is refused";

/// What is not signed at all is refused unread.
fn gate(hook: &Webhook) -> Gate {
    let hook = hook.clone();
    Arc::new(move |method, path, headers| refusal(&hook, method, path, headers))
}

/// The status for a call that cannot be Meta's, by its head.
fn refusal(hook: &Webhook, method: &Method, path: &str, headers: &HeaderMap) -> Option<u16> {
    if path != hook.path {
        return Some(404);
    }
    match *method {
        Method::GET => None,
        Method::POST if signature(headers).is_some() => None,
        Method::POST => {
            tracing::warn!("{UNSIGNED}");
            Some(401)
        }
        _ => Some(405),
    }
}

/// The signature that a call bears, whether it is right or not.
fn signature(headers: &HeaderMap) -> Option<Vec<u8>> {
    let digits = headers.get("x-hub-signature-256")?.to_str().ok()?.strip_prefix("sha256=")?;
    let signature = data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?;
    (signature.len() == ring::digest::SHA256_OUTPUT_LEN).then_some(signature)
}

/// A business number.
pub struct WhatsApp {
    token: Secret,
    verify_token: Secret,
    webhook: Webhook,
    phone_id: String,
    /// With the version.
    base: String,
    wire: Arc<dyn Wire>,
    surroundings: Arc<dyn Surroundings>,
    known: Mutex<Known>,
    told: Notify,
}

/// What notifications have said.
#[derive(Default)]
struct Known {
    /// Who wrote last when, in milliseconds since 1970, and which message.
    heard: HashMap<String, (u64, String)>,
    /// What became of the latest messages, by id.
    fates: VecDeque<(String, Option<GraphError>)>,
    /// The latest messages whose sender was told that they were accepted, by id.
    accepted: VecDeque<String>,
    /// Whether notifications come.
    listening: bool,
}

/// `token`, `verifyToken`, `phoneNumberId`, `webhook` (`secret` is the app secret), `apiVersion` and `baseUrl`.
pub fn open(settings: Settings) -> Result<Box<dyn Platform>> {
    let wrong = |message: &str| CoreError::new(Code::Validation, message);
    let token = settings.secret("token")?;
    if !token.expose_str()?.bytes().all(|b| b.is_ascii_graphic()) || token.is_empty() {
        return Err(wrong("`token` must be an access token of a system user: letters and digits"));
    }
    let verify_token = settings.secret("verifyToken")?;
    if verify_token.is_empty() {
        return Err(wrong("`verifyToken` must be the word that the app's webhook page has, too"));
    }
    let text = |name: &str| match settings.options.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(wrong(&format!("`{name}` must be a string"))),
    };
    let phone_id =
        text("phoneNumberId")?.filter(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()));
    let phone_id = phone_id.ok_or_else(|| {
        wrong("`phoneNumberId` must be the number's id, in digits, as the app's page API Setup shows it; not the number")
    })?;
    let version = text("apiVersion")?.unwrap_or_else(|| VERSION.into());
    if !version.strip_prefix('v').is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit() || b == b'.')) {
        return Err(wrong("`apiVersion` must be a version of the Graph API, such as v23.0"));
    }
    let base = settings.base_url.unwrap_or_else(|| BASE_URL.into());
    let url = Url::parse(&base).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    if url.is_none_or(|url| url.query().is_some() || url.fragment().is_some()) {
        return Err(wrong("`baseUrl` must be an http or https URL without a query"));
    }
    let webhook = settings.webhook.ok_or_else(|| {
        wrong("`webhook` must be { port, secret }: Meta calls it, and `secret` is the app secret that it signs with")
    })?;
    if webhook.secret.is_empty() {
        return Err(wrong(
            "`webhook.secret` is empty: it is the app secret, and whoever knew none could sign",
        ));
    }
    Ok(Box::new(WhatsApp {
        token,
        verify_token,
        webhook,
        phone_id,
        base: format!("{}/{version}", base.trim_end_matches('/')),
        wire: settings.wire,
        surroundings: settings.surroundings,
        known: Mutex::default(),
        told: Notify::new(),
    }))
}

/// <https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes>.
#[derive(Clone, Debug, Default, Deserialize)]
struct GraphError {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    message: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    error_data: ErrorData,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct ErrorData {
    #[serde(default)]
    details: String,
}

impl GraphError {
    fn failed(&self, what: &str, status: u16, headers: &HeaderMap) -> Failed {
        let seconds =
            headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
        let wait = |default: u64| Duration::from_secs(seconds.unwrap_or(default).clamp(1, 3600));
        match self.code {
            // To this person; to anybody; of the app and of the account.
            131_056 => return Failed::rate_limited(what, wait(7), Scope::Chat),
            130_429 => return Failed::rate_limited(what, wait(1), Scope::Bot),
            4 | 80_007 => return Failed::rate_limited(what, wait(60), Scope::Bot),
            _ if status == 429 => return Failed::rate_limited(what, wait(5), Scope::Bot),
            _ => {}
        }
        let said = if self.message.is_empty() { &self.title } else { &self.message };
        let details = &self.error_data.details;
        let more = if details.is_empty() { String::new() } else { format!(": {details}") };
        let (code, fate, hint) = match self.code {
            131_047 => (
                Code::ChannelSend,
                Fate::Refused,
                ". It is error 131047: this person last wrote more than 24 hours ago. Send an approved template \
                 (`extra.template`), and anything else once they have answered",
            ),
            // A notification of a failure that names no reason.
            0 if said.is_empty() => (Code::ChannelSend, Fate::Refused, "nothing of why"),
            0 | 3 | 10 | 190 | 200..=299 if status != 500 => (
                Code::ChannelAuth,
                Fate::Refused,
                ". Make a new token of the system user, with whatsapp_business_messaging and \
                 whatsapp_business_management",
            ),
            1 | 2 | 131_000 | 131_016 => (Code::Network, Fate::Unknown, ""),
            _ if status >= 500 => (Code::Network, Fate::Unknown, ""),
            132_000..=132_999 => (Code::ChannelSend, Fate::Refused, ". See the template in WhatsApp Manager"),
            131_030 => (
                Code::ChannelSend,
                Fate::Refused,
                ". A test number writes to those alone whom the app's page API Setup lists",
            ),
            _ => (Code::ChannelSend, Fate::Refused, ""),
        };
        let error = CoreError::new(code, format!("{what}: WhatsApp says: {said}{more}{hint}"));
        Failed::new(fate, error.with_status(status))
    }
}

impl WhatsApp {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn authorized(&self) -> Result<HeaderMap> {
        let value = HeaderValue::from_str(&format!("Bearer {}", self.token.expose_str()?));
        let mut value =
            value.map_err(|_| CoreError::new(Code::Validation, "`token` is no header's value"))?;
        value.set_sensitive(true);
        Ok(HeaderMap::from_iter([(AUTHORIZATION, value)]))
    }

    fn url(&self, path: &str) -> Result<Url> {
        Url::parse(&format!("{}/{path}", self.base))
            .map_err(|_| CoreError::new(Code::Validation, "`baseUrl` is no base of a URL"))
    }

    /// Makes a request, and gives the answer's JSON.
    async fn ask(&self, what: &str, request: Result<HttpRequest>, limit: Duration) -> Result<Value, Failed> {
        let refused = |error| Failed::new(Fate::Refused, error);
        let mut request = request.map_err(refused)?;
        request.headers.extend(self.authorized().map_err(refused)?);
        let reply = wire::ask(&*self.wire, request, limit, ANSWER).await?;
        let value = serde_json::from_slice::<Value>(&reply.body).ok();
        if let (200..=299, Some(value)) = (reply.status, &value) {
            return Ok(value.clone());
        }
        let error = value.as_ref().and_then(|value| GraphError::deserialize(value.get("error")?).ok());
        Err(match error {
            Some(error) => error.failed(what, reply.status, &reply.headers),
            None if reply.status == 429 => GraphError::default().failed(what, 429, &reply.headers),
            None => {
                let message =
                    format!("{what}: WhatsApp answered with {} and no JSON of its own", reply.status);
                let fate = if (400..500).contains(&reply.status) { Fate::Refused } else { Fate::Unknown };
                Failed::new(fate, CoreError::new(Code::Network, message).with_status(reply.status))
            }
        })
    }

    /// Sends to the number's messages: a message, that one was read, a sign of typing.
    async fn post(&self, mut body: Map<String, Value>) -> Result<Value, Failed> {
        body.insert("messaging_product".into(), "whatsapp".into());
        let url = self.url(&format!("{}/messages", self.phone_id));
        let request = url.map(|url| wire::json(Method::POST, url, HeaderMap::new(), &Value::Object(body)));
        self.ask("a message", request, CALL).await
    }

    /// Whether the token is good for this number.
    async fn check(&self) -> Result<()> {
        let request = self.url(&self.phone_id).map(get);
        self.ask("the number", request, CALL).await.map(|_| ()).map_err(|failed| failed.error)
    }

    // ── coming in ─────────────────────────────────────────────────────────────────────────────────────────────────

    async fn listen(&self, link: &Link) -> Result<()> {
        let at = SocketAddr::new(self.webhook.host, self.webhook.port);
        let mut port = self.wire.listen(at, gate(&self.webhook)).await?;
        self.lock().listening = true;
        let outcome = self.serve(link, &mut *port).await;
        self.lock().listening = false;
        outcome
    }

    async fn serve(&self, link: &Link, port: &mut dyn Listener) -> Result<()> {
        let mut checking: Boxed<'_, Result<()>> = Box::pin(self.check());
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));
        loop {
            tokio::select! {
                biased;
                () = link.closing().cancelled() => return Ok(()),
                call = port.next() => {
                    let lost = || CoreError::new(Code::Network, "the webhook's port has failed");
                    self.take_in(link, call.ok_or_else(lost)?, port).await?;
                }
                checked = &mut checking => {
                    let wait = match checked {
                        Ok(()) => {
                            link.verified();
                            backoff.reset();
                            CHECK
                        }
                        Err(error) if error.code() == Code::ChannelAuth => return Err(error),
                        Err(error) => {
                            tracing::warn!(%error, "the Graph API does not answer; the webhook stands");
                            let random = backoff.next(self.surroundings.chance());
                            error.details().retry_after_ms.map_or(random, Duration::from_millis)
                        }
                    };
                    checking = Box::pin(async move {
                        tokio::time::sleep(wait).await;
                        self.check().await
                    });
                }
            }
        }
    }

    /// Answers a call, and what else has come by now, once their messages are on the disk.
    async fn take_in(&self, link: &Link, first: Called, port: &mut dyn Listener) -> Result<()> {
        let mut messages = Vec::new();
        let mut good = Vec::new();
        let mut next = Some(first);
        let mut calls = 0;
        while let Some(call) = next {
            calls += 1;
            if let Some((call, notification)) = self.examine(call) {
                if let Some(late) = self.learn(&notification.messages, notification.statuses) {
                    link.notice(late);
                }
                messages.extend(notification.messages);
                good.push(call);
            }
            next = if calls < BATCH { port.next().now_or_never().flatten() } else { None };
        }
        if good.is_empty() {
            return Ok(());
        }
        let spooled = link.receive(messages, None).await;
        // Who is told anything else than 200 comes again.
        let status = if spooled.is_ok() { 200 } else { 500 };
        for call in good {
            call.answer(status, "");
        }
        spooled
    }

    /// A call that is Meta's, with what it says; any other is answered.
    fn examine(&self, call: Called) -> Option<(Called, Notification)> {
        if let Some(status) = refusal(&self.webhook, &call.method, &call.path, &call.headers) {
            call.answer(status, "");
            return None;
        }
        if call.method == Method::GET {
            let challenge = self.challenge(&call.query);
            call.answer(if challenge.is_some() { 200 } else { 403 }, challenge.unwrap_or_default());
            return None;
        }
        if !self.is_signed(&call) {
            tracing::warn!("{UNSIGNED}");
            call.answer(401, "");
            return None;
        }
        let mut notification = inbound::read(&call.body, &self.phone_id);
        let oldest = i64::try_from(self.surroundings.now_ms().saturating_sub(STALE_MS)).unwrap_or(i64::MAX);
        notification.messages.retain(|message| {
            let fresh = message.timestamp_ms >= oldest;
            if !fresh {
                tracing::warn!(id = message.id, "a signed call of the webhook bears a message of more than 8 days: it is a repetition, and passed over");
            }
            fresh
        });
        Some((call, notification))
    }

    /// <https://developers.facebook.com/docs/graph-api/webhooks/getting-started#verification-requests>
    fn challenge(&self, query: &str) -> Option<String> {
        let pairs: HashMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).collect();
        let right = pairs.get("hub.mode").is_some_and(|mode| mode == "subscribe")
            && self.verify_token.is(pairs.get("hub.verify_token")?.as_bytes());
        let challenge = pairs.get("hub.challenge").filter(|_| right)?;
        let plain = challenge.len() <= 256
            && challenge.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        plain.then(|| challenge.to_string())
    }

    /// <https://developers.facebook.com/docs/graph-api/webhooks/getting-started#validate-payloads>: over the body as it
    /// came, in a time that tells nothing.
    fn is_signed(&self, call: &Called) -> bool {
        let Some(signature) = signature(&call.headers) else { return false };
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, self.webhook.secret.expose());
        ring::hmac::verify(&key, &call.body, &signature).is_ok()
    }

    /// Remembers who wrote, and what became of messages. Says what failed after its sender was told that it was accepted.
    fn learn(&self, messages: &[super::InboundMessage], statuses: Vec<Status>) -> Option<String> {
        let mut late = None;
        let mut known = self.lock();
        for message in messages {
            let at = u64::try_from(message.timestamp_ms).unwrap_or(0);
            if known.heard.len() >= PEOPLE {
                let now = self.surroundings.now_ms();
                known.heard.retain(|_, (at, _)| now.saturating_sub(*at) < WINDOW_MS);
                if known.heard.len() >= PEOPLE {
                    known.heard.clear();
                }
            }
            let last = known.heard.entry(message.chat.id.clone()).or_default();
            if at >= last.0 {
                *last = (at, message.message_id.clone());
            }
        }
        for Status { id, failed } in statuses {
            if let Some(error) = &failed {
                let error = error.failed("a message", 400, &HeaderMap::new()).error;
                tracing::warn!(id, %error, "WhatsApp has not delivered a message");
                if known.accepted.contains(&id) {
                    late = Some(format!("{id} was accepted, and then not delivered: {}", error.message()));
                }
            }
            known.fates.push_back((id, failed));
            while known.fates.len() > FATES {
                known.fates.pop_front();
            }
        }
        drop(known);
        self.told.notify_waiters();
        late
    }

    // ── going out ─────────────────────────────────────────────────────────────────────────────────────────────────

    async fn send(
        &self,
        message: &OutboundMessage,
        part: &Part,
        index: usize,
    ) -> Result<Vec<String>, Failed> {
        let mut body = addressed(&message.to);
        if let Some(id) = message.reply_to_id.as_ref().filter(|_| index == 0) {
            body.insert("context".into(), json!({ "message_id": id }));
        }
        let special = KINDS.iter().find_map(|kind| Some((*kind, message.extra.as_ref()?.get(*kind)?)));
        let files = message.files.get(part.files.clone()).unwrap_or_default();
        let (kind, content) = match (files, special.filter(|_| index == 0)) {
            ([file, ..], _) => self.media(file, &part.text).await.map_err(|failed| match failed.fate {
                // Nobody has seen anything.
                Fate::Unknown => Failed { fate: Fate::Unsent, ..failed },
                _ => failed,
            })?,
            ([], Some((kind, content))) => {
                let mut content = content.clone();
                if let (false, Some(content)) = (part.text.is_empty(), content.as_object_mut()) {
                    content.entry("body").or_insert_with(|| json!({ "text": part.text }));
                }
                (kind, content)
            }
            ([], None) => {
                let preview = message.extra.as_ref().and_then(|extra| extra.get("previewUrl")?.as_bool());
                ("text", json!({ "body": part.text, "preview_url": preview.unwrap_or(false) }))
            }
        };
        body.insert("type".into(), kind.into());
        body.insert(kind.into(), content);
        let open = self.is_open(&message.to) || kind == "template";
        let sent = self.post(body).await?;
        let id = sent.pointer("/messages/0/id").and_then(Value::as_str).map(str::to_owned);
        if let Some(id) = &id {
            if !open {
                self.first_word(id).await;
            }
            let mut known = self.lock();
            if let Some(error) = known.failure(id) {
                return Err(error.failed("a message", 400, &HeaderMap::new()));
            }
            known.accepted.push_back(id.clone());
            while known.accepted.len() > ACCEPTED {
                known.accepted.pop_front();
            }
        }
        Ok(id.into_iter().collect())
    }

    /// Uploads a file: the type of the message that shows it, and its content.
    async fn media(&self, file: &OutboundFile, caption: &str) -> Result<(&'static str, Value), Failed> {
        let (kind, mime) = kind(file);
        let request = (|| {
            let mut form = Form::new()?;
            form.text("messaging_product", "whatsapp");
            form.text("type", &mime);
            form.file("file", &file.name, &mime, &file.data);
            Ok(form.request(self.url(&format!("{}/media", self.phone_id))?))
        })();
        let stored = self.ask("a file", request, TRANSFER).await?;
        let id = stored.get("id").and_then(Value::as_str).ok_or_else(|| {
            let error = CoreError::new(Code::Network, "a file: WhatsApp named no id of it");
            Failed::new(Fate::Unsent, error)
        })?;
        let mut content = Map::from_iter([("id".to_owned(), Value::from(id))]);
        if !caption.is_empty() {
            content.insert("caption".into(), caption.into());
        }
        if kind == "document" {
            content.insert("filename".into(), file.name.as_str().into());
        }
        Ok((kind, content.into()))
    }

    /// Whether it is certain that this person wrote within the last day, or that nobody would tell us of a failure.
    fn is_open(&self, to: &str) -> bool {
        let known = self.lock();
        let now = self.surroundings.now_ms();
        let lately = known.heard.get(&number(to)).is_some_and(|(at, _)| now.saturating_sub(*at) < WINDOW_MS);
        lately || !known.listening
    }

    /// Waits for the first word of what became of a message.
    async fn first_word(&self, id: &str) {
        let told = async {
            loop {
                let told = self.told.notified();
                tokio::pin!(told);
                // Before looking: what is told in between counts.
                told.as_mut().enable();
                if self.lock().has_fate(id) {
                    return;
                }
                told.await;
            }
        };
        _ = tokio::time::timeout(TOLD, told).await;
    }
}

impl Known {
    fn has_fate(&self, id: &str) -> bool {
        self.fates.iter().any(|(known, _)| known == id)
    }

    /// Why a message failed; which may be told after a success.
    fn failure(&self, id: &str) -> Option<&GraphError> {
        self.fates.iter().filter(|(known, _)| known == id).find_map(|(_, fate)| fate.as_ref())
    }
}

fn get(url: Url) -> HttpRequest {
    HttpRequest { method: Method::GET, url, headers: HeaderMap::new(), body: Vec::new() }
}

/// In digits, as notifications have it.
fn number(to: &str) -> String {
    let digits: String = to.chars().filter(char::is_ascii_digit).collect();
    let plain = to.chars().all(|c| c.is_ascii_digit() || "+-() ".contains(c));
    if plain { digits } else { to.to_owned() }
}

/// To a number, to somebody who shows none (`US.1234…`), or to a group.
fn addressed(to: &str) -> Map<String, Value> {
    let to = number(to);
    let digits = to.bytes().all(|b| b.is_ascii_digit());
    let (country, dot) = (to.get(..2).unwrap_or_default(), to.get(2..3));
    let person = dot == Some(".") && country.bytes().all(|b| b.is_ascii_uppercase());
    let kind = if digits || person { "individual" } else { "group" };
    let field = if person { "recipient" } else { "to" };
    Map::from_iter([("recipient_type".to_owned(), Value::from(kind)), (field.to_owned(), Value::from(to))])
}

/// The type of message that shows a file, and the type that it has there:
/// <https://developers.facebook.com/docs/whatsapp/cloud-api/reference/media#supported-media-types>.
fn kind(file: &OutboundFile) -> (&'static str, String) {
    let mime = sniff::mime(file);
    let kind = match mime.as_str() {
        "image/jpeg" | "image/png" => "image",
        "image/webp" => "sticker",
        "audio/aac" | "audio/amr" | "audio/mpeg" | "audio/mp4" | "audio/ogg" => "audio",
        "video/mp4" | "video/3gpp" => "video",
        // Code, tables, Markdown: WhatsApp knows one kind of text.
        "application/json" | "application/octet-stream" if std::str::from_utf8(&file.data).is_ok() => {
            return ("document", "text/plain".into());
        }
        other if other.starts_with("text/") => return ("document", "text/plain".into()),
        _ => "document",
    };
    (kind, mime)
}

/// Whether Meta keeps files there: the token goes with the request.
fn is_meta(url: &Url, base: &str) -> bool {
    let own = Url::parse(base).is_ok_and(|base| base.origin() == url.origin());
    let host = url.host_str().unwrap_or_default();
    let known = ["facebook.com", "fbsbx.com", "whatsapp.net", "whatsapp.com", "fbcdn.net"];
    let theirs = known
        .iter()
        .any(|name| host.strip_suffix(name).is_some_and(|sub| sub.is_empty() || sub.ends_with('.')));
    own || (url.scheme() == "https" && theirs)
}

impl Platform for WhatsApp {
    fn id(&self) -> &'static str {
        "whatsapp"
    }

    /// <https://developers.facebook.com/docs/whatsapp/cloud-api/overview#throughput>: 80 a second; to one person one in
    /// six seconds, of which 45 may be taken in advance.
    fn limits(&self) -> Limits {
        Limits {
            bot: vec![Rate { count: 80, per: Duration::from_secs(1) }],
            chat: vec![Rate { count: 45, per: Duration::from_secs(270) }],
            at_once: 8,
            ..Limits::default()
        }
    }

    fn run<'a>(&'a self, link: &'a Link) -> Boxed<'a, Result<()>> {
        Box::pin(self.listen(link))
    }

    fn render(&self, message: &OutboundMessage) -> Result<Vec<Part>> {
        let wrong = |message: &str| Err(CoreError::new(Code::Validation, message));
        let render = |text: &str| match message.format {
            Format::Markdown => marks::render(text, Dialect::WhatsApp),
            Format::Plain => text.to_owned(),
        };
        let text = message.text.trim();
        let special = |kind: &&&str| message.extra.as_ref().is_some_and(|extra| extra.contains_key(**kind));
        if let Some(kind) = KINDS.iter().find(special) {
            let text = render(text);
            let body = *kind == "interactive";
            if !message.files.is_empty() || (!text.is_empty() && !body) || Unit::Utf16.width(&text) > CAPTION
            {
                return wrong(
                    "a template, a location and contacts go without `text` and `attachments`; \
                              an interactive message has a text of at most 1024 characters",
                );
            }
            return Ok(vec![Part { text, source: message.text.clone(), files: 0..0 }]);
        }
        if message.files.iter().any(|file| file.data.is_empty()) {
            return wrong("WhatsApp takes no file without content");
        }
        let split = |limit| split_rendered(text, limit, Unit::Utf16, Mode::Length, &render);
        // What has no caption: sounds and stickers.
        let captioned =
            message.files.first().is_some_and(|file| !matches!(kind(file).0, "audio" | "sticker"));
        let short = text.len() <= 8 * CAPTION && Unit::Utf16.width(&render(text)) <= CAPTION;
        let mut parts = Vec::new();
        let mut caption = None;
        if captioned && short {
            caption = split(CAPTION).pop();
        } else {
            let texts = split(TEXT).into_iter().filter(|(source, _)| !source.trim().is_empty());
            parts.extend(texts.map(|(source, text)| Part { text, source, files: 0..0 }));
        }
        for at in 0..message.files.len() {
            let (source, text) = caption.take().unwrap_or_default();
            parts.push(Part { text, source, files: at..at + 1 });
        }
        if parts.is_empty() {
            return wrong("the message has neither text nor attachments");
        }
        Ok(parts)
    }

    fn call<'a>(&'a self, call: &'a Call) -> Boxed<'a, Result<Done, Failed>> {
        Box::pin(async move {
            let body = match call {
                Call::Send { message, part, index, .. } => {
                    let sent = self.send(message, part, *index).await?;
                    return Ok(Done { message_ids: sent, pause: None });
                }
                Call::Edit { .. } => {
                    let message = "WhatsApp cannot change a message that was sent: send another";
                    return Err(Failed::new(Fate::Refused, CoreError::new(Code::ChannelSend, message)));
                }
                Call::React { to, message_id, emoji } => {
                    let mut body = addressed(to);
                    body.insert("type".into(), "reaction".into());
                    body.insert("reaction".into(), json!({ "message_id": message_id, "emoji": emoji }));
                    body
                }
                Call::Typing { to, .. } => {
                    // It goes with the message that is being answered, which it marks as read.
                    let last = self.lock().heard.get(&number(to)).map(|(_, id)| id.clone());
                    let Some(last) = last.filter(|id| !id.is_empty()) else { return Ok(Done::default()) };
                    let typing = json!({ "type": "text" });
                    Map::from_iter([
                        ("status".to_owned(), Value::from("read")),
                        ("message_id".to_owned(), Value::from(last)),
                        ("typing_indicator".to_owned(), typing),
                    ])
                }
            };
            self.post(body).await.map(|_| Done::default())
        })
    }

    fn download<'a>(&'a self, attachment: &'a Attachment, most: usize) -> Boxed<'a, Result<Bytes>> {
        Box::pin(async move {
            let lost = |what: &str| CoreError::new(Code::Network, format!("download of a file: {what}"));
            let id = &attachment.handle;
            if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
                return Err(lost("this is no id of a file"));
            }
            let found =
                self.ask("a file", self.url(id).map(get), CALL).await.map_err(|failed| failed.error)?;
            let url = found.get("url").and_then(Value::as_str).and_then(|url| Url::parse(url).ok());
            let url = url.filter(|url| is_meta(url, &self.base));
            let mut request = get(url.ok_or_else(|| lost("WhatsApp gives no URL of its own"))?);
            request.headers = self.authorized()?;
            // Without it, the file's server answers with an error.
            request.headers.insert(reqwest::header::USER_AGENT, HeaderValue::from_static("openclaw-core"));
            let reply =
                wire::ask(&*self.wire, request, TRANSFER, most).await.map_err(|failed| failed.error)?;
            if reply.status != 200 {
                return Err(
                    lost(&format!("WhatsApp answered with {}", reply.status)).with_status(reply.status)
                );
            }
            Ok(reply.body.into())
        })
    }
}

#[cfg(test)]
mod tests;
