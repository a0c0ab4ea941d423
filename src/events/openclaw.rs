//! What OpenClaw records, as events: one fact, one event.
//!
//! An id derives from OpenClaw's own, so that the live mirror, a backfill and an import of the same fact give the
//! same event. Pure: text in, events out. The only place that knows both vocabularies; the export reads back here
//! what the import wrote.
//!
//! | in the transcript | kind | id | data |
//! |---|---|---|---|
//! | header | `session_started` | `session:<sessionId>` | `{sessionId, entry}` |
//! | message of the user, the assistant, a tool | `message_received`, `agent_response`, `tool_result` | `transcript:<sessionId>:<entry id>` | `{sessionId, entry}` |
//! | message of another role | `transcript_<role>` | as above | as above |
//! | any other entry | `transcript_<type>` | as above | as above |
//! | tool call in an assistant's message | `tool_called` | `tool:<sessionId>:<toolCallId>` | `{sessionId, toolCallId, name, arguments}` |

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::event::{MAX_NAME_BYTES, NewEvent, invalid, write_string};
use crate::Result;
use crate::types::session_key;

/// Whose transcript it is.
#[derive(Clone, Copy, Debug)]
pub struct Transcript<'a> {
    /// The session key, `agent:<agentId>:…`.
    pub session_key: &'a str,
    /// The agent.
    pub agent_id: &'a str,
    /// OpenClaw's id of this stretch of the session; a reset begins a new one under the same key.
    pub session_id: &'a str,
}

/// The events of one transcript entry (a line of a JSONL transcript, a row of `transcript_events`), kept to the letter.
///
/// `written_ms` is the time of an entry that bears none. `EVENT_INVALID` if the text is not a JSON object.
pub fn transcript_events(
    transcript: &Transcript<'_>,
    entry: &str,
    written_ms: Option<i64>,
) -> Result<Vec<NewEvent>> {
    let text = entry.trim();
    let members = Members::of(text)?;
    let session_id = transcript.session_id;
    let kind = members.text("type");
    let message = members.object("message");
    let timestamp_ms = members
        .time("timestamp")
        .or_else(|| message.as_ref().and_then(|message| message.time("timestamp")))
        .or(written_ms);
    let event = |kind: String, id: String, data: String| NewEvent {
        session_key: transcript.session_key.to_owned(),
        agent_id: transcript.agent_id.to_owned(),
        kind,
        data,
        timestamp_ms,
        id: Some(id),
    };
    let data = || {
        let mut data = String::with_capacity(text.len() + session_id.len() + 32);
        data.push_str("{\"sessionId\":");
        write_string(&mut data, session_id);
        data.push_str(",\"entry\":");
        // Line breaks between tokens mean nothing in JSON, and would break the line of an export.
        if text.contains(['\n', '\r']) {
            data.push_str(&text.replace(['\n', '\r'], " "));
        } else {
            data.push_str(text);
        }
        data.push('}');
        data
    };

    if kind.as_deref() == Some("session") {
        return Ok(vec![event("session_started".to_owned(), session_id_event(session_id), data())]);
    }
    let role = message.as_ref().filter(|_| kind.as_deref() == Some("message")).and_then(|m| m.text("role"));
    let id = match members.text("id").filter(|id| !id.is_empty()) {
        Some(id) => entry_event_id(session_id, &id),
        // OpenClaw names it nowhere, so the content does.
        None => entry_event_id(session_id, &format!("#{}", digest(text))),
    };
    let event_kind = match (role.as_deref(), kind.as_deref()) {
        (Some("user"), _) => "message_received".to_owned(),
        (Some("assistant"), _) => "agent_response".to_owned(),
        (Some("toolResult"), _) => "tool_result".to_owned(),
        (Some(other), _) | (None, Some(other)) => transcript_kind(other),
        (None, None) => transcript_kind("entry"),
    };
    let calls = if role.as_deref() == Some("assistant") {
        message.as_ref().map(|message| tool_calls(message, session_id)).unwrap_or_default()
    } else {
        Vec::new()
    };
    let mut events = vec![event(event_kind, id, data())];
    events.extend(calls.into_iter().map(|(id, data)| event("tool_called".to_owned(), id, data)));
    Ok(events)
}

