//! What holds in here: found out by looking and by trying, not by asking how it was meant.

use std::io::Write;

use rustix::process::{Resource, getrlimit};

/// Calls that every sandbox refuses, with arguments that the kernel would refuse otherwise: the error tells who did.
const TRIED: [(&str, libc::c_long, [usize; 3]); 9] = [
    ("ptrace", libc::SYS_ptrace, [usize::MAX, 0, 0]),
    ("process_vm_readv", libc::SYS_process_vm_readv, [1, 0, 0]),
    ("keyctl", libc::SYS_keyctl, [usize::MAX, 0, 0]),
    ("bpf", libc::SYS_bpf, [usize::MAX, 0, 0]),
    ("userfaultfd", libc::SYS_userfaultfd, [usize::MAX, 0, 0]),
    ("io_uring_setup", 425, [0, 0, 0]),
    ("mount", libc::SYS_mount, [0, 0, 0]),
    ("open_by_handle_at", libc::SYS_open_by_handle_at, [usize::MAX, 0, 0]),
    ("unshare(CLONE_NEWUSER)", libc::SYS_unshare, [0x1000_0000, 0, 0]),
];

/// An object or a list, as it grows.
struct Json(String);

impl Json {
    fn object() -> Self {
        Self("{".to_owned())
    }

    fn list() -> Self {
        Self("[".to_owned())
    }

    fn comma(&mut self) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
    }

    fn put(&mut self, name: &str, value: &str) {
        self.comma();
        self.0.push_str(&text(name));
        self.0.push(':');
        self.0.push_str(value);
    }

    fn push(&mut self, value: &str) {
        self.comma();
        self.0.push_str(value);
    }

    fn end(mut self) -> String {
        self.0.push(if self.0.starts_with('[') { ']' } else { '}' });
        self.0
    }
}

fn text(text: &str) -> String {
    use std::fmt::Write;

    let mut out = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            char if u32::from(char) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(char));
            }
            char => out.push(char),
        }
    }
    out.push('"');
    out
}

pub(crate) fn run() -> Result<u8, String> {
    let mut all = Json::object();
    all.put("uid", &rustix::process::getuid().as_raw().to_string());
    all.put("gid", &rustix::process::getgid().as_raw().to_string());
    let capabilities = rustix::thread::capabilities(None).map_err(|error| format!("capget: {error}"))?;
    let sets = [capabilities.effective, capabilities.permitted, capabilities.inheritable];
    all.put("capabilities", &text(&sets.map(|set| format!("{:x}", set.bits())).join("/")));
    let no_new_privs = rustix::thread::no_new_privs().map_err(|error| format!("no_new_privs: {error}"))?;
    all.put("noNewPrivs", &no_new_privs.to_string());
    all.put("seccomp", &seccomp());
    all.put("landlock", &landlock());
    all.put("namespaces", &namespaces());
    all.put("network", &network());
    all.put("mounts", &mounts());
    all.put("limits", &limits());
    let processes = std::fs::read_dir("/proc").map(|entries| {
        let numbers =
            entries.flatten().filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
        numbers.count()
    });
    all.put("processesSeen", &processes.map_or_else(|_| "null".to_owned(), |count| count.to_string()));
    let mut names: Vec<String> =
        std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    names.sort();
    let mut env = Json::list();
    for name in &names {
        env.push(&text(name));
    }
    all.put("environment", &env.end());
    std::io::stdout().write_all(all.end().as_bytes()).map_err(|error| error.to_string())?;
    Ok(0)
}

fn errno_name(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => "EPERM".to_owned(),
        Some(libc::EACCES) => "EACCES".to_owned(),
        Some(libc::ENOSYS) => "ENOSYS".to_owned(),
        Some(libc::ENOENT) => "ENOENT".to_owned(),
        Some(libc::EROFS) => "EROFS".to_owned(),
        Some(number) => format!("errno {number}"),
        None => "none".to_owned(),
    }
}

