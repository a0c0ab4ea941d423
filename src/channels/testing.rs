//! A platform by script, for tests of what is common to all.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::channel::Channel;
use super::message::{
    Attachment, Chat, ChatKind, InboundMessage, OutboundFile, OutboundMessage, Part, Sender,
};
use super::platform::{Call, Done, Failed, Fate, Limits, Link, Platform, Scope};
use super::{Boxed, Surroundings};
use crate::secrets::Secret;
use crate::{Code, CoreError, Result};

/// So many messages, each acknowledged; fewer once the channel is closed.
pub(crate) async fn receive(channel: &Channel, count: usize) -> Vec<InboundMessage> {
    let mut got = Vec::new();
    while got.len() < count {
        let Some(deliveries) = channel.next(50).await.unwrap() else { break };
        for delivery in deliveries {
            got.push(serde_json::from_str(&delivery.json).unwrap());
            channel.ack(&[delivery.number]).await.unwrap();
        }
    }
    got
}

pub(crate) fn text(to: &str, text: &str) -> OutboundMessage {
    OutboundMessage { to: to.into(), text: text.into(), ..OutboundMessage::default() }
}

pub(crate) fn never() -> CancellationToken {
    CancellationToken::new()
}

/// What becomes of a call.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Taken,
    Refused,
    /// No connection.
    Unsent,
    /// The platform has it, and nobody hears of it.
    Lost,
    /// It never got there, and nobody hears of that.
    Vanished,
    Wait(u64),
    /// No answer for so many milliseconds, then taken.
    Slow(u64),
    Panics,
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) answers: VecDeque<Answer>,
    /// Texts that the platform shows, with their keys.
    pub(crate) shown: Vec<(String, String)>,
    pub(crate) calls: Vec<(Instant, String)>,
    /// The files of the messages of those that send one.
    pub(crate) files: Vec<Vec<OutboundFile>>,
    /// For each connection: what it does.
    pub(crate) runs: VecDeque<Run>,
    pub(crate) connections: Vec<Instant>,
    pub(crate) open: usize,
    pub(crate) most_open: usize,
}

/// What a connection does.
#[derive(Clone, Debug)]
pub(crate) enum Run {
    /// Gives these messages, then ends with this error, or as the platform wished.
    Ends(Vec<&'static str>, Option<Code>),
    RetryAfter(u64),
    /// Answers each second, until it is closed.
    Stands,
    Panics,
    /// Gives the first message up while it is on its way to the disk, gives the others, and stands.
    GivesUp(Vec<&'static str>),
}

#[derive(Clone, Default)]
pub(crate) struct Scripted {
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) keyed: bool,
    pub(crate) limits: Limits,
    pub(crate) identity: Option<Secret>,
    pub(crate) called: Arc<Notify>,
}

pub(crate) fn inbound(id: &str) -> InboundMessage {
    InboundMessage {
        id: id.into(),
        kind: super::message::InboundKind::Message,
        message_id: id.into(),
        chat: Chat { kind: ChatKind::Direct, id: "42".into(), title: None },
        sender: Sender { id: "42".into(), ..Sender::default() },
        text: format!("text of {id}"),
        mentions_me: true,
        attachments: Vec::new(),
        reply_to_id: None,
        thread_id: None,
        timestamp_ms: 1,
        raw: RawValue::from_string("{}".into()).unwrap(),
    }
}

impl Platform for Scripted {
    fn id(&self) -> &'static str {
        "scripted"
    }

    fn limits(&self) -> Limits {
        self.limits.clone()
    }

    fn knows_keys(&self) -> bool {
        self.keyed
    }

    fn identity(&self) -> Option<Secret> {
        self.identity.clone()
    }

