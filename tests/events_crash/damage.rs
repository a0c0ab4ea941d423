//! Damaged files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use openclaw_core::events::{EventStore, Range, StoredEvent, Verified};
use tokio_util::sync::CancellationToken;

use super::power::watch;
use super::work::{self, event};
use super::{Random, alone, folder_in_memory, model, open, options, say, soaking, wait};

const SESSIONS: [&str; 6] = ["single0", "single1", "batch", "late", "peer0", "peer1"];

/// A store with some of everything, closed; and beside it what is in it.
fn master(base: &Path) {
    let path = base.join("master");
    let store = open(&path);
    let append = |session: &str, from: usize, count: usize| {
        let events = (from..from + count).map(|n| event(session, &format!("0.{session}.{n}"))).collect();
        wait(store.append_batch(events)).unwrap();
    };
    for n in 1..=40 {
        append("single0", n, 1);
        append("single1", n, 1);
    }
    append("gone", 1, 30);
    append("batch", 1, 60);
    wait(store.delete_session("gone")).unwrap();
    for step in 1..=6 {
        wait(store.merge(&fs::read(base.join("peer").join(step.to_string())).unwrap())).unwrap();
    }
    wait(store.compact(&CancellationToken::new())).unwrap();
    append("single0", 41, 30);
    // Opened once more, it has a snapshot.
    store.close_blocking().unwrap();
    let store = open(&path);
    let events = (1..=20).map(|n| event("late", &format!("0.late.{n}"))).collect();
    wait(store.append_batch(events)).unwrap();
    let known: Vec<String> = SESSIONS
        .iter()
        .flat_map(|session| store.read(session, &Range::default()).unwrap())
        .map(|event| format!("{} {} {} {}", event.session_key, event.seq, event.id, work::hash(&event)))
        .collect();
    fs::write(base.join("known"), known.join("\n")).unwrap();
    store.close_blocking().unwrap();
}

#[test]
fn whatever_is_damaged_what_is_read_is_right_and_what_is_lost_is_named() {
    let _alone = alone();
    let cases = if soaking() { 20_000 } else { 1_000 };
    let began = Instant::now();
    let home = folder_in_memory();
    let base = home.path().canonicalize().unwrap();
    model::peer(&base.join("peer"));
    master(&base);
    let seed = Random::seeded(4).next();
    let figures: Vec<BTreeMap<String, usize>> = std::thread::scope(|scope| {
        let shards: Vec<_> = [(0, cases / 2), (cases / 2, cases)]
            .into_iter()
            .map(|(from, to)| {
                let base = &base;
                scope.spawn(move || watch(base, &format!("damage {from} {to} {seed}")))
            })
            .collect();
        shards.into_iter().map(|shard| shard.join().unwrap()).collect()
    });
    let mut all = BTreeMap::<String, usize>::new();
    for (outcome, count) in figures.into_iter().flatten() {
        *all.entry(outcome).or_default() += count;
    }
    println!("{cases} damaged stores in {:.1?}", began.elapsed());
    for (outcome, count) in &all {
        println!("  {count:4}  {outcome}");
    }
    assert_eq!(all.values().sum::<usize>(), cases);
    let costly = all.get(COSTLY).copied().unwrap_or(0);
    assert!(costly <= cases / 20, "{costly} of {cases}");
}

/// A small damage that cost more than it should.
const COSTLY: &str = "less than a record was damaged, and several events lost and named";

// ── the child ────────────────────────────────────────────────────────────────────────────────────────────────────

struct Known {
    session: String,
    seq: u64,
    id: String,
    hash: String,
}

