//! The clients of model providers: what `script.js` makes its classes of. Their types are in `header.d.ts`.
//!
//! A stream's events cross as [`Batch`]es: one array of numbers and one string each, which `script.js` takes apart.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use napi::bindgen_prelude::{
    ClassInstance, FnArgs, FromNapiValue, JavaScriptClassExt, JsObjectValue, Object, Uint8Array, Uint32Array,
    Unknown,
};
use napi::{Env, JsValue, ValueType};
use napi_derive::napi;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::abort::Abort;
use super::args::{count, name, stringify};
use super::auth::AuthProfiles;
use super::error::{guard, object, reify, wrong_argument};
use super::json;
use super::script::call;
use super::secrets::secret_argument;
use super::settle::settle;
use crate::http::Proxy;
use crate::memory::{Owner, owned};
use crate::providers::builder::Batch;
use crate::providers::call::{Outcome, Timeouts};
use crate::providers::cost::Prices;
use crate::providers::decoder::Decoder;
use crate::providers::failover::{Candidate, FailedAttempt, FailoverProvider};
use crate::providers::queue::EventQueue;
use crate::providers::relay::Relay;
use crate::providers::request::CompletionRequest;
use crate::providers::{
    Api, CallOptions, Provider, ProviderOptions, anthropic, gemini, ollama, openai_chat, openai_responses,
    sse,
};
use crate::runtime::runtime;
use crate::{Code, CoreError, Result};

/// Puts the classes of `script.js` among the exports.
pub(super) fn export_classes(env: &Env, exports: &mut Object<'_>) -> napi::Result<()> {
    let provider: Unknown<'_> = exports.get_named_property("__Provider")?;
    let failover: Unknown<'_> = exports.get_named_property("__Failover")?;
    let classes: Object<'_> = call(env, "providerClasses", FnArgs::from((provider, failover)))?;
    for class in Object::keys(&classes)? {
        let made: Unknown<'_> = classes.get_named_property(&class)?;
        exports.set_named_property(&class, made)?;
    }
    Ok(())
}

fn api(id: &str) -> Option<Box<dyn Api>> {
    Some(match id {
        "anthropic-messages" => Box::new(anthropic::Anthropic),
        "openai-completions" => Box::new(openai_chat::OpenAiChat),
        "openai-responses" => Box::new(openai_responses::OpenAiResponses),
        "google-generative-ai" => Box::new(gemini::Gemini),
        "ollama" => Box::new(ollama::Ollama),
        _ => return None,
    })
}

/// The options of a call or a client, read one by one: what is undefined or null is not there.
struct Fields<'env> {
    env: &'env Env,
    object: Option<Object<'env>>,
}

impl<'env> Fields<'env> {
    fn new(env: &'env Env, what: &str, value: &Unknown<'env>) -> napi::Result<Self> {
        let object = match value.get_type()? {
            ValueType::Undefined | ValueType::Null => None,
            ValueType::Object => Some(Object::from_raw(env.raw(), value.raw())),
            _ => return Err(reify(env, &wrong_argument(what, "an object", value))),
        };
        Ok(Self { env, object })
    }

