//! Names and values as in URLs and form bodies: `?token=…`, `a=1&password=…`, and names whose letters are hidden
//! behind percent-encoding, plus signs or characters that nobody sees.

use std::borrow::Cow;

use super::regex::{Set, WORD};
use super::unicode::{decode, is_invisible, is_separator};
use super::{find, mask};

/// Names whose value is secret wherever they stand, as they are after [`normal`].
const SECRET_NAMES: [&str; 29] = [
    "access_token",
    "api_key",
    "apikey",
    "app_secret",
    "auth",
    "auth_token",
    "authorization",
    "client_secret",
    "code",
    "credential",
    "hook_token",
    "id_token",
    "jwt",
    "key",
    "pass",
    "passwd",
    "password",
    "private_key",
    "refresh_token",
    "secret",
    "session",
    "sig",
    "signature",
    "token",
    "x_access_token",
    "x_amz_security_token",
    "x_amz_signature",
    "x_api_key",
    "x_auth_token",
];

/// Names that count too, if decoding once shows them.
const DECODED_ONCE: [&str; 11] = [
    "aws_secret_access_key",
    "awssecretaccesskey",
    "card_cvc",
    "card_cvv",
    "card_number",
    "cvc",
    "cvv",
    "payment_credential",
    "secretaccesskey",
    "security_code",
    "shared_payment_token",
];

/// How often OpenClaw decodes a name.
const DECODINGS: usize = 9;

const LETTERS: Set = Set::ascii(WORD & !(0x3FF << b'0'));
const NAME: Set = Set::ascii(WORD | 1 << b'.' | 1 << b'-');
/// What ends a value in a body.
const BODY_END: Set = Set::ascii(1 << b'&' | 1 << b'<' | 1 << b'>');
const URL_END: Set = Set::ascii(1 << b'&' | 1 << b'<' | 1 << b'>' | 1 << b'#');

const fn unit(byte: u8) -> u16 {
    byte as u16
}

fn is(text: &[u16], at: usize, byte: u8) -> bool {
    #[cfg(test)]
    super::regex::tests::count(1);
    text.get(at) == Some(&unit(byte))
}

fn one_of(found: u16, bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| unit(*byte) == found)
}

/// `%` and two hexadecimal digits: where they end.
fn escape(text: &[u16], at: usize) -> Option<usize> {
    (is(text, at, b'%') && hex(text, at + 1).is_some() && hex(text, at + 2).is_some()).then_some(at + 3)
}

fn hex(text: &[u16], at: usize) -> Option<u8> {
    let digit = char::from_u32(u32::from(*text.get(at)?))?.to_digit(16)?;
    u8::try_from(digit).ok()
}

/// An invisible character or a plus sign: where it ends.
fn hidden(text: &[u16], at: usize) -> Option<usize> {
    #[cfg(test)]
    super::regex::tests::count(1);
    let (code_point, end) = decode(text, at)?;
    (code_point == u32::from(b'+') || is_invisible(code_point)).then_some(end)
}

/// Reads names and values of one text. What one reading found is kept for the next that begins within.
struct Reader<'a> {
    text: &'a [u16],
    /// What a name begins with, and what it is made of.
    letters: Set,
    units: Set,
    hidden: (usize, usize),
    name: (usize, usize),
    value: (usize, usize),
}

impl<'a> Reader<'a> {
    fn new(text: &'a [u16]) -> Self {
        Self { text, letters: LETTERS, units: NAME, hidden: (1, 0), name: (1, 0), value: (1, 0) }
    }

    /// As OpenClaw reads names behind `body:`: its expression for these alone has the flags `iu`.
    fn of_contexts(text: &'a [u16]) -> Self {
        Self { letters: LETTERS.folded_letters(), units: NAME.folded_letters(), ..Self::new(text) }
    }

    /// The `=` behind a name that begins at `at`.
    fn name(&mut self, at: usize) -> Option<usize> {
        let (text, letters, units) = (self.text, self.letters, self.units);
        if !(self.hidden.0 <= at && at <= self.hidden.1) {
            let mut end = at;
            while let Some(next) = hidden(text, end) {
                end = next;
            }
            self.hidden = (at, end);
        }
        let from = self.hidden.1;
        let first = escape(text, from).or_else(|| letters.contains(*text.get(from)?).then_some(from + 1))?;
        if !(self.name.0 <= first && first <= self.name.1) {
            let mut end = first;
            // ASCII first: it is what names are made of.
            while let Some(next) = text.get(end).and_then(|found| {
                #[cfg(test)]
                super::regex::tests::count(1);
                if units.contains(*found) {
                    Some(end + 1)
                } else {
                    escape(text, end).or_else(|| hidden(text, end))
                }
            }) {
                end = next;
            }
            self.name = (first, end);
        }
        is(text, self.name.1, b'=').then_some(self.name.1)
    }

