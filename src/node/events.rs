//! `EventStore`.

use std::cell::RefCell;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use napi::bindgen_prelude::{
    Either, FnArgs, Function, JsObjectValue, Object, PromiseRaw, Uint8Array, Unknown,
};
use napi::{Env, JsError, JsString, JsValue, ValueType};
use napi_derive::napi;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::abort::Abort;
use super::args::{checked, count, flag, name, stringify, text, word};
use super::error::{object, reify, wrong_argument};
use super::event_sessions::sessions_slices;
use super::event_types::{
    AbortOptions, ChangesOptions, CompactReport, EventProblem, EventStoreOptions, EventStoreStats,
    FollowEventsOptions, ListSessionsOptions, MergeReport, NatsOptions, PruneOptions, PruneReport,
    ReadEventsOptions, VerifyOptions, VerifyReport,
};
use super::json::parse_plain;
use super::script::call;
use super::settle::settle;
use super::slices::{SLICE_BYTES, assemble, json_slices};
use super::stream::{Batch, CoreStream, Element};
use crate::events::{
    self, Durability, FollowOptions, Options, Order, Range, Retention, SessionsQuery, VersionVector, nats,
};
use crate::memory::{self, Owner, owned};
use crate::runtime::{blocking, runtime};
use crate::{Code, CoreError, Result};

/// How often an "interval" store flushes, unless told otherwise.
const FLUSH_MS: u64 = 100;

/// A store of the core. It ends when it is closed, or when nobody has it any more.
struct Open {
    /// Always, until this is dropped.
    store: Option<events::EventStore>,
    /// Held while the store closes: whoever closes it next waits.
    closing: tokio::sync::Mutex<()>,
}

impl Open {
    fn store(&self) -> Result<&events::EventStore> {
        self.store.as_ref().ok_or_else(|| CoreError::new(Code::StoreClosed, "the event store was closed"))
    }

    async fn close(&self) -> Result<()> {
        let _turn = self.closing.lock().await;
        self.store()?.close().await
    }

    fn close_blocking(&self) {
        let _turn = self.closing.blocking_lock();
        if let Some(store) = &self.store
            && let Err(error) = store.close_blocking()
        {
            tracing::error!(%error, folder = %store.folder().display(), "an event store could not be closed at exit");
        }
    }
}

impl Drop for Open {
    /// The end of a store may wait for the disk, and this may be the JS thread.
    fn drop(&mut self) {
        if let (Some(store), Ok(runtime)) = (self.store.take(), runtime()) {
            runtime.spawn_blocking(move || drop(store));
        }
    }
}

thread_local! {
    /// The stores that were opened on this JS thread; none before the first.
    static OPENED: RefCell<Option<Vec<Weak<Open>>>> = const { RefCell::new(None) };
}

/// An append-only log of everything that the agents did, in a folder that one process writes. Its events survive
/// crashes, their sessions have projections, and it merges with the logs of other machines.
///
/// Close it in the end; one that is forgotten is closed when it is collected, or at exit.
#[napi]
pub struct EventStore {
    open: Arc<Open>,
}