    fn get(&self, field: &str) -> napi::Result<Option<Unknown<'env>>> {
        let Some(object) = &self.object else { return Ok(None) };
        let value: Unknown<'env> = object.get_named_property(field)?;
        Ok(match value.get_type()? {
            ValueType::Undefined | ValueType::Null => None,
            _ => Some(value),
        })
    }

    fn name(&self, field: &str) -> napi::Result<Option<String>> {
        self.get(field)?.map(|value| name(self.env, field, value)).transpose()
    }

    fn count(&self, field: &str, least: u32) -> napi::Result<Option<u64>> {
        count(self.env, field, self.get(field)?, least)
    }

    /// The members of a plain object, as JSON has them.
    fn members(&self, field: &str) -> napi::Result<Map<String, Value>> {
        let Some(value) = self.get(field)? else { return Ok(Map::new()) };
        let text = stringify(self.env, value)?.unwrap_or_default();
        match serde_json::from_slice(&text) {
            Ok(Value::Object(members)) => Ok(members),
            _ => Err(reify(self.env, &wrong_argument(field, "a plain object", &value))),
        }
    }

    fn headers(&self) -> napi::Result<HeaderMap> {
        let members = self.members("headers")?;
        guard(self.env, || {
            let mut headers = HeaderMap::new();
            for (name, value) in members {
                let wrong = |words: &str| {
                    CoreError::new(Code::Validation, format!("`headers` has {words}: {name:?}"))
                };
                let Value::String(text) = value else { return Err(wrong("a value that is no string")) };
                let header =
                    HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("a name that is none"))?;
                let mut value = HeaderValue::from_str(&text).map_err(|_| wrong("a value that is none"))?;
                // Whatever it is, it may be a key.
                value.set_sensitive(true);
                headers.insert(header, value);
            }
            Ok(headers)
        })
    }
}

fn client(env: &Env, api_id: &str, options: &Unknown<'_>) -> napi::Result<Provider> {
    let fields = Fields::new(env, "options", options)?;
    let key = match fields.get("apiKey")? {
        // "" is how hosts say that a local server wants no key.
        Some(key) if key.get_type()? == ValueType::String && name(env, "apiKey", key)?.is_empty() => None,
        Some(key) => Some(secret_argument(env, "apiKey", key)?),
        None => None,
    };
    let mut prices = BTreeMap::new();
    for (model, entry) in fields.members("prices")? {
        let price = |field: &str| entry.get(field).and_then(Value::as_f64);
        let (Some(input), Some(output)) = (price("input"), price("output")) else {
            let words = format!("`prices` must hold `input` and `output` of {model:?}, for a million tokens");
            return Err(reify(env, &CoreError::new(Code::Validation, words)));
        };
        let cache_read = price("cacheRead").unwrap_or_default();
        let cache_write = price("cacheWrite").unwrap_or_default();
        prices.insert(model, Prices { input, output, cache_read, cache_write });
    }
    let options = ProviderOptions {
        id: fields.name("id")?,
        key,
        base_url: fields.name("baseUrl")?,
        headers: fields.headers()?,
        proxy: match fields.name("proxy")? {
            None => Proxy::Environment,
            Some(url) if url.is_empty() => Proxy::None,
            Some(url) => Proxy::Url { url, no_proxy: None },
        },
        ca_file: fields.name("caFile")?.map(Into::into),
        prices,
    };
    guard(env, || {
        let api = api(api_id)
            .ok_or_else(|| CoreError::new(Code::Validation, format!("there is no API {api_id:?}")))?;
        Provider::new(api, options)
    })
}

/// How a call is to be made. `payload` is what is sent in place of the encoded request.
fn call_options(env: &Env, options: &Unknown<'_>, payload: Option<String>) -> napi::Result<CallOptions> {
    let fields = Fields::new(env, "options", options)?;
    let mut call = CallOptions { headers: fields.headers()?, ..CallOptions::default() };
    if let Some(retries) = fields.count("retries", 0)? {
        call.retries = u32::try_from(retries).unwrap_or(u32::MAX);
    }
    if let Some(cap) = fields.count("retryAfterCapMs", 0)? {
        call.retry_after_cap = Duration::from_millis(cap);
    }
    if let Some(given) = fields.get("timeouts")? {
        let fields = Fields::new(env, "timeouts", &given)?;
        let timer = |field: &str, default: Option<Duration>| {
            Ok::<_, napi::Error>(match fields.count(field, 0)? {
                None => default,
                Some(0) => None,
                Some(ms) => Some(Duration::from_millis(ms)),
            })
        };
        let standard = Timeouts::default();
        call.timeouts = Timeouts {
            connect: timer("connectMs", standard.connect)?,
            first_byte: timer("firstByteMs", standard.first_byte)?,
            idle: timer("idleMs", standard.idle)?,
            total: timer("totalMs", standard.total)?,
        };
    }
    if let Some(payload) = payload {
        call.on_payload = Some(Arc::new(move |_| {
            let payload = payload.clone();
            Box::pin(async move { Ok(Some(payload)) })
        }));
    }
    Ok(call)
}

