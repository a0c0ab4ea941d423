//! Outside of the sandbox: bounds the command, starts it, watches over it, and kills what is left of it.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags, ResolveFlags, memfd_create, openat2};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open};

use crate::bwrap::{Descriptors, arguments};
use crate::limits::Groups;
use crate::seccomp;
use crate::spec::{Bind, ENV_VARIABLE, Spec, env_from_text, pack, unpack};
use crate::staging;

/// The most that a core may say: arguments and environment together.
const MOST_TOLD: usize = 64 << 20;

/// Who waits for the command, and hears of its end.
enum Owner {
    /// The core, at the other end of a socket.
    Core(File),
    /// A supervisor of somebody's: the parent process, and this process's exit code.
    Parent(OwnedFd),
}

/// Told what to do through descriptor 0.
pub(crate) fn controlled() -> Result<u8, String> {
    let control = own_descriptor(0)?;
    close_the_rest()?;
    let (told, stdin) = listen(&control)?;
    rustix::stdio::dup2_stdin(&stdin).map_err(|error| error.to_string())?;
    drop(stdin);
    let [args, env] = unpack(&told)?;
    let mut control = File::from(control);
    let mut said = control.try_clone().map_err(text)?;
    let tell = |end: &End| {
        // What is left to clear away nobody has to wait for: neither for the word, nor for the output to end.
        if let Ok(null) = File::options().write(true).open("/dev/null") {
            let _ = rustix::stdio::dup2_stdout(&null);
            let _ = rustix::stdio::dup2_stderr(&null);
        }
        // Nobody there any more is nobody to tell.
        let _ = said.write_all(end.to_line().as_bytes());
    };
    let owner = Owner::Core(control.try_clone().map_err(text)?);
    let outcome = Spec::from_args(args).and_then(|spec| supervise(&spec, &env, &owner, tell));
    if let Err(message) = outcome {
        let _ = control.write_all(format!("failed\t{}\n", message.replace(['\t', '\n'], " ")).as_bytes());
    }
    Ok(0)
}

/// Told what to do by its arguments and one variable.
pub(crate) fn run(args: impl Iterator<Item = String>) -> Result<u8, String> {
    let parent = rustix::process::getppid().ok_or("the parent is gone already")?;
    let watched = pidfd_open(parent, PidfdFlags::empty()).map_err(|error| format!("the parent: {error}"))?;
    if rustix::process::getppid() != Some(parent) {
        return Err("the parent is gone already".to_owned());
    }
    close_the_rest()?;
    let env = env_from_text(&std::env::var(ENV_VARIABLE).unwrap_or_default());
    let spec = Spec::from_args(args)?;
    let end = supervise(&spec, &env, &Owner::Parent(watched), |_| ())?;
    if let Some(message) = end.failed {
        return Err(message);
    }
    // As shells have it.
    let code = end.exit.unwrap_or_else(|| 128 + end.signal.unwrap_or(0));
    Ok(u8::try_from(code & 0xFF).unwrap_or(crate::FAILED))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// A copy of a descriptor, closed on exec.
fn own_descriptor(number: RawFd) -> Result<OwnedFd, String> {
    // SAFETY: borrowed for this call alone; a descriptor that is not open is an error of `dup`.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_dupfd_cloexec(borrowed, 3).map_err(|error| format!("descriptor {number}: {error}"))
}

/// Nothing but 0, 1, 2 and what is made from here on is passed on: all other descriptors close on exec.
fn close_the_rest() -> Result<(), String> {
    // SAFETY: a plain system call with three numbers; it only sets flags.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 4_u32) };
    if done == 0 {
        return Ok(());
    }
    // Before Linux 5.11, or kept from it.
    let entries = std::fs::read_dir("/proc/self/fd").map_err(|error| format!("/proc/self/fd: {error}"))?;
    for number in entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok()) {
        if number > 2 {
            // SAFETY: borrowed for this call alone.
            let _ = fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, FdFlags::CLOEXEC);
        }
    }
    Ok(())
}

