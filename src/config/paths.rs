//! Where OpenClaw keeps its files: home, state directory, config file, include roots.
//!
//! Everything here is a function of a [`Host`]: the environment, the account's home, the working directory,
//! and a question to the filesystem ("does this exist?"). Nothing reads the process.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use super::js;
use crate::{Code, CoreError, Result};

/// The config file's name.
pub const CONFIG_FILE: &str = "openclaw.json";
const LEGACY_CONFIG_FILE: &str = "clawdbot.json";
const STATE_DIR: &str = ".openclaw";
const LEGACY_STATE_DIR: &str = ".clawdbot";

/// Environment variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Env(BTreeMap<String, String>);

impl Env {
    /// The environment of this process; bytes that are not UTF-8 are replaced, as Node replaces them.
    pub fn from_process() -> Self {
        std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect()
    }

    /// The value of a variable, be it empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        if cfg!(windows) {
            return self.0.get(&name.to_uppercase()).map(String::as_str);
        }
        self.0.get(name).map(String::as_str)
    }

    /// Sets a variable.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let name = name.into();
        // Windows does not tell names apart by case.
        let name = if cfg!(windows) { name.to_uppercase() } else { name };
        self.0.insert(name, value.into());
    }

    /// The value, trimmed, unless nothing is left.
    fn trimmed(&self, name: &str) -> Option<&str> {
        self.get(name).map(js::trim).filter(|value| !value.is_empty())
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Env {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(pairs: T) -> Self {
        let mut env = Self::default();
        for (name, value) in pairs {
            env.set(name, value);
        }
        env
    }
}

/// What the path rules depend on.
pub struct Host<'a> {
    /// The environment.
    pub env: &'a Env,
    /// The home directory of the account, used when no variable names one.
    pub account_home: Option<PathBuf>,
    /// The working directory: relative paths start here.
    pub cwd: Option<PathBuf>,
    /// Whether a path exists, links followed.
    pub exists: &'a dyn Fn(&Path) -> bool,
}

/// Whether a path exists; an error counts as "no".
pub fn exists(path: &Path) -> bool {
    path.exists()
}

impl<'a> Host<'a> {
    /// This process with another environment.
    pub fn of_process(env: &'a Env) -> Self {
        Self { env, account_home: std::env::home_dir(), cwd: std::env::current_dir().ok(), exists: &exists }
    }

    /// `OPENCLAW_HOME`, else `HOME`, else `USERPROFILE`, else the account's home, else the working directory.
    pub fn home(&self) -> Result<PathBuf> {
        self.effective_home().or_else(|| self.cwd.clone()).ok_or_else(|| {
            CoreError::new(
                Code::ConfigNotFound,
                "Unable to resolve an OpenClaw home: set OPENCLAW_HOME, HOME, or USERPROFILE, \
                 or run from an existing directory.",
            )
        })
    }

    fn effective_home(&self) -> Option<PathBuf> {
        let Some(explicit) = self.home_variable("OPENCLAW_HOME") else {
            return self.os_home().map(|home| self.absolute(&home));
        };
        if after_tilde(explicit).is_some() {
            return self.os_home().map(|home| self.absolute(&replace_tilde(explicit, &home)));
        }
        Some(self.absolute(explicit))
    }

    fn os_home(&self) -> Option<String> {
        if let Some(home) = self.home_variable("HOME").or_else(|| self.home_variable("USERPROFILE")) {
            return Some(home.to_owned());
        }
        if let Some(home) = self.termux_home() {
            return Some(home);
        }
        let account = self.account_home.as_ref()?.to_string_lossy();
        real_name(&account).map(str::to_owned)
    }

    /// Termux on Android sets no `HOME` in some contexts; its prefix tells where home is.
    fn termux_home(&self) -> Option<String> {
        let prefix = self.home_variable("PREFIX")?;
        self.home_variable("ANDROID_DATA")?;
        let slashed = prefix.replace('\\', "/");
        let rest = slashed.strip_suffix('/').unwrap_or(&slashed);
        let parent = rest.strip_suffix("com.termux/files/usr")?;
        if !(parent.is_empty() || parent.ends_with('/')) {
            return None;
        }
        let home = normalize(&self.absolute(prefix).join("../home"));
        Some(home.to_string_lossy().into_owned())
    }

