//! The native core of OpenClaw.
//!
//! Stock OpenClaw stays TypeScript; its modules move here one at a time. Everything outside [`node`] is
//! plain Rust that knows nothing of Node; `node` converts, settles promises, and does nothing else.
//!
//! | module | holds |
//! |---|---|
//! | [`error`] | [`CoreError`] and its [`Code`]s: the one error type |
//! | [`config`] | `openclaw.json`: JSON5, `$include`, `${ENV}`, validation, edits, watching |
//! | `node` | the Node-API classes and functions |
//!
//! # Safety
//! `unsafe` is denied in the whole crate; each exception sits in `node` beside its `// SAFETY:` line.

pub mod config;
pub mod error;
mod node;

pub use error::{Code, CoreError, Result};
