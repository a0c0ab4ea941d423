//! Markdown as the Bot API's HTML: <https://core.telegram.org/bots/api#html-style>.
//!
//! What Telegram has no form for is left as it was written: lists, tables, images. Tags always close in the order in which
//! they opened, whatever the Markdown is like, since one that does not would have the whole message refused.

use std::fmt::Write as _;

use crate::channels::marks::link_at;

/// Renders a text.
pub(in crate::channels) fn render(markdown: &str) -> String {
    let mut out = String::with_capacity(markdown.len() + markdown.len() / 8);
    let mut lines = markdown.split('\n').peekable();
    let mut first = true;
    while let Some(line) = lines.next() {
        if !std::mem::take(&mut first) {
            out.push('\n');
        }
        if let Some((mark, language)) = fence(line) {
            let mut code = Vec::new();
            for line in lines.by_ref() {
                if line.trim().len() >= mark.len() && !mark.is_empty() && is_closing(line, mark) {
                    break;
                }
                code.push(line);
            }
            let code = escape(&code.join("\n"));
            // A name in an attribute: nothing that could end it.
            let language: String =
                language.chars().take_while(|c| c.is_ascii_alphanumeric() || "+-#_.".contains(*c)).collect();
            if language.is_empty() {
                _ = write!(out, "<pre>{code}</pre>");
            } else {
                _ = write!(out, "<pre><code class=\"language-{language}\">{code}</code></pre>");
            }
            continue;
        }
        if let Some(quoted) = quote(line) {
            let mut inner = vec![quoted];
            while let Some(more) = lines.peek().and_then(|line| quote(line)) {
                inner.push(more);
                lines.next();
            }
            let text = inner.iter().map(|line| inline(line)).collect::<Vec<_>>().join("\n");
            _ = write!(out, "<blockquote>{text}</blockquote>");
            continue;
        }
        let heading = line.trim_start_matches('#');
        let level = line.len() - heading.len();
        if (1..=6).contains(&level) && heading.starts_with(' ') {
            _ = write!(out, "<b>{}</b>", inline(heading.trim()));
        } else {
            out.push_str(&inline(line));
        }
    }
    out
}

fn fence(line: &str) -> Option<(&str, &str)> {
    let body = line.trim_start_matches(' ');
    let mark = body.chars().next().filter(|&c| c == '`' || c == '~')?;
    let rest = body.trim_start_matches(mark);
    let count = body.len() - rest.len();
    let fits = line.len() - body.len() <= 3 && count >= 3 && !(mark == '`' && rest.contains('`'));
    fits.then_some((body.get(..count)?, rest.trim()))
}

fn is_closing(line: &str, mark: &str) -> bool {
    let line = line.trim();
    mark.chars().next().is_some_and(|c| line.chars().all(|other| other == c)) && line.len() >= mark.len()
}

fn quote(line: &str) -> Option<&str> {
    let rest = line.strip_prefix('>')?;
    Some(rest.strip_prefix(' ').unwrap_or(rest))
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Pairs of marks, the longer first.
const MARKS: [(&str, &str); 7] =
    [("**", "b"), ("__", "b"), ("~~", "s"), ("||", "tg-spoiler"), ("*", "i"), ("_", "i"), ("~", "s")];

/// Farther apart, in bytes, marks are text: whoever sends one after the other must not cost us hours.
const REACH: usize = 8192;
/// Deeper than this, marks are text.
const DEPTH: usize = 8;

fn inline(text: &str) -> String {
    let mut out = String::new();
    write_inline(text, 0, &mut out);
    out
}

fn write_inline(text: &str, depth: usize, out: &mut String) {
    let mut rest = text;
    let mut before: Option<char> = None;
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '\\' => escaped(rest, out),
            '`' => code(rest, out),
            '[' if depth < DEPTH => link(rest, depth, out),
            '*' | '_' | '~' | '|' if depth < DEPTH => marked(rest, before, depth, out),
            _ => None,
        };
        let taken = taken.unwrap_or_else(|| {
            match c {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                c => out.push(c),
            }
            c.len_utf8()
        });
        before = rest.get(..taken).and_then(|taken| taken.chars().next_back());
        rest = rest.get(taken..).unwrap_or_default();
    }
}

fn escaped(rest: &str, out: &mut String) -> Option<usize> {
    let next = rest.chars().nth(1).filter(char::is_ascii_punctuation)?;
    out.push_str(&escape(next.encode_utf8(&mut [0; 4])));
    Some(1 + next.len_utf8())
}

fn code(rest: &str, out: &mut String) -> Option<usize> {
    let ticks = rest.len() - rest.trim_start_matches('`').len();
    let mark = rest.get(..ticks)?;
    let body = rest.get(ticks..)?;
    let end = body.match_indices(mark).map(|(at, _)| at).find(|&at| {
        let after = body.get(at + ticks..).unwrap_or_default();
        !after.starts_with('`') && !body.get(..at).unwrap_or_default().ends_with('`')
    })?;
    let inner = body.get(..end)?;
    if inner.is_empty() {
        return None;
    }
    _ = write!(out, "<code>{}</code>", escape(inner));
    Some(ticks + end + ticks)
}

