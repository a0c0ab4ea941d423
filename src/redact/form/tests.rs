use super::*;

fn units(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

#[test]
fn decodes_as_ecmascript_does() {
    for (text, decoded) in [
        ("abc", Some("abc")),
        ("%41%c3%A9%F0%9F%98%80", Some("Aé😀")),
        ("%", None),
        ("%4", None),
        ("%4g", None),
        ("%80", None),
        ("%c0%80", None),
        ("%ed%a0%80", None),
        ("%f5%80%80%80", None),
        ("%c3x", None),
        ("%00", Some("\0")),
    ] {
        assert_eq!(decode_component(&units(text)), decoded.map(units), "{text}");
    }
    assert_eq!(decode_component(&[0xD800]), Some(vec![0xD800]), "a lone surrogate is not encoded");
}

#[test]
fn names_are_known_through_what_hides_them() {
    for (name, is_secret) in [
        ("token", true),
        ("Access-Token", true),
        ("x_session_token", true),
        ("token_0123456789abcdef", true),
        ("token_0123456789abcde", false),
        ("tokens", false),
        ("to%6ben", true),
        ("%2574oken", true),
        ("p+a\u{200b}s\u{ad}s", true),
        ("c%76c", true),
        ("c%2576c", false),
        ("a%zz", true),
        ("\u{212a}ey", true),
        ("user", false),
    ] {
        assert_eq!(is_secret_name(&units(name)), is_secret, "{name}");
    }
}
