use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;

/// `root` beside `outside`, each in `tmp`.
struct Place {
    tmp: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let tmp = tempfile::tempdir().unwrap();
        for dir in ["root/a/b", "outside/d"] {
            fs::create_dir_all(tmp.path().join(dir)).unwrap();
        }
        for (file, text) in
            [("root/a/file", "inside"), ("root/a/b/deep", "inside"), ("outside/file", "outside")]
        {
            fs::write(tmp.path().join(file), text).unwrap();
        }
        Self { tmp }
    }

    fn root(&self) -> PathBuf {
        self.tmp.path().canonicalize().unwrap().join("root")
    }

    fn link(&self, name: &str, target: &str) {
        symlink(target, self.root().join(name)).unwrap();
    }

    /// Each implementation that this system has.
    fn both(&self) -> Vec<Root> {
        let root = Root::open(&self.root()).unwrap();
        #[cfg(target_os = "linux")]
        let roots = {
            let mut walking = Root::open(&self.root()).unwrap();
            walking.inner.ask_kernel = false;
            vec![root, walking]
        };
        #[cfg(not(target_os = "linux"))]
        let roots = vec![root];
        roots
    }
}

fn code<T>(outcome: Result<T>) -> Code {
    match outcome {
        Ok(_) => panic!("was followed"),
        Err(error) => error.code(),
    }
}

fn text(mut file: File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_path_is_resolved_through_links_that_stay_inside() {
    let place = Place::new();
    place.link("to-a", "a");
    place.link("a/up", "../a/./b//");
    place.link("a/b/far", "../../to-a/up/deep");
    place.link("here", ".");
    for root in place.both() {
        for (path, found) in [
            ("a/file", "a/file"),
            ("./a//b/../file", "a/file"),
            ("to-a/up/deep", "a/b/deep"),
            ("to-a/up/far", "a/b/deep"),
            ("here/here/to-a", "a"),
            ("a/b/", "a/b"),
            ("a/b/..", "a"),
            (".", ""),
            ("a/..", ""),
        ] {
            let expected = if found.is_empty() { place.root() } else { place.root().join(found) };
            assert_eq!(root.resolve(Path::new(path)).unwrap(), expected, "{path}");
        }
        let absolute = place.root().join("to-a/file");
        assert_eq!(root.resolve(&absolute).unwrap(), place.root().join("a/file"));
        assert_eq!(root.resolve(&place.root()).unwrap(), place.root());
        assert_eq!(text(root.open_file(Path::new("to-a/up/far"), Access::Read).unwrap()), "inside");
    }
}

#[test]
fn what_does_not_exist_is_resolved_by_name_where_it_would_be_created() {
    let place = Place::new();
    place.link("to-new", "a/new");
    for root in place.both() {
        for (path, found) in [
            ("a/new", "a/new"),
            ("a/new/er/est", "a/new/er/est"),
            ("to-new", "a/new"),
            ("to-new/x/", "a/new/x"),
        ] {
            assert_eq!(root.resolve(Path::new(path)).unwrap(), place.root().join(found), "{path}");
        }
        // What does not exist has no parent.
        assert_eq!(code(root.resolve(Path::new("a/new/../file"))), Code::Io);
        assert_eq!(code(root.resolve(Path::new("a/file/x"))), Code::Io);
    }
}

#[test]
fn whatever_leads_out_is_refused_and_touches_nothing() {
    let place = Place::new();
    let outside = place.tmp.path().canonicalize().unwrap().join("outside");
    place.link("out", "../outside");
    place.link("out-file", "../outside/file");
    place.link("absolute", outside.to_str().unwrap());
    // An absolute link starts from the system's root, not from this one, even if it comes back.
    place.link("absolute-inside", place.root().join("a").to_str().unwrap());
    place.link("out-and-in", "../root/a");
    place.link("a/chain", "../out");
    place.link("dangling", "../outside/new");
    place.link("loop", "loop");
    place.link("ping", "pong");
    place.link("pong", "ping");
    for root in place.both() {
        for path in [
            "..",
            "../outside/file",
            "a/../../outside/file",
            "a/b/../../../root/a/file",
            "/etc/passwd",
            "/",
            "out",
            "out/file",
            "out-file",
            "out/new",
            "absolute",
            "absolute/file",
            "absolute-inside/file",
            "out-and-in/file",
            "a/chain/file",
            "a/chain/d/../file",
            "dangling",
            "dangling/x",
            "loop",
            "loop/x",
            "ping",
            "a/../ping/x",
        ] {
            assert_eq!(code(root.resolve(Path::new(path))), Code::PathEscape, "{path}");
            for access in [Access::Read, Access::Write, Access::Create] {
                assert_eq!(code(root.open_file(Path::new(path), access)), Code::PathEscape, "{path}");
            }
        }
        // A sibling whose name begins with the root's is not beneath it.
        let sibling = format!("{}-sibling/file", place.root().display());
        assert_eq!(code(root.resolve(Path::new(&sibling))), Code::PathEscape);
        assert_eq!(code(root.open_file(Path::new("dangling"), Access::CreateNew)), Code::Io);
    }
    assert!(!outside.join("new").exists());
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "outside");
}

