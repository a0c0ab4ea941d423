//! The durable outbox: what is to be sent, until it is known what became of it.
//!
//! A message is *queued* once it is on the disk; from then on it is sent, whatever happens to the process. Before a part of
//! it is sent it is *started*, on the disk, in one step with being queued if its turn is at once; then it is *accepted*, or
//! certainly unsent, and tried again, or refused, or *unknown*: the connection broke before the answer came, or the process
//! ended. What is unknown is not sent again, unless the platform knows keys and makes one message of both; and after an hour
//! not then either, since platforms forget keys.
//!
//! What waits is in memory with its files, [`WAITING_BYTES`] of it, edits and reactions among it; beyond that, nothing more is
//! taken. What an earlier process left is taken up whatever it is: its files are read when its turn comes.
//!
//! Messages for one chat go out one after the other, in their order. One key is one message, as long as it is
//! remembered: at least for the latest [`KEPT`] × [`SEGMENT`] messages.

mod lines;
mod room;
mod turn;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data_encoding::HEXLOWER;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::lines::{
    ACCEPTED, EndedLine, FileHead, Past, Restored, STARTED, Sent, UNSENT, code_of, ended, files, lines, read,
    step,
};
pub use self::room::{Held, Room, size};
use self::room::{call_size, parts_size};
use self::turn::{Turn, Waits};
use super::backoff::Backoff;
use super::governor::{Class, Governor, Verdict};
use super::log::{Digest, Found, Journal, Log, digest};
use super::message::{OutboundMessage, Part, SendReceipt, SendState};
use super::platform::{Call, Failed, Fate, Platform};
use super::{Boxed, Surroundings};
use crate::memory::{Owner, owned};
use crate::{Code, CoreError, Result};

/// Messages of a segment, and segments whose keys are remembered.
pub const SEGMENT: u32 = if cfg!(test) { 4 } else { 128 };
/// See [`SEGMENT`].
pub const KEPT: u64 = if cfg!(test) { 4 } else { 16 };
/// The most bytes of messages that wait in memory, files included.
pub const WAITING_BYTES: usize = 64 << 20;
/// A message that the platform could not be given for so long is given up.
const LONGEST: Duration = Duration::from_hours(1);
/// Attempts at a part whose fate is unknown, where the platform knows keys.
const KEYED_ATTEMPTS: u32 = 8;

/// What is said of a message that was taken back before any of it was sent.
const ABORTED: &str = "the call was aborted";

/// How a message ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Accepted, or unknown.
    Receipt(SendReceipt),
    /// Nothing more is sent of it: the error, and its status.
    Failed(Code, String, Option<u16>),
}

impl Outcome {
    fn result(self) -> Result<SendReceipt> {
        match self {
            Self::Receipt(receipt) => Ok(receipt),
            Self::Failed(code, message, status) => {
                let error = CoreError::new(code, message);
                Err(match status {
                    Some(status) => error.with_status(status),
                    None => error,
                })
            }
        }
    }
}

/// A message on its way.
struct Job {
    n: u64,
    segment: u64,
    key: String,
    /// Without its files if those are read from the disk.
    message: Arc<OutboundMessage>,
    /// The files that are read from the disk.
    unread: Vec<FileHead>,
    parts: Vec<Part>,
    held: Option<Held>,
    /// The part to go on with, and whether it may have been sent already.
    next: usize,
    maybe_sent: bool,
    /// The platform may have some of it.
    begun: bool,
    ids: Vec<String>,
    queued_at_ms: u64,
    outcome: watch::Sender<Option<Outcome>>,
    /// Its way to the disk, if it is not there yet.
    storing: Option<Boxed<'static, Result<Vec<String>>>>,
    /// Whoever queued it no longer wants it; counts until its first part is started.
    cancelled: CancellationToken,
    /// Its turn has come already; that it is started is written down with it.
    turn: Option<Turn>,
}

impl Job {
    /// Waits until it is on the disk.
    async fn store(&mut self) -> Result<()> {
        if let Some(storing) = &mut self.storing {
            storing.await?;
        }
        self.storing = None;
        Ok(())
    }
}

/// What is known of a key. Thousands are remembered: most are `Past`, and that takes no memory of its own.
struct Known {
    segment: u64,
    state: Progress,
}

