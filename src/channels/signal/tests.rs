//! Against the simulated daemon, under simulated time.

use openclaw_channel_sim::signal::Signal as SimSignal;
use openclaw_channel_sim::sim::{Act, Fault, Point};
use openclaw_channel_sim::{Net, Platform as _, Sim};

use super::*;
use crate::channels::channel::{Channel, ChannelState, Options};
use crate::channels::log::memory::MemoryLog;
use crate::channels::message::{OutboundFile, SendReceipt, SendState};
use crate::channels::testing::{SimWire, Simulated, Trail, USUAL_SEEDS, never, receive, seeds, text};
use crate::channels::wire::{Answer, Body, Socket, Unsent};

const ME: &str = "+15550000000";
const ALICE: &str = "+15551111111";

/// Keeps the events that have reached the adapter.
struct Tap {
    wire: SimWire<SimSignal>,
    heard: Arc<Mutex<Vec<Value>>>,
}

struct Tapped(Box<dyn Body>, Arc<Mutex<Vec<Value>>>);

impl Body for Tapped {
    fn chunk(&mut self) -> Boxed<'_, Result<Option<Bytes>>> {
        Box::pin(async move {
            let chunk = self.0.chunk().await?;
            let text = chunk.as_ref().map(|chunk| String::from_utf8(chunk.to_vec()).unwrap());
            if let Some(data) = text.as_ref().and_then(|text| text.strip_prefix("event:receive\ndata:")) {
                self.1.lock().unwrap().push(serde_json::from_str(data).unwrap());
            }
            Ok(chunk)
        })
    }
}

impl Wire for Tap {
    fn send(&self, request: HttpRequest) -> Boxed<'_, Result<Answer, Unsent>> {
        Box::pin(async move {
            let events = request.url.path().ends_with("/events");
            let answer = self.wire.send(request).await?;
            let Answer { status, headers, body } = answer;
            let body = if events { Box::new(Tapped(body, Arc::clone(&self.heard))) } else { body };
            Ok(Answer { status, headers, body })
        })
    }

    fn socket(&self, url: Url, headers: HeaderMap) -> Boxed<'_, Result<Box<dyn Socket>>> {
        self.wire.socket(url, headers)
    }

    fn listen(
        &self,
        address: std::net::SocketAddr,
        gate: crate::channels::webhook::Gate,
    ) -> Boxed<'_, Result<Box<dyn crate::channels::webhook::Listener>>> {
        self.wire.listen(address, gate)
    }
}

struct Bench {
    net: Net<SimSignal>,
    log: MemoryLog,
    locks: tempfile::TempDir,
    heard: Arc<Mutex<Vec<Value>>>,
    seed: u64,
}

impl Bench {
    fn new(options: &Value, seed: u64) -> Self {
        let mut options = options.clone();
        if options["receive_mode"].is_null() {
            options["receive_mode"] = json!("on-connection");
        }
        let net = Net::new(Sim::new(SimSignal::new(&options).unwrap()), 1_800_000_000_000);
        let locks = tempfile::tempdir().unwrap();
        Self { net, log: MemoryLog::default(), locks, heard: Arc::default(), seed }
    }

    fn channel(&self, options: Value) -> Channel {
        let Value::Object(mut settings) = options else { unreachable!() };
        settings.entry("account").or_insert(ME.into());
        let platform = open(Settings {
            account_id: "default".into(),
            secrets: BTreeMap::new(),
            base_url: Some("http://sim".into()),
            webhook: None,
            options: settings,
            wire: Arc::new(Tap { wire: SimWire(self.net.clone()), heard: Arc::clone(&self.heard) }),
            surroundings: Simulated::surroundings(self.seed),
        });
        let options = Options {
            account_id: "default".into(),
            log: Arc::new(self.log.clone()),
            surroundings: Simulated::surroundings(self.seed),
            locks: self.locks.path().to_owned(),
        };
        Channel::new(platform.unwrap(), options)
    }

    #[expect(clippy::needless_pass_by_value, reason = "it is given literals")]
    fn act(&self, action: &str, arguments: Value) -> Value {
        self.net.control(action, &arguments).unwrap()
    }

    fn state(&self) -> Value {
        self.net.with(|sim| sim.platform.state())
    }

