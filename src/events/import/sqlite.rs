//! The SQLite databases of OpenClaw 2026.6 and later, read by a child process under Node.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Deserialize;

use super::sessions_dir::{is_transcript, too_long};
use super::transcript::Reader;
use super::{Halt, Job, Known, Outlet, Source, sorted_names};
use crate::events::openclaw::agent_of;
use crate::{Code, CoreError, Result};

/// The child's program.
const PROGRAM: &str = include_str!("../../../openclaw/sqlite-reader.mjs");
/// Bytes of one message of the child, entries aside.
const MESSAGE_BYTES: u64 = 1 << 20;

/// A message of the child.
#[derive(Deserialize)]
#[serde(tag = "t", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Message {
    Unsupported {
        version: String,
    },
    Window {
        session_id: String,
        session_key: String,
    },
    Total {
        bytes: u64,
    },
    Transcript {
        file: String,
        session_id: String,
        session_key: Option<String>,
    },
    /// So many bytes and a line feed follow.
    Entry {
        line: u64,
        at: Option<i64>,
        bytes: u64,
    },
    Skip {
        file: String,
        line: u64,
        reason: String,
    },
    Archive {
        name: String,
    },
    Failed {
        reason: String,
    },
    End,
}

/// Reads a source's database, and the compressed archives beside it.
pub(super) fn read(
    job: &Job,
    source: &Source,
    before: u64,
    known: &mut Known,
    outlet: &mut Outlet,
) -> Result<(), Halt> {
    if source.database.is_none() && !has_compressed(source)? {
        return Ok(());
    }
    let mut tried = Vec::new();
    for node in &job.node {
        match run(node, &job.scratch, source, before, known, outlet)? {
            Ran::Done => return Ok(()),
            Ran::Unsuited(why) => tried.push(format!("{}: {why}", node.display())),
        }
    }
    let what = source.database.as_ref().unwrap_or(&source.sessions_dir);
    let message = format!(
        "reading {} needs a Node with node:sqlite and zstd (22.15 or newer; OpenClaw's own has both), and there is none ({}); name one as `node`",
        what.display(),
        if tried.is_empty() { "none was given".to_owned() } else { tried.join("; ") },
    );
    Err(CoreError::new(Code::Io, message).in_file(what).into())
}

fn has_compressed(source: &Source) -> Result<bool> {
    let names = sorted_names(&source.sessions_dir)?;
    Ok(names.iter().any(|name| {
        name.strip_suffix(".zst").is_some_and(|plain| {
            plain.contains(".jsonl.") && (is_transcript(plain) || plain.contains(".jsonl.deleted."))
        })
    }))
}

enum Ran {
    Done,
    /// This Node cannot do it.
    Unsuited(String),
}

/// A folder of our own that goes with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn create(parent: &Path) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("openclaw-core-import-{}-{count}", std::process::id()));
            #[cfg_attr(not(unix), allow(unused_mut))]
            let mut builder = fs::DirBuilder::new();
            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            match builder.create(&path) {
                Ok(()) => return Ok(Self(path)),
                // Of an earlier process of this number that was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(CoreError::io("create", &path, error)),
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "the copy of an imported database stays behind");
        }
    }
}

fn run(
    node: &Path,
    room: &Path,
    source: &Source,
    before: u64,
    known: &mut Known,
    outlet: &mut Outlet,
) -> Result<Ran, Halt> {
    let scratch = Scratch::create(room)?;
    let complaints = scratch.0.join("stderr");
    let stderr = File::create(&complaints).map_err(|e| CoreError::io("create", &complaints, e))?;
    let mut command = Command::new(node);
    command
        .args(["--no-warnings", "--input-type=module", "--eval", PROGRAM])
        // What the host preloads into its own children has no place here.
        .env_remove("NODE_OPTIONS")
        .env_remove("NODE_V8_COVERAGE")
        .current_dir(&scratch.0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(stderr);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ok(Ran::Unsuited(error.to_string())),
    };
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    *outlet.stop.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
    // A stop in between would have found no child.
    if outlet.stop.is_stopped() {
        outlet.stop.now();
    }
    let conversation = match (stdin, stdout) {
        (Some(stdin), Some(stdout)) => {
            let job = serde_json::json!({
                "database": absolute(source.database.as_deref())?,
                "sessionsDir": absolute(Some(&source.sessions_dir))?,
                "scratch": absolute(Some(&scratch.0))?,
            });
            // A child that has died already says so below.
            let _ = write_job(stdin, &job);
            let mut conversation = Conversation {
                stdout: BufReader::with_capacity(64 << 10, stdout),
                before,
                known,
                outlet,
                source,
                total: 0,
                read: 0,
            };
            conversation.run()
        }
        _ => Err(CoreError::new(Code::Internal, "a child has no pipes").into()),
    };
    let child = outlet.stop.child.lock().unwrap_or_else(PoisonError::into_inner).take();
    let status = child.map(|mut child| {
        if conversation.is_err() {
            // It may have ended by itself.
            let _ = child.kill();
        }
        child.wait()
    });
    match conversation? {
        Some(ran) => Ok(ran),
        None if outlet.stop.is_stopped() => Err(Halt::Stopped),
        None => {
            let said = fs::read(&complaints).unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            let last = said.get(said.len().saturating_sub(5)..).unwrap_or_default().join(" | ");
            let status =
                status.and_then(io::Result::ok).map_or_else(|| "unknown".to_owned(), |s| s.to_string());
            Ok(Ran::Unsuited(format!("it ended early ({status}) {last}")))
        }
    }
}

