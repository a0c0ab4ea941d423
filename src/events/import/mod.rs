//! Import of what OpenClaw has recorded.
//!
//! | release | where | read by |
//! |---|---|---|
//! | 2026.2 to 2026.5 | `agents/<id>/sessions/sessions.json` and JSONL transcripts beside it; older: `sessions/` | this process |
//! | 2026.6 and later | `agents/<id>/agent/openclaw-agent.sqlite`, archives in it and in `sessions/` | a child process under Node |
//!
//! A blocking thread reads and maps, a bounded channel carries batches, and the caller's task appends them; so memory
//! does not grow with the source. Nothing in the source is written, and no SQLite file is even opened in this process:
//! OpenClaw may run in it, and its locks are the process's.
//!
//! What cannot be read is reported by file and line, and never ends the import.

mod lines;
mod sessions_dir;
mod sqlite;
mod transcript;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::event::{MAX_EVENT_BYTES, NewEvent};
use super::store::EventStore;
use crate::{Code, CoreError, Result, runtime};

/// Events in one append.
const BATCH_EVENTS: usize = 256;
/// Bytes of event data in one append, unless a single event has more.
const BATCH_BYTES: usize = 4 << 20;
/// Complaints about one file that are listed one by one.
const LISTED_PER_FILE: u64 = 1000;

/// How to import.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Appends nothing and reports what an import would do.
    pub dry_run: bool,
    /// Node programs to try, in order, for reading SQLite: the first that has `node:sqlite` does it.
    pub node: Vec<PathBuf>,
    /// A folder with room for a copy of the largest database; the store's own by default, if it may be written.
    pub scratch: Option<PathBuf>,
}

/// How far an import is, in bytes of its sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are read.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// What an import did, or would do. As JSON it has the public shape.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Sessions, by key, of which something was found.
    pub sessions: u64,
    /// Events that were added.
    pub events: u64,
    /// What was left out.
    pub skipped: Vec<Skipped>,
    /// Events that were there already.
    pub already_present: u64,
}

/// Something that was left out, and why.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The file.
    pub file: String,
    /// 1-based; in a database, the row's `seq` + 1. 0 is the file as a whole.
    pub line: u64,
    /// Why.
    pub reason: String,
}

/// One agent's sources.
#[derive(Debug)]
struct Source {
    agent_id: String,
    database: Option<PathBuf>,
    sessions_dir: PathBuf,
    /// Where all agents are.
    agents_dir: PathBuf,
    /// Bytes of the database with its log.
    database_bytes: u64,
    /// Bytes of the plain transcripts.
    transcript_bytes: u64,
}

/// Reads all of `state_dir` into the store. When `cancel` fires, nothing more is appended, and it fails; what was
/// appended stays, and another import goes on from there.
pub async fn import(
    store: &EventStore,
    state_dir: &Path,
    options: &ImportOptions,
    cancel: &CancellationToken,
    mut on_progress: impl FnMut(Progress) + Send,
) -> Result<Report> {
    let (sender, mut batches) = mpsc::channel(2);
    let stop = Arc::new(Stop::default());
    // Also when this future is dropped.
    let _stopped_at_the_end = StopOnDrop(Arc::clone(&stop));
    // A store that is only read has no limit of its own, and is good for a dry run.
    let max_event_bytes = if store.is_read_only() { MAX_EVENT_BYTES } else { store.shared.max_event_bytes };
    let outlet = Outlet::new(sender, Arc::clone(&stop), max_event_bytes);
    let scratch = options.scratch.clone().unwrap_or_else(|| {
        if store.is_read_only() { std::env::temp_dir() } else { store.folder().to_owned() }
    });
    let job = Job { state_dir: state_dir.to_owned(), node: options.node.clone(), scratch };
    let dry_run = options.dry_run;
    let reader = tokio::spawn(runtime::blocking(move || job.read(outlet)));

    let taken = async {
        let mut intake = Intake::new(store.clone(), dry_run);
        loop {
            // Only between appends: what one was told to append is appended, before this ends.
            let batch = tokio::select! {
                biased;
                () = cancel.cancelled() => {
                    return Err(CoreError::new(Code::Internal, "the import was aborted"));
                }
                batch = batches.recv() => batch,
            };
            let Some(batch) = batch else { return Ok(intake.finish()) };
            let progress = batch.progress;
            intake.take(batch).await?;
            on_progress(progress);
        }
    };
    let taken = taken.await;
    // The reader notices at the latest with its next batch: the channel's other end has gone.
    if taken.is_err() {
        stop.now();
    }
    drop(batches);
    let read =
        reader.await.map_err(|error| CoreError::new(Code::Internal, format!("a reader died: {error}")))?;
    let report = taken?;
    read?;
    Ok(report)
}

