//! The store of credentials.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::audit::{self, Finding};
use super::key::{KeySource, create_private_folder, wrong};
use super::lock::WriterLock;
use super::secret::Secret;
use super::vault::{Kdf, MAX_FILE, MAX_SECRET, Sealed, Vault};
use crate::config::commit::replace_private;
use crate::{Code, CoreError, Result};

/// The store's one file.
pub(super) const FILE: &str = "credentials.vault";
pub(super) const LOCK: &str = "LOCK";
/// What a writer that was killed leaves behind; the next one writes over it.
pub(super) const DRAFT: &str = "credentials.vault.next";

const MAX_NAME: usize = 128;

/// `CREDENTIAL_NAME` unless `name` is 1 to 128 characters of `A-Z a-z 0-9 . _ / -`, begins with a letter or digit and has
/// neither `..` nor `//` in it: such as means the same wherever it is used, be it as a path.
pub fn check_name(name: &str) -> Result<()> {
    let bytes = name.as_bytes();
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._/-".contains(byte);
    let good = bytes.len() <= MAX_NAME
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(allowed)
        && !name.contains("..")
        && !name.contains("//");
    if good {
        return Ok(());
    }
    // A name that is wrong may be a secret in the wrong place: it is not repeated.
    Err(CoreError::new(
        Code::CredentialName,
        "a credential's name is 1 to 128 of A-Z a-z 0-9 . _ / - and begins with a letter or digit, without `..` and `//`",
    ))
}

/// What an entry is called, and since when it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Its name.
    pub name: String,
    /// When it was first set, in milliseconds since 1970.
    pub created_ms: u64,
    /// When it was last set, in milliseconds since 1970.
    pub updated_ms: u64,
}

/// How a store is opened.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// Whether a store that is not there is created; otherwise `CREDENTIAL_NOT_FOUND`. Default: true.
    pub create: bool,
    /// The least [`generation`](CredentialStore::generation) that is taken for the newest; `CRYPTO` below. Kept elsewhere, it
    /// tells when the whole store was put back to an older one. Default: 0.
    pub min_generation: u64,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { create: true, min_generation: 0 }
    }
}

/// Credentials by name, encrypted at rest. Clones are the same store; every method blocks.
#[derive(Clone)]
pub struct CredentialStore {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    /// Threads of this process take turns here before they take turns with other processes.
    writing: Mutex<()>,
    access: Mutex<Access>,
}

/// What is known of the store, and how it was opened.
struct Access {
    source: KeySource,
    /// The last key-encryption key: stretching a passphrase again takes long.
    kek: (Kdf, Secret),
    loaded: Loaded,
}

/// The file as it was read and found authentic.
struct Loaded {
    stamp: Stamp,
    /// Kept open, so that its inode number cannot become that of a later file.
    _file: File,
    vault: Arc<Vault>,
    data_key: Secret,
    seal: [u8; 32],
}

impl CredentialStore {
    /// Opens the store in `dir`, or creates it with all folders that are missing (0700).
    pub fn open(dir: &Path, key: &KeySource) -> Result<Self> {
        Self::open_with(dir, key, OpenOptions::default())
    }

