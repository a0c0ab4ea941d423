//! The way to a simulated platform, in memory: requests, streams, WebSockets, and the platform's calls of webhooks.
//!
//! It goes by tokio's clock. A test pauses that (`#[tokio::test(start_paused = true)]`) and nothing waits any more.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use crate::platform::{Id, Input, Output, Platform};
use crate::sim::Sim;
use crate::wire::{Frame, Request, Response};

/// The connection broke before an answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// What comes out of an open connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Of a stream.
    Chunk(Vec<u8>),
    Frame(Frame),
    /// The WebSocket was closed in form.
    Closed {
        code: u16,
        reason: String,
    },
    /// The stream ended in form.
    End,
    /// The connection broke.
    Broken,
}

/// A platform's call of a webhook: somebody carries it, and answers.
#[derive(Debug)]
pub struct Call {
    /// Its `path` is the whole URL.
    pub request: Request,
    answer: oneshot::Sender<Option<Response>>,
}

impl Call {
    /// `None`: it was not reached. A `Call` that is dropped was not reached either.
    pub fn answer(self, response: Option<Response>) {
        let _ = self.answer.send(response);
    }
}

enum Waiting {
    /// For the head of an answer, or for whether a WebSocket is accepted.
    Head(oneshot::Sender<Head>, mpsc::UnboundedReceiver<Event>, mpsc::UnboundedSender<Event>),
    Open(mpsc::UnboundedSender<Event>),
}

enum Head {
    Answer(Response),
    Stream(Response, mpsc::UnboundedReceiver<Event>),
    Accepted(mpsc::UnboundedReceiver<Event>),
}

struct State<P> {
    sim: Sim<P>,
    waiting: HashMap<Id, Waiting>,
    calls: Option<mpsc::UnboundedSender<Call>>,
    next: Id,
    /// Milliseconds by which the steady clock was moved on.
    skipped: u64,
}

struct Shared<P> {
    state: Mutex<State<P>>,
    /// Something happened: the next tick may be another, and the log longer.
    changed: Arc<Notify>,
    start: Instant,
    start_ms: u64,
}

/// The way to one platform. Clones lead to the same.
pub struct Net<P>(Arc<Shared<P>>);

