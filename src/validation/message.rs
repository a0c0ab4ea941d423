//! Whether a text may go on as a message: its size, and characters that hide something.
//!
//! Nothing is rewritten and nothing normalised: what a person wrote is what the model reads. A text is UTF-16 here, as
//! JavaScript has it, because half a surrogate pair is one of the things to find, and has no other form.

use std::fmt;

/// What a message may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// UTF-16 code units, JavaScript's `length`.
    pub max_chars: Option<u64>,
    /// Bytes as UTF-8; half a surrogate pair counts three, as U+FFFD, which it would become.
    pub max_bytes: Option<u64>,
    /// Whether control characters may stand in it. Tab, line feed and carriage return always may.
    pub allow_control: bool,
    /// Whether bidirectional controls may stand in it.
    pub allow_bidi: bool,
}

/// What kind of issue it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// More code units than `max_chars`.
    TooLong,
    /// More bytes than `max_bytes`.
    TooManyBytes,
    /// C0 but for tab, line feed and carriage return; DELETE; C1 (U+0080 to U+009F). They move a terminal's cursor,
    /// start its escape sequences, or are not seen.
    Control,
    /// U+202A to U+202E and U+2066 to U+2069: the embeddings, overrides and isolates of UAX #9, which show a text in
    /// another order than it is read in (CVE-2021-42574). The marks U+200E, U+200F and U+061C reorder nothing
    /// by themselves and are allowed.
    Bidi,
    /// Half a surrogate pair.
    LoneSurrogate,
}

impl Kind {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "TOO_LONG",
            Self::TooManyBytes => "TOO_MANY_BYTES",
            Self::Control => "CONTROL",
            Self::Bidi => "BIDI",
            Self::LoneSurrogate => "LONE_SURROGATE",
        }
    }
}

/// What is wrong with a text, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issue {
    /// What kind of issue it is.
    pub kind: Kind,
    /// Where it starts, in UTF-16 code units: for a limit, the first unit that is past it.
    pub offset: u64,
    /// For a character, its code point; for a limit, the limit.
    pub value: u64,
    /// How many of its kind stand in a row.
    pub count: u64,
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, offset, value, count } = self;
        let what = match kind {
            Kind::TooLong => return write!(f, "longer than {value} UTF-16 code units"),
            Kind::TooManyBytes => return write!(f, "more than {value} bytes as UTF-8"),
            Kind::Control => "control character",
            Kind::Bidi => "bidirectional control",
            Kind::LoneSurrogate => "half of a surrogate pair,",
        };
        write!(f, "{what} U+{value:04X} at {offset}")?;
        if *count > 1 { write!(f, ", the first of {count} in a row") } else { Ok(()) }
    }
}

/// No text has more issues than this: whoever sent more had no better one.
pub const MAX_ISSUES: usize = 100;

/// How many units of a text decide: what lies past a limit is not looked at, nor need it be copied.
pub fn relevant(length: u64, limits: &Limits) -> u64 {
    let most = limits.max_chars.unwrap_or(u64::MAX).min(limits.max_bytes.unwrap_or(u64::MAX));
    length.min(most.saturating_add(1))
}

/// What is wrong with a text of `length` units, of which the first [`relevant`] ones are given; in the order of
/// the text, at most [`MAX_ISSUES`].
pub fn check(units: &[u16], length: u64, limits: &Limits) -> Vec<Issue> {
    let cut = (units.len() as u64) < length;
    let mut found = Found { limits, issues: Vec::new(), bytes: 0, passed: false, cut };
    let mut at = 0;
    while let Some(block) = units.get(at..).filter(|rest| !rest.is_empty()) {
        let block = block.get(..BLOCK).unwrap_or(block);
        let (suspect, bytes) = survey(block);
        if !suspect && found.bytes + bytes <= limits.max_bytes.unwrap_or(u64::MAX) {
            found.bytes += bytes;
            at += block.len();
        } else {
            at = found.block(units, at, at + block.len());
        }
    }
    if let Some(most) = limits.max_chars.filter(|&most| length > most) {
        found.add(Issue { kind: Kind::TooLong, offset: most, value: most, count: 1 });
    }
    found.issues.sort_by_key(|issue| issue.offset);
    found.issues
}

/// Small enough that one odd character costs little; large enough for vectors.
const BLOCK: usize = 128;

