//! Version vectors with exceptions: which events a replica has, however they came.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::{Code, CoreError, Result};

/// For each replica, the numbers of its events that are known here.
///
/// A replica numbers what it writes 1, 2, 3 … Nearly always the numbers known of it are all up to some `n`, and the
/// vector is the classical one. Where events came out of order, the ranges beyond the gap are kept as well, so that
/// merging needs no order. The text form of one entry is `40`, for all up to 40, or `40,43-45` with a gap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionVector {
    replicas: BTreeMap<String, Ranges>,
}

impl VersionVector {
    /// Whether event `n` of the replica is known.
    pub fn contains(&self, replica: &str, n: u64) -> bool {
        self.replicas.get(replica).is_some_and(|ranges| ranges.contains(n))
    }

    /// Adds event `n` of the replica; false if it was known.
    pub fn insert(&mut self, replica: &str, n: u64) -> bool {
        if let Some(ranges) = self.replicas.get_mut(replica) {
            return ranges.insert(n);
        }
        self.replicas.entry(replica.to_owned()).or_default().insert(n)
    }

    /// Whether all events of the replica up to `n` are known.
    pub fn covers_through(&self, replica: &str, n: u64) -> bool {
        self.replicas.get(replica).is_some_and(|ranges| ranges.prefix() >= n)
    }

    /// The greatest known number of the replica; 0 if there is none.
    pub fn last(&self, replica: &str) -> u64 {
        self.replicas.get(replica).and_then(|ranges| ranges.0.last()).map_or(0, |range| range.1)
    }

    /// What is known here and not there: ranges `(replica, first, last)`.
    pub fn minus<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (&'a str, u64, u64)> {
        self.replicas.iter().flat_map(move |(replica, ranges)| {
            let theirs = other.replicas.get(replica);
            ranges.minus(theirs).into_iter().map(move |(first, last)| (replica.as_str(), first, last))
        })
    }

    /// Adds all that `other` knows.
    pub fn union(&mut self, other: &Self) {
        for (replica, ranges) in &other.replicas {
            let mine = self.replicas.entry(replica.clone()).or_default();
            for &(first, last) in &ranges.0 {
                mine.insert_range(first, last);
            }
        }
    }

    /// Every replica with the text of what is known of it.
    pub fn entries(&self) -> impl Iterator<Item = (&str, String)> {
        self.replicas.iter().map(|(replica, ranges)| (replica.as_str(), ranges.to_text()))
    }

    /// As a JSON object from replica to text.
    pub fn to_json(&self) -> String {
        let entries: BTreeMap<&str, String> = self.entries().collect();
        serde_json::to_string(&entries).unwrap_or_default()
    }

    /// Reads a JSON object from replica to text.
    pub fn from_json(json: &str) -> Result<Self> {
        let invalid = |what: String| CoreError::new(Code::Validation, what);
        let entries: BTreeMap<String, String> = serde_json::from_str(json).map_err(|error| {
            invalid(format!(
                "a version vector is an object from replica to text such as \"40,43-45\": {error}"
            ))
        })?;
        let mut replicas = BTreeMap::new();
        for (replica, text) in entries {
            let ranges = Ranges::from_text(&text).ok_or_else(|| {
                invalid(format!(
                    "the version of replica `{replica}` must be text such as \"40\" or \"40,43-45\", not \"{text}\""
                ))
            })?;
            if !ranges.0.is_empty() {
                replicas.insert(replica, ranges);
            }
        }
        Ok(Self { replicas })
    }
}

