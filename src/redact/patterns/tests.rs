use proptest::prelude::*;

use super::*;
use crate::redact::regex::tests::steps;

#[rustfmt::skip]
const PIECES: &[&str] = &[
    "token", "TOKEN", "KEY", "key", "secret", "password", "pass", "passwd", "api-key", "x-api-key", "apiKey", "API_",
    "db.", "a-", "Authorization", "Proxy-", "Bearer ", "Basic ", "Digest ", "Bot ", "body", "form", "code", "session",
    "jwt", "sig", "cvc", "--", "=", "=", "=", ":", ": ", "&", "?", "\"", "'", "`", "\\", "\\n", "\\t", "\n", "\r\n",
    "\t", " ", " ", ",", ";", "(", ")", "{", "}", "[REDACTED]", "***", "$KEY", "${KEY:-}", "%74", "%", "+", "\u{200b}",
    "\u{e0001}", "\u{17f}", "\u{212a}", "\u{2028}", "\u{a0}", "\u{1f600}", "é", "-", "_", ".", "/", "//", "://", "@",
    "https://", "wss://u:p@", "postgres://", "sk-", "sk_", "am_", "ghp_", "eyJ", "AKIA", "ATATT", "fc-", "discord", "bot",
    "1234567", "123456:", "0", "abcdefghij", "ABCDEFGHIJ", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", ";base64,",
    "username=\"a\", ", "id=1, mac=2", "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "a", "b", "x=1", "n",
    "r",
];

fn text() -> impl Strategy<Value = Vec<u16>> {
    let pieces = prop::collection::vec(prop::sample::select(PIECES), 0..40);
    pieces.prop_map(|pieces| pieces.concat().encode_utf16().collect())
}

/// The matches that a search from place to place finds.
fn matches(
    starts: impl Iterator<Item = usize>,
    mut at: impl FnMut(usize) -> Option<usize>,
) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut next = 0;
    for start in starts {
        if start >= next
            && let Some(end) = at(start)
        {
            found.push((start, end));
            next = end;
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn each_pattern_is_found_where_a_try_at_every_place_finds_it(text in text()) {
        let patterns = Patterns::get().unwrap();
        let seen = patterns.look(&text);
        let searched = patterns.steps.iter().filter_map(|step| match step {
            Step::Pattern(pattern, _) => Some(&**pattern),
            Step::PrivateKeys => None,
        });
        for (number, pattern) in searched.chain([&patterns.header]).enumerate() {
            let mut matcher = Matcher::new(&pattern.program, &text);
            let starts = pattern.starts(&seen, &text, 0);
            let found = matches(starts.into_iter(), |start| matcher.at(start));
            // A fresh matcher for each start: what one try left behind must not change the next.
            let expected = matches(0..=text.len(), |start| Matcher::new(&pattern.program, &text).at(start));
            prop_assert_eq!(found, expected, "pattern {}", number);
        }
    }

    #[test]
    fn what_was_seen_is_kept_up_to_date(text in text(), seed in any::<u64>()) {
        let patterns = Patterns::get().unwrap();
        let mut seen = patterns.look(&text);
        let mut rewriting = Rewriting::new(&text);
        let (mut at, mut state) = (0, seed);
        let mut next = |bound: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 40).unwrap() % bound
        };
        while at < text.len() {
            let start = at + next(9);
            let end = (start + 1 + next(9)).min(text.len());
            if start < end {
                let with: Vec<u16> = PIECES[next(PIECES.len())].encode_utf16().take(next(9)).collect();
                rewriting.replace(start..end, &with);
            }
            at = end + next(3);
        }
        if let Some(Rewritten { text, edits }) = rewriting.finish() {
            patterns.look_again(&text, &edits, &mut seen);
            prop_assert_eq!(seen.places, patterns.look(&text).places);
        }
    }
}

#[test]
fn the_built_in_patterns_compile() {
    assert_eq!(Patterns::get().unwrap().steps.len(), 122);
}

