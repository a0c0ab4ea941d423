//! Bounds of memory and processes: control groups where there are any to be had, limits of the process otherwise.
//!
//! | | first | else | else |
//! |---|---|---|---|
//! | processes | cgroup v2, v1 | `RLIMIT_NPROC`, which a user namespace counts for itself | as root, whom that does not bind: `kernel.pid_max` of the PID namespace (Linux 6.14, never under 301), or it is refused |
//! | memory | cgroup v2, v1 | `RLIMIT_DATA`, of each process | |
//!
//! `RLIMIT_AS` is none of them: Node reserves far more addresses than it uses.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::spec::Spec;

/// How its groups are called, before the id of the process that keeps them.
const PREFIX: &str = "openclaw-core-";

const NO_LIMIT: &str = "no limit on processes: root has no cgroup to make, RLIMIT_NPROC does not bind root, and \
                        kernel.pid_max is the host's";

/// The least that the kernel takes for `kernel.pid_max`.
const LEAST_PID_MAX: u64 = 301;

/// Sets `kernel.pid_max` of this PID namespace, of which this is process 1. `proc` is any `/proc` that can be written:
/// which namespace's number it shows depends on who looks.
pub(crate) fn set_pid_max(spec: &Spec, proc: &std::os::fd::OwnedFd) -> Result<(), String> {
    use std::io::{Read, Write};

    use rustix::fs::{Mode, OFlags, openat};

    let path = "sys/kernel/pid_max";
    let open = |flags| openat(proc, path, flags | OFlags::CLOEXEC, Mode::empty()).map(File::from);
    let wanted = spec.pids.max(LEAST_PID_MAX);
    // In an older kernel it is the host's, which nobody here may write.
    let set = || -> std::io::Result<bool> {
        open(OFlags::WRONLY)?.write_all(wanted.to_string().as_bytes())?;
        let mut now = String::new();
        open(OFlags::RDONLY)?.read_to_string(&mut now)?;
        Ok(now.trim() == wanted.to_string())
    };
    if namespaced_pid_max() && set().unwrap_or(false) { Ok(()) } else { Err(NO_LIMIT.to_owned()) }
}

/// Whether each PID namespace has a number of its own: since Linux 6.14.
fn namespaced_pid_max() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 14)
}

/// What bounds a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InForce {
    /// `cgroup-v2`, `cgroup-v1` or `rlimit-data`.
    pub memory: &'static str,
    /// `cgroup-v2`, `cgroup-v1`, `rlimit-nproc` or `pid-max`.
    pub pids: &'static str,
    /// What `RLIMIT_NPROC` is set to.
    pub nproc: u64,
}

/// The groups of one command.
#[derive(Debug)]
pub(crate) struct Groups {
    /// Newest version first; each with its version.
    dirs: Vec<(PathBuf, u8)>,
    /// What bounds the command.
    pub in_force: InForce,
}

impl Groups {
    /// Makes them. An error if nothing would bound the number of processes.
    pub(crate) fn create(spec: &Spec) -> Result<Self, String> {
        let mut groups = Self {
            dirs: Vec::new(),
            in_force: InForce { memory: "rlimit-data", pids: "rlimit-nproc", nproc: spec.pids },
        };
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        if !groups.unified(spec, &mounts, &own) {
            groups.separate(spec, &mounts, &own);
        }
        if groups.in_force.pids == "rlimit-nproc" {
            if rustix::process::getuid().is_root() {
                if spec.bwrap.is_none() {
                    groups.destroy();
                    return Err(NO_LIMIT.to_owned());
                }
                groups.in_force.pids = "pid-max";
            } else if spec.bwrap.is_none() {
                // Without a namespace of their own, all processes of the user count.
                groups.in_force.nproc = spec.pids + tasks_of_this_user();
            }
        }
        Ok(groups)
    }

    /// cgroup v2: both controllers, in a group below this process's own or beside it.
    fn unified(&mut self, spec: &Spec, mounts: &str, own: &str) -> bool {
        let Some(at) = own_group(mounts, own, "cgroup2", "") else { return false };
        for parent in [Some(at.as_path()), at.parent()].into_iter().flatten() {
            if !controllers(parent, "cgroup.subtree_control") {
                continue;
            }
            let Some(dir) = make(parent) else { continue };
            let bounded =
                put(&dir, "pids.max", spec.pids).and_then(|()| put(&dir, "memory.max", spec.memory));
            if bounded.is_err() {
                let _ = std::fs::remove_dir(&dir);
                continue;
            }
            let _ = put(&dir, "memory.swap.max", 0);
            self.dirs.push((dir, 2));
            self.in_force = InForce { memory: "cgroup-v2", pids: "cgroup-v2", ..self.in_force.clone() };
            return true;
        }
        false
    }

    /// cgroup v1: a group for each controller.
    fn separate(&mut self, spec: &Spec, mounts: &str, own: &str) {
        if let Some(dir) = own_group(mounts, own, "cgroup", "pids").and_then(|parent| make(&parent)) {
            if put(&dir, "pids.max", spec.pids).is_ok() {
                self.in_force.pids = "cgroup-v1";
            }
            self.dirs.push((dir, 1));
        }
        if let Some(dir) = own_group(mounts, own, "cgroup", "memory").and_then(|parent| make(&parent)) {
            if put(&dir, "memory.limit_in_bytes", spec.memory).is_ok() {
                self.in_force.memory = "cgroup-v1";
                let _ = put(&dir, "memory.memsw.limit_in_bytes", spec.memory);
            }
            self.dirs.push((dir, 1));
        }
    }

