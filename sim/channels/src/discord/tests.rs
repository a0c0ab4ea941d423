//! Discord in memory, under simulated time.

use std::time::Duration;

use flate2::{Decompress, FlushDecompress};
use serde_json::{Value, json};

use super::Discord;
use crate::net::{Connection, Event, Net};
use crate::sim::Sim;
use crate::wire::{Frame, Request};

const START: u64 = 1_800_000_000_000;
const INTENTS: u64 = 1 | 1 << 9 | 1 << 12 | 1 << 15;

fn net(options: &Value) -> Net<Discord> {
    Net::new(Sim::new(Discord::new(options).unwrap()), START)
}

fn rules(net: &Net<Discord>) -> Vec<&'static str> {
    net.with(|sim| sim.violations().into_iter().map(|(rule, _)| rule).collect())
}

async fn connect(net: &Net<Discord>, path: &str) -> Connection<Discord> {
    let mut socket = net.connect(Request::new("GET", path)).await.ok().unwrap();
    assert_eq!(heard(&mut socket).await["op"], 10);
    socket
}

async fn heard(socket: &mut Connection<Discord>) -> Value {
    match socket.next().await {
        Event::Frame(Frame::Text(text)) => serde_json::from_str(&text).unwrap(),
        Event::Closed { code, .. } => json!({"closed": code}),
        other => panic!("{other:?}"),
    }
}

fn say(socket: &Connection<Discord>, op: u64, data: &Value) {
    socket.send(Frame::Text(json!({"op": op, "d": data}).to_string()));
}

fn identity() -> Value {
    json!({"token": "sim-token", "intents": INTENTS, "properties": {}})
}

#[tokio::test(start_paused = true)]
async fn whoever_sends_no_heartbeat_is_closed_and_can_resume() {
    let net = net(&json!({}));
    let mut socket = connect(&net, "/?v=10&encoding=json").await;
    say(&socket, 2, &identity());
    let ready = heard(&mut socket).await;
    assert_eq!((ready["t"].as_str(), ready["s"].as_u64()), (Some("READY"), Some(1)));
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(41_250)).await;
        say(&socket, 1, &json!(1));
        assert_eq!(heard(&mut socket).await["op"], 11);
    }
    assert!(rules(&net).is_empty());
    assert_eq!(heard(&mut socket).await, json!({"closed": 4009}));
    assert_eq!(net.now(), START + 100 * 41_250 + 41_250 * 3 / 2);
    assert_eq!(rules(&net), ["discord.heartbeat"]);
    net.control("message", &json!({"text": "missed"})).unwrap();
    let mut socket = connect(&net, "/resume?v=10").await;
    let id = &ready["d"]["session_id"];
    say(&socket, 6, &json!({"token": "sim-token", "session_id": id, "seq": 1}));
    assert_eq!(heard(&mut socket).await["d"]["content"], "missed");
    assert_eq!(heard(&mut socket).await["t"], "RESUMED");
    // Who says goodbye gives the session up.
    socket.close(1000);
    let mut socket = connect(&net, "/resume?v=10").await;
    say(&socket, 6, &json!({"token": "sim-token", "session_id": id, "seq": 1}));
    assert_eq!(heard(&mut socket).await, json!({"t": null, "s": null, "op": 9, "d": false}));
}

#[tokio::test(start_paused = true)]
async fn each_mistake_has_its_close_code() {
    let net = net(&json!({"privileged": 0}));
    for (op, data, code) in [
        (2, json!({"token": "wrong", "intents": 1, "properties": {}}), 4004),
        (2, json!({"token": "sim-token", "properties": {}}), 4013),
        (2, json!({"token": "sim-token", "intents": 1_u64 << 40, "properties": {}}), 4013),
        (2, json!({"token": "sim-token", "intents": 1 << 15, "properties": {}}), 4014),
        (3, json!({}), 4003),
        (99, json!({}), 4001),
        (1, json!("x".repeat(4096)), 4002),
    ] {
        let mut socket = connect(&net, "/?v=10").await;
        say(&socket, op, &data);
        assert_eq!(heard(&mut socket).await, json!({"closed": code}), "{op} {data}");
    }
    let mut socket = connect(&net, "/?v=10").await;
    for _ in 0..120 {
        say(&socket, 1, &json!(null));
        assert_eq!(heard(&mut socket).await["op"], 11);
    }
    say(&socket, 1, &json!(null));
    assert_eq!(heard(&mut socket).await, json!({"closed": 4008}));
    let mut old = net.connect(Request::new("GET", "/?v=9")).await.ok().unwrap();
    assert_eq!(heard(&mut old).await, json!({"closed": 4012}));
}