#[test]
fn sources_have_their_treatment() {
    let plain = Treatment::default();
    assert_eq!(treatment("abc"), plain);
    assert_eq!(treatment("(^|[^A-Za-z0-9_])x"), Treatment { whole: true, ..plain });
    let count = |is: fn(&Treatment) -> bool| lines().map(|(_, source)| treatment(source)).filter(is).count();
    assert_eq!(count(|treatment| treatment.manner.keeps_shell_references), 4);
    assert_eq!(count(|treatment| treatment.manner.is_form_aware), 2);
    assert_eq!(count(|treatment| treatment.is_pem), 1);
    assert!(count(|treatment| treatment.whole) > 12);
}

/// How many steps two lengths of a motif take, the second twice the first: no more than twice, and some.
fn assert_linear(motif: &str, length: usize) {
    let patterns = Patterns::get().unwrap();
    let work = |length: usize| {
        let text: Vec<u16> = motif.repeat(length / motif.len()).encode_utf16().collect();
        steps(|| drop(patterns.redact(&text)))
    };
    let (once, twice) = (work(length), work(2 * length));
    assert!(
        twice < once * 5 / 2 + 20_000,
        "{motif:?} again and again: {once} steps, and {twice} for twice the text"
    );
}

/// Redaction of what is made to be slow: twice the text, not much more than twice the work.
#[test]
fn time_grows_with_the_text() {
    let pieces = PIECES.iter().map(|piece| (*piece).to_owned());
    let marks = [" ", "=", "a", "-", "/", "'", ":"];
    let joined = marks.into_iter().flat_map(|mark| PIECES.iter().map(move |piece| format!("{piece}{mark}")));
    for motif in pieces.chain(joined) {
        assert_linear(&motif, 6_000);
    }
}

/// Headers whose parameters have no end of their own, so that each could be read to the end of the text.
#[test]
fn time_grows_with_the_text_of_many_headers() {
    const HEADERS: [&str; 3] =
        ["&Authorization: Digest ", "\"authorization\":\"AWS4-X ", "\\n\\\"Proxy-Authorization\\\"= Hawk "];
    const PARTS: [&str; 14] = [
        "",
        "a",
        "x=y",
        "a=",
        "a=(",
        ",",
        "\"",
        "'",
        "\\",
        "\\\"",
        "a=\\\"",
        "credential=b/",
        "signedHeaders=a;",
        "\\n\\t",
    ];
    for header in HEADERS {
        for first in PARTS {
            for second in PARTS {
                assert_linear(&format!("{first}{header}{second}"), 2_000);
            }
        }
        for (first, second) in PARTS.into_iter().zip(PARTS.into_iter().rev()) {
            assert_linear(&format!("{header}{first} {second}"), 2_000);
        }
    }
    // Strings of ever fewer backslashes before their quotes: none of them ends within the text.
    let nested = |levels: usize| -> Vec<u16> {
        let strings =
            (1..=levels).rev().map(|level| format!(" Authorization: Digest a={}\"", "\\".repeat(level)));
        strings.collect::<String>().encode_utf16().collect()
    };
    let patterns = Patterns::get().unwrap();
    let work = |text: &[u16]| steps(|| drop(patterns.redact(text)));
    let (once, more) = (nested(60), nested(120));
    // n^1.5, squared: whole numbers have no rounding.
    let squared = |steps: usize, length: usize| (steps as u128).pow(2) * (length as u128).pow(3);
    assert!(squared(work(&more), once.len()) * 4 < squared(work(&once), more.len()) * 5);
}

/// Motifs of three pieces, drawn evenly.
#[test]
fn time_grows_with_the_text_of_any_motif() {
    let mut state = 1_u64;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        PIECES[usize::try_from(state >> 33).unwrap() % PIECES.len()]
    };
    for _ in 0..400 {
        let motif = [draw(), draw(), draw()].concat();
        assert_linear(&motif, 2_000);
    }
}
