//! `grep`: lines of the sandbox's files, found by ripgrep's own regular expressions and rules of what to leave out.

use std::fmt::Write;

use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder, Sink, SinkContext, SinkMatch};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use ignore::overrides::{Override, OverrideBuilder};
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
    let matcher = RegexMatcherBuilder::new()
        .case_insensitive(flag(arguments, "ignoreCase"))
        .fixed_strings(flag(arguments, "literal"))
        .line_terminator(Some(b'\n'))
        .build(text(arguments, "pattern"))
        .map_err(|error| wrong(format!("`pattern` is no regular expression: {error}")))?;
    let context = number(arguments, "context", 0);
    let searcher = SearcherBuilder::new()
        .line_number(true)
        .bom_sniffing(false)
        .binary_detection(BinaryDetection::quit(0))
        .before_context(context)
        .after_context(context)
        .build();
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
        matcher,
        searcher,
        only,
        ignores: Vec::new(),
        hits: Hits { text: String::new(), left: limit, matches: 0, full: false, context: context > 0 },
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
    matcher: RegexMatcher,
    searcher: Searcher,
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
        let mut sink = Lines { path, hits: &mut self.hits };
        let searched = self.searcher.search_slice(&self.matcher, &data, &mut sink);
        searched.map_err(|error| CoreError::io("search", std::path::Path::new(path), error))
    }
}

struct Hits {
    text: String,
    left: usize,
    matches: usize,
    full: bool,
    /// Whether lines around are shown, which groups need a mark between them.
    context: bool,
}

impl Hits {
    fn line(&mut self, path: &str, number: Option<u64>, mark: char, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let line = cut(line.trim_end_matches(['\n', '\r']).to_owned(), MAX_LINE).replace('\n', " ");
        _ = writeln!(self.text, "{path}{mark}{}{mark}{line}", number.unwrap_or(0));
    }
}

struct Lines<'a> {
    path: &'a str,
    hits: &'a mut Hits,
}

impl Sink for Lines<'_> {
    type Error = std::io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> Result<bool, std::io::Error> {
        self.hits.line(self.path, found.line_number(), ':', found.bytes());
        self.hits.matches += 1;
        self.hits.left = self.hits.left.saturating_sub(1);
        self.hits.full = self.hits.left == 0 || self.hits.text.len() > MAX_TEXT;
        Ok(!self.hits.full)
    }

    fn context(&mut self, _: &Searcher, around: &SinkContext<'_>) -> Result<bool, std::io::Error> {
        self.hits.line(self.path, around.line_number(), '-', around.bytes());
        Ok(true)
    }

    fn context_break(&mut self, _: &Searcher) -> Result<bool, std::io::Error> {
        if self.hits.context {
            self.hits.text.push_str("--\n");
        }
        Ok(true)
    }
}

fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("/", |(parent, _)| if parent.is_empty() { "/" } else { parent })
}

fn join(path: &str, name: &str) -> String {
    if path == "/" { format!("/{name}") } else { format!("{path}/{name}") }
}
