//! macOS: `sandbox-exec` with a profile made from the policy.
//!
//! The profile denies what it does not allow: files outside of the system and the policy's mounts, the network, other
//! processes. It has no mounts of its own, so everything stands where it stands on the host; it bounds no memory,
//! and no number of processes but the user's. Apple calls `sandbox-exec` deprecated, and keeps it.

use std::fmt::Write;

use super::policy::{Access, Network, Plan};

/// The system, to read and to run.
const SYSTEM: [&str; 9] = [
    "/usr",
    "/bin",
    "/sbin",
    "/System",
    "/Library/Apple",
    "/opt/homebrew",
    "/private/etc/ssl",
    "/private/var/db/timezone",
    "/private/var/select",
];

/// The profile of a plan; `temporary` is the folder that stands for `/tmp`.
pub(super) fn profile(plan: &Plan, temporary: &str) -> String {
    let mut text = String::from(
        "(version 1)\n(deny default)\n(allow process-exec process-fork)\n(allow signal (target same-sandbox))\n\
         (allow sysctl-read)\n(allow file-read-metadata)\n",
    );
    let mut allow = |what: &str, path: &str| {
        let _ = writeln!(text, "(allow {what} (subpath {}))", quoted(path));
    };
    for path in SYSTEM {
        allow("file-read*", path);
    }
    allow("file-read* file-write*", temporary);
    for mount in &plan.mounts {
        let what = if mount.access == Access::ReadWrite { "file-read* file-write*" } else { "file-read*" };
        allow(what, &mount.host.to_string_lossy());
    }
    for device in ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/tty"] {
        let _ = writeln!(text, "(allow file-read* file-write* (literal {}))", quoted(device));
    }
    if plan.network == Network::Host {
        text.push_str("(allow network*)\n(allow system-socket)\n");
    }
    text
}

/// A string of the profile's language: only these two characters end or change it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(target_os = "macos")]
pub(super) use backend::Seatbelt;

#[cfg(target_os = "macos")]
mod backend {
    use std::os::fd::OwnedFd;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::path::Path;
    use std::process::Stdio;

    use rustix::process::{Pid, Signal, kill_process_group};
    use tokio::net::unix::pipe;
    use tokio::sync::{mpsc, oneshot};
    use tokio_util::sync::CancellationToken;

    use super::super::policy::{BackendName, Plan};
    use super::super::probe::Check;
    use super::super::process::{Command, Ended, OutputStream, Started};
    use super::super::streams::{CHUNKS, feed, pump, signal_name};
    use super::super::{Backend, Launch};
    use super::profile;
    use crate::{Code, CoreError, Result};

    const SANDBOX_EXEC: &str = "/usr/bin/sandbox-exec";

    /// The backend.
    #[derive(Debug)]
    pub(in super::super) struct Seatbelt;

    impl Seatbelt {
        fn argv(plan: &Plan, command: &Command, temporary: &str) -> Vec<String> {
            let limits = format!(
                "ulimit -c 0 -f {} -u {}; {}cd \"$0\" && exec \"$@\"",
                plan.limits.file_bytes / 512,
                plan.limits.pids,
                plan.limits.cpu_seconds.map_or_else(String::new, |seconds| format!("ulimit -t {seconds}; ")),
            );
            let mut argv = [SANDBOX_EXEC, "-p", &profile(plan, temporary), "/bin/sh", "-c", &limits]
                .map(str::to_owned)
                .to_vec();
            argv.push(command.cwd(plan).to_owned());
            argv.extend(command.argv.iter().cloned());
            argv
        }
    }

    impl Backend for Seatbelt {
        fn name(&self) -> BackendName {
            BackendName::Seatbelt
        }

        fn launch(&self, _plan: &Plan, _command: &Command) -> Result<Launch> {
            // Nobody would then end what the command leaves behind.
            Err(CoreError::new(
                Code::SandboxUnavailable,
                "the backend seatbelt starts its commands itself: use run",
            )
            .missing("launch", "use `run`, or Linux"))
        }

