//! The log itself: what one append, merge or deletion writes. Everything here runs on the writer's thread alone.
//!
//! A call stages its writes in a [`Group`]; [`Log::commit`] applies the group to the storage as one batch. What can
//! fail comes first in each call, so that a call that fails has staged nothing.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::clock::{Clock, PhysicalTime};
use super::derived::{put, read};
use super::event::{Body, NewEvent, Origin, SESSION_DELETED, StoredEvent, invalid};
use super::files::Tail;
use super::keys;
use super::lookup::{
    RUN, Run, Slots, find_by_origin, find_in_session, has_own_id, index_arrival, indexed_arrival,
};
use super::merge::Incoming;
use super::projection::{Projection, Register, state_changes};
use super::record::{self, Slot};
use super::storage::{Batch, Storage};
use super::version::VersionVector;
use crate::{Code, CoreError, Result};

/// Sessions that the writer keeps at hand.
const CACHED_SESSIONS: usize = 256;

/// Events that one step of the removal of a session's events looks at. Fewer in tests, whose histories are short.
const GARBAGE_STEP: usize = if cfg!(test) { 4 } else { 256 };

/// What the store knows of itself: the value of [`keys::STORE`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoreMeta {
    /// The latest arrival number.
    pub(super) arrivals: u64,
    /// Events that this replica wrote.
    pub(super) n: u64,
    pub(super) clock: Clock,
    /// Live events and the bytes of their records.
    pub(super) events: u64,
    pub(super) bytes: u64,
    /// Sessions with live events.
    pub(super) sessions: u64,
    pub(super) version: VersionVector,
}

/// What this store alone knows of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SessionMeta {
    /// The greatest number given.
    pub(super) last_seq: u64,
    /// Every event up to this number was deleted or pruned.
    pub(super) floor: u64,
    /// Bytes of the live events' records.
    pub(super) bytes: u64,
    /// What deletions cover: an event of this session that is in here is dead.
    pub(super) covered: VersionVector,
    /// For each origin its latest event: its `n` and hash.
    pub(super) tails: BTreeMap<String, (u64, [u8; 32])>,
}

impl SessionMeta {
    /// Whether the event still counts.
    pub(super) fn is_live(&self, event: &StoredEvent) -> bool {
        event.seq > self.floor && !self.covered.contains(&event.origin.replica, event.n)
    }
}

/// A session as the writer knows it.
#[derive(Default)]
struct Session {
    meta: SessionMeta,
    projection: Option<Projection>,
    /// The time under which the index by recency has it.
    indexed: Option<i64>,
    /// Cells of the state that were read or written.
    state: HashMap<String, Option<Register>>,
    touched: bool,
    /// The projection must be folded anew, after the commit.
    dirty: bool,
}

/// Writes that will be applied together.
#[derive(Default)]
pub(super) struct Group {
    /// Applied before the batch: a reader, who sees a batch key by key, must find these before others go. They do no harm
    /// without it.
    first: Batch,
    batch: Batch,
    touched: Vec<String>,
    dirty: Vec<String>,
    /// Ids in this group, of which the storage does not know yet.
    ids: HashSet<Vec<u8>>,
    pub(super) events: usize,
    pub(super) bytes: u64,
}

impl Group {
    /// Whether there is anything to commit.
    pub(super) fn is_empty(&self) -> bool {
        self.batch.0.is_empty() && self.first.0.is_empty() && self.touched.is_empty() && self.events == 0
    }

    /// Adds writes beside the log.
    pub(super) fn extend(&mut self, mut batch: Batch) {
        self.batch.0.append(&mut batch.0);
    }
}

/// What became of events that were to be staged.
pub(super) enum Appended {
    Done(Vec<StoredEvent>),
    /// The group holds an event that this call must find in the storage: commit, then call again.
    CommitFirst(Vec<NewEvent>),
}

/// A storage that is being filled with what the log's has, by a compaction.
pub(super) struct Mirror {
    pub(super) target: Arc<dyn Storage>,
    /// Keys below this one were copied: writes to them go to both.
    pub(super) copied: Vec<u8>,
    /// A write to the target failed.
    pub(super) failed: Option<CoreError>,
}

