//! A sandbox's files, read and written in this process.
//!
//! No command is run for it: a [`SandboxFs`] holds the sandbox's mounts open and walks beneath them, one name at a time,
//! as the kernel would inside (see `view`). So it sees what the sandbox sees: what is not mounted is not there, a read-only
//! mount refuses to be written, and whoever moves or swaps things meanwhile leads nobody out.
//!
//! Only regular files are read and written, and of those only such as have one name: another name of the same file may
//! lie outside. A file is written beside its place, synced, and renamed, so that a reader finds the old one or the new
//! one, whole.
//!
//! | error | when |
//! |---|---|
//! | `PATH_ESCAPE` | nothing is mounted there; a link where none may be; a file with a second name |
//! | `LIMIT` | a file is larger than the caller takes; a directory holds more names than are listed |
//! | `IO` | what the system says: no such file, read-only, no directory |

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use self::view::{End, Failure, Links, View, Walk, open_regular};
use super::policy::Mount;
use crate::beneath::component;
use crate::{Code, CoreError, Result};

mod view;

#[cfg(test)]
mod tests;

/// What is read of a file unless the caller says otherwise.
pub const DEFAULT_MAX_BYTES: u64 = 256 << 20;
/// What is read or copied between two looks at whether the caller still waits.
const CHUNK: usize = 1 << 20;
/// Names of a directory that are listed. Whoever may write in the sandbox can make as many as the disk holds.
const MAX_ENTRIES: usize = 200_000;
/// Directories within each other that are removed; each takes a descriptor.
const MAX_DEPTH: usize = 256;

/// The files of a sandbox.
#[derive(Debug)]
pub struct SandboxFs {
    view: View,
    /// Where relative paths begin.
    base: String,
    /// Held by whoever reads a file, changes it and writes it.
    changes: Arc<Mutex<()>>,
}

/// How to write a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteOptions {
    /// Whether directories on the way that are missing are made.
    pub mkdir: bool,
    /// Whether the file must not exist, not even as a symbolic link.
    pub exclusive: bool,
    /// Whether the path was resolved before, so that a symbolic link in it is refused.
    pub pinned: bool,
}

/// How to remove something.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveOptions {
    /// Whether a directory is removed with what is in it.
    pub recursive: bool,
    /// Whether what does not exist is removed already.
    pub force: bool,
    /// As in [`WriteOptions`].
    pub pinned: bool,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The file is there, and new.
    Created,
    /// The file is there, in the place of an earlier one.
    Replaced,
    /// With `exclusive`: it existed, and is what it was.
    Exists,
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else: a pipe, a socket, a device.
    Other,
}

impl Kind {
    fn of(stat: &Stat) -> Self {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            _ => Self::Other,
        }
    }
}

/// What is known of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metadata {
    /// What it is.
    pub kind: Kind,
    /// Its bytes.
    pub size: u64,
    /// When it was last written, in milliseconds since 1970.
    pub modified_ms: f64,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name; what is no UTF-8 in it is shown as U+FFFD.
    pub name: String,
    /// Whether it is a directory. A symbolic link is none.
    pub is_directory: bool,
}

