//! Where the key-encryption key comes from.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::Zeroize;

use super::cipher::{KEY, on_wiped_stack};
use super::keychain;
use super::lock::WriterLock;
use super::secret::{Secret, random};
use super::vault::Kdf;
use crate::config::commit::replace_private;
use crate::{Code, CoreError, Result};

/// The second choice of RFC 9106, section 4: 64 MiB, 3 passes, 4 lanes.
pub(super) const KIB: u32 = 64 * 1024;
pub(super) const PASSES: u32 = 3;
pub(super) const LANES: u32 = 4;

/// A file of keys is never longer.
const MAX_KEY_TEXT: usize = 16 * 1024;

/// Where the key of a [`CredentialStore`](super::CredentialStore) comes from. None of them is ever in the store.
///
/// A key is 32 random bytes: raw, or as text of 64 hexadecimal digits a line (`openssl rand -hex 32`). A text may hold older
/// keys below the newest; each is tried.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// A passphrase, stretched by Argon2id (RFC 9106; 64 MiB, 3 passes, 4 lanes).
    Passphrase(Secret),
    /// A file, created with a new key, mode 0600, when a store is created and there is none.
    KeyFile(PathBuf),
    /// An item of the system's keychain, created with a new key when a store is created and there is none: Keychain on
    /// macOS, Credential Manager on Windows, the Secret Service on Linux (through `secret-tool`).
    Keychain {
        /// The name under which keychains group items.
        service: String,
        /// The item.
        account: String,
    },
    /// The name of a systemd credential (`LoadCredentialEncrypted=`): a file below `$CREDENTIALS_DIRECTORY`.
    SystemdCredential(String),
    /// The key itself.
    Raw(Secret),
}

impl KeySource {
    /// The keys that may be the one of a store with this `kdf`, likeliest first; never none.
    pub(super) fn candidates(&self, kdf: &Kdf) -> Result<Vec<Secret>> {
        match (self, kdf) {
            (Self::Passphrase(passphrase), Kdf::Argon2id { .. }) => Ok(vec![stretch(passphrase, kdf)?]),
            (Self::Passphrase(_), Kdf::None) => Err(wrong(
                "the credential store has a key of its own, not a passphrase: give its key file or keychain item",
            )),
            (_, Kdf::Argon2id { .. }) => {
                Err(wrong("the credential store is opened by a passphrase: give that"))
            }
            (_, Kdf::None) => {
                self.keys()?.ok_or_else(|| wrong(format!("there is no key: {} does not exist", self.place())))
            }
        }
    }

    /// The key for a store that is being made or given another key. `before` is the source it had: if it is this very
    /// one and can be written, it gets a new key above the older ones.
    pub(super) fn next(&self, before: Option<&Self>) -> Result<(Kdf, Secret)> {
        if let Self::Passphrase(passphrase) = self {
            if passphrase.is_empty() {
                return Err(wrong("the passphrase is empty"));
            }
            let mut salt = [0; 16];
            random(&mut salt)?;
            let kdf = Kdf::Argon2id { salt, kib: KIB, passes: PASSES, lanes: LANES };
            return Ok((kdf, stretch(passphrase, &kdf)?));
        }
        // Another store may be getting its key from the same file now.
        let _turn = match self {
            Self::KeyFile(path) => {
                if let Some(folder) = path.parent() {
                    create_private_folder(folder)?;
                }
                Some(WriterLock::acquire(&beside(path, ".lock"))?)
            }
            _ => None,
        };
        let writable = matches!(self, Self::KeyFile(_) | Self::Keychain { .. });
        let older = match self.keys()? {
            Some(keys) if !(writable && before.is_some_and(|before| self.is_same_place(before))) => {
                // `keys` never gives none.
                let first = keys.into_iter().next();
                return Ok((Kdf::None, first.ok_or_else(|| wrong("there is no key"))?));
            }
            None if !writable => {
                return Err(wrong(format!("there is no key: {} does not exist", self.place())));
            }
            older => older.unwrap_or_default(),
        };
        let key = Secret::random(KEY)?;
        let text = key_text(&key, &older).map_err(|error| {
            CoreError::new(error.code(), format!("{}: {}", self.place(), error.message()))
        })?;
        match self {
            Self::KeyFile(path) => write_key_file(path, &text)?,
            Self::Keychain { service, account } => keychain::set(service, account, &text)?,
            Self::Passphrase(_) | Self::SystemdCredential(_) | Self::Raw(_) => {}
        }
        Ok((Kdf::None, key))
    }

