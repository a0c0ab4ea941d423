//! A channel: one account of one platform, with its inbox, its outbox and its connection.
//!
//! Everything runs in tasks of the core's own runtime. JavaScript takes messages when it comes to that; until then the
//! connection stands, heartbeats go, and what arrives is acknowledged to the platform and waits on the disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{OnceCell, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::inbox::{self, Delivery, Inbox};
use super::lease::{self, Lease};
use super::log::Log;
use super::message::{Attachment, InboundMessage, OutboundMessage, SendReceipt};
use super::outbox::{self, Outbox, Room};
use super::platform::{Call, Link, Platform, Spool};
use super::{Boxed, GOODBYE, Surroundings};
use crate::memory::{Owner, owned};
use crate::runtime::blocking;
use crate::{Code, CoreError, Result};

/// Between reconnects.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// Between attempts while somebody else has the connection.
const FIRST_CONFLICT: Duration = Duration::from_secs(5);
const LONGEST_CONFLICT: Duration = Duration::from_mins(2);
/// A connection that lasted so long, and on which the platform answered, ends a row of failures.
const PROVEN: Duration = Duration::from_secs(10);
/// A connection that ended as the platform wished, and sooner than this, is made again only after a wait.
const SHORTEST_RUN: Duration = Duration::from_secs(1);

/// How a channel is opened.
#[derive(Clone)]
pub struct Options {
    /// The account; in OpenClaw's canonical form.
    pub account_id: String,
    /// Where inbox and outbox are.
    pub log: Arc<dyn Log>,
    /// Time and chance.
    pub surroundings: Arc<dyn Surroundings>,
    /// Where the locks are that keep a second channel out.
    pub locks: PathBuf,
}

/// What a channel is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelState {
    /// Nothing: it was not asked for messages yet, or was closed.
    #[default]
    Stopped,
    /// It connects: the platform has not answered yet.
    Connecting,
    /// The platform answers.
    Running,
    /// The connection broke; another attempt follows.
    Backoff,
    /// Somebody else receives for the same bot; another attempt follows.
    Conflict,
    /// It gave up: the token is wrong, or not wanted any more.
    Failed,
}

impl ChannelState {
    /// OpenClaw's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Connecting => "connecting",
            Self::Running => "running",
            Self::Backoff => "backoff",
            Self::Conflict => "conflict",
            Self::Failed => "failed",
        }
    }
}

/// How a channel is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// What it is doing.
    pub state: ChannelState,
    /// How long ago the platform last proved to be there.
    pub last_verified: Option<Duration>,
    /// Why it is not running; or what does not work although it does.
    pub error: Option<String>,
    /// Messages that wait to be sent.
    pub queued: usize,
    /// Messages that wait for JavaScript.
    pub waiting: usize,
}

/// See the module. Dropping it closes it, without waiting.
pub struct Channel {
    inner: Arc<Inner>,
}

struct Inner {
    platform: Arc<dyn Platform>,
    options: Options,
    /// The platform's name and the account's.
    name: String,
    opened: OnceCell<Opened>,
    room: Room,
    closing: CancellationToken,
    state: Mutex<Running>,
    /// It gave up, with this error.
    failed: watch::Sender<Option<(Code, String)>>,
    reading: AtomicBool,
}

#[derive(Default)]
struct Running {
    state: ChannelState,
    verified: Option<Instant>,
    error: Option<String>,
    receiving: Option<JoinHandle<()>>,
}

struct Opened {
    inbox: Arc<Inbox>,
    outbox: Arc<Outbox>,
    /// The inbox and the outbox have one owner.
    lease: Mutex<Option<Lease>>,
}

impl Opened {
    fn release(&self) {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.inner.closing.cancel();
    }
}

