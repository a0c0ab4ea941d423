//! What a sandbox sees of the host's files: its mounts, and a walk over them.
//!
//! The walk goes as the kernel would inside the sandbox. It knows at each step where in the sandbox it is: a name at
//! which something is mounted leads there, whatever the directory beneath holds; an absolute symbolic link begins at the
//! sandbox's own root; `..` goes back the way it came. Every directory on the way is held open, and only a single name
//! is ever given to the kernel, which does not follow it.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::super::policy::{Access, Mount};
use crate::beneath::component::{self, STEP, may_be_link};
use crate::{CoreError, Result};

/// As many as Linux follows.
const MAX_LINKS: usize = 40;
/// How often a name may turn out to be something else than a moment ago.
const MAX_SWAPS: usize = 8;
/// Each directory on the way takes a descriptor.
const MAX_DEPTH: usize = 256;
/// Linux's own limit.
const MAX_PATH: usize = 4096;

/// The mounts of a sandbox, held open.
#[derive(Debug)]
pub(super) struct View {
    mounts: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    /// Where it is in the sandbox, name by name.
    at: Vec<OsString>,
    root: Source,
    id: Id,
    writable: bool,
    /// Whether something else is mounted beneath, read-only.
    guards: bool,
}

#[derive(Debug)]
enum Source {
    Dir(OwnedFd),
    /// A single file, by the directory that it is in.
    File {
        dir: OwnedFd,
        name: OsString,
    },
}

type Id = (u64, u64);

#[allow(clippy::unnecessary_cast, clippy::cast_sign_loss, reason = "the types differ from system to system")]
fn id(stat: &Stat) -> Id {
    (stat.st_dev as u64, stat.st_ino as u64)
}

/// What to do with symbolic links.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// Follows them all.
    Follow,
    /// Follows all but the last component.
    KeepLast,
    /// Follows none: a path that was resolved before.
    Refuse,
}

/// Why a path was not followed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Failure {
    /// Nothing is mounted there.
    NotMounted,
    Endless,
    /// A link, where none was to be followed.
    Link,
    /// More names in a directory than are listed.
    TooMany,
    System(Errno),
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Self {
        Self::System(error)
    }
}

/// What a path leads to.
pub(super) enum End {
    /// The directory in which the walk stands.
    Here,
    /// A name in it, and what that is, if anything. A symbolic link only where it was not to be followed.
    Name { name: OsString, found: Option<Stat> },
    /// A file that is a mount of its own: its place among the mounts.
    File(usize),
}

impl View {
    pub(super) fn open(mounts: &[Mount]) -> Result<Self> {
        let mut held = Vec::with_capacity(mounts.len());
        for mount in mounts {
            let (source, stat) = open_source(&mount.host)
                .map_err(|error| CoreError::io("mount", &mount.host, error.into()))?;
            held.push(Held {
                at: names(Path::new(&mount.mount)),
                root: source,
                id: id(&stat),
                writable: mount.access == Access::ReadWrite,
                guards: false,
            });
        }
        let guards: Vec<bool> =
            held.iter().map(|one| held.iter().any(|other| is_guard(one, other))).collect();
        for (one, guards) in held.iter_mut().zip(guards) {
            one.guards = guards;
        }
        Ok(Self { mounts: held })
    }

    /// Sets out for `path`. A relative one begins at `base`, which is absolute. With `create`, directories on the way that
    /// are missing are made.
    pub(super) fn walk(
        &self,
        base: &str,
        path: &str,
        links: Links,
        create: bool,
    ) -> Result<Walk<'_>, Failure> {
        let mut walk =
            Walk { view: self, trail: Vec::new(), rest: VecDeque::new(), followed: 0, links, create };
        walk.go_first(OsStr::new(path))?;
        if !path.starts_with('/') {
            walk.go_first(OsStr::new(base))?;
        }
        Ok(walk)
    }

    /// Opens a mounted file to read.
    pub(super) fn open_file(&self, mount: usize) -> Result<(OwnedFd, Stat), Failure> {
        let Some(Held { root: Source::File { dir, name }, .. }) = self.mounts.get(mount) else {
            return Err(Errno::NOENT.into());
        };
        open_regular(dir.as_fd(), name)
    }

    /// What a mounted file is.
    pub(super) fn stat_file(&self, mount: usize) -> Result<Stat, Failure> {
        let Some(Held { root: Source::File { dir, name }, .. }) = self.mounts.get(mount) else {
            return Err(Errno::NOENT.into());
        };
        Ok(rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Where something is mounted.
    pub(super) fn place(&self, mount: usize) -> String {
        self.mounts.get(mount).map_or_else(String::new, |mount| text(mount.at.iter()))
    }

    /// Where mounts are, for people.
    pub(super) fn places(&self) -> String {
        let places: Vec<_> = self.mounts.iter().map(|mount| text(mount.at.iter())).collect();
        places.join(", ")
    }

    /// What is mounted at a place of the sandbox.
    fn at<'a>(&self, place: &(impl Iterator<Item = &'a OsStr> + Clone)) -> At {
        let mut above = false;
        // Where two are mounted at one place, the later one hides the earlier.
        for (index, mount) in self.mounts.iter().enumerate().rev() {
            let mut names = mount.at.iter();
            if place.clone().all(|name| names.next().is_some_and(|at| at == name)) {
                if names.next().is_none() {
                    return At::Mount(index);
                }
                above = true;
            }
        }
        if above { At::Above } else { At::Plain }
    }
}

