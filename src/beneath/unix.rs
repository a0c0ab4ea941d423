use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::component::{STEP, may_be_link};
use super::{Access, Failure};

/// As many as Linux follows.
const MAX_LINKS: usize = 40;

#[derive(Debug)]
pub(super) struct Root {
    dir: OwnedFd,
    /// Only tests have reason not to ask the kernel.
    #[cfg(target_os = "linux")]
    pub(super) ask_kernel: bool,
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Self {
        match error {
            Errno::XDEV => Self::Escape,
            Errno::LOOP => Self::Endless,
            error => Self::System(error.into()),
        }
    }
}

impl Root {
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let dir = rustix::fs::openat(CWD, path, STEP, Mode::empty())?;
        Ok(Self {
            dir,
            #[cfg(target_os = "linux")]
            ask_kernel: true,
        })
    }

    pub(super) fn open_file(&self, _root: &Path, path: &Path, access: Access) -> Result<File, Failure> {
        // A pipe must not hang the one who opens it.
        let flags = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = flags
            | match access {
                Access::Read => OFlags::RDONLY,
                Access::Write => OFlags::WRONLY,
                Access::Create => OFlags::WRONLY | OFlags::CREATE,
                Access::CreateNew => OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL,
            };
        #[cfg(target_os = "linux")]
        if let Some(file) = self.by_kernel(path, flags)? {
            return Ok(file.into());
        }
        Walk::from(self.dir.as_fd(), path)?.open(flags).map(File::from)
    }

    pub(super) fn resolve(&self, root: &Path, path: &Path) -> Result<PathBuf, Failure> {
        #[cfg(target_os = "linux")]
        match self.by_kernel(path, OFlags::PATH | OFlags::CLOEXEC) {
            Ok(Some(file)) => {
                if let Some(found) =
                    name_of(&file).and_then(|name| name.strip_prefix(root).ok().map(Path::to_owned))
                {
                    return Ok(found);
                }
            }
            // The walk finds out from where on it is missing.
            Err(Failure::System(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(None) => {}
        }
        #[cfg(not(target_os = "linux"))]
        let _ = root;
        Walk::from(self.dir.as_fd(), path)?.resolve()
    }

    /// `None` if the kernel does not know how, or may not.
    #[cfg(target_os = "linux")]
    fn by_kernel(&self, path: &Path, flags: OFlags) -> Result<Option<OwnedFd>, Failure> {
        use rustix::fs::ResolveFlags;

        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mode = if flags.contains(OFlags::CREATE) { owner_only() } else { Mode::empty() };
        for _ in 0..if self.ask_kernel { 32 } else { 0 } {
            match rustix::fs::openat2(&self.dir, path, flags, mode, beneath) {
                Ok(file) => return Ok(Some(file)),
                // Something was renamed while it looked at "..".
                Err(Errno::AGAIN | Errno::INTR) => {}
                // Old, or kept from it by a filter of system calls; the walk says whether it was the file instead.
                Err(Errno::NOSYS | Errno::PERM) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }
}

fn owner_only() -> Mode {
    Mode::RUSR | Mode::WUSR
}

/// The path of an open file, if it still has that one.
#[cfg(target_os = "linux")]
fn name_of(file: &OwnedFd) -> Option<PathBuf> {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;

    let name = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    let named = std::fs::symlink_metadata(&name).ok()?;
    let open = rustix::fs::fstat(file).ok()?;
    (named.dev() == open.st_dev && named.ino() == open.st_ino).then_some(name)
}

/// A path on the way, one component at a time.
struct Walk<'a> {
    root: BorrowedFd<'a>,
    /// The directories from the root (not among them) to where the walk is, with their names.
    trail: Vec<(OwnedFd, OsString)>,
    /// What is still to go.
    rest: VecDeque<OsString>,
    links: usize,
}

impl<'a> Walk<'a> {
    fn from(root: BorrowedFd<'a>, path: &Path) -> Result<Self, Failure> {
        let mut walk = Self { root, trail: Vec::new(), rest: VecDeque::new(), links: 0 };
        walk.go_first(path.as_os_str())?;
        Ok(walk)
    }

    /// Puts a path before what is still to go.
    fn go_first(&mut self, path: &OsStr) -> Result<(), Failure> {
        let bytes = path.as_bytes();
        if bytes.starts_with(b"/") {
            return Err(Failure::Escape);
        }
        if bytes.is_empty() {
            return Err(Errno::NOENT.into());
        }
        // "a/" is "a/.": a must be a directory.
        if bytes.ends_with(b"/") {
            self.rest.push_front(".".into());
        }
        for part in bytes.split(|&byte| byte == b'/').rev().filter(|part| !part.is_empty()) {
            self.rest.push_front(OsStr::from_bytes(part).to_owned());
        }
        Ok(())
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.trail.last().map_or(self.root, |(dir, _)| dir.as_fd())
    }

    /// Goes as far as the last name; gives it, or none if the path ends where the walk is.
    fn walk_to_last_name(&mut self) -> Result<Option<OsString>, Failure> {
        while let Some(name) = self.rest.pop_front() {
            match name.as_bytes() {
                b"." => {}
                b".." => {
                    self.trail.pop().ok_or(Failure::Escape)?;
                }
                _ if self.rest.is_empty() => return Ok(Some(name)),
                _ => self.step(name)?,
            }
        }
        Ok(None)
    }

    fn step(&mut self, name: OsString) -> Result<(), Failure> {
        match rustix::fs::openat(self.here(), &name, STEP | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(dir) => {
                self.trail.push((dir, name));
                Ok(())
            }
            Err(error) if may_be_link(error) => match self.follow(&name) {
                Ok(true) => Ok(()),
                Ok(false) => Err(Errno::NOTDIR.into()),
                Err(error) => Err(self.stopped(name, error)),
            },
            Err(error) => Err(self.stopped(name, error.into())),
        }
    }

    /// Where a name is missing, it is still to go.
    fn stopped(&mut self, name: OsString, error: Failure) -> Failure {
        self.rest.push_front(name);
        error
    }

    /// Whether it is a symbolic link; its target is then next to go.
    fn follow(&mut self, name: &OsStr) -> Result<bool, Failure> {
        let target = match rustix::fs::readlinkat(self.here(), name, Vec::new()) {
            Ok(target) => OsString::from_vec(target.into_bytes()),
            Err(Errno::INVAL) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Failure::Endless);
        }
        self.go_first(&target)?;
        Ok(true)
    }

    fn open(mut self, flags: OFlags) -> Result<OwnedFd, Failure> {
        let mut tries = 0;
        loop {
            let Some(name) = self.walk_to_last_name()? else {
                return Ok(rustix::fs::openat(self.here(), ".", flags, Mode::empty())?);
            };
            match rustix::fs::openat(self.here(), &name, flags | OFlags::NOFOLLOW, owner_only()) {
                Ok(file) => return Ok(file),
                Err(error) if may_be_link(error) => {
                    if self.follow(&name)? {
                        continue;
                    }
                    // A link when it was opened, and none when it was read: whoever swaps it gets some tries.
                    tries += 1;
                    if error == Errno::NOTDIR || tries > MAX_LINKS {
                        return Err(error.into());
                    }
                    self.rest.push_front(name);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn resolve(mut self) -> Result<PathBuf, Failure> {
        loop {
            let name = match self.walk_to_last_name() {
                Ok(name) => name,
                Err(Failure::System(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                    // What does not exist has no parent to go back to.
                    if self.rest.is_empty() || self.rest.iter().any(|part| part == "..") {
                        return Err(Failure::System(error));
                    }
                    break;
                }
                Err(error) => return Err(error),
            };
            let Some(name) = name else { break };
            match self.follow(&name) {
                Ok(true) => {}
                Ok(false) => {
                    self.rest.push_front(name);
                    break;
                }
                Err(Failure::System(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                    self.rest.push_front(name);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let missing = self.rest.iter().filter(|part| *part != ".");
        Ok(self.trail.iter().map(|(_, name)| name).chain(missing).collect())
    }
}
