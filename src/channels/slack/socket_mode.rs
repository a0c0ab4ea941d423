//! Socket Mode: <https://docs.slack.dev/apis/events-api/using-socket-mode>.
//!
//! There are two connections at most: one, and the one that takes its place. The old one is read until Slack ends it or
//! nothing comes any more, so that nothing has to come a second time.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::select_all;
use reqwest::Url;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tokio_util::bytes::Bytes;

use super::{Slack, inbound};
use crate::channels::Boxed;
use crate::channels::backoff::Backoff;
use crate::channels::message::InboundMessage;
use crate::channels::platform::Link;
use crate::channels::wire::{Frame, Socket};
use crate::{Code, CoreError, Result};

/// Until the connection says hello.
const HELLO: Duration = Duration::from_secs(15);
/// Slack pings each ten seconds or so; after this silence we ask.
const QUIET: Duration = Duration::from_secs(20);
/// And after this one it is gone.
const GONE: Duration = Duration::from_secs(30);
/// For a frame to be taken.
const SEND: Duration = Duration::from_secs(5);
/// So long before its end is a connection replaced, even if Slack gives no notice.
const EARLY: Duration = Duration::from_secs(45);
/// No connection lasts longer.
const LONGEST: Duration = Duration::from_hours(24 * 7);
/// So long is a connection read that has been replaced, unless Slack ends it.
const LINGER: Duration = Duration::from_secs(15);
/// A connection that lasted less is replaced only after so long.
const SHORTEST: Duration = Duration::from_secs(5);
/// For the goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// Envelopes that are written to the disk together.
const BATCH: usize = 64;
/// Until the disk is asked again that took nothing, and messages that wait for it; at more of them no more are read.
const AGAIN: Duration = Duration::from_secs(1);
const HELD: usize = 1024;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "envelope_id")]
    id: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    reason: Option<String>,
    debug_info: Option<serde_json::Value>,
}

impl Envelope<'_> {
    /// How long the connection is to last.
    fn life(&self) -> Option<Duration> {
        let seconds = self.debug_info.as_ref()?.get("approximate_connection_time")?.as_f64()?;
        let life = Duration::try_from_secs_f64(seconds).ok()?;
        // A short life is a test's, or a mistake; so is one of years.
        Some(life).filter(|life| (2 * EARLY..LONGEST).contains(life))
    }

    fn refused(&self) -> Option<CoreError> {
        refused(self.reason.as_deref().unwrap_or_default())
    }
}

struct Connection {
    socket: Box<dyn Socket>,
    born: Instant,
    heard: Instant,
    asked: bool,
    /// To be replaced then.
    until: Instant,
    /// It was replaced, and is read until then.
    retired: Option<Instant>,
}

enum Event {
    Closing,
    /// From which connection, and what; none if it ended.
    Heard(usize, Option<Frame>),
    Opened(Result<Connection>),
    Due,
}

/// What a connection asks for.
#[derive(Default)]
struct Wishes {
    ended: bool,
    replace: bool,
    fail: Option<CoreError>,
    /// The disk took nothing.
    wait: bool,
}

impl Connection {
    async fn send(&mut self, frame: Frame) -> Result<()> {
        let late = || Err(CoreError::new(Code::Timeout, "the WebSocket takes nothing more"));
        tokio::time::timeout(SEND, self.socket.send(frame)).await.unwrap_or_else(|_| late())
    }

    /// When something has to be done about it.
    fn due(&self) -> Instant {
        let silence = self.heard + if self.asked { GONE } else { QUIET };
        silence.min(self.retired.unwrap_or(self.until))
    }

    async fn say_goodbye(mut self) {
        _ = tokio::time::timeout(GOODBYE, self.socket.send(Frame::Close(Some(1000), String::new()))).await;
    }
}

impl Slack {
    /// Receives until there is no connection any more.
    pub(super) async fn listen(&self, link: &Link) -> Result<()> {
        let closing = link.closing().clone();
        if self.pending().len() >= HELD {
            self.flush(link).await?;
        }
        let first = tokio::select! {
            biased;
            () = closing.cancelled() => return Ok(()),
            connection = async {
                self.me().await?;
                self.dial().await
            } => connection?,
        };
        link.verified();
        let mut connections = vec![first];
        let outcome = self.follow(link, &mut connections).await;
        for connection in connections {
            connection.say_goodbye().await;
        }
        if closing.is_cancelled()
            && let Err(error) = self.flush(link).await
        {
            tracing::warn!(%error, messages = self.pending().len(), "Slack has to tell these messages again");
        }
        outcome
    }

