//! Against the simulated Slack, under simulated time.

use std::collections::BTreeMap;

use openclaw_channel_sim::sim::{Act, Event, Fault, Point};
use openclaw_channel_sim::slack::Slack as SimSlack;
use openclaw_channel_sim::wire::Frame as SimFrame;
use openclaw_channel_sim::{Net, Platform as _, Sim};
use serde_json::Map;
use tokio::time::Instant;

use super::*;
use crate::channels::channel::{Channel, ChannelState, Options, Status};
use crate::channels::log::memory::MemoryLog;
use crate::channels::message::{ChatKind, InboundKind, SendReceipt, SendState};
use crate::channels::testing::{SimWire, Simulated, Trail, USUAL_SEEDS, never, receive, seeds, text};

struct Bench {
    net: Net<SimSlack>,
    log: MemoryLog,
    locks: tempfile::TempDir,
    seed: u64,
}

impl Bench {
    fn new(options: &Value, seed: u64) -> Self {
        let net = Net::new(Sim::new(SimSlack::new(options).unwrap()), 1_800_000_000_000);
        let bench = Self { net, log: MemoryLog::default(), locks: tempfile::tempdir().unwrap(), seed };
        bench.act("channel", json!({"id": "C1", "name": "general"}));
        bench
    }

    fn channel(&self) -> Channel {
        let secret = |text: &str| Secret::copy_of(text.as_bytes());
        let platform = open(Settings {
            account_id: "default".into(),
            secrets: BTreeMap::from([
                ("token".into(), secret("xoxb-sim")),
                ("appToken".into(), secret("xapp-sim")),
            ]),
            base_url: Some("http://sim/api".into()),
            webhook: None,
            options: Map::new(),
            wire: Arc::new(SimWire(self.net.clone())),
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

    /// Texts of the bot's own messages in a channel.
    fn shown(&self, channel: &str) -> Vec<String> {
        let state = self.state();
        let messages = state["messages"][channel].as_array().cloned().unwrap_or_default();
        let mine = messages.iter().filter(|message| message["user"] == "U0BOT");
        mine.map(|message| message["text"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// WebSockets that the platform has open, at the most, over all that was logged.
    fn most_sockets(&self) -> usize {
        let (mut open, mut most) = (std::collections::HashSet::new(), 0);
        self.net.with(|sim| {
            for entry in sim.log() {
                match &entry.event {
                    Event::Out { id, label, .. } if label == "hello" => _ = open.insert(*id),
                    Event::Gone { id, .. } | Event::Ended { id, .. } => _ = open.remove(id),
                    _ => {}
                }
                most = most.max(open.len());
            }
        });
        most
    }

    /// Texts of people's messages in the order in which they first went over a connection that had said hello: before, nobody
    /// listens to it.
    fn carried(&self) -> Vec<String> {
        let mut seen = Vec::new();
        let mut greeted = std::collections::HashSet::new();
        self.net.with(|sim| {
            for entry in sim.log() {
                let Event::Out { id, label, frame: Some(SimFrame::Text(frame)) } = &entry.event else {
                    continue;
                };
                if label == "hello" {
                    greeted.insert(*id);
                }
                if label != "events_api message" || !greeted.contains(id) {
                    continue;
                }
                let value: Value = serde_json::from_str(frame).unwrap();
                let event = &value["payload"]["event"];
                let text = event["text"].as_str().unwrap_or_default().to_owned();
                if event["user"] != "U0BOT" && !seen.contains(&text) {
                    seen.push(text);
                }
            }
        });
        seen
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_comes_in_and_an_answer_goes_out() {
    let bench = Bench::new(&json!({}), 1);
    let channel = bench.channel();
    let sent = bench.act("message", json!({"from": "U7", "text": "1 &lt; 2"}));
    let got = receive(&channel, 1).await.remove(0);
    assert_eq!((got.text.as_str(), got.chat.id.as_str(), got.sender.id.as_str()), ("1 < 2", "DU7", "U7"));
    assert!(got.mentions_me && got.chat.kind == ChatKind::Direct && !got.sender.is_bot);
    assert_eq!(got.message_id, sent["ts"].as_str().unwrap());
    assert!(got.timestamp_ms >= 1_800_000_000_000);
    let receipt = channel.send(text("DU7", "**hi** <there> & `x`"), None, &never()).await.unwrap();
    assert_eq!((receipt.state, receipt.message_ids.len()), (SendState::Accepted, 1));
    assert_eq!(bench.shown("DU7"), ["*hi* &lt;there&gt; &amp; `x`"]);
    let (to, id) = ("DU7".to_owned(), receipt.message_ids[0].clone());
    channel.make(Call::Edit { to: "U7".into(), message_id: id, text: "_new_".into() }).await.unwrap();
    assert_eq!(bench.shown("DU7"), ["_new_"]);
    let react = Call::React { to: to.clone(), message_id: got.message_id.clone(), emoji: "👀".into() };
    channel.make(react.clone()).await.unwrap();
    channel.make(react).await.unwrap();
    assert_eq!(bench.state()["messages"]["DU7"][0]["reactions"][0]["name"], "eyes");
    // A sign of typing that would have to wait is not sent.
    tokio::time::sleep(Duration::from_secs(2)).await;
    channel.make(Call::Typing { to: to.clone(), thread_id: None }).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    channel.make(Call::Typing { to, thread_id: Some(got.message_id) }).await.unwrap();
    assert_eq!(bench.state()["statuses"].as_array().unwrap().len(), 1);
    assert_eq!(channel.status().state, ChannelState::Running);
    channel.close().await;
    assert_eq!(bench.state()["sockets"], 0);
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn channels_threads_mentions_edits_reactions_commands_buttons_and_files_are_read() {
    let bench = Bench::new(&json!({}), 2);
    let channel = bench.channel();
    let root = bench.act("message", json!({"channel": "C1", "from": "U8", "text": "just talk"}));
    let got = receive(&channel, 1).await.remove(0);
    assert!(got.chat.kind == ChatKind::Channel && !got.mentions_me && got.thread_id.is_none());
    bench.act(
        "message",
        json!({"channel": "C1", "from": "U8", "text": "hey <@U0BOT>", "thread_ts": root["ts"]}),
    );
    let got = receive(&channel, 1).await.remove(0);
    // It came twice: as a message, and as a mention.
    assert_eq!((got.text.as_str(), got.mentions_me), ("hey @sim", true));
    assert_eq!(got.thread_id.as_deref(), root["ts"].as_str());
    let answer = OutboundMessage { thread_id: got.thread_id.clone(), ..text("C1", "in the thread") };
    channel.send(answer, None, &never()).await.unwrap();
    let messages = bench.state()["messages"]["C1"].clone();
    assert_eq!(messages.as_array().unwrap().last().unwrap()["thread_ts"], root["ts"]);
    bench.act("edit", json!({"channel": "C1", "ts": root["ts"], "text": "changed"}));
    let got = receive(&channel, 1).await.remove(0);
    assert_eq!((got.kind, got.text.as_str()), (InboundKind::Edit, "changed"));
    bench.act("react", json!({"channel": "C1", "ts": root["ts"], "from": "U8", "name": "thumbsup"}));
    bench.act("unreact", json!({"channel": "C1", "ts": root["ts"], "from": "U8", "name": "thumbsup"}));
    let got = receive(&channel, 2).await;
    assert_eq!((got[0].kind, got[0].text.as_str(), got[1].text.as_str()), (InboundKind::Reaction, "👍", ""));
    bench.act("command", json!({"channel": "C1", "from": "U8", "command": "/ask", "text": "me now"}));
    let got = receive(&channel, 1).await.remove(0);
    assert_eq!((got.kind, got.text.as_str(), got.mentions_me), (InboundKind::Command, "/ask me now", true));
    let button =
        json!([{"type": "actions", "elements": [{"type": "button", "action_id": "yes", "value": "1"}]}]);
    let extra = Map::from_iter([("blocks".to_owned(), button)]);
    let asked = OutboundMessage { extra: Some(Box::new(extra)), ..text("C1", "sure?") };
    let receipt = channel.send(asked, None, &never()).await.unwrap();
    let press = json!({"channel": "C1", "ts": receipt.message_ids[0], "from": "U8", "action_id": "yes", "value": "1"});
    bench.act("press", press);
    let got = receive(&channel, 1).await.remove(0);
    assert_eq!(
        (got.kind, got.text.as_str(), got.message_id.as_str()),
        (InboundKind::Callback, "1", receipt.message_ids[0].as_str())
    );
    bench.act("message", json!({"from": "U8", "text": "look", "files": [{"name": "a.pdf", "mime": "application/pdf", "base64": "JVBERi0xLjQK"}]}));
    let got = receive(&channel, 1).await.remove(0);
    let file = &got.attachments[0];
    assert_eq!(
        (file.name.as_deref(), file.mime_type.as_deref(), file.size),
        (Some("a.pdf"), Some("application/pdf"), Some(9))
    );
    assert_eq!(&channel.download(file, 1000).await.unwrap()[..], b"%PDF-1.4\n");
    assert_eq!(channel.download(file, 4).await.unwrap_err().code(), Code::Limit);
    channel.close().await;
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn long_texts_and_files_go_out_within_the_limits() {
    let bench = Bench::new(&json!({}), 3);
    let channel = bench.channel();
    bench.act("message", json!({"from": "U7", "text": "hello"}));
    receive(&channel, 1).await;
    let long = "**word** <tag> & `code` (with a remark)\n".repeat(400);
    let receipt = channel.send(text("U7", &long), None, &never()).await.unwrap();
    let shown = bench.shown("DU7");
    assert_eq!((receipt.state, shown.len()), (SendState::Accepted, receipt.message_ids.len()));
    assert!(shown.len() > 3 && shown.iter().all(|text| Unit::Utf16.width(text) <= TEXT));
    let bare = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    assert_eq!(bare(&shown.concat()), bare(&marks::render(&long, Dialect::Slack)));
    let file = |name: &str, data: &[u8]| OutboundFile {
        data: Bytes::copy_from_slice(data),
        name: name.into(),
        mime_type: None,
    };
    let files = vec![file("a.png", b"\x89PNG\r\n\x1a\n0000"), file("ü \"b\".txt", b"text")];
    let message = OutboundMessage { files, ..text("U7", "caption") };
    let receipt = channel.send(message, None, &never()).await.unwrap();
    assert_eq!(receipt.message_ids.len(), 2);
    let last = bench.state()["messages"]["DU7"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        (last["text"].as_str(), last["files"][1]["name"].as_str()),
        (Some("caption"), Some("ü \"b\".txt"))
    );
    let error = channel.send(text("C404", "x"), None, &never()).await.unwrap_err();
    assert_eq!(error.code(), Code::ChannelSend);
    assert!(error.message().contains("channel_not_found"), "{error}");
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn nothing_waits_for_javascript_and_connections_are_replaced_before_they_end() {
    // Ten connections' lives, with somebody who writes all the time, and nobody who reads.
    let bench = Bench::new(&json!({"lifetime_ms": 300_000}), 4);
    let channel = Arc::new(bench.channel());
    bench.act("message", json!({"from": "U7", "text": "first"}));
    receive(&channel, 1).await;
    for n in 0..3000 {
        bench.act("message", json!({"channel": "C1", "from": "U7", "text": n.to_string()}));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let state = bench.state();
    assert_eq!(
        (state["unacknowledged"].as_array().unwrap().len(), state["lost"].as_array().unwrap().len()),
        (0, 0)
    );
    assert!(bench.most_sockets() <= 2);
    let got: Vec<_> = receive(&channel, 3000).await.into_iter().map(|message| message.text).collect();
    assert_eq!(got, (0..3000).map(|n| n.to_string()).collect::<Vec<_>>());
    channel.close().await;
    assert_eq!(bench.state()["sockets"], 0);
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn what_a_full_disk_does_not_take_comes_as_soon_as_it_does() {
    // The second time it is more than is held.
    for count in [20, 1500] {
        let bench = Bench::new(&json!({}), 9);
        let channel = Arc::new(bench.channel());
        bench.act("message", json!({"from": "U7", "text": "first"}));
        receive(&channel, 1).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        bench.log.fill(true);
        // Slack gives each of them up after three seconds, and tells it again a minute later.
        for n in 0..count {
            bench.act("message", json!({"from": "U7", "text": n.to_string()}));
            if n % (count / 20) == 0 {
                tokio::time::sleep(Duration::from_millis(800)).await;
            }
        }
        let Status { state, error, .. } = channel.status();
        if count < 1024 {
            assert_eq!(state, ChannelState::Running);
            let error = error.unwrap();
            assert!(error.starts_with("messages that wait for the disk: 20. "), "{error}");
        } else {
            assert_eq!(state, ChannelState::Backoff);
        }
        bench.log.fill(false);
        let free = Instant::now();
        let mut got: Vec<usize> = Vec::new();
        for message in receive(&channel, count).await {
            got.push(message.text.parse().unwrap());
        }
        let waited = free.elapsed();
        if count < 1024 {
            assert!(waited < Duration::from_secs(2), "{waited:?}");
            assert_eq!(channel.status().error, None);
            assert_eq!(got, (0..count).collect::<Vec<_>>());
        } else {
            // What was held is in order, and the rest is what Slack tells again.
            assert!(got.iter().take(1024).copied().eq(0..1024), "{got:?}");
            assert!(waited < Duration::from_mins(6), "{waited:?}");
            got.sort_unstable();
            assert_eq!(got, (0..count).collect::<Vec<_>>());
        }
        // Slack tells again what was not acknowledged in time. It is known.
        tokio::time::sleep(Duration::from_mins(7)).await;
        assert_eq!(channel.status().waiting, 0);
        let state = bench.state();
        assert_eq!((&state["unacknowledged"], &state["lost"]), (&json!([]), &json!([])));
        channel.close().await;
        assert!(bench.broken_rules().iter().all(|(rule, _)| *rule == "slack.ack-deadline"));
    }
}

#[tokio::test(start_paused = true)]
async fn notices_half_open_connections_and_wrong_tokens_are_dealt_with() {
    let bench = Bench::new(&json!({}), 5);
    let channel = bench.channel();
    bench.act("message", json!({"from": "U7", "text": "0"}));
    receive(&channel, 1).await;
    for (n, reason) in ["warning", "refresh_requested", "half_open", "cut"].into_iter().enumerate() {
        match reason {
            "half_open" => bench.net.with(|sim| sim.sockets().into_iter().for_each(|id| sim.half_open(id))),
            "cut" => bench.net.with(|sim| sim.sockets()).into_iter().for_each(|id| bench.net.cut(id)),
            reason => _ = bench.act("disconnect", json!({"reason": reason})),
        }
        bench.act("message", json!({"from": "U7", "text": n.to_string()}));
        assert_eq!(receive(&channel, 1).await[0].text, n.to_string(), "{reason}");
        tokio::time::sleep(Duration::from_mins(2)).await;
        assert_eq!(bench.state()["sockets"], 1, "{reason}");
    }
    assert!(bench.most_sockets() <= 3);
    bench.act("disconnect", json!({"reason": "link_disabled"}));
    let error = channel.next(1).await.unwrap_err();
    assert_eq!(error.code(), Code::ChannelAuth);
    assert!(error.message().contains("Socket Mode"), "{error}");
    assert_eq!((channel.status().state, bench.broken_rules()), (ChannelState::Failed, vec![]));

    let stranger = Bench::new(&json!({"app_token": "xapp-other"}), 5);
    let channel = stranger.channel();
    let error = channel.next(1).await.unwrap_err();
    assert_eq!(error.code(), Code::ChannelAuth);
    assert!(!error.message().contains("xapp-sim"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn whatever_the_network_does_messages_come_once_and_in_order_and_go_out_at_most_once() {
    let seeds = seeds(&[2116, 3563]);
    let few = (seeds.len() as u64) < USUAL_SEEDS;
    let targets = [
        (Point::Request, "apps.connections.open"),
        (Point::Answer, "apps.connections.open"),
        (Point::Answer, "auth.test"),
        (Point::Request, "/link/"),
        (Point::Out, "hello"),
        (Point::Out, "events_api"),
        (Point::Out, "ping"),
        (Point::In, "envelope_id"),
        (Point::Request, "chat.postMessage"),
        (Point::Answer, "chat.postMessage"),
    ];
    let mut unknown = 0;
    let mut again = 0;
    for &seed in &seeds {
        let bench = Bench::new(&json!({"seed": seed}), seed);
        let _trail = Trail(bench.net.clone());
        for fault in Fault::script(seed, 8, &targets) {
            // Nothing on the way makes two requests of one that has effects, and who refuses has not done it. A
            // WebSocket is a stream: nothing in it is overtaken.
            let told = matches!(fault.act, Act::Duplicate)
                || (fault.at == Point::Answer && matches!(fault.act, Act::Status { status: 429, .. }));
            let overtakes =
                fault.at == Point::Out && matches!(fault.act, Act::Reorder { .. } | Act::Stall { .. });
            if !(overtakes || told && fault.matches.contains("post")) {
                bench.net.with(|sim| sim.fault(fault));
            }
        }
        let channel = Arc::new(bench.channel());
        let reader = Arc::clone(&channel);
        let reading = tokio::spawn(async move { receive(&reader, 12).await });
        let mut receipts: Vec<(i64, Result<SendReceipt>)> = Vec::new();
        for n in 0..12 {
            // Slack gives an event up after three more tries, of which the last comes after six minutes.
            bench.net.until(|sim| (!sim.sockets().is_empty()).then_some(())).await;
            bench.act("message", json!({"channel": "C1", "from": "U7", "text": n.to_string()}));
            if n % 2 == 0 {
                let sent = channel.send(text("C1", &format!("answer {n:02}")), None, &never()).await;
                receipts.push((n, sent));
            }
            tokio::time::sleep(Duration::from_millis(700 * u64::try_from(n).unwrap())).await;
        }
        let lost = || {
            let lost = bench.state()["lost"].as_array().cloned().unwrap_or_default();
            lost.iter().any(|payload| payload["event"]["user"] == "U7")
        };
        let got = tokio::time::timeout(Duration::from_hours(2), reading).await;
        let Ok(got) = got else {
            // What no try of Slack's ever got through to us is not ours to lose.
            assert!(lost(), "seed {seed}: deaf: {:?}", channel.status());
            channel.close().await;
            continue;
        };
        let got: Vec<_> = got.unwrap().into_iter().map(|message| message.text).collect();
        assert_eq!(got, bench.carried(), "seed {seed}: order");
        let mut sorted: Vec<i64> = got.iter().map(|text| text.parse().unwrap()).collect();
        again += usize::from(!sorted.is_sorted());
        sorted.sort_unstable();
        assert_eq!(sorted, (0..12).collect::<Vec<_>>(), "seed {seed}");
        let shown = bench.shown("C1");
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
        // Nothing more comes: everything was there once.
        let more = tokio::time::timeout(Duration::from_mins(10), channel.next(1)).await;
        assert!(more.is_err(), "seed {seed}: a message came a second time");
        assert!(bench.most_sockets() <= 10, "seed {seed}");
        channel.close().await;
        // An acknowledgement that came twice, and a connection that was held up until its ticket was void, are the
        // network's doing.
        let network = ["slack.ack", "slack.ticket"];
        let rules: Vec<_> =
            bench.broken_rules().into_iter().filter(|(rule, _)| !network.contains(rule)).collect();
        assert_eq!(rules, [], "seed {seed}");
    }
    assert!(few || unknown > 0, "no fate was ever unknown: the faults have gone wrong");
    assert!(few || again > 0, "no envelope ever came a second time: the faults have gone wrong");
}

#[test]
fn options_are_checked_and_tokens_are_never_said() {
    let settings = |token: &str, app: &str, base: Option<&str>| {
        let secret = |text: &str| Secret::copy_of(text.as_bytes());
        open(Settings {
            account_id: "default".into(),
            secrets: BTreeMap::from([("token".into(), secret(token)), ("appToken".into(), secret(app))]),
            base_url: base.map(str::to_owned),
            webhook: None,
            options: Map::new(),
            wire: Arc::new(wire::Network::new(crate::http::HttpOptions::default())),
            surroundings: crate::channels::system(),
        })
        .err()
    };
    assert!(settings("xoxb-1-secret", "xapp-1-secret", None).is_none());
    for error in [
        settings("xapp-1-secret", "xapp-1-secret", None),
        settings("xoxb-1-secret", "xoxb-1-secret", None),
        settings("xoxb-1-secret\n", "xapp-1-secret", None),
        settings("xoxb-1-secret", "xapp-1-secret", Some("ftp://x")),
    ] {
        let error = error.unwrap();
        assert_eq!(error.code(), Code::Validation);
        assert!(!error.message().contains("secret"), "{error}");
    }
}

#[test]
fn only_slack_gets_the_token_and_files() {
    let slack = |base: &str| Slack {
        token: Secret::copy_of(b"xoxb-"),
        app_token: Secret::copy_of(b"xapp-"),
        base: base.into(),
        wire: Arc::new(wire::Network::new(crate::http::HttpOptions::default())),
        surroundings: crate::channels::system(),
        me: OnceCell::new(),
        direct: Mutex::default(),
        pending: Mutex::default(),
    };
    let slack = slack(BASE_URL);
    let is = |url: &str| slack.is_slack(&Url::parse(url).unwrap());
    assert!(is("https://files.slack.com/files-pri/T1-F1/a.png") && is("https://slack.com/x"));
    for url in [
        "http://files.slack.com/x",
        "https://files.slack.com.evil.org/",
        "https://evilslack.com/",
        "https://127.0.0.1/",
    ] {
        assert!(!is(url), "{url}");
    }
}

#[tokio::test(start_paused = true)]
async fn for_a_minute_nobody_takes_a_message_and_each_is_acknowledged_all_the_same() {
    let bench = Bench::new(&json!({}), 61);
    let channel = bench.channel();
    bench.act("message", json!({"channel": "C1", "from": "U1", "text": "first"}));
    assert_eq!(channel.next(1).await.unwrap().unwrap().len(), 1);
    for n in 0..60 {
        bench.act("message", json!({"channel": "C1", "from": "U1", "text": n.to_string()}));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!((&bench.state()["unacknowledged"], &bench.state()["lost"]), (&json!([]), &json!([])));
    assert_eq!(channel.status().waiting, 60);
    let got = channel.next(100).await.unwrap().unwrap();
    let text = |delivery: &crate::channels::inbox::Delivery| {
        serde_json::from_str::<Value>(&delivery.json).unwrap()["text"].as_str().unwrap().to_owned()
    };
    assert_eq!(got.iter().map(text).collect::<Vec<_>>(), (0..60).map(|n| n.to_string()).collect::<Vec<_>>());
    channel.close().await;
    assert_eq!(bench.broken_rules(), []);
}

#[test]
fn no_envelope_makes_the_adapter_panic() {
    let me: Me = serde_json::from_value(json!({"user_id": "U0", "user": "bot", "bot_id": "B0"})).unwrap();
    let file = json!({"id": "F1", "name": "../x", "mimetype": "image/png", "size": 3, "mode": "hosted"});
    let message = json!({"type": "message", "channel": "C1", "channel_type": "channel", "user": "U1", "ts": "1700000000.000100",
        "thread_ts": "1700000000.000000", "text": "<@U0|bot> hi <https://e.org|x>", "files": [file],
        "user_profile": {"real_name": "A"}});
    let mut edited = message.clone();
    edited["edited"] = json!({"ts": "1700000001.0"});
    for (kind, payload) in [
        ("events_api", json!({"event": message})),
        (
            "events_api",
            json!({"event": {"type": "message", "subtype": "message_changed", "channel": "C1", "message": edited}}),
        ),
        (
            "events_api",
            json!({"event": {"type": "reaction_added", "user": "U1", "reaction": "eyes", "event_ts": "1.2",
            "item": {"channel": "C1", "ts": "1.1"}}}),
        ),
        (
            "slash_commands",
            json!({"channel_id": "C1", "trigger_id": "1", "command": "/go", "text": "x", "user_id": "U1"}),
        ),
        (
            "interactive",
            json!({"trigger_id": "1", "user": {"id": "U1"}, "channel": {"id": "C1"}, "message": {"ts": "1.1"},
            "actions": [{"action_id": "a", "value": "v"}]}),
        ),
    ] {
        let raw = serde_json::value::RawValue::from_string(payload.to_string()).unwrap();
        assert!(inbound::read(kind, Some(&raw), &me, 1).is_some(), "{payload}");
        for seed in 0..crate::channels::testing::MUTANTS {
            let strange = crate::channels::testing::mutated(&payload, seed);
            let raw = serde_json::value::RawValue::from_string(strange.to_string()).unwrap();
            if let Some(read) = inbound::read(kind, Some(&raw), &me, 1) {
                assert!(
                    !read.id.is_empty() && !read.chat.id.is_empty() && !read.sender.id.is_empty(),
                    "{strange}"
                );
            }
        }
    }
}
