//! When a profile that failed may be used again.
//!
//! Reasons and durations are OpenClaw 2026.9's (`docs/concepts/model-failover.md`, "Cooldowns" and "Billing disables";
//! `src/agents/auth-profiles/usage-failure-state.ts`). Two things are stricter than there:
//!
//! - What fails while a window is open does not count: calls that were under way when the first one failed say nothing
//!   new. OpenClaw counts them, and fifty calls that meet one rate limit end in a window of a day.
//! - When a window ends, one caller at a time gets the profile, in all processes together, until it reports how it went.
//!   OpenClaw closes the window for everyone at once.

use serde::{Deserialize, Serialize};

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// No window is longer, whatever a server asks for (`RATE_LIMIT_BACKOFF_MAX_MS`).
pub(crate) const LONGEST: u64 = 24 * HOUR;
/// Failures longer ago do not count (`failureWindowMs`).
const MEMORY: u64 = 24 * HOUR;
/// `RATE_LIMIT_BACKOFF_BASE_MS`; doubled with each failed probe.
const RATE_LIMIT_FIRST: u64 = 30 * SECOND;
/// `calculateAuthProfileCooldownMs`: first, second, every further failure.
const STEPS: [u64; 3] = [30 * SECOND, MINUTE, 5 * MINUTE];
/// `billingBackoffMs`: "Another billing failure starts a new ten-minute window."
const BILLING: u64 = 10 * MINUTE;
/// How long a probe may take until the next caller may try: its process may have died.
pub(crate) const PROBE: u64 = 2 * MINUTE;

/// Why a call with a profile failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// Too many calls: 30 s, doubled with each further failure to at most a day.
    RateLimit,
    /// The credential was refused: 30 s, 1 min, 5 min. An OAuth token is refreshed before its next use.
    Auth,
    /// No credit: 10 min.
    Billing,
    /// The provider is overloaded: 30 s, 1 min, 5 min.
    Overloaded,
    /// No answer in time: 30 s, 1 min, 5 min.
    Timeout,
}

/// How a profile fared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Usage {
    /// When it last worked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_used_ms: Option<u64>,
    /// Until when it is not to be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cooldown_until_ms: Option<u64>,
    /// Until when it is not to be used for want of credit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disabled_until_ms: Option<u64>,
    /// Why, of the last failure that counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<FailureReason>,
    /// Failures that counted, since the last success.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) failures: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_failure_ms: Option<u64>,
    /// Until when the one caller that tries after a window may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) probe_until_ms: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Whether a profile may be used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    /// Yes.
    Free,
    /// Not before then, in milliseconds since 1970.
    Cooling(u64),
    /// By one caller, who claims it.
    Probe,
}

impl Usage {
    pub(crate) fn availability(&self, now: u64) -> Availability {
        let Some(until) = self.window_end() else { return Availability::Free };
        if is_open(Some(until), now, LONGEST) {
            return Availability::Cooling(until);
        }
        match self.probe_until_ms {
            Some(until) if is_open(Some(until), now, PROBE) => Availability::Cooling(until),
            _ => Availability::Probe,
        }
    }

    /// Takes the one attempt after a window; false if the profile cools or another caller has it.
    pub(crate) fn claim_probe(&mut self, now: u64) -> bool {
        let probe = self.availability(now) == Availability::Probe;
        if probe {
            self.probe_until_ms = Some(now.saturating_add(PROBE));
        }
        probe
    }

    /// Records a failure; the end of the window that is open then.
    pub(crate) fn fail(&mut self, reason: FailureReason, retry_after: Option<u64>, now: u64) -> u64 {
        let wanted = retry_after.map(|wait| now.saturating_add(wait.min(LONGEST)));
        let billing = reason == FailureReason::Billing;
        let window = if billing { self.disabled_until_ms } else { self.cooldown_until_ms };
        let end = if let Some(end) = window.filter(|_| is_open(window, now, LONGEST)) {
            // Only the server itself makes an open window longer, and only by naming a time.
            wanted.map_or(end, |wanted| wanted.max(end))
        } else {
            // A failure in the other window, while that is open, is the same trouble once more.
            let fresh = !is_open(self.window_end(), now, LONGEST);
            if self.last_failure_ms.is_none_or(|last| now.saturating_sub(last) > MEMORY) {
                self.failures = 0;
            }
            if fresh || self.failures == 0 {
                self.failures = self.failures.saturating_add(1);
            }
            self.last_failure_ms = Some(now);
            self.reason = Some(reason);
            wanted.unwrap_or_else(|| now.saturating_add(duration(reason, self.failures)))
        };
        *(if billing { &mut self.disabled_until_ms } else { &mut self.cooldown_until_ms }) = Some(end);
        self.probe_until_ms = None;
        self.window_end().unwrap_or(end)
    }

