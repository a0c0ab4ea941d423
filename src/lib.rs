//! The native core of OpenClaw.
//!
//! Stock OpenClaw stays TypeScript; its modules move here one at a time. Everything outside [`node`] is
//! plain Rust that knows nothing of Node; `node` converts, settles promises, and does nothing else.
//!
//! | module | holds |
//! |---|---|
//! | [`error`] | [`CoreError`] and its [`Code`]s: the one error type |
//! | [`types`] | the vocabulary that all capabilities share |
//! | [`memory`] | the global allocator, which counts bytes by owner |
//! | [`events`] | the event store: an append-only log with projections, merge and import |
//! | [`config`] | `openclaw.json`: JSON5, `$include`, `${ENV}`, validation, edits, watching |
//! | [`secrets`] | secrets in memory that is wiped, and the encrypted store of credentials |
//! | [`auth`] | auth profiles: keys and OAuth sign-ins, refreshed once, in order, with cooldowns |
//! | [`beneath`] | paths that stay beneath a root, opened by descriptor |
//! | [`validation`] | messages, IP addresses and URLs from outside; a GET that reaches only what is public |
//! | [`http`] | HTTP clients: TLS, certificate authorities, proxies, limits |
//! | [`sandbox`] | commands that see and reach only what a policy names |
//! | [`redact`] | credentials in text, found and masked as OpenClaw does it |
//! | [`providers`] | clients of model providers: requests, streams of answers, retries, failover, cost |
//! | [`channels`] | chat platforms: connections, a durable inbox and outbox, routing, allowlists |
//! | [`tools`] | tools that a model calls: a registry, and the built-in ones, bound to a sandbox |
//! | `node` | the Node-API classes and functions |
//!
//! # Safety
//! `unsafe` is denied in the whole crate; each exception sits in `node`, in [`memory`], the global allocator, in the
//! barrier of the event store's `sled`, in the locked pages of [`secrets`], or in the job objects of [`sandbox`] on Windows,
//! beside its `// SAFETY:` line.

pub mod auth;
pub mod beneath;
pub mod channels;
pub mod config;
pub mod error;
pub mod events;
pub mod http;
pub mod log;
pub mod memory;
pub mod providers;
pub mod redact;
pub mod sandbox;
pub mod secrets;
pub mod tools;
pub mod types;
pub mod validation;
// The napi macros expand to `unsafe`, want `pub`, `&Env` and `&self`, and register exports only outside of tests.
#[allow(unsafe_code, unreachable_pub, clippy::trivially_copy_pass_by_ref, clippy::unused_self)]
#[cfg_attr(test, allow(dead_code))]
mod node;
mod runtime;

pub use error::{Code, CoreError, Result};
