//! Windows: a job object, and a restricted token of low integrity.
//!
//! The job bounds memory, processes and CPU time, and ends all of a command at once. The token has no privileges and no
//! administrators' rights; at low integrity it can change no file, process or window but those labelled low, which the
//! folder for its temporary files is, and a workspace must be. Nothing of this keeps a file from being read or the network
//! from being used, so a policy has to accept both by its own words; what else it asks for is refused.

use std::collections::BTreeMap;

use super::policy::{Access, Limits, Network, Plan};
use crate::{Code, CoreError, Result};

#[cfg(windows)]
mod backend;
#[cfg(windows)]
pub(super) use backend::JobObject;

/// What stays open, as `explain` says it.
const NOT_ENFORCED: &str = r#"["reading of files","network","limits.fileBytes"]"#;

fn refused(field: &str, what: &str) -> CoreError {
    CoreError::new(Code::SandboxPolicy, format!("sandbox policy: `{field}` {what}")).at_path(field)
}

/// What can be made of a policy; an error names the first field that cannot be kept. `labelled_low` tells whether a
/// process of low integrity may write in a folder.
fn fit(mut plan: Plan, labelled_low: impl Fn(&str) -> Result<bool>) -> Result<Plan> {
    if plan.network == Network::None {
        return Err(refused(
            "network",
            "cannot be \"none\" with backend jobobject: say \"host\" to accept it",
        ));
    }
    if plan.workspace_mount_given {
        return Err(refused(
            "workspace.mount",
            "cannot be kept by backend jobobject, which has no mounts: leave it out",
        ));
    }
    let mut mounts = plan.mounts.iter_mut();
    let Some(workspace) = mounts.next().filter(|mount| mount.mount == plan.workspace) else {
        // The folder for temporary files: where a command starts if there is no other.
        if plan.mounts.is_empty() {
            "/".clone_into(&mut plan.workspace);
            return Ok(plan);
        }
        return Err(refused("mounts", "must be empty with backend jobobject, which has no mounts"));
    };
    if mounts.next().is_some() {
        return Err(refused("mounts", "must be empty with backend jobobject, which has no mounts"));
    }
    if workspace.access != Access::ReadWrite {
        return Err(refused("workspace.access", "must be \"rw\" with backend jobobject"));
    }
    let host = plain(&workspace.host.to_string_lossy());
    if !labelled_low(&host)? {
        let what = format!(
            "is a folder that commands of low integrity cannot write: run `icacls \"{host}\" /setintegritylevel \"(OI)(CI)L\"`"
        );
        return Err(refused("workspace.host", &what));
    }
    workspace.mount.clone_from(&host);
    plan.workspace = host;
    Ok(plan)
}

/// A path as programs take it. What `canonicalize` gives is not: `cmd` starts in none that begins so.
fn plain(path: &str) -> String {
    match path.strip_prefix(r"\\?\") {
        Some(rest) => match rest.strip_prefix(r"UNC\") {
            Some(share) => format!(r"\\{share}"),
            None => rest.to_owned(),
        },
        None => path.to_owned(),
    }
}

/// Whether a security descriptor, in its text form, labels its object with low integrity or none.
fn is_low(descriptor: &str) -> bool {
    descriptor.split('(').filter_map(|ace| ace.split_once(')')).any(|(ace, _)| {
        ace.starts_with("ML;")
            && ace.rsplit(';').next().is_some_and(|sid| ["LW", "S-1-16-4096", "S-1-16-0"].contains(&sid))
    })
}

/// The limits in the units of a job.
#[derive(Debug, PartialEq, Eq)]
struct Bounds {
    memory: usize,
    processes: u32,
    /// Of each process, in units of 100 ns.
    cpu: Option<i64>,
}

impl Bounds {
    fn of(limits: &Limits) -> Self {
        Self {
            memory: usize::try_from(limits.memory_bytes).unwrap_or(usize::MAX),
            processes: limits.pids,
            cpu: limits.cpu_seconds.map(|seconds| i64::from(seconds) * 10_000_000),
        }
    }
}

