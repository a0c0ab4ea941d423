//! The folder of a store: who may write it, what format it has, and which generation of the database is the current.
//!
//! | file | holds |
//! |---|---|
//! | `LOCK` | nothing; whoever holds the kernel's lock on it is the one writer |
//! | `holder.json` | who that is, for the message to others |
//! | `store.json` | the format's version and the replica's name |
//! | `CURRENT` | the name of the current generation |
//! | `gen-N/` | the database; compaction and repair write the next one. A copy of `store.json` in it says that it is whole |
//! | `head` | how far the writer had come: a witness outside of the database |
//! | `tails` | the same session by session, so that a lost end is noticed, and named |
//! | `damaged/` | generations that could not be read as a whole, kept as they were |

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{Code, CoreError, Result};

/// The version of the layout that this code writes. 1 was that of development, whose indexes were others. The index by
/// arrival of 2 held every event, as this one's may.
pub(super) const FORMAT: u32 = 3;

/// The right to write a store, until dropped.
pub(super) struct Lock {
    file: File,
    holder: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Holder {
    pid: u32,
    since_ms: u64,
    command: String,
}

impl Lock {
    /// Takes the lock, or fails at once and names who has it.
    pub(super) fn acquire(folder: &Path) -> Result<Self> {
        let path = folder.join("LOCK");
        let file = open_private(&path, OpenOptions::new().read(true).write(true).create(true))?;
        let holder = folder.join("holder.json");
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(locked(folder, &holder)),
            Err(TryLockError::Error(error)) => return Err(CoreError::io("lock", &path, error)),
        }
        let this = Holder {
            pid: std::process::id(),
            since_ms: now_ms(),
            command: std::env::args().take(2).collect::<Vec<_>>().join(" "),
        };
        write_whole(&holder, &serde_json::to_vec(&this).unwrap_or_default())?;
        Ok(Self { file, holder })
    }

    /// Whether no process writes; then none begins to until the result is dropped.
    pub(super) fn nobody(folder: &Path) -> Option<File> {
        let file = File::open(folder.join("LOCK")).ok()?;
        file.try_lock_shared().is_ok().then_some(file)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.holder);
        // A process that is just being started may still have a copy of the descriptor, and would keep the lock.
        let _ = self.file.unlock();
    }
}

fn locked(folder: &Path, holder: &Path) -> CoreError {
    let who = fs::read(holder).ok().and_then(|text| serde_json::from_slice::<Holder>(&text).ok());
    let who = who.map_or_else(
        || "another process".to_owned(),
        |Holder { pid, since_ms, command }| {
            let own = if pid == std::process::id() { "this process, " } else { "" };
            let since =
                humantime::format_rfc3339_seconds(UNIX_EPOCH + std::time::Duration::from_millis(since_ms));
            format!("{own}process {pid} (`{command}`, since {since})")
        },
    );
    let message = format!(
        "the event store {} is in use by {who}; a store has one writer: close it there, or open it with `readOnly`",
        folder.display()
    );
    CoreError::new(Code::StoreLocked, message).in_file(folder)
}

/// What a store says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Description {
    pub(super) format: u32,
    pub(super) replica: String,
    /// CRC-32 of the others, so that a changed name is no name. A person may leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sum: Option<u32>,
}

impl Description {
    pub(super) fn new(replica: &str) -> Self {
        Self { format: FORMAT, replica: replica.to_owned(), sum: Some(Self::sum(FORMAT, replica)) }
    }

    fn sum(format: u32, replica: &str) -> u32 {
        crc32fast::hash(format!("{format} {replica}").as_bytes())
    }

