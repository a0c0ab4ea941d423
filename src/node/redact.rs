//! `redact` and `mightContainSecret`.
//!
//! Text crosses as UTF-16 into one buffer that is kept for the next call: most texts are log lines, and the copy is
//! what they cost. A text that stays as it is comes back as the very string that came in.

use std::borrow::Cow;
use std::cell::RefCell;

use napi::bindgen_prelude::{
    Array, Either, FnArgs, FromNapiValue, FunctionCallContext, Unknown, Utf16String,
};
use napi::{Env, JsString, JsValue, ValueType, check_status, sys};
use napi_derive::napi;

use super::error::{guard, reify, wrong_argument};
use super::script;
use crate::redact::{self as core, Manner, Treatment};
use crate::{Code, CoreError, Result};

/// What a buffer may keep between calls, in code units.
const KEPT: usize = 1 << 20;

thread_local! {
    static BUFFER: RefCell<Vec<u16>> = const { RefCell::new(Vec::new()) };
}

/// Options of `redact` and `mightContainSecret`.
#[napi(object, object_to_js = false)]
pub struct RedactOptions<'env> {
    /// JavaScript regular expressions, as `source` (flags `gi`) or `/source/flags`.
    #[napi(ts_type = "string[]")]
    pub patterns: Option<Unknown<'env>>,
}

/// The text with every credential masked: `***`, or for 18 units and more the first six, `…` and the last four.
/// Equal to OpenClaw 2026.9.6's `redactSensitiveText`, which also masks values that it has registered itself. A text
/// without credentials is returned as it is.
///
/// With `patterns`, those are looked for in place of the built-in ones, as OpenClaw does; assignments in URLs, form
/// bodies and `Authorization` headers, and AWS keys, are masked in any case. The last group that holds something is
/// the secret; without one, the whole match is. A pattern that does not compile, or that repeats what repeats, is
/// passed over, as in OpenClaw. They are run by the JavaScript engine, whose time has no bound.
#[napi(catch_unwind, ts_args_type = "text: string, options?: RedactOptions", ts_return_type = "string")]
pub fn redact<'env>(
    env: &'env Env,
    text: Either<JsString<'env>, Unknown<'env>>,
    options: Option<Either<RedactOptions<'env>, Unknown<'env>>>,
) -> napi::Result<JsString<'env>> {
    let text = string(env, text)?;
    match patterns(env, options)? {
        None => rewritten(env, text, core::redact),
        // There is nothing to mask, though a pattern may match.
        Some(_) if text.utf16_len()? == 0 => Ok(text),
        Some(patterns) => redact_by(env, text, patterns),
    }
}

/// False only if `redact` would leave the text as it is; linear in the text. It is OpenClaw's own pre-filter, answer
/// for answer. With `patterns` it is true of every text but the empty one: what they match is not known beforehand.
#[napi(catch_unwind, ts_args_type = "text: string, options?: RedactOptions", ts_return_type = "boolean")]
pub fn might_contain_secret<'env>(
    env: &'env Env,
    text: Either<JsString<'env>, Unknown<'env>>,
    options: Option<Either<RedactOptions<'env>, Unknown<'env>>>,
) -> napi::Result<bool> {
    let text = string(env, text)?;
    let any = patterns(env, options)?.is_some();
    with_units(env, text, |units| {
        if any { Ok(!units.is_empty()) } else { guard(env, || core::might_contain_secret(units)) }
    })
}

fn string<'env>(env: &'env Env, text: Either<JsString<'env>, Unknown<'env>>) -> napi::Result<JsString<'env>> {
    match text {
        Either::A(text) => Ok(text),
        Either::B(other) => Err(reify(env, &wrong_argument("text", "a string", &other))),
    }
}

/// None where there are none: OpenClaw takes an empty list for none.
fn patterns<'env>(
    env: &'env Env,
    options: Option<Either<RedactOptions<'env>, Unknown<'env>>>,
) -> napi::Result<Option<Array<'env>>> {
    let Some(given) = super::args::checked(env, options)?.and_then(|options| options.patterns) else {
        return Ok(None);
    };
    let refused = || reify(env, &CoreError::new(Code::Validation, "`patterns` must be an array of strings"));
    if !given.is_array()? {
        return Err(refused());
    }
    let list = Array::from_unknown(given)?;
    for index in 0..list.len() {
        let is_string = list
            .get::<Unknown<'_>>(index)?
            .is_some_and(|item| matches!(item.get_type(), Ok(ValueType::String)));
        if !is_string {
            return Err(refused());
        }
    }
    Ok((list.len() > 0).then_some(list))
}

