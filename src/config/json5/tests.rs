//! Properties of the scanner. Equality with npm `json5` itself is held by `__test__/differential/json5.test.mjs`.

use proptest::prelude::*;

use super::*;
use crate::config::value::Value;

fn json(text: &str) -> String {
    to_json(text.as_bytes()).unwrap().text
}

fn failure(text: &str) -> (String, u32, u32) {
    let error = to_json(text.as_bytes()).unwrap_err();
    assert_eq!(error.code(), Code::ConfigParse);
    (error.to_string(), error.details().line.unwrap(), error.details().column.unwrap())
}

#[test]
fn every_form_of_json5_becomes_json() {
    for (text, expected) in [
        ("{a:1,'b':2,\"c\":3,}", r#"{"a":1,"b":2,"c":3}"#),
        ("[+1,-1,.5,5.,5.e3,-.5e-3,0x1F,-0x10,-0]", "[1,-1,0.5,5,5e3,-0.5e-3,31.0,-16.0,-0]"),
        ("[Infinity,-Infinity,1e400]", "[1e999,-1e999,1e400]"),
        ("'it\\'s \"x\" \\x41\\u0042\\\n.'", "\"it's \\\"x\\\" AB.\""),
        ("/*c*/{//x\n\\u0061b\u{200C}: null /**/}", "{\"ab\u{200C}\":null}"),
        ("\u{FEFF}[true,false]\u{2029}", "[true,false]"),
        ("{__proto__:{a:1},a:1,a:2}", r#"{"__proto__":{"a":1},"a":1,"a":2}"#),
        ("'\\ud83d\\ude00 \\ud800'", "\"😀 \\ud800\""),
        ("'\t\\0\u{2028}'", "\"\\u0009\\u0000\u{2028}\""),
    ] {
        assert_eq!(json(text), expected, "{text:?}");
    }
}

#[test]
fn nan_is_marked_by_a_string_that_occurs_nowhere_else() {
    assert_eq!(to_json(b"[NaN]").unwrap(), JsonText { text: r#"["NaN"]"#.into(), nan: Some("NaN".into()) });
    let crowded = to_json(br#"{NaN:-NaN,a:"NaN~",b:"NaN"}"#).unwrap();
    assert_eq!(crowded.nan.as_deref(), Some("NaN~~"));
    assert_eq!(crowded.text, r#"{"NaN":"NaN~~","a":"NaN~","b":"NaN"}"#);
}

#[test]
fn errors_have_npms_message_line_and_column() {
    for (text, message, line, column) in [
        ("", "JSON5: invalid end of input at 1:1", 1, 1),
        ("{\n  a: @", "JSON5: invalid character '@' at 2:6", 2, 6),
        ("{a:1}{b:2}", "JSON5: invalid character '{' at 1:6", 1, 6),
        ("'\n'", "JSON5: invalid character '\\n' at 2:0", 2, 0),
        ("[01]", "JSON5: invalid character '1' at 1:3", 1, 3),
        ("{\\u0031:1}", "JSON5: invalid identifier character at 1:2", 1, 2),
        ("[\"😀\" 😀", "JSON5: invalid character '😀' at 1:8", 1, 8),
        ("/* x", "JSON5: invalid end of input at 1:5", 1, 5),
        ("truth", "JSON5: invalid character 't' at 1:4", 1, 4),
    ] {
        assert_eq!(failure(text), (message.into(), line, column), "{text:?}");
    }
}

#[test]
fn nesting_is_bounded_with_a_place() {
    let deep = "[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH);
    assert_eq!(json(&deep), deep);
    let (message, line, column) = failure(&("\n".to_owned() + &"[".repeat(1_000_000)));
    assert_eq!((line, column), (2, 10_001), "{message}");
    assert!(parse("{a:".repeat(MAX_TREE_DEPTH + 1).as_bytes(), 0).is_err());
}

#[test]
fn hex_numbers_round_half_to_even() {
    let hex = |digits: &str| Number { negative: false, magnitude: Magnitude::Hex(digits.as_bytes()) }.value();
    assert_eq!(hex("20000000000001").to_bits(), 9_007_199_254_740_992_f64.to_bits());
    assert_eq!(hex("20000000000003").to_bits(), 9_007_199_254_740_996_f64.to_bits());
    // 2^124 + half an ulp, then one bit far behind: above the half, so it rounds up.
    assert!(hex("100000000000008000000000000000001") > hex("100000000000008000000000000000000"));
    assert_eq!(hex(&"f".repeat(300)).to_bits(), f64::INFINITY.to_bits());
    assert_eq!(hex(&"0".repeat(300)).to_bits(), 0_f64.to_bits());
}

#[test]
fn tree_values_know_their_place_and_keep_javascripts_key_order() {
    let text = "{b: 1, /* x */ '2': [true], b: 'last'}";
    let root = parse(text.as_bytes(), 7).unwrap();
    let Value::Object(object) = &root.value else { panic!("not an object") };
    let seen: Vec<_> = object
        .iter()
        .map(|(key, node)| {
            (key.to_str_lossy().into_owned(), &text[node.origin.start as usize..node.origin.end as usize])
        })
        .collect();
    assert_eq!(seen, [("2".to_owned(), "[true]"), ("b".to_owned(), "'last'")]);
    assert_eq!(root.origin.file, 7);
}

proptest! {
    /// Whatever the bytes are, the scanner ends, and both sinks agree on whether it is a document.
    #[test]
    fn arbitrary_text_never_panics(text in "[\\[\\]{}:,'\"\\\\/*\n a0x.eE+INu\u{2028}\u{D7FF}😀-]{0,40}") {
        let json = to_json(text.as_bytes());
        let tree = parse(text.as_bytes(), 0);
        prop_assert_eq!(json.is_ok(), tree.is_ok());
        if let (Ok(json), Ok(tree)) = (json, tree) {
            let rewritten = stringify(&tree.value).unwrap();
            prop_assert_eq!(rewritten.nan.is_some(), json.nan.is_some());
        }
    }

    /// Where the `json5` crate accepts a document of plain values, it reads the same.
    #[test]
    fn agrees_with_the_json5_crate(value in plain_value()) {
        let text = serde_json::to_string_pretty(&value).unwrap();
        let ours: serde_json::Value = serde_json::from_str(&json(&text)).unwrap();
        let theirs: serde_json::Value = ::json5::from_str(&text).unwrap();
        prop_assert_eq!(&ours, &theirs);
        let tree = stringify(&parse(text.as_bytes(), 0).unwrap().value).unwrap();
        prop_assert!(tree.nan.is_none());
    }
}

fn plain_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i32>().prop_map(Into::into),
        "[a-z\"'\\\\ \u{e9}😀\n]{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map("[a-z]{1,4}", inner, 0..6)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}
