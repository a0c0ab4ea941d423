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
