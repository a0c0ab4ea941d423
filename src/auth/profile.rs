//! Profiles, and what the store keeps of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::cooldown::Usage;
use super::oauth::OAuthProvider;
use crate::secrets::{Entries, Secret};
use crate::{Code, CoreError, Result};

/// The entry that holds all that is not secret.
pub(super) const STATE: &str = "auth.state";
const FORMAT: u32 = 1;
const MAX_ID: usize = 100;
/// The store admits 128 bytes, of which `/refresh` takes 8.
const MAX_NAME: usize = 120;
/// `DEFAULT_OAUTH_REFRESH_MARGIN_MS` of OpenClaw: a token is refreshed this long before it expires.
const REFRESH_MARGIN_MS: u64 = 5 * 60 * 1000;

/// What a profile's secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProfileType {
    /// Tokens of an OAuth sign-in, refreshed before they expire.
    // In the order in which OpenClaw takes turns.
    #[serde(rename = "oauth")]
    OAuth,
    /// A bearer token that nobody refreshes.
    Token,
    /// An API key.
    ApiKey,
}

impl ProfileType {
    /// "oauth", "token" or `api_key`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OAuth => "oauth",
            Self::Token => "token",
            Self::ApiKey => "api_key",
        }
    }
}

/// An account with a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthProfile {
    /// Such as `openai:user@example.com`.
    pub id: String,
    /// The provider's id, in lower case.
    pub provider: String,
    /// What its secret is.
    pub kind: ProfileType,
    /// When the token expires, in milliseconds since 1970; `None` if that is not known, or never.
    pub expires_ms: Option<u64>,
    /// Whose account it is.
    pub email: Option<String>,
    /// Whether the sign-in no longer holds: it is not used until someone signs in again.
    pub sign_in_again: bool,
    /// Until when it is not used, in milliseconds since 1970; it may be past, and then one caller may try.
    pub cooldown_until_ms: Option<u64>,
}

/// The secrets of a new profile.
#[derive(Clone, Debug, Default)]
pub struct ProfileSecrets {
    /// Of `oauth` and `token`.
    pub access_token: Option<Secret>,
    /// Of `oauth`.
    pub refresh_token: Option<Secret>,
    /// Of `api_key`.
    pub api_key: Option<Secret>,
}

/// A refresh that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Refreshing {
    pub(super) started_ms: u64,
    pub(super) pid: u32,
}

/// A refresh that failed, but may succeed later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RefreshFailure {
    pub(super) at_ms: u64,
    pub(super) message: String,
}

/// What is kept of a profile beside its secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) provider: String,
    #[serde(rename = "type")]
    pub(super) kind: ProfileType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires_ms: Option<u64>,
    /// From when on the token is refreshed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) refresh_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) email: Option<String>,
    /// Where the refresh token came from, and the only place it is sent to. A profile without them uses the endpoints that are
    /// registered for its provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) token_url: Option<String>,
    /// Whom the refresh token was issued to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) client_id: Option<String>,
    /// Changes with each new set of secrets, and never comes twice.
    pub(super) grant: u64,
    /// Set before a refresh token is sent. Whoever finds it knows that the token may have been spent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) refreshing: Option<Refreshing>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) refresh_failure: Option<RefreshFailure>,
    /// Why someone has to sign in again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sign_in_again: Option<String>,
    /// The provider refused the token before it expired.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) stale: bool,
    #[serde(default)]
    pub(super) usage: Usage,
}

impl Record {
    pub(super) fn new(
        provider: String,
        kind: ProfileType,
        expires_ms: Option<u64>,
        email: Option<String>,
    ) -> Self {
        Self {
            provider,
            kind,
            expires_ms,
            refresh_ms: expires_ms.map(|expires| expires.saturating_sub(REFRESH_MARGIN_MS)),
            email,
            token_url: None,
            client_id: None,
            grant: 0,
            refreshing: None,
            refresh_failure: None,
            sign_in_again: None,
            stale: false,
            usage: Usage::default(),
        }
    }

    /// The token's life begins at `now`. A short one is used for most of it before it is refreshed.
    pub(super) fn live(&mut self, now: u64, lifetime_ms: Option<u64>) {
        self.expires_ms = lifetime_ms.map(|lifetime| now.saturating_add(lifetime));
        self.refresh_ms =
            lifetime_ms.map(|lifetime| now.saturating_add(lifetime - (lifetime / 5).min(REFRESH_MARGIN_MS)));
        self.refreshing = None;
        self.refresh_failure = None;
        self.sign_in_again = None;
        self.stale = false;
    }

    pub(super) fn is_expired(&self, now: u64) -> bool {
        self.expires_ms.is_some_and(|expires| now >= expires)
    }

    pub(super) fn is_due(&self, now: u64) -> bool {
        self.stale || self.refresh_ms.is_some_and(|from| now >= from)
    }

    pub(super) fn public(&self, id: &str) -> AuthProfile {
        AuthProfile {
            id: id.to_owned(),
            provider: self.provider.clone(),
            kind: self.kind,
            expires_ms: self.expires_ms,
            email: self.email.clone(),
            sign_in_again: self.sign_in_again.is_some(),
            cooldown_until_ms: self.usage.cooldown_until_ms.max(self.usage.disabled_until_ms),
        }
    }
}

/// All that is kept beside the secrets: the entry [`STATE`], as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    version: u32,
    #[serde(default)]
    grants: u64,
    #[serde(default)]
    pub(super) profiles: BTreeMap<String, Record>,
    /// By provider: which profiles are used, in this order.
    #[serde(default)]
    pub(super) order: BTreeMap<String, Vec<String>>,
    /// As registered, for profiles that do not know their own endpoints.
    #[serde(default)]
    pub(super) providers: BTreeMap<String, OAuthProvider>,
}

