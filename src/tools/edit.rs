//! `edit`: an exact replacement in a file.

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Output;
use super::files::{flag, read_text, text};
use super::registry::Definition;
use crate::Result;
use crate::sandbox::fs::{SandboxFs, WriteOptions};

/// Places that an error names.
const MAX_PLACES: usize = 20;

pub(super) fn definition() -> Definition {
    Definition {
        name: "edit".into(),
        description: "Replaces a text in a file of the sandbox. It must stand there exactly so, white space included, and \
                      once, unless all places are to be replaced."
            .into(),
        parameters: json!({
            "type": "object",
            "properties": {
                "path": { "type": "string", "minLength": 1, "description": "The file." },
                "oldText": { "type": "string", "minLength": 1, "description": "What to replace." },
                "newText": { "type": "string", "description": "What to put there." },
                "replaceAll": { "type": "boolean", "description": "Whether every place is replaced. Default: false." }
            },
            "required": ["path", "oldText", "newText"],
            "additionalProperties": false
        }),
    }
}

pub(super) fn edit(files: &SandboxFs, arguments: &Value, cancel: &CancellationToken) -> Result<Output> {
    let path = text(arguments, "path");
    let before = read_text(files, path, cancel)?;
    let (old, new) = (text(arguments, "oldText"), text(arguments, "newText"));
    // A file with CRLF is shown to models with its line ends, and they answer with LF.
    let windows = before.contains("\r\n") && !old.contains('\r') && !before.contains(old);
    let (old, new) = if windows {
        (old.replace('\n', "\r\n"), new.replace("\r\n", "\n").replace('\n', "\r\n"))
    } else {
        (old.to_owned(), new.to_owned())
    };
    if old == new {
        return Ok(Output::error(format!("`oldText` and `newText` are the same: {path} is what it was")));
    }
    let places: Vec<usize> = before.match_indices(&old).map(|(at, _)| at).collect();
    let Some(&first) = places.first() else { return Ok(Output::error(missing(path, &before, &old))) };
    if places.len() > 1 && !flag(arguments, "replaceAll") {
        let lines: Vec<String> =
            places.iter().take(MAX_PLACES).map(|&at| line_of(&before, at).to_string()).collect();
        let more = if places.len() > MAX_PLACES { ", …" } else { "" };
        return Ok(Output::error(format!(
            "`oldText` stands in {path} {} times, in lines {}{more}: give more of what is around the one that is meant, \
             or set `replaceAll`",
            places.len(),
            lines.join(", ")
        )));
    }
    files.write(path, before.replace(&old, &new).as_bytes(), WriteOptions::default(), cancel)?;
    let line = line_of(&before, first);
    let how_often = if places.len() == 1 { "once".to_owned() } else { format!("{} times", places.len()) };
    let details = json!({ "replacements": places.len(), "firstChangedLine": line });
    Ok(Output::text(format!("Edited {path}: replaced {how_often}, from line {line} on")).with(details))
}

/// 1-based.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|&&byte| byte == b'\n').count() + 1
}

/// That it is not there, and where something stands that differs in white space alone.
fn missing(path: &str, text: &str, old: &str) -> String {
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let wanted: Vec<String> = old.lines().map(squeeze).filter(|line| !line.is_empty()).collect();
    let lines: Vec<String> = text.lines().map(squeeze).collect();
    let near = lines
        .windows(wanted.len().max(1))
        .position(|window| !wanted.is_empty() && window == wanted.as_slice());
    match near {
        Some(at) => format!(
            "`oldText` does not stand in {path}; in line {} the same stands with other white space: read it again, and \
             give it exactly",
            at + 1
        ),
        None => format!("`oldText` does not stand in {path}, which has {} lines: read it again", lines.len()),
    }
}
