//! The network, as what carries requests.

use std::error::Error as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Client, Response};
use tokio_util::bytes::Bytes;

use super::api::HttpRequest;
use super::call::{Answer, Body, Boxed, Transport, Unsent};
use crate::http::{self, HttpOptions};
use crate::runtime::blocking;
use crate::{Code, CoreError, Result};

/// Clients with as many limits for connecting are kept at once: each has its own connections.
const CLIENTS: usize = 4;
/// In place of no limit.
const LONGEST: Duration = Duration::from_hours(24);

/// HTTP clients that differ in how long connecting may take, built at first use.
pub struct Network {
    options: HttpOptions,
    clients: Mutex<Vec<(Duration, Client)>>,
}

impl Network {
    /// Nothing is read or connected yet.
    pub fn new(options: HttpOptions) -> Self {
        Self { options, clients: Mutex::default() }
    }

    async fn client(&self, connect: Option<Duration>) -> Result<Client> {
        let connect = connect.unwrap_or(LONGEST);
        let known = |clients: &Vec<(Duration, Client)>| {
            clients.iter().find(|client| client.0 == connect).map(|client| client.1.clone())
        };
        let lock = || self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = known(&lock()) {
            return Ok(client);
        }
        let options = HttpOptions { connect_timeout: connect, decompress: true, ..self.options.clone() };
        let built = blocking(move || http::client(&options)).await?;
        let mut clients = lock();
        if let Some(client) = known(&clients) {
            return Ok(client);
        }
        if clients.len() >= CLIENTS {
            clients.remove(0);
        }
        clients.push((connect, built.clone()));
        Ok(built)
    }
}

impl Transport for Network {
    fn send(&self, request: HttpRequest, connect: Option<Duration>) -> Boxed<'_, Result<Answer, Unsent>> {
        Box::pin(async move {
            let client = self.client(connect).await.map_err(|error| Unsent { error, retry: false })?;
            let HttpRequest { method, url, headers, body } = request;
            let mut builder = client.request(method, url).headers(headers);
            if !body.is_empty() {
                builder = builder.body(body);
            }
            let response = builder.send().await.map_err(unsent)?;
            Ok(Answer {
                status: response.status().as_u16(),
                headers: response.headers().clone(),
                body: Box::new(response),
            })
        })
    }
}

impl Body for Response {
    fn chunk(&mut self) -> Boxed<'_, Result<Option<Bytes>>> {
        Box::pin(async { self.chunk().await.map_err(|error| http::failure("the answer", error)) })
    }
}

