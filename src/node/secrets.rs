//! `ApiKey` and `CredentialStore`.

use std::path::Path;

use napi::bindgen_prelude::{
    ClassInstance, Either, FromNapiValue, JavaScriptClassExt, JsObjectValue, JsValue, Object, ObjectFinalize,
    This, ToNapiValue, Uint8Array, Uint8ArraySlice, Unknown,
};
use napi::{Env, ValueType};
use napi_derive::napi;

use super::abort::Abort;
use super::args::{checked, count, flag, name, text};
use super::error::{guard, reify, wrong_argument};
use super::script::call;
use super::settle::{rejecting, settle};
use crate::runtime::blocking;
use crate::secrets::{self, KeySource, OpenOptions, Secret};
use crate::{Code, CoreError};

const REDACTED: &str = "[REDACTED]";

/// A secret that cannot be printed: `toString`, `toJSON`, `util.inspect` and a clone's only property, `secret`, give
/// "[REDACTED]". Its bytes lie in memory of their own that is wiped when the key is collected, locked against swapping where
/// the system allows it, and left out of core dumps on Linux.
///
/// A JavaScript string cannot be wiped: give and take bytes where that matters.
#[napi(custom_finalize)]
pub struct ApiKey {
    pub(super) secret: Secret,
}

#[napi]
impl ApiKey {
    /// Copies the bytes, or the string as UTF-8; bytes are the caller's to wipe. Throws `VALIDATION` for none.
    #[napi(catch_unwind, constructor, ts_args_type = "secret: string | Uint8Array")]
    pub fn new(env: &Env, this: This<'_>, secret: Unknown<'_>) -> napi::Result<Self> {
        // Called without `new`, `this` is whatever stands before the dot, or the global object.
        if !Self::instance_of(env, &this.object)? {
            return Err(reify(env, &CoreError::new(Code::Validation, "an ApiKey is made with `new`")));
        }
        let secret = secret_argument(env, "secret", secret)?;
        let _: Unknown<'_> = call(env, "redact", this.object)?;
        Self::hold(env, secret)
    }

    /// How many bytes it has.
    #[napi(catch_unwind, getter)]
    pub fn length(&self) -> u32 {
        u32::try_from(self.secret.len()).unwrap_or(u32::MAX)
    }

    /// Whether it begins so, such as with "sk-".
    #[napi(catch_unwind, ts_args_type = "prefix: string")]
    pub fn starts_with(&self, env: &Env, prefix: Unknown<'_>) -> napi::Result<bool> {
        Ok(self.secret.expose().starts_with(name(env, "prefix", prefix)?.as_bytes()))
    }

    /// Whether it is the same secret, in a time that depends on the lengths alone.
    #[napi(catch_unwind, ts_args_type = "other: ApiKey | string | Uint8Array")]
    pub fn equals(&self, env: &Env, other: Unknown<'_>) -> napi::Result<bool> {
        if let Some(key) = as_key(&other)? {
            return Ok(self.secret == key.secret);
        }
        Ok(self.secret == bytes_argument(env, "other", other)?)
    }

    /// The secret as a string, which cannot be wiped. Throws `VALIDATION` if it is not UTF-8.
    #[napi(catch_unwind)]
    pub fn expose(&self, env: &Env) -> napi::Result<String> {
        guard(env, || self.secret.expose_str().map(ToOwned::to_owned))
    }

    /// The secret as bytes; the caller wipes them with `fill(0)`.
    #[napi(catch_unwind)]
    pub fn expose_bytes(&self) -> Uint8Array {
        Uint8Array::from(self.secret.expose().to_vec())
    }

    /// "[REDACTED]"
    #[napi(catch_unwind, js_name = "toString")]
    pub fn text(&self) -> &'static str {
        REDACTED
    }

    /// "[REDACTED]"
    #[napi(catch_unwind, js_name = "toJSON")]
    pub fn json(&self) -> &'static str {
        REDACTED
    }
}

impl ApiKey {
    /// V8 is told what the key holds outside of its heap, or it would see no reason to collect it.
    fn hold(env: &Env, secret: Secret) -> napi::Result<Self> {
        env.adjust_external_memory(external_bytes(&secret))?;
        Ok(Self { secret })
    }
}

impl ObjectFinalize for ApiKey {
    fn finalize(self, env: Env) -> napi::Result<()> {
        env.adjust_external_memory(-external_bytes(&self.secret)).map(|_| ())
    }
}

