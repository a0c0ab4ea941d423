//! Markdown as texts with marks: Slack's mrkdwn (<https://docs.slack.dev/messaging/formatting-message-text>), and
//! WhatsApp's (<https://faq.whatsapp.com/539178204879377>). Slack's mrkdwn as plain text.
//!
//! The two have the same marks; Slack alone escapes, and has links.
//!
//! To Slack, mentions of users and channels (`<@U…>`, `<#C…>`) and links in angle brackets pass; what would call out to everybody
//! (`<!channel>`, `<!here>`) does not: a text must not wake a company because somebody had a model repeat it.

use std::fmt::Write as _;

/// Farther apart, in bytes, marks are text.
const REACH: usize = 8192;
/// Deeper than this, marks are text.
const DEPTH: usize = 8;

/// Whose marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// mrkdwn.
    Slack,
    /// What its apps show.
    WhatsApp,
}

impl Dialect {
    fn text(self, text: &str) -> String {
        match self {
            Self::Slack => escape(text),
            Self::WhatsApp => text.to_owned(),
        }
    }
}

/// Renders a text.
pub(super) fn render(markdown: &str, dialect: Dialect) -> String {
    let mut out = String::with_capacity(markdown.len() + markdown.len() / 8);
    let mut lines = markdown.split('\n');
    let mut first = true;
    while let Some(line) = lines.next() {
        if !std::mem::take(&mut first) {
            out.push('\n');
        }
        if let Some((mark, count)) = fence(line) {
            let mut code = Vec::new();
            for line in lines.by_ref() {
                let end = line.trim();
                if end.len() >= count && end.chars().all(|c| c == mark) {
                    break;
                }
                // Three ticks within would end it.
                code.push(dialect.text(line).replace("```", "`\u{200B}`\u{200B}`"));
            }
            _ = write!(out, "```\n{}\n```", code.join("\n"));
            continue;
        }
        let (quote, line) = match line.strip_prefix('>') {
            Some(rest) => ("> ", rest.strip_prefix(' ').unwrap_or(rest)),
            None => ("", line),
        };
        out.push_str(quote);
        let body = line.trim_start();
        out.push_str(line.get(..line.len() - body.len()).unwrap_or_default());
        let heading = body.trim_start_matches('#');
        let level = body.len() - heading.len();
        if (1..=6).contains(&level) && heading.starts_with(' ') {
            let title = inline(heading.trim(), dialect);
            let bare = title.replace('*', "");
            if bare.is_empty() {
                out.push_str(&title);
            } else {
                _ = write!(out, "*{bare}*");
            }
        } else if let Some(item) = ["- ", "* ", "+ "].iter().find_map(|mark| body.strip_prefix(mark)) {
            out.push_str("• ");
            out.push_str(&inline(item, dialect));
        } else {
            out.push_str(&inline(body, dialect));
        }
    }
    out
}

/// Three characters stand for something: <https://docs.slack.dev/messaging/formatting-message-text#escaping>.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn fence(line: &str) -> Option<(char, usize)> {
    let body = line.trim_start_matches(' ');
    let mark = body.chars().next().filter(|&c| c == '`' || c == '~')?;
    let rest = body.trim_start_matches(mark);
    let count = body.len() - rest.len();
    let fits = line.len() - body.len() <= 3 && count >= 3 && !(mark == '`' && rest.contains('`'));
    fits.then_some((mark, count))
}

fn inline(text: &str, dialect: Dialect) -> String {
    let mut out = String::new();
    write_inline(text, dialect, 0, &mut out);
    out
}

/// Pairs of marks, the longer first.
const MARKS: [(&str, &str, &str); 8] = [
    ("***", "*_", "_*"),
    ("___", "*_", "_*"),
    ("**", "*", "*"),
    ("__", "*", "*"),
    ("~~", "~", "~"),
    ("*", "_", "_"),
    ("_", "_", "_"),
    ("~", "~", "~"),
];

fn write_inline(text: &str, dialect: Dialect, depth: usize, out: &mut String) {
    let mut rest = text;
    let mut before: Option<char> = None;
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '\\' => escaped(rest, dialect, out),
            '`' => code(near(rest), dialect, out),
            '<' if dialect == Dialect::Slack => angle(near(rest), out),
            '[' if depth < DEPTH => link(near(rest), dialect, out),
            '*' | '_' | '~' if depth < DEPTH => marked(near(rest), before, dialect, depth, out),
            _ => None,
        };
        let taken = taken.unwrap_or_else(|| {
            out.push_str(&dialect.text(c.encode_utf8(&mut [0; 4])));
            c.len_utf8()
        });
        before = rest.get(..taken).and_then(|taken| taken.chars().next_back());
        rest = rest.get(taken..).unwrap_or_default();
    }
}

