//! The shapes of the event store's arguments and results, for `index.d.ts`: most cross as text.

use napi::bindgen_prelude::{Either, Unknown};
use napi_derive::napi;

/// An event as it is given. What else there is to say belongs into `data`: other members are refused.
#[napi(object, object_to_js = false)]
#[expect(dead_code, reason = "declares the type; events cross as one JSON text")]
pub struct NewEvent<'env> {
    /// The session it belongs to: at most 1,024 bytes, and no control characters.
    #[napi(ts_type = "string")]
    pub session_key: Unknown<'env>,
    /// The agent: at most 512 bytes, as the kind and the id.
    #[napi(ts_type = "string")]
    pub agent_id: Unknown<'env>,
    /// What happened.
    #[napi(ts_type = "EventKind")]
    pub kind: Unknown<'env>,
    /// Anything that `JSON.stringify` takes, kept as it writes it; undefined is null.
    #[napi(ts_type = "unknown")]
    pub data: Unknown<'env>,
    /// When it happened, in milliseconds since 1970; now by default.
    #[napi(ts_type = "number")]
    pub timestamp_ms: Option<Unknown<'env>>,
    /// The same id twice is one event: the first. By default a new one.
    #[napi(ts_type = "string")]
    pub id: Option<Unknown<'env>>,
}

/// An event of the log.
#[napi(object, object_from_js = false)]
#[allow(dead_code, reason = "declares the type; events cross as one JSON text")]
pub struct StoredEvent {
    /// The session it belongs to.
    pub session_key: String,
    /// The agent.
    pub agent_id: String,
    /// What happened.
    #[napi(ts_type = "EventKind")]
    pub kind: String,
    /// What was given.
    #[napi(ts_type = "unknown")]
    pub data: String,
    /// When it happened, in milliseconds since 1970.
    pub timestamp_ms: f64,
    /// Names the event in every store.
    pub id: String,
    /// 1, 2, 3 … in its session in the order of arrival in this store: no gaps, never renumbered.
    pub seq: f64,
    /// Who wrote it first.
    pub origin: EventOrigin,
    /// When it was written, by the origin's hybrid logical clock: 16 hexadecimal digits, which sort as text.
    pub clock: String,
    /// BLAKE3 over the hash of the event before it of this session and origin, and the event: the same on every replica.
    pub hash: String,
}

/// Who wrote an event first.
#[napi(object, object_from_js = false)]
pub struct EventOrigin {
    /// The replica.
    pub replica: String,
    /// The event's `seq` there.
    pub seq: f64,
}

/// What is known of a session without reading it. It depends on the set of its events alone: replicas that have the same
/// events have the same projection.
#[napi(object, object_from_js = false)]
#[allow(dead_code, reason = "declares the type; projections cross as text")]
pub struct Projection {
    /// The session.
    pub session_key: String,
    /// The agent of its latest event.
    pub agent_id: String,
    /// The time of its earliest event.
    pub first_ms: f64,
    /// The time of its latest event.
    pub last_ms: f64,
    /// Its events.
    pub events: f64,
    /// Those of kind `message_received`, `message_sent` or `agent_response`.
    pub messages: f64,
    /// Those of kind `tool_called`.
    pub tool_calls: f64,
    /// Whether it was ended, and neither started again nor written to since.
    pub ended: bool,
    /// Sums over its agent's responses.
    #[napi(ts_type = "Omit<Usage, 'cost'> & { cost?: Partial<NonNullable<Usage['cost']>> }")]
    pub usage: String,
    /// What its `state_changed` events made: the last writer of each key wins.
    #[napi(ts_type = "Record<string, unknown>")]
    pub state: String,
    /// The beginning of its latest message.
    pub last_message: Option<String>,
}

/// How long events are kept.
#[napi(object, object_to_js = false)]
pub struct RetentionOptions<'env> {
    /// Sessions whose latest event is older go.
    #[napi(ts_type = "number")]
    pub max_age_ms: Option<Unknown<'env>>,
    /// The oldest sessions go, ended ones first, until the bytes of the events fit.
    #[napi(ts_type = "number")]
    pub max_bytes: Option<Unknown<'env>>,
}

/// Where the log is shared between gateways: a stream of NATS `JetStream`.
#[napi(object, object_to_js = false)]
pub struct NatsOptions<'env> {
    /// URLs such as `nats://127.0.0.1:4222`, or `tls://` ones.
    #[napi(ts_type = "string[]")]
    pub servers: Unknown<'env>,
    /// The stream's name, which is made if need be: letters, digits, `_` or `-`.
    #[napi(ts_type = "string")]
    pub stream: Unknown<'env>,
    /// The path of a credentials file.
    #[napi(ts_type = "string")]
    pub credentials: Option<Unknown<'env>>,
}

