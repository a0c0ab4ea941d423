//! What a sandbox may do, checked once.
//!
//! A [`SandboxPolicy`] is JSON from outside; [`SandboxPolicy::from_json`] names the field that is wrong, and
//! [`SandboxPolicy::check`] holds it against this machine: what is mounted must exist, and must not undo the sandbox.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value};

use crate::config::paths::{Env, Host};
use crate::{Code, CoreError, Result};

/// Where the workspace is mounted unless the policy says otherwise; as in OpenClaw.
pub const DEFAULT_WORKSPACE: &str = "/workspace";

/// What may be done with what is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Not mounted; where the workspace would be is an empty folder that cannot be written.
    None,
    /// To read and to run.
    ReadOnly,
    /// To read, run and write.
    ReadWrite,
}

/// A file or folder of the host, and where the sandbox sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Absolute; without links once it is checked.
    pub host: PathBuf,
    /// Absolute and in its shortest form, in the sandbox.
    pub mount: String,
    /// Never [`Access::None`].
    pub access: Access,
}

/// Which network the sandbox has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// None: no route, no DNS, no service of this machine.
    #[default]
    None,
    /// The host's, loopback included.
    Host,
}

/// What enforces the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendName {
    /// The strongest that works here.
    #[default]
    Auto,
    /// Linux: namespaces by bubblewrap, with seccomp and Landlock in them.
    Bwrap,
    /// Linux: Landlock and seccomp, without namespaces.
    Landlock,
    /// macOS: `sandbox-exec`.
    Seatbelt,
    /// Windows: a job object and a restricted token.
    JobObject,
}

impl BackendName {
    /// As a policy names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Bwrap => "bwrap",
            Self::Landlock => "landlock",
            Self::Seatbelt => "seatbelt",
            Self::JobObject => "jobobject",
        }
    }
}

/// Bounds of one command. Each has a default, given in the field's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory of all its processes: 2 GiB.
    pub memory_bytes: u64,
    /// Processes and threads at once: 512.
    pub pids: u32,
    /// Seconds of CPU time of each process; none.
    pub cpu_seconds: Option<u32>,
    /// Milliseconds from start to end: 10 minutes.
    pub wall_ms: u64,
    /// Milliseconds without output; none.
    pub idle_ms: Option<u64>,
    /// Bytes of output that are kept, of each of the two streams: 1 MiB. More is read and dropped from the middle.
    pub output_bytes: u64,
    /// Bytes of a file: 1 GiB. It also bounds what `/tmp` holds.
    pub file_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 2 << 30,
            pids: 512,
            cpu_seconds: None,
            wall_ms: 600_000,
            idle_ms: None,
            output_bytes: 1 << 20,
            file_bytes: 1 << 30,
        }
    }
}

/// What a sandbox may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxPolicy {
    /// The folder that the sandbox is for. `host` is not looked at if the access is `none`.
    pub workspace: Mount,
    /// Whether the policy says where the workspace is mounted.
    pub workspace_mount_given: bool,
    /// What else it sees.
    pub mounts: Vec<Mount>,
    /// Its network.
    pub network: Network,
    /// Variables of every command, beside the few that are always there.
    pub env: BTreeMap<String, String>,
    /// Bounds of each command.
    pub limits: Limits,
    /// What enforces it.
    pub backend: BackendName,
}

/// A policy that was held against this machine.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where commands start, unless they say otherwise.
    pub workspace: String,
    /// Whether the policy said so.
    pub workspace_mount_given: bool,
    /// What is mounted, the workspace first unless its access is `none`; hosts are real paths.
    pub mounts: Vec<Mount>,
    /// Its network.
    pub network: Network,
    /// Variables of every command.
    pub env: BTreeMap<String, String>,
    /// Bounds of each command.
    pub limits: Limits,
    /// What enforces it.
    pub backend: BackendName,
}

/// `SANDBOX_POLICY`, with the field at fault.
fn wrong(field: &str, what: impl std::fmt::Display) -> CoreError {
    CoreError::new(Code::SandboxPolicy, format!("sandbox policy: `{field}` {what}")).at_path(field)
}

