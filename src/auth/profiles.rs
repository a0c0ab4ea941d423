//! The profiles of a credential store.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::Client;
use tokio::sync::OnceCell;

use super::cooldown::{Availability, FailureReason};
use super::oauth::{OAuthProvider, invalid};
use super::profile::{self, AuthProfile, ProfileSecrets, ProfileType, Record, STATE, State};
use super::refresh::{Flight, expired, is_pausing};
use super::{Clock, Random, legacy, system_clock, system_random};
use crate::http::{self, HttpOptions};
use crate::runtime::blocking;
use crate::secrets::{CredentialStore, Secret};
use crate::{Code, CoreError, Result};

/// How long an authorization server may take for one answer.
const ANSWER: Duration = Duration::from_secs(30);

/// What the profiles depend on outside of the store.
#[derive(Clone)]
pub struct AuthOptions {
    /// The time, in milliseconds since 1970. All processes that share a store share it.
    pub clock: Clock,
    /// Where PKCE verifiers and states come from.
    pub random: Random,
    /// How authorization servers are reached.
    pub http: HttpOptions,
}

impl Default for AuthOptions {
    fn default() -> Self {
        let http = HttpOptions { total_timeout: Some(ANSWER), ..HttpOptions::default() };
        Self { clock: system_clock(), random: system_random(), http }
    }
}

/// A secret that can be used, and whose it is.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The profile.
    pub profile: AuthProfile,
    /// Its API key or access token.
    pub key: Secret,
}

/// The auth profiles of a credential store. Clones are the same; methods run within the tokio runtime.
#[derive(Clone)]
pub struct AuthProfiles {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) store: CredentialStore,
    /// The folder of the locks.
    pub(super) locks: PathBuf,
    pub(super) options: AuthOptions,
    client: OnceCell<Client>,
    /// Refreshes under way in this process, by profile.
    pub(super) flights: Mutex<HashMap<String, Flight>>,
}

impl AuthProfiles {
    /// The profiles of a store; fails if what it says of them cannot be read.
    pub async fn open(store: CredentialStore, options: AuthOptions) -> Result<Self> {
        let locks = store.dir().join("auth-locks");
        let inner = Inner { store, locks, options, client: OnceCell::new(), flights: Mutex::default() };
        let profiles = Self { inner: Arc::new(inner) };
        profiles.state().await?;
        Ok(profiles)
    }

    /// Every profile, or those of a provider, by id.
    pub async fn list(&self, provider: Option<&str>) -> Result<Vec<AuthProfile>> {
        let provider = provider.map(profile::provider_id).transpose()?;
        let state = self.state().await?;
        let wanted = |record: &Record| provider.as_ref().is_none_or(|provider| record.provider == *provider);
        let found = state.profiles.iter().filter(|(_, record)| wanted(record));
        Ok(found.map(|(id, record)| record.public(id)).collect())
    }

    /// Adds a profile, or replaces the one of this id. `VALIDATION` if the secrets are not those of its type.
    pub async fn add(&self, profile: AuthProfile, secrets: ProfileSecrets) -> Result<()> {
        let provider = profile::provider_id(&profile.provider)?;
        let (access, refresh) = match (profile.kind, secrets) {
            (
                ProfileType::ApiKey,
                ProfileSecrets { api_key: Some(key), access_token: None, refresh_token: None },
            ) => (Some(key), None),
            (
                ProfileType::Token,
                ProfileSecrets { access_token: Some(token), api_key: None, refresh_token: None },
            ) => (Some(token), None),
            (ProfileType::OAuth, ProfileSecrets { access_token, refresh_token, api_key: None })
                if access_token.is_some() || refresh_token.is_some() =>
            {
                (access_token, refresh_token)
            }
            (kind, _) => {
                let needs = match kind {
                    ProfileType::ApiKey => "`apiKey` and nothing else",
                    ProfileType::Token => "`accessToken` and nothing else",
                    ProfileType::OAuth => "`accessToken`, `refreshToken` or both",
                };
                return Err(invalid(&format!("a profile of type {} needs {needs}", kind.as_str())));
            }
        };
        let record = Record::new(provider, profile.kind, profile.expires_ms, profile.email);
        self.put(profile.id, record, access, refresh).await
    }