impl Channel {
    /// Nothing is opened or connected before the first call.
    pub fn new(platform: Box<dyn Platform>, options: Options) -> Self {
        let platform: Arc<dyn Platform> = platform.into();
        let inner = Inner {
            name: format!("{}:{}", platform.id(), options.account_id),
            platform,
            options,
            opened: OnceCell::new(),
            room: Room::new(outbox::WAITING_BYTES),
            closing: CancellationToken::new(),
            state: Mutex::default(),
            failed: watch::Sender::new(None),
            reading: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The platform's id.
    pub fn id(&self) -> &'static str {
        self.inner.platform.id()
    }

    /// The account.
    pub fn account_id(&self) -> &str {
        &self.inner.options.account_id
    }

    /// The next messages, at most so many and at least one, in the order of their chats; none once the channel is closed.
    /// The first call connects. `CHANNEL_AUTH` if the platform does not want this bot; `VALIDATION` if another call waits.
    pub async fn next(&self, most: usize) -> Result<Option<Vec<Delivery>>> {
        owned(Owner::Channels, self.take(most)).await
    }

    async fn take(&self, most: usize) -> Result<Option<Vec<Delivery>>> {
        let inner = &self.inner;
        if inner.closing.is_cancelled() {
            return Ok(None);
        }
        let opened = match inner.opened().await {
            Err(_) if inner.closing.is_cancelled() => return Ok(None),
            opened => opened?,
        };
        if inner.reading.swap(true, Ordering::AcqRel) {
            let message = "the messages of this channel are read already: one iteration at a time";
            return Err(CoreError::new(Code::Validation, message));
        }
        let _reading = Reading(&inner.reading);
        inner.receive();
        let mut failed = inner.failed.subscribe();
        let take = opened.inbox.take(most);
        tokio::pin!(take);
        let gave_up = tokio::select! {
            biased;
            () = inner.closing.cancelled() => return Ok(None),
            taken = &mut take => return taken.map(Some),
            error = failed.wait_for(Option::is_some) => error.ok().and_then(|error| error.clone()),
        };
        // What had come before is delivered first.
        if opened.inbox.has_more() {
            // It may wait for acknowledgements.
            return tokio::select! {
                biased;
                () = inner.closing.cancelled() => Ok(None),
                taken = take => taken.map(Some),
            };
        }
        gave_up.map_or(Ok(None), |(code, message)| Err(CoreError::new(code, message)))
    }

    /// JavaScript is done with these messages.
    pub async fn ack(&self, numbers: &[u64]) -> Result<()> {
        match self.inner.opened.get() {
            Some(opened) => opened.inbox.ack(numbers).await,
            None => Ok(()),
        }
    }

    /// JavaScript has not looked at these messages: they come again. Within a runtime.
    pub fn release(&self, numbers: &[u64]) {
        if let Some(opened) = self.inner.opened.get() {
            opened.inbox.release(numbers);
        }
    }

    /// Sends a message. The same key twice is one message. `LIMIT` while too much waits.
    pub async fn send(
        &self,
        message: OutboundMessage,
        key: Option<String>,
        cancel: &CancellationToken,
    ) -> Result<SendReceipt> {
        let send = async {
            let inner = &self.inner;
            // What comes while it is being opened waits in memory, too.
            let first = inner.opened.get().is_none();
            let held = first.then(|| inner.room.enter(outbox::size(&message))).transpose()?;
            let opened = inner.opened().await?;
            drop(held);
            opened.outbox.send(message, key, cancel).await
        };
        owned(Owner::Channels, send).await
    }

    /// Makes a call that is no message.
    pub async fn make(&self, call: Call) -> Result<()> {
        owned(Owner::Channels, async { self.inner.opened().await?.outbox.make(call).await }).await
    }

    /// Fetches an attachment.
    pub async fn download(&self, attachment: &Attachment, most: usize) -> Result<Bytes> {
        if self.inner.closing.is_cancelled() {
            return Err(self.inner.closed());
        }
        self.inner.platform.download(attachment, most).await
    }

    /// How it is.
    pub fn status(&self) -> Status {
        let (queued, waiting, held_back) = match self.inner.opened.get() {
            Some(Opened { inbox, outbox, .. }) => (outbox.queued(), inbox.waiting(), inbox.is_held_back()),
            None => (0, 0, false),
        };
        let held_back = held_back.then(|| {
            format!(
                "{} MiB of messages were delivered and not acknowledged: no more come until some of them are",
                inbox::FLYING >> 20
            )
        });
        let running = self.inner.lock();
        Status {
            state: running.state,
            last_verified: running.verified.map(|at| at.elapsed()),
            error: running.error.clone().or(held_back),
            queued,
            waiting,
        }
    }

    /// Says goodbye to the platform, and ends everything. What is queued stays on the disk, and goes out the next time.
    pub async fn close(&self) {
        self.inner.closing.cancel();
        let receiving = self.inner.lock().receiving.take();
        if let Some(task) = receiving {
            _ = task.await;
        }
        self.inner.set(ChannelState::Stopped, None);
        if let Some(opened) = self.inner.opened.get() {
            // Who opens the account next reads what became of what is being sent, and that nobody looked at what was taken.
            opened.outbox.ended().await;
            opened.inbox.ended().await;
            opened.release();
        }
    }
}

struct Reading<'a>(&'a AtomicBool);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Running> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: ChannelState, error: Option<&CoreError>) {
        let mut running = self.lock();
        if running.state != state {
            tracing::debug!(
                channel = self.name,
                from = running.state.as_str(),
                to = state.as_str(),
                "channel"
            );
        }
        running.state = state;
        if state != ChannelState::Connecting {
            running.error = error.map(|error| error.message().to_owned());
        }
    }

    fn closed(&self) -> CoreError {
        CoreError::new(Code::ChannelClosed, format!("the channel {} was closed", self.name))
    }

    async fn opened(&self) -> Result<&Opened> {
        if self.closing.is_cancelled() {
            return Err(self.closed());
        }
        let opened = self
            .opened
            .get_or_try_init(|| async {
                let Options { log, surroundings, locks, .. } = self.options.clone();
                let (writer, name) = (log.writer(), self.name.clone());
                let lease = blocking(move || {
                    Lease::acquire(&locks, &[b"journal", writer.as_bytes(), name.as_bytes()])
                });
                let Some(lease) = lease.await? else {
                    return Err(lease::taken(&format!(
                        "another channel {} with this event store is open",
                        self.name
                    )));
                };
                let inbox = Arc::new(Inbox::open(Arc::clone(&log), &self.name).await?);
                let (platform, closing) = (Arc::clone(&self.platform), self.closing.clone());
                let room = self.room.clone();
                let outbox = Outbox::open(log, &self.name, platform, surroundings, closing, room).await?;
                outbox.resume();
                Ok(Opened { inbox, outbox, lease: Mutex::new(Some(lease)) })
            })
            .await?;
        if self.closing.is_cancelled() {
            // It was closed meanwhile, and found nothing to release.
            opened.outbox.ended().await;
            opened.release();
            return Err(self.closed());
        }
        Ok(opened)
    }

    /// Starts to receive, once.
    fn receive(self: &Arc<Self>) {
        let mut running = self.lock();
        if running.receiving.is_none() && !self.closing.is_cancelled() {
            running.state = ChannelState::Connecting;
            running.receiving = Some(tokio::spawn(owned(Owner::Channels, Arc::clone(self).connections())));
        }
    }

    /// One connection after the other.
    async fn connections(self: Arc<Self>) {
        let chance = || self.options.surroundings.chance();
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut conflicts = Backoff::new(FIRST_CONFLICT, LONGEST_CONFLICT);
        let mut lease = None;
        while !self.closing.is_cancelled() {
            self.set(ChannelState::Connecting, None);
            let began = Instant::now();
            let outcome = match self.alone(&mut lease).await {
                Ok(()) => self.connection().await,
                Err(error) => Err(error),
            };
            if self.closing.is_cancelled() {
                break;
            }
            // One that answers, and breaks at once, again and again, is no better for having answered.
            let stood = began.elapsed() >= PROVEN;
            if stood && self.lock().verified.is_some_and(|verified| verified >= began) {
                backoff.reset();
                conflicts.reset();
            }
            let wait = match outcome {
                Ok(()) if began.elapsed() >= SHORTEST_RUN => Duration::ZERO,
                Ok(()) => backoff.next(chance()),
                Err(error) if error.code() == Code::ChannelAuth => {
                    tracing::error!(channel = self.name, %error, "the channel gives up");
                    self.set(ChannelState::Failed, Some(&error));
                    self.failed.send_replace(Some((error.code(), error.message().to_owned())));
                    return;
                }
                Err(error) => {
                    let conflict = error.code() == Code::ChannelConflict;
                    self.set(
                        if conflict { ChannelState::Conflict } else { ChannelState::Backoff },
                        Some(&error),
                    );
                    let random = if conflict {
                        conflicts.next(chance()).max(FIRST_CONFLICT)
                    } else {
                        backoff.next(chance())
                    };
                    let wait = error.details().retry_after_ms.map_or(random, Duration::from_millis);
                    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    tracing::warn!(channel = self.name, %error, wait_ms, "the connection ended");
                    wait
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.closing.cancelled() => {}
            }
        }
        self.set(ChannelState::Stopped, None);
    }

    /// Sees to it that no other process of this machine receives for the same bot.
    async fn alone(&self, lease: &mut Option<Lease>) -> Result<()> {
        let Some(identity) = self.platform.identity().filter(|_| lease.is_none()) else { return Ok(()) };
        let (locks, id) = (self.options.locks.clone(), self.platform.id());
        let taken =
            blocking(move || Lease::acquire(&locks, &[b"identity", id.as_bytes(), identity.expose()]));
        *lease = taken.await?;
        if lease.is_none() {
            return Err(lease::taken(&format!("another process receives for this {id} bot")));
        }
        Ok(())
    }

    /// One connection, to its end.
    async fn connection(self: &Arc<Self>) -> Result<()> {
        let closing = self.closing.clone();
        let link = Link::new(Arc::new(Gate::new(self)), closing.clone());
        let mut run = self.platform.run(&link);
        let run = std::future::poll_fn(move |context| {
            catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(context))).unwrap_or_else(|_| {
                let message = "the adapter panicked; this is a bug, please report it";
                Poll::Ready(Err(CoreError::new(Code::Internal, message)))
            })
        });
        tokio::select! {
            biased;
            outcome = run => outcome,
            () = async { closing.cancelled().await; tokio::time::sleep(GOODBYE).await } => Err(self.closed()),
        }
    }
}

