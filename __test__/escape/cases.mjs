// The attacks. Each is run on the host first, where it must go through, and then, unchanged, in the sandbox.
//
// `sh` and `argv` are what is run; exit code 0 means that it went through, 3 that the kernel has no such thing. What
// needs more is a function `attack(run, context)`.
import { openSync } from "node:fs";
import { join } from "node:path";

const MARK = "OUTSIDE-SECRET";
/** Goes through if the text that the secret files hold comes out. */
const shows = (command) =>
  `got=$(${command} 2>&1); echo "$got"; case "$got" in *${MARK}*) exit 0;; esac; exit 1`;
const reads = (command) => ({ sh: shows(command) });
const attack = (...args) => ({
  argv: (context) => [context.attack, ...args.map((arg) => (typeof arg === "function" ? arg(context) : arg))],
});
const root = (context) => (context.root ? undefined : "only root can do it on the host");

/** Refused if the kernel, reached, says EPERM; or ENOSYS, where the host knows the call. */
function call(name, applies) {
  return {
    area: "kernel",
    name: `system call ${name}`,
    applies,
    async attack(run, context) {
      const { code, out, signal } = await run([context.attack, "call", name]);
      const absent = code === 3 && context.place === "host";
      // EPERM on the host: an unprivileged user is not let near it, so there is nothing to show.
      const denied = code === 1 && context.place === "host";
      return {
        through: code === 0,
        absent: absent || denied ? `the kernel answers ${out.trim()} on the host, too` : undefined,
        detail: signal ?? out.trim(),
      };
    },
  };
}

/** Whether a process that is started as a victim can be got at. */
function victim(name, area, words) {
  return {
    area,
    name,
    async attack(run, context) {
      const { pid, at, end } = await context.victim();
      const result = await run([context.attack, ...words(pid, at)]);
      const alive = await end(result.code === 0 && words(pid, at)[0] === "kill" ? 5000 : 0);
      if (words(pid, at)[0] === "kill") return { through: !alive, detail: result.out.trim() };
      return { through: result.code === 0, detail: result.out.trim() };
    },
  };
}

