//! A session as an OpenClaw transcript: JSONL, header version 4.
//!
//! What came from a transcript goes back to the letter; events that did not (a program's own `message_received`) are
//! written as messages, one behind the other. Of several stretches under one session key (each reset begins one) it is
//! the one with the latest entry, which is the one that OpenClaw would go on with.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use super::event::{StoredEvent, write_string};
use super::openclaw::{Members, transcript_entry};
use super::store::{EventStore, Range};
use crate::{Code, CoreError, Result};

/// Events that are read at once.
const PAGE: usize = 256;

impl EventStore {
    /// One session as an OpenClaw transcript. Blocks.
    pub fn export_transcript(&self, session_key: &str) -> Result<String> {
        transcript(session_key, |take| {
            let mut after = None;
            loop {
                let page = self.read(session_key, &Range { after, limit: Some(PAGE), ..Range::default() })?;
                page.iter().for_each(&mut *take);
                let Some(last) = page.last().filter(|_| page.len() == PAGE) else { return Ok(()) };
                after = Some(last.seq);
            }
        })
    }
}

/// The version in the header.
const VERSION: u32 = 4;

/// The transcript of a session. `scan` hands every event of it to the function that it is given, in the order of
/// `seq`; it is called twice, so that no more than the exported stretch is held in memory.
fn transcript(
    session_key: &str,
    mut scan: impl FnMut(&mut dyn FnMut(&StoredEvent)) -> Result<()>,
) -> Result<String> {
    let mut events = 0_u64;
    let mut latest: Option<(i64, String)> = None;
    scan(&mut |event| {
        events += 1;
        if let Some(entry) = transcript_entry(&event.data)
            && latest.as_ref().is_none_or(|(time, _)| *time <= event.timestamp_ms)
        {
            match &mut latest {
                Some((time, id)) if id == entry.session_id => *time = event.timestamp_ms,
                other => *other = Some((event.timestamp_ms, entry.session_id.to_owned())),
            }
        }
    })?;
    if events == 0 {
        let message = format!("the store has no session {session_key}");
        return Err(CoreError::new(Code::Validation, message));
    }
    let session_id = latest.map_or_else(|| generated_id(session_key), |(_, id)| id);
    let mut stretch = Stretch { session_id, header: None, entries: Vec::new(), first_ms: i64::MAX };
    scan(&mut |event| stretch.take(event))?;
    Ok(stretch.write())
}

