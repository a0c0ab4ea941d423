//! An answer while it grows, and the events that make it up.
//!
//! Each API's reducer writes to a [`MessageBuilder`]. It owns the numbering of content blocks, the text of each, the
//! events, and the rules that hold for all APIs. In particular a tool call is finished only when the whole answer is, and
//! only if its arguments are one complete JSON object; nothing is repaired.

use serde_json::value::RawValue;

use super::api::{incomplete, text, units};
use super::message::{AssistantMessage, Block, StopReason, Usage};
use crate::{Code, CoreError, Result};

/// What an entry of a [`Batch`] says. The numbers are those that `script.js` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Op {
    /// The answer has begun.
    Start = 0,
    /// A text block begins.
    TextStart = 1,
    /// More of it.
    TextDelta = 2,
    /// It is complete.
    TextEnd = 3,
    /// A thinking block begins.
    ThinkingStart = 4,
    /// More of it.
    ThinkingDelta = 5,
    /// It is complete.
    ThinkingEnd = 6,
    /// A tool call begins; the text is its id, and a [`Op::ToolName`] follows.
    ToolStart = 7,
    /// More of its arguments.
    ToolDelta = 8,
    /// It is complete; the text, if there is any, is its arguments, in place of what has come.
    ToolEnd = 9,
    /// No event: the name of the tool whose call has just begun.
    ToolName = 10,
    /// No event: more of the signature of the block.
    Signature = 11,
    /// No event: the thinking is hidden; the text stands in its place.
    Redacted = 12,
}

impl Op {
    /// The one of this number.
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Start,
            1 => Self::TextStart,
            2 => Self::TextDelta,
            3 => Self::TextEnd,
            4 => Self::ThinkingStart,
            5 => Self::ThinkingDelta,
            6 => Self::ThinkingEnd,
            7 => Self::ToolStart,
            8 => Self::ToolDelta,
            9 => Self::ToolEnd,
            10 => Self::ToolName,
            11 => Self::Signature,
            12 => Self::Redacted,
            _ => return None,
        })
    }
}

/// Events that have come and were not yet handed on, packed: three numbers each ([`Op`], content index, length of its
/// text in UTF-16 code units) and all texts in one, so that a batch crosses into JavaScript as one array and one string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Three an entry.
    pub numbers: Vec<u32>,
    /// The texts, one after the other.
    pub text: String,
}

impl Batch {
    /// How much memory it holds.
    pub fn bytes(&self) -> usize {
        self.numbers.len() * 4 + self.text.len()
    }

    /// Whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Adds what came later.
    pub fn append(&mut self, later: Self) {
        if self.is_empty() {
            *self = later;
        } else {
            self.numbers.extend_from_slice(&later.numbers);
            self.text.push_str(&later.text);
        }
    }

    /// Whether anything of the answer's own words is in it.
    pub fn has_delta(&self) -> bool {
        let deltas = [Op::TextDelta as u32, Op::ThinkingDelta as u32, Op::ToolDelta as u32];
        self.numbers.chunks_exact(3).any(|entry| entry.first().is_some_and(|op| deltas.contains(op)))
    }

    fn push(&mut self, op: Op, index: usize, text: &str) {
        let units = if text.is_ascii() { text.len() } else { text.encode_utf16().count() };
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        self.numbers.extend([op as u32, small(index), small(units)]);
        self.text.push_str(text);
    }

    /// The entries one by one: what, which block, and the text.
    pub fn entries(&self) -> impl Iterator<Item = (Op, usize, &str)> {
        let mut rest = self.text.as_str();
        self.numbers.chunks_exact(3).filter_map(move |entry| {
            let &[op, index, units] = entry else { return None };
            let mut left = units as usize;
            let end = rest.char_indices().find_map(|(at, char)| {
                let here = left == 0;
                left = left.saturating_sub(char.len_utf16());
                here.then_some(at)
            });
            let (text, after) = rest.split_at_checked(end.unwrap_or(rest.len()))?;
            rest = after;
            Some((Op::from_number(op)?, index as usize, text))
        })
    }
}

/// The most bytes an answer may hold: far beyond what any model writes.
pub const MESSAGE_BYTES: usize = 64 << 20;
/// What a block costs beside its text.
const BLOCK_BYTES: usize = 128;

