//! `SandboxFs`.

use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::{
    Buffer, Either, FromNapiValue, JsValue, Object, ToNapiValue, Uint8ArraySlice, Unknown,
};
use napi::{JsString, ValueType};
use napi_derive::napi;
use tokio_util::sync::CancellationToken;

use super::abort::Abort;
use super::args::{checked, count, flag, name, stringify};
use super::error::{reify, wrong_argument};
use super::json::string;
use super::sandbox::Sandbox;
use super::settle::{settle, settle_in_the_end};
use super::slices::{assemble, json_slices};
use crate::runtime::blocking;
use crate::sandbox::SandboxPolicy;
use crate::sandbox::fs::{self, DEFAULT_MAX_BYTES, Kind, RemoveOptions, WriteOptions, Written};
use crate::{Code, CoreError, Result};

#[napi]
impl Sandbox {
    /// Its files, without a command. They can still be reached when the sandbox is closed.
    #[napi(catch_unwind, getter)]
    pub fn fs(&self) -> SandboxFs {
        SandboxFs { inner: Arc::clone(self.inner.files()) }
    }
}

/// How to read a file.
#[napi(object, object_to_js = false)]
pub struct SandboxReadOptions<'env> {
    /// `LIMIT` if the file has more bytes, also if it grows meanwhile. Default: 256 MiB.
    #[napi(ts_type = "number")]
    pub max_bytes: Option<Unknown<'env>>,
    /// Aborts the call.
    #[napi(ts_type = "AbortSignal")]
    pub signal: Option<Unknown<'env>>,
}

/// How to write a file.
#[napi(object, object_to_js = false)]
pub struct SandboxWriteOptions<'env> {
    /// Whether directories on the way that are missing are made. Default: false.
    #[napi(ts_type = "boolean")]
    pub mkdir: Option<Unknown<'env>>,
    /// Whether the file must not exist, not even as a symbolic link: then `IO`. Default: false.
    #[napi(ts_type = "boolean")]
    pub exclusive: Option<Unknown<'env>>,
    /// Whether the path came from `resolvePath`: a symbolic link in it is then `PATH_ESCAPE`. Default: false.
    #[napi(ts_type = "boolean")]
    pub pinned: Option<Unknown<'env>>,
    /// Aborts the call; the file is then what it was.
    #[napi(ts_type = "AbortSignal")]
    pub signal: Option<Unknown<'env>>,
}

/// How to remove something.
#[napi(object, object_to_js = false)]
pub struct SandboxRemoveOptions<'env> {
    /// Whether a directory is removed with what is in it. Default: false.
    #[napi(ts_type = "boolean")]
    pub recursive: Option<Unknown<'env>>,
    /// Whether what does not exist is removed already. Default: false.
    #[napi(ts_type = "boolean")]
    pub force: Option<Unknown<'env>>,
    /// As in `SandboxWriteOptions`.
    #[napi(ts_type = "boolean")]
    pub pinned: Option<Unknown<'env>>,
    /// Aborts the call; what is removed by then stays so.
    #[napi(ts_type = "AbortSignal")]
    pub signal: Option<Unknown<'env>>,
}

/// How to follow a path.
#[napi(object, object_to_js = false)]
pub struct SandboxPathOptions<'env> {
    /// Whether the last component, if it is a symbolic link, is not followed. Default: false.
    #[napi(ts_type = "boolean")]
    pub keep_last: Option<Unknown<'env>>,
    /// As in `SandboxWriteOptions`.
    #[napi(ts_type = "boolean")]
    pub pinned: Option<Unknown<'env>>,
}

/// What is in a file, and where it is.
#[napi(object, object_from_js = false)]
pub struct SandboxFile {
    /// Its bytes.
    pub data: Buffer,
    /// Where it was read, in the sandbox, without symbolic links.
    pub path: String,
}

/// A name in a directory.
#[napi(object, object_from_js = false)]
#[allow(dead_code, reason = "declares the type; lists cross as JSON")]
pub struct SandboxEntry {
    /// The name; what is no UTF-8 in it is shown as U+FFFD.
    pub name: String,
    /// Whether it is a directory. A symbolic link is none.
    pub is_directory: bool,
}

/// What is known of a file without reading it.
#[napi(object, object_from_js = false)]
pub struct SandboxStat {
    /// "other": a pipe, a socket, a device.
    #[napi(js_name = "type", ts_type = "'file' | 'directory' | 'other'")]
    pub kind: &'static str,
    /// Its bytes.
    pub size: f64,
    /// When it was last written, in milliseconds since 1970.
    pub mtime_ms: f64,
}

