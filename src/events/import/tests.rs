use super::*;
use crate::events::{Durability, Options, StoredEvent};

/// A store of its own.
struct Log(EventStore, #[allow(dead_code, reason = "removed with the test")] tempfile::TempDir);

fn log() -> Log {
    log_of(Options::default().max_event_bytes)
}

fn log_of(max_event_bytes: usize) -> Log {
    let folder = tempfile::tempdir().unwrap();
    let durability = Durability::Interval(std::time::Duration::from_secs(1));
    let options = Options { durability, max_event_bytes, ..Options::default() };
    Log(EventStore::open(&folder.path().join("store"), options).unwrap(), folder)
}

impl Log {
    fn get(&self, id: &str) -> StoredEvent {
        self.0.find(id).unwrap().unwrap_or_else(|| panic!("no {id}"))
    }

    fn entry(&self, id: &str) -> String {
        crate::events::openclaw::transcript_entry(&self.get(id).data).unwrap().text.to_owned()
    }

    fn events(&self) -> u64 {
        self.0.stats().unwrap().events
    }
}

fn how(dry_run: bool) -> ImportOptions {
    ImportOptions { dry_run, ..ImportOptions::default() }
}

struct State(tempfile::TempDir);

impl State {
    fn new(files: &[(&str, &str)]) -> Self {
        let state = Self(tempfile::tempdir().unwrap());
        for (path, text) in files {
            state.write(path, text.as_bytes());
        }
        state
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn path(&self, path: &str) -> String {
        fs::canonicalize(self.0.path()).unwrap().join(path).to_string_lossy().into_owned()
    }

    fn import_with(
        &self,
        log: &Log,
        how: &ImportOptions,
        cancel: &CancellationToken,
    ) -> (Result<Report>, Vec<Progress>) {
        let mut progress = Vec::new();
        let work = import(&log.0, self.0.path(), how, cancel, |p| progress.push(p));
        (runtime::runtime().unwrap().block_on(work), progress)
    }

    fn import(&self, log: &Log) -> Report {
        self.import_with(log, &how(false), &CancellationToken::new()).0.unwrap()
    }
}

const A: &str = "0a000000-0000-4000-8000-00000000000a";
const B: &str = "0b000000-0000-4000-8000-00000000000b";

fn header(id: &str) -> String {
    format!(
        r#"{{"type":"session","version":3,"id":"{id}","timestamp":"2026-02-09T10:00:00.000Z","cwd":"/w"}}"#
    )
}

fn message(id: &str, parent: Option<&str>, role: &str, text: &str) -> String {
    let parent = parent.map_or_else(|| "null".to_owned(), |id| format!("\"{id}\""));
    format!(
        r#"{{"type":"message","id":"{id}","parentId":{parent},"timestamp":"2026-02-09T10:00:01.000Z","message":{{"role":"{role}","content":[{{"type":"text","text":"{text}"}}],"timestamp":1770631201000}}}}"#
    )
}

fn transcript(id: &str, messages: usize) -> String {
    let mut text = header(id) + "\n";
    for n in 0..messages {
        let parent = n.checked_sub(1).map(|n| format!("m{n}"));
        text += &(message(&format!("m{n}"), parent.as_deref(), "user", "hi") + "\n");
    }
    text
}

fn store(entries: &[(&str, &str)]) -> String {
    let entries: Vec<String> = entries
        .iter()
        .map(|(key, id)| format!("  \"{key}\": {{ \"sessionId\": \"{id}\", \"updatedAt\": 1 }}"))
        .collect();
    format!("{{\n{}\n}}\n", entries.join(",\n"))
}

fn reason<'a>(report: &'a Report, file: &str, line: u64) -> &'a str {
    let found = report.skipped.iter().find(|s| s.file.ends_with(file) && s.line == line);
    &found.unwrap_or_else(|| panic!("nothing about {file}:{line} in {:?}", report.skipped)).reason
}

