//! The Gateway: <https://docs.discord.com/developers/events/gateway>.

use std::time::Duration;

use flate2::{Decompress, FlushDecompress, Status};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use reqwest::header::HeaderMap;
use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::interactions::{self, Pending};
use super::{Content, Discord, Place, at, inbound};
use crate::channels::message::InboundMessage;
use crate::channels::platform::Link;
use crate::channels::wire::{Frame, Socket};
use crate::{Code, CoreError, Result};

/// Until the connection says Hello.
const HELLO: Duration = Duration::from_secs(20);
/// For a frame to be taken.
const SEND: Duration = Duration::from_secs(5);
/// For Discord to show that it is there at all.
const PROBE: Duration = Duration::from_secs(5);
/// One Identify in so long, and a little more for the way that it takes:
/// <https://docs.discord.com/developers/events/gateway#session-start-limit-object>
const IDENTIFY: Duration = Duration::from_millis(5250);
/// Attempts to resume a session, before a new one begins.
const ATTEMPTS: u32 = 3;
/// Of an event.
const EVENT: usize = 32 << 20;
/// Events that wait for the disk; then no more are read, but heartbeats go on.
const WAITING: usize = 256;
/// Events that are written to the disk together.
const BATCH: usize = 64;
/// For the answers to interactions that are under way when a connection ends.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Any code but 1000 and 1001, which would end the session.
const KEEP_SESSION: u16 = 4000;

/// A session that can be resumed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    id: String,
    url: String,
    /// Of the last event that is on the disk, or that needs none.
    seq: u64,
}

/// What is known of resuming.
#[derive(Default)]
pub(super) struct Resumption {
    session: Option<Session>,
    /// Attempts since the session was last alive.
    failures: u32,
    /// Whether the cursor was looked at.
    asked: bool,
    /// When the last session was asked for.
    identified: Option<Instant>,
}

/// An event on its way to the disk.
struct Item {
    /// The message in it, and the type of its channel if the event says so. None: only the session is new.
    message: Option<(InboundMessage, Option<u64>)>,
    /// With the event's number.
    session: Session,
}

#[derive(Deserialize)]
struct Payload<'a> {
    op: u64,
    #[serde(borrow, default)]
    d: Option<&'a RawValue>,
    s: Option<u64>,
    t: Option<String>,
}

fn broken(message: impl Into<String>) -> CoreError {
    CoreError::new(Code::Network, message)
}

/// One stream for the whole connection; an event ends with an empty block.
struct Inflate {
    zlib: Decompress,
    waiting: Vec<u8>,
}

impl Inflate {
    fn read(&mut self, bytes: &[u8]) -> Result<Option<String>> {
        self.waiting.extend_from_slice(bytes);
        if !self.waiting.ends_with(&[0, 0, 0xFF, 0xFF]) {
            return if self.waiting.len() > EVENT {
                Err(broken("an event of the Gateway is too long"))
            } else {
                Ok(None)
            };
        }
        let input = std::mem::take(&mut self.waiting);
        let mut text = Vec::with_capacity(input.len() * 4);
        let start = self.zlib.total_in();
        loop {
            let read = usize::try_from(self.zlib.total_in() - start).unwrap_or(usize::MAX);
            let rest = input.get(read..).unwrap_or_default();
            text.reserve(text.len().max(1024));
            let (taken, before) = (self.zlib.total_in(), text.len());
            let status = self.zlib.decompress_vec(rest, &mut text, FlushDecompress::Sync);
            let status =
                status.map_err(|error| broken(format!("the Gateway's stream is no zlib: {error}")))?;
            if text.len() > EVENT {
                return Err(broken("an event of the Gateway is too long"));
            }
            // It may hold some back though there is room and all input was taken: it is empty when nothing moves.
            if status == Status::StreamEnd || (text.len() == before && self.zlib.total_in() == taken) {
                break;
            }
        }
        String::from_utf8(text).map(Some).map_err(|_| broken("an event of the Gateway is no UTF-8"))
    }
}

