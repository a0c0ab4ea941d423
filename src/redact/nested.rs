//! Which regular expressions of a user OpenClaw refuses: a repetition of what repeats already, and an unbounded one of
//! alternatives of different lengths. Either can take a backtracking engine exponential time.

#[derive(Clone, Copy, Default)]
struct Token {
    repeats: bool,
    ambiguous: bool,
    least: f64,
    most: f64,
}

#[derive(Default)]
struct Frame {
    last: Option<Token>,
    repeats: bool,
    alternates: bool,
    least: f64,
    most: f64,
    alternatives: Option<(f64, f64)>,
}

impl Frame {
    fn alternative(&mut self) {
        self.alternatives = Some(match self.alternatives {
            None => (self.least, self.most),
            Some((least, most)) => (least.min(self.least), most.max(self.most)),
        });
    }

    fn push(&mut self, token: Token) {
        self.last = Some(token);
        self.repeats |= token.repeats;
        self.least += token.least;
        self.most += token.most;
    }
}

const SINGLE: Token = Token { repeats: false, ambiguous: false, least: 1.0, most: 1.0 };

/// OpenClaw's judgement of a source, by a reading that knows escapes, classes, groups and quantifiers and no more.
pub fn has_nested_repetition(source: &[u16]) -> bool {
    let mut frames = vec![Frame::default()];
    let byte = |at: usize| source.get(at).map(|unit| u8::try_from(*unit).unwrap_or(0));
    let mut at = 0;
    while let Some(letter) = byte(at) {
        at += 1;
        let Some(frame) = frames.last_mut() else { return false };
        match letter {
            b'\\' => {
                at += 1;
                frame.push(SINGLE);
            }
            b'[' => {
                frame.push(SINGLE);
                while let Some(letter) = byte(at) {
                    at += 1 + usize::from(letter == b'\\');
                    if letter == b']' {
                        break;
                    }
                }
            }
            b'(' => frames.push(Frame::default()),
            b')' => {
                if frames.len() > 1
                    && let Some(mut group) = frames.pop()
                {
                    if group.alternates {
                        group.alternative();
                    }
                    let (least, most) = group.alternatives.unwrap_or((group.least, group.most));
                    // Both are sums of the same kind: equal or clearly not.
                    #[allow(clippy::float_cmp, reason = "whole numbers or infinite")]
                    let ambiguous = group.alternates && least != most;
                    if let Some(frame) = frames.last_mut() {
                        frame.push(Token { repeats: group.repeats, ambiguous, least, most });
                    }
                }
            }
            b'|' => {
                frame.alternates = true;
                frame.alternative();
                (frame.least, frame.most, frame.last) = (0.0, 0.0, None);
            }
            _ => match quantifier(source, at - 1) {
                None => frame.push(SINGLE),
                Some((length, least, most)) => {
                    at += length - 1;
                    let Some(mut token) = frame.last else { continue };
                    if token.repeats || token.ambiguous && most.is_infinite() {
                        return true;
                    }
                    let (old_least, old_most) = (token.least, token.most);
                    token.least = times(token.least, least);
                    token.most = if most.is_infinite() { most } else { times(token.most, most) };
                    token.repeats = true;
                    frame.repeats = true;
                    frame.least = frame.least - old_least + token.least;
                    let rest = if frame.most.is_finite() && old_most.is_finite() {
                        frame.most - old_most
                    } else {
                        f64::INFINITY
                    };
                    frame.most = rest + token.most;
                    frame.last = Some(token);
                }
            },
        }
    }
    false
}

fn times(length: f64, factor: f64) -> f64 {
    if length.is_finite() {
        length * factor
    } else if factor == 0.0 {
        0.0
    } else {
        f64::INFINITY
    }
}

/// The length of the quantifier at `at`, and the bounds.
fn quantifier(source: &[u16], at: usize) -> Option<(usize, f64, f64)> {
    let is = |at: usize, byte: u8| source.get(at) == Some(&u16::from(byte));
    let lazy = |end: usize| end + usize::from(is(end, b'?'));
    let number = |from: usize| {
        let digits =
            source.get(from..)?.iter().map_while(|unit| char::from_u32(u32::from(*unit))?.to_digit(10));
        let (mut count, mut value) = (0, 0.0);
        for digit in digits {
            count += 1;
            value = value * 10.0 + f64::from(digit);
        }
        (count > 0).then_some((from + count, value))
    };
    for (sign, least, most) in [(b'*', 0.0, f64::INFINITY), (b'+', 1.0, f64::INFINITY), (b'?', 0.0, 1.0)] {
        if is(at, sign) {
            return Some((lazy(at + 1) - at, least, most));
        }
    }
    if !is(at, b'{') {
        return None;
    }
    let (mut end, least) = number(at + 1)?;
    let mut most = least;
    if is(end, b',') {
        (end, most) = number(end + 1).unwrap_or((end + 1, f64::INFINITY));
    }
    (is(end, b'}') && most >= least).then(|| (lazy(end + 1) - at, least, most))
}

#[cfg(test)]
mod tests;
