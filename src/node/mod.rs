//! The Node-API bindings: the only part of the crate that knows Node.
