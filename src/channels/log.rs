//! What the inbox and the outbox write to: the event store, in segments that are deleted once all in them is done.
//!
//! A journal is a row of sessions of the store, its *segments*, `<prefix><number>`. What belongs to an item (its marks, its
//! outcome) may stand in a later segment than the item, never in an earlier one; segments are deleted from the oldest on,
//! so that what is left is always whole. What is to be known of their items all the same is a line for each segment, its
//! *past*, which is on the disk before the segment goes. As many pasts as are remembered are a *volume*,
//! `<prefix>past:<number>`, another session; there are two, or three for a moment, and what is older goes as a whole. What is
//! large is beside the segments, in a session for each item, `<prefix>files:<number>`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Boxed;
use crate::events::{EventStore, NewEvent, Order, Range, SessionsQuery};
use crate::runtime::blocking;
use crate::{Code, CoreError, Result};

/// A line of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What it is.
    pub kind: &'static str,
    /// JSON.
    pub data: String,
    /// The same id twice in a segment is one line.
    pub id: Option<String>,
}

impl Line {
    /// A line without an id.
    pub fn new(kind: &'static str, data: String) -> Self {
        Self { kind, data, id: None }
    }
}

/// A line in its place: the position, which grows, the kind and the data.
pub type Placed = (u64, String, String);

/// By what one of thousands of ids or keys is remembered: the first half of its BLAKE3.
pub type Digest = [u8; 16];

/// The digest of an id or a key.
pub fn digest(id: &str) -> Digest {
    blake3::hash(id.as_bytes()).as_bytes().first_chunk().copied().unwrap_or_default()
}

/// A durable log, as far as channels need one.
pub trait Log: Send + Sync + 'static {
    /// Appends lines to a session, all or none; they have their place in the order of appends when this returns, and are
    /// on the disk when the future is done. For each line the data of the line that now has its id.
    fn append(&self, session: String, lines: Vec<Line>) -> Boxed<'static, Result<Vec<String>>>;

    /// As [`Log::append`]; nobody waits for it, so it may be on the disk a moment later, with what comes next.
    fn append_soon(&self, session: String, lines: Vec<Line>) -> Boxed<'static, Result<()>> {
        let appended = self.append(session, lines);
        Box::pin(async move { appended.await.map(drop) })
    }

    /// The sessions whose keys begin so, in the order of their keys.
    fn sessions<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Result<Vec<String>>>;

    /// At most so many lines of a session, in order, from behind this position on: their positions, kinds and data.
    fn read<'a>(
        &'a self,
        session: &'a str,
        after: Option<u64>,
        most: usize,
    ) -> Boxed<'a, Result<Vec<Placed>>>;

    /// Deletes a session.
    fn delete(&self, session: String) -> Boxed<'static, Result<()>>;

    /// Who writes: logs that are shared between machines hold journals of several.
    fn writer(&self) -> String;
}

/// The agent that the lines of channels belong to.
const AGENT: &str = "channel";
/// Between a journal's prefix and an item's number.
const SIDE: &str = "files:";
/// Between a journal's prefix and the number of a volume of pasts.
const PAST_SIDE: &str = "past:";
const PAST: &str = "channel_past";
/// Segments that one call puts away at most: whoever ends the item that held up thousands does not wait for all of them.
const AT_ONCE: usize = 4;
/// Events that are read at once.
const PAGE: usize = 4096;