export const cases = [
  // ── files ──
  { area: "files", name: "read a key in a home", ...reads('cat "$OUT/home/.ssh/id_ed25519"') },
  {
    area: "files",
    name: "read OpenClaw's state directory",
    ...reads('cat "$OUT/home/.openclaw/credentials/oauth.json"'),
  },
  { area: "files", name: "read another agent's workspace", ...reads('cat "$OUT/other-workspace/secret"') },
  { area: "files", name: "list a home", sh: 'ls -A "$OUT/home" | grep -q .' },
  { area: "files", name: "read /etc/shadow", sh: "head -c1 /etc/shadow | grep -q .", applies: root },
  { area: "files", name: "write outside", sh: 'echo x > "$OUT/written"' },
  { area: "files", name: "make a folder outside", sh: 'mkdir "$OUT/made" && rmdir "$OUT/made"' },
  { area: "files", name: "write what is mounted read-only", sh: 'echo x >> "$RO/file"' },
  {
    area: "files",
    name: "write into the system",
    sh: "echo x > /usr/.openclaw-escape && rm /usr/.openclaw-escape",
    applies: root,
  },
  {
    area: "files",
    name: "overwrite the launcher (CVE-2019-5736)",
    argv: (context) => [
      context.attack,
      "open-write",
      context.place === "host" ? context.copyOfInit : "/run/openclaw-core-init",
    ],
  },
  { area: "files", name: "read through a symbolic link", ...reads('ln -sfn "$OUT/secret" link; cat link') },
  {
    area: "files",
    name: "write through a symbolic link",
    sh: 'ln -sfn "$OUT/through-link" wlink; echo x > wlink',
  },
  {
    area: "files",
    name: "read through a link to a folder",
    ...reads('ln -sfn "$OUT" dlink; cat dlink/secret'),
  },
  { area: "files", name: "hard link to outside", ...reads('ln -f "$OUT/secret" hard && cat hard') },
  { area: "files", name: "..", ...reads('cat "../../../../../../../../..$OUT/secret"') },
  { area: "files", name: "/proc/self/root", ...reads('cat "/proc/self/root$OUT/secret"') },
  { area: "files", name: "/proc/self/cwd/..", ...reads('cat "/proc/self/cwd/../../../../..$OUT/secret"') },
  { area: "files", name: "/proc/PID/root of the gateway", ...reads('cat "/proc/$GATEWAY/root$OUT/secret"') },
  { area: "files", name: "/proc/PID/cwd of the gateway", ...reads('cat "/proc/$GATEWAY/cwd/secret"') },
  { area: "files", name: "/dev/fd of the gateway", ...reads('cat "/proc/$GATEWAY/fd/$SECRET_FD"') },
  {
    area: "files",
    name: "mount over, in a namespace of its own",
    ...reads("unshare -rm sh -c 'mount --bind \"$OUT\" /usr/local && cat /usr/local/secret'"),
  },
  {
    area: "files",
    name: "bubblewrap in the sandbox, with everything bound",
    ...reads('bwrap --dev-bind / / cat "$OUT/secret"'),
  },
  {
    area: "files",
    name: "rename the root that may be written",
    sh: 'mv "$WS" "$WS.moved" && mv "$WS.moved" "$WS"',
  },
  {
    area: "files",
    name: "device of its own",
    ...attack("mknod", ({ ws, place }) => join(ws, `device-${place}`)),
    applies: root,
  },
  {
    area: "files",
    name: "set-user-ID file for the host, by chmod",
    ...attack("setuid", ({ ws }) => join(ws, "setuid")),
  },
  {
    area: "files",
    name: "set-user-ID file for the host, by open",
    ...attack("setuid-open", ({ ws, place }) => join(ws, `setuid-${place}`)),
  },
  {
    area: "files",
    name: "change the mode of a read-only file by its descriptor",
    sh: `perl -e 'open my $f, "<", shift or exit 1; chmod 0666, $f or exit 1' "$RO/file"`,
  },
  {
    area: "files",
    name: "mark a read-only file by its descriptor (FS_IOC_SETFLAGS)",
    ...attack("flags", ({ ro }) => join(ro, "file")),
  },
  {
    area: "files",
    name: "read the names in a home as they come (inotify)",
    ...attack("inotify", ({ out }) => join(out, "home")),
  },
  {
    area: "files",
    name: "read another terminal of the user",
    attack: (run, context) => context.terminal(run),
  },
  {
    area: "files",
    name: "case alias",
    applies: () => "the filesystem tells names apart by case",
    sh: "false",
  },
  {
    area: "files",
    name: "swap a mount's source for a link, 1,000,000 times (CVE-2026-44112)",
    attack: (run, context) => context.race(run),
  },
  {
    area: "files",
    name: "swap the way to a mount point for a link",
    attack: (_run, context) => context.raceForMountPoint(),
  },

  // ── sockets and network ──
  {
    area: "sockets",
    name: "Unix socket by path (Docker's, an agent's)",
    ...attack("unix", ({ unix }) => unix),
  },
  {
    area: "sockets",
    name: "Unix socket in /run",
    ...attack("unix", ({ runSocket }) => runSocket),
    applies: root,
  },
  {
    area: "sockets",
    name: "abstract Unix socket (X11, D-Bus)",
    ...attack("abstract", ({ abstract }) => abstract),
  },
  { area: "network", name: "TCP service of this machine", ...attack("tcp", ({ tcp }) => tcp) },
  {
    area: "network",
    name: "TCP service of this machine, IPv6-mapped",
    ...attack("tcp", ({ tcp }) => tcp.replace("127.0.0.1", "[::ffff:127.0.0.1]")),
  },
  { area: "network", name: "UDP service of this machine (DNS)", ...attack("udp", ({ udp }) => udp) },
  {
    area: "network",
    name: "route to the name server",
    ...attack("route", ({ nameserver }) => `${nameserver}:53`),
    applies: (context) =>
      context.nameserver ? context.hasRoute(`${context.nameserver}:53`) : "resolv.conf names none",
  },
  {
    area: "network",
    name: "route to the cloud's metadata",
    ...attack("route", "169.254.169.254:80"),
    applies: (context) => context.hasRoute("169.254.169.254:80"),
  },
  {
    area: "network",
    name: "route to the cloud's metadata, IPv6",
    ...attack("route", "[fd00:ec2::254]:80"),
    applies: (context) => context.hasRoute("[fd00:ec2::254]:80"),
  },
  call("socket(AF_VSOCK)"),
  call("socket(AF_ALG)"),
  call("socket(AF_PACKET)"),

  // ── processes ──
  victim("read the gateway's memory by process_vm_readv", "processes", (pid, at) => ["vm-read", pid, at]),
  victim("read the gateway's memory by /proc/PID/mem", "processes", (pid, at) => ["mem-read", pid, at]),
  victim("ptrace the gateway", "processes", (pid) => ["attach", pid]),
  victim("take the gateway's descriptor", "processes", (pid) => ["fd-steal", pid]),
  victim("signal the gateway", "processes", (pid) => ["kill", pid]),
  {
    area: "processes",
    name: "change the gateway's limits",
    sh: 'prlimit --pid "$GATEWAY" --nofile=1000:1000',
  },
  {
    area: "processes",
    name: "move the gateway to one processor",
    sh: 'taskset -p -c 0 "$GATEWAY"',
    // Root without capabilities may not, whatever the sandbox does.
    applies: (context) => (context.root ? "root's capabilities protect what root runs" : undefined),
  },
  {
    area: "processes",
    name: "memory that the gateway shares (System V)",
    attack: (run, context) => context.sharedMemory(run),
  },
  {
    area: "processes",
    name: "see the gateway in /proc",
    sh: 'tr "\\0" " " < "/proc/$GATEWAY/cmdline" | grep -q .',
  },
  {
    area: "processes",
    name: "read the gateway's environment",
    sh: 'tr "\\0" "\\n" < "/proc/$GATEWAY/environ" | grep -q ^GATEWAY_TOKEN=',
  },
  {
    area: "processes",
    name: "the gateway's environment is inherited",
    attack: async (run) => {
      const { out } = await run(["/usr/bin/env"], { inherit: true });
      return { through: /^GATEWAY_TOKEN=/m.test(out), detail: `${out.trim().split("\n").length} variables` };
    },
  },
  {
    area: "processes",
    name: "environment of the processes that set the sandbox up",
    attack: async (run) => {
      const { out } = await run("cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'", { inherit: true });
      return { through: /^GATEWAY_TOKEN=/m.test(out), detail: `${out.length} bytes` };
    },
  },
  {
    area: "processes",
    name: "a descriptor that the gateway left open",
    attack: async (run, context) => {
      const { code, out } = await run(shows("cat <&3"), { descriptor: openSync(context.secret, "r") });
      return { through: code === 0, detail: out.trim() };
    },
  },
  {
    area: "processes",
    name: "a loader's variable reaches the launcher (LD_*)",
    attack: async (run, context) => {
      // The loader then lists libraries and runs nothing: what the launcher is must not be told by the command's variables.
      const env = { LD_TRACE_LOADED_OBJECTS: "1" };
      const command = context.place === "host" ? ["bwrap", "--version"] : [context.attack, "calls"];
      const { out } = await run(command, { env });
      return { through: /lib\S*\.so/.test(out), detail: out.trim().split("\n")[0] };
    },
  },
  {
    area: "processes",
    name: "PATH leads the launcher to another bubblewrap",
    attack: async (run, context) => {
      const { out } = await run(context.place === "host" ? "bwrap" : "true", {
        env: { PATH: `${context.ws}/fake:/usr/bin:/bin` },
      });
      return { through: out.includes("FAKE"), detail: out.trim() };
    },
  },
  {
    area: "processes",
    name: "arguments are read again by a shell (CVE-2026-28463)",
    attack: async (run, context) => {
      const text = "$(echo EXPANDED)";
      // On the host: what a launcher does that joins arguments.
      const command = context.place === "host" ? `printf %s "${text}"` : ["printf", "%s", text];
      const { out } = await run(command);
      return { through: out.includes("EXPANDED") && !out.includes("echo"), detail: out.trim() };
    },
  },
  {
    area: "processes",
    name: "ANSI escapes in what is shown for approval",
    applies: () => "the core asks for no approval; its errors hold no control characters (unit test)",
    sh: "false",
  },
  {
    area: "processes",
    name: "a child agent with a weaker policy (GHSA-474h-prjg-mmw3)",
    applies: () => "the sandbox starts no agents; a policy cannot be changed after create",
    sh: "false",
  },

  // ── kernel ──
  { area: "kernel", name: "user namespace by unshare", ...attack("unshare") },
  { area: "kernel", name: "user namespace by clone", ...attack("clone") },
  { area: "kernel", name: "io_uring", ...attack("io_uring") },
  { area: "kernel", name: "keyring", ...attack("keyring") },
  { area: "kernel", name: "typing into a terminal (TIOCSTI, CVE-2017-5226)", ...attack("tiocsti") },
  { area: "kernel", name: "system calls of i386", ...attack("int80") },
  { area: "kernel", name: "system calls of x32", ...attack("x32") },
  {
    area: "kernel",
    name: "core_pattern",
    ...attack("open-write", "/proc/sys/kernel/core_pattern"),
    applies: root,
  },
  {
    area: "kernel",
    name: "kernel.pid_max",
    ...attack("open-write", "/proc/sys/kernel/pid_max"),
    applies: root,
  },
  ...[
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "kcmp",
    "pidfd_getfd",
    "process_madvise",
    "move_pages",
    "add_key",
    "request_key",
    "keyctl",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "open_tree",
    "move_mount",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "mount_setattr",
    "open_by_handle_at",
    "setns",
    "kexec_load",
    "init_module",
    "finit_module",
    "delete_module",
    "swapon",
    "swapoff",
    "acct",
    "quotactl",
    "fanotify_init",
    "syslog",
    "settimeofday",
    "ioctl(TIOCSTI)",
    "ioctl(TIOCLINUX)",
    "ioctl(TIOCSTI) with a high half",
    "clone3(CLONE_NEWUSER)",
    "openat2",
  ].map((name) => call(name)),

  // ── resources ──
  { area: "resources", name: "fork bomb (200)", ...attack("forks", "200") },
  { area: "resources", name: "memory bomb (256 MiB)", ...attack("memory", "256") },
  {
    area: "resources",
    name: "fill the disk with one file (8 MiB)",
    sh: "head -c 8388608 /dev/zero > big; s=$(wc -c < big); rm -f big; test $s -eq 8388608",
  },
  {
    area: "resources",
    name: "fill /tmp (8 MiB)",
    sh: "d=$(mktemp -d --tmpdir fill.XXXXXX); i=0; while [ $i -lt 16 ]; do head -c 524288 /dev/zero > $d/$i || break; i=$((i+1)); done; s=$(cat $d/* | wc -c); rm -rf $d; test $s -eq 8388608",
    only: ["all", "-seccomp", "-landlock"],
  },
  {
    area: "resources",
    name: "output flood (32 MiB) held in memory",
    attack: async (run, context) => {
      const bytes = await context.flood(run, 32 << 20);
      return { through: bytes > 8 << 20, detail: `${bytes} bytes kept` };
    },
    only: ["all"],
  },
  {
    area: "resources",
    name: "outlive the end: double fork, setsid, SIGSTOP, ignored signals",
    attack: (run, context) => context.survive(run),
  },
];
