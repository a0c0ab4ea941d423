//! Reasoning that a server leaves in the text, between tags: `<think>…</think>answer`. vLLM, LM Studio and llama.cpp do so
//! unless they are told otherwise.
//!
//! As in OpenClaw's chat transport (`packages/markdown-core/src/reasoning-tags.ts`) it is dropped, with its tags; what stands
//! in Markdown code is text, as are tags that nobody closes. OpenClaw parses all of Markdown for that. Here fences and
//! backticks are followed as they come, so that nothing waits but what may still become a tag.

/// The names of the tags; `internal` is never shown, even if it is not closed.
const NAMES: [&str; 6] = ["think", "thinking", "thought", "reasoning", "internal", "antthinking"];
/// What may stand before the first four.
const PREFIXES: [&str; 2] = ["antml:", "mm:"];
/// No tag is longer.
const TAG_BYTES: usize = 4096;

/// Follows one text.
#[derive(Debug, Default)]
pub(super) struct TagFilter {
    /// The beginning of what may become a tag, or a run of backticks that may go on.
    held: String,
    /// Open tags, one in the other.
    depth: u32,
    /// What stands in them, and the outermost tag.
    thought: String,
    opening: String,
    /// Text came before the tag.
    after_text: bool,
    /// What is inside is not to be shown, whatever comes.
    hidden: bool,
    code: Code,
    /// The server sends reasoning in a field of its own: tags are leftovers.
    pub(super) strict: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Code {
    #[default]
    None,
    /// Behind so many backticks.
    Inline(usize),
    /// Behind a line of so many.
    Fence(u8, usize),
}

enum Tag {
    /// Not one.
    No,
    /// More is to come before it can be told.
    Perhaps,
    Open {
        bytes: usize,
        private: bool,
    },
    Close(usize),
    /// `<think/>`
    Empty(usize),
}

/// Whether a delta, as it stands in JSON, can begin neither a tag nor code.
pub(super) fn is_plain(json: &str) -> bool {
    !json.bytes().any(|byte| matches!(byte, b'<' | b'`' | b'~')) && !json.contains("\\u00")
}

impl TagFilter {
    /// Whether what comes next is text, if it [`is_plain`].
    pub(super) fn is_idle(&self) -> bool {
        self.depth == 0 && self.code == Code::None && self.held.is_empty()
    }

    /// More text. Appends what of it is shown; `before` is what was shown until now.
    pub(super) fn push(&mut self, more: &str, before: &str, shown: &mut String) {
        let mut text = std::mem::take(&mut self.held);
        text.push_str(more);
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let special = rest.find(['<', '`', '~', '\n']).unwrap_or(rest.len());
            let (plain, tail) = rest.split_at(special);
            self.append(plain, shown);
            rest = match tail.bytes().next() {
                Some(b'<') if self.code == Code::None => self.tag(tail, before, shown),
                Some(mark @ (b'`' | b'~')) if self.depth == 0 => self.run(mark, tail, before, shown),
                Some(_) => {
                    // A blank line ends the paragraph, and what looked like code in it.
                    let blank = last_line(before, shown).iter().all(|part| part.trim().is_empty());
                    if tail.starts_with('\n') && blank && matches!(self.code, Code::Inline(_)) {
                        self.code = Code::None;
                    }
                    let after = tail.get(1..).unwrap_or_default();
                    self.append(tail.get(..1).unwrap_or_default(), shown);
                    after
                }
                None => tail,
            };
            if !self.held.is_empty() {
                return;
            }
        }
    }

    /// The text is over. Appends what waited.
    pub(super) fn flush(&mut self, shown: &mut String) {
        let held = std::mem::take(&mut self.held);
        self.append(&held, shown);
        if self.depth > 0 && !self.hidden && !self.strict {
            if self.after_text {
                shown.push_str(&self.opening);
            }
            shown.push_str(&self.thought);
        }
        *self = Self { strict: self.strict, ..Self::default() };
    }

    fn append(&mut self, text: &str, shown: &mut String) {
        if self.depth > 0 { self.thought.push_str(text) } else { shown.push_str(text) }
    }

    /// `text` begins with `<`. What is left of it.
    fn tag<'t>(&mut self, text: &'t str, before: &str, shown: &mut String) -> &'t str {
        let bytes = match parse(text) {
            Tag::Perhaps if text.len() <= TAG_BYTES => {
                text.clone_into(&mut self.held);
                return "";
            }
            Tag::No | Tag::Perhaps => {
                self.append("<", shown);
                1
            }
            Tag::Empty(bytes) => bytes,
            Tag::Open { bytes, private } => {
                if self.depth == 0 {
                    self.hidden = false;
                    self.after_text = !(before.trim_start().is_empty() && shown.trim_start().is_empty());
                    text.get(..bytes).unwrap_or_default().clone_into(&mut self.opening);
                }
                self.hidden |= private;
                self.depth += 1;
                bytes
            }
            Tag::Close(bytes) => {
                match self.depth {
                    0 if self.strict => {}
                    0 => self.append(text.get(..bytes).unwrap_or_default(), shown),
                    1 => {
                        self.depth = 0;
                        self.thought = String::new();
                    }
                    _ => {
                        self.depth -= 1;
                        self.hidden = true;
                    }
                }
                bytes
            }
        };
        text.get(bytes..).unwrap_or_default()
    }

    /// `text` begins with a run of `mark`. What is left of it.
    fn run<'t>(&mut self, mark: u8, text: &'t str, before: &str, shown: &mut String) -> &'t str {
        let length = text.bytes().take_while(|byte| *byte == mark).count();
        let (run, rest) = text.split_at(length);
        if rest.is_empty() && length <= TAG_BYTES {
            run.clone_into(&mut self.held);
            return "";
        }
        // A fence stands at the beginning of its line, behind at most the marks of a list or a quotation.
        let first = last_line(before, shown)
            .iter()
            .all(|part| part.bytes().all(|byte| b" \t>*+-.)".contains(&byte) || byte.is_ascii_digit()));
        self.code = match self.code {
            Code::Fence(fence, least) if first && fence == mark && length >= least => Code::None,
            Code::None if first && length >= 3 => Code::Fence(mark, length),
            Code::None if mark == b'`' => Code::Inline(length),
            Code::Inline(opened) if mark == b'`' && opened == length => Code::None,
            other => other,
        };
        shown.push_str(run);
        rest
    }
}