    fn home_variable(&self, name: &str) -> Option<&'a str> {
        self.env.get(name).and_then(real_name)
    }

    /// A path as a user writes it: trimmed, `~` expanded, made absolute. Nothing is left as nothing.
    pub fn user_path(&self, text: &str) -> Result<PathBuf> {
        let trimmed = js::trim(text);
        if trimmed.is_empty() {
            return Ok(PathBuf::new());
        }
        if !trimmed.starts_with('~') {
            return Ok(self.absolute(trimmed));
        }
        let home = self.home()?;
        let home = home.to_string_lossy();
        Ok(self.absolute(&replace_tilde(trimmed, real_name(&home).unwrap_or(&home))))
    }

    /// The directory of mutable data: `OPENCLAW_STATE_DIR`, else `~/.openclaw`, else an older one that exists.
    pub fn state_dir(&self) -> Result<PathBuf> {
        if let Some(explicit) = self.env.trimmed("OPENCLAW_STATE_DIR") {
            return self.user_path(explicit);
        }
        let home = self.home()?;
        let current = home.join(STATE_DIR);
        if (self.exists)(&current) {
            return Ok(current);
        }
        let legacy = home.join(LEGACY_STATE_DIR);
        Ok(if (self.exists)(&legacy) { legacy } else { current })
    }

    /// The config file: `OPENCLAW_CONFIG_PATH`, else the first candidate that exists, else where it would be.
    pub fn config_path(&self) -> Result<PathBuf> {
        if let Some(explicit) = self.env.trimmed("OPENCLAW_CONFIG_PATH") {
            return self.user_path(explicit);
        }
        let state = self.state_dir()?;
        let canonical = state.join(CONFIG_FILE);
        let mut candidates = vec![canonical.clone(), state.join(LEGACY_CONFIG_FILE)];
        if self.env.trimmed("OPENCLAW_STATE_DIR").is_none() {
            let home = self.home()?;
            for dir in [STATE_DIR, LEGACY_STATE_DIR] {
                candidates.extend([CONFIG_FILE, LEGACY_CONFIG_FILE].map(|name| home.join(dir).join(name)));
            }
        }
        Ok(candidates.into_iter().find(|path| (self.exists)(path)).unwrap_or(canonical))
    }

    /// Directories beside the config's own that `$include` may reach: `OPENCLAW_INCLUDE_ROOTS`, a path list.
    pub fn include_roots(&self) -> Result<Vec<PathBuf>> {
        let mut roots: Vec<PathBuf> = Vec::new();
        let list = self.env.trimmed("OPENCLAW_INCLUDE_ROOTS").unwrap_or_default();
        for entry in list.split(if cfg!(windows) { ';' } else { ':' }).map(js::trim) {
            if entry.is_empty() {
                continue;
            }
            let root = self.user_path(entry)?;
            if root.is_absolute() && !roots.contains(&root) {
                roots.push(root);
            }
        }
        Ok(roots)
    }

    /// Node's `path.resolve` of one path.
    pub fn absolute(&self, path: impl AsRef<Path>) -> PathBuf {
        let joined = self.cwd.as_deref().unwrap_or(Path::new("")).join(path);
        without_trailing_separator(normalize(&joined))
    }
}

/// Whether OpenClaw is told to leave its config alone: under Nix, or by `OPENCLAW_CONFIG_READONLY=1`.
pub fn is_config_read_only(env: &Env) -> bool {
    env.get("OPENCLAW_CONFIG_READONLY") == Some("1") || is_nix_mode(env)
}

/// `OPENCLAW_NIX_MODE=1`: the config is managed by Nix.
pub fn is_nix_mode(env: &Env) -> bool {
    env.get("OPENCLAW_NIX_MODE") == Some("1")
}

/// A home as shells and scripts leave it: the words `undefined` and `null` are accidents of theirs.
fn real_name(value: &str) -> Option<&str> {
    Some(js::trim(value)).filter(|name| !matches!(*name, "" | "undefined" | "null"))
}

/// What follows a leading `~` that stands for home: `~`, `~/…`, `~\…`, and not `~name`.
fn after_tilde(path: &str) -> Option<&str> {
    path.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with(['/', '\\']))
}

fn replace_tilde(path: &str, home: &str) -> String {
    after_tilde(path).map_or_else(|| path.to_owned(), |rest| format!("{home}{rest}"))
}

/// Node's `path.normalize`: `.` and `..` are resolved by name alone; a trailing separator stays.
pub(crate) fn normalize(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => match out.components().next_back() {
                Some(Component::Normal(_)) => {
                    out.pop();
                }
                Some(Component::RootDir | Component::Prefix(_)) => {}
                _ => out.push(".."),
            },
            part => out.push(part),
        }
    }
    if out.as_os_str().is_empty() {
        out.push(".");
    }
    if has_trailing_separator(path) && !has_trailing_separator(&out) {
        out.push("");
    }
    out
}

