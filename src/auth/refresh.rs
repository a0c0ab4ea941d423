//! Refreshing a token once, however many tasks and processes ask.
//!
//! Tasks of one process share one attempt; processes take turns by a kernel lock for each profile. Whoever has its turn
//! reads the profile again, and is done if another has refreshed it meanwhile.
//!
//! A refresh token may be good for one use only (RFC 9700, section 4.14.2), so what is on the disk must tell when it may
//! have been used: before it is sent, the profile is marked as `refreshing`, durably; the mark goes in the same write that
//! brings the new tokens. A process that finds a mark tries the old token. Either the server still takes it, because it
//! never saw it or forgives a repetition, or it refuses it, and then the profile says `AUTH_EXPIRED`: sign in again.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::oauth::{self, OAuthProvider, Refusal, Tokens};
use super::profile::{self, ProfileType, Record, RefreshFailure, Refreshing, State};
use super::profiles::{AuthProfiles, guard};
use super::turn::Turn;
use crate::runtime::blocking;
use crate::secrets::Secret;
use crate::{Code, CoreError, Result};

/// A server that just failed is not asked again while the token at hand still works.
const FAILURE_PAUSE_MS: u64 = 30_000;
/// New tokens that cannot be written are lost for good: worth trying for a while.
const WRITES: u32 = 6;

/// How an attempt ended, for all who wait for it.
#[derive(Clone)]
pub(super) enum Outcome {
    Done,
    Failed(Code, String),
}

impl From<Result<()>> for Outcome {
    fn from(result: Result<()>) -> Self {
        match result {
            Ok(()) => Self::Done,
            Err(error) => Self::Failed(error.code(), error.message().to_owned()),
        }
    }
}

/// An attempt under way.
pub(super) type Flight = watch::Receiver<Option<Outcome>>;

struct Attempt {
    record: Record,
    refresh: Secret,
    token_url: String,
    client_id: String,
    /// Since when a refresh is under way that nobody finished.
    interrupted: Option<u64>,
}

