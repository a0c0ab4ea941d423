//! `ToolRegistry`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use napi::bindgen_prelude::{
    ClassInstance, Either, FnArgs, FromNapiValue, Function, FunctionRef, JsValue, Null, Object, Unknown,
};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, Status, ValueType};
use napi_derive::napi;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot};

use super::abort::Abort;
use super::args::{checked, count, name, stringify};
use super::error::{guard, reify, wrong_argument};
use super::json::{parse_plain, string};
use super::sandbox::Sandbox;
use super::script::call;
use super::settle::{rejecting, settle};
use crate::memory::{Owner, owned};
use crate::tools::{self, Call, Content, Definition, Output, Pending, Request, ToolRegistryOptions, Update};
use crate::{Code, CoreError};

/// What a model is told of a tool.
#[napi(object)]
#[allow(dead_code, reason = "declares the type; tools cross as JSON")]
pub struct Tool<'env> {
    /// 1 to 64 letters, digits, "_" and "-": what every provider takes.
    pub name: String,
    /// When to use it, and how.
    pub description: String,
    /// The JSON Schema of its arguments.
    #[napi(ts_type = "object")]
    pub parameters: Object<'env>,
}

/// What the calls of a registry work in, and their bounds.
#[napi(object, object_to_js = false)]
pub struct ToolRegistryConfig<'env> {
    /// What the built-in tools work in.
    #[napi(ts_type = "Sandbox")]
    pub sandbox: Option<Unknown<'env>>,
    /// How long a call may take, in milliseconds: 120,000 by default.
    #[napi(ts_type = "number")]
    pub timeout_ms: Option<Unknown<'env>>,
    /// Bytes of a result, from 1,024 on: 1 MiB by default. Of a longer text, head and tail stay.
    #[napi(ts_type = "number")]
    pub max_result_bytes: Option<Unknown<'env>>,
}

/// A call of a tool, as a model asks for it.
#[napi(object, object_to_js = false)]
#[allow(dead_code, reason = "declares the type; calls cross as JSON")]
pub struct ToolRequest<'env> {
    /// The call's id.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments, whatever they are.
    #[napi(ts_type = "unknown")]
    pub arguments: Unknown<'env>,
}

/// What a call is given.
#[napi(object, object_to_js = false)]
pub struct ExecuteOptions<'env> {
    /// Aborts the call: the handler's signal fires, commands are killed, and the promise rejects with the reason.
    #[napi(ts_type = "AbortSignal")]
    pub signal: Option<Unknown<'env>>,
    /// Called with what the tool tells meanwhile. `exec`: `{ stream: "stdout" | "stderr", text }`, for each piece of output.
    #[napi(ts_type = "(partial: unknown) => void")]
    pub on_update: Option<Unknown<'env>>,
}

/// What is in a result: a text, or an image in base64.
#[napi(object, object_from_js = false)]
#[allow(dead_code, reason = "declares the type; results cross as JSON")]
pub struct ToolContent {
    /// Which of the two.
    #[napi(js_name = "type", ts_type = "'text' | 'image'")]
    pub kind: String,
    /// The text.
    pub text: Option<String>,
    /// The image, in base64.
    pub data: Option<String>,
    /// Such as "image/png".
    pub mime_type: Option<String>,
}

/// The result of a call, as a message of the conversation.
#[napi(object, object_from_js = false)]
#[allow(dead_code, reason = "declares the type; results cross as JSON")]
pub struct ToolResult<'env> {
    /// What kind of message it is.
    #[napi(ts_type = "'toolResult'")]
    pub role: String,
    /// The call's id.
    pub tool_call_id: String,
    /// The tool's name.
    pub tool_name: String,
    /// What the model gets to see.
    #[napi(
        ts_type = "({ type: 'text'; text: string } | { type: 'image'; data: string; mimeType: string })[]"
    )]
    pub content: Vec<ToolContent>,
    /// Whether the tool could not do what it was asked for.
    pub is_error: bool,
    /// What else there is to know, such as the `exitCode` of `exec`.
    #[napi(ts_type = "Record<string, unknown>")]
    pub details: Option<Object<'env>>,
}

/// Tools that a model calls: arguments are held against a schema, time and size are bounded, and every call has a result.
///
/// What goes wrong in a tool is a result with `isError`, for the model to read: arguments that do not fit (every
/// violation is listed), a handler that throws, hangs or returns nonsense, a tool that is not there. Credentials and
/// secrets of the environment are masked in it.
#[napi]
pub struct ToolRegistry {
    inner: Arc<tools::ToolRegistry>,
}

