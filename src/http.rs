//! HTTP clients: the one place that builds them.
//!
//! TLS is rustls with ring. Trusted are the certificate authorities of the system (or those of `SSL_CERT_FILE` and
//! `SSL_CERT_DIR`, which replace them), those of `NODE_EXTRA_CA_CERTS`, as in Node, and those of
//! [`HttpOptions::ca_file`]. A client follows no redirect: a caller who wants that says where to. It decompresses only where
//! the caller reads a body as it comes, and so needs no room for all of it.
//!
//! Building a client may read files: do it off the JavaScript thread, once, and keep the client, which is cheap to
//! clone and holds the connections.

use std::error::Error as _;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::dns::Resolve;
use reqwest::{Client, NoProxy, Response};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::{Code, CoreError, Result};

/// How a client connects.
#[derive(Clone)]
pub struct HttpOptions {
    /// Through which proxy.
    pub proxy: Proxy,
    /// A PEM file of certificate authorities to trust beside those of the system.
    pub ca_file: Option<PathBuf>,
    /// Until a connection stands, TLS included. Default: 10 s.
    pub connect_timeout: Duration,
    /// The longest wait for the next bytes. Default: none.
    pub idle_timeout: Option<Duration>,
    /// The whole of a request, its body included. Default: none.
    pub total_timeout: Option<Duration>,
    /// How names become addresses. Default: the system's way. Not asked where the host is an address, or where a
    /// proxy is in between.
    pub resolver: Option<Arc<dyn Resolve>>,
    /// Whether connections are kept for the next request. Default: yes.
    pub keep_alive: bool,
    /// Whether to ask for gzip, brotli and zstd, and to undo them. Default: no; a few bytes may become gigabytes.
    pub decompress: bool,
    /// Default: `openclaw-core/` and the version.
    pub user_agent: String,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            proxy: Proxy::default(),
            ca_file: None,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: None,
            total_timeout: None,
            resolver: None,
            keep_alive: true,
            decompress: false,
            user_agent: concat!("openclaw-core/", env!("CARGO_PKG_VERSION")).into(),
        }
    }
}

/// Through which proxy a client connects: HTTP or HTTPS, with the user's name and password in the URL if it asks for
/// them. This machine itself (`localhost`, loopback addresses) is always reached directly, as by Go's `net/http`: another
/// machine could not reach it for us, and would only learn what is said here in clear.
#[derive(Clone, Default)]
pub enum Proxy {
    /// As `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, or their lower-case forms, say.
    #[default]
    Environment,
    /// Directly.
    None,
    /// Through this one.
    Url {
        /// The proxy's URL.
        url: String,
        /// Hosts to reach directly, as `NO_PROXY` lists them.
        no_proxy: Option<String>,
    },
}

impl fmt::Debug for Proxy {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Environment => "Environment",
            Self::None => "None",
            Self::Url { .. } => "Url([REDACTED])",
        })
    }
}

/// A client. Blocks: reads the certificate authorities.
pub fn client(options: &HttpOptions) -> Result<Client> {
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls(options.ca_file.as_deref())?)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(options.connect_timeout)
        .gzip(options.decompress)
        .brotli(options.decompress)
        .zstd(options.decompress)
        .user_agent(options.user_agent.as_str());
    match &options.proxy {
        Proxy::Environment => {
            builder = builder.no_proxy();
            for proxy in environment() {
                builder = builder.proxy(proxy);
            }
        }
        Proxy::None => builder = builder.no_proxy(),
        Proxy::Url { url, no_proxy } => {
            // The error would repeat the URL, and with it the password.
            let proxy = reqwest::Proxy::all(url.as_str())
                .map_err(|_| CoreError::new(Code::Validation, "the proxy is no URL of an HTTP proxy"))?;
            builder = builder.proxy(proxy.no_proxy(direct(no_proxy.as_deref())));
        }
    }
    if let Some(wait) = options.idle_timeout {
        builder = builder.read_timeout(wait);
    }
    if let Some(wait) = options.total_timeout {
        builder = builder.timeout(wait);
    }
    if let Some(resolver) = &options.resolver {
        builder = builder.dns_resolver(Arc::clone(resolver));
    }
    if !options.keep_alive {
        builder = builder.pool_max_idle_per_host(0);
    }
    builder.build().map_err(|error| {
        CoreError::new(Code::Internal, format!("cannot build an HTTP client: {}", chain(&error)))
    })
}

/// This machine.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1,::ffff:127.0.0.0/104";

