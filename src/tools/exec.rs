//! `exec`: a command for the shell, in the sandbox.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::registry::{Call, Definition, Pending, Telling, Tool, Update};
use super::{Content, Output};
use crate::Result;
use crate::sandbox::{Command, HeadAndTail, OutputStream, Sandbox};

/// Bytes of output in a result, unless the registry takes fewer.
const MAX_OUTPUT: usize = 64 << 10;

pub(super) fn definition() -> Definition {
    Definition {
        name: "exec".into(),
        description: "Runs a command with the shell, in the sandbox. Gives its output, of which the middle is left out \
                      where it is long, and its exit code."
            .into(),
        parameters: json!({
            "type": "object",
            "properties": {
                "command": { "type": "string", "minLength": 1, "description": "The command, for /bin/sh." },
                "cwd": { "type": "string", "description": "Where it starts; the workspace otherwise." },
                "timeoutMs": { "type": "integer", "minimum": 1, "description": "Ends it after so many milliseconds." }
            },
            "required": ["command"],
            "additionalProperties": false
        }),
    }
}

pub(super) struct Exec {
    sandbox: Arc<Sandbox>,
    max_output: usize,
}

impl Exec {
    pub(super) fn new(sandbox: Arc<Sandbox>, max_result: usize) -> Self {
        // Room for what is said beside the output.
        Self { sandbox, max_output: MAX_OUTPUT.min(max_result.saturating_sub(512)) }
    }
}

impl Tool for Exec {
    fn call(&self, call: Call) -> Pending {
        Box::pin(run(Arc::clone(&self.sandbox), self.max_output, call))
    }
}

async fn run(sandbox: Arc<Sandbox>, most: usize, call: Call) -> Result<Output> {
    let text = |name: &str| call.arguments.get(name).and_then(Value::as_str);
    let mut command = Command::shell(text("command").unwrap_or_default());
    command.cwd = text("cwd").map(|cwd| {
        if cwd.starts_with('/') { cwd.to_owned() } else { format!("{}/{cwd}", sandbox.workspace()) }
    });
    let timeout = call.arguments.get("timeoutMs").and_then(Value::as_u64);
    let (sink, mut chunks) = mpsc::channel(16);
    // Cancelled by the timeout too: what came until then is worth telling.
    let stop = call.cancel.child_token();
    let timer = async {
        match timeout {
            Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            None => std::future::pending().await,
        }
    };
    let mut kept = HeadAndTail::new(most);
    let mut teller = call.update.as_ref().map(Teller::new);
    let mut take = |stream, bytes: &[u8]| {
        kept.push(bytes);
        teller.as_mut().and_then(|teller| teller.tell(stream, bytes))
    };
    let mut telling = None;
    let (outcome, timed_out) = {
        let mut running = pin!(sandbox.run(command, Some(sink), stop.clone()));
        let mut timer = pin!(timer);
        let mut timed_out = false;
        loop {
            tokio::select! {
                biased;
                // While nobody takes what was told, the command waits.
                () = told(&mut telling), if telling.is_some() => telling = None,
                Some((stream, bytes)) = chunks.recv(), if telling.is_none() => telling = take(stream, &bytes),
                () = &mut timer, if !timed_out => { timed_out = true; stop.cancel(); }
                outcome = &mut running => break (outcome, timed_out),
            }
        }
    };
    told(&mut telling).await;
    while let Ok((stream, bytes)) = chunks.try_recv() {
        told(&mut take(stream, &bytes)).await;
    }
    for mut rest in teller.iter_mut().flat_map(Teller::end) {
        told(&mut rest).await;
    }
    let dropped = kept.dropped;
    let mut said = kept.into_text();
    // What it said until it was stopped is worth telling.
    if outcome.is_err() && stop.is_cancelled() {
        let after = timeout.filter(|_| timed_out).map(|ms| format!(" after {ms} ms")).unwrap_or_default();
        note(&mut said, &format!("[The command was ended{after}, with all that it had started.]"));
        let details = json!({ "exitCode": null, "timedOut": "wall", "truncated": dropped > 0, "droppedBytes": dropped });
        return Ok(Output { is_error: true, ..Output::text(said).with(details) });
    }
    let result = outcome?;
    let timed_out = result.timed_out.map(|which| match which {
        crate::sandbox::TimedOut::Wall => "wall",
        crate::sandbox::TimedOut::Idle => "idle",
    });
    match (timed_out, &result.signal, result.exit_code) {
        (Some(which), _, _) => note(&mut said, &format!("[The command was ended: its {which} time was up.]")),
        (_, Some(signal), _) => note(&mut said, &format!("[The command was ended by {signal}.]")),
        (_, _, Some(0)) if said.is_empty() => said.push_str("[no output]"),
        (_, _, Some(0)) => {}
        (_, _, code) => note(&mut said, &format!("[exit code {}]", code.unwrap_or(-1))),
    }
    let details = json!({
        "exitCode": result.exit_code,
        "signal": result.signal,
        "timedOut": timed_out,
        "truncated": dropped > 0,
        "droppedBytes": dropped,
        "wallMs": result.wall_ms,
        "cpuMs": result.cpu_ms,
        "peakMemoryBytes": result.peak_memory_bytes,
    });
    Ok(Output { content: vec![Content::Text(said)], details: Some(details), is_error: timed_out.is_some() })
}