fn seccomp() -> String {
    let mode = rustix::thread::secure_computing_mode().map_or(-1, |mode| mode as i32);
    let mut tried = Json::object();
    for (name, number, [a, b, c]) in TRIED {
        // SAFETY: each is refused by the filter, or else by the kernel for its arguments; none reads memory.
        let outcome = unsafe { libc::syscall(number, a, b, c, 0, 0, 0) };
        let error = std::io::Error::last_os_error();
        tried
            .put(name, &text(if outcome == -1 { errno_name(&error) } else { "allowed".to_owned() }.as_str()));
    }
    let mut seccomp = Json::object();
    seccomp.put(
        "mode",
        &text(["off", "strict", "filter"].get(usize::try_from(mode).unwrap_or(9)).unwrap_or(&"?")),
    );
    seccomp.put("tried", &tried.end());
    seccomp.end()
}

/// Things that file permissions allow and no mount forbids: only Landlock refuses them.
fn landlock() -> String {
    let outcome = |result: std::io::Result<std::fs::File>| match result {
        Ok(_) => "allowed".to_owned(),
        Err(error) => errno_name(&error),
    };
    let mut landlock = Json::object();
    let own_name = std::fs::OpenOptions::new().write(true).open("/proc/self/comm");
    landlock.put("write /proc/self/comm", &text(&outcome(own_name)));
    landlock.put("open / to read", &text(&outcome(std::fs::File::open("/"))));
    // SAFETY: asks for the version; no pointer is given.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0_usize, 0_usize, 1_u32) };
    landlock.put("kernelAbi", &version.to_string());
    landlock.end()
}

fn namespaces() -> String {
    let mut namespaces = Json::object();
    for name in ["user", "pid", "ipc", "uts", "net", "mnt", "cgroup"] {
        if let Ok(target) = std::fs::read_link(format!("/proc/self/ns/{name}")) {
            namespaces.put(name, &text(&target.to_string_lossy()));
        }
    }
    namespaces.put("pidOfThis", &std::process::id().to_string());
    namespaces.end()
}

fn network() -> String {
    let mut network = Json::object();
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let mut interfaces = Json::list();
    for line in read("/proc/net/dev").unwrap_or_default().lines().skip(2) {
        if let Some((name, _)) = line.split_once(':') {
            interfaces.push(&text(name.trim()));
        }
    }
    network.put("interfaces", &interfaces.end());
    let routes = read("/proc/net/route").map(|routes| routes.lines().count().saturating_sub(1));
    network.put("ipv4Routes", &routes.map_or_else(|| "null".to_owned(), |count| count.to_string()));
    let socket =
        std::net::UdpSocket::bind(("0.0.0.0", 0)).and_then(|socket| socket.connect(("192.0.2.1", 9)));
    let outcome = match socket {
        Ok(()) => "routed".to_owned(),
        Err(error) => error.to_string(),
    };
    network.put("outward", &text(&outcome));
    network.end()
}

/// Every mount but those below `/proc`, which only cover parts of it.
fn mounts() -> String {
    let mut mounts = Json::list();
    for line in std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let kind = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').next()).unwrap_or("?");
        let (Some(point), Some(options)) = (fields.get(4), fields.get(5)) else { continue };
        let mut mount = Json::object();
        mount.put("mount", &text(point));
        mount.put("access", &text(if options.split(',').any(|option| option == "ro") { "ro" } else { "rw" }));
        mount.put("type", &text(kind));
        mount.put("options", &text(options));
        mounts.push(&mount.end());
    }
    mounts.end()
}

fn limits() -> String {
    let mut limits = Json::object();
    let resources = [
        ("dataBytes", Resource::Data),
        ("processes", Resource::Nproc),
        ("fileBytes", Resource::Fsize),
        ("cpuSeconds", Resource::Cpu),
        ("coreBytes", Resource::Core),
    ];
    for (name, resource) in resources {
        let limit = getrlimit(resource).maximum;
        limits.put(name, &limit.map_or_else(|| "null".to_owned(), |limit| limit.to_string()));
    }
    if let Ok(tmp) = rustix::fs::statvfs("/tmp") {
        limits.put("tmpBytes", &(tmp.f_blocks * tmp.f_frsize).to_string());
    }
    limits.end()
}
