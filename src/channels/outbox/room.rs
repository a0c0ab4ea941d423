//! How much of what waits to be sent is held in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::channels::message::{OutboundMessage, Part};
use crate::channels::platform::Call;
use crate::{Code, CoreError, Result};

/// What a message takes beside its text and its files, or more.
pub(super) const JOB: usize = 1 << 10;

/// Room for messages that wait in memory. Clones are the same one.
#[derive(Clone)]
pub struct Room {
    most: usize,
    taken: Arc<AtomicUsize>,
}

impl Room {
    /// For so many bytes.
    pub fn new(most: usize) -> Self {
        Self { most, taken: Arc::default() }
    }

    /// Takes room until the result is dropped. `LIMIT` if there is not enough; for one message alone there always is.
    pub fn enter(&self, bytes: usize) -> Result<Held> {
        let enough = |taken: usize| {
            let both = taken.saturating_add(bytes);
            (taken == 0 || both <= self.most).then_some(both)
        };
        match self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, enough) {
            Ok(_) => Ok(Held { bytes, taken: Arc::clone(&self.taken) }),
            Err(taken) => {
                let message = format!(
                    "{taken} bytes of messages and their files already wait to be sent: await earlier sends before more are made"
                );
                Err(CoreError::new(Code::Limit, message))
            }
        }
    }

    /// Bytes that are taken.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    /// As [`Room::enter`], whether there is room or not.
    pub(super) fn force(&self, bytes: usize) -> Held {
        self.taken.fetch_add(bytes, Ordering::AcqRel);
        Held { bytes, taken: Arc::clone(&self.taken) }
    }
}

/// Room that is taken, until it is dropped.
pub struct Held {
    bytes: usize,
    taken: Arc<AtomicUsize>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// What a message takes of [`Room`].
pub fn size(message: &OutboundMessage) -> usize {
    let files: usize = message.files.iter().map(|file| file.data.len()).sum();
    let extra = message.extra.as_ref().and_then(|extra| serde_json::to_string(extra).ok());
    JOB + message.text.len() + files + extra.map_or(0, |extra| extra.len())
}

/// What an edit or a reaction takes of it.
pub(super) fn call_size(call: &Call) -> usize {
    JOB + match call {
        Call::Edit { text, .. } => text.len(),
        Call::React { emoji, .. } => emoji.len(),
        Call::Send { .. } | Call::Typing { .. } => 0,
    }
}

pub(super) fn parts_size(parts: &[Part]) -> usize {
    parts.iter().map(|part| part.text.len() + part.source.len()).sum()
}
