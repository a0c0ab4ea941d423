use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

fn steps(path: &str) -> Vec<Step> {
    path.split('.')
        .map(|key| Step { key: key.trim_matches('"').into(), quoted: key.starts_with('"') })
        .collect()
}

fn value(json5: &str) -> Value {
    json5::parse(json5.as_bytes(), 0).unwrap().value
}

fn set(text: &str, path: &str, new: &str) -> String {
    apply(text, &steps(path), &Change::Set(value(new))).unwrap()
}

fn unset(text: &str, path: &str) -> String {
    apply(text, &steps(path), &Change::Unset).unwrap()
}

#[test]
fn a_value_is_replaced_where_it_stands_and_all_else_stays() {
    let text =
        "// top\n{\n  gateway: { port: 18789, /* p */ mode: 'local' }, // gw\n  $include: './x.json5',\n}\n";
    assert_eq!(set(text, "gateway.port", "18790"), text.replace("18789", "18790"));
    assert_eq!(set(text, "gateway.mode", "'re\"mo\\'te'"), text.replace("'local'", "'re\"mo\\'te'"));
}

#[test]
fn an_equal_value_changes_no_byte() {
    let text = "{ a: 0x10, b: .5, c: +1, d: 'x\\\ny', e: { f: [1,2,], }, n: -0 }";
    for (path, same) in
        [("a", "16"), ("b", "0.5"), ("c", "1"), ("d", "'xy'"), ("e", "{f:[1,2]}"), ("n", "-0")]
    {
        assert_eq!(set(text, path, same), text, "{path}");
    }
    assert_ne!(set(text, "n", "0"), text);
}

#[test]
fn a_new_member_takes_the_style_of_its_neighbours() {
    for (before, path, new, after) in [
        (
            "{\n\ta: 1, // one\n}\n",
            "b",
            "{x:[1,'y']}",
            "{\n\ta: 1, // one\n\tb: {\n\t\tx: [\n\t\t\t1,\n\t\t\t\"y\",\n\t\t],\n\t},\n}\n",
        ),
        ("{\n  \"a\": 1 // one\n}\n", "b", "2", "{\n  \"a\": 1, // one\n  \"b\": 2\n}\n"),
        ("{\r\n    'a': 'x',\r\n}", "b", "'z'", "{\r\n    'a': 'x',\r\n    'b': 'z',\r\n}"),
        ("{\"a\":1,\"b\":[1,2]}", "c.d", "[true,{}]", "{\"a\":1,\"b\":[1,2],\"c\":{\"d\":[true,{}]}}"),
        ("{ a: 1 }", "b", "{c: 2}", "{ a: 1, b: { c: 2 } }"),
        ("{}", "a.b", "1", "{\n  \"a\": {\n    \"b\": 1\n  }\n}"),
        ("{ /* nothing yet */ }\n", "a", "1", "{\n  \"a\": 1 /* nothing yet */ }\n"),
        ("{\n  // nothing yet\n}\n", "a", "1", "{\n  \"a\": 1\n  // nothing yet\n}\n"),
        ("{ a: [] }", "a.0", "1", "{ a: [1] }"),
        ("{ a: [1] }", "a.1", "2", "{ a: [1, 2] }"),
        ("{ a: null }", "a.b", "2", "{ a: { b: 2 } }"),
        (
            "{\n  a: 1 /* x */ , /* y */ // z\n}",
            "not-bare",
            "2",
            "{\n  a: 1 /* x */ , /* y */ // z\n  \"not-bare\": 2,\n}",
        ),
        (
            "{\n  a: 1, /* long\n  comment */ b: 2\n}",
            "c",
            "3",
            "{\n  a: 1, /* long\n  comment */ b: 2,\n  c: 3\n}",
        ),
    ] {
        assert_eq!(set(before, path, new), after, "{before:?} with {path}");
    }
}

#[test]
fn a_removed_member_takes_its_comma_and_an_empty_line_with_it_but_no_comment() {
    for (before, path, after) in [
        ("{\n  a: 1,\n  b: 2,\n  c: 3\n}", "b", "{\n  a: 1,\n  c: 3\n}"),
        ("{\n  a: 1,\n  b: 2\n}", "b", "{\n  a: 1\n}"),
        ("{\n  a: 1,\n  b: 2,\n}", "b", "{\n  a: 1,\n}"),
        ("{\n  // about a\n  a: 1, // also\n  b: 2,\n}", "a", "{\n  // about a\n  // also\n  b: 2,\n}"),
        ("{ a: 1, b: 2 }", "a", "{ b: 2 }"),
        ("{ a: 1, b: 2 }", "b", "{ a: 1 }"),
        ("{ a: 1 }", "a", "{ }"),
        ("{ a: 1, a: 2, b: 3 }", "a", "{ b: 3 }"),
        ("{a:1 /* why */ , b:2}", "a", "{ /* why */  b:2}"),
        ("[1, 2, 3]", "1", "[1, 3]"),
        ("[1, 2, 3]", "2", "[1, 2]"),
    ] {
        assert_eq!(unset(before, path), after, "{before:?} without {path}");
    }
}