/// A request's JSON text. What `JSON.stringify` cannot say in UTF-8, half of a surrogate pair, it writes as an escape,
/// and nobody can send it: it goes, as OpenClaw does it.
fn request(json: &str) -> Result<CompletionRequest> {
    CompletionRequest::from_json(&without_halves(json))
}

fn without_halves(json: &str) -> std::borrow::Cow<'_, str> {
    let mut kept = String::new();
    let mut from = 0;
    let mut rest = json;
    // `JSON.stringify` writes whole pairs as they are, so each escape of a surrogate is a half.
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        let here = json.len() - rest.len() + at;
        let escape = json.get(here..here + 6).unwrap_or_default().as_bytes();
        let half = matches!(escape, [_, b'u', b'd' | b'D', b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F', ..]);
        if half {
            kept.push_str(json.get(from..here).unwrap_or_default());
            from = here + 6;
        }
        rest = json.get(here + if half { 6 } else { 2 }..).unwrap_or_default();
    }
    if from == 0 {
        return json.into();
    }
    kept.push_str(json.get(from..).unwrap_or_default());
    kept.into()
}

/// The core of `Provider`.
#[napi(js_name = "__Provider")]
pub struct NativeProvider {
    provider: Arc<Provider>,
}

#[napi]
impl NativeProvider {
    /// A client that speaks the API.
    #[napi(catch_unwind, constructor)]
    #[allow(clippy::needless_pass_by_value, reason = "as Node-API gives them")]
    pub fn new(env: &Env, api: String, options: Unknown<'_>) -> napi::Result<Self> {
        Ok(Self { provider: Arc::new(client(env, &api, &options)?) })
    }

    /// The provider's id.
    #[napi(catch_unwind, getter)]
    pub fn id(&self) -> &str {
        self.provider.id()
    }

    /// The API's.
    #[napi(catch_unwind, getter)]
    pub fn api(&self) -> &str {
        self.provider.api()
    }

    /// The payload of a request, as JSON text.
    #[napi(catch_unwind, ts_return_type = "Promise<string>")]
    pub fn encode<'env>(&self, env: &'env Env, json: String) -> napi::Result<Object<'env>> {
        let provider = Arc::clone(&self.provider);
        let encode = |_| async move { provider.payload(&request(&json)?) };
        settle(env, Abort::never(), encode, |_, payload| Ok(payload))
    }

    /// The whole answer.
    #[napi(catch_unwind, ts_return_type = "Promise<unknown>")]
    pub fn complete<'env>(
        &self,
        env: &'env Env,
        json: String,
        options: Unknown<'env>,
        signal: Unknown<'env>,
    ) -> napi::Result<Object<'env>> {
        let how = call_options(env, &options, None)?;
        let provider = Arc::clone(&self.provider);
        let work = |cancel: CancellationToken| async move {
            let outcome = provider.complete(&request(&json)?, &how, &cancel).await;
            outcome.map_or_else(|failure| Err(failure.error), |message| Ok(message.to_json()))
        };
        settle(env, abort(env, signal)?, work, |env, json| Ok(unbound(env, &json::parse_plain(env, &json)?)))
    }

    /// Begins a stream.
    #[napi(catch_unwind)]
    pub fn start(
        &self,
        env: &Env,
        json: String,
        options: Unknown<'_>,
        payload: Option<String>,
    ) -> napi::Result<NativeStream> {
        let how = call_options(env, &options, payload)?;
        let provider = Arc::clone(&self.provider);
        NativeStream::begin(env, how, |how, stream| async move {
            match request(&json) {
                Ok(request) => provider.stream(&request, &how, &stream.cancel, &stream.queue).await,
                Err(error) => stream.queue.finish(Batch::default(), Err(provider.unasked(error)), false),
            }
        })
    }

    /// What the provider offers.
    #[napi(catch_unwind, ts_return_type = "Promise<unknown[]>")]
    pub fn list_models<'env>(
        &self,
        env: &'env Env,
        options: Unknown<'env>,
        signal: Unknown<'env>,
    ) -> napi::Result<Object<'env>> {
        let how = call_options(env, &options, None)?;
        let provider = Arc::clone(&self.provider);
        let list = |_| async move { provider.list_models(&how).await };
        settle(env, abort(env, signal)?, list, |env, models| {
            let mut text = String::from("[");
            for model in models {
                if text.len() > 1 {
                    text.push(',');
                }
                model.write_json(&mut text);
            }
            text.push(']');
            Ok(unbound(env, &json::parse_plain(env, &text)?))
        })
    }

    /// The sums.
    #[napi(catch_unwind)]
    pub fn usage<'env>(&self, env: &'env Env) -> napi::Result<Unknown<'env>> {
        json::parse_plain(env, &self.provider.usage().to_json())
    }
}

