//! One file replaced by its next content: all of it or nothing, and never absent in between.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::lock::{companion, create_private, with_suffix};
use crate::{CoreError, Result};

/// How many backups stock keeps: `.bak`, `.bak.1` … `.bak.4`.
const BACKUPS: usize = 5;

/// Replaces the content of `target`, which is no symlink, by `next`, keeping `previous` as the newest backup.
///
/// Both are on disk in full before the first name changes. When this fails, `target` holds what it held, and no
/// file of the attempt is left. The caller holds the [`WriteLock`](super::lock::WriteLock) of the file.
pub(super) fn replace(target: &Path, previous: &[u8], next: &[u8]) -> Result<()> {
    let next = Draft::write(target, "next", next)?;
    let backup = Draft::write(target, "bak", previous)?;
    let newest = backup_path(target, 0);
    for slot in (0..BACKUPS - 1).rev() {
        let (from, to) = (backup_path(target, slot), backup_path(target, slot + 1));
        match rename(&from, &to) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(CoreError::io("keep the backup", &from, error));
            }
            _ => {}
        }
    }
    backup.publish(&newest).map_err(|error| CoreError::io("write the backup", &newest, error))?;
    next.publish(target).map_err(|error| CoreError::io("replace", target, error))?;
    sync_folder(target).map_err(|error| {
        // The new name may not survive a power cut, and the caller is told that nothing was written: make that so.
        let _ = rename(&newest, target);
        CoreError::io("make durable the change to", target, error)
    })
}

/// Replaces `target` by a file that only its owner can read, with all of `content`, or fails and changes nothing. `draft`,
/// beside it, belongs to the caller alone; what a killed caller left there is overwritten.
///
/// The content is on disk before the name changes. If then the folder cannot be synced, the change is in force but may
/// not survive a power cut: that is no failure, and the error is what is given.
pub(crate) fn replace_private(target: &Path, draft: &Path, content: &[u8]) -> Result<Option<CoreError>> {
    // Opened now: a process that is out of descriptors changes nothing.
    let folder = Folder::of(target).map_err(|error| CoreError::io("open the folder of", target, error))?;
    let written = create_private(draft)
        .and_then(|file| fill(file, content))
        .map_err(|error| CoreError::io("write", draft, error))
        .and_then(|()| rename(draft, target).map_err(|error| CoreError::io("replace", target, error)));
    if written.is_err() {
        let _ = fs::remove_file(draft);
    }
    written?;
    Ok(folder.sync().err().map(|error| CoreError::io("make durable the change to", target, error)))
}

fn backup_path(target: &Path, slot: usize) -> PathBuf {
    with_suffix(target, &if slot == 0 { ".bak".into() } else { format!(".bak.{slot}") })
}

/// A private file beside its destination, whole and on disk; gone when dropped.
struct Draft {
    path: PathBuf,
}

impl Draft {
    fn write(target: &Path, what: &str, content: &[u8]) -> Result<Self> {
        let path = companion(target, what);
        let file = create_private(&path).map_err(|error| CoreError::io("create", &path, error))?;
        let draft = Self { path };
        keep_owner(target, &file);
        fill(file, content).map_err(|error| CoreError::io("write", &draft.path, error))?;
        Ok(draft)
    }

    fn publish(self, destination: &Path) -> io::Result<()> {
        rename(&self.path, destination)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a publication there is nothing to remove.
        let _ = fs::remove_file(&self.path);
    }
}

/// Root edits a user's config as that user's: the gateway must still be able to read it. Others cannot give files away.
#[cfg(unix)]
fn keep_owner(target: &Path, file: &File) {
    use std::os::unix::fs::{MetadataExt, fchown};
    let (Ok(before), Ok(now)) = (fs::metadata(target), file.metadata()) else { return };
    if (before.uid(), before.gid()) != (now.uid(), now.gid()) {
        let _ = fchown(file, Some(before.uid()), Some(before.gid()));
    }
}

#[cfg(not(unix))]
const fn keep_owner(_target: &Path, _file: &File) {}

fn fill(mut file: File, content: &[u8]) -> io::Result<()> {
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(not(windows))]
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

/// Scanners and indexers hold files open for moments, and Windows then refuses to replace them.
#[cfg(windows)]
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let mut pause = std::time::Duration::from_millis(10);
    loop {
        match fs::rename(from, to) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied && pause.as_millis() < 400 => {
                std::thread::sleep(pause);
                pause *= 2;
            }
            other => return other,
        }
    }
}

fn sync_folder(of: &Path) -> io::Result<()> {
    Folder::of(of)?.sync()
}

/// Where names change.
struct Folder(#[cfg(unix)] File);

#[cfg(unix)]
impl Folder {
    fn of(path: &Path) -> io::Result<Self> {
        // A bare name has a parent, the empty path.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new("."))).map(Self)
    }

    /// Its names are on disk.
    fn sync(&self) -> io::Result<()> {
        match self.0.sync_all() {
            // Some file systems know no such thing.
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
            other => other,
        }
    }
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "the same signatures on all platforms")]
impl Folder {
    const fn of(_path: &Path) -> io::Result<Self> {
        Ok(Self())
    }

    const fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