/// As [`transcript_events`], for a JSON array of entries; gives a JSON array of events as `appendBatch` takes them.
pub fn transcript_events_json(
    transcript: &Transcript<'_>,
    entries: &str,
    written_ms: Option<i64>,
) -> Result<String> {
    let entries: Vec<&RawValue> = serde_json::from_str(entries)
        .map_err(|error| invalid(format!("entries must be given as an array of objects: {error}")))?;
    let mut out = String::from("[");
    for (at, entry) in entries.iter().enumerate() {
        let events = transcript_events(transcript, entry.get(), written_ms)
            .map_err(|error| invalid(format!("entry {at}: {}", error.message())))?;
        for event in events {
            if out.len() > 1 {
                out.push(',');
            }
            event.write_json(&mut out);
        }
    }
    out.push(']');
    Ok(out)
}

impl NewEvent {
    /// Appends the event as a JSON object of the public shape.
    fn write_json(&self, out: &mut String) {
        for (before, text) in [
            ("{\"sessionKey\":", &self.session_key),
            (",\"agentId\":", &self.agent_id),
            (",\"kind\":", &self.kind),
        ] {
            out.push_str(before);
            write_string(out, text);
        }
        let _ = write!(out, ",\"data\":{}", self.data);
        if let Some(time) = self.timestamp_ms {
            let _ = write!(out, ",\"timestampMs\":{time}");
        }
        if let Some(id) = &self.id {
            out.push_str(",\"id\":");
            write_string(out, id);
        }
        out.push('}');
    }
}

/// The id of the event that a transcript's header is.
pub fn session_id_event(session_id: &str) -> String {
    bounded("session:", session_id, None)
}

/// The id of the event that a transcript entry is.
pub fn entry_event_id(session_id: &str, entry_id: &str) -> String {
    bounded("transcript:", session_id, Some(entry_id))
}

/// The id of the event that a tool call is.
pub fn tool_event_id(session_id: &str, tool_call_id: &str) -> String {
    bounded("tool:", session_id, Some(tool_call_id))
}

/// `prefix`, session id, name; what cannot be an id (a provider's tool call ids may have thousands of bytes) is
/// replaced by its digest.
fn bounded(prefix: &str, session_id: &str, name: Option<&str>) -> String {
    let id = match name {
        Some(name) => format!("{prefix}{session_id}:{name}"),
        None => format!("{prefix}{session_id}"),
    };
    if id.len() <= MAX_NAME_BYTES && !id.contains(char::is_control) {
        return id;
    }
    format!("{prefix}#{}", digest(&id))
}

fn digest(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().chars().take(32).collect()
}

/// `transcript_<name>`, where the name can be a kind.
fn transcript_kind(name: &str) -> String {
    let fits = !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    format!("transcript_{}", if fits { name } else { "other" })
}

/// The id and the data of each tool call in an assistant's message.
fn tool_calls(message: &Members<'_>, session_id: &str) -> Vec<(String, String)> {
    let Some(content) = message.get("content") else { return Vec::new() };
    let Ok(blocks) = serde_json::from_str::<Vec<&RawValue>>(content.get()) else { return Vec::new() };
    blocks
        .iter()
        .filter_map(|block| {
            let block = Members::of(block.get()).ok()?;
            let called =
                matches!(block.text("type").as_deref(), Some("toolCall" | "toolUse" | "functionCall"));
            let id = block.text("id").filter(|id| called && !id.is_empty())?;
            let mut data = String::from("{\"sessionId\":");
            write_string(&mut data, session_id);
            data.push_str(",\"toolCallId\":");
            write_string(&mut data, &id);
            data.push_str(",\"name\":");
            data.push_str(block.get("name").map_or("null", RawValue::get));
            data.push_str(",\"arguments\":");
            let arguments = block.get("arguments").or_else(|| block.get("input"));
            data.push_str(arguments.map_or("null", RawValue::get));
            data.push('}');
            Some((tool_event_id(session_id, &id), data))
        })
        .collect()
}

