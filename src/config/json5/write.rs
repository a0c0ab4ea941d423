//! JSON text that V8's `JSON.parse` turns into the value that was meant: the cheapest way into JavaScript.

use super::{Container, Content, MAX_DEPTH, Magnitude, Number, Sink, Span, scan};
use crate::config::value::Value;
use crate::{Code, CoreError, Result};

/// JSON text, and what JSON cannot say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonText {
    /// The text; infinities are written as `1e999`, lone surrogates as `\ud800`.
    pub text: String,
    /// JSON has no NaN: where the document has one, this string value stands for it, and occurs nowhere else.
    pub nan: Option<String>,
}

/// Translates a JSON5 document (WTF-8 bytes) to JSON text in one pass.
pub fn to_json(text: &[u8]) -> Result<JsonText> {
    with_unique_mark(|mark| {
        let mut writer = Writer::new(text.len() + text.len() / 8, mark);
        scan(text, &mut writer, MAX_DEPTH)?;
        Ok(writer)
    })
}

/// Writes a value as JSON text for `JSON.parse`.
pub fn stringify(value: &Value) -> Result<JsonText> {
    with_unique_mark(|mark| {
        let mut writer = Writer::new(256, mark);
        writer.value(value);
        Ok(writer)
    })
}

/// Writes with marks for NaN until one is found that no string of the document equals: nearly always the first.
fn with_unique_mark(write: impl Fn(String) -> Result<Writer>) -> Result<JsonText> {
    let mut mark = String::from("NaN");
    loop {
        let writer = write(mark.clone())?;
        let nans = writer.nans;
        let text = String::from_utf8(writer.out)
            .map_err(|error| CoreError::new(Code::ConfigParse, "the text is not UTF-8").caused_by(error))?;
        if nans == 0 {
            return Ok(JsonText { text, nan: None });
        }
        if text.matches(&format!("\"{mark}\"")).count() == nans {
            return Ok(JsonText { text, nan: Some(mark) });
        }
        mark.push('~');
    }
}

struct Writer {
    out: Vec<u8>,
    mark: String,
    nans: usize,
}

impl Writer {
    fn new(capacity: usize, mark: String) -> Self {
        Self { out: Vec::with_capacity(capacity), mark, nans: 0 }
    }

    /// A comma, unless this is the first thing in its container.
    fn separate(&mut self) {
        if !matches!(self.out.last(), None | Some(b'[' | b'{' | b':')) {
            self.out.push(b',');
        }
    }

    fn quoted(&mut self, content: Content<'_>) {
        self.out.push(b'"');
        match content {
            Content::Verbatim(bytes) => self.out.extend_from_slice(bytes),
            Content::Decoded(text) => self.escaped(text.as_bytes()),
        }
        self.out.push(b'"');
    }

    fn escaped(&mut self, wtf8: &[u8]) {
        let mut bytes = wtf8.iter();
        while let Some(&byte) = bytes.next() {
            match byte {
                b'"' | b'\\' => self.out.extend_from_slice(&[b'\\', byte]),
                0x00..=0x1F => self.unicode_escape(u32::from(byte)),
                // A surrogate half: JSON.parse takes it as an escape only, text may not hold it.
                0xED if matches!(bytes.as_slice(), [0xA0..=0xBF, _, ..]) => {
                    let (second, third) = (bytes.next().copied(), bytes.next().copied());
                    let bits = |b: Option<u8>| u32::from(b.unwrap_or(0) & 0x3F);
                    self.unicode_escape(0xD000 | (bits(second) << 6) | bits(third));
                }
                _ => self.out.push(byte),
            }
        }
    }

    fn unicode_escape(&mut self, code: u32) {
        self.out.extend_from_slice(format!("\\u{code:04x}").as_bytes());
    }

    fn double(&mut self, value: f64) {
        if value.is_nan() {
            self.nans += 1;
            let mark = format!("\"{}\"", self.mark);
            self.out.extend_from_slice(mark.as_bytes());
        } else if value.is_infinite() {
            self.out.extend_from_slice(if value < 0.0 { b"-1e999" } else { b"1e999" });
        } else {
            // The shortest digits that read back as the same double, with an exponent where that is shorter.
            self.out.extend_from_slice(format!("{value:?}").as_bytes());
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.out.extend_from_slice(b"null"),
            Value::Bool(true) => self.out.extend_from_slice(b"true"),
            Value::Bool(false) => self.out.extend_from_slice(b"false"),
            Value::Number(number) => self.double(*number),
            Value::String(text) => self.quoted(Content::Decoded(text)),
            Value::Array(items) => {
                self.out.push(b'[');
                for item in items {
                    self.separate();
                    self.value(&item.value);
                }
                self.out.push(b']');
            }
            Value::Object(object) => {
                self.out.push(b'{');
                for (key, node) in object {
                    self.separate();
                    self.quoted(Content::Decoded(key));
                    self.out.push(b':');
                    self.value(&node.value);
                }
                self.out.push(b'}');
            }
        }
    }
}

impl Sink for Writer {
    fn null(&mut self, _: Span) {
        self.separate();
        self.out.extend_from_slice(b"null");
    }

    fn boolean(&mut self, value: bool, _: Span) {
        self.separate();
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn number(&mut self, number: Number<'_>, _: Span) {
        self.separate();
        let Magnitude::Decimal(digits) = number.magnitude else { return self.double(number.value()) };
        if number.negative {
            self.out.push(b'-');
        }
        // JSON wants a digit on both sides of the point; the conversion itself stays V8's.
        if digits.first() == Some(&b'.') {
            self.out.push(b'0');
        }
        match digits.iter().position(|&b| b == b'.') {
            Some(point) if !matches!(digits.get(point + 1), Some(b'0'..=b'9')) => {
                self.out.extend_from_slice(digits.get(..point).unwrap_or_default());
                self.out.extend_from_slice(digits.get(point + 1..).unwrap_or_default());
            }
            _ => self.out.extend_from_slice(digits),
        }
    }

    fn string(&mut self, content: Content<'_>, _: Span) {
        self.separate();
        self.quoted(content);
    }

    fn key(&mut self, content: Content<'_>, _: Span) {
        self.separate();
        self.quoted(content);
        self.out.push(b':');
    }

    fn begin(&mut self, container: Container, _: usize) {
        self.separate();
        self.out.push(if container == Container::Object { b'{' } else { b'[' });
    }

    fn end(&mut self, container: Container, _: usize) {
        self.out.push(if container == Container::Object { b'}' } else { b']' });
    }
}