        fn start(&self, plan: &Plan, command: &Command) -> Result<Started> {
            let wrong = |error: std::io::Error| {
                CoreError::new(Code::SandboxSpawn, format!("cannot start the command: {error}"))
                    .caused_by(error)
            };
            if command.pty {
                return Err(CoreError::new(Code::SandboxSpawn, "the backend seatbelt has no terminals"));
            }
            let unique = format!("openclaw-core-{}-{:x}", std::process::id(), rand_suffix());
            let temporary = std::env::temp_dir().join(unique);
            std::fs::create_dir(&temporary).map_err(wrong)?;
            let temporary = temporary.canonicalize().map_err(wrong)?;
            let here = temporary.to_string_lossy().into_owned();
            let words = Self::argv(plan, command, &here);
            let mut env = command.environment(plan);
            for name in ["HOME", "TMPDIR"] {
                if env.get(name).is_some_and(|value| value == "/tmp") {
                    env.insert(name.to_owned(), here.clone());
                }
            }
            let (program, args) =
                words.split_first().ok_or_else(|| wrong(std::io::ErrorKind::NotFound.into()))?;
            let stdin = if command.stdin.is_some() { Stdio::piped() } else { Stdio::null() };
            let mut child = std::process::Command::new(program)
                .args(args)
                .env_clear()
                .envs(env)
                .process_group(0)
                .stdin(stdin)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .map_err(wrong)?;
            let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            let (chunks, output) = mpsc::channel(CHUNKS);
            let kill = CancellationToken::new();
            let killed = kill.clone();
            let end_group = move || {
                if let Some(group) = group {
                    let _ = kill_process_group(group, Signal::KILL);
                }
            };
            tokio::spawn(async move {
                killed.cancelled().await;
                end_group();
            });
            // Whatever fails from here on ends what was started.
            let guard = kill.clone().drop_guard();
            if let Some(stdout) = child.stdout.take() {
                let stdout = pipe::Receiver::from_owned_fd(OwnedFd::from(stdout)).map_err(wrong)?;
                tokio::spawn(pump(stdout, OutputStream::Stdout, chunks.clone()));
            }
            if let Some(stderr) = child.stderr.take() {
                let stderr = pipe::Receiver::from_owned_fd(OwnedFd::from(stderr)).map_err(wrong)?;
                tokio::spawn(pump(stderr, OutputStream::Stderr, chunks));
            }
            if let (Some(stdin), Some(bytes)) = (child.stdin.take(), command.stdin.clone()) {
                let stdin = pipe::Sender::from_owned_fd(OwnedFd::from(stdin)).map_err(wrong)?;
                tokio::spawn(feed(stdin, bytes, kill.clone()));
            }
            let (ended, end) = oneshot::channel();
            // Not on the pool, whose few threads would all wait for as long as commands run.
            let wait = move || {
                let status = child.wait();
                end_group();
                let _ = std::fs::remove_dir_all(&temporary);
                let end = status
                    .map(|status| Ended {
                        exit_code: status.code(),
                        signal: status.signal().map(signal_name),
                        bounded_by: ("none".to_owned(), "ulimit".to_owned()),
                        ..Ended::default()
                    })
                    .map_err(wrong);
                let _ = ended.send(end);
            };
            std::thread::Builder::new()
                .name("openclaw-core-sandbox".to_owned())
                .spawn(wait)
                .map_err(wrong)?;
            Ok(Started { output, end, kill, guard })
        }

        fn observer(&self) -> Option<Command> {
            // What a sandbox must refuse; the rest of an observation is Linux's.
            let script = "if cat /etc/master.passwd /private/etc/sudoers >/dev/null 2>&1 || ls /Users >/dev/null 2>&1; \
                          then exit 1; fi; printf '{\"system\":\"macOS\"}'";
            Some(Command::shell(script))
        }

        fn fit(&self, mut plan: Plan) -> Result<Plan> {
            let given = plan.workspace_mount_given;
            for (at, mount) in plan.mounts.iter_mut().enumerate() {
                let host = mount.host.display().to_string();
                if mount.mount == plan.workspace && !given {
                    mount.mount.clone_from(&host);
                    plan.workspace.clone_from(&host);
                }
                if mount.mount != host {
                    let message =
                        format!("sandbox policy: backend seatbelt cannot show {host} as {}", mount.mount);
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
            if Path::new(SANDBOX_EXEC).exists() {
                vec![Check::passed("sandbox-exec", SANDBOX_EXEC)]
            } else {
                vec![Check::failed("sandbox-exec", "it is not there", "use a macOS that has it")]
            }
        }

        fn diagnose(&self, error: &CoreError) -> Check {
            Check::failed("sandbox-exec", error.message(), "run outside of another sandbox")
        }
    }

    fn rand_suffix() -> u64 {
        let mut bytes = [0; 8];
        let _ = getrandom::fill(&mut bytes);
        u64::from_ne_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::policy::{BackendName, Limits, Mount};

    fn plan(network: Network) -> Plan {
        let mount = |host: &str, access| Mount { host: host.into(), mount: host.into(), access };
        Plan {
            workspace: "/w".into(),
            workspace_mount_given: false,
            mounts: vec![mount("/w", Access::ReadWrite), mount("/r\"(allow default)", Access::ReadOnly)],
            network,
            env: std::collections::BTreeMap::new(),
            limits: Limits::default(),
            backend: BackendName::Seatbelt,
        }
    }

    #[test]
    fn a_profile_denies_first_and_allows_what_the_policy_says() {
        let text = profile(&plan(Network::None), "/t");
        assert!(text.starts_with("(version 1)\n(deny default)\n"));
        assert!(text.contains("(allow file-read* file-write* (subpath \"/w\"))"));
        assert!(!text.contains("network"));
        assert!(profile(&plan(Network::Host), "/t").contains("(allow network*)"));
    }

    #[test]
    fn a_path_cannot_add_a_rule() {
        let text = profile(&plan(Network::None), "/t");
        assert!(text.contains(r#"(subpath "/r\"(allow default)")"#), "{text}");
        assert!(!text.lines().any(|line| line.starts_with("(allow default)")));
    }
}
