//! The arguments of bubblewrap. It is a toolkit: what it protects is decided here, and nowhere else.

use std::path::Path;

use crate::spec::{Bind, INIT_INSIDE, Spec};

/// What bubblewrap gets by descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptors<'a> {
    /// The filter of system calls.
    pub filter: Option<i32>,
    /// `/etc/passwd`, `/etc/group` and `/etc/hosts` as the sandbox has them.
    pub etc: [(&'a str, i32); 3],
    /// A descriptor for each bind of the spec, opened without following links.
    pub binds: &'a [i32],
    /// This executable.
    pub init: i32,
}

/// Folders of the system; where the host has a link, so does the sandbox.
const SYSTEM: [&str; 6] = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// What programs need of `/etc`. None of it holds a secret.
const ETC: [&str; 22] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/ca-certificates",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/nsswitch.conf",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/mime.types",
    "/etc/services",
    "/etc/protocols",
    "/etc/os-release",
    "/etc/debian_version",
    "/etc/fonts",
    "/etc/inputrc",
    "/etc/terminfo",
    "/etc/magic",
    "/etc/python3",
];

/// What only a command with the host's network needs.
const ETC_NETWORK: [&str; 2] = ["/etc/resolv.conf", "/etc/host.conf"];

/// Bytes of `/tmp` and of `/dev/shm`, if files may be larger: they are memory.
const MOST_TEMPORARY: u64 = 1 << 30;

