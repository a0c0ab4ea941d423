//! The store: what callers see of it. Reads go to the database; writes go to the one [`super::writer`].

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::clock::{PhysicalTime, SystemClock};
use super::derived::{read, unsealed};
use super::event::{
    self, MAX_EVENT_BYTES, MAX_REPLICA_BYTES, NewEvent, SESSION_DELETED, StoredEvent, check_key,
    check_replica,
};
use super::files::{self, Description, FORMAT, Head, Lock};
use super::follow::{Follow, FollowOptions};
use super::keys;
use super::log::{Log, Merged, Pruned, SessionMeta, StoreMeta};
use super::lookup::{self, Slots};
use super::merge;
use super::nats::{self, Replication};
use super::projection::{Projection, Register, State};
use super::record::Slot;
use super::recover;
use super::sled::reclaim;
use super::storage::Storage;
use super::verify::{self, Verified};
use super::version::VersionVector;
use super::writer::{Command, Writer};
use crate::{Code, CoreError, Result};

/// Bytes of events that one `read` gives.
const READ_BYTES: usize = 256 << 20;

/// Bytes of events that may wait for the writer.
const WAITING_BYTES: u64 = 256 << 20;

/// What `append` promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// What is acknowledged is on the disk.
    #[default]
    Always,
    /// The end of the process or of the machine loses at most what came since the last flush, this long ago.
    Interval(Duration),
}

/// How long events are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Sessions whose latest event is older go.
    pub max_age: Option<Duration>,
    /// The oldest sessions go, ended ones first, until the live events' records fit.
    pub max_bytes: Option<u64>,
}

/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    /// What `append` promises.
    pub durability: Durability,
    /// Bytes that sled may use as a cache.
    pub cache_bytes: u64,
    /// Bytes of one event's data.
    pub max_event_bytes: usize,
    /// The name under which this store writes; by default a random one, made when the store is.
    pub replica: Option<String>,
    /// Open a copy of this moment, and write nothing.
    pub read_only: bool,
    /// What is pruned by itself, while the store is open.
    pub retention: Retention,
    /// Where the log is shared with other gateways; nowhere by default.
    pub nats: Option<nats::Options>,
    /// Where physical time comes from.
    pub time: Arc<dyn PhysicalTime>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::Always,
            cache_bytes: 32 << 20,
            max_event_bytes: 16 << 20,
            replica: None,
            read_only: false,
            retention: Retention::default(),
            nats: None,
            time: Arc::new(SystemClock),
        }
    }
}

/// Which events of a session to read.
#[derive(Clone, Debug, Default)]
pub struct Range {
    /// Only later ones.
    pub after: Option<u64>,
    /// Only earlier ones.
    pub before: Option<u64>,
    /// At most so many.
    pub limit: Option<usize>,
    /// From the last to the first.
    pub reverse: bool,
    /// Only these kinds.
    pub kinds: Option<Vec<String>>,
}

/// In which order sessions are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The one with the latest event first.
    #[default]
    Recent,
    /// By their keys.
    Key,
}

/// Which sessions to list.
#[derive(Clone, Debug, Default)]
pub struct SessionsQuery {
    /// Only keys that begin so.
    pub prefix: Option<String>,
    /// Only those of this agent.
    pub agent_id: Option<String>,
    /// Only those that come after this session in the order.
    pub after: Option<String>,
    /// At most so many.
    pub limit: Option<usize>,
    /// The order.
    pub order: Order,
}

/// A session's key, projection and state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// The key.
    pub session_key: String,
    /// The projection.
    pub projection: Projection,
    /// The state.
    pub state: State,
}

impl SessionView {
    /// Appends it as a JSON object of the public shape.
    pub fn write_json(&self, out: &mut String) {
        self.projection.write_json(&self.session_key, &self.state, out);
    }

    /// The bytes that are the same on every replica with the same events.
    pub fn to_bytes(&self) -> Vec<u8> {
        let state: Vec<_> = self.state.0.iter().collect();
        postcard::to_stdvec(&(&self.session_key, &self.projection, state)).unwrap_or_default()
    }
}

