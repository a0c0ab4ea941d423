//! The framing of streams: server-sent events, and one JSON text a line.
//!
//! Both parsers work on bytes, in whatever pieces they come, and hand each event on as slices that are valid during the
//! call. A line that lies within one piece is not copied; one that does not is gathered once. Nothing is decoded here:
//! UTF-8 that is cut by a piece is whole again in its event.

use memchr::{memchr, memchr2};

use super::api::Framing;
use crate::{Code, CoreError, Result};

/// The most bytes of a line and of an event's data, unless the caller says otherwise.
pub const LINE_BYTES: usize = 16 << 20;

/// What an event is handed to: its name and its data. False ends the parsing; what is left of the piece is dropped.
pub type Sink<'s> = dyn FnMut(&[u8], &[u8]) -> Result<bool> + 's;

/// Divides a stream into events.
#[derive(Debug)]
pub struct Parser {
    framing: Framing,
    most: usize,
    /// Bytes at the start that may yet be a byte order mark; none once that is decided.
    mark: Option<usize>,
    /// The last piece ended with CR: an LF that follows belongs to it.
    after_cr: bool,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// The event so far.
    name: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    ended: bool,
}

const MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];

impl Parser {
    /// A parser that refuses lines and events of more than `most` bytes.
    pub fn new(framing: Framing, most: usize) -> Self {
        Self {
            framing,
            most,
            mark: Some(0),
            after_cr: false,
            line: Vec::new(),
            name: Vec::new(),
            data: Vec::new(),
            has_data: false,
            ended: false,
        }
    }

    /// How much memory it holds.
    pub fn bytes(&self) -> usize {
        self.line.capacity() + self.name.capacity() + self.data.capacity()
    }

    /// The next piece. False once the sink has said so; then nothing more is parsed.
    ///
    /// # Errors
    /// `LIMIT`: a line or an event is too long. And what the sink gives.
    pub fn push(&mut self, mut piece: &[u8], sink: &mut Sink<'_>) -> Result<bool> {
        // A byte order mark is dropped at the very start (WHATWG, "9.2.5 Parsing an event stream").
        while let (Some(seen), Some((&byte, rest))) = (self.mark, piece.split_first()) {
            if MARK.get(seen) == Some(&byte) {
                piece = rest;
                self.mark = (seen + 1 < MARK.len()).then_some(seen + 1);
            } else {
                self.line.extend_from_slice(MARK.get(..seen).unwrap_or_default());
                self.mark = None;
            }
        }
        while !self.ended && !piece.is_empty() {
            if std::mem::take(&mut self.after_cr)
                && let Some((b'\n', rest)) = piece.split_first()
            {
                piece = rest;
                continue;
            }
            let end = match self.framing {
                Framing::Sse => memchr2(b'\n', b'\r', piece),
                Framing::Ndjson => memchr(b'\n', piece),
            };
            let whole = self.line.len().saturating_add(end.unwrap_or(piece.len()));
            if whole > self.most {
                return Err(self.too_long("line"));
            }
            let Some(end) = end else {
                self.line.extend_from_slice(piece);
                break;
            };
            let (start, rest) = piece.split_at_checked(end).unwrap_or_default();
            self.after_cr = rest.first() == Some(&b'\r');
            piece = rest.get(1..).unwrap_or_default();
            if self.line.is_empty() {
                self.line(start, sink)?;
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(start);
                let done = self.line(&line, sink);
                line.clear();
                self.line = line;
                done?;
            }
        }
        Ok(!self.ended)
    }

