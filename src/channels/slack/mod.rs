//! Slack, by Socket Mode and the Web API: <https://docs.slack.dev/apis/events-api/using-socket-mode>.
//!
//! Envelopes come over a WebSocket that is replaced before it ends. Each is acknowledged once it is on the disk, which is
//! within Slack's three seconds however long JavaScript takes. Texts go out as mrkdwn.

mod emoji;
mod inbound;
mod socket_mode;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio_util::bytes::Bytes;

use self::inbound::Me;
use super::chunk::{Mode, Unit, split_rendered};
use super::marks::{self, Dialect};
use super::message::{Attachment, Format, InboundMessage, OutboundFile, OutboundMessage, Part};
use super::platform::{Call, Done, Failed, Fate, Limits, Link, Platform, Rate, Scope, Settings};
use super::wire::{self, HttpRequest, Wire};
use super::{Boxed, Surroundings, sniff};
use crate::secrets::Secret;
use crate::{Code, CoreError, Result};

/// Where the Web API is.
const BASE_URL: &str = "https://slack.com/api";
/// "For best results, limit the number of characters in the text field to 4,000":
/// <https://docs.slack.dev/reference/methods/chat.postMessage#truncating>. It is also what `chat.update` takes.
const TEXT: usize = 4000;
/// Of files in one message.
const FILES: usize = 10;
/// Any call.
const CALL: Duration = Duration::from_secs(30);
/// The bytes of a file.
const TRANSFER: Duration = Duration::from_mins(5);
/// The most bytes of an answer.
const ANSWER: usize = 8 << 20;

/// An app in a workspace.
pub struct Slack {
    token: Secret,
    app_token: Secret,
    base: String,
    wire: Arc<dyn Wire>,
    surroundings: Arc<dyn Surroundings>,
    me: OnceCell<Me>,
    /// The conversations with users, by user.
    direct: Mutex<HashMap<String, String>>,
    /// What came and is not on the disk.
    pending: Mutex<Vec<InboundMessage>>,
}

/// `token` (`xoxb-…`), `appToken` (`xapp-…`, with `connections:write`), and `baseUrl`.
pub fn open(settings: Settings) -> Result<Box<dyn Platform>> {
    let token = settings.secret("token")?;
    let app_token = settings.secret("appToken")?;
    for (name, secret, prefix, what) in [
        ("token", &token, "xoxb-", "the bot's token, under OAuth & Permissions of the app"),
        ("appToken", &app_token, "xapp-", "an app-level token with the scope connections:write"),
    ] {
        let text = secret.expose_str()?;
        if !text.starts_with(prefix) || !text.bytes().all(|b| b.is_ascii_graphic()) {
            let message = format!("`{name}` must begin with {prefix}: {what}");
            return Err(CoreError::new(Code::Validation, message));
        }
    }
    let base = settings.base_url.unwrap_or_else(|| BASE_URL.into());
    let url = Url::parse(&base).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    if url.is_none_or(|url| url.query().is_some() || url.fragment().is_some()) {
        let message = "`baseUrl` must be an http or https URL without a query";
        return Err(CoreError::new(Code::Validation, message));
    }
    if settings.webhook.is_some() {
        let message = "`webhook`: this adapter receives by Socket Mode; leave the option out";
        return Err(CoreError::new(Code::Validation, message));
    }
    Ok(Box::new(Slack {
        token,
        app_token,
        base: base.trim_end_matches('/').to_owned(),
        wire: settings.wire,
        surroundings: settings.surroundings,
        me: OnceCell::new(),
        direct: Mutex::default(),
        pending: Mutex::default(),
    }))
}

/// What the Web API answers: <https://docs.slack.dev/apis/web-api/#responses>.
#[derive(Deserialize)]
struct Verdict {
    ok: bool,
    #[serde(default)]
    error: String,
    /// With `missing_scope`.
    #[serde(default)]
    needed: String,
}

/// Errors that say that a token is not good for this.
const UNAUTHORIZED: [&str; 10] = [
    "not_authed",
    "invalid_auth",
    "account_inactive",
    "token_revoked",
    "token_expired",
    "not_allowed_token_type",
    "no_permission",
    "missing_scope",
    "org_login_required",
    "team_access_not_granted",
];
/// Errors after which nobody knows: "it's possible some aspect of the operation succeeded".
const UNCERTAIN: [&str; 4] = ["internal_error", "fatal_error", "service_unavailable", "request_timeout"];

