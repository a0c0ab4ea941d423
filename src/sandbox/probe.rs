//! What works here: each primitive, run for real.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::policy::{BackendName, Limits, Network, Plan};
use super::{Backend, process};
use crate::runtime::blocking;
use crate::{Code, CoreError, Result};

/// One primitive, and whether it works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name, such as `user-namespaces`.
    pub name: String,
    /// Whether it did what it must.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
    /// What to do where it did not.
    pub remedy: Option<String>,
}

impl Check {
    pub(super) fn passed(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), ok: true, detail: detail.into(), remedy: None }
    }

    pub(super) fn failed(name: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name: name.to_owned(), ok: false, detail: detail.into(), remedy: Some(remedy.into()) }
    }

    fn into_error(self, backend: BackendName) -> CoreError {
        let remedy = self.remedy.unwrap_or_else(|| "see docs/sandbox.md".to_owned());
        let message = format!(
            "no sandbox: backend {} lacks {}: {}; {remedy}. Nothing was run on the host instead.",
            backend.as_str(),
            self.name,
            self.detail
        );
        CoreError::new(Code::SandboxUnavailable, message).missing(self.name, remedy)
    }
}

/// What works here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The backend that `auto` would take.
    pub backend: Option<BackendName>,
    /// Every primitive that was tried, in order.
    pub checks: Vec<Check>,
}

/// The backends of this system, the strongest first.
fn backends() -> Vec<Arc<dyn Backend>> {
    #[cfg(target_os = "linux")]
    return vec![
        Arc::new(super::linux::Linux::new(BackendName::Bwrap)),
        Arc::new(super::linux::Linux::new(BackendName::Landlock)),
    ];
    #[cfg(target_os = "macos")]
    return vec![Arc::new(super::seatbelt::Seatbelt)];
    #[cfg(windows)]
    return vec![Arc::new(super::job_object::JobObject)];
    #[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
    Vec::new()
}

/// Runs everything, on a policy that asks for nothing.
pub(super) async fn probe() -> Result<Probe> {
    let mut probe = Probe { backend: None, checks: Vec::new() };
    for backend in backends() {
        let plan = Plan {
            workspace: "/".to_owned(),
            workspace_mount_given: false,
            mounts: Vec::new(),
            network: if backend.isolates() { Network::None } else { Network::Host },
            env: BTreeMap::new(),
            limits: Limits { wall_ms: 5000, ..Limits::default() },
            backend: backend.name(),
        };
        let checks = match backend.fit(plan) {
            Ok(plan) => check(&backend, &Arc::new(plan)).await,
            Err(error) => vec![Check::failed("policy", error.message(), "see docs/sandbox.md")],
        };
        if probe.backend.is_none() && backend.isolates() && checks.iter().all(|check| check.ok) {
            probe.backend = Some(backend.name());
        }
        for check in checks {
            let name = format!("{}/{}", backend.name().as_str(), check.name);
            probe.checks.push(Check { name, ..check });
        }
    }
    Ok(probe)
}

/// The backend for a plan, after a command has seen from inside that it holds.
pub(super) async fn choose(plan: Plan) -> Result<(Arc<dyn Backend>, Arc<Plan>)> {
    let mut first = None;
    let wanted = plan.backend;
    for backend in backends() {
        if wanted != BackendName::Auto && wanted != backend.name() {
            continue;
        }
        if wanted == BackendName::Auto && !backend.isolates() {
            let remedy = format!("name the backend {} in the policy to accept that", backend.name().as_str());
            let open = "it keeps commands neither from reading files nor from the network";
            first.get_or_insert(Check::failed("isolation", open, remedy).into_error(backend.name()));
            continue;
        }
        let outcome = match backend.fit(plan.clone()) {
            Ok(fitting) => {
                let fitting = Arc::new(fitting);
                match check(&backend, &fitting).await.into_iter().find(|check| !check.ok) {
                    None => return Ok((backend, fitting)),
                    Some(check) => check.into_error(backend.name()),
                }
            }
            Err(error) => error,
        };
        first.get_or_insert(outcome);
    }
    Err(first.unwrap_or_else(|| {
        let name = if wanted == BackendName::Auto { "a sandbox" } else { wanted.as_str() };
        Check::failed(name, "this system has none", "use a machine with Linux, macOS or Windows")
            .into_error(wanted)
    }))
}

/// What works of a backend, up to the first primitive that does not.
async fn check(backend: &Arc<dyn Backend>, plan: &Arc<Plan>) -> Vec<Check> {
    let first = Arc::clone(backend);
    let mut checks = match blocking(move || Ok(first.checks())).await {
        Ok(checks) => checks,
        Err(error) => vec![Check::failed("core", error.message(), "please report this")],
    };
    if checks.iter().any(|check| !check.ok) {
        return checks;
    }
    match observe(backend, plan, &CancellationToken::new()).await {
        Ok(observed) => checks.extend(judge(&observed, plan)),
        Err(error) => checks.push(backend.diagnose(&error)),
    }
    checks
}

