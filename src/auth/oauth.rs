//! What is said to an authorization server, and what it says: the token endpoint (RFC 6749) and device authorization
//! (RFC 8628).
//!
//! Of an answer that is a refusal nothing is repeated but its status and an error code out of the RFCs: a server's own
//! words may hold a token.

use std::fmt;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, StatusCode};
use serde::de::{DeserializeOwned, Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use url::{Host, Url, form_urlencoded};
use zeroize::Zeroize;

use super::profile;
use crate::secrets::Secret;
use crate::{Code, CoreError, Result, http};

/// More than any answer of these endpoints has.
const MAX_ANSWER: usize = 256 * 1024;
/// Between two polls, whatever the server says.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);
/// No token lives longer: 10 years.
const MAX_SECONDS: f64 = 3.2e8;

/// Where a provider's OAuth endpoints are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OAuthProvider {
    /// The provider's id, such as `openai`.
    pub id: String,
    /// The client's id there. It is a public client: it has no secret (RFC 8252, section 8.4).
    pub client_id: String,
    /// The authorization endpoint, for signing in with a browser on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorize_url: Option<String>,
    /// The token endpoint.
    pub token_url: String,
    /// The device authorization endpoint, for signing in with a browser elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_url: Option<String>,
    /// What to ask for.
    pub scopes: Vec<String>,
    /// The port of the redirect to 127.0.0.1; 0 or none for any free one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect_port: Option<u16>,
    /// The whole redirect URI, where the server has registered one that differs from `http://127.0.0.1:<port>/callback`, such
    /// as `http://localhost:1455/auth/callback`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect_uri: Option<String>,
}

impl OAuthProvider {
    /// The provider with its id in lower case; `VALIDATION` if an endpoint is neither HTTPS nor on this machine, or
    /// something is missing.
    pub fn checked(mut self) -> Result<Self> {
        self.id = profile::provider_id(&self.id)?;
        if self.client_id.is_empty() {
            return Err(invalid("`clientId` is empty"));
        }
        endpoint("tokenUrl", &self.token_url)?;
        for (name, url) in [("authorizeUrl", &self.authorize_url), ("deviceUrl", &self.device_url)] {
            if let Some(url) = url {
                endpoint(name, url)?;
            }
        }
        if let Some(uri) = &self.redirect_uri {
            let url = Url::parse(uri).map_err(|_| invalid("`redirectUri` is no URL"))?;
            if url.scheme() != "http"
                || !is_loopback(&url)
                || url.query().is_some()
                || url.fragment().is_some()
            {
                return Err(invalid(
                    "`redirectUri` must be http: with a loopback host, without query and fragment",
                ));
            }
        }
        Ok(self)
    }

    pub(super) fn scope(&self) -> String {
        self.scopes.join(" ")
    }
}

/// An endpoint's URL: TLS, but on this machine (RFC 6749, section 3.2; RFC 8252, section 8.3).
pub(super) fn endpoint(name: &str, text: &str) -> Result<Url> {
    let url = Url::parse(text).map_err(|_| invalid(&format!("`{name}` is no URL")))?;
    let private = url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url);
    if !private || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(invalid(&format!(
            "`{name}` must begin with https:// (http:// on this machine only) and have neither user nor fragment"
        )));
    }
    Ok(url)
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

pub(super) fn invalid(message: &str) -> CoreError {
    CoreError::new(Code::Validation, message)
}

/// A secret that goes from JSON text into its own memory.
struct Sealed(Secret);

impl<'de> Deserialize<'de> for Sealed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seal;
        impl Visitor<'_> for Seal {
            type Value = Sealed;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Sealed, E> {
                Ok(Sealed(Secret::copy_of(text.as_bytes())))
            }
        }
        deserializer.deserialize_str(Seal)
    }
}

/// Seconds: a number, or, with some servers, its digits.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(f64),
    Digits(String),
}