    /// The keys that are there now; `None` if the file or item does not exist.
    pub(super) fn keys(&self) -> Result<Option<Vec<Secret>>> {
        let text = match self {
            Self::Passphrase(_) => None,
            Self::Raw(key) => Some(key.clone()),
            Self::KeyFile(path) => read_key_file(path)?,
            Self::SystemdCredential(name) => read_key_file(&systemd_credential(name)?)?,
            Self::Keychain { service, account } => keychain::get(service, account)?,
        };
        text.map(|text| {
            if matches!(self, Self::Raw(_)) && text.len() != KEY {
                return Err(wrong(format!("a raw key has 32 bytes, not {}", text.len())));
            }
            parse_keys(&text).ok_or_else(|| {
                wrong(format!(
                    "{} does not hold a key: 32 random bytes, or lines of 64 hexadecimal digits, such as `openssl rand -hex 32` prints",
                    self.place()
                ))
            })
        })
        .transpose()
    }

    /// The same, whatever the working directory becomes.
    pub(super) fn anchored(&self) -> Result<Self> {
        let Self::KeyFile(path) = self else { return Ok(self.clone()) };
        std::path::absolute(path).map(Self::KeyFile).map_err(|error| CoreError::io("find", path, error))
    }

    /// The file that holds the key, if one does.
    pub(super) fn file(&self) -> Option<PathBuf> {
        match self {
            Self::KeyFile(path) => Some(path.clone()),
            Self::SystemdCredential(name) => systemd_credential(name).ok(),
            Self::Passphrase(_) | Self::Keychain { .. } | Self::Raw(_) => None,
        }
    }

    fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::KeyFile(one), Self::KeyFile(two)) => {
                one == two
                    || fs::canonicalize(one).ok().is_some_and(|one| fs::canonicalize(two).ok() == Some(one))
            }
            (
                Self::Keychain { service, account },
                Self::Keychain { service: other_service, account: other_account },
            ) => (service, account) == (other_service, other_account),
            _ => false,
        }
    }

    /// For messages.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Passphrase(_) => "the passphrase".into(),
            Self::KeyFile(path) => format!("the key file {}", path.display()),
            Self::Keychain { service, account } => format!("the keychain item {service}/{account}"),
            Self::SystemdCredential(name) => format!("the systemd credential {name}"),
            Self::Raw(_) => "the raw key".into(),
        }
    }
}

pub(super) fn wrong(message: impl Into<String>) -> CoreError {
    CoreError::new(Code::CredentialKey, message)
}

fn stretch(passphrase: &Secret, kdf: &Kdf) -> Result<Secret> {
    let Kdf::Argon2id { salt, kib, passes, lanes } = kdf else {
        return Err(wrong("the credential store has no passphrase"));
    };
    // The costs stand in a file that anyone may have written: they must not take all memory or time.
    let excessive = *kib > 1 << 20 || *passes > 64 || *lanes > 64;
    let params = Params::new(*kib, *passes, *lanes, Some(KEY)).ok().filter(|_| !excessive);
    let params = params
        .ok_or_else(|| wrong("the credential store asks for costs of Argon2id that are out of range"))?;
    let mut blocks = Vec::new();
    let count = params.block_count();
    blocks
        .try_reserve_exact(count)
        .map_err(|_| CoreError::new(Code::Limit, format!("there is no memory for Argon2id: {kib} KiB")))?;
    blocks.resize(count, Block::default());
    let stretched = Secret::filled(KEY, |key| {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        on_wiped_stack(|| argon2.hash_password_into_with_memory(passphrase.expose(), salt, key, &mut blocks))
            .map_err(|error| wrong(format!("the passphrase cannot be used: {error}")))
    });
    for block in &mut blocks {
        block.zeroize();
    }
    stretched
}

