//! Promises: the only place where asynchronous work meets JavaScript.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

use napi::bindgen_prelude::{Object, ToNapiValue, Unknown};
use napi::{Env, JsValue};
use tokio_util::sync::CancellationToken;

use super::abort::{Abort, rejected};
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
    let token = abort.token();
    let work = untyped(work(abort.token()), finish);
    settle_untyped(env, abort, Box::pin(dropped_at(token, work)))
}

/// As [`settle`], for work whose effect must not be in doubt: it is told when the signal fires, and its own outcome
/// counts. Only if it then fails does the promise reject with the signal's reason.
pub(super) fn settle_in_the_end<T, V, W>(
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
    let work = untyped(work(abort.token()), finish);
    settle_untyped(env, abort, work)
}

/// Work, with what makes a JS value of its result, as types that are the same for all calls.
fn untyped<T, V>(
    work: impl Future<Output = Result<T>> + Send + 'static,
    finish: impl FnOnce(&Env, T) -> napi::Result<V> + Send + 'static,
) -> Work
where
    T: Send + 'static,
    V: ToNapiValue + 'static,
{
    Box::pin(async move {
        let value = work.await?;
        let finish = move |env: &Env| {
            // SAFETY: on the JS thread, in the scope of the call that settles the promise.
            let value = unsafe { V::to_napi_value(env.raw(), finish(env, value)?) }?;
            Ok(Object::from_raw(env.raw(), value).to_unknown())
        };
        Ok(Box::new(finish) as Finish)
    })
}

async fn dropped_at(token: CancellationToken, work: Work) -> Result<Finish> {
    tokio::select! {
        biased;
        () = token.cancelled() => Err(CoreError::new(Code::Internal, "aborted")),
        outcome = work => outcome,
    }
}

/// The promise that `call` makes, or one that rejects with its error: who calls asynchronously catches in one place.
pub(super) fn rejecting<'env>(
    env: &'env Env,
    call: impl FnOnce() -> napi::Result<Object<'env>>,
) -> napi::Result<Object<'env>> {
    call().or_else(|error| {
        let (deferred, promise) = env.create_deferred::<(), fn(Env) -> napi::Result<()>>()?;
        deferred.reject(error);
        Ok(promise)
    })
}

/// Makes the JS value of a result, on the JS thread.
type Finish = Box<dyn FnOnce(&Env) -> napi::Result<Unknown<'static>> + Send>;
type Work = Pin<Box<dyn Future<Output = Result<Finish>> + Send>>;

/// Knows neither results nor futures by type: what drives a promise is compiled once, and not once a call.
fn settle_untyped(env: &Env, abort: Abort, work: Work) -> napi::Result<Object<'_>> {
    let runtime = runtime().map_err(|error| reify(env, &error))?;
    let (deferred, promise) = env.create_deferred()?;
    runtime.spawn(async move {
        let outcome = catch_panic(work).await;
        deferred.resolve(move |env| {
            let answer = AssertUnwindSafe(|| {
                let aborted = abort.finish(&env)?;
                match (outcome, aborted) {
                    (Ok(finish), _) => finish(&env),
                    (Err(_), Some(reason)) => rejected(&env, reason),
                    (Err(error), None) => Err(reify(&env, &error)),
                }
            });
            catch_unwind(answer).unwrap_or_else(|panic| Err(reify(&env, &panicked(panic.as_ref()))))
        });
    });
    Ok(promise)
}

/// A panic of `work` is its outcome, not a promise that never settles.
async fn catch_panic<T>(mut work: Pin<Box<dyn Future<Output = Result<T>> + Send>>) -> Result<T> {
    poll_fn(move |context| {
        catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)))
            .unwrap_or_else(|panic| Poll::Ready(Err(panicked(panic.as_ref()))))
    })
    .await
}
