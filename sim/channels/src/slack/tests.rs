//! Slack in memory, under simulated time.

use std::time::Duration;

use serde_json::{Value, json};

use super::Slack;
use crate::net::{Connection, Event, Net};
use crate::sim::{Act, Fault, Point, Sim};
use crate::wire::{Frame, Request};

const START: u64 = 1_800_000_000_000;

fn net(options: &Value) -> Net<Slack> {
    Net::new(Sim::new(Slack::new(options).unwrap()), START)
}

fn rules(net: &Net<Slack>) -> Vec<&'static str> {
    net.with(|sim| sim.violations().into_iter().map(|(rule, _)| rule).collect())
}

async fn call(net: &Net<Slack>, token: &str, method: &str, arguments: &Value) -> Value {
    let request = Request::new("POST", &format!("/api/{method}"));
    let request = request.header("authorization", &format!("Bearer {token}")).json(arguments);
    net.request(request).await.unwrap().value()
}

async fn connect(net: &Net<Slack>) -> Connection<Slack> {
    let opened = call(net, "xapp-sim", "apps.connections.open", &json!({})).await;
    let path = opened["url"].as_str().unwrap().strip_prefix("ws://sim").unwrap().to_owned();
    net.connect(Request::new("GET", &path)).await.ok().unwrap()
}

/// The next message that is no ping; what ended it, if it ended.
async fn heard(socket: &mut Connection<Slack>) -> Value {
    loop {
        match socket.next().await {
            Event::Frame(Frame::Text(text)) => return serde_json::from_str(&text).unwrap(),
            Event::Frame(_) => {}
            Event::Closed { code, .. } => return json!({"closed": code}),
            other => panic!("{other:?}"),
        }
    }
}

fn acknowledge(socket: &Connection<Slack>, envelope: &Value) {
    socket.send(Frame::Text(json!({"envelope_id": envelope["envelope_id"]}).to_string()));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_not_acknowledged_comes_again_three_times() {
    let net = net(&json!({}));
    let mut socket = connect(&net).await;
    assert_eq!(heard(&mut socket).await["type"], "hello");
    net.control("message", &json!({"text": "hi"})).unwrap();
    let mut ids = Vec::new();
    for (attempt, at) in [(0, 0), (1, 3000 + 1000), (2, 7000 + 60_000), (3, 70_000 + 300_000)] {
        let envelope = heard(&mut socket).await;
        assert_eq!(envelope["retry_attempt"], attempt);
        assert_eq!(net.now(), START + at);
        ids.push(envelope["payload"]["event_id"].clone());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "it is the same event");
    let lost = net.until(|sim| Some(sim.platform.lost.len()).filter(|lost| *lost > 0)).await;
    assert_eq!(lost, 1);
    assert_eq!(rules(&net), ["slack.ack-deadline"; 4]);
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_connection_was_cut_comes_over_another_and_is_nobodys_fault() {
    let net = net(&json!({}));
    let mut socket = connect(&net).await;
    assert_eq!(heard(&mut socket).await["num_connections"], 1);
    net.with(|sim| sim.fault(Fault::new(Point::Out, "events_api", Act::HalfOpen)));
    net.control("message", &json!({"text": "hi"})).unwrap();
    let mut other = connect(&net).await;
    assert_eq!(heard(&mut other).await["type"], "hello");
    let mut envelope = heard(&mut other).await;
    // It may be tried on the deaf connection once more.
    while envelope["type"] != "events_api" {
        envelope = heard(&mut other).await;
    }
    acknowledge(&other, &envelope);
    acknowledge(&other, &envelope);
    assert_eq!(rules(&net), ["slack.ack"]);
    assert_eq!(net.with(|sim| sim.platform.acknowledged.len()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_announced_to_end_and_then_ends() {
    let net = net(&json!({"lifetime_ms": 3_600_000}));
    let mut socket = connect(&net).await;
    assert_eq!(heard(&mut socket).await["debug_info"]["approximate_connection_time"], 3600);
    assert_eq!(heard(&mut socket).await["reason"], "warning");
    assert_eq!(net.now(), START + 3_590_000);
    let mut next = connect(&net).await;
    assert_eq!(heard(&mut next).await["num_connections"], 2);
    assert_eq!(heard(&mut socket).await["reason"], "refresh_requested");
    assert_eq!(heard(&mut socket).await, json!({"closed": 1000}));
    assert_eq!(net.now(), START + 3_600_000);
    assert!(rules(&net).is_empty());
}

#[tokio::test(start_paused = true)]
async fn there_are_ten_connections_at_most_and_a_ticket_is_for_one() {
    let net = net(&json!({}));
    let mut sockets = Vec::new();
    for n in 1..=10 {
        let mut socket = connect(&net).await;
        assert_eq!(heard(&mut socket).await["num_connections"], n);
        sockets.push(socket);
    }
    let mut one_too_many = connect(&net).await;
    assert_eq!(heard(&mut one_too_many).await["reason"], "too_many_websockets");
    assert_eq!(rules(&net), ["slack.max-sockets"]);
    let again = net.connect(Request::new("GET", "/link/?ticket=used")).await;
    assert_eq!(again.err().flatten().map(|response| response.status), Some(401));
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_answer_pings_is_cut_off() {
    let net = net(&json!({}));
    let socket = connect(&net).await;
    let mut silent = socket.without_pongs();
    loop {
        if silent.next().await == Event::Broken {
            break;
        }
    }
    assert_eq!(net.now(), START + 30_000);
}

#[tokio::test(start_paused = true)]
async fn one_message_a_second_in_a_channel_after_a_short_burst() {
    let net = net(&json!({}));
    net.control("channel", &json!({"id": "C1"})).unwrap();
    let post = json!({"channel": "C1", "text": "x"});
    for _ in 0..5 {
        assert_eq!(call(&net, "xoxb-sim", "chat.postMessage", &post).await["ok"], true);
    }
    assert_eq!(call(&net, "xoxb-sim", "chat.postMessage", &post).await["error"], "ratelimited");
    assert!(rules(&net).is_empty());
    assert_eq!(call(&net, "xoxb-sim", "chat.postMessage", &post).await["error"], "ratelimited");
    assert_eq!(rules(&net), ["slack.rate-limit"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(call(&net, "xoxb-sim", "chat.postMessage", &post).await["ok"], true);
    assert_eq!(call(&net, "xapp-sim", "chat.postMessage", &post).await["error"], "invalid_auth");
}
