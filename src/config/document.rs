//! Edits of JSON5 text that keep what people wrote: comments, order, quotes, indentation, commas.
//!
//! # Design
//! A scan gives the text's [`Item`]s with their places. A change walks down to what it names and compares the value
//! there with the one that is wanted, level by level; only where they differ is the text touched, by [`Splice`]s
//! that never overlap. New members take the style of their neighbours. In the end the text is read again and must
//! hold exactly what was asked for.

use std::borrow::Cow;
use std::fmt::Write;

use super::dotpath::Step;
use super::json5::{self, Container, Content, MAX_TREE_DEPTH, Number, Sink, Span};
use super::value::{Node, Object, Origin, Text, Value};
use crate::{Code, CoreError, Result};

/// What an edit does.
#[derive(Clone, Debug)]
pub enum Change {
    /// Puts a value in a place; parents that are missing are made.
    Set(Value),
    /// Takes a value away.
    Unset,
}

/// The text with the change made. Equal if there is nothing to do.
pub fn apply(text: &str, path: &[Step], change: &Change) -> Result<String> {
    let root = Outline::read(text)?;
    let mut editor = Editor { text, style: Style::of(text, &root), splices: Vec::new() };
    match change {
        Change::Set(value) => {
            finite(value).map_err(|error| error.at_path(show(path)))?;
            editor.set(&root, path, value)?;
        }
        Change::Unset => editor.unset(&root, path)?,
    }
    let edited = editor.finish();
    verify(text, path, change, &edited)?;
    Ok(edited)
}

/// The path as it is written in messages.
fn show(path: &[Step]) -> String {
    let keys: Vec<&str> = path.iter().map(|step| step.key.as_str()).collect();
    keys.join(".")
}

fn path_error(path: &[Step], message: String) -> CoreError {
    CoreError::new(Code::ConfigPath, message).at_path(show(path))
}

fn missing(path: &[Step]) -> CoreError {
    path_error(path, format!("there is nothing at {} to remove", show(path)))
}

/// As stock, which could not write them as JSON.
fn finite(value: &Value) -> Result<()> {
    match value {
        Value::Number(number) if !number.is_finite() => Err(CoreError::new(
            Code::ConfigInvalid,
            format!("{number} is not a number that a config may hold"),
        )),
        Value::Array(items) => items.iter().try_for_each(|item| finite(&item.value)),
        Value::Object(object) => object.values().try_for_each(|item| finite(&item.value)),
        _ => Ok(()),
    }
}

// ── what the text holds, and where ───────────────────────────────────────────────────────────────────────────────

struct Item {
    span: Span,
    kind: Kind,
}

enum Kind {
    Scalar(Value),
    Object(Vec<Member>),
    Array(Vec<Member>),
}

struct Member {
    key: Option<(Text, Span)>,
    value: Item,
    comma: Option<usize>,
}

impl Member {
    fn start(&self) -> usize {
        self.key.as_ref().map_or(self.value.span.start, |(_, span)| span.start)
    }

    fn end(&self) -> usize {
        self.comma.map_or(self.value.span.end, |comma| comma + 1)
    }
}

impl Item {
    fn members(&self) -> &[Member] {
        match &self.kind {
            Kind::Scalar(_) => &[],
            Kind::Object(members) | Kind::Array(members) => members,
        }
    }

    /// The member that counts: of equal keys the last.
    fn property(&self, key: &[u8]) -> Option<&Member> {
        match &self.kind {
            Kind::Object(members) => members
                .iter()
                .rfind(|member| member.key.as_ref().is_some_and(|(name, _)| name.as_bytes() == key)),
            _ => None,
        }
    }

    fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::Scalar(Value::Null) => "null",
            Kind::Scalar(Value::Bool(_)) => "a boolean",
            Kind::Scalar(Value::Number(_)) => "a number",
            Kind::Scalar(_) => "a string",
            Kind::Object(_) => "an object",
            Kind::Array(_) => "an array",
        }
    }
}

#[derive(Default)]
struct Outline {
    open: Vec<(Item, Option<(Text, Span)>)>,
    key: Option<(Text, Span)>,
    root: Option<Item>,
}

