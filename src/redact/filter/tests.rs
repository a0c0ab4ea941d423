use super::*;
use crate::redact::regex::tests::steps;

fn could_match(text: &str) -> bool {
    Filter::get().unwrap().could_match(&text.encode_utf16().collect::<Vec<_>>())
}

#[test]
fn looks_closer_where_openclaw_does() {
    for (text, closer) in [
        ("", false),
        ("the quick brown fox", false),
        ("monkey", true),
        ("mon\u{212a}ey", true),
        ("pas\u{17f}word", true),
        ("pass the salt", false),
        ("pass : x", true),
        ("bypass=", false),
        ("a_pass=", true),
        ("bearer\u{3000}x", true),
        ("http://h:80/@", true),
        ("http://h/:@", false),
        ("am_", true),
        ("xam_", false),
        ("\u{17f}am_", false),
        ("1234567:abcdefghijklmnopqrst", true),
        ("12345:abcdefghijklmnopqrst", false),
        ("%41=", true),
        ("%4g=", false),
        ("a%41 =", false),
        ("+a=", true),
        ("a+=", true),
        ("+=", false),
        ("a=\n", false),
        ("\na=", true),
        ("a\u{e0001}=", true),
        ("\u{1f600}a=", false),
        ("Ab1/Ab1/Ab1/Ab1/Ab1/Ab1/Ab1/Ab1/Ab1/Ab1/", true),
        ("Ab1/Ab1/Ab1/Ab1/Ab1/Ab1/Ab1/Ab1/Ab1/Ab1", false),
        ("da39a3ee5e6b4b0d3255bfef95601890afd80709", false),
    ] {
        assert_eq!(could_match(text), closer, "{text:?}");
    }
}

#[test]
fn a_key_is_looked_for_at_every_place() {
    let key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLE001";
    for before in 0..90 {
        for filler in ["-", "0", "a"] {
            let text = format!("{}{key}{}", filler.repeat(before), "-".repeat(before % 7));
            assert!(aws::could_match(&text.encode_utf16().collect::<Vec<_>>()), "{text}");
        }
    }
}

#[test]
fn the_work_is_linear() {
    let filter = Filter::get().unwrap();
    let pieces = [
        "://a:",
        "://",
        "pass ",
        "pass  \t",
        "bot1234567",
        "1234567:a",
        "sig ",
        "%4",
        "a+",
        "Bearer",
        "jwt",
        "_pass",
        "x_sk",
        "0",
        ":abcde",
        "1:",
    ];
    for piece in pieces {
        let work = |count: usize| {
            let text: Vec<u16> = piece.repeat(count).encode_utf16().collect();
            steps(|| {
                filter.could_match(&text);
            })
        };
        let (once, twice) = (work(4000), work(8000));
        assert!(twice <= once * 2 + 100, "{piece:?}: {once} steps, and {twice} for twice the text");
    }
}
