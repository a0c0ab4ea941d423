//! The value tree of a parsed document: what JavaScript would hold, and where each part was written.

use std::borrow::Cow;
use std::fmt;

use indexmap::IndexMap;

/// A JavaScript string. Well-formed text is UTF-8; a lone surrogate, which JavaScript allows, is kept in its
/// WTF-8 form (<https://simonsapin.github.io/wtf-8/>), so that nothing is replaced on the way through.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text(Vec<u8>);

impl Text {
    /// The empty string.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Appends well-formed text.
    pub fn push_str(&mut self, text: &str) {
        self.push_wtf8(text.as_bytes());
    }

    /// Appends WTF-8 bytes, joining a high surrogate at the end with a low one at the start.
    pub fn push_wtf8(&mut self, bytes: &[u8]) {
        if let ([0xED, b @ 0xB0..=0xBF, c, rest @ ..], Some(high)) = (bytes, self.trailing_high_surrogate()) {
            let low = 0xD000 | (u32::from(*b & 0x3F) << 6) | u32::from(*c & 0x3F);
            self.0.truncate(self.0.len() - 3);
            self.push_code_point(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00));
            self.0.extend_from_slice(rest);
        } else {
            self.0.extend_from_slice(bytes);
        }
    }

    /// Appends one UTF-16 code unit or code point (at most `0x10FFFF`), as `String.fromCodePoint` would.
    pub fn push_code_point(&mut self, code: u32) {
        if let Some(c) = char::from_u32(code) {
            self.0.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            let bytes = [0xED, 0x80 | ((code >> 6) & 0x3F) as u8, 0x80 | (code & 0x3F) as u8];
            self.push_wtf8(&bytes);
        }
    }

    fn trailing_high_surrogate(&self) -> Option<u32> {
        match self.0.as_slice() {
            [.., 0xED, b @ 0xA0..=0xAF, c] => {
                Some(0xD000 | (u32::from(*b & 0x3F) << 6) | u32::from(*c & 0x3F))
            }
            _ => None,
        }
    }

    /// The text, if it is well formed.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The text with each lone surrogate as U+FFFD.
    pub fn to_str_lossy(&self) -> Cow<'_, str> {
        match self.as_str() {
            Some(text) => Cow::Borrowed(text),
            None => Cow::Owned(wtf8_lossy(&self.0)),
        }
    }

    /// The WTF-8 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The WTF-8 bytes, owned.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The array index that JavaScript sees in this property key, if it sees one (at most 2^32 - 2).
    pub fn array_index(&self) -> Option<u32> {
        let text = self.as_str()?;
        let canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
        if !canonical || text.len() > 10 {
            return None;
        }
        text.parse::<u32>().ok().filter(|&index| index != u32::MAX)
    }
}

fn wtf8_lossy(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        match std::str::from_utf8(rest) {
            Ok(text) => {
                out.push_str(text);
                return out;
            }
            Err(error) => {
                let (good, bad) = rest.split_at(error.valid_up_to());
                out.push_str(&String::from_utf8_lossy(good));
                out.push('\u{FFFD}');
                rest = bad.get(3..).unwrap_or_default();
            }
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl std::borrow::Borrow<[u8]> for Text {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_str_lossy())
    }
}

/// Where a value was written: a byte range of the UTF-8 text of one of the files that were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Which file, in the order of reading; 0 is the root.
    pub file: u32,
    /// The first byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// A value and where it was written. Merged objects keep the place of the last contributor.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// Where it was written.
    pub origin: Origin,
}

/// What JSON5 can say.
#[derive(Clone, Debug)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// Any double, NaN, the infinities and -0 included.
    Number(f64),
    /// A string.
    String(Text),
    /// An array.
    Array(Vec<Node>),
    /// An object. After parsing, its keys are in JavaScript's own order: array indices first, ascending.
    Object(Object),
}

/// The properties of an object.
pub type Object = IndexMap<Text, Node>;

/// Looks up a property by plain text.
pub fn get<'a>(object: &'a Object, key: &str) -> Option<&'a Node> {
    object.get(key.as_bytes())
}

impl Value {
    /// The properties, if it is an object.
    pub const fn as_object(&self) -> Option<&Object> {
        if let Self::Object(object) = self { Some(object) } else { None }
    }

    /// The text, if it is a string.
    pub const fn as_text(&self) -> Option<&Text> {
        if let Self::String(text) = self { Some(text) } else { None }
    }
}

/// The value as plain JSON: what JSON cannot say (NaN, the infinities) becomes `null`, a lone surrogate U+FFFD.
impl From<&Value> for serde_json::Value {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => whole(*number).map_or_else(|| (*number).into(), Into::into),
            Value::String(text) => Self::String(text.to_str_lossy().into_owned()),
            Value::Array(items) => items.iter().map(|item| Self::from(&item.value)).collect(),
            Value::Object(object) => object
                .iter()
                .map(|(key, node)| (key.to_str_lossy().into_owned(), Self::from(&node.value)))
                .collect(),
        }
    }
}

/// A double that is an integer, as far as integers are exact.
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "an integer within the exact range")]
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

/// Puts keys in the order in which JavaScript enumerates them: array indices ascending, then as written.
pub fn sort_like_javascript(object: &mut Object) {
    if object.keys().any(|key| key.array_index().is_some()) {
        object.sort_by(|a, _, b, _| match (a.array_index(), b.array_index()) {
            (Some(a), Some(b)) => a.cmp(&b),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => std::cmp::Ordering::Equal,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_halves_of_a_pair_become_one_character() {
        let mut text = Text::new();
        text.push_code_point(0xD83D);
        assert_eq!(text.as_str(), None);
        assert_eq!(text.to_str_lossy(), "\u{FFFD}");
        text.push_code_point(0xDE00);
        assert_eq!(text.as_str(), Some("😀"));
    }

    #[test]
    fn array_indices_are_canonical_and_below_the_limit() {
        for (key, index) in [("0", Some(0)), ("17", Some(17)), ("4294967294", Some(4_294_967_294))] {
            assert_eq!(Text::from(key).array_index(), index);
        }
        for key in ["", "00", "01", "-1", "1.0", "4294967295", "99999999999"] {
            assert_eq!(Text::from(key).array_index(), None, "{key}");
        }
    }

    #[test]
    fn keys_come_in_javascripts_order() {
        let mut object = Object::new();
        for key in ["b", "2", "a", "10", "1"] {
            object.insert(key.into(), Node { value: Value::Null, origin: Origin::default() });
        }
        sort_like_javascript(&mut object);
        let keys: Vec<_> = object.keys().map(|k| k.to_str_lossy().into_owned()).collect();
        assert_eq!(keys, ["1", "2", "10", "b", "a"]);
    }
}