#[napi]
impl ToolRegistry {
    /// A registry without tools.
    #[napi(catch_unwind, constructor, ts_args_type = "options?: ToolRegistryConfig")]
    pub fn new(
        env: &Env,
        options: Option<Either<ToolRegistryConfig<'_>, Unknown<'_>>>,
    ) -> napi::Result<Self> {
        let mut bounds = ToolRegistryOptions::default();
        if let Some(options) = checked(env, options)? {
            if let Some(sandbox) = options.sandbox {
                let wrong = wrong_argument("sandbox", "a Sandbox", &sandbox);
                let sandbox =
                    ClassInstance::<'_, Sandbox>::from_unknown(sandbox).map_err(|_| reify(env, &wrong))?;
                bounds.sandbox = Some(Arc::clone(&sandbox.inner));
            }
            if let Some(ms) = count(env, "timeoutMs", options.timeout_ms, 1)? {
                bounds.timeout = Duration::from_millis(ms);
            }
            if let Some(bytes) = count(env, "maxResultBytes", options.max_result_bytes, 1024)? {
                bounds.max_result_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            }
        }
        Ok(Self { inner: Arc::new(tools::ToolRegistry::new(bounds)) })
    }

    /// Adds a tool. Its handler gets arguments that fit the schema; what it returns, or resolves with, is the result: a
    /// string, an object with `content` (and `details`, `isError`), or any other JSON.
    ///
    /// Throws `VALIDATION` for a name that providers refuse or that is taken, and for parameters that are no JSON Schema.
    #[napi(
        catch_unwind,
        ts_args_type = "tool: Tool, handler: (args: unknown, ctx: { signal: AbortSignal; toolCallId: string }) => unknown"
    )]
    pub fn register(&self, env: &Env, tool: Unknown<'_>, handler: Unknown<'_>) -> napi::Result<()> {
        let given: Value = json_argument(env, "tool", tool)?;
        let text = |name: &str| given.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
        let missing =
            |what: &str| reify(env, &CoreError::new(Code::Validation, format!("`tool` has no `{what}`")));
        let definition = Definition {
            name: text("name").ok_or_else(|| missing("name"))?,
            description: text("description").ok_or_else(|| missing("description"))?,
            parameters: given.get("parameters").cloned().ok_or_else(|| missing("parameters"))?,
        };
        if handler.get_type()? != ValueType::Function {
            return Err(reify(env, &wrong_argument("handler", "a function", &handler)));
        }
        let handler = Handler::new(env, handler)?;
        guard(env, || self.inner.register(definition, Arc::new(handler)))
    }

    /// Adds tools that are built in and work in the registry's sandbox: "exec" (a command for the shell), "read", "write",
    /// "edit", "ls", "grep". Throws `VALIDATION` without a sandbox; there is only "exec" on Windows.
    #[napi(catch_unwind, ts_args_type = "...names: string[]")]
    #[allow(clippy::too_many_arguments, reason = "as many as there are, and one that is then wrong")]
    pub fn register_builtin(
        &self,
        env: &Env,
        first: Option<Unknown<'_>>,
        second: Option<Unknown<'_>>,
        third: Option<Unknown<'_>>,
        fourth: Option<Unknown<'_>>,
        fifth: Option<Unknown<'_>>,
        sixth: Option<Unknown<'_>>,
        one_too_many: Option<Unknown<'_>>,
    ) -> napi::Result<()> {
        for given in [first, second, third, fourth, fifth, sixth, one_too_many].into_iter().flatten() {
            let given = name(env, "names", given)?;
            guard(env, || self.inner.register_builtin(&given))?;
        }
        Ok(())
    }

    /// Takes a tool away; whether it was there. Calls that run go on.
    #[napi(catch_unwind, ts_args_type = "name: string")]
    pub fn unregister(&self, env: &Env, tool: Unknown<'_>) -> napi::Result<bool> {
        Ok(self.inner.unregister(&name(env, "name", tool)?))
    }

    /// The tools there are, in the order in which they came: what to tell a model.
    #[napi(catch_unwind, ts_return_type = "Tool[]")]
    pub fn list<'env>(&self, env: &'env Env) -> napi::Result<Unknown<'env>> {
        let tools = self.inner.list().into_iter().map(|tool| {
            json!({ "name": tool.name, "description": tool.description, "parameters": tool.parameters })
        });
        parse_plain(env, &tools.collect::<Value>().to_string())
    }

    /// Runs a call, and resolves with its result, whatever goes wrong in the tool.
    #[napi(
        catch_unwind,
        ts_args_type = "call: ToolRequest, options?: ExecuteOptions",
        ts_return_type = "Promise<ToolResult>"
    )]
    pub fn execute<'env>(
        &self,
        env: &'env Env,
        request: Unknown<'env>,
        options: Option<Either<ExecuteOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<Object<'env>> {
        rejecting(env, || {
            let given = json_argument(env, "call", request)?;
            let text = |name: &str| {
                let text = given.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
                text.ok_or_else(|| {
                    reify(env, &CoreError::new(Code::Validation, format!("`call` has no `{name}`, a string")))
                })
            };
            let arguments = given.get("arguments").cloned().unwrap_or_default();
            let request = Request { id: text("id")?, name: text("name")?, arguments };
            let (mut abort, mut update) = (Abort::never(), None);
            if let Some(options) = checked(env, options)? {
                update = options.on_update.map(|listener| updates(env, listener)).transpose()?;
                abort = Abort::from_signal(env, options.signal)?;
            }
            let registry = Arc::clone(&self.inner);
            settle(
                env,
                abort,
                |cancel| {
                    owned(Owner::Sandbox, async move { Ok(registry.execute(request, &cancel, update).await) })
                },
                |env, result| {
                    let result = parse_plain(env, &result)?;
                    Ok(Object::from_raw(env.raw(), result.raw()).to_unknown())
                },
            )
        })
    }
}

