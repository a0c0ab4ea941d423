//! What is wrong with a store, said plainly.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::key::{KIB, KeySource, LANES, PASSES, hex};
use super::secret::Secret;
use super::store::{DRAFT, FILE, LOCK, read_bytes};
use super::vault::{Kdf, Vault};
use crate::{CoreError, Result};

/// Files longer than this hold no key.
const MAX_SEARCHED: u64 = 64 * 1024;
const SHORT_PASSPHRASE: usize = 12;

/// What kind of fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FindingKind {
    /// The key, or a copy of it, lies where whoever takes the data takes it too.
    KeyBesideData,
    /// Others may read or write what only the owner should.
    Modes,
    /// The file or an entry does not authenticate, or the whole was put back.
    Damaged,
    /// The key is missing, another one, or weak.
    Key,
    /// Secrets in memory may be swapped to disk.
    Memory,
}

impl FindingKind {
    /// The name that JavaScript sees.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KeyBesideData => "key-beside-data",
            Self::Modes => "modes",
            Self::Damaged => "damaged",
            Self::Key => "key",
            Self::Memory => "memory",
        }
    }
}

/// One fault.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Its kind.
    pub kind: FindingKind,
    /// Whether the store cannot be used, or protects nothing, until it is mended.
    pub is_error: bool,
    /// The entry; empty for the store as a whole.
    pub name: String,
    /// What is wrong and what to do.
    pub message: String,
    /// The file or folder at fault.
    pub file: Option<PathBuf>,
}

pub(super) fn audit(
    dir: &Path,
    source: &KeySource,
    kek: &Secret,
    refused: Option<CoreError>,
) -> Result<Vec<Finding>> {
    let mut findings = Findings(Vec::new());
    let found = fs::metadata(dir).map_err(|error| CoreError::io("find", dir, error))?;
    findings.modes(dir, &found, 0o077, "chmod 700");
    for name in [FILE, LOCK, DRAFT] {
        let path = dir.join(name);
        match fs::symlink_metadata(&path) {
            Ok(found) => findings.modes(&path, &found, 0o077, "chmod 600"),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(CoreError::io("find", &path, error)),
        }
    }
    findings.content(&dir.join(FILE), kek, refused);
    findings.key_file(dir, source);
    findings.copies(dir, source, kek);
    if let KeySource::Passphrase(passphrase) = source
        && passphrase.len() < SHORT_PASSPHRASE
    {
        let message = format!(
            "the passphrase is shorter than {SHORT_PASSPHRASE} bytes: rotate the key to a longer one"
        );
        findings.warn(FindingKind::Key, message, None);
    }
    if cfg!(unix) && !Secret::copy_of(&[0]).is_locked() {
        let message =
            "secrets in memory may be swapped to disk: the limit of locked memory is used up (`ulimit -l`)";
        findings.warn(FindingKind::Memory, message.into(), None);
    }
    Ok(findings.0)
}

struct Findings(Vec<Finding>);

impl Findings {
    fn warn(&mut self, kind: FindingKind, message: String, file: Option<&Path>) {
        self.0.push(Finding {
            kind,
            is_error: false,
            name: String::new(),
            message,
            file: file.map(Into::into),
        });
    }

    fn error(&mut self, kind: FindingKind, name: &str, message: String, file: &Path) {
        self.0.push(Finding { kind, is_error: true, name: name.into(), message, file: Some(file.into()) });
    }

    #[cfg(unix)]
    fn modes(&mut self, path: &Path, found: &fs::Metadata, wide: u32, mend: &str) {
        use std::os::unix::fs::MetadataExt;
        let mode = found.mode() & 0o7777;
        if found.is_symlink() {
            let message =
                format!("{} is a symbolic link: who can change it decides what is read", path.display());
            self.warn(FindingKind::Modes, message, Some(path));
        } else if mode & wide != 0 {
            let who = if mode & 0o022 & wide == 0 { "read" } else { "read or write" };
            let message = format!("others may {who} {} (mode {mode:o}): {mend}", path.display());
            self.warn(FindingKind::Modes, message, Some(path));
        }
        let owner = found.uid();
        if owner != rustix::process::geteuid().as_raw() {
            let message =
                format!("{} belongs to user {owner}, not to the one that runs this", path.display());
            self.warn(FindingKind::Modes, message, Some(path));
        }
    }

    // What a folder of a profile inherits, others cannot read.
    #[cfg(not(unix))]
    #[expect(clippy::unused_self, reason = "as on Unix")]
    fn modes(&mut self, _path: &Path, _found: &fs::Metadata, _wide: u32, _mend: &str) {}

