use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;
use rustix::fs::CWD;

use super::*;
use crate::beneath::Root;
use crate::sandbox::Access;

/// `work` is mounted at /workspace to write, `data` at /data and `work/skills` at /workspace/skills to read; `outside` is
/// not mounted.
struct Place {
    tmp: tempfile::TempDir,
    files: SandboxFs,
}

impl Place {
    fn new() -> Self {
        Self::within(tempfile::tempdir().unwrap())
    }

    /// In memory, where there is such a place: a million renames wait for no disk.
    fn in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        Self::within(
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap(),
        )
    }

    fn within(tmp: tempfile::TempDir) -> Self {
        for dir in ["work/a/b", "work/skills", "data/d", "outside/d"] {
            fs::create_dir_all(tmp.path().join(dir)).unwrap();
        }
        for (file, text) in [
            ("work/a/file", "inside"),
            ("work/a/b/deep", "inside"),
            ("work/skills/skill", "guarded"),
            ("data/file", "data"),
            ("outside/file", "outside"),
        ] {
            fs::write(tmp.path().join(file), text).unwrap();
        }
        let files = open(&[
            (tmp.path().join("work"), "/workspace", Access::ReadWrite),
            (tmp.path().join("data"), "/data", Access::ReadOnly),
            (tmp.path().join("work/skills"), "/workspace/skills", Access::ReadOnly),
        ]);
        Self { tmp, files }
    }

    fn host(&self, path: &str) -> PathBuf {
        self.tmp.path().join(path)
    }

    fn link(&self, name: &str, target: &str) {
        symlink(target, self.host("work").join(name)).unwrap();
    }

    fn read(&self, path: &str) -> Result<String> {
        let (data, _) = self.files.read(path, DEFAULT_MAX_BYTES, &CancellationToken::new())?;
        Ok(String::from_utf8(data).unwrap())
    }

    fn write(&self, path: &str, text: &str) -> Result<Written> {
        self.files.write(path, text.as_bytes(), WriteOptions::default(), &CancellationToken::new())
    }

    fn write_with(&self, path: &str, text: &str, options: WriteOptions) -> Result<Written> {
        self.files.write(path, text.as_bytes(), options, &CancellationToken::new())
    }

    fn remove(&self, path: &str) -> Result<()> {
        let options = RemoveOptions { recursive: true, ..RemoveOptions::default() };
        self.files.remove(path, options, &CancellationToken::new())
    }

    /// Everything that could change a file at `path`.
    fn changes(&self, path: &str) -> [(&'static str, Result<()>); 6] {
        let all = WriteOptions { mkdir: true, ..WriteOptions::default() };
        let here = "/workspace/a/file";
        [
            ("write", self.write_with(path, "changed", all).map(drop)),
            (
                "create",
                self.write_with(path, "changed", WriteOptions { exclusive: true, ..all }).and_then(|done| {
                    if done == Written::Exists { self.write(path, "changed").map(drop) } else { Ok(()) }
                }),
            ),
            ("copy", self.files.copy(here, path, all, &CancellationToken::new()).map(drop)),
            ("rename", self.files.rename(here, path)),
            ("mkdirp", self.files.mkdirp(&format!("{path}/sub"), false)),
            ("remove", self.remove(path)),
        ]
    }

    /// Names that a write leaves while it is under way.
    fn drafts(&self) -> Vec<PathBuf> {
        fn visit(dir: PathBuf, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.file_name().unwrap().to_string_lossy().starts_with(".openclaw-") {
                    found.push(path);
                } else if path.symlink_metadata().unwrap().is_dir() {
                    visit(path, found);
                }
            }
        }
        let mut found = Vec::new();
        visit(self.tmp.path().to_owned(), &mut found);
        found
    }
}

fn open(mounts: &[(PathBuf, &str, Access)]) -> SandboxFs {
    let mounts: Vec<_> = mounts
        .iter()
        .map(|(host, mount, access)| Mount {
            // `/proc/self` is a link.
            host: host.canonicalize().unwrap(),
            mount: (*mount).into(),
            access: *access,
        })
        .collect();
    SandboxFs::open(&mounts, "/workspace").unwrap()
}

fn code<T: std::fmt::Debug>(outcome: Result<T>) -> Code {
    outcome.unwrap_err().code()
}

