//! Session keys: `agent:<agentId>:<rest>`, read and built as OpenClaw 2026.9 does.
//!
//! Keys are folded to lower case, except for what a platform owns: Signal group ids and Matrix room ids keep their
//! case. Everything works on UTF-16 code units, because OpenClaw cuts its strings by them.

use std::ops::Range;

/// A JavaScript string's code units.
pub type Units = Vec<u16>;

/// The two halves of an agent's session key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionKey {
    /// Whose session it is.
    pub agent_id: Units,
    /// Which of its sessions.
    pub rest: Units,
}

/// Reads a session key. `None` where there is no agent, or nothing behind it.
pub fn parse(key: &[u16]) -> Option<SessionKey> {
    let key = fold(trim(key));
    if !starts_with(&key, "agent:") {
        return None;
    }
    let tail = key.get(6..)?;
    let end = tail.iter().position(|&unit| unit == COLON)?;
    let agent_id = trim(tail.get(..end)?).to_vec();
    let rest = tail.get(end + 1..)?.to_vec();
    let good = !agent_id.is_empty() && !rest.is_empty() && rest.first() != Some(&COLON);
    good.then_some(SessionKey { agent_id, rest })
}

/// Whom a session is with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKind {
    /// One person.
    Direct,
    /// A group chat.
    Group,
    /// A channel of a platform.
    Channel,
}

/// How direct chats are divided into sessions; OpenClaw's `session.dmScope`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DmScope {
    /// All direct chats share the agent's main session.
    #[default]
    Main,
    /// One session a person.
    PerPeer,
    /// One session a person and platform.
    PerChannelPeer,
    /// One session a person, platform and account.
    PerAccountChannelPeer,
}

/// What a session key is made of.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// The agent; OpenClaw's own id rule is applied.
    pub agent_id: Units,
    /// The platform, such as `telegram`.
    pub channel: Units,
    /// The account on it.
    pub account_id: Units,
    /// Whom it is with; `None` for the main session.
    pub peer: Option<(PeerKind, Units)>,
    /// How direct chats are divided.
    pub dm_scope: DmScope,
    /// The thread within the chat.
    pub thread_id: Units,
}

/// Builds the key of the session that a message belongs to.
pub fn build(parts: &Parts) -> Units {
    let agent = format_units("agent:", &canonical_id(&parts.agent_id).unwrap_or_else(|| units("main")));
    let channel =
        Some(lower(trim(&parts.channel))).filter(|c| !c.is_empty()).unwrap_or_else(|| units("unknown"));
    let main = || join(&[&agent, &units("main")]);
    let base = match &parts.peer {
        None => main(),
        Some((PeerKind::Direct, id)) => {
            let peer = lower(trim(id));
            let direct = units("direct");
            match parts.dm_scope {
                _ if peer.is_empty() => main(),
                DmScope::Main => main(),
                DmScope::PerPeer => join(&[&agent, &direct, &peer]),
                DmScope::PerChannelPeer => join(&[&agent, &channel, &direct, &peer]),
                DmScope::PerAccountChannelPeer => {
                    join(&[&agent, &channel, &account_id(&parts.account_id), &direct, &peer])
                }
            }
        }
        Some((kind, id)) => {
            let (word, keeps_case) = match kind {
                PeerKind::Group => ("group", equals(&channel, "signal") || equals(&channel, "matrix")),
                _ => ("channel", equals(&channel, "matrix")),
            };
            let id = if keeps_case { trim(id).to_vec() } else { lower(trim(id)) };
            let id = if id.is_empty() { units("unknown") } else { id };
            join(&[&agent, &channel, &units(word), &id])
        }
    };
    let thread = lower(trim(&parts.thread_id));
    if thread.is_empty() { base } else { join(&[&base, &units("thread"), &thread]) }
}

const COLON: u16 = b':' as u16;
const DASH: u16 = b'-' as u16;
const THREAD: &str = ":thread:";

