//! The OpenClaw that is installed on this machine, as the source of the schema.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use serde_json::{Value, json};

use super::Schema;
use super::cache::{SchemaCache, SchemaKey};
use crate::{Code, CoreError, Result};

/// An installed OpenClaw and the state folder that it uses.
#[derive(Clone, Debug)]
pub struct Installed {
    /// The folder of the package `openclaw`.
    pub package: PathBuf,
    /// The state folder, where plugins are installed.
    pub state_dir: PathBuf,
    /// What `~` stands for.
    pub home: PathBuf,
}

/// The files that tell of a plugin, and those that npm rewrites whenever it changes what is installed.
const TELLING: [&str; 4] =
    ["openclaw.plugin.json", "package.json", "package-lock.json", ".package-lock.json"];
/// Folders that OpenClaw does not search for plugins.
const SKIPPED: [&str; 7] = [".git", ".hg", ".svn", "build", "coverage", "dist", ".turbo"];
/// Folders that one key looks into at most; a tree beyond that is described by what was seen.
const MAX_FOLDERS: usize = 2_000;
const MAX_PRINTED: u64 = 64 * 1024 * 1024;

impl Installed {
    /// The folder of the package `openclaw` that one of `starts` lies in, or that Node would find from there.
    pub fn find_package(starts: &[PathBuf]) -> Option<PathBuf> {
        let mut seen = HashSet::new();
        for start in starts.iter().filter_map(|start| fs::canonicalize(start).ok()) {
            for folder in start.ancestors().take_while(|folder| seen.insert(folder.to_path_buf())) {
                let package = [folder.to_owned(), folder.join("node_modules/openclaw")];
                if let Some(found) = package.into_iter().find(|package| is_openclaw(package)) {
                    return Some(found);
                }
            }
        }
        None
    }

    /// What the schema depends on: OpenClaw itself, and the manifests in every folder where it looks for plugins
    /// (its own installs, the workspaces of agents, `plugins.load.paths`). A few dozen `stat` calls.
    ///
    /// Which plugins are switched on does not matter: OpenClaw describes all that it finds.
    pub fn key(&self, config: &Value) -> Result<SchemaKey> {
        let manifest = self.package.join("package.json");
        let text = fs::read_to_string(&manifest).map_err(|error| CoreError::io("read", &manifest, error))?;
        let package: Value = serde_json::from_str(&text).unwrap_or_default();
        let version = package.get("version").and_then(Value::as_str).unwrap_or_default();
        let mut facts = Facts::default();
        facts.line(&[b"openclaw", version.as_bytes()]);
        facts.file(&manifest);
        for place in ["extensions", "npm", "git"] {
            facts.folder(&self.state_dir.join(place), 5);
        }
        for place in self.plugin_places(config) {
            if place.is_file() {
                facts.file(&place);
                facts.folder(place.parent().unwrap_or(&place), 0);
            } else {
                facts.folder(&place, 2);
            }
        }
        Ok(SchemaKey::of(&facts.text))
    }

    /// The places that the config adds: load paths, and the extensions of workspaces.
    fn plugin_places(&self, config: &Value) -> Vec<PathBuf> {
        let paths = config.pointer("/plugins/load/paths").and_then(Value::as_array).into_iter().flatten();
        let agents = config.get("agents");
        let list = |key: &str| agents.and_then(|agents| agents.get(key));
        let entries =
            list("entries").and_then(Value::as_object).into_iter().flat_map(|entries| entries.values());
        let listed = list("list").and_then(Value::as_array).into_iter().flatten();
        let workspaces =
            list("defaults").into_iter().chain(entries).chain(listed).filter_map(|a| a.get("workspace"));
        let default = self.state_dir.join("workspace");
        let mut places: Vec<PathBuf> =
            paths.filter_map(Value::as_str).map(|path| self.expand(path)).collect();
        let workspaces = workspaces.filter_map(Value::as_str).map(|path| self.expand(path)).chain([default]);
        places.extend(workspaces.map(|workspace| workspace.join(".openclaw/extensions")));
        places.sort_unstable();
        places.dedup();
        places
    }

    fn expand(&self, path: &str) -> PathBuf {
        let path = path.trim();
        match path.strip_prefix('~') {
            Some("") => self.home.clone(),
            Some(rest) if rest.starts_with(['/', '\\']) => {
                self.home.join(rest.trim_start_matches(['/', '\\']))
            }
            _ => PathBuf::from(path),
        }
    }

