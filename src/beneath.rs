//! Paths that stay beneath a root, whatever `..` and symbolic links say and whoever moves things meanwhile.
//!
//! A name that was checked and is then opened by name can lead elsewhere in between. So a [`Root`] holds a descriptor,
//! and every file is opened from it on:
//!
//! - Linux 5.6 and later: one `openat2` with `RESOLVE_BENEATH` and `RESOLVE_NO_MAGICLINKS`; the kernel guarantees it.
//! - Other Unix systems, and where `openat2` is missing or forbidden: a walk, one component at a time, each opened from
//!   the directory before it with `O_NOFOLLOW`. Symbolic links are read and followed as `openat2` would: within
//!   the root, forty at most; an absolute one leads out of it even if it names a place inside.
//! - Windows: a walk whose directories are held open without sharing deletion, so that none can be renamed or replaced
//!   until the file is open. Reparse points (symbolic links, junctions) are refused, as are device names and streams.
//!
//! A path that leads out is `PATH_ESCAPE`; so is one that cannot be followed to an end. What the system refuses is `IO`.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::{Code, CoreError, Result};

#[cfg(unix)]
pub(crate) mod component;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
use unix as system;
#[cfg(windows)]
use windows as system;

/// A directory, held open.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    /// As it was given: absolute, but with its links.
    given: PathBuf,
    inner: system::Root,
}

/// What to open a file for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read: a file, or a directory to list.
    Read,
    /// To write; it must exist. It is not truncated.
    Write,
    /// To write; it is created, for its owner alone, if it does not exist.
    Create,
    /// To write; it must not exist, not even as a symbolic link.
    CreateNew,
}

impl Root {
    /// The root at `path`, which itself may be reached through links: it is trusted.
    pub fn open(path: &Path) -> Result<Self> {
        let real = path.canonicalize().map_err(|error| CoreError::io("open", path, error))?;
        let inner = system::Root::open(&real).map_err(|error| CoreError::io("open", path, error))?;
        let given = std::path::absolute(path).map_err(|error| CoreError::io("open", path, error))?;
        Ok(Self { path: real, given, inner })
    }

    /// Its real path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where `path`, relative or beneath this root's own path, leads: a path without links. The end of it need not
    /// exist.
    ///
    /// It holds for as long as nobody moves anything. To read or write, [`Root::open_file`] instead.
    pub fn resolve(&self, path: &Path) -> Result<PathBuf> {
        let inner = self.relative(path)?;
        let found = self.inner.resolve(&self.path, inner).map_err(|error| error.at(&self.path, path))?;
        Ok(if found.as_os_str().is_empty() { self.path.clone() } else { self.path.join(found) })
    }

    /// Opens a regular file, or a directory to read, and nothing else: a pipe or a device could hang the reader.
    pub fn open_file(&self, path: &Path, access: Access) -> Result<File> {
        let inner = self.relative(path)?;
        let file =
            self.inner.open_file(&self.path, inner, access).map_err(|error| error.at(&self.path, path))?;
        let kind = file.metadata().map_err(|error| CoreError::io("look at", path, error))?.file_type();
        if kind.is_file() || (kind.is_dir() && access == Access::Read) {
            return Ok(file);
        }
        let message = format!("{} is no regular file", path.display());
        Err(CoreError::new(Code::Io, message).in_file(path))
    }

    /// Opens the directory that holds what `path` names, and gives the name in it, for what is done to names: create,
    /// rename, remove. The last component is not followed.
    pub fn open_parent(&self, path: &Path) -> Result<(File, OsString)> {
        let inner = self.relative(path)?;
        let (Some(parent), Some(name)) = (inner.parent(), last_name(inner)) else {
            let message = format!("{} does not end in a name", path.display());
            return Err(CoreError::new(Code::Validation, message).in_file(path));
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        Ok((self.open_file(parent, Access::Read)?, name))
    }

    /// An absolute path is taken for relative where it begins with the root's own, real or as it was given.
    fn relative<'a>(&self, path: &'a Path) -> Result<&'a Path> {
        let invalid =
            |what: &str| Err(CoreError::new(Code::Validation, format!("the path {what}")).in_file(path));
        if path.as_os_str().is_empty() {
            return invalid("is empty");
        }
        if path.as_os_str().as_encoded_bytes().contains(&0) {
            return invalid("holds a NUL character");
        }
        if !path.has_root() {
            return Ok(path);
        }
        match path.strip_prefix(&self.path).or_else(|_| path.strip_prefix(&self.given)) {
            Ok(inner) if inner.as_os_str().is_empty() => Ok(Path::new(".")),
            Ok(inner) => Ok(inner),
            Err(_) => Err(Failure::Escape.at(&self.path, path)),
        }
    }
}

/// The last component, if it is a name and stands at the very end.
fn last_name(path: &Path) -> Option<OsString> {
    let name = path.file_name()?;
    path.as_os_str().as_encoded_bytes().ends_with(name.as_encoded_bytes()).then(|| name.to_owned())
}

/// Why a path was not followed.
#[derive(Debug)]
enum Failure {
    Escape,
    #[cfg(unix)]
    Endless,
    System(std::io::Error),
}

impl Failure {
    fn at(self, root: &Path, path: &Path) -> CoreError {
        let escape = |how: &str| {
            let message = format!("{} {how} {}: give a path beneath it", path.display(), root.display());
            CoreError::new(Code::PathEscape, message).in_file(path)
        };
        match self {
            Self::Escape => escape("leads out of"),
            #[cfg(unix)]
            Self::Endless => escape("runs in circles, or through a link that is none, in"),
            Self::System(error) => CoreError::io("follow", path, error),
        }
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