/// How many events a merge took in, and how many it had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Events that were new here.
    pub applied: u64,
    /// Events that were known.
    pub known: u64,
}

/// What retention removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Sessions.
    pub sessions: u64,
    /// Events.
    pub events: u64,
    /// Bytes of their records.
    pub bytes: u64,
}

/// The one writer.
pub(super) struct Log {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) replica: Arc<str>,
    pub(super) time: Arc<dyn PhysicalTime>,
    pub(super) store: StoreMeta,
    sessions: HashMap<String, Session>,
    /// For each origin the latest event that arrived: `n` and arrival number.
    runs: HashMap<Arc<str>, (u64, u64)>,
    /// The run that the next event to arrive may be of.
    arrived: Option<Run>,
    /// A session whose dead events are being removed, and the number to go on from.
    garbage: Option<(String, u64)>,
    pub(super) mirror: Option<Mirror>,
    /// Where the latest event of the latest group went.
    pub(super) latest: Option<(String, u64)>,
    /// The ends of the sessions that were written since this was last emptied.
    pub(super) tails: BTreeMap<String, Tail>,
}

impl Log {
    /// The log in a storage, which may be empty.
    pub(super) fn open(
        storage: Arc<dyn Storage>,
        replica: Arc<str>,
        time: Arc<dyn PhysicalTime>,
    ) -> Result<Self> {
        let store = read(&*storage, keys::STORE)?.unwrap_or_default();
        let mut log = Self {
            storage,
            replica,
            time,
            store,
            sessions: HashMap::new(),
            runs: HashMap::new(),
            arrived: None,
            garbage: None,
            mirror: None,
            latest: None,
            tails: BTreeMap::new(),
        };
        let (from, to) = keys::all(b'd', "");
        let dirty: Vec<String> = log
            .storage
            .scan(from, to, false)
            .map(|pair| Ok(keys::read_plain(&pair?.0)?.to_owned()))
            .collect::<Result<_>>()?;
        for session in dirty {
            log.fold_anew(&session)?;
        }
        Ok(log)
    }

    /// Forgets what is not in the storage, after a commit that failed.
    pub(super) fn reload(&mut self) -> Result<()> {
        self.sessions.clear();
        self.runs.clear();
        self.arrived = None;
        self.store = read(&*self.storage, keys::STORE)?.unwrap_or_default();
        Ok(())
    }

    /// Physical time.
    pub(super) fn now_ms(&self) -> i64 {
        i64::try_from(self.time.now_ms()).unwrap_or(i64::MAX)
    }

    /// Stages events of this replica. An id that is known gives back the event that has it.
    pub(super) fn append(&mut self, group: &mut Group, events: Vec<NewEvent>) -> Result<Appended> {
        let mut known: HashMap<usize, StoredEvent> = HashMap::new();
        // An id that stands twice in one call: the place of the first.
        let mut first: HashMap<Vec<u8>, usize> = HashMap::new();
        let mut twins: HashMap<usize, usize> = HashMap::new();
        for (at, event) in events.iter().enumerate() {
            if let Some(id) = &event.id {
                let key = keys::id(&event.session_key, id);
                if group.ids.contains(&key) {
                    return Ok(Appended::CommitFirst(events));
                }
                if let Some(first) = first.get(&key) {
                    twins.insert(at, *first);
                    continue;
                }
                let known_event =
                    find_in_session(&*self.storage, &self.store.version, &event.session_key, id, &key)?;
                first.insert(key, at);
                if let Some(event) = known_event {
                    known.insert(at, event);
                    continue;
                }
            }
            self.load(&event.session_key)?;
            if event.kind == "state_changed" {
                self.load_state(&event.session_key, &event.data)?;
            }
        }
        let now = self.time.now_ms();
        let mut stored: Vec<StoredEvent> = Vec::with_capacity(events.len());
        for (at, event) in events.into_iter().enumerate() {
            let one = match (known.remove(&at), twins.get(&at).and_then(|first| stored.get(*first))) {
                (Some(known), _) => known,
                (None, Some(twin)) => twin.clone(),
                (None, None) => self.write(group, event, now)?,
            };
            stored.push(one);
        }
        Ok(Appended::Done(stored))
    }

