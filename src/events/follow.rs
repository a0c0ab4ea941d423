//! A tail of the log that misses nothing: history first, then what comes, from the same place in the same way.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use super::derived::read;
use super::event::{StoredEvent, check_key};
use super::keys;
use super::log::{SessionMeta, StoreMeta};
use super::lookup::{self, Arrivals, Slots};
use super::record::Slot;
use super::storage::Storage;
use super::store::Shared;
use crate::runtime::blocking;
use crate::{Code, CoreError, Result};

/// Events of one step, and about how many bytes of them.
const STEP_EVENTS: usize = 256;
const STEP_BYTES: usize = 1 << 20;

/// What to follow.
#[derive(Clone, Debug, Default)]
pub struct FollowOptions {
    /// One session; all by default.
    pub session_key: Option<String>,
    /// The id of an event: only those that came after it.
    pub after: Option<String>,
}

/// Events in the order in which they arrived in this store.
///
/// A follower reads the log when it is asked for more and remembers no more than how far it has come: a slow one holds
/// up nobody, and takes no memory.
pub struct Follow {
    shared: Arc<Shared>,
    session: Option<String>,
    /// The last event that was seen: its number in the session, or among all arrivals.
    seen: u64,
    /// [`Shared::losses`] when it began.
    losses: u64,
    acknowledged: watch::Receiver<u64>,
    /// Nothing more will come.
    finite: bool,
}

impl Follow {
    pub(super) fn new(shared: Arc<Shared>, options: &FollowOptions, finite: bool) -> Result<Self> {
        // Fails if the store is closed.
        let losses = shared.reading(|_| Ok(shared.losses.load(Ordering::Acquire)))?;
        if let Some(session) = &options.session_key {
            check_key(session)?;
        }
        let seen = match &options.after {
            None => 0,
            Some(id) => shared.reading(|storage| {
                let store: StoreMeta = read(storage, keys::STORE)?.unwrap_or_default();
                let event = match &options.session_key {
                    Some(session) => {
                        lookup::find_in_session(storage, &store.version, session, id, &keys::id(session, id))
                    }
                    None => lookup::find_by_id(storage, &store.version, id),
                };
                let event = event?.ok_or_else(|| {
                    let message =
                        format!("`after` must be the id of an event that is still here, not `{id}`");
                    CoreError::new(Code::Validation, message)
                })?;
                Ok(if options.session_key.is_some() { event.seq } else { event.arrival })
            })?,
        };
        let acknowledged = shared.acknowledged.subscribe();
        Ok(Self { shared, session: options.session_key.clone(), seen, losses, acknowledged, finite })
    }

    /// The next events, at least one; none if the store was closed, or is a copy that was read to its end. An error if
    /// acknowledged events were lost meanwhile: their numbers are given again, and it would pass over who has them now.
    pub async fn next(&mut self) -> Result<Option<Vec<StoredEvent>>> {
        loop {
            let horizon = *self.acknowledged.borrow_and_update();
            if self.shared.closed.load(Ordering::Acquire) {
                return Ok(None);
            }
            if self.shared.losses.load(Ordering::Acquire) != self.losses {
                let message = "the event store failed and lost events that it had acknowledged, as `interval` allows; follow it again";
                return Err(CoreError::new(Code::Io, message).in_file(&self.shared.folder));
            }
            loop {
                let (shared, session, seen) = (Arc::clone(&self.shared), self.session.clone(), self.seen);
                let step = blocking(move || {
                    shared.reading(|storage| match &session {
                        Some(session) => session_step(storage, session, seen, horizon),
                        None => step(storage, seen, horizon),
                    })
                });
                let (events, seen) = match step.await {
                    Ok(step) => step,
                    Err(error) if error.code() == Code::StoreClosed => return Ok(None),
                    Err(error) => return Err(error),
                };
                let over = self.seen == seen;
                self.seen = seen;
                if !events.is_empty() {
                    return Ok(Some(events));
                }
                if over {
                    break;
                }
            }
            if self.finite || self.acknowledged.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}

/// Events that arrived after `seen`, up to `horizon`, and how far the look went.
fn step(storage: &dyn Storage, seen: u64, horizon: u64) -> Result<(Vec<StoredEvent>, u64)> {
    let (mut events, mut bytes, mut looked) = (Vec::new(), 0, seen.max(horizon));
    let mut latest: Option<(Arc<str>, SessionMeta)> = None;
    for arrival in Arrivals::new(storage, seen + 1, horizon + 1) {
        let arrival = arrival?;
        let meta = match &latest {
            Some((name, meta)) if *name == arrival.session => meta,
            _ => {
                let meta = read(storage, &keys::meta(&arrival.session))?.unwrap_or_default();
                &latest.insert((Arc::clone(&arrival.session), meta)).1
            }
        };
        if let Some(event) = arrival.event(storage)?.filter(|event| meta.is_live(event)) {
            bytes += event.data.len();
            events.push(event);
        }
        if events.len() >= STEP_EVENTS || bytes >= STEP_BYTES {
            looked = arrival.number;
            break;
        }
    }
    Ok((events, looked))
}

/// The same within a session, whose events are in the order of arrival.
fn session_step(
    storage: &dyn Storage,
    session: &str,
    seen: u64,
    horizon: u64,
) -> Result<(Vec<StoredEvent>, u64)> {
    let meta: SessionMeta = read(storage, &keys::meta(session))?.unwrap_or_default();
    let (mut events, mut bytes, mut looked) = (Vec::new(), 0, seen);
    let from = seen.max(meta.floor) + 1;
    if from > meta.last_seq {
        return Ok((events, seen));
    }
    for slot in Slots::new(storage, session, from, meta.last_seq + 1) {
        let (seq, slot) = slot?;
        if let Slot::Event(event) = slot {
            if event.arrival > horizon {
                break;
            }
            if meta.is_live(&event) {
                bytes += event.data.len();
                events.push(*event);
            }
        }
        looked = seq;
        if events.len() >= STEP_EVENTS || bytes >= STEP_BYTES {
            break;
        }
    }
    Ok((events, looked))
}
