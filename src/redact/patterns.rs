//! The built-in patterns: as they are written in OpenClaw, compiled, and applied one after the other.

use std::borrow::Cow;
use std::ops::{ControlFlow, Range};
use std::sync::LazyLock;

use super::mask::{self, Manner};
use super::regex::{Matcher, Parser, Program};
use super::scan::{Anchors, LONGEST, Scanner, Sequence};
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
        self.anchors.starts(text, at, &mut (0, 0), starts);
    }

    /// Where in `piece`, which begins at `from` in the text, a match may begin; in order.
    fn starts(&self, seen: &Seen, piece: &[u16], from: usize) -> Vec<usize> {
        let mut starts = Vec::new();
        for sequence in &self.sequences {
            let places = seen.places.get(*sequence).map_or(&[][..], Vec::as_slice);
            let first = places.partition_point(|place| *place < from);
            let places = places.get(first..).unwrap_or_default();
            let mut walk = (0, 0);
            for place in places.iter().take_while(|place| **place < from + piece.len()) {
                self.anchors.starts(piece, place - from, &mut walk, &mut starts);
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
    #[cfg(test)]
    pub(super) const fn header(&self) -> &Program {
        &self.header.program
    }

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
        let mut seen = Seen { places: vec![Vec::new(); self.sequences] };
        self.look_at(text, 0..text.len(), &mut seen);
        seen
    }

    fn look_at(&self, text: &[u16], range: Range<usize>, seen: &mut Seen) {
        let _ = self.scanner.scan(text, range, |sequence, at| {
            if let Some(places) = seen.places.get_mut(sequence) {
                places.push(at);
            }
            ControlFlow::Continue(())
        });
    }

    /// Brings what was seen up to date with a text in which some places were replaced.
    fn look_again(&self, text: &[u16], edits: &[Edit], seen: &mut Seen) {
        // In the text before and now: where a sequence may have begun that is no more, or begin that was not there.
        let mut windows: Vec<(Range<usize>, Range<usize>)> = Vec::new();
        for Edit { old, new } in edits {
            let reach = LONGEST - 1;
            let (old_start, new_start) = (old.start.saturating_sub(reach), new.start.saturating_sub(reach));
            match windows.last_mut() {
                Some((last_old, last_new)) if old_start <= last_old.end => {
                    (last_old.end, last_new.end) = (old.end, new.end);
                }
                _ => windows.push((old_start..old.end, new_start..new.end)),
            }
        }
        for places in seen.places.iter_mut().filter(|places| !places.is_empty()) {
            let mut windows = windows.iter().peekable();
            let mut shift = (0, 0);
            places.retain_mut(|place| {
                while let Some((old, new)) = windows.next_if(|(old, _)| old.end <= *place) {
                    shift = (old.end, new.end);
                }
                let kept = windows.peek().is_none_or(|(old, _)| *place < old.start);
                *place = *place - shift.0 + shift.1;
                kept
            });
        }
        let mut fresh = Seen { places: vec![Vec::new(); self.sequences] };
        for (_, new) in windows {
            self.look_at(text, new, &mut fresh);
        }
        for (places, more) in seen.places.iter_mut().zip(fresh.places).filter(|(_, more)| !more.is_empty()) {
            places.extend(more);
            places.sort_unstable();
        }
    }

    /// The whole of OpenClaw's redaction by the built-in patterns, whatever its pre-filter says of the text.
    pub(super) fn redact<'a>(&self, text: &'a [u16]) -> Cow<'a, [u16]> {
        let mut seen = self.look(text);
        let mut current = self.redact_headers(text, &seen);
        for stage in [form::redact_urls, form::redact_bodies] {
            if let Some(changed) = owned(stage(&current)) {
                current = Cow::Owned(changed);
            }
        }
        if matches!(current, Cow::Owned(_)) {
            seen = self.look(&current);
        }
        for step in &self.steps {
            let rewritten = match step {
                Step::PrivateKeys if self.begin.is_seen(&seen) => redact_private_keys(&current),
                Step::Pattern(pattern, treatment) if pattern.is_seen(&seen) => {
                    pattern.redact(&current, &seen, *treatment)
                }
                _ => None,
            };
            if let Some(Rewritten { text, edits }) = rewritten {
                self.look_again(&text, &edits, &mut seen);
                current = Cow::Owned(text);
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

/// A place in the text before, and what took it in the text after.
struct Edit {
    old: Range<usize>,
    new: Range<usize>,
}

/// A text with some places replaced.
pub(super) struct Rewritten {
    pub(super) text: Vec<u16>,
    edits: Vec<Edit>,
}

/// Makes one, from left to right.
struct Rewriting<'a> {
    text: &'a [u16],
    done: Rewritten,
    from: usize,
}

impl<'a> Rewriting<'a> {
    fn new(text: &'a [u16]) -> Self {
        Self { text, done: Rewritten { text: Vec::new(), edits: Vec::new() }, from: 0 }
    }

    fn replace(&mut self, old: Range<usize>, with: &[u16]) {
        let done = &mut self.done.text;
        done.extend(self.text.get(self.from..old.start).unwrap_or_default());
        let start = done.len();
        done.extend(with);
        self.from = old.end;
        self.done.edits.push(Edit { old, new: start..start + with.len() });
    }

    /// None where nothing was replaced.
    fn finish(mut self) -> Option<Rewritten> {
        if self.done.edits.is_empty() {
            return None;
        }
        self.done.text.extend(self.text.get(self.from..).unwrap_or_default());
        Some(self.done)
    }
}

impl Searched {
    fn is_seen(&self, seen: &Seen) -> bool {
        let has = |number: &usize| seen.places.get(*number).is_some_and(|places| !places.is_empty());
        self.sequences.iter().any(has)
    }

    /// None where nothing was replaced.
    fn redact(&self, text: &[u16], seen: &Seen, treatment: Treatment) -> Option<Rewritten> {
        let length = if treatment.whole || text.len() <= LONGEST_WHOLE { text.len() } else { PIECE };
        let mut rewriting = Rewriting::new(text);
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
                if let Some((place, mask)) = replacement(piece, (at, end), matcher, treatment.manner) {
                    rewriting.replace(start + place.start..start + place.end, &mask);
                }
            }
        }
        rewriting.finish()
    }
}