/// Connects, and receives until the connection ends.
pub(super) async fn run(discord: &Discord, link: &Link) -> Result<()> {
    let me = tokio::select! {
        biased;
        () = link.closing().cancelled() => return Ok(()),
        me = discord.me() => me?,
    };
    let session = {
        let mut known = discord.resumption();
        if !std::mem::replace(&mut known.asked, true) {
            known.session = link.cursor().and_then(|cursor| serde_json::from_str(&cursor).ok());
        }
        if known.failures >= ATTEMPTS {
            known.session = None;
        }
        known.failures += 1;
        known.session.clone()
    };
    let resumes = session.is_some();
    let outcome = connection(discord, link, me, session).await;
    let failures = discord.resumption().failures;
    if resumes && outcome.is_err() && failures > 0 && !link.closing().is_cancelled() {
        // Where nothing of Discord's answers, the network is away, which says nothing of the session.
        let there = discord.value(Method::GET, &["gateway"], Content::None);
        if !timeout(PROBE, there).await.is_ok_and(|answer| answer.is_ok()) {
            discord.resumption().failures = failures - 1;
        }
    }
    outcome
}

/// One connection, to its end.
async fn connection(discord: &Discord, link: &Link, me: &str, session: Option<Session>) -> Result<()> {
    let connected = async {
        let url = if let Some(session) = &session {
            session.url.clone()
        } else {
            let soonest = discord.resumption().identified.map(|last| last + IDENTIFY);
            if let Some(soonest) = soonest {
                sleep_until(soonest).await;
            }
            gateway_url(discord).await?
        };
        let hello = timeout(HELLO, dial(discord, socket_url(discord, &url)?)).await;
        hello.unwrap_or_else(|_| Err(broken("the Gateway said no Hello")))
    };
    let (socket, inflate, interval) = tokio::select! {
        biased;
        () = link.closing().cancelled() => return Ok(()),
        connected = connected => connected?,
    };
    let (spool, events) = mpsc::channel(WAITING);
    let mut connection = Connection {
        discord,
        link,
        me,
        socket,
        inflate,
        interval,
        session: session.clone(),
        seq: session.as_ref().map(|session| session.seq),
        acknowledged: true,
        beat: Instant::now() + interval.mul_f64(discord.surroundings.chance()),
        spool: Some(spool),
    };
    let token = discord.token.expose_str()?;
    let first = if let Some(session) = &session {
        json!({ "op": 6, "d": { "token": token, "session_id": session.id, "seq": session.seq } })
    } else {
        discord.resumption().identified = Some(Instant::now());
        json!({ "op": 2, "d": {
            "token": token, "intents": discord.intents,
            "properties": { "os": std::env::consts::OS, "browser": "openclaw-core", "device": "openclaw-core" },
        } })
    };
    connection.send(&first).await?;
    let listen = async {
        let outcome = connection.listen().await;
        connection.spool = None;
        // Without a goodbye that would end the session.
        let goodbye = connection.socket.send(Frame::Close(Some(KEEP_SESSION), String::new()));
        _ = timeout(Duration::from_secs(1), goodbye).await;
        outcome
    };
    let receive = async {
        let (listened, written) = tokio::join!(listen, write(discord, link, events));
        written.and(listened)
    };
    tokio::select! {
        outcome = receive => outcome,
        () = async {
            interactions::register(discord, link).await;
            std::future::pending::<()>().await;
        } => Ok(()),
    }
}