/// The core of `FailoverProvider`.
#[napi(js_name = "__Failover")]
pub struct NativeFailover {
    failover: Arc<FailoverProvider>,
}

#[napi]
impl NativeFailover {
    /// Of clients, models and ids of auth profiles, in order.
    #[napi(catch_unwind, constructor)]
    #[allow(clippy::needless_pass_by_value, reason = "as Node-API gives them")]
    pub fn new(
        env: &Env,
        providers: Vec<ClassInstance<'_, NativeProvider>>,
        models: Vec<String>,
        profile_ids: Vec<Option<String>>,
        profiles: Unknown<'_>,
    ) -> napi::Result<Self> {
        let profiles = match profiles.get_type()? {
            ValueType::Undefined | ValueType::Null => None,
            ValueType::Object if AuthProfiles::instance_of(env, &profiles)? => {
                Some(ClassInstance::<AuthProfiles>::from_unknown(profiles)?.profiles.clone())
            }
            _ => return Err(reify(env, &wrong_argument("profiles", "an AuthProfiles", &profiles))),
        };
        let candidates = providers.iter().zip(models).zip(profile_ids);
        let candidates = candidates
            .map(|((provider, model), profile)| Candidate {
                provider: Arc::clone(&provider.provider),
                model,
                profile,
            })
            .collect();
        let failover = guard(env, || FailoverProvider::new(candidates, profiles))?;
        Ok(Self { failover: Arc::new(failover) })
    }

    /// The whole answer, and who did not give it.
    #[napi(catch_unwind, ts_return_type = "Promise<unknown>")]
    pub fn complete<'env>(
        &self,
        env: &'env Env,
        json: String,
        options: Unknown<'env>,
        signal: Unknown<'env>,
    ) -> napi::Result<Object<'env>> {
        let how = call_options(env, &options, None)?;
        let failover = Arc::clone(&self.failover);
        let work = |cancel: CancellationToken| async move {
            let (outcome, attempts) = failover.complete(&request(&json)?, &how, &cancel).await;
            outcome.map_or_else(|failure| Err(failure.error), |message| Ok((message.to_json(), attempts)))
        };
        settle(env, abort(env, signal)?, work, |env, (message, attempts)| {
            let message = with_attempts(message, &attempts);
            Ok(unbound(env, &json::parse_plain(env, &message)?))
        })
    }

    /// Begins a stream.
    #[napi(catch_unwind)]
    pub fn start(&self, env: &Env, json: String, options: Unknown<'_>) -> napi::Result<NativeStream> {
        let how = call_options(env, &options, None)?;
        let failover = Arc::clone(&self.failover);
        NativeStream::begin(env, how, |how, stream| async move {
            match request(&json) {
                Ok(request) => {
                    let note = |attempts: &[FailedAttempt]| {
                        *stream.attempts.lock().unwrap_or_else(PoisonError::into_inner) =
                            Some(attempts.to_vec());
                    };
                    failover.stream(&request, &how, &stream.cancel, &stream.queue, &note).await;
                }
                Err(error) => stream.queue.finish(Batch::default(), Err(failover.unasked(error)), false),
            }
        })
    }
}

