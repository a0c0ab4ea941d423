//! When the streams of a provider hand on what has come.
//!
//! A stream is read, and its reader told, at most 60 times a second; with many streams at once less often, as each telling
//! costs the reader's thread the same, however much it tells. The beats of all streams fall together, in a few phases:
//! those of one phase wake their reader once, and no single wake-up has everything to do.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Between two beats of a stream: 60 a second are 16.7 ms.
const BEAT: Duration = Duration::from_millis(17);
/// With each so many streams more, the beats are a [`BEAT`] farther apart …
const CROWD: usize = 64;
/// … to so many at most.
const SLOWEST: u32 = 3;
const PHASES: usize = 4;

/// The beats of a provider's streams.
#[derive(Debug, Default)]
pub struct Pace {
    begun: OnceLock<Instant>,
    running: AtomicUsize,
    joined: AtomicUsize,
}

/// One stream's.
#[derive(Debug)]
pub struct Beat<'a> {
    pace: &'a Pace,
    phase: usize,
}

impl Pace {
    /// For one more stream.
    pub fn join(&self) -> Beat<'_> {
        self.running.fetch_add(1, Ordering::Relaxed);
        Beat { pace: self, phase: self.joined.fetch_add(1, Ordering::Relaxed) % PHASES }
    }

    fn interval(&self) -> Duration {
        let crowds = self.running.load(Ordering::Relaxed).saturating_sub(1) / CROWD;
        BEAT * u32::try_from(crowds).unwrap_or(u32::MAX).saturating_add(1).min(SLOWEST)
    }
}

impl Beat<'_> {
    /// Until the stream's next beat.
    pub async fn next(&self) {
        let (now, interval) = (Instant::now(), self.pace.interval());
        let begun = *self.pace.begun.get_or_init(Instant::now);
        let offset =
            interval * u32::try_from(self.phase).unwrap_or_default() / u32::try_from(PHASES).unwrap_or(1);
        // Counted from one beat before the beginning, so that the phase takes nothing below zero.
        let since = (now.saturating_duration_since(begun) + interval).saturating_sub(offset);
        let past = since.as_micros() % interval.as_micros();
        let left = interval.saturating_sub(Duration::from_micros(u64::try_from(past).unwrap_or_default()));
        sleep_until(now + left).await;
    }
}

impl Drop for Beat<'_> {
    fn drop(&mut self) {
        self.pace.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn beats_in_a_second(beat: &Beat<'_>) -> usize {
        let begun = Instant::now();
        let mut count = 0;
        while begun.elapsed() < Duration::from_secs(1) {
            beat.next().await;
            count += 1;
        }
        count
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_beats_sixty_times_a_second_and_less_often_in_a_crowd() {
        let pace = Pace::default();
        let beat = pace.join();
        assert!((57..=60).contains(&beats_in_a_second(&beat).await));
        let more: Vec<_> = (0..100).map(|_| pace.join()).collect();
        assert!((28..=31).contains(&beats_in_a_second(&beat).await));
        let crowd: Vec<_> = (0..1000).map(|_| pace.join()).collect();
        assert!((19..=21).contains(&beats_in_a_second(&beat).await));
        drop((more, crowd));
        assert!((57..=60).contains(&beats_in_a_second(&beat).await));
    }

    #[tokio::test(start_paused = true)]
    async fn the_beats_of_many_streams_fall_on_a_few_moments() {
        let pace = Pace::default();
        let streams: Vec<_> = (0..64).map(|_| pace.join()).collect();
        let begun = Instant::now();
        let beats = streams.iter().map(|beat| async move {
            beat.next().await;
            begun.elapsed().as_millis()
        });
        let mut moments = futures_util::future::join_all(beats).await;
        moments.sort_unstable();
        moments.dedup();
        assert_eq!(moments.len(), PHASES, "{moments:?}");
    }
}