    /// What to write "0" to, for a process that joins.
    pub(crate) fn doors(&self) -> Result<Vec<File>, String> {
        self.dirs
            .iter()
            .map(|(dir, version)| {
                // A thread that moves itself takes no lock; a process waits for all processors, often for 10 ms and more.
                // Who joins has one thread. Version 2 has no such file for groups of their own.
                let path = dir.join(if *version == 1 { "tasks" } else { "cgroup.procs" });
                OpenOptions::new()
                    .write(true)
                    .open(&path)
                    .map_err(|error| format!("{}: {error}", path.display()))
            })
            .collect()
    }

    /// The most memory that the command had, if a group counts it.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        self.dirs.iter().find_map(|(dir, version)| {
            let name = if *version == 2 { "memory.peak" } else { "memory.max_usage_in_bytes" };
            std::fs::read_to_string(dir.join(name)).ok()?.trim().parse().ok()
        })
    }

    /// No process of the command may start another one.
    pub(crate) fn freeze_number(&self) {
        for (dir, _) in &self.dirs {
            let _ = put(dir, "pids.max", 0);
        }
    }

    /// Kills what is left in them, where the kernel can.
    pub(crate) fn kill(&self) {
        for (dir, _) in &self.dirs {
            let _ = put(dir, "cgroup.kill", 1);
        }
    }

    /// Takes them away. A group lives a moment longer than its last process.
    pub(crate) fn destroy(&mut self) {
        for (dir, _) in self.dirs.drain(..) {
            for _ in 0..200 {
                match std::fs::remove_dir(&dir) {
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                        std::thread::sleep(std::time::Duration::from_millis(1));
                    }
                    _ => break,
                }
            }
        }
    }
}

/// Limits of this process and all that it becomes.
pub(crate) fn set(spec: &Spec, in_force: &InForce) -> Result<(), String> {
    let bound = |resource, value| {
        setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
            .map_err(|error| format!("{resource:?}: {error}"))
    };
    // A core file would be the command's memory on the host's disk.
    bound(Resource::Core, 0)?;
    bound(Resource::Fsize, spec.file)?;
    if spec.cpu > 0 {
        bound(Resource::Cpu, spec.cpu)?;
    }
    if in_force.memory == "rlimit-data" {
        bound(Resource::Data, spec.memory)?;
    }
    if in_force.pids == "rlimit-nproc" {
        bound(Resource::Nproc, in_force.nproc)?;
    }
    Ok(())
}

fn put(dir: &Path, file: &str, value: u64) -> std::io::Result<()> {
    std::fs::write(dir.join(file), value.to_string())
}

fn controllers(dir: &Path, file: &str) -> bool {
    let text = std::fs::read_to_string(dir.join(file)).unwrap_or_default();
    ["pids", "memory"].iter().all(|wanted| text.split_whitespace().any(|word| word == *wanted))
}

/// Makes a group named after this process, and takes away those of processes that died before they could.
fn make(parent: &Path) -> Option<PathBuf> {
    if let Ok(entries) = std::fs::read_dir(parent) {
        for entry in entries.flatten() {
            let name = entry.file_name();
            let keeper = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            if let Some(keeper) = keeper.filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()))
                && !Path::new("/proc").join(keeper).exists()
            {
                let _ = std::fs::remove_dir(entry.path());
            }
        }
    }
    let dir = parent.join(format!("{PREFIX}{}", std::process::id()));
    match std::fs::create_dir(&dir) {
        Ok(()) => Some(dir),
        // Left by a process of the same number.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            std::fs::remove_dir(&dir).and_then(|()| std::fs::create_dir(&dir)).ok().map(|()| dir)
        }
        Err(_) => None,
    }
}

/// The folder of this process's own group, of a hierarchy with this controller; none is named for v2.
fn own_group(mounts: &str, own: &str, kind: &str, controller: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (names, path) = (parts.next()?, parts.next()?);
        names.split(',').any(|name| name == controller).then_some(path)
    })?;
    mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut filesystem = filesystem.split(' ');
        if filesystem.next()? != kind {
            return None;
        }
        let options = filesystem.nth(1)?;
        if !controller.is_empty() && !options.split(',').any(|option| option == controller) {
            return None;
        }
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        let inner = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
        let at = Path::new(point).join(inner.strip_prefix("/").unwrap_or(inner));
        at.is_dir().then_some(at)
    })
}

/// Threads of this user's processes.
fn tasks_of_this_user() -> u64 {
    use std::os::unix::fs::MetadataExt;

    let user = rustix::process::getuid().as_raw();
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    entries
        .flatten()
        .filter(|entry| {
            entry.file_name().to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        })
        .filter(|entry| entry.metadata().is_ok_and(|metadata| metadata.uid() == user))
        .map(|entry| std::fs::read_dir(entry.path().join("task")).map_or(1, |tasks| tasks.count() as u64))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_controller() {
        let temp = std::env::temp_dir();
        let point = temp.display().to_string();
        let mounts = format!(
            "30 20 0:26 / {point} rw,relatime - cgroup cgroup rw,pids\n31 20 0:27 /docker/x {point} rw - cgroup2 cgroup2 rw\n"
        );
        let own = "8:pids:/\n4:memory:/gone\n0::/docker/x\n";
        assert_eq!(own_group(&mounts, own, "cgroup", "pids"), Some(temp.clone()));
        assert_eq!(own_group(&mounts, own, "cgroup", "memory"), None);
        assert_eq!(own_group(&mounts, own, "cgroup2", ""), Some(temp));
    }
}
