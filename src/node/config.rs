//! `Config`.

use std::path::Path;
use std::sync::Arc;

use napi::bindgen_prelude::{Either, Function, JsObjectValue, Object, ObjectFinalize, Unknown};
use napi::{Env, JsString, ValueType};
use napi_derive::napi;
use serde_json::json;

use super::abort::Abort;
use super::args::{checked, text};
use super::error::{guard, reify, wrong_argument};
use super::json;
use super::settle::settle;
use crate::config::json5::JsonText;
use crate::config::{self, MissingEnv, Severity};
use crate::runtime::blocking;
use crate::{Code, CoreError};

/// What to read, and how.
#[napi(object, object_to_js = false)]
pub struct ConfigOptions<'env> {
    /// Default: OpenClaw's own rule (`OPENCLAW_CONFIG_PATH`, `OPENCLAW_STATE_DIR`, `~/.openclaw/openclaw.json`,
    /// older names).
    #[napi(ts_type = "string")]
    pub path: Option<Unknown<'env>>,
    /// Default: `process.env`.
    #[napi(ts_type = "Record<string, string | undefined>")]
    pub env: Option<Unknown<'env>>,
    /// Directories beside the config's own that `$include` may reach. Default: `OPENCLAW_INCLUDE_ROOTS`.
    #[napi(ts_type = "string[]")]
    pub include_roots: Option<Unknown<'env>>,
    /// What a reference to a variable that is unset or empty means. "warn", OpenClaw's rule and the default,
    /// leaves the text and adds a warning; "error" fails with `CONFIG_ENV`.
    #[napi(ts_type = "'warn' | 'error'")]
    pub missing_env: Option<Unknown<'env>>,
    /// JSON Schema to hold the value against, as `openclaw config schema` prints it; false for none. As
    /// text it is the quickest: an object is written as text first, on this thread, in proportion to its size. Default: that of
    /// the OpenClaw at `openclaw`, if `Config.refreshSchema()` has stored it; a warning tells if not.
    #[napi(ts_type = "object | string | false")]
    pub schema: Option<Unknown<'env>>,
    /// The folder of the installed package `openclaw`. Default: the one that this process belongs to, or that Node
    /// would find from the working directory, if any.
    #[napi(ts_type = "string")]
    pub openclaw: Option<Unknown<'env>>,
    /// Aborts the call.
    #[napi(ts_type = "AbortSignal")]
    pub signal: Option<Unknown<'env>>,
}

/// Something wrong with a config.
#[napi(object, object_from_js = false)]
pub struct ConfigIssue<'env> {
    /// How bad it is: OpenClaw does not start with an error.
    #[napi(ts_type = "'error' | 'warning'")]
    pub severity: &'static str,
    /// The config path; empty for the config as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// The file in which the value, or the object that lacks it, was written.
    pub file: Option<String>,
    /// 1-based.
    pub line: Option<u32>,
    /// 1-based, in UTF-16 code units.
    pub column: Option<u32>,
    /// The values that would be right, where they can be listed.
    #[napi(ts_type = "unknown[]")]
    pub allowed_values: Option<Unknown<'env>>,
}

/// Where a value came from.
#[napi(object, object_from_js = false)]
pub struct ConfigExplanation {
    /// The file in which it was written.
    pub file: String,
    /// 1-based.
    pub line: u32,
    /// 1-based, in UTF-16 code units.
    pub column: u32,
    /// The kind of file it came from, then "env" if its text refers to the environment.
    #[napi(ts_type = "Array<'root' | 'include' | 'env'>")]
    pub via: Vec<&'static str>,
    /// The first environment variable that went into it.
    pub env: Option<String>,
}

/// An OpenClaw config that was read: its value after `$include` and `${ENV}`, where each part of it was written,
/// and what is wrong with it.
#[napi(custom_finalize)]
pub struct Config {
    pub(super) inner: Arc<config::Config>,
}