#[derive(Clone)]
enum Progress {
    Underway(Box<Underway>),
    Ended(Box<Outcome>),
    /// Its outcome is in the past of this segment.
    Past(u64),
}

/// What those who wait for a message have of it.
#[derive(Clone)]
struct Underway {
    n: u64,
    outcome: watch::Receiver<Option<Outcome>>,
    cancelled: CancellationToken,
}

impl Underway {
    fn new(n: u64) -> (watch::Sender<Option<Outcome>>, Box<Self>) {
        let (sender, outcome) = watch::channel(None);
        (sender, Box::new(Self { n, outcome, cancelled: CancellationToken::new() }))
    }
}

/// See the module.
pub struct Outbox {
    name: String,
    journal: Journal,
    platform: Arc<dyn Platform>,
    surroundings: Arc<dyn Surroundings>,
    state: Mutex<State>,
    room: Room,
    governor: Mutex<Governor>,
    /// A call has ended: those that wait for that may ask again.
    freed: Notify,
    closing: CancellationToken,
    /// Tasks that send.
    sending: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    next: u64,
    /// By the key's digest.
    keys: HashMap<Digest, Known>,
    /// For each chat what waits; a chat that is here has a task.
    lanes: HashMap<String, VecDeque<Job>>,
    queued: usize,
    /// Edits that wait, by chat and message: a newer one takes an older one's place.
    edits: HashMap<(String, String), u64>,
}

impl State {
    fn know(&mut self, key: &str, segment: u64, state: Progress) {
        self.keys.insert(digest(key), Known { segment, state });
    }
}

impl Outbox {
    /// Opens the outbox of an account. Nothing is sent before [`Outbox::resume`].
    pub async fn open(
        log: Arc<dyn Log>,
        name: &str,
        platform: Arc<dyn Platform>,
        surroundings: Arc<dyn Surroundings>,
        closing: CancellationToken,
        room: Room,
    ) -> Result<Arc<Self>> {
        let (journal, Found { pasts, segments }) =
            Journal::open(log, &format!("{name}:out"), SEGMENT, KEPT).await?;
        let mut state = State::default();
        for (segment, data) in pasts {
            let past = Past::read(&data)?;
            state.next = state.next.max(past.next);
            for sent in past.sent {
                state.keys.insert(sent.key()?, Known { segment, state: Progress::Past(segment) });
            }
        }
        let mut given: BTreeMap<u64, u32> = BTreeMap::new();
        let mut items: BTreeMap<u64, Restored> = BTreeMap::new();
        for segment in segments {
            given.insert(segment, 0);
            for (kind, data) in journal.segment(segment).await? {
                read(segment, &kind, &data, &mut given, &mut items)?;
            }
        }
        let mut sides = HashSet::new();
        for item in journal.sides().await? {
            if items.get(&item).is_some_and(Restored::is_pending) {
                sides.insert(item);
            } else {
                journal.delete_side(item).await?;
            }
        }
        let outbox = Arc::new(Self {
            name: name.to_owned(),
            journal,
            governor: Mutex::new(Governor::new(platform.limits())),
            platform,
            surroundings,
            state: Mutex::new(state),
            room,
            freed: Notify::new(),
            closing,
            sending: watch::Sender::new(0),
        });
        let mut open: BTreeMap<u64, u32> = BTreeMap::new();
        let mut unknown = Vec::new();
        for (n, restored) in items {
            let next = outbox.lock().next.max(n + 1);
            outbox.lock().next = next;
            let mut restored = restored;
            if sides.contains(&n) {
                // For its parts alone: those of all messages together may be more than there is memory.
                restored.line.message.files = files(&outbox.journal, n, &restored.line.files).await?;
            }
            if let Some(n) = outbox.restore(n, restored, &mut open) {
                unknown.push(n);
            }
        }
        for (segment, given) in given {
            outbox.journal.restore(segment, given, open.get(&segment).copied().unwrap_or(0));
        }
        for n in unknown {
            outbox.journal.note(ended(n, None, "")).await?;
        }
        Ok(outbox)
    }

