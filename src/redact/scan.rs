//! Where in a text which pattern may begin: one pass for all patterns.
//!
//! Every built-in pattern has a few letters near its beginning that a match cannot do without. They are read off the
//! pattern itself ([`Anchors::of`]): sequences of sets, three to six long. A text is read once for all of them
//! ([`Scanner::scan`]), and a pattern is tried only where one of its own was seen.

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};

use super::regex::{Node, Set};

/// ASCII sets, one for each unit.
pub(super) type Sequence = Vec<u128>;

/// The longest sequence that is looked for; longer ones find no fewer places.
pub(super) const LONGEST: usize = 6;
/// What the scanner tells apart at once.
const SHORTEST: usize = 3;

/// How far before its sequence a match begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// At the sequence.
    Nothing,
    /// `(^|[…])`: a unit, or none at the start of the text.
    Edge,
    /// The same, or an escaped line end, `\\{1,64}[rn]`.
    EscapedEdge,
    /// `\b`, and any number of these.
    Run(Set),
    /// `(^|[…])`, and any number of these.
    EdgeAndRun(Set),
}

/// What a match of a pattern cannot do without.
#[derive(Debug)]
pub(super) struct Anchors {
    pub(super) before: Before,
    pub(super) sequences: Vec<Sequence>,
}

struct Prefix {
    sets: Sequence,
    open: bool,
}

struct Reader {
    longest: usize,
    /// What stood before the sequences in any number.
    run: Option<Set>,
}

impl Anchors {
    /// None where a pattern has no sequence long enough to look for.
    pub(super) fn of(pattern: &Node) -> Option<Self> {
        let nodes = match pattern {
            Node::Cat(nodes) => nodes.as_slice(),
            other => std::slice::from_ref(other),
        };
        let first = nodes.first().and_then(|first| match first {
            Node::Group(first, _) => edge(first),
            first => edge(first),
        });
        let (edge, nodes) = match (first, nodes) {
            (Some(before), [_, rest @ ..]) => (Some(before), rest),
            _ => (None, nodes),
        };
        let mut reader = Reader { longest: LONGEST, run: None };
        let mut prefixes = vec![Prefix { sets: Vec::new(), open: true }];
        for node in nodes {
            prefixes = reader.read(node, prefixes);
        }
        let before = match (edge, reader.run) {
            (None, None) => Before::Nothing,
            (None, Some(run)) => Before::Run(run),
            (Some(Before::Edge), Some(run)) => Before::EdgeAndRun(run),
            (Some(edge), None) => edge,
            (Some(_), Some(_)) => return None,
        };
        let sequences: Vec<_> = prefixes.into_iter().map(|prefix| prefix.sets).collect();
        sequences.iter().all(|sets| sets.len() >= SHORTEST).then_some(Self { before, sequences })
    }

    /// Adds the places where a match may begin for a sequence seen at `at`, in the order of the text. `walk` is kept
    /// from one place of the text to the next: whence the last walk back went, and whereto.
    pub(super) fn starts(&self, text: &[u16], at: usize, walk: &mut (usize, usize), starts: &mut Vec<usize>) {
        let unit = |at: usize| text.get(at).copied();
        let mut run_start = |set: Set| {
            let mut from = at;
            while from > 0 && unit(from - 1).is_some_and(|unit| set.contains(unit)) {
                from -= 1;
                #[cfg(test)]
                super::regex::tests::count(1);
                if from == walk.0 {
                    from = walk.1;
                    break;
                }
            }
            *walk = (at, from);
            from
        };
        match self.before {
            Before::Nothing => starts.push(at),
            Before::Edge => starts.push(at.saturating_sub(1)),
            Before::EscapedEdge => {
                let newline =
                    at > 1 && unit(at - 1).is_some_and(|unit| b"rnRN".iter().any(|r| u16::from(*r) == unit));
                if newline {
                    let back = (1..=64)
                        .take_while(|back| at > *back && unit(at - 1 - back) == Some(u16::from(b'\\')));
                    starts.extend(back.map(|back| at - 1 - back).collect::<Vec<_>>().into_iter().rev());
                }
                starts.push(at.saturating_sub(1));
            }
            Before::Run(set) => starts.push(run_start(set)),
            Before::EdgeAndRun(set) => starts.push(run_start(set).saturating_sub(1)),
        }
    }
}

