//! Telegram in memory, under simulated time.

use serde_json::{Value, json};

use super::Telegram;
use crate::net::{Broken, Net};
use crate::sim::{Act, Fault, Point, Sim};
use crate::wire::{Request, Response};

const START: u64 = 1_800_000_000_000;

fn net(options: &Value) -> Net<Telegram> {
    Net::new(Sim::new(Telegram::new(options).unwrap()), START)
}

async fn call(net: &Net<Telegram>, method: &str, arguments: Value) -> Result<Value, Broken> {
    let request = Request::new("POST", &format!("/bot123456:sim-token/{method}")).json(&arguments);
    net.request(request).await.map(|response| response.value())
}

fn rules(net: &Net<Telegram>) -> Vec<&'static str> {
    net.with(|sim| sim.violations().into_iter().map(|(rule, _)| rule).collect())
}

#[tokio::test(start_paused = true)]
async fn a_poll_waits_for_its_timeout_and_no_longer() {
    let net = net(&json!({}));
    let answer = call(&net, "getUpdates", json!({"timeout": 50})).await.unwrap();
    assert_eq!(answer, json!({"ok": true, "result": []}));
    assert_eq!(net.now(), START + 50_000);
    net.control("message", &json!({"text": "now"})).unwrap();
    let answer = call(&net, "getUpdates", json!({"timeout": 50})).await.unwrap();
    assert_eq!(answer["result"][0]["message"]["text"], "now");
    assert_eq!(net.now(), START + 50_000);
}

