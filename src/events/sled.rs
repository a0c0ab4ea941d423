//! [`Storage`] on sled 0.34.
//!
//! On Linux sled's `flush` asks the kernel to begin writing and no more (`sync_file_range`): its data survives the
//! process, not the machine. So [`Storage::sync`] flushes and then calls `fdatasync` on sled's own file through a second
//! descriptor; and between two of them [`barrier`] keeps sled from writing over what it has only moved. A page of the tree that is longer than a quarter of a segment goes to a file in `blobs`, which sled never
//! puts on the disk: long values are cut into pieces, so that this is rare, and where it happens it is done here.
//!
//! sled may panic on damaged files. No panic passes from here. After a write or a flush that failed, nothing more is
//! written: what sled then holds in memory may not be what is on the disk.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use sled::IVec;

use super::files::create_private;
use super::storage::{Batch, Pair, Storage};
use crate::memory::{Owner, scope};
use crate::{Code, CoreError, Result, runtime};

/// How long sled's own lock is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// The file that says that the database may not be on the disk as it is read.
pub(super) const UNSYNCED: &str = "unsynced";

/// How long a flush may take before it is looked at.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// How often pages that were only written once are let go.
const SWEEP: Duration = Duration::from_mins(1);

/// A sled database, and a descriptor that reaches its file.
pub(super) struct Sled {
    /// There until the end.
    db: Option<Arc<sled::Db>>,
    /// Whether anything was written since the last sweep.
    written: Arc<AtomicBool>,
    /// Flushes that were begun and ended: odd while one runs.
    flushes: Arc<AtomicU64>,
    file: File,
    folder: PathBuf,
    /// What of `blobs` is on the disk.
    blobs: Mutex<Blobs>,
    /// Where sled's own threads leave what failed.
    config: sled::Config,
    /// Why nothing more is written.
    failed: OnceLock<String>,
    /// Of the barrier, when this was opened.
    #[cfg(target_os = "linux")]
    failures: u64,
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
        // What sled makes in it anybody may read.
        create_private(folder)?;
        remove_unfinished_snapshots(folder)?;
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
        let (db, flushes, written) = (Arc::new(db), Arc::default(), Arc::default());
        let runtime = runtime::runtime()?;
        runtime.spawn(wake(Arc::downgrade(&db), Arc::clone(&flushes)));
        runtime.spawn(sweep(Arc::downgrade(&db), Arc::clone(&written)));
        Ok(Self {
            db: Some(db),
            written,
            flushes,
            file,
            folder: folder.to_owned(),
            blobs: Mutex::default(),
            config,
            failed: OnceLock::new(),
            #[cfg(target_os = "linux")]
            failures: barrier::FAILURES.load(Ordering::Acquire),
        })
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
        // Whoever asks, sled keeps what it has read.
        let _scope = scope(Owner::Events);
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(outcome) => outcome.map_err(|error| convert(&self.folder, error)),
            Err(_) => Err(damaged(&self.folder, "sled failed inside while reading")),
        }
    }

    fn write<T>(&self, work: impl FnOnce() -> sled::Result<T>) -> Result<T> {
        if let Some(why) = self.failed.get() {
            let message =
                format!("the event store failed, and is opened anew as soon as its disk takes it: {why}");
            return Err(CoreError::new(Code::Io, message).in_file(&self.folder));
        }
        let _scope = scope(Owner::Events);
        let error = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => convert(&self.folder, error),
            Err(_) => damaged(&self.folder, "sled failed inside while writing"),
        };
        // As after a failed `fdatasync` of our own: see `sync`.
        #[cfg(target_os = "linux")]
        if barrier::FAILURES.load(Ordering::Acquire) != self.failures {
            let _ = File::create(self.folder.join(UNSYNCED));
        }
        let _ = self.failed.set(error.message().to_owned());
        // The sweep writes nothing either.
        self.written.store(false, Ordering::Release);
        Err(error)
    }
}

/// Longer values are cut into pieces.
const PIECE_BYTES: usize = 5 << 10;

/// Begins what stands for a value that was cut; its length and CRC-32 follow.
const CUT: &[u8; 4] = b"\xF5ol\x01";

/// The keys of pieces: behind all others.
const PIECES: u8 = 0xFE;

