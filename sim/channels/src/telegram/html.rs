//! Telegram's HTML as the Bot API reads it, its errors included.
//! <https://core.telegram.org/bots/api#html-style>

use serde_json::{Value, json};

struct Open {
    tag: String,
    argument: String,
    /// In UTF-16 units.
    offset: usize,
    /// In the text so far, in bytes.
    at: usize,
}

const TAGS: [&str; 17] = [
    "a",
    "b",
    "strong",
    "i",
    "em",
    "s",
    "strike",
    "del",
    "u",
    "ins",
    "tg-spoiler",
    "tg-emoji",
    "span",
    "pre",
    "code",
    "blockquote",
    "tg-time",
];

/// The text and its entities, or what the Bot API says after `can't parse entities: `. Offsets in errors are in bytes.
pub fn parse(html: &str) -> Result<(String, Vec<Value>), String> {
    let bytes = html.as_bytes();
    let mut text = String::new();
    let mut utf16 = 0;
    let mut entities = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'&' => {
                let (decoded, next) = reference(html, at);
                let c = decoded.unwrap_or('&');
                text.push(c);
                utf16 += c.len_utf16();
                at = next;
            }
            b'<' if byte(bytes, at + 1) == b'/' => {
                let begin = at;
                let Some(last) = open.last() else {
                    return Err(format!("Unexpected end tag at byte offset {begin}"));
                };
                at += 2;
                while !space(byte(bytes, at)) && byte(bytes, at) != b'>' && at < bytes.len() {
                    at += 1;
                }
                let name = html[begin + 2..at].to_ascii_lowercase();
                while space(byte(bytes, at)) && at < bytes.len() {
                    at += 1;
                }
                if byte(bytes, at) != b'>' {
                    return Err(format!("Unclosed end tag at byte offset {begin}"));
                }
                if !name.is_empty() && name != last.tag {
                    return Err(format!(
                        "Unmatched end tag at byte offset {begin}, expected \"</{}>\", found \"</{name}>\"",
                        last.tag
                    ));
                }
                at += 1;
                if let Some(closed) = open.pop()
                    && utf16 > closed.offset
                {
                    entity(&mut entities, &closed, utf16 - closed.offset, &text)?;
                }
            }
            b'<' => {
                let (opened, next) = start_tag(html, at, utf16, text.len())?;
                open.push(opened);
                at = next;
            }
            _ => {
                let c = html[at..].chars().next().unwrap_or_default();
                text.push(c);
                utf16 += c.len_utf16();
                at += c.len_utf8();
            }
        }
    }
    if let Some(last) = open.last() {
        return Err(format!("Can't find end tag corresponding to start tag \"{}\"", last.tag));
    }
    for entity in &mut entities {
        if entity["type"] == "code"
            && let Some(map) = entity.as_object_mut()
        {
            map.shift_remove("language");
        }
    }
    // Outer ones first.
    entities.sort_by_key(|entity| (entity["offset"].as_u64(), std::cmp::Reverse(entity["length"].as_u64())));
    Ok((text, entities))
}

