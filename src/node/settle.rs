//! Promises: the only place where asynchronous work meets JavaScript.

use std::future::Future;

use napi::Env;
use napi::bindgen_prelude::{Object, ToNapiValue};
use tokio_util::sync::CancellationToken;

use super::abort::Abort;
use super::error::{panicked, reify};
use crate::runtime::runtime;
use crate::{Code, CoreError, Result};

/// Runs `work` on the runtime and settles a promise with what `finish` makes of its result on the JS thread.
///
/// A core error rejects with its code, a panic with `INTERNAL`. When the signal fires, the work is dropped at
/// once and the promise rejects with the signal's reason.
pub(super) fn settle<T, V, W>(
    env: &Env,
    abort: Abort,
    work: impl FnOnce(CancellationToken) -> W,
    finish: impl FnOnce(&Env, T) -> napi::Result<V> + Send + 'static,
) -> napi::Result<Object<'_>>
where
    T: Send + 'static,
    V: ToNapiValue + 'static,
    W: Future<Output = Result<T>> + Send + 'static,
{
    let runtime = runtime().map_err(|error| reify(env, &error))?;
    let (deferred, promise) = env.create_deferred()?;
    let token = abort.token();
    let work = work(token.clone());
    runtime.spawn(async move {
        // A task of its own, so that a panic is an outcome here and not a promise that never settles.
        let mut task = tokio::spawn(work);
        let outcome = tokio::select! {
            biased;
            () = token.cancelled() => {
                task.abort();
                None
            }
            joined = &mut task => Some(joined),
        };
        let outcome = outcome.map(|joined| match joined {
            Ok(outcome) => outcome,
            Err(error) if error.is_panic() => Err(panicked(error.into_panic().as_ref())),
            Err(error) => Err(CoreError::new(Code::Internal, format!("the task ended early: {error}"))),
        });
        deferred.resolve(move |env| {
            let aborted = abort.finish(&env)?;
            match (outcome, aborted) {
                (Some(Ok(value)), _) => finish(&env, value),
                (Some(Err(error)), _) => Err(reify(&env, &error)),
                (None, Some(reason)) => Err(reason),
                (None, None) => Err(reify(&env, &CoreError::new(Code::Internal, "cancelled by nobody"))),
            }
        });
    });
    Ok(promise)
}