pub(crate) fn has_trailing_separator(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().last().is_some_and(|&byte| std::path::is_separator(char::from(byte)))
}

/// The path without a separator at its end, unless it is a root.
pub(crate) fn without_trailing_separator(path: PathBuf) -> PathBuf {
    if has_trailing_separator(&path) { path.components().collect() } else { path }
}

/// Whether `target` is `root` or below it, by name alone; both are absolute and normalized.
pub(crate) fn is_inside(root: &Path, target: &Path) -> bool {
    if cfg!(windows) {
        let fold = |path: &Path| PathBuf::from(path.to_string_lossy().to_lowercase());
        return fold(target).starts_with(fold(root));
    }
    target.starts_with(root)
}

/// Node's `path.dirname` of an absolute path.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// The path with links resolved; on Windows without the `\\?\` that the system puts in front.
pub(crate) fn real_path(path: &Path) -> std::io::Result<PathBuf> {
    let real = std::fs::canonicalize(path)?;
    if cfg!(windows) {
        let text = real.as_os_str().to_string_lossy();
        if let Some(plain) = text.strip_prefix(r"\\?\")
            && plain.as_bytes().get(1) == Some(&b':')
        {
            return Ok(PathBuf::from(OsStr::new(plain)));
        }
    }
    Ok(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host<'a>(env: &'a Env, exists: &'a dyn Fn(&Path) -> bool) -> Host<'a> {
        Host { env, account_home: Some("/home/os".into()), cwd: Some("/cwd".into()), exists }
    }

    #[test]
    fn home_falls_from_openclaw_home_to_the_working_directory() {
        let cases: [(&[(&str, &str)], &str); 8] = [
            (&[("OPENCLAW_HOME", " /o/ "), ("HOME", "/h")], "/o"),
            (&[("OPENCLAW_HOME", "~/x"), ("HOME", "/h")], "/h/x"),
            (&[("OPENCLAW_HOME", "~x"), ("HOME", "/h")], "/cwd/~x"),
            (&[("OPENCLAW_HOME", "undefined"), ("HOME", "null"), ("USERPROFILE", "/u")], "/u"),
            (&[("HOME", "rel")], "/cwd/rel"),
            (&[("HOME", "")], "/home/os"),
            (
                &[("PREFIX", "/data/data/com.termux/files/usr/"), ("ANDROID_DATA", "/data")],
                "/data/data/com.termux/files/home",
            ),
            (&[("PREFIX", "/xcom.termux/files/usr"), ("ANDROID_DATA", "/data")], "/home/os"),
        ];
        for (pairs, expected) in cases {
            let env: Env = pairs.iter().copied().collect();
            assert_eq!(host(&env, &|_| false).home().unwrap(), Path::new(expected), "{pairs:?}");
        }
        let env = Env::default();
        let nowhere = Host { account_home: None, ..host(&env, &|_| false) };
        assert_eq!(nowhere.home().unwrap(), Path::new("/cwd"));
        let lost = Host { account_home: None, cwd: None, ..host(&env, &|_| false) };
        assert_eq!(lost.home().unwrap_err().code(), Code::ConfigNotFound);
    }

    #[test]
    fn an_older_config_is_found_only_where_no_newer_one_exists() {
        let env: Env = [("HOME", "/h")].into_iter().collect();
        let path = |present: &[&str]| {
            let present: Vec<PathBuf> = present.iter().map(PathBuf::from).collect();
            host(&env, &|path| present.iter().any(|p| p.starts_with(path))).config_path().unwrap()
        };
        assert_eq!(path(&[]), Path::new("/h/.openclaw/openclaw.json"));
        assert_eq!(path(&["/h/.clawdbot/clawdbot.json"]), Path::new("/h/.clawdbot/clawdbot.json"));
        assert_eq!(
            path(&["/h/.clawdbot/clawdbot.json", "/h/.openclaw/x"]),
            Path::new("/h/.clawdbot/clawdbot.json")
        );
        assert_eq!(
            path(&["/h/.clawdbot/openclaw.json", "/h/.openclaw/clawdbot.json"]),
            Path::new("/h/.openclaw/clawdbot.json")
        );
    }

    #[test]
    fn normalizing_keeps_a_trailing_separator_and_stops_at_the_root() {
        for (path, expected) in [
            ("/a/./b/../c/", "/a/c/"),
            ("/../a", "/a"),
            ("a/../../b", "../b"),
            ("a/..", "."),
            ("//a//b", "/a/b"),
        ] {
            assert_eq!(normalize(Path::new(path)).as_os_str(), OsStr::new(expected), "{path}");
        }
    }
}