/// A transcript entry in an event's data, as [`transcript_events`] put it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// OpenClaw's id of the stretch it belongs to.
    pub session_id: &'a str,
    /// The entry, to the letter.
    pub text: &'a str,
}

/// The transcript entry in an event's data, if there is one.
pub fn transcript_entry(data: &str) -> Option<Entry<'_>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Holder<'a> {
        // A session id with an escape in it is none that OpenClaw makes.
        session_id: &'a str,
        #[serde(borrow)]
        entry: &'a RawValue,
    }
    let Holder { session_id, entry } = serde_json::from_str(data).ok()?;
    entry.get().starts_with('{').then_some(Entry { session_id, text: entry.get() })
}

/// A session key as OpenClaw stores it today: older ones may bear no agent and upper-case letters.
pub fn canonical_session_key(key: &str, agent_id: &str) -> String {
    let lowered = key.trim().to_lowercase();
    if lowered == "global" || lowered == "unknown" {
        return lowered;
    }
    let units = |text: &str| text.encode_utf16().collect::<Vec<_>>();
    let parsed = session_key::parse(&units(key))
        .or_else(|| session_key::parse(&units(&format!("agent:{agent_id}:{}", key.trim()))));
    parsed.map_or(lowered, |parsed| {
        let text = |units: &[u16]| String::from_utf16_lossy(units);
        format!("agent:{}:{}", text(&parsed.agent_id), text(&parsed.rest))
    })
}

/// The agent of a session key, if it names one.
pub fn agent_of(key: &str) -> Option<String> {
    let parsed = session_key::parse(&key.encode_utf16().collect::<Vec<_>>())?;
    Some(String::from_utf16_lossy(&parsed.agent_id))
}