impl Slack {
    fn authorized(token: &Secret) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(&format!("Bearer {}", token.expose_str()?));
        let mut value =
            value.map_err(|_| CoreError::new(Code::Validation, "a token is no header's value"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
        Ok(headers)
    }

    /// Calls a method with the bot's token.
    async fn ask(&self, method: &str, body: &Value) -> Result<Value, Failed> {
        self.ask_as(&self.token, method, body).await
    }

    async fn ask_as(&self, token: &Secret, method: &str, body: &Value) -> Result<Value, Failed> {
        let (url, headers) = self.head(token, method).map_err(|error| Failed::new(Fate::Refused, error))?;
        self.answered(method, wire::json(Method::POST, url, headers, body)).await
    }

    /// Calls one of the methods that take no JSON.
    async fn ask_form(&self, method: &str, fields: &[(&str, &str)]) -> Result<Value, Failed> {
        let head = self.head(&self.token, method);
        let (url, mut headers) = head.map_err(|error| Failed::new(Fate::Refused, error))?;
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, kind);
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.answered(method, HttpRequest { method: Method::POST, url, headers, body: body.into() }).await
    }

    fn head(&self, token: &Secret, method: &str) -> Result<(Url, HeaderMap)> {
        let wrong = |_| CoreError::new(Code::Validation, "`baseUrl` is no base of a URL");
        let url = Url::parse(&format!("{}/{method}", self.base)).map_err(wrong)?;
        Ok((url, Self::authorized(token)?))
    }

    async fn answered(&self, method: &str, request: HttpRequest) -> Result<Value, Failed> {
        let reply = wire::ask(&*self.wire, request, CALL, ANSWER).await?;
        let scope = if method == "chat.postMessage" { Scope::Chat } else { Scope::Bot };
        if reply.status == 429 {
            return Err(Failed::rate_limited(method, retry_after(&reply.headers), scope));
        }
        let Some((verdict, value)) = serde_json::from_slice::<Value>(&reply.body)
            .ok()
            .and_then(|value| Some((Verdict::deserialize(&value).ok()?, value)))
        else {
            let message = format!("{method}: Slack answered with {} and no JSON of its own", reply.status);
            let fate = if (400..500).contains(&reply.status) { Fate::Refused } else { Fate::Unknown };
            let error = CoreError::new(Code::Network, message).with_status(reply.status);
            return Err(Failed::new(fate, error));
        };
        if verdict.ok {
            return Ok(value);
        }
        Err(match verdict.error.as_str() {
            "ratelimited" | "rate_limited" => {
                Failed::rate_limited(method, retry_after(&reply.headers), scope)
            }
            error => {
                let code = match error {
                    error if UNAUTHORIZED.contains(&error) => Code::ChannelAuth,
                    error if UNCERTAIN.contains(&error) => Code::Network,
                    _ => Code::ChannelSend,
                };
                let fate = if code == Code::Network { Fate::Unknown } else { Fate::Refused };
                let mut message = format!("{method}: Slack says: {error}");
                if !verdict.needed.is_empty() {
                    message.extend([
                        ". Add the scope ",
                        &verdict.needed,
                        " to the app, and install it again",
                    ]);
                } else if let Some(hint) = hint(error) {
                    message.push_str(hint);
                }
                Failed::new(fate, CoreError::new(code, message).with_status(reply.status))
            }
        })
    }

    /// Who the bot is.
    async fn me(&self) -> Result<&Me> {
        self.me
            .get_or_try_init(|| async {
                let me = self.ask("auth.test", &json!({})).await.map_err(|failed| failed.error)?;
                Me::deserialize(&me)
                    .map_err(|_| CoreError::new(Code::Network, "auth.test: Slack did not say who the bot is"))
            })
            .await
    }

    /// The conversation: that with a user if one is named. Nothing is sent by this.
    async fn conversation(&self, to: &str) -> Result<String, Failed> {
        let user = to.starts_with(['U', 'W']) && to.bytes().all(|b| b.is_ascii_alphanumeric());
        if !user {
            return Ok(to.to_owned());
        }
        let known = || self.direct.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = known().get(to) {
            return Ok(id.clone());
        }
        let opened = self.ask("conversations.open", &json!({ "users": to })).await.map_err(harmless)?;
        let id = opened.pointer("/channel/id").and_then(Value::as_str).ok_or_else(|| {
            let error = CoreError::new(Code::Network, "conversations.open: Slack named no conversation");
            Failed::new(Fate::Unsent, error)
        })?;
        let mut known = known();
        // Whom a bot talks to is bounded by the workspace; that it is, is not ours to believe.
        if known.len() >= 10_000 {
            known.clear();
        }
        known.insert(to.to_owned(), id.to_owned());
        Ok(id.to_owned())
    }

