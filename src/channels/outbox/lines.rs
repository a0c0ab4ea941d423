//! What the outbox writes down of a message, and what it reads of it again.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::channels::log::{Digest, Journal, Line, damaged};
use crate::channels::message::{OutboundFile, OutboundMessage, SendReceipt, SendState};
use crate::{Code, CoreError, Result};

/// Bytes of a file in one line, before base64.
pub(super) const FILE_BYTES: usize = 3 << 20;

const QUEUED: &str = "channel_queued";
const FILE: &str = "channel_file";
pub(super) const STARTED: &str = "channel_started";
pub(super) const UNSENT: &str = "channel_unsent";
pub(super) const ACCEPTED: &str = "channel_accepted";
const ENDED: &str = "channel_ended";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Queued {
    pub(super) n: u64,
    pub(super) key: String,
    pub(super) parts: usize,
    pub(super) at_ms: u64,
    pub(super) message: OutboundMessage,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) files: Vec<FileHead>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FileHead {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mime_type: Option<String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct FilePiece {
    pub(super) file: usize,
    pub(super) data: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Step {
    pub(super) n: u64,
    pub(super) part: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) ids: Vec<String>,
}

/// How it ended, other than by the acceptance of all its parts.
#[derive(Serialize, Deserialize)]
pub(super) struct EndedLine {
    pub(super) n: u64,
    /// None: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) message: String,
}

/// What is known of a segment that is gone.
#[derive(Serialize, Deserialize)]
pub(super) struct Past {
    /// The number of the next message.
    pub(super) next: u64,
    pub(super) sent: Vec<Sent>,
}

impl Past {
    pub(super) fn read(data: &str) -> Result<Self> {
        serde_json::from_str(data).map_err(|_| damaged("channel_past", data))
    }

    /// How the message with a key ended.
    pub(super) fn outcome(self, key: Digest) -> Option<Outcome> {
        let sent = self.sent.into_iter().find(|sent| sent.key().is_ok_and(|other| other == key))?;
        if let Some(Failed { code, message, status }) = sent.failed {
            return Some(Outcome::Failed(code_of(&code), message, status));
        }
        let state = if sent.unknown { SendState::Unknown } else { SendState::Accepted };
        Some(Outcome::Receipt(SendReceipt { message_ids: sent.ids, state, attempts: sent.attempts }))
    }
}

/// The code that a line tells.
pub(super) fn code_of(name: &str) -> Code {
    Code::ALL.iter().copied().find(|code| code.as_str() == name).unwrap_or(Code::ChannelSend)
}

/// How one of its messages ended.
#[derive(Serialize, Deserialize)]
pub(super) struct Sent {
    /// The digest of its key, in base64.
    key: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ids: Vec<String>,
    attempts: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unknown: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<Failed>,
}

#[derive(Serialize, Deserialize)]
struct Failed {
    code: String,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
}

impl Sent {
    pub(super) fn new(key: &Digest, outcome: &Outcome) -> Self {
        let key = BASE64.encode(key);
        match outcome {
            Outcome::Receipt(SendReceipt { message_ids, state, attempts }) => Self {
                key,
                ids: message_ids.clone(),
                attempts: *attempts,
                unknown: *state == SendState::Unknown,
                failed: None,
            },
            Outcome::Failed(code, message, status) => {
                let failed =
                    Failed { code: code.as_str().to_owned(), message: message.clone(), status: *status };
                Self { key, ids: Vec::new(), attempts: 0, unknown: false, failed: Some(failed) }
            }
        }
    }

    pub(super) fn key(&self) -> Result<Digest> {
        let key = BASE64.decode(self.key.as_bytes()).ok().and_then(|key| key.try_into().ok());
        key.ok_or_else(|| damaged("channel_past", &self.key))
    }
}

/// Of a message that was found on the disk.
pub(super) struct Restored {
    pub(super) segment: u64,
    pub(super) line: Queued,
    pub(super) accepted: usize,
    pub(super) ids: Vec<String>,
    pub(super) maybe_sent: bool,
    pub(super) ended: Option<EndedLine>,
}

impl Restored {
    pub(super) fn is_pending(&self) -> bool {
        self.ended.is_none() && self.accepted < self.line.parts
    }
}

/// Reads a message's files from the disk.
pub(super) async fn files(journal: &Journal, n: u64, heads: &[FileHead]) -> Result<Vec<OutboundFile>> {
    let mut files: Vec<Vec<u8>> = vec![Vec::new(); heads.len()];
    for (kind, data) in journal.read_side(n).await? {
        let wrong = || damaged(&kind, &data);
        let piece: FilePiece = serde_json::from_str(&data).map_err(|_| wrong())?;
        let bytes = BASE64.decode(piece.data.as_bytes()).map_err(|_| wrong())?;
        files.get_mut(piece.file).ok_or_else(wrong)?.extend_from_slice(&bytes);
    }
    let file = |(FileHead { name, mime_type }, data): (&FileHead, Vec<u8>)| OutboundFile {
        data: data.into(),
        name: name.clone(),
        mime_type: mime_type.clone(),
    };
    Ok(heads.iter().zip(files).map(file).collect())
}

pub(super) fn read(
    segment: u64,
    kind: &str,
    data: &str,
    given: &mut BTreeMap<u64, u32>,
    items: &mut BTreeMap<u64, Restored>,
) -> Result<()> {
    let wrong = || damaged(kind, data);
    match kind {
        QUEUED => {
            let line: Queued = serde_json::from_str(data).map_err(|_| wrong())?;
            *given.entry(segment).or_default() += 1;
            let n = line.n;
            let restored =
                Restored { segment, line, accepted: 0, ids: Vec::new(), maybe_sent: false, ended: None };
            items.insert(n, restored);
        }
        STARTED | UNSENT | ACCEPTED => {
            let step: Step = serde_json::from_str(data).map_err(|_| wrong())?;
            let Some(item) = items.get_mut(&step.n) else { return Ok(()) };
            item.maybe_sent = kind == STARTED;
            if kind == ACCEPTED {
                item.accepted = step.part + 1;
                item.ids.extend(step.ids);
            }
        }
        ENDED => {
            let line: EndedLine = serde_json::from_str(data).map_err(|_| wrong())?;
            if let Some(item) = items.get_mut(&line.n) {
                item.ended = Some(line);
            }
        }
        _ => {}
    }
    Ok(())
}

/// The pieces of a message's files, and its own line.
pub(super) fn lines(
    n: u64,
    key: &str,
    parts: usize,
    at_ms: u64,
    message: &OutboundMessage,
) -> Result<(Vec<Line>, Line)> {
    let json = |value: serde_json::Result<String>| {
        value.map_err(|error| CoreError::new(Code::Internal, format!("a message has no JSON form: {error}")))
    };
    let mut pieces = Vec::new();
    let mut files = Vec::new();
    for (file, OutboundFile { data, name, mime_type }) in message.files.iter().enumerate() {
        files.push(FileHead { name: name.clone(), mime_type: mime_type.clone() });
        for piece in data.chunks(FILE_BYTES) {
            let piece = FilePiece { file, data: BASE64.encode(piece) };
            pieces.push(Line::new(FILE, json(serde_json::to_string(&piece))?));
        }
    }
    let queued = Queued { n, key: key.to_owned(), parts, at_ms, message: message.clone(), files };
    Ok((pieces, Line::new(QUEUED, json(serde_json::to_string(&queued))?)))
}

pub(super) fn step(kind: &'static str, n: u64, part: usize, ids: &[String]) -> Line {
    let step = Step { n, part, ids: ids.to_vec() };
    Line::new(kind, serde_json::to_string(&step).unwrap_or_default())
}

pub(super) fn ended(n: u64, code: Option<Code>, message: &str) -> Line {
    let line = EndedLine { n, code: code.map(|code| code.as_str().to_owned()), message: message.to_owned() };
    Line::new(ENDED, serde_json::to_string(&line).unwrap_or_default())
}
