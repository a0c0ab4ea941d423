//! The splitter: Markdown into parts that a platform takes.
//!
//! Breaks fall as OpenClaw's fall (`chunkMarkdownText` and `chunkByParagraph`): at the last line end, else at the last space,
//! outside of parentheses and of fenced code; where there is none, between two graphemes (UAX #29), and only where a
//! grapheme alone is too long, within one. A fence that has to be split is closed at the end of its part and opened again
//! at the beginning of the next. What OpenClaw counts in UTF-16 code units is counted in the platform's unit here.

use std::borrow::Cow;
use std::ops::Range;

use unicode_segmentation::GraphemeCursor;

/// What a platform counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// UTF-16 code units, as JavaScript does.
    #[default]
    Utf16,
    /// Bytes of UTF-8.
    Utf8,
    /// Code points.
    Chars,
}

impl Unit {
    fn of(self, c: char) -> usize {
        match self {
            Self::Utf16 => c.len_utf16(),
            Self::Utf8 => c.len_utf8(),
            Self::Chars => 1,
        }
    }

    /// How long a text is.
    pub fn width(self, text: &str) -> usize {
        match self {
            Self::Utf8 => text.len(),
            _ => text.chars().map(|c| self.of(c)).sum(),
        }
    }
}

/// Where to break.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// As late as the limit allows.
    #[default]
    Length,
    /// Between paragraphs, as many as fit into a part; within one only if it alone is too long.
    Newline,
}

/// One part of a text that was split for its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its share of the text, in bytes. The shares of all pieces are the whole text, in order; white space at the end of
    /// one may be missing from `text`.
    pub source: Range<usize>,
    /// What to send.
    pub text: String,
}

/// Splits a text into parts within `limit`, which is 1 at least.
pub fn split(text: &str, limit: usize, unit: Unit, mode: Mode) -> Vec<String> {
    match mode {
        Mode::Length => split_length(text, limit, unit).into_iter().map(|piece| piece.text).collect(),
        Mode::Newline => {
            let mut parts = Vec::new();
            for paragraphs in by_paragraph(text, limit, unit) {
                if unit.width(&paragraphs) <= limit {
                    parts.push(paragraphs);
                    continue;
                }
                for chunk in unpack_fences(&paragraphs) {
                    parts.extend(split_length(chunk, limit, unit).into_iter().map(|piece| piece.text));
                }
            }
            parts
        }
    }
}

/// Splits a text so that what `render` makes of each part is within `limit`: the parts, and what they became.
///
/// Where a part is no longer than a code point and its rendering still too long, it is given as it is.
pub fn split_rendered(
    text: &str,
    limit: usize,
    unit: Unit,
    mode: Mode,
    render: &dyn Fn(&str) -> String,
) -> Vec<(String, String)> {
    // From the last to the first, with the limit of the split that made it.
    let mut waiting: Vec<(String, usize)> =
        split(text, limit, unit, mode).into_iter().rev().map(|part| (part, limit)).collect();
    let mut done = Vec::new();
    while let Some((part, split_at)) = waiting.pop() {
        let rendered = render(&part);
        let width = unit.width(&rendered);
        if width <= limit || split_at <= 1 {
            done.push((part, rendered));
            continue;
        }
        // As much shorter as the rendering is too long, and always shorter.
        let own = unit.width(&part).min(split_at);
        let target = (own * limit / width).clamp(1, own.saturating_sub(1).max(1));
        waiting.extend(split(&part, target, unit, Mode::Length).into_iter().rev().map(|part| (part, target)));
    }
    done
}

