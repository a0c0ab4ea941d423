//! Opening what is there, whatever became of it.
//!
//! The log is the truth, and everything else follows from it: a store whose derived data are damaged, or of an older
//! format, is written anew from its records. Where the database itself cannot be read, the records are found in its
//! files by their marks and checksums. What cannot be saved is noted, session by session, for `verify` to tell; the
//! damaged files are put aside as they are.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::derived::{put, read, unsealed};
use super::event::{SESSION_DELETED, StoredEvent};
use super::files::{self, Description, FORMAT, Progress};
use super::keys;
use super::log::{Fold, SessionMeta, StoreMeta, covers};
use super::lookup::{self, Arrivals, Run, index_arrival};
use super::record::{self, PART, RECORD, Slot};
use super::sled::{Sled, UNSYNCED};
use super::sled_log;
use super::storage::{Batch, Storage};
use super::verify;
use super::version::VersionVector;
use crate::{Code, CoreError, Result};

/// The latest events, which are looked at when a store was not closed.
const TAIL: u64 = 1024;

/// Writes of one batch.
const BATCH: usize = 512;

/// A copy of sled's file, from before sled has opened it.
const BEFORE: &str = "db.before";

/// Lost events of one session that are noted one by one.
const NOTED: u64 = 10_000;

/// Opens the current generation, or makes one that can be opened. Its number.
pub(super) fn open(
    folder: &Path,
    replica: &str,
    progress: &Progress,
    cache_bytes: u64,
) -> Result<(u64, Arc<dyn Storage>)> {
    let Some(number) = files::current(folder)? else {
        if progress.arrivals > 0 {
            return Err(CoreError::new(
                Code::StoreCorrupt,
                format!(
                    "the event store {} has held {} events, and its database is gone",
                    folder.display(),
                    progress.arrivals
                ),
            )
            .in_file(folder));
        }
        let storage = Sled::open(&files::generation(folder, 1), cache_bytes)?;
        storage.sync()?;
        files::sync_folder(&files::generation(folder, 1))?;
        files::switch(folder, 1)?;
        return Ok((1, Arc::new(storage)));
    };
    // From here on this is the one, whatever else begins to be written.
    if !files::is_current(folder, number) {
        files::sync_folder(&files::generation(folder, number))?;
        files::switch(folder, number)?;
    }
    if !progress.closed {
        // The name may have been given by a process that failed before it was on the disk.
        files::sync_folder(folder)?;
    }
    // What an interrupted compaction or repair has left.
    for other in files::generations(folder)?.into_iter().filter(|other| *other != number) {
        let _ = fs::remove_dir_all(files::generation(folder, other));
    }
    let generation = files::generation(folder, number);
    let examined = sled_log::examine(&generation)?;
    let (db, before) = (generation.join("db"), generation.join(BEFORE));
    if examined.damaged {
        keep(&db, &before)?;
    }
    let mut opened = attempt(&generation, progress, cache_bytes);
    // sled's snapshot only spares it reading its log, and its `conf` says what is the same in every store: without
    // them, nothing is missing.
    if let Err(error) = &opened
        && error.code() == Code::StoreCorrupt
    {
        tracing::warn!(%error, "the event store cannot be opened as it is");
        // What sled does without them is not always for the better.
        if !before.exists() {
            keep(&db, &before)?;
        }
    }
    if opened.as_ref().is_err_and(|error| error.code() == Code::StoreCorrupt) && set_aside(&generation) {
        opened = attempt(&generation, progress, cache_bytes);
    }
    if let Ok(storage) = &opened
        && examined.damaged
    {
        // The end of a crash may look so too, and then all that there is fits together.
        if progress.closed || !verify::verify_storage(&**storage).problems.is_empty() {
            let why = "its log breaks off in the midst";
            opened = Err(CoreError::new(Code::StoreCorrupt, why).in_file(&db));
        }
    }
    let problem = match opened {
        Ok(storage) if generation.join(UNSYNCED).exists() => {
            let source = Source::Readable(&*storage);
            let rebuilt = rebuild(folder, number, source, replica, progress, cache_bytes)?;
            drop(storage);
            let _ = fs::remove_dir_all(generation);
            return Ok(rebuilt);
        }
        Ok(storage) => {
            let _ = fs::remove_file(before);
            return Ok((number, storage));
        }
        Err(error) if error.code() != Code::StoreCorrupt => return Err(error),
        Err(error) => error,
    };
    tracing::error!(error = %problem, "the event store is damaged; its records are being saved");
    if !examined.tail.is_empty() {
        let tail = generation.join("db.tail");
        fs::write(&tail, &examined.tail).map_err(|error| CoreError::io("write", &tail, error))?;
    }
    // What sled can still read adds to what is found.
    let readable = Sled::open(&generation, cache_bytes).ok();
    let readable = readable.as_ref().map(|sled| sled as &dyn Storage);
    rebuild(folder, number, Source::Damaged(readable), replica, progress, cache_bytes)
}

