//! The bytes of `credentials.vault`.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `OCVAULT1`: magic and format |
//! | 16 | the store's id |
//! | 8 | generation, one more at each write |
//! | 1 or 29 | how the key-encryption key is made: 0, it is given; 1, Argon2id with salt (16), KiB, passes, lanes (4 each) |
//! | 12, 48 | the data key, wrapped: nonce; ciphertext and tag, with all of the above but the generation bound to it |
//! | 4 | number of entries |
//! | each | length of the name (1), name, version (8), created and updated in ms (8 each), nonce (12), length (4), ciphertext and tag, with store id, version and name bound to them |
//! | 32 | BLAKE3 of all of the above, keyed by a key derived from the data key |
//!
//! Numbers are little-endian.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cipher::{self, KEY, NONCE, TAG, on_wiped_stack};
use super::secret::{Secret, random};
use super::store::check_name;
use crate::{Code, CoreError, Result};

const MAGIC: &[u8; 8] = b"OCVAULT1";
const SEAL: usize = 32;
const AUTHENTICATION: &str = "@openclaw/core 2026 credentials.vault authentication";

/// The longest secret that is stored.
pub(super) const MAX_SECRET: usize = 1 << 20;
/// The longest file that is read.
pub(super) const MAX_FILE: u64 = 64 << 20;
const MAX_ENTRIES: usize = 100_000;

/// How a key-encryption key is made of what a key source gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kdf {
    /// It is given: 32 random bytes.
    None,
    /// RFC 9106.
    Argon2id { salt: [u8; 16], kib: u32, passes: u32, lanes: u32 },
}

impl Kdf {
    fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::None => to.push(0),
            Self::Argon2id { salt, kib, passes, lanes } => {
                to.push(1);
                to.extend_from_slice(salt);
                for number in [kib, passes, lanes] {
                    to.extend_from_slice(&number.to_le_bytes());
                }
            }
        }
    }
}

/// An entry as it is stored.
#[derive(Debug)]
pub(super) struct Sealed {
    /// The generation of the file that it was written in: never used twice for one name.
    pub(super) version: u64,
    pub(super) created_ms: u64,
    pub(super) updated_ms: u64,
    nonce: [u8; NONCE],
    text: Vec<u8>,
}

/// A file, parsed. Nothing in it is to be believed before [`authenticate`](Self::authenticate).
#[derive(Clone, Debug)]
pub(super) struct Vault {
    pub(super) id: [u8; 16],
    pub(super) generation: u64,
    pub(super) kdf: Kdf,
    wrap_nonce: [u8; NONCE],
    wrapped: Vec<u8>,
    pub(super) entries: BTreeMap<String, Arc<Sealed>>,
}

impl Vault {
    /// An empty one with a data key of its own.
    pub(super) fn new(kdf: Kdf, kek: &Secret) -> Result<(Self, Secret)> {
        let mut id = [0; 16];
        random(&mut id)?;
        let mut vault = Self {
            id,
            generation: 0,
            kdf,
            wrap_nonce: [0; NONCE],
            wrapped: Vec::new(),
            entries: BTreeMap::new(),
        };
        let data_key = vault.rewrap(kdf, kek)?;
        Ok((vault, data_key))
    }

    /// A new data key, wrapped by `kek`. The entries are still sealed by the one before.
    pub(super) fn rewrap(&mut self, kdf: Kdf, kek: &Secret) -> Result<Secret> {
        let data_key = Secret::random(KEY)?;
        self.kdf = kdf;
        random(&mut self.wrap_nonce)?;
        self.wrapped = cipher::seal(kek, self.wrap_nonce, &self.wrap_context(), data_key.expose())?;
        Ok(data_key)
    }

    /// The data key; `None` if `kek` is another one, or the header was changed.
    pub(super) fn unwrap_key(&self, kek: &Secret) -> Option<Secret> {
        cipher::open(kek, self.wrap_nonce, &self.wrap_context(), &self.wrapped)
    }

    fn wrap_context(&self) -> Vec<u8> {
        let mut context = MAGIC.to_vec();
        context.extend_from_slice(&self.id);
        self.kdf.write(&mut context);
        context
    }

    fn entry_context(&self, name: &str, version: u64) -> Vec<u8> {
        let mut context = self.id.to_vec();
        context.extend_from_slice(&version.to_le_bytes());
        context.extend_from_slice(name.as_bytes());
        context
    }

