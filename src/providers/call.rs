//! One call: send, wait, read, and try again where that is right.
//!
//! Four timers run, each on tokio's clock. *Connect* covers name, connection and TLS. *First byte* runs from the beginning
//! of an attempt to the first byte of the answer's body. *Idle* runs from then on and starts anew whenever the model says
//! something; pings and comments are not that. While the reader holds the stream back it does not run. *Total* covers
//! everything, attempts and waits included.
//!
//! A call is tried again only while nothing of an answer has come: after 408, 409, 429 and 5xx (Anthropic's 529 among them)
//! and after failing to connect, which proves that nothing was sent. It waits a random part of a span that doubles ("full
//! jitter"), behind what `retry-after-ms` or `Retry-After` (RFC 9110, 10.2.3) ask for. If they ask for more than a cap,
//! the call fails at once: somebody else may answer sooner.
//!
//! Whatever fails, the error is cleaned in one place: a server may repeat what it was sent, and errors end in transcripts.
//!
//! Dropping the future, which an abort does, closes the connection.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::{self, HeaderMap, HeaderValue};
use serde_json::Value;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::api::{Api, Endpoint, Flow, Framing, HttpRequest};
use super::builder::MessageBuilder;
use super::decoder::Decoder;
use super::message::{AssistantMessage, StopReason};
use super::pace::Pace;
use super::queue::EventQueue;
use super::request::refused;
use super::sse::LINE_BYTES;
use crate::redact;
use crate::{Code, CoreError, Result};

/// A future behind a pointer.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What carries requests: the network, or what a test has in its place.
pub trait Transport: Send + Sync + 'static {
    /// Sends a request. The answer is there once its head is.
    fn send(&self, request: HttpRequest, connect: Option<Duration>) -> Boxed<'_, Result<Answer, Unsent>>;
}

/// Why there is no answer.
#[derive(Debug)]
pub struct Unsent {
    /// What happened.
    pub error: CoreError,
    /// Whether it is certain that nothing was sent, and a second attempt may fare better.
    pub retry: bool,
}

/// An answer whose body is still to come.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The head.
    pub headers: HeaderMap,
    /// What comes.
    pub body: Box<dyn Body>,
}

/// The body of an answer. Dropping it closes the connection, unless all of it was read.
pub trait Body: Send {
    /// The next bytes; none at the end.
    fn chunk(&mut self) -> Boxed<'_, Result<Option<Bytes>>>;
}

/// How long things may take; none is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a connection stands. Default: 10 s.
    pub connect: Option<Duration>,
    /// From the beginning of an attempt to the first byte of the answer's body. Default: 5 min, for models that are
    /// loaded first, and think before they say anything.
    pub first_byte: Option<Duration>,
    /// Between two things that the model says. Default: 2 min, as in OpenClaw.
    pub idle: Option<Duration>,
    /// For everything. Default: none.
    pub total: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Some(Duration::from_secs(10)),
            first_byte: Some(Duration::from_mins(5)),
            idle: Some(Duration::from_mins(2)),
            total: None,
        }
    }
}

/// What sees the payload before it is sent; if it gives another, that one is sent.
pub type PayloadHook = dyn Fn(String) -> Boxed<'static, Result<Option<String>>> + Send + Sync;
/// What sees the status and the headers of each answer.
pub type ResponseHook = dyn Fn(u16, &HeaderMap) + Send + Sync;

/// How a call is to be made.
#[derive(Clone)]
pub struct CallOptions {
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How often a failed attempt is followed by another. Default: 2.
    pub retries: u32,
    /// The longest wait that a server may ask for. Default: 60 s.
    pub retry_after_cap: Duration,
    /// Headers of this call, over those of the endpoint.
    pub headers: HeaderMap,
    /// Sees, and may change, the payload. Once a call, not once an attempt.
    pub on_payload: Option<Arc<PayloadHook>>,
    /// Sees each answer's head.
    pub on_response: Option<Arc<ResponseHook>>,
    /// Whether events are held until there is content, so that a failure before it leaves no trace.
    pub hold_start: bool,
    /// When everything is to be over, if the call is one of several that share [`Timeouts::total`].
    pub deadline: Option<Instant>,
}

