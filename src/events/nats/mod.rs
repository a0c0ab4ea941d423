//! The log shared between gateways, through one NATS `JetStream` stream.
//!
//! Each store sends the events it wrote itself, and merges those of the others. The store is its own spool: what is
//! written while no server can be reached stays in the log, and the cursor in a note says how far it was sent.
//!
//! | part | does |
//! |---|---|
//! | [`wire`] | subjects, headers, payloads |
//! | [`server`] | one connection: credentials, the stream and its configuration |
//! | [`send`] | this store's events, in order, from its cursor on |
//! | [`receive`] | the stream, in order, from its cursor on, into `merge` |
//!
//! Nothing here is needed to open, read or write the store: the link runs beside it.

mod receive;
mod send;
mod server;
mod store;
mod wire;

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::receive::Inbox;
use self::send::Outbox;
use self::server::{Address, Server};
use self::wire::Envelope;
use crate::memory::{Owner, owned};
use crate::{Code, CoreError, Result, runtime};

/// What the link needs of a store.
pub trait Replicated: Clone + Send + Sync + 'static {
    /// The store's own name among the replicas: letters, digits, `_` and `-`.
    fn replica(&self) -> String;

    /// The number `n` of the newest event of this replica that a crash cannot take back. One that was sent before that
    /// could be lost here, and its number used again for another event.
    fn durable(&self) -> watch::Receiver<u64>;

    /// This replica's events after number `after` and up to `to`, in order: of about `max_bytes` together, one at
    /// least. Blocks.
    fn own(&self, after: u64, to: u64, max_bytes: usize) -> Result<Page>;

    /// What the store has of this replica's event `n`. Blocks.
    fn held(&self, n: u64) -> Result<Held>;

    /// Takes in what [`Own::changes`] gave on other replicas; done when it is durable. After an error some of it may
    /// have been taken in.
    fn merge(&self, changes: &[Vec<u8>]) -> impl Future<Output = Result<()>> + Send;

    /// Bytes that one event's changes may have.
    fn max_changes_bytes(&self) -> usize;

    /// A small durable cell. Blocks.
    fn note(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// Writes a small durable cell.
    fn set_note(&self, name: &str, value: Vec<u8>) -> impl Future<Output = Result<()>> + Send;
}

/// What a store has of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The event, with this hash.
    Event([u8; 32]),
    /// It was there, and was deleted or pruned.
    Gone,
    /// It never was.
    Never,
}

/// Events of one replica, in the order of their numbers.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The events.
    pub events: Vec<Own>,
    /// All that the store has of this replica up to this number is in the page, or was before it.
    pub through: u64,
}

/// An event that this replica wrote.
#[derive(Clone, Debug)]
pub struct Own {
    /// Its number among all that the replica wrote.
    pub n: u64,
    /// Its session.
    pub session_key: String,
    /// Its hash.
    pub hash: [u8; 32],
    /// What another replica merges: the same bytes each time.
    pub changes: Vec<u8>,
}

/// Where the log is shared.
#[derive(Clone, Debug)]
pub struct Options {
    servers: Arc<[Address]>,
    stream: String,
    credentials: Option<PathBuf>,
    /// How long things take and wait.
    pub pace: Pace,
}

/// How long the link waits for what.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// An answer of the server, or a connection.
    pub answer: Duration,
    /// Between signs of life when nothing happens.
    pub heartbeat: Duration,
    /// Before the second attempt to connect; doubled for each further one.
    pub retry: Duration,
    /// The most before any attempt.
    pub longest_retry: Duration,
    /// Between two writes of a cursor.
    pub save: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(10),
            heartbeat: Duration::from_secs(10),
            retry: Duration::from_millis(500),
            longest_retry: Duration::from_secs(30),
            save: Duration::from_secs(1),
        }
    }
}

/// Bytes of a stream's name.
const MAX_STREAM_BYTES: usize = 64;

impl Options {
    /// Checks what was given: URLs of servers, the stream's name, and the path of a credentials file.
    pub fn new(servers: &[String], stream: &str, credentials: Option<PathBuf>) -> Result<Self> {
        let fits = !stream.is_empty()
            && stream.len() <= MAX_STREAM_BYTES
            && stream.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !fits {
            let message = format!(
                "`nats.stream` must be 1 to {MAX_STREAM_BYTES} letters, digits, `_` or `-`, not {stream:?}"
            );
            return Err(CoreError::new(Code::Validation, message).at_path("nats.stream"));
        }
        let servers = server::addresses(servers)?;
        Ok(Self { servers, stream: stream.to_owned(), credentials, pace: Pace::default() })
    }
}