impl<P> Clone for Net<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<P: Platform + 'static> Net<P> {
    /// Within a tokio runtime. It is `unix_ms` now.
    pub fn new(sim: Sim<P>, unix_ms: u64) -> Self {
        let state = State { sim, waiting: HashMap::new(), calls: None, next: 0, skipped: 0 };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Arc::default(),
            start: Instant::now(),
            start_ms: unix_ms,
        });
        tokio::spawn(tick(Arc::downgrade(&shared), Arc::clone(&shared.changed)));
        Self(shared)
    }

    /// Milliseconds of the simulation's steady clock.
    pub fn now(&self) -> u64 {
        self.0.now(self.0.lock().skipped)
    }

    /// Moves the steady clock on: everything that is due by then happens.
    pub fn advance(&self, ms: u64) {
        let target = self.now() + ms;
        loop {
            let wake = self.0.lock().sim.wake();
            let Some(wake) = wake.filter(|wake| *wake <= target) else { break };
            self.0.step(|state| {
                state.skipped = state.skipped.max(wake.saturating_sub(self.0.now(0)));
                let now = self.0.now(state.skipped);
                state.sim.tick(now)
            });
        }
        self.0.step(|state| {
            state.skipped = state.skipped.max(target.saturating_sub(self.0.now(0)));
            Vec::new()
        });
    }

    /// Looks at the simulation, or changes its faults.
    pub fn with<T>(&self, look: impl FnOnce(&mut Sim<P>) -> T) -> T {
        let result = look(&mut self.0.lock().sim);
        self.0.changed.notify_waiters();
        result
    }

    /// Breaks a connection without a word.
    pub fn cut(&self, id: Id) {
        self.0.step(|state| {
            let now = self.0.now(state.skipped);
            state.sim.cut(now, id)
        });
    }

    /// [`Platform::control`].
    pub fn control(&self, action: &str, arguments: &Value) -> Result<Value, String> {
        let mut result = Err(String::new());
        self.0.step(|state| {
            let now = self.0.now(state.skipped);
            let (outcome, outputs) = state.sim.control(now, action, arguments);
            result = outcome;
            outputs
        });
        result
    }

    /// From now on the platform's calls of webhooks come here.
    pub fn calls(&self) -> mpsc::UnboundedReceiver<Call> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.0.lock().calls = Some(sender);
        receiver
    }

    /// Waits until `look` finds something; it is asked again whenever something happened.
    pub async fn until<T>(&self, mut look: impl FnMut(&Sim<P>) -> Option<T>) -> T {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = look(&self.0.lock().sim) {
                return found;
            }
            changed.await;
        }
    }

    /// Asks; the answer's body is whole. Of a stream, use [`Net::open`]. Dropping the future hangs up.
    pub async fn request(&self, request: Request) -> Result<Response, Broken> {
        let (mut response, stream) = self.open(request).await?;
        if let Some(mut stream) = stream {
            loop {
                match stream.next().await {
                    Event::Chunk(bytes) => response.body.extend(bytes),
                    Event::End => break,
                    _ => return Err(Broken),
                }
            }
        }
        Ok(response)
    }

    /// Asks; gives the answer, and the rest if it is a stream.
    pub async fn open(&self, request: Request) -> Result<(Response, Option<Connection<P>>), Broken> {
        let (guard, head) = self.begin(|id| Input::Request { id, request });
        match head.await {
            Ok(Head::Answer(response)) => {
                guard.done();
                Ok((response, None))
            }
            Ok(Head::Stream(response, events)) => {
                Ok((response, Some(Connection { guard, events, pongs: true })))
            }
            Ok(Head::Accepted(_)) | Err(_) => {
                guard.done();
                Err(Broken)
            }
        }
    }

    /// Asks for a WebSocket; `Err(Some(_))` if it is refused.
    pub async fn connect(&self, request: Request) -> Result<Connection<P>, Option<Response>> {
        let (guard, head) = self.begin(|id| Input::Upgrade { id, request });
        match head.await {
            Ok(Head::Accepted(events)) => Ok(Connection { guard, events, pongs: true }),
            Ok(Head::Answer(response)) => {
                guard.done();
                Err(Some(response))
            }
            Ok(Head::Stream(..)) | Err(_) => {
                guard.done();
                Err(None)
            }
        }
    }

    fn begin(
        &self,
        input: impl FnOnce(Id) -> Input,
    ) -> (Guard<P>, impl Future<Output = Result<Head, oneshot::error::RecvError>>) {
        let (head_sender, head) = oneshot::channel();
        let (events, receiver) = mpsc::unbounded_channel();
        let mut given = 0;
        self.0.step(|state| {
            state.next += 1;
            given = state.next;
            state.waiting.insert(given, Waiting::Head(head_sender, receiver, events));
            let now = self.0.now(state.skipped);
            state.sim.on(now, input(given))
        });
        (Guard { net: self.clone(), id: given, open: true }, head)
    }
}

impl<P: Platform + 'static> Shared<P> {
    fn lock(&self) -> MutexGuard<'_, State<P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self, skipped: u64) -> u64 {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.start_ms + elapsed + skipped
    }

    fn step(self: &Arc<Self>, act: impl FnOnce(&mut State<P>) -> Vec<Output>) {
        {
            let mut state = self.lock();
            let outputs = act(&mut state);
            for output in outputs {
                state.carry(self, output);
            }
        }
        self.changed.notify_waiters();
    }
}

impl<P: Platform + 'static> State<P> {
    fn carry(&mut self, shared: &Arc<Shared<P>>, output: Output) {
        match output {
            Output::Answer { id, response } => {
                if let Some(Waiting::Head(head, _, _)) = self.waiting.remove(&id) {
                    let _ = head.send(Head::Answer(response));
                }
            }
            Output::Stream { id, response } => {
                if let Some(Waiting::Head(head, receiver, sender)) = self.waiting.remove(&id) {
                    let _ = head.send(Head::Stream(response, receiver));
                    self.waiting.insert(id, Waiting::Open(sender));
                }
            }
            Output::Accept { id } => {
                if let Some(Waiting::Head(head, receiver, sender)) = self.waiting.remove(&id) {
                    let _ = head.send(Head::Accepted(receiver));
                    self.waiting.insert(id, Waiting::Open(sender));
                }
            }
            Output::Chunk { id, bytes, .. } => self.event(id, Event::Chunk(bytes), false),
            Output::Frame { id, frame, .. } => self.event(id, Event::Frame(frame), false),
            Output::End { id } => self.event(id, Event::End, true),
            Output::Close { id, code, reason } => self.event(id, Event::Closed { code, reason }, true),
            Output::Cut { id } => self.event(id, Event::Broken, true),
            Output::Call { id, request } => {
                let (answer, answered) = oneshot::channel();
                // Without anybody who carries it, it is not reached.
                if let Some(calls) = &self.calls {
                    let _ = calls.send(Call { request, answer });
                }
                let weak = Arc::downgrade(shared);
                tokio::spawn(async move {
                    let response = answered.await.ok().flatten();
                    if let Some(shared) = weak.upgrade() {
                        shared.step(|state| {
                            let now = shared.now(state.skipped);
                            state.sim.on(now, Input::Called { id, response })
                        });
                    }
                });
            }
            Output::Violation { .. } | Output::Neglect { .. } => {}
        }
    }

    fn event(&mut self, id: Id, event: Event, last: bool) {
        if let Some(Waiting::Open(sender)) = self.waiting.get(&id) {
            let _ = sender.send(event);
        }
        // Whoever waits for the head learns of the break by the sender's end.
        if last {
            self.waiting.remove(&id);
        }
    }
}

