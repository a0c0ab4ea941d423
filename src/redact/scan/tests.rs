use proptest::prelude::*;

use super::*;
use crate::redact::regex::Parser;

fn anchors(source: &str) -> Option<Anchors> {
    Anchors::of(&Parser::parse(source, "").unwrap().0)
}

fn read(source: &str) -> (Before, Vec<String>) {
    let anchors = anchors(source).unwrap();
    let letters =
        |set: &u128| (0..127_u8).filter(|bit| set >> bit & 1 == 1).map(char::from).collect::<String>();
    let shown = |sets: &Sequence| sets.iter().map(letters).collect::<Vec<_>>().join("|");
    (anchors.before, anchors.sequences.iter().map(shown).collect())
}

#[test]
fn anchors_are_read_off_a_pattern() {
    assert_eq!(read("abc"), (Before::Nothing, vec!["a|b|c".into()]));
    assert_eq!(read("(abcdefgh)+"), (Before::Nothing, vec!["a|b|c|d|e|f".into()]));
    assert_eq!(read("ab[-_]?cd"), (Before::Nothing, vec!["a|b|c|d".into(), "a|b|-_|c|d".into()]));
    assert_eq!(read("(?:abc|bcd)e"), (Before::Nothing, vec!["a|b|c|e".into(), "b|c|d|e".into()]));
    assert_eq!(read(r"abc\s*="), (Before::Nothing, vec!["a|b|c".into()]));
    assert_eq!(read("(^|[^x])abc"), (Before::Edge, vec!["a|b|c".into()]));
    assert_eq!(read(r"(?:^|[^x]|\\{1,64}[rn])abc"), (Before::EscapedEdge, vec!["a|b|c".into()]));
    let (before, sequences) = read(r"\b[0-9]{6,}:abc");
    assert!(matches!(before, Before::Run(_)));
    assert_eq!(sequences, [":|a|b|c"]);
    let (before, sequences) = read(r"(^|[,])(?:abc|[a-z]{1,9}-bcd)");
    assert!(matches!(before, Before::EdgeAndRun(_)));
    assert_eq!(sequences, ["a|b|c", "-|b|c|d"]);
    assert!(anchors("ab").is_none());
    assert!(anchors(r"\s+abc").is_none() || matches!(read(r"\s+abc").0, Before::Run(_)));
}

#[test]
fn an_escaped_line_end_may_have_64_backslashes() {
    let anchors = anchors(r"(^|[^x]|\\{1,64}[rn])abc").unwrap();
    let text: Vec<u16> = format!("{}nabc", "\\".repeat(70)).encode_utf16().collect();
    let mut starts = Vec::new();
    anchors.starts(&text, 71, &mut (0, 0), &mut starts);
    assert_eq!(starts, (6..=70).collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn finds_what_a_plain_search_finds(
        words in prop::collection::vec("[abkK-]{3,6}", 1..90),
        text in prop::collection::vec(
            prop::sample::select("abkK-x\u{212a}\u{e9}\u{3000}".encode_utf16().collect::<Vec<_>>()),
            0..300,
        ),
        repeats in 1_usize..60,
        from in 0_usize..9000,
        length in 0_usize..9000,
    ) {
        let sequences: Vec<Sequence> =
            words.iter().map(|word| word.bytes().map(|byte| 1 << byte).collect()).collect();
        let text = text.repeat(repeats);
        let range = from.min(text.len())..(from + length).min(text.len());
        let mut found = Vec::new();
        let scanner = Scanner::new(&sequences);
        let _ = scanner.scan(&text, range.clone(), |number, at| {
            found.push((at, number));
            ControlFlow::Continue(())
        });
        prop_assert!(found.is_sorted_by_key(|(at, _)| *at));
        found.sort_unstable();
        let mut expected = Vec::new();
        for at in range {
            for (number, word) in words.iter().enumerate() {
                let is_word = |units: &[u16]| units.iter().zip(word.bytes()).all(|(unit, byte)| letter(*unit) == byte);
                if text.get(at..at + word.len()).is_some_and(is_word) {
                    expected.push((at, number));
                }
            }
        }
        prop_assert_eq!(found, expected);
    }
}
