//! Without namespaces: who ends all processes of a command, in one step and whatever becomes of the launcher.
//!
//! The warden and everything that comes from it are a Landlock domain of their own, and no signal leaves it. So
//! `kill(-1)`, which a process cannot run away from by forking, reaches them all and nobody else. The command is in a
//! domain within that one: it can neither signal the warden nor outlive it.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, pidfd_open};

/// Which of the two this process has become.
pub(crate) enum Role {
    /// To begin the command.
    Command,
    /// To [`Warden::watch`].
    Warden(Warden),
}

pub(crate) struct Warden {
    child: Pid,
    lease: OwnedFd,
}

/// Makes two processes of this one. The lease is readable when the launcher wants the end, or is gone itself.
pub(crate) fn split(lease: OwnedFd) -> Result<Role, String> {
    let wrong = |what: &str, error: Errno| format!("{what}: {error}");
    // The launcher's terminal must not be this one's, and what its group is told is not for the command.
    rustix::process::setsid().map_err(|error| wrong("setsid", error))?;
    crate::landlock::keep_signals_in()?;
    // Of the same user, so that nothing but Landlock can be what refuses it.
    let launcher = rustix::process::getppid().ok_or("the launcher is gone already")?;
    if rustix::process::test_kill_process(launcher) != Err(Errno::PERM) {
        return Err("Landlock: signals are not kept in".to_owned());
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| wrong("subreaper", error))?;
    let own = rustix::process::getpid();
    // SAFETY: this process has one thread; the child goes on as if it were this one.
    let child = match unsafe { libc::fork() } {
        -1 => return Err(format!("fork: {}", std::io::Error::last_os_error())),
        0 => {
            drop(lease);
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
                .map_err(|error| wrong("death signal", error))?;
            if rustix::process::getppid() != Some(own) {
                return Err("the warden is gone already".to_owned());
            }
            return Ok(Role::Command);
        }
        child => Pid::from_raw(child).ok_or("fork: no number")?,
    };
    // From here on the lease tells of the launcher's end.
    let cleared = rustix::process::set_parent_process_death_signal(None);
    cleared.map_err(|error| wrong("death signal", error))?;
    Ok(Role::Warden(Warden { child, lease }))
}

impl Warden {
    /// Waits for the end of the command or of the lease, ends everything, and ends as the child did.
    pub(crate) fn watch(self) -> Result<u8, String> {
        let child = pidfd_open(self.child, PidfdFlags::empty()).map_err(|error| format!("pidfd: {error}"))?;
        let mut watched = [child.as_fd(), self.lease.as_fd()]
            .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN));
        while let Err(Errno::INTR) = poll(&mut watched, None) {}
        let mut status: Option<WaitStatus> = None;
        loop {
            // SAFETY: a plain call. `split` has seen that signals do not leave this domain.
            unsafe { libc::kill(-1, libc::SIGKILL) };
            match rustix::process::wait(WaitOptions::empty()) {
                Ok(Some((pid, ended))) if pid == self.child => status = Some(ended),
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        if status.is_some_and(WaitStatus::signaled) {
            // SAFETY: a plain call, to this process alone.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
        Ok(status
            .and_then(WaitStatus::exit_status)
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(crate::FAILED))
    }
}

/// Ends all other processes of the command's own domain. Only for who is in one: see [`split`].
pub(crate) fn end_the_others() {
    // SAFETY: a plain call, made only after `split` has given the command's part.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}