/// How the link fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// No server is reached, or none that will have us: [`Status::error`] says why.
    #[default]
    Connecting,
    /// Connected, with events to send or to take in.
    CatchingUp,
    /// All of ours is in the stream, and all of the stream is here.
    Live,
    /// The store is closed.
    Stopped,
}

/// Messages that left the stream before this store saw them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Gap {
    /// Stream sequence of the first.
    pub first: u64,
    /// Stream sequence of the last.
    pub last: u64,
    /// How many.
    pub messages: u64,
}

/// What is known of the link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// How it fares.
    pub state: State,
    /// The stream's name.
    pub stream: String,
    /// Host and port of the server, when connected.
    pub server: Option<String>,
    /// All of this replica's events up to this number are in the stream.
    pub sent: u64,
    /// How many more numbers there are to send.
    pub unsent: u64,
    /// All of the stream up to this sequence is in this store.
    pub received: u64,
    /// How many more messages there are to take in, as the server last said.
    pub pending: u64,
    /// Set when the stream lost messages that this store never saw. It may then lack events of others.
    pub gap: Option<Gap>,
    /// Messages that could not be merged, being damaged, too large or not of this kind.
    pub rejected: u64,
    /// Set when another store writes under this one's name: nothing is sent any more.
    pub conflict: Option<String>,
    /// Limits of the stream by which messages may go before a store has seen them.
    pub forgets: Option<String>,
    /// What went wrong last; cleared when it goes well again.
    pub error: Option<String>,
}

impl Status {
    /// Whether this store has all that the stream carried and has sent all its own. Never so after a gap.
    pub fn converged(&self) -> bool {
        self.state == State::Live && self.gap.is_none() && self.conflict.is_none() && self.rejected == 0
    }

    fn settle(&mut self) {
        self.state = if self.state == State::Stopped || self.server.is_none() {
            self.state
        } else if self.unsent > 0 || self.pending > 0 {
            State::CatchingUp
        } else {
            // Only now: a server that takes the connection and not the events has not mended anything.
            self.error = None;
            State::Live
        };
    }
}

/// Why a session with a server ended, or sending did.
#[derive(Debug)]
enum Fault {
    /// The network or the server failed: try again.
    Link(String),
    /// The server or its stream is set up such that it cannot be used: try again, an operator may mend it.
    Refused(String),
    /// Another store writes under this one's name.
    Conflict(String),
    /// The store itself failed.
    Store(CoreError),
}

impl Fault {
    fn link(action: &str, error: &dyn std::error::Error) -> Self {
        Self::Link(format!("cannot {action}: {}", server::causes(error)))
    }

    fn text(&self) -> &str {
        match self {
            Self::Link(text) | Self::Refused(text) | Self::Conflict(text) => text,
            Self::Store(error) => error.message(),
        }
    }
}

impl From<CoreError> for Fault {
    fn from(error: CoreError) -> Self {
        Self::Store(error)
    }
}