    fn broken_rules(&self) -> Vec<(&'static str, String)> {
        self.net.with(|sim| sim.violations())
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_comes_in_and_an_answer_goes_out() {
    let bench = Bench::new(&json!({}), 1);
    let channel = bench.channel(json!({"sendReadReceipts": true}));
    let at = bench.act("message", json!({"text": "hello"}))["timestamp"].as_u64().unwrap();
    let got = receive(&channel, 1).await.remove(0);
    assert_eq!((got.text.as_str(), got.chat.id.as_str(), got.sender.id.as_str()), ("hello", ALICE, ALICE));
    assert!(got.mentions_me && got.chat.kind == ChatKind::Direct);
    assert_eq!(got.message_id, format!("{at}:{ALICE}"));
    let answer =
        OutboundMessage { reply_to_id: Some(got.message_id.clone()), ..text(ALICE, "é😀 **hi** `x`") };
    let receipt = channel.send(answer, None, &never()).await.unwrap();
    assert_eq!((receipt.state, receipt.message_ids.len()), (SendState::Accepted, 1));
    let state = bench.state();
    let sent = &state["sent"][0];
    assert_eq!(
        (&sent["message"], &sent["quoteTimestamp"], &sent["quoteAuthor"]),
        (&json!("é😀 hi x"), &json!(at), &json!(ALICE))
    );
    assert_eq!(sent["textStyle"], json!(["4:2:BOLD", "7:1:MONOSPACE"]));
    assert_eq!(receipt.message_ids[0], format!("{}:{ME}", sent["timestamp"]));
    assert_eq!(state["receipts"][0]["targetTimestamp"], json!([at]));
    let to = ALICE.to_owned();
    let message_id = receipt.message_ids[0].clone();
    channel.make(Call::Edit { to: to.clone(), message_id, text: "_new_".into() }).await.unwrap();
    for emoji in ["👍", ""] {
        let call = Call::React { to: to.clone(), message_id: got.message_id.clone(), emoji: emoji.into() };
        channel.make(call).await.unwrap();
    }
    channel.make(Call::Typing { to, thread_id: None }).await.unwrap();
    let state = bench.state();
    assert_eq!(state["sent"][1]["editTimestamp"], sent["timestamp"]);
    assert_eq!(state["sent"][1]["message"], "new");
    let reaction = |at: usize| {
        (state["reactions"][at]["targetAuthor"].clone(), state["reactions"][at]["remove"].clone())
    };
    assert_eq!(reaction(0), (json!(ALICE), json!(false)));
    assert_eq!(reaction(1), (json!(ALICE), json!(true)));
    assert_eq!(state["typing"].as_array().unwrap().len(), 1);
    assert_eq!(channel.status().state, ChannelState::Running);
    channel.close().await;
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn groups_mentions_quotes_edits_reactions_and_files_are_read() {
    let bench = Bench::new(&json!({}), 2);
    bench.act("group", json!({"id": "R1+/==", "name": "G"}));
    let group = |mut message: Value| {
        message["group"] = json!("R1+/==");
        bench.act("message", message)["timestamp"].as_u64().unwrap()
    };
    let first = group(json!({"text": "just talk"}));
    let mention = |number: &str| json!([{"name": "Bot", "number": number, "start": 5, "length": 1}]);
    group(json!({"text": "é😀 a\u{FFFC} now", "mentions": mention(ME)}));
    group(json!({"text": "é😀 a\u{FFFC} now", "mentions": mention("+15552222222")}));
    group(json!({"text": "yes", "quote": {"timestamp": 77, "author": ME}}));
    bench.act("edit", json!({"group": "R1+/==", "target": first, "text": "better talk"}));
    bench.act("react", json!({"group": "R1+/==", "target": 77, "author": ME, "emoji": "🔥"}));
    bench.act("react", json!({"group": "R1+/==", "target": 77, "author": ME, "emoji": "🔥", "remove": true}));
    bench.act("delete", json!({"group": "R1+/==", "target": first}));
    bench.act("typing", json!({}));
    bench.act("receipt", json!({"timestamps": [77]}));
    bench.act("message", json!({"from": ME, "text": "my own"}));
    bench.act(
        "message",
        json!({"files": [{"name": "a.pdf", "mime": "application/pdf", "base64": "JVBERi0xLjQK"}]}),
    );
    let channel = bench.channel(json!({}));
    let got = receive(&channel, 9).await;
    assert_eq!(
        (got[0].chat.kind, got[0].chat.id.as_str(), got[0].mentions_me),
        (ChatKind::Group, "group:R1+/==", false)
    );
    assert_eq!(got[0].chat.title.as_deref(), Some("G"));
    assert_eq!((got[1].text.as_str(), got[1].mentions_me), ("é😀 a@Bot now", true));
    assert_eq!((got[2].text.as_str(), got[2].mentions_me), ("é😀 a@Bot now", false));
    assert_eq!((got[3].reply_to_id.clone(), got[3].mentions_me), (Some(format!("77:{ME}")), true));
    assert_eq!((got[4].kind, got[4].text.as_str()), (InboundKind::Edit, "better talk"));
    assert_eq!(got[4].message_id, got[0].message_id);
    assert_eq!(
        (got[5].kind, got[5].text.as_str(), got[5].message_id.clone()),
        (InboundKind::Reaction, "🔥", format!("77:{ME}"))
    );
    assert_eq!((got[6].kind, got[6].text.as_str()), (InboundKind::Reaction, ""));
    assert_eq!((got[7].kind, got[7].text.as_str()), (InboundKind::Edit, ""));
    let file = &got[8].attachments[0];
    assert_eq!((file.name.as_deref(), file.mime_type.as_deref()), (Some("a.pdf"), Some("application/pdf")));
    assert_eq!(&channel.download(file, 1000).await.unwrap()[..], b"%PDF-1.4\n");
    let unsized_ = Attachment { size: None, ..file.clone() };
    assert_eq!(channel.download(&unsized_, 4).await.unwrap_err().code(), Code::Limit);
    let answer =
        OutboundMessage { reply_to_id: Some(got[1].message_id.clone()), ..text(&got[1].chat.id, "ok") };
    assert_eq!(channel.send(answer, None, &never()).await.unwrap().state, SendState::Accepted);
    assert_eq!(bench.state()["sent"][0]["groupId"], "R1+/==");
    channel.close().await;
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn long_texts_and_files_go_out_within_the_limits_and_waits_are_kept() {
    let bench = Bench::new(&json!({"burst": 3, "per_ms": 20_000}), 3);
    let channel = bench.channel(json!({}));
    let long = "**word** <tag> & `code` (with a remark)\n".repeat(800);
    let receipt = channel.send(text(ALICE, &long), None, &never()).await.unwrap();
    assert_eq!(receipt.state, SendState::Accepted);
    let state = bench.state();
    let sent = state["sent"].as_array().unwrap();
    assert_eq!(sent.len(), receipt.message_ids.len());
    assert!(
        sent.len() > 3 && sent.iter().all(|m| m["message"].as_str().unwrap().encode_utf16().count() <= 4000)
    );
    let shown: String = sent.iter().map(|m| m["message"].as_str().unwrap()).collect();
    let bare = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    assert_eq!(bare(&shown), bare(&long.replace("**", "").replace('`', "")));
    let file =
        |name: &str| OutboundFile { data: Bytes::from_static(b"text"), name: name.into(), mime_type: None };
    let files = vec![file("a b.txt"), file("c;base64,\",ü.txt")];
    let message = OutboundMessage { files, ..text("uuid:00000000-0000-4000-8000-000000000001", "caption") };
    channel.send(message, None, &never()).await.unwrap();
    let state = bench.state();
    let last = state["sent"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        (&last["message"], &last["recipient"]),
        (&json!("caption"), &json!(["00000000-0000-4000-8000-000000000001"]))
    );
    let names: Vec<&str> =
        last["attachments"].as_array().unwrap().iter().map(|uri| uri.as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "data:application/octet-stream;filename=a+b.txt;base64,dGV4dA==",
            "data:application/octet-stream;filename=c%3Bbase64%2C%22%2C%C3%BC.txt;base64,dGV4dA==",
        ]
    );
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_falls_silent_is_left_and_an_unknown_account_ends_it() {
    let bench = Bench::new(&json!({}), 4);
    let channel = bench.channel(json!({}));
    bench.act("message", json!({"text": "one"}));
    receive(&channel, 1).await;
    bench.net.with(|sim| sim.fault(Fault::new(Point::Out, "keep-alive", Act::HalfOpen)));
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(channel.status().state, ChannelState::Running);
    bench.act("message", json!({"text": "two"}));
    assert_eq!(receive(&channel, 1).await[0].text, "two");
    bench.act("end", json!({}));
    bench.act("message", json!({"text": "three"}));
    assert_eq!(receive(&channel, 1).await[0].text, "three");
    channel.close().await;
    assert_eq!(bench.state()["listeners"], 0);

    let bench = Bench::new(&json!({"account": "+15559999999"}), 4);
    assert_eq!(bench.channel(json!({})).next(1).await.unwrap_err().code(), Code::ChannelAuth);
}

#[tokio::test(start_paused = true)]
async fn who_is_not_on_signal_is_a_refusal_and_a_failure_behind_the_daemon_is_unknown() {
    let bench = Bench::new(&json!({}), 5);
    bench.act("unregister", json!({"number": "+15559999999"}));
    let channel = bench.channel(json!({}));
    let error = channel.send(text("+15559999999", "x"), None, &never()).await.unwrap_err();
    assert_eq!(error.code(), Code::ChannelSend);
    assert!(error.message().contains("UNREGISTERED_FAILURE"), "{error}");
    for (code, fate) in [(-1, Fate::Refused), (-3, Fate::Unknown), (-2, Fate::Unknown), (-5, Fate::Unsent)] {
        assert_eq!(refusal("send", &json!({"code": code, "message": "x"})).fate, fate, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_the_network_does_what_was_heard_comes_once_and_in_order_and_goes_out_at_most_once() {
    let seeds = seeds(&[]);
    let cases = seeds.len() as u64;
    let few = cases < USUAL_SEEDS;
    let targets = [
        (Point::Request, "/api/v1/events"),
        (Point::Answer, "/api/v1/events"),
        (Point::Out, "receive"),
        (Point::Out, "keep-alive"),
        (Point::Request, "/api/v1/rpc"),
        (Point::Answer, "/api/v1/rpc"),
    ];
    let (mut unknown, mut heard_in_all) = (0, 0);
    for &seed in &seeds {
        let bench = Bench::new(&json!({}), seed);
        let _trail = Trail(bench.net.clone());
        for fault in Fault::script(seed, 8, &targets) {
            // Nothing on the way makes two requests of one that has effects, and who refuses has not done it.
            let twice = matches!(fault.act, Act::Duplicate) && fault.at == Point::Request;
            let told = fault.at == Point::Answer
                && matches!(fault.act, Act::Duplicate | Act::Status { status: 429, .. });
            if !twice && !told {
                bench.net.with(|sim| sim.fault(fault));
            }
        }
        let channel = Arc::new(bench.channel(json!({})));
        let reader = Arc::clone(&channel);
        let got = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&got);
        let reading = tokio::spawn(async move {
            while let Some(batch) = reader.next(50).await.unwrap() {
                for delivery in batch {
                    let message: InboundMessage = serde_json::from_str(&delivery.json).unwrap();
                    into.lock().unwrap().push(message);
                    reader.ack(&[delivery.number]).await.unwrap();
                }
            }
        });
        let mut receipts: Vec<(u64, Result<SendReceipt>)> = Vec::new();
        for n in 0..12 {
            bench.act("message", json!({"from": format!("+1555000001{}", n % 2), "text": n.to_string()}));
            if n % 2 == 0 {
                let sent = channel.send(text(ALICE, &format!("answer {n:02}")), None, &never()).await;
                receipts.push((n, sent));
            }
            tokio::time::sleep(Duration::from_millis(700 * n)).await;
        }
        // The faults are used up, and the last message comes to a connection that stands.
        bench.net.with(Sim::clear_faults);
        tokio::time::sleep(Duration::from_mins(10)).await;
        bench.act("message", json!({"from": ALICE, "text": "last"}));
        tokio::time::sleep(Duration::from_mins(1)).await;
        channel.close().await;
        reading.await.unwrap();
        let mut heard: Vec<String> = Vec::new();
        for event in bench.heard.lock().unwrap().iter() {
            let text = event["envelope"]["dataMessage"]["message"].as_str().unwrap().to_owned();
            if !heard.contains(&text) {
                heard.push(text);
            }
        }
        let got: Vec<String> = got.lock().unwrap().iter().map(|message| message.text.clone()).collect();
        assert_eq!(got, heard, "seed {seed}");
        assert_eq!(got.last().map(String::as_str), Some("last"), "seed {seed}: deaf");
        heard_in_all += heard.len() as u64;
        let state = bench.state();
        let shown: Vec<&str> =
            state["sent"].as_array().unwrap().iter().map(|sent| sent["message"].as_str().unwrap()).collect();
        for (n, receipt) in receipts {
            let times = shown.iter().filter(|text| **text == format!("answer {n:02}")).count();
            match receipt {
                Ok(receipt) if receipt.state == SendState::Accepted => {
                    assert_eq!(times, 1, "seed {seed}: {n}");
                }
                Ok(_) => {
                    unknown += 1;
                    assert!(times <= 1, "seed {seed}: {n} was sent {times} times");
                }
                Err(error) => assert_eq!(times, 0, "seed {seed}: {n} failed and was sent: {error}"),
            }
        }
        assert_eq!(bench.broken_rules(), [], "seed {seed}");
    }
    assert!(few || unknown > 0, "no fate was ever unknown: the faults have gone wrong");
    assert!(
        few || heard_in_all > cases * 9,
        "{heard_in_all} messages in {cases} cases: the faults swallow everything"
    );
}

#[test]
fn options_and_addresses_are_checked() {
    let settings = |options: Value, base: Option<&str>| {
        let Value::Object(options) = options else { unreachable!() };
        open(Settings {
            account_id: "default".into(),
            secrets: BTreeMap::new(),
            base_url: base.map(str::to_owned),
            webhook: None,
            options,
            wire: Arc::new(wire::Network::new(crate::http::HttpOptions::default())),
            surroundings: crate::channels::system(),
        })
    };
    let good = settings(json!({"account": ME, "accountUuid": "00000000-0000-4000-8000-000000000001"}), None)
        .unwrap();
    for wrong in [
        settings(json!({}), None),
        settings(json!({"account": "15550000000"}), None),
        settings(json!({"account": ME, "accountUuid": "x"}), None),
        settings(json!({"account": ME, "sendReadReceipts": "yes"}), None),
        settings(json!({"account": ME}), Some("ftp://x")),
        settings(json!({"account": ME}), Some("http://name:secret@x")),
    ] {
        let error = wrong.err().unwrap();
        assert_eq!(error.code(), Code::Validation);
        assert!(!error.message().contains("secret"), "{error}");
    }
    for (to, reply, fine) in [
        ("signal:group:x", None, true),
        ("group:", None, false),
        ("group:x", Some("77"), false),
        ("group:x", Some("77:+1555"), true),
        (ALICE, Some("77"), true),
        (ALICE, Some("x"), false),
    ] {
        let message = OutboundMessage { reply_to_id: reply.map(str::to_owned), ..text(to, "x") };
        assert_eq!(good.render(&message).is_ok(), fine, "{to} {reply:?}");
    }
    assert!(good.render(&text(ALICE, "  \n")).is_err());
}

#[test]
fn no_envelope_makes_the_adapter_panic() {
    let me = Me { account: "+4915100000".into(), uuid: None };
    let data = json!({"timestamp": 5, "message": "\u{fffc} a \u{1f600} \u{fffc}", "groupInfo": {"groupId": "g", "groupName": "G"},
        "mentions": [{"start": 0, "length": 1, "number": "+4915100000"}, {"start": 6, "length": 1, "uuid": "u", "name": "N"}],
        "quote": {"id": 3, "authorNumber": "+491"}, "attachments": [{"id": "a", "contentType": "image/png", "size": 3}]});
    for envelope in [
        json!({"sourceNumber": "+491", "sourceUuid": "u", "sourceName": "A", "timestamp": 5, "dataMessage": data}),
        json!({"sourceNumber": "+491", "editMessage": {"targetSentTimestamp": 4, "dataMessage": data}}),
        json!({"sourceUuid": "u", "dataMessage": {"timestamp": 6, "reaction": {"emoji": "x", "targetAuthorUuid": "u",
            "targetSentTimestamp": 3}}}),
        json!({"sourceUuid": "u", "dataMessage": {"timestamp": 6, "remoteDelete": {"timestamp": 3}}}),
    ] {
        let event = json!({"envelope": envelope, "account": "+4915100000"});
        assert!(inbound::read(event.to_string().as_bytes(), &me).is_some(), "{event}");
        for seed in 0..crate::channels::testing::MUTANTS {
            let strange = crate::channels::testing::mutated(&event, seed);
            if let Some(read) = inbound::read(strange.to_string().as_bytes(), &me) {
                assert!(
                    !read.id.is_empty() && !read.chat.id.is_empty() && !read.sender.id.is_empty(),
                    "{strange}"
                );
            }
        }
    }
}
