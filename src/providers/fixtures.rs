//! Every recorded answer of every API, read in every way it may arrive. The same bytes are what the loopback server of
//! `__test__/sim/models` sends, and what the APIs' own clients are held against there.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::anthropic::Anthropic;
use super::api::{Api, Framing};
use super::builder::Op;
use super::gemini::Gemini;
use super::ollama::Ollama;
use super::openai_chat::OpenAiChat;
use super::openai_responses::OpenAiResponses;
use super::testing::{Read, read};

const APIS: [&dyn Api; 5] = [&Anthropic, &OpenAiChat, &OpenAiResponses, &Gemini, &Ollama];

struct Fixture {
    api: &'static dyn Api,
    name: String,
    bytes: Vec<u8>,
    expected: Value,
}

fn folder(api: &dyn Api) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("__test__/sim/models/fixtures").join(api.id())
}

fn fixtures() -> Vec<Fixture> {
    let of_api = |api: &'static dyn Api| {
        let expected = std::fs::read_to_string(folder(api).join("expected.json")).unwrap();
        let Value::Object(expected) = serde_json::from_str(&expected).unwrap() else { panic!("no object") };
        expected.into_iter().map(move |(name, expected)| {
            let ending = if api.framing() == Framing::Sse { "sse" } else { "ndjson" };
            let bytes = std::fs::read(folder(api).join(format!("{name}.{ending}"))).unwrap();
            Fixture { api, name, bytes, expected }
        })
    };
    let fixtures: Vec<_> = APIS.into_iter().flat_map(of_api).collect();
    assert!(fixtures.len() > 50, "only {} fixtures", fixtures.len());
    fixtures
}

impl Fixture {
    fn says(&self) -> String {
        format!("{} {}", self.api.id(), self.name)
    }

    /// Where each event ends, the last one's end being that of the stream.
    fn event_ends(&self) -> Vec<usize> {
        let end = |at: &usize| {
            let rest = &self.bytes[..*at];
            match self.api.framing() {
                Framing::Sse => [&b"\n\n"[..], b"\r\n\r\n", b"\r\r"].iter().any(|end| rest.ends_with(end)),
                Framing::Ndjson => rest.ends_with(b"\n"),
            }
        };
        (1..self.bytes.len()).filter(end).collect()
    }
}

/// The recorded answers that are event streams.
pub(super) fn event_streams() -> Vec<(&'static dyn Api, String, Vec<u8>)> {
    let sse = fixtures().into_iter().filter(|fixture| fixture.api.framing() == Framing::Sse);
    sse.map(|fixture| (fixture.api, fixture.name, fixture.bytes)).collect()
}

/// The blocks of the events themselves, as JavaScript would put them together.
fn content_of_events(read: &Read) -> Vec<(Op, String)> {
    let mut blocks: Vec<(Op, String)> = Vec::new();
    let mut ended = Vec::new();
    for (op, index, text) in &read.events {
        match op {
            Op::TextStart | Op::ThinkingStart | Op::ToolStart => {
                assert_eq!(*index, blocks.len(), "blocks begin in order");
                blocks.push((*op, String::new()));
                ended.push(false);
            }
            Op::TextDelta | Op::ThinkingDelta | Op::ToolDelta => {
                assert!(!ended[*index], "a delta after the end of its block");
                blocks[*index].1.push_str(text);
            }
            Op::Redacted => blocks[*index].1.clone_from(text),
            Op::TextEnd | Op::ThinkingEnd | Op::ToolEnd => {
                assert!(!std::mem::replace(&mut ended[*index], true), "a block ends twice");
                if *op == Op::ToolEnd {
                    blocks[*index].1.clone_from(text);
                }
            }
            Op::Start => assert_eq!(blocks.len(), 0, "the start is not first"),
            Op::ToolName | Op::Signature => {}
        }
    }
    if read.outcome.is_ok() {
        assert!(ended.iter().all(|ended| *ended), "a block of a good answer has no end");
    }
    blocks
}

