//! Reads a file that must lie in a given directory, whatever links say and whoever moves things meanwhile.
//!
//! The file is refused unless it is a regular file with one name (no hard links) inside the directory, of at most
//! so many bytes. Links are followed hop by hop and may not leave the directory. What was looked at and what was
//! opened are compared by identity, and looked at once more after opening.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use super::paths::{has_trailing_separator, is_inside, normalize, parent, real_path};

/// Why a file was not read.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It breaks a rule.
    Unsafe,
    /// The system did not let us.
    Unreadable(io::Error),
}

/// Reads `path`, which must lie in `root` (a real path). Returns its real path and its bytes.
pub(crate) fn read(path: &Path, root: &Path, max_bytes: u64) -> Result<(PathBuf, Vec<u8>), Refusal> {
    let real = resolve(path, root)?;
    let root_before = Identity::of_directory(root)?;
    let before = Identity::of_file(&real, max_bytes)?;
    let file = open(&real).map_err(Refusal::Unreadable)?;
    let opened = Identity::of_open_file(&file, max_bytes)?;
    if opened != before || Identity::of_file(&real, max_bytes)? != before {
        return Err(Refusal::Unsafe);
    }
    let canonical = real_path(&real).map_err(Refusal::Unreadable)?;
    if !is_inside(root, &canonical)
        || Identity::of_file(&canonical, max_bytes)? != before
        || Identity::of_directory(root)? != root_before
    {
        return Err(Refusal::Unsafe);
    }
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(Refusal::Unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len <= max_bytes) {
        Ok((canonical, bytes))
    } else {
        // It grew after it was measured.
        Err(Refusal::Unsafe)
    }
}

/// Follows `path` from `root` on. What does not exist is followed by name.
fn resolve(path: &Path, root: &Path) -> Result<PathBuf, Refusal> {
    let relative = match path.strip_prefix(root) {
        Ok(relative) => relative.to_owned(),
        Err(_) => relative_through_links(path, root)?,
    };
    let must_be_directory = has_trailing_separator(path);
    let mut cursor = root.to_owned();
    let mut missing = false;
    let mut parts = relative.components().peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none() && !must_be_directory;
        cursor.push(part);
        if missing {
            continue;
        }
        match std::fs::symlink_metadata(&cursor) {
            Err(error) if is_missing(&error) => missing = true,
            Err(_) => return Err(Refusal::Unsafe),
            Ok(found) if found.is_symlink() => {
                cursor = link_target(&cursor)?;
                if !is_inside(root, &cursor) || !(last || is_directory(&cursor)) {
                    return Err(Refusal::Unsafe);
                }
            }
            Ok(found) if !last && !found.is_dir() => return Err(Refusal::Unsafe),
            Ok(_) => {}
        }
    }
    Ok(cursor)
}

/// The path relative to `root` where it reaches it only through links further up.
fn relative_through_links(path: &Path, root: &Path) -> Result<PathBuf, Refusal> {
    let mut prefix = PathBuf::new();
    let mut parts = path.components();
    while let Some(part) = parts.next() {
        prefix.push(part);
        if !matches!(part, Component::Normal(_)) {
            continue;
        }
        let last = parts.as_path().as_os_str().is_empty() && !has_trailing_separator(path);
        let Ok(found) = std::fs::symlink_metadata(&prefix) else { continue };
        let link = found.is_symlink();
        if !link && !found.is_dir() && !last {
            return Err(Refusal::Unsafe);
        }
        let canonical = match real_path(&prefix) {
            Ok(canonical) => canonical,
            Err(_) if link => return Err(Refusal::Unsafe),
            Err(_) => continue,
        };
        let strays = !is_inside(root, &canonical) && !is_inside(&canonical, root);
        if link && (strays || !(last || is_directory(&canonical))) {
            return Err(Refusal::Unsafe);
        }
        if let Ok(inside) = canonical.strip_prefix(root) {
            return Ok(inside.join(parts.as_path()));
        }
    }
    Err(Refusal::Unsafe)
}

/// Where a link leads; for one that leads nowhere, where it would.
fn link_target(link: &Path) -> Result<PathBuf, Refusal> {
    match real_path(link) {
        Ok(target) => Ok(target),
        Err(error) if is_missing(&error) => {
            let target = std::fs::read_link(link).map_err(|_| Refusal::Unsafe)?;
            let target = normalize(&parent(link).join(target));
            let mut existing = target.as_path();
            while !existing.exists() && existing.parent().is_some() {
                existing = parent(existing);
            }
            let rest = target.strip_prefix(existing).unwrap_or(Path::new(""));
            Ok(real_path(existing).map_or_else(|_| target.clone(), |real| real.join(rest)))
        }
        Err(_) => Err(Refusal::Unsafe),
    }
}

pub(crate) fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn is_directory(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_dir())
}

/// Which file it is, whatever its name.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    volume: u64,
    file: u64,
}

