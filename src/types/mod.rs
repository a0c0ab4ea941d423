//! The small vocabulary that every capability shares.

pub mod session_key;
