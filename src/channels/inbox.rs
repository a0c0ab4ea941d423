//! The durable inbox: what a platform gave us, until JavaScript is done with it.
//!
//! A message is on the disk before the platform is told that it arrived (`spool`), and a mark that it is about to be
//! delivered is on the disk before it is: with the message itself where somebody waits for it, else later (`take`). After a
//! crash, what has no mark is delivered for the first time; what has one, but no acknowledgement, is delivered again and
//! says so (`redelivered`); and what was so [`DELIVERIES`] times is put aside: a message that ends the process each time
//! must not do so for ever. Delivered means handed to JavaScript, which takes new messages several at a time.
//!
//! Of what waits, [`HELD`] bytes are in memory too. What comes beyond that waits on the disk alone, and is read again when
//! its turn comes.
//!
//! What was delivered is in memory until it is acknowledged or released. Where that is [`FLYING`] bytes, nothing more is
//! delivered before some of it is; what comes meanwhile waits.
//!
//! Items of an album are messages of their own here, and one on the way out: they are held back until no more can come,
//! or until none has for [`queue::ALBUM`].

mod queue;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use self::queue::{Spilled, State, Waiting, delivery};
use super::Boxed;
use super::log::{Digest, Found, Journal, Line, Log, damaged, digest};
use super::message::InboundMessage;
use crate::{Code, CoreError, Result};

/// Messages of a segment, and segments whose ids are remembered: what was received before is passed over.
const SEGMENT: u32 = if cfg!(test) { 4 } else { 128 };
const KEPT: u64 = if cfg!(test) { 8 } else { 64 };
/// After so many deliveries that the process did not outlive, there is no other. More than two: a message may only have waited
/// for its turn each time.
const DELIVERIES: u32 = 4;
/// Bytes of waiting messages that are held in memory, and lines that are read at once where there are more.
const HELD: usize = 2 << 20;
const PAGE: usize = 64;
/// Bytes of delivered messages above which no more are delivered: thousands of slow turns, and no end of memory.
pub const FLYING: usize = 16 << 20;
/// The most bytes that the platform's own JSON is kept with.
const RAW: usize = 4 << 20;
/// The most bytes of an id of a line.
const ID: usize = 400;

const RECEIVED: &str = "channel_received";
const CURSOR: &str = "channel_cursor";
const MARKED: &str = "channel_marked";
const RELEASED: &str = "channel_released";
const ACKED: &str = "channel_acked";

/// A message on its way to JavaScript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// What [`Inbox::ack`] takes.
    pub number: u64,
    /// Whether a crash came between an earlier delivery and its acknowledgement.
    pub redelivered: bool,
    /// The message: an [`InboundMessage`] as JSON.
    pub json: Arc<str>,
}

/// A message on its way to the disk.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The same for the same message.
    pub id: String,
    /// The message: an [`InboundMessage`] as JSON, with the platform and the account.
    pub json: String,
}

#[derive(Serialize, Deserialize)]
struct Received<'a> {
    n: u64,
    #[serde(borrow)]
    m: &'a RawValue,
}

#[derive(Serialize, Deserialize)]
struct Numbers {
    n: Vec<u64>,
}

#[derive(Serialize, Deserialize)]
struct CursorLine {
    cursor: String,
}

/// What the inbox itself has to know of a message.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    id: String,
    #[serde(default)]
    chat: HasId,
    album_id: Option<String>,
}

#[derive(Default, Deserialize)]
struct HasId {
    id: String,
}

