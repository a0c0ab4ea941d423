//! `validateMessage`, `resolveBeneath`, `checkUrl` and `fetchChecked`.

use std::path::PathBuf;

use napi::bindgen_prelude::{Buffer, Either, FnArgs, JsObjectValue, Object, Unknown};
use napi::{Env, JsValue, ValueType, sys};
use napi_derive::napi;
use serde_json::json;

use super::abort::Abort;
use super::args::{checked, count, flag, name, stringify};
use super::error::{guard, reify, wrong_argument};
use super::json;
use super::script;
use super::settle::{rejecting, settle};
use crate::beneath::Root;
use crate::runtime::blocking;
use crate::validation::fetch::{FetchOptions, fetch};
use crate::validation::message::{self, Limits};
use crate::validation::url::{self, Policy, SystemResolver};
use crate::{Code, CoreError};

/// Something wrong with a message.
#[allow(dead_code, reason = "a type for index.d.ts: issues cross as one JSON text")]
#[napi(object, object_from_js = false)]
pub struct MessageIssue {
    /// What kind it is. Control characters are C0 but for tab, line feed and carriage return, DELETE, and C1; BIDI are
    /// the embeddings, overrides and isolates of UAX #9, which show a text in another order than it is read in.
    #[napi(ts_type = "'TOO_LONG' | 'TOO_MANY_BYTES' | 'CONTROL' | 'BIDI' | 'LONE_SURROGATE'")]
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// Where it starts, in UTF-16 code units; for a limit, what is first past it.
    pub offset: f64,
}

/// What `validateMessage` found.
#[allow(dead_code, reason = "a type for index.d.ts: the object is made in JavaScript")]
#[napi(object, object_from_js = false)]
pub struct ValidatedMessage {
    /// Whether there is no issue.
    pub ok: bool,
    /// The text that was given, unchanged.
    pub text: String,
    /// At most 100, in the order of the text; characters of one kind in a row are one.
    pub issues: Vec<MessageIssue>,
}

/// Characters that a stack holds; longer texts get a vector.
const SHORT: usize = 512;

/// Whether a text may go on as a message. It is never rewritten, and not normalised.
///
/// `maxChars` counts UTF-16 code units, `maxBytes` bytes as UTF-8; there is no limit unless given. What lies past a limit
/// is not looked at. `allowControl` admits control characters, `allowBidi` bidirectional controls; half a surrogate pair
/// is always an issue. Throws `VALIDATION` for arguments of another type.
#[napi(
    catch_unwind,
    ts_args_type = "text: string, limits?: { maxChars?: number; maxBytes?: number; allowControl?: boolean; allowBidi?: boolean }",
    ts_return_type = "ValidatedMessage"
)]
pub fn validate_message<'env>(
    env: &'env Env,
    text: Unknown<'env>,
    max_chars: Option<Unknown<'env>>,
    max_bytes: Option<Unknown<'env>>,
    allow_control: Option<Unknown<'env>>,
    allow_bidi: Option<Unknown<'env>>,
    no_object: Option<Unknown<'env>>,
) -> napi::Result<Either<Unknown<'env>, ()>> {
    if let Some(other) = no_object {
        return Err(reify(env, &wrong_argument("limits", "an object", &other)));
    }
    let limits = Limits {
        max_chars: count(env, "maxChars", max_chars, 0)?,
        max_bytes: count(env, "maxBytes", max_bytes, 0)?,
        allow_control: flag(env, "allowControl", allow_control)?.unwrap_or_default(),
        allow_bidi: flag(env, "allowBidi", allow_bidi)?.unwrap_or_default(),
    };
    let mut short = [0; SHORT];
    let read = code_units(env, text, &mut short)?;
    let issues = if read < SHORT - 1 {
        message::check(short.get(..read).unwrap_or_default(), read as u64, &limits)
    } else {
        let length = length(env, text)?;
        // One more, because a NUL is written behind the last.
        let mut units =
            vec![0; usize::try_from(message::relevant(length, &limits)).unwrap_or(usize::MAX) + 1];
        let read = code_units(env, text, &mut units)?;
        message::check(units.get(..read).unwrap_or_default(), length, &limits)
    };
    if issues.is_empty() {
        return Ok(Either::B(()));
    }
    let issues: Vec<_> = issues
        .iter()
        .map(|issue| json!({ "code": issue.kind.as_str(), "message": issue.to_string(), "offset": issue.offset }))
        .collect();
    json::parse_plain(env, &json!(issues).to_string()).map(Either::A)
}

