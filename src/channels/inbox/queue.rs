//! What waits in the inbox and what was delivered of it, as far as memory holds it: order, albums, bounds.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::super::log::{Digest, damaged};
use super::{Delivery, FLYING, Head};
use crate::Result;

/// An album is whole if nothing has come to it for so long (OpenClaw's window), or if it has so many items.
pub(super) const ALBUM: Duration = Duration::from_millis(500);
const ALBUM_ITEMS: usize = 10;

#[derive(Default)]
pub(super) struct State {
    pub(super) next: u64,
    /// In the order in which they came.
    pub(super) waiting: VecDeque<Waiting>,
    /// Bytes of those.
    pub(super) held: usize,
    /// What came after them, on the disk alone, in the order in which it came.
    pub(super) spilled: VecDeque<Spilled>,
    /// How far the segment of the first of those was read.
    pub(super) read_to: Option<(u64, u64)>,
    /// By chat: an album that may get more items.
    pub(super) albums: HashMap<String, OpenAlbum>,
    /// Delivered and not acknowledged, should it come back; an album has several.
    pub(super) flying: HashMap<u64, Vec<Waiting>>,
    /// Bytes of those.
    pub(super) flown: usize,
    /// It was said in the log that nothing more is delivered.
    pub(super) complained: bool,
    /// Taken, while their marks are on the way to the disk.
    pub(super) marking: usize,
    /// How many messages somebody waits for; 0 once some are on the way.
    pub(super) wanted: usize,
    /// The segments of the latest messages, by their ids' digests.
    pub(super) seen: HashMap<Digest, u64>,
    /// Messages on their way to the disk, by the same.
    pub(super) storing: HashSet<Digest>,
    pub(super) cursor: Option<String>,
}

#[derive(Clone)]
pub(super) struct Waiting {
    pub(super) number: u64,
    pub(super) segment: u64,
    pub(super) redelivered: bool,
    /// On the disk: what is not may not be delivered, nor may what came after it.
    pub(super) stored: bool,
    /// The mark of its next delivery is on the disk where the message is.
    pub(super) marked: bool,
    pub(super) album: Option<Arc<str>>,
    pub(super) json: Arc<str>,
}

/// What is known of a segment that is gone.
#[derive(Serialize, Deserialize)]
pub(super) struct Past {
    /// The number of the next message: what later segments say of earlier numbers is said of other messages.
    next: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    /// The digests of its messages' ids, one after the other, in base64.
    ids: String,
}

/// Messages of one segment, one after the other.
pub(super) struct Spilled {
    pub(super) segment: u64,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) stored: bool,
    pub(super) redelivered: bool,
}

pub(super) struct OpenAlbum {
    pub(super) key: Arc<str>,
    pub(super) items: usize,
    pub(super) latest: Instant,
}

impl State {
    /// Takes up the past of a segment; the latest comes last.
    pub(super) fn recall(&mut self, segment: u64, data: &str) -> Result<()> {
        let wrong = || damaged("channel_past", data);
        let Past { next, cursor, ids } = serde_json::from_str(data).map_err(|_| wrong())?;
        let ids = BASE64.decode(ids.as_bytes()).map_err(|_| wrong())?;
        let (ids, []) = ids.as_chunks() else { return Err(wrong()) };
        self.seen.extend(ids.iter().map(|id: &Digest| (*id, segment)));
        self.next = self.next.max(next);
        self.cursor = cursor.or(self.cursor.take());
        Ok(())
    }

    /// The past of a segment.
    pub(super) fn past(&self, segment: u64) -> Past {
        let ids = self.seen.iter().filter(|(_, of)| **of == segment);
        let ids: Vec<u8> = ids.flat_map(|(id, _)| *id).collect();
        Past { next: self.next, cursor: self.cursor.clone(), ids: BASE64.encode(&ids) }
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        self.held += waiting.json.len();
        self.waiting.push_back(waiting);
    }

