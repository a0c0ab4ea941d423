//! Signal, by signal-cli's HTTP daemon:
//! <https://github.com/AsamK/signal-cli/blob/master/man/signal-cli-jsonrpc.5.adoc>.
//!
//! Messages come as Server-Sent Events, calls are JSON-RPC. The daemon knows no acknowledgement: what it wrote to a
//! connection that broke is gone, and so is, unless it runs with `--receive-mode on-connection`, what comes while nobody
//! listens. What has reached this adapter is not lost: if the disk refuses it, it is kept and offered again.

mod inbound;
mod styles;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data_encoding::BASE64;
use reqwest::header::HeaderMap;
use reqwest::{Method, Url};
use serde_json::{Map, Value, json};
use tokio_util::bytes::Bytes;

use self::inbound::Me;
use super::chunk::{Mode, Unit, split_rendered};
use super::message::{Attachment, ChatKind, Format, InboundKind, InboundMessage, OutboundMessage, Part};
use super::platform::{Call, Done, Failed, Fate, Limits, Link, Platform, Scope, Settings};
use super::wire::{self, HttpRequest, Wire};
use super::{Boxed, sniff};
use crate::providers::api::Framing;
use crate::providers::sse::Parser;
use crate::secrets::Secret;
use crate::{Code, CoreError, Result};

/// Where the daemon listens unless told otherwise.
const BASE_URL: &str = "http://127.0.0.1:8080";
/// UTF-16 code units of a text, as OpenClaw splits for Signal. Texts of more than 2000 bytes are sent by signal-cli as
/// an attachment that clients show as text.
const TEXT: usize = 4000;
/// The daemon writes a comment each 15 s.
const SILENCE: Duration = Duration::from_secs(45);
/// A call.
const CALL: Duration = Duration::from_mins(1);
/// A call with files.
const UPLOAD: Duration = Duration::from_mins(5);
/// Read receipts, which nobody waits for.
const RECEIPT: Duration = Duration::from_secs(5);
/// The most bytes of an answer, and of an event.
const ANSWER: usize = 8 << 20;
/// If the daemon says that Signal wants us to wait and not how long.
const WAIT: Duration = Duration::from_mins(1);

/// An account of the daemon.
pub struct Signal {
    me: Me,
    base: Url,
    wire: Arc<dyn Wire>,
    receipts: bool,
    /// What was received and is not on the disk yet.
    pending: Mutex<Vec<InboundMessage>>,
}