    /// Stages one event of this replica, whose session is loaded.
    fn write(&mut self, group: &mut Group, event: NewEvent, now: u64) -> Result<StoredEvent> {
        let session =
            self.sessions.get_mut(&event.session_key).ok_or_else(|| unloaded(&event.session_key))?;
        self.store.n += 1;
        self.store.clock = self.store.clock.tick(now);
        let n = self.store.n;
        let seq = session.meta.last_seq + 1;
        let prev = session.meta.tails.get(&*self.replica).map_or([0; 32], |(_, hash)| *hash);
        let mut stored = StoredEvent {
            timestamp_ms: event.timestamp_ms.unwrap_or_else(|| i64::try_from(now).unwrap_or(i64::MAX)),
            id: event.id.unwrap_or_else(|| format!("{}-{n}", self.replica)),
            session_key: event.session_key,
            agent_id: event.agent_id,
            kind: event.kind,
            data: event.data,
            seq,
            origin: Origin { replica: Arc::clone(&self.replica), seq },
            n,
            clock: self.store.clock,
            hash: [0; 32],
            prev,
            arrival: 0,
        };
        let body = record::encode(&stored.body())?;
        stored.hash = Body::hash(&prev, &body);
        self.take_in(group, &mut stored, &body)?;
        Ok(stored)
    }

    /// Stages an event that is new to this store: numbers it, and writes it with all that follows from it.
    fn take_in(&mut self, group: &mut Group, event: &mut StoredEvent, body: &[u8]) -> Result<()> {
        let session =
            self.sessions.get_mut(&event.session_key).ok_or_else(|| unloaded(&event.session_key))?;
        session.meta.last_seq += 1;
        self.store.arrivals += 1;
        event.seq = session.meta.last_seq;
        event.arrival = self.store.arrivals;
        self.store.version.insert(&event.origin.replica, event.n);
        session.meta.follow_chain(event);
        let bytes = record::put(&mut group.batch, keys::event(&event.session_key, event.seq), event, body)?;
        if !has_own_id(event) {
            let key = keys::id(&event.session_key, &event.id);
            group.ids.insert(key.clone());
            group.batch.put(key, keys::place(&event.session_key, event.seq));
        }
        index_arrival(&mut self.arrived, &mut group.batch, event);
        index_origin(&mut self.runs, &mut group.batch, event);
        group.events += 1;
        group.bytes += bytes;
        if event.kind != SESSION_DELETED {
            session.meta.bytes += bytes;
            self.store.bytes += bytes;
            self.store.events += 1;
            let projection = session.projection.get_or_insert_with(|| {
                self.store.sessions += 1;
                Projection::default()
            });
            projection.add(event);
            for (key, register) in state_changes(event) {
                let cell = session.state.entry(key.clone()).or_default();
                if cell.as_ref().is_none_or(|cell| cell.yields_to(event)) {
                    put(&mut group.batch, keys::state(&event.session_key, &key), &register)?;
                    *cell = Some(register);
                }
            }
        }
        touch(group, session, &event.session_key);
        Ok(())
    }

