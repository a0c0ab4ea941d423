//! The stream, on its way into this store.

use std::convert::Infallible;
use std::time::Instant;

use async_nats::{Message, StatusCode};
use futures_util::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};

use super::server::{Reader, Server};
use super::wire::{self, Envelope};
use super::{Fault, Gap, Link, Replicated};
use crate::{Code, CoreError, Result};

/// Messages that are asked for at a time.
const MESSAGES: usize = 256;
/// Bytes that are asked for at a time; at least four messages of the largest size.
const BYTES: usize = 4 << 20;
/// How long the server keeps an answer open, in heartbeats, when nothing comes.
const PATIENCE: u32 = 3;
const NOTE: &str = "received";

/// How far the stream is in this store.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Cursor {
    /// Which stream: when it was created.
    created: String,
    /// All messages up to this one are merged.
    sequence: u64,
    /// The id of that message.
    id: Option<String>,
    /// What left the stream before it was seen here.
    gap: Option<Gap>,
    /// Messages that could not be merged.
    rejected: u64,
}

/// A message that was read.
struct Found {
    sequence: u64,
    is_own: bool,
    subject: String,
    envelope: Envelope,
    payload: Vec<u8>,
}

pub(super) struct Inbox<L> {
    link: Link<L>,
    cursor: Cursor,
    unsaved: bool,
    saved_at: Instant,
    /// The end of the stream when it was first reached since the store was opened. What the stream has of this
    /// replica, and the store has not, can be its own past up to there.
    past: Option<u64>,
}

impl<L: Replicated> Inbox<L> {
    pub(super) async fn open(link: Link<L>) -> Result<Self, Fault> {
        let cursor: Cursor = link.read_note(NOTE).await?;
        let inbox = Self { link, cursor, unsaved: false, saved_at: Instant::now(), past: None };
        inbox.progress(None);
        Ok(inbox)
    }

    pub(super) fn received(&self) -> u64 {
        self.cursor.sequence
    }

    /// Whether the server's stream is the one that the cursor speaks of, with the same message in its place.
    pub(super) async fn is_of(&self, server: &Server) -> Result<bool, Fault> {
        server.holds(&self.cursor.created, self.cursor.sequence, self.cursor.id.as_deref()).await
    }

    /// Begins with the first message: to merge an event twice changes nothing.
    pub(super) fn restart(&mut self, server: &Server) {
        self.cursor = Cursor { created: server.extent.created.clone(), ..Cursor::default() };
        self.past = None;
        self.unsaved = true;
    }

    /// Receives until something fails.
    pub(super) async fn run(&mut self, server: &Server) -> Fault {
        match self.try_run(server).await {
            Ok(never) => match never {},
            Err(fault) => fault,
        }
    }

    async fn try_run(&mut self, server: &Server) -> Result<Infallible, Fault> {
        let pace = self.link.options.pace;
        self.past.get_or_insert(server.extent.last);
        let idle = pace.heartbeat.saturating_mul(2 * PATIENCE) + pace.answer;
        self.missed_before(server.extent.first);
        loop {
            let mut reader = server.read_after(self.cursor.sequence, idle).await?;
            self.progress(Some(reader.pending));
            self.read(server, &mut reader).await?;
            // A message was lost on the way here: read again from the cursor.
        }
    }

    /// Reads until a message is missing between two that came.
    async fn read(&mut self, server: &Server, reader: &mut Reader) -> Result<(), Fault> {
        let heartbeat = self.link.options.pace.heartbeat;
        let bytes = BYTES.max((server.limit + wire::HEADROOM).saturating_mul(4));
        let (mut asked, mut came, mut delivered) = (0_usize, true, 0_u64);
        loop {
            if asked == 0 {
                if !came {
                    return Err(Fault::Link("the server refuses to give messages".into()));
                }
                reader.ask(MESSAGES, bytes, heartbeat.saturating_mul(PATIENCE), heartbeat).await?;
                (asked, came) = (MESSAGES, false);
            }
            let mut batch = Vec::new();
            let mut next = Some(self.next(reader).await?);
            while let Some(message) = next {
                match message.status {
                    None | Some(StatusCode::OK) => {
                        asked = asked.saturating_sub(1);
                        came = true;
                        batch.push(message);
                    }
                    Some(StatusCode::IDLE_HEARTBEAT) => {}
                    Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => (asked, came) = (0, true),
                    Some(status) => {
                        let said = message.description.unwrap_or_default();
                        // The bytes that were asked for are used up; anything else is the end of this reading.
                        if status.as_u16() != 409 || said.to_ascii_lowercase().contains("consumer") {
                            return Err(Fault::Link(format!(
                                "the server stopped giving messages: {status} {said}"
                            )));
                        }
                        asked = 0;
                    }
                }
                next = (batch.len() < MESSAGES)
                    .then(|| reader.messages.next().now_or_never().flatten())
                    .flatten();
            }
            if !self.take(server, batch, &mut delivered).await? {
                return Ok(());
            }
            if self.unsaved && self.saved_at.elapsed() >= self.link.options.pace.save {
                self.save().await?;
            }
        }
    }

