//! `grep`: lines of the sandbox's files, by the regular expressions of ripgrep and its rules of what to leave out.
//!
//! Lines are looked at one by one: ripgrep's own searcher brings the tables of forty old encodings, 0.4 MB, for files that are
//! UTF-8 here or not read at all.

use std::collections::VecDeque;
use std::fmt::Write;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use ignore::overrides::{Override, OverrideBuilder};
use regex::bytes::{Regex, RegexBuilder};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Output;
use super::files::{MAX_FILE, flag, number, text};
use super::output::cut;
use super::registry::Definition;
use crate::sandbox::fs::{Kind, SandboxFs};
use crate::{Code, CoreError, Result};

/// Lines that match, unless the call says fewer or more.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 2000;
/// Bytes of a line that are shown.
const MAX_LINE: usize = 500;
/// Bytes of all lines together.
const MAX_TEXT: usize = 50 << 10;
/// Directories within each other that are searched.
const MAX_DEPTH: usize = 64;

pub(super) fn definition() -> Definition {
    Definition {
        name: "grep".into(),
        description: "Searches files of the sandbox for a regular expression (Rust's syntax), line by line. Leaves out what \
                      .gitignore names, .git, and binary files."
            .into(),
        parameters: json!({
            "type": "object",
            "properties": {
                "pattern": { "type": "string", "minLength": 1, "description": "What to look for." },
                "path": { "type": "string", "minLength": 1, "description": "A file or directory; the workspace otherwise." },
                "glob": { "type": "string", "minLength": 1, "description": "Only files of such names, as in .gitignore: \"*.rs\", \"src/**\"." },
                "ignoreCase": { "type": "boolean", "description": "Whether upper and lower case are the same." },
                "literal": { "type": "boolean", "description": "Whether the pattern is a text as it is." },
                "context": { "type": "integer", "minimum": 0, "maximum": 50, "description": "Lines to show before and after each." },
                "limit": { "type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "description": "How many lines that match to give: 100 otherwise." }
            },
            "required": ["pattern"],
            "additionalProperties": false
        }),
    }
}

pub(super) fn grep(files: &SandboxFs, arguments: &Value, cancel: &CancellationToken) -> Result<Output> {
    let wrong = |what: String| CoreError::new(Code::Validation, what);
    let pattern = text(arguments, "pattern");
    let pattern = if flag(arguments, "literal") { regex::escape(pattern) } else { pattern.to_owned() };
    let pattern = RegexBuilder::new(&pattern)
        .case_insensitive(flag(arguments, "ignoreCase"))
        .build()
        .map_err(|error| wrong(format!("`pattern` is no regular expression: {error}")))?;
    let context = number(arguments, "context", 0);
    let limit = number(arguments, "limit", DEFAULT_LIMIT).min(MAX_LIMIT);
    let path = arguments.get("path").and_then(Value::as_str).unwrap_or(".");
    let root = files.resolve(path, false)?;
    let found = files.stat(&root)?.map(|found| found.kind);
    // As a .gitignore in the directory that is searched would have it.
    let mut only = OverrideBuilder::new(if found == Some(Kind::File) { parent_of(&root) } else { &root });
    if let Some(glob) = arguments.get("glob").and_then(Value::as_str) {
        only.add(glob).map_err(|error| wrong(format!("`glob` is none: {error}")))?;
    }
    let only = only.build().map_err(|error| wrong(format!("`glob` is none: {error}")))?;
    let mut search = Search {
        files,
        cancel,
        pattern,
        context,
        only,
        ignores: Vec::new(),
        hits: Hits { text: String::new(), left: limit, matches: 0, full: false },
        searched: 0,
        skipped: 0,
    };
    match found {
        Some(Kind::Directory) => {
            search.rules_above(&root);
            search.directory(&root, 0)?;
        }
        Some(Kind::File) => search.file(&root)?,
        Some(Kind::Other) => return Err(wrong(format!("{path} is neither a file nor a directory"))),
        None => return Err(CoreError::new(Code::Io, format!("{path} does not exist"))),
    }
    let Search { hits, searched, skipped, .. } = search;
    let Hits { mut text, matches, full, .. } = hits;
    if matches == 0 {
        text = format!("[no line matches, in {searched} files]");
    } else if full {
        _ = write!(text, "[the first {matches} lines that match; there may be more]");
    }
    Ok(Output::text(text)
        .with(json!({ "matches": matches, "files": searched, "skipped": skipped, "truncated": full })))
}

struct Search<'a> {
    files: &'a SandboxFs,
    cancel: &'a CancellationToken,
    pattern: Regex,
    /// Lines to show before and after each.
    context: usize,
    only: Override,
    /// Of the directories on the way, the outermost first.
    ignores: Vec<Gitignore>,
    hits: Hits,
    searched: u64,
    /// Files that could not be read, or are too large.
    skipped: u64,
}

