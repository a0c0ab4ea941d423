//! A secret.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::memory::Memory;
use crate::{Code, CoreError, Result};

/// What a secret looks like wherever it might be printed.
pub(crate) const REDACTED: &str = "[REDACTED]";

/// A secret: an API key, a token, a key-encryption key.
///
/// Its bytes lie in memory that is locked where the system allows it, left out of core dumps on Linux, and wiped when
/// the last clone is dropped. `Debug`, `Display` and `Serialize` give `[REDACTED]`; comparing takes the same time wherever
/// the first difference is.
#[derive(Clone)]
pub struct Secret {
    memory: Arc<Memory>,
}

impl Secret {
    /// Takes the bytes over and wipes the vector, all of its capacity. Copies that a growing vector left behind
    /// before cannot be reached from here: have it hold its final size from the start.
    pub fn from_bytes(mut bytes: Vec<u8>) -> Self {
        let secret = Self::copy_of(&bytes);
        bytes.zeroize();
        secret
    }

    /// Copies the bytes; the caller wipes its own.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut memory = Memory::zeroed(bytes.len());
        memory.bytes_mut().copy_from_slice(bytes);
        Self { memory: Arc::new(memory) }
    }

    /// A secret of `len` bytes that `fill` writes in place, over zeros.
    pub fn filled(len: usize, fill: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<Self> {
        let mut memory = Memory::zeroed(len);
        fill(memory.bytes_mut())?;
        Ok(Self { memory: Arc::new(memory) })
    }

    /// `len` bytes of the system's random source.
    pub fn random(len: usize) -> Result<Self> {
        Self::filled(len, random)
    }

    /// The bytes. Whoever copies them wipes the copy.
    pub fn expose(&self) -> &[u8] {
        self.memory.bytes()
    }

    /// The bytes as text; `VALIDATION` if they are not UTF-8.
    pub fn expose_str(&self) -> Result<&str> {
        // The cause would say where the wrong byte is; that is nobody's business.
        std::str::from_utf8(self.expose())
            .map_err(|_| CoreError::new(Code::Validation, "the secret is not UTF-8 text: read it as bytes"))
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.expose().len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the bytes are these, in a time that depends on the lengths alone.
    pub fn is(&self, bytes: &[u8]) -> bool {
        self.expose().ct_eq(bytes).into()
    }

    /// About how much memory it takes.
    pub(crate) fn approximate_bytes(&self) -> usize {
        // With the bookkeeping around it.
        self.len().next_power_of_two().max(64) + 128
    }

    /// Whether its pages are locked against swapping.
    pub fn is_locked(&self) -> bool {
        self.memory.is_locked()
    }
}

/// Fills `bytes` from the system's random source.
pub(super) fn random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes)
        .map_err(|error| CoreError::new(Code::Crypto, format!("the system gives no random numbers: {error}")))
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.is(other.expose())
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_no_text_form() {
        let secret = Secret::from_bytes(b"sk-canary".to_vec());
        assert_eq!(
            format!("{secret} {secret:?} {secret:#?} {:?}", Some(&secret)),
            format!("{REDACTED} {REDACTED} {REDACTED} Some({REDACTED})")
        );
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"[REDACTED]\"");
        assert_eq!(secret.expose_str().unwrap(), "sk-canary");
        let error = Secret::copy_of(b"sk-canary\xFF").expose_str().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"));
    }

    #[test]
    fn secrets_are_equal_when_all_their_bytes_are() {
        let secret = Secret::copy_of(b"abc");
        assert_eq!(secret, secret.clone());
        assert!(secret.is(b"abc"));
        for other in [&b""[..], b"ab", b"abd", b"Xbc", b"abcd"] {
            assert!(!secret.is(other));
        }
        assert!(Secret::copy_of(b"").is(b""));
    }

    /// A process may have 65,530 mappings, and dies of the next when they are used up.
    #[cfg(target_os = "linux")]
    #[test]
    fn as_many_secrets_as_a_store_holds_twice_over_need_few_mappings() {
        let mappings = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
        let before = mappings();
        let mut held: Vec<_> = (0..200_000_u32)
            .map(|nth| Secret::copy_of(&nth.to_le_bytes().repeat(1 + nth as usize % 60)))
            .collect();
        // Other tests of this process have their threads and files.
        assert!(mappings() < before + 2000, "{before} mappings before, {} now", mappings());
        for (nth, secret) in (0_u32..).zip(&held) {
            assert!(secret.is(&nth.to_le_bytes().repeat(1 + nth as usize % 60)), "{nth}");
        }
        // What is given back is used again, in whatever order it came.
        let mut nth = 0;
        held.retain(|_| {
            nth += 1;
            nth % 3 == 0
        });
        for nth in 0..300_000_u32 {
            drop(Secret::copy_of(&nth.to_le_bytes()));
        }
        for (nth, secret) in (0_u32..).filter(|nth| nth % 3 == 2).zip(&held) {
            assert!(secret.is(&nth.to_le_bytes().repeat(1 + nth as usize % 60)), "{nth}");
        }
        drop(held);
        assert!(mappings() < before + 2000);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn its_pages_are_left_out_of_core_dumps_and_locked() {
        let secret = Secret::copy_of(b"pages");
        let address = secret.expose().as_ptr() as usize;
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut flags = None;
        let mut inside = false;
        for line in maps.lines() {
            if let Some((from, to)) = line.split_once(' ').and_then(|(range, _)| range.split_once('-')) {
                let hex = |text| usize::from_str_radix(text, 16);
                if let (Ok(from), Ok(to)) = (hex(from), hex(to)) {
                    inside = (from..to).contains(&address);
                }
            }
            if inside && let Some(found) = line.strip_prefix("VmFlags:") {
                flags = Some(found.to_owned());
            }
        }
        let flags = flags.unwrap();
        assert!(flags.contains(" dd"), "{flags}");
        assert_eq!(secret.is_locked(), flags.contains(" lo"), "{flags}");
    }
}
