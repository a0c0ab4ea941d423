//! The one thread that writes.
//!
//! Commands that wait while a group is put on the disk make the next group, so that however many appends run at once,
//! each group costs one `fdatasync`: group commit. Between groups the thread does a step of what can wait, such as a
//! compaction or the removal of deleted events.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::derived::{put, read};
use super::event::{NewEvent, StoredEvent};
use super::files::{self, Head, Lock, Progress, Tails};
use super::keys;
use super::log::{Appended, Group, Log, Merged, Mirror, Pruned};
use super::merge::Incoming;
use super::projection::Projection;
use super::recover;
use super::sled::{Sled, reclaim};
use super::storage::{Absent, Batch, Storage};
use super::store::{Compacted, Durability, Options, Retention, Shared};
use crate::memory::{self, Owner};
use crate::{Code, CoreError, Result};

/// A group is applied in batches of about so many events: sled takes a batch in random order, and a large one costs more
/// for each event.
const BATCH_EVENTS: usize = 64;

/// A group ends at so many events or bytes.
const GROUP_EVENTS: usize = 4096;
const GROUP_BYTES: u64 = 8 << 20;

/// Keys that one step of a compaction copies, and about how many bytes.
const COPY_KEYS: usize = 512;
const COPY_BYTES: usize = 256 << 10;

/// What nobody waits for is written with the next group, and after so long without one.
const SOON: Duration = Duration::from_millis(15);

/// A database that failed is opened anew when the next command comes, and if that fails, with the first after a pause: at first
/// the shorter, and at most the longer.
const MENDING: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// So much room there must be on the disk before a database is closed to be opened anew.
const ROOM: usize = 4 << 20;

/// How often retention is looked after.
const RETENTION_EVERY: Duration = Duration::from_mins(1);

type Reply<T> = oneshot::Sender<Result<T>>;

/// What the writer is asked for.
pub(super) enum Command {
    /// With `soon`, it may wait for others, at most [`SOON`].
    Append {
        events: Vec<NewEvent>,
        bytes: u64,
        soon: bool,
        reply: Reply<Vec<StoredEvent>>,
    },
    Merge {
        events: Vec<Incoming>,
        reply: Reply<Merged>,
    },
    Delete {
        session: String,
        reply: Reply<u64>,
    },
    Prune {
        retention: Retention,
        reply: Reply<Pruned>,
    },
    Note {
        name: String,
        value: Vec<u8>,
        reply: Reply<()>,
    },
    Compact {
        cancel: CancellationToken,
        reply: Reply<Compacted>,
    },
    Rebuild {
        reply: Reply<()>,
    },
    Close {
        reply: Reply<()>,
    },
}

/// An answer that is given once its group is on the disk.
type Answer = Box<dyn FnOnce(Result<()>) + Send>;

struct Compaction {
    generation: u64,
    before: u64,
    cancel: CancellationToken,
    reply: Reply<Compacted>,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    log: Log,
    head: Head,
    tails: Tails,
    lock: Lock,
    generation: u64,
    durability: Durability,
    cache_bytes: u64,
    retention: Retention,
    inbox: Receiver<Command>,
    /// Taken from the inbox, not yet begun.
    next: VecDeque<Command>,
    /// Taken from the inbox, and kept until something else is written or this moment comes.
    held: VecDeque<Command>,
    held_until: Option<Instant>,
    compaction: Option<Compaction>,
    /// Deleted events may be left to remove.
    garbage: bool,
    /// Commits since the last flush began then.
    unflushed: Option<Instant>,
    pruned_at: Instant,
    /// Before this, a database that failed is not opened anew; and the pause after that.
    mending: (Instant, Duration),
    /// It was said that it has failed.
    failing: bool,
}