impl Outline {
    fn read(text: &str) -> Result<Item> {
        let mut outline = Self::default();
        json5::scan(text.as_bytes(), &mut outline, MAX_TREE_DEPTH)?;
        outline.root.ok_or_else(|| CoreError::new(Code::Internal, "a document ended without a value"))
    }

    fn scalar(&mut self, value: Value, span: Span) {
        let key = self.key.take();
        self.place(Item { span, kind: Kind::Scalar(value) }, key);
    }

    fn place(&mut self, value: Item, key: Option<(Text, Span)>) {
        match self.open.last_mut() {
            Some((Item { kind: Kind::Object(members) | Kind::Array(members), .. }, _)) => {
                members.push(Member { key, value, comma: None });
            }
            _ => self.root = Some(value),
        }
    }
}

impl Sink for Outline {
    fn null(&mut self, span: Span) {
        self.scalar(Value::Null, span);
    }

    fn boolean(&mut self, value: bool, span: Span) {
        self.scalar(Value::Bool(value), span);
    }

    fn number(&mut self, number: Number<'_>, span: Span) {
        self.scalar(Value::Number(number.value()), span);
    }

    fn string(&mut self, content: Content<'_>, span: Span) {
        self.scalar(Value::String(content.to_text()), span);
    }

    fn key(&mut self, content: Content<'_>, span: Span) {
        self.key = Some((content.to_text(), span));
    }

    fn begin(&mut self, container: Container, at: usize) {
        let kind = match container {
            Container::Object => Kind::Object(Vec::new()),
            Container::Array => Kind::Array(Vec::new()),
        };
        self.open.push((Item { span: at..at, kind }, self.key.take()));
    }

    fn end(&mut self, _: Container, at: usize) {
        if let Some((mut item, key)) = self.open.pop() {
            item.span.end = at + 1;
            self.place(item, key);
        }
    }

    fn comma(&mut self, at: usize) {
        if let Some((Item { kind: Kind::Object(members) | Kind::Array(members), .. }, _)) =
            self.open.last_mut()
            && let Some(member) = members.last_mut()
        {
            member.comma = Some(at);
        }
    }
}

// ── the style of a file ──────────────────────────────────────────────────────────────────────────────────────────

struct Style {
    /// One level of indentation.
    unit: String,
    newline: &'static str,
    quote: char,
    bare_keys: bool,
    /// Between a colon and its value, and behind a comma on one line.
    space: &'static str,
    /// Whether nested values stand on lines of their own.
    lines: bool,
    /// Whether the last member has a comma.
    trailing: bool,
}

impl Style {
    fn of(text: &str, root: &Item) -> Self {
        let mut census = Census::default();
        census.take(text, root);
        let newline = match text.find('\n') {
            Some(at) if text.get(..at).is_some_and(|before| before.ends_with('\r')) => "\r\n",
            _ => "\n",
        };
        Self {
            unit: census.unit.unwrap_or_else(|| "  ".into()),
            newline,
            quote: if census.single > census.double { '\'' } else { '"' },
            bare_keys: census.bare > census.quoted,
            space: if census.tight > census.spaced { "" } else { " " },
            lines: census.on_lines > 0 || census.in_line == 0,
            trailing: census.trailing > census.plain_end,
        }
    }
}

/// How often each habit occurs.
#[derive(Default)]
struct Census {
    unit: Option<String>,
    single: usize,
    double: usize,
    bare: usize,
    quoted: usize,
    tight: usize,
    spaced: usize,
    on_lines: usize,
    in_line: usize,
    trailing: usize,
    plain_end: usize,
}

