//! Sets the linker flags of a Node-API addon.
fn main() {
    napi_build::setup();
    // The addon's own `sync_file_range` stands before the C library's (see `src/events/sled.rs`).
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-Bsymbolic");
    }
}
