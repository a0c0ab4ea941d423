//! What one message of the stream is: its subject, its headers and its payload.

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_EXPECTED_STREAM, NATS_MESSAGE_ID};

use super::Own;

/// First and last `n` of the events within.
const EVENTS: &str = "Openclaw-Events";
/// Hash of the last event within.
const HASH: &str = "Openclaw-Hash";
/// `offset/total` in bytes, on a message that is a part of a larger one.
const PART: &str = "Openclaw-Part";
/// Stream sequence of the part before this one; 0 on the first.
const PREVIOUS: &str = "Openclaw-Previous";

/// Room for the headers beside the payload: they take 400 bytes at most, with the names of stream and replica.
pub(super) const HEADROOM: usize = 512;

/// All subjects of a stream.
pub(super) fn subjects(stream: &str) -> String {
    format!("openclaw.{stream}.*.*")
}

/// The subject of one session's events from one replica.
///
/// A session key may hold what separates or matches subjects (`.`, `*`, `>`, spaces) and any other text, so that
/// its place is taken by 128 bits of its hash. Two keys with the same bits would share a subject, not events.
pub(super) fn subject(stream: &str, session_key: &str, replica: &str) -> String {
    let mut token = blake3::hash(session_key.as_bytes()).to_hex().to_string();
    token.truncate(32);
    format!("openclaw.{stream}.{token}.{replica}")
}

/// The replica of a subject.
pub(super) fn replica_of(subject: &str) -> Option<&str> {
    subject.split('.').nth(3)
}

/// The subjects of one replica.
pub(super) fn subjects_of(stream: &str, replica: &str) -> String {
    format!("openclaw.{stream}.*.{replica}")
}

/// What the headers say of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) hash: [u8; 32],
    pub(super) part: Option<Part>,
}

/// A piece of a body that is larger than a message may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) offset: usize,
    pub(super) total: usize,
    pub(super) previous: u64,
}

impl Envelope {
    /// The headers, with the checks that the server makes: it takes the message only if `expected` is the sequence
    /// of the last message on the subject, and a message it has taken before it takes as done.
    pub(super) fn headers(&self, stream: &str, expected: u64, bytes: usize) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let hash = blake3::Hash::from_bytes(self.hash).to_hex();
        headers.insert(EVENTS, format!("{}-{}", self.first, self.last));
        headers.insert(HASH, hash.as_str());
        let mut id = format!("{}:{}", hash.as_str(), self.first);
        if let Some(part) = &self.part {
            headers.insert(PART, format!("{}/{}", part.offset, part.total));
            headers.insert(PREVIOUS, part.previous.to_string());
            // A part of another size is another message.
            id = format!("{id}:{}+{bytes}", part.offset);
        }
        headers.insert(NATS_MESSAGE_ID, id);
        headers.insert(NATS_EXPECTED_STREAM, stream);
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
        headers
    }

    /// Reads the headers; the error says what is wrong with them.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, String> {
        let text = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
        let need = |name: &str| text(name).ok_or_else(|| format!("it has no header `{name}`"));
        let wrong = |name: &str| format!("its header `{name}` cannot be read");
        let pair = |name: &str, separator: char| {
            need(name).and_then(|text| {
                let (a, b) = text.split_once(separator).ok_or_else(|| wrong(name))?;
                Ok((a.parse::<u64>().map_err(|_| wrong(name))?, b.parse::<u64>().map_err(|_| wrong(name))?))
            })
        };
        let (first, last) = pair(EVENTS, '-')?;
        if first == 0 || last < first {
            return Err(wrong(EVENTS));
        }
        let hash = blake3::Hash::from_hex(need(HASH)?).map_err(|_| wrong(HASH))?;
        let part = if headers.get(PART).is_some() {
            let (offset, total) = pair(PART, '/')?;
            let previous = need(PREVIOUS)?.parse().map_err(|_| wrong(PREVIOUS))?;
            let (Ok(offset), Ok(total)) = (usize::try_from(offset), usize::try_from(total)) else {
                return Err(wrong(PART));
            };
            if offset >= total || (offset == 0) != (previous == 0) {
                return Err(wrong(PART));
            }
            Some(Part { offset, total, previous })
        } else {
            None
        };
        Ok(Self { first, last, hash: *hash.as_bytes(), part })
    }

    /// Whether a message with these headers and a payload of `bytes` completes what it carries.
    pub(super) fn completes(&self, bytes: usize) -> bool {
        self.part.as_ref().is_none_or(|part| part.offset.saturating_add(bytes) >= part.total)
    }
}

/// The id under which the server remembers the message.
pub(super) fn message_id(headers: &HeaderMap) -> Option<String> {
    headers.get(NATS_MESSAGE_ID).map(|value| value.as_str().to_owned())
}

/// How many of the events, from the first, fit one message of `limit` bytes; at least one.
pub(super) fn fitting<'a>(events: impl IntoIterator<Item = &'a Own>, limit: usize) -> usize {
    let mut bytes = 0_usize;
    events
        .into_iter()
        .take_while(|event| {
            bytes = bytes.saturating_add(body_bytes(event));
            bytes <= limit
        })
        .count()
        .max(1)
}