/// `account` (the number, `+` and digits), `accountUuid`, `baseUrl` (`http://127.0.0.1:8080` by default), and
/// `sendReadReceipts` (false by default).
pub fn open(settings: Settings) -> Result<Box<dyn Platform>> {
    let wrong = |message: &str| CoreError::new(Code::Validation, message);
    let word = |name: &str| settings.options.get(name).and_then(Value::as_str);
    let account = word("account").filter(|account| {
        account.strip_prefix('+').is_some_and(|digits| {
            (7..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
    });
    let account =
        account.ok_or_else(|| wrong("`account` must be the bot's number: +, country code, digits"))?;
    let uuid = match settings.options.get("accountUuid") {
        None => None,
        Some(uuid) => {
            let known = uuid.as_str().filter(|uuid| {
                uuid.len() == 36 && uuid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
            });
            Some(known.ok_or_else(|| wrong("`accountUuid` must be the account's UUID"))?.to_ascii_lowercase())
        }
    };
    let receipts = match settings.options.get("sendReadReceipts") {
        None => false,
        Some(yes) => yes.as_bool().ok_or_else(|| wrong("`sendReadReceipts` must be true or false"))?,
    };
    if settings.webhook.is_some() {
        return Err(wrong("`webhook`: this adapter receives from the daemon; leave the option out"));
    }
    Ok(Box::new(Signal {
        me: Me { account: account.to_owned(), uuid },
        base: wire::base(settings.base_url.as_deref().unwrap_or(BASE_URL))?,
        wire: settings.wire,
        receipts,
        pending: Mutex::default(),
    }))
}

/// Whom a chat's id names: a group, or one person.
fn recipient(to: &str) -> Result<(&'static str, Value)> {
    let to = to.strip_prefix("signal:").unwrap_or(to);
    let (field, id) = if let Some(group) = to.strip_prefix("group:") {
        ("groupId", group)
    } else if let Some(name) = to.strip_prefix("username:").or_else(|| to.strip_prefix("u:")) {
        ("username", name)
    } else {
        ("recipient", to.strip_prefix("uuid:").unwrap_or(to))
    };
    if id.is_empty() {
        let message = "`to` must be a number (+…), `uuid:…`, `username:…` or `group:…`";
        return Err(CoreError::new(Code::Validation, message));
    }
    Ok((field, if field == "groupId" { id.into() } else { json!([id]) }))
}

/// The timestamp and the author of a message. An id without an author is of the other one in a direct chat.
fn message_of<'m>(id: &'m str, to: &'m str) -> Result<(u64, &'m str)> {
    let (at, author) = id.split_once(':').unwrap_or((id, ""));
    let wrong = || {
        let message =
            "a message's id must be `timestamp:author`; the author may be left out in a direct chat";
        CoreError::new(Code::Validation, message)
    };
    let at = at.parse().map_err(|_| wrong())?;
    let to = to.strip_prefix("signal:").unwrap_or(to);
    let author = if author.is_empty() { to } else { author };
    let author = author.strip_prefix("uuid:").unwrap_or(author);
    if author.starts_with("group:") { Err(wrong()) } else { Ok((at, author)) }
}

impl Signal {
    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url
    }

    fn pending(&self) -> MutexGuard<'_, Vec<InboundMessage>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls a method, and gives its result.
    async fn rpc(
        &self,
        method: &str,
        mut params: Map<String, Value>,
        limit: Duration,
        most: usize,
    ) -> Result<Value, Failed> {
        params.insert("account".into(), self.me.account.as_str().into());
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let request = wire::json(Method::POST, self.url("/api/v1/rpc"), HeaderMap::new(), &body);
        let reply = wire::ask(&*self.wire, request, limit, most).await?;
        let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
            return Err(refusal(method, error));
        }
        answer.get("result").cloned().ok_or_else(|| {
            let message = format!("{method}: signal-cli answered with {} and no result", reply.status);
            let refused = (400..500).contains(&reply.status);
            let error = CoreError::new(Code::Network, message).with_status(reply.status);
            Failed::new(if refused { Fate::Refused } else { Fate::Unknown }, error)
        })
    }

    /// Listens until the connection breaks.
    async fn listen(&self, link: &Link) -> Result<()> {
        let mut url = self.url("/api/v1/events");
        url.query_pairs_mut().append_pair("account", &self.me.account);
        let mut headers = HeaderMap::new();
        let events = reqwest::header::HeaderValue::from_static("text/event-stream");
        headers.insert(reqwest::header::ACCEPT, events);
        let request = HttpRequest { method: Method::GET, url, headers, body: Vec::new() };
        let silent = |_| {
            let message = format!("signal-cli has been silent for {} s", SILENCE.as_secs());
            CoreError::new(Code::Timeout, message)
        };
        self.flush(link).await?;
        let answer = tokio::time::timeout(SILENCE, self.wire.send(request)).await.map_err(silent)?;
        let mut answer = answer.map_err(|unsent| unsent.error)?;
        match answer.status {
            200 => {}
            400 => {
                let message =
                    "signal-cli does not know this account: link or register it, or start the daemon with it";
                return Err(CoreError::new(Code::ChannelAuth, message).with_status(400));
            }
            status => {
                let message = format!("signal-cli answered with {status} when asked for events");
                return Err(CoreError::new(Code::Network, message).with_status(status));
            }
        }
        link.verified();
        let mut parser = Parser::new(Framing::Sse, ANSWER);
        loop {
            let chunk = tokio::time::timeout(SILENCE, answer.body.chunk()).await.map_err(silent)??;
            let mut read = |_: &[u8], data: &[u8]| {
                if let Some(message) = inbound::read(data, &self.me) {
                    self.pending().push(message);
                }
                Ok(true)
            };
            let Some(chunk) = chunk else {
                // The daemon ends, or was told to. An event that lacks its end is none.
                return Ok(());
            };
            parser.push(&chunk, &mut read)?;
            link.verified();
            self.flush(link).await?;
        }
    }

    /// Writes what was received to the disk.
    async fn flush(&self, link: &Link) -> Result<()> {
        let messages = self.pending().clone();
        if messages.is_empty() {
            return Ok(());
        }
        let mut read: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for message in messages.iter().filter(|_| self.receipts) {
            if message.kind == InboundKind::Message && message.chat.kind == ChatKind::Direct {
                read.entry(message.chat.id.clone()).or_default().push(message.timestamp_ms);
            }
        }
        let count = messages.len();
        link.receive(messages, None).await?;
        self.pending().drain(..count);
        let telling = async {
            for (to, at) in read {
                let Ok((_, to)) = recipient(&to) else { continue };
                let params = json!({ "recipient": to, "targetTimestamp": at, "type": "read" });
                let Value::Object(params) = params else { continue };
                if let Err(failed) = self.rpc("sendReceipt", params, RECEIPT, ANSWER).await {
                    tracing::debug!(error = %failed.error, "a read receipt was not sent");
                }
            }
        };
        // What comes next does not wait longer for them, however many they are.
        _ = tokio::time::timeout(RECEIPT, telling).await;
        Ok(())
    }

    async fn make(&self, call: &Call) -> Result<Done, Failed> {
        let refused = |error| Failed::new(Fate::Refused, error);
        let (field, id) = recipient(call.to()).map_err(refused)?;
        let mut params = Map::from_iter([(field.to_owned(), id)]);
        let mut set = |name: &str, value: Value| _ = params.insert(name.into(), value);
        let text = |set: &mut dyn FnMut(&str, Value), source: &str, format| {
            if format == Format::Plain {
                return set("message", source.into());
            }
            let styled = styles::render(source);
            set("message", styled.text.into());
            if !styled.styles.is_empty() {
                set("textStyle", styled.styles.into());
            }
        };
        let mut limit = CALL;
        let method = match call {
            Call::Send { message, part, index, .. } => {
                if !part.source.is_empty() {
                    text(&mut set, &part.source, message.format);
                }
                if let Some(reply) = message.reply_to_id.as_ref().filter(|_| *index == 0) {
                    let (at, author) = message_of(reply, &message.to).map_err(refused)?;
                    set("quoteTimestamp", at.into());
                    set("quoteAuthor", author.into());
                }
                let files = message.files.get(part.files.clone()).unwrap_or_default();
                if !files.is_empty() {
                    limit = UPLOAD;
                    let uri = |file: &super::message::OutboundFile| {
                        let name: String =
                            reqwest::Url::parse_with_params("data:,", [("n", file.name.as_str())])
                                .map(|url| {
                                    url.query().unwrap_or_default().trim_start_matches("n=").to_owned()
                                })
                                .unwrap_or_default();
                        let mime = sniff::mime(file);
                        format!("data:{mime};filename={name};base64,{}", BASE64.encode(&file.data))
                    };
                    set("attachments", files.iter().map(uri).collect());
                }
                "send"
            }
            Call::Edit { to, message_id, text: markdown } => {
                let (at, _) = message_of(message_id, to).map_err(refused)?;
                if Unit::Utf16.width(&styles::render(markdown).text) > TEXT {
                    let message = format!("a message has at most {TEXT} characters, also after an edit");
                    return Err(refused(CoreError::new(Code::ChannelSend, message)));
                }
                set("editTimestamp", at.into());
                text(&mut set, markdown, Format::Markdown);
                "send"
            }
            Call::React { to, message_id, emoji } => {
                let (at, author) = message_of(message_id, to).map_err(refused)?;
                set("targetTimestamp", at.into());
                set("targetAuthor", author.into());
                // To take one back needs an emoji too; a person has one reaction, whichever it is.
                set("emoji", if emoji.is_empty() { "👍" } else { emoji.as_str() }.into());
                set("remove", emoji.is_empty().into());
                "sendReaction"
            }
            Call::Typing { .. } => "sendTyping",
        };
        let result = self.rpc(method, params, limit, ANSWER).await?;
        let at = result.get("timestamp").and_then(Value::as_u64);
        match (call, at) {
            (Call::Send { .. }, Some(at)) => Ok(Done::made(format!("{at}:{}", self.me.account))),
            (Call::Send { .. }, None) => {
                let error = CoreError::new(Code::Network, "send: signal-cli gave no timestamp");
                Err(Failed::new(Fate::Unknown, error))
            }
            _ => Ok(Done::default()),
        }
    }
}