fn piece(key: &[u8], number: usize) -> Vec<u8> {
    let number = u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
    [&[PIECES], key, &number].concat()
}

/// Length and checksum of the value that this one stands for; none if it is whole.
fn cut(value: &[u8]) -> Option<(usize, u32)> {
    let (length, rest) = value.strip_prefix(CUT)?.split_first_chunk()?;
    Some((usize::try_from(u64::from_be_bytes(*length)).ok()?, u32::from_be_bytes(*rest.first_chunk()?)))
}

/// Puts the end of each segment of sled's log on the disk before sled uses an older one again.
///
/// sled frees a segment when what replaces its records is stable, which to sled on Linux is after `sync_file_range`.
/// That orders nothing across a power cut: the disk may then hold what was written over the old records and not what
/// replaced them, so that even old events are lost. Stability counts in whole segments; so this is called instead of
/// the C library's function, and waits where a segment is full. On other systems sled calls `fsync` itself.
#[cfg(target_os = "linux")]
mod barrier {
    use std::ffi::{c_int, c_uint};
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    /// Whether sled has ever called.
    pub(super) static CALLED: AtomicBool = AtomicBool::new(false);

    /// Calls that failed, of any database.
    pub(super) static FAILURES: AtomicU64 = AtomicU64::new(0);

    /// sled's own default, which is part of the format of a database.
    const SEGMENT_BYTES: i64 = 512 << 10;

    // SAFETY: the signature is the C library's. `build.rs` has the addon bind its own calls to it; nobody else's are,
    // since Node loads an addon with its names to itself.
    #[unsafe(no_mangle)]
    #[allow(unsafe_code)]
    extern "C" fn sync_file_range(file: c_int, offset: i64, length: i64, _flags: c_uint) -> c_int {
        CALLED.store(true, Ordering::Relaxed);
        if (offset + length) % SEGMENT_BYTES != 0 {
            return 0;
        }
        // SAFETY: any number may be given; one that is no descriptor is an error.
        let outcome = unsafe { libc::fdatasync(file) };
        if outcome != 0 {
            FAILURES.fetch_add(1, Ordering::AcqRel);
        }
        outcome
    }
}

impl Sled {
    /// The whole value of which this was read; none if it is gone by now.
    fn join(&self, key: &[u8], mut value: sled::IVec) -> Result<Option<Vec<u8>>> {
        loop {
            let Some((length, sum)) = cut(&value) else { return Ok(Some(value.to_vec())) };
            let mut whole = Vec::new();
            for number in 0..length.div_ceil(PIECE_BYTES) {
                let piece = self.read(|| self.db()?.get(piece(key, number)))?;
                whole.extend_from_slice(&piece.unwrap_or_default());
            }
            if whole.len() == length && crc32fast::hash(&whole) == sum {
                return Ok(Some(whole));
            }
            // It may have been written anew in between.
            match self.read(|| self.db()?.get(key))? {
                Some(now) if now == value => return Err(damaged(&self.folder, "a long value is not whole")),
                Some(now) => value = now,
                None => return Ok(None),
            }
        }
    }

    /// Writes a value, cut if it is long. What may have been longer before leaves no pieces.
    fn put(&self, writes: &mut sled::Batch, key: Vec<u8>, value: Option<Vec<u8>>) -> Result<()> {
        // Events are cut where they are made, so that each part can be found by its own mark; indexes are short.
        let may_be_long = !matches!(key.first(), Some(b'e' | b'x' | b'y' | b'a' | b'o' | b'i' | b'r'));
        if may_be_long && let Some(before) = self.read(|| self.db()?.get(&key))? {
            let length = cut(&before).map_or(0, |(length, _)| length);
            (0..length.div_ceil(PIECE_BYTES)).for_each(|number| writes.remove(piece(&key, number)));
        }
        match value {
            Some(value) if may_be_long && value.len() > PIECE_BYTES => {
                for (number, bytes) in value.chunks(PIECE_BYTES).enumerate() {
                    writes.insert(piece(&key, number), bytes);
                }
                let (length, sum) =
                    ((value.len() as u64).to_be_bytes(), crc32fast::hash(&value).to_be_bytes());
                writes.insert(key, [CUT.as_slice(), &length, &sum].concat());
            }
            Some(value) => writes.insert(key, value),
            None => writes.remove(key),
        }
        Ok(())
    }

