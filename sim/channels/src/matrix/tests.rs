//! Matrix in memory, under simulated time.

use std::time::Duration;

use serde_json::{Value, json};

use super::Matrix;
use crate::net::Net;
use crate::sim::Sim;
use crate::wire::{Request, Response};

const START: u64 = 1_800_000_000_000;

fn net(options: &Value) -> Net<Matrix> {
    let net = Net::new(Sim::new(Matrix::new(options).unwrap()), START);
    net.control("room", &json!({"id": "!r:sim"})).unwrap();
    net
}

async fn ask(net: &Net<Matrix>, method: &str, path: &str, body: Option<Value>) -> Response {
    let request = Request::new(method, &format!("/_matrix/client/v3/{path}"));
    let request = request.header("authorization", "Bearer sim-token");
    net.request(if let Some(body) = body { request.json(&body) } else { request }).await.unwrap()
}

fn rules(net: &Net<Matrix>) -> Vec<&'static str> {
    net.with(|sim| sim.violations().into_iter().map(|(rule, _)| rule).collect())
}

fn bodies(sync: &Value) -> Vec<String> {
    let events =
        sync["rooms"]["join"]["!r:sim"]["timeline"]["events"].as_array().cloned().unwrap_or_default();
    events.iter().filter_map(|event| Some(event["content"]["body"].as_str()?.to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_sync_tells_what_is_new_since_its_token_and_waits_if_nothing_is() {
    let net = net(&json!({}));
    let first = ask(&net, "GET", "sync", None).await.value();
    let since = first["next_batch"].as_str().unwrap().to_owned();
    let path = format!("sync?since={since}&timeout=30000");
    let empty = ask(&net, "GET", &path, None).await.value();
    assert_eq!(net.now(), START + 30_000);
    assert_eq!(empty["next_batch"], since.as_str());
    net.control("message", &json!({"room": "!r:sim", "text": "new"})).unwrap();
    // The same token gives the same again, for as long as one asks.
    for _ in 0..3 {
        assert_eq!(bodies(&ask(&net, "GET", &path, None).await.value()), ["new"]);
    }
    assert_eq!(ask(&net, "GET", "sync?since=s999_sim", None).await.status, 400);
    assert_eq!(rules(&net), ["matrix.sync-token"]);
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_marked_and_can_be_filled_from_prev_batch() {
    let net = net(&json!({}));
    let since = ask(&net, "GET", "sync", None).await.value()["next_batch"].as_str().unwrap().to_owned();
    for n in 0..50 {
        net.control("message", &json!({"room": "!r:sim", "text": n.to_string()})).unwrap();
    }
    let sync = ask(&net, "GET", &format!("sync?since={since}"), None).await.value();
    let timeline = &sync["rooms"]["join"]["!r:sim"]["timeline"];
    assert_eq!(timeline["limited"], true);
    let mut found = bodies(&sync);
    assert_eq!(found.len(), 20);
    let mut from = timeline["prev_batch"].as_str().unwrap().to_owned();
    loop {
        let path = format!("rooms/!r:sim/messages?dir=b&from={from}&to={since}&limit=7");
        let page = ask(&net, "GET", &path, None).await.value();
        for event in page["chunk"].as_array().unwrap() {
            found.insert(0, event["content"]["body"].as_str().unwrap().to_owned());
        }
        match page["end"].as_str() {
            Some(end) => from = end.to_owned(),
            None => break,
        }
    }
    assert_eq!(found, (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_transaction_is_one_event() {
    let net = net(&json!({}));
    let send = async |transaction: &str, text: &str| {
        let body = json!({"msgtype": "m.text", "body": text});
        ask(&net, "PUT", &format!("rooms/!r:sim/send/m.room.message/{transaction}"), Some(body)).await.value()
    };
    let first = send("t1", "a").await;
    assert_eq!(send("t1", "a").await, first);
    assert_ne!(send("t2", "a").await, first);
    assert!(rules(&net).is_empty());
    assert_eq!(send("t1", "b").await, first);
    assert_eq!(rules(&net), ["matrix.transaction"]);
}

#[tokio::test(start_paused = true)]
async fn a_limit_is_told_in_milliseconds_and_lifted_then() {
    let net = net(&json!({}));
    let send = async |n: u64| {
        let body = json!({"msgtype": "m.text", "body": "x"});
        ask(&net, "PUT", &format!("rooms/!r:sim/send/m.room.message/t{n}"), Some(body)).await
    };
    for n in 0..10 {
        assert_eq!(send(n).await.status, 200);
    }
    let refused = send(10).await;
    assert_eq!((refused.status, refused.value()["retry_after_ms"].as_u64()), (429, Some(5000)));
    tokio::time::sleep(Duration::from_millis(4999)).await;
    assert_eq!(send(10).await.value()["retry_after_ms"], 1);
    assert_eq!(rules(&net), ["matrix.rate-limit"]);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(send(10).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn whose_token_is_revoked_is_told_at_once() {
    let net = net(&json!({}));
    let since = ask(&net, "GET", "sync", None).await.value()["next_batch"].as_str().unwrap().to_owned();
    let waiting = net.clone();
    let sync = tokio::spawn(async move {
        ask(&waiting, "GET", &format!("sync?since={since}&timeout=30000"), None).await
    });
    tokio::task::yield_now().await;
    net.control("revoke", &json!({})).unwrap();
    let answer = sync.await.unwrap();
    assert_eq!(
        (answer.status, answer.value()["errcode"].as_str().map(str::to_owned)),
        (401, Some("M_UNKNOWN_TOKEN".into()))
    );
    assert_eq!(net.now(), START);
}