/// Ranges `(first, last)` of numbers from 1 on, in order, with a gap between each and the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    fn contains(&self, n: u64) -> bool {
        let after = self.0.partition_point(|&(first, _)| first <= n);
        after.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|&(_, last)| n <= last)
    }

    fn insert(&mut self, n: u64) -> bool {
        // In the usual case the number follows the last one.
        if let Some((_, last)) = self.0.last_mut()
            && last.checked_add(1) == Some(n)
        {
            *last = n;
            return true;
        }
        if self.contains(n) {
            return false;
        }
        self.insert_range(n, n);
        true
    }

    fn insert_range(&mut self, first: u64, last: u64) {
        // All ranges that touch the new one become one with it.
        let from = self.0.partition_point(|range| range.1.saturating_add(1) < first);
        let to = self.0.partition_point(|range| range.0 <= last.saturating_add(1));
        let touching = self.0.get(from..to.max(from)).unwrap_or_default();
        let first = touching.first().map_or(first, |range| range.0.min(first));
        let last = touching.last().map_or(last, |range| range.1.max(last));
        self.0.splice(from..to.max(from), [(first, last)]);
    }

    /// All up to this number are known.
    fn prefix(&self) -> u64 {
        self.0.first().filter(|range| range.0 == 1).map_or(0, |range| range.1)
    }

    fn minus(&self, other: Option<&Self>) -> Vec<(u64, u64)> {
        let mut left = Vec::new();
        let theirs = other.map_or(&[][..], |other| &other.0);
        for &(first, last) in &self.0 {
            let mut from = first;
            for &(their_first, their_last) in
                theirs.iter().skip(theirs.partition_point(|range| range.1 < first))
            {
                if their_first > last {
                    break;
                }
                if their_first > from {
                    left.push((from, their_first - 1));
                }
                from = their_last.saturating_add(1);
            }
            if from <= last {
                left.push((from, last));
            }
        }
        left
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        for &(first, last) in &self.0 {
            if first == 1 {
                let _ = write!(text, "{last}");
                continue;
            }
            // An entry that does not begin with the first event says so with a 0.
            text.push_str(if text.is_empty() { "0," } else { "," });
            let _ = if first == last { write!(text, "{first}") } else { write!(text, "{first}-{last}") };
        }
        text
    }

    fn from_text(text: &str) -> Option<Self> {
        let number =
            |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        let mut parts = text.split(',');
        let prefix: u64 = number(parts.next()?)?;
        let mut ranges = Self::default();
        if prefix > 0 {
            ranges.0.push((1, prefix));
        }
        for part in parts {
            let (first, last): (u64, u64) = match part.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if first == 0 || last < first {
                return None;
            }
            ranges.insert_range(first, last);
        }
        Some(ranges)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_vector_is_a_set_of_numbers(a in prop::collection::btree_set(1u64..60, 0..40), b in prop::collection::btree_set(1u64..60, 0..40)) {
            let fill = |set: &BTreeSet<u64>, order: &dyn Fn(&mut Vec<u64>)| {
                let mut numbers: Vec<u64> = set.iter().copied().collect();
                order(&mut numbers);
                let mut vector = VersionVector::default();
                for n in numbers {
                    assert!(vector.insert("r", n));
                    assert!(!vector.insert("r", n));
                }
                vector
            };
            let forward = fill(&a, &|_| {});
            let backward = fill(&a, &|numbers| numbers.reverse());
            let shuffled = fill(&a, &|numbers| numbers.sort_by_key(|n| n.wrapping_mul(2_654_435_761) % 97));
            prop_assert_eq!(&forward, &backward);
            prop_assert_eq!(&forward, &shuffled);
            let other = fill(&b, &|_| {});
            for n in 0..62 {
                prop_assert_eq!(forward.contains("r", n), a.contains(&n));
                prop_assert_eq!(forward.covers_through("r", n), n == 0 && !a.is_empty() || n > 0 && (1..=n).all(|n| a.contains(&n)));
            }
            let minus: BTreeSet<u64> = forward.minus(&other).flat_map(|(_, first, last)| first..=last).collect();
            prop_assert_eq!(minus, &a - &b);
            let mut union = forward.clone();
            union.union(&other);
            prop_assert_eq!(union, fill(&(&a | &b), &|_| {}));
            prop_assert_eq!(VersionVector::from_json(&forward.to_json()).unwrap(), forward);
        }
    }

    #[test]
    fn the_text_of_an_entry_is_short() {
        let mut vector = VersionVector::default();
        for n in (1..=40).chain(43..=45).chain([50]) {
            vector.insert("a", n);
        }
        vector.insert("b", 7);
        assert_eq!(vector.to_json(), r#"{"a":"40,43-45,50","b":"0,7"}"#);
    }

    #[test]
    fn text_that_is_no_version_is_refused_by_name() {
        for text in ["", "x", "-1", "5,4-3", "5,0", "1.5", "+3", "99999999999999999999"] {
            let error = VersionVector::from_json(&format!(r#"{{"laptop":"{text}"}}"#)).unwrap_err();
            assert_eq!(error.code(), Code::Validation, "{text}");
            assert!(error.message().contains("laptop"), "{error}");
        }
        assert!(VersionVector::from_json("[1]").is_err());
    }
}