/// The files beneath a sandbox's mounts, read and written in this process, without a command.
///
/// Paths are the sandbox's own; a relative one begins at the workspace. What is not mounted is not there: `PATH_ESCAPE`.
/// A read-only mount refuses changes, and whoever moves or swaps directories and links meanwhile leads nobody out.
/// Pipes, sockets and devices are refused with `IO`, and so is what the system refuses; a file with a second name (a hard
/// link), which may lie outside, with `PATH_ESCAPE`. There is none on Windows.
#[napi]
pub struct SandboxFs {
    pub(super) inner: Arc<fs::SandboxFs>,
}

#[napi]
impl SandboxFs {
    /// The files that a sandbox with this policy sees, without a sandbox. `SANDBOX_POLICY` names the field that is wrong.
    #[napi(catch_unwind, ts_args_type = "policy: SandboxPolicy", ts_return_type = "Promise<SandboxFs>")]
    pub fn open<'env>(env: &'env Env, policy: Unknown<'env>) -> napi::Result<Object<'env>> {
        let text = stringify(env, policy)?.unwrap_or_default();
        let open = move || -> Result<fs::SandboxFs> {
            let text = String::from_utf8_lossy(&text);
            let plan = SandboxPolicy::from_json(&text)?.check()?;
            fs::SandboxFs::open(&plan.mounts, plan.workspace)
        };
        settle(env, Abort::never(), |_| blocking(open), |_, files| Ok(Self { inner: Arc::new(files) }))
    }