    async fn follow(&self, link: &Link, connections: &mut Vec<Connection>) -> Result<()> {
        let me = self.me().await?;
        let mut opening: Option<Boxed<'_, Result<Connection>>> = None;
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(20));
        let mut failure: Option<CoreError> = None;
        let mut again = (!self.pending().is_empty()).then(Instant::now);
        loop {
            if connections.is_empty() && opening.is_none() {
                return failure.map_or(Ok(()), Err);
            }
            match next(link, connections, &mut opening, again).await {
                Event::Closing => return Ok(()),
                Event::Heard(at, frame) => {
                    let Some(connection) = connections.get_mut(at) else { continue };
                    let wishes = self.take_in(link, me, connection, frame).await?;
                    again = wishes.wait.then(|| Instant::now() + AGAIN);
                    // What is retired has its successor.
                    let (replace, age) =
                        (wishes.replace && connection.retired.is_none(), connection.born.elapsed());
                    if wishes.ended {
                        // Dropped, and with that closed.
                        connections.remove(at);
                    }
                    if let Some(error) = wishes.fail {
                        return Err(error);
                    }
                    if replace && opening.is_none() && connections.len() < 2 {
                        // Who is sent away at once, again and again, must not hurry back.
                        let wait = SHORTEST.saturating_sub(age);
                        opening = Some(Box::pin(async move {
                            tokio::time::sleep(wait).await;
                            self.dial().await
                        }));
                    }
                }
                Event::Opened(Ok(connection)) => {
                    opening = None;
                    link.verified();
                    backoff.reset();
                    failure = None;
                    for old in connections.iter_mut() {
                        old.retired.get_or_insert(Instant::now() + LINGER);
                    }
                    connections.push(connection);
                }
                Event::Opened(Err(error)) => {
                    if connections.is_empty() || error.code() == Code::ChannelAuth {
                        return Err(error);
                    }
                    let asked = error.details().retry_after_ms.map(Duration::from_millis);
                    let wait = asked.unwrap_or_else(|| backoff.next(self.surroundings.chance()));
                    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    tracing::warn!(%error, wait_ms, "Slack gives no new connection; the old one still stands");
                    failure = Some(error);
                    opening = Some(Box::pin(async move {
                        tokio::time::sleep(wait).await;
                        self.dial().await
                    }));
                }
                Event::Due => {
                    let now = Instant::now();
                    if again.is_some_and(|at| at <= now) {
                        again = self.keep(link, Vec::new()).await?.then(|| now + AGAIN);
                    }
                    let mut at = 0;
                    while let Some(connection) = connections.get_mut(at) {
                        if connection.heard + GONE <= now && connection.asked {
                            connections.remove(at);
                            failure.get_or_insert_with(|| {
                                let message = "the connection is silent, and does not answer a ping";
                                CoreError::new(Code::Timeout, message).in_phase("idle")
                            });
                            continue;
                        }
                        if connection.retired.is_some_and(|until| until <= now) {
                            connections.remove(at).say_goodbye().await;
                            continue;
                        }
                        if connection.heard + QUIET <= now && !connection.asked {
                            connection.asked = true;
                            if connection.send(Frame::Ping(Bytes::from_static(b"openclaw"))).await.is_err() {
                                connections.remove(at);
                                continue;
                            }
                        }
                        at += 1;
                    }
                    let old = connections
                        .iter_mut()
                        .find(|connection| connection.retired.is_none() && connection.until <= now);
                    if let Some(old) = old {
                        // Asked for once; what comes of it, the attempts show.
                        old.until = now + LINGER.saturating_mul(1000);
                        if opening.is_none() && connections.len() < 2 {
                            opening = Some(Box::pin(self.dial()));
                        }
                    }
                }
            }
        }
    }

    /// Takes in what a connection has for us, and acknowledges it once it is on the disk.
    async fn take_in(
        &self,
        link: &Link,
        me: &inbound::Me,
        connection: &mut Connection,
        first: Option<Frame>,
    ) -> Result<Wishes> {
        let mut wishes = Wishes::default();
        let mut messages: Vec<InboundMessage> = Vec::new();
        let mut envelopes = Vec::new();
        let mut frame = first;
        let now_ms = i64::try_from(self.surroundings.now_ms()).unwrap_or(i64::MAX);
        loop {
            match frame {
                None | Some(Frame::Close(..)) => wishes.ended = true,
                Some(Frame::Text(text)) => {
                    if let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(&text) {
                        if envelope.kind == "disconnect" {
                            wishes.replace = true;
                            wishes.fail = wishes.fail.or_else(|| envelope.refused());
                        }
                        if let Some(id) = envelope.id {
                            messages.extend(inbound::read(&envelope.kind, envelope.payload, me, now_ms));
                            envelopes.push(id);
                        }
                    }
                }
                Some(_) => {}
            }
            connection.heard = Instant::now();
            connection.asked = false;
            if wishes.ended || envelopes.len() >= BATCH {
                break;
            }
            // Whatever is here already.
            frame = match connection.socket.next().now_or_never() {
                None => break,
                Some(next) => next.unwrap_or(None),
            };
        }
        wishes.wait = self.keep(link, messages).await?;
        for id in envelopes {
            // Slack takes what is not acknowledged within three seconds for failed, and tells it again.
            if wishes.ended || wishes.wait {
                break;
            }
            // Within it, nothing waits for JavaScript. What cannot be said here comes again, and is known.
            if connection.send(Frame::Text(json!({ "envelope_id": id }).to_string())).await.is_err() {
                wishes.ended = true;
            }
        }
        Ok(wishes)
    }

    fn pending(&self) -> MutexGuard<'_, Vec<InboundMessage>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what was received to the disk.
    async fn flush(&self, link: &Link) -> Result<()> {
        let messages = self.pending().clone();
        let count = messages.len();
        link.receive(messages, None).await?;
        self.pending().drain(..count);
        Ok(())
    }

    /// Writes messages to the disk. Those that it does not take wait for it, and then this is true: Slack would tell them
    /// again after a minute, once more after five, and then never.
    async fn keep(&self, link: &Link, messages: Vec<InboundMessage>) -> Result<bool> {
        let waited = {
            let mut pending = self.pending();
            let waited = pending.len();
            // Slack tells them again meanwhile.
            let new = |message: &InboundMessage| pending.iter().all(|held| held.id != message.id);
            let new: Vec<InboundMessage> = messages.into_iter().filter(new).collect();
            pending.extend(new);
            waited
        };
        match self.flush(link).await {
            Ok(()) => {
                if waited > 0 {
                    link.notice(String::new());
                }
                Ok(false)
            }
            Err(error) if error.code() == Code::Io && self.pending().len() < HELD => {
                let count = self.pending().len();
                link.notice(format!("messages that wait for the disk: {count}. {}", error.message()));
                Ok(true)
            }
            Err(error) => {
                // What no disk is to blame for would keep back all that comes after it.
                if error.code() != Code::Io {
                    self.pending().truncate(waited);
                }
                Err(error)
            }
        }
    }

    /// Opens a connection, and waits for its hello.
    async fn dial(&self) -> Result<Connection> {
        let opened = self.ask_as(&self.app_token, "apps.connections.open", &json!({})).await;
        let opened = opened.map_err(|failed| failed.error)?;
        let lost = |what: &str| CoreError::new(Code::Network, format!("Socket Mode: {what}"));
        let url = opened.get("url").and_then(serde_json::Value::as_str).and_then(|url| Url::parse(url).ok());
        let url = url.ok_or_else(|| lost("Slack named no URL"))?;
        let hello = async {
            let mut socket = self.wire.socket(url, HeaderMap::new()).await?;
            loop {
                let Some(frame) = socket.next().await? else { return Err(lost("closed before its hello")) };
                let Frame::Text(text) = frame else { continue };
                let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(&text) else { continue };
                match envelope.kind.as_str() {
                    "hello" => {
                        let now = Instant::now();
                        let until =
                            now + envelope.life().map_or(EARLY * 400, |life| life.saturating_sub(EARLY));
                        return Ok(Connection {
                            socket,
                            born: now,
                            heard: now,
                            asked: false,
                            until,
                            retired: None,
                        });
                    }
                    "disconnect" => {
                        return Err(envelope.refused().unwrap_or_else(|| lost("sent away")));
                    }
                    _ => {}
                }
            }
        };
        tokio::time::timeout(HELLO, hello).await.unwrap_or_else(|_| {
            Err(CoreError::new(Code::Timeout, "Socket Mode: no hello").in_phase("connect"))
        })
    }
}

