//! Large results: parsed by V8 in slices, one a turn of the event loop.

use std::collections::VecDeque;

use napi::bindgen_prelude::{FnArgs, Object, ObjectRef, Unknown};
use napi::{Env, JsValue};

use super::abort::Abort;
use super::json::string;
use super::script::call;
use super::settle::settle;

/// Bytes of text that one turn parses: a fraction of a millisecond.
pub(super) const SLICE_BYTES: usize = 96 << 10;

/// A part of an array.
pub(super) trait Slice: Send + 'static {
    /// Appends its elements to `array`.
    fn append(self, env: &Env, array: Object<'_>) -> napi::Result<()>;
}

/// A JSON array, appended element by element.
impl Slice for String {
    fn append(self, env: &Env, array: Object<'_>) -> napi::Result<()> {
        call(env, "appendJson", FnArgs::from((array, string(env, &self)?)))
    }
}

/// JSON arrays of about [`SLICE_BYTES`] each, made of elements that `write` appends to the text.
pub(super) fn json_slices<T>(elements: &[T], mut write: impl FnMut(&T, &mut String)) -> VecDeque<String> {
    let mut slices = VecDeque::new();
    let mut text = String::from("[");
    for element in elements {
        if text.len() > 1 {
            text.push(',');
        }
        write(element, &mut text);
        if text.len() >= SLICE_BYTES {
            text.push(']');
            slices.push_back(std::mem::replace(&mut text, String::from("[")));
        }
    }
    if text.len() > 1 {
        text.push(']');
        slices.push_back(text);
    }
    slices
}

/// The array that the slices make or, as each is for a turn of its own, a promise of it.
pub(super) fn assemble<S: Slice>(env: &Env, slices: VecDeque<S>) -> napi::Result<Unknown<'static>> {
    step(env, env.create_array(0)?.coerce_to_object()?, slices)
}

fn step<S: Slice>(env: &Env, array: Object<'_>, mut slices: VecDeque<S>) -> napi::Result<Unknown<'static>> {
    if let Some(slice) = slices.pop_front() {
        slice.append(env, array)?;
    }
    if slices.is_empty() {
        return Ok(Object::from_raw(env.raw(), array.raw()).to_unknown());
    }
    let so_far: ObjectRef<false> = array.create_ref()?;
    // The runtime's answer comes with a later turn.
    let promise = settle(
        env,
        Abort::never(),
        |_| async { Ok(slices) },
        move |env, slices| {
            let array = so_far.get_value(env)?;
            so_far.unref(env)?;
            step(env, array, slices)
        },
    )?;
    Ok(Object::from_raw(env.raw(), promise.raw()).to_unknown())
}
