//! `sessions.json` and the JSONL transcripts beside it, as OpenClaw 2026.2 to 2026.5 kept them.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;

use super::lines::Lines;
use super::transcript::Reader;
use super::{Halt, Known, Outlet, Source, sorted_names};
use crate::events::openclaw::{Members, agent_of, canonical_session_key};
use crate::{CoreError, Result};

const STORE: &str = "sessions.json";
/// Bytes of a first line in which a header is looked for.
const HEADER_BYTES: usize = 64 << 10;

/// Whether this is the name of a transcript that is read: a session's, or what a reset has put away.
pub(super) fn is_transcript(name: &str) -> bool {
    is_primary(name) || (archived(name, "reset").is_some() && !is_compressed(name))
}

/// OpenClaw's own suffix, always in lower case.
pub(super) fn is_compressed(name: &str) -> bool {
    name.strip_suffix(".zst").is_some()
}

fn is_primary(name: &str) -> bool {
    name.strip_suffix(".jsonl")
        .is_some_and(|stem| !stem.is_empty() && !stem.ends_with(".trajectory") && !is_checkpoint(stem))
}

/// `<sessionId>.checkpoint.<uuid>`: a copy made before a compaction, all of whose entries stand in the transcript.
fn is_checkpoint(stem: &str) -> bool {
    stem.rsplit_once(".checkpoint.").is_some_and(|(id, uuid)| !id.is_empty() && is_uuid(uuid))
}

/// The session id in `<sessionId>.jsonl.<reason>.<time>`.
fn archived<'a>(name: &'a str, reason: &str) -> Option<&'a str> {
    let (id, tail) = name.split_once(".jsonl.")?;
    let time = tail.strip_prefix(reason)?.strip_prefix('.')?;
    (!id.is_empty() && time.starts_with(|c: char| c.is_ascii_digit())).then_some(id)
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// The session id in a transcript's file name: `<id>`, `<id>-topic-<n>` or `<time>_<id>`.
fn session_id_of(stem: &str) -> &str {
    if let Some((id, _)) = stem.split_once("-topic-").filter(|(id, _)| is_uuid(id)) {
        return id;
    }
    stem.rsplit_once('_').map_or(stem, |(_, id)| if is_uuid(id) { id } else { stem })
}

/// An entry of `sessions.json`.
struct Registered {
    key: String,
    id: String,
    file: Option<String>,
}

/// What `sessions.json` says: its entries, and the keys of session ids of the past.
#[derive(Default)]
struct Store {
    registered: Vec<Registered>,
    owners: HashMap<String, String>,
}

pub(super) fn read(source: &Source, known: &Known, before: u64, outlet: &mut Outlet) -> Result<(), Halt> {
    let path = fs::canonicalize(&source.sessions_dir).unwrap_or_else(|_| source.sessions_dir.clone());
    let folder = Folder { source, path };
    let names = sorted_names(&folder.path)?;
    let store = folder.store(&names, outlet)?;
    let mut done = before;
    let mut visited = HashSet::new();
    for entry in &store.registered {
        let Some(path) = folder.transcript(entry) else {
            if !known.windows.contains_key(&entry.id) {
                let expected = folder.path.join(format!("{}.jsonl", entry.id));
                let reason = format!("the transcript of {}, which {STORE} names, is not there", entry.key);
                outlet.skip(&expected.to_string_lossy(), 0, reason)?;
            }
            continue;
        };
        if visited.insert(path.clone()) {
            done += folder.read_file(&path, &entry.id, &entry.key, done, outlet)?;
        }
    }
    for name in &names {
        let path = folder.path.join(name);
        if known.archives.contains(name) {
            continue;
        }
        if archived(name, "deleted").is_some() && !is_compressed(name) {
            outlet.skip(&path.to_string_lossy(), 0, "deleted in OpenClaw")?;
        }
        if !is_transcript(name) || visited.contains(&path) || !path.is_file() {
            continue;
        }
        let archive = archived(name, "reset");
        let by_name = archive.unwrap_or_else(|| session_id_of(name.trim_end_matches(".jsonl")));
        let header = header_id(&path);
        if header.is_none() && archive.is_none() && !is_uuid(by_name) {
            let reason = format!("not a transcript: it has no session header, and {STORE} does not name it");
            outlet.skip(&path.to_string_lossy(), 1, reason)?;
            continue;
        }
        let session_id = header.unwrap_or_else(|| by_name.to_owned());
        let owner = known.windows.get(&session_id).or_else(|| store.owners.get(&session_id));
        // As `openclaw doctor` names history that no session claims.
        let key =
            owner.cloned().unwrap_or_else(|| format!("agent:{}:recovered:{session_id}", source.agent_id));
        done += folder.read_file(&path, &session_id, &key, done, outlet)?;
    }
    Ok(())
}

struct Folder<'a> {
    source: &'a Source,
    path: PathBuf,
}

