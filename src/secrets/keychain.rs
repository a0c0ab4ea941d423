//! The system's keychain.
//!
//! On macOS and Windows through the stores of the crate `keyring`. On Linux, that crate reaches the Secret Service through `zbus`, an
//! asynchronous D-Bus stack larger than all else here, or through libdbus, which must then be there when the addon is
//! loaded; the kernel's own keyring forgets everything at a reboot. There `secret-tool`, of libsecret, does the same
//! by the same protocol, with the secret on its standard input.

use super::secret::Secret;
use crate::Result;

/// The text of an item; `None` if there is none.
pub(super) fn get(service: &str, account: &str) -> Result<Option<Secret>> {
    check(service, account)?;
    system::get(service, account)
}

/// Creates or replaces an item.
pub(super) fn set(service: &str, account: &str, text: &Secret) -> Result<()> {
    check(service, account)?;
    system::set(service, account, text)
}

/// Such as no program takes for an option.
fn check(service: &str, account: &str) -> Result<()> {
    super::check_name(service)?;
    super::check_name(account)
}

#[cfg(any(target_os = "macos", windows))]
mod system {
    use keyring_core::api::CredentialStoreApi;
    use keyring_core::{Entry, Error};

    #[cfg(target_os = "macos")]
    use apple_native_keyring_store::keychain::Store;
    #[cfg(windows)]
    use windows_native_keyring_store::Store;

    use super::super::key::wrong;
    use super::super::secret::Secret;
    use crate::{CoreError, Result};

    fn entry(service: &str, account: &str) -> Result<Entry> {
        Store::new().and_then(|store| store.build(service, account, None)).map_err(|error| refused(&error))
    }

    // The library's own words for some errors hold the bytes of the item.
    fn refused(error: &Error) -> CoreError {
        wrong(match error {
            Error::NoStorageAccess(cause) => format!("the keychain cannot be reached; is it locked? {cause}"),
            Error::PlatformFailure(cause) => format!("the keychain refused: {cause}"),
            Error::Ambiguous(_) => "the keychain has several such items".into(),
            _ => "the keychain does not take or give such an item".into(),
        })
    }

    pub(super) fn get(service: &str, account: &str) -> Result<Option<Secret>> {
        match entry(service, account)?.get_secret() {
            Ok(bytes) => Ok(Some(Secret::from_bytes(bytes))),
            Err(Error::NoEntry) => Ok(None),
            Err(error) => Err(refused(&error)),
        }
    }

    pub(super) fn set(service: &str, account: &str, text: &Secret) -> Result<()> {
        entry(service, account)?.set_secret(text.expose()).map_err(|error| refused(&error))
    }
}

#[cfg(not(any(target_os = "macos", windows)))]
mod system {
    use std::io::{ErrorKind, Read, Write};
    use std::process::{Child, Command, ExitStatus, Stdio};
    use std::time::{Duration, Instant};

    use super::super::key::wrong;
    use super::super::secret::Secret;
    use crate::Result;

    const PROGRAM: &str = "secret-tool";
    /// The desktop may ask its user to unlock the keyring.
    const PATIENCE: Duration = Duration::from_mins(1);
    const MAX_TEXT: usize = 64 * 1024;

    fn start(command: &mut Command) -> Result<Child> {
        command.stderr(Stdio::piped()).spawn().map_err(|error| {
            let message = if error.kind() == ErrorKind::NotFound {
                format!(
                    "there is no `{PROGRAM}`: install it (Debian: libsecret-tools), or keep the key in a file"
                )
            } else {
                format!("cannot run `{PROGRAM}`: {error}")
            };
            wrong(message).caused_by(error)
        })
    }

    /// Its status, and what it complained of: the first bytes, which a pipe holds without a reader.
    fn end(mut child: Child) -> Result<(ExitStatus, String)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => {
                    let mut words = Vec::new();
                    if let Some(errors) = child.stderr.take() {
                        let _ = errors.take(512).read_to_end(&mut words);
                    }
                    return Ok((status, String::from_utf8_lossy(words.trim_ascii()).into_owned()));
                }
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                outcome => {
                    let _ = child.kill();
                    let _ = child.wait();
                    let why = outcome
                        .err()
                        .map_or_else(|| "it did not end within a minute".into(), |error| error.to_string());
                    return Err(wrong(format!("`{PROGRAM}` failed: {why}")));
                }
            }
        }
    }

    pub(super) fn get(service: &str, account: &str) -> Result<Option<Secret>> {
        let mut lookup = Command::new(PROGRAM);
        lookup
            .args(["lookup", "service", service, "account", account])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = start(&mut lookup)?;
        let mut output = child.stdout.take();
        let reader = std::thread::spawn(move || -> Result<Secret> {
            let mut length = 0;
            let text = Secret::filled(MAX_TEXT, |buffer| {
                while let (Some(output), Some(free)) =
                    (output.as_mut(), buffer.get_mut(length..).filter(|free| !free.is_empty()))
                {
                    match output.read(free) {
                        Ok(0) => break,
                        Ok(read) => length += read,
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        Err(error) => return Err(wrong(format!("cannot read from `{PROGRAM}`: {error}"))),
                    }
                }
                Ok(())
            })?;
            Ok(Secret::copy_of(text.expose().get(..length).unwrap_or_default()))
        });
        let (status, complaint) = end(child)?;
        let text = reader.join().map_err(|_| wrong(format!("cannot read from `{PROGRAM}`")))??;
        // Of an item that is not there it says nothing; of a service that it cannot reach, something.
        if !status.success() && !complaint.is_empty() {
            return Err(wrong(format!("`{PROGRAM}` failed: {complaint}")));
        }
        Ok(Some(text).filter(|text| status.success() && !text.is_empty()))
    }

    pub(super) fn set(service: &str, account: &str, text: &Secret) -> Result<()> {
        let mut store = Command::new(PROGRAM);
        store.args(["store", "--label", "OpenClaw credential store", "service", service, "account", account]);
        let mut child = start(store.stdin(Stdio::piped()).stdout(Stdio::null()))?;
        let written = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(text.expose()));
        let (status, complaint) = end(child)?;
        if status.success() && written.is_ok() {
            return Ok(());
        }
        Err(wrong(format!(
            "`{PROGRAM}` did not store the key; is there a session with a keyring that is unlocked? {complaint}"
        )))
    }
}
