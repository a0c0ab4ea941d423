//! Events: what comes in, what is stored, and the bytes between.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::clock::Clock;
use crate::{Code, CoreError, Result};

/// The kind of the event that deletes a session.
pub const SESSION_DELETED: &str = "session_deleted";

/// Bytes of a session key.
pub(super) const MAX_KEY_BYTES: usize = 1024;
/// Bytes of an agent id, a kind, or an id.
pub(super) const MAX_NAME_BYTES: usize = 512;
/// Bytes of a replica's name.
pub(super) const MAX_REPLICA_BYTES: usize = 64;
/// Nesting of arrays and objects in an event's data.
pub(super) const MAX_DEPTH: usize = 256;
/// Bytes of an event's data that no option can exceed.
pub(super) const MAX_EVENT_BYTES: usize = 64 << 20;

/// An event as it is given.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The session it belongs to.
    pub session_key: String,
    /// The agent.
    pub agent_id: String,
    /// What happened.
    pub kind: String,
    /// JSON text, kept exactly.
    pub data: String,
    /// When it happened, in milliseconds since 1970; now by default.
    pub timestamp_ms: Option<i64>,
    /// The same id twice in a session is one event. By default `<replica>-<n>`.
    pub id: Option<String>,
}

/// Who wrote an event first, and its number in its session there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The replica.
    pub replica: Arc<str>,
    /// The event's `seq` there.
    pub seq: u64,
}

/// An event of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// The session it belongs to.
    pub session_key: String,
    /// The agent.
    pub agent_id: String,
    /// What happened.
    pub kind: String,
    /// JSON text.
    pub data: String,
    /// When it happened, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Names the event.
    pub id: String,
    /// Its number in its session, in the order of arrival in this store: 1, 2, 3 …
    pub seq: u64,
    /// Who wrote it first.
    pub origin: Origin,
    /// Its number among all that the origin wrote: 1, 2, 3 …
    pub n: u64,
    /// When it was written, by the origin's hybrid logical clock.
    pub clock: Clock,
    /// BLAKE3 over `prev` and the event, the same on every replica.
    pub hash: [u8; 32],
    /// The hash of the event before it of this session and origin; zeros for the first.
    pub prev: [u8; 32],
    /// Its number among all that this store took in.
    pub arrival: u64,
}

/// The part of an event that is the same everywhere: what is hashed, and what travels.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Body<'a> {
    pub(super) session_key: &'a str,
    pub(super) agent_id: &'a str,
    pub(super) kind: &'a str,
    pub(super) id: &'a str,
    pub(super) timestamp_ms: i64,
    pub(super) clock: Clock,
    pub(super) replica: &'a str,
    pub(super) origin_seq: u64,
    pub(super) n: u64,
    pub(super) data: &'a str,
}

impl Body<'_> {
    /// BLAKE3 over the previous hash and the encoded body.
    pub(super) fn hash(prev: &[u8; 32], body: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(prev);
        hasher.update(body);
        *hasher.finalize().as_bytes()
    }
}

impl StoredEvent {
    /// The event of a record.
    pub(super) fn from_parts(
        body: &Body<'_>,
        seq: u64,
        arrival: u64,
        prev: [u8; 32],
        hash: [u8; 32],
    ) -> Self {
        Self {
            session_key: body.session_key.to_owned(),
            agent_id: body.agent_id.to_owned(),
            kind: body.kind.to_owned(),
            data: body.data.to_owned(),
            timestamp_ms: body.timestamp_ms,
            id: body.id.to_owned(),
            seq,
            origin: Origin { replica: body.replica.into(), seq: body.origin_seq },
            n: body.n,
            clock: body.clock,
            hash,
            prev,
            arrival,
        }
    }