/// What the core says, and the descriptor that the command reads from.
fn listen(control: &OwnedFd) -> Result<(Vec<u8>, OwnedFd), String> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    let mut room = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut room);
    let mut length = [0; 4];
    let received = recvmsg(
        control,
        &mut [std::io::IoSliceMut::new(&mut length)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )
    .map_err(|error| format!("the core: {error}"))?;
    let stdin = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let stdin = stdin.filter(|_| received.bytes == length.len()).ok_or("the core said nothing")?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MOST_TOLD {
        return Err("the command and its environment are too long".to_owned());
    }
    let mut told = vec![0; length];
    File::from(control.try_clone().map_err(text)?).read_exact(&mut told).map_err(text)?;
    Ok((told, stdin))
}

/// How it ended.
#[derive(Debug, Default)]
struct End {
    exit: Option<i32>,
    signal: Option<i32>,
    cpu_us: u64,
    peak: u64,
    /// It never began.
    failed: Option<String>,
    /// What bounded its memory and its processes; set where the groups are known.
    bounded_by: (&'static str, &'static str),
}

impl End {
    fn to_line(&self) -> String {
        if let Some(message) = &self.failed {
            return format!("failed\t{}\n", message.replace(['\t', '\n'], " "));
        }
        let number = |number: Option<i32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let (exit, signal, (memory, pids)) = (number(self.exit), number(self.signal), self.bounded_by);
        format!("end\t{exit}\t{signal}\t{}\t{}\t{memory}\t{pids}\n", self.cpu_us, self.peak)
    }

    fn from_line(line: &str) -> Option<Self> {
        let mut fields = line.trim_end().split('\t');
        match fields.next()? {
            "failed" => Some(Self { failed: Some(fields.next()?.to_owned()), ..Self::default() }),
            "end" => Some(Self {
                exit: fields.next()?.parse().ok(),
                signal: fields.next()?.parse().ok(),
                cpu_us: fields.next()?.parse().ok()?,
                peak: fields.next()?.parse().ok()?,
                ..Self::default()
            }),
            _ => None,
        }
    }
}

/// A file in memory, which a program that is started can read.
fn memory_file(name: &str, bytes: &[u8]) -> Result<OwnedFd, String> {
    let mut file =
        File::from(memfd_create(name, MemfdFlags::CLOEXEC).map_err(|error| format!("memfd: {error}"))?);
    file.write_all(bytes).map_err(text)?;
    std::io::Seek::rewind(&mut file).map_err(text)?;
    Ok(file.into())
}

/// The host's side of a bind, by the path that was checked: whoever has put a link in its way since is found out.
pub(crate) fn open_source(bind: &Bind) -> Result<OwnedFd, String> {
    let path = CString::new(bind.host.as_str()).map_err(text)?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let no_links = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(rustix::fs::CWD, &path, flags, Mode::empty(), no_links) {
        Ok(file) => return Ok(file),
        Err(Errno::NOSYS | Errno::PERM) => {}
        Err(Errno::LOOP) => return Err(format!("{} has become a symbolic link", bind.host)),
        Err(error) => return Err(format!("{}: {error}", bind.host)),
    }
    let mut at = rustix::fs::open("/", flags, Mode::empty()).map_err(text)?;
    for part in Path::new(&bind.host).components().skip(1) {
        at = rustix::fs::openat(&at, part.as_os_str(), flags | OFlags::NOFOLLOW, Mode::empty())
            .map_err(|error| format!("{}: {error}", bind.host))?;
        let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&at).map_err(text)?.st_mode);
        if kind == rustix::fs::FileType::Symlink {
            return Err(format!("{} has become a symbolic link", bind.host));
        }
    }
    Ok(at)
}

/// A mount point in a folder that the command may write must not be a link that an earlier command has left there:
/// bubblewrap would make what is missing where it leads.
fn check_mount_points(spec: &Spec, sources: &[OwnedFd]) -> Result<(), String> {
    for inner in &spec.binds {
        for (outer, source) in spec.binds.iter().zip(sources) {
            let Some(rest) = inner.mount.strip_prefix(&outer.mount).and_then(|rest| rest.strip_prefix('/'))
            else {
                continue;
            };
            let mut at = source.try_clone().map_err(text)?;
            for part in rest.split('/') {
                let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                at = match rustix::fs::openat(&at, part, flags, Mode::empty()) {
                    Ok(next) => next,
                    Err(Errno::NOENT) => break,
                    Err(error) => return Err(format!("{}: {error}", inner.mount)),
                };
                let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&at).map_err(text)?.st_mode);
                if kind == rustix::fs::FileType::Symlink {
                    return Err(format!("{} leads through a symbolic link", inner.mount));
                }
            }
        }
    }
    Ok(())
}

