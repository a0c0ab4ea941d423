//! A config without its secrets: each is replaced by OpenClaw's mark, in the places where OpenClaw replaces it.
//!
//! A value is secret by its path: where OpenClaw's core schema says so (`redact/secret-paths.txt`), where its name
//! says so (`…token`, `…password…`, `…apiKey…`), or, for some URLs, where it carries credentials. The schemas of
//! plugins are not at hand; their secrets are found by name. URLs are judged more strictly than OpenClaw judges
//! them: in doubt, the whole URL is replaced.

mod url;

use std::collections::HashSet;

use super::js;
use super::value::{Node, Object, Text, Value, get};

/// What stands for a secret.
pub const REDACTED: &str = "__OPENCLAW_REDACTED__";

/// Paths as in OpenClaw's schema hints: `*` is any key, `[]` any element.
const SECRET_PATHS: &str = include_str!("redact/secret-paths.txt");

/// Endings of names that look secret and are not.
const HARMLESS_ENDINGS: [&str; 10] = [
    "maxtokens",
    "maxoutputtokens",
    "maxinputtokens",
    "maxcompletiontokens",
    "contexttokens",
    "totaltokens",
    "tokencount",
    "tokenlimit",
    "tokenbudget",
    "passwordfile",
];

/// Replaces every secret under `root`.
pub(crate) fn redact(root: &mut Node) {
    Redactor::new().node(root, "", true);
}

/// Whether the name of a config path says that its value is secret.
pub fn is_sensitive_path(path: &str) -> bool {
    let lower = js::trim(path).to_lowercase();
    if lower.contains("localservice.env.") {
        return true;
    }
    if HARMLESS_ENDINGS.iter().any(|ending| lower.ends_with(ending)) {
        return false;
    }
    // Like the original's patterns: case counts for ASCII letters only, and one character may part two words.
    let ascii = path.to_ascii_lowercase();
    ascii.ends_with("token")
        || ascii.contains("password")
        || ascii.contains("secret")
        || ["api", "encrypt", "private"].iter().any(|word| is_followed_by_key(&ascii, word))
        || ascii.ends_with("serviceaccount")
        || ascii.ends_with("serviceaccountref")
}

fn is_followed_by_key(path: &str, word: &str) -> bool {
    path.match_indices(word).any(|(at, _)| {
        let rest = path.get(at + word.len()..).unwrap_or_default();
        let mut chars = rest.chars();
        let parted = chars
            .next()
            .is_some_and(|c| c.len_utf16() == 1 && !matches!(c, '\n' | '\r' | '\u{2028}' | '\u{2029}'));
        rest.starts_with("key") || (parted && chars.as_str().starts_with("key"))
    })
}

struct Redactor {
    /// Paths whose value is secret whatever its type.
    exact: HashSet<&'static str>,
    /// Those, and every path on the way to one.
    lookup: HashSet<&'static str>,
}

impl Redactor {
    fn new() -> Self {
        let exact: HashSet<&str> = SECRET_PATHS.lines().collect();
        let mut lookup = HashSet::new();
        for path in &exact {
            let ends = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
            for part in ends.filter_map(|end| path.get(..end)) {
                lookup.insert(part);
                lookup.extend(part.strip_suffix("[]"));
            }
        }
        Self { exact, lookup }
    }

    /// `known`: whether the schema knows the path so far.
    fn node(&self, node: &mut Node, path: &str, known: bool) {
        match &mut node.value {
            Value::Array(items) => {
                let path = format!("{path}[]");
                let known = known && self.lookup.contains(path.as_str());
                let sensitive = known || is_sensitive_path(path.strip_suffix("[]").unwrap_or(&path));
                for item in items {
                    match &mut item.value {
                        Value::String(text) if sensitive && is_concrete(text) => *text = REDACTED.into(),
                        _ => self.node(item, &path, known),
                    }
                }
            }
            Value::Object(object) => {
                for (key, value) in object {
                    self.property(key, value, path, known);
                }
            }
            _ => {}
        }
    }

