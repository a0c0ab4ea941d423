//! Edits against each other, against death, and against a failing disk.
//!
//! The children are this same program: the ignored test [`child`] does what its environment says.

// The lints are those of code that users run; here a failed step is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use openclaw_core::config::{Change, Config, ConfigOptions, Edit, EditOptions, json5};
use openclaw_core::{Code, CoreError};
use tokio_util::sync::CancellationToken;

// ── a config and its edits ───────────────────────────────────────────────────────────────────────────────────────

struct Fixture {
    _folder: tempfile::TempDir,
    config: PathBuf,
}

impl Fixture {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().canonicalize().unwrap().join("openclaw.json");
        fs::write(&config, text).unwrap();
        Self { _folder: folder, config }
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        PathBuf::from(format!("{}{suffix}", self.config.display()))
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.config).unwrap()
    }

    /// What is in the folder beside the config and its backups.
    fn litter(&self) -> Vec<String> {
        let names = fs::read_dir(self.config.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name());
        let mut names: Vec<_> = names
            .map(|name| name.into_string().unwrap())
            .filter(|name| name != "openclaw.json" && !name.starts_with("openclaw.json.bak"))
            .collect();
        names.sort();
        names
    }

    fn child(&self, task: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["child", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env("CHILD_TASK", task).env("CHILD_CONFIG", &self.config).env("RUST_BACKTRACE", "0");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

fn load(config: &Path) -> Result<Config, CoreError> {
    Config::load(ConfigOptions {
        path: Some(config.to_str().unwrap().to_owned()),
        env: Some([("HOME".to_owned(), "/".to_owned())].into_iter().collect()),
        ..ConfigOptions::default()
    })
}

fn set(path: &str, value: &str) -> Edit {
    let value = json5::parse(value.as_bytes(), 0).unwrap().value;
    Edit { path: path.to_owned(), change: Change::Set(value) }
}

fn commit(config: &Config, edits: &[Edit]) -> Result<Config, CoreError> {
    config.edit(edits, EditOptions::default(), &CancellationToken::new())
}

fn number(config: &Config, path: &str) -> Option<u64> {
    let json = config.get(path).unwrap()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small counts")]
    Some(json.text.parse::<f64>().unwrap() as u64)
}

// ── the child ────────────────────────────────────────────────────────────────────────────────────────────────────

/// What a child does, by `CHILD_TASK`; its last line begins with `child: `.
#[test]
#[ignore = "run by the other tests, as their child"]
fn child() {
    let config = PathBuf::from(std::env::var("CHILD_CONFIG").unwrap());
    let task = std::env::var("CHILD_TASK").unwrap();
    let words: Vec<&str> = task.split(' ').collect();
    let answer = match *words {
        ["append", name, edits] => append(&config, name, edits.parse().unwrap()),
        ["edit", path, value] => {
            let loaded = load(&config).unwrap();
            // The marks that the shim waits for.
            let _ = fs::remove_dir("/strike-on");
            let outcome = commit(&loaded, &[set(path, value)]);
            let _ = fs::remove_dir("/strike-off");
            outcome.map_or_else(|error| format!("{} {error}", error.code()), |_| "done".to_owned())
        }
        ["fill-disk"] => fill_disk(&config),
        _ => panic!("no such task: {task}"),
    };
    println!("\nchild: {answer}");
}

/// Adds entries to a chain: each edit takes the counter's next number, and says which it took.
fn append(config: &Path, name: &str, edits: u64) -> String {
    let (mut conflicts, mut last) = (0_u64, 0);
    for nth in 0..edits {
        loop {
            let current = load(config).unwrap();
            let next = number(&current, "counter").unwrap() + 1;
            let step = format!("{next}");
            match commit(&current, &[set("counter", &step), set(&format!("log.{name}[{nth}]"), &step)]) {
                Ok(after) => {
                    assert_eq!(number(&after, "counter"), Some(next));
                    assert!(next > last, "the chain went back");
                    last = next;
                    break;
                }
                // Fifty that wait for one lock may be more than a busy machine lets through in its time.
                Err(error) if error.code() == Code::Timeout => {}
                Err(error) => {
                    assert_eq!(error.code(), Code::ConfigConflict, "{error}");
                    assert_ne!(error.details().revision.as_deref(), Some(current.revision()));
                    conflicts += 1;
                }
            }
        }
    }
    format!("{conflicts} conflicts")
}

fn answer(output: &Output) -> Option<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().rev().find_map(|line| line.strip_prefix("child: ")).map(ToOwned::to_owned)
}

// ── against each other ───────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn fifty_processes_with_twenty_edits_each_end_as_one_serial_order() {
    const PROCESSES: u64 = 50;
    const EDITS: u64 = 20;
    let logs = (0..PROCESSES).map(|n| format!("    p{n}: [],\n")).collect::<Vec<_>>().concat();
    let fixture = Fixture::new(&format!("// kept\n{{\n  counter: 0,\n  log: {{\n{logs}  }},\n}}\n"));
    let children: Vec<_> =
        (0..PROCESSES).map(|n| fixture.child(&format!("append p{n} {EDITS}")).spawn().unwrap()).collect();

    let running = AtomicBool::new(true);
    let (reads, conflicts) = std::thread::scope(|scope| {
        // Meanwhile the file is always there, always whole, and never goes back.
        let reader = scope.spawn(|| {
            let (mut reads, mut last) = (0_u64, 0);
            while running.load(Ordering::Relaxed) {
                let counter = number(&load(&fixture.config).unwrap(), "counter").unwrap();
                assert!(counter >= last, "the counter went from {last} to {counter}");
                (reads, last) = (reads + 1, counter);
                std::thread::sleep(Duration::from_millis(5));
            }
            reads
        });
        let mut conflicts = 0_u64;
        let mut failed = Vec::new();
        for child in children {
            let output = child.wait_with_output().unwrap();
            match answer(&output).filter(|_| output.status.success()) {
                Some(answer) => conflicts += answer.split(' ').next().unwrap().parse::<u64>().unwrap(),
                None => failed.push(String::from_utf8_lossy(&output.stderr).into_owned()),
            }
        }
        running.store(false, Ordering::Relaxed);
        assert!(failed.is_empty(), "{failed:?}");
        (reader.join().unwrap(), conflicts)
    });

    let config = load(&fixture.config).unwrap();
    assert_eq!(number(&config, "counter"), Some(PROCESSES * EDITS));
    // Each number of the chain was taken by exactly one edit, and by each process in its own order.
    let mut order = BTreeMap::new();
    for process in 0..PROCESSES {
        let mut last = 0;
        for nth in 0..EDITS {
            let step = number(&config, &format!("log.p{process}[{nth}]")).expect("an edit is lost");
            assert!(step > last, "p{process} is out of order");
            last = step;
            assert_eq!(order.insert(step, (process, nth)), None, "two edits took {step}");
        }
    }
    assert!(order.keys().copied().eq(1..=PROCESSES * EDITS));
    assert!(fixture.text().starts_with("// kept\n"));
    assert_eq!(fixture.litter(), Vec::<String>::new());
    println!("{} edits, {conflicts} conflicts retried, {reads} reads in between", PROCESSES * EDITS);
    assert!(conflicts > 0, "the processes never met: nothing was tested");
}