impl Census {
    fn take(&mut self, text: &str, item: &Item) {
        if let Kind::Scalar(Value::String(_)) = item.kind {
            self.quote(text, &item.span);
        }
        let mut items = vec![item];
        while let Some(item) = items.pop() {
            let members = item.members();
            let on_lines = spans_lines(text, item);
            if let Some(last) = members.last() {
                *(if on_lines { &mut self.on_lines } else { &mut self.in_line }) += 1;
                if on_lines {
                    *(if last.comma.is_some() { &mut self.trailing } else { &mut self.plain_end }) += 1;
                }
            }
            if let (None, Some(first), true) = (&self.unit, members.first(), on_lines) {
                let (outer, inner) = (indent_at(text, item.span.start), indent_at(text, first.start()));
                self.unit = inner.strip_prefix(outer).filter(|unit| !unit.is_empty()).map(ToOwned::to_owned);
            }
            for member in members {
                if let Some((_, span)) = &member.key {
                    self.key(text, span, member.value.span.start);
                }
                if let Kind::Scalar(Value::String(_)) = member.value.kind {
                    self.quote(text, &member.value.span);
                }
            }
            items.extend(members.iter().rev().map(|member| &member.value));
        }
    }

    fn quote(&mut self, text: &str, span: &Span) {
        match text.as_bytes().get(span.start) {
            Some(b'\'') => self.single += 1,
            Some(b'"') => self.double += 1,
            _ => {}
        }
    }

    fn key(&mut self, text: &str, span: &Span, value: usize) {
        if matches!(text.as_bytes().get(span.start), Some(b'"' | b'\'')) {
            self.quoted += 1;
            self.quote(text, span);
        } else {
            self.bare += 1;
        }
        let spaced = text.get(span.end..value).is_some_and(|gap| gap.ends_with(|c: char| c.is_whitespace()));
        *(if spaced { &mut self.spaced } else { &mut self.tight }) += 1;
    }
}

/// Whether the members of a container begin on lines of their own.
fn spans_lines(text: &str, item: &Item) -> bool {
    let end = item.members().first().map_or(item.span.end, Member::start);
    text.get(item.span.start..end).is_some_and(|head| head.contains('\n'))
}

/// The blanks that begin the line on which `at` stands.
fn indent_at(text: &str, at: usize) -> &str {
    let line = text.get(line_start(text, at)..).unwrap_or_default();
    let end = line.find(|c| c != ' ' && c != '\t').unwrap_or(line.len());
    line.get(..end).unwrap_or_default()
}

fn line_start(text: &str, at: usize) -> usize {
    text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1)
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

/// Where the blanks that begin at `at` end.
fn skip_blanks(text: &str, at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    at + rest.find(|c| !is_blank(c)).unwrap_or(rest.len())
}

/// Where the blanks that end at `at` begin.
fn skip_blanks_back(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or_default().trim_end_matches(is_blank).len()
}

/// The line end at `at`, if there is one: its length.
fn newline_at(text: &str, at: usize) -> Option<usize> {
    let rest = text.get(at..).unwrap_or_default();
    if rest.starts_with("\r\n") { Some(2) } else { rest.starts_with('\n').then_some(1) }
}

/// Behind the comments that follow `at` on the same line. `None` if something else follows.
fn behind_comments(text: &str, mut at: usize) -> Option<usize> {
    loop {
        at = skip_blanks(text, at);
        let rest = text.get(at..)?;
        if newline_at(text, at).is_some() {
            return Some(at);
        }
        if rest.starts_with("//") {
            let end = at + rest.find(['\n', '\r', '\u{2028}', '\u{2029}'])?;
            return newline_at(text, end).map(|_| end);
        }
        let comment = rest.strip_prefix("/*").and_then(|rest| rest.split_once("*/")).map(|(body, _)| body)?;
        if comment.contains('\n') {
            return None;
        }
        at += comment.len() + 4;
    }
}

// ── changes of the text ──────────────────────────────────────────────────────────────────────────────────────────

struct Splice {
    span: Span,
    with: String,
}

struct Editor<'a> {
    text: &'a str,
    style: Style,
    splices: Vec<Splice>,
}

/// A member to be added.
struct Addition<'a> {
    key: Option<&'a Text>,
    value: Cow<'a, Value>,
}

