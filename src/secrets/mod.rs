//! Secrets: memory that is wiped, and a store of credentials that is encrypted at rest.
//!
//! # Design
//! A [`Secret`] lies in pages that hold secrets alone: wiped when the last handle goes, never swapped where `mlock` is
//! allowed, and absent from core dumps on Linux. It has no text form but `[REDACTED]`.
//!
//! A [`CredentialStore`] is one file, `credentials.vault`, replaced as a whole by temporary file, `fsync` and `rename`: a
//! reader sees the file before or after, and needs no lock; writers of all processes take turns by a kernel lock.
//! Each entry is sealed with AES-256-GCM under a random data key, its name and version bound to it; a keyed BLAKE3 hash
//! over the whole file keeps entries from being removed, added, exchanged or taken from an older file. The data key is
//! wrapped by a key-encryption key that comes from a [`KeySource`] and is in no file of the store.
//!
//! What an older *whole* file looks like, only a generation number kept elsewhere can tell: see
//! [`OpenOptions::min_generation`].
//!
//! Failures: `CREDENTIAL_NAME`, `CREDENTIAL_NOT_FOUND`, `CREDENTIAL_KEY` (the key is missing or another one), `CRYPTO` (the
//! file does not authenticate), `TIMEOUT` (writers before this one), `LIMIT`, `IO`.

mod audit;
mod cipher;
mod key;
mod keychain;
mod lock;
mod memory;
mod secret;
mod store;
mod vault;

#[cfg(test)]
mod tests;

pub use audit::{Finding, FindingKind};
pub use key::KeySource;
pub use secret::Secret;
pub use store::{Credential, CredentialStore, Entries, OpenOptions, check_name};
