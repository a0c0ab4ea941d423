//! Whose turn it is to write: a kernel lock, which dies with its holder.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::{Code, CoreError, Result};

/// Longer than any write takes while many wait.
const PATIENCE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Held until dropped. The file stays, empty: taking it away would let two hold locks on two files of one name.
pub(super) struct WriterLock {
    _file: File,
}

impl WriterLock {
    /// Waits for the processes and threads before this one; `TIMEOUT` after half a minute.
    pub(super) fn acquire(path: &Path) -> Result<Self> {
        let mut options = File::options();
        options.write(true).create(true).truncate(false);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        }
        let file = options.open(path).map_err(|error| CoreError::io("open the lock", path, error))?;
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_micros(200);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(error)) => return Err(CoreError::io("lock", path, error)),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    let message =
                        format!("another process has held {} for half a minute; try again", path.display());
                    return Err(CoreError::new(Code::Timeout, message).in_file(path));
                }
                Err(TryLockError::WouldBlock) => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}