    fn run<'a>(&'a self, link: &'a Link) -> Boxed<'a, Result<()>> {
        Box::pin(async move {
            struct Open<'w>(&'w Mutex<World>);
            impl Drop for Open<'_> {
                fn drop(&mut self) {
                    self.0.lock().unwrap().open -= 1;
                }
            }
            let run = {
                let mut world = self.world.lock().unwrap();
                world.connections.push(Instant::now());
                world.open += 1;
                world.most_open = world.most_open.max(world.open);
                world.runs.pop_front().unwrap_or(Run::Stands)
            };
            let _open = Open(&self.world);
            match run {
                Run::Ends(ids, code) => {
                    if !ids.is_empty() {
                        link.receive(ids.into_iter().map(inbound).collect(), None).await?;
                    }
                    code.map_or(Ok(()), |code| Err(CoreError::new(code, "the script says so")))
                }
                Run::RetryAfter(ms) => {
                    Err(CoreError::new(Code::ChannelRateLimited, "not so often").retry_after(ms))
                }
                // Past the hook, which would print each of thousands.
                Run::Panics => std::panic::resume_unwind(Box::new("the script says so")),
                Run::GivesUp(ids) => {
                    let mut ids = ids.into_iter().map(inbound);
                    let first = link.receive(ids.next().into_iter().collect(), None);
                    assert!(futures_util::poll!(Box::pin(first)).is_pending());
                    link.receive(ids.collect(), None).await?;
                    link.closing().cancelled().await;
                    Ok(())
                }
                Run::Stands => loop {
                    link.verified();
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_secs(1)) => {}
                        () = link.closing().cancelled() => return Ok(()),
                    }
                },
            }
        })
    }

    fn render(&self, message: &OutboundMessage) -> Result<Vec<Part>> {
        let parts = message.text.split('|').filter(|text| !text.is_empty());
        Ok(parts.map(|text| Part { text: text.into(), source: text.into(), files: 0..0 }).collect())
    }

    fn call<'a>(&'a self, call: &'a Call) -> Boxed<'a, Result<Done, Failed>> {
        Box::pin(async move {
            let (text, key) = match call {
                Call::Send { part, key, .. } => (part.text.clone(), key.clone()),
                Call::Edit { text, .. } => (format!("edit {text}"), String::new()),
                Call::React { emoji, .. } => (format!("react {emoji}"), String::new()),
                Call::Typing { .. } => ("typing".into(), String::new()),
            };
            let answer = {
                let mut world = self.world.lock().unwrap();
                world.calls.push((Instant::now(), text.clone()));
                if let Call::Send { message, .. } = call {
                    world.files.push(message.files.clone());
                }
                world.answers.pop_front().unwrap_or(Answer::Taken)
            };
            self.called.notify_waiters();
            if let Answer::Slow(ms) = answer {
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            tokio::task::yield_now().await;
            let show = || {
                let mut world = self.world.lock().unwrap();
                let known = self.keyed && world.shown.iter().any(|(_, shown)| *shown == key);
                if !known {
                    world.shown.push((text.clone(), key.clone()));
                }
                format!("id of {text}")
            };
            let failed = |fate, code| Err(Failed::new(fate, CoreError::new(code, "the script says so")));
            match answer {
                Answer::Taken | Answer::Slow(_) => Ok(Done::made(show())),
                Answer::Panics => panic!("the script says so"),
                Answer::Refused => failed(Fate::Refused, Code::ChannelSend),
                Answer::Unsent => failed(Fate::Unsent, Code::Network),
                Answer::Lost => {
                    show();
                    failed(Fate::Unknown, Code::Timeout)
                }
                Answer::Vanished => failed(Fate::Unknown, Code::Timeout),
                Answer::Wait(ms) => {
                    Err(Failed::rate_limited("the call", Duration::from_millis(ms), Scope::Bot))
                }
            }
        })
    }

    fn download<'a>(&'a self, _: &'a Attachment, _: usize) -> Boxed<'a, Result<Bytes>> {
        Box::pin(async { Ok(Bytes::from_static(b"file")) })
    }
}

impl Scripted {
    pub(crate) fn shown(&self) -> Vec<String> {
        self.world.lock().unwrap().shown.iter().map(|(text, _)| text.clone()).collect()
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.world.lock().unwrap().calls.iter().map(|(_, text)| text.clone()).collect()
    }
}

/// Tokio's clock, and chance by a seed.
pub(crate) struct Simulated {
    began: Instant,
    seed: Mutex<u64>,
}

impl Simulated {
    pub(crate) fn surroundings(seed: u64) -> Arc<dyn Surroundings> {
        Arc::new(Self { began: Instant::now(), seed: Mutex::new(seed | 1) })
    }
}