/// Sizes of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sessions with events.
    pub sessions: u64,
    /// Live events.
    pub events: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Bytes on disk before.
    pub before: u64,
    /// Bytes on disk after.
    pub after: u64,
}

/// What readers and the writer share.
pub(super) struct Shared {
    pub(super) folder: PathBuf,
    pub(super) replica: Arc<str>,
    /// The current generation; none once the store is closed. Whoever reads holds the lock, so that a generation is
    /// closed when nobody is in it.
    pub(super) storage: RwLock<Option<Arc<dyn Storage>>>,
    /// Events up to this arrival number are acknowledged: readers see no further.
    pub(super) acknowledged: watch::Sender<u64>,
    /// How often acknowledged events were gone when the database was opened anew; their numbers are given again.
    pub(super) losses: AtomicU64,
    /// This replica's events up to this number are on the disk.
    pub(super) flushed: watch::Sender<u64>,
    /// Bytes that wait for the writer.
    pub(super) waiting: AtomicU64,
    pub(super) closed: AtomicBool,
    pub(super) max_event_bytes: usize,
    /// A copy, to be removed in the end.
    copy: Option<PathBuf>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    /// Closes the database once nobody reads, and removes what was a copy.
    fn end(&self) {
        *self.storage.write().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(copy) = &self.copy {
            let _ = std::fs::remove_dir_all(copy);
        }
    }

    /// Reads from the current generation.
    pub(super) fn reading<T>(&self, read: impl FnOnce(&dyn Storage) -> Result<T>) -> Result<T> {
        let storage = self.storage.read().unwrap_or_else(PoisonError::into_inner);
        match &*storage {
            Some(storage) => read(&**storage),
            None => Err(closed(&self.folder)),
        }
    }

    /// Up to which arrival number events are acknowledged.
    pub(super) fn horizon(&self) -> u64 {
        *self.acknowledged.borrow()
    }
}

fn closed(folder: &Path) -> CoreError {
    CoreError::new(Code::StoreClosed, format!("the event store {} was closed", folder.display()))
        .in_file(folder)
}

/// An open event store. Clones are the same store; it is closed by [`EventStore::close`], or when the last clone goes.
#[derive(Clone)]
pub struct EventStore {
    pub(super) shared: Arc<Shared>,
    /// None if the store is only read.
    writer: Option<Arc<Mutex<Sender<Command>>>>,
    link: Option<Arc<Replication>>,
}

/// A store that is open only as long as somebody else holds it.
#[derive(Clone)]
pub(super) struct WeakStore {
    pub(super) shared: Arc<Shared>,
    writer: Weak<Mutex<Sender<Command>>>,
}

impl WeakStore {
    /// The store, if it is still open.
    pub(super) fn upgrade(&self) -> Result<EventStore> {
        let writer = self.writer.upgrade().ok_or_else(|| closed(&self.shared.folder))?;
        Ok(EventStore { shared: Arc::clone(&self.shared), writer: Some(writer), link: None })
    }
}

impl EventStore {
    /// Opens the store in a folder, which is made if need be. Blocks.
    pub fn open(folder: &Path, options: Options) -> Result<Self> {
        if let Some(replica) = &options.replica {
            check_replica(replica)?;
        }
        if options.read_only {
            return Self::open_copy(folder, &options);
        }
        files::create_private(folder)?;
        let folder = std::fs::canonicalize(folder).map_err(|error| CoreError::io("find", folder, error))?;
        let lock = Lock::acquire(&folder)?;
        let replica = describe(&folder, options.replica.as_deref())?;
        let head = Head::open(&folder)?;
        let (number, storage) = recover::open(&folder, &replica, &head.progress, options.cache_bytes)?;
        let log = Log::open(Arc::clone(&storage), Arc::clone(&replica), Arc::clone(&options.time))?;
        let shared = Arc::new(Shared {
            folder,
            replica,
            storage: RwLock::new(Some(storage)),
            acknowledged: watch::Sender::new(log.store.arrivals),
            flushed: watch::Sender::new(head.progress.n.min(log.store.n)),
            losses: 0.into(),
            waiting: 0.into(),
            closed: AtomicBool::new(false),
            max_event_bytes: options.max_event_bytes.min(MAX_EVENT_BYTES),
            copy: None,
        });
        let writer = Writer::start(Arc::clone(&shared), log, head, lock, number, &options)?;
        let mut store = Self { shared, writer: Some(Arc::new(Mutex::new(writer))), link: None };
        store.link = store.start_link(options.nats)?;
        Ok(store)
    }