/// An answer while it grows, and the events that are still to be handed on.
///
/// The index that each `…_start` returns names the block from then on. Deltas to a block of another kind, or to one that
/// has ended, are ignored: no API sends them, and a server that does has said nothing that can be shown.
#[derive(Debug)]
pub struct MessageBuilder {
    message: AssistantMessage,
    /// Beside each block of the message.
    states: Vec<BlockState>,
    batch: Batch,
    started: bool,
    stop: Option<StopReason>,
    progress: u64,
    bytes: usize,
}

#[derive(Debug, Default)]
struct BlockState {
    ended: bool,
    /// The first half of a surrogate pair, whose second half has not come.
    half: Option<u16>,
}

impl MessageBuilder {
    /// An answer without content.
    pub fn new(api: &'static str, provider: &str, model: &str, timestamp_ms: u64) -> Self {
        Self {
            message: AssistantMessage {
                content: Vec::new(),
                api,
                provider: provider.into(),
                model: model.into(),
                response_id: None,
                response_model: None,
                usage: Usage::default(),
                stop_reason: StopReason::Error,
                error_message: None,
                timestamp_ms,
            },
            states: Vec::new(),
            batch: Batch::default(),
            started: false,
            stop: None,
            progress: 0,
            bytes: 0,
        }
    }

    /// The API has begun to answer. The first block does it too.
    pub fn start(&mut self) {
        if !std::mem::replace(&mut self.started, true) {
            self.progress += 1;
            self.batch.push(Op::Start, 0, "");
        }
    }

    /// The API's id of the answer.
    pub fn set_response_id(&mut self, id: &str) {
        self.message.response_id = Some(id.into());
    }

    /// The model that says it answered.
    pub fn set_response_model(&mut self, model: &str) {
        self.message.response_model = Some(model.into());
    }

    /// The counts, to be set where the API sends them.
    pub fn usage(&mut self) -> &mut Usage {
        self.progress += 1;
        &mut self.message.usage
    }

    /// The model has said something that is not shown, or not yet.
    pub fn unseen(&mut self, bytes: usize) -> Result<()> {
        self.start();
        self.progress += 1;
        self.grow(bytes)
    }

    /// The message so far.
    pub fn message(&self) -> &AssistantMessage {
        &self.message
    }

    /// Begins a text block.
    pub fn text_start(&mut self) -> usize {
        self.block(Op::TextStart, Block::Text { text: String::new(), signature: None })
    }

    /// More text.
    pub fn text_delta(&mut self, index: usize, delta: &str) -> Result<()> {
        self.delta(Op::TextDelta, index, delta)
    }

    /// The text is complete.
    pub fn text_end(&mut self, index: usize) {
        if matches!(self.message.content.get(index), Some(Block::Text { .. })) {
            self.end(Op::TextEnd, index);
        }
    }

    /// Begins a thinking block.
    pub fn thinking_start(&mut self) -> usize {
        let block = Block::Thinking { thinking: String::new(), signature: None, redacted: false };
        self.block(Op::ThinkingStart, block)
    }

    /// A thinking block that is hidden: `shown` stands for it, `signature` holds it.
    pub fn redacted_thinking(&mut self, shown: &str, signature: &str) -> Result<usize> {
        let index = self.thinking_start();
        self.grow(shown.len())?;
        if let Some(Block::Thinking { thinking, redacted, .. }) = self.message.content.get_mut(index) {
            shown.clone_into(thinking);
            *redacted = true;
        }
        self.batch.push(Op::Redacted, index, shown);
        self.signature(index, signature)?;
        Ok(index)
    }

    /// More thinking.
    pub fn thinking_delta(&mut self, index: usize, delta: &str) -> Result<()> {
        self.delta(Op::ThinkingDelta, index, delta)
    }

    /// The thinking is complete.
    pub fn thinking_end(&mut self, index: usize) {
        if matches!(self.message.content.get(index), Some(Block::Thinking { .. })) {
            self.end(Op::ThinkingEnd, index);
        }
    }

    /// Appends to the signature of a block of any kind.
    pub fn signature(&mut self, index: usize, more: &str) -> Result<()> {
        self.grow(more.len())?;
        let Some(block) = self.message.content.get_mut(index) else { return Ok(()) };
        let (Block::Text { signature, .. }
        | Block::Thinking { signature, .. }
        | Block::ToolCall { thought_signature: signature, .. }) = block;
        signature.get_or_insert_default().push_str(more);
        self.progress += 1;
        self.batch.push(Op::Signature, index, more);
        Ok(())
    }