/// `/etc/passwd`, `/etc/group` and `/etc/hosts`: this user, and nobody else.
fn etc_files() -> Result<[(&'static str, OwnedFd); 3], String> {
    let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let (user_name, group_name) =
        (if user == 0 { "root" } else { "sandbox" }, if group == 0 { "root" } else { "sandbox" });
    let nobody = if user == 65534 { "" } else { "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n" };
    let nogroup = if group == 65534 { "" } else { "nogroup:x:65534:\n" };
    let passwd = format!("{user_name}:x:{user}:{group}:sandbox:/tmp:/bin/sh\n{nobody}");
    let hosts = "127.0.0.1 localhost\n::1 localhost\n";
    Ok([
        ("/etc/passwd", memory_file("passwd", passwd.as_bytes())?),
        ("/etc/group", memory_file("group", format!("{group_name}:x:{group}:\n{nogroup}").as_bytes())?),
        ("/etc/hosts", memory_file("hosts", hosts.as_bytes())?),
    ])
}

/// A folder that stands for `/tmp`; gone with the command.
struct Temporary(std::path::PathBuf);

impl Temporary {
    fn make() -> Result<Self, String> {
        use std::os::unix::fs::DirBuilderExt;

        let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let name = format!("openclaw-core-{}-{:x}", std::process::id(), started.as_nanos());
        let path = std::env::temp_dir().join(name);
        // It must not be there: whoever made it could swap it.
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn supervise(spec: &Spec, env: &[String], owner: &Owner, tell: impl FnOnce(&End)) -> Result<End, String> {
    let (mut spec, mut env) = (spec.clone(), env.to_vec());
    let temporary = if spec.bwrap.is_none() { Some(Temporary::make()?) } else { None };
    if let Some(Temporary(path)) = &temporary {
        let path = path.to_str().ok_or("the temporary folder's name is no Unicode text")?;
        spec.private_tmp = Some(path.to_owned());
        for name in ["HOME", "TMPDIR"] {
            env.iter_mut()
                .filter(|pair| **pair == format!("{name}=/tmp"))
                .for_each(|pair| *pair = format!("{name}={path}"));
        }
    }
    let (spec, env) = (&spec, env.as_slice());
    let asked = signals()?;
    let mut groups = Groups::create(spec)?;
    let end = start(spec, env, &groups).and_then(|started| watch(spec, owner, &asked, &groups, started));
    let bounded_by = (groups.in_force.memory, groups.in_force.pids);
    let end = end.map(|end| End { peak: groups.peak_memory().unwrap_or(end.peak), bounded_by, ..end });
    if let Ok(end) = &end {
        tell(end);
    }
    groups.destroy();
    drop(temporary);
    end
}

/// What was started, and where it says how it ended.
struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    report: File,
    /// Without namespaces: dropped, it makes the warden end everything. The kernel drops it with this process.
    lease: Option<OwnedFd>,
}

/// What the child does before it becomes bubblewrap: see `staging`.
struct Staging {
    spec: Spec,
    staged: Vec<bool>,
    /// Of all binds.
    sources: Vec<RawFd>,
    /// What bubblewrap reads its arguments from.
    args: RawFd,
    /// Those without what is staged.
    fewer: OwnedFd,
    report: RawFd,
}

impl Staging {
    fn carry_out(&self) -> std::io::Result<()> {
        match staging::stage(&self.spec, &self.staged, &self.sources) {
            Ok(staging::Outcome::NotAllowed) => Ok(()),
            Ok(staging::Outcome::Done) => {
                // SAFETY: numbers of descriptors of this process.
                let done = unsafe { libc::dup2(self.fewer.as_raw_fd(), self.args) };
                if done == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
            }
            Err(failed) => {
                let line = End { failed: Some(failed), ..End::default() }.to_line();
                // SAFETY: it writes what `line` holds. Of an error, only its number would reach the parent.
                unsafe { libc::write(self.report, line.as_ptr().cast(), line.len()) };
                Err(std::io::ErrorKind::PermissionDenied.into())
            }
        }
    }
}

/// bubblewrap with its arguments, what is done before it, and the descriptors that it is passed.
fn bubblewrap(
    spec: &Spec,
    bwrap: &str,
    own: &File,
    sources: Vec<OwnedFd>,
    said: &OwnedFd,
) -> Result<(Command, Option<Staging>, Vec<OwnedFd>), String> {
    let filter = if crate::layer(crate::Layer::Seccomp) {
        let kind = seccomp::Kind { namespaces: true, host_network: spec.host_network };
        Some(memory_file("filter", &seccomp::bytes(&seccomp::program(kind)?))?)
    } else {
        None
    };
    let etc = etc_files()?;
    let binds: Vec<RawFd> = sources.iter().map(AsRawFd::as_raw_fd).collect();
    let descriptors = Descriptors {
        filter: filter.as_ref().map(AsRawFd::as_raw_fd),
        etc: etc.each_ref().map(|(path, file)| (*path, file.as_raw_fd())),
        binds: &binds,
        init: own.as_raw_fd(),
    };
    let told_bwrap = |spec: &Spec, descriptors: &Descriptors<'_>| {
        let mut packed = arguments(spec, descriptors).join("\0").into_bytes();
        packed.push(0);
        memory_file("args", &packed)
    };
    let args = told_bwrap(spec, &descriptors)?;
    let mut staging = None;
    let staged = staging::staged(spec);
    if staged.contains(&true) && staging::possible() {
        let left = |at: usize| staged.get(at) == Some(&false);
        let shown: Vec<_> =
            spec.binds.iter().enumerate().filter(|(at, _)| left(*at)).map(|(_, bind)| bind.clone()).collect();
        let numbers: Vec<_> =
            binds.iter().enumerate().filter(|(at, _)| left(*at)).map(|(_, number)| *number).collect();
        let shown = Spec { binds: shown, ..spec.clone() };
        let fewer = told_bwrap(&shown, &Descriptors { binds: &numbers, ..descriptors })?;
        staging = Some(Staging {
            spec: spec.clone(),
            staged,
            sources: binds.clone(),
            args: args.as_raw_fd(),
            fewer,
            report: said.as_raw_fd(),
        });
    }
    let mut command = Command::new(bwrap);
    command.args(["--args", &args.as_raw_fd().to_string(), "--", crate::spec::INIT_INSIDE]);
    let passed = sources.into_iter().chain(etc.map(|(_, file)| file)).chain(filter).chain([args]).collect();
    Ok((command, staging, passed))
}

fn start(spec: &Spec, env: &[String], groups: &Groups) -> Result<Child, String> {
    let own = File::open("/proc/self/exe").map_err(|error| format!("/proc/self/exe: {error}"))?;
    let sources = spec.binds.iter().map(open_source).collect::<Result<Vec<_>, _>>()?;
    check_mount_points(spec, &sources)?;
    let told = memory_file("spec", &pack([&spec.to_args(), env]))?;
    let (report, said) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(text)?;
    let in_force = &groups.in_force;
    let proc = rustix::fs::open("/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(text)?;
    let inside = [
        "inside".to_owned(),
        told.as_raw_fd().to_string(),
        said.as_raw_fd().to_string(),
        in_force.memory.to_owned(),
        in_force.pids.to_owned(),
        in_force.nproc.to_string(),
        proc.as_raw_fd().to_string(),
    ];
    let mut lease = None;
    let mut staging = None;
    let mut kept: Vec<OwnedFd>;
    let mut command = if let Some(bwrap) = &spec.bwrap {
        let (command, staged, passed) = bubblewrap(spec, bwrap, &own, sources, &said)?;
        staging = staged;
        kept = passed;
        kept.extend([told, said, proc]);
        command
    } else {
        kept = vec![told, said, proc];
        // By its path: what it may open later does not include `/proc/self/exe`.
        Command::new(std::env::current_exe().map_err(text)?)
    };
    command.args(inside);
    if spec.bwrap.is_none() && crate::layer(crate::Layer::Landlock) {
        let (theirs, ours) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(text)?;
        command.arg(theirs.as_raw_fd().to_string());
        kept.push(theirs);
        lease = Some(ours);
    }
    command.env_clear().stdin(Stdio::inherit());
    let pass: Vec<RawFd> = kept.iter().map(AsRawFd::as_raw_fd).chain([own.as_raw_fd()]).collect();
    let doors = groups.doors()?;
    if spec.bwrap.is_none() {
        // Orphans come here, to be found and killed.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(text)?;
    }
    let parent = rustix::process::getpid();
    let prepare = move || {
        for door in &doors {
            // SAFETY: a plain write of one byte; 0 stands for the writer.
            if unsafe { libc::write(door.as_raw_fd(), b"0".as_ptr().cast(), 1) } != 1 {
                return Err(std::io::Error::last_os_error());
            }
        }
        if let Some(staging) = &staging {
            staging.carry_out()?;
        }
        for &number in &pass {
            // SAFETY: a flag of a descriptor that is open in this child, too.
            if unsafe { libc::fcntl(number, libc::F_SETFD, 0) } == -1 {
                return Err(std::io::Error::last_os_error());
            }
        }
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != Some(parent) {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: this process has one thread, so that no lock is held in the child that nobody there would open.
    unsafe { command.pre_exec(prepare) };
    let program = command.get_program().to_string_lossy().into_owned();
    let spawned = command.spawn();
    drop((kept, command));
    let child = match spawned {
        Ok(child) => child,
        Err(error) => {
            let mut said = String::new();
            let _ = File::from(report).read_to_string(&mut said);
            let why = said.lines().find_map(End::from_line).and_then(|end| end.failed);
            return Err(why.unwrap_or_else(|| format!("cannot start {program}: {error}")));
        }
    };
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("the child has no number")?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| format!("pidfd_open: {error}"))?;
    Ok(Child { pid, pidfd, report: report.into(), lease })
}

/// Waits for the end, or makes it.
fn watch(
    spec: &Spec,
    owner: &Owner,
    asked: &OwnedFd,
    groups: &Groups,
    mut child: Child,
) -> Result<End, String> {
    let began = Instant::now();
    let gone = match owner {
        Owner::Core(control) => control.as_fd(),
        Owner::Parent(parent) => parent.as_fd(),
    };
    let killed = loop {
        let left = match spec.wall {
            0 => None,
            wall => Some(Duration::from_millis(wall).saturating_sub(began.elapsed())),
        };
        if left.is_some_and(|left| left.is_zero()) {
            break true;
        }
        let timeout = left.map(|left| rustix::event::Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        let mut watched = [child.pidfd.as_fd(), gone, asked.as_fd()]
            .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN));
        match poll(&mut watched, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(format!("poll: {error}")),
        }
        let [ended, gone, asked] = watched.map(|one| !one.revents().is_empty());
        // The core says nothing more; readable means that it is gone, as a parent is.
        if gone || asked {
            break true;
        }
        if ended {
            break false;
        }
    };
    if killed {
        groups.freeze_number();
        if child.lease.take().is_none() || !ends_within(&child.pidfd, WARDEN) {
            let _ = rustix::process::kill_process(child.pid, Signal::KILL);
        }
    }
    if spec.bwrap.is_none() {
        groups.freeze_number();
    }
    let status = rustix::process::waitpid(Some(child.pid), WaitOptions::empty())
        .map_err(|error| format!("wait: {error}"))?
        .map(|(_, status)| status)
        .ok_or("wait: no status")?;
    groups.kill();
    if spec.bwrap.is_none() {
        kill_descendants();
    }
    let mut said = String::new();
    // Whoever could write to it is dead, or about to be.
    let _ = child.report.read_to_string(&mut said);
    let usage = usage_of_children();
    let reported = said.lines().find_map(End::from_line);
    Ok(match reported {
        Some(end) if end.failed.is_some() || !killed => end,
        _ if killed => End { signal: Some(libc::SIGKILL), cpu_us: usage.0, peak: usage.1, ..End::default() },
        // Killed from outside, or out of memory.
        _ if status.signaled() => {
            End { signal: status.terminating_signal(), cpu_us: usage.0, peak: usage.1, ..End::default() }
        }
        _ => End {
            failed: Some(format!(
                "the sandbox was not set up (exit code {})",
                status.exit_status().unwrap_or(-1)
            )),
            ..End::default()
        },
    })
}

/// How long the warden may take.
const WARDEN: Duration = Duration::from_secs(1);

fn ends_within(pidfd: &OwnedFd, time: Duration) -> bool {
    let timeout = rustix::event::Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(1), tv_nsec: 0 };
    let mut watched = [PollFd::new(pidfd, PollFlags::IN)];
    matches!(poll(&mut watched, Some(&timeout)), Ok(1))
}

/// A descriptor that is readable when somebody asks this process to end. It does so when the command is gone.
fn signals() -> Result<OwnedFd, String> {
    // SAFETY: the set is filled in by the calls; the descriptor is new, and this function's own.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        let descriptor = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC);
        if descriptor < 0 {
            return Err(format!("signalfd: {}", std::io::Error::last_os_error()));
        }
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

/// Kills what has come here from the command, as long as something comes.
fn kill_descendants() {
    let deadline = Instant::now() + Duration::from_secs(5);
    let own = std::process::id();
    while Instant::now() < deadline {
        for pid in children_of(own) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        match rustix::process::waitpid(None, WaitOptions::NOHANG) {
            Err(Errno::CHILD) => return,
            Ok(None) => std::thread::sleep(Duration::from_millis(1)),
            _ => {}
        }
    }
}

/// The processes whose parent this is.
fn children_of(parent: u32) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let number = |name: &std::ffi::OsStr| name.to_str()?.parse::<i32>().ok();
    entries
        .flatten()
        .filter_map(|entry| number(&entry.file_name()))
        .filter(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // The name in parentheses may hold anything.
            let ppid =
                stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
            ppid == Some(parent)
        })
        .filter_map(Pid::from_raw)
        .collect()
}

