//! Behaviour of the whole store, on sled.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::{Code, Result};

fn open(path: &Path) -> EventStore {
    EventStore::open(path, Options::default()).unwrap()
}

fn event(session: &str, kind: &str, data: &str) -> NewEvent {
    NewEvent {
        session_key: session.into(),
        agent_id: "main".into(),
        kind: kind.into(),
        data: data.into(),
        timestamp_ms: None,
        id: None,
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    crate::runtime::runtime().unwrap().block_on(future)
}

fn append(store: &EventStore, session: &str, count: usize) -> Vec<StoredEvent> {
    let events = (0..count)
        .map(|i| event(session, "message_received", &format!(r#"{{"text":"message {i}"}}"#)))
        .collect();
    wait(store.append_batch(events)).unwrap()
}

fn read(store: &EventStore, session: &str) -> Result<Vec<StoredEvent>> {
    store.read(session, &Range::default())
}

#[cfg(unix)]
#[test]
fn nobody_else_reads_a_store_not_even_through_the_folder_that_sled_fills() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = open(&path);
    append(&store, "s", 1);
    let mut seen = 0;
    for entry in std::fs::read_dir(&path).unwrap() {
        let (entry, others) = (entry.unwrap(), 0o077);
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & others, 0, "{}: {mode:o}", entry.path().display());
        seen += 1;
    }
    assert!(seen > 3);
    wait(store.close()).unwrap();
}

/// sled writes `conf` before it makes `db`, and flushes neither.
#[test]
fn a_power_cut_between_the_first_files_of_a_store_leaves_one_that_opens() {
    for conf in [None, Some(""), Some("\0\0\0\0\0\0\0\0"), Some("segment_size: 5242")] {
        let folder = tempfile::tempdir().unwrap();
        let generation = folder.path().join("gen-1");
        std::fs::create_dir(&generation).unwrap();
        if let Some(conf) = conf {
            std::fs::write(generation.join("conf"), conf).unwrap();
        }
        let store = open(folder.path());
        append(&store, "s", 3);
        sound(&store);
        wait(store.close()).unwrap();
        assert_eq!(read(&open(folder.path()), "s").unwrap().len(), 3, "{conf:?}");
    }
}

fn sound(store: &EventStore) {
    let verified = store.verify(&CancellationToken::new()).unwrap();
    assert_eq!(verified.problems, []);
}

#[test]
fn what_may_wait_is_written_with_what_comes_next_in_the_order_of_the_calls() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let told = |data: &str| vec![event("s", "t", data)];
    // Alone it is written all the same.
    assert_eq!(wait(store.append_soon(told("0"))).unwrap().first().unwrap().seq, 1);
    let soon = store.append_soon(told("1"));
    let now = store.append_batch(told("2"));
    let later = store.append_soon(told("3"));
    assert_eq!(wait(now).unwrap().first().unwrap().seq, 3);
    assert_eq!(wait(soon).unwrap().first().unwrap().seq, 2);
    // Closing does not leave it behind.
    store.close_blocking().unwrap();
    assert_eq!(wait(later).unwrap().first().unwrap().seq, 4);
    let store = open(folder.path());
    let held: Vec<String> = read(&store, "s").unwrap().into_iter().map(|event| event.data).collect();
    assert_eq!(held, ["0", "1", "2", "3"]);
    // Nor does whoever drops the store.
    let last = store.append_soon(told("4"));
    drop(store);
    assert_eq!(wait(last).unwrap().first().unwrap().seq, 5);
}

#[test]
fn what_was_appended_is_read_after_the_store_was_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let stored = append(&store, "agent:main:main", 100);
    append(&store, "agent:main:main:thread:1", 3);
    assert_eq!(stored.iter().map(|event| event.seq).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
    assert_eq!(read(&store, "agent:main:main").unwrap(), stored);
    sound(&store);
    store.close_blocking().unwrap();
    assert_eq!(read(&store, "agent:main:main").unwrap_err().code(), Code::StoreClosed);
    assert_eq!(wait(store.append_batch(vec![])).unwrap_err().code(), Code::StoreClosed);
    let store = open(folder.path());
    assert_eq!(read(&store, "agent:main:main").unwrap(), stored);
    assert_eq!(read(&store, "agent:main:main:thread:1").unwrap().len(), 3);
    let more = append(&store, "agent:main:main", 1);
    assert_eq!((more[0].seq, more[0].prev), (101, stored[99].hash));
    sound(&store);
}

#[test]
fn a_second_writer_is_told_who_has_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let error = EventStore::open(folder.path(), Options::default()).err().unwrap();
    assert_eq!(error.code(), Code::StoreLocked);
    assert!(error.message().contains(&std::process::id().to_string()), "{error}");
    drop(store);
}

