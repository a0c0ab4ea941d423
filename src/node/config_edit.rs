//! `Config.edit`.

use std::sync::Arc;

use napi::bindgen_prelude::{Either, Function, Object, Unknown};
use napi::{Env, JsString};
use napi_derive::napi;

use super::abort::Abort;
use super::args::{checked, flag};
use super::config::Config;
use super::error::{guard, reify};
use super::settle::settle_in_the_end;
use crate::config::value::{Value, get};
use crate::config::{Change, Edit, EditOptions, json5};
use crate::runtime::blocking;
use crate::{Code, CoreError, Result};

/// One change of one value.
#[napi(object, object_to_js = false)]
#[expect(dead_code, reason = "declares the type; changes cross as one JSON text")]
pub struct ConfigChange<'env> {
    /// Whether to put a value in a place, making parents that are missing, or to take it away.
    #[napi(ts_type = "'set' | 'unset'")]
    pub op: Unknown<'env>,
    /// Where, such as `agents.list[0].id` or `models["a.b"]`: the grammar of `openclaw config set`.
    #[napi(ts_type = "string")]
    pub path: Unknown<'env>,
    /// What to put there: needed with "set".
    #[napi(ts_type = "unknown")]
    pub value: Option<Unknown<'env>>,
}

/// What an edit may do.
#[napi(object, object_to_js = false)]
pub struct ConfigEditOptions<'env> {
    /// Whether more than half of the file's bytes, or a top-level key, may go. Default: false.
    #[napi(ts_type = "boolean")]
    pub allow_shrink: Option<Unknown<'env>>,
    /// Whether a config with an error that it had not before is refused with `CONFIG_INVALID`. Default: true.
    #[napi(ts_type = "boolean")]
    pub validate: Option<Unknown<'env>>,
    /// Aborts the call. An edit that has begun to write ends its commit.
    #[napi(ts_type = "AbortSignal")]
    pub signal: Option<Unknown<'env>>,
}

/// Edits that may run or wait for a lock at once; the others wait for their turn.
static EDITS: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(4);

/// The changes as one JSON text. A number that JSON cannot say would silently become null: no text tells of it.
const WRITE_CHANGES: &str = "((changes) => {
  let plain = true;
  try {
    const text = JSON.stringify(changes, (key, value) => {
      if (typeof value === 'number' && !Number.isFinite(value)) plain = false;
      return value;
    });
    return plain ? text : null;
  } catch {
    return null; // a cycle or a BigInt
  }
})";

#[napi]
impl Config {
    /// Edits the file in which each value lives: comments, key order, quotes, `$include`, `${ENV}` and unknown keys
    /// survive. All changes are one commit (OpenClaw's lock file and a kernel lock, write, fsync, rename, `.bak`
    /// ring, mode 0600) and so must belong to one file. Resolves with the config as it then is.
    ///
    /// Rejects with `CONFIG_CONFLICT` if the config on disk is not this one any more, with `CONFIG_SHRINK` if more
    /// than half of the bytes or a top-level key would go, with `CONFIG_PATH` for a path that cannot be edited. The
    /// files are then what they were.
    #[napi(
        catch_unwind,
        ts_args_type = "changes: ConfigChange[], options?: ConfigEditOptions",
        ts_return_type = "Promise<Config>"
    )]
    pub fn edit<'env>(
        &self,
        env: &'env Env,
        changes: Unknown<'env>,
        options: Option<Either<ConfigEditOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<Object<'env>> {
        let write: Function<'_, Unknown<'_>, Option<JsString<'_>>> = env.run_script(WRITE_CHANGES)?;
        let Some(text) = write.call(changes)? else {
            let message =
                "`changes` must be an array of changes whose values are plain JSON: no cycle, BigInt or NaN";
            return Err(reify(env, &CoreError::new(Code::Validation, message)));
        };
        let text = text.into_utf8()?.take();
        let edits = guard(env, || read_edits(&text))?;
        let mut allowed = EditOptions::default();
        let mut signal = None;
        if let Some(options) = checked(env, options)? {
            allowed.allow_shrink =
                flag(env, "allowShrink", options.allow_shrink)?.unwrap_or(allowed.allow_shrink);
            allowed.validate = flag(env, "validate", options.validate)?.unwrap_or(allowed.validate);
            signal = options.signal;
        }
        let abort = Abort::from_signal(env, signal)?;
        let config = Arc::clone(&self.inner);
        settle_in_the_end(
            env,
            abort,
            |cancel| async move {
                // Edits may wait long for a lock; they leave threads of the pool to everyone else.
                let _turn = EDITS.acquire().await;
                blocking(move || config.edit(&edits, allowed, &cancel)).await
            },
            |env, config| Self::hold(env, Arc::new(config)),
        )
    }
}

fn read_edits(json: &[u8]) -> Result<Vec<Edit>> {
    let wrong = |what: &str| CoreError::new(Code::Validation, format!("`changes` must be {what}"));
    let Value::Array(changes) = json5::parse(json, 0)?.value else { return Err(wrong("an array")) };
    let edits = changes.into_iter().map(|change| {
        let Value::Object(change) = change.value else { return Err(wrong("an array of objects")) };
        let text = |name| {
            get(&change, name).and_then(|found| found.value.as_text()?.as_str().map(ToOwned::to_owned))
        };
        let path = text("path").ok_or_else(|| wrong("objects with a string `path`"))?;
        let change = match text("op").as_deref() {
            Some("unset") => Change::Unset,
            Some("set") => {
                let value = get(&change, "value").map(|found| found.value.clone());
                Change::Set(value.ok_or_else(|| wrong("such that each \"set\" has a `value`"))?)
            }
            _ => return Err(wrong("objects with an `op` of \"set\" or \"unset\"")),
        };
        Ok(Edit { path, change })
    });
    edits.collect()
}
