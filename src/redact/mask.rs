//! What is put in place of a secret: OpenClaw's masks, to the unit.

use super::regex::{Set, WORD};

pub(super) const HIDDEN: &[u16] = &[b'*' as u16; 3];
const ELLIPSIS: u16 = 0x2026;
const PEM_MARK: &str = "…redacted…";
/// Shorter secrets leave nothing to recognise them by.
const SHOWN_FROM: usize = 18;
const SHOWN_AT_START: usize = 6;
const SHOWN_AT_END: usize = 4;

/// How a pattern's matches are masked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// `KEY=$KEY` and `${KEY:-}` name no secret and stay.
    pub keeps_shell_references: bool,
    /// The value may be the first of a form body; the pairs behind it are not part of it.
    pub is_form_aware: bool,
}

fn is(unit: u16, byte: u8) -> bool {
    unit == u16::from(byte)
}

fn is_high(unit: Option<&u16>) -> bool {
    unit.is_some_and(|unit| (0xD800..0xDC00).contains(unit))
}

fn is_low(unit: Option<&u16>) -> bool {
    unit.is_some_and(|unit| (0xDC00..0xE000).contains(unit))
}

fn contains(text: &[u16], part: &str) -> bool {
    let part: Vec<u16> = part.encode_utf16().collect();
    text.windows(part.len()).any(|window| window == part)
}

/// `***`, or for a long one its first six and last four units; half a surrogate pair is not shown.
pub(super) fn token(secret: &[u16]) -> Vec<u16> {
    let length = secret.len();
    if length < SHOWN_FROM {
        return HIDDEN.to_vec();
    }
    let splits = |at: usize| is_high(secret.get(at - 1)) && is_low(secret.get(at));
    let head = if splits(SHOWN_AT_START) { SHOWN_AT_START - 1 } else { SHOWN_AT_START };
    let tail = length - SHOWN_AT_END;
    let tail = if splits(tail) { tail + 1 } else { tail };
    let mut mask = secret.get(..head).unwrap_or_default().to_vec();
    mask.push(ELLIPSIS);
    mask.extend(secret.get(tail..).unwrap_or_default());
    mask
}

fn is_delimiter(unit: u16) -> bool {
    b"\"'`,;)}]".iter().any(|byte| is(unit, *byte))
}

/// The part of a value that is secret, and what follows it: closing quotes, brackets and separators.
/// `start` and `end` are the place of the secret and of its quotes in the value.
pub(super) struct Value<'a> {
    pub(super) secret: &'a [u16],
    pub(super) suffix: &'a [u16],
    pub(super) end: usize,
}

pub(super) fn value(token: &[u16]) -> Value<'_> {
    let part = |from: usize, to: usize| token.get(from..to).unwrap_or_default();
    let delimiters = |from: usize| {
        let tail = part(from, token.len());
        let kept = tail.iter().rposition(|unit| !is_delimiter(*unit)).map_or(0, |last| last + 1);
        // What is nothing but delimiters is the secret itself.
        if kept == 0 { token.len() } else { from + kept }
    };
    let quote = token.first().filter(|unit| b"\"'`".iter().any(|byte| is(**unit, *byte)));
    let Some(quote) = quote else {
        let end = delimiters(0);
        return Value { secret: part(0, end), suffix: part(end, token.len()), end };
    };
    if let Some(close) = token.iter().rposition(|unit| unit == quote).filter(|close| *close > 0)
        && part(close + 1, token.len()).iter().all(|unit| is_delimiter(*unit))
    {
        return Value { secret: part(1, close), suffix: part(close + 1, token.len()), end: close + 1 };
    }
    let end = delimiters(1);
    Value { secret: part(1, end), suffix: part(end, token.len()), end }
}

fn is_key_start(unit: u16) -> bool {
    Set::ascii(WORD & !(0x3FF << b'0')).contains(unit)
}