    /// The stream has ended. A last event that lacks its blank line counts: its lines are complete or, if one was cut
    /// within, the reducer finds its JSON incomplete.
    pub fn end(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        if let Some(seen) = self.mark.take() {
            self.line.extend_from_slice(MARK.get(..seen).unwrap_or_default());
        }
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() && !self.ended {
            self.line(&line, sink)?;
        }
        if self.framing == Framing::Sse && !self.ended {
            self.dispatch(sink)?;
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8], sink: &mut Sink<'_>) -> Result<()> {
        if self.framing == Framing::Ndjson {
            let line = line.trim_ascii();
            if !line.is_empty() {
                self.ended = !sink(b"", line)?;
            }
            return Ok(());
        }
        if line.is_empty() {
            return self.dispatch(sink);
        }
        let (field, value) = match memchr(b':', line) {
            Some(0) => return Ok(()), // a comment
            Some(at) => {
                let (field, rest) = line.split_at_checked(at).unwrap_or_default();
                let value = rest.get(1..).unwrap_or_default();
                (field, value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &b""[..]),
        };
        match field {
            b"data" => {
                if self.data.len().saturating_add(value.len()) >= self.most {
                    return Err(self.too_long("event"));
                }
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
            }
            b"event" => {
                self.name.clear();
                self.name.extend_from_slice(value);
            }
            // `id` and `retry` are for reconnecting, which no model API can do; other fields mean nothing.
            _ => {}
        }
        Ok(())
    }

    fn dispatch(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        if std::mem::take(&mut self.has_data) {
            self.ended = !sink(&self.name, &self.data)?;
        }
        self.name.clear();
        self.data.clear();
        // One huge event should not hold its memory for the rest of the stream.
        self.data.shrink_to(64 << 10);
        Ok(())
    }

    fn too_long(&self, what: &str) -> CoreError {
        CoreError::new(Code::Limit, format!("a {what} of the stream has more than {} bytes", self.most))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Events = Vec<(String, String)>;

    fn parse<'a>(
        framing: Framing,
        most: usize,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Events> {
        let mut parser = Parser::new(framing, most);
        let mut events = Vec::new();
        let mut sink = |name: &[u8], data: &[u8]| {
            events.push((String::from_utf8_lossy(name).into(), String::from_utf8_lossy(data).into()));
            Ok(true)
        };
        for piece in pieces {
            parser.push(piece, &mut sink)?;
        }
        parser.end(&mut sink)?;
        Ok(events)
    }

    fn sse(text: &str) -> Events {
        parse(Framing::Sse, 1 << 20, [text.as_bytes()]).unwrap()
    }

    fn events(expected: &[(&str, &str)]) -> Events {
        expected.iter().map(|(name, data)| ((*name).to_owned(), (*data).to_owned())).collect()
    }

    /// WHATWG HTML, "9.2.6 Interpreting an event stream", and its examples.
    #[test]
    fn the_rules_of_the_whatwg_hold() {
        for (text, expected) in [
            ("data: YHOO\ndata: +2\ndata: 10\n\n", &[("", "YHOO\n+2\n10")][..]),
            (
                ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
                &[("", "first event"), ("", "second event"), ("", " third event")],
            ),
            ("data\n\ndata\ndata\n\ndata:", &[("", ""), ("", "\n"), ("", "")]),
            ("data:test\n\ndata: test\n\n", &[("", "test"), ("", "test")]),
            ("event: add\ndata: 7\n\ndata: 8\n\n", &[("add", "7"), ("", "8")]),
            ("event: a\nevent: b\ndata: x\n\n", &[("b", "x")]),
            ("event: lonely\n\ndata: x\n\n", &[("", "x")]),
            ("data: a\r\rdata: b\r\n\r\ndata: c\n\r\n", &[("", "a"), ("", "b"), ("", "c")]),
            ("\u{FEFF}data: a\n\n", &[("", "a")]),
            ("\u{FEFF}\u{FEFF}data: a\n\n", &[]),
            (" data: a\n\nDATA: b\n\ndata : c\n\n", &[]),
            ("retry: 10\nid: x\nfoo: bar\ndata: a\n\n", &[("", "a")]),
            ("data: a: b:c\n\n", &[("", "a: b:c")]),
            ("data: no last blank line", &[("", "no last blank line")]),
            ("data: no last blank line\n", &[("", "no last blank line")]),
            ("", &[]),
            ("\n\n\r\n\r", &[]),
        ] {
            assert_eq!(sse(text), events(expected), "{text:?}");
        }
    }

    #[test]
    fn a_line_over_the_cap_is_an_error_before_it_is_held() {
        let line = vec![b'x'; 64];
        let mut parser = Parser::new(Framing::Sse, 1000);
        let mut pushed = 0;
        let error = loop {
            match parser.push(&line, &mut |_, _| Ok(true)) {
                Ok(_) => pushed += line.len(),
                Err(error) => break error,
            }
        };
        assert_eq!(error.code(), Code::Limit);
        assert!(pushed <= 1000 && parser.bytes() <= 4096, "{pushed} {}", parser.bytes());
        // An event may not grow without end out of short lines either.
        let endless = "data: xxxxxxxx\n".repeat(1000);
        assert_eq!(parse(Framing::Sse, 1000, [endless.as_bytes()]).unwrap_err().code(), Code::Limit);
        // At the cap is not over it.
        let longest = format!("data: {}\n\n", "y".repeat(994));
        assert_eq!(parse(Framing::Sse, 1000, longest.as_bytes().chunks(7)).unwrap().len(), 1);
    }

    #[test]
    fn what_follows_the_end_that_the_sink_declares_is_dropped() {
        let mut parser = Parser::new(Framing::Sse, 1000);
        let mut seen = 0;
        let mut sink = |_: &[u8], _: &[u8]| {
            seen += 1;
            Ok(seen < 2)
        };
        assert!(!parser.push(b"data: 1\n\ndata: 2\n\ndata: 3\n\n", &mut sink).unwrap());
        assert!(!parser.push(b"data: 4\n\n", &mut sink).unwrap());
        parser.end(&mut sink).unwrap();
        assert_eq!(seen, 2);
    }

    #[test]
    fn ndjson_is_one_text_a_line() {
        let text = "{\"a\":1}\r\n\n  {\"b\":\"\u{e9}\\n\"}\n{\"c\":3}";
        let expected = events(&[("", "{\"a\":1}"), ("", "{\"b\":\"\u{e9}\\n\"}"), ("", "{\"c\":3}")]);
        assert_eq!(parse(Framing::Ndjson, 100, [text.as_bytes()]).unwrap(), expected);
        assert_eq!(parse(Framing::Ndjson, 100, text.as_bytes().chunks(1)).unwrap(), expected);
        assert_eq!(parse(Framing::Ndjson, 5, [text.as_bytes()]).unwrap_err().code(), Code::Limit);
    }

    /// The rules once more, written down as the standard has them, on the whole text at once.
    fn by_the_book(text: &str) -> Events {
        let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let (mut events, mut name, mut data) = (Vec::new(), String::new(), String::new());
        let mut lines: Vec<&str> = text.split('\n').collect();
        if lines.last() == Some(&"") {
            lines.pop();
        }
        // The blank line that a server may have owed.
        lines.push("");
        let mut any = false;
        for line in lines {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                _ if line.is_empty() => {
                    if any {
                        data.pop();
                        events.push((name.clone(), data.clone()));
                    }
                    (name, data, any) = Default::default();
                }
                "event" => name = value.to_owned(),
                "data" => {
                    data += value;
                    data.push('\n');
                    any = true;
                }
                _ => {}
            }
        }
        events
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn any_stream_in_any_pieces_is_as_the_book_has_it(
            parts in prop::collection::vec(prop::sample::select(vec![
                "data", ":", " ", "\n", "\r", "\r\n", "event", "x", "\u{FEFF}", "é", "🎉", "id", "data: y\n", "\n\n",
            ]), 0..40),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let text: String = parts.concat();
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
            prop_assert_eq!(parse(Framing::Sse, 1 << 20, pieces).unwrap(), by_the_book(&text));
        }
    }
}