    /// Takes up a message that was found; its number, if it ended just now.
    fn restore(&self, n: u64, restored: Restored, open: &mut BTreeMap<u64, u32>) -> Option<u64> {
        let Restored { segment, line, accepted, ids, maybe_sent, ended } = restored;
        let mut message = line.message;
        let receipt = |ids: &[String], state| {
            Outcome::Receipt(SendReceipt { message_ids: ids.to_vec(), state, attempts: 1 })
        };
        let outcome = match ended {
            Some(EndedLine { code: Some(code), message, .. }) => {
                Some(Outcome::Failed(code_of(&code), message, None))
            }
            Some(_) => Some(receipt(&ids, SendState::Unknown)),
            None if accepted >= line.parts => Some(receipt(&ids, SendState::Accepted)),
            None => None,
        };
        if matches!(&outcome, Some(Outcome::Failed(_, message, _)) if message == ABORTED) {
            return None;
        }
        let mut state = self.lock();
        if let Some(outcome) = outcome {
            if line.key != nobodys_key(n, line.at_ms) {
                state.know(&line.key, segment, Progress::Ended(Box::new(outcome)));
            }
            return None;
        }
        let parts = self.platform.render(&message).unwrap_or_default();
        message.files.clear();
        let held = self.room.force(size(&message) + parts_size(&parts));
        // Rendered otherwise than before, it is no longer known what of it was sent.
        let same = parts.len() == line.parts;
        let blind = maybe_sent && (self.is_old(line.at_ms) || !self.platform.knows_keys());
        if blind || (!same && (maybe_sent || accepted > 0)) || parts.is_empty() {
            let outcome = receipt(&ids, SendState::Unknown);
            state.know(&line.key, segment, Progress::Ended(Box::new(outcome)));
            return Some(n);
        }
        let (outcome, underway) = Underway::new(n);
        let cancelled = underway.cancelled.clone();
        state.know(&line.key, segment, Progress::Underway(underway));
        *open.entry(segment).or_default() += 1;
        state.queued += 1;
        let job = Job {
            n,
            segment,
            key: line.key,
            unread: line.files,
            parts,
            held: Some(held),
            next: accepted,
            maybe_sent,
            begun: maybe_sent || accepted > 0,
            ids,
            queued_at_ms: line.at_ms,
            storing: None,
            outcome,
            cancelled,
            turn: None,
            message: Arc::new(message),
        };
        state.lanes.entry(job.message.to.clone()).or_default().push_back(job);
        None
    }