impl Log for EventStore {
    fn append(&self, session: String, lines: Vec<Line>) -> Boxed<'static, Result<Vec<String>>> {
        let appended = self.append_batch(events(&session, lines));
        Box::pin(async move { Ok(appended.await?.into_iter().map(|event| event.data).collect()) })
    }

    fn append_soon(&self, session: String, lines: Vec<Line>) -> Boxed<'static, Result<()>> {
        let appended = EventStore::append_soon(self, events(&session, lines));
        Box::pin(async move { appended.await.map(drop) })
    }

    fn sessions<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Result<Vec<String>>> {
        let (store, prefix) = (self.clone(), prefix.to_owned());
        Box::pin(blocking(move || {
            let query = SessionsQuery { prefix: Some(prefix), order: Order::Key, ..SessionsQuery::default() };
            Ok(store.sessions(&query)?.into_iter().map(|view| view.session_key).collect())
        }))
    }

    fn read<'a>(
        &'a self,
        session: &'a str,
        after: Option<u64>,
        most: usize,
    ) -> Boxed<'a, Result<Vec<Placed>>> {
        let (store, session) = (self.clone(), session.to_owned());
        Box::pin(blocking(move || {
            let range = Range { after, limit: Some(most), ..Range::default() };
            let events = EventStore::read(&store, &session, &range)?;
            Ok(events.into_iter().map(|event| (event.seq, event.kind, event.data)).collect())
        }))
    }

    fn delete(&self, session: String) -> Boxed<'static, Result<()>> {
        let store = self.clone();
        Box::pin(async move { store.delete_session(&session).await.map(drop) })
    }

    fn writer(&self) -> String {
        self.replica().to_owned()
    }
}

fn events(session: &str, lines: Vec<Line>) -> Vec<NewEvent> {
    let event = |line: Line| NewEvent {
        session_key: session.to_owned(),
        agent_id: AGENT.into(),
        kind: line.kind.into(),
        data: line.data,
        timestamp_ms: None,
        id: line.id,
    };
    lines.into_iter().map(event).collect()
}

/// A row of segments.
pub struct Journal {
    log: Arc<dyn Log>,
    prefix: String,
    /// Items of a segment.
    size: u32,
    /// Segments whose past is kept at least; pasts of a volume.
    kept: u64,
    state: Mutex<State>,
    /// One segment goes after the other: only then is none left whose acknowledgements are gone.
    putting_away: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    current: u64,
    /// Items that the current segment was given.
    given: u32,
    /// For each segment the items that are not done.
    open: BTreeMap<u64, u32>,
    /// The disk did not take the latest past, and the log says so.
    refused: bool,
}

/// What a journal holds when it is opened.
pub struct Found {
    /// The pasts, with the numbers of their segments.
    pub pasts: Vec<(u64, String)>,
    /// The numbers of the segments.
    pub segments: Vec<u64>,
}

/// The line of a segment's past.
#[derive(Serialize, Deserialize)]
struct PastLine<'a> {
    segment: u64,
    #[serde(borrow)]
    past: &'a RawValue,
}

impl Journal {
    /// Opens the journal `name` of an account.
    pub async fn open(log: Arc<dyn Log>, name: &str, size: u32, kept: u64) -> Result<(Self, Found)> {
        let prefix = format!("channel:{name}:{}:", log.writer());
        let (state, putting_away) = (Mutex::default(), tokio::sync::Mutex::default());
        let journal = Self { log, prefix, size, kept, state, putting_away };
        let segments = journal.numbered("").await?;
        let volumes = journal.numbered(PAST_SIDE).await?;
        let mut pasts = Vec::new();
        for volume in &volumes {
            if volumes.last().is_some_and(|last| volume + 1 < *last) {
                journal.log.delete(journal.volume(*volume)).await?;
                continue;
            }
            for (kind, data) in journal.whole(&journal.volume(*volume)).await? {
                let line: PastLine<'_> = serde_json::from_str(&data).map_err(|_| damaged(&kind, &data))?;
                pasts.push((line.segment, line.past.get().to_owned()));
            }
        }
        // A segment whose past is there is not begun again, also where the disk took nothing of those after it: a past is
        // found by the number of its segment.
        let last = pasts.iter().map(|(segment, _)| segment + 1).chain(segments.last().copied()).max();
        let current = last.unwrap_or_default();
        journal.lock().current = current;
        pasts.retain(|(segment, _)| segment + kept >= current);
        Ok((journal, Found { pasts, segments }))
    }

