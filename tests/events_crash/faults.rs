//! A disk that fails.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use openclaw_core::events::EventStore;
use openclaw_core::{Code, CoreError};
use tokio_util::sync::CancellationToken;

use super::model::{self, Model};
use super::work::{self, event};
use super::{Random, Running, alone, command, folder, options, say, shim, soaking, wait};

/// A fixed course of everything. Then the disk is well again, and the store is opened anew.
pub(crate) fn work(folder: &Path) {
    let path = folder.join("store");
    let mut model = Model::default();
    course(folder, &path, &mut model);
    say("well again");
    let _ = std::fs::remove_dir("/strike-off");
    let store = EventStore::open(&path, options()).unwrap();
    if let Err(error) = model.check_whole(&store) {
        say(&format!("BAD {error}"));
    }
    wait(store.append_batch(vec![event("after", "0.after.1")])).unwrap();
    store.close_blocking().unwrap();
}

fn told(model: &mut Model, line: &str) {
    model.hear(line);
    say(line);
}

fn failed(what: &str, error: &CoreError) {
    say(&format!("failed {what}: {} {error}", error.code()));
}

fn course(folder: &Path, path: &Path, model: &mut Model) {
    let store = match EventStore::open(path, options()) {
        Ok(store) => store,
        Err(error) => return failed("open", &error),
    };
    // What failed is tried again, under the same ids, by the next append to the session.
    let mut done = BTreeMap::<&str, u64>::new();
    let mut append = |model: &mut Model, session: &'static str, count: u64| {
        let next = done.entry(session).or_insert(1);
        let events = (*next..*next + count).map(|n| event(session, &format!("0.{session}.{n}"))).collect();
        match wait(store.append_batch(events)) {
            Ok(stored) => {
                *next += count;
                for event in stored {
                    let (session, seq) = (&event.session_key, event.seq);
                    told(model, &format!("a {session} {seq} {} {}", event.id, work::hash(&event)));
                }
            }
            Err(error) => failed("append", &error),
        }
    };
    for _ in 0..6 {
        append(model, "single0", 1);
    }
    append(model, "single1", 300);
    append(model, "gone", 5);
    model.hear("deleting gone");
    match wait(store.delete_session("gone")) {
        Ok(_) => told(model, "deleted gone"),
        Err(error) => failed("delete", &error),
    }
    match std::fs::read(folder.join("peer/1")) {
        Ok(changes) => match wait(store.merge(&changes)) {
            Ok(_) => told(model, "merged 1"),
            Err(error) => failed("merge", &error),
        },
        Err(error) => panic!("{error}"),
    }
    if let Err(error) = wait(store.compact(&CancellationToken::new())) {
        failed("compact", &error);
    }
    append(model, "single0", 1);
    match wait(store.set_note("cursor", 1_u64.to_be_bytes().to_vec())) {
        Ok(()) => told(model, "note 1"),
        Err(error) => failed("note", &error),
    }
    if let Err(error) = wait(store.rebuild()) {
        failed("rebuild", &error);
    }
    append(model, "single0", 1);
    match store.close_blocking() {
        Ok(()) => say("closed"),
        Err(error) => failed("close", &error),
    }
}

fn run(base: &Path, at: usize, what: &str) -> Vec<String> {
    let _ = std::fs::remove_dir_all(base.join("store"));
    let mut child = Running::start(
        command("fault", base)
            .env("LD_PRELOAD", shim())
            .env("STRIKE_DIR", base.join("store"))
            .env("STRIKE_NOW", "1")
            .env("STRIKE_FD", "1")
            .env("STRIKE_AT", at.to_string())
            .env("STRIKE_DO", what),
    );
    let mut lines = Vec::new();
    while let Some(line) = child.line(Duration::from_secs(40)) {
        lines.push(line);
    }
    let last: Vec<_> = lines.iter().rev().take(12).rev().collect();
    assert!(child.ended, "{what} at {at}: the child hangs after {last:#?}");
    assert!(child.child.wait().unwrap().success(), "{what} at {at}: {last:#?}\n{}", child.stderr());
    if let Some(bad) = lines.iter().find(|line| line.starts_with(">BAD")) {
        panic!("{what} at {at}: {bad}\n{lines:#?}");
    }
    lines
}

/// Number and name of a call that the shim tells.
fn call(line: &str) -> Option<(usize, &str)> {
    let (number, call) = line.split_once(' ')?;
    Some((number.parse().ok()?, call))
}