impl Default for CallOptions {
    fn default() -> Self {
        Self {
            timeouts: Timeouts::default(),
            retries: 2,
            retry_after_cap: Duration::from_mins(1),
            headers: HeaderMap::new(),
            on_payload: None,
            on_response: None,
            hold_start: false,
            deadline: None,
        }
    }
}

impl fmt::Debug for CallOptions {
    /// Without the headers, which may hold a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallOptions")
            .field("timeouts", &self.timeouts)
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}

/// How a call ended.
pub type Outcome = Result<AssistantMessage, Box<Failure>>;

/// A call that failed.
#[derive(Debug)]
pub struct Failure {
    /// Why.
    pub error: CoreError,
    /// What there was until then, with [`StopReason::Error`] or [`StopReason::Aborted`].
    pub message: AssistantMessage,
    /// Whether some of the answer had come.
    pub had_content: bool,
}

impl Failure {
    /// Of a call that was never made.
    pub fn unasked(
        error: CoreError,
        api: &'static str,
        provider: &str,
        model: &str,
        now_ms: u64,
    ) -> Box<Self> {
        let nothing = MessageBuilder::new(api, provider, model, now_ms);
        let message = nothing.fail(StopReason::Error, error.message());
        Box::new(Self { error, message, had_content: false })
    }

    /// Whether the caller ended it.
    pub fn aborted(&self) -> bool {
        self.message.stop_reason == StopReason::Aborted
    }
}

/// Time and chance.
#[derive(Clone, Copy)]
pub struct Surroundings {
    /// The time of day.
    pub now: fn() -> SystemTime,
    /// A number from 0 to 1.
    pub chance: fn() -> f64,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self { now: SystemTime::now, chance }
    }
}

