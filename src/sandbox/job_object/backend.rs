//! What only Windows has: the calls, and the backend over them.
#![allow(unsafe_code, reason = "the system's functions, of which the standard library has none")]

use std::ffi::c_void;
use std::io::{Error, PipeReader, PipeWriter, Read, Result as IoResult, Write};
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use windows_sys::Win32::Foundation::{
    HANDLE, HANDLE_FLAG_INHERIT, LocalFree, SetHandleInformation, WAIT_OBJECT_0,
};
use windows_sys::Win32::Security::Authorization::{
    ConvertSecurityDescriptorToStringSecurityDescriptorW,
    ConvertStringSecurityDescriptorToSecurityDescriptorW, GetNamedSecurityInfoW, SDDL_REVISION_1,
    SE_FILE_OBJECT,
};
use windows_sys::Win32::Security::{
    CreateRestrictedToken, CreateWellKnownSid, DISABLE_MAX_PRIVILEGE, GetLengthSid,
    LABEL_SECURITY_INFORMATION, LUA_TOKEN, SECURITY_ATTRIBUTES, SID_AND_ATTRIBUTES, SetTokenInformation,
    TOKEN_ADJUST_DEFAULT, TOKEN_ASSIGN_PRIMARY, TOKEN_DUPLICATE, TOKEN_MANDATORY_LABEL, TOKEN_QUERY,
    TokenIntegrityLevel, WinLowLabelSid,
};
use windows_sys::Win32::Storage::FileSystem::CreateDirectoryW;
use windows_sys::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, IsProcessInJob, JOB_OBJECT_LIMIT_ACTIVE_PROCESS,
    JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION, JOB_OBJECT_LIMIT_JOB_MEMORY,
    JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE, JOB_OBJECT_LIMIT_PROCESS_TIME, JOB_OBJECT_UILIMIT_DESKTOP,
    JOB_OBJECT_UILIMIT_DISPLAYSETTINGS, JOB_OBJECT_UILIMIT_EXITWINDOWS, JOB_OBJECT_UILIMIT_GLOBALATOMS,
    JOB_OBJECT_UILIMIT_HANDLES, JOB_OBJECT_UILIMIT_READCLIPBOARD, JOB_OBJECT_UILIMIT_SYSTEMPARAMETERS,
    JOB_OBJECT_UILIMIT_WRITECLIPBOARD, JOBOBJECT_BASIC_ACCOUNTING_INFORMATION,
    JOBOBJECT_BASIC_UI_RESTRICTIONS, JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JOBOBJECTINFOCLASS,
    JobObjectBasicAccountingInformation, JobObjectBasicUIRestrictions, JobObjectExtendedLimitInformation,
    QueryInformationJobObject, SetInformationJobObject, TerminateJobObject,
};
use windows_sys::Win32::System::Threading::{
    CREATE_NO_WINDOW, CREATE_SUSPENDED, CREATE_UNICODE_ENVIRONMENT, CreateProcessAsUserW,
    DeleteProcThreadAttributeList, EXTENDED_STARTUPINFO_PRESENT, GetCurrentProcess, GetExitCodeProcess,
    INFINITE, InitializeProcThreadAttributeList, OpenProcessToken, PROC_THREAD_ATTRIBUTE_HANDLE_LIST,
    PROCESS_INFORMATION, ResumeThread, STARTF_USESTDHANDLES, STARTUPINFOEXW, TerminateProcess,
    UpdateProcThreadAttribute, WaitForSingleObject,
};

use super::super::policy::{BackendName, Plan};
use super::super::probe::Check;
use super::super::process::{Command, Ended, OutputStream, Started};
use super::super::{Backend, Launch};
use super::{
    Bounds, absolute, command_line, environment, environment_block, fit, is_low, observer, plain, program,
};
use crate::{Code, CoreError, Result};

/// Chunks of output that wait to be taken, and the bytes of each.
const CHUNKS: usize = 16;
const CHUNK: usize = 64 << 10;
/// How long the system may take to end processes that it was told to end.
const DYING: Duration = Duration::from_secs(2);
/// `SE_GROUP_INTEGRITY`.
const INTEGRITY: u32 = 0x20;

/// The backend.
#[derive(Debug)]
pub(in super::super) struct JobObject;

