//! Linux: bubblewrap with seccomp and Landlock in it, or those two alone. `openclaw-core-init` carries both out.

use std::collections::BTreeMap;
use std::io::{IoSlice, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as Socket;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::policy::{Access, BackendName, Network, Plan};
use super::probe::Check;
use super::process::{Command, Ended, OutputStream, Started};
use super::spec::{Bind, ENV_VARIABLE, INIT_INSIDE, Spec, env_to_text, pack};
use super::streams::{CHUNKS, feed, pump, signal_name};
use super::{Backend, Launch};
use crate::{Code, CoreError, Result};

/// The executable, beside the binary of the core.
const INIT: &str = "openclaw-core-init";

/// How long it may take to kill a command before the executable itself is killed, which kills all the same.
const KILLING: Duration = Duration::from_millis(1500);

/// One of the two backends.
#[derive(Debug)]
pub(super) struct Linux {
    name: BackendName,
    /// Found at the first use.
    tools: Mutex<Option<Tools>>,
}

#[derive(Clone, Debug)]
struct Tools {
    init: PathBuf,
    bwrap: Option<PathBuf>,
    bwrap_options: Vec<String>,
}

impl Linux {
    pub(super) fn new(name: BackendName) -> Self {
        Self { name, tools: Mutex::new(None) }
    }

    fn tools(&self) -> Result<Tools, Check> {
        let mut found = self.tools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tools) = &*found {
            return Ok(tools.clone());
        }
        let init = find_init()?;
        let (bwrap, bwrap_options) = match self.name {
            BackendName::Bwrap => {
                let bwrap = find_bwrap().ok_or_else(|| {
                    Check::failed(
                        "bubblewrap",
                        "there is no bwrap on PATH",
                        "install the package `bubblewrap`",
                    )
                })?;
                let options = bwrap_options(&bwrap)?;
                (Some(bwrap), options)
            }
            _ => (None, Vec::new()),
        };
        let tools = Tools { init, bwrap, bwrap_options };
        *found = Some(tools.clone());
        Ok(tools)
    }

    fn spec(&self, plan: &Plan, command: &Command) -> Result<(Tools, Spec, Vec<String>)> {
        let tools = self.tools().map_err(|check| {
            CoreError::new(Code::SandboxUnavailable, format!("no sandbox: {}: {}", check.name, check.detail))
                .missing(check.name, check.remedy.unwrap_or_default())
        })?;
        let path = |path: &Path| {
            path.to_str().map(str::to_owned).ok_or_else(|| {
                CoreError::new(Code::SandboxPolicy, format!("{} is no Unicode text", path.display()))
            })
        };
        let binds = plan
            .mounts
            .iter()
            .map(|mount| {
                let host = path(&mount.host)?;
                Ok(Bind { host, mount: mount.mount.clone(), write: mount.access == Access::ReadWrite })
            })
            .collect::<Result<Vec<_>>>()?;
        let workspace_is_mounted =
            binds.iter().any(|bind| bind.mount == plan.workspace) || plan.workspace == "/";
        let spec = Spec {
            bwrap: tools.bwrap.as_deref().map(path).transpose()?,
            bwrap_options: tools.bwrap_options.clone(),
            binds,
            host_network: plan.network == Network::Host,
            empty_dir: (tools.bwrap.is_some() && !workspace_is_mounted).then(|| plan.workspace.clone()),
            private_tmp: None,
            cwd: command.cwd(plan).to_owned(),
            pty: command.pty,
            memory: plan.limits.memory_bytes,
            pids: plan.limits.pids.into(),
            cpu: plan.limits.cpu_seconds.unwrap_or(0).into(),
            file: plan.limits.file_bytes,
            wall: plan.limits.wall_ms,
            command: command.argv.clone(),
        };
        let env =
            command.environment(plan).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        Ok((tools, spec, env))
    }
}

impl Backend for Linux {
    fn name(&self) -> BackendName {
        self.name
    }

    fn launch(&self, plan: &Plan, command: &Command) -> Result<Launch> {
        let (tools, spec, env) = self.spec(plan, command)?;
        let mut argv = vec![tools.init.display().to_string(), "run".to_owned()];
        argv.extend(spec.to_args());
        Ok(Launch { argv, env: BTreeMap::from([(ENV_VARIABLE.to_owned(), env_to_text(&env))]) })
    }

