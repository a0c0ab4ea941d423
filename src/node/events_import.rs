//! `EventStore.importOpenClaw`, `EventStore.exportTranscript` and `transcriptEvents`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use napi::bindgen_prelude::{Either, Function, FunctionRef, JsObjectValue, Object, Unknown};
use napi::threadsafe_function::ThreadsafeFunctionCallMode;
use napi::{Env, JsValue, Status};
use napi_derive::napi;

use super::abort::Abort;
use super::args::{checked, flag, name, stringify};
use super::error::{guard, reify, wrong_argument};
use super::events::EventStore;
use super::json::{parse_plain, string};
use super::settle::{settle, settle_in_the_end};
use crate::events::import::{ImportOptions, Progress, import};
use crate::events::openclaw::{self, Transcript};
use crate::memory::{self, Owner, owned};
use crate::runtime::blocking;

/// How to import.
#[napi(object, object_to_js = false)]
pub struct ImportOpenClawOptions<'env> {
    /// Whether to append nothing, and only tell what an import would do. Default: false.
    #[napi(ts_type = "boolean")]
    pub dry_run: Option<Unknown<'env>>,
    /// The Node that reads SQLite, in a process of its own: 22.15 or newer. Default: the one that runs this, and the
    /// `node` of PATH if that one has no `node:sqlite`.
    #[napi(ts_type = "string")]
    pub node: Option<Unknown<'env>>,
    /// Called now and then, in bytes of OpenClaw's files.
    #[napi(ts_type = "(progress: { done: number; total: number }) => void")]
    pub on_progress: Option<Either<Listener<'env>, Unknown<'env>>>,
    /// Aborts the call. What was appended before stays; another import goes on from there.
    #[napi(ts_type = "AbortSignal")]
    pub signal: Option<Unknown<'env>>,
}

/// What an import did, or would do.
#[allow(dead_code, reason = "a type for index.d.ts: the report crosses as one JSON text")]
#[napi(object, object_from_js = false)]
pub struct ImportReport {
    /// Sessions, by key, of which something was found.
    pub sessions: f64,
    /// Events that were added.
    pub events: f64,
    /// What was left out.
    pub skipped: Vec<ImportSkipped>,
    /// Events that were there already.
    pub already_present: f64,
}

/// Something that an import left out, and why.
#[allow(dead_code, reason = "a type for index.d.ts: the report crosses as one JSON text")]
#[napi(object, object_from_js = false)]
pub struct ImportSkipped {
    /// The file.
    pub file: String,
    /// 1-based; in a database, the row's `seq` + 1. 0 is the file as a whole.
    pub line: f64,
    /// Why.
    pub reason: String,
}

#[napi]
impl EventStore {
    /// Takes in what OpenClaw has recorded: `sessions.json` and JSONL of 2026.2 to 2026.5, SQLite of 2026.6 and later.
    /// The source is never written. What is there already is not added again, and what cannot be read is reported by
    /// file and line.
    #[napi(
        catch_unwind,
        js_name = "importOpenClaw",
        ts_args_type = "stateDir: string, options?: ImportOpenClawOptions",
        ts_return_type = "Promise<ImportReport>"
    )]
    pub fn import_openclaw<'env>(
        &self,
        env: &'env Env,
        state_dir: Unknown<'env>,
        options: Option<Either<ImportOpenClawOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<Object<'env>> {
        let state_dir = PathBuf::from(name(env, "stateDir", state_dir)?);
        let (dry_run, node, on_progress, signal) = match checked(env, options)? {
            Some(options) => (options.dry_run, options.node, options.on_progress, options.signal),
            None => (None, None, None, None),
        };
        let node = match node {
            Some(node) => vec![PathBuf::from(name(env, "node", node)?)],
            None => vec![exec_path(env)?, PathBuf::from("node")],
        };
        let dry_run = flag(env, "dryRun", dry_run)?.unwrap_or(false);
        let (tell, last) = match on_progress {
            Some(Either::A(listener)) => {
                teller(env, &listener).map(|(tell, last)| (Some(tell), Some(last)))?
            }
            Some(Either::B(other)) => {
                return Err(reify(env, &wrong_argument("onProgress", "a function", &other)));
            }
            None => (None, None),
        };
        let abort = Abort::from_signal(env, signal)?;
        let options = ImportOptions { dry_run, node, scratch: None };
        let store = self.store(env)?;
        settle_in_the_end(
            env,
            abort,
            |cancel| {
                owned(Owner::Events, async move {
                    let on_progress = |progress| {
                        if let Some(tell) = &tell {
                            tell(progress);
                        }
                    };
                    import(&store, &state_dir, &options, &cancel, on_progress).await
                })
            },
            move |env, report| {
                // Whoever waits for the report has seen the last of the progress.
                if let Some(last) = last {
                    last(env)?;
                }
                let text =
                    serde_json::to_string(&report).map_err(|e| napi::Error::from_reason(e.to_string()))?;
                Ok(Object::from_raw(env.raw(), parse_plain(env, &text)?.raw()).to_unknown())
            },
        )
    }

    /// One session as an OpenClaw transcript: JSONL, header version 4. If a session was reset, the stretch since.
    #[napi(catch_unwind, ts_args_type = "sessionKey: string", ts_return_type = "Promise<string>")]
    pub fn export_transcript<'env>(
        &self,
        env: &'env Env,
        session_key: Unknown<'env>,
    ) -> napi::Result<Object<'env>> {
        let session_key = name(env, "sessionKey", session_key)?;
        let store = self.store(env)?;
        let export = move || {
            let _owner = memory::scope(Owner::Events);
            store.export_transcript(&session_key)
        };
        settle(
            env,
            Abort::never(),
            |_| blocking(export),
            |env, text| Ok(Object::from_raw(env.raw(), string(env, &text)?.raw()).to_unknown()),
        )
    }
}

