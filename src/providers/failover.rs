//! Several candidates, tried in order.
//!
//! Why a call failed is named as OpenClaw names it (`classifyFailoverReason`, `docs/concepts/model-failover.md`), from the
//! status, the API's own word and a few phrases. A candidate that fails cools down as an auth profile does
//! ([`crate::auth`]): what fails within the window does not make it longer, and when it ends one caller is let through.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::builder::Batch;
use super::call::{CallOptions, Failure, Outcome};
use super::message::write_string;
use super::provider::Provider;
use super::queue::EventQueue;
use super::request::CompletionRequest;
use crate::auth::AuthProfiles;
use crate::auth::cooldown::{self, Availability, FailureReason};
use crate::{Code, CoreError, Result};

/// One of those that may answer.
pub struct Candidate {
    /// Who.
    pub provider: Arc<Provider>,
    /// With which model.
    pub model: String,
    /// The auth profile whose key the provider has: it is told how calls fare.
    pub profile: Option<String>,
}

/// A candidate that did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    /// Whose it is.
    pub provider: String,
    /// Its model.
    pub model: String,
    /// Why, in OpenClaw's word; `cooldown` if it was not asked.
    pub reason: &'static str,
    /// The status, if there was an answer.
    pub status: Option<u16>,
    /// Until when it will not be asked, in milliseconds since 1970.
    pub cooldown_until_ms: Option<u64>,
}

impl FailedAttempt {
    /// Appends it as JSON.
    pub fn write_json(&self, out: &mut String) {
        use std::fmt::Write as _;
        out.push_str("{\"provider\":");
        write_string(out, &self.provider);
        out.push_str(",\"model\":");
        write_string(out, &self.model);
        let _ = write!(out, ",\"reason\":\"{}\"", self.reason);
        if let Some(status) = self.status {
            let _ = write!(out, ",\"status\":{status}");
        }
        if let Some(until) = self.cooldown_until_ms {
            let _ = write!(out, ",\"cooldownUntilMs\":{until}");
        }
        out.push('}');
    }
}

/// Tries candidates in order.
pub struct FailoverProvider {
    candidates: Vec<Candidate>,
    states: Mutex<Vec<cooldown::Usage>>,
    profiles: Option<AuthProfiles>,
}

impl FailoverProvider {
    /// `VALIDATION` without candidates.
    pub fn new(candidates: Vec<Candidate>, profiles: Option<AuthProfiles>) -> Result<Self> {
        if candidates.is_empty() {
            return Err(CoreError::new(Code::Validation, "`candidates` must hold at least one"));
        }
        let states = Mutex::new(candidates.iter().map(|_| cooldown::Usage::default()).collect());
        Ok(Self { candidates, states, profiles })
    }

    /// Asks until one answers; with those that did not.
    pub async fn complete(
        &self,
        request: &CompletionRequest,
        options: &CallOptions,
        cancel: &CancellationToken,
    ) -> (Outcome, Vec<FailedAttempt>) {
        let (_, outcome, attempts) = self.attempts(request, options, cancel, None).await;
        (outcome, attempts)
    }

    /// Asks until one answers. Events come from that one only: a candidate that fails before it has said anything leaves
    /// no trace, and one that fails later has the last word. `note` gets those that did not answer before the queue
    /// gets the outcome.
    pub async fn stream(
        &self,
        request: &CompletionRequest,
        options: &CallOptions,
        cancel: &CancellationToken,
        queue: &EventQueue,
        note: &(dyn Fn(&[FailedAttempt]) + Sync),
    ) {
        let (rest, outcome, attempts) = self.attempts(request, options, cancel, Some(queue)).await;
        let aborted = outcome.as_ref().is_err_and(|failure| failure.aborted());
        note(&attempts);
        queue.finish(rest, outcome, aborted);
    }

