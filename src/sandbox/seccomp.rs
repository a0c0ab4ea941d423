//! The filter of system calls: which are refused, with which error, and the BPF program that does it.
//!
//! What is refused gets `EPERM`, save `clone3` and `openat2`, whose arguments no filter can see: `ENOSYS` sends
//! programs to `clone` and `openat`. A call of another ABI (x32, i386) ends the process. The rest is allowed: the filter is the second fence
//! around what namespaces and capabilities already keep out, not a list of what programs need.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

/// When a call is refused.
#[derive(Clone, Copy, Debug)]
enum When {
    Always,
    /// This argument, as 32 bits, is one of these.
    Is(u8, &'static [u32]),
    /// This argument has one of these bits.
    HasBit(u8, &'static [u64]),
    /// The first argument named has all of these bits, and the second one of those.
    HasBits(u8, u64, u8, &'static [u64]),
    /// This argument, as 32 bits, is none of these.
    IsNot(u8, &'static [u32]),
}

struct Refused {
    name: &'static str,
    number: i64,
    when: When,
}

macro_rules! refused {
    ($($(#[$attribute:meta])* $name:ident $(= $number:literal)? $when:expr;)*) => {
        &[$($(#[$attribute])* Refused { name: stringify!($name), number: refused!(@ $name $($number)?), when: $when },)*]
    };
    (@ $name:ident $number:literal) => { $number };
    (@ $name:ident) => { paste_number::$name };
}

/// The numbers by their plain names.
#[allow(non_upper_case_globals, reason = "they are named as the calls are")]
mod paste_number {
    macro_rules! numbers {
        ($($(#[$attribute:meta])* $name:ident = $sys:ident;)*) => {
            $($(#[$attribute])* pub(super) const $name: i64 = libc::$sys as i64;)*
        };
    }
    numbers! {
        acct = SYS_acct; add_key = SYS_add_key; bpf = SYS_bpf;
        chroot = SYS_chroot; clock_settime = SYS_clock_settime; clone = SYS_clone;
        delete_module = SYS_delete_module; fanotify_init = SYS_fanotify_init; fchownat = SYS_fchownat;
        fcntl = SYS_fcntl; fchmod = SYS_fchmod; fchmodat = SYS_fchmodat; mknodat = SYS_mknodat; openat = SYS_openat; finit_module = SYS_finit_module; init_module = SYS_init_module; ioctl = SYS_ioctl;
        kcmp = SYS_kcmp; kexec_load = SYS_kexec_load; keyctl = SYS_keyctl;
        lookup_dcookie = SYS_lookup_dcookie; lsetxattr = SYS_lsetxattr; lremovexattr = SYS_lremovexattr;
        mbind = SYS_mbind; migrate_pages = SYS_migrate_pages; mount = SYS_mount; move_pages = SYS_move_pages;
        nfsservctl = SYS_nfsservctl; open_by_handle_at = SYS_open_by_handle_at;
        perf_event_open = SYS_perf_event_open; pivot_root = SYS_pivot_root;
        process_vm_readv = SYS_process_vm_readv; process_vm_writev = SYS_process_vm_writev; ptrace = SYS_ptrace;
        quotactl = SYS_quotactl; reboot = SYS_reboot; removexattr = SYS_removexattr; request_key = SYS_request_key;
        setns = SYS_setns;
        setdomainname = SYS_setdomainname; sethostname = SYS_sethostname; setxattr = SYS_setxattr;
        settimeofday = SYS_settimeofday; socket = SYS_socket; swapoff = SYS_swapoff; swapon = SYS_swapon;
        syslog = SYS_syslog; umount2 = SYS_umount2; unshare = SYS_unshare;
        userfaultfd = SYS_userfaultfd; vhangup = SYS_vhangup;
        fchown = SYS_fchown; fremovexattr = SYS_fremovexattr; fsetxattr = SYS_fsetxattr;
        inotify_add_watch = SYS_inotify_add_watch; ioprio_set = SYS_ioprio_set; mq_open = SYS_mq_open;
        mq_unlink = SYS_mq_unlink; msgctl = SYS_msgctl; msgget = SYS_msgget; msgrcv = SYS_msgrcv;
        msgsnd = SYS_msgsnd; prlimit64 = SYS_prlimit64; sched_setaffinity = SYS_sched_setaffinity;
        sched_setattr = SYS_sched_setattr; sched_setparam = SYS_sched_setparam;
        sched_setscheduler = SYS_sched_setscheduler; semctl = SYS_semctl; semget = SYS_semget;
        semop = SYS_semop; semtimedop = SYS_semtimedop; setpriority = SYS_setpriority;
        shmat = SYS_shmat; shmctl = SYS_shmctl; shmget = SYS_shmget; socketpair = SYS_socketpair;
    }
    #[cfg(target_arch = "x86_64")]
    numbers! {
        chmod = SYS_chmod; chown = SYS_chown; creat = SYS_creat; mknod = SYS_mknod; open = SYS_open; ioperm = SYS_ioperm; iopl = SYS_iopl;
        kexec_file_load = SYS_kexec_file_load; lchown = SYS_lchown; modify_ldt = SYS_modify_ldt;
        uselib = SYS_uselib; ustat = SYS_ustat;
    }
}

/// `CLONE_NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`, `NEWNET`, `NEWNS`, and for `unshare` `NEWTIME`.
const NEW_NAMESPACE: &[u64] =
    &[0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000, 0x0002_0000];
const NEW_NAMESPACE_OR_TIME: &[u64] =
    &[0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000, 0x0002_0000, 0x80];

/// Set-user-ID and set-group-ID.
const SET_ID: &[u64] = &[0o4000, 0o2000];
const O_CREAT: u64 = 0o100;

const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541C;
const FIOSETOWN: u32 = 0x8901;
const SIOCSPGRP: u32 = 0x8902;
const F_SETOWN: u32 = 8;
const F_SETOWN_EX: u32 = 15;
const AF_UNIX: u32 = 1;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const AF_NETLINK: u32 = 16;
const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
const FS_IOC_FSSETXATTR: u32 = 0x401C_5820;
const FS_IOC_ENABLE_VERITY: u32 = 0x4080_6685;
const FS_IOC_SET_ENCRYPTION_POLICY: u32 = 0x800C_6613;
const PRIO_PROCESS: u32 = 0;
const IOPRIO_WHO_PROCESS: u32 = 1;
/// In `SOCK_DGRAM` and `SOCK_RAW`, but neither in `SOCK_STREAM` nor in `SOCK_SEQPACKET`.
const DATAGRAM: u64 = 2;

/// Refused in every sandbox.
const EVERYWHERE: &[Refused] = refused! {
    // Other processes: their memory, their descriptors.
    ptrace When::Always;
    process_vm_readv When::Always;
    process_vm_writev When::Always;
    kcmp When::Always;
    pidfd_getfd = 438 When::Always;
    process_madvise = 440 When::Always;
    process_mrelease = 448 When::Always;
    move_pages When::Always;
    migrate_pages When::Always;
    mbind When::Always;
    // Keys of the user's session, which no namespace holds apart.
    add_key When::Always;
    request_key When::Always;
    keyctl When::Always;
    // Much kernel behind few calls.
    bpf When::Always;
    perf_event_open When::Always;
    userfaultfd When::Always;
    io_uring_setup = 425 When::Always;
    io_uring_enter = 426 When::Always;
    io_uring_register = 427 When::Always;
    fanotify_init When::Always;
    lookup_dcookie When::Always;
    nfsservctl When::Always;
    vhangup When::Always;
    // Mounts, old and new.
    mount When::Always;
    umount2 When::Always;
    pivot_root When::Always;
    chroot When::Always;
    open_tree = 428 When::Always;
    move_mount = 429 When::Always;
    fsopen = 430 When::Always;
    fsconfig = 431 When::Always;
    fsmount = 432 When::Always;
    fspick = 433 When::Always;
    mount_setattr = 442 When::Always;
    open_tree_attr = 467 When::Always;
    // A file handle is a file without a path.
    open_by_handle_at When::Always;
    // Namespaces in the sandbox.
    clone When::HasBit(0, NEW_NAMESPACE);
    unshare When::HasBit(0, NEW_NAMESPACE_OR_TIME);
    setns When::Always;
    // The machine.
    kexec_load When::Always;
    init_module When::Always;
    finit_module When::Always;
    delete_module When::Always;
    reboot When::Always;
    swapon When::Always;
    swapoff When::Always;
    acct When::Always;
    quotactl When::Always;
    quotactl_fd = 443 When::Always;
    syslog When::Always;
    settimeofday When::Always;
    clock_settime When::Always;
    sethostname When::Always;
    setdomainname When::Always;
    #[cfg(target_arch = "x86_64")]
    kexec_file_load When::Always;
    #[cfg(target_arch = "aarch64")]
    kexec_file_load = 294 When::Always;
    #[cfg(target_arch = "x86_64")]
    iopl When::Always;
    #[cfg(target_arch = "x86_64")]
    ioperm When::Always;
    #[cfg(target_arch = "x86_64")]
    modify_ldt When::Always;
    #[cfg(target_arch = "x86_64")]
    uselib When::Always;
    #[cfg(target_arch = "x86_64")]
    ustat When::Always;
    // A set-user-ID file in the workspace would be the host's, and run there with the rights of who runs the sandbox.
    fchmod When::HasBit(1, SET_ID);
    fchmodat When::HasBit(2, SET_ID);
    fchmodat2 = 452 When::HasBit(2, SET_ID);
    openat When::HasBits(2, O_CREAT, 3, SET_ID);
    mknodat When::HasBit(2, SET_ID);
    #[cfg(target_arch = "x86_64")]
    chmod When::HasBit(1, SET_ID);
    #[cfg(target_arch = "x86_64")]
    open When::HasBits(1, O_CREAT, 2, SET_ID);
    #[cfg(target_arch = "x86_64")]
    creat When::HasBit(1, SET_ID);
    #[cfg(target_arch = "x86_64")]
    mknod When::HasBit(1, SET_ID);
    // Typing into a terminal, as if its user did.
    ioctl When::Is(1, &[TIOCSTI, TIOCLINUX]);
    // Sockets of other kinds: some know no network namespace (vsock), some are much kernel (AF_ALG).
    socket When::IsNot(0, &[AF_UNIX, AF_INET, AF_INET6, AF_NETLINK]);
};

/// Refused too where there are no namespaces and the command gets no network. Landlock judges neither UDP nor Unix
/// sockets.
const WITHOUT_NAMESPACES_NO_NETWORK: &[Refused] = refused! {
    socket When::Always;
};

/// Refused too where there are no namespaces. Landlock does not judge what changes a file that is open to be read, or
/// changes it without opening it, nor what reaches other processes of the user by their numbers or by keys.
const WITHOUT_NAMESPACES: &[Refused] = refused! {
    setxattr When::Always;
    lsetxattr When::Always;
    fsetxattr When::Always;
    setxattrat = 463 When::Always;
    removexattr When::Always;
    lremovexattr When::Always;
    fremovexattr When::Always;
    removexattrat = 466 When::Always;
    file_setattr = 469 When::Always;
    fchmod When::Always;
    fchmodat When::Always;
    fchmodat2 = 452 When::Always;
    fchown When::Always;
    fchownat When::Always;
    #[cfg(target_arch = "x86_64")]
    chmod When::Always;
    #[cfg(target_arch = "x86_64")]
    chown When::Always;
    #[cfg(target_arch = "x86_64")]
    lchown When::Always;
    // It tells the names in a folder that may not be listed.
    inotify_add_watch When::Always;
    // Memory, queues and semaphores that others have made.
    shmget When::Always;
    shmat When::Always;
    shmctl When::Always;
    msgget When::Always;
    msgsnd When::Always;
    msgrcv When::Always;
    msgctl When::Always;
    semget When::Always;
    semop When::Always;
    semtimedop When::Always;
    semctl When::Always;
    mq_open When::Always;
    mq_unlink When::Always;
    // Limits and priorities of others: 0 is who calls.
    prlimit64 When::IsNot(0, &[0]);
    sched_setaffinity When::IsNot(0, &[0]);
    sched_setattr When::IsNot(0, &[0]);
    sched_setparam When::IsNot(0, &[0]);
    sched_setscheduler When::IsNot(0, &[0]);
    setpriority When::IsNot(0, &[PRIO_PROCESS]);
    setpriority When::IsNot(1, &[0]);
    ioprio_set When::IsNot(0, &[IOPRIO_WHO_PROCESS]);
    ioprio_set When::IsNot(1, &[0]);
    fcntl When::Is(1, &[F_SETOWN, F_SETOWN_EX]);
    ioctl When::Is(1, &[
        TIOCSTI, TIOCLINUX, FIOSETOWN, SIOCSPGRP,
        FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR, FS_IOC_ENABLE_VERITY, FS_IOC_SET_ENCRYPTION_POLICY,
    ]);
    // Every Unix socket of the host could be connected to, Docker's too. A pair of datagram sockets can be, again.
    socket When::Is(0, &[AF_UNIX]);
    socketpair When::HasBit(1, &[DATAGRAM]);
};

/// Which sandbox a filter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Whether namespaces hold it.
    pub namespaces: bool,
    /// Whether it has the host's network.
    pub host_network: bool,
}

impl Kind {
    fn refused(self) -> impl Iterator<Item = &'static Refused> {
        let more: &[Refused] = if self.namespaces { &[] } else { WITHOUT_NAMESPACES };
        let network: &[Refused] =
            if self.namespaces || self.host_network { &[] } else { WITHOUT_NAMESPACES_NO_NETWORK };
        EVERYWHERE.iter().chain(more).chain(network)
    }
}

fn condition(index: u8, length: Len, op: Op, value: u64) -> Result<SeccompCondition, String> {
    SeccompCondition::new(index, length, op, value).map_err(|error| error.to_string())
}

fn rules(when: When) -> Result<Vec<SeccompRule>, String> {
    let rule = |conditions| SeccompRule::new(conditions).map_err(|error| error.to_string());
    match when {
        When::Always => Ok(Vec::new()),
        When::Is(index, values) => values
            .iter()
            .map(|&value| rule(vec![condition(index, Len::Dword, Op::Eq, value.into())?]))
            .collect(),
        When::HasBit(index, bits) => bits
            .iter()
            .map(|&bit| rule(vec![condition(index, Len::Qword, Op::MaskedEq(bit), bit)?]))
            .collect(),
        When::HasBits(first, all, second, bits) => bits
            .iter()
            .map(|&bit| {
                let both = [
                    condition(first, Len::Qword, Op::MaskedEq(all), all)?,
                    condition(second, Len::Qword, Op::MaskedEq(bit), bit)?,
                ];
                rule(both.into())
            })
            .collect(),
        When::IsNot(index, values) => {
            let all = values.iter().map(|&value| condition(index, Len::Dword, Op::Ne, value.into()));
            Ok(vec![rule(all.collect::<Result<_, _>>()?)?])
        }
    }
}

const ARCH: TargetArch = if cfg!(target_arch = "aarch64") { TargetArch::aarch64 } else { TargetArch::x86_64 };

/// `clone3` and `openat2`.
const UNSEEN: [u32; 2] = [435, 437];

/// The program of a filter.
pub(crate) fn program(kind: Kind) -> Result<BpfProgram, String> {
    let mut by_number: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let (always, sometimes): (Vec<_>, Vec<_>) =
        kind.refused().partition(|refused| matches!(refused.when, When::Always));
    for refused in sometimes {
        by_number.entry(refused.number).or_default().extend(rules(refused.when)?);
    }
    // No rules at all is "always"; it comes last, because of two words on a call the stricter one counts.
    by_number.extend(always.into_iter().map(|refused| (refused.number, Vec::new())));
    let errno = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(by_number, SeccompAction::Allow, errno, ARCH)
        .map_err(|error| error.to_string())?;
    let compiled: BpfProgram =
        filter.try_into().map_err(|error: seccompiler::BackendError| error.to_string())?;
    let mut program = first_words();
    program.extend(compiled);
    Ok(program)
}

/// What the compiler cannot say: x32 is the same architecture with a bit in the number, and what cannot be
/// judged gets an error of its own. Jumps are relative, so this goes first.
fn first_words() -> BpfProgram {
    const LOAD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const KILL_PROCESS: u32 = 0x8000_0000;
    const ERRNO: u32 = 0x0005_0000;
    const X32_BIT: u32 = 0x4000_0000;
    let word = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let mut words = vec![word(LOAD, 0, 0, 0)];
    if cfg!(target_arch = "x86_64") {
        words.extend([word(JUMP_GREATER_OR_EQUAL, 0, 1, X32_BIT), word(RETURN, 0, 0, KILL_PROCESS)]);
    }
    for number in UNSEEN {
        words.extend([
            word(JUMP_EQUAL, 0, 1, number),
            word(RETURN, 0, 0, ERRNO | libc::ENOSYS.unsigned_abs()),
        ]);
    }
    words
}

/// A program as the kernel, and bubblewrap, read it.
pub(crate) fn bytes(program: &BpfProgram) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for word in program {
        bytes.extend_from_slice(&word.code.to_ne_bytes());
        bytes.extend_from_slice(&[word.jt, word.jf]);
        bytes.extend_from_slice(&word.k.to_ne_bytes());
    }
    bytes
}

/// Puts a filter on this process and what it becomes. `no_new_privs` must be set.
pub(crate) fn apply(program: &BpfProgram) -> Result<(), String> {
    seccompiler::apply_filter(program).map_err(|error| error.to_string())
}

/// A filter for people: a line for each call.
pub(crate) fn describe(kind: Kind) -> String {
    let mut lines = vec!["clone3, openat2: ENOSYS".to_owned(), "x32, i386: the process is killed".to_owned()];
    for refused in kind.refused() {
        let when = match refused.when {
            When::Always => String::new(),
            When::Is(index, values) => format!(" where argument {index} is {values:#x?}"),
            When::HasBit(index, bits) => format!(" where argument {index} has one of {bits:#x?}"),
            When::HasBits(first, all, second, bits) => {
                format!(" where argument {first} has {all:#x?} and argument {second} one of {bits:#x?}")
            }
            When::IsNot(index, values) => format!(" where argument {index} is none of {values:?}"),
        };
        let when: Vec<&str> = when.split_whitespace().collect();
        lines.push(format!("{}: EPERM {}", refused.name, when.join(" ")).trim_end().to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a program answers to a call: the interpreter of classic BPF, as far as filters use it.
    fn answer(program: &BpfProgram, arch: u32, number: u32, args: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend_from_slice(&number.to_ne_bytes());
        data.extend_from_slice(&arch.to_ne_bytes());
        data.extend_from_slice(&0_u64.to_ne_bytes());
        for arg in args {
            data.extend_from_slice(&arg.to_ne_bytes());
        }
        let (mut at, mut a) = (0_usize, 0_u32);
        loop {
            let word = &program[at];
            at += 1;
            match word.code {
                0x20 => {
                    let k = word.k as usize;
                    a = u32::from_ne_bytes(data[k..k + 4].try_into().unwrap());
                }
                0x54 => a &= word.k,
                0x05 => at += word.k as usize,
                0x15 => at += usize::from(if a == word.k { word.jt } else { word.jf }),
                0x25 => at += usize::from(if a > word.k { word.jt } else { word.jf }),
                0x35 => at += usize::from(if a >= word.k { word.jt } else { word.jf }),
                0x45 => at += usize::from(if a & word.k != 0 { word.jt } else { word.jf }),
                0x06 => return word.k,
                other => panic!("{other:#x}"),
            }
        }
    }

    const ALLOW: u32 = 0x7fff_0000;
    const EPERM: u32 = 0x0005_0001;
    const KILL: u32 = 0x8000_0000;
    const HERE: u32 = if cfg!(target_arch = "aarch64") { 0xC000_00B7 } else { 0xC000_003E };
    const BWRAP: Kind = Kind { namespaces: true, host_network: false };

    fn ask(kind: Kind, number: i64, args: [u64; 6]) -> u32 {
        answer(&program(kind).unwrap(), HERE, u32::try_from(number).unwrap(), args)
    }

    #[test]
    fn every_listed_call_is_refused_and_the_rest_is_allowed() {
        for namespaces in [true, false] {
            let kind = Kind { namespaces, host_network: false };
            let program = program(kind).unwrap();
            assert!(program.len() < 4096, "the kernel takes no more");
            for refused in kind.refused() {
                let args = match refused.when {
                    When::Always => [0; 6],
                    When::Is(index, values) => {
                        std::array::from_fn(|i| if i == usize::from(index) { values[0].into() } else { 0 })
                    }
                    When::HasBit(index, bits) => {
                        std::array::from_fn(|i| if i == usize::from(index) { bits[0] | 0x11 } else { 0 })
                    }
                    When::HasBits(first, all, second, bits) => std::array::from_fn(|i| {
                        if i == usize::from(first) {
                            all
                        } else if i == usize::from(second) {
                            bits[0] | 0o755
                        } else {
                            0
                        }
                    }),
                    When::IsNot(index, _) => {
                        std::array::from_fn(|i| if i == usize::from(index) { 40 } else { 0 })
                    }
                };
                assert_eq!(
                    answer(&program, HERE, u32::try_from(refused.number).unwrap(), args),
                    EPERM,
                    "{} {kind:?}",
                    refused.name
                );
            }
            for number in [libc::SYS_read, libc::SYS_openat, libc::SYS_execve, libc::SYS_futex, 444, 445, 446]
            {
                assert_eq!(answer(&program, HERE, u32::try_from(number).unwrap(), [0; 6]), ALLOW, "{number}");
            }
        }
    }

    #[test]
    fn arguments_decide_where_they_should() {
        let thread = 0x003d_0f00;
        assert_eq!(ask(BWRAP, libc::SYS_clone, [thread, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(ask(BWRAP, libc::SYS_clone, [thread | 0x1000_0000, 0, 0, 0, 0, 0]), EPERM);
        assert_eq!(ask(BWRAP, libc::SYS_unshare, [0x400, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(ask(BWRAP, libc::SYS_unshare, [0x80, 0, 0, 0, 0, 0]), EPERM);
        // The kernel reads the command of an ioctl as 32 bits: what stands above them must not hide it.
        assert_eq!(ask(BWRAP, libc::SYS_ioctl, [0, 0xFFFF_FFFF_0000_5412, 0, 0, 0, 0]), EPERM);
        assert_eq!(ask(BWRAP, libc::SYS_ioctl, [0, 0x5413, 0, 0, 0, 0]), ALLOW);
        assert_eq!(ask(BWRAP, libc::SYS_socket, [2, 1, 0, 0, 0, 0]), ALLOW);
        assert_eq!(ask(BWRAP, libc::SYS_socket, [40, 1, 0, 0, 0, 0]), EPERM);
        let alone = Kind { namespaces: false, host_network: false };
        assert_eq!(ask(alone, libc::SYS_socket, [2, 1, 0, 0, 0, 0]), EPERM);
        assert_eq!(ask(alone, libc::SYS_socketpair, [1, 1, 0, 0, 0, 0]), ALLOW);
        assert_eq!(ask(Kind { host_network: true, ..alone }, libc::SYS_socket, [2, 1, 0, 0, 0, 0]), ALLOW);
        let alone_online = Kind { host_network: true, ..alone };
        assert_eq!(ask(alone_online, libc::SYS_socket, [1, 1, 0, 0, 0, 0]), EPERM);
        assert_eq!(ask(alone, libc::SYS_socketpair, [1, 0x8_0802, 0, 0, 0, 0]), EPERM);
        assert_eq!(ask(alone, libc::SYS_socketpair, [1, 0x8_0805, 0, 0, 0, 0]), ALLOW);
        for (call, own, others) in [
            (libc::SYS_prlimit64, [0, 7], [1, 7]),
            (libc::SYS_sched_setaffinity, [0, 8], [1, 8]),
            (libc::SYS_setpriority, [0, 0], [0, 1]),
            (libc::SYS_setpriority, [0, 0], [2, 0]),
            (libc::SYS_ioprio_set, [1, 0], [1, 1]),
        ] {
            let ask = |kind, [first, second]: [u64; 2]| ask(kind, call, [first, second, 0, 0, 0, 0]);
            assert_eq!([ask(alone, own), ask(alone, others), ask(BWRAP, others)], [ALLOW, EPERM, ALLOW]);
        }
        assert_eq!(ask(alone, libc::SYS_fcntl, [0, 8, 0, 0, 0, 0]), EPERM);
        assert_eq!(ask(BWRAP, libc::SYS_fcntl, [0, 8, 0, 0, 0, 0]), ALLOW);
    }

    #[test]
    fn no_file_becomes_set_user_id() {
        let plain = 0o100_755;
        assert_eq!(ask(BWRAP, libc::SYS_fchmodat, [0, 0, plain, 0, 0, 0]), ALLOW);
        assert_eq!(ask(BWRAP, libc::SYS_fchmodat, [0, 0, plain | 0o4000, 0, 0, 0]), EPERM);
        assert_eq!(ask(BWRAP, libc::SYS_fchmod, [0, 0o2755, 0, 0, 0, 0]), EPERM);
        // Without O_CREAT nobody looks at the mode, and it may be anything.
        assert_eq!(ask(BWRAP, libc::SYS_openat, [0, 0, 0, 0o4755, 0, 0]), ALLOW);
        assert_eq!(ask(BWRAP, libc::SYS_openat, [0, 0, 0o101, 0o4755, 0, 0]), EPERM);
    }

    #[test]
    fn foreign_abis_are_killed_and_clone3_is_unknown() {
        let program = program(BWRAP).unwrap();
        let i386 = 0x4000_0003;
        assert_eq!(answer(&program, i386, 5, [0; 6]), KILL);
        assert_eq!([435, 437].map(|number| answer(&program, HERE, number, [0; 6])), [0x0005_0026; 2]);
        #[cfg(target_arch = "x86_64")]
        assert_eq!(answer(&program, HERE, 0x4000_0000, [0; 6]), KILL);
    }

    #[test]
    fn landlock_may_be_put_on_top() {
        for number in [444, 445, 446, 317] {
            assert_eq!(ask(BWRAP, number, [0; 6]), ALLOW);
        }
    }
}