#[test]
fn files_are_created_for_their_owner_and_only_inside() {
    let place = Place::new();
    place.link("to-new", "a/by-link");
    for (n, root) in place.both().iter().enumerate() {
        let name = format!("a/new-{n}");
        let mut file = root.open_file(Path::new(&name), Access::CreateNew).unwrap();
        file.write_all(b"text").unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(code(root.open_file(Path::new(&name), Access::CreateNew)), Code::Io);
        assert_eq!(code(root.open_file(Path::new("to-new"), Access::CreateNew)), Code::Io);
        root.open_file(Path::new("to-new"), Access::Create).unwrap();
        assert!(place.root().join("a/by-link").is_file());
        assert_eq!(code(root.open_file(Path::new("a/missing"), Access::Write)), Code::Io);
        fs::remove_file(place.root().join("a/by-link")).unwrap();
    }
}

#[test]
fn a_pipe_is_refused_and_hangs_nobody() {
    let place = Place::new();
    let pipe = place.root().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    for root in place.both() {
        assert_eq!(code(root.open_file(Path::new("pipe"), Access::Read)), Code::Io);
        assert_eq!(root.resolve(Path::new("pipe")).unwrap(), pipe);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_magic_links_of_proc_are_not_followed() {
    use std::os::fd::AsRawFd;

    let secret = tempfile::NamedTempFile::new().unwrap();
    let by_number = format!("fd/{}", secret.as_file().as_raw_fd());
    for ask_kernel in [true, false] {
        let mut root = Root::open(Path::new("/proc/self")).unwrap();
        root.inner.ask_kernel = ask_kernel;
        for path in [by_number.as_str(), "cwd", "cwd/x", "root/etc/passwd", "exe", "ns/mnt"] {
            assert!(root.open_file(Path::new(path), Access::Read).is_err(), "{path}, {ask_kernel}");
        }
    }
}

#[test]
fn a_path_that_is_none_is_an_error_of_the_caller() {
    let place = Place::new();
    for root in place.both() {
        assert_eq!(code(root.resolve(Path::new(""))), Code::Validation);
        assert_eq!(code(root.resolve(Path::new("a\0b"))), Code::Validation);
        for path in ["a/..", "a/.", "a/", ".", ".."] {
            assert_eq!(code(root.open_parent(Path::new(path))), Code::Validation, "{path}");
        }
    }
    assert_eq!(code(Root::open(&place.root().join("missing"))), Code::Io);
    assert_eq!(code(Root::open(&place.root().join("a/file"))), Code::Io);
}

#[test]
fn the_parent_is_followed_and_the_name_is_not() {
    let place = Place::new();
    place.link("to-b", "a/b");
    place.link("a/b/out", "../../../outside/file");
    for root in place.both() {
        let (dir, name) = root.open_parent(Path::new("to-b/out")).unwrap();
        assert_eq!(name, "out");
        assert_eq!(dir.metadata().unwrap().ino(), place.root().join("a/b").metadata().unwrap().ino());
    }
}

/// One of the few names that trees and paths are made of, so that they meet.
fn part() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c", "d", ".", ".."])
}

fn path() -> impl Strategy<Value = String> {
    (prop::collection::vec(part(), 1..7), any::<bool>())
        .prop_map(|(parts, slash)| parts.join("/") + if slash { "/" } else { "" })
}

#[derive(Clone, Debug)]
enum Entry {
    Dir(String),
    File(String),
    Link(String, String),
}

fn entry() -> impl Strategy<Value = Entry> {
    let name = || {
        prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "d"]), 1..4).prop_map(|p| p.join("/"))
    };
    prop_oneof![
        3 => name().prop_map(Entry::Dir),
        2 => name().prop_map(Entry::File),
        4 => (name(), path()).prop_map(|(name, target)| Entry::Link(name, target)),
        1 => name().prop_map(|name| Entry::Link(name, "/etc".into())),
    ]
}

