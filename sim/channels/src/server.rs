//! The simulation over TCP: a front of HTTP and WebSockets to a [`Net`].
//!
//! Everything under `/_sim/` is for tests and no part of the platform:
//!
//! | | |
//! |---|---|
//! | `POST /_sim/do/ACTION` | what the platform's `control` can do; the body is its arguments |
//! | `POST /_sim/faults` | adds faults (an array of [`Fault`]); `DELETE` takes back what did not strike yet |
//! | `GET /_sim/log?after=N&wait=MS` | the log from line N on; waits until there is one |
//! | `GET /_sim/violations` | every rule that was broken |
//! | `GET /_sim/state` | what the platform knows |
//! | `GET /_sim/rules` | the rules, with their sources |
//! | `POST /_sim/advance` | `{"ms"}`: moves the platform's clocks on; timers fire |
//! | `POST /_sim/jump` | `{"ms"}`: the wall clock alone jumps |
//! | `POST /_sim/sockets` | `{"do": "cut" or "half_open"}`: all open WebSockets |
//! | `POST /_sim/load` | does an action many times at a steady rate ([`Load`]), and answers when it is done |
//! | `GET /_sim/load` | for each request that held a [`STAMP`] since the last such call: how long it was on the way, in µs |

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role};

use crate::net::{Connection, Event, Net};
use crate::platform::Platform;
use crate::sim::Fault;
use crate::wire::{Frame, Request, Response};

type Body = UnsyncBoxBody<Bytes, Broken>;

/// Before the 16 digits of the wall clock's µs since 1970, in a text that a measured client sends.
pub const STAMP: &str = "sent";
const DIGITS: usize = 16;

/// The times that [`STAMP`]s were on the way.
type Delays = Arc<Mutex<Vec<i64>>>;

/// Many times the same action, at a steady rate by the clock: what comes late is made up for.
#[derive(Deserialize)]
struct Load {
    action: String,
    #[serde(default)]
    arguments: Map<String, Value>,
    /// Where the text goes: `N µs`, the number of the action, from 0, and the wall clock's time since 1970.
    text: String,
    /// An argument, and the values that it has in turn.
    #[serde(default)]
    vary: Option<(String, Vec<Value>)>,
    count: u32,
    per_second: f64,
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

impl Load {
    async fn run<P: Platform + 'static>(mut self, net: &Net<P>) -> Result<(), String> {
        let start = tokio::time::Instant::now();
        for n in 0..self.count {
            tokio::time::sleep_until(start + Duration::from_secs_f64(f64::from(n) / self.per_second)).await;
            if let Some((name, values)) = &self.vary
                && let Some(value) = values.get(n as usize % values.len().max(1))
            {
                self.arguments.insert(name.clone(), value.clone());
            }
            self.arguments.insert(self.text.clone(), format!("{n} {}", now_us()).into());
            net.control(&self.action, &Value::Object(self.arguments.clone()))?;
        }
        Ok(())
    }
}

/// When what this holds was sent, if it says so.
fn stamp(body: &[u8]) -> Option<i64> {
    let at = body.windows(STAMP.len() + DIGITS).find_map(|window| {
        let digits = window.strip_prefix(STAMP.as_bytes())?;
        digits.iter().all(u8::is_ascii_digit).then_some(digits)
    })?;
    std::str::from_utf8(at).ok()?.parse().ok()
}

/// Makes hyper break the connection.
#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the simulation broke the connection")
    }
}

impl std::error::Error for Broken {}

/// Serves until the listener fails.
pub async fn serve<P: Platform + 'static>(listener: TcpListener, net: Net<P>) -> io::Result<Infallible> {
    let mut calls = net.calls();
    tokio::spawn(async move {
        while let Some(call) = calls.recv().await {
            tokio::spawn(async move {
                let response = fetch(&call.request).await.ok();
                call.answer(response);
            });
        }
    });
    let origin = format!("http://{}", listener.local_addr()?);
    let delays = Delays::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let net = net.clone();
        let origin: Arc<str> = origin.as_str().into();
        let delays = delays.clone();
        tokio::spawn(async move {
            let service =
                service_fn(move |request| answer(net.clone(), origin.clone(), delays.clone(), request));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
        });
    }
}