/// Whatever fails while connecting was not sent. A certificate that is not trusted stays so.
fn unsent(error: reqwest::Error) -> Unsent {
    let connecting = error.is_connect();
    let late = connecting && error.is_timeout();
    let mut cause = error.source();
    let mut distrust = false;
    while let Some(source) = cause {
        let inner = source.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        distrust |= inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>);
        cause = source.source();
    }
    let error = http::failure("the request", error);
    let error = if late {
        CoreError::new(Code::Timeout, error.message()).in_phase("connect").caused_by(error)
    } else {
        error
    };
    Unsent { error, retry: connecting && !distrust }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use reqwest::Url;
    use reqwest::dns::{Addrs, Name, Resolve, Resolving};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::http::Proxy;

    /// Gives these addresses for every name, or none for ever.
    struct Names(Option<Vec<SocketAddr>>);

    impl Resolve for Names {
        fn resolve(&self, _name: Name) -> Resolving {
            let names = self.0.clone();
            Box::pin(async move {
                match names {
                    Some(names) => Ok(Box::new(names.into_iter()) as Addrs),
                    None => std::future::pending().await,
                }
            })
        }
    }

    fn network(names: Option<Vec<SocketAddr>>) -> Network {
        let resolver: Option<Arc<dyn Resolve>> = Some(Arc::new(Names(names)));
        Network::new(HttpOptions { proxy: Proxy::None, resolver, ..HttpOptions::default() })
    }

    fn get(url: &str) -> HttpRequest {
        HttpRequest::get(Url::parse(url).unwrap())
    }

    async fn listen(address: &str) -> (TcpListener, u16) {
        let listener = TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    #[tokio::test(start_paused = true)]
    async fn the_timer_for_connecting_covers_the_name_and_is_the_calls_own() {
        let network = network(None);
        for seconds in [1, 7, 30] {
            let begun = tokio::time::Instant::now();
            let limit = Some(Duration::from_secs(seconds));
            let unsent = network.send(get("http://name.example/"), limit).await.err().unwrap();
            assert_eq!((unsent.error.code(), unsent.error.details().phase), (Code::Timeout, Some("connect")));
            assert!(unsent.retry);
            assert_eq!(begun.elapsed().as_secs(), seconds);
        }
    }

    #[tokio::test]
    async fn what_was_refused_was_not_sent_and_a_server_that_is_not_trusted_is_not_asked_again() {
        let (listener, port) = listen("127.0.0.1:0").await;
        drop(listener);
        let unsent = network(None).send(get(&format!("http://127.0.0.1:{port}/")), None).await.err().unwrap();
        assert_eq!((unsent.error.code(), unsent.retry), (Code::Network, true));
        // One that takes the request and hangs up may have acted on it.
        let (listener, port) = listen("127.0.0.1:0").await;
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 4096]).await.unwrap();
        });
        let unsent = network(None).send(get(&format!("http://127.0.0.1:{port}/")), None).await.err().unwrap();
        assert_eq!((unsent.error.code(), unsent.retry), (Code::Network, false));
        server.await.unwrap();
    }

    /// RFC 8305: the other family gets its turn while the first one says nothing.
    #[tokio::test]
    async fn a_family_of_addresses_that_leads_nowhere_does_not_keep_the_other_from_answering() {
        let (listener, port) = listen("127.0.0.1:0").await;
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 4096]).await.unwrap();
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        });
        // A port of which nobody takes connections any more: its queue is full.
        let black = tokio::net::TcpSocket::new_v6().unwrap();
        let Ok(()) = black.bind("[::1]:0".parse().unwrap()) else {
            eprintln!("skipped: this machine has no IPv6 loopback");
            server.abort();
            return;
        };
        let hole = black.local_addr().unwrap();
        let _listening = black.listen(1).unwrap();
        let mut held = Vec::new();
        loop {
            let next = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(hole)).await;
            let Ok(next) = next else { break };
            held.push(next.unwrap());
            assert!(held.len() < 1000, "the queue of the hole never fills");
        }
        let names = vec![hole, SocketAddr::from(([127, 0, 0, 1], port))];
        // The port of a resolved address counts where it is not 0. Waiting for the hole would take longer than the limit.
        let limit = Some(Duration::from_secs(30));
        let sent = network(Some(names)).send(get("http://name.example/"), limit).await;
        let mut answer = sent.map_err(|unsent| unsent.error).unwrap();
        assert_eq!(answer.body.chunk().await.unwrap().as_deref(), Some(&b"ok"[..]));
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_call_that_is_dropped_closes_its_connection_whatever_it_is_waiting_for() {
        for head in ["", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
            let (listener, port) = listen("127.0.0.1:0").await;
            let network = network(None);
            let url = format!("http://127.0.0.1:{port}/");
            let call = tokio::spawn(async move {
                let mut answer = network.send(get(&url), None).await.map_err(|u| u.error).unwrap();
                loop {
                    answer.body.chunk().await.unwrap();
                }
            });
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 4096]).await.unwrap();
            socket.write_all(head.as_bytes()).await.unwrap();
            call.abort();
            // The end of the stream, or a reset.
            assert!(matches!(socket.read(&mut [0; 16]).await, Ok(0) | Err(_)));
        }
    }
}
