//! Makes OpenClaw's schema fit for a strict validator, and cuts it into parts that load on their own.
//!
//! The schema that OpenClaw prints was never compiled by anyone: one pattern has an escape that only
//! JavaScript reads, references inside plugin schemas point to the root of the plugin's own schema, and
//! properties with a default are called required although the default is filled in before the check.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::{Code, CoreError, Result};

/// The schema of the config's root object, with every property admitted.
pub(super) const ROOT: &str = "";
/// Where the core's own channel settings are described.
pub(super) const CHANNELS: &str = "/channels";
/// Where the plugin entries are described, their `config` apart.
pub(super) const PLUGINS: &str = "/plugins";

/// The channel keys that belong to the core and not to a channel.
const CORE_CHANNEL_KEYS: [&str; 2] = ["defaults", "modelByChannel"];

/// Keywords that say nothing about what is valid.
const ANNOTATIONS: [&str; 12] = [
    "$comment",
    "$id",
    "$schema",
    "default",
    "deprecated",
    "description",
    "examples",
    "nullable",
    "readOnly",
    "title",
    "uiHints",
    "writeOnly",
];

/// What `new URL` takes, as a pattern: OpenClaw asks it about every `uri`, and it takes more than RFC 3986 does.
const URL: &str = concat!(
    r"^[\x00-\x20]*(?:(?:[Hh][Tt][Tt][Pp][Ss]?|[Ww][Ss][Ss]?|[Ff][Tt][Pp]):[\\/]*(?:[^\\/?#]*@)?",
    r"(?:\[[0-9A-Fa-f:.]+\]|[^\x00-\x20#/:<>?@\[\\\]^|\x7f]+)(?::[0-9]{0,5})?(?:[\\/?#]|[\x00-\x20]*$)",
    r"|(?!(?:[Hh][Tt][Tt][Pp][Ss]?|[Ww][Ss][Ss]?|[Ff][Tt][Pp]):)[A-Za-z][A-Za-z0-9+.-]*:)",
);

/// Patterns that OpenClaw matches without regard to case, which its printed schema does not say.
const WITHOUT_CASE: [&str; 2] = ["^[a-z0-9_][a-z0-9_-]{0,63}$", "^[a-z0-9][a-z0-9_-]{0,63}$"];

/// The name of the part that describes one channel.
pub(super) fn channel_part(id: &str) -> String {
    format!("{CHANNELS}/{id}")
}

/// The name of the part that describes one plugin's own config.
pub(super) fn plugin_part(id: &str) -> String {
    format!("{PLUGINS}/entries/{id}")
}

/// Cuts a config schema into parts: the root, one for each top-level key, one for each channel, and one for
/// the config of each plugin. Each is a schema that stands alone.
pub(super) fn split(schema: &Value) -> Result<Map<String, Value>> {
    let Some(root) = schema.as_object() else {
        return Err(CoreError::new(
            Code::ConfigInvalid,
            "the config schema is not an object: give the JSON object that `openclaw config schema` prints",
        ));
    };
    let mut repair = Repair::default();
    let mut parts = Map::new();
    let mut skeleton = root.clone();
    let mut admitted = Map::new();
    if let Some(Value::Object(properties)) = root.get("properties") {
        for (key, property) in properties {
            admitted.insert(key.clone(), Value::Bool(true));
            let scope = [schema];
            match key.as_str() {
                "channels" => split_channels(property, &scope, &mut repair, &mut parts),
                "plugins" => split_plugins(property, &scope, &mut repair, &mut parts),
                _ => {
                    parts.insert(format!("/{key}"), repair.part(property, &scope));
                }
            }
        }
        skeleton.insert("properties".into(), Value::Object(admitted));
    }
    parts.insert(ROOT.into(), repair.part(&Value::Object(skeleton), &[schema]));
    Ok(parts)
}

fn split_channels(channels: &Value, scope: &[&Value], repair: &mut Repair, parts: &mut Map<String, Value>) {
    let mut core = channels.clone();
    if let Some(Value::Object(properties)) = core.get_mut("properties") {
        for (id, property) in
            properties.iter_mut().filter(|(id, _)| !CORE_CHANNEL_KEYS.contains(&id.as_str()))
        {
            let own = std::mem::replace(property, Value::Bool(true));
            parts.insert(channel_part(id), repair.part(&own, &[scope, &[channels]].concat()));
        }
    }
    parts.insert(CHANNELS.into(), repair.part(&core, scope));
}

fn split_plugins(plugins: &Value, scope: &[&Value], repair: &mut Repair, parts: &mut Map<String, Value>) {
    let mut core = plugins.clone();
    let base = plugins.pointer("/properties/entries/additionalProperties").map(without_config);
    if let Some(Value::Object(entries)) = core.pointer_mut("/properties/entries/properties") {
        entries.retain(|id, entry| {
            let own = entry
                .pointer_mut("/properties/config")
                .map(|config| std::mem::replace(config, Value::Bool(true)));
            if let Some(own) = own {
                parts.insert(plugin_part(id), repair.part(&own, &[scope, &[plugins]].concat()));
            }
            // An entry that differs from all others by its config alone is described by them.
            base.as_ref() != Some(&without_config(entry))
        });
    }
    parts.insert(PLUGINS.into(), repair.part(&core, scope));
}