/// Calls `work` with the code units of a JS string. `work` must not come back here.
fn with_units<T>(
    env: &Env,
    text: JsString<'_>,
    work: impl FnOnce(&[u16]) -> napi::Result<T>,
) -> napi::Result<T> {
    let mut buffer = BUFFER.take();
    let outcome = read(env, text, &mut buffer).and_then(|()| work(&buffer));
    buffer.clear();
    buffer.shrink_to(KEPT);
    BUFFER.set(buffer);
    outcome
}

fn read(env: &Env, text: JsString<'_>, buffer: &mut Vec<u16>) -> napi::Result<()> {
    let mut length = 0;
    // SAFETY: with no buffer, Node-API writes the length and nothing else.
    check_status!(unsafe {
        sys::napi_get_value_string_utf16(env.raw(), text.raw(), std::ptr::null_mut(), 0, &raw mut length)
    })?;
    buffer.clear();
    buffer.reserve(length + 1);
    // SAFETY: there is room for the text and the NUL behind it, and what was written is then the buffer's length.
    unsafe {
        check_status!(sys::napi_get_value_string_utf16(
            env.raw(),
            text.raw(),
            buffer.as_mut_ptr(),
            length + 1,
            &raw mut length,
        ))?;
        buffer.set_len(length);
    }
    Ok(())
}

/// The text after `work`: the same JS string where `work` changes nothing.
fn rewritten<'env>(
    env: &'env Env,
    text: JsString<'env>,
    work: impl FnOnce(&[u16]) -> Result<Cow<'_, [u16]>>,
) -> napi::Result<JsString<'env>> {
    with_units(env, text, |units| match guard(env, || work(units))? {
        Cow::Borrowed(_) => Ok(text),
        Cow::Owned(changed) => env.create_string_utf16(&changed),
    })
}

/// Redaction by a user's patterns. V8 runs them: no other engine is sure to take them as it does.
fn redact_by<'env>(
    env: &'env Env,
    text: JsString<'env>,
    patterns: Array<'env>,
) -> napi::Result<JsString<'env>> {
    let text = rewritten(env, text, core::redact_assignments)?;
    let treat = env.create_function_from_closure::<(), u32, _>("treat", |call| {
        Ok(bits(core::treatment(&call.get::<Utf16String>(0)?.to_string())))
    })?;
    let refuses = env.create_function_from_closure::<(), bool, _>("refuses", |call| {
        with_units(call.env, call.get(0)?, |source| Ok(core::has_nested_repetition(source)))
    })?;
    let mask = env.create_function_from_closure::<(), Option<Utf16String>, _>("mask", |call| mask(&call))?;
    let native = (text, patterns, treat, refuses, mask);
    let text = script::call(env, "redactBy", FnArgs::from(native))?;
    rewritten(env, text, |units| Ok(core::redact_keys(units)))
}

const KEEPS_SHELL_REFERENCES: u32 = 1;
const IS_FORM_AWARE: u32 = 2;
const WHOLE: u32 = 4;
const PRIVATE_KEY: u32 = 8;

fn bits(treatment: Treatment) -> u32 {
    let Treatment { manner, whole, is_pem } = treatment;
    let flags = [
        (manner.keeps_shell_references, KEEPS_SHELL_REFERENCES),
        (manner.is_form_aware, IS_FORM_AWARE),
        (whole, WHOLE),
        (is_pem, PRIVATE_KEY),
    ];
    flags.into_iter().filter(|(is, _)| *is).map(|(_, bit)| bit).sum()
}

/// `mask(match, token, bits)`: what stands for the token in the match, or null where it stays. With the bit for
/// private keys the match is a text, and all of them in it are masked.
fn mask(call: &FunctionCallContext<'_>) -> napi::Result<Option<Utf16String>> {
    let bits: u32 = call.get(2)?;
    let matched: Utf16String = call.get(0)?;
    let mask = if bits & PRIVATE_KEY != 0 {
        match core::redact_private_keys(&matched) {
            Cow::Borrowed(_) => None,
            Cow::Owned(changed) => Some(changed),
        }
    } else if core::is_pem(&matched) {
        Some(core::mask_pem(&matched))
    } else {
        let manner = Manner {
            keeps_shell_references: bits & KEEPS_SHELL_REFERENCES != 0,
            is_form_aware: bits & IS_FORM_AWARE != 0,
        };
        core::mask_token(&matched, &call.get::<Utf16String>(1)?, manner)
    };
    Ok(mask.map(Utf16String::from))
}