    /// Has OpenClaw print its schema and stores it. Takes seconds: never part of an ordinary load.
    ///
    /// `env` is added to this process's environment; it should name the config file, if that is not the usual one.
    pub fn refresh(
        &self,
        cache: &SchemaCache,
        node: &Path,
        config: &Value,
        env: &[(OsString, OsString)],
        timeout: Duration,
    ) -> Result<Schema> {
        let deadline = Instant::now() + timeout;
        // Before the run: should a plugin be installed meanwhile, the next key differs.
        let key = self.key(config)?;
        let mut printed = self.print_schema(node, env, deadline)?;
        if !describes_plugins(&printed) {
            // OpenClaw leaves plugins out while the config is invalid. What they describe does not depend on it.
            let neutral = Neutral::write(cache, config)?;
            let mut env = env.to_vec();
            env.push(("OPENCLAW_CONFIG_PATH".into(), neutral.0.clone().into_os_string()));
            printed = self.print_schema(node, &env, deadline)?;
        }
        cache.put(&key, &printed)
    }

    fn print_schema(&self, node: &Path, env: &[(OsString, OsString)], deadline: Instant) -> Result<String> {
        let entry = self.package.join("openclaw.mjs");
        let failed = |what: String| {
            CoreError::new(Code::Io, format!("`openclaw config schema` {what}")).in_file(&entry)
        };
        let mut child = Command::new(node)
            .arg(&entry)
            .args(["config", "schema"])
            .env("OPENCLAW_STATE_DIR", &self.state_dir)
            .env("NO_COLOR", "1")
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| CoreError::io("run", node, error))?;
        let stdout = child.stdout.take();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.map(|out| out.take(MAX_PRINTED).read_to_string(&mut text)).transpose().map(|_| text)
        });
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                other => {
                    let _ = child.kill();
                    let _ = child.wait();
                    let what = other
                        .err()
                        .map_or("did not end in time".to_owned(), |error| format!("failed: {error}"));
                    return Err(CoreError::new(Code::Timeout, format!("`openclaw config schema` {what}"))
                        .in_file(&entry));
                }
            }
        };
        let printed = reader.join().map_err(|_| failed("could not be read".to_owned()))?;
        let printed = printed.map_err(|error| CoreError::io("read the output of", &entry, error))?;
        if !status.success() {
            return Err(failed(format!("ended with {status}; run it to see why")));
        }
        Ok(printed)
    }
}

fn is_openclaw(package: &Path) -> bool {
    let Ok(text) = fs::read_to_string(package.join("package.json")) else { return false };
    // Most package.json files that are met on the way up are others'.
    text.contains("\"openclaw\"")
        && serde_json::from_str::<Value>(&text)
            .is_ok_and(|package| package.get("name") == Some(&"openclaw".into()))
}

fn describes_plugins(printed: &str) -> bool {
    let schema: Value = serde_json::from_str(printed).unwrap_or_default();
    let entries = schema.pointer("/properties/plugins/properties/entries/properties");
    entries.and_then(Value::as_object).is_some_and(|entries| !entries.is_empty())
}

/// A config that says no more than where plugins lie; removed when dropped.
struct Neutral(PathBuf);

impl Neutral {
    /// In the cache's folder, which is this user's alone: what it says decides what OpenClaw loads.
    fn write(cache: &SchemaCache, config: &Value) -> Result<Self> {
        let paths = config.pointer("/plugins/load/paths").filter(|paths| paths.is_array());
        let plugins = paths.map_or_else(|| json!({}), |paths| json!({ "load": { "paths": paths } }));
        cache.write_private(".json", json!({ "plugins": plugins }).to_string().as_bytes()).map(Self)
    }
}

impl Drop for Neutral {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// What was seen on disk, as text to digest.
#[derive(Default)]
struct Facts {
    text: Vec<u8>,
    folders: usize,
}

impl Facts {
    fn line(&mut self, words: &[&[u8]]) {
        for word in words {
            self.text.extend_from_slice(&(word.len() as u64).to_le_bytes());
            self.text.extend_from_slice(word);
        }
        self.text.push(b'\n');
    }