fn start_tag(html: &str, begin: usize, offset: usize, text_at: usize) -> Result<(Open, usize), String> {
    let bytes = html.as_bytes();
    let mut at = begin + 1;
    while at < bytes.len() && !space(bytes[at]) && bytes[at] != b'>' {
        at += 1;
    }
    if at >= bytes.len() {
        return Err(format!("Unclosed start tag at byte offset {begin}"));
    }
    let tag = html[begin + 1..at].to_ascii_lowercase();
    if !TAGS.contains(&tag.as_str()) {
        return Err(format!("Unsupported start tag \"{tag}\" at byte offset {begin}"));
    }
    let unclosed = || format!("Unclosed start tag \"{tag}\" at byte offset {begin}");
    let mut argument = String::new();
    loop {
        while space(byte(bytes, at)) && at < bytes.len() {
            at += 1;
        }
        if byte(bytes, at) == b'>' {
            break;
        }
        let name_at = at;
        while at < bytes.len() && !space(bytes[at]) && !b"=>/\"'".contains(&bytes[at]) {
            at += 1;
        }
        let name = html[name_at..at].to_ascii_lowercase();
        if name.is_empty() {
            return Err(format!("Empty attribute name in the tag \"{tag}\" at byte offset {begin}"));
        }
        while space(byte(bytes, at)) && at < bytes.len() {
            at += 1;
        }
        if byte(bytes, at) != b'=' {
            if at >= bytes.len() {
                return Err(unclosed());
            }
            if tag == "blockquote" && name == "expandable" {
                argument = "1".into();
            }
            continue;
        }
        at += 1;
        while space(byte(bytes, at)) && at < bytes.len() {
            at += 1;
        }
        if at >= bytes.len() {
            return Err(unclosed());
        }
        let mut value = String::new();
        let quote = bytes[at];
        if quote == b'"' || quote == b'\'' {
            at += 1;
            while at < bytes.len() && bytes[at] != quote {
                if bytes[at] == b'&' {
                    let (decoded, next) = reference(html, at);
                    value.push(decoded.unwrap_or('&'));
                    at = next;
                } else {
                    let c = html[at..].chars().next().unwrap_or_default();
                    value.push(c);
                    at += c.len_utf8();
                }
            }
            at += 1;
        } else {
            let value_at = at;
            while at < bytes.len() && (bytes[at].is_ascii_alphanumeric() || b".-".contains(&bytes[at])) {
                at += 1;
            }
            if !space(byte(bytes, at)) && byte(bytes, at) != b'>' {
                return Err(format!("Unexpected end of name token at byte offset {value_at}"));
            }
            value = html[value_at..at].to_ascii_lowercase();
        }
        if at >= bytes.len() {
            return Err(format!("Unclosed start tag at byte offset {begin}"));
        }
        match (tag.as_str(), name.as_str()) {
            ("a", "href") | ("tg-emoji", "emoji-id") => argument = value,
            ("code", "class") => {
                if let Some(language) = value.strip_prefix("language-") {
                    argument = language.into();
                }
            }
            ("span", "class") => {
                if let Some(kind) = value.strip_prefix("tg-") {
                    argument = kind.into();
                }
            }
            ("blockquote", "expandable") => argument = "1".into(),
            _ => {}
        }
    }
    if tag == "span" && argument != "spoiler" {
        return Err(format!("Tag \"span\" must have class \"tg-spoiler\" at byte offset {begin}"));
    }
    Ok((Open { tag, argument, offset, at: text_at }, at + 1))
}

fn entity(entities: &mut Vec<Value>, open: &Open, length: usize, text: &str) -> Result<(), String> {
    let offset = open.offset;
    let plain = |kind: &str| json!({"offset": offset, "length": length, "type": kind});
    let same_span = |last: Option<&mut Value>| {
        last.is_some_and(|last| last["offset"] == json!(offset) && last["length"] == json!(length))
    };
    let made = match open.tag.as_str() {
        "b" | "strong" => plain("bold"),
        "i" | "em" => plain("italic"),
        "u" | "ins" => plain("underline"),
        "s" | "strike" | "del" => plain("strikethrough"),
        "tg-spoiler" | "span" => plain("spoiler"),
        "blockquote" => plain(if open.argument.is_empty() { "blockquote" } else { "expandable_blockquote" }),
        "tg-emoji" => {
            let digits = !open.argument.is_empty() && open.argument.bytes().all(|byte| byte.is_ascii_digit());
            if !digits || open.argument.parse::<i64>().unwrap_or(0) == 0 {
                return Err("Invalid custom emoji identifier specified".into());
            }
            let mut made = plain("custom_emoji");
            made["custom_emoji_id"] = json!(open.argument);
            made
        }
        "a" => {
            let url = if open.argument.is_empty() { &text[open.at..] } else { open.argument.as_str() };
            let mut made = plain("text_link");
            made["url"] = json!(url);
            made
        }
        "pre" => {
            if same_span(entities.last_mut())
                && let Some(last) = entities.last_mut()
                && last["type"] == "code"
                && last.get("language").is_some()
            {
                last["type"] = json!("pre");
                return Ok(());
            }
            plain("pre")
        }
        "code" => {
            if same_span(entities.last_mut())
                && let Some(last) = entities.last_mut()
                && last["type"] == "pre"
                && !open.argument.is_empty()
            {
                last["language"] = json!(open.argument);
                return Ok(());
            }
            let mut made = plain("code");
            if !open.argument.is_empty() {
                made["language"] = json!(open.argument);
            }
            made
        }
        _ => return Ok(()),
    };
    entities.push(made);
    Ok(())
}