#[tokio::test(start_paused = true)]
async fn updates_are_confirmed_by_the_offset_alone_and_kept_for_a_day() {
    let net = net(&json!({}));
    let first = net.control("message", &json!({"text": "1"})).unwrap()["update_id"].as_i64().unwrap();
    net.control("message", &json!({"text": "2"})).unwrap();
    let texts = |answer: Value| -> Vec<String> {
        let list = answer["result"].as_array().unwrap().clone();
        list.iter().map(|update| update["message"]["text"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(texts(call(&net, "getUpdates", json!({})).await.unwrap()), ["1", "2"]);
    assert_eq!(texts(call(&net, "getUpdates", json!({"limit": 1})).await.unwrap()), ["1"]);
    assert_eq!(texts(call(&net, "getUpdates", json!({"offset": first + 1})).await.unwrap()), ["2"]);
    assert_eq!(texts(call(&net, "getUpdates", json!({"offset": first})).await.unwrap()), ["2"]);
    net.advance(86_400_000);
    assert!(texts(call(&net, "getUpdates", json!({"offset": first})).await.unwrap()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn whoever_hangs_up_first_is_no_second_poller() {
    let net = net(&json!({}));
    for _ in 0..100 {
        let poll = call(&net, "getUpdates", json!({"timeout": 50}));
        assert!(tokio::time::timeout(std::time::Duration::from_secs(7), poll).await.is_err());
    }
    assert!(rules(&net).is_empty());
    // Over a connection that is half open the platform cannot know.
    net.with(|sim| sim.fault(Fault::new(Point::Answer, "getUpdates", Act::HalfOpen)));
    net.control("message", &json!({"text": "lost"})).unwrap();
    let poll = call(&net, "getUpdates", json!({"timeout": 50}));
    assert!(tokio::time::timeout(std::time::Duration::from_secs(60), poll).await.is_err());
    let answer = call(&net, "getUpdates", json!({})).await.unwrap();
    assert_eq!(answer["result"][0]["message"]["text"], "lost");
}

#[tokio::test(start_paused = true)]
async fn a_webhook_is_called_in_order_within_a_chat_and_again_until_it_answers() {
    let net = net(&json!({}));
    let mut calls = net.calls();
    call(&net, "setWebhook", json!({"url": "http://bot.example/hook?x=1", "secret_token": "s"}))
        .await
        .unwrap();
    for (from, text) in [(1, "a"), (1, "b"), (2, "c")] {
        net.control("message", &json!({"from": from, "text": text})).unwrap();
    }
    let text = |request: &Request| {
        let update: Value = serde_json::from_slice(&request.body).unwrap();
        update["message"]["text"].as_str().unwrap().to_owned()
    };
    let a = calls.recv().await.unwrap();
    assert_eq!((a.request.path.as_str(), a.request.query("x")), ("http://bot.example/hook", Some("1")));
    assert_eq!(a.request.get("x-telegram-bot-api-secret-token"), Some("s"));
    assert_eq!(text(&a.request), "a");
    let c = calls.recv().await.unwrap();
    assert_eq!(text(&c.request), "c", "another chat does not wait");
    c.answer(Some(Response::json(200, &json!({}))));
    a.answer(None);
    let again = calls.recv().await.unwrap();
    assert_eq!(text(&again.request), "a");
    assert_eq!(net.now(), START + 1000);
    // An answer may call a method.
    again.answer(Some(Response::json(
        200,
        &json!({"method": "sendMessage", "chat_id": 1, "text": "from the answer"}),
    )));
    assert_eq!(text(&calls.recv().await.unwrap().request), "b");
    let sent = net.with(|sim| sim.platform.chats.get(&1).unwrap().messages.values().last().unwrap().clone());
    assert_eq!(sent["text"], "from the answer");
}

#[tokio::test(start_paused = true)]
async fn conflicts_are_told_every_three_seconds() {
    let net = net(&json!({}));
    let mut told = Vec::new();
    let mut polls = Vec::new();
    for _ in 0..3 {
        let net = net.clone();
        polls.push(tokio::spawn(async move {
            let answer = call(&net, "getUpdates", json!({"timeout": 50})).await.unwrap();
            (answer["error_code"].as_u64(), net.now())
        }));
        tokio::task::yield_now().await;
    }
    for poll in polls {
        told.push(poll.await.unwrap());
    }
    assert_eq!(told, [(Some(409), START), (Some(409), START + 3000), (None, START + 50_000)]);
    assert_eq!(rules(&net), ["telegram.one-poller", "telegram.one-poller"]);
}

/// A bot that obeys every rule: what it must do shows in how little it takes.
async fn obedient(net: &Net<Telegram>, until: usize) -> Vec<i64> {
    let mut offset = 0;
    let mut seen = Vec::new();
    let mut backoff = 100;
    while seen.len() < until {
        let asked = call(net, "getUpdates", json!({"offset": offset, "timeout": 30}));
        // A poll that is never answered is given up, and its connection with it.
        let answer = tokio::time::timeout(std::time::Duration::from_secs(45), asked).await;
        let Ok(Ok(answer)) = answer else {
            tokio::time::sleep(std::time::Duration::from_millis(backoff)).await;
            backoff = (backoff * 2).min(20_000);
            continue;
        };
        if let Some(list) = answer["result"].as_array() {
            backoff = 100;
            for update in list {
                let id = update["update_id"].as_i64().unwrap();
                offset = id + 1;
                if seen.last().is_none_or(|last| *last < id) {
                    seen.push(id);
                }
            }
        } else {
            let wait = answer["parameters"]["retry_after"].as_u64().map_or(backoff, |seconds| seconds * 1000);
            tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
        }
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn no_script_of_faults_loses_an_update_for_a_bot_that_confirms_late() {
    for seed in 0..300 {
        let net = net(&json!({"flood": false, "seed": seed}));
        net.with(|sim| {
            for fault in
                Fault::script(seed, 6, &[(Point::Request, "getUpdates"), (Point::Answer, "getUpdates")])
            {
                sim.fault(fault);
            }
        });
        let sender = net.clone();
        let sent = tokio::spawn(async move {
            let mut ids = Vec::new();
            for n in 0..20 {
                tokio::time::sleep(std::time::Duration::from_secs(n % 7)).await;
                let made = sender.control("message", &json!({"text": n.to_string()})).unwrap();
                ids.push(made["update_id"].as_i64().unwrap());
            }
            ids
        });
        let seen = obedient(&net, 20).await;
        assert_eq!(seen, sent.await.unwrap(), "seed {seed}");
    }
}