fn chance() -> f64 {
    // Without a random source, every wait is the longest one.
    f64::from(getrandom::u32().unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

impl Surroundings {
    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        let since = (self.now)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Who makes a call.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// Of the provider.
    pub api: &'a dyn Api,
    /// The provider's id.
    pub provider: &'a str,
    /// Where it is.
    pub endpoint: &'a Endpoint,
    /// What carries the requests.
    pub transport: &'a dyn Transport,
    /// Time and chance.
    pub surroundings: Surroundings,
    /// When batches go.
    pub pace: &'a Pace,
}

/// What an attempt ended in.
struct Failed {
    error: CoreError,
    retry: bool,
    after: Option<Duration>,
}

impl From<CoreError> for Failed {
    fn from(error: CoreError) -> Self {
        Self { error, retry: false, after: None }
    }
}

/// What an answer is for.
enum Goal<'g> {
    Stream(&'g mut Decoder, Option<&'g EventQueue>),
    Body(&'g mut Vec<u8>),
}

/// The longest first span of a retry; doubled with each.
const BACKOFF: Duration = Duration::from_millis(500);
/// No span is longer.
const LONGEST_BACKOFF: Duration = Duration::from_secs(8);
/// Of an error's body that much is read.
const ERROR_BYTES: usize = 64 << 10;
/// Of that much is kept.
const KEPT_BYTES: usize = 4 << 10;
/// A list of models has at most so many bytes a page.
const PAGE_BYTES: usize = 16 << 20;
/// The body of an error may take so long. The status is what counts.
const ERROR_WAIT: Duration = Duration::from_secs(2);
/// Shorter ones are no secrets, and stand in any text.
const SECRET_BYTES: usize = 8;
/// What a caller's headers must not say: it would contradict the connection or the body.
const NOT_THE_CALLERS: [&str; 5] = ["connection", "content-length", "host", "transfer-encoding", "upgrade"];
/// Headers that hold no secrets, whatever they say.
const OPEN_HEADERS: [&str; 8] = [
    "accept",
    "anthropic-beta",
    "anthropic-version",
    "content-type",
    "http-referer",
    "openai-beta",
    "user-agent",
    "x-title",
];
/// No more is gathered for a batch.
const BATCH_BYTES: usize = 64 << 10;
/// For the end of a body after the API's end mark, so that the connection can be used again.
const DRAIN: Duration = Duration::from_secs(1);

impl Caller<'_> {
    /// Asks a model. Events go to `queue` as they come; the last of them, and the outcome, stay with the caller.
    pub async fn ask(
        &self,
        model: &str,
        request: Result<HttpRequest>,
        options: &CallOptions,
        cancel: &CancellationToken,
        queue: Option<&EventQueue>,
    ) -> (Decoder, Outcome) {
        let now = self.surroundings.now_ms();
        let mut decoder = Decoder::new(self.api, self.provider, model, now, LINE_BYTES);
        let outcome = match request {
            Ok(request) => self.call(request, options, Some(cancel), Goal::Stream(&mut decoder, queue)).await,
            Err(error) => Err(error),
        };
        let failure = match outcome {
            Ok(()) => match decoder.finish() {
                Ok(message) => return (decoder, Ok(message)),
                Err(error) => error,
            },
            Err(error) => error,
        };
        let failure = self.clean(failure, options);
        let reason = if cancel.is_cancelled() { StopReason::Aborted } else { StopReason::Error };
        let message = decoder.out.fail(reason, failure.message());
        let had_content = decoder.out.has_content();
        (decoder, Err(Box::new(Failure { error: failure, message, had_content })))
    }

    /// The body of an answer to a request that is no stream.
    pub async fn fetch(&self, request: HttpRequest, options: &CallOptions) -> Result<String> {
        let mut body = Vec::new();
        let fetched = self.call(request, options, None, Goal::Body(&mut body)).await;
        fetched.map_err(|error| self.clean(error, options))?;
        String::from_utf8(body)
            .map_err(|_| CoreError::new(Code::ProviderStream, format!("{} sent no UTF-8", self.provider)))
    }

    async fn call(
        &self,
        request: HttpRequest,
        options: &CallOptions,
        cancel: Option<&CancellationToken>,
        mut goal: Goal<'_>,
    ) -> Result<()> {
        let total = options.deadline.or_else(|| deadline(options.timeouts.total));
        tokio::select! {
            biased;
            () = cancelled(cancel) => Err(CoreError::new(Code::Network, "the call was aborted")),
            () = until(total) => Err(self.late("total", "has not ended", options.timeouts.total)),
            outcome = self.attempts(request, options, &mut goal) => outcome,
        }
    }

    async fn attempts(
        &self,
        mut request: HttpRequest,
        options: &CallOptions,
        goal: &mut Goal<'_>,
    ) -> Result<()> {
        if let Some(hook) = &options.on_payload
            && !request.body.is_empty()
        {
            let payload = String::from_utf8_lossy(&request.body).into_owned();
            if let Some(payload) = hook(payload).await? {
                request.body = payload.into_bytes();
            }
        }
        let accept = match goal {
            Goal::Stream(..) if self.api.framing() == Framing::Sse => "text/event-stream",
            Goal::Stream(..) => "application/x-ndjson",
            Goal::Body(_) => "application/json",
        };
        let headers = &mut request.headers;
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        if !request.body.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for given in [&self.endpoint.headers, &options.headers] {
            for name in given.keys() {
                if NOT_THE_CALLERS.contains(&name.as_str()) {
                    return Err(refused(&format!("headers.{name}"), "is not the caller's to set"));
                }
                headers.remove(name);
                for value in given.get_all(name) {
                    headers.append(name, value.clone());
                }
            }
        }
        for tried in 0_u32.. {
            let failed = match self.attempt(request.clone(), options, goal).await {
                Ok(()) => return Ok(()),
                Err(failed) => failed,
            };
            let too_long = failed.after.is_some_and(|after| after > options.retry_after_cap);
            if !failed.retry || tried >= options.retries || too_long {
                return Err(failed.error);
            }
            let span =
                BACKOFF.saturating_mul(1_u32.checked_shl(tried).unwrap_or(u32::MAX)).min(LONGEST_BACKOFF);
            let wait = failed
                .after
                .unwrap_or_default()
                .saturating_add(span.mul_f64((self.surroundings.chance)().clamp(0.0, 1.0)));
            let status = failed.error.details().status;
            tracing::debug!(provider = self.provider, code = %failed.error.code(), status, ?wait, "trying again");
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    async fn attempt(
        &self,
        request: HttpRequest,
        options: &CallOptions,
        goal: &mut Goal<'_>,
    ) -> Result<(), Failed> {
        let times = options.timeouts;
        let first_byte = deadline(times.first_byte);
        let no_first_byte =
            || Failed::from(self.late("firstByte", "has not begun to answer", times.first_byte));
        let mut answer = tokio::select! {
            biased;
            sent = self.transport.send(request, times.connect) => {
                sent.map_err(|unsent| Failed { error: unsent.error, retry: unsent.retry, after: None })?
            }
            () = until(first_byte) => return Err(no_first_byte()),
        };
        if let Some(hook) = &options.on_response {
            hook(answer.status, &answer.headers);
        }
        if !(200..300).contains(&answer.status) {
            return Err(self.refusal(&mut answer).await);
        }
        if let Some(words) = self.wrong_type(&answer.headers, goal) {
            return Err(self.no_stream(&mut answer, words).await);
        }
        let mut next = Some(tokio::select! {
            biased;
            chunk = answer.body.chunk() => chunk?,
            () = until(first_byte) => return Err(no_first_byte()),
        });
        let mut idle = deadline(times.idle);
        let mut progress = 0;
        let beat = self.pace.join();
        loop {
            let chunk = if let Some(chunk) = next.take() {
                chunk
            } else {
                tokio::select! {
                    biased;
                    chunk = answer.body.chunk() => chunk?,
                    () = until(idle) => return Err(self.late("idle", "has fallen silent", times.idle).into()),
                }
            };
            let Some(chunk) = chunk else { return Ok(()) };
            let (decoder, queue) = match goal {
                Goal::Body(body) => {
                    if chunk.len() > PAGE_BYTES.saturating_sub(body.len()) {
                        let words = format!("{} sent more than {PAGE_BYTES} bytes", self.provider);
                        return Err(CoreError::new(Code::Limit, words).into());
                    }
                    body.extend_from_slice(&chunk);
                    continue;
                }
                Goal::Stream(decoder, queue) => (decoder, queue),
            };
            if decoder.push(&chunk)? == Flow::End {
                drain(answer.body);
                return Ok(());
            }
            drop(chunk);
            if decoder.out.progress() != progress {
                progress = decoder.out.progress();
                idle = deadline(times.idle);
            }
            let Some(queue) = queue else {
                drop(decoder.out.take_events());
                continue;
            };
            if options.hold_start && !decoder.out.has_content() {
                continue;
            }
            if decoder.out.events().bytes() < BATCH_BYTES {
                next = at_once(answer.body.as_mut()).await?;
                if next.is_some() {
                    continue;
                }
            }
            let batch = decoder.out.take_events();
            let pause = batch.has_delta();
            let waited = queue.offer(batch).await;
            if pause {
                // What the reader is to get later need not be read earlier, token by token.
                beat.next().await;
            }
            if waited {
                idle = deadline(times.idle);
            }
        }
    }

    fn late(&self, phase: &'static str, words: &str, after: Option<Duration>) -> CoreError {
        let ms = after.unwrap_or_default().as_millis();
        CoreError::new(Code::Timeout, format!("{} {words} after {ms} ms", self.provider)).in_phase(phase)
    }

    /// A good status does not make a good answer: a portal says 200 as well. What is wrong with the head, if anything is.
    fn wrong_type(&self, headers: &HeaderMap, goal: &Goal<'_>) -> Option<String> {
        let text =
            |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
        let encoding = text(header::CONTENT_ENCODING);
        if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
            return Some(format!(
                "{} compresses its answer in a way that it was not asked for ({encoding})",
                self.provider
            ));
        }
        let kind =
            text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let bad = match goal {
            Goal::Stream(..) if self.api.framing() == Framing::Sse => kind != "text/event-stream",
            _ => kind == "text/html",
        };
        let kind: String = kind.chars().take(100).collect();
        (bad && !kind.is_empty()).then(|| {
            format!(
                "{} answers with {kind:?} and not with a stream of its API: check `baseUrl`",
                self.provider
            )
        })
    }

    /// A good status, and no stream. Proxies and routers send errors so; those that name a status mean it.
    async fn no_stream(&self, answer: &mut Answer, words: String) -> Failed {
        let body = error_body(answer).await;
        let value: Option<Value> = serde_json::from_slice(&body).ok();
        let named = value.as_ref().and_then(|value| value.get("error")).filter(|error| !error.is_null());
        let Some(named) = named else {
            let error = CoreError::new(Code::ProviderStream, words);
            return match String::from_utf8(body) {
                Ok(body) if !body.is_empty() => error.with_body(body).into(),
                _ => error.into(),
            };
        };
        let status = named.get("code").or_else(|| named.get("status")).and_then(Value::as_u64);
        match status.and_then(|status| u16::try_from(status).ok()).filter(|s| (400..600).contains(s)) {
            Some(status) => self.refused(status, &answer.headers, &body),
            None => self.told_no(Code::ProviderStream, "answered with an error", &body).into(),
        }
    }

    /// An answer that says no.
    async fn refusal(&self, answer: &mut Answer) -> Failed {
        let body = error_body(answer).await;
        self.refused(answer.status, &answer.headers, &body)
    }

    fn refused(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Failed {
        let after = retry_after(headers, (self.surroundings.now)());
        let retry = match headers.get("x-should-retry").and_then(|value| value.to_str().ok()) {
            Some("true") => true,
            Some("false") => false,
            _ => matches!(status, 408 | 409 | 429 | 500..=599),
        };
        let reason = reqwest::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason());
        let words = format!("answered {status} {}", reason.unwrap_or_default());
        let mut error = self.told_no(Code::ProviderHttp, &words, body).with_status(status);
        if let Some(after) = after {
            error = error.retry_after(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        }
        Failed { error, retry, after }
    }

    /// What the body of an error says, behind `words`.
    fn told_no(&self, code: Code, words: &str, body: &[u8]) -> CoreError {
        let (kind, message) = told(body);
        let mut text = format!("{} {words}", self.provider);
        for words in [kind.as_deref(), message.as_deref()].into_iter().flatten() {
            text.push_str(": ");
            text.push_str(words);
        }
        if words.starts_with("answered 3") {
            text.push_str("; redirects are not followed, as that would hand the key on: check `baseUrl`");
        }
        let mut error = CoreError::new(code, text);
        if !body.is_empty() {
            error = error.with_body(String::from_utf8_lossy(body));
        }
        match kind {
            Some(kind) => error.of_type(kind),
            None => error,
        }
    }

    /// The error without anything secret, and not too long: a server may repeat the key, or what else it was sent.
    fn clean(&self, error: CoreError, options: &CallOptions) -> CoreError {
        let mut secrets = Vec::new();
        let mut add = |text: &str| {
            if text.len() >= SECRET_BYTES {
                secrets.push(text.to_owned());
                // As some write it in JSON.
                if text.contains('/') {
                    secrets.push(text.replace('/', "\\/"));
                }
            }
        };
        if let Some(key) = self.endpoint.key.as_ref().and_then(|key| key.expose_str().ok()) {
            add(key);
        }
        for (name, value) in self.endpoint.headers.iter().chain(&options.headers) {
            let open = !value.is_sensitive() || OPEN_HEADERS.contains(&name.as_str());
            let Some(value) = value.to_str().ok().filter(|_| !open) else { continue };
            add(value);
            // A scheme, or names of cookies, may stand before what is secret.
            value.split([' ', ';', ',', '=']).for_each(&mut add);
        }
        // A secret that holds another one goes first.
        secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
        let cleaned = error.map_texts(|text| clean(text, &secrets));
        secrets.iter_mut().for_each(zeroize::Zeroize::zeroize);
        cleaned
    }
}

/// Whatever of an error's body comes in time.
async fn error_body(answer: &mut Answer) -> Vec<u8> {
    let mut body = Vec::new();
    let end = deadline(Some(ERROR_WAIT));
    while body.len() < ERROR_BYTES {
        let chunk = tokio::select! {
            biased;
            chunk = answer.body.chunk() => chunk,
            () = until(end) => break,
        };
        let Ok(Some(chunk)) = chunk else { break };
        let room = ERROR_BYTES.saturating_sub(body.len());
        body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
    }
    body
}

fn clean(text: &str, secrets: &[String]) -> String {
    let mut text = text.to_owned();
    for secret in secrets {
        if text.contains(secret.as_str()) {
            text = text.replace(secret.as_str(), "[REDACTED]");
        }
    }
    // Cut after the masking, so that half of a secret does not get by.
    let units: Vec<u16> = text.encode_utf16().collect();
    let masked =
        redact::redact(&units).map_or_else(|_| String::new(), |masked| String::from_utf16_lossy(&masked));
    match masked.char_indices().map(|(at, _)| at).find(|at| *at >= KEPT_BYTES) {
        Some(at) => format!("{}…", masked.get(..at).unwrap_or_default()),
        None => masked,
    }
}

/// The type and the message of an error's body: `{"error": {"type", "message"}}` and what else APIs write.
fn told(body: &[u8]) -> (Option<String>, Option<String>) {
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        let html = body.trim_ascii_start().first() == Some(&b'<');
        return (None, html.then(|| "an HTML page".into()));
    };
    let value = value.get(0).unwrap_or(&value);
    let error = value.get("error").unwrap_or(value);
    let word = |names: &[&str]| {
        names.iter().find_map(|name| error.get(name)).and_then(Value::as_str).filter(|word| !word.is_empty())
    };
    let message = error.as_str().or_else(|| word(&["message", "detail"]));
    (word(&["type", "status", "code"]).map(Into::into), message.map(Into::into))
}

/// What `retry-after-ms` or `Retry-After` ask for.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    // What no duration can hold is long all the same.
    let number = |text: &str, unit: f64| {
        let number = text.parse::<f64>().ok().filter(|number| *number >= 0.0)? * unit;
        Some(Duration::try_from_secs_f64(number).unwrap_or(Duration::MAX))
    };
    if let Some(wait) = text("retry-after-ms").and_then(|text| number(text, 0.001)) {
        return Some(wait);
    }
    let text = text("retry-after")?;
    number(text, 1.0)
        .or_else(|| Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()))
}

/// The next chunk, if it has come: the task that reads the socket gets its turn.
async fn at_once(body: &mut dyn Body) -> Result<Option<Option<Bytes>>> {
    let turns = async {
        for _ in 0..2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        chunk = body.chunk() => chunk.map(Some),
        () = turns => Ok(None),
    }
}

/// Reads the end of a body that holds nothing more.
fn drain(mut body: Box<dyn Body>) {
    tokio::spawn(async move {
        let rest = async {
            let mut read = 0;
            while let Ok(Some(chunk)) = body.chunk().await {
                read += chunk.len();
                if read > ERROR_BYTES {
                    break;
                }
            }
        };
        let _ = timeout(DRAIN, rest).await;
    });
}

fn deadline(after: Option<Duration>) -> Option<Instant> {
    after.and_then(|after| Instant::now().checked_add(after))
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn cancelled(cancel: Option<&CancellationToken>) {
    match cancel {
        Some(cancel) => cancel.cancelled().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
pub(crate) mod tests;