fn write_job(mut stdin: impl Write, job: &serde_json::Value) -> io::Result<()> {
    stdin.write_all(job.to_string().as_bytes())
}

/// The child works in another folder. A path that is not Unicode cannot be told in JSON.
fn absolute(path: Option<&Path>) -> Result<Option<String>> {
    let Some(path) = path else { return Ok(None) };
    let absolute = std::path::absolute(path).map_err(|error| CoreError::io("resolve", path, error))?;
    match absolute.to_str() {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(CoreError::new(Code::Io, format!("the path {} is not Unicode", path.display()))),
    }
}

struct Conversation<'a, R> {
    stdout: BufReader<R>,
    before: u64,
    known: &'a mut Known,
    outlet: &'a mut Outlet,
    source: &'a Source,
    /// Bytes of transcripts in the database, and how many of them are read.
    total: u64,
    read: u64,
}

impl<R: Read> Conversation<'_, R> {
    /// `None` if the child ends without a word.
    fn run(&mut self) -> Result<Option<Ran>, Halt> {
        let mut transcript = None;
        let mut begun = false;
        while let Some(message) = self.message()? {
            match message {
                Message::Unsupported { version } => {
                    return Ok(Some(Ran::Unsuited(format!("Node {version} has not both"))));
                }
                Message::Window { session_id, session_key } => {
                    self.known.windows.insert(session_id, session_key);
                }
                Message::Total { bytes } => self.total = bytes,
                Message::Transcript { file, session_id, session_key } => {
                    transcript = Some(self.reader(file, session_id, session_key));
                }
                Message::Entry { line, at, bytes } => self.entry(transcript.as_mut(), line, at, bytes)?,
                Message::Skip { file, line, reason } => self.outlet.skip(&file, line, reason)?,
                Message::Archive { name } => {
                    self.known.archives.insert(name);
                }
                Message::Failed { reason } => return Err(CoreError::new(Code::Io, reason).into()),
                Message::End => return Ok(Some(Ran::Done)),
            }
            begun = true;
        }
        if begun && !self.outlet.stop.is_stopped() {
            let message = "the process that reads OpenClaw's database died; what it had read is imported, and another import goes on from there";
            return Err(CoreError::new(Code::Io, message).into());
        }
        Ok(None)
    }

    fn message(&mut self) -> Result<Option<Message>, Halt> {
        let mut line = Vec::new();
        let read = (&mut self.stdout).take(MESSAGE_BYTES).read_until(b'\n', &mut line).map_err(unreadable)?;
        if read == 0 {
            return Ok(None);
        }
        if line.pop() != Some(b'\n') {
            // Cut short: the child has gone.
            return Ok(None);
        }
        serde_json::from_slice(&line).map(Some).map_err(|error| {
            CoreError::new(
                Code::Internal,
                format!("the reading process said what nobody understands: {error}"),
            )
            .into()
        })
    }

    fn reader(&self, file: String, session_id: String, session_key: Option<String>) -> Reader {
        let agent = &self.source.agent_id;
        let key = session_key
            .or_else(|| self.known.windows.get(&session_id).cloned())
            .unwrap_or_else(|| format!("agent:{agent}:recovered:{session_id}"));
        let agent_id = agent_of(&key).unwrap_or_else(|| agent.clone());
        Reader::new(file, key, agent_id, session_id, None)
    }

    fn entry(
        &mut self,
        reader: Option<&mut Reader>,
        line: u64,
        at: Option<i64>,
        bytes: u64,
    ) -> Result<(), Halt> {
        let Some(reader) = reader else {
            return Err(CoreError::new(Code::Internal, "an entry came before its transcript").into());
        };
        let max = self.outlet.max_event_bytes;
        let mut entry = (&mut self.stdout).take(bytes.saturating_add(1));
        if bytes > max as u64 {
            io::copy(&mut entry, &mut io::sink()).map_err(unreadable)?;
            self.outlet.skip(&reader.file, line, too_long(bytes, max))?;
        } else {
            let mut text = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0) + 1);
            entry.read_to_end(&mut text).map_err(unreadable)?;
            if text.len() as u64 != bytes + 1 {
                // The child has gone; its next message is the end.
                return Ok(());
            }
            text.pop();
            reader.line(line, &text, true, at, self.outlet)?;
        }
        self.read += bytes;
        if self.total > 0 {
            let share =
                u128::from(self.source.database_bytes) * u128::from(self.read) / u128::from(self.total);
            let share = u64::try_from(share).unwrap_or(u64::MAX).min(self.source.database_bytes);
            self.outlet.done(self.before + share);
        }
        Ok(())
    }
}

#[allow(clippy::needless_pass_by_value)]
fn unreadable(error: io::Error) -> Halt {
    CoreError::new(Code::Io, format!("cannot read from the reading process: {error}")).caused_by(error).into()
}
