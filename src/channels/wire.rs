//! The network as adapters see it.
//!
//! The clock is tokio's, and what carries is a [`Wire`]: [`Network`] is the real one, and tests bring a simulator.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, Url};
use tokio_util::bytes::Bytes;

use super::Boxed;
use super::platform::{Failed, Fate};
use super::webhook::{Gate, Listener};
use crate::http::HttpOptions;
use crate::providers::call::Transport;
use crate::providers::network;
use crate::{Code, CoreError, Result};

pub use crate::providers::api::HttpRequest;
pub use crate::providers::call::{Answer, Body, Unsent};

/// Until a connection stands.
const CONNECT: Duration = Duration::from_secs(10);

/// What carries requests and sockets.
pub trait Wire: Send + Sync + 'static {
    /// Sends a request. The answer is there once its head is; its body is read as it comes. Has no other time limit
    /// than that for connecting. Dropping the future, or the body, closes the connection.
    fn send(&self, request: HttpRequest) -> Boxed<'_, Result<Answer, Unsent>>;

    /// Opens a WebSocket (RFC 6455).
    fn socket(&self, url: Url, headers: HeaderMap) -> Boxed<'_, Result<Box<dyn Socket>>>;

    /// Opens a port that a platform calls. What the gate refuses by its head is not read.
    fn listen(&self, at: SocketAddr, gate: Gate) -> Boxed<'_, Result<Box<dyn Listener>>>;
}

/// What a WebSocket carries. Pings are answered beneath.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A text.
    Text(String),
    /// Bytes.
    Binary(Bytes),
    /// A ping; incoming ones are answered already, and are given only as a sign of life.
    Ping(Bytes),
    /// A pong.
    Pong(Bytes),
    /// The end: the code (RFC 6455, 7.4), if there was one, and why.
    Close(Option<u16>, String),
}

/// An open WebSocket. Dropping it closes the connection, without a goodbye.
pub trait Socket: Send {
    /// The next frame; none once the connection is closed. Dropping the future loses nothing.
    fn next(&mut self) -> Boxed<'_, Result<Option<Frame>>>;

    /// Sends a frame.
    fn send(&mut self, frame: Frame) -> Boxed<'_, Result<()>>;
}

/// An answer that was read to its end.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The head.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

/// Sends a request and reads the answer, of at most `most` bytes, within `limit`. What failed says whether anything may
/// have been sent; a status of 400 or above is an answer like any other.
pub async fn ask(
    wire: &dyn Wire,
    request: HttpRequest,
    limit: Duration,
    most: usize,
) -> Result<Reply, Failed> {
    let late = || {
        let message = format!("the platform has not answered within {} ms", limit.as_millis());
        Failed::new(Fate::Unknown, CoreError::new(Code::Timeout, message).in_phase("total"))
    };
    let asking = async {
        let answer = wire.send(request).await.map_err(|unsent| {
            Failed::new(if unsent.retry { Fate::Unsent } else { Fate::Unknown }, unsent.error)
        })?;
        let Answer { status, headers, mut body } = answer;
        let mut bytes = Vec::new();
        while let Some(chunk) = body.chunk().await.map_err(|error| Failed::new(Fate::Unknown, error))? {
            if chunk.len() > most.saturating_sub(bytes.len()) {
                let message = format!("the platform's answer has more than {most} bytes");
                return Err(Failed::new(Fate::Unknown, CoreError::new(Code::Limit, message)));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Reply { status, headers, body: bytes })
    };
    tokio::time::timeout(limit, asking).await.unwrap_or_else(|_| Err(late()))
}

/// A request with a JSON body.
pub fn json(method: Method, url: Url, headers: HeaderMap, body: &serde_json::Value) -> HttpRequest {
    let mut headers = headers;
    headers
        .insert(reqwest::header::CONTENT_TYPE, reqwest::header::HeaderValue::from_static("application/json"));
    HttpRequest { method, url, headers, body: body.to_string().into() }
}

/// Reads `baseUrl`; `VALIDATION` if it is no http or https URL, or has a query or credentials.
pub fn base(url: &str) -> Result<Url> {
    let read = Url::parse(url).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
    });
    read.ok_or_else(|| {
        let message = "`baseUrl` must be an http or https URL without a query, a name or a password";
        CoreError::new(Code::Validation, message)
    })
}

/// A form with files (RFC 7578).
pub struct Form {
    boundary: String,
    body: Vec<u8>,
}

impl Form {
    /// An empty one. Its boundary is random, so that no file can hold it.
    pub fn new() -> Result<Self> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| {
            CoreError::new(Code::Crypto, format!("the system gives no random numbers: {error}"))
        })?;
        Ok(Self { boundary: data_encoding::HEXLOWER.encode(&random), body: Vec::new() })
    }

    fn part(&mut self, name: &str, more: &str, data: &[u8]) {
        let head = format!(
            "--{}\r\nContent-Disposition: form-data; name=\"{}\"{more}\r\n\r\n",
            self.boundary,
            quoted(name)
        );
        self.body.extend_from_slice(head.as_bytes());
        self.body.extend_from_slice(data);
        self.body.extend_from_slice(b"\r\n");
    }

    /// Adds a field.
    pub fn text(&mut self, name: &str, value: &str) {
        self.part(name, "", value.as_bytes());
    }

    /// Adds a file.
    pub fn file(&mut self, name: &str, file_name: &str, mime_type: &str, data: &[u8]) {
        let more = format!("; filename=\"{}\"\r\nContent-Type: {mime_type}", quoted(file_name));
        self.part(name, &more, data);
    }

    /// The request that sends it.
    pub fn request(mut self, url: Url) -> HttpRequest {
        self.body.extend_from_slice(format!("--{}--\r\n", self.boundary).as_bytes());
        let mut headers = HeaderMap::new();
        let kind = format!("multipart/form-data; boundary={}", self.boundary);
        if let Ok(kind) = kind.parse() {
            headers.insert(reqwest::header::CONTENT_TYPE, kind);
        }
        HttpRequest { method: Method::POST, url, headers, body: self.body }
    }
}

/// As the URL standard has it in forms: what would end the quotes or the line is escaped.
fn quoted(text: &str) -> String {
    text.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

/// The real network.
pub struct Network {
    http: network::Network,
}

impl Network {
    /// Nothing is read or connected yet.
    pub fn new(options: HttpOptions) -> Self {
        Self { http: network::Network::new(options) }
    }
}

impl Wire for Network {
    fn send(&self, request: HttpRequest) -> Boxed<'_, Result<Answer, Unsent>> {
        self.http.send(request, Some(CONNECT))
    }

    fn socket(&self, url: Url, headers: HeaderMap) -> Boxed<'_, Result<Box<dyn Socket>>> {
        Box::pin(super::socket::connect(url, headers))
    }

    fn listen(&self, at: SocketAddr, gate: Gate) -> Boxed<'_, Result<Box<dyn Listener>>> {
        Box::pin(super::webhook::listen(at, gate))
    }
}