    /// Reads the description; none if the store is new. One that is lost or damaged is that of the generation.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>> {
        let found = Self::read_one(folder);
        if let Ok(Some(description)) = &found {
            return if description.format > FORMAT { Err(description.newer(folder)) } else { found };
        }
        let mut copies = generations(folder)?.into_iter().rev();
        let copy = copies.find_map(|number| Self::read_one(&generation(folder, number)).ok().flatten());
        match copy {
            Some(copy) if copy.format > FORMAT => Err(copy.newer(folder)),
            Some(copy) => Ok(Some(copy)),
            None => found,
        }
    }

    fn newer(&self, folder: &Path) -> CoreError {
        let message = format!(
            "the event store {} has format {}, written by a newer @openclaw/core; this one reads formats up to \
             {FORMAT}: update it",
            folder.display(),
            self.format
        );
        CoreError::new(Code::StoreCorrupt, message).in_file(folder.join("store.json"))
    }

    fn read_one(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join("store.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CoreError::io("read", &path, error)),
        };
        let damaged = |why: &dyn std::fmt::Display| {
            let message = format!(
                "{} is damaged ({why}); it must read {{\"format\":{FORMAT},\"replica\":\"<name>\"}} with the name \
                 this store has had",
                path.display()
            );
            CoreError::new(Code::StoreCorrupt, message).in_file(&path)
        };
        let description: Self = serde_json::from_slice(&text).map_err(|error| damaged(&error))?;
        let right = Self::sum(description.format, &description.replica);
        if description.sum.is_some_and(|sum| sum != right) {
            return Err(damaged(&"its checksum is wrong"));
        }
        Ok(Some(description))
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        write_whole(&folder.join("store.json"), &serde_json::to_vec(self).unwrap_or_default())
    }

    /// Writes the description where it is lost or damaged.
    pub(super) fn restore(&self, folder: &Path) -> Result<()> {
        if matches!(Self::read_one(folder), Ok(Some(there)) if there == *self) {
            Ok(())
        } else {
            self.write(folder)
        }
    }
}

/// The current generation's number; none if there is none yet.
pub(super) fn current(folder: &Path) -> Result<Option<u64>> {
    let path = folder.join("CURRENT");
    let named = match fs::read_to_string(&path) {
        Ok(name) => name.trim().strip_prefix("gen-").and_then(|number| number.parse().ok()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => None,
        Err(error) => return Err(CoreError::io("read", &path, error)),
    };
    let all = generations(folder)?;
    if let Some(number) = named.filter(|number| all.contains(number)) {
        return Ok(Some(number));
    }
    // It is damaged, or was never written. Generations that are whole hold everything, the latest what came last; one
    // that is not is the beginning of a copy, or of the store.
    let whole = all.iter().rev().find(|number| generation(folder, **number).join("store.json").exists());
    Ok(whole.or(all.first()).copied())
}

/// Whether `CURRENT` names this generation.
pub(super) fn is_current(folder: &Path, number: u64) -> bool {
    fs::read_to_string(folder.join("CURRENT")).is_ok_and(|name| name.trim() == format!("gen-{number}"))
}

/// Every generation in the folder.
pub(super) fn generations(folder: &Path) -> Result<Vec<u64>> {
    let entries = fs::read_dir(folder).map_err(|error| CoreError::io("list", folder, error))?;
    let mut numbers: Vec<u64> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("gen-")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

pub(super) fn generation(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("gen-{number}"))
}

/// Makes a generation, all of which is on the disk, the current one.
pub(super) fn switch(folder: &Path, number: u64) -> Result<()> {
    if let Some(description) = Description::read(folder)? {
        description.write(&generation(folder, number))?;
    }
    write_whole(&folder.join("CURRENT"), format!("gen-{number}\n").as_bytes())
}

/// Puts a generation aside as it is.
pub(super) fn quarantine(folder: &Path, number: u64) -> Result<PathBuf> {
    let shelf = folder.join("damaged");
    create_private(&shelf)?;
    let from = generation(folder, number);
    let to = shelf.join(format!("gen-{number}-{}", now_ms()));
    fs::rename(&from, &to).map_err(|error| CoreError::io("put aside", &from, error))?;
    sync_folder(&shelf)?;
    sync_folder(folder)?;
    Ok(to)
}

/// How far the writer had come, told beside the database: what is in here was on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Odd while the database is being written.
    pub(super) beat: u64,
    pub(super) arrivals: u64,
    pub(super) n: u64,
    /// The latest event.
    pub(super) session: String,
    pub(super) seq: u64,
    /// The store was closed.
    pub(super) closed: bool,
    /// The ends of the sessions, as [`Tails`] tells them.
    #[serde(skip)]
    pub(super) tails: BTreeMap<String, Tail>,
}

