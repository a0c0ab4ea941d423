//! A stream of server-sent events on its way to another reader, with fewer events in it.
//!
//! OpenClaw's transports read each event in JavaScript. Between two writes of theirs, deltas that differ in nothing but
//! their text become one delta of the whole text; every other event passes as it is, in its place. So whoever reads on
//! reads the same answer, and has less to do. The text is joined as it stands in the JSON: nothing is decoded, and a
//! surrogate pair that was cut between two events is whole again.

use std::collections::BTreeMap;
use std::ops::Range;

use memchr::memchr_iter;
use serde_json::value::RawValue;

use super::api::{Framing, elements};
use super::sse::Parser;
use crate::Result;

/// Of the responses API: deltas of one text.
const RESPONSE_DELTAS: [&str; 7] = [
    "\"response.output_text.delta\"",
    "\"response.refusal.delta\"",
    "\"response.function_call_arguments.delta\"",
    "\"response.custom_tool_call_input.delta\"",
    "\"response.reasoning_text.delta\"",
    "\"response.reasoning_summary_text.delta\"",
    "\"response.mcp_call_arguments.delta\"",
];

/// Events that come in, and those that go out.
#[derive(Debug)]
pub struct Relay {
    parser: Parser,
    queue: Queue,
}

#[derive(Debug, Default)]
struct Queue {
    out: Vec<u8>,
    /// The last delta, which the next one may join.
    held: Option<Held>,
    urgent: bool,
}

/// A delta.
#[derive(Debug)]
struct Held {
    name: Vec<u8>,
    /// The event of the first one.
    data: Vec<u8>,
    /// Where in it the text is.
    place: Range<usize>,
    /// All but the text and what may differ.
    frame: Vec<u8>,
    /// The texts of all of them, as JSON has it.
    text: Vec<u8>,
}

impl Relay {
    /// A relay that refuses lines and events of more than `most` bytes.
    pub fn new(most: usize) -> Self {
        Self { parser: Parser::new(Framing::Sse, most), queue: Queue::default() }
    }

    /// The next bytes. Returns whether something came that is no delta, and is not to wait.
    ///
    /// # Errors
    /// `LIMIT`: a line or an event is too long.
    pub fn push(&mut self, bytes: &[u8]) -> Result<bool> {
        let Self { parser, queue } = self;
        parser.push(bytes, &mut |name, data| queue.event(name, data))?;
        Ok(std::mem::take(&mut queue.urgent))
    }

    /// The stream has ended: what is left goes out with the next [`Self::take`].
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn end(&mut self) -> Result<()> {
        let Self { parser, queue } = self;
        parser.end(&mut |name, data| queue.event(name, data))
    }

    /// Whether something is to be taken.
    pub fn is_waiting(&self) -> bool {
        self.queue.held.is_some() || !self.queue.out.is_empty()
    }

    /// The events that have come, as an event stream.
    pub fn take(&mut self) -> Vec<u8> {
        self.queue.release();
        std::mem::take(&mut self.queue.out)
    }
}

impl Queue {
    #[expect(clippy::unnecessary_wraps, reason = "the parser's sink may fail")]
    fn event(&mut self, name: &[u8], data: &[u8]) -> Result<bool> {
        if data.trim_ascii().is_empty() {
            return Ok(true);
        }
        let Some((place, frame)) = std::str::from_utf8(data).ok().and_then(delta) else {
            self.release();
            self.urgent = true;
            write(&mut self.out, name, [data]);
            return Ok(true);
        };
        let text = data.get(place.clone()).unwrap_or_default();
        match &mut self.held {
            Some(held) if held.frame == frame && held.name == name => held.text.extend_from_slice(text),
            _ => {
                self.release();
                let text = text.to_vec();
                self.held = Some(Held { name: name.to_vec(), data: data.to_vec(), place, frame, text });
            }
        }
        Ok(true)
    }

