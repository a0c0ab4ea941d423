//! Whose direct messages count: OpenClaw's `dmPolicy` and `allowFrom`.
//!
//! Only ids match. A name can be taken by anybody at any time, so an entry that is a name admits nobody, whatever the
//! sender is called; OpenClaw's `dangerouslyAllowNameMatching` is [`Allowlist::match_names`].

use std::collections::HashSet;

use super::message::Sender;
use super::route::lower;

/// OpenClaw's `dmPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Whoever is not on the list is asked to pair.
    #[default]
    Pairing,
    /// Only who is on the list.
    Allowlist,
    /// Everybody if the list holds `*`; else only who is on it.
    Open,
    /// Nobody.
    Disabled,
}

/// Whether a sender's message counts, and why; the words are OpenClaw's reason codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it counts.
    pub allowed: bool,
    /// `dm_policy_open`, `dm_policy_allowlisted`, `dm_policy_pairing_required`, `dm_policy_not_allowlisted` or
    /// `dm_policy_disabled`.
    pub reason: &'static str,
}

/// Ids, and what they are for.
#[derive(Clone, Debug, Default)]
pub struct Allowlist {
    entries: HashSet<String>,
    policy: Policy,
    names: bool,
}

impl Allowlist {
    /// With entries as a config has them: ids, or `*`. Case and white space around them do not count.
    pub fn new<'e>(entries: impl IntoIterator<Item = &'e str>, policy: Policy) -> Self {
        let entries = entries.into_iter().map(|entry| lower(Some(entry))).filter(|entry| !entry.is_empty());
        Self { entries: entries.collect(), policy, names: false }
    }

    /// Whether entries match names, too. Anybody can take any name.
    pub fn match_names(mut self, yes: bool) -> Self {
        self.names = yes;
        self
    }

    /// Whether a direct message of this sender counts.
    pub fn check(&self, sender: &Sender) -> Decision {
        let (allowed, reason) = match self.policy {
            Policy::Disabled => (false, "dm_policy_disabled"),
            Policy::Open if self.entries.contains("*") => (true, "dm_policy_open"),
            _ if self.lists(sender) => (true, "dm_policy_allowlisted"),
            Policy::Pairing => (false, "dm_policy_pairing_required"),
            Policy::Open | Policy::Allowlist => (false, "dm_policy_not_allowlisted"),
        };
        Decision { allowed, reason }
    }

    fn lists(&self, sender: &Sender) -> bool {
        let has = |text: &str| {
            let text = lower(Some(text));
            !text.is_empty() && self.entries.contains(&text)
        };
        let names = [&sender.name, &sender.username];
        self.entries.contains("*")
            || has(&sender.id)
            || (self.names && names.into_iter().flatten().any(|name| has(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(id: &str, name: &str) -> Sender {
        Sender { id: id.into(), name: Some(name.into()), username: Some(name.into()), is_bot: false }
    }

    #[test]
    fn only_ids_match() {
        let list = Allowlist::new([" 42 ", "alice", ""], Policy::Allowlist);
        assert!(list.check(&sender("42", "mallory")).allowed);
        assert!(!list.check(&sender("43", "alice")).allowed, "a name was taken for an id");
        assert!(!list.check(&sender("", "")).allowed);
        assert!(list.match_names(true).check(&sender("43", "Alice")).allowed);
    }

    #[test]
    fn each_policy_has_its_reasons() {
        let reason = |entries: &[&str], policy, id: &str| {
            Allowlist::new(entries.iter().copied(), policy).check(&sender(id, "x")).reason
        };
        assert_eq!(reason(&["*"], Policy::Disabled, "1"), "dm_policy_disabled");
        assert_eq!(reason(&["*"], Policy::Open, "1"), "dm_policy_open");
        assert_eq!(reason(&["1"], Policy::Open, "1"), "dm_policy_allowlisted");
        assert_eq!(reason(&[], Policy::Open, "1"), "dm_policy_not_allowlisted");
        assert_eq!(reason(&[], Policy::Pairing, "1"), "dm_policy_pairing_required");
        assert_eq!(reason(&["*"], Policy::Allowlist, "1"), "dm_policy_allowlisted");
        assert_eq!(reason(&[], Policy::Allowlist, "1"), "dm_policy_not_allowlisted");
    }
}