/// The end of a session: the greatest number given, and up to where everything was removed on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tail {
    pub(super) last_seq: u64,
    pub(super) floor: u64,
}

/// The file `tails`, to which the ends of sessions are appended when they have moved and are on the disk. Like `head`
/// it is not flushed.
pub(super) struct Tails {
    file: File,
    path: PathBuf,
    bytes: usize,
    /// At this length it is written anew.
    limit: usize,
}

/// Below this length, `tails` is not worth writing anew.
const TAILS_BYTES: usize = 1 << 20;

impl Tails {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("tails");
        let all = Self::read(folder);
        let written =
            all.iter().map(|(session, tail)| Self::entry(session, *tail)).collect::<Vec<_>>().concat();
        let mut bytes =
            fs::metadata(&path).map_or(0, |metadata| usize::try_from(metadata.len()).unwrap_or(usize::MAX));
        if bytes > TAILS_BYTES.max(2 * written.len()) {
            write_whole(&path, &written)?;
            bytes = written.len();
        }
        let file = open_private(&path, OpenOptions::new().append(true).create(true))?;
        Ok(Self { file, path, bytes, limit: TAILS_BYTES.max(4 * written.len()) })
    }

    /// What the file tells. Where it is damaged, the rest of it counts.
    pub(super) fn read(folder: &Path) -> BTreeMap<String, Tail> {
        let bytes = fs::read(folder.join("tails")).unwrap_or_default();
        let (mut all, mut rest) = (BTreeMap::<String, Tail>::new(), bytes.as_slice());
        while !rest.is_empty() {
            let entry = sealed(rest).and_then(|entry| Some((entry.len(), postcard::from_bytes(entry).ok()?)));
            let length = if let Some((length, (session, tail))) = entry {
                all.insert(session, tail);
                length + SEAL_BYTES
            } else {
                1
            };
            rest = rest.get(length..).unwrap_or_default();
        }
        all
    }

    fn entry(session: &str, tail: Tail) -> Vec<u8> {
        seal(&postcard::to_stdvec(&(session, tail)).unwrap_or_default())
    }

    pub(super) fn add(&mut self, tails: &BTreeMap<String, Tail>) -> Result<()> {
        let bytes =
            tails.iter().map(|(session, tail)| Self::entry(session, *tail)).collect::<Vec<_>>().concat();
        self.file.write_all(&bytes).map_err(|error| CoreError::io("write", &self.path, error))?;
        self.bytes += bytes.len();
        if self.bytes > self.limit
            && let Some(folder) = self.path.parent()
        {
            *self = Self::open(folder)?;
        }
        Ok(())
    }
}

/// Bytes that [`seal`] puts before others.
const SEAL_BYTES: usize = 6;

/// Puts checksum and length before some bytes.
fn seal(bytes: &[u8]) -> Vec<u8> {
    let mut sealed = crc32fast::hash(bytes).to_le_bytes().to_vec();
    sealed.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or_default().to_le_bytes());
    sealed.extend_from_slice(bytes);
    sealed
}

/// What [`seal`] was given, if it is what these bytes begin with.
fn sealed(bytes: &[u8]) -> Option<&[u8]> {
    let (sum, rest) = bytes.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let rest = rest.get(..usize::from(u16::from_le_bytes(*length)))?;
    (!rest.is_empty() && crc32fast::hash(rest).to_le_bytes() == *sum).then_some(rest)
}

/// The file `head`, overwritten in place. It is not flushed: after a power cut it may be behind, never ahead.
pub(super) struct Head {
    file: File,
    path: PathBuf,
    pub(super) progress: Progress,
}

