//! A platform behind a bad network: the script of faults, and the log of all that passed.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::platform::{Chance, Id, Input, Now, Output, Platform};
use crate::wire::{Frame, Request, Response};

/// The log forgets the oldest beyond this.
const LOG: usize = 50_000;

/// One fault: what befalls the messages that match, after `skip` of them were spared, `times` times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub at: Point,
    /// Part of what is matched: `METHOD /path` of a request and its answer, the text of a frame that comes in, the label
    /// of a frame or chunk that goes out, the URL of a call. Everything matches the empty text.
    #[serde(default, rename = "match")]
    pub matches: String,
    #[serde(default)]
    pub skip: u32,
    #[serde(default = "once")]
    pub times: u32,
    #[serde(flatten)]
    pub act: Act,
}

fn once() -> u32 {
    1
}

/// Where a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Point {
    /// A request, or the wish for a WebSocket, before the platform sees it.
    Request,
    /// The answer, after the platform did what was asked.
    Answer,
    /// A frame from the client.
    In,
    /// A frame or a chunk to the client.
    Out,
    /// A call of the bot's webhook.
    Call,
}

/// What a fault does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Act {
    /// It is lost. Of a request or an answer, the connection breaks with it.
    Drop,
    /// It is lost, and the connection breaks.
    Cut,
    /// It comes that much later.
    Stall { ms: u64 },
    /// It comes twice.
    Duplicate,
    /// It comes after the next of its kind, or after `ms` if there is none.
    Reorder { ms: u64 },
    /// A refusal in the platform's form: before the platform acts (at a request), or after (at an answer).
    Status {
        status: u16,
        #[serde(default)]
        retry_after_ms: Option<u64>,
    },
    /// From now on nothing passes on this connection, in either direction, and neither side is told.
    HalfOpen,
    /// The platform's wall clock jumps; the message passes.
    ClockJump { ms: i64 },
}

impl Fault {
    pub fn new(at: Point, matches: &str, act: Act) -> Self {
        Self { at, matches: matches.into(), skip: 0, times: 1, act }
    }

    pub fn skip(self, skip: u32) -> Self {
        Self { skip, ..self }
    }

    pub fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// A script of up to `most` faults, each at one of the given targets; the same seed gives the same script.
    pub fn script(seed: u64, most: u64, targets: &[(Point, &str)]) -> Vec<Self> {
        let mut chance = Chance(seed);
        let count = 1 + chance.below(most);
        (0..count)
            .map(|_| {
                let (at, matches) = targets[usize::try_from(chance.below(targets.len() as u64)).unwrap_or(0)];
                let ms = 1 + chance.below(90_000);
                let act = match chance.below(9) {
                    0 => Act::Drop,
                    1 => Act::Cut,
                    2 => Act::Stall { ms },
                    3 => Act::Duplicate,
                    4 => Act::Reorder { ms: ms.min(5000) },
                    5 => Act::HalfOpen,
                    6 => Act::ClockJump { ms: i64::try_from(ms).unwrap_or(0) * 1000 - 45_000_000 },
                    7 => Act::Status { status: 429, retry_after_ms: Some(ms.min(30_000)) },
                    _ => Act::Status {
                        status: 500 + u16::try_from(chance.below(5)).unwrap_or(0),
                        retry_after_ms: None,
                    },
                };
                let skip = u32::try_from(chance.below(12)).unwrap_or(0);
                Self::new(at, matches, act).skip(skip).times(1 + u32::try_from(chance.below(3)).unwrap_or(0))
            })
            .collect()
    }
}

/// A line of the log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Counted from 0.
    pub n: u64,
    /// The steady clock.
    pub at: u64,
    pub event: Event,
}

#[derive(Clone, Debug)]
pub enum Event {
    Request {
        id: Id,
        request: Request,
        upgrade: bool,
    },
    Answer {
        id: Id,
        response: Response,
    },
    In {
        id: Id,
        frame: Frame,
    },
    Out {
        id: Id,
        label: String,
        frame: Option<Frame>,
    },
    Gone {
        id: Id,
        code: Option<u16>,
    },
    /// The platform ended it: with a code in form, or not.
    Ended {
        id: Id,
        code: Option<u16>,
    },
    Call {
        id: Id,
        request: Request,
    },
    Called {
        id: Id,
        status: Option<u16>,
    },
    Fault(Fault),
    Violation {
        rule: &'static str,
        what: String,
    },
}

