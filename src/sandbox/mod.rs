//! A sandbox without Docker: commands that see only what a policy mounts, reach no network, and end with all they
//! started.
//!
//! | file | holds |
//! |---|---|
//! | `policy` | [`SandboxPolicy`], checked once into a [`Plan`] |
//! | `probe` | what works here: each primitive, run for real |
//! | `process` | [`Command`], streams, timeouts, [`ProcessResult`] |
//! | `fs` | [`fs::SandboxFs`]: the sandbox's files, without a command |
//! | `linux` | the backends `bwrap` and `landlock`: both are carried out by `openclaw-core-init` |
//! | `seatbelt` | macOS: `sandbox-exec` |
//! | `job_object` | Windows: a job object and a restricted token. It bounds and ends commands, and keeps them from writing |
//! | `streams` | pipes of a process, to and from the runtime |
//! | `spec` | what the core tells `openclaw-core-init`, which is built from files of this folder too |
//!
//! Linux commands are started by a small executable of its own, `openclaw-core-init` (`src/bin`), for three reasons: a
//! supervisor of the caller's can start nothing but an argv; Landlock in force before bubblewrap would forbid its
//! mounts; and whoever watches a process must not be a thread that may end before it.
//!
//! It fails closed: without a backend that works there is no [`Sandbox`], and no command ever runs on the host instead.

#![cfg_attr(
    not(any(target_os = "linux", target_os = "macos", windows)),
    allow(dead_code, reason = "a system without a backend starts nothing")
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{Code, CoreError, Result};

#[cfg(unix)]
pub mod fs;
#[cfg(any(windows, test))]
mod job_object;
#[cfg(target_os = "linux")]
mod linux;
mod output;
mod policy;
mod probe;
mod process;
#[cfg(any(target_os = "macos", all(test, unix)))]
mod seatbelt;
#[cfg(target_os = "linux")]
#[allow(dead_code, reason = "it writes what the executable reads")]
mod spec;
#[cfg(unix)]
mod streams;

pub(crate) use output::HeadAndTail;
pub use policy::{
    Access, BackendName, DEFAULT_WORKSPACE, Limits, Mount, Network, Plan, SandboxPolicy, read_env,
};
pub use probe::{Check, Probe};
pub use process::{Command, OutputSink, OutputStream, ProcessResult, TimedOut};

/// What enforces a policy: a file of this folder for each.
pub(crate) trait Backend: Send + Sync + std::fmt::Debug {
    /// Which one it is.
    fn name(&self) -> BackendName;

    /// Whether it keeps shut what the policy does not open. One that does not is taken only by its name.
    fn isolates(&self) -> bool {
        true
    }

    /// What somebody else must exec to run the command as this backend would.
    fn launch(&self, plan: &Plan, command: &Command) -> Result<Launch>;

    /// Starts the command; its processes end, all of them, when the handle is dropped.
    fn start(&self, plan: &Plan, command: &Command) -> Result<process::Started>;

    /// The command that says what holds, seen from inside, as a JSON object; none where nothing can say it.
    fn observer(&self) -> Option<Command>;

    /// What this backend makes of a policy; an error if it cannot keep it.
    fn fit(&self, plan: Plan) -> Result<Plan>;

    /// Primitives that can be tried without a command in a sandbox, in the order in which they build on each other.
    fn checks(&self) -> Vec<Check>;

    /// Why a sandbox could not be made, as far as the system says.
    fn diagnose(&self, error: &CoreError) -> Check;
}

/// What a supervisor of the caller's own must exec.
#[derive(Clone, PartialEq, Eq)]
pub struct Launch {
    /// The program and its arguments, without a secret.
    pub argv: Vec<String>,
    /// The whole environment of the launcher. It holds that of the command, in a form that no loader reads.
    pub env: BTreeMap<String, String>,
}

impl std::fmt::Debug for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launch").field("argv", &self.argv).field("env", &"[REDACTED]").finish()
    }
}