fn external_bytes(secret: &Secret) -> i64 {
    i64::try_from(secret.approximate_bytes()).unwrap_or(i64::MAX)
}

/// The JS object of a secret.
pub(super) fn key_object(env: &Env, secret: Secret) -> napi::Result<Unknown<'static>> {
    let key = ApiKey::hold(env, secret)?.into_instance(env)?;
    let _: Unknown<'_> = call(env, "redact", key.as_object(env))?;
    Ok(Object::from_raw(env.raw(), key.value).to_unknown())
}

/// How a store is opened.
#[napi(object, object_to_js = false)]
pub struct CredentialStoreOptions<'env> {
    /// Whether a store that is not there is created; otherwise `CREDENTIAL_NOT_FOUND`. Default: true.
    #[napi(ts_type = "boolean")]
    pub create: Option<Unknown<'env>>,
    /// The least `generation()` that is taken for the newest; `CRYPTO` below. Default: 0.
    #[napi(ts_type = "number")]
    pub min_generation: Option<Unknown<'env>>,
}

/// A credential's name, and since when it is there.
#[napi(object, object_from_js = false)]
pub struct CredentialInfo {
    /// Its name.
    pub name: String,
    /// When it was first set, in milliseconds since 1970.
    pub created_ms: f64,
    /// When it was last set, in milliseconds since 1970.
    pub updated_ms: f64,
}

/// Something that `CredentialStore.audit` found.
#[napi(object, object_from_js = false)]
pub struct CredentialIssue {
    /// "error": the store cannot be used as it is.
    #[napi(ts_type = "'error' | 'warning'")]
    pub severity: &'static str,
    /// "key-beside-data": whoever copies the data has the key. "modes": others may read or write a file. "damaged": something
    /// does not authenticate. "key": the key is missing, another one, or weak. "memory": secrets may be swapped to disk.
    #[napi(ts_type = "'key-beside-data' | 'modes' | 'damaged' | 'key' | 'memory'")]
    pub kind: &'static str,
    /// The credential; empty for the store as a whole.
    pub path: String,
    /// What is wrong, and what to do.
    pub message: String,
    /// The file or folder at fault.
    pub file: Option<String>,
}

/// Credentials by name in one encrypted file, `credentials.vault`, that many processes may read and write: AES-256-GCM, with
/// each entry bound to its name, version and store, and the whole file authenticated.
///
/// Names are 1 to 128 of `A-Z a-z 0-9 . _ / -`, begin with a letter or digit, and have neither `..` nor `//`; every
/// method rejects others with `CREDENTIAL_NAME`. A file that was altered is refused with `CRYPTO`.
#[napi]
pub struct CredentialStore {
    pub(super) store: secrets::CredentialStore,
}