impl Entry {
    pub fn to_json(&self) -> Value {
        let frame_text = |frame: &Frame| match frame {
            Frame::Text(text) => json!(text),
            Frame::Binary(bytes) => json!({"bytes": bytes.len()}),
            Frame::Ping(_) => json!("ping"),
            Frame::Pong(_) => json!("pong"),
        };
        let mut value = match &self.event {
            Event::Request { id, request, upgrade } => {
                json!({"what": if *upgrade { "upgrade" } else { "request" }, "id": id, "request": request.summary(),
                    "headers": request.headers.iter().cloned().collect::<BTreeMap<_, _>>()})
            }
            Event::Answer { id, response } => {
                json!({"what": "answer", "id": id, "answer": response.summary()})
            }
            Event::In { id, frame } => json!({"what": "in", "id": id, "frame": frame_text(frame)}),
            Event::Out { id, label, frame } => {
                json!({"what": "out", "id": id, "label": label, "frame": frame.as_ref().map(frame_text)})
            }
            Event::Gone { id, code } => json!({"what": "gone", "id": id, "code": code}),
            Event::Ended { id, code } => json!({"what": "ended", "id": id, "code": code}),
            Event::Call { id, request } => json!({"what": "call", "id": id, "request": request.summary(),
                "headers": request.headers.iter().cloned().collect::<BTreeMap<_, _>>()}),
            Event::Called { id, status } => json!({"what": "called", "id": id, "status": status}),
            Event::Fault(fault) => json!({"what": "fault", "fault": fault}),
            Event::Violation { rule, what } => json!({"what": "violation", "rule": rule, "text": what}),
        };
        value["n"] = json!(self.n);
        value["at"] = json!(self.at);
        value
    }
}

enum Held {
    In(Input),
    Out(Output),
}

/// A platform, its faults and its log.
pub struct Sim<P> {
    pub platform: P,
    faults: Vec<Fault>,
    /// By the time at which they pass, then in order.
    held: BTreeMap<(u64, u64), Held>,
    /// What a `Reorder` holds back until the next of its kind.
    behind: HashMap<Place, Vec<Held>>,
    deaf: HashSet<Id>,
    /// Connections on which a fault struck.
    struck: HashSet<Id>,
    /// Connections that ended: nothing goes out over them any more, whatever the platform says before it learns of it.
    over: HashSet<Id>,
    /// Clients that hung up while what they asked was still on its way, with the codes of their close frames.
    left: HashMap<Id, Option<u16>>,
    /// What was asked, for the faults of its answer.
    asked: HashMap<Id, String>,
    sockets: HashSet<Id>,
    clock_jump_ms: i64,
    held_count: u64,
    next_internal: Id,
    log: VecDeque<Entry>,
    logged: u64,
}

/// A point of one connection, or of all (where requests overtake one another).
type Place = (PointKey, Id);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum PointKey {
    Request,
    Answer,
    In,
    Out,
    Call,
}

/// Ids from here on are of duplicated requests, whose answers nobody hears.
const INTERNAL: Id = 1 << 60;

impl<P: Platform> Sim<P> {
    pub fn new(platform: P) -> Self {
        Self {
            platform,
            faults: Vec::new(),
            held: BTreeMap::new(),
            behind: HashMap::new(),
            deaf: HashSet::new(),
            struck: HashSet::new(),
            over: HashSet::new(),
            left: HashMap::new(),
            asked: HashMap::new(),
            sockets: HashSet::new(),
            clock_jump_ms: 0,
            held_count: 0,
            next_internal: INTERNAL,
            log: VecDeque::new(),
            logged: 0,
        }
    }

    pub fn fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// The platform's wall clock, at that moment of the steady one.
    pub fn now(&self, ms: u64) -> Now {
        Now { ms, unix_ms: ms.saturating_add_signed(self.clock_jump_ms) }
    }

    pub fn jump_clock(&mut self, ms: i64) {
        self.clock_jump_ms += ms;
    }

