//! Markdown as the HTML that Matrix allows: <https://spec.matrix.org/latest/client-server-api/#mroommessage-msgtypes>.

use crate::channels::telegram::html;

/// The HTML of a text; none if it says no more than the text does.
pub(super) fn render(markdown: &str) -> Option<String> {
    let html = html::render(markdown);
    if !html.contains('<') {
        return None;
    }
    let mut out = String::with_capacity(html.len() + html.len() / 8);
    let mut preformatted = 0_u32;
    let mut rest = html.as_str();
    loop {
        let (text, tagged) = rest.split_at(rest.find('<').unwrap_or(rest.len()));
        // In HTML, a line's end is a space.
        if preformatted > 0 {
            out.push_str(text);
        } else {
            out.push_str(&text.replace('\n', "<br>"));
        }
        let Some((tag, after)) = tagged.split_once('>') else { break };
        rest = after;
        out.push_str(match tag {
            "<tg-spoiler" => "<span data-mx-spoiler",
            "</tg-spoiler" => "</span",
            "<s" => "<del",
            "</s" => "</del",
            other => other,
        });
        out.push('>');
        match tag {
            "<pre" => preformatted += 1,
            "</pre" => preformatted = preformatted.saturating_sub(1),
            _ => {}
        }
        // What is a block has its own line.
        if matches!(tag, "</pre" | "</blockquote") {
            rest = rest.strip_prefix('\n').unwrap_or(rest);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn markdown_becomes_what_matrix_allows() {
        for (markdown, html) in [
            ("plain & <b>", None),
            ("**a**\nb", Some("<b>a</b><br>b")),
            ("||x|| ~~y~~", Some("<span data-mx-spoiler>x</span> <del>y</del>")),
            ("```rust\na\nb\n```\nc", Some("<pre><code class=\"language-rust\">a\nb</code></pre>c")),
            ("> q\n> r\nc", Some("<blockquote>q<br>r</blockquote>c")),
        ] {
            assert_eq!(render(markdown).as_deref(), html, "{markdown}");
        }
    }
}