/// Opens a generation and looks whether it holds what it must.
fn attempt(generation: &Path, progress: &Progress, cache_bytes: u64) -> Result<Arc<dyn Storage>> {
    let storage: Arc<dyn Storage> = Arc::new(Sled::open(generation, cache_bytes)?);
    let store: StoreMeta = read(&*storage, keys::STORE)?.unwrap_or_default();
    if store.arrivals < progress.arrivals {
        let message = format!(
            "the last {} events, up to event {} of session `{}`, are missing from the database",
            progress.arrivals - store.arrivals,
            progress.seq,
            progress.session
        );
        return Err(CoreError::new(Code::StoreCorrupt, message).in_file(generation));
    }
    let from = store.arrivals.saturating_sub(if progress.closed { 16 } else { TAIL });
    for arrival in Arrivals::new(&*storage, from + 1, store.arrivals + 1) {
        let arrival = arrival?;
        let (session, seq) = (&*arrival.session, arrival.seq);
        let event = arrival.event(&*storage)?;
        if event.as_ref().is_some_and(|event| !record::hash_is_right(event)) {
            return Err(lookup::at_place(&record::damaged("its hash is wrong"), session, seq));
        }
        if event.is_some() || arrival.first {
            let meta: Option<SessionMeta> = read(&*storage, &keys::meta(session))?;
            if meta.is_none_or(|meta| meta.last_seq < seq) {
                return Err(lookup::at_place(&record::damaged("its session is not known"), session, seq));
            }
        }
    }
    if !progress.closed {
        // What a killed process has written is seen from now on: a power cut must not take it back.
        storage.sync()?;
    }
    Ok(storage)
}

/// Copies sled's file, if there is one: a power cut may have come between sled's first two files.
fn keep(db: &Path, before: &Path) -> Result<()> {
    match fs::copy(db, before) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(CoreError::io("copy", db, error)),
        _ => Ok(()),
    }
}

fn set_aside(generation: &Path) -> bool {
    let Ok(entries) = fs::read_dir(generation) else { return false };
    let mut found = false;
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("snap.") || name == "conf" {
            found |= fs::rename(&path, path.with_file_name(format!("damaged-{name}"))).is_ok();
        }
    }
    found
}

/// Brings a store of an older format up to date: a copy first, then everything anew from the records.
pub(super) fn migrate(folder: &Path, found: &Description) -> Result<()> {
    // What format 2 wrote is read as it is.
    if found.format < 2
        && let Some(number) = files::current(folder)?
    {
        let copy = folder.join(format!("before-format-{FORMAT}"));
        let _ = fs::remove_dir_all(&copy);
        files::copy_folder(&files::generation(folder, number), &copy)?;
        files::sync_folder(folder)?;
        let storage = Sled::open(&files::generation(folder, number), 16 << 20)?;
        let progress = files::Head::read(folder).unwrap_or_default();
        rebuild(folder, number, Source::Readable(&storage), &found.replica, &progress, 16 << 20)?;
    }
    Description::new(&found.replica).write(folder)
}