/// Where `&name=` begins.
fn pair_boundary(text: &[u16]) -> Option<usize> {
    let name = Set::ascii(WORD | 1 << b'.' | 1 << b'-');
    let mut from = 0;
    loop {
        let at = from + text.get(from..)?.iter().position(|unit| is(*unit, b'&'))?;
        let rest = text.get(at + 1..)?;
        let length = rest.iter().take_while(|unit| name.contains(**unit)).count();
        if rest.first().is_some_and(|unit| is_key_start(*unit)) && rest.get(length) == Some(&u16::from(b'='))
        {
            return Some(at);
        }
        from = at + 1;
    }
}

/// What stands in the place of `token` in `matched`, none where it stays.
pub fn captured(matched: &[u16], token: &[u16], manner: Manner) -> Option<Vec<u16>> {
    let (secret, rest) = match pair_boundary(token).filter(|_| manner.is_form_aware) {
        Some(at) => (token.get(..at)?, token.get(at..)?),
        None => (token, Default::default()),
    };
    let value = value(secret);
    if value.secret == HIDDEN {
        return None;
    }
    if manner.keeps_shell_references {
        return (!is_shell_reference(matched, token)).then(|| self::token(token));
    }
    let mut mask = self::token(value.secret);
    mask.extend(value.suffix);
    mask.extend(rest);
    Some(mask)
}

/// A private key keeps its first and last line.
pub fn pem(block: &[u16]) -> Vec<u16> {
    let count = block.split(|unit| is(*unit, b'\n')).count();
    let lines: Vec<_> = block
        .split(|unit| is(*unit, b'\n'))
        .enumerate()
        // Lines end with `\r?\n`: a `\r` at the very end is no part of that.
        .map(|(index, line)| match line.strip_suffix(&[u16::from(b'\r')]) {
            Some(line) if index + 1 < count => line,
            _ => line,
        })
        .filter(|line| !line.is_empty())
        .collect();
    let (Some(first), Some(last)) = (lines.first(), lines.last().filter(|_| lines.len() > 1)) else {
        return HIDDEN.to_vec();
    };
    let mut mask = first.to_vec();
    mask.push(u16::from(b'\n'));
    mask.extend(PEM_MARK.encode_utf16());
    mask.push(u16::from(b'\n'));
    mask.extend(*last);
    mask
}

/// Whether a match is of a private key, whatever pattern found it.
pub fn is_pem(matched: &[u16]) -> bool {
    matched.len() >= 16 && contains(matched, "PRIVATE KEY-----")
}

fn is_shell_reference(matched: &[u16], token: &[u16]) -> bool {
    let operator = |units: &[u16]| matches!(units, [unit] if b"-=?+".iter().any(|byte| is(*unit, *byte)));
    // The tail of `${KEY:-}`, where the pattern took the colon for the assignment.
    if token.strip_suffix(&[u16::from(b'}')]).is_some_and(operator) {
        return true;
    }
    let Some(key) = assigned_name(matched) else { return false };
    let Some(name) = token.strip_prefix(&[u16::from(b'$')]) else { return false };
    if name == key {
        return true;
    }
    let braces = name.strip_prefix(&[u16::from(b'{')]).and_then(|name| name.strip_suffix(&[u16::from(b'}')]));
    braces
        .and_then(|inner| inner.strip_prefix(key))
        .is_some_and(|rest| rest.is_empty() || rest.strip_prefix(&[u16::from(b':')]).is_some_and(operator))
}

/// The first `NAME` in capitals before `=` or `:`.
fn assigned_name(matched: &[u16]) -> Option<&[u16]> {
    let word = Set::word(false);
    let capitals = |unit: u16| word.contains(unit) && !(u16::from(b'a')..=u16::from(b'z')).contains(&unit);
    let mut at = 0;
    while at < matched.len() {
        let rest = matched.get(at..)?;
        let length = rest.iter().take_while(|unit| word.contains(**unit)).count();
        if length == 0 {
            at += 1;
            continue;
        }
        let name = rest.get(..length)?;
        if is_key_start(*name.first()?) && name.iter().all(|unit| capitals(*unit)) {
            let behind = rest.get(length..)?.iter().find(|unit| !Set::SPACES.contains(**unit));
            if behind.is_some_and(|unit| is(*unit, b'=') || is(*unit, b':')) {
                return Some(name);
            }
        }
        at += length;
    }
    None
}

#[cfg(test)]
mod tests;
