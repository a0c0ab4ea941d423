//! The events of a stream on their way to whoever reads it, bounded. A full queue makes the writer wait, which then reads
//! no more from its socket.

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use reqwest::header::HeaderMap;
use tokio::sync::Notify;

use super::builder::Batch;
use super::call::Outcome;
use super::message::write_string;

/// More than this does not wait to be read.
const MOST_BYTES: usize = 64 << 10;

/// Between one writer and one reader.
#[derive(Debug, Default)]
pub struct EventQueue {
    state: Mutex<State>,
    /// There is something to take.
    filled: Notify,
    /// The queue was full, and is not.
    emptied: Notify,
}

#[derive(Debug, Default)]
struct State {
    batch: Batch,
    outcome: Option<Outcome>,
    closed: bool,
    /// Heads of answers, as a JSON array without brackets.
    responses: String,
}

/// What the reader gets at once.
#[derive(Debug)]
pub struct Handed {
    /// The events.
    pub batch: Batch,
    /// Heads of answers that have come, as a JSON array without brackets.
    pub responses: String,
    /// With the last of them: how it ended.
    pub outcome: Option<Outcome>,
}

impl EventQueue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds events; waits while the reader has enough. Returns whether it had to.
    pub async fn offer(&self, batch: Batch) -> bool {
        self.add(batch);
        let mut waited = false;
        while self.is_full() {
            waited = true;
            self.emptied.notified().await;
        }
        waited
    }

    fn add(&self, batch: Batch) {
        let mut state = self.lock();
        if batch.is_empty() || state.closed || state.outcome.is_some() {
            return;
        }
        let first = state.batch.is_empty();
        state.batch.append(batch);
        drop(state);
        if first {
            self.filled.notify_one();
        }
    }

    fn is_full(&self) -> bool {
        let state = self.lock();
        !state.closed && state.batch.bytes() > MOST_BYTES
    }

    /// The head of an answer: it goes ahead of the events.
    pub fn note(&self, status: u16, headers: &HeaderMap) {
        let mut state = self.lock();
        if !state.responses.is_empty() {
            state.responses.push(',');
        }
        let _ = write!(state.responses, "{{\"status\":{status},\"headers\":{{");
        for (at, name) in headers.keys().enumerate() {
            // As `Headers` of the web has them: values of one name are joined.
            let values: Vec<_> =
                headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
            state.responses.push_str(if at == 0 { "" } else { "," });
            write_string(&mut state.responses, name.as_str());
            state.responses.push(':');
            write_string(&mut state.responses, &values.join(", "));
        }
        state.responses.push_str("}}");
        drop(state);
        self.filled.notify_one();
    }

    /// The writer is gone. If it left no outcome, the reader gets none.
    pub fn abandon(&self) {
        let state = self.lock();
        let left = state.outcome.is_none();
        drop(state);
        if left {
            self.close();
        }
    }

    /// Ends the queue. After a failure that is an abort, events that still wait are dropped.
    pub fn finish(&self, mut rest: Batch, outcome: Outcome, drop_events: bool) {
        let mut state = self.lock();
        if state.outcome.is_some() || state.closed {
            return;
        }
        if drop_events {
            state.batch = Batch::default();
        } else {
            state.batch.append(std::mem::take(&mut rest));
        }
        state.outcome = Some(outcome);
        drop(state);
        self.filled.notify_one();
    }

    /// The reader wants no more: what waits is dropped, and the writer never waits again.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.batch = Batch::default();
        drop(state);
        self.filled.notify_one();
        self.emptied.notify_one();
    }

    /// The next batch; none once the outcome was handed over, or the queue was closed. For one reader at a time.
    pub async fn take(&self) -> Option<Handed> {
        loop {
            {
                let mut state = self.lock();
                if state.closed {
                    return None;
                }
                if state.outcome.is_some() || !state.batch.is_empty() || !state.responses.is_empty() {
                    let batch = std::mem::take(&mut state.batch);
                    let responses = std::mem::take(&mut state.responses);
                    let outcome = state.outcome.take();
                    state.closed = outcome.is_some();
                    drop(state);
                    self.emptied.notify_one();
                    return Some(Handed { batch, responses, outcome });
                }
            }
            self.filled.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::builder::MessageBuilder;
    use super::*;

    fn deltas(builder: &mut MessageBuilder, texts: &[&str]) -> Batch {
        let index = if builder.has_content() { 0 } else { builder.text_start() };
        for text in texts {
            builder.text_delta(index, text).unwrap();
        }
        builder.take_events()
    }

    fn builder() -> MessageBuilder {
        MessageBuilder::new("api", "provider", "model", 0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_is_slow_holds_the_writer_back() {
        let (queue, mut builder) = (EventQueue::default(), builder());
        let piece = "y".repeat(10 << 10);
        let written = std::cell::Cell::new(0);
        let write = async {
            for _ in 0..100 {
                let batch = deltas(&mut builder, &[&piece]);
                queue.offer(batch).await;
                written.set(written.get() + 1);
            }
            queue.close();
        };
        let read = async {
            tokio::time::sleep(Duration::from_hours(1)).await;
            // The one that waits is in the queue as well.
            assert!(written.get() * piece.len() <= MOST_BYTES, "{}", written.get());
            let mut most = 0;
            while let Some(handed) = queue.take().await {
                most = most.max(handed.batch.bytes());
            }
            most
        };
        let ((), most) = tokio::join!(write, read);
        assert!(most <= MOST_BYTES + 2 * piece.len(), "{most}");
        assert_eq!(written.get(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_close_nobody_waits() {
        let (queue, mut builder) = (EventQueue::default(), builder());
        let big = "z".repeat(MOST_BYTES + 1);
        let batch = deltas(&mut builder, &[&big]);
        tokio::join!(async { assert!(queue.offer(batch).await) }, async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            queue.close();
        });
        assert!(queue.take().await.is_none());
    }
}
