//! Checks a whole store: every record, every chain of hashes, and all that is derived from them.

use std::collections::HashMap;

use tokio_util::sync::CancellationToken;

use super::derived::{read, unsealed};
use super::event::SESSION_DELETED;
use super::keys;
use super::log::{Fold, SessionMeta};
use super::lookup::{Arrivals, Slots, find_by_origin, has_own_id};
use super::projection::{Projection, Register};
use super::record::{self, Slot};
use super::storage::Storage;
use super::store::Shared;
use crate::Result;

/// How often the projection of a session that is being written is looked at again.
const LOOKS: usize = 64;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Sessions that were checked.
    pub sessions: u64,
    /// Events that were checked.
    pub events: u64,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// Something wrong with an event, or with what is derived from a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The session.
    pub session_key: String,
    /// The event; 0 for the session as a whole.
    pub seq: u64,
    /// What is wrong.
    pub problem: String,
}

pub(super) fn verify(shared: &Shared, cancel: &CancellationToken) -> Result<Verified> {
    let mut found = Verified::default();
    let mut after = None;
    // Session by session, so that a compaction need not wait long.
    while !cancel.is_cancelled() {
        after = shared.reading(|storage| Ok(next_or_damage(storage, after.take(), &mut found, cancel)))?;
        if after.is_none() {
            break;
        }
    }
    shared.reading(|storage| {
        if let Err(error) = known_damage(storage, &mut found) {
            found.report("", 0, error.message());
        }
        Ok(())
    })?;
    Ok(found)
}

/// Checks the session at or after a key. The key to go on from; none after the last.
fn next_session(
    storage: &dyn Storage,
    after: Option<Vec<u8>>,
    found: &mut Verified,
    cancel: &CancellationToken,
) -> Result<Option<Vec<u8>>> {
    let (from, to) = keys::all(b'm', "");
    let Some(pair) = storage.scan(after.unwrap_or(from), to, false).next() else { return Ok(None) };
    let (mut key, _) = pair?;
    let name = keys::read_plain(&key)?.to_owned();
    if let Err(error) = (Session { storage, name: &name, found, cancel }).check() {
        found.report(&name, 0, error.message());
    }
    key.push(0);
    Ok(Some(key))
}

/// What an earlier repair could not save.
fn known_damage(storage: &dyn Storage, found: &mut Verified) -> Result<()> {
    for pair in storage.scan(vec![b'q'], vec![b'r'], false) {
        let (key, value) = pair?;
        let (session, seq) = keys::read_event(&key)?;
        found.report(session, seq, &unsealed::<String>(&value)?);
    }
    Ok(())
}

fn next_or_damage(
    storage: &dyn Storage,
    after: Option<Vec<u8>>,
    found: &mut Verified,
    cancel: &CancellationToken,
) -> Option<Vec<u8>> {
    next_session(storage, after, found, cancel).unwrap_or_else(|error| {
        // Which sessions come after this one cannot be read: each event that is lost is named by a repair.
        found.report("", 0, error.message());
        None
    })
}

/// Checks a storage that nobody writes.
pub(super) fn verify_storage(storage: &dyn Storage) -> Verified {
    let (mut found, cancel, mut after) = (Verified::default(), CancellationToken::new(), None);
    loop {
        after = next_or_damage(storage, after, &mut found, &cancel);
        if after.is_none() {
            return found;
        }
    }
}

impl Verified {
    fn report(&mut self, session: &str, seq: u64, problem: &str) {
        self.problems.push(Problem { session_key: session.to_owned(), seq, problem: problem.to_owned() });
    }
}

struct Session<'s> {
    storage: &'s dyn Storage,
    name: &'s str,
    found: &'s mut Verified,
    cancel: &'s CancellationToken,
}

/// The links of one origin's chain: `n`, and the first bytes of the previous hash and of the hash.
type Links = HashMap<String, Vec<(u64, [u8; 8], [u8; 8])>>;

