//! Where an event is: a session's log in order, and the indexes by arrival, by id and by origin.

use std::iter::Peekable;
use std::sync::Arc;

use super::derived::read;
use super::event::StoredEvent;
use super::keys;
use super::log::SessionMeta;
use super::record::{self, Slot};
use super::storage::{Batch, Pair, Storage};
use super::version::VersionVector;
use crate::{CoreError, Result};

/// Whether the id is the one that its replica made: it then tells where the event is.
pub(super) fn has_own_id(event: &StoredEvent) -> bool {
    event
        .id
        .rsplit_once('-')
        .is_some_and(|(replica, n)| *replica == *event.origin.replica && n.parse() == Ok(event.n))
}

/// The places of a session's log in order, each with its number.
pub(super) struct Slots<'s> {
    storage: &'s dyn Storage,
    session: &'s str,
    pairs: Box<dyn Iterator<Item = Result<Pair>> + 's>,
}

impl<'s> Slots<'s> {
    /// Those with `from <= seq < to`.
    pub(super) fn new(storage: &'s dyn Storage, session: &'s str, from: u64, to: u64) -> Self {
        let (from, to) = keys::events(session, from, to);
        Self { storage, session, pairs: storage.scan(from, to, false) }
    }
}

impl Iterator for Slots<'_> {
    type Item = Result<(u64, Slot)>;

    fn next(&mut self) -> Option<Self::Item> {
        let length = keys::event(self.session, 0).len();
        loop {
            match self.pairs.next()? {
                // Parts of a record are read with it.
                Ok((key, _)) if key.len() != length => {}
                Ok((key, value)) => {
                    let slot = keys::trailing_number(&key)
                        .and_then(|seq| Ok((seq, read_slot(self.storage, self.session, seq, &key, &value)?)));
                    return Some(slot);
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The place of a session's log with a number; none if nothing is there.
pub(super) fn slot_at(storage: &dyn Storage, session: &str, seq: u64) -> Result<Option<Slot>> {
    let key = keys::event(session, seq);
    let value = storage.get(&key).map_err(|error| at_place(&error, session, seq))?;
    value.map(|value| read_slot(storage, session, seq, &key, &value)).transpose()
}

fn read_slot(storage: &dyn Storage, session: &str, seq: u64, key: &[u8], value: &[u8]) -> Result<Slot> {
    let at = |error: CoreError| at_place(&error, session, seq);
    let slot = record::decode(value, |number| storage.get(&keys::part(key, number))).map_err(at)?;
    match &slot {
        Slot::Event(event) if event.seq != seq || event.session_key != session => {
            Err(at(record::damaged("it belongs elsewhere")))
        }
        _ => Ok(slot),
    }
}

/// Adds where in the log an error was met.
pub(super) fn at_place(error: &CoreError, session: &str, seq: u64) -> CoreError {
    CoreError::new(error.code(), format!("session `{session}`, event {seq}: {}", error.message()))
}

/// The event at a place, dead or alive; none if it is gone.
pub(super) fn event_at(storage: &dyn Storage, session: &str, seq: u64) -> Result<Option<StoredEvent>> {
    match record::get(storage, &keys::event(session, seq)).map_err(|error| at_place(&error, session, seq))? {
        Some(Slot::Event(event)) => Ok(Some(*event)),
        _ => Ok(None),
    }
}

/// Events of a run of arrivals, at most: so many keys are looked at to find the run that a number is in. Fewer in tests, whose
/// histories are short.
pub(super) const RUN: usize = if cfg!(test) { 3 } else { 32 };

/// The latest event to arrive: its session, `seq` and arrival number, and the events of its run so far.
pub(super) struct Run {
    session: String,
    seq: u64,
    arrival: u64,
    length: usize,
}

/// Events of one session that arrive one after the other are a run, of which the index holds the first.
pub(super) fn index_arrival(latest: &mut Option<Run>, batch: &mut Batch, event: &StoredEvent) {
    if let Some(run) = latest
        && run.session == event.session_key
        && (run.seq + 1, run.arrival + 1) == (event.seq, event.arrival)
        && run.length < RUN
    {
        (run.seq, run.arrival, run.length) = (event.seq, event.arrival, run.length + 1);
        return;
    }
    batch.put(keys::arrival(event.arrival), keys::place(&event.session_key, event.seq));
    let (session, seq, arrival) = (event.session_key.clone(), event.seq, event.arrival);
    *latest = Some(Run { session, seq, arrival, length: 1 });
}

/// Where an event is by the index by arrival. If that event is gone, there may be another, or none.
pub(super) struct Arrival {
    pub(super) number: u64,
    pub(super) session: Arc<str>,
    pub(super) seq: u64,
    /// Whether the index holds this one itself.
    pub(super) first: bool,
}

impl Arrival {
    /// The event that had the number, dead or alive; none if it is gone.
    pub(super) fn event(&self, storage: &dyn Storage) -> Result<Option<StoredEvent>> {
        let event = event_at(storage, &self.session, self.seq)?;
        Ok(event.filter(|event| event.arrival == self.number))
    }
}

/// Where the events are that arrived with `from <= arrival < to`, in order.
pub(super) struct Arrivals<'s> {
    runs: Peekable<Box<dyn Iterator<Item = Result<Pair>> + 's>>,
    /// Session, `seq` and arrival number of the first of a run, and the number that ends it.
    run: Option<(Arc<str>, u64, u64, u64)>,
    next: u64,
    to: u64,
}

impl<'s> Arrivals<'s> {
    pub(super) fn new(storage: &'s dyn Storage, from: u64, to: u64) -> Self {
        let first = (from + 1).saturating_sub(RUN as u64);
        let runs = storage.scan(keys::arrival(first), keys::arrival(to.max(first)), false).peekable();
        Self { runs, run: None, next: from, to }
    }

    fn next_run(&mut self) -> Option<Result<()>> {
        let run = self.runs.next()?.and_then(|(key, place)| {
            let (session, seq) = keys::read_place(&place)?;
            let first = keys::trailing_number(&key)?;
            let end = match self.runs.peek() {
                Some(Ok((key, _))) => keys::trailing_number(key)?,
                _ => self.to,
            };
            self.next = self.next.max(first);
            self.run = Some((session.into(), seq, first, end.min(first + RUN as u64)));
            Ok(())
        });
        Some(run)
    }
}

impl Iterator for Arrivals<'_> {
    type Item = Result<Arrival>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((session, seq, first, end)) = &self.run
                && self.next < *end
            {
                let number = self.next;
                self.next += 1;
                let (session, seq) = (Arc::clone(session), seq + (number - first));
                return Some(Ok(Arrival { number, session, seq, first: number == *first }));
            }
            if let Err(error) = self.next_run()? {
                return Some(Err(error));
            }
        }
    }
}