/// Runs `test` as it is, and in threads in which `openat2` is missing, and forbidden.
#[cfg(target_os = "linux")]
fn with_each_way_to_open(test: fn()) {
    test();
    for error in [Errno::NOSYS, Errno::PERM] {
        let ran = std::thread::spawn(move || {
            forbid_openat2(error);
            let none =
                rustix::fs::openat2(CWD, "/", OFlags::PATH, Mode::empty(), rustix::fs::ResolveFlags::empty());
            assert_eq!(none.unwrap_err(), error);
            test();
        });
        ran.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}

#[cfg(not(target_os = "linux"))]
fn with_each_way_to_open(test: fn()) {
    test();
}

/// For this thread alone, by a filter of system calls.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "a filter of system calls has no safe interface here")]
fn forbid_openat2(error: Errno) {
    let number = u32::try_from(libc::SYS_openat2).unwrap();
    let deny = libc::SECCOMP_RET_ERRNO | u32::try_from(error.raw_os_error()).unwrap();
    let op = |code: u32, jt, jf, k| libc::sock_filter { code: u16::try_from(code).unwrap(), jt, jf, k };
    let mut filter = [
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, deny),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: both calls only read what they are given, which outlives them.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

#[test]
fn a_path_leads_where_it_would_inside_the_sandbox() {
    with_each_way_to_open(|| {
        let place = Place::new();
        place.link("to-a", "a");
        place.link("absolute", "/workspace/a/b");
        place.link("to-data", "/data");
        place.link("around", "../../data/../workspace/a");
        place.link("a/up", "../a/./b//");
        for (path, text, real) in [
            ("/workspace/a/file", "inside", "/workspace/a/file"),
            ("a/file", "inside", "/workspace/a/file"),
            ("./a//b/../file", "inside", "/workspace/a/file"),
            ("to-a/up/deep", "inside", "/workspace/a/b/deep"),
            ("absolute/deep", "inside", "/workspace/a/b/deep"),
            ("absolute/../file", "inside", "/workspace/a/file"),
            ("to-data/file", "data", "/data/file"),
            ("../data/file", "data", "/data/file"),
            ("/../../data/./file", "data", "/data/file"),
            ("around/file", "inside", "/workspace/a/file"),
            ("skills/skill", "guarded", "/workspace/skills/skill"),
            ("skills/../a/file", "inside", "/workspace/a/file"),
        ] {
            assert_eq!(place.read(path).unwrap(), text, "{path}");
            assert_eq!(place.files.resolve(path, false).unwrap(), real, "{path}");
            let (_, found) = place.files.read(path, 100, &CancellationToken::new()).unwrap();
            assert_eq!(found, real, "{path}");
        }
        assert_eq!(place.files.resolve("to-data", true).unwrap(), "/workspace/to-data");
        assert_eq!(place.files.resolve("absolute/new/er", false).unwrap(), "/workspace/a/b/new/er");
        assert_eq!(code(place.files.resolve("absolute/new/../x", false)), Code::Io);
    });
}

#[test]
fn what_is_not_mounted_is_not_there() {
    with_each_way_to_open(|| {
        let place = Place::new();
        let outside = place.host("outside");
        let outside = outside.to_str().unwrap();
        place.link("out", "../outside");
        place.link("out-file", "../outside/file");
        place.link("absolute", outside);
        place.link("own-host-path", place.host("work/a").to_str().unwrap());
        place.link("magic", "/proc/self/root");
        place.link("magic-fd", "/dev/fd/0");
        place.link("loop", "loop");
        place.link("dangling", "../outside/new");
        let absolute = format!("{outside}/file");
        for path in [
            "/etc/passwd",
            "/",
            "/proc/self/root/etc/passwd",
            "/proc/self/fd/0",
            "../outside/file",
            "a/../../outside/file",
            "out",
            "out/file",
            "out-file",
            "absolute/file",
            "own-host-path/file",
            "magic/etc/passwd",
            "magic-fd",
            "loop",
            "loop/x",
            "dangling",
            "/workspace2/x",
            absolute.as_str(),
        ] {
            assert!(place.read(path).is_err(), "{path}");
            if path != "/" {
                assert_eq!(code(place.read(path)), Code::PathEscape, "{path}");
                let seen = place.files.stat(path);
                assert!(path.starts_with("loop") || seen.unwrap().is_none(), "{path}");
            }
            for (name, outcome) in place.changes(&format!("{path}/x")) {
                assert!(outcome.is_err(), "{name} {path}");
            }
        }
        for path in ["/etc/new", "out/new", "absolute/new", "dangling", "magic/tmp/new"] {
            for (name, outcome) in place.changes(path) {
                // A link itself may be removed or replaced; what it leads to is not touched.
                if path == "dangling" && matches!(name, "remove" | "rename" | "create") {
                    continue;
                }
                assert!(outcome.is_err(), "{name} {path}");
            }
        }
        let kept: HashSet<_> =
            fs::read_dir(outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(kept, ["d", "file"].map(OsString::from).into());
        assert_eq!(fs::read_to_string(place.host("outside/file")).unwrap(), "outside");
    });
}

/// Who may write in one mount may swap what another one names, before it is opened.
#[test]
fn what_is_mounted_is_found_without_following_a_link() {
    with_each_way_to_open(|| {
        let place = Place::new();
        let work = place.host("work").canonicalize().unwrap();
        symlink("../outside", work.join("swapped")).unwrap();
        fs::create_dir(work.join("deep")).unwrap();
        symlink("../../outside", work.join("deep/swapped")).unwrap();
        symlink("../outside/file", work.join("file")).unwrap();
        for host in ["swapped", "swapped/d", "deep/swapped/d", "file", "a/..", "missing"] {
            let host = work.join(host);
            let mount = Mount { host, mount: "/workspace".into(), access: Access::ReadOnly };
            let opened = SandboxFs::open(std::slice::from_ref(&mount), "/workspace");
            // A file is opened when it is read.
            let read = opened.and_then(|files| files.read("/workspace", 100, &CancellationToken::new()));
            assert!(read.is_err(), "{}", mount.host.display());
        }
    });
}

#[test]
fn what_is_mounted_over_a_directory_hides_it_by_every_way_there() {
    with_each_way_to_open(|| {
        let place = Place::new();
        let over = place.host("over");
        fs::create_dir_all(&over).unwrap();
        fs::write(over.join("file"), "over").unwrap();
        let files = open(&[
            (place.host("work"), "/workspace", Access::ReadWrite),
            (over, "/workspace/a/b", Access::ReadOnly),
        ]);
        place.link("to-b", "a/b");
        place.link("up", "a/../a/b");
        let read = |path: &str| files.read(path, 100, &CancellationToken::new());
        for path in ["a/b/file", "to-b/file", "up/file", "/workspace/a/../a/./b/file"] {
            assert_eq!(read(path).unwrap().0, b"over", "{path}");
            let written = files.write(path, b"x", WriteOptions::default(), &CancellationToken::new());
            assert_eq!(code(written), Code::Io, "{path}");
        }
        // What is beneath the mount is hidden.
        assert_eq!(code(read("a/b/deep")), Code::Io);
        assert_eq!(code(read("to-b/deep")), Code::Io);
        // A place that holds a mount stays where it is.
        for path in ["a/b", "a", "to-b/", "/workspace"] {
            let options = RemoveOptions { recursive: true, ..RemoveOptions::default() };
            assert_eq!(code(files.remove(path, options, &CancellationToken::new())), Code::Io, "{path}");
            assert_eq!(code(files.rename(path, "/workspace/elsewhere")), Code::Io, "{path}");
            assert_eq!(code(files.rename("/workspace/skills", path)), Code::Io, "{path}");
        }
        assert_eq!(fs::read_to_string(place.host("work/a/b/deep")).unwrap(), "inside");
    });
}

/// Inside, a directory above a mount can be renamed, and the mount goes with it; here it is known by what it is.
#[test]
fn a_guarded_directory_is_read_only_under_every_name() {
    with_each_way_to_open(|| {
        let place = Place::new();
        fs::create_dir_all(place.host("work/.agents/skills/s")).unwrap();
        fs::write(place.host("work/.agents/skills/s/file"), "guarded").unwrap();
        let files = open(&[
            (place.host("work"), "/workspace", Access::ReadWrite),
            (place.host("work/.agents/skills"), "/workspace/.agents/skills", Access::ReadOnly),
        ]);
        fs::rename(place.host("work/.agents"), place.host("work/moved")).unwrap();
        let never = CancellationToken::new();
        let path = "/workspace/moved/skills/s/file";
        assert_eq!(files.read(path, 100, &never).unwrap().0, b"guarded");
        assert_eq!(code(files.write(path, b"x", WriteOptions::default(), &never)), Code::Io);
        assert_eq!(code(files.write("moved/skills/new", b"x", WriteOptions::default(), &never)), Code::Io);
        assert_eq!(code(files.rename("moved/skills", "skills-of-mine")), Code::Io);
        let options = RemoveOptions { recursive: true, ..RemoveOptions::default() };
        for path in ["moved", "moved/skills", "moved/skills/s", path] {
            assert_eq!(code(files.remove(path, options, &never)), Code::Io, "{path}");
        }
        assert_eq!(fs::read_to_string(place.host("work/moved/skills/s/file")).unwrap(), "guarded");
    });
}

#[test]
fn a_read_only_mount_refuses_every_change() {
    with_each_way_to_open(|| {
        let place = Place::new();
        place.link("to-data", "/data");
        place.link("to-skills", "skills");
        for path in
            ["/data/file", "/data/new", "to-data/file", "skills/skill", "skills/new", "to-skills/skill"]
        {
            for (name, outcome) in place.changes(path) {
                let error = outcome.unwrap_err();
                assert_eq!(error.code(), Code::Io, "{name} {path}");
            }
        }
        assert!(place.write("/data/file", "x").unwrap_err().to_string().contains("read-only"));
        assert_eq!(code(place.files.rename("/data/file", "/workspace/mine")), Code::Io);
        assert_eq!(fs::read_to_string(place.host("data/file")).unwrap(), "data");
        assert_eq!(fs::read_to_string(place.host("work/skills/skill")).unwrap(), "guarded");
        assert!(place.drafts().is_empty());
        // What is there already is no change.
        place.files.mkdirp("/data/d", false).unwrap();
        // From there is allowed.
        place.files.copy("/data/file", "a/copy", WriteOptions::default(), &CancellationToken::new()).unwrap();
        assert_eq!(place.read("a/copy").unwrap(), "data");
    });
}

#[test]
fn pipes_sockets_devices_and_second_names_are_refused_and_hang_nobody() {
    with_each_way_to_open(|| {
        let place = Place::new();
        let pipe = place.host("work/pipe");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let _socket = UnixListener::bind(place.host("work/socket")).unwrap();
        let mut special = vec!["pipe", "socket"];
        let null = rustix::fs::makedev(1, 3);
        let device = place.host("work/null");
        match rustix::fs::mknodat(CWD, &device, FileType::CharacterDevice, Mode::from_raw_mode(0o600), null) {
            Ok(()) => special.push("null"),
            Err(error) => eprintln!("no device was tried: only root makes one ({error})"),
        }
        place.link("to-pipe", "pipe");
        for path in special.iter().chain(&["to-pipe"]) {
            assert_eq!(code(place.read(path)), Code::Io, "{path}");
            assert_eq!(code(place.write(path, "x")), Code::Io, "{path}");
            let copied = place.files.copy(path, "copy", WriteOptions::default(), &CancellationToken::new());
            assert_eq!(code(copied), Code::Io, "{path}");
            let over = place.files.copy("a/file", path, WriteOptions::default(), &CancellationToken::new());
            assert_eq!(code(over), Code::Io, "{path}");
            assert_eq!(place.files.stat(path).unwrap().unwrap().kind, Kind::Other, "{path}");
        }
        fs::hard_link(place.host("outside/file"), place.host("work/second")).unwrap();
        assert_eq!(code(place.read("second")), Code::PathEscape);
        assert_eq!(code(place.write("second", "x")), Code::PathEscape);
        let copied = place.files.copy("second", "copy", WriteOptions::default(), &CancellationToken::new());
        assert_eq!(code(copied), Code::PathEscape);
        assert_eq!(fs::read_to_string(place.host("outside/file")).unwrap(), "outside");
        // Its name goes, and the file stays.
        place.remove("second").unwrap();
        assert_eq!(fs::read_to_string(place.host("outside/file")).unwrap(), "outside");
        for path in special {
            place.remove(path).unwrap();
        }
        assert!(place.drafts().is_empty());
    });
}

#[test]
fn a_file_is_written_whole_and_keeps_its_mode() {
    with_each_way_to_open(|| {
        let place = Place::new();
        assert_eq!(place.write("new", "one").unwrap(), Written::Created);
        assert_eq!(place.write("new", "two").unwrap(), Written::Replaced);
        assert_eq!(place.read("new").unwrap(), "two");
        let script = place.host("work/script");
        fs::write(&script, "old").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o6751)).unwrap();
        let before = script.metadata().unwrap().ino();
        place.write("script", "new").unwrap();
        let after = script.metadata().unwrap();
        assert_eq!(after.mode() & 0o7777, 0o751, "a replaced file keeps its mode, and no set-uid bit");
        assert_ne!(after.ino(), before, "a file is replaced, not overwritten");
        // Through a link, its target is written, and the link stays one.
        place.link("by-link", "a/target");
        place.write("by-link", "through").unwrap();
        assert_eq!(fs::read_to_string(place.host("work/a/target")).unwrap(), "through");
        assert!(place.host("work/by-link").symlink_metadata().unwrap().is_symlink());
        // Not through it where the file must be new.
        let exclusive = WriteOptions { exclusive: true, mkdir: true, ..WriteOptions::default() };
        place.link("dangling", "a/nowhere");
        for path in ["new", "a", "dangling", "skills", "/data"] {
            assert_eq!(place.write_with(path, "x", exclusive).unwrap(), Written::Exists, "{path}");
        }
        assert_eq!(place.write_with("deep/er/new", "x", exclusive).unwrap(), Written::Created);
        assert!(!place.host("work/a/nowhere").exists());
        assert_eq!(code(place.write("a", "x")), Code::Io);
        assert_eq!(code(place.write("missing/file", "x")), Code::Io);
        assert_eq!(code(place.write("a/file/x", "x")), Code::Io);
        assert!(place.drafts().is_empty());
    });
}

#[test]
fn a_call_that_was_cancelled_leaves_nothing() {
    let place = Place::new();
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    let options = WriteOptions::default();
    assert!(place.files.write("new", b"x", options, &cancelled).is_err());
    assert!(place.files.copy("a/file", "new", options, &cancelled).is_err());
    assert!(place.files.read("a/file", 100, &cancelled).is_err());
    let recursive = RemoveOptions { recursive: true, ..RemoveOptions::default() };
    assert!(place.files.remove("a", recursive, &cancelled).is_err());
    assert!(!place.host("work/new").exists() && place.host("work/a/b/deep").exists());
    assert!(place.drafts().is_empty());
}

#[test]
fn no_more_is_read_than_was_asked_for_even_of_what_grows() {
    let place = Place::new();
    let read = |files: &SandboxFs, path: &str, most| files.read(path, most, &CancellationToken::new());
    assert_eq!(read(&place.files, "a/file", 6).unwrap().0, b"inside");
    assert_eq!(code(read(&place.files, "a/file", 5)), Code::Limit);
    // Of no size, they say, and yet there is something to read.
    if cfg!(target_os = "linux") {
        let proc = open(&[(PathBuf::from("/proc/self"), "/workspace", Access::ReadOnly)]);
        assert_eq!(proc.stat("maps").unwrap().unwrap().size, 0);
        assert_eq!(code(read(&proc, "maps", 64)), Code::Limit);
        assert!(read(&proc, "maps", 1 << 24).unwrap().0.len() > 64);
        for magic in ["exe", "cwd/x", "root/etc/passwd", "fd/0", "ns/mnt"] {
            assert!(read(&proc, magic, 1 << 24).is_err(), "{magic}");
        }
    }
}

#[test]
fn a_pinned_path_goes_through_no_link() {
    with_each_way_to_open(|| {
        let place = Place::new();
        let pinned = WriteOptions { pinned: true, mkdir: true, ..WriteOptions::default() };
        let path = place.files.resolve("a/new/file", false).unwrap();
        assert_eq!(place.write_with(&path, "x", pinned).unwrap(), Written::Created);
        // The directory is swapped for a link, even one that stays inside.
        fs::rename(place.host("work/a/new"), place.host("work/a/was")).unwrap();
        place.link("a/new", "../skills");
        assert_eq!(code(place.write_with(&path, "y", pinned)), Code::PathEscape);
        place.link("a/last", "b/deep");
        assert_eq!(code(place.write_with("/workspace/a/last", "y", pinned)), Code::PathEscape);
        assert_eq!(code(place.files.mkdirp("/workspace/a/new/dir", true)), Code::PathEscape);
        let remove = RemoveOptions { recursive: true, force: true, pinned: true };
        assert_eq!(code(place.files.remove(&path, remove, &CancellationToken::new())), Code::PathEscape);
        assert_eq!(fs::read_to_string(place.host("work/a/was/file")).unwrap(), "x");
        assert_eq!(fs::read_to_string(place.host("work/a/b/deep")).unwrap(), "inside");
    });
}

#[test]
fn a_directory_is_removed_with_what_is_in_it_and_nothing_else() {
    with_each_way_to_open(|| {
        let place = Place::new();
        fs::create_dir_all(place.host("work/tree/x/y")).unwrap();
        fs::write(place.host("work/tree/x/file"), "x").unwrap();
        symlink(place.host("outside"), place.host("work/tree/out")).unwrap();
        symlink("../a", place.host("work/tree/inside")).unwrap();
        let plain = RemoveOptions::default();
        let never = CancellationToken::new();
        assert_eq!(code(place.files.remove("tree", plain, &never)), Code::Io);
        place.remove("tree").unwrap();
        assert!(!place.host("work/tree").exists());
        assert!(place.host("outside/file").exists() && place.host("work/a/b/deep").exists());
        assert_eq!(code(place.remove("tree")), Code::Io);
        place.files.remove("tree", RemoveOptions { force: true, ..plain }, &never).unwrap();
        place.files.mkdirp("p/q/r", false).unwrap();
        place.files.mkdirp("p/q/r", false).unwrap();
        place.files.remove("p/q/r", plain, &never).unwrap();
        assert!(place.host("work/p/q").is_dir() && !place.host("work/p/q/r").exists());
        assert_eq!(code(place.files.mkdirp("a/file/x", false)), Code::Io);
    });
}

#[test]
fn names_are_moved_and_links_are_not_followed() {
    let place = Place::new();
    place.link("link", "a/file");
    place.files.rename("link", "a/moved").unwrap();
    assert!(place.host("work/a/moved").symlink_metadata().unwrap().is_symlink());
    place.files.rename("a/b", "c").unwrap();
    assert_eq!(place.read("c/deep").unwrap(), "inside");
    assert_eq!(code(place.files.rename("missing", "x")), Code::Io);
    assert_eq!(code(place.files.rename("a/file", "no/such/dir")), Code::Io);
    place.write("one", "1").unwrap();
    place.write("two", "2").unwrap();
    place.files.rename("one", "two").unwrap();
    assert_eq!(place.read("two").unwrap(), "1");
}

#[test]
fn a_listing_shows_what_the_sandbox_shows() {
    let place = Place::new();
    fs::write(place.host("extra"), "file").unwrap();
    let files = open(&[
        (place.host("work"), "/workspace", Access::ReadWrite),
        (place.host("data"), "/mnt/far/data", Access::ReadOnly),
        (place.host("outside"), "/workspace/.late/outside", Access::ReadOnly),
        (place.host("extra"), "/workspace/a/extra", Access::ReadOnly),
    ]);
    place.link("link", "a");
    let names = |path: &str| -> Vec<_> {
        let listed = files.read_directory(path).unwrap().into_iter();
        listed.map(|entry| format!("{}{}", entry.name, if entry.is_directory { "/" } else { "" })).collect()
    };
    assert_eq!(names("/"), ["mnt/", "workspace/"]);
    assert_eq!(names("/mnt"), ["far/"]);
    assert_eq!(names("."), [".late/", "a/", "link", "skills/"]);
    assert_eq!(names(".late"), ["outside/"]);
    assert_eq!(names("link"), ["b/", "extra", "file"]);
    assert_eq!(files.read("a/extra", 9, &CancellationToken::new()).unwrap().0, b"file");
    let write = |path: &str| files.write(path, b"x", WriteOptions::default(), &CancellationToken::new());
    assert_eq!(code(write("a/extra")), Code::Io);
    assert_eq!(code(write(".late/x")), Code::PathEscape);
    assert_eq!(code(files.read_directory("a/file")), Code::Io);
    assert_eq!(code(files.read_directory("/mnt/x")), Code::PathEscape);
    assert_eq!(code(files.read_directory("/etc")), Code::PathEscape);
    let seen = files.stat("/mnt").unwrap().unwrap();
    assert_eq!(seen.kind, Kind::Directory);
    let seen = files.stat("a/file").unwrap().unwrap();
    assert_eq!((seen.kind, seen.size), (Kind::File, 6));
    let modified = place.host("work/a/file").metadata().unwrap();
    #[allow(clippy::cast_precision_loss, reason = "a test of this century")]
    let expected = modified.mtime() as f64 * 1e3 + modified.mtime_nsec() as f64 / 1e6;
    assert!((seen.modified_ms - expected).abs() < 0.001);
    assert!(files.stat("a/none").unwrap().is_none() && files.stat("a/file/x").unwrap().is_none());
}

#[test]
fn a_path_without_end_is_an_error() {
    let place = Place::new();
    assert_eq!(code(place.read("")), Code::Io);
    assert_eq!(code(place.read("a\0b")), Code::Io);
    assert_eq!(code(place.read(&"a/".repeat(3000))), Code::Io);
    assert_eq!(code(place.files.mkdirp(&"d/".repeat(400), false)), Code::Io);
    place.remove("d").unwrap();
}

/// One of the few names that trees and paths are made of, so that they meet.
fn path() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", "b", "c", ".", "..", "workspace"]);
    (prop::collection::vec(part, 1..7), prop::sample::select(vec!["", "", "/", "/workspace/"]))
        .prop_map(|(parts, begin)| format!("{begin}{}", parts.join("/")))
}

