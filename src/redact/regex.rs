//! The part of ECMAScript's regular expressions that OpenClaw's built-in patterns are written in, run as ECMAScript
//! says (ECMA-262, RegExp): on UTF-16 code units, by backtracking, alternatives in their order.
//!
//! A match is tried at one given place; `scan` says which. No general engine does that on code units, and one that
//! searches by itself reads the text once for each of 120 patterns. In exchange the syntax is only what the patterns
//! use: what else there is fails to compile, and the tests compile them all.
//!
//! Time: a run of one set remembers where it ended and from where it failed, so that one more start inside the same
//! run costs nothing. What is left to try again and again is bounded by a number in the pattern.

use std::iter::Peekable;
use std::str::Chars;

/// No such thing here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unsupported;

type Parsed<T> = std::result::Result<T, Unsupported>;

/// A set of code units: those of ASCII one by one, the others by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Set {
    pub(super) ascii: u128,
    /// One bit for each kind of [`kind`].
    pub(super) wide: u8,
}

const SPACE: u8 = 2;
const LONG_S: u8 = 4;
const KELVIN: u8 = 8;
const LINE_END: u8 = 16;
const ALL_WIDE: u8 = 31;

/// What a code unit outside of ASCII is to the patterns, as a bit.
fn kind(unit: u16) -> u8 {
    match unit {
        0x017F => LONG_S,
        0x212A => KELVIN,
        0x2028 | 0x2029 => LINE_END,
        _ if is_wide_space(unit) => SPACE,
        _ => 1,
    }
}

/// White space of ECMAScript beyond ASCII, without the line ends.
fn is_wide_space(unit: u16) -> bool {
    matches!(unit, 0xA0 | 0x1680 | 0x2000..=0x200A | 0x202F | 0x205F | 0x3000 | 0xFEFF)
}

const fn range(from: u8, to: u8) -> u128 {
    (u128::MAX >> (127 - to)) & (u128::MAX << from)
}

const DIGITS: u128 = range(b'0', b'9');
pub(super) const WORD: u128 = DIGITS | range(b'A', b'Z') | range(b'a', b'z') | 1 << b'_';
const ASCII_SPACE: u128 = range(9, 13) | 1 << b' ';

impl Set {
    const EMPTY: Self = Self { ascii: 0, wide: 0 };
    /// `\s`
    pub(super) const SPACES: Self = Self { ascii: ASCII_SPACE, wide: SPACE | LINE_END };
    const LINE_ENDS: Self = Self { ascii: 1 << b'\n' | 1 << b'\r', wide: LINE_END };

    pub(super) const fn ascii(ascii: u128) -> Self {
        Self { ascii, wide: 0 }
    }

    /// With ſ and K, which are letters of ASCII to a set of these under the flags `iu`.
    pub(super) const fn folded_letters(self) -> Self {
        Self { ascii: self.ascii, wide: self.wide | LONG_S | KELVIN }
    }

    fn of(letter: char) -> Self {
        u8::try_from(letter).map_or(Self::EMPTY, |byte| Self::ascii(1 << (byte & 127)))
    }

    pub(super) fn word(unicode: bool) -> Self {
        Self { ascii: WORD, wide: if unicode { LONG_S | KELVIN } else { 0 } }
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self { ascii: self.ascii | other.ascii, wide: self.wide | other.wide }
    }

    fn not(self) -> Self {
        Self { ascii: !self.ascii, wide: !self.wide & ALL_WIDE }
    }

    pub(super) fn within(self, other: Self) -> bool {
        self.ascii & !other.ascii == 0 && self.wide & !other.wide == 0
    }

    fn is_disjoint(self, other: Self) -> bool {
        self.ascii & other.ascii == 0 && self.wide & other.wide == 0
    }

    /// With each letter its other case. Without `u`, letters outside of ASCII are never equal to letters within;
    /// with it, ſ is an s and K a k.
    fn folded(self, unicode: bool) -> Self {
        let (upper, lower) = (range(b'A', b'Z'), range(b'a', b'z'));
        let mut folded = self;
        folded.ascii |= (self.ascii & upper) << 32 | (self.ascii & lower) >> 32;
        if unicode {
            for (letter, sign) in [(b's', LONG_S), (b'k', KELVIN)] {
                if folded.ascii >> letter & 1 == 1 {
                    folded.wide |= sign;
                }
            }
        }
        folded
    }