/// The line that is being written, in two parts.
fn last_line<'t>(before: &'t str, shown: &'t str) -> [&'t str; 2] {
    match shown.rsplit_once('\n') {
        Some((_, line)) => [line, ""],
        None => [before.rsplit_once('\n').map_or(before, |(_, line)| line), shown],
    }
}

/// What `text` begins with, which begins with `<`.
fn parse(text: &str) -> Tag {
    let inner = text.get(1..).unwrap_or_default().trim_start();
    let (close, inner) = match inner.strip_prefix('/') {
        Some(inner) => (true, inner.trim_start()),
        None => (false, inner),
    };
    let end = inner.find(|char: char| !char.is_ascii_alphanumeric() && char != ':').unwrap_or(inner.len());
    let (name, rest) = inner.split_at(end);
    let name = name.to_ascii_lowercase();
    let is_known = |begins: bool| {
        let fits = |known: &str, name: &str| known == name || begins && known.starts_with(name);
        NAMES.iter().any(|known| fits(known, &name))
            || PREFIXES.iter().any(|prefix| match name.strip_prefix(prefix) {
                Some(name) => NAMES.iter().take(4).any(|known| fits(known, name)),
                None => begins && prefix.starts_with(&name),
            })
    };
    if rest.is_empty() {
        return if is_known(true) { Tag::Perhaps } else { Tag::No };
    }
    if !is_known(false) || !rest.starts_with(|char: char| char.is_whitespace() || char == '/' || char == '>')
    {
        return Tag::No;
    }
    let mut quote = None;
    let mut last = ' ';
    for (at, char) in rest.char_indices() {
        match (quote, char) {
            (Some(open), _) if open == char => quote = None,
            (None, '"' | '\'') => quote = Some(char),
            (None, '<') => return Tag::No,
            (None, '>') => {
                let bytes = text.len() - rest.len() + at + 1;
                return match close {
                    true => Tag::Close(bytes),
                    false if last == '/' => Tag::Empty(bytes),
                    false => Tag::Open { bytes, private: name == "internal" },
                };
            }
            _ => {}
        }
        if !char.is_whitespace() {
            last = char;
        }
    }
    Tag::Perhaps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(pieces: &[&str], strict: bool) -> String {
        let mut filter = TagFilter { strict, ..TagFilter::default() };
        let mut all = String::new();
        for piece in pieces {
            let mut shown = String::new();
            if filter.is_idle() && is_plain(piece) {
                shown.push_str(piece);
            } else {
                filter.push(piece, &all, &mut shown);
            }
            all.push_str(&shown);
        }
        let mut shown = String::new();
        filter.flush(&mut shown);
        all + &shown
    }

    /// OpenClaw's partitioner gives the same for each of these, fed whole.
    #[test]
    fn what_stands_between_tags_is_dropped_and_what_stands_in_code_is_not() {
        for (text, expected) in [
            ("<think>x</think>hello", "hello"),
            ("<think>\nx < y\n</think>\n\nhello", "\n\nhello"),
            ("a <think>x</think> b", "a  b"),
            ("<thinking a='>'>x</ thinking >b", "b"),
            ("<mm:think>x</mm:think>b<thought>y</thought>c", "bc"),
            ("<THINK>x</Think>b", "b"),
            ("<think><think>x</think>y</think>b", "b"),
            ("<think/>b", "b"),
            ("if a <thin && b < think then", "if a <thin && b < think then"),
            ("<thinker>x</thinker>", "<thinker>x</thinker>"),
            ("x</think>y", "x</think>y"),
            ("<think>never closed", "never closed"),
            ("a<think>never closed", "a<think>never closed"),
            ("a<internal>never closed", "a"),
            ("use `<think>` so", "use `<think>` so"),
            ("```\n<think>x</think>\n```\n<think>y</think>z", "```\n<think>x</think>\n```\nz"),
            ("~~~\n<think>x</think>\n~~~\nz ~ <think>y</think>", "~~~\n<think>x</think>\n~~~\nz ~ "),
            ("a ``b`<think>`` c<think>y</think>", "a ``b`<think>`` c"),
            ("a lone ` tick\n\n<think>y</think>z", "a lone ` tick\n\nz"),
            ("ends with <", "ends with <"),
            ("ends with `", "ends with `"),
            ("<th", "<th"),
        ] {
            assert_eq!(filter(&[text], false), expected, "{text:?}");
            let chars: Vec<String> = text.chars().map(String::from).collect();
            let chars: Vec<&str> = chars.iter().map(String::as_str).collect();
            assert_eq!(filter(&chars, false), expected, "{text:?}, char by char");
            for (at, _) in text.char_indices() {
                assert_eq!(filter(&[&text[..at], &text[at..]], false), expected, "{text:?}, cut at {at}");
            }
        }
        assert_eq!(filter(&["x</think>y"], true), "xy");
        assert_eq!(filter(&["y<think>never closed"], true), "y");
    }
}
