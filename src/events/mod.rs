//! The event store (in part).
pub mod nats;