/// An object of the policy, read field by field; what is left over is refused.
struct Fields<'a> {
    path: String,
    rest: BTreeMap<&'a str, &'a Value>,
}

impl<'a> Fields<'a> {
    fn of(path: &str, value: &'a Value) -> Result<Self> {
        let object: &Map<String, Value> = value
            .as_object()
            .ok_or_else(|| wrong(if path.is_empty() { "policy" } else { path }, "must be an object"))?;
        let rest = object.iter().map(|(name, value)| (name.as_str(), value)).collect();
        Ok(Self { path: path.to_owned(), rest })
    }

    fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn take(&mut self, name: &str) -> Option<&'a Value> {
        self.rest.remove(name)
    }

    fn text(&mut self, name: &str) -> Result<Option<&'a str>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| wrong(&self.at(name), "must be a string"))?;
        if text.contains('\0') {
            return Err(wrong(&self.at(name), "holds a NUL character"));
        }
        Ok(Some(text))
    }

    fn required(&mut self, name: &str) -> Result<&'a str> {
        self.text(name)?.filter(|text| !text.is_empty()).ok_or_else(|| wrong(&self.at(name), "is missing"))
    }

    fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Result<Option<T>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(Some(*meaning));
        }
        let words: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        Err(wrong(&self.at(name), format!("must be {}, not {text:?}", words.join(" or "))))
    }

    fn count(&mut self, name: &str, least: u64, most: u64) -> Result<Option<u64>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        // A double that is whole counts, as `1e9` in JavaScript.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole, in range of a double"
        )]
        let number = value.as_u64().or_else(|| {
            value
                .as_f64()
                .filter(|n| n.fract() == 0.0 && (0.0..=9_007_199_254_740_991.0).contains(n))
                .map(|n| n as u64)
        });
        match number {
            Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(wrong(
                &self.at(name),
                format!("must be a whole number from {least} to {most}, not {value}"),
            )),
        }
    }

    fn end(self) -> Result<()> {
        match self.rest.keys().next() {
            None => Ok(()),
            Some(name) => Err(wrong(&self.at(name), "is not a field of the policy")),
        }
    }
}

impl SandboxPolicy {
    /// Reads a policy. `SANDBOX_POLICY` names the field that is wrong; a field that is not known is wrong too.
    pub fn from_json(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).map_err(|error| {
            CoreError::new(Code::SandboxPolicy, format!("sandbox policy: no JSON: {error}"))
        })?;
        let mut top = Fields::of("", &value)?;
        let workspace = top.take("workspace").ok_or_else(|| wrong("workspace", "is missing"))?;
        let workspace_mount_given = workspace.get("mount").is_some();
        let workspace = read_mount("workspace", workspace, true)?;
        let mounts = match top.take("mounts") {
            None => Vec::new(),
            Some(Value::Array(list)) => list
                .iter()
                .enumerate()
                .map(|(at, mount)| read_mount(&format!("mounts[{at}]"), mount, false))
                .collect::<Result<_>>()?,
            Some(_) => return Err(wrong("mounts", "must be an array")),
        };
        let network =
            top.word("network", &[("none", Network::None), ("host", Network::Host)])?.unwrap_or_default();
        let env = match top.take("env") {
            None => BTreeMap::new(),
            Some(env) => read_env("env", env)?,
        };
        let limits = match top.take("limits") {
            None => Limits::default(),
            Some(limits) => read_limits(limits)?,
        };
        let backends = [
            BackendName::Auto,
            BackendName::Bwrap,
            BackendName::Landlock,
            BackendName::Seatbelt,
            BackendName::JobObject,
        ]
        .map(|name| (name.as_str(), name));
        let backend = top.word("backend", &backends)?.unwrap_or_default();
        top.end()?;
        Ok(Self { workspace, workspace_mount_given, mounts, network, env, limits, backend })
    }

    /// Holds the policy against this machine: sources exist, are files or folders, and none of them would undo the
    /// sandbox. Reads the filesystem.
    pub fn check(self) -> Result<Plan> {
        let env = Env::from_process();
        let forbidden = Forbidden::of(&Host::of_process(&env));
        let workspace = self.workspace.mount.clone();
        let mut mounts = Vec::with_capacity(self.mounts.len() + 1);
        let with_workspace =
            (self.workspace.access != Access::None).then_some(("workspace".to_owned(), self.workspace));
        let extra = self.mounts.into_iter().enumerate().map(|(at, mount)| (format!("mounts[{at}]"), mount));
        for (field, mut mount) in with_workspace.into_iter().chain(extra) {
            mount.host = forbidden.check(&field, &mount.host)?;
            mounts.push(mount);
        }
        for (at, mount) in mounts.iter().enumerate() {
            if mounts.iter().skip(at + 1).any(|other| other.mount == mount.mount) {
                return Err(wrong("mounts", format!("has {} twice", mount.mount)));
            }
        }
        Ok(Plan {
            workspace,
            workspace_mount_given: self.workspace_mount_given,
            mounts,
            network: self.network,
            env: self.env,
            limits: self.limits,
            backend: self.backend,
        })
    }
}