    fn start(&self, plan: &Plan, command: &Command) -> Result<Started> {
        let (tools, mut spec, env) = self.spec(plan, command)?;
        // The core keeps the time, and knows why it kills.
        spec.wall = 0;
        let wrong = |what: &str, error: std::io::Error| {
            CoreError::new(Code::SandboxSpawn, format!("cannot start the command: {what}: {error}"))
                .caused_by(error)
        };
        let (ours, theirs) = Socket::pair().map_err(|error| wrong("socket", error))?;
        // Descriptors are closed on exec, and so reach no other process that Node starts meanwhile.
        let mut child = std::process::Command::new(&tools.init)
            .arg("control")
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| wrong(&tools.init.display().to_string(), error))?;
        let streams = child.stdout.take().map(OwnedFd::from).zip(child.stderr.take().map(OwnedFd::from));
        let begun = (|| {
            let (stdin, writer) = match &command.stdin {
                Some(bytes) if !bytes.is_empty() => {
                    let (reader, writer) = std::io::pipe()?;
                    (OwnedFd::from(reader), Some(OwnedFd::from(writer)))
                }
                _ => (OwnedFd::from(std::fs::File::open("/dev/null")?), None),
            };
            tell(&ours, &pack([&spec.to_args(), &env]), &stdin)?;
            drop(stdin);
            let (stdout, stderr) = streams.ok_or(std::io::ErrorKind::BrokenPipe)?;
            ours.set_nonblocking(true)?;
            let control = UnixStream::from_std(ours)?;
            let writer = writer.map(pipe::Sender::from_owned_fd).transpose()?;
            Ok((
                control,
                pipe::Receiver::from_owned_fd(stdout)?,
                pipe::Receiver::from_owned_fd(stderr)?,
                writer,
            ))
        })();
        let (control, stdout, stderr, writer) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(wrong("its sandbox", error));
            }
        };
        let (chunks, output) = mpsc::channel(CHUNKS);
        tokio::spawn(pump(stdout, OutputStream::Stdout, chunks.clone()));
        tokio::spawn(pump(stderr, OutputStream::Stderr, chunks));
        let kill = CancellationToken::new();
        if let (Some(writer), Some(bytes)) = (writer, command.stdin.clone()) {
            tokio::spawn(feed(writer, bytes, kill.clone()));
        }
        let (ended, end) = oneshot::channel();
        tokio::spawn(attend(child, control, kill.clone(), ended));
        Ok(Started { output, end, guard: kill.clone().drop_guard(), kill })
    }

    fn observer(&self) -> Option<Command> {
        let program = match self.name {
            BackendName::Bwrap => INIT_INSIDE.to_owned(),
            _ => self.tools().ok()?.init.display().to_string(),
        };
        Some(Command::new([program, "observe".to_owned()]))
    }

    fn fit(&self, mut plan: Plan) -> Result<Plan> {
        if self.name == BackendName::Bwrap {
            return Ok(plan);
        }
        // Without a mount namespace everything is where it is on the host.
        let given = plan.workspace_mount_given;
        for (at, mount) in plan.mounts.iter_mut().enumerate() {
            let host = mount.host.display().to_string();
            if mount.mount == plan.workspace && !given {
                mount.mount.clone_from(&host);
                plan.workspace.clone_from(&host);
            }
            if mount.mount != host {
                let message = format!(
                    "sandbox policy: backend landlock cannot show {host} as {}: it has no mounts of its own; leave `mount` \
                     out for the workspace, and make it equal to `host` elsewhere",
                    mount.mount
                );
                return Err(
                    CoreError::new(Code::SandboxPolicy, message).at_path(format!("mounts[{at}].mount"))
                );
            }
        }
        if !plan.mounts.iter().any(|mount| mount.mount == plan.workspace) {
            "/".clone_into(&mut plan.workspace);
        }
        Ok(plan)
    }

    fn checks(&self) -> Vec<Check> {
        match self.tools() {
            Err(check) => vec![check],
            Ok(tools) => {
                let mut checks = vec![Check::passed(INIT, tools.init.display().to_string())];
                if let Some(bwrap) = &tools.bwrap {
                    checks.push(Check::passed("bubblewrap", bwrap.display().to_string()));
                    checks.push(Self::user_namespaces(bwrap));
                }
                checks
            }
        }
    }

    fn diagnose(&self, error: &CoreError) -> Check {
        let words = error.message();
        if words.contains("no limit on processes") {
            let remedy =
                "run as another user than root, or give this process a cgroup (systemd: Delegate=yes)";
            return Check::failed("pids-limit", words, remedy);
        }
        if words.contains("Landlock") {
            let remedy =
                "use Linux 6.12 or newer, with landlock among its security modules (kernel parameter lsm=)";
            return Check::failed("landlock", words, remedy);
        }
        if self.name != BackendName::Bwrap {
            return Check::failed("seccomp", words, "use a kernel with CONFIG_SECCOMP_FILTER");
        }
        if words.contains("loopback") || words.contains("RTM_NEWADDR") {
            let remedy = "something keeps bubblewrap from setting up a loopback device (often a container): use network \"host\", or the backend landlock";
            return Check::failed("network-namespace", words, remedy);
        }
        Check::failed("bubblewrap", words, "see what bubblewrap says")
    }
}

