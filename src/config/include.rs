//! `$include`: a config in several files.
//!
//! An object that holds `$include` becomes the file it names (or the files, merged left to right), with its other
//! keys merged over that. Names are relative to the file that holds them, and must stay in the config's directory
//! or an include root, by name and once links are followed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use sha2::{Digest, Sha256};

use super::dotpath::is_blocked_key;
use super::js;
use super::json5::{self, MAX_TREE_DEPTH};
use super::origin::{Draft, SourceFile, Sources};
use super::paths::{is_inside, normalize, parent, real_path, without_trailing_separator};
use super::root_file::{self, Refusal};
use super::value::{Node, Object, Origin, Value, sort_like_javascript};
use crate::{Code, CoreError, Result};

const KEY: &[u8] = b"$include";
const MAX_DEPTH: usize = 10;
const MAX_FILE_BYTES: u64 = 2 * 1024 * 1024;
/// In UTF-16 code units, of a name as written and as resolved.
const MAX_PATH_LENGTH: usize = 4096;

/// What the included files were when they were read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Includes {
    /// For each path as it was asked for: where it led, and the hash of its text.
    pub(crate) revisions: IndexMap<PathBuf, (PathBuf, String)>,
    /// Every path whose change may change the config.
    pub(crate) watch: BTreeSet<PathBuf>,
}

/// Resolves every `$include` under `root`, which was read from `config_path` as file 0 of `sources`.
pub(crate) fn resolve(
    root: &mut Node,
    config_path: &Path,
    include_roots: &[PathBuf],
    draft: Option<&Draft>,
    sources: &mut Sources,
) -> Result<Includes> {
    let mut resolver = Resolver {
        boundary: Boundary::new(config_path, include_roots),
        draft,
        sources,
        includes: Includes::default(),
    };
    let at = At { file: config_path, chain: &[normalize(config_path)] };
    resolver.node(root, &at, 0)?;
    Ok(resolver.includes)
}

/// A directory that includes may come from, as named and as it really is.
struct Root {
    named: PathBuf,
    real: PathBuf,
}

impl Root {
    fn new(directory: &Path) -> Self {
        let named = normalize(directory);
        let real = real_path(&named).unwrap_or_else(|_| named.clone());
        Self { named, real }
    }
}

struct Boundary {
    config: Root,
    others: Vec<Root>,
}

impl Boundary {
    fn new(config_path: &Path, include_roots: &[PathBuf]) -> Self {
        let others = include_roots.iter().filter(|root| root.is_absolute()).map(|root| Root::new(root));
        Self { config: Root::new(parent(config_path)), others: others.collect() }
    }

    fn containing(&self, inside: impl Fn(&Root) -> bool) -> Option<&Root> {
        std::iter::once(&self.config).chain(&self.others).find(|root| inside(root))
    }
}

/// Where the walk is: the file at hand, and the files that led to it, which includes itself.
struct At<'a> {
    file: &'a Path,
    chain: &'a [PathBuf],
}

struct Resolver<'a> {
    boundary: Boundary,
    draft: Option<&'a Draft>,
    sources: &'a mut Sources,
    includes: Includes,
}