    /// Stores a profile.
    pub(super) async fn put(
        &self,
        id: String,
        mut record: Record,
        access: Option<Secret>,
        refresh: Option<Secret>,
    ) -> Result<()> {
        if access.is_none() {
            record.stale = true;
        }
        self.update(&id, move |entries, id| {
            let mut state = State::read(entries)?;
            state.put(entries, id, record, access.as_ref(), refresh.as_ref())?;
            state.write(entries)
        })
        .await
    }

    /// Removes a profile and its secrets; false if there was none.
    pub async fn remove(&self, id: &str) -> Result<bool> {
        self.update(id, |entries, id| {
            let mut state = State::read(entries)?;
            if state.profiles.remove(id).is_none() {
                return Ok(false);
            }
            for order in state.order.values_mut() {
                order.retain(|listed| listed != id);
            }
            state.order.retain(|_, order| !order.is_empty());
            let name = profile::entry(id)?;
            entries.delete(&format!("{name}/key"))?;
            entries.delete(&format!("{name}/refresh"))?;
            state.write(entries)?;
            Ok(true)
        })
        .await
    }

    /// A usable secret for a provider: of the preferred profile if it can be used, else of the next in order.
    ///
    /// `CREDENTIAL_NOT_FOUND` if the provider has no profile, `AUTH_EXPIRED` if all that is left is to sign in again,
    /// `AUTH_REFRESH` if a token cannot be refreshed now, `LIMIT` with `retry_after_ms` if all profiles cool down.
    pub async fn resolve(&self, provider: &str, preferred: Option<&str>) -> Result<Resolved> {
        let provider = profile::provider_id(provider)?;
        let now = self.now();
        let state = self.state().await?;
        let candidates = state.candidates(&provider, preferred, now);
        if candidates.is_empty() {
            let message = format!("there is no auth profile for {provider:?}: sign in, or add a key");
            return Err(CoreError::new(Code::CredentialNotFound, message));
        }
        let mut failure: Option<CoreError> = None;
        let mut soonest: Option<u64> = None;
        for id in candidates {
            let Some(record) = state.profiles.get(&id) else { continue };
            if let Err(error) = usable(&id, record, now) {
                failure = Some(worse(failure, error));
                continue;
            }
            let mut claimed = false;
            match availability(record, now) {
                Availability::Free => {}
                Availability::Probe if self.claim(&id).await? => claimed = true,
                Availability::Probe => {
                    soonest = Some(soonest.map_or(now, |soonest| soonest.min(now)));
                    continue;
                }
                Availability::Cooling(until) => {
                    soonest = Some(soonest.map_or(until, |soonest| soonest.min(until)));
                    continue;
                }
            }
            match self.key(&id).await {
                Ok(Some(resolved)) => return Ok(resolved),
                // Removed meanwhile.
                Ok(None) => {}
                Err(error) => {
                    if claimed {
                        // No call will be made that could report.
                        self.release(&id).await?;
                    }
                    tracing::warn!(profile = id, %error, "an auth profile cannot be used");
                    failure = Some(worse(failure, error));
                }
            }
        }
        if let Some(until) = soonest {
            let wait = until.saturating_sub(now).max(1000);
            let seconds = wait.div_ceil(1000);
            let message = failure.map_or_else(
                || format!("every auth profile of {provider:?} cools down; try again in {seconds} s"),
                |error| format!("{error}; every other profile of {provider:?} cools down for {seconds} s"),
            );
            return Err(CoreError::new(Code::Limit, message).retry_after(wait));
        }
        Err(failure.unwrap_or_else(|| {
            CoreError::new(Code::CredentialNotFound, format!("there is no auth profile for {provider:?}"))
        }))
    }