fn read_mount(field: &str, value: &Value, workspace: bool) -> Result<Mount> {
    let mut fields = Fields::of(field, value)?;
    let host = PathBuf::from(fields.required("host")?);
    let mount = match fields.text("mount")? {
        Some(mount) => mount.to_owned(),
        None if workspace => DEFAULT_WORKSPACE.to_owned(),
        None => return Err(wrong(&fields.at("mount"), "is missing")),
    };
    let mut words = vec![("ro", Access::ReadOnly), ("rw", Access::ReadWrite)];
    if workspace {
        words.push(("none", Access::None));
    }
    let access = fields.word("access", &words)?.ok_or_else(|| wrong(&fields.at("access"), "is missing"))?;
    let at = fields.at("mount");
    fields.end()?;
    if !host.is_absolute() {
        return Err(wrong(
            &format!("{field}.host"),
            format!("must be an absolute path, not {}", host.display()),
        ));
    }
    Ok(Mount { host, mount: inner_path(&at, &mount)?, access })
}

/// Places of the sandbox that a mount may neither be, nor cover, nor lie in.
const OWN_PLACES: [&str; 12] =
    ["/proc", "/sys", "/dev", "/etc", "/run", "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// A path in the sandbox, in its shortest form.
fn inner_path(field: &str, path: &str) -> Result<String> {
    if !path.starts_with('/') {
        return Err(wrong(field, format!("must be an absolute path, not {path:?}")));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(wrong(field, format!("must not hold \"..\": {path:?}"))),
            part => parts.push(part),
        }
    }
    let path = format!("/{}", parts.join("/"));
    if parts.is_empty() || path == "/tmp" || OWN_PLACES.iter().any(|own| Path::new(&path).starts_with(own)) {
        return Err(wrong(field, format!("must not be {path}, which is the sandbox's own")));
    }
    Ok(path)
}

fn read_limits(value: &Value) -> Result<Limits> {
    const DAY_MS: u64 = 86_400_000;
    let mut fields = Fields::of("limits", value)?;
    let mut limits = Limits::default();
    let most = 1 << 50;
    if let Some(bytes) = fields.count("memoryBytes", 16 << 20, most)? {
        limits.memory_bytes = bytes;
    }
    if let Some(pids) = fields.count("pids", 4, 4_000_000)? {
        limits.pids = u32::try_from(pids).unwrap_or(u32::MAX);
    }
    limits.cpu_seconds =
        fields.count("cpuSeconds", 1, 31_536_000)?.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX));
    if let Some(ms) = fields.count("wallMs", 1, 7 * DAY_MS)? {
        limits.wall_ms = ms;
    }
    limits.idle_ms = fields.count("idleMs", 1, 7 * DAY_MS)?;
    if let Some(bytes) = fields.count("outputBytes", 0, 1 << 30)? {
        limits.output_bytes = bytes;
    }
    if let Some(bytes) = fields.count("fileBytes", 4096, most)? {
        limits.file_bytes = bytes;
    }
    fields.end()?;
    Ok(limits)
}