/// Waits for whatever comes first.
async fn next(
    link: &Link,
    connections: &mut [Connection],
    opening: &mut Option<Boxed<'_, Result<Connection>>>,
    again: Option<Instant>,
) -> Event {
    let due = connections.iter().map(Connection::due).chain(again).min();
    let heard = async {
        if connections.is_empty() {
            return std::future::pending().await;
        }
        // The old one first: what came over it came earlier.
        let (frame, at, _) =
            select_all(connections.iter_mut().map(|connection| connection.socket.next())).await;
        (at, frame)
    };
    tokio::select! {
        biased;
        () = link.closing().cancelled() => Event::Closing,
        (at, frame) = heard => match frame {
            Ok(frame) => Event::Heard(at, frame),
            Err(error) => {
                tracing::debug!(%error, "a connection broke");
                Event::Heard(at, None)
            }
        },
        connection = async {
            match opening {
                Some(opening) => opening.await,
                None => std::future::pending().await,
            }
        } => Event::Opened(connection),
        () = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        } => Event::Due,
    }
}

/// What a `disconnect` means that is no invitation to come back.
fn refused(reason: &str) -> Option<CoreError> {
    match reason {
        "link_disabled" => {
            let message = "Socket Mode is off: turn it on in the app's settings, under Socket Mode";
            Some(CoreError::new(Code::ChannelAuth, message))
        }
        "too_many_websockets" => {
            let message = "the app has ten connections already, which is all that Slack allows: connection other programs \
                           that use this app-level token";
            Some(CoreError::new(Code::ChannelConflict, message))
        }
        _ => None,
    }
}
