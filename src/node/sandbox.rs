//! `Sandbox`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use napi::bindgen_prelude::{
    Buffer, Either, FnArgs, Function, FunctionRef, Null, Object, Uint8Array, Unknown,
};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, JsValue, Status, ValueType};
use napi_derive::napi;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::abort::Abort;
use super::args::{checked, flag, name, stringify};
use super::error::{guard, reify, wrong_argument};
use super::json::parse_plain;
use super::settle::{rejecting, settle, settle_in_the_end};
use crate::memory::{Owner, owned};
use crate::sandbox::{self, Command, OutputStream, TimedOut, read_env};
use crate::{Code, CoreError, Result};

/// A file or folder, and where a sandbox sees it.
#[allow(dead_code, reason = "declares the type; policies cross as one JSON text")]
#[napi(object, object_to_js = false)]
pub struct SandboxMount {
    /// An absolute path of this machine.
    pub host: String,
    /// An absolute path in the sandbox.
    pub mount: String,
    /// Whether it may be written.
    #[napi(ts_type = "'ro' | 'rw'")]
    pub access: String,
}

/// The folder that a sandbox is for.
#[allow(dead_code, reason = "declares the type; policies cross as one JSON text")]
#[napi(object, object_to_js = false)]
pub struct SandboxWorkspace {
    /// An absolute path of this machine. Not looked at with the access `none`.
    pub host: String,
    /// Where the sandbox sees it: `/workspace` by default, and with the backend `landlock` always `host`.
    pub mount: Option<String>,
    /// With `none`, an empty folder stands there.
    #[napi(ts_type = "'none' | 'ro' | 'rw'")]
    pub access: String,
}

/// Bounds of one command.
#[allow(dead_code, reason = "declares the type; policies cross as one JSON text")]
#[napi(object, object_to_js = false)]
pub struct SandboxLimits {
    /// Bytes of memory of all its processes: 2 GiB by default. Without a cgroup it binds each process by itself.
    pub memory_bytes: Option<f64>,
    /// Processes and threads at once: 512 by default.
    pub pids: Option<f64>,
    /// Seconds of CPU time of each process: unbounded by default.
    pub cpu_seconds: Option<f64>,
    /// Milliseconds from start to end: 600,000 by default.
    pub wall_ms: Option<f64>,
    /// Milliseconds without output: unbounded by default.
    pub idle_ms: Option<f64>,
    /// Bytes of each output stream that are kept, the first and the last half: 1 MiB by default. `onOutput` gets all.
    pub output_bytes: Option<f64>,
    /// Bytes of a file, and of `/tmp`: 1 GiB by default.
    pub file_bytes: Option<f64>,
}

/// What a sandbox may do. Fields that are not known are refused.
#[allow(dead_code, reason = "declares the type; policies cross as one JSON text")]
#[napi(object, object_to_js = false)]
pub struct SandboxPolicy {
    /// The folder that it is for.
    pub workspace: SandboxWorkspace,
    /// What else it sees. `/`, `/proc`, `/run`, `/etc`, a whole home, keys in it, OpenClaw's state directory (but its
    /// workspaces), sockets and devices are refused.
    pub mounts: Option<Vec<SandboxMount>>,
    /// `none`, the default: no route, no DNS, no service of this machine. `host`: this machine's, loopback included.
    #[napi(ts_type = "'none' | 'host'")]
    pub network: Option<String>,
    /// Variables of every command.
    pub env: Option<BTreeMap<String, String>>,
    /// Bounds of each command.
    pub limits: Option<SandboxLimits>,
    /// What enforces it: `auto`, the default, takes the strongest that works. `jobobject`, on Windows, is taken only by its
    /// name: it keeps commands neither from reading files nor from the network.
    #[napi(ts_type = "'auto' | 'bwrap' | 'landlock' | 'seatbelt' | 'jobobject'")]
    pub backend: Option<String>,
}