    pub(super) fn body(&self) -> Body<'_> {
        Body {
            session_key: &self.session_key,
            agent_id: &self.agent_id,
            kind: &self.kind,
            id: &self.id,
            timestamp_ms: self.timestamp_ms,
            clock: self.clock,
            replica: &self.origin.replica,
            origin_seq: self.origin.seq,
            n: self.n,
            data: &self.data,
        }
    }

    /// Appends the event as a JSON object of the public shape.
    pub fn write_json(&self, out: &mut String) {
        out.push_str("{\"sessionKey\":");
        write_string(out, &self.session_key);
        out.push_str(",\"agentId\":");
        write_string(out, &self.agent_id);
        out.push_str(",\"kind\":");
        write_string(out, &self.kind);
        let _ = write!(out, ",\"data\":{},\"timestampMs\":{},\"id\":", self.data, self.timestamp_ms);
        write_string(out, &self.id);
        let _ = write!(out, ",\"seq\":{},\"origin\":{{\"replica\":", self.seq);
        write_string(out, &self.origin.replica);
        let _ = write!(out, ",\"seq\":{}}},\"clock\":\"{}\",\"hash\":\"", self.origin.seq, self.clock);
        out.push_str(&blake3::Hash::from_bytes(self.hash).to_hex());
        out.push_str("\"}");
    }

    /// As [`Self::write_json`], for one event.
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(self.data.len() + 400);
        self.write_json(&mut out);
        out
    }
}

/// Appends a JSON string.
pub(super) fn write_string(out: &mut String, text: &str) {
    if text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::Value::from(text).to_string());
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Given<'a> {
    session_key: String,
    agent_id: String,
    kind: String,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    timestamp_ms: Option<f64>,
    id: Option<String>,
}

/// Reads a JSON array of events as `appendBatch` takes it. Nothing about their size or names is checked yet.
pub(super) fn parse_events(json: &str) -> Result<Vec<NewEvent>> {
    let each: Vec<&RawValue> = serde_json::from_str(json)
        .map_err(|error| invalid(format!("events must be given as an array of objects: {error}")))?;
    each.iter().enumerate().map(|(at, one)| parse(one.get(), at)).collect()
}

fn parse(json: &str, at: usize) -> Result<NewEvent> {
    let given: Given<'_> = serde_json::from_str(json).map_err(|error| {
        invalid(format!(
            "event {at} is not of the form {{ sessionKey, agentId, kind, data, timestampMs?, id? }} (anything else \
             belongs into its data): {error}"
        ))
    })?;
    let timestamp_ms = given.timestamp_ms.map(|time| whole_milliseconds(time, at)).transpose()?;
    Ok(NewEvent {
        session_key: given.session_key,
        agent_id: given.agent_id,
        kind: given.kind,
        data: given.data.map_or_else(|| "null".to_owned(), |data| data.get().to_owned()),
        timestamp_ms,
        id: given.id,
    })
}

/// JavaScript's own range of dates, whose ends a double holds exactly.
#[allow(clippy::cast_possible_truncation)]
fn whole_milliseconds(time: f64, at: usize) -> Result<i64> {
    if time.abs() <= 8.64e15 {
        return Ok(time.floor() as i64);
    }
    Err(invalid(format!("event {at}: `timestampMs` must be milliseconds since 1970, not {time}")))
}

impl NewEvent {
    /// Refuses what may not be written; `at` is its place in the batch.
    pub(super) fn check(&self, at: usize, max_bytes: usize) -> Result<()> {
        check_key(&self.session_key).map_err(|error| within(&error, at))?;
        let named = |what, text: &str| check_name(what, text, MAX_NAME_BYTES).map_err(|e| within(&e, at));
        named("agentId", &self.agent_id)?;
        named("kind", &self.kind)?;
        if let Some(id) = &self.id {
            named("id", id)?;
        }
        if self.kind == SESSION_DELETED {
            let message =
                format!("event {at}: the kind `{SESSION_DELETED}` is written by `deleteSession` alone");
            return Err(invalid(message));
        }
        check_data(&self.data, max_bytes).map_err(|error| within(&error, at))
    }
}

fn within(error: &CoreError, at: usize) -> CoreError {
    CoreError::new(error.code(), format!("event {at}: {}", error.message()))
}

/// A session key: no control characters, not empty, not too long.
pub(super) fn check_key(key: &str) -> Result<()> {
    check_name("sessionKey", key, MAX_KEY_BYTES)
}

fn check_name(what: &str, text: &str, max: usize) -> Result<()> {
    if text.is_empty() {
        return Err(invalid(format!("`{what}` must not be empty")));
    }
    if text.len() > max {
        return Err(invalid(format!("`{what}` has {} bytes; at most {max} are allowed", text.len())));
    }
    if let Some(control) = text.chars().find(|c| c.is_control()) {
        return Err(invalid(format!("`{what}` holds the control character U+{:04X}", u32::from(control))));
    }
    Ok(())
}