impl Writer {
    /// Starts the thread. It ends when it is told to close, or when nobody can tell it anything any more.
    pub(super) fn start(
        shared: Arc<Shared>,
        log: Log,
        head: Head,
        lock: Lock,
        generation: u64,
        options: &Options,
    ) -> Result<Sender<Command>> {
        let (outbox, inbox) = channel();
        // A process that was killed leaves what only the system's memory has.
        let unflushed = (log.store.n != head.progress.n).then(Instant::now);
        let tails = Tails::open(&shared.folder)?;
        let mut writer = Self {
            shared,
            log,
            head,
            tails,
            lock,
            generation,
            durability: options.durability,
            cache_bytes: options.cache_bytes,
            retention: options.retention,
            inbox,
            next: VecDeque::new(),
            held: VecDeque::new(),
            held_until: None,
            compaction: None,
            garbage: true,
            unflushed,
            pruned_at: Instant::now(),
            mending: (Instant::now(), MENDING.0),
            failing: false,
        };
        writer.head.progress.closed = false;
        writer.head.progress.tails = BTreeMap::new();
        if writer.head.progress.beat % 2 == 1 {
            // A writer was killed in the midst of a commit, which is now there as a whole or not: whoever copies the
            // store need not wait for the next one.
            writer.head.progress.beat += 1;
            writer.head.write()?;
        }
        std::thread::Builder::new()
            .name("openclaw-events".into())
            .spawn(move || writer.run())
            .map_err(|error| CoreError::new(Code::Io, format!("cannot start a thread: {error}")))?;
        Ok(outbox)
    }

    fn run(mut self) {
        let _owner = memory::scope(Owner::Events);
        if let Err(error) = self.flush() {
            tracing::error!(%error, "events could not be put on the disk");
        }
        let reply = loop {
            match self.receive() {
                Some(Command::Close { reply }) => break Some(reply),
                Some(command) => self.serve(command),
                None if self.is_abandoned() => break None,
                None => {}
            }
            self.tend();
        };
        let closed = self.close();
        if let Some(reply) = reply {
            let _ = reply.send(closed);
        } else if let Err(error) = closed {
            tracing::error!(%error, "an event store was dropped and could not be closed");
        }
    }

    /// The next command; none if there is something else to do first.
    fn receive(&mut self) -> Option<Command> {
        loop {
            if let Some(command) = self.next.pop_front() {
                return Some(command);
            }
            if self.held_until.is_some_and(|until| until <= Instant::now()) {
                self.let_go();
                continue;
            }
            match self.wait() {
                Ok(soon @ Command::Append { soon: true, .. }) => {
                    self.held.push_back(soon);
                    self.held_until.get_or_insert_with(|| Instant::now() + SOON);
                }
                Ok(command) => {
                    self.let_go();
                    self.next.push_back(command);
                }
                Err(RecvTimeoutError::Disconnected) if !self.held.is_empty() => self.let_go(),
                Err(_) => return None,
            }
        }
    }

    /// What was kept is next, before what comes now.
    fn let_go(&mut self) {
        self.held_until = None;
        self.next.append(&mut self.held);
    }