fn entry() -> impl Strategy<Value = (String, Option<Option<String>>)> {
    let name =
        prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4).prop_map(|p| p.join("/"));
    // A directory, a file, or a link.
    (name, prop_oneof![2 => Just(None), 1 => Just(Some(None)), 4 => path().prop_map(|to| Some(Some(to)))])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The kernel's own answer, where the root is the sandbox's: a directory that holds `workspace` and nothing else.
    #[test]
    fn the_walk_goes_as_the_kernel_does_in_a_root_of_its_own(
        entries in prop::collection::vec(entry(), 1..14),
        paths in prop::collection::vec(path(), 12),
    ) {
        let tmp = tempfile::tempdir().unwrap();
        let work = tmp.path().canonicalize().unwrap().join("workspace");
        fs::create_dir(&work).unwrap();
        for (name, what) in &entries {
            let at = work.join(name);
            // In a link's place, a file would be made where that leads.
            let free = at.symlink_metadata().is_err();
            let inside = at.parent().and_then(|dir| dir.canonicalize().ok()).is_some_and(|dir| dir.starts_with(&work));
            if free && inside {
                _ = match what {
                    None => fs::create_dir(at),
                    Some(None) => fs::write(at, "inside"),
                    Some(Some(target)) => symlink(target, at),
                };
            }
        }
        let files = open(&[(work.clone(), "/workspace", Access::ReadWrite)]);
        for path in &paths {
            let seen = files.resolve(path, false);
            if let Ok(real) = &seen {
                prop_assert!(real == "/" || Path::new(real).starts_with("/workspace"), "{path} leads to {real}");
            }
            let data = files.read(path, 100, &CancellationToken::new());
            if let Ok((data, _)) = &data {
                prop_assert_eq!(data.as_slice(), b"inside");
            }
            #[cfg(target_os = "linux")]
            {
                use rustix::fs::{ResolveFlags, openat2};
                let root = rustix::fs::open(tmp.path(), OFlags::PATH, Mode::empty()).unwrap();
                let full = if path.starts_with('/') { path.clone() } else { format!("/workspace/{path}") };
                let flags = OFlags::RDONLY | OFlags::NONBLOCK;
                let kernel = || openat2(&root, full.as_str(), flags, Mode::empty(), ResolveFlags::IN_ROOT);
                // "Try again" is about renames anywhere on this machine.
                let seen_by_kernel = std::iter::repeat_with(kernel).find(|outcome| outcome.as_ref().err() != Some(&Errno::AGAIN));
                match seen_by_kernel.unwrap() {
                    Ok(file) => {
                        let stat = rustix::fs::fstat(&file).unwrap();
                        let ours = files.stat(path).unwrap().unwrap();
                        prop_assert_eq!(ours.kind, Kind::of(&stat), "{}", path);
                        prop_assert_eq!(data.is_ok(), ours.kind == Kind::File, "{}", path);
                        let real = Root::open(tmp.path()).unwrap().path().join(seen.unwrap().trim_start_matches('/'));
                        prop_assert_eq!(real.metadata().unwrap().ino(), stat.st_ino, "{}", path);
                    }
                    Err(error) => {
                        prop_assert!(data.is_err(), "{path}: the kernel says {error}");
                        prop_assert!(!matches!(files.stat(path), Ok(Some(_))), "{path}: the kernel says {error}");
                    }
                }
            }
        }
    }
}