/// `^|[…]`, with or without the escaped line end.
fn edge(node: &Node) -> Option<Before> {
    let Node::Alt(branches) = node else { return None };
    match branches.as_slice() {
        [Node::Start, Node::Set(_)] => Some(Before::Edge),
        [Node::Start, Node::Set(_), Node::Cat(escaped)] => match escaped.as_slice() {
            [Node::Repeat { min: 1, max: Some(64), .. }, Node::Set(_)] => Some(Before::EscapedEdge),
            _ => None,
        },
        _ => None,
    }
}

impl Reader {
    fn read(&mut self, node: &Node, prefixes: Vec<Prefix>) -> Vec<Prefix> {
        match node {
            Node::Set(set) => prefixes.into_iter().map(|prefix| self.extended(prefix, *set)).collect(),
            Node::Cat(nodes) => nodes.iter().fold(prefixes, |prefixes, node| self.read(node, prefixes)),
            Node::Group(node, _) => self.read(node, prefixes),
            Node::Alt(branches) => {
                let mut all = Vec::new();
                for branch in branches {
                    all.extend(self.read(branch, copies(&prefixes)));
                }
                distinct(all)
            }
            Node::Repeat { node, min, max, .. } => self.repeated(node, *min, *max, prefixes),
            // These take no room.
            Node::Start | Node::End | Node::Word(_) | Node::Ahead(..) | Node::NotBehind(..) => prefixes,
            Node::Reference(_) => prefixes.into_iter().map(closed).collect(),
        }
    }

    fn extended(&self, mut prefix: Prefix, set: Set) -> Prefix {
        if prefix.open && set.wide & !0b1100 == 0 && prefix.sets.len() < self.longest {
            prefix.sets.push(set.ascii);
        } else {
            prefix.open = false;
        }
        prefix
    }

    fn repeated(
        &mut self,
        node: &Node,
        min: usize,
        max: Option<usize>,
        prefixes: Vec<Prefix>,
    ) -> Vec<Prefix> {
        if (min, max) == (0, Some(1)) {
            let mut all = copies(&prefixes);
            all.extend(self.read(node, prefixes));
            return distinct(all);
        }
        if let Node::Set(set) = node
            && max != Some(min)
        {
            // At the beginning: what may stand before in any number is found by walking back.
            let within = |prefix: &Prefix| prefix.sets.iter().all(|ascii| Set::ascii(*ascii).within(*set));
            if prefixes.iter().all(|prefix| prefix.open && prefix.sets.len() <= 1 && within(prefix)) {
                debug_assert!(self.run.is_none_or(|run| run == *set), "two kinds of runs");
                self.run = Some(*set);
                return vec![Prefix { sets: Vec::new(), open: true }];
            }
        }
        let more = (0..min).fold(prefixes, |prefixes, _| self.read(node, prefixes));
        if max == Some(min) { more } else { more.into_iter().map(closed).collect() }
    }
}

fn closed(mut prefix: Prefix) -> Prefix {
    prefix.open = false;
    prefix
}

fn copies(prefixes: &[Prefix]) -> Vec<Prefix> {
    prefixes.iter().map(|prefix| Prefix { sets: prefix.sets.clone(), open: prefix.open }).collect()
}

fn distinct(prefixes: Vec<Prefix>) -> Vec<Prefix> {
    let mut kept: Vec<Prefix> = Vec::new();
    for prefix in prefixes {
        if !kept.iter().any(|other| other.sets == prefix.sets && other.open == prefix.open) {
            kept.push(prefix);
        }
    }
    kept
}

/// Looks for many sequences at once: three tables say of a unit in which buckets it may be the first, second or third
/// unit of a sequence; only where a bucket is left are its sequences compared.
pub(super) struct Scanner {
    tables: [[u64; 256]; SHORTEST],
    buckets: Vec<Vec<(Sequence, usize)>>,
}

/// So many units are made bytes at a time; they stay in the first cache.
const BLOCK: usize = 4096;
/// A unit that no sequence has: DEL.
const NONE: u8 = 127;

/// Sequences and their numbers.
type Numbered = Vec<(Sequence, usize)>;

