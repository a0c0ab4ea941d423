//! Edits of a config on disk: in the file where a value lives, in one commit, or not at all.
//!
//! # Which file
//! A value that one file alone has is edited in that file. A new value goes where the last word is: beside an
//! `$include`, if there are other keys beside it, else into the (last) included file. A value that was merged from
//! several files cannot be replaced or removed in one of them, and the error names them.

use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::document::{self, Change};
use super::dotpath::{self, Step};
use super::lock::WriteLock;
use super::origin::{Draft, SourceFile, Sources};
use super::paths::{
    Env, is_config_read_only, is_inside, is_nix_mode, normalize, parent, without_trailing_separator,
};
use super::value::{Node, Object, Text, Value};
use super::{Config, Severity, commit, json5};
use crate::{Code, CoreError, Result};

const INCLUDE: &[u8] = b"$include";

/// One change of one value.
#[derive(Clone, Debug)]
pub struct Edit {
    /// Where, as `openclaw config set` would have it.
    pub path: String,
    /// What.
    pub change: Change,
}

/// What an edit may do.
#[derive(Clone, Copy, Debug)]
pub struct EditOptions {
    /// Whether more than half of a file's bytes, or a top-level key, may go.
    pub allow_shrink: bool,
    /// Whether a config that has an error which it had not before is refused.
    pub validate: bool,
}

impl Default for EditOptions {
    fn default() -> Self {
        Self { allow_shrink: false, validate: true }
    }
}

impl Config {
    /// Makes all changes in one commit and returns the config as it then is. Blocks.
    ///
    /// Fails with `CONFIG_CONFLICT` if the config on disk is not the one that was loaded. After any failure the
    /// files are what they were.
    pub fn edit(&self, edits: &[Edit], options: EditOptions, cancel: &CancellationToken) -> Result<Self> {
        self.check_writable()?;
        let _root = WriteLock::acquire(self.path(), cancel)?;
        let current = self.reload_unchanged()?;
        let plan = Plan::make(&current, edits)?;
        // The included file's lock within the root's, as stock does. Another root may include that file too, so
        // only now is it sure that nobody else writes it.
        let (current, _included) = if plan.file == 0 {
            (current, None)
        } else {
            let lock = WriteLock::acquire(&plan.draft.real_path, cancel)?;
            (self.reload_unchanged()?, Some(lock))
        };
        if plan.draft.text == plan.before {
            return Ok(current);
        }
        let next = Self::load_with(self.reload_options(), Some(&plan.draft))?;
        if !options.allow_shrink {
            check_shrink(&plan, &current, &next)?;
        }
        if options.validate {
            check_issues(&current, &next)?;
        }
        if cancel.is_cancelled() {
            return Err(CoreError::new(Code::Timeout, "the edit was cancelled; nothing was written"));
        }
        commit::replace(&plan.draft.real_path, plan.before.as_bytes(), plan.draft.text.as_bytes())?;
        tracing::info!(file = %plan.draft.real_path.display(), changes = edits.len(), "config edited");
        Ok(next)
    }

    fn reload_unchanged(&self) -> Result<Self> {
        let current = self.reload()?;
        if current.revision() == self.revision() {
            return Ok(current);
        }
        let message = format!(
            "{} changed since it was loaded; load it again and repeat the edit",
            self.path().display()
        );
        Err(CoreError::new(Code::ConfigConflict, message)
            .in_file(self.path())
            .with_revision(current.revision()))
    }

    fn check_writable(&self) -> Result<()> {
        let Some(env) = self.options().env.as_ref().filter(|env: &&Env| is_config_read_only(env)) else {
            return Ok(());
        };
        let (setting, remedy) = if is_nix_mode(env) {
            ("OPENCLAW_NIX_MODE=1", "change the Nix source and rebuild")
        } else {
            ("OPENCLAW_CONFIG_READONLY=1", "change it where it is deployed from")
        };
        let message = format!("{} is managed from elsewhere ({setting}): {remedy}", self.path().display());
        Err(CoreError::new(Code::ConfigReadonly, message).in_file(self.path()))
    }
}

fn check_shrink(plan: &Plan, before: &Config, after: &Config) -> Result<()> {
    let error = |message: String| {
        let message = format!("{message}; allow it with `allowShrink` if it is meant");
        CoreError::new(Code::ConfigShrink, message).in_file(&plan.shown)
    };
    let (was, is) = (plan.before.len(), plan.draft.text.len());
    if is.saturating_mul(2) < was {
        return Err(error(format!(
            "the edit would shrink {} from {was} to {is} bytes",
            plan.shown.display()
        )));
    }
    let keys = |config: &Config| config.root().value.as_object().cloned().unwrap_or_default();
    let (old, new) = (keys(before), keys(after));
    match old.keys().find(|key| !new.contains_key(key.as_bytes())) {
        Some(key) => {
            let key = key.to_str_lossy();
            Err(error(format!("the edit would remove the top-level key `{key}`")).at_path(key))
        }
        None => Ok(()),
    }
}

