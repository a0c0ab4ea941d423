use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use proptest::prelude::*;

use super::files::builtin;
use super::*;
use crate::sandbox::fs::SandboxFs;
use crate::sandbox::{Access, Mount};
use crate::{Code, CoreError};

/// A registry whose tools for files work in a folder of their own, without a sandbox to run commands in.
struct Place {
    tmp: tempfile::TempDir,
    registry: ToolRegistry,
}

impl Place {
    fn new() -> Self {
        Self::with(ToolRegistryOptions::default())
    }

    fn with(options: ToolRegistryOptions) -> Self {
        let tmp = tempfile::tempdir().unwrap();
        let mount = |host: PathBuf, mount: &str, access| {
            let host = host.canonicalize().unwrap();
            Mount { host, mount: mount.into(), access }
        };
        fs::create_dir_all(tmp.path().join("work")).unwrap();
        fs::create_dir_all(tmp.path().join("data")).unwrap();
        let mounts = [
            mount(tmp.path().join("work"), "/workspace", Access::ReadWrite),
            mount(tmp.path().join("data"), "/data", Access::ReadOnly),
        ];
        let files = Arc::new(SandboxFs::open(&mounts, "/workspace").unwrap());
        let registry = ToolRegistry::new(options);
        for name in ["read", "write", "edit", "ls", "grep"] {
            let (definition, tool) = builtin(name, &files).unwrap();
            registry.register(definition, tool).unwrap();
        }
        Self { tmp, registry }
    }

    fn file(&self, path: &str, data: impl AsRef<[u8]>) {
        let path = self.tmp.path().join("work").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, data).unwrap();
    }

    fn held(&self, path: &str) -> String {
        fs::read_to_string(self.tmp.path().join("work").join(path)).unwrap()
    }

    fn call(&self, name: &str, arguments: Value) -> Answer {
        call(&self.registry, name, arguments, &CancellationToken::new())
    }
}

struct Answer {
    text: String,
    is_error: bool,
    message: Value,
}

fn call(registry: &ToolRegistry, name: &str, arguments: Value, cancel: &CancellationToken) -> Answer {
    let request = Request { id: "call-1".into(), name: name.into(), arguments };
    let message = runtime().block_on(registry.execute(request, cancel, None));
    let message: Value = serde_json::from_str(&message).unwrap();
    assert_eq!((&message["role"], &message["toolCallId"]), (&json!("toolResult"), &json!("call-1")));
    assert_eq!(message["toolName"], json!(name));
    let texts: Vec<_> =
        message["content"].as_array().unwrap().iter().filter_map(|part| part["text"].as_str()).collect();
    Answer { text: texts.join("\n"), is_error: message["isError"].as_bool().unwrap(), message }
}

fn runtime() -> &'static tokio::runtime::Runtime {
    crate::runtime::runtime().unwrap()
}

/// A tool that does what a test says.
struct Made<F>(F);

impl<F: Fn(Call) -> Pending + Send + Sync> Tool for Made<F> {
    fn call(&self, call: Call) -> Pending {
        (self.0)(call)
    }
}

fn define(name: &str, parameters: Value) -> Definition {
    Definition { name: name.into(), description: String::new(), parameters }
}

#[test]
fn arguments_that_do_not_fit_are_all_listed_and_the_tool_is_not_called() {
    let registry = ToolRegistry::new(ToolRegistryOptions::default());
    let parameters = json!({
        "type": "object",
        "properties": { "a": { "type": "integer" }, "b": { "enum": ["x", "y"] }, "c": { "type": "string", "maxLength": 2 } },
        "required": ["a", "d"],
        "additionalProperties": false
    });
    let fails = Made(|_| -> Pending { panic!("was called") });
    registry.register(define("strict", parameters), Arc::new(fails)).unwrap();
    let answer = call(
        &registry,
        "strict",
        json!({ "a": "1", "b": "z", "c": "long", "e": 1 }),
        &CancellationToken::new(),
    );
    assert!(answer.is_error);
    for violation in ["/a:", "/b:", "/c:", "\"d\"", "'e'"] {
        assert!(answer.text.contains(violation), "{violation} is missing in {}", answer.text);
    }
    // None at all is an empty object.
    assert!(call(&registry, "strict", Value::Null, &CancellationToken::new()).text.contains("\"d\""));
    // A value that is huge is not repeated.
    let huge = json!({ "a": "x".repeat(1 << 20), "d": 1 });
    assert!(call(&registry, "strict", huge, &CancellationToken::new()).text.len() < 2000);
}