    #[inline]
    pub(super) fn contains(self, unit: u16) -> bool {
        if unit < 128 { self.ascii >> unit & 1 == 1 } else { self.wide & kind(unit) != 0 }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Set(Set),
    Cat(Vec<Node>),
    Alt(Vec<Node>),
    Group(Box<Node>, usize),
    Repeat {
        node: Box<Node>,
        min: usize,
        max: Option<usize>,
        greedy: bool,
    },
    Start,
    End,
    Word(bool),
    Ahead(bool, Box<Node>),
    /// `(?<!…)`: a text of given sets and then any number of one set.
    NotBehind(Vec<Set>, Option<Set>),
    Reference(usize),
}

/// A pattern's source and flags as a tree.
pub(super) struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
    ignore_case: bool,
    unicode: bool,
    groups: usize,
}

impl<'a> Parser<'a> {
    /// Of the flags, `i` and `u` count: `g` is how the pattern is used, and no built-in pattern has another.
    pub(super) fn parse(source: &'a str, flags: &str) -> Parsed<(Node, usize)> {
        let mut parser = Self {
            rest: source.chars().peekable(),
            ignore_case: flags.contains('i'),
            unicode: flags.contains('u'),
            groups: 0,
        };
        let node = parser.alternatives()?;
        if parser.rest.next().is_some() {
            return Err(Unsupported);
        }
        Ok((node, parser.groups))
    }

    fn alternatives(&mut self) -> Parsed<Node> {
        let mut branches = vec![self.sequence()?];
        while self.rest.next_if_eq(&'|').is_some() {
            branches.push(self.sequence()?);
        }
        // `(?:.|\n|\r)` is one set.
        if let Some(union) = branches.iter().try_fold(Set::EMPTY, |union, branch| match branch {
            Node::Set(set) => Some(union.or(*set)),
            _ => None,
        }) {
            return Ok(Node::Set(union));
        }
        Ok(match (branches.len(), branches.pop()) {
            (1, Some(only)) => only,
            (_, last) => Node::Alt(branches.into_iter().chain(last).collect()),
        })
    }

    fn sequence(&mut self) -> Parsed<Node> {
        let mut nodes = Vec::new();
        while let Some(&next) = self.rest.peek() {
            if matches!(next, '|' | ')') {
                break;
            }
            let atom = self.atom()?;
            nodes.push(self.quantified(atom)?);
        }
        Ok(match (nodes.len(), nodes.pop()) {
            (1, Some(only)) => only,
            (_, last) => Node::Cat(nodes.into_iter().chain(last).collect()),
        })
    }

