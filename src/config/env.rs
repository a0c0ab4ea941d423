//! `${NAME}` in config strings, and the config's own `env` block.

mod blocked;

use std::collections::HashMap;

use indexmap::IndexMap;

use super::dotpath::{push_index, push_key};
use super::js;
use super::paths::Env;
use super::value::{Node, Object, Origin, Text, Value, get};

/// OpenClaw reads either spelling of this key, and writes the first.
const ALIASES: [&str; 2] = ["ZAI_API_KEY", "Z_AI_API_KEY"];

/// A reference to a variable that is unset or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// The variable.
    pub(crate) name: String,
    /// The config path of the string that refers to it.
    pub(crate) path: String,
    /// Where that string was written.
    pub(crate) origin: Origin,
}

/// What a substitution found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Substitution {
    /// References that stay as they are, in document order.
    pub(crate) missing: Vec<Missing>,
    /// The first variable that went into each string, by the string's file and offset.
    pub(crate) used: HashMap<(u32, u32), String>,
}

/// Replaces each `${NAME}` in every string value of the tree; keys are left alone. `$${NAME}` becomes `${NAME}`,
/// a reference to an unset or empty variable stays, and what was put in is not looked at again.
pub(crate) fn substitute(root: &mut Node, env: &Env) -> Substitution {
    let mut walk = Walk { env, path: String::new(), out: Substitution::default() };
    walk.node(root);
    walk.out
}

struct Walk<'a> {
    env: &'a Env,
    path: String,
    out: Substitution,
}

impl Walk<'_> {
    fn node(&mut self, node: &mut Node) {
        let parent = self.path.len();
        match &mut node.value {
            Value::String(text) if text.as_bytes().contains(&b'$') => self.string(text, node.origin),
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    push_index(&mut self.path, index);
                    self.node(item);
                    self.path.truncate(parent);
                }
            }
            Value::Object(object) => {
                for (key, value) in object {
                    push_key(&mut self.path, key);
                    self.node(value);
                    self.path.truncate(parent);
                }
            }
            _ => {}
        }
    }

    fn string(&mut self, text: &mut Text, origin: Origin) {
        let mut out = Text::new();
        for piece in Pieces(text.as_bytes()) {
            match piece {
                Piece::Text(bytes) => out.push_wtf8(bytes),
                Piece::Escaped(name) => push_reference(&mut out, name),
                Piece::Reference(name) => {
                    if let Some(value) = self.env.get(name).filter(|value| !value.is_empty()) {
                        out.push_str(value);
                        self.out.used.entry((origin.file, origin.start)).or_insert_with(|| name.to_owned());
                    } else {
                        let path = self.path.clone();
                        self.out.missing.push(Missing { name: name.to_owned(), path, origin });
                        push_reference(&mut out, name);
                    }
                }
            }
        }
        *text = out;
    }
}

fn push_reference(out: &mut Text, name: &str) {
    out.push_str("${");
    out.push_str(name);
    out.push_str("}");
}

/// Whether a string refers to a variable; escaped references do not count.
pub fn contains_reference(text: &str) -> bool {
    Pieces(text.as_bytes()).any(|piece| matches!(piece, Piece::Reference(_)))
}

enum Piece<'a> {
    Text(&'a [u8]),
    /// `$${NAME}`
    Escaped(&'a str),
    /// `${NAME}`
    Reference(&'a str),
}

struct Pieces<'a>(&'a [u8]);

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        if self.0.is_empty() {
            return None;
        }
        let reference = |prefix: &[u8]| {
            let body = self.0.strip_prefix(prefix)?;
            let end = body.iter().position(|b| !matches!(b, b'A'..=b'Z' | b'0'..=b'9' | b'_'))?;
            let (name, rest) = body.split_at(end);
            let name = std::str::from_utf8(name).ok()?;
            let well_formed = !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit());
            Some((name, rest.strip_prefix(b"}").filter(|_| well_formed)?))
        };
        if let Some((name, rest)) = reference(b"$${") {
            self.0 = rest;
            return Some(Piece::Escaped(name));
        }
        if let Some((name, rest)) = reference(b"${") {
            self.0 = rest;
            return Some(Piece::Reference(name));
        }
        let tail = self.0.get(1..).unwrap_or_default();
        let end = tail.iter().position(|&byte| byte == b'$').unwrap_or(tail.len());
        let (text, rest) = self.0.split_at(end + 1);
        self.0 = rest;
        Some(Piece::Text(text))
    }
}