fn wrong(error: Error) -> CoreError {
    CoreError::new(Code::SandboxSpawn, format!("cannot start the command: {error}")).caused_by(error)
}

impl Backend for JobObject {
    fn name(&self) -> BackendName {
        BackendName::JobObject
    }

    fn isolates(&self) -> bool {
        false
    }

    fn launch(&self, _plan: &Plan, _command: &Command) -> Result<Launch> {
        // Nobody would then end what the command leaves behind.
        Err(CoreError::new(
            Code::SandboxUnavailable,
            "the backend jobobject starts its commands itself: use run",
        )
        .missing("launch", "use `run`, or Linux"))
    }

    fn start(&self, plan: &Plan, command: &Command) -> Result<Started> {
        if command.pty {
            return Err(CoreError::new(Code::SandboxSpawn, "the backend jobobject has no terminals"));
        }
        let temporary = Temporary::new().map_err(wrong)?;
        let here = temporary.0.to_string_lossy().into_owned();
        // Windows has no folder that holds all.
        let cwd = Some(command.cwd(plan)).filter(|cwd| *cwd != "/").unwrap_or(&here);
        if !absolute(cwd) {
            return Err(wrong(Error::other("`cwd` must be an absolute path")));
        }
        let unix = Command::default().environment(&Plan { env: [].into(), ..plan.clone() });
        let windows = std::env::var("SystemRoot").unwrap_or_else(|_| r"C:\Windows".to_owned());
        let env = environment(command.environment(plan), &unix, &windows, &here);
        let path = env.iter().find(|(name, _)| name.eq_ignore_ascii_case("PATH"));
        let path = path.map_or("", |(_, value)| value);
        let name = command.argv.first().map_or("", String::as_str);
        let program = program(name, path, cwd, |path| Path::new(path).is_file())?;

        let job = Arc::new(job(&Bounds::of(&plan.limits)).map_err(wrong)?);
        let (stdout, its_stdout) = std::io::pipe().map_err(wrong)?;
        let (stderr, its_stderr) = std::io::pipe().map_err(wrong)?;
        let (its_stdin, stdin) = match &command.stdin {
            Some(bytes) => {
                let (reader, writer) = std::io::pipe().map_err(wrong)?;
                (OwnedHandle::from(reader), Some((writer, bytes.clone())))
            }
            None => (std::fs::File::open("NUL").map_err(wrong)?.into(), None),
        };
        let streams = [its_stdin, its_stdout.into(), its_stderr.into()];
        let begin = Begin {
            program: &program,
            line: &command_line(&command.argv),
            env: &environment_block(&env),
            cwd,
        };
        let process = begin.within(&job, &streams).map_err(wrong)?;
        drop(streams);

        let (chunks, output) = mpsc::channel(CHUNKS);
        let kill = CancellationToken::new();
        let to = chunks.clone();
        let (ended, end) = oneshot::channel();
        let (killed, its_job) = (kill.clone(), Arc::clone(&job));
        // From here on the process runs: whatever fails now drops the last handle of the job, which ends it.
        thread(move || pump(stdout, OutputStream::Stdout, &to))?;
        thread(move || pump(stderr, OutputStream::Stderr, &chunks))?;
        if let Some((to, bytes)) = stdin {
            thread(move || feed(to, &bytes))?;
        }
        thread(move || {
            let end = wait(&process, &its_job, &killed);
            drop(temporary);
            let _ = ended.send(end.map_err(wrong));
        })?;
        let killed = kill.clone();
        tokio::spawn(async move {
            killed.cancelled().await;
            terminate(&job);
        });
        Ok(Started { output, end, guard: kill.clone().drop_guard(), kill })
    }

    fn observer(&self) -> Option<Command> {
        Some(Command::shell(observer()))
    }

    fn fit(&self, plan: Plan) -> Result<Plan> {
        fit(plan, |folder| {
            label(folder).map(|text| is_low(&text)).map_err(|error| {
                let message = format!("sandbox policy: the label of {folder} cannot be read: {error}");
                CoreError::new(Code::SandboxPolicy, message).at_path("workspace.host").caused_by(error)
            })
        })
    }

