//! This store's own events, on their way to the stream.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::time::Instant;

use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::server::{Last, Sent, Server};
use super::wire::{self, Envelope, Part};
use super::{Fault, Link, Own, Replicated};
use crate::{Result, runtime};

/// Bytes of events that are read from the store at a time.
const PAGE_BYTES: usize = 4 << 20;
/// Sessions whose messages are under way at a time. Those of one session go one after the other.
const SESSIONS_UNDER_WAY: usize = 32;
/// Subjects whose last sequence is remembered. A forgotten one costs a question to the server.
const SUBJECTS: usize = 10_000;
/// How often one message may find another in its place before that is no accident.
const REFUSALS: u32 = 3;
const NOTE: &str = "sent";

/// How far this store's events are in the stream.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Cursor {
    /// Which stream: when it was created.
    created: String,
    /// All events up to this one are in it.
    n: u64,
    /// A late message of ours: its stream sequence and id.
    sequence: u64,
    id: Option<String>,
}

pub(super) struct Outbox<L> {
    link: Link<L>,
    cursor: Cursor,
    unsaved: bool,
    saved_at: Instant,
    /// The last stream sequence of subjects, as far as known.
    lasts: HashMap<String, u64>,
}

/// What sending one session's events came to.
struct Done {
    subject: String,
    last: u64,
    id: Option<String>,
}

impl<L: Replicated> Outbox<L> {
    pub(super) async fn open(link: Link<L>) -> Result<Self, Fault> {
        let cursor: Cursor = link.read_note(NOTE).await?;
        link.update(|status| status.sent = cursor.n);
        Ok(Self { link, cursor, unsaved: false, saved_at: Instant::now(), lasts: HashMap::new() })
    }

    pub(super) fn sent(&self) -> u64 {
        self.cursor.n
    }

    /// Whether no stream was ever reached.
    pub(super) fn is_new(&self) -> bool {
        self.cursor.created.is_empty()
    }

    /// Whether the server's stream is the one that the cursor speaks of, with what was sent still in its place. A
    /// server that lost power may lose its newest messages.
    pub(super) async fn is_of(&self, server: &Server) -> Result<bool, Fault> {
        server.holds(&self.cursor.created, self.cursor.sequence, self.cursor.id.as_deref()).await
    }

    /// Begins with the first event; those already in the stream are found there and passed over.
    pub(super) fn restart(&mut self, server: &Server) {
        self.cursor = Cursor { created: server.extent.created.clone(), ..Cursor::default() };
        self.lasts.clear();
        self.unsaved = true;
    }

    /// Sends until something fails.
    pub(super) async fn run(&mut self, server: &Server) -> Fault {
        match self.try_run(server).await {
            Ok(never) => match never {},
            Err(Fault::Conflict(what)) => {
                self.link.conflict(&what);
                // What the others write is still taken in.
                std::future::pending().await
            }
            Err(fault) => fault,
        }
    }

    async fn try_run(&mut self, server: &Server) -> Result<Infallible, Fault> {
        if self.link.report.borrow().conflict.is_some() {
            return std::future::pending().await;
        }
        self.await_own_past(server).await?;
        let mut durable = self.link.log.durable();
        loop {
            let newest = *durable.borrow_and_update();
            self.progress(newest);
            while self.cursor.n < newest {
                self.send_page(server, newest).await?;
                self.progress(newest);
                if self.unsaved && self.saved_at.elapsed() >= self.link.options.pace.save {
                    self.save().await?;
                }
            }
            let due = tokio::time::Instant::from_std(self.saved_at + self.link.options.pace.save);
            tokio::select! {
                changed = durable.changed() => if changed.is_err() {
                    // The store is closing; the link is about to be stopped.
                    return std::future::pending().await;
                },
                () = tokio::time::sleep_until(due), if self.unsaved => self.save().await?,
            }
        }
    }