    /// Puts on the disk the pages that went to files of their own.
    fn sync_blobs(&self) -> std::io::Result<()> {
        let folder = self.folder.join("blobs");
        let modified = fs::metadata(&folder)?.modified()?;
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        if blobs.looked_at == Some(modified) {
            return Ok(());
        }
        let mut there = HashSet::new();
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if !blobs.synced.contains(&path) {
                // Windows flushes only through a descriptor that may write.
                match OpenOptions::new().read(true).write(cfg!(windows)).open(&path) {
                    Ok(file) => file.sync_all()?,
                    // It was not needed any more.
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                }
            }
            there.insert(path);
        }
        if there.iter().any(|path| !blobs.synced.contains(path)) && cfg!(unix) {
            File::open(&folder)?.sync_all()?;
        }
        blobs.synced = there;
        // Within one tick of the file system's clock there may be another change.
        let settled = modified.elapsed().is_ok_and(|elapsed| elapsed > Duration::from_secs(1));
        blobs.looked_at = settled.then_some(modified);
        Ok(())
    }
}

/// Removes the snapshots that sled was writing when its process died: it would take them for the latest ones, and not
/// open, or read its log anew from where that is written over.
fn remove_unfinished_snapshots(folder: &Path) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(CoreError::io("list", folder, error)),
    };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(&path).map_err(|error| CoreError::io("remove", &path, error))?;
        }
    }
    Ok(())
}

/// What is known of sled's folder `blobs`.
#[derive(Default)]
struct Blobs {
    /// When the folder had changed at the last look.
    looked_at: Option<SystemTime>,
    synced: HashSet<PathBuf>,
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

/// Has sled let go of the pages that nobody uses any more, a while after something was written.
async fn sweep(db: Weak<sled::Db>, written: Arc<AtomicBool>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(db) = db.upgrade() else { return };
        if written.swap(false, Ordering::AcqRel) {
            let swept = runtime::blocking(move || {
                let _scope = scope(Owner::Events);
                let swept = catch_unwind(AssertUnwindSafe(|| evict(&db)));
                drop_db(Some(db));
                Ok(swept.map_or(Ok(()), |swept| swept))
            });
            if let Ok(Err(error)) = swept.await {
                tracing::debug!(%error, "pages of the event store stay in memory");
            }
        } else {
            drop_db(Some(db));
        }
    }
}

/// Fills the place of each shard of sled's cache with a page of next to nothing.
///
/// sled 0.34 has 256 shards, looks at what one holds with every 64th access to it, and always keeps the page that was
/// the last there, whatever the cache may hold: in a store that is written and seldom read, some 6 MiB of pages that
/// nobody asks for again. Pages are dealt to the shards by their number; so this has a tree of as many tiny pages, made
/// one after the other, and a few more, and reads each of them 64 times.
fn evict(db: &sled::Db) -> sled::Result<()> {
    const PAGES: u32 = 320;
    /// Half of what sled puts on a leaf before it cuts it in two.
    const PAGE_KEYS: u32 = 8;
    const ACCESSES: usize = 64;
    let tree = db.open_tree("tiny pages")?;
    let last = (PAGES * PAGE_KEYS - 1).to_be_bytes();
    if !tree.contains_key(last)? {
        for key in 0..PAGES * PAGE_KEYS {
            tree.insert(key.to_be_bytes(), &[])?;
        }
    }
    for page in 0..PAGES {
        for _ in 0..ACCESSES {
            tree.contains_key((page * PAGE_KEYS).to_be_bytes())?;
        }
    }
    Ok(())
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

/// So many pairs are read at once by who goes backward.
const BACKWARD: usize = 32;
/// Keys that have more bits than this in common are not told apart by halving.
const HALVINGS: usize = 8 << 10;

impl Sled {
    /// The pairs of a range from the last to the first, found by reading forward: sled's own way back has a key of a
    /// megabyte in it, which would be a twelfth of the addon.
    fn backward<'s>(
        &'s self,
        db: &'s sled::Db,
        from: Vec<u8>,
        mut to: Vec<u8>,
    ) -> impl Iterator<Item = Result<(IVec, IVec)>> + 's {
        let mut ready = Vec::new();
        std::iter::from_fn(move || {
            if ready.is_empty() {
                ready = match self.read(|| last_pairs(db, &from, &to)) {
                    Ok(pairs) => pairs,
                    Err(error) => return Some(Err(error)),
                };
                to = ready.first()?.0.to_vec();
            }
            ready.pop().map(Ok)
        })
    }
}