impl Editor<'_> {
    fn set(&mut self, root: &Item, path: &[Step], value: &Value) -> Result<()> {
        let mut item = root;
        let mut lines = self.style.lines;
        for (depth, step) in path.iter().enumerate() {
            lines = lines && (item.members().is_empty() || spans_lines(self.text, item));
            let here = path.get(..depth).unwrap_or_default();
            let rest = path.get(depth + 1..).unwrap_or_default();
            match &item.kind {
                Kind::Object(_) => {
                    let Some(member) = item.property(step.key.as_bytes()) else {
                        let key = Text::from(step.key.as_str());
                        let value = Cow::Owned(nest(path, rest, value)?);
                        self.rewrite(item, &[], &[Addition { key: Some(&key), value }]);
                        return Ok(());
                    };
                    item = &member.value;
                }
                Kind::Array(members) => {
                    let index = step.index().ok_or_else(|| {
                        path_error(
                            path,
                            format!("{} is an array: {:?} is not an index", show(here), step.key),
                        )
                    })?;
                    match members.get(index) {
                        Some(member) => item = &member.value,
                        None if index == members.len() => {
                            let value = Cow::Owned(nest(path, rest, value)?);
                            self.rewrite(item, &[], &[Addition { key: None, value }]);
                            return Ok(());
                        }
                        None => {
                            let len = members.len();
                            let message =
                                format!("{} has {len} elements: the next index is {len}", show(here));
                            return Err(path_error(path, message));
                        }
                    }
                }
                Kind::Scalar(Value::Null) => {
                    let value = nest(path, path.get(depth..).unwrap_or_default(), value)?;
                    self.reconcile(item, &value, lines);
                    return Ok(());
                }
                Kind::Scalar(_) => {
                    let message =
                        format!("{} is {}: nothing can be set beneath it", show(here), item.describe());
                    return Err(path_error(path, message));
                }
            }
        }
        self.reconcile(item, value, lines);
        Ok(())
    }

    fn unset(&mut self, root: &Item, path: &[Step]) -> Result<()> {
        let Some((last, parents)) = path.split_last() else { return Err(missing(path)) };
        let mut item = root;
        for step in parents {
            item = match &item.kind {
                Kind::Array(members) => step.index().and_then(|index| members.get(index)),
                _ => item.property(step.key.as_bytes()),
            }
            .map(|member| &member.value)
            .ok_or_else(|| missing(path))?;
        }
        let gone: Vec<usize> = match &item.kind {
            Kind::Array(members) => last.index().filter(|&index| index < members.len()).into_iter().collect(),
            _ => positions(item, |key| key.as_bytes() == last.key.as_bytes()),
        };
        if gone.is_empty() {
            return Err(missing(path));
        }
        self.rewrite(item, &gone, &[]);
        Ok(())
    }

    /// Makes `item` say `value`, touching only what differs. `lines`: whether a new container may take several.
    fn reconcile(&mut self, item: &Item, value: &Value, lines: bool) {
        let inner = lines && (item.members().is_empty() || spans_lines(self.text, item));
        match (&item.kind, value) {
            (Kind::Object(members), Value::Object(object)) => {
                let gone = positions(item, |key| !object.contains_key(key.as_bytes()));
                for (at, member) in members.iter().enumerate() {
                    let Some((key, _)) = &member.key else { continue };
                    // An earlier member of the same name says nothing.
                    let counts = item.property(key.as_bytes()).is_some_and(|last| std::ptr::eq(last, member));
                    if let (true, false, Some(node)) =
                        (counts, gone.contains(&at), object.get(key.as_bytes()))
                    {
                        self.reconcile(&member.value, &node.value, inner);
                    }
                }
                let new: Vec<Addition<'_>> = object
                    .iter()
                    .filter(|(key, _)| item.property(key.as_bytes()).is_none())
                    .map(|(key, node)| Addition { key: Some(key), value: Cow::Borrowed(&node.value) })
                    .collect();
                self.rewrite(item, &gone, &new);
            }
            (Kind::Array(members), Value::Array(items)) => {
                for (member, node) in members.iter().zip(items) {
                    self.reconcile(&member.value, &node.value, inner);
                }
                let gone: Vec<usize> = (items.len()..members.len()).collect();
                let new: Vec<Addition<'_>> = items
                    .iter()
                    .skip(members.len())
                    .map(|node| Addition { key: None, value: Cow::Borrowed(&node.value) })
                    .collect();
                self.rewrite(item, &gone, &new);
            }
            (Kind::Scalar(old), value) if same(old, value) => {}
            _ => {
                let with = self.render(value, indent_at(self.text, item.span.start), lines);
                self.splice(item.span.clone(), with);
            }
        }
    }

    /// Removes members by position and adds others at the end.
    fn rewrite(&mut self, container: &Item, gone: &[usize], new: &[Addition<'_>]) {
        if gone.is_empty() && new.is_empty() {
            return;
        }
        let members = container.members();
        let trailing = members.last().map(|last| last.comma.is_some());
        let survivor = (0..members.len()).rev().find(|at| !gone.contains(at));
        let stays_last = survivor.is_some_and(|at| at + 1 == members.len());
        for member in gone.iter().filter_map(|&at| members.get(at)) {
            self.remove(member);
        }
        let survivor = survivor.and_then(|at| members.get(at));
        if new.is_empty() {
            // A file that was strict JSON stays strict JSON.
            if let (Some(Member { comma: Some(comma), .. }), false, Some(false)) =
                (survivor, stays_last, trailing)
            {
                self.splice(*comma..comma + 1, String::new());
            }
            return;
        }
        let lines = if members.is_empty() {
            spans_lines(self.text, container) || self.style.lines
        } else {
            spans_lines(self.text, container)
        };
        match survivor {
            Some(last) => self.append_behind(container, last, new, lines, trailing.unwrap_or_default()),
            None => self.fill(container, new, lines, trailing),
        }
    }

    fn append_behind(
        &mut self,
        container: &Item,
        last: &Member,
        new: &[Addition<'_>],
        lines: bool,
        trailing: bool,
    ) {
        if last.comma.is_none() {
            self.splice(last.value.span.end..last.value.span.end, ",".into());
        }
        let behind = if lines { behind_comments(self.text, last.end()) } else { None };
        let at = behind.filter(|&at| at < container.span.end).unwrap_or_else(|| last.end());
        let indent = indent_at(self.text, last.start()).to_owned();
        let mut with = String::new();
        for (nth, addition) in new.iter().enumerate() {
            if lines {
                with.push_str(self.style.newline);
                with.push_str(&indent);
            } else {
                with.push_str(self.style.space);
            }
            with.push_str(&self.member(addition, &indent, lines));
            if trailing || nth + 1 < new.len() {
                with.push(',');
            }
        }
        self.splice(at..at, with);
    }

    /// Puts the first members behind the opening bracket.
    fn fill(&mut self, container: &Item, new: &[Addition<'_>], lines: bool, trailing: Option<bool>) {
        let outer = indent_at(self.text, container.span.start).to_owned();
        let indent = format!("{outer}{}", self.style.unit);
        let trailing = trailing.unwrap_or(self.style.trailing && lines);
        let (open, close) = (container.span.start + 1, container.span.end - 1);
        let inside = self.text.get(open..close).unwrap_or_default();
        let mut with = String::new();
        for (nth, addition) in new.iter().enumerate() {
            if lines {
                with.push_str(self.style.newline);
                with.push_str(&indent);
            } else if nth > 0 || matches!(container.kind, Kind::Object(_)) {
                with.push_str(self.style.space);
            }
            with.push_str(&self.member(addition, &indent, lines));
            if trailing || nth + 1 < new.len() {
                with.push(',');
            }
        }
        if inside.chars().all(is_blank) {
            if lines {
                with.push_str(self.style.newline);
                with.push_str(&outer);
            } else if matches!(container.kind, Kind::Object(_)) {
                with.push_str(self.style.space);
            }
            self.splice(open..close, with);
        } else {
            self.splice(open..open, with);
        }
    }

    /// Takes out a member and its comma; comments stay, a line that is left empty goes.
    fn remove(&mut self, member: &Member) {
        let text = self.text;
        let (start, end) = (member.start(), member.end());
        let gap = member.comma.and_then(|comma| text.get(member.value.span.end..comma)).unwrap_or_default();
        if let (Some(comma), true) = (member.comma, gap.contains('/')) {
            self.splice(start..member.value.span.end, String::new());
            self.splice(comma..comma + 1, String::new());
            return;
        }
        let (before, after) = (skip_blanks_back(text, start), skip_blanks(text, end));
        let begins_line = before == line_start(text, start);
        let span = match newline_at(text, after) {
            Some(newline) if begins_line => before..after + newline,
            None if begins_line || member.comma.is_some() => start..after,
            // The last of several on a line: the blanks before it would trail.
            _ => before..end,
        };
        self.splice(span, String::new());
    }

    fn splice(&mut self, span: Span, with: String) {
        self.splices.push(Splice { span, with });
    }

    fn finish(mut self) -> String {
        // Insertions come before what is removed at the same place.
        self.splices.sort_by_key(|splice| (splice.span.start, splice.span.end));
        let mut out = String::with_capacity(self.text.len());
        let mut at = 0;
        for Splice { span, with } in self.splices {
            out.push_str(self.text.get(at..span.start).unwrap_or_default());
            out.push_str(&with);
            at = at.max(span.end);
        }
        out.push_str(self.text.get(at..).unwrap_or_default());
        out
    }

    fn member(&self, addition: &Addition<'_>, indent: &str, lines: bool) -> String {
        let value = self.render(&addition.value, indent, lines && self.style.lines);
        match addition.key {
            Some(key) => format!("{}:{}{value}", self.key(key), self.style.space),
            None => value,
        }
    }

    fn key(&self, key: &Text) -> String {
        let plain = key.as_str().is_some_and(|key| {
            let mut bytes = key.bytes();
            bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || matches!(b, b'_' | b'$'))
                && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$'))
        });
        match key.as_str() {
            Some(name) if plain && self.style.bare_keys => name.to_owned(),
            _ => self.string(key),
        }
    }

    fn string(&self, text: &Text) -> String {
        let mut out = String::from(self.style.quote);
        let mut rest = text.as_bytes();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.escape(text, &mut out);
                    break;
                }
                // A lone surrogate: three bytes that UTF-8 does not know.
                Err(error) => {
                    let (text, lone) = rest.split_at(error.valid_up_to());
                    self.escape(std::str::from_utf8(text).unwrap_or_default(), &mut out);
                    if let [_, b, c, ..] = lone {
                        let code = 0xD000 | (u32::from(b & 0x3F) << 6) | u32::from(c & 0x3F);
                        let _ = write!(out, "\\u{code:04x}");
                    }
                    rest = lone.get(3..).unwrap_or_default();
                }
            }
        }
        out.push(self.style.quote);
        out
    }

    fn escape(&self, text: &str, out: &mut String) {
        for c in text.chars() {
            match c {
                c if c == self.style.quote || c == '\\' => out.extend(['\\', c]),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\0'..='\x1F' | '\u{2028}' | '\u{2029}' => {
                    let _ = write!(out, "\\u{:04x}", u32::from(c));
                }
                c => out.push(c),
            }
        }
    }

    fn render(&self, value: &Value, indent: &str, lines: bool) -> String {
        match value {
            Value::Null => "null".into(),
            Value::Bool(value) => value.to_string(),
            Value::Number(number) => write_number(*number),
            Value::String(text) => self.string(text),
            Value::Array(items) => {
                let parts = items.iter().map(|item| (None, &item.value));
                self.brackets('[', ']', parts, indent, lines)
            }
            Value::Object(object) => {
                let parts = object.iter().map(|(key, item)| (Some(key), &item.value));
                self.brackets('{', '}', parts, indent, lines)
            }
        }
    }

    fn brackets<'v>(
        &self,
        open: char,
        close: char,
        parts: impl ExactSizeIterator<Item = (Option<&'v Text>, &'v Value)>,
        indent: &str,
        lines: bool,
    ) -> String {
        let count = parts.len();
        if count == 0 {
            return format!("{open}{close}");
        }
        let inner = format!("{indent}{}", self.style.unit);
        let pad = if open == '{' { self.style.space } else { "" };
        let mut out = String::from(open);
        for (nth, (key, value)) in parts.enumerate() {
            if lines {
                out.push_str(self.style.newline);
                out.push_str(&inner);
            } else {
                out.push_str(if nth == 0 { pad } else { self.style.space });
            }
            out.push_str(&self.member(&Addition { key, value: Cow::Borrowed(value) }, &inner, lines));
            if nth + 1 < count || (lines && self.style.trailing) {
                out.push(',');
            }
        }
        if lines {
            out.push_str(self.style.newline);
            out.push_str(indent);
        } else {
            out.push_str(pad);
        }
        out.push(close);
        out
    }
}