    /// Records that a call failed with this profile; until when the profile is not to be used, in milliseconds since 1970.
    /// `retry_after_ms` is what the server asked for; at most a day of it counts.
    pub async fn mark_failure(
        &self,
        id: &str,
        reason: FailureReason,
        retry_after_ms: Option<u64>,
    ) -> Result<u64> {
        let now = self.now();
        self.update(id, move |entries, id| {
            let mut state = State::read(entries)?;
            let record = state.record_mut(id)?;
            if is_exempt(record) {
                return Ok(now);
            }
            let until = record.usage.fail(reason, retry_after_ms, now);
            if reason == FailureReason::Auth && record.kind == ProfileType::OAuth {
                record.stale = true;
            }
            state.write(entries)?;
            Ok(until)
        })
        .await
    }

    /// Records that a call succeeded with this profile: its failures are forgotten.
    pub async fn mark_success(&self, id: &str) -> Result<()> {
        let now = self.now();
        // Most calls succeed, and have nothing to tell: that costs no turn of the writers.
        let mut state = self.state().await?;
        if !state.record_mut(id)?.usage.succeed(now) {
            return Ok(());
        }
        self.update(id, move |entries, id| {
            let mut state = State::read(entries)?;
            let record = state.record_mut(id)?;
            record.stale = false;
            if record.usage.succeed(now) { state.write(entries) } else { Ok(()) }
        })
        .await
    }

    /// Uses these profiles of a provider, in this order, and no others; all of them, in OpenClaw's order, if none is given.
    pub async fn set_order(&self, provider: &str, ids: Vec<String>) -> Result<()> {
        let provider = profile::provider_id(provider)?;
        self.update(&provider, move |entries, provider| {
            let mut state = State::read(entries)?;
            let mut order: Vec<String> = Vec::new();
            for id in ids {
                if state.record(&id)?.provider != provider {
                    return Err(invalid(&format!("{id:?} is no profile of {provider:?}")));
                }
                if !order.contains(&id) {
                    order.push(id);
                }
            }
            if order.is_empty() {
                state.order.remove(provider);
            } else {
                state.order.insert(provider.to_owned(), order);
            }
            state.write(entries)
        })
        .await
    }

    /// Keeps a provider's OAuth endpoints, so that every process can refresh the tokens of profiles that were added without
    /// any. Profiles that signed in, or were imported with theirs, keep those.
    pub async fn register_provider(&self, provider: OAuthProvider) -> Result<()> {
        let provider = provider.checked()?;
        self.update("", move |entries, _| {
            let mut state = State::read(entries)?;
            if state.providers.get(&provider.id) == Some(&provider) {
                return Ok(());
            }
            state.providers.insert(provider.id.clone(), provider);
            state.write(entries)
        })
        .await
    }

    /// Imports OpenClaw's `auth-profiles.json`, or the older `auth.json`. A profile that is here already stays, and the
    /// endpoints in the file are those of its own profiles only.
    pub async fn import_legacy(&self, json: Secret) -> Result<legacy::Imported> {
        self.update("", move |entries, _| legacy::import(entries, &json)).await
    }

    pub(super) fn now(&self) -> u64 {
        (self.inner.options.clock)()
    }

    pub(super) async fn client(&self) -> Result<Client> {
        // A grant is good for one request. On a connection that was kept, the server's closing of it may cross the request, and
        // nobody would know whether the grant is spent.
        let options = HttpOptions { keep_alive: false, ..self.inner.options.http.clone() };
        let build = || blocking(move || http::client(&options));
        self.inner.client.get_or_try_init(build).await.cloned()
    }

    async fn state(&self) -> Result<State> {
        let store = self.inner.store.clone();
        blocking(move || State::parse(store.get(STATE)?.as_ref())).await
    }