impl Seconds {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within bounds, and not negative"
    )]
    fn millis(&self) -> Option<u64> {
        let seconds = match self {
            Self::Number(seconds) => *seconds,
            Self::Digits(digits) => digits.trim().parse().ok()?,
        };
        (seconds >= 0.0).then(|| (seconds.min(MAX_SECONDS) * 1000.0) as u64)
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: Option<Sealed>,
    token_type: Option<String>,
    expires_in: Option<Seconds>,
    refresh_token: Option<Sealed>,
    id_token: Option<Sealed>,
}

/// What a token endpoint gave.
pub(super) struct Tokens {
    pub(super) access: Secret,
    pub(super) refresh: Option<Secret>,
    pub(super) lifetime_ms: Option<u64>,
    pub(super) email: Option<String>,
}

/// What a device authorization endpoint gave (RFC 8628, section 3.2).
pub(super) struct DeviceGrant {
    pub(super) device_code: Secret,
    pub(super) user_code: String,
    pub(super) verification_uri: String,
    pub(super) lifetime: Duration,
    pub(super) interval: Duration,
}

#[derive(Deserialize)]
struct DeviceAnswer {
    device_code: Sealed,
    user_code: String,
    #[serde(alias = "verification_url")]
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: Option<Seconds>,
    interval: Option<Seconds>,
}

/// Why a token endpoint gave nothing.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The grant is spent, revoked or expired: only signing in again helps.
    Grant(String),
    /// RFC 8628: the user has not decided yet.
    Pending,
    /// RFC 8628: ask five seconds less often.
    SlowDown,
    /// The user said no.
    Denied,
    /// RFC 8628: nobody decided in time.
    Expired,
    /// Certainly not received by the server.
    Unsent(String),
    /// Anything else; trying again may help.
    Other(String),
}

/// The codes of RFC 6749 (5.2, 4.1.2.1) and RFC 8628 (3.5), and those by which `OpenAI` says that a grant is gone.
const ERRORS: [&str; 17] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "unsupported_response_type",
    "invalid_scope",
    "access_denied",
    "server_error",
    "temporarily_unavailable",
    "authorization_pending",
    "slow_down",
    "expired_token",
    "refresh_token_reused",
    "refresh_token_expired",
    "refresh_token_invalidated",
    "refresh_token_revoked",
];

/// The code if it is one that is known, else none: it may hold anything.
pub(super) fn known_error(code: &str) -> Option<&'static str> {
    ERRORS.into_iter().find(|known| *known == code)
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: Option<ErrorField>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ErrorField {
    Code(String),
    Object { code: Option<String> },
}

/// Asks a token endpoint.
pub(super) async fn tokens(client: &Client, url: &str, form: &[(&str, &str)]) -> Result<Tokens, Refusal> {
    let answer: TokenAnswer = post(client, "the token request", url, form).await?;
    let Some(Sealed(access)) = answer.access_token.filter(|token| !token.0.is_empty()) else {
        return Err(Refusal::Other("the authorization server's answer has no access token".into()));
    };
    if answer.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(Refusal::Other("the authorization server's answer is no bearer token".into()));
    }
    Ok(Tokens {
        access,
        refresh: answer.refresh_token.map(|token| token.0).filter(|token| !token.is_empty()),
        lifetime_ms: answer.expires_in.and_then(|seconds| seconds.millis()),
        email: answer.id_token.as_ref().and_then(|token| email(&token.0)),
    })
}