/// As far as a mark may be from its other half.
fn near(text: &str) -> &str {
    let mut end = text.len().min(REACH);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or(text)
}

fn escaped(rest: &str, dialect: Dialect, out: &mut String) -> Option<usize> {
    let next = rest.chars().nth(1).filter(char::is_ascii_punctuation)?;
    out.push_str(&dialect.text(next.encode_utf8(&mut [0; 4])));
    Some(1 + next.len_utf8())
}

fn code(rest: &str, dialect: Dialect, out: &mut String) -> Option<usize> {
    let ticks = rest.len() - rest.trim_start_matches('`').len();
    let (mark, body) = (rest.get(..ticks)?, rest.get(ticks..)?);
    let end = body.match_indices(mark).map(|(at, _)| at).find(|&at| {
        let after = body.get(at + ticks..).unwrap_or_default();
        !after.starts_with('`') && !body.get(..at).unwrap_or_default().ends_with('`')
    })?;
    let inner = body.get(..end).filter(|inner| !inner.is_empty())?;
    if inner.contains('`') {
        out.push_str(&dialect.text(inner));
    } else {
        _ = write!(out, "`{}`", dialect.text(inner));
    }
    Some(ticks + end + ticks)
}

/// `<@U1>`, `<#C1>`, `<https://…>`.
fn angle(rest: &str, out: &mut String) -> Option<usize> {
    let end = rest.find('>')?;
    let inner = rest.get(1..end)?;
    let id = inner.strip_prefix(['@', '#']);
    let mention = id
        .is_some_and(|id| id.len() >= 2 && id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()));
    if mention {
        out.push_str(rest.get(..=end)?);
    } else {
        _ = write!(out, "<{}>", target(inner)?);
    }
    Some(end + 1)
}

/// A Markdown link at the start of a text: its label, its target, and how long it is.
pub(super) fn link_at(rest: &str) -> Option<(&str, &str, usize)> {
    let middle = rest.find("](")?;
    let label = rest.get(1..middle).filter(|label| !label.is_empty() && !label.contains(['[', ']']))?;
    let target = rest.get(middle + 2..)?;
    // Parentheses within a URL come in pairs.
    let mut open = 0_u32;
    let end = target.char_indices().find_map(|(at, c)| match c {
        '(' => {
            open += 1;
            None
        }
        ')' if open == 0 => Some(at),
        ')' => {
            open -= 1;
            None
        }
        _ => None,
    })?;
    Some((label, target.get(..end)?.trim(), middle + 2 + end + 1))
}

fn link(rest: &str, dialect: Dialect, out: &mut String) -> Option<usize> {
    let (label, source, length) = link_at(rest)?;
    let url = target(source)?;
    let label: String = label.chars().filter(|c| !"*_~`\n".contains(*c)).collect();
    match dialect {
        Dialect::Slack => _ = write!(out, "<{url}|{}>", escape(&label).replace('|', "¦")),
        Dialect::WhatsApp if label == source => out.push_str(source),
        Dialect::WhatsApp => _ = write!(out, "{label} ({source})"),
    }
    Some(length)
}

/// A URL as it stands in angle brackets.
fn target(url: &str) -> Option<String> {
    let known = ["http://", "https://", "mailto:", "tel:"];
    let fits = known.iter().any(|scheme| url.starts_with(scheme)) && !url.contains(char::is_whitespace);
    fits.then(|| url.replace('&', "&amp;").replace('<', "%3C").replace('>', "%3E").replace('|', "%7C"))
}

fn marked(
    rest: &str,
    before: Option<char>,
    dialect: Dialect,
    depth: usize,
    out: &mut String,
) -> Option<usize> {
    let (mark, open, close) = MARKS.iter().find(|(mark, ..)| rest.starts_with(mark))?;
    let body = rest.get(mark.len()..)?;
    let word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    if body.chars().next().is_none_or(char::is_whitespace) || (mark.starts_with('_') && word(before)) {
        return None;
    }
    let sign = mark.chars().next();
    let end = body.match_indices(mark).map(|(at, _)| at).find(|&at| {
        let (inner, after) =
            (body.get(..at).unwrap_or_default(), body.get(at + mark.len()..).unwrap_or_default());
        let solid = inner.chars().next_back().is_some_and(|c| !c.is_whitespace() && Some(c) != sign);
        let alone = after.chars().next() != sign;
        solid && alone && !(mark.starts_with('_') && word(after.chars().next())) && !inner.contains('`')
    })?;
    out.push_str(open);
    write_inline(body.get(..end)?, dialect, depth + 1, out);
    out.push_str(close);
    Some(mark.len() + end + mark.len())
}