    async fn send(
        &self,
        message: &OutboundMessage,
        part: &Part,
        index: usize,
    ) -> Result<Vec<String>, Failed> {
        let thread = message.thread_id.as_ref().or(message.reply_to_id.as_ref());
        let files = message.files.get(part.files.clone()).unwrap_or_default();
        if !files.is_empty() {
            return self.share(&message.to, thread, &part.text, files).await;
        }
        let mut body = json!({ "channel": message.to, "text": part.text });
        let set = |body: &mut Value, name: &str, value: Value| {
            if let Some(body) = body.as_object_mut() {
                body.insert(name.into(), value);
            }
        };
        if let Some(thread) = thread {
            set(&mut body, "thread_ts", thread.as_str().into());
        }
        if message.format == Format::Plain {
            set(&mut body, "mrkdwn", false.into());
        }
        if index == 0 {
            for name in
                ["blocks", "attachments", "metadata", "unfurl_links", "unfurl_media", "reply_broadcast"]
            {
                if let Some(value) = message.extra.as_ref().and_then(|extra| extra.get(name)) {
                    set(&mut body, name, value.clone());
                }
            }
        }
        let answer = self.ask("chat.postMessage", &body).await?;
        Ok(answer.get("ts").and_then(Value::as_str).map(str::to_owned).into_iter().collect())
    }

    /// Uploads files, then shares them in one message: <https://docs.slack.dev/messaging/working-with-files#upload>.
    /// Until the last call nobody sees anything.
    async fn share(
        &self,
        to: &str,
        thread: Option<&String>,
        comment: &str,
        files: &[OutboundFile],
    ) -> Result<Vec<String>, Failed> {
        let channel = self.conversation(to).await?;
        let mut shared = Vec::new();
        for file in files {
            let id = self.upload(file).await.map_err(harmless)?;
            shared.push(json!({ "id": id, "title": file.name }));
        }
        let mut body = json!({ "files": shared, "channel_id": channel });
        if let Some(body) = body.as_object_mut() {
            if !comment.is_empty() {
                body.insert("initial_comment".into(), comment.into());
            }
            if let Some(thread) = thread {
                body.insert("thread_ts".into(), thread.as_str().into());
            }
        }
        self.ask("files.completeUploadExternal", &body).await?;
        let id = |file: &Value| file.get("id").and_then(Value::as_str).map(str::to_owned);
        Ok(shared.iter().filter_map(id).collect())
    }

    async fn upload(&self, file: &OutboundFile) -> Result<String, Failed> {
        let name = if file.name.is_empty() { "file" } else { file.name.as_str() };
        let length = file.data.len().to_string();
        let fields = [("filename", name), ("length", length.as_str())];
        let place = self.ask_form("files.getUploadURLExternal", &fields).await?;
        let lost = |what: &str| {
            Failed::new(Fate::Unsent, CoreError::new(Code::Network, format!("upload of a file: {what}")))
        };
        let text = |name: &str| place.get(name).and_then(Value::as_str);
        let (Some(url), Some(id)) = (text("upload_url"), text("file_id")) else {
            return Err(lost("Slack named no place for it"));
        };
        let url = Url::parse(url).ok().filter(|url| self.is_slack(url));
        let url = url.ok_or_else(|| lost("Slack named a place that is not its own"))?;
        let mut headers = HeaderMap::new();
        if let Ok(mime) = HeaderValue::from_str(&sniff::mime(file)) {
            headers.insert(CONTENT_TYPE, mime);
        }
        let request = HttpRequest { method: Method::POST, url, headers, body: file.data.to_vec() };
        let reply = wire::ask(&*self.wire, request, TRANSFER, ANSWER).await?;
        match reply.status {
            200 => Ok(id.to_owned()),
            429 => Err(Failed::rate_limited("upload of a file", retry_after(&reply.headers), Scope::Bot)),
            status if status < 500 => {
                let message = format!("Slack refused a file with {status}");
                Err(Failed::new(
                    Fate::Refused,
                    CoreError::new(Code::ChannelSend, message).with_status(status),
                ))
            }
            status => Err(lost(&format!("Slack answered with {status}"))),
        }
    }