async fn answer<P: Platform + 'static>(
    net: Net<P>,
    origin: Arc<str>,
    delays: Delays,
    mut incoming: hyper::Request<Incoming>,
) -> Result<hyper::Response<Body>, Broken> {
    let came_us = now_us();
    let upgrade = incoming
        .headers()
        .get(header::UPGRADE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.eq_ignore_ascii_case("websocket"));
    let target = incoming.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let mut request = Request::new(incoming.method().as_str(), &target);
    for (name, value) in incoming.headers() {
        request.headers.push((name.as_str().into(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    }
    if upgrade {
        let key = request.get("sec-websocket-key").map(|key| derive_accept_key(key.as_bytes()));
        let Some(key) = key else { return Ok(whole(Response::json(400, &json!({"error": "no key"})))) };
        let on_upgrade = hyper::upgrade::on(&mut incoming);
        return match net.connect(request).await {
            Ok(connection) => {
                tokio::spawn(async move {
                    if let Ok(upgraded) = on_upgrade.await {
                        let io = TokioIo::new(upgraded);
                        let socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
                        carry(socket, connection.without_pongs()).await;
                    }
                });
                let response = hyper::Response::builder()
                    .status(101)
                    .header(header::CONNECTION, "Upgrade")
                    .header(header::UPGRADE, "websocket")
                    .header(header::SEC_WEBSOCKET_ACCEPT, key);
                response.body(full(Vec::new())).map_err(|_| Broken)
            }
            Err(Some(response)) => Ok(whole(response)),
            Err(None) => Err(Broken),
        };
    }
    request.body = incoming.into_body().collect().await.map_err(|_| Broken)?.to_bytes().to_vec();
    if let Some(what) = request.path.strip_prefix("/_sim/") {
        let what = what.to_owned();
        return Ok(whole(control(&net, &delays, &what, &request).await));
    }
    if let Some(sent_us) = stamp(&request.body) {
        delays.lock().unwrap_or_else(PoisonError::into_inner).push(came_us - sent_us);
    }
    // So that a platform can name URLs of its own.
    request.headers.push(("x-sim-origin".into(), origin.to_string()));
    match net.open(request).await {
        Ok((response, None)) => Ok(whole(response)),
        Ok((response, Some(stream))) => {
            let chunks = futures_util::stream::unfold(Some(stream), |stream| async {
                let mut stream = stream?;
                match stream.next().await {
                    Event::Chunk(bytes) => Some((Ok(hyper::body::Frame::data(bytes.into())), Some(stream))),
                    Event::End => None,
                    _ => Some((Err(Broken), None)),
                }
            });
            Ok(head(response, StreamBody::new(chunks).boxed_unsync()))
        }
        Err(crate::net::Broken) => Err(Broken),
    }
}

fn full(body: Vec<u8>) -> Body {
    Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync()
}

fn whole(mut response: Response) -> hyper::Response<Body> {
    let body = full(std::mem::take(&mut response.body));
    head(response, body)
}

fn head(response: Response, body: Body) -> hyper::Response<Body> {
    let mut answer = hyper::Response::new(body);
    *answer.status_mut() = response.status.try_into().unwrap_or_default();
    for (name, value) in response.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            answer.headers_mut().append(name, value);
        }
    }
    answer
}

async fn carry<P, S>(mut socket: WebSocketStream<S>, mut connection: Connection<P>)
where
    P: Platform + 'static,
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    loop {
        tokio::select! {
            event = connection.next() => {
                let message = match event {
                    Event::Frame(Frame::Text(text)) => Message::text(text),
                    Event::Frame(Frame::Binary(bytes)) => Message::binary(bytes),
                    Event::Frame(Frame::Ping(bytes)) => Message::Ping(bytes.into()),
                    Event::Frame(Frame::Pong(bytes)) => Message::Pong(bytes.into()),
                    Event::Closed { code, reason } => {
                        let frame = CloseFrame { code: code.into(), reason: reason.into() };
                        if socket.close(Some(frame)).await.is_ok() {
                            // The other side answers with a close of its own, or hangs up; one that does not is cut off.
                            let _ = tokio::time::timeout(Duration::from_secs(5), async {
                                while let Some(Ok(_)) = socket.next().await {}
                            })
                            .await;
                        }
                        return;
                    }
                    Event::Chunk(_) | Event::End | Event::Broken => return,
                };
                if socket.send(message).await.is_err() {
                    return;
                }
            }
            // What is not read is not answered either, pings included.
            message = socket.next(), if !connection.half_open() => match message {
                Some(Ok(Message::Text(text))) => connection.send(Frame::Text(text.as_str().to_owned())),
                Some(Ok(Message::Binary(bytes))) => connection.send(Frame::Binary(bytes.to_vec())),
                Some(Ok(Message::Ping(bytes))) => connection.send(Frame::Ping(bytes.to_vec())),
                Some(Ok(Message::Pong(bytes))) => connection.send(Frame::Pong(bytes.to_vec())),
                Some(Ok(Message::Close(frame))) => {
                    connection.close(frame.map_or(1005, |frame| frame.code.into()));
                    // Lets the answer to the close go out.
                    while let Some(Ok(_)) = socket.next().await {}
                    return;
                }
                Some(Ok(Message::Frame(_))) => {}
                Some(Err(_)) | None => return,
            },
        }
    }
}