/// What is put into a file.
enum Content<'a> {
    Bytes(&'a [u8]),
    Of(&'a mut File),
}

impl SandboxFs {
    /// The files beneath `mounts`, which are held open from now on. `base`, absolute in the sandbox, is where relative paths
    /// begin. Hosts are real paths, as those of a checked policy are: a symbolic link in one is an error.
    pub fn open(mounts: &[Mount], base: impl Into<String>) -> Result<Self> {
        Ok(Self { view: View::open(mounts)?, base: base.into(), changes: Arc::default() })
    }

    /// For whoever reads a file, changes it and writes it: two at once would lose one's change.
    pub(crate) fn changes(&self) -> Arc<Mutex<()>> {
        Arc::clone(&self.changes)
    }

    /// What is in a file, and where it is without links. `LIMIT` if it has more than `max_bytes`, also if it grows
    /// meanwhile.
    pub fn read(&self, path: &str, max_bytes: u64, cancel: &CancellationToken) -> Result<(Vec<u8>, String)> {
        let failed = |failure| self.failed("read", path, failure);
        let (file, stat, place) = self.open_to_read(path).map_err(failed)?;
        check_names(path, &stat)?;
        let size = size_of(&stat);
        let too_large = |size: u64| {
            let message = format!("{path} has {size} bytes or more, and {max_bytes} are the limit");
            CoreError::new(Code::Limit, message).in_file(path)
        };
        if size > max_bytes {
            return Err(too_large(size));
        }
        let mut data = Vec::new();
        // The size is what the file says, and the limit what the caller says: neither must end the process.
        data.try_reserve_exact(usize::try_from(size).unwrap_or(usize::MAX).saturating_add(1)).map_err(
            |_| {
                CoreError::new(Code::Limit, format!("{path} has {size} bytes, for which there is no memory"))
                    .in_file(path)
            },
        )?;
        let mut source = file.take(max_bytes.saturating_add(1));
        loop {
            let read =
                still_wanted(cancel).and_then(|()| source.by_ref().take(CHUNK as u64).read_to_end(&mut data));
            if read.map_err(|error| CoreError::io("read", Path::new(path), error))? == 0 {
                break;
            }
        }
        let read = data.len() as u64;
        if read > max_bytes { Err(too_large(read)) } else { Ok((data, place)) }
    }

    /// Writes a file: beside its place, synced, then renamed. A symbolic link is followed, and its target written.
    pub fn write(
        &self,
        path: &str,
        data: &[u8],
        options: WriteOptions,
        cancel: &CancellationToken,
    ) -> Result<Written> {
        self.put(path, &mut Content::Bytes(data), None, options, cancel)
    }

    /// Copies a file, with its permission to be run.
    pub fn copy(
        &self,
        from: &str,
        to: &str,
        options: WriteOptions,
        cancel: &CancellationToken,
    ) -> Result<Written> {
        let (mut file, stat, _) =
            self.open_to_read(from).map_err(|failure| self.failed("copy", from, failure))?;
        check_names(from, &stat)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
        self.put(to, &mut Content::Of(&mut file), Some(mode), options, cancel)
    }

    /// The names in a directory, sorted.
    pub fn read_directory(&self, path: &str) -> Result<Vec<Entry>> {
        self.list(path).map_err(|failure| self.failed("list", path, failure))
    }

    /// What a path leads to; none if nothing is there, or nothing is mounted there.
    pub fn stat(&self, path: &str) -> Result<Option<Metadata>> {
        let look = || -> Result<Option<Metadata>, Failure> {
            let mut walk = self.walk(path, Links::Follow, false)?;
            let stat = match walk.last()? {
                End::Name { found: Some(stat), .. } => stat,
                End::Name { found: None, .. } => return Ok(None),
                End::File(mount) => self.view.stat_file(mount)?,
                End::Here => match walk.dir() {
                    Ok(dir) => rustix::fs::fstat(dir)?,
                    Err(_) => return Ok(Some(Metadata { kind: Kind::Directory, size: 0, modified_ms: 0.0 })),
                },
            };
            Ok(Some(Metadata {
                kind: Kind::of(&stat),
                size: size_of(&stat),
                modified_ms: modified_ms(&stat),
            }))
        };
        match look() {
            Err(Failure::NotMounted | Failure::System(Errno::NOENT | Errno::NOTDIR)) => Ok(None),
            outcome => outcome.map_err(|failure| self.failed("look at", path, failure)),
        }
    }

    /// Makes a directory, and those on the way to it that are missing.
    pub fn mkdirp(&self, path: &str, pinned: bool) -> Result<()> {
        let make = || self.walk(path, links(pinned, Links::Follow), true)?.end_in_dir();
        make().map_err(|failure| self.failed("make", path, failure))
    }

    /// Removes a file, a symbolic link (not what it leads to), or a directory. A mount stays.
    pub fn remove(&self, path: &str, options: RemoveOptions, cancel: &CancellationToken) -> Result<()> {
        let remove = || -> Result<(), Failure> {
            let mut walk = self.walk(path, links(options.pinned, Links::KeepLast), false)?;
            let End::Name { name, found } = walk.last()? else { return Err(Errno::BUSY.into()) };
            let Some(stat) = found else { return Err(Errno::NOENT.into()) };
            let dir = walk.writable_dir()?;
            if Kind::of(&stat) != Kind::Directory {
                return Ok(rustix::fs::unlinkat(dir, &name, AtFlags::empty())?);
            }
            if options.recursive {
                empty(&walk, dir, &name, MAX_DEPTH, cancel)?;
            }
            Ok(rustix::fs::unlinkat(dir, &name, AtFlags::REMOVEDIR)?)
        };
        match remove() {
            Err(Failure::System(Errno::NOENT)) if options.force => Ok(()),
            outcome => outcome.map_err(|failure| self.failed("remove", path, failure)),
        }
    }

    /// Renames a file, a symbolic link or a directory. What is at `to` is replaced if the system would.
    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        let failed = |path: &str, failure| self.failed("rename", path, failure);
        let find = |path: &str| -> Result<(Walk<'_>, OsString, Option<Stat>), Failure> {
            let mut walk = self.walk(path, Links::KeepLast, false)?;
            let End::Name { name, found } = walk.last()? else { return Err(Errno::BUSY.into()) };
            walk.writable_dir()?;
            Ok((walk, name, found))
        };
        let (source, name, found) = find(from).map_err(|failure| failed(from, failure))?;
        let (target, new, _) = find(to).map_err(|failure| failed(to, failure))?;
        let rename = || -> Result<(), Failure> {
            let stat = found.ok_or(Errno::NOENT)?;
            if Kind::of(&stat) == Kind::Directory {
                let moved = component::open(source.dir()?, &name, component::STEP, Mode::empty())?;
                if source.is_guarded(moved.as_fd())? {
                    return Err(Errno::ROFS.into());
                }
            }
            Ok(rustix::fs::renameat(source.dir()?, &name, target.dir()?, &new)?)
        };
        rename().map_err(|failure| failed(from, failure))
    }

    /// Where a path leads, without links. The end of it need not exist. With `keep_last`, the last component is not followed.
    ///
    /// It holds for as long as nobody moves anything: a call that is given it then says `pinned`.
    pub fn resolve(&self, path: &str, keep_last: bool) -> Result<String> {
        let links = if keep_last { Links::KeepLast } else { Links::Follow };
        let resolve = || self.walk(path, links, false)?.resolve();
        resolve().map_err(|failure| self.failed("follow", path, failure))
    }

    fn walk(&self, path: &str, links: Links, create: bool) -> Result<Walk<'_>, Failure> {
        self.view.walk(&self.base, path, links, create)
    }

    fn open_to_read(&self, path: &str) -> Result<(File, Stat, String), Failure> {
        let mut tries = 0;
        loop {
            let mut walk = self.walk(path, Links::Follow, false)?;
            let opened = match walk.last()? {
                End::Here => return Err(Errno::ISDIR.into()),
                End::File(mount) => {
                    let (file, stat) = self.view.open_file(mount)?;
                    return Ok((file.into(), stat, self.view.place(mount)));
                }
                End::Name { name, .. } => open_regular(walk.dir()?, &name).map(|(file, stat)| {
                    let parent = walk.path();
                    let slash = if parent == "/" { "" } else { "/" };
                    (file.into(), stat, format!("{parent}{slash}{}", name.to_string_lossy()))
                }),
            };
            match opened {
                // No link when it was looked at, and one when it was opened.
                Err(Failure::Link) if tries < 8 => tries += 1,
                outcome => return outcome,
            }
        }
    }

    fn put(
        &self,
        path: &str,
        content: &mut Content<'_>,
        mode: Option<Mode>,
        options: WriteOptions,
        cancel: &CancellationToken,
    ) -> Result<Written> {
        let failed = |failure| self.failed("write", path, failure);
        let links = links(options.pinned, if options.exclusive { Links::KeepLast } else { Links::Follow });
        let mut walk = self.walk(path, links, options.mkdir).map_err(failed)?;
        let (name, found) = match walk.last().map_err(failed)? {
            End::Name { name, found } => (name, found),
            End::Here | End::File(_) if options.exclusive => return Ok(Written::Exists),
            End::Here => return Err(failed(Errno::ISDIR.into())),
            End::File(_) => return Err(failed(Errno::BUSY.into())),
        };
        let dir = walk.writable_dir().map_err(failed)?;
        if let Some(stat) = &found {
            if options.exclusive {
                return Ok(Written::Exists);
            }
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => check_names(path, stat)?,
                FileType::Symlink => return Err(failed(Failure::Link)),
                FileType::Directory => return Err(failed(Errno::ISDIR.into())),
                _ => return Err(failed(Errno::NXIO.into())),
            }
        }
        let failed_io = |error| CoreError::io("write", Path::new(path), error);
        let mut draft = Draft::new(dir).map_err(failed_io)?;
        fill(&mut draft.file, content, cancel).map_err(failed_io)?;
        let keep = || -> Result<(), Errno> {
            if let Some(stat) = &found {
                // Who may read it, and whose it is, stays as it was, as far as this process may see to that.
                rustix::fs::fchmod(&draft.file, Mode::from_raw_mode(stat.st_mode & 0o777))?;
                let own = rustix::fs::fstat(&draft.file)?;
                if (own.st_uid, own.st_gid) != (stat.st_uid, stat.st_gid) {
                    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
                    _ = rustix::fs::fchown(&draft.file, Some(uid), Some(gid));
                }
            } else if let Some(mode) = mode {
                rustix::fs::fchmod(&draft.file, mode)?;
            }
            rustix::fs::fsync(&draft.file)
        };
        keep().map_err(|error| failed_io(error.into()))?;
        match draft.publish(&name, options.exclusive) {
            Ok(()) if found.is_some() => Ok(Written::Replaced),
            Ok(()) => Ok(Written::Created),
            Err(Errno::EXIST) if options.exclusive => Ok(Written::Exists),
            Err(error) => Err(failed(error.into())),
        }
    }

    fn list(&self, path: &str) -> Result<Vec<Entry>, Failure> {
        let mut walk = self.walk(path, Links::Follow, false)?;
        walk.end_in_dir()?;
        let mut entries = Vec::new();
        if let Ok(dir) = walk.dir() {
            let dir =
                component::open(dir, OsStr::new("."), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
            for entry in Dir::read_from(&dir)? {
                let entry = entry?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name == "." || name == ".." {
                    continue;
                }
                let is_directory = match entry.file_type() {
                    FileType::Directory => true,
                    FileType::Unknown => rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)
                        .is_ok_and(|stat| Kind::of(&stat) == Kind::Directory),
                    _ => false,
                };
                if entries.len() == MAX_ENTRIES {
                    return Err(Failure::TooMany);
                }
                entries.push(Entry { name: name.to_string_lossy().into_owned(), is_directory });
            }
        }
        for (name, is_directory) in walk.mounted_names() {
            let name = name.to_string_lossy();
            match entries.iter_mut().find(|entry| entry.name == name) {
                Some(entry) => entry.is_directory = is_directory,
                None => entries.push(Entry { name: name.into_owned(), is_directory }),
            }
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn failed(&self, action: &str, path: &str, failure: Failure) -> CoreError {
        let escape = |what: String| CoreError::new(Code::PathEscape, what).in_file(path);
        match failure {
            Failure::NotMounted => escape(format!(
                "{path} is not in the sandbox, which sees of the host's files only what is beneath {}",
                self.view.places()
            )),
            Failure::Endless => escape(format!("{path} runs in circles of symbolic links")),
            Failure::Link => escape(format!(
                "{path} goes through a symbolic link that was not there before, or that must not be followed"
            )),
            Failure::TooMany => {
                let message = format!("{path} holds more than {MAX_ENTRIES} names, and no more are listed");
                CoreError::new(Code::Limit, message).in_file(path)
            }
            Failure::System(Errno::ROFS) => {
                CoreError::new(Code::Io, format!("cannot {action} {path}: the sandbox has it read-only"))
                    .in_file(path)
            }
            Failure::System(Errno::NXIO) => CoreError::new(
                Code::Io,
                format!("cannot {action} {path}: it is no regular file, but a pipe, a socket or a device"),
            )
            .in_file(path),
            Failure::System(Errno::BUSY) => {
                CoreError::new(Code::Io, format!("cannot {action} {path}: something is mounted there"))
                    .in_file(path)
            }
            Failure::System(error) => CoreError::io(action, Path::new(path), error.into()),
        }
    }
}

/// A file that is being written, beside its place; removed unless it gets there.
struct Draft<'d> {
    dir: BorrowedFd<'d>,
    name: OsString,
    file: File,
    published: bool,
}

