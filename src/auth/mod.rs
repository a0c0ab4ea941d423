//! Auth profiles: API keys, bearer tokens and OAuth sign-ins, and which of them to use now.
//!
//! # Design
//! Profiles live in a [`CredentialStore`](crate::secrets::CredentialStore). The entry `auth.state` is JSON of all that is
//! not secret: types, times, order, cooldowns, OAuth endpoints. The secrets are entries of their own,
//! `auth/<id>/key` and `auth/<id>/refresh`, so that none is ever part of a text that is parsed. What belongs together is
//! written in one turn.
//!
//! - [`AuthProfiles::resolve`] picks a profile as OpenClaw does: `docs/concepts/model-failover.md`.
//! - `cooldown`: when a profile that failed is tried again, and by whom.
//! - `refresh`: one refresh, however many tasks and processes ask, and no refresh token that is lost in silence.
//! - `login`: authorization code with PKCE (RFC 6749, 7636, 8252) and device code (RFC 8628).
//! - `oauth`: what crosses the wire. No token, and no word of an authorization server, reaches an error or the log.
//!
//! Clock and randomness are parameters: [`AuthOptions`].

pub(crate) mod cooldown;
mod legacy;
mod login;
mod oauth;
mod pkce;
mod profile;
mod profiles;
mod refresh;
mod turn;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Code, CoreError, Result};

pub use cooldown::FailureReason;
pub use legacy::Imported;
pub use login::{LoginFlow, LoginOptions, Prompt};
pub use oauth::OAuthProvider;
pub use profile::{AuthProfile, ProfileSecrets, ProfileType};
pub use profiles::{AuthOptions, AuthProfiles, Resolved};

/// The time, in milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Fills a buffer with random bytes.
pub type Random = Arc<dyn Fn(&mut [u8]) -> Result<()> + Send + Sync>;

/// The system's clock.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// The system's random source.
pub fn system_random() -> Random {
    Arc::new(|bytes| {
        getrandom::fill(bytes).map_err(|error| {
            CoreError::new(Code::Crypto, format!("the system gives no random numbers: {error}"))
        })
    })
}
