//! What all simulated platforms have in common.

use serde_json::Value;

use crate::wire::{Frame, Request, Response};

/// The time. A platform's timers go by the steady clock; what it writes into messages, by the other, which jumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Steady, in milliseconds.
    pub ms: u64,
    /// The platform's clock on the wall: milliseconds since 1970.
    pub unix_ms: u64,
}

impl Now {
    pub fn unix_s(self) -> u64 {
        self.unix_ms / 1000
    }
}

/// One exchange, or one WebSocket, from its first byte to its last.
pub type Id = u64;

/// What comes in.
#[derive(Clone, Debug)]
pub enum Input {
    /// Answered by `Answer`, or by `Stream`, `Chunk` and `End`.
    Request {
        id: Id,
        request: Request,
    },
    /// A WebSocket is asked for: answered by `Accept`, or refused by `Answer`.
    Upgrade {
        id: Id,
        request: Request,
    },
    Frame {
        id: Id,
        frame: Frame,
    },
    /// The client hung up. `code` is that of its close frame, if it sent one.
    Gone {
        id: Id,
        code: Option<u16>,
    },
    /// The bot's webhook answered the `Call` of that id, or could not be reached.
    Called {
        id: Id,
        response: Option<Response>,
    },
    /// The time that [`Platform::wake`] named has come.
    Tick,
}

/// What goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Answer {
        id: Id,
        response: Response,
    },
    Stream {
        id: Id,
        response: Response,
    },
    /// `label` says in a word what it is, for faults to be aimed at.
    Chunk {
        id: Id,
        label: String,
        bytes: Vec<u8>,
    },
    End {
        id: Id,
    },
    Accept {
        id: Id,
    },
    Frame {
        id: Id,
        label: String,
        frame: Frame,
    },
    /// Closes a WebSocket in form.
    Close {
        id: Id,
        code: u16,
        reason: String,
    },
    /// Breaks the connection without a word.
    Cut {
        id: Id,
    },
    /// The platform calls a webhook; `request.path` is the URL.
    Call {
        id: Id,
        request: Request,
    },
    /// The client broke a rule.
    Violation {
        rule: &'static str,
        what: String,
    },
    /// The client left undone what it had to do on that connection. It is no violation if a fault struck there.
    Neglect {
        id: Id,
        rule: &'static str,
        what: String,
    },
}

/// A rule of a platform, and where the platform says so.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub id: &'static str,
    pub text: &'static str,
    /// Of the platform's own documentation.
    pub source: &'static str,
}

/// A platform: pure, without threads, clocks or sockets.
pub trait Platform: Send {
    fn rules(&self) -> &'static [Rule];

    fn on(&mut self, now: Now, input: Input) -> Vec<Output>;

    /// When it wants a `Tick`, on the steady clock.
    fn wake(&self) -> Option<u64>;

    /// Does what a test asks for: somebody writes to the bot, a button is pressed. The error says what was wrong with it.
    fn control(
        &mut self,
        now: Now,
        action: &str,
        arguments: &Value,
        out: &mut Vec<Output>,
    ) -> Result<Value, String>;

    /// The platform's own form of a refusal that a fault script asks for.
    fn refusal(&self, status: u16, retry_after_ms: Option<u64>) -> Response;

    /// What it knows: messages, reactions, sockets.
    fn state(&self) -> Value;
}

/// Splitmix64: names and ids that differ, and are the same in each run.
#[derive(Clone, Debug)]
pub struct Chance(pub u64);

impl Chance {
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.draw() % limit.max(1)
    }

    /// That many hexadecimal digits.
    pub fn hex(&mut self, digits: usize) -> String {
        let mut text = String::new();
        while text.len() < digits {
            text.push_str(&format!("{:016x}", self.draw()));
        }
        text.truncate(digits);
        text
    }
}

/// A bucket of tokens that fills steadily.
#[derive(Clone, Debug)]
pub struct Bucket {
    capacity: u64,
    /// Milliseconds for one token.
    each_ms: u64,
    /// Milliseconds' worth of tokens that are out.
    debt_ms: u64,
    at: u64,
}

impl Bucket {
    /// `count` at once, and again after `per_ms`.
    pub fn new(count: u64, per_ms: u64) -> Self {
        Self { capacity: count.max(1), each_ms: (per_ms / count.max(1)).max(1), debt_ms: 0, at: 0 }
    }

    /// A bucket that holds `burst`, and gets `count` tokens each `per_ms`.
    pub fn with_burst(burst: u64, count: u64, per_ms: u64) -> Self {
        Self { capacity: burst.max(1), ..Self::new(count, per_ms) }
    }

    fn settle(&mut self, now: u64) {
        self.debt_ms = self.debt_ms.saturating_sub(now.saturating_sub(self.at));
        self.at = self.at.max(now);
    }

    /// Milliseconds until there is a token; 0 if there is one.
    pub fn wait(&mut self, now: u64) -> u64 {
        self.settle(now);
        (self.debt_ms + self.each_ms).saturating_sub(self.capacity * self.each_ms)
    }

    pub fn take(&mut self, now: u64) {
        self.settle(now);
        self.debt_ms += self.each_ms;
    }
}

/// A window of fixed length that begins with the first request in it, as HTTP APIs count.
#[derive(Clone, Debug)]
pub struct Window {
    pub limit: u64,
    per_ms: u64,
    used: u64,
    ends: u64,
}

impl Window {
    pub fn new(limit: u64, per_ms: u64) -> Self {
        Self { limit, per_ms, used: 0, ends: 0 }
    }

    /// Counts one; `Err` with the milliseconds until the next window if this one is used up.
    pub fn take(&mut self, now: u64) -> Result<(), u64> {
        if now >= self.ends {
            self.used = 0;
            self.ends = now + self.per_ms;
        }
        if self.used >= self.limit {
            return Err(self.ends - now);
        }
        self.used += 1;
        Ok(())
    }

    /// Used up for so long, by whoever else.
    pub fn exhaust(&mut self, now: u64, ms: u64) {
        self.used = self.limit;
        self.ends = now + ms;
    }

    pub fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }

    pub fn reset_after_ms(&self, now: u64) -> u64 {
        self.ends.saturating_sub(now)
    }
}

/// RFC 3339 in UTC, with milliseconds.
pub fn iso(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    // Howard Hinnant's civil_from_days, for days after 1970.
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_rfc_3339_has_them() {
        assert_eq!(iso(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso(951_827_696_789), "2000-02-29T12:34:56.789Z");
        assert_eq!(iso(1_798_761_599_999), "2026-12-31T23:59:59.999Z");
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::with_burst(3, 1, 1000);
        for _ in 0..3 {
            assert_eq!(bucket.wait(5000), 0);
            bucket.take(5000);
        }
        assert_eq!(bucket.wait(5000), 1000);
        assert_eq!(bucket.wait(5400), 600);
        assert_eq!(bucket.wait(6000), 0);
        bucket.take(6000);
        assert_eq!(bucket.wait(6000), 1000);
        assert_eq!(bucket.wait(60_000), 0);
    }
}