/// The members of a JSON object, each value to the letter. Of a key that comes twice the last counts, as in
/// `JSON.parse`.
#[derive(Debug)]
pub(super) struct Members<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    pub(super) fn of(json: &'a str) -> Result<Self> {
        serde_json::from_str(json).map_err(|error| invalid(format!("not a JSON object: {error}")))
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find_map(|(name, value)| (name == key).then_some(*value))
    }

    /// A member that is a string.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        serde_json::from_str(self.get(key)?.get()).ok()
    }

    /// A member that is an object.
    pub(super) fn object(&self, key: &str) -> Option<Members<'a>> {
        serde_json::from_str(self.get(key)?.get()).ok()
    }

    /// A member that is a number without a fraction.
    pub(super) fn integer(&self, key: &str) -> Option<i64> {
        serde_json::from_str(self.get(key)?.get()).ok()
    }

    /// A member that is a time: ISO 8601, or milliseconds since 1970.
    pub(super) fn time(&self, key: &str) -> Option<i64> {
        let json = self.get(key)?.get();
        if let Ok(text) = serde_json::from_str::<Cow<'_, str>>(json) {
            let time = humantime::parse_rfc3339_weak(text.trim()).ok()?;
            return i64::try_from(time.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis()).ok();
        }
        let number = serde_json::from_str::<f64>(json).ok()?;
        // JavaScript's own range of dates.
        #[allow(clippy::cast_possible_truncation)]
        (number.abs() <= 8.64e15).then_some(number.floor() as i64)
    }

    /// The object as JSON text.
    pub(super) fn to_json(&self) -> String {
        let mut out = String::from("{");
        for (at, (key, value)) in self.0.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            write_string(&mut out, key);
            out.push(':');
            out.push_str(value.get());
        }
        out.push('}');
        out
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry::<Cow<'de, str>, &'de RawValue>()? {
                    pairs.push(pair);
                }
                Ok(Members(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: Transcript<'static> =
        Transcript { session_key: "agent:main:main", agent_id: "main", session_id: "s-1" };

    fn events(entry: &str) -> Vec<NewEvent> {
        transcript_events(&MAIN, entry, None).unwrap()
    }

    fn one(entry: &str) -> (String, String) {
        let mut events = events(entry);
        assert_eq!(events.len(), 1, "{entry}");
        let event = events.remove(0);
        (event.kind, event.id.unwrap())
    }

    #[test]
    fn each_kind_of_entry_has_its_kind_and_the_id_of_the_host() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let message = |role: &str| format!(r#"{{"type":"message","id":"e","message":{{"role":"{role}"}}}}"#);
        assert_eq!(one(r#"{"type":"session","id":"s-1"}"#), pair("session_started", "session:s-1"));
        assert_eq!(one(&message("user")), pair("message_received", "transcript:s-1:e"));
        assert_eq!(one(&message("assistant")), pair("agent_response", "transcript:s-1:e"));
        assert_eq!(one(&message("toolResult")), pair("tool_result", "transcript:s-1:e"));
        assert_eq!(one(&message("bashExecution")), pair("transcript_bashExecution", "transcript:s-1:e"));
        assert_eq!(one(&message("a b")), pair("transcript_other", "transcript:s-1:e"));
        assert_eq!(one(r#"{"type":"message","id":"e"}"#), pair("transcript_message", "transcript:s-1:e"));
        assert_eq!(
            one(r#"{"type":"compaction","id":"e"}"#),
            pair("transcript_compaction", "transcript:s-1:e")
        );
        assert_eq!(one(r#"{"id":"e"}"#), pair("transcript_entry", "transcript:s-1:e"));
        assert_eq!(one(r#"{"type":7,"id":"e"}"#), pair("transcript_entry", "transcript:s-1:e"));
    }

    #[test]
    fn an_entry_is_kept_to_the_letter_and_read_back() {
        let entry = r#"{"id":"e","type":"custom", "n":1.50,"big":9007199254740993,"__proto__":{},"s":"\ud800 \n","n":2}"#;
        let event = events(&format!("  {entry}\r")).remove(0);
        assert_eq!(event.data, format!(r#"{{"sessionId":"s-1","entry":{entry}}}"#));
        assert_eq!(transcript_entry(&event.data), Some(Entry { session_id: "s-1", text: entry }));
        let broken = events("{\"id\":\"e\",\n\"type\":\"custom\"}").remove(0);
        assert_eq!(transcript_entry(&broken.data).unwrap().text, "{\"id\":\"e\", \"type\":\"custom\"}");
        for other in ["null", "{}", r#"{"sessionId":"s","entry":[]}"#, r#"{"sessionId":1,"entry":{}}"#] {
            assert_eq!(transcript_entry(other), None, "{other}");
        }
    }

    #[test]
    fn a_tool_call_is_an_event_of_its_own() {
        let entry = r#"{"type":"message","id":"e","timestamp":"2026-02-03T04:05:06.789Z","message":{"role":"assistant","content":[
            {"type":"text","text":"toolCall"},
            {"type":"toolCall","id":"call_1","name":"read","arguments":{"path":"a","n":1.0}},
            {"type":"toolCall","id":"","name":"none"},
            {"type":"toolUse","id":"call_2","name":"exec","input":{"cmd":"ls"}}]}}"#;
        let events = events(entry);
        let ids: Vec<_> = events.iter().map(|event| event.id.clone().unwrap()).collect();
        assert_eq!(ids, ["transcript:s-1:e", "tool:s-1:call_1", "tool:s-1:call_2"]);
        assert_eq!(
            events[1].data,
            r#"{"sessionId":"s-1","toolCallId":"call_1","name":"read","arguments":{"path":"a","n":1.0}}"#
        );
        assert!(events[2].data.ends_with(r#""name":"exec","arguments":{"cmd":"ls"}}"#));
        assert!(events.iter().all(|event| event.timestamp_ms == Some(1_770_091_506_789)));
        let of_user = entry.replace("assistant", "user");
        assert_eq!(super::tests::events(&of_user).len(), 1);
    }

    #[test]
    fn many_entries_become_events_as_a_batch_is_given() {
        let entries = r#"[{"type":"session","id":"s-1"},{"type":"message","id":"e\"","message":{"role":"user","n":1.0}}]"#;
        let json = transcript_events_json(&MAIN, entries, Some(5)).unwrap();
        let read = crate::events::event::parse_events(&json).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[1].id.as_deref(), Some("transcript:s-1:e\""));
        assert_eq!(read[1].timestamp_ms, Some(5));
        assert!(read[1].data.ends_with(r#""n":1.0}}}"#), "{}", read[1].data);
        assert_eq!(transcript_events_json(&MAIN, "[]", None).unwrap(), "[]");
        for (wrong, part) in [("{}", "array"), ("[{},1]", "entry 1")] {
            let error = transcript_events_json(&MAIN, wrong, None).unwrap_err();
            assert!(error.message().contains(part), "{error}");
        }
    }

    #[test]
    fn the_time_is_the_entrys_then_the_messages_then_the_files() {
        let time = |entry: &str| transcript_events(&MAIN, entry, Some(7)).unwrap().remove(0).timestamp_ms;
        assert_eq!(time(r#"{"timestamp":"1970-01-01T00:00:01.5Z","message":{"timestamp":3}}"#), Some(1500));
        assert_eq!(time(r#"{"timestamp":12.9}"#), Some(12));
        assert_eq!(time(r#"{"timestamp":"soon","message":{"timestamp":3}}"#), Some(3));
        assert_eq!(time(r#"{"timestamp":1e300}"#), Some(7));
        assert_eq!(time("{}"), Some(7));
    }

    #[test]
    fn what_is_no_object_is_refused_with_the_place() {
        for (text, part) in [("", "EOF"), ("[1]", "object"), ("{\"a\":1", "line 1 column"), ("nul", "line 1")]
        {
            let error = transcript_events(&MAIN, text, None).unwrap_err();
            assert_eq!(error.code(), crate::Code::EventInvalid);
            assert!(error.message().contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn an_entry_without_an_id_is_named_by_its_content() {
        let (_, first) = one(r#"{"type":"custom","data":1}"#);
        assert_eq!(one(r#" {"type":"custom","data":1} "#).1, first);
        assert_ne!(one(r#"{"type":"custom","data":2}"#).1, first);
        assert!(first.starts_with("transcript:s-1:#"), "{first}");
    }

    #[test]
    fn an_id_that_could_not_be_written_becomes_its_digest() {
        let long = "c".repeat(4000);
        assert_ne!(tool_event_id("s", &long), tool_event_id("t", &long));
        assert!(tool_event_id("s", &long).len() < 64);
        assert!(entry_event_id("s", "a\u{0}").starts_with("transcript:#"));
        assert_eq!(tool_event_id("s", "call_1|fc_2"), "tool:s:call_1|fc_2");
    }

    #[test]
    fn older_session_keys_become_todays() {
        for (key, canonical) in [
            ("main", "agent:ops:main"),
            (" Agent:Main:Telegram:Direct:42", "agent:main:telegram:direct:42"),
            ("telegram:group:-100", "agent:ops:telegram:group:-100"),
            ("signal:group:AbC=", "agent:ops:signal:group:AbC="),
            ("Global", "global"),
            ("unknown", "unknown"),
        ] {
            assert_eq!(canonical_session_key(key, "ops"), canonical, "{key}");
        }
        assert_eq!(agent_of("agent:Ops:main").as_deref(), Some("ops"));
        assert_eq!(agent_of("global"), None);
    }
}
