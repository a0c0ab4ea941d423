use super::*;

/// xorshift64*: the same texts on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }
}

const PIECES: &[&str] = &[
    "word",
    "a",
    "lorem ipsum",
    " ",
    "  ",
    "\n",
    "\n",
    "\n\n",
    "\n \n",
    "\t",
    "```\n",
    "```",
    "```rust\n",
    "````\n",
    "~~~\n",
    "   ```\n",
    "\n```\n",
    "\n```js\nlet x = 1;\n```\n",
    "(",
    ")",
    "(see this)",
    "- item\n",
    "* item\n",
    "1. item\n",
    "> quote\n",
    "| a | b |\n",
    "\r\n",
    "\r",
    "😀",
    "👨‍👩‍👧‍👦",
    "🇩🇪",
    "🇩🇪🇫🇷",
    "e\u{301}",
    "é",
    "漢字",
    "한",
    "\u{200D}",
    "\u{FE0F}",
    "👍🏽",
    "\u{3000}",
    "\u{2028}",
    "\u{A0}",
    "ﷺ",
    "क्षि",
    "`code`",
    "**bold**",
    "https://example.org/a_very/long/path?query=1",
    "\u{301}",
    " \u{301}",
    "x\u{301}\u{302}\u{303}",
];

fn text(random: &mut Random) -> String {
    let pieces = random.below(40);
    (0..pieces).map(|_| PIECES[random.below(PIECES.len())]).collect()
}

