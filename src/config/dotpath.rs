//! Config paths such as `agents.list[0].id` or `models["a.b"].name`: reading and writing them as OpenClaw does.

use super::js;
use super::json5;
use super::value::{Node, Text, Value};
use crate::{Code, CoreError, Result};

/// The largest array index that a path may name.
const MAX_INDEX: u32 = 100_000;

/// Keys that would reach a JavaScript object's prototype.
pub(crate) fn is_blocked_key(key: &[u8]) -> bool {
    matches!(key, b"__proto__" | b"prototype" | b"constructor")
}

/// One segment of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The key or index, as text.
    pub key: String,
    /// Whether it was written in quotes: a container that it makes is an object even if it could be an index.
    pub quoted: bool,
}

impl Step {
    /// The array index that it names, if it is written as one.
    pub fn index(&self) -> Option<usize> {
        array_index(&self.key)
    }
}

impl AsRef<str> for Step {
    fn as_ref(&self) -> &str {
        &self.key
    }
}

/// Reads a path into its segments. Array indices stay text: only the value tells an index from a key.
///
/// Dots separate; `\` takes the next character as it is; brackets hold an index, a bare key or a quoted key.
pub fn parse(path: &str) -> Result<Vec<Step>> {
    parse_segments(path).map_err(|message| CoreError::new(Code::ConfigPath, message).at_path(path))
}

fn parse_segments(raw: &str) -> Result<Vec<Step>, String> {
    let trimmed = js::trim(raw);
    if trimmed.is_empty() {
        return Err("Path is empty.".into());
    }
    let mut parts = Vec::new();
    let mut current = String::new();
    // Set once brackets have given a segment that no separator has closed yet.
    let mut emitted = false;
    let mut rest = trimmed;
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        match c {
            '\\' => {
                let next =
                    after.chars().next().ok_or_else(|| format!("Invalid path (trailing escape): {raw}"))?;
                current.push(next);
                rest = after.get(next.len_utf8()..).unwrap_or_default();
            }
            '.' => {
                if js::is_blank(&current) && !(emitted && current.is_empty()) {
                    return Err(format!("Invalid path (empty segment): {raw}"));
                }
                take_segment(&mut current, &mut parts);
                emitted = false;
                rest = after;
            }
            '[' => {
                let blank = js::is_blank(&current);
                if blank && (!current.is_empty() || (!emitted && !parts.is_empty())) {
                    return Err(format!("Invalid path (empty segment): {raw}"));
                }
                take_segment(&mut current, &mut parts);
                let close =
                    find_close(after).ok_or_else(|| format!("Invalid path (missing \"]\"): {raw}"))?;
                let (inside, tail) = after.split_at(close);
                parts.push(bracket_segment(js::trim(inside), raw)?);
                rest = tail.get(1..).unwrap_or_default();
                if !rest.is_empty() && !rest.starts_with(['.', '[']) {
                    return Err(format!("Invalid path (missing separator after bracket): {raw}"));
                }
                emitted = true;
            }
            c => {
                current.push(c);
                rest = after;
            }
        }
    }
    if !emitted && js::is_blank(&current) {
        return Err(format!("Invalid path (empty segment): {raw}"));
    }
    take_segment(&mut current, &mut parts);
    match parts.iter().find(|part| is_blocked_key(part.key.as_bytes())) {
        Some(part) => Err(format!("Invalid path segment: {}", part.key)),
        None => Ok(parts),
    }
}

fn take_segment(current: &mut String, parts: &mut Vec<Step>) {
    if !current.is_empty() {
        parts.push(Step { key: js::trim(current).to_owned(), quoted: false });
        current.clear();
    }
}

/// The offset of the `]` that closes a bracket; one inside quotes does not.
fn find_close(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut blank = true;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if let Some(open) = quote {
            if c == '\\' {
                chars.next();
            } else if c == open {
                quote = None;
            }
            continue;
        }
        match c {
            ']' => return Some(at),
            '"' | '\'' if blank => quote = Some(c),
            _ => {}
        }
        blank = blank && js::is_blank(c.encode_utf8(&mut [0; 4]));
    }
    None
}

fn bracket_segment(inside: &str, raw: &str) -> Result<Step, String> {
    if inside.is_empty() {
        return Err(format!("Invalid path (empty \"[]\"): {raw}"));
    }
    if !inside.starts_with(['"', '\'']) {
        return Ok(Step { key: inside.to_owned(), quoted: false });
    }
    unquote(inside)
        .filter(|text| !js::is_blank(text))
        .map(|key| Step { key, quoted: true })
        .ok_or_else(|| format!("Invalid path bracket string ({inside}): {raw}"))
}