#[test]
fn whatever_a_tool_does_the_call_has_a_result() {
    let options =
        ToolRegistryOptions { timeout: Duration::from_millis(200), ..ToolRegistryOptions::default() };
    let registry = ToolRegistry::new(options);
    let (ended, was_ended) = std::sync::mpsc::channel();
    let ended = std::sync::Mutex::new(ended);
    let hangs = move |call: Call| -> Pending {
        let ended = ended.lock().unwrap().clone();
        tokio::spawn(async move {
            call.cancel.cancelled().await;
            ended.send(()).unwrap();
        });
        Box::pin(std::future::pending())
    };
    let any = json!({ "type": "object" });
    registry.register(define("hangs", any.clone()), Arc::new(Made(hangs))).unwrap();
    let panics = |_| -> Pending { Box::pin(async { panic!("a bug") }) };
    registry.register(define("panics", any.clone()), Arc::new(Made(panics))).unwrap();
    let fails = |_| -> Pending { Box::pin(async { Err(CoreError::new(Code::Io, "no disk")) }) };
    registry.register(define("fails", any), Arc::new(Made(fails))).unwrap();
    let never = CancellationToken::new();
    for (name, words) in
        [("hangs", "200 ms"), ("panics", "bug"), ("fails", "no disk"), ("missing", "hangs, panics, fails")]
    {
        let answer = call(&registry, name, json!({}), &never);
        assert!(answer.is_error && answer.text.contains(words), "{name}: {}", answer.text);
    }
    was_ended.recv_timeout(Duration::from_secs(10)).expect("the tool was told that nobody waits any more");
    let aborted = CancellationToken::new();
    aborted.cancel();
    assert!(call(&registry, "hangs", json!({}), &aborted).text.contains("aborted"));
    assert!(was_ended.try_recv().is_err(), "a tool was called for nobody");
}

#[test]
fn an_error_tells_no_secret_of_the_environment() {
    let registry = ToolRegistry::new(ToolRegistryOptions::default());
    // Of the environment that the tests are run with; where there is none, of its form.
    let known = std::env::vars().find(|(name, value)| name.contains("TOKEN") && value.len() >= 6);
    let secret =
        known.map_or_else(|| "sk-ant-api03-AbCdEf0123456789AbCdEf0123456789".to_owned(), |(_, value)| value);
    let text = format!("the server refused {secret}!");
    let told = text.clone();
    let fails = move |_| -> Pending {
        let text = told.clone();
        Box::pin(async move { Ok(Output::error(text)) })
    };
    registry.register(define("fails", json!({ "type": "object" })), Arc::new(Made(fails))).unwrap();
    let answer = call(&registry, "fails", json!({}), &CancellationToken::new());
    assert!(!answer.text.contains(&secret), "{}", answer.text);
    assert!(answer.text.starts_with("the server refused "), "{}", answer.text);
}

#[test]
fn a_result_is_bounded_and_says_how_much_went() {
    let options = ToolRegistryOptions { max_result_bytes: 2000, ..ToolRegistryOptions::default() };
    let registry = ToolRegistry::new(options);
    let floods = |_| -> Pending {
        let text = format!("head {}é tail", "ü".repeat(5000));
        let content = vec![
            Content::Text(text),
            Content::Image { data: "A".repeat(5000), mime_type: "image/png".into() },
        ];
        Box::pin(async { Ok(Output { content, details: Some(json!("x".repeat(5000))), is_error: false }) })
    };
    registry.register(define("floods", json!({ "type": "object" })), Arc::new(Made(floods))).unwrap();
    let answer = call(&registry, "floods", json!({}), &CancellationToken::new());
    assert!(answer.message.to_string().len() < 3000, "{}", answer.message.to_string().len());
    assert!(answer.text.starts_with("head ") && answer.text.contains("é tail"), "{}", answer.text);
    assert!(!answer.text.contains('\u{FFFD}'), "no character is cut apart");
    assert!(answer.text.contains("bytes left out"));
    assert!(answer.text.contains("an image of 5000 bytes"));
}

#[test]
fn names_and_schemas_are_checked_when_a_tool_is_registered() {
    let registry = ToolRegistry::new(ToolRegistryOptions::default());
    let tool = || Arc::new(Made(|_| -> Pending { Box::pin(async { Ok(Output::text("")) }) }));
    let any = json!({ "type": "object" });
    for name in ["", "a b", "ä", &"x".repeat(65)] {
        assert_eq!(
            registry.register(define(name, any.clone()), tool()).unwrap_err().code(),
            Code::Validation
        );
    }
    for parameters in
        [json!([]), json!({ "type": "objekt" }), json!({ "$ref": "https://example.org/schema.json" })]
    {
        assert_eq!(registry.register(define("a", parameters), tool()).unwrap_err().code(), Code::Validation);
    }
    registry.register(define("a", any.clone()), tool()).unwrap();
    assert_eq!(registry.register(define("a", any), tool()).unwrap_err().code(), Code::Validation);
    assert_eq!(registry.register_builtin("read").unwrap_err().code(), Code::Validation);
    assert_eq!(registry.list().len(), 1);
    assert!(registry.unregister("a") && !registry.unregister("a"));
    assert!(registry.list().is_empty());
}