// ── whose lock it is ─────────────────────────────────────────────────────────────────────────────────────────────

fn edit_now(fixture: &Fixture) {
    let started = Instant::now();
    let config = load(&fixture.config).unwrap();
    let next = number(&config, "n").unwrap() + 1;
    commit(&config, &[set("n", &next.to_string())]).unwrap();
    assert_eq!(number(&load(&fixture.config).unwrap(), "n"), Some(next));
    // Far below the patience of a writer that waits for a living holder.
    assert!(started.elapsed() < Duration::from_secs(10), "the edit waited for a holder that is gone");
    assert_eq!(fixture.litter(), Vec::<String>::new());
}

fn make_old(path: &Path) {
    let file = fs::File::open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_mins(2)).unwrap();
}

#[test]
fn a_lock_file_that_nobody_holds_does_not_stop_an_edit() {
    let fixture = Fixture::new("{n: 0}");
    let me = std::process::id();
    let lock = fixture.beside(".lock");
    for (owner, why) in [
        (format!("{{\"pid\": {me}, \"holder\": \"@openclaw/core\"}}"), "a core that executed itself anew"),
        (
            "{\"pid\": 1, \"holder\": \"@openclaw/core\", \"starttime\": 1}".into(),
            "process 1 of another container",
        ),
        ("{\"pid\": 4194303, \"createdAt\": \"2026-01-01T00:00:00.000Z\"}".into(), "a dead process"),
        ("{\"pid\": 4294967295}".into(), "no process at all"),
        #[cfg(target_os = "linux")]
        (format!("{{\"pid\": {me}, \"starttime\": 12}}"), "an id that is used again"),
    ] {
        println!("{why}");
        fs::write(&lock, owner + "\n\t\t \n").unwrap();
        edit_now(&fixture);
    }
    // A death between creating and filling.
    fs::write(&lock, "").unwrap();
    make_old(&lock);
    edit_now(&fixture);
    // Deaths in the midst of a takeover: stock's sign, and ours.
    fs::create_dir(fixture.beside(".lock.reclaim")).unwrap();
    make_old(&fixture.beside(".lock.reclaim"));
    edit_now(&fixture);
    fs::write(fixture.beside(".lock.reclaim"), "").unwrap();
    fs::write(&lock, "{\"pid\": 4194303}").unwrap();
    edit_now(&fixture);
    // What a killed writer leaves.
    for name in ["next", "bak", "lock", "flock"] {
        fs::write(fixture.config.with_file_name(format!(".openclaw.json.core-{name}")), "{half").unwrap();
    }
    edit_now(&fixture);
}