    fn property(&self, key: &Text, node: &mut Node, prefix: &str, known: bool) {
        let dot = if prefix.is_empty() { "" } else { "." };
        let path = format!("{prefix}{dot}{}", key.to_str_lossy());
        let any = format!("{prefix}{dot}*");
        let candidate = [&path, &any].into_iter().find(|path| known && self.lookup.contains(path.as_str()));
        if let Some(candidate) = candidate {
            let exact = self.exact.contains(candidate.as_str());
            match &mut node.value {
                Value::String(text) if is_concrete(text) => *text = REDACTED.into(),
                Value::Object(object) if exact && is_secret_ref(object) => redact_id(object),
                Value::Object(_) | Value::Bool(_) | Value::Number(_) if exact => {
                    node.value = Value::String(REDACTED.into());
                }
                _ => self.node(node, candidate, true),
            }
            return;
        }
        let sensitive = is_sensitive_path(path.strip_suffix("[]").unwrap_or(&path));
        match &mut node.value {
            Value::String(text) if sensitive && is_concrete(text) => *text = REDACTED.into(),
            Value::Object(_) if sensitive && !known && is_secret_as_a_whole(&path) => {
                node.value = Value::String(REDACTED.into());
            }
            Value::String(text)
                if url::is_url_path(&path) && url::may_hold_credentials(&text.to_str_lossy()) =>
            {
                *text = REDACTED.into();
            }
            _ => self.node(node, &path, false),
        }
    }
}

fn is_secret_as_a_whole(path: &str) -> bool {
    let lower = js::trim(path).to_lowercase();
    lower.ends_with("serviceaccount") || lower.ends_with("serviceaccountref")
}

/// A secret reference names a store (`source`) and an entry there (`id`).
fn is_secret_ref(object: &Object) -> bool {
    ["source", "id"].iter().all(|key| get(object, key).is_some_and(|node| node.value.as_text().is_some()))
}

fn redact_id(object: &mut Object) {
    if let Some(Node { value: Value::String(text), .. }) = object.get_mut(b"id".as_slice())
        && is_concrete(text)
    {
        *text = REDACTED.into();
    }
}

/// Neither blank nor a bare `${…}`.
fn is_concrete(text: &Text) -> bool {
    let text = text.to_str_lossy();
    let trimmed = js::trim(&text);
    let reference = trimmed.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    !trimmed.is_empty() && reference.is_none_or(|name| name.contains('}'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::json5;

    fn redacted(text: &str) -> String {
        let mut node = json5::parse(text.as_bytes(), 0).unwrap();
        redact(&mut node);
        json5::stringify(&node.value).unwrap().text.replace(REDACTED, "#")
    }

    #[test]
    fn secrets_are_found_by_schema_by_name_and_in_urls() {
        for (text, expected) in [
            (
                "{gateway: {auth: {token: 't', mode: 'token'}}}",
                r##"{"gateway":{"auth":{"token":"#","mode":"token"}}}"##,
            ),
            ("{gateway: {auth: {token: '${T}'}}}", r#"{"gateway":{"auth":{"token":"${T}"}}}"#),
            (
                "{gateway: {auth: {token: {source: 'env', provider: 'p', id: 'T'}}}}",
                r##"{"gateway":{"auth":{"token":{"source":"env","provider":"p","id":"#"}}}}"##,
            ),
            (
                "{mcp: {servers: {x: {env: {A: 'v', N: 5}}}}}",
                r##"{"mcp":{"servers":{"x":{"env":{"A":"#","N":"#"}}}}}"##,
            ),
            (
                "{hooks: {mappings: [{sessionKey: 's', id: 'i'}]}}",
                r##"{"hooks":{"mappings":[{"sessionKey":"#","id":"i"}]}}"##,
            ),
            (
                "{plugins: {entries: {p: {config: {apiKey: ['a', ' ']}}}}}",
                r##"{"plugins":{"entries":{"p":{"config":{"apiKey":["#"," "]}}}}}"##,
            ),
            (
                "{x: {maxTokens: true, maxtokens: 'n', serviceAccount: {a: 1}}}",
                r##"{"x":{"maxTokens":true,"maxtokens":"n","serviceAccount":"#"}}"##,
            ),
            ("{mcp: {servers: {x: {url: 'https://u:p@h/'}}}}", r##"{"mcp":{"servers":{"x":{"url":"#"}}}}"##),
            (
                "{mcp: {servers: {x: {url: 'https://h/sse'}}}}",
                r#"{"mcp":{"servers":{"x":{"url":"https://h/sse"}}}}"#,
            ),
        ] {
            assert_eq!(redacted(text), expected, "{text}");
        }
    }
}
