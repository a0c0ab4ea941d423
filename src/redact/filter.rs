//! Whether OpenClaw's pre-filter would look closer at a text. It decides what is redacted: a text that it lets pass
//! stays as it is, whatever the patterns say.
//!
//! The time is linear in the text: one pass for the words (see [`super::scan`]), one for `=`, and a look at each
//! fortieth unit.

use std::ops::ControlFlow;
use std::sync::LazyLock;

use super::patterns::{Numbers, Searched};
use super::regex::{Matcher, Set, WORD};
use super::scan::Scanner;
use super::unicode::{decode_before, is_invisible};
use super::{aws, find};

/// The alternatives of OpenClaw's `DEFAULT_REDACT_PREFILTER_RE`, flags `iu`, without the last three: those are
/// [`is_hidden_name`].
const SOURCES: &str = include_str!("filter.txt");

pub(super) struct Filter {
    scanner: Scanner,
    patterns: Vec<Searched>,
    /// By the number of a sequence, the patterns that have it.
    owners: Vec<Vec<usize>>,
}

static FILTER: LazyLock<Option<Filter>> = LazyLock::new(Filter::build);

impl Filter {
    /// Compiled at first use.
    pub(super) fn get() -> Option<&'static Self> {
        FILTER.as_ref()
    }

    fn build() -> Option<Self> {
        let mut numbers = Numbers::default();
        let patterns = SOURCES
            .lines()
            .map(|source| Searched::new(source, "iu", &mut numbers))
            .collect::<Option<Vec<_>>>()?;
        let owners = |number| {
            patterns.iter().enumerate().filter(|(_, pattern)| pattern.has(number)).map(|(at, _)| at).collect()
        };
        let owners = (0..numbers.0.len()).map(owners).collect();
        Some(Self { scanner: Scanner::new(&numbers.0), patterns, owners })
    }

    pub(super) fn could_match(&self, text: &[u16]) -> bool {
        self.has_word(text) || has_hidden_name(text) || aws::could_match(text)
    }

    fn has_word(&self, text: &[u16]) -> bool {
        let mut matchers: Vec<Option<Matcher<'_>>> = Vec::new();
        let mut starts = Vec::new();
        let scanned = self.scanner.scan(text, 0..text.len(), |sequence, at| {
            matchers.resize_with(self.patterns.len(), || None);
            for owner in self.owners.get(sequence).into_iter().flatten() {
                let (Some(pattern), Some(matcher)) = (self.patterns.get(*owner), matchers.get_mut(*owner))
                else {
                    continue;
                };
                let matcher = matcher.get_or_insert_with(|| Matcher::new(&pattern.program, text));
                starts.clear();
                pattern.starts_at(text, at, &mut starts);
                if starts.iter().any(|start| matcher.at(*start).is_some()) {
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        scanned.is_break()
    }
}

/// Whether before some `=` stands a name with a percent-encoded letter, or one with hidden characters or plus signs
/// before or behind a letter.
fn has_hidden_name(text: &[u16]) -> bool {
    let mut from = 0;
    while let Some(equals) = find(text, from, b'=') {
        if is_hidden_name(text, equals) {
            return true;
        }
        from = equals + 1;
    }
    false
}

fn is_hidden_name(text: &[u16], equals: usize) -> bool {
    let plain = Set::ascii(WORD | 1 << b'%' | 1 << b'.' | 1 << b'-').or(Set::word(true));
    let hex = |at: usize| {
        at < equals
            && text
                .get(at)
                .and_then(|unit| char::from_u32(u32::from(*unit)))
                .is_some_and(|c| c.is_ascii_hexdigit())
    };
    let (mut letters, mut hidden) = (false, false);
    let mut at = equals;
    while let Some((code_point, start)) = decode_before(text, at) {
        if u16::try_from(code_point).is_ok_and(|unit| plain.contains(unit)) {
            let encoded = code_point == u32::from(b'%') && hex(start + 1) && hex(start + 2);
            if encoded || hidden && !letters {
                return true;
            }
            letters = true;
        } else if code_point == u32::from(b'+') || is_invisible(code_point) {
            if letters {
                return true;
            }
            hidden = true;
        } else {
            return false;
        }
        at = start;
    }
    false
}

#[cfg(test)]
mod tests;