    /// Goes on with what was found on the disk. Within a runtime.
    pub fn resume(self: &Arc<Self>) {
        let chats: Vec<String> = self.lock().lanes.keys().cloned().collect();
        for chat in chats {
            self.start(chat);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn governor(&self) -> MutexGuard<'_, Governor> {
        self.governor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages that are queued.
    pub fn queued(&self) -> usize {
        self.lock().queued
    }

    /// Queues a message and waits for its outcome. When `cancel` fires before any of it was started, it is not sent;
    /// later, it goes on without the caller.
    pub async fn send(
        self: &Arc<Self>,
        message: OutboundMessage,
        key: Option<String>,
        cancel: &CancellationToken,
    ) -> Result<SendReceipt> {
        let digest = key.as_deref().map(digest);
        let known = digest.and_then(|key| Some(self.lock().keys.get(&key)?.state.clone()));
        let known = match known {
            Some(known) => known,
            None => self.queue(message, key)?,
        };
        let Underway { mut outcome, cancelled, .. } = match known {
            Progress::Underway(underway) => *underway,
            Progress::Ended(outcome) => return outcome.result(),
            Progress::Past(segment) => {
                return self.past(segment, digest.unwrap_or_default()).await?.result();
            }
        };
        let closed = || CoreError::new(Code::ChannelClosed, format!("the channel {} was closed", self.name));
        tokio::select! {
            biased;
            done = outcome.wait_for(Option::is_some) => {
                let outcome = done.map_err(|_| closed())?.clone();
                outcome.ok_or_else(closed)?.result()
            }
            () = cancel.cancelled() => {
                cancelled.cancel();
                Err(CoreError::new(Code::ChannelSend, ABORTED))
            }
            () = async { self.closing.cancelled().await; self.ended().await } => Err(closed()),
        }
    }

    /// How a message ended whose segment is gone.
    async fn past(&self, segment: u64, key: Digest) -> Result<Outcome> {
        let past = self.journal.past(segment).await?;
        let outcome = past.map(|past| Past::read(&past)).transpose()?.and_then(|past| past.outcome(key));
        // It was given to the platform, or refused by it; whoever prunes the store knows no more either.
        let unknown = SendReceipt { message_ids: Vec::new(), state: SendState::Unknown, attempts: 0 };
        Ok(outcome.unwrap_or(Outcome::Receipt(unknown)))
    }

    /// A message of a segment has ended.
    async fn done(&self, segment: u64) {
        let past = |segment| {
            let state = self.lock();
            let known = state.keys.iter().filter(|(_, known)| known.segment == segment);
            let sent = known.filter_map(|(key, known)| match &known.state {
                Progress::Ended(outcome) => Some(Sent::new(key, outcome)),
                Progress::Underway(_) | Progress::Past(_) => None,
            });
            Past { next: state.next, sent: sent.collect() }
        };
        let gone = self.journal.done(segment, 1, past).await;
        if gone.is_empty() {
            return;
        }
        let mut state = self.lock();
        for known in state.keys.values_mut().filter(|known| gone.contains(&known.segment)) {
            if matches!(known.state, Progress::Ended(_)) {
                known.state = Progress::Past(known.segment);
            }
        }
    }

    /// Writes a message to the disk, and has it sent.
    fn queue(self: &Arc<Self>, message: OutboundMessage, key: Option<String>) -> Result<Progress> {
        if self.closing.is_cancelled() {
            let message = format!("the channel {} was closed", self.name);
            return Err(CoreError::new(Code::ChannelClosed, message));
        }
        let parts = self.platform.render(&message)?;
        if parts.is_empty() {
            return Err(CoreError::new(Code::Validation, "the message has neither text nor files"));
        }
        let at_ms = self.surroundings.now_ms();
        let (fresh, known) = {
            let mut state = self.lock();
            // Two calls with one key at the same time.
            if let Some(known) = key.as_ref().and_then(|key| state.keys.get(&digest(key))) {
                return Ok(known.state.clone());
            }
            let held = self.room.enter(size(&message) + parts_size(&parts))?;
            let n = state.next;
            state.next += 1;
            let keyed = key.is_some();
            let key = key.unwrap_or_else(|| nobodys_key(n, at_ms));
            let (pieces, line) = lines(n, &key, parts.len(), at_ms, &message)?;
            let (segment, new) = self.journal.place(1);
            if new {
                let latest = |known: &Known| known.segment + KEPT >= segment;
                state.keys.retain(|_, known| latest(known) || matches!(known.state, Progress::Underway(_)));
            }
            let mut lines = vec![line];
            let turn = if state.lanes.contains_key(&message.to) { None } else { self.turn_now(&message.to) };
            if turn.is_some() {
                lines.push(step(STARTED, n, 0, &[]));
            }
            // In the order of these calls on the disk: what is queued has its files.
            let files = (!pieces.is_empty()).then(|| self.journal.append_side(n, pieces));
            let queued = self.journal.append(segment, lines);
            let storing = Box::pin(async move {
                if let Some(files) = files {
                    files.await?;
                }
                queued.await
            });
            let (outcome, underway) = Underway::new(n);
            let cancelled = underway.cancelled.clone();
            let known = Progress::Underway(underway);
            if keyed {
                state.know(&key, segment, known.clone());
            }
            state.queued += 1;
            let message = Arc::new(message);
            let job = Job {
                n,
                segment,
                key,
                message,
                unread: Vec::new(),
                parts,
                held: Some(held),
                next: 0,
                maybe_sent: false,
                begun: false,
                ids: Vec::new(),
                queued_at_ms: at_ms,
                storing: Some(storing),
                outcome,
                cancelled,
                turn,
            };
            // In the lane, and in the order of appends, in one step: so both have one order.
            let chat = job.message.to.clone();
            let fresh = !state.lanes.contains_key(&chat);
            state.lanes.entry(chat.clone()).or_default().push_back(job);
            (fresh.then_some(chat), known)
        };
        if let Some(chat) = fresh {
            self.start(chat);
        }
        Ok(known)
    }

    /// Sends what waits for a chat, one message after the other, until nothing does.
    fn start(self: &Arc<Self>, chat: String) {
        let outbox = Arc::clone(self);
        let sending = Sending::new(&outbox);
        let lane = async move {
            let _sending = sending;
            loop {
                let job = {
                    let mut state = outbox.lock();
                    let Some(job) = state.lanes.get_mut(&chat).and_then(VecDeque::pop_front) else {
                        state.lanes.remove(&chat);
                        return;
                    };
                    job
                };
                let closing = outbox.closing.clone();
                tokio::select! {
                    biased;
                    // What is under way is ended by its own timeout, not by this: its fate would be unknown.
                    () = outbox.work(job) => {}
                    () = async { closing.cancelled().await; tokio::time::sleep(super::GOODBYE).await } => return,
                }
            }
        };
        tokio::spawn(owned(Owner::Channels, lane));
    }

    /// Waits until nothing is being sent any more: at most [`super::GOODBYE`] after the channel was closed.
    pub async fn ended(&self) {
        _ = self.sending.subscribe().wait_for(|tasks| *tasks == 0).await;
    }

    async fn work(self: &Arc<Self>, mut job: Job) {
        let (segment, n) = (job.segment, job.n);
        let has_files = !job.message.files.is_empty() || !job.unread.is_empty();
        let delivered = match job.store().await {
            Ok(()) => self.deliver(&mut job).await,
            Err(error) => Err(error),
        };
        // Whoever hears of the end may send the next.
        job.held = None;
        match delivered {
            Ok(Some(outcome)) => {
                let line = match &outcome {
                    Outcome::Receipt(SendReceipt { state: SendState::Accepted, .. }) => None,
                    Outcome::Receipt(_) => Some(ended(n, None, "")),
                    Outcome::Failed(code, message, _) => Some(ended(n, Some(*code), message)),
                };
                if let Some(line) = line
                    && let Err(error) = self.journal.note(line).await
                {
                    tracing::warn!(channel = self.name, %error, "cannot write what became of a message");
                }
                // Before its segment may go: what is known here is what the past says.
                self.settle(&job, outcome);
                if has_files && let Err(error) = self.journal.delete_side(n).await {
                    tracing::warn!(channel = self.name, %error, "cannot delete files that were sent");
                }
                self.done(segment).await;
            }
            // It stays queued, for the next time.
            Ok(None) => {}
            // The disk, after the platform may have had some of it: its key is not free again.
            Err(error) if job.begun => {
                tracing::warn!(channel = self.name, %error, "cannot write what becomes of a message: it is sent no further");
                _ = self.journal.note(ended(n, None, "")).await;
                let message_ids = std::mem::take(&mut job.ids);
                let receipt = SendReceipt { message_ids, state: SendState::Unknown, attempts: 1 };
                self.settle(&job, Outcome::Receipt(receipt));
                self.done(segment).await;
            }
            Err(error) => {
                // The disk: nothing can be promised any more.
                if job.storing.is_some() {
                    self.journal.give_back(segment, 1);
                }
                self.lock().keys.remove(&digest(&job.key));
                // If the disk takes this, it is not sent after a restart either.
                _ = self.journal.note(ended(n, Some(error.code()), error.message())).await;
                let failed = Outcome::Failed(error.code(), error.message().to_owned(), None);
                self.settle(&job, failed);
                self.done(segment).await;
            }
        }
    }

    /// Tells those who wait how a message ended, and those who will ask with its key.
    fn settle(&self, job: &Job, outcome: Outcome) {
        {
            let mut state = self.lock();
            state.queued -= 1;
            // The key may have been free again, and taken by another.
            if let Some(known) = state.keys.get_mut(&digest(&job.key))
                && matches!(&known.state, Progress::Underway(underway) if underway.n == job.n)
            {
                known.state = Progress::Ended(Box::new(outcome.clone()));
            }
        }
        job.outcome.send_replace(Some(outcome));
    }

    /// Sends what is left of a message. None if the channel closes first.
    async fn deliver(self: &Arc<Self>, job: &mut Job) -> Result<Option<Outcome>> {
        let mut attempts = 0;
        while job.next < job.parts.len() {
            let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
            let mut blind = 0;
            // Whether an attempt at this part, perhaps of an earlier process, may have succeeded.
            let mut uncertain = job.maybe_sent;
            let unknown = |job: &mut Job, attempts| {
                let message_ids = std::mem::take(&mut job.ids);
                Outcome::Receipt(SendReceipt { message_ids, state: SendState::Unknown, attempts })
            };
            loop {
                let (turn, started) = match job.turn.take() {
                    Some(turn) => (turn, true),
                    None => match self.turn(&job.message.to, Class::Message).await {
                        Some(turn) => (turn, false),
                        None => return Ok(None),
                    },
                };
                if job.cancelled.is_cancelled() && !job.begun && attempts == 0 {
                    turn.give_back();
                    // Nothing was sent, and never will be: who wants it after all may use the key again.
                    self.lock().keys.remove(&digest(&job.key));
                    return Ok(Some(Outcome::Failed(Code::ChannelSend, ABORTED.into(), None)));
                }
                if uncertain && self.is_old(job.queued_at_ms) {
                    turn.give_back();
                    return Ok(Some(unknown(job, attempts)));
                }
                // Anew for each attempt: between two it may be an hour.
                let message = if job.unread.is_empty() {
                    Arc::clone(&job.message)
                } else {
                    let files = files(&self.journal, job.n, &job.unread).await?;
                    Arc::new(OutboundMessage { files, ..(*job.message).clone() })
                };
                if !job.maybe_sent {
                    if !started {
                        self.journal.note(step(STARTED, job.n, job.next, &[])).await?;
                    }
                    job.maybe_sent = true;
                    job.begun = true;
                }
                attempts += 1;
                let part = job.parts.get(job.next).cloned().unwrap_or_default();
                let key = self.part_key(&job.key, job.queued_at_ms, job.next);
                let call = Call::Send { message, part, index: job.next, key };
                let called = turn.call(&call).await;
                drop(call);
                let failed = match called {
                    Ok(done) => {
                        self.accepted(job, done.message_ids).await?;
                        break;
                    }
                    Err(failed) => failed,
                };
                let given_up = || {
                    let status = failed.error.details().status;
                    Outcome::Failed(failed.error.code(), failed.error.message().to_owned(), status)
                };
                let wait = match failed.fate {
                    Fate::Refused if uncertain => {
                        let error = failed.error;
                        tracing::warn!(channel = self.name, %error, "refused, but an earlier attempt may have succeeded");
                        return Ok(Some(unknown(job, attempts)));
                    }
                    Fate::Refused => return Ok(Some(given_up())),
                    Fate::Unsent => {
                        // The wait may be long; a restart within it is no reason not to know.
                        if !uncertain {
                            job.maybe_sent = false;
                            job.begun = job.next > 0;
                            self.journal.note(step(UNSENT, job.n, job.next, &[])).await?;
                        }
                        if !uncertain && self.is_old(job.queued_at_ms) {
                            return Ok(Some(given_up()));
                        }
                        // What the platform asks for, the governor knows.
                        if asked_to_wait(&failed) {
                            Duration::ZERO
                        } else {
                            backoff.next(self.surroundings.chance())
                        }
                    }
                    Fate::Unknown => {
                        blind += 1;
                        uncertain = true;
                        if !self.platform.knows_keys() || blind >= KEYED_ATTEMPTS {
                            return Ok(Some(unknown(job, attempts)));
                        }
                        backoff.next(self.surroundings.chance())
                    }
                };
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.closing.cancelled() => return Ok(None),
                }
            }
        }
        let message_ids = std::mem::take(&mut job.ids);
        Ok(Some(Outcome::Receipt(SendReceipt { message_ids, state: SendState::Accepted, attempts })))
    }

    /// The platform has the next part of a message.
    async fn accepted(self: &Arc<Self>, job: &mut Job, message_ids: Vec<String>) -> Result<()> {
        let line = step(ACCEPTED, job.n, job.next, &message_ids);
        job.ids.extend(message_ids);
        job.maybe_sent = false;
        job.next += 1;
        if job.next < job.parts.len() {
            return self.journal.note(line).await;
        }
        // It has all of it, whatever the disk says. A crash before this is written makes it unknown, never sent twice.
        let noted = self.journal.note_soon(line);
        let sending = Sending::new(self);
        tokio::spawn(async move {
            if let Err(error) = noted.await {
                let channel = &sending.outbox.name;
                tracing::warn!(channel, %error, "cannot write that a message was accepted");
            }
        });
        Ok(())
    }

    /// Makes a call that is not written down: an edit, a reaction, a sign of typing.
    ///
    /// Typing that would have to wait is not sent. Of several edits of one message that wait, the last is made; for the
    /// others, nothing is.
    pub async fn make(self: &Arc<Self>, call: Call) -> Result<()> {
        let class = if matches!(call, Call::Typing { .. }) { Class::Typing } else { Class::Edit };
        // Typing does not wait.
        let _held = (class == Class::Edit).then(|| self.room.enter(call_size(&call))).transpose()?;
        let edit = match &call {
            Call::Edit { to, message_id, .. } => {
                let place = (to.clone(), message_id.clone());
                let mut state = self.lock();
                let count = state.edits.entry(place.clone()).or_default();
                *count += 1;
                Some((place, *count))
            }
            _ => None,
        };
        let outdated = || {
            edit.as_ref().is_some_and(|(place, count)| {
                self.lock().edits.get(place).is_none_or(|latest| latest != count)
            })
        };
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
        let outcome = loop {
            let Some(turn) = self.turn(call.to(), class).await else {
                if class == Class::Typing {
                    break Ok(());
                }
                let message = format!("the channel {} was closed", self.name);
                break Err(CoreError::new(Code::ChannelClosed, message));
            };
            if outdated() {
                turn.give_back();
                break Ok(());
            }
            match turn.call(&call).await {
                Ok(_) => break Ok(()),
                // To do these twice does no harm.
                Err(failed)
                    if class == Class::Edit && failed.fate != Fate::Refused && backoff.failures() < 5 =>
                {
                    if !asked_to_wait(&failed) {
                        tokio::time::sleep(backoff.next(self.surroundings.chance())).await;
                    }
                }
                Err(failed) if class == Class::Typing && failed.error.code() == Code::ChannelRateLimited => {
                    break Ok(());
                }
                Err(failed) => break Err(failed.error),
            }
        };
        if let Some((place, count)) = &edit {
            let mut state = self.lock();
            if state.edits.get(place) == Some(count) {
                state.edits.remove(place);
            }
        }
        outcome
    }

    /// Waits until a call may be made; none if it is to be shed, or if the channel closes.
    async fn turn(self: &Arc<Self>, chat: &str, class: Class) -> Option<Turn> {
        let mut waiting = Waits { outbox: self, waits: false };
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Before asking: what is freed in between counts.
            freed.as_mut().enable();
            if self.closing.is_cancelled() {
                return None;
            }
            let verdict = self.governor().admit(Instant::now(), chat, class);
            let until = match verdict {
                Verdict::Go => return Some(Turn::new(self, chat)),
                Verdict::Shed => return None,
                Verdict::At(at) => Some(at),
                Verdict::Busy => None,
            };
            if class == Class::Message {
                waiting.begin();
            }
            tokio::select! {
                () = async { match until { Some(at) => tokio::time::sleep_until(at).await, None => freed.await } } => {}
                () = self.closing.cancelled() => return None,
            }
        }
    }

