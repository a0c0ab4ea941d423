//! `openclaw-channel-sim PLATFORM [OPTIONS]`: one simulated platform on a port of its own, until its stdin ends.
//!
//! OPTIONS is the platform's options as JSON. The first line of stdout is `{"url": "http://127.0.0.1:PORT"}`.

use std::io::Write;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use openclaw_channel_sim::{
    Net, Platform, Sim, discord::Discord, matrix::Matrix, server, signal::Signal, slack::Slack,
    telegram::Telegram, whatsapp::WhatsApp,
};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let platform = arguments.next().unwrap_or_default();
    let options: Result<Value, _> = serde_json::from_str(&arguments.next().unwrap_or_else(|| "{}".into()));
    let Ok(options) = options else {
        eprintln!("openclaw-channel-sim: the options are no JSON");
        return ExitCode::from(2);
    };
    let done = match platform.as_str() {
        "discord" => run(Discord::new(&options), &options).await,
        "matrix" => run(Matrix::new(&options), &options).await,
        "signal" => run(Signal::new(&options), &options).await,
        "slack" => run(Slack::new(&options), &options).await,
        "telegram" => run(Telegram::new(&options), &options).await,
        "whatsapp" => run(WhatsApp::new(&options), &options).await,
        other => Err(format!("there is no platform {other:?}")),
    };
    if let Err(why) = done {
        eprintln!("openclaw-channel-sim: {why}");
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}

async fn run<P: Platform + 'static>(platform: Result<P, String>, options: &Value) -> Result<(), String> {
    let port = options["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
    let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
    let net =
        Net::new(Sim::new(platform?), u64::try_from(since.as_millis()).map_err(|error| error.to_string())?);
    let mut out = std::io::stdout();
    writeln!(out, "{}", json!({"url": format!("http://{address}")}))
        .and_then(|()| out.flush())
        .map_err(|error| error.to_string())?;
    let ended = async {
        let mut stdin = tokio::io::stdin();
        let mut buffer = [0; 256];
        while matches!(stdin.read(&mut buffer).await, Ok(read) if read > 0) {}
    };
    tokio::select! {
        served = server::serve(listener, net) => served.map(|never| match never {}).map_err(|error| error.to_string()),
        () = ended => Ok(()),
    }
}