/// Whether writing through `one` must not change what `other` shows: a part of the same tree, mounted within it again,
/// read-only.
fn is_guard(one: &Held, other: &Held) -> bool {
    !other.writable && other.at.len() > one.at.len() && other.at.starts_with(&one.at)
}

enum At {
    Mount(usize),
    /// Something is mounted further down.
    Above,
    Plain,
}

/// A path on the way.
pub(super) struct Walk<'v> {
    view: &'v View,
    /// From the sandbox's root to where the walk is.
    trail: Vec<(OsString, Node<'v>)>,
    /// What is still to go.
    rest: VecDeque<OsString>,
    followed: usize,
    links: Links,
    create: bool,
}

enum Node<'v> {
    /// No directory of the host: it is there because something is mounted beneath.
    Virtual,
    Dir {
        fd: Fd<'v>,
        mount: usize,
        writable: bool,
    },
}

enum Fd<'v> {
    Held(BorrowedFd<'v>),
    Own(OwnedFd),
}

impl AsFd for Fd<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Held(fd) => *fd,
            Self::Own(fd) => fd.as_fd(),
        }
    }
}

impl<'v> Walk<'v> {
    /// Goes to the end of the path.
    pub(super) fn last(&mut self) -> Result<End, Failure> {
        let mut tries = 0;
        while let Some(name) = self.next_name() {
            if !self.rest.is_empty() {
                self.enter(name)?;
                continue;
            }
            match self.at(&name) {
                At::Mount(index)
                    if matches!(
                        self.view.mounts.get(index),
                        Some(Held { root: Source::File { .. }, .. })
                    ) =>
                {
                    return Ok(End::File(index));
                }
                At::Mount(_) | At::Above => {
                    self.enter(name)?;
                    continue;
                }
                At::Plain => {}
            }
            let dir = self.dir()?;
            let found = match rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => return Ok(End::Name { name, found: None }),
                Err(error) => return Err(error.into()),
            };
            let is_link = FileType::from_raw_mode(found.st_mode) == FileType::Symlink;
            if !is_link || self.links != Links::Follow {
                return Ok(End::Name { name, found: Some(found) });
            }
            if !self.follow(&name)? {
                // A link a moment ago: whoever swaps it gets some tries.
                tries += 1;
                if tries > MAX_SWAPS {
                    return Err(Failure::Endless);
                }
                self.rest.push_front(name);
            }
        }
        Ok(End::Here)
    }

    /// Goes to the end of the path, which must be a directory.
    pub(super) fn end_in_dir(&mut self) -> Result<(), Failure> {
        while let Some(name) = self.next_name() {
            self.enter(name)?;
        }
        Ok(())
    }

    /// Where the path leads, without links. The end of it need not exist.
    pub(super) fn resolve(&mut self) -> Result<String, Failure> {
        let end = match self.last() {
            Ok(End::Here) => None,
            Ok(End::Name { name, .. }) => Some(name),
            Ok(End::File(index)) => {
                return Ok(self.view.place(index));
            }
            // What does not exist has no parent to go back to.
            Err(Failure::System(Errno::NOENT))
                if self.writable().is_some()
                    && !self.rest.is_empty()
                    && self.rest.iter().all(|name| name != "..") =>
            {
                self.rest.retain(|name| name != ".");
                let rest: Vec<_> = self.rest.drain(..).collect();
                return Ok(text(self.names().chain(rest.iter().map(OsString::as_os_str))));
            }
            Err(error) => return Err(error),
        };
        Ok(text(self.names().chain(end.iter().map(OsString::as_os_str))))
    }

    /// The directory in which the walk stands.
    pub(super) fn dir(&self) -> Result<BorrowedFd<'_>, Failure> {
        match self.node() {
            Some(Node::Dir { fd, .. }) => Ok(fd.as_fd()),
            _ => Err(Failure::NotMounted),
        }
    }

    /// Whether the sandbox may write there; none where there is no directory of the host.
    pub(super) fn writable(&self) -> Option<bool> {
        match self.node() {
            Some(Node::Dir { writable, .. }) => Some(*writable),
            _ => None,
        }
    }

    /// The same, or why not.
    pub(super) fn writable_dir(&self) -> Result<BorrowedFd<'_>, Failure> {
        let dir = self.dir()?;
        if self.writable() == Some(true) { Ok(dir) } else { Err(Errno::ROFS.into()) }
    }

    /// Where the walk is, in the sandbox.
    pub(super) fn path(&self) -> String {
        text(self.names())
    }

    /// Names in this directory at which something is mounted, there or further down, and whether it is a directory.
    pub(super) fn mounted_names(&self) -> impl Iterator<Item = (&'v OsStr, bool)> {
        let depth = self.trail.len();
        self.view.mounts.iter().filter_map(move |mount| {
            let here = self.names().zip(&mount.at).filter(|(name, at)| name == at).count() == depth;
            let name = mount.at.get(depth).filter(|_| here)?;
            let is_file = mount.at.len() == depth + 1 && matches!(mount.root, Source::File { .. });
            Some((name.as_os_str(), !is_file))
        })
    }

    /// Whether a directory is what a read-only mount within this one shows, by whatever name it is found here.
    pub(super) fn is_guarded(&self, dir: BorrowedFd<'_>) -> Result<bool, Failure> {
        match self.node() {
            Some(Node::Dir { mount, .. }) => self.guarded(*mount, dir),
            _ => Ok(false),
        }
    }

    fn guarded(&self, mount: usize, dir: BorrowedFd<'_>) -> Result<bool, Failure> {
        let Some(here) = self.view.mounts.get(mount).filter(|mount| mount.guards) else { return Ok(false) };
        let found = id(&rustix::fs::fstat(dir)?);
        Ok(self.view.mounts.iter().any(|other| is_guard(here, other) && other.id == found))
    }

    /// Puts a path before what is still to go.
    fn go_first(&mut self, path: &OsStr) -> Result<(), Failure> {
        let bytes = path.as_bytes();
        if bytes.is_empty() {
            return Err(Errno::NOENT.into());
        }
        if bytes.len() > MAX_PATH {
            return Err(Errno::NAMETOOLONG.into());
        }
        if bytes.contains(&0) {
            return Err(Errno::INVAL.into());
        }
        if bytes.starts_with(b"/") {
            self.trail.clear();
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

    /// The next name that is one; goes through `.` and `..`.
    fn next_name(&mut self) -> Option<OsString> {
        while let Some(name) = self.rest.pop_front() {
            match name.as_bytes() {
                b"." => {}
                // The root's parent is the root.
                b".." => drop(self.trail.pop()),
                _ => return Some(name),
            }
        }
        None
    }

    /// Goes into a directory, or to where a link leads.
    fn enter(&mut self, name: OsString) -> Result<(), Failure> {
        if self.trail.len() >= MAX_DEPTH {
            return Err(Errno::NAMETOOLONG.into());
        }
        let at = self.at(&name);
        if let At::Mount(index) = at {
            let node = self.view.root(index)?;
            self.trail.push((name, node));
            return Ok(());
        }
        let above = matches!(at, At::Above);
        let (mount, writable) = match self.node() {
            Some(Node::Dir { mount, writable, .. }) => (*mount, *writable),
            _ if above => {
                self.trail.push((name, Node::Virtual));
                return Ok(());
            }
            _ => return Err(Failure::NotMounted),
        };
        let mut made = false;
        let mut tries = 0;
        loop {
            match component::open(self.dir()?, &name, STEP, Mode::empty()) {
                Ok(fd) => {
                    let writable = writable && !self.guarded(mount, fd.as_fd())?;
                    self.trail.push((name, Node::Dir { fd: Fd::Own(fd), mount, writable }));
                    return Ok(());
                }
                Err(Errno::NOENT) if self.create && writable && !made => {
                    made = true;
                    match rustix::fs::mkdirat(self.dir()?, &name, Mode::from_raw_mode(0o777)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(Errno::NOENT) if above => {
                    self.trail.push((name, Node::Virtual));
                    return Ok(());
                }
                Err(Errno::NOENT) if self.create && !writable => return Err(Errno::ROFS.into()),
                Err(error) if may_be_link(error) => {
                    // Neither a directory a moment ago, nor a link now: whoever swaps them gets some tries.
                    tries += 1;
                    match self.follow(&name) {
                        Ok(true) => return Ok(()),
                        Ok(false) if tries > MAX_SWAPS => return Err(Errno::NOTDIR.into()),
                        Ok(false) => {}
                        Err(error) => return Err(error),
                    }
                }
                Err(error) => {
                    // Where a name is missing, it is still to go.
                    self.rest.push_front(name);
                    return Err(error.into());
                }
            }
        }
    }

    /// Whether it is a symbolic link; its target is then next to go.
    fn follow(&mut self, name: &OsStr) -> Result<bool, Failure> {
        let target = match rustix::fs::readlinkat(self.dir()?, name, Vec::new()) {
            Ok(target) => OsString::from_vec(target.into_bytes()),
            Err(Errno::INVAL) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if self.links == Links::Refuse {
            return Err(Failure::Link);
        }
        self.followed += 1;
        if self.followed > MAX_LINKS {
            return Err(Failure::Endless);
        }
        self.go_first(&target)?;
        Ok(true)
    }

    /// What is mounted at a name in this directory.
    fn at(&self, name: &OsStr) -> At {
        self.view.at(&self.names().chain([name]))
    }

    fn names(&self) -> impl Iterator<Item = &OsStr> + Clone {
        self.trail.iter().map(|(name, _)| name.as_os_str())
    }

    fn node(&self) -> Option<&Node<'v>> {
        self.trail.last().map(|(_, node)| node)
    }
}

impl View {
    fn root(&self, index: usize) -> Result<Node<'_>, Failure> {
        match self.mounts.get(index) {
            Some(Held { root: Source::Dir(dir), writable, .. }) => {
                Ok(Node::Dir { fd: Fd::Held(dir.as_fd()), mount: index, writable: *writable })
            }
            _ => Err(Errno::NOTDIR.into()),
        }
    }
}

/// Opens a regular file to read, and nothing else: opening a device may do something already.
pub(super) fn open_regular(dir: BorrowedFd<'_>, name: &OsStr) -> Result<(OwnedFd, Stat), Failure> {
    let seen = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(seen.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Errno::ISDIR.into()),
        FileType::Symlink => return Err(Failure::Link),
        _ => return Err(Errno::NXIO.into()),
    }
    // Should it be a pipe by now, it must not hang the one who opens it.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = component::open(dir, name, flags, Mode::empty())
        .map_err(|error| if error == Errno::LOOP { Failure::Link } else { error.into() })?;
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
        Ok((file, stat))
    } else {
        Err(Errno::NXIO.into())
    }
}

