//! Holds a resolved config against OpenClaw's own JSON Schema and says everything that is wrong with it.
//!
//! | module | holds |
//! |---|---|
//! | `repair` | what OpenClaw prints, made to compile, cut into parts |
//! | `explain` | a validator's errors as issues at the paths that OpenClaw prints |

mod explain;
mod repair;

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
    /// As in OpenClaw, channels and plugins are looked at once the core sections are in order.
    pub fn validate(&self, config: &Value) -> Result<Vec<SchemaIssue>> {
        let mut findings = self.core(config)?;
        if findings.is_empty() {
            findings = self.plugins(config)?;
        }
        Ok(into_issues(findings))
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
        explain: fn(jsonschema::ErrorIterator<'_>, &[&str]) -> Vec<Finding>,
    ) -> Result<Vec<Finding>> {
        let Some(validator) = self.validator(part)? else { return Ok(Vec::new()) };
        if validator.is_valid(value) {
            return Ok(Vec::new());
        }
        Ok(explain(validator.iter_errors(value), path))
    }

    fn validator(&self, part: &str) -> Result<Option<Arc<Validator>>> {
        if let Some(known) = self.compiled.lock().unwrap_or_else(PoisonError::into_inner).get(part) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(schema) = self.parts.get(part) else { return Ok(None) };
        let built = jsonschema::options().with_draft(Draft::Draft7).should_validate_formats(true).build(schema);
        let validator = Arc::new(built.map_err(|error| {
            let place = error.instance_path().to_string();
            let message = format!("the config schema does not compile at {part}{place}: {error}");
            CoreError::new(Code::ConfigInvalid, message)
        })?);
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        compiled.insert(part.to_owned(), Arc::clone(&validator));
        Ok(Some(validator))
    }
}

fn into_issues(findings: Vec<Finding>) -> Vec<SchemaIssue> {
    let mut issues: Vec<SchemaIssue> = Vec::with_capacity(findings.len());
    for Finding { path, message, allowed, .. } in findings {
        let issue = SchemaIssue { path, message, allowed_values: allowed };
        if !issues.contains(&issue) {
            issues.push(issue);
        }
    }
    issues
}