/// Ends the other thread, also when an assertion fails.
#[cfg(target_os = "linux")]
struct SetAtEnd<'a>(&'a AtomicBool);

#[cfg(target_os = "linux")]
impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A directory and a link out of the sandbox change places a million times, as fast as one thread can, while another
/// does everything that there is to do.
#[cfg(target_os = "linux")]
#[test]
fn who_swaps_a_directory_for_a_link_gets_nobody_outside() {
    use rustix::fs::{RenameFlags, renameat_with};

    const SWAPS: u64 = 1_000_000;
    let place = Place::in_memory();
    for dir in ["work/swap/sub", "outside/sub"] {
        fs::create_dir_all(place.host(dir)).unwrap();
    }
    fs::write(place.host("work/swap/sub/file"), "inside").unwrap();
    fs::write(place.host("outside/sub/file"), "outside").unwrap();
    fs::write(place.host("work/swap/last"), "inside").unwrap();
    fs::hard_link(place.host("outside/file"), place.host("outside/second")).unwrap();
    place.link("bait", "../outside");
    place.link("bait-last", "../../outside/file");
    let (one, two) = (place.host("work/swap"), place.host("work/bait"));
    let swaps = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let (mut inside, mut refused, mut written, mut fooled) = (0_u64, 0_u64, 0_u64, 0_u64);
    let before: Vec<_> = fs::read_dir(place.host("outside/sub")).unwrap().collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE).unwrap();
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        });
        let _ends = SetAtEnd(&done);
        let never = CancellationToken::new();
        let options = WriteOptions { mkdir: true, ..WriteOptions::default() };
        let recursive = RemoveOptions { recursive: true, force: true, pinned: false };
        let named = place.host("work/swap/sub/file");
        let work = place.host("work").canonicalize().unwrap();
        while swaps.load(Ordering::Relaxed) < SWAPS
            || inside < 300
            || refused < 300
            || written < 100
            || fooled == 0
        {
            // The attack works: who looks where a path leads, and then opens it by name, is led out.
            let seems_inside = named.canonicalize().is_ok_and(|real| real.starts_with(&work));
            if seems_inside && fs::read_to_string(&named).is_ok_and(|text| text == "outside") {
                fooled += 1;
            }
            match place.read("swap/sub/../sub/file") {
                Ok(text) => {
                    assert_eq!(text, "inside");
                    inside += 1;
                }
                Err(error) => {
                    // Swapped too often while it was looked at: no directory, they say.
                    assert!(matches!(error.code(), Code::PathEscape | Code::Io), "{error}");
                    refused += u64::from(error.code() == Code::PathEscape);
                }
            }
            if place.files.write("swap/sub/new", b"new", options, &never).is_ok() {
                written += 1;
            }
            _ = place.files.copy("swap/sub/file", "swap/sub/copy", options, &never);
            _ = place.files.rename("swap/sub/copy", "swap/sub/moved");
            _ = place.files.mkdirp("swap/sub/dir/deep", false);
            _ = place.files.remove("swap/sub/dir", recursive, &never);
            _ = place.files.remove("swap/sub/moved", recursive, &never);
            if let Ok(names) = place.files.read_directory("swap") {
                assert!(names.iter().any(|entry| entry.name == "last"), "{names:?}");
            }
            if let Ok(Some(seen)) = place.files.stat("swap/sub/file") {
                assert_eq!(seen.size, 6);
            }
        }
    });
    let after: Vec<_> = fs::read_dir(place.host("outside/sub")).unwrap().collect();
    assert_eq!(before.len(), after.len(), "{after:?}");
    assert_eq!(fs::read_to_string(place.host("outside/sub/file")).unwrap(), "outside");
    assert!(place.drafts().is_empty());
    let swaps = swaps.into_inner();
    eprintln!(
        "{swaps} swaps: {inside} inside, {refused} refused, {written} written; by name, {fooled} were led out"
    );
}