#[test]
fn what_sessions_json_names_is_imported_once() {
    let state = State::new(&[
        ("agents/main/sessions/sessions.json", &store(&[("main", A), ("agent:main:Telegram:Direct:42", B)])),
        (&format!("agents/main/sessions/{A}.jsonl"), &transcript(A, 3)),
        (&format!("agents/main/sessions/{B}.jsonl"), &transcript(B, 2)),
    ]);
    let log = log();
    let report = state.import(&log);
    assert_eq!(report, Report { sessions: 2, events: 7, skipped: vec![], already_present: 0 });
    let first = log.get(&format!("transcript:{A}:m0"));
    assert_eq!((first.session_key.as_str(), first.agent_id.as_str()), ("agent:main:main", "main"));
    assert_eq!(first.kind, "message_received");
    assert_eq!(first.timestamp_ms, 1_770_631_201_000);
    assert_eq!(log.get(&format!("session:{B}")).session_key, "agent:main:telegram:direct:42");
    assert_eq!(log.entry(&format!("transcript:{A}:m1")), message("m1", Some("m0"), "user", "hi"));
    let again = state.import(&log);
    assert_eq!(again, Report { sessions: 2, events: 0, skipped: vec![], already_present: 7 });
}

#[test]
fn a_dry_run_tells_what_an_import_does_and_appends_nothing() {
    // The same transcript as a reset's archive: one fact, in two files.
    let state = State::new(&[
        ("agents/main/sessions/sessions.json", &store(&[("agent:main:main", A)])),
        (&format!("agents/main/sessions/{A}.jsonl"), &transcript(A, 300)),
        (&format!("agents/main/sessions/{A}.jsonl.reset.2026-02-09T10-00-00.000Z"), &transcript(A, 200)),
    ]);
    let log = log();
    let (dry, _) = state.import_with(&log, &how(true), &CancellationToken::new());
    assert_eq!(log.events(), 0);
    let dry = dry.unwrap();
    assert_eq!(dry, Report { sessions: 1, events: 301, skipped: vec![], already_present: 201 });
    assert_eq!(state.import(&log), dry);
    let (dry, _) = state.import_with(&log, &how(true), &CancellationToken::new());
    assert_eq!((dry.as_ref().unwrap().events, dry.unwrap().already_present), (0, 502));
}

#[test]
fn damage_is_reported_by_file_and_line_and_ends_nothing() {
    let damaged = [
        header(A),
        "{\"type\":\"message\",\"id\":\"cut".to_owned(),
        message("m1", None, "user", "one"),
        String::new(),
        "\u{0}\u{0}\u{0}".to_owned(),
        "[1,2]".to_owned(),
        "42 {}".to_owned(),
        message("m2", Some("m1"), "user", "two"),
    ]
    .join("\r\n");
    let file = format!("agents/main/sessions/{A}.jsonl");
    let state = State::new(&[("agents/main/sessions/sessions.json", &store(&[("agent:main:main", A)]))]);
    let mut bytes = damaged.into_bytes();
    bytes.extend_from_slice(b"\n{\"type\":\"\xFF\"}\n");
    bytes.extend_from_slice(&message("m3", Some("m2"), "user", "torn").into_bytes()[..40]);
    state.write(&file, &bytes);
    let log = log();
    let report = state.import(&log);
    assert_eq!((report.sessions, report.events, report.already_present), (1, 3, 0));
    let lines: Vec<u64> = report.skipped.iter().map(|s| s.line).collect();
    assert_eq!(lines, [2, 5, 6, 7, 9, 10]);
    assert!(report.skipped.iter().all(|s| s.file == state.path(&file)), "{:?}", report.skipped);
    assert!(reason(&report, &file, 2).contains("EOF"), "{}", reason(&report, &file, 2));
    assert_eq!(reason(&report, &file, 9), "not UTF-8 from byte 10 on");
    assert!(
        reason(&report, &file, 10).starts_with("the last line is torn"),
        "{}",
        reason(&report, &file, 10)
    );
    log.get(&format!("transcript:{A}:m2"));
}

