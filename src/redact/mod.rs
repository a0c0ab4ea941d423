//! Credentials in text, masked as OpenClaw 2026.9.6 masks them: equal to its `redactSensitiveText`, but for the secret
//! values that a running OpenClaw has registered, which are known to it alone.
//!
//! Text is UTF-16, as in JavaScript, lone surrogates included: the patterns count code units.
//!
//! The stages, in OpenClaw's order: a pre-filter ([`might_contain_secret`]); parameters of `Authorization` headers;
//! parameters of URLs; form bodies, line by line; 121 patterns and a scanner for private keys, each on what the one
//! before left; a scanner for AWS keys.
//!
//! The patterns are kept as OpenClaw writes them (`patterns.txt`, `filter.txt`, `auth-header.txt`).

mod auth;
mod aws;
mod filter;
mod form;
mod mask;
mod nested;
mod patterns;
mod pem;
mod regex;
mod scan;
mod unicode;

use std::borrow::Cow;

use crate::{Code, CoreError, Result};

pub use mask::{Manner, captured as mask_token, is_pem, pem as mask_pem};
pub use nested::has_nested_repetition;
pub use patterns::{Treatment, treatment};

/// Whether [`redact`] changes anything in the text: it asks this first. Linear in the text. It is OpenClaw's own pre-filter,
/// answer for answer, and so it lets two things pass that the patterns would mask: the header `X-Pomerium-Jwt-Assertion`, and
/// some tokens right behind the letters ſ and K.
pub fn might_contain_secret(text: &[u16]) -> Result<bool> {
    Ok(filter::Filter::get().ok_or_else(broken)?.could_match(text))
}

/// The text with every credential masked; borrowed where there is none.
pub fn redact(text: &[u16]) -> Result<Cow<'_, [u16]>> {
    if !might_contain_secret(text)? {
        return Ok(Cow::Borrowed(text));
    }
    Ok(patterns::Patterns::get().ok_or_else(broken)?.redact(text))
}

/// As [`redact`], without asking the pre-filter first: what the patterns would mask in a text that it lets pass.
pub fn redact_unfiltered(text: &[u16]) -> Result<Cow<'_, [u16]>> {
    Ok(patterns::Patterns::get().ok_or_else(broken)?.redact(text))
}

/// The stages before the patterns, which OpenClaw runs whatever the patterns are, and without the pre-filter where
/// they are a user's.
pub fn redact_assignments(text: &[u16]) -> Result<Cow<'_, [u16]>> {
    Ok(patterns::Patterns::get().ok_or_else(broken)?.redact_assignments(text))
}

/// The stages behind a user's patterns: AWS keys.
pub fn redact_keys(text: &[u16]) -> Cow<'_, [u16]> {
    patterns::redact_keys(text)
}

/// Private keys, as the built-in pattern for them does it.
pub fn redact_private_keys(text: &[u16]) -> Cow<'_, [u16]> {
    patterns::redact_private_keys(text).map_or(Cow::Borrowed(text), |keys| Cow::Owned(keys.text))
}

fn broken() -> CoreError {
    CoreError::new(Code::Internal, "a built-in redaction pattern does not compile")
}

/// The first place of an ASCII letter from `from` on.
fn find(text: &[u16], from: usize, byte: u8) -> Option<usize> {
    let unit = u16::from(byte);
    let mut at = from;
    // Whole blocks first: a loop without a way out is one that the compiler makes wide.
    for block in text.get(from..)?.chunks(64) {
        if block.iter().fold(0, |found, other| found | u16::from(*other == unit)) != 0 {
            break;
        }
        at += block.len();
    }
    text.get(at..)?.iter().position(|other| *other == unit).map(|place| at + place)
}