    async fn attempts(
        &self,
        request: &CompletionRequest,
        options: &CallOptions,
        cancel: &CancellationToken,
        queue: Option<&EventQueue>,
    ) -> (Batch, Outcome, Vec<FailedAttempt>) {
        let mut options = CallOptions { hold_start: true, ..options.clone() };
        // One for all: who comes later has what is left.
        options.deadline = options.timeouts.total.and_then(|total| Instant::now().checked_add(total));
        let mut request = request.clone();
        let mut attempts: Vec<FailedAttempt> = Vec::new();
        let mut last: Option<(Batch, Outcome)> = None;
        for (at, candidate) in self.candidates.iter().enumerate() {
            let provider = &candidate.provider;
            let probe = match self.admit(at, provider.now_ms()) {
                Ok(probe) => probe,
                Err(until) => {
                    attempts.push(candidate.failed("cooldown", None, Some(until)));
                    continue;
                }
            };
            // A probe whose caller goes away must not shut the candidate for others.
            let release = Release { failover: self, at, armed: probe };
            // Other processes ask with the same profile, and this one may have been started after it failed.
            let claimed = match self.admit_profile(candidate).await {
                Ok(claimed) => claimed,
                Err(until) => {
                    attempts.push(candidate.failed("cooldown", None, Some(until)));
                    continue;
                }
            };
            request.model.clone_from(&candidate.model);
            let (rest, outcome) = provider.attempt(&request, &options, cancel, queue).await;
            let failure = match &outcome {
                Ok(_) => {
                    release.keep();
                    self.worked(at, candidate).await;
                    return (rest, outcome, attempts);
                }
                Err(failure) if failure.aborted() => {
                    self.release_profile(candidate, claimed).await;
                    return (rest, outcome, attempts);
                }
                Err(failure) => failure,
            };
            let reason = classify(&failure.error);
            // With the time of all used up by others, it says nothing about this one.
            let late = failure.error.details().phase == Some("total");
            let until = if let Some(cools) = reason.cools().filter(|_| !late || last.is_none()) {
                release.keep();
                Some(self.cool(at, candidate, cools, &failure.error).await)
            } else {
                self.release_profile(candidate, claimed).await;
                None
            };
            tracing::info!(
                provider = provider.id(),
                model = candidate.model,
                reason = reason.as_str(),
                "failed over"
            );
            attempts.push(candidate.failed(reason.as_str(), failure.error.details().status, until));
            // Neither is cured by asking somebody else: the host shortens the prompt, and a refusal is an answer.
            let refused = failure.error.details().error_type.as_deref() == Some("refusal");
            let end = failure.had_content || reason == Reason::ContextOverflow || refused || late;
            last = Some((rest, outcome));
            if end {
                break;
            }
        }
        let (rest, outcome) = last.unwrap_or_else(|| (Batch::default(), Err(self.all_cool(&attempts))));
        (rest, outcome, attempts)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<cooldown::Usage>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a candidate may be asked, and if this is the one call after its window; else until when not.
    fn admit(&self, at: usize, now: u64) -> Result<bool, u64> {
        let mut states = self.lock();
        let Some(state) = states.get_mut(at) else { return Ok(false) };
        match state.availability(now) {
            Availability::Free => Ok(false),
            Availability::Cooling(until) => Err(until),
            Availability::Probe => Ok(state.claim_probe(now)),
        }
    }

    /// Whether the candidate's profile may be used, and if this is the one call after its window; else until when not.
    async fn admit_profile(&self, candidate: &Candidate) -> Result<bool, u64> {
        let (Some(profiles), Some(id)) = (&self.profiles, &candidate.profile) else { return Ok(false) };
        match profiles.admit(id).await {
            Ok(Availability::Free) => Ok(false),
            Ok(Availability::Probe) => Ok(true),
            Ok(Availability::Cooling(until)) => Err(until),
            Err(error) => {
                // The call itself may do; the candidate's key is its own.
                tracing::warn!(%error, "cannot tell how an auth profile fares");
                Ok(false)
            }
        }
    }

    /// Gives back the one call after a window, which came to nothing.
    async fn release_profile(&self, candidate: &Candidate, claimed: bool) {
        if let (true, Some(profiles), Some(id)) = (claimed, &self.profiles, &candidate.profile)
            && let Err(error) = profiles.release(id).await
        {
            tracing::warn!(%error, "cannot give an auth profile back");
        }
    }

    async fn worked(&self, at: usize, candidate: &Candidate) {
        if let Some(state) = self.lock().get_mut(at) {
            state.succeed(candidate.provider.now_ms());
        }
        if let (Some(profiles), Some(id)) = (&self.profiles, &candidate.profile)
            && let Err(error) = profiles.mark_success(id).await
        {
            tracing::warn!(%error, "cannot record that an auth profile worked");
        }
    }

    /// Until when the candidate is not asked.
    async fn cool(&self, at: usize, candidate: &Candidate, reason: FailureReason, error: &CoreError) -> u64 {
        let after = error.details().retry_after_ms;
        let now = candidate.provider.now_ms();
        let until = self.lock().get_mut(at).map_or(now, |state| state.fail(reason, after, now));
        if let (Some(profiles), Some(id)) = (&self.profiles, &candidate.profile)
            && let Err(error) = profiles.mark_failure(id, reason, after).await
        {
            tracing::warn!(%error, "cannot record that an auth profile failed");
        }
        until
    }

    /// The failure of a call that was never made.
    pub fn unasked(&self, error: CoreError) -> Box<Failure> {
        let (api, provider, model, now) = self.candidates.first().map_or(("", "", "", 0), |first| {
            (first.provider.api(), first.provider.id(), first.model.as_str(), first.provider.now_ms())
        });
        Failure::unasked(error, api, provider, model, now)
    }

    fn all_cool(&self, attempts: &[FailedAttempt]) -> Box<Failure> {
        let now = self.candidates.first().map_or(0, |candidate| candidate.provider.now_ms());
        let until = attempts.iter().filter_map(|attempt| attempt.cooldown_until_ms).min().unwrap_or(now);
        let wait = until.saturating_sub(now);
        let words =
            format!("all candidates failed lately and cool down; the first is tried again in {wait} ms");
        let error = CoreError::new(Code::ProviderHttp, words).retry_after(wait);
        self.unasked(error)
    }
}

impl Candidate {
    fn failed(
        &self,
        reason: &'static str,
        status: Option<u16>,
        cooldown_until_ms: Option<u64>,
    ) -> FailedAttempt {
        FailedAttempt {
            provider: self.provider.id().into(),
            model: self.model.clone(),
            reason,
            status,
            cooldown_until_ms,
        }
    }
}

/// Gives a probe back that came to nothing: the call was aborted, or failed for a reason that says nothing about the
/// candidate.
struct Release<'a> {
    failover: &'a FailoverProvider,
    at: usize,
    armed: bool,
}

