//! Events as values of the store.
//!
//! A value is a mark, the length and CRC-32 of the rest, and the rest, so that a record is known as one wherever it
//! is found, also in a file that nothing else can read any more. The rest says again where the record belongs. What
//! does not fit one value goes on in parts, each marked alike and tied to its record by the hash.

use serde::{Deserialize, Serialize, Serializer};

use super::clock::Clock;
use super::event::{Body, StoredEvent};
use super::keys;
use super::storage::{Batch, Storage};
use crate::{Code, CoreError, Result};

/// Bytes of one value: so few that sled puts no page of a tree, which has up to some twenty values, into a file of its
/// own.
const VALUE_BYTES: usize = 4 << 10;

/// Marks the first value of a record.
pub(super) const RECORD: [u8; 4] = *b"\xF5oc\x01";
/// Marks a further value.
pub(super) const PART: [u8; 4] = *b"\xF5op\x01";
/// Marks a place whose event was removed while others around it stayed.
const REMOVED: [u8; 4] = *b"\xF5ox\x01";

/// Marks what a store knows of one session.
const SESSION: [u8; 4] = *b"\xF5os\x01";

/// Mark, length and checksum.
pub(super) const HEADER_BYTES: usize = 12;

#[derive(Serialize, Deserialize)]
struct Record<'a> {
    seq: u64,
    arrival: u64,
    prev: [u8; 32],
    hash: [u8; 32],
    /// Bytes of the body, which may go on in parts.
    length: u64,
    #[serde(borrow, serialize_with = "as_bytes")]
    body: &'a [u8],
}

#[derive(Serialize, Deserialize)]
struct Part<'a> {
    hash: [u8; 32],
    number: u16,
    #[serde(borrow, serialize_with = "as_bytes")]
    body: &'a [u8],
}

/// Bytes as one piece; serde would write a slice byte by byte.
#[allow(clippy::trivially_copy_pass_by_ref)] // serde's own signature
pub(super) fn as_bytes<S: Serializer>(bytes: &&[u8], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// The first fields of a [`Body`], which stand in the record itself however long the body is.
#[derive(Deserialize)]
struct Heading<'a> {
    _session_key: &'a str,
    _agent_id: &'a str,
    _kind: &'a str,
    _id: &'a str,
    _timestamp_ms: i64,
    clock: Clock,
    replica: &'a str,
}

/// What stands at a place of the log.
pub(super) enum Slot {
    Event(Box<StoredEvent>),
    Removed,
}

fn value(mark: [u8; 4], content: &impl Serialize) -> Result<Vec<u8>> {
    let mut value = Vec::with_capacity(1024);
    value.extend_from_slice(&mark);
    value.extend_from_slice(&[0; HEADER_BYTES - 4]);
    let mut value = postcard::to_extend(content, value).map_err(|error| internal(&error))?;
    let (header, rest) = value.split_at_mut(HEADER_BYTES);
    let length = u32::try_from(rest.len()).map_err(|error| internal(&error))?.to_be_bytes();
    let checksum = crc32fast::hash(rest).to_be_bytes();
    if let Some(fields) = header.get_mut(4..) {
        fields.copy_from_slice(&[length, checksum].concat());
    }
    Ok(value)
}

/// The content of a value that begins `bytes`, if mark and checksum are right, and its length.
pub(super) fn content(mark: [u8; 4], bytes: &[u8]) -> Option<&[u8]> {
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let (found, header) = header.split_first_chunk::<4>()?;
    let (length, checksum) = header.split_first_chunk::<4>()?;
    let rest = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    let right = *found == mark && checksum == crc32fast::hash(rest).to_be_bytes();
    right.then_some(rest)
}

/// Writes an event at `key`; `body` is its encoded body. The number of bytes.
pub(super) fn put(batch: &mut Batch, key: Vec<u8>, event: &StoredEvent, body: &[u8]) -> Result<u64> {
    let mut chunks = body.chunks(VALUE_BYTES);
    let record = Record {
        seq: event.seq,
        arrival: event.arrival,
        prev: event.prev,
        hash: event.hash,
        length: body.len() as u64,
        body: chunks.next().unwrap_or_default(),
    };
    let first = value(RECORD, &record)?;
    let mut bytes = first.len() as u64;
    for (number, chunk) in (1_u16..).zip(chunks) {
        let further = value(PART, &Part { hash: event.hash, number, body: chunk })?;
        bytes += further.len() as u64;
        batch.put(keys::part(&key, number), further);
    }
    batch.put(key, first);
    Ok(bytes)
}

/// The number that [`put`] gives.
pub(super) fn bytes(event: &StoredEvent) -> Result<u64> {
    put(&mut Batch::default(), Vec::new(), event, &encode(&event.body())?)
}

/// Removes the record at `key`.
pub(super) fn remove(batch: &mut Batch, key: Vec<u8>, event: &StoredEvent) {
    for number in 1..=parts(event) {
        batch.remove(keys::part(&key, number));
    }
    batch.remove(key);
}

