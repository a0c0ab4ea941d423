//! The credential store against death, a failing disk, and many writers.
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

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use openclaw_core::secrets::{CredentialStore, KeySource, Secret};
use openclaw_core::{Code, CoreError};

/// A folder with a key file and a store beside it.
struct Fixture {
    _folder: tempfile::TempDir,
    root: PathBuf,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        Self { _folder: folder, root }
    }

    fn filled() -> Self {
        let fixture = Self::new();
        let store = fixture.open(&fixture.key("key")).unwrap();
        for (name, value) in ENTRIES {
            store.set(name, &Secret::copy_of(value.as_bytes())).unwrap();
        }
        fixture
    }

    fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    fn key(&self, name: &str) -> KeySource {
        KeySource::KeyFile(self.root.join(name))
    }

    fn open(&self, key: &KeySource) -> Result<CredentialStore, CoreError> {
        CredentialStore::open(&self.store(), key)
    }

    fn child(&self, task: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["child", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env("CHILD_TASK", task).env("CHILD_ROOT", &self.root).env("RUST_BACKTRACE", "0");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

const ENTRIES: [(&str, &str); 3] = [("a", "first secret"), ("b/c", "second secret"), ("d", "third secret")];

fn value(store: &CredentialStore, name: &str) -> Option<String> {
    store.get(name).unwrap().map(|secret| secret.expose_str().unwrap().to_owned())
}

/// What a child does, by `CHILD_TASK`; its last line begins with `child: `.
#[test]
#[ignore = "run by the other tests, as their child"]
fn child() {
    let root = PathBuf::from(std::env::var("CHILD_ROOT").unwrap());
    let task = std::env::var("CHILD_TASK").unwrap();
    let key = |name: &str| KeySource::KeyFile(root.join(name));
    let open = || CredentialStore::open(&root.join("store"), &key("key"));
    let struck = |work: &dyn Fn() -> Result<(), CoreError>| {
        // The marks that the shim waits for.
        let _ = fs::remove_dir("/strike-on");
        let outcome = work();
        let _ = fs::remove_dir("/strike-off");
        outcome.map_or_else(|error| format!("{} {error}", error.code()), |()| "done".to_owned())
    };
    // Whatever came of it, who has the store open goes on with it.
    let usable = |store: &CredentialStore| assert_eq!(value(store, "a").as_deref(), Some("first secret"));
    let words: Vec<&str> = task.split(' ').collect();
    let answer = match *words {
        ["create"] => struck(&|| open().map(drop)),
        ["set", name, value] => {
            let store = open().unwrap();
            let answer = struck(&|| store.set(name, &Secret::copy_of(value.as_bytes())));
            usable(&store);
            answer
        }
        ["rotate", next] => {
            let store = open().unwrap();
            let answer = struck(&|| store.rotate_key(&key(next)));
            usable(&store);
            answer
        }
        ["count", name, times] => {
            let store = open().unwrap();
            for nth in 0..times.parse::<u32>().unwrap() {
                store.set(&format!("{name}/{nth}"), &Secret::copy_of(name.as_bytes())).unwrap();
                store
                    .update(|entries| {
                        let before = entries
                            .get("counter")?
                            .map_or(0, |count| count.expose_str().unwrap().parse::<u32>().unwrap());
                        entries.set("counter", &Secret::from_bytes((before + 1).to_string().into_bytes()))
                    })
                    .unwrap();
                if nth % 5 == 4 {
                    assert!(store.delete(&format!("{name}/{}", nth - 1)).unwrap());
                }
            }
            "done".into()
        }
        _ => panic!("no such task: {task}"),
    };
    println!("\nchild: {answer}");
}

fn answer(output: &Output) -> Option<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().rev().find_map(|line| line.strip_prefix("child: ")).map(ToOwned::to_owned)
}

#[test]
fn sixteen_processes_that_write_at_once_lose_nothing() {
    const PROCESSES: u32 = 16;
    const TIMES: u32 = 10;
    let fixture = Fixture::new();
    // None of them finds a store: they create it, and its key file, together.
    let children: Vec<_> =
        (0..PROCESSES).map(|n| fixture.child(&format!("count p{n} {TIMES}")).spawn().unwrap()).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert_eq!(answer(&output).as_deref(), Some("done"), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let store = fixture.open(&fixture.key("key")).unwrap();
    assert_eq!(value(&store, "counter"), Some((PROCESSES * TIMES).to_string()));
    for n in 0..PROCESSES {
        for nth in 0..TIMES {
            let expected = (nth % 5 != 3).then(|| format!("p{n}"));
            assert_eq!(value(&store, &format!("p{n}/{nth}")), expected, "p{n}/{nth}");
        }
    }
    // One for the creation; each write is one generation.
    let writes = 1 + PROCESSES * (2 * TIMES + TIMES / 5);
    assert_eq!(store.generation().unwrap(), u64::from(writes));
}

#[test]
fn threads_of_one_process_take_turns_and_readers_need_none() {
    let fixture = Fixture::filled();
    let store = fixture.open(&fixture.key("key")).unwrap();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let store = store.clone();
            scope.spawn(move || {
                for nth in 0..10 {
                    store.set(&format!("t{n}"), &Secret::copy_of(&[nth + 1])).unwrap();
                    assert_eq!(store.get(&format!("t{n}")).unwrap().unwrap().expose(), [nth + 1]);
                    assert_eq!(value(&store, "a").as_deref(), Some("first secret"));
                }
            });
        }
    });
    assert_eq!(store.list().unwrap().len(), 3 + 8);
    // While another holds the writers' lock, reading goes on.
    let lock = fs::File::options().write(true).open(fixture.store().join("LOCK")).unwrap();
    lock.lock().unwrap();
    assert_eq!(value(&fixture.open(&fixture.key("key")).unwrap(), "d").as_deref(), Some("third secret"));
}