pub(crate) fn cases(base: &Path, from: usize, to: usize, seed: u64) {
    let known: Vec<Known> = fs::read_to_string(base.join("known"))
        .unwrap()
        .lines()
        .map(|line| {
            let mut words = line.split(' ').map(ToOwned::to_owned);
            let mut next = || words.next().unwrap();
            Known { session: next(), seq: next().parse().unwrap(), id: next(), hash: next() }
        })
        .collect();
    for case in from..to {
        let mut random = Random::new(seed.wrapping_add(case as u64));
        let here = base.join(format!("case{from}"));
        let _ = fs::remove_dir_all(&here);
        copy(&base.join("master"), &here);
        let (what, record_sized) = harm(&here, &mut random);
        say(&format!("begin case {case} {what}"));
        let looked = std::panic::catch_unwind(|| look(&here, &known));
        match looked {
            Ok(Ok(lost)) => {
                // What is smaller than a record should cost one record at most. It does not yet where it hits a page of
                // which sled has no older copy in the file: these are counted, and bounded below.
                if record_sized && lost > 1 {
                    say(&format!("case {COSTLY}"));
                    continue;
                }
                let kind = what.split(" at ").next().unwrap();
                let lost = match lost {
                    0 => "nothing lost",
                    1 => "1 event lost and named",
                    2..10 => "2 to 9 events lost and named",
                    _ => "10 events or more lost and named",
                };
                say(&format!("case {kind}: {lost}"));
            }
            Ok(Err(error)) => say(&format!("BAD {}", error.replace('\n', " "))),
            Err(_) => say("BAD panicked"),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)
        } else {
            fs::copy(entry.path(), target).map(drop).unwrap()
        }
    }
}

fn files(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() { files(&entry.path(), all) } else { all.push(entry.path()) }
    }
}

/// Damages a store, mostly its database. What was done, and whether it is smaller than a record.
fn harm(store: &Path, random: &mut Random) -> (String, bool) {
    let mut all = Vec::new();
    files(store, &mut all);
    all.retain(|path| fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0));
    all.sort();
    let db = all.iter().find(|path| path.ends_with("db")).unwrap().clone();
    let path = if random.below(10) < 7 { db } else { all[random.below(all.len())].clone() };
    let name = path.file_name().unwrap().to_str().unwrap();
    let label = if name.starts_with("snap.") { "snap" } else { name };
    let mut bytes = fs::read(&path).unwrap();
    let is_db = label == "db";
    // Most of the file is unused: damage is to meet what is in use.
    let used = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
    let at = random.below(used.max(1));
    let kind = random.below(if is_db { 7 } else { 8 });
    let (what, small) = match kind {
        0 | 1 => {
            bytes[at] ^= 1 << random.below(8);
            ("a bit flipped", true)
        }
        2 => {
            let length = 1 + random.below(16);
            for byte in bytes.iter_mut().skip(at).take(length) {
                *byte = random.next() as u8;
            }
            ("some bytes overwritten", false)
        }
        3 => {
            let length = 1 + random.below(20_000);
            for byte in bytes.iter_mut().skip(at).take(length) {
                *byte = random.next() as u8;
            }
            ("a span overwritten", false)
        }
        4 => {
            let length = 512 * (1 + random.below(40));
            bytes.iter_mut().skip(at / 512 * 512).take(length).for_each(|byte| *byte = 0);
            ("sectors zeroed", false)
        }
        5 => {
            bytes.truncate(at);
            ("truncated", false)
        }
        6 => {
            bytes[at..].fill(0);
            ("the tail zeroed", false)
        }
        _ => {
            fs::remove_file(&path).unwrap();
            return (format!("{label} removed at all"), false);
        }
    };
    fs::write(&path, bytes).unwrap();
    (format!("{label}: {what} at {at}"), small)
}

