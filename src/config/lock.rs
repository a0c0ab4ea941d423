//! Who may write a config: OpenClaw's lock file, and a kernel lock that tells the truth about it.
//!
//! # Design
//! Stock OpenClaw creates `<config>.lock` exclusively, holding its process id and start time as JSON, waits while
//! another process has it, and takes over from an owner that is dead. A writer here does the same, so that the two
//! never write at once.
//!
//! Process ids lie: they are used again, they mean something else in the next container, and process 1 keeps its
//! id and start time when it executes itself anew. Between writers of this crate a kernel lock decides, which dies
//! with its holder. It is taken *around* the lock file, not inside it: whoever holds it knows that a lock file
//! written by this crate belongs to nobody, without asking who lives. Stock knows nothing of the kernel lock, so
//! the order cannot make a deadlock.
//!
//! The lock file comes into being by a hard link to a finished file: stock would wait forever for the owner of an
//! empty one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::process;
use crate::{Code, CoreError, Result};

/// How long a writer waits for the others: longer than stock's 80 attempts take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// After this time, a lock file without a process id, or a sign of a takeover, belongs to nobody. Stock's own term.
const STALE: Duration = Duration::from_secs(30);

/// Marks lock files of this crate.
const HOLDER: &str = "@openclaw/core";

/// The right to write one config file, until dropped.
#[derive(Debug)]
pub struct WriteLock {
    // Dropped in this order: the lock file goes while the kernel lock is still held.
    _sidecar: Sidecar,
    _kernel: Option<KernelLock>,
}

impl WriteLock {
    /// Waits for the right to write the file that `config` names, which need not exist, but its folder must.
    pub fn acquire(config: &Path, cancel: &CancellationToken) -> Result<Self> {
        let named = in_real_folder(config)?;
        let mut wait = Wait { path: &named, cancel, deadline: Instant::now() + PATIENCE, pause: FIRST_PAUSE };
        // Two names of one file must meet in one kernel lock.
        let target = fs::canonicalize(&named).unwrap_or_else(|_| named.clone());
        let kernel = KernelLock::acquire(&target, &mut wait)?;
        wait.pause = FIRST_PAUSE;
        let sidecar = Sidecar::acquire(&named, kernel.is_some(), &mut wait)?;
        Ok(Self { _sidecar: sidecar, _kernel: kernel })
    }
}

/// The path with its folder's links followed, as stock names the lock file; the file itself may be a link.
fn in_real_folder(path: &Path) -> Result<PathBuf> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(
            CoreError::new(Code::Io, format!("{} does not name a file", path.display())).in_file(path)
        );
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let real = fs::canonicalize(folder).map_err(|error| CoreError::io("find the folder", folder, error))?;
    Ok(real.join(name))
}

/// A file beside `path`: `.openclaw.json.core-<what>`. Only the holder of the kernel lock touches it, so its name
/// needs no random part, and what a killed writer left is overwritten by the next.
pub(super) fn companion(path: &Path, what: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".core-");
    name.push(what);
    path.with_file_name(name)
}

/// `path` with `suffix` behind its name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A new private file; what stood there is removed first.
pub(super) fn create_private(path: &Path) -> std::io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(25);

struct Wait<'a> {
    path: &'a Path,
    cancel: &'a CancellationToken,
    deadline: Instant,
    pause: Duration,
}

