//! AWS secret access keys: forty units of base64 that look random, outside of words, data URLs and public URLs.

use super::regex::Set;

const LENGTH: usize = 40;
const DIGITS: u128 = 0x3FF << b'0';
const UPPER: u128 = 0x3FF_FFFF << b'A';
const LOWER: u128 = 0x3FF_FFFF << b'a';
const SIGNS: u128 = 1 << b'/' | 1 << b'+' | 1 << b'=';
const VALUE: Set = Set::ascii(DIGITS | UPPER | LOWER | SIGNS);
/// Letters that no hexadecimal number has.
const BEYOND_HEX: u128 = (UPPER | LOWER) & !(0x3F << b'A') & !(0x3F << b'a') | SIGNS;
/// A key has one of each: capital, small letter, digit or sign, and what no hexadecimal number has.
const KINDS: [Set; 4] =
    [Set::ascii(UPPER), Set::ascii(LOWER), Set::ascii(DIGITS | SIGNS), Set::ascii(BEYOND_HEX)];
const SCHEME: Set = Set::ascii(DIGITS | UPPER | LOWER | 1 << b'+' | 1 << b'.' | 1 << b'-');
const SCHEME_START: Set = Set::ascii(UPPER | LOWER);

/// Whether forty units in a row could be a key.
pub(super) fn could_match(text: &[u16]) -> bool {
    let mut from = 0;
    while let Some(window) = text.get(from..from + LENGTH) {
        // From the back: where one does not fit, none of the windows that hold it do.
        if let Some(last) = window.iter().rposition(|unit| !VALUE.contains(*unit)) {
            from += last + 1;
            continue;
        }
        let rest = text.get(from..).unwrap_or_default();
        let length = rest.iter().position(|unit| !VALUE.contains(*unit)).unwrap_or(rest.len());
        if has_key(rest.get(..length).unwrap_or_default()) {
            return true;
        }
        from += length + 1;
    }
    false
}

/// Whether forty units in a row of this run have all that a key has.
fn has_key(run: &[u16]) -> bool {
    #[cfg(test)]
    super::regex::tests::count(run.len());
    let mut last = [None; KINDS.len()];
    run.iter().enumerate().any(|(at, unit)| {
        for (seen, kind) in last.iter_mut().zip(KINDS) {
            if kind.contains(*unit) {
                *seen = Some(at);
            }
        }
        at + 1 >= LENGTH && last.iter().all(|seen| seen.is_some_and(|seen| seen + LENGTH > at))
    })
}

struct Run {
    start: usize,
    end: usize,
    origin: usize,
    url: Option<usize>,
}

struct Url {
    start: usize,
    end: usize,
    authority_end: Option<usize>,
    port_start: Option<usize>,
    port_is_valid: bool,
    has_at: bool,
    has_query: bool,
    closing: Option<u8>,
    closing_escapes: usize,
}

/// The places of keys.
pub(super) fn keys(text: &[u16]) -> Vec<(usize, usize)> {
    if !could_match(text) {
        return Vec::new();
    }
    let mut scan = Scan { text, urls: Vec::new(), url: None, runs: Vec::new(), keys: Vec::new() };
    scan.run();
    scan.keys
}

struct Scan<'a> {
    text: &'a [u16],
    /// Those of this word; a run knows its own by number.
    urls: Vec<Url>,
    url: Option<usize>,
    runs: Vec<Run>,
    keys: Vec<(usize, usize)>,
}