    /// Stages events of other replicas, in a group of their own.
    pub(super) fn merge(&mut self, group: &mut Group, events: Vec<Incoming>) -> Result<Merged> {
        let mut merged = Merged::default();
        for incoming in events {
            let mut event = incoming.event;
            if self.store.version.contains(&event.origin.replica, event.n) {
                self.refuse_fork(group, &event)?;
                merged.known += 1;
                continue;
            }
            self.load(&event.session_key)?;
            self.load_state(
                &event.session_key,
                if event.kind == "state_changed" { &event.data } else { "" },
            )?;
            self.store.clock = self.store.clock.observe(event.clock);
            if *event.origin.replica == *self.replica {
                // Our own past comes back to a store that was restored from an older copy.
                self.store.n = self.store.n.max(event.n);
            }
            merged.applied += 1;
            group.events += 1;
            if event.kind == SESSION_DELETED {
                let covers = covers(&event.data)?;
                // What the deletion covers must be in the storage.
                self.commit(group)?;
                self.load(&event.session_key)?;
                let all = self.covers_all(&event.session_key, &covers);
                self.take_in(group, &mut event, &incoming.body)?;
                self.cover(group, &event, &covers, all)?;
                // What comes next must find that it holds.
                self.commit(group)?;
                continue;
            }
            let session =
                self.sessions.get_mut(&event.session_key).ok_or_else(|| unloaded(&event.session_key))?;
            if session.meta.covered.contains(&event.origin.replica, event.n) {
                session.meta.follow_chain(&event);
                touch(group, session, &event.session_key);
                self.store.version.insert(&event.origin.replica, event.n);
                continue;
            }
            let key = keys::id(&event.session_key, &event.id);
            if group.ids.contains(&key) {
                // The twin came in the same group: apply what is staged, so that it can be found.
                self.commit(group)?;
                self.load(&event.session_key)?;
                self.load_state(
                    &event.session_key,
                    if event.kind == "state_changed" { &event.data } else { "" },
                )?;
            }
            match find_in_session(&*self.storage, &self.store.version, &event.session_key, &event.id, &key)? {
                None => self.take_in(group, &mut event, &incoming.body)?,
                Some(twin) => self.choose(group, &twin, event, &incoming.body)?,
            }
        }
        Ok(merged)
    }

    /// Two replicas wrote the same fact. The earlier by (clock, replica) is the one that counts, on every replica.
    fn choose(
        &mut self,
        group: &mut Group,
        twin: &StoredEvent,
        mut event: StoredEvent,
        body: &[u8],
    ) -> Result<()> {
        self.store.version.insert(&event.origin.replica, event.n);
        let session =
            self.sessions.get_mut(&event.session_key).ok_or_else(|| unloaded(&event.session_key))?;
        session.meta.follow_chain(&event);
        touch(group, session, &event.session_key);
        let loses = (twin.clock, &twin.origin.replica) > (event.clock, &event.origin.replica);
        let behind = if loses { twin } else { &event };
        let (replica, n) = (&behind.origin.replica, behind.n);
        record::put(&mut group.batch, keys::shadow(replica, n), behind, &record::encode(&behind.body())?)?;
        group.batch.put(keys::shadowed(&behind.session_key, replica, n), Vec::new());
        if !loses {
            return Ok(());
        }
        let place = keys::event(&twin.session_key, twin.seq);
        // Of one key's writes in a batch the last counts.
        record::remove(&mut group.batch, place.clone(), twin);
        (event.seq, event.arrival) = (twin.seq, twin.arrival);
        let (before, after) = (record::bytes(twin)?, record::put(&mut group.batch, place, &event, body)?);
        if let Some(session) = self.sessions.get_mut(&event.session_key) {
            session.meta.bytes = (session.meta.bytes + after).saturating_sub(before);
            self.store.bytes = (self.store.bytes + after).saturating_sub(before);
        }
        group.batch.put(keys::origin(&event.origin.replica, event.n), event.arrival.to_be_bytes().to_vec());
        self.runs.remove(&event.origin.replica);
        let same_fact = twin.kind == event.kind
            && twin.kind != "state_changed"
            && (twin.timestamp_ms, &twin.data, &twin.agent_id)
                == (event.timestamp_ms, &event.data, &event.agent_id);
        if !same_fact {
            self.soil(group, &event.session_key);
        }
        // A third twin must find this one.
        self.commit(group)
    }

    /// Marks a session's projection as one to be folded anew, in the same batch.
    fn soil(&mut self, group: &mut Group, name: &str) {
        if let Some(session) = self.sessions.get_mut(name) {
            touch(group, session, name);
            if !session.dirty {
                session.dirty = true;
                group.batch.put(keys::dirty(name), Vec::new());
                group.dirty.push(name.to_owned());
            }
        }
    }

    /// Whether no event of a session is left when these are deleted.
    fn covers_all(&self, name: &str, covers: &VersionVector) -> bool {
        self.sessions.get(name).is_some_and(|session| {
            let mut covered = session.meta.covered.clone();
            covered.union(covers);
            session.meta.tails.iter().all(|(replica, (n, _))| covered.covers_through(replica, *n))
        })
    }