impl Release<'_> {
    fn keep(mut self) {
        self.armed = false;
    }
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        if self.armed
            && let Some(state) = self.failover.lock().get_mut(self.at)
        {
            state.probe_until_ms = None;
        }
    }
}

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The key was refused.
    Auth,
    /// The key was withdrawn.
    AuthPermanent,
    /// The request is malformed, or says what the API cannot express.
    Format,
    /// Too many calls.
    RateLimit,
    /// The provider is overloaded.
    Overloaded,
    /// No credit.
    Billing,
    /// The provider failed inside.
    ServerError,
    /// No answer in time, or no connection, or a stream that broke off.
    Timeout,
    /// The server's certificate is not trusted.
    TlsCertificate,
    /// The prompt is too long for the model.
    ContextOverflow,
    /// The provider has no such model.
    ModelNotFound,
    /// None of these.
    Unclassified,
}

impl Reason {
    /// OpenClaw's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::AuthPermanent => "auth_permanent",
            Self::Format => "format",
            Self::RateLimit => "rate_limit",
            Self::Overloaded => "overloaded",
            Self::Billing => "billing",
            Self::ServerError => "server_error",
            Self::Timeout => "timeout",
            Self::TlsCertificate => "tls_certificate",
            Self::ContextOverflow => "context_overflow",
            Self::ModelNotFound => "model_not_found",
            Self::Unclassified => "unclassified",
        }
    }

    /// For how long the candidate is left alone, as the reason of an auth profile; not at all where another request may
    /// fare better with the same candidate.
    const fn cools(self) -> Option<FailureReason> {
        match self {
            Self::Auth | Self::AuthPermanent => Some(FailureReason::Auth),
            Self::RateLimit => Some(FailureReason::RateLimit),
            Self::Billing => Some(FailureReason::Billing),
            Self::Overloaded | Self::ServerError => Some(FailureReason::Overloaded),
            Self::Timeout | Self::TlsCertificate => Some(FailureReason::Timeout),
            Self::Format | Self::ContextOverflow | Self::ModelNotFound | Self::Unclassified => None,
        }
    }
}

