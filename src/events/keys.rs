//! The layout of the store: every key, and which bytes it has.
//!
//! | key | value |
//! |---|---|
//! | `e` session `seq` | the event's record; `e` session `seq` `part` holds what of it does not fit one value |
//! | `x` replica `n` | the record of an event whose id another event of its session has, and which gave way to it |
//! | `y` session replica `n` | nothing: the same, by session |
//! | `a` `arrival` | session, `seq`: a run of events of one session that this store took in one after the other |
//! | `o` replica `n` | `arrival`: a run of events of one origin that arrived one after the other |
//! | `i` hash of id, hash of session | session, `seq`: ids that were given |
//! | `r` time, session | nothing: sessions by their latest event |
//! | `p` session | the projection |
//! | `s` session key | one cell of the session's state |
//! | `m` session | what this store alone knows of a session |
//! | `d` session | nothing: the projection must be folded anew |
//! | `g` session | nothing: deleted events are still to be removed |
//! | `q` session `seq` | damage that was found |
//! | `n` name | a note |
//! | `M` | what the store knows of itself |
//!
//! Numbers are big-endian, and a session or replica that another field follows has its length before it: no key of
//! one session is a prefix of another's, and a range of keys is a range of events.

use crate::{Code, CoreError, Result};

pub(super) const STORE: &[u8] = b"M";

/// Keys from the first up to, but not with, the second.
pub(super) type KeyRange = (Vec<u8>, Vec<u8>);

fn field(key: &mut Vec<u8>, bytes: &[u8]) {
    // Names are checked before they come here: none is longer than a u16 tells.
    key.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
    key.extend_from_slice(bytes);
}

fn keyed(tag: u8, name: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len() + 24);
    key.push(tag);
    field(&mut key, name.as_bytes());
    key
}

fn plain(tag: u8, name: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len() + 1);
    key.push(tag);
    key.extend_from_slice(name.as_bytes());
    key
}

fn numbered(tag: u8, name: &str, number: u64) -> Vec<u8> {
    let mut key = keyed(tag, name);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

pub(super) fn event(session: &str, seq: u64) -> Vec<u8> {
    numbered(b'e', session, seq)
}

/// Further bytes of the record at `key`, from part 1 on.
pub(super) fn part(key: &[u8], part: u16) -> Vec<u8> {
    let mut key = key.to_vec();
    key.extend_from_slice(&part.to_be_bytes());
    key
}

/// The events of a session with `from <= seq < to`.
pub(super) fn events(session: &str, from: u64, to: u64) -> KeyRange {
    (event(session, from), event(session, to))
}

pub(super) fn shadow(replica: &str, n: u64) -> Vec<u8> {
    numbered(b'x', replica, n)
}

pub(super) fn arrival(arrival: u64) -> Vec<u8> {
    let mut key = vec![b'a'];
    key.extend_from_slice(&arrival.to_be_bytes());
    key
}

/// The number that ends a key.
pub(super) fn trailing_number(key: &[u8]) -> Result<u64> {
    key.last_chunk().map(|last| u64::from_be_bytes(*last)).ok_or_else(|| malformed("a key"))
}

pub(super) fn origin(replica: &str, n: u64) -> Vec<u8> {
    numbered(b'o', replica, n)
}

/// An id names an event within its session.
pub(super) fn id(session: &str, id: &str) -> Vec<u8> {
    let (mut key, _) = ids(id);
    key.extend_from_slice(blake3::hash(session.as_bytes()).as_bytes().first_chunk::<8>().unwrap_or(&[0; 8]));
    key
}

/// The entries of an id in whatever sessions.
pub(super) fn ids(id: &str) -> KeyRange {
    let mut from = vec![b'i'];
    from.extend_from_slice(blake3::hash(id.as_bytes()).as_bytes().first_chunk::<16>().unwrap_or(&[0; 16]));
    let to = after_prefix(&from);
    (from, to)
}

pub(super) fn shadowed(session: &str, replica: &str, n: u64) -> Vec<u8> {
    let mut key = keyed(b'y', session);
    key.extend_from_slice(&shadow(replica, n));
    key
}

/// The keys of a session's shadows; each ends with the key of the shadow itself.
pub(super) fn shadows(session: &str) -> KeyRange {
    let from = keyed(b'y', session);
    let to = after_prefix(&from);
    (from, to)
}

/// Sorts by time, whatever its sign, then by session.
pub(super) fn recency(last_ms: i64, session: &str) -> Vec<u8> {
    let mut key = vec![b'r'];
    key.extend_from_slice(&(last_ms.cast_unsigned() ^ (1 << 63)).to_be_bytes());
    key.extend_from_slice(session.as_bytes());
    key
}

/// Time and session of a recency key.
pub(super) fn read_recency(key: &[u8]) -> Result<(i64, &str)> {
    let found = key.get(1..).and_then(|rest| rest.split_first_chunk()).and_then(|(time, session)| {
        let time = (u64::from_be_bytes(*time) ^ (1 << 63)).cast_signed();
        Some((time, std::str::from_utf8(session).ok()?))
    });
    found.ok_or_else(|| malformed("a key of the index by recency"))
}

pub(super) fn projection(session: &str) -> Vec<u8> {
    plain(b'p', session)
}

pub(super) fn state(session: &str, key: &str) -> Vec<u8> {
    let mut bytes = keyed(b's', session);
    bytes.extend_from_slice(key.as_bytes());
    bytes
}

/// All cells of a session's state.
pub(super) fn states(session: &str) -> KeyRange {
    let from = keyed(b's', session);
    let to = after_prefix(&from);
    (from, to)
}

/// The state's key in a key of its cell.
pub(super) fn read_state<'k>(session: &str, key: &'k [u8]) -> Result<&'k str> {
    key.get(3 + session.len()..)
        .and_then(|rest| std::str::from_utf8(rest).ok())
        .ok_or_else(|| malformed("a key of a session's state"))
}