/// Reads everything. The number of events that are lost, after what can be done was done.
fn look(folder: &Path, known: &[Known]) -> Result<usize, String> {
    let store =
        EventStore::open(folder, options()).map_err(|error| format!("open: {} {error}", error.code()))?;
    let first = verify(&store)?;
    let lost = compare(&store, known, &first, false)?;
    if lost == 0 && first.problems.is_empty() {
        store.close_blocking().map_err(|error| format!("close: {error}"))?;
        return Ok(0);
    }
    wait(store.rebuild()).map_err(|error| format!("rebuild: {error}"))?;
    let second = verify(&store)?;
    let lost = compare(&store, known, &second, true)?;
    store.close_blocking().map_err(|error| format!("close: {error}"))?;
    // What was found stays found, and can be told again.
    let store = EventStore::open(folder, options()).map_err(|error| format!("open again: {error}"))?;
    if verify(&store)?.problems != second.problems || compare(&store, known, &second, true)? != lost {
        return Err("opened again, the store says something else".into());
    }
    wait(store.append_batch(vec![event("single0", "1.single0.1")]))
        .map_err(|error| format!("append: {error}"))?;
    store.close_blocking().map_err(|error| format!("close: {error}"))?;
    Ok(lost)
}

fn verify(store: &EventStore) -> Result<Verified, String> {
    store.verify(&CancellationToken::new()).map_err(|error| format!("verify: {} {error}", error.code()))
}

/// Compares with what is known. The number of events that are lost: each must be named, after a repair by its number,
/// before one at least by its session or as what cannot be read at all.
fn compare(
    store: &EventStore,
    known: &[Known],
    verified: &Verified,
    by_number: bool,
) -> Result<usize, String> {
    let mut lost = 0;
    for session in SESSIONS {
        let of_session = || known.iter().filter(|known| known.session == session);
        let read: Vec<StoredEvent> = match store.read(session, &Range::default()) {
            Ok(events) => events,
            Err(error) if error.code().as_str() == "STORE_CORRUPT" => of_session()
                .filter_map(|known| {
                    let range =
                        Range { after: Some(known.seq - 1), before: Some(known.seq + 1), ..Range::default() };
                    let read = store.read(session, &range).ok().and_then(|mut events| events.pop());
                    // The page behind may be the damaged one, which a range looks into.
                    read.or_else(|| store.find(&known.id).ok().flatten())
                })
                .collect(),
            Err(error) => return Err(format!("read: {} {error}", error.code())),
        };
        let mut there: BTreeMap<u64, &StoredEvent> = BTreeMap::new();
        for event in &read {
            if there.insert(event.seq, event).is_some() {
                return Err(format!("{session}: event {} is there twice", event.seq));
            }
        }
        for one in of_session() {
            match there.remove(&one.seq) {
                Some(event)
                    if event.id == one.id
                        && work::hash(event) == one.hash
                        && event.data == work::data(&one.id) => {}
                Some(event) => return Err(format!("{session}: event {} is given as {event:?}", one.seq)),
                None if names(verified, session, one.seq) => lost += 1,
                None if !by_number && names_as_a_whole(verified, session) => lost += 1,
                None => {
                    return Err(format!(
                        "{session}: event {} is lost and not named by {:?}",
                        one.seq,
                        &verified.problems[..verified.problems.len().min(8)]
                    ));
                }
            }
        }
        if let Some(event) = there.values().next() {
            return Err(format!("{session}: event {} `{}` was never written", event.seq, event.id));
        }
    }
    match store.read("gone", &Range::default()) {
        Ok(events) if !events.is_empty() => Err(format!("{} deleted events are there again", events.len())),
        _ => Ok(lost),
    }
}

/// Whether damage to a session, or to sessions that cannot even be listed, is reported.
fn names_as_a_whole(verified: &Verified, session: &str) -> bool {
    verified
        .problems
        .iter()
        .any(|problem| problem.seq == 0 && (problem.session_key == session || problem.session_key.is_empty()))
}

/// Whether the loss of an event is reported, by itself or within a range.
fn names(verified: &Verified, session: &str, seq: u64) -> bool {
    verified.problems.iter().filter(|problem| problem.session_key == session).any(|problem| {
        let numbers: Vec<u64> = problem.problem.split(' ').filter_map(|word| word.parse().ok()).collect();
        problem.seq == seq || matches!(*numbers, [from, to, ..] if (from..=to).contains(&seq))
    })
}