/// What a command is given.
#[napi(object, object_to_js = false)]
pub struct RunOptions<'env> {
    /// What it reads; nothing by default.
    #[napi(ts_type = "Uint8Array")]
    pub stdin: Option<Unknown<'env>>,
    /// Where it starts, in the sandbox; the workspace by default.
    #[napi(ts_type = "string")]
    pub cwd: Option<Unknown<'env>>,
    /// Variables beside those of the policy, and before them. Nothing of this process's environment is passed on.
    #[napi(ts_type = "Record<string, string>")]
    pub env: Option<Unknown<'env>>,
    /// Gives it a terminal of its own, of 80 columns and 24 lines; all output is then on stdout.
    #[napi(ts_type = "boolean")]
    pub pty: Option<Unknown<'env>>,
    /// Kills it, and all it started.
    #[napi(ts_type = "AbortSignal")]
    pub signal: Option<Unknown<'env>>,
    /// Gets output as it comes. While it is not called, the command waits; if it throws, the command is killed.
    #[napi(ts_type = "(chunk: Buffer, stream: 'stdout' | 'stderr') => void")]
    pub on_output: Option<Unknown<'env>>,
}

/// What a command is given that somebody else starts.
#[napi(object, object_to_js = false)]
pub struct LaunchOptions<'env> {
    /// Where it starts, in the sandbox; the workspace by default.
    #[napi(ts_type = "string")]
    pub cwd: Option<Unknown<'env>>,
    /// Variables beside those of the policy, and before them.
    #[napi(ts_type = "Record<string, string>")]
    pub env: Option<Unknown<'env>>,
    /// Gives it a terminal of its own.
    #[napi(ts_type = "boolean")]
    pub pty: Option<Unknown<'env>>,
}

/// How a command ended, and what it used.
#[napi(object, object_from_js = false)]
pub struct ProcessResult {
    /// Null if a signal ended it.
    pub exit_code: Either<i32, Null>,
    /// The signal that ended it, such as `SIGKILL`.
    pub signal: Option<String>,
    /// At most `outputBytes`: where more came, its first and its last half.
    pub stdout: Buffer,
    /// The same of standard error.
    pub stderr: Buffer,
    /// Which limit on time ended it.
    #[napi(ts_type = "'wall' | 'idle'")]
    pub timed_out: Option<String>,
    /// Whether output is missing from the middle.
    pub truncated: bool,
    /// How many bytes of output are missing.
    pub dropped_bytes: f64,
    /// From start to end, in milliseconds.
    pub wall_ms: f64,
    /// CPU time of all its processes, in milliseconds.
    pub cpu_ms: f64,
    /// The most memory it had, in bytes: of all its processes where a cgroup counts it, else of the largest of them.
    pub peak_memory_bytes: f64,
}

/// What a supervisor of the caller's own must exec.
#[napi(object, object_from_js = false)]
pub struct SandboxLaunch {
    /// The program and its arguments, without a secret.
    pub argv: Vec<String>,
    /// The whole environment to start it with.
    pub env: BTreeMap<String, String>,
}

/// One primitive, and whether it works here.
#[napi(object, object_from_js = false)]
pub struct SandboxCheck {
    /// Its name, such as `bwrap/user-namespaces`.
    pub name: String,
    /// Whether it did what it must.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
    /// What to do where it did not.
    pub remedy: Option<String>,
}

/// What works here.
#[napi(object, object_from_js = false)]
pub struct SandboxProbe {
    /// The backend that would be used.
    pub backend: Either<String, Null>,
    /// Every primitive that was tried.
    pub checks: Vec<SandboxCheck>,
}

/// A place to run commands in: they see what its policy mounts, and end with all they started. It holds no process of
/// its own.
#[napi]
pub struct Sandbox {
    pub(super) inner: Arc<sandbox::Sandbox>,
}

