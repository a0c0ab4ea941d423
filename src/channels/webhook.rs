//! Calls that a platform makes of us, over HTTP/1.1.
//!
//! TLS is a reverse proxy's or a tunnel's task: by default nothing but this machine reaches the port. Nothing is believed
//! of a call before its adapter has checked whose it is: its head before its body is read ([`Gate`]), and then all of it.
//! Bodies have a bound together, as anybody may send what is only found to be nobody's at its end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::bytes::Bytes;

use super::Boxed;
use crate::{Code, CoreError, Result};

/// The most bytes of a body; Meta sends up to 3 MB.
const MOST: usize = 4 << 20;
/// The most bytes of bodies that are in memory, until they are answered.
const TOGETHER: usize = 16 << 20;
/// For a head, also while a connection idles.
const HEAD: Duration = Duration::from_secs(30);
/// For a body, and again for our answer.
const BODY: Duration = Duration::from_secs(20);
/// A connection takes no new call after this.
const LIFE: Duration = Duration::from_mins(5);
/// Connections at once, and calls that wait.
const CONNECTIONS: usize = 64;

/// A call.
pub struct Called {
    /// How.
    pub method: Method,
    /// Where to, without the query.
    pub path: String,
    /// What is behind the `?`, as it came.
    pub query: String,
    /// The head.
    pub headers: HeaderMap,
    /// The body, byte by byte as it came.
    pub body: Bytes,
    answer: oneshot::Sender<(u16, Bytes)>,
    /// Of [`TOGETHER`].
    held: Option<OwnedSemaphorePermit>,
}

/// What is known of a call by its head: how, where to, and its headers. The status that refuses it, if it is not worth
/// reading.
pub type Gate = Arc<dyn Fn(&Method, &str, &HeaderMap) -> Option<u16> + Send + Sync>;

impl Called {
    /// A call, and where its answer comes out; nothing comes out of one that is dropped.
    pub fn new(
        method: Method,
        path: String,
        query: String,
        headers: HeaderMap,
        body: Bytes,
    ) -> (Self, oneshot::Receiver<(u16, Bytes)>) {
        let (answer, answered) = oneshot::channel();
        (Self { method, path, query, headers, body, answer, held: None }, answered)
    }

    /// Answers, in plain text.
    pub fn answer(self, status: u16, body: impl Into<Bytes>) {
        _ = self.answer.send((status, body.into()));
    }
}

/// An open port. Dropping it closes the port, and all connections.
pub trait Listener: Send {
    /// The next call; none if the port has failed. Dropping the future loses nothing.
    fn next(&mut self) -> Boxed<'_, Option<Called>>;
}

struct Port {
    calls: mpsc::Receiver<Called>,
    _accepting: JoinSet<()>,
}

impl Listener for Port {
    fn next(&mut self) -> Boxed<'_, Option<Called>> {
        Box::pin(self.calls.recv())
    }
}

/// What the calls of a port share.
#[derive(Clone)]
struct Serving {
    calls: mpsc::Sender<Called>,
    gate: Gate,
    room: Arc<Semaphore>,
}

/// Opens a port of this machine. `CHANNEL_CONFLICT` if somebody has it.
pub(super) async fn listen(at: SocketAddr, gate: Gate) -> Result<Box<dyn Listener>> {
    let listener = TcpListener::bind(at).await.map_err(|error| {
        let taken = error.kind() == std::io::ErrorKind::AddrInUse;
        let code = if taken { Code::ChannelConflict } else { Code::Network };
        CoreError::new(code, format!("the webhook cannot listen at {at}: {error}"))
    })?;
    let (sender, calls) = mpsc::channel(CONNECTIONS);
    let mut accepting = JoinSet::new();
    let serving = Serving { calls: sender, gate, room: Arc::new(Semaphore::new(TOGETHER)) };
    accepting.spawn(accept(listener, serving));
    Ok(Box::new(Port { calls, _accepting: accepting }))
}

