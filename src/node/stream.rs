//! Async iterables: iterable themselves, in order, cancelled by `break`, and coded errors throughout.
//!
//! Elements cross in batches. A `next()` that finds none ready asks once for everything that is; the calls after it
//! are answered from that, on the JS thread alone, with promises that are resolved already.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napi::bindgen_prelude::{
    FnArgs, Function, FunctionRef, JsObjectValue, Object, PromiseRaw, This, Unknown,
};
use napi::{Env, JsError, JsValue};
use napi_derive::napi;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::abort::Abort;
use super::error::object;
use super::script::call;
use super::settle::settle;
use crate::{CoreError, Result};

/// Makes one element on the JS thread.
pub(super) type Element = Box<dyn for<'env> FnOnce(&'env Env) -> napi::Result<Unknown<'env>> + Send>;

/// Elements that were ready together. Its sender bounds its size: up to [`BATCHES`] of them wait in a stream, beside
/// those in the channel.
pub(super) type Batch = Vec<Element>;

/// Batches that are taken from the channel at once.
const BATCHES: usize = 8;

/// An async iterable over what the core sends. `break` (or `return()`) stops the producer; the stream ends when the
/// producer drops its sender. An error ends it too.
#[napi]
pub struct CoreStream {
    state: Arc<Mutex<State>>,
    stop: CancellationToken,
}

struct State {
    /// Not here while a task waits on it.
    source: Option<mpsc::Receiver<Result<Batch>>>,
    /// What has crossed and was not asked for yet.
    ready: VecDeque<Result<Element>>,
    /// Calls that found nothing ready, oldest first.
    waiting: VecDeque<Waiting>,
    ended: bool,
    /// Until the stream has ended.
    abort: Option<Abort>,
}

/// Settles the promise of a call: whether it is fulfilled, and with what.
type Waiting = FunctionRef<FnArgs<(bool, Unknown<'static>)>, Unknown<'static>>;

/// What a call is answered with.
enum Answer {
    Element(Element),
    Failed(CoreError),
    /// With the signal's reason, for the first that asks.
    Ended(Option<Abort>),
}

impl CoreStream {
    /// A stream over `source`; the producer watches `stop`, a child of the token of `abort`. When the signal fires,
    /// the stream ends with the signal's reason.
    pub(super) fn new(source: mpsc::Receiver<Result<Batch>>, stop: CancellationToken, abort: Abort) -> Self {
        let state = State {
            source: Some(source),
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
            ended: false,
            abort: Some(abort),
        };
        Self { state: Arc::new(Mutex::new(state)), stop }
    }

    fn ended<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.stop.cancel();
        let mut state = lock(&self.state);
        state.end();
        // The consumer has left: a reason to leave is of no interest any more.
        let abort = state.abort.take();
        let earlier = !state.waiting.is_empty();
        drop(state);
        if let Some(abort) = abort {
            abort.finish(env)?;
        }
        if earlier { self.wait(env) } else { settled(env, true, iterator_result(env, None)?) }
    }

    /// A promise that is settled after those before it.
    fn wait<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let deferred: Object<'_> = call(env, "deferred", ())?;
        let settle: Function<'_, FnArgs<(bool, Unknown<'static>)>, Unknown<'static>> =
            deferred.get_named_property("settle")?;
        lock(&self.state).waiting.push_back(settle.create_ref()?);
        fill(env, &self.state, &self.stop)?;
        let promise = deferred.get_named_property::<Object<'_>>("promise")?;
        Ok(Object::from_raw(env.raw(), promise.raw()))
    }
}

impl Drop for CoreStream {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl State {
    /// Nothing more comes.
    fn end(&mut self) {
        self.ended = true;
        self.ready.clear();
    }