    /// The end of the value that begins at `at`.
    fn value(&mut self, at: usize, ends: Set) -> usize {
        if !(self.value.0 <= at && at <= self.value.1) {
            let rest = self.text.get(at..).unwrap_or_default();
            let length = rest.iter().position(|found| ends.contains(*found) || Set::SPACES.contains(*found));
            let length = length.unwrap_or(rest.len());
            #[cfg(test)]
            super::regex::tests::count(length);
            self.value = (at, at + length);
        }
        self.value.1
    }
}

/// Text that is rewritten from left to right.
struct Rewriting<'a> {
    text: &'a [u16],
    done: Vec<u16>,
    from: usize,
}

impl<'a> Rewriting<'a> {
    fn new(text: &'a [u16]) -> Self {
        Self { text, done: Vec::new(), from: 0 }
    }

    fn replace(&mut self, start: usize, end: usize, with: &[u16]) {
        self.done.extend(self.text.get(self.from..start).unwrap_or_default());
        self.done.extend(with);
        self.from = end;
    }

    fn finish(mut self) -> Cow<'a, [u16]> {
        if self.from == 0 && self.done.is_empty() {
            return Cow::Borrowed(self.text);
        }
        self.done.extend(self.text.get(self.from..).unwrap_or_default());
        Cow::Owned(self.done)
    }
}

/// Runs `next` on what the step before made.
fn then(text: Cow<'_, [u16]>, next: impl FnOnce(&[u16]) -> Cow<'_, [u16]>) -> Cow<'_, [u16]> {
    match next(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(changed) => Cow::Owned(changed),
    }
}

/// Values of parameters behind `?` and `&`.
pub(super) fn redact_urls(text: &[u16]) -> Cow<'_, [u16]> {
    if !text.contains(&unit(b'?')) {
        return Cow::Borrowed(text);
    }
    let mut reader = Reader::new(text);
    let mut rewriting = Rewriting::new(text);
    let mut at = 0;
    while let Some(found) = text.get(at) {
        at += 1;
        if !one_of(*found, b"?&") {
            continue;
        }
        let Some(equals) = reader.name(at) else { continue };
        let end = reader.value(equals + 1, URL_END);
        visit(text, (at, equals), end, |start, end, secret| {
            rewriting.replace(start, end, &mask::token(secret));
        });
        at = end;
    }
    rewriting.finish()
}

/// Calls `hide` with the place of the value's secret part, if the name says that it is secret.
fn visit(text: &[u16], (start, equals): (usize, usize), end: usize, hide: impl FnOnce(usize, usize, &[u16])) {
    let (Some(name), Some(value)) = (text.get(start..equals), text.get(equals + 1..end)) else { return };
    if is_secret_name(name) {
        let value = mask::value(value);
        hide(equals + 1, equals + 1 + value.end, value.secret);
    }
}

/// Names and values in bodies, line by line.
pub(super) fn redact_bodies(text: &[u16]) -> Cow<'_, [u16]> {
    let mut rewriting = Rewriting::new(text);
    let mut at = 0;
    // Without an equals sign there is nothing in a line to find.
    while let Some(equals) = find(text, at, b'=') {
        let before = text.get(at..equals).unwrap_or_default();
        let start = at + before.iter().rposition(|found| one_of(*found, b"\r\n")).map_or(0, |last| last + 1);
        let rest = text.get(equals..).unwrap_or_default();
        let end = rest
            .iter()
            .position(|found| one_of(*found, b"\r\n"))
            .map_or(text.len(), |length| equals + length);
        let line = text.get(start..end).unwrap_or_default();
        if let Cow::Owned(changed) = redact_line(line) {
            rewriting.replace(start, end, &changed);
        }
        at = end;
    }
    rewriting.finish()
}

fn redact_line(line: &[u16]) -> Cow<'_, [u16]> {
    let seen = then(redact_encoded(line), redact_contexts);
    if !seen.contains(&unit(b'&')) {
        return seen;
    }
    if is_body(&seen) {
        return then(seen, redact_pairs);
    }
    then(then(then(seen, redact_bodies_within), redact_encoded), redact_contexts)
}