/// How the link to a NATS server fares.
#[napi(object, object_from_js = false)]
#[allow(dead_code, reason = "declares the type; the status crosses as one JSON text")]
pub struct NatsStatus {
    /// `connecting` while no server is reached, `catching_up` while there are events to send or to take in, `live` when
    /// there are none, `stopped` when the store is closed.
    #[napi(ts_type = "'connecting' | 'catching_up' | 'live' | 'stopped'")]
    pub state: String,
    /// The stream's name.
    pub stream: String,
    /// Host and port of the server, when connected.
    #[napi(ts_type = "string | null")]
    pub server: Option<String>,
    /// What this store wrote up to this number is in the stream.
    pub sent: f64,
    /// How many more numbers there are to send.
    pub unsent: f64,
    /// All of the stream up to this sequence is in this store.
    pub received: f64,
    /// How many more messages there are to take in, as the server last said.
    pub pending: f64,
    /// Messages that left the stream before this store saw them: the first and last sequence, and how many.
    #[napi(ts_type = "{ first: number; last: number; messages: number } | null")]
    pub gap: Option<String>,
    /// Messages that could not be merged.
    pub rejected: f64,
    /// Set when another store writes under this one's name: nothing is sent any more.
    #[napi(ts_type = "string | null")]
    pub conflict: Option<String>,
    /// Limits of the stream by which messages may go before a store has seen them.
    #[napi(ts_type = "string | null")]
    pub forgets: Option<String>,
    /// What went wrong last; null when it goes well again.
    #[napi(ts_type = "string | null")]
    pub error: Option<String>,
}

/// How a store is opened.
#[napi(object, object_to_js = false)]
pub struct EventStoreOptions<'env> {
    /// "always", the default: a resolved append is on disk. "interval": the end of the process without `close()`, or of
    /// the machine, loses at most the last `flushMs`.
    #[napi(ts_type = "'always' | 'interval'")]
    pub durability: Option<Unknown<'env>>,
    /// Milliseconds, with "interval". Default: 100.
    #[napi(ts_type = "number")]
    pub flush_ms: Option<Unknown<'env>>,
    /// Bytes that the database may use as a cache, at least 256 KiB. Default: 32 MiB.
    #[napi(ts_type = "number")]
    pub cache_bytes: Option<Unknown<'env>>,
    /// Bytes of one event's data as JSON, beyond which it is refused with `EVENT_TOO_LARGE`. Default: 16 MiB; at most
    /// 64 MiB.
    #[napi(ts_type = "number")]
    pub max_event_bytes: Option<Unknown<'env>>,
    /// The name under which a new store writes, unique among all that exchange events: up to 64 letters, digits, `_` or
    /// `-`. Default: a random one.
    #[napi(ts_type = "string")]
    pub replica: Option<Unknown<'env>>,
    /// Whether to open a copy of the store as it is now, which can be read while another process writes. Default: false.
    #[napi(ts_type = "boolean")]
    pub read_only: Option<Unknown<'env>>,
    /// What is pruned by itself while the store is open. Default: nothing.
    #[napi(ts_type = "RetentionOptions")]
    pub retention: Option<Either<RetentionOptions<'env>, Unknown<'env>>>,
    /// Where the log is shared with other gateways, which then all have the same events. The store works on while no
    /// server is reached. Default: nowhere.
    #[napi(ts_type = "NatsOptions")]
    pub nats: Option<Either<NatsOptions<'env>, Unknown<'env>>>,
}

/// Which events of a session to read.
#[napi(object, object_to_js = false)]
pub struct ReadEventsOptions<'env> {
    /// Only those with a greater `seq`.
    #[napi(ts_type = "number")]
    pub after: Option<Unknown<'env>>,
    /// Only those with a smaller `seq`.
    #[napi(ts_type = "number")]
    pub before: Option<Unknown<'env>>,
    /// At most so many.
    #[napi(ts_type = "number")]
    pub limit: Option<Unknown<'env>>,
    /// From the last to the first. Default: false.
    #[napi(ts_type = "boolean")]
    pub reverse: Option<Unknown<'env>>,
    /// Only these kinds. By default all but `session_deleted`.
    #[napi(ts_type = "EventKind[]")]
    pub kinds: Option<Unknown<'env>>,
}

