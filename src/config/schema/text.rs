//! The forms of text that OpenClaw reads and a JSON Schema cannot describe.

/// The parts of an absolute URL that rules look at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url<'a> {
    /// In lower case, without the colon.
    pub(super) scheme: String,
    /// In lower case, without the port; brackets stay.
    pub(super) host: String,
    /// Whether it names a user or a password.
    pub(super) has_user: bool,
    /// What follows the host and the port.
    pub(super) rest: &'a str,
}

/// Reads an absolute URL about as `new URL` does. International names are not checked letter by letter.
pub(super) fn parse_url(text: &str) -> Option<Url<'_>> {
    let text = text.trim_matches(|c: char| c <= ' ');
    let (scheme, after) = text.split_once(':')?;
    let mut letters = scheme.chars();
    if !letters.next()?.is_ascii_alphabetic()
        || !letters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    {
        return None;
    }
    let scheme = scheme.to_ascii_lowercase();
    let special = matches!(scheme.as_str(), "http" | "https" | "ws" | "wss" | "ftp");
    let slash = |c: char| c == '/' || (special && c == '\\');
    let authority = if special {
        after.trim_start_matches(slash)
    } else if let Some(authority) = after.strip_prefix("//") {
        authority
    } else {
        return Some(Url { scheme, host: String::new(), has_user: false, rest: after });
    };
    let end = authority.find(|c: char| slash(c) || c == '?' || c == '#').unwrap_or(authority.len());
    let (authority, rest) = authority.split_at_checked(end)?;
    let (has_user, host) = match authority.rsplit_once('@') {
        Some((_, host)) => (true, host),
        None => (false, authority),
    };
    let (host, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    };
    if !port.is_empty() && port.parse::<u16>().is_err() {
        return None;
    }
    let forbidden = |c: char| c <= ' ' || "#%/<>?@\\^|".contains(c) || c == '\u{7f}';
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let colons = host.contains([':', '[', ']']);
    if (special && (host.is_empty() || host.contains(forbidden)))
        || (colons && !bracketed)
        || host.contains(' ')
    {
        return None;
    }
    Some(Url { scheme, host: host.to_ascii_lowercase(), has_user, rest })
}

/// `http(s)://host[:port][/]` and nothing more.
pub(super) fn parse_http_origin(text: &str) -> Option<Url<'_>> {
    parse_url(text).filter(|url| {
        matches!(url.scheme.as_str(), "http" | "https")
            && !url.has_user
            && matches!(url.rest, "" | "/" | "?" | "#")
    })
}

/// Milliseconds of `500ms`, `30s`, `1h30m`, or of a number without a unit, in `default_unit`.
pub(super) fn parse_duration(text: &str, default_unit: &str) -> Option<f64> {
    let text = text.trim().to_lowercase();
    let mut rest = text.as_str();
    let mut total = 0.0;
    let mut segments = 0;
    while !rest.is_empty() {
        let (number, after) = take_number(rest)?;
        let unit = ["ms", "s", "m", "h", "d"].into_iter().find(|unit| after.starts_with(unit));
        let unit = match unit {
            Some(unit) => unit,
            None if segments == 0 && after.is_empty() => default_unit,
            None => return None,
        };
        total += number
            * match unit {
                "ms" => 1.0,
                "s" => 1e3,
                "m" => 60e3,
                "h" => 3_600e3,
                _ => 86_400e3,
            };
        rest = after.strip_prefix(unit).unwrap_or(after);
        segments += 1;
    }
    let total = total.round();
    (segments > 0 && total <= MAX_SAFE_INTEGER).then_some(total)
}

/// Whether it is a byte size as `512`, `10mb` or `1.5g`.
pub(super) fn is_byte_size(text: &str) -> bool {
    let text = text.trim().to_lowercase();
    let Some((number, unit)) = take_number(&text) else { return false };
    let factor = match unit {
        "" | "b" => 1.0,
        "k" | "kb" => 1024.0,
        "m" | "mb" => 1024.0 * 1024.0,
        "g" | "gb" => 1024.0 * 1024.0 * 1024.0,
        "t" | "tb" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return false,
    };
    (number * factor).round() <= MAX_SAFE_INTEGER
}

