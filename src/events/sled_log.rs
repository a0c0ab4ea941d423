//! Looks into sled's file before sled does.
//!
//! When sled opens its log it goes as far as every message has its checksum, and overwrites what comes after: after a
//! crash that is what nobody was told of. But a single wrong bit in the midst looks the same to it, and takes with it
//! what comes after, or silently what is in the same segment. So the same walk is done here first, and changes nothing:
//! what sled would overwrite is kept, and damage that no crash explains is known.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use crate::{CoreError, Result};

const SEGMENT: u64 = 512 << 10;
const SEGMENT_HEADER: usize = 20;
/// No message begins so close to the end of a segment.
const MESSAGE_HEADER: usize = 32;

/// sled's kinds of messages that matter here.
const CORRUPTED: u8 = 0;
const CAP: u8 = 2;
const BATCH: u8 = 3;
const LAST_KIND: u8 = 11;

/// What the walk found.
#[derive(Default)]
pub(super) struct Examined {
    /// The log breaks off before its last segment does.
    pub(super) damaged: bool,
    /// What follows where the log ends, or a batch that does not, in the last segment.
    pub(super) tail: Vec<u8>,
}

/// Walks through what sled will walk through: all that was written since its last snapshot.
pub(super) fn examine(generation: &Path) -> Result<Examined> {
    let path = generation.join("db");
    let io = |error| CoreError::io("read", &path, error);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Examined::default()),
        Err(error) => return Err(io(error)),
    };
    let length = file.metadata().map_err(io)?.len();
    let from = snapshot(generation) / SEGMENT * SEGMENT;
    let mut examined = Examined::default();
    let (mut segments, mut stable) = (BTreeMap::new(), from);
    for offset in (0..length).step_by(usize::try_from(SEGMENT).unwrap_or(usize::MAX)) {
        let header = read(&mut file, offset, SEGMENT_HEADER as u64).map_err(io)?;
        match segment_header(&header) {
            Some((lsn, so_far)) if lsn >= from => {
                stable = stable.max(so_far);
                examined.damaged |= segments.insert(lsn, offset).is_some();
            }
            Some(_) => {}
            None => examined.damaged |= header.iter().any(|byte| *byte != 0),
        }
    }
    // From the last point that all before is known to be written, the segments follow each other without a gap.
    let first = stable / SEGMENT * SEGMENT;
    let expected = (0..).map(|nth| first + nth * SEGMENT);
    examined.damaged |= segments.range(first..).zip(expected).any(|((lsn, _), expected)| *lsn != expected);
    let Some(&last) = segments.keys().next_back() else { return Ok(examined) };
    let (mut end, mut batches) = (last, Vec::new());
    for (&lsn, &offset) in &segments {
        let bytes = read(&mut file, offset, SEGMENT).map_err(io)?;
        let (stop, whole) = walk(&bytes, lsn, &mut batches);
        if lsn == last {
            end = lsn + stop as u64;
            examined.tail = bytes;
        } else {
            examined.damaged |= !whole;
        }
    }
    // A batch whose last message is not there is none, from its first message on.
    if let Some(begin) = batches.iter().filter(|(_, last)| *last >= end).map(|(begin, _)| *begin).min() {
        examined.damaged |= begin < last;
        end = begin.max(last);
    }
    examined.tail.drain(..usize::try_from(end - last).unwrap_or_default().min(examined.tail.len()));
    Ok(examined)
}

/// Up to where sled's latest snapshot knows the log.
fn snapshot(generation: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(generation) else { return 0 };
    let numbers = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        u64::from_str_radix(name.strip_prefix("snap.")?, 16).ok()
    });
    numbers.max().unwrap_or(0)
}

fn read(file: &mut File, offset: u64, length: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    file.seek(SeekFrom::Start(offset))?;
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A segment's place in the log, and up to where the log was written when the segment was begun.
fn segment_header(header: &[u8]) -> Option<(u64, u64)> {
    let (sum, rest) = header.split_first_chunk::<4>()?;
    let (lsn, rest) = rest.split_first_chunk::<8>()?;
    let stable = rest.first_chunk::<8>()?;
    if u32::from_le_bytes(*sum) ^ u32::MAX != crc32fast::hash(header.get(4..SEGMENT_HEADER)?) {
        return None;
    }
    let plain = |bytes: &[u8; 8]| i64::from_le_bytes(*bytes) ^ i64::MAX;
    Some((u64::try_from(plain(lsn)).ok()?, u64::try_from(plain(stable)).unwrap_or(0)))
}

/// Where the messages of a segment end, and whether that is as it should be at a segment's end.
fn walk(bytes: &[u8], lsn: u64, batches: &mut Vec<(u64, u64)>) -> (usize, bool) {
    let mut at = SEGMENT_HEADER;
    loop {
        if usize::try_from(SEGMENT).unwrap_or(usize::MAX) - at < MESSAGE_HEADER {
            return (at, true);
        }
        let Some(message) = bytes.get(at..).and_then(|rest| message(rest, lsn / SEGMENT)) else {
            return (at, false);
        };
        match message.kind {
            CAP => return (at, true),
            BATCH => {
                let last = message.content.first_chunk().map_or(0, |last| i64::from_le_bytes(*last));
                batches.push((lsn + at as u64, u64::try_from(last).unwrap_or(u64::MAX)));
            }
            _ => {}
        }
        at += message.length;
    }
}

struct Message<'m> {
    kind: u8,
    length: usize,
    content: &'m [u8],
}

/// The message that begins the bytes, if its checksum is right and it belongs to this segment.
fn message(bytes: &[u8], segment: u64) -> Option<Message<'_>> {
    let (sum, rest) = bytes.split_first_chunk::<4>()?;
    let (&kind, mut rest) = rest.split_first()?;
    if kind == CORRUPTED || kind > LAST_KIND {
        return None;
    }
    let length = usize::try_from(number(&mut rest)?).ok()?;
    let belongs = number(&mut rest)?;
    number(&mut rest)?;
    let header = bytes.get(..bytes.len() - rest.len())?;
    let content = rest.get(..length)?;
    // sled puts the checksum of the content before that of the header without its checksum.
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(content);
    hasher.update(header.get(4..)?);
    let right = hasher.finalize() ^ u32::MAX == u32::from_le_bytes(*sum) && belongs == segment;
    right.then_some(Message { kind, length: header.len() + length, content })
}

/// One of sled's numbers of varying length.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    let following = match first {
        0..=240 => {
            *bytes = rest;
            return Some(u64::from(first));
        }
        241..=248 => 1,
        249 => 2,
        _ => usize::from(first) - 247,
    };
    let (field, rest) = rest.split_at_checked(following)?;
    *bytes = rest;
    let little = field.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let big = field.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    Some(match first {
        241..=248 => 240 + 256 * (u64::from(first) - 241) + big,
        249 => 2288 + big,
        _ => little,
    })
}