#[test]
fn a_disk_that_fails_at_any_call_loses_nothing_that_was_acknowledged() {
    let _alone = alone();
    let began = Instant::now();
    let peer = folder();
    model::peer(peer.path());
    let base = |home: &tempfile::TempDir| {
        let base = home.path().canonicalize().unwrap();
        let _ = std::os::unix::fs::symlink(peer.path(), base.join("peer"));
        base
    };
    let home = folder();
    let lines = run(&base(&home), 0, "count");
    let end = lines.iter().position(|line| line == ">well again").unwrap();
    let calls: Vec<(usize, String)> =
        lines[..end].iter().filter_map(|line| call(line)).map(|(nth, call)| (nth, call.to_owned())).collect();
    assert!(lines[..end].contains(&">closed".to_owned()), "{lines:#?}");
    // Calls of one kind on one file are much alike: a few of each, spread out.
    let mut alike = BTreeMap::<String, Vec<usize>>::new();
    for (nth, call) in &calls {
        if !call.starts_with("open ") && !call.starts_with("lock ") && !call.starts_with("unlock ") {
            let kind: String = call.chars().filter(|c| !c.is_ascii_digit()).collect();
            let kind = if kind.contains("snap.") { kind.split('.').next().unwrap().to_owned() } else { kind };
            alike.entry(kind).or_default().push(*nth);
        }
    }
    let mut random = Random::seeded(3);
    let mut cases = Vec::new();
    for (kind, places) in &alike {
        let few = if soaking() { places.len() } else { 3 };
        let write = kind.starts_with("pwrite") || kind.starts_with("write");
        let faults: &[&str] = match () {
            () if write => &["short", "errno:5", "errno:28", "errno:30", "on:28", "on:5"],
            () if kind.contains("sync") => &["errno:5", "errno:28", "on:5"],
            () => &["errno:5", "errno:28", "errno:30", "on:30"],
        };
        for step in 0..few.min(places.len()) {
            let spread = places.len().div_ceil(few);
            let nth = places[(step * spread + random.below(spread)).min(places.len() - 1)];
            let faults = if soaking() { faults } else { &[faults[random.below(faults.len())]] };
            cases.extend(faults.iter().map(|fault| (nth, *fault)));
        }
    }
    let work = std::sync::Mutex::new(cases.iter());
    let outcomes = std::sync::Mutex::new(BTreeMap::<String, usize>::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let home = folder();
                let base = base(&home);
                loop {
                    let next = work.lock().unwrap().next().copied();
                    let Some((nth, fault)) = next else { break };
                    let outcome = judge(&run(&base, nth, fault), nth, fault);
                    *outcomes.lock().unwrap().entry(outcome).or_default() += 1;
                }
            });
        }
    });
    println!(
        "{} faults over {} calls of {} kinds, nothing lost; {:.1?}",
        cases.len(),
        calls.len(),
        alike.len(),
        began.elapsed()
    );
    for (outcome, count) in &*outcomes.lock().unwrap() {
        println!("  {count:4}  {outcome}");
    }
}

/// What became of a fault; an outcome that must not be fails the test.
fn judge(lines: &[String], nth: usize, fault: &str) -> String {
    let struck = lines.iter().position(|line| call(line).is_some_and(|(number, _)| number == nth));
    let place = struck.and_then(|at| call(&lines[at])).map_or("(not reached)", |(_, call)| call).to_owned();
    let place: String = place.chars().filter(|c| !c.is_ascii_digit()).collect();
    let place = if place.contains("snap.") { place.split('.').next().unwrap().to_owned() } else { place };
    let end = lines.iter().position(|line| line == ">well again").unwrap();
    let after = &lines[struck.unwrap_or(0)..end];
    let errors: Vec<&String> = after.iter().filter(|line| line.starts_with(">failed")).collect();
    for error in &errors {
        let code = error.split(": ").nth(1).unwrap().split(' ').next().unwrap();
        // The second of two failed steps finds the store closed or failed, which is an `IO` as well.
        assert!(code == Code::Io.as_str(), "{fault} at call {nth}, {place}: {error}\n{lines:#?}");
    }
    let acknowledged = after.iter().any(|line| line.starts_with(">a ") || line.starts_with(">note"));
    match (errors.is_empty(), acknowledged) {
        (true, _) => format!("{place}: unnoticed ({fault} at {nth})"),
        // A failed append is followed by one that succeeds once the database was opened anew: `run` has looked for all of them.
        (false, true) if errors.iter().any(|error| error.starts_with(">failed append")) => {
            format!("{place}: {}, then went on", errors.len())
        }
        (false, true) => format!("{place}: reported, then went on"),
        (false, false) => format!("{place}: reported, nothing more written"),
    }
}
