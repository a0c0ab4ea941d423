//! `openclaw-core-init`: starts one command in a sandbox, watches it, and ends with it.
//!
//! | called as | where | does |
//! |---|---|---|
//! | `control` | outside | as `run`, told through a socket on descriptor 0; its other end is the core, and when that closes, all is killed |
//! | `run SPEC` | outside | bounds and starts bubblewrap, or itself where there are no namespaces; waits; kills what is left |
//! | `inside …` | inside | limits, Landlock and the terminal, then the command |
//! | `observe` | inside | says what holds, as a JSON object |
//! | `filter` | anywhere | prints the filters of system calls |
//! | `arguments SPEC` | anywhere | prints what bubblewrap would be told; descriptors from 10 on stand for files |
//!
//! The core and this executable are built from the same files, in `src/sandbox`.
//!
//! # Safety
//! `unsafe` stands where a child is prepared between `fork` and `exec` (which calls only what is safe there), and where
//! the C library is asked for what `rustix` does not have.

#[cfg(target_os = "linux")]
#[path = "../sandbox/bwrap.rs"]
mod bwrap;
#[cfg(target_os = "linux")]
#[path = "core-init/inside.rs"]
#[allow(unsafe_code)]
mod inside;
#[cfg(target_os = "linux")]
#[path = "../sandbox/landlock.rs"]
mod landlock;
#[cfg(target_os = "linux")]
#[path = "../sandbox/limits.rs"]
mod limits;
#[cfg(target_os = "linux")]
#[path = "core-init/observe.rs"]
#[allow(unsafe_code)]
mod observe;
#[cfg(target_os = "linux")]
#[path = "core-init/outside.rs"]
#[allow(unsafe_code)]
mod outside;
#[cfg(target_os = "linux")]
#[path = "../sandbox/seccomp.rs"]
mod seccomp;
#[cfg(target_os = "linux")]
#[path = "../sandbox/spec.rs"]
#[allow(dead_code, reason = "it reads what the core writes")]
mod spec;
#[cfg(target_os = "linux")]
#[path = "core-init/staging.rs"]
#[allow(unsafe_code)]
mod staging;
#[cfg(target_os = "linux")]
#[path = "core-init/warden.rs"]
#[allow(unsafe_code)]
mod warden;

/// What a failure before the command exits with: what shells use where a program cannot be started.
#[cfg(target_os = "linux")]
const FAILED: u8 = 126;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    let mut args = std::env::args_os().skip(1).map(|arg| arg.into_string().unwrap_or_default());
    let outcome = match args.next().as_deref() {
        Some("control") => outside::controlled(),
        Some("run") => outside::run(args),
        Some("inside") => inside::run(args),
        Some("observe") => observe::run(),
        Some("filter") => filters(),
        Some("arguments") => arguments(args),
        _ => Err("this starts the commands of OpenClaw's sandbox; it is not for calling by hand".to_owned()),
    };
    match outcome {
        Ok(code) => code.into(),
        Err(message) => {
            eprintln!("openclaw-core-init: {message}");
            FAILED.into()
        }
    }
}

#[cfg(target_os = "linux")]
fn filters() -> Result<u8, String> {
    use std::io::Write;

    let text = [("with namespaces", true), ("without namespaces", false)]
        .map(|(title, namespaces)| {
            format!("## {title}\n{}\n", seccomp::describe(seccomp::Kind { namespaces, host_network: false }))
        })
        .join("\n");
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())?;
    Ok(0)
}

#[cfg(target_os = "linux")]
fn arguments(args: impl Iterator<Item = String>) -> Result<u8, String> {
    use std::io::Write;

    let spec = spec::Spec::from_args(args)?;
    let binds: Vec<i32> = (20..).take(spec.binds.len()).collect();
    let etc = [("/etc/passwd", 11), ("/etc/group", 12), ("/etc/hosts", 13)];
    let words =
        bwrap::arguments(&spec, &bwrap::Descriptors { filter: Some(10), etc, binds: &binds, init: 14 });
    // An option a line, with what belongs to it.
    let mut text = String::new();
    for word in words {
        text.push_str(if word.starts_with("--") && !text.is_empty() { "\n" } else { " " });
        text.push_str(&word);
    }
    text.push('\n');
    std::io::stdout().write_all(text.trim_start().as_bytes()).map_err(|error| error.to_string())?;
    Ok(0)
}

/// Other systems have no use for it.
#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}

/// Whether a layer is on. Always, but in the builds that show what the others stop alone.
#[cfg(target_os = "linux")]
const fn layer(name: Layer) -> bool {
    match name {
        Layer::Seccomp => !cfg!(feature = "without-seccomp"),
        Layer::Landlock => !cfg!(feature = "without-landlock"),
    }
}

#[cfg(target_os = "linux")]
#[derive(Clone, Copy)]
enum Layer {
    Seccomp,
    Landlock,
}