/// Puts a function of `script.js` in the place of [`validate_message`], which makes the object more quickly and crosses
/// only where there may be something to find: a message is short and faultless as a rule, and a call from JavaScript
/// with all its arguments costs more than to look at it.
pub(super) fn export_validate_message(env: &Env, exports: &mut Object<'_>) -> napi::Result<()> {
    let search: Unknown<'_> = exports.get_named_property("validateMessage")?;
    let fine = env.create_function::<FnArgs<(Unknown<'_>,)>, Unknown<'_>>("isFine", is_fine)?;
    let outer: Unknown<'_> = script::call(env, "messageValidator", FnArgs::from((search, fine)))?;
    exports.set_named_property("validateMessage", outer)
}

/// `undefined` if the argument is a text of fewer than [`SHORT`] code units without an issue, else the argument. Two
/// calls of Node-API, where `#[napi]` makes a dozen.
unsafe extern "C" fn is_fine(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    let mut text = std::ptr::null_mut();
    let (mut count, mut read, mut units) = (1, 0, [0; SHORT]);
    // SAFETY: Node calls this with an environment and a call that are valid until it returns; there is room for one
    // argument and for as many units as are said.
    let status = unsafe {
        let null = std::ptr::null_mut();
        sys::napi_get_cb_info(env, info, &raw mut count, &raw mut text, null, std::ptr::null_mut());
        sys::napi_get_value_string_utf16(env, text, units.as_mut_ptr(), units.len(), &raw mut read)
    };
    let is_fine = std::panic::catch_unwind(|| {
        let units = units.get(..read).unwrap_or_default();
        read < SHORT - 1 && message::check(units, read as u64, &Limits::default()).is_empty()
    });
    if status == sys::Status::napi_ok && is_fine.unwrap_or(false) { std::ptr::null_mut() } else { text }
}

/// Copies code units of a string, as many as there is room for but one. One call, where a `JsString` takes two and a
/// vector.
fn code_units(env: &Env, text: Unknown<'_>, room: &mut [u16]) -> napi::Result<usize> {
    let mut read = 0;
    // SAFETY: the pointer and the length are those of one slice, and the value is alive in this call.
    let status = unsafe {
        sys::napi_get_value_string_utf16(env.raw(), text.raw(), room.as_mut_ptr(), room.len(), &raw mut read)
    };
    string_or_error(env, status, &text)?;
    Ok(read)
}

fn length(env: &Env, text: Unknown<'_>) -> napi::Result<u64> {
    let mut length = 0;
    // SAFETY: without a buffer, only the length is written.
    let status = unsafe {
        sys::napi_get_value_string_utf16(env.raw(), text.raw(), std::ptr::null_mut(), 0, &raw mut length)
    };
    string_or_error(env, status, &text)?;
    Ok(length as u64)
}

fn string_or_error(env: &Env, status: sys::napi_status, text: &Unknown<'_>) -> napi::Result<()> {
    match status {
        sys::Status::napi_ok => Ok(()),
        _ => Err(reify(env, &wrong_argument("text", "a string", text))),
    }
}

/// Where a path leads that must stay beneath `root`, given as relative to it or as beginning with it: an absolute path
/// without symbolic links. The end of it need not exist.
///
/// Links are followed as Linux' `openat2` does with `RESOLVE_BENEATH`: within the root, and no absolute one; on Windows
/// none is. Rejects with `PATH_ESCAPE` where the path leads out or runs in circles, with `IO` where the
/// system refuses. The answer holds for as long as nobody moves anything.
#[napi(catch_unwind, ts_args_type = "root: string, path: string", ts_return_type = "Promise<string>")]
pub fn resolve_beneath<'env>(
    env: &'env Env,
    root: Unknown<'env>,
    path: Unknown<'env>,
) -> napi::Result<Object<'env>> {
    rejecting(env, || {
        let root = PathBuf::from(name(env, "root", root)?);
        let path = PathBuf::from(name(env, "path", path)?);
        let work = move || {
            let found = Root::open(&root)?.resolve(&path)?;
            found.into_os_string().into_string().map_err(|found| {
                let message = format!("{} is no Unicode text", PathBuf::from(&found).display());
                CoreError::new(Code::Io, message)
            })
        };
        settle(env, Abort::never(), |_| blocking(work), |_, found| Ok(found))
    })
}

