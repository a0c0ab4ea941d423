//! `coreInfo`.

use napi_derive::napi;

/// A capability of the core, and whether it can run here.
#[napi(object, object_from_js = false)]
pub struct CoreCapability {
    /// Its name in the migration table.
    pub name: String,
    /// Whether it can run here.
    pub available: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// What this binary is and can do.
#[napi(object, object_from_js = false)]
pub struct CoreInfo {
    /// The version of the package.
    pub version: String,
    /// What it was built for: architecture, system and, on Linux, libc.
    pub target: String,
    /// Each capability that is built in.
    pub capabilities: Vec<CoreCapability>,
}

/// Version, target, and each capability with whether it can run here.
#[napi(catch_unwind)]
pub fn core_info() -> CoreInfo {
    let libc = if cfg!(target_env = "musl") {
        "-musl"
    } else if cfg!(target_env = "gnu") {
        "-gnu"
    } else {
        ""
    };
    CoreInfo {
        version: env!("CARGO_PKG_VERSION").into(),
        target: format!("{}-{}{libc}", std::env::consts::OS, std::env::consts::ARCH),
        capabilities: ["types", "config", "events"]
            .map(|name| CoreCapability { name: name.into(), available: true, reason: None })
            .into(),
    }
}

/// Panics, to show what a caller sees of it. Only in builds with the feature `panics`, which no package has.
#[cfg(feature = "panics")]
mod panics {
    use napi::Env;
    use napi::bindgen_prelude::Object;
    use napi_derive::napi;

    use crate::node::abort::Abort;
    use crate::node::error::guard;
    use crate::node::settle::settle;

    #[expect(clippy::panic, reason = "it is what this is for")]
    fn panic_now() -> crate::Result<()> {
        panic!("a bug, {}", "on purpose")
    }

    /// Panics on the JS thread.
    #[napi(catch_unwind)]
    pub fn panic_sync(env: &Env) -> napi::Result<()> {
        guard(env, panic_now)
    }

    /// Panics in a task.
    #[napi(catch_unwind)]
    pub fn panic_async(env: &Env) -> napi::Result<Object<'_>> {
        settle(env, Abort::never(), |_| async { panic_now() }, |_, ()| Ok(()))
    }

    /// Panics on a thread of the blocking pool.
    #[napi(catch_unwind)]
    pub fn panic_blocking(env: &Env) -> napi::Result<Object<'_>> {
        settle(env, Abort::never(), |_| crate::runtime::blocking(panic_now), |_, ()| Ok(()))
    }
}