#[napi]
impl CredentialStore {
    /// Opens the store in a folder, or creates it (0700, files 0600). A key file or keychain item that a new store is to
    /// have is created too. A key is 32 random bytes: raw, or as 64 hexadecimal digits (`openssl rand -hex 32`).
    ///
    /// Rejects with `CREDENTIAL_KEY` if the key is missing or another one, and with `CRYPTO` if the file was altered.
    #[napi(
        catch_unwind,
        ts_args_type = "dir: string, key: KeySource, options?: CredentialStoreOptions",
        ts_return_type = "Promise<CredentialStore>"
    )]
    pub fn open<'env>(
        env: &'env Env,
        dir: Unknown<'env>,
        key: Unknown<'env>,
        options: Option<Either<CredentialStoreOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<Object<'env>> {
        rejecting(env, || {
            let dir = name(env, "dir", dir)?;
            let key = key_source(env, &key)?;
            let mut how = OpenOptions::default();
            if let Some(options) = checked(env, options)? {
                how.create = flag(env, "create", options.create)?.unwrap_or(how.create);
                how.min_generation =
                    count(env, "minGeneration", options.min_generation, 0)?.unwrap_or(how.min_generation);
            }
            let open = move || secrets::CredentialStore::open_with(Path::new(&dir), &key, how);
            settle(env, Abort::never(), |_| blocking(open), |_, store| Ok(Self { store }))
        })
    }

    /// Stores a secret of 1 byte to 1 MiB, replacing the one of this name. It is on disk when this resolves.
    #[napi(
        catch_unwind,
        ts_args_type = "name: string, secret: ApiKey | string | Uint8Array",
        ts_return_type = "Promise<void>"
    )]
    pub fn set<'env>(
        &self,
        env: &'env Env,
        name: Unknown<'env>,
        secret: Unknown<'env>,
    ) -> napi::Result<Object<'env>> {
        rejecting(env, || {
            let name = text(env, "name", name)?;
            let secret = secret_argument(env, "secret", secret)?;
            self.run(env, move |store| store.set(&name, &secret), |_, ()| Ok(()))
        })
    }

    /// The secret of this name; rejects with `CREDENTIAL_NOT_FOUND` if there is none.
    #[napi(catch_unwind, ts_args_type = "name: string", ts_return_type = "Promise<ApiKey>")]
    pub fn get<'env>(&self, env: &'env Env, name: Unknown<'env>) -> napi::Result<Object<'env>> {
        rejecting(env, || {
            let name = text(env, "name", name)?;
            let store = self.store.clone();
            let get = async move {
                // Most often nothing has changed, and another thread would only cost time.
                let found = if let Some(found) = store.get_warm(&name) {
                    found?
                } else {
                    let name = name.clone();
                    blocking(move || store.get(&name)).await?
                };
                found.ok_or_else(|| {
                    CoreError::new(Code::CredentialNotFound, format!("there is no credential \"{name}\""))
                })
            };
            settle(env, Abort::never(), |_| get, key_object)
        })
    }

    /// Whether there is a secret of this name.
    #[napi(catch_unwind, ts_args_type = "name: string", ts_return_type = "Promise<boolean>")]
    pub fn has<'env>(&self, env: &'env Env, name: Unknown<'env>) -> napi::Result<Object<'env>> {
        rejecting(env, || {
            let name = text(env, "name", name)?;
            self.run(env, move |store| store.has(&name), |_, found| Ok(found))
        })
    }

    /// Every name, in order.
    #[napi(catch_unwind, ts_return_type = "Promise<CredentialInfo[]>")]
    pub fn list<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds fit for 285,000 years")]
        let convert = |entry: secrets::Credential| CredentialInfo {
            name: entry.name,
            created_ms: entry.created_ms as f64,
            updated_ms: entry.updated_ms as f64,
        };
        self.run(env, secrets::CredentialStore::list, move |_, entries| {
            Ok(entries.into_iter().map(convert).collect::<Vec<_>>())
        })
    }

    /// Removes a secret; false if there was none.
    #[napi(catch_unwind, ts_args_type = "name: string", ts_return_type = "Promise<boolean>")]
    pub fn delete<'env>(&self, env: &'env Env, name: Unknown<'env>) -> napi::Result<Object<'env>> {
        rejecting(env, || {
            let name = text(env, "name", name)?;
            self.run(env, move |store| store.delete(&name), |_, removed| Ok(removed))
        })
    }

    /// Gives the store a new data key, encrypts every entry anew and has `next` open it. When this rejects, nothing was
    /// changed; when the process is killed, all or nothing. A key file or keychain item that opened the store until now gets a
    /// new key above the older ones; `LIMIT` if it has no room for another.
    #[napi(catch_unwind, ts_args_type = "next: KeySource", ts_return_type = "Promise<void>")]
    pub fn rotate_key<'env>(&self, env: &'env Env, next: Unknown<'env>) -> napi::Result<Object<'env>> {
        rejecting(env, || {
            let next = key_source(env, &next)?;
            self.run(env, move |store| store.rotate_key(&next), |_, ()| Ok(()))
        })
    }

    /// How often the store was written. Kept elsewhere and given to `open` as `minGeneration`, it tells when the whole file was
    /// put back to an older one, which nothing in the file itself can.
    #[napi(catch_unwind, ts_return_type = "Promise<number>")]
    pub fn generation<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        #[expect(clippy::cast_precision_loss, reason = "no store is written 2^53 times")]
        let convert = |_: &Env, generation: u64| Ok(generation as f64);
        self.run(env, secrets::CredentialStore::generation, convert)
    }

    /// Reads everything anew and says what is wrong: a key, or a copy of it, that lies beside the data; files that others
    /// may read or write; what does not authenticate; a weak passphrase.
    #[napi(catch_unwind, ts_return_type = "Promise<CredentialIssue[]>")]
    pub fn audit<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let convert = |finding: secrets::Finding| CredentialIssue {
            severity: if finding.is_error { "error" } else { "warning" },
            kind: finding.kind.as_str(),
            path: finding.name,
            message: finding.message,
            file: finding.file.map(|file| file.display().to_string()),
        };
        self.run(env, secrets::CredentialStore::audit, move |_, findings| {
            Ok(findings.into_iter().map(convert).collect::<Vec<_>>())
        })
    }
}