async fn control<P: Platform + 'static>(
    net: &Net<P>,
    delays: &Delays,
    what: &str,
    request: &Request,
) -> Response {
    let arguments: Value = if request.body.is_empty() {
        json!({})
    } else {
        match serde_json::from_slice(&request.body) {
            Ok(value) => value,
            Err(error) => return Response::json(400, &json!({"error": error.to_string()})),
        }
    };
    let refused = |why: String| Response::json(400, &json!({"error": why}));
    let ms = arguments["ms"].as_i64().unwrap_or(0);
    match (request.method.as_str(), what) {
        ("POST", "faults") => match serde_json::from_value::<Vec<Fault>>(arguments) {
            Ok(faults) => {
                net.with(|sim| faults.into_iter().for_each(|fault| sim.fault(fault)));
                Response::json(200, &json!({}))
            }
            Err(error) => refused(error.to_string()),
        },
        ("DELETE", "faults") => {
            net.with(|sim| sim.clear_faults());
            Response::json(200, &json!({}))
        }
        ("GET", "log") => {
            let number = |name| request.query(name).and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
            let after = number("after");
            let wait = Duration::from_millis(number("wait").min(60_000));
            let grown = net.until(|sim| (sim.logged() > after).then_some(()));
            let _ = tokio::time::timeout(wait, grown).await;
            net.with(|sim| {
                let lines: Vec<Value> =
                    sim.log().filter(|entry| entry.n >= after).map(crate::sim::Entry::to_json).collect();
                Response::json(200, &json!(lines))
            })
        }
        ("GET", "violations") => {
            let broken: Vec<Value> = net
                .with(|sim| sim.violations())
                .into_iter()
                .map(|(rule, what)| json!({"rule": rule, "text": what}))
                .collect();
            Response::json(200, &json!(broken))
        }
        ("GET", "state") => Response::json(200, &net.with(|sim| sim.platform.state())),
        ("GET", "rules") => {
            let rules: Vec<Value> = net
                .with(|sim| sim.platform.rules())
                .iter()
                .map(|rule| json!({"id": rule.id, "text": rule.text, "source": rule.source}))
                .collect();
            Response::json(200, &json!(rules))
        }
        ("POST", "advance") => {
            net.advance(ms.unsigned_abs());
            Response::json(200, &json!({}))
        }
        ("POST", "jump") => {
            net.with(|sim| sim.jump_clock(ms));
            Response::json(200, &json!({}))
        }
        ("POST", "sockets") => {
            let ids = net.with(|sim| sim.sockets());
            for id in &ids {
                match arguments["do"].as_str() {
                    Some("cut") => net.cut(*id),
                    Some("half_open") => net.with(|sim| sim.half_open(*id)),
                    _ => return refused("do is \"cut\" or \"half_open\"".into()),
                }
            }
            Response::json(200, &json!({"sockets": ids.len()}))
        }
        ("POST", "load") => {
            let done = match serde_json::from_value::<Load>(arguments) {
                Ok(load) if load.per_second > 0.0 => load.run(net).await,
                Ok(_) => Err("per_second is to be more than 0".into()),
                Err(error) => Err(error.to_string()),
            };
            done.map_or_else(refused, |()| Response::json(200, &json!({})))
        }
        ("GET", "load") => {
            let delays = std::mem::take(&mut *delays.lock().unwrap_or_else(PoisonError::into_inner));
            Response::json(200, &json!(delays))
        }
        ("POST", action) if action.starts_with("do/") => match net.control(&action[3..], &arguments) {
            Ok(value) => Response::json(200, &value),
            Err(why) => refused(why),
        },
        _ => Response::json(404, &json!({"error": "no such thing under /_sim/"})),
    }
}

/// Calls a webhook; plain HTTP, as all of this stays on one machine.
async fn fetch(request: &Request) -> Result<Response, Box<dyn std::error::Error + Send + Sync>> {
    let rest = request.path.strip_prefix("http://").ok_or("not an http URL")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let address = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let query: Vec<String> = request
        .query
        .iter()
        .map(|(name, value)| format!("{}={}", crate::wire::percent(name), crate::wire::percent(value)))
        .collect();
    let mut target = if path.is_empty() { "/".to_owned() } else { path.to_owned() };
    if !query.is_empty() {
        target = format!("{target}?{}", query.join("&"));
    }
    let mut outgoing =
        hyper::Request::builder().method(request.method.as_str()).uri(target).header(header::HOST, authority);
    for (name, value) in &request.headers {
        outgoing = outgoing.header(name, value);
    }
    let answer = sender.send_request(outgoing.body(Full::new(Bytes::from(request.body.clone())))?).await?;
    let headers = answer
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await?.to_bytes().to_vec();
    Ok(Response { status, headers, body })
}