#[test]
fn a_deleted_session_is_gone_and_goes_on_with_the_next_number() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    append(&store, "s", 1000);
    append(&store, "t", 2);
    assert_eq!(wait(store.delete_session("s")).unwrap(), 1000);
    assert_eq!(wait(store.delete_session("s")).unwrap(), 0);
    assert_eq!(wait(store.delete_session("none")).unwrap(), 0);
    assert_eq!(read(&store, "s").unwrap(), []);
    assert_eq!(store.projection("s").unwrap(), None);
    let deletions = Range { kinds: Some(vec![SESSION_DELETED.into()]), ..Range::default() };
    assert_eq!(store.read("s", &deletions).unwrap().len(), 1);
    assert_eq!(append(&store, "s", 1)[0].seq, 1002);
    assert_eq!(read(&store, "s").unwrap().len(), 1);
    sound(&store);
    store.close_blocking().unwrap();
    let store = open(folder.path());
    assert_eq!(read(&store, "s").unwrap().len(), 1);
    assert_eq!(store.stats().unwrap().events, 3);
    sound(&store);
}

#[test]
fn compaction_keeps_everything_that_lives() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    append(&store, "s", 3000);
    append(&store, "t", 3000);
    wait(store.delete_session("t")).unwrap();
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    assert!(wait(store.compact(&cancelled)).is_err());
    let compacted = wait(store.compact(&CancellationToken::new())).unwrap();
    assert!(compacted.after < compacted.before, "{compacted:?}");
    assert_eq!(read(&store, "s").unwrap().len(), 3000);
    sound(&store);
    append(&store, "s", 1);
    store.close_blocking().unwrap();
    let store = open(folder.path());
    assert_eq!(read(&store, "s").unwrap().len(), 3001);
    sound(&store);
    for _ in 0..8 {
        append(&store, "s", 1);
        append(&store, "u", 2);
    }
    store.close_blocking().unwrap();
    let store = open(folder.path());
    append(&store, "u", 1);
    wait(store.rebuild()).unwrap();
    assert_eq!(read(&store, "s").unwrap().len(), 3009);
    sound(&store);
    append(&store, "u", 4);
    sound(&store);
}

#[test]
fn two_stores_that_merge_have_the_same_projections() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (open(&folder.path().join("a")), open(&folder.path().join("b")));
    append(&a, "s", 5);
    append(&b, "s", 7);
    for (from, to) in [(&a, &b), (&b, &a), (&a, &b)] {
        let changes = from.changes(&to.version().unwrap(), None).unwrap();
        wait(to.merge(&changes)).unwrap();
    }
    assert_eq!(a.projection("s").unwrap(), b.projection("s").unwrap());
    assert_eq!(a.version().unwrap(), b.version().unwrap());
    assert_eq!(read(&a, "s").unwrap().len(), 12);
    sound(&a);
    sound(&b);
}