#[test]
fn each_recorded_answer_comes_to_what_it_should() {
    for fixture in fixtures() {
        let says = fixture.says();
        let read = read(fixture.api, [&fixture.bytes[..]]);
        let events = content_of_events(&read);
        let expected = &fixture.expected;
        if let Some(word) = expected.get("error") {
            let error = read.outcome.expect_err(&says);
            assert!(error.starts_with("PROVIDER_STREAM: "), "{says}: {error}");
            assert!(error.contains(word.as_str().unwrap()), "{says}: {error}");
            let texts = |block: &Value| block["text"].as_str().map(|text| (Op::TextStart, text.to_owned()));
            let shown: Vec<_> = expected["content"].as_array().unwrap().iter().filter_map(texts).collect();
            let seen: Vec<_> = events.into_iter().filter(|(op, _)| *op != Op::ToolStart).collect();
            assert_eq!(seen, shown, "{says}");
            continue;
        }
        let message = read.message();
        for field in ["content", "stopReason", "responseId", "usage"] {
            assert_eq!(message.get(field), expected.get(field), "{says}: {field}");
        }
        let blocks = message["content"].as_array().unwrap();
        for (block, (op, text)) in blocks.iter().zip(&events) {
            match op {
                Op::TextStart => assert_eq!(block["text"], text.as_str(), "{says}"),
                Op::ThinkingStart => assert_eq!(block["thinking"], text.as_str(), "{says}"),
                _ => assert_eq!(block["arguments"], serde_json::from_str::<Value>(text).unwrap(), "{says}"),
            }
        }
        assert_eq!(blocks.len(), events.len(), "{says}");
    }
}

#[test]
fn each_recorded_answer_is_the_same_in_any_two_pieces_and_byte_by_byte() {
    for fixture in fixtures() {
        let says = fixture.says();
        let bytes = &fixture.bytes[..];
        let whole = read(fixture.api, [bytes]);
        assert_eq!(read(fixture.api, bytes.chunks(1)), whole, "{says}: byte by byte");
        for at in 1..bytes.len() {
            assert_eq!(read(fixture.api, [&bytes[..at], &bytes[at..]]), whole, "{says}: cut at {at}");
        }
        assert!(!whole.events.iter().any(|event| event.2.contains('\u{FFFD}')), "{says}: {whole:?}");
    }
}

#[test]
fn each_recorded_answer_that_is_cut_after_an_event_is_no_message() {
    for fixture in fixtures() {
        let says = fixture.says();
        let whole = read(fixture.api, [&fixture.bytes[..]]);
        for end in fixture.event_ends() {
            let cut = &fixture.bytes[..end];
            let read = read(fixture.api, [cut]);
            content_of_events(&read);
            let Ok(message) = &read.outcome else { continue };
            // What comes behind the end mark is no part of the answer. Gemini's is the reason of its end, and only counts
            // come after it.
            let is_whole = read.outcome == whole.outcome;
            let text = String::from_utf8_lossy(cut);
            let marked = match fixture.api.id() {
                "anthropic-messages" => text.contains("\"message_stop\"}\n\n"),
                "openai-completions" => text.contains("[DONE]"),
                "openai-responses" => {
                    text.contains("response.completed") || text.contains("response.incomplete")
                }
                "google-generative-ai" => text.contains("\"finishReason\""),
                _ => text.contains("\"done\":true"),
            };
            assert!(marked, "{says}: cut at {end}, it is taken for whole: {message}");
            assert!(
                is_whole || fixture.api.id() == "google-generative-ai",
                "{says}: cut at {end}: {message}"
            );
        }
    }
}

#[test]
fn a_recorded_answer_with_a_byte_changed_is_read_without_a_panic() {
    let values = [b'"', b'{', 0xFF, b'\n', b'0', b'\\'];
    for fixture in fixtures() {
        for (at, value) in (0..fixture.bytes.len()).zip(values.into_iter().cycle()) {
            let mut bytes = fixture.bytes.clone();
            bytes[at] = value;
            content_of_events(&read(fixture.api, [&bytes[..]]));
        }
    }
}