#[test]
fn an_edit_waits_for_a_living_holder_and_stops_waiting_when_it_is_cancelled() {
    let fixture = Fixture::new("{n: 0}");
    let lock = fixture.beside(".lock");
    let owner = format!("{{\"pid\": {}}}", std::process::id());
    fs::write(&lock, &owner).unwrap();
    let config = load(&fixture.config).unwrap();

    let cancel = CancellationToken::new();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| config.edit(&[set("n", "1")], EditOptions::default(), &cancel));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!waiting.is_finished(), "the edit did not wait");
        cancel.cancel();
        assert_eq!(waiting.join().unwrap().unwrap_err().code(), Code::Timeout);
    });
    assert_eq!((fixture.text().as_str(), fs::read_to_string(&lock).unwrap()), ("{n: 0}", owner));

    let released = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (config, seen) = (&config, &released);
        let waiting = scope.spawn(move || {
            let outcome = commit(config, &[set("n", "1")]);
            (outcome, seen.load(Ordering::SeqCst))
        });
        std::thread::sleep(Duration::from_millis(100));
        released.store(true, Ordering::SeqCst);
        fs::remove_file(&lock).unwrap();
        let (outcome, after) = waiting.join().unwrap();
        outcome.unwrap();
        assert!(after, "the edit did not wait for the holder");
    });
    assert_eq!(fixture.litter(), Vec::<String>::new());
}

#[test]
fn what_is_no_lock_file_is_reported_and_not_removed() {
    let fixture = Fixture::new("{n: 0}");
    fs::create_dir(fixture.beside(".lock")).unwrap();
    let error = commit(&load(&fixture.config).unwrap(), &[set("n", "1")]).unwrap_err();
    assert!(error.code() == Code::Io && error.message().contains("not a regular file"), "{error}");
    assert_eq!((fixture.text(), fixture.litter()), ("{n: 0}".into(), vec!["openclaw.json.lock".to_owned()]));
}

// ── against death and a failing disk ─────────────────────────────────────────────────────────────────────────────

