use super::*;

fn units(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

fn text(units: &[u16]) -> String {
    String::from_utf16(units).unwrap()
}

#[test]
fn a_long_secret_keeps_its_ends_but_no_half_of_a_pair() {
    for (secret, mask) in [
        ("", "***"),
        ("12345678901234567", "***"),
        ("123456789012345678", "123456…5678"),
        ("12345😀89012345678", "12345…5678"),
        ("123456789012345😀8", "123456…5😀8"),
        ("12345678901234😀78", "123456…😀78"),
        ("1234567890123😀678", "123456…678"),
    ] {
        assert_eq!(text(&token(&units(secret))), mask, "{secret}");
    }
    assert_eq!(token(&[0xDC00; 18]).len(), 11, "lone halves are units like others");
}

#[test]
fn quotes_and_what_closes_are_no_part_of_a_secret() {
    for (whole, secret, suffix) in [
        ("abc", "abc", ""),
        ("abc\"),", "abc", "\"),"),
        ("'abc'", "abc", ""),
        ("'abc',", "abc", ","),
        ("'abc'd", "abc'd", ""),
        ("'abc", "abc", ""),
        ("'", "", ""),
        ("```", "`", ""),
        (");", ");", ""),
        ("\");", ");", ""),
    ] {
        let units = units(whole);
        let value = value(&units);
        assert_eq!((text(value.secret), text(value.suffix)), (secret.into(), suffix.into()), "{whole}");
    }
}

#[test]
fn a_reference_to_the_same_variable_stays() {
    let manner = Manner { keeps_shell_references: true, ..Manner::default() };
    for (matched, token, stays) in [
        ("KEY=$KEY", "$KEY", true),
        ("KEY=${KEY}", "${KEY}", true),
        ("KEY=${KEY:-}", "${KEY:-}", true),
        ("KEY:-}", "-}", true),
        ("KEY=$OTHER", "$OTHER", false),
        ("KEY=${KEY:-x}", "${KEY:-x}", false),
        ("aKEY=$KEY", "$KEY", false),
        ("key KEY =$KEY", "$KEY", true),
    ] {
        assert_eq!(captured(&units(matched), &units(token), manner).is_none(), stays, "{matched}");
    }
    assert_eq!(captured(&units("a=***"), &units("***"), Manner::default()), None);
}

#[test]
fn pairs_behind_a_header_value_stay() {
    let manner = Manner { is_form_aware: true, ..Manner::default() };
    let masked = captured(&units("api-key=abc&x=1"), &units("abc&x=1"), manner);
    assert_eq!(text(&masked.unwrap()), "***&x=1");
    let masked = captured(&units("api-key=abc&1=1"), &units("abc&1=1"), manner);
    assert_eq!(text(&masked.unwrap()), "***");
}

#[test]
fn a_private_key_keeps_its_first_and_last_line() {
    assert_eq!(text(&pem(&units("a\r\nb\r\r\n\nc\r"))), "a\n…redacted…\nc\r");
    assert_eq!(text(&pem(&units("abc"))), "***");
}
