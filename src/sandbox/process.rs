//! One command in a sandbox: what it is given, what comes out of it, and when it ends.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::output::HeadAndTail;
use super::policy::{Plan, check_variable};
use super::{Backend, Limits};
use crate::runtime::blocking;
use crate::{Code, CoreError, Result};

/// A command, and what it is given.
#[derive(Clone, Default)]
pub struct Command {
    /// The program, by path or looked for in the sandbox's `PATH`, and its arguments.
    pub argv: Vec<String>,
    /// What it reads; nothing otherwise.
    pub stdin: Option<Vec<u8>>,
    /// Where it starts, in the sandbox; the workspace otherwise.
    pub cwd: Option<String>,
    /// Variables beside those of the policy, and before them.
    pub env: BTreeMap<String, String>,
    /// Gives it a terminal of its own, of 80 columns and 24 lines. All output is then on stdout.
    pub pty: bool,
}

impl Command {
    /// A program with its arguments.
    pub fn new(argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// A text for the shell.
    pub fn shell(text: impl Into<String>) -> Self {
        let shell: &[&str] = if cfg!(windows) { &["cmd.exe", "/d", "/s", "/c"] } else { &["/bin/sh", "-c"] };
        let mut command = Self::new(shell.iter().copied());
        command.argv.push(text.into());
        command
    }

    /// `SANDBOX_SPAWN` for what no system could start.
    pub(crate) fn check(&self, plan: &Plan) -> Result<()> {
        let wrong =
            |what: &str| Err(CoreError::new(Code::SandboxSpawn, format!("cannot start the command: {what}")));
        if self.argv.first().is_none_or(String::is_empty) {
            return wrong("it names no program");
        }
        if self.argv.iter().any(|argument| argument.contains('\0')) {
            return wrong("an argument holds a NUL character");
        }
        if self.cwd(plan).contains('\0') || !(cfg!(windows) || self.cwd(plan).starts_with('/')) {
            return wrong("`cwd` must be an absolute path in the sandbox");
        }
        self.env.iter().try_for_each(|(name, value)| check_variable(&format!("env.{name}"), name, value))
    }

    pub(crate) fn cwd<'a>(&'a self, plan: &'a Plan) -> &'a str {
        self.cwd.as_deref().unwrap_or(&plan.workspace)
    }

    /// The variables that it gets: the few that every command has, then the policy's, then its own.
    pub(crate) fn environment(&self, plan: &Plan) -> BTreeMap<String, String> {
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let mut env: BTreeMap<String, String> =
            [("PATH", path), ("HOME", "/tmp"), ("TMPDIR", "/tmp"), ("LANG", "C.UTF-8")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
        if self.pty {
            env.insert("TERM".to_owned(), "xterm".to_owned());
        }
        env.extend(plan.env.clone());
        env.extend(self.env.clone());
        env
    }
}

/// Which stream of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output, and everything on a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Where output goes as it comes, all of it. While its receiver does not take it, the command waits.
pub type OutputSink = mpsc::Sender<(OutputStream, Vec<u8>)>;

/// Which limit on time ended a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimedOut {
    /// `wallMs`.
    Wall,
    /// `idleMs`.
    Idle,
}

/// How a command ended, and what it used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessResult {
    /// None if a signal ended it.
    pub exit_code: Option<i32>,
    /// The signal that ended it, such as `SIGKILL`.
    pub signal: Option<String>,
    /// At most `outputBytes`: where more came, its first and its last half.
    pub stdout: Vec<u8>,
    /// The same of standard error.
    pub stderr: Vec<u8>,
    /// Bytes that are missing from the middle of the two.
    pub dropped_bytes: u64,
    /// Which limit on time ended it.
    pub timed_out: Option<TimedOut>,
    /// From start to end, in milliseconds.
    pub wall_ms: f64,
    /// CPU time of all its processes, in milliseconds.
    pub cpu_ms: f64,
    /// The most memory it had, in bytes: of all its processes where a cgroup counts it, else of the largest of them.
    pub peak_memory_bytes: u64,
}

/// What a backend tells of the end of a command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ended {
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<String>,
    pub(crate) cpu_ms: f64,
    pub(crate) peak_memory_bytes: u64,
    /// What bounded its memory and its processes.
    pub(crate) bounded_by: (String, String),
}

/// A command that a backend has started.
pub(crate) struct Started {
    /// Its output; closed when nobody can write any more.
    pub(crate) output: mpsc::Receiver<(OutputStream, Vec<u8>)>,
    /// Its end: every process is gone.
    pub(crate) end: oneshot::Receiver<Result<Ended>>,
    /// Kills every process.
    pub(crate) kill: CancellationToken,
    /// Does so when nobody waits any more.
    pub(crate) guard: DropGuard,
}

/// How long output may take to close after the end: it is only what the kernel still holds.
const DRAIN: Duration = Duration::from_secs(2);

