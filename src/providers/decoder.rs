//! From the bytes of an answer to its events and its message, without a socket.

use super::api::{Api, Flow, Reducer, malformed};
use super::builder::MessageBuilder;
use super::message::AssistantMessage;
use super::sse::Parser;
use crate::Result;

/// One answer: its framing, the API's reducer and the message that grows.
pub struct Decoder {
    api: &'static str,
    parser: Parser,
    reducer: Box<dyn Reducer>,
    /// The message, and the events that wait to be taken.
    pub out: MessageBuilder,
    ended: bool,
}

impl Decoder {
    /// For an answer of `api`. A line of more than `line_bytes` is an error.
    pub fn new(api: &dyn Api, provider: &str, model: &str, timestamp_ms: u64, line_bytes: usize) -> Self {
        Self {
            api: api.id(),
            parser: Parser::new(api.framing(), line_bytes),
            reducer: api.reducer(),
            out: MessageBuilder::new(api.id(), provider, model, timestamp_ms),
            ended: false,
        }
    }

    /// The next bytes. [`Flow::End`] once the API's own end mark was among them.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Flow> {
        let Self { api, parser, reducer, out, ended } = self;
        parser.push(bytes, &mut |name, data| event(api, reducer.as_mut(), out, ended, name, data))?;
        Ok(if self.ended { Flow::End } else { Flow::Continue })
    }

    /// The stream is over, by its end mark or because the server closed it: the whole message, or why there is none.
    pub fn finish(&mut self) -> Result<AssistantMessage> {
        if !self.ended {
            let Self { api, parser, reducer, out, ended } = self;
            parser.end(&mut |name, data| event(api, reducer.as_mut(), out, ended, name, data))?;
            if !self.ended {
                self.reducer.end(&mut self.out)?;
            }
        }
        self.out.finish()
    }

    /// How much memory it holds beside the message.
    pub fn bytes(&self) -> usize {
        self.parser.bytes() + self.out.events().bytes()
    }
}

fn event(
    api: &str,
    reducer: &mut dyn Reducer,
    out: &mut MessageBuilder,
    ended: &mut bool,
    name: &[u8],
    data: &[u8],
) -> Result<bool> {
    let text = |bytes| {
        std::str::from_utf8(bytes).map_err(|error| malformed(api, format_args!("it is not UTF-8: {error}")))
    };
    *ended = reducer.event(text(name)?, text(data)?, out)? == Flow::End;
    Ok(!*ended)
}