/// A place to run commands in. It holds no process and no file of its own: each command gets a sandbox made for it.
#[derive(Debug)]
pub struct Sandbox {
    plan: Arc<Plan>,
    backend: Arc<dyn Backend>,
    /// Cancelled by [`Sandbox::close`]; the parent of what every command waits on.
    closed: CancellationToken,
    /// Read by every command that runs.
    running: tokio::sync::RwLock<()>,
    #[cfg(unix)]
    files: Arc<fs::SandboxFs>,
}

impl Sandbox {
    /// Runs each primitive for real and says which backend would be used. Takes less than a second.
    pub async fn probe() -> Result<Probe> {
        probe::probe().await
    }

    /// A sandbox with this policy.
    ///
    /// `SANDBOX_POLICY` names the field that is wrong; `SANDBOX_UNAVAILABLE` the primitive that is missing, if no
    /// backend, or not the one that the policy names, works here.
    pub async fn create(policy: SandboxPolicy) -> Result<Self> {
        let plan = crate::runtime::blocking(move || policy.check()).await?;
        let (backend, plan) = probe::choose(plan).await?;
        #[cfg(unix)]
        let files = {
            let plan = Arc::clone(&plan);
            let open = move || fs::SandboxFs::open(&plan.mounts, plan.workspace.as_str());
            Arc::new(crate::runtime::blocking(open).await?)
        };
        let closed = CancellationToken::new();
        Ok(Self {
            plan,
            backend,
            closed,
            running: tokio::sync::RwLock::default(),
            #[cfg(unix)]
            files,
        })
    }

    /// Runs a command to its end, that of all its processes.
    ///
    /// A command that fails, is killed or times out is a result; `SANDBOX_SPAWN` means that it never ran. When `cancel`
    /// fires, or the sandbox is closed, every process of it is killed, and the error is `SANDBOX_SPAWN`. Dropping the
    /// future kills them too.
    pub async fn run(
        &self,
        command: Command,
        sink: Option<OutputSink>,
        cancel: CancellationToken,
    ) -> Result<ProcessResult> {
        self.open()?;
        let _running = self.running.read().await;
        self.open()?;
        process::run(&self.backend, &self.plan, command, sink, &cancel, &self.closed)
            .await
            .map(|(result, _)| result)
    }

    /// What a supervisor of the caller's own must exec to run the command in this sandbox. The limits `idleMs` and
    /// `outputBytes` are then the supervisor's to keep.
    pub fn launch(&self, command: &Command) -> Result<Launch> {
        self.open()?;
        command.check(&self.plan)?;
        self.backend.launch(&self.plan, command)
    }

    /// What is enforced, as a command inside observes it: a JSON object.
    pub async fn explain(&self) -> Result<String> {
        self.open()?;
        let _running = self.running.read().await;
        Ok(probe::observe(&self.backend, &self.plan, &self.closed).await?.to_string())
    }

    /// What enforces the policy.
    pub fn backend(&self) -> BackendName {
        self.backend.name()
    }

    /// What the sandbox sees beside the system, the workspace first unless its access is `none`.
    pub fn mounts(&self) -> &[Mount] {
        &self.plan.mounts
    }

    /// Its files, without a command. They can be reached for as long as somebody holds this, also when it is closed.
    #[cfg(unix)]
    pub fn files(&self) -> &Arc<fs::SandboxFs> {
        &self.files
    }

    /// Where commands start, unless they say otherwise.
    pub fn workspace(&self) -> &str {
        &self.plan.workspace
    }

    /// Kills what runs, and waits until it is gone. What `launch` gave is for its supervisor to end.
    pub async fn close(&self) {
        self.closed.cancel();
        drop(self.running.write().await);
    }

    fn open(&self) -> Result<()> {
        if self.closed.is_cancelled() {
            return Err(CoreError::new(Code::SandboxSpawn, "the sandbox was closed"));
        }
        Ok(())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}