fn positions(item: &Item, wanted: impl Fn(&Text) -> bool) -> Vec<usize> {
    let members = item.members().iter().enumerate();
    members
        .filter(|(_, member)| member.key.as_ref().is_some_and(|(key, _)| wanted(key)))
        .map(|(at, _)| at)
        .collect()
}

/// JavaScript's `String(number)`, but for -0, which stays what it is.
fn write_number(number: f64) -> String {
    let size = number.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{number:e}");
        return if text.contains("e-") { text } else { text.replace('e', "e+") };
    }
    number.to_string()
}

fn node(value: Value) -> Node {
    Node { value, origin: Origin::default() }
}

/// `value` beneath the containers that `steps`, the end of `path`, name.
fn nest(path: &[Step], steps: &[Step], value: &Value) -> Result<Value> {
    steps.iter().rev().try_fold(value.clone(), |value, step| match step.index().filter(|_| !step.quoted) {
        Some(0) => Ok(Value::Array(vec![node(value)])),
        Some(_) => {
            let message = format!("a new array begins at 0, not at {0}; for a key write [\"{0}\"]", step.key);
            Err(path_error(path, message))
        }
        None => Ok(Value::Object(Object::from_iter([(Text::from(step.key.as_str()), node(value))]))),
    })
}

// ── the check ────────────────────────────────────────────────────────────────────────────────────────────────────