/// Writes what comes beside the connection, so that no heartbeat waits for the disk, and answers interactions then. Ends
/// with the connection; where the disk does not take it, the connection ends with this.
async fn write(discord: &Discord, link: &Link, mut events: mpsc::Receiver<Item>) -> Result<()> {
    let mut answers = FuturesUnordered::new();
    let mut batch = Vec::new();
    loop {
        let count = tokio::select! {
            biased;
            Some(()) = answers.next() => continue,
            count = events.recv_many(&mut batch, BATCH) => count,
        };
        if count == 0 {
            break;
        }
        let mut messages = Vec::new();
        let mut pending: Vec<Pending> = Vec::new();
        let (mut read_to, mut ask) = (None, true);
        for Item { message, session } in batch.drain(..) {
            read_to = Some(session);
            if let Some((mut message, kind)) = message {
                discord.place(&mut message, kind, &mut ask).await;
                // Before JavaScript has the message, so that its answer finds it.
                pending.extend(discord.pending(&message));
                messages.push(message);
            }
        }
        let cursor = read_to.as_ref().and_then(|session| serde_json::to_string(session).ok());
        link.receive(messages, cursor).await?;
        if let Some(session) = read_to {
            discord.resumption().advance(&session);
        }
        answers.extend(pending.into_iter().map(|pending| interactions::answer(discord, pending)));
    }
    let rest = async { while answers.next().await.is_some() {} };
    _ = timeout(LAST_ANSWERS, rest).await;
    Ok(())
}

/// Opens a connection, and waits for its Hello, which says how often the heart has to beat.
async fn dial(discord: &Discord, url: Url) -> Result<(Box<dyn Socket>, Inflate, Duration)> {
    let mut socket = discord.wire.socket(url, HeaderMap::new()).await?;
    let mut inflate = Inflate { zlib: Decompress::new(true), waiting: Vec::new() };
    let hello = match next(&mut *socket, &mut inflate).await? {
        Heard::Event(text) => serde_json::from_str::<Value>(&text).unwrap_or_default(),
        Heard::Closed(code, reason) => return Err(closed(discord, code, &reason)),
    };
    let interval = at(at(&hello, "d"), "heartbeat_interval").as_u64().filter(|_| at(&hello, "op") == 10);
    let interval = interval.filter(|ms| (1..=600_000).contains(ms));
    let interval = interval.ok_or_else(|| broken("the Gateway said no Hello"))?;
    Ok((socket, inflate, Duration::from_millis(interval)))
}

impl Resumption {
    fn advance(&mut self, to: &Session) {
        if let Some(session) = self.session.as_mut().filter(|session| session.id == to.id) {
            session.seq = session.seq.max(to.seq);
        }
    }
}

/// Where to connect for a new session.
async fn gateway_url(discord: &Discord) -> Result<String> {
    let gateway = discord.value(Method::GET, &["gateway", "bot"], Content::None).await?;
    let limit = at(&gateway, "session_start_limit");
    if at(limit, "remaining").as_u64() == Some(0) {
        let wait = at(limit, "reset_after").as_u64().unwrap_or(3_600_000).max(1000);
        let message = "no more sessions may be started today (session_start_limit)";
        return Err(CoreError::new(Code::ChannelRateLimited, message).retry_after(wait));
    }
    let url = at(&gateway, "url").as_str().map(str::to_owned);
    url.ok_or_else(|| broken("Discord did not say where its Gateway is"))
}

/// A URL that Discord named, with the parameters.
fn socket_url(discord: &Discord, url: &str) -> Result<Url> {
    let url = Url::parse(url).ok();
    // What holds the token goes in the clear only to a server that was itself named so.
    let scheme = if discord.base.scheme() == "https" { "wss" } else { "ws" };
    let mut url = url
        .filter(|url| url.scheme() == scheme || url.scheme() == "wss")
        .ok_or_else(|| broken("Discord named no secure URL of its Gateway"))?;
    url.set_query(Some("v=10&encoding=json&compress=zlib-stream"));
    Ok(url)
}