/// What an error tells, without the words.
fn verdict<T>(outcome: Result<T>) -> Result<T, Code> {
    outcome.map_err(|error| error.code())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_walk_and_the_kernel_agree_and_neither_leaves_the_root(
        entries in prop::collection::vec(entry(), 1..14),
        paths in prop::collection::vec(path(), 12),
    ) {
        let place = Place::new();
        for entry in &entries {
            // An entry in the way of another is left out; in a link's place it would be made outside of the root.
            let (Entry::Dir(name) | Entry::File(name) | Entry::Link(name, _)) = entry;
            let at = place.root().join(name);
            let inside = at.parent().and_then(|dir| dir.canonicalize().ok()).is_some_and(|dir| dir.starts_with(place.root()));
            if inside {
                _ = match entry {
                    Entry::Dir(_) => fs::create_dir(at),
                    Entry::File(_) => fs::write(at, "inside"),
                    Entry::Link(_, target) => symlink(target, at),
                };
            }
        }
        let roots = place.both();
        for path in &paths {
            let path = Path::new(path);
            let found: Vec<_> = roots.iter().map(|root| verdict(root.resolve(path))).collect();
            for one in &found {
                prop_assert_eq!(one, &found[0], "{:?}", path);
                if let Ok(real) = one {
                    prop_assert!(real.starts_with(place.root()), "{:?} leads to {:?}", path, real);
                    if let Ok(canonical) = place.root().join(path).canonicalize() {
                        prop_assert_eq!(real, &canonical);
                    }
                }
            }
            let opened: Vec<_> = roots
                .iter()
                .map(|root| verdict(root.open_file(path, Access::Read)).map(|file| file.metadata().unwrap().ino()))
                .collect();
            for one in &opened {
                prop_assert_eq!(one, &opened[0], "{:?}", path);
            }
        }
    }
}

/// A directory and a link out of the root change places as fast as one thread can, while others open and resolve.
#[test]
fn who_swaps_a_directory_for_a_link_gets_nobody_outside() {
    let place = Place::new();
    fs::create_dir_all(place.root().join("swap/sub")).unwrap();
    fs::write(place.root().join("swap/sub/file"), "inside").unwrap();
    fs::create_dir_all(place.tmp.path().join("outside/sub")).unwrap();
    fs::write(place.tmp.path().join("outside/sub/file"), "outside").unwrap();
    place.link("bait", "../outside");
    let root = place.root();
    let stop = AtomicBool::new(false);
    let swap = |swapped: &AtomicBool| {
        while !stop.load(Ordering::Relaxed) {
            for (from, to) in [("swap", "aside"), ("bait", "swap"), ("swap", "bait"), ("aside", "swap")] {
                fs::rename(root.join(from), root.join(to)).unwrap();
            }
            swapped.store(true, Ordering::Relaxed);
        }
    };
    let swapped = AtomicBool::new(false);
    let (mut inside, mut refused, mut missing) = (0_u32, 0_u32, 0_u32);
    std::thread::scope(|scope| {
        scope.spawn(|| swap(&swapped));
        for opened in place.both() {
            let mut seen = (0, 0, 0);
            // Until each of the outcomes has come often, however fast the machine is.
            while seen.0 < 300 || seen.1 < 300 || !swapped.load(Ordering::Relaxed) {
                match opened.open_file(Path::new("swap/sub/../sub/file"), Access::Read) {
                    Ok(file) => {
                        assert_eq!(text(file), "inside");
                        seen.0 += 1;
                    }
                    Err(error) if error.code() == Code::PathEscape => seen.1 += 1,
                    Err(error) => {
                        assert_eq!(error.code(), Code::Io, "{error}");
                        seen.2 += 1;
                    }
                }
                if let Ok(found) = opened.resolve(Path::new("swap/sub/file")) {
                    assert!(found.starts_with(&root), "{}", found.display());
                }
                match opened.open_file(Path::new("swap/sub/new"), Access::Create) {
                    Ok(_) => {}
                    Err(error) => assert!(matches!(error.code(), Code::PathEscape | Code::Io), "{error}"),
                }
            }
            inside += seen.0;
            refused += seen.1;
            missing += seen.2;
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(!place.tmp.path().join("outside/sub/new").exists());
    eprintln!("{inside} inside, {refused} refused, {missing} missing");
}
