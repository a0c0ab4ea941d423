//! What is known of a session without reading it: a fold over its events, in any order.
//!
//! # Design
//! Every part is a join or a sum over a set of events, so that replicas with the same events have the same bytes,
//! and one event is added in constant time: sums of integers (money in units of 10⁻¹² so that addition is exact),
//! the least and greatest time, and "the latest" by (time, id). The session's `state` is kept beside it, one cell a
//! key, each a last-writer-wins register by (clock, replica).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::clock::Clock;
use super::event::{SESSION_DELETED, StoredEvent, write_string};

/// Characters of a session's last message that its projection keeps.
const PREVIEW_CHARS: usize = 200;

/// Parts of one unit of money.
const MONEY_SCALE: f64 = 1e12;

/// Orders events alike on every replica: when it happened, then its id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Stamp {
    timestamp_ms: i64,
    /// The first bytes of the id's hash.
    tie: u64,
}

/// What is known of a session, but for its key and state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Projection {
    agent_id: Option<(Stamp, String)>,
    /// The time of the earliest event.
    pub first_ms: i64,
    /// The time of the latest event.
    pub last_ms: i64,
    /// All events.
    pub events: u64,
    /// Those of kind `message_received`, `message_sent` or `agent_response`.
    pub messages: u64,
    /// Those of kind `tool_called`.
    pub tool_calls: u64,
    ended: Option<(Stamp, bool)>,
    /// Sums over the `agent_response`s.
    pub usage: Usage,
    last_message: Option<(Stamp, String)>,
}

impl Projection {
    /// Adds one event. Of the event's data no more is read than it takes.
    pub fn add(&mut self, event: &StoredEvent) {
        if event.kind == SESSION_DELETED {
            return;
        }
        let stamp = Stamp { timestamp_ms: event.timestamp_ms, tie: tie(&event.id) };
        if self.events == 0 {
            (self.first_ms, self.last_ms) = (event.timestamp_ms, event.timestamp_ms);
        } else {
            self.first_ms = self.first_ms.min(event.timestamp_ms);
            self.last_ms = self.last_ms.max(event.timestamp_ms);
        }
        self.events += 1;
        raise(&mut self.agent_id, stamp, || event.agent_id.clone());
        match event.kind.as_str() {
            "message_received" | "message_sent" | "agent_response" => {
                self.messages += 1;
                let message = Message::read(&event.data);
                if event.kind == "agent_response"
                    && let Some(usage) = message.usage
                {
                    self.usage.add(&usage);
                }
                if let Some(text) = message.text {
                    raise(&mut self.last_message, stamp, || text);
                }
                if event.kind == "message_received" {
                    raise(&mut self.ended, stamp, || false);
                }
            }
            "tool_called" => self.tool_calls += 1,
            "session_started" => raise(&mut self.ended, stamp, || false),
            "session_ended" => raise(&mut self.ended, stamp, || true),
            _ => {}
        }
    }

    /// The agent of the latest event.
    pub fn agent_id(&self) -> &str {
        self.agent_id.as_ref().map_or("", |(_, agent)| agent)
    }

    /// Whether the latest of `session_started`, `message_received` and `session_ended` is the last of these.
    pub fn ended(&self) -> bool {
        self.ended.is_some_and(|(_, ended)| ended)
    }

    /// The beginning of the latest message.
    pub fn last_message(&self) -> Option<&str> {
        self.last_message.as_ref().map(|(_, text)| text.as_str())
    }

    /// Appends the projection as a JSON object of the public shape.
    pub fn write_json(&self, session_key: &str, state: &State, out: &mut String) {
        out.push_str("{\"sessionKey\":");
        write_string(out, session_key);
        out.push_str(",\"agentId\":");
        write_string(out, self.agent_id());
        let _ = write!(
            out,
            ",\"firstMs\":{},\"lastMs\":{},\"events\":{},\"messages\":{},\"toolCalls\":{},\"ended\":{},\"usage\":",
            self.first_ms,
            self.last_ms,
            self.events,
            self.messages,
            self.tool_calls,
            self.ended()
        );
        self.usage.write_json(out);
        out.push_str(",\"state\":");
        state.write_json(out);
        if let Some(text) = self.last_message() {
            out.push_str(",\"lastMessage\":");
            write_string(out, text);
        }
        out.push('}');
    }
}

fn raise<T>(latest: &mut Option<(Stamp, T)>, stamp: Stamp, value: impl FnOnce() -> T) {
    if latest.as_ref().is_none_or(|(of, _)| *of < stamp) {
        *latest = Some((stamp, value()));
    }
}

fn tie(id: &str) -> u64 {
    let hash = blake3::hash(id.as_bytes());
    hash.as_bytes().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// Sums of what models were asked for and gave. What no answer told is absent, which is not 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    tokens: [Option<u64>; TOKENS.len()],
    /// In units of 10⁻¹².
    cost: [Option<i128>; COSTS.len()],
}

const TOKENS: [&str; 7] =
    ["input", "output", "cacheRead", "cacheWrite", "cacheWrite1h", "totalTokens", "reasoning"];
const COSTS: [&str; 5] = ["input", "output", "cacheRead", "cacheWrite", "total"];

