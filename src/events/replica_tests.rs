//! Replicas that write, delete and exchange at random, against what must hold of them: the same events give the same
//! bytes, whatever way and order they came in, and a simple model agrees.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::clock::PhysicalTime;
use super::event::{NewEvent, SESSION_DELETED, StoredEvent};
use super::keys;
use super::log::{Appended, Group, Log};
use super::lookup::{Arrivals, Slots};
use super::memory::Memory;
use super::merge::{self, Incoming};
use super::record::Slot;
use super::store::{SessionView, view};
use super::verify::verify_storage;
use super::version::VersionVector;

/// A clock that tests set.
struct Hands(AtomicU64);

impl PhysicalTime for Hands {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct Replica {
    storage: Arc<Memory>,
    log: Log,
    time: Arc<Hands>,
}

const SESSIONS: [&str; 3] = ["s", "s:1", "t"];

impl Replica {
    fn new(name: &str, now_ms: u64) -> Self {
        let (storage, time) = (Arc::new(Memory::default()), Arc::new(Hands(now_ms.into())));
        let log =
            Log::open(Arc::<Memory>::clone(&storage), name.into(), Arc::<Hands>::clone(&time) as _).unwrap();
        Self { storage, log, time }
    }

    fn append(&mut self, events: Vec<NewEvent>) -> Vec<StoredEvent> {
        let mut group = Group::default();
        let Ok(Appended::Done(stored)) = self.log.append(&mut group, events) else { panic!("not appended") };
        self.log.commit(&mut group).unwrap();
        stored
    }

    /// An append whose commit fails.
    fn fail(&mut self, events: Vec<NewEvent>) {
        let mut group = Group::default();
        let Ok(Appended::Done(_)) = self.log.append(&mut group, events) else { panic!("not appended") };
        self.log.reload().unwrap();
    }

    fn delete(&mut self, session: &str) {
        let mut group = Group::default();
        self.log.delete(&mut group, session).unwrap();
        self.log.commit(&mut group).unwrap();
    }

    fn collect(&mut self) {
        let mut group = Group::default();
        while self.log.collect_garbage(&mut group).unwrap() {
            self.log.commit(&mut group).unwrap();
            assert_eq!(self.arrived(), self.events());
        }
        self.log.commit(&mut group).unwrap();
    }

    fn changes(&self, since: &VersionVector) -> Vec<Incoming> {
        merge::decode(&merge::changes(&*self.storage, since, usize::MAX).unwrap()).unwrap()
    }

    fn merge(&mut self, events: Vec<Incoming>) {
        let mut group = Group::default();
        self.log.merge(&mut group, events).unwrap();
        self.log.commit(&mut group).unwrap();
    }

    /// All that is still to be had from another.
    fn pull(&mut self, other: &Self) {
        self.merge(other.changes(&self.log.store.version));
    }

    fn views(&self) -> Vec<SessionView> {
        SESSIONS.iter().filter_map(|session| view(&*self.storage, session).unwrap()).collect()
    }

    fn bytes(&self) -> Vec<Vec<u8>> {
        self.views().iter().map(SessionView::to_bytes).collect()
    }

    /// Live events: id, origin and hash.
    fn events(&self) -> BTreeSet<(String, String, String, u64, [u8; 32])> {
        let mut found = BTreeSet::new();
        for session in SESSIONS {
            let meta =
                super::derived::read(&*self.storage, &keys::meta(session)).unwrap().unwrap_or_default();
            for slot in Slots::new(&*self.storage, session, 0, u64::MAX) {
                if let (_, Slot::Event(event)) = slot.unwrap()
                    && super::log::SessionMeta::is_live(&meta, &event)
                {
                    let replica = event.origin.replica.to_string();
                    found.insert((session.to_owned(), event.id, replica, event.n, event.hash));
                }
            }
        }
        found
    }

    /// The same, found by their arrival.
    fn arrived(&self) -> BTreeSet<(String, String, String, u64, [u8; 32])> {
        let all = Arrivals::new(&*self.storage, 1, self.log.store.arrivals + 1);
        let events = all.filter_map(|arrival| arrival.unwrap().event(&*self.storage).unwrap());
        let live = events.filter(|event| {
            let meta = super::derived::read(&*self.storage, &keys::meta(&event.session_key)).unwrap();
            meta.is_some_and(|meta: super::log::SessionMeta| meta.is_live(event))
        });
        let mut found = BTreeSet::new();
        for event in live {
            let replica = event.origin.replica.to_string();
            let new = found.insert((event.session_key, event.id, replica, event.n, event.hash));
            assert!(new, "an event arrived once");
        }
        found
    }

