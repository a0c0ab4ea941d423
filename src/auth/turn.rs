//! Whose turn it is to refresh a profile: a kernel lock, which dies with its holder.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::runtime::blocking;
use crate::{Code, CoreError, Result};

/// Longer than a refresh may take, and those of some processes before this one that fail.
const PATIENCE: Duration = Duration::from_mins(2);
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Held until dropped. The file stays, empty: taking it away would let two hold locks on two files of one name.
#[derive(Debug)]
pub(super) struct Turn {
    _file: File,
}

impl Turn {
    /// Waits for the processes before this one; `TIMEOUT` after two minutes.
    pub(super) async fn take(dir: &Path, name: &str) -> Result<Self> {
        let path = dir.join(format!("{}.lock", name.replace('/', ".")));
        let deadline = Instant::now() + PATIENCE;
        let mut pause = FIRST_PAUSE;
        let mut file = {
            let (dir, path) = (dir.to_owned(), path.clone());
            blocking(move || open(&dir, &path)).await?
        };
        loop {
            // The kernel tells no task when a lock is free, and a thread that waits could not be called back.
            let outcome;
            (file, outcome) = attempt(file, path.clone()).await?;
            if outcome {
                return Ok(Self { _file: file });
            }
            if Instant::now() >= deadline {
                let message = format!(
                    "another process has been refreshing for two minutes, and holds {}; try again",
                    path.display()
                );
                return Err(CoreError::new(Code::Timeout, message).in_file(path));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

async fn attempt(file: File, path: PathBuf) -> Result<(File, bool)> {
    blocking(move || match file.try_lock() {
        Ok(()) => Ok((file, true)),
        Err(TryLockError::WouldBlock) => Ok((file, false)),
        Err(TryLockError::Error(error)) => Err(CoreError::io("lock", &path, error)),
    })
    .await
}

fn open(dir: &Path, path: &Path) -> Result<File> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        builder.mode(0o700);
        options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    }
    builder.create(dir).map_err(|error| CoreError::io("create", dir, error))?;
    options.open(path).map_err(|error| CoreError::io("open the lock", path, error))
}