#[test]
fn a_file_is_read_by_windows_of_lines() {
    let place = Place::new();
    let lines: Vec<_> = (1..=5000).map(|n| format!("line {n}")).collect();
    place.file("long", lines.join("\n"));
    place.file("short", "one\r\ntwo\n");
    place.file("wide", "x".repeat(200_000));
    place.file("none", "");
    place.file("binary", b"\x7fELF\0\0");
    assert_eq!(place.call("read", json!({ "path": "short" })).text, "one\r\ntwo\n");
    assert_eq!(place.call("read", json!({ "path": "none" })).text, "");
    let all = place.call("read", json!({ "path": "long" }));
    assert!(
        all.text.starts_with("line 1\nline 2\n")
            && all.text.contains("line 2000\n[Lines 1 to 2000 of 5000; go on with offset 2001.]")
    );
    let window = place.call("read", json!({ "path": "long", "offset": 4999, "limit": 1 }));
    assert_eq!(window.text, "line 4999\n[Lines 4999 to 4999 of 5000; go on with offset 5000.]");
    assert_eq!(place.call("read", json!({ "path": "long", "offset": 5000 })).text, "line 5000");
    assert!(place.call("read", json!({ "path": "long", "offset": 5001 })).is_error);
    let wide = place.call("read", json!({ "path": "wide" }));
    assert!(wide.text.len() < 60_000 && wide.text.contains("bytes left out"));
    assert!(place.call("read", json!({ "path": "binary" })).is_error);
    for path in ["missing", "/etc/passwd", "../data/../etc/passwd", "/workspace"] {
        assert!(place.call("read", json!({ "path": path })).is_error, "{path}");
    }
}

#[test]
fn an_image_is_shown_as_one() {
    let place = Place::new();
    place.file("a.bin", b"\x89PNG\r\n\x1a\nrest");
    place.file("b.bin", b"RIFF\x08\0\0\0WEBPVP8 ");
    let answer = place.call("read", json!({ "path": "a.bin" }));
    assert_eq!(
        answer.message["content"][1],
        json!({ "type": "image", "data": "iVBORw0KGgpyZXN0", "mimeType": "image/png" })
    );
    assert_eq!(
        place.call("read", json!({ "path": "b.bin" })).message["content"][1]["mimeType"],
        "image/webp"
    );
}

#[test]
fn a_file_is_written_with_its_directories_and_only_where_it_may() {
    let place = Place::new();
    assert_eq!(
        place.call("write", json!({ "path": "a/b/c", "content": "ä" })).text,
        "Created a/b/c: 2 bytes"
    );
    assert!(place.call("write", json!({ "path": "a/b/c", "content": "" })).text.starts_with("Replaced"));
    assert_eq!(place.held("a/b/c"), "");
    for path in ["/data/x", "/etc/x", "a"] {
        assert!(place.call("write", json!({ "path": path, "content": "x" })).is_error, "{path}");
    }
}

#[test]
fn an_edit_replaces_exactly_one_place_or_says_why_not() {
    let place = Place::new();
    let edit = |path: &str, old: &str, new: &str, all: bool| {
        place.call("edit", json!({ "path": path, "oldText": old, "newText": new, "replaceAll": all }))
    };
    place.file("f", "one\ntwo\nthree\ntwo\n");
    let twice = edit("f", "two", "2", false);
    assert!(twice.is_error && twice.text.contains("2 times, in lines 2, 4"), "{}", twice.text);
    assert_eq!(edit("f", "three\ntwo", "3\n2", false).message["details"]["firstChangedLine"], 3);
    assert_eq!(place.held("f"), "one\ntwo\n3\n2\n");
    assert!(!edit("f", "o", "0", true).is_error);
    assert_eq!(place.held("f"), "0ne\ntw0\n3\n2\n");
    // `$&` and the like are text.
    assert!(!edit("f", "3", "$& $1", false).is_error);
    assert_eq!(place.held("f"), "0ne\ntw0\n$& $1\n2\n");
    let missing = edit("f", "four", "4", false);
    assert!(missing.is_error && missing.text.contains("does not stand"), "{}", missing.text);
    place.file("g", "a\n  if  x {\n    y\n");
    let near = edit("g", "if x {\n  y", "z", false);
    assert!(near.is_error && near.text.contains("line 2"), "{}", near.text);
    assert!(edit("g", "a", "a", false).is_error);
    place.file("crlf", "one\r\ntwo\r\nthree\r\n");
    assert!(!edit("crlf", "one\ntwo", "1\n2", false).is_error);
    assert_eq!(place.held("crlf"), "1\r\n2\r\nthree\r\n");
    place.file("binary", b"a\xff");
    assert!(edit("binary", "a", "b", false).is_error);
    assert!(edit("missing", "a", "b", false).is_error);
}