impl Usage {
    /// The names of [`Self::tokens`].
    pub const TOKENS: [&str; TOKENS.len()] = TOKENS;
    /// The names of [`Self::costs`].
    pub const COSTS: [&str; COSTS.len()] = COSTS;

    /// How many tokens.
    pub const fn tokens(&self) -> [Option<u64>; TOKENS.len()] {
        self.tokens
    }

    /// What they cost, in units of money.
    pub fn costs(&self) -> [Option<f64>; COSTS.len()] {
        self.cost.map(|amount| amount.map(units))
    }

    /// Takes the numbers it knows from a `usage` object; anything else is as if it were not there.
    fn read(json: &Value) -> Self {
        let tokens = TOKENS.map(|name| json.get(name).and_then(count));
        let cost = COSTS.map(|name| json.get("cost").and_then(|cost| cost.get(name)).and_then(money));
        Self { tokens, cost }
    }

    fn add(&mut self, other: &Self) {
        for (sum, more) in self.tokens.iter_mut().zip(other.tokens) {
            *sum = more.map_or(*sum, |more| Some(sum.unwrap_or(0).saturating_add(more)));
        }
        for (sum, more) in self.cost.iter_mut().zip(other.cost) {
            *sum = more.map_or(*sum, |more| Some(sum.unwrap_or(0).saturating_add(more)));
        }
    }

    /// Appends the JSON object.
    pub fn write_json(&self, out: &mut String) {
        out.push('{');
        let mut separator = "";
        for (name, count) in TOKENS.iter().zip(self.tokens) {
            if let Some(count) = count {
                let _ = write!(out, "{separator}\"{name}\":{count}");
                separator = ",";
            }
        }
        if self.cost.iter().any(Option::is_some) {
            let _ = write!(out, "{separator}\"cost\":{{");
            separator = "";
            for (name, amount) in COSTS.iter().zip(self.cost) {
                if let Some(amount) = amount {
                    let _ = write!(out, "{separator}\"{name}\":{}", Value::from(units(amount)));
                    separator = ",";
                }
            }
            out.push('}');
        }
        out.push('}');
    }
}

/// A count is a whole number that a double holds exactly.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn count(value: &Value) -> Option<u64> {
    let number = value.as_f64()?;
    (number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number)).then_some(number as u64)
}

#[allow(clippy::cast_possible_truncation)]
fn money(value: &Value) -> Option<i128> {
    let number = value.as_f64()?;
    (number.abs() < 1e15).then(|| (number * MONEY_SCALE).round() as i128)
}

#[allow(clippy::cast_precision_loss)]
fn units(amount: i128) -> f64 {
    amount as f64 / MONEY_SCALE
}

/// What a message's data tells: as an event of our own, as OpenClaw's message, or as an entry of its transcript.
#[derive(Default)]
struct Message {
    usage: Option<Usage>,
    text: Option<String>,
}

#[derive(Deserialize)]
struct Shape<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    entry: Option<&'a RawValue>,
}

impl Message {
    fn read(data: &str) -> Self {
        let mut found = Self::default();
        let mut next = Some(data);
        // data, data.message or data.entry, data.entry.message
        for _ in 0..3 {
            let Some(shape) = next.and_then(|json| serde_json::from_str::<Shape<'_>>(json).ok()) else {
                break;
            };
            if found.usage.is_none() {
                let usage = shape.usage.and_then(|json| serde_json::from_str::<Value>(json.get()).ok());
                found.usage = usage.filter(Value::is_object).map(|usage| Usage::read(&usage));
            }
            if found.text.is_none() {
                found.text = shape.text.and_then(preview).or_else(|| shape.content.and_then(preview));
            }
            next = shape.message.or(shape.entry).map(RawValue::get);
        }
        found
    }
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    text: Value,
}

/// The beginning of a text, or of the first text among parts.
fn preview(json: &RawValue) -> Option<String> {
    let json = json.get();
    let text: String = if json.starts_with('"') {
        serde_json::from_str(json).ok()?
    } else {
        let parts: Vec<Part> = serde_json::from_str(json).ok()?;
        parts.into_iter().find_map(|part| match part.text {
            Value::String(text) if !text.is_empty() => Some(text),
            _ => None,
        })?
    };
    match text.char_indices().nth(PREVIEW_CHARS) {
        Some((end, _)) => Some(text.get(..end)?.to_owned()),
        None => Some(text),
    }
}

/// A last-writer-wins register: the value, or that it was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Register {
    clock: Clock,
    replica: String,
    /// JSON text; none if the key was removed.
    pub(super) value: Option<String>,
}

impl Register {
    /// Whether a write by this event is the later one.
    pub(super) fn yields_to(&self, event: &StoredEvent) -> bool {
        (self.clock, self.replica.as_str()) < (event.clock, &*event.origin.replica)
    }
}