/// Errors that were there before do not stand in the way of an edit that does not touch them.
fn check_issues(before: &Config, after: &Config) -> Result<()> {
    let known = |path: &str, message: &str| {
        before.issues().iter().any(|issue| issue.path == path && issue.message == message)
    };
    let new = after
        .issues()
        .iter()
        .find(|issue| issue.severity == Severity::Error && !known(&issue.path, &issue.message));
    match new {
        Some(issue) => {
            let message =
                format!("the edit would make the config invalid: {}: {}", issue.path, issue.message);
            Err(CoreError::new(Code::ConfigInvalid, message).at_path(&issue.path).in_file(after.path()))
        }
        None => Ok(()),
    }
}

/// The one file that is to change, and how.
struct Plan {
    file: usize,
    shown: PathBuf,
    before: String,
    draft: Draft,
}

impl Plan {
    fn make(config: &Config, edits: &[Edit]) -> Result<Self> {
        let mut plan: Option<Self> = None;
        for edit in edits {
            let steps = dotpath::parse(&edit.path)?;
            let map = Map { sources: config.sources(), draft: plan.as_ref() };
            let target = map.locate(&steps, &edit.change).map_err(|error| error.at_path(&edit.path))?;
            let next = match plan.take() {
                Some(next) if next.file == target.file => next,
                Some(next) => {
                    let other = map_source(config.sources(), target.file)?.path.display();
                    let message = format!(
                        "the changes belong to {} and {other}: edit one file at a time",
                        next.shown.display()
                    );
                    return Err(CoreError::new(Code::ConfigPath, message).at_path(&edit.path));
                }
                None => Self::start(config, target.file).map_err(|error| error.at_path(&edit.path))?,
            };
            let text = document::apply(&next.draft.text, &target.path, &edit.change).map_err(|error| {
                let in_place = error.in_file(&next.shown);
                in_place.at_path(&edit.path)
            })?;
            plan = Some(Self { draft: Draft { text, ..next.draft }, ..next });
        }
        plan.map_or_else(|| Self::start(config, 0), Ok)
    }

    fn start(config: &Config, file: usize) -> Result<Self> {
        let source = map_source(config.sources(), file)?;
        let shown = source.path.display();
        let error = |code, message: String| Err(CoreError::new(code, message).in_file(&source.path));
        if let Some(offset) = source.first_invalid {
            let (line, column) = source.line_and_column(offset);
            let message = format!("{shown} is not UTF-8; repair it by hand before it is edited");
            return Err(CoreError::new(Code::ConfigParse, message).in_file(&source.path).at(line, column));
        }
        if file != 0 {
            let folder = std::fs::canonicalize(parent(config.path()))
                .map_err(|error| CoreError::io("find the folder of", config.path(), error))?;
            if !is_inside(&folder, &source.real_path) {
                return error(
                    Code::ConfigPath,
                    format!("{shown} lies outside of the config's folder; edit it directly or move it there"),
                );
            }
            let times = config.sources().iter().filter(|other| other.real_path == source.real_path).count();
            if times > 1 {
                return error(
                    Code::ConfigPath,
                    format!("{shown} is included in {times} places, and all would change; edit it directly"),
                );
            }
        }
        let draft = Draft { real_path: source.real_path.clone(), text: source.text.clone() };
        Ok(Self { file, shown: source.path.clone(), before: source.text.clone(), draft })
    }
}

fn map_source(sources: &Sources, file: usize) -> Result<&SourceFile> {
    u32::try_from(file)
        .ok()
        .and_then(|number| sources.get(number))
        .ok_or_else(|| CoreError::new(Code::Internal, format!("there is no file {file} in the config")))
}

/// Which file holds what, as authored.
struct Map<'a> {
    sources: &'a Sources,
    draft: Option<&'a Plan>,
}

/// A value in a file.
struct Target {
    file: usize,
    path: Vec<Step>,
}

/// One file's part of a value.
struct Layer {
    file: usize,
    path: Vec<Step>,
    node: Node,
    /// It stands where another file has an `$include`.
    included: bool,
}

impl Layer {
    fn child(&self, step: &Step) -> Option<Self> {
        let node = match &self.node.value {
            Value::Object(object) => object.get(step.key.as_bytes())?,
            Value::Array(items) => items.get(step.index()?)?,
            _ => return None,
        };
        let path = self.path.iter().chain([step]).cloned().collect();
        Some(Self { file: self.file, path, node: node.clone(), included: false })
    }