    /// Begins a tool call.
    pub fn tool_start(&mut self, id: &str, name: &str) -> Result<usize> {
        self.grow(id.len() + name.len())?;
        let block = Block::ToolCall {
            id: id.into(),
            name: name.into(),
            arguments: String::new(),
            thought_signature: None,
        };
        self.start();
        let index = self.message.content.len();
        self.message.content.push(block);
        self.states.push(BlockState::default());
        self.progress += 1;
        self.batch.push(Op::ToolStart, index, id);
        self.batch.push(Op::ToolName, index, name);
        Ok(index)
    }

    /// More of the arguments' JSON text.
    pub fn tool_delta(&mut self, index: usize, delta: &str) -> Result<()> {
        self.delta(Op::ToolDelta, index, delta)
    }

    /// The API says that the arguments are complete. The event follows in [`Self::finish`], once the whole answer is:
    /// a call in a broken answer must not be run.
    pub fn tool_end(&mut self, index: usize) {
        self.give_up_half(Op::ToolDelta, index);
        if let (Some(Block::ToolCall { .. }), Some(state)) =
            (self.message.content.get(index), self.states.get_mut(index))
        {
            state.ended = true;
            self.progress += 1;
        }
    }

    /// As [`Self::tool_end`], with arguments that the API repeats in full: they count in place of what has come.
    pub fn tool_end_with(&mut self, index: usize, whole: &str) -> Result<()> {
        self.grow(whole.len())?;
        if let Some(Block::ToolCall { arguments, .. }) = self.message.content.get_mut(index)
            && arguments != whole
        {
            whole.clone_into(arguments);
        }
        self.tool_end(index);
        Ok(())
    }

    /// As the matching `…_delta`, for a delta as it stands in the JSON of the event. Unlike a `&str` it may hold half of
    /// a surrogate pair, whose other half comes with the next one.
    pub fn delta_json(&mut self, index: usize, json: &RawValue) -> Result<()> {
        let op = match self.message.content.get(index) {
            Some(Block::Text { .. }) => Op::TextDelta,
            Some(Block::Thinking { .. }) => Op::ThinkingDelta,
            Some(Block::ToolCall { .. }) => Op::ToolDelta,
            None => return Ok(()),
        };
        let Some(state) = self.states.get_mut(index) else { return Ok(()) };
        if state.half.is_none()
            && let Some(text) = text(json)
        {
            return self.delta(op, index, &text);
        }
        let Some(units) = units(json) else { return Ok(()) };
        let mut units: Vec<u16> = state.half.take().into_iter().chain(units).collect();
        if units.last().is_some_and(|unit| (0xD800..0xDC00).contains(unit)) {
            state.half = units.pop();
        }
        self.delta(op, index, &String::from_utf16_lossy(&units))
    }

    /// Why the answer ends, as the API says. What it sends after that, such as counts, still belongs to it.
    pub fn stop(&mut self, reason: StopReason) {
        self.progress += 1;
        self.stop = Some(reason);
    }

    /// The API ends the answer for a reason that is none of a good answer: a refusal, a filter.
    pub fn stop_with_error(&mut self, message: impl Into<String>) {
        self.stop(StopReason::Error);
        self.message.error_message = Some(message.into());
    }

    /// Whether, and why, the API has ended the answer.
    pub fn stopped(&self) -> Option<StopReason> {
        self.stop
    }

    /// Grows with everything that the model says, and with nothing else: pings and comments are no progress.
    pub fn progress(&self) -> u64 {
        self.progress
    }

    /// Whether the caller has been, or can be, told of anything but that the answer has begun.
    pub fn has_content(&self) -> bool {
        !self.message.content.is_empty()
    }

    /// The events since it was last asked.
    pub fn take_events(&mut self) -> Batch {
        std::mem::take(&mut self.batch)
    }

    /// The events that wait.
    pub fn events(&self) -> &Batch {
        &self.batch
    }

