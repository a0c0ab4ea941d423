//! The readers of model APIs' answers.

use openclaw_core::providers::anthropic::Anthropic;
use openclaw_core::providers::api::{Api, Flow};
use openclaw_core::providers::decoder::Decoder;
use openclaw_core::providers::gemini::Gemini;
use openclaw_core::providers::ollama::Ollama;
use openclaw_core::providers::openai_chat::OpenAiChat;
use openclaw_core::providers::openai_responses::OpenAiResponses;

const LINE: usize = 1 << 16;

/// The first byte chooses the API, the second where the bytes are cut: in one piece, in two and byte by byte they come to the
/// same, and what is held is bounded by what came.
pub(crate) fn answer(data: &[u8]) {
    let [which, at, bytes @ ..] = data else { return };
    let apis: [&dyn Api; 5] = [&Anthropic, &OpenAiChat, &OpenAiResponses, &Gemini, &Ollama];
    let api = apis[usize::from(*which) % apis.len()];
    let whole = read(api, &[bytes]);
    let (head, tail) = bytes.split_at(usize::from(*at).min(bytes.len()));
    assert_eq!(read(api, &[head, tail]), whole, "cut at {at}");
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(read(api, &single), whole, "byte by byte");
}

fn read(api: &dyn Api, pieces: &[&[u8]]) -> (String, Result<String, String>) {
    let mut decoder = Decoder::new(api, api.provider(), "m", 0, LINE);
    let mut events = String::new();
    let mut came = 0;
    let mut failed = None;
    for piece in pieces {
        came += piece.len();
        let pushed = decoder.push(piece);
        // A line, an event of as many bytes, and a share for each event.
        assert!(decoder.bytes() <= 8 * LINE + 64 * came, "{} bytes for {came}", decoder.bytes());
        let batch = decoder.out.take_events();
        for (op, index, text) in batch.entries() {
            events.push_str(&format!("{op:?} {index} {text}\n"));
        }
        match pushed {
            Ok(Flow::Continue) => {}
            Ok(Flow::End) => break,
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let outcome = match failed {
        Some(error) => Err(error),
        None => decoder.finish().map(|message| message.to_json()),
    };
    if let Ok(json) = &outcome {
        // Half of a surrogate pair is JSON, as JavaScript has it, though no value of serde_json's.
        serde_json::from_str::<&serde_json::value::RawValue>(json).expect("the message is JSON");
    }
    (events, outcome.map_err(|error| error.to_string()))
}