    /// Records that it worked; false if there is nothing to write down.
    pub(crate) fn succeed(&mut self, now: u64) -> bool {
        // The order of turns does not need every single use.
        let recent = self.last_used_ms.is_some_and(|last| now >= last && now - last < MINUTE);
        if recent && self.window_end().is_none() && self.failures == 0 {
            return false;
        }
        *self = Self { last_used_ms: Some(now), ..Self::default() };
        true
    }

    fn window_end(&self) -> Option<u64> {
        self.cooldown_until_ms.max(self.disabled_until_ms)
    }
}

/// Whether a time lies ahead, and not farther than anyone would have set it: else the clock was wrong, then or now.
fn is_open(until: Option<u64>, now: u64, longest: u64) -> bool {
    until.is_some_and(|until| until > now && until - now <= longest)
}

fn duration(reason: FailureReason, failures: u32) -> u64 {
    let before = failures.saturating_sub(1);
    match reason {
        FailureReason::RateLimit => {
            let doubled =
                1_u64.checked_shl(before).map_or(LONGEST, |factor| RATE_LIMIT_FIRST.saturating_mul(factor));
            doubled.min(LONGEST)
        }
        FailureReason::Billing => BILLING,
        FailureReason::Auth | FailureReason::Overloaded | FailureReason::Timeout => {
            let [first, second, further] = STEPS;
            match before {
                0 => first,
                1 => second,
                _ => further,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REASONS: [FailureReason; 5] = [
        FailureReason::RateLimit,
        FailureReason::Auth,
        FailureReason::Billing,
        FailureReason::Overloaded,
        FailureReason::Timeout,
    ];
    const START: u64 = 1_800_000_000_000;
    const DAY: u64 = 24 * HOUR;

    #[derive(Clone, Debug)]
    enum Step {
        Wait(u64),
        Fail(FailureReason, Option<u64>),
        Claim,
        Succeed,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // From milliseconds to months, each order of magnitude as often as the next.
        let wait = (0_u32..34, 0.0..1.0_f64).prop_map(|(power, part)| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
            let more = (part * 2_f64.powi(power.cast_signed())) as u64;
            Step::Wait(2_u64.pow(power) + more)
        });
        let retry = prop_oneof![4 => Just(None), 1 => (0..3 * DAY).prop_map(Some)];
        let fail = (prop::sample::select(&REASONS[..]), retry).prop_map(|(r, after)| Step::Fail(r, after));
        prop::collection::vec(
            prop_oneof![4 => wait, 4 => fail, 3 => Just(Step::Claim), 1 => Just(Step::Succeed)],
            0..300,
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn over_years_no_window_grows_by_itself_and_each_end_admits_one(steps in steps()) {
            let mut now = START;
            let mut usage = Usage::default();
            for step in steps {
                let before = usage.clone();
                match step {
                    Step::Wait(ms) => now += ms,
                    Step::Fail(reason, retry_after) => {
                        let billing = reason == FailureReason::Billing;
                        let window = |usage: &Usage| if billing { usage.disabled_until_ms } else { usage.cooldown_until_ms };
                        let until = usage.fail(reason, retry_after, now);
                        prop_assert!(until >= now && until - now <= LONGEST);
                        prop_assert_eq!(Some(until), usage.window_end());
                        match window(&before).filter(|end| *end > now) {
                            Some(end) if retry_after.is_none() => {
                                prop_assert_eq!(Some(end), window(&usage));
                                prop_assert_eq!(before.failures, usage.failures);
                            }
                            Some(end) => {
                                let asked = now + retry_after.unwrap_or_default().min(LONGEST);
                                prop_assert_eq!(Some(end.max(asked)), window(&usage));
                                prop_assert_eq!(before.failures, usage.failures);
                            }
                            None => {
                                prop_assert!(usage.failures <= before.failures + 1 && usage.failures >= 1);
                                let longest = if billing { BILLING } else { duration(reason, usage.failures) };
                                let asked = retry_after.map_or(longest, |after| after.min(LONGEST));
                                prop_assert_eq!(Some(now + asked), window(&usage));
                            }
                        }
                    }
                    Step::Claim => {
                        let claims: Vec<bool> = (0..50).map(|_| usage.claim_probe(now)).collect();
                        let won = claims.iter().filter(|won| **won).count();
                        prop_assert_eq!(won, usize::from(before.availability(now) == Availability::Probe));
                        // If whoever claimed it dies, the next may try.
                        if won == 1 {
                            let mut later = usage.clone();
                            prop_assert!(!later.claim_probe(now + PROBE - 1) && later.claim_probe(now + PROBE));
                        }
                    }
                    Step::Succeed => {
                        usage.succeed(now);
                        prop_assert_eq!(usage.availability(now), Availability::Free);
                        prop_assert_eq!(usage.failures, 0);
                    }
                }
                match usage.availability(now) {
                    Availability::Cooling(until) => {
                        prop_assert!(until > now && until - now <= LONGEST);
                        prop_assert_ne!(usage.availability(until), Availability::Free);
                    }
                    Availability::Free => prop_assert_eq!(usage.window_end(), None),
                    Availability::Probe => prop_assert!(usage.window_end().is_some_and(|end| end <= now)),
                }
                // Nothing is shut for good.
                let quiet = usage.availability(now + LONGEST + PROBE);
                prop_assert!(!matches!(quiet, Availability::Cooling(_)), "{:?}", quiet);
            }
        }

        #[test]
        fn a_clock_that_was_wrong_shuts_nothing_for_longer_than_a_day(
            cooldown in any::<Option<u64>>(), disabled in any::<Option<u64>>(), probe in any::<Option<u64>>(),
            now in 0..u64::MAX / 2,
        ) {
            let usage = Usage {
                cooldown_until_ms: cooldown, disabled_until_ms: disabled, probe_until_ms: probe, ..Usage::default()
            };
            if let Availability::Cooling(until) = usage.availability(now) {
                prop_assert!(until > now && until - now <= LONGEST);
            }
        }
    }

    /// `docs/concepts/model-failover.md` of OpenClaw 2026.9: "Cooldowns", "Billing disables".
    #[test]
    fn the_durations_are_those_of_openclaw() {
        let probed = |reason: FailureReason, times: usize| {
            let (mut now, mut usage, mut waits) = (START, Usage::default(), Vec::new());
            for _ in 0..times {
                let until = usage.fail(reason, None, now);
                waits.push((until - now) / SECOND);
                now = until;
                assert!(usage.claim_probe(now));
            }
            waits
        };
        for reason in [FailureReason::Auth, FailureReason::Overloaded, FailureReason::Timeout] {
            assert_eq!(probed(reason, 5), [30, 60, 300, 300, 300]);
        }
        assert_eq!(probed(FailureReason::Billing, 3), [600, 600, 600]);
        let limits = probed(FailureReason::RateLimit, 14);
        assert_eq!(limits[..4], [30, 60, 120, 240]);
        assert_eq!(limits[11..], [61_440, 86_400, 86_400]);
    }

    #[test]
    fn fifty_calls_that_meet_one_rate_limit_cost_one_window() {
        let mut usage = Usage::default();
        for call in 0..50 {
            assert_eq!(usage.fail(FailureReason::RateLimit, None, START + call), START + 30 * SECOND);
        }
        assert_eq!(usage.failures, 1);
    }

    #[test]
    fn failures_are_forgotten_after_a_success_or_a_day() {
        let mut usage = Usage::default();
        let until = usage.fail(FailureReason::Auth, None, START);
        assert_eq!(usage.fail(FailureReason::Auth, None, until), until + MINUTE);
        let mut day = usage.clone();
        let later = until + DAY + 1;
        assert_eq!(day.fail(FailureReason::Auth, None, later), later + 30 * SECOND);
        assert!(usage.succeed(until + HOUR));
        assert_eq!(usage.fail(FailureReason::Auth, None, until + HOUR), until + HOUR + 30 * SECOND);
    }

    #[test]
    fn a_success_is_written_down_at_most_once_a_minute() {
        let mut usage = Usage::default();
        assert!(usage.succeed(START));
        assert!(!usage.succeed(START + 59 * SECOND));
        assert!(usage.succeed(START + MINUTE));
    }
}