impl Resolver<'_> {
    fn node(&mut self, node: &mut Node, at: &At<'_>, level: usize) -> Result<()> {
        if level > MAX_TREE_DEPTH {
            let message = format!("Includes nest values deeper than {MAX_TREE_DEPTH} levels");
            return Err(self.error(message, node.origin));
        }
        match &mut node.value {
            Value::Array(items) => {
                for item in items {
                    self.node(item, at, level + 1)?;
                }
            }
            Value::Object(object) if object.contains_key(KEY) => {
                let object = std::mem::take(object);
                *node = self.including(object, node.origin, at, level)?;
            }
            Value::Object(object) => self.properties(object, at, level)?,
            _ => {}
        }
        Ok(())
    }

    fn properties(&mut self, object: &mut Object, at: &At<'_>, level: usize) -> Result<()> {
        for value in object.values_mut() {
            self.node(value, at, level + 1)?;
        }
        // Assigned in JavaScript, this key names the prototype and not a property.
        object.shift_remove(b"__proto__".as_slice());
        Ok(())
    }

    fn including(&mut self, mut object: Object, origin: Origin, at: &At<'_>, level: usize) -> Result<Node> {
        let Some(directive) = object.shift_remove(KEY) else {
            return Ok(Node { value: Value::Object(object), origin });
        };
        let included = self.directive(&directive, at, level)?;
        if object.is_empty() {
            return Ok(included);
        }
        if included.value.as_object().is_none() {
            let message = "Sibling keys require included content to be an object".to_owned();
            return Err(self.error(message, directive.origin));
        }
        self.properties(&mut object, at, level)?;
        Ok(merge(included, Node { value: Value::Object(object), origin }))
    }

    fn directive(&mut self, directive: &Node, at: &At<'_>, level: usize) -> Result<Node> {
        match &directive.value {
            Value::String(_) => self.load(directive, at, level),
            Value::Array(items) => {
                let mut files = Vec::with_capacity(items.len());
                for item in items {
                    if item.value.as_text().is_none() {
                        let got = type_of(&item.value);
                        let message = format!("Invalid $include array item: expected string, got {got}");
                        return Err(self.error(message, item.origin));
                    }
                    files.push(self.load(item, at, level)?);
                }
                let empty = Node { value: Value::Object(Object::new()), origin: directive.origin };
                Ok(files.into_iter().fold(empty, merge))
            }
            other => {
                let got = type_of(other);
                let message =
                    format!("Invalid $include value: expected string or array of strings, got {got}");
                Err(self.error(message, directive.origin))
            }
        }
    }

    fn load(&mut self, name: &Node, at: &At<'_>, level: usize) -> Result<Node> {
        let text = name.value.as_text().map(|text| text.to_str_lossy().into_owned()).unwrap_or_default();
        let error = |this: &Self, message: String| this.error(message, name.origin);
        let (path, root) = self.locate(&text, at).map_err(|message| error(self, message))?;
        let mut chain = at.chain.to_vec();
        chain.push(path.clone());
        // Compared as text: a trailing separator makes another path of it.
        if at.chain.iter().any(|seen| seen.as_os_str() == path.as_os_str()) {
            let chain: Vec<_> = chain.iter().map(|path| path.to_string_lossy()).collect();
            return Err(error(self, format!("Circular include detected: {}", chain.join(" -> "))));
        }
        if at.chain.len() > MAX_DEPTH {
            return Err(error(self, format!("Maximum include depth ({MAX_DEPTH}) exceeded at: {text}")));
        }
        let shown = path.display();
        let (real, bytes) = match root_file::read(&path, &root, MAX_FILE_BYTES) {
            Ok(read) => read,
            Err(Refusal::Unsafe) => {
                let rules = format!("regular file, max {MAX_FILE_BYTES} bytes, no hardlinks");
                return Err(error(self, format!("Include file failed security checks ({rules}): {text}")));
            }
            Err(Refusal::Unreadable(cause)) => {
                let message = format!("Failed to read include file: {text} (resolved: {shown})");
                return Err(error(self, message).caused_by(cause));
            }
        };
        let mut file = SourceFile::decode(path.clone(), real.clone(), bytes);
        Draft::replace(self.draft, &mut file);
        let hash = hex(Sha256::new().chain_update(b"present\0").chain_update(&file.text));
        self.includes.revisions.insert(path.clone(), (real.clone(), hash));
        self.includes.watch.insert(real);
        let number = self.sources.add(file);
        let source = self.sources.get(number).map(|file| file.text.as_bytes()).unwrap_or_default();
        let mut node = json5::parse(source, number).map_err(|cause| {
            let message = format!("Failed to parse include file: {text} (resolved: {shown})");
            // The text at fault is in the included file: that is the place to name.
            let wrapped = CoreError::new(Code::ConfigInclude, message).in_file(&path);
            match (cause.details().line, cause.details().column) {
                (Some(line), Some(column)) => wrapped.at(line, column),
                _ => wrapped,
            }
            .caused_by(cause)
        })?;
        self.node(&mut node, &At { file: &path, chain: &chain }, level)?;
        Ok(node)
    }

    /// The path that an include names, and the real directory that it must lie in.
    fn locate(&mut self, name: &str, at: &At<'_>) -> Result<(PathBuf, PathBuf), String> {
        if name.contains('\0') {
            return Err("Include path must not contain null bytes".into());
        }
        if js::length(name) >= MAX_PATH_LENGTH {
            return Err(format!("Include path exceeds maximum length ({MAX_PATH_LENGTH} characters)"));
        }
        let path = normalize(&if Path::new(name).is_absolute() {
            PathBuf::from(name)
        } else {
            without_trailing_separator(parent(at.file).join(name))
        });
        if js::length(&path.to_string_lossy()) >= MAX_PATH_LENGTH {
            return Err(format!(
                "Resolved include path exceeds maximum length ({MAX_PATH_LENGTH} characters)"
            ));
        }
        let config_dir = self.boundary.config.named.display();
        let Some(named) = self.boundary.containing(|root| is_inside(&root.named, &path)) else {
            return Err(format!("Include path escapes config directory: {name} (root: {config_dir})"));
        };
        self.includes.watch.insert(path.clone());
        let root = match real_path(&without_trailing_separator(path.clone())) {
            Ok(real) => self.boundary.containing(|root| is_inside(&root.real, &real)).ok_or_else(|| {
                format!(
                    "Include path resolves outside config directory (symlink): {name} (root: {config_dir})"
                )
            })?,
            // Reading it will say so.
            Err(error) if root_file::is_missing(&error) => named,
            Err(_) => {
                let shown = path.display();
                return Err(format!("Failed to resolve include file realpath: {name} (resolved: {shown})"));
            }
        };
        Ok((path, root.real.clone()))
    }

    fn error(&self, message: String, origin: Origin) -> CoreError {
        let error = CoreError::new(Code::ConfigInclude, message);
        match self.sources.place(origin) {
            Some(place) => error.in_file(place.file).at(place.line, place.column),
            None => error,
        }
    }
}

