//! Channels: chat platforms, as OpenClaw knows them.
//!
//! # Design
//! Everything that must not wait for JavaScript runs on the core's own threads: connections, heartbeats, acknowledgements,
//! reconnects, sending. A message that comes in is written to the event store before the platform is told that it arrived;
//! a message that goes out is written to it before the platform hears of it. What a platform is like is known to its
//! [`Platform`] alone.
//!
//! ```text
//!  platform ── Platform::run ── Link::receive ── inbox ── Channel::next ── JavaScript
//!  platform ── Platform::call ── governor ────── outbox ── Channel::send ── JavaScript
//! ```
//!
//! | part | holds |
//! |---|---|
//! | [`platform`] | the trait that an adapter implements, and what it works with |
//! | [`message`] | messages, attachments and receipts |
//! | [`wire`] | HTTP and WebSocket, behind a trait, so that tests put a simulator in their place |
//! | [`chunk`] | the splitter |
//! | [`route`], [`allow`] | to which agent a message goes, and whose messages count |
//!
//! # Writing an adapter
//! An adapter is a folder `src/channels/<id>/` with a type that implements [`Platform`], and a line in
//! [`PLATFORMS`](platform::PLATFORMS). It holds no queue, no retry loop, no rate limit and no state on disk: all that is
//! common.
//!
//! 1. `open(settings)` reads its options from [`Settings`](platform::Settings) and connects to nothing.
//! 2. [`Platform::run`] connects, receives until the connection breaks, and returns. What arrives goes to
//!    [`Link::receive`](platform::Link::receive); only once that has returned is the platform told (an offset, an
//!    envelope's acknowledgement, a status 200). Every proof that the platform is still there goes to
//!    [`Link::verified`](platform::Link::verified). To reconnect is the caller's task: `run` ends, with the reason, having
//!    closed what it opened.
//! 3. [`Platform::render`] turns a message into [`Part`](message::Part)s, each of them one call of the platform. It is
//!    pure: after a restart it gives the same parts again.
//! 4. [`Platform::call`] makes one call, once, and says what became of it: whether it is certain that nothing was sent
//!    ([`Fate::Unsent`](platform::Fate)), that the platform refused ([`Fate::Refused`](platform::Fate)), or neither
//!    ([`Fate::Unknown`](platform::Fate)).
//! 5. [`Platform::download`] fetches an attachment, with a bound on its size.
//!
//! Waits use `tokio::time`, the time of day and chance come from [`Surroundings`], and the network is a
//! [`Wire`](wire::Wire): under tokio's paused clock, with a simulator as the wire, years pass in a second.

pub mod allow;
pub mod backoff;
pub mod channel;
pub mod chunk;
pub mod discord;
pub mod governor;
pub mod inbox;
pub mod lease;
pub mod log;
mod marks;
pub mod matrix;
pub mod message;
pub mod outbox;
pub mod platform;
pub mod route;
pub mod signal;
pub mod slack;
pub mod sniff;
mod socket;
pub mod telegram;
#[cfg(test)]
pub(crate) mod testing;
pub mod webhook;
pub mod whatsapp;
pub mod wire;

use std::pin::Pin;
use std::sync::Arc;

pub use channel::Channel;
pub use message::{InboundMessage, OutboundMessage, SendReceipt};
pub use platform::{Link, Platform};

/// So long may the end of a connection, and of a call that is under way, take when a channel is closed.
pub const GOODBYE: std::time::Duration = std::time::Duration::from_secs(5);

/// A future behind a pointer.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The time of day, and chance. Waits are tokio's.
pub trait Surroundings: Send + Sync + 'static {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;
    /// A number from 0 to 1.
    fn chance(&self) -> f64;
}

/// The machine's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Surroundings for System {
    fn now_ms(&self) -> u64 {
        crate::events::PhysicalTime::now_ms(&crate::events::SystemClock)
    }

    fn chance(&self) -> f64 {
        // Without a random source, every wait is the longest one.
        f64::from(getrandom::u32().unwrap_or(u32::MAX)) / f64::from(u32::MAX)
    }
}

/// The machine's own time and chance.
pub fn system() -> Arc<dyn Surroundings> {
    Arc::new(System)
}
