//! Pipes of a process, to and from the runtime.

use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::process::OutputStream;

/// Chunks of output that wait to be taken; each has up to [`CHUNK`] bytes.
pub(super) const CHUNKS: usize = 16;
const CHUNK: usize = 64 << 10;

/// Output, until nobody can write any more or nobody takes it.
pub(super) async fn pump(
    from: pipe::Receiver,
    stream: OutputStream,
    to: mpsc::Sender<(OutputStream, Vec<u8>)>,
) {
    let mut room = vec![0; CHUNK];
    loop {
        if from.readable().await.is_err() {
            return;
        }
        match from.try_read(&mut room) {
            Ok(0) => return,
            Ok(length) => {
                let chunk = room.get(..length).unwrap_or_default().to_vec();
                if to.send((stream, chunk)).await.is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Input, until all of it is there or nobody reads it.
pub(super) async fn feed(to: pipe::Sender, bytes: Vec<u8>, kill: CancellationToken) {
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        tokio::select! {
            () = kill.cancelled() => return,
            ready = to.writable() => if ready.is_err() { return },
        }
        match to.try_write(rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// A signal by its name.
pub(super) fn signal_name(number: i32) -> String {
    // Their numbers are the same on all systems, but for those that are looked up.
    let known = [
        (1, "SIGHUP"),
        (2, "SIGINT"),
        (3, "SIGQUIT"),
        (4, "SIGILL"),
        (5, "SIGTRAP"),
        (6, "SIGABRT"),
        (libc::SIGBUS, "SIGBUS"),
        (8, "SIGFPE"),
        (9, "SIGKILL"),
        (libc::SIGUSR1, "SIGUSR1"),
        (11, "SIGSEGV"),
        (libc::SIGUSR2, "SIGUSR2"),
        (13, "SIGPIPE"),
        (14, "SIGALRM"),
        (15, "SIGTERM"),
        #[cfg(target_os = "linux")]
        (libc::SIGSTKFLT, "SIGSTKFLT"),
        #[cfg(target_os = "linux")]
        (libc::SIGPWR, "SIGPWR"),
        (libc::SIGIO, "SIGIO"),
        (26, "SIGVTALRM"),
        (27, "SIGPROF"),
        (24, "SIGXCPU"),
        (25, "SIGXFSZ"),
        (libc::SIGSYS, "SIGSYS"),
    ];
    known
        .iter()
        .find(|(known, _)| *known == number)
        .map_or_else(|| format!("SIG{number}"), |(_, name)| (*name).to_owned())
}
