//! Edits of a document. The input's first line is the path, its second the new value (none: take it away), the rest
//! the document.

use openclaw_core::Code;
use openclaw_core::config::Change;
use openclaw_core::config::document::apply;
use openclaw_core::config::dotpath;
use openclaw_core::config::json5::{parse, stringify};
use openclaw_core::config::value::Value;

/// An edit gives a document that holds what was asked for, or an error that is not our own fault.
pub(crate) fn edit(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.splitn(3, '\n');
    let (Some(path), Some(value), Some(document)) = (lines.next(), lines.next(), lines.next()) else {
        return;
    };
    let Ok(path) = dotpath::parse(path) else { return };
    let change = if value.is_empty() {
        Change::Unset
    } else {
        let Ok(node) = parse(value.as_bytes(), 0) else { return };
        Change::Set(node.value)
    };
    match apply(document, &path, &change) {
        Ok(edited) => {
            let root = parse(edited.as_bytes(), 0).expect("an edited document can be read");
            if let Change::Set(wanted) = &change {
                let found = dotpath::get(&root, &path).expect("what was set is there");
                // Keys that were there keep their place, so that the order may differ.
                assert_eq!(json(&found.value), json(wanted));
                assert_eq!(
                    apply(&edited, &path, &change).unwrap(),
                    edited,
                    "the same edit again changes the text"
                );
            }
        }
        Err(error) => assert_ne!(error.code(), Code::Internal, "{error}"),
    }
}

/// As JSON, without regard to the order of keys.
fn json(value: &Value) -> serde_json::Value {
    serde_json::from_str(&stringify(value).unwrap().text).unwrap_or_default()
}
