//! A config as it was read: the value, where each part of it was written, and what is wrong with it.
//!
//! [`Config::load`] takes the steps that OpenClaw's own read takes up to its migrations: find the file, parse,
//! resolve `$include`, apply the `env` block, substitute `${NAME}`. Differences from OpenClaw, all on purpose:
//! - `.env` files are not read: they are the process's business, and OpenClaw has read them into the environment.
//! - The two migrations that OpenClaw applies in memory (context budgets, the implicit `main` agent) are not part
//!   of [`Config::value`], so that every part of the value has a place in a file and can be edited there.
//! - A key `__proto__` is always dropped. OpenClaw drops it too, but reads `env` through it.
//! - The file may have 64 MiB, and values may nest 1,000 levels; both are unbounded there.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::dotpath;
use super::env::{self, Substitution};
use super::include::{self, Includes};
use super::js;
use super::json5::{self, JsonText};
use super::origin::{Draft, Place, SourceFile, Sources};
use super::paths::{Env, Host};
use super::redact;
use super::validate::SchemaSource;
use super::value::{Node, Value};
use crate::memory::{self, Owner};
use crate::{Code, CoreError, Result};

const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// What to read, and how.
#[derive(Clone, Debug, Default)]
pub struct ConfigOptions {
    /// The file; by default OpenClaw's own rules find it.
    pub path: Option<String>,
    /// The environment; by default that of the process.
    pub env: Option<Env>,
    /// Directories beside the config's that includes may come from; by default `OPENCLAW_INCLUDE_ROOTS`.
    pub include_roots: Option<Vec<String>>,
    /// What a reference to a variable that is unset or empty means.
    pub missing_env: MissingEnv,
    /// What the value is held against.
    pub schema: SchemaSource,
}

/// What a reference to a variable that is unset or empty means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingEnv {
    /// The reference stays and a warning is added, as in OpenClaw.
    #[default]
    Warn,
    /// The load fails with `CONFIG_ENV`.
    Error,
}

/// How bad an issue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// OpenClaw would not start with it.
    Error,
    /// Something will not work.
    Warning,
}

/// Something wrong with the config.
#[derive(Clone, Debug, PartialEq)]
pub struct Issue {
    /// How bad it is.
    pub severity: Severity,
    /// The config path; empty for the config as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// Where the value was written or, if it is missing, the object that lacks it.
    pub place: Option<Place>,
    /// The values that would be right, where they can be listed.
    pub allowed_values: Option<Vec<serde_json::Value>>,
}

/// Through what a value came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The config file itself.
    Root,
    /// An included file.
    Include,
    /// An environment variable.
    Env,
}

impl Via {
    /// The name that JavaScript sees.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Include => "include",
            Self::Env => "env",
        }
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Where it was written.
    pub place: Place,
    /// Through what it came: the file, then the environment if its text refers to it.
    pub via: Vec<Via>,
    /// The first variable that went into it.
    pub env: Option<String>,
}

/// A config that was read.
#[derive(Clone, Debug)]
pub struct Config {
    options: ConfigOptions,
    path: PathBuf,
    sources: Sources,
    includes: Includes,
    revision: String,
    root: Node,
    substitution: Substitution,
    issues: Vec<Issue>,
}

impl Config {
    /// Reads the config. Blocks.
    pub fn load(options: ConfigOptions) -> Result<Self> {
        Self::load_with(options, None)
    }

