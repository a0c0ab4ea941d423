//! JSON5 text, read exactly as npm `json5` 2.2.3 reads it.
//!
//! # Design
//! One iterative scanner ([`scan`]) walks the bytes once and tells a [`Sink`] what it sees. Three sinks exist:
//! JSON text for V8's `JSON.parse` ([`to_json`]), a value tree with places ([`parse`]), and the editor's map of
//! a document. Neither the scanner nor its error positions differ from npm's: the lexer's states, its white
//! space and identifier tables ([`unicode`]) and its habit of reporting the column *after* the character at
//! fault are kept. What npm leaves unbounded is bounded here: nesting.
//!
//! Text comes in as WTF-8, so that the lone surrogates of a JavaScript string survive.

mod tree;
mod unicode;
mod write;

#[cfg(test)]
mod tests;

pub use tree::parse;
pub use write::{JsonText, stringify, to_json};

use super::value::Text;
use crate::{Code, CoreError, Result};

/// The nesting that [`to_json`] admits.
pub const MAX_DEPTH: usize = 10_000;

/// The nesting that [`parse`] admits: documents become trees, which are walked by recursion.
pub const MAX_TREE_DEPTH: usize = 1_000;

/// A byte range of the text.
pub type Span = std::ops::Range<usize>;

/// What brackets hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// `{ … }`
    Object,
    /// `[ … ]`
    Array,
}

