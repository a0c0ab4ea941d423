//! The tools there are, and the calls of them.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use indexmap::IndexMap;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::exec;
use super::output::Output;
use crate::sandbox::Sandbox;
use crate::{Code, CoreError, Result, redact};

/// What a model is told of a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// 1 to 64 letters, digits, `_` and `-`: what every provider takes.
    pub name: String,
    /// When to use it, and how.
    pub description: String,
    /// The JSON Schema of its arguments.
    pub parameters: Value,
}

/// A tool at work.
pub type Pending = Pin<Box<dyn Future<Output = Result<Output>> + Send>>;

/// Takes what a tool tells before it is done: one JSON text each time. Who tells more waits until there is room again.
pub type Update = Arc<dyn Fn(String) -> Telling + Send + Sync>;

/// Done when there is room for what was told.
pub type Telling = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a tool does.
pub trait Tool: Send + Sync {
    /// Does it. The arguments fit the schema. Dropping what this gives ends the work; so does the call's token.
    fn call(&self, call: Call) -> Pending;
}

/// A call of a tool.
pub struct Call {
    /// The call's id, as the model gave it.
    pub id: String,
    /// The arguments.
    pub arguments: Value,
    /// Cancelled when nobody waits any more, or the time is up.
    pub cancel: CancellationToken,
    /// Takes what there is to tell meanwhile.
    pub update: Option<Update>,
}

/// What a model asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// The call's id.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments, whatever they are.
    pub arguments: Value,
}

/// Bounds of every call.
#[derive(Clone, Debug)]
pub struct ToolRegistryOptions {
    /// What the built-in tools work in.
    pub sandbox: Option<Arc<Sandbox>>,
    /// How long a call may take: 2 minutes.
    pub timeout: Duration,
    /// Bytes of a result: 1 MiB.
    pub max_result_bytes: usize,
}

impl Default for ToolRegistryOptions {
    fn default() -> Self {
        Self { sandbox: None, timeout: Duration::from_mins(2), max_result_bytes: 1 << 20 }
    }
}

/// Tools by name, in the order in which they came.
pub struct ToolRegistry {
    options: ToolRegistryOptions,
    tools: Mutex<IndexMap<String, Arc<Registered>>>,
}

struct Registered {
    definition: Definition,
    schema: jsonschema::Validator,
    tool: Arc<dyn Tool>,
}

/// For a tool whose time is up to tell what it has. One that does not listen has no more of it.
const GRACE: Duration = Duration::from_secs(1);

impl ToolRegistry {
    /// A registry without tools.
    pub fn new(options: ToolRegistryOptions) -> Self {
        Self { options, tools: Mutex::default() }
    }

