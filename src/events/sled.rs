//! [`Storage`] on sled 0.34.
//!
//! sled's `flush` asks the kernel to begin writing and no more (`sync_file_range`): its data survives the process,
//! not the machine. So [`Storage::sync`] flushes and then calls `fdatasync` on sled's own file through a second
//! descriptor. Values stay below sled's limit for separate blob files, which that descriptor would not reach.
//!
//! sled may panic on damaged files. No panic passes from here. After a write or a flush that failed, nothing more is
//! written: what sled then holds in memory may not be what is on the disk.

use std::fs::{self, File, OpenOptions};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use super::storage::{Batch, Pair, Storage};
use crate::{Code, CoreError, Result, runtime};

/// How long sled's own lock is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// The file that says that the database may not be on the disk as it is read.
pub(super) const UNSYNCED: &str = "unsynced";

/// How long a flush may take before it is looked at.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// A sled database, and a descriptor that reaches its file.
pub(super) struct Sled {
    /// There until the end.
    db: Option<Arc<sled::Db>>,
    /// Flushes that were begun and ended: odd while one runs.
    flushes: Arc<AtomicU64>,
    file: File,
    folder: PathBuf,
    /// Why nothing more is written.
    failed: OnceLock<String>,
}

impl Sled {
    /// Opens or creates the database in a folder.
    pub(super) fn open(folder: &Path, cache_bytes: u64) -> Result<Self> {
        let config = sled::Config::new()
            .path(folder)
            // Only `sync` decides when something is on the disk.
            .flush_every_ms(None)
            .cache_capacity(cache_bytes)
            .mode(sled::Mode::HighThroughput);
        let db = Self::start(&config, folder)?;
        // sled leaves the file without which it does not open again to the kernel's caches.
        let conf = folder.join("conf");
        let synced =
            OpenOptions::new().read(true).write(cfg!(windows)).open(&conf).and_then(|conf| conf.sync_all());
        synced.map_err(|error| CoreError::io("sync", &conf, error))?;
        let path = folder.join("db");
        // Windows flushes only through a descriptor that may write.
        let file = OpenOptions::new().read(true).write(cfg!(windows)).open(&path);
        let file = file.map_err(|error| CoreError::io("open", &path, error))?;
        let (db, flushes) = (Arc::new(db), Arc::new(AtomicU64::new(0)));
        runtime::runtime()?.spawn(wake(Arc::downgrade(&db), Arc::clone(&flushes)));
        Ok(Self { db: Some(db), flushes, file, folder: folder.to_owned(), failed: OnceLock::new() })
    }

    fn db(&self) -> sled::Result<&sled::Db> {
        self.db.as_deref().ok_or_else(|| sled::Error::Unsupported("the database was closed".into()))
    }

    fn start(config: &sled::Config, folder: &Path) -> Result<sled::Db> {
        let began = Instant::now();
        loop {
            let opened = catch_unwind(AssertUnwindSafe(|| config.open()))
                .map_err(|_| damaged(folder, "sled failed inside while opening it"))?;
            match opened {
                // Whoever comes here has the store's own lock. sled's goes a little later than its database, with the
                // last of its threads, and with the last process that was just being started by who had it.
                Err(sled::Error::Io(error))
                    if error.to_string().contains("acquire lock") && began.elapsed() < LOCK_PATIENCE =>
                {
                    std::thread::sleep(Duration::from_millis(5));
                }
                opened => return opened.map_err(|error| convert(folder, error)),
            }
        }
    }

    fn read<T>(&self, work: impl FnOnce() -> sled::Result<T>) -> Result<T> {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(outcome) => outcome.map_err(|error| convert(&self.folder, error)),
            Err(_) => Err(damaged(&self.folder, "sled failed inside while reading")),
        }
    }

    fn write<T>(&self, work: impl FnOnce() -> sled::Result<T>) -> Result<T> {
        if let Some(why) = self.failed.get() {
            let message = format!("the event store failed and must be opened anew: {why}");
            return Err(CoreError::new(Code::Io, message).in_file(&self.folder));
        }
        let error = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => convert(&self.folder, error),
            Err(_) => damaged(&self.folder, "sled failed inside while writing"),
        };
        let _ = self.failed.set(error.message().to_owned());
        Err(error)
    }
}