    fn start_link(&self, options: Option<nats::Options>) -> Result<Option<Arc<Replication>>> {
        let (Some(options), Some(writer)) = (options, &self.writer) else { return Ok(None) };
        let store = WeakStore { shared: Arc::clone(&self.shared), writer: Arc::downgrade(writer) };
        Ok(Some(Arc::new(Replication::start(store, options)?)))
    }

    /// The link to other gateways, if the store was opened with one.
    pub fn link(&self) -> Option<&Replication> {
        self.link.as_deref()
    }

    /// Opens a copy of the store as it is now.
    fn open_copy(folder: &Path, options: &Options) -> Result<Self> {
        let Some(description) = Description::read(folder)? else {
            let message = format!("there is no event store in {}", folder.display());
            return Err(CoreError::new(Code::Io, message).in_file(folder));
        };
        let copy = std::env::temp_dir().join(format!("openclaw-core-events-{}", random_name()?));
        let opened = files::snapshot(folder, &copy).and_then(|()| {
            let progress = Head::read(&copy).unwrap_or_default();
            let replica: Arc<str> = description.replica.as_str().into();
            let (_, storage) = recover::open(&copy, &replica, &progress, options.cache_bytes)?;
            let log = Log::open(Arc::clone(&storage), Arc::clone(&replica), Arc::clone(&options.time))?;
            Ok((storage, replica, log.store.arrivals))
        });
        let (storage, replica, arrivals) = opened.inspect_err(|_| {
            let _ = std::fs::remove_dir_all(&copy);
        })?;
        let shared = Shared {
            folder: folder.to_owned(),
            replica,
            storage: RwLock::new(Some(storage)),
            acknowledged: watch::Sender::new(arrivals),
            flushed: watch::Sender::new(0),
            losses: 0.into(),
            waiting: 0.into(),
            closed: AtomicBool::new(false),
            max_event_bytes: 0,
            copy: Some(copy),
        };
        Ok(Self { shared: Arc::new(shared), writer: None, link: None })
    }

    /// Reads a JSON array of events. Their names and sizes are checked when they are appended.
    pub fn parse_events(json: &str) -> Result<Vec<NewEvent>> {
        event::parse_events(json)
    }

    /// The name under which this store writes.
    pub fn replica(&self) -> &str {
        &self.shared.replica
    }

    /// The store's folder.
    pub fn folder(&self) -> &Path {
        &self.shared.folder
    }

    /// Whether the store was opened to be read only.
    pub fn is_read_only(&self) -> bool {
        self.writer.is_none()
    }