/// What is replaced in a match, and by what.
fn replacement(
    text: &[u16],
    (start, end): (usize, usize),
    matcher: &Matcher<'_>,
    manner: Manner,
) -> Option<(Range<usize>, Vec<u16>)> {
    let whole = text.get(start..end)?;
    if mask::is_pem(whole) {
        return Some((start..end, mask::pem(whole)));
    }
    // The last group that holds something is the secret; without one, the whole match is.
    let groups = (1..=matcher.groups()).rev().filter_map(|number| matcher.group(number));
    let place = groups.into_iter().find(|(from, to)| to > from).unwrap_or((start, end));
    let token = text.get(place.0..place.1)?;
    Some((place.0..place.1, mask::captured(whole, token, manner)?))
}

pub(super) fn redact_private_keys(text: &[u16]) -> Option<Rewritten> {
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
    keys.map_or(Cow::Borrowed(text), |keys| Cow::Owned(keys.text))
}

fn replaced(
    text: &[u16],
    places: Vec<(usize, usize)>,
    mask: impl Fn(&[u16]) -> Option<Vec<u16>>,
) -> Option<Rewritten> {
    let mut rewriting = Rewriting::new(text);
    for (start, end) in places {
        if let Some(mask) = text.get(start..end).and_then(&mask) {
            rewriting.replace(start..end, &mask);
        }
    }
    rewriting.finish()
}

#[cfg(test)]
mod tests;
