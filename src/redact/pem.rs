//! Blocks of private keys, found by OpenClaw's scanner, not by a regular expression.

enum Phase {
    Search,
    Keyword { begin: bool, matched: usize },
    Label,
    Close,
}

/// The next `-----BEGIN … PRIVATE KEY-----` or `-----END …`; letters of either case.
struct Delimiters<'a> {
    text: &'a [u16],
    at: usize,
    phase: Phase,
    dashes: usize,
    begin: bool,
    start: usize,
    /// The last eleven units of the label.
    label: [u8; 11],
}

const LABEL: &[u8; 11] = b"PRIVATE KEY";

struct Delimiter {
    begin: bool,
    start: usize,
    end: usize,
}

impl Iterator for Delimiters<'_> {
    type Item = Delimiter;

    fn next(&mut self) -> Option<Delimiter> {
        while let Some(&unit) = self.text.get(self.at) {
            #[cfg(test)]
            super::regex::tests::count(1);
            let at = self.at;
            self.at += 1;
            let letter =
                u8::try_from(unit).ok().filter(u8::is_ascii).map_or(0, |byte| byte.to_ascii_uppercase());
            match self.phase {
                Phase::Search => match letter {
                    b'-' => self.dashes = (self.dashes + 1).min(5),
                    b'B' | b'E' if self.dashes == 5 => {
                        self.begin = letter == b'B';
                        self.phase = Phase::Keyword { begin: self.begin, matched: 1 };
                        self.start = at - 5;
                    }
                    _ => self.dashes = 0,
                },
                Phase::Keyword { begin, matched } => {
                    let keyword: &[u8] = if begin { b"BEGIN " } else { b"END " };
                    if keyword.get(matched) != Some(&letter) {
                        self.reset(letter);
                    } else if matched + 1 == keyword.len() {
                        self.phase = Phase::Label;
                        self.label = [0; 11];
                    } else {
                        self.phase = Phase::Keyword { begin, matched: matched + 1 };
                    }
                }
                Phase::Label => match letter {
                    b'A'..=b'Z' | b' ' => {
                        self.label.rotate_left(1);
                        if let Some(last) = self.label.last_mut() {
                            *last = letter;
                        }
                    }
                    b'-' if self.label == *LABEL => {
                        self.phase = Phase::Close;
                        self.dashes = 1;
                    }
                    _ => self.reset(letter),
                },
                Phase::Close => {
                    if letter != b'-' {
                        self.reset(letter);
                        continue;
                    }
                    self.dashes += 1;
                    if self.dashes == 5 {
                        self.phase = Phase::Search;
                        return Some(Delimiter { begin: self.begin, start: self.start, end: at + 1 });
                    }
                }
            }
        }
        None
    }
}

impl Delimiters<'_> {
    fn reset(&mut self, letter: u8) {
        self.phase = Phase::Search;
        self.dashes = usize::from(letter == b'-');
    }
}

/// The blocks, each from its first dash to its last.
pub(super) fn blocks(text: &[u16]) -> Vec<(usize, usize)> {
    let delimiters =
        Delimiters { text, at: 0, phase: Phase::Search, dashes: 0, begin: false, start: 0, label: [0; 11] };
    let mut blocks = Vec::new();
    let mut open: Option<(usize, usize)> = None;
    let mut last_end = 0;
    for delimiter in delimiters {
        match open {
            None if delimiter.begin && delimiter.start >= last_end => {
                open = Some((delimiter.start, delimiter.end));
            }
            Some((start, end)) if !delimiter.begin && delimiter.start > end => {
                blocks.push((start, delimiter.end));
                last_end = delimiter.end;
                open = None;
            }
            _ => {}
        }
    }
    blocks
}
