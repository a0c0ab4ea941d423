//! [`Storage`] in memory, for tests that run thousands of histories.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::storage::{Batch, Pair, Storage};
use crate::Result;

#[derive(Default)]
pub(super) struct Memory(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

impl Memory {
    fn pairs(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for Memory {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.pairs().get(key).cloned())
    }

    fn scan(&self, from: Vec<u8>, to: Vec<u8>, reverse: bool) -> Box<dyn Iterator<Item = Result<Pair>> + '_> {
        let pairs: Vec<Pair> =
            self.pairs().range(from..to).map(|(key, value)| (key.clone(), value.clone())).collect();
        if reverse { Box::new(pairs.into_iter().rev().map(Ok)) } else { Box::new(pairs.into_iter().map(Ok)) }
    }

    fn commit(&self, batch: Batch) -> Result<()> {
        // Readers see a batch of sled's key by key: they must find a run's new first event before the old one goes.
        let moves =
            |put: bool| batch.0.iter().any(|(key, value)| key.starts_with(b"a") && value.is_some() == put);
        assert!(!(moves(true) && moves(false)), "a batch that moves the first of a run");
        let mut pairs = self.pairs();
        for (key, value) in batch.0 {
            match value {
                Some(value) => pairs.insert(key, value),
                None => pairs.remove(&key),
            };
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn disk_bytes(&self) -> Result<u64> {
        Ok(0)
    }
}