/// Splits a text for its length alone.
pub fn split_length(text: &str, limit: usize, unit: Unit) -> Vec<Piece> {
    let limit = limit.max(1);
    if text.is_empty() {
        return Vec::new();
    }
    let measured = Measured::new(text, unit);
    let length = measured.len();
    if length <= limit {
        return vec![Piece { source: 0..text.len(), text: text.to_owned() }];
    }
    let fences = fences(&measured);
    let mut pieces: Vec<Piece> = Vec::new();
    let mut start = 0;
    let mut reopen: Option<&Fence> = None;
    while start < length {
        let head = reopen.map(|fence| fence.reopening(limit, unit)).filter(|line| !line.is_empty());
        let head = head.map_or_else(String::new, |line| format!("{line}\n"));
        let room = limit.saturating_sub(unit.width(&head)).max(1);
        if length - start <= room {
            let source = measured.byte(start)..text.len();
            pieces.push(Piece { text: format!("{head}{}", measured.slice(start, length)), source });
            break;
        }
        reopen = None;
        let window = length.min(start + room);
        let soft = soft_break(&measured, start, window, &fences);
        let mut cut = measured.chunk_end(start, window, soft);
        let within = fence_at(&fences, cut);
        let mut split_fence = within;
        if let Some(fence) = within {
            (cut, split_fence, reopen) =
                cut_fence(&measured, &fences, fence, start, window, room, limit, !head.is_empty());
        }
        if cut <= start {
            break;
        }
        let mut out = format!("{head}{}", measured.slice(start, cut));
        let mut next = cut;
        if let Some(fence) = split_fence {
            if !out.ends_with('\n') {
                out.push('\n');
            }
            out.push_str(&fence.closing());
            reopen = Some(fence);
            if unit.width(&out) > limit {
                // A code point that leaves no room for the marks.
                cut = measured.chunk_end(start, window, None);
                out = format!("{head}{}", measured.slice(start, cut));
                if unit.width(&out) > limit {
                    cut = measured.chunk_end(start, start + limit, None);
                    measured.slice(start, cut).clone_into(&mut out);
                }
                next = cut;
                reopen = fence_at(&fences, cut);
            }
        } else if within.is_none() {
            next = measured.skip_space(cut, 1);
            next = measured.skip_line_ends(next);
        }
        pieces.push(Piece { source: measured.byte(start)..measured.byte(next), text: out });
        start = next;
    }
    pieces
}

/// Where to cut within a fence: the place, the fence if it is to be closed there, and the one to open again.
#[allow(clippy::too_many_arguments, reason = "a step of `split_length`, apart for its length alone")]
fn cut_fence<'f>(
    measured: &Measured<'_>,
    fences: &'f [Fence],
    fence: &'f Fence,
    start: usize,
    window: usize,
    room: usize,
    limit: usize,
    reopened: bool,
) -> (usize, Option<&'f Fence>, Option<&'f Fence>) {
    let unit = measured.unit;
    // The fence that an open cut falls into need not be this one.
    let openly = || {
        let cut = measured.chunk_end(start, window, None);
        (cut, None, fence_at(fences, cut))
    };
    if fence.reopening(limit, unit).is_empty() {
        // No room for its marks: it is split as text.
        return openly();
    }
    let closing = unit.width(&fence.closing());
    let with_line_end = (start + room).saturating_sub(closing + 1);
    let without = (start + room).saturating_sub(closing);
    let least =
        if reopened { start + 1 } else { (start + 1).max(fence.start + unit.width(&fence.open_line) + 2) };
    let least = least.min(measured.len());
    let mut cut = None;
    let mut line_end = measured.last_line_end(start.max(without.saturating_sub(1)));
    while let Some(at) = line_end.filter(|&at| at >= start) {
        let candidate = at + 1;
        if candidate < least {
            break;
        }
        if fence_at(fences, candidate).is_some_and(|found| found.start == fence.start) {
            cut = Some(candidate);
            break;
        }
        line_end = at.checked_sub(1).and_then(|before| measured.last_line_end(before));
    }
    if cut.is_none() && least >= without {
        return openly();
    }
    let end = if cut.is_some() { without } else { with_line_end };
    let cut = measured.chunk_end(start, end, cut);
    // OpenClaw leaves another fence open that the cut has got into.
    (cut, fence_at(fences, cut), None)
}

/// A text with the offset of each code point, in a unit.
struct Measured<'t> {
    text: &'t str,
    unit: Unit,
    /// For each code point, and for the end: its offset in the unit, and in bytes.
    offsets: Vec<(usize, usize)>,
}

impl<'t> Measured<'t> {
    fn new(text: &'t str, unit: Unit) -> Self {
        let mut offsets = Vec::with_capacity(text.len() + 1);
        let mut at = 0;
        for (byte, c) in text.char_indices() {
            offsets.push((at, byte));
            at += unit.of(c);
        }
        offsets.push((at, text.len()));
        Self { text, unit, offsets }
    }

    fn len(&self) -> usize {
        self.offsets.last().map_or(0, |end| end.0)
    }