    fn quantified(&mut self, atom: Node) -> Parsed<Node> {
        let (min, max) = match self.rest.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => {
                self.rest.next();
                let min = self.number()?;
                let max = if self.rest.next_if_eq(&',').is_none() {
                    Some(min)
                } else if self.rest.peek() == Some(&'}') {
                    None
                } else {
                    Some(self.number()?)
                };
                (min, max)
            }
            _ => return Ok(atom),
        };
        self.rest.next();
        let greedy = self.rest.next_if_eq(&'?').is_none();
        Ok(Node::Repeat { node: Box::new(atom), min, max, greedy })
    }

    fn number(&mut self) -> Parsed<usize> {
        let mut digits = String::new();
        while let Some(digit) = self.rest.next_if(char::is_ascii_digit) {
            digits.push(digit);
        }
        digits.parse().map_err(|_| Unsupported)
    }

    fn fold(&self, set: Set) -> Set {
        if self.ignore_case { set.folded(self.unicode) } else { set }
    }

    fn atom(&mut self) -> Parsed<Node> {
        Ok(match self.rest.next().ok_or(Unsupported)? {
            '^' => Node::Start,
            '$' => Node::End,
            '.' => Node::Set(Set::LINE_ENDS.not()),
            '[' => Node::Set(self.class()?),
            '(' => self.group()?,
            '\\' => match self.rest.next().ok_or(Unsupported)? {
                'b' => Node::Word(self.ignore_case && self.unicode),
                digit @ '1'..='9' => Node::Reference(digit as usize - '0' as usize),
                escape => {
                    let set = self.escape(escape)?;
                    Node::Set(self.fold(set))
                }
            },
            '*' | '+' | '?' | '{' | '}' | ']' => return Err(Unsupported),
            letter if letter.is_ascii() => Node::Set(self.fold(Set::of(letter))),
            _ => return Err(Unsupported),
        })
    }

    fn escape(&mut self, escape: char) -> Parsed<Set> {
        Ok(match escape {
            'd' => Set::ascii(DIGITS),
            's' => Set::SPACES,
            'S' => Set::SPACES.not(),
            'n' => Set::of('\n'),
            'r' => Set::of('\r'),
            't' => Set::of('\t'),
            'x' => {
                let digits: String = self.rest.by_ref().take(2).collect();
                let unit = u8::from_str_radix(&digits, 16).map_err(|_| Unsupported)?;
                if unit.is_ascii() { Set::of(char::from(unit)) } else { return Err(Unsupported) }
            }
            letter if letter.is_ascii_alphanumeric() || !letter.is_ascii() => return Err(Unsupported),
            letter => Set::of(letter),
        })
    }

    fn group(&mut self) -> Parsed<Node> {
        if self.rest.next_if_eq(&'?').is_none() {
            self.groups += 1;
            let number = self.groups;
            let node = self.alternatives()?;
            self.close()?;
            return Ok(Node::Group(Box::new(node), number));
        }
        let node = match (self.rest.next(), self.rest.peek()) {
            (Some(':'), _) => self.alternatives()?,
            (Some('='), _) => Node::Ahead(true, Box::new(self.alternatives()?)),
            (Some('!'), _) => Node::Ahead(false, Box::new(self.alternatives()?)),
            (Some('<'), Some('!')) => {
                self.rest.next();
                behind(self.alternatives()?)?
            }
            _ => return Err(Unsupported),
        };
        self.close()?;
        Ok(node)
    }

    fn close(&mut self) -> Parsed<()> {
        self.rest.next_if_eq(&')').map(drop).ok_or(Unsupported)
    }

    fn class(&mut self) -> Parsed<Set> {
        let negated = self.rest.next_if_eq(&'^').is_some();
        let mut set = Set::EMPTY;
        loop {
            let part = match self.rest.next().ok_or(Unsupported)? {
                ']' => break,
                '\\' => {
                    let escape = self.rest.next().ok_or(Unsupported)?;
                    self.escape(escape)?
                }
                from if from.is_ascii() => self.class_range(from)?,
                _ => return Err(Unsupported),
            };
            set = set.or(part);
        }
        let set = self.fold(set);
        Ok(if negated { set.not() } else { set })
    }

    fn class_range(&mut self, from: char) -> Parsed<Set> {
        let mut ahead = self.rest.clone();
        if ahead.next() != Some('-') || ahead.peek() == Some(&']') {
            return Ok(Set::of(from));
        }
        self.rest.next();
        let to = self.rest.next().filter(char::is_ascii_alphanumeric).ok_or(Unsupported)?;
        let (from, to) = (u8::try_from(from), u8::try_from(to));
        match (from, to) {
            (Ok(from), Ok(to)) if from <= to => Ok(Set::ascii(range(from, to))),
            _ => Err(Unsupported),
        }
    }
}

fn behind(node: Node) -> Parsed<Node> {
    let Node::Cat(mut nodes) = node else { return Err(Unsupported) };
    let run = match nodes.pop() {
        Some(Node::Repeat { node, min: 0, max: None, .. }) => match *node {
            Node::Set(set) => Some(set),
            _ => return Err(Unsupported),
        },
        Some(last) => {
            nodes.push(last);
            None
        }
        None => None,
    };
    let sets = nodes
        .into_iter()
        .map(|node| match node {
            Node::Set(set) => Ok(set),
            _ => Err(Unsupported),
        })
        .collect::<Parsed<Vec<_>>>()?;
    Ok(Node::NotBehind(sets, run))
}

#[derive(Debug)]
enum Op {
    Set(Set),
    /// `exclusive`: what follows cannot begin with one of the set, so that a shorter run is not worth a try.
    Run {
        set: Set,
        min: usize,
        max: usize,
        greedy: bool,
        exclusive: bool,
        slot: usize,
    },
    /// The first, and if that fails, the second.
    Split(usize, usize),
    Jump(usize),
    Save(usize),
    Start,
    End,
    Word(bool),
    /// What follows up to its `Match` is looked at; then it goes on at the place given.
    Ahead(bool, usize),
    NotBehind(Vec<Set>, Option<Set>),
    Reference(usize),
    Match,
}

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Program {
    ops: Vec<Op>,
    runs: usize,
    groups: usize,
    /// A match may depend on what a group holds, so that a failure at one place says nothing of the next start.
    references: bool,
}

