//! What the log needs of a key-value store. The one in use is [`super::sled`]; the tests' is in memory.

use crate::{Code, CoreError, Result};

/// A key and its value.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

/// Writes that become visible, and survive a crash, all or none. Each key at most once.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch(pub(super) Vec<(Vec<u8>, Option<Vec<u8>>)>);

impl Batch {
    /// Writes a value.
    pub(super) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.0.push((key, Some(value)));
    }

    /// Removes a key.
    pub(super) fn remove(&mut self, key: Vec<u8>) {
        self.0.push((key, None));
    }
}

/// An ordered key-value store with one writer and any number of readers.
pub(super) trait Storage: Send + Sync {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// The pairs with `from <= key < to` in order, or from the last to the first.
    fn scan(&self, from: Vec<u8>, to: Vec<u8>, reverse: bool) -> Box<dyn Iterator<Item = Result<Pair>> + '_>;

    /// Applies a batch: readers see it, a crash of the process may still undo it as a whole.
    fn commit(&self, batch: Batch) -> Result<()>;

    /// Puts every commit so far on the disk. After an error the store must be opened anew: what is on the disk is
    /// then not known.
    fn sync(&self) -> Result<()>;

    /// Refuses every write from now on, for this reason.
    fn fail(&self, _why: &str) {}

    /// Whether it refuses every write, because one has failed.
    fn has_failed(&self) -> bool {
        false
    }

    /// Bytes on disk.
    fn disk_bytes(&self) -> Result<u64>;
}

/// Stands for a database that had failed and could not be opened anew, until it can: says so to everybody.
pub(super) struct Absent(pub(super) String);

impl Absent {
    fn error<T>(&self) -> Result<T> {
        Err(CoreError::new(Code::Io, self.0.as_str()))
    }
}

impl Storage for Absent {
    fn get(&self, _key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.error()
    }

    fn scan(
        &self,
        _from: Vec<u8>,
        _to: Vec<u8>,
        _reverse: bool,
    ) -> Box<dyn Iterator<Item = Result<Pair>> + '_> {
        Box::new(std::iter::once(self.error()))
    }

    fn commit(&self, _batch: Batch) -> Result<()> {
        self.error()
    }

    fn sync(&self) -> Result<()> {
        self.error()
    }

    fn has_failed(&self) -> bool {
        true
    }

    fn disk_bytes(&self) -> Result<u64> {
        self.error()
    }
}