    /// Applies a deletion to what is here: to all of it, or event by event.
    fn cover(
        &mut self,
        group: &mut Group,
        tombstone: &StoredEvent,
        covers: &VersionVector,
        all: bool,
    ) -> Result<()> {
        let name = &tombstone.session_key;
        let session = self.sessions.get_mut(name).ok_or_else(|| unloaded(name))?;
        session.meta.covered.union(covers);
        group.batch.put(keys::garbage(name), Vec::new());
        if all {
            self.clear(group, name, tombstone.seq - 1)?;
        } else {
            self.soil(group, name);
        }
        Ok(())
    }

    /// Ends a session's life up to `floor`: no event, no projection, no state. The number of events that were live.
    fn clear(&mut self, group: &mut Group, name: &str, floor: u64) -> Result<(u64, u64)> {
        let (from, to) = keys::states(name);
        let cells: Vec<Vec<u8>> =
            self.storage.scan(from, to, false).map(|pair| pair.map(|(key, _)| key)).collect::<Result<_>>()?;
        for key in self.shadows(name)? {
            if let Some(Slot::Event(event)) = record::get(&*self.storage, &key)? {
                record::remove(&mut group.batch, key, &event);
                group.batch.remove(keys::shadowed(name, &event.origin.replica, event.n));
            }
        }
        let session = self.sessions.get_mut(name).ok_or_else(|| unloaded(name))?;
        for key in cells {
            group.batch.remove(key);
        }
        session.state.clear();
        session.meta.floor = floor;
        let events = session.projection.take().map_or(0, |projection| projection.events);
        let bytes = std::mem::take(&mut session.meta.bytes);
        if events > 0 {
            self.store.sessions = self.store.sessions.saturating_sub(1);
        }
        self.store.events = self.store.events.saturating_sub(events);
        self.store.bytes = self.store.bytes.saturating_sub(bytes);
        touch(group, session, name);
        Ok((events, bytes))
    }

    /// Stages the deletion of a session: an event that covers all that is known here. The number of events deleted.
    pub(super) fn delete(&mut self, group: &mut Group, name: &str) -> Result<u64> {
        self.load(name)?;
        let session = self.sessions.get(name).ok_or_else(|| unloaded(name))?;
        let Some(projection) = &session.projection else { return Ok(0) };
        let (events, agent_id) = (projection.events, projection.agent_id().to_owned());
        let mut covers = session.meta.covered.clone();
        covers.union(&self.store.version);
        let event = NewEvent {
            session_key: name.to_owned(),
            agent_id,
            kind: SESSION_DELETED.into(),
            data: format!("{{\"covers\":{}}}", covers.to_json()),
            timestamp_ms: None,
            id: None,
        };
        let now = self.time.now_ms();
        let tombstone = self.write(group, event, now)?;
        self.cover(group, &tombstone, &covers, true)?;
        Ok(events)
    }

    /// Stages the end of a session here, without a trace for other replicas.
    pub(super) fn prune(&mut self, group: &mut Group, name: &str) -> Result<Pruned> {
        self.load(name)?;
        let Some(session) = self.sessions.get(name) else { return Ok(Pruned::default()) };
        if session.projection.is_none() {
            return Ok(Pruned::default());
        }
        let last = session.meta.last_seq;
        group.batch.put(keys::garbage(name), Vec::new());
        let (events, bytes) = self.clear(group, name, last)?;
        Ok(Pruned { sessions: 1, events, bytes })
    }