#[napi]
impl EventStore {
    /// Opens the store in a folder, which is made if need be.
    ///
    /// Rejects with `STORE_LOCKED` if another process, or another store in this one, has it open to write, and with
    /// `STORE_CORRUPT` if it is damaged beyond what can be put right.
    #[napi(
        catch_unwind,
        ts_args_type = "path: string, options?: EventStoreOptions",
        ts_return_type = "Promise<EventStore>"
    )]
    pub fn open<'env>(
        env: &'env Env,
        path: Unknown<'env>,
        options: Option<Either<EventStoreOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<Object<'env>> {
        let path = name(env, "path", path)?;
        let options = read_options(env, checked(env, options)?)?;
        let open = move || {
            let _owner = memory::scope(Owner::Events);
            let store = events::EventStore::open(Path::new(&path), options)?;
            Ok(Arc::new(Open { store: Some(store), closing: tokio::sync::Mutex::default() }))
        };
        settle(
            env,
            Abort::never(),
            |_| blocking(open),
            |env, open| {
                close_at_exit(env, &open)?;
                Ok(Self { open })
            },
        )
    }

    /// The store's folder.
    #[napi(catch_unwind, getter)]
    pub fn path(&self, env: &Env) -> napi::Result<String> {
        let store = self.store(env)?;
        Ok(store.folder().display().to_string())
    }

    /// The name under which the store writes.
    #[napi(catch_unwind, getter)]
    pub fn replica(&self, env: &Env) -> napi::Result<String> {
        let store = self.store(env)?;
        Ok(store.replica().to_owned())
    }

    /// Appends an event; resolves with the event as it is stored, which with `durability: "always"` is then on disk. An
    /// id that is known gives the event that has it, and appends nothing. Appends are in the order of the calls.
    ///
    /// Rejects with `EVENT_INVALID` or `EVENT_TOO_LARGE`; nothing is then appended.
    #[napi(catch_unwind, ts_args_type = "event: NewEvent", ts_return_type = "Promise<StoredEvent>")]
    pub fn append<'env>(&self, env: &'env Env, event: Unknown<'env>) -> napi::Result<Object<'env>> {
        let appended = match self.submit(env, call(env, "writeEvent", event))? {
            Ok(appended) => appended,
            Err(rejected) => return Ok(rejected),
        };
        let work = async {
            let events = appended.await?;
            Ok(events.first().map(events::StoredEvent::to_json).unwrap_or_default())
        };
        settle(env, Abort::never(), |_| work, |env, text| parsed(env, &text))
    }

    /// Appends events: all of them or, on any failure, none.
    #[napi(catch_unwind, ts_args_type = "events: NewEvent[]", ts_return_type = "Promise<StoredEvent[]>")]
    pub fn append_batch<'env>(&self, env: &'env Env, events: Unknown<'env>) -> napi::Result<Object<'env>> {
        let appended = match self.submit(env, call(env, "writeEvents", events))? {
            Ok(appended) => appended,
            Err(rejected) => return Ok(rejected),
        };
        let work = async { Ok(event_slices(&appended.await?)) };
        settle(env, Abort::never(), |_| work, assemble)
    }

    /// Events of a session, in the order of `seq`. Rejects with `STORE_CORRUPT` if one of them is damaged, and with
    /// `LIMIT` for more than 256 MiB at once.
    #[napi(
        catch_unwind,
        ts_args_type = "sessionKey: string, options?: ReadEventsOptions",
        ts_return_type = "Promise<StoredEvent[]>"
    )]
    pub fn read<'env>(
        &self,
        env: &'env Env,
        session_key: Unknown<'env>,
        options: Option<Either<ReadEventsOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<Object<'env>> {
        let session = name(env, "sessionKey", session_key)?;
        let mut range = Range::default();
        if let Some(options) = checked(env, options)? {
            range.after = count(env, "after", options.after, 0)?;
            range.before = count(env, "before", options.before, 0)?;
            range.limit = limit(env, options.limit)?;
            range.reverse = flag(env, "reverse", options.reverse)?.unwrap_or(false);
            range.kinds = options.kinds.map(|kinds| words(env, "kinds", kinds)).transpose()?;
        }
        let read = move |store: &events::EventStore| Ok(event_slices(&store.read(&session, &range)?));
        settle(env, Abort::never(), |_| self.reading(read), assemble)
    }

    /// Every event after `after`, or from the first on, in the order in which they arrived here; then those that come. It
    /// misses none. A slow reader holds up nobody. `break` ends it, `close()` too. With `durability: "interval"` it ends
    /// with `IO` if the store failed, as on a full disk, and lost events that it had acknowledged.
    #[napi(
        catch_unwind,
        ts_args_type = "options?: FollowEventsOptions",
        ts_return_type = "AsyncIterableIterator<StoredEvent>"
    )]
    pub fn follow<'env>(
        &self,
        env: &'env Env,
        options: Option<Either<FollowEventsOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<CoreStream> {
        let runtime = runtime().map_err(|error| reify(env, &error))?;
        let (mut what, mut signal) = (FollowOptions::default(), None);
        if let Some(options) = checked(env, options)? {
            what.session_key = options.session_key.map(|key| name(env, "sessionKey", key)).transpose()?;
            what.after = options.after.map(|id| name(env, "after", id)).transpose()?;
            signal = options.signal;
        }
        let abort = Abort::from_signal(env, signal)?;
        let stop = abort.token().child_token();
        let (batches, stream) = mpsc::channel(1);
        runtime.spawn(owned(Owner::Events, follow(Arc::clone(&self.open), what, batches, stop.clone())));
        Ok(CoreStream::new(stream, stop, abort))
    }

    /// What is known of a session; null if it has no events.
    #[napi(catch_unwind, ts_args_type = "sessionKey: string", ts_return_type = "Promise<Projection | null>")]
    pub fn projection<'env>(&self, env: &'env Env, session_key: Unknown<'env>) -> napi::Result<Object<'env>> {
        let session = name(env, "sessionKey", session_key)?;
        let read = move |store: &events::EventStore| {
            let mut text = String::new();
            match store.projection(&session)? {
                Some(view) => view.write_json(&mut text),
                None => text.push_str("null"),
            }
            Ok(text)
        };
        settle(env, Abort::never(), |_| self.reading(read), |env, text| parsed(env, &text))
    }

    /// What is known of many sessions.
    #[napi(
        catch_unwind,
        ts_args_type = "options?: ListSessionsOptions",
        ts_return_type = "Promise<Projection[]>"
    )]
    pub fn sessions<'env>(
        &self,
        env: &'env Env,
        options: Option<Either<ListSessionsOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<Object<'env>> {
        let mut query = SessionsQuery::default();
        if let Some(options) = checked(env, options)? {
            query.prefix = options.prefix.map(|prefix| name(env, "prefix", prefix)).transpose()?;
            query.agent_id = options.agent_id.map(|agent| name(env, "agentId", agent)).transpose()?;
            query.after = options.after.map(|after| name(env, "after", after)).transpose()?;
            query.limit = limit(env, options.limit)?;
            query.order =
                word(env, "order", options.order, &[("recent", Order::Recent), ("key", Order::Key)])?
                    .unwrap_or_default();
        }
        let list = move |store: &events::EventStore| Ok(sessions_slices(&store.sessions(&query)?));
        settle(env, Abort::never(), |_| self.reading(list), assemble)
    }

    /// Deletes a session's events, and resolves with their number. An event that says so stays, and merges: it covers what
    /// was known here, so that an event that another replica appends meanwhile survives.
    #[napi(catch_unwind, ts_args_type = "sessionKey: string", ts_return_type = "Promise<number>")]
    pub fn delete_session<'env>(
        &self,
        env: &'env Env,
        session_key: Unknown<'env>,
    ) -> napi::Result<Object<'env>> {
        let session = name(env, "sessionKey", session_key)?;
        let open = Arc::clone(&self.open);
        let delete = async move { open.store()?.delete_session(&session).await };
        settle(env, Abort::never(), |_| delete, |_, deleted| Ok(number(deleted)))
    }

    /// Takes sessions away that are too old, or the oldest until the others fit, while the store is used. Nothing without
    /// a limit.
    #[napi(catch_unwind, ts_args_type = "options?: PruneOptions", ts_return_type = "Promise<PruneReport>")]
    pub fn prune<'env>(
        &self,
        env: &'env Env,
        options: Option<Either<PruneOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<Object<'env>> {
        let (mut limits, mut signal) = (Retention::default(), None);
        if let Some(options) = checked(env, options)? {
            limits = retention(env, options.max_age_ms, options.max_bytes)?;
            signal = options.signal;
        }
        let abort = Abort::from_signal(env, signal)?;
        let open = Arc::clone(&self.open);
        settle(
            env,
            abort,
            |cancel| async move { open.store()?.prune(limits, &cancel).await },
            |_, pruned| {
                Ok(PruneReport {
                    sessions: number(pruned.sessions),
                    events: number(pruned.events),
                    bytes: number(pruned.bytes),
                })
            },
        )
    }

    /// Gives the disk back what deleted events and old versions of records take, while the store is used.
    #[napi(catch_unwind, ts_args_type = "options?: AbortOptions", ts_return_type = "Promise<CompactReport>")]
    pub fn compact<'env>(
        &self,
        env: &'env Env,
        options: Option<Either<AbortOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<Object<'env>> {
        let abort = Abort::from_signal(env, checked(env, options)?.and_then(|options| options.signal))?;
        let open = Arc::clone(&self.open);
        settle(
            env,
            abort,
            |cancel| async move { open.store()?.compact(&cancel).await },
            |_, done| Ok(CompactReport { before: number(done.before), after: number(done.after) }),
        )
    }

    /// Which events are here: for each replica the numbers of what it wrote, as "40" for all up to 40, or "40,43-45".
    #[napi(catch_unwind, ts_return_type = "Promise<Record<string, string>>")]
    pub fn version<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let read = |store: &events::EventStore| Ok(store.version()?.to_json());
        settle(env, Abort::never(), |_| self.reading(read), |env, text| parsed(env, &text))
    }

    /// The events that are here and not in `since`, for `merge` of another store: at most 32 MiB of them, so that one
    /// calls again with the version that the other then has, until it merges none.
    #[napi(
        catch_unwind,
        ts_args_type = "since?: Record<string, string>, options?: ChangesOptions",
        ts_return_type = "Promise<Uint8Array>"
    )]
    pub fn changes<'env>(
        &self,
        env: &'env Env,
        since: Option<Unknown<'env>>,
        options: Option<Either<ChangesOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<Object<'env>> {
        let since = since.map(|since| version_vector(env, since)).transpose()?.unwrap_or_default();
        let limit = limit(env, checked(env, options)?.and_then(|options| options.limit))?;
        let read = move |store: &events::EventStore| store.changes(&since, limit);
        settle(env, Abort::never(), |_| self.reading(read), |_, changes| Ok(Uint8Array::from(changes)))
    }

    /// Takes in the changes of another store, in any order and any number of times. Rejects with `EVENT_INVALID` if they
    /// are damaged; nothing of them is then taken in.
    #[napi(catch_unwind, ts_args_type = "changes: Uint8Array", ts_return_type = "Promise<MergeReport>")]
    pub fn merge<'env>(
        &self,
        env: &'env Env,
        changes: Either<Uint8Array, Unknown<'env>>,
    ) -> napi::Result<Object<'env>> {
        let changes = match changes {
            Either::A(changes) => changes.to_vec(),
            Either::B(other) => {
                return Err(reify(env, &wrong_argument("changes", "a Uint8Array", &other)));
            }
        };
        let open = Arc::clone(&self.open);
        let merge = async move { open.store()?.merge(&changes).await };
        settle(
            env,
            Abort::never(),
            |_| owned(Owner::Events, merge),
            |_, merged| Ok(MergeReport { applied: number(merged.applied), known: number(merged.known) }),
        )
    }

    /// Checks every event, every chain of hashes, and every projection.
    #[napi(catch_unwind, ts_args_type = "options?: VerifyOptions", ts_return_type = "Promise<VerifyReport>")]
    pub fn verify<'env>(
        &self,
        env: &'env Env,
        options: Option<Either<VerifyOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<Object<'env>> {
        let (mut rebuild, mut signal) = (false, None);
        if let Some(options) = checked(env, options)? {
            rebuild = flag(env, "rebuild", options.rebuild)?.unwrap_or(false);
            signal = options.signal;
        }
        let abort = Abort::from_signal(env, signal)?;
        let open = Arc::clone(&self.open);
        settle(
            env,
            abort,
            |cancel| async move {
                if rebuild {
                    open.store()?.rebuild().await?;
                }
                reading(open, move |store| store.verify(&cancel)).await
            },
            |_, found| {
                let problems = found.problems.into_iter().map(|problem| EventProblem {
                    session_key: problem.session_key,
                    seq: number(problem.seq),
                    problem: problem.problem,
                });
                let problems: Vec<_> = problems.collect();
                Ok(VerifyReport {
                    ok: problems.is_empty(),
                    sessions: number(found.sessions),
                    events: number(found.events),
                    problems,
                })
            },
        )
    }

    /// Sizes.
    #[napi(catch_unwind, ts_return_type = "Promise<EventStoreStats>")]
    pub fn stats<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        settle(
            env,
            Abort::never(),
            |_| {
                self.reading(|store| {
                    let status = store.link().map(|link| serde_json::json!(link.status()).to_string());
                    Ok((store.stats()?, status))
                })
            },
            |env, (stats, status)| {
                let memory = memory::usage().find(|(owner, _)| *owner == Owner::Events);
                Ok(EventStoreStats {
                    sessions: number(stats.sessions),
                    events: number(stats.events),
                    disk_bytes: number(stats.disk_bytes),
                    memory_bytes: memory.map_or(0.0, |(_, bytes)| number(bytes as u64)),
                    nats: status.map(|status| parsed(env, &status)).transpose()?,
                })
            },
        )
    }

    /// Puts everything on disk and ends. Appends that were made before are written; later calls reject with
    /// `STORE_CLOSED`. A second call waits for the first.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn close<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let open = Arc::clone(&self.open);
        settle(env, Abort::never(), |_| async move { open.close().await }, |_, ()| Ok(()))
    }

    /// As `close()`, for `await using`.
    #[napi(catch_unwind, well_known_symbol = "asyncDispose", ts_return_type = "Promise<void>")]
    pub fn dispose<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.close(env)
    }
}