    /// A store that was restored from an older copy gets back what it wrote since, before it sends under the same
    /// numbers.
    async fn await_own_past(&self, server: &Server) -> Result<(), Fault> {
        let own = wire::subjects_of(&self.link.options.stream, &self.link.log.replica());
        let Some(last) = server.last(&own).await? else { return Ok(()) };
        if last.envelope.completes(last.bytes) && self.link.check_own(vec![last.envelope]).await? == [true] {
            return Ok(());
        }
        let mut report = self.link.report.subscribe();
        // It fails only when the report's sender is gone, which `self` holds.
        let _ = report.wait_for(|status| status.received >= last.sequence).await;
        Ok(())
    }

    fn progress(&self, newest: u64) {
        self.link.update(|status| {
            status.sent = self.cursor.n;
            status.unsent = newest.saturating_sub(self.cursor.n);
        });
    }

    /// Sends a page of events: of each session in order, of several sessions at once.
    async fn send_page(&mut self, server: &Server, newest: u64) -> Result<(), Fault> {
        if self.link.report.borrow().conflict.is_some() {
            return std::future::pending().await;
        }
        let (log, after) = (self.link.log.clone(), self.cursor.n);
        let page = runtime::blocking(move || log.own(after, newest, PAGE_BYTES)).await?;
        let mut sessions: HashMap<String, VecDeque<Own>> = HashMap::new();
        for event in page.events {
            sessions.entry(event.session_key.clone()).or_default().push_back(event);
        }
        let mut sending = stream::iter(sessions)
            .map(|(key, events)| self.send_session(server, key, events))
            .buffer_unordered(SESSIONS_UNDER_WAY);
        let (mut lasts, mut outcome) = (Vec::new(), Ok(()));
        while let Some(done) = sending.next().await {
            match done {
                Ok(done) => lasts.push(done),
                // The others go on to their end, so that what they sent is known.
                Err(fault) => outcome = outcome.and(Err(fault)),
            }
        }
        drop(sending);
        if self.lasts.len() > SUBJECTS {
            self.lasts.clear();
        }
        for done in lasts {
            if done.last > self.cursor.sequence && done.id.is_some() {
                self.cursor.sequence = done.last;
                self.cursor.id.clone_from(&done.id);
            }
            self.lasts.insert(done.subject, done.last);
        }
        outcome?;
        self.cursor.n = page.through.max(after.saturating_add(1));
        self.unsaved = true;
        Ok(())
    }

    async fn send_session(
        &self,
        server: &Server,
        key: String,
        mut events: VecDeque<Own>,
    ) -> Result<Done, Fault> {
        let subject = wire::subject(&self.link.options.stream, &key, &self.link.log.replica());
        let mut last = self.lasts.get(&subject).copied().unwrap_or(0);
        // A large event that is half in the stream: where its rest begins.
        let mut half: Option<Part> = None;
        let (mut refusals, mut id) = (0, None);
        while !events.is_empty() {
            let (count, envelope, payload) = next_message(&events, half.as_ref(), server.limit);
            let bytes = payload.len();
            match server.publish(subject.clone(), &envelope, last, payload).await? {
                Sent::At(sequence) => {
                    (last, refusals) = (sequence, 0);
                    id = wire::message_id(&envelope.headers("", 0, bytes));
                    if envelope.completes(bytes) {
                        events.drain(..count);
                        half = None;
                    } else {
                        half = envelope.part.map(|part| Part {
                            offset: part.offset + bytes,
                            previous: sequence,
                            ..part
                        });
                    }
                }
                Sent::NotNext if refusals < REFUSALS => {
                    refusals += 1;
                    (last, half) = self.resume(server, &subject, &mut events).await?;
                }
                Sent::NotNext => {
                    return Err(Fault::Conflict(format!(
                        "the subject {subject} has a new last message each time; only this store may write there"
                    )));
                }
            }
        }
        Ok(Done { subject, last, id })
    }