impl AuthProfiles {
    /// Has the profile refreshed if it is due. Whoever stops waiting does not stop the refresh.
    pub(super) async fn refresh(&self, id: &str) -> Result<()> {
        let mut flight = self.flight(id);
        let outcome = match flight.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone(),
            Err(_) => None,
        };
        match outcome {
            Some(Outcome::Done) => Ok(()),
            Some(Outcome::Failed(code, message)) => Err(CoreError::new(code, message)),
            None => Err(CoreError::new(Code::Internal, "the refresh of a token ended without an outcome")),
        }
    }

    fn flight(&self, id: &str) -> Flight {
        let mut flights = guard(&self.inner.flights);
        // One whose sender is gone panicked: it does not stand in the way.
        if let Some(flight) = flights.get(id).filter(|flight| flight.has_changed().is_ok()) {
            return flight.clone();
        }
        let (sender, flight) = watch::channel(None);
        flights.insert(id.to_owned(), flight.clone());
        let (profiles, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            let outcome = profiles.refresh_in_turn(&id).await.into();
            guard(&profiles.inner.flights).remove(&id);
            let _ = sender.send(Some(outcome));
        });
        flight
    }

    async fn refresh_in_turn(&self, id: &str) -> Result<()> {
        let asked = self.now();
        let _turn = Turn::take(&self.inner.locks, &profile::entry(id)?).await?;
        let Some(attempt) = self.begin(id, asked).await? else { return Ok(()) };
        let client = self.client().await?;
        let sent = self.now();
        let answer = {
            let token = attempt.refresh.expose_str()?;
            let form = [
                ("grant_type", "refresh_token"),
                ("refresh_token", token),
                ("client_id", &attempt.client_id),
            ];
            oauth::tokens(&client, &attempt.token_url, &form).await
        };
        match answer {
            Ok(tokens) => self.store_tokens(id, &attempt, tokens, sent).await,
            Err(refusal) => self.store_refusal(id, attempt, refusal).await,
        }
    }

    /// Reads the profile again, and marks it durably if its token is to be sent now.
    async fn begin(&self, id: &str, asked: u64) -> Result<Option<Attempt>> {
        let now = self.now();
        self.update(id, move |entries, id| {
            let mut state = State::read(entries)?;
            let record = state.record(id)?.clone();
            if record.kind != ProfileType::OAuth || !record.is_due(now) {
                return Ok(None);
            }
            if let Some(why) = &record.sign_in_again {
                return Err(expired(id, why));
            }
            // Who waited for one that failed need not fail on its own.
            if let Some(failure) = record.refresh_failure.as_ref().filter(|failure| failure.at_ms > asked) {
                return Err(failed(id, &failure.message));
            }
            let registered = state.providers.get(&record.provider);
            let of_provider = |own: &Option<String>, theirs: fn(&OAuthProvider) -> &String| {
                own.clone().or_else(|| registered.map(|provider| theirs(provider).clone()))
            };
            let token_url = of_provider(&record.token_url, |provider| &provider.token_url);
            let client_id = of_provider(&record.client_id, |provider| &provider.client_id);
            let (Some(token_url), Some(client_id)) = (token_url, client_id) else {
                return Err(CoreError::new(
                    Code::AuthRefresh,
                    format!(
                        "the token of {id:?} is to be refreshed, but nobody has registered the OAuth endpoints of \"{}\": call registerProvider",
                        record.provider
                    ),
                ));
            };
            let Some(refresh) = entries.get(&format!("{}/refresh", profile::entry(id)?))? else {
                let why = "the token expired, and it has no refresh token";
                state.record_mut(id)?.sign_in_again = Some(why.into());
                // Fails after the write, which must stand.
                state.write(entries)?;
                return Ok(Some(Err(expired(id, why))));
            };
            let interrupted = record.refreshing.as_ref().map(|mark| mark.started_ms);
            state.record_mut(id)?.refreshing = Some(Refreshing { started_ms: now, pid: std::process::id() });
            state.write(entries)?;
            Ok(Some(Ok(Attempt { record, refresh, token_url, client_id, interrupted })))
        })
        .await?
        .transpose()
    }

    async fn store_tokens(&self, id: &str, attempt: &Attempt, tokens: Tokens, sent: u64) -> Result<()> {
        let tokens = std::sync::Arc::new(tokens);
        let grant = attempt.record.grant;
        let mut pause = Duration::from_millis(50);
        for left in (0..WRITES).rev() {
            let tokens = std::sync::Arc::clone(&tokens);
            let written = self
                .update(id, move |entries, id| {
                    let mut state = State::read(entries)?;
                    // Removed or signed in anew meanwhile: these tokens are nobody's.
                    if state.profiles.get(id).is_none_or(|record| record.grant != grant) {
                        return Ok(());
                    }
                    let name = profile::entry(id)?;
                    entries.set(&format!("{name}/key"), &tokens.access)?;
                    if let Some(refresh) = &tokens.refresh {
                        entries.set(&format!("{name}/refresh"), refresh)?;
                    }
                    let next = state.next_grant();
                    let record = state.record_mut(id)?;
                    record.grant = next;
                    record.live(sent, tokens.lifetime_ms);
                    state.write(entries)
                })
                .await;
            match written {
                Ok(()) => {
                    tracing::info!(profile = id, "refreshed the token");
                    return Ok(());
                }
                Err(error) if left == 0 => {
                    let message = format!(
                        "the token of {id:?} was refreshed, but cannot be stored: {error}; sign in again if the next refresh is refused"
                    );
                    return Err(CoreError::new(Code::AuthRefresh, message));
                }
                Err(error) => tracing::warn!(profile = id, %error, "cannot store new tokens; trying again"),
            }
            sleep(pause).await;
            pause *= 2;
        }
        Ok(())
    }

    async fn store_refusal(&self, id: &str, attempt: Attempt, refusal: Refusal) -> Result<()> {
        let now = self.now();
        let (words, gone, unsent) = match refusal {
            Refusal::Grant(words) => (words, true, false),
            Refusal::Unsent(words) => (words, false, true),
            Refusal::Other(words) => (words, false, false),
            other => (format!("the token request was answered out of turn: {other:?}"), false, false),
        };
        let words = match attempt.interrupted {
            Some(_) if gone => format!(
                "{words}; an earlier refresh was interrupted after it may have been sent, and its token is lost"
            ),
            _ => words,
        };
        let grant = attempt.record.grant;
        let (before, message) = (attempt.record.refreshing, words.clone());
        self.update(id, move |entries, id| {
            let mut state = State::read(entries)?;
            let Some(record) = state.profiles.get_mut(id).filter(|record| record.grant == grant) else {
                return Ok(());
            };
            if gone {
                record.refreshing = None;
                record.sign_in_again = Some(message);
            } else {
                if unsent {
                    // What an earlier one left in doubt stays in doubt.
                    record.refreshing = before;
                }
                record.refresh_failure = Some(RefreshFailure { at_ms: now, message });
            }
            state.write(entries)
        })
        .await?;
        if gone {
            return Err(expired(id, &words));
        }
        Err(failed(id, &words))
    }

    /// Changes the store on a thread that may block.
    pub(super) async fn update<T: Send + 'static>(
        &self,
        id: &str,
        change: impl FnOnce(&mut crate::secrets::Entries, &str) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (store, id) = (self.inner.store.clone(), id.to_owned());
        blocking(move || store.update(|entries| change(entries, &id))).await
    }
}

/// Whether a server that failed a moment ago is to be left alone.
pub(super) fn is_pausing(record: &Record, now: u64) -> bool {
    record
        .refresh_failure
        .as_ref()
        .is_some_and(|failure| now >= failure.at_ms && now - failure.at_ms < FAILURE_PAUSE_MS)
}

fn failed(id: &str, why: &str) -> CoreError {
    CoreError::new(Code::AuthRefresh, format!("cannot refresh the token of {id:?}: {why}"))
}

pub(super) fn expired(id: &str, why: &str) -> CoreError {
    CoreError::new(Code::AuthExpired, format!("the sign-in of {id:?} no longer holds ({why}): sign in again"))
}