/// Wakes a flush that waits for ever.
///
/// sled's thread that fails to write the first message of a batch notes the error and does not wake who waits for the
/// message. Whoever asks for a flush after that finds the error, and wakes everybody.
async fn wake(db: Weak<sled::Db>, flushes: Arc<AtomicU64>) {
    let (mut seen, mut pause) = (0, FLUSH_PATIENCE);
    loop {
        tokio::time::sleep(pause).await;
        let now = flushes.load(Ordering::Acquire);
        let hangs = now % 2 == 1 && now == seen;
        seen = now;
        let Some(db) = db.upgrade() else { return };
        // A disk that is merely slow holds up this flush as well: the next one is later.
        pause = if hangs { pause * 2 } else { FLUSH_PATIENCE };
        if hangs {
            let again = move || drop(catch_unwind(AssertUnwindSafe(move || drop(db.flush()))));
            let _ = std::thread::Builder::new().name("openclaw-events-wake".into()).spawn(again);
        } else {
            drop_db(Some(db));
        }
    }
}

/// sled flushes once more in the end, and panics if it cannot.
fn drop_db(db: Option<Arc<sled::Db>>) {
    if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
        tracing::error!(
            "sled could not put its last bytes on the disk; none of them was promised to be there"
        );
    }
}

impl Drop for Sled {
    fn drop(&mut self) {
        drop_db(self.db.take());
    }
}

/// Frees what databases that were closed have left: sled puts off freeing until the threads that might still look have
/// moved on, and after the last use none does.
pub(super) fn reclaim() {
    // Each step frees what is two steps old, and takes a few dozen of many thousands of blocks at a time.
    for _ in 0..128 {
        crossbeam_epoch::pin().flush();
    }
}

impl Storage for Sled {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.read(|| self.db()?.get(key))?.map(|value| value.to_vec()))
    }

    fn scan(&self, from: Vec<u8>, to: Vec<u8>, reverse: bool) -> Box<dyn Iterator<Item = Result<Pair>> + '_> {
        let mut pairs = self.db.as_deref().map(|db| db.range(from..to));
        let mut broken = false;
        Box::new(std::iter::from_fn(move || {
            let pairs = pairs.as_mut().filter(|_| !broken)?;
            let next = self.read(|| if reverse { pairs.next_back() } else { pairs.next() }.transpose());
            broken = next.is_err();
            next.map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec()))).transpose()
        }))
    }

    fn commit(&self, batch: Batch) -> Result<()> {
        let mut writes = sled::Batch::default();
        for (key, value) in batch.0 {
            match value {
                Some(value) => writes.insert(key, value),
                None => writes.remove(key),
            }
        }
        self.write(|| self.db()?.apply_batch(writes))
    }

    fn sync(&self) -> Result<()> {
        self.write(|| {
            self.flushes.fetch_add(1, Ordering::AcqRel);
            let flushed = self.db().and_then(|db| db.flush());
            self.flushes.fetch_add(1, Ordering::AcqRel);
            flushed?;
            // After a failed fdatasync the kernel counts the pages as written, which they may not be: trying again
            // would succeed and mean nothing. Who opens the database next is told to write everything anew.
            self.file.sync_data().map_err(|error| {
                let _ = File::create(self.folder.join(UNSYNCED));
                sled::Error::from(error)
            })
        })
    }

    fn fail(&self, why: &str) {
        let _ = self.failed.set(why.to_owned());
    }

    fn disk_bytes(&self) -> Result<u64> {
        let mut bytes = 0;
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(|error| CoreError::io("list", &folder, error))? {
                // sled removes files of its own at any time.
                let Ok(metadata) = entry.and_then(|entry| Ok((entry.metadata()?, entry.path()))) else {
                    continue;
                };
                match metadata {
                    (metadata, path) if metadata.is_dir() => folders.push(path),
                    (metadata, _) => bytes += allocated(&metadata),
                }
            }
        }
        Ok(bytes)
    }
}

#[cfg(unix)]
fn allocated(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(metadata) * 512
}

#[cfg(not(unix))]
fn allocated(metadata: &fs::Metadata) -> u64 {
    metadata.len()
}

fn convert(folder: &Path, error: sled::Error) -> CoreError {
    match error {
        sled::Error::Io(error) => CoreError::io("use the event store in", folder, error),
        other => damaged(folder, &other.to_string()),
    }
}

fn damaged(folder: &Path, why: &str) -> CoreError {
    let message = format!("the event store in {} is damaged: {why}", folder.display());
    CoreError::new(Code::StoreCorrupt, message).in_file(folder)
}
