//! The built-in patterns: as they are written in OpenClaw, compiled, and applied one after the other.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use super::mask::{self, Manner};
use super::regex::{Matcher, Parser, Program};
use super::scan::{Anchors, Scanner, Sequence};
use super::{auth, aws, form, pem};

/// Each line: `s` (keeps shell references), `f` (aware of form bodies), `w` (never applied to a part of a text); a
/// tab; the source as OpenClaw has it, which for `/…/g` minds case. In OpenClaw's order.
const SOURCES: &str = include_str!("patterns.txt");
/// OpenClaw's regular expression for `Authorization` headers with parameters; flags `iu`.
const AUTH_HEADER: &str = include_str!("auth-header.txt");
/// The line that OpenClaw leaves to a scanner of its own ([`super::pem`]).
const PEM: &str = "-----BEGIN ";

/// Sources that begin with one of these look back further than a piece goes.
const SAFE_BOUNDARIES: [&str; 2] = [r"(^|[^A-Za-z0-9])(?<!;base64,[A-Za-z0-9+/=]*)", "(^|[^A-Za-z0-9_])"];

/// Longer texts are cut into pieces for the patterns that bear it.
const LONGEST_WHOLE: usize = 32_768;
const PIECE: usize = 16_384;

/// A pattern and where to try it.
pub(super) struct Searched {
    pub(super) program: Program,
    anchors: Anchors,
    /// Numbers of its sequences.
    sequences: Vec<usize>,
}

/// Sequences by number; equal ones have one.
#[derive(Default)]
pub(super) struct Numbers(pub(super) Vec<Sequence>);

impl Numbers {
    fn of(&mut self, sequence: &Sequence) -> usize {
        self.0.iter().position(|known| known == sequence).unwrap_or_else(|| {
            self.0.push(sequence.clone());
            self.0.len() - 1
        })
    }
}

impl Searched {
    /// None for what no built-in pattern is; a test compiles them all.
    pub(super) fn new(source: &str, flags: &str, numbers: &mut Numbers) -> Option<Self> {
        let (node, groups) = Parser::parse(source, flags).ok()?;
        let program = Program::compile(&node, groups).ok()?;
        let anchors = Anchors::of(&node)?;
        let sequences = anchors.sequences.iter().map(|sequence| numbers.of(sequence)).collect();
        Some(Self { program, anchors, sequences })
    }

    pub(super) fn has(&self, sequence: usize) -> bool {
        self.sequences.contains(&sequence)
    }

    /// Adds where a match may begin for one of its sequences at `at`.
    pub(super) fn starts_at(&self, text: &[u16], at: usize, starts: &mut Vec<usize>) {
        self.anchors.starts(text, at, starts);
    }

    /// Where in `piece`, which begins at `from` in the text, a match may begin; in order.
    fn starts(&self, seen: &Seen, piece: &[u16], from: usize) -> Vec<usize> {
        let mut starts = Vec::new();
        for sequence in &self.sequences {
            let places = seen.places.get(*sequence).map_or(&[][..], Vec::as_slice);
            let first = places.partition_point(|place| *place < from);
            let places = places.get(first..).unwrap_or_default();
            for place in places.iter().take_while(|place| **place < from + piece.len()) {
                self.anchors.starts(piece, place - from, &mut starts);
            }
        }
        starts.sort_unstable();
        starts.dedup();
        starts
    }
}

/// How a source is treated, whoever gives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Treatment {
    /// How its matches are masked.
    pub manner: Manner,
    /// It sees a long text in one piece.
    pub whole: bool,
    /// A scanner for private keys stands in for it.
    pub is_pem: bool,
}

/// How OpenClaw treats a pattern with this source: a built-in one keeps its ways when a user names it.
pub fn treatment(source: &str) -> Treatment {
    let line = lines().find(|(_, known)| *known == source);
    line.map_or_else(
        || Treatment {
            whole: SAFE_BOUNDARIES.iter().any(|boundary| source.starts_with(boundary)),
            ..Treatment::default()
        },
        |(flags, known)| Treatment {
            manner: Manner {
                keeps_shell_references: flags.contains('s'),
                is_form_aware: flags.contains('f'),
            },
            whole: flags.contains('w'),
            is_pem: known.starts_with(PEM),
        },
    )
}