const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

/// Reads `\d+(\.\d+)?`.
fn take_number(text: &str) -> Option<(f64, &str)> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(text);
    if whole == 0 {
        return None;
    }
    let after = text.get(whole..)?;
    let fraction = after.strip_prefix('.').map_or(0, digits);
    let end = if fraction == 0 { whole } else { whole + 1 + fraction };
    let (number, rest) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, rest))
}

/// Whether it is a path from a root, on any system.
pub(super) fn is_absolute_path(text: &str) -> bool {
    text.starts_with('/') || is_windows_drive_path(text) || text.starts_with(r"\\")
}

/// Whether it begins as `C:\` or `C:/`.
pub(super) fn is_windows_drive_path(text: &str) -> bool {
    matches!(text.as_bytes(), [drive, b':', b'/' | b'\\', ..] if drive.is_ascii_alphabetic())
}

/// A name or a path that no shell would read otherwise.
pub(super) fn is_safe_executable(text: &str) -> bool {
    let text = text.trim();
    if text.is_empty() || text.contains(['\0', '\r', '\n', ';', '&', '|', '`', '$', '<', '>', '"', '\'']) {
        return false;
    }
    let is_path = text.starts_with(['.', '~']) || text.contains(['/', '\\']);
    is_path
        || (!text.starts_with('-') && text.chars().all(|c| c.is_ascii_alphanumeric() || "._+-".contains(c)))
}

/// `provider/model`, both there.
pub(super) fn parse_model_ref(text: &str) -> Option<(&str, &str)> {
    let (provider, model) = text.trim().split_once('/')?;
    let (provider, model) = (provider.trim(), model.trim());
    (!provider.is_empty() && !model.is_empty()).then_some((provider, model))
}

/// A DNS name or an address, bare.
pub(super) fn is_exact_host(text: &str) -> bool {
    let text = text.trim().to_lowercase();
    let text = text.trim_end_matches('.');
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    text.parse::<std::net::IpAddr>().is_ok() || is_dns_name(text)
}

/// Labels of letters, digits and inner hyphens. Names in other scripts pass.
pub(super) fn is_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| !c.is_ascii() || c.is_ascii_alphanumeric() || c == '-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_openclaw_reads_them() {
        for (text, expected) in [
            ("500ms", Some(500.0)),
            ("1h30m", Some(5_400_000.0)),
            ("2", Some(120_000.0)),
            (" 5M ", Some(300_000.0)),
            ("1.5s", Some(1500.0)),
            ("", None),
            ("h", None),
            ("1h30", None),
            ("1 h", None),
            ("-1m", None),
            ("1.m", None),
        ] {
            assert_eq!(parse_duration(text, "m"), expected, "{text:?}");
        }
    }

    #[test]
    fn byte_sizes_have_binary_units() {
        for good in ["0", "512", "10mb", "1.5G", " 2 kb".trim()] {
            assert_eq!(is_byte_size(good), good != "2 kb", "{good:?}");
        }
        for bad in ["", "mb", "10xb", "-1", "1e3", "99999999999tb"] {
            assert!(!is_byte_size(bad), "{bad:?}");
        }
    }

    #[test]
    fn an_origin_is_a_scheme_a_host_and_a_port() {
        for good in ["https://a.example", "HTTP://[::1]:8080/", "http://localhost:1"] {
            assert!(parse_http_origin(good).is_some(), "{good}");
        }
        for bad in [
            "https://a.example/x",
            "https://u@a.example",
            "ftp://a.example",
            "https://",
            "https:",
            "a.example",
            "http://a b",
            "http://a:99999",
        ] {
            assert!(parse_http_origin(bad).is_none(), "{bad}");
        }
    }
}