#[tokio::test(start_paused = true)]
async fn two_identifies_within_five_seconds_are_one_too_many() {
    let net = net(&json!({"sessions": 2}));
    for (wait, op) in [(0, 0), (4999, 9), (5000, 0), (5000, 4004)] {
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let mut socket = connect(&net, "/?v=10").await;
        say(&socket, 2, &identity());
        let answer = heard(&mut socket).await;
        assert_eq!(answer["op"].as_u64().or(answer["closed"].as_u64()), Some(op));
    }
    assert_eq!(rules(&net), ["discord.identify-rate", "discord.identify-rate"]);
}

#[tokio::test(start_paused = true)]
async fn a_compressed_stream_is_one_stream() {
    let net = net(&json!({}));
    let mut socket =
        net.connect(Request::new("GET", "/?v=10&encoding=json&compress=zlib-stream")).await.ok().unwrap();
    let mut inflate = Decompress::new(true);
    let mut read = async |socket: &mut Connection<Discord>| -> Value {
        let Event::Frame(Frame::Binary(bytes)) = socket.next().await else { panic!("not compressed") };
        assert!(bytes.ends_with(&[0, 0, 0xFF, 0xFF]));
        let mut text = Vec::with_capacity(1 << 20);
        inflate.decompress_vec(&bytes, &mut text, FlushDecompress::Sync).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    assert_eq!(read(&mut socket).await["op"], 10);
    say(&socket, 2, &identity());
    assert_eq!(read(&mut socket).await["t"], "READY");
    for n in 0..50 {
        let text = "x".repeat(n * 40);
        net.control("message", &json!({"text": text})).unwrap();
        assert_eq!(read(&mut socket).await["d"]["content"], text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_is_used_up_refuses_until_its_reset() {
    let net = net(&json!({}));
    net.control("guild", &json!({"id": "1"})).unwrap();
    net.control("channel", &json!({"id": "2", "guild": "1"})).unwrap();
    let send = async |nonce: &str| {
        let request = Request::new("POST", "/api/v10/channels/2/messages")
            .header("authorization", "Bot sim-token")
            .header("user-agent", "DiscordBot (https://example.org, 1)")
            .json(&json!({"content": "x", "nonce": nonce, "enforce_nonce": true}));
        net.request(request).await.unwrap()
    };
    for n in 0..5 {
        let answer = send(&n.to_string()).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.get("x-ratelimit-remaining"), Some((4 - n).to_string().as_str()));
    }
    let refused = send("5").await;
    assert_eq!((refused.status, refused.value()["retry_after"].as_f64()), (429, Some(5.0)));
    assert_eq!(rules(&net), ["discord.rate-limit"]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let id = send("5").await.value()["id"].clone();
    assert_eq!(send("5").await.value()["id"], id, "the same nonce is the same message");
    assert_eq!(rules(&net).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn ten_direct_chats_are_opened_and_one_that_is_open_is_looked_up() {
    let net = net(&json!({}));
    let open = async |user: &str| {
        let request = Request::new("POST", "/api/v10/users/@me/channels")
            .header("authorization", "Bot sim-token")
            .header("user-agent", "DiscordBot (https://example.org, 1)")
            .json(&json!({"recipient_id": user}));
        net.request(request).await.unwrap().status
    };
    for user in 10..21 {
        net.control("user", &json!({"id": user.to_string()})).unwrap();
    }
    for _ in 0..20 {
        assert_eq!(open("10").await, 200);
    }
    for user in 11..20 {
        assert_eq!(open(&user.to_string()).await, 200);
    }
    assert_eq!(open("20").await, 429);
}
