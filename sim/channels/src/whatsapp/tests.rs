//! The Cloud API in memory, under simulated time.

use std::time::Duration;

use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{WhatsApp, hmac_sha256};
use crate::net::{Call, Net};
use crate::sim::Sim;
use crate::wire::{Request, Response};

const START: u64 = 1_800_000_000_000;
const PHONE: &str = "100000000000001";

fn net(options: &Value) -> Net<WhatsApp> {
    Net::new(Sim::new(WhatsApp::new(options).unwrap()), START)
}

fn rules(net: &Net<WhatsApp>) -> Vec<&'static str> {
    net.with(|sim| sim.violations().into_iter().map(|(rule, _)| rule).collect())
}

async fn send(net: &Net<WhatsApp>, message: &Value) -> Response {
    let mut body = message.clone();
    body["messaging_product"] = json!("whatsapp");
    let request =
        Request::new("POST", &format!("/v23.0/{PHONE}/messages")).header("authorization", "Bearer sim-token");
    net.request(request.json(&body)).await.unwrap()
}

fn hello() -> Value {
    json!({"to": "15551111111", "type": "text", "text": {"body": "hello"}})
}

/// A webhook that checks what it is asked, as it should.
async fn answer(call: Call) -> Option<Value> {
    if call.request.method == "GET" {
        let right = call.request.query("hub.verify_token") == Some("sim-verify");
        let challenge = call.request.query("hub.challenge").unwrap().as_bytes().to_vec();
        let response = if right {
            Response::bytes(200, "text/plain", challenge)
        } else {
            Response { status: 403, ..Response::default() }
        };
        call.answer(Some(response));
        return None;
    }
    let digest = hmac_sha256(b"sim-secret", &call.request.body);
    let right =
        call.request.get("x-hub-signature-256") == Some(&format!("sha256={}", HEXLOWER.encode(&digest)));
    let body: Value = serde_json::from_slice(&call.request.body).unwrap();
    call.answer(Some(Response { status: if right { 200 } else { 403 }, ..Response::default() }));
    right.then(|| body["entry"][0]["changes"][0]["value"].clone())
}

async fn next(calls: &mut UnboundedReceiver<Call>) -> Value {
    loop {
        if let Some(value) = answer(calls.recv().await.unwrap()).await {
            return value;
        }
    }
}

async fn subscribed(net: &Net<WhatsApp>) -> UnboundedReceiver<Call> {
    let mut calls = net.calls();
    net.control("subscribe", &json!({"url": "http://bot.example/hook"})).unwrap();
    answer(calls.recv().await.unwrap()).await;
    answer(calls.recv().await.unwrap()).await;
    net.until(|sim| sim.platform.webhook.as_ref()?.verified.then_some(())).await;
    calls
}

