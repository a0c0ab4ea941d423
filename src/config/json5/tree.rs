//! A document as a tree of values that know where they were written.

use super::{Container, Content, MAX_TREE_DEPTH, Number, Sink, Span, scan};
use crate::config::value::{Node, Object, Origin, Text, Value, sort_like_javascript};
use crate::{Code, CoreError, Result};

/// Reads a JSON5 document (WTF-8 bytes) into a tree whose origins point into `file`. A key that is written twice
/// has its last value at its first place, as in JavaScript.
pub fn parse(text: &[u8], file: u32) -> Result<Node> {
    if u32::try_from(text.len()).is_err() {
        return Err(CoreError::new(Code::Limit, "a document of 4 GiB or more cannot be read"));
    }
    let mut builder = Builder { file, open: Vec::new(), root: None };
    scan(text, &mut builder, MAX_TREE_DEPTH)?;
    builder.root.ok_or_else(|| CoreError::new(Code::Internal, "a document ended without a value"))
}

struct Frame {
    start: usize,
    content: Value,
    key: Text,
}

struct Builder {
    file: u32,
    open: Vec<Frame>,
    root: Option<Node>,
}

impl Builder {
    fn push(&mut self, value: Value, span: Span) {
        // `parse` has checked that offsets fit.
        let offset = |at| u32::try_from(at).unwrap_or(u32::MAX);
        let origin = Origin { file: self.file, start: offset(span.start), end: offset(span.end) };
        let node = Node { value, origin };
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Frame { content: Value::Array(items), .. }) => items.push(node),
            Some(Frame { content: Value::Object(object), key, .. }) => {
                object.insert(std::mem::take(key), node);
            }
            Some(_) => {}
        }
    }
}

impl Sink for Builder {
    fn null(&mut self, span: Span) {
        self.push(Value::Null, span);
    }

    fn boolean(&mut self, value: bool, span: Span) {
        self.push(Value::Bool(value), span);
    }

    fn number(&mut self, number: Number<'_>, span: Span) {
        self.push(Value::Number(number.value()), span);
    }

    fn string(&mut self, content: Content<'_>, span: Span) {
        self.push(Value::String(content.to_text()), span);
    }

    fn key(&mut self, content: Content<'_>, _: Span) {
        if let Some(frame) = self.open.last_mut() {
            frame.key = content.to_text();
        }
    }

    fn begin(&mut self, container: Container, at: usize) {
        let content = match container {
            Container::Object => Value::Object(Object::new()),
            Container::Array => Value::Array(Vec::new()),
        };
        self.open.push(Frame { start: at, content, key: Text::new() });
    }

    fn end(&mut self, _: Container, at: usize) {
        if let Some(Frame { start, mut content, .. }) = self.open.pop() {
            if let Value::Object(object) = &mut content {
                sort_like_javascript(object);
            }
            self.push(content, start..at + 1);
        }
    }
}
