//! The core's log: `tracing` events, handed to whoever listens.
//!
//! Nothing is collected until somebody listens. A listener owns a bounded queue; a record that finds it full is
//! counted, not waited for, so that logging never slows the core down.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Records that a listener may fall behind.
const QUEUE: usize = 1024;

/// One event.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: &'static str,
    /// The module that speaks.
    pub target: String,
    /// What it says.
    pub message: String,
    /// Its fields.
    pub fields: Map<String, Value>,
}

/// One listener's queue.
pub struct Listener {
    level: Level,
    queue: Mutex<VecDeque<Record>>,
    dropped: AtomicU64,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Listener {
    /// A listener for `level` and what is graver. `wake` is called when records begin to wait; it must not block.
    pub fn new(level: Level, wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { level, queue: Mutex::default(), dropped: AtomicU64::new(0), wake: Box::new(wake) })
    }

    /// Everything that has come since the last call; a last record says how many found the queue full.
    pub fn drain(&self) -> Vec<Record> {
        let mut records: Vec<_> =
            self.queue.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            records.push(Record {
                time_ms: now_ms(),
                level: "warn",
                target: module_path!().into(),
                message: format!("{dropped} log records were dropped: the listener fell behind"),
                fields: Map::from_iter([("dropped".to_owned(), dropped.into())]),
            });
        }
        records
    }

    fn push(&self, record: Record) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() >= QUEUE {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.push_back(record);
        let first = queue.len() == 1;
        drop(queue);
        if first {
            (self.wake)();
        }
    }
}

static LISTENERS: RwLock<Vec<Arc<Listener>>> = RwLock::new(Vec::new());
/// The most talkative level that anybody listens to, as [`rank`] counts; 0 for none.
static LOUDEST: AtomicU8 = AtomicU8::new(0);
static INSTALLED: Once = Once::new();

/// Starts listening. Another global subscriber in the process keeps its place, and then this one hears nothing.
pub fn listen(listener: &Arc<Listener>) {
    INSTALLED.call_once(|| {
        // A second copy of the core in the process has its own tracing, so this fails only for a host in Rust.
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Hub));
    });
    change(|listeners| listeners.push(Arc::clone(listener)));
}

/// Stops listening.
pub fn stop(listener: &Arc<Listener>) {
    change(|listeners| listeners.retain(|other| !Arc::ptr_eq(other, listener)));
}

fn change(edit: impl FnOnce(&mut Vec<Arc<Listener>>)) {
    let mut listeners = LISTENERS.write().unwrap_or_else(PoisonError::into_inner);
    edit(&mut listeners);
    LOUDEST.store(listeners.iter().map(|l| rank(l.level)).max().unwrap_or(0), Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
}

/// `error` is 1, `trace` is 5.
fn rank(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

struct Hub;

impl<S: Subscriber> Layer<S> for Hub {
    /// The core's own events only: dependencies say things that no operator asked for.
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
            && rank(*metadata.level()) <= LOUDEST.load(Ordering::Relaxed)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        let mut record = Record {
            time_ms: now_ms(),
            level: match level {
                Level::ERROR => "error",
                Level::WARN => "warn",
                Level::INFO => "info",
                Level::DEBUG => "debug",
                Level::TRACE => "trace",
            },
            target: event.metadata().target().into(),
            message: String::new(),
            fields: Map::new(),
        };
        event.record(&mut record);
        for listener in LISTENERS.read().unwrap_or_else(PoisonError::into_inner).iter() {
            if rank(level) <= rank(listener.level) {
                listener.push(record.clone());
            }
        }
    }
}

impl Visit for Record {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.fields.insert(field.name().into(), text.into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.insert(field.name().into(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.insert(field.name().into(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.insert(field.name().into(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.insert(field.name().into(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn a_listener_hears_its_level_once_woken_and_is_told_of_what_it_missed() {
        let wakes = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&wakes);
        let listener = Listener::new(Level::INFO, move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        listen(&listener);
        let mine = |record: &Record| record.fields.get("test").is_some_and(|t| t == "listener");
        tracing::info!(test = "listener", bytes = 7, "saved {}", "it");
        tracing::debug!(test = "listener", "too quiet");
        let heard: Vec<_> = listener.drain().into_iter().filter(mine).collect();
        assert_eq!(heard.len(), 1);
        assert_eq!((heard[0].message.as_str(), heard[0].level), ("saved it", "info"));
        assert_eq!(heard[0].fields["bytes"], 7);
        assert!(wakes.load(Ordering::SeqCst) >= 1);

        for _ in 0..QUEUE + 5 {
            tracing::warn!(test = "listener", "flood");
        }
        let last = listener.drain().pop().unwrap();
        assert!(last.fields["dropped"].as_u64().unwrap() >= 5, "{last:?}");

        stop(&listener);
        tracing::error!(test = "listener", "unheard");
        assert!(!listener.drain().iter().any(mine));
    }
}