/// The variables of a command: Windows's own in the place of Unix's, unless somebody has set those. No two names differ by
/// case alone.
fn environment(
    given: BTreeMap<String, String>,
    unix: &BTreeMap<String, String>,
    windows: &str,
    temporary: &str,
) -> BTreeMap<String, String> {
    let system = format!(r"{windows}\System32");
    let mut env: BTreeMap<String, String> = [
        ("PATH", format!(r"{system};{windows};{system}\Wbem;{system}\WindowsPowerShell\v1.0")),
        ("PATHEXT", ".COM;.EXE;.BAT;.CMD".to_owned()),
        ("SYSTEMROOT", windows.to_owned()),
        ("WINDIR", windows.to_owned()),
        ("COMSPEC", format!(r"{system}\cmd.exe")),
        ("TEMP", temporary.to_owned()),
        ("TMP", temporary.to_owned()),
        ("HOME", temporary.to_owned()),
        ("USERPROFILE", temporary.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    for (name, value) in given {
        if unix.get(&name) != Some(&value) {
            env.retain(|known, _| !known.eq_ignore_ascii_case(&name));
            env.insert(name, value);
        }
    }
    env
}

/// What a process is given as its environment, in UTF-16, sorted as the system asks for.
fn environment_block(env: &BTreeMap<String, String>) -> Vec<u16> {
    let mut variables: Vec<_> = env.iter().collect();
    variables.sort_by_cached_key(|(name, _)| name.to_ascii_uppercase());
    let mut block = Vec::new();
    for (name, value) in variables {
        block.extend(format!("{name}={value}\0").encode_utf16());
    }
    block.push(0);
    block
}

/// With its drive or share: none of those that depend on where Node runs.
fn absolute(path: &str) -> bool {
    path.starts_with(r"\\") || matches!(path.as_bytes(), [_, b':', b'\\' | b'/', ..])
}

/// The program that a name means: by its path, or in the folders of `PATH`. The system's own search would begin beside
/// Node and in the folder where Node runs.
fn program(name: &str, path: &str, cwd: &str, exists: impl Fn(&str) -> bool) -> Result<String> {
    let wrong =
        |what: &str| CoreError::new(Code::SandboxSpawn, format!("cannot start the command: {name}: {what}"));
    // The system takes these off.
    let bare = name.trim_end_matches([' ', '.']).to_ascii_lowercase();
    if [".bat", ".cmd"].iter().any(|extension| bare.ends_with(extension)) {
        // Its arguments would be read once more, by rules that nobody can quote for.
        return Err(wrong("a batch file is run by a text for the shell"));
    }
    let with_extension = |base: String| {
        let there = [base.clone(), format!("{base}.exe"), format!("{base}.com")];
        there.into_iter().find(|candidate| exists(candidate))
    };
    let found = if absolute(name) {
        with_extension(name.to_owned())
    } else if name.contains(['\\', '/', ':']) {
        with_extension(format!(r"{cwd}\{name}"))
    } else {
        path.split(';')
            .filter(|folder| absolute(folder))
            .find_map(|folder| with_extension(format!(r"{}\{name}", folder.trim_end_matches('\\'))))
    };
    found.ok_or_else(|| wrong("there is no such program"))
}

/// The arguments as the one text that a process gets.
fn command_line(argv: &[String]) -> String {
    if let [shell, options @ .., text] = argv
        && shell == "cmd.exe"
        && options == ["/d", "/s", "/c"]
    {
        // With /s the shell takes one quote off each end, and reads the rest as it is.
        return format!("cmd.exe /d /s /c \"{text}\"");
    }
    let mut line = String::new();
    for argument in argv {
        if !line.is_empty() {
            line.push(' ');
        }
        quote(argument, &mut line);
    }
    line
}

/// One argument, so that `CommandLineToArgvW` and the C runtime read it as it was.
fn quote(argument: &str, line: &mut String) {
    if !argument.is_empty() && !argument.contains([' ', '\t', '\n', '\u{b}', '"']) {
        line.push_str(argument);
        return;
    }
    line.push('"');
    let mut backslashes = 0;
    for char in argument.chars() {
        // Backslashes mean themselves, but before a quote.
        if char == '"' {
            line.extend(std::iter::repeat_n('\\', backslashes + 1));
        }
        backslashes = if char == '\\' { backslashes + 1 } else { 0 };
        line.push(char);
    }
    line.extend(std::iter::repeat_n('\\', backslashes));
    line.push('"');
}

/// What a command looks at from inside: its integrity, and that privileges which everybody has are gone.
fn observer() -> String {
    format!(
        "whoami /groups | findstr S-1-16-4096 >nul && (whoami /priv | findstr \"SeDebugPrivilege SeImpersonatePrivilege \
         SeShutdownPrivilege\" >nul || (echo {{\"system\":\"Windows\",\"integrity\":\"low\",\"notEnforced\":{NOT_ENFORCED}}}\
         & exit 0))"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::policy::{BackendName, Mount};
    use proptest::prelude::*;

    fn plan(access: Option<Access>) -> Plan {
        let workspace = "/workspace".to_owned();
        let mount = |access| Mount { host: r"\\?\C:\work".into(), mount: workspace.clone(), access };
        Plan {
            mounts: access.map(mount).into_iter().collect(),
            workspace,
            workspace_mount_given: false,
            network: Network::Host,
            env: BTreeMap::new(),
            limits: Limits::default(),
            backend: BackendName::JobObject,
        }
    }

    #[test]
    fn what_cannot_be_kept_is_refused_by_its_field() {
        let field = |plan: Plan, low| {
            let error = fit(plan, |_| Ok(low)).unwrap_err();
            assert_eq!(error.code(), Code::SandboxPolicy);
            error.details().path.clone().unwrap_or_default()
        };
        let rw = || plan(Some(Access::ReadWrite));
        assert_eq!(field(Plan { network: Network::None, ..rw() }, true), "network");
        assert_eq!(field(Plan { workspace_mount_given: true, ..rw() }, true), "workspace.mount");
        assert_eq!(field(plan(Some(Access::ReadOnly)), true), "workspace.access");
        assert_eq!(field(rw(), false), "workspace.host");
        let extra = Mount { host: r"C:\data".into(), mount: "/data".into(), access: Access::ReadOnly };
        let mut two = rw();
        two.mounts.push(extra.clone());
        assert_eq!(field(two, true), "mounts");
        let mut only = plan(None);
        only.mounts.push(extra);
        assert_eq!(field(only, true), "mounts");
        assert!(absolute(r"C:\x") && absolute(r"\\server\x") && !absolute("C:x") && !absolute(r"\x"));
    }

    #[test]
    fn a_workspace_stands_where_it_is() {
        let asked = |path: &str| {
            assert_eq!(path, r"C:\work");
            Ok(true)
        };
        let fitted = fit(plan(Some(Access::ReadWrite)), asked).unwrap();
        assert_eq!(fitted.workspace, r"C:\work");
        assert_eq!(fitted.mounts[0].mount, r"C:\work");
        assert_eq!(fit(plan(None), |_| Ok(false)).unwrap().workspace, "/");
        assert_eq!(plain(r"\\?\UNC\server\share\x"), r"\\server\share\x");
    }

    #[test]
    fn a_label_is_read_from_its_text() {
        assert!(is_low("S:(ML;OICI;NW;;;LW)"));
        assert!(is_low("S:AI(ML;OICI;NW;;;S-1-16-4096)"));
        assert!(!is_low("S:(ML;OICI;NW;;;ME)"));
        assert!(!is_low("D:(A;;FA;;;LW)"));
        assert!(!is_low(""));
    }

    #[test]
    fn limits_are_a_jobs() {
        let limits = Limits { cpu_seconds: Some(3), pids: 7, memory_bytes: 5, ..Limits::default() };
        assert_eq!(Bounds::of(&limits), Bounds { memory: 5, processes: 7, cpu: Some(30_000_000) });
    }

    #[test]
    fn an_environment_is_windows_own_unless_somebody_set_it() {
        let map = |list: &[(&str, &str)]| -> BTreeMap<String, String> {
            list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let unix = map(&[("PATH", "/bin"), ("HOME", "/tmp"), ("LANG", "C.UTF-8")]);
        let given =
            map(&[("PATH", "/bin"), ("HOME", r"C:\h"), ("LANG", "C.UTF-8"), ("Temp", r"C:\t"), ("A", "b")]);
        let env = environment(given, &unix, r"C:\Windows", r"C:\own");
        assert!(env["PATH"].starts_with(r"C:\Windows\System32;"));
        assert_eq!(
            (env["HOME"].as_str(), env["Temp"].as_str(), env["TMP"].as_str()),
            (r"C:\h", r"C:\t", r"C:\own")
        );
        assert!(!env.contains_key("LANG") && !env.contains_key("TEMP") && env["A"] == "b");
        let block =
            String::from_utf16(&environment_block(&map(&[("B", "ü"), ("a", "b"), ("C", "")]))).unwrap();
        assert_eq!(block, "a=b\0B=ü\0C=\0\0");
        assert_eq!(environment_block(&BTreeMap::new()), [0]);
    }

    #[test]
    fn a_program_is_found_where_the_command_looks_and_nowhere_else() {
        let files = [r"C:\Windows\System32\cmd.exe", r"C:\work\tool.exe", r"C:\work\run.bat"];
        let exists = |path: &str| files.contains(&path);
        let find = |name: &str| program(name, r".;C:\Windows\System32\;C:\x", r"C:\work", exists);
        assert_eq!(find("cmd").unwrap(), files[0]);
        assert_eq!(find("cmd.exe").unwrap(), files[0]);
        assert_eq!(find(r"C:\work\tool").unwrap(), files[1]);
        assert_eq!(find(r".\tool.exe").unwrap_err().code(), Code::SandboxSpawn);
        for refused in ["tool", "nothing", r"C:\work\run.bat", "run.CMD", r"C:\work\run.bat. ."] {
            assert_eq!(find(refused).unwrap_err().code(), Code::SandboxSpawn, "{refused}");
        }
    }

    #[test]
    fn a_text_for_the_shell_is_left_as_it_is() {
        let argv = ["cmd.exe", "/d", "/s", "/c", r#"echo "a b" & dir"#].map(str::to_owned);
        assert_eq!(command_line(&argv), r#"cmd.exe /d /s /c "echo "a b" & dir""#);
        // An argument that is no text for the shell stays one argument.
        let argv = ["cmd.exe", "/c", "a b\" & c"].map(str::to_owned);
        assert_eq!(command_line(&argv), r#"cmd.exe /c "a b\" & c""#);
    }

    #[test]
    fn what_is_observed_is_json_without_what_the_shell_would_read() {
        let text = observer();
        let json = text.split_once("echo ").unwrap().1.split_once("& exit").unwrap().0;
        assert!(!json.contains(['(', ')', '|', '<', '>', '%', '^']), "{json}");
        let value: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(value["integrity"], "low");
        assert_eq!(value["notEnforced"][1], "network");
    }

    /// By the rules that Microsoft publishes for the C runtime's arguments, the program's name left out.
    fn read(line: &str) -> Vec<String> {
        let chars: Vec<char> = line.chars().collect();
        let (mut list, mut word, mut inside, mut any, mut at) = (Vec::new(), String::new(), false, false, 0);
        while at < chars.len() {
            let slashes = chars[at..].iter().take_while(|char| **char == '\\').count();
            at += slashes;
            let next = chars.get(at).copied();
            if next == Some('"') {
                word.extend(std::iter::repeat_n('\\', slashes / 2));
                if slashes % 2 == 1 {
                    word.push('"');
                } else {
                    inside = !inside;
                }
                any = true;
                at += 1;
                continue;
            }
            word.extend(std::iter::repeat_n('\\', slashes));
            any |= slashes > 0;
            match next {
                Some(' ' | '\t') if !inside => {
                    if any {
                        list.push(std::mem::take(&mut word));
                    }
                    any = false;
                }
                Some(char) => {
                    word.push(char);
                    any = true;
                }
                None => {}
            }
            at += 1;
        }
        if any {
            list.push(word);
        }
        list
    }

    proptest! {
        #[test]
        fn arguments_survive_their_text(argv in proptest::collection::vec(r#"[a\\" \t&%ü]{0,8}"#, 1..6)) {
            prop_assert_eq!(read(&command_line(&argv)), argv);
        }
    }
}