/// Whose transcript it is, for `transcriptEvents`.
#[napi(object, object_to_js = false)]
pub struct TranscriptOwner<'env> {
    /// The session key.
    #[napi(ts_type = "string")]
    pub session_key: Unknown<'env>,
    /// The agent.
    #[napi(ts_type = "string")]
    pub agent_id: Unknown<'env>,
    /// OpenClaw's id of this stretch of the session.
    #[napi(ts_type = "string")]
    pub session_id: Unknown<'env>,
    /// The time of entries that bear none, in milliseconds since 1970.
    pub written_ms: Option<f64>,
}

/// The events that entries of an OpenClaw transcript are: the same, with the same ids, as an import gives.
///
/// Throws `EVENT_INVALID` for an entry that is not an object.
#[napi(
    catch_unwind,
    ts_args_type = "transcript: TranscriptOwner, entries: unknown[]",
    ts_return_type = "NewEvent[]"
)]
#[allow(clippy::needless_pass_by_value, reason = "napi gives objects by value")]
pub fn transcript_events<'env>(
    env: &'env Env,
    transcript: TranscriptOwner<'env>,
    entries: Unknown<'env>,
) -> napi::Result<Unknown<'env>> {
    let session_key = name(env, "sessionKey", transcript.session_key)?;
    let agent_id = name(env, "agentId", transcript.agent_id)?;
    let session_id = name(env, "sessionId", transcript.session_id)?;
    // What JSON cannot say is no array of entries either.
    let entries = stringify(env, entries)?.unwrap_or_default();
    #[allow(clippy::cast_possible_truncation)]
    let written_ms = transcript.written_ms.filter(|ms| ms.abs() <= 8.64e15).map(|ms| ms as i64);
    let text = guard(env, || {
        let owner = Transcript { session_key: &session_key, agent_id: &agent_id, session_id: &session_id };
        openclaw::transcript_events_json(&owner, &String::from_utf8_lossy(&entries), written_ms)
    })?;
    parse_plain(env, &text)
}

type Listener<'env> = Function<'env, Unknown<'static>, Unknown<'static>>;
type ListenerRef = FunctionRef<Unknown<'static>, Unknown<'static>>;
type Tell = Box<dyn Fn(Progress) + Send + Sync>;
type Last = Box<dyn FnOnce(&Env) -> napi::Result<()> + Send>;

/// What tells a listener how far an import is, on a later turn of the event loop, and what tells it at once.
fn teller(env: &Env, listener: &Listener<'_>) -> napi::Result<(Tell, Last)> {
    let listener = Arc::new(listener.create_ref()?);
    let latest: Arc<Mutex<Option<Progress>>> = Arc::default();
    let (to_deliver, listening) = (Arc::clone(&latest), Arc::clone(&listener));
    let deliver = env.create_function_from_closure::<(), (), _>("onProgress", move |call| {
        tell(call.env, &to_deliver, &listening)
    })?;
    let wake = deliver
        .build_threadsafe_function::<()>()
        .error_status::<Status>()
        .callee_handled::<false>()
        .weak::<true>()
        .max_queue_size::<1>()
        .build()?;
    let to_finish = Arc::clone(&latest);
    let told: Tell = Box::new(move |progress| {
        *latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
        // A full queue means that a wake-up is already on its way.
        wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
    });
    Ok((told, Box::new(move |env| tell(env, &to_finish, &listener))))
}

fn tell(env: &Env, latest: &Mutex<Option<Progress>>, listener: &ListenerRef) -> napi::Result<()> {
    let progress = latest.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(Progress { done, total }) = progress else { return Ok(()) };
    let text = format!("{{\"done\":{done},\"total\":{total}}}");
    let progress = parse_plain(env, &text)?;
    let progress = Object::from_raw(env.raw(), progress.raw()).to_unknown();
    listener.borrow_back(env)?.call(progress)?;
    Ok(())
}

/// `process.execPath`.
fn exec_path(env: &Env) -> napi::Result<PathBuf> {
    let process: Object<'_> = env.get_global()?.get_named_property("process")?;
    process.get_named_property::<String>("execPath").map(PathBuf::from)
}