async fn accept(listener: TcpListener, serving: Serving) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    // Within this task, so that they end with it.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Of one connection, or of all files being open: neither is the port's end.
                tracing::debug!(%error, "a webhook's connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let serving = serving.clone();
        connections.spawn(async move {
            serve(stream, serving).await;
            drop(permit);
        });
    }
}

async fn serve(stream: TcpStream, serving: Serving) {
    _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let serving = serving.clone();
        async move {
            let (status, body) = pass(request, serving).await;
            let mut response = hyper::Response::new(Full::new(body));
            *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
            let headers = response.headers_mut();
            headers.insert("content-type", HeaderValue::from_static("text/plain; charset=utf-8"));
            headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
            Ok::<_, Infallible>(response)
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let outcome = tokio::select! {
        outcome = served.as_mut() => outcome,
        () = tokio::time::sleep(LIFE) => {
            // Answers that nobody takes would keep it for ever.
            served.as_mut().graceful_shutdown();
            tokio::time::timeout(BODY * 3, served).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a webhook's connection broke");
    }
}

async fn pass(request: hyper::Request<Incoming>, serving: Serving) -> (u16, Bytes) {
    let Serving { calls, gate, room } = serving;
    let (asked, incoming) = request.into_parts();
    if let Some(status) = gate(&asked.method, asked.uri.path(), &asked.headers) {
        return (status, Bytes::new());
    }
    if incoming.size_hint().lower() > MOST as u64 {
        return (413, Bytes::new());
    }
    let (body, held) = if asked.method == Method::GET {
        (Bytes::new(), None)
    } else {
        match tokio::time::timeout(BODY, read(incoming, &room)).await {
            Err(_) => return (408, Bytes::new()),
            Ok(Err(status)) => return (status, Bytes::new()),
            Ok(Ok(read)) => read,
        }
    };
    let (path, query) = (asked.uri.path().to_owned(), asked.uri.query().unwrap_or_default().to_owned());
    let (mut call, answered) = Called::new(asked.method, path, query, asked.headers, body);
    call.held = held;
    let answer = async {
        calls.send(call).await.ok()?;
        answered.await.ok()
    };
    // Who is told 503 comes again.
    tokio::time::timeout(BODY, answer).await.ok().flatten().unwrap_or((503, Bytes::new()))
}

/// Reads a body, and takes room for what has come of it; what is only announced takes none. Or the status that refuses it.
async fn read(
    mut body: Incoming,
    room: &Arc<Semaphore>,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), u16> {
    let mut bytes = Vec::new();
    let mut held: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| 400_u16)?.into_data() else { continue };
        if data.len() > MOST - bytes.len() {
            return Err(413);
        }
        let count = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let more = Arc::clone(room).try_acquire_many_owned(count).map_err(|_| 503_u16)?;
        match &mut held {
            Some(held) => held.merge(more),
            None => held = Some(more),
        }
        bytes.extend_from_slice(&data);
    }
    Ok((bytes.into(), held))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn any() -> Gate {
        Arc::new(|_, _, _| None)
    }

    async fn exchange(at: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn a_call_comes_as_it_was_made_and_gets_its_answer() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let mut port = listen(free, any()).await.unwrap();
        assert_eq!(listen(free, any()).await.err().unwrap().code(), Code::ChannelConflict);
        let asking = tokio::spawn(exchange(
            free,
            b"POST /hook?a=%201 HTTP/1.1\r\nhost: x\r\nX-One: 1\r\nconnection: close\r\ncontent-length: 3\r\n\r\n\x00{}",
        ));
        let call = port.next().await.unwrap();
        assert_eq!(
            (call.method.as_str(), call.path.as_str(), call.query.as_str()),
            ("POST", "/hook", "a=%201")
        );
        assert_eq!((&call.body[..], call.headers["x-one"].as_bytes()), (&b"\0{}"[..], &b"1"[..]));
        call.answer(200, "fine");
        let answer = asking.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nfine"), "{answer}");
        let dropped = tokio::spawn(exchange(free, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"));
        drop(port.next().await.unwrap());
        assert!(dropped.await.unwrap().starts_with("HTTP/1.1 503"));
        let large = format!(
            "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            MOST + 1
        );
        assert!(exchange(free, large.as_bytes()).await.starts_with("HTTP/1.1 413"));
        drop(port);
        while TcpListener::bind(free).await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_the_gate_refuses_is_answered_before_its_body_has_come() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let gate: Gate = Arc::new(|method, path, headers| match (method.as_str(), path) {
            ("POST", "/hook") if headers.contains_key("x-secret") => None,
            ("POST", "/hook") => Some(401),
            _ => Some(404),
        });
        let mut port = listen(free, gate).await.unwrap();
        let answered = AtomicBool::new(false);
        let refused = async {
            for (path, status) in [("/hook?x", 401), ("/", 404)] {
                // Of the body nothing ever comes.
                let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 3000000\r\n\r\n");
                let answer = exchange(free, head.as_bytes()).await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
            }
            answered.store(true, Ordering::Release);
            let good = b"POST /hook HTTP/1.1\r\nhost: x\r\nx-secret: y\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
            exchange(free, good).await
        };
        let (answer, ()) = tokio::join!(refused, async {
            let call = port.next().await.unwrap();
            assert!(answered.load(Ordering::Acquire), "a call that was refused went on");
            assert_eq!(&call.body[..], b"{}");
            call.answer(200, "");
        });
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn bodies_have_a_bound_together_and_above_it_others_are_told_to_come_again() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let mut port = listen(free, any()).await.unwrap();
        let request = |announced: usize, sent: usize| {
            let head = format!(
                "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {announced}\r\n\r\n"
            );
            [head.into_bytes(), vec![b'x'; sent]].concat()
        };
        // What is announced, and does not come, takes no room.
        let mut announced = Vec::new();
        for _ in 0..2 * TOGETHER / MOST {
            let mut stream = TcpStream::connect(free).await.unwrap();
            stream.write_all(&request(MOST, 0)).await.unwrap();
            announced.push(stream);
        }
        let large = request(MOST, MOST);
        let asking: Vec<_> = (0..TOGETHER / MOST)
            .map(|_| {
                let large = large.clone();
                tokio::spawn(async move { exchange(free, &large).await })
            })
            .collect();
        let mut calls = Vec::new();
        for _ in &asking {
            calls.push(port.next().await.unwrap());
        }
        let small = request(1, 1);
        assert!(exchange(free, &small).await.starts_with("HTTP/1.1 503"));
        // Without a body there is nothing to hold.
        let asking_without = tokio::spawn(async move {
            exchange(free, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await
        });
        port.next().await.unwrap().answer(200, "");
        assert!(asking_without.await.unwrap().starts_with("HTTP/1.1 200"));
        // The room of one that is answered is the next one's.
        calls.pop().unwrap().answer(200, "");
        let next = tokio::spawn(async move { exchange(free, &small).await });
        port.next().await.unwrap().answer(200, "");
        assert!(next.await.unwrap().starts_with("HTTP/1.1 200"));
        for call in calls {
            call.answer(200, "");
        }
        for asking in asking {
            assert!(asking.await.unwrap().starts_with("HTTP/1.1 200"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_no_answers_does_not_keep_a_connection() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let mut port = listen(free, any()).await.unwrap();
        let answering = tokio::spawn(async move {
            while let Some(call) = port.next().await {
                call.answer(200, vec![b'x'; 1 << 20]);
            }
        });
        let mut stream = TcpStream::connect(free).await.unwrap();
        let (mut read, mut write) = stream.split();
        let ask = async {
            while write.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        // The clock moves on once nothing else does: when both directions are full.
        let closed = tokio::time::timeout(Duration::from_hours(1), ask).await;
        assert!(closed.is_ok(), "the connection stands");
        _ = read.read(&mut [0; 16]).await;
        answering.abort();
    }
}