/// Where a name may begin.
fn is_edge(found: u16) -> bool {
    Set::SPACES.contains(found) || one_of(found, b":({[,=\"'`")
}

/// Pairs whose name is percent-encoded or has hidden characters.
fn redact_encoded(text: &[u16]) -> Cow<'_, [u16]> {
    let may_hide = |found: &u16| {
        *found > 0xA0 || *found < 0x20 || (0x7F..=0xA0).contains(found) || one_of(*found, b"%+")
    };
    if !text.iter().any(may_hide) {
        return Cow::Borrowed(text);
    }
    let mut reader = Reader::new(text);
    let mut rewriting = Rewriting::new(text);
    each_pair(text, &mut reader, b"&", |pair, end| {
        let name = text.get(pair.0..pair.1).unwrap_or_default();
        if (0..name.len()).any(|at| escape(name, at).is_some() || hidden(name, at).is_some()) {
            visit(text, pair, end, |start, end, _| rewriting.replace(start, end, mask::HIDDEN));
        }
        Some(end)
    });
    rewriting.finish()
}

/// Calls `take` with each `name=value` at the start of the text or behind an edge; it says where to go on.
fn each_pair<'a>(
    text: &'a [u16],
    reader: &mut Reader<'a>,
    edges: &[u8],
    mut take: impl FnMut((usize, usize), usize) -> Option<usize>,
) {
    let mut at = 0;
    while at < text.len() {
        let behind = text.get(at).is_some_and(|found| is_edge(*found) || one_of(*found, edges));
        let start = [(at == 0).then_some(0), behind.then_some(at + 1)];
        let next = start.into_iter().flatten().find_map(|start| {
            let equals = reader.name(start)?;
            let end = reader.value(equals + 1, BODY_END);
            take((start, equals), end)
        });
        at = next.unwrap_or(at + 1);
    }
}

/// `body: name=value`, `form_body = "name=value"`
fn redact_contexts(text: &[u16]) -> Cow<'_, [u16]> {
    let mut reader = Reader::of_contexts(text);
    let mut rewriting = Rewriting::new(text);
    let mut at = 0;
    while at < text.len() {
        let Some((start, equals)) = context(text, at).and_then(|start| Some((start, reader.name(start)?)))
        else {
            at += 1;
            continue;
        };
        let end = reader.value(equals + 1, BODY_END);
        visit(text, (start, equals), end, |start, end, _| rewriting.replace(start, end, mask::HIDDEN));
        at = end;
    }
    rewriting.finish()
}

/// Where the name begins, if `body:` or its like begins at `at`.
fn context(text: &[u16], at: usize) -> Option<usize> {
    let word = |at: usize, letters: &str| {
        letters.bytes().enumerate().all(|(index, letter)| {
            text.get(at + index).is_some_and(|found| one_of(*found, &[letter, letter.to_ascii_uppercase()]))
        })
    };
    // The first letter is what most places lack.
    if !one_of(*text.get(at)?, b"bBfF") {
        return None;
    }
    let within_word = at > 0 && text.get(at - 1).is_some_and(|found| Set::word(true).contains(*found));
    if within_word {
        return None;
    }
    let blank = |at: usize| text.get(at).is_some_and(|found| Set::SPACES.contains(*found));
    let behind = if word(at, "body") {
        at + 4
    } else if word(at, "form") {
        let parted = blank(at + 4) || is(text, at + 4, b'-') || is(text, at + 4, b'_');
        [at + 4 + usize::from(parted), at + 4]
            .into_iter()
            .find(|body| word(*body, "body"))
            .map_or(at + 4, |at| at + 4)
    } else {
        return None;
    };
    let skipped = |mut at: usize| {
        while blank(at) {
            at += 1;
        }
        at
    };
    let sign = skipped(behind);
    if !is(text, sign, b':') && !is(text, sign, b'=') {
        return None;
    }
    let start = skipped(sign + 1);
    Some(start + usize::from(text.get(start).is_some_and(|found| one_of(*found, b"\"'`"))))
}

/// `name=value` and one more, with an ampersand between, for as long as they come: where they end.
fn body_end(reader: &mut Reader<'_>, equals: usize) -> Option<usize> {
    let mut end = reader.value(equals + 1, BODY_END);
    let mut more = false;
    while is(reader.text, end, b'&') {
        let Some(equals) = reader.name(end + 1) else { break };
        end = reader.value(equals + 1, BODY_END);
        more = true;
    }
    more.then_some(end)
}

