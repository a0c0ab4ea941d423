//! The one tokio runtime, built at first use.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::memory::{self, Owner};
use crate::{Code, CoreError, Result};

/// Threads for calls that block (locks, fsync). Tokio's own default of 512 suits a server, not a guest in Node.
const MAX_BLOCKING_THREADS: usize = 8;

static RUNTIME: OnceLock<Runtime> = OnceLock::new();
static THREADS_NAMED: AtomicUsize = AtomicUsize::new(0);

/// The runtime; the first call starts its thread.
pub(crate) fn runtime() -> Result<&'static Runtime> {
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let built = Builder::new_multi_thread()
        // What only waits for the network fits one thread, and what blocks has its own. Of two, each wake-up of one has the
        // other look for work: a stream took up to twice the CPU.
        .worker_threads(1)
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .thread_name_fn(|| format!("openclaw-core-{}", THREADS_NAMED.fetch_add(1, Ordering::Relaxed)))
        .on_thread_start(|| memory::adopt(Owner::Runtime))
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| {
            CoreError::new(Code::Io, format!("cannot start threads: {error}")).caused_by(error)
        })?;
    Ok(RUNTIME.get_or_init(|| built))
}

/// Runs blocking work on the pool. Must be called within the runtime.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (outcome, received) = oneshot::channel();
    let work: Box<dyn FnOnce() + Send> = Box::new(move || drop(outcome.send(work())));
    // One type of task for all work: what tokio makes of each type is more code than most work is.
    match tokio::task::spawn_blocking(work).await {
        Ok(()) => {
            received.await.unwrap_or_else(|_| Err(CoreError::new(Code::Internal, "a worker gave no answer")))
        }
        Err(error) => Err(CoreError::new(Code::Internal, format!("a worker died: {error}"))),
    }
}