impl Linux {
    /// The one thing that everything else here stands on, by itself.
    fn user_namespaces(bwrap: &Path) -> Check {
        let tried = std::process::Command::new(bwrap)
            .args(["--unshare-user", "--ro-bind", "/", "/", "--", "/proc/self/exe", "--version"])
            .env_clear()
            .stdin(Stdio::null())
            .output();
        let words = match tried {
            Ok(output) if output.status.success() => {
                return Check::passed("user-namespaces", String::from_utf8_lossy(&output.stdout).trim());
            }
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        let setting = |name: &str| std::fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
        let remedy = if setting("kernel/apparmor_restrict_unprivileged_userns").trim() == "1" {
            "AppArmor keeps user namespaces from programs without a profile (Ubuntu 23.10 and later): add a profile for \
             bwrap with the rule `userns,`, or set kernel.apparmor_restrict_unprivileged_userns=0"
        } else if setting("kernel/unprivileged_userns_clone").trim() == "0" {
            "set kernel.unprivileged_userns_clone=1"
        } else if setting("user/max_user_namespaces").trim() == "0" {
            "set user.max_user_namespaces to more than 0"
        } else {
            "in a container, allow user namespaces (Docker: --security-opt seccomp=unconfined), or use the backend landlock"
        };
        Check::failed("user-namespaces", words, remedy)
    }
}

/// The executable: where this binary was loaded from.
fn find_init() -> Result<PathBuf, Check> {
    let missing = |detail: String| {
        Check::failed(
            INIT,
            detail,
            "install @openclaw/core with its optional dependencies, so that its Linux package is there",
        )
    };
    let own =
        own_file().ok_or_else(|| missing("it is not known where the core was loaded from".to_owned()))?;
    let path = own.with_file_name(INIT);
    let metadata = path.metadata().map_err(|error| missing(format!("{}: {error}", path.display())))?;
    let mode = metadata.permissions().mode();
    if mode & 0o111 == 0 {
        // Some archives forget it.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode | 0o555)).map_err(|error| {
            let remedy = format!("run `chmod +x {}`", path.display());
            Check::failed(INIT, format!("{} may not be run: {error}", path.display()), remedy)
        })?;
    }
    Ok(path)
}

/// The file that holds this code, as the kernel has it mapped.
fn own_file() -> Option<PathBuf> {
    let here = own_file as fn() -> Option<PathBuf> as usize;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let (range, _) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let inside =
            usize::from_str_radix(from, 16).ok()? <= here && here < usize::from_str_radix(to, 16).ok()?;
        // The path is the sixth field, and may hold spaces.
        inside.then(|| line.find('/').and_then(|at| line.get(at..)).map(PathBuf::from))?
    })
}

fn find_bwrap() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .chain(["/usr/bin", "/usr/local/bin", "/bin"].map(PathBuf::from))
        .map(|dir| dir.join("bwrap"))
        .find(|file| {
            file.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        })
}

/// Which options that not every version has this one does.
fn bwrap_options(bwrap: &Path) -> Result<Vec<String>, Check> {
    let old = "install bubblewrap 0.5 or newer";
    let help = std::process::Command::new(bwrap)
        .arg("--help")
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Check::failed("bubblewrap", format!("{}: {error}", bwrap.display()), old))?;
    let help = String::from_utf8_lossy(&help.stdout).into_owned() + &String::from_utf8_lossy(&help.stderr);
    let has = |option: &str| {
        help.lines().any(|line| line.split_whitespace().next() == Some(&format!("--{option}")))
    };
    if let Some(missing) =
        ["args", "seccomp", "as-pid-1", "perms", "size", "clearenv"].iter().find(|option| !has(option))
    {
        return Err(Check::failed("bubblewrap", format!("{} has no --{missing}", bwrap.display()), old));
    }
    Ok(["disable-userns", "bind-fd"].into_iter().filter(|option| has(option)).map(str::to_owned).collect())
}

