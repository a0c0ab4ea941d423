//! Projections in columns: numbers as numbers, texts as one JSON array. Listing thousands of sessions would take V8
//! several times as long from one JSON text.
//!
//! The numbers of each session are the eight of [`Columns::add`], in its order, and how many its usage takes of the
//! others.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt::Write as _;

use napi::Env;
use napi::bindgen_prelude::{Float64Array, FnArgs, JsObjectValue, Object, Unknown};

use super::json::string;
use super::script::{call, functions};
use super::slices::{SLICE_BYTES, Slice};
use crate::events::{SessionView, Usage};

/// Some sessions.
#[derive(Default)]
pub(super) struct Sessions {
    text: String,
    numbers: Vec<f64>,
    usages: Vec<f64>,
    /// Those of the usages.
    shapes: BTreeSet<u16>,
}

impl Slice for Sessions {
    fn append(self, env: &Env, array: Object<'_>) -> napi::Result<()> {
        let mut makers: Object<'_> = functions(env)?.get_named_property("makers")?;
        for shape in self.shapes {
            if !makers.has_element(u32::from(shape))? {
                let maker: Unknown<'_> = env.run_script(maker(shape))?;
                makers.set_element(u32::from(shape), maker)?;
            }
        }
        let (numbers, usages) = (Float64Array::from(self.numbers), Float64Array::from(self.usages));
        call(env, "appendSessions", FnArgs::from((array, string(env, &self.text)?, numbers, usages)))
    }
}

/// The sessions, in slices.
pub(super) fn sessions_slices(views: &[SessionView]) -> VecDeque<Sessions> {
    let mut slices = VecDeque::new();
    let mut next = Columns::default();
    for view in views {
        next.add(view);
        if next.bytes() >= SLICE_BYTES {
            slices.push_back(std::mem::take(&mut next).finish());
        }
    }
    if !next.numbers.is_empty() {
        slices.push_back(next.finish());
    }
    slices
}

#[derive(Default)]
struct Columns<'v> {
    /// JSON: keys and last messages in turn, with a comma behind each.
    texts: String,
    /// JSON: pairs of a session's place and its state.
    states: String,
    agents: HashMap<&'v str, usize>,
    shapes: BTreeSet<u16>,
    numbers: Vec<f64>,
    usages: Vec<f64>,
}

impl<'v> Columns<'v> {
    fn bytes(&self) -> usize {
        self.texts.len() + self.states.len() + (self.numbers.len() + self.usages.len()) * size_of::<f64>()
    }

    #[expect(clippy::cast_precision_loss, reason = "no session has 2^53 events")]
    fn add(&mut self, view: &'v SessionView) {
        let place = self.texts_held();
        let known = &view.projection;
        push_json(&mut self.texts, &view.session_key);
        match known.last_message() {
            Some(message) => push_json(&mut self.texts, message),
            None => self.texts.push_str("null,"),
        }
        if !view.state.is_empty() {
            let _ = write!(self.states, "[{place},");
            view.state.write_json(&mut self.states);
            self.states.push_str("],");
        }
        let agents = self.agents.len();
        let agent = *self.agents.entry(known.agent_id()).or_insert(agents);
        let (shape, width) = self.add_usage(&known.usage);
        self.shapes.insert(shape);
        self.numbers.extend([
            known.first_ms as f64,
            known.last_ms as f64,
            known.events as f64,
            known.messages as f64,
            known.tool_calls as f64,
            f64::from(u8::from(known.ended())),
            agent as f64,
            f64::from(shape),
            width as f64,
        ]);
    }

    fn texts_held(&self) -> usize {
        self.numbers.len() / 9
    }

    /// Which of the counts and costs there are, one bit each, and how many.
    #[expect(clippy::cast_precision_loss, reason = "sums that passed 2^53 were rounded to begin with")]
    fn add_usage(&mut self, usage: &Usage) -> (u16, usize) {
        let before = self.usages.len();
        let tokens = usage.tokens().map(|count| count.map(|count| count as f64));
        let mut shape = 0;
        for (bit, value) in tokens.into_iter().chain(usage.costs()).enumerate() {
            if let Some(value) = value {
                shape |= 1 << bit;
                self.usages.push(value);
            }
        }
        (shape, self.usages.len() - before)
    }

    fn finish(self) -> Sessions {
        let mut agents: Vec<_> = self.agents.into_iter().collect();
        agents.sort_unstable_by_key(|(_, place)| *place);
        let mut names = String::new();
        for (agent, _) in agents {
            push_json(&mut names, agent);
        }
        let list = |items: &str| format!("[{}]", items.strip_suffix(',').unwrap_or(items));
        let text = format!(
            "{{\"agents\":{},\"texts\":{},\"states\":{}}}",
            list(&names),
            list(&self.texts),
            list(&self.states)
        );
        Sessions { text, numbers: self.numbers, usages: self.usages, shapes: self.shapes }
    }
}

fn push_json(out: &mut String, text: &str) {
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
    out.push(',');
}

/// The source of a function that makes a usage of this shape: objects of one shape are made fastest by one literal.
fn maker(shape: u16) -> String {
    let mut at = 0;
    let mut fields = |names: &[&str], first: usize| {
        let mut fields = String::new();
        for (index, name) in names.iter().enumerate() {
            if shape & (1 << (first + index)) != 0 {
                let _ = write!(fields, "{name}:v[u+{at}],");
                at += 1;
            }
        }
        fields
    };
    let (tokens, costs) = (fields(&Usage::TOKENS, 0), fields(&Usage::COSTS, Usage::TOKENS.len()));
    let costs = if costs.is_empty() { costs } else { format!("cost:{{{costs}}}") };
    format!("(v,u)=>({{{tokens}{costs}}})")
}
