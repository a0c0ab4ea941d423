//! Whose turn it is to call the platform, by what the governor allows.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::Outbox;
use crate::channels::platform::{Call, Done, Failed, Fate, Scope};
use crate::{Code, CoreError, Result};

/// A message that waits for its turn, until it is dropped.
pub(super) struct Waits<'o> {
    pub(super) outbox: &'o Outbox,
    pub(super) waits: bool,
}

impl Waits<'_> {
    pub(super) fn begin(&mut self) {
        if !std::mem::replace(&mut self.waits, true) {
            self.outbox.governor().waits(true);
        }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if self.waits {
            self.outbox.governor().waits(false);
            self.outbox.freed.notify_waiters();
        }
    }
}

/// A call that may be made.
pub(super) struct Turn {
    pub(super) outbox: Arc<Outbox>,
    pub(super) chat: String,
    pub(super) ended: bool,
}

impl Turn {
    pub(super) fn new(outbox: &Arc<Outbox>, chat: &str) -> Self {
        Self { outbox: Arc::clone(outbox), chat: chat.to_owned(), ended: false }
    }

    pub(super) async fn call(mut self, call: &Call) -> Result<Done, Failed> {
        let mut calling = self.outbox.platform.call(call);
        let outcome = std::future::poll_fn(move |context| {
            catch_unwind(AssertUnwindSafe(|| calling.as_mut().poll(context))).unwrap_or_else(|_| {
                let message = "the adapter panicked; this is a bug, please report it";
                Poll::Ready(Err(Failed::new(Fate::Unknown, CoreError::new(Code::Internal, message))))
            })
        })
        .await;
        let (pause, refused) = match &outcome {
            Ok(done) => (done.pause, false),
            Err(failed) => {
                let wait = failed.error.details().retry_after_ms.map(Duration::from_millis);
                let asked = failed.error.code() == Code::ChannelRateLimited;
                (wait.filter(|_| asked).map(|wait| (failed.scope, wait)), asked)
            }
        };
        self.end(pause, refused);
        outcome
    }

    /// It is not made.
    pub(super) fn give_back(mut self) {
        self.end(None, true);
    }

    fn end(&mut self, pause: Option<(Scope, Duration)>, refused: bool) {
        self.ended = true;
        self.outbox.governor().ended(Instant::now(), &self.chat, pause, refused);
        self.outbox.freed.notify_waiters();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.ended {
            self.end(None, true);
        }
    }
}