    fn checks(&self) -> Vec<Check> {
        let job = match job(&Bounds { memory: 64 << 20, processes: 4, cpu: None }) {
            Ok(_) => Check::passed("job-object", "made, with its limits"),
            Err(error) => Check::failed("job-object", error.to_string(), "use Windows 10 or newer"),
        };
        let token = match token() {
            Ok(_) => Check::passed("restricted-token", "made, with low integrity"),
            Err(error) => {
                Check::failed("restricted-token", error.to_string(), "run the gateway as an ordinary user")
            }
        };
        vec![job, token]
    }

    fn diagnose(&self, error: &CoreError) -> Check {
        Check::failed(
            "low-integrity",
            error.message(),
            "run the gateway as an ordinary user of Windows 10 or newer",
        )
    }
}

/// A thread of its own: the pool has few, and these wait for as long as a command runs.
fn thread(work: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new()
        .name("openclaw-core-sandbox".to_owned())
        .stack_size(256 << 10)
        .spawn(work)
        .map(drop)
        .map_err(wrong)
}

/// Output, until nobody can write any more or nobody takes it.
fn pump(mut from: PipeReader, stream: OutputStream, to: &mpsc::Sender<(OutputStream, Vec<u8>)>) {
    let mut room = vec![0; CHUNK];
    while let Ok(length @ 1..) = from.read(&mut room) {
        let chunk = room.get(..length).unwrap_or_default().to_vec();
        if to.blocking_send((stream, chunk)).is_err() {
            return;
        }
    }
}

/// Input, until all of it is there or nobody reads it.
fn feed(mut to: PipeWriter, bytes: &[u8]) {
    let _ = to.write_all(bytes);
}

/// Waits for the command, then ends what it has left.
fn wait(process: &OwnedHandle, job: &OwnedHandle, kill: &CancellationToken) -> IoResult<Ended> {
    let mut code = 0;
    // SAFETY: the handle is a process's and open; `code` outlives the call.
    let known = unsafe {
        WaitForSingleObject(process.as_raw_handle(), INFINITE) == WAIT_OBJECT_0
            && GetExitCodeProcess(process.as_raw_handle(), &raw mut code) != 0
    };
    let known = if known { Ok(()) } else { Err(Error::last_os_error()) };
    let killed = kill.is_cancelled();
    terminate(job);
    let since = Instant::now();
    let used = loop {
        let used: JOBOBJECT_BASIC_ACCOUNTING_INFORMATION = query(job, JobObjectBasicAccountingInformation)?;
        if used.ActiveProcesses == 0 {
            break used;
        }
        if since.elapsed() > DYING {
            return Err(Error::other("processes of the command could not be ended"));
        }
        // A job tells nobody reliably that it is empty.
        std::thread::sleep(Duration::from_millis(2));
    };
    known?;
    let limits: JOBOBJECT_EXTENDED_LIMIT_INFORMATION = query(job, JobObjectExtendedLimitInformation)?;
    let hundred_ns = u64::try_from(used.TotalUserTime.saturating_add(used.TotalKernelTime)).unwrap_or(0);
    Ok(Ended {
        exit_code: (!killed).then(|| code.cast_signed()),
        signal: killed.then(|| "SIGKILL".to_owned()),
        cpu_ms: Duration::from_nanos(hundred_ns.saturating_mul(100)).as_secs_f64() * 1000.0,
        peak_memory_bytes: limits.PeakJobMemoryUsed as u64,
        bounded_by: ("job object".to_owned(), "job object".to_owned()),
    })
}

