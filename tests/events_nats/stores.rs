//! Stores that take part, and what they hold.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use openclaw_core::Code;
use openclaw_core::events::{EventStore, NewEvent, Options, Order, Range, SessionView, SessionsQuery, nats};

use crate::net::Scratch;

/// Short waits, so that a test sees many of them.
pub(crate) const PACE: nats::Pace = nats::Pace {
    answer: Duration::from_secs(1),
    heartbeat: Duration::from_millis(250),
    retry: Duration::from_millis(20),
    longest_retry: Duration::from_millis(200),
    save: Duration::from_millis(20),
};

/// What must come about comes in this time, or not at all.
const LONGEST: Duration = Duration::from_mins(1);

/// The options of a link to the stream `log` on these servers.
pub(crate) fn options(servers: &[String]) -> nats::Options {
    let mut options = nats::Options::new(servers, "log", None).unwrap();
    options.pace = PACE;
    options
}

/// Opens a store; one that was just dropped may still be closing.
pub(crate) async fn open(folder: &Path, replica: &str, nats: Option<nats::Options>) -> EventStore {
    let (folder, replica) = (folder.to_owned(), replica.to_owned());
    let opening = tokio::task::spawn_blocking(move || {
        let deadline = std::time::Instant::now() + LONGEST;
        loop {
            let options =
                Options { replica: Some(replica.clone()), nats: nats.clone(), ..Options::default() };
            match EventStore::open(&folder, options) {
                Err(error) if error.code() == Code::StoreLocked && std::time::Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                opened => return opened.unwrap(),
            }
        }
    });
    opening.await.unwrap()
}

/// A store in a folder of its own.
pub(crate) struct Replica {
    pub(crate) store: EventStore,
    name: String,
    folder: Arc<Scratch>,
}

/// A store that is not open.
pub(crate) struct Closed {
    name: String,
    folder: Arc<Scratch>,
}

impl Replica {
    pub(crate) async fn open(name: &str, nats: &nats::Options) -> Self {
        let closed = Closed { name: name.to_owned(), folder: Arc::new(Scratch::new()) };
        closed.open_again(nats).await
    }

    pub(crate) async fn open_again(self, nats: &nats::Options) -> Self {
        let Self { store, name, folder } = self;
        drop(store);
        Closed { name, folder }.open_again(nats).await
    }

    pub(crate) async fn close_and_open(self, nats: &nats::Options) -> Self {
        self.store.close().await.unwrap();
        self.open_again(nats).await
    }

    pub(crate) async fn drop_and_open(self, nats: &nats::Options) -> Self {
        self.open_again(nats).await
    }

    /// Opens it without a link.
    pub(crate) async fn close_and_open_alone(self) -> Self {
        self.store.close().await.unwrap();
        let Self { store, name, folder } = self;
        drop(store);
        let store = open(folder.path(), &name, None).await;
        Self { store, name, folder }
    }

    /// Closes it and copies its folder.
    pub(crate) async fn close_and_copy(&self) -> Closed {
        self.store.close().await.unwrap();
        let copy = Scratch::new();
        copy_folder(self.folder.path(), copy.path());
        Closed { name: self.name.clone(), folder: Arc::new(copy) }
    }
}

impl Closed {
    pub(crate) async fn open_again(self, nats: &nats::Options) -> Replica {
        let store = open(self.folder.path(), &self.name, Some(nats.clone())).await;
        Replica { store, name: self.name, folder: self.folder }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target: PathBuf = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(entry.path()).unwrap(), target).unwrap();
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Appends one event of this data to each session, together.
pub(crate) async fn append<'a>(store: &EventStore, sessions: impl IntoIterator<Item = &'a str>, data: &str) {
    let event = |session: &str| NewEvent {
        session_key: session.to_owned(),
        agent_id: "main".into(),
        kind: "message_received".into(),
        data: data.to_owned(),
        timestamp_ms: None,
        id: None,
    };
    let events: Vec<_> = sessions.into_iter().map(event).collect();
    store.append_batch(events).await.unwrap();
}

/// What a store holds, in a form that must be the same on all.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) sessions: Vec<String>,
    /// The bytes of the projections.
    pub(crate) projections: Vec<Vec<u8>>,
    /// Replica, `n`, session and hash of each event.
    pub(crate) events: Vec<(String, u64, String, [u8; 32])>,
}

pub(crate) fn contents(store: &EventStore) -> Contents {
    let views = store.sessions(&SessionsQuery { order: Order::Key, ..SessionsQuery::default() }).unwrap();
    let sessions: Vec<String> = views.iter().map(|view| view.session_key.clone()).collect();
    let mut events = Vec::new();
    for session in &sessions {
        for event in store.read(session, &Range::default()).unwrap() {
            events.push((event.origin.replica.to_string(), event.n, session.clone(), event.hash));
        }
    }
    events.sort();
    Contents { sessions, projections: views.iter().map(SessionView::to_bytes).collect(), events }
}

/// The data of a session's events.
pub(crate) fn data_of(store: &EventStore, session: &str) -> Vec<String> {
    store.read(session, &Range::default()).unwrap().into_iter().map(|event| event.data).collect()
}

/// Waits until the link is in a condition; its status then.
pub(crate) async fn until(
    store: &EventStore,
    what: &str,
    met: impl Fn(&nats::Status) -> bool,
) -> nats::Status {
    let link = store.link().unwrap();
    let mut statuses = link.watch();
    let waited = tokio::time::timeout(LONGEST, statuses.wait_for(|status| met(status))).await;
    let Ok(status) = waited else {
        panic!("{} still waits for {what}: {:#?}", store.replica(), link.status());
    };
    status.unwrap().clone()
}

/// Waits until all have sent and received everything, know of the same events and hold the same; fails if that does not
/// come about.
pub(crate) async fn converge(stores: &[&EventStore]) {
    agree(stores, true).await;
}

/// As [`converge`], where an event was deleted before anybody else knew of it.
pub(crate) async fn converge_but_for_what_was_never_sent(stores: &[&EventStore]) {
    agree(stores, false).await;
}

async fn agree(stores: &[&EventStore], on_versions: bool) {
    let converging = async {
        loop {
            for store in stores {
                // A status may be older than the last append.
                let written = store.version().unwrap().last(store.replica());
                let all = |status: &nats::Status| status.converged() && status.sent >= written;
                until(store, "convergence", all).await;
            }
            let versions: Vec<_> = stores.iter().map(|store| store.version().unwrap()).collect();
            let all: Vec<_> = stores.iter().map(|store| contents(store)).collect();
            if (!on_versions || versions.windows(2).all(|pair| pair[0] == pair[1]))
                && all.windows(2).all(|pair| pair[0] == pair[1])
            {
                return;
            }
            // One was done before another had sent: look again when something moves.
            let mut watches: Vec<_> = stores.iter().map(|store| store.link().unwrap().watch()).collect();
            let moves = watches.iter_mut().map(|watch| Box::pin(watch.changed()));
            let _ = tokio::time::timeout(Duration::from_millis(20), futures_util::future::select_all(moves))
                .await;
        }
    };
    if tokio::time::timeout(LONGEST, converging).await.is_err() {
        for store in stores {
            let Contents { sessions, events, .. } = contents(store);
            eprintln!("{:?}\n{:#?}", store.version().unwrap(), store.link().unwrap().status());
            eprintln!("{} sessions, {} events", sessions.len(), events.len());
        }
        panic!("no convergence");
    }
}
