//! The seam between what is common to all APIs and what is one API's own.
//!
//! An [`Api`] encodes a request and says how the answer is framed; its [`Reducer`] reads the frames of one answer and
//! writes to a [`MessageBuilder`]. Connecting, timers, retries, events and their way into JavaScript are common to all
//! (`call`).

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::builder::MessageBuilder;
use super::message::write_string;
use super::request::CompletionRequest;
use crate::secrets::Secret;
use crate::{Code, CoreError, Result};

/// One API of a model provider. Stateless: what belongs to a call is in the [`Endpoint`] and the [`Reducer`].
pub trait Api: Send + Sync + 'static {
    /// OpenClaw's name of the API, such as `anthropic-messages`.
    fn id(&self) -> &'static str;

    /// The provider's id, unless the caller names another, such as `anthropic`.
    fn provider(&self) -> &'static str;

    /// Where the API is, unless the caller says otherwise.
    fn base_url(&self) -> &'static str;

    /// The call of the API that answers `request` as a stream. `PROVIDER_REQUEST` names what the API cannot express.
    fn request(&self, request: &CompletionRequest, endpoint: &Endpoint) -> Result<HttpRequest>;

    /// How the answer is divided into events.
    fn framing(&self) -> Framing;

    /// What reads one answer.
    fn reducer(&self) -> Box<dyn Reducer>;

    /// The call that lists models; `after` is [`ModelPage::next`] of the page before.
    fn models_request(&self, endpoint: &Endpoint, after: Option<&str>) -> Result<HttpRequest>;

    /// Reads the answer to it.
    fn models(&self, body: &str) -> Result<ModelPage>;
}

/// Reads the events of one answer.
pub trait Reducer: Send {
    /// One event: its name (the `event:` field; empty in NDJSON and where the server names none) and its data.
    /// `PROVIDER_STREAM` if the API says so, or if it makes no sense. Kinds of events that nobody knows are ignored.
    fn event(&mut self, name: &str, data: &str, out: &mut MessageBuilder) -> Result<Flow>;

    /// The server has closed the stream without [`Flow::End`]. `Ok` if the API ends its answers so, and all of it came.
    fn end(&mut self, out: &mut MessageBuilder) -> Result<()>;
}

/// Whether more of an answer is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It may.
    Continue,
    /// This event was the API's own end mark.
    End,
}

/// How an answer is divided into events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `text/event-stream`, by the WHATWG's rules.
    Sse,
    /// One JSON text a line.
    Ndjson,
}

/// Where an API is, and who calls.
#[derive(Clone)]
pub struct Endpoint {
    /// The provider's id: what is signed goes back to it only.
    pub provider: String,
    /// Without a slash at the end.
    pub base_url: String,
    /// The API key, or none for servers that want none.
    pub key: Option<Secret>,
    /// Headers of the caller's, over those of the API.
    pub headers: HeaderMap,
}