/// Applies the config's `env` block: `env.vars` first, then the strings in `env` itself. A variable that is already
/// set wins, unless it is blank.
pub(crate) fn apply_block(config: &Node, env: &mut Env) {
    if config.value.as_object().is_none_or(|root| get(root, "env").is_none()) {
        return;
    }
    let entries = block(config);
    let group = |name: &str| ALIASES.contains(&name);
    // A value in the environment that the config does not hold under that name outranks the whole alias group.
    let outranking = ALIASES
        .iter()
        .find_map(|&name| {
            let current = env.get(name).filter(|value| !js::is_blank(value))?;
            let own = entries.iter().any(|(key, value)| group(key) && value == current);
            (!own).then(|| current.to_owned())
        })
        .filter(|_| entries.keys().any(|key| group(key)));
    for (name, value) in entries {
        match &outranking {
            Some(outranking) if group(&name) => env.set(name, outranking.clone()),
            _ if env.get(&name).is_some_and(|current| !js::is_blank(current)) => {}
            _ => env.set(name, value),
        }
    }
    let [canonical, alias] = ALIASES;
    let blank = env.get(canonical).is_none_or(js::is_blank);
    if blank && let Some(value) = env.get(alias).filter(|value| !js::is_blank(value)) {
        let value = value.to_owned();
        env.set(canonical, value);
    }
}

/// The variables that the `env` block may set, in the order of OpenClaw.
pub(crate) fn block(config: &Node) -> IndexMap<String, String> {
    let mut entries = IndexMap::new();
    let Some(env) = config.value.as_object().and_then(|root| get(root, "env")?.value.as_object()) else {
        return entries;
    };
    if let Some(vars) = get(env, "vars").and_then(|vars| vars.value.as_object()) {
        collect(vars, &[], &mut entries);
    }
    collect(env, &["shellEnv", "vars"], &mut entries);
    entries
}

fn collect(object: &Object, except: &[&str], entries: &mut IndexMap<String, String>) {
    for (key, node) in object {
        let (Some(raw), Some(value)) = (key.as_str(), node.value.as_text()) else { continue };
        let name = js::trim(raw);
        let value = value.to_str_lossy();
        if except.contains(&raw)
            || !is_portable(name)
            || name == "__proto__"
            || js::is_blank(&value)
            || blocked::is_blocked(name)
            || contains_reference(&value)
        {
            continue;
        }
        entries.insert(name.to_owned(), value.into_owned());
    }
}

fn is_portable(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::json5;

    fn parsed(text: &str) -> Node {
        json5::parse(text.as_bytes(), 0).unwrap()
    }

    fn json(node: &Node) -> String {
        json5::stringify(&node.value).unwrap().text
    }

    #[test]
    fn references_are_replaced_once_and_escapes_lose_one_dollar() {
        let env: Env = [("A", "1"), ("B", "${A}"), ("EMPTY", "")].into_iter().collect();
        for (text, expected) in [
            ("${A}", "1"),
            ("x${A}y${A}", "x1y1"),
            ("${B}", "${A}"),
            ("$${A}", "${A}"),
            ("$$${A}", "$${A}"),
            ("${EMPTY}", "${EMPTY}"),
            ("${a} ${A ${} $ $A {A}", "${a} ${A ${} $ $A {A}"),
            ("${1A}${_}", "${1A}${_}"),
            ("$${x}${A}", "$${x}1"),
        ] {
            let mut node = parsed(&format!("'{text}'"));
            substitute(&mut node, &env);
            assert_eq!(node.value.as_text().unwrap(), &expected, "{text}");
        }
    }

    #[test]
    fn a_missing_variable_is_reported_with_the_path_that_openclaw_writes() {
        let mut node = parsed("{a: [{'x.y': '${NOPE}'}], '${KEY}': true, b: '${A}${NOPE}'}");
        let found = substitute(&mut node, &[("A", "1")].into_iter().collect());
        let paths: Vec<_> = found.missing.iter().map(|missing| missing.path.as_str()).collect();
        assert_eq!(paths, ["a[0][\"x.y\"]", "b"]);
        assert_eq!(json(&node), r#"{"a":[{"x.y":"${NOPE}"}],"${KEY}":true,"b":"1${NOPE}"}"#);
        assert_eq!(found.used.values().collect::<Vec<_>>(), ["A"]);
    }

    #[test]
    fn the_env_block_sets_only_what_is_unset_harmless_and_literal() {
        let config = parsed(
            "{env: {vars: {A: 'vars', ' T ': 't', LD_PRELOAD: 'x', BLANK: ' ', REF: '${A}', '1X': 'n', N: 1},
              A: 'inline', OPENCLAW_INCLUDE_ROOTS: '/', shellEnv: 'no', SET: 'config', ESC: '$${A}'}}",
        );
        let mut env: Env = [("SET", "process"), ("LATER", " ")].into_iter().collect();
        apply_block(&config, &mut env);
        let expected: Env =
            [("SET", "process"), ("LATER", " "), ("A", "inline"), ("T", "t"), ("ESC", "$${A}")]
                .into_iter()
                .collect();
        assert_eq!(env, expected);
    }
}