/// Variables from outside; `field` is where they stand, for the error. Values never appear in errors.
pub fn read_env(field: &str, value: &Value) -> Result<BTreeMap<String, String>> {
    let object = value.as_object().ok_or_else(|| wrong(field, "must be an object of strings"))?;
    object
        .iter()
        .map(|(name, value)| {
            let at = format!("{field}.{name}");
            let value = value.as_str().ok_or_else(|| wrong(&at, "must be a string"))?;
            check_variable(&at, name, value)?;
            Ok((name.clone(), value.to_owned()))
        })
        .collect()
}

pub(super) fn check_variable(field: &str, name: &str, value: &str) -> Result<()> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if !first || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(wrong(field, "is no name of a variable: letters, digits and underscores"));
    }
    if value.contains('\0') {
        return Err(wrong(field, "holds a NUL character"));
    }
    Ok(())
}

/// What no sandbox gets to see, whatever its policy says.
struct Forbidden {
    /// Neither they nor a folder that holds them.
    whole: Vec<PathBuf>,
    /// Neither they, nor a folder that holds them, nor what is in them.
    within: Vec<PathBuf>,
    state: Vec<PathBuf>,
}

/// In the state directory, what holds no secrets: folders that begin so.
const STATE_MOUNTABLE: [&str; 6] =
    ["workspace", "sandbox", "skills", "media", "plugin-skills", "attachments"];

/// In a home, what holds credentials or sessions.
const HOME_SECRETS: [&str; 24] = [
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".docker",
    ".config/gcloud",
    ".config/gh",
    ".config/op",
    ".config/containers",
    ".config/google-chrome",
    ".config/chromium",
    ".config/BraveSoftware",
    ".mozilla",
    ".netrc",
    ".npmrc",
    ".pypirc",
    ".git-credentials",
    ".password-store",
    ".vault-token",
    ".local/share/keyrings",
    ".local/share/containers",
    "Library/Keychains",
    "Library/Application Support",
];

impl Forbidden {
    fn of(host: &Host<'_>) -> Self {
        let homes: Vec<PathBuf> =
            [host.home().ok(), host.account_home.clone(), host.env.get("HOME").map(PathBuf::from)]
                .into_iter()
                .flatten()
                .filter(|home| home.is_absolute())
                .collect();
        let mut within: Vec<PathBuf> = ["/proc", "/sys", "/dev", "/run", "/var/run", "/boot", "/etc"]
            .into_iter()
            .chain([
                "/var/lib/docker",
                "/var/lib/containerd",
                "/var/lib/containers",
                "/var/spool",
                "/lost+found",
            ])
            .map(PathBuf::from)
            .collect();
        for home in &homes {
            within.extend(HOME_SECRETS.iter().map(|secret| home.join(secret)));
        }
        let whole =
            homes.into_iter().chain(["/root", "/home", "/var/lib", "/tmp"].map(PathBuf::from)).collect();
        let state = host.state_dir().ok().into_iter().collect();
        let mut forbidden = Self { whole, within, state };
        for list in [&mut forbidden.whole, &mut forbidden.within, &mut forbidden.state] {
            // Under both names, where a link leads there.
            let real: Vec<_> = list.iter().filter_map(|path| path.canonicalize().ok()).collect();
            list.extend(real);
        }
        forbidden
    }