/// What a command in the sandbox sees, and what bounded it.
pub(super) async fn observe(
    backend: &Arc<dyn Backend>,
    plan: &Arc<Plan>,
    closed: &CancellationToken,
) -> Result<Value> {
    let Some(mut command) = backend.observer() else {
        return Ok(json!({ "backend": backend.name().as_str() }));
    };
    command.cwd = Some("/".to_owned());
    let quick = Limits { wall_ms: 5000, idle_ms: None, output_bytes: 1 << 20, ..plan.limits.clone() };
    let plan = Arc::new(Plan { limits: quick, ..(**plan).clone() });
    let cancel = CancellationToken::new();
    let (result, end) = process::run(backend, &plan, command, None, &cancel, closed).await?;
    let failed = |what: &str| {
        let stderr: String = String::from_utf8_lossy(&result.stderr).trim().chars().take(400).collect();
        CoreError::new(Code::SandboxSpawn, format!("the sandbox could not be observed: {what} {stderr}"))
    };
    if result.exit_code != Some(0) {
        return Err(failed(&format!("exit code {:?}, signal {:?}", result.exit_code, result.signal)));
    }
    let mut observed: Value =
        serde_json::from_slice(&result.stdout).map_err(|error| failed(&error.to_string()))?;
    let Some(fields) = observed.as_object_mut() else { return Err(failed("it is no object")) };
    fields.insert("backend".to_owned(), backend.name().as_str().into());
    fields.insert("boundedBy".to_owned(), json!({ "memory": end.bounded_by.0, "pids": end.bounded_by.1 }));
    Ok(observed)
}

/// Whether what was seen is what must be.
fn judge(observed: &Value, plan: &Plan) -> Vec<Check> {
    let mut checks = Vec::new();
    let at = |pointer: &str| observed.pointer(pointer).unwrap_or(&Value::Null);
    let mut judge = |name: &str, ok: bool, detail: String, remedy: &str| {
        checks.push(if ok { Check::passed(name, detail) } else { Check::failed(name, detail, remedy) });
    };
    let bwrap = at("/backend") == "bwrap";
    if !bwrap && at("/backend") != "landlock" {
        return checks;
    }
    if bwrap {
        let pid = at("/namespaces/pidOfThis").as_u64();
        judge(
            "namespaces",
            pid == Some(2) && at("/processesSeen").as_u64() == Some(2),
            format!("process {} of {}", at("/namespaces/pidOfThis"), at("/processesSeen")),
            "use a newer bubblewrap",
        );
        if plan.network == Network::None {
            let interfaces = at("/network/interfaces");
            judge(
                "network",
                *interfaces == json!(["lo"]),
                format!("interfaces: {interfaces}"),
                "load no container networking plugin into bubblewrap's namespaces",
            );
        }
    }
    let capabilities = at("/capabilities");
    judge(
        "capabilities",
        capabilities == "0/0/0" || !bwrap && !root(observed),
        format!("{capabilities}"),
        "use bubblewrap 0.4 or newer",
    );
    judge("no-new-privs", *at("/noNewPrivs") == true, format!("{}", at("/noNewPrivs")), "use a newer kernel");
    let tried = at("/seccomp/tried").as_object();
    let refused = tried.is_some_and(|tried| tried.values().all(|outcome| outcome == "EPERM"));
    judge(
        "seccomp",
        refused && at("/seccomp/mode") == "filter",
        format!("{}", at("/seccomp")),
        "use a kernel with CONFIG_SECCOMP_FILTER",
    );
    let kernel = at("/landlock/kernelAbi").as_i64().unwrap_or(-1);
    let landlocked = at("/landlock/write ~1proc~1self~1comm") == "EACCES";
    // Older kernels have none: bubblewrap and the filter hold then.
    judge(
        "landlock",
        landlocked || bwrap && kernel < 1,
        if kernel < 1 {
            "not in this kernel".to_owned()
        } else {
            format!("ABI {kernel}: {}", at("/landlock"))
        },
        "use Linux 5.13 or newer, with landlock among its security modules (kernel parameter lsm=)",
    );
    judge(
        "limits",
        at("/boundedBy/pids").is_string(),
        format!("{}", at("/boundedBy")),
        "delegate a cgroup to this user",
    );
    checks
}

fn root(observed: &Value) -> bool {
    observed.get("uid").and_then(Value::as_u64) == Some(0)
}