impl Surroundings for Simulated {
    fn now_ms(&self) -> u64 {
        1_700_000_000_000 + u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    fn chance(&self) -> f64 {
        let mut seed = self.seed.lock().unwrap();
        *seed ^= *seed >> 12;
        *seed ^= *seed << 25;
        *seed ^= *seed >> 27;
        f64::from(u32::try_from(seed.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32).unwrap())
            / f64::from(u32::MAX)
    }
}

/// The seeds of a test of fault scripts: 150 from 1 on, and those that once found a fault. `OPENCLAW_CORE_CASES` makes it
/// another number, `OPENCLAW_CORE_SEED` begins elsewhere; with the latter alone, it is that one seed.
pub(crate) fn seeds(once: &[u64]) -> Vec<u64> {
    let told = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, cases) = (told("OPENCLAW_CORE_SEED"), told("OPENCLAW_CORE_CASES"));
    let count = cases.unwrap_or(if first.is_some() { 1 } else { USUAL_SEEDS });
    let begin = first.unwrap_or(1);
    let others = once.iter().filter(|seed| first.is_none() && **seed > count);
    (begin..begin + count).chain(others.copied()).collect()
}

/// How many scripts it takes for each kind of fate to occur.
pub(crate) const USUAL_SEEDS: u64 = 150;

/// What passed, for whoever has to find out why a script failed: it is printed if the test fails while this lives.
pub(crate) struct Trail<P: openclaw_channel_sim::Platform + 'static>(pub(crate) openclaw_channel_sim::Net<P>);

impl<P: openclaw_channel_sim::Platform + 'static> Trail<P> {
    pub(crate) fn lines(&self) -> String {
        use openclaw_channel_sim::sim::Event;
        self.0.with(|sim| {
            let began = sim.log().next().map_or(0, |entry| entry.at);
            let lines = sim.log().map(|entry| {
                let at = entry.at - began;
                match &entry.event {
                    Event::Request { id, request, .. } => {
                        format!("{at} {id} -> {} {}", request.method, request.path)
                    }
                    Event::Answer { id, response } => format!("{at} {id} <- {}", response.status),
                    Event::In { id, frame } => format!("{at} {id} -> {frame:?}"),
                    Event::Out { id, label, .. } => format!("{at} {id} <- {label}"),
                    other => format!("{at} {other:?}"),
                }
            });
            lines.collect::<Vec<_>>().join("\n")
        })
    }
}

impl<P: openclaw_channel_sim::Platform + 'static> Drop for Trail<P> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.lines());
        }
    }
}

/// The way to a simulated platform.
pub(crate) struct SimWire<P>(pub(crate) openclaw_channel_sim::Net<P>);

struct SimBody<P: openclaw_channel_sim::Platform + 'static>(
    Option<Vec<u8>>,
    Option<openclaw_channel_sim::net::Connection<P>>,
);

fn broken() -> CoreError {
    CoreError::new(Code::Network, "the connection broke")
}

fn sim_request(request: &super::wire::HttpRequest) -> openclaw_channel_sim::Request {
    let mut path = request.url.path().to_owned();
    if let Some(query) = request.url.query() {
        path.push('?');
        path.push_str(query);
    }
    let mut sent = openclaw_channel_sim::Request::new(request.method.as_str(), &path);
    for (name, value) in &request.headers {
        sent = sent.header(name.as_str(), value.to_str().unwrap());
    }
    sent.body.clone_from(&request.body);
    sent
}

impl<P: openclaw_channel_sim::Platform + 'static> super::wire::Body for SimBody<P> {
    fn chunk(&mut self) -> Boxed<'_, Result<Option<Bytes>>> {
        use openclaw_channel_sim::net::Event;
        Box::pin(async move {
            if let Some(bytes) = self.0.take().filter(|bytes| !bytes.is_empty()) {
                return Ok(Some(bytes.into()));
            }
            let Some(connection) = &mut self.1 else { return Ok(None) };
            match connection.next().await {
                Event::Chunk(bytes) => Ok(Some(bytes.into())),
                Event::End => Ok(None),
                _ => Err(broken()),
            }
        })
    }
}