    /// Waits for a message or a sign of life; saves the cursor meanwhile.
    async fn next(&mut self, reader: &mut Reader) -> Result<Message, Fault> {
        let pace = self.link.options.pace;
        let silence = tokio::time::Instant::now() + pace.heartbeat.saturating_mul(2) + pace.answer;
        loop {
            let due = tokio::time::Instant::from_std(self.saved_at + pace.save);
            let wake = if self.unsaved { silence.min(due) } else { silence };
            match tokio::time::timeout_at(wake, reader.messages.next()).await {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => return Err(Fault::Link("the connection was lost".into())),
                Err(_) if self.unsaved && wake < silence => self.save().await?,
                Err(_) => return Err(Fault::Link("the server has fallen silent".into())),
            }
        }
    }

    /// Takes in messages in order; false if one was lost on the way.
    async fn take(
        &mut self,
        server: &Server,
        batch: Vec<Message>,
        delivered: &mut u64,
    ) -> Result<bool, Fault> {
        let own = self.link.log.replica();
        let (mut found, mut own_found, mut cursor) = (Vec::new(), Vec::new(), None);
        let (mut complete, mut pending) = (true, None);
        for message in batch {
            let place = server.place(&message)?;
            if place.delivered != *delivered + 1 {
                complete = false;
                break;
            }
            *delivered = place.delivered;
            let before = cursor.as_ref().map_or(self.cursor.sequence, |(sequence, _)| *sequence);
            self.missed(before + 1, place.sequence);
            let headers = message.headers.unwrap_or_default();
            cursor = Some((place.sequence, wire::message_id(&headers)));
            pending = Some(place.pending);
            let envelope = match Envelope::of(&headers) {
                Ok(envelope) => envelope,
                Err(what) => {
                    self.reject(place.sequence, &what);
                    continue;
                }
            };
            // Of a large event only the last part counts: it leads to the others.
            if !envelope.completes(message.payload.len()) {
                continue;
            }
            let is_own = wire::replica_of(&message.subject) == Some(own.as_str());
            if is_own {
                own_found.push(envelope.clone());
            }
            found.push(Found {
                sequence: place.sequence,
                is_own,
                subject: message.subject.to_string(),
                envelope,
                payload: message.payload.into(),
            });
        }
        let mut known = match self.link.check_own(own_found).await {
            Ok(known) => known.into_iter(),
            Err(Fault::Conflict(what)) => {
                self.link.conflict(&what);
                Vec::new().into_iter()
            }
            Err(fault) => return Err(fault),
        };
        found.retain(|one| !one.is_own || known.next() == Some(false));
        let past = self.past.unwrap_or(0);
        if let Some(alien) = found.iter().find(|one| one.is_own && one.sequence > past) {
            self.link.conflict(&format!(
                "event {} of replica `{own}` came into the stream, and this store, which is open, did not write it: another store has the same name; open it under another `replica`, from an empty store",
                alien.envelope.last
            ));
            found.retain(|one| !one.is_own);
        }
        let merges = self.unpack(server, found).await?;
        self.merge(merges).await?;
        if let Some((sequence, id)) = cursor {
            self.cursor.sequence = sequence;
            self.cursor.id = id;
            self.unsaved = true;
            self.progress(pending);
        }
        Ok(complete)
    }

    /// The changes in messages, each with the message's sequence.
    async fn unpack(&mut self, server: &Server, found: Vec<Found>) -> Result<Vec<(u64, Vec<u8>)>, Fault> {
        let mut all = Vec::new();
        for one in found {
            let sequence = one.sequence;
            let body = self.assemble(server, one).await?;
            match body.and_then(|body| wire::split(&body)) {
                Ok(changes) => all.extend(changes.into_iter().map(|one| (sequence, one))),
                Err(what) => self.reject(sequence, &what),
            }
        }
        Ok(all)
    }