#[napi]
impl Config {
    /// Reads the config.
    #[napi(catch_unwind, ts_args_type = "options?: ConfigOptions", ts_return_type = "Promise<Config>")]
    pub fn load<'env>(
        env: &'env Env,
        options: Option<Either<ConfigOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<Object<'env>> {
        let options = checked(env, options)?;
        let signal = options.as_ref().and_then(|options| options.signal);
        let options = read_options(env, options)?;
        let abort = Abort::from_signal(env, signal)?;
        settle(
            env,
            abort,
            |_| blocking(|| config::Config::load(options)),
            |env, config| Self::hold(env, Arc::new(config)),
        )
    }

    /// Reads the config on the calling thread, for callers that cannot wait.
    #[napi(catch_unwind, ts_args_type = "options?: ConfigOptions")]
    pub fn load_sync(
        env: &Env,
        options: Option<Either<ConfigOptions<'_>, Unknown<'_>>>,
    ) -> napi::Result<Self> {
        let options = read_options(env, checked(env, options)?)?;
        guard(env, || config::Config::load(options)).and_then(|config| Self::hold(env, Arc::new(config)))
    }

    /// Has the installed OpenClaw print the schema of its config, plugins included, and stores it, mode 0600, below
    /// its state folder, for every `load` until OpenClaw or its plugins change. Runs `node` (default: this one) for
    /// some seconds. Fails with `CONFIG_NOT_FOUND` if there is no OpenClaw.
    #[napi(
        catch_unwind,
        ts_args_type = "options?: ConfigOptions, node?: string",
        ts_return_type = "Promise<void>"
    )]
    pub fn refresh_schema<'env>(
        env: &'env Env,
        options: Option<Either<ConfigOptions<'env>, Unknown<'env>>>,
        node: Option<Unknown<'env>>,
    ) -> napi::Result<Object<'env>> {
        let options = checked(env, options)?;
        let signal = options.as_ref().and_then(|options| options.signal);
        let options = read_options(env, options)?;
        let node = match node {
            Some(node) => text(env, "node", node)?,
            None => process_text(env, "execPath")?.unwrap_or_else(|| "node".into()),
        };
        let abort = Abort::from_signal(env, signal)?;
        let refresh = move || config::Config::refresh_schema(options, Path::new(&node));
        settle(env, abort, |_| blocking(refresh), |_, ()| Ok(()))
    }

    /// The config file.
    #[napi(catch_unwind, getter)]
    pub fn path(&self) -> String {
        display(self.inner.path())
    }

    /// Every file that was read, the config first.
    #[napi(catch_unwind, getter)]
    pub fn files(&self) -> Vec<String> {
        self.inner.files().into_iter().map(display).collect()
    }

    /// OpenClaw's own: SHA-256 of the config's text and, for each include, its path, target and hash.
    #[napi(catch_unwind, getter)]
    pub fn revision(&self) -> &str {
        self.inner.revision()
    }

    /// After `$include` and `${ENV}`. A fresh value at each read.
    #[napi(catch_unwind, getter, ts_return_type = "unknown")]
    pub fn value<'env>(&self, env: &'env Env) -> napi::Result<Unknown<'env>> {
        data(env, || self.inner.value())
    }

    /// As authored: `$include` and `${ENV}` untouched. A fresh value at each read.
    #[napi(catch_unwind, getter, ts_return_type = "unknown")]
    pub fn source<'env>(&self, env: &'env Env) -> napi::Result<Unknown<'env>> {
        data(env, || self.inner.source())
    }

    /// What is wrong with the config.
    #[napi(catch_unwind, getter, ts_return_type = "ConfigIssue[]")]
    pub fn issues<'env>(&self, env: &'env Env) -> napi::Result<Vec<ConfigIssue<'env>>> {
        self.inner.issues().iter().map(|issue| convert_issue(env, issue)).collect()
    }

    /// The value at a path such as `agents.list[0].id` or `models["a.b"]`; undefined if there is none.
    #[napi(catch_unwind, ts_args_type = "path: string", ts_return_type = "unknown")]
    pub fn get<'env>(&self, env: &'env Env, path: Unknown<'env>) -> napi::Result<Either<Unknown<'env>, ()>> {
        let path = text(env, "path", path)?;
        Ok(match guard(env, || self.inner.get(&path))? {
            Some(found) => Either::A(json::parse(env, &found)?),
            None => Either::B(()),
        })
    }

    /// Where the value at a path came from: its file and position, and through which kind of file or environment
    /// variable; null if there is none.
    #[napi(catch_unwind, ts_args_type = "path: string")]
    pub fn explain(&self, env: &Env, path: Unknown<'_>) -> napi::Result<Option<ConfigExplanation>> {
        let path = text(env, "path", path)?;
        let found = guard(env, || self.inner.explain(&path))?;
        Ok(found.map(|found| ConfigExplanation {
            file: display(&found.place.file),
            line: found.place.line,
            column: found.place.column,
            via: found.via.into_iter().map(config::Via::as_str).collect(),
            env: found.env,
        }))
    }

    /// The value with every secret replaced by OpenClaw's mark. A fresh value at each call.
    #[napi(catch_unwind, ts_return_type = "unknown")]
    pub fn redacted<'env>(&self, env: &'env Env) -> napi::Result<Unknown<'env>> {
        data(env, || self.inner.redacted())
    }
}

impl Config {
    /// V8 is told what the config holds outside of its heap, or it would see no reason to collect it.
    pub(super) fn hold(env: &Env, inner: Arc<config::Config>) -> napi::Result<Self> {
        env.adjust_external_memory(external_bytes(&inner))?;
        Ok(Self { inner })
    }
}

impl ObjectFinalize for Config {
    fn finalize(self, env: Env) -> napi::Result<()> {
        env.adjust_external_memory(-external_bytes(&self.inner)).map(|_| ())
    }
}

