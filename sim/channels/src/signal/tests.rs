//! signal-cli's daemon in memory, under simulated time.

use serde_json::{Value, json};

use super::Signal;
use crate::net::{Connection, Event, Net};
use crate::sim::{Act, Fault, Point, Sim};
use crate::wire::Request;

const START: u64 = 1_800_000_000_000;

fn net(options: &Value) -> Net<Signal> {
    Net::new(Sim::new(Signal::new(options).unwrap()), START)
}

fn rules(net: &Net<Signal>) -> Vec<&'static str> {
    net.with(|sim| sim.violations().into_iter().map(|(rule, _)| rule).collect())
}

async fn listen(net: &Net<Signal>) -> Connection<Signal> {
    let (response, stream) = net.open(Request::new("GET", "/api/v1/events")).await.unwrap();
    assert_eq!(response.get("content-type"), Some("text/event-stream"));
    stream.unwrap()
}

/// The text of the next message.
async fn heard(stream: &mut Connection<Signal>) -> Option<String> {
    loop {
        match stream.next().await {
            Event::Chunk(bytes) => {
                let text = String::from_utf8(bytes).unwrap();
                if let Some(data) = text.strip_prefix("event:receive\ndata:") {
                    let event: Value = serde_json::from_str(data).unwrap();
                    return Some(event["envelope"]["dataMessage"]["message"].as_str().unwrap().to_owned());
                }
                assert_eq!(text, ":\n");
            }
            _ => return None,
        }
    }
}

async fn rpc(net: &Net<Signal>, method: &str, params: Value) -> Value {
    let call = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": "1"});
    let answer = net.request(Request::new("POST", "/api/v1/rpc").json(&call)).await.unwrap();
    assert_eq!(answer.status, 200);
    answer.value()
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_nobody_listens_is_gone_or_waits_as_the_mode_has_it() {
    let say = |net: &Net<Signal>, text: &str| net.control("message", &json!({"text": text})).unwrap();
    let careless = net(&json!({}));
    say(&careless, "unheard");
    let mut stream = listen(&careless).await;
    say(&careless, "heard");
    assert_eq!(heard(&mut stream).await.as_deref(), Some("heard"));
    assert_eq!(careless.with(|sim| sim.platform.gone.len()), 1);

    let patient = net(&json!({"receive_mode": "on-connection"}));
    say(&patient, "first");
    let mut stream = listen(&patient).await;
    assert_eq!(heard(&mut stream).await.as_deref(), Some("first"));
    drop(stream);
    say(&patient, "second");
    let mut stream = listen(&patient).await;
    assert_eq!(heard(&mut stream).await.as_deref(), Some("second"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_kept_alive_and_breaks_as_the_script_has_it() {
    let net = net(&json!({}));
    let mut stream = listen(&net).await;
    assert_eq!(stream.next().await, Event::Chunk(b":\n".to_vec()));
    assert_eq!(net.now(), START + 15_000);
    net.with(|sim| sim.fault(Fault::new(Point::Out, "receive", Act::Cut)));
    net.control("message", &json!({"text": "lost"})).unwrap();
    assert_eq!(heard(&mut stream).await, None);
    assert_eq!(net.with(|sim| sim.platform.listeners.len()), 0);
    let mut stream = listen(&net).await;
    net.control("end", &json!({})).unwrap();
    assert_eq!(stream.next().await, Event::End);
}

#[tokio::test(start_paused = true)]
async fn calls_are_checked_as_signal_cli_does() {
    let net = net(&json!({"burst": 2}));
    net.control("group", &json!({"id": "R1==", "name": "Group"})).unwrap();
    net.control("unregister", &json!({"number": "+15559999999"})).unwrap();
    let code = |answer: Value| answer["error"]["code"].as_i64();
    assert_eq!(code(rpc(&net, "nonsense", json!({})).await), Some(-32601));
    assert_eq!(code(rpc(&net, "send", json!({"message": "x"})).await), Some(-1));
    assert_eq!(code(rpc(&net, "send", json!({"message": "x", "groupId": "other"})).await), Some(-1));
    assert_eq!(code(rpc(&net, "send", json!({"recipient": "+15551111111"})).await), Some(-1));
    let style = json!({"recipient": ["+15551111111"], "message": "é😀", "textStyle": ["0:4:BOLD"]});
    assert_eq!(code(rpc(&net, "send", style).await), Some(-1));
    assert_eq!(rules(&net).len(), 5);
    let style = json!({"recipient": ["+15551111111"], "message": "é😀", "textStyle": ["1:2:BOLD"]});
    let sent = rpc(&net, "send", style).await;
    assert_eq!(sent["result"]["timestamp"], START);
    let group = json!({"groupId": "R1==", "message": "x", "attachments": ["data:text/plain;base64,eA=="]});
    assert_eq!(rpc(&net, "send", group.clone()).await["result"]["timestamp"], START + 1);
    assert_eq!(code(rpc(&net, "send", group.clone()).await), Some(-5));
    assert_eq!(rules(&net).len(), 5);
    assert_eq!(code(rpc(&net, "send", group.clone()).await), Some(-5));
    assert_eq!(rules(&net).last(), Some(&"signal.rate-limit"));
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let failed = rpc(&net, "send", json!({"recipient": "+15559999999", "message": "x"})).await;
    assert_eq!(failed["error"]["data"]["response"]["results"][0]["type"], "UNREGISTERED_FAILURE");
    let notification =
        Request::new("POST", "/api/v1/rpc").json(&json!({"jsonrpc": "2.0", "method": "version"}));
    assert_eq!(net.request(notification).await.unwrap().status, 201);
}