/// Receives a document, in order. Every value is preceded by its key if it stands in an object.
pub trait Sink {
    /// `null`
    fn null(&mut self, span: Span);
    /// `true` or `false`
    fn boolean(&mut self, value: bool, span: Span);
    /// A number in any of JSON5's forms.
    fn number(&mut self, number: Number<'_>, span: Span);
    /// A string; the span includes the quotes.
    fn string(&mut self, content: Content<'_>, span: Span);
    /// A property name; the span includes the quotes, if any.
    fn key(&mut self, content: Content<'_>, span: Span);
    /// An opening bracket at `at`.
    fn begin(&mut self, container: Container, at: usize);
    /// A closing bracket at `at`.
    fn end(&mut self, container: Container, at: usize);
    /// A comma at `at`.
    fn comma(&mut self, at: usize) {
        let _ = at;
    }
}

/// The content of a string or property name.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// As written, and valid between JSON's double quotes as it stands.
    Verbatim(&'a [u8]),
    /// Decoded WTF-8, which may hold anything.
    Decoded(&'a Text),
}

impl Content<'_> {
    /// The content as an owned string.
    pub fn to_text(&self) -> Text {
        match self {
            Self::Verbatim(bytes) => {
                let mut text = Text::new();
                text.push_wtf8(bytes);
                text
            }
            Self::Decoded(text) => (*text).clone(),
        }
    }
}

/// A number as written.
#[derive(Clone, Copy, Debug)]
pub struct Number<'a> {
    /// Whether a minus sign precedes it.
    pub negative: bool,
    /// What follows the sign.
    pub magnitude: Magnitude<'a>,
}

/// The unsigned part of a number.
#[derive(Clone, Copy, Debug)]
pub enum Magnitude<'a> {
    /// Digits with an optional point and exponent; the point may lead or trail.
    Decimal(&'a [u8]),
    /// The digits after `0x`.
    Hex(&'a [u8]),
    /// `Infinity`
    Infinity,
    /// `NaN`
    NaN,
}

impl Number<'_> {
    /// The double that JavaScript's `Number()` makes of it.
    pub fn value(&self) -> f64 {
        let magnitude = match self.magnitude {
            // Every spelling that the scanner admits is one that Rust's parser reads, correctly rounded.
            Magnitude::Decimal(digits) => {
                std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(f64::NAN)
            }
            Magnitude::Hex(digits) => hex_value(digits),
            Magnitude::Infinity => f64::INFINITY,
            Magnitude::NaN => f64::NAN,
        };
        if self.negative { -magnitude } else { magnitude }
    }
}

/// Hexadecimal digits as a double, rounded half to even as ECMAScript's `StringToNumber` prescribes.
fn hex_value(digits: &[u8]) -> f64 {
    let digits = digits.strip_prefix(b"0").map_or(digits, |rest| {
        let zeros = rest.iter().take_while(|&&d| d == b'0').count();
        rest.get(zeros..).unwrap_or_default()
    });
    // The first 31 digits fill 124 bits; all that follows only matters as "not zero" for the rounding.
    let (head, tail) = digits.split_at(digits.len().min(31));
    let mut bits = head.iter().fold(0_u128, |acc, &d| (acc << 4) | u128::from(hex_digit(d).unwrap_or(0)));
    if tail.iter().any(|&d| d != b'0') {
        bits |= 1;
    }
    // `as` rounds half to even; scaling by a power of two is exact, or overflows to infinity as it must.
    #[expect(clippy::cast_precision_loss, reason = "the rounding is the point")]
    let value = bits as f64;
    let scale = i32::try_from(tail.len().saturating_mul(4)).unwrap_or(i32::MAX);
    if scale > 1100 { if value == 0.0 { 0.0 } else { f64::INFINITY } } else { value * 2_f64.powi(scale) }
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The line and column of a byte offset, both 1-based; columns count UTF-16 code units, and only a line feed ends
/// a line, as in npm `json5`.
pub fn line_and_column(text: &[u8], offset: usize) -> (u32, u32) {
    let before = text.get(..offset).unwrap_or(text);
    #[expect(clippy::naive_bytecount, reason = "only errors and `explain` come here")]
    let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
    let line_start = before.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    let units: usize = before.iter().skip(line_start).map(|&b| utf16_units(b)).sum();
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(units + 1).unwrap_or(u32::MAX))
}

/// UTF-16 code units that the sequence led by this byte stands for; a continuation byte stands for none.
fn utf16_units(byte: u8) -> usize {
    match byte {
        0x80..=0xBF => 0,
        0xF0.. => 2,
        _ => 1,
    }
}

/// Why the scanner stopped.
enum Stop {
    /// The character at this offset (or the end of input) cannot stand there.
    Character(usize),
    /// The escape that ends before this offset is no identifier character.
    Identifier(usize),
    /// The bracket at this offset nests too deep.
    Depth(usize),
}

/// Walks a JSON5 document (WTF-8 bytes), telling `sink` what it holds. Fails with `CONFIG_PARSE` and npm's own
/// message, line and column, or where nesting passes `max_depth`.
pub fn scan<S: Sink>(text: &[u8], sink: &mut S, max_depth: usize) -> Result<()> {
    Scanner { text, at: 0, scratch: Text::new() }
        .document(sink, max_depth)
        .map_err(|stop| describe(text, &stop, max_depth))
}

fn describe(text: &[u8], stop: &Stop, max_depth: usize) -> CoreError {
    let error = |message: String, line, column| CoreError::new(Code::ConfigParse, message).at(line, column);
    match *stop {
        Stop::Character(at) => {
            let (line, column) = line_and_column(text, at);
            let Some((c, _)) = code_point(text, at) else {
                return error(format!("JSON5: invalid end of input at {line}:{column}"), line, column);
            };
            // npm reports the place after the character at fault; a column before it is what people count as 1.
            let (line, column) = match c {
                0x0A => (line + 1, 0),
                0x1_0000.. => (line, column + 1),
                _ => (line, column),
            };
            error(format!("JSON5: invalid character '{}' at {line}:{column}", quote(c)), line, column)
        }
        Stop::Identifier(end) => {
            let (line, column) = line_and_column(text, end);
            let column = column.saturating_sub(6);
            error(format!("JSON5: invalid identifier character at {line}:{column}"), line, column)
        }
        Stop::Depth(at) => {
            let (line, column) = line_and_column(text, at);
            error(format!("JSON5: nested deeper than {max_depth} levels at {line}:{column}"), line, column)
        }
    }
}

/// npm's `formatChar`.
fn quote(c: u32) -> String {
    match c {
        0x27 => "\\'".into(),
        0x22 => "\\\"".into(),
        0x5C => "\\\\".into(),
        0x08 => "\\b".into(),
        0x0C => "\\f".into(),
        0x0A => "\\n".into(),
        0x0D => "\\r".into(),
        0x09 => "\\t".into(),
        0x0B => "\\v".into(),
        0x00 => "\\0".into(),
        0x2028 => "\\u2028".into(),
        0x2029 => "\\u2029".into(),
        0x01..=0x1F => format!("\\x{c:02x}"),
        _ => char::from_u32(c).unwrap_or(char::REPLACEMENT_CHARACTER).into(),
    }
}

/// The code point at `at` (surrogates included) and the offset behind it; `None` at the end of the text.
fn code_point(text: &[u8], at: usize) -> Option<(u32, usize)> {
    let lead = *text.get(at)?;
    let (len, bits) = match lead {
        0x00..=0x7F => return Some((u32::from(lead), at + 1)),
        0xC0..=0xDF => (2, u32::from(lead & 0x1F)),
        0xE0..=0xEF => (3, u32::from(lead & 0x0F)),
        _ => (4, u32::from(lead & 0x07)),
    };
    let tail = text.get(at + 1..at + len)?;
    Some((tail.iter().fold(bits, |acc, &b| (acc << 6) | u32::from(b & 0x3F)), at + len))
}

/// Bytes at which a run of plain string content may have to stop: controls, both quotes, the backslash, and
/// 0xED, which leads surrogates.
const STRING_STOPS: [bool; 256] = {
    let mut stops = [false; 256];
    let mut byte = 0;
    #[expect(clippy::indexing_slicing, reason = "const context; the index is below the length")]
    while byte < 256 {
        stops[byte] = byte < 0x20 || matches!(byte, 0x22 | 0x27 | 0x5C | 0xED);
        byte += 1;
    }
    stops
};

#[derive(Clone, Copy)]
enum Expect {
    Value,
    ValueOrEnd,
    KeyOrEnd,
    CommaOrEnd,
    Nothing,
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    scratch: Text,
}

impl<'a> Scanner<'a> {
    fn document<S: Sink>(&mut self, sink: &mut S, max_depth: usize) -> Result<(), Stop> {
        let mut open: Vec<Container> = Vec::new();
        let mut expect = Expect::Value;
        loop {
            self.skip_space()?;
            let Some(byte) = self.peek() else {
                return if matches!(expect, Expect::Nothing) {
                    Ok(())
                } else {
                    Err(Stop::Character(self.at))
                };
            };
            match (expect, byte) {
                (Expect::Value | Expect::ValueOrEnd, b'{' | b'[') => {
                    if open.len() >= max_depth {
                        return Err(Stop::Depth(self.at));
                    }
                    let container = if byte == b'{' { Container::Object } else { Container::Array };
                    sink.begin(container, self.at);
                    open.push(container);
                    self.at += 1;
                    expect = if byte == b'{' { Expect::KeyOrEnd } else { Expect::ValueOrEnd };
                }
                (Expect::ValueOrEnd | Expect::KeyOrEnd | Expect::CommaOrEnd, b']' | b'}')
                    if closes(open.last(), byte) =>
                {
                    if let Some(container) = open.pop() {
                        sink.end(container, self.at);
                    }
                    self.at += 1;
                    expect = after_value(&open);
                }
                (Expect::KeyOrEnd, _) => {
                    self.key(byte, sink)?;
                    self.skip_space()?;
                    if self.peek() != Some(b':') {
                        return Err(Stop::Character(self.at));
                    }
                    self.at += 1;
                    expect = Expect::Value;
                }
                (Expect::CommaOrEnd, b',') => {
                    sink.comma(self.at);
                    self.at += 1;
                    expect = if open.last() == Some(&Container::Object) {
                        Expect::KeyOrEnd
                    } else {
                        Expect::ValueOrEnd
                    };
                }
                (Expect::Value | Expect::ValueOrEnd, _) => {
                    self.scalar(byte, sink)?;
                    expect = after_value(&open);
                }
                (Expect::CommaOrEnd | Expect::Nothing, _) => return Err(Stop::Character(self.at)),
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) -> Result<(), Stop> {
        loop {
            let tail = self.text.get(self.at..).unwrap_or_default();
            let run =
                tail.iter().position(|byte| !matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | 0x0B | 0x0C));
            self.at += run.unwrap_or(tail.len());
            match self.peek() {
                Some(b'/') => self.skip_comment()?,
                Some(0x80..) => match code_point(self.text, self.at) {
                    Some((c, next)) if unicode::is_space(c) => self.at = next,
                    _ => return Ok(()),
                },
                _ => return Ok(()),
            }
        }
    }

    fn skip_comment(&mut self) -> Result<(), Stop> {
        self.at += 1;
        let rest = self.text.get(self.at + 1..).unwrap_or_default();
        match self.peek() {
            Some(b'*') => {
                let len = rest.windows(2).position(|pair| pair == b"*/");
                self.at = len.map_or(self.text.len(), |len| self.at + 1 + len + 2);
                if len.is_none() { Err(Stop::Character(self.at)) } else { Ok(()) }
            }
            Some(b'/') => {
                let len = rest.iter().enumerate().position(|(i, &b)| match b {
                    b'\n' | b'\r' => true,
                    // U+2028 and U+2029
                    0xE2 => matches!(rest.get(i + 1..i + 3), Some([0x80, 0xA8 | 0xA9])),
                    _ => false,
                });
                self.at = len.map_or(self.text.len(), |len| self.at + 1 + len);
                Ok(())
            }
            _ => Err(Stop::Character(self.at)),
        }
    }

    fn key<S: Sink>(&mut self, byte: u8, sink: &mut S) -> Result<(), Stop> {
        let start = self.at;
        if matches!(byte, b'"' | b'\'') {
            let simple = self.string(byte)?;
            sink.key(self.content(simple, start), start..self.at);
            return Ok(());
        }
        if !matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' | b'\\' | 0x80..) {
            return Err(Stop::Character(start));
        }
        let ascii = |b: &&u8| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'$');
        let tail = self.text.get(start..).unwrap_or_default();
        let name = tail.get(..tail.iter().take_while(ascii).count()).unwrap_or_default();
        self.at += name.len();
        if !matches!(self.peek(), Some(b'\\' | 0x80..)) {
            sink.key(Content::Verbatim(name), start..self.at);
            return Ok(());
        }
        self.scratch = Text::new();
        self.scratch.push_wtf8(name);
        self.rest_of_identifier(name.is_empty())?;
        sink.key(Content::Decoded(&self.scratch), start..self.at);
        Ok(())
    }

    /// Reads on after the ASCII beginning of an identifier, into `scratch`.
    fn rest_of_identifier(&mut self, mut first: bool) -> Result<(), Stop> {
        while let Some((c, next)) = code_point(self.text, self.at) {
            if c == u32::from(b'\\') {
                self.at = next;
                if self.peek() != Some(b'u') {
                    return Err(Stop::Character(self.at));
                }
                self.at += 1;
                let escaped = self.hex(4)?;
                let fits =
                    if first { unicode::is_id_start(escaped) } else { unicode::is_id_continue(escaped) };
                if !fits {
                    return Err(Stop::Identifier(self.at));
                }
                self.scratch.push_code_point(escaped);
            } else if if first { unicode::is_id_start(c) } else { unicode::is_id_continue(c) } {
                self.at = next;
                self.scratch.push_code_point(c);
            } else if first {
                return Err(Stop::Character(self.at));
            } else {
                break;
            }
            first = false;
        }
        Ok(())
    }

    fn scalar<S: Sink>(&mut self, byte: u8, sink: &mut S) -> Result<(), Stop> {
        let start = self.at;
        match byte {
            b'"' | b'\'' => {
                let simple = self.string(byte)?;
                sink.string(self.content(simple, start), start..self.at);
            }
            b'n' => {
                self.literal(b"null")?;
                sink.null(start..self.at);
            }
            b't' => {
                self.literal(b"true")?;
                sink.boolean(true, start..self.at);
            }
            b'f' => {
                self.literal(b"false")?;
                sink.boolean(false, start..self.at);
            }
            b'+' | b'-' | b'.' | b'0'..=b'9' | b'I' | b'N' => {
                let number = self.number(byte)?;
                sink.number(number, start..self.at);
            }
            _ => return Err(Stop::Character(start)),
        }
        Ok(())
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), Stop> {
        for expected in word {
            if self.peek() != Some(*expected) {
                return Err(Stop::Character(self.at));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self, first: u8) -> Result<Number<'a>, Stop> {
        let negative = first == b'-';
        if matches!(first, b'-' | b'+') {
            self.at += 1;
        }
        let start = self.at;
        let magnitude = match self.peek() {
            Some(b'I') => {
                self.literal(b"Infinity")?;
                Magnitude::Infinity
            }
            Some(b'N') => {
                self.literal(b"NaN")?;
                Magnitude::NaN
            }
            Some(b'0') if matches!(self.text.get(start + 1), Some(b'x' | b'X')) => {
                self.at += 2;
                let digits = self.digits(u8::is_ascii_hexdigit)?;
                Magnitude::Hex(digits)
            }
            Some(b'0'..=b'9' | b'.') => {
                self.decimal()?;
                Magnitude::Decimal(self.text.get(start..self.at).unwrap_or_default())
            }
            _ => return Err(Stop::Character(self.at)),
        };
        Ok(Number { negative, magnitude })
    }

    fn decimal(&mut self) -> Result<(), Stop> {
        match self.peek() {
            Some(b'.') => {}
            // A leading zero stands alone.
            Some(b'0') => self.at += 1,
            _ => _ = self.digits(u8::is_ascii_digit)?,
        }
        if self.peek() == Some(b'.') {
            let leading = !matches!(self.at.checked_sub(1).and_then(|i| self.text.get(i)), Some(b'0'..=b'9'));
            self.at += 1;
            if leading || matches!(self.peek(), Some(b'0'..=b'9')) {
                self.digits(u8::is_ascii_digit)?;
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits(u8::is_ascii_digit)?;
        }
        Ok(())
    }

    /// One or more digits.
    fn digits(&mut self, is_digit: impl Fn(&u8) -> bool) -> Result<&'a [u8], Stop> {
        let tail = self.text.get(self.at..).unwrap_or_default();
        let digits = tail.get(..tail.iter().take_while(|b| is_digit(b)).count()).unwrap_or_default();
        if digits.is_empty() {
            return Err(Stop::Character(self.at));
        }
        self.at += digits.len();
        Ok(digits)
    }

    fn content(&self, simple: bool, start: usize) -> Content<'_> {
        if simple {
            Content::Verbatim(self.text.get(start + 1..self.at - 1).unwrap_or_default())
        } else {
            Content::Decoded(&self.scratch)
        }
    }

    /// Reads a string from its opening quote past its closing one. True if its content can stand in JSON as it is;
    /// otherwise `scratch` holds it, decoded.
    fn string(&mut self, quote: u8) -> Result<bool, Stop> {
        self.at += 1;
        let start = self.at;
        self.skip_plain(quote);
        if self.peek() == Some(quote) {
            self.at += 1;
            return Ok(true);
        }
        self.scratch = Text::new();
        self.scratch.push_wtf8(self.text.get(start..self.at).unwrap_or_default());
        loop {
            match self.peek() {
                None | Some(b'\n' | b'\r') => return Err(Stop::Character(self.at)),
                Some(byte) if byte == quote => {
                    self.at += 1;
                    return Ok(false);
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape()?;
                }
                // A control, the other quote, or a lone surrogate: taken as it is.
                Some(_) => {
                    let next = code_point(self.text, self.at).map_or(self.text.len(), |(_, next)| next);
                    self.scratch.push_wtf8(self.text.get(self.at..next).unwrap_or_default());
                    self.at = next;
                }
            }
            let run = self.at;
            self.skip_plain(quote);
            self.scratch.push_wtf8(self.text.get(run..self.at).unwrap_or_default());
        }
    }

    /// Moves to the next byte that ends a string or cannot stand in JSON as it is.
    fn skip_plain(&mut self, quote: u8) {
        let tail = self.text.get(self.at..).unwrap_or_default();
        let len = tail.iter().enumerate().position(|(i, &byte)| {
            STRING_STOPS.get(usize::from(byte)).copied().unwrap_or(true)
                && match byte {
                    b'\'' => quote == b'\'',
                    0xED => matches!(tail.get(i + 1), Some(0xA0..)),
                    _ => true,
                }
        });
        self.at += len.unwrap_or(tail.len());
    }

    fn escape(&mut self) -> Result<(), Stop> {
        let Some((c, next)) = code_point(self.text, self.at) else { return Err(Stop::Character(self.at)) };
        let at = self.at;
        self.at = next;
        let code = match c {
            0x62 => 0x08, // b
            0x66 => 0x0C, // f
            0x6E => 0x0A, // n
            0x72 => 0x0D, // r
            0x74 => 0x09, // t
            0x76 => 0x0B, // v
            0x30 if matches!(self.peek(), Some(b'0'..=b'9')) => return Err(Stop::Character(self.at)),
            0x30 => 0,
            0x31..=0x39 => return Err(Stop::Character(at)),
            0x78 => self.hex(2)?, // x
            0x75 => self.hex(4)?, // u
            0x0A | 0x2028 | 0x2029 => return Ok(()),
            0x0D => {
                if self.peek() == Some(b'\n') {
                    self.at += 1;
                }
                return Ok(());
            }
            _ => c,
        };
        self.scratch.push_code_point(code);
        Ok(())
    }

    fn hex(&mut self, count: usize) -> Result<u32, Stop> {
        let mut code = 0;
        for _ in 0..count {
            let digit = self.peek().and_then(hex_digit).ok_or(Stop::Character(self.at))?;
            code = (code << 4) | u32::from(digit);
            self.at += 1;
        }
        Ok(code)
    }
}

fn closes(open: Option<&Container>, byte: u8) -> bool {
    matches!((open, byte), (Some(Container::Object), b'}') | (Some(Container::Array), b']'))
}

fn after_value(open: &[Container]) -> Expect {
    if open.is_empty() { Expect::Nothing } else { Expect::CommaOrEnd }
}