impl Wait<'_> {
    /// Sleeps a little longer each time, by a random measure, so that waiting processes do not march in step.
    fn pause(&mut self, holder: impl FnOnce() -> String) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(CoreError::new(Code::Timeout, "gave up waiting for the config lock: cancelled")
                .in_file(self.path));
        }
        if Instant::now() >= self.deadline {
            let message =
                format!("{} is locked by {}; try again when it is done", self.path.display(), holder());
            return Err(CoreError::new(Code::Timeout, message).in_file(self.path));
        }
        let thousandths = (random() % 1000) as u32;
        std::thread::sleep(self.pause / 2 + self.pause * thousandths / 1000);
        self.pause = (self.pause * 3 / 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// Unpredictable enough to differ between processes and calls; not a secret.
fn random() -> u64 {
    RandomState::new().hash_one(Instant::now())
}

/// A lock on a file of its own, beside the config.
#[derive(Debug)]
struct KernelLock {
    path: PathBuf,
    file: File,
}

impl KernelLock {
    /// `None` where the file system has no locks; OpenClaw's lock file then stands alone, as it does for stock.
    fn acquire(target: &Path, wait: &mut Wait<'_>) -> Result<Option<Self>> {
        let path = companion(target, "flock");
        loop {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let file = options.open(&path).map_err(|error| CoreError::io("create", &path, error))?;
            match file.try_lock() {
                Ok(()) if is_at(&file, &path) => return Ok(Some(Self { path, file })),
                // The holder before removed it; by now another may have made it anew.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => wait.pause(|| "another writer of this core".into())?,
                Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(CoreError::io("lock", &path, error)),
            }
        }
    }
}

impl Drop for KernelLock {
    fn drop(&mut self) {
        // Only the holder may remove it, and `acquire` notices. Elsewhere it stays, which does no harm.
        if cfg!(unix) {
            let _ = fs::remove_file(&self.path);
        }
        let _ = self.file.unlock();
    }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
const fn is_at(_: &File, _: &Path) -> bool {
    true
}

/// OpenClaw's own lock file, held.
#[derive(Debug)]
struct Sidecar {
    path: PathBuf,
    content: Vec<u8>,
}

impl Sidecar {
    fn acquire(config: &Path, alone: bool, wait: &mut Wait<'_>) -> Result<Self> {
        let path = with_suffix(config, ".lock");
        let mut takeover: Option<Takeover> = None;
        loop {
            if takeover.is_none() && Takeover::by_another(&path, alone)? {
                wait.pause(|| "a process that is taking over its lock file".into())?;
                continue;
            }
            if let Some(content) = publish(config, &path, alone)? {
                return Ok(Self { path, content });
            }
            takeover = None;
            let Some(found) = read_regular(&path)? else { continue };
            if !is_abandoned(&found, alone) {
                wait.pause(|| describe(&found, &path))?;
                continue;
            }
            takeover = Takeover::begin(&path)?;
            // Stock may have been here in the meantime; from now on it waits.
            if takeover.is_some() && read_regular(&path)?.is_some_and(|now| now.content == found.content) {
                remove_if_there(&path)?;
            }
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if matches!(read_regular(&self.path), Ok(Some(found)) if found.content == self.content) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Puts a finished lock file in its place, unless one is there.
fn publish(config: &Path, path: &Path, alone: bool) -> Result<Option<Vec<u8>>> {
    if fs::symlink_metadata(path).is_ok() {
        return Ok(None);
    }
    let content = payload();
    let linked =
        if alone { link_finished(config, path, &content) } else { Err(ErrorKind::Unsupported.into()) };
    let published = match linked {
        // Without hard links, as stock does it, and with stock's gap between creating and filling.
        Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) => {
            create_and_fill(path, &content)
        }
        other => other,
    };
    match published {
        Ok(()) => Ok(Some(content)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(CoreError::io("create", path, error)),
    }
}

fn link_finished(config: &Path, path: &Path, content: &[u8]) -> std::io::Result<()> {
    let temp = companion(config, "lock");
    let written = create_private(&temp).and_then(|mut file| file.write_all(content));
    let linked = written.and_then(|()| fs::hard_link(&temp, path));
    let _ = fs::remove_file(&temp);
    linked
}

fn create_and_fill(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(content).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

/// Stock's format: JSON, and below it a token of white space that makes every lock file unlike all others.
fn payload() -> Vec<u8> {
    let pid = std::process::id();
    let mut owner = Map::from_iter([
        ("pid".to_owned(), Value::from(pid)),
        ("createdAt".to_owned(), humantime::format_rfc3339_millis(SystemTime::now()).to_string().into()),
        ("holder".to_owned(), HOLDER.into()),
        ("kernel".to_owned(), process::kernel().into()),
    ]);
    if let Some(start) = process::start_time(pid) {
        owner.insert("starttime".into(), start.into());
    }
    let mut text = format!("{:#}\n{}", Value::from(owner), "\t".repeat(8));
    for half in [random(), random()] {
        text.extend((0..64).map(|bit| if half >> bit & 1 == 1 { '\t' } else { ' ' }));
    }
    text.push('\n');
    text.into_bytes()
}

struct Found {
    content: Vec<u8>,
    age: Duration,
}

/// `None` if nothing is there. What is not a plain file is not a lock, and nothing here may remove it.
fn read_regular(path: &Path) -> Result<Option<Found>> {
    let read = || -> std::io::Result<Option<Found>> {
        let metadata = fs::symlink_metadata(path)?;
        if !metadata.is_file() {
            return Ok(None);
        }
        let age = metadata.modified()?.elapsed().unwrap_or_default();
        Ok(Some(Found { content: fs::read(path)?, age }))
    };
    match read() {
        Ok(Some(found)) => Ok(Some(found)),
        Ok(None) => {
            let message = format!("{} is not a regular file; remove it to edit the config", path.display());
            Err(CoreError::new(Code::Io, message).in_file(path))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CoreError::io("read", path, error)),
    }
}

/// Whether the owner is gone. `alone` says that no other writer of this crate on this
/// kernel can hold a lock file now.
fn is_abandoned(found: &Found, alone: bool) -> bool {
    let owner: Value = serde_json::from_slice(&found.content).unwrap_or_default();
    let ours = owner.get("holder").is_some_and(|holder| holder == HOLDER)
        && owner.get("kernel").is_none_or(|kernel| *kernel == process::kernel());
    if alone && ours {
        return true;
    }
    match number(&owner, "pid").filter(|&pid| pid > 0) {
        Some(pid) => {
            let other = number(&owner, "starttime")
                .zip(u32::try_from(pid).ok().and_then(process::start_time))
                .is_some_and(|(recorded, seen)| recorded != seen);
            other || !u32::try_from(pid).is_ok_and(process::may_be_alive)
        }
        // Stock fills its lock file at once: an old one without an owner was left by a death in between.
        None => found.age > STALE,
    }
}

fn number(owner: &Value, field: &str) -> Option<u64> {
    owner.get(field).and_then(Value::as_u64)
}

fn describe(found: &Found, path: &Path) -> String {
    let owner: Value = serde_json::from_slice(&found.content).unwrap_or_default();
    let who =
        number(&owner, "pid").map_or_else(|| "an unknown process".into(), |pid| format!("process {pid}"));
    format!("{who} ({})", path.display())
}

/// The sign that a stale lock file is being removed: while it stands, stock neither creates nor removes one.
struct Takeover(PathBuf);

impl Takeover {
    fn sign(lock: &Path) -> PathBuf {
        with_suffix(lock, ".reclaim")
    }

    /// Stock's sign is a folder, the one of this crate a file, which without a living owner is simply removed.
    fn by_another(lock: &Path, alone: bool) -> Result<bool> {
        let sign = Self::sign(lock);
        let Ok(metadata) = fs::symlink_metadata(&sign) else { return Ok(false) };
        let old = metadata.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age > STALE));
        if metadata.is_dir() && old {
            let _ = fs::remove_dir(&sign);
        } else if metadata.is_file() && (alone || old) {
            remove_if_there(&sign)?;
        }
        Ok(fs::symlink_metadata(&sign).is_ok())
    }

    fn begin(lock: &Path) -> Result<Option<Self>> {
        let sign = Self::sign(lock);
        match OpenOptions::new().write(true).create_new(true).open(&sign) {
            Ok(_) => Ok(Some(Self(sign))),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(CoreError::io("create", &sign, error)),
        }
    }
}

impl Drop for Takeover {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(CoreError::io("remove", path, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_of_another_kernel_is_not_taken_for_one_of_the_dead() {
        let found = |content: Vec<u8>| Found { content, age: Duration::ZERO };
        assert!(is_abandoned(&found(payload()), true), "nobody of this crate holds it");
        let text = String::from_utf8(payload()).unwrap();
        let elsewhere = text.replace(&process::kernel(), "another");
        assert_ne!(text, elsewhere);
        assert!(
            !is_abandoned(&found(elsewhere.into_bytes()), true),
            "its process id lives, for all that is known"
        );
    }
}