    /// What the oldest call is answered with, unless it has to wait.
    fn answer(&mut self) -> Option<Answer> {
        match self.ready.pop_front() {
            Some(Ok(element)) => Some(Answer::Element(element)),
            Some(Err(error)) => {
                self.end();
                Some(Answer::Failed(error))
            }
            None if self.ended => Some(Answer::Ended(self.abort.take())),
            None => None,
        }
    }
}

#[napi]
impl CoreStream {
    /// The next element.
    #[napi(catch_unwind, ts_return_type = "Promise<IteratorResult<unknown, undefined>>")]
    pub fn next<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let mut state = lock(&self.state);
        if self.stop.is_cancelled() {
            state.end();
        }
        let answer = if state.waiting.is_empty() { state.answer() } else { None };
        drop(state);
        let Some(answer) = answer else { return self.wait(env) };
        let (ok, value) = convert(env, answer, &self.stop);
        settled(env, ok, value)
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

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes everything that is ready across, unless a task is at it; then answers who waits, in order.
fn fill(env: &Env, state: &Arc<Mutex<State>>, stop: &CancellationToken) -> napi::Result<()> {
    let Some(mut source) = lock(state).source.take() else { return Ok(()) };
    let stopped = stop.clone();
    let take = async move {
        let mut batches = Vec::new();
        tokio::select! {
            biased;
            () = stopped.cancelled() => {}
            _ = source.recv_many(&mut batches, BATCHES) => {}
        }
        Ok((source, batches))
    };
    let (state, stop) = (Arc::clone(state), stop.clone());
    // Nobody sees this promise: each call has one of its own.
    settle(
        env,
        Abort::never(),
        |_| take,
        move |env, (source, batches)| {
            let mut now = lock(&state);
            now.source = Some(source);
            if batches.is_empty() {
                now.end();
            } else if !now.ended {
                for batch in batches {
                    match batch {
                        Ok(elements) => now.ready.extend(elements.into_iter().map(Ok)),
                        Err(error) => now.ready.push_back(Err(error)),
                    }
                }
            }
            drop(now);
            answer_waiting(env, &state, &stop)
        },
    )?;
    Ok(())
}

fn answer_waiting(env: &Env, state: &Arc<Mutex<State>>, stop: &CancellationToken) -> napi::Result<()> {
    loop {
        // Neither an element nor a promise is touched under the lock: both run JavaScript.
        let mut now = lock(state);
        if now.waiting.is_empty() {
            return Ok(());
        }
        let Some(answer) = now.answer() else { break };
        let waiting = now.waiting.pop_front();
        drop(now);
        let (ok, value) = convert(env, answer, stop);
        if let Some(waiting) = waiting {
            waiting.borrow_back(env)?.call((ok, value).into())?;
        }
    }
    fill(env, state, stop)
}

/// Whether a promise is fulfilled, and with what.
fn convert(env: &Env, answer: Answer, stop: &CancellationToken) -> (bool, Unknown<'static>) {
    let converted = match answer {
        Answer::Element(element) => iterator_result(env, Some(element)).map(|result| (true, result)),
        Answer::Failed(error) => {
            stop.cancel();
            object(env, &error).map(|object| (false, unbound(env, &object)))
        }
        Answer::Ended(abort) => match abort.map_or(Ok(None), |abort| abort.finish(env)) {
            Ok(Some(reason)) => Ok((false, reason)),
            Ok(None) => iterator_result(env, None).map(|result| (true, result)),
            Err(error) => Err(error),
        },
    };
    converted.unwrap_or_else(|error| (false, unbound(env, &JsError::from(error).into_unknown(*env))))
}

fn iterator_result(env: &Env, element: Option<Element>) -> napi::Result<Unknown<'static>> {
    let mut result = Object::new(env)?;
    result.set("done", element.is_none())?;
    if let Some(element) = element {
        result.set("value", element(env)?)?;
    }
    Ok(unbound(env, &result))
}

/// The handle is used before the scope of this callback closes.
fn unbound<'env>(env: &Env, value: &impl JsValue<'env>) -> Unknown<'static> {
    Object::from_raw(env.raw(), value.raw()).to_unknown()
}

fn settled<'env>(env: &'env Env, ok: bool, value: Unknown<'static>) -> napi::Result<Object<'env>> {
    let promise = if ok { PromiseRaw::resolve(env, value)? } else { PromiseRaw::reject(env, value)? };
    Ok(Object::from_raw(env.raw(), promise.raw()))
}