    /// Whether a URL is where this token, or a file, may go.
    fn is_slack(&self, url: &Url) -> bool {
        let own = Url::parse(&self.base).is_ok_and(|base| base.origin() == url.origin());
        let host = url.host_str().unwrap_or_default();
        own || (url.scheme() == "https" && (host == "slack.com" || host.ends_with(".slack.com")))
    }
}

/// What went wrong before anything could be seen: another attempt does no harm.
fn harmless(failed: Failed) -> Failed {
    match failed.fate {
        Fate::Unknown => Failed { fate: Fate::Unsent, ..failed },
        _ => failed,
    }
}

/// In seconds; a second where Slack does not say.
fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or(1).clamp(1, 3600))
}

fn hint(error: &str) -> Option<&'static str> {
    Some(match error {
        "not_in_channel" => ". Invite the bot: /invite @its-name",
        "channel_not_found" => ". `to` is the id of a channel (C…, G…, D…) or of a user (U…)",
        "not_allowed_token_type" => ". `token` is the bot's (xoxb-), `appToken` the app-level one (xapp-)",
        "invalid_auth" | "token_revoked" | "account_inactive" => {
            ". Take the tokens again from the app's pages, and put the new ones in"
        }
        "thread_not_found" => ". `threadId` and `replyToId` are the `ts` of a message",
        _ => return None,
    })
}

impl Platform for Slack {
    fn id(&self) -> &'static str {
        "slack"
    }

    /// <https://docs.slack.dev/apis/web-api/rate-limits>: one message a second in a channel.
    fn limits(&self) -> Limits {
        let chat = vec![Rate { count: 1, per: Duration::from_secs(1) }];
        Limits { chat, at_once: 4, ..Limits::default() }
    }

    /// Events are shared out among an app's connections: a second process would get half of them.
    fn identity(&self) -> Option<Secret> {
        Some(self.app_token.clone())
    }

    fn run<'a>(&'a self, link: &'a Link) -> Boxed<'a, Result<()>> {
        Box::pin(self.listen(link))
    }

    fn render(&self, message: &OutboundMessage) -> Result<Vec<Part>> {
        let render = |text: &str| match message.format {
            Format::Markdown => marks::render(text, Dialect::Slack),
            Format::Plain => marks::escape(text),
        };
        let text = message.text.trim();
        let texts = split_rendered(text, TEXT, Unit::Utf16, Mode::Length, &render);
        let mut parts: Vec<Part> = texts
            .into_iter()
            .filter(|(source, _)| !source.trim().is_empty())
            .map(|(source, text)| Part { text, source, files: 0..0 })
            .collect();
        // A text of one part goes with the files.
        let mut comment = if parts.len() == 1 && !message.files.is_empty() { parts.pop() } else { None };
        for from in (0..message.files.len()).step_by(FILES) {
            let files = from..(from + FILES).min(message.files.len());
            parts.push(Part { files, ..comment.take().unwrap_or_default() });
        }
        let blocks = message.extra.as_ref().is_some_and(|extra| extra.contains_key("blocks"));
        if parts.is_empty() && blocks {
            parts.push(Part::default());
        }
        if parts.is_empty() {
            return Err(CoreError::new(Code::Validation, "the message has neither text nor attachments"));
        }
        if message.files.iter().any(|file| file.data.is_empty()) {
            return Err(CoreError::new(Code::Validation, "Slack takes no file without content"));
        }
        Ok(parts)
    }

    fn call<'a>(&'a self, call: &'a Call) -> Boxed<'a, Result<Done, Failed>> {
        Box::pin(async move {
            let (method, body) = match call {
                Call::Send { message, part, index, .. } => {
                    let sent = self.send(message, part, *index).await?;
                    return Ok(Done { message_ids: sent, pause: None });
                }
                Call::Edit { to, message_id, text } => {
                    let rendered = if text.len() > 8 * TEXT {
                        text.clone()
                    } else {
                        marks::render(text, Dialect::Slack)
                    };
                    if Unit::Utf16.width(&rendered) > TEXT {
                        let message = format!("a message has at most {TEXT} characters, also after an edit");
                        return Err(Failed::new(Fate::Refused, CoreError::new(Code::ChannelSend, message)));
                    }
                    let channel = self.conversation(to).await?;
                    ("chat.update", json!({ "channel": channel, "ts": message_id, "text": rendered }))
                }
                Call::React { to, message_id, emoji } => {
                    let channel = self.conversation(to).await?;
                    return self.react(&channel, message_id, emoji).await;
                }
                // Slack shows a status in threads, and nothing elsewhere.
                Call::Typing { thread_id: None, .. } => return Ok(Done::default()),
                Call::Typing { to, thread_id: Some(thread) } => {
                    let channel = self.conversation(to).await?;
                    let body =
                        json!({ "channel_id": channel, "thread_ts": thread, "status": "is typing..." });
                    ("assistant.threads.setStatus", body)
                }
            };
            self.ask(method, &body).await.map(|_| Done::default())
        })
    }

    fn download<'a>(&'a self, attachment: &'a Attachment, most: usize) -> Boxed<'a, Result<Bytes>> {
        Box::pin(async move {
            let info = self.ask_form("files.info", &[("file", &attachment.handle)]).await;
            let info = info.map_err(|failed| failed.error)?;
            let lost = |what: &str| CoreError::new(Code::Network, format!("download of a file: {what}"));
            let url = ["/file/url_private_download", "/file/url_private"]
                .iter()
                .find_map(|path| info.pointer(path).and_then(Value::as_str))
                .ok_or_else(|| lost("Slack gives no URL: the file is gone, or kept elsewhere"))?;
            // The token goes with it.
            let url = Url::parse(url).ok().filter(|url| self.is_slack(url));
            let url = url.ok_or_else(|| lost("it is kept elsewhere than at Slack"))?;
            let headers = Self::authorized(&self.token)?;
            let request = HttpRequest { method: Method::GET, url, headers, body: Vec::new() };
            let reply =
                wire::ask(&*self.wire, request, TRANSFER, most).await.map_err(|failed| failed.error)?;
            let html = |text: &str| text.starts_with("text/html");
            let page = reply.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
            let meant = attachment.mime_type.as_deref().is_some_and(html);
            if reply.status == 302 || (reply.status == 200 && page.is_some_and(html) && !meant) {
                let message = "Slack asks to sign in for a file: add the scope files:read to the app, and install it again";
                return Err(CoreError::new(Code::ChannelAuth, message));
            }
            if reply.status != 200 {
                return Err(lost(&format!("Slack answered with {}", reply.status)).with_status(reply.status));
            }
            Ok(reply.body.into())
        })
    }
}