    /// The real path of a source, if the sandbox may see it.
    fn check(&self, field: &str, host: &Path) -> Result<PathBuf> {
        let field = format!("{field}.host");
        let real = host.canonicalize().map_err(|error| {
            wrong(&field, format!("names {}, which cannot be mounted: {error}", host.display()))
                .caused_by(error)
        })?;
        let kind = real
            .symlink_metadata()
            .map_err(|error| wrong(&field, format!("cannot be looked at: {error}")).caused_by(error))?
            .file_type();
        if !kind.is_dir() && !kind.is_file() {
            return Err(wrong(
                &field,
                format!("must be a folder or a file, and {} is neither", real.display()),
            ));
        }
        let refused = |why: &str| {
            Err(wrong(&field, format!("must not be {}: {why}; mount a folder of its own", real.display())))
        };
        if real.components().all(|part| !matches!(part, Component::Normal(_))) {
            return refused("that is the whole filesystem");
        }
        // By another name, too: what is mounted there from elsewhere, and what is mounted within it.
        #[cfg(target_os = "linux")]
        for place in std::iter::once(real.clone()).chain(mounted_within(&real)) {
            if let Some(why) = self.by_another_name(&place) {
                return refused(&if place == real {
                    why
                } else {
                    format!("{} is mounted within it, and {why}", place.display())
                });
            }
        }
        if let Some(held) = self.whole.iter().find(|path| path.starts_with(&real)) {
            return refused(&format!("it is or holds {}", held.display()));
        }
        if let Some(held) = self.within.iter().find(|path| path.starts_with(&real) || real.starts_with(path))
        {
            return refused(&format!("{} is never shown to a sandbox", held.display()));
        }
        for state in &self.state {
            if state.starts_with(&real) {
                return refused("it is or holds OpenClaw's state directory");
            }
            if let Ok(inner) = real.strip_prefix(state) {
                let first =
                    inner.components().next().map(|part| part.as_os_str().to_string_lossy().into_owned());
                if !first
                    .is_some_and(|first| STATE_MOUNTABLE.iter().any(|allowed| first.starts_with(allowed)))
                {
                    return refused("OpenClaw keeps credentials and sessions there");
                }
            }
        }
        Ok(real)
    }
}

#[cfg(target_os = "linux")]
impl Forbidden {
    /// What a directory really is, if that is not to be seen: the same under two names has one number.
    fn by_another_name(&self, place: &Path) -> Option<String> {
        let same = |one: &Path, other: &Path| id_of(one).is_some_and(|id| Some(id) == id_of(other));
        if same(place, Path::new("/")) {
            return Some("it is the whole filesystem".to_owned());
        }
        let shown = |held: &PathBuf| format!("it is {}", held.display());
        if let Some(held) = self.whole.iter().find(|held| same(place, held)) {
            return Some(shown(held));
        }
        for above in place.ancestors() {
            if let Some(held) = self.within.iter().find(|held| !above.starts_with(held) && same(above, held))
            {
                return Some(format!("{} is {}", above.display(), held.display()));
            }
            if let Some(state) =
                self.state.iter().find(|state| !above.starts_with(state) && same(above, state))
            {
                let inner = place.strip_prefix(above).ok()?;
                return match self.check("", &state.join(inner)) {
                    Ok(_) => None,
                    Err(_) => Some(format!("{} is {}", above.display(), state.display())),
                };
            }
        }
        None
    }
}

#[cfg(target_os = "linux")]
fn id_of(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;

    path.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Where something is mounted within a directory: a mount takes all of it along.
#[cfg(target_os = "linux")]
fn mounted_within(dir: &Path) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(unescaped);
    points.filter(|point| point != dir && point.starts_with(dir)).collect()
}

