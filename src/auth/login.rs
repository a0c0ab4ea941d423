//! Signing in: authorization code with PKCE through a browser on this machine, or device code through one elsewhere.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use url::Url;

use super::oauth::{self, OAuthProvider, Refusal, Tokens, invalid, known_error};
use super::pkce;
use super::profile::{self, AuthProfile, ProfileType, Record};
use super::profiles::AuthProfiles;
use crate::secrets::Secret;
use crate::{Code, CoreError, Result};

/// How long a person may take in the browser.
const PATIENCE: Duration = Duration::from_mins(10);
/// A request of the browser: more is none.
const MAX_HEAD: usize = 16 * 1024;
const HEAD_WAIT: Duration = Duration::from_secs(10);
/// RFC 8628, section 3.5: "the interval MUST be increased by 5 seconds".
const SLOWER: Duration = Duration::from_secs(5);
/// Waits between polls grow no longer while the server cannot be reached.
const SLOWEST: Duration = Duration::from_mins(1);

/// How to sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginFlow {
    /// Authorization code: the browser runs on this machine.
    Browser,
    /// Device code: the browser runs anywhere.
    Device,
}

/// Options of [`AuthProfiles::login`].
#[derive(Clone, Debug, Default)]
pub struct LoginOptions {
    /// Default: `Browser` if the provider has an authorization endpoint, else `Device`.
    pub flow: Option<LoginFlow>,
    /// The profile to sign in. Default: `<provider>:<email>`, or `<provider>:default` if no email is known, as in OpenClaw, or
    /// if the first were too long.
    pub profile_id: Option<String>,
}

/// What a person is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The address to open.
    pub url: String,
    /// The code to enter there, with device code.
    pub user_code: Option<String>,
}

impl AuthProfiles {
    /// Signs in, and stores the tokens as a profile, together with the token endpoint and the client they came from: they are
    /// refreshed there and nowhere else.
    ///
    /// `AUTH_EXPIRED` if the person said no or took too long, `AUTH_REFRESH` if the server gave no tokens; `VALIDATION`, before
    /// anyone is asked, for a provider or a profile's id that is not right.
    pub async fn login(
        &self,
        provider: OAuthProvider,
        options: LoginOptions,
        prompt: impl Fn(Prompt) + Send,
    ) -> Result<AuthProfile> {
        let provider = provider.checked()?;
        // A person who signs in must not find out then that there is no name for it.
        let id = options.profile_id;
        let fallback = format!("{}:default", provider.id);
        profile::entry(id.as_deref().unwrap_or(&fallback))?;
        let flow = options.flow.unwrap_or(if provider.authorize_url.is_some() {
            LoginFlow::Browser
        } else {
            LoginFlow::Device
        });
        let started = self.now();
        let tokens = match flow {
            LoginFlow::Browser => self.authorize(&provider, prompt).await?,
            LoginFlow::Device => self.authorize_device(&provider, prompt).await?,
        };
        let id = id.unwrap_or_else(|| {
            let named = tokens.email.as_ref().map(|email| format!("{}:{email}", provider.id));
            named.filter(|id| profile::entry(id).is_ok()).unwrap_or(fallback)
        });
        let mut record = Record::new(provider.id.clone(), ProfileType::OAuth, None, tokens.email);
        record.live(self.now().max(started), tokens.lifetime_ms);
        record.token_url = Some(provider.token_url);
        record.client_id = Some(provider.client_id);
        let profile = record.public(&id);
        self.put(id, record, Some(tokens.access), tokens.refresh).await?;
        Ok(profile)
    }