/// Lower case, except for the spans that a platform owns; surrounding space of every folded span is cut.
fn fold(raw: &[u16]) -> Units {
    let folded = lower(raw);
    if find(&folded, "signal:").is_none() && find(&folded, "matrix:").is_none() {
        return folded;
    }
    let mut spans: Vec<(Range<usize>, bool)> =
        signal_group_ids(raw).into_iter().map(|span| (span, true)).collect();
    spans.extend(matrix_tail(raw).into_iter().map(|span| (span, false)));
    spans.retain(|(span, _)| !span.is_empty());
    spans.sort_by_key(|(span, _)| span.start);

    let mut out = Units::new();
    let mut cursor = 0;
    for (span, cut_space) in spans {
        if span.start < cursor {
            continue;
        }
        out.extend(lower(trim(raw.get(cursor..span.start).unwrap_or_default())));
        let kept = raw.get(span.clone()).unwrap_or_default();
        out.extend_from_slice(if cut_space { trim(kept) } else { kept });
        cursor = span.end;
    }
    out.extend(lower(trim(raw.get(cursor..).unwrap_or_default())));
    out
}

/// The ids in `signal:group:<id>`, wherever a segment begins so.
fn signal_group_ids(raw: &[u16]) -> Vec<Range<usize>> {
    const HEAD: &str = "signal:group:";
    let mut found = Vec::new();
    let mut at = 0;
    while at < raw.len() {
        let head = match raw.get(at) {
            _ if at == 0 && starts_with(raw, HEAD) => at,
            Some(&COLON) if starts_with(raw.get(at + 1..).unwrap_or_default(), HEAD) => at + 1,
            _ => {
                at += 1;
                continue;
            }
        };
        let start = head + HEAD.len();
        let end = raw.iter().skip(start).position(|&u| u == COLON).map_or(raw.len(), |length| start + length);
        if end == start {
            at += 1;
        } else {
            found.push(start..end);
            at = end;
        }
    }
    found
}

/// What follows `matrix:channel:` or `matrix:group:` at the start of the key or behind its agents, without the
/// marker of a thread.
fn matrix_tail(raw: &[u16]) -> [Range<usize>; 2] {
    let Some(start) = matrix_head(raw).filter(|&start| start < raw.len()) else { return [0..0, 0..0] };
    let tail = raw.get(start..).unwrap_or_default();
    // OpenClaw looks for the marker in the trimmed, folded tail and cuts the raw one at that index.
    let Some(marker) = find_last(&lower(trim(tail)), THREAD) else { return [start..raw.len(), 0..0] };
    let marker = (start + marker).min(raw.len());
    let thread = (marker + THREAD.len()).min(raw.len());
    [start..marker, thread..raw.len()]
}

fn matrix_head(raw: &[u16]) -> Option<usize> {
    let mut ends = vec![0];
    let mut at = 0;
    while starts_with(raw.get(at..)?, "agent:") {
        let id = at + 6;
        let Some(length) = raw.iter().skip(id).position(|&unit| unit == COLON) else { break };
        at = id + length + 1;
        ends.push(at);
    }
    ends.into_iter().rev().find_map(|end| {
        let colons =
            if end == 0 { 0 } else { raw.iter().skip(end).take_while(|&&unit| unit == COLON).count() };
        let head = end + colons;
        ["matrix:channel:", "matrix:group:"]
            .iter()
            .find(|prefix| starts_with(raw.get(head..).unwrap_or_default(), prefix))
            .map(|prefix| head + prefix.len())
    })
}

/// OpenClaw's rule for agent and account ids: ASCII word characters, at most 64. `None` if nothing is left.
fn canonical_id(value: &[u16]) -> Option<Units> {
    let trimmed = trim(value);
    let word =
        |unit: u16| u8::try_from(unit).is_ok_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    let alphanumeric = |unit: u16| u8::try_from(unit).is_ok_and(|b| b.is_ascii_alphanumeric());
    let lowered = lower(trimmed);
    let valid = trimmed.len() <= 64
        && trimmed.first().is_some_and(|&unit| alphanumeric(unit))
        && trimmed.iter().all(|&unit| word(unit));
    if valid {
        return Some(lowered);
    }
    let mut id = Units::new();
    let mut replacing = false;
    for &unit in &lowered {
        if word(unit) {
            id.push(unit);
        } else if !replacing {
            id.push(DASH);
        }
        replacing = !word(unit);
    }
    let leading = id.iter().take_while(|&&unit| unit == DASH).count();
    let trailing = id.iter().rev().take_while(|&&unit| unit == DASH).count();
    let mut id = id.get(leading..id.len().saturating_sub(trailing).max(leading)).unwrap_or_default().to_vec();
    id.truncate(64);
    (!id.is_empty()).then_some(id)
}

