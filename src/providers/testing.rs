//! What the tests of all APIs share: an answer is read in every way it may arrive.

use super::api::{Api, Endpoint};
use super::builder::{Batch, Op};
use super::decoder::Decoder;
use super::message::AssistantMessage;
use crate::Result;
use crate::secrets::Secret;

/// Where the tests pretend the API is.
pub(crate) fn endpoint(base_url: &str) -> Endpoint {
    Endpoint {
        provider: "p".into(),
        base_url: base_url.into(),
        key: Some(Secret::copy_of(b"test-key")),
        headers: reqwest::header::HeaderMap::default(),
    }
}

/// One answer, read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Read {
    /// Each event: what, which block, its text.
    pub(crate) events: Vec<(Op, usize, String)>,
    /// The message as JSON, or the error's code and words.
    pub(crate) outcome: Result<String, String>,
}

impl Read {
    /// The whole text of the events of one kind.
    pub(crate) fn text(&self, op: Op) -> String {
        self.events.iter().filter(|event| event.0 == op).map(|event| event.2.as_str()).collect()
    }

    /// The message as a JSON value; panics with the error if there is none.
    pub(crate) fn message(&self) -> serde_json::Value {
        match &self.outcome {
            Ok(json) => serde_json::from_str(json).unwrap(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Reads the pieces, then the end of the stream.
pub(crate) fn read<'a>(api: &dyn Api, pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
    let mut decoder = Decoder::new(api, api.provider(), "the-model", 1_800_000_000_000, 1 << 20);
    let mut events = Vec::new();
    let mut outcome: Result<AssistantMessage> =
        Err(crate::CoreError::new(crate::Code::Internal, "nothing came"));
    let mut failed = false;
    for piece in pieces {
        let pushed = decoder.push(piece);
        take(&mut decoder, &mut events);
        match pushed {
            Ok(super::api::Flow::End) => break,
            Ok(super::api::Flow::Continue) => {}
            Err(error) => {
                outcome = Err(error);
                failed = true;
                break;
            }
        }
    }
    if !failed {
        outcome = decoder.finish();
        take(&mut decoder, &mut events);
    }
    Read {
        events,
        outcome: outcome
            .map(|message| message.to_json())
            .map_err(|error| format!("{}: {}", error.code(), error.message())),
    }
}

fn take(decoder: &mut Decoder, events: &mut Vec<(Op, usize, String)>) {
    let batch: Batch = decoder.out.take_events();
    assert_eq!(batch.entries().map(|entry| entry.2).collect::<String>(), batch.text);
    events.extend(batch.entries().map(|(op, index, text)| (op, index, text.to_owned())));
}

/// Reads an answer whole, byte by byte, cut in two at each offset, with every kind of line end, with a byte order mark,
/// and with comments in between (those only if it is an event stream): the same events and outcome each time, and no
/// U+FFFD that the answer itself does not have.
pub(crate) fn read_all_ways(api: &dyn Api, answer: &str) -> Read {
    let whole = read(api, [answer.as_bytes()]);
    let mut forms = vec![answer.to_owned()];
    if api.framing() == super::api::Framing::Sse {
        forms.push(answer.replace('\n', "\r\n"));
        forms.push(answer.replace('\n', "\r"));
        forms.push(format!("\u{FEFF}{answer}"));
        forms.push(answer.replace("\n\n", "\n: a comment\nid: 7\nretry: 10\n\n:\n\n"));
        forms.push(answer.replace("data: ", "data:"));
        forms.push(answer.trim_end().to_owned());
    } else {
        forms.push(answer.replace('\n', "\r\n"));
        forms.push(answer.replace('\n', "\n\n"));
        forms.push(answer.trim_end().to_owned());
    }
    for form in &forms {
        let bytes = form.as_bytes();
        assert_eq!(read(api, [bytes]), whole, "as one piece: {form:?}");
        assert_eq!(read(api, bytes.chunks(1)), whole, "byte by byte: {form:?}");
        for at in 0..bytes.len() {
            assert_eq!(read(api, [&bytes[..at], &bytes[at..]]), whole, "cut at {at}: {form:?}");
        }
    }
    if !answer.contains('\u{FFFD}') {
        assert!(!whole.events.iter().any(|event| event.2.contains('\u{FFFD}')), "{whole:?}");
    }
    whole
}

/// Cuts a good answer after each of its events and also within each, at every byte: never a message.
pub(crate) fn truncate_everywhere(api: &dyn Api, answer: &str, end_mark: &str) {
    let bytes = answer.as_bytes();
    let last = answer.rfind(end_mark).unwrap();
    // Up to where the end mark is not yet whole.
    for end in 0..=last {
        let cut = read(api, [&bytes[..end]]);
        let error = cut.outcome.expect_err(&format!("cut at {end}, it is taken for whole"));
        assert!(error.starts_with("PROVIDER_STREAM"), "cut at {end}: {error}");
        assert!(!cut.events.iter().any(|event| event.0 == Op::ToolEnd), "cut at {end}: a tool call is ended");
    }
}