fn cases(default: usize) -> usize {
    std::env::var("OPENCLAW_CORE_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn is_grapheme_boundary(text: &str, at: usize) -> bool {
    GraphemeCursor::new(at, text.len(), true).is_boundary(text, 0).unwrap()
}

/// What holds of every split, whatever the text, the limit and the unit.
fn check(text: &str, limit: usize, unit: Unit) {
    let pieces = split_length(text, limit, unit);
    let widest = text.chars().map(|c| unit.of(c)).max().unwrap_or(0);
    let mut at = 0;
    let marks = |line: &str| fence_line(line).is_some();
    for (number, piece) in pieces.iter().enumerate() {
        let whose = || format!("piece {number} of {text:?} at {limit} {unit:?}: {pieces:?}");
        // Within the limit, unless a single code point is not.
        assert!(unit.width(&piece.text) <= limit.max(widest), "too long: {}", whose());
        // All of the text, in order, with progress.
        assert_eq!(piece.source.start, at, "{}", whose());
        assert!(piece.source.end > at, "no progress: {}", whose());
        at = piece.source.end;
        // A part is its share of the text, without white space at its end, between lines that open and close a fence.
        let share = &text[piece.source.clone()];
        let held = [piece.text.as_str()]
            .into_iter()
            .chain(
                piece
                    .text
                    .split_once('\n')
                    .filter(|(line, _)| number > 0 && marks(line))
                    .map(|(_, rest)| rest),
            )
            .flat_map(|body| {
                let closed = body.rsplit_once('\n').filter(|(_, line)| marks(line)).map(|(rest, _)| rest);
                let with_line_end = closed.and_then(|rest| body.get(..=rest.len()));
                [Some(body), closed, with_line_end].into_iter().flatten()
            })
            .any(|body| share.strip_prefix(body).is_some_and(is_blank));
        assert!(held, "not its share: {}", whose());
        // A grapheme is split only if it alone is too long.
        if at < text.len() && !is_grapheme_boundary(text, at) {
            let around = grapheme(text, at).unwrap();
            let own = unit.width(&text[around]);
            let room =
                limit.saturating_sub(unit.width(&piece.text) - unit.width(share.trim_end_matches(is_space)));
            assert!(own > room || own > limit / 3, "a grapheme is split: {}", whose());
        }
    }
    assert_eq!(at, text.len(), "{text:?} at {limit} {unit:?}: {pieces:?}");
    fences_hold(text, limit, unit, &pieces);
}

/// A part that begins within a fence opens one, wherever the limit has room for its marks, and no part leaves one open
/// that it opened, but the last if the text does so, too.
fn fences_hold(text: &str, limit: usize, unit: Unit, pieces: &[Piece]) {
    let measured = Measured::new(text, unit);
    let all = fences(&measured);
    for pair in pieces.windows(2) {
        let at = measured.offset(pair[0].source.end);
        let Some(fence) = fence_at(&all, at) else { continue };
        // Its marks, two line ends, and any code point.
        if unit.width(&fence.closing()) * 2 + 2 + 4 > limit {
            continue;
        }
        let opens = pair[1].text.lines().next().and_then(fence_line);
        let opens = opens.is_some_and(|(_, marker, _)| marker == fence.marker);
        assert!(opens, "not opened again in {:?}: {text:?} at {limit} {unit:?}: {pieces:?}", pair[1]);
    }
}

#[test]
fn every_split_is_whole_within_its_limit_and_opens_its_fences_again() {
    let mut random = Random(0x5EED);
    let mut parts = 0;
    let count = cases(20_000);
    for _ in 0..count {
        let text = text(&mut random);
        let limit = match random.below(4) {
            0 => 1 + random.below(8),
            1 => 8 + random.below(32),
            _ => 16 + random.below(200),
        };
        let unit = [Unit::Utf16, Unit::Utf8, Unit::Chars][random.below(3)];
        check(&text, limit, unit);
        parts += split_length(&text, limit, unit).len();
    }
    assert!(parts > 2 * count, "only {parts} parts: the generator has gone wrong");
}

#[test]
fn a_split_by_paragraphs_is_within_its_limit_and_loses_nothing_but_white_space() {
    let mut random = Random(0xF00D);
    let bare =
        |text: &str| text.chars().filter(|&c| !is_space(c) && c != '`' && c != '~').collect::<String>();
    for _ in 0..cases(20_000) {
        let text = text(&mut random);
        // With room for the marks of a fence and its language, and for any code point.
        let limit = 24 + random.below(200);
        let parts = split(&text, limit, Unit::Utf16, Mode::Newline);
        for part in &parts {
            assert!(Unit::Utf16.width(part) <= limit, "{part:?} of {text:?} at {limit}");
            assert!(!part.is_empty(), "{text:?} at {limit}: {parts:?}");
        }
        let joined: String = parts.iter().map(|part| bare(part)).collect();
        // What a fence's language adds where it is opened again stands in the text already.
        assert!(joined.len() >= bare(&text).len(), "{text:?} at {limit}: {parts:?}");
        if !text.contains(['`', '~']) {
            assert_eq!(joined, bare(&text), "{text:?} at {limit}: {parts:?}");
        }
    }
}

#[test]
fn what_is_rendered_is_within_the_limit() {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut random = Random(7);
    for _ in 0..cases(20_000) / 10 {
        let mut text = text(&mut random);
        if random.below(2) == 0 {
            text = text.replace('a', "<&>");
        }
        let limit = 12 + random.below(100);
        for (part, rendered) in split_rendered(&text, limit, Unit::Utf16, Mode::Length, &escape) {
            assert_eq!(rendered, escape(&part));
            assert!(Unit::Utf16.width(&rendered) <= limit, "{rendered:?} of {text:?} at {limit}");
        }
    }
}

#[test]
fn a_fence_is_closed_and_opened_again() {
    let code = "let variable = 1;\n".repeat(10);
    let text = format!("Look:\n```rust\n{code}```\ndone");
    let parts = split(&text, 60, Unit::Utf16, Mode::Length);
    assert_eq!(parts[0], "Look:");
    assert!(parts[1..parts.len() - 1].iter().all(|part| part.starts_with("```rust\n")), "{parts:?}");
    assert!(parts[1..parts.len() - 1].iter().all(|part| part.ends_with("\n```")), "{parts:?}");
    assert!(parts.last().unwrap().ends_with("done"));
}

#[test]
fn the_platforms_unit_counts() {
    assert_eq!(split("😀😀", 2, Unit::Utf16, Mode::Length).len(), 2);
    assert_eq!(split("😀😀", 2, Unit::Chars, Mode::Length).len(), 1);
    assert_eq!(split("ää", 3, Unit::Utf8, Mode::Length), ["ä", "ä"]);
    assert_eq!(split("", 3, Unit::Utf8, Mode::Length), Vec::<String>::new());
}

#[test]
fn paragraphs_are_packed() {
    let parts = split("one\n\ntwo\n\nthree", 8, Unit::Utf16, Mode::Newline);
    assert_eq!(parts, ["one\n\ntwo", "three"]);
}

#[test]
fn a_large_text_takes_a_time_that_grows_with_its_length_alone() {
    let count = |parts: usize| {
        let text = "a line of text (with a remark) and so on\n".repeat(parts);
        split_length(&text, 4000, Unit::Utf16).len()
    };
    // Were it quadratic, four megabytes would take hours.
    assert!(count(100_000) > 1000);
}
