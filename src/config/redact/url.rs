//! URLs that may carry credentials.
//!
//! The answer errs on the side of "yes": everything in which OpenClaw finds credentials is found here, and what
//! cannot be read for sure (broken or many-fold percent escapes) counts as found.

/// Decoding this often and still changing is a way to hide something.
const MAX_DECODINGS: usize = 9;

const SECRET_PARAMETERS: [&str; 29] = [
    "token",
    "key",
    "api_key",
    "apikey",
    "secret",
    "access_token",
    "auth_token",
    "password",
    "pass",
    "passwd",
    "auth",
    "jwt",
    "session",
    "id_token",
    "code",
    "client_secret",
    "app_secret",
    "hook_token",
    "refresh_token",
    "signature",
    "x_amz_signature",
    "x_amz_security_token",
    "private_key",
    "credential",
    "authorization",
    "sig",
    "x_api_key",
    "x_access_token",
    "x_auth_token",
];

/// Whether the value at a config path is a URL that people put credentials into.
pub(super) fn is_url_path(path: &str) -> bool {
    if [".baseUrl", ".httpUrl", ".cdpUrl", ".request.proxy.url"].iter().any(|end| path.ends_with(end)) {
        return true;
    }
    let path = path.strip_prefix("nodeHost.").unwrap_or(path);
    path.strip_prefix("mcp.servers.")
        .and_then(|rest| rest.strip_suffix(".url"))
        .is_some_and(|name| !name.is_empty() && !name.contains('.'))
}

/// Whether the text holds a user, a password, a secret query parameter or a bot token, be it encoded.
pub(super) fn may_hold_credentials(text: &str) -> bool {
    // URL parsers drop these anywhere, and read a backslash as a slash.
    let mut text: String = text.chars().filter(|c| !matches!(c, '\t' | '\n' | '\r')).collect();
    text = text.replace('\\', "/");
    for round in 0..=MAX_DECODINGS {
        if has_user(&text, round > 0) || has_secret_parameter(&text) || has_bot_token(&text) {
            return true;
        }
        match decode(&text) {
            None => return true,
            Some(decoded) if decoded == text => return false,
            Some(decoded) => text = decoded.replace('\\', "/"),
        }
    }
    true
}

/// `nested`: the text was encoded inside another, where ends of an authority cannot be told.
fn has_user(text: &str, nested: bool) -> bool {
    let schemes =
        text.match_indices(':').filter(|&(at, _)| ends_with_scheme(text.get(..at).unwrap_or_default()));
    let starts = schemes.map(|(at, _)| at + 1).chain(text.match_indices("//").map(|(at, _)| at));
    starts.filter_map(|at| text.get(at..)).any(|rest| {
        let authority = rest.trim_start_matches('/');
        let Some(at) = authority.rfind('@') else { return false };
        let end = authority.find(|c: char| matches!(c, '/' | '?' | '#') || c.is_whitespace());
        let Some(end) = end.filter(|&end| end < at) else { return true };
        if nested {
            return true;
        }
        let before = authority.get(..end).unwrap_or_default();
        // A password may hold delimiters, and then spills over the authority's end; a port may not.
        let user_in_front = before.contains('@');
        let password =
            before.split_once(':').is_some_and(|(_, port)| !port.bytes().all(|b| b.is_ascii_digit()));
        let bracketed = before.starts_with('[') && before.contains(']');
        user_in_front || (password && !bracketed) || in_a_parameter(authority, at)
    })
}

/// The schemes after which a URL parser sees an authority even where the slashes are missing.
fn ends_with_scheme(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["http", "https", "ws", "wss", "ftp"].iter().any(|scheme| text.ends_with(scheme))
}

/// Whether the byte at `at` stands behind a `?` or `#`: a URL may be nested there as it is.
fn in_a_parameter(text: &str, at: usize) -> bool {
    text.get(..at).is_some_and(|before| before.contains(['?', '#']))
}

fn has_secret_parameter(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find(['?', '&', '#']) {
        let tail = rest.get(at..).unwrap_or_default();
        let fragment = tail.starts_with('#');
        rest = tail.get(1..).unwrap_or_default();
        let pair = rest.split(['?', '&', '#']).next().unwrap_or_default();
        let (name, has_value) = pair.split_once('=').map_or((pair, false), |(name, _)| (name, true));
        if (has_value || !fragment) && is_secret_parameter(name) {
            return true;
        }
    }
    false
}

fn is_secret_parameter(name: &str) -> bool {
    let mut name = strip_invisible(name);
    for _ in 0..=MAX_DECODINGS {
        match decode(&name).map(|decoded| strip_invisible(&decoded)) {
            None => return true,
            Some(decoded) if decoded == name => break,
            Some(decoded) => name = decoded,
        }
    }
    let name = name.to_lowercase().replace('-', "_");
    let token = name.rsplit_once("token").is_some_and(|(before, after)| {
        let parted = before.is_empty() || before.ends_with('_');
        let scope = after.strip_prefix('_').unwrap_or(after);
        let scoped = scope.len() >= 16 && scope.bytes().all(|b| b.is_ascii_hexdigit());
        parted && (after.is_empty() || scoped)
    });
    name.contains('%') || token || SECRET_PARAMETERS.contains(&name.as_str())
}

/// Takes out what a reader does not see. Every character that is neither a letter, a digit nor ASCII punctuation
/// goes: more than OpenClaw takes, and no name of the list holds one.
fn strip_invisible(name: &str) -> String {
    let invisible = ['+', ' ', '\u{115F}', '\u{1160}', '\u{3164}', '\u{FFA0}'];
    name.chars()
        .filter(|c| (c.is_alphanumeric() || c.is_ascii_punctuation()) && !invisible.contains(c))
        .collect()
}

/// `/bot<digits>:<token>`, as in the URLs of Telegram's API.
fn has_bot_token(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    lower.match_indices("/bot").any(|(at, word)| {
        let rest = lower.get(at + word.len()..).unwrap_or_default();
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let after = rest.get(digits..).unwrap_or_default();
        let token = after.strip_prefix(':').or_else(|| after.strip_prefix("%3a")).unwrap_or_default();
        let token = token.bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        digits >= 6 && token.count() >= 20
    })
}

/// `decodeURIComponent`; `None` where it would throw.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok())?;
            if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = tail.get(2..).unwrap_or_default();
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_urls_are_left_alone() {
        for url in [
            "https://api.example.com/v1",
            "http://127.0.0.1:8080/v1?model=a&limit=3#top",
            "https://h:8443/npm/@scope/package",
            "https://[::1]:80/a@b",
            "ws://localhost:9222/devtools/browser/1f",
            "https://h/a%20b",
            "",
        ] {
            assert!(!may_hold_credentials(url), "{url}");
        }
    }

    #[test]
    fn credentials_are_found_wherever_they_hide() {
        for url in [
            "https://user:pass@h/",
            "https://user@h",
            "https:\\\\user@h",
            "ht\ntps://us\ter@h",
            "//u:p@h",
            "https://u:p/x@h/",
            "https://h/?token=1",
            "https://h/?a=1&X-API-Key=1",
            "https://h/?t%6Fken=1",
            "https://h/?page_token_0123456789abcdef=1",
            "https://h/#access_token=1",
            "https://h/?next=https%3A%2F%2Fu%3Ap%40h",
            "https://api.telegram.org/bot123456:ABCDEFGHIJKLMNOPQRSTU/getMe",
            "https://h/?a=%zz",
        ] {
            assert!(may_hold_credentials(url), "{url}");
        }
    }
}