/// A character reference at `at`, and where the text goes on; an unknown one is text.
fn reference(html: &str, at: usize) -> (Option<char>, usize) {
    let bytes = html.as_bytes();
    let rest = &html[at + 1..];
    let (decoded, length) = if let Some(number) = rest.strip_prefix('#') {
        let (digits_at, radix) = if number.starts_with('x') { (1, 16) } else { (0, 10) };
        let digits: String = number[digits_at..].chars().take_while(|c| c.is_digit(radix)).collect();
        let code = u32::from_str_radix(&digits, radix).unwrap_or(0);
        (char::from_u32(code).filter(|_| code != 0), 1 + digits_at + digits.len())
    } else {
        let name: String = rest.chars().take_while(char::is_ascii_alphabetic).collect();
        let decoded = match name.as_str() {
            "lt" => Some('<'),
            "gt" => Some('>'),
            "amp" => Some('&'),
            "quot" => Some('"'),
            _ => None,
        };
        (decoded, name.len())
    };
    if decoded.is_none() {
        return (None, at + 1);
    }
    let end = at + 1 + length;
    (decoded, if byte(bytes, end) == b';' { end + 1 } else { end })
}

fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

/// The end of the text counts, as the C string that the original reads ends with NUL.
fn space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0 | 0x0b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_those_of_the_bot_api() {
        for (html, error) in [
            ("<br>", "Unsupported start tag \"br\" at byte offset 0"),
            ("a < b", "Unsupported start tag \"\" at byte offset 2"),
            ("x <b", "Unclosed start tag at byte offset 2"),
            ("<a href", "Unclosed start tag \"a\" at byte offset 0"),
            ("<a href=\"x\"", "Unclosed start tag at byte offset 0"),
            ("<a =\"x\">y</a>", "Empty attribute name in the tag \"a\" at byte offset 0"),
            ("<a href=x/>y</a>", "Unexpected end of name token at byte offset 8"),
            ("<span>x</span>", "Tag \"span\" must have class \"tg-spoiler\" at byte offset 0"),
            ("x</b>", "Unexpected end tag at byte offset 1"),
            ("<b>x</b", "Unclosed end tag at byte offset 4"),
            ("<b>x</i>", "Unmatched end tag at byte offset 4, expected \"</b>\", found \"</i>\""),
            ("<b>x", "Can't find end tag corresponding to start tag \"b\""),
            ("<tg-emoji emoji-id=\"x\">y</tg-emoji>", "Invalid custom emoji identifier specified"),
            ("привет <br>", "Unsupported start tag \"br\" at byte offset 13"),
        ] {
            assert_eq!(parse(html).unwrap_err(), error, "{html}");
        }
    }

    #[test]
    fn entities_count_utf16_units() {
        let (text, entities) =
            parse("😀 <b>a<i>&lt;é</i></b> &nbsp; & <pre><code class=\"language-rust\">x</code></pre>")
                .unwrap();
        assert_eq!(text, "😀 a<é &nbsp; & x");
        assert_eq!(
            entities,
            [
                json!({"offset": 3, "length": 3, "type": "bold"}),
                json!({"offset": 4, "length": 2, "type": "italic"}),
                json!({"offset": 16, "length": 1, "type": "pre", "language": "rust"}),
            ]
        );
    }

    #[test]
    fn a_link_has_its_address() {
        let (text, entities) =
            parse("<a href='https://a.example/?x=1&amp;y=2'>a</a><a>b.example</a>").unwrap();
        assert_eq!(text, "ab.example");
        assert_eq!(entities[0]["url"], "https://a.example/?x=1&y=2");
        assert_eq!(entities[1]["url"], "b.example");
    }

    #[test]
    fn any_cut_of_a_text_is_read_or_refused() {
        let html = "é<b>x</b> <a href=\"h\">l&#x41;</a> <pre><code class='language-a'>é</code></pre> &amp &#0; <tg-spoiler>";
        for (at, _) in html.char_indices() {
            let _ = parse(&html[..at]);
        }
    }
}