    fn send<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command,
    ) -> Result<oneshot::Receiver<Result<T>>> {
        let Some(writer) = &self.writer else {
            let message = "the event store was opened with `readOnly`: nothing can be written to it";
            return Err(CoreError::new(Code::Validation, message).in_file(&self.shared.folder));
        };
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(closed(&self.shared.folder));
        }
        let (reply, answer) = oneshot::channel();
        let writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.send(command(reply)).map_err(|_| closed(&self.shared.folder))?;
        Ok(answer)
    }

    /// Hands events to the writer; they are in their place in the order of appends when this returns. All of them are
    /// appended or none, and an id that is known gives back the event that has it.
    pub fn append_batch(
        &self,
        events: Vec<NewEvent>,
    ) -> impl Future<Output = Result<Vec<StoredEvent>>> + Send + use<> {
        self.hand_over(events, false)
    }

    /// As [`Self::append_batch`], for what nobody waits for: written with what is appended next, or a moment later, so
    /// that it costs no write of its own.
    pub fn append_soon(
        &self,
        events: Vec<NewEvent>,
    ) -> impl Future<Output = Result<Vec<StoredEvent>>> + Send + use<> {
        self.hand_over(events, true)
    }

    fn hand_over(
        &self,
        events: Vec<NewEvent>,
        soon: bool,
    ) -> impl Future<Output = Result<Vec<StoredEvent>>> + Send + use<> {
        let sent = self.submit(events, soon);
        let folder = self.shared.folder.clone();
        async move { sent?.await.map_err(|_| closed(&folder))? }
    }

    fn submit(
        &self,
        events: Vec<NewEvent>,
        soon: bool,
    ) -> Result<oneshot::Receiver<Result<Vec<StoredEvent>>>> {
        let mut bytes = 0;
        for (at, event) in events.iter().enumerate() {
            event.check(
                at,
                self.shared.max_event_bytes.max(usize::from(self.writer.is_none()) * MAX_EVENT_BYTES),
            )?;
            bytes += event.data.len() as u64;
        }
        let waiting = self.shared.waiting.fetch_add(bytes, Ordering::AcqRel);
        if waiting > WAITING_BYTES {
            self.shared.waiting.fetch_sub(bytes, Ordering::AcqRel);
            let message = format!(
                "{waiting} bytes of events already wait to be written: await earlier appends before more are made"
            );
            return Err(CoreError::new(Code::Limit, message));
        }
        self.send(|reply| Command::Append { events, bytes, soon, reply }).inspect_err(|_| {
            self.shared.waiting.fetch_sub(bytes, Ordering::AcqRel);
        })
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command) -> Result<T> {
        let answer = self.send(command)?;
        answer.await.map_err(|_| closed(&self.shared.folder))?
    }

    /// Deletes a session: leaves an event that merges, and covers every event that is known here. The number of events
    /// deleted.
    pub async fn delete_session(&self, session_key: &str) -> Result<u64> {
        check_key(session_key)?;
        let session = session_key.to_owned();
        self.ask(|reply| Command::Delete { session, reply }).await
    }

    /// Takes in what another replica's [`EventStore::changes`] gave.
    pub async fn merge(&self, changes: &[u8]) -> Result<Merged> {
        self.merge_all(&[changes]).await
    }

    /// As [`Self::merge`], several at once.
    pub(super) async fn merge_all(&self, changes: &[impl AsRef<[u8]>]) -> Result<Merged> {
        let mut events = Vec::new();
        for some in changes {
            events.extend(merge::decode(some.as_ref())?);
        }
        let mut events = events.into_iter();
        let mut merged = Merged::default();
        loop {
            // In steps, so that appends are not held up.
            let step: Vec<_> = events.by_ref().take(256).collect();
            if step.is_empty() {
                return Ok(merged);
            }
            let done = self.ask(|reply| Command::Merge { events: step, reply }).await?;
            merged.applied += done.applied;
            merged.known += done.known;
        }
    }

    /// Prunes sessions, one at a time. What was pruned before a cancellation stays so.
    pub async fn prune(&self, retention: Retention, cancel: &CancellationToken) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        while !cancel.is_cancelled() {
            let step = self.ask(|reply| Command::Prune { retention, reply }).await?;
            if step == Pruned::default() {
                break;
            }
            pruned.sessions += step.sessions;
            pruned.events += step.events;
            pruned.bytes += step.bytes;
        }
        Ok(pruned)
    }

    /// Writes the database anew without what is dead in it, while it is used. A cancellation leaves it as it was.
    pub async fn compact(&self, cancel: &CancellationToken) -> Result<Compacted> {
        let cancel = cancel.clone();
        self.ask(|reply| Command::Compact { cancel, reply }).await
    }

    /// A small value beside the log that stays here.
    pub fn note(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.shared.reading(|storage| read(storage, &keys::note(name)))
    }

    /// Writes a note, durably.
    pub async fn set_note(&self, name: &str, value: Vec<u8>) -> Result<()> {
        let name = name.to_owned();
        self.ask(|reply| Command::Note { name, value, reply }).await
    }

    /// Events of a session.
    pub fn read(&self, session_key: &str, range: &Range) -> Result<Vec<StoredEvent>> {
        check_key(session_key)?;
        let horizon = self.shared.horizon();
        self.shared.reading(|storage| read_events(storage, session_key, range, horizon))
    }

    /// The event with an id.
    pub fn find(&self, id: &str) -> Result<Option<StoredEvent>> {
        self.shared.reading(|storage| {
            let store: StoreMeta = read(storage, keys::STORE)?.unwrap_or_default();
            lookup::find_by_id(storage, &store.version, id)
        })
    }

    /// What is known of a session.
    pub fn projection(&self, session_key: &str) -> Result<Option<SessionView>> {
        check_key(session_key)?;
        self.shared.reading(|storage| view(storage, session_key))
    }

    /// What is known of many sessions.
    pub fn sessions(&self, query: &SessionsQuery) -> Result<Vec<SessionView>> {
        self.shared.reading(|storage| list(storage, query))
    }

    /// Which events are here.
    pub fn version(&self) -> Result<VersionVector> {
        let store: Option<StoreMeta> = self.shared.reading(|storage| read(storage, keys::STORE))?;
        Ok(store.unwrap_or_default().version)
    }

    /// The events that are here and not in `since`; at most `limit`, and at most 32 MiB.
    pub fn changes(&self, since: &VersionVector, limit: Option<usize>) -> Result<Vec<u8>> {
        self.shared.reading(|storage| merge::changes(storage, since, limit.unwrap_or(usize::MAX)))
    }

    /// Everything after an event, or from the first on, and then what comes.
    pub fn follow(&self, options: &FollowOptions) -> Result<Follow> {
        Follow::new(Arc::clone(&self.shared), options, self.writer.is_none())
    }

    /// A receiver that sees each acknowledged arrival number.
    pub fn acknowledged(&self) -> watch::Receiver<u64> {
        self.shared.acknowledged.subscribe()
    }

    /// Checks every record, every chain of hashes, and all that is derived from the log.
    pub fn verify(&self, cancel: &CancellationToken) -> Result<Verified> {
        verify::verify(&self.shared, cancel)
    }

    /// Writes the database anew from its records alone, then checks it. Nothing else is written meanwhile.
    pub async fn rebuild(&self) -> Result<()> {
        self.ask(|reply| Command::Rebuild { reply }).await
    }

    /// Sizes.
    pub fn stats(&self) -> Result<Stats> {
        self.shared.reading(|storage| {
            let store: StoreMeta = read(storage, keys::STORE)?.unwrap_or_default();
            let disk_bytes = storage.disk_bytes()?;
            Ok(Stats { sessions: store.sessions, events: store.events, disk_bytes })
        })
    }

    /// Puts everything on the disk and ends. Calls that come later, or are still waiting for their turn to read, fail
    /// with `STORE_CLOSED`.
    pub async fn close(&self) -> Result<()> {
        if let Some(link) = &self.link {
            link.stop().await;
        }
        match self.begin_close()? {
            Some(answer) => answer.await.unwrap_or(Ok(())),
            None => Ok(()),
        }
    }

    /// As [`Self::close`], for a caller that cannot wait otherwise.
    pub fn close_blocking(&self) -> Result<()> {
        match self.begin_close()? {
            Some(answer) => answer.blocking_recv().unwrap_or(Ok(())),
            None => Ok(()),
        }
    }

    fn begin_close(&self) -> Result<Option<oneshot::Receiver<Result<()>>>> {
        if self.shared.closed.load(Ordering::Acquire) {
            return Ok(None);
        }
        if self.writer.is_none() {
            self.shared.closed.store(true, Ordering::Release);
            self.shared.end();
            reclaim();
            self.shared.acknowledged.send_modify(|_| {});
            return Ok(None);
        }
        let answer = self.send(|reply| Command::Close { reply });
        self.shared.closed.store(true, Ordering::Release);
        answer.map(Some).or(Ok(None))
    }
}