    /// Applies the group. Afterwards readers see it; it is not yet on the disk.
    pub(super) fn commit(&mut self, group: &mut Group) -> Result<()> {
        let mut group = std::mem::take(group);
        for name in &group.touched {
            let Some(session) = self.sessions.get_mut(name) else { continue };
            session.touched = false;
            group.batch.put(keys::meta(name), record::session(name, &session.meta)?);
            let last_ms = session.projection.as_ref().map(|projection| projection.last_ms);
            match &session.projection {
                Some(projection) => put(&mut group.batch, keys::projection(name), projection)?,
                None => group.batch.remove(keys::projection(name)),
            }
            if last_ms != session.indexed {
                if let Some(before) = session.indexed {
                    group.batch.remove(keys::recency(before, name));
                }
                if let Some(now) = last_ms {
                    group.batch.put(keys::recency(now, name), Vec::new());
                }
                session.indexed = last_ms;
            }
        }
        let ends: Vec<(String, Tail)> = std::mem::take(&mut group.touched)
            .into_iter()
            .map(|name| {
                let tail = self.sessions.get(&name).map_or_else(Tail::default, |session| session.meta.tail());
                (name, tail)
            })
            .collect();
        put(&mut group.batch, keys::STORE.to_vec(), &self.store)?;
        if !group.first.0.is_empty() {
            self.apply(group.first)?;
        }
        self.apply(group.batch)?;
        if let Some((name, tail)) = ends.last() {
            self.latest = Some((name.clone(), tail.last_seq));
        }
        self.tails.extend(ends);
        for name in group.dirty {
            self.fold_anew(&name)?;
        }
        if self.sessions.len() > CACHED_SESSIONS {
            self.sessions.clear();
        }
        Ok(())
    }

    fn apply(&mut self, batch: Batch) -> Result<()> {
        if let Some(mirror) = self.mirror.as_mut().filter(|mirror| mirror.failed.is_none()) {
            let copied = batch.0.iter().filter(|(key, _)| *key < mirror.copied).cloned().collect();
            mirror.failed = mirror.target.commit(Batch(copied)).err();
        }
        self.storage.commit(batch)
    }

    /// Events of a session that gave way to a twin which is now dead come back.
    fn revive(&mut self, name: &str) -> Result<()> {
        let mut waiting = Vec::new();
        for key in self.shadows(name)? {
            if let Some(Slot::Event(event)) = record::get(&*self.storage, &key)? {
                waiting.push((key, event));
            }
        }
        waiting.sort_unstable_by(|(_, a), (_, b)| {
            (a.clock, &a.origin.replica).cmp(&(b.clock, &b.origin.replica))
        });
        for (key, mut event) in waiting {
            self.load(name)?;
            self.load_state(name, if event.kind == "state_changed" { &event.data } else { "" })?;
            let covered = self
                .sessions
                .get(name)
                .is_some_and(|session| session.meta.covered.contains(&event.origin.replica, event.n));
            let id = keys::id(name, &event.id);
            if covered
                || find_in_session(&*self.storage, &self.store.version, name, &event.id, &id)?.is_some()
            {
                continue;
            }
            let mut group = Group::default();
            let body = record::encode(&event.body())?;
            record::remove(&mut group.batch, key, &event);
            group.batch.remove(keys::shadowed(name, &event.origin.replica, event.n));
            // It gets a place of its own: the run it was in goes on behind it.
            let next = event.n + 1;
            if let Some(arrival) = indexed_arrival(&*self.storage, &event.origin.replica, next)? {
                group.batch.put(keys::origin(&event.origin.replica, next), arrival.to_be_bytes().to_vec());
            }
            self.runs.remove(&event.origin.replica);
            self.take_in(&mut group, &mut event, &body)?;
            self.runs.remove(&event.origin.replica);
            self.commit(&mut group)?;
        }
        Ok(())
    }

    /// The keys of the records of a session's events that gave way to twins.
    fn shadows(&self, name: &str) -> Result<Vec<Vec<u8>>> {
        let (from, to) = keys::shadows(name);
        let skip = from.len();
        self.storage.scan(from, to, false).map(|pair| Ok(pair?.0.split_off(skip))).collect()
    }