fn link(rest: &str, depth: usize, out: &mut String) -> Option<usize> {
    let (label, url, length) = link_at(rest)?;
    let known = ["http://", "https://", "tg://", "mailto:", "tel:"];
    if !known.iter().any(|scheme| url.starts_with(scheme)) || url.contains(char::is_whitespace) {
        return None;
    }
    _ = write!(out, "<a href=\"{}\">", escape(url).replace('"', "&quot;"));
    write_inline(label, depth + 1, out);
    out.push_str("</a>");
    Some(length)
}

fn marked(rest: &str, before: Option<char>, depth: usize, out: &mut String) -> Option<usize> {
    let (mark, tag) = MARKS.into_iter().find(|(mark, _)| rest.starts_with(mark))?;
    // A single `~` is text, and `_` within a word is part of it.
    let c = mark.chars().next()?;
    if mark == "~" || (c == '_' && before.is_some_and(char::is_alphanumeric)) {
        return None;
    }
    let body = rest.get(mark.len()..)?;
    if body.starts_with(|c: char| c.is_whitespace()) || body.is_empty() {
        return None;
    }
    let starts = body.char_indices().map(|(at, _)| at).take_while(|&at| at < REACH);
    let end = starts.into_iter().find(|&at| {
        let (inner, after) = (body.get(..at).unwrap_or_default(), body.get(at..).unwrap_or_default());
        let Some(after) = after.strip_prefix(mark) else { return false };
        let longer = after.starts_with(c) || (mark.len() == 1 && inner.ends_with(c));
        let within = c == '_' && after.starts_with(char::is_alphanumeric);
        !inner.is_empty()
            && !inner.ends_with(char::is_whitespace)
            && !inner.ends_with('\\')
            && !longer
            && !within
    })?;
    _ = write!(out, "<{tag}>");
    write_inline(body.get(..end)?, depth + 1, out);
    _ = write!(out, "</{tag}>");
    Some(mark.len() + end + mark.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_becomes_what_the_bot_api_reads() {
        let cases = [
            ("plain", "plain"),
            ("a < b & c > d", "a &lt; b &amp; c &gt; d"),
            (
                "**bold** and *it* and __b__ and _i_ and ~~s~~ and ||x||",
                "<b>bold</b> and <i>it</i> and <b>b</b> and <i>i</i> and <s>s</s> and <tg-spoiler>x</tg-spoiler>",
            ),
            ("***both***", "<b><i>both</i></b>"),
            ("snake_case_name and 2*3*4", "snake_case_name and 2<i>3</i>4"),
            ("`a <b> **c**`", "<code>a &lt;b&gt; **c**</code>"),
            ("``a ` b``", "<code>a ` b</code>"),
            (
                "[t**x**](https://e.org/?a=1&b=\"2\")",
                "<a href=\"https://e.org/?a=1&amp;b=&quot;2&quot;\">t<b>x</b></a>",
            ),
            ("[w](https://en.org/wiki/A_(b))", "<a href=\"https://en.org/wiki/A_(b)\">w</a>"),
            ("[x](javascript:alert(1))", "[x](javascript:alert(1))"),
            ("# Head *x*\ntext", "<b>Head <i>x</i></b>\ntext"),
            ("> one\n> two\nthree", "<blockquote>one\ntwo</blockquote>\nthree"),
            (
                "```rust\nlet a = \"<\";\n```\nend",
                "<pre><code class=\"language-rust\">let a = \"&lt;\";</code></pre>\nend",
            ),
            ("```\"><b>\nx\n```", "<pre>x</pre>"),
            ("```\nopen", "<pre>open</pre>"),
            ("\\*not\\* * alone", "*not* * alone"),
            ("**open", "**open"),
        ];
        for (markdown, html) in cases {
            assert_eq!(render(markdown), html, "{markdown}");
        }
    }

    /// Tags nest, and nothing else looks like one.
    fn is_well_formed(html: &str) -> bool {
        let mut open: Vec<&str> = Vec::new();
        let mut rest = html;
        while let Some(at) = rest.find('<') {
            if rest[..at].contains('>') {
                return false;
            }
            let Some(end) = rest[at..].find('>') else { return false };
            let tag = &rest[at + 1..at + end];
            if let Some(name) = tag.strip_prefix('/') {
                if open.pop() != Some(name) {
                    return false;
                }
            } else {
                open.push(tag.split(' ').next().unwrap());
            }
            rest = &rest[at + end + 1..];
        }
        open.is_empty() && !rest.contains('>')
    }

    #[test]
    fn whatever_is_written_the_tags_nest() {
        let pieces = [
            "*",
            "**",
            "_",
            "__",
            "~~",
            "||",
            "`",
            "```",
            "\n",
            "\n```\n",
            "[",
            "](https://e.org)",
            "](",
            ")",
            "<b>",
            "&",
            ">",
            "\n> ",
            "# ",
            "word",
            " ",
            "\\",
            "é😀",
            "\"",
        ];
        let mut seed = 0x5EED_u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..24 {
                seed ^= seed >> 12;
                seed ^= seed << 25;
                seed ^= seed >> 27;
                let random = seed.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
                text.push_str(pieces[usize::try_from(random).unwrap() % pieces.len()]);
            }
            let html = render(&text);
            assert!(is_well_formed(&html), "{text:?} became {html:?}");
        }
    }
}