    pub(super) fn seal_entry(
        &self,
        data_key: &Secret,
        name: &str,
        secret: &Secret,
        stamp: (u64, u64, u64),
    ) -> Result<Sealed> {
        let (version, created_ms, updated_ms) = stamp;
        let mut nonce = [0; NONCE];
        random(&mut nonce)?;
        let text = cipher::seal(data_key, nonce, &self.entry_context(name, version), secret.expose())?;
        Ok(Sealed { version, created_ms, updated_ms, nonce, text })
    }

    /// `None` if it does not authenticate.
    pub(super) fn open_entry(&self, data_key: &Secret, name: &str, sealed: &Sealed) -> Option<Secret> {
        cipher::open(data_key, sealed.nonce, &self.entry_context(name, sealed.version), &sealed.text)
    }

    /// The whole file.
    pub(super) fn to_bytes(&self, data_key: &Secret) -> Result<Vec<u8>> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.id);
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        self.kdf.write(&mut bytes);
        bytes.extend_from_slice(&self.wrap_nonce);
        bytes.extend_from_slice(&self.wrapped);
        let too_many =
            || CoreError::new(Code::Limit, "a credential store holds at most 100000 entries and 64 MiB");
        let count = u32::try_from(self.entries.len()).map_err(|_| too_many())?;
        bytes.extend_from_slice(&count.to_le_bytes());
        for (name, entry) in &self.entries {
            bytes.push(u8::try_from(name.len()).map_err(|_| too_many())?);
            bytes.extend_from_slice(name.as_bytes());
            for number in [entry.version, entry.created_ms, entry.updated_ms] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.extend_from_slice(&entry.nonce);
            let length = u32::try_from(entry.text.len()).map_err(|_| too_many())?;
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&entry.text);
        }
        let seal = authentication(data_key, &bytes);
        bytes.extend_from_slice(seal.as_bytes());
        if bytes.len() as u64 > MAX_FILE || self.entries.len() > MAX_ENTRIES {
            return Err(too_many());
        }
        Ok(bytes)
    }

    /// Whether `bytes`, of which this was parsed, are those that the owner of the data key wrote.
    pub(super) fn authenticate(bytes: &[u8], data_key: &Secret) -> bool {
        let Some((body, seal)) = bytes.split_last_chunk::<SEAL>() else { return false };
        // `Hash` compares in constant time.
        authentication(data_key, body) == *seal
    }

    /// `None` if the bytes are not of this format, to the last one.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (body, _) = bytes.split_last_chunk::<SEAL>()?;
        let mut reader = Reader(body);
        if reader.array::<8>()? != *MAGIC {
            return None;
        }
        let id = reader.array()?;
        let generation = reader.u64()?;
        let kdf = match reader.array::<1>()? {
            [0] => Kdf::None,
            [1] => Kdf::Argon2id {
                salt: reader.array()?,
                kib: reader.u32()?,
                passes: reader.u32()?,
                lanes: reader.u32()?,
            },
            _ => return None,
        };
        let wrap_nonce = reader.array()?;
        let wrapped = reader.take(KEY + TAG)?.to_vec();
        let mut entries = BTreeMap::new();
        for _ in 0..reader.u32()? {
            let [length] = reader.array::<1>()?;
            let name = std::str::from_utf8(reader.take(length.into())?).ok()?;
            check_name(name).ok()?;
            let (version, created_ms, updated_ms) = (reader.u64()?, reader.u64()?, reader.u64()?);
            let nonce = reader.array()?;
            let length = usize::try_from(reader.u32()?).ok()?;
            let text = reader.take(length)?.to_vec();
            // In order, so that no name stands twice.
            if entries.last_key_value().is_some_and(|(last, _): (&String, _)| last.as_str() >= name) {
                return None;
            }
            entries
                .insert(name.to_owned(), Arc::new(Sealed { version, created_ms, updated_ms, nonce, text }));
        }
        reader.0.is_empty().then_some(Self { id, generation, kdf, wrap_nonce, wrapped, entries })
    }
}

fn authentication(data_key: &Secret, body: &[u8]) -> blake3::Hash {
    on_wiped_stack(|| {
        let key = blake3::derive_key(AUTHENTICATION, data_key.expose());
        blake3::keyed_hash(&key, body)
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}