#[test]
fn setting_an_object_keeps_the_comments_of_what_it_does_not_change() {
    let text = "{\n  agents: {\n    // the boss\n    main: { id: 'main' }, // keep\n    old: 1,\n  },\n}\n";
    let expected = "{\n  agents: {\n    // the boss\n    main: { id: 'main' }, // keep\n    \
                    next: [\n      1,\n    ],\n  },\n}\n";
    assert_eq!(set(text, "agents", "{ next: [1], main: { id: 'main' } }"), expected);
}

#[test]
fn what_cannot_be_edited_is_refused_with_its_path() {
    for (text, path, change, message) in [
        ("{a: 'x'}", "a.b", Some("1"), "a is a string: nothing can be set beneath it"),
        ("{a: [1]}", "a.b", Some("1"), "a is an array: \"b\" is not an index"),
        ("{a: [1]}", "a.3", Some("1"), "a has 1 elements: the next index is 1"),
        ("{}", "a.7", Some("1"), "a new array begins at 0, not at 7; for a key write [\"7\"]"),
        ("{a: 1}", "b", None, "there is nothing at b to remove"),
        ("{a: [1]}", "a.1", None, "there is nothing at a.1 to remove"),
        ("{a: 1}", "a.b.c", None, "there is nothing at a.b.c to remove"),
    ] {
        let change = change.map_or(Change::Unset, |new| Change::Set(value(new)));
        let error = apply(text, &steps(path), &change).unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::ConfigPath, message));
        assert_eq!(error.details().path.as_deref(), Some(path));
    }
    let error = apply("{}", &steps("a"), &Change::Set(value("[NaN]"))).unwrap_err();
    assert_eq!(error.code(), Code::ConfigInvalid);
    let error = apply("{a: 1", &steps("a"), &Change::Unset).unwrap_err();
    assert_eq!((error.code(), error.details().line), (Code::ConfigParse, Some(1)));
}

#[test]
fn a_quoted_number_makes_a_key_and_a_bare_one_an_array() {
    assert_eq!(set("{ z: 1 }", "a.0", "1"), "{ z: 1, a: [1] }");
    assert_eq!(set("{ z: 1 }", "a.\"7\"", "1"), "{ z: 1, a: { \"7\": 1 } }");
}

#[test]
fn numbers_and_strings_are_written_so_that_they_read_back() {
    let text = "{ v: 1 }";
    for new in [
        "18789",
        "-0",
        "1e21",
        "1.5e-7",
        "0.1",
        "123456789012345680000",
        "'\\ud800'",
        "'\\u2028\\n\\0\"\\'\\\\'",
        "'😀'",
    ] {
        let edited = set(text, "v", new);
        let read = value(&edited);
        let Value::Object(object) = &read else { panic!("{edited}") };
        assert!(same(&object[b"v".as_slice()].value, &value(new)), "{edited}");
    }
    assert_eq!(set(text, "v", "18789"), "{ v: 18789 }");
    assert_eq!(set(text, "v", "1e21"), "{ v: 1e+21 }");
}

// ── random documents, random edits ───────────────────────────────────────────────────────────────────────────────

/// A document in pieces, so that its comments are known: each has a number of its own.
fn gap() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => Just(String::new()),
        4 => Just(" ".to_owned()),
        3 => Just("\n  ".to_owned()),
        1 => Just("\r\n\t".to_owned()),
        2 => Just(" /*#*/ ".to_owned()),
        1 => Just("/*#\n*/".to_owned()),
        2 => Just(" // #\n".to_owned()),
        1 => Just("//#\u{2028}".to_owned()),
        1 => Just("//#\r".to_owned()),
        1 => Just("\u{a0}\u{feff}".to_owned()),
    ]
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("a".to_owned()),
        Just("'b'".to_owned()),
        Just("\"c\"".to_owned()),
        Just("$d".to_owned()),
        Just("\"1\"".to_owned()),
        Just("\\u0061".to_owned()),
        Just("'x y'".to_owned()),
    ]
}

fn document() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("0x1F".to_owned()),
        Just("-.5e3".to_owned()),
        Just("'it\\'s // no /* comment'".to_owned()),
        Just("\"${ENV}\"".to_owned()),
        Just("Infinity".to_owned()),
    ];
    scalar.prop_recursive(4, 40, 5, |inner| {
        let object = (
            gap(),
            prop::collection::vec((key(), gap(), gap(), inner.clone(), gap(), gap()), 0..5),
            any::<bool>(),
        )
            .prop_map(|(head, members, trailing)| {
                let count = members.len();
                let mut out = format!("{{{head}");
                for (nth, (key, a, b, value, c, d)) in members.into_iter().enumerate() {
                    let comma = if nth + 1 < count || trailing { "," } else { "" };
                    write!(out, "{key}{a}:{b}{value}{c}{comma}{d}").unwrap();
                }
                out + "}"
            });
        let array = (gap(), prop::collection::vec((inner, gap(), gap()), 0..4), any::<bool>()).prop_map(
            |(head, items, trailing)| {
                let count = items.len();
                let mut out = format!("[{head}");
                for (nth, (value, c, d)) in items.into_iter().enumerate() {
                    let comma = if nth + 1 < count || trailing { "," } else { "" };
                    write!(out, "{value}{c}{comma}{d}").unwrap();
                }
                out + "]"
            },
        );
        prop_oneof![3 => object, 1 => array]
    })
}