/// What Slack sends, as text. `name` knows users by their id.
pub(super) fn plain(mrkdwn: &str, name: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(mrkdwn.len());
    let mut rest = mrkdwn;
    while let Some(at) = rest.find('<') {
        out.push_str(rest.get(..at).unwrap_or_default());
        rest = rest.get(at + 1..).unwrap_or_default();
        // Of a text, Slack escapes every other bracket.
        let Some(end) = rest.find('>') else {
            out.push('<');
            break;
        };
        let inner = rest.get(..end).unwrap_or_default();
        rest = rest.get(end + 1..).unwrap_or_default();
        let (what, label) = inner.split_once('|').unwrap_or((inner, ""));
        if let Some(user) = what.strip_prefix('@') {
            let known = name(user).filter(|name| !name.is_empty());
            let given = Some(label.to_owned()).filter(|label| !label.is_empty());
            out.push('@');
            out.push_str(&known.or(given).unwrap_or_else(|| user.to_owned()));
        } else if let Some(channel) = what.strip_prefix('#') {
            out.push('#');
            out.push_str(if label.is_empty() { channel } else { label });
        } else if let Some(special) = what.strip_prefix('!') {
            if label.is_empty() {
                out.push('@');
                out.push_str(special.split('^').next().unwrap_or(special));
            } else {
                out.push_str(label);
            }
        } else {
            let url = what.strip_prefix("mailto:").or(what.strip_prefix("tel:")).unwrap_or(what);
            if label.is_empty() || label == url || what.ends_with(label) {
                out.push_str(url);
            } else {
                _ = write!(out, "{label} ({url})");
            }
        }
    }
    out.push_str(rest);
    out.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_becomes_mrkdwn() {
        for (markdown, wanted) in [
            ("**bold** and *italic* and ~~gone~~", "*bold* and _italic_ and ~gone~"),
            ("***both***", "*_both_*"),
            ("# Title **x**", "*Title x*"),
            ("a < b & c > d", "a &lt; b &amp; c &gt; d"),
            ("[a|b](https://e.org/?a=1&b=2)", "<https://e.org/?a=1&amp;b=2|a¦b>"),
            ("[x](javascript:alert)", "[x](javascript:alert)"),
            ("- one\n  * two", "• one\n  • two"),
            ("> said\nme", "> said\nme"),
            ("`a<b>`", "`a&lt;b&gt;`"),
            ("```rust\nlet a = *b;\n```", "```\nlet a = *b;\n```"),
            ("~~~\n```\n~~~", "```\n`\u{200B}`\u{200B}`\n```"),
            ("```\nopen", "```\nopen\n```"),
            ("snake_case_name 2 * 3 * 4", "snake_case_name 2 * 3 * 4"),
            ("<@U123> <#C1X> <https://e.org>", "<@U123> <#C1X> <https://e.org>"),
            ("<!channel> <!here>", "&lt;!channel&gt; &lt;!here&gt;"),
            ("\\*not\\*", "*not*"),
        ] {
            assert_eq!(render(markdown, Dialect::Slack), wanted, "{markdown}");
        }
    }

    #[test]
    fn whatsapp_has_neither_links_nor_escapes() {
        for (markdown, wanted) in [
            ("**bold** & *italic* <x>", "*bold* & _italic_ <x>"),
            ("## Title", "*Title*"),
            ("[here](https://e.org/?a=1&b=2)", "here (https://e.org/?a=1&b=2)"),
            ("[https://e.org](https://e.org)", "https://e.org"),
            ("```js\na < b\n```", "```\na < b\n```"),
        ] {
            assert_eq!(render(markdown, Dialect::WhatsApp), wanted, "{markdown}");
        }
    }

    #[test]
    fn mrkdwn_becomes_text() {
        let me = |user: &str| (user == "U0").then(|| "bot".to_owned());
        for (mrkdwn, wanted) in [
            ("<@U0> hi <@U1> <@U2|ann>", "@bot hi @U1 @ann"),
            ("<#C1|general> <#C2>", "#general #C2"),
            (
                "<https://e.org|here> <https://e.org> <mailto:a@e.org|a@e.org>",
                "here (https://e.org) https://e.org a@e.org",
            ),
            ("<!here> <!subteam^S1|@ops> <!date^1^{date}|today>", "@here @ops today"),
            ("1 &lt; 2 &amp;lt; &gt;", "1 < 2 &lt; >"),
            ("<", "<"),
        ] {
            assert_eq!(plain(mrkdwn, &me), wanted);
        }
    }

    #[test]
    fn a_text_that_is_all_marks_costs_no_hours() {
        for mark in ["*", "_", "[", "<", "`", "**a", "[a](", "*a_b~c`"] {
            let text = format!("x{}", mark.repeat(20_000));
            assert!(render(&text, Dialect::Slack).len() >= text.len() / 2, "{mark}");
        }
    }
}
