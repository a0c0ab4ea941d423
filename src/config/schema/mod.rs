//! Holds a resolved config against OpenClaw's own JSON Schema and says everything that is wrong with it.
//!
//! | module | holds |
//! |---|---|
//! | `repair` | what OpenClaw prints, made to compile, cut into parts |
//! | [`SchemaCache`] | parts on disk, so that a start reads only what it needs |
//! | [`Installed`] | the OpenClaw on this machine: what its schema depends on, and the schema |
//! | `migrate` | what OpenClaw changes as it reads a config, before it looks |
//! | `explain` | a validator's errors as issues at the paths that OpenClaw prints |
//! | `rules` | what OpenClaw demands beyond its schema |

mod cache;
mod explain;
mod installed;
mod migrate;
mod repair;
mod rules;
mod text;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jsonschema::Validator;
use serde_json::{Map, Value};

use crate::{Code, CoreError, Result};
use explain::Finding;

pub use cache::{SchemaCache, SchemaKey};
pub use installed::Installed;

/// One thing that is wrong with a config.
#[derive(Clone, Debug, PartialEq)]
pub struct SchemaIssue {
    /// The keys from the root of the config, as OpenClaw reports them; array indices are decimal.
    pub path: Vec<String>,
    /// The keys as the author wrote them: OpenClaw reads `agents.list` as `agents.entries`.
    pub source_path: Vec<String>,
    /// What is wrong, without the value, which may be secret.
    pub message: String,
    /// The values that would do, if they can be listed; else empty.
    pub allowed_values: Vec<Value>,
}

/// A config schema, ready to use. What a config does not mention is neither read nor compiled.
pub struct Schema {
    parts: Parts,
    compiled: Mutex<HashMap<String, Arc<Part>>>,
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schema").finish_non_exhaustive()
    }
}

impl Schema {
    /// Reads the JSON text that `openclaw config schema` prints.
    pub fn from_json(text: &str) -> Result<Self> {
        let schema: Value = serde_json::from_str(text).map_err(|error| {
            CoreError::new(Code::ConfigInvalid, format!("the config schema is not JSON: {error}"))
                .caused_by(error)
        })?;
        Ok(Self::new(Parts::Read(repair::split(&schema)?)))
    }

    fn new(parts: Parts) -> Self {
        Self { parts, compiled: Mutex::default() }
    }

    /// Everything that is wrong with a resolved config.
    ///
    /// As in OpenClaw, a later check is made once the earlier ones found nothing: the core sections; agents
    /// against each other and the gateway's exposure; channels and plugins.
    pub fn validate(&self, config: &Value) -> Result<Vec<SchemaIssue>> {
        let migrated = migrate::on_read(config);
        let config = migrated.config.as_ref();
        let mut findings = self.core(config)?;
        findings.extend(rules::core(config, &findings, migrated.has_default_agent));
        if findings.is_empty() {
            findings = rules::afterwards(config);
        }
        if findings.is_empty() {
            findings = self.plugins(config)?;
        }
        Ok(into_issues(findings, &migrated.listed_agents))
    }

    fn core(&self, config: &Value) -> Result<Vec<Finding>> {
        let mut findings = self.check(repair::ROOT, config, &[], explain::core)?;
        for (key, value) in config.as_object().into_iter().flatten() {
            findings.extend(self.check(&format!("/{key}"), value, &[key], explain::core)?);
        }
        Ok(findings)
    }

    fn plugins(&self, config: &Value) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        // A schema that describes no channels cannot tell which there are.
        if self.parts.contains(repair::CHANNELS) {
            findings
                .extend(rules::channel_names(config, &|id| self.parts.contains(&repair::channel_part(id))));
        }
        if self.parts.describes_plugins() {
            findings.extend(rules::memory_slot(config, &|id| self.parts.contains(&repair::plugin_part(id))));
        }
        for (id, value) in config.get("channels").and_then(Value::as_object).into_iter().flatten() {
            findings.extend(self.check(
                &repair::channel_part(id),
                value,
                &["channels", id],
                explain::plugin,
            )?);
        }
        for (id, entry) in config.pointer("/plugins/entries").and_then(Value::as_object).into_iter().flatten()
        {
            if let Some(value) = entry.get("config") {
                let path = ["plugins", "entries", id, "config"];
                findings.extend(self.check(&repair::plugin_part(id), value, &path, explain::plugin)?);
            }
        }
        Ok(findings)
    }

    fn check(
        &self,
        part: &str,
        value: &Value,
        path: &[&str],
        explain: fn(jsonschema::ErrorIterator<'_>, &[&str], &Value) -> Vec<Finding>,
    ) -> Result<Vec<Finding>> {
        let Some(part) = self.part(part)? else { return Ok(Vec::new()) };
        if part.validator.is_valid(value) {
            return Ok(Vec::new());
        }
        Ok(explain(part.validator.iter_errors(value), path, &part.schema))
    }

    fn part(&self, name: &str) -> Result<Option<Arc<Part>>> {
        if let Some(known) = self.compiled.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(schema) = self.parts.read(name)? else { return Ok(None) };
        // Not through `options()`: its builder is generic, and would be compiled once more for this crate.
        let validator = jsonschema::draft7::new(&schema).map_err(|error| {
            let message =
                format!("the config schema does not compile at {name}{}: {error}", error.instance_path());
            CoreError::new(Code::ConfigInvalid, message)
        })?;
        let part = Arc::new(Part { schema, validator });
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        compiled.insert(name.to_owned(), Arc::clone(&part));
        Ok(Some(part))
    }
}

/// One part of a schema, compiled.
struct Part {
    schema: Value,
    validator: Validator,
}

/// The parts of a schema, parsed or still as text.
enum Parts {
    Read(Map<String, Value>),
    Stored(cache::Stored),
}

impl Parts {
    fn contains(&self, name: &str) -> bool {
        match self {
            Self::Read(parts) => parts.contains_key(name),
            Self::Stored(stored) => stored.contains(name),
        }
    }

    /// Whether it tells of the installed plugins: OpenClaw leaves them out where the config is invalid.
    fn describes_plugins(&self) -> bool {
        let entries = repair::plugin_part("");
        match self {
            Self::Read(parts) => parts.keys().any(|name| name.starts_with(&entries)),
            Self::Stored(stored) => stored.names().any(|name| name.starts_with(&entries)),
        }
    }

    fn read(&self, name: &str) -> Result<Option<Value>> {
        match self {
            Self::Read(parts) => Ok(parts.get(name).cloned()),
            Self::Stored(stored) => stored.read(name),
        }
    }
}

fn into_issues(findings: Vec<Finding>, listed_agents: &[String]) -> Vec<SchemaIssue> {
    let mut issues: Vec<SchemaIssue> = Vec::with_capacity(findings.len());
    for Finding { path, message, allowed, .. } in findings {
        let source_path = authored(&path, listed_agents);
        let issue = SchemaIssue { path, source_path, message, allowed_values: allowed };
        if !issues.contains(&issue) {
            issues.push(issue);
        }
    }
    issues
}

/// `agents.entries.<id>` as the author wrote it: an item of `agents.list`.
fn authored(path: &[String], listed_agents: &[String]) -> Vec<String> {
    let mut path = path.to_vec();
    if let [agents, entries, rest @ ..] = path.as_mut_slice()
        && agents == "agents"
        && entries == "entries"
        && !listed_agents.is_empty()
    {
        "list".clone_into(entries);
        if let [id, ..] = rest
            && let Some(index) = listed_agents.iter().position(|listed| listed == id)
        {
            *id = index.to_string();
        }
    }
    path
}
