use std::cell::Cell;

use super::*;

thread_local! {
    static STEPS: Cell<usize> = const { Cell::new(0) };
}

/// Notes work that was done, so that tests can hold it against the length of the text.
pub(in crate::redact) fn count(steps: usize) {
    STEPS.set(STEPS.get() + steps);
}

/// The work that `run` does.
pub(in crate::redact) fn steps(run: impl FnOnce()) -> usize {
    STEPS.set(0);
    run();
    STEPS.get()
}

fn program(source: &str, flags: &str) -> Program {
    let (node, groups) = Parser::parse(source, flags).unwrap();
    Program::compile(&node, groups).unwrap()
}

/// The first match, as its text and those of its groups.
fn first(source: &str, flags: &str, text: &str) -> Option<Vec<Option<String>>> {
    let units: Vec<u16> = text.encode_utf16().collect();
    let program = program(source, flags);
    let mut matcher = Matcher::new(&program, &units);
    let part = |place: (usize, usize)| String::from_utf16_lossy(&units[place.0..place.1]);
    (0..=units.len()).find_map(|start| {
        let end = matcher.at(start)?;
        let groups = (1..=matcher.groups()).map(|number| matcher.group(number).map(part));
        Some([Some(part((start, end)))].into_iter().chain(groups).collect())
    })
}

type Case = (&'static str, &'static str, &'static str, Option<&'static [Option<&'static str>]>);

/// Expected: what `new RegExp(source, flags).exec(text)` gives.
const CASES: &[Case] = &[
    ("a|ab", "", "ab", Some(&[Some("a")])),
    ("(a|ab)(c|bcd)?", "", "abcd", Some(&[Some("abcd"), Some("a"), Some("bcd")])),
    ("(a)|(b)", "", "b", Some(&[Some("b"), None, Some("b")])),
    ("x*y", "", "xxxy", Some(&[Some("xxxy")])),
    ("[xy]*y", "", "xyxyx", Some(&[Some("xyxy")])),
    ("[xy]*?y", "", "xyxyx", Some(&[Some("xy")])),
    ("x{2,3}", "", "xxxx", Some(&[Some("xxx")])),
    ("x{2,3}?", "", "xxxx", Some(&[Some("xx")])),
    ("(?:ab){2}", "", "ababab", Some(&[Some("abab")])),
    ("(?:ab){1,2}c", "", "ababc", Some(&[Some("ababc")])),
    ("(?:a(?!c)b?)+", "", "abaac", Some(&[Some("aba")])),
    (r"(['\x60])((?:(?!\1)[^\r\n])+)\1", "", "'a`b'", Some(&[Some("'a`b'"), Some("'"), Some("a`b")])),
    (r"(x)?\1y", "", "y", Some(&[Some("y"), None])),
    (r"\bkey\b", "i", "monkey KEY", Some(&[Some("KEY")])),
    (r"\bkey", "", "\u{e9}key", Some(&[Some("key")])),
    // ſ and K are letters of words with `iu`, and only then.
    (r"\bkey", "iu", "\u{17f}key", None),
    (r"\bkey", "i", "\u{17f}key", Some(&[Some("key")])),
    ("sk", "i", "\u{17f}\u{212a}", None),
    ("sk", "iu", "\u{17f}\u{212a}", Some(&[Some("\u{17f}\u{212a}")])),
    ("[^s]", "iu", "\u{17f}S", None),
    ("[^s]", "i", "\u{17f}", Some(&[Some("\u{17f}")])),
    ("[a-z]", "i", "\u{130}\u{131}", None),
    (r"\s", "", "\u{85}\u{180e}\u{200b}\u{feff}", Some(&[Some("\u{feff}")])),
    (
        r"\s{9}",
        "",
        "\u{a0}\u{1680}\u{2000}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}",
        Some(&[Some("\u{a0}\u{1680}\u{2000}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}")]),
    ),
    (".", "", "\r\n\u{2028}\u{2029}\u{85}", Some(&[Some("\u{85}")])),
    (r"[\s\S]", "", "\u{2028}", Some(&[Some("\u{2028}")])),
    ("^a", "", "ba", None),
    ("a$", "", "ab", None),
    ("a(?=b|$)", "", "acab", Some(&[Some("a")])),
    ("(^|[^a])(?<!;x,[a-z]*)k", "", ";x,abc-k", Some(&[Some("-k"), Some("-")])),
    ("(^|[^a])(?<!;x,[a-z]*)k", "", ";x,abck", None),
    ("(^|[^a])(?<!;x,[a-z]*)k", "", "x,abck", Some(&[Some("ck"), Some("c")])),
];

#[test]
fn matches_as_ecmascript_does() {
    for (source, flags, text, expected) in CASES {
        let expected = expected.map(|groups| groups.iter().map(|group| group.map(str::to_owned)).collect());
        assert_eq!(first(source, flags, text), expected, "/{source}/{flags} on {text:?}");
    }
}

#[test]
fn a_unit_of_a_surrogate_pair_is_a_unit() {
    let units = [0xD83D, 0xDE00, u16::from(b'k')];
    let program = program("(^|[^a])k", "");
    let mut matcher = Matcher::new(&program, &units);
    assert_eq!(matcher.at(0), None);
    assert_eq!(matcher.at(1), Some(3));
}

#[test]
fn what_no_pattern_uses_does_not_compile() {
    let sources = [
        "a**", "(a", "a)", "[a", "(?<n>a)", "(?<=a)b", r"\p{L}", r"\u0041", r"\W", "é", "(?:a?)*",
        "(?:ab)*?", "a{b", "{",
    ];
    for source in sources {
        let compiled = Parser::parse(source, "").and_then(|(node, groups)| Program::compile(&node, groups));
        assert!(compiled.is_err(), "{source}");
    }
}

#[test]
fn a_start_inside_a_run_that_failed_costs_little() {
    for (source, piece) in [
        ("x[a-z=]+=[0-9]{8}", "xa="),
        ("x[a-z.]+@", "xa."),
        (r"x[^\s@]+@", "x:"),
        ("(^|[^a])(?<!;x,[a-z-]*)xy", "-x"),
    ] {
        let program = program(source, "");
        let work = |count: usize| {
            let units: Vec<u16> = piece.repeat(count).encode_utf16().collect();
            steps(|| {
                let mut matcher = Matcher::new(&program, &units);
                assert!((0..units.len()).all(|start| matcher.at(start).is_none()));
            })
        };
        let (once, twice) = (work(2000), work(4000));
        assert!(twice < once * 5 / 2, "/{source}/: {once} steps, and {twice} for twice the text");
    }
}
