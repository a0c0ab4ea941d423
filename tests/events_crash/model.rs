//! What a store was told and has acknowledged, and whether it has it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use openclaw_core::events::{EventStore, Range, SESSION_DELETED, StoredEvent};
use tokio_util::sync::CancellationToken;

use super::work::{self, Plan};
use super::{Random, open, wait};

/// How many of the peer's events are in one of its changes, and how many changes there are.
const PEER_STEP: usize = 7;
const PEER_STEPS: u64 = 400;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Acknowledged {
    seq: u64,
    id: String,
    hash: String,
}

/// What was acknowledged.
#[derive(Clone, Default)]
pub(crate) struct Model {
    sessions: BTreeMap<String, Vec<Acknowledged>>,
    /// Deletions that were asked for and not acknowledged: how many events each would delete.
    deleting: Vec<usize>,
    /// Ids that were acknowledged as deleted.
    deleted: BTreeSet<String>,
    /// What the store says it lost: session and number, of what was not acknowledged as on the disk.
    pub(crate) lost: BTreeSet<(String, u64)>,
    note: Option<u64>,
    merged: u64,
    pub(crate) acknowledged: u64,
}

impl Model {
    /// Takes in what a child said.
    pub(crate) fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        self.acknowledged += 1;
        match *words {
            ["a", session, seq, id, hash] => {
                let one = Acknowledged { seq: seq.parse().unwrap(), id: id.into(), hash: hash.into() };
                self.sessions.entry(session.into()).or_default().push(one);
            }
            ["deleting", _] => {
                self.deleting.push(self.sessions.get("gone").map_or(0, Vec::len));
                self.acknowledged -= 1;
            }
            ["deleted", session] => {
                self.deleting.clear();
                let gone = self.sessions.remove(session).unwrap_or_default();
                self.deleted.extend(gone.into_iter().map(|one| one.id));
            }
            ["note", value] => self.note = Some(value.parse().unwrap()),
            ["merged", step] => self.merged = step.parse().unwrap(),
            _ => self.acknowledged -= 1,
        }
    }

    /// How the next child is to go on.
    pub(crate) fn plan(&self, seed: u64, millis: u64) -> Plan {
        Plan { seed, millis, merge: self.merged + 1, note: self.note.unwrap_or(0) + 1, interval: 0 }
    }

    /// What came later may have deleted any part of the session whose events are deleted.
    pub(crate) fn may_be_deleted(&mut self) {
        let events = self.sessions.get("gone").map_or(0, Vec::len);
        self.deleting.extend(1..=events);
    }

    /// Whether event `seq` of a session was acknowledged.
    pub(crate) fn has(&self, session: &str, seq: u64) -> bool {
        self.sessions.get(session).is_some_and(|events| events.iter().any(|one| one.seq == seq))
    }

    /// Compares with the store. Reads only what came after the last look, unless `all`.
    pub(crate) fn check(&mut self, store: &EventStore, all: bool) -> Result<(), String> {
        let names: Vec<String> = self.sessions.keys().cloned().collect();
        for session in names.iter().filter(|name| *name != "gone") {
            let known = &self.sessions[session];
            let after = if all { 0 } else { known.len().saturating_sub(200) };
            let after = if after == 0 { 0 } else { known[after].seq };
            let events = read(store, session, after)?;
            present(session, known.iter().filter(|one| one.seq > after), &events)?;
            self.dense(session, after, &events)?;
            self.sound(session, &events, after == 0)?;
        }
        self.check_deletions(store)?;
        self.check_merges(store)?;
        let note = store.note("cursor").map_err(|error| format!("note: {error}"))?;
        let note = note.map(|bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
        if note < self.note {
            return Err(format!("the note is {note:?}, {:?} was acknowledged", self.note));
        }
        Ok(())
    }

    fn check_deletions(&mut self, store: &EventStore) -> Result<(), String> {
        let events = read(store, "gone", 0)?;
        self.sound("gone", &events, false)?;
        let known = self.sessions.remove("gone").unwrap_or_default();
        let fits = |deleted: usize| {
            present("gone", known.iter().skip(deleted), &events)?;
            match known.iter().take(deleted).find(|one| events.iter().any(|event| event.seq == one.seq)) {
                Some(one) => Err(format!("gone: event {} was deleted, and others with it were", one.seq)),
                None => Ok(()),
            }
        };
        // A deletion that was asked for may have been done.
        let asked = std::mem::take(&mut self.deleting);
        let deleted = match asked.into_iter().find(|deleted| *deleted > 0 && fits(*deleted).is_ok()) {
            Some(deleted) => deleted,
            None => fits(0).map(|()| 0)?,
        };
        let rest = known.get(deleted..).unwrap_or_default().to_vec();
        self.deleted.extend(known.into_iter().take(deleted).map(|one| one.id));
        self.sessions.insert("gone".into(), rest);
        if let Some(back) = events.iter().find(|event| self.deleted.contains(&event.id)) {
            return Err(format!("{} was deleted and is there again", back.id));
        }
        for id in self.deleted.iter().rev().take(20) {
            if store.find(id).map_err(|error| format!("find {id}: {error}"))?.is_some() {
                return Err(format!("{id} was deleted and is found"));
            }
        }
        Ok(())
    }

    fn check_merges(&self, store: &EventStore) -> Result<(), String> {
        let wanted = self.merged * PEER_STEP as u64;
        let version = store.version().map_err(|error| error.to_string())?;
        if wanted > 0 && !version.covers_through("peer", wanted) {
            return Err(format!("the peer's events up to {wanted} are not all known: {version:?}"));
        }
        let mut found = 0;
        for session in ["peer0", "peer1"] {
            let events = read(store, session, 0)?;
            self.dense(session, 0, &events)?;
            self.sound(session, &events, false)?;
            found += events.iter().filter(|event| event.n <= wanted).count() as u64;
        }
        if found == wanted { Ok(()) } else { Err(format!("{found} of {wanted} merged events are there")) }
    }

    /// Reads everything, and lets the store check itself.
    pub(crate) fn check_whole(&mut self, store: &EventStore) -> Result<(), String> {
        self.check(store, true)?;
        let verified = store.verify(&CancellationToken::new()).map_err(|error| format!("verify: {error}"))?;
        match verified.problems.first() {
            None => Ok(()),
            Some(_) => Err(format!("verify: {:?}", &verified.problems[..verified.problems.len().min(5)])),
        }
    }

    /// Every number is there, from the first on, or named as lost.
    fn dense(&self, session: &str, after: u64, events: &[StoredEvent]) -> Result<(), String> {
        let mut seq = after;
        for event in events {
            seq += 1;
            while self.lost.contains(&(session.to_owned(), seq)) {
                seq += 1;
            }
            if event.seq != seq {
                return Err(format!("{session}: event {seq} is missing, {} is there", event.seq));
            }
        }
        Ok(())
    }

    /// No event twice, each with its own data, in the order in which they were written, batches as a whole.
    fn sound(&self, session: &str, events: &[StoredEvent], from_start: bool) -> Result<(), String> {
        let gaps = self.lost.iter().any(|(of, _)| of == session);
        let from_start = from_start && !gaps;
        let mut seen = BTreeSet::new();
        let mut latest: HashMap<&str, u64> = HashMap::new();
        let mut batches: HashMap<&str, (usize, usize)> = HashMap::new();
        for event in events {
            let place = || format!("{session}: event {} `{}`", event.seq, event.id);
            if !seen.insert(&event.id) {
                return Err(format!("{} is there twice", place()));
            }
            if event.data != work::data(&event.id) || event.kind == SESSION_DELETED {
                return Err(format!("{} holds what was never written", place()));
            }
            let mut parts = event.id.split('.');
            let (run, _, n) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
            let n: u64 = n.parse().unwrap();
            let before = latest.insert(run, n);
            match before {
                Some(before) if gaps && (n > before || (n == before && session == "batch")) => {}
                Some(before) if n != before + 1 && !(n == before && session == "batch") => {
                    return Err(format!("{} follows {before}", place()));
                }
                None if from_start && n != 1 => return Err(format!("{} is the first of its run", place())),
                _ => {}
            }
            if let Some((i, count)) = parts.next().and_then(|part| part.split_once("of")) {
                let (i, count): (usize, usize) = (i.parse().unwrap(), count.parse().unwrap());
                let batch = event.id.rsplit_once('.').unwrap().0;
                let entry = batches.entry(batch).or_insert((0, count));
                entry.0 += 1;
                if from_start && entry.0 != i {
                    return Err(format!("{} is out of order in its batch", place()));
                }
            }
        }
        if from_start
            && let Some((batch, (there, count))) = batches.iter().find(|(_, (there, count))| there != count)
        {
            return Err(format!("{there} of the {count} events of batch {batch} are there"));
        }
        Ok(())
    }
}