/// The core of an answer that streams.
#[napi(js_name = "__ProviderStream")]
pub struct NativeStream {
    shared: Arc<Shared>,
}

struct Shared {
    queue: EventQueue,
    cancel: CancellationToken,
    attempts: Mutex<Option<Vec<FailedAttempt>>>,
}

/// Ends the queue however its writer ends.
struct Writer(Arc<Shared>);

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.queue.abandon();
    }
}

/// What crosses at once.
struct Crossing {
    numbers: Vec<u32>,
    text: String,
    responses: String,
    end: Option<(String, Option<CoreError>)>,
}

impl NativeStream {
    fn begin<W: Future<Output = ()> + Send + 'static>(
        env: &Env,
        mut how: CallOptions,
        work: impl FnOnce(CallOptions, Arc<Shared>) -> W,
    ) -> napi::Result<Self> {
        let runtime = runtime().map_err(|error| reify(env, &error))?;
        let shared = Arc::new(Shared {
            queue: EventQueue::default(),
            cancel: CancellationToken::new(),
            attempts: Mutex::default(),
        });
        let noted = Arc::downgrade(&shared);
        how.on_response = Some(Arc::new(move |status, headers| {
            if let Some(shared) = noted.upgrade() {
                shared.queue.note(status, headers);
            }
        }));
        let work = work(how, Arc::clone(&shared));
        let writer = Writer(Arc::clone(&shared));
        runtime.spawn(async move {
            let _writer = writer;
            owned(Owner::Providers, work).await;
        });
        Ok(Self { shared })
    }
}

#[napi]
impl NativeStream {
    /// What has come: numbers, texts, answers' heads as a JSON array without brackets, and at the end the message and its
    /// error. None after the end.
    #[napi(catch_unwind, ts_return_type = "Promise<unknown>")]
    pub fn next<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let shared = Arc::clone(&self.shared);
        let take = |_| async move {
            let Some(handed) = shared.queue.take().await else { return Ok(None) };
            let attempts = shared.attempts.lock().unwrap_or_else(PoisonError::into_inner).take();
            let end = handed.outcome.map(|outcome: Outcome| {
                let (message, error) = match outcome {
                    Ok(message) => (message, None),
                    Err(failure) => (failure.message, Some(failure.error)),
                };
                let json = message.to_json();
                let json = match attempts {
                    Some(attempts) => with_attempts(json, &attempts),
                    None => json,
                };
                (json, error)
            });
            let Batch { numbers, text } = handed.batch;
            Ok(Some(Crossing { numbers, text, responses: handed.responses, end }))
        };
        settle(env, Abort::never(), take, |env, crossing| {
            let Some(Crossing { numbers, text, responses, end }) = crossing else { return Ok(None) };
            let mut array = env.create_array(5)?;
            array.set(0, Uint32Array::new(numbers))?;
            array.set(1, json::string(env, &text)?)?;
            if !responses.is_empty() {
                array.set(2, responses)?;
            }
            if let Some((message, error)) = end {
                array.set(3, json::string(env, &message)?)?;
                if let Some(error) = error {
                    array.set(4, object(env, &error)?)?;
                }
            }
            Ok(Some(unbound(env, &array)))
        })
    }

    /// Ends the call; what waits is dropped, and the stream's own end is the last that comes.
    #[napi(catch_unwind)]
    pub fn abort(&self) {
        self.shared.cancel.cancel();
    }

    /// Nobody reads on.
    #[napi(catch_unwind)]
    pub fn close(&self) {
        self.shared.cancel.cancel();
        self.shared.queue.close();
    }
}

impl Drop for NativeStream {
    fn drop(&mut self) {
        self.shared.cancel.cancel();
        self.shared.queue.close();
    }
}