/// Reads or writes `store.json`; a store of an older format is copied and then brought up to date.
fn describe(folder: &Path, replica: Option<&str>) -> Result<Arc<str>> {
    let Some(found) = Description::read(folder)? else {
        let replica = replica.map_or_else(random_name, |name| Ok(name.to_owned()))?;
        Description::new(&replica).write(folder)?;
        return Ok(replica.into());
    };
    if let Some(wanted) = replica.filter(|wanted| *wanted != found.replica) {
        let message = format!(
            "the event store {} writes as replica `{}`, not `{wanted}`: a store keeps its name",
            folder.display(),
            found.replica
        );
        return Err(CoreError::new(Code::Validation, message).in_file(folder));
    }
    found.restore(folder)?;
    if found.format < FORMAT {
        recover::migrate(folder, &found)?;
    }
    Ok(found.replica.into())
}

/// 16 hexadecimal digits by chance.
fn random_name() -> Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| CoreError::new(Code::Io, format!("the system gives no random numbers: {error}")))?;
    const { assert!(MAX_REPLICA_BYTES >= 16) };
    Ok(format!("{:016x}", u64::from_be_bytes(bytes)))
}

fn read_events(
    storage: &dyn Storage,
    session: &str,
    range: &Range,
    horizon: u64,
) -> Result<Vec<StoredEvent>> {
    let mut meta = read::<SessionMeta>(storage, &keys::meta(session))?.unwrap_or_default();
    loop {
        let gap = match read_live(storage, session, &meta, range, horizon)? {
            Ok(found) => return Ok(found),
            Err(gap) => gap,
        };
        // The session may have been deleted or pruned while it was read.
        let now = read::<SessionMeta>(storage, &keys::meta(session))?.unwrap_or_default();
        if now.floor == meta.floor {
            return Err(missing(session, gap));
        }
        meta = now;
    }
}