/// What a generation is written anew from.
#[derive(Clone, Copy)]
pub(super) enum Source<'s> {
    /// What the database holds; if that turns out to be damaged, as the other.
    Readable(&'s dyn Storage),
    /// The records that are found in the files, and what the database can still read, if anything.
    Damaged(Option<&'s dyn Storage>),
}

/// Writes the next generation from the records of this one, and makes it the current one. If this one is damaged, its
/// files are put aside.
pub(super) fn rebuild(
    folder: &Path,
    number: u64,
    source: Source<'_>,
    replica: &str,
    progress: &Progress,
    cache_bytes: u64,
) -> Result<(u64, Arc<dyn Storage>)> {
    let fresh = |ahead: u64| -> Result<(u64, PathBuf, Sled)> {
        let path = files::generation(folder, number + ahead);
        let _ = fs::remove_dir_all(&path);
        let storage = Sled::open(&path, cache_bytes)?;
        Ok((number + ahead, path, storage))
    };
    let (mut next, mut path, mut target) = fresh(1)?;
    let damaged = match source {
        Source::Damaged(readable) => Some(readable),
        Source::Readable(source) => {
            match (Rebuild { source, target: &target, replica, progress, salvaged: false }).run() {
                Ok(()) => None,
                Err(error) if error.code() != Code::StoreCorrupt => return Err(error),
                Err(error) => {
                    tracing::error!(%error, "the event store cannot be read as a whole; its records are being saved");
                    Some(Some(source))
                }
            }
        }
    };
    if let Some(readable) = damaged {
        drop(target);
        let (_, carved_path, carved) = fresh(2)?;
        carve(&files::generation(folder, number), &carved)?;
        if let Some(readable) = readable {
            overlay(readable, &carved)?;
        }
        (next, path, target) = fresh(3)?;
        (Rebuild { source: &carved, target: &target, replica, progress, salvaged: true }).run()?;
        drop(carved);
        let _ = fs::remove_dir_all(carved_path);
        let _ = fs::remove_dir_all(files::generation(folder, number + 1));
    }
    target.sync()?;
    files::sync_folder(&path)?;
    files::switch(folder, next)?;
    if damaged.is_some() {
        // An open database keeps its descriptors; on Windows it is put aside at the next opening.
        match files::quarantine(folder, number) {
            Ok(shelf) => tracing::warn!(folder = %shelf.display(), "the damaged files were put aside"),
            Err(error) => tracing::warn!(%error, "the damaged files could not be put aside"),
        }
    }
    Ok((next, Arc::new(target)))
}

/// Adds what a damaged database can still read to what was found in its files, and over it.
fn overlay(readable: &dyn Storage, target: &dyn Storage) -> Result<()> {
    for tag in *b"Meqxymn" {
        let mut batch = Batch::default();
        for pair in readable.scan(vec![tag], vec![tag + 1], false) {
            // Behind what cannot be read nothing else is.
            let Ok((key, value)) = pair else { break };
            let older = tag == b'm' && !later_session(&value, target.get(&key)?.as_deref());
            if !older {
                batch.put(key, value);
            }
            if batch.0.len() >= BATCH {
                target.commit(std::mem::take(&mut batch))?;
            }
        }
        target.commit(batch)?;
    }
    Ok(())
}

/// Whether one record of what is known of a session comes after another.
fn later_session(value: &[u8], before: Option<&[u8]>) -> bool {
    let order = |value: &[u8]| {
        let session: Option<SessionMeta> = unsealed(value).ok();
        session.map(|session| (session.last_seq, session.floor))
    };
    before.is_none_or(|before| order(value) >= order(before))
}

/// Finds the records in the files of a database, whatever else is in them.
fn carve(generation: &Path, target: &dyn Storage) -> Result<()> {
    let mut files = vec![generation.join(BEFORE), generation.join("db.tail"), generation.join("db")];
    if let Ok(blobs) = fs::read_dir(generation.join("blobs")) {
        files.extend(blobs.filter_map(|blob| Some(blob.ok()?.path())));
    }
    let mut parts: HashMap<[u8; 32], BTreeMap<u16, Vec<u8>>> = HashMap::new();
    let mut heads: Vec<(Vec<u8>, [u8; 32])> = Vec::new();
    for file in files.iter().filter(|file| file.exists()) {
        each_window(file, |bytes, fresh| {
            let mut batch = Batch::default();
            for at in memchr::memmem::find_iter(bytes, b"\xF5o").take_while(|at| *at < fresh) {
                let Some(bytes) = bytes.get(at..) else { continue };
                if let Some(content) = record::content(PART, bytes)
                    && let Some((hash, number)) = record::read_part(content)
                {
                    parts.entry(hash).or_default().insert(number, whole(bytes, content));
                } else if let Some(content) = record::content(RECORD, bytes)
                    && let Some((session, seq, hash, complete)) = record::read_head(content)
                {
                    let key = keys::event(session, seq);
                    if !complete {
                        heads.push((key.clone(), hash));
                    }
                    place(target, &mut batch, key, whole(bytes, content))?;
                } else if let Some((_, name)) = record::read_session::<SessionMeta>(bytes) {
                    let (key, value) = (keys::meta(name), record::session_bytes(bytes));
                    let staged = batch.0.iter().rev().find(|(staged, _)| *staged == key);
                    let before = match staged {
                        Some((_, staged)) => staged.clone(),
                        None => target.get(&key)?,
                    };
                    if later_session(value, before.as_deref()) {
                        batch.put(key, value.to_vec());
                    }
                }
            }
            target.commit(batch)
        })?;
    }
    for (key, hash) in heads {
        let mut batch = Batch::default();
        for (number, part) in parts.get(&hash).into_iter().flatten() {
            batch.put(keys::part(&key, *number), part.clone());
        }
        target.commit(batch)?;
    }
    Ok(())
}

fn whole(bytes: &[u8], content: &[u8]) -> Vec<u8> {
    bytes.get(..record::HEADER_BYTES + content.len()).unwrap_or_default().to_vec()
}

/// Puts a record that was found at its place. Of two, the later writing of one replica counts, and of two replicas'
/// the earlier by (clock, replica), as in a merge.
fn place(target: &dyn Storage, batch: &mut Batch, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
    let staged = batch.0.iter().rev().find(|(staged, _)| *staged == key).and_then(|(_, value)| value.clone());
    let before = match staged {
        Some(staged) => Some(staged),
        None => target.get(&key)?,
    };
    if before.as_ref().is_none_or(|before| *before != value && counts_over(&value, before)) {
        batch.put(key, value);
    }
    Ok(())
}

fn counts_over(value: &[u8], before: &[u8]) -> bool {
    let order = |value| record::content(RECORD, value).and_then(record::read_order);
    match (order(value), order(before)) {
        (Some((replica, clock)), Some((other, earlier))) if replica == other => clock > earlier,
        (Some(new), Some(old)) => (new.1, &new.0) < (old.1, &old.0),
        (new, _) => new.is_some(),
    }
}

/// Reads a file in windows that overlap by more than a value; `fresh` is where the next window begins.
fn each_window(path: &Path, mut look: impl FnMut(&[u8], usize) -> Result<()>) -> Result<()> {
    const WINDOW: usize = 8 << 20;
    const OVERLAP: usize = 64 << 10;
    let io = |error| CoreError::io("read", path, error);
    let mut file = File::open(path).map_err(io)?;
    let mut window = Vec::with_capacity(WINDOW + OVERLAP);
    loop {
        let missing = (WINDOW + OVERLAP).saturating_sub(window.len());
        let got = file.by_ref().take(missing as u64).read_to_end(&mut window).map_err(io)?;
        if got < missing {
            return look(&window, window.len());
        }
        look(&window, WINDOW)?;
        window.drain(..WINDOW);
    }
}

/// Writes a whole store from the records of another.
struct Rebuild<'s> {
    source: &'s dyn Storage,
    target: &'s dyn Storage,
    replica: &'s str,
    progress: &'s Progress,
    /// The source holds nothing but records that were found.
    salvaged: bool,
}