impl Head {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("head");
        let progress = Self::read(folder);
        let file = open_private(&path, OpenOptions::new().read(true).write(true).create(true))?;
        Ok(Self { file, path, progress: progress.unwrap_or_default() })
    }

    /// What the file says; none if it cannot be read, as in the midst of a write.
    pub(super) fn read(folder: &Path) -> Option<Progress> {
        let mut bytes = Vec::new();
        File::open(folder.join("head")).ok()?.take(4096).read_to_end(&mut bytes).ok()?;
        let progress: Progress = postcard::from_bytes(sealed(&bytes)?).ok()?;
        Some(Progress { tails: Tails::read(folder), ..progress })
    }

    pub(super) fn write(&mut self) -> Result<()> {
        let bytes = seal(&postcard::to_stdvec(&self.progress).unwrap_or_default());
        self.file
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.file.write_all(&bytes))
            .map_err(|error| CoreError::io("write", &self.path, error))
    }
}

/// Copies a store that another process may be writing. The copy is that of a moment at which nothing was written.
pub(super) fn snapshot(folder: &Path, to: &Path) -> Result<()> {
    const ATTEMPTS: u32 = 40;
    let mut reason = "it was being written all the time";
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(std::time::Duration::from_millis(u64::from(attempt.min(20)) * 10));
        }
        // Where nobody writes, a beat that a killed writer has left does not matter.
        let nobody = Lock::nobody(folder);
        let before = Head::read(folder);
        if nobody.is_none() && before.as_ref().is_none_or(|progress| progress.beat % 2 == 1) {
            continue;
        }
        let _ = fs::remove_dir_all(to);
        let copied = copy_store(folder, to);
        if nobody.is_some() || Head::read(folder) == before {
            return copied;
        }
        reason = "it was written while it was copied";
    }
    let message = format!(
        "no consistent copy of the event store {} could be made in {ATTEMPTS} attempts: {reason}; read it through the \
         process that has it open, or try again when that is idle",
        folder.display()
    );
    Err(CoreError::new(Code::StoreLocked, message).in_file(folder))
}

fn copy_store(folder: &Path, to: &Path) -> Result<()> {
    create_private(to)?;
    for name in ["store.json", "head", "tails"] {
        let from = folder.join(name);
        if from.exists() {
            fs::copy(&from, to.join(name)).map_err(|error| CoreError::io("copy", &from, error))?;
        }
    }
    if let Some(number) = current(folder)? {
        copy_folder(&generation(folder, number), &generation(to, number))?;
        switch(to, number)?;
    }
    Ok(())
}

/// Copies a folder and what is in it.
pub(super) fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    create_private(to)?;
    for entry in fs::read_dir(from).map_err(|error| CoreError::io("list", from, error))? {
        let entry = entry.map_err(|error| CoreError::io("list", from, error))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_folder(&source, &target)?;
        } else if let Err(error) = fs::copy(&source, &target)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(CoreError::io("copy", &source, error));
        }
    }
    Ok(())
}

/// Whether so many bytes can be put on the disk: writes them, and removes them again.
pub(super) fn find_room(folder: &Path, bytes: usize) -> Result<()> {
    let path = folder.join("room");
    let written = open_private(&path, OpenOptions::new().write(true).create(true)).and_then(|mut file| {
        file.write_all(&vec![0xA5; bytes])
            .and_then(|()| file.sync_all())
            .map_err(|error| CoreError::io("write", &path, error))
    });
    let _ = fs::remove_file(&path);
    written
}

/// Creates a folder that only its owner can enter, and those above it, and puts their names on the disk.
pub(super) fn create_private(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above {
        create_private(above)?;
    }
    #[cfg_attr(not(unix), allow(unused_mut))]
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists || !folder.is_dir() => {
            Err(CoreError::io("create", folder, error))
        }
        _ => sync_folder(above.unwrap_or(Path::new("."))),
    }
}

fn open_private(path: &Path, options: &mut OpenOptions) -> Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options.truncate(false).open(path).map_err(|error| CoreError::io("open", path, error))
}

/// Writes a small file so that it is there as a whole or as it was.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let fresh = path.with_extension("new");
    let io = |error| CoreError::io("write", path, error);
    let mut file = open_private(&fresh, OpenOptions::new().write(true).create(true))?;
    file.set_len(0).and_then(|()| file.write_all(bytes)).and_then(|()| file.sync_all()).map_err(io)?;
    fs::rename(&fresh, path).map_err(io)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Puts a folder's entries on the disk.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(windows) {
        return Ok(());
    }
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| CoreError::io("sync", folder, error))
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