    async fn merge(&mut self, changes: Vec<(u64, Vec<u8>)>) -> Result<(), Fault> {
        if changes.is_empty() {
            return Ok(());
        }
        // Together, so that one flush serves them all.
        let (places, changes): (Vec<_>, Vec<_>) = changes.into_iter().unzip();
        match self.link.log.merge(&changes).await {
            Ok(()) => return Ok(()),
            Err(error) if is_the_messages_fault(&error) => {}
            Err(error) => return Err(Fault::Store(error)),
        }
        // One of them is at fault: the others go in without it.
        for (sequence, one) in places.into_iter().zip(changes) {
            match self.link.log.merge(&[one]).await {
                Ok(()) => {}
                Err(error) if is_the_messages_fault(&error) => self.reject(sequence, error.message()),
                Err(error) => return Err(Fault::Store(error)),
            }
        }
        Ok(())
    }

    /// The body that a message carries or, being the last of several parts, completes.
    async fn assemble(&mut self, server: &Server, last: Found) -> Result<Result<Vec<u8>, String>, Fault> {
        let Found { subject, envelope: last, payload, .. } = last;
        let Some(mut part) = last.part.clone() else { return Ok(Ok(payload)) };
        let most = self.link.log.max_changes_bytes().saturating_add(4);
        if part.total > most {
            return Ok(Err(format!("it is of {} bytes; this store takes {most}", part.total)));
        }
        let total = part.total;
        let mut pieces = vec![payload];
        while part.offset > 0 {
            let Some(before) = server.message(part.previous).await? else {
                self.missed(part.previous, part.previous + 1);
                return Ok(Err(format!("its part in message {} is gone", part.previous)));
            };
            let envelope = Envelope::of(&before.headers).ok();
            let fits = envelope.filter(|envelope| {
                before.subject == subject
                    && (envelope.last, envelope.hash) == (last.last, last.hash)
                    && envelope.part.as_ref().is_some_and(|earlier| {
                        earlier.total == total && earlier.offset + before.payload.len() == part.offset
                    })
            });
            let Some(earlier) = fits.and_then(|envelope| envelope.part) else {
                return Ok(Err(format!("message {} is not its earlier part", part.previous)));
            };
            part = earlier;
            pieces.push(before.payload);
        }
        pieces.reverse();
        Ok(Ok(pieces.concat()))
    }

    /// Notes that the stream begins after the cursor.
    fn missed_before(&mut self, first: u64) {
        self.missed(self.cursor.sequence + 1, first);
    }

    /// Notes messages that are gone: `next` came, or is the first there, where `expected` should have.
    fn missed(&mut self, expected: u64, next: u64) {
        if next <= expected || self.cursor.gap.is_some_and(|gap| gap.last >= next - 1) {
            return;
        }
        let (from, count) = (expected, next - expected);
        let gap = self.cursor.gap.map_or(Gap { first: from, last: next - 1, messages: count }, |gap| Gap {
            last: next - 1,
            messages: gap.messages.saturating_add(count),
            ..gap
        });
        tracing::warn!(
            stream = self.link.options.stream,
            first = from,
            last = next - 1,
            "the NATS stream no longer has messages that this store never saw; it may lack events of other stores: merge their `changes`"
        );
        self.cursor.gap = Some(gap);
        self.unsaved = true;
        self.progress(None);
    }

    fn reject(&mut self, sequence: u64, what: &str) {
        tracing::warn!(
            stream = self.link.options.stream,
            sequence,
            reason = what,
            "a message of the NATS stream cannot be merged and is passed over"
        );
        self.cursor.rejected = self.cursor.rejected.saturating_add(1);
        self.unsaved = true;
        self.progress(None);
    }

    fn progress(&self, pending: Option<u64>) {
        self.link.update(|status| {
            status.received = self.cursor.sequence;
            status.gap = self.cursor.gap;
            status.rejected = self.cursor.rejected;
            status.pending = pending.unwrap_or(status.pending);
        });
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

/// Whether trying again would be in vain.
fn is_the_messages_fault(error: &CoreError) -> bool {
    matches!(error.code(), Code::EventInvalid | Code::EventTooLarge | Code::Validation)
}