/// Equal as JavaScript's `Object.is` would have it, level by level; the order of keys does not count.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Number(a), Value::Number(b)) => a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()),
        (Value::String(a), Value::String(b)) => a == b,
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(&a.value, &b.value))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(key, a)| b.get(key.as_bytes()).is_some_and(|b| same(&a.value, &b.value)))
        }
        _ => false,
    }
}

/// The edit once more, on the tree instead of the text: both must come to the same.
fn verify(text: &str, path: &[Step], change: &Change, edited: &str) -> Result<()> {
    let mut expected = json5::parse(text.as_bytes(), 0)?.value;
    apply_to_tree(&mut expected, path, path, change)
        .ok_or_else(|| CoreError::new(Code::Internal, "an edit that the text allowed fails on its value"))?;
    match json5::parse(edited.as_bytes(), 0) {
        Ok(node) if same(&node.value, &expected) => Ok(()),
        _ => {
            let message =
                format!("the edit of {} came out wrong and was not written; please report it", show(path));
            Err(CoreError::new(Code::Internal, message).at_path(show(path)))
        }
    }
}

fn apply_to_tree(value: &mut Value, whole: &[Step], path: &[Step], change: &Change) -> Option<()> {
    let Some((step, rest)) = path.split_first() else {
        let Change::Set(new) = change else { return None };
        *value = new.clone();
        return Some(());
    };
    let leaf = rest.is_empty() && matches!(change, Change::Unset);
    match (value, change) {
        (Value::Object(object), _) if leaf => object.shift_remove(step.key.as_bytes()).map(drop),
        (Value::Array(items), _) if leaf => {
            let index = step.index().filter(|&index| index < items.len())?;
            items.remove(index);
            Some(())
        }
        (Value::Object(object), change) => {
            if let Some(child) = object.get_mut(step.key.as_bytes()) {
                return apply_to_tree(&mut child.value, whole, rest, change);
            }
            let Change::Set(new) = change else { return None };
            object.insert(Text::from(step.key.as_str()), node(nest(whole, rest, new).ok()?));
            Some(())
        }
        (Value::Array(items), change) => {
            let index = step.index()?;
            if let Some(child) = items.get_mut(index) {
                return apply_to_tree(&mut child.value, whole, rest, change);
            }
            let Change::Set(new) = change else { return None };
            items.push(node(nest(whole, rest, new).ok()?));
            Some(())
        }
        (value @ Value::Null, Change::Set(new)) => {
            *value = nest(whole, path, new).ok()?;
            Some(())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