impl Identity {
    fn of_directory(path: &Path) -> Result<Self, Refusal> {
        let found = std::fs::symlink_metadata(path).map_err(Refusal::Unreadable)?;
        if !found.is_dir() {
            return Err(Refusal::Unsafe);
        }
        #[cfg(windows)]
        return Self::of_handle(
            &winapi_util::Handle::from_path_any(path).map_err(Refusal::Unreadable)?,
            None,
        );
        #[cfg(unix)]
        Ok(Self::of_metadata(&found))
    }

    #[cfg(unix)]
    fn of_file(path: &Path, max_bytes: u64) -> Result<Self, Refusal> {
        Self::of_regular(&std::fs::symlink_metadata(path).map_err(Refusal::Unreadable)?, max_bytes)
    }

    #[cfg(unix)]
    fn of_open_file(file: &File, max_bytes: u64) -> Result<Self, Refusal> {
        Self::of_regular(&file.metadata().map_err(Refusal::Unreadable)?, max_bytes)
    }

    #[cfg(unix)]
    fn of_regular(found: &Metadata, max_bytes: u64) -> Result<Self, Refusal> {
        use std::os::unix::fs::MetadataExt;
        if found.is_file() && found.nlink() <= 1 && found.len() <= max_bytes {
            Ok(Self::of_metadata(found))
        } else {
            Err(Refusal::Unsafe)
        }
    }

    #[cfg(unix)]
    fn of_metadata(found: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self { volume: found.dev(), file: found.ino() }
    }

    #[cfg(windows)]
    fn of_file(path: &Path, max_bytes: u64) -> Result<Self, Refusal> {
        Self::of_open_file(&open(path).map_err(Refusal::Unreadable)?, max_bytes)
    }

    #[cfg(windows)]
    fn of_open_file(file: &File, max_bytes: u64) -> Result<Self, Refusal> {
        Self::regular(&file.metadata().map_err(Refusal::Unreadable)?)?;
        Self::of_handle(winapi_util::HandleRef::from_file(file), Some(max_bytes))
    }

    #[cfg(windows)]
    fn regular(found: &Metadata) -> Result<(), Refusal> {
        if found.is_file() { Ok(()) } else { Err(Refusal::Unsafe) }
    }

    #[cfg(windows)]
    fn of_handle(handle: impl winapi_util::AsHandleRef, max_bytes: Option<u64>) -> Result<Self, Refusal> {
        let found = winapi_util::file::information(handle).map_err(Refusal::Unreadable)?;
        if max_bytes.is_some_and(|max| found.number_of_links() > 1 || found.file_size() > max) {
            return Err(Refusal::Unsafe);
        }
        Ok(Self { volume: found.volume_serial_number(), file: found.file_index() })
    }
}

/// Opens for reading, neither through a link at the end nor waiting for a pipe's writer.
fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOFOLLOW | libc::O_NONBLOCK);
    #[cfg(windows)]
    {
        const FILE_FLAG_OPEN_REPARSE_POINT: u32 = 0x0020_0000;
        std::os::windows::fs::OpenOptionsExt::custom_flags(&mut options, FILE_FLAG_OPEN_REPARSE_POINT);
    }
    options.open(path)
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn read_text(path: &Path, root: &Path) -> Result<String, &'static str> {
        match read(path, root, 10) {
            Ok((_, bytes)) => Ok(String::from_utf8(bytes).unwrap()),
            Err(Refusal::Unsafe) => Err("unsafe"),
            Err(Refusal::Unreadable(_)) => Err("unreadable"),
        }
    }

    #[test]
    fn only_a_plain_small_file_with_one_name_inside_the_root_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let root = base.join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(root.join("good"), "good").unwrap();
        std::fs::write(root.join("big"), "more than ten").unwrap();
        std::fs::write(base.join("outside"), "out").unwrap();
        std::fs::write(root.join("one"), "1").unwrap();
        std::fs::hard_link(root.join("one"), root.join("two")).unwrap();
        symlink("../outside", root.join("out")).unwrap();
        symlink("good", root.join("in")).unwrap();
        symlink("gone", root.join("dangling")).unwrap();
        symlink("../gone", root.join("dangling-out")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("root", base.join("alias")).unwrap();
        for (name, expected) in [
            ("good", Ok("good")),
            ("in", Ok("good")),
            ("big", Err("unsafe")),
            ("two", Err("unsafe")),
            ("out", Err("unsafe")),
            ("sub", Err("unsafe")),
            ("good/", Err("unsafe")),
            ("good/x", Err("unsafe")),
            ("loop", Err("unsafe")),
            ("dangling-out", Err("unsafe")),
            ("dangling", Err("unreadable")),
            ("missing", Err("unreadable")),
            ("missing/x", Err("unreadable")),
        ] {
            let expected = expected.map(str::to_owned);
            assert_eq!(read_text(&root.join(name), &root), expected, "{name}");
            let through = base.join("alias").join(name);
            // What is missing or leaves the root cannot be reached through a link above it either.
            assert_eq!(read_text(&through, &root).is_ok(), expected.is_ok(), "{name} through a link");
        }
        assert_eq!(read_text(&base.join("outside"), &root), Err("unsafe"));
    }

    #[test]
    fn a_pipe_without_a_writer_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let pipe = root.join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(read_text(&pipe, &root), Err("unsafe"));
    }
}