/// The text of a quoted segment: JSON's escapes in double quotes, else JavaScript's.
fn unquote(quoted: &str) -> Option<String> {
    let quote = quoted.chars().next()?;
    if quote == '"'
        && let Ok(text) = serde_json::from_str(quoted)
    {
        return Some(text);
    }
    let body = quoted.get(1..).and_then(|tail| tail.strip_suffix(quote))?;
    let mut json = String::from("\"");
    let mut chars = body.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return None,
            '"' => json.push_str("\\\""),
            '\\' => {
                let escaped = chars.next()?;
                match escaped {
                    '\n' | '\u{2028}' | '\u{2029}' => {}
                    '\r' => {
                        chars.next_if_eq(&'\n');
                    }
                    'x' => {
                        let digits: String = chars.by_ref().take(2).collect();
                        if digits.len() != 2 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                            return None;
                        }
                        json.push_str("\\u00");
                        json.push_str(&digits);
                    }
                    '0' if chars.peek().is_some_and(char::is_ascii_digit) => return None,
                    '0' => json.push_str("\\u0000"),
                    'v' => json.push_str("\\u000b"),
                    '1'..='9' => return None,
                    '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't' | 'u' => {
                        json.push('\\');
                        json.push(escaped);
                    }
                    other => json.push(other),
                }
            }
            other => json.push(other),
        }
    }
    json.push('"');
    serde_json::from_str(&json).ok()
}

/// The array index that a segment names, if it is written as one.
pub fn array_index(segment: &str) -> Option<usize> {
    let index = Text::from(segment).array_index().filter(|&index| index <= MAX_INDEX)?;
    usize::try_from(index).ok()
}

/// The value at a path, if there is one.
pub fn get<'a, S: AsRef<str>>(root: &'a Node, segments: &[S]) -> Option<&'a Node> {
    segments.iter().try_fold(root, |node, segment| child(node, segment.as_ref()))
}

/// The value at a path or, where the path leaves the tree, the last one before; and how many segments matched.
pub fn nearest<'a, S: AsRef<str>>(root: &'a Node, segments: &[S]) -> (&'a Node, usize) {
    let mut node = root;
    for (depth, segment) in segments.iter().enumerate() {
        match child(node, segment.as_ref()) {
            Some(next) => node = next,
            None => return (node, depth),
        }
    }
    (node, segments.len())
}

fn child<'a>(node: &'a Node, segment: &str) -> Option<&'a Node> {
    match &node.value {
        Value::Array(items) => items.get(array_index(segment)?),
        Value::Object(object) => object.get(segment.as_bytes()),
        _ => None,
    }
}

/// Appends an object key: plain after a dot, quoted in brackets where it could be misread.
pub fn push_key(path: &mut String, key: &Text) {
    let plain = key.as_str().is_some_and(|key| {
        let mut chars = key.chars();
        chars.next().is_some_and(|c| c.is_ascii_alphabetic() || matches!(c, '_' | '$'))
            && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | ':' | '-'))
    });
    if plain {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(&key.to_str_lossy());
    } else {
        path.push('[');
        if let Ok(quoted) = json5::stringify(&Value::String(key.clone())) {
            path.push_str(&quoted.text);
        }
        path.push(']');
    }
}

/// Appends an array index.
pub fn push_index(path: &mut String, index: usize) {
    path.push('[');
    path.push_str(&index.to_string());
    path.push(']');
}

/// Writes segments as a path; segments that meet an array of `root` become indices.
pub fn format<S: AsRef<str>>(segments: &[S], root: &Node) -> String {
    let mut path = String::new();
    let mut node = Some(root);
    for segment in segments {
        let segment = segment.as_ref();
        match node.map(|node| &node.value) {
            Some(Value::Array(_)) if array_index(segment).is_some() => {
                push_index(&mut path, array_index(segment).unwrap_or_default());
            }
            _ => push_key(&mut path, &Text::from(segment)),
        }
        node = node.and_then(|node| child(node, segment));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_brackets_quotes_and_escapes_give_segments() {
        for (path, expected) in [
            ("a.b", &["a", "b"][..]),
            (" a . b ", &["a", "b"]),
            ("a[0].b", &["a", "0", "b"]),
            ("[0][1]", &["0", "1"]),
            ("a['x.y'][\"z\\u0041\"]", &["a", "x.y", "zA"]),
            ("a\\.b.c", &["a.b", "c"]),
            ("a[ key ]", &["a", "key"]),
            ("a['\\x41\\v']", &["a", "A\u{b}"]),
            ("a['it\\'s \"q\"']", &["a", "it's \"q\""]),
        ] {
            let keys: Vec<_> = parse(path).unwrap().into_iter().map(|step| step.key).collect();
            assert_eq!(keys, expected, "{path}");
        }
    }

    #[test]
    fn a_path_that_cannot_be_read_says_why() {
        for (path, message) in [
            ("  ", "Path is empty."),
            ("a..b", "Invalid path (empty segment): a..b"),
            ("a.", "Invalid path (empty segment): a."),
            ("a.[0]", "Invalid path (empty segment): a.[0]"),
            ("a[0", "Invalid path (missing \"]\"): a[0"),
            ("a[]", "Invalid path (empty \"[]\"): a[]"),
            ("a[0]b", "Invalid path (missing separator after bracket): a[0]b"),
            ("a\\", "Invalid path (trailing escape): a\\"),
            ("a['x", "Invalid path (missing \"]\"): a['x"),
            ("a['\\1']", "Invalid path bracket string ('\\1'): a['\\1']"),
            ("a.__proto__", "Invalid path segment: __proto__"),
        ] {
            let error = parse(path).unwrap_err();
            assert_eq!((error.code(), error.message()), (Code::ConfigPath, message));
        }
    }
}