/// What a closed connection means: <https://docs.discord.com/developers/topics/opcodes-and-status-codes#gateway-gateway-close-event-codes>
fn closed(discord: &Discord, code: Option<u16>, reason: &str) -> CoreError {
    let advice = match code {
        Some(4004) => Some("the token is not valid: make a new one in the Developer Portal"),
        Some(4010 | 4011) => {
            Some("the bot is in too many guilds for one connection, which this adapter does not shard")
        }
        Some(4012) => Some("this version of the Gateway is no longer there: update"),
        Some(4013) => Some("`intents` are not valid"),
        Some(4014) => Some(
            "an intent is not switched on: in the Developer Portal, under Bot, switch on Message Content Intent",
        ),
        _ => None,
    };
    // With the others, also 4009, to ask for the old session costs nothing: where it is gone, Discord says so.
    if matches!(code, Some(4004 | 4007 | 4010..=4014)) {
        discord.resumption().session = None;
    }
    let code_text = code.map_or_else(|| "no code".to_owned(), |code| code.to_string());
    match advice {
        Some(advice) => {
            CoreError::new(Code::ChannelAuth, format!("the Gateway closed with {code_text}: {advice}"))
        }
        None => broken(format!("the Gateway closed with {code_text}: {reason}")),
    }
}

enum Heard {
    Event(String),
    Closed(Option<u16>, String),
}

async fn next(socket: &mut dyn Socket, inflate: &mut Inflate) -> Result<Heard> {
    loop {
        match socket.next().await? {
            Some(Frame::Text(text)) => return Ok(Heard::Event(text)),
            Some(Frame::Binary(bytes)) => {
                if let Some(text) = inflate.read(&bytes)? {
                    return Ok(Heard::Event(text));
                }
            }
            Some(Frame::Close(code, reason)) => return Ok(Heard::Closed(code, reason)),
            Some(Frame::Ping(_) | Frame::Pong(_)) => {}
            None => return Err(broken("the connection to the Gateway broke")),
        }
    }
}

struct Connection<'a> {
    discord: &'a Discord,
    link: &'a Link,
    me: &'a str,
    socket: Box<dyn Socket>,
    inflate: Inflate,
    interval: Duration,
    session: Option<Session>,
    /// Of the last event that came.
    seq: Option<u64>,
    acknowledged: bool,
    /// When the next heartbeat is due.
    beat: Instant,
    spool: Option<mpsc::Sender<Item>>,
}