/// Asks a device authorization endpoint.
pub(super) async fn device(
    client: &Client,
    provider: &OAuthProvider,
    url: &str,
) -> Result<DeviceGrant, Refusal> {
    let scope = provider.scope();
    let mut form = vec![("client_id", provider.client_id.as_str())];
    if !scope.is_empty() {
        form.push(("scope", &scope));
    }
    let answer: DeviceAnswer = post(client, "the device authorization request", url, &form).await?;
    let given = answer.verification_uri_complete.unwrap_or(answer.verification_uri);
    let uri = Url::parse(&given).ok().filter(|uri| matches!(uri.scheme(), "https" | "http"));
    let plain = |text: &str| !text.chars().any(is_deceptive);
    let Some(uri) = uri.filter(|_| plain(&given) && plain(&answer.user_code)) else {
        return Err(Refusal::Other(
            "the authorization server's answer has no address to go to, or no code, that can be shown".into(),
        ));
    };
    let seconds = |given: Option<Seconds>, default: u64| {
        let millis = given.and_then(|seconds| seconds.millis());
        Duration::from_millis(millis.unwrap_or(default * 1000))
    };
    Ok(DeviceGrant {
        device_code: answer.device_code.0,
        user_code: answer.user_code,
        // In ASCII.
        verification_uri: uri.into(),
        lifetime: seconds(answer.expires_in, 1800),
        // "If no value is provided, clients MUST use 5 as the default."
        interval: seconds(answer.interval, 5).max(LEAST_INTERVAL),
    })
}

/// What a terminal or a page does not show, but obeys: control characters, and those that change the direction of text
/// (Unicode Standard Annex #9).
fn is_deceptive(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') || turns
}

async fn post<T: DeserializeOwned>(
    client: &Client,
    what: &str,
    url: &str,
    form: &[(&str, &str)],
) -> Result<T, Refusal> {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let sent = client
        .post(url)
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(body)
        .send()
        .await;
    let response = sent.map_err(|error| {
        let unsent = error.is_connect() || error.is_builder();
        let words = http::failure(what, error).message().to_owned();
        if unsent { Refusal::Unsent(words) } else { Refusal::Other(words) }
    })?;
    let status = response.status();
    let mut bytes = http::body(what, response, MAX_ANSWER)
        .await
        .map_err(|error| Refusal::Other(error.message().to_owned()))?;
    let outcome = if status.is_success() {
        // The parser's error would say what it found.
        serde_json::from_slice(&bytes)
            .map_err(|_| Refusal::Other(format!("the answer to {what} is not what its RFC says")))
    } else {
        Err(refusal(what, status, &bytes))
    };
    bytes.zeroize();
    outcome
}

fn refusal(what: &str, status: StatusCode, body: &[u8]) -> Refusal {
    let given = serde_json::from_slice::<ErrorAnswer>(body).ok().and_then(|answer| answer.error);
    let code = match &given {
        Some(ErrorField::Code(code) | ErrorField::Object { code: Some(code) }) => known_error(code),
        _ => None,
    };
    let words = code.map_or_else(
        || format!("{what} was refused with status {}", status.as_u16()),
        |code| format!("{what} was refused with status {}, {code}", status.as_u16()),
    );
    if !status.is_client_error() {
        return Refusal::Other(words);
    }
    match code {
        Some("authorization_pending") => Refusal::Pending,
        Some("slow_down") => Refusal::SlowDown,
        Some("access_denied") => Refusal::Denied,
        Some("expired_token") => Refusal::Expired,
        Some("invalid_grant") => Refusal::Grant(words),
        Some(code) if code.starts_with("refresh_token_") => Refusal::Grant(words),
        _ => Refusal::Other(words),
    }
}

/// The claim `email` of an ID token. It came from the token endpoint itself, so its signature need not be checked (`OpenID`
/// Connect Core 1.0, 3.1.3.7), and it is used as a name only.
fn email(token: &Secret) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        email: Option<String>,
    }
    let payload = token.expose_str().ok()?.split('.').nth(1)?;
    let claims = data_encoding::BASE64URL_NOPAD.decode(payload.trim_end_matches('=').as_bytes()).ok()?;
    let email = serde_json::from_slice::<Claims>(&claims).ok()?.email?;
    (email.len() <= 64 && email.contains('@') && !email.chars().any(char::is_control)).then_some(email)
}