/// One session as it is being written.
#[derive(Default)]
struct Session {
    name: String,
    meta: SessionMeta,
    /// What the source's own record of the session said.
    known: Option<SessionMeta>,
    /// The number after the last place.
    next: u64,
    fold: Fold,
}

impl Rebuild<'_> {
    fn run(&self) -> Result<()> {
        let before: Option<StoreMeta> = read(self.source, keys::STORE).unwrap_or_default();
        let mut store = StoreMeta { n: self.progress.n, ..StoreMeta::default() };
        if let Some(before) = &before {
            (store.clock, store.arrivals) = (before.clock, before.arrivals);
            store.n = store.n.max(before.n);
        }
        store.arrivals = store.arrivals.max(self.progress.arrivals);
        let mut out = Out { target: self.target, batch: Batch::default(), arrived: None };
        let mut lost = 0;
        // First what deletions cover: it decides which events count.
        let mut covered = self.deletions()?;
        let mut session: Option<Session> = None;
        let (from, to) = (vec![b'e'], vec![b'f']);
        for pair in self.source.scan(from, to, false) {
            let (key, value) = pair?;
            let (name, seq) = keys::read_event(&key)?;
            if key.len() != keys::event(name, seq).len() {
                continue;
            }
            if session.as_ref().is_none_or(|session| session.name != name) {
                if let Some(done) = session.take() {
                    lost += self.end(done, &mut store, &mut out)?;
                }
                session = Some(self.begin(name, &mut covered));
            }
            if let Some(session) = &mut session {
                lost += self.take(session, seq, &key, &value, &mut store, &mut out)?;
            }
        }
        if let Some(done) = session.take() {
            lost += self.end(done, &mut store, &mut out)?;
        }
        out.flush()?;
        // Sessions of which no event is left.
        for pair in self.source.scan(vec![b'm'], vec![b'm' + 1], false) {
            let (key, _) = pair?;
            if self.target.get(&key)?.is_none() {
                let done = self.begin(keys::read_plain(&key)?, &mut covered);
                lost += self.end(done, &mut store, &mut out)?;
            }
        }
        for name in self.progress.tails.keys() {
            if self.target.get(&keys::meta(name))?.is_none() {
                let done = self.begin(name, &mut covered);
                lost += self.end(done, &mut store, &mut out)?;
            }
        }
        self.copy(b'x', &mut out)?;
        self.copy(b'y', &mut out)?;
        self.copy(b'q', &mut out)?;
        self.copy(b'n', &mut out)?;
        for pair in self.source.scan(vec![b'x'], vec![b'y'], false) {
            if let Ok(Slot::Event(event)) = record::decode(&pair?.1, |_| Ok(None)) {
                store.version.insert(&event.origin.replica, event.n);
            }
        }
        match before {
            // What was pruned or deleted is known, though it is gone; what was lost is not: a replica may bring it.
            Some(before) if lost == 0 && !self.salvaged => store.version.union(&before.version),
            _ => covered.values().for_each(|covers| store.version.union(covers)),
        }
        put(&mut out.batch, keys::STORE.to_vec(), &store)?;
        out.flush()
    }

    /// For each session with deletions, all that they cover.
    fn deletions(&self) -> Result<BTreeMap<String, VersionVector>> {
        let mut covered: BTreeMap<String, VersionVector> = BTreeMap::new();
        for pair in self.source.scan(vec![b'e'], vec![b'f'], false) {
            let (key, value) = pair?;
            let (name, _) = keys::read_event(&key)?;
            // Most records are no deletions: the kind is looked for before anything is read.
            if memchr::memmem::find(&value, SESSION_DELETED.as_bytes()).is_some()
                && let Ok(Slot::Event(event)) = record::decode(&value, |_| Ok(None))
                && event.kind == SESSION_DELETED
                && let Ok(covers) = covers(&event.data)
            {
                covered.entry(name.to_owned()).or_default().union(&covers);
            }
        }
        Ok(covered)
    }

    fn begin(&self, name: &str, covered: &mut BTreeMap<String, VersionVector>) -> Session {
        let known: Option<SessionMeta> = read(self.source, &keys::meta(name)).unwrap_or_default();
        let known = match (known, self.progress.tails.get(name)) {
            (known, None) => known,
            (known, Some(tail)) => {
                let known = known.unwrap_or_default();
                let (last_seq, floor) = (known.last_seq.max(tail.last_seq), known.floor.max(tail.floor));
                Some(SessionMeta { last_seq, floor, ..known })
            }
        };
        let mut meta = SessionMeta::default();
        if let Some(known) = &known {
            meta = SessionMeta { bytes: 0, ..known.clone() };
        }
        if let Some(covers) = covered.get(name) {
            meta.covered.union(covers);
        }
        let next = meta.floor + 1;
        Session { name: name.to_owned(), meta, known, next, fold: Fold::new() }
    }

    /// One place of a session. The number of events that are found to be lost.
    fn take(
        &self,
        session: &mut Session,
        seq: u64,
        key: &[u8],
        value: &[u8],
        store: &mut StoreMeta,
        out: &mut Out<'_>,
    ) -> Result<u64> {
        if seq < session.next {
            return Ok(0);
        }
        let mut lost = 0;
        if session.known.is_none() && session.next == 1 && seq > 1 {
            // Nothing tells any more how the session began.
            session.meta.floor = seq - 1;
            session.next = seq;
            if session.meta.covered == VersionVector::default() {
                let problem = format!("events 1 to {} are lost, if they were not pruned", seq - 1);
                out.note(session, seq - 1, &problem)?;
                lost += seq - 1;
            }
        }
        lost += out.note_lost(session, seq)?;
        session.next = seq + 1;
        session.meta.last_seq = session.meta.last_seq.max(seq);
        let slot = record::decode(value, |number| self.source.get(&keys::part(key, number)));
        let event = match slot {
            Ok(Slot::Event(event))
                if event.seq == seq && event.session_key == session.name && record::hash_is_right(&event) =>
            {
                event
            }
            Ok(Slot::Removed) => {
                out.batch.put(key.to_vec(), value.to_vec());
                return Ok(lost);
            }
            Ok(Slot::Event(_)) => {
                return out.quarantine(session, seq, "its record was changed").map(|()| lost + 1);
            }
            Err(error) => return out.quarantine(session, seq, error.message()).map(|()| lost + 1),
        };
        session.meta.follow_chain(&event);
        store.version.insert(&event.origin.replica, event.n);
        store.clock = store.clock.observe(event.clock);
        store.arrivals = store.arrivals.max(event.arrival);
        if *event.origin.replica == *self.replica {
            store.n = store.n.max(event.n);
        }
        out.write(session, &event, store)?;
        Ok(lost)
    }

    fn end(&self, mut session: Session, store: &mut StoreMeta, out: &mut Out<'_>) -> Result<u64> {
        let mut lost = 0;
        if let Some(known) = &session.known {
            let end = known.last_seq + 1;
            lost += out.note_lost(&mut session, end)?;
        } else if session.name == self.progress.session {
            let end = self.progress.seq + 1;
            lost += out.note_lost(&mut session, end)?;
            session.meta.last_seq = session.meta.last_seq.max(self.progress.seq);
        }
        session.meta.bytes = session.fold.bytes;
        let name = &session.name;
        if let Some(projection) = &session.fold.projection {
            store.sessions += 1;
            store.events += projection.events;
            put(&mut out.batch, keys::projection(name), projection)?;
            out.batch.put(keys::recency(projection.last_ms, name), Vec::new());
        }
        for (key, register) in &session.fold.state {
            put(&mut out.batch, keys::state(name, key), register)?;
        }
        store.bytes += session.fold.bytes;
        out.batch.put(keys::meta(name), record::session(name, &session.meta)?);
        out.flush_if_full()?;
        Ok(lost)
    }

    fn copy(&self, tag: u8, out: &mut Out<'_>) -> Result<()> {
        for pair in self.source.scan(vec![tag], vec![tag + 1], false) {
            let (key, value) = pair?;
            out.batch.put(key, value);
            out.flush_if_full()?;
        }
        Ok(())
    }
}