impl Program {
    pub(super) fn compile(node: &Node, groups: usize) -> Parsed<Self> {
        let mut program = Self { ops: Vec::new(), runs: 0, groups, references: false };
        program.emit(node)?;
        program.ops.push(Op::Match);
        for at in 0..program.ops.len() {
            let next = program.ops.get(at + 1).and_then(|op| match op {
                Op::Set(set) | Op::Run { set, min: 1.., .. } => Some(*set),
                Op::Match => Some(Set::EMPTY),
                _ => None,
            });
            if let (Some(Op::Run { set, exclusive, .. }), Some(next)) = (program.ops.get_mut(at), next) {
                *exclusive = set.is_disjoint(next);
            }
        }
        Ok(program)
    }

    fn emit(&mut self, node: &Node) -> Parsed<()> {
        match node {
            Node::Set(set) => self.ops.push(Op::Set(*set)),
            Node::Cat(nodes) => nodes.iter().try_for_each(|node| self.emit(node))?,
            Node::Alt(branches) => {
                let mut jumps = Vec::new();
                for (index, branch) in branches.iter().enumerate() {
                    let last = index + 1 == branches.len();
                    let split = self.ops.len();
                    if !last {
                        self.ops.push(Op::Split(split + 1, 0));
                    }
                    self.emit(branch)?;
                    if !last {
                        jumps.push(self.ops.len());
                        self.ops.push(Op::Jump(0));
                        let next = self.ops.len();
                        self.patch(split, next);
                    }
                }
                let end = self.ops.len();
                for jump in jumps {
                    self.patch(jump, end);
                }
            }
            Node::Group(node, number) => {
                self.ops.push(Op::Save(number * 2));
                self.emit(node)?;
                self.ops.push(Op::Save(number * 2 + 1));
            }
            Node::Repeat { node, min, max, greedy } => self.repeat(node, *min, *max, *greedy)?,
            Node::Start => self.ops.push(Op::Start),
            Node::End => self.ops.push(Op::End),
            Node::Word(unicode) => self.ops.push(Op::Word(*unicode)),
            Node::Ahead(wanted, node) => {
                let at = self.ops.len();
                self.ops.push(Op::Ahead(*wanted, 0));
                self.emit(node)?;
                self.ops.push(Op::Match);
                let end = self.ops.len();
                self.patch(at, end);
            }
            Node::NotBehind(sets, run) => self.ops.push(Op::NotBehind(sets.clone(), *run)),
            Node::Reference(number) => {
                self.references = true;
                self.ops.push(Op::Reference(*number));
            }
        }
        Ok(())
    }

    fn repeat(&mut self, node: &Node, min: usize, max: Option<usize>, greedy: bool) -> Parsed<()> {
        if let Node::Set(set) = node {
            let max = max.unwrap_or(usize::MAX);
            if (min, max) == (1, 1) {
                self.ops.push(Op::Set(*set));
            } else {
                self.ops.push(Op::Run { set: *set, min, max, greedy, exclusive: false, slot: self.runs });
                self.runs += 1;
            }
            return Ok(());
        }
        if !greedy || may_be_empty(node) && max != Some(1) {
            return Err(Unsupported);
        }
        for _ in 0..min {
            self.emit(node)?;
        }
        let Some(max) = max else {
            let start = self.ops.len();
            self.ops.push(Op::Split(start + 1, 0));
            self.emit(node)?;
            self.ops.push(Op::Jump(start));
            let end = self.ops.len();
            self.patch(start, end);
            return Ok(());
        };
        let mut splits = Vec::new();
        for _ in min..max {
            splits.push(self.ops.len());
            self.ops.push(Op::Split(self.ops.len() + 1, 0));
            self.emit(node)?;
        }
        let end = self.ops.len();
        for split in splits {
            self.patch(split, end);
        }
        Ok(())
    }

    fn patch(&mut self, at: usize, target: usize) {
        if let Some(Op::Split(_, to) | Op::Jump(to) | Op::Ahead(_, to)) = self.ops.get_mut(at) {
            *to = target;
        }
    }
}

fn may_be_empty(node: &Node) -> bool {
    match node {
        Node::Set(_) => false,
        Node::Cat(nodes) => nodes.iter().all(may_be_empty),
        Node::Alt(branches) => branches.iter().any(may_be_empty),
        Node::Group(node, _) => may_be_empty(node),
        Node::Repeat { node, min, .. } => *min == 0 || may_be_empty(node),
        _ => true,
    }
}

