//! Parameters of `Authorization` headers (RFC 9110, 11.4): `Digest username="…", response="…"`, AWS signatures and
//! their like, in headers as they are sent and as they stand in JSON, quoted and escaped once or more.

use std::borrow::Cow;

use super::mask::HIDDEN;
use super::regex::{Matcher, Program, Set, WORD};

const SIGNS: u128 = 1 << b'!'
    | 1 << b'#'
    | 1 << b'$'
    | 1 << b'%'
    | 1 << b'&'
    | 1 << b'\''
    | 1 << b'*'
    | 1 << b'+'
    | 1 << b'.'
    | 1 << b'^'
    | 1 << b'`'
    | 1 << b'|'
    | 1 << b'~'
    | 1 << b'-';
/// A token of RFC 9110.
const TOKEN: Set = Set::ascii(WORD | SIGNS);
const SCOPE: Set = Set::ascii(WORD | SIGNS | 1 << b'/' | 1 << b':');
/// What an escaped character may have before it.
const MOST_BACKSLASHES: usize = 64;

struct Header<'a> {
    text: &'a [u16],
}

/// Replaces the parameters of each header by `***`.
pub(super) fn redact<'a>(text: &'a [u16], header: &Program, starts: &[usize]) -> Cow<'a, [u16]> {
    let ranges = Header { text }.ranges(header, starts);
    if ranges.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut merged: Vec<(usize, usize)> = Vec::new();
    for (start, end) in ranges {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    let mut redacted = Vec::with_capacity(text.len());
    let mut from = 0;
    for (start, end) in merged {
        redacted.extend(text.get(from..start).unwrap_or_default());
        redacted.extend(HIDDEN);
        from = end;
    }
    redacted.extend(text.get(from..).unwrap_or_default());
    Cow::Owned(redacted)
}