    /// What is in a file.
    #[napi(
        catch_unwind,
        ts_args_type = "path: string, options?: SandboxReadOptions",
        ts_return_type = "Promise<Buffer>"
    )]
    pub fn read_file<'env>(
        &self,
        env: &'env Env,
        path: Unknown<'env>,
        options: Option<Either<SandboxReadOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<Object<'env>> {
        self.read(env, path, options, |_, (data, _)| Ok(Buffer::from(data)))
    }

    /// As `readFile`, with the path at which it was read.
    #[napi(
        catch_unwind,
        ts_args_type = "path: string, options?: SandboxReadOptions",
        ts_return_type = "Promise<SandboxFile>"
    )]
    pub fn read_file_with_path<'env>(
        &self,
        env: &'env Env,
        path: Unknown<'env>,
        options: Option<Either<SandboxReadOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<Object<'env>> {
        self.read(env, path, options, |_, (data, path)| Ok(SandboxFile { data: Buffer::from(data), path }))
    }

    /// Writes a file: beside its place, synced, then renamed, so that a reader finds the old one or the new one. A symbolic
    /// link is followed, and its target written. An earlier file's mode stays.
    #[napi(
        catch_unwind,
        ts_args_type = "path: string, data: Uint8Array | string, options?: SandboxWriteOptions",
        ts_return_type = "Promise<void>"
    )]
    pub fn write_file<'env>(
        &self,
        env: &'env Env,
        path: Unknown<'env>,
        data: Unknown<'env>,
        options: Option<Either<SandboxWriteOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<Object<'env>> {
        let (path, data) = (name(env, "path", path)?, bytes(env, data)?);
        let (options, abort) = write_options(env, options)?;
        self.change(
            env,
            abort,
            move |files, cancel| written(files.write(&path, &data, options, cancel)?, path),
            |_, ()| Ok(()),
        )
    }

    /// Creates a file as `writeFile` does with `exclusive`, and resolves with false if it exists.
    #[napi(
        catch_unwind,
        ts_args_type = "path: string, data: Uint8Array | string, options?: SandboxWriteOptions",
        ts_return_type = "Promise<boolean>"
    )]
    pub fn create_file<'env>(
        &self,
        env: &'env Env,
        path: Unknown<'env>,
        data: Unknown<'env>,
        options: Option<Either<SandboxWriteOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<Object<'env>> {
        let (path, data) = (name(env, "path", path)?, bytes(env, data)?);
        let (options, abort) = write_options(env, options)?;
        let options = WriteOptions { exclusive: true, ..options };
        self.change(
            env,
            abort,
            move |files, cancel| files.write(&path, &data, options, cancel),
            |_, written| Ok(written != Written::Exists),
        )
    }

    /// The names in a directory, sorted, without "." and "..".
    #[napi(catch_unwind, ts_args_type = "path: string", ts_return_type = "Promise<SandboxEntry[]>")]
    pub fn read_directory<'env>(&self, env: &'env Env, path: Unknown<'env>) -> napi::Result<Object<'env>> {
        let path = name(env, "path", path)?;
        let files = Arc::clone(&self.inner);
        let list = move || {
            let entries = files.read_directory(&path)?;
            Ok(json_slices(&entries, |entry, text| {
                text.push_str(r#"{"name":"#);
                text.push_str(&serde_json::Value::from(entry.name.as_str()).to_string());
                text.push_str(if entry.is_directory {
                    r#","isDirectory":true}"#
                } else {
                    r#","isDirectory":false}"#
                });
            }))
        };
        settle(env, Abort::never(), |_| blocking(list), assemble)
    }

    /// What a path leads to; null if nothing is there.
    #[napi(catch_unwind, ts_args_type = "path: string", ts_return_type = "Promise<SandboxStat | null>")]
    pub fn stat<'env>(&self, env: &'env Env, path: Unknown<'env>) -> napi::Result<Object<'env>> {
        let path = name(env, "path", path)?;
        let files = Arc::clone(&self.inner);
        settle(
            env,
            Abort::never(),
            |_| blocking(move || files.stat(&path)),
            |_, found| {
                #[expect(clippy::cast_precision_loss, reason = "sizes fit up to 8 PiB")]
                Ok(found.map(|found| SandboxStat {
                    kind: match found.kind {
                        Kind::File => "file",
                        Kind::Directory => "directory",
                        Kind::Other => "other",
                    },
                    size: found.size as f64,
                    mtime_ms: found.modified_ms,
                }))
            },
        )
    }

    /// Makes a directory, and those on the way to it that are missing.
    #[napi(
        catch_unwind,
        ts_args_type = "path: string, options?: Pick<SandboxPathOptions, 'pinned'>",
        ts_return_type = "Promise<void>"
    )]
    pub fn mkdirp<'env>(
        &self,
        env: &'env Env,
        path: Unknown<'env>,
        options: Option<Either<SandboxPathOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<Object<'env>> {
        let path = name(env, "path", path)?;
        let pinned = checked(env, options)?.and_then(|options| options.pinned);
        let pinned = flag(env, "pinned", pinned)?.unwrap_or_default();
        self.change(env, Abort::never(), move |files, _| files.mkdirp(&path, pinned), |_, ()| Ok(()))
    }

    /// Removes a file, a symbolic link (not what it leads to), or a directory. A mount stays.
    #[napi(
        catch_unwind,
        ts_args_type = "path: string, options?: SandboxRemoveOptions",
        ts_return_type = "Promise<void>"
    )]
    pub fn remove<'env>(
        &self,
        env: &'env Env,
        path: Unknown<'env>,
        options: Option<Either<SandboxRemoveOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<Object<'env>> {
        let path = name(env, "path", path)?;
        let mut how = RemoveOptions::default();
        let mut signal = None;
        if let Some(options) = checked(env, options)? {
            how.recursive = flag(env, "recursive", options.recursive)?.unwrap_or_default();
            how.force = flag(env, "force", options.force)?.unwrap_or_default();
            how.pinned = flag(env, "pinned", options.pinned)?.unwrap_or_default();
            signal = options.signal;
        }
        let abort = Abort::from_signal(env, signal)?;
        self.change(env, abort, move |files, cancel| files.remove(&path, how, cancel), |_, ()| Ok(()))
    }

    /// Renames a file, a symbolic link or a directory. What is at `to` is replaced if the system would.
    #[napi(catch_unwind, ts_args_type = "from: string, to: string", ts_return_type = "Promise<void>")]
    pub fn rename<'env>(
        &self,
        env: &'env Env,
        from: Unknown<'env>,
        to: Unknown<'env>,
    ) -> napi::Result<Object<'env>> {
        let (from, to) = (name(env, "from", from)?, name(env, "to", to)?);
        self.change(env, Abort::never(), move |files, _| files.rename(&from, &to), |_, ()| Ok(()))
    }

    /// Copies a file, with its mode, as `writeFile` writes one.
    #[napi(
        catch_unwind,
        ts_args_type = "from: string, to: string, options?: SandboxWriteOptions",
        ts_return_type = "Promise<void>"
    )]
    pub fn copy_file<'env>(
        &self,
        env: &'env Env,
        from: Unknown<'env>,
        to: Unknown<'env>,
        options: Option<Either<SandboxWriteOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<Object<'env>> {
        let (from, to) = (name(env, "from", from)?, name(env, "to", to)?);
        let (options, abort) = write_options(env, options)?;
        self.change(
            env,
            abort,
            move |files, cancel| written(files.copy(&from, &to, options, cancel)?, to),
            |_, ()| Ok(()),
        )
    }

    /// Where a path leads, in the sandbox, without symbolic links. The end of it need not exist.
    ///
    /// It holds for as long as nobody moves anything: a call that is given it says `pinned`, and then fails rather than
    /// go elsewhere.
    #[napi(
        catch_unwind,
        ts_args_type = "path: string, options?: Pick<SandboxPathOptions, 'keepLast'>",
        ts_return_type = "Promise<string>"
    )]
    pub fn resolve_path<'env>(
        &self,
        env: &'env Env,
        path: Unknown<'env>,
        options: Option<Either<SandboxPathOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<Object<'env>> {
        let path = name(env, "path", path)?;
        let keep_last = checked(env, options)?.and_then(|options| options.keep_last);
        let keep_last = flag(env, "keepLast", keep_last)?.unwrap_or_default();
        let files = Arc::clone(&self.inner);
        settle(
            env,
            Abort::never(),
            |_| blocking(move || files.resolve(&path, keep_last)),
            |env, path| Ok(unbound(env, &string(env, &path)?)),
        )
    }

    fn read<'env, V: ToNapiValue + 'static>(
        &self,
        env: &'env Env,
        path: Unknown<'env>,
        options: Option<Either<SandboxReadOptions<'env>, Unknown<'env>>>,
        finish: fn(&Env, (Vec<u8>, String)) -> napi::Result<V>,
    ) -> napi::Result<Object<'env>> {
        let path = name(env, "path", path)?;
        let (mut max_bytes, mut signal) = (DEFAULT_MAX_BYTES, None);
        if let Some(options) = checked(env, options)? {
            max_bytes = count(env, "maxBytes", options.max_bytes, 0)?.unwrap_or(max_bytes);
            signal = options.signal;
        }
        let abort = Abort::from_signal(env, signal)?;
        let files = Arc::clone(&self.inner);
        settle(env, abort, |cancel| blocking(move || files.read(&path, max_bytes, &cancel)), finish)
    }

    fn change<'env, T: Send + 'static, V: ToNapiValue + 'static>(
        &self,
        env: &'env Env,
        abort: Abort,
        work: impl FnOnce(&fs::SandboxFs, &CancellationToken) -> Result<T> + Send + 'static,
        finish: fn(&Env, T) -> napi::Result<V>,
    ) -> napi::Result<Object<'env>> {
        let files = Arc::clone(&self.inner);
        settle_in_the_end(env, abort, |cancel| blocking(move || work(&files, &cancel)), finish)
    }
}

