//! Against the simulated Cloud API, under simulated time.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use openclaw_channel_sim::sim::{Act, Event, Fault, Point};
use openclaw_channel_sim::whatsapp::WhatsApp as SimWhatsApp;
use openclaw_channel_sim::{Net, Platform as _, Sim};

use super::*;
use crate::channels::channel::{Channel, ChannelState, Options};
use crate::channels::log::memory::MemoryLog;
use crate::channels::message::{ChatKind, InboundKind, SendReceipt, SendState};
use crate::channels::testing::{SimWire, Simulated, Trail, USUAL_SEEDS, never, receive, seeds};

const ANN: &str = "15551111111";
const DAY: Duration = Duration::from_hours(24);

struct Bench {
    net: Net<SimWhatsApp>,
    log: MemoryLog,
    locks: tempfile::TempDir,
    seed: u64,
}

fn settings(change: impl FnOnce(&mut Settings), wire: Arc<dyn Wire>, seed: u64) -> Settings {
    let secret = |text: &str| Secret::copy_of(text.as_bytes());
    let mut settings = Settings {
        account_id: "default".into(),
        secrets: BTreeMap::from([
            ("token".into(), secret("sim-token")),
            ("verifyToken".into(), secret("sim-verify")),
        ]),
        base_url: Some("http://sim".into()),
        webhook: Some(Webhook {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
            path: "/hook".into(),
            secret: secret("sim-secret"),
        }),
        options: Map::from_iter([("phoneNumberId".to_owned(), Value::from("100000000000001"))]),
        wire,
        surroundings: Simulated::surroundings(seed),
    };
    change(&mut settings);
    settings
}

/// Its clock is Meta's, too: that of messages.
impl Bench {
    fn new(options: &Value, seed: u64) -> Self {
        let net = Net::new(Sim::new(SimWhatsApp::new(options).unwrap()), 1_700_000_000_000);
        Self { net, log: MemoryLog::default(), locks: tempfile::tempdir().unwrap(), seed }
    }

    fn channel(&self) -> Channel {
        let platform = open(settings(|_| {}, Arc::new(SimWire(self.net.clone())), self.seed));
        let options = Options {
            account_id: "default".into(),
            log: Arc::new(self.log.clone()),
            surroundings: Simulated::surroundings(self.seed),
            locks: self.locks.path().to_owned(),
        };
        Channel::new(platform.unwrap(), options)
    }