/// Writes to the new generation.
struct Out<'t> {
    target: &'t dyn Storage,
    batch: Batch,
    arrived: Option<Run>,
}

impl Out<'_> {
    fn write(&mut self, session: &mut Session, event: &StoredEvent, store: &StoreMeta) -> Result<()> {
        debug_assert!(store.arrivals >= event.arrival);
        let body = record::encode(&event.body())?;
        let bytes = record::put(&mut self.batch, keys::event(&session.name, event.seq), event, &body)?;
        index_arrival(&mut self.arrived, &mut self.batch, event);
        self.batch.put(keys::origin(&event.origin.replica, event.n), event.arrival.to_be_bytes().to_vec());
        if session.meta.is_live(event) {
            if !lookup::has_own_id(event) {
                self.batch.put(keys::id(&session.name, &event.id), keys::place(&session.name, event.seq));
            }
            session.fold.add(event, bytes);
        } else {
            self.batch.put(keys::garbage(&session.name), Vec::new());
        }
        self.flush_if_full()
    }

    /// Notes that the places from the next one of the session up to `end` are lost, and marks them.
    fn note_lost(&mut self, session: &mut Session, end: u64) -> Result<u64> {
        let from = session.next;
        for seq in from..end.min(from.saturating_add(NOTED)) {
            self.quarantine(session, seq, "the event is lost")?;
        }
        if end > from.saturating_add(NOTED) {
            // So many that each is not named: the session goes on behind them.
            let message = format!("events {from} to {} are lost", end - 1);
            self.quarantine(session, from, &message)?;
            session.meta.floor = session.meta.floor.max(end - 1);
        }
        session.next = session.next.max(end);
        Ok(end.saturating_sub(from))
    }

    fn quarantine(&mut self, session: &Session, seq: u64, problem: &str) -> Result<()> {
        self.batch.put(keys::event(&session.name, seq), record::removed()?);
        self.note(session, seq, problem)
    }

    fn note(&mut self, session: &Session, seq: u64, problem: &str) -> Result<()> {
        put(&mut self.batch, keys::problem(&session.name, seq), &problem)?;
        tracing::error!(session = %session.name, seq, problem, "an event could not be saved");
        self.flush_if_full()
    }

    fn flush_if_full(&mut self) -> Result<()> {
        if self.batch.0.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.target.commit(std::mem::take(&mut self.batch))
    }
}