fn written(outcome: Written, path: String) -> Result<()> {
    match outcome {
        Written::Exists => {
            Err(CoreError::new(Code::Io, format!("cannot create {path}: it exists")).in_file(path))
        }
        Written::Created | Written::Replaced => Ok(()),
    }
}

fn write_options<'env>(
    env: &Env,
    options: Option<Either<SandboxWriteOptions<'env>, Unknown<'env>>>,
) -> napi::Result<(WriteOptions, Abort)> {
    let mut how = WriteOptions::default();
    let mut signal = None;
    if let Some(options) = checked(env, options)? {
        how.mkdir = flag(env, "mkdir", options.mkdir)?.unwrap_or_default();
        how.exclusive = flag(env, "exclusive", options.exclusive)?.unwrap_or_default();
        how.pinned = flag(env, "pinned", options.pinned)?.unwrap_or_default();
        signal = options.signal;
    }
    Ok((how, Abort::from_signal(env, signal)?))
}

/// The bytes of a `Uint8Array`, copied, or of a string as UTF-8.
fn bytes(env: &Env, data: Unknown<'_>) -> napi::Result<Vec<u8>> {
    if data.get_type()? == ValueType::String {
        return Ok(data.coerce_to_string()?.into_utf8()?.take());
    }
    if data.get_type()? == ValueType::Object
        && data.is_typedarray()?
        && let Ok(array) = Uint8ArraySlice::from_unknown(data)
    {
        return Ok(array.to_vec());
    }
    Err(reify(env, &wrong_argument("data", "a string or a Uint8Array", &data)))
}

/// The handle is used before the scope of this callback closes.
fn unbound(env: &Env, value: &JsString<'_>) -> Unknown<'static> {
    Object::from_raw(env.raw(), value.raw()).to_unknown()
}
