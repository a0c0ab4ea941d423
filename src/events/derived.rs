//! Values of our own that are made from the log, each with its checksum: whoever finds one damaged makes it anew.

use serde::{Deserialize, Serialize};

use super::record;
use super::storage::{Batch, Storage};
use crate::{Code, CoreError, Result};

/// Reads a value of our own.
pub(super) fn read<T: for<'de> Deserialize<'de>>(storage: &dyn Storage, key: &[u8]) -> Result<Option<T>> {
    let Some(value) = storage.get(key)? else { return Ok(None) };
    unsealed(&value).map(Some)
}

/// Reads a value that [`put`] has written.
pub(super) fn unsealed<T: for<'de> Deserialize<'de>>(value: &[u8]) -> Result<T> {
    if let Some((session, _)) = record::read_session(value) {
        return Ok(session);
    }
    let found = value.split_last_chunk().filter(|(bytes, sum)| crc32fast::hash(bytes).to_be_bytes() == **sum);
    found.and_then(|(bytes, _)| postcard::from_bytes(bytes).ok()).ok_or_else(|| {
        let message =
            "what the event store derives from its log is damaged: `verify({ rebuild: true })` restores it";
        CoreError::new(Code::StoreCorrupt, message)
    })
}

/// Writes a value with its checksum.
pub(super) fn put(batch: &mut Batch, key: Vec<u8>, value: &impl Serialize) -> Result<()> {
    let mut bytes = postcard::to_stdvec(value)
        .map_err(|error| CoreError::new(Code::Internal, format!("cannot encode: {error}")))?;
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    batch.put(key, bytes);
    Ok(())
}