    async fn authorize(&self, provider: &OAuthProvider, prompt: impl Fn(Prompt) + Send) -> Result<Tokens> {
        let Some(authorize_url) = &provider.authorize_url else {
            return Err(invalid("the provider has no `authorizeUrl`: sign in with a device code"));
        };
        let client = self.client().await?;
        let verifier = pkce::verifier(&self.inner.options.random)?;
        let state = pkce::token(&self.inner.options.random)?;
        let redirect = Redirect::bind(provider).await?;
        let mut url = oauth::endpoint("authorizeUrl", authorize_url)?;
        let scope = provider.scope();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &provider.client_id)
            .append_pair("redirect_uri", &redirect.uri)
            .append_pair("scope", &scope)
            .append_pair("state", state.expose_str()?)
            .append_pair("code_challenge", &pkce::challenge(&verifier))
            .append_pair("code_challenge_method", "S256");
        prompt(Prompt { url: url.into(), user_code: None });
        let code = timeout(PATIENCE, redirect.code(state)).await.map_err(|_| too_late())??;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code.expose_str()?),
            ("redirect_uri", &redirect.uri),
            ("client_id", &provider.client_id),
            ("code_verifier", verifier.expose_str()?),
        ];
        oauth::tokens(&client, &provider.token_url, &form).await.map_err(refused)
    }

    async fn authorize_device(
        &self,
        provider: &OAuthProvider,
        prompt: impl Fn(Prompt) + Send,
    ) -> Result<Tokens> {
        let Some(device_url) = &provider.device_url else {
            return Err(invalid("the provider has neither `authorizeUrl` nor `deviceUrl`"));
        };
        let client = self.client().await?;
        let grant = oauth::device(&client, provider, device_url).await.map_err(refused)?;
        let deadline = Instant::now() + grant.lifetime;
        prompt(Prompt { url: grant.verification_uri, user_code: Some(grant.user_code) });
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", grant.device_code.expose_str()?),
            ("client_id", &provider.client_id),
        ];
        let mut interval = grant.interval;
        let mut backoff = Duration::ZERO;
        loop {
            if Instant::now() + interval + backoff >= deadline {
                return Err(too_late());
            }
            sleep(interval + backoff).await;
            match oauth::tokens(&client, &provider.token_url, &form).await {
                Ok(tokens) => return Ok(tokens),
                Err(Refusal::Pending) => backoff = Duration::ZERO,
                Err(Refusal::SlowDown) => interval += SLOWER,
                // "On encountering a connection timeout, clients MUST unilaterally reduce their polling frequency."
                Err(Refusal::Unsent(words)) => {
                    tracing::warn!(%words, "the authorization server cannot be reached; asking less often");
                    backoff = (backoff * 2).max(interval).min(SLOWEST);
                }
                Err(refusal) => return Err(refused(refusal)),
            }
        }
    }
}

fn too_late() -> CoreError {
    CoreError::new(Code::AuthExpired, "nobody completed the sign-in in time: sign in again")
}

fn refused(refusal: Refusal) -> CoreError {
    match refusal {
        Refusal::Denied => CoreError::new(Code::AuthExpired, "the sign-in was denied: sign in again"),
        Refusal::Expired => too_late(),
        Refusal::Grant(words) => CoreError::new(
            Code::AuthExpired,
            format!("the sign-in was not accepted ({words}): sign in again"),
        ),
        Refusal::Unsent(words) | Refusal::Other(words) => {
            CoreError::new(Code::AuthRefresh, format!("cannot sign in: {words}"))
        }
        Refusal::Pending | Refusal::SlowDown => {
            CoreError::new(Code::AuthRefresh, "cannot sign in: the authorization server answered out of turn")
        }
    }
}

/// The redirect to this machine (RFC 8252, section 7.3).
struct Redirect {
    listeners: Vec<TcpListener>,
    uri: String,
    path: String,
    port: u16,
}

impl Redirect {
    async fn bind(provider: &OAuthProvider) -> Result<Self> {
        let registered = provider.redirect_uri.as_deref().map(Url::parse).transpose();
        let registered = registered.map_err(|_| invalid("`redirectUri` is no URL"))?;
        let port = match &registered {
            Some(uri) => uri.port().or(provider.redirect_port).unwrap_or(80),
            None => provider.redirect_port.unwrap_or(0),
        };
        let host = registered.as_ref().and_then(Url::host_str).unwrap_or("127.0.0.1");
        let mut listeners = Vec::new();
        if host != "[::1]" {
            listeners.push(listen(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await, port)?);
        }
        let port = match listeners.first() {
            Some(listener) => listener.local_addr().map_or(port, |address| address.port()),
            None => port,
        };
        match host {
            "[::1]" => listeners.push(listen(TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await, port)?),
            // A browser may take either. Without the second, it comes to the first in the end.
            "localhost" => listeners.extend(TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await.ok()),
            _ => {}
        }
        let port = match listeners.first() {
            Some(listener) => listener.local_addr().map_or(port, |address| address.port()),
            None => port,
        };
        let path = registered.as_ref().map_or("/callback", Url::path).to_owned();
        let uri = provider.redirect_uri.clone().unwrap_or_else(|| format!("http://127.0.0.1:{port}{path}"));
        Ok(Self { listeners, uri, path, port })
    }