/// Opens what is mounted, without following a link: its path was resolved and judged before, and who may write in one
/// mount may have swapped what another one names.
fn open_source(path: &Path) -> Result<(Source, Stat), Errno> {
    let mut parts = names(path);
    let name = parts.pop().filter(|_| path.is_absolute()).ok_or(Errno::INVAL)?;
    let mut dir = rustix::fs::openat(CWD, "/", STEP, Mode::empty())?;
    for part in parts {
        dir = component::open(dir.as_fd(), plain(&part)?, STEP, Mode::empty())?;
    }
    let seen = rustix::fs::statat(&dir, plain(&name)?, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(seen.st_mode) != FileType::Directory {
        return Ok((Source::File { dir, name }, seen));
    }
    let root = component::open(dir.as_fd(), &name, STEP, Mode::empty())?;
    // Of the directory that is held, whatever has its name now.
    let stat = rustix::fs::fstat(&root)?;
    Ok((Source::Dir(root), stat))
}

fn plain(name: &OsStr) -> Result<&OsStr, Errno> {
    if name == "." || name == ".." { Err(Errno::INVAL) } else { Ok(name) }
}

fn names(path: &Path) -> Vec<OsString> {
    let parts = path.as_os_str().as_bytes().split(|&byte| byte == b'/').filter(|part| !part.is_empty());
    parts.map(|part| OsStr::from_bytes(part).to_owned()).collect()
}

fn text<N: AsRef<OsStr>>(names: impl Iterator<Item = N>) -> String {
    let mut text = String::new();
    for name in names {
        text.push('/');
        text.push_str(&name.as_ref().to_string_lossy());
    }
    if text.is_empty() { "/".into() } else { text }
}
