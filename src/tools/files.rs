//! `read`, `write` and `ls`, and what the built-in tools for files have in common.

use std::fmt::Write;
use std::sync::Arc;

use data_encoding::BASE64;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::registry::{Call, Definition, Pending, Tool};
use super::{Content, Output, edit, grep};
use crate::runtime::blocking;
use crate::sandbox::fs::{SandboxFs, WriteOptions, Written};
use crate::{Code, CoreError, Result};

/// Lines that `read` gives at once.
const MAX_LINES: usize = 2000;
/// Bytes of text that `read` gives at once.
const MAX_TEXT: usize = 50 << 10;
/// Bytes of a text file that is read to show a part of it, edited or searched.
pub(super) const MAX_FILE: u64 = 32 << 20;
/// Entries that `ls` gives at once.
const MAX_ENTRIES: usize = 1000;

/// What a tool does, in a thread in which it may wait for the disk.
type Work = fn(&SandboxFs, &Value, &CancellationToken) -> Result<Output>;

struct FileTool {
    files: Arc<SandboxFs>,
    work: Work,
    /// Held by those that read a file, change it and write it: two at once would lose one's change.
    changes: Option<Arc<Mutex<()>>>,
}

impl Tool for FileTool {
    fn call(&self, call: Call) -> Pending {
        let (files, work, changes) = (Arc::clone(&self.files), self.work, self.changes.clone());
        Box::pin(async move {
            let turn = match changes {
                Some(changes) => Some(changes.lock_owned().await),
                None => None,
            };
            blocking(move || {
                // Until the work is done, also when nobody waits for it any more.
                let _turn = turn;
                work(&files, &call.arguments, &call.cancel)
            })
            .await
        })
    }
}

/// A built-in tool for files.
pub(super) fn builtin(name: &str, files: &Arc<SandboxFs>) -> Option<(Definition, Arc<dyn Tool>)> {
    let (definition, work): (Definition, Work) = match name {
        "read" => (read_definition(), read),
        "write" => (write_definition(), write),
        "ls" => (ls_definition(), ls),
        "edit" => (edit::definition(), edit::edit),
        "grep" => (grep::definition(), grep::grep),
        _ => return None,
    };
    let changes = matches!(name, "write" | "edit").then(|| files.changes());
    Some((definition, Arc::new(FileTool { files: Arc::clone(files), work, changes })))
}

pub(super) fn text<'a>(arguments: &'a Value, name: &str) -> &'a str {
    arguments.get(name).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn number(arguments: &Value, name: &str, otherwise: usize) -> usize {
    let number = arguments.get(name).and_then(Value::as_u64);
    number.map_or(otherwise, |number| usize::try_from(number).unwrap_or(usize::MAX))
}

pub(super) fn flag(arguments: &Value, name: &str) -> bool {
    arguments.get(name).and_then(Value::as_bool).unwrap_or(false)
}

/// What a file of text holds.
pub(super) fn read_text(files: &SandboxFs, path: &str, cancel: &CancellationToken) -> Result<String> {
    let (data, _) = files.read(path, MAX_FILE, cancel)?;
    String::from_utf8(data).map_err(|error| {
        let message =
            format!("{path} is no text: it has no UTF-8 at byte {}", error.utf8_error().valid_up_to());
        CoreError::new(Code::Validation, message)
    })
}

fn read_definition() -> Definition {
    Definition {
        name: "read".into(),
        description: "Reads a file of the sandbox: text, at most 2000 lines or 50 KB at once, or an image (PNG, JPEG, GIF, \
                      WebP)."
            .into(),
        parameters: json!({
            "type": "object",
            "properties": {
                "path": { "type": "string", "minLength": 1, "description": "The file." },
                "offset": { "type": "integer", "minimum": 1, "description": "The first line to give, from 1 on." },
                "limit": { "type": "integer", "minimum": 1, "description": "How many lines to give." }
            },
            "required": ["path"],
            "additionalProperties": false
        }),
    }
}

