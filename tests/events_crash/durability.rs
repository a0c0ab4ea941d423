//! What is put on the disk, and when.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use openclaw_core::events::{Durability, EventStore, Options};

use super::power::{Entry, entries};
use super::{Running, alone, command, folder, mark, options, say, shim, wait, work};

const ROUNDS: usize = 20;
const CONCURRENT: usize = 48;

/// Many appends at once, several times.
pub(crate) fn work(folder: &Path) {
    let store = EventStore::open(&folder.join("store"), options()).unwrap();
    wait(async {
        for round in 0..ROUNDS {
            let mut all = tokio::task::JoinSet::new();
            for task in 0..CONCURRENT {
                let store = store.clone();
                all.spawn(async move {
                    let id = format!("{round}.group{task}.unique");
                    let append = store.append_batch(vec![work::event(&format!("group{}", task % 5), &id)]);
                    append.await.unwrap();
                    mark(&format!("ack {id}"));
                });
            }
            while let Some(done) = all.join_next().await {
                done.unwrap();
            }
        }
    });
    mark("end");
    store.close_blocking().unwrap();
    say("closed");
}

fn record(base: &Path, task: &str) -> Vec<u8> {
    let mut child = Running::start(
        command(task, base)
            .env("LD_PRELOAD", shim())
            .env("STRIKE_DIR", base.join("store"))
            .env("STRIKE_RECORD", base.join("record")),
    );
    while child.said(Duration::from_secs(60)).is_some() {}
    assert!(child.ended && child.child.wait().unwrap().success(), "{}", child.stderr());
    std::fs::read(base.join("record")).unwrap()
}

fn is_db(entry: &Entry<'_>) -> bool {
    entry.path.ends_with("/gen-1/db")
}

fn find(entries: &[Entry<'_>], id: &str) -> Vec<usize> {
    let finder = memchr::memmem::Finder::new(id.as_bytes());
    let holds = |entry: &Entry<'_>| entry.kind == b'W' && is_db(entry) && finder.find(entry.data).is_some();
    entries.iter().enumerate().filter(|(_, entry)| holds(entry)).map(|(at, _)| at).collect()
}

#[test]
fn each_group_is_put_on_the_disk_once_and_then_acknowledged() {
    let _alone = alone();
    let home = folder();
    let base = home.path().canonicalize().unwrap();
    let bytes = record(&base, "groups");
    let entries = entries(&bytes);
    let end = entries.iter().position(|entry| entry.kind == b'M' && entry.data == b"end").unwrap();
    // A segment of sled's log that is full is put on the disk at once; all else with its group.
    let (mut syncs, mut full) = (Vec::new(), 0);
    for (at, entry) in entries[..end].iter().enumerate().filter(|(_, entry)| is_db(entry)) {
        match entry.kind {
            b'W' => full += usize::from((entry.offset + entry.data.len() as u64).is_multiple_of(512 << 10)),
            b'S' if entry.data == b"fdatasync" && full > 0 => full -= 1,
            b'S' if entry.data == b"fdatasync" => syncs.push(at),
            _ => {}
        }
    }
    let (mut groups, mut acknowledged, mut first) = (BTreeSet::new(), 0, usize::MAX);
    for (at, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.kind == b'M') {
        let Some(id) = std::str::from_utf8(entry.data).unwrap().strip_prefix("ack ") else { continue };
        acknowledged += 1;
        // The first writing of the event; later ones are sled's own moves of the page.
        let written = find(&entries[..at], &format!("\"{id}\"")).first().copied();
        let written = written.or_else(|| find(&entries[..at], id).first().copied());
        let written = written.unwrap_or_else(|| panic!("{id} was acknowledged before it was written"));
        first = first.min(written);
        let after: Vec<usize> = syncs.iter().copied().filter(|sync| written < *sync && *sync < at).collect();
        let sync =
            *after.first().unwrap_or_else(|| panic!("{id} was acknowledged before it was on the disk"));
        // Everything of the group was written before its fdatasync: none of it remains for the next.
        groups.insert(sync);
    }
    let during = syncs.iter().filter(|sync| **sync > first).count();
    println!(
        "{acknowledged} appends in {} groups, {during} fdatasyncs of the database, {:.1} appends a group",
        groups.len(),
        acknowledged as f64 / groups.len() as f64
    );
    assert_eq!(acknowledged, ROUNDS * CONCURRENT);
    assert_eq!(during, groups.len(), "a group has more than one fdatasync, or one that acknowledges nothing");
    assert!(groups.len() * 4 < acknowledged, "concurrent appends do not share their fdatasync");
}

/// Appends for a while with a flush now and then.
pub(crate) fn interval(folder: &Path) {
    let options = Options { durability: Durability::Interval(Duration::from_millis(EVERY)), ..options() };
    let store = EventStore::open(&folder.join("store"), options).unwrap();
    let began = Instant::now();
    let mut n = 0;
    while began.elapsed() < Duration::from_secs(2) {
        n += 1;
        let id = format!("0.interval.{n}");
        wait(store.append_batch(vec![work::event("interval", &id)])).unwrap();
        mark(&format!("ack {} {id}", began.elapsed().as_millis()));
        std::thread::sleep(Duration::from_millis(2));
    }
    store.close_blocking().unwrap();
    mark(&format!("ack {} {}", began.elapsed().as_millis(), "closed"));
    say("closed");
}

const EVERY: u64 = 200;

#[test]
fn a_store_with_an_interval_puts_what_was_acknowledged_on_the_disk_within_it() {
    let _alone = alone();
    let home = folder();
    let base = home.path().canonicalize().unwrap();
    let bytes = record(&base, "interval");
    let entries = entries(&bytes);
    // At each acknowledgement, the oldest event that no fdatasync has reached yet.
    let (mut waiting, mut worst, mut flushes, mut acknowledged) = (Vec::<u64>::new(), 0, 0, 0);
    for entry in &entries {
        if entry.kind == b'S' && is_db(entry) {
            flushes += usize::from(!waiting.is_empty());
            waiting.clear();
        }
        let Some(mark) = std::str::from_utf8(entry.data).ok().filter(|_| entry.kind == b'M') else {
            continue;
        };
        let Some((millis, id)) = mark.strip_prefix("ack ").and_then(|mark| mark.split_once(' ')) else {
            continue;
        };
        let now: u64 = millis.parse().unwrap();
        worst = worst.max(now - waiting.first().copied().unwrap_or(now));
        if id != "closed" {
            acknowledged += 1;
            waiting.push(now);
        }
    }
    println!(
        "{acknowledged} appends, {flushes} flushes; an event waited for the disk {worst} ms at most, of {EVERY}"
    );
    assert!(waiting.is_empty(), "{} acknowledged events were not put on the disk by closing", waiting.len());
    assert!(flushes >= 5 && flushes * 4 < acknowledged, "{flushes} flushes");
    // One flush may be slow on a busy machine; a store that waits for the next append would be far above.
    assert!(worst < EVERY * 5, "an acknowledged event waited {worst} ms for the disk");
}