impl<P: openclaw_channel_sim::Platform + Send + 'static> super::wire::Wire for SimWire<P> {
    fn send(
        &self,
        request: super::wire::HttpRequest,
    ) -> Boxed<'_, Result<super::wire::Answer, super::wire::Unsent>> {
        Box::pin(async move {
            let opened = self.0.open(sim_request(&request)).await;
            let (response, connection) =
                opened.map_err(|_| super::wire::Unsent { error: broken(), retry: false })?;
            let mut headers = reqwest::header::HeaderMap::new();
            for (name, value) in &response.headers {
                let name = reqwest::header::HeaderName::from_bytes(name.as_bytes()).unwrap();
                headers.append(name, value.parse().unwrap());
            }
            let body = Box::new(SimBody(Some(response.body), connection));
            Ok(super::wire::Answer { status: response.status, headers, body })
        })
    }

    fn socket(
        &self,
        url: reqwest::Url,
        headers: reqwest::header::HeaderMap,
    ) -> Boxed<'_, Result<Box<dyn super::wire::Socket>>> {
        Box::pin(async move {
            let method = reqwest::Method::GET;
            let request = super::wire::HttpRequest { method, url, headers, body: Vec::new() };
            let host = request.url.host_str().unwrap_or_default().to_owned();
            let connection = self.0.connect(sim_request(&request).header("host", &host)).await;
            let connection = connection.map_err(|_| broken())?;
            Ok(Box::new(SimSocket(Some(connection))) as Box<dyn super::wire::Socket>)
        })
    }

    fn listen(
        &self,
        _: std::net::SocketAddr,
        gate: super::webhook::Gate,
    ) -> Boxed<'_, Result<Box<dyn super::webhook::Listener>>> {
        let listener = SimListener(self.0.calls(), gate);
        Box::pin(async { Ok(Box::new(listener) as Box<dyn super::webhook::Listener>) })
    }
}

/// Where the simulator's calls of a webhook come.
struct SimListener(
    tokio::sync::mpsc::UnboundedReceiver<openclaw_channel_sim::net::Call>,
    super::webhook::Gate,
);

impl super::webhook::Listener for SimListener {
    fn next(&mut self) -> Boxed<'_, Option<super::webhook::Called>> {
        Box::pin(async move {
            let (call, method, url, headers) = loop {
                let call = self.0.recv().await?;
                let request = &call.request;
                let mut url = reqwest::Url::parse(&request.path).unwrap();
                url.query_pairs_mut().extend_pairs(&request.query);
                let mut headers = reqwest::header::HeaderMap::new();
                for (name, value) in &request.headers {
                    let name = reqwest::header::HeaderName::from_bytes(name.as_bytes()).unwrap();
                    headers.append(name, value.parse().unwrap());
                }
                let method = request.method.parse().unwrap();
                let Some(status) = (self.1)(&method, url.path(), &headers) else {
                    break (call, method, url, headers);
                };
                call.answer(Some(openclaw_channel_sim::Response {
                    status,
                    headers: Vec::new(),
                    body: Vec::new(),
                }));
            };
            let request = &call.request;
            let (called, answered) = super::webhook::Called::new(
                method,
                url.path().to_owned(),
                url.query().unwrap_or_default().to_owned(),
                headers,
                request.body.clone().into(),
            );
            tokio::spawn(async move {
                let response = answered.await.ok().map(|(status, body)| openclaw_channel_sim::Response {
                    status,
                    headers: Vec::new(),
                    body: body.to_vec(),
                });
                call.answer(response);
            });
            Some(called)
        })
    }
}

/// A WebSocket of the simulator's.
struct SimSocket<P: openclaw_channel_sim::Platform + 'static>(
    Option<openclaw_channel_sim::net::Connection<P>>,
);

impl<P: openclaw_channel_sim::Platform + Send + 'static> super::wire::Socket for SimSocket<P> {
    fn next(&mut self) -> Boxed<'_, Result<Option<super::wire::Frame>>> {
        use openclaw_channel_sim::net::Event;
        use openclaw_channel_sim::wire::Frame as Sim;

        use super::wire::Frame;
        Box::pin(async move {
            let Some(connection) = &mut self.0 else { return Ok(None) };
            Ok(Some(match connection.next().await {
                Event::Frame(Sim::Text(text)) => Frame::Text(text),
                Event::Frame(Sim::Binary(bytes)) => Frame::Binary(bytes.into()),
                Event::Frame(Sim::Ping(bytes)) => Frame::Ping(bytes.into()),
                Event::Frame(Sim::Pong(bytes)) => Frame::Pong(bytes.into()),
                Event::Closed { code, reason } => {
                    self.0 = None;
                    Frame::Close(Some(code), reason)
                }
                Event::Chunk(_) | Event::End | Event::Broken => return Err(broken()),
            }))
        })
    }

    fn send(&mut self, frame: super::wire::Frame) -> Boxed<'_, Result<()>> {
        use openclaw_channel_sim::wire::Frame as Sim;

        use super::wire::Frame;
        Box::pin(async move {
            let Some(connection) = &self.0 else { return Err(broken()) };
            match frame {
                Frame::Text(text) => connection.send(Sim::Text(text)),
                Frame::Binary(bytes) => connection.send(Sim::Binary(bytes.into())),
                Frame::Ping(bytes) => connection.send(Sim::Ping(bytes.into())),
                Frame::Pong(bytes) => connection.send(Sim::Pong(bytes.into())),
                Frame::Close(code, _) => {
                    if let Some(connection) = self.0.take() {
                        connection.close(code.unwrap_or(1005));
                    }
                }
            }
            Ok(())
        })
    }
}

