//! What comes from outside is checked before it is used: messages, paths and URLs.
//!
//! | module | holds |
//! |---|---|
//! | [`message`] | sizes, control and bidirectional characters, broken surrogate pairs |
//! | [`address`] | which IP addresses are public |
//! | [`url`] | which URLs the agent may fetch |
//! | [`fetch`] | a GET that connects to nothing else |
//!
//! Paths are the matter of [`crate::beneath`].

pub mod address;
pub mod fetch;
pub mod message;
pub mod url;