async fn told(telling: &mut Option<Telling>) {
    if let Some(telling) = telling {
        telling.await;
    }
}

/// Tells of output as it comes, in whole characters.
struct Teller<'u> {
    update: &'u Update,
    /// Of each stream, the beginning of a character whose end has not come yet.
    begun: [(&'static str, Vec<u8>); 2],
}

impl<'u> Teller<'u> {
    fn new(update: &'u Update) -> Self {
        Self { update, begun: [("stdout", Vec::new()), ("stderr", Vec::new())] }
    }

    fn tell(&mut self, stream: OutputStream, bytes: &[u8]) -> Option<Telling> {
        let [stdout, stderr] = &mut self.begun;
        let (name, begun) = match stream {
            OutputStream::Stdout => stdout,
            OutputStream::Stderr => stderr,
        };
        begun.extend_from_slice(bytes);
        let rest = begun.split_off(whole_characters(begun));
        let text = std::mem::replace(begun, rest);
        (!text.is_empty()).then(|| say(self.update, name, &text))
    }

    /// What was begun and never ended.
    fn end(&mut self) -> Vec<Option<Telling>> {
        let update = self.update;
        let rest = self.begun.iter_mut().map(|(name, begun)| (*name, std::mem::take(begun)));
        rest.filter(|(_, text)| !text.is_empty()).map(|(name, text)| Some(say(update, name, &text))).collect()
    }
}

fn say(update: &Update, stream: &str, text: &[u8]) -> Telling {
    update(json!({ "stream": stream, "text": String::from_utf8_lossy(text) }).to_string())
}

/// How many bytes there are up to a character that is cut off at the end.
fn whole_characters(bytes: &[u8]) -> usize {
    let from = bytes.len().saturating_sub(3);
    // The last byte that begins a character, if it is so near the end.
    let last = bytes.iter().enumerate().skip(from).rev().find(|(_, byte)| !(0x80..0xC0).contains(*byte));
    match last {
        Some((at, byte)) => {
            let length = match byte {
                0xC2..=0xDF => 2,
                0xE0..=0xEF => 3,
                0xF0..=0xF4 => 4,
                _ => 1,
            };
            if at + length > bytes.len() { at } else { bytes.len() }
        }
        None => bytes.len(),
    }
}

/// On a line of its own.
fn note(said: &mut String, line: &str) {
    if !said.is_empty() && !said.ends_with('\n') {
        said.push('\n');
    }
    said.push_str(line);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_are_cut_between_characters(text in ".{0,40}", cuts in proptest::collection::vec(0_usize..200, 0..6)) {
            let said = Arc::new(std::sync::Mutex::new(String::new()));
            let all = Arc::clone(&said);
            let update: Update = Arc::new(move |json| {
                let told: Value = serde_json::from_str(&json).unwrap();
                all.lock().unwrap().push_str(told["text"].as_str().unwrap());
                Box::pin(async {})
            });
            let mut cuts: Vec<usize> = cuts.into_iter().map(|at| at.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut teller = Teller::new(&update);
            for pair in cuts.windows(2) {
                drop(teller.tell(OutputStream::Stdout, &text.as_bytes()[pair[0]..pair[1]]));
            }
            prop_assert!(teller.end().is_empty());
            prop_assert_eq!(&*said.lock().unwrap(), &text);
        }
    }

    #[test]
    fn what_is_no_character_is_not_held_back() {
        for (bytes, whole) in
            [(&b"a\xC3"[..], 1), (b"a\xFF", 2), (b"\x80\x80\x80", 3), (b"\xF0\x9F\x98", 0), (b"", 0)]
        {
            assert_eq!(whole_characters(bytes), whole, "{bytes:?}");
        }
    }
}
