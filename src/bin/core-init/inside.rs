//! Inside of the sandbox: the last steps before the command, and the first process that there is.
//!
//! With namespaces this is process 1: it takes in orphans, and when the command ends, everything else does. It stays
//! outside of the filter's and Landlock's reach only as far as they are not yet in force when it starts.

use std::ffi::CString;
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

/// `inside SPEC-FD REPORT-FD MEMORY PIDS NPROC PROC-FD`
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
    let line = match prepare(&spec, &in_force, proc).and_then(|()| start(&spec, &env)) {
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

fn start(spec: &Spec, env: &[String]) -> Result<Started, String> {
    let (program, args) = spec.command.split_first().ok_or("there is no command")?;
    std::env::set_current_dir(&spec.cwd).map_err(|error| format!("cannot start in {}: {error}", spec.cwd))?;
    let mut command = Command::new(program);
    command.args(args).env_clear();
    command.envs(env.iter().filter_map(|pair| pair.split_once('=')));
    let terminal = if spec.pty {
        let (master, slave) = open_terminal()?;
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
        Some((master, slave))
    } else {
        None
    };
    let child = command.spawn().map_err(|error| format!("cannot start {program}: {error}"))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("the child has no number")?;
    drop(command);
    let terminal = terminal.map(|(master, slave)| {
        drop(slave);
        relay(master)
    });
    Ok(Started { pid, terminal })
}

/// A terminal of the sandbox's own, in its own `/dev/pts`.
fn open_terminal() -> Result<(OwnedFd, OwnedFd), String> {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    let wrong = |error: Errno| format!("terminal: {error}");
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).map_err(wrong)?;
    grantpt(&master).map_err(wrong)?;
    unlockpt(&master).map_err(wrong)?;
    let name: CString = ptsname(&master, Vec::new()).map_err(wrong)?;
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let slave = rustix::fs::open(&name, flags, rustix::fs::Mode::empty()).map_err(wrong)?;
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
            while let Ok(length) = stdin.read(&mut bytes) {
                let part = bytes.get(..length).unwrap_or_default();
                if part.is_empty() || input.write_all(part).is_err() {
                    break;
                }
            }
            let _ = input.write_all(&[4]);
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
