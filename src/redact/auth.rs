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

#[derive(Clone, Copy)]
struct Header<'a> {
    text: &'a [u16],
}

/// Where walks through the text ended. One that comes to a place where another was ends as that did, so that however many
/// headers there are, each place is passed once.
struct Walks<T> {
    /// By place: the number of the walk that was there, counted from 1.
    seen: Vec<u32>,
    ends: Vec<T>,
}

impl<T: Copy> Walks<T> {
    const fn new() -> Self {
        Self { seen: Vec::new(), ends: Vec::new() }
    }

    /// How the walk ends, if one was at this place, of so many, before. Else this one has been.
    fn pass(&mut self, place: usize, places: usize) -> Option<T> {
        if self.seen.is_empty() {
            // Zeroed pages cost nothing until they are touched.
            self.seen = vec![0; places];
        }
        let seen = self.seen.get_mut(place)?;
        if *seen == 0 {
            *seen = u32::try_from(self.ends.len() + 1).unwrap_or_default();
            return None;
        }
        self.ends.get(usize::try_from(*seen).ok()?.checked_sub(1)?).copied()
    }

    fn end(&mut self, end: T) -> T {
        self.ends.push(end);
        end
    }
}

/// A header's reader, and what it remembers of the headers before.
struct Parameters<'a> {
    header: Header<'a>,
    /// At the start of what may be a parameter, and within what is none.
    next: [Walks<Option<usize>>; 2],
    fields: Walks<usize>,
    /// Within quotes, single and double.
    strings: [Walks<usize>; 2],
    /// At parameters, of others and of AWS.
    lists: [Walks<usize>; 2],
}

/// Replaces the parameters of each header by `***`.
pub(super) fn redact<'a>(text: &'a [u16], header: &Program, starts: &[usize]) -> Cow<'a, [u16]> {
    let ranges = Parameters::new(text).ranges(header, starts);
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

impl<'a> Header<'a> {
    fn is(&self, at: usize, byte: u8) -> bool {
        #[cfg(test)]
        super::regex::tests::count(1);
        self.text.get(at) == Some(&u16::from(byte))
    }

    fn one_of(&self, at: usize, bytes: &[u8]) -> bool {
        bytes.iter().any(|byte| self.is(at, *byte))
    }