    /// The byte of the last code point that begins at or before an offset.
    fn byte(&self, at: usize) -> usize {
        let after = self.offsets.partition_point(|&(offset, _)| offset <= at);
        self.offsets.get(after.saturating_sub(1)).map_or(0, |&(_, byte)| byte)
    }

    /// The offset of a byte, at which a code point begins.
    fn offset(&self, byte: usize) -> usize {
        let found = self.offsets.partition_point(|&(_, at)| at < byte);
        self.offsets.get(found).map_or_else(|| self.len(), |&(offset, _)| offset)
    }

    fn slice(&self, from: usize, to: usize) -> &'t str {
        self.text.get(self.byte(from)..self.byte(to)).unwrap_or_default()
    }

    /// Code points that begin between two offsets, each with its own.
    fn chars(&self, from: usize, to: usize) -> impl Iterator<Item = (usize, char)> {
        let tail = self.text.get(self.byte(from)..).unwrap_or_default();
        let mut at = self.offset(self.byte(from));
        tail.chars()
            .map(move |c| {
                let here = at;
                at += self.unit.of(c);
                (here, c)
            })
            .take_while(move |&(at, _)| at < to)
    }

    /// The last line end at or before an offset.
    fn last_line_end(&self, at: usize) -> Option<usize> {
        let head = self.text.get(..self.offsets.get(self.index(at) + 1).map_or(self.text.len(), |o| o.1));
        head?.rfind('\n').map(|byte| self.offset(byte))
    }

    fn index(&self, at: usize) -> usize {
        self.offsets.partition_point(|&(offset, _)| offset <= at).saturating_sub(1)
    }

    /// The grapheme that an offset lies in; the end of the text lies in none.
    fn grapheme(&self, at: usize) -> Option<Range<usize>> {
        if at >= self.len() {
            return None;
        }
        let bytes = grapheme(self.text, self.byte(at))?;
        Some(self.offset(bytes.start)..self.offset(bytes.end))
    }

    /// The latest place to cut that is not behind `most`: `preferred` if it can be, whole graphemes if they fit.
    fn chunk_end(&self, start: usize, most: usize, preferred: Option<usize>) -> usize {
        let hard = most.min(self.len());
        if hard <= start {
            return start;
        }
        let preferred = preferred.filter(|&at| at > start && at <= hard).unwrap_or(hard);
        if preferred == self.len() {
            return preferred;
        }
        let mut end = self.grapheme(preferred).map_or(preferred, |found| found.start);
        if end <= start && preferred < hard {
            end =
                if hard == self.len() { hard } else { self.grapheme(hard).map_or(hard, |found| found.start) };
        }
        if end > start {
            return end;
        }
        // No whole grapheme fits: code points, and one of them at least.
        let first = self.offsets.get(self.index(start) + 1).map_or(hard, |&(offset, _)| offset);
        self.offset(self.byte(hard)).max(first)
    }

    /// Behind white space, of at most so many graphemes.
    fn skip_space(&self, start: usize, most: usize) -> usize {
        let byte = skip_space(self.text, self.byte(start), most);
        self.offset(byte)
    }

    /// Behind the line ends that begin here.
    fn skip_line_ends(&self, start: usize) -> usize {
        let from = self.byte(start);
        let tail = self.text.get(from..).unwrap_or_default();
        if !tail.starts_with('\n') {
            return start;
        }
        let after = skip_space(self.text, from, 1);
        if after == from {
            return start;
        }
        let more = self.text.get(after..).unwrap_or_default();
        self.offset(after + more.bytes().take_while(|&byte| byte == b'\n').count())
    }
}

/// The grapheme that holds the code point at a byte.
fn grapheme(text: &str, at: usize) -> Option<Range<usize>> {
    let next = at + text.get(at..)?.chars().next()?.len_utf8();
    let mut cursor = GraphemeCursor::new(at, text.len(), true);
    let start = match cursor.is_boundary(text, 0) {
        Ok(true) => at,
        _ => cursor.prev_boundary(text, 0).ok().flatten().unwrap_or(0),
    };
    let mut cursor = GraphemeCursor::new(next, text.len(), true);
    let end = match cursor.is_boundary(text, 0) {
        Ok(true) => next,
        _ => cursor.next_boundary(text, 0).ok().flatten().unwrap_or(text.len()),
    };
    Some(start..end)
}