    /// Every WebSocket that is open.
    pub fn sockets(&self) -> Vec<Id> {
        let mut ids: Vec<Id> = self.sockets.iter().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Nothing passes on that connection any more, and neither side is told.
    pub fn half_open(&mut self, id: Id) {
        self.deaf.insert(id);
        self.struck.insert(id);
    }

    pub fn is_half_open(&self, id: Id) -> bool {
        self.deaf.contains(&id)
    }

    /// Breaks a connection without a word.
    pub fn cut(&mut self, ms: u64, id: Id) -> Vec<Output> {
        let mut out = vec![Output::Cut { id }];
        self.note(ms, Event::Ended { id, code: None });
        self.end(id);
        let now = self.now(ms);
        let more = self.platform.on(now, Input::Gone { id, code: None });
        self.pass(ms, more, &mut out);
        out
    }

    pub fn log(&self) -> impl Iterator<Item = &Entry> {
        self.log.iter()
    }

    /// How many lines were ever logged.
    pub fn logged(&self) -> u64 {
        self.logged
    }

    pub fn violations(&self) -> Vec<(&'static str, String)> {
        self.log
            .iter()
            .filter_map(|entry| match &entry.event {
                Event::Violation { rule, what } => Some((*rule, what.clone())),
                _ => None,
            })
            .collect()
    }

    /// When [`Sim::tick`] wants to be called.
    pub fn wake(&self) -> Option<u64> {
        let held = self.held.keys().next().map(|key| key.0);
        [held, self.platform.wake()].into_iter().flatten().min()
    }

    pub fn tick(&mut self, ms: u64) -> Vec<Output> {
        let mut out = Vec::new();
        while let Some(entry) = self.held.first_entry().filter(|entry| entry.key().0 <= ms) {
            match entry.remove() {
                Held::In(input) => self.deliver(ms, input, &mut out),
                Held::Out(output) => self.emit(ms, output, &mut out),
            }
        }
        if self.platform.wake().is_some_and(|wake| wake <= ms) {
            let now = self.now(ms);
            let more = self.platform.on(now, Input::Tick);
            self.pass(ms, more, &mut out);
        }
        out
    }

    pub fn control(
        &mut self,
        ms: u64,
        action: &str,
        arguments: &Value,
    ) -> (Result<Value, String>, Vec<Output>) {
        let mut effects = Vec::new();
        let now = self.now(ms);
        let result = self.platform.control(now, action, arguments, &mut effects);
        let mut out = Vec::new();
        self.pass(ms, effects, &mut out);
        (result, out)
    }

    pub fn on(&mut self, ms: u64, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        match &input {
            Input::Request { id, request } => {
                self.asked.insert(*id, format!("{} {}", request.method, request.path));
                self.note(ms, Event::Request { id: *id, request: request.clone(), upgrade: false });
            }
            Input::Upgrade { id, request } => {
                self.asked.insert(*id, format!("{} {}", request.method, request.path));
                self.note(ms, Event::Request { id: *id, request: request.clone(), upgrade: true });
            }
            Input::Frame { id, frame } => self.note(ms, Event::In { id: *id, frame: frame.clone() }),
            Input::Gone { id, code } => {
                self.note(ms, Event::Gone { id: *id, code: *code });
                self.end(*id);
                self.asked.remove(id);
            }
            Input::Called { id, response } => {
                let status = response.as_ref().map(|response| response.status);
                self.note(ms, Event::Called { id: *id, status });
            }
            Input::Tick => return self.tick(ms),
        }
        let (key, id, text) = match &input {
            Input::Request { id, .. } | Input::Upgrade { id, .. } => {
                (PointKey::Request, *id, self.asked.get(id).cloned().unwrap_or_default())
            }
            Input::Frame { id, frame: Frame::Text(text) } => (PointKey::In, *id, text.clone()),
            Input::Frame { id, frame: Frame::Binary(bytes) } => {
                (PointKey::In, *id, String::from_utf8_lossy(bytes).into_owned())
            }
            Input::Frame { id, .. } => (PointKey::In, *id, String::new()),
            Input::Gone { id, code } => {
                let asked = |held: &Held| matches!(held, Held::In(Input::Request { id: of, .. } | Input::Upgrade { id: of, .. }) if of == id);
                if self.held.values().any(asked) {
                    // On one connection, the end does not overtake what was asked.
                    self.left.insert(*id, *code);
                } else if !self.deaf.contains(id) {
                    self.deliver(ms, input, &mut out);
                }
                return out;
            }
            Input::Called { .. } | Input::Tick => {
                self.deliver(ms, input, &mut out);
                return out;
            }
        };
        if self.deaf.contains(&id) {
            return out;
        }
        let point = if key == PointKey::Request { Point::Request } else { Point::In };
        let act = self.strike(ms, point, &text);
        if act.is_some() {
            self.struck.insert(id);
        }
        match act {
            None | Some(Act::ClockJump { .. }) => self.deliver(ms, input, &mut out),
            Some(Act::Drop) if key == PointKey::In => {}
            Some(Act::Drop | Act::Cut) => {
                if key == PointKey::In {
                    out.extend(self.cut(ms, id));
                } else {
                    self.asked.remove(&id);
                    out.push(Output::Cut { id });
                }
            }
            Some(Act::Stall { ms: delay }) => self.hold(ms + delay, Held::In(input)),
            Some(Act::Duplicate) => {
                let again = match &input {
                    Input::Request { request, .. } => {
                        self.next_internal += 1;
                        Input::Request { id: self.next_internal, request: request.clone() }
                    }
                    Input::Upgrade { .. } => Input::Tick,
                    other => other.clone(),
                };
                self.deliver(ms, input, &mut out);
                if !matches!(again, Input::Tick) {
                    self.deliver(ms, again, &mut out);
                }
            }
            Some(Act::Reorder { ms: delay }) => {
                self.put_behind(ms + delay, (key, at_connection(key, id)), Held::In(input))
            }
            Some(Act::Status { status, retry_after_ms }) if key == PointKey::Request => {
                let response = self.platform.refusal(status, retry_after_ms);
                self.note(ms, Event::Answer { id, response: response.clone() });
                self.asked.remove(&id);
                out.push(Output::Answer { id, response });
            }
            Some(Act::Status { .. }) => self.deliver(ms, input, &mut out),
            Some(Act::HalfOpen) => {
                self.deaf.insert(id);
            }
        }
        out
    }

    fn strike(&mut self, ms: u64, at: Point, text: &str) -> Option<Act> {
        let position = self.faults.iter_mut().position(|fault| {
            if fault.at != at || fault.times == 0 || !text.contains(fault.matches.as_str()) {
                return false;
            }
            let spared = fault.skip > 0;
            fault.skip = fault.skip.saturating_sub(1);
            !spared
        })?;
        let fault = self.faults.get_mut(position)?;
        fault.times -= 1;
        let struck = fault.clone();
        if let Act::ClockJump { ms } = struck.act {
            self.clock_jump_ms += ms;
        }
        let act = struck.act;
        self.note(ms, Event::Fault(struck));
        self.faults.retain(|fault| fault.times > 0);
        Some(act)
    }

    fn hold(&mut self, until: u64, held: Held) {
        self.held_count += 1;
        self.held.insert((until, self.held_count), held);
    }

    fn put_behind(&mut self, until: u64, key: Place, held: Held) {
        // The copy in `held` is the latest moment; whichever comes first takes it.
        let copy = match &held {
            Held::In(input) => Held::In(input.clone()),
            Held::Out(output) => Held::Out(output.clone()),
        };
        self.hold(until, copy);
        self.behind.entry(key).or_default().push(held);
    }

    /// What waited for one of that kind to go before it.
    fn released(&mut self, key: Place) -> Vec<Held> {
        let freed = self.behind.remove(&key).unwrap_or_default();
        for held in &freed {
            let same = |other: &Held| match (held, other) {
                (Held::In(Input::Request { id, .. }), Held::In(Input::Request { id: other, .. })) => {
                    id == other
                }
                (
                    Held::In(Input::Frame { id, frame }),
                    Held::In(Input::Frame { id: other, frame: other_frame }),
                ) => id == other && frame == other_frame,
                (Held::Out(output), Held::Out(other)) => output == other,
                _ => false,
            };
            let found = self.held.iter().find(|entry| same(entry.1)).map(|entry| *entry.0);
            match found {
                Some(key) => drop(self.held.remove(&key)),
                None => return Vec::new(),
            }
        }
        freed
    }

    fn deliver(&mut self, ms: u64, input: Input, out: &mut Vec<Output>) {
        let key = match &input {
            Input::Request { .. } => Some((PointKey::Request, 0)),
            Input::Frame { id, .. } => Some((PointKey::In, *id)),
            _ => None,
        };
        self.hand_over(ms, input, out);
        if let Some(key) = key {
            for held in self.released(key) {
                if let Held::In(input) = held {
                    self.hand_over(ms, input, out);
                }
            }
        }
    }

    fn hand_over(&mut self, ms: u64, input: Input, out: &mut Vec<Output>) {
        let asked = match &input {
            Input::Request { id, .. } | Input::Upgrade { id, .. } => Some(*id),
            _ => None,
        };
        let now = self.now(ms);
        let effects = self.platform.on(now, input);
        self.pass(ms, effects, out);
        // Whoever asked may be gone by now: the platform learns of that with its first word back.
        if let Some(id) = asked
            && let Some(code) = self.left.remove(&id)
        {
            self.end(id);
            let effects = self.platform.on(now, Input::Gone { id, code });
            self.pass(ms, effects, out);
        }
    }

    /// What the platform says, through the faults.
    fn pass(&mut self, ms: u64, effects: Vec<Output>, out: &mut Vec<Output>) {
        for effect in effects {
            let (point, key, id, text) = match &effect {
                Output::Violation { rule, what } => {
                    self.note(ms, Event::Violation { rule, what: what.clone() });
                    continue;
                }
                Output::Neglect { id, rule, what } => {
                    if !self.struck.contains(id) {
                        self.note(ms, Event::Violation { rule, what: what.clone() });
                    }
                    continue;
                }
                Output::Answer { id, .. } | Output::Stream { id, .. } => {
                    let text = self.asked.get(id).cloned().unwrap_or_default();
                    (Point::Answer, PointKey::Answer, *id, text)
                }
                Output::Chunk { id, label, .. } | Output::Frame { id, label, .. } => {
                    (Point::Out, PointKey::Out, *id, label.clone())
                }
                Output::Call { id, request } => (Point::Call, PointKey::Call, *id, request.path.clone()),
                Output::Accept { id }
                | Output::End { id }
                | Output::Close { id, .. }
                | Output::Cut { id } => {
                    if !self.deaf.contains(id) {
                        self.emit(ms, effect, out);
                    }
                    continue;
                }
            };
            let unheard = self.deaf.contains(&id) || point == Point::Out && self.over.contains(&id);
            if id >= INTERNAL && point != Point::Call || unheard {
                continue;
            }
            let act = self.strike(ms, point, &text);
            if act.is_some() {
                self.struck.insert(id);
            }
            match act {
                None | Some(Act::ClockJump { .. }) => self.emit(ms, effect, out),
                Some(Act::Drop | Act::Cut) if point == Point::Answer => {
                    self.asked.remove(&id);
                    self.note(ms, Event::Ended { id, code: None });
                    out.push(Output::Cut { id });
                }
                Some(Act::Drop | Act::Cut) if point == Point::Call => {
                    let now = self.now(ms);
                    let more = self.platform.on(now, Input::Called { id, response: None });
                    self.pass(ms, more, out);
                }
                Some(Act::Drop) => {}
                Some(Act::Cut) => out.extend(self.cut(ms, id)),
                Some(Act::Stall { ms: delay }) => self.hold(ms + delay, Held::Out(effect)),
                Some(Act::Duplicate) => {
                    self.emit(ms, effect.clone(), out);
                    if point == Point::Out {
                        self.emit(ms, effect, out);
                    } else if let Output::Call { request, .. } = effect {
                        self.next_internal += 1;
                        self.emit(ms, Output::Call { id: self.next_internal, request }, out);
                    }
                }
                Some(Act::Reorder { ms: delay }) => {
                    self.put_behind(ms + delay, (key, at_connection(key, id)), Held::Out(effect));
                }
                Some(Act::Status { status, retry_after_ms }) if point == Point::Answer => {
                    let response = self.platform.refusal(status, retry_after_ms);
                    self.emit(ms, Output::Answer { id, response }, out);
                }
                Some(Act::Status { .. }) => self.emit(ms, effect, out),
                Some(Act::HalfOpen) => {
                    self.deaf.insert(id);
                }
            }
        }
    }

    fn emit(&mut self, ms: u64, output: Output, out: &mut Vec<Output>) {
        if let Output::Chunk { id, .. } | Output::Frame { id, .. } = &output
            && self.over.contains(id)
        {
            return;
        }
        let key = match &output {
            Output::Answer { id, response } | Output::Stream { id, response } => {
                self.note(ms, Event::Answer { id: *id, response: response.clone() });
                self.asked.remove(id);
                Some((PointKey::Answer, 0))
            }
            Output::Accept { id } => {
                self.sockets.insert(*id);
                self.asked.remove(id);
                None
            }
            Output::Chunk { id, label, .. } => {
                self.note(ms, Event::Out { id: *id, label: label.clone(), frame: None });
                Some((PointKey::Out, *id))
            }
            Output::Frame { id, label, frame } => {
                self.note(ms, Event::Out { id: *id, label: label.clone(), frame: Some(frame.clone()) });
                Some((PointKey::Out, *id))
            }
            Output::Close { id, code, .. } => {
                self.note(ms, Event::Ended { id: *id, code: Some(*code) });
                self.end(*id);
                None
            }
            Output::Cut { id } | Output::End { id } => {
                self.note(ms, Event::Ended { id: *id, code: None });
                self.end(*id);
                None
            }
            Output::Call { id, request } => {
                self.note(ms, Event::Call { id: *id, request: request.clone() });
                Some((PointKey::Call, 0))
            }
            Output::Violation { .. } | Output::Neglect { .. } => None,
        };
        out.push(output);
        if let Some(key) = key {
            for held in self.released(key) {
                if let Held::Out(output) = held {
                    self.emit(ms, output, out);
                }
            }
        }
    }

    fn end(&mut self, id: Id) {
        self.sockets.remove(&id);
        self.over.insert(id);
    }

    fn note(&mut self, at: u64, event: Event) {
        if self.log.len() >= LOG {
            self.log.pop_front();
        }
        self.log.push_back(Entry { n: self.logged, at, event });
        self.logged += 1;
    }
}

/// Requests, answers and calls overtake those of other connections; frames only those of their own.
fn at_connection(key: PointKey, id: Id) -> Id {
    match key {
        PointKey::In | PointKey::Out => id,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Rule;

    /// Answers with what it was asked, counts, and says everything back on sockets.
    #[derive(Default)]
    struct Echo {
        requests: Vec<String>,
        gone: Vec<Id>,
        unix: Vec<u64>,
    }

    impl Platform for Echo {
        fn rules(&self) -> &'static [Rule] {
            &[]
        }

        fn on(&mut self, now: Now, input: Input) -> Vec<Output> {
            self.unix.push(now.unix_ms);
            match input {
                Input::Request { id, request } => {
                    self.requests.push(request.path.clone());
                    vec![Output::Answer {
                        id,
                        response: Response::bytes(200, "text/plain", request.path.into()),
                    }]
                }
                Input::Upgrade { id, .. } => vec![Output::Accept { id }],
                Input::Frame { id, frame } => {
                    vec![
                        Output::Frame { id, label: "echo".into(), frame },
                        Output::Neglect { id, rule: "echo.neglect", what: String::new() },
                    ]
                }
                Input::Gone { id, .. } => {
                    self.gone.push(id);
                    Vec::new()
                }
                Input::Called { .. } | Input::Tick => Vec::new(),
            }
        }

        fn wake(&self) -> Option<u64> {
            None
        }

        fn control(&mut self, _: Now, _: &str, _: &Value, _: &mut Vec<Output>) -> Result<Value, String> {
            Ok(Value::Null)
        }

        fn refusal(&self, status: u16, _: Option<u64>) -> Response {
            Response { status, ..Response::default() }
        }

        fn state(&self) -> Value {
            Value::Null
        }
    }

    fn sim(fault: Fault) -> Sim<Echo> {
        let mut sim = Sim::new(Echo::default());
        sim.fault(fault);
        sim
    }

    fn ask(sim: &mut Sim<Echo>, ms: u64, id: Id, path: &str) -> Vec<String> {
        said(&sim.on(ms, Input::Request { id, request: Request::new("GET", path) }))
    }

    fn say(sim: &mut Sim<Echo>, ms: u64, id: Id, text: &str) -> Vec<String> {
        said(&sim.on(ms, Input::Frame { id, frame: Frame::Text(text.into()) }))
    }

    fn said(outputs: &[Output]) -> Vec<String> {
        outputs
            .iter()
            .map(|output| match output {
                Output::Answer { id, response } => format!("{id} {}", response.status),
                Output::Frame { frame: Frame::Text(text), .. } => text.clone(),
                Output::Cut { id } => format!("{id} cut"),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_fault_spares_some_strikes_some_and_is_over() {
        let mut sim = sim(Fault::new(Point::Request, "/a", Act::Drop).skip(1).times(2));
        assert_eq!(ask(&mut sim, 0, 1, "/a"), ["1 200"]);
        assert_eq!(ask(&mut sim, 0, 2, "/b"), ["2 200"]);
        assert_eq!(ask(&mut sim, 0, 3, "/a"), ["3 cut"]);
        assert_eq!(ask(&mut sim, 0, 4, "/a"), ["4 cut"]);
        assert_eq!(ask(&mut sim, 0, 5, "/a"), ["5 200"]);
        assert_eq!(sim.platform.requests, ["/a", "/b", "/a"], "what was dropped was not seen");
    }

    #[test]
    fn an_answer_that_is_lost_was_done_all_the_same() {
        let mut sim = sim(Fault::new(Point::Answer, "/a", Act::Drop));
        assert_eq!(ask(&mut sim, 0, 1, "/a"), ["1 cut"]);
        assert_eq!(sim.platform.requests, ["/a"]);
    }

    #[test]
    fn what_is_stalled_comes_later_in_order() {
        for (point, seen) in [(Point::Request, 0), (Point::Answer, 1)] {
            let mut sim = sim(Fault::new(point, "", Act::Stall { ms: 70 }));
            assert!(ask(&mut sim, 5, 1, "/a").is_empty());
            assert_eq!(sim.platform.requests.len(), seen);
            assert_eq!(sim.wake(), Some(75));
            assert!(sim.tick(74).is_empty());
            assert_eq!(said(&sim.tick(75)), ["1 200"]);
            assert_eq!(sim.wake(), None);
        }
    }

    #[test]
    fn nobody_is_served_who_hung_up_before_it_was_asked() {
        for act in [Act::Stall { ms: 70 }, Act::Reorder { ms: 70 }] {
            let mut sim = sim(Fault::new(Point::Request, "/link", act).times(2));
            let upgrade = Input::Upgrade { id: 1, request: Request::new("GET", "/link") };
            assert!(sim.on(0, upgrade).is_empty());
            assert!(ask(&mut sim, 0, 2, "/link").is_empty());
            for id in [1, 2] {
                assert!(sim.on(10, Input::Gone { id, code: None }).is_empty());
            }
            assert!(sim.platform.gone.is_empty(), "the end overtook what was asked");
            if matches!(act, Act::Reorder { .. }) {
                assert_eq!(ask(&mut sim, 20, 3, "/other")[0], "3 200");
            }
            sim.tick(70);
            assert_eq!(sim.platform.gone.len(), 2);
            assert_eq!((sim.sockets(), sim.platform.requests.contains(&"/link".to_owned())), (vec![], true));
        }
    }

    #[test]
    fn a_request_twice_is_answered_once() {
        let mut sim = sim(Fault::new(Point::Request, "", Act::Duplicate));
        assert_eq!(ask(&mut sim, 0, 1, "/a"), ["1 200"]);
        assert_eq!(sim.platform.requests, ["/a", "/a"]);
    }

    #[test]
    fn frames_are_dropped_doubled_and_reordered() {
        let mut one = sim(Fault::new(Point::Out, "echo", Act::Duplicate));
        assert_eq!(say(&mut one, 0, 1, "a"), ["a", "a"]);
        let mut one = sim(Fault::new(Point::In, "a", Act::Drop));
        assert!(say(&mut one, 0, 1, "a").is_empty());
        for point in [Point::In, Point::Out] {
            let mut one = sim(Fault::new(point, "", Act::Reorder { ms: 50 }));
            assert!(say(&mut one, 0, 1, "a").is_empty());
            assert_eq!(say(&mut one, 1, 2, "other"), ["other"], "of another connection");
            assert_eq!(say(&mut one, 1, 1, "b"), ["b", "a"]);
            assert!(said(&one.tick(50)).is_empty(), "and not once more");
            let mut alone = sim(Fault::new(point, "", Act::Reorder { ms: 50 }));
            assert!(say(&mut alone, 0, 1, "a").is_empty());
            assert_eq!(said(&alone.tick(50)), ["a"]);
            assert_eq!(say(&mut alone, 51, 1, "b"), ["b"]);
        }
    }

    #[test]
    fn nothing_goes_out_over_a_connection_that_ended() {
        let mut cut = sim(Fault::new(Point::Out, "echo", Act::Cut));
        cut.fault(Fault::new(Point::Out, "echo", Act::Duplicate));
        assert_eq!(say(&mut cut, 0, 1, "a"), ["1 cut"]);
        assert!(say(&mut cut, 0, 1, "b").is_empty(), "the platform wrote before it knew");
        assert_eq!(say(&mut cut, 0, 2, "c"), ["c", "c"], "no fault was spent on it");
        let mut stalled = sim(Fault::new(Point::Out, "echo", Act::Stall { ms: 70 }));
        assert!(say(&mut stalled, 0, 1, "a").is_empty());
        assert_eq!(said(&stalled.cut(10, 1)), ["1 cut"]);
        assert!(stalled.tick(70).is_empty());
        assert!(!stalled.log().any(|entry| matches!(entry.event, Event::Out { .. })));
    }

    #[test]
    fn a_half_open_connection_is_silent_both_ways_and_its_client_is_not_blamed() {
        let mut one = sim(Fault::new(Point::Out, "echo", Act::HalfOpen).skip(1));
        assert_eq!(say(&mut one, 0, 1, "a"), ["a"]);
        assert_eq!(one.violations().len(), 1);
        assert!(say(&mut one, 0, 1, "b").is_empty());
        assert!(say(&mut one, 0, 1, "c").is_empty());
        assert!(one.on(0, Input::Gone { id: 1, code: None }).is_empty());
        assert!(one.platform.gone.is_empty(), "the platform does not learn of its end");
        assert_eq!(one.violations().len(), 1);
    }

    #[test]
    fn refusals_come_before_or_after_the_act_and_clocks_jump() {
        let refuse = Act::Status { status: 503, retry_after_ms: None };
        let mut before = sim(Fault::new(Point::Request, "", refuse));
        assert_eq!(ask(&mut before, 0, 1, "/a"), ["1 503"]);
        assert!(before.platform.requests.is_empty());
        let mut after = sim(Fault::new(Point::Answer, "", refuse));
        assert_eq!(ask(&mut after, 0, 1, "/a"), ["1 503"]);
        assert_eq!(after.platform.requests, ["/a"]);
        let mut jumped = sim(Fault::new(Point::Request, "/b", Act::ClockJump { ms: -400 }));
        ask(&mut jumped, 1000, 1, "/a");
        ask(&mut jumped, 1000, 2, "/b");
        assert_eq!(jumped.platform.unix, [1000, 600]);
    }

    #[test]
    fn a_script_is_the_same_for_the_same_seed_and_goes_through_json() {
        let targets = [(Point::Request, "GET"), (Point::Out, "")];
        let mut acts = HashSet::new();
        for seed in 0..500 {
            let script = Fault::script(seed, 5, &targets);
            assert_eq!(script, Fault::script(seed, 5, &targets));
            let json = serde_json::to_string(&script).unwrap();
            assert_eq!(serde_json::from_str::<Vec<Fault>>(&json).unwrap(), script);
            acts.extend(script.iter().map(|fault| std::mem::discriminant(&fault.act)));
        }
        assert_eq!(acts.len(), 8, "every act occurs");
    }
}