    /// As [`open`](Self::open), with options.
    pub fn open_with(dir: &Path, key: &KeySource, options: OpenOptions) -> Result<Self> {
        // The working directory may change while the store is open.
        let dir = &std::path::absolute(dir).map_err(|error| CoreError::io("find", dir, error))?;
        let key = &key.anchored()?;
        let file = dir.join(FILE);
        let mut known = None;
        if fs::symlink_metadata(&file).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            if !options.create || options.min_generation > 0 {
                let message = format!("there is no credential store in {}", dir.display());
                return Err(CoreError::new(Code::CredentialNotFound, message).in_file(file));
            }
            known = create(dir, key)?;
        }
        let (vault, bytes, stamp, opened) = read(&file)?;
        let (kek, data_key) = unlock(&vault, &file, key, known.as_ref())?;
        let loaded = Loaded::new(vault, &bytes, data_key, stamp, opened, &file)?;
        if loaded.vault.generation < options.min_generation {
            return Err(rolled_back(&file, loaded.vault.generation, options.min_generation));
        }
        let access = Access { source: key.clone(), kek: (loaded.vault.kdf, kek), loaded };
        let inner = Inner { dir: dir.to_owned(), writing: Mutex::new(()), access: Mutex::new(access) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The folder it is in.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// The secret under this name; `None` if there is none.
    pub fn get(&self, name: &str) -> Result<Option<Secret>> {
        check_name(name)?;
        let access = self.fresh()?;
        access.loaded.get(name, &self.file())
    }

    /// As [`get`](Self::get), if the file is the one that was read last and nobody holds up this thread: one `stat`, and no
    /// reading, waiting or stretching. `None` if it must be done properly.
    pub(crate) fn get_warm(&self, name: &str) -> Option<Result<Option<Secret>>> {
        check_name(name).ok()?;
        let file = self.file();
        let access = self.inner.access.try_lock().ok()?;
        let found = fs::symlink_metadata(&file).ok()?;
        let same = Stamp::of(&found, &file).ok()? == access.loaded.stamp;
        same.then(|| access.loaded.get(name, &file))
    }

    /// Whether there is a secret under this name.
    pub fn has(&self, name: &str) -> Result<bool> {
        check_name(name)?;
        Ok(self.fresh()?.loaded.vault.entries.contains_key(name))
    }

    /// Every name, in order.
    pub fn list(&self) -> Result<Vec<Credential>> {
        let access = self.fresh()?;
        let entries = access.loaded.vault.entries.iter();
        Ok(entries
            .map(|(name, entry)| Credential {
                name: name.clone(),
                created_ms: entry.created_ms,
                updated_ms: entry.updated_ms,
            })
            .collect())
    }

    /// Stores a secret of 1 byte to 1 MiB, replacing the one of this name.
    pub fn set(&self, name: &str, secret: &Secret) -> Result<()> {
        self.update(|entries| entries.set(name, secret))
    }

    /// Removes a secret; false if there was none.
    pub fn delete(&self, name: &str) -> Result<bool> {
        self.update(|entries| entries.delete(name))
    }

    /// Reads and changes several entries in one turn and one write, while no other process writes. If `change` fails,
    /// nothing is written. It may read from the store, which is then as it was before, but not write to it.
    pub fn update<T>(&self, change: impl FnOnce(&mut Entries) -> Result<T>) -> Result<T> {
        let _here = guard(&self.inner.writing);
        let _turn = self.writers_turn()?;
        let (vault, data_key) = {
            let access = self.fresh()?;
            (Arc::clone(&access.loaded.vault), access.loaded.data_key.clone())
        };
        let before = (Arc::clone(&vault), data_key.clone());
        let mut entries = Entries::new((*vault).clone(), data_key, self.file())?;
        let result = change(&mut entries)?;
        if entries.changed {
            let bytes = entries.vault.to_bytes(&entries.data_key)?;
            self.commit(&bytes, before)?;
            // It is done; that it cannot be read again is for the next one to say.
            drop(self.fresh());
        }
        Ok(result)
    }

    /// Gives the store a new data key, seals every entry anew, and has the next key source open it. When this fails, nothing
    /// was changed, and when the process is killed, all or nothing. A key file or keychain item that opened the store until now gets a
    /// new key above the older ones, which may then be removed.
    pub fn rotate_key(&self, next: &KeySource) -> Result<()> {
        let next = &next.anchored()?;
        let _here = guard(&self.inner.writing);
        let _turn = self.writers_turn()?;
        let (vault, data_key, source) = {
            let access = self.fresh()?;
            (Arc::clone(&access.loaded.vault), access.loaded.data_key.clone(), access.source.clone())
        };
        let (kdf, kek) = next.next(Some(&source))?;
        let before = (Arc::clone(&vault), data_key.clone());
        let mut entries = Entries::new((*vault).clone(), data_key, self.file())?;
        entries.rekey(kdf, &kek)?;
        let bytes = entries.vault.to_bytes(&entries.data_key)?;
        self.commit(&bytes, before)?;
        let mut access = guard(&self.inner.access);
        access.source = next.clone();
        access.kek = (kdf, kek);
        // It is done; that it cannot be read again is for the next one to say.
        let _ = access.refresh(&self.file());
        Ok(())
    }

    /// How often the store was written. Kept elsewhere, it tells later whether the whole store was put back.
    pub fn generation(&self) -> Result<u64> {
        Ok(self.fresh()?.loaded.vault.generation)
    }

    /// Reads everything anew and says what is wrong: a key that lies beside the data, wide modes, what does not
    /// authenticate. Finds faults; fails only if the folder cannot be read.
    pub fn audit(&self) -> Result<Vec<Finding>> {
        let (source, kek) = {
            let mut access = guard(&self.inner.access);
            // What is wrong with the file is found below.
            let _ = access.refresh(&self.file());
            (access.source.clone(), access.kek.1.clone())
        };
        audit::audit(&self.inner.dir, &source, &kek, self.fresh().err())
    }

    fn file(&self) -> PathBuf {
        self.inner.dir.join(FILE)
    }

    fn writers_turn(&self) -> Result<WriterLock> {
        WriterLock::acquire(&self.inner.dir.join(LOCK))
    }

    /// Writes the next file. If this fails, the store is as it was `before`.
    fn commit(&self, bytes: &[u8], before: (Arc<Vault>, Secret)) -> Result<()> {
        let replace = |bytes: &[u8]| replace_private(&self.file(), &self.inner.dir.join(DRAFT), bytes);
        let Some(error) = replace(bytes)? else { return Ok(()) };
        // Who is told that nothing was changed relies on it, and keeps the key that opened the store.
        let (vault, data_key) = before;
        let mut vault = (*vault).clone();
        // Above the generation that is taken back, which others may have seen.
        vault.generation = vault.generation.saturating_add(2);
        match vault.to_bytes(&data_key).and_then(|bytes| replace(&bytes)) {
            Ok(_) => Err(error),
            Err(why) => {
                let file = self.file();
                tracing::warn!(file = %file.display(), %error, %why, "a change is in force but may not survive a power cut");
                Ok(())
            }
        }
    }

    /// The store as it is on the disk now.
    fn fresh(&self) -> Result<MutexGuard<'_, Access>> {
        let mut access = guard(&self.inner.access);
        access.refresh(&self.file())?;
        Ok(access)
    }
}