impl State {
    pub(super) fn parse(stored: Option<&Secret>) -> Result<Self> {
        let Some(stored) = stored else {
            return Ok(Self {
                version: FORMAT,
                grants: 0,
                profiles: BTreeMap::new(),
                order: BTreeMap::new(),
                providers: BTreeMap::new(),
            });
        };
        let wrong = |why: String| {
            CoreError::new(Code::Crypto, format!("the entry {STATE} of the credential store {why}"))
        };
        let state: Self = serde_json::from_slice(stored.expose())
            // The parser's own words would repeat what it found.
            .map_err(|error| {
                let (line, column) = (error.line(), error.column());
                wrong(format!("is not what was written there, at line {line}, column {column}"))
            })?;
        if state.version > FORMAT {
            return Err(wrong("was written by a newer version: update this one".into()));
        }
        Ok(state)
    }

    pub(super) fn read(entries: &Entries) -> Result<Self> {
        Self::parse(entries.get(STATE)?.as_ref())
    }

    pub(super) fn write(&self, entries: &mut Entries) -> Result<()> {
        let text = serde_json::to_vec(self)
            .map_err(|error| CoreError::new(Code::Internal, format!("cannot write {STATE}: {error}")))?;
        entries.set(STATE, &Secret::from_bytes(text))
    }

    pub(super) fn record(&self, id: &str) -> Result<&Record> {
        self.profiles.get(id).ok_or_else(|| no_profile(id))
    }

    pub(super) fn record_mut(&mut self, id: &str) -> Result<&mut Record> {
        self.profiles.get_mut(id).ok_or_else(|| no_profile(id))
    }

    /// Puts a profile and its secrets in the place of what is there under its id.
    pub(super) fn put(
        &mut self,
        entries: &mut Entries,
        id: &str,
        mut record: Record,
        access: Option<&Secret>,
        refresh: Option<&Secret>,
    ) -> Result<()> {
        let name = entry(id)?;
        self.grants += 1;
        record.grant = self.grants;
        for (part, secret) in [("key", access), ("refresh", refresh)] {
            let name = format!("{name}/{part}");
            match secret {
                Some(secret) => entries.set(&name, secret)?,
                None => _ = entries.delete(&name)?,
            }
        }
        self.profiles.insert(id.to_owned(), record);
        Ok(())
    }

    /// A profile's number for a set of secrets that replaces the one it has.
    pub(super) fn next_grant(&mut self) -> u64 {
        self.grants += 1;
        self.grants
    }

    /// The profiles of a provider in the order in which to try them: OpenClaw's, of `docs/concepts/model-failover.md`,
    /// "Rotation order", and `src/agents/auth-profiles/order.ts`.
    pub(super) fn candidates(&self, provider: &str, preferred: Option<&str>, now: u64) -> Vec<String> {
        let stored = self.profiles.iter().filter(|(_, record)| record.provider == provider);
        let mut ids: Vec<&str> = match self.order.get(provider) {
            // An order of which nothing is left is none.
            Some(order) if order.iter().any(|id| self.profiles.contains_key(id)) => {
                order.iter().map(String::as_str).filter(|id| self.profiles.contains_key(*id)).collect()
            }
            _ => {
                let mut found: Vec<_> = stored.collect();
                found.sort_by_key(|(_, record)| {
                    let expired = record.kind == ProfileType::OAuth && record.is_expired(now);
                    (record.kind, expired, record.usage.last_used_ms.unwrap_or_default())
                });
                found.into_iter().map(|(id, _)| id.as_str()).collect()
            }
        };
        if let Some(at) = ids.iter().position(|id| Some(*id) == preferred) {
            let first = ids.remove(at);
            ids.insert(0, first);
        }
        ids.into_iter().map(ToOwned::to_owned).collect()
    }
}

/// The store's name for a profile: `auth/` and its id, in which all but letters, digits and `-` is `_` and two hexadecimal
/// digits a byte; or, where that is too long for a name, `auth/_-` and the id's SHA-256. `VALIDATION` for an id that is empty,
/// too long or not printable.
pub(super) fn entry(id: &str) -> Result<String> {
    use std::fmt::Write as _;
    if id.is_empty() || id.len() > MAX_ID || id.chars().any(char::is_control) {
        // An id that is wrong may be a secret in the wrong place: it is not repeated.
        return Err(CoreError::new(
            Code::Validation,
            format!(
                "a profile's id is 1 to {MAX_ID} bytes of printable text, such as `openai:user@example.com`"
            ),
        ));
    }
    let mut name = String::from("auth/");
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            name.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(name, "_{byte:02x}");
        }
    }
    if name.len() > MAX_NAME {
        name = format!("auth/_-{}", data_encoding::HEXLOWER.encode(&Sha256::digest(id)));
    }
    Ok(name)
}

/// A provider's id as it is compared; `VALIDATION` if it is empty.
pub(super) fn provider_id(id: &str) -> Result<String> {
    let id = id.trim().to_ascii_lowercase();
    if id.is_empty() || id.len() > MAX_ID || id.chars().any(char::is_control) {
        return Err(CoreError::new(
            Code::Validation,
            format!("a provider's id is 1 to {MAX_ID} bytes of printable text, such as `openai`"),
        ));
    }
    Ok(id)
}

pub(super) fn no_profile(id: &str) -> CoreError {
    CoreError::new(Code::CredentialNotFound, format!("there is no auth profile {id:?}"))
}