impl fmt::Debug for Endpoint {
    /// Without the headers, which may hold a key, and without what a URL may hold beside a path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// The URL of `path`, which begins with a slash, below the base. A query of the base's own (Azure's `api-version`)
    /// stays; `query` is added.
    pub fn url(&self, path: &str, query: &[(&str, &str)]) -> Result<Url> {
        // The error would repeat the URL, which may hold a password.
        let wrong = || CoreError::new(Code::ProviderRequest, "`baseUrl` is no URL").at_path("baseUrl");
        let mut url = Url::parse(&self.base_url).map_err(|_| wrong())?;
        if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
            return Err(wrong());
        }
        let whole = format!("{}{path}", url.path().trim_end_matches('/'));
        url.set_path(&whole);
        for (name, value) in query {
            url.query_pairs_mut().append_pair(name, value);
        }
        Ok(url)
    }

    /// The key as the value of a header, behind `prefix` ("Bearer "); it is never printed. None without a key.
    pub fn key_header(&self, prefix: &str) -> Result<Option<HeaderValue>> {
        let Some(key) = &self.key else { return Ok(None) };
        let mut text = zeroize::Zeroizing::new(Vec::with_capacity(prefix.len() + key.len()));
        text.extend_from_slice(prefix.as_bytes());
        text.extend_from_slice(key.expose());
        let mut value = HeaderValue::from_bytes(&text).map_err(|_| {
            CoreError::new(Code::ProviderRequest, "the API key has a character that no header can hold")
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// A call of an API.
#[derive(Clone)]
pub struct HttpRequest {
    /// `GET` or `POST`.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// The API's own headers. The caller's are added by `call`, as are those that depend on the body.
    pub headers: HeaderMap,
    /// JSON, or empty with `GET`.
    pub body: Vec<u8>,
}

impl HttpRequest {
    /// A `GET`.
    pub fn get(url: Url) -> Self {
        Self { method: Method::GET, url, headers: HeaderMap::new(), body: Vec::new() }
    }

    /// A `POST` of a JSON payload. The fields of `extra` go over those of the payload.
    pub fn post(url: Url, mut payload: Map<String, Value>, extra: &Map<String, Value>) -> Self {
        for (name, value) in extra {
            payload.insert(name.clone(), value.clone());
        }
        let body = Value::Object(payload).to_string().into_bytes();
        Self { method: Method::POST, url, headers: HeaderMap::new(), body }
    }

    /// Adds a header of the API's.
    pub fn header(mut self, name: &'static str, value: HeaderValue) -> Self {
        self.headers.insert(HeaderName::from_static(name), value);
        self
    }

    /// Adds a header of the API's, if there is a value.
    pub fn header_if(self, name: &'static str, value: Option<HeaderValue>) -> Self {
        match value {
            Some(value) => self.header(name, value),
            None => self,
        }
    }
}

/// A model that a provider offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// What a request names it by.
    pub id: String,
    /// What people call it.
    pub name: Option<String>,
    /// Tokens of prompt and answer together.
    pub context_window: Option<u64>,
    /// Tokens of an answer.
    pub max_output: Option<u64>,
}

impl Model {
    /// Appends it as JSON.
    pub fn write_json(&self, out: &mut String) {
        out.push_str("{\"id\":");
        write_string(out, &self.id);
        if let Some(name) = &self.name {
            out.push_str(",\"name\":");
            write_string(out, name);
        }
        for (name, count) in [("contextWindow", self.context_window), ("maxOutput", self.max_output)] {
            if let Some(count) = count {
                let _ = write!(out, ",\"{name}\":{count}");
            }
        }
        out.push('}');
    }
}

/// A page of the list of models.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelPage {
    /// In the order of the API.
    pub models: Vec<Model>,
    /// What the next page begins after; none on the last.
    pub next: Option<String>,
}

// ── errors of answers ───────────────────────────────────────────────────────────────────────────────────────────────

/// The stream ended before the API's own end mark.
pub fn incomplete(api: &str) -> CoreError {
    CoreError::new(
        Code::ProviderStream,
        format!("the stream of {api} ended before its end mark: the answer is incomplete"),
    )
}

/// An event that makes no sense. What was wrong stands in `words`; the event itself may be long, and is not repeated.
pub fn malformed(api: &str, words: impl fmt::Display) -> CoreError {
    CoreError::new(
        Code::ProviderStream,
        format!("the stream of {api} holds an event that makes no sense: {words}"),
    )
}

/// The API says within its stream that it failed. `kind` is its own word, such as `overloaded_error`.
pub fn failed(api: &str, kind: Option<&str>, message: &str) -> CoreError {
    let kind = kind.filter(|kind| !kind.is_empty());
    let words = message.chars().take(2000).collect::<String>();
    let words = if words.is_empty() { "it does not say why".into() } else { words };
    let text = match kind {
        Some(kind) => format!("{api} failed within the stream: {kind}: {words}"),
        None => format!("{api} failed within the stream: {words}"),
    };
    let error = CoreError::new(Code::ProviderStream, text);
    match kind {
        Some(kind) => error.of_type(kind),
        None => error,
    }
}

// ── reading events without building trees ───────────────────────────────────────────────────────────────────────────

/// The named members of a JSON object, as they stand in its text; `null` is none. Other members are checked for syntax
/// and skipped. A member that comes twice counts as JavaScript has it: the last one.
///
/// # Errors
/// What is wrong with the text, or that it is no object.
pub fn members<'a, const N: usize>(
    object: &'a str,
    names: [&str; N],
) -> Result<[Option<&'a RawValue>; N], serde_json::Error> {
    let mut found = [None; N];
    let mut text = serde_json::Deserializer::from_str(object);
    Members { names: &names, found: &mut found }.deserialize(&mut text)?;
    text.end()?;
    Ok(found)
}

struct Members<'a, 'n> {
    names: &'n [&'n str],
    found: &'n mut [Option<&'a RawValue>],
}

impl<'a> DeserializeSeed<'a> for Members<'a, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for Members<'a, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key_seed(Name(self.names))? {
            match name.and_then(|at| self.found.get_mut(at)) {
                Some(found) => {
                    let value: &'a RawValue = map.next_value()?;
                    *found = (value.get() != "null").then_some(value);
                }
                None => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }
}

/// Which of the names a key is.
struct Name<'n>(&'n [&'n str]);

impl<'a> DeserializeSeed<'a> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|name| *name == key))
    }
}

/// The text of a JSON string; none if it is no string, or holds half of a surrogate pair.
pub fn text(json: &RawValue) -> Option<Cow<'_, str>> {
    let json = json.get();
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(json).ok().map(Cow::Owned)
}

/// The text of a JSON string, with U+FFFD for half of a surrogate pair; none if it is no string.
pub fn lossy_text(json: &RawValue) -> Option<Cow<'_, str>> {
    text(json).or_else(|| units(json).map(|units| Cow::Owned(String::from_utf16_lossy(&units))))
}

/// The UTF-16 code units of a JSON string; none if it is no string.
pub(super) fn units(json: &RawValue) -> Option<Vec<u16>> {
    let inner = json.get().strip_prefix('"')?.strip_suffix('"')?;
    let mut units = Vec::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        let unit = match char {
            '\\' => match chars.next()? {
                'n' => 0x0A,
                'r' => 0x0D,
                't' => 0x09,
                'b' => 0x08,
                'f' => 0x0C,
                'u' => {
                    let mut unit = 0;
                    for _ in 0..4 {
                        unit = unit << 4 | u16::try_from(chars.next()?.to_digit(16)?).ok()?;
                    }
                    unit
                }
                other => u16::try_from(u32::from(other)).ok()?,
            },
            other => {
                units.extend_from_slice(other.encode_utf16(&mut [0; 2]));
                continue;
            }
        };
        units.push(unit);
    }
    Some(units)
}

/// A count; none if it is no whole number, or negative.
pub fn count(json: &RawValue) -> Option<u64> {
    let text = json.get();
    text.parse().ok().or_else(|| {
        // Some servers write 12.0.
        let number: f64 = text.parse().ok()?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
        (number.fract() == 0.0 && (0.0..=9_007_199_254_740_991.0).contains(&number)).then_some(number as u64)
    })
}

/// The elements of a JSON array, as they stand in its text; none if it is no array.
pub fn elements(json: &RawValue) -> Vec<&RawValue> {
    serde_json::from_str(json.get()).unwrap_or_default()
}