#[test]
fn the_hmac_is_that_of_rfc_4231() {
    let digest = hmac_sha256(b"Jefe", b"what do ya want for nothing?");
    assert_eq!(HEXLOWER.encode(&digest), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    let long = hmac_sha256(&[0xAA; 131], b"Test Using Larger Than Block-Size Key - Hash Key First");
    assert_eq!(HEXLOWER.encode(&long), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

#[tokio::test(start_paused = true)]
async fn a_webhook_is_verified_notified_and_told_of_what_becomes_of_messages() {
    let net = net(&json!({}));
    let mut calls = subscribed(&net).await;
    net.control("message", &json!({"text": "hi", "name": "Ann"})).unwrap();
    let value = next(&mut calls).await;
    assert_eq!(value["messages"][0]["text"]["body"], "hi");
    assert_eq!(value["contacts"][0]["profile"]["name"], "Ann");
    let id = send(&net, &hello()).await.value()["messages"][0]["id"].clone();
    for status in ["sent", "delivered"] {
        let value = next(&mut calls).await;
        assert_eq!((&value["statuses"][0]["status"], &value["statuses"][0]["id"]), (&json!(status), &id));
    }
    assert!(rules(&net).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_notification_comes_again_until_it_is_answered_and_forged_ones_are_found_out() {
    let net = net(&json!({}));
    let mut calls = subscribed(&net).await;
    net.control("message", &json!({"text": "hi"})).unwrap();
    for wait in [0, 1000, 2000, 4000] {
        let before = net.now();
        calls.recv().await.unwrap().answer(None);
        assert_eq!(net.now() - before, wait);
    }
    next(&mut calls).await;
    net.control("forge", &json!({"text": "evil"})).unwrap();
    assert!(answer(calls.recv().await.unwrap()).await.is_none());
    assert!(rules(&net).is_empty());
    net.control("forge", &json!({"text": "evil", "signature": ""})).unwrap();
    let gullible = calls.recv().await.unwrap();
    assert_eq!(gullible.request.get("x-hub-signature-256"), None);
    gullible.answer(Some(Response { status: 200, ..Response::default() }));
    net.until(|sim| (!sim.violations().is_empty()).then_some(())).await;
    assert_eq!(rules(&net), ["whatsapp.signature"]);
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_the_challenge_to_everybody_is_found_out() {
    let net = net(&json!({}));
    let mut calls = net.calls();
    net.control("subscribe", &json!({"url": "http://bot.example/hook"})).unwrap();
    for _ in 0..2 {
        let call = calls.recv().await.unwrap();
        let challenge = call.request.query("hub.challenge").unwrap().as_bytes().to_vec();
        call.answer(Some(Response::bytes(200, "text/plain", challenge)));
    }
    net.until(|sim| (sim.platform.verifications.len() == 2).then_some(())).await;
    assert_eq!(rules(&net), ["whatsapp.verify"]);
}

#[tokio::test(start_paused = true)]
async fn after_24_hours_only_templates_go_out() {
    for (mode, status) in [("status", 200), ("response", 400)] {
        let net = net(&json!({"window_error": mode}));
        let mut calls = subscribed(&net).await;
        net.control("message", &json!({"text": "hi"})).unwrap();
        next(&mut calls).await;
        net.advance(86_399_999);
        assert_eq!(send(&net, &hello()).await.status, 200);
        assert!(rules(&net).is_empty());
        for _ in 0..2 {
            next(&mut calls).await;
        }
        net.advance(1);
        let late = send(&net, &hello()).await;
        assert_eq!(late.status, status);
        if status == 200 {
            assert_eq!(next(&mut calls).await["statuses"][0]["errors"][0]["code"], 131_047);
        } else {
            assert_eq!(late.value()["error"]["code"], 131_047);
        }
        let template = json!({"to": "15551111111", "type": "template", "template": {"name": "hello_world", "language": {"code": "en_US"}}});
        assert_eq!(send(&net, &template).await.status, 200);
        assert_eq!(rules(&net), ["whatsapp.window"]);
    }
}

#[tokio::test(start_paused = true)]
async fn messages_are_checked_and_counted() {
    let net = net(&json!({}));
    net.control("message", &json!({"text": "hi"})).unwrap();
    let code = |response: Response| response.value()["error"]["code"].as_u64();
    let long = json!({"to": "15551111111", "type": "text", "text": {"body": "x".repeat(4097)}});
    assert_eq!(code(send(&net, &long).await), Some(100));
    let template = json!({"to": "15551111111", "type": "template", "template": {"name": "none", "language": {"code": "en_US"}}});
    assert_eq!(code(send(&net, &template).await), Some(132_001));
    let image = json!({"to": "15551111111", "type": "image", "image": {"id": "1"}});
    assert_eq!(code(send(&net, &image).await), Some(131_053));
    assert_eq!(rules(&net), ["whatsapp.text-length", "whatsapp.template", "whatsapp.media"]);
    for _ in 0..45 {
        assert_eq!(send(&net, &hello()).await.status, 200);
    }
    assert_eq!(code(send(&net, &hello()).await), Some(131_056));
    assert_eq!(rules(&net).len(), 3);
    assert_eq!(code(send(&net, &hello()).await), Some(131_056));
    assert_eq!(rules(&net).last(), Some(&"whatsapp.pair-rate"));
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(send(&net, &hello()).await.status, 200);
    let stranger = Request::new("GET", &format!("/v23.0/{PHONE}")).header("authorization", "Bearer other");
    assert_eq!(code(net.request(stranger).await.unwrap()), Some(190));
}

#[tokio::test(start_paused = true)]
async fn media_is_fetched_with_the_token_within_five_minutes() {
    let net = net(&json!({}));
    let file = json!({"kind": "image", "mime": "image/png", "base64": "aW5ib3VuZA=="});
    net.control("message", &json!({"file": file})).unwrap();
    let id = net.with(|sim| sim.platform.inbound.last().unwrap()["image"]["id"].as_str().unwrap().to_owned());
    let get = async |path: &str| {
        net.request(Request::new("GET", path).header("authorization", "Bearer sim-token")).await.unwrap()
    };
    let info = get(&format!("/v23.0/{id}")).await.value();
    let path = info["url"].as_str().unwrap().strip_prefix("http://sim").unwrap().to_owned();
    assert_eq!(get(&path).await.body, b"inbound");
    assert_eq!(net.request(Request::new("GET", &path)).await.unwrap().status, 401);
    net.advance(300_001);
    assert_eq!(get(&path).await.status, 404);
}