/// The events, or the number of one that should be there and is not.
fn read_live(
    storage: &dyn Storage,
    session: &str,
    meta: &SessionMeta,
    range: &Range,
    horizon: u64,
) -> Result<Result<Vec<StoredEvent>, u64>> {
    let from = range.after.map_or(1, |after| after.saturating_add(1)).max(meta.floor + 1);
    let to = range.before.unwrap_or(u64::MAX).min(meta.last_seq + 1);
    let limit = range.limit.unwrap_or(usize::MAX);
    let mut found = Vec::new();
    if from >= to || limit == 0 {
        return Ok(Ok(found));
    }
    let (mut expected, mut bytes) = (if range.reverse { to - 1 } else { from }, 0);
    // Damage behind the last of them is no matter here.
    let count = usize::try_from(to - from).unwrap_or(usize::MAX);
    let slots: Box<dyn Iterator<Item = Result<(u64, Slot)>>> = if range.reverse {
        let slot = |seq| Ok(lookup::slot_at(storage, session, seq)?.map(|slot| (seq, slot)));
        Box::new((from..to).rev().map_while(move |seq| slot(seq).transpose()))
    } else {
        Box::new(Slots::new(storage, session, from, to))
    };
    for slot in slots.take(count) {
        let (seq, slot) = slot?;
        if seq != expected {
            return Ok(Err(expected));
        }
        expected = if range.reverse { seq - 1 } else { seq + 1 };
        let Slot::Event(event) = slot else { continue };
        // Events that are not yet acknowledged are not yet there.
        if event.arrival > horizon || !meta.is_live(&event) || !wanted(&event, range.kinds.as_deref()) {
            continue;
        }
        bytes += event.data.len();
        if bytes > READ_BYTES {
            let message = format!(
                "more than {READ_BYTES} bytes of events would be read: read them in parts, with `limit`"
            );
            return Err(CoreError::new(Code::Limit, message));
        }
        found.push(*event);
        if found.len() == limit {
            return Ok(Ok(found));
        }
    }
    // The log ends where the session's record of itself says, or something is lost.
    let complete = if range.reverse { expected < from } else { expected >= to };
    Ok(if complete { Ok(found) } else { Err(expected) })
}

fn missing(session: &str, seq: u64) -> CoreError {
    let message = format!(
        "session `{session}`, event {seq}: the event is missing; `verify({{ rebuild: true }})` saves what is left, and \
         says what is not"
    );
    CoreError::new(Code::StoreCorrupt, message)
}

/// Deletions are seen only by those who ask for them.
fn wanted(event: &StoredEvent, kinds: Option<&[String]>) -> bool {
    match kinds {
        None => event.kind != SESSION_DELETED,
        Some(kinds) => kinds.contains(&event.kind),
    }
}

pub(super) fn view(storage: &dyn Storage, session: &str) -> Result<Option<SessionView>> {
    let Some(projection) = read::<Projection>(storage, &keys::projection(session))? else { return Ok(None) };
    Ok(Some(SessionView { session_key: session.to_owned(), projection, state: state(storage, session)? }))
}