/// Why a call failed, as OpenClaw would say.
pub fn classify(error: &CoreError) -> Reason {
    let details = error.details();
    let text = format!("{} {}", error.message(), details.body.as_deref().unwrap_or_default()).to_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    let billing = || {
        says(&[
            "insufficient_quota",
            "insufficient credit",
            "credit balance",
            "billing_error",
            "payment required",
        ])
    };
    let overflow = || {
        says(&[
            "context_length_exceeded",
            "prompt is too long",
            "maximum context length",
            "exceeds the context window",
            "input token count exceeds",
            "request_too_large",
        ])
    };
    let permanent = || says(&["api key has been revoked", "account has been disabled", "deactivated"]);
    match error.code() {
        Code::Network if says(&["certificate"]) => return Reason::TlsCertificate,
        Code::Timeout | Code::Network => return Reason::Timeout,
        Code::ProviderRequest => return Reason::Format,
        _ => {}
    }
    if let Some(status) = details.status {
        return match status {
            402 => Reason::Billing,
            429 if billing() => Reason::Billing,
            429 => Reason::RateLimit,
            401 | 403 if permanent() => Reason::AuthPermanent,
            401 | 403 if billing() => Reason::Billing,
            401 | 403 => Reason::Auth,
            408 | 410 | 499 | 504 | 522 | 524 => Reason::Timeout,
            400 | 413 | 422 if overflow() => Reason::ContextOverflow,
            400 | 422 if billing() => Reason::Billing,
            400 | 422 => Reason::Format,
            404 => Reason::ModelNotFound,
            529 => Reason::Overloaded,
            500..=599 if says(&["overloaded"]) => Reason::Overloaded,
            500..=599 => Reason::ServerError,
            _ => Reason::Unclassified,
        };
    }
    match details.error_type.as_deref().unwrap_or_default().to_ascii_lowercase().as_str() {
        "refusal" => Reason::Unclassified,
        "overloaded_error" | "overloaded" => Reason::Overloaded,
        "rate_limit_error" | "rate_limit_exceeded" | "resource_exhausted" => Reason::RateLimit,
        "authentication_error" | "permission_error" => Reason::Auth,
        "billing_error" | "insufficient_quota" => Reason::Billing,
        "not_found_error" | "model_not_found" => Reason::ModelNotFound,
        _ if overflow() => Reason::ContextOverflow,
        "invalid_request_error" => Reason::Format,
        "api_error" | "server_error" | "upstream_error" | "internal" => Reason::ServerError,
        _ if error.code() == Code::ProviderStream => Reason::Timeout,
        _ => Reason::Unclassified,
    }
}

#[cfg(test)]
mod tests;