/// What to follow.
#[napi(object, object_to_js = false)]
pub struct FollowEventsOptions<'env> {
    /// One session; all by default.
    #[napi(ts_type = "string")]
    pub session_key: Option<Unknown<'env>>,
    /// The id of an event: only those that arrived after it.
    #[napi(ts_type = "string")]
    pub after: Option<Unknown<'env>>,
    /// Ends the stream with the signal's reason.
    #[napi(ts_type = "AbortSignal")]
    pub signal: Option<Unknown<'env>>,
}

/// Which sessions to list.
#[napi(object, object_to_js = false)]
pub struct ListSessionsOptions<'env> {
    /// Only keys that begin so.
    #[napi(ts_type = "string")]
    pub prefix: Option<Unknown<'env>>,
    /// Only those of this agent.
    #[napi(ts_type = "string")]
    pub agent_id: Option<Unknown<'env>>,
    /// The key of a session: only those that come after it in the order.
    #[napi(ts_type = "string")]
    pub after: Option<Unknown<'env>>,
    /// At most so many.
    #[napi(ts_type = "number")]
    pub limit: Option<Unknown<'env>>,
    /// "recent", the default: the session with the latest event first. "key": by their keys.
    #[napi(ts_type = "'recent' | 'key'")]
    pub order: Option<Unknown<'env>>,
}

/// What to prune.
#[napi(object, object_to_js = false)]
pub struct PruneOptions<'env> {
    /// Sessions whose latest event is older go.
    #[napi(ts_type = "number")]
    pub max_age_ms: Option<Unknown<'env>>,
    /// The oldest sessions go, ended ones first, until the bytes of the events fit.
    #[napi(ts_type = "number")]
    pub max_bytes: Option<Unknown<'env>>,
    /// Aborts the call; what is pruned by then stays so.
    #[napi(ts_type = "AbortSignal")]
    pub signal: Option<Unknown<'env>>,
}

/// What a pruning took away.
#[napi(object, object_from_js = false)]
pub struct PruneReport {
    /// Sessions.
    pub sessions: f64,
    /// Their events.
    pub events: f64,
    /// The events' bytes.
    pub bytes: f64,
}

/// What aborts a call.
#[napi(object, object_to_js = false)]
pub struct AbortOptions<'env> {
    /// The call rejects with its reason.
    #[napi(ts_type = "AbortSignal")]
    pub signal: Option<Unknown<'env>>,
}

/// Bytes on disk.
#[napi(object, object_from_js = false)]
pub struct CompactReport {
    /// Before.
    pub before: f64,
    /// After.
    pub after: f64,
}

/// What to hand over.
#[napi(object, object_to_js = false)]
pub struct ChangesOptions<'env> {
    /// At most so many events.
    #[napi(ts_type = "number")]
    pub limit: Option<Unknown<'env>>,
}

/// What a merge took in.
#[napi(object, object_from_js = false)]
pub struct MergeReport {
    /// Events that were new.
    pub applied: f64,
    /// Events that were known.
    pub known: f64,
}

/// How to check.
#[napi(object, object_to_js = false)]
pub struct VerifyOptions<'env> {
    /// Whether to write the database anew from its records alone, projections and indices included, before. Default:
    /// false.
    #[napi(ts_type = "boolean")]
    pub rebuild: Option<Unknown<'env>>,
    /// Aborts the call.
    #[napi(ts_type = "AbortSignal")]
    pub signal: Option<Unknown<'env>>,
}

/// What a check found.
#[napi(object, object_from_js = false)]
pub struct VerifyReport {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// Sessions that were checked.
    pub sessions: f64,
    /// Events that were checked.
    pub events: f64,
    /// What is wrong.
    pub problems: Vec<EventProblem>,
}

/// Something wrong with an event, or with what is derived from a session.
#[napi(object, object_from_js = false)]
pub struct EventProblem {
    /// The session.
    pub session_key: String,
    /// The event; 0 for the session as a whole.
    pub seq: f64,
    /// What is wrong.
    pub problem: String,
}

/// Sizes of a store.
#[napi(object, object_from_js = false)]
pub struct EventStoreStats {
    /// Sessions with events.
    pub sessions: f64,
    /// Their events.
    pub events: f64,
    /// Bytes on disk.
    pub disk_bytes: f64,
    /// Bytes that all open stores of this process hold, outside of V8.
    pub memory_bytes: f64,
    /// The link to a NATS server, if the store was opened with one.
    #[napi(ts_type = "NatsStatus")]
    pub nats: Option<Unknown<'static>>,
}