impl Scan<'_> {
    fn unit(&self, at: usize) -> Option<u16> {
        #[cfg(test)]
        super::regex::tests::count(1);
        self.text.get(at).copied()
    }

    fn is(&self, at: Option<usize>, byte: u8) -> bool {
        at.and_then(|at| self.unit(at)) == Some(u16::from(byte))
    }

    fn run(&mut self) {
        let mut run_start = None;
        let mut scheme_start = None;
        let mut backslashes = 0;
        for at in 0..=self.text.len() {
            let unit = self.unit(at);
            let escapes = backslashes;
            backslashes = if unit == Some(u16::from(b'\\')) { backslashes + 1 } else { 0 };
            if unit.is_some_and(|unit| VALUE.contains(unit)) {
                run_start.get_or_insert(at);
            } else if let Some(origin) = run_start.take() {
                self.end_run(origin, at, unit);
            }
            let Some(unit) = unit.filter(|unit| !Set::SPACES.contains(*unit)) else {
                self.end_word(at);
                scheme_start = None;
                continue;
            };
            self.in_url(at, unit, escapes);
            if SCHEME.contains(unit) {
                scheme_start.get_or_insert(at);
            } else if let Some(start) = scheme_start.take() {
                self.begin_url(at, unit, start);
            }
        }
    }

    fn end_run(&mut self, origin: usize, end: usize, next: Option<u16>) {
        let length = end - origin;
        let slash = end.checked_sub(LENGTH + 1).is_some_and(|at| self.is(Some(at), b'/'));
        let key_of_url = length > LENGTH && next == Some(u16::from(b'@')) && slash;
        if length == LENGTH || key_of_url {
            self.runs.push(Run { start: end - LENGTH, end, origin, url: self.url });
        }
    }

    fn end_word(&mut self, at: usize) {
        if let Some(url) = self.url.and_then(|url| self.urls.get_mut(url)) {
            url.end = url.end.min(at);
        }
        for run in std::mem::take(&mut self.runs) {
            if self.is_key(&run) {
                self.keys.push((run.start, run.end));
            }
        }
        self.urls.clear();
        self.url = None;
    }

    fn is_key(&self, run: &Run) -> bool {
        let before = run.start.checked_sub(1).and_then(|at| self.unit(at));
        let after = self.unit(run.end);
        let underscore = |unit: Option<u16>| unit == Some(u16::from(b'_'));
        let slash = run.start != run.origin;
        if !slash && (underscore(before) || before.is_some_and(|unit| VALUE.contains(unit)))
            || underscore(after)
        {
            return false;
        }
        let base64 = ";base64,".encode_utf16();
        let preceding = run.origin.checked_sub(8).and_then(|from| self.text.get(from..run.origin));
        if preceding.is_some_and(|units| units.iter().copied().eq(base64)) {
            return false;
        }
        if let Some(url) = run.url.and_then(|url| self.urls.get(url)) {
            let public = !url.has_at
                && url.port_is_valid
                && url.port_start.is_none_or(|port| url.authority_end.unwrap_or(url.end) > port + 1);
            let password = url.port_start.is_some_and(|port| run.origin == port + 1)
                && url.authority_end.is_some_and(|end| end > run.origin && run.end > end)
                && after == Some(u16::from(b'@'));
            if public && !password && run.start >= url.start && run.end <= url.end {
                return false;
            }
        }
        self.text.get(run.start..run.end).is_some_and(has_key)
    }

    fn in_url(&mut self, at: usize, unit: u16, escapes: usize) {
        let Some(url) = self.url.and_then(|url| self.urls.get_mut(url)).filter(|url| at >= url.start) else {
            return;
        };
        let byte = u8::try_from(unit).ok();
        if byte.is_some() && byte == url.closing && escapes == url.closing_escapes {
            url.end = url.end.min(at);
            self.url = None;
            return;
        }
        if byte.is_some_and(|byte| b"?#\"'<>`|()[]{}".contains(&byte)) {
            url.end = url.end.min(at);
        }
        url.has_query |= matches!(byte, Some(b'?' | b'#'));
        if url.authority_end.is_none() {
            url.has_at |= byte == Some(b'@');
            if matches!(byte, Some(b'/' | b'?' | b'#')) {
                url.authority_end = Some(at);
            } else if at < url.end {
                if byte == Some(b':') {
                    url.port_is_valid &= url.port_start.is_none();
                    url.port_start = Some(at);
                } else if url.port_start.is_some() && !byte.is_some_and(|byte| byte.is_ascii_digit()) {
                    url.port_is_valid = false;
                }
            }
        }
    }

    fn begin_url(&mut self, at: usize, unit: u16, scheme_start: usize) {
        let free =
            self.url.and_then(|url| self.urls.get(url)).is_none_or(|url| at >= url.end && !url.has_query);
        let slashes = self.is(Some(at + 1), b'/') && self.is(Some(at + 2), b'/');
        let named = self.unit(scheme_start).is_some_and(|unit| SCHEME_START.contains(unit));
        if !free || unit != u16::from(b':') || !slashes || !named {
            return;
        }
        let opening =
            scheme_start.checked_sub(1).and_then(|at| self.unit(at)).and_then(|unit| u8::try_from(unit).ok());
        let before = self.text.get(..scheme_start.saturating_sub(1)).unwrap_or_default();
        let closing_escapes = before.iter().rev().take_while(|unit| **unit == u16::from(b'\\')).count();
        let closing = match opening {
            Some(quote @ (b'"' | b'\'' | b'`')) => Some(quote),
            Some(b'<') => Some(b'>'),
            Some(b'(') => Some(b')'),
            Some(b'[') => Some(b']'),
            Some(b'{') => Some(b'}'),
            _ => None,
        };
        self.url = Some(self.urls.len());
        self.urls.push(Url {
            start: at + 3,
            end: self.text.len(),
            authority_end: None,
            port_start: None,
            port_is_valid: true,
            has_at: false,
            has_query: false,
            closing,
            closing_escapes,
        });
    }
}