fn json_argument(env: &Env, name: &str, value: Unknown<'_>) -> napi::Result<Value> {
    if value.get_type()? != ValueType::Object {
        return Err(reify(env, &wrong_argument(name, "an object", &value)));
    }
    let text = stringify(env, value)?.unwrap_or_default();
    let parsed = serde_json::from_slice(&text);
    parsed.map_err(|error| {
        reify(env, &CoreError::new(Code::Validation, format!("`{name}` is no JSON: {error}")))
    })
}

/// Wakes the JS thread: what there is to do waits in a queue.
type Wake = ThreadsafeFunction<(), (), (), Status, false, true>;

fn wake(work: Function<'_, (), ()>) -> napi::Result<Wake> {
    work.build_threadsafe_function::<()>()
        .error_status::<Status>()
        .callee_handled::<false>()
        .weak::<true>()
        .build_callback(|_| Ok(()))
}

/// Updates that were told and not handed over yet. While there are so many, who tells waits.
const WAITING: usize = 16;

/// Hands each text, parsed, to `onUpdate`. What that throws is lost: the call does not depend on it.
fn updates(env: &Env, listener: Unknown<'_>) -> napi::Result<Update> {
    if listener.get_type()? != ValueType::Function {
        return Err(reify(env, &wrong_argument("onUpdate", "a function", &listener)));
    }
    let listener = Function::<Unknown<'_>, Unknown<'_>>::from_unknown(listener)?.create_ref()?;
    let queue: Arc<Mutex<VecDeque<String>>> = Arc::default();
    let room = Arc::new(Semaphore::new(WAITING));
    let (waiting, freed) = (Arc::clone(&queue), Arc::clone(&room));
    let deliver = env.create_function_from_closure::<(), (), _>("onUpdate", move |call| {
        loop {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(text) = next else { return Ok(()) };
            freed.add_permits(1);
            let partial = parse_plain(call.env, &text)?;
            let partial = Object::from_raw(call.env.raw(), partial.raw()).to_unknown();
            _ = listener.borrow_back(call.env)?.call(partial);
        }
    })?;
    let wake = Arc::new(wake(deliver)?);
    Ok(Arc::new(move |text| {
        let (queue, room, wake) = (Arc::clone(&queue), Arc::clone(&room), Arc::clone(&wake));
        Box::pin(async move {
            let Ok(permit) = room.acquire().await else { return };
            permit.forget();
            queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(text);
            wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
        })
    }))
}

/// A handler's answer: whether it gave one, and that as JSON, or what it threw.
type Answer = (bool, String);

/// What waits for the JS thread.
enum Task {
    Call { number: u64, id: String, arguments: String, answer: oneshot::Sender<Answer> },
    Abort { number: u64 },
}

/// A tool that is written in JavaScript.
struct Handler {
    queue: Arc<Mutex<VecDeque<Task>>>,
    wake: Arc<Wake>,
    calls: AtomicU64,
}

