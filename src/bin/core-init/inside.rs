//! Inside of the sandbox: the last steps before the command, and the first process that there is.
//!
//! With namespaces this is process 1: it takes in orphans, and when the command ends, everything else does. Without
//! them it splits in two, of which one is the warden (see there). It stays outside of the filter's and Landlock's reach
//! only as far as they are not yet in force when it starts.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus};

use crate::limits::InForce;
use crate::outside::{given, usage_of_children};
use crate::seccomp;
use crate::spec::{Spec, unpack};
use crate::warden;

/// `inside SPEC-FD REPORT-FD MEMORY PIDS NPROC PROC-FD [LEASE-FD]`
pub(crate) fn run(mut args: impl Iterator<Item = String>) -> Result<u8, String> {
    let mut next = || args.next().ok_or("an argument is missing");
    let told = given(&next()?)?;
    let mut report = File::from(given(&next()?)?);
    let (memory, pids, nproc) = (next()?, next()?, next()?);
    let proc = given(&next()?)?;
    let words = ["cgroup-v2", "cgroup-v1", "rlimit-data", "rlimit-nproc", "pid-max"];
    let known = |word: &str| words.into_iter().find(|known| *known == word);
    let in_force = InForce {
        memory: known(&memory).ok_or("no limit of memory")?,
        pids: known(&pids).ok_or("no limit of processes")?,
        nproc: nproc.parse().map_err(|_| "no number of processes")?,
    };
    let mut bytes = Vec::new();
    File::from(told).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let [spec, env] = unpack(&bytes)?;
    let spec = Spec::from_args(spec)?;
    if let Some(lease) = args.next() {
        match warden::split(given(&lease)?)? {
            warden::Role::Command => {}
            warden::Role::Warden(warden) => {
                // The report ends when nobody can write it any more.
                drop((report, proc));
                return warden.watch();
            }
        }
    }
    let begin = || {
        // Opened while that is still allowed.
        let terminal = if spec.pty { Some(open_terminal()?) } else { None };
        prepare(&spec, &in_force, proc)?;
        start(&spec, &env, terminal)
    };
    let line = match begin() {
        Ok(started) => wait(&spec, started),
        Err(message) => format!("failed\t{}\n", message.replace(['\t', '\n'], " ")),
    };
    report.write_all(line.as_bytes()).map_err(|error| error.to_string())?;
    Ok(0)
}

fn prepare(spec: &Spec, in_force: &InForce, proc: OwnedFd) -> Result<(), String> {
    if in_force.pids == "pid-max" {
        crate::limits::set_pid_max(spec, &proc)?;
    }
    // The host's: nothing that comes later may have it.
    drop(proc);
    // Nobody reads this process's memory, or attaches to it, not even as the same user.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(|error| format!("dumpable: {error}"))?;
    close_inherited();
    crate::limits::set(spec, in_force)?;
    drop_capabilities()?;
    rustix::thread::set_no_new_privs(true).map_err(|error| format!("no_new_privs: {error}"))?;
    if crate::layer(crate::Layer::Landlock) {
        crate::landlock::restrict(spec)?;
    }
    if spec.bwrap.is_none() && crate::layer(crate::Layer::Seccomp) {
        let kind = seccomp::Kind { namespaces: false, host_network: spec.host_network };
        seccomp::apply(&seccomp::program(kind)?)?;
    }
    Ok(())
}

/// Root keeps them otherwise; with `no_new_privs` they do not come back. The bounding set is one more lock.
fn drop_capabilities() -> Result<(), String> {
    use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set};

    let wrong = |error: Errno| format!("capabilities: {error}");
    let none = CapabilitySet::empty();
    if capabilities(None).map_err(wrong)?.permitted == none {
        return Ok(());
    }
    for capability in CapabilitySet::all().iter() {
        // Not every kernel has every one.
        let _ = remove_capability_from_bounding_set(capability);
    }
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets).map_err(wrong)
}

/// What bubblewrap, or its caller, left open.
fn close_inherited() {
    // SAFETY: a plain system call with three numbers; it only sets flags, so that nothing but 0 to 2 outlives exec.
    unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 4_u32) };
}

struct Started {
    pid: Pid,
    /// Copies what the terminal shows to descriptor 1.
    terminal: Option<std::thread::JoinHandle<()>>,
}

/// A terminal: the side of who shows it, and that of the command.
type Terminal = (OwnedFd, OwnedFd);