/// The live event of a session with an id, whose key in the index is `key`.
pub(super) fn find_in_session(
    storage: &dyn Storage,
    version: &VersionVector,
    session: &str,
    id: &str,
    key: &[u8],
) -> Result<Option<StoredEvent>> {
    if let Some(place) = storage.get(key)? {
        let (session, seq) = keys::read_place(&place)?;
        return live(storage, event_at(storage, session, seq)?.filter(|event| event.id == id));
    }
    let found = find_by_own_id(storage, version, id)?;
    live(storage, found.filter(|event| event.session_key == session))
}

/// An id that this or another replica made tells where its event is.
fn find_by_own_id(storage: &dyn Storage, version: &VersionVector, id: &str) -> Result<Option<StoredEvent>> {
    let Some((replica, n)) = id.rsplit_once('-') else { return Ok(None) };
    let Some(n) = n.parse().ok().filter(|n| version.contains(replica, *n)) else { return Ok(None) };
    Ok(find_by_origin(storage, replica, n)?.filter(|event| event.id == id))
}

fn live(storage: &dyn Storage, event: Option<StoredEvent>) -> Result<Option<StoredEvent>> {
    let Some(event) = event else { return Ok(None) };
    let meta: SessionMeta = read(storage, &keys::meta(&event.session_key))?.unwrap_or_default();
    Ok(meta.is_live(&event).then_some(event))
}

/// The live event with an id; if several sessions have one, the first that arrived.
pub(super) fn find_by_id(
    storage: &dyn Storage,
    version: &VersionVector,
    id: &str,
) -> Result<Option<StoredEvent>> {
    let (from, to) = keys::ids(id);
    let mut first: Option<StoredEvent> = None;
    for pair in storage.scan(from, to, false) {
        let (_, place) = pair?;
        let (session, seq) = keys::read_place(&place)?;
        let event = live(storage, event_at(storage, session, seq)?.filter(|event| event.id == id))?;
        if let Some(event) =
            event.filter(|event| first.as_ref().is_none_or(|first| event.arrival < first.arrival))
        {
            first = Some(event);
        }
    }
    match first {
        Some(first) => Ok(Some(first)),
        None => live(storage, find_by_own_id(storage, version, id)?),
    }
}

/// The arrival number that event `n` of a replica has if it is in the run that the index tells.
pub(super) fn indexed_arrival(storage: &dyn Storage, replica: &str, n: u64) -> Result<Option<u64>> {
    let from = keys::origin(replica, 0);
    let mut to = keys::origin(replica, n);
    to.push(0);
    let Some(run) = storage.scan(from, to, true).next() else { return Ok(None) };
    let (key, arrival) = run?;
    Ok(Some(keys::trailing_number(&arrival)? + (n - keys::trailing_number(&key)?)))
}

/// Event `n` of a replica, whether it counts or gave way to a twin; none if it is gone.
pub(super) fn find_by_origin(storage: &dyn Storage, replica: &str, n: u64) -> Result<Option<StoredEvent>> {
    if let Some(arrival) = indexed_arrival(storage, replica, n)?
        && let Some(arrival) = Arrivals::new(storage, arrival, arrival + 1).next()
    {
        let event = arrival?.event(storage)?;
        if let Some(event) = event.filter(|event| *event.origin.replica == *replica && event.n == n) {
            return Ok(Some(event));
        }
    }
    match record::get(storage, &keys::shadow(replica, n))? {
        Some(Slot::Event(event)) => Ok(Some(*event)),
        _ => Ok(None),
    }
}