/// What a run of one set has shown in this text.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// From `start` on, the set goes to `end`.
    start: usize,
    end: usize,
    /// A run that ended at `failed.1` failed there and at each shorter length down to `failed.0`.
    failed: Option<(usize, usize)>,
}

enum Frame {
    Branch {
        at: usize,
        position: usize,
    },
    /// A greedy run to `end`: the ends from `least` up to `untried` are still to be tried, the longest first.
    Shorter {
        at: usize,
        least: usize,
        end: usize,
        untried: usize,
    },
    Longer {
        at: usize,
        position: usize,
        left: usize,
    },
    Restore {
        slot: usize,
        old: usize,
    },
}

/// Tries a pattern at places of one text.
pub(super) struct Matcher<'a> {
    program: &'a Program,
    text: &'a [u16],
    seen: Vec<Seen>,
    frames: Vec<Frame>,
    slots: Vec<usize>,
    /// The last walk back of a look-behind that found nothing: from where, and where it stopped.
    walk: (usize, usize),
}

const UNSET: usize = usize::MAX;

impl<'a> Matcher<'a> {
    pub(super) fn new(program: &'a Program, text: &'a [u16]) -> Self {
        Self {
            program,
            text,
            seen: vec![Seen::default(); program.runs],
            frames: Vec::new(),
            slots: vec![UNSET; (program.groups + 1) * 2],
            walk: (UNSET, 0),
        }
    }

    /// The end of the match that begins at `start`, if there is one.
    pub(super) fn at(&mut self, start: usize) -> Option<usize> {
        self.slots.fill(UNSET);
        self.frames.clear();
        self.run(0, start)
    }

    /// What group `number` held in the last match, if it took part.
    pub(super) fn group(&self, number: usize) -> Option<(usize, usize)> {
        let start = *self.slots.get(number * 2)?;
        let end = *self.slots.get(number * 2 + 1)?;
        (start != UNSET && end != UNSET).then_some((start, end))
    }

    pub(super) fn groups(&self) -> usize {
        self.program.groups
    }

    fn unit(&self, at: usize) -> Option<u16> {
        self.text.get(at).copied()
    }

    fn run(&mut self, mut at: usize, mut position: usize) -> Option<usize> {
        let floor = self.frames.len();
        let program = self.program;
        loop {
            #[cfg(test)]
            tests::count(1);
            let went_on = match program.ops.get(at)? {
                Op::Set(set) => self.unit(position).is_some_and(|unit| set.contains(unit)).then(|| {
                    position += 1;
                    at + 1
                }),
                Op::Run { set, min, max, greedy: true, exclusive, slot } => {
                    self.greedy(at, position, *set, (*min, *max), *exclusive, *slot).map(|end| {
                        position = end;
                        at + 1
                    })
                }
                Op::Run { set, min, max, .. } => self.lazy(at, position, *set, *min, *max).map(|end| {
                    position = end;
                    at + 1
                }),
                Op::Split(first, second) => {
                    self.frames.push(Frame::Branch { at: *second, position });
                    Some(*first)
                }
                Op::Jump(to) => Some(*to),
                Op::Save(slot) => {
                    if let Some(held) = self.slots.get_mut(*slot) {
                        self.frames.push(Frame::Restore { slot: *slot, old: *held });
                        *held = position;
                    }
                    Some(at + 1)
                }
                Op::Start => (position == 0).then_some(at + 1),
                Op::End => (position == self.text.len()).then_some(at + 1),
                Op::Word(unicode) => self.is_word_edge(position, *unicode).then_some(at + 1),
                Op::Ahead(wanted, end) => {
                    let found = self.run(at + 1, position).is_some();
                    (found == *wanted).then_some(*end)
                }
                Op::NotBehind(sets, run) => (!self.is_behind(position, sets, *run)).then_some(at + 1),
                Op::Reference(number) => self.again(*number, position).map(|end| {
                    position = end;
                    at + 1
                }),
                Op::Match => {
                    // What a look-ahead left to try is not tried; what its groups held is nobody's concern, as
                    // no look-ahead here has a group.
                    self.frames.truncate(floor);
                    return Some(position);
                }
            };
            (at, position) = match went_on {
                Some(next) => (next, position),
                None => self.back(floor)?,
            };
        }
    }

