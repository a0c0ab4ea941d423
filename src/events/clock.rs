//! Hybrid logical clock (Kulkarni and others, 2014): physical milliseconds with a counter below them.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A point of a replica's clock: 48 bits of milliseconds since 1970, then 16 bits of counter.
///
/// Later on one replica is greater, and whatever a replica writes after it has merged an event is greater than that
/// event, however wrong the machines' clocks are. The text form is 16 hexadecimal digits, which sort alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Clock(u64);

const COUNTER_BITS: u32 = 16;

impl Clock {
    /// The latest point that a replica may claim: far enough from the end that no store runs out of numbers.
    pub const MAX: Self = Self(u64::MAX >> 1);

    /// The number itself.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The clock of a number.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Its physical part.
    pub const fn millis(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// The next point: the physical time if that has moved on, else the one right after this.
    #[must_use]
    pub fn tick(self, now_ms: u64) -> Self {
        Self((now_ms << COUNTER_BITS).min(Self::MAX.0).max(self.0.saturating_add(1)))
    }

    /// After an event of another replica was seen.
    #[must_use]
    pub fn observe(self, other: Self) -> Self {
        self.max(other)
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Where physical time comes from; tests bring their own.
pub trait PhysicalTime: Send + Sync {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock;

impl PhysicalTime for SystemClock {
    fn now_ms(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX >> COUNTER_BITS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_goes_forward_when_physical_time_goes_back() {
        let first = Clock::default().tick(1_000);
        assert_eq!(first.millis(), 1_000);
        let second = first.tick(500);
        assert!(second > first);
        assert_eq!(second.millis(), 1_000);
        assert_eq!(second.tick(2_000).millis(), 2_000);
    }

    #[test]
    fn what_follows_a_foreign_event_is_later_than_it() {
        let foreign = Clock::default().tick(9_000_000);
        let mine = Clock::default().tick(1_000).observe(foreign).tick(1_001);
        assert!(mine > foreign);
    }

    #[test]
    fn text_sorts_as_the_clock_does() {
        let mut clock = Clock::default();
        let mut texts = Vec::new();
        for now in [1, 1, 1, 70_000, 5, 1 << 40] {
            clock = clock.tick(now);
            texts.push(clock.to_string());
        }
        assert!(texts.is_sorted());
    }
}