impl<P> Drop for Shared<P> {
    fn drop(&mut self) {
        self.changed.notify_waiters();
    }
}

/// Lets the platform act when its time has come, until nobody holds it any more.
async fn tick<P: Platform + 'static>(shared: Weak<Shared<P>>, changed: Arc<Notify>) {
    loop {
        // Before looking: what changes in between counts.
        let changed = changed.notified();
        let wait = {
            let Some(shared) = shared.upgrade() else { return };
            let state = shared.lock();
            let now = shared.now(state.skipped);
            let wait = state.sim.wake().map(|wake| wake.saturating_sub(now));
            drop(state);
            if wait == Some(0) {
                shared.step(|state| {
                    let now = shared.now(state.skipped);
                    state.sim.tick(now)
                });
            }
            wait
        };
        match wait {
            Some(0) => tokio::task::yield_now().await,
            Some(wait) => {
                tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep(Duration::from_millis(wait)) => {}
                }
            }
            None => changed.await,
        }
    }
}

/// Hangs up when it is dropped.
struct Guard<P: Platform + 'static> {
    net: Net<P>,
    id: Id,
    open: bool,
}

impl<P: Platform + 'static> Guard<P> {
    fn done(mut self) {
        self.open = false;
    }

    fn hang_up(&mut self, code: Option<u16>) {
        if std::mem::take(&mut self.open) {
            let id = self.id;
            self.net.0.step(|state| {
                // The platform itself may have ended it.
                if state.waiting.remove(&id).is_none() {
                    return Vec::new();
                }
                let now = self.net.0.now(state.skipped);
                state.sim.on(now, Input::Gone { id, code })
            });
        }
    }
}

impl<P: Platform + 'static> Drop for Guard<P> {
    fn drop(&mut self) {
        self.hang_up(None);
    }
}

/// An open stream or WebSocket. Dropping it hangs up without a word.
pub struct Connection<P: Platform + 'static> {
    guard: Guard<P>,
    events: mpsc::UnboundedReceiver<Event>,
    pongs: bool,
}

impl<P: Platform + 'static> Connection<P> {
    /// Leaves pings to something beneath, which answers them.
    pub fn without_pongs(self) -> Self {
        Self { pongs: false, ..self }
    }

    /// Whether nothing passes any more, and nobody was told.
    pub fn half_open(&self) -> bool {
        let id = self.guard.id;
        self.guard.net.0.lock().sim.is_half_open(id)
    }

    pub fn id(&self) -> Id {
        self.guard.id
    }

    /// The next event; after the last, `Broken` for ever. A ping was answered by then, as WebSockets do that beneath.
    pub async fn next(&mut self) -> Event {
        let event = self.events.recv().await.unwrap_or(Event::Broken);
        if let Event::Frame(Frame::Ping(bytes)) = &event
            && self.pongs
        {
            self.send(Frame::Pong(bytes.clone()));
        }
        event
    }

    /// A ping is answered at once, unless the connection is half open.
    pub fn send(&self, frame: Frame) {
        let id = self.guard.id;
        let pong = match &frame {
            Frame::Ping(bytes) if self.pongs && !self.half_open() => Some(Frame::Pong(bytes.clone())),
            _ => None,
        };
        self.guard.net.0.step(|state| {
            if !state.waiting.contains_key(&id) {
                return Vec::new();
            }
            if let Some(pong) = pong {
                state.event(id, Event::Frame(pong), false);
            }
            let now = self.guard.net.0.now(state.skipped);
            state.sim.on(now, Input::Frame { id, frame })
        });
    }

    /// Closes in form.
    pub fn close(mut self, code: u16) {
        self.guard.hang_up(Some(code));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_simulation_that_nobody_holds_ends() {
        let platform = crate::slack::Slack::new(&serde_json::json!({})).unwrap();
        let net = Net::new(Sim::new(platform), 0);
        let shared = Arc::downgrade(&net.0);
        tokio::time::sleep(Duration::from_hours(1)).await;
        drop(net);
        tokio::task::yield_now().await;
        assert!(shared.upgrade().is_none());
    }
}