impl std::fmt::Debug for CredentialStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CredentialStore").field("dir", &self.inner.dir).finish_non_exhaustive()
    }
}

/// A panic while the lock was held left nothing half done: what is loaded is replaced as a whole.
fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Access {
    /// Reads the file again if it is another one.
    fn refresh(&mut self, path: &Path) -> Result<()> {
        let found = fs::symlink_metadata(path).map_err(|error| CoreError::io("find", path, error))?;
        if Stamp::of(&found, path)? == self.loaded.stamp {
            return Ok(());
        }
        let (vault, bytes, stamp, file) = read(path)?;
        if vault.id != self.loaded.vault.id {
            let message = format!("{} is another credential store now: open it anew", path.display());
            return Err(CoreError::new(Code::Crypto, message).in_file(path));
        }
        let (kek, data_key) = unlock(&vault, path, &self.source, Some(&self.kek))?;
        let loaded = Loaded::new(vault, &bytes, data_key, stamp, file, path)?;
        let (now, seen) = (loaded.vault.generation, self.loaded.vault.generation);
        // An equal number with other content: someone else wrote on from an older file.
        if now < seen || now == seen && loaded.seal != self.loaded.seal {
            return Err(rolled_back(path, now, seen));
        }
        self.kek = (loaded.vault.kdf, kek);
        self.loaded = loaded;
        Ok(())
    }
}