/// Session and state's key in a key of a cell.
pub(super) fn read_session_state(key: &[u8]) -> Result<(&str, &str)> {
    let found = key.get(1..).and_then(|rest| rest.split_first_chunk()).and_then(|(length, rest)| {
        let (session, key) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        Some((std::str::from_utf8(session).ok()?, std::str::from_utf8(key).ok()?))
    });
    found.ok_or_else(|| malformed("a key of a session's state"))
}

pub(super) fn meta(session: &str) -> Vec<u8> {
    plain(b'm', session)
}

pub(super) fn dirty(session: &str) -> Vec<u8> {
    plain(b'd', session)
}

pub(super) fn garbage(session: &str) -> Vec<u8> {
    plain(b'g', session)
}

pub(super) fn problem(session: &str, seq: u64) -> Vec<u8> {
    numbered(b'q', session, seq)
}

/// Session and `seq` of a key that has both.
pub(super) fn read_event(key: &[u8]) -> Result<(&str, u64)> {
    let found = key.get(1..).and_then(|rest| rest.split_first_chunk()).and_then(|(length, rest)| {
        let (session, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        Some((std::str::from_utf8(session).ok()?, u64::from_be_bytes(*rest.first_chunk()?)))
    });
    found.ok_or_else(|| malformed("an event's key"))
}

pub(super) fn note(name: &str) -> Vec<u8> {
    plain(b'n', name)
}

/// All keys of one kind whose name begins so.
pub(super) fn all(tag: u8, prefix: &str) -> KeyRange {
    let from = plain(tag, prefix);
    let to = after_prefix(&from);
    (from, to)
}

/// The session in a key that holds nothing else.
pub(super) fn read_plain(key: &[u8]) -> Result<&str> {
    key.get(1..).and_then(|rest| std::str::from_utf8(rest).ok()).ok_or_else(|| malformed("a session's key"))
}

/// The first key that does not begin with `prefix`. A prefix begins with a tag, so it is never all 0xFF.
fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

/// Where an event is: the value of the indexes by arrival and by id.
pub(super) fn place(session: &str, seq: u64) -> Vec<u8> {
    let mut value = seq.to_be_bytes().to_vec();
    value.extend_from_slice(session.as_bytes());
    value
}

pub(super) fn read_place(value: &[u8]) -> Result<(&str, u64)> {
    let found = value
        .split_first_chunk()
        .and_then(|(seq, session)| Some((std::str::from_utf8(session).ok()?, u64::from_be_bytes(*seq))));
    found.ok_or_else(|| malformed("an entry of an index"))
}

fn malformed(what: &str) -> CoreError {
    CoreError::new(Code::StoreCorrupt, format!("{what} in the event store is malformed"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_events_of_a_session_are_a_range_that_holds_no_other(a in "[a-c:]{1,4}", b in "[a-c:]{1,4}", i in 0_u64..300, j in 0_u64..300) {
            let (from, to) = events(&a, 0, u64::MAX);
            let key = event(&b, j);
            prop_assert_eq!(from <= key && key < to, a == b);
            prop_assert_eq!(event(&a, i).cmp(&event(&a, j)), i.cmp(&j));
            let further = part(&event(&a, i), 1);
            prop_assert!(event(&a, i) < further && further < event(&a, i + 1));
            prop_assert_eq!(read_event(&key).unwrap(), (b.as_str(), j));
            prop_assert_eq!(read_event(&further).unwrap(), (a.as_str(), i));
        }

        #[test]
        fn recency_sorts_by_time_of_any_sign(a in any::<i64>(), b in any::<i64>()) {
            prop_assert_eq!(recency(a, "z").cmp(&recency(b, "z")), a.cmp(&b));
            let key = recency(a, "s:1");
            prop_assert_eq!(read_recency(&key).unwrap(), (a, "s:1"));
        }
    }
}