/// A path as the kernel writes it: what would end it is in octal.
#[cfg(target_os = "linux")]
fn unescaped(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;

    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, more)) = rest.split_first() {
        let octal =
            more.get(..3).filter(|_| byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = more.get(3..).unwrap_or_default();
        } else {
            bytes.push(byte);
            rest = more;
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_mount_point_is_read_as_it_is() {
        assert_eq!(unescaped("/a\\040b\\134c"), Path::new("/a b\\c"));
        assert_eq!(unescaped("/a\\9"), Path::new("/a\\9"));
    }

    fn refused(policy: &str) -> String {
        let error = SandboxPolicy::from_json(policy).unwrap_err();
        assert_eq!(error.code(), Code::SandboxPolicy);
        error.details().path.clone().unwrap_or_default()
    }

    #[test]
    fn a_full_policy_is_read() {
        let policy = SandboxPolicy::from_json(
            r#"{"workspace":{"host":"/w","access":"rw"},"mounts":[{"host":"/d","mount":"/data//x/","access":"ro"}],
                "network":"host","env":{"A":"b"},"limits":{"memoryBytes":1e9,"pids":32,"idleMs":5},"backend":"bwrap"}"#,
        )
        .unwrap();
        assert_eq!(policy.workspace.mount, "/workspace");
        assert_eq!(policy.mounts[0].mount, "/data/x");
        assert_eq!((policy.limits.memory_bytes, policy.limits.pids), (1_000_000_000, 32));
        assert_eq!((policy.network, policy.backend), (Network::Host, BackendName::Bwrap));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        let with = |more: &str| format!(r#"{{"workspace":{{"host":"/w","access":"rw"}}{more}}}"#);
        assert_eq!(refused("{}"), "workspace");
        assert_eq!(refused(r#"{"workspace":{"host":"w","access":"rw"}}"#), "workspace.host");
        assert_eq!(refused(r#"{"workspace":{"host":"/w","access":"write"}}"#), "workspace.access");
        assert_eq!(refused(&with(r#","netwrok":"none""#)), "netwrok");
        assert_eq!(refused(&with(r#","network":"container:x""#)), "network");
        assert_eq!(refused(&with(r#","limits":{"pids":1.5}"#)), "limits.pids");
        assert_eq!(refused(&with(r#","limits":{"memory":1}"#)), "limits.memory");
        assert_eq!(refused(&with(r#","env":{"A=B":"c"}"#)), "env.A=B");
        assert_eq!(refused(&with(r#","env":{"A":1}"#)), "env.A");
        for mount in ["/", "/proc/self", "/usr/bin", "/a/../etc", "x", "/dev/shm", "/tmp", "/etc/ssl"] {
            let mounts = format!(r#","mounts":[{{"host":"/d","mount":"{mount}","access":"ro"}}]"#);
            assert_eq!(refused(&with(&mounts)), "mounts[0].mount", "{mount}");
        }
    }

    #[test]
    fn an_environment_error_does_not_hold_the_value() {
        let text = r#"{"workspace":{"host":"/w","access":"rw"},"env":{"TOKEN":"hunter2\u0000"}}"#;
        let error = SandboxPolicy::from_json(text).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn no_source_undoes_the_sandbox() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let home = root.join("home");
        for dir in
            [".ssh", ".openclaw/credentials", ".openclaw/workspace-x", ".openclaw/sandboxes/a", "project"]
        {
            std::fs::create_dir_all(home.join(dir)).unwrap();
        }
        std::os::unix::fs::symlink(home.join(".ssh"), home.join("project/keys")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(home.join("project/socket")).unwrap();
        let env: Env = [("HOME", home.to_str().unwrap())].into_iter().collect();
        let host = Host { env: &env, account_home: None, cwd: None, exists: &crate::config::paths::exists };
        let forbidden = Forbidden::of(&host);
        let check = |path: &Path| forbidden.check("workspace", path);
        for allowed in ["project", ".openclaw/workspace-x", ".openclaw/sandboxes/a"] {
            assert_eq!(check(&home.join(allowed)).unwrap(), home.join(allowed));
        }
        let refused = [
            "",
            "..",
            ".ssh",
            "project/keys",
            "project/socket",
            ".openclaw",
            ".openclaw/credentials",
            "project/../.ssh",
        ];
        for refused in refused {
            let error = check(&home.join(refused)).unwrap_err();
            assert_eq!(error.details().path.as_deref(), Some("workspace.host"), "{refused}");
        }
        for refused in
            ["/", "/proc", "/proc/self/root", "/sys", "/dev", "/etc", "/run", "/root", "/tmp", "/var"]
        {
            assert!(check(Path::new(refused)).is_err(), "{refused}");
        }
    }
}
