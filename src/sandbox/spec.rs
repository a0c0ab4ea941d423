//! What the core tells `openclaw-core-init`: one command and the sandbox it gets, as arguments, so that a supervisor of
//! somebody else's can carry it. The environment of the command is not among them: arguments are there for all to see.
//!
//! Both sides are built from this file.

/// The variable that holds the command's environment, where a supervisor starts the executable.
pub(crate) const ENV_VARIABLE: &str = "OPENCLAW_SANDBOX_ENV";

/// Where the executable stands in a sandbox of namespaces.
pub(crate) const INIT_INSIDE: &str = "/run/openclaw-core-init";

/// A file or folder of the host, and where the command sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    /// Absolute and without links, as it was when the policy was checked.
    pub host: String,
    /// Where it is seen.
    pub mount: String,
    /// Whether it may be written.
    pub write: bool,
}

/// One command, and the sandbox it gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spec {
    /// The path of bubblewrap; none for Landlock and seccomp alone.
    pub bwrap: Option<String>,
    /// Options of bubblewrap that not every version has and this one does.
    pub bwrap_options: Vec<String>,
    /// What is mounted.
    pub binds: Vec<Bind>,
    /// Whether the command has the host's network.
    pub host_network: bool,
    /// A folder that is there though nothing is mounted on it.
    pub empty_dir: Option<String>,
    /// Without namespaces: the folder that stands for `/tmp`.
    pub private_tmp: Option<String>,
    /// Where the command starts.
    pub cwd: String,
    /// Whether it gets a terminal.
    pub pty: bool,
    /// Bytes.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Seconds; 0 is no limit.
    pub cpu: u64,
    /// Bytes.
    pub file: u64,
    /// Milliseconds; 0 is no limit.
    pub wall: u64,
    /// The program and its arguments.
    pub command: Vec<String>,
}

impl Spec {
    /// As arguments.
    pub(crate) fn to_args(&self) -> Vec<String> {
        let mut args = Vec::new();
        let mut put = |words: &[&str]| args.extend(words.iter().map(|word| (*word).to_owned()));
        if let Some(bwrap) = &self.bwrap {
            put(&["--bwrap", bwrap]);
        }
        for option in &self.bwrap_options {
            put(&["--bwrap-has", option]);
        }
        for bind in &self.binds {
            put(&[if bind.write { "--bind" } else { "--ro-bind" }, &bind.host, &bind.mount]);
        }
        if self.host_network {
            put(&["--host-network"]);
        }
        if let Some(dir) = &self.empty_dir {
            put(&["--empty-dir", dir]);
        }
        if let Some(dir) = &self.private_tmp {
            put(&["--private-tmp", dir]);
        }
        put(&["--cwd", &self.cwd]);
        if self.pty {
            put(&["--pty"]);
        }
        let limits = [
            ("--memory", self.memory),
            ("--pids", self.pids),
            ("--cpu", self.cpu),
            ("--file", self.file),
            ("--wall", self.wall),
        ];
        for (name, value) in limits {
            put(&[name, &value.to_string()]);
        }
        put(&["--"]);
        args.extend(self.command.iter().cloned());
        args
    }