impl Slack {
    async fn react(&self, channel: &str, message_id: &str, emoji: &str) -> Result<Done, Failed> {
        let reaction = |name: &str| json!({ "channel": channel, "timestamp": message_id, "name": name });
        if emoji.is_empty() {
            // Which of them are the bot's, Slack knows.
            let me = self.me().await.map_err(|error| Failed::new(Fate::Unsent, error))?;
            let fields = [("channel", channel), ("timestamp", message_id), ("full", "true")];
            let known = self.ask_form("reactions.get", &fields).await?;
            let list = known.pointer("/message/reactions").and_then(Value::as_array);
            for one in list.into_iter().flatten() {
                let users = one.get("users").and_then(Value::as_array);
                let mine = users.into_iter().flatten().any(|user| user.as_str() == Some(me.user_id.as_str()));
                if let (true, Some(name)) = (mine, one.get("name").and_then(Value::as_str)) {
                    done_already(self.ask("reactions.remove", &reaction(name)).await)?;
                }
            }
            return Ok(Done::default());
        }
        let Some(name) = emoji::name(emoji) else {
            let message = format!(
                "{emoji:?} is no emoji that has a name here: give Slack's name of it, such as :eyes:"
            );
            return Err(Failed::new(Fate::Refused, CoreError::new(Code::ChannelSend, message)));
        };
        done_already(self.ask("reactions.add", &reaction(&name)).await)?;
        Ok(Done::default())
    }
}

/// It is as it should be.
fn done_already(outcome: Result<Value, Failed>) -> Result<(), Failed> {
    match outcome {
        Err(failed)
            if ["already_reacted", "no_reaction"].iter().any(|e| failed.error.message().ends_with(e)) =>
        {
            Ok(())
        }
        outcome => outcome.map(|_| ()),
    }
}

#[cfg(test)]
mod tests;
