//! Fuzz targets of the core.
//!
//! A target is one line in [`TARGETS`] and a function that panics where the core is wrong. It runs in two ways:
//!
//! - `cargo test -p openclaw-core-fuzz`: each target over its kept corpus (`fuzz/corpus/<target>/`) and a bounded,
//!   seeded number of mutations of it. Stable Rust; part of `npm test`.
//! - `TARGET=json5 cargo +nightly fuzz run --features libfuzzer core fuzz/corpus/json5`: for as long as one likes.
//!   What it finds is added to the corpus under a name that says what it is.

mod edit;
mod json5;
mod providers;
mod redact;

/// A target: panics where the core is wrong about these bytes.
pub type Target = fn(&[u8]);

/// Every target, by the name of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("edit", edit::edit),
    ("json5", json5::text),
    ("json5_value", json5::value),
    ("providers", providers::answer),
    ("redact", redact::text),
];
