//! The Node-API bindings: the only part of the crate that knows Node. It converts and does nothing else.
//!
//! - [`error`]: a [`crate::CoreError`] as a JS `Error` with its code and fields; panics become `INTERNAL`.
//! - [`settle`]: promises, in one place, so that codes survive `async` and an aborted call rejects with the
//!   signal's own reason.
//! - [`json`]: text in as WTF-8, data out as one JSON text that V8 parses.
//! - [`script`]: what is better said in JavaScript.
//! - [`slices`]: large results, parsed in slices with the event loop running in between.
//! - [`stream`]: async iterables, in batches.

mod abort;
mod args;
mod auth;
mod channels;
mod config;
mod config_edit;
mod config_watch;
mod error;
mod event_sessions;
mod event_types;
mod events;
mod events_import;
mod info;
mod json;
mod json5;
mod log;
mod memory;
mod providers;
mod redact;
mod sandbox;
#[cfg(unix)]
mod sandbox_fs;
mod script;
mod secrets;
mod settle;
mod slices;
mod stream;
mod tools;
mod types;
mod validation;

use napi::Env;
use napi::bindgen_prelude::Object;
use napi_derive::napi;

use crate::memory::Owner;

/// Once for each thread that loads the addon. There is one such hook: a second one would replace it.
#[napi(module_exports)]
pub fn on_load(mut exports: Object<'_>, env: Env) -> napi::Result<()> {
    // Without the accounts the core works all the same.
    let _ = std::panic::catch_unwind(|| crate::memory::adopt(Owner::Node));
    validation::export_validate_message(&env, &mut exports)?;
    providers::export_classes(&env, &mut exports)?;
    channels::export_classes(&env, &mut exports)
}