/// One body of several events' changes, each with its length before it.
pub(super) fn join<'a>(events: impl IntoIterator<Item = &'a Own>) -> Vec<u8> {
    let mut body = Vec::new();
    for event in events {
        body.extend_from_slice(&length(event));
        body.extend_from_slice(&event.changes);
    }
    body
}

fn length(event: &Own) -> [u8; 4] {
    // An event has 64 MiB at most.
    u32::try_from(event.changes.len()).unwrap_or(u32::MAX).to_be_bytes()
}

/// Bytes of the body of one event.
pub(super) fn body_bytes(event: &Own) -> usize {
    4 + event.changes.len()
}

/// The piece of one event's body that begins at `offset` and has `limit` bytes, or the last one's fewer.
pub(super) fn piece(event: &Own, offset: usize, limit: usize) -> Vec<u8> {
    let length = length(event);
    let mut piece = Vec::with_capacity(limit.min(body_bytes(event).saturating_sub(offset)));
    for part in [length.get(offset..), event.changes.get(offset.saturating_sub(4)..)].into_iter().flatten() {
        let room = (limit - piece.len()).min(part.len());
        piece.extend_from_slice(part.get(..room).unwrap_or_default());
    }
    piece
}

/// The changes in a payload; the error says what is wrong with it.
pub(super) fn split(mut payload: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut all = Vec::new();
    while !payload.is_empty() {
        let cut = || "its payload is cut short".to_owned();
        let (length, rest) = payload.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| cut())?;
        let (changes, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
        all.push(changes.to_vec());
        payload = rest;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn own(changes: &[u8]) -> Own {
        Own { n: 1, session_key: "s".into(), hash: [7; 32], changes: changes.to_vec() }
    }

    proptest! {
        #[test]
        fn any_session_key_gives_a_plain_subject_of_its_own(key in any::<String>(), other in any::<String>()) {
            let subject = subject("log", &key, "gateway-1");
            prop_assert_eq!(subject.split('.').count(), 4);
            prop_assert!(subject.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-'));
            prop_assert_eq!(replica_of(&subject), Some("gateway-1"));
            prop_assert_eq!(key == other, subject == super::subject("log", &other, "gateway-1"));
        }

        #[test]
        fn what_is_joined_is_split_again(all in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..8), cut in 0usize..400) {
            let events: Vec<Own> = all.iter().map(|changes| own(changes)).collect();
            let payload = join(&events);
            prop_assert_eq!(split(&payload).unwrap(), all);
            // A payload that was cut gives fewer or an error, never others.
            if let Ok(fewer) = split(&payload[..cut.min(payload.len())]) {
                prop_assert!(events.iter().map(|e| &e.changes).zip(&fewer).all(|(a, b)| a == b));
            }
        }

        #[test]
        fn the_pieces_of_a_body_are_the_body(changes in prop::collection::vec(any::<u8>(), 0..60), limit in 1usize..70) {
            let event = own(&changes);
            let (body, mut got) = (join([&event]), Vec::new());
            while got.len() < body.len() {
                let next = piece(&event, got.len(), limit);
                prop_assert!(!next.is_empty() && next.len() <= limit);
                got.extend(next);
            }
            prop_assert_eq!(body.len(), body_bytes(&event));
            prop_assert_eq!(got, body);
        }

        #[test]
        fn headers_are_read_as_they_were_written(first in 1u64.., more in 0u64..9, hash in any::<[u8; 32]>(), part in prop::option::of((0usize..1000, 1usize..1000))) {
            let part = part.map(|(offset, rest)| Part { offset, total: offset + rest, previous: u64::from(offset > 0) * 99 });
            let envelope = Envelope { first, last: first.saturating_add(more), hash, part };
            let headers = envelope.headers(&"s".repeat(64), u64::MAX, usize::MAX);
            prop_assert_eq!(Envelope::of(&headers).unwrap(), envelope);
            let bytes: usize = headers.iter().map(|(name, values)| name.to_string().len() + values[0].as_str().len() + 4).sum();
            prop_assert!(bytes + 12 <= HEADROOM, "{} bytes", bytes);
        }
    }

    #[test]
    fn headers_that_are_wrong_are_named() {
        let good = Envelope { first: 2, last: 3, hash: [1; 32], part: None };
        let cases = [
            (EVENTS, "3-2"),
            (EVENTS, "0-2"),
            (EVENTS, "x"),
            (HASH, "12"),
            (PART, "5/5"),
            (PART, "0/9"), // with a previous part
            (PART, "1"),
            (PREVIOUS, "-"),
        ];
        for (name, value) in cases {
            let mut headers = good.headers("log", 0, 0);
            headers.insert(PART, "1/9");
            headers.insert(PREVIOUS, "4");
            headers.insert(name, value);
            let error = Envelope::of(&headers).unwrap_err();
            assert!(error.contains("Openclaw-"), "{name}: {value}: {error}");
        }
        assert!(Envelope::of(&HeaderMap::new()).unwrap_err().contains(EVENTS));
    }

    #[test]
    fn a_message_takes_what_fits_and_one_event_at_least() {
        let events = [own(&[0; 10]), own(&[0; 10]), own(&[0; 100])];
        assert_eq!(fitting(&events, 28), 2);
        assert_eq!(fitting(&events, 27), 1);
        assert_eq!(fitting(&events, 5), 1);
        assert_eq!(fitting(&events, 1000), 3);
    }
}
