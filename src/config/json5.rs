//! JSON5 text, read exactly as npm `json5` 2.2.3 reads it.

use super::value::{Node, Value};
use crate::Result;

/// The nesting that [`to_json`] admits.
pub const MAX_DEPTH: usize = 10_000;

/// The nesting that [`parse`] admits: documents become trees, which are walked by recursion.
pub const MAX_TREE_DEPTH: usize = 1_000;

/// JSON text that V8's `JSON.parse` turns into the value that was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonText {
    /// The text; infinities are written as `1e999`, lone surrogates as `\ud800`.
    pub text: String,
    /// JSON has no NaN: where the document has one, this string value stands for it, and occurs nowhere else.
    pub nan: Option<String>,
}

/// Translates a JSON5 document (WTF-8 bytes) to JSON text in one pass.
pub fn to_json(_text: &[u8]) -> Result<JsonText> {
    todo!("first commit of the scanner follows")
}

/// Reads a JSON5 document (WTF-8 bytes) into a tree whose origins point into `file`.
pub fn parse(_text: &[u8], _file: u32) -> Result<Node> {
    todo!("first commit of the scanner follows")
}

/// Writes a value as JSON text for `JSON.parse`.
pub fn stringify(_value: &Value) -> JsonText {
    todo!("first commit of the scanner follows")
}

/// The 1-based line and column of a byte offset, as npm `json5` counts them.
pub fn line_and_column(_text: &[u8], _offset: usize) -> (u32, u32) {
    todo!("first commit of the scanner follows")
}