/// The same for the last component: a file, a link out, and a pipe.
#[cfg(target_os = "linux")]
#[test]
fn who_swaps_a_file_for_a_link_or_a_pipe_gets_nothing_of_outside() {
    use rustix::fs::{RenameFlags, renameat_with};

    let place = Place::in_memory();
    fs::write(place.host("work/swap"), "inside").unwrap();
    place.link("bait", "../outside/file");
    rustix::fs::mknodat(CWD, place.host("work/pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let done = AtomicBool::new(false);
    let (mut inside, mut refused, mut pipes) = (0, 0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let name = |name: &str| place.host("work").join(name);
            while !done.load(Ordering::Relaxed) {
                for other in ["bait", "pipe"] {
                    renameat_with(CWD, name("swap"), CWD, name(other), RenameFlags::EXCHANGE).unwrap();
                }
            }
        });
        let _ends = SetAtEnd(&done);
        while inside < 200 || refused < 200 || pipes < 200 {
            match place.read("swap") {
                Ok(text) => {
                    assert_eq!(text, "inside");
                    inside += 1;
                }
                Err(error) if error.code() == Code::PathEscape => refused += 1,
                Err(error) => {
                    assert_eq!(error.code(), Code::Io, "{error}");
                    pipes += 1;
                }
            }
        }
    });
    assert_eq!(fs::read_to_string(place.host("outside/file")).unwrap(), "outside");
}