#[napi]
impl Sandbox {
    /// Runs each primitive for real and says which backend would be used; takes less than a second.
    #[napi(catch_unwind, ts_return_type = "Promise<SandboxProbe>")]
    pub fn probe(env: &Env) -> napi::Result<Object<'_>> {
        settle(
            env,
            Abort::never(),
            |_| sandbox::Sandbox::probe(),
            |_, probe| {
                Ok(SandboxProbe {
                    backend: probe
                        .backend
                        .map_or(Either::B(Null), |name| Either::A(name.as_str().to_owned())),
                    checks: probe
                        .checks
                        .into_iter()
                        .map(|check| SandboxCheck {
                            name: check.name,
                            ok: check.ok,
                            detail: check.detail,
                            remedy: check.remedy,
                        })
                        .collect(),
                })
            },
        )
    }

    /// A sandbox with this policy, after a command has seen from inside that it holds.
    ///
    /// Rejects with `SANDBOX_POLICY` (`path` names the field) or `SANDBOX_UNAVAILABLE` (`missing`, `remedy`). Nothing
    /// ever runs on the host instead.
    #[napi(catch_unwind, ts_args_type = "policy: SandboxPolicy", ts_return_type = "Promise<Sandbox>")]
    pub fn create<'env>(env: &'env Env, policy: Unknown<'env>) -> napi::Result<Object<'env>> {
        rejecting(env, || {
            let text = json_text(env, "policy", policy)?;
            let policy = guard(env, || sandbox::SandboxPolicy::from_json(&text))?;
            settle(
                env,
                Abort::never(),
                |_| owned(Owner::Sandbox, sandbox::Sandbox::create(policy)),
                |_, inner| Ok(Self { inner: Arc::new(inner) }),
            )
        })
    }

    /// What enforces the policy.
    #[napi(catch_unwind, getter, ts_return_type = "'bwrap' | 'landlock' | 'seatbelt' | 'jobobject'")]
    pub fn backend(&self) -> String {
        self.inner.backend().as_str().to_owned()
    }

    /// Where commands start, unless they say otherwise.
    #[napi(catch_unwind, getter)]
    pub fn workspace(&self) -> String {
        self.inner.workspace().to_owned()
    }

    /// Runs a command to its end, that of all its processes: a text for the shell, or a program with its arguments.
    ///
    /// A command that fails or times out is a result; `SANDBOX_SPAWN` means that it never ran, or that the sandbox was
    /// closed meanwhile.
    #[napi(
        catch_unwind,
        ts_args_type = "command: string[] | string, options?: RunOptions",
        ts_return_type = "Promise<ProcessResult>"
    )]
    pub fn run<'env>(
        &self,
        env: &'env Env,
        command: Unknown<'env>,
        options: Option<Either<RunOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<Object<'env>> {
        rejecting(env, || {
            let mut command = read_command(env, command)?;
            let mut abort = Abort::never();
            let mut listener = None;
            if let Some(options) = checked(env, options)? {
                fill(env, &mut command, options.cwd, options.env, options.pty)?;
                command.stdin = options.stdin.map(|stdin| bytes(env, "stdin", stdin)).transpose()?;
                listener = options.on_output.map(|listener| Listener::new(env, listener)).transpose()?;
                abort = Abort::from_signal(env, options.signal)?;
            }
            let inner = Arc::clone(&self.inner);
            let thrown = listener.as_ref().map(|listener| Arc::clone(&listener.shared));
            let work =
                |cancel| owned(Owner::Sandbox, async move { run(&inner, command, listener, cancel).await });
            settle_in_the_end(env, abort, work, move |_, result| {
                let thrown = thrown
                    .and_then(|shared| shared.thrown.lock().unwrap_or_else(PoisonError::into_inner).take());
                match (thrown, result) {
                    (Some(error), _) => Err(error),
                    (None, result) => Ok(process_result(result)),
                }
            })
        })
    }

    /// What a supervisor of the caller's own must exec to run the command in this sandbox: exactly this argv, with
    /// exactly this environment. Its exit code is the command's, or 128 and the signal; 126 if it never ran. The limits
    /// `idleMs` and `outputBytes` are the supervisor's to keep.
    #[napi(
        catch_unwind,
        ts_args_type = "command: string[] | string, options?: LaunchOptions",
        ts_return_type = "Promise<SandboxLaunch>"
    )]
    pub fn launch<'env>(
        &self,
        env: &'env Env,
        command: Unknown<'env>,
        options: Option<Either<LaunchOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<Object<'env>> {
        rejecting(env, || {
            let mut command = read_command(env, command)?;
            if let Some(options) = checked(env, options)? {
                fill(env, &mut command, options.cwd, options.env, options.pty)?;
            }
            let inner = Arc::clone(&self.inner);
            settle(
                env,
                Abort::never(),
                |_| async move { inner.launch(&command) },
                |_, launch| Ok(SandboxLaunch { argv: launch.argv, env: launch.env }),
            )
        })
    }

    /// What is enforced, as a command inside observes it: capabilities, filter, Landlock, mounts, network, limits.
    #[napi(catch_unwind, ts_return_type = "Promise<Record<string, unknown>>")]
    pub fn explain<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let inner = Arc::clone(&self.inner);
        settle(
            env,
            Abort::never(),
            |_| async move { inner.explain().await },
            |env, text| {
                let value = parse_plain(env, &text)?;
                Ok(Object::from_raw(env.raw(), value.raw()).to_unknown())
            },
        )
    }

    /// Kills every command that `run` started, and waits until all are gone. What `launch` gave is its supervisor's.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn close<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let inner = Arc::clone(&self.inner);
        let close = async move {
            inner.close().await;
            Ok(())
        };
        settle(env, Abort::never(), |_| close, |_, ()| Ok(()))
    }
}