/// What may be fetched beyond what is public.
#[napi(object, object_to_js = false)]
pub struct FetchPolicy<'env> {
    /// Whether networks of one's own may be reached: loopback, private, carrier-grade NAT and unique local addresses.
    /// Link-local addresses, metadata services, multicast, reserved addresses and IPv6 transition forms never may.
    #[napi(ts_type = "boolean")]
    pub allow_private: Option<Unknown<'env>>,
    /// Hosts for which `allowPrivate` holds: a name, `*.` and a name for all beneath it, or an address. A name that is
    /// not `localhost` or beneath it still may not lead to loopback.
    #[napi(ts_type = "string[]")]
    pub allow_hosts: Option<Unknown<'env>>,
}

/// A URL that may be fetched.
#[allow(dead_code, reason = "a type for index.d.ts: it crosses as one JSON text")]
#[napi(object, object_from_js = false)]
pub struct CheckedUrl {
    /// As the URL standard writes it.
    pub url: String,
    /// Every address of its host. Connect to these and not to the name, which may lead elsewhere by then.
    pub addresses: Vec<String>,
}

/// Checks a URL that the agent would fetch, and resolves its host.
///
/// Rejects with `SSRF_BLOCKED` where it is not plainly written (a user name, percent-encoding or a backslash before the
/// path, an IPv4 address in another form than four decimal numbers), where its host is a name of local networks, or
/// where any address of its host is not public; with `VALIDATION` where it is no URL; with `NETWORK` where its host
/// has no address.
#[napi(
    catch_unwind,
    ts_args_type = "url: string, policy?: FetchPolicy",
    ts_return_type = "Promise<CheckedUrl>"
)]
pub fn check_url<'env>(
    env: &'env Env,
    url: Unknown<'env>,
    policy: Option<Either<FetchPolicy<'env>, Unknown<'env>>>,
) -> napi::Result<Object<'env>> {
    rejecting(env, || {
        let url = name(env, "url", url)?;
        let policy = read_policy(env, policy)?;
        settle(
            env,
            Abort::never(),
            |_| async move { url::check(&url, &policy, &SystemResolver).await },
            |env, found| {
                let found = json!({ "url": found.url.as_str(), "addresses": found.addresses });
                let found = json::parse_plain(env, &found.to_string())?;
                Ok(Object::from_raw(env.raw(), found.raw()).to_unknown())
            },
        )
    })
}

/// How to fetch.
#[napi(object, object_to_js = false)]
pub struct FetchCheckedOptions<'env> {
    /// What may be reached.
    #[napi(ts_type = "FetchPolicy")]
    pub policy: Option<Unknown<'env>>,
    /// The most bytes of a body; `LIMIT` beyond. Default: 10 MiB.
    #[napi(ts_type = "number")]
    pub max_bytes: Option<Unknown<'env>>,
    /// Sent with each request; after a redirect to another origin, only those that OpenClaw would send on too:
    /// no `authorization`, no `cookie`, none of one's own. `host` and what frames a request cannot be set.
    #[napi(ts_type = "Record<string, string>")]
    pub headers: Option<Unknown<'env>>,
    /// For the whole, redirects included; `TIMEOUT` beyond. Default: 60,000.
    #[napi(ts_type = "number")]
    pub timeout_ms: Option<Unknown<'env>>,
    /// Aborts the call.
    #[napi(ts_type = "AbortSignal")]
    pub signal: Option<Unknown<'env>>,
}

/// An answer to `fetchChecked`.
#[allow(dead_code, reason = "a type for index.d.ts")]
#[napi(object, object_from_js = false)]
pub struct FetchedUrl {
    /// The HTTP status; one of 400 or above is an answer too.
    pub status: u32,
    /// By lower-case name; the values of one that came several times are joined by ", ".
    #[napi(ts_type = "Record<string, string>")]
    pub headers: String,
    /// As it was sent: compressed if `content-encoding` says so, which is not asked for.
    pub body: Buffer,
    /// Where the answer came from, after redirects.
    pub url: String,
}