impl Loaded {
    fn new(
        vault: Vault,
        bytes: &[u8],
        data_key: Secret,
        stamp: Stamp,
        file: File,
        path: &Path,
    ) -> Result<Self> {
        let seal = bytes.last_chunk().filter(|_| Vault::authenticate(bytes, &data_key));
        let seal = *seal.ok_or_else(|| altered(path))?;
        Ok(Self { stamp, _file: file, vault: Arc::new(vault), data_key, seal })
    }

    fn get(&self, name: &str, path: &Path) -> Result<Option<Secret>> {
        let Some(sealed) = self.vault.entries.get(name) else { return Ok(None) };
        self.vault.open_entry(&self.data_key, name, sealed).ok_or_else(|| altered(path)).map(Some)
    }
}

/// The entries of a store in one turn of [`CredentialStore::update`].
pub struct Entries {
    vault: Vault,
    data_key: Secret,
    file: PathBuf,
    changed: bool,
}

impl Entries {
    fn new(mut vault: Vault, data_key: Secret, file: PathBuf) -> Result<Self> {
        vault.generation = vault.generation.checked_add(1).ok_or_else(|| altered(&file))?;
        Ok(Self { vault, data_key, file, changed: false })
    }

    /// The secret under this name, as changed so far; `None` if there is none.
    pub fn get(&self, name: &str) -> Result<Option<Secret>> {
        check_name(name)?;
        let Some(sealed) = self.vault.entries.get(name) else { return Ok(None) };
        let opened = self.vault.open_entry(&self.data_key, name, sealed);
        opened.ok_or_else(|| altered(&self.file)).map(Some)
    }

    /// Stores a secret of 1 byte to 1 MiB, replacing the one of this name.
    pub fn set(&mut self, name: &str, secret: &Secret) -> Result<()> {
        check_name(name)?;
        if secret.is_empty() {
            return Err(CoreError::new(
                Code::Validation,
                "a secret must not be empty; delete the entry instead",
            ));
        }
        if secret.len() > MAX_SECRET {
            let message = format!("a secret has at most {MAX_SECRET} bytes, not {}", secret.len());
            return Err(CoreError::new(Code::Limit, message));
        }
        let now = now_ms();
        let created = self.vault.entries.get(name).map_or(now, |before| before.created_ms);
        let stamp = (self.vault.generation, created, now);
        let sealed = self.vault.seal_entry(&self.data_key, name, secret, stamp)?;
        self.put(name, sealed);
        Ok(())
    }

    /// Removes a secret; false if there was none.
    pub fn delete(&mut self, name: &str) -> Result<bool> {
        check_name(name)?;
        let removed = self.vault.entries.remove(name).is_some();
        self.changed |= removed;
        Ok(removed)
    }

    /// Every name, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.vault.entries.keys().map(String::as_str)
    }

    fn put(&mut self, name: &str, sealed: Sealed) {
        self.vault.entries.insert(name.to_owned(), Arc::new(sealed));
        self.changed = true;
    }

    fn rekey(&mut self, kdf: Kdf, kek: &Secret) -> Result<()> {
        let before = std::mem::take(&mut self.vault.entries);
        let data_key = self.vault.rewrap(kdf, kek)?;
        let mut entries = BTreeMap::new();
        for (name, sealed) in before {
            let secret = self.vault.open_entry(&self.data_key, &name, &sealed);
            let secret = secret.ok_or_else(|| altered(&self.file))?;
            let stamp = (sealed.version, sealed.created_ms, sealed.updated_ms);
            let sealed = self.vault.seal_entry(&data_key, &name, &secret, stamp)?;
            entries.insert(name, Arc::new(sealed));
        }
        self.vault.entries = entries;
        self.data_key = data_key;
        Ok(())
    }
}

/// Which file it is, and in what state.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
    /// Unix: volume, inode and time of the last change of either. Elsewhere the store's generation.
    identity: [u64; 4],
}

