//! What JavaScript's string functions do where Rust's differ.

/// `String.prototype.trim`: unlike `str::trim` it takes U+FEFF and leaves U+0085.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Whether `text.trim()` would be empty in JavaScript.
pub(crate) fn is_blank(text: &str) -> bool {
    text.chars().all(is_space)
}

const fn is_space(c: char) -> bool {
    matches!(
        c,
        '\t' | '\n' | '\u{B}' | '\u{C}' | '\r' | ' ' | '\u{A0}' | '\u{1680}' | '\u{2000}'
            ..='\u{200A}' | '\u{2028}' | '\u{2029}' | '\u{202F}' | '\u{205F}' | '\u{3000}' | '\u{FEFF}'
    )
}

/// `String.prototype.length`: UTF-16 code units.
pub(crate) fn length(text: &str) -> usize {
    text.encode_utf16().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trimming_takes_a_byte_order_mark_and_leaves_next_line() {
        assert_eq!(trim("\u{FEFF} a\u{3000}\n"), "a");
        assert_eq!(trim("\u{85}a"), "\u{85}a");
        assert!(is_blank(" \u{FEFF}\t"));
        assert!(!is_blank("\u{85}"));
    }
}
