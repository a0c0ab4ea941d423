//! One at a time: a kernel lock on a file that is named after what it stands for.
//!
//! The lock goes with the process that has it, however that ends; the file stays. Its name is a hash, so that it tells
//! nothing of a token. It keeps apart processes of this machine, not of others.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;

use crate::{Code, CoreError, Result};

/// Held until it is dropped.
#[derive(Debug)]
pub struct Lease {
    _file: File,
}

impl Lease {
    /// Takes the lease on `parts`, in a folder that the processes share; none if somebody has it. Blocks, shortly.
    pub fn acquire(folder: &Path, parts: &[&[u8]]) -> Result<Option<Self>> {
        let mut hasher = blake3::Hasher::new_derive_key("@openclaw/core channels: lease");
        for part in parts {
            hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(part);
        }
        let name = HEXLOWER.encode(hasher.finalize().as_bytes().get(..20).unwrap_or_default());
        let path = folder.join(format!("openclaw-core-channel-{name}.lock"));
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| CoreError::io("open", &path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(CoreError::io("lock", &path, error)),
        }
    }
}

/// The folder where leases are: the system's temporary one, which all processes of a user share.
pub fn folder() -> PathBuf {
    std::env::temp_dir()
}

/// The error of who comes second.
pub fn taken(what: &str) -> CoreError {
    CoreError::new(Code::ChannelConflict, format!("{what} on this machine; close that one first"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_held_by_one_and_freed_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let take = |parts: &[&[u8]]| Lease::acquire(folder.path(), parts).unwrap();
        let first = take(&[b"telegram", b"token"]).unwrap();
        assert!(take(&[b"telegram", b"token"]).is_none());
        assert!(take(&[b"telegra", b"mtoken"]).is_some());
        drop(first);
        assert!(take(&[b"telegram", b"token"]).is_some());
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            assert!(!entry.unwrap().file_name().to_string_lossy().contains("token"));
        }
    }
}
