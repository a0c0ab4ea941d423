//! `parseJson5`.

use napi::bindgen_prelude::{Either, Unknown};
use napi::{Env, JsString};
use napi_derive::napi;

use super::error::guard;
use super::json;
use crate::config::json5::to_json;

/// A JSON5 text as a value, equal to what npm `json5` 2.2.3 makes of it: -0, NaN, the infinities, hexadecimal
/// numbers, `__proto__` keys, duplicate keys, key order and lone surrogates included.
///
/// Throws `CONFIG_PARSE` with npm's message, `line` and `column`; also where more than 10,000 levels nest.
#[napi(catch_unwind, ts_args_type = "text: string", ts_return_type = "unknown")]
pub fn parse_json5<'env>(
    env: &'env Env,
    text: Either<JsString<'env>, Unknown<'env>>,
) -> napi::Result<Unknown<'env>> {
    let text = json::wtf8(env, "text", text)?;
    let json = guard(env, || to_json(&text))?;
    json::parse(env, &json)
}