/// What an error of the daemon means: `io.github.signal-cli` has -1 for what the caller got wrong, -3 for the network
/// behind it, -4 for a key that changed, -5 for Signal's rate limit; JSON-RPC has its own.
/// <https://github.com/AsamK/signal-cli/blob/master/src/main/java/org/asamk/signal/jsonrpc/SignalJsonRpcCommandHandler.java>
fn refusal(method: &str, error: &Value) -> Failed {
    let code = error.get("code").and_then(Value::as_i64).unwrap_or(0);
    let said = error.get("message").and_then(Value::as_str).unwrap_or_default();
    let results = error.pointer("/data/response/results").and_then(Value::as_array);
    if code == -5 {
        let waits =
            results.into_iter().flatten().filter_map(|result| result.get("retryAfterSeconds")?.as_u64());
        let wait = waits.max().map_or(WAIT, Duration::from_secs);
        return Failed::rate_limited(method, wait, Scope::Bot);
    }
    let kind = results
        .and_then(|results| results.iter().find_map(|result| result.get("type")?.as_str()))
        .map(|kind| format!(" ({kind})"))
        .unwrap_or_default();
    let message = format!("{method}: signal-cli says: {said}{kind}");
    let (fate, code) = match code {
        -1 | -4 | -6 | -32_700 | -32_600 | -32_601 | -32_602 => (Fate::Refused, Code::ChannelSend),
        // It may have gone out before it failed.
        _ => (Fate::Unknown, Code::Network),
    };
    Failed::new(fate, CoreError::new(code, message))
}