/// Some of the last pairs of a range, in order; none if the range is empty.
fn last_pairs(db: &sled::Db, from: &[u8], to: &[u8]) -> sled::Result<Vec<(IVec, IVec)>> {
    // The last pair is in `low..high`; beyond that there is nothing.
    let (mut low, mut high) = (from.to_vec(), to.to_vec());
    let mut halvings = 0;
    loop {
        let pairs: Vec<_> =
            db.range(low.as_slice()..high.as_slice()).take(BACKWARD + 1).collect::<sled::Result<_>>()?;
        if pairs.is_empty() && low.as_slice() > from {
            // What was there a moment ago has been removed.
            high = std::mem::replace(&mut low, from.to_vec());
            continue;
        }
        if pairs.len() <= BACKWARD {
            return Ok(pairs);
        }
        loop {
            let middle = between(&low, &high);
            halvings += 1;
            if middle >= high || halvings > HALVINGS {
                // As where keys differ in nothing but zeros at their end.
                return db.range(low..high).collect();
            }
            match db.range(middle.as_slice()..high.as_slice()).next().transpose()? {
                Some((key, _)) => {
                    low = key.to_vec();
                    break;
                }
                None => high = middle,
            }
        }
    }
}

/// Half way between two keys, read as binary fractions.
fn between(low: &[u8], high: &[u8]) -> Vec<u8> {
    let digits = low.len().max(high.len()) + 1;
    let digit = |key: &[u8], at: usize| u16::from(key.get(at).copied().unwrap_or(0));
    let mut sum = Vec::with_capacity(digits);
    let mut carry = 0;
    for at in (0..digits).rev() {
        let digits = digit(low, at) + digit(high, at) + carry;
        sum.push(digits.to_le_bytes()[0]);
        carry = digits >> 8;
    }
    let mut half = Vec::with_capacity(digits);
    for digit in sum.into_iter().rev() {
        let whole = carry << 8 | u16::from(digit);
        half.push((whole >> 1).to_le_bytes()[0]);
        carry = whole & 1;
    }
    while half.len() > low.len() + 1 && half.last() == Some(&0) {
        half.pop();
    }
    half
}