#[cfg(target_os = "linux")]
mod struck {
    use super::*;
    use std::collections::BTreeMap;
    use std::os::unix::process::ExitStatusExt;
    use std::sync::OnceLock;

    /// The library that strikes, compiled once a run.
    fn shim() -> &'static Path {
        static SHIM: OnceLock<PathBuf> = OnceLock::new();
        SHIM.get_or_init(|| {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shim.c");
            let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("secrets_shim.so");
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

    fn strike(fixture: &Fixture, task: &str, at: usize, what: &str) -> Output {
        fixture
            .child(task)
            .env("LD_PRELOAD", shim())
            .env("STRIKE_DIR", &fixture.root)
            .env("STRIKE_AT", at.to_string())
            .env("STRIKE_DO", what)
            .env("STRIKE_FD", "2")
            .output()
            .unwrap()
    }

    fn calls(fixture: &Fixture, task: &str) -> Vec<String> {
        let output = strike(fixture, task, 0, "count");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(answer(&output).as_deref(), Some("done"), "{errors}");
        let calls: Vec<_> = errors
            .lines()
            .filter_map(|line| line.split_once(' ').filter(|(nth, _)| nth.parse::<usize>().is_ok()))
            .map(|(_, call)| call.to_owned())
            .collect();
        for step in [
            "lock LOCK",
            "write credentials.vault.next",
            "fsync credentials.vault.next",
            "rename credentials.vault",
            "fsync store",
        ] {
            assert!(
                calls.iter().any(|call| call == step),
                "{task}: the shim does not see `{step}`: {calls:?}"
            );
        }
        calls
    }

    /// The key that opens the store; exactly one of those given, by its name.
    fn opened_by<'a>(fixture: &Fixture, keys: &[&'a str], place: &str) -> (&'a str, CredentialStore) {
        let mut opened: Vec<_> = keys
            .iter()
            .filter(|key| fixture.root.join(key).exists())
            .filter_map(|key| match fixture.open(&fixture.key(key)) {
                Ok(store) => Some((*key, store)),
                Err(error) => {
                    assert_eq!(error.code(), Code::CredentialKey, "{place}: {error}");
                    None
                }
            })
            .collect();
        assert_eq!(opened.len(), 1, "{place}: opened by {opened:?}");
        opened.remove(0)
    }

    fn check_entries(store: &CredentialStore, place: &str) {
        for (name, expected) in ENTRIES {
            assert_eq!(value(store, name).as_deref(), Some(expected), "{place}");
        }
    }

