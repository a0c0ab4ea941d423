//! Arguments of the wrong kind are refused with `VALIDATION`, and what is no argument is none.

use napi::bindgen_prelude::{Either, Function, JsObjectValue, Object, Unknown};
use napi::{Env, JsString, JsValue, ValueType};

use super::error::{reify, wrong_argument};
use super::json;
use crate::{Code, CoreError};

/// Options that are no object would otherwise be no options, and another config would be read.
pub(super) fn checked<T>(env: &Env, options: Option<Either<T, Unknown<'_>>>) -> napi::Result<Option<T>> {
    match options {
        None => Ok(None),
        Some(Either::A(options)) => Ok(Some(options)),
        Some(Either::B(other)) => Err(reify(env, &wrong_argument("options", "an object", &other))),
    }
}

/// A string; a lone surrogate becomes U+FFFD.
pub(super) fn text(env: &Env, name: &str, value: Unknown<'_>) -> napi::Result<String> {
    if value.get_type()? != ValueType::String {
        return Err(reify(env, &wrong_argument(name, "a string", &value)));
    }
    value.coerce_to_string()?.into_utf8()?.into_owned()
}

/// A string that names something: a lone surrogate, which has no UTF-8, would name something else.
pub(super) fn name(env: &Env, name: &str, value: Unknown<'_>) -> napi::Result<String> {
    if value.get_type()? != ValueType::String {
        return Err(reify(env, &wrong_argument(name, "a string", &value)));
    }
    let bytes = json::wtf8(env, name, Either::A(value.coerce_to_string()?))?;
    String::from_utf8(bytes).map_err(|_| {
        let message = format!("`{name}` holds half of a surrogate pair, and is no Unicode text");
        reify(env, &CoreError::new(Code::Validation, message))
    })
}

pub(super) fn flag(env: &Env, name: &str, value: Option<Unknown<'_>>) -> napi::Result<Option<bool>> {
    let Some(value) = value else { return Ok(None) };
    if value.get_type()? != ValueType::Boolean {
        return Err(reify(env, &wrong_argument(name, "a boolean", &value)));
    }
    value.coerce_to_bool().map(Some)
}

/// A whole number from `least` on that a double holds exactly.
pub(super) fn count(
    env: &Env,
    name: &str,
    value: Option<Unknown<'_>>,
    least: u32,
) -> napi::Result<Option<u64>> {
    let Some(value) = value else { return Ok(None) };
    if value.get_type()? != ValueType::Number {
        return Err(reify(env, &wrong_argument(name, "a number", &value)));
    }
    let number = value.coerce_to_number()?.get_double()?;
    let most = 9_007_199_254_740_991.0;
    if number.fract() != 0.0 || !(f64::from(least)..=most).contains(&number) {
        let message = format!("`{name}` must be a whole number from {least} on, not {number}");
        return Err(reify(env, &CoreError::new(Code::Validation, message)));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, and not negative")]
    Ok(Some(number as u64))
}

/// One of a few words.
pub(super) fn word<T: Copy>(
    env: &Env,
    name: &str,
    value: Option<Unknown<'_>>,
    words: &[(&str, T)],
) -> napi::Result<Option<T>> {
    let Some(value) = value else { return Ok(None) };
    let given = text(env, name, value)?;
    if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == given) {
        return Ok(Some(*meaning));
    }
    let words: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    let message = format!("`{name}` must be {}, not {given:?}", words.join(" or "));
    Err(reify(env, &CoreError::new(Code::Validation, message)))
}

/// `JSON.stringify(value)`: none for undefined, a function or a symbol. What it throws, for a `BigInt` or a cycle or
/// out of a `toJSON`, is the error.
pub(super) fn stringify(env: &Env, value: Unknown<'_>) -> napi::Result<Option<Vec<u8>>> {
    let stringify: Function<'_, Unknown<'_>, Option<JsString<'_>>> =
        env.get_global()?.get_named_property::<Object<'_>>("JSON")?.get_named_property("stringify")?;
    stringify.call(value)?.map(|text| Ok(text.into_utf8()?.take())).transpose()
}