/// What comes quicker is written several messages at a time: a write costs as much as a hundred messages in it.
const PACE: Duration = Duration::from_millis(8);

/// What a running platform writes to.
struct Gate {
    inner: Arc<Inner>,
    /// When the latest write began.
    began: Mutex<Option<Instant>>,
    /// One after the other, in their order.
    turn: tokio::sync::Mutex<()>,
}

impl Gate {
    fn new(inner: &Arc<Inner>) -> Self {
        Self { inner: Arc::clone(inner), began: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// Waits until the next write may begin. Those that come while one waits go with it.
    async fn pace(&self) {
        let began = || self.began.lock().unwrap_or_else(PoisonError::into_inner);
        let next = began().map(|began| began + PACE);
        let _turn = self.turn.lock().await;
        if let Some(next) = next {
            tokio::time::sleep_until(next).await;
        }
        *began() = Some(Instant::now());
    }
}

impl Spool for Gate {
    fn spool(&self, messages: Vec<InboundMessage>, cursor: Option<String>) -> Boxed<'_, Result<()>> {
        Box::pin(async move {
            let inner = &self.inner;
            let Some(opened) = inner.opened.get() else { return Err(inner.closed()) };
            let (id, account) = (inner.platform.id(), inner.options.account_id.as_str());
            let encode =
                |message| inbox::encode(message, id, account, inner.platform.album(message).as_deref());
            let messages: Vec<_> = messages.iter().map(encode).collect::<Result<_>>()?;
            if inner.platform.tells_again() {
                self.pace().await;
            }
            // In a task of its own: an adapter that drops this may not leave it half done.
            let inbox = Arc::clone(&opened.inbox);
            let spooled = tokio::spawn(async move { inbox.spool(messages, cursor).await });
            spooled.await.unwrap_or_else(|_| Err(inner.closed()))
        })
    }

    fn cursor(&self) -> Option<String> {
        self.inner.opened.get().and_then(|opened| opened.inbox.cursor())
    }

    fn notice(&self, notice: String) {
        self.inner.lock().error = Some(notice).filter(|notice| !notice.is_empty());
    }

    fn verified(&self) {
        let mut running = self.inner.lock();
        running.verified = Some(Instant::now());
        if running.state == ChannelState::Connecting {
            running.state = ChannelState::Running;
            running.error = None;
        }
    }
}

#[cfg(test)]
mod tests;
