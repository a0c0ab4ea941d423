//! A GET that connects to nothing but what [`super::url`] admitted.
//!
//! Each hop is checked by itself, and its client knows the addresses that were checked and no other way to resolve a
//! name: that DNS says something else a moment later changes nothing. No proxy is used, because a proxy resolves names
//! itself. Nothing is decompressed, so that a small answer stays small.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue, LOCATION};
use url::Url;

use super::url::{Checked, Policy, Resolver, SystemResolver, check, check_target};
use crate::http::{self, HttpOptions, Proxy};
use crate::runtime::blocking;
use crate::{Code, CoreError, Result};

/// How to fetch.
#[derive(Clone)]
pub struct FetchOptions {
    /// What may be reached.
    pub policy: Policy,
    /// The most bytes of a body. Default: 10 MiB.
    pub max_bytes: usize,
    /// Sent with each request. To another origin than the first, only those go that tell nothing of who asks.
    pub headers: Vec<(String, String)>,
    /// The most redirects. Default: 5.
    pub max_redirects: usize,
    /// For the whole, redirects included. Default: 60 s.
    pub timeout: Duration,
    /// How names become addresses. Default: the system's way.
    pub resolver: Arc<dyn Resolver>,
    /// A PEM file of certificate authorities to trust beside those of the system.
    pub ca_file: Option<std::path::PathBuf>,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            max_bytes: 10 << 20,
            headers: Vec::new(),
            max_redirects: 5,
            timeout: Duration::from_mins(1),
            resolver: Arc::new(SystemResolver),
            ca_file: None,
        }
    }
}

/// An answer; a status of 400 or above is one, too.
#[derive(Debug)]
pub struct Fetched {
    /// The HTTP status.
    pub status: u16,
    /// By lower-case name; the values of one that came several times are joined by ", ".
    pub headers: BTreeMap<String, String>,
    /// As it was sent: compressed if `content-encoding` says so.
    pub body: Vec<u8>,
    /// Where the answer came from, after redirects.
    pub url: Url,
}

/// Fetches a URL.
///
/// `SSRF_BLOCKED` if it, or a redirect's target, may not be fetched; `VALIDATION` for a URL or header that is none;
/// `LIMIT` for too large a body or too many redirects; `TIMEOUT`; `NETWORK`.
pub async fn fetch(url: &str, options: &FetchOptions) -> Result<Fetched> {
    tokio::time::timeout(options.timeout, follow(url, options)).await.unwrap_or_else(|_| {
        let message = format!("the fetch took longer than {} s", options.timeout.as_secs());
        Err(CoreError::new(Code::Timeout, message))
    })
}

async fn follow(url: &str, options: &FetchOptions) -> Result<Fetched> {
    let mut headers = read_headers(&options.headers)?;
    let resolver = options.resolver.as_ref();
    let mut next = check(url, &options.policy, resolver).await?;
    for _ in 0..=options.max_redirects {
        let response = get(&next, headers.clone(), options).await?;
        let location = match response.status().as_u16() {
            301 | 302 | 303 | 307 | 308 => response.headers().get(LOCATION),
            _ => None,
        };
        let Some(location) = location else { return finish(next.url, response, options.max_bytes).await };
        // Outside of ASCII the field is UTF-8 by custom.
        let target = std::str::from_utf8(location.as_bytes())
            .map_err(|_| CoreError::new(Code::Network, "a redirect leads to no URL"))?;
        let target = check_target(&next.url, target, &options.policy, resolver).await?;
        let same_origin = target.url.origin() == next.url.origin();
        next = target;
        if !same_origin {
            headers = headers.into_iter().filter_map(harmless).collect();
        }
    }
    Err(CoreError::new(Code::Limit, format!("more than {} redirects", options.max_redirects)))
}

async fn get(checked: &Checked, headers: HeaderMap, options: &FetchOptions) -> Result<reqwest::Response> {
    let http = HttpOptions {
        proxy: Proxy::None,
        ca_file: options.ca_file.clone(),
        resolver: Some(Arc::new(Pinned(checked.addresses.clone()))),
        keep_alive: false,
        ..HttpOptions::default()
    };
    let client = blocking(move || http::client(&http)).await?;
    let response = client
        .get(checked.url.clone())
        .headers(headers)
        .send()
        .await
        .map_err(|error| http::failure("the fetch", error))?;
    // Should some path ever go round the resolver, nothing of the answer is handed out.
    match response.remote_addr() {
        Some(peer) if checked.addresses.contains(&peer.ip()) => Ok(response),
        _ => Err(CoreError::new(Code::SsrfBlocked, "the answer came from an address that was not checked")),
    }
}

async fn finish(url: Url, response: reqwest::Response, max_bytes: usize) -> Result<Fetched> {
    let status = response.status().as_u16();
    let mut headers = BTreeMap::<String, String>::new();
    for (name, value) in response.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.as_str().to_owned())
            .and_modify(|before| {
                before.push_str(", ");
                before.push_str(&value);
            })
            .or_insert_with(|| value.clone().into_owned());
    }
    let body = http::body("the fetch", response, max_bytes).await?;
    Ok(Fetched { status, headers, body, url })
}

/// The addresses that were checked, whatever name is asked for.
struct Pinned(Vec<IpAddr>);

impl Resolve for Pinned {
    fn resolve(&self, _name: Name) -> Resolving {
        // The port is the URL's.
        let addresses: Vec<_> = self.0.iter().map(|&address| SocketAddr::new(address, 0)).collect();
        Box::pin(async move { Ok(Box::new(addresses.into_iter()) as Addrs) })
    }
}

fn read_headers(given: &[(String, String)]) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    for (name, value) in given {
        // The value may be a secret.
        let wrong = |what: &str| CoreError::new(Code::Validation, format!("the header {name:?} {what}"));
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("is no name of a header"))?;
        // They say where a request ends and whom it is for: two readers could see two requests.
        let framing = matches!(
            key.as_str(),
            "host"
                | "connection"
                | "content-length"
                | "expect"
                | "http2-settings"
                | "keep-alive"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
        );
        if framing || key.as_str().starts_with("proxy-") {
            return Err(wrong("is not the caller's to set"));
        }
        let mut value =
            HeaderValue::from_str(value).map_err(|_| wrong("has a value that no header may have"))?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

/// What may go to another origin: the same list as OpenClaw's, of which a GET needs these.
fn harmless((name, value): (Option<HeaderName>, HeaderValue)) -> Option<(HeaderName, HeaderValue)> {
    let name = name?;
    let harmless = matches!(
        name.as_str(),
        "accept"
            | "accept-encoding"
            | "accept-language"
            | "cache-control"
            | "if-match"
            | "if-modified-since"
            | "if-none-match"
            | "if-unmodified-since"
            | "pragma"
            | "range"
            | "user-agent"
    );
    harmless.then_some((name, value))
}

#[cfg(test)]
mod tests;