/// JavaScript's `\s`.
pub(super) fn is_space(c: char) -> bool {
    matches!(c,
        '\t'..='\r' | ' ' | '\u{A0}' | '\u{1680}' | '\u{2000}'..='\u{200A}' | '\u{2028}' | '\u{2029}' | '\u{202F}'
        | '\u{205F}' | '\u{3000}' | '\u{FEFF}')
}

fn is_blank(text: &str) -> bool {
    text.chars().all(is_space)
}

/// Behind the graphemes of white space that begin at a byte, at most so many.
fn skip_space(text: &str, start: usize, most: usize) -> usize {
    let mut at = start;
    for _ in 0..most {
        match grapheme(text, at) {
            Some(found) if found.start == at && text.get(found.clone()).is_some_and(is_blank) => {
                at = found.end;
            }
            _ => break,
        }
    }
    at
}

/// The first `end` bytes without the graphemes of white space at their end.
fn trim_end(text: &str, end: usize) -> &str {
    let mut at = end;
    while let Some(last) = text.get(..at).and_then(|head| head.char_indices().next_back()) {
        match grapheme(text, last.0) {
            Some(found) if found.end <= at && text.get(found.clone()).is_some_and(is_blank) => {
                at = found.start;
            }
            _ => break,
        }
    }
    text.get(..at).unwrap_or_default()
}

/// A fenced code block, with offsets in the unit.
#[derive(Debug)]
struct Fence {
    start: usize,
    end: usize,
    open_line: String,
    indent: String,
    marker: String,
}

impl Fence {
    fn closing(&self) -> String {
        format!("{}{}", self.indent, self.marker)
    }

    /// The line that opens it again: with its language if the limit has room for that; empty if it has none at all.
    fn reopening(&self, limit: usize, unit: Unit) -> Cow<'_, str> {
        let marks = self.closing();
        let width = unit.width(&marks);
        if unit.width(&self.open_line) + width + 3 <= limit {
            Cow::Borrowed(&self.open_line)
        } else if width * 2 + 3 <= limit {
            Cow::Owned(marks)
        } else {
            Cow::Borrowed("")
        }
    }
}

/// The fenced code blocks of a text, as OpenClaw finds them: by lines, wherever they stand.
fn fences(measured: &Measured<'_>) -> Vec<Fence> {
    let mut found: Vec<Fence> = Vec::new();
    let mut open: Option<Fence> = None;
    let mut at = 0;
    for line in measured.text.split('\n') {
        let begin = at;
        at += line.len() + 1;
        let Some((indent, marker, trailing)) = fence_line(line) else { continue };
        match &mut open {
            None => {
                open = Some(Fence {
                    start: measured.offset(begin),
                    end: measured.len(),
                    open_line: format!("{indent}{marker}{trailing}"),
                    indent: indent.to_owned(),
                    marker: marker.to_owned(),
                });
            }
            Some(fence) => {
                let closes = fence.marker.as_bytes().first() == marker.as_bytes().first()
                    && marker.len() >= fence.marker.len()
                    && trailing.bytes().all(|byte| byte == b' ' || byte == b'\t');
                if closes {
                    fence.end = measured.offset(begin + line.len());
                    found.extend(open.take());
                }
            }
        }
    }
    found.extend(open);
    found
}

/// Indent, marks and the rest of a line that may open or close a fence.
fn fence_line(line: &str) -> Option<(&str, &str, &str)> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    let body = line.trim_start_matches(' ');
    let indent = line.len() - body.len();
    let mark = body.chars().next().filter(|&c| c == '`' || c == '~')?;
    let rest = body.trim_start_matches(mark);
    let marks = body.len() - rest.len();
    if indent > 3 || marks < 3 || rest.contains(['\r', '\u{2028}', '\u{2029}']) {
        return None;
    }
    Some((line.get(..indent)?, body.get(..marks)?, rest))
}

fn fence_at(fences: &[Fence], at: usize) -> Option<&Fence> {
    let after = fences.partition_point(|fence| fence.start < at);
    fences.get(after.checked_sub(1)?).filter(|fence| at > fence.start && at < fence.end)
}