    /// Adds a tool. `VALIDATION` for a name that providers refuse or that is taken, and for parameters that are no schema.
    pub fn register(&self, definition: Definition, tool: Arc<dyn Tool>) -> Result<()> {
        let name = definition.name.clone();
        let wrong =
            |what: String| Err(CoreError::new(Code::Validation, format!("the tool {name:?}: {what}")));
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
            return wrong("a name is 1 to 64 letters, digits, \"_\" and \"-\"".into());
        }
        if !definition.parameters.is_object() {
            return wrong("`parameters` must be a JSON Schema, an object".into());
        }
        let schema = match jsonschema::validator_for(&definition.parameters) {
            Ok(schema) => schema,
            Err(error) => return wrong(format!("`parameters` is no JSON Schema: {error}")),
        };
        let mut tools = self.tools();
        if tools.contains_key(&name) {
            return wrong("there is one of this name: unregister it first".into());
        }
        tools.insert(name, Arc::new(Registered { definition, schema, tool }));
        Ok(())
    }

    /// Adds a tool that is built in: `exec`, `read`, `write`, `edit`, `ls`, `grep`. It works in the sandbox of the options,
    /// without which this is `VALIDATION`.
    pub fn register_builtin(&self, name: &str) -> Result<()> {
        let Some(sandbox) = &self.options.sandbox else {
            let message = format!("the built-in tool {name:?} needs a sandbox: make the registry with one");
            return Err(CoreError::new(Code::Validation, message));
        };
        if name == "exec" {
            let most = self.options.max_result_bytes;
            return self.register(exec::definition(), Arc::new(exec::Exec::new(Arc::clone(sandbox), most)));
        }
        #[cfg(unix)]
        if let Some((definition, tool)) = super::files::builtin(name, sandbox.files()) {
            return self.register(definition, tool);
        }
        let message = format!("there is no built-in tool {name:?}: exec, read, write, edit, ls, grep");
        Err(CoreError::new(Code::Validation, message))
    }

    /// Takes a tool away; whether it was there. Calls that run go on.
    pub fn unregister(&self, name: &str) -> bool {
        self.tools().shift_remove(name).is_some()
    }

    /// What there is.
    pub fn list(&self) -> Vec<Definition> {
        self.tools().values().map(|tool| tool.definition.clone()).collect()
    }

    /// Runs a call, and gives its result as a message of the conversation, one JSON text. It always gives one.
    pub async fn execute(
        &self,
        request: Request,
        cancel: &CancellationToken,
        update: Option<Update>,
    ) -> String {
        let Request { id, name, arguments } = request;
        let tool = self.tools().get(&name).cloned();
        let output = if let Some(tool) = tool {
            self.run(&tool, &id, arguments, cancel, update).await
        } else {
            let names: Vec<_> = self.tools().keys().cloned().collect();
            Output::error(format!("There is no tool {name:?}; there are: {}", names.join(", ")))
        };
        let output = if output.is_error { without_secrets(output) } else { output };
        output.within(self.options.max_result_bytes).message(&id, &name)
    }

    async fn run(
        &self,
        tool: &Registered,
        id: &str,
        arguments: Value,
        cancel: &CancellationToken,
        update: Option<Update>,
    ) -> Output {
        // What takes no arguments is often given none at all.
        let arguments =
            if arguments.is_null() { Value::Object(serde_json::Map::default()) } else { arguments };
        if let Some(violations) = violations(&tool.schema, &arguments) {
            return Output::error(format!(
                "The arguments do not fit the tool {:?}:\n{violations}",
                tool.definition.name
            ));
        }
        let stop = cancel.child_token();
        // Whatever ends this ends the tool's work.
        let _ends = stop.clone().drop_guard();
        let call = Call { id: id.to_owned(), arguments, cancel: stop.clone(), update };
        let mut work = pin!(AssertUnwindSafe(async { tool.tool.call(call).await }).catch_unwind());
        let answer = async {
            if let Ok(done) = tokio::time::timeout(self.options.timeout, &mut work).await {
                return match done {
                    Err(_) => Output::error("The tool failed inside; this is a bug in it."),
                    Ok(Err(error)) => Output::error(error.message()),
                    Ok(Ok(output)) => output,
                };
            }
            stop.cancel();
            let words = format!(
                "The tool gave no answer within {} ms, and was stopped.",
                self.options.timeout.as_millis()
            );
            let mut output = match tokio::time::timeout(GRACE, &mut work).await {
                Ok(Ok(Ok(output))) => Output { is_error: true, ..output },
                _ => Output::error(""),
            };
            output.content.insert(0, super::Content::Text(words));
            output.content.retain(|part| *part != super::Content::Text(String::new()));
            output
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Output::error("The call was aborted."),
            output = answer => output,
        }
    }

    fn tools(&self) -> MutexGuard<'_, IndexMap<String, Arc<Registered>>> {
        self.tools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every way in which the arguments do not fit, one a line.
fn violations(schema: &jsonschema::Validator, arguments: &Value) -> Option<String> {
    let mut lines: Vec<String> = Vec::new();
    for error in schema.iter_errors(arguments) {
        let at = error.instance_path().to_string();
        let at = if at.is_empty() { String::new() } else { format!("{at}: ") };
        // A value of a megabyte would be repeated.
        lines.push(format!("- {at}{}", super::output::cut(error.to_string(), 400)));
        if lines.len() == 50 {
            lines.push("- and more".into());
            break;
        }
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// Words in the name of a variable that holds a secret.
const SECRET_NAMES: [&str; 8] =
    ["KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "AUTH"];

/// An error's text, without secrets of this process's environment, and without what looks like a credential.
fn without_secrets(mut output: Output) -> Output {
    let is_secret = |name: &str| SECRET_NAMES.iter().any(|word| name.to_ascii_uppercase().contains(word));
    let secrets: Vec<String> = std::env::vars_os()
        .filter(|(name, value)| value.len() >= 6 && is_secret(&name.to_string_lossy()))
        .filter_map(|(_, value)| value.into_string().ok())
        .collect();
    for part in &mut output.content {
        let super::Content::Text(text) = part else { continue };
        for secret in &secrets {
            if text.contains(secret.as_str()) {
                *text = text.replace(secret.as_str(), "[REDACTED]");
            }
        }
        let units: Vec<u16> = text.encode_utf16().collect();
        if let Ok(std::borrow::Cow::Owned(masked)) = redact::redact(&units) {
            *text = String::from_utf16_lossy(&masked);
        }
    }
    output
}