async fn run(
    sandbox: &sandbox::Sandbox,
    command: Command,
    listener: Option<Listener>,
    cancel: CancellationToken,
) -> Result<sandbox::ProcessResult> {
    let Some(listener) = listener else { return sandbox.run(command, None, cancel).await };
    let (sink, chunks) = mpsc::channel(1);
    let stop = cancel.child_token();
    let shared = Arc::clone(&listener.shared);
    let (result, ()) =
        tokio::join!(sandbox.run(command, Some(sink), stop.clone()), listener.forward(chunks, &stop));
    if shared.has_thrown() {
        // Its error is what counts, on the JS thread.
        return Ok(result.unwrap_or_default());
    }
    result
}

fn process_result(result: sandbox::ProcessResult) -> ProcessResult {
    #[expect(clippy::cast_precision_loss, reason = "bytes fit")]
    let number = |number: u64| number as f64;
    ProcessResult {
        exit_code: result.exit_code.map_or(Either::B(Null), Either::A),
        signal: result.signal,
        stdout: result.stdout.into(),
        stderr: result.stderr.into(),
        timed_out: result.timed_out.map(|which| {
            match which {
                TimedOut::Wall => "wall",
                TimedOut::Idle => "idle",
            }
            .to_owned()
        }),
        truncated: result.dropped_bytes > 0,
        dropped_bytes: number(result.dropped_bytes),
        wall_ms: result.wall_ms,
        cpu_ms: result.cpu_ms,
        peak_memory_bytes: number(result.peak_memory_bytes),
    }
}