    fn release(&mut self) {
        let Some(Held { name, data, place, text, .. }) = self.held.take() else { return };
        let before = data.get(..place.start).unwrap_or_default();
        let after = data.get(place.end..).unwrap_or_default();
        write(&mut self.out, &name, [before, &text, after]);
    }
}

/// Appends an event whose data is `parts`, one after the other.
fn write<const N: usize>(out: &mut Vec<u8>, name: &[u8], parts: [&[u8]; N]) {
    if !name.is_empty() {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name);
        out.push(b'\n');
    }
    out.extend_from_slice(b"data: ");
    for part in parts {
        let mut from = 0;
        for end in memchr_iter(b'\n', part) {
            out.extend_from_slice(part.get(from..=end).unwrap_or_default());
            out.extend_from_slice(b"data: ");
            from = end + 1;
        }
        out.extend_from_slice(part.get(from..).unwrap_or_default());
    }
    out.extend_from_slice(b"\n\n");
}

type Members<'a> = BTreeMap<&'a str, &'a RawValue>;

/// The members of an object; none if it is no object, or has a name with an escape in it.
fn members(json: &str) -> Option<Members<'_>> {
    serde_json::from_str(json).ok()
}

/// Of an event that carries a piece of one text and nothing else: where the text is, within its quotation marks, and the
/// rest of the event, which is the same in each event that carries on.
fn delta(event: &str) -> Option<(Range<usize>, Vec<u8>)> {
    let top = members(event)?;
    // Beside the text, only these may differ from one delta to the next; no reader of OpenClaw's looks at them.
    let mut free = [None, None];
    let text = match top.get("type").map(|kind| kind.get()) {
        Some("\"content_block_delta\"") => anthropic(&top)?,
        Some(kind) if RESPONSE_DELTAS.contains(&kind) => {
            free = [top.get("sequence_number"), top.get("obfuscation")];
            let logprobs = top.get("logprobs").is_none_or(|list| matches!(list.get(), "null" | "[]"));
            top.get("delta").filter(|_| logprobs)?
        }
        None => {
            free = [top.get("obfuscation").filter(|value| is_text(value)), None];
            chat(&top)?
        }
        Some(_) => return None,
    };
    let place = place(event, text)?;
    let place = place.start + 1..place.end - 1;
    let mut gaps = vec![place.clone()];
    gaps.extend(free.into_iter().flatten().filter_map(|value| self::place(event, value)));
    gaps.sort_unstable_by_key(|gap| gap.start);
    let mut frame = Vec::with_capacity(event.len());
    let mut from = 0;
    for gap in gaps {
        frame.extend_from_slice(event.get(from..gap.start)?.as_bytes());
        // Keeps the parts apart: no JSON text holds it.
        frame.push(0);
        from = gap.end;
    }
    frame.extend_from_slice(event.get(from..)?.as_bytes());
    Some((place, frame))
}

/// Where a value of the event stands in it.
fn place(event: &str, value: &RawValue) -> Option<Range<usize>> {
    let start = value.get().as_ptr().addr().checked_sub(event.as_ptr().addr())?;
    let range = start..start + value.get().len();
    (event.get(range.clone()) == Some(value.get())).then_some(range)
}

fn is_text(value: &RawValue) -> bool {
    value.get().starts_with('"')
}

fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// Messages API: `content_block_delta` of one kind of text.
fn anthropic<'a>(top: &Members<'a>) -> Option<&'a RawValue> {
    let delta = members(top.get("delta")?.get())?;
    if top.len() != 3 || !top.contains_key("index") || delta.len() != 2 || !delta.contains_key("type") {
        return None;
    }
    let text = ["text", "thinking", "partial_json"].iter().find_map(|name| delta.get(name))?;
    is_text(text).then_some(*text)
}