/// The length, with the descriptor that the command reads from; then the rest.
fn tell(control: &Socket, told: &[u8], stdin: &OwnedFd) -> std::io::Result<()> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    let length =
        u32::try_from(told.len()).map_err(|_| std::io::ErrorKind::ArgumentListTooLong)?.to_le_bytes();
    let descriptors = [stdin.as_fd()];
    let mut room = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut room);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(control, &[IoSlice::new(&length)], &mut ancillary, SendFlags::NOSIGNAL)?;
    let mut control = control;
    control.write_all(told)
}

/// Waits for the end; closes its side of the socket when the command is to be killed.
async fn attend(
    mut child: Child,
    control: UnixStream,
    kill: CancellationToken,
    ended: oneshot::Sender<Result<Ended>>,
) {
    let mut said = Vec::new();
    let mut killing = false;
    let deadline = async {
        kill.cancelled().await;
        tokio::time::sleep(KILLING).await;
    };
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            biased;
            () = kill.cancelled(), if !killing => {
                killing = true;
                let _ = rustix::net::shutdown(&control, rustix::net::Shutdown::Write);
            }
            () = &mut deadline => {
                // With it goes everything else: the kernel sees to that.
                let _ = child.kill();
                break;
            }
            ready = control.readable() => {
                if ready.is_err() { break; }
                let mut room = [0; 512];
                match control.try_read(&mut room) {
                    Ok(0) => break,
                    Ok(length) => {
                        said.extend_from_slice(room.get(..length).unwrap_or_default());
                        // Every process is gone; what the executable still clears away, nobody waits for.
                        if said.ends_with(b"\n") { break; }
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
            }
        }
    }
    let silent = !said.ends_with(b"\n");
    let reap = tokio::task::spawn_blocking(move || child.wait());
    if silent
        && let Ok(Ok(status)) = reap.await
        && status.code().is_some_and(|code| code != 0)
    {
        // It failed before it could say why there; it has said so on its standard error.
        let message = format!("the command did not start: {INIT} failed ({status})");
        let _ = ended.send(Err(CoreError::new(Code::SandboxSpawn, message)));
        return;
    }
    let _ = ended.send(read_end(&String::from_utf8_lossy(&said)));
}

/// What the executable says in the end.
fn read_end(said: &str) -> Result<Ended> {
    let mut fields = said.trim_end().split('\t');
    let kind = fields.next();
    let mut next = || fields.next().unwrap_or_default();
    match kind {
        Some("end") => {
            let (exit, signal) = (next().parse().ok(), next().parse().ok());
            let cpu_us: f64 = next().parse().unwrap_or_default();
            let peak_memory_bytes = next().parse().unwrap_or_default();
            Ok(Ended {
                exit_code: exit,
                signal: signal.map(signal_name),
                cpu_ms: cpu_us / 1000.0,
                peak_memory_bytes,
                bounded_by: (next().to_owned(), next().to_owned()),
            })
        }
        Some("failed") => {
            // What is shown to people must not move their cursor.
            let words: String = next().chars().filter(|char| !char.is_control()).collect();
            Err(CoreError::new(Code::SandboxSpawn, format!("the command did not start: {words}")))
        }
        // Killed by hand, or by the kernel for want of memory.
        _ => Ok(Ended { signal: Some("SIGKILL".to_owned()), ..Ended::default() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_code_is_in_the_file_of_the_tests() {
        assert_eq!(own_file().unwrap(), std::env::current_exe().unwrap().canonicalize().unwrap());
    }

    #[test]
    fn an_end_is_read_and_silence_is_a_kill() {
        let end = read_end("end\t-\t9\t1500\t4096\tcgroup-v1\trlimit-nproc\n").unwrap();
        assert_eq!(
            (end.exit_code, end.signal.as_deref(), end.peak_memory_bytes),
            (None, Some("SIGKILL"), 4096)
        );
        assert_eq!(end.bounded_by, ("cgroup-v1".to_owned(), "rlimit-nproc".to_owned()));
        assert_eq!(read_end("failed\tno such file\n").unwrap_err().code(), Code::SandboxSpawn);
        assert_eq!(read_end("").unwrap().signal.as_deref(), Some("SIGKILL"));
    }
}