    /// Whether a message was queued so long ago that it is given up, and that platforms may have forgotten its keys.
    fn is_old(&self, queued_at_ms: u64) -> bool {
        u128::from(self.surroundings.now_ms().saturating_sub(queued_at_ms)) > LONGEST.as_millis()
    }

    /// A message's turn, if it is now.
    fn turn_now(self: &Arc<Self>, chat: &str) -> Option<Turn> {
        let verdict = self.governor().admit(Instant::now(), chat, Class::Message);
        (verdict == Verdict::Go).then(|| Turn::new(self, chat))
    }

    /// The same for each attempt at a part of a message, and no other.
    fn part_key(&self, key: &str, queued_at_ms: u64, part: usize) -> String {
        let hash = blake3::hash(format!("{}\0{key}\0{queued_at_ms}\0{part}", self.name).as_bytes());
        HEXLOWER.encode(hash.as_bytes().get(..16).unwrap_or_default())
    }
}

/// The key of a message that was given none: it tells its parts apart for the platform, and nobody asks for it.
fn nobodys_key(n: u64, at_ms: u64) -> String {
    format!("-{n}-{at_ms}")
}

/// A task that sends, until it is dropped.
struct Sending {
    outbox: Arc<Outbox>,
}

impl Sending {
    fn new(outbox: &Arc<Outbox>) -> Self {
        outbox.sending.send_modify(|tasks| *tasks += 1);
        Self { outbox: Arc::clone(outbox) }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.outbox.sending.send_modify(|tasks| *tasks -= 1);
    }
}

/// Whether the platform said how long to wait; no time at all is no answer to that.
fn asked_to_wait(failed: &Failed) -> bool {
    failed.error.code() == Code::ChannelRateLimited
        && failed.error.details().retry_after_ms.is_some_and(|ms| ms > 0)
}

#[cfg(test)]
mod tests;