fn read(files: &SandboxFs, arguments: &Value, cancel: &CancellationToken) -> Result<Output> {
    let path = text(arguments, "path");
    let (data, real) = files.read(path, MAX_FILE, cancel)?;
    if let Some(mime_type) = image_type(&data) {
        let content = vec![
            Content::Text(format!("{real}: {mime_type}, {} bytes", data.len())),
            Content::Image { data: BASE64.encode(&data), mime_type: mime_type.into() },
        ];
        return Ok(Output { content, details: Some(json!({ "path": real })), is_error: false });
    }
    if data.iter().take(8192).any(|&byte| byte == 0) {
        return Ok(Output::error(format!(
            "{real} holds no text and no image that is known: {} bytes",
            data.len()
        )));
    }
    let all = String::from_utf8_lossy(&data);
    let total = all.lines().count();
    let first = number(arguments, "offset", 1);
    if first > total.max(1) {
        return Ok(Output::error(format!("{real} has {total} lines, and line {first} was asked for")));
    }
    let mut shown = String::new();
    let mut next = first;
    for line in
        all.split_inclusive('\n').skip(first - 1).take(number(arguments, "limit", MAX_LINES).min(MAX_LINES))
    {
        if shown.len() + line.len() > MAX_TEXT {
            if next == first {
                // One line alone is too long.
                shown = super::output::cut(line.to_owned(), MAX_TEXT);
                next += 1;
            }
            break;
        }
        shown.push_str(line);
        next += 1;
    }
    if next <= total {
        if !shown.ends_with('\n') {
            shown.push('\n');
        }
        _ = write!(shown, "[Lines {first} to {} of {total}; go on with offset {next}.]", next - 1);
    }
    Ok(Output::text(shown)
        .with(json!({ "path": real, "lines": total, "firstLine": first, "nextLine": next })))
}

fn image_type(data: &[u8]) -> Option<&'static str> {
    let riff = data.starts_with(b"RIFF") && data.get(8..12) == Some(b"WEBP");
    match data {
        _ if data.starts_with(b"\x89PNG\r\n\x1a\n") => Some("image/png"),
        _ if data.starts_with(b"\xff\xd8\xff") => Some("image/jpeg"),
        _ if data.starts_with(b"GIF87a") || data.starts_with(b"GIF89a") => Some("image/gif"),
        _ if riff => Some("image/webp"),
        _ => None,
    }
}

fn write_definition() -> Definition {
    Definition {
        name: "write".into(),
        description:
            "Writes a file of the sandbox, and the directories on the way to it. What was in it is gone."
                .into(),
        parameters: json!({
            "type": "object",
            "properties": {
                "path": { "type": "string", "minLength": 1, "description": "The file." },
                "content": { "type": "string", "description": "What it is to hold." }
            },
            "required": ["path", "content"],
            "additionalProperties": false
        }),
    }
}

fn write(files: &SandboxFs, arguments: &Value, cancel: &CancellationToken) -> Result<Output> {
    let (path, content) = (text(arguments, "path"), text(arguments, "content"));
    let options = WriteOptions { mkdir: true, ..WriteOptions::default() };
    let written = files.write(path, content.as_bytes(), options, cancel)?;
    let how = if written == Written::Replaced { "Replaced" } else { "Created" };
    Ok(Output::text(format!("{how} {path}: {} bytes", content.len())))
}

fn ls_definition() -> Definition {
    Definition {
        name: "ls".into(),
        description: "Lists a directory of the sandbox, hidden names too. Directories end in \"/\".".into(),
        parameters: json!({
            "type": "object",
            "properties": {
                "path": { "type": "string", "minLength": 1, "description": "The directory; the workspace otherwise." },
                "limit": { "type": "integer", "minimum": 1, "description": "How many names to give." }
            },
            "additionalProperties": false
        }),
    }
}

fn ls(files: &SandboxFs, arguments: &Value, _: &CancellationToken) -> Result<Output> {
    let path = arguments.get("path").and_then(Value::as_str).unwrap_or(".");
    let entries = files.read_directory(path)?;
    let limit = number(arguments, "limit", MAX_ENTRIES).min(MAX_ENTRIES);
    let mut shown = String::new();
    for entry in entries.iter().take(limit) {
        shown.push_str(&entry.name);
        shown.push_str(if entry.is_directory { "/\n" } else { "\n" });
    }
    if entries.is_empty() {
        shown.push_str("[an empty directory]");
    } else if entries.len() > limit {
        _ = write!(shown, "[{limit} of {} names]", entries.len());
    }
    Ok(Output::text(shown).with(json!({ "entries": entries.len() })))
}