    /// What merges with another value of the same kind, and replaces one of any other.
    fn mergeable(&self) -> Option<bool> {
        match self.node.value {
            Value::Object(_) => Some(true),
            Value::Array(_) => Some(false),
            _ => None,
        }
    }
}

impl Map<'_> {
    fn locate(&self, steps: &[Step], change: &Change) -> Result<Target> {
        let mut layers = self.expand(self.document(0)?)?;
        for (depth, step) in steps.iter().enumerate() {
            let last = depth + 1 == steps.len();
            if step.key.as_bytes() == INCLUDE && layers.iter().any(|layer| layer.included) {
                return Err(CoreError::new(
                    Code::ConfigPath,
                    "an $include cannot be edited by path; edit its file",
                ));
            }
            if let ([_, _, ..], Some(Value::Array(_))) = (&*layers, layers.last().map(|top| &top.node.value))
            {
                return Err(self.ambiguous(&layers, "the list is joined from"));
            }
            let children: Vec<Layer> = layers.iter().filter_map(|layer| layer.child(step)).collect();
            if last && matches!(change, Change::Unset) {
                return match &*children {
                    [] => Err(CoreError::new(Code::ConfigPath, "there is nothing there to remove")),
                    [child] => Ok(Target { file: child.file, path: child.path.clone() }),
                    _ => Err(self.ambiguous(&children, "it is written in")),
                };
            }
            let mut next: Vec<Layer> = Vec::new();
            for child in children {
                for layer in self.expand(child)? {
                    let kind = layer.mergeable();
                    if kind.is_none() || next.last().is_some_and(|below| below.mergeable() != kind) {
                        next.clear();
                    }
                    next.push(layer);
                }
            }
            if next.is_empty() {
                let rest = steps.get(depth..).unwrap_or_default();
                let top = layers.pop();
                return top
                    .map(|top| Target { file: top.file, path: [top.path, rest.to_vec()].concat() })
                    .ok_or_else(|| CoreError::new(Code::Internal, "a value without a file"));
            }
            layers = next;
        }
        match &*layers {
            [layer] => Ok(Target { file: layer.file, path: layer.path.clone() }),
            _ => Err(self.ambiguous(&layers, "it is merged from")),
        }
    }

    fn ambiguous(&self, layers: &[Layer], how: &str) -> CoreError {
        let mut names: Vec<String> = Vec::new();
        for layer in layers {
            if let Ok(source) = map_source(self.sources, layer.file) {
                names.push(source.path.display().to_string());
            }
        }
        let message = format!("{how} {}: edit the one that is meant", names.join(" and "));
        let file =
            layers.last().and_then(|top| map_source(self.sources, top.file).ok()).map(|top| top.path.clone());
        CoreError::new(Code::ConfigPath, message).in_file(file.unwrap_or_default())
    }

    fn document(&self, file: usize) -> Result<Layer> {
        let text = match self.draft {
            Some(plan) if plan.file == file => &plan.draft.text,
            _ => &map_source(self.sources, file)?.text,
        };
        let number = u32::try_from(file).unwrap_or(u32::MAX);
        let node = json5::parse(text.as_bytes(), number)?;
        Ok(Layer { file, path: Vec::new(), node, included: file != 0 })
    }

    /// The layers of a value, the last of which has the last word: itself, unless it has an `$include`.
    fn expand(&self, layer: Layer) -> Result<Vec<Layer>> {
        let mut siblings: Object = match &layer.node.value {
            Value::Object(object) if object.contains_key(INCLUDE) => object.clone(),
            _ => return Ok(vec![layer]),
        };
        let names: Vec<Text> = match siblings.shift_remove(INCLUDE).map(|directive| directive.value) {
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(names)) => {
                names.iter().filter_map(|name| name.value.as_text().cloned()).collect()
            }
            _ => Vec::new(),
        };
        let mut layers = Vec::new();
        for name in names {
            let file = self.included(layer.file, &name.to_str_lossy())?;
            layers.extend(self.expand(self.document(file)?)?);
        }
        if !siblings.is_empty() || layers.is_empty() {
            let node = Node { value: Value::Object(siblings), origin: layer.node.origin };
            layers.push(Layer { node, included: true, ..layer });
        }
        for layer in &mut layers {
            layer.included = true;
        }
        Ok(layers)
    }

    /// The file that a name in another file means: resolved as the loader does.
    fn included(&self, by: usize, name: &str) -> Result<usize> {
        let by = &map_source(self.sources, by)?.path;
        let path = normalize(&if Path::new(name).is_absolute() {
            PathBuf::from(name)
        } else {
            without_trailing_separator(parent(by).join(name))
        });
        self.sources.iter().position(|source| source.path == path).ok_or_else(|| {
            let message = format!("{} is not a file of the config that was loaded", path.display());
            CoreError::new(Code::ConfigPath, message).in_file(path)
        })
    }
}

#[cfg(test)]
mod tests;