    /// A channel that receives, and whose webhook Meta knows.
    async fn subscribed(&self) -> Arc<Channel> {
        let channel = Arc::new(self.channel());
        let reader = Arc::clone(&channel);
        // The first call connects.
        let first = tokio::spawn(async move { receive(&reader, 1).await });
        while channel.status().state != ChannelState::Running {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.act("subscribe", json!({"url": "http://bot.example/hook"}));
        while self.state()["verified"] != true {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.act("message", json!({"from": ANN, "text": "first", "name": "Ann"}));
        let first = first.await.unwrap().remove(0);
        assert_eq!((first.text.as_str(), first.sender.name.as_deref()), ("first", Some("Ann")));
        channel
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

    fn sent(&self) -> Vec<Value> {
        self.state()["sent"].as_array().cloned().unwrap_or_default()
    }
}

fn text(text: &str) -> OutboundMessage {
    OutboundMessage { to: ANN.into(), text: text.into(), ..OutboundMessage::default() }
}

#[tokio::test(start_paused = true)]
async fn messages_of_all_kinds_come_in_and_answers_go_out() {
    let bench = Bench::new(&json!({}), 1);
    let channel = bench.subscribed().await;
    bench.act("message", json!({"from": ANN, "text": "hello"}));
    let got = receive(&channel, 1).await.remove(0);
    assert_eq!((got.text.as_str(), got.chat.id.as_str(), got.chat.kind), ("hello", ANN, ChatKind::Direct));
    assert!(got.mentions_me && got.timestamp_ms >= 1_700_000_000_000);
    let answer =
        OutboundMessage { reply_to_id: Some(got.message_id.clone()), ..text("**hi** [x](https://e.org)") };
    let receipt = channel.send(answer, None, &never()).await.unwrap();
    assert_eq!((receipt.state, receipt.message_ids.len()), (SendState::Accepted, 1));
    let sent = bench.sent().remove(0);
    assert_eq!(
        (sent["text"]["body"].as_str(), &sent["context"]["message_id"]),
        (Some("*hi* x (https://e.org)"), &json!(got.message_id))
    );
    bench.act("message", json!({"from": ANN, "text": "re", "reply_to": receipt.message_ids[0]}));
    bench.act("react", json!({"from": ANN, "message": receipt.message_ids[0], "emoji": "👍"}));
    bench.act("press", json!({"from": ANN, "message": receipt.message_ids[0], "id": "yes", "title": "Yes"}));
    bench.act("message", json!({"from": ANN, "extra": {"type": "location", "location": {"latitude": 1.5, "longitude": 2, "name": "There"}}}));
    bench.act("message", json!({"from": ANN, "file": {"kind": "document", "mime": "application/pdf", "name": "a.pdf", "caption": "look", "base64": "JVBERi0xLjQK"}}));
    let got = receive(&channel, 5).await;
    assert_eq!(got[0].reply_to_id.as_ref(), Some(&receipt.message_ids[0]));
    assert_eq!(
        (got[1].kind, got[1].text.as_str(), &got[1].message_id),
        (InboundKind::Reaction, "👍", &receipt.message_ids[0])
    );
    assert_eq!((got[2].kind, got[2].text.as_str()), (InboundKind::Callback, "yes"));
    assert_eq!(got[3].text, "Location: 1.5, 2 (There)");
    let file = &got[4].attachments[0];
    assert_eq!((got[4].text.as_str(), file.name.as_deref()), ("look", Some("a.pdf")));
    assert_eq!(&channel.download(file, 1000).await.unwrap()[..], b"%PDF-1.4\n");
    assert_eq!(channel.download(file, 4).await.unwrap_err().code(), Code::Limit);
    let (to, message_id) = (ANN.to_owned(), got[0].message_id.clone());
    channel
        .make(Call::React { to: to.clone(), message_id: message_id.clone(), emoji: "🎉".into() })
        .await
        .unwrap();
    channel.make(Call::Typing { to: to.clone(), thread_id: None }).await.unwrap();
    assert_eq!(bench.state()["read"].as_array().unwrap().len(), 1);
    let edit = Call::Edit { to, message_id, text: "x".into() };
    assert_eq!(channel.make(edit).await.unwrap_err().code(), Code::ChannelSend);
    assert_eq!(channel.status().state, ChannelState::Running);
    channel.close().await;
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn only_what_is_signed_is_believed_and_only_who_has_the_verify_token_gets_the_challenge() {
    let bench = Bench::new(&json!({}), 2);
    let channel = bench.subscribed().await;
    let good = format!("sha256={}", "0".repeat(63));
    for signature in
        [None, Some(""), Some("sha256="), Some("sha1=00"), Some(good.as_str()), Some("sha256=zz")]
    {
        let mut forged = json!({"from": ANN, "text": "evil"});
        if let Some(signature) = signature {
            forged["signature"] = json!(signature);
        }
        bench.act("forge", forged);
    }
    bench.act("message", json!({"from": ANN, "text": "good"}));
    assert_eq!(receive(&channel, 1).await[0].text, "good");
    assert!(tokio::time::timeout(Duration::from_hours(1), channel.next(1)).await.is_err());
    let verifications = bench.state()["verifications"].clone();
    for verification in verifications.as_array().unwrap() {
        assert_eq!(verification["expected"], verification["answered"], "{verification}");
    }
    assert_eq!(bench.broken_rules(), []);
}

#[test]
fn what_bears_no_signature_is_refused_before_it_is_read() {
    let hook = Webhook {
        host: std::net::Ipv4Addr::LOCALHOST.into(),
        port: 0,
        path: "/hook".into(),
        secret: Secret::copy_of(b"secret"),
    };
    let gate = gate(&hook);
    let call = |method: Method, path: &str, signature: Option<&str>| {
        let mut headers = HeaderMap::new();
        if let Some(signature) = signature {
            headers.insert("x-hub-signature-256", signature.parse().unwrap());
        }
        gate(&method, path, &headers)
    };
    // Whether it is right, the body tells.
    let plausible = format!("sha256={}", "0A".repeat(32));
    assert_eq!(call(Method::POST, "/hook", Some(&plausible)), None);
    assert_eq!(call(Method::GET, "/hook", None), None);
    for wrong in [
        None,
        Some(""),
        Some("sha256="),
        Some(&plausible[..70]),
        Some(&plausible[7..]),
        Some(&plausible.replace('A', "g")),
        Some(&plausible.replace("256", "1")),
        Some(&format!("{plausible}00")),
    ] {
        assert_eq!(call(Method::POST, "/hook", wrong), Some(401), "{wrong:?}");
    }
    assert_eq!(call(Method::POST, "/", Some(&plausible)), Some(404));
    assert_eq!(call(Method::PUT, "/hook", Some(&plausible)), Some(405));
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_comes_late_is_said_in_the_status_and_one_that_comes_in_time_to_the_caller() {
    let bench = Bench::new(&json!({}), 6);
    let channel = bench.subscribed().await;
    let receipt = channel.send(text("hi"), None, &never()).await.unwrap();
    assert_eq!((receipt.state, channel.status().error), (SendState::Accepted, None));
    let failed = |id: &str, code: u64| {
        let error = json!({"code": code, "title": "Message undeliverable", "details": "Old app"});
        bench.act("status", json!({"message": id, "to": ANN, "status": "failed", "error": error}));
    };
    // Of somebody else's message nothing is known.
    failed("wamid.other", 131_026);
    failed(&receipt.message_ids[0], 131_026);
    bench.net.until(|sim| (sim.platform.state()["undelivered"] == 0).then_some(())).await;
    let status = channel.status();
    assert_eq!(status.state, ChannelState::Running);
    let error = status.error.unwrap();
    for word in [receipt.message_ids[0].as_str(), "not delivered", "undeliverable: Old app"] {
        assert!(error.contains(word), "{error}");
    }
    // To somebody who did not write: the first word is that it was sent, and the second that it was not.
    let cold = OutboundMessage { to: "15559999999".into(), ..text("cold") };
    let error = channel.send(cold, None, &never()).await.unwrap_err();
    assert!(error.message().contains("131047"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn after_24_hours_a_template_alone_goes_out_and_the_error_says_so() {
    for mode in ["status", "response"] {
        let bench = Bench::new(&json!({"window_error": mode}), 3);
        let channel = bench.subscribed().await;
        channel.send(text("in time"), None, &never()).await.unwrap();
        tokio::time::sleep(DAY).await;
        let error = channel.send(text("late"), None, &never()).await.unwrap_err();
        assert_eq!((error.code(), error.details().status), (Code::ChannelSend, Some(400)), "{mode}");
        for word in ["131047", "24 hours", "extra.template"] {
            assert!(error.message().contains(word), "{mode}: {error}");
        }
        let template = |name: &str| {
            let template = json!({"name": name, "language": {"code": "en_US"}});
            let extra = Map::from_iter([("template".to_owned(), template)]);
            OutboundMessage { extra: Some(Box::new(extra)), ..text("") }
        };
        let receipt = channel.send(template("hello_world"), None, &never()).await.unwrap();
        assert_eq!(receipt.state, SendState::Accepted);
        let error = channel.send(template("none"), None, &never()).await.unwrap_err();
        assert!(error.message().contains("WhatsApp Manager"), "{error}");
        bench.act("message", json!({"from": ANN, "text": "again"}));
        receive(&channel, 1).await;
        channel.send(text("in time again"), None, &never()).await.unwrap();
        let rules: HashSet<_> = bench.broken_rules().into_iter().map(|(rule, _)| rule).collect();
        assert_eq!(rules, HashSet::from(["whatsapp.window", "whatsapp.template"]), "{mode}");
    }
}

#[tokio::test(start_paused = true)]
async fn long_texts_and_files_go_out_within_the_limits_and_no_faster_than_allowed() {
    let bench = Bench::new(&json!({}), 4);
    let channel = bench.subscribed().await;
    let long = "**word** `code` (with a remark)\n".repeat(600);
    let receipt = channel.send(text(&long), None, &never()).await.unwrap();
    let sent = bench.sent();
    assert!(sent.len() == receipt.message_ids.len() && sent.len() > 3);
    let bare = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    let all: String = sent.iter().map(|sent| sent["text"]["body"].as_str().unwrap()).collect();
    assert_eq!(bare(&all), bare(&marks::render(&long, Dialect::WhatsApp)));
    let file = |name: &str, data: &[u8]| OutboundFile {
        data: Bytes::copy_from_slice(data),
        name: name.into(),
        mime_type: None,
    };
    let files =
        vec![file("a.png", b"\x89PNG\r\n\x1a\n0000"), file("b.md", b"# text"), file("c.ogg", b"OggS0000")];
    let message = OutboundMessage { files, ..text("**caption**") };
    let receipt = channel.send(message, None, &never()).await.unwrap();
    assert_eq!(receipt.message_ids.len(), 3);
    let sent = bench.sent().split_off(sent.len());
    assert_eq!(sent[0]["image"]["caption"], "*caption*");
    assert_eq!(
        (&sent[1]["type"], &sent[1]["document"]["filename"], &sent[2]["type"]),
        (&json!("document"), &json!("b.md"), &json!("audio"))
    );
    for n in 0..100 {
        channel.send(text(&n.to_string()), None, &never()).await.unwrap();
    }
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_token_ends_it_and_nothing_waits_for_javascript() {
    let bench = Bench::new(&json!({}), 5);
    let channel = bench.subscribed().await;
    // A minute with nobody who reads.
    for n in 0..600 {
        bench.act("message", json!({"from": ANN, "text": n.to_string()}));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(bench.state()["undelivered"], 0);
    let calls =
        bench.net.with(|sim| sim.log().filter(|entry| matches!(entry.event, Event::Call { .. })).count());
    assert!(calls <= 600 + 8, "{calls} calls: some came twice");
    let got: Vec<_> = receive(&channel, 600).await.into_iter().map(|message| message.text).collect();
    assert_eq!(got, (0..600).map(|n| n.to_string()).collect::<Vec<_>>());

    let stranger = Bench::new(&json!({"token": "other"}), 5);
    let channel = stranger.channel();
    let error = channel.next(1).await.unwrap_err();
    assert_eq!((error.code(), channel.status().state), (Code::ChannelAuth, ChannelState::Failed));
    assert!(!error.message().contains("sim-token"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn whatever_the_network_does_messages_come_once_and_in_order_and_go_out_at_most_once() {
    let seeds = seeds(&[]);
    let few = (seeds.len() as u64) < USUAL_SEEDS;
    let targets = [
        (Point::Call, "hook"),
        (Point::Request, "/messages"),
        (Point::Answer, "/messages"),
        (Point::Answer, "GET /v23.0/100000000000001"),
    ];
    let (mut unknown, mut again) = (0, 0);
    for &seed in &seeds {
        let bench = Bench::new(&json!({"seed": seed}), seed);
        let _trail = Trail(bench.net.clone());
        let channel = bench.subscribed().await;
        let mut overtakes = false;
        for fault in Fault::script(seed, 8, &targets) {
            // Nothing on the way makes two requests of one that has effects, and who refuses has not done it.
            let told = matches!(fault.act, Act::Duplicate)
                || (fault.at == Point::Answer && matches!(fault.act, Act::Status { status: 429, .. }));
            // Meta promises no order of what it had to try again.
            overtakes |= fault.at == Point::Call;
            // Meta hangs up on who does not answer, and tries again.
            let silent = fault.at == Point::Call && matches!(fault.act, Act::HalfOpen);
            if !(silent || told && fault.matches.contains("messages")) {
                bench.net.with(|sim| sim.fault(fault));
            }
        }
        let reader = Arc::clone(&channel);
        let reading = tokio::spawn(async move { receive(&reader, 12).await });
        let mut receipts: Vec<(i64, Result<SendReceipt>)> = Vec::new();
        for n in 0..12 {
            bench.act("message", json!({"from": ANN, "text": n.to_string()}));
            if n % 2 == 0 {
                receipts.push((n, channel.send(text(&format!("answer {n:02}")), None, &never()).await));
            }
            tokio::time::sleep(Duration::from_millis(700 * u64::try_from(n).unwrap())).await;
        }
        let got = tokio::time::timeout(DAY, reading).await;
        let got = got.unwrap_or_else(|_| panic!("seed {seed}: deaf: {:?}", channel.status())).unwrap();
        let mut numbers: Vec<i64> = got.iter().map(|message| message.text.parse().unwrap()).collect();
        again += usize::from(!numbers.is_sorted());
        assert!(overtakes || numbers.is_sorted(), "seed {seed}: {numbers:?}");
        numbers.sort_unstable();
        assert_eq!(numbers, (0..12).collect::<Vec<_>>(), "seed {seed}");
        let sent = bench.sent();
        for (n, receipt) in receipts {
            let times = sent.iter().filter(|sent| sent["text"]["body"] == format!("answer {n:02}")).count();
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
        let more = tokio::time::timeout(Duration::from_hours(2), channel.next(1)).await;
        assert!(more.is_err(), "seed {seed}: a message came a second time");
        channel.close().await;
        assert_eq!(bench.broken_rules(), [], "seed {seed}");
    }
    assert!(few || unknown > 0, "no fate was ever unknown: the faults have gone wrong");
    assert!(few || again > 0, "no notification ever came late: the faults have gone wrong");
}

#[test]
fn options_are_checked_and_secrets_are_never_said() {
    let network = || Arc::new(wire::Network::new(crate::http::HttpOptions::default()));
    let refused = |change: fn(&mut Settings)| open(settings(change, network(), 1)).err();
    assert!(refused(|_| {}).is_none());
    let wrong: [fn(&mut Settings); 7] = [
        |s| _ = s.secrets.remove("token"),
        |s| _ = s.secrets.remove("verifyToken"),
        |s| s.webhook = None,
        |s| _ = s.options.remove("phoneNumberId"),
        |s| _ = s.options.insert("phoneNumberId".into(), "+1 555".into()),
        |s| _ = s.options.insert("apiVersion".into(), "23/../".into()),
        |s| s.base_url = Some("ftp://x".into()),
    ];
    for change in wrong {
        let error = refused(change).unwrap();
        assert_eq!(error.code(), Code::Validation);
        assert!(!error.message().contains("sim-"), "{error}");
    }
}

#[test]
fn only_meta_gets_the_token() {
    let is = |url: &str| is_meta(&Url::parse(url).unwrap(), BASE_URL);
    assert!(
        is("https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=1")
            && is("https://graph.facebook.com/x")
    );
    for url in [
        "http://lookaside.fbsbx.com/",
        "https://fbsbx.com.evil.org/",
        "https://evilfbsbx.com/",
        "https://127.0.0.1/",
    ] {
        assert!(!is(url), "{url}");
    }
}

#[test]
fn who_shows_no_number_is_read_and_answered_by_an_id() {
    let body = json!({"entry": [{"changes": [{"field": "messages", "value": {
        "metadata": {"phone_number_id": "1"},
        "contacts": [{"user_id": "US.134", "profile": {"name": "Ann", "username": "ann"}}],
        "messages": [{"id": "wamid.1", "from_user_id": "US.134", "timestamp": "1", "type": "text", "text": {"body": "hi"}}],
    }}]}]});
    let body = body.to_string();
    let read = inbound::read(body.as_bytes(), "1").messages.remove(0);
    assert_eq!((read.sender.id.as_str(), read.sender.username.as_deref()), ("US.134", Some("ann")));
    assert_eq!(addressed(&read.chat.id)["recipient"], "US.134");
    assert_eq!(addressed("+1 (555) 111-1111")["to"], ANN);
    assert!(inbound::read(body.as_bytes(), "2").messages.is_empty());
    assert!(inbound::read(b"\xff{", "1").messages.is_empty());
}

#[test]
fn whatever_a_part_of_a_notification_is_the_other_parts_are_read() {
    let value = |messages: Value| {
        json!({"metadata": {"phone_number_id": "1"}, "contacts": [{"wa_id": "49", "profile": {"name": "A"}}],
            "messages": messages, "statuses": [{"id": "w", "status": "failed", "errors": [{"code": 1, "title": "t"}]}]})
    };
    let entry =
        |messages: Value| json!({"id": "0", "changes": [{"field": "messages", "value": value(messages)}]});
    let text = |id: &str| json!({"from": "49", "id": id, "timestamp": "1700000000", "type": "text", "text": {"body": "b"}});
    let others = json!([
        {"from": "49", "id": "i", "type": "image", "image": {"id": "1", "mime_type": "a/b"}, "context": {"id": "c"}},
        {"from": "49", "id": "l", "type": "location", "location": {"latitude": 1, "longitude": 2, "name": "n"}},
        {"from": "49", "id": "o", "type": "order", "order": {"product_items": [1], "text": "t"}},
        {"from": "49", "id": "n", "type": "interactive", "interactive": {"list_reply": {"id": "x"}}},
        {"from": "49", "id": "k", "type": "contacts", "contacts": [{"phones": [{"phone": "1"}]}]},
        text("t")]);
    for seed in 0..2 * crate::channels::testing::MUTANTS {
        let strange = crate::channels::testing::mutated(&entry(others.clone()), seed);
        let body = json!({"object": "x", "entry": [strange, entry(json!([text("good")]))]});
        let read = inbound::read(body.to_string().as_bytes(), "1");
        assert_eq!(read.messages.last().map(|last| last.id.as_str()), Some("good"), "{strange}");
        // Within an entry, too.
        let strange = crate::channels::testing::mutated(&others, seed);
        if let Some(others) = strange.as_array() {
            let messages: Vec<_> = others.iter().cloned().chain([text("good")]).collect();
            let read = inbound::read(json!({"entry": [entry(messages.into())]}).to_string().as_bytes(), "1");
            assert_eq!(read.messages.last().map(|last| last.id.as_str()), Some("good"), "{strange}");
        }
    }
    let nulls = json!({"entry": [{"changes": [{"value": {"metadata": {"phone_number_id": "1"}, "contacts": null,
        "statuses": null, "messages": [text("good")]}}]}]});
    assert_eq!(inbound::read(nulls.to_string().as_bytes(), "1").messages.len(), 1);
}

#[test]
fn an_empty_app_secret_is_none() {
    let secret = |text: &str| Secret::copy_of(text.as_bytes());
    let open = |app: &str| {
        super::open(Settings {
            account_id: "default".into(),
            secrets: BTreeMap::from([("token".into(), secret("t")), ("verifyToken".into(), secret("v"))]),
            base_url: None,
            webhook: Some(Webhook {
                host: std::net::IpAddr::from([127, 0, 0, 1]),
                port: 0,
                path: "/".into(),
                secret: secret(app),
            }),
            options: Map::from_iter([("phoneNumberId".to_owned(), "1".into())]),
            wire: Arc::new(wire::Network::new(crate::http::HttpOptions::default())),
            surroundings: crate::channels::system(),
        })
    };
    assert!(open("s").is_ok());
    assert_eq!(open("").err().unwrap().code(), Code::Validation);
}
