//! Lines of a text file, with bounded memory whatever a line's length.

use std::io::{self, BufRead};

/// One line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// 1-based.
    pub(super) number: u64,
    /// The bytes, or how many there are if they are too many to keep.
    pub(super) content: Result<&'a [u8], u64>,
    /// Whether a line feed stands behind it; only the last line may lack one.
    pub(super) ended: bool,
}

/// Reads line by line, keeping at most `limit` bytes of one.
pub(super) struct Lines<R> {
    source: R,
    limit: usize,
    buffer: Vec<u8>,
    number: u64,
    read: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(source: R, limit: usize) -> Self {
        Self { source, limit, buffer: Vec::new(), number: 0, read: 0 }
    }

    /// Bytes read so far.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// The next line; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.buffer.clear();
        // A huge line does not hold its memory for the rest of the file.
        self.buffer.shrink_to(1 << 20);
        let (mut length, mut ended) = (0_u64, false);
        while !ended {
            let chunk = self.source.fill_buf()?;
            if chunk.is_empty() {
                break;
            }
            let end = chunk.iter().position(|&byte| byte == b'\n');
            let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
            length += part.len() as u64;
            if length <= self.limit as u64 {
                self.buffer.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            ended = end.is_some();
            self.source.consume(used);
            self.read += used as u64;
        }
        if length == 0 && !ended {
            return Ok(None);
        }
        self.number += 1;
        let content = if length <= self.limit as u64 { Ok(self.buffer.as_slice()) } else { Err(length) };
        Ok(Some(Line { number: self.number, content, ended }))
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn all(text: &str, limit: usize) -> Vec<(u64, Result<String, u64>, bool)> {
        // A small buffer, so that lines span several.
        let mut lines = Lines::new(BufReader::with_capacity(3, text.as_bytes()), limit);
        let mut found = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            let content = line.content.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
            found.push((line.number, content, line.ended));
        }
        assert_eq!(lines.read(), text.len() as u64);
        found
    }

    #[test]
    fn lines_are_counted_and_the_last_may_be_torn() {
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(all("", 9), []);
        assert_eq!(
            all("a\n\nlonger\nend", 9),
            [(1, ok("a"), true), (2, ok(""), true), (3, ok("longer"), true), (4, ok("end"), false)]
        );
        assert_eq!(all("\n", 9), [(1, ok(""), true)]);
    }

    #[test]
    fn a_line_over_the_limit_is_measured_and_the_next_one_read() {
        let text = format!("{}\nok\n{}", "x".repeat(1000), "y".repeat(5));
        assert_eq!(all(&text, 4), [(1, Err(1000), true), (2, Ok("ok".to_owned()), true), (3, Err(5), false)]);
    }
}
