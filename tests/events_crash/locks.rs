//! One writer, and readers beside it.

use std::path::Path;
use std::time::{Duration, Instant};

use openclaw_core::Code;
use openclaw_core::events::{EventStore, Options, Range};
use tokio_util::sync::CancellationToken;

use super::{Running, alone, command, folder, open, options, say, wait, work};

/// Opens the store and holds it.
pub(crate) fn hold(folder: &Path) {
    let _store = EventStore::open(&folder.join("store"), options()).unwrap();
    say("held");
    std::thread::sleep(Duration::from_secs(600));
}

/// Appends without a pause.
pub(crate) fn stream(folder: &Path, millis: u64) {
    let store = EventStore::open(&folder.join("store"), options()).unwrap();
    say("open");
    let began = Instant::now();
    let mut n = 0;
    wait(async {
        while began.elapsed() < Duration::from_millis(millis) {
            let events = (0..4).map(|_| {
                n += 1;
                work::event("stream", &format!("0.stream.{n}"))
            });
            for stored in store.append_batch(events.collect()).await.unwrap() {
                say(&format!("a {}", stored.seq));
            }
        }
    });
    store.close_blocking().unwrap();
}

#[test]
fn a_store_has_one_writer_whose_death_frees_it() {
    let _alone = alone();
    let home = folder();
    open(&home.path().join("store")).close_blocking().unwrap();
    for _ in 0..5 {
        let mut child = Running::start(&mut command("hold", home.path()));
        assert_eq!(child.said(Duration::from_secs(60)).as_deref(), Some("held"), "{}", child.stderr());
        let began = Instant::now();
        let error =
            EventStore::open(&home.path().join("store"), options()).err().expect("there are two writers");
        assert_eq!(error.code(), Code::StoreLocked, "{error}");
        assert!(error.message().contains(&format!("process {}", child.child.id())), "{error}");
        assert!(began.elapsed() < Duration::from_secs(5), "the second writer waited");
        child.kill();
        // The kernel's lock goes with the process.
        let store = open(&home.path().join("store"));
        store.close_blocking().unwrap();
    }
}

#[test]
fn a_copy_that_is_opened_while_another_process_appends_is_whole() {
    let _alone = alone();
    let home = folder();
    let mut child = Running::start(&mut command("stream 4000", home.path()));
    assert_eq!(child.said(Duration::from_secs(60)).as_deref(), Some("open"));
    let (mut copies, mut refused, mut seen, mut acknowledged) = (0, 0, 0, 0);
    while !child.ended {
        for _ in 0..4000 {
            let Some(line) = child.said(Duration::from_millis(1)) else { break };
            if let Some(seq) = line.strip_prefix("a ") {
                acknowledged = seq.parse().unwrap();
            }
        }
        let before: usize = acknowledged;
        match EventStore::open(&home.path().join("store"), Options { read_only: true, ..options() }) {
            Ok(copy) => {
                let events = copy.read("stream", &Range::default()).unwrap();
                for (event, n) in events.iter().zip(1_u64..) {
                    assert_eq!((event.seq, &event.id), (n, &format!("0.stream.{n}")));
                    assert_eq!(event.data, work::data(&event.id));
                }
                assert!(
                    events.len() >= before,
                    "a copy has {} of {before} acknowledged events",
                    events.len()
                );
                assert_eq!(copy.verify(&CancellationToken::new()).unwrap().problems, []);
                seen = seen.max(events.len());
                copies += 1;
            }
            Err(error) => {
                assert_eq!(error.code(), Code::StoreLocked, "{error}");
                refused += 1;
            }
        }
    }
    assert!(child.child.wait().unwrap().success(), "{}", child.stderr());
    println!("{copies} copies of up to {seen} events, {refused} refused, {acknowledged} appended");
    assert!(copies > 0, "not one copy could be opened");
    let store = open(&home.path().join("store"));
    assert_eq!(store.read("stream", &Range::default()).unwrap().len(), acknowledged);
    assert_eq!(store.verify(&CancellationToken::new()).unwrap().problems, []);
}