/// A session id for a session that OpenClaw never had: of the form of OpenClaw's own, and always the same.
fn generated_id(session_key: &str) -> String {
    let hash = blake3::hash(session_key.as_bytes()).to_hex();
    let part = |from: usize, to: usize| hash.get(from..to).unwrap_or_default();
    // Version 8 is for ids made in a way of one's own (RFC 9562).
    format!("{}-{}-8{}-8{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
}

struct Stretch {
    session_id: String,
    header: Option<String>,
    entries: Vec<Entry>,
    first_ms: i64,
}

struct Entry {
    timestamp_ms: i64,
    seq: u64,
    text: Text,
}

enum Text {
    /// A transcript's own entry, with its id and its parent's, if it has them.
    Kept { text: String, id: Option<String>, parent: Option<String> },
    /// Made of an event that never was in a transcript; it follows what stands before it.
    Made { id: String, message: String },
}

impl Stretch {
    fn take(&mut self, event: &StoredEvent) {
        let text = match transcript_entry(&event.data) {
            Some(entry) if entry.session_id != self.session_id => return,
            Some(entry) if event.kind == "session_started" => {
                self.header.get_or_insert_with(|| entry.text.to_owned());
                return;
            }
            Some(entry) => {
                let members = Members::of(entry.text).ok();
                let text = |key| members.as_ref().and_then(|members| members.text(key));
                Text::Kept { id: text("id"), parent: text("parentId"), text: entry.text.to_owned() }
            }
            None => match message(event) {
                Some(message) => Text::Made { id: event.id.clone(), message },
                None => return,
            },
        };
        self.first_ms = self.first_ms.min(event.timestamp_ms);
        self.entries.push(Entry { timestamp_ms: event.timestamp_ms, seq: event.seq, text });
    }

    fn write(mut self) -> String {
        self.order();
        let size: usize = self
            .entries
            .iter()
            .map(|entry| match &entry.text {
                Text::Kept { text, .. } => text.len() + 1,
                Text::Made { message, .. } => message.len() + 200,
            })
            .sum();
        let mut out = String::with_capacity(size + 300);
        self.write_header(&mut out);
        let mut previous: Option<&str> = None;
        for entry in &self.entries {
            match &entry.text {
                Text::Kept { text, id, .. } => {
                    out.push_str(text);
                    previous = id.as_deref().or(previous);
                }
                Text::Made { id, message } => {
                    out.push_str("{\"type\":\"message\",\"id\":");
                    write_string(&mut out, id);
                    out.push_str(",\"parentId\":");
                    match previous {
                        Some(previous) => write_string(&mut out, previous),
                        None => out.push_str("null"),
                    }
                    let _ =
                        write!(out, ",\"timestamp\":\"{}\",\"message\":{message}}}", iso(entry.timestamp_ms));
                    previous = Some(id);
                }
            }
            out.push('\n');
        }
        out
    }

    fn write_header(&self, out: &mut String) {
        let members = self.header.as_deref().and_then(|header| Members::of(header).ok());
        let Some(members) = members else {
            out.push_str("{\"type\":\"session\",\"version\":4,\"id\":");
            write_string(out, &self.session_id);
            let first = if self.entries.is_empty() { 0 } else { self.first_ms };
            let _ = writeln!(out, ",\"timestamp\":\"{}\",\"cwd\":\"\"}}", iso(first));
            return;
        };
        let _ = write!(out, "{{\"type\":\"session\",\"version\":{VERSION}");
        for (key, value) in &members.0 {
            if key != "type" && key != "version" {
                out.push(',');
                write_string(out, key);
                out.push(':');
                out.push_str(value.get());
            }
        }
        if members.text("id").is_none() {
            out.push_str(",\"id\":");
            write_string(out, &self.session_id);
        }
        out.push_str("}\n");
    }

    /// By time, then arrival; but a parent always before its children, as OpenClaw appends them, since clocks jump
    /// and backfills arrive late.
    fn order(&mut self) {
        self.entries.sort_by_key(|entry| (entry.timestamp_ms, entry.seq));
        let places: HashMap<&str, usize> = self
            .entries
            .iter()
            .enumerate()
            .filter_map(|(at, entry)| match &entry.text {
                Text::Kept { id, .. } => Some((id.as_deref()?, at)),
                Text::Made { .. } => None,
            })
            .collect();
        let parents: Vec<Option<usize>> = self
            .entries
            .iter()
            .map(|entry| match &entry.text {
                Text::Kept { parent, .. } => places.get(parent.as_deref()?).copied(),
                Text::Made { .. } => None,
            })
            .collect();
        let mut rank: Vec<Option<usize>> = vec![None; self.entries.len()];
        let mut next = 0;
        let mut chain = Vec::new();
        for at in 0..self.entries.len() {
            // Up to the first ancestor that has its place. A cycle ends where it closes: its entries are on the chain.
            let mut on_chain = std::collections::HashSet::new();
            let mut current = Some(at);
            while let Some(entry) = current
                && rank.get(entry).is_some_and(Option::is_none)
                && on_chain.insert(entry)
            {
                chain.push(entry);
                current = parents.get(entry).copied().flatten();
            }
            while let Some(entry) = chain.pop() {
                if let Some(place) = rank.get_mut(entry) {
                    *place = Some(next);
                    next += 1;
                }
            }
        }
        let mut ranked: Vec<_> = rank.into_iter().zip(std::mem::take(&mut self.entries)).collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        self.entries = ranked.into_iter().map(|(_, entry)| entry).collect();
    }
}

/// The message that an event of a program's own is, as OpenClaw writes messages.
fn message(event: &StoredEvent) -> Option<String> {
    let role = match event.kind.as_str() {
        "message_received" => "user",
        "message_sent" | "agent_response" => "assistant",
        _ => return None,
    };
    let members = Members::of(&event.data).ok();
    if let Some(message) = members.as_ref().and_then(|members| members.get("message"))
        && Members::of(message.get()).is_ok_and(|m| m.text("role").is_some() && m.get("content").is_some())
    {
        return Some(message.get().replace(['\n', '\r'], " "));
    }
    let content =
        members.as_ref().and_then(|members| members.get("content").or_else(|| members.get("text")))?;
    let content = content.get().replace(['\n', '\r'], " ");
    let blocks = if content.starts_with('[') {
        content
    } else if content.starts_with('"') {
        format!("[{{\"type\":\"text\",\"text\":{content}}}]")
    } else {
        return None;
    };
    Some(format!("{{\"role\":\"{role}\",\"content\":{blocks},\"timestamp\":{}}}", event.timestamp_ms))
}

/// As `Date.prototype.toISOString` writes it.
fn iso(timestamp_ms: i64) -> String {
    let time = u64::try_from(timestamp_ms)
        .ok()
        .and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms)))
        // humantime knows the years up to 9999.
        .filter(|_| timestamp_ms < 253_402_300_800_000)
        .unwrap_or(UNIX_EPOCH);
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::clock::Clock;
    use crate::events::event::Origin;
    use crate::events::openclaw::{Transcript, transcript_events};

    fn stored(seq: u64, kind: &str, id: &str, timestamp_ms: i64, data: &str) -> StoredEvent {
        StoredEvent {
            session_key: "agent:main:main".into(),
            agent_id: "main".into(),
            kind: kind.into(),
            data: data.into(),
            timestamp_ms,
            id: id.into(),
            seq,
            origin: Origin { replica: "r".into(), seq },
            n: seq,
            clock: Clock::from_bits(seq),
            hash: [0; 32],
            prev: [0; 32],
            arrival: seq,
        }
    }

    fn entries(session_id: &str, lines: &[&str]) -> Vec<StoredEvent> {
        let transcript = Transcript { session_key: "agent:main:main", agent_id: "main", session_id };
        lines
            .iter()
            .flat_map(|line| transcript_events(&transcript, line, Some(0)).unwrap())
            .enumerate()
            .map(|(at, event)| {
                stored(
                    at as u64 + 1,
                    &event.kind,
                    &event.id.unwrap(),
                    event.timestamp_ms.unwrap(),
                    &event.data,
                )
            })
            .collect()
    }

    fn export(events: &[StoredEvent]) -> String {
        transcript("agent:main:main", |take| {
            events.iter().for_each(take);
            Ok(())
        })
        .unwrap()
    }

    const HEADER: &str = r#"{"type":"session","version":3,"id":"a","timestamp":"2026-02-01T00:00:00.000Z","cwd":"/w","x":1.50}"#;

    fn line(id: &str, parent: &str, ms: u32) -> String {
        format!(
            r#"{{"type":"message","id":"{id}","parentId":{parent},"timestamp":"2026-02-01T00:00:00.{ms:03}Z","message":{{"role":"user","content":"\ud800"}}}}"#
        )
    }

    #[test]
    fn a_transcript_comes_back_to_the_letter_under_header_version_4() {
        let lines = [
            line("1", "null", 1),
            line("2", "\"1\"", 2),
            r#"{"type":"label","id":"3","parentId":"2","timestamp":"2026-02-01T00:00:00.003Z"}"#.to_owned(),
        ];
        let all: Vec<&str> = std::iter::once(HEADER).chain(lines.iter().map(String::as_str)).collect();
        let header = r#"{"type":"session","version":4,"id":"a","timestamp":"2026-02-01T00:00:00.000Z","cwd":"/w","x":1.50}"#;
        assert_eq!(export(&entries("a", &all)), format!("{header}\n{}\n", lines.join("\n")));
    }

    #[test]
    fn a_parent_stands_before_its_children_whatever_the_clock_and_the_arrival() {
        let lines = [
            line("3", "\"2\"", 1),
            line("2", "\"1\"", 9),
            line("1", "null", 5),
            line("4", "\"3\"", 2),
            line("b", "\"1\"", 9),
        ];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let text = export(&entries("a", &lines));
        let order: Vec<String> =
            text.lines().skip(1).map(|l| Members::of(l).unwrap().text("id").unwrap()).collect();
        assert_eq!(order, ["1", "2", "3", "4", "b"]);
        let circle = [line("1", "\"2\"", 1), line("2", "\"1\"", 2)];
        assert_eq!(export(&entries("a", &[&circle[0], &circle[1]])).lines().count(), 3);
    }

    #[test]
    fn the_stretch_with_the_latest_entry_is_exported_alone() {
        let mut events = entries("old", &[HEADER, &line("o", "null", 5)]);
        events.extend(entries("new", &[&line("n", "null", 7)]));
        let text = export(&events);
        assert!(
            text.starts_with(
                r#"{"type":"session","version":4,"id":"new","timestamp":"2026-02-01T00:00:00.007Z","cwd":""}"#
            ),
            "{text}"
        );
        assert_eq!(text.lines().count(), 2);
        events.extend(entries("old", &[&line("p", "\"o\"", 9)]));
        assert_eq!(export(&events).lines().count(), 3);
    }

    #[test]
    fn events_of_a_programs_own_become_messages_one_behind_the_other() {
        let events = [
            stored(1, "message_received", "r-1", 1000, r#"{"text":"hi \"you\""}"#),
            stored(2, "state_changed", "r-2", 1001, r#"{"text":"no"}"#),
            stored(
                3,
                "agent_response",
                "r-3",
                1002,
                r#"{"message":{"role":"assistant","content":[],"usage":{"input":1}}}"#,
            ),
            stored(4, "message_sent", "r-4", 1003, r#"{"content":[{"type":"text","text":"bye"}]}"#),
            stored(5, "message_sent", "r-5", 1004, r#"{"content":7}"#),
        ];
        let text = export(&events);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(
            lines[1],
            r#"{"type":"message","id":"r-1","parentId":null,"timestamp":"1970-01-01T00:00:01.000Z","message":{"role":"user","content":[{"type":"text","text":"hi \"you\""}],"timestamp":1000}}"#
        );
        assert!(lines[2].contains(r#""parentId":"r-1""#) && lines[2].contains(r#""usage":{"input":1}"#));
        assert!(lines[3].contains(r#""parentId":"r-3""#) && lines[3].contains("bye"));
        assert_eq!(export(&events), text);
        let id = Members::of(lines[0]).unwrap().text("id").unwrap();
        assert_eq!((id.len(), id.as_bytes()[14], id.as_bytes()[19]), (36, b'8', b'8'), "{id}");
    }

    #[test]
    fn a_session_that_is_not_there_is_an_error() {
        let error = transcript("agent:main:none", |_| Ok(())).unwrap_err();
        assert_eq!(error.code(), Code::Validation);
        assert!(error.message().contains("agent:main:none"));
    }
}