impl Head {
    fn read(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    fn album(&self) -> Option<Arc<str>> {
        let album = self.album_id.as_ref()?;
        // No chat's id holds a NUL.
        Some(format!("{}\0{album}", self.chat.id).into())
    }
}

/// Messages that go to the disk together.
struct Batch {
    segment: u64,
    numbers: Vec<u64>,
    ids: Vec<String>,
    /// The lines, one a message and then others.
    data: Vec<String>,
    /// Whether they wait on the disk alone.
    spilled: bool,
}

/// What [`Journal::append`] gives.
type Append = Boxed<'static, Result<Vec<String>>>;

enum Begun {
    Append(Batch, Append),
    /// There is nothing to write.
    Nothing,
    /// Another call is writing one of the messages: it has arrived once that is on the disk, and if it fails, comes again.
    Elsewhere,
}

/// See the module.
pub struct Inbox {
    journal: Journal,
    state: Mutex<State>,
    filled: Notify,
    /// What was on the way to the disk is there, or is not.
    settled: Notify,
    /// What was released and is on the way to the disk.
    releasing: Arc<watch::Sender<usize>>,
}

impl Inbox {
    /// Opens the inbox of an account; `name` is the platform's and the account's.
    pub async fn open(log: Arc<dyn Log>, name: &str) -> Result<Self> {
        struct Item {
            segment: u64,
            marks: u32,
            json: Option<Arc<str>>,
        }
        let (journal, Found { pasts, segments }) =
            Journal::open(log, &format!("{name}:in"), SEGMENT, KEPT).await?;
        let mut state = State::default();
        for (segment, data) in pasts {
            state.recall(segment, &data)?;
        }
        let mut items: BTreeMap<u64, Item> = BTreeMap::new();
        let mut given: BTreeMap<u64, u32> = BTreeMap::new();
        let mut ids: HashMap<Digest, u64> = HashMap::new();
        let mut held = 0;
        for segment in segments {
            given.insert(segment, 0);
            let mut after = None;
            loop {
                let lines = journal.lines(segment, after, PAGE).await?;
                let Some((last, ..)) = lines.last() else { break };
                after = Some(*last);
                for (_, kind, data) in lines {
                    let wrong = || damaged(&kind, &data);
                    let numbers = || serde_json::from_str::<Numbers>(&data).map_err(|_| wrong());
                    match kind.as_str() {
                        RECEIVED => {
                            let line: Received<'_> = serde_json::from_str(&data).map_err(|_| wrong())?;
                            let json = line.m.get();
                            let id = Head::read(json).ok_or_else(wrong)?.id;
                            state.seen.insert(digest(&id), segment);
                            // An append that was said to have failed, and was repeated in the next segment.
                            let before = ids.insert(digest(&id), line.n);
                            let before = before.and_then(|before| items.remove(&before));
                            held -= before.and_then(|item| item.json).map_or(0, |json| json.len());
                            state.next = state.next.max(line.n + 1);
                            *given.entry(segment).or_default() += 1;
                            let fits = held + json.len() <= HELD;
                            held += if fits { json.len() } else { 0 };
                            let json = fits.then(|| json.into());
                            items.insert(line.n, Item { segment, marks: 0, json });
                        }
                        CURSOR => {
                            let line: CursorLine = serde_json::from_str(&data).map_err(|_| wrong())?;
                            state.cursor = Some(line.cursor);
                        }
                        MARKED | RELEASED => {
                            for number in numbers()?.n {
                                if let Some(Item { marks, .. }) = items.get_mut(&number) {
                                    *marks =
                                        if kind == MARKED { *marks + 1 } else { marks.saturating_sub(1) };
                                }
                            }
                        }
                        ACKED => {
                            for number in numbers()?.n {
                                let done = items.remove(&number).and_then(|item| item.json);
                                held -= done.map_or(0, |json| json.len());
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
        let mut aside = Vec::new();
        let mut open: BTreeMap<u64, u32> = BTreeMap::new();
        let now = Instant::now();
        for (number, Item { segment, marks, json }) in items {
            if marks >= DELIVERIES {
                aside.push(number);
                continue;
            }
            *open.entry(segment).or_default() += 1;
            let redelivered = marks > 0;
            // From the first that is not here on, all of them are read again: they have one order.
            match json.filter(|_| state.spilled.is_empty()) {
                Some(json) => state.restore(number, segment, redelivered, json, now),
                None => {
                    state.spill(Spilled { segment, first: number, last: number, stored: true, redelivered });
                }
            }
        }
        for (segment, given) in given {
            journal.restore(segment, given, open.get(&segment).copied().unwrap_or(0));
        }
        if !aside.is_empty() {
            tracing::warn!(
                channel = name,
                messages = aside.len(),
                "the process ended {DELIVERIES} times while these messages were dealt with: they are not delivered again"
            );
            journal.note(Line::new(ACKED, numbers(aside))).await?;
        }
        let (filled, settled) = (Notify::new(), Notify::new());
        Ok(Self { journal, state: Mutex::new(state), filled, settled, releasing: Arc::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the platform's log was read to.
    pub fn cursor(&self) -> Option<String> {
        self.lock().cursor.clone()
    }

    /// Whether [`Inbox::take`] would give something, or is about to.
    pub fn has_more(&self) -> bool {
        let state = self.lock();
        state.marking > 0 || state.waiting() > 0
    }

    /// Messages that wait to be delivered.
    pub fn waiting(&self) -> usize {
        self.lock().waiting()
    }

    /// Whether messages wait only because too many that were delivered are not acknowledged.
    pub fn is_held_back(&self) -> bool {
        let state = self.lock();
        state.is_full() && state.waiting() > 0
    }

    /// Writes messages to the disk, with the cursor. What was received before is passed over.
    pub async fn spool(&self, mut messages: Vec<Incoming>, cursor: Option<String>) -> Result<()> {
        let (batch, append) = loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            // Before looking: what is settled in between counts.
            settled.as_mut().enable();
            match self.begin(&mut messages, cursor.as_ref()) {
                Begun::Append(batch, append) => break (batch, append),
                Begun::Nothing => return Ok(()),
                Begun::Elsewhere => settled.await,
            }
        };
        let outcome = append.await;
        let dropped = self.settle(&batch, &outcome, cursor);
        self.filled.notify_one();
        if outcome.is_err() {
            self.journal.give_back(batch.segment, dropped);
        }
        if dropped > 0 {
            self.done(batch.segment, dropped).await;
        }
        outcome.map(drop)
    }

    /// So many messages of a segment are acknowledged, or were not stored.
    async fn done(&self, segment: u64, messages: u32) {
        let past = |segment| self.lock().past(segment);
        self.journal.done(segment, messages, past).await;
    }

    /// Gives messages their places, in memory and on the way to the disk.
    fn begin(&self, messages: &mut Vec<Incoming>, cursor: Option<&String>) -> Begun {
        let mut state = self.lock();
        if messages.iter().any(|message| state.storing.contains(&digest(&message.id))) {
            return Begun::Elsewhere;
        }
        let mut lines = Vec::new();
        let mut mine: Vec<u64> = Vec::new();
        let mut fresh: Vec<Incoming> = Vec::new();
        for message in std::mem::take(messages) {
            if state.seen.contains_key(&digest(&message.id))
                || fresh.iter().any(|other| other.id == message.id)
            {
                continue;
            }
            let number = state.next;
            state.next += 1;
            lines.push(Line {
                kind: RECEIVED,
                data: format!(r#"{{"n":{number},"m":{}}}"#, message.json),
                id: Some(line_id(&message.id)),
            });
            mine.push(number);
            fresh.push(message);
        }
        if lines.is_empty() && (cursor.is_none() || cursor == state.cursor.as_ref()) {
            return Begun::Nothing;
        }
        let (segment, new) = self.journal.place(u32::try_from(mine.len()).unwrap_or(u32::MAX));
        if new {
            state.seen.retain(|_, of| *of + KEPT >= segment);
        }
        let heads: Vec<Option<Head>> = fresh.iter().map(|message| Head::read(&message.json)).collect();
        let bytes: usize = fresh.iter().map(|message| message.json.len()).sum();
        let spilled = !state.spilled.is_empty() || state.held + bytes > HELD;
        // Somebody waits, and nothing is before them or holds them back: they are marked in the same step.
        let at_once = !spilled
            && state.waiting.is_empty()
            && heads.iter().flatten().all(|head| head.album_id.is_none());
        let mut flown = state.flown;
        let fit = fresh.iter().take_while(|message| {
            let fits = flown < FLYING;
            flown += message.json.len();
            fits
        });
        let marked = if at_once { state.wanted.min(fit.count()) } else { 0 };
        if marked > 0 {
            state.wanted = 0;
            let numbered = mine.iter().take(marked).copied().collect();
            lines.push(Line::new(MARKED, numbers(numbered)));
        }
        if let Some(cursor) = cursor.cloned() {
            let line = serde_json::to_string(&CursorLine { cursor }).unwrap_or_default();
            lines.push(Line::new(CURSOR, line));
        }
        let now = Instant::now();
        let mut ids = Vec::with_capacity(fresh.len());
        state.storing.extend(fresh.iter().map(|message| digest(&message.id)));
        for (at, ((number, message), head)) in mine.iter().zip(fresh).zip(heads).enumerate() {
            let Incoming { id, json } = message;
            ids.push(id);
            if let Some(head) = &head {
                state.arrived(head, now);
            }
            if spilled {
                continue;
            }
            let album = head.and_then(|head| head.album());
            let json = json.into();
            state.push(Waiting {
                number: *number,
                segment,
                redelivered: false,
                stored: false,
                marked: at < marked,
                album,
                json,
            });
        }
        if let (true, Some(&first), Some(&last)) = (spilled, mine.first(), mine.last()) {
            // By itself until it is on the disk: it is settled by itself.
            let range = Spilled { segment, first, last, stored: false, redelivered: false };
            state.spilled.push_back(range);
        }
        // Within the lock, so that what waits and what is written have one order.
        let data: Vec<String> = lines.iter().map(|line| line.data.clone()).collect();
        let append = self.journal.append(segment, lines);
        Begun::Append(Batch { segment, numbers: mine, ids, data, spilled }, append)
    }

    /// A batch is on the disk, or is not; how many of its messages are of no use.
    fn settle(&self, batch: &Batch, outcome: &Result<Vec<String>>, cursor: Option<String>) -> u32 {
        let Batch { segment, numbers, ids, data, spilled } = batch;
        let mut state = self.lock();
        for id in ids {
            state.storing.remove(&digest(id));
        }
        self.settled.notify_waiters();
        // Another line has the id of one of these: an append that was said to have failed is on the disk all the same, and
        // it is delivered under the number that it has there.
        let mut twins: Vec<u64> = Vec::new();
        let mut found: Vec<(u64, Arc<str>)> = Vec::new();
        match outcome {
            Err(_) => twins.clone_from(numbers),
            Ok(held) => {
                for (at, (number, id)) in numbers.iter().zip(ids).enumerate() {
                    let Some(held) = held.get(at).filter(|held| data.get(at) != Some(held)) else {
                        continue;
                    };
                    twins.push(*number);
                    let line = serde_json::from_str::<Received<'_>>(held).ok();
                    let lost =
                        |line: &Received<'_>| !state.seen.contains_key(&digest(id)) && !state.has(line.n);
                    if let Some(line) = line.filter(lost) {
                        found.push((line.n, line.m.get().into()));
                    }
                }
            }
        }
        let dropped = u32::try_from(twins.len() - found.len()).unwrap_or(u32::MAX);
        if let (true, Some(first), Some(last)) = (*spilled, numbers.first(), numbers.last()) {
            state.settle_spilled(*first, *last, outcome.is_ok(), &twins);
        } else {
            for number in numbers {
                let Some(place) = state.place(*number) else { continue };
                if twins.contains(number) {
                    state.remove(place);
                } else if let Some(waiting) = state.waiting.get_mut(place) {
                    waiting.stored = true;
                }
            }
        }
        for (number, json) in found {
            let (redelivered, stored, marked) = (false, true, false);
            let album = Head::read(&json).and_then(|head| head.album());
            state.insert(Waiting { number, segment: *segment, redelivered, stored, marked, album, json });
        }
        if outcome.is_ok() {
            state.seen.extend(ids.iter().map(|id| (digest(id), *segment)));
            if cursor.is_some() {
                state.cursor = cursor;
            }
        }
        dropped
    }

    /// Reads what waits on the disk alone, as far as there is room for it.
    async fn refill(&self) -> Result<()> {
        loop {
            let (segment, after) = {
                let state = self.lock();
                let Some(first) = state.spilled.front().filter(|first| first.stored) else { return Ok(()) };
                if state.held > HELD / 2 {
                    return Ok(());
                }
                let read_to = state.read_to.filter(|(segment, _)| *segment == first.segment);
                (first.segment, read_to.map(|(_, after)| after))
            };
            let lines = self.journal.lines(segment, after, PAGE).await?;
            let mut state = self.lock();
            if lines.is_empty() {
                let gone = CoreError::new(
                    Code::StoreCorrupt,
                    "messages that waited on the disk are not there any more: they are lost",
                );
                tracing::error!(error = %gone, segment, "the inbox");
                state.spilled.retain(|range| range.segment != segment || !range.stored);
                continue;
            }
            for (position, kind, data) in lines {
                if kind == RECEIVED {
                    let line: Received<'_> =
                        serde_json::from_str(&data).map_err(|_| damaged(&kind, &data))?;
                    let Some(range) = state.spilled.front_mut().filter(|range| range.segment == segment)
                    else {
                        break;
                    };
                    if line.n >= range.first {
                        if !range.stored {
                            break;
                        }
                        let redelivered = range.redelivered;
                        range.first = line.n + 1;
                        if range.first > range.last {
                            state.spilled.pop_front();
                        }
                        let json: Arc<str> = line.m.get().into();
                        let album = Head::read(&json).and_then(|head| head.album());
                        state.push(Waiting {
                            number: line.n,
                            segment,
                            redelivered,
                            stored: true,
                            marked: false,
                            album,
                            json,
                        });
                    }
                }
                state.read_to = Some((segment, position));
            }
        }
    }

    /// The next messages, in the order of their chats, once their marks are on the disk; waits for one at least. Dropping the
    /// future loses nothing. One caller at a time.
    ///
    /// Where too much was delivered and is not acknowledged, it waits for that.
    ///
    /// What is delivered again comes alone. Of several that are taken together, the last may have been looked at by nobody
    /// when the process ends; were it marked so each time, it would be put aside unseen.
    pub async fn take(&self, most: usize) -> Result<Vec<Delivery>> {
        let wanted = Wanted(self);
        let taken = loop {
            self.refill().await?;
            let notified = self.filled.notified();
            let ready = {
                let mut state = self.lock();
                let ready = state.ready(most, Instant::now());
                if ready.is_err() {
                    state.wanted = most.max(1);
                }
                let full = state.is_full() && state.waiting() > 0;
                if full && !std::mem::replace(&mut state.complained, full) {
                    tracing::warn!(
                        delivered = state.flying.len(),
                        waiting = state.waiting(),
                        "no more messages are delivered until some of those that were are acknowledged"
                    );
                }
                if let Ok(taken) = &ready {
                    for message in taken {
                        state.fly(message.clone());
                    }
                    state.marking += taken.len();
                }
                ready
            };
            match ready {
                Ok(taken) => break taken,
                Err(Some(until)) => tokio::select! {
                    () = notified => {}
                    () = tokio::time::sleep_until(until) => {}
                },
                Err(None) => notified.await,
            }
        };
        drop(wanted);
        let mut back = Back { inbox: self, count: taken.len(), taken };
        let unmarked = back.taken.iter().flatten().filter(|waiting| !waiting.marked);
        let unmarked: Vec<u64> = unmarked.map(|waiting| waiting.number).collect();
        if !unmarked.is_empty() {
            self.journal.note(Line::new(MARKED, numbers(unmarked))).await?;
        }
        let taken = std::mem::take(&mut back.taken);
        Ok(taken.iter().filter_map(|items| delivery(items)).collect())
    }

    /// Messages that were taken, and that nobody looked at: they come again, and not as redelivered.
    pub fn release(&self, numbered: &[u64]) {
        if numbered.is_empty() {
            return;
        }
        let released = self.put_back(numbered);
        if !released.is_empty() {
            // Whether it reaches the disk decides only how the message is called by who opens the inbox next.
            let note = self.journal.note_soon(Line::new(RELEASED, numbers(released)));
            let releasing = Releasing::new(&self.releasing);
            tokio::spawn(async move {
                _ = note.await;
                drop(releasing);
            });
        }
    }

    /// Waits until what was released is on the disk.
    pub async fn ended(&self) {
        _ = self.releasing.subscribe().wait_for(|notes| *notes == 0).await;
    }

    fn put_back(&self, numbered: &[u64]) -> Vec<u64> {
        let mut state = self.lock();
        let back: Vec<Waiting> = numbered.iter().flat_map(|number| state.land(*number)).collect();
        let released = back.iter().map(|waiting| waiting.number).collect();
        for waiting in back {
            // An album that was held back may have been passed by.
            state.insert(Waiting { marked: false, ..waiting });
        }
        drop(state);
        self.filled.notify_one();
        released
    }

    /// JavaScript is done with these messages. What is not on its way is passed over.
    pub async fn ack(&self, numbered: &[u64]) -> Result<()> {
        let mut segments: BTreeMap<u64, u32> = BTreeMap::new();
        let known: Vec<u64> = {
            let state = self.lock();
            let flying = numbered.iter().filter_map(|number| state.flying.get(number));
            flying.flatten().map(|waiting| waiting.number).collect()
        };
        if known.is_empty() {
            return Ok(());
        }
        self.journal.note_soon(Line::new(ACKED, numbers(known))).await?;
        {
            let mut state = self.lock();
            for waiting in numbered.iter().flat_map(|number| state.land(*number)) {
                *segments.entry(waiting.segment).or_default() += 1;
            }
        }
        self.filled.notify_one();
        for (segment, items) in segments {
            self.done(segment, items).await;
        }
        Ok(())
    }
}

/// Somebody waits for messages, until this is dropped.
struct Wanted<'a>(&'a Inbox);

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        self.0.lock().wanted = 0;
    }
}

/// Counts a note on the way to the disk, also if its task is dropped.
struct Releasing(Arc<watch::Sender<usize>>);

impl Releasing {
    fn new(count: &Arc<watch::Sender<usize>>) -> Self {
        count.send_modify(|notes| *notes += 1);
        Self(Arc::clone(count))
    }
}

impl Drop for Releasing {
    fn drop(&mut self) {
        self.0.send_modify(|notes| *notes -= 1);
    }
}

/// Puts back what was taken if its marks do not come to be.
struct Back<'a> {
    inbox: &'a Inbox,
    count: usize,
    taken: Vec<Vec<Waiting>>,
}

impl Drop for Back<'_> {
    fn drop(&mut self) {
        self.inbox.lock().marking -= self.count;
        let numbered: Vec<u64> = self.taken.iter().filter_map(|items| Some(items.first()?.number)).collect();
        self.inbox.release(&numbered);
    }
}

/// An id as the store takes it: not too long, and without control characters.
fn line_id(id: &str) -> String {
    let plain = (1..=ID).contains(&id.len()) && !id.chars().any(char::is_control);
    if plain { id.to_owned() } else { format!("#{}", blake3::hash(id.as_bytes()).to_hex()) }
}

fn numbers(n: Vec<u64>) -> String {
    serde_json::to_string(&Numbers { n }).unwrap_or_default()
}

/// A message as it is spooled.
pub fn encode(
    message: &InboundMessage,
    channel: &str,
    account_id: &str,
    album_id: Option<&str>,
) -> Result<Incoming> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Whole<'a> {
        channel: &'a str,
        account_id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        album_id: Option<&'a str>,
        #[serde(flatten)]
        message: &'a InboundMessage,
    }
    let write = |message| {
        serde_json::to_string(&Whole { channel, account_id, album_id, message })
            .map_err(|error| CoreError::new(Code::Internal, format!("a message has no JSON form: {error}")))
    };
    // What the store refuses would come again for ever, and nothing after it.
    let json = if message.raw.get().len() > RAW {
        write(&InboundMessage { raw: RawValue::NULL.to_owned(), ..message.clone() })?
    } else {
        write(message)?
    };
    Ok(Incoming { id: message.id.clone(), json })
}

#[cfg(test)]
mod tests;
