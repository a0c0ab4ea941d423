//! The repaired schema on disk, so that a start neither asks OpenClaw nor parses what the config does not use.
//!
//! A file is a line with the SHA-256 of all that follows, a line with the format and where each part lies, and
//! the parts as JSON. Whatever does not agree with its own digest is not read.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{Parts, Schema, repair};
use crate::{Code, CoreError, Result};

/// Raised whenever the parts are made differently.
const FORMAT: u64 = 1;
/// How many schemas stay: configs and versions that take turns do not rebuild each other's.
const KEPT: usize = 4;
const SUFFIX: &str = ".schema";

/// What a schema was made from: equal keys mean an equal schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaKey(String);

impl SchemaKey {
    /// Digests what the schema depends on.
    pub(super) fn of(facts: &[u8]) -> Self {
        Self(hex(&Sha256::digest(facts)))
    }

    /// The key in hexadecimal.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A folder of repaired schemas.
#[derive(Clone, Debug)]
pub struct SchemaCache {
    dir: PathBuf,
}

impl SchemaCache {
    /// Names the folder; nothing is touched before the first [`put`](Self::put).
    pub fn open(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The schema under this key, if it is there and whole.
    pub fn get(&self, key: &SchemaKey) -> Option<Schema> {
        let bytes = fs::read(self.file(key)).ok()?;
        Stored::parse(bytes).map(|stored| Schema::new(Parts::Stored(stored)))
    }

    /// Repairs what `openclaw config schema` printed and stores it, readable by its owner alone.
    pub fn put(&self, key: &SchemaKey, printed: &str) -> Result<Schema> {
        let schema: Value = serde_json::from_str(printed).map_err(|error| {
            CoreError::new(Code::ConfigInvalid, format!("the config schema is not JSON: {error}"))
                .caused_by(error)
        })?;
        let bytes = serialize(&repair::split(&schema)?);
        let file = self.file(key);
        create_private_dir(&self.dir).map_err(|error| CoreError::io("create", &self.dir, error))?;
        replace(&file, &bytes).map_err(|error| CoreError::io("write", &file, error))?;
        self.prune(&file);
        let stored = Stored::parse(bytes);
        let stored = stored
            .ok_or_else(|| CoreError::new(Code::Internal, "a schema was stored that cannot be read"))?;
        Ok(Schema::new(Parts::Stored(stored)))
    }

    /// Writes a file of its own, new and readable by its owner alone, into the folder.
    pub(super) fn write_private(&self, suffix: &str, bytes: &[u8]) -> Result<PathBuf> {
        create_private_dir(&self.dir).map_err(|error| CoreError::io("create", &self.dir, error))?;
        let file = self.dir.join(format!("{}{suffix}", unique()));
        write_new(&file, bytes).map_err(|error| CoreError::io("write", &file, error))?;
        Ok(file)
    }

    fn file(&self, key: &SchemaKey) -> PathBuf {
        self.dir.join(format!("{}{SUFFIX}", key.as_str()))
    }

    /// Removes all but the newest; what cannot be removed stays.
    fn prune(&self, newest: &Path) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let mut others: Vec<_> = entries
            .flatten()
            .filter(|entry| entry.path() != newest && entry.file_name().to_string_lossy().contains(SUFFIX))
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        others.sort_unstable_by(|a, b| b.cmp(a));
        for (_, path) in others.into_iter().skip(KEPT - 1) {
            let _ = fs::remove_file(path);
        }
    }
}

/// A schema file in memory; its parts are parsed when they are asked for.
pub(super) struct Stored {
    bytes: Vec<u8>,
    parts: HashMap<String, std::ops::Range<usize>>,
}

impl Stored {
    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let (digest, body) = split_line(&bytes)?;
        if digest != hex(&Sha256::digest(body)).as_bytes() {
            return None;
        }
        let (header, texts) = split_line(body)?;
        let header: Value = serde_json::from_slice(header).ok()?;
        if header.get("format")?.as_u64()? != FORMAT {
            return None;
        }
        let mut at = bytes.len() - texts.len();
        let mut parts = HashMap::new();
        for (name, length) in header.get("parts")?.as_object()? {
            let end = at.checked_add(usize::try_from(length.as_u64()?).ok()?)?;
            parts.insert(name.clone(), at..end);
            at = end;
        }
        (at == bytes.len()).then_some(Self { bytes, parts })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.keys().map(String::as_str)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.parts.contains_key(name)
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<Value>> {
        let Some(text) = self.parts.get(name).and_then(|range| self.bytes.get(range.clone())) else {
            return Ok(None);
        };
        let damaged = |error| CoreError::new(Code::Internal, "a stored schema is damaged").caused_by(error);
        serde_json::from_slice(text).map(Some).map_err(damaged)
    }
}

fn serialize(parts: &Map<String, Value>) -> Vec<u8> {
    let texts: Vec<String> = parts.values().map(Value::to_string).collect();
    let lengths: Map<String, Value> =
        parts.keys().zip(&texts).map(|(name, text)| (name.clone(), Value::from(text.len()))).collect();
    let body = format!("{}\n{}", json!({ "format": FORMAT, "parts": lengths }), texts.concat());
    format!("{}\n{body}", hex(&Sha256::digest(body.as_bytes()))).into_bytes()
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        text.extend([byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0')));
        text
    })
}

fn create_private_dir(dir: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Writes beside the file and renames: a reader sees the old bytes or the new ones.
fn replace(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = file.with_extension(format!("schema.{}.tmp", unique()));
    let written = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, file));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// A name that no other thread or process of this machine takes now.
fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn write_new(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut out = options.open(file)?;
    out.write_all(bytes)?;
    out.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = r#"{ "type": "object", "properties": { "port": { "type": "integer" } }, "additionalProperties": false }"#;

    fn issues(schema: &Schema, config: &Value) -> Vec<String> {
        schema.validate(config).unwrap().into_iter().map(|issue| issue.path.join(".")).collect()
    }

    #[test]
    fn a_stored_schema_validates_as_the_printed_one() {
        let dir = tempfile::tempdir().unwrap();
        let cache = SchemaCache::open(dir.path().join("a/b"));
        let key = SchemaKey::of(b"one");
        assert!(cache.get(&key).is_none());
        cache.put(&key, PRINTED).unwrap();
        let schema = cache.get(&key).unwrap();
        let config = json!({ "port": "x", "agents": { "entries": { "main": {} } } });
        assert_eq!(issues(&schema, &config), ["", "port"]);
        assert_eq!(issues(&Schema::from_json(PRINTED).unwrap(), &config), ["", "port"]);
        assert!(cache.get(&SchemaKey::of(b"two")).is_none(), "another key is another schema");
    }

    #[test]
    fn a_file_that_was_changed_or_cut_anywhere_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let cache = SchemaCache::open(dir.path());
        let key = SchemaKey::of(b"one");
        cache.put(&key, PRINTED).unwrap();
        let whole = fs::read(cache.file(&key)).unwrap();
        for place in 0..whole.len() {
            let mut changed = whole.clone();
            changed[place] ^= 1;
            assert!(Stored::parse(changed).is_none(), "changed at {place}");
            assert!(Stored::parse(whole[..place].to_vec()).is_none(), "cut at {place}");
        }
        fs::write(cache.file(&key), b"").unwrap();
        assert!(cache.get(&key).is_none());
        cache.put(&key, PRINTED).unwrap();
        assert!(cache.get(&key).is_some());
    }

    #[test]
    #[cfg(unix)]
    fn files_are_private_and_few() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let cache = SchemaCache::open(dir.path().join("cache"));
        for turn in 0..KEPT + 3 {
            let key = SchemaKey::of(turn.to_string().as_bytes());
            cache.put(&key, PRINTED).unwrap();
            assert_eq!(fs::metadata(cache.file(&key)).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::metadata(dir.path().join("cache")).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(dir.path().join("cache")).unwrap().count(), KEPT);
    }
}
