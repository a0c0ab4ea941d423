//! `WebSocket`s of the real network: RFC 6455 over TLS or not, by tungstenite.
//!
//! The same certificate authorities are trusted as for HTTP. No proxy is used.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::Url;
use reqwest::header::HeaderMap;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::Boxed;
use super::wire::{Frame, Socket};
use crate::runtime::blocking;
use crate::{Code, CoreError, Result, http};

/// Until the connection stands, the handshake included.
const CONNECT: Duration = Duration::from_secs(15);
/// Of a message.
const MOST: usize = 32 << 20;

/// What a WebSocket runs over.
trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Carrier for T {}

struct Open(WebSocketStream<Box<dyn Carrier>>);

/// Opens a WebSocket.
pub(super) async fn connect(url: Url, headers: HeaderMap) -> Result<Box<dyn Socket>> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let late = || {
        let message = format!("the WebSocket to {host} was not open after {} s", CONNECT.as_secs());
        Err(CoreError::new(Code::Timeout, message).in_phase("connect"))
    };
    tokio::time::timeout(CONNECT, open(&url, headers)).await.unwrap_or_else(|_| late())
}

async fn open(url: &Url, headers: HeaderMap) -> Result<Box<dyn Socket>> {
    let wrong = || CoreError::new(Code::Validation, "a WebSocket's URL must be ws:// or wss://, with a host");
    let secure = match url.scheme() {
        "wss" => true,
        "ws" => false,
        _ => return Err(wrong()),
    };
    let host = url.host_str().ok_or_else(wrong)?.to_owned();
    let port = url.port().unwrap_or(if secure { 443 } else { 80 });
    // The URL may hold a ticket: no error says more than the host.
    let lost = |what: &str, error: &dyn std::fmt::Display| {
        CoreError::new(Code::Network, format!("the WebSocket to {host}: {what}: {error}"))
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let stream =
        TcpStream::connect((bare.as_str(), port)).await.map_err(|error| lost("no connection", &error))?;
    _ = stream.set_nodelay(true);
    let carrier: Box<dyn Carrier> = if secure {
        let config = blocking(http::tls_for_sockets).await?;
        let name = ServerName::try_from(bare).map_err(|_| wrong())?;
        let tls = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        Box::new(tls.map_err(|error| lost("no TLS", &error))?)
    } else {
        Box::new(stream)
    };
    let mut request = url.as_str().into_client_request().map_err(|_| wrong())?;
    for (name, value) in &headers {
        request.headers_mut().append(name, value.clone());
    }
    let config = WebSocketConfig::default().max_message_size(Some(MOST)).max_frame_size(Some(MOST));
    match tokio_tungstenite::client_async_with_config(request, carrier, Some(config)).await {
        Ok((socket, _)) => Ok(Box::new(Open(socket))),
        Err(Error::Http(response)) => {
            let status = response.status().as_u16();
            let message = format!("the WebSocket to {host} was refused with {status}");
            Err(CoreError::new(Code::Network, message).with_status(status))
        }
        Err(error) => Err(lost("no handshake", &error)),
    }
}

impl Socket for Open {
    fn next(&mut self) -> Boxed<'_, Result<Option<Frame>>> {
        Box::pin(async move {
            let frame = match self.0.next().await {
                None | Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) => return Ok(None),
                Some(Err(error)) => {
                    let code = if matches!(error, Error::Capacity(_)) { Code::Limit } else { Code::Network };
                    return Err(CoreError::new(code, format!("the WebSocket broke: {error}")));
                }
                Some(Ok(frame)) => frame,
            };
            Ok(Some(match frame {
                Message::Text(text) => Frame::Text(text.as_str().to_owned()),
                Message::Binary(bytes) => Frame::Binary(bytes),
                Message::Ping(bytes) => Frame::Ping(bytes),
                Message::Pong(bytes) => Frame::Pong(bytes),
                Message::Close(Some(close)) => {
                    Frame::Close(Some(close.code.into()), close.reason.as_str().to_owned())
                }
                Message::Close(None) | Message::Frame(_) => Frame::Close(None, String::new()),
            }))
        })
    }

    fn send(&mut self, frame: Frame) -> Boxed<'_, Result<()>> {
        Box::pin(async move {
            let message = match frame {
                Frame::Text(text) => Message::Text(text.into()),
                Frame::Binary(bytes) => Message::Binary(bytes),
                Frame::Ping(bytes) => Message::Ping(bytes),
                Frame::Pong(bytes) => Message::Pong(bytes),
                Frame::Close(code, reason) => Message::Close(
                    code.map(|code| CloseFrame { code: CloseCode::from(code), reason: reason.into() }),
                ),
            };
            self.0
                .send(message)
                .await
                .map_err(|error| CoreError::new(Code::Network, format!("the WebSocket broke: {error}")))
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn frames_go_both_ways_and_the_end_has_its_code() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("ws://{}/gateway?v=10", listener.local_addr().unwrap())).unwrap();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            socket.send(Message::Ping(vec![1].into())).await.unwrap();
            while let Some(Ok(message)) = socket.next().await {
                match message {
                    Message::Text(text) => {
                        socket.send(Message::Text(format!("echo {text}").into())).await.unwrap();
                    }
                    Message::Pong(_) => {
                        let close = CloseFrame { code: CloseCode::from(4004), reason: "enough".into() };
                        socket.send(Message::Binary(vec![7, 8].into())).await.unwrap();
                        socket.close(Some(close)).await.unwrap();
                    }
                    _ => {}
                }
            }
        });
        let mut socket = connect(url, HeaderMap::new()).await.unwrap();
        socket.send(Frame::Text("hello".into())).await.unwrap();
        let mut got = Vec::new();
        while let Some(frame) = socket.next().await.unwrap() {
            got.push(frame);
        }
        assert!(got.contains(&Frame::Ping(vec![1].into())), "{got:?}");
        assert!(got.contains(&Frame::Binary(vec![7, 8].into())), "{got:?}");
        assert!(got.contains(&Frame::Close(Some(4004), "enough".into())), "{got:?}");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_no_websocket_is_an_error_without_the_query() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/?ticket=secret", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            _ = stream.read(&mut [0; 2048]).await.unwrap();
            stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        });
        let error = connect(Url::parse(&url).unwrap(), HeaderMap::new()).await.err().unwrap();
        assert_eq!((error.code(), error.details().status), (Code::Network, Some(403)));
        assert!(!error.message().contains("secret"), "{error}");
        server.await.unwrap();
        for url in ["http://e.org", "ftp://e.org"] {
            let error = connect(Url::parse(url).unwrap(), HeaderMap::new()).await.err().unwrap();
            assert_eq!(error.code(), Code::Validation);
        }
    }
}
