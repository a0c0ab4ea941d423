//! `Config.watch`.

use std::sync::Arc;

use napi::bindgen_prelude::{Either, JavaScriptClassExt, Object, Unknown};
use napi::{Env, JsValue};
use napi_derive::napi;
use tokio::sync::mpsc;

use super::abort::Abort;
use super::args::checked;
use super::config::Config;
use super::error::{object, reify};
use super::stream::{CoreStream, Element};
use crate::config::Update;
use crate::runtime::runtime;

/// What ends a watch.
#[napi(object, object_to_js = false)]
pub struct ConfigWatchOptions<'env> {
    /// Ends it with the signal's reason.
    #[napi(ts_type = "AbortSignal")]
    pub signal: Option<Unknown<'env>>,
}

/// What a watch has found: a good revision or an error.
#[napi(object, object_from_js = false)]
#[allow(dead_code, reason = "declares the type; the object is made where its parts are")]
pub struct ConfigUpdate<'env> {
    /// The new good revision.
    #[napi(ts_type = "Config")]
    pub config: Option<Object<'env>>,
    /// Why there is none; the last good one stays.
    #[napi(ts_type = "Error & { code: string }")]
    pub error: Option<Object<'env>>,
    /// The config paths whose values differ from the last good revision; none with an error.
    pub changed_paths: Vec<String>,
}

#[napi]
impl Config {
    /// Each new good revision of the config and of its included files, coalesced, with the config paths at which it
    /// differs from the last good one. A bad revision comes as its error, and the last good one stays; the next
    /// good one then comes even if nothing differs. `break` stops watching.
    #[napi(
        catch_unwind,
        ts_args_type = "options?: ConfigWatchOptions",
        ts_return_type = "AsyncIterableIterator<ConfigUpdate>"
    )]
    pub fn watch<'env>(
        &self,
        env: &'env Env,
        options: Option<Either<ConfigWatchOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<CoreStream> {
        let runtime = runtime().map_err(|error| reify(env, &error))?;
        let abort = Abort::from_signal(env, checked(env, options)?.and_then(|options| options.signal))?;
        let stop = abort.token().child_token();
        let (found, mut updates) = mpsc::channel(1);
        let (elements, stream) = mpsc::channel(1);
        runtime.spawn(Arc::clone(&self.inner).watch(found, stop.clone()));
        runtime.spawn(async move {
            while let Some(update) = updates.recv().await {
                let element: Element = Box::new(move |env| Ok(update_object(env, update)?.to_unknown()));
                if elements.send(Ok(vec![element])).await.is_err() {
                    return;
                }
            }
        });
        Ok(CoreStream::new(stream, stop, abort))
    }
}

fn update_object(env: &Env, update: Update) -> napi::Result<Object<'_>> {
    let mut result = Object::new(env)?;
    match update.outcome {
        Ok(config) => result.set("config", Config::hold(env, config)?.into_instance(env)?)?,
        Err(error) => result.set("error", object(env, &error)?)?,
    }
    result.set("changedPaths", update.changed_paths)?;
    Ok(result)
}