/// The running link of one store.
pub struct Replication {
    status: watch::Receiver<Status>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Replication {
    /// Starts the link. It never fails for want of a server: it goes on trying until it is stopped.
    pub fn start<L: Replicated>(log: L, options: Options) -> Result<Self> {
        let stop = CancellationToken::new();
        let first = Status { stream: options.stream.clone(), ..Status::default() };
        let (report, status) = watch::channel(first);
        let link = Link { log, options, report: Arc::new(report) };
        let runtime = runtime::runtime()?;
        let running = runtime.spawn(owned(Owner::Events, link.clone().run(stop.clone())));
        let task = runtime.spawn(async move {
            if let Err(error) = running.await {
                link.died(&error.to_string());
            }
        });
        Ok(Self { status, stop, task: Mutex::new(Some(task)) })
    }

    /// How it fares now.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// How it fares, from now on.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Stops, and writes the cursors. Must come before the store closes.
    pub async fn stop(&self) {
        self.stop.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

impl Drop for Replication {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl std::fmt::Debug for Replication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replication").field("status", &self.status()).finish_non_exhaustive()
    }
}

/// What sending and receiving share.
#[derive(Clone)]
struct Link<L> {
    log: L,
    options: Options,
    report: Arc<watch::Sender<Status>>,
}

impl<L: Replicated> Link<L> {
    async fn run(self, stop: CancellationToken) {
        let (mut outbox, mut inbox) = tokio::select! {
            opened = self.open_boxes() => match opened {
                Ok(boxes) => boxes,
                Err(fault) => {
                    self.failed(&fault);
                    self.update(|status| status.state = State::Stopped);
                    return;
                }
            },
            () = stop.cancelled() => return,
        };
        let mut attempt = 0_u32;
        loop {
            let begun = Instant::now();
            let before = (outbox.sent(), inbox.received());
            let fault = tokio::select! {
                fault = self.session(&mut outbox, &mut inbox, attempt) => fault,
                () = stop.cancelled() => break,
            };
            self.failed(&fault);
            if matches!(&fault, Fault::Store(error) if error.code() == Code::StoreClosed) {
                break;
            }
            let throve = before != (outbox.sent(), inbox.received())
                || begun.elapsed() >= self.options.pace.longest_retry;
            attempt = if throve { 0 } else { attempt.saturating_add(1) };
            let delay = backoff(&self.options.pace, attempt, RandomState::new().hash_one(attempt));
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = stop.cancelled() => break,
            }
        }
        for saved in [outbox.save().await, inbox.save().await] {
            if let Err(error) = saved {
                // What was sent or merged since the last save is sent or merged again, to no effect.
                tracing::debug!(stream = self.options.stream, %error, "the cursor of the NATS link was not saved");
            }
        }
        self.update(|status| {
            status.state = State::Stopped;
            status.server = None;
        });
    }

    async fn open_boxes(&self) -> Result<(Outbox<L>, Inbox<L>), Fault> {
        Ok((Outbox::open(self.clone()).await?, Inbox::open(self.clone()).await?))
    }

    /// One connection, from its beginning to its end.
    async fn session(&self, outbox: &mut Outbox<L>, inbox: &mut Inbox<L>, attempt: u32) -> Fault {
        let at = usize::try_from(attempt).unwrap_or_default();
        let Some(address) = self.options.servers.iter().cycle().nth(at % self.options.servers.len().max(1))
        else {
            return Fault::Refused("no server is named".into());
        };
        if address.bares_secrets() {
            tracing::warn!(
                server = address.name(),
                "a password for NATS is to cross a network unencrypted unless the server demands TLS: write tls:// in `nats.servers`"
            );
        }
        match self.prepare(address, outbox, inbox).await {
            Ok(server) => {
                tokio::select! {
                    fault = outbox.run(&server) => fault,
                    fault = inbox.run(&server) => fault,
                    () = server.lost.cancelled() => Fault::Link(format!("the connection to {} was lost", server.address)),
                }
            }
            Err(fault) => fault,
        }
    }

    async fn prepare(
        &self,
        address: &Address,
        outbox: &mut Outbox<L>,
        inbox: &mut Inbox<L>,
    ) -> Result<Server, Fault> {
        let server = Server::connect(&self.options, address, &self.log.replica()).await?;
        let sent_there = outbox.is_of(&server).await?;
        let received_there = inbox.is_of(&server).await?;
        if !sent_there || !received_there {
            if !outbox.is_new() {
                tracing::warn!(
                    stream = self.options.stream,
                    "the NATS stream is not the one this store knew: it was made anew, or lost its end; everything is sent and read again"
                );
            }
            outbox.restart(&server);
            inbox.restart(&server);
        }
        let forgets = server.forgets();
        if let Some(limits) = &forgets
            && self.report.borrow().forgets.as_ref() != Some(limits)
        {
            tracing::warn!(
                stream = self.options.stream,
                limits,
                "the NATS stream may drop events before every store has seen them"
            );
        }
        tracing::info!(stream = self.options.stream, server = server.address, "the NATS link is up");
        let newest = *self.log.durable().borrow();
        self.update(|status| {
            status.unsent = newest.saturating_sub(outbox.sent());
            status.pending = server.extent.last.saturating_sub(inbox.received());
            status.server = Some(server.address.clone());
            status.forgets = forgets;
        });
        Ok(server)
    }

    fn failed(&self, fault: &Fault) {
        let text = fault.text().to_owned();
        let known = self.report.borrow().error.as_ref() == Some(&text);
        if !known {
            // Once for each new cause: a server may be away for days.
            tracing::warn!(
                stream = self.options.stream,
                error = text,
                "the NATS link is down; what is written waits in the store"
            );
        }
        self.update(|status| {
            status.server = None;
            status.error = Some(text);
            if status.state != State::Stopped {
                status.state = State::Connecting;
            }
        });
    }

    /// A panic is a bug; it must not look like a server that is away.
    fn died(&self, why: &str) {
        tracing::error!(stream = self.options.stream, error = why, "the NATS link has died; report this bug");
        self.update(|status| {
            status.state = State::Stopped;
            status.server = None;
            status.error = Some(format!("the link has died: {why}"));
        });
    }

    fn conflict(&self, what: &str) {
        if self.report.borrow().conflict.is_none() {
            tracing::error!(
                stream = self.options.stream,
                replica = self.log.replica(),
                reason = what,
                "another store writes to the NATS stream under this store's name; no more is sent"
            );
        }
        self.update(|status| status.conflict = Some(what.to_owned()));
    }

    fn update(&self, change: impl FnOnce(&mut Status)) {
        self.report.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            status.settle();
            *status != before
        });
    }

    /// For events of this replica that were found in the stream, whether this store has them. One that it never had
    /// is its own past, when it was restored from an older copy; one that it has otherwise is another store's.
    async fn check_own(&self, found: Vec<Envelope>) -> Result<Vec<bool>, Fault> {
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let log = self.log.clone();
        let held = runtime::blocking(move || {
            found.into_iter().map(|one| Ok((log.held(one.last)?, one))).collect::<Result<Vec<_>>>()
        });
        let known = held.await?.into_iter().map(|(held, envelope)| match held {
            Held::Event(hash) if hash != envelope.hash => Err(Fault::Conflict(format!(
                "event {} of replica `{}` in the stream is another than the one here: two stores have the same name, or this one was restored from an older copy and written to; open it under another `replica`, from an empty store",
                envelope.last,
                self.log.replica()
            ))),
            Held::Event(_) | Held::Gone => Ok(true),
            Held::Never => Ok(false),
        });
        known.collect()
    }

    async fn read_note<T: DeserializeOwned + Default + Send + 'static>(
        &self,
        name: &'static str,
    ) -> Result<T, Fault> {
        let (log, key) = (self.log.clone(), self.note_name(name));
        let note = runtime::blocking(move || log.note(&key)).await?;
        // A note of an unknown form is as none: the link then starts from the beginning, which is safe.
        Ok(note.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
    }

    async fn write_note(&self, name: &'static str, value: &impl Serialize) -> Result<()> {
        let bytes = serde_json::to_vec(value).map_err(|error| {
            CoreError::new(Code::Internal, format!("a cursor cannot be written: {error}")).caused_by(error)
        })?;
        self.log.set_note(&self.note_name(name), bytes).await
    }

    fn note_name(&self, name: &str) -> String {
        format!("nats/{}/{name}", self.options.stream)
    }
}