/// Which hosts are reached without a proxy: these, and this machine.
fn direct(no_proxy: Option<&str>) -> Option<NoProxy> {
    NoProxy::from_string(&format!("{LOOPBACK},{}", no_proxy.unwrap_or_default()))
}

/// The proxies of the environment, read as reqwest reads them.
fn environment() -> Vec<reqwest::Proxy> {
    let read = |names: [&str; 2]| names.into_iter().find_map(|name| std::env::var(name).ok());
    let no_proxy = read(["NO_PROXY", "no_proxy"]);
    // In a CGI program, a request's `Proxy` header is this variable (CVE-2016-5385).
    let is_cgi = std::env::var_os("REQUEST_METHOD").is_some();
    let http = read(["HTTP_PROXY", "http_proxy"]).filter(|_| !is_cgi).map(reqwest::Proxy::http);
    let https = read(["HTTPS_PROXY", "https_proxy"]).map(reqwest::Proxy::https);
    let all = read(["ALL_PROXY", "all_proxy"]).map(reqwest::Proxy::all);
    // The first that is for a URL's scheme counts. One that is empty is none.
    let found = [http, https, all].into_iter().flatten().filter_map(Result::ok);
    found.map(|proxy| proxy.no_proxy(direct(no_proxy.as_deref()))).collect()
}

/// What went wrong on the way, without the URL, whose query may hold a secret: `TIMEOUT` or `NETWORK`. `what` names
/// the request in words ("the token request").
pub fn failure(what: &str, error: reqwest::Error) -> CoreError {
    let error = error.without_url();
    let code = if error.is_timeout() { Code::Timeout } else { Code::Network };
    CoreError::new(code, format!("{what} failed: {}", chain(&error))).caused_by(error)
}

/// The body of an answer; `LIMIT` as soon as it has more than `most` bytes.
pub async fn body(what: &str, mut response: Response, most: usize) -> Result<Vec<u8>> {
    let too_large =
        || CoreError::new(Code::Limit, format!("the answer to {what} has more than {most} bytes"));
    if response.content_length().is_some_and(|length| length > most as u64) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failure(what, error))? {
        if chunk.len() > most.saturating_sub(body.len()) {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The error and its causes: the outermost alone says little more than "error sending request".
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}

/// One for all clients without a CA file of their own, so that they resume each other's sessions.
static TLS: OnceLock<ClientConfig> = OnceLock::new();

/// TLS for a WebSocket, which no HTTP/2 carries here. Blocks: reads the certificate authorities.
pub(crate) fn tls_for_sockets() -> Result<ClientConfig> {
    let mut config = tls(None)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn tls(ca_file: Option<&Path>) -> Result<ClientConfig> {
    if let Some(file) = ca_file {
        let mut roots = system_roots().clone();
        for certificate in certificates(file)? {
            roots.add(certificate).map_err(|error| {
                CoreError::new(
                    Code::Validation,
                    format!("a certificate in {} cannot be trusted: {error}", file.display()),
                )
                .in_file(file)
            })?;
        }
        return tls_with(roots);
    }
    if let Some(config) = TLS.get() {
        return Ok(config.clone());
    }
    let config = tls_with(system_roots().clone())?;
    Ok(TLS.get_or_init(|| config).clone())
}

fn tls_with(roots: RootCertStore) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| CoreError::new(Code::Internal, format!("cannot set up TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Read once: a change of the system's authorities counts from the next start on, as in Node.
fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "cannot read a certificate authority of the system");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if let Some(file) = std::env::var_os("NODE_EXTRA_CA_CERTS").filter(|file| !file.is_empty()) {
            // Node, too, goes on without them.
            match certificates(Path::new(&file)) {
                Ok(extra) => _ = roots.add_parsable_certificates(extra),
                Err(error) => tracing::warn!(%error, "NODE_EXTRA_CA_CERTS is of no use"),
            }
        }
        if roots.is_empty() {
            tracing::warn!("this system has no certificate authorities: no HTTPS server can be trusted");
        }
        roots
    })
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let text = std::fs::read(file).map_err(|error| CoreError::io("read", file, error))?;
    let wrong =
        |words: &str| CoreError::new(Code::Validation, format!("{} {words}", file.display())).in_file(file);
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(&format!("is no PEM file: {error}")))?;
    if found.is_empty() { Err(wrong("holds no certificate in PEM form")) } else { Ok(found) }
}

#[cfg(test)]
mod tests;