    /// The profile's secret, refreshed if it is due; `None` if the profile is gone.
    async fn key(&self, id: &str) -> Result<Option<Resolved>> {
        let mut refreshed = false;
        loop {
            let now = self.now();
            let store = self.inner.store.clone();
            let read = {
                let id = id.to_owned();
                move || {
                    let name = profile::entry(&id)?;
                    let record = State::parse(store.get(STATE)?.as_ref())?.profiles.remove(&id);
                    // Read after the state: what is newer than it only lives longer.
                    let Some(record) = record else { return Ok(None) };
                    Ok(Some((record, store.get(&format!("{name}/key"))?)))
                }
            };
            let Some((record, key)) = blocking(read).await? else { return Ok(None) };
            usable(id, &record, now)?;
            let due = record.kind == ProfileType::OAuth && record.is_due(now);
            let works = key.is_some() && !record.stale && !record.is_expired(now);
            let wait = works && (is_pausing(&record, now) || record.sign_in_again.is_some());
            if due && !refreshed && !wait {
                match self.refresh(id).await {
                    Ok(()) => {
                        refreshed = true;
                        continue;
                    }
                    // It was to be early: there is time for another try.
                    Err(error) if works => {
                        tracing::warn!(profile = id, %error, "using the old token while it lasts");
                    }
                    Err(error) => return Err(error),
                }
            }
            let Some(key) = key else { return Ok(None) };
            return Ok(Some(Resolved { profile: record.public(id), key }));
        }
    }

    async fn claim(&self, id: &str) -> Result<bool> {
        let now = self.now();
        self.update(id, move |entries, id| {
            let mut state = State::read(entries)?;
            let Some(record) = state.profiles.get_mut(id) else { return Ok(false) };
            if record.usage.availability(now) == Availability::Free {
                return Ok(true);
            }
            if !record.usage.claim_probe(now) {
                return Ok(false);
            }
            state.write(entries)?;
            Ok(true)
        })
        .await
    }

    /// Whether a call with this profile may be made now; [`Availability::Probe`] is claimed with the answer.
    pub(crate) async fn admit(&self, id: &str) -> Result<Availability> {
        let now = self.now();
        let found = availability(self.state().await?.record(id)?, now);
        if found != Availability::Probe || self.claim(id).await? {
            return Ok(found);
        }
        // Another caller was faster, and has this long.
        Ok(match availability(self.state().await?.record(id)?, now) {
            Availability::Probe => Availability::Cooling(now),
            found => found,
        })
    }

    pub(crate) async fn release(&self, id: &str) -> Result<()> {
        self.update(id, |entries, id| {
            let mut state = State::read(entries)?;
            let Some(record) = state.profiles.get_mut(id) else { return Ok(()) };
            record.usage.probe_until_ms = None;
            state.write(entries)
        })
        .await
    }
}

impl std::fmt::Debug for AuthProfiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthProfiles").field("store", &self.inner.store).finish_non_exhaustive()
    }
}

/// A panic while the lock was held left nothing half done: each change is one call.
pub(super) fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Providers that route to others and manage their own limits (`isAuthCooldownBypassedForProvider`).
fn is_exempt(record: &Record) -> bool {
    matches!(record.provider.as_str(), "openrouter" | "kilocode")
}

fn availability(record: &Record, now: u64) -> Availability {
    if is_exempt(record) { Availability::Free } else { record.usage.availability(now) }
}

/// `AUTH_EXPIRED` if nothing but a new sign-in helps.
fn usable(id: &str, record: &Record, now: u64) -> Result<()> {
    if record.kind == ProfileType::Token && record.is_expired(now) {
        return Err(expired(id, "the token expired, and this kind is not refreshed"));
    }
    match &record.sign_in_again {
        // The access token may outlive the refresh token.
        Some(why) if record.stale || record.expires_ms.is_none() || record.is_expired(now) => {
            Err(expired(id, why))
        }
        _ => Ok(()),
    }
}

/// Of two errors the one to report: that which tells a person what to do.
fn worse(before: Option<CoreError>, error: CoreError) -> CoreError {
    match before {
        Some(before) if before.code() == Code::AuthExpired || error.code() != Code::AuthExpired => before,
        _ => error,
    }
}