    fn file(&mut self, path: &Path) {
        let Ok(meta) = fs::metadata(path) else { return };
        let changed =
            meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        let (size, changed) = (meta.len().to_le_bytes(), changed.as_nanos().to_le_bytes());
        self.line(&[path.as_os_str().as_encoded_bytes(), &size, &changed]);
    }

    /// Notes the telling files of a folder and of those in it. What npm installed is told by its lock file.
    fn folder(&mut self, dir: &Path, depth: u32) {
        self.folders += 1;
        if self.folders > MAX_FOLDERS {
            return;
        }
        for name in TELLING {
            self.file(&dir.join(name));
        }
        let is_modules = dir.file_name().is_some_and(|name| name == "node_modules");
        let Ok(entries) = fs::read_dir(dir) else { return };
        if depth == 0 || is_modules {
            return;
        }
        let mut folders: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        folders.sort_unstable();
        for folder in folders {
            if !folder.file_name().is_some_and(|name| SKIPPED.iter().any(|skipped| name == *skipped)) {
                self.folder(&folder, depth - 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_key_changes_with_openclaw_and_with_every_way_to_bring_a_plugin() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        let installed = Installed { package: at("openclaw"), state_dir: at("state"), home: at("home") };
        let config = json!({
            "plugins": { "load": { "paths": ["~/mine", at("one/index.js")] } },
            "agents": { "entries": { "main": { "workspace": at("work") } } },
        });
        write(&at("openclaw/package.json"), r#"{ "version": "1" }"#);
        let mut keys = vec![installed.key(&config).unwrap()];
        assert_eq!(installed.key(&config).unwrap(), keys[0], "nothing changed");
        for (path, text) in [
            ("openclaw/package.json", r#"{ "version": "2" }"#),
            ("state/extensions/a/openclaw.plugin.json", "{}"),
            ("state/extensions/a/openclaw.plugin.json", r#"{ "id": "a" }"#),
            ("state/npm/projects/p/node_modules/.package-lock.json", "{}"),
            ("state/git/host/owner/repo/openclaw.plugin.json", "{}"),
            ("home/mine/x/openclaw.plugin.json", "{}"),
            ("one/index.js", ""),
            ("one/openclaw.plugin.json", "{}"),
            ("work/.openclaw/extensions/y/package.json", "{}"),
        ] {
            write(&at(path), text);
            let key = installed.key(&config).unwrap();
            assert!(!keys.contains(&key), "{path}");
            keys.push(key);
        }
        fs::remove_dir_all(at("state/extensions/a")).unwrap();
        assert!(!keys.contains(&installed.key(&config).unwrap()), "a plugin was removed");
        write(&at("state/agents/main/sessions/s.jsonl"), "{}");
        let before = installed.key(&config).unwrap();
        write(&at("state/agents/main/sessions/s.jsonl"), "{}{}");
        assert_eq!(installed.key(&config).unwrap(), before, "what is no plugin does not count");
    }

    #[test]
    fn without_a_package_there_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let installed =
            Installed { package: dir.path().into(), state_dir: dir.path().into(), home: dir.path().into() };
        let error = installed.key(&Value::Null).unwrap_err();
        assert_eq!(error.code(), Code::Io);
        assert_eq!(error.details().file.as_deref(), Some(&*dir.path().join("package.json")));
    }

    #[test]
    #[cfg(unix)]
    fn an_openclaw_that_hangs_or_fails_is_ended_and_reported() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("package.json"), r#"{ "version": "1" }"#);
        let installed =
            Installed { package: dir.path().into(), state_dir: dir.path().into(), home: dir.path().into() };
        let cache = SchemaCache::open(dir.path().join("cache"));
        for (script, timeout, code) in [
            ("exec sleep 60", Duration::from_millis(50), Code::Timeout),
            ("exit 3", Duration::from_mins(1), Code::Io),
            ("echo oops", Duration::from_mins(1), Code::ConfigInvalid),
        ] {
            let node = dir.path().join("node");
            fs::write(&node, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&node, fs::Permissions::from_mode(0o755)).unwrap();
            let error = installed.refresh(&cache, &node, &Value::Null, &[], timeout).unwrap_err();
            assert_eq!(error.code(), code, "{script}: {error}");
            let left = fs::read_dir(dir.path().join("cache")).map_or(0, Iterator::count);
            assert_eq!(left, 0, "{script}");
        }
    }
}