impl Header<'_> {
    fn is(&self, at: usize, byte: u8) -> bool {
        self.text.get(at) == Some(&u16::from(byte))
    }

    fn one_of(&self, at: usize, bytes: &[u8]) -> bool {
        bytes.iter().any(|byte| self.is(at, *byte))
    }

    /// How many of the set follow from `start` on.
    fn count(&self, start: usize, set: Set) -> usize {
        self.text.get(start..).unwrap_or_default().iter().take_while(|unit| set.contains(**unit)).count()
    }

    fn backslashes(&self, start: usize) -> usize {
        (0..MOST_BACKSLASHES).take_while(|back| self.is(start + back, b'\\')).count()
    }

    fn skip_blanks(&self, start: usize) -> usize {
        start + self.count(start, Set::ascii(1 << b' ' | 1 << b'\t'))
    }

    /// Behind `\n` or `\r\n` as an escape.
    fn escaped_line_end(&self, start: usize) -> Option<usize> {
        let slashes = self.backslashes(start);
        let at = start + slashes;
        if slashes == 0 {
            return None;
        }
        if self.is(at, b'n') {
            return Some(at + 1);
        }
        if !self.is(at, b'r') {
            return None;
        }
        let slashes = self.backslashes(at + 1);
        let at = at + 1 + slashes;
        (slashes > 0 && self.is(at, b'n')).then_some(at + 1)
    }

    fn escaped_tab(&self, start: usize) -> Option<usize> {
        let slashes = self.backslashes(start);
        (slashes > 0 && self.is(start + slashes, b't')).then_some(start + slashes + 1)
    }

    /// Over blanks, tabs and folded lines, also as escapes.
    fn skip_space(&self, start: usize) -> usize {
        let mut at = start;
        loop {
            at = self.skip_blanks(at);
            if let Some(end) = self.escaped_tab(at) {
                at = end;
                continue;
            }
            let line_end = if self.is(at, b'\r') && self.is(at + 1, b'\n') {
                Some(at + 2)
            } else if self.is(at, b'\n') {
                Some(at + 1)
            } else {
                self.escaped_line_end(at)
            };
            match line_end {
                Some(end) if self.one_of(end, b" \t") || self.escaped_tab(end).is_some() => at = end,
                _ => return at,
            }
        }
    }

    fn parameter(&self, start: usize) -> Option<(&[u16], usize)> {
        let length = self.count(start, TOKEN);
        (length > 0).then(|| (self.text.get(start..start + length).unwrap_or_default(), start + length))
    }

    fn starts_with(&self, at: usize, name: &str) -> bool {
        name.bytes()
            .enumerate()
            .all(|(index, letter)| self.one_of(at + index, &[letter, letter.to_ascii_uppercase()]))
    }

    /// Whether the next header begins here.
    fn is_header(&self, at: usize) -> bool {
        let before = at.checked_sub(1);
        let escaped = before.is_some_and(|before| {
            self.one_of(before, b"nr") && before.checked_sub(1).is_some_and(|slash| self.is(slash, b'\\'))
        });
        let word = Set::ascii(WORD | 1 << b'-');
        if !escaped
            && before.and_then(|before| self.text.get(before)).is_some_and(|unit| word.contains(*unit))
        {
            return false;
        }
        let name =
            ["proxy-authorization", "authorization"].into_iter().find(|name| self.starts_with(at, name));
        let Some(name) = name else { return false };
        let mut end = at + name.len();
        let slashes = self.backslashes(end);
        end += slashes;
        if self.one_of(end, b"\"'") {
            end += 1;
        } else if slashes > 0 {
            return false;
        }
        self.one_of(self.skip_blanks(end), b":=")
    }

    fn next_parameter(&self, start: usize) -> Option<usize> {
        let mut at = start;
        loop {
            at = self.skip_space(at);
            if at > start && self.is_header(at) {
                return None;
            }
            if at >= self.text.len() || self.one_of(at, b"\r\n;") {
                return None;
            }
            if self.is(at, b',') {
                at += 1;
                continue;
            }
            if let Some((_, end)) = self.parameter(at) {
                let equals = self.skip_space(end);
                if self.is(equals, b'=') && !self.is(equals + 1, b'=') {
                    return Some(at);
                }
            }
            while at < self.text.len() {
                let end = self.skip_space(at);
                if end > at {
                    at = end;
                    continue;
                }
                if at > start && self.is_header(at) {
                    return None;
                }
                if self.one_of(at, b"\r\n;") {
                    return None;
                }
                at += 1;
                if self.is(at - 1, b',') {
                    break;
                }
            }
        }
    }

    fn field_end(&self, start: usize) -> usize {
        let mut at = start;
        while at < self.text.len() {
            let end = self.skip_space(at);
            if end > at {
                at = end;
                continue;
            }
            if at > start && self.is_header(at) || self.one_of(at, b"\r\n;\\\"'}]") {
                break;
            }
            at += 1;
        }
        at
    }

    fn value_end(&self, start: usize, is_scope: bool, is_list: bool) -> Option<usize> {
        let slashes = self.count(start, Set::ascii(1 << b'\\'));
        let escaped = slashes > 0 && self.is(start + slashes, b'"');
        if escaped {
            return self.escaped_string_end(start, slashes);
        }
        if self.one_of(start, b"\"'") {
            return self.string_end(start);
        }
        if is_list {
            return self.list_end(start);
        }
        let length = self.count(start, if is_scope { SCOPE } else { TOKEN });
        (length > 0).then_some(start + length)
    }

    fn string_end(&self, start: usize) -> Option<usize> {
        let quote = self.text.get(start)?;
        let mut at = start + 1;
        while let Some(unit) = self.text.get(at) {
            if self.one_of(at, b"\r\n") {
                let end = self.skip_space(at);
                if end == at {
                    break;
                }
                at = end;
            } else if self.is(at, b'\\') && at + 1 < self.text.len() {
                at += 2;
            } else if unit == quote {
                return Some(at + 1);
            } else {
                at += 1;
            }
        }
        (at > start + 1).then_some(at)
    }

    /// A string whose quotes have `slashes` backslashes before them.
    fn escaped_string_end(&self, start: usize, slashes: usize) -> Option<usize> {
        let mut at = start + slashes + 1;
        while at < self.text.len() {
            if self.one_of(at, b"\r\n") {
                let end = self.skip_space(at);
                if end == at {
                    break;
                }
                at = end;
            } else if self.is(at, b'\\') {
                let count = self.count(at, Set::ascii(1 << b'\\'));
                at += count;
                if self.is(at, b'"') {
                    at += 1;
                    if count % (2 * (slashes + 1)) == slashes {
                        return Some(at);
                    }
                }
            } else {
                at += 1;
            }
        }
        (at > start + 1).then_some(at)
    }

    /// `host;:authority;x-amz-date`
    fn list_end(&self, start: usize) -> Option<usize> {
        let name = |at: usize| {
            let at = at + usize::from(self.is(at, b':'));
            let length = self.count(at, TOKEN);
            (length > 0).then_some(at + length)
        };
        let mut end = name(start)?;
        while self.is(end, b';')
            && let Some(next) = name(end + 1)
        {
            end = next;
        }
        (end == self.text.len() || self.one_of(end, b", \t\r\n")).then_some(end)
    }

    fn ranges(&self, header: &Program, starts: &[usize]) -> Vec<(usize, usize)> {
        let mut matcher = Matcher::new(header, self.text);
        let mut ranges = Vec::new();
        let mut last = 0;
        for &start in starts.iter() {
            if start < last {
                continue;
            }
            let Some(end) = matcher.at(start) else { continue };
            last = end;
            let scheme = matcher.group(2).and_then(|(from, to)| self.text.get(from..to)).unwrap_or_default();
            if let Some(to) = self.parameters_end(end, scheme) {
                ranges.push((end, to));
            }
        }
        ranges
    }

    /// The end of the parameters that begin at `start`, if there are any.
    fn parameters_end(&self, start: usize, scheme: &[u16]) -> Option<usize> {
        let is_aws = prefixed(scheme, "aws4-");
        let mut at = start;
        let mut end = start;
        let direct = self.parameter(at).map(|(_, end)| self.skip_space(end));
        if !direct.is_some_and(|equals| self.is(equals, b'=') && !self.is(equals + 1, b'=')) {
            let takes_parameters = is_aws || equal(scheme, "digest") || equal(scheme, "hawk");
            if !takes_parameters && !self.is(self.skip_space(at), b',') {
                return None;
            }
            at = self.next_parameter(at)?;
        }
        while let Some((name, name_end)) = self.parameter(at) {
            at = self.skip_space(name_end);
            if !self.is(at, b'=') {
                break;
            }
            at = self.skip_space(at + 1);
            let is_scope = is_aws && equal(name, "credential");
            let Some(value_end) = self.value_end(at, is_scope, equal(name, "signedheaders")) else {
                if let Some(next) = self.next_parameter(at) {
                    at = next;
                    continue;
                }
                end = end.max(self.field_end(at));
                break;
            };
            end = value_end;
            let separator = self.skip_space(value_end);
            if self.is(separator, b',') {
                match self.next_parameter(separator + 1) {
                    Some(next) => at = next,
                    None => break,
                }
                continue;
            }
            if separator < self.text.len() && !self.one_of(separator, b"\r\n;\\\"'}]") {
                if let Some(next) = self.next_parameter(separator) {
                    at = next;
                    continue;
                }
                end = end.max(self.field_end(separator));
            }
            break;
        }
        (end > start).then_some(end)
    }
}

/// In small letters; of the letters outside of ASCII, only the Kelvin sign becomes one of them.
fn small(unit: u16) -> u16 {
    match unit {
        0x212A => u16::from(b'k'),
        _ => u8::try_from(unit).map_or(unit, |byte| u16::from(byte.to_ascii_lowercase())),
    }
}

fn prefixed(text: &[u16], prefix: &str) -> bool {
    text.len() >= prefix.len()
        && text.iter().zip(prefix.encode_utf16()).all(|(unit, letter)| small(*unit) == letter)
}

fn equal(text: &[u16], name: &str) -> bool {
    text.len() == name.len() && prefixed(text, name)
}
