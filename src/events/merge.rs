//! Changes on their way between replicas.
//!
//! The bytes are a mark and, encoded with postcard, a list of `(previous hash, hash, body)`. A body is exactly what
//! was hashed, so that what travels can be checked before anything of it is taken in.

use serde::{Deserialize, Serialize};

use super::derived::read;
use super::event::{Body, MAX_EVENT_BYTES, StoredEvent, check_data, check_key, check_replica, invalid};
use super::lookup::find_by_origin;
use super::record;
use super::storage::Storage;
use super::version::VersionVector;
use super::{clock::Clock, keys, log::StoreMeta};
use crate::Result;

/// Begins every `changes`, with the version of their form.
const MARK: &[u8; 4] = b"occ\x01";

/// Bytes of events in one answer; there is always at least one event.
const ANSWER_BYTES: usize = 32 << 20;

#[derive(Serialize, Deserialize)]
struct Change<'a> {
    prev: [u8; 32],
    hash: [u8; 32],
    #[serde(borrow, serialize_with = "record::as_bytes")]
    body: &'a [u8],
}

/// An event of another replica whose hash was checked. `seq` and `arrival` are still to be given.
pub(super) struct Incoming {
    pub(super) event: StoredEvent,
    pub(super) body: Vec<u8>,
}

/// The events that are here and that `since` does not have, of each origin in its order: at most `limit`, and at most
/// 32 MiB.
pub(super) fn changes(storage: &dyn Storage, since: &VersionVector, limit: usize) -> Result<Vec<u8>> {
    let store: StoreMeta = read(storage, keys::STORE)?.unwrap_or_default();
    let (mut bodies, mut bytes) = (Vec::new(), 0);
    'all: for (replica, first, last) in store.version.minus(since) {
        for n in first..=last {
            if bodies.len() >= limit || bytes >= ANSWER_BYTES {
                break 'all;
            }
            // Events that were deleted or pruned are known, but gone.
            if let Some(event) = find_by_origin(storage, replica, n)? {
                let body = record::encode(&event.body())?;
                bytes += body.len();
                bodies.push((event.prev, event.hash, body));
            }
        }
    }
    encode(&bodies)
}

/// One event as changes: the same bytes each time.
pub(super) fn change(event: &StoredEvent) -> Result<Vec<u8>> {
    encode(&[(event.prev, event.hash, record::encode(&event.body())?)])
}

fn encode(bodies: &[([u8; 32], [u8; 32], Vec<u8>)]) -> Result<Vec<u8>> {
    let list: Vec<Change<'_>> =
        bodies.iter().map(|(prev, hash, body)| Change { prev: *prev, hash: *hash, body }).collect();
    postcard::to_extend(&list, MARK.to_vec())
        .map_err(|error| invalid(format!("changes cannot be encoded: {error}")))
}

/// Reads and checks changes. Nothing of them is taken in if anything is wrong.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Incoming>> {
    let rest = bytes.strip_prefix(MARK).ok_or_else(|| {
        invalid("these bytes are not the `changes` of an event store, or those of a newer version")
    })?;
    let (list, rest): (Vec<Change<'_>>, _) = postcard::take_from_bytes(rest)
        .map_err(|error| invalid(format!("the changes are cut short or damaged: {error}")))?;
    if !rest.is_empty() {
        return Err(invalid(format!("{} bytes follow the changes", rest.len())));
    }
    list.into_iter().map(|change| check(&change)).collect()
}

fn check(change: &Change<'_>) -> Result<Incoming> {
    let body: Body<'_> = postcard::from_bytes(change.body)
        .map_err(|error| invalid(format!("an event in the changes is damaged: {error}")))?;
    let wrong =
        |what: &str| invalid(format!("event {} of replica `{}` in the changes {what}", body.n, body.replica));
    if Body::hash(&change.prev, change.body) != change.hash {
        return Err(wrong("does not have the hash that it should: it was changed on its way"));
    }
    check_key(body.session_key)?;
    check_replica(body.replica)?;
    if body.n == 0 || body.n >= u64::MAX >> 1 || body.clock > Clock::MAX {
        return Err(wrong("has an impossible number or clock"));
    }
    check_data(body.data, MAX_EVENT_BYTES)?;
    if serde_json::from_str::<serde::de::IgnoredAny>(body.data).is_err() {
        return Err(wrong("holds data that is not JSON"));
    }
    let event = StoredEvent::from_parts(&body, 0, 0, change.prev, change.hash);
    // Other bytes for the same event would be hashed otherwise on the next replica.
    let canonical = record::encode(&event.body())?;
    if canonical != change.body {
        return Err(wrong("is not in the form in which it was hashed"));
    }
    Ok(Incoming { event, body: canonical })
}