/// Replaces the record at `key` by a mark that it was removed.
pub(super) fn erase(batch: &mut Batch, key: Vec<u8>, event: &StoredEvent) -> Result<()> {
    for number in 1..=parts(event) {
        batch.remove(keys::part(&key, number));
    }
    batch.put(key, value(REMOVED, &event.arrival)?);
    Ok(())
}

fn parts(event: &StoredEvent) -> u16 {
    let length = encode(&event.body()).map_or(0, |body| body.len());
    u16::try_from(length.saturating_sub(1) / VALUE_BYTES).unwrap_or(u16::MAX)
}

/// The bytes of a body, as they are hashed and travel.
pub(super) fn encode(body: &Body<'_>) -> Result<Vec<u8>> {
    postcard::to_extend(body, Vec::with_capacity(body.data.len() + 200)).map_err(|error| internal(&error))
}

/// Reads the value at `key`, and its further parts from `rest`.
pub(super) fn decode(first: &[u8], mut rest: impl FnMut(u16) -> Result<Option<Vec<u8>>>) -> Result<Slot> {
    if content(REMOVED, first).is_some() {
        return Ok(Slot::Removed);
    }
    let record = content(RECORD, first).ok_or_else(|| damaged("its checksum is wrong"))?;
    let record: Record<'_> = postcard::from_bytes(record).map_err(|_| damaged("it cannot be read"))?;
    let length = usize::try_from(record.length).unwrap_or(usize::MAX);
    if record.body.len() == length {
        return event(&record, record.body);
    }
    let mut body = record.body.to_vec();
    for number in 1_u16.. {
        if body.len() >= length {
            break;
        }
        let bytes = rest(number)?.ok_or_else(|| damaged(&format!("part {number} is missing")))?;
        let part: Part<'_> = content(PART, &bytes)
            .and_then(|part| postcard::from_bytes(part).ok())
            .filter(|part: &Part<'_>| part.hash == record.hash && part.number == number)
            .ok_or_else(|| damaged(&format!("part {number} is wrong")))?;
        body.extend_from_slice(part.body);
    }
    event(&record, &body)
}

fn event(record: &Record<'_>, body: &[u8]) -> Result<Slot> {
    let body: Body<'_> = postcard::from_bytes(body).map_err(|_| damaged("it cannot be read"))?;
    let event = StoredEvent::from_parts(&body, record.seq, record.arrival, record.prev, record.hash);
    Ok(Slot::Event(Box::new(event)))
}

/// What a store knows of a session, with its name, so that it is known wherever it is found.
pub(super) fn session(name: &str, meta: &impl Serialize) -> Result<Vec<u8>> {
    value(SESSION, &(meta, name))
}

/// What [`session`] has written.
pub(super) fn read_session<'v, T: Deserialize<'v>>(bytes: &'v [u8]) -> Option<(T, &'v str)> {
    postcard::from_bytes(content(SESSION, bytes)?).ok()
}

/// The value that begins the bytes, which [`read_session`] can read.
pub(super) fn session_bytes(bytes: &[u8]) -> &[u8] {
    let length = content(SESSION, bytes).map_or(0, |content| HEADER_BYTES + content.len());
    bytes.get(..length).unwrap_or_default()
}

/// A mark that an event is gone.
pub(super) fn removed() -> Result<Vec<u8>> {
    value(REMOVED, &0_u64)
}

/// Session, `seq` and hash of a record, and whether its body is in it as a whole.
pub(super) fn read_head(content: &[u8]) -> Option<(&str, u64, [u8; 32], bool)> {
    let record: Record<'_> = postcard::from_bytes(content).ok()?;
    let (session, _) = postcard::take_from_bytes::<&str>(record.body).ok()?;
    Some((session, record.seq, record.hash, record.body.len() as u64 == record.length))
}

/// Replica and clock of a record.
pub(super) fn read_order(content: &[u8]) -> Option<(String, Clock)> {
    let record: Record<'_> = postcard::from_bytes(content).ok()?;
    let (body, _) = postcard::take_from_bytes::<Heading<'_>>(record.body).ok()?;
    Some((body.replica.to_owned(), body.clock))
}

/// Reads the record at `key`; none if there is nothing.
pub(super) fn get(storage: &dyn Storage, key: &[u8]) -> Result<Option<Slot>> {
    let Some(first) = storage.get(key)? else { return Ok(None) };
    decode(&first, |number| storage.get(&keys::part(key, number))).map(Some)
}

/// The hash and number of a further part, for finding it in a damaged file.
pub(super) fn read_part(content: &[u8]) -> Option<([u8; 32], u16)> {
    postcard::from_bytes::<Part<'_>>(content).ok().map(|part| (part.hash, part.number))
}

/// Whether the hash is that of the event.
pub(super) fn hash_is_right(event: &StoredEvent) -> bool {
    encode(&event.body()).is_ok_and(|body| Body::hash(&event.prev, &body) == event.hash)
}

pub(super) fn damaged(why: &str) -> CoreError {
    CoreError::new(Code::StoreCorrupt, format!("a record of the event store is damaged: {why}"))
}

fn internal(error: &dyn std::error::Error) -> CoreError {
    CoreError::new(Code::Internal, format!("an event cannot be encoded: {error}"))
}