    fn sound(&self) {
        assert_eq!(verify_storage(&*self.storage).problems, []);
        assert_eq!(self.arrived(), self.events());
        let live: u64 = self.views().iter().map(|view| view.projection.events).sum();
        assert_eq!((self.log.store.events, self.log.store.sessions), (live, self.views().len() as u64));
        let reopened = Log::open(
            Arc::<Memory>::clone(&self.storage),
            Arc::clone(&self.log.replica),
            Arc::<Hands>::clone(&self.time) as _,
        );
        assert_eq!(reopened.unwrap().store, self.log.store);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append {
        at: usize,
        session: usize,
        kind: usize,
        data: usize,
        id: Option<usize>,
        time: i64,
    },
    /// An event that is not committed.
    Fail {
        at: usize,
        session: usize,
    },
    Delete {
        at: usize,
        session: usize,
    },
    /// One takes in some of what the other has, in any order, some of it twice.
    Pull {
        to: usize,
        from: usize,
        keep: u64,
        turn: usize,
    },
    /// The clock of one goes forward or back.
    Clock {
        at: usize,
        now_ms: u64,
    },
    Collect {
        at: usize,
    },
}

const REPLICAS: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let hours = 0_u64..20_000_000;
    prop_oneof![
        6 => (0..REPLICAS, 0..3_usize, 0..5_usize, 0..4_usize, prop::option::weighted(0.5, 0..4_usize), 0_i64..5)
            .prop_map(|(at, session, kind, data, id, time)| Step::Append { at, session, kind, data, id, time }),
        1 => (0..REPLICAS, 0..3_usize).prop_map(|(at, session)| Step::Fail { at, session }),
        1 => (0..REPLICAS, 0..3_usize).prop_map(|(at, session)| Step::Delete { at, session }),
        4 => (0..REPLICAS, 0..REPLICAS, any::<u64>(), 0..7_usize)
            .prop_map(|(to, from, keep, turn)| Step::Pull { to, from, keep, turn }),
        1 => (0..REPLICAS, hours).prop_map(|(at, now_ms)| Step::Clock { at, now_ms }),
        1 => (0..REPLICAS).prop_map(|at| Step::Collect { at }),
    ]
}

fn run(steps: &[Step]) -> Vec<Replica> {
    let mut replicas: Vec<Replica> = ["alpha", "beta", "gamma"]
        .iter()
        .zip([10_000_000, 0, 3_600_000])
        .map(|(name, now)| Replica::new(name, now))
        .collect();
    for step in steps {
        match *step {
            Step::Append { at, session, kind, data, id, time } => {
                replicas[at].append(vec![new_event(session, kind, data, id, time)]);
            }
            Step::Fail { at, session } => replicas[at].fail(vec![new_event(session, 0, 0, None, 0)]),
            Step::Delete { at, session } => replicas[at].delete(SESSIONS[session]),
            Step::Pull { to, from, keep, turn } => {
                let mut some: Vec<Incoming> = replicas[from]
                    .changes(&VersionVector::default())
                    .into_iter()
                    .enumerate()
                    .filter(|(i, _)| keep >> (i % 64) & 1 == 1)
                    .map(|(_, event)| event)
                    .collect();
                let turn = turn % some.len().max(1);
                some.rotate_left(turn);
                replicas[to].merge(some);
            }
            Step::Clock { at, now_ms } => replicas[at].time.0.store(now_ms, Ordering::Relaxed),
            Step::Collect { at } => replicas[at].collect(),
        }
    }
    replicas
}

fn new_event(session: usize, kind: usize, data: usize, id: Option<usize>, time: i64) -> NewEvent {
    const KINDS: [&str; 5] =
        ["message_received", "agent_response", "state_changed", "session_ended", "tool_called"];
    const DATA: [&str; 4] = [
        r#"{"text":"hi","usage":{"input":3}}"#,
        r#"{"text":"ho","usage":{"output":1,"cost":{"total":0.1}},"model":"x"}"#,
        r#"{"model":null,"thinking":"high"}"#,
        r#"{"model":{"a":[1]},"text":null}"#,
    ];
    NewEvent {
        session_key: SESSIONS[session].into(),
        agent_id: format!("agent{}", data % 2),
        kind: KINDS[kind].into(),
        data: DATA[data].into(),
        timestamp_ms: Some(time),
        id: id.map(|id| format!("id{id}")),
    }
}

/// Histories of a run of the tests; `OPENCLAW_CORE_CASES` makes it more.
fn cases(default: u32) -> ProptestConfig {
    let cases =
        std::env::var("OPENCLAW_CORE_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    ProptestConfig { cases, max_shrink_iters: 20_000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(10_000))]

    #[test]
    fn replicas_that_have_exchanged_everything_have_the_same_bytes(steps in prop::collection::vec(step(), 1..40)) {
        let mut replicas = run(&steps);
        replicas.iter().for_each(Replica::sound);
        // Whatever was left out comes in the end, by any way.
        for _ in 0..2 {
            for to in 0..REPLICAS {
                for from in 0..REPLICAS {
                    if to != from {
                        let (events, known) = (replicas[from].changes(&replicas[to].log.store.version), to);
                        replicas[known].merge(events);
                    }
                }
            }
        }
        let (bytes, events) = (replicas[0].bytes(), replicas[0].events());
        for replica in &mut replicas {
            prop_assert_eq!(&replica.events(), &events);
            prop_assert_eq!(&replica.bytes(), &bytes);
            replica.sound();
            replica.collect();
            replica.sound();
            prop_assert_eq!(&replica.bytes(), &bytes);
        }
        // One that was not there at all gets the same.
        let mut fresh = Replica::new("delta", 5);
        fresh.pull(&replicas[1]);
        prop_assert_eq!(fresh.bytes(), bytes);
        fresh.sound();
        // And once more changes nothing that counts; what was deleted may only become known.
        let before = (fresh.bytes(), fresh.events(), fresh.log.store.arrivals);
        fresh.merge(replicas[2].changes(&VersionVector::default()));
        prop_assert_eq!(before, (fresh.bytes(), fresh.events(), fresh.log.store.arrivals));
        let before = fresh.log.store.clone();
        fresh.merge(replicas[2].changes(&VersionVector::default()));
        prop_assert_eq!(before, fresh.log.store);
    }

    #[test]
    fn the_order_and_the_division_of_what_is_merged_do_not_matter(
        steps in prop::collection::vec(step(), 1..30),
        parts in prop::collection::vec(0..3_usize, 60),
        turns in prop::collection::vec(0..11_usize, 3),
    ) {
        let replicas = run(&steps);
        let all = || replicas.iter().flat_map(|replica| replica.changes(&VersionVector::default()));
        let mut together = Replica::new("x", 1);
        all().for_each(|event| together.merge(vec![event]));
        let mut divided = Replica::new("x", 1);
        let mut shares: Vec<Vec<Incoming>> = (0..3).map(|_| Vec::new()).collect();
        for (i, event) in all().enumerate() {
            shares[parts[i % parts.len()]].push(event);
        }
        for (mut share, turn) in shares.into_iter().zip(turns) {
            let turn = turn % share.len().max(1);
            share.rotate_left(turn);
            share.reverse();
            divided.merge(share);
        }
        prop_assert_eq!(together.bytes(), divided.bytes());
        prop_assert_eq!(together.events(), divided.events());
        prop_assert_eq!(&together.log.store.version, &divided.log.store.version);
        divided.sound();
    }
}

proptest! {
    #![proptest_config(cases(2_000))]

    /// A list for each session, and nothing else.
    #[test]
    fn one_store_does_what_a_simple_model_does(steps in prop::collection::vec(step(), 1..60)) {
        let mut store = Replica::new("alpha", 7);
        let mut model: BTreeMap<&str, Vec<(u64, NewEvent)>> = BTreeMap::new();
        let mut numbers: BTreeMap<&str, u64> = BTreeMap::new();
        for step in &steps {
            match *step {
                Step::Append { session, kind, data, id, time, .. } => {
                    let event = new_event(session, kind, data, id, time);
                    let stored = store.append(vec![event.clone()]);
                    let before = model.get(SESSIONS[session]).into_iter().flatten().find(|(_, known)| known.id == event.id);
                    let known = event.id.is_some() && before.is_some();
                    if let (true, Some((seq, known))) = (known, before) {
                        prop_assert_eq!((stored[0].seq, &stored[0].data), (*seq, &known.data));
                    }
                    if !known {
                        let name = SESSIONS[session];
                        let seq = numbers.entry(name).or_default();
                        *seq += 1;
                        prop_assert_eq!(stored[0].seq, *seq);
                        model.entry(name).or_default().push((*seq, event));
                    }
                }
                Step::Fail { session, .. } => store.fail(vec![new_event(session, 0, 0, None, 0)]),
                Step::Delete { session, .. } => {
                    store.delete(SESSIONS[session]);
                    if model.remove(SESSIONS[session]).is_some() {
                        // The deletion itself is an event.
                        *numbers.entry(SESSIONS[session]).or_default() += 1;
                    }
                }
                Step::Collect { .. } => store.collect(),
                Step::Clock { now_ms, .. } => store.time.0.store(now_ms, Ordering::Relaxed),
                Step::Pull { .. } => {}
            }
            for session in SESSIONS {
                let meta = super::derived::read(&*store.storage, &keys::meta(session)).unwrap().unwrap_or_default();
                let live: Vec<(u64, String, String)> = Slots::new(&*store.storage, session, 0, u64::MAX)
                    .filter_map(|slot| match slot.unwrap().1 {
                        Slot::Event(event) if super::log::SessionMeta::is_live(&meta, &event) && event.kind != SESSION_DELETED => {
                            Some((event.seq, event.kind, event.data))
                        }
                        _ => None,
                    })
                    .collect();
                let expected: Vec<_> = model.get(session).into_iter().flatten().map(|(seq, event)| (*seq, event.kind.clone(), event.data.clone())).collect();
                prop_assert_eq!(live, expected);
            }
        }
        store.sound();
    }
}