/// Whether any unit of a block needs a closer look, and its bytes as UTF-8 if none does. Without a branch, so that it
/// compiles to vectors.
#[expect(clippy::needless_bitwise_bool, reason = "a lazy operator is a branch")]
fn survey(block: &[u16]) -> (bool, u64) {
    let mut suspect = 0_u16;
    let mut extra = 0_u16;
    for &unit in block {
        let white = (unit == 9) | (unit == 10) | (unit == 13);
        let control = ((unit < 0x20) & !white) | (unit.wrapping_sub(0x7f) < 0x21);
        let bidi = (unit.wrapping_sub(0x202a) < 5) | (unit.wrapping_sub(0x2066) < 4);
        let surrogate = (unit & 0xf800) == 0xd800;
        suspect |= u16::from(control | bidi | surrogate);
        // At most two for each of a block's units.
        extra += u16::from(unit >= 0x80) + u16::from(unit >= 0x800);
    }
    (suspect != 0, block.len() as u64 + u64::from(extra))
}

struct Found<'a> {
    limits: &'a Limits,
    issues: Vec<Issue>,
    bytes: u64,
    passed: bool,
    /// Whether the text goes on behind the units that were given.
    cut: bool,
}

impl Found<'_> {
    /// Looks at each unit from `at` to `end`; gives where it stopped, which is one further after a pair on the edge.
    fn block(&mut self, units: &[u16], mut at: usize, end: usize) -> usize {
        while let Some(&unit) = units.get(at).filter(|_| at < end) {
            let low = units.get(at + 1).copied();
            let pair = (0xd800..0xdc00).contains(&unit) && low.is_some_and(|low| low & 0xfc00 == 0xdc00);
            self.count(at, if pair { 4 } else { utf8_length(unit) });
            if pair {
                at += 2;
                continue;
            }
            match unit {
                9 | 10 | 13 => {}
                0..0x20 | 0x7f..=0x9f if !self.limits.allow_control => self.odd(Kind::Control, at, unit),
                0x202a..=0x202e | 0x2066..=0x2069 if !self.limits.allow_bidi => {
                    self.odd(Kind::Bidi, at, unit);
                }
                // Its other half may be what was cut off.
                0xd800..0xdc00 if low.is_none() && self.cut => {}
                0xd800..=0xdfff => self.odd(Kind::LoneSurrogate, at, unit),
                _ => {}
            }
            at += 1;
        }
        at
    }

    fn count(&mut self, at: usize, bytes: u64) {
        self.bytes += bytes;
        if let Some(most) = self.limits.max_bytes.filter(|&most| self.bytes > most && !self.passed) {
            self.passed = true;
            self.add(Issue { kind: Kind::TooManyBytes, offset: at as u64, value: most, count: 1 });
        }
    }

    fn odd(&mut self, kind: Kind, at: usize, unit: u16) {
        let at = at as u64;
        if let Some(last) =
            self.issues.last_mut().filter(|last| last.kind == kind && last.offset + last.count == at)
        {
            last.count += 1;
        } else {
            self.add(Issue { kind, offset: at, value: u64::from(unit), count: 1 });
        }
    }

    /// A limit that was passed is always among them.
    fn add(&mut self, issue: Issue) {
        let limit = matches!(issue.kind, Kind::TooLong | Kind::TooManyBytes);
        if limit && self.issues.len() >= MAX_ISSUES {
            self.issues.truncate(MAX_ISSUES - 1);
        }
        if self.issues.len() < MAX_ISSUES {
            self.issues.push(issue);
        }
    }
}