/// CPU time in microseconds and the largest resident set in bytes, of the children that were waited for.
pub(crate) fn usage_of_children() -> (u64, u64) {
    // SAFETY: all zeros is a value of the struct, and the call fills it in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let us = |time: libc::timeval| {
        u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_usec).unwrap_or(0)
    };
    (us(usage.ru_utime) + us(usage.ru_stime), u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024)
}

/// A descriptor that this process was given by number.
pub(crate) fn given(number: &str) -> Result<OwnedFd, String> {
    let number: RawFd = number.parse().map_err(|_| "no descriptor".to_owned())?;
    if number < 3 {
        return Err("no descriptor of its own".to_owned());
    }
    // SAFETY: only this function takes the descriptors that the arguments name, and each once.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&descriptor, FdFlags::CLOEXEC).map_err(|error| format!("descriptor {number}: {error}"))?;
    Ok(descriptor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_survives_its_line() {
        let end = End { exit: Some(3), cpu_us: 4, peak: 5, ..End::default() };
        assert_eq!(format!("{:?}", End::from_line(&end.to_line()).unwrap()), format!("{end:?}"));
        let failed = End { failed: Some("no\tsuch\nfile".into()), ..End::default() };
        assert_eq!(End::from_line(&failed.to_line()).unwrap().failed.as_deref(), Some("no such file"));
        assert!(End::from_line("").is_none());
    }

    #[test]
    fn a_source_that_became_a_link_is_refused() {
        let dir = std::env::temp_dir().join(format!("core-init-test-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("real/inner")).unwrap();
        std::os::unix::fs::symlink(dir.join("real"), dir.join("link")).unwrap();
        let bind = |host: &str| Bind {
            host: dir.join(host).display().to_string(),
            mount: "/x".into(),
            write: false,
        };
        let outcomes = ["real/inner", "link", "link/inner"].map(|host| open_source(&bind(host)).is_ok());
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(outcomes, [true, false, false]);
    }
}