fn account_id(value: &[u16]) -> Units {
    canonical_id(value)
        .filter(|id| !["__proto__", "prototype", "constructor"].iter().any(|key| equals(id, key)))
        .unwrap_or_else(|| units("default"))
}

fn units(text: &str) -> Units {
    text.encode_utf16().collect()
}

fn format_units(prefix: &str, rest: &[u16]) -> Units {
    let mut out = units(prefix);
    out.extend_from_slice(rest);
    out
}

fn join(parts: &[&[u16]]) -> Units {
    parts.join(&COLON)
}

fn equals(units: &[u16], text: &str) -> bool {
    units.iter().copied().eq(text.encode_utf16())
}

/// ASCII case-insensitive, as JavaScript's `/i` is for ASCII patterns.
fn starts_with(units: &[u16], ascii: &str) -> bool {
    units.get(..ascii.len()).is_some_and(|head| {
        head.iter()
            .zip(ascii.bytes())
            .all(|(&unit, byte)| u8::try_from(unit).is_ok_and(|unit| unit.eq_ignore_ascii_case(&byte)))
    })
}

fn find(units: &[u16], ascii: &str) -> Option<usize> {
    units.windows(ascii.len()).position(|window| equals(window, ascii))
}

fn find_last(units: &[u16], ascii: &str) -> Option<usize> {
    units.windows(ascii.len()).rposition(|window| equals(window, ascii))
}

/// `String.prototype.trim`.
fn trim(units: &[u16]) -> &[u16] {
    let space = |unit: &u16| {
        matches!(unit,
            0x09..=0x0D | 0x20 | 0xA0 | 0x1680 | 0x2000..=0x200A | 0x2028 | 0x2029 | 0x202F | 0x205F | 0x3000 | 0xFEFF)
    };
    let start = units.iter().take_while(|unit| space(unit)).count();
    let end = units.len() - units.iter().skip(start).rev().take_while(|unit| space(unit)).count();
    units.get(start..end).unwrap_or_default()
}

/// `String.prototype.toLowerCase`; lone surrogates stay.
fn lower(units: &[u16]) -> Units {
    let mut out = Units::with_capacity(units.len());
    let mut text = String::new();
    for unit in char::decode_utf16(units.iter().copied()) {
        match unit {
            Ok(c) => text.push(c),
            Err(lone) => {
                out.extend(text.to_lowercase().encode_utf16());
                text.clear();
                out.push(lone.unpaired_surrogate());
            }
        }
    }
    out.extend(text.to_lowercase().encode_utf16());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(key: &str) -> Option<(String, String)> {
        parse(&units(key))
            .map(|key| (String::from_utf16_lossy(&key.agent_id), String::from_utf16_lossy(&key.rest)))
    }

    #[test]
    fn keys_are_split_behind_the_agent_and_folded() {
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(parsed("agent:main:main"), pair("main", "main"));
        assert_eq!(parsed(" Agent: Main :Telegram:Direct:42"), pair("main", "telegram:direct:42"));
        assert_eq!(parsed("agent:a:signal:group:AbC="), pair("a", "signal:group:AbC="));
        assert_eq!(
            parsed("agent:a:Matrix:channel:!Room:Server:thread:$Ev"),
            pair("a", "matrix:channel:!Room:Server:thread:$Ev")
        );
        for none in ["", "main", "agent:", "agent:a", "agent:a:", "agent::x", "agent:a::x", "agents:a:x"] {
            assert_eq!(parsed(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_built_key_reads_back() {
        let parts = Parts {
            agent_id: units("Work Agent"),
            channel: units("Signal"),
            peer: Some((PeerKind::Group, units("AbC="))),
            ..Parts::default()
        };
        let key = build(&parts);
        assert_eq!(String::from_utf16_lossy(&key), "agent:work-agent:signal:group:AbC=");
        assert_eq!(parse(&key).map(|key| key.rest), Some(units("signal:group:AbC=")));
    }
}