/// Chat completions: one choice that goes on, with a piece of its text, of its reasoning, or of one call's arguments.
fn chat<'a>(top: &Members<'a>) -> Option<&'a RawValue> {
    if ["usage", "error"].iter().any(|name| top.get(name).is_some_and(|value| !is_null(value))) {
        return None;
    }
    let [choice] = elements(top.get("choices")?)[..] else { return None };
    let choice = members(choice.get())?;
    let (_, delta) = sole(&choice, &["index"], &["delta"])?;
    let delta = members(delta.get())?;
    let texts = ["content", "reasoning_content", "reasoning", "reasoning_text", "tool_calls"];
    let (name, value) = sole(&delta, &["role"], &texts)?;
    if name != "tool_calls" {
        return is_text(value).then_some(value);
    }
    let [call] = elements(value)[..] else { return None };
    let call = members(call.get())?;
    let (_, function) = sole(&call, &["index", "type"], &["function"])?;
    let function = members(function.get())?;
    let (_, arguments) = sole(&function, &[], &["arguments"])?;
    is_text(arguments).then_some(arguments)
}

/// The one member that says something, if it is one of `names`. Those of `beside` do not count, nor does null.
fn sole<'a>(object: &Members<'a>, beside: &[&str], names: &[&str]) -> Option<(&'a str, &'a RawValue)> {
    let mut rest = object.iter().filter(|(name, value)| !beside.contains(name) && !is_null(value));
    let (name, value) = rest.next()?;
    (rest.next().is_none() && names.contains(name)).then_some((*name, *value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::fixtures::event_streams;
    use super::super::sse::LINE_BYTES;
    use super::super::testing::read;
    use super::*;

    /// What comes out if it is taken after each piece.
    fn relayed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut relay = Relay::new(LINE_BYTES);
        let mut out = Vec::new();
        for piece in pieces {
            relay.push(piece).unwrap();
            out.extend(relay.take());
        }
        relay.end().unwrap();
        out.extend(relay.take());
        assert!(!relay.is_waiting());
        out
    }

    /// The data of each event, read by other code than that which wrote it.
    fn events(stream: &[u8]) -> Vec<String> {
        let text = std::str::from_utf8(stream).unwrap();
        text.split_terminator("\n\n")
            .map(|event| {
                let data = event.lines().filter_map(|line| line.strip_prefix("data: "));
                data.collect::<Vec<_>>().join("\n")
            })
            .collect()
    }

    fn stream(events: &[Value]) -> Vec<u8> {
        events.iter().flat_map(|event| format!("data: {event}\n\n").into_bytes()).collect()
    }

    #[test]
    fn every_recorded_answer_is_the_same_answer_however_it_is_cut_and_taken() {
        for (api, name, bytes) in event_streams() {
            let whole = read(api, [&bytes[..]]);
            let texts = |read: &super::super::testing::Read| {
                use super::super::builder::Op::{TextDelta, ThinkingDelta, ToolDelta};
                [TextDelta, ThinkingDelta, ToolDelta].map(|op| read.text(op))
            };
            let check = |out: Vec<u8>| {
                let again = read(api, [&out[..]]);
                assert_eq!(again.outcome, whole.outcome, "{} {name}", api.id());
                assert_eq!(texts(&again), texts(&whole), "{} {name}", api.id());
            };
            check(relayed([&bytes[..]]));
            check(relayed(bytes.chunks(1)));
            for at in 0..bytes.len() {
                check(relayed([&bytes[..at], &bytes[at..]]));
            }
        }
    }

    #[test]
    fn a_long_text_in_one_piece_is_one_event_and_goes_in_its_place() {
        let delta = |text: &str| {
            json!({ "type": "content_block_delta", "index": 0,
            "delta": { "type": "text_delta", "text": text } })
        };
        let mut all = vec![
            json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
        ];
        let pieces: Vec<_> = (0..500).map(|at| format!("\u{1F389}\n{at} ")).collect();
        all.extend(pieces.iter().map(|piece| delta(piece)));
        all.push(json!({ "type": "content_block_stop", "index": 0 }));
        let out = events(&relayed([&stream(&all)[..]]));
        assert_eq!(out.len(), 3);
        assert_eq!(serde_json::from_str::<Value>(&out[1]).unwrap(), delta(&pieces.concat()));
        assert_eq!(out[2], all.last().unwrap().to_string());
    }

    #[test]
    fn a_surrogate_pair_that_was_cut_in_two_is_whole_again() {
        let bytes = br#"data: {"choices":[{"index":0,"delta":{"content":"a\ud83d"}}]}

data: {"choices":[{"index":0,"delta":{"content":"\ude00b"}}]}

"#;
        let out = events(&relayed([&bytes[..]]));
        assert_eq!(out, [r#"{"choices":[{"index":0,"delta":{"content":"a\ud83d\ude00b"}}]}"#]);
    }

    /// Each pair is two events that must stay two.
    #[test]
    fn what_says_more_than_its_text_is_not_joined() {
        let chat = |delta: Value| json!({ "id": "c", "choices": [{ "index": 0, "delta": delta, "finish_reason": null }] });
        let call = |call: Value| chat(json!({ "tool_calls": [call] }));
        let block = |index: u32, delta: Value| json!({ "type": "content_block_delta", "index": index, "delta": delta });
        let response = |item: &str, index: u32| {
            json!({ "type": "response.output_text.delta", "item_id": item,
            "output_index": index, "delta": "x", "sequence_number": 1 })
        };
        let twice = |event: Value| [event.clone(), event];
        for pair in [
            twice(chat(json!({ "content": "x", "reasoning": "y" }))),
            twice(chat(
                json!({ "reasoning": "x", "reasoning_details": [{ "type": "reasoning.text", "text": "x" }] }),
            )),
            twice(chat(json!({ "content": [{ "type": "text", "text": "x" }] }))),
            twice(chat(json!({ "refusal": "x" }))),
            twice(chat(json!({ "content": "x", "tool_calls": [] }))),
            twice(call(json!({ "index": 0, "id": "a", "function": { "name": "f", "arguments": "{" } }))),
            twice(call(json!({ "index": 0, "function": { "arguments": { "a": 1 } } }))),
            [
                call(json!({ "index": 0, "function": { "arguments": "{" } })),
                call(json!({ "index": 1, "function": { "arguments": "{" } })),
            ],
            [chat(json!({ "content": "x" })), chat(json!({ "reasoning_content": "x" }))],
            twice(
                json!({ "choices": [{ "index": 0, "delta": { "content": "x" }, "finish_reason": "stop" }] }),
            ),
            twice(
                json!({ "choices": [{ "index": 0, "delta": { "content": "x" }, "logprobs": { "content": [] } }] }),
            ),
            twice(
                json!({ "choices": [{ "index": 0, "delta": { "content": "x" } }], "usage": { "completion_tokens": 1 } }),
            ),
            twice(
                json!({ "choices": [{ "index": 0, "delta": { "content": "x" } }, { "index": 1, "delta": { "content": "x" } }] }),
            ),
            [
                block(0, json!({ "type": "text_delta", "text": "x" })),
                block(1, json!({ "type": "text_delta", "text": "x" })),
            ],
            twice(block(0, json!({ "type": "signature_delta", "signature": "x" }))),
            twice(block(0, json!({ "type": "text_delta", "text": "x", "reasoning_content": "y" }))),
            twice(block(0, json!({ "type": "citations_delta", "citation": { "text": "x" } }))),
            [response("a", 0), response("b", 0)],
            [response("a", 0), response("a", 1)],
            twice(json!({ "type": "response.output_text.done", "delta": "x" })),
            twice(json!({ "type": "response.audio.delta", "delta": "eA==" })),
            twice(json!({ "candidates": [{ "content": { "parts": [{ "text": "x" }] } }] })),
        ] {
            let expected = pair.each_ref().map(ToString::to_string);
            assert_eq!(events(&relayed([&stream(&pair)[..]])), expected);
        }
    }

    #[test]
    fn numbers_and_padding_that_nobody_reads_do_not_keep_deltas_apart() {
        let delta = |text: &str, number: u32, padding: &str| {
            json!({ "type": "response.output_text.delta", "item_id": "m",
            "output_index": 0, "content_index": 0, "delta": text, "sequence_number": number, "obfuscation": padding, "logprobs": [] })
        };
        let out =
            events(&relayed([
                &stream(&[delta("a", 4, "xx"), delta("\"b", 5, "yyy"), delta("c", 6, "")])[..],
            ]));
        assert_eq!(out.len(), 1);
        assert_eq!(serde_json::from_str::<Value>(&out[0]).unwrap(), delta("a\"bc", 4, "xx"));
    }

    #[test]
    fn openais_padding_does_not_keep_the_deltas_of_a_chat_apart() {
        let delta = |text: &str, padding: &str| {
            json!({ "id": "c", "object": "chat.completion.chunk",
            "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }],
            "obfuscation": padding })
        };
        let out = events(&relayed([&stream(&[delta("a", "Xq"), delta("b", "x\"y z9"), delta("c", "")])[..]]));
        assert_eq!(out.len(), 1);
        assert_eq!(serde_json::from_str::<Value>(&out[0]).unwrap(), delta("abc", "Xq"));
    }

    #[test]
    fn what_is_no_event_of_any_api_passes_as_it_is() {
        for data in
            ["[DONE]", "{", "<html>", "{\"type\":1}", "null", "[]", "{\"delta\":\"x\"}", "{\"choices\":[]}"]
        {
            let bytes = format!("event: e\ndata: {data}\n\n").repeat(2);
            assert_eq!(String::from_utf8(relayed([bytes.as_bytes()])).unwrap(), bytes, "{data}");
        }
        assert_eq!(relayed([&b"data: \xff\xfe\n\n"[..]]), b"data: \xff\xfe\n\n");
        // Lines of one event stay lines; comments, pings without data and other fields go.
        let bytes = b": c\n\nevent: ping\n\ndata:  \n\nid: 1\nretry: 5\ndata: {\ndata: }\n\n";
        assert_eq!(String::from_utf8(relayed([&bytes[..]])).unwrap(), "data: {\ndata: }\n\n");
    }

    #[test]
    fn only_deltas_may_wait() {
        let mut relay = Relay::new(LINE_BYTES);
        let delta = json!({ "choices": [{ "index": 0, "delta": { "content": "x" } }] });
        assert!(!relay.push(&stream(std::slice::from_ref(&delta))).unwrap());
        assert!(relay.is_waiting());
        assert!(relay.push(b"data: [DONE]\n\n").unwrap());
        assert_eq!(events(&relay.take()), [delta.to_string(), "[DONE]".into()]);
        assert!(!relay.push(&stream(&[delta])).unwrap(), "it was urgent before, and is not now");
    }

    #[test]
    fn a_line_without_end_is_an_error_and_not_memory() {
        let mut relay = Relay::new(64);
        assert_eq!(relay.push(&[b'x'; 65]).unwrap_err().code(), crate::Code::Limit);
    }

    proptest! {
        #[test]
        fn joined_or_not_the_text_is_the_same(texts in prop::collection::vec("\\PC{0,8}", 1..40), piece in 1_usize..400) {
            let events: Vec<_> = texts.iter().map(|text| json!({ "type": "content_block_delta", "index": 0,
                "delta": { "type": "text_delta", "text": text } })).collect();
            let bytes = stream(&events);
            let out = self::events(&relayed(bytes.chunks(piece)));
            let again = out.iter().map(|event| {
                serde_json::from_str::<Value>(event).unwrap()["delta"]["text"].as_str().unwrap().to_owned()
            });
            prop_assert_eq!(again.collect::<String>(), texts.concat());
        }

        #[test]
        fn no_bytes_make_it_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..10)) {
            relayed(pieces.iter().map(Vec::as_slice));
        }
    }
}
