//! Waits between attempts: capped, exponential, with full jitter.

use std::time::Duration;

/// A row of failures. The nth wait is a random part of `first`, doubled n times, and of `longest` at most.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Before any failure.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// How long to wait after one more failure; `chance` is a number from 0 to 1.
    pub fn next(&mut self, chance: f64) -> Duration {
        let span = self.first.saturating_mul(1_u32.checked_shl(self.failures.min(31)).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        span.min(self.longest).mul_f64(chance.clamp(0.0, 1.0))
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since it last worked.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        let waits: Vec<_> = (0..6).map(|_| backoff.next(1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        assert_eq!(backoff.next(0.5), Duration::from_secs(5));
        for _ in 0..1000 {
            assert!(backoff.next(1.0) <= Duration::from_secs(10));
        }
        backoff.reset();
        assert_eq!(backoff.next(1.0), Duration::from_secs(1));
        assert_eq!(backoff.next(0.0), Duration::ZERO);
    }
}