#[test]
fn a_list_is_the_same_in_one_piece_and_in_pages_of_any_length() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let events = (0..400).map(|i| NewEvent {
        timestamp_ms: Some((i * 37) % 90),
        agent_id: format!("a{}", i % 3),
        ..event(&format!("s:{:03}", (i * 7) % 250), "state_changed", &format!(r#"{{"k{}":{i}}}"#, i % 2))
    });
    wait(store.append_batch(events.collect())).unwrap();
    for order in [Order::Recent, Order::Key] {
        for agent_id in [None, Some("a1".to_owned())] {
            let whole =
                SessionsQuery { order, agent_id, prefix: Some("s:".into()), ..SessionsQuery::default() };
            let all = store.sessions(&whole).unwrap();
            assert!(all.len() > 75, "{}", all.len());
            if order == Order::Key {
                assert!(all.is_sorted_by(|a, b| a.session_key < b.session_key));
            } else {
                assert!(all.is_sorted_by(|a, b| a.projection.last_ms >= b.projection.last_ms));
            }
            for limit in [1, 7, 60, 100, 101, 180] {
                let (mut pages, mut after) = (Vec::new(), None);
                loop {
                    let page = store
                        .sessions(&SessionsQuery { limit: Some(limit), after, ..whole.clone() })
                        .unwrap();
                    assert!(page.len() <= limit);
                    let Some(last) = page.last() else { break };
                    after = Some(last.session_key.clone());
                    pages.extend(page);
                }
                assert_eq!(pages, all);
            }
        }
    }
}

#[test]
fn a_store_of_an_older_format_is_copied_and_brought_up_to_date_and_a_newer_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let replica = store.replica().to_owned();
    append(&store, "s", 50);
    wait(store.set_note("cursor", b"7".to_vec())).unwrap();
    store.close_blocking().unwrap();
    let description = folder.path().join("store.json");
    let at = |format: u32| format!(r#"{{"format":{format},"replica":"{replica}"}}"#);

    std::fs::write(&description, at(files::FORMAT + 1)).unwrap();
    let error = EventStore::open(folder.path(), Options::default()).err().unwrap();
    assert_eq!(error.code(), Code::StoreCorrupt);
    assert!(error.message().contains("newer"), "{error}");

    std::fs::write(&description, at(1)).unwrap();
    let store = open(folder.path());
    assert_eq!((store.replica(), read(&store, "s").unwrap().len()), (replica.as_str(), 50));
    assert_eq!(store.note("cursor").unwrap().as_deref(), Some(&b"7"[..]));
    sound(&store);
    assert!(folder.path().join(format!("before-format-{}", files::FORMAT)).join("db").exists());
    assert_eq!(append(&store, "s", 1)[0].seq, 51);

    // Of format 2 nothing is written anew: it is read as it is.
    store.close_blocking().unwrap();
    std::fs::remove_dir_all(folder.path().join(format!("before-format-{}", files::FORMAT))).unwrap();
    std::fs::write(&description, at(2)).unwrap();
    let store = open(folder.path());
    assert_eq!(read(&store, "s").unwrap().len(), 51);
    sound(&store);
    store.close_blocking().unwrap();
    assert!(!folder.path().join(format!("before-format-{}", files::FORMAT)).exists());
    let described = std::fs::read_to_string(&description).unwrap();
    assert!(described.contains(&format!("\"format\":{}", files::FORMAT)), "{described}");
}

#[test]
fn retention_takes_the_oldest_sessions_and_those_first_that_have_ended() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let at = |session: &str, kind: &str, time: i64| {
        let big = format!(r#"{{"text":"{}"}}"#, "x".repeat(10_000));
        wait(store.append_batch(vec![NewEvent { timestamp_ms: Some(time), ..event(session, kind, &big) }]))
            .unwrap();
    };
    for (session, kind, time) in [
        ("old", "message_received", 1),
        ("ended", "session_ended", 2),
        ("newer", "message_received", 3),
        ("newest", "session_ended", 4),
    ] {
        at(session, kind, time);
    }
    let left = || {
        let sessions =
            store.sessions(&SessionsQuery { order: Order::Key, ..SessionsQuery::default() }).unwrap();
        sessions.into_iter().map(|view| view.session_key).collect::<Vec<_>>()
    };
    let keep = |max_bytes| Retention { max_bytes: Some(max_bytes), max_age: None };
    let pruned = wait(store.prune(keep(35_000), &CancellationToken::new())).unwrap();
    assert_eq!((pruned.sessions, pruned.events), (1, 1));
    assert_eq!(left(), ["newer", "newest", "old"]);
    wait(store.prune(keep(25_000), &CancellationToken::new())).unwrap();
    assert_eq!(left(), ["newer", "newest"]);
    wait(store.prune(keep(1), &CancellationToken::new())).unwrap();
    assert_eq!(left(), ["newest"]);
    let old = Retention { max_bytes: None, max_age: Some(std::time::Duration::from_mins(1)) };
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    assert_eq!(wait(store.prune(old, &cancelled)).unwrap(), Pruned::default());
    assert_eq!(wait(store.prune(old, &CancellationToken::new())).unwrap().sessions, 1);
    assert_eq!(left(), [""; 0]);
    sound(&store);
    at("old", "message_received", 5);
    assert_eq!(store.read("old", &Range::default()).unwrap()[0].seq, 2);
    sound(&store);
}

#[test]
fn a_follower_sees_history_and_then_what_comes_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    append(&store, "s", 600);
    append(&store, "t", 5);
    let follow = |session: Option<&str>, after: Option<String>| {
        let options = FollowOptions { session_key: session.map(str::to_owned), after };
        store.follow(&options).unwrap()
    };
    let take = |mut follow: Follow, count: usize| {
        wait(async {
            let mut seen = Vec::new();
            while seen.len() < count {
                seen.extend(follow.next().await.unwrap().unwrap());
            }
            (seen, follow)
        })
    };
    let (seen, all) = take(follow(None, None), 605);
    assert!(seen.iter().map(|event| event.arrival).eq(1..=605));
    let (seen, one) = take(follow(Some("s"), Some(seen[299].id.clone())), 300);
    assert!(seen.iter().map(|event| event.seq).eq(301..=600));
    append(&store, "t", 1);
    append(&store, "s", 2);
    assert_eq!(take(all, 3).0.iter().map(|event| event.seq).collect::<Vec<_>>(), [6, 601, 602]);
    assert_eq!(take(one, 2).0.iter().map(|event| event.seq).collect::<Vec<_>>(), [601, 602]);
    let unknown = FollowOptions { session_key: None, after: Some("nobody".into()) };
    assert_eq!(store.follow(&unknown).err().unwrap().code(), Code::Validation);
    let mut waiting = follow(None, Some(seen[299].id.clone()));
    wait(waiting.next()).unwrap().unwrap();
    store.close_blocking().unwrap();
    assert_eq!(wait(waiting.next()).unwrap(), None);
}