impl CredentialStore {
    fn run<'env, T: Send + 'static, V: ToNapiValue + 'static>(
        &self,
        env: &'env Env,
        work: impl FnOnce(&secrets::CredentialStore) -> crate::Result<T> + Send + 'static,
        finish: impl FnOnce(&Env, T) -> napi::Result<V> + Send + 'static,
    ) -> napi::Result<Object<'env>> {
        let store = self.store.clone();
        settle(env, Abort::never(), |_| blocking(move || work(&store)), finish)
    }
}

/// A secret of at least one byte: an `ApiKey`, bytes, or a string.
pub(super) fn secret_argument(env: &Env, what: &str, value: Unknown<'_>) -> napi::Result<Secret> {
    let secret = match as_key(&value)? {
        Some(key) => key.secret.clone(),
        None => bytes_argument(env, what, value)?,
    };
    if secret.is_empty() {
        return Err(reify(env, &CoreError::new(Code::Validation, format!("`{what}` is empty"))));
    }
    Ok(secret)
}

fn bytes_argument(env: &Env, what: &str, value: Unknown<'_>) -> napi::Result<Secret> {
    match value.get_type()? {
        ValueType::String => Ok(Secret::from_bytes(name(env, what, value)?.into_bytes())),
        ValueType::Object if value.is_typedarray()? => {
            let bytes = Uint8ArraySlice::from_unknown(value).map_err(|_| {
                reify(env, &wrong_argument(what, "an ApiKey, a string or a Uint8Array", &value))
            })?;
            Ok(Secret::copy_of(&bytes))
        }
        _ => Err(reify(env, &wrong_argument(what, "an ApiKey, a string or a Uint8Array", &value))),
    }
}

/// Whether a value is an `ApiKey`.
pub(super) fn is_key(value: &Unknown<'_>) -> napi::Result<bool> {
    Ok(as_key(value)?.is_some())
}

fn as_key<'env>(value: &Unknown<'env>) -> napi::Result<Option<ClassInstance<'env, ApiKey>>> {
    if value.get_type()? != ValueType::Object
        || !ApiKey::instance_of(&Env::from_raw(value.value().env), value)?
    {
        return Ok(None);
    }
    // What only has the prototype is no key.
    Ok(ClassInstance::from_unknown(*value).ok())
}

fn key_source(env: &Env, value: &Unknown<'_>) -> napi::Result<KeySource> {
    const EXPECTED: &str =
        "an object with one of `passphrase`, `keyFile`, `keychain`, `systemdCredential` and `raw`";
    if value.get_type()? != ValueType::Object {
        return Err(reify(env, &wrong_argument("key", EXPECTED, value)));
    }
    let source = Object::from_raw(env.raw(), value.raw());
    let mut found = Vec::new();
    for kind in ["passphrase", "keyFile", "keychain", "systemdCredential", "raw"] {
        let part = source.get_named_property::<Unknown<'_>>(kind)?;
        if part.get_type()? != ValueType::Undefined {
            found.push((kind, part));
        }
    }
    let [(kind, part)] = found.as_slice() else {
        return Err(reify(env, &CoreError::new(Code::Validation, format!("`key` must be {EXPECTED}"))));
    };
    Ok(match *kind {
        "passphrase" => KeySource::Passphrase(secret_argument(env, "passphrase", *part)?),
        "raw" => KeySource::Raw(secret_argument(env, "raw", *part)?),
        "keyFile" => KeySource::KeyFile(name(env, "keyFile", *part)?.into()),
        "systemdCredential" => KeySource::SystemdCredential(name(env, "systemdCredential", *part)?),
        _ => {
            if part.get_type()? != ValueType::Object {
                return Err(reify(env, &wrong_argument("keychain", "{ service, account }", part)));
            }
            let item = Object::from_raw(env.raw(), part.raw());
            KeySource::Keychain {
                service: name(env, "keychain.service", item.get_named_property("service")?)?,
                account: name(env, "keychain.account", item.get_named_property("account")?)?,
            }
        }
    })
}
