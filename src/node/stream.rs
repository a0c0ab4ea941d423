//! Async iterables: iterable themselves, in order, cancelled by `break`, and coded errors throughout.

use std::sync::{Arc, Mutex, PoisonError};

use napi::bindgen_prelude::{Object, This, Unknown};
use napi::{Env, JsValue};
use napi_derive::napi;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::abort::{Abort, rejected};
use super::settle::settle;
use crate::Result;

/// Makes one element on the JS thread.
pub(super) type Element = Box<dyn for<'env> FnOnce(&'env Env) -> napi::Result<Unknown<'env>> + Send>;

/// An async iterable over what the core sends. `break` (or `return()`) stops the producer; the stream ends when the
/// producer drops its sender. An error ends it too.
#[napi]
pub struct CoreStream {
    source: Arc<tokio::sync::Mutex<mpsc::Receiver<Result<Element>>>>,
    /// Settled when the latest `next()` has taken its element, so that parallel calls are answered in order.
    turn: Mutex<Option<oneshot::Receiver<()>>>,
    stop: CancellationToken,
    /// Until the stream has ended.
    abort: Arc<Mutex<Option<Abort>>>,
}

impl CoreStream {
    /// A stream over `source`; the producer watches `stop`, a child of the token of `abort`. When the signal fires,
    /// the stream ends with the signal's reason.
    pub(super) fn new(
        source: mpsc::Receiver<Result<Element>>,
        stop: CancellationToken,
        abort: Abort,
    ) -> Self {
        let abort = Arc::new(Mutex::new(Some(abort)));
        Self { source: Arc::new(tokio::sync::Mutex::new(source)), turn: Mutex::default(), stop, abort }
    }

    fn ended<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.stop.cancel();
        // The consumer has left: a reason to leave is of no interest any more.
        let _ = finish(&self.abort, env)?;
        settle(env, Abort::never(), |_| async { Ok(None) }, iterator_result)
    }
}

impl Drop for CoreStream {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[napi]
impl CoreStream {
    /// The next element.
    #[napi(catch_unwind, ts_return_type = "Promise<IteratorResult<unknown, undefined>>")]
    pub fn next<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let (done, mine) = oneshot::channel();
        let before = self.turn.lock().unwrap_or_else(PoisonError::into_inner).replace(mine);
        let (source, stop) = (Arc::clone(&self.source), self.stop.clone());
        let take = async move {
            if let Some(before) = before {
                // An error here only means that the call before this one has gone.
                let _ = before.await;
            }
            let element = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                element = async { source.lock().await.recv().await } => element,
            };
            drop(done);
            element.transpose()
        };
        let abort = Arc::clone(&self.abort);
        settle(
            env,
            Abort::never(),
            |_| take,
            move |env, element| {
                let reason = if element.is_none() { finish(&abort, env)? } else { None };
                reason.map_or_else(|| iterator_result(env, element), |reason| rejected(env, reason))
            },
        )
    }

    /// Stops the producer.
    #[napi(catch_unwind, js_name = "return", ts_return_type = "Promise<IteratorResult<unknown, undefined>>")]
    pub fn finish<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.ended(env)
    }

    /// The stream itself.
    #[napi(catch_unwind, well_known_symbol = "asyncIterator", ts_return_type = "this")]
    pub fn iterator<'env>(&self, this: This<'env>) -> Object<'env> {
        this.object
    }

    /// Stops the producer, for `await using`.
    #[napi(catch_unwind, well_known_symbol = "asyncDispose", ts_return_type = "Promise<unknown>")]
    pub fn dispose<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.ended(env)
    }
}

/// Stops listening to the signal, once; its reason if it has fired.
fn finish(abort: &Mutex<Option<Abort>>, env: &Env) -> napi::Result<Option<Unknown<'static>>> {
    let abort = abort.lock().unwrap_or_else(PoisonError::into_inner).take();
    abort.map_or(Ok(None), |abort| abort.finish(env))
}

fn iterator_result(env: &Env, element: Option<Element>) -> napi::Result<Unknown<'static>> {
    let mut result = Object::new(env)?;
    result.set("done", element.is_none())?;
    if let Some(element) = element {
        result.set("value", element(env)?)?;
    }
    // The handle is used before this callback's scope closes.
    Ok(Object::from_raw(env.raw(), result.raw()).to_unknown())
}
