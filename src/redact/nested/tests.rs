use super::*;

#[test]
fn judges_as_openclaw_does() {
    for (source, refused) in [
        ("a+", false),
        ("(a+)+", true),
        ("(a+)?", true),
        ("(a|b)*", false),
        ("(a|bc)*", true),
        ("(a|bc){2}", false),
        ("(a|bc){2,}", true),
        // The colon counts as a letter.
        ("(?:a|b)*", true),
        ("(?:a|bc)*", false),
        ("(a{2}|bb)*", true),
        (r"\(a+\)+", false),
        ("[(a+)+]", false),
        ("a{,3}", false),
        ("a{3,1}", false),
        ("((ab){2}c)*", true),
        ("+", false),
        ("a+b+c+", false),
        (")(", false),
        ("[", false),
        (r"\", false),
    ] {
        let units: Vec<u16> = source.encode_utf16().collect();
        assert_eq!(has_nested_repetition(&units), refused, "{source}");
    }
}