#[test]
fn a_last_line_without_an_end_is_taken_if_it_is_whole() {
    let text = header(A) + "\n" + &message("m", None, "user", "last");
    let state = State::new(&[
        ("agents/main/sessions/sessions.json", &store(&[("agent:main:main", A)])),
        (&format!("agents/main/sessions/{A}.jsonl"), &text),
    ]);
    let report = state.import(&log());
    assert_eq!((report.events, report.skipped.len()), (2, 0));
}

#[test]
fn a_huge_line_is_taken_up_to_the_limit_of_the_store() {
    let huge = message("huge", None, "user", &"x".repeat(9 << 20));
    let text = [header(A), huge, message("after", Some("huge"), "user", "ok"), String::new()].join("\n");
    let file = format!("agents/main/sessions/{A}.jsonl");
    let state = State::new(&[
        ("agents/main/sessions/sessions.json", &store(&[("agent:main:main", A)])),
        (&file, &text),
    ]);
    assert_eq!(state.import(&log()).events, 3);

    let small = log_of(1 << 20);
    let report = state.import(&small);
    assert_eq!(report.events, 2);
    assert!(reason(&report, &file, 2).contains("maxEventBytes"), "{}", reason(&report, &file, 2));
    // A line that fits, whose event does not.
    let line = message("m", None, "user", "");
    let exact = log_of(line.len() + 20);
    state.write(&file, (line + "\n").as_bytes());
    let report = state.import(&exact);
    assert!(reason(&report, &file, 1).contains("`data` has"), "{}", reason(&report, &file, 1));
}

#[test]
fn a_broken_index_loses_no_transcript() {
    let index = "agents/main/sessions/sessions.json";
    for (text, line, part) in [
        ("", 1, "EOF"),
        ("{\n\"agent:main:main\": {\n", 3, "EOF"),
        ("[]", 1, "object"),
        ("{\n \"a\": {\"sessionId\": \" \"},\n \"b\": {}\n}", 2, "no sessionId"),
        ("{\n \"a\": 7}", 2, "not an object"),
    ] {
        let state =
            State::new(&[(index, text), (&format!("agents/main/sessions/{A}.jsonl"), &transcript(A, 1))]);
        let log = log();
        let report = state.import(&log);
        assert!(reason(&report, index, line).contains(part), "{text}: {}", reason(&report, index, line));
        let event = log.get(&format!("transcript:{A}:m0"));
        assert_eq!(event.session_key, format!("agent:main:recovered:{A}"), "{text}");
    }
    let state = State::new(&[(&format!("sessions/{A}.jsonl"), &transcript(A, 1))]);
    let report = state.import(&log());
    assert_eq!(report.events, 2);
    assert!(reason(&report, "sessions.json", 0).contains("is not there"));
}

#[test]
fn past_stretches_belong_to_the_key_that_names_them() {
    let index = format!(
        r#"{{"agent:ops:main":{{"sessionId":"{B}","usageFamilySessionIds":["{A}"]}},"agent:ops:gone":{{"sessionId":"no-file"}}}}"#
    );
    let odd = "0c000000-0000-4000-8000-00000000000c";
    let state = State::new(&[
        ("agents/ops/sessions/sessions.json", &index),
        (&format!("agents/ops/sessions/{A}.jsonl"), &transcript(A, 1)),
        (&format!("agents/ops/sessions/{B}.jsonl"), &transcript(B, 1)),
        (&format!("agents/ops/sessions/2026-02-09T10-00-00-000Z_{odd}.jsonl"), &transcript(odd, 1)),
        (&format!("agents/ops/sessions/{B}.trajectory.jsonl"), "{\"traceSchema\":1}\n"),
        (&format!("agents/ops/sessions/{B}.checkpoint.{A}.jsonl"), &transcript(B, 1)),
        (&format!("agents/ops/sessions/{B}.jsonl.deleted.2026-02-09T10-00-00.000Z"), &transcript(B, 9)),
        ("agents/ops/sessions/notes.jsonl", "{\"a\":1}\n"),
    ]);
    let log = log();
    let report = state.import(&log);
    assert_eq!((report.sessions, report.events), (2, 6), "{report:?}");
    assert_eq!(log.get(&format!("session:{A}")).session_key, "agent:ops:main");
    assert_eq!(log.get(&format!("session:{odd}")).session_key, format!("agent:ops:recovered:{odd}"));
    assert!(reason(&report, "no-file.jsonl", 0).contains("agent:ops:gone"));
    assert_eq!(reason(&report, ".deleted.2026-02-09T10-00-00.000Z", 0), "deleted in OpenClaw");
    assert!(reason(&report, "notes.jsonl", 1).contains("not a transcript"));
    assert_eq!(report.skipped.len(), 3, "{:?}", report.skipped);
}

