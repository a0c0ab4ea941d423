//! One transcript, entry by entry.

use sha2::{Digest, Sha256};

use super::{Halt, Outlet};
use crate::events::openclaw::{Members, Transcript, transcript_events};

/// Reads the entries of one transcript in order.
pub(super) struct Reader {
    /// The file, as it is reported.
    pub(super) file: String,
    pub(super) session_key: String,
    pub(super) agent_id: String,
    pub(super) session_id: String,
    /// Of the header; 1 until there is one.
    version: i64,
    /// Begins the ids of entries that have none.
    id_prefix: String,
    /// Good entries so far, and where the header stands among them.
    index: u64,
    header_index: Option<u64>,
    previous_id: Option<String>,
    /// The time of the latest entry that has one.
    latest_ms: Option<i64>,
}

impl Reader {
    pub(super) fn new(
        file: String,
        session_key: String,
        agent_id: String,
        session_id: String,
        written_ms: Option<i64>,
    ) -> Self {
        // As `openclaw doctor` names the entries of version 1 when it imports them.
        let source = format!("{file}\0{session_id}");
        let digest = Sha256::digest(source.as_bytes());
        let id_prefix =
            format!("{:016x}", digest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes)));
        Self {
            file,
            session_key,
            agent_id,
            session_id,
            version: 1,
            id_prefix,
            index: 0,
            header_index: None,
            previous_id: None,
            latest_ms: written_ms,
        }
    }

    /// One line; `ended` is false for a last line that may have been cut short.
    pub(super) fn line(
        &mut self,
        number: u64,
        bytes: &[u8],
        ended: bool,
        written_ms: Option<i64>,
        outlet: &mut Outlet,
    ) -> Result<(), Halt> {
        let bytes = if number == 1 { bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes) } else { bytes };
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text.trim(),
            Err(error) => {
                let reason = format!("not UTF-8 from byte {} on", error.valid_up_to() + 1);
                return outlet.skip(&self.file, number, reason);
            }
        };
        let upgraded = Members::of(text).map(|members| self.upgrade(&members));
        let events = upgraded.and_then(|upgraded| {
            let transcript = Transcript {
                session_key: &self.session_key,
                agent_id: &self.agent_id,
                session_id: &self.session_id,
            };
            transcript_events(&transcript, upgraded.as_deref().unwrap_or(text), written_ms.or(self.latest_ms))
        });
        match events {
            Ok(events) => {
                self.index += 1;
                self.latest_ms = events.first().and_then(|event| event.timestamp_ms).or(self.latest_ms);
                outlet.events(&self.file, number, events)
            }
            Err(error) if ended => outlet.skip(&self.file, number, error.message()),
            Err(error) => {
                let reason = format!("the last line is torn: {}", error.message());
                outlet.skip(&self.file, number, reason)
            }
        }
    }

    /// What OpenClaw makes of an entry of an older version when it loads it; `None` if it leaves it as it is.
    fn upgrade(&mut self, members: &Members<'_>) -> Option<String> {
        let kind = members.text("type");
        if kind.as_deref() == Some("session") {
            self.version = members.integer("version").unwrap_or(1);
            self.header_index = Some(self.index);
            return None;
        }
        let id = members.text("id");
        // Without a header nobody knows the version, but only version 1 has no ids.
        let ids = self.version < 2 && id.is_none();
        let hook = self.version < 3
            && kind.as_deref() == Some("message")
            && members.object("message").and_then(|m| m.text("role")).as_deref() == Some("hookMessage");
        if !ids {
            self.previous_id = id;
        }
        (ids || hook).then(|| self.rewrite(members, kind.as_deref(), ids, hook))
    }

    fn rewrite(&mut self, members: &Members<'_>, kind: Option<&str>, ids: bool, hook: bool) -> String {
        let mut parts = Vec::new();
        let mut part = |key: &str, json: &str| parts.push(format!("{}:{json}", serde_json::Value::from(key)));
        for (key, value) in &members.0 {
            match key.as_ref() {
                "message" if hook => part(key, &hook_message(value.get())),
                "parentId" | "id" | "firstKeptEntryIndex" if ids => {}
                _ => part(key, value.get()),
            }
        }
        if ids {
            let id = self.entry_id(self.index);
            part("id", &serde_json::Value::from(id.as_str()).to_string());
            part("parentId", &serde_json::Value::from(self.previous_id.take()).to_string());
            self.previous_id = Some(id);
            let kept = members.integer("firstKeptEntryIndex").and_then(|index| u64::try_from(index).ok());
            let kept = kept.filter(|&index| index < self.index && Some(index) != self.header_index);
            if let (Some("compaction"), Some(index)) = (kind, kept) {
                part("firstKeptEntryId", &serde_json::Value::from(self.entry_id(index)).to_string());
            }
        }
        format!("{{{}}}", parts.join(","))
    }

    fn entry_id(&self, index: u64) -> String {
        format!("{}-{}", self.id_prefix, base36(index))
    }
}

/// A hook's message of version 2 as one of version 3.
fn hook_message(json: &str) -> String {
    let Ok(mut message) = Members::of(json) else { return json.to_owned() };
    let named = message.text("customType").is_some_and(|name| !name.is_empty());
    message.0.retain(|(key, _)| key != "role" && (named || key != "customType"));
    let rest = message.to_json();
    let custom = if named { "" } else { ",\"customType\":\"hook\"" };
    let comma = if message.0.is_empty() { "" } else { "," };
    format!("{{\"role\":\"custom\"{custom}{comma}{}", rest.get(1..).unwrap_or("}"))
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        let digit = u32::try_from(number % 36).unwrap_or(0);
        digits.push(char::from_digit(digit, 36).unwrap_or('0'));
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}
