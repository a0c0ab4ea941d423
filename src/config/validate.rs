//! Holds a loaded config against the schema of an OpenClaw, and keeps that schema at hand.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::load::{Config, ConfigOptions, Issue, Severity};
use super::paths::{Env, Host};
use super::schema::{Installed, Schema, SchemaCache};
use crate::{Code, CoreError, Result};

/// How long OpenClaw may take to print its schema. It takes two to four seconds on two cores.
const PRINTING: Duration = Duration::from_mins(2);

/// What a config is held against.
#[derive(Clone, Debug, Default)]
pub enum SchemaSource {
    /// Nothing: the value may be anything.
    #[default]
    None,
    /// JSON text as `openclaw config schema` prints it.
    Text(Arc<str>),
    /// The schema of the OpenClaw whose package lies in this folder, if it is cached; a warning if it is not.
    At(PathBuf),
    /// As `At`, of the OpenClaw nearest to any of these places, in their order; without one, as `None`.
    Near(Vec<PathBuf>),
}

impl SchemaSource {
    /// The package folder of the OpenClaw that is meant, if there is one.
    fn package(&self) -> Result<Option<PathBuf>> {
        match self {
            Self::None | Self::Text(_) => Ok(None),
            Self::Near(starts) => Ok(Installed::find_package(starts)),
            Self::At(package) => {
                let found = Installed::find_package(std::slice::from_ref(package));
                if found.as_deref() == std::fs::canonicalize(package).ok().as_deref() && found.is_some() {
                    return Ok(found);
                }
                let message = format!(
                    "There is no OpenClaw in {}: name the folder of its package.json",
                    package.display()
                );
                Err(CoreError::new(Code::ConfigNotFound, message).in_file(package))
            }
        }
    }
}

impl Config {
    pub(super) fn check_schema(&mut self) -> Result<()> {
        let (schema, value);
        if let SchemaSource::Text(text) = &self.options().schema {
            schema = Schema::from_json(text)?;
            value = serde_json::Value::from(&self.root().value);
        } else {
            let Some(package) = self.options().schema.package()? else { return Ok(()) };
            value = serde_json::Value::from(&self.root().value);
            let installed = installed(package, self.options().env.as_ref())?;
            let Some(cached) = cache(&installed).get(&installed.key(&value)?) else {
                self.add_issue::<&str>(&[], not_cached());
                return Ok(());
            };
            schema = cached;
        }
        for issue in schema.validate(&value)? {
            let allowed = Some(issue.allowed_values).filter(|values| !values.is_empty());
            self.add_issue(
                &issue.source_path,
                Issue {
                    severity: Severity::Error,
                    path: issue.path.join("."),
                    message: issue.message,
                    place: None,
                    allowed_values: allowed,
                },
            );
        }
        Ok(())
    }

    /// Has the installed OpenClaw print its schema and keeps it, for every load until OpenClaw or its plugins
    /// change. Runs `node` for seconds; blocks.
    pub fn refresh_schema(options: ConfigOptions, node: &Path) -> Result<()> {
        let Some(package) = options.schema.package()? else {
            let message = "There is no OpenClaw here: name the folder of its package.json as `openclaw`";
            return Err(CoreError::new(Code::ConfigNotFound, message));
        };
        let config = Self::load(ConfigOptions { schema: SchemaSource::None, ..options.clone() });
        // A config that is missing or wrong says nothing of where plugins lie; the rest of the schema is the same.
        let value = config.as_ref().map_or(serde_json::Value::Null, |config| (&config.root().value).into());
        let installed = installed(package, options.env.as_ref())?;
        let env = options.env.unwrap_or_else(Env::from_process);
        let mut pass: Vec<(OsString, OsString)> = env.iter().map(|(k, v)| (k.into(), v.into())).collect();
        if let Ok(config) = &config {
            pass.push(("OPENCLAW_CONFIG_PATH".into(), config.path().into()));
        }
        installed.refresh(&cache(&installed), node, &value, &pass, PRINTING).map(|_| ())
    }
}

fn installed(package: PathBuf, env: Option<&Env>) -> Result<Installed> {
    let env = env.cloned().unwrap_or_else(Env::from_process);
    let host = Host::of_process(&env);
    Ok(Installed { package, state_dir: host.state_dir()?, home: host.home()? })
}

/// Where an OpenClaw's repaired schemas are kept.
fn cache(installed: &Installed) -> SchemaCache {
    SchemaCache::open(installed.state_dir.join("cache/openclaw-core"))
}

fn not_cached() -> Issue {
    Issue {
        severity: Severity::Warning,
        path: String::new(),
        message: "The config was not validated: the schema of the installed OpenClaw is not cached, or its plugins \
                  changed since; `openclaw core schema` (`openclaw-core schema` without the plugin, or `Config.refreshSchema()`) asks \
                  OpenClaw for it"
            .into(),
        place: None,
        allowed_values: None,
    }
}
