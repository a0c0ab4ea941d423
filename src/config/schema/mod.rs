//! Holds a resolved config against OpenClaw's own JSON Schema and says everything that is wrong with it.
//!
//! | module | holds |
//! |---|---|
//! | `repair` | what OpenClaw prints, made to compile, cut into parts |
//! | `migrate` | what OpenClaw changes as it reads a config, before it looks |
//! | `explain` | a validator's errors as issues at the paths that OpenClaw prints |
//! | `rules` | what OpenClaw demands beyond its schema |

mod explain;
mod migrate;
mod repair;
mod rules;
mod text;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jsonschema::{Draft, Validator};
use serde_json::{Map, Value};

use crate::{Code, CoreError, Result};
use explain::Finding;

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
    parts: Map<String, Value>,
    compiled: Mutex<HashMap<String, Arc<Validator>>>,
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schema").field("parts", &self.parts.len()).finish_non_exhaustive()
    }
}

impl Schema {
    /// Reads the JSON text that `openclaw config schema` prints.
    pub fn from_json(text: &str) -> Result<Self> {
        let schema: Value = serde_json::from_str(text).map_err(|error| {
            CoreError::new(Code::ConfigInvalid, format!("the config schema is not JSON: {error}")).caused_by(error)
        })?;
        Ok(Self { parts: repair::split(&schema)?, compiled: Mutex::default() })
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
        if self.parts.contains_key(repair::CHANNELS) {
            findings.extend(rules::channel_names(config, &|id| self.parts.contains_key(&repair::channel_part(id))));
        }
        for (id, value) in config.get("channels").and_then(Value::as_object).into_iter().flatten() {
            findings.extend(self.check(&repair::channel_part(id), value, &["channels", id], explain::plugin)?);
        }
        for (id, entry) in config.pointer("/plugins/entries").and_then(Value::as_object).into_iter().flatten() {
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
        let Some(schema) = self.parts.get(part) else { return Ok(Vec::new()) };
        let validator = self.validator(part, schema)?;
        if validator.is_valid(value) {
            return Ok(Vec::new());
        }
        Ok(explain(validator.iter_errors(value), path, schema))
    }

    fn validator(&self, part: &str, schema: &Value) -> Result<Arc<Validator>> {
        if let Some(known) = self.compiled.lock().unwrap_or_else(PoisonError::into_inner).get(part) {
            return Ok(Arc::clone(known));
        }
        let built = jsonschema::options().with_draft(Draft::Draft7).should_validate_formats(true).with_format("uri", is_url).build(schema);
        let validator = Arc::new(built.map_err(|error| {
            let place = error.instance_path().to_string();
            let message = format!("the config schema does not compile at {part}{place}: {error}");
            CoreError::new(Code::ConfigInvalid, message)
        })?);
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        compiled.insert(part.to_owned(), Arc::clone(&validator));
        Ok(validator)
    }
}

/// OpenClaw asks JavaScript's `URL`, which takes more than RFC 3986 does.
fn is_url(text: &str) -> bool {
    text::parse_url(text).is_some()
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