fn without_config(entry: &Value) -> Value {
    let mut entry = entry.clone();
    if let Some(config) = entry.pointer_mut("/properties/config") {
        *config = Value::Bool(true);
    }
    if let Some(entry) = entry.as_object_mut() {
        entry.retain(|key, _| !ANNOTATIONS.contains(&key.as_str()));
    }
    entry
}

#[derive(Default)]
struct Repair {
    /// What became of each pattern; `None` if no form of it compiles.
    patterns: HashMap<String, Option<String>>,
}

/// What the references of one part point to.
#[derive(Default)]
struct Definitions {
    names: HashMap<(usize, String), String>,
    schemas: Map<String, Value>,
}

impl Repair {
    fn part(&mut self, schema: &Value, scope: &[&Value]) -> Value {
        let mut definitions = Definitions::default();
        let mut slim = self.slim(schema, scope, &mut definitions);
        if let (Value::Object(part), false) = (&mut slim, definitions.schemas.is_empty()) {
            part.insert("definitions".into(), Value::Object(definitions.schemas));
        }
        slim
    }

    /// A copy without annotations. `scope` holds the schemas around this one, outermost first.
    fn slim(&mut self, schema: &Value, scope: &[&Value], definitions: &mut Definitions) -> Value {
        let Value::Object(keywords) = schema else { return schema.clone() };
        let inner;
        let scope = if keywords.contains_key("$defs") || keywords.contains_key("definitions") {
            inner = [scope, &[schema]].concat();
            &inner
        } else {
            scope
        };
        let mut slim = Map::new();
        for (keyword, value) in keywords {
            let kept = match (keyword.as_str(), value) {
                ("$defs" | "definitions", _) => None,
                (annotation, _) if ANNOTATIONS.contains(&annotation) => None,
                // Every other format is an annotation to OpenClaw, or has a pattern beside it.
                ("format", _) => None,
                ("propertyNames", Value::Object(names))
                    if names.len() == 1 && names.get("type").is_some_and(|kind| kind == "string") =>
                {
                    None
                }
                ("additionalProperties", Value::Object(any)) if any.is_empty() => None,
                ("$ref", Value::String(target)) => self.reference(target, scope, definitions),
                ("pattern", Value::String(pattern)) => self.pattern(pattern).map(Value::String),
                ("required", Value::Array(names)) => required_without_default(names, keywords),
                ("patternProperties", Value::Object(map)) => {
                    let entries = map.iter().filter_map(|(pattern, value)| {
                        Some((self.pattern(pattern)?, self.slim(value, scope, definitions)))
                    });
                    Some(Value::Object(entries.collect()))
                }
                ("properties" | "dependentSchemas", Value::Object(map)) => {
                    let entry = |(name, value): (&String, &Value)| {
                        (name.clone(), self.slim(value, scope, definitions))
                    };
                    Some(Value::Object(map.iter().map(entry).collect()))
                }
                ("allOf" | "anyOf" | "oneOf" | "items", Value::Array(schemas)) => {
                    Some(schemas.iter().map(|schema| self.slim(schema, scope, definitions)).collect())
                }
                (
                    "additionalItems"
                    | "additionalProperties"
                    | "contains"
                    | "else"
                    | "if"
                    | "items"
                    | "not"
                    | "propertyNames"
                    | "then",
                    schema,
                ) => Some(self.slim(schema, scope, definitions)),
                _ => Some(value.clone()),
            };
            if let Some(kept) = kept {
                slim.insert(keyword.clone(), kept);
            }
        }
        if keywords.get("format").is_some_and(|format| format == "uri") {
            also(&mut slim, Value::Object(Map::from_iter([("pattern".to_owned(), Value::from(URL))])));
        }
        // Draft 7 ignores what stands beside a reference; OpenClaw's validator does not.
        if slim.len() > 1
            && let Some(reference) = slim.shift_remove("$ref")
        {
            let together = Value::Object(Map::from_iter([("$ref".to_owned(), reference)]));
            also(&mut slim, together);
        }
        Value::Object(slim)
    }

    /// Finds what a local reference means: the innermost schema around it that has such a place.
    fn reference(&mut self, target: &str, scope: &[&Value], definitions: &mut Definitions) -> Option<Value> {
        let pointer = target.strip_prefix('#')?;
        let (depth, found) = scope
            .iter()
            .enumerate()
            .rev()
            .find_map(|(depth, around)| around.pointer(pointer).map(|found| (depth, found)))?;
        // Two scopes may give one name to different things; a scope is told by where it lies in memory.
        let around = scope.get(depth).map_or(0, |around| std::ptr::from_ref(*around) as usize);
        let key = (around, pointer.to_owned());
        let name = if let Some(name) = definitions.names.get(&key) {
            name.clone()
        } else {
            let name = format!("d{}", definitions.names.len());
            // Named before it is read, so that a schema that refers to itself ends.
            definitions.names.insert(key, name.clone());
            let enclosing = scope.get(..=depth).unwrap_or(scope);
            let slim = self.slim(found, enclosing, definitions);
            definitions.schemas.insert(name.clone(), slim);
            name
        };
        Some(Value::String(format!("#/definitions/{name}")))
    }

