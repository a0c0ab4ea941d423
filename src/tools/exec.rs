//! `exec`: a command for the shell, in the sandbox.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::output::HeadAndTail;
use super::registry::{Call, Definition, Pending, Tool, Update};
use super::{Content, Output};
use crate::Result;
use crate::sandbox::{Command, OutputStream, Sandbox};

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
    let (outcome, timed_out) = {
        let mut running = pin!(sandbox.run(command, Some(sink), stop.clone()));
        let mut timer = pin!(timer);
        let mut timed_out = false;
        loop {
            tokio::select! {
                biased;
                Some((stream, bytes)) = chunks.recv() => take(&mut kept, call.update.as_ref(), stream, &bytes),
                () = &mut timer, if !timed_out => { timed_out = true; stop.cancel(); }
                outcome = &mut running => break (outcome, timed_out),
            }
        }
    };
    while let Ok((stream, bytes)) = chunks.try_recv() {
        take(&mut kept, call.update.as_ref(), stream, &bytes);
    }
    let dropped = kept.dropped;
    let mut said = kept.into_text();
    if timed_out && outcome.is_err() {
        let ms = timeout.unwrap_or_default();
        note(&mut said, &format!("[The command was ended after {ms} ms, with all that it had started.]"));
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

fn take(kept: &mut HeadAndTail, update: Option<&Update>, stream: OutputStream, bytes: &[u8]) {
    kept.push(bytes);
    if let Some(update) = update {
        let stream = match stream {
            OutputStream::Stdout => "stdout",
            OutputStream::Stderr => "stderr",
        };
        update(json!({ "stream": stream, "text": String::from_utf8_lossy(bytes) }).to_string());
    }
}

/// On a line of its own.
fn note(said: &mut String, line: &str) {
    if !said.is_empty() && !said.ends_with('\n') {
        said.push('\n');
    }
    said.push_str(line);
}