    /// Reads the config as it would be with `draft` on disk.
    pub(super) fn load_with(mut options: ConfigOptions, draft: Option<&Draft>) -> Result<Self> {
        let _owner = memory::scope(Owner::Config);
        let mut env = options.env.get_or_insert_with(Env::from_process).clone();
        let host = Host::of_process(&env);
        let path = match &options.path {
            Some(path) => host.user_path(path)?,
            None => host.config_path()?,
        };
        let include_roots = match &options.include_roots {
            Some(roots) => roots.iter().map(|root| host.user_path(root)).collect::<Result<_>>()?,
            None => host.include_roots()?,
        };

        let mut file = read_root(&path)?;
        Draft::replace(draft, &mut file);
        let mut root = json5::parse(file.text.as_bytes(), 0).map_err(|error| explain_parse(&file, &error))?;
        let mut sources = Sources::default();
        sources.add(file);
        let includes = include::resolve(&mut root, &path, &include_roots, draft, &mut sources)?;
        env::apply_block(&root, &mut env);
        let substitution = env::substitute(&mut root, &env);

        let revision = revision(&sources, &includes)?;
        let mut config =
            Self { options, path, sources, includes, revision, root, substitution, issues: Vec::new() };
        config.check_root()?;
        config.check_references()?;
        config.check_encoding();
        config.check_schema()?;
        tracing::debug!(
            file = %config.path.display(),
            files = config.files().len(),
            issues = config.issues.len(),
            "config loaded"
        );
        Ok(config)
    }

    /// Reads the same config again, with the options of the first time.
    pub fn reload(&self) -> Result<Self> {
        Self::load(self.reload_options())
    }

    /// The options of the first time, for the file that was found then.
    pub(super) fn reload_options(&self) -> ConfigOptions {
        ConfigOptions { path: Some(self.path.to_string_lossy().into_owned()), ..self.options.clone() }
    }

    /// The options of the first time, the environment included.
    pub(super) const fn options(&self) -> &ConfigOptions {
        &self.options
    }

    /// The files' texts.
    pub(super) const fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every file that was read, the config first, each once.
    pub fn files(&self) -> Vec<&Path> {
        self.sources.paths()
    }

