//! The event store against death, power cuts, failing disks and damage.
//!
//! Children are this same program: the ignored test [`child`] does what its environment says. `OPENCLAW_SOAK=1` makes
//! every test long; `OPENCLAW_CORE_SEED` repeats one.
#![cfg(target_os = "linux")]
// The lints are those of code that users run; here a failed step is a failed test.
#![allow(
    clippy::assigning_clones,
    clippy::decimal_bitwise_operands,
    clippy::duration_suboptimal_units,
    clippy::elidable_lifetime_names,
    clippy::manual_is_multiple_of,
    clippy::single_match_else,
    clippy::semicolon_if_nothing_returned,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss
)]

mod damage;
mod durability;
mod faults;
mod kill;
mod locks;
mod model;
mod power;
mod soak;
mod work;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use openclaw_core::events::{EventStore, Options};

/// What a child does, by `CHILD_TASK`.
#[test]
#[ignore = "run by the other tests, as their child"]
fn child() {
    let folder = PathBuf::from(std::env::var("CHILD_FOLDER").unwrap());
    let task = std::env::var("CHILD_TASK").unwrap();
    let words: Vec<&str> = task.split(' ').collect();
    match *words {
        ["work", run, plan] => work::work(&folder, run.parse().unwrap(), work::Plan::parse(plan)),
        ["power", shard, shards, cases, seed, interval] => power::replay(
            &folder,
            shard.parse().unwrap(),
            shards.parse().unwrap(),
            cases.parse().unwrap(),
            seed.parse().unwrap(),
            interval != "0",
        ),
        ["fault"] => faults::work(&folder),
        ["damage", from, to, seed] => {
            damage::cases(&folder, from.parse().unwrap(), to.parse().unwrap(), seed.parse().unwrap());
        }
        ["soak", events] => soak::work(&folder, events.parse().unwrap()),
        ["groups"] => durability::work(&folder),
        ["interval"] => durability::interval(&folder),
        ["hold"] => locks::hold(&folder),
        ["stream", millis] => locks::stream(&folder, millis.parse().unwrap()),
        _ => panic!("no such task: {task}"),
    }
    say("over");
}

/// Tells the parent a line, in one write, so that death leaves no half of it; and the record, if there is one.
fn say(line: &str) {
    let text = format!("\n>{line}\n");
    let bytes = text.as_bytes();
    assert_eq!(rustix::io::write(std::io::stdout(), bytes).unwrap(), bytes.len());
    mark(line);
}

/// A mark for the shim.
fn mark(line: &str) {
    let _ = std::fs::remove_dir(format!("/mark:{line}"));
}

fn command(task: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env("CHILD_TASK", task).env("CHILD_FOLDER", folder).env("RUST_BACKTRACE", "0");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A child whose lines are read as they come.
struct Running {
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
    ended: bool,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (to, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            out.split(b'\n')
                .map_while(Result::ok)
                .map(|line| String::from_utf8_lossy(&line).into_owned())
                .take_while(|line| to.send(line.clone()).is_ok())
                .for_each(drop);
        });
        let (to, errors) = channel();
        let err = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            let all: Vec<u8> = err.split(b'\n').map_while(Result::ok).collect::<Vec<_>>().join(&b'\n');
            let _ = to.send(String::from_utf8_lossy(&all).into_owned());
        });
        Self { child, lines, errors, ended: false }
    }

    /// The next line; none if the child is silent for so long, or has ended.
    fn line(&mut self, patience: Duration) -> Option<String> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.ended = true;
                None
            }
        }
    }

    /// The next line that [`say`] said.
    fn said(&mut self, patience: Duration) -> Option<String> {
        let until = Instant::now() + patience;
        loop {
            let line = self.line(until.saturating_duration_since(Instant::now()))?;
            if let Some(said) = line.strip_prefix('>') {
                return Some(said.to_owned());
            }
        }
    }

    /// Ends the child, and gives the lines that were still on the way.
    fn kill(mut self) -> (Vec<String>, std::process::ExitStatus) {
        let _ = self.child.kill();
        let status = self.child.wait().unwrap();
        (self.lines.iter().collect(), status)
    }

    fn stderr(&self) -> String {
        let text = self.errors.recv_timeout(Duration::from_secs(5)).unwrap_or_default();
        text.chars().rev().take(40000).collect::<String>().chars().rev().collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The library that stands between a child and its files, compiled once a run.
fn shim() -> &'static Path {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shim.c");
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("events_crash_shim.so");
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .status()
            .expect("these tests need the C compiler that Rust links with");
        assert!(status.success(), "the shim does not compile");
        library
    })
}

/// One heavy test at a time: each uses both cores by itself, and time limits should not depend on the others.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn soaking() -> bool {
    std::env::var_os("OPENCLAW_SOAK").is_some()
}

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("events-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A folder in memory, if there is such, for what is about bytes and not about the disk.
fn folder_in_memory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let built = tempfile::Builder::new().prefix("events-").tempdir_in(memory);
    built.unwrap_or_else(|_| folder())
}

fn options() -> Options {
    Options { cache_bytes: 8 << 20, ..Options::default() }
}

fn open(folder: &Path) -> EventStore {
    EventStore::open(folder, options()).unwrap()
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    });
    runtime.block_on(future)
}

/// Chance that can be repeated.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn seeded(salt: u64) -> Self {
        let seed = std::env::var("OPENCLAW_CORE_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or(0x2026_1107);
        println!("OPENCLAW_CORE_SEED={seed}");
        Self::new(seed ^ (salt << 32))
    }

    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap()
    }
}
