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
const LONGEST: Duration = Duration::from_secs(24 * 3600);

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
        let options = HttpOptions { connect_timeout: connect, ..self.options.clone() };
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
        distrust |= inner.is_some_and(|inner| inner.is::<rustls::Error>());
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