/// The appending side.
struct Intake {
    store: EventStore,
    dry_run: bool,
    report: Report,
    /// Keys of sessions of which something was found.
    keys: HashSet<String>,
    /// In a dry run, digests of the ids that would have been added: the same fact may stand in two files.
    seen: HashSet<u64>,
}

impl Intake {
    fn new(store: EventStore, dry_run: bool) -> Self {
        Self { store, dry_run, report: Report::default(), keys: HashSet::new(), seen: HashSet::new() }
    }

    async fn take(&mut self, batch: Batch) -> Result<()> {
        self.report.skipped.extend(batch.skipped);
        if batch.events.is_empty() {
            return Ok(());
        }
        for event in &batch.events {
            if !self.keys.contains(&event.session_key) {
                self.keys.insert(event.session_key.clone());
            }
        }
        let found = batch.events.len() as u64;
        let store = self.store.clone();
        let mut fresh = runtime::blocking(move || unknown(&store, batch.events)).await?;
        if self.dry_run {
            fresh.retain(|event| event.id.as_deref().is_none_or(|id| self.seen.insert(digest(id))));
        }
        let added = fresh.len() as u64;
        if added > 0 && !self.dry_run {
            self.store.append_batch(fresh).await?;
        }
        self.report.events += added;
        self.report.already_present += found - added;
        Ok(())
    }

    fn finish(mut self) -> Report {
        self.report.sessions = self.keys.len() as u64;
        self.report
    }
}

/// The events that the store has not, each once.
fn unknown(store: &EventStore, events: Vec<NewEvent>) -> Result<Vec<NewEvent>> {
    let mut once = HashSet::new();
    let mut fresh = Vec::new();
    for event in events {
        let Some(id) = &event.id else { continue };
        if !once.contains(id) && store.find(id)?.is_none() {
            once.insert(id.clone());
            fresh.push(event);
        }
    }
    Ok(fresh)
}