type Caller = FunctionRef<
    FnArgs<(f64, Unknown<'static>, Unknown<'static>, Either<Unknown<'static>, Null>)>,
    Unknown<'static>,
>;

impl Handler {
    fn new(env: &Env, handler: Unknown<'_>) -> napi::Result<Self> {
        let handler = Object::from_raw(env.raw(), handler.raw());
        let caller: Function<'_, _, Unknown<'static>> = call(env, "toolCaller", FnArgs::from((handler,)))?;
        let caller: Caller = caller.create_ref()?;
        let queue: Arc<Mutex<VecDeque<Task>>> = Arc::default();
        let waiting = Arc::clone(&queue);
        let work = env.create_function_from_closure::<(), (), _>("callTool", move |call| {
            loop {
                let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(task) = next else { return Ok(()) };
                begin(call.env, &caller, task)?;
            }
        })?;
        Ok(Self { queue, wake: Arc::new(wake(work)?), calls: AtomicU64::new(0) })
    }
}

#[expect(clippy::cast_precision_loss, reason = "nobody calls a tool so often")]
fn begin(env: &Env, caller: &Caller, task: Task) -> napi::Result<()> {
    let unbound = |value: napi::sys::napi_value| Object::from_raw(env.raw(), value).to_unknown();
    let caller = caller.borrow_back(env)?;
    let arguments = match task {
        Task::Call { number, id, arguments, answer } => {
            let answer = Mutex::new(Some(answer));
            let answer =
                env.create_function_from_closure::<FnArgs<(bool, String)>, (), _>("answer", move |call| {
                    let (ok, text) = (call.get::<bool>(0)?, call.get::<String>(1)?);
                    if let Some(answer) = answer.lock().unwrap_or_else(PoisonError::into_inner).take() {
                        // Nobody may wait any more.
                        _ = answer.send((ok, text));
                    }
                    Ok(())
                })?;
            let (id, arguments) = (string(env, &id)?, string(env, &arguments)?);
            (number as f64, unbound(id.raw()), unbound(arguments.raw()), Either::A(unbound(answer.raw())))
        }
        Task::Abort { number } => {
            let none = string(env, "")?;
            (number as f64, unbound(none.raw()), unbound(none.raw()), Either::B(Null))
        }
    };
    caller.call(arguments.into())?;
    Ok(())
}

/// Aborts the handler's call when nobody waits for it any more.
struct AbortAtEnd {
    number: u64,
    queue: Arc<Mutex<VecDeque<Task>>>,
    wake: Arc<Wake>,
}

impl Drop for AbortAtEnd {
    fn drop(&mut self) {
        push(&self.queue, &self.wake, Task::Abort { number: self.number });
    }
}

fn push(queue: &Mutex<VecDeque<Task>>, wake: &Wake, task: Task) {
    queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(task);
    wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
}

impl tools::Tool for Handler {
    fn call(&self, call: Call) -> Pending {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let task = Task::Call { number, id: call.id, arguments: call.arguments.to_string(), answer };
        push(&self.queue, &self.wake, task);
        let ends = AbortAtEnd { number, queue: Arc::clone(&self.queue), wake: Arc::clone(&self.wake) };
        Box::pin(async move {
            let _ends = ends;
            match answered.await {
                Ok((true, text)) => Ok(read_result(&text)),
                Ok((false, text)) => Ok(Output::error(text)),
                Err(_) => Ok(Output::error("The tool's handler is gone.")),
            }
        })
    }
}

/// What a handler returned: a string, content, or any other JSON.
fn read_result(text: &str) -> Output {
    let Ok(value) = serde_json::from_str::<Value>(text) else {
        return Output::error("The tool returned what is no JSON.");
    };
    match &value {
        Value::Null => Output::text(""),
        Value::String(text) => Output::text(text.as_str()),
        Value::Object(object) if object.contains_key("content") => read_content(&value),
        _ => Output::text(value.to_string()),
    }
}

fn read_content(value: &Value) -> Output {
    let nonsense = || Output::error("The tool returned a `content` that is no list of texts and images.");
    let content = match value.get("content") {
        Some(Value::String(text)) => vec![Content::Text(text.clone())],
        Some(Value::Array(parts)) => {
            let text =
                |part: &Value, name: &str| part.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
            let parts = parts.iter().map(|part| match part.get("type").and_then(Value::as_str) {
                Some("text") => text(part, "text").map(Content::Text),
                Some("image") => {
                    Some(Content::Image { data: text(part, "data")?, mime_type: text(part, "mimeType")? })
                }
                _ => None,
            });
            let Some(parts) = parts.collect::<Option<Vec<_>>>() else { return nonsense() };
            parts
        }
        _ => return nonsense(),
    };
    let is_error = value.get("isError").and_then(Value::as_bool).unwrap_or(false);
    Output { content, details: value.get("details").cloned(), is_error }
}