/// The keys that a `state_changed` event sets; null removes, as in RFC 7396.
pub(super) fn state_changes(event: &StoredEvent) -> BTreeMap<String, Register> {
    if event.kind != "state_changed" {
        return BTreeMap::new();
    }
    let changes: BTreeMap<String, &RawValue> = serde_json::from_str(&event.data).unwrap_or_default();
    let register = |value: &RawValue| Register {
        clock: event.clock,
        replica: event.origin.replica.as_ref().to_owned(),
        value: (value.get() != "null").then(|| value.get().to_owned()),
    };
    changes.into_iter().map(|(key, value)| (key, register(value))).collect()
}

/// A session's state: key to JSON text, in the order of the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State(pub(super) BTreeMap<String, String>);

impl State {
    /// Whether it has no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends the JSON object.
    pub fn write_json(&self, out: &mut String) {
        out.push('{');
        for (at, (key, value)) in self.0.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            write_string(out, key);
            out.push(':');
            out.push_str(value);
        }
        out.push('}');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::events::event::Origin;

    fn event(kind: &str, id: &str, at: i64, data: &str) -> StoredEvent {
        StoredEvent {
            session_key: "s".into(),
            agent_id: format!("agent-{}", id.len() % 3),
            kind: kind.into(),
            data: data.into(),
            timestamp_ms: at,
            id: id.into(),
            seq: 1,
            origin: Origin { replica: "r".into(), seq: 1 },
            n: 1,
            clock: Clock::default(),
            hash: [0; 32],
            prev: [0; 32],
            arrival: 1,
        }
    }

    fn json(projection: &Projection) -> Value {
        let mut out = String::new();
        projection.write_json("s", &State::default(), &mut out);
        serde_json::from_str(&out).unwrap()
    }

    #[test]
    fn usage_that_no_answer_told_is_absent() {
        let mut projection = Projection::default();
        projection.add(&event("agent_response", "a", 1, r#"{"content":"x"}"#));
        assert_eq!(json(&projection)["usage"], serde_json::json!({}));
        projection.add(&event(
            "agent_response",
            "b",
            2,
            r#"{"usage":{"input":0,"output":7,"cacheRead":"many","cost":{"total":0.1}}}"#,
        ));
        projection.add(&event(
            "agent_response",
            "c",
            3,
            r#"{"message":{"usage":{"output":5,"cost":{"total":0.2}}}}"#,
        ));
        projection.add(&event(
            "agent_response",
            "d",
            4,
            r#"{"sessionId":"x","entry":{"message":{"usage":{"reasoning":1.5,"output":1}}}}"#,
        ));
        projection.add(&event("message_received", "e", 4, r#"{"usage":{"input":99}}"#));
        let expected = serde_json::json!({ "input": 0, "output": 13, "cost": { "total": 0.3 } });
        assert_eq!(json(&projection)["usage"], expected);
    }

    #[test]
    fn the_last_message_is_the_latest_by_its_time_not_by_its_arrival() {
        let mut projection = Projection::default();
        projection.add(&event(
            "message_sent",
            "a",
            20,
            r#"{"content":[{"type":"image"},{"type":"text","text":"late"}]}"#,
        ));
        projection.add(&event("message_received", "b", 10, r#"{"text":"early"}"#));
        projection.add(&event("tool_called", "c", 30, r#"{"text":"no message"}"#));
        assert_eq!(projection.last_message(), Some("late"));
        let long = "ä".repeat(300);
        projection.add(&event(
            "message_received",
            "d",
            40,
            &format!(r#"{{"entry":{{"message":{{"content":"{long}"}}}}}}"#),
        ));
        assert_eq!(projection.last_message().map(|text| text.chars().count()), Some(PREVIEW_CHARS));
        assert_eq!((projection.events, projection.messages, projection.tool_calls), (4, 3, 1));
        assert_eq!((projection.first_ms, projection.last_ms), (10, 40));
    }

    #[test]
    fn a_session_that_hears_again_has_not_ended() {
        let mut projection = Projection::default();
        projection.add(&event("session_ended", "a", 20, "null"));
        assert!(projection.ended());
        projection.add(&event("session_started", "b", 10, "null"));
        assert!(projection.ended());
        projection.add(&event("message_received", "c", 30, "null"));
        assert!(!projection.ended());
    }

    proptest! {
        #[test]
        fn the_order_of_events_does_not_matter(order in Just((0..24_usize).collect::<Vec<_>>()).prop_shuffle(), seed in 0_i64..50) {
            let kinds = ["message_received", "agent_response", "session_ended", "session_started", "tool_called", "x"];
            let events: Vec<_> = (0..24_usize).map(|i| {
                let at = (i64::try_from(i).unwrap() * 7 + seed) % 11 - 5;
                let data = format!(r#"{{"text":"t{i}","usage":{{"input":{i},"cost":{{"total":{}}}}}}}"#, f64::from(u8::try_from(i).unwrap()) * 0.1 + 0.000_3);
                event(kinds[i % kinds.len()], &format!("{:b}", i * 5), at, &data)
            }).collect();
            let fold = |order: &mut dyn Iterator<Item = usize>| {
                let mut projection = Projection::default();
                order.for_each(|i| projection.add(&events[i]));
                postcard::to_stdvec(&projection).unwrap()
            };
            prop_assert_eq!(fold(&mut order.into_iter()), fold(&mut (0..24)));
        }
    }
}