    /// How many of the set follow from `start` on.
    fn count(&self, start: usize, set: Set) -> usize {
        let rest = self.text.get(start..).unwrap_or_default();
        let length = rest.iter().take_while(|unit| set.contains(**unit)).count();
        #[cfg(test)]
        super::regex::tests::count(length);
        length
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

    fn parameter(&self, start: usize) -> Option<(&'a [u16], usize)> {
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

    /// A string whose quotes have `slashes` backslashes before them. Nothing is remembered: strings of one number of
    /// backslashes do not overlap, and a text of n units has at most √2n numbers.
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
}

impl<'a> Parameters<'a> {
    const fn new(text: &'a [u16]) -> Self {
        Self {
            header: Header { text },
            next: [Walks::new(), Walks::new()],
            fields: Walks::new(),
            strings: [Walks::new(), Walks::new()],
            lists: [Walks::new(), Walks::new()],
        }
    }

    fn ranges(&mut self, header: &Program, starts: &[usize]) -> Vec<(usize, usize)> {
        let text = self.header.text;
        let mut matcher = Matcher::new(header, text);
        let mut ranges = Vec::new();
        let mut last = 0;
        for &start in starts {
            if start < last {
                continue;
            }
            let Some(end) = matcher.at(start) else { continue };
            last = end;
            let scheme = matcher.group(2).and_then(|(from, to)| text.get(from..to)).unwrap_or_default();
            if let Some(to) = self.parameters_end(end, scheme) {
                ranges.push((end, to));
            }
        }
        ranges
    }

    /// The end of the parameters that begin at `start`, if there are any.
    fn parameters_end(&mut self, start: usize, scheme: &[u16]) -> Option<usize> {
        let header = self.header;
        let is_aws = prefixed(scheme, "aws4-");
        let direct = header.parameter(start).map(|(_, end)| header.skip_space(end));
        if direct.is_some_and(|equals| header.is(equals, b'=') && !header.is(equals + 1, b'=')) {
            return Some(self.list_of_parameters_end(start, is_aws));
        }
        let takes_parameters = is_aws || equal(scheme, "digest") || equal(scheme, "hawk");
        if !takes_parameters && !header.is(header.skip_space(start), b',') {
            return None;
        }
        let first = self.next_parameter(start)?;
        Some(self.list_of_parameters_end(first, is_aws))
    }

    /// The end of the parameters of which the first begins at `start`.
    fn list_of_parameters_end(&mut self, start: usize, is_aws: bool) -> usize {
        let header = self.header;
        let mut at = start;
        let mut end = start;
        while let Some((name, name_end)) = header.parameter(at) {
            let [others, aws] = &mut self.lists;
            let lists = if is_aws { aws } else { others };
            if let Some(known) = lists.pass(at, header.text.len()) {
                end = known;
                break;
            }
            at = header.skip_space(name_end);
            if !header.is(at, b'=') {
                break;
            }
            at = header.skip_space(at + 1);
            let is_scope = is_aws && equal(name, "credential");
            let Some(value_end) = self.value_end(at, is_scope, equal(name, "signedheaders")) else {
                if let Some(next) = self.next_parameter(at) {
                    at = next;
                    continue;
                }
                end = self.field_end(at);
                break;
            };
            end = value_end;
            let separator = header.skip_space(value_end);
            if header.is(separator, b',') {
                match self.next_parameter(separator + 1) {
                    Some(next) => at = next,
                    None => break,
                }
                continue;
            }
            if separator < header.text.len() && !header.one_of(separator, b"\r\n;\\\"'}]") {
                if let Some(next) = self.next_parameter(separator) {
                    at = next;
                    continue;
                }
                end = self.field_end(separator);
            }
            break;
        }
        let [others, aws] = &mut self.lists;
        if is_aws { aws.end(end) } else { others.end(end) }
    }

    /// Where the next parameter begins, if one does before the header's end.
    fn next_parameter(&mut self, start: usize) -> Option<usize> {
        let found = self.find_parameter(start);
        for walks in &mut self.next {
            walks.end(found);
        }
        found
    }

    fn find_parameter(&mut self, start: usize) -> Option<usize> {
        let header = self.header;
        let length = header.text.len();
        let [outside, within] = &mut self.next;
        let mut at = start;
        loop {
            at = header.skip_space(at);
            // A header's name is not looked for at the start, so that is a place of its own.
            if at > start {
                if let Some(known) = outside.pass(at, length) {
                    return known;
                }
                if header.is_header(at) {
                    return None;
                }
            }
            if at >= length || header.one_of(at, b"\r\n;") {
                return None;
            }
            if header.is(at, b',') {
                at += 1;
                continue;
            }
            if let Some((_, end)) = header.parameter(at) {
                let equals = header.skip_space(end);
                if header.is(equals, b'=') && !header.is(equals + 1, b'=') {
                    return Some(at);
                }
            }
            while at < length {
                let end = header.skip_space(at);
                if end > at {
                    at = end;
                    continue;
                }
                if at > start {
                    if let Some(known) = within.pass(at, length) {
                        return known;
                    }
                    if header.is_header(at) {
                        return None;
                    }
                }
                if header.one_of(at, b"\r\n;") {
                    return None;
                }
                at += 1;
                if header.is(at - 1, b',') {
                    break;
                }
            }
        }
    }

    fn field_end(&mut self, start: usize) -> usize {
        let header = self.header;
        let mut at = start;
        while at < header.text.len() {
            let end = header.skip_space(at);
            if end > at {
                at = end;
                continue;
            }
            if at > start {
                if let Some(known) = self.fields.pass(at, header.text.len()) {
                    at = known;
                    break;
                }
                if header.is_header(at) {
                    break;
                }
            }
            if header.one_of(at, b"\r\n;\\\"'}]") {
                break;
            }
            at += 1;
        }
        self.fields.end(at)
    }

    fn value_end(&mut self, start: usize, is_scope: bool, is_list: bool) -> Option<usize> {
        let header = self.header;
        let slashes = header.count(start, Set::ascii(1 << b'\\'));
        if slashes > 0 && header.is(start + slashes, b'"') {
            return header.escaped_string_end(start, slashes);
        }
        if header.one_of(start, b"\"'") {
            return self.string_end(start);
        }
        if is_list {
            return header.list_end(start);
        }
        let length = header.count(start, if is_scope { SCOPE } else { TOKEN });
        (length > 0).then_some(start + length)
    }

    fn string_end(&mut self, start: usize) -> Option<usize> {
        let header = self.header;
        let quote = header.text.get(start)?;
        let [single, double] = &mut self.strings;
        let strings = if *quote == u16::from(b'"') { double } else { single };
        let mut at = start + 1;
        while let Some(unit) = header.text.get(at) {
            if let Some(known) = strings.pass(at, header.text.len()) {
                at = known;
                break;
            }
            if header.one_of(at, b"\r\n") {
                let end = header.skip_space(at);
                if end == at {
                    break;
                }
                at = end;
            } else if header.is(at, b'\\') && at + 1 < header.text.len() {
                at += 2;
            } else {
                at += 1;
                if unit == quote {
                    break;
                }
            }
        }
        strings.end(at);
        (at > start + 1).then_some(at)
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

#[cfg(test)]
mod tests;