/// The time before an attempt: anything up to a bound that doubles with each, so that gateways which lost the same
/// server do not return to it at once.
fn backoff(pace: &Pace, attempt: u32, random: u64) -> Duration {
    let doubled = pace.retry.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX));
    let bound = doubled.min(pace.longest_retry);
    let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random % nanos.saturating_add(1).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_spread_over_all_of_it() {
        let pace = Pace::default();
        for attempt in 0..200 {
            let bound = pace.retry.saturating_mul(2_u32.saturating_pow(attempt)).min(pace.longest_retry);
            let waits: Vec<_> =
                (0..500_u64).map(|i| backoff(&pace, attempt, RandomState::new().hash_one(i))).collect();
            assert!(waits.iter().all(|wait| *wait <= bound), "{attempt}");
            assert!(waits.iter().any(|wait| *wait > bound * 9 / 10), "{attempt}");
            assert!(waits.iter().any(|wait| *wait < bound / 10), "{attempt}");
        }
    }

    #[test]
    fn a_stream_name_that_is_no_plain_token_is_refused() {
        let servers = ["nats://127.0.0.1".to_owned()];
        assert!(Options::new(&servers, "openclaw-events_1", None).is_ok());
        for name in ["", "a.b", "a*", ">", "a b", "ä", "a/b", &"x".repeat(65)] {
            let error = Options::new(&servers, name, None).unwrap_err();
            assert_eq!(error.code(), Code::Validation, "{name}");
            assert_eq!(error.details().path.as_deref(), Some("nats.stream"));
        }
    }

    #[test]
    fn a_gap_a_conflict_or_a_rejected_message_is_no_convergence() {
        let live = Status { state: State::Live, server: Some("s".into()), ..Status::default() };
        assert!(live.converged());
        let gap = Some(Gap { first: 1, last: 2, messages: 2 });
        assert!(!Status { gap, ..live.clone() }.converged());
        assert!(!Status { conflict: Some("x".into()), ..live.clone() }.converged());
        assert!(!Status { rejected: 1, ..live.clone() }.converged());
        let mut behind = Status { pending: 1, ..live };
        behind.settle();
        assert_eq!(behind.state, State::CatchingUp);
    }
}