    /// Finds out what of these events is in the stream already: the answer to an earlier message may have been lost.
    async fn resume(
        &self,
        server: &Server,
        subject: &str,
        events: &mut VecDeque<Own>,
    ) -> Result<(u64, Option<Part>), Fault> {
        let Some(Last { sequence, envelope, bytes }) = server.last(subject).await? else {
            return Ok((0, None));
        };
        if envelope.completes(bytes) {
            let last = envelope.last;
            if self.link.check_own(vec![envelope]).await? != [true] {
                return Err(Fault::Conflict(format!(
                    "the subject {subject} has event {last}, which this store has not written; only this store may write there"
                )));
            }
            events.retain(|event| event.n > last);
            return Ok((sequence, None));
        }
        // A beginning of the event that is next is gone on with. Any other is left as it is: nobody reads it.
        let next = events.iter().position(|event| event.hash == envelope.hash);
        let half = envelope.part.filter(|part| {
            let next = next.and_then(|at| events.get(at));
            next.is_some_and(|event| part.total == wire::body_bytes(event))
        });
        // What comes before it in the session was sent before it.
        events.drain(..next.unwrap_or(0));
        Ok((sequence, half.map(|part| Part { offset: part.offset + bytes, previous: sequence, ..part })))
    }

    /// Writes the cursor.
    pub(super) async fn save(&mut self) -> Result<()> {
        if self.unsaved {
            self.link.write_note(NOTE, &self.cursor).await?;
            self.unsaved = false;
        }
        self.saved_at = Instant::now();
        Ok(())
    }
}

/// The next message: as many events as it holds, or the next part of one that is too large.
fn next_message(events: &VecDeque<Own>, half: Option<&Part>, limit: usize) -> (usize, Envelope, Vec<u8>) {
    let count = wire::fitting(events, limit);
    let (first, last) = (events.front(), events.get(count.saturating_sub(1)));
    let mut envelope = Envelope {
        first: first.map_or(0, |event| event.n),
        last: last.map_or(0, |event| event.n),
        hash: last.map_or([0; 32], |event| event.hash),
        part: None,
    };
    let Some(large) = first.filter(|event| wire::body_bytes(event) > limit) else {
        return (count, envelope, wire::join(events.iter().take(count)));
    };
    let part = half.cloned().unwrap_or(Part { offset: 0, total: wire::body_bytes(large), previous: 0 });
    let piece = wire::piece(large, part.offset, limit);
    envelope.part = Some(part);
    (count, envelope, piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_event_goes_in_parts_that_make_it_whole() {
        let changes: Vec<u8> = (0..10_000_u32).flat_map(u32::to_be_bytes).collect();
        let events = VecDeque::from([
            Own { n: 7, session_key: "s".into(), hash: [1; 32], changes },
            Own { n: 8, session_key: "s".into(), hash: [2; 32], changes: vec![1] },
        ]);
        let whole = wire::join([&events[0]]);
        let (mut half, mut got, mut sequence) = (None, Vec::new(), 40);
        loop {
            let (count, envelope, payload) = next_message(&events, half.as_ref(), 9_001);
            assert_eq!((count, envelope.first, envelope.last, envelope.hash), (1, 7, 7, [1; 32]));
            assert!(payload.len() <= 9_001);
            let part = envelope.part.clone().unwrap();
            assert_eq!((part.offset, part.total), (got.len(), whole.len()));
            let complete = envelope.completes(payload.len());
            got.extend_from_slice(&payload);
            if complete {
                break;
            }
            sequence += 3;
            half = Some(Part { offset: part.offset + payload.len(), previous: sequence, ..part });
        }
        assert_eq!(got, whole);
        let (count, envelope, _) = next_message(&events, None, 1 << 20);
        assert_eq!((count, envelope.first, envelope.last, envelope.part), (2, 7, 8, None));
    }
}