    fn pattern(&mut self, pattern: &str) -> Option<String> {
        if let Some(known) = self.patterns.get(pattern) {
            return known.clone();
        }
        // `\0` is NUL to JavaScript, and a back reference that cannot be to Rust.
        let pattern_in_force =
            if WITHOUT_CASE.contains(&pattern) { &pattern.replace("a-z", "A-Za-z") } else { pattern };
        let repaired =
            [pattern_in_force.to_owned(), nul_spelled_out(pattern_in_force)].into_iter().find(|form| {
                let mut schema = Map::new();
                schema.insert("pattern".into(), Value::String(form.clone()));
                jsonschema::draft7::new(&Value::Object(schema)).is_ok()
            });
        self.patterns.insert(pattern.to_owned(), repaired.clone());
        repaired
    }
}

/// Adds one more schema that the value must fit.
fn also(schema: &mut Map<String, Value>, further: Value) {
    match schema.entry("allOf").or_insert_with(|| Value::Array(Vec::new())) {
        Value::Array(all) => all.push(further),
        other => *other = further,
    }
}

fn nul_spelled_out(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some('0')) => {
                chars.next();
                out.push_str("\\x00");
            }
            ('\\', Some(&next)) => {
                chars.next();
                out.extend(['\\', next]);
            }
            _ => out.push(c),
        }
    }
    out
}

fn required_without_default(names: &[Value], keywords: &Map<String, Value>) -> Option<Value> {
    let has_default = |name: &Value| {
        let property = name.as_str().and_then(|name| keywords.get("properties")?.get(name));
        property.is_some_and(|property| property.get("default").is_some())
    };
    let kept: Vec<Value> = names.iter().filter(|name| !has_default(name)).cloned().collect();
    (!kept.is_empty()).then_some(Value::Array(kept))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reference_means_the_innermost_schema_that_has_the_place() {
        let schema = json!({
            "$defs": { "name": { "type": "integer" }, "outer": { "type": "boolean" } },
            "properties": {
                "plugins": { "properties": { "entries": { "properties": { "x": { "properties": { "config": {
                    "$defs": { "name": { "type": "string", "title": "Name" }, "list": { "items": { "$ref": "#/$defs/list" } } },
                    "properties": {
                        "a": { "$ref": "#/$defs/name" }, "b": { "$ref": "#/$defs/outer" }, "c": { "$ref": "#/$defs/list" },
                    },
                } } } } } } },
            },
        });
        let parts = split(&schema).unwrap();
        let part = &parts["/plugins/entries/x"];
        let validator = jsonschema::validator_for(part).unwrap();
        assert!(validator.is_valid(&json!({ "a": "text", "b": true, "c": [[], [[]]] })), "{part}");
        for bad in [json!({ "a": 1 }), json!({ "b": 1 })] {
            assert!(!validator.is_valid(&bad), "{bad}");
        }
    }

    #[test]
    fn what_has_a_default_is_not_required() {
        let schema = json!({ "properties": { "a": {
            "required": ["x", "y"], "properties": { "x": { "default": 1 }, "y": {}, "default": { "type": "string" } },
        } } });
        let parts = split(&schema).unwrap();
        assert_eq!(
            parts["/a"],
            json!({ "required": ["y"], "properties": { "x": {}, "y": {}, "default": { "type": "string" } } })
        );
    }

    #[test]
    fn a_nul_escape_is_spelled_so_that_rust_reads_it() {
        let parts = split(&json!({ "properties": { "a": { "pattern": r"^\/[^\0]*\\0$" } } })).unwrap();
        assert_eq!(parts["/a"], json!({ "pattern": r"^\/[^\x00]*\\0$" }));
    }

    #[test]
    fn a_uri_is_what_javascripts_url_takes() {
        let parts = split(&json!({ "properties": { "a": { "type": "string", "format": "uri" } } })).unwrap();
        let validator = jsonschema::draft7::new(&parts["/a"]).unwrap();
        for good in [
            "https://a.example/x?y",
            "HTTP:a.example",
            " http://u:p@[::1]:80",
            "mailto:x",
            "redis://h:1/0",
            "a:",
        ] {
            assert!(validator.is_valid(&json!(good)), "{good:?}");
        }
        for bad in
            ["", "x", "http://", "http:", "https://a b", "http://a:x", "//a.example", "1a:b", "http://[x]"]
        {
            assert!(!validator.is_valid(&json!(bad)), "{bad:?}");
        }
    }

    #[test]
    fn a_schema_that_is_no_object_is_refused() {
        assert_eq!(split(&json!([])).unwrap_err().code(), Code::ConfigInvalid);
    }
}