    /// Makes a session's projection and state from its events.
    fn fold_anew(&mut self, name: &str) -> Result<()> {
        self.sessions.remove(name);
        self.revive(name)?;
        self.sessions.remove(name);
        self.load(name)?;
        let meta = self.sessions.get(name).map(|session| session.meta.clone()).unwrap_or_default();
        let fold = fold(&*self.storage, name, &meta)?;
        let mut batch = Batch::default();
        let (from, to) = keys::states(name);
        for pair in self.storage.scan(from, to, false) {
            let (key, _) = pair?;
            if !keys::read_state(name, &key).is_ok_and(|key| fold.state.contains_key(key)) {
                batch.remove(key);
            }
        }
        for (key, register) in &fold.state {
            put(&mut batch, keys::state(name, key), register)?;
        }
        batch.remove(keys::dirty(name));
        let session = self.sessions.get_mut(name).ok_or_else(|| unloaded(name))?;
        let before = session.projection.as_ref().map_or(0, |projection| projection.events);
        let now = fold.projection.as_ref().map_or(0, |projection| projection.events);
        self.store.events = (self.store.events + now).saturating_sub(before);
        self.store.sessions =
            (self.store.sessions + u64::from(now > 0)).saturating_sub(u64::from(before > 0));
        self.store.bytes = (self.store.bytes + fold.bytes).saturating_sub(session.meta.bytes);
        session.meta.bytes = fold.bytes;
        session.projection = fold.projection;
        let mut group = Group { batch, ..Group::default() };
        touch(&mut group, session, name);
        self.commit(&mut group)
    }

    /// Removes some of what deletions and retention have left. False if there is nothing more.
    pub(super) fn collect_garbage(&mut self, group: &mut Group) -> Result<bool> {
        let (name, from) = if let Some(begun) = self.garbage.take() {
            begun
        } else {
            let (from, to) = keys::all(b'g', "");
            match self.storage.scan(from, to, false).next() {
                Some(pair) => (keys::read_plain(&pair?.0)?.to_owned(), 0),
                None => return Ok(false),
            }
        };
        self.load(&name)?;
        let meta = self.sessions.get(&name).map(|session| session.meta.clone()).unwrap_or_default();
        // What arrives next begins a run of its own: the first of this one may go.
        self.arrived = None;
        let reach = Slots::new(&*self.storage, &name, from, meta.last_seq + 1).take(GARBAGE_STEP + RUN);
        let mut live = None;
        for slot in reach {
            if let (seq, Slot::Event(event)) = slot?
                && meta.is_live(&event)
                && live.replace(seq) != seq.checked_sub(1)
            {
                // It may be in the run of one that goes now.
                group.first.put(keys::arrival(event.arrival), keys::place(&name, seq));
            }
        }
        let mut seen = 0;
        for slot in Slots::new(&*self.storage, &name, from, meta.last_seq + 1) {
            let (seq, slot) = slot?;
            seen += 1;
            match slot {
                Slot::Event(event) if !meta.is_live(&event) => {
                    let key = keys::event(&name, seq);
                    if seq <= meta.floor {
                        record::remove(&mut group.batch, key, &event);
                    } else {
                        record::erase(&mut group.batch, key, &event)?;
                    }
                    group.batch.remove(keys::arrival(event.arrival));
                    let id = keys::id(&name, &event.id);
                    if self.storage.get(&id)?.is_some_and(|place| place == keys::place(&name, seq)) {
                        group.batch.remove(id);
                    }
                }
                Slot::Removed if seq <= meta.floor => group.batch.remove(keys::event(&name, seq)),
                _ => {}
            }
            if seen == GARBAGE_STEP {
                self.garbage = Some((name.clone(), seq + 1));
                return Ok(true);
            }
        }
        group.batch.remove(keys::garbage(&name));
        Ok(true)
    }

    /// The session, read from the storage if it is not at hand.
    fn load(&mut self, name: &str) -> Result<()> {
        if self.sessions.contains_key(name) {
            return Ok(());
        }
        let meta = read(&*self.storage, &keys::meta(name))?.unwrap_or_default();
        let projection: Option<Projection> = read(&*self.storage, &keys::projection(name))?;
        let indexed = projection.as_ref().map(|projection| projection.last_ms);
        let session = Session { meta, projection, indexed, ..Session::default() };
        self.sessions.insert(name.to_owned(), session);
        Ok(())
    }