    /// Ends a good answer: blocks that are open are closed, tool calls are checked and ended. `PROVIDER_STREAM` if the
    /// API gave no reason or a bad one, or if a tool call's arguments are no complete JSON object. Only where the answer
    /// has as many tokens as it may ([`StopReason::Length`]), such calls are left out instead.
    pub fn finish(&mut self) -> Result<AssistantMessage> {
        let reason = match self.stop {
            Some(StopReason::Error | StopReason::Aborted) => {
                let message =
                    self.message.error_message.clone().unwrap_or_else(|| "the answer failed".into());
                return Err(CoreError::new(Code::ProviderStream, message).of_type("refusal"));
            }
            Some(reason) => reason,
            None => return Err(incomplete(self.message.api)),
        };
        self.start();
        for index in 0..self.message.content.len() {
            match self.message.content.get(index) {
                Some(Block::Text { .. }) => self.text_end(index),
                Some(Block::Thinking { .. }) => self.thinking_end(index),
                _ => {}
            }
        }
        let mut cut = Vec::new();
        for (index, block) in self.message.content.iter_mut().enumerate() {
            let Block::ToolCall { arguments, name, .. } = block else { continue };
            let broken = |words: &str| {
                Err(CoreError::new(Code::ProviderStream, format!("the call of the tool {name:?} {words}")))
            };
            if reason == StopReason::Length {
                // What is whole stays. What is not, the limit cut: it is no call.
                if name.is_empty() || !is_object(arguments) {
                    cut.push(index);
                    continue;
                }
            } else if !self.states.get(index).is_some_and(|state| state.ended) {
                return broken("is incomplete: the answer ended within it");
            }
            if name.is_empty() {
                return broken("names no tool");
            }
            if arguments.trim_ascii().is_empty() {
                "{}".clone_into(arguments);
            } else if !is_object(arguments) {
                return broken("has arguments that are no complete JSON object");
            }
            self.batch.push(Op::ToolEnd, index, arguments);
        }
        for index in cut.into_iter().rev() {
            self.message.content.remove(index);
        }
        self.message.stop_reason = reason;
        Ok(self.message.clone())
    }

    /// What there is of an answer that failed: without tool calls, which must not be run.
    pub fn fail(&self, reason: StopReason, error_message: &str) -> AssistantMessage {
        let mut message = self.message.clone();
        message.content.retain(|block| !matches!(block, Block::ToolCall { .. }));
        message.stop_reason = reason;
        message.error_message = Some(error_message.into());
        message
    }

    fn block(&mut self, op: Op, block: Block) -> usize {
        self.start();
        let index = self.message.content.len();
        self.message.content.push(block);
        self.states.push(BlockState::default());
        self.bytes += BLOCK_BYTES;
        self.progress += 1;
        self.batch.push(op, index, "");
        index
    }

    fn delta(&mut self, op: Op, index: usize, delta: &str) -> Result<()> {
        if delta.is_empty() {
            return Ok(());
        }
        self.grow(delta.len())?;
        if self.states.get(index).is_none_or(|state| state.ended) {
            return Ok(());
        }
        self.append(op, index, delta);
        Ok(())
    }

    /// The second half never came.
    fn give_up_half(&mut self, op: Op, index: usize) {
        if self.states.get_mut(index).and_then(|state| state.half.take()).is_some() {
            self.append(op, index, "\u{FFFD}");
        }
    }

    fn append(&mut self, op: Op, index: usize, delta: &str) {
        let target = match (op, self.message.content.get_mut(index)) {
            (Op::TextDelta, Some(Block::Text { text, .. })) => text,
            (Op::ThinkingDelta, Some(Block::Thinking { thinking, .. })) => thinking,
            (Op::ToolDelta, Some(Block::ToolCall { arguments, .. })) => arguments,
            _ => return,
        };
        target.push_str(delta);
        self.progress += 1;
        self.batch.push(op, index, delta);
    }

    fn end(&mut self, op: Op, index: usize) {
        let delta = if op == Op::TextEnd { Op::TextDelta } else { Op::ThinkingDelta };
        self.give_up_half(delta, index);
        let Some(state) = self.states.get_mut(index) else { return };
        if !std::mem::replace(&mut state.ended, true) {
            self.progress += 1;
            self.batch.push(op, index, "");
        }
    }

    fn grow(&mut self, bytes: usize) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes <= MESSAGE_BYTES && self.message.content.len() <= MESSAGE_BYTES / BLOCK_BYTES {
            return Ok(());
        }
        Err(CoreError::new(Code::Limit, format!("the answer has more than {MESSAGE_BYTES} bytes")))
    }
}

/// Whether a text is one strict JSON object, without a limit of depth.
fn is_object(text: &str) -> bool {
    text.trim_ascii_start().starts_with('{') && serde_json::from_str::<&RawValue>(text).is_ok()
}
