//! Mounts within a folder that the command may write, made before bubblewrap starts.
//!
//! bubblewrap finds and makes mount points by their names. In a folder that a command may write, another command of the
//! same sandbox can put a link there between any two steps of it, and the host's tree is where such a link leads while
//! bubblewrap sets up. So these mounts are made here, in namespaces of this process's own, by descriptors alone: each
//! name is looked up in the folder that was opened before it, and never followed. bubblewrap then binds the whole tree.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::outside::open_source;
use crate::spec::{Bind, Spec};

/// Which mounts of a spec are made here: those within one that may be written.
pub(crate) fn staged(spec: &Spec) -> Vec<bool> {
    let within = |inner: &Bind, outer: &Bind| {
        inner.mount.strip_prefix(&outer.mount).is_some_and(|rest| rest.starts_with('/'))
    };
    spec.binds
        .iter()
        .map(|inner| spec.binds.iter().any(|outer| outer.write && within(inner, outer)))
        .collect()
}

/// Whether this machine lets it be done. Where not, bubblewrap does it.
pub(crate) fn possible() -> bool {
    // SAFETY: no descriptor of that number, and no memory is read: only whether the call is there.
    let answer = unsafe { libc::syscall(libc::SYS_mount_setattr, -1, 0, 0, 0, 0) };
    let known = answer != -1 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS);
    // There bubblewrap has a profile by which it may, and nobody else has.
    let setting = std::fs::read_to_string("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    known && setting.map_or(true, |setting| setting.trim() != "1")
}

/// What became of it.
pub(crate) enum Outcome {
    Done,
    /// This process may have no namespaces of its own: bubblewrap is to do it.
    NotAllowed,
}

/// Makes them, in namespaces of this process, which has one thread. `sources` are then the descriptors of the other
/// mounts in those namespaces.
pub(crate) fn stage(spec: &Spec, staged: &[bool], sources: &[RawFd]) -> Result<Outcome, String> {
    let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    // SAFETY: nobody else shares what becomes separate here.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) } == -1 {
        return Ok(Outcome::NotAllowed);
    }
    let put = |file: &str, text: String| {
        let path = format!("/proc/self/{file}");
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| format!("{path}: {error}"))
    };
    put("setgroups", "deny".to_owned())?;
    put("uid_map", format!("{user} {user} 1"))?;
    put("gid_map", format!("{group} {group} 1"))?;
    let mut inner: Vec<&Bind> = Vec::new();
    for ((bind, staged), descriptor) in spec.binds.iter().zip(staged).zip(sources) {
        if *staged {
            inner.push(bind);
            continue;
        }
        let here = open_source(bind)?;
        // SAFETY: the number is that of a descriptor of this process, which takes the place of what it was.
        if unsafe { libc::dup2(here.as_raw_fd(), *descriptor) } == -1 {
            return Err(format!("{}: {}", bind.host, std::io::Error::last_os_error()));
        }
    }
    inner.sort_by_key(|bind| bind.mount.matches('/').count());
    for bind in inner {
        let outer = spec
            .binds
            .iter()
            .zip(staged)
            .filter(|(outer, staged)| !**staged && bind.mount.starts_with(&format!("{}/", outer.mount)))
            .map(|(outer, _)| outer)
            .max_by_key(|outer| outer.mount.len())
            .ok_or_else(|| format!("{}: nothing is mounted around it", bind.mount))?;
        let source = open_source(bind)?;
        let folder = is_folder(&source)?;
        let rest = bind.mount.get(outer.mount.len() + 1..).unwrap_or_default();
        let target = mount_point(open_source(outer)?, rest, folder, &bind.mount)?;
        let tree = clone_of(&source, bind.write).map_err(|error| format!("{}: {error}", bind.host))?;
        let by_descriptors =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&tree, "", &target, "", by_descriptors)
            .map_err(|error| format!("{}: {error}", bind.mount))?;
    }
    Ok(Outcome::Done)
}

/// The mount point, made where it is missing. A link on the way is an error.
fn mount_point(outer: OwnedFd, rest: &str, folder: bool, mount: &str) -> Result<OwnedFd, String> {
    let wrong = |error: Errno| format!("{mount}: {error}");
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut at = outer;
    let mut parts = rest.split('/').peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        let next = match rustix::fs::openat(&at, part, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                let made = if last && !folder {
                    let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                    rustix::fs::openat(&at, part, new, Mode::from_raw_mode(0o644)).map(drop)
                } else {
                    rustix::fs::mkdirat(&at, part, Mode::from_raw_mode(0o755))
                };
                match made {
                    Ok(()) | Err(Errno::EXIST) => rustix::fs::openat(&at, part, flags, Mode::empty()),
                    Err(error) => Err(error),
                }
            }
            outcome => outcome,
        };
        at = next.map_err(wrong)?;
        let stat = rustix::fs::fstat(&at).map_err(wrong)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => return Err(format!("{mount} leads through a symbolic link")),
            FileType::Directory if !last || folder => {}
            _ if last && !folder => {}
            _ => return Err(wrong(Errno::NOTDIR)),
        }
    }
    if !folder && is_folder(&at)? {
        return Err(wrong(Errno::ISDIR));
    }
    Ok(at)
}

fn is_folder(file: &OwnedFd) -> Result<bool, String> {
    let stat = rustix::fs::fstat(file).map_err(|error| error.to_string())?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// A mount of the same tree, with what is mounted in it.
fn clone_of(source: &OwnedFd, write: bool) -> Result<OwnedFd, String> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(source, "", flags).map_err(|error| format!("open_tree: {error}"))?;
    if !write {
        let attributes =
            libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
        // SAFETY: an empty text, and a structure of the length that is given.
        let done = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                tree.as_fd().as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
                &raw const attributes,
                size_of::<libc::mount_attr>(),
            )
        };
        if done == -1 {
            return Err(format!("mount_setattr: {}", std::io::Error::last_os_error()));
        }
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_within_a_writable_mount_is_staged() {
        let bind = |mount: &str, write| Bind { host: "/h".into(), mount: mount.into(), write };
        let spec = Spec {
            binds: vec![
                bind("/workspace", true),
                bind("/workspace/skills", false),
                bind("/workspace-2", false),
                bind("/ro", false),
                bind("/ro/inner", true),
                bind("/ro/inner/deep", false),
            ],
            ..Spec::default()
        };
        assert_eq!(staged(&spec), [false, true, false, false, false, true]);
    }

    #[test]
    fn a_mount_point_is_made_but_no_link_is_followed() {
        let dir = std::env::temp_dir().join(format!("core-init-staging-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(dir.join("elsewhere"), dir.join("link")).unwrap();
        let at =
            |rest: &str, folder| mount_point(std::fs::File::open(&dir).unwrap().into(), rest, folder, rest);
        let outcomes =
            [at("a/b", true), at("a/file", false), at("a/file/x", true), at("a", false)].map(|it| it.is_ok());
        let links = ["link", "link/inner"].map(|rest| at(rest, true).unwrap_err());
        let left = std::fs::read_dir(dir.join("elsewhere")).unwrap().count();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(outcomes, [true, true, false, false]);
        assert!(links.iter().all(|error| error.contains("symbolic link")), "{links:?}");
        assert_eq!(left, 0);
    }
}
