//! The event store: an append-only log of everything the agents did.
//!
//! # Design
//! A session's events have the numbers 1, 2, 3 … in the order in which they arrived here; each carries who wrote it
//! first, a hybrid logical clock, and a hash that chains it to the one before it of its session and origin. What is
//! known of a session without reading it, its [`Projection`], is a fold that does not depend on the order of events, so
//! that replicas that have the same events have the same bytes.
//!
//! | part | holds |
//! |---|---|
//! | [`EventStore`] | what callers see |
//! | `writer` | the one thread that writes: group commit, compaction, retention |
//! | `log` | what one append, merge or deletion writes |
//! | `projection` | the fold |
//! | `merge`, `version`, `clock` | changes between replicas, version vectors, the hybrid logical clock |
//! | `event`, `record`, `keys` | an event, its bytes, and where they are |
//! | `follow` | a tail that misses nothing |
//! | [`nats`] | the log shared between gateways through a NATS stream |
//! | `verify`, `recover` | finding damage, and saving what is left |
//! | [`openclaw`] | what OpenClaw records, as events |
//! | [`import`], `export` | taking in what OpenClaw has, and giving back a transcript |
//! | `files` | the folder: lock, format, generations |
//! | `storage`, `sled`, `sled_log` | the key-value store beneath |

mod clock;
mod derived;
mod event;
mod export;
mod files;
mod follow;
pub mod import;
mod keys;
mod log;
mod lookup;
#[cfg(test)]
mod memory;
mod merge;
pub mod nats;
pub mod openclaw;
mod projection;
mod record;
mod recover;
#[cfg(test)]
mod replica_tests;
mod sled;
mod sled_log;
mod storage;
mod store;
#[cfg(test)]
mod tests;
mod verify;
mod version;
mod writer;

pub use clock::{Clock, PhysicalTime, SystemClock};
pub use event::{NewEvent, Origin, SESSION_DELETED, StoredEvent};
pub use follow::{Follow, FollowOptions};
pub use log::{Merged, Pruned};
pub use projection::{Projection, State, Usage};
pub use store::{
    Compacted, Durability, EventStore, Options, Order, Range, Retention, SessionView, SessionsQuery, Stats,
};
pub use verify::{Problem, Verified};
pub use version::VersionVector;