    /// At its place by its number.
    pub(super) fn insert(&mut self, waiting: Waiting) {
        self.held += waiting.json.len();
        let place = self.waiting.partition_point(|other| other.number < waiting.number);
        self.waiting.insert(place, waiting);
    }

    /// Whether a message waits, or is on its way to the disk.
    pub(super) fn has(&self, number: u64) -> bool {
        self.place(number).is_some()
            || self.spilled.iter().any(|range| (range.first..=range.last).contains(&number))
    }

    pub(super) fn place(&self, number: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&number, |waiting| waiting.number).ok()
    }

    pub(super) fn remove(&mut self, place: usize) -> Option<Waiting> {
        let waiting = self.waiting.remove(place)?;
        self.held = self.held.saturating_sub(waiting.json.len());
        Some(waiting)
    }

    /// Takes up a message that was found on the disk.
    pub(super) fn restore(
        &mut self,
        number: u64,
        segment: u64,
        redelivered: bool,
        json: Arc<str>,
        now: Instant,
    ) {
        let head = Head::read(&json);
        if let Some(head) = head.as_ref().filter(|_| !redelivered) {
            self.arrived(head, now);
        }
        let album = head.and_then(|head| head.album());
        self.push(Waiting { number, segment, redelivered, stored: true, marked: false, album, json });
    }

    /// A message has come: its chat's album goes on, or ends.
    pub(super) fn arrived(&mut self, head: &Head, now: Instant) {
        let Some(key) = head.album() else {
            self.albums.remove(&head.chat.id);
            return;
        };
        match self.albums.get_mut(&head.chat.id).filter(|open| open.key == key) {
            Some(open) => (open.items, open.latest) = (open.items + 1, now),
            None => _ = self.albums.insert(head.chat.id.clone(), OpenAlbum { key, items: 1, latest: now }),
        }
        self.albums.retain(|_, open| open.items < ALBUM_ITEMS && now < open.latest + ALBUM);
    }

    /// Until when an album is held back.
    pub(super) fn open_until(&self, key: &str, now: Instant) -> Option<Instant> {
        let open = self.albums.get(key.split('\0').next()?).filter(|open| *open.key == *key)?;
        Some(open.latest + ALBUM).filter(|until| *until > now)
    }

    /// Delivers a message, an album's items together.
    pub(super) fn fly(&mut self, message: Vec<Waiting>) {
        self.flown += bytes(&message);
        if let Some(first) = message.first() {
            self.flying.insert(first.number, message);
        }
    }

    /// A delivered message is acknowledged or released.
    pub(super) fn land(&mut self, number: u64) -> Vec<Waiting> {
        let message = self.flying.remove(&number).unwrap_or_default();
        self.flown = self.flown.saturating_sub(bytes(&message));
        self.complained &= self.is_full();
        message
    }

    /// Whether too much was delivered for anything more to be.
    pub(super) fn is_full(&self) -> bool {
        self.flown >= FLYING
    }

    /// Puts what is on the disk behind what is there alone.
    pub(super) fn spill(&mut self, range: Spilled) {
        if let Some(last) = self.spilled.back_mut()
            && (last.segment, last.last + 1, last.redelivered)
                == (range.segment, range.first, range.redelivered)
            && last.stored
            && range.stored
        {
            last.last = range.last;
            return;
        }
        self.spilled.push_back(range);
    }

    /// What was spilled by one call is on the disk, but for these numbers; or none of it is.
    pub(super) fn settle_spilled(&mut self, first: u64, last: u64, stored: bool, but: &[u64]) {
        let mut settled = VecDeque::with_capacity(self.spilled.len());
        std::mem::swap(&mut settled, &mut self.spilled);
        for range in settled {
            let mine = range.first >= first && range.last <= last && !range.stored;
            if !mine {
                self.spill(range);
                continue;
            }
            for number in (range.first..=range.last).filter(|number| stored && !but.contains(number)) {
                self.spill(Spilled { first: number, last: number, stored: true, ..range });
            }
        }
    }

    pub(super) fn waiting(&self) -> usize {
        let spilled: u64 = self.spilled.iter().map(|range| range.last - range.first + 1).sum();
        self.waiting.len() + usize::try_from(spilled).unwrap_or(usize::MAX)
    }

    /// The next messages, an album's items together; or until when there are none, if that is known.
    pub(super) fn ready(&mut self, most: usize, now: Instant) -> Result<Vec<Vec<Waiting>>, Option<Instant>> {
        let again = self.waiting.front().is_some_and(|first| first.redelivered);
        let most = if again { 1 } else { most.max(1) };
        let (mut taken, mut until) = (Vec::new(), None);
        let mut place = 0;
        let mut flown = self.flown;
        while taken.len() < most && flown < FLYING {
            let Some(next) = self.waiting.get(place) else { break };
            if !next.stored || next.redelivered != again {
                break;
            }
            let Some(key) = next.album.clone() else {
                flown += next.json.len();
                taken.extend(self.remove(place).map(|one| vec![one]));
                continue;
            };
            if let Some(open) = self.open_until(&key, now).filter(|_| !again) {
                until = Some(until.map_or(open, |until: Instant| until.min(open)));
                place += 1;
                continue;
            }
            let mut album: Vec<Waiting> = Vec::new();
            let mut at = place;
            while album.len() < ALBUM_ITEMS {
                match self.waiting.get(at) {
                    Some(item) if !item.stored || item.redelivered != again => break,
                    Some(item) if item.album.as_ref() == Some(&key) => album.extend(self.remove(at)),
                    Some(_) => at += 1,
                    None => break,
                }
            }
            flown += bytes(&album);
            taken.push(album);
        }
        if taken.is_empty() { Err(until) } else { Ok(taken) }
    }
}