fn digest(id: &str) -> u64 {
    let hash = blake3::hash(id.as_bytes());
    hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

// ── the reading side ─────────────────────────────────────────────────────────────────────────────────────────────

/// Ends the reader and its child.
#[derive(Default)]
struct Stop {
    stopped: AtomicBool,
    child: Mutex<Option<Child>>,
}

impl Stop {
    fn now(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            // It may have ended by itself.
            let _ = child.kill();
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

struct StopOnDrop(Arc<Stop>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.now();
    }
}

/// What the reader sends at once.
struct Batch {
    events: Vec<NewEvent>,
    skipped: Vec<Skipped>,
    progress: Progress,
}

/// Why the reader ends before its sources do.
#[derive(Debug)]
enum Halt {
    /// Nobody takes its batches any more.
    Stopped,
    /// It cannot go on.
    Failed(CoreError),
}

impl From<CoreError> for Halt {
    fn from(error: CoreError) -> Self {
        Self::Failed(error)
    }
}

/// The reader's end of the channel: gathers batches, caps complaints, counts progress.
struct Outlet {
    sender: mpsc::Sender<Batch>,
    stop: Arc<Stop>,
    max_event_bytes: usize,
    events: Vec<NewEvent>,
    bytes: usize,
    skipped: Vec<Skipped>,
    /// The file that the latest complaints are about: how many, and where the first unlisted one was.
    complained: (String, u64, u64),
    progress: Progress,
}

impl Outlet {
    fn new(sender: mpsc::Sender<Batch>, stop: Arc<Stop>, max_event_bytes: usize) -> Self {
        Self {
            sender,
            stop,
            max_event_bytes,
            events: Vec::new(),
            bytes: 0,
            skipped: Vec::new(),
            complained: (String::new(), 0, 0),
            progress: Progress { done: 0, total: 0 },
        }
    }

    /// The events of one entry.
    fn events(&mut self, file: &str, line: u64, events: Vec<NewEvent>) -> Result<(), Halt> {
        for event in events {
            if let Err(error) = event.check(0, self.max_event_bytes) {
                let reason = error.message();
                self.skip(file, line, reason.strip_prefix("event 0: ").unwrap_or(reason))?;
                continue;
            }
            self.bytes += event.data.len();
            self.events.push(event);
        }
        if self.events.len() >= BATCH_EVENTS || self.bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn skip(&mut self, file: &str, line: u64, reason: impl Into<String>) -> Result<(), Halt> {
        if self.complained.0 != file {
            self.sum_up();
            file.clone_into(&mut self.complained.0);
        }
        let (_, count, first_unlisted) = &mut self.complained;
        *count += 1;
        if *count > LISTED_PER_FILE {
            if *count == LISTED_PER_FILE + 1 {
                *first_unlisted = line;
            }
            return Ok(());
        }
        self.skipped.push(Skipped { file: file.to_owned(), line, reason: reason.into() });
        if self.skipped.len() >= BATCH_EVENTS { self.flush() } else { Ok(()) }
    }

    /// One complaint for those about a file that are not listed.
    fn sum_up(&mut self) {
        let (file, count, line) = std::mem::take(&mut self.complained);
        if count > LISTED_PER_FILE {
            let reason = format!("{} more from here on", count - LISTED_PER_FILE);
            self.skipped.push(Skipped { file, line, reason });
        }
    }

    fn flush(&mut self) -> Result<(), Halt> {
        if self.stop.is_stopped() {
            return Err(Halt::Stopped);
        }
        let batch = Batch {
            events: std::mem::take(&mut self.events),
            skipped: std::mem::take(&mut self.skipped),
            progress: self.progress,
        };
        self.bytes = 0;
        self.sender.blocking_send(batch).map_err(|_| Halt::Stopped)
    }

    /// Bytes of all sources that are read by now.
    fn done(&mut self, done: u64) {
        self.progress.done = done.clamp(self.progress.done, self.progress.total);
    }
}

/// What the databases have told that the JSONL files do not.
#[derive(Default)]
struct Known {
    /// Session ids and the keys they belong to.
    windows: HashMap<String, String>,
    /// File names of archives that were read out of the database.
    archives: HashSet<String>,
}

/// What the reader has to do.
struct Job {
    state_dir: PathBuf,
    node: Vec<PathBuf>,
    scratch: PathBuf,
}

impl Job {
    fn read(&self, mut outlet: Outlet) -> Result<()> {
        match self.read_all(&mut outlet) {
            Ok(()) | Err(Halt::Stopped) => Ok(()),
            Err(Halt::Failed(error)) => Err(error),
        }
    }

    fn read_all(&self, outlet: &mut Outlet) -> Result<(), Halt> {
        let sources = sources(&self.state_dir)?;
        if sources.is_empty() {
            let reason = "holds no OpenClaw sessions: neither agents/<id>/sessions, \
                          agents/<id>/agent/openclaw-agent.sqlite nor sessions";
            outlet.skip(&self.state_dir.to_string_lossy(), 0, reason)?;
        }
        outlet.progress.total = sources.iter().map(|s| s.database_bytes + s.transcript_bytes).sum();
        let mut before = 0;
        for source in &sources {
            let mut known = Known::default();
            sqlite::read(self, source, before, &mut known, outlet)?;
            before += source.database_bytes;
            outlet.done(before);
            sessions_dir::read(source, &known, before, outlet)?;
            before += source.transcript_bytes;
            outlet.done(before);
            // The progress of an agent without events is progress too.
            outlet.flush()?;
        }
        outlet.sum_up();
        outlet.flush()
    }
}

/// Where the sessions of each agent are; nothing but names and sizes is looked at.
fn sources(state_dir: &Path) -> Result<Vec<Source>> {
    let listing =
        fs::read_dir(state_dir).map_err(|e| CoreError::io("read the state folder", state_dir, e))?;
    drop(listing);
    let mut found = Vec::new();
    let agents = state_dir.join("agents");
    for name in sorted_names(&agents)? {
        let folder = agents.join(&name);
        if folder.is_dir() {
            let database = folder.join("agent").join("openclaw-agent.sqlite");
            let database = database.is_file().then_some(database);
            found.extend(source(name, database, folder.join("sessions"), &agents)?);
        }
    }
    // Before there were agents, the one there was had its sessions here.
    found.extend(source("main".to_owned(), None, state_dir.join("sessions"), &agents)?);
    Ok(found)
}

fn source(
    agent_id: String,
    database: Option<PathBuf>,
    sessions_dir: PathBuf,
    agents_dir: &Path,
) -> Result<Option<Source>> {
    if database.is_none() && !sessions_dir.is_dir() {
        return Ok(None);
    }
    let size = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
    let database_bytes = database.as_ref().map_or(0, |file| {
        let mut log = file.clone().into_os_string();
        log.push("-wal");
        size(file) + size(Path::new(&log))
    });
    let transcript_bytes = sorted_names(&sessions_dir)?
        .iter()
        .filter(|name| sessions_dir::is_transcript(name))
        .map(|name| size(&sessions_dir.join(name)))
        .sum();
    let agents_dir = agents_dir.to_owned();
    Ok(Some(Source { agent_id, database, sessions_dir, agents_dir, database_bytes, transcript_bytes }))
}

/// The names in a folder, in order; none if there is no such folder.
fn sorted_names(folder: &Path) -> Result<Vec<String>> {
    let failed = |error| CoreError::io("read the folder", folder, error);
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in listing {
        // OpenClaw gives no file a name that is not Unicode.
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests;
