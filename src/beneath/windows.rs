use std::fs::{File, OpenOptions};
use std::os::windows::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use super::{Access, Failure};

// The values are those of winnt.h and fileapi.h.
const FILE_FLAG_BACKUP_SEMANTICS: u32 = 0x0200_0000;
const FILE_FLAG_OPEN_REPARSE_POINT: u32 = 0x0020_0000;
const FILE_ATTRIBUTE_REPARSE_POINT: u32 = 0x400;
/// Not to delete: what is open so can be neither renamed nor replaced.
const FILE_SHARE_READ_WRITE: u32 = 3;

#[derive(Debug)]
pub(super) struct Root {
    _held: File,
}

impl Root {
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Self { _held: hold(path)? })
    }

    #[expect(clippy::unused_self, reason = "the walk begins at the path, which what is held keeps in place")]
    pub(super) fn open_file(&self, root: &Path, path: &Path, access: Access) -> Result<File, Failure> {
        let (held, found) = walk(root, path)?;
        let mut options = OpenOptions::new();
        match access {
            Access::Read => options.read(true),
            Access::Write => options.write(true),
            Access::Create => options.write(true).create(true),
            Access::CreateNew => options.write(true).create_new(true),
        };
        let file = options
            .custom_flags(FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT)
            .open(&found)
            .map_err(Failure::System)?;
        drop(held);
        no_link(&file)?;
        Ok(file)
    }

    #[expect(clippy::unused_self, reason = "as `open_file`")]
    pub(super) fn resolve(&self, root: &Path, path: &Path) -> Result<PathBuf, Failure> {
        let (_held, found) = walk(root, path)?;
        match std::fs::symlink_metadata(&found) {
            Ok(seen) if seen.file_attributes() & FILE_ATTRIBUTE_REPARSE_POINT != 0 => {
                return Err(Failure::Escape);
            }
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Failure::System(error)),
            _ => {}
        }
        Ok(found.strip_prefix(root).map(Path::to_owned).unwrap_or_default())
    }
}

/// The path without `..`, and its directories, held.
fn walk(root: &Path, path: &Path) -> Result<(Vec<File>, PathBuf), Failure> {
    let mut trail: Vec<File> = Vec::new();
    let mut cursor = root.to_owned();
    let mut depth = 0_usize;
    let mut missing = false;
    let mut parts = path.components().peekable();
    while let Some(part) = parts.next() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if missing {
                    return Err(Failure::System(std::io::ErrorKind::NotFound.into()));
                }
                depth = depth.checked_sub(1).ok_or(Failure::Escape)?;
                trail.truncate(depth);
                cursor.pop();
            }
            Component::Normal(name) => {
                if !is_plain(&name.to_string_lossy()) {
                    return Err(Failure::Escape);
                }
                cursor.push(name);
                depth += 1;
                if parts.peek().is_none() || missing {
                    continue;
                }
                match hold(&cursor) {
                    Ok(dir) => {
                        no_link(&dir)?;
                        if !dir.metadata().map_err(Failure::System)?.is_dir() {
                            return Err(Failure::System(std::io::ErrorKind::NotADirectory.into()));
                        }
                        trail.push(dir);
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => missing = true,
                    Err(error) => return Err(Failure::System(error)),
                }
            }
            Component::Prefix(_) | Component::RootDir => return Err(Failure::Escape),
        }
    }
    Ok((trail, cursor))
}

/// Read access, because an opening that asks for attributes alone takes no part in sharing.
fn hold(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .share_mode(FILE_SHARE_READ_WRITE)
        .custom_flags(FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT)
        .open(path)
}

fn no_link(file: &File) -> Result<(), Failure> {
    let attributes = file.metadata().map_err(Failure::System)?.file_attributes();
    if attributes & FILE_ATTRIBUTE_REPARSE_POINT == 0 { Ok(()) } else { Err(Failure::Escape) }
}

/// No stream ("a:b"), no device ("NUL", "com1.txt"), and no name that Windows would shorten to another ("a.").
fn is_plain(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_uppercase();
    let numbered = |prefix: &str| {
        stem.strip_prefix(prefix).is_some_and(|rest| {
            rest.chars().count() == 1
                && rest.chars().all(|digit| matches!(digit, '0'..='9' | '¹' | '²' | '³'))
        })
    };
    let device = matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$" | "CLOCK$")
        || numbered("COM")
        || numbered("LPT");
    !device && !name.contains([':', '<', '>', '"', '|', '?', '*']) && !name.ends_with(['.', ' '])
}