/// Numbers the comments.
fn numbered(text: &str) -> String {
    let mut out = String::new();
    for (nth, part) in text.split('#').enumerate() {
        if nth > 0 {
            write!(out, "c{nth}c").unwrap();
        }
        out.push_str(part);
    }
    out
}

fn comments(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices('c') {
        let rest = &text[at + 1..];
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
        if digits > 0 && rest[digits..].starts_with('c') {
            found.push(rest[..digits].to_owned());
        }
    }
    found
}

/// A random walk into the tree, perhaps one step past its edge.
fn walk(root: &Value, choices: &[usize]) -> Vec<Step> {
    let mut path = Vec::new();
    let mut at = root;
    for &choice in choices {
        let key = match at {
            Value::Object(object) if choice % 5 != 4 && !object.is_empty() => {
                let (key, child) = object.get_index(choice % object.len()).unwrap();
                at = &child.value;
                key.as_str().unwrap().to_owned()
            }
            Value::Array(items) if !items.is_empty() && choice % 5 != 4 => {
                let index = choice % items.len();
                at = &items[index].value;
                index.to_string()
            }
            Value::Array(items) => {
                at = &Value::Null;
                items.len().to_string()
            }
            Value::Object(_) | Value::Null => {
                at = &Value::Null;
                ["new", "not bare", "0", "z"][choice % 4].to_owned()
            }
            _ => break,
        };
        path.push(Step { key, quoted: choice % 7 == 0 });
    }
    path
}

/// The comments within the value at `path`, which may go with it.
fn removable(text: &str, path: &[Step]) -> Vec<String> {
    let root = Outline::read(text).unwrap();
    let mut spans = vec![root];
    for step in path {
        spans = spans
            .into_iter()
            .flat_map(|item| match item.kind {
                Kind::Object(members) => members
                    .into_iter()
                    .filter(|m| m.key.as_ref().unwrap().0 == *step.key)
                    .map(|m| Item { span: m.start()..m.value.span.end, kind: m.value.kind })
                    .collect::<Vec<_>>(),
                Kind::Array(members) => members
                    .into_iter()
                    .nth(step.index().unwrap_or(usize::MAX))
                    .map(|m| m.value)
                    .into_iter()
                    .collect(),
                Kind::Scalar(_) => vec![],
            })
            .collect();
    }
    spans.iter().flat_map(|item| comments(&text[item.span.clone()])).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_edited_text_says_what_the_edited_value_says_and_keeps_every_other_comment(
        text in document().prop_map(|text| numbered(&text)),
        before in gap(),
        new in document(),
        choices in prop::collection::vec(0_usize..1000, 1..5),
        removes in any::<bool>(),
    ) {
        let text = format!("{}{text}", before.replace('#', "c9999c"));
        let tree = value(&text);
        let path = walk(&tree, &choices);
        let new = value(&new);
        let change = if removes || finite(&new).is_err() { Change::Unset } else { Change::Set(new) };
        let mut expected = tree;
        let applies = !path.is_empty() && apply_to_tree(&mut expected, &path, &path, &change).is_some();
        match apply(&text, &path, &change) {
            Ok(edited) => {
                prop_assert!(applies || path.is_empty());
                if !path.is_empty() {
                    prop_assert!(same(&value(&edited), &expected), "{edited}");
                }
                let gone = removable(&text, &path);
                let left = comments(&edited);
                for comment in comments(&text) {
                    prop_assert!(gone.contains(&comment) || left.contains(&comment), "lost {comment} in {edited}");
                }
            }
            Err(error) => {
                prop_assert_eq!(error.code(), Code::ConfigPath);
                prop_assert!(!applies, "{}", error);
            }
        }
    }

    #[test]
    fn strict_json_stays_strict_json(
        value in prop::collection::btree_map("[a-z]{1,3}", "[a-z]{0,3}", 0..5),
        pretty in any::<bool>(),
        key in "[a-z]{1,3}",
        removes in any::<bool>(),
    ) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let change = if removes { Change::Unset } else { Change::Set(super::tests::value("{x: [1, 'y']}")) };
        if let Ok(edited) = apply(&text, &steps(&key), &change) {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&edited).is_ok(), "{edited}");
        }
    }
}