impl Platform for Signal {
    fn id(&self) -> &'static str {
        "signal"
    }

    /// Signal names no limits; it says when to wait.
    fn limits(&self) -> Limits {
        Limits { at_once: 2, ..Limits::default() }
    }

    /// The daemon's stream knows no acknowledgement.
    fn tells_again(&self) -> bool {
        false
    }

    /// The daemon tells each listener everything: two would answer twice.
    fn identity(&self) -> Option<Secret> {
        Some(Secret::copy_of(self.me.account.as_bytes()))
    }

    fn run<'a>(&'a self, link: &'a Link) -> Boxed<'a, Result<()>> {
        Box::pin(async move {
            let listening = self.listen(link);
            tokio::pin!(listening);
            tokio::select! {
                biased;
                outcome = &mut listening => outcome,
                () = link.closing().cancelled() => {
                    // What has come may be on its way to the disk.
                    if self.pending().is_empty() { Ok(()) } else { self.flush(link).await }
                }
            }
        })
    }

    fn render(&self, message: &OutboundMessage) -> Result<Vec<Part>> {
        recipient(&message.to)?;
        if let Some(reply) = &message.reply_to_id {
            message_of(reply, &message.to)?;
        }
        let render = |text: &str| match message.format {
            Format::Markdown => styles::render(text).text,
            Format::Plain => text.to_owned(),
        };
        let texts = split_rendered(message.text.trim(), TEXT, Unit::Utf16, Mode::Length, &render);
        let texts = texts.into_iter().filter(|(_, text)| !text.trim().is_empty());
        let mut parts: Vec<Part> = texts.map(|(source, text)| Part { text, source, files: 0..0 }).collect();
        match parts.last_mut() {
            // All files go with the last text.
            Some(last) => last.files = 0..message.files.len(),
            None if !message.files.is_empty() => {
                parts.push(Part { files: 0..message.files.len(), ..Part::default() });
            }
            None => {
                return Err(CoreError::new(Code::Validation, "the message has neither text nor attachments"));
            }
        }
        Ok(parts)
    }

    fn call<'a>(&'a self, call: &'a Call) -> Boxed<'a, Result<Done, Failed>> {
        Box::pin(self.make(call))
    }

    fn download<'a>(&'a self, attachment: &'a Attachment, most: usize) -> Boxed<'a, Result<Bytes>> {
        Box::pin(async move {
            let lost = || CoreError::new(Code::Network, "getAttachment: signal-cli gave no data");
            let (id, chat) = attachment.handle.split_once(' ').ok_or_else(lost)?;
            let (field, to) = recipient(chat)?;
            let to = to.pointer("/0").cloned().unwrap_or(to);
            let params = Map::from_iter([("id".to_owned(), id.into()), (field.to_owned(), to)]);
            let too_big =
                || CoreError::new(Code::Limit, format!("the attachment has more than {most} bytes"));
            if attachment.size.is_some_and(|size| size > most as u64) {
                return Err(too_big());
            }
            // In base64, with something around it.
            let answer = (most / 3 + 1).saturating_mul(4).saturating_add(1024);
            let result = self.rpc("getAttachment", params, UPLOAD, answer).await;
            let result = result.map_err(|failed| failed.error)?;
            let data = result.get("data").and_then(Value::as_str).ok_or_else(lost)?;
            let data = BASE64.decode(data.as_bytes()).map_err(|_| lost())?;
            if data.len() > most { Err(too_big()) } else { Ok(data.into()) }
        })
    }
}

#[cfg(test)]
mod tests;