    /// From arguments.
    pub(crate) fn from_args(args: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut args = args.into_iter();
        let mut spec = Self::default();
        loop {
            let option = args.next().ok_or("the arguments end before the command")?;
            let mut value = || args.next().ok_or_else(|| format!("{option} lacks a value"));
            match option.as_str() {
                "--bwrap" => spec.bwrap = Some(value()?),
                "--bwrap-has" => spec.bwrap_options.push(value()?),
                "--bind" | "--ro-bind" => {
                    let (host, mount) = (value()?, value()?);
                    spec.binds.push(Bind { host, mount, write: option == "--bind" });
                }
                "--host-network" => spec.host_network = true,
                "--empty-dir" => spec.empty_dir = Some(value()?),
                "--private-tmp" => spec.private_tmp = Some(value()?),
                "--cwd" => spec.cwd = value()?,
                "--pty" => spec.pty = true,
                "--memory" => spec.memory = number(&value()?)?,
                "--pids" => spec.pids = number(&value()?)?,
                "--cpu" => spec.cpu = number(&value()?)?,
                "--file" => spec.file = number(&value()?)?,
                "--wall" => spec.wall = number(&value()?)?,
                "--" => break,
                other => return Err(format!("{other:?} is no option")),
            }
        }
        spec.command = args.collect();
        if spec.command.is_empty() {
            return Err("there is no command".to_owned());
        }
        Ok(spec)
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

/// Texts as one: each ends in a NUL, which none of them holds. The lists come one after the other.
pub(crate) fn pack(lists: [&[String]; 2]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for list in lists {
        bytes.extend_from_slice(list.len().to_string().as_bytes());
        bytes.push(0);
        for text in list {
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(0);
        }
    }
    bytes
}

/// The opposite of [`pack`].
pub(crate) fn unpack(bytes: &[u8]) -> Result<[Vec<String>; 2], String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "no UTF-8")?;
    let mut texts = text.split_terminator('\0');
    let mut list = || -> Result<Vec<String>, String> {
        let count: usize =
            texts.next().and_then(|count| count.parse().ok()).ok_or("a list lacks its length")?;
        let list: Vec<String> = texts.by_ref().take(count).map(str::to_owned).collect();
        if list.len() == count { Ok(list) } else { Err("a list is cut off".to_owned()) }
    };
    Ok([list()?, list()?])
}

/// Variables as the text of one: `NAME=value`, a line each.
pub(crate) fn env_to_text(env: &[String]) -> String {
    env.iter().map(|pair| pair.replace('\\', "\\\\").replace('\n', "\\n")).collect::<Vec<_>>().join("\n")
}

/// The opposite of [`env_to_text`].
pub(crate) fn env_from_text(text: &str) -> Vec<String> {
    text.split('\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            let mut pair = String::with_capacity(line.len());
            let mut chars = line.chars();
            while let Some(char) = chars.next() {
                match char {
                    '\\' => pair.push(if chars.next() == Some('n') { '\n' } else { '\\' }),
                    char => pair.push(char),
                }
            }
            pair
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_spec_survives_its_arguments() {
        let spec = Spec {
            bwrap: Some("/usr/bin/bwrap".into()),
            bwrap_options: texts(&["bind-fd"]),
            binds: vec![
                Bind { host: "/a b".into(), mount: "/workspace".into(), write: true },
                Bind { host: "--".into(), mount: "--cwd".into(), write: false },
            ],
            host_network: true,
            empty_dir: Some("/e".into()),
            private_tmp: Some("/t".into()),
            cwd: "/workspace".into(),
            pty: true,
            memory: 1,
            pids: 2,
            cpu: 3,
            file: 4,
            wall: 5,
            command: texts(&["sh", "-c", "", "--", "--bind"]),
        };
        assert_eq!(Spec::from_args(spec.to_args()), Ok(spec.clone()));
        assert!(Spec::from_args(texts(&["--memory", "x", "--", "a"])).is_err());
        assert!(Spec::from_args(texts(&["--cwd", "/", "--"])).is_err());
    }

    #[test]
    fn packed_texts_come_out_as_they_were() {
        let lists = [texts(&["", "a\nb", "\u{1F600}"]), texts(&[])];
        assert_eq!(unpack(&pack([&lists[0], &lists[1]])), Ok(lists));
        assert!(unpack(b"2\0a\0").is_err() && unpack(b"").is_err() && unpack(b"\xff").is_err());
    }

    #[test]
    fn an_environment_survives_its_text() {
        let env = texts(&["A=b", "LINES=1\n2\\n\\\\\n", "EMPTY=", "E=x=y"]);
        assert_eq!(env_from_text(&env_to_text(&env)), env);
        assert!(env_from_text("").is_empty());
    }
}
