//! Core errors as JavaScript errors.

use std::panic::{AssertUnwindSafe, catch_unwind};

use napi::bindgen_prelude::{Object, ToNapiValue, Unknown};
use napi::{Env, Error, JsError, JsValue, Status};

use crate::{Code, CoreError, Result};

/// The JS `Error` of a core error: `code`, the typed fields, and the underlying error as `cause`.
///
/// Built on the JS thread; a `napi::Error` that holds a JS value is thrown or rejected as that value.
pub(super) fn reify(env: &Env, error: &CoreError) -> Error {
    object(env, error).map_or_else(
        |_| Error::new(Status::GenericFailure, error.to_string()),
        |object| Error::from(object.to_unknown()),
    )
}

/// As [`reify`], but the value itself, for events that carry an error.
pub(super) fn object<'env>(env: &'env Env, error: &CoreError) -> napi::Result<Object<'env>> {
    let thrown = JsError::from(Error::new(Status::GenericFailure, error.message())).into_unknown(*env);
    let mut object = Object::from_raw(env.raw(), thrown.raw());
    object.set("code", error.code().as_str())?;
    let details = error.details();
    set(&mut object, "file", details.file.as_ref().map(|file| file.display().to_string()))?;
    set(&mut object, "line", details.line)?;
    set(&mut object, "column", details.column)?;
    set(&mut object, "path", details.path.as_deref())?;
    set(&mut object, "revision", details.revision.as_deref())?;
    #[expect(clippy::cast_precision_loss, reason = "milliseconds fit for 285,000 years")]
    set(&mut object, "retryAfterMs", details.retry_after_ms.map(|ms| ms as f64))?;
    set(&mut object, "status", details.status.map(u32::from))?;
    set(&mut object, "body", details.body.as_deref())?;
    set(&mut object, "errorType", details.error_type.as_deref())?;
    set(&mut object, "phase", details.phase)?;
    set(&mut object, "missing", details.missing.as_deref())?;
    set(&mut object, "remedy", details.remedy.as_deref())?;
    if let Some(cause) = std::error::Error::source(error) {
        let cause = JsError::from(Error::new(Status::GenericFailure, cause.to_string())).into_unknown(*env);
        object.set("cause", cause)?;
    }
    Ok(object)
}

fn set<T: ToNapiValue>(object: &mut Object<'_>, name: &str, value: Option<T>) -> napi::Result<()> {
    value.map_or(Ok(()), |value| object.set(name, value))
}

/// Runs an export on the JS thread: core errors are thrown with their code, a panic with `INTERNAL`.
pub(super) fn guard<T>(env: &Env, work: impl FnOnce() -> Result<T>) -> napi::Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(panicked(panic.as_ref())))
        .map_err(|error| reify(env, &error))
}

/// The error of a panic: a bug in the core.
pub(super) fn panicked(panic: &(dyn std::any::Any + Send)) -> CoreError {
    let words = panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "unknown".into());
    CoreError::new(Code::Internal, format!("the core failed inside: {words}"))
}

/// A `VALIDATION` error for an argument of the wrong type.
pub(super) fn wrong_argument(name: &str, expected: &str, got: &Unknown<'_>) -> CoreError {
    let got =
        got.get_type().map_or_else(|_| "something else".to_owned(), |kind| format!("{kind}").to_lowercase());
    CoreError::new(Code::Validation, format!("`{name}` must be {expected}, not {got}"))
}