impl Folder<'_> {
    fn store(&self, names: &[String], outlet: &mut Outlet) -> Result<Store, Halt> {
        let path = self.path.join(STORE);
        let file = path.to_string_lossy();
        let text = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // A database has taken its place, or there is nothing it could name.
                if self.source.database.is_none() && names.iter().any(|name| is_primary(name)) {
                    outlet.skip(
                        &file,
                        0,
                        "is not there; its sessions are imported under keys of their own",
                    )?;
                }
                return Ok(Store::default());
            }
            Err(error) => {
                outlet.skip(&file, 0, error.to_string())?;
                return Ok(Store::default());
            }
        };
        let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&text);
        let entries = match std::str::from_utf8(text).map_err(|e| (1, e.to_string())).and_then(|text| {
            serde_json::from_str::<Members<'_>>(text).map_err(|e| (e.line() as u64, e.to_string()))
        }) {
            Ok(entries) => entries,
            Err((line, reason)) => {
                let reason = format!("{reason}; its sessions are imported under keys of their own");
                outlet.skip(&file, line, reason)?;
                return Ok(Store::default());
            }
        };
        let mut store = Store::default();
        for (key, value) in &entries.0 {
            let Ok(entry) = Members::of(value.get()) else {
                outlet.skip(&file, line_of(text, value), format!("the entry of {key} is not an object"))?;
                continue;
            };
            let Some(session_id) =
                entry.text("sessionId").map(|id| id.trim().to_owned()).filter(|id| !id.is_empty())
            else {
                outlet.skip(&file, line_of(text, value), format!("the entry of {key} has no sessionId"))?;
                continue;
            };
            let session_key = canonical_session_key(key, &self.source.agent_id);
            let family: Vec<String> = entry
                .get("usageFamilySessionIds")
                .and_then(|ids| serde_json::from_str(ids.get()).ok())
                .unwrap_or_default();
            for id in family.into_iter().chain(entry.text("previousSessionId")) {
                store.owners.entry(id.trim().to_owned()).or_insert_with(|| session_key.clone());
            }
            store.owners.insert(session_id.clone(), session_key.clone());
            store.registered.push(Registered {
                key: session_key,
                id: session_id,
                file: entry.text("sessionFile"),
            });
        }
        Ok(store)
    }

    /// The transcript of an entry: the file that it names, which may have moved with the folder, or the usual one.
    fn transcript(&self, entry: &Registered) -> Option<PathBuf> {
        let named = entry.file.as_deref().map(str::trim).filter(|file| !file.is_empty());
        if named.is_some_and(|file| file.starts_with("sqlite:")) {
            return None;
        }
        let named = named.map(Path::new);
        // Only a file among the sessions of some agent is one: an entry cannot make any other file a transcript.
        let agents = fs::canonicalize(&self.source.agents_dir).ok();
        let given = named.map(|file| self.path.join(file)).and_then(|file| fs::canonicalize(file).ok());
        let inside = |file: &PathBuf| {
            file.starts_with(&self.path) || agents.as_ref().is_some_and(|agents| file.starts_with(agents))
        };
        let moved = named.and_then(Path::file_name).map(|name| self.path.join(name));
        let usual = self.path.join(format!("{}.jsonl", entry.id));
        let plain = Path::new(&entry.id).components().count() == 1;
        given
            .filter(inside)
            .into_iter()
            .chain(moved)
            .chain(plain.then_some(usual))
            .find(|file| file.is_file() && file.extension().is_some_and(|extension| extension == "jsonl"))
    }

    /// Reads a transcript; gives the bytes it had.
    fn read_file(
        &self,
        path: &Path,
        session_id: &str,
        session_key: &str,
        before: u64,
        outlet: &mut Outlet,
    ) -> Result<u64, Halt> {
        let file = path.to_string_lossy().into_owned();
        let opened = match File::open(path) {
            Ok(opened) => opened,
            Err(error) => {
                outlet.skip(&file, 0, error.to_string())?;
                return Ok(0);
            }
        };
        let written_ms = opened
            .metadata()
            .and_then(|found| found.modified())
            .ok()
            .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
            .and_then(|time| i64::try_from(time.as_millis()).ok());
        let agent_id = agent_of(session_key).unwrap_or_else(|| self.source.agent_id.clone());
        let mut reader =
            Reader::new(file.clone(), session_key.to_owned(), agent_id, session_id.to_owned(), written_ms);
        let mut lines = Lines::new(BufReader::with_capacity(64 << 10, opened), outlet.max_event_bytes);
        loop {
            match lines.next() {
                Ok(None) => return Ok(lines.read()),
                Ok(Some(line)) => match line.content {
                    Ok(bytes) => reader.line(line.number, bytes, line.ended, None, outlet)?,
                    Err(bytes) => {
                        let max = outlet.max_event_bytes;
                        outlet.skip(&file, line.number, too_long(bytes, max))?;
                    }
                },
                Err(error) => {
                    outlet.skip(&file, 0, CoreError::io("read", path, error).message())?;
                    return Ok(lines.read());
                }
            }
            outlet.done(before + lines.read());
        }
    }
}

pub(super) fn too_long(bytes: u64, max: usize) -> String {
    format!("the entry has {bytes} bytes; at most {max} are allowed (`maxEventBytes`)")
}

/// The session id of a transcript's header, if its first line is one.
fn header_id(path: &Path) -> Option<String> {
    let mut lines = Lines::new(BufReader::new(File::open(path).ok()?), HEADER_BYTES);
    let line = lines.next().ok()??;
    let text = std::str::from_utf8(line.content.ok()?).ok()?;
    let members = Members::of(text.trim_start_matches('\u{FEFF}').trim()).ok()?;
    (members.text("type")? == "session").then(|| members.text("id").or_else(|| members.text("sessionId")))?
}

/// The line on which a value of `text` begins.
fn line_of(text: &[u8], value: &RawValue) -> u64 {
    let offset = (value.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    1 + text.get(..offset).unwrap_or_default().split(|&byte| byte == b'\n').skip(1).count() as u64
}