fn read(store: &EventStore, session: &str, after: u64) -> Result<Vec<StoredEvent>, String> {
    let range = Range { after: Some(after), ..Range::default() };
    store.read(session, &range).map_err(|error| format!("read {session}: {} {error}", error.code()))
}

/// What was acknowledged is there, as it was acknowledged.
fn present<'a>(
    session: &str,
    known: impl Iterator<Item = &'a Acknowledged>,
    events: &[StoredEvent],
) -> Result<(), String> {
    let events: HashMap<u64, &StoredEvent> = events.iter().map(|event| (event.seq, event)).collect();
    for one in known {
        match events.get(&one.seq) {
            None => return Err(format!("{session}: event {} was acknowledged and is not there", one.seq)),
            Some(event) if event.id != one.id || work::hash(event) != one.hash => {
                return Err(format!("{session}: event {} is {} and not {one:?}", one.seq, event.id));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Writes the changes of a peer into files, numbered from 1.
pub(crate) fn peer(folder: &Path) {
    let home = super::folder();
    let options = openclaw_core::events::Options {
        replica: Some("peer".into()),
        durability: openclaw_core::events::Durability::Interval(std::time::Duration::from_secs(60)),
        ..super::options()
    };
    let store = EventStore::open(home.path(), options).unwrap();
    let mut random = Random::new(5);
    std::fs::create_dir_all(folder).unwrap();
    let (mut since, mut counts) = (store.version().unwrap(), [0, 0]);
    for step in 1..=PEER_STEPS {
        let events = (0..PEER_STEP).map(|_| {
            let session = random.below(2);
            counts[session] += 1;
            work::event(&format!("peer{session}"), &format!("0.peer{session}.{}", counts[session]))
        });
        wait(store.append_batch(events.collect())).unwrap();
        std::fs::write(folder.join(step.to_string()), store.changes(&since, None).unwrap()).unwrap();
        since = store.version().unwrap();
    }
    store.close_blocking().unwrap();
}

/// Opens the store of a folder and compares.
pub(crate) fn check(folder: &Path, model: &mut Model, whole: bool) -> Result<(), String> {
    let store = open(&folder.join("store"));
    let checked = if whole { model.check_whole(&store) } else { model.check(&store, false) };
    store.close_blocking().map_err(|error| format!("close: {error}"))?;
    checked
}