#[test]
fn an_entry_finds_its_file_after_a_move_and_never_a_foreign_one() {
    let outside = State::new(&[("secret.jsonl", &transcript(B, 5))]);
    let secret = outside.path("secret.jsonl");
    let index = format!(
        r#"{{"agent:main:a":{{"sessionId":"{A}","sessionFile":"/old/home/agents/main/sessions/{A}-topic-7.jsonl"}},"agent:main:b":{{"sessionId":"{B}","sessionFile":"{secret}"}},"agent:main:c":{{"sessionId":"../../x"}}}}"#
    );
    let state = State::new(&[
        ("agents/main/sessions/sessions.json", &index),
        (&format!("agents/main/sessions/{A}-topic-7.jsonl"), &transcript(A, 1)),
        ("agents/x.jsonl", &transcript("x", 1)),
    ]);
    let log = log();
    let report = state.import(&log);
    assert_eq!(report.events, 2);
    assert_eq!(log.get(&format!("session:{A}")).session_key, "agent:main:a");
    assert_eq!(report.skipped.len(), 2, "{:?}", report.skipped);
}

#[test]
fn versions_one_and_two_are_brought_to_version_three() {
    let one = [
        r#"{"type":"session","id":"s1","timestamp":"2025-11-01T00:00:00.000Z","cwd":"/w"}"#,
        r#"{"type":"message","timestamp":"2025-11-01T00:00:01.000Z","message":{"role":"user","content":"a"}}"#,
        r#"{"type":"message","timestamp":"2025-11-01T00:00:02.000Z","message":{"role":"hookMessage","content":"h"}}"#,
        r#"{"type":"compaction","summary":"s","firstKeptEntryIndex":1,"tokensBefore":5}"#,
        "",
    ]
    .join("\n");
    let two = format!(
        "{}\n{}\n",
        r#"{"type":"session","version":2,"id":"s2"}"#,
        r#"{"type":"message","id":"h","parentId":null,"message":{"role":"hookMessage","customType":"mail","content":"h"}}"#
    );
    let state = State::new(&[
        ("agents/main/sessions/sessions.json", &store(&[("agent:main:one", "s1"), ("agent:main:two", "s2")])),
        ("agents/main/sessions/s1.jsonl", &one),
        ("agents/main/sessions/s2.jsonl", &two),
    ]);
    let log = log();
    let report = state.import(&log);
    assert_eq!((report.events, report.skipped.len()), (6, 0), "{report:?}");
    let prefix: String = {
        use sha2::{Digest, Sha256};
        let path = state.path("agents/main/sessions/s1.jsonl");
        format!("{:016x}", u64::from_be_bytes(*Sha256::digest(format!("{path}\0s1")).first_chunk().unwrap()))
    };
    assert_eq!(
        log.entry(&format!("transcript:s1:{prefix}-2")),
        format!(
            r#"{{"type":"message","timestamp":"2025-11-01T00:00:02.000Z","message":{{"role":"custom","customType":"hook","content":"h"}},"id":"{prefix}-2","parentId":"{prefix}-1"}}"#
        )
    );
    assert_eq!(
        log.entry(&format!("transcript:s1:{prefix}-3")),
        format!(
            r#"{{"type":"compaction","summary":"s","tokensBefore":5,"id":"{prefix}-3","parentId":"{prefix}-2","firstKeptEntryId":"{prefix}-1"}}"#
        )
    );
    assert_eq!(log.get(&format!("transcript:s1:{prefix}-3")).timestamp_ms, 1_761_955_202_000);
    assert_eq!(
        log.entry("transcript:s2:h"),
        r#"{"type":"message","id":"h","parentId":null,"message":{"role":"custom","customType":"mail","content":"h"}}"#
    );
}

