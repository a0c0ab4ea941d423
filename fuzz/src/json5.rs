//! The JSON5 scanner: any bytes, and against the `json5` crate as an oracle.

use openclaw_core::config::json5::{JsonText, parse, stringify, to_json};
use serde_json::Value;

/// Nesting that the oracles, which recurse, are asked to follow.
const ORACLE_DEPTH: usize = 60;

/// Any bytes are read or refused; text is refused with a place. What is written is JSON, and reads back as itself.
pub(crate) fn text(bytes: &[u8]) {
    match to_json(bytes) {
        Ok(json) => {
            let again = to_json(json.text.as_bytes()).expect("what was written can be read");
            // The mark of NaN is a string now, which stays one.
            assert_eq!(again.text, json.text, "reading its own output changes it");
            if depth(bytes) <= ORACLE_DEPTH {
                serde_json::from_str::<serde::de::IgnoredAny>(&json.text).expect("what was written is JSON");
            }
        }
        Err(error) => {
            let details = error.details();
            let placed = details.line.is_some() && details.column.is_some();
            assert!(placed || !is_wtf8(bytes), "an error without a place: {error}");
            // The tree is shallower, never more tolerant.
            let tree = parse(bytes, 0);
            assert!(tree.is_err() || !is_wtf8(bytes), "refused as text, read as a tree: {error}");
        }
    }
}

/// The text and the tree say the same, and say what the `json5` crate says where both accept.
pub(crate) fn value(bytes: &[u8]) {
    let Ok(document) = std::str::from_utf8(bytes) else { return };
    if depth(bytes) > ORACLE_DEPTH {
        return;
    }
    let Ok(json) = to_json(bytes) else { return };
    let Some(ours) = plain(&json) else { return };
    let node = parse(bytes, 0).expect("what reads as text reads as a tree");
    let tree = stringify(&node.value).expect("a tree can be written");
    let theirs = plain(&tree);
    assert!(theirs.as_ref().is_some_and(|theirs| same(&ours, theirs)), "text: {ours}\ntree: {theirs:?}");
    if let Ok(theirs) = json5::from_str::<Value>(document) {
        assert!(same(&ours, &theirs), "ours: {ours}\njson5: {theirs}");
    }
}

/// The value, where JSON can say it without NaN or infinities, of which the oracle makes null.
fn plain(json: &JsonText) -> Option<Value> {
    if json.nan.is_some() { None } else { serde_json::from_str(&json.text).ok() }
}

/// Equal values; numbers as doubles, since the oracle keeps big integers that JavaScript rounds.
fn same(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => ours == theirs,
    }
}

/// An upper bound of the nesting.
fn depth(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| matches!(byte, b'[' | b'{')).count()
}

/// Whether the bytes are UTF-8 but for surrogates, which is what the scanner is promised.
fn is_wtf8(bytes: &[u8]) -> bool {
    let mut plain = bytes.to_vec();
    for at in 0..plain.len().saturating_sub(2) {
        if let [0xED, 0xA0..=0xBF, 0x80..=0xBF] = plain[at..at + 3] {
            plain[at..at + 3].fill(b'?');
        }
    }
    std::str::from_utf8(&plain).is_ok()
}