impl EventStore {
    /// The store of the core.
    pub(super) fn store(&self, env: &Env) -> napi::Result<events::EventStore> {
        self.open.store().cloned().map_err(|error| reify(env, &error))
    }

    fn reading<T: Send + 'static>(
        &self,
        read: impl FnOnce(&events::EventStore) -> Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send + 'static {
        reading(Arc::clone(&self.open), read)
    }

    /// Hands events to the writer now, so that appends are in the order of calls; a promise that is rejected if there is
    /// something wrong with them.
    fn submit<'env>(
        &self,
        env: &'env Env,
        written: napi::Result<Option<JsString<'_>>>,
    ) -> napi::Result<
        std::result::Result<
            impl Future<Output = Result<Vec<events::StoredEvent>>> + Send + 'static,
            Object<'env>,
        >,
    > {
        let text = match written {
            Ok(Some(text)) => text.into_utf8()?.into_owned()?,
            Ok(None) => "null".to_owned(),
            Err(thrown) => {
                let message = format!("an event is not what JSON can say: {}", thrown.reason);
                let error = CoreError::new(Code::EventInvalid, message);
                let mut error = object(env, &error)?;
                error.set("cause", JsError::from(thrown).into_unknown(*env))?;
                return Ok(Err(rejected(env, error)?));
            }
        };
        let submitted = self
            .open
            .store()
            .and_then(|store| Ok(store.append_batch(events::EventStore::parse_events(&text)?)));
        match submitted {
            Ok(appended) => Ok(Ok(appended)),
            Err(error) => Ok(Err(rejected(env, object(env, &error)?)?)),
        }
    }
}