const fn utf8_length(unit: u16) -> u64 {
    match unit {
        0..0x80 => 1,
        0x80..0x800 => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kinds(text: &[u16], limits: Limits) -> Vec<(&'static str, u64, u64)> {
        let length = text.len() as u64;
        let given = usize::try_from(relevant(length, &limits)).unwrap();
        let issues = check(&text[..given], length, &limits);
        issues.iter().map(|issue| (issue.kind.as_str(), issue.offset, issue.count)).collect()
    }

    fn units(text: &str) -> Vec<u16> {
        text.encode_utf16().collect()
    }

    #[test]
    fn ordinary_text_in_any_script_has_no_issue() {
        for text in [
            "",
            "plain\ttext\r\nwith lines",
            "ﬁ ² Å Å ①",
            "שלום\u{200f} עולם \u{061c}سلام\u{200e}",
            "👩‍💻 👨‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
            "नमस्ते \u{200d}\u{200c} 你好\u{3000}\u{feff}",
        ] {
            assert_eq!(kinds(&units(text), Limits::default()), [], "{text}");
        }
    }

    #[test]
    fn control_and_bidirectional_characters_are_found_where_they_stand() {
        let text = units("😀a\0\u{7f}b\u{1b}[2J\u{202e}c\u{2066}\u{2069}\u{85}");
        let found = kinds(&text, Limits::default());
        let expected =
            [("CONTROL", 3, 2), ("CONTROL", 6, 1), ("BIDI", 10, 1), ("BIDI", 12, 2), ("CONTROL", 14, 1)];
        assert_eq!(found, expected);
        assert_eq!(kinds(&text, Limits { allow_control: true, allow_bidi: true, ..Limits::default() }), []);
    }

    #[test]
    fn half_a_pair_is_found_and_a_whole_one_is_not() {
        assert_eq!(kinds(&[0x61, 0xd83d], Limits::default()), [("LONE_SURROGATE", 1, 1)]);
        assert_eq!(kinds(&[0xde00, 0xd83d, 0xde00], Limits::default()), [("LONE_SURROGATE", 0, 1)]);
        assert_eq!(kinds(&[0xd83d, 0xd83d, 0xde00], Limits::default()), [("LONE_SURROGATE", 0, 1)]);
        assert_eq!(kinds(&[0xde00, 0xd83d], Limits::default()), [("LONE_SURROGATE", 0, 2)]);
    }

    #[test]
    fn a_limit_that_cuts_a_pair_in_two_does_not_call_it_broken() {
        let text = units("a😀b");
        let limits = Limits { max_chars: Some(1), ..Limits::default() };
        assert_eq!(kinds(&text, limits), [("TOO_LONG", 1, 1)]);
    }

    #[test]
    fn the_issues_of_a_hostile_text_are_few_and_name_the_limit() {
        let text: Vec<u16> = std::iter::repeat_n([0_u16, 0x61], 10_000).flatten().collect();
        let limits = Limits { max_chars: Some(15_000), max_bytes: Some(12_000), ..Limits::default() };
        let found = kinds(&text, limits);
        assert_eq!(found.len(), MAX_ISSUES);
        assert_eq!(found.last(), Some(&("TOO_LONG", 15_000, 1)));
    }

    #[test]
    fn every_code_unit_is_judged_alike_alone_and_in_a_long_text() {
        for unit in 0..=u16::MAX {
            let alone: Vec<_> = kinds(&[unit], Limits::default()).iter().map(|found| found.0).collect();
            let mut long = vec![0x61; 400];
            long[317] = unit;
            let within: Vec<_> = kinds(&long, Limits::default()).iter().map(|found| found.0).collect();
            assert_eq!(alone, within, "U+{unit:04X}");
            let expected = match unit {
                9 | 10 | 13 => None,
                0..0x20 | 0x7f..=0x9f => Some("CONTROL"),
                0x202a..=0x202e | 0x2066..=0x2069 => Some("BIDI"),
                0xd800..=0xdfff => Some("LONE_SURROGATE"),
                _ => None,
            };
            assert_eq!(alone, expected.into_iter().collect::<Vec<_>>(), "U+{unit:04X}");
        }
    }

    /// One unit at a time, with the standard library's decoder, for the whole text.
    fn reference(text: &[u16], limits: &Limits) -> Vec<(&'static str, u64)> {
        let mut found = Vec::new();
        let (mut at, mut bytes, mut passed) = (0_u64, 0_u64, false);
        for decoded in char::decode_utf16(text.iter().copied()) {
            let (character, kind) = match decoded {
                Ok(character) => (
                    character,
                    match u32::from(character) {
                        9 | 10 | 13 => None,
                        0..0x20 | 0x7f..=0x9f => Some("CONTROL"),
                        0x202a..=0x202e | 0x2066..=0x2069 => Some("BIDI"),
                        _ => None,
                    },
                ),
                Err(_) => ('\u{fffd}', Some("LONE_SURROGATE")),
            };
            bytes += character.len_utf8() as u64;
            if !passed && limits.max_bytes.is_some_and(|most| bytes > most) {
                passed = true;
                found.push(("TOO_MANY_BYTES", at));
            }
            found.extend(kind.map(|kind| (kind, at)));
            at += character.len_utf16() as u64;
        }
        found
    }

    proptest! {
        #[test]
        fn the_fast_pass_finds_what_a_plain_loop_finds(
            parts in prop::collection::vec(
                prop_oneof![
                    8 => prop::collection::vec(0x20_u16..0x7f, 0..200),
                    2 => prop::collection::vec(any::<u16>(), 1..3),
                    1 => prop::sample::select(vec![
                        vec![0xd83d, 0xde00], vec![0x202e], vec![9, 10, 13], vec![0x2066, 0x2069], vec![0xd800], vec![0x9b],
                    ]),
                ],
                0..12,
            ),
            max_bytes in prop::option::of(0_u64..800),
        ) {
            let text: Vec<u16> = parts.concat();
            // Without a cut, so that both see the whole text.
            let limits = Limits { max_bytes, ..Limits::default() };
            let mut found = Vec::new();
            for issue in check(&text, text.len() as u64, &limits) {
                for n in 0..issue.count {
                    found.push((issue.kind.as_str(), issue.offset + n));
                }
            }
            let mut expected = reference(&text, &limits);
            expected.sort_by_key(|found| found.1);
            found.sort_by_key(|found| found.1);
            prop_assert_eq!(found, expected);
        }
    }
}
