//! Redaction. The bytes are UTF-8, in which three bytes may stand for half of a surrogate pair (WTF-8).

use openclaw_core::redact::{might_contain_secret, redact, redact_unfiltered};

/// In what the pre-filter lets pass, the patterns find nothing; and a text of whole characters stays one.
pub(crate) fn text(bytes: &[u8]) {
    let units = units(bytes);
    let redacted = redact(&units).expect("redaction has no errors of its own");
    if !might_contain_secret(&units).expect("nor has its pre-filter") {
        let unfiltered = redact_unfiltered(&units).expect("nor do the patterns");
        assert!(*unfiltered == *units || is_known_gap(&units), "the pre-filter lets a secret pass");
        assert_eq!(*redacted, *units, "a text that holds no secret was changed");
    }
    if String::from_utf16(&units).is_ok() {
        assert!(String::from_utf16(&redacted).is_ok(), "a mask cuts a surrogate pair");
    }
    // A secret that nothing around it can excuse, behind whatever came before.
    let secret = "ghp_0123456789abcdefghijABCDEFGHIJ";
    let mut longer = units;
    longer.extend(format!("\n\n {secret} ").encode_utf16());
    let redacted = String::from_utf16_lossy(&redact(&longer).expect("as above"));
    assert!(!redacted.contains(secret), "a token of GitHub's is left: {redacted}");
}

/// What OpenClaw's pre-filter lets pass, and so does ours: a header that it does not know, and tokens right behind the letters
/// that are an s and a k to its flags `iu`, and no letters to the patterns' `gi`.
fn is_known_gap(units: &[u16]) -> bool {
    let header = "x-pomerium-jwt-assertion";
    let lower = String::from_utf16_lossy(units).to_ascii_lowercase();
    lower.contains(header) || units.contains(&0x17F) || units.contains(&0x212A)
}

fn units(bytes: &[u8]) -> Vec<u16> {
    let mut units = Vec::new();
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        if let [0xED, second @ 0xA0..=0xBF, third @ 0x80..=0xBF, tail @ ..] = rest {
            units.push(0xD000 | u16::from(second & 63) << 6 | u16::from(third & 63));
            rest = tail;
        } else {
            let length =
                (1..=4).find(|length| rest.get(..*length).is_some_and(|part| str::from_utf8(part).is_ok()));
            let part = rest.get(..length.unwrap_or(1)).unwrap_or_default();
            match str::from_utf8(part) {
                Ok(part) => units.extend(part.encode_utf16()),
                Err(_) => units.push(u16::from(*first)),
            }
            rest = rest.get(part.len()..).unwrap_or_default();
        }
    }
    units
}