pub(super) fn state(storage: &dyn Storage, session: &str) -> Result<State> {
    let (from, to) = keys::states(session);
    let mut state = State::default();
    for pair in storage.scan(from, to, false) {
        let (key, cell) = pair?;
        let key = keys::read_state(session, &key)?.to_owned();
        if let Some(value) = unsealed::<Register>(&cell)?.value {
            state.0.insert(key, value);
        }
    }
    Ok(state)
}

/// A list no longer than this is read session by session, along the index; a longer one in one pass over all.
const SHORT_LIST: usize = 100;

fn list(storage: &dyn Storage, query: &SessionsQuery) -> Result<Vec<SessionView>> {
    let limit = query.limit.unwrap_or(usize::MAX);
    let prefix = query.prefix.as_deref().unwrap_or("");
    let fits = |session: &str, projection: &Projection| {
        session.starts_with(prefix)
            && query.agent_id.as_deref().is_none_or(|agent| projection.agent_id() == agent)
    };
    let after = query.after.as_deref();
    let mut found: Vec<(String, Projection)> = Vec::new();
    if query.order == Order::Recent && limit <= SHORT_LIST {
        let (from, mut to) = keys::all(b'r', "");
        if let Some(after) = after {
            to = keys::recency(last_ms(storage, after)?, after);
        }
        for pair in storage.scan(from, to, true) {
            if found.len() >= limit {
                break;
            }
            let (key, _) = pair?;
            let (_, session) = keys::read_recency(&key)?;
            // Between the two reads the session may have gone.
            if let Some(projection) = read::<Projection>(storage, &keys::projection(session))?
                && fits(session, &projection)
            {
                found.push((session.to_owned(), projection));
            }
        }
    } else {
        let (mut from, to) = keys::all(b'p', prefix);
        if let (Order::Key, Some(after)) = (query.order, after) {
            let mut next = keys::projection(after);
            next.push(0);
            from = from.max(next).min(to.clone());
        }
        for pair in storage.scan(from, to, false) {
            if query.order == Order::Key && found.len() >= limit {
                break;
            }
            let (key, value) = pair?;
            let (session, projection) = (keys::read_plain(&key)?, unsealed::<Projection>(&value)?);
            if fits(session, &projection) {
                found.push((session.to_owned(), projection));
            }
        }
    }
    if query.order == Order::Recent && limit > SHORT_LIST {
        found.sort_unstable_by(|(a, of_a), (b, of_b)| (of_b.last_ms, b).cmp(&(of_a.last_ms, a)));
        if let Some(after) = after {
            let place = (last_ms(storage, after)?, after);
            found.retain(|(session, projection)| (projection.last_ms, session.as_str()) < place);
        }
        found.truncate(limit);
    }
    let mut states = if found.len() > SHORT_LIST { Some(all_states(storage)?) } else { None };
    found
        .into_iter()
        .map(|(session_key, projection)| {
            let state = match &mut states {
                Some(states) => states.remove(&session_key).unwrap_or_default(),
                None => state(storage, &session_key)?,
            };
            Ok(SessionView { session_key, projection, state })
        })
        .collect()
}

/// The time of the session after which a list goes on.
fn last_ms(storage: &dyn Storage, after: &str) -> Result<i64> {
    let projection = read::<Projection>(storage, &keys::projection(after))?.ok_or_else(|| {
        CoreError::new(Code::Validation, format!("`after` names no session that is there: `{after}`"))
    })?;
    Ok(projection.last_ms)
}

/// The states of all sessions that have one.
fn all_states(storage: &dyn Storage) -> Result<HashMap<String, State>> {
    let mut states: HashMap<String, State> = HashMap::new();
    for pair in storage.scan(vec![b's'], vec![b't'], false) {
        let (key, cell) = pair?;
        let (session, key) = keys::read_session_state(&key)?;
        if let Some(value) = unsealed::<Register>(&cell)?.value {
            states.entry(session.to_owned()).or_default().0.insert(key.to_owned(), value);
        }
    }
    Ok(states)
}