    #[test]
    fn death_at_every_call_of_a_rotation_leaves_the_old_key_or_the_new_one_and_every_entry() {
        let mut kills = BTreeMap::<&str, usize>::new();
        // Into a file of its own, which is made; and in place.
        for (task, keys) in [("rotate next", &["key", "next"][..]), ("rotate key", &["key"])] {
            let calls = calls(&Fixture::filled(), task);
            for (nth, call) in calls.iter().enumerate() {
                for what in ["kill:before", "kill:half", "kill:after"] {
                    let place = format!("{task}: {what} at {call}");
                    let fixture = Fixture::filled();
                    let before = fs::read(fixture.store().join("credentials.vault")).unwrap();
                    let output = strike(&fixture, task, nth + 1, what);
                    assert_eq!(output.status.signal(), Some(9), "{place}: {output:?}");
                    let (key, store) = opened_by(&fixture, keys, &place);
                    check_entries(&store, &place);
                    let changed = fs::read(fixture.store().join("credentials.vault")).unwrap() != before;
                    if keys.len() == 2 {
                        assert_eq!(changed, key == "next", "{place}");
                    }
                    *kills.entry(if changed { "new" } else { "old" }).or_default() += 1;
                    // The next writer is not held up, and cleans up.
                    store.rotate_key(&fixture.key(key)).unwrap();
                    check_entries(&fixture.open(&fixture.key(key)).unwrap(), &place);
                    assert!(!fixture.store().join("credentials.vault.next").exists(), "{place}");
                }
            }
        }
        println!("kills that left the old state and the new: {kills:?}");
        assert!(kills["old"] > 10 && kills["new"] > 2, "{kills:?}");
    }

    #[test]
    fn death_at_every_call_of_a_first_opening_or_a_write_leaves_a_store_that_opens() {
        for (task, fixture) in
            [("create", Fixture::new as fn() -> Fixture), ("set d fourth", Fixture::filled)]
        {
            for (nth, call) in calls(&fixture(), task).iter().enumerate() {
                for what in ["kill:before", "kill:half", "kill:after"] {
                    let place = format!("{task}: {what} at {call}");
                    let fixture = fixture();
                    let output = strike(&fixture, task, nth + 1, what);
                    assert_eq!(output.status.signal(), Some(9), "{place}: {output:?}");
                    let store =
                        fixture.open(&fixture.key("key")).unwrap_or_else(|error| panic!("{place}: {error}"));
                    let found = value(&store, "d");
                    if task == "create" {
                        assert_eq!(found, None);
                    } else {
                        assert!(
                            matches!(found.as_deref(), Some("third secret" | "fourth")),
                            "{place}: {found:?}"
                        );
                        assert_eq!(value(&store, "a").as_deref(), Some("first secret"), "{place}");
                    }
                    store.set("after", &Secret::copy_of(b"x")).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_call_that_fails_gives_a_typed_error_and_what_was_refused_was_not_done() {
        let mut failures = 0;
        for (task, keys) in [("set d fourth", &["key"][..]), ("rotate next", &["key", "next"])] {
            for (nth, call) in calls(&Fixture::filled(), task).iter().enumerate() {
                for (what, name) in [
                    ("errno:28", "ENOSPC"),
                    ("errno:5", "EIO"),
                    ("errno:24", "EMFILE"),
                    ("on:5", "EIO from here on"),
                    ("short", "short write"),
                ] {
                    if what == "short" && !call.starts_with("write") {
                        continue;
                    }
                    let place = format!("{task}: {name} at {call}");
                    let fixture = Fixture::filled();
                    let output = strike(&fixture, task, nth + 1, what);
                    let answer = answer(&output).unwrap_or_else(|| panic!("{place}: {output:?}"));
                    if answer != "done" {
                        failures += 1;
                        assert!(
                            answer.starts_with("IO ") || answer.starts_with("CREDENTIAL_KEY "),
                            "{place}: {answer}"
                        );
                        assert!(
                            !answer.contains("secret") && !answer.contains("fourth"),
                            "{place}: {answer}"
                        );
                    }
                    let done = answer == "done";
                    let (key, store) = opened_by(&fixture, keys, &place);
                    assert!(
                        keys.len() == 1 || key == if done { "next" } else { "key" },
                        "{place}: {key}, {answer}"
                    );
                    let expected = if done && task == "set d fourth" { "fourth" } else { "third secret" };
                    assert_eq!(value(&store, "d").as_deref(), Some(expected), "{place}: {answer}");
                    store.set("d", &Secret::copy_of(b"third secret")).unwrap();
                    check_entries(&store, &place);
                }
            }
        }
        println!("{failures} failures were reported");
        assert!(failures > 20);
    }
}