    fn greedy(
        &mut self,
        at: usize,
        position: usize,
        set: Set,
        (min, max): (usize, usize),
        exclusive: bool,
        slot: usize,
    ) -> Option<usize> {
        let text = self.text;
        let seen = self.seen.get_mut(slot)?;
        let least = position.checked_add(min).filter(|least| *least <= text.len())?;
        let most = position.saturating_add(max).min(text.len());
        let end = if seen.start <= position && position < seen.end {
            seen.end.min(most)
        } else {
            let rest = text.get(position..most)?;
            let length = rest.iter().position(|unit| !set.contains(*unit)).unwrap_or(rest.len());
            #[cfg(test)]
            tests::count(length);
            // A run that its maximum cut short did not show where the set ends.
            if position + length < most || most == text.len() {
                (seen.start, seen.end) = (position, position + length);
            }
            position + length
        };
        if end < least {
            return None;
        }
        if !self.program.references && seen.failed.is_some_and(|(from, to)| to == end && from <= least) {
            return None;
        }
        if end > least && !exclusive {
            self.frames.push(Frame::Shorter { at, least, end, untried: end });
        }
        Some(end)
    }

    fn lazy(&mut self, at: usize, position: usize, set: Set, min: usize, max: usize) -> Option<usize> {
        let end = position.checked_add(min)?;
        let all = self.text.get(position..end)?.iter().all(|unit| set.contains(*unit));
        if all && max > min {
            self.frames.push(Frame::Longer { at, position: end, left: max - min });
        }
        all.then_some(end)
    }

    /// The last choice that is still open.
    fn back(&mut self, floor: usize) -> Option<(usize, usize)> {
        while self.frames.len() > floor {
            match self.frames.pop()? {
                Frame::Branch { at, position } => return Some((at, position)),
                Frame::Restore { slot, old } => {
                    if let Some(held) = self.slots.get_mut(slot) {
                        *held = old;
                    }
                }
                Frame::Shorter { at, least, end, mut untried } => {
                    // Ends after which the next unit does not fit are not worth a try.
                    if let Some(Op::Set(set)) = self.program.ops.get(at + 1) {
                        while untried > least
                            && !self.unit(untried - 1).is_some_and(|unit| set.contains(unit))
                        {
                            untried -= 1;
                            #[cfg(test)]
                            tests::count(1);
                        }
                    }
                    if untried > least {
                        self.frames.push(Frame::Shorter { at, least, end, untried: untried - 1 });
                        return Some((at + 1, untried - 1));
                    }
                    if let Some(Op::Run { slot, .. }) = self.program.ops.get(at)
                        && let Some(seen) = self.seen.get_mut(*slot)
                    {
                        seen.failed = Some((least, end));
                    }
                }
                Frame::Longer { at, position, left } => {
                    let Some(Op::Run { set, .. }) = self.program.ops.get(at) else { continue };
                    if self.unit(position).is_some_and(|unit| set.contains(unit)) {
                        if left > 1 {
                            self.frames.push(Frame::Longer { at, position: position + 1, left: left - 1 });
                        }
                        return Some((at + 1, position + 1));
                    }
                }
            }
        }
        None
    }

    fn is_word(&self, at: Option<usize>, unicode: bool) -> bool {
        at.and_then(|at| self.unit(at)).is_some_and(|unit| Set::word(unicode).contains(unit))
    }

    fn is_word_edge(&self, position: usize, unicode: bool) -> bool {
        self.is_word(position.checked_sub(1), unicode) != self.is_word(Some(position), unicode)
    }

    fn is_behind(&mut self, position: usize, sets: &[Set], run: Option<Set>) -> bool {
        let mut at = position;
        loop {
            let before = at.checked_sub(sets.len()).and_then(|from| self.text.get(from..at));
            if before.is_some_and(|units| units.iter().zip(sets).all(|(unit, set)| set.contains(*unit))) {
                return true;
            }
            let goes_on =
                at > 0 && run.is_some_and(|run| self.unit(at - 1).is_some_and(|unit| run.contains(unit)));
            if !goes_on {
                // From any place between, the walk would have stopped here, and found nothing.
                self.walk = (position, at);
                return false;
            }
            at -= 1;
            #[cfg(test)]
            tests::count(1);
            if at == self.walk.0 {
                self.walk.0 = position;
                return false;
            }
        }
    }

    fn again(&self, number: usize, position: usize) -> Option<usize> {
        // A group that took no part matches nothing, anywhere.
        let Some((from, to)) = self.group(number) else { return Some(position) };
        let end = position + (to - from);
        (self.text.get(from..to)? == self.text.get(position..end)?).then_some(end)
    }
}

#[cfg(test)]
pub(super) mod tests;