    /// The numbers that sessions of one sort have, in order.
    async fn numbered(&self, sort: &str) -> Result<Vec<u64>> {
        let prefix = format!("{}{sort}", self.prefix);
        let sessions = self.log.sessions(&prefix).await?;
        let number = |session: &String| session.strip_prefix(&prefix)?.parse().ok();
        let mut found: Vec<u64> = sessions.iter().filter_map(number).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// At most so many lines of a segment, from behind this position on.
    pub async fn lines(&self, segment: u64, after: Option<u64>, most: usize) -> Result<Vec<Placed>> {
        self.log.read(&self.session(segment), after, most).await
    }

    /// All lines of a segment: their kinds and data.
    pub async fn segment(&self, segment: u64) -> Result<Vec<(String, String)>> {
        self.whole(&self.session(segment)).await
    }

    async fn whole(&self, session: &str) -> Result<Vec<(String, String)>> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let lines = self.log.read(session, after, PAGE).await?;
            let Some((last, ..)) = lines.last() else { return Ok(all) };
            after = Some(*last);
            all.extend(lines.into_iter().map(|(_, kind, data)| (kind, data)));
        }
    }

    /// Says how many items a segment that was found has, and how many of them are not done.
    pub fn restore(&self, segment: u64, given: u32, open: u32) {
        let mut state = self.lock();
        state.open.insert(segment, open);
        if segment >= state.current {
            (state.current, state.given) = (segment, given);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self, segment: u64) -> String {
        format!("{}{segment:010}", self.prefix)
    }

    /// The segment for so many new items, and whether it is a new one.
    pub fn place(&self, items: u32) -> (u64, bool) {
        let mut state = self.lock();
        let full = state.given >= self.size;
        if full {
            state.current += 1;
            state.given = 0;
        }
        state.given += items;
        let current = state.current;
        *state.open.entry(current).or_default() += items;
        (current, full)
    }

    /// Items of a segment that were not written after all have no room in it.
    pub fn give_back(&self, segment: u64, items: u32) {
        let mut state = self.lock();
        if segment == state.current {
            state.given = state.given.saturating_sub(items);
        }
    }

    /// Appends lines to a segment; in order when this returns, on the disk when the future is done.
    pub fn append(&self, segment: u64, lines: Vec<Line>) -> Boxed<'static, Result<Vec<String>>> {
        self.log.append(self.session(segment), lines)
    }

    /// Appends a line that belongs to items of this segment or earlier ones.
    pub fn note(&self, line: Line) -> Boxed<'static, Result<()>> {
        let current = self.lock().current;
        let appended = self.append(current, vec![line]);
        Box::pin(async move { appended.await.map(drop) })
    }

    /// As [`Journal::note`], for what nobody waits for: on the disk a moment later, with what comes next.
    pub fn note_soon(&self, line: Line) -> Boxed<'static, Result<()>> {
        let current = self.lock().current;
        self.log.append_soon(self.session(current), vec![line])
    }

    /// Beside the segments: what is large, belongs to one item, and goes with it.
    fn side(&self, item: u64) -> String {
        format!("{}{SIDE}{item:010}", self.prefix)
    }

    /// Appends lines beside the segments, as [`Journal::append`].
    pub fn append_side(&self, item: u64, lines: Vec<Line>) -> Boxed<'static, Result<Vec<String>>> {
        self.log.append(self.side(item), lines)
    }

    /// What is beside the segments for an item.
    pub async fn read_side(&self, item: u64) -> Result<Vec<(String, String)>> {
        self.whole(&self.side(item)).await
    }

    /// Deletes what is beside the segments for an item.
    pub async fn delete_side(&self, item: u64) -> Result<()> {
        self.log.delete(self.side(item)).await
    }

    /// Items that have something beside the segments.
    pub async fn sides(&self) -> Result<Vec<u64>> {
        self.numbered(SIDE).await
    }

    /// So many pasts are a volume, and deleted together.
    fn volume(&self, number: u64) -> String {
        format!("{}{PAST_SIDE}{number:010}", self.prefix)
    }

    /// So many items of a segment are done. Where all of a segment's are, and of those before it, its past takes its place: now,
    /// or with one of the next calls if the disk does not take it, another call is at it, or many are due. The segments that
    /// are gone.
    pub async fn done<P: Serialize>(&self, segment: u64, items: u32, past: impl Fn(u64) -> P) -> Vec<u64> {
        if let Some(open) = self.lock().open.get_mut(&segment) {
            *open = open.saturating_sub(items);
        }
        let mut gone = Vec::new();
        let Ok(_turn) = self.putting_away.try_lock() else { return gone };
        while gone.len() < AT_ONCE
            && let Some(segment) = self.oldest_done()
        {
            let outcome = self.put_away(segment, past(segment)).await;
            let mut state = self.lock();
            let refused = std::mem::replace(&mut state.refused, outcome.is_err());
            if let Err(error) = outcome {
                if !refused {
                    tracing::warn!(journal = self.prefix, segment, %error, "cannot delete what is done");
                }
                break;
            }
            state.open.remove(&segment);
            gone.push(segment);
        }
        gone
    }

    fn oldest_done(&self) -> Option<u64> {
        let state = self.lock();
        let (oldest, open) = state.open.first_key_value()?;
        (*open == 0 && *oldest < state.current).then_some(*oldest)
    }

    async fn put_away(&self, segment: u64, past: impl Serialize) -> Result<()> {
        let volume = segment / self.kept;
        let json = serde_json::value::to_raw_value(&past)
            .and_then(|past| serde_json::to_string(&PastLine { segment, past: &past }));
        let data = json.map_err(|error| CoreError::new(Code::Internal, format!("no JSON form: {error}")))?;
        self.log.append(self.volume(volume), vec![Line::new(PAST, data)]).await?;
        // Before the segment goes: as long as it is there, all of this is done again.
        if segment.is_multiple_of(self.kept) && volume >= 2 {
            self.log.delete(self.volume(volume - 2)).await?;
        }
        self.log.delete(self.session(segment)).await.map(drop)
    }

    /// The past of a segment that is gone.
    pub async fn past(&self, segment: u64) -> Result<Option<String>> {
        let mut past = None;
        for (kind, data) in self.whole(&self.volume(segment / self.kept)).await? {
            let line: PastLine<'_> = serde_json::from_str(&data).map_err(|_| damaged(&kind, &data))?;
            if line.segment == segment {
                // Where the process ended in between, it was written again.
                past = Some(line.past.get().to_owned());
            }
        }
        Ok(past)
    }
}