fn lines() -> impl Iterator<Item = (&'static str, &'static str)> {
    SOURCES.lines().filter_map(|line| line.split_once('\t'))
}

/// The source and flags within `/…/flags`; without slashes, `gi`.
fn literal(source: &str) -> (&str, &str) {
    let inner = source.strip_prefix('/').and_then(|rest| rest.rsplit_once('/'));
    inner.filter(|(_, flags)| *flags == "g").unwrap_or((source, "gi"))
}

enum Step {
    Pattern(Box<Searched>, Treatment),
    PrivateKeys,
}

/// All of them, and one scanner for all.
pub(super) struct Patterns {
    scanner: Scanner,
    sequences: usize,
    header: Searched,
    begin: Searched,
    steps: Vec<Step>,
}

/// The places of each sequence in one text.
pub(super) struct Seen {
    places: Vec<Vec<usize>>,
}

static PATTERNS: LazyLock<Option<Patterns>> = LazyLock::new(Patterns::build);

impl Patterns {
    /// Compiled at first use.
    pub(super) fn get() -> Option<&'static Self> {
        PATTERNS.as_ref()
    }

    fn build() -> Option<Self> {
        let mut all = Numbers::default();
        let header = Searched::new(AUTH_HEADER.trim_end(), "giu", &mut all)?;
        let begin = Searched::new(PEM, "gi", &mut all)?;
        let mut steps = Vec::new();
        for (_, source) in lines() {
            let treatment = treatment(source);
            if treatment.is_pem {
                steps.push(Step::PrivateKeys);
                continue;
            }
            let (source, flags) = literal(source);
            steps.push(Step::Pattern(Box::new(Searched::new(source, flags, &mut all)?), treatment));
        }
        Some(Self { scanner: Scanner::new(&all.0), sequences: all.0.len(), header, begin, steps })
    }

    fn look(&self, text: &[u16]) -> Seen {
        let mut places = vec![Vec::new(); self.sequences];
        let _ = self.scanner.scan(text, |sequence, at| {
            if let Some(places) = places.get_mut(sequence) {
                places.push(at);
            }
            ControlFlow::Continue(())
        });
        Seen { places }
    }

    /// The whole of OpenClaw's redaction by the built-in patterns, whatever its pre-filter says of the text.
    pub(super) fn redact<'a>(&self, text: &'a [u16]) -> Cow<'a, [u16]> {
        let mut seen = self.look(text);
        let mut current = self.redact_headers(text, &seen);
        let mut is_seen = matches!(current, Cow::Borrowed(_));
        for stage in [form::redact_urls, form::redact_bodies] {
            if let Some(changed) = owned(stage(&current)) {
                current = Cow::Owned(changed);
                is_seen = false;
            }
        }
        for step in &self.steps {
            if !is_seen {
                seen = self.look(&current);
                is_seen = true;
            }
            let changed = match step {
                Step::PrivateKeys => {
                    // No block begins without these.
                    let begins = self.begin.sequences.iter().any(|number| seen.has(*number));
                    if begins { redact_private_keys(&current) } else { None }
                }
                Step::Pattern(pattern, treatment) => {
                    if !pattern.sequences.iter().any(|number| seen.has(*number)) {
                        continue;
                    }
                    pattern.redact(&current, &seen, *treatment)
                }
            };
            if let Some(changed) = changed {
                is_seen = changed == *current;
                current = Cow::Owned(changed);
            }
        }
        match owned(redact_keys(&current)) {
            Some(changed) => Cow::Owned(changed),
            None => current,
        }
    }

    /// What comes before the patterns, built-in or not: headers, URLs, bodies.
    pub(super) fn redact_assignments<'a>(&self, text: &'a [u16]) -> Cow<'a, [u16]> {
        let mut current = self.redact_headers(text, &self.look(text));
        for stage in [form::redact_urls, form::redact_bodies] {
            if let Some(changed) = owned(stage(&current)) {
                current = Cow::Owned(changed);
            }
        }
        current
    }

    fn redact_headers<'a>(&self, text: &'a [u16], seen: &Seen) -> Cow<'a, [u16]> {
        auth::redact(text, &self.header.program, &self.header.starts(seen, text, 0))
    }
}