    /// The cells of the state that an event will write.
    fn load_state(&mut self, name: &str, data: &str) -> Result<()> {
        let keys: BTreeMap<String, &RawValue> = serde_json::from_str(data).unwrap_or_default();
        let session = self.sessions.get_mut(name).ok_or_else(|| unloaded(name))?;
        for key in keys.into_keys() {
            if let Entry::Vacant(unread) = session.state.entry(key) {
                let cell = read(&*self.storage, &keys::state(name, unread.key()))?;
                unread.insert(cell);
            }
        }
        Ok(())
    }

    /// An event that is known must be the one that is known.
    fn refuse_fork(&mut self, group: &mut Group, event: &StoredEvent) -> Result<()> {
        if group.events > 0 {
            self.commit(group)?;
        }
        let known = find_by_origin(&*self.storage, &event.origin.replica, event.n)?;
        if known.is_some_and(|known| known.hash != event.hash) {
            return Err(invalid(format!(
                "event {} of replica `{}` is another one here: two stores write under one name, as when a store is \
                 copied. Give one of them a replica name of its own",
                event.n, event.origin.replica
            )));
        }
        Ok(())
    }
}

impl SessionMeta {
    pub(super) fn tail(&self) -> Tail {
        Tail { last_seq: self.last_seq, floor: self.floor }
    }

    pub(super) fn follow_chain(&mut self, event: &StoredEvent) {
        let tail = self.tails.get_mut(&*event.origin.replica);
        match tail {
            Some(tail) if tail.0 < event.n => *tail = (event.n, event.hash),
            Some(_) => {}
            None => {
                self.tails.insert(event.origin.replica.to_string(), (event.n, event.hash));
            }
        }
    }
}

fn touch(group: &mut Group, session: &mut Session, name: &str) {
    if !session.touched {
        session.touched = true;
        group.touched.push(name.to_owned());
    }
}

/// Events of one origin that arrive one after the other are a run, of which the index holds the first.
fn index_origin(runs: &mut HashMap<Arc<str>, (u64, u64)>, batch: &mut Batch, event: &StoredEvent) {
    let latest = (event.n, event.arrival);
    let before = match runs.get_mut(&event.origin.replica) {
        Some(run) => Some(std::mem::replace(run, latest)),
        None => runs.insert(Arc::clone(&event.origin.replica), latest),
    };
    if before != Some((latest.0 - 1, latest.1 - 1)) {
        batch.put(keys::origin(&event.origin.replica, event.n), event.arrival.to_be_bytes().to_vec());
    }
}

/// The version vector that a deletion covers.
pub(super) fn covers(data: &str) -> Result<VersionVector> {
    #[derive(Deserialize)]
    struct Deletion<'a> {
        #[serde(borrow)]
        covers: &'a RawValue,
    }
    let deletion: Deletion<'_> = serde_json::from_str(data)
        .map_err(|error| invalid(format!("a deletion does not say what it covers: {error}")))?;
    VersionVector::from_json(deletion.covers.get())
}

/// What a session's live events amount to.
#[derive(Default)]
pub(super) struct Fold {
    pub(super) projection: Option<Projection>,
    pub(super) state: BTreeMap<String, Register>,
    pub(super) bytes: u64,
}

impl Fold {
    pub(super) fn new() -> Self {
        Self { projection: None, state: BTreeMap::new(), bytes: 0 }
    }

    pub(super) fn add(&mut self, event: &StoredEvent, bytes: u64) {
        if event.kind == SESSION_DELETED {
            return;
        }
        self.bytes += bytes;
        self.projection.get_or_insert_default().add(event);
        for (key, register) in state_changes(event) {
            if self.state.get(&key).is_none_or(|cell| cell.yields_to(event)) {
                self.state.insert(key, register);
            }
        }
    }
}

fn fold(storage: &dyn Storage, name: &str, meta: &SessionMeta) -> Result<Fold> {
    let mut fold = Fold::new();
    for slot in Slots::new(storage, name, meta.floor + 1, meta.last_seq + 1) {
        if let (_, Slot::Event(event)) = slot?
            && meta.is_live(&event)
        {
            fold.add(&event, record::bytes(&event)?);
        }
    }
    Ok(fold)
}

fn unloaded(session: &str) -> CoreError {
    CoreError::new(Code::Internal, format!("session `{session}` was not loaded"))
}
