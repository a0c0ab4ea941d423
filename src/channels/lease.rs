//! One at a time: kernel locks that are named after what they stand for.
//!
//! They go with the process that has them, however that ends. Their name is a hash, so that it tells nothing of a token. They
//! keep apart processes of this machine, not of others.
//!
//! A file in a folder that processes share is locked; it stays. Whose file it is does not matter: it is opened to be read. On
//! Linux there is a socket without a file, too: a service may have a temporary folder of its own, an old file there may be
//! cleared away, and one of another user's may not be readable. All processes with the same network see it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;

use crate::{Code, CoreError, Result};

/// Held until it is dropped.
#[derive(Debug)]
pub struct Lease {
    _name: Option<Name>,
    _file: Option<File>,
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
        let name = format!("openclaw-core-channel-{name}");
        // Whoever names a folder wants to be apart from others.
        let scope = if folder == self::folder() { None } else { Some(folder) };
        let held = match Name::take(&name, scope) {
            Ok(Some(held)) => Some(held),
            Ok(None) => return Ok(None),
            Err(error) => {
                tracing::debug!(%error, "a channel is locked by a file alone");
                None
            }
        };
        let file = match lock(&folder.join(format!("{name}.lock"))) {
            Ok(Some(file)) => Some(file),
            Ok(None) => return Ok(None),
            Err(error) if held.is_some() => {
                tracing::debug!(%error, "a channel is locked without a file");
                None
            }
            Err(error) => return Err(error),
        };
        Ok(Some(Self { _name: held, _file: file }))
    }
}

/// A name that one process has at a time.
#[cfg(target_os = "linux")]
#[derive(Debug)]
struct Name {
    _socket: std::os::unix::net::UnixDatagram,
}

#[cfg(target_os = "linux")]
impl Name {
    /// None if somebody has it.
    fn take(name: &str, scope: Option<&Path>) -> std::io::Result<Option<Self>> {
        use std::os::linux::net::SocketAddrExt as _;
        use std::os::unix::ffi::OsStrExt as _;
        use std::os::unix::net::{SocketAddr, UnixDatagram};

        let mut name = name.to_owned();
        if let Some(scope) = scope {
            let scope = blake3::hash(scope.as_os_str().as_bytes());
            name.push_str(&HEXLOWER.encode(scope.as_bytes().get(..16).unwrap_or_default()));
        }
        match UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?) {
            Ok(socket) => Ok(Some(Self { _socket: socket })),
            Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
enum Name {}

#[cfg(not(target_os = "linux"))]
impl Name {
    fn take(_: &str, _: Option<&Path>) -> std::io::Result<Option<Self>> {
        Err(ErrorKind::Unsupported.into())
    }
}

/// Locks a file, which is made if there is none; none if somebody has locked it.
fn lock(path: &Path) -> Result<Option<File>> {
    let unusable = |error: std::io::Error| {
        let message = format!(
            "the lock file {} cannot be used: {error}. It may be another user's: see to it that no other program uses \
             this bot, and remove the file",
            path.display()
        );
        CoreError::new(Code::Io, message).in_file(path).caused_by(error)
    };
    let file = open(path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

/// What is there is opened to be read, and never to be made: in a folder like `/tmp`, Linux refuses both others' files to be
/// written, and the wish to make them.
fn open(path: &Path) -> std::io::Result<File> {
    let mut last = ErrorKind::NotFound.into();
    // It may come or go in between.
    for _ in 0..5 {
        let (mut make, mut read) = (OpenOptions::new(), OpenOptions::new());
        make.write(true).create_new(true);
        read.read(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            // Neither elsewhere, nor waiting for whoever opens the other end.
            read.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        }
        match make.open(path) {
            Ok(file) => {
                // For all users, whatever is masked.
                #[cfg(unix)]
                file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
                return Ok(file);
            }
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            Err(_) => {}
        }
        match read.open(path) {
            Ok(file) if file.metadata()?.is_file() => return Ok(file),
            Ok(_) => return Err(std::io::Error::other("it is not a file")),
            Err(error) if error.kind() == ErrorKind::NotFound => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// The folder where leases are: the system's temporary one.
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

    /// The file that a lease made, and its lock alone.
    fn made(folder: &Path) -> PathBuf {
        let mut entries = std::fs::read_dir(folder).unwrap();
        entries.next().unwrap().unwrap().path()
    }

    #[cfg(unix)]
    #[test]
    fn a_lock_file_needs_no_more_than_to_be_read_and_is_made_so_that_all_may() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        drop(Lease::acquire(folder.path(), &[b"a"]).unwrap().unwrap());
        let path = made(folder.path());
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o644);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
        let first = lock(&path).unwrap();
        assert!(first.is_some() && lock(&path).unwrap().is_none());
        // An older version, and whatever else has only the file.
        assert!(Lease::acquire(folder.path(), &[b"a"]).unwrap().is_none());
        drop(first);
        assert!(Lease::acquire(folder.path(), &[b"a"]).unwrap().is_some());
        // Nothing but a file is locked, and nothing is waited for; the error says what to do.
        std::fs::remove_file(&path).unwrap();
        let target = folder.path().join("target");
        std::os::unix::fs::symlink(&target, &path).unwrap();
        for place in [path.as_path(), folder.path()] {
            let error = lock(place).unwrap_err();
            assert_eq!((error.code(), error.details().file.as_deref()), (Code::Io, Some(place)));
            assert!(error.message().contains("remove the file"), "{error}");
        }
        assert!(!target.exists());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn where_the_file_cannot_be_used_or_is_cleared_away_there_is_one_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let take = || Lease::acquire(folder.path(), &[b"a"]).unwrap();
        let first = take().unwrap();
        std::fs::remove_file(made(folder.path())).unwrap();
        assert!(take().is_none());
        drop(first);
        drop(take().unwrap());
        let path = made(folder.path());
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        let first = take();
        assert!(first.is_some() && take().is_none());
        drop(first);
        assert!(take().is_some());
    }
}