fn owned(text: Cow<'_, [u16]>) -> Option<Vec<u16>> {
    match text {
        Cow::Borrowed(_) => None,
        Cow::Owned(text) => Some(text),
    }
}

impl Seen {
    fn has(&self, sequence: usize) -> bool {
        self.places.get(sequence).is_some_and(|places| !places.is_empty())
    }
}

impl Searched {
    /// None where nothing was replaced.
    fn redact(&self, text: &[u16], seen: &Seen, treatment: Treatment) -> Option<Vec<u16>> {
        let length = if treatment.whole || text.len() <= LONGEST_WHOLE { text.len() } else { PIECE };
        let mut redacted = Vec::new();
        let mut from = 0;
        for (number, piece) in text.chunks(length.max(1)).enumerate() {
            let start = number * length;
            let mut matcher: Option<Matcher<'_>> = None;
            let mut next = 0;
            for at in self.starts(seen, piece, start) {
                if at < next {
                    continue;
                }
                let matcher = matcher.get_or_insert_with(|| Matcher::new(&self.program, piece));
                let Some(end) = matcher.at(at) else { continue };
                next = end;
                let Some((place, mask)) = replacement(piece, (at, end), matcher, treatment.manner) else {
                    continue;
                };
                redacted.extend(text.get(from..start + place.0).unwrap_or_default());
                redacted.extend(mask);
                from = start + place.1;
            }
        }
        if from == 0 {
            return None;
        }
        redacted.extend(text.get(from..).unwrap_or_default());
        Some(redacted)
    }
}

/// What is replaced in a match, and by what.
fn replacement(
    text: &[u16],
    (start, end): (usize, usize),
    matcher: &Matcher<'_>,
    manner: Manner,
) -> Option<((usize, usize), Vec<u16>)> {
    let matched = text.get(start..end)?;
    if mask::is_pem(matched) {
        return Some(((start, end), mask::pem(matched)));
    }
    // The last group that holds something is the secret; without one, the whole match is.
    let groups = (1..=matcher.groups()).rev().filter_map(|number| matcher.group(number));
    let place = groups.into_iter().find(|(from, to)| to > from).unwrap_or((start, end));
    let token = text.get(place.0..place.1)?;
    Some((place, mask::captured(matched, token, manner)?))
}

pub(super) fn redact_private_keys(text: &[u16]) -> Option<Vec<u16>> {
    replaced(text, pem::blocks(text), |block| {
        // A label whose letters are small is found and not taken for a key; then it is one long secret.
        if mask::is_pem(block) {
            Some(mask::pem(block))
        } else {
            mask::captured(block, block, Manner::default())
        }
    })
}

/// AWS keys, which come after all patterns.
pub(super) fn redact_keys(text: &[u16]) -> Cow<'_, [u16]> {
    let keys = replaced(text, aws::keys(text), |key| mask::captured(key, key, Manner::default()));
    keys.map_or(Cow::Borrowed(text), Cow::Owned)
}

fn replaced(
    text: &[u16],
    places: Vec<(usize, usize)>,
    mask: impl Fn(&[u16]) -> Option<Vec<u16>>,
) -> Option<Vec<u16>> {
    let mut redacted = Vec::new();
    let mut from = 0;
    for (start, end) in places {
        let Some(mask) = text.get(start..end).and_then(&mask) else { continue };
        redacted.extend(text.get(from..start).unwrap_or_default());
        redacted.extend(mask);
        from = end;
    }
    if from == 0 {
        return None;
    }
    redacted.extend(text.get(from..).unwrap_or_default());
    Some(redacted)
}

#[cfg(test)]
mod tests;