impl Scanner {
    /// Sequence `n` is reported by that number.
    pub(super) fn new(sequences: &[Sequence]) -> Self {
        // Sequences that begin alike share a bucket.
        let mut by_prefix: Vec<(&[u128], Numbered)> = Vec::new();
        let mut known: HashMap<&[u128], usize> = HashMap::new();
        for (number, sequence) in sequences.iter().enumerate() {
            let prefix = sequence.get(..SHORTEST).unwrap_or_default();
            let index = *known.entry(prefix).or_insert_with(|| {
                by_prefix.push((prefix, Vec::new()));
                by_prefix.len() - 1
            });
            if let Some((_, bucket)) = by_prefix.get_mut(index) {
                bucket.push((sequence.clone(), number));
            }
        }
        by_prefix.sort_by_key(|(prefix, _)| *prefix);
        let per_bucket = by_prefix.len().div_ceil(64).max(1);
        let mut tables = [[0_u64; 256]; SHORTEST];
        let mut buckets = Vec::new();
        for (bit, group) in by_prefix.chunks(per_bucket).enumerate() {
            let mut bucket = Vec::new();
            for (prefix, sequences) in group {
                for (table, set) in tables.iter_mut().zip(*prefix) {
                    for (unit, buckets) in table.iter_mut().enumerate().take(128) {
                        *buckets |= u64::from(set >> unit & 1 == 1) << bit;
                    }
                }
                bucket.extend(sequences.iter().cloned());
            }
            buckets.push(bucket);
        }
        Self { tables, buckets }
    }

    /// Calls `found` with the number and the place of each sequence that begins in the range, in the order of places.
    pub(super) fn scan(
        &self,
        text: &[u16],
        range: Range<usize>,
        mut found: impl FnMut(usize, usize) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut bytes = [0_u8; BLOCK + LONGEST - 1];
        for start in range.clone().step_by(BLOCK) {
            let count = BLOCK.min(range.end - start);
            let end = text.len().min(start + count + LONGEST - 1);
            let units = text.get(start..end).unwrap_or_default();
            let bytes = bytes.get_mut(..units.len()).unwrap_or_default();
            narrow(units, bytes);
            let mut from = 0;
            while let Some((at, mut left)) = self.next(bytes, from, count) {
                let rest = bytes.get(at..).unwrap_or_default();
                while left != 0 {
                    let bucket = left.trailing_zeros() as usize;
                    left &= left - 1;
                    for (sequence, number) in self.buckets.get(bucket).into_iter().flatten() {
                        let fits = sequence.len() <= rest.len();
                        if fits && rest.iter().zip(sequence).all(|(byte, set)| set >> (byte & 127) & 1 == 1) {
                            found(*number, start + at)?;
                        }
                    }
                }
                from = at + 1;
            }
        }
        ControlFlow::Continue(())
    }

    /// The next of the first `count` places where a sequence may begin, and the buckets of those.
    #[inline(never)]
    fn next(&self, bytes: &[u8], from: usize, count: usize) -> Option<(usize, u64)> {
        let [first, second, third] = &self.tables;
        let buckets = |a: u8, b: u8, c: u8| {
            let [a, b, c] = [a, b, c].map(usize::from);
            // The tables are as long as a byte goes.
            let rows = (first.get(a), second.get(b), third.get(c));
            if let (Some(first), Some(second), Some(third)) = rows { first & second & third } else { 0 }
        };
        let mut at = from;
        // Four places at a time while there is nothing.
        for letters in bytes.get(from..)?.windows(SHORTEST + 3).step_by(4) {
            let &[one, two, three, four, five, six] = letters else { continue };
            let first = buckets(one, two, three) | buckets(two, three, four);
            if first | buckets(three, four, five) | buckets(four, five, six) != 0 {
                break;
            }
            at += 4;
        }
        for letters in bytes.get(at..)?.windows(SHORTEST) {
            let &[a, b, c] = letters else { continue };
            let left = buckets(a, b, c);
            if left != 0 {
                return (at < count).then_some((at, left));
            }
            at += 1;
        }
        None
    }
}

/// The ASCII letter that a unit may be taken for.
fn letter(unit: u16) -> u8 {
    match unit {
        0x017F => b's',
        0x212A => b'k',
        _ => u8::try_from(unit).ok().filter(u8::is_ascii).unwrap_or(NONE),
    }
}

fn narrow(units: &[u16], bytes: &mut [u8]) {
    let mut all = 0;
    for (byte, unit) in bytes.iter_mut().zip(units) {
        all |= unit;
        #[allow(clippy::cast_possible_truncation, reason = "below 128")]
        let low = (unit & 127) as u8;
        *byte = if *unit < 128 { low } else { NONE };
    }
    // Few texts have any.
    if all >= 128 {
        for (byte, unit) in bytes.iter_mut().zip(units).filter(|(_, unit)| **unit >= 128) {
            *byte = letter(*unit);
        }
    }
}

#[cfg(test)]
mod tests;