    /// Waits for the browser to bring the code. A request without the right `state` is answered, and changes nothing:
    /// any page may send one.
    async fn code(&self, state: Secret) -> Result<Secret> {
        let (found, mut codes) = mpsc::channel(1);
        let expected = Arc::new(Expected { path: self.path.clone(), port: self.port, state, found });
        let accept = |listener| accept(listener, Arc::clone(&expected));
        let mut listeners = self.listeners.iter();
        let (first, second) = (listeners.next(), listeners.next());
        let serve = async {
            match (first, second) {
                (Some(first), Some(second)) => tokio::join!(accept(first), accept(second)).0,
                (Some(first), None) => accept(first).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            code = codes.recv() => code.unwrap_or_else(|| Err(too_late())),
            () = serve => Err(too_late()),
        }
    }
}

fn listen(outcome: std::io::Result<TcpListener>, port: u16) -> Result<TcpListener> {
    outcome.map_err(|error| {
        let message = format!(
            "cannot listen on port {port} of this machine for the browser: {error}; end the program that has it, or sign in with a device code"
        );
        CoreError::new(Code::Io, message).caused_by(error)
    })
}

struct Expected {
    path: String,
    port: u16,
    state: Secret,
    found: mpsc::Sender<Result<Secret>>,
}

async fn accept(listener: &TcpListener, expected: Arc<Expected>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        match listener.accept().await {
            // Each on its own: browsers open connections on which they send nothing.
            Ok((connection, _)) => _ = connections.spawn(serve(connection, Arc::clone(&expected))),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut connection: TcpStream, expected: Arc<Expected>) {
    let Some(head) = read_head(&mut connection).await else { return };
    let (status, words, code) = expected.read(&head);
    let body = format!("<!doctype html><meta charset=utf-8><title>OpenClaw</title><p>{words}");
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: no-store\r\nContent-Security-Policy: default-src 'none'\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = connection.write_all(answer.as_bytes()).await;
    let _ = connection.shutdown().await;
    if let Some(code) = code {
        let _ = expected.found.send(code).await;
    }
}

async fn read_head(connection: &mut TcpStream) -> Option<String> {
    let deadline = Instant::now() + HEAD_WAIT;
    let mut head = Vec::with_capacity(2048);
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let read = timeout_at(deadline, connection.read_buf(&mut head)).await.ok()?.ok()?;
        if read == 0 || head.len() > MAX_HEAD {
            return None;
        }
    }
    String::from_utf8(head).ok()
}

type Answer = (&'static str, &'static str, Option<Result<Secret>>);

impl Expected {
    /// What to answer to a request, and what it brought.
    fn read(&self, head: &str) -> Answer {
        const NO: Answer =
            ("400 Bad Request", "This is not the answer to the sign-in that is under way.", None);
        let mut lines = head.split("\r\n");
        let mut request = lines.next().unwrap_or_default().split(' ');
        let (Some("GET"), Some(target)) = (request.next(), request.next()) else { return NO };
        let host = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("host").then(|| value.trim())
        });
        // A page whose name was made to lead here has another.
        let hosts = ["127.0.0.1", "localhost", "[::1]"].map(|name| format!("{name}:{}", self.port));
        let bare = |host: &str| self.port == 80 && ["127.0.0.1", "localhost", "[::1]"].contains(&host);
        if !host.is_some_and(|host| hosts.iter().any(|known| known == host) || bare(host)) {
            return NO;
        }
        let Ok(url) = Url::parse("http://127.0.0.1").and_then(|base| base.join(target)) else { return NO };
        if url.path() != self.path {
            return ("404 Not Found", "There is nothing here.", None);
        }
        let mut query = HashMap::new();
        for (name, value) in url.query_pairs() {
            // RFC 6749, section 3.1: parameters must not come more than once.
            if query.insert(name.into_owned(), Secret::from_bytes(value.into_owned().into_bytes())).is_some()
            {
                return NO;
            }
        }
        if !query.get("state").is_some_and(|state| *state == self.state) {
            return NO;
        }
        if let Some(error) = query.get("error") {
            let known = error.expose_str().ok().and_then(known_error);
            let error = match known {
                Some("access_denied") => refused(Refusal::Denied),
                Some(code) => refused(Refusal::Other(format!("the authorization server answered {code}"))),
                None => refused(Refusal::Other("the authorization server answered with an error".into())),
            };
            return ("200 OK", "The sign-in failed. You can close this window.", Some(Err(error)));
        }
        match query.remove("code").filter(|code| !code.is_empty()) {
            Some(code) => ("200 OK", "You are signed in. You can close this window.", Some(Ok(code))),
            None => NO,
        }
    }
}