/// The last line end between two offsets, else the last other white space, outside of parentheses and fences.
fn soft_break(measured: &Measured<'_>, start: usize, end: usize, fences: &[Fence]) -> Option<usize> {
    let (line_end, space) = break_points(measured, start, end, fences);
    line_end.filter(|&at| at > start).or(space.filter(|&at| at > start))
}

fn break_points(
    measured: &Measured<'_>,
    start: usize,
    end: usize,
    fences: &[Fence],
) -> (Option<usize>, Option<usize>) {
    let (mut line_end, mut space) = (None, None);
    let mut depth = 0_u32;
    let mut fences = fences.iter().skip_while(|fence| fence.end <= start).peekable();
    for (at, c) in measured.chars(start, end) {
        while fences.next_if(|fence| fence.end <= at).is_some() {}
        if fences.peek().is_some_and(|fence| at > fence.start) {
            continue;
        }
        match c {
            '(' => depth += 1,
            ')' if depth > 0 => depth -= 1,
            _ if depth > 0 => {}
            '\n' => line_end = Some(at),
            c if is_space(c) => space = Some(at),
            _ => {}
        }
    }
    (line_end, space)
}

/// Paragraphs, packed as long as they fit. One that is too long is alone in its part.
fn by_paragraph(text: &str, limit: usize, unit: Unit) -> Vec<String> {
    let text = text.replace('\u{2029}', "\n\n").replace("\r\n", "\n").replace(['\r', '\u{2028}'], "\n");
    if text.is_empty() {
        return Vec::new();
    }
    let separators = separators(&text);
    if separators.is_empty() {
        return vec![text];
    }
    // OpenClaw leaves those out that stand in code of any kind; code that is not fenced holds few.
    let measured = Measured::new(&text, Unit::Utf8);
    let code = fences(&measured);
    let mut chunks: Vec<String> = Vec::new();
    let mut current = String::new();
    let mut before: Option<&str> = None;
    let mut start = 0;
    let outside = separators
        .into_iter()
        .filter(|range| !code.iter().any(|f| range.start >= f.start && range.start < f.end));
    for separator in outside.chain(std::iter::once(text.len()..text.len())) {
        let paragraph = text.get(start..separator.start).unwrap_or_default();
        let paragraph = trim_end(paragraph, paragraph.len());
        if !paragraph.is_empty() {
            let joint = before.unwrap_or("\n\n");
            let width = |text: &str| unit.width(text);
            if !current.is_empty() && width(&current) + width(joint) + width(paragraph) <= limit {
                current.push_str(joint);
                current.push_str(paragraph);
            } else {
                if !current.is_empty() {
                    chunks.push(std::mem::take(&mut current));
                }
                if width(paragraph) <= limit {
                    paragraph.clone_into(&mut current);
                } else {
                    chunks.push(paragraph.to_owned());
                }
            }
        }
        before = text.get(separator.clone());
        start = separator.end;
    }
    if !current.is_empty() {
        chunks.push(current);
    }
    chunks
}

/// Where blank lines are: `\n[\t ]*\n+`.
fn separators(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(line_end) = memchr::memchr(b'\n', bytes.get(at..).unwrap_or_default()) {
        let start = at + line_end;
        let count = |from: usize, wanted: &[u8]| {
            bytes.iter().skip(from).take_while(|byte| wanted.contains(byte)).count()
        };
        let blank = start + 1 + count(start + 1, b"\t ");
        let ends = count(blank, b"\n");
        if ends == 0 {
            at = start + 1;
        } else {
            at = blank + ends;
            found.push(start..at);
        }
    }
    found
}

/// A chunk of paragraphs, parted behind each fence that a blank line follows.
fn unpack_fences(chunk: &str) -> Vec<&str> {
    let measured = Measured::new(chunk, Unit::Utf8);
    let mut parts = Vec::new();
    let mut start = 0;
    for fence in fences(&measured) {
        if fence.end <= start {
            continue;
        }
        let Some(separator) = separators(chunk.get(fence.end..).unwrap_or_default())
            .first()
            .filter(|range| range.start == 0)
            .cloned()
        else {
            continue;
        };
        let next = fence.end + separator.end;
        if is_blank(chunk.get(next..).unwrap_or_default()) {
            continue;
        }
        parts.extend(chunk.get(start..fence.end));
        start = next;
    }
    parts.extend(chunk.get(start..).filter(|tail| !tail.is_empty()));
    parts
}

#[cfg(test)]
mod tests;
