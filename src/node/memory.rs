//! `memoryUsage`.

use std::collections::BTreeMap;

use napi_derive::napi;

use crate::memory;

/// What the core holds outside of V8.
#[napi(object, object_from_js = false)]
pub struct CoreMemoryUsage {
    /// Bytes that are allocated now: the sum of `owners`.
    pub total: f64,
    /// The same by owner: `channels` for connections to chat platforms and messages that wait, `config` for configs, `events`
    /// for event stores, `node` for what is on its way to or from JavaScript, `providers` for calls of models, `runtime` for tasks, `sandbox` for sandboxes and tools, `other` for
    /// the rest.
    #[napi(ts_type = "Record<string, number>")]
    pub owners: BTreeMap<String, f64>,
}

/// The bytes that the core has allocated outside of V8, by owner. They are counted as they are asked for: what the
/// allocator rounds up, or keeps to use again, is not among them; 20 MiB of the first event store, which sled asks for and
/// never touches, are.
#[napi(catch_unwind)]
pub fn memory_usage() -> CoreMemoryUsage {
    #[expect(clippy::cast_precision_loss, reason = "no process holds 2^53 bytes")]
    let owners: BTreeMap<_, _> =
        memory::usage().map(|(owner, bytes)| (owner.as_str().to_owned(), bytes as f64)).collect();
    CoreMemoryUsage { total: owners.values().sum(), owners }
}