impl Session<'_> {
    fn check(&mut self) -> Result<()> {
        let mut meta = self.meta()?;
        let (mut fold, mut links, mut whole) = (Fold::new(), Links::new(), meta.floor == 0);
        let mut next = meta.floor + 1;
        for _ in 0..LOOKS {
            self.walk(&meta, next, &mut fold, &mut links, &mut whole)?;
            next = meta.last_seq + 1;
            let projection: Option<Projection> = read(self.storage, &keys::projection(self.name))?;
            let state = self.state()?;
            let now = self.meta()?;
            if now == meta {
                self.compare(&fold, projection, &state, &meta);
                break;
            }
            if now.floor != meta.floor || now.covered != meta.covered {
                // Deleted or pruned meanwhile: there is nothing left to compare with.
                return Ok(());
            }
            meta = now;
        }
        self.found.sessions += u64::from(fold.projection.is_some());
        if whole { self.chains(links) } else { Ok(()) }
    }

    fn meta(&self) -> Result<SessionMeta> {
        Ok(read(self.storage, &keys::meta(self.name))?.unwrap_or_default())
    }

    fn state(&self) -> Result<Vec<(String, Register)>> {
        let (from, to) = keys::states(self.name);
        let cells = self.storage.scan(from, to, false).map(|pair| {
            let (key, cell) = pair?;
            Ok((keys::read_state(self.name, &key)?.to_owned(), unsealed(&cell)?))
        });
        cells.collect()
    }

    /// Events from `from` on, each by itself.
    fn walk(
        &mut self,
        meta: &SessionMeta,
        from: u64,
        fold: &mut Fold,
        links: &mut Links,
        whole: &mut bool,
    ) -> Result<()> {
        let mut next = from;
        for slot in Slots::new(self.storage, self.name, from, meta.last_seq + 1) {
            if self.cancel.is_cancelled() {
                return Ok(());
            }
            let (seq, slot) = match slot {
                Ok(slot) => slot,
                Err(error) => {
                    *whole = false;
                    // The message says where; what the database cannot read at all ends the walk.
                    self.found.report(self.name, next, error.message());
                    next += 1;
                    continue;
                }
            };
            for lost in next..seq.min(next + 10_000) {
                *whole = false;
                self.found.report(self.name, lost, "the event is missing");
            }
            next = seq + 1;
            let Slot::Event(event) = slot else {
                *whole = false;
                continue;
            };
            self.found.events += 1;
            if !record::hash_is_right(&event) {
                self.found.report(self.name, seq, "the event does not have the hash that it should");
            }
            let short = |hash: &[u8; 32]| hash.first_chunk().copied().unwrap_or_default();
            links.entry(event.origin.replica.to_string()).or_default().push((
                event.n,
                short(&event.prev),
                short(&event.hash),
            ));
            if !meta.is_live(&event) {
                *whole &= event.kind == SESSION_DELETED;
                continue;
            }
            fold.add(&event, record::bytes(&event)?);
            let place = Arrivals::new(self.storage, event.arrival, event.arrival + 1).next().transpose();
            let place = place.map(|place| place.map(|place| keys::place(&place.session, place.seq)));
            self.index(place, seq, "arrival");
            if !has_own_id(&event) {
                self.index(self.storage.get(&keys::id(self.name, &event.id)), seq, "id");
            }
        }
        for lost in next..(meta.last_seq + 1).min(next + 10_000) {
            *whole = false;
            self.found.report(self.name, lost, "the event is missing");
        }
        Ok(())
    }

    /// An index must lead to the event. One that cannot be read hides no event.
    fn index(&mut self, place: Result<Option<Vec<u8>>>, seq: u64, name: &str) {
        let problem = match place {
            Ok(Some(place)) if place == keys::place(self.name, seq) => return,
            Ok(_) => format!("the index by {name} does not have the event"),
            Err(error) => format!("the index by {name} cannot be read: {}", error.message()),
        };
        self.found.report(self.name, seq, &problem);
    }

    fn compare(
        &mut self,
        fold: &Fold,
        projection: Option<Projection>,
        state: &[(String, Register)],
        meta: &SessionMeta,
    ) {
        if fold.projection != projection {
            self.found.report(self.name, 0, "the projection is not what the events amount to");
        }
        if !fold.state.iter().eq(state.iter().map(|(key, cell)| (key, cell))) {
            self.found.report(self.name, 0, "the state is not what the events amount to");
        }
        if fold.bytes != meta.bytes {
            self.found.report(self.name, 0, "the size is not what the events amount to");
        }
        if let Some(projection) = projection {
            let recency = keys::recency(projection.last_ms, self.name);
            if !matches!(self.storage.get(&recency), Ok(Some(_))) {
                self.found.report(self.name, 0, "the index by recency does not have the session");
            }
        }
    }

    /// Where a session is whole, each event of an origin must follow from the one before.
    fn chains(&mut self, links: Links) -> Result<()> {
        for (replica, mut links) in links {
            links.sort_unstable();
            let (mut after, mut before) = (0, [0; 8]);
            for (n, prev, hash) in links {
                if prev != before && !self.may_follow_another(&replica, after, n, prev)? {
                    let problem = format!("the chain of replica `{replica}` is broken at its event {n}");
                    self.found.report(self.name, 0, &problem);
                }
                (after, before) = (n, hash);
            }
        }
        Ok(())
    }

    /// Whether the event before `n` may be one that gave way to a twin, was deleted, or has not come yet.
    fn may_follow_another(&self, replica: &str, after: u64, n: u64, prev: [u8; 8]) -> Result<bool> {
        for between in (after + 1..n).rev() {
            match find_by_origin(self.storage, replica, between)? {
                Some(event) if event.session_key == self.name => return Ok(event.hash.starts_with(&prev)),
                Some(_) => {}
                None => return Ok(true),
            }
        }
        Ok(false)
    }
}
