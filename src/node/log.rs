//! `onLog`.

use std::sync::{Arc, OnceLock};

use napi::bindgen_prelude::{Either, Function, JsValue, Object, Unknown};
use napi::threadsafe_function::ThreadsafeFunctionCallMode;
use napi::{Env, JsString, Status};
use napi_derive::napi;
use tracing::Level;

use super::error::{guard, reify};
use super::json;
use crate::config::json5::JsonText;
use crate::log::{Listener, listen, stop};
use crate::{Code, CoreError};

/// One record of the core's log.
#[allow(dead_code, reason = "a type for index.d.ts: records cross as one JSON text")]
#[napi(object, object_from_js = false)]
pub struct LogRecord {
    /// Milliseconds since 1970.
    pub time_ms: f64,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    /// The module that speaks.
    pub target: String,
    /// What it says.
    pub message: String,
    /// Its fields.
    #[napi(ts_type = "Record<string, unknown>")]
    pub fields: String,
}

/// Sends the core's log to a listener, in batches, on a later turn of the event loop. A listener that falls more than
/// 1,024 records behind misses some, and a record says how many. Listening does not keep the process alive.
///
/// Returns a function that stops it. Throws `VALIDATION` for a level that does not exist.
#[napi(
    catch_unwind,
    ts_args_type = "level: 'error' | 'warn' | 'info' | 'debug' | 'trace', listener: (records: LogRecord[]) => void",
    ts_return_type = "() => void"
)]
pub fn on_log<'env>(
    env: &'env Env,
    level: Either<JsString<'env>, Unknown<'env>>,
    listener: Function<'env, Unknown<'static>, Unknown<'static>>,
) -> napi::Result<Function<'env, (), ()>> {
    let word = String::from_utf8_lossy(&json::wtf8(env, "level", level)?).into_owned();
    let level = match word.as_str() {
        "error" => Level::ERROR,
        "warn" => Level::WARN,
        "info" => Level::INFO,
        "debug" => Level::DEBUG,
        "trace" => Level::TRACE,
        other => {
            let message = format!("`level` must be one of error, warn, info, debug, trace, not {other:?}");
            return Err(reify(env, &CoreError::new(Code::Validation, message)));
        }
    };
    let listener = listener.create_ref()?;
    let source: Arc<OnceLock<Arc<Listener>>> = Arc::default();
    let queue = Arc::clone(&source);
    let deliver = env.create_function_from_closure::<(), (), _>("onLog", move |call| {
        let records = queue.get().map(|queue| queue.drain()).unwrap_or_default();
        if records.is_empty() {
            return Ok(());
        }
        let text = serde_json::to_string(&records).map_err(|e| napi::Error::from_reason(e.to_string()))?;
        let batch = json::parse(call.env, &JsonText { text, nan: None })?;
        let batch = Object::from_raw(call.env.raw(), batch.raw()).to_unknown();
        listener.borrow_back(call.env)?.call(batch)?;
        Ok(())
    })?;
    let wake = deliver
        .build_threadsafe_function::<()>()
        .error_status::<Status>()
        .callee_handled::<false>()
        .weak::<true>()
        .max_queue_size::<1>()
        .build()?;
    let listening = Listener::new(level, move || {
        // A full queue means that a wake-up is already on its way.
        wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
    });
    // Before the first record, so that the first wake-up finds it; this is the only place that sets it.
    let _ = source.set(Arc::clone(&listening));
    guard(env, || {
        listen(&listening);
        Ok(())
    })?;
    env.create_function_from_closure("stopLog", move |_| {
        stop(&listening);
        Ok(())
    })
}
