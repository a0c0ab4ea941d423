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

fn sound(store: &EventStore) {
    let verified = store.verify(&CancellationToken::new()).unwrap();
    assert_eq!(verified.problems, []);
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
    wait(store.rebuild()).unwrap();
    assert_eq!(read(&store, "s").unwrap().len(), 3001);
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
