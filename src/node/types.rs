//! Session keys.

use napi::bindgen_prelude::{Either, FromNapiValue, JsObjectValue, Object, Unknown};
use napi::{Env, JsString, ValueType};
use napi_derive::napi;

use super::error::{guard, reify, wrong_argument};
use crate::types::session_key::{DmScope, Parts, PeerKind, Units, build, parse};
use crate::{Code, CoreError};

/// The two halves of a session key.
#[napi(object, object_from_js = false)]
pub struct ParsedSessionKey<'env> {
    /// Whose session it is.
    #[napi(ts_type = "string")]
    pub agent_id: JsString<'env>,
    /// Which of its sessions.
    #[napi(ts_type = "string")]
    pub rest: JsString<'env>,
}

/// `agent:<agentId>:<rest>` as OpenClaw 2026.9 reads it (`parseAgentSessionKey`): folded to lower case but for the ids
/// that Signal and Matrix own. `null` where OpenClaw returns `null`.
///
/// Costs more than the TypeScript it equals, for the crossing: import it where no OpenClaw is at hand.
#[napi(catch_unwind, ts_args_type = "key: string", ts_return_type = "ParsedSessionKey | null")]
pub fn parse_session_key<'env>(
    env: &'env Env,
    key: Either<JsString<'env>, Unknown<'env>>,
) -> napi::Result<Option<ParsedSessionKey<'env>>> {
    let key = code_units(env, "key", key)?;
    guard(env, || Ok(parse(&key)))?
        .map(|key| {
            Ok(ParsedSessionKey {
                agent_id: env.create_string_utf16(key.agent_id)?,
                rest: env.create_string_utf16(key.rest)?,
            })
        })
        .transpose()
}

/// The key of the session that a message belongs to, as OpenClaw 2026.9 builds it (`buildAgentPeerSessionKey`, with
/// `:thread:<id>` behind it for a thread).
///
/// Throws `VALIDATION` for a kind or scope that does not exist.
#[napi(
    catch_unwind,
    ts_args_type = "parts: { agentId: string; channel?: string; accountId?: string; peer?: { kind: 'direct' | 'group' | 'channel'; id: string }; dmScope?: 'main' | 'per-peer' | 'per-channel-peer' | 'per-account-channel-peer'; threadId?: string }",
    ts_return_type = "string"
)]
pub fn build_session_key<'env>(
    env: &'env Env,
    parts: Either<Object<'env>, Unknown<'env>>,
) -> napi::Result<JsString<'env>> {
    let parts = match parts {
        Either::A(parts) => parts,
        Either::B(other) => return Err(reify(env, &wrong_argument("parts", "an object", &other))),
    };
    let peer = match property::<Object<'_>>(env, &parts, "peer", ValueType::Object)? {
        None => None,
        Some(peer) => {
            let kinds =
                [("direct", PeerKind::Direct), ("group", PeerKind::Group), ("channel", PeerKind::Channel)];
            let kind = one_of(env, &peer, "kind", &kinds)?.unwrap_or(PeerKind::Direct);
            Some((kind, text(env, &peer, "id")?))
        }
    };
    let scopes = [
        ("main", DmScope::Main),
        ("per-peer", DmScope::PerPeer),
        ("per-channel-peer", DmScope::PerChannelPeer),
        ("per-account-channel-peer", DmScope::PerAccountChannelPeer),
    ];
    let parts = Parts {
        agent_id: text(env, &parts, "agentId")?,
        channel: text(env, &parts, "channel")?,
        account_id: text(env, &parts, "accountId")?,
        peer,
        dm_scope: one_of(env, &parts, "dmScope", &scopes)?.unwrap_or_default(),
        thread_id: text(env, &parts, "threadId")?,
    };
    let key = guard(env, || Ok(build(&parts)))?;
    env.create_string_utf16(key)
}

/// A property that may be absent, `null` or `undefined`.
fn property<'env, T: FromNapiValue>(
    env: &Env,
    object: &Object<'env>,
    name: &str,
    expected: ValueType,
) -> napi::Result<Option<T>> {
    let value: Unknown<'env> = object.get_named_property(name)?;
    match value.get_type()? {
        ValueType::Undefined | ValueType::Null => Ok(None),
        kind if kind == expected => object.get(name),
        _ => {
            let expected = format!("a value of type {}", format!("{expected}").to_lowercase());
            Err(reify(env, &wrong_argument(name, &expected, &value)))
        }
    }
}

fn text(env: &Env, object: &Object<'_>, name: &str) -> napi::Result<Units> {
    let Some(string) = property::<JsString<'_>>(env, object, name, ValueType::String)? else {
        return Ok(Units::new());
    };
    units(string)
}

fn one_of<T: Copy>(
    env: &Env,
    object: &Object<'_>,
    name: &str,
    allowed: &[(&str, T)],
) -> napi::Result<Option<T>> {
    let given = text(env, object, name)?;
    if given.is_empty() {
        return Ok(None);
    }
    let given = String::from_utf16_lossy(&given);
    let found = allowed.iter().find(|(word, _)| *word == given).map(|(_, value)| *value);
    found.map(Some).ok_or_else(|| {
        let words: Vec<_> = allowed.iter().map(|(word, _)| *word).collect();
        let message = format!("`{name}` must be one of {}, not {given:?}", words.join(", "));
        reify(env, &CoreError::new(Code::Validation, message))
    })
}

fn code_units(env: &Env, name: &str, value: Either<JsString<'_>, Unknown<'_>>) -> napi::Result<Units> {
    match value {
        Either::A(string) => units(string),
        Either::B(other) => Err(reify(env, &wrong_argument(name, "a string", &other))),
    }
}

fn units(string: JsString<'_>) -> napi::Result<Units> {
    // napi's slice counts the closing NUL.
    let length = string.utf16_len()?;
    Ok(string.into_utf16()?.as_slice().iter().copied().take(length).collect())
}