impl Storage for Sled {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let value = self.read(|| self.db()?.get(key))?;
        value.map_or(Ok(None), |value| self.join(key, value))
    }

    fn scan(&self, from: Vec<u8>, to: Vec<u8>, reverse: bool) -> Box<dyn Iterator<Item = Result<Pair>> + '_> {
        let mut pairs: Box<dyn Iterator<Item = Result<(IVec, IVec)>> + '_> = match self.db.as_deref() {
            Some(db) if reverse => Box::new(self.backward(db, from, to)),
            Some(db) => {
                let mut pairs = db.range(from..to);
                Box::new(std::iter::from_fn(move || self.read(|| pairs.next().transpose()).transpose()))
            }
            None => Box::new(std::iter::empty()),
        };
        let mut broken = false;
        Box::new(std::iter::from_fn(move || {
            if broken {
                return None;
            }
            loop {
                let (key, value) = match pairs.next()? {
                    Ok(pair) => pair,
                    Err(error) => {
                        broken = true;
                        return Some(Err(error));
                    }
                };
                // Pieces come with the value that they are of.
                if key.first() == Some(&PIECES) {
                    continue;
                }
                match self.join(&key, value) {
                    Ok(Some(value)) => return Some(Ok((key.to_vec(), value))),
                    Ok(None) => {}
                    Err(error) => return Some(Err(error)),
                }
            }
        }))
    }

    fn commit(&self, batch: Batch) -> Result<()> {
        let mut writes = sled::Batch::default();
        for (key, value) in batch.0 {
            self.put(&mut writes, key, value)?;
        }
        self.write(|| self.db()?.apply_batch(writes))?;
        self.written.store(true, Ordering::Release);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let written = self.write(|| {
            self.flushes.fetch_add(1, Ordering::AcqRel);
            let flushed = self.db().and_then(|db| db.flush());
            self.flushes.fetch_add(1, Ordering::AcqRel);
            let written = flushed?;
            // After a failed fdatasync the kernel counts the pages as written, which they may not be: trying again
            // would succeed and mean nothing. Who opens the database next is told to write everything anew.
            self.sync_blobs().and_then(|()| self.file.sync_data()).map_err(|error| {
                let _ = File::create(self.folder.join(UNSYNCED));
                sled::Error::from(error)
            })?;
            Ok(written)
        })?;
        #[cfg(target_os = "linux")]
        if written > 0 && !barrier::CALLED.load(Ordering::Relaxed) {
            let message =
                "this build of the core is linked wrongly: nothing keeps sled from writing over old events";
            return Err(CoreError::new(Code::Internal, message));
        }
        let _ = written;
        Ok(())
    }

    fn fail(&self, why: &str) {
        let _ = self.failed.set(why.to_owned());
    }

    fn has_failed(&self) -> bool {
        // It may be a thread of sled's that failed, and a read that was told first.
        if self.failed.get().is_none()
            && let Err(error) = self.config.global_error()
        {
            let _ = self.write::<()>(|| Err(error));
        }
        self.failed.get().is_some()
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    use super::*;

    fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let any_key = prop::collection::vec(any::<u8>(), 0..6);
        let near = (0_u64..5000).prop_map(|number| [b"r".as_slice(), &number.to_be_bytes()].concat());
        let zeros = (0_usize..40).prop_map(|count| vec![0; count]);
        prop::collection::vec(prop_oneof![any_key, near, zeros], 0..300)
    }

    #[test]
    fn pages_that_nobody_uses_are_let_go() {
        // An owner whose tests take little beside this one.
        let _owner = crate::memory::scope(Owner::Sandbox);
        let used = || {
            reclaim();
            crate::memory::usage()
                .find_map(|(owner, bytes)| (owner == Owner::Sandbox).then_some(bytes))
                .unwrap()
        };
        let db = sled::Config::new().temporary(true).cache_capacity(1 << 20).open().unwrap();
        evict(&db).unwrap();
        let empty = used();
        for round in 0_u32..2 {
            for number in 0_u32..2048 {
                db.insert([round.to_be_bytes(), number.to_be_bytes()].concat(), vec![7; 3000]).unwrap();
            }
            let full = used();
            evict(&db).unwrap();
            let swept = used();
            assert!(full > empty + (4 << 20), "{empty} bytes of an empty store, and {full} of a full one");
            assert!(swept < empty + (2 << 20), "{empty} bytes of an empty store, and {swept} of a swept one");
        }
        assert_eq!(db.len(), 4096);
        assert!(db.iter().values().all(|value| value.unwrap() == vec![7; 3000]));
    }

    #[test]
    fn backward_is_forward_read_from_its_end() {
        let db = sled::Config::new().temporary(true).open().unwrap();
        let end = || prop::collection::vec(any::<u8>(), 0..4);
        let check = |(keys, from, to): (Vec<Vec<u8>>, Vec<u8>, Vec<u8>)| {
            db.clear().unwrap();
            let mut model = BTreeMap::new();
            for (value, key) in keys.into_iter().enumerate() {
                let value = value.to_be_bytes().to_vec();
                db.insert(&key, value.clone()).unwrap();
                model.insert(key, value);
            }
            for (from, to) in [(from, to), (Vec::new(), vec![0xFF; 8]), (b"r".to_vec(), b"s".to_vec())] {
                let mut found = Vec::new();
                let mut end = to.clone();
                loop {
                    let pairs = last_pairs(&db, &from, &end).unwrap();
                    let Some((first, _)) = pairs.first() else { break };
                    end = first.to_vec();
                    found.extend(pairs.into_iter().rev().map(|(key, value)| (key.to_vec(), value.to_vec())));
                }
                let expected: Vec<_> = if from < to {
                    model.range(from..to).rev().map(|(key, value)| (key.clone(), value.clone())).collect()
                } else {
                    Vec::new()
                };
                prop_assert_eq!(found, expected);
            }
            Ok(())
        };
        TestRunner::new(Config::with_cases(64)).run(&(keys(), end(), end()), check).unwrap();
    }
}