impl Stamp {
    fn of(found: &Metadata, path: &Path) -> Result<Self> {
        Ok(Self { length: found.len(), modified: found.modified().ok(), identity: identity(found, path)? })
    }
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "the same signature on all platforms")]
fn identity(found: &Metadata, _path: &Path) -> Result<[u64; 4]> {
    use std::os::unix::fs::MetadataExt;
    Ok([found.dev(), found.ino(), found.ctime().cast_unsigned(), found.ctime_nsec().cast_unsigned()])
}

#[cfg(not(unix))]
fn identity(_found: &Metadata, path: &Path) -> Result<[u64; 4]> {
    let mut start = [0; 32];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    match read {
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => Err(CoreError::io("read", path, error)),
        _ => {
            let mut identity = [0; 4];
            for (number, bytes) in identity.iter_mut().zip(start.chunks_exact(8)) {
                *number = bytes.try_into().map(u64::from_le_bytes).unwrap_or_default();
            }
            Ok(identity)
        }
    }
}

/// Reads the whole file; nothing in it is authenticated yet.
pub(super) fn read_bytes(path: &Path) -> Result<(Vec<u8>, File)> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let mut file = options.open(path).map_err(|error| CoreError::io("open", path, error))?;
    let found = file.metadata().map_err(|error| CoreError::io("read", path, error))?;
    if !found.is_file() || found.len() > MAX_FILE {
        return Err(altered(path));
    }
    let mut bytes = Vec::new();
    file.by_ref()
        .take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CoreError::io("read", path, error))?;
    Ok((bytes, file))
}

fn read(path: &Path) -> Result<(Vault, Vec<u8>, Stamp, File)> {
    let (bytes, file) = read_bytes(path)?;
    let found = file.metadata().map_err(|error| CoreError::io("read", path, error))?;
    let vault = Vault::parse(&bytes).ok_or_else(|| altered(path))?;
    Ok((vault, bytes, Stamp::of(&found, path)?, file))
}

/// The key-encryption key and the data key.
fn unlock(
    vault: &Vault,
    path: &Path,
    source: &KeySource,
    known: Option<&(Kdf, Secret)>,
) -> Result<(Secret, Secret)> {
    if let Some((kdf, kek)) = known
        && *kdf == vault.kdf
        && let Some(data_key) = vault.unwrap_key(kek)
    {
        return Ok((kek.clone(), data_key));
    }
    for kek in source.candidates(&vault.kdf)? {
        if let Some(data_key) = vault.unwrap_key(&kek) {
            return Ok((kek, data_key));
        }
    }
    let message = format!(
        "{} does not open {}: it is another key, or the file's header was altered",
        source.place(),
        path.display()
    );
    Err(wrong(message).in_file(path))
}

/// The key-encryption key, unless another process was first.
fn create(dir: &Path, key: &KeySource) -> Result<Option<(Kdf, Secret)>> {
    create_private_folder(dir)?;
    let _turn = WriterLock::acquire(&dir.join(LOCK))?;
    let file = dir.join(FILE);
    if fs::symlink_metadata(&file).is_ok() {
        return Ok(None);
    }
    let (kdf, kek) = key.next(None)?;
    let (mut vault, data_key) = Vault::new(kdf, &kek)?;
    vault.generation = 1;
    let bytes = vault.to_bytes(&data_key)?;
    // An empty store loses nothing; it may stay.
    replace_private(&file, &dir.join(DRAFT), &bytes)?.map_or(Ok(()), Err)?;
    Ok(Some((kdf, kek)))
}

pub(super) fn altered(path: &Path) -> CoreError {
    let message = format!(
        "{} does not authenticate: it was altered, cut off, or is no credential store; restore it from a backup",
        path.display()
    );
    CoreError::new(Code::Crypto, message).in_file(path)
}

fn rolled_back(path: &Path, now: u64, seen: u64) -> CoreError {
    let message = format!(
        "{} was put back to an older state: generation {now}, and {seen} was seen before; if you restored a backup, open it anew",
        path.display()
    );
    CoreError::new(Code::Crypto, message).in_file(path)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