    /// Every path whose change may change the config: the files, and where their links lead.
    pub fn watch_paths(&self) -> Vec<&Path> {
        let mut paths = self.files();
        let real = self.sources.iter().map(|file| file.real_path.as_path());
        for path in real.chain(self.includes.watch.iter().map(PathBuf::as_path)) {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        paths
    }

    /// About how much memory it holds. A tree of values with places takes some ten times its text.
    pub fn approximate_bytes(&self) -> usize {
        self.sources.iter().map(|file| file.text.len() * 12).sum::<usize>() + 16 * 1024
    }

    /// OpenClaw's revision: SHA-256 of the config's text and, for each include, its path, target and hash.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The value after includes and environment, with its places.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// The value after includes and environment.
    pub fn value(&self) -> Result<JsonText> {
        json5::stringify(&self.root.value)
    }

    /// The value of the config file alone, as authored.
    pub fn source(&self) -> Result<JsonText> {
        json5::to_json(self.sources.get(0).map(|file| file.text.as_bytes()).unwrap_or_default())
    }

    /// The value with every secret replaced by OpenClaw's mark.
    pub fn redacted(&self) -> Result<JsonText> {
        let mut root = self.root.clone();
        redact::redact(&mut root);
        json5::stringify(&root.value)
    }

    /// The value at a path, if there is one.
    pub fn get(&self, path: &str) -> Result<Option<JsonText>> {
        let segments = dotpath::parse(path)?;
        dotpath::get(&self.root, &segments).map(|node| json5::stringify(&node.value)).transpose()
    }

    /// Where the value at a path came from, if there is one.
    pub fn explain(&self, path: &str) -> Result<Option<Explanation>> {
        let segments = dotpath::parse(path)?;
        let Some(node) = dotpath::get(&self.root, &segments) else { return Ok(None) };
        let Some(place) = self.sources.place(node.origin) else { return Ok(None) };
        let mut via = vec![if node.origin.file == 0 { Via::Root } else { Via::Include }];
        let env = self.substitution.used.get(&(node.origin.file, node.origin.start));
        let env = env.filter(|_| node.value.as_text().is_some()).cloned();
        if env.is_some() {
            via.push(Via::Env);
        }
        Ok(Some(Explanation { place, via, env }))
    }

    /// What is wrong with the config.
    pub fn issues(&self) -> &[Issue] {
        &self.issues
    }

    /// Adds an issue about the value at these segments; its place is looked up here.
    pub(super) fn add_issue<S: AsRef<str>>(&mut self, segments: &[S], mut issue: Issue) {
        let (node, _) = dotpath::nearest(&self.root, segments);
        issue.place = self.sources.place(node.origin);
        self.issues.push(issue);
    }

    fn check_root(&self) -> Result<()> {
        let got = match &self.root.value {
            Value::Object(_) => return Ok(()),
            Value::Array(_) => "an array",
            Value::String(_) => "a string",
            Value::Number(_) => "a number",
            Value::Bool(_) => "a boolean",
            Value::Null => "null",
        };
        let message = format!("{}: the config must be an object, not {got}", self.path.display());
        let error = CoreError::new(Code::ConfigInvalid, message);
        Err(match self.sources.place(self.root.origin) {
            Some(place) => error.in_file(place.file).at(place.line, place.column),
            None => error,
        })
    }

    fn check_references(&mut self) -> Result<()> {
        for missing in &self.substitution.missing {
            let place = self.sources.place(missing.origin);
            if self.options.missing_env == MissingEnv::Error {
                let message = format!(
                    "Missing env var \"{}\" referenced at config path: {}",
                    missing.name, missing.path
                );
                let error = CoreError::new(Code::ConfigEnv, message).at_path(&missing.path);
                return Err(match place {
                    Some(place) => error.in_file(place.file).at(place.line, place.column),
                    None => error,
                });
            }
            self.issues.push(Issue {
                severity: Severity::Warning,
                path: missing.path.clone(),
                message: format!(
                    "Missing env var \"{}\" - feature using this value will be unavailable",
                    missing.name
                ),
                place,
                allowed_values: None,
            });
        }
        Ok(())
    }

    fn check_encoding(&mut self) {
        for file in self.sources.iter() {
            let Some(offset) = file.first_invalid else { continue };
            let (line, column) = file.line_and_column(offset);
            self.issues.push(Issue {
                severity: Severity::Warning,
                path: String::new(),
                message: format!(
                    "{} is not UTF-8 from here on: each wrong byte sequence is read as U+FFFD",
                    file.path.display()
                ),
                place: Some(Place { file: file.path.clone(), line, column }),
                allowed_values: None,
            });
        }
    }
}

/// Opening a pipe that nobody writes to would hold a thread for ever.
fn open_without_waiting(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    options.open(path)
}

fn read_root(path: &Path) -> Result<SourceFile> {
    let file = open_without_waiting(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => CoreError::new(
            Code::ConfigNotFound,
            format!(
                "There is no config at {}: create it with `openclaw setup`, or name another with OPENCLAW_CONFIG_PATH",
                path.display()
            ),
        )
        .in_file(path)
        .caused_by(error),
        ErrorKind::PermissionDenied => CoreError::new(
            Code::Io,
            format!("cannot open {}: {error}; give the file to the user who runs this process", path.display()),
        )
        .in_file(path)
        .caused_by(error),
        _ => CoreError::io("open", path, error),
    })?;
    let metadata = file.metadata().map_err(|error| CoreError::io("examine", path, error))?;
    if !metadata.is_file() {
        let message = format!(
            "{} is not a regular file: a config cannot be a folder, a pipe or a device",
            path.display()
        );
        return Err(CoreError::new(Code::Io, message).in_file(path));
    }
    // With its size known, the file is read in one call.
    let size = metadata.len().min(MAX_FILE_BYTES);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CoreError::io("read", path, error))?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > MAX_FILE_BYTES) {
        let message = format!("{} is larger than {MAX_FILE_BYTES} bytes", path.display());
        return Err(CoreError::new(Code::Limit, message).in_file(path));
    }
    let real = super::paths::real_path(path).unwrap_or_else(|_| path.to_owned());
    Ok(SourceFile::decode(path.to_owned(), real, bytes))
}

/// Adds the file to a parse error, and what its author probably did.
fn explain_parse(file: &SourceFile, error: &CoreError) -> CoreError {
    let mut message = format!("{}: {}", file.path.display(), error.message());
    let (line, column) = (error.details().line.unwrap_or(1), error.details().column.unwrap_or(1));
    if js::is_blank(&file.text) {
        message.push_str(". The file is empty: an empty config is `{}`");
    } else if file.text.contains('\0') {
        message.push_str(". The file holds NUL bytes: it is not text, or not in UTF-8");
    } else if is_second_value(file, line, column) {
        message.push_str(". The document ends before that: another value starts there");
    }
    CoreError::new(error.code(), message).in_file(&file.path).at(line, column)
}