/// JavaScript's `typeof`.
const fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null | Value::Array(_) | Value::Object(_) => "object",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
    }
}

/// Objects merge key by key, arrays are joined, otherwise the later value wins. Keys that would reach a prototype
/// are dropped.
fn merge(earlier: Node, later: Node) -> Node {
    let origin = later.origin;
    let value = match (earlier.value, later.value) {
        (Value::Array(mut items), Value::Array(more)) => {
            items.extend(more);
            Value::Array(items)
        }
        (Value::Object(mut merged), Value::Object(over)) => {
            drop_blocked_keys(&mut merged);
            for (key, mut node) in over {
                if is_blocked_key(key.as_bytes()) {
                    continue;
                }
                let before = merged.get_mut(&key);
                match (before, &mut node.value) {
                    (Some(slot), Value::Object(_)) if slot.value.as_object().is_some() => {
                        take_merged(slot, node);
                    }
                    (Some(slot), Value::Array(_)) if matches!(slot.value, Value::Array(_)) => {
                        take_merged(slot, node);
                    }
                    (slot, value) => {
                        if let Value::Object(object) = value {
                            drop_blocked_keys(object);
                        }
                        match slot {
                            Some(slot) => *slot = node,
                            None => {
                                merged.insert(key, node);
                            }
                        }
                    }
                }
            }
            sort_like_javascript(&mut merged);
            Value::Object(merged)
        }
        (_, later) => later,
    };
    Node { value, origin }
}

fn take_merged(slot: &mut Node, later: Node) {
    let earlier = std::mem::replace(slot, Node { value: Value::Null, origin: later.origin });
    *slot = merge(earlier, later);
}

/// In nested objects too, but not in those that arrays hold.
fn drop_blocked_keys(object: &mut Object) {
    object.retain(|key, node| {
        if let Value::Object(inner) = &mut node.value {
            drop_blocked_keys(inner);
        }
        !is_blocked_key(key.as_bytes())
    });
}

/// A digest in lower-case hexadecimal.
pub(crate) fn hex(hasher: Sha256) -> String {
    use std::fmt::Write;
    hasher.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Node {
        json5::parse(text.as_bytes(), 0).unwrap()
    }

    #[test]
    fn merging_joins_arrays_and_drops_the_keys_of_prototypes() {
        let merged = merge(
            parsed("{a: ['1'], b: {x: '1', constructor: 0, y: [{prototype: '1'}]}, c: 0, '2': ''}"),
            parsed("{a: ['2'], b: {z: '3'}, c: {prototype: 0, k: '2'}, '1': '', __proto__: {p: 1}}"),
        );
        assert_eq!(
            json5::stringify(&merged.value).unwrap().text,
            r#"{"1":"","2":"","a":["1","2"],"b":{"x":"1","y":[{"prototype":"1"}],"z":"3"},"c":{"k":"2"}}"#
        );
    }

    #[test]
    fn an_error_names_the_place_of_the_include() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("openclaw.json");
        let text = "{\n  a: [{$include: ['../out.json']}]\n}";
        let mut sources = Sources::default();
        sources.add(SourceFile::decode(path.clone(), path.clone(), text.into()));
        let error = resolve(&mut parsed(text), &path, &[], None, &mut sources).unwrap_err();
        assert_eq!(error.code(), Code::ConfigInclude);
        assert!(error.message().starts_with("Include path escapes config directory: ../out.json (root: "));
        let details = error.details();
        assert_eq!((details.file.as_ref(), details.line, details.column), (Some(&path), Some(2), Some(19)));
    }

    #[test]
    fn values_nested_deeper_than_the_limit_across_files_are_refused_without_overflowing_the_stack() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("openclaw.json");
        let deep = |inner: &str| format!("{}{inner}{}", "[".repeat(900), "]".repeat(900));
        let text = deep("{$include: 'b.json'}");
        std::fs::write(dir.path().join("b.json"), deep("1")).unwrap();
        let mut sources = Sources::default();
        sources.add(SourceFile::decode(path.clone(), path.clone(), text.clone().into_bytes()));
        let error = resolve(&mut parsed(&text), &path, &[], None, &mut sources).unwrap_err();
        assert_eq!(error.message(), "Includes nest values deeper than 1000 levels");
    }
}