/// The arguments, up to and without the program that bubblewrap starts.
pub(crate) fn arguments(spec: &Spec, descriptors: &Descriptors<'_>) -> Vec<String> {
    let mut args: Vec<String> = Vec::with_capacity(160);
    let mut put = |words: &[&str]| args.extend(words.iter().map(|word| (*word).to_owned()));
    // A user namespace first: everything else is then made without any right on the host.
    put(&[
        "--unshare-user",
        "--die-with-parent",
        "--new-session",
        "--as-pid-1",
        "--cap-drop",
        "ALL",
        "--clearenv",
    ]);
    put(&[
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-cgroup-try",
        "--hostname",
        "sandbox",
    ]);
    if !spec.host_network {
        put(&["--unshare-net"]);
    }
    if spec.bwrap_options.iter().any(|option| option == "disable-userns") {
        put(&["--disable-userns"]);
    }
    put(&["--ro-bind", "/usr", "/usr"]);
    for path in SYSTEM {
        match std::fs::read_link(path) {
            Ok(target) => put(&["--symlink", &target.to_string_lossy(), path]),
            Err(_) if Path::new(path).is_dir() => put(&["--ro-bind", path, path]),
            Err(_) => {}
        }
    }
    // Made here, or else bubblewrap makes it for its owner alone.
    put(&["--perms", "0755", "--dir", "/etc"]);
    for path in ETC {
        put(&["--ro-bind-try", path, path]);
    }
    if spec.host_network {
        for path in ETC_NETWORK {
            put(&["--ro-bind-try", path, path]);
        }
    }
    for (path, descriptor) in descriptors.etc {
        put(&["--perms", "0444", "--ro-bind-data", &descriptor.to_string(), path]);
    }
    let temporary = spec.file.min(spec.memory).min(MOST_TEMPORARY).to_string();
    // Much of /proc/sys needs no capability of who is root outside; bubblewrap covers the rest of what can be written.
    put(&["--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--dev", "/dev"]);
    put(&["--perms", "1777", "--size", &temporary, "--tmpfs", "/dev/shm"]);
    put(&["--perms", "1777", "--size", &temporary, "--tmpfs", "/tmp"]);
    put(&["--perms", "0755", "--size", "65536", "--tmpfs", "/run"]);
    let by_descriptor = spec.bwrap_options.iter().any(|option| option == "bind-fd");
    let mut bind = |write: bool, descriptor: i32, mount: &str| {
        let (by, source) = match (by_descriptor, write) {
            (true, true) => ("--bind-fd", descriptor.to_string()),
            (true, false) => ("--ro-bind-fd", descriptor.to_string()),
            (false, true) => ("--bind", format!("/proc/self/fd/{descriptor}")),
            (false, false) => ("--ro-bind", format!("/proc/self/fd/{descriptor}")),
        };
        put(&[by, &source, mount]);
    };
    bind(false, descriptors.init, INIT_INSIDE);
    // Outer mounts before inner ones: a later mount covers what an earlier one shows.
    let mut order: Vec<(&Bind, i32)> = spec.binds.iter().zip(descriptors.binds.iter().copied()).collect();
    order.sort_by_key(|(bind, _)| bind.mount.matches('/').count());
    for (one, descriptor) in order {
        bind(one.write, descriptor, &one.mount);
    }
    if let Some(dir) = &spec.empty_dir {
        put(&["--dir", dir]);
    }
    put(&["--remount-ro", "/dev", "--remount-ro", "/run", "--remount-ro", "/", "--chdir", "/"]);
    if let Some(filter) = descriptors.filter {
        put(&["--seccomp", &filter.to_string()]);
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments_of(spec: &Spec) -> Vec<String> {
        let etc = [("/etc/passwd", 11), ("/etc/group", 12), ("/etc/hosts", 13)];
        arguments(spec, &Descriptors { filter: Some(10), etc, binds: &[20, 21], init: 14 })
    }

    fn spec() -> Spec {
        let bind = |host: &str, mount: &str, write| Bind { host: host.into(), mount: mount.into(), write };
        Spec {
            bwrap: Some("/usr/bin/bwrap".into()),
            bwrap_options: vec!["bind-fd".into(), "disable-userns".into()],
            binds: vec![bind("/h/skills", "/workspace/a/skills", false), bind("/h/w", "/workspace", true)],
            memory: 1 << 20,
            file: 1 << 30,
            ..Spec::default()
        }
    }

    fn has(args: &[String], words: &[&str]) -> bool {
        args.windows(words.len()).any(|window| window == words)
    }

    #[test]
    fn every_layer_is_asked_for() {
        let args = arguments_of(&spec());
        for option in ["user", "pid", "ipc", "uts", "net"] {
            assert!(has(&args, &[&format!("--unshare-{option}")]), "{option}");
        }
        for words in [
            &["--die-with-parent"][..],
            &["--new-session"],
            &["--cap-drop", "ALL"],
            &["--clearenv"],
            &["--disable-userns"],
            &["--seccomp", "10"],
            &["--remount-ro", "/"],
            &["--size", "1048576", "--tmpfs", "/tmp"],
        ] {
            assert!(has(&args, words), "{words:?}");
        }
        let network = arguments_of(&Spec { host_network: true, ..spec() });
        assert!(!has(&network, &["--unshare-net"]) && has(&network, &["/etc/resolv.conf"]));
    }

    #[test]
    fn mounts_go_by_descriptor_and_outer_ones_first() {
        let args = arguments_of(&spec());
        let workspace = args.iter().position(|arg| arg == "/workspace").unwrap();
        let skills = args.iter().position(|arg| arg == "/workspace/a/skills").unwrap();
        assert!(workspace < skills);
        assert!(has(&args, &["--bind-fd", "21", "/workspace"]));
        assert!(has(&args, &["--ro-bind-fd", "20", "/workspace/a/skills"]));
        assert!(!args.iter().any(|arg| arg.starts_with("/h/")), "a path could be swapped");
    }

    #[test]
    fn nothing_of_a_home_or_of_variable_state_is_mounted() {
        let args = arguments_of(&spec());
        for window in args.windows(3).filter(|window| window[0].contains("bind")) {
            for place in
                ["/home", "/root", "/var", "/run/user", "/etc/shadow", "/etc/ssh", "/sys", "/boot", "/srv"]
            {
                assert!(!window[1].starts_with(place), "{window:?}");
            }
        }
    }
}