/// A GET that connects only to addresses that `checkUrl` admits, at each of at most 5 redirects. It goes through no
/// proxy, and decompresses nothing.
///
/// Rejects as `checkUrl` does, and with `LIMIT`, `TIMEOUT`, `NETWORK`, or the signal's reason.
#[napi(
    catch_unwind,
    ts_args_type = "url: string, options?: FetchCheckedOptions",
    ts_return_type = "Promise<FetchedUrl>"
)]
pub fn fetch_checked<'env>(
    env: &'env Env,
    url: Unknown<'env>,
    options: Option<Either<FetchCheckedOptions<'env>, Unknown<'env>>>,
) -> napi::Result<Object<'env>> {
    rejecting(env, || {
        let url = name(env, "url", url)?;
        let mut read = FetchOptions::default();
        let mut signal = None;
        if let Some(options) = checked(env, options)? {
            read.policy = policy_of(env, options.policy)?;
            if let Some(most) = count(env, "maxBytes", options.max_bytes, 0)? {
                read.max_bytes = usize::try_from(most).unwrap_or(usize::MAX);
            }
            if let Some(most) = count(env, "timeoutMs", options.timeout_ms, 1)? {
                read.timeout = std::time::Duration::from_millis(most);
            }
            if let Some(headers) = options.headers {
                read.headers = pairs(env, headers)?;
            }
            signal = options.signal;
        }
        let abort = Abort::from_signal(env, signal)?;
        settle(
            env,
            abort,
            |_| async move { fetch(&url, &read).await },
            |env, found| {
                let text =
                    json!({ "status": found.status, "headers": found.headers, "url": found.url.as_str() })
                        .to_string();
                let answer = json::parse_plain(env, &text)?;
                let mut answer = Object::from_raw(env.raw(), answer.raw());
                answer.set("body", Buffer::from(found.body))?;
                Ok(answer.to_unknown())
            },
        )
    })
}

fn read_policy(env: &Env, policy: Option<Either<FetchPolicy<'_>, Unknown<'_>>>) -> napi::Result<Policy> {
    let policy = match policy {
        None => return Ok(Policy::default()),
        Some(Either::A(policy)) => policy,
        Some(Either::B(other)) => return Err(reify(env, &wrong_argument("policy", "an object", &other))),
    };
    let mut read = Policy {
        allow_private: flag(env, "allowPrivate", policy.allow_private)?.unwrap_or_default(),
        ..Policy::default()
    };
    if let Some(hosts) = policy.allow_hosts {
        read.allow_hosts = from_json(env, "allowHosts", "an array of strings", hosts)?;
    }
    Ok(read)
}

fn policy_of(env: &Env, policy: Option<Unknown<'_>>) -> napi::Result<Policy> {
    let Some(policy) = policy else { return Ok(Policy::default()) };
    let object = match policy.get_type()? {
        ValueType::Undefined => return Ok(Policy::default()),
        ValueType::Object => Object::from_raw(env.raw(), policy.raw()),
        _ => return Err(reify(env, &wrong_argument("policy", "an object", &policy))),
    };
    let policy =
        FetchPolicy { allow_private: object.get("allowPrivate")?, allow_hosts: object.get("allowHosts")? };
    read_policy(env, Some(Either::A(policy)))
}

/// Name and value of each header.
fn pairs(env: &Env, headers: Unknown<'_>) -> napi::Result<Vec<(String, String)>> {
    let headers: std::collections::BTreeMap<String, String> =
        from_json(env, "headers", "an object of strings", headers)?;
    Ok(headers.into_iter().collect())
}

fn from_json<T: serde::de::DeserializeOwned>(
    env: &Env,
    name: &str,
    expected: &str,
    value: Unknown<'_>,
) -> napi::Result<T> {
    let text = stringify(env, value)?.unwrap_or_default();
    guard(env, || serde_json::from_slice(&text).map_err(|_| wrong_argument(name, expected, &value)))
}