/// Whether the text is a form body of at least two pairs and nothing else.
fn is_body(text: &[u16]) -> bool {
    let mut reader = Reader::new(text);
    let equals = reader.name(0);
    equals.and_then(|equals| body_end(&mut reader, equals)) == Some(text.len())
}

/// The pairs of a body.
fn redact_pairs(text: &[u16]) -> Cow<'_, [u16]> {
    let mut rewriting = Rewriting::new(text);
    let mut start = 0;
    for pair in text.split(|found| *found == unit(b'&')) {
        let end = start + pair.len();
        if let Some(equals) = pair.iter().position(|found| *found == unit(b'=')) {
            visit(text, (start, start + equals), end, |start, end, _| {
                rewriting.replace(start, end, mask::HIDDEN);
            });
        }
        start = end + 1;
    }
    rewriting.finish()
}

/// Bodies inside of other text.
fn redact_bodies_within(text: &[u16]) -> Cow<'_, [u16]> {
    let mut reader = Reader::new(text);
    let mut ends = Reader::new(text);
    let mut rewriting = Rewriting::new(text);
    each_pair(text, &mut reader, b"", |(start, equals), _| {
        let end = body_end(&mut ends, equals)?;
        if let Cow::Owned(changed) = redact_pairs(text.get(start..end)?) {
            rewriting.replace(start, end, &changed);
        }
        Some(end)
    });
    rewriting.finish()
}

/// Whether the name of a parameter or field says that its value is secret.
fn is_secret_name(name: &[u16]) -> bool {
    let mut current = without_separators(name);
    for decoding in 0..DECODINGS {
        let decoded = decode_component(&current).map(|decoded| without_separators(&decoded));
        let once = decoded.as_deref().unwrap_or(&current);
        if decoding == 0 && DECODED_ONCE.contains(&normal(once).as_str()) {
            return true;
        }
        match decoded {
            Some(decoded) if decoded != current => current = decoded,
            Some(_) => return is_known(&current),
            None => break,
        }
    }
    // What cannot be decoded, or not to the end, is taken for secret.
    current.contains(&unit(b'%')) || is_known(&current)
}

fn is_known(name: &[u16]) -> bool {
    let name = normal(name);
    SECRET_NAMES.contains(&name.as_str()) || is_token(&name)
}

/// `token`, `…_token`, and either with sixteen or more hexadecimal digits behind it.
fn is_token(name: &str) -> bool {
    let ends =
        |name: &str| name.strip_suffix("token").is_some_and(|rest| rest.is_empty() || rest.ends_with('_'));
    let scope = |digits: &str| {
        digits.len() >= 16 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    };
    ends(name) || name.rsplit_once('_').is_some_and(|(rest, digits)| scope(digits) && ends(rest))
}

/// In small letters, with `_` for `-`. Letters that no small ASCII letter comes of are all one to the lists.
fn normal(name: &[u16]) -> String {
    let small = name.iter().map(|found| match u8::try_from(*found) {
        Ok(b'-') => '_',
        Ok(byte) if byte.is_ascii() => char::from(byte.to_ascii_lowercase()),
        _ if *found == 0x212A => 'k',
        _ => char::REPLACEMENT_CHARACTER,
    });
    small.collect()
}

fn without_separators(name: &[u16]) -> Vec<u16> {
    let mut kept = Vec::with_capacity(name.len());
    let mut at = 0;
    while let Some((code_point, end)) = decode(name, at) {
        if code_point != u32::from(b'+') && !is_separator(code_point) {
            kept.extend(name.get(at..end).unwrap_or_default());
        }
        at = end;
    }
    kept
}

/// `decodeURIComponent` (ECMA-262): none where it throws.
fn decode_component(text: &[u16]) -> Option<Vec<u16>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(found) = text.get(at) {
        if *found != unit(b'%') {
            decoded.push(*found);
            at += 1;
            continue;
        }
        let byte =
            |at: usize| is(text, at, b'%').then(|| Some(hex(text, at + 1)? << 4 | hex(text, at + 2)?))?;
        let first = byte(at)?;
        let length = match first.leading_ones() {
            0 => 1,
            ones @ 2..=4 => ones as usize,
            _ => return None,
        };
        let bytes = (0..length).map(|index| byte(at + index * 3)).collect::<Option<Vec<_>>>()?;
        decoded.extend(std::str::from_utf8(&bytes).ok()?.encode_utf16());
        at += length * 3;
    }
    Some(decoded)
}

#[cfg(test)]
mod tests;
