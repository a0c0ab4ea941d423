//! Text in as WTF-8; data out as one JSON text, parsed by V8.

use napi::bindgen_prelude::{Either, FnArgs, Function, JsObjectValue, Object, Unknown};
use napi::{Env, JsString};

use super::error::{reify, wrong_argument};
use crate::config::json5::JsonText;
use crate::config::value::Text;

/// What JSON cannot say, put back: a walk over the parsed tree, without recursion.
const RESTORE_NAN: &str = "((root, mark) => {
  if (root === mark) return NaN;
  const open = [root];
  for (let at; (at = open.pop()) !== undefined;)
    for (const key of Object.keys(at)) {
      const value = at[key];
      if (value === mark) Object.defineProperty(at, key, { value: NaN });
      else if (value !== null && typeof value === 'object') open.push(value);
    }
  return root;
})";

/// The bytes of a JS string as WTF-8. `name` is the argument's, for the error.
pub(super) fn wtf8(env: &Env, name: &str, value: Either<JsString<'_>, Unknown<'_>>) -> napi::Result<Vec<u8>> {
    let string = match value {
        Either::A(string) => string,
        Either::B(other) => return Err(reify(env, &wrong_argument(name, "a string", &other))),
    };
    let bytes = string.into_utf8()?.take();
    // V8 writes a lone surrogate as U+FFFD. Where one stands, the code units tell which it was.
    // The lead byte is rare, and looking for one byte is fast.
    if !bytes.contains(&0xEF) || !bytes.windows(3).any(|three| three == [0xEF, 0xBF, 0xBD]) {
        return Ok(bytes);
    }
    let mut text = Text::new();
    // napi's slice counts the closing NUL.
    let length = string.utf16_len()?;
    for unit in char::decode_utf16(string.into_utf16()?.as_slice().iter().copied().take(length)) {
        text.push_code_point(unit.map_or_else(|lone| u32::from(lone.unpaired_surrogate()), u32::from));
    }
    Ok(text.into_bytes())
}

/// `JSON.parse(text)`, with NaN put back where the document has it.
pub(super) fn parse<'env>(env: &'env Env, json: &JsonText) -> napi::Result<Unknown<'env>> {
    let value = parse_plain(env, &json.text)?;
    let Some(mark) = &json.nan else { return Ok(value) };
    let restore: Function<'_, FnArgs<(Unknown<'_>, &str)>, Unknown<'_>> = env.run_script(RESTORE_NAN)?;
    restore.call((value, mark.as_str()).into())
}

/// `JSON.parse(text)`.
pub(super) fn parse_plain<'env>(env: &'env Env, text: &str) -> napi::Result<Unknown<'env>> {
    let parse: Function<'_, JsString<'_>, Unknown<'_>> =
        env.get_global()?.get_named_property::<Object<'_>>("JSON")?.get_named_property("parse")?;
    parse.call(string(env, text)?)
}

/// A JS string; quicker where the text is ASCII.
pub(super) fn string<'env>(env: &'env Env, text: &str) -> napi::Result<JsString<'env>> {
    if text.is_ascii() { env.create_string_latin1(text) } else { env.create_string(text) }
}