#[test]
fn two_edits_at_once_lose_nothing() {
    let place = Place::new();
    let names: Vec<_> = (0..20).map(|n| format!("<{n}>")).collect();
    place.file("f", names.join("\n"));
    runtime().block_on(async {
        let never = CancellationToken::new();
        let edits = (0..20).map(|n| {
            let arguments = json!({ "path": "f", "oldText": format!("<{n}>"), "newText": format!("[{n}]") });
            place.registry.execute(
                Request { id: n.to_string(), name: "edit".into(), arguments },
                &never,
                None,
            )
        });
        futures_util::future::join_all(edits).await;
    });
    assert!(!place.held("f").contains('<'), "{}", place.held("f"));
}

#[test]
fn a_directory_is_listed_in_order() {
    let place = Place::new();
    place.file("b/x", "");
    place.file(".hidden", "");
    place.file("a", "");
    assert_eq!(place.call("ls", json!({})).text, ".hidden\na\nb/\n");
    assert_eq!(place.call("ls", json!({ "limit": 1 })).text, ".hidden\n[1 of 3 names]");
    assert_eq!(place.call("ls", json!({ "path": "/" })).text, "data/\nworkspace/\n");
    assert!(place.call("ls", json!({ "path": "/etc" })).is_error);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn lines_and_those_around_are_those_of_grep(text in "[ab\n]{0,60}", context in 0_usize..4, pattern in prop::sample::select(&["a", "ab", "^b", "a$", "^$", "ba?b"][..])) {
        let place = Place::new();
        place.file("file", &text);
        let mut theirs = std::process::Command::new("grep");
        theirs.args(["-n", "-E"]);
        if context > 0 {
            theirs.arg(format!("-C{context}"));
        }
        let theirs = theirs.arg(pattern).arg(place.tmp.path().join("work/file")).output().unwrap();
        let theirs = String::from_utf8(theirs.stdout).unwrap();
        let ours = place.call("grep", json!({ "pattern": pattern, "path": "file", "context": context })).text;
        let ours = ours.replace("/workspace/file-", "").replace("/workspace/file:", "");
        let none = ours == "[no line matches, in 1 files]";
        prop_assert_eq!(if none { "" } else { &ours }, theirs);
    }
}

#[test]
fn lines_are_found_as_ripgrep_finds_them() {
    let place = Place::new();
    place.file("src/main.rs", "fn main() {\n    todo!()\n}\n");
    place.file("src/lib.rs", "// TODO later\npub fn todo() {}\n");
    place.file("target/out.rs", "todo");
    place.file("keep.log", "todo");
    place.file("drop.log", "todo");
    place.file("src/inner/skip.me", "todo");
    place.file(".git/config", "todo");
    place.file(".hidden", "todo");
    place.file("binary", b"todo\0todo");
    place.file(".gitignore", "target/\n*.log\n!keep.log\n");
    place.file("src/.gitignore", "inner/*.me\n");
    std::os::unix::fs::symlink("/etc/passwd", place.tmp.path().join("work/link")).unwrap();
    let grep = |arguments: Value| place.call("grep", arguments).text;
    assert_eq!(
        grep(json!({ "pattern": "todo" })),
        "/workspace/.hidden:1:todo\n/workspace/keep.log:1:todo\n/workspace/src/lib.rs:2:pub fn todo() {}\n\
         /workspace/src/main.rs:2:    todo!()\n"
    );
    assert_eq!(grep(json!({ "pattern": "todo", "ignoreCase": true, "glob": "*.rs" })).lines().count(), 3);
    assert_eq!(grep(json!({ "pattern": "todo!()", "literal": true })).lines().count(), 1);
    assert_eq!(grep(json!({ "pattern": "todo", "path": "target" })), "/workspace/target/out.rs:1:todo\n");
    assert_eq!(
        grep(json!({ "pattern": "todo", "path": "src/main.rs", "context": 1 })),
        "/workspace/src/main.rs-1-fn main() {\n/workspace/src/main.rs:2:    todo!()\n/workspace/src/main.rs-3-}\n"
    );
    assert!(grep(json!({ "pattern": "todo", "limit": 1 })).contains("the first 1 lines"));
    assert!(grep(json!({ "pattern": "root:" })).contains("no line matches"));
    assert!(place.call("grep", json!({ "pattern": "(" })).is_error);
    assert!(place.call("grep", json!({ "pattern": "x", "path": "/etc" })).is_error);
}