/// A line that nobody but this program writes cannot be read.
pub fn damaged(kind: &str, data: &str) -> CoreError {
    let start: String = data.chars().take(80).collect();
    CoreError::new(
        Code::StoreCorrupt,
        format!("a line `{kind}` of a channel's journal makes no sense: {start}"),
    )
}

#[cfg(test)]
pub(crate) mod memory {
    //! A log in memory: what a disk would hold after each append.

    use super::*;

    /// Clones are the same log.
    #[derive(Clone, Default)]
    pub(crate) struct MemoryLog {
        state: Arc<Mutex<Lines>>,
    }

    #[derive(Clone, Default)]
    struct Lines {
        sessions: BTreeMap<String, Vec<(Line, String)>>,
        /// Appends and deletions so far, and after how many the power goes.
        appends: usize,
        ends_after: Option<usize>,
        /// Appends are written, and said to have failed.
        unsure: bool,
        takes: Takes,
    }

    /// What there is room for.
    #[derive(Clone, Copy, Default, PartialEq)]
    enum Takes {
        #[default]
        Everything,
        AllButTheNext,
        AllButPasts,
        Nothing,
    }

    impl MemoryLog {
        /// From this append on, nothing is written, and every append fails.
        pub(crate) fn end_after(&self, appends: usize) {
            self.state.lock().unwrap().ends_after = Some(appends);
        }

