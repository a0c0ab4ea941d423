//! The entry of `cargo fuzz`: runs the target that the environment variable `TARGET` names.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use openclaw_core_fuzz::{TARGETS, Target};

fn target() -> Target {
    static CHOSEN: OnceLock<Target> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var("TARGET").unwrap_or_default();
        let known = TARGETS.iter().find(|(target, _)| *target == name);
        let names: Vec<_> = TARGETS.iter().map(|(target, _)| *target).collect();
        known.unwrap_or_else(|| panic!("set TARGET to one of {}", names.join(", "))).1
    })
}

fuzz_target!(|bytes: &[u8]| target()(bytes));