/// A replica's name: it is part of ids and of NATS subjects.
pub(super) fn check_replica(name: &str) -> Result<()> {
    let fits = !name.is_empty()
        && name.len() <= MAX_REPLICA_BYTES
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if fits {
        return Ok(());
    }
    let message =
        format!("`replica` must be 1 to {MAX_REPLICA_BYTES} letters, digits, `_` or `-`, not \"{name}\"");
    Err(CoreError::new(Code::Validation, message))
}

/// Size and nesting of a JSON text.
pub(super) fn check_data(data: &str, max_bytes: usize) -> Result<()> {
    if data.len() > max_bytes {
        let message = format!(
            "`data` has {} bytes as JSON; at most {max_bytes} are allowed (`maxEventBytes`)",
            data.len()
        );
        return Err(CoreError::new(Code::EventTooLarge, message));
    }
    let deepest = depth(data);
    if deepest > MAX_DEPTH {
        let message = format!("`data` is nested {deepest} deep; at most {MAX_DEPTH} levels are allowed");
        return Err(invalid(message));
    }
    Ok(())
}

/// How deep the arrays and objects of a valid JSON text are nested.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

pub(super) fn invalid(message: impl Into<String>) -> CoreError {
    CoreError::new(Code::EventInvalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> NewEvent {
        NewEvent {
            session_key: "agent:main:main".into(),
            agent_id: "main".into(),
            kind: "message_received".into(),
            data: r#"{"text":"hi"}"#.into(),
            timestamp_ms: None,
            id: None,
        }
    }

    #[test]
    fn what_may_not_be_written_is_named() {
        let max = 1000;
        assert!(event().check(0, max).is_ok());
        let code = |event: NewEvent| event.check(3, max).unwrap_err();
        let cases = [
            (NewEvent { session_key: String::new(), ..event() }, "sessionKey"),
            (NewEvent { session_key: "a\u{0}b".into(), ..event() }, "U+0000"),
            (NewEvent { session_key: "a\u{85}b".into(), ..event() }, "U+0085"),
            (NewEvent { session_key: "k".repeat(1025), ..event() }, "1025 bytes"),
            (NewEvent { agent_id: "a\n".into(), ..event() }, "agentId"),
            (NewEvent { kind: "k".repeat(513), ..event() }, "kind"),
            (NewEvent { id: Some(String::new()), ..event() }, "`id`"),
            (NewEvent { data: format!("{}{}", "[".repeat(257), "]".repeat(257)), ..event() }, "257 deep"),
            (NewEvent { kind: SESSION_DELETED.into(), ..event() }, "deleteSession"),
        ];
        for (event, part) in cases {
            let error = code(event);
            assert_eq!(error.code(), Code::EventInvalid, "{error}");
            assert!(error.message().contains(part) && error.message().contains("event 3"), "{error}");
        }
        let large = NewEvent { data: format!("\"{}\"", "x".repeat(1000)), ..event() };
        assert_eq!(code(large).code(), Code::EventTooLarge);
        let brackets_in_text = NewEvent { data: format!(r#""\"{}""#, "[".repeat(500)), ..event() };
        assert!(brackets_in_text.check(0, max).is_ok());
    }

    #[test]
    fn a_member_that_would_not_be_kept_is_refused() {
        let text = r#"[{"sessionKey":"s","agentId":"a","kind":"x","data":1,"tags":["a"]}]"#;
        let error = parse_events(text).unwrap_err();
        assert_eq!(error.code(), Code::EventInvalid);
        assert!(error.message().contains("`tags`") && error.message().contains("into its data"), "{error}");
    }

    #[test]
    fn data_is_kept_to_the_letter() {
        let text = r#"[{"sessionKey":"s","agentId":"a","kind":"x_y","data":{"b":1.50,"a":9007199254740993,"__proto__":{"\ud800":[]}}}]"#;
        let events = parse_events(text).unwrap();
        assert_eq!(events[0].data, r#"{"b":1.50,"a":9007199254740993,"__proto__":{"\ud800":[]}}"#);
        assert_eq!(parse_events(r#"[{"sessionKey":"s","agentId":"a","kind":"k"}]"#).unwrap()[0].data, "null");
        for wrong in [
            "{}",
            "[1]",
            r#"[{"sessionKey":1}]"#,
            r#"[{"sessionKey":"s","agentId":"a","kind":"k","timestampMs":1e300}]"#,
        ] {
            assert_eq!(parse_events(wrong).unwrap_err().code(), Code::EventInvalid, "{wrong}");
        }
    }
}