        /// Whether an append says that it failed although it is on the disk, as one does whose `fsync` failed.
        pub(crate) fn unsure(&self, yes: bool) {
            self.state.lock().unwrap().unsure = yes;
        }

        /// Whether the disk is full: nothing is written, and every append says so.
        pub(crate) fn fill(&self, yes: bool) {
            self.state.lock().unwrap().takes = if yes { Takes::Nothing } else { Takes::Everything };
        }

        /// The next append fails, and writes nothing.
        pub(crate) fn fail_next(&self) {
            self.state.lock().unwrap().takes = Takes::AllButTheNext;
        }

        /// Whether no past is written.
        pub(crate) fn refuse_pasts(&self, yes: bool) {
            self.state.lock().unwrap().takes = if yes { Takes::AllButPasts } else { Takes::Everything };
        }

        pub(crate) fn appends(&self) -> usize {
            self.state.lock().unwrap().appends
        }

        /// What is on the disk, with the power back.
        pub(crate) fn reboot(&self) -> Self {
            let mut lines = self.state.lock().unwrap().clone();
            lines.ends_after = None;
            lines.appends = 0;
            Self { state: Arc::new(Mutex::new(lines)) }
        }

        pub(crate) fn sessions_now(&self) -> usize {
            self.state.lock().unwrap().sessions.len()
        }
    }

    fn gone() -> CoreError {
        CoreError::new(Code::StoreClosed, "the power is gone")
    }

    impl Log for MemoryLog {
        fn append(&self, session: String, lines: Vec<Line>) -> Boxed<'static, Result<Vec<String>>> {
            let mut state = self.state.lock().unwrap();
            if state.ends_after.is_some_and(|end| state.appends >= end) {
                return Box::pin(async { Err(gone()) });
            }
            let refused = match state.takes {
                Takes::Everything => false,
                Takes::AllButPasts => lines.iter().any(|line| line.kind == PAST),
                Takes::AllButTheNext | Takes::Nothing => true,
            };
            if state.takes == Takes::AllButTheNext {
                state.takes = Takes::Everything;
            }
            if refused {
                return Box::pin(async { Err(CoreError::new(Code::Io, "no space left on device")) });
            }
            state.appends += 1;
            let held = state.sessions.entry(session).or_default();
            let mut out = Vec::new();
            for line in lines {
                let known = held.iter().find(|(known, _)| line.id.is_some() && known.id == line.id);
                if let Some((known, _)) = known {
                    out.push(known.data.clone());
                    continue;
                }
                out.push(line.data.clone());
                held.push((line.clone(), line.kind.to_owned()));
            }
            let unsure = state.unsure;
            Box::pin(async move {
                tokio::task::yield_now().await;
                if unsure { Err(gone()) } else { Ok(out) }
            })
        }

        fn sessions<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Result<Vec<String>>> {
            let state = self.state.lock().unwrap();
            let found = state.sessions.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
            Box::pin(async { Ok(found) })
        }

        fn read<'a>(
            &'a self,
            session: &'a str,
            after: Option<u64>,
            most: usize,
        ) -> Boxed<'a, Result<Vec<Placed>>> {
            let state = self.state.lock().unwrap();
            let lines = state.sessions.get(session).into_iter().flatten().zip(1..);
            let lines = lines.filter(|(_, at)| after.is_none_or(|after| *at > after)).take(most);
            let lines = lines.map(|((line, kind), at)| (at, kind.clone(), line.data.clone())).collect();
            Box::pin(async { Ok(lines) })
        }

        fn delete(&self, session: String) -> Boxed<'static, Result<()>> {
            let mut state = self.state.lock().unwrap();
            if state.ends_after.is_some_and(|end| state.appends >= end) {
                return Box::pin(async { Err(gone()) });
            }
            state.appends += 1;
            state.sessions.remove(&session);
            Box::pin(async { Ok(()) })
        }

        fn writer(&self) -> String {
            "memory".into()
        }
    }
}