/// What a call has made, or why not.
fn done(outcome: i32) -> IoResult<()> {
    if outcome == 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

fn owned(handle: HANDLE) -> IoResult<OwnedHandle> {
    if handle.is_null() {
        return Err(Error::last_os_error());
    }
    // SAFETY: the system has just given it to this caller, who has not closed it.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

/// Text as the system takes it.
fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

fn size_of_info<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

/// A job that ends its processes when its last handle is closed, that of a Node that dies included.
fn job(bounds: &Bounds) -> IoResult<OwnedHandle> {
    // SAFETY: both arguments may be null: no attributes, no name.
    let job = owned(unsafe { CreateJobObjectW(null(), null()) })?;
    let mut limits =
        JOBOBJECT_EXTENDED_LIMIT_INFORMATION { JobMemoryLimit: bounds.memory, ..Default::default() };
    let basic = &mut limits.BasicLimitInformation;
    basic.ActiveProcessLimit = bounds.processes;
    basic.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
        | JOB_OBJECT_LIMIT_ACTIVE_PROCESS
        | JOB_OBJECT_LIMIT_JOB_MEMORY
        | JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION;
    if let Some(cpu) = bounds.cpu {
        basic.PerProcessUserTimeLimit = cpu;
        basic.LimitFlags |= JOB_OBJECT_LIMIT_PROCESS_TIME;
    }
    set(&job, JobObjectExtendedLimitInformation, &limits)?;
    Ok(job)
}

/// Keeps the clipboard, other windows and the desktop from a job's processes.
fn restrict_windows(job: &OwnedHandle) -> IoResult<()> {
    let windows = JOBOBJECT_BASIC_UI_RESTRICTIONS {
        UIRestrictionsClass: JOB_OBJECT_UILIMIT_DESKTOP
            | JOB_OBJECT_UILIMIT_DISPLAYSETTINGS
            | JOB_OBJECT_UILIMIT_EXITWINDOWS
            | JOB_OBJECT_UILIMIT_GLOBALATOMS
            | JOB_OBJECT_UILIMIT_HANDLES
            | JOB_OBJECT_UILIMIT_READCLIPBOARD
            | JOB_OBJECT_UILIMIT_SYSTEMPARAMETERS
            | JOB_OBJECT_UILIMIT_WRITECLIPBOARD,
    };
    set(job, JobObjectBasicUIRestrictions, &windows)
}

fn set<T>(job: &OwnedHandle, class: JOBOBJECTINFOCLASS, info: &T) -> IoResult<()> {
    // SAFETY: callers pair each class with its structure, of which the size is given; it is only read.
    done(unsafe {
        SetInformationJobObject(job.as_raw_handle(), class, (&raw const *info).cast(), size_of_info::<T>())
    })
}

fn query<T: Default>(job: &OwnedHandle, class: JOBOBJECTINFOCLASS) -> IoResult<T> {
    let mut info = T::default();
    // SAFETY: callers pair each class with its structure, of plain numbers; no more than its size is written.
    done(unsafe {
        QueryInformationJobObject(
            job.as_raw_handle(),
            class,
            (&raw mut info).cast(),
            size_of_info::<T>(),
            null_mut(),
        )
    })?;
    Ok(info)
}

fn terminate(job: &OwnedHandle) {
    // SAFETY: the handle is a job's and open. One that is empty already is no error that matters.
    unsafe { TerminateJobObject(job.as_raw_handle(), 1) };
}

/// This process's token without its privileges and its administrators' groups, at low integrity.
fn token() -> IoResult<OwnedHandle> {
    let access = TOKEN_DUPLICATE | TOKEN_ASSIGN_PRIMARY | TOKEN_QUERY | TOKEN_ADJUST_DEFAULT;
    let mut own = null_mut();
    // SAFETY: the pseudo-handle of this process needs no closing; `own` outlives the call.
    done(unsafe { OpenProcessToken(GetCurrentProcess(), access, &raw mut own) })?;
    let own = owned(own)?;
    let mut token = null_mut();
    // SAFETY: every list is empty, so its pointer may be null; `token` outlives the call.
    done(unsafe {
        CreateRestrictedToken(
            own.as_raw_handle(),
            DISABLE_MAX_PRIVILEGE | LUA_TOKEN,
            0,
            null(),
            0,
            null(),
            0,
            null(),
            &raw mut token,
        )
    })?;
    let token = owned(token)?;
    // `SECURITY_MAX_SID_SIZE` bytes, aligned as a SID is.
    let mut sid = [0_u32; 17];
    let mut size = size_of_info::<[u32; 17]>();
    let sid: *mut c_void = sid.as_mut_ptr().cast();
    // SAFETY: the buffer has the size that is given, which is that of the largest SID.
    done(unsafe { CreateWellKnownSid(WinLowLabelSid, null_mut(), sid, &raw mut size) })?;
    let label = TOKEN_MANDATORY_LABEL { Label: SID_AND_ATTRIBUTES { Sid: sid, Attributes: INTEGRITY } };
    // SAFETY: the SID was made above, and outlives the call as the label does, which is only read.
    done(unsafe {
        SetTokenInformation(
            token.as_raw_handle(),
            TokenIntegrityLevel,
            (&raw const label).cast(),
            size_of_info::<TOKEN_MANDATORY_LABEL>() + GetLengthSid(sid),
        )
    })?;
    Ok(token)
}

/// Memory that the system has allocated for its caller.
struct Local(*mut c_void);

impl Drop for Local {
    fn drop(&mut self) {
        // SAFETY: the system's documentation asks for exactly this, once; null is let pass.
        unsafe { LocalFree(self.0) };
    }
}

/// The integrity label of a file or folder in its text form; empty if it has none.
fn label(path: &str) -> IoResult<String> {
    let path = wide(path);
    let mut descriptor = null_mut();
    // SAFETY: the path ends with a NUL; parts that are not wanted may be null; `descriptor` outlives the call.
    let code = unsafe {
        GetNamedSecurityInfoW(
            path.as_ptr(),
            SE_FILE_OBJECT,
            LABEL_SECURITY_INFORMATION,
            null_mut(),
            null_mut(),
            null_mut(),
            null_mut(),
            &raw mut descriptor,
        )
    };
    if code != 0 {
        return Err(Error::from_raw_os_error(code.cast_signed()));
    }
    let descriptor = Local(descriptor);
    let (mut text, mut length) = (null_mut(), 0);
    // SAFETY: the descriptor is the system's own and not yet freed; both results outlive the call.
    done(unsafe {
        ConvertSecurityDescriptorToStringSecurityDescriptorW(
            descriptor.0,
            SDDL_REVISION_1,
            LABEL_SECURITY_INFORMATION,
            &raw mut text,
            &raw mut length,
        )
    })?;
    let owner = Local(text.cast());
    // SAFETY: the system has written that many units there, and `owner` frees them after the copy.
    let units = unsafe { std::slice::from_raw_parts(text, length as usize) };
    let text = String::from_utf16_lossy(units);
    drop(owner);
    Ok(text)
}

/// A folder for one command's temporary files, in which low integrity may write.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> IoResult<Self> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(|error| Error::other(error.to_string()))?;
        let unique = format!("openclaw-core-{}-{:x}", std::process::id(), u64::from_ne_bytes(bytes));
        let parent = std::env::temp_dir().canonicalize()?;
        let folder = PathBuf::from(plain(&parent.to_string_lossy())).join(unique);
        let text = wide("S:(ML;OICI;NW;;;LW)");
        let mut descriptor = null_mut();
        // SAFETY: the text ends with a NUL; `descriptor` outlives the call; its size is not wanted.
        done(unsafe {
            ConvertStringSecurityDescriptorToSecurityDescriptorW(
                text.as_ptr(),
                SDDL_REVISION_1,
                &raw mut descriptor,
                null_mut(),
            )
        })?;
        let descriptor = Local(descriptor);
        let attributes = SECURITY_ATTRIBUTES {
            nLength: size_of_info::<SECURITY_ATTRIBUTES>(),
            lpSecurityDescriptor: descriptor.0,
            bInheritHandle: 0,
        };
        let path = wide(&folder.to_string_lossy());
        // SAFETY: the path ends with a NUL; the attributes and what they point to outlive the call.
        done(unsafe { CreateDirectoryW(path.as_ptr(), &raw const attributes) })?;
        Ok(Self(folder))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Which handles a process inherits: without such a list, every one that anybody has made inheritable.
struct Inherited {
    list: Vec<usize>,
    handles: Vec<HANDLE>,
}

impl Inherited {
    fn new(streams: &[OwnedHandle]) -> IoResult<Self> {
        let mut bytes = 0;
        // SAFETY: asked with a null list, the system only says how much room it needs.
        unsafe { InitializeProcThreadAttributeList(null_mut(), 1, 0, &raw mut bytes) };
        let mut list = vec![0_usize; bytes.div_ceil(size_of::<usize>())];
        // SAFETY: the list has the room that the system asked for, aligned as a pointer.
        done(unsafe { InitializeProcThreadAttributeList(list.as_mut_ptr().cast(), 1, 0, &raw mut bytes) })?;
        let mut inherited = Self { list, handles: Vec::new() };
        for stream in streams {
            // SAFETY: the handle is open.
            done(unsafe {
                SetHandleInformation(stream.as_raw_handle(), HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT)
            })?;
            inherited.handles.push(stream.as_raw_handle());
        }
        // SAFETY: the list was initialised for one attribute; the handles stay where they are for as long as it does.
        done(unsafe {
            UpdateProcThreadAttribute(
                inherited.list.as_mut_ptr().cast(),
                0,
                PROC_THREAD_ATTRIBUTE_HANDLE_LIST as usize,
                inherited.handles.as_ptr().cast(),
                size_of_val(inherited.handles.as_slice()),
                null_mut(),
                null(),
            )
        })?;
        Ok(inherited)
    }
}

impl Drop for Inherited {
    fn drop(&mut self) {
        // SAFETY: there is none of these whose list was not initialised.
        unsafe { DeleteProcThreadAttributeList(self.list.as_mut_ptr().cast()) };
    }
}

/// What a process begins with.
struct Begin<'a> {
    program: &'a str,
    line: &'a str,
    env: &'a [u16],
    cwd: &'a str,
}

impl Begin<'_> {
    /// Starts it, in the job before its first instruction.
    fn within(&self, job: &OwnedHandle, streams: &[OwnedHandle; 3]) -> IoResult<OwnedHandle> {
        let token = token()?;
        let mut inherited = Inherited::new(streams)?;
        let [stdin, stdout, stderr] = streams.each_ref().map(AsRawHandle::as_raw_handle);
        let mut startup =
            STARTUPINFOEXW { lpAttributeList: inherited.list.as_mut_ptr().cast(), ..Default::default() };
        startup.StartupInfo.cb = size_of_info::<STARTUPINFOEXW>();
        startup.StartupInfo.dwFlags = STARTF_USESTDHANDLES;
        startup.StartupInfo.hStdInput = stdin;
        startup.StartupInfo.hStdOutput = stdout;
        startup.StartupInfo.hStdError = stderr;
        let (program, mut line, cwd) = (wide(self.program), wide(self.line), wide(self.cwd));
        let mut made = PROCESS_INFORMATION::default();
        // SAFETY: texts and environment end with their NULs, and the line may be written to; the extended structure is
        // announced by its flag and size; all of it outlives the call.
        done(unsafe {
            CreateProcessAsUserW(
                token.as_raw_handle(),
                program.as_ptr(),
                line.as_mut_ptr(),
                null(),
                null(),
                1,
                CREATE_SUSPENDED
                    | CREATE_NO_WINDOW
                    | CREATE_UNICODE_ENVIRONMENT
                    | EXTENDED_STARTUPINFO_PRESENT,
                self.env.as_ptr().cast(),
                cwd.as_ptr(),
                (&raw const startup).cast(),
                &raw mut made,
            )
        })?;
        let (process, first) = (owned(made.hProcess)?, owned(made.hThread)?);
        enter(job, &process, &first).inspect_err(|_| {
            // SAFETY: the handle is open; the process has not run yet.
            unsafe { TerminateProcess(process.as_raw_handle(), 1) };
        })?;
        Ok(process)
    }
}

/// Puts a process that waits into the job, and has it run.
fn enter(job: &OwnedHandle, process: &OwnedHandle, first: &OwnedHandle) -> IoResult<()> {
    let mut nested = 0;
    // SAFETY: the handle is open, null means any job, and `nested` outlives the call.
    done(unsafe { IsProcessInJob(process.as_raw_handle(), null_mut(), &raw mut nested) })?;
    if nested == 0 {
        // Where the gateway itself runs in a job, the system takes no such restriction: integrity alone has to do.
        restrict_windows(job)?;
    }
    // SAFETY: both handles are open.
    done(unsafe { AssignProcessToJobObject(job.as_raw_handle(), process.as_raw_handle()) })?;
    // SAFETY: the handle is that of the process's first thread, and open.
    if unsafe { ResumeThread(first.as_raw_handle()) } == u32::MAX {
        return Err(Error::last_os_error());
    }
    Ok(())
}