impl<'d> Draft<'d> {
    fn new(dir: BorrowedFd<'d>) -> std::io::Result<Self> {
        loop {
            let random = getrandom::u64().map_err(|_| std::io::Error::other("there is no random source"))?;
            let name = OsString::from(format!(".openclaw-{random:016x}.tmp"));
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOCTTY;
            match component::open(dir, &name, flags, Mode::from_raw_mode(0o666)) {
                Ok(file) => return Ok(Self { dir, name, file: file.into(), published: false }),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn publish(mut self, name: &OsStr, exclusive: bool) -> Result<(), Errno> {
        if exclusive {
            #[cfg(any(target_os = "linux", target_vendor = "apple"))]
            match rustix::fs::renameat_with(
                self.dir,
                &self.name,
                self.dir,
                name,
                rustix::fs::RenameFlags::NOREPLACE,
            ) {
                // A file system that knows no such renaming.
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
                outcome => {
                    self.published = outcome.is_ok();
                    return outcome;
                }
            }
            return rustix::fs::linkat(self.dir, &self.name, self.dir, name, AtFlags::empty());
        }
        rustix::fs::renameat(self.dir, &self.name, self.dir, name)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.published {
            _ = rustix::fs::unlinkat(self.dir, &self.name, AtFlags::empty());
        }
    }
}

fn fill(file: &mut File, content: &mut Content<'_>, cancel: &CancellationToken) -> std::io::Result<()> {
    match content {
        Content::Bytes(bytes) => {
            for chunk in bytes.chunks(CHUNK) {
                still_wanted(cancel)?;
                file.write_all(chunk)?;
            }
        }
        Content::Of(source) => loop {
            still_wanted(cancel)?;
            if std::io::copy(&mut Read::by_ref(&mut **source).take(CHUNK as u64), file)? == 0 {
                break;
            }
        },
    }
    still_wanted(cancel)
}

/// A file with a second name is refused: what it holds may belong to the outside.
fn check_names(path: &str, stat: &Stat) -> Result<()> {
    if stat.st_nlink == 1 {
        return Ok(());
    }
    let message = format!(
        "{path} has {} names (hard links), of which another may lie outside of the sandbox: copy it within the sandbox",
        stat.st_nlink
    );
    Err(CoreError::new(Code::PathEscape, message).in_file(path))
}

/// Removes what is in a directory.
fn empty(
    walk: &Walk<'_>,
    parent: BorrowedFd<'_>,
    name: &OsStr,
    depth: usize,
    cancel: &CancellationToken,
) -> Result<(), Failure> {
    let depth = depth.checked_sub(1).ok_or(Errno::NAMETOOLONG)?;
    let dir = component::open(parent, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    if walk.is_guarded(dir.as_fd())? {
        return Err(Errno::ROFS.into());
    }
    let mut names = Vec::new();
    for entry in Dir::read_from(&dir)? {
        let name = entry?.file_name().to_bytes().to_owned();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    for name in names {
        if cancel.is_cancelled() {
            return Err(Errno::CANCELED.into());
        }
        let removed = match rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if Kind::of(&stat) == Kind::Directory => {
                empty(walk, dir.as_fd(), &name, depth, cancel)?;
                rustix::fs::unlinkat(&dir, &name, AtFlags::REMOVEDIR)
            }
            Ok(_) => rustix::fs::unlinkat(&dir, &name, AtFlags::empty()),
            Err(error) => Err(error),
        };
        match removed {
            // Someone else was quicker.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn links(pinned: bool, otherwise: Links) -> Links {
    if pinned { Links::Refuse } else { otherwise }
}

fn still_wanted(cancel: &CancellationToken) -> std::io::Result<()> {
    if cancel.is_cancelled() { Err(Errno::CANCELED.into()) } else { Ok(()) }
}

fn size_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

#[allow(
    clippy::cast_precision_loss,
    clippy::useless_conversion,
    reason = "a double holds the milliseconds of 285,000 years"
)]
fn modified_ms(stat: &Stat) -> f64 {
    stat.st_mtime as f64 * 1e3 + stat.st_mtime_nsec as f64 / 1e6
}
