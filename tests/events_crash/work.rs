//! What children do to a store: everything at once, telling each acknowledgement.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use openclaw_core::events::{Durability, EventStore, NewEvent, StoredEvent};
use tokio_util::sync::CancellationToken;

use super::{Random, say, wait};

/// How a child works.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// The seed of what it does.
    pub(crate) seed: u64,
    /// How long; for ever if 0.
    pub(crate) millis: u64,
    /// The next of the peer's changes to merge.
    pub(crate) merge: u64,
    /// The next value of the note.
    pub(crate) note: u64,
    /// Milliseconds between flushes; each group is flushed if 0.
    pub(crate) interval: u64,
}

impl Plan {
    pub(crate) fn parse(text: &str) -> Self {
        let mut numbers = text.split(',').map(|number| number.parse().unwrap());
        let mut next = || numbers.next().unwrap();
        Self { seed: next(), millis: next(), merge: next(), note: next(), interval: next() }
    }

    pub(crate) fn text(self) -> String {
        let Self { seed, millis, merge, note, interval } = self;
        format!("{seed},{millis},{merge},{note},{interval}")
    }
}

/// An event whose data follow from its id.
pub(crate) fn event(session: &str, id: &str) -> NewEvent {
    NewEvent {
        session_key: session.into(),
        agent_id: "main".into(),
        kind: kind(id).into(),
        data: data(id),
        timestamp_ms: Some(1_700_000_000_000 + i64::try_from(sum(id) % 100_000).unwrap()),
        id: Some(id.into()),
    }
}

fn kind(id: &str) -> &'static str {
    match sum(id) % 7 {
        0 => "state_changed",
        1 => "agent_response",
        _ => "message_received",
    }
}

pub(crate) fn sum(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
        >> 7
}

/// The data of the event with this id: mostly small, sometimes more than one value of the database.
pub(crate) fn data(id: &str) -> String {
    let sum = sum(id);
    let size = match sum % 97 {
        0 => 40_000 + sum % 60_000,
        1..10 => 2000 + sum % 3000,
        _ => 20 + sum % 400,
    };
    let mut random = Random::new(sum);
    let text: String = (0..size).map(|_| char::from(b'a' + random.below(26) as u8)).collect();
    if kind(id) == "state_changed" {
        return format!(r#"{{"last":"{id}","cell{}":"{text}"}}"#, sum % 5);
    }
    format!(r#"{{"text":"{text}","id":"{id}"}}"#)
}

pub(crate) fn hash(event: &StoredEvent) -> String {
    event.hash.iter().take(8).fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn told(event: &StoredEvent) -> String {
    format!("a {} {} {} {}", event.session_key, event.seq, event.id, hash(event))
}

/// Everything at once on the store in `folder`, until killed or told so.
pub(crate) fn work(folder: &Path, run: u64, plan: Plan) {
    let mut options = super::options();
    if plan.interval > 0 {
        options.durability = Durability::Interval(Duration::from_millis(plan.interval));
    }
    let store = EventStore::open(&folder.join("store"), options).unwrap();
    say("open");
    wait(tasks(store.clone(), folder, run, plan));
    // Some runs end as a careful program ends, others by dropping everything.
    if plan.seed % 2 == 0 {
        store.close_blocking().unwrap();
        say("closed");
    }
}

async fn tasks(store: EventStore, folder: &Path, run: u64, plan: Plan) {
    let over = Arc::new(AtomicBool::new(false));
    let mut all = tokio::task::JoinSet::new();
    for task in 0..3 {
        all.spawn(singles(store.clone(), Arc::clone(&over), run, task, plan.seed));
    }
    all.spawn(batches(store.clone(), Arc::clone(&over), run, plan.seed));
    all.spawn(deletions(store.clone(), Arc::clone(&over), run, plan.seed));
    all.spawn(notes(store.clone(), Arc::clone(&over), plan.note));
    all.spawn(merges(store.clone(), Arc::clone(&over), folder.join("peer"), plan.merge));
    all.spawn(upkeep(store, Arc::clone(&over), plan.seed));
    if plan.millis > 0 {
        tokio::time::sleep(Duration::from_millis(plan.millis)).await;
        over.store(true, Ordering::Relaxed);
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
}

async fn singles(store: EventStore, over: Arc<AtomicBool>, run: u64, task: u64, seed: u64) {
    let session = format!("single{task}");
    let mut random = Random::new(seed ^ task);
    for n in 1_u64.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let stored =
            store.append_batch(vec![event(&session, &format!("{run}.{session}.{n}"))]).await.unwrap();
        say(&told(&stored[0]));
        if random.below(8) == 0 {
            tokio::time::sleep(Duration::from_micros(random.below(2000) as u64)).await;
        }
    }
}

async fn batches(store: EventStore, over: Arc<AtomicBool>, run: u64, seed: u64) {
    let mut random = Random::new(seed ^ 77);
    for n in 1_u64.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let count = 2 + random.below(10);
        let events = (1..=count).map(|i| event("batch", &format!("{run}.batch.{n}.{i}of{count}"))).collect();
        for stored in store.append_batch(events).await.unwrap() {
            say(&told(&stored));
        }
    }
}

async fn deletions(store: EventStore, over: Arc<AtomicBool>, run: u64, seed: u64) {
    let mut random = Random::new(seed ^ 78);
    let mut n = 0;
    while !over.load(Ordering::Relaxed) {
        for _ in 0..=random.below(12) {
            n += 1;
            let stored = store.append_batch(vec![event("gone", &format!("{run}.gone.{n}"))]).await.unwrap();
            say(&told(&stored[0]));
        }
        say("deleting gone");
        store.delete_session("gone").await.unwrap();
        say("deleted gone");
    }
}

async fn notes(store: EventStore, over: Arc<AtomicBool>, mut value: u64) {
    while !over.load(Ordering::Relaxed) {
        store.set_note("cursor", value.to_be_bytes().to_vec()).await.unwrap();
        say(&format!("note {value}"));
        value += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn merges(store: EventStore, over: Arc<AtomicBool>, peer: std::path::PathBuf, mut next: u64) {
    while !over.load(Ordering::Relaxed) {
        let Ok(changes) = std::fs::read(peer.join(next.to_string())) else { return };
        store.merge(&changes).await.unwrap();
        say(&format!("merged {next}"));
        next += 1;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

async fn upkeep(store: EventStore, over: Arc<AtomicBool>, seed: u64) {
    let mut random = Random::new(seed ^ 79);
    while !over.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_micros(random.below(30_000) as u64)).await;
        let began = Instant::now();
        if random.below(4) == 0 {
            store.rebuild().await.unwrap();
        } else {
            store.compact(&CancellationToken::new()).await.unwrap();
        }
        // On a slow disk there is to be other work as well.
        tokio::time::sleep(began.elapsed()).await;
    }
}