/// A [`Relay`]: what the load hook puts between OpenClaw's connection to a model and OpenClaw's own readers.
#[napi(js_name = "__Relay")]
pub struct NativeRelay {
    relay: Relay,
}

#[napi]
impl NativeRelay {
    /// For one answer.
    #[napi(catch_unwind, constructor)]
    pub fn new() -> Self {
        Self { relay: Relay::new(sse::LINE_BYTES) }
    }

    /// The next bytes. Returns 0 if there is nothing to take, 1 if what there is may wait for more, 2 if it may not.
    #[napi(catch_unwind)]
    pub fn push(&mut self, env: &Env, bytes: &[u8]) -> napi::Result<u32> {
        let urgent = guard(env, || self.relay.push(bytes))?;
        Ok(if urgent { 2 } else { u32::from(self.relay.is_waiting()) })
    }

    /// The stream has ended.
    #[napi(catch_unwind)]
    pub fn end(&mut self, env: &Env) -> napi::Result<()> {
        guard(env, || self.relay.end())
    }

    /// The events that have come.
    #[napi(catch_unwind)]
    pub fn take(&mut self) -> Uint8Array {
        Uint8Array::new(self.relay.take())
    }
}

/// A [`Decoder`], for the shadow: the message that the bytes of an answer make.
#[napi(js_name = "__Decoder")]
pub struct NativeDecoder {
    decoder: Decoder,
    failed: Option<CoreError>,
}

#[napi]
impl NativeDecoder {
    /// For one answer of an API.
    #[napi(catch_unwind, constructor)]
    #[allow(clippy::needless_pass_by_value, reason = "as Node-API gives them")]
    pub fn new(env: &Env, api_id: String, provider: String, model: String) -> napi::Result<Self> {
        let api = guard(env, || {
            api(&api_id)
                .ok_or_else(|| CoreError::new(Code::Validation, format!("there is no API {api_id:?}")))
        })?;
        Ok(Self { decoder: Decoder::new(api.as_ref(), &provider, &model, 0, sse::LINE_BYTES), failed: None })
    }

    /// The next bytes.
    #[napi(catch_unwind)]
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.decoder.push(bytes).err();
            self.decoder.out.take_events();
        }
    }

    /// The message as JSON text; throws what was wrong with the answer.
    #[napi(catch_unwind)]
    pub fn finish(&mut self, env: &Env) -> napi::Result<String> {
        let failed = self.failed.take();
        guard(env, || failed.map_or_else(|| Ok(self.decoder.finish()?.to_json()), Err))
    }
}

/// A message with `attempts`.
fn with_attempts(mut message: String, attempts: &[FailedAttempt]) -> String {
    message.pop();
    message.push_str(",\"attempts\":[");
    for (index, attempt) in attempts.iter().enumerate() {
        if index > 0 {
            message.push(',');
        }
        attempt.write_json(&mut message);
    }
    message.push_str("]}");
    message
}

fn abort(env: &Env, signal: Unknown<'_>) -> napi::Result<Abort> {
    let given = !matches!(signal.get_type()?, ValueType::Undefined | ValueType::Null);
    Abort::from_signal(env, given.then_some(signal))
}

/// The handle is used before the scope of this callback closes.
fn unbound<'env>(env: &Env, value: &impl JsValue<'env>) -> Unknown<'static> {
    Object::from_raw(env.raw(), value.raw()).to_unknown()
}

#[cfg(test)]
mod tests {
    use super::without_halves;

    #[test]
    fn halves_of_surrogate_pairs_go_and_nothing_else_does() {
        for (text, expected) in [
            (r#""a\ud83cb""#, r#""ab""#),
            (r#""\uDC00\ud83c""#, r#""""#),
            (r#""\\ud83c""#, r#""\\ud83c""#),
            (r#""\\\ud83c""#, r#""\\""#),
            (r#""\u001f\ud7ff\ue000 \n 🎉""#, r#""\u001f\ud7ff\ue000 \n 🎉""#),
            ("{}", "{}"),
        ] {
            assert_eq!(without_halves(text), expected, "{text}");
        }
    }
}