    /// Authenticates the whole file, then each entry, without what is cached.
    fn content(&mut self, file: &Path, kek: &Secret, refused: Option<CoreError>) {
        if let Some(refused) = refused {
            let kind = if refused.code() == crate::Code::CredentialKey {
                FindingKind::Key
            } else {
                FindingKind::Damaged
            };
            return self.error(kind, "", refused.message().to_owned(), file);
        }
        let bytes = match read_bytes(file) {
            Ok((bytes, _)) => bytes,
            Err(error) => return self.error(FindingKind::Damaged, "", error.message().to_owned(), file),
        };
        let vault = Vault::parse(&bytes);
        let opened = vault.and_then(|vault| Some((vault.unwrap_key(kek)?, vault)));
        let Some((data_key, vault)) = opened.filter(|(data_key, _)| Vault::authenticate(&bytes, data_key))
        else {
            let message = format!("{} does not authenticate; restore it from a backup", file.display());
            return self.error(FindingKind::Damaged, "", message, file);
        };
        for (name, sealed) in &vault.entries {
            if vault.open_entry(&data_key, name, sealed).is_none() {
                self.error(
                    FindingKind::Damaged,
                    name,
                    format!("{name} does not authenticate: set it anew"),
                    file,
                );
            }
        }
        if let Kdf::Argon2id { kib, passes, lanes, .. } = vault.kdf
            && (kib < KIB || passes < PASSES || lanes < LANES)
        {
            let message = "the passphrase is stretched at less than today's costs: rotate the key, be it to the same passphrase";
            self.warn(FindingKind::Key, message.into(), Some(file));
        }
    }

    fn key_file(&mut self, dir: &Path, source: &KeySource) {
        let Some(path) = source.file() else { return };
        let Ok(found) = fs::metadata(&path) else {
            return self.error(FindingKind::Key, "", format!("{} is gone", source.place()), &path);
        };
        let systemd = matches!(source, KeySource::SystemdCredential(_));
        if !systemd {
            self.modes(&path, &found, 0o077, "chmod 600");
        }
        if let (Ok(key), Ok(data)) = (fs::canonicalize(&path), fs::canonicalize(dir))
            && let Some(folder) = shared_folder(&key, &data)
        {
            let message = format!(
                "the key lies beside the data: whoever copies {} has the key file {} and the store, and reads every secret; \
                 keep the key in a keychain, a systemd credential, or a file that no backup of this folder takes along",
                folder.display(),
                key.display()
            );
            self.warn(FindingKind::KeyBesideData, message, Some(&key));
        }
        if !systemd && matches!(source.keys(), Ok(Some(keys)) if keys.len() > 1) {
            let message = format!(
                "{} still holds older keys below the newest: remove them once no backup and no other store needs them",
                path.display()
            );
            self.warn(FindingKind::Key, message, Some(&path));
        }
    }

    /// Searches the store's folder and the one above for the key's bytes or digits, or the passphrase.
    fn copies(&mut self, dir: &Path, source: &KeySource, kek: &Secret) {
        let key_file = source.file().and_then(|file| fs::canonicalize(file).ok());
        let digits = Secret::filled(kek.len() * 2, |digits| {
            hex(kek.expose(), digits);
            Ok(())
        });
        let Ok(digits) = digits else { return };
        let needles = match source {
            // What it is stretched to is written nowhere.
            KeySource::Passphrase(passphrase) if passphrase.len() >= 6 => vec![passphrase.clone()],
            KeySource::Passphrase(_) => Vec::new(),
            _ => vec![kek.clone(), digits],
        };
        let data = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
        for folder in [Some(data.as_path()), data.parent()].into_iter().flatten() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let is_small =
                    entry.metadata().is_ok_and(|found| found.is_file() && found.len() <= MAX_SEARCHED);
                if !is_small || key_file.as_ref() == Some(&path) || path == data.join(FILE) {
                    continue;
                }
                let Ok(bytes) = fs::read(&path) else { continue };
                let bytes = Secret::from_bytes(bytes);
                let holds = |needle: &Secret| memchr::memmem::find(bytes.expose(), needle.expose()).is_some();
                let holds_digits = |needle: &Secret| {
                    bytes
                        .expose()
                        .windows(needle.len())
                        .any(|window| window.eq_ignore_ascii_case(needle.expose()))
                };
                if needles.iter().any(|needle| holds(needle) || needle.len() == 64 && holds_digits(needle)) {
                    let message = format!(
                        "a copy of the key lies beside the data, in {}: whoever copies {} reads every secret; remove it",
                        path.display(),
                        folder.display()
                    );
                    self.warn(FindingKind::KeyBesideData, message, Some(&path));
                }
            }
        }
    }
}

/// The folder that holds both, if copying it is what one does to save or steal the data: the store's own, the one it lies
/// in, or any above in which the key lies directly.
fn shared_folder(key: &Path, data: &Path) -> Option<PathBuf> {
    let around = data.parent()?;
    if key.starts_with(around) && around.parent().is_some() {
        return Some(if key.starts_with(data) { data } else { around }.to_owned());
    }
    let folder = key.parent()?;
    (data.starts_with(folder) && folder.parent().is_some()).then(|| folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_beside_the_data_when_a_copy_of_the_folder_takes_both() {
        let beside =
            |key: &str| shared_folder(Path::new(key), Path::new("/home/a/.openclaw/core/vault")).is_some();
        for key in [
            "/home/a/.openclaw/core/vault/key",
            "/home/a/.openclaw/core/key",
            "/home/a/.openclaw/core/keys/key",
            "/home/a/.openclaw/key",
            "/home/a/key",
        ] {
            assert!(beside(key), "{key}");
        }
        for key in [
            "/etc/openclaw/key",
            "/home/a/.config/openclaw/key",
            "/home/b/key",
            "/key",
            "/run/credentials/openclaw.service/key",
        ] {
            assert!(!beside(key), "{key}");
        }
    }
}