impl Search<'_> {
    fn directory(&mut self, path: &str, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            self.skipped += 1;
            return Ok(());
        }
        let entries = match self.files.read_directory(path) {
            Ok(entries) => entries,
            Err(error) if depth == 0 => return Err(error),
            // It went, or may not be read.
            Err(_) => {
                self.skipped += 1;
                return Ok(());
            }
        };
        let before = self.ignores.len();
        if entries.iter().any(|entry| entry.name == ".gitignore") {
            self.ignores.extend(self.rules(path));
        }
        for entry in &entries {
            if self.cancel.is_cancelled() {
                return Err(CoreError::new(Code::Internal, "aborted"));
            }
            if self.hits.full {
                break;
            }
            let inner = join(path, &entry.name);
            if entry.name == ".git" || self.is_ignored(&inner, entry.is_directory) {
                continue;
            }
            if entry.is_directory {
                self.directory(&inner, depth + 1)?;
            } else {
                self.file(&inner)?;
            }
        }
        self.ignores.truncate(before);
        Ok(())
    }

    /// The rules of the directories around the one that is searched, up to where the repository begins.
    fn rules_above(&mut self, root: &str) {
        let mut path = root;
        while path != "/" && matches!(self.files.stat(&join(path, ".git")), Ok(None)) {
            path = parent_of(path);
            self.ignores.extend(self.rules(path));
        }
        self.ignores.reverse();
    }

    /// What the .gitignore of a directory says, if it has one.
    fn rules(&self, path: &str) -> Option<Gitignore> {
        let (rules, _) = self.files.read(&join(path, ".gitignore"), 1 << 20, self.cancel).ok()?;
        let mut builder = GitignoreBuilder::new(path);
        for line in String::from_utf8_lossy(&rules).lines() {
            // As git: a line that is no pattern is none.
            _ = builder.add_line(None, line);
        }
        builder.build().ok()
    }

    fn is_ignored(&self, path: &str, is_directory: bool) -> bool {
        if self.only.matched(path, is_directory).is_ignore() && !is_directory {
            return true;
        }
        // The innermost that says something counts.
        let verdicts = self.ignores.iter().rev().map(|rules| rules.matched(path, is_directory));
        verdicts.into_iter().find(|verdict| !verdict.is_none()).is_some_and(|verdict| verdict.is_ignore())
    }

    fn file(&mut self, path: &str) -> Result<()> {
        let data = match self.files.read(path, MAX_FILE, self.cancel) {
            Ok((data, _)) => data,
            Err(error) if self.cancel.is_cancelled() => return Err(error),
            Err(_) => {
                self.skipped += 1;
                return Ok(());
            }
        };
        self.searched += 1;
        // As ripgrep tells what is no text.
        if memchr::memchr(0, &data).is_none() {
            self.lines(path, &data);
        }
        Ok(())
    }

    fn lines(&mut self, path: &str, data: &[u8]) {
        // The numbers, from 1 on, of the last line that was shown, and of the last one that is to be shown after a match.
        let (mut shown, mut until) = (0, 0);
        let mut before = VecDeque::with_capacity(self.context);
        for (number, line) in (1_usize..).zip(data.split_inclusive(|byte| *byte == b'\n')) {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if self.pattern.is_match(line) {
                if self.context > 0 && shown > 0 && number - before.len() > shown + 1 {
                    self.hits.text.push_str("--\n");
                }
                for (number, line) in before.drain(..) {
                    self.hits.line(path, number, '-', line);
                }
                self.hits.matched(path, number, line);
                (shown, until) = (number, number + self.context);
                if self.hits.full {
                    return;
                }
            } else if number <= until {
                self.hits.line(path, number, '-', line);
                shown = number;
            } else if self.context > 0 {
                if before.len() == self.context {
                    before.pop_front();
                }
                before.push_back((number, line));
            }
        }
    }
}

struct Hits {
    text: String,
    left: usize,
    matches: usize,
    full: bool,
}

impl Hits {
    fn line(&mut self, path: &str, number: usize, mark: char, line: &[u8]) {
        let line = cut(String::from_utf8_lossy(line).into_owned(), MAX_LINE).replace('\n', " ");
        _ = writeln!(self.text, "{path}{mark}{number}{mark}{line}");
    }

    fn matched(&mut self, path: &str, number: usize, line: &[u8]) {
        self.line(path, number, ':', line);
        self.matches += 1;
        self.left = self.left.saturating_sub(1);
        self.full = self.left == 0 || self.text.len() > MAX_TEXT;
    }
}

fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("/", |(parent, _)| if parent.is_empty() { "/" } else { parent })
}

fn join(path: &str, name: &str) -> String {
    if path == "/" { format!("/{name}") } else { format!("{path}/{name}") }
}