/// Whether what precedes a place is a whole document, so that a second one starts there.
fn is_second_value(file: &SourceFile, line: u32, column: u32) -> bool {
    let mut start = 0;
    for _ in 1..line {
        match file.text.get(start..).and_then(|rest| rest.find('\n')) {
            Some(end) => start += end + 1,
            None => return false,
        }
    }
    let mut units = 1;
    for (at, c) in file.text.get(start..).unwrap_or_default().char_indices() {
        if units == column {
            if matches!(c, '}' | ']' | ',') {
                return false;
            }
            let before = file.text.get(..start + at).unwrap_or_default();
            return !js::is_blank(before) && json5::parse(before.as_bytes(), 0).is_ok();
        }
        units += u32::try_from(c.len_utf16()).unwrap_or(1);
    }
    false
}

fn revision(sources: &Sources, includes: &Includes) -> Result<String> {
    let mut hasher = Sha256::new();
    hasher.update(sources.get(0).map(|file| file.text.as_bytes()).unwrap_or_default());
    for (path, (target, hash)) in &includes.revisions {
        let entry = [path.to_string_lossy(), target.to_string_lossy(), hash.into()];
        let entry = serde_json::to_vec(&entry)
            .map_err(|error| CoreError::new(Code::Internal, error.to_string()).caused_by(error))?;
        hasher.update(entry);
    }
    Ok(include::hex(hasher))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture(tempfile::TempDir);

    impl Fixture {
        fn new(files: &[(&str, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in files {
                std::fs::write(dir.path().join(name), text).unwrap();
            }
            Self(dir)
        }

        fn load(&self, env: &[(&str, &str)]) -> Result<Config> {
            self.load_with(env, MissingEnv::Warn)
        }

        fn load_with(&self, env: &[(&str, &str)], missing_env: MissingEnv) -> Result<Config> {
            Config::load(ConfigOptions {
                path: Some(self.path("openclaw.json").to_string_lossy().into_owned()),
                env: Some(env.iter().copied().collect()),
                missing_env,
                ..ConfigOptions::default()
            })
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }
    }

    #[test]
    fn a_value_can_be_traced_to_its_file_and_variable() {
        let fixture = Fixture::new(&[
            ("openclaw.json", "{\n  $include: 'a.json',\n  own: '${X}-${Y}',\n}"),
            ("a.json", "{list: [\n  {id: '${Y}'}]}"),
        ]);
        let config = fixture.load(&[("X", "1"), ("Y", "2")]).unwrap();
        let explain = |path: &str| {
            let found = config.explain(path).unwrap()?;
            let file = found.place.file.file_name()?.to_string_lossy().into_owned();
            Some((file, found.place.line, found.place.column, found.via, found.env))
        };
        let expected = ("openclaw.json".into(), 3, 8, vec![Via::Root, Via::Env], Some("X".into()));
        assert_eq!(explain("own"), Some(expected));
        let expected = ("a.json".into(), 2, 8, vec![Via::Include, Via::Env], Some("Y".into()));
        assert_eq!(explain("list[0].id"), Some(expected));
        assert_eq!(explain("list[0]"), Some(("a.json".into(), 2, 3, vec![Via::Include], None)));
        assert_eq!(explain("list[1]"), None);
        assert_eq!(config.get("list[0].id").unwrap().unwrap().text, "\"2\"");
        assert_eq!(config.files(), [fixture.path("openclaw.json"), fixture.path("a.json")]);
    }

    #[test]
    fn a_missing_variable_warns_or_fails_with_its_place() {
        let fixture = Fixture::new(&[("openclaw.json", "{a: {\n  b: '${NOPE}'}}")]);
        let config = fixture.load(&[]).unwrap();
        let [issue] = config.issues() else { panic!("{:?}", config.issues()) };
        assert_eq!((issue.severity, issue.path.as_str()), (Severity::Warning, "a.b"));
        let place = issue.place.as_ref().unwrap();
        assert_eq!((place.line, place.column), (2, 6));
        let error = fixture.load_with(&[], MissingEnv::Error).unwrap_err();
        assert_eq!(error.code(), Code::ConfigEnv);
        assert_eq!(error.message(), "Missing env var \"NOPE\" referenced at config path: a.b");
        assert_eq!((error.details().line, error.details().path.as_deref()), (Some(2), Some("a.b")));
    }

    #[test]
    fn an_issue_about_what_is_missing_stands_at_the_object_that_lacks_it() {
        let fixture = Fixture::new(&[("openclaw.json", "{\n  a: [\n    {}]}")]);
        let mut config = fixture.load(&[]).unwrap();
        let required = Issue {
            severity: Severity::Error,
            path: "a.0.b.c".into(),
            message: "required".into(),
            place: None,
            allowed_values: None,
        };
        config.add_issue(&["a", "0", "b.c"], required);
        let issue = &config.issues()[0];
        let place = issue.place.as_ref().unwrap();
        assert_eq!((place.line, place.column), (3, 5));
    }

    #[test]
    fn text_that_is_no_config_fails_with_a_place_and_a_reason() {
        for (text, code, place, reason) in [
            ("", Code::ConfigParse, (1, 1), "an empty config is `{}`"),
            (" \n ", Code::ConfigParse, (2, 2), "an empty config is `{}`"),
            ("{a: 1}\n {b: 2}", Code::ConfigParse, (2, 2), "another value starts there"),
            ("{a: 1} // é 😀\n/*😀*/{b: 2}", Code::ConfigParse, (2, 7), "another value starts there"),
            ("{a: {", Code::ConfigParse, (1, 6), "end of input"),
            ("\0\u{1}", Code::ConfigParse, (1, 1), "NUL"),
            ("\n[]", Code::ConfigInvalid, (2, 1), "must be an object, not an array"),
            ("{$include: 'openclaw.json'}", Code::ConfigInclude, (1, 12), "Circular include detected: "),
        ] {
            let error = Fixture::new(&[("openclaw.json", text)]).load(&[]).unwrap_err();
            let details = error.details();
            assert_eq!(
                (error.code(), details.line, details.column),
                (code, Some(place.0), Some(place.1)),
                "{text}"
            );
            assert!(error.message().contains(reason), "{text}: {error}");
            assert!(details.file.is_some(), "{text}");
        }
    }

    #[test]
    fn what_json5_admits_is_read() {
        let deep = format!("{{a: {}{}}}", "[".repeat(999), "]".repeat(999));
        for text in ["\u{FEFF}{a: []}", "{\r\n  a: [], // x\r\n}\r\n", "{a: 1, a: []}", &deep] {
            let config = Fixture::new(&[("openclaw.json", text)]).load(&[]).unwrap();
            assert!(config.get("a").unwrap().unwrap().text.starts_with('['), "{text}");
        }
        let error = Fixture::new(&[("openclaw.json", &"[".repeat(200_000))]).load(&[]).unwrap_err();
        assert_eq!(error.code(), Code::ConfigParse);
    }

    #[test]
    fn a_config_that_is_not_there_or_not_a_file_is_told_apart() {
        let fixture = Fixture::new(&[]);
        assert_eq!(fixture.load(&[]).unwrap_err().code(), Code::ConfigNotFound);
        std::fs::create_dir(fixture.path("openclaw.json")).unwrap();
        assert_eq!(fixture.load(&[]).unwrap_err().code(), Code::Io);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_read_with_a_warning() {
        let fixture = Fixture::new(&[]);
        std::fs::write(fixture.path("openclaw.json"), b"{\na: '\xff'}").unwrap();
        let config = fixture.load(&[]).unwrap();
        assert_eq!(config.get("a").unwrap().unwrap().text, "\"\u{FFFD}\"");
        let place = config.issues()[0].place.as_ref().unwrap();
        assert_eq!((place.line, place.column), (2, 5));
    }
}