fn fill_disk(config: &Path) -> String {
    let ballast = config.with_file_name("ballast");
    let long = format!("'{}'", "x".repeat(20_000));
    fs::write(config, "{n: 0, keep: 1}").unwrap();
    let loaded = load(config).unwrap();
    let mut full = fs::File::create(&ballast).unwrap();
    while std::io::Write::write(&mut full, &[0; 4096]).is_ok() {}
    let error = commit(&loaded, &[set("n", &long)]).unwrap_err();
    let text = fs::read_to_string(config).unwrap();
    let names: Vec<_> = fs::read_dir(config.parent().unwrap())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    let intact = text == "{n: 0, keep: 1}" && names.len() == 2;
    drop(full);
    fs::remove_file(&ballast).unwrap();
    commit(&loaded, &[set("n", &long)]).unwrap();
    format!("{} intact={intact} {error}", error.code())
}

#[cfg(target_os = "linux")]
mod struck {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::sync::OnceLock;

    const OLD: &str = "// kept\n{\n  n: 0, // n\n  filler: 'abcdefghijklmnopqrstuvwxyz',\n}\n";
    const NEW: &str = "// kept\n{\n  n: 1, // n\n  filler: 'abcdefghijklmnopqrstuvwxyz',\n}\n";

    /// The library that strikes, compiled once a run.
    fn shim() -> &'static Path {
        static SHIM: OnceLock<PathBuf> = OnceLock::new();
        SHIM.get_or_init(|| {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shim.c");
            let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("config_commit_shim.so");
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

    /// Runs one edit of `n` with a strike at a call. Calls are told on the child's standard error.
    fn strike(fixture: &Fixture, at: usize, what: &str) -> Output {
        fixture
            .child("edit n 1")
            .env("LD_PRELOAD", shim())
            .env("STRIKE_DIR", fixture.config.parent().unwrap())
            .env("STRIKE_AT", at.to_string())
            .env("STRIKE_DO", what)
            .env("STRIKE_FD", "2")
            .output()
            .unwrap()
    }

    /// The calls of an edit, as `create .openclaw.json.core-next` and the like.
    fn calls(output: &Output) -> Vec<String> {
        let text = String::from_utf8_lossy(&output.stderr);
        text.lines()
            .filter_map(|line| line.split_once(' ').filter(|(nth, _)| nth.parse::<usize>().is_ok()))
            .map(|(_, call)| call.to_owned())
            .collect()
    }

    fn all_calls() -> Vec<String> {
        let fixture = Fixture::new(OLD);
        let output = strike(&fixture, 0, "count");
        assert_eq!(answer(&output).as_deref(), Some("done"), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(fixture.text(), NEW);
        let calls = calls(&output);
        for step in [
            "lock .openclaw.json.core-flock",
            "link openclaw.json.lock",
            "write .openclaw.json.core-next",
            "fsync .openclaw.json.core-next",
            "fsync .openclaw.json.core-bak",
            "rename openclaw.json.bak",
            "rename openclaw.json",
            "unlink openclaw.json.lock",
        ] {
            assert!(calls.iter().any(|call| call == step), "the shim does not see `{step}`: {calls:?}");
        }
        let replaced = calls.iter().position(|call| call == "rename openclaw.json").unwrap();
        let folder =
            format!("fsync {}", fixture.config.parent().unwrap().file_name().unwrap().to_str().unwrap());
        assert!(calls[replaced..].contains(&folder), "the folder is not synced: {calls:?}");
        calls
    }

    fn kind(call: &str) -> &str {
        call.split(' ').next().unwrap()
    }

    #[test]
    fn death_at_any_point_of_a_write_leaves_the_old_file_or_the_new_one_and_no_lock() {
        const KILLS: usize = 600;
        let calls = all_calls();
        let mut random: u64 = std::env::var("OPENCLAW_CORE_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or(0x2026_0906);
        println!("OPENCLAW_CORE_SEED={random}, {} calls in a write", calls.len());
        let mut draw = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random % below as u64).unwrap()
        };
        let (mut phases, mut old, mut new) = (BTreeMap::<String, usize>::new(), 0, 0);
        let fixture = Fixture::new(OLD);
        for kill in 0..KILLS {
            fs::write(&fixture.config, OLD).unwrap();
            let at = draw(calls.len()) + 1;
            let what = ["kill:before", "kill:half", "kill:after"][draw(3)];
            let output = strike(&fixture, at, what);
            let place = format!("kill {kill}: {what} at {at}, {}", calls[at - 1]);
            assert_eq!(output.status.signal(), Some(9), "{place}: {output:?}");
            match fixture.text().as_str() {
                OLD => old += 1,
                NEW => new += 1,
                other => panic!("{place}: the file holds {other:?}"),
            }
            let folder = fixture.config.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
            let call = calls[at - 1].clone();
            let call = if call.starts_with("fsync") && !call.contains("core-") {
                "fsync folder".into()
            } else {
                call
            };
            *phases.entry(call.replace(&folder, "folder")).or_default() += 1;
            // The next writer is not held up, and cleans up.
            edit_now(&fixture);
        }
        println!("{KILLS} kills: {old} left the old file, {new} the new one");
        for (phase, count) in &phases {
            println!("  {count:4}  {phase}");
        }
        assert!(old > 0 && new > 0, "all kills fell on one side of the commit");
        for phase in ["create", "write", "fsync", "rename", "link", "lock", "unlink"] {
            assert!(phases.keys().any(|call| kind(call) == phase), "no kill hit a {phase}");
        }
    }

    #[test]
    fn a_disk_that_fails_at_any_call_leaves_the_old_file_a_typed_error_and_nothing_else() {
        let calls = all_calls();
        let mut failures = 0;
        for (nth, call) in calls.iter().enumerate() {
            for (what, name) in
                [("errno:28", "ENOSPC"), ("errno:5", "EIO"), ("errno:30", "EROFS"), ("short", "short write")]
            {
                if what == "short" && kind(call) != "write" {
                    continue;
                }
                let fixture = Fixture::new(OLD);
                let output = strike(&fixture, nth + 1, what);
                let place = format!("{name} at {call}");
                let answer = answer(&output).unwrap_or_else(|| panic!("{place}: {output:?}"));
                if answer == "done" {
                    // Only cleaning up may fail in silence; the next writer catches up on it.
                    assert!(matches!(kind(call), "unlink" | "unlock" | "open"), "{place} went unnoticed");
                    assert_eq!(fixture.text(), NEW, "{place}");
                } else {
                    failures += 1;
                    assert!(answer.starts_with("IO "), "{place}: {answer}");
                    assert_eq!(fixture.text(), OLD, "{place}");
                    let left: &[&str] = match kind(call) {
                        // Without the lock it cannot be known who else uses its file, which is empty.
                        "lock" => &[".openclaw.json.core-flock"],
                        _ => &[],
                    };
                    // What cannot be removed stays, and the next writer removes it.
                    if kind(call) != "unlink" {
                        assert_eq!(fixture.litter(), left, "{place}");
                    }
                }
                edit_now(&fixture);
            }
        }
        println!("{failures} failures over {} calls", calls.len());
        assert!(failures > 3 * 10);
    }

    #[test]
    fn a_full_disk_leaves_the_old_file_and_an_edit_succeeds_once_there_is_room() {
        let fixture = Fixture::new("");
        let folder = fixture.config.parent().unwrap().to_owned();
        let mount = ["-rm", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs \"$0\" && exec \"$@\""];
        let possible = Command::new("unshare").args(mount).arg(&folder).arg("true").output();
        if !possible.as_ref().is_ok_and(|output| output.status.success()) {
            println!("skipped: this machine does not let us mount a small file system: {possible:?}");
            return;
        }
        let child = fixture.child("fill-disk");
        let output = Command::new("unshare")
            .args(mount)
            .arg(&folder)
            .arg(child.get_program())
            .args(child.get_args())
            .envs(child.get_envs().filter_map(|(key, value)| Some((key, value?))))
            .output()
            .unwrap();
        let answer = answer(&output).unwrap_or_else(|| panic!("{output:?}"));
        assert!(answer.starts_with("IO intact=true "), "{answer}");
    }
}