impl Connection<'_> {
    async fn send(&mut self, payload: &Value) -> Result<()> {
        let late = || Err(CoreError::new(Code::Timeout, "the connection to the Gateway takes nothing more"));
        timeout(SEND, self.socket.send(Frame::Text(payload.to_string()))).await.unwrap_or_else(|_| late())
    }

    async fn heartbeat(&mut self) -> Result<()> {
        self.acknowledged = false;
        self.beat = Instant::now() + self.interval;
        self.send(&json!({ "op": 1, "d": self.seq })).await
    }

    async fn listen(&mut self) -> Result<()> {
        let Some(spool) = self.spool.clone() else { return Ok(()) };
        loop {
            let room = spool.capacity() > 0;
            tokio::select! {
                biased;
                () = self.link.closing().cancelled() => return Ok(()),
                // What takes the events has failed, and says why.
                () = spool.closed() => return Ok(()),
                () = sleep_until(self.beat) => {
                    // While nothing is read, an acknowledgement may lie there unread.
                    if !self.acknowledged && room {
                        return Err(broken("the Gateway did not acknowledge the last heartbeat"));
                    }
                    self.heartbeat().await?;
                }
                // Room comes when an event is on the disk.
                permit = spool.reserve(), if !room => drop(permit),
                heard = next(&mut *self.socket, &mut self.inflate), if room => match heard? {
                    Heard::Closed(code, reason) => return Err(closed(self.discord, code, &reason)),
                    Heard::Event(text) => {
                        if self.event(&text).await? {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    /// Whether Discord asked for a new connection.
    async fn event(&mut self, text: &str) -> Result<bool> {
        let payload: Payload<'_> = serde_json::from_str(text)
            .map_err(|_| broken("an event of the Gateway is no JSON of its own"))?;
        match payload.op {
            0 => {
                self.seq = payload.s.or(self.seq);
                let kind = payload.t.unwrap_or_default();
                self.dispatched(&kind, payload.d, payload.s.unwrap_or(0)).await?;
            }
            1 => self.heartbeat().await?,
            7 => return Ok(true),
            9 => {
                let resumable = payload.d.is_some_and(|data| data.get() == "true");
                if !resumable {
                    self.discord.resumption().session = None;
                }
                // Discord asks for a random wait of 1 to 5 s.
                let wait = 1000.0 + 4000.0 * self.discord.surroundings.chance();
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "between 1000 and 5000"
                )]
                let error = broken("the Gateway says that the session is not valid").retry_after(wait as u64);
                return Err(error);
            }
            11 => {
                self.acknowledged = true;
                self.link.verified();
            }
            _ => {}
        }
        Ok(false)
    }

    async fn dispatched(&mut self, kind: &str, data: Option<&RawValue>, seq: u64) -> Result<()> {
        match kind {
            "READY" => {
                let ready: Value =
                    data.and_then(|data| serde_json::from_str(data.get()).ok()).unwrap_or_default();
                let word = |name: &str| at(&ready, name).as_str().map(str::to_owned);
                let session = word("session_id").zip(word("resume_gateway_url"));
                self.session = session.map(|(id, url)| Session { id, url, seq });
                let mut known = self.discord.resumption();
                known.session.clone_from(&self.session);
                known.failures = 0;
            }
            "RESUMED" => self.discord.resumption().failures = 0,
            "GUILD_CREATE" | "THREAD_LIST_SYNC" => {
                if let Some(guild) = data.and_then(|data| serde_json::from_str::<Guild>(data.get()).ok()) {
                    self.discord.learn(guild.channels.into_iter().chain(guild.threads));
                }
            }
            "CHANNEL_CREATE" | "CHANNEL_UPDATE" | "THREAD_CREATE" | "THREAD_UPDATE" => {
                self.discord.learn(data.and_then(|data| serde_json::from_str::<Place>(data.get()).ok()));
            }
            "INTERACTION_CREATE" => {
                let data = data.and_then(|data| serde_json::from_str::<Within>(data.get()).ok());
                self.discord.learn(data.and_then(|data| data.channel));
            }
            _ => {}
        }
        if matches!(kind, "READY" | "RESUMED") {
            self.link.verified();
        }
        let (Some(session), Some(data)) = (&mut self.session, data) else { return Ok(()) };
        session.seq = session.seq.max(seq);
        let message = inbound::read(kind, data, self.me, &session.id, seq);
        // A new session is written down before anything comes in it: the next process resumes it.
        if message.is_none() && kind != "READY" {
            return Ok(());
        }
        let session = session.clone();
        if let Some(spool) = &self.spool {
            // There is room: this was looked at before the event was read.
            _ = spool.send(Item { message, session }).await;
        }
        Ok(())
    }
}

/// Of an interaction, where it was.
#[derive(Deserialize)]
struct Within {
    channel: Option<Place>,
}

/// Of a guild, what is looked at.
#[derive(Deserialize)]
struct Guild {
    #[serde(default)]
    channels: Vec<Place>,
    #[serde(default)]
    threads: Vec<Place>,
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    #[test]
    fn events_of_any_size_come_out_whole() {
        let mut zlib = Compress::new(Compression::default(), true);
        let mut inflate = Inflate { zlib: Decompress::new(true), waiting: Vec::new() };
        for channels in [0, 1, 100, 400, 1000, 20_000, 3] {
            let mut event = String::new();
            for n in 0..channels {
                event += &json!({ "id": n.to_string(), "type": 0 }).to_string();
            }
            let mut sent = Vec::with_capacity(event.len() + 1024);
            zlib.compress_vec(event.as_bytes(), &mut sent, FlushCompress::Sync).unwrap();
            assert!(sent.ends_with(&[0, 0, 0xFF, 0xFF]));
            let (first, second) = sent.split_at(sent.len() / 2);
            assert_eq!(inflate.read(first).unwrap(), None);
            assert_eq!(inflate.read(second).unwrap().unwrap().len(), event.len(), "{channels}");
        }
    }
}
