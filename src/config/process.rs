//! What can be known of the process that owns a lock file.

/// When a process began, in the measure that stock OpenClaw records: clock ticks since boot. Linux only; elsewhere
/// stock runs a program to learn it, and without it a process id stands alone.
#[cfg(target_os = "linux")]
pub(super) fn start_time(pid: u32) -> Option<u64> {
    stat(pid)?.start_time
}

#[cfg(not(target_os = "linux"))]
pub(super) const fn start_time(_pid: u32) -> Option<u64> {
    None
}

/// `false` only if there surely is no such process.
#[cfg(unix)]
pub(super) fn may_be_alive(pid: u32) -> bool {
    let Some(id) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return false };
    if rustix::process::test_kill_process(id) == Err(rustix::io::Errno::SRCH) {
        return false;
    }
    #[cfg(target_os = "linux")]
    if stat(pid).is_some_and(|stat| stat.zombie) {
        return false;
    }
    true
}

/// Nothing is sure here: a lock file of a dead stock process is left to stock, which can ask the system.
#[cfg(not(unix))]
pub(super) const fn may_be_alive(_pid: u32) -> bool {
    true
}

/// Which running kernel this is: locks on descriptors hold among its processes, and not beyond (a virtual machine and
/// its host, two clients of a network file system).
pub(super) fn kernel() -> String {
    #[cfg(target_os = "linux")]
    if let Ok(boot) = std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        return boot.trim().to_owned();
    }
    std::env::consts::OS.to_owned()
}

#[cfg(target_os = "linux")]
struct Stat {
    /// Dead, and only waited for; not a main thread that ended before its siblings.
    zombie: bool,
    start_time: Option<u64>,
}

#[cfg(target_os = "linux")]
fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, parentheses included; what follows is plain.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        zombie: fields.first() == Some(&"Z") && fields.get(17) == Some(&"1"),
        start_time: fields.get(19).and_then(|ticks| ticks.parse().ok()),
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_has_a_start_time() {
        let me = std::process::id();
        assert!(may_be_alive(me) && start_time(me).is_some());
    }

    #[test]
    fn a_process_that_ended_is_dead_even_before_it_is_waited_for() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while may_be_alive(pid) {
            assert!(std::time::Instant::now() < deadline, "a zombie still counts as alive");
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!may_be_alive(pid));
        assert!(!may_be_alive(0) && !may_be_alive(u32::MAX));
    }
}