pub(super) fn bytes(items: &[Waiting]) -> usize {
    items.iter().map(|item| item.json.len()).sum()
}

/// A message as it is delivered: of an album the first item, with the attachments and the texts of all.
pub(super) fn delivery(items: &[Waiting]) -> Option<Delivery> {
    let first = items.first()?;
    let (number, redelivered) = (first.number, first.redelivered);
    let json = match items {
        [one] => Arc::clone(&one.json),
        album => {
            let whole = merged(album.iter().map(|item| &*item.json));
            whole.map_or_else(|| Arc::clone(&first.json), Into::into)
        }
    };
    Some(Delivery { number, redelivered, json })
}

pub(super) fn merged<'a>(items: impl Iterator<Item = &'a str>) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Item<'a> {
        #[serde(borrow)]
        kind: &'a RawValue,
        text: String,
        mentions_me: bool,
        #[serde(borrow)]
        attachments: Vec<&'a RawValue>,
    }
    let items: Vec<&str> = items.collect();
    let mut whole: BTreeMap<&str, Box<RawValue>> = serde_json::from_str(items.first()?).ok()?;
    let items: Vec<Item<'_>> =
        items.iter().map(|item| serde_json::from_str(item)).collect::<Result<_, _>>().ok()?;
    let texts: Vec<&str> =
        items.iter().map(|item| item.text.as_str()).filter(|text| !text.is_empty()).collect();
    let attachments: Vec<&RawValue> =
        items.iter().flat_map(|item| item.attachments.iter().copied()).collect();
    // A command is one by its text.
    let kind = items.iter().find(|item| !item.text.is_empty()).map_or(items.first()?.kind, |item| item.kind);
    whole.insert("kind", kind.to_owned());
    whole.insert("text", serde_json::value::to_raw_value(&texts.join("\n")).ok()?);
    let mentioned = items.iter().any(|item| item.mentions_me);
    whole.insert("mentionsMe", serde_json::value::to_raw_value(&mentioned).ok()?);
    whole.insert("attachments", serde_json::value::to_raw_value(&attachments).ok()?);
    serde_json::to_string(&whole).ok()
}
