//! Promises: the only place where asynchronous work meets JavaScript.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

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
        let outcome = tokio::select! {
            biased;
            () = token.cancelled() => None,
            outcome = catch_panic(work) => Some(outcome),
        };
        deferred.resolve(move |env| {
            let answer = AssertUnwindSafe(|| {
                let aborted = abort.finish(&env)?;
                match (outcome, aborted) {
                    (Some(Ok(value)), _) => finish(&env, value),
                    (Some(Err(error)), _) => Err(reify(&env, &error)),
                    (None, Some(reason)) => Err(reason),
                    (None, None) => Err(reify(&env, &CoreError::new(Code::Internal, "cancelled by nobody"))),
                }
            });
            catch_unwind(answer).unwrap_or_else(|panic| Err(reify(&env, &panicked(panic.as_ref()))))
        });
    });
    Ok(promise)
}

/// A panic of `work` is its outcome, not a promise that never settles.
async fn catch_panic<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut work = pin!(work);
    poll_fn(move |context| {
        catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)))
            .unwrap_or_else(|panic| Poll::Ready(Err(panicked(panic.as_ref()))))
    })
    .await
}
