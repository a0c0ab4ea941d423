//! The attacks of the escape suite that a shell cannot make. The same file runs on the host, where each must succeed or
//! reach the kernel, and in the sandbox.
//!
//! Prints what it called and what came back. Exit code 0: it went through; 1: refused; 3: the kernel has no such thing.
//!
//! # Safety
//! It calls the kernel directly; that is its purpose. No package carries it.
#![allow(
    unsafe_code,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing
)]

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    linux::run(&words).into()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::{Error, Read, Write};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixStream};

    const THROUGH: u8 = 0;
    const REFUSED: u8 = 1;
    const NOT_HERE: u8 = 3;

    /// Calls with arguments that the kernel itself refuses, with another error than `EPERM`, once it looks at them. What
    /// it answers without looking ("not here") is told apart.
    const CALLS: &[(&str, i64, [usize; 5])] = &[
        ("ptrace", libc::SYS_ptrace, [16, 0x7fff_fff0, 0, 0, 0]),
        ("process_vm_readv", libc::SYS_process_vm_readv, [0x7fff_fff0, 8, 1, 8, 1]),
        ("process_vm_writev", libc::SYS_process_vm_writev, [0x7fff_fff0, 8, 1, 8, 1]),
        ("kcmp", libc::SYS_kcmp, [0x7fff_fff0, 0x7fff_fff0, 0, 0, 0]),
        ("pidfd_getfd", 438, [usize::MAX, 0, 0, 0, 0]),
        ("process_madvise", 440, [usize::MAX, 0, 0, 0, 0]),
        ("add_key", libc::SYS_add_key, [8, 8, 0, 0, 0]),
        ("request_key", libc::SYS_request_key, [8, 8, 0, 0, 0]),
        ("keyctl", libc::SYS_keyctl, [0xffff, 0, 0, 0, 0]),
        ("bpf", libc::SYS_bpf, [0xffff, 8, 8, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, [8, 0, 0, usize::MAX, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, [0xffff_0000, 0, 0, 0, 0]),
        ("io_uring_setup", 425, [1, 8, 0, 0, 0]),
        ("io_uring_enter", 426, [usize::MAX, 0, 0, 0, 0]),
        ("io_uring_register", 427, [usize::MAX, 0, 0, 0, 0]),
        ("mount", libc::SYS_mount, [8, 8, 8, 0, 0]),
        ("umount2", libc::SYS_umount2, [8, 0, 0, 0, 0]),
        ("pivot_root", libc::SYS_pivot_root, [8, 8, 0, 0, 0]),
        ("chroot", libc::SYS_chroot, [8, 0, 0, 0, 0]),
        ("open_tree", 428, [usize::MAX, 8, 0, 0, 0]),
        ("move_mount", 429, [usize::MAX, 8, usize::MAX, 8, 0]),
        ("fsopen", 430, [8, 0, 0, 0, 0]),
        ("fsconfig", 431, [usize::MAX, 0xff, 0, 0, 0]),
        ("fsmount", 432, [usize::MAX, 0, 0, 0, 0]),
        ("fspick", 433, [usize::MAX, 8, 0, 0, 0]),
        ("mount_setattr", 442, [usize::MAX, 8, 0, 8, 8]),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, [usize::MAX, 8, 0, 0, 0]),
        ("setns", libc::SYS_setns, [usize::MAX, 0, 0, 0, 0]),
        ("kexec_load", libc::SYS_kexec_load, [0, 17, 8, 0, 0]),
        ("init_module", libc::SYS_init_module, [8, 8, 8, 0, 0]),
        ("finit_module", libc::SYS_finit_module, [usize::MAX, 8, 0xffff, 0, 0]),
        ("delete_module", libc::SYS_delete_module, [8, 0, 0, 0, 0]),
        ("swapon", libc::SYS_swapon, [8, 0xffff_0000, 0, 0, 0]),
        ("swapoff", libc::SYS_swapoff, [8, 0, 0, 0, 0]),
        ("acct", libc::SYS_acct, [8, 0, 0, 0, 0]),
        ("quotactl", libc::SYS_quotactl, [0xffff_ffff, 8, 0, 8, 0]),
        ("fanotify_init", libc::SYS_fanotify_init, [0xffff_ffff, 0, 0, 0, 0]),
        ("syslog", libc::SYS_syslog, [0xff, 0, 0, 0, 0]),
        ("settimeofday", libc::SYS_settimeofday, [8, 0, 0, 0, 0]),
        ("move_pages", libc::SYS_move_pages, [0x7fff_fff0, 1, 8, 8, 8]),
        ("ioctl(TIOCSTI)", libc::SYS_ioctl, [0, 0x5412, 8, 0, 0]),
        ("ioctl(TIOCLINUX)", libc::SYS_ioctl, [0, 0x541C, 8, 0, 0]),
        ("ioctl(TIOCSTI) with a high half", libc::SYS_ioctl, [0, 0xffff_ffff_0000_5412, 8, 0, 0]),
        ("clone3(CLONE_NEWUSER)", 435, [8, 88, 0, 0, 0]),
        ("openat2", 437, [usize::MAX, 8, 8, 24, 0]),
        ("socket(AF_VSOCK)", libc::SYS_socket, [40, 0xff, 0, 0, 0]),
        ("socket(AF_ALG)", libc::SYS_socket, [38, 0xff, 0, 0, 0]),
        ("socket(AF_PACKET)", libc::SYS_socket, [17, 0xff, 0, 0, 0]),
    ];

    fn name(number: i32) -> String {
        let known = [
            (libc::EPERM, "EPERM"),
            (libc::ENOENT, "ENOENT"),
            (libc::ESRCH, "ESRCH"),
            (libc::EBADF, "EBADF"),
            (libc::EACCES, "EACCES"),
            (libc::EFAULT, "EFAULT"),
            (libc::EINVAL, "EINVAL"),
            (libc::ENOTTY, "ENOTTY"),
            (libc::ENOSYS, "ENOSYS"),
            (libc::EOPNOTSUPP, "EOPNOTSUPP"),
            (libc::EAFNOSUPPORT, "EAFNOSUPPORT"),
            (libc::ESOCKTNOSUPPORT, "ESOCKTNOSUPPORT"),
            (libc::ENODEV, "ENODEV"),
            (libc::EROFS, "EROFS"),
            (libc::ENETUNREACH, "ENETUNREACH"),
            (libc::ECONNREFUSED, "ECONNREFUSED"),
            (libc::EAGAIN, "EAGAIN"),
            (libc::ENOMEM, "ENOMEM"),
        ];
        known
            .iter()
            .find(|(known, _)| *known == number)
            .map_or_else(|| format!("errno {number}"), |(_, name)| (*name).into())
    }

    fn call(number: i64, args: [usize; 5]) -> Result<i64, i32> {
        let [first, second, third, fourth, fifth] = args;
        // SAFETY: the arguments are numbers, or addresses that nobody may read; the answer is all that is of interest.
        let answer = unsafe { libc::syscall(number, first, second, third, fourth, fifth, 0_usize) };
        if answer == -1 { Err(Error::last_os_error().raw_os_error().unwrap_or(0)) } else { Ok(answer) }
    }

    fn said<T>(what: &str, outcome: Result<T, Error>) -> u8 {
        match outcome {
            Ok(_) => {
                println!("{what} ok");
                THROUGH
            }
            Err(error) => {
                println!("{what} {}", error.raw_os_error().map_or_else(|| error.to_string(), name));
                REFUSED
            }
        }
    }

    fn ok(answer: i64) -> Result<i64, Error> {
        if answer == -1 { Err(Error::last_os_error()) } else { Ok(answer) }
    }

    pub(super) fn run(words: &[&str]) -> u8 {
        match *words {
            ["calls"] => {
                for (name, ..) in CALLS {
                    println!("{name}");
                }
                THROUGH
            }
            ["call", wanted] => one_call(wanted),
            // SAFETY: no memory is involved.
            ["unshare"] => said("unshare(CLONE_NEWUSER)", ok(unsafe { libc::unshare(0x1000_0000) }.into())),
            ["clone"] => clone_user(),
            ["keyring"] => keyring(),
            ["io_uring"] => io_uring(),
            ["unix", path] => said(&format!("connect {path}"), UnixStream::connect(path)),
            ["abstract", name] => {
                let address = SocketAddr::from_abstract_name(name).unwrap();
                said(&format!("connect @{name}"), UnixStream::connect_addr(&address))
            }
            ["tcp", address] => said(&format!("connect {address}"), std::net::TcpStream::connect(address)),
            ["udp", address] => said(&format!("sendto {address}"), ask(address)),
            ["route", address] => said(&format!("connect {address}"), route(address)),
            ["victim"] => victim(),
            ["vm-read", pid, at] => vm_read(pid.parse().unwrap(), at.parse().unwrap()),
            ["mem-read", pid, at] => mem_read(pid, at.parse().unwrap()),
            ["attach", pid] => attach(pid.parse().unwrap()),
            ["fd-steal", pid] => fd_steal(pid.parse().unwrap()),
            // SAFETY: a plain call.
            ["kill", pid] => kill(pid.parse().unwrap()),
            ["memory", megabytes] => memory(megabytes.parse().unwrap()),
            ["forks", count] => forks(count.parse().unwrap()),
            ["swap", one, other, count] => swap(one, other, count.parse().unwrap()),
            ["setuid", path] => setuid(path),
            ["setuid-open", path] => setuid_open(path),
            ["open-write", path] => {
                said(&format!("open {path} to write"), std::fs::OpenOptions::new().write(true).open(path))
            }
            ["mknod", path] => {
                let path = std::ffi::CString::new(path).unwrap();
                // SAFETY: a path that ends in a NUL.
                said(
                    "mknod(block 7:0)",
                    ok(unsafe { libc::mknod(path.as_ptr(), libc::S_IFBLK | 0o600, libc::makedev(7, 0)) }
                        .into()),
                )
            }
            ["flags", path] => flags(path),
            ["inotify", path] => inotify(path),
            ["int80"] => int80(),
            ["x32"] => {
                // SAFETY: getpid of x32.
                let answer = ok(unsafe { libc::syscall(0x4000_0027) });
                if answer.as_ref().err().and_then(Error::raw_os_error) == Some(libc::ENOSYS) {
                    println!("x32 getpid ENOSYS");
                    return NOT_HERE;
                }
                said("x32 getpid", answer)
            }
            ["tiocsti"] => tiocsti(),
            _ => {
                println!("unknown attack {words:?}");
                2
            }
        }
    }

    fn one_call(wanted: &str) -> u8 {
        let Some((what, number, args)) = CALLS.iter().find(|(name, ..)| *name == wanted) else { return 2 };
        match call(*number, *args) {
            Err(error) => {
                println!("{what} {}", name(error));
                match error {
                    libc::EPERM => REFUSED,
                    // Refused so that programs take the older call; told apart from a kernel without it on the host.
                    libc::ENOSYS => NOT_HERE,
                    _ => THROUGH,
                }
            }
            Ok(answer) => {
                println!("{what} {answer}");
                THROUGH
            }
        }
    }

    fn clone_user() -> u8 {
        // SAFETY: as fork, in a process of one thread; the child ends at once.
        let pid = unsafe { libc::syscall(libc::SYS_clone, 0x1000_0000 | libc::SIGCHLD, 0, 0, 0, 0) };
        if pid == 0 {
            // SAFETY: it ends.
            unsafe { libc::_exit(0) };
        }
        said("clone(CLONE_NEWUSER)", ok(pid))
    }

    fn keyring() -> u8 {
        let secret = b"x";
        // SAFETY: texts that end in NULs; the key goes with this process (its own keyring is -2).
        let key = unsafe {
            libc::syscall(
                libc::SYS_add_key,
                c"user".as_ptr(),
                c"openclaw-escape".as_ptr(),
                secret.as_ptr(),
                1_usize,
                -2_i64,
            )
        };
        said("add_key", ok(key))
    }

    fn io_uring() -> u8 {
        let mut parameters = [0_u8; 256];
        // SAFETY: more room than the structure takes.
        said("io_uring_setup", ok(unsafe { libc::syscall(425, 1, parameters.as_mut_ptr()) }))
    }

    fn ask(address: &str) -> Result<(), Error> {
        let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
        socket.set_read_timeout(Some(std::time::Duration::from_secs(2)))?;
        socket.connect(address)?;
        socket.send(b"question")?;
        socket.recv(&mut [0; 64]).map(drop)
    }

    /// Nothing is sent: it only asks for a route.
    fn route(address: &str) -> Result<(), Error> {
        let any = if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        std::net::UdpSocket::bind(any)?.connect(address)
    }

    static SECRET: [u8; 16] = *b"secret-of-victim";

    fn victim() -> u8 {
        // SAFETY: a plain call; Yama would else allow only parents.
        unsafe { libc::prctl(0x5961_6d61, usize::MAX, 0, 0, 0) };
        println!("{} {}", std::process::id(), SECRET.as_ptr() as usize);
        std::io::stdout().flush().unwrap();
        let _ = std::io::stdin().read(&mut [0]);
        THROUGH
    }

    fn vm_read(pid: i32, at: usize) -> u8 {
        let mut room = [0_u8; 16];
        let ours = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: 16 };
        let theirs = libc::iovec { iov_base: at as *mut _, iov_len: 16 };
        // SAFETY: `room` takes what is read.
        let outcome =
            ok(unsafe { libc::process_vm_readv(pid, &raw const ours, 1, &raw const theirs, 1, 0) } as i64);
        said(&format!("process_vm_readv {}", String::from_utf8_lossy(&room).trim_matches('\0')), outcome)
    }

    fn mem_read(pid: &str, at: u64) -> u8 {
        use std::os::unix::fs::FileExt;

        let mut room = [0_u8; 16];
        let outcome = std::fs::File::open(format!("/proc/{pid}/mem"))
            .and_then(|file| file.read_exact_at(&mut room, at));
        let hit = outcome.is_ok() && room == SECRET;
        let code = said("read /proc/PID/mem", outcome);
        if hit { code } else { REFUSED }
    }

    fn attach(pid: i32) -> u8 {
        // SAFETY: no memory is involved; it detaches at its end.
        said("ptrace(PTRACE_SEIZE)", ok(unsafe { libc::syscall(libc::SYS_ptrace, 0x4206, pid, 0, 0) }))
    }

    fn fd_steal(pid: i32) -> u8 {
        // SAFETY: numbers only.
        let outcome = ok(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
            // SAFETY: the same.
            .and_then(|pidfd| ok(unsafe { libc::syscall(438, pidfd, 0, 0) }));
        said("pidfd_open, pidfd_getfd", outcome)
    }

    fn kill(pid: i32) -> u8 {
        // SAFETY: numbers only.
        said("kill", ok(unsafe { libc::kill(pid, libc::SIGTERM) }.into()))
    }

    fn memory(megabytes: usize) -> u8 {
        let mut all = Vec::new();
        for _ in 0..megabytes {
            let mut block: Vec<u8> = Vec::new();
            if block.try_reserve_exact(1 << 20).is_err() {
                println!("memory ENOMEM after {} MiB", all.len());
                return REFUSED;
            }
            block.resize(1 << 20, 1);
            all.push(block);
        }
        println!("memory {} MiB", all.len());
        THROUGH
    }

    fn forks(count: usize) -> u8 {
        let mut children = Vec::new();
        let mut refused = None;
        for _ in 0..count {
            // SAFETY: one thread; the child waits to be killed.
            match unsafe { libc::fork() } {
                0 => loop {
                    // SAFETY: it waits.
                    unsafe { libc::pause() };
                },
                -1 => {
                    refused = Some(Error::last_os_error());
                    break;
                }
                pid => children.push(pid),
            }
        }
        for pid in &children {
            // SAFETY: children of this process.
            unsafe { libc::kill(*pid, libc::SIGKILL) };
        }
        match refused {
            None => said(&format!("{count} forks"), Ok(())),
            Some(error) => said(&format!("fork after {}", children.len()), Err::<(), _>(error)),
        }
    }

    /// Exchanges two names, again and again.
    fn swap(one: &str, other: &str, count: usize) -> u8 {
        let [one, other] = [one, other].map(|path| std::ffi::CString::new(path).unwrap());
        let mut done = 0_u64;
        for _ in 0..count {
            // SAFETY: paths that end in NULs. 2 is RENAME_EXCHANGE.
            let answer =
                unsafe { libc::syscall(libc::SYS_renameat2, -100, one.as_ptr(), -100, other.as_ptr(), 2) };
            done += u64::from(answer == 0);
        }
        println!("swapped {done}");
        if done > 0 { THROUGH } else { REFUSED }
    }

    fn setuid(path: &str) -> u8 {
        use std::os::unix::fs::PermissionsExt;

        std::fs::write(path, "#!/bin/sh\n").unwrap();
        said("chmod 4755", std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o4755)))
    }

    fn setuid_open(path: &str) -> u8 {
        let path = std::ffi::CString::new(path).unwrap();
        // SAFETY: a path that ends in a NUL.
        let file =
            unsafe { libc::open(path.as_ptr(), libc::O_CREAT | libc::O_WRONLY | libc::O_EXCL, 0o4755) };
        said("open(O_CREAT, 4755)", ok(file.into()))
    }

    /// Sets the flags of a file that is open to be read, to what they are.
    fn flags(path: &str) -> u8 {
        use std::os::fd::AsRawFd;

        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) => return said("open", Err::<(), _>(error)),
        };
        let mut flags = 0_i64;
        // SAFETY: the kernel writes and reads an `int`, for which there is room.
        let (got, set) = unsafe {
            let got = libc::ioctl(file.as_raw_fd(), 0x8008_6601_u32 as _, &raw mut flags);
            (got, ok(libc::ioctl(file.as_raw_fd(), 0x4008_6602_u32 as _, &raw const flags).into()))
        };
        if got == -1 {
            println!("the file system has no flags");
            return NOT_HERE;
        }
        said("ioctl(FS_IOC_SETFLAGS)", set)
    }

    fn inotify(path: &str) -> u8 {
        let path = std::ffi::CString::new(path).unwrap();
        // SAFETY: a path that ends in a NUL.
        let answer =
            unsafe { libc::inotify_add_watch(libc::inotify_init1(0), path.as_ptr(), libc::IN_ALL_EVENTS) };
        said("inotify_add_watch", ok(answer.into()))
    }

    /// `getpid` of i386.
    fn int80() -> u8 {
        #[cfg(target_arch = "x86_64")]
        {
            let answer: i32;
            // SAFETY: a call without arguments; what it may change is named.
            unsafe {
                std::arch::asm!("int 0x80", inlateout("eax") 20 => answer, lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _);
            }
            println!("i386 getpid {answer}");
            if answer > 0 { THROUGH } else { NOT_HERE }
        }
        #[cfg(not(target_arch = "x86_64"))]
        NOT_HERE
    }

    /// Types into a terminal of its own. Since Linux 6.2 systems may forbid it with EIO.
    fn tiocsti() -> u8 {
        // SAFETY: plain calls on descriptors that were just opened.
        unsafe {
            let master = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY);
            if master < 0 || libc::grantpt(master) != 0 || libc::unlockpt(master) != 0 {
                println!("no terminal");
                return 2;
            }
            let mut name = [0; 64];
            libc::ptsname_r(master, name.as_mut_ptr(), 64);
            libc::setsid();
            let slave = libc::open(name.as_ptr(), libc::O_RDWR);
            libc::ioctl(slave, libc::TIOCSCTTY, 0);
            let key = b'x';
            let answer = libc::ioctl(slave, libc::TIOCSTI, &raw const key);
            let error = Error::last_os_error();
            if answer != 0 && error.raw_os_error() == Some(libc::EIO) {
                println!("ioctl(TIOCSTI) EIO");
                return NOT_HERE;
            }
            said("ioctl(TIOCSTI)", if answer == 0 { Ok(()) } else { Err(error) })
        }
    }
}
