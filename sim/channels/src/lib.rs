//! Simulated chat platforms, for tests of the channels and of nothing else; no part of any package.
//!
//! # Design
//! Each platform is a pure state machine ([`platform::Platform`]): what comes in and the time give what goes out. It
//! enforces the real platform's rules; each rule is a [`platform::Rule`] that cites the platform's documentation, and a
//! client that breaks one is answered as the platform answers, and noted. [`sim::Sim`] puts a script of faults around
//! a platform and keeps the log. [`net::Net`] carries requests and sockets to it under tokio's clock, which tests
//! pause: then a year of reconnects takes a second, and two runs are alike. The `server` is the same thing over TCP.
//!
//! ```text
//!   adapter under test ──► Net ──► Sim (faults, log) ──► Platform
//!   real client ── TCP ── server ──┘
//! ```
//! How a test uses it, and what each platform can be told to do, is in `docs/channels/simulators.md`.

pub mod discord;
pub mod matrix;
pub mod net;
pub mod platform;
#[cfg(feature = "server")]
pub mod server;
pub mod signal;
pub mod sim;
pub mod slack;
pub mod telegram;
pub mod whatsapp;
pub mod wire;

pub use net::Net;
pub use platform::{Input, Now, Output, Platform, Rule};
pub use sim::{Fault, Sim};
pub use wire::{Frame, Request, Response};
