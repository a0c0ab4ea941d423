//! Markdown as Signal has it: plain text, and ranges of it that are bold, italic and so on.

use crate::channels::telegram::html;

/// A text and its styles, as signal-cli's `--text-style` takes them: `START:LENGTH:STYLE`, in UTF-16 code units.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Styled {
    pub(super) text: String,
    pub(super) styles: Vec<String>,
}

/// Reads Markdown by way of the HTML that the Telegram adapter makes of it: it is well-formed, and has eight tags.
pub(super) fn render(markdown: &str) -> Styled {
    let html = html::render(markdown);
    let mut out = Writer::default();
    // The address of the link, and where its label begins.
    let mut links: Vec<(String, usize)> = Vec::new();
    let mut open: Vec<(&str, usize)> = Vec::new();
    let mut rest = html.as_str();
    while let Some(at) = rest.find('<') {
        out.write(rest.get(..at).unwrap_or_default());
        let tag = rest.get(at + 1..).unwrap_or_default();
        let Some((tag, after)) = tag.split_once('>') else { break };
        rest = after;
        let (name, attribute) = tag.split_once(' ').unwrap_or((tag, ""));
        match name.strip_prefix('/').unwrap_or(name) {
            "blockquote" => out.quote(!name.starts_with('/')),
            "a" if name == "a" => {
                let url = attribute.trim_start_matches("href=\"").trim_end_matches('"');
                links.push((unescape(url), out.text.len()));
            }
            "a" => {
                if let Some((url, from)) = links.pop()
                    && out.text.get(from..) != Some(url.as_str())
                {
                    out.push(&format!(" ({url})"));
                }
            }
            name_only => {
                let style = match name_only {
                    "b" => "BOLD",
                    "i" => "ITALIC",
                    "s" => "STRIKETHROUGH",
                    "tg-spoiler" => "SPOILER",
                    // `<pre><code>` is one style.
                    "pre" | "code" => "MONOSPACE",
                    _ => continue,
                };
                if name.starts_with('/') {
                    if let Some((style, from)) = open.pop() {
                        let twice = style == "MONOSPACE" && open.iter().any(|(outer, _)| *outer == style);
                        if out.units > from && !twice {
                            out.styles.push((from, out.units - from, style));
                        }
                    }
                } else {
                    open.push((style, out.units));
                }
            }
        }
    }
    out.write(rest);
    let styles = out.styles.iter().map(|(from, length, style)| format!("{from}:{length}:{style}")).collect();
    Styled { text: out.text, styles }
}

#[derive(Default)]
struct Writer {
    text: String,
    /// Its length in UTF-16.
    units: usize,
    quoting: bool,
    styles: Vec<(usize, usize, &'static str)>,
}

impl Writer {
    fn push(&mut self, text: &str) {
        self.units += text.encode_utf16().count();
        self.text.push_str(text);
    }

    fn write(&mut self, html: &str) {
        let text = unescape(html);
        if self.quoting { self.push(&text.replace('\n', "\n> ")) } else { self.push(&text) }
    }

    /// Signal has no quotations within a text: they look as they do in mail.
    fn quote(&mut self, begins: bool) {
        self.quoting = begins;
        if begins {
            self.push("> ");
        }
    }
}

fn unescape(html: &str) -> String {
    html.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_becomes_text_and_ranges() {
        let cases: [(&str, &str, &[&str]); 9] = [
            ("plain < & >", "plain < & >", &[]),
            ("é😀 **bold** x", "é😀 bold x", &["4:4:BOLD"]),
            ("***both***", "both", &["0:4:ITALIC", "0:4:BOLD"]),
            ("~~a~~ ||b|| `c < d`", "a b c < d", &["0:1:STRIKETHROUGH", "2:1:SPOILER", "4:5:MONOSPACE"]),
            ("```rust\nlet a;\n```", "let a;", &["0:6:MONOSPACE"]),
            ("> one\n> **two**\nthree", "> one\n> two\nthree", &["8:3:BOLD"]),
            ("[site](https://e.org/?a=1&b=2)", "site (https://e.org/?a=1&b=2)", &[]),
            ("[https://e.org](https://e.org)", "https://e.org", &[]),
            ("&lt;b&gt;", "&lt;b&gt;", &[]),
        ];
        for (markdown, text, styles) in cases {
            let styled = render(markdown);
            assert_eq!(
                (styled.text.as_str(), styled.styles.as_slice()),
                (text, &styles.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..]),
                "{markdown}"
            );
        }
    }
}