#[test]
fn batches_are_bounded_and_the_progress_ends_at_the_total() {
    let state = State::new(&[
        ("agents/main/sessions/sessions.json", &store(&[("agent:main:main", A)])),
        (&format!("agents/main/sessions/{A}.jsonl"), &transcript(A, 5000)),
        (&format!("agents/ops/sessions/{B}.jsonl"), &transcript(B, 10)),
    ]);
    let log = log();
    let (report, progress) = state.import_with(&log, &how(false), &CancellationToken::new());
    assert_eq!(report.unwrap().events, 5012);
    assert!(progress.len() > 5012 / BATCH_EVENTS && progress.iter().all(|p| p.total == progress[0].total));
    assert!(progress.is_sorted_by_key(|p| p.done));
    let size = (transcript(A, 5000).len() + transcript(B, 10).len()) as u64;
    assert_eq!(progress.last(), Some(&Progress { done: size, total: size }));
}

#[test]
fn an_aborted_import_appends_nothing_more() {
    let state = State::new(&[
        ("agents/main/sessions/sessions.json", &store(&[("agent:main:main", A)])),
        (&format!("agents/main/sessions/{A}.jsonl"), &transcript(A, 5000)),
    ]);
    let (log, cancel) = (log(), CancellationToken::new());
    let how = how(false);
    let work = import(&log.0, state.0.path(), &how, &cancel, |_| cancel.cancel());
    assert!(runtime::runtime().unwrap().block_on(work).is_err());
    let appended = log.events();
    assert!((1..3000).contains(&appended), "{appended}");
    // Another one goes on from there.
    let report = state.import(&log);
    assert_eq!((report.events, report.already_present), (5001 - appended, appended));
}

#[test]
fn complaints_about_one_file_are_summed_up_beyond_a_number() {
    let file = format!("agents/main/sessions/{A}.jsonl");
    let state = State::new(&[
        ("agents/main/sessions/sessions.json", &store(&[("agent:main:main", A)])),
        (&file, &"{broken\n".repeat(2500)),
    ]);
    let report = state.import(&log());
    assert_eq!(report.skipped.len(), 1001);
    assert_eq!(reason(&report, &file, 1001), "1500 more from here on");
}

#[test]
fn a_folder_without_sessions_says_so_and_a_missing_one_is_an_error() {
    let state = State::new(&[("openclaw.json", "{}")]);
    let log = log();
    let report = state.import(&log);
    assert!(report.skipped[0].reason.contains("no OpenClaw sessions"), "{:?}", report.skipped);
    let options = how(true);
    let missing = state.0.path().join("none");
    let cancel = CancellationToken::new();
    let work = import(&log.0, &missing, &options, &cancel, |_| ());
    let error = runtime::runtime().unwrap().block_on(work).unwrap_err();
    assert_eq!(error.code(), Code::Io);
    assert!(error.message().contains("none"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_database_without_a_node_to_read_it_is_an_error_that_says_what_to_do() {
    let state = State::new(&[("agents/main/agent/openclaw-agent.sqlite", "")]);
    let log = log();
    let (report, _) = state.import_with(&log, &how(false), &CancellationToken::new());
    let error = report.unwrap_err();
    assert!(error.message().contains("node:sqlite") && error.message().contains("`node`"), "{error}");
    let options = ImportOptions {
        dry_run: true,
        node: vec!["/no/such/node".into(), "/bin/false".into()],
        scratch: Some(state.0.path().to_owned()),
    };
    let cancel = CancellationToken::new();
    let work = import(&log.0, state.0.path(), &options, &cancel, |_| ());
    let error = runtime::runtime().unwrap().block_on(work).unwrap_err();
    assert!(error.message().contains("/no/such/node: No such file"), "{error}");
    assert!(error.message().contains("/bin/false: it ended early"), "{error}");
    let left: Vec<_> = fs::read_dir(state.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["agents"], "the scratch folder stays behind");
}