    fn wait(&self) -> Result<Command, RecvTimeoutError> {
        if self.garbage || self.compaction.is_some() {
            return self.inbox.recv_timeout(Duration::ZERO);
        }
        let flush = match (self.durability, self.unflushed) {
            (Durability::Interval(every), Some(since)) => Some((since + every).max(self.mending.0)),
            _ => None,
        };
        let retain = (self.retention != Retention::default()).then_some(self.pruned_at + RETENTION_EVERY);
        match [flush, retain, self.held_until].into_iter().flatten().min() {
            Some(at) => self.inbox.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// Whether nobody is left who could send a command.
    fn is_abandoned(&mut self) -> bool {
        match self.inbox.recv_timeout(Duration::ZERO) {
            Ok(command) => {
                self.next.push_back(command);
                false
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        }
    }

    /// Does a command, and with it all that wait and can go into the same group.
    fn serve(&mut self, first: Command) {
        if self.log.storage.has_failed() && Instant::now() >= self.mending.0 {
            self.mend();
        }
        let (mut group, mut answers) = (Group::default(), Vec::new());
        let (mut events, mut bytes) = (0, 0);
        let mut command = Some(first);
        while let Some(now) = command.take() {
            if let Some(later) = self.stage(now, &mut group, &mut answers) {
                // It needs what is staged to be in the storage, or is not to share a group.
                self.finish(&mut group, &mut answers);
                if let Some(again) = self.stage(later, &mut group, &mut answers) {
                    self.next.push_front(again);
                    break;
                }
            }
            if group.events >= BATCH_EVENTS {
                events += group.events;
                bytes += group.bytes;
                if self.durability == Durability::Always && events < GROUP_EVENTS && bytes < GROUP_BYTES {
                    if let Err(error) = self.apply(&mut group) {
                        self.refuse(&error, &mut group, &mut answers);
                    }
                } else {
                    self.finish(&mut group, &mut answers);
                }
            }
            if events >= GROUP_EVENTS || bytes >= GROUP_BYTES {
                break;
            }
            command = self.next.pop_front().or_else(|| self.inbox.try_recv().ok());
        }
        self.finish(&mut group, &mut answers);
    }

    /// Stages a command. It comes back if it must wait until the group was committed, or ends the group.
    #[allow(clippy::match_wildcard_for_single_variants)] // every other command, whatever there will be
    fn stage(&mut self, command: Command, group: &mut Group, answers: &mut Vec<Answer>) -> Option<Command> {
        match command {
            Command::Append { events, bytes, soon, reply } => {
                match self.log.append(group, events) {
                    Ok(Appended::CommitFirst(events)) => {
                        return Some(Command::Append { events, bytes, soon, reply });
                    }
                    Ok(Appended::Done(stored)) => answer(answers, reply, stored),
                    Err(error) => drop(reply.send(Err(error))),
                }
                self.shared.waiting.fetch_sub(bytes, Ordering::AcqRel);
            }
            Command::Note { name, value, reply } => {
                let mut batch = Batch::default();
                match put(&mut batch, keys::note(&name), &value) {
                    Ok(()) => {
                        group.extend(batch);
                        answer(answers, reply, ());
                    }
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            alone if !group.is_empty() => return Some(alone),
            Command::Merge { events, reply } => {
                let merged = self.log.merge(group, events);
                self.alone(merged, group, answers, reply);
            }
            Command::Delete { session, reply } => {
                let deleted = self.log.delete(group, &session);
                self.garbage = true;
                self.alone(deleted, group, answers, reply);
            }
            Command::Prune { retention, reply } => {
                let pruned = self.prune(group, retention);
                self.alone(pruned, group, answers, reply);
            }
            Command::Compact { cancel, reply } => self.begin_compaction(cancel, reply),
            Command::Rebuild { reply } => {
                let _ = reply.send(self.rebuild());
            }
            close @ Command::Close { .. } => return Some(close),
        }
        None
    }

    /// The outcome of a command that has the group for itself.
    fn alone<T: Send + 'static>(
        &mut self,
        outcome: Result<T>,
        group: &mut Group,
        answers: &mut Vec<Answer>,
        reply: Reply<T>,
    ) {
        match outcome {
            Ok(value) => answer(answers, reply, value),
            Err(error) => {
                *group = Group::default();
                let _ = self.log.reload();
                let _ = reply.send(Err(error));
            }
        }
    }

    /// Commits a group, puts it on the disk, and answers.
    fn finish(&mut self, group: &mut Group, answers: &mut Vec<Answer>) {
        if group.is_empty() && answers.is_empty() {
            return;
        }
        let outcome = self
            .apply(group)
            .and_then(|()| if self.durability == Durability::Always { self.flush() } else { Ok(()) });
        match outcome {
            Ok(()) => {
                self.acknowledge();
                answers.drain(..).for_each(|answer| answer(Ok(())));
            }
            Err(error) => self.refuse(&error, group, answers),
        }
    }

    /// Answers that what was staged or applied since the last flush failed.
    fn refuse(&mut self, error: &CoreError, group: &mut Group, answers: &mut Vec<Answer>) {
        // Once for each time that it fails: on a full disk, whoever writes tries again and again.
        if !std::mem::replace(&mut self.failing, self.log.storage.has_failed()) {
            tracing::error!(%error, "a group of events could not be written");
        }
        *group = Group::default();
        let _ = self.log.reload();
        answers.drain(..).for_each(|answer| answer(Err(copy(error))));
    }

    /// Applies a group: it is in the storage, and not yet on the disk.
    fn apply(&mut self, group: &mut Group) -> Result<()> {
        if !group.is_empty() {
            if self.head.progress.beat.is_multiple_of(2) {
                self.head.progress.beat += 1;
                self.head.write()?;
            }
            self.log.commit(group)?;
            self.unflushed.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    fn acknowledge(&self) {
        let arrivals = self.log.store.arrivals;
        self.shared.acknowledged.send_if_modified(|seen| std::mem::replace(seen, arrivals) != arrivals);
    }

    /// Puts on the disk what was committed.
    fn flush(&mut self) -> Result<()> {
        if self.unflushed.is_none() {
            return Ok(());
        }
        self.log.storage.sync()?;
        self.unflushed = None;
        let progress = &mut self.head.progress;
        progress.beat = progress.beat.next_multiple_of(2);
        progress.arrivals = self.log.store.arrivals;
        progress.n = self.log.store.n;
        if let Some((session, seq)) = self.log.latest.take() {
            (progress.session, progress.seq) = (session, seq);
        }
        self.head.write()?;
        self.tails.add(&std::mem::take(&mut self.log.tails))?;
        let n = self.log.store.n;
        self.shared.flushed.send_if_modified(|seen| std::mem::replace(seen, n) != n);
        Ok(())
    }

    /// What can wait: a flush that is due, retention, garbage, a step of a compaction.
    fn tend(&mut self) {
        if let (Durability::Interval(every), Some(since)) = (self.durability, self.unflushed)
            && since.elapsed() >= every
            && Instant::now() >= self.mending.0
        {
            if self.log.storage.has_failed() {
                self.mend();
            } else if let Err(error) = self.flush() {
                tracing::error!(%error, "events could not be put on the disk");
            }
        }
        if self.retention != Retention::default() && self.pruned_at.elapsed() >= RETENTION_EVERY {
            let mut group = Group::default();
            let pruned = self.prune(&mut group, self.retention);
            // One session at a time; what is left is pruned after the commands that wait.
            if !matches!(pruned, Ok(Pruned { sessions: 1.., .. })) {
                self.pruned_at = Instant::now();
            }
            self.finish_quietly(pruned.map(|_| ()), &mut group);
        }
        if self.garbage {
            let mut group = Group::default();
            let more = self.log.collect_garbage(&mut group);
            self.garbage = more.as_ref().is_ok_and(|more| *more);
            self.finish_quietly(more.map(|_| ()), &mut group);
        }
        if self.compaction.is_some() {
            self.copy_some();
        }
    }

    fn finish_quietly(&mut self, outcome: Result<()>, group: &mut Group) {
        if let Err(error) = outcome {
            tracing::warn!(%error, "upkeep of an event store failed");
            *group = Group::default();
            let _ = self.log.reload();
        }
        self.finish(group, &mut Vec::new());
    }

    /// Prunes the session that is next to go, if any.
    fn prune(&mut self, group: &mut Group, retention: Retention) -> Result<Pruned> {
        let Some(name) = self.next_to_go(retention)? else { return Ok(Pruned::default()) };
        self.garbage = true;
        self.log.prune(group, &name)
    }

    fn next_to_go(&self, retention: Retention) -> Result<Option<String>> {
        let storage = &*self.log.storage;
        let oldest_kept = retention.max_age.map(|age| {
            let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            self.log.now_ms().saturating_sub(age)
        });
        let full = retention.max_bytes.is_some_and(|max| self.log.store.bytes > max);
        let (from, to) = keys::all(b'r', "");
        let mut oldest = None;
        let mut sessions = storage.scan(from, to, false).peekable();
        while let Some(pair) = sessions.next() {
            let (key, _) = pair?;
            let (last_ms, session) = keys::read_recency(&key)?;
            if oldest_kept.is_some_and(|kept| last_ms < kept) {
                return Ok(Some(session.to_owned()));
            }
            if !full {
                break;
            }
            // The latest session is in use: it is never pruned for its size.
            if sessions.peek().is_none() {
                break;
            }
            let projection: Option<Projection> = read(storage, &keys::projection(session))?;
            if projection.is_some_and(|projection| projection.ended()) {
                return Ok(Some(session.to_owned()));
            }
            oldest.get_or_insert_with(|| session.to_owned());
        }
        Ok(oldest)
    }

    fn begin_compaction(&mut self, cancel: CancellationToken, reply: Reply<Compacted>) {
        if self.compaction.is_some() {
            let _ = reply.send(Err(CoreError::new(
                Code::Limit,
                "a compaction of this event store is already running",
            )));
            return;
        }
        let begin = || {
            let before = self.log.storage.disk_bytes()?;
            let generation = files::generations(&self.shared.folder)?.last().copied().unwrap_or(0) + 1;
            let target: Arc<dyn Storage> =
                Arc::new(Sled::open(&files::generation(&self.shared.folder, generation), self.cache_bytes)?);
            Ok((before, generation, target))
        };
        match begin() {
            Ok((before, generation, target)) => {
                self.log.mirror = Some(Mirror { target, copied: Vec::new(), failed: None });
                self.compaction = Some(Compaction { generation, before, cancel, reply });
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// One step of a compaction.
    fn copy_some(&mut self) {
        let (Some(compaction), Some(mut mirror)) = (self.compaction.take(), self.log.mirror.take()) else {
            return;
        };
        if compaction.cancel.is_cancelled() {
            let message = "the compaction was cancelled; the event store is as it was";
            self.abandon(compaction, CoreError::new(Code::Internal, message));
            return;
        }
        let step = match mirror.failed.take() {
            Some(error) => Err(error),
            None => copy_step(&*self.log.storage, &mut mirror),
        };
        match step {
            Ok(true) => {
                self.compaction = Some(compaction);
                self.log.mirror = Some(mirror);
            }
            Ok(false) => match self.switch(compaction.generation, mirror.target) {
                Ok(after) => {
                    let _ = compaction.reply.send(Ok(Compacted { before: compaction.before, after }));
                }
                Err(error) => self.abandon(compaction, error),
            },
            Err(error) => {
                drop(mirror);
                self.abandon(compaction, error);
            }
        }
    }

    fn abandon(&self, compaction: Compaction, error: CoreError) {
        let Compaction { generation, reply, .. } = compaction;
        if !files::is_current(&self.shared.folder, generation) {
            let _ = std::fs::remove_dir_all(files::generation(&self.shared.folder, generation));
        }
        let _ = reply.send(Err(error));
    }

    /// Makes the copy the current generation. Its bytes on disk.
    fn switch(&mut self, generation: u64, target: Arc<dyn Storage>) -> Result<u64> {
        target.sync()?;
        files::sync_folder(&files::generation(&self.shared.folder, generation))?;
        self.flush()?;
        self.make_current(generation)?;
        self.replace(target, generation)?;
        self.log.storage.disk_bytes()
    }

    /// Opens anew a database that failed, as on a disk that was full: what is on the disk is what counts, as after a crash.
    fn mend(&mut self) {
        let pause = self.mending.1;
        self.mending = match self.open_anew() {
            Ok(()) => {
                tracing::warn!("the database of the event store had failed, and was opened anew");
                self.failing = false;
                (Instant::now(), MENDING.0)
            }
            Err(error) => {
                tracing::debug!(%error, "the database of the event store failed, and cannot be opened anew yet");
                (Instant::now() + pause, MENDING.1.min(2 * pause))
            }
        };
    }

    fn open_anew(&mut self) -> Result<()> {
        let folder = self.shared.folder.clone();
        // What can still be read stays open until there is room.
        files::find_room(&folder, ROOM)?;
        if let Some(compaction) = self.compaction.take() {
            self.log.mirror = None;
            self.abandon(compaction, CoreError::new(Code::Io, "the event store failed"));
        }
        let progress = Progress { tails: Tails::read(&folder), ..self.head.progress.clone() };
        let shared = Arc::clone(&self.shared);
        // Readers wait: nobody may be in the database that is closed.
        let mut readable = shared.storage.write().unwrap_or_else(PoisonError::into_inner);
        let absent: Arc<dyn Storage> =
            Arc::new(Absent("the event store failed, and could not be opened anew yet".into()));
        self.log.storage = Arc::clone(&absent);
        *readable = Some(absent);
        reclaim();
        let (generation, storage) = recover::open(&folder, &self.log.replica, &progress, self.cache_bytes)?;
        let (replica, time) = (Arc::clone(&self.log.replica), Arc::clone(&self.log.time));
        self.log = Log::open(Arc::clone(&storage), replica, time)?;
        self.generation = generation;
        if self.log.store.arrivals < shared.horizon() {
            shared.losses.fetch_add(1, Ordering::AcqRel);
        }
        *readable = Some(storage);
        drop(readable);
        self.garbage = true;
        self.unflushed = (self.log.store.n != self.head.progress.n).then(Instant::now);
        // A reader that copies the store must see that it changed.
        self.head.progress.beat = self.head.progress.beat.next_multiple_of(2) + 2;
        self.head.write()?;
        self.flush()?;
        self.acknowledge();
        Ok(())
    }

    /// Makes a generation the current one on the disk.
    fn make_current(&self, generation: u64) -> Result<()> {
        let switched = files::switch(&self.shared.folder, generation);
        if switched.is_err() {
            self.mind_a_switch(generation);
        }
        switched
    }

    /// After a switch that failed: if it was done all the same, what is written to the old generation is lost.
    fn mind_a_switch(&self, generation: u64) {
        if files::is_current(&self.shared.folder, generation) {
            self.log.storage.fail("it is not known which generation of its database is on the disk");
        }
    }

    /// Goes on with the generation that has become the current one.
    fn replace(&mut self, storage: Arc<dyn Storage>, generation: u64) -> Result<()> {
        let old = std::mem::replace(&mut self.generation, generation);
        self.log.storage = Arc::clone(&storage);
        *self.shared.storage.write().unwrap_or_else(PoisonError::into_inner) = Some(storage);
        let old = files::generation(&self.shared.folder, old);
        if let Err(error) = std::fs::remove_dir_all(&old) {
            tracing::warn!(%error, folder = %old.display(), "an old generation of an event store could not be removed");
        }
        // A reader that copies the store must see that it changed.
        self.head.progress.beat += 2;
        self.head.write()
    }

    /// Writes the next generation from the records of this one alone.
    fn rebuild(&mut self) -> Result<()> {
        self.flush()?;
        let progress = Progress { tails: Tails::read(&self.shared.folder), ..self.head.progress.clone() };
        let rebuilt = recover::rebuild(
            &self.shared.folder,
            self.generation,
            recover::Source::Readable(&*self.log.storage),
            &self.log.replica,
            &progress,
            self.cache_bytes,
        );
        let (generation, storage) = rebuilt.inspect_err(|_| {
            for generation in files::generations(&self.shared.folder).unwrap_or_default() {
                if generation != self.generation {
                    self.mind_a_switch(generation);
                }
            }
        })?;
        let replaced = self.replace(storage, generation);
        self.log.reload()?;
        self.acknowledge();
        replaced
    }

    fn close(mut self) -> Result<()> {
        self.shared.closed.store(true, Ordering::Release);
        if let Some(compaction) = self.compaction.take() {
            self.log.mirror = None;
            self.abandon(compaction, CoreError::new(Code::StoreClosed, "the event store was closed"));
        }
        let flushed = self.flush();
        if flushed.is_ok() {
            self.head.progress.closed = true;
            let _ = self.head.write();
        }
        // Whoever waits for the next event learns that there is none.
        self.shared.acknowledged.send_modify(|_| {});
        // The database is closed before another process may open it.
        drop(self.log);
        *self.shared.storage.write().unwrap_or_else(PoisonError::into_inner) = None;
        drop(self.lock);
        reclaim();
        flushed
    }
}

/// Copies the next keys. False if there were none.
fn copy_step(from: &dyn Storage, mirror: &mut Mirror) -> Result<bool> {
    let (mut batch, mut bytes) = (Batch::default(), 0);
    for pair in from.scan(mirror.copied.clone(), vec![u8::MAX; 4], false) {
        let (key, value) = pair?;
        bytes += key.len() + value.len();
        mirror.copied.clone_from(&key);
        batch.put(key, value);
        if batch.0.len() == COPY_KEYS || bytes >= COPY_BYTES {
            break;
        }
    }
    if batch.0.is_empty() {
        return Ok(false);
    }
    // The next step begins after the last key.
    mirror.copied.push(0);
    mirror.target.commit(batch)?;
    Ok(true)
}

fn answer<T: Send + 'static>(answers: &mut Vec<Answer>, reply: Reply<T>, value: T) {
    answers.push(Box::new(move |outcome| {
        let _ = reply.send(outcome.map(|()| value));
    }));
}

/// The same error once more, for another caller.
fn copy(error: &CoreError) -> CoreError {
    let mut again = CoreError::new(error.code(), error.message());
    if let Some(file) = &error.details().file {
        again = again.in_file(file);
    }
    again
}