fn external_bytes(config: &config::Config) -> i64 {
    i64::try_from(config.approximate_bytes()).unwrap_or(i64::MAX)
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

fn data(env: &Env, make: impl FnOnce() -> crate::Result<JsonText>) -> napi::Result<Unknown<'_>> {
    json::parse(env, &guard(env, make)?)
}

fn convert_issue<'env>(env: &'env Env, issue: &config::Issue) -> napi::Result<ConfigIssue<'env>> {
    let allowed_values = issue
        .allowed_values
        .as_ref()
        .map(|values| json::parse(env, &JsonText { text: json!(values).to_string(), nan: None }));
    let place = issue.place.as_ref();
    Ok(ConfigIssue {
        severity: match issue.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        path: issue.path.clone(),
        message: issue.message.clone(),
        file: place.map(|place| display(&place.file)),
        line: place.map(|place| place.line),
        column: place.map(|place| place.column),
        allowed_values: allowed_values.transpose()?,
    })
}

fn read_options(env: &Env, options: Option<ConfigOptions<'_>>) -> napi::Result<config::ConfigOptions> {
    let mut read = config::ConfigOptions { env: process_env(env)?, ..Default::default() };
    let Some(options) = options else {
        read.schema = schema_source(env, None, None)?;
        return Ok(read);
    };
    if let Some(path) = options.path {
        read.path = Some(text(env, "path", path)?);
    }
    if let Some(vars) = options.env {
        read.env = Some(variables(env, &vars)?);
    }
    if let Some(roots) = options.include_roots {
        let wrong = || reify(env, &wrong_argument("includeRoots", "an array of strings", &roots));
        read.include_roots = Some(serde_json::from_str(&stringify(env, &roots)?).map_err(|_| wrong())?);
    }
    read.schema = schema_source(env, options.schema, options.openclaw)?;
    if let Some(missing) = options.missing_env {
        read.missing_env = match text(env, "missingEnv", missing)?.as_str() {
            "warn" => MissingEnv::Warn,
            "error" => MissingEnv::Error,
            other => {
                let message = format!("`missingEnv` must be \"warn\" or \"error\", not \"{other}\"");
                return Err(reify(env, &CoreError::new(Code::Validation, message)));
            }
        };
    }
    Ok(read)
}

fn schema_source(
    env: &Env,
    schema: Option<Unknown<'_>>,
    openclaw: Option<Unknown<'_>>,
) -> napi::Result<config::SchemaSource> {
    if let Some(schema) = schema {
        return match schema.get_type()? {
            ValueType::Boolean => Ok(config::SchemaSource::None),
            ValueType::Object => Ok(config::SchemaSource::Text(stringify(env, &schema)?.into())),
            ValueType::String => Ok(config::SchemaSource::Text(text(env, "schema", schema)?.into())),
            _ => Err(reify(env, &wrong_argument("schema", "an object, its JSON text, or false", &schema))),
        };
    }
    if let Some(package) = openclaw {
        return Ok(config::SchemaSource::At(text(env, "openclaw", package)?.into()));
    }
    // The OpenClaw whose script this process runs, else the one in or above the working directory.
    let argv = process(env)?.map(|process| process.get::<Vec<String>>("argv")).transpose()?.flatten();
    let script = argv.and_then(|argv| argv.into_iter().nth(1)).map(Into::into);
    Ok(config::SchemaSource::Near(script.into_iter().chain(std::env::current_dir()).collect()))
}

fn process(env: &Env) -> napi::Result<Option<Object<'_>>> {
    let global = env.get_global()?;
    global.has_named_property("process")?.then(|| global.get_named_property("process")).transpose()
}

fn process_text(env: &Env, name: &str) -> napi::Result<Option<String>> {
    Ok(process(env)?.map(|process| process.get::<String>(name)).transpose()?.flatten())
}

/// `process.env`, which in a worker thread is not that of the process.
fn process_env(env: &Env) -> napi::Result<Option<config::Env>> {
    let vars = process(env)?.map(|process| process.get::<Unknown<'_>>("env")).transpose()?.flatten();
    vars.map(|vars| variables(env, &vars)).transpose()
}

/// Variables cross as one text; those that are undefined fall out on the way.
fn variables(env: &Env, vars: &Unknown<'_>) -> napi::Result<config::Env> {
    let vars: Result<std::collections::BTreeMap<String, String>, _> =
        serde_json::from_str(&stringify(env, vars)?);
    vars.map(|vars| vars.into_iter().collect())
        .map_err(|_| reify(env, &CoreError::new(Code::Validation, "`env` must be an object of strings")))
}

/// `JSON.stringify(value)`, with nothing for what JSON cannot say.
fn stringify(env: &Env, value: &Unknown<'_>) -> napi::Result<String> {
    let stringify: Function<'_, Unknown<'_>, Option<JsString<'_>>> =
        env.get_global()?.get_named_property::<Object<'_>>("JSON")?.get_named_property("stringify")?;
    stringify.call(*value)?.map_or_else(|| Ok(String::new()), |text| text.into_utf8()?.into_owned())
}
