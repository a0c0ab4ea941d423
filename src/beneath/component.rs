//! One name beneath a directory that is held open: what every walk is made of.

use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// A directory to go on from. `O_PATH` needs no leave to read it.
#[cfg(target_os = "linux")]
pub(crate) const STEP: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
pub(crate) const STEP: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens `name`, which is one component and not `..`, in `dir`. A symbolic link is not followed, not even one of `/proc`:
/// the kernel sees to it where it has `openat2`, and `O_NOFOLLOW` where it has not or where a filter of system calls
/// keeps it away.
pub(crate) fn open(dir: BorrowedFd<'_>, name: &OsStr, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::ResolveFlags;

        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        // A mode without creation is refused.
        let mode = if flags.contains(OFlags::CREATE) { mode } else { Mode::empty() };
        match rustix::fs::openat2(dir, name, flags, mode, beneath) {
            // The other call says whether it was the file that forbade it.
            Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => {}
            outcome => return outcome,
        }
    }
    rustix::fs::openat(dir, name, flags, mode)
}

/// What opening a link fails with; NOTDIR if a directory was asked for.
pub(crate) fn may_be_link(error: Errno) -> bool {
    matches!(error, Errno::LOOP | Errno::NOTDIR | Errno::MLINK)
}