/// Runs a command to its end.
pub(super) async fn run(
    backend: &Arc<dyn Backend>,
    plan: &Arc<Plan>,
    command: Command,
    sink: Option<OutputSink>,
    cancel: &CancellationToken,
    closed: &CancellationToken,
) -> Result<(ProcessResult, Ended)> {
    command.check(plan)?;
    let began = Instant::now();
    let (runner, its_plan) = (Arc::clone(backend), Arc::clone(plan));
    // Starting a process waits for the system.
    let mut started = blocking(move || runner.start(&its_plan, &command)).await?;
    let wall = began + Duration::from_millis(plan.limits.wall_ms);
    let mut kept = Kept::new(&plan.limits);
    let mut stopped = None;
    let mut last_output = began;
    let mut ended = None;
    let mut output_open = true;
    while ended.is_none() || output_open {
        let deadline = match &ended {
            Some((_, at)) => *at + DRAIN,
            None if stopped.is_some() => Instant::now() + Duration::from_hours(1),
            None => wall,
        };
        let idle = async {
            match plan.limits.idle_ms {
                Some(ms) if stopped.is_none() && ended.is_none() => {
                    tokio::time::sleep_until(last_output + Duration::from_millis(ms)).await;
                }
                _ => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled(), if stopped.is_none() => { stopped = Some(Stop::Cancelled); started.kill.cancel(); }
            () = closed.cancelled(), if stopped.is_none() => { stopped = Some(Stop::Closed); started.kill.cancel(); }
            end = &mut started.end, if ended.is_none() => {
                let end = end.unwrap_or_else(|_| Err(CoreError::new(Code::Internal, "a command ended without a word")));
                ended = Some((end, Instant::now()));
            }
            chunk = started.output.recv(), if output_open => match chunk {
                None => output_open = false,
                Some((stream, bytes)) => {
                    last_output = Instant::now();
                    kept.keep(stream, &bytes);
                    if let Some(sink) = &sink && stopped.is_none() {
                        // A receiver that does not take it must not keep the command alive.
                        tokio::select! {
                            biased;
                            () = cancel.cancelled() => {}
                            () = closed.cancelled() => {}
                            () = tokio::time::sleep_until(wall) => {}
                            _ = sink.send((stream, bytes)) => {}
                        }
                        last_output = Instant::now();
                    }
                }
            },
            () = tokio::time::sleep_until(deadline) => {
                if ended.is_some() { break; }
                if stopped.is_none() { stopped = Some(Stop::TimedOut(TimedOut::Wall)); started.kill.cancel(); }
            }
            () = idle => { stopped = Some(Stop::TimedOut(TimedOut::Idle)); started.kill.cancel(); }
        }
    }
    let timed_out = match stopped {
        Some(Stop::Cancelled) => return Err(CoreError::new(Code::SandboxSpawn, "the command was aborted")),
        Some(Stop::Closed) => {
            return Err(CoreError::new(Code::SandboxSpawn, "the sandbox was closed while the command ran"));
        }
        Some(Stop::TimedOut(which)) => Some(which),
        None => None,
    };
    drop(started.guard);
    let (end, at) = ended.unwrap_or_else(|| (Ok(Ended::default()), Instant::now()));
    let end = end.map_err(|error| with_words(error, &kept.stderr.head))?;
    let dropped_bytes = kept.stdout.dropped + kept.stderr.dropped;
    let result = ProcessResult {
        exit_code: end.exit_code,
        signal: end.signal.clone(),
        stdout: kept.stdout.into_bytes(),
        stderr: kept.stderr.into_bytes(),
        dropped_bytes,
        timed_out,
        wall_ms: at.duration_since(began).as_secs_f64() * 1000.0,
        cpu_ms: end.cpu_ms,
        peak_memory_bytes: end.peak_memory_bytes,
    };
    Ok((result, end))
}

/// A command that never began wrote nothing: what is on its standard error is why.
fn with_words(error: CoreError, stderr: &[u8]) -> CoreError {
    let words: String =
        String::from_utf8_lossy(stderr).trim().chars().filter(|char| !char.is_control()).take(400).collect();
    if words.is_empty() || error.code() != Code::SandboxSpawn {
        return error;
    }
    CoreError::new(Code::SandboxSpawn, format!("{}: {words}", error.message()))
}

enum Stop {
    Cancelled,
    Closed,
    TimedOut(TimedOut),
}

struct Kept {
    stdout: HeadAndTail,
    stderr: HeadAndTail,
}

impl Kept {
    fn new(limits: &Limits) -> Self {
        let most = usize::try_from(limits.output_bytes).unwrap_or(usize::MAX);
        Self { stdout: HeadAndTail::new(most), stderr: HeadAndTail::new(most) }
    }

    fn keep(&mut self, stream: OutputStream, bytes: &[u8]) {
        match stream {
            OutputStream::Stdout => self.stdout.push(bytes),
            OutputStream::Stderr => self.stderr.push(bytes),
        }
    }
}