fn systemd_credential(name: &str) -> Result<PathBuf> {
    super::check_name(name)?;
    if name.contains('/') {
        return Err(CoreError::new(Code::CredentialName, "a systemd credential's name has no slash"));
    }
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty());
    let folder = folder.ok_or_else(|| {
        wrong("CREDENTIALS_DIRECTORY is not set: is this a systemd service with LoadCredentialEncrypted=?")
    })?;
    Ok(PathBuf::from(folder).join(name))
}

/// `None` if there is no such file.
fn read_key_file(path: &Path) -> Result<Option<Secret>> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let mut file = match options.open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| unreadable(path, error))?,
    };
    let found = file.metadata().map_err(|error| unreadable(path, error))?;
    if !found.is_file() {
        return Err(wrong(format!("the key file {} is not a regular file", path.display())).in_file(path));
    }
    #[cfg(unix)]
    refuse_what_others_write(path, &found)?;
    let mut length = 0;
    let text = Secret::filled(MAX_KEY_TEXT + 1, |buffer| {
        while let Some(free) = buffer.get_mut(length..).filter(|free| !free.is_empty()) {
            match file.read(free) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(path, error)),
            }
        }
        Ok(())
    })?;
    Ok(Some(Secret::copy_of(text.expose().get(..length).unwrap_or_default())))
}

fn unreadable(path: &Path, error: std::io::Error) -> CoreError {
    wrong(format!("cannot read the key file {}: {error}", path.display())).in_file(path).caused_by(error)
}

/// Whoever can write the key file chooses the key.
#[cfg(unix)]
fn refuse_what_others_write(path: &Path, found: &fs::Metadata) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let me = rustix::process::geteuid().as_raw();
    let wide = found.mode() & 0o022 != 0;
    if !wide && (found.uid() == me || found.uid() == 0) {
        return Ok(());
    }
    let fault = if wide { "others may write it: chmod 600" } else { "it belongs to another user" };
    Err(wrong(format!("the key file {} is not to be trusted: {fault}", path.display())).in_file(path))
}

/// Raw, or as lines of hexadecimal digits.
fn parse_keys(text: &Secret) -> Option<Vec<Secret>> {
    let bytes = text.expose();
    if bytes.len() == KEY {
        return Some(vec![text.clone()]);
    }
    if bytes.len() > MAX_KEY_TEXT {
        return None;
    }
    let lines = bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let keys: Option<Vec<Secret>> = lines.map(parse_key).collect();
    keys.filter(|keys| !keys.is_empty())
}

fn parse_key(line: &[u8]) -> Option<Secret> {
    if line.len() != KEY * 2 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let malformed = || CoreError::new(Code::CredentialKey, "no hexadecimal digit");
    let parsed = Secret::filled(KEY, |key| {
        for (byte, pair) in key.iter_mut().zip(line.chunks_exact(2)) {
            let [high, low] = *pair else { return Err(malformed()) };
            *byte = digit(high).zip(digit(low)).map(|(high, low)| high << 4 | low).ok_or_else(malformed)?;
        }
        Ok(())
    });
    parsed.ok()
}

/// The new key, then the older ones; `LIMIT` if there is no room for one of them, which another store may need.
fn key_text(key: &Secret, older: &[Secret]) -> Result<Secret> {
    const LINE: usize = KEY * 2 + 1;
    const MOST: usize = MAX_KEY_TEXT / LINE;
    if older.len() >= MOST {
        let message = format!(
            "there is no room for another key above {} older ones: remove those that no store and no backup needs",
            older.len()
        );
        return Err(CoreError::new(Code::Limit, message));
    }
    let keys = std::iter::once(key).chain(older);
    Secret::filled((1 + older.len()) * LINE, |text| {
        for (line, key) in text.chunks_exact_mut(LINE).zip(keys) {
            if let Some((end, digits)) = line.split_last_mut() {
                *end = b'\n';
                hex(key.expose(), digits);
            }
        }
        Ok(())
    })
}