fn json_text(env: &Env, name: &str, value: Unknown<'_>) -> napi::Result<String> {
    if value.get_type()? != ValueType::Object {
        return Err(reify(env, &wrong_argument(name, "an object", &value)));
    }
    let bytes = stringify(env, value)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn read_command(env: &Env, value: Unknown<'_>) -> napi::Result<Command> {
    if value.get_type()? == ValueType::String {
        return Ok(Command::shell(name(env, "command", value)?));
    }
    let wrong = || reify(env, &wrong_argument("command", "a string or an array of strings", &value));
    let bytes = stringify(env, value)?.ok_or_else(wrong)?;
    let argv: Vec<String> = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
    Ok(Command::new(argv))
}

fn fill(
    env: &Env,
    command: &mut Command,
    cwd: Option<Unknown<'_>>,
    variables: Option<Unknown<'_>>,
    pty: Option<Unknown<'_>>,
) -> napi::Result<()> {
    command.cwd = cwd.map(|cwd| name(env, "cwd", cwd)).transpose()?;
    command.pty = flag(env, "pty", pty)?.unwrap_or(false);
    if let Some(variables) = variables {
        let text = json_text(env, "env", variables)?;
        command.env = guard(env, || {
            let value = serde_json::from_str(&text).map_err(|error| {
                CoreError::new(Code::Validation, format!("`env` is no object of strings: {error}"))
            })?;
            read_env("env", &value)
        })?;
    }
    Ok(())
}

fn bytes(env: &Env, name: &str, value: Unknown<'_>) -> napi::Result<Vec<u8>> {
    use napi::bindgen_prelude::FromNapiValue;

    let wrong = wrong_argument(name, "a Uint8Array", &value);
    // SAFETY: a value of this call; what is no Uint8Array is an error.
    let array = unsafe { Uint8Array::from_napi_value(env.raw(), value.raw()) };
    array.map(|array| array.to_vec()).map_err(|_| reify(env, &wrong))
}

/// Chunks that have crossed and were not handed over yet.
const WAITING: u32 = 16;

type Callback = FunctionRef<FnArgs<(Buffer, &'static str)>, Unknown<'static>>;
type Wake = ThreadsafeFunction<(), (), (), Status, false, true, 1>;

/// `onOutput`, and what waits for it.
struct Listener {
    shared: Arc<Shared>,
    wake: Wake,
}

struct Shared {
    queue: Mutex<VecDeque<(OutputStream, Vec<u8>)>>,
    /// One permit for each chunk that may wait.
    room: Semaphore,
    thrown: Mutex<Option<napi::Error>>,
    /// Cancelled when the listener throws.
    failed: CancellationToken,
}

impl Shared {
    fn has_thrown(&self) -> bool {
        self.failed.is_cancelled()
    }
}

impl Listener {
    fn new(env: &Env, listener: Unknown<'_>) -> napi::Result<Self> {
        use napi::bindgen_prelude::FromNapiValue;

        if listener.get_type()? != ValueType::Function {
            return Err(reify(env, &wrong_argument("onOutput", "a function", &listener)));
        }
        // SAFETY: it is a function, as was just asked.
        let listener: Function<'_, FnArgs<(Buffer, &'static str)>, Unknown<'static>> =
            unsafe { Function::from_napi_value(env.raw(), listener.raw()) }?;
        let listener: Callback = listener.create_ref()?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            room: Semaphore::new(WAITING as usize),
            thrown: Mutex::new(None),
            failed: CancellationToken::new(),
        });
        let own = Arc::clone(&shared);
        let deliver = env.create_function_from_closure::<(), (), _>("onOutput", move |call| {
            loop {
                let next = own.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some((stream, chunk)) = next else { return Ok(()) };
                own.room.add_permits(1);
                if own.has_thrown() {
                    continue;
                }
                let stream = match stream {
                    OutputStream::Stdout => "stdout",
                    OutputStream::Stderr => "stderr",
                };
                let called = listener.borrow_back(call.env)?.call((Buffer::from(chunk), stream).into());
                if let Err(error) = called {
                    *own.thrown.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    own.failed.cancel();
                }
            }
        })?;
        let wake = deliver
            .build_threadsafe_function::<()>()
            .error_status::<Status>()
            .callee_handled::<false>()
            .weak::<true>()
            .max_queue_size::<1>()
            .build_callback(|_| Ok(()))?;
        Ok(Self { shared, wake })
    }

    /// Hands chunks to the JS thread; returns when all were taken.
    async fn forward(self, mut chunks: mpsc::Receiver<(OutputStream, Vec<u8>)>, stop: &CancellationToken) {
        let shared = &self.shared;
        let forward = async {
            while let Some(chunk) = chunks.recv().await {
                let Ok(room) = shared.room.acquire().await else { return };
                room.forget();
                shared.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(chunk);
                // A full queue means that a wake-up is already on its way.
                self.wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
            }
            let _ = shared.room.acquire_many(WAITING).await;
        };
        tokio::select! {
            () = shared.failed.cancelled() => stop.cancel(),
            () = stop.cancelled() => {}
            () = forward => {}
        }
    }
}