/// What a scripted network answers: the status, a header, and the body; none for no answer ever.
pub(crate) type Said = Option<(u16, &'static str, String)>;

/// A network by script, each answer of which takes a millisecond; what the script does not know goes to another one.
pub(crate) struct Saying<F>(pub(crate) F, pub(crate) Option<Box<dyn super::wire::Wire>>);

struct Text(Option<String>);

impl super::wire::Body for Text {
    fn chunk(&mut self) -> Boxed<'_, Result<Option<Bytes>>> {
        Box::pin(async { Ok(self.0.take().map(Bytes::from)) })
    }
}

impl<F> super::wire::Wire for Saying<F>
where
    F: Fn(&super::wire::HttpRequest) -> Option<Said> + Send + Sync + 'static,
{
    fn send(
        &self,
        request: super::wire::HttpRequest,
    ) -> Boxed<'_, Result<super::wire::Answer, super::wire::Unsent>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            match (self.0(&request), &self.1) {
                (None, Some(other)) => other.send(request).await,
                (None | Some(None), _) => std::future::pending().await,
                (Some(Some((status, kind, body))), _) => {
                    let mut headers = reqwest::header::HeaderMap::new();
                    headers.insert("content-type", kind.parse().unwrap());
                    Ok(super::wire::Answer { status, headers, body: Box::new(Text(Some(body))) })
                }
            }
        })
    }

    fn socket(
        &self,
        url: reqwest::Url,
        headers: reqwest::header::HeaderMap,
    ) -> Boxed<'_, Result<Box<dyn super::wire::Socket>>> {
        self.1.as_ref().unwrap().socket(url, headers)
    }

    fn listen(
        &self,
        at: std::net::SocketAddr,
        gate: super::webhook::Gate,
    ) -> Boxed<'_, Result<Box<dyn super::webhook::Listener>>> {
        self.1.as_ref().unwrap().listen(at, gate)
    }
}

/// A value with one part of it, whichever, of another kind, absurd or gone.
pub(crate) fn mutated(value: &serde_json::Value, seed: u64) -> serde_json::Value {
    use serde_json::{Value, json};
    fn paths(value: &Value, at: &str, all: &mut Vec<String>) {
        all.push(at.to_owned());
        match value {
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(n, item)| paths(item, &format!("{at}/{n}"), all));
            }
            Value::Object(fields) => {
                for (name, field) in fields {
                    let name = name.replace('~', "~0").replace('/', "~1");
                    paths(field, &format!("{at}/{name}"), all);
                }
            }
            _ => {}
        }
    }
    let chance =
        Simulated { began: Instant::now(), seed: Mutex::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1) };
    let below = |bound: usize| {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let chosen = (chance.chance() * bound as f64) as usize;
        chosen.min(bound - 1)
    };
    let mut all = Vec::new();
    paths(value, "", &mut all);
    let path = &all[below(all.len())];
    let mut out = value.clone();
    let instead = [
        Value::Null,
        json!(true),
        json!(-1),
        json!(i64::MIN),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1.0e300),
        json!(""),
        json!("\u{0}\u{202e}../../etc/passwd"),
        json!("x".repeat(5000)),
        json!([]),
        json!([null]),
        json!({}),
        json!({ "": { "": [] } }),
    ];
    match (path.rsplit_once('/'), below(instead.len() + 1)) {
        (Some((parent, name)), 0) => match out.pointer_mut(parent).unwrap() {
            Value::Object(fields) => _ = fields.remove(&name.replace("~1", "/").replace("~0", "~")),
            Value::Array(items) => _ = items.remove(name.parse().unwrap()),
            _ => {}
        },
        (_, choice) => *out.pointer_mut(path).unwrap() = instead[choice.saturating_sub(1)].clone(),
    }
    out
}

/// How many mutated forms of each sample a test reads.
pub(crate) const MUTANTS: u64 = 2000;