/// Reads on the blocking pool.
async fn reading<T: Send + 'static>(
    open: Arc<Open>,
    read: impl FnOnce(&events::EventStore) -> Result<T> + Send + 'static,
) -> Result<T> {
    blocking(move || {
        let _owner = memory::scope(Owner::Events);
        read(open.store()?)
    })
    .await
}

/// Feeds a stream until it stops or the store is closed. The store stays open for it.
async fn follow(
    open: Arc<Open>,
    what: FollowOptions,
    batches: mpsc::Sender<Result<Batch>>,
    stop: CancellationToken,
) {
    let feed = async {
        let mut follow = reading(open.clone(), move |store| store.follow(&what)).await?;
        while let Some(events) = follow.next().await? {
            for batch in element_batches(&events) {
                if batches.send(Ok(batch)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    };
    let outcome = tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        outcome = feed => outcome,
    };
    if let Err(error) = outcome {
        // Nobody listens to a stream that is gone.
        let _ = batches.send(Err(error)).await;
    }
}

/// Events as elements of a stream, in batches of at least one event and about [`SLICE_BYTES`].
fn element_batches(events: &[events::StoredEvent]) -> Vec<Batch> {
    let _owner = memory::scope(Owner::Node);
    let (mut batches, mut batch, mut bytes) = (Vec::new(), Batch::new(), 0);
    for event in events {
        let text = event.to_json();
        bytes += text.len();
        let element: Element = Box::new(move |env| parse_plain(env, &text));
        batch.push(element);
        if bytes >= SLICE_BYTES {
            bytes = 0;
            batches.push(std::mem::take(&mut batch));
        }
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

fn event_slices(events: &[events::StoredEvent]) -> std::collections::VecDeque<String> {
    let _owner = memory::scope(Owner::Node);
    json_slices(events, events::StoredEvent::write_json)
}

fn parsed(env: &Env, text: &str) -> napi::Result<Unknown<'static>> {
    let value = parse_plain(env, text)?;
    // The handle is used before the scope of this callback closes.
    Ok(Object::from_raw(env.raw(), value.raw()).to_unknown())
}

fn rejected<'env>(env: &'env Env, error: Object<'_>) -> napi::Result<Object<'env>> {
    let error = Object::from_raw(env.raw(), error.raw()).to_unknown();
    let promise = PromiseRaw::<'_, Unknown<'_>>::reject(env, error)?;
    Ok(Object::from_raw(env.raw(), promise.raw()))
}

#[expect(clippy::cast_precision_loss, reason = "nothing that is counted here comes near 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

fn limit(env: &Env, value: Option<Unknown<'_>>) -> napi::Result<Option<usize>> {
    Ok(count(env, "limit", value, 0)?.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)))
}

fn words(env: &Env, what: &str, value: Unknown<'_>) -> napi::Result<Vec<String>> {
    let wrong = || reify(env, &wrong_argument(what, "an array of strings", &value));
    if !value.is_array()? {
        return Err(wrong());
    }
    let text = stringify(env, value)?.unwrap_or_default();
    serde_json::from_slice(&text).map_err(|_| {
        reify(env, &CoreError::new(Code::Validation, format!("`{what}` must be an array of strings")))
    })
}

fn version_vector(env: &Env, value: Unknown<'_>) -> napi::Result<VersionVector> {
    if value.get_type()? != ValueType::Object {
        let expected = "an object from replica to numbers, as `version()` gives it";
        return Err(reify(env, &wrong_argument("since", expected, &value)));
    }
    let text = stringify(env, value)?.unwrap_or_default();
    VersionVector::from_json(&String::from_utf8_lossy(&text)).map_err(|error| reify(env, &error))
}

fn retention(
    env: &Env,
    max_age_ms: Option<Unknown<'_>>,
    max_bytes: Option<Unknown<'_>>,
) -> napi::Result<Retention> {
    let max_age = count(env, "maxAgeMs", max_age_ms, 0)?.map(Duration::from_millis);
    Ok(Retention { max_age, max_bytes: count(env, "maxBytes", max_bytes, 0)? })
}

fn read_options(env: &Env, options: Option<EventStoreOptions<'_>>) -> napi::Result<Options> {
    let mut read = Options::default();
    let Some(options) = options else { return Ok(read) };
    let flush = count(env, "flushMs", options.flush_ms, 1)?.unwrap_or(FLUSH_MS);
    let kinds =
        [("always", Durability::Always), ("interval", Durability::Interval(Duration::from_millis(flush)))];
    read.durability = word(env, "durability", options.durability, &kinds)?.unwrap_or_default();
    read.cache_bytes = count(env, "cacheBytes", options.cache_bytes, 256 << 10)?.unwrap_or(read.cache_bytes);
    if let Some(most) = count(env, "maxEventBytes", options.max_event_bytes, 1)? {
        read.max_event_bytes = usize::try_from(most).unwrap_or(usize::MAX);
    }
    read.replica = options.replica.map(|replica| text(env, "replica", replica)).transpose()?;
    read.read_only = flag(env, "readOnly", options.read_only)?.unwrap_or(false);
    match options.nats {
        Some(Either::A(link)) => read.nats = Some(nats_options(env, &link)?),
        Some(Either::B(other)) if other.get_type()? == ValueType::Object => {
            let message = "`nats` must have `servers`, an array of URLs, and `stream`, a name";
            return Err(reify(env, &CoreError::new(Code::Validation, message)));
        }
        Some(Either::B(other)) => return Err(reify(env, &wrong_argument("nats", "an object", &other))),
        None => {}
    }
    match options.retention {
        Some(Either::A(limits)) => read.retention = retention(env, limits.max_age_ms, limits.max_bytes)?,
        Some(Either::B(other)) => return Err(reify(env, &wrong_argument("retention", "an object", &other))),
        None => {}
    }
    Ok(read)
}

fn nats_options(env: &Env, options: &NatsOptions<'_>) -> napi::Result<nats::Options> {
    let servers = words(env, "nats.servers", options.servers)?;
    let stream = text(env, "nats.stream", options.stream)?;
    let credentials = options.credentials.map(|path| name(env, "nats.credentials", path)).transpose()?;
    nats::Options::new(&servers, &stream, credentials.map(Into::into)).map_err(|error| reify(env, &error))
}

/// `process.once`.
type Once<'env> = Function<'env, FnArgs<(&'static str, Function<'env, (), ()>)>, Unknown<'env>>;

/// Has a store closed when its JS thread ends: by its script's end or `process.exit()`, which the process tells, or,
/// for a worker thread, by being terminated, which only the environment tells.
fn close_at_exit(env: &Env, open: &Arc<Open>) -> napi::Result<()> {
    let first = OPENED.with_borrow_mut(|opened| {
        let first = opened.is_none();
        let opened = opened.get_or_insert_default();
        opened.retain(|other| other.strong_count() > 0);
        opened.push(Arc::downgrade(open));
        first
    });
    if first {
        env.add_env_cleanup_hook((), |()| close_all())?;
        let close = env.create_function_from_closure::<(), (), _>("closeEventStores", |_| {
            close_all();
            Ok(())
        })?;
        let global = env.get_global()?;
        if global.has_named_property("process")? {
            let process: Object<'_> = global.get_named_property("process")?;
            let once: Once<'_> = process.get_named_property("once")?;
            once.apply(process, ("exit", close).into())?;
        }
    }
    Ok(())
}

fn close_all() {
    let opened = OPENED.with_borrow(|opened| opened.clone().unwrap_or_default());
    for open in opened.iter().filter_map(Weak::upgrade) {
        open.close_blocking();
    }
}
