//! Landlock: which files a command may open, whatever it sees. The second fence around the mounts of a sandbox, and
//! the first where there are no namespaces.

use std::os::fd::OwnedFd;

use ::landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::fs::{FileType, Mode, OFlags};

use crate::spec::{INIT_INSIDE, Spec};

/// The newest rules that are asked for; an older kernel gets those that it knows.
const NEWEST: ABI = ABI::V6;

/// The system, read-only in every sandbox.
const SYSTEM: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc"];

/// Without namespaces `/etc` is the host's own, and only this much of it is shown.
const ETC: [&str; 14] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ssl/certs",
    "/etc/ca-certificates",
    "/etc/pki",
    "/etc/alternatives",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/services",
    "/etc/protocols",
];

/// From here on no signal of this process, or of what it becomes, reaches anybody else. Linux 6.12, or an error.
pub(crate) fn keep_signals_in() -> Result<(), String> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .scope(Scope::Signal)
        .and_then(Ruleset::create)
        .and_then(RulesetCreated::restrict_self)
        .map(drop)
        .map_err(|error| format!("Landlock: {error}"))
}

/// Restricts this process, and everything it becomes. Gives what is in force.
///
/// Without namespaces an old kernel will not do: signals to other processes (Linux 6.12) are then what nothing else
/// keeps in.
pub(crate) fn restrict(spec: &Spec) -> Result<&'static str, String> {
    let namespaces = spec.bwrap.is_some();
    let wrong = |error: &dyn std::fmt::Display| format!("Landlock: {error}");
    let all = AccessFs::from_all(NEWEST);
    let read = AccessFs::from_read(NEWEST);
    let level = if namespaces { CompatLevel::BestEffort } else { CompatLevel::HardRequirement };
    let mut ruleset = Ruleset::default().set_compatibility(level);
    ruleset = ruleset
        .handle_access(all)
        .and_then(|ruleset| ruleset.scope(Scope::from_all(NEWEST)))
        .map_err(|error| wrong(&error))?;
    if !namespaces && !spec.host_network {
        ruleset = ruleset.handle_access(AccessNet::from_all(NEWEST)).map_err(|error| wrong(&error))?;
    }
    let mut ruleset =
        ruleset.create().map_err(|error| wrong(&error))?.set_compatibility(CompatLevel::BestEffort);
    let device: BitFlags<AccessFs> =
        AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile | AccessFs::IoctlDev;
    // Nobody makes devices.
    let write = all & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    if namespaces {
        for path in SYSTEM {
            ruleset = allow(ruleset, path, read)?;
        }
        // Names alone: `ls /` is the first thing anybody types.
        ruleset = allow(ruleset, "/", AccessFs::ReadDir.into())?;
        ruleset = allow(ruleset, "/run", AccessFs::ReadDir.into())?;
        ruleset = allow(ruleset, INIT_INSIDE, AccessFs::ReadFile | AccessFs::Execute)?;
        ruleset = allow(ruleset, "/proc", AccessFs::ReadFile | AccessFs::ReadDir)?;
        ruleset = allow(ruleset, "/dev", device)?;
        ruleset = allow(ruleset, "/dev/shm", write)?;
        ruleset = allow(ruleset, "/tmp", write)?;
        if let Some(dir) = &spec.empty_dir {
            ruleset = allow(ruleset, dir, read)?;
        }
        for bind in &spec.binds {
            ruleset = allow_bind(ruleset, &bind.mount, if bind.write { write } else { read })?;
        }
    } else {
        for path in SYSTEM.iter().filter(|path| **path != "/etc").chain(&ETC) {
            ruleset = allow(ruleset, path, read)?;
        }
        // `/proc` is the host's: of it, only what names no process but the one that looks.
        for path in ["/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/version", "/proc/filesystems"] {
            ruleset = allow(ruleset, path, AccessFs::ReadFile.into())?;
        }
        for path in [
            "/dev/null",
            "/dev/zero",
            "/dev/full",
            "/dev/random",
            "/dev/urandom",
            // The command's own, if it has one: it is in a session of its own.
            "/dev/tty",
        ] {
            ruleset = allow(ruleset, path, device)?;
        }
        // Names alone, by which `tty` finds its own: the others are the user's other terminals. That also keeps commands
        // from making terminals: theirs would be among those.
        ruleset = allow(ruleset, "/dev/pts", AccessFs::ReadDir.into())?;
        if let Some(dir) = &spec.private_tmp {
            ruleset = allow(ruleset, dir, write)?;
        }
        for bind in &spec.binds {
            ruleset = allow_bind(ruleset, &bind.host, if bind.write { write } else { read })?;
        }
        let own = std::env::current_exe().map_err(|error| wrong(&error))?;
        ruleset = allow(ruleset, &own.to_string_lossy(), AccessFs::ReadFile | AccessFs::Execute)?;
    }
    let status = ruleset.restrict_self().map_err(|error| wrong(&error))?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => "full",
        RulesetStatus::PartiallyEnforced => "partial",
        RulesetStatus::NotEnforced => "none",
    })
}

/// What cannot be opened needs no rule: without one it is refused.
///
/// By descriptors that only stand for the file: what the crate opens itself it opens to read, as the standard library for
/// musl leaves `O_PATH` out; that fails for `/dev/tty`, and for what may be written but not read.
fn allow(ruleset: RulesetCreated, path: &str, access: BitFlags<AccessFs>) -> Result<RulesetCreated, String> {
    match rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => allow_file(ruleset, path, &file, access),
        Err(_) => Ok(ruleset),
    }
}

/// The same for what the policy names, on the way to which another command may have put a link in the meantime.
fn allow_bind(
    ruleset: RulesetCreated,
    path: &str,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, String> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let wrong = |error| format!("Landlock: {path}: {error}");
    let mut at = rustix::fs::open("/", flags, Mode::empty()).map_err(wrong)?;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        at = rustix::fs::openat(&at, part, flags, Mode::empty()).map_err(wrong)?;
        if kind_of(&at)? == FileType::Symlink {
            return Err(format!("{path} leads through a symbolic link"));
        }
    }
    allow_file(ruleset, path, &at, access)
}

fn allow_file(
    ruleset: RulesetCreated,
    path: &str,
    file: &OwnedFd,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, String> {
    // A file takes only the rights that files have.
    let folder = kind_of(file)? == FileType::Directory;
    let access = if folder { access } else { access & AccessFs::from_file(NEWEST) };
    ruleset.add_rule(PathBeneath::new(file, access)).map_err(|error| format!("Landlock: {path}: {error}"))
}

fn kind_of(file: &OwnedFd) -> Result<FileType, String> {
    let stat = rustix::fs::fstat(file).map_err(|error| format!("Landlock: {error}"))?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}