fn start(spec: &Spec, env: &[String], terminal: Option<Terminal>) -> Result<Started, String> {
    let (program, args) = spec.command.split_first().ok_or("there is no command")?;
    std::env::set_current_dir(&spec.cwd).map_err(|error| format!("cannot start in {}: {error}", spec.cwd))?;
    let mut command = Command::new(program);
    command.args(args).env_clear();
    command.envs(env.iter().filter_map(|pair| pair.split_once('=')));
    // SAFETY: system calls alone.
    unsafe { command.pre_exec(usual_signals) };
    if let Some((_, slave)) = &terminal {
        let copy = || slave.try_clone().map(Stdio::from).map_err(|error| format!("terminal: {error}"));
        command.stdin(copy()?).stdout(copy()?).stderr(copy()?);
        let become_its_own = || {
            rustix::process::setsid()?;
            // SAFETY: descriptor 0 is the terminal.
            rustix::process::ioctl_tiocsctty(unsafe { std::os::fd::BorrowedFd::borrow_raw(0) })?;
            Ok(())
        };
        // SAFETY: two system calls.
        unsafe { command.pre_exec(become_its_own) };
    }
    let child = command.spawn().map_err(|error| format!("cannot start {program}: {error}"))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("the child has no number")?;
    drop(command);
    let terminal = terminal.map(|(master, slave)| {
        drop(slave);
        relay(master)
    });
    Ok(Started { pid, terminal })
}

/// No signal is blocked or ignored, whatever this process, the launcher or the gateway does with them.
fn usual_signals() -> std::io::Result<()> {
    // As the kernel takes it: handler, flags, restorer and mask. All zeros are the default.
    let usual = [0_usize; 4];
    let none = 0_u64;
    for signal in 1..=64 {
        // SAFETY: it reads `usual` and writes nothing. That SIGKILL and SIGSTOP cannot be set is no matter.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, usual.as_ptr(), 0_usize, 8_usize) };
    }
    // SAFETY: it reads the eight bytes of `none`.
    let done = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, 0_usize, 8_usize)
    };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// A terminal of the sandbox's own, in its own `/dev/pts`; without namespaces in the host's, where no other may be opened.
fn open_terminal() -> Result<Terminal, String> {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

    let wrong = |error: Errno| format!("terminal: {error}");
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).map_err(wrong)?;
    grantpt(&master).map_err(wrong)?;
    unlockpt(&master).map_err(wrong)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags).map_err(wrong)?;
    let size = rustix::termios::Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size).map_err(wrong)?;
    Ok((master, slave))
}

/// Descriptor 0 to the terminal, and the terminal to descriptor 1. The end of the input is what Ctrl-D says.
fn relay(master: OwnedFd) -> std::thread::JoinHandle<()> {
    let output = File::from(master);
    if let Ok(mut input) = output.try_clone() {
        std::thread::spawn(move || {
            let mut stdin = std::io::stdin().lock();
            let mut bytes = [0; 4096];
            let mut in_line = false;
            while let Ok(length) = stdin.read(&mut bytes) {
                let part = bytes.get(..length).unwrap_or_default();
                if part.is_empty() || input.write_all(part).is_err() {
                    break;
                }
                in_line = part.last().is_some_and(|byte| *byte != b'\n');
            }
            // In a line that was begun, the first one only hands over what is there of it.
            let _ = input.write_all(if in_line { &[4, 4] } else { &[4] });
        });
    }
    std::thread::spawn(move || {
        let mut output = output;
        let mut bytes = [0; 16384];
        // The last process to close the terminal ends it, with EIO.
        while let Ok(length) = output.read(&mut bytes) {
            let part = bytes.get(..length).unwrap_or_default();
            if part.is_empty() || rustix::io::retry_on_intr(|| write_all(part)).is_err() {
                break;
            }
        }
    })
}

fn write_all(mut bytes: &[u8]) -> rustix::io::Result<()> {
    let stdout = std::io::stdout();
    while !bytes.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(stdout.as_fd(), bytes))?;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// Waits for the command, and takes in whoever lost its parent; then ends all the rest. Gives the report.
fn wait(spec: &Spec, started: Started) -> String {
    let mut status: Option<WaitStatus> = None;
    while status.is_none() {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, ended))) if pid == started.pid => status = Some(ended),
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    if spec.bwrap.is_some() {
        // To all but process 1, which this is: nobody else is in this namespace, or can be outside of it.
        kill_all();
        while !matches!(rustix::process::wait(WaitOptions::empty()), Err(Errno::CHILD)) {}
    } else if crate::layer(crate::Layer::Landlock) {
        // Whoever still has the terminal open would keep it from ending.
        warden::end_the_others();
    }
    if let Some(terminal) = started.terminal {
        let _ = terminal.join();
    }
    let (cpu, peak) = usage_of_children();
    let number = |number: Option<i32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let (exit, signal) =
        status.map_or((None, None), |status| (status.exit_status(), status.terminating_signal()));
    format!("end\t{}\t{}\t{cpu}\t{peak}\n", number(exit), number(signal))
}

fn kill_all() {
    if rustix::process::getpid().is_init() {
        // SAFETY: as process 1 of a namespace of its own, -1 means everyone else in it.
        unsafe { libc::kill(-1, libc::SIGKILL) };
    }
}