/// Lower-case digits, two a byte.
pub(super) fn hex(bytes: &[u8], digits: &mut [u8]) {
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        for (digit, value) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
            *digit = value + if value < 10 { b'0' } else { b'a' - 10 };
        }
    }
}

fn write_key_file(path: &Path, text: &Secret) -> Result<()> {
    // A link to the file stays one.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    // A key that is not known to be on disk must open nothing. It may stay, above the older ones.
    replace_private(&path, &beside(&path, ".next"), text.expose())?.map_or(Ok(()), Err)
}

/// A folder that only its owner can enter, with those above it; what is there stays as it is.
pub(super) fn create_private_folder(folder: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|error| CoreError::io("create", folder, error))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_bytes_or_lines_of_64_hexadecimal_digits() {
        let hex = "0f".repeat(32);
        let keys = |text: &[u8]| parse_keys(&Secret::copy_of(text)).map(|keys| keys.len());
        assert_eq!(keys(&[7; 32]), Some(1));
        assert_eq!(keys(hex.as_bytes()), Some(1));
        assert_eq!(keys(format!("{hex}\r\n\n{}\n", hex.to_uppercase()).as_bytes()), Some(2));
        for bad in
            ["", "\n", "hunter2", &hex[1..], &format!("{hex}0"), &hex.replace('f', "g"), &format!("{hex}\nx")]
        {
            assert_eq!(keys(bad.as_bytes()), None, "{bad:?}");
        }
        let key = Secret::copy_of(&[0x1F; 32]);
        let text = key_text(&key, &[Secret::copy_of(&[0xA0; 32])]).unwrap();
        assert_eq!(text.expose_str().unwrap(), format!("{}\n{}\n", "1f".repeat(32), "a0".repeat(32)));
        assert_eq!(parse_keys(&text).unwrap().first(), Some(&key));
    }

    #[test]
    fn no_older_key_is_dropped_for_a_new_one() {
        let key = Secret::copy_of(&[0x1F; 32]);
        let older = |count| vec![Secret::copy_of(&[0xA0; 32]); count];
        let full = key_text(&key, &older(MAX_KEY_TEXT / 65 - 1)).unwrap();
        assert_eq!(parse_keys(&full).unwrap().len(), MAX_KEY_TEXT / 65);
        let error = key_text(&key, &older(MAX_KEY_TEXT / 65)).unwrap_err();
        assert_eq!(error.code(), Code::Limit);
    }

    #[test]
    fn argon2id_is_that_of_rfc_9106_and_its_costs_have_bounds() {
        let kdf = |salt, kib, passes, lanes| Kdf::Argon2id { salt: [salt; 16], kib, passes, lanes };
        let of = |text: &[u8], kdf| stretch(&Secret::copy_of(text), &kdf);
        let key = of(b"pass", kdf(1, 256, 3, 4)).unwrap();
        // What OpenSSL makes of them, through Node's `crypto.argon2Sync`.
        let mut digits = [0; KEY * 2];
        hex(key.expose(), &mut digits);
        assert_eq!(&digits, b"9d8e5635f1b9d6367625b1e2cdff3b11e53ca8883b0679af07094ffd83f3a695");
        assert_eq!(of(b"pass", kdf(1, 256, 3, 4)).unwrap(), key);
        for other in [kdf(2, 256, 3, 4), kdf(1, 257 + 16, 3, 4), kdf(1, 256, 2, 4), kdf(1, 256, 3, 3)] {
            assert_ne!(of(b"pass", other).unwrap(), key, "{other:?}");
        }
        assert_ne!(of(b"Pass", kdf(1, 256, 3, 4)).unwrap(), key);
        for wild in [
            kdf(1, u32::MAX, 3, 4),
            kdf(1, 256, u32::MAX, 4),
            kdf(1, 256, 0, 4),
            kdf(1, 8, 1, 64),
            kdf(1, 256, 1, 0),
        ] {
            assert_eq!(of(b"pass", wild).unwrap_err().code(), Code::CredentialKey, "{wild:?}");
        }
    }
}
