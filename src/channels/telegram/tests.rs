//! Against the simulated Bot API, under simulated time.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use openclaw_channel_sim::sim::{Act, Fault, Point};
use openclaw_channel_sim::telegram::Telegram as SimTelegram;
use openclaw_channel_sim::{Net, Platform as _, Sim};

use super::*;
use crate::channels::channel::{Channel, ChannelState, Options};
use crate::channels::log::memory::MemoryLog;
use crate::channels::message::{InboundKind, InboundMessage, SendReceipt, SendState};
use crate::channels::testing::{SimWire, Simulated, Trail, USUAL_SEEDS, never, receive, seeds};

const TOKEN: &str = "123456:sim-token";

struct Bench {
    net: Net<SimTelegram>,
    log: MemoryLog,
    locks: tempfile::TempDir,
    seed: u64,
}

impl Bench {
    fn new(options: &Value, seed: u64) -> Self {
        let net = Net::new(Sim::new(SimTelegram::new(options).unwrap()), 1_800_000_000_000);
        Self { net, log: MemoryLog::default(), locks: tempfile::tempdir().unwrap(), seed }
    }

    fn platform(&self, webhook: bool, options: Value) -> Result<Box<dyn Platform>> {
        self.platform_over(Arc::new(SimWire(self.net.clone())), webhook, options)
    }

    fn platform_over(&self, wire: Arc<dyn Wire>, webhook: bool, options: Value) -> Result<Box<dyn Platform>> {
        let Value::Object(mut options) = options else { unreachable!() };
        if webhook {
            options.insert("webhookUrl".into(), "http://bot.example/hook".into());
        }
        open(Settings {
            account_id: "default".into(),
            secrets: BTreeMap::from([("token".into(), Secret::copy_of(TOKEN.as_bytes()))]),
            base_url: Some("http://sim".into()),
            webhook: webhook.then(|| port("sim-secret")),
            options,
            wire,
            surroundings: Simulated::surroundings(self.seed),
        })
    }

    fn channel(&self) -> Channel {
        self.channel_by(false)
    }

    fn channel_by(&self, webhook: bool) -> Channel {
        self.channel_of(self.platform(webhook, json!({})).unwrap())
    }

    fn channel_over(&self, wire: Arc<dyn Wire>) -> Channel {
        self.channel_of(self.platform_over(wire, false, json!({})).unwrap())
    }

    fn channel_of(&self, platform: Box<dyn Platform>) -> Channel {
        let options = Options {
            account_id: "default".into(),
            log: Arc::new(self.log.clone()),
            surroundings: Simulated::surroundings(self.seed),
            locks: self.locks.path().to_owned(),
        };
        Channel::new(platform, options)
    }

    fn write(&self, arguments: &Value) -> Value {
        self.net.control("message", arguments).unwrap()
    }

    fn broken_rules(&self) -> Vec<(&'static str, String)> {
        self.net.with(|sim| sim.violations())
    }

    /// Texts of the bot's own messages in a chat.
    fn shown(&self, chat: i64) -> Vec<String> {
        let state = self.net.with(|sim| sim.platform.state());
        let messages = state["chats"][chat.to_string()]["messages"].as_array().cloned().unwrap_or_default();
        let mine = messages.iter().filter(|message| message["from"]["id"] == 123_456);
        mine.map(|message| {
            let text = message.get("text").or_else(|| message.get("caption"));
            text.and_then(Value::as_str).unwrap_or_default().to_owned()
        })
        .collect()
    }
}

fn port(secret: &str) -> Webhook {
    let secret = Secret::copy_of(secret.as_bytes());
    Webhook { host: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 0, path: "/hook".into(), secret }
}

fn text(to: i64, text: &str) -> OutboundMessage {
    OutboundMessage { to: to.to_string(), text: text.into(), ..OutboundMessage::default() }
}

#[tokio::test(start_paused = true)]
async fn a_message_comes_in_and_an_answer_goes_out() {
    let bench = Bench::new(&json!({}), 1);
    let channel = bench.channel();
    let sent = bench.write(&json!({"from": 7, "text": "hello"}));
    let got = receive(&channel, 1).await.remove(0);
    assert_eq!((got.text.as_str(), got.chat.id.as_str(), got.sender.id.as_str()), ("hello", "7", "7"));
    assert!(got.mentions_me);
    assert_eq!(got.message_id, sent["message_id"].to_string());
    let answer =
        OutboundMessage { reply_to_id: Some(got.message_id.clone()), ..text(7, "**hi** <there> & `x`") };
    let receipt = channel.send(answer, None, &never()).await.unwrap();
    assert_eq!((receipt.state, receipt.message_ids.len()), (SendState::Accepted, 1));
    assert_eq!(bench.shown(7), ["hi <there> & x"]);
    let to = "7".to_owned();
    let edit =
        Call::Edit { to: to.clone(), message_id: receipt.message_ids[0].clone(), text: "_new_".into() };
    channel.make(edit.clone()).await.unwrap();
    channel.make(edit).await.unwrap();
    assert_eq!(bench.shown(7), ["new"]);
    channel
        .make(Call::React { to: to.clone(), message_id: got.message_id, emoji: "👍".into() })
        .await
        .unwrap();
    channel.make(Call::Typing { to, thread_id: None }).await.unwrap();
    assert_eq!(channel.status().state, ChannelState::Running);
    channel.close().await;
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn groups_topics_mentions_commands_media_and_buttons_are_read() {
    let bench = Bench::new(&json!({"privacy": false, "username": "simbot"}), 2);
    bench
        .net
        .control("chat", &json!({"id": -100_500, "type": "supergroup", "title": "G", "is_forum": true}))
        .unwrap();
    let topic = bench.net.control("topic", &json!({"chat": -100_500, "name": "T"})).unwrap();
    let group = |more: &Value| {
        let mut message = json!({"chat": -100_500, "from": 8});
        for (name, value) in more.as_object().unwrap() {
            message[name] = value.clone();
        }
        bench.write(&message);
    };
    group(&json!({"text": "just talk"}));
    group(&json!({"text": "hey @simbot"}));
    group(&json!({"text": "/start@simbot now"}));
    group(&json!({"text": "/start@otherbot now"}));
    group(&json!({"text": "in topic", "thread": topic["thread"]}));
    bench.write(&json!({"from": 7, "text": "look", "media": {"kind": "photo", "size": 2000}}));
    bench.write(&json!({"from": 7, "media": {"kind": "document", "name": "a.pdf", "mime": "application/pdf", "base64": "JVBERi0xLjQK"}}));
    let channel = bench.channel();
    let got = receive(&channel, 7).await;
    assert!(got[0].chat.kind == crate::channels::message::ChatKind::Group && !got[0].mentions_me);
    assert_eq!(got[0].chat.title.as_deref(), Some("G"));
    assert!(got[1].mentions_me);
    assert_eq!(
        (got[2].kind, got[2].text.as_str(), got[2].mentions_me),
        (InboundKind::Command, "/start now", true)
    );
    assert_eq!((got[3].kind, got[3].mentions_me), (InboundKind::Message, false));
    assert_eq!(got[4].thread_id, Some(topic["thread"].to_string()));
    assert_eq!((got[5].text.as_str(), got[5].attachments.len()), ("look", 1));
    let file = &got[6].attachments[0];
    assert_eq!((file.name.as_deref(), file.mime_type.as_deref()), (Some("a.pdf"), Some("application/pdf")));
    assert_eq!(&channel.download(file, 1000).await.unwrap()[..], b"%PDF-1.4\n");
    assert_eq!(channel.download(file, 4).await.unwrap_err().code(), Code::Limit);
    let markup = json!({"inline_keyboard": [[{"text": "Yes", "callback_data": "yes"}]]});
    let extra = Map::from_iter([("replyMarkup".to_owned(), markup)]);
    let asked = OutboundMessage { extra: Some(Box::new(extra)), ..text(7, "sure?") };
    let receipt = channel.send(asked, None, &never()).await.unwrap();
    let id: i64 = receipt.message_ids[0].parse().unwrap();
    bench.net.control("press", &json!({"chat": 7, "message_id": id, "from": 7, "data": "yes"})).unwrap();
    let pressed = receive(&channel, 1).await.remove(0);
    assert_eq!((pressed.kind, pressed.text.as_str()), (InboundKind::Callback, "yes"));
    tokio::time::sleep(Duration::from_mins(1)).await;
    channel.close().await;
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn long_texts_files_and_albums_go_out_within_the_limits() {
    let bench = Bench::new(&json!({}), 3);
    let channel = bench.channel();
    bench.write(&json!({"from": 7, "text": "hello"}));
    receive(&channel, 1).await;
    let long = "**word** <tag> & `code` (with a remark)\n".repeat(400);
    let receipt = channel.send(text(7, &long), None, &never()).await.unwrap();
    assert_eq!(receipt.state, SendState::Accepted);
    let shown = bench.shown(7);
    assert_eq!(shown.len(), receipt.message_ids.len());
    let bare = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    assert_eq!(bare(&shown.concat()), bare(&long.replace("**", "").replace('`', "")));
    let file = |name: &str, data: &[u8]| OutboundFile {
        data: Bytes::copy_from_slice(data),
        name: name.into(),
        mime_type: None,
    };
    let png = b"\x89PNG\r\n\x1a\n0000";
    let files =
        vec![file("a.png", png), file("b.png", png), file("c.txt", b"text"), file("d\"\r\n.txt", b"text")];
    let receipt =
        channel.send(OutboundMessage { files, ..text(7, "caption") }, None, &never()).await.unwrap();
    assert_eq!(receipt.message_ids.len(), 4);
    assert_eq!(bench.shown(7)[shown.len()], "caption");
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_poller_is_named_and_a_wrong_token_ends_it() {
    let bench = Bench::new(&json!({}), 4);
    let channel = Arc::new(bench.channel());
    let reader = Arc::clone(&channel);
    let reading = tokio::spawn(async move { reader.next(1).await });
    let foreign = bench.net.clone();
    let other = tokio::spawn(async move {
        loop {
            let path = format!("/bot{TOKEN}/getUpdates");
            let request = openclaw_channel_sim::Request::new("POST", &path).json(&json!({"timeout": 50}));
            _ = foreign.request(request).await;
        }
    });
    while channel.status().state != ChannelState::Conflict {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let error = channel.status().error.unwrap();
    assert!(error.contains("@BotFather") && !error.contains("sim-token"), "{error}");
    other.abort();
    bench.write(&json!({"from": 7, "text": "hello"}));
    assert_eq!(reading.await.unwrap().unwrap().unwrap().len(), 1);

    let stranger = Bench::new(&json!({"token": "1:other"}), 4);
    let channel = stranger.channel();
    let error = channel.next(1).await.unwrap_err();
    assert_eq!(error.code(), Code::ChannelAuth);
    assert!(!error.message().contains("sim-token"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_restarts_lose_nothing_and_never_meet_themselves() {
    let bench = Bench::new(&json!({}), 5);
    let mut got = Vec::new();
    for round in 0..1000 {
        let channel = bench.channel();
        bench.write(&json!({"from": 7, "text": round.to_string()}));
        let first = channel.next(1).await.unwrap().unwrap().remove(0);
        got.push(serde_json::from_str::<InboundMessage>(&first.json).unwrap().text);
        channel.ack(&[first.number]).await.unwrap();
        if round % 2 == 0 {
            channel.close().await;
        } else {
            drop(channel);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    assert_eq!(got, (0..1000).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(bench.broken_rules(), []);
}

async fn fault_scripts(webhook: bool, targets: &[(Point, &str)]) {
    let seeds = seeds(&[]);
    let few = (seeds.len() as u64) < USUAL_SEEDS;
    let mut unknown = 0;
    for &seed in &seeds {
        let bench = Bench::new(&json!({}), seed);
        let _trail = Trail(bench.net.clone());
        for fault in Fault::script(seed, 8, targets) {
            // Nothing on the way makes two requests of one that has effects, and who refuses has not done it.
            let told = matches!(fault.act, Act::Duplicate)
                || (fault.at == Point::Answer && matches!(fault.act, Act::Status { status: 429, .. }));
            if !(told && fault.matches.contains("send")) {
                bench.net.with(|sim| sim.fault(fault));
            }
        }
        let channel = Arc::new(bench.channel_by(webhook));
        let reader = Arc::clone(&channel);
        let reading = tokio::spawn(async move { receive(&reader, 12).await });
        let mut receipts: Vec<(i64, Result<SendReceipt>)> = Vec::new();
        for n in 0..12 {
            bench.write(&json!({"from": 7 + n % 2, "text": n.to_string()}));
            if n % 2 == 0 {
                let sent = channel.send(text(7, &format!("answer {n:02}")), None, &never()).await;
                receipts.push((n, sent));
            }
            tokio::time::sleep(Duration::from_millis(700 * u64::try_from(n).unwrap())).await;
        }
        let got = tokio::time::timeout(Duration::from_hours(2), reading).await;
        let got = got.unwrap_or_else(|_| panic!("seed {seed}: deaf: {:?}", channel.status())).unwrap();
        for chat in ["7", "8"] {
            let of_chat: Vec<i64> =
                got.iter().filter(|m| m.chat.id == chat).map(|m| m.text.parse().unwrap()).collect();
            let wanted: Vec<i64> = (0..12).filter(|n| 7 + n % 2 == chat.parse::<i64>().unwrap()).collect();
            assert_eq!(of_chat, wanted, "seed {seed}");
        }
        let shown = bench.shown(7);
        // What is of unknown fate may have been held up on the way.
        let accepted = |text: &String| {
            let of = |n: &i64| *text == format!("answer {n:02}");
            let is = |receipt: &SendReceipt| receipt.state == SendState::Accepted;
            receipts.iter().any(|(n, receipt)| of(n) && receipt.as_ref().is_ok_and(is))
        };
        assert!(shown.iter().filter(|text| accepted(text)).is_sorted(), "seed {seed}: {shown:?}");
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
        channel.close().await;
        let rules: Vec<_> =
            bench.broken_rules().into_iter().filter(|(rule, _)| *rule != "telegram.one-poller").collect();
        assert_eq!(rules, [], "seed {seed}");
    }
    assert!(few || unknown > 0, "no fate was ever unknown: the faults have gone wrong");
}

#[tokio::test(start_paused = true)]
async fn whatever_the_network_does_messages_come_once_and_in_order_and_go_out_at_most_once() {
    let targets = [
        (Point::Request, "getUpdates"),
        (Point::Answer, "getUpdates"),
        (Point::Request, "sendMessage"),
        (Point::Answer, "sendMessage"),
        (Point::Answer, "getMe"),
        (Point::Request, "deleteWebhook"),
    ];
    fault_scripts(false, &targets).await;
}

#[tokio::test(start_paused = true)]
async fn the_same_by_webhook() {
    let targets = [
        (Point::Call, "hook"),
        (Point::Call, "hook"),
        (Point::Request, "setWebhook"),
        (Point::Answer, "setWebhook"),
        (Point::Request, "sendMessage"),
        (Point::Answer, "sendMessage"),
        (Point::Answer, "getMe"),
        (Point::Answer, "getWebhookInfo"),
    ];
    fault_scripts(true, &targets).await;
}

#[tokio::test(start_paused = true)]
async fn a_webhook_is_set_watched_and_left_for_polls_without_a_loss() {
    let bench = Bench::new(&json!({}), 7);
    let hooked = Arc::new(bench.channel_by(true));
    let first = bench.write(&json!({"from": 7, "text": "before"}));
    let reader = Arc::clone(&hooked);
    let reading = tokio::spawn(async move { receive(&reader, 4).await });
    let webhook = || bench.net.with(|sim| sim.platform.state())["webhook"]["url"].clone();
    while webhook() != "http://bot.example/hook" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bench.write(&json!({"from": 7, "text": "one"}));
    let keys = json!({"inline_keyboard": [[{"text": "Yes", "callback_data": "yes"}]]});
    let asked = OutboundMessage {
        extra: Some(Box::new(Map::from_iter([("replyMarkup".to_owned(), keys)]))),
        ..text(7, "sure?")
    };
    let id: i64 = hooked.send(asked, None, &never()).await.unwrap().message_ids[0].parse().unwrap();
    bench.net.control("press", &json!({"chat": 7, "message_id": id, "from": 7, "data": "yes"})).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((hooked.status().state, hooked.status().error), (ChannelState::Running, None));
    // Somebody else takes it: that is said, and after a while it is taken back.
    let taken = openclaw_channel_sim::Request::new("POST", &format!("/bot{TOKEN}/setWebhook"))
        .json(&json!({"url": "http://other.example/"}));
    bench.net.request(taken).await.unwrap();
    bench.write(&json!({"from": 7, "text": "two"}));
    while hooked.status().state != ChannelState::Conflict {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(hooked.status().error.unwrap().contains("@BotFather"));
    let got: Vec<_> = reading.await.unwrap().into_iter().map(|message| message.text).collect();
    assert_eq!(got, ["before", "one", "yes", "two"]);
    assert_eq!(webhook(), "http://bot.example/hook");
    hooked.close().await;
    // What comes while nobody listens is kept, and the polls that follow end the webhook.
    bench.write(&json!({"from": 7, "text": "three"}));
    tokio::time::sleep(Duration::from_secs(20)).await;
    let polling = bench.channel();
    assert_eq!(receive(&polling, 1).await[0].text, "three");
    assert_eq!(webhook(), "");
    polling.close().await;
    assert_eq!(bench.broken_rules(), []);
    assert!(first["update_id"].is_number());
}

#[tokio::test(start_paused = true)]
async fn a_webhook_answers_only_telegram_and_only_what_is_on_the_disk() {
    let call = |method: &str, path: &str, secret: Option<&str>| {
        let mut headers = HeaderMap::new();
        if let Some(secret) = secret {
            headers.insert("x-telegram-bot-api-secret-token", secret.parse().unwrap());
        }
        let (called, mut answered) =
            Called::new(method.parse().unwrap(), path.into(), String::new(), headers.clone(), Bytes::new());
        let at_the_gate = gate(&port("sim-secret"))(&method.parse().unwrap(), path, &headers);
        let taken = examine(called, &port("sim-secret")).is_some();
        let status = answered.try_recv().ok().map(|(status, _)| status);
        // No body is needed for any of it.
        assert_eq!(at_the_gate, status);
        (taken, status)
    };
    assert!(call("POST", "/hook", Some("sim-secret")).0);
    assert_eq!(call("POST", "/hook", Some("sim-secreT")), (false, Some(401)));
    assert_eq!(call("POST", "/hook", Some("sim-secret2")), (false, Some(401)));
    assert_eq!(call("POST", "/hook", Some("")), (false, Some(401)));
    assert_eq!(call("POST", "/hook", None), (false, Some(401)));
    assert_eq!(call("POST", "/", Some("sim-secret")), (false, Some(404)));
    assert_eq!(call("GET", "/hook", Some("sim-secret")), (false, Some(405)));

    // The disk fails: Telegram is not told, and sends it again.
    let bench = Bench::new(&json!({}), 8);
    let channel = Arc::new(bench.channel_by(true));
    let reader = Arc::clone(&channel);
    let reading = tokio::spawn(async move { receive(&reader, 2).await });
    bench.write(&json!({"from": 7, "text": "one"}));
    while channel.status().state != ChannelState::Running {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    bench.log.end_after(0);
    bench.write(&json!({"from": 7, "text": "two"}));
    while channel.status().state != ChannelState::Backoff {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let pending = bench.net.with(|sim| sim.platform.state())["pending"].as_array().unwrap().len();
    assert_eq!(pending, 1);
    bench.log.end_after(usize::MAX);
    let got: Vec<_> = reading.await.unwrap().into_iter().map(|message| message.text).collect();
    assert_eq!(got, ["one", "two"]);
    channel.close().await;
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn for_a_minute_nobody_takes_a_message_and_all_come_after_it() {
    for webhook in [false, true] {
        let bench = Bench::new(&json!({}), 11);
        let channel = Arc::new(bench.channel_by(webhook));
        bench.write(&json!({"from": 7, "text": "first"}));
        receive(&channel, 1).await;
        for n in 0..60 {
            bench.write(&json!({"from": 7 + n % 2, "text": n.to_string()}));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let pending = bench.net.with(|sim| sim.platform.state())["pending"].as_array().unwrap().len();
        assert_eq!((pending, channel.status().waiting), (0, 60));
        assert_eq!(channel.status().state, ChannelState::Running);
        let got: Vec<_> = receive(&channel, 60).await.into_iter().map(|message| message.text).collect();
        assert_eq!(got, (0..60).map(|n| n.to_string()).collect::<Vec<_>>());
        channel.close().await;
        assert_eq!(bench.broken_rules(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn albums_are_one_message_by_polls_and_by_webhook() {
    for webhook in [false, true] {
        let bench = Bench::new(&json!({}), 9);
        let channel = Arc::new(bench.channel_by(webhook));
        let reader = Arc::clone(&channel);
        let reading = tokio::spawn(async move { receive(&reader, 3).await });
        let photo = |group: &str, text: &str| {
            bench.write(&json!({"from": 7, "text": text, "media_group": group, "media": {"kind": "photo", "size": 2000}}));
        };
        // In polls, and calls, of their own.
        for text in ["look", "", ""] {
            photo("a", text);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        photo("b", "");
        bench.write(&json!({"from": 7, "text": "after"}));
        let got: Vec<_> = reading
            .await
            .unwrap()
            .into_iter()
            .map(|message| (message.text, message.attachments.len()))
            .collect();
        assert_eq!(got, [("look".to_owned(), 3), (String::new(), 1), ("after".to_owned(), 0)]);
        channel.close().await;
        assert_eq!(bench.broken_rules(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_chat_that_has_to_wait_holds_up_no_other_unless_the_bot_has_to() {
    let bench = Bench::new(&json!({}), 10);
    let channel = Arc::new(bench.channel());
    for chat in 7..12 {
        bench.write(&json!({"from": chat, "text": "hello"}));
    }
    receive(&channel, 5).await;
    let start = tokio::time::Instant::now();
    let send = |chat: i64| {
        let channel = Arc::clone(&channel);
        async move {
            let sent = channel.send(text(chat, "hi"), None, &never()).await.unwrap();
            assert_eq!(sent.state, SendState::Accepted);
            start.elapsed().as_secs()
        }
    };
    bench.net.control("flood", &json!({"chat": 7, "seconds": 40})).unwrap();
    let waits = tokio::spawn(send(7));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(send(8).await, 1);
    assert_eq!(waits.await.unwrap(), 40);
    let own = |bench: &Bench| bench.broken_rules().len();
    let before = own(&bench);
    // All chats: the second refusal says so, and nobody is asked a third time.
    bench.net.control("flood", &json!({"seconds": 40})).unwrap();
    let all: Vec<_> = (7..12)
        .map(|chat| {
            tokio::spawn({
                let send = send(chat);
                async move {
                    tokio::time::sleep(Duration::from_secs(u64::try_from(chat).unwrap())).await;
                    send.await
                }
            })
        })
        .collect();
    for sent in all {
        assert!(sent.await.unwrap() >= 80);
    }
    assert_eq!(own(&bench) - before, 2);
    channel.close().await;
}

#[test]
fn options_are_checked_and_the_token_is_never_said() {
    let hooked = |token: &str, base: Option<&str>, options: Value, webhook: Option<Webhook>| {
        let Value::Object(options) = options else { unreachable!() };
        open(Settings {
            account_id: "default".into(),
            secrets: BTreeMap::from([("token".into(), Secret::copy_of(token.as_bytes()))]),
            base_url: base.map(str::to_owned),
            webhook,
            options,
            wire: Arc::new(wire::Network::new(crate::http::HttpOptions::default())),
            surroundings: crate::channels::system(),
        })
        .err()
    };
    let settings = |token: &str, base: Option<&str>, options: Value| hooked(token, base, options, None);
    assert!(settings(TOKEN, None, json!({})).is_none());
    let at = |url: &str| json!({ "webhookUrl": url });
    assert!(hooked(TOKEN, None, at("https://bot.example/x"), Some(port("A-z_0"))).is_none());
    assert!(hooked(TOKEN, Some("http://localhost:1"), at("http://bot/x"), Some(port("a"))).is_none());
    let wrong = [
        settings("bot-secret", None, json!({})),
        settings("123:a/../b", None, json!({})),
        settings(TOKEN, Some("ftp://x"), json!({})),
        settings(TOKEN, Some("http://x?a=1"), json!({})),
        settings(TOKEN, None, json!({"pollSeconds": 0})),
        settings(TOKEN, None, at("https://bot.example/x")),
        hooked(TOKEN, None, json!({}), Some(port("a"))),
        hooked(TOKEN, None, at("http://bot.example/x"), Some(port("a"))),
        hooked(TOKEN, None, at("https://u:p@bot.example/x"), Some(port("a"))),
        hooked(TOKEN, None, at("https://bot.example/x"), Some(port(""))),
        hooked(TOKEN, None, at("https://bot.example/x"), Some(port("secret!"))),
        hooked(TOKEN, None, at("https://bot.example/x"), Some(port(&"a".repeat(257)))),
    ];
    for error in wrong {
        let error = error.unwrap();
        assert_eq!(error.code(), Code::Validation);
        assert!(!error.message().contains("bot-secret") && !error.message().contains("/../"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn paid_broadcasts_have_a_limit_of_their_own() {
    for (settings, limit) in [(json!({}), 30), (json!({ "paidBroadcast": true }), 1000)] {
        let bench = Bench::new(&json!({}), 1);
        let channel = bench.channel_of(bench.platform(false, settings).unwrap());
        let chats = 100..200;
        for chat in chats.clone() {
            bench.write(&json!({ "from": chat, "text": "hello" }));
        }
        let begun = tokio::time::Instant::now();
        let key = never();
        let sending = chats.clone().map(|chat| channel.send(text(chat, "news"), None, &key));
        for receipt in futures_util::future::join_all(sending).await {
            assert_eq!(receipt.unwrap().state, SendState::Accepted);
        }
        let seconds = begun.elapsed().as_secs();
        assert_eq!(seconds, (chats.count() as u64 - 1) / limit, "{limit} a second");
        assert_eq!(bench.broken_rules(), []);
    }
    let refused = Bench::new(&json!({}), 1).platform(false, json!({ "paidBroadcast": 1 }));
    assert_eq!(refused.err().unwrap().code(), Code::Validation);
}

fn me(id: i64) -> Me {
    Me::read(&json!({"id": id, "username": "sim_bot"}).to_string()).unwrap()
}

fn updates() -> Vec<Value> {
    let user = json!({"id": 7, "first_name": "A", "last_name": "B", "username": "ab", "is_bot": false});
    let chat = json!({"id": -100, "type": "supergroup", "title": "G"});
    let message = |more: Value| {
        let mut message = json!({"message_id": 5, "date": 1_700_000_000, "chat": chat, "from": user});
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        message
    };
    let entities = json!([{"type": "bot_command", "offset": 0, "length": 11}, {"type": "mention", "offset": 12, "length": 8},
        {"type": "text_mention", "offset": 1, "length": 2, "user": user}]);
    let sizes = json!([{"file_id": "s", "file_size": 1}, {"file_id": "l", "file_size": 2}]);
    vec![
        json!({"message": message(json!({"text": "/go@sim_bot @sim_bot x", "entities": entities, "is_topic_message": true,
            "message_thread_id": 3, "reply_to_message": message(json!({}))}))}),
        json!({"edited_message": message(json!({"caption": "c", "photo": sizes, "media_group_id": "1"}))}),
        json!({"message": message(json!({"document": {"file_id": "d", "file_name": "../x", "mime_type": "a/b"}}))}),
        json!({"message": message(json!({"venue": {"title": "t"}, "location": {"latitude": 1.5, "longitude": 2}}))}),
        json!({"message": message(json!({"poll": {"question": "q", "options": [{"text": "o"}]}}))}),
        json!({"callback_query": {"id": "9", "from": user, "data": "d", "message": message(json!({}))}}),
        json!({"message_reaction": {"chat": chat, "message_id": 4, "user": user, "date": 1,
            "new_reaction": [{"type": "emoji", "emoji": "👍"}]}}),
    ]
}

#[test]
fn whatever_an_update_is_the_next_one_is_read_and_the_offset_moves_on() {
    let good = json!({"update_id": 20, "message": {"message_id": 6, "date": 1, "chat": {"id": 8, "type": "private"},
        "from": {"id": 8}, "text": "after"}});
    for (n, update) in updates().into_iter().enumerate() {
        let mut update = update;
        update["update_id"] = json!(19);
        for seed in 0..crate::channels::testing::MUTANTS {
            let strange = crate::channels::testing::mutated(&update, seed);
            // An id from the future is Telegram's to explain.
            if strange.get("update_id").and_then(Value::as_i64).is_some_and(|id| id > 20) {
                continue;
            }
            let read = inbound::read(&json!([strange, good]).to_string(), &me(1)).unwrap();
            assert_eq!(read.last, Some(20), "{n} {strange}");
            assert_eq!(read.messages.last().map(|last| last.text.as_str()), Some("after"), "{n} {strange}");
        }
    }
}

#[test]
fn another_bots_messages_are_others_although_the_chat_has_the_same_id() {
    let update = json!([{"update_id": 1, "message": {"message_id": 1, "date": 1, "chat": {"id": 7, "type": "private"},
        "from": {"id": 7}, "text": "/start"}}]);
    let id = |bot| inbound::read(&update.to_string(), &me(bot)).unwrap().messages.remove(0).id;
    assert_eq!(id(1), id(1));
    assert_ne!(id(1), id(2));
}

/// A channel on a network that says this.
fn saying(
    bench: &Bench,
    says: impl Fn(&str, u32) -> Option<(u16, &'static str, String)> + Send + Sync + 'static,
) -> (Arc<Channel>, Arc<std::sync::atomic::AtomicU32>) {
    let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let answers = move |request: &HttpRequest| {
        let method = request.url.path_segments().unwrap().next_back().unwrap().to_owned();
        Some(match method.as_str() {
            "getMe" => Some((200, "application/json", json!({"ok": true, "result": {"id": 1}}).to_string())),
            "deleteWebhook" => {
                Some((200, "application/json", json!({"ok": true, "result": true}).to_string()))
            }
            other => says(other, counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed)),
        })
    };
    (Arc::new(bench.channel_over(Arc::new(crate::channels::testing::Saying(answers, None)))), calls)
}

/// What [`saying`] takes.
#[expect(clippy::unnecessary_wraps, reason = "the others say nothing now and then")]
fn ok(result: &Value) -> Option<(u16, &'static str, String)> {
    Some((200, "application/json", json!({"ok": true, "result": result}).to_string()))
}

#[tokio::test(start_paused = true)]
async fn updates_without_ids_are_not_asked_for_without_pause() {
    let bench = Bench::new(&json!({}), 1);
    let (channel, calls) = saying(&bench, |_, _| ok(&json!([{"message": {}}])));
    _ = tokio::time::timeout(Duration::from_mins(1), channel.next(1)).await;
    let calls = calls.load(std::sync::atomic::Ordering::Relaxed);
    assert!((1..600).contains(&calls), "{calls} polls in a minute");
}

#[tokio::test(start_paused = true)]
async fn a_server_before_telegrams_may_ask_to_wait_too() {
    let bench = Bench::new(&json!({}), 1);
    let (channel, _) = saying(&bench, |_, call| match call {
        0 => Some((429, "text/html", "<h1>too many</h1>".into())),
        _ => ok(&json!({"message_id": 3})),
    });
    let receipt = channel.send(text(7, "hi"), None, &never()).await.unwrap();
    assert_eq!((receipt.state, receipt.message_ids), (SendState::Accepted, vec!["3".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn buttons_that_cannot_be_answered_do_not_keep_back_what_comes_next() {
    let bench = Bench::new(&json!({}), 1);
    let query = |n: i64| {
        json!({"update_id": n, "callback_query": {"id": n.to_string(), "from": {"id": 7}, "data": "d",
            "message": {"message_id": 1, "date": 1, "chat": {"id": 7, "type": "private"}}}})
    };
    let first = json!([query(1), query(2), query(3), query(4)]);
    let next = json!([{"update_id": 9, "message": {"message_id": 6, "date": 1, "chat": {"id": 7, "type": "private"},
        "from": {"id": 7}, "text": "after"}}]);
    let polls = std::sync::atomic::AtomicU32::new(0);
    let (channel, _) = saying(&bench, move |method, _| match method {
        "getUpdates" => match polls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => ok(&first),
            1 => ok(&next),
            _ => None,
        },
        _ => None,
    });
    let began = tokio::time::Instant::now();
    assert_eq!(receive(&channel, 5).await.pop().unwrap().text, "after");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_the_bot_is_proves_nothing_once_it_is_known() {
    let bench = Bench::new(&json!({}), 1);
    let down = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_down = Arc::clone(&down);
    let answers = move |request: &HttpRequest| {
        let method = request.url.path_segments().unwrap().next_back().unwrap().to_owned();
        if is_down.load(std::sync::atomic::Ordering::Relaxed) {
            return Some(Some((502, "text/html", String::new())));
        }
        Some(match method.as_str() {
            "getMe" => ok(&json!({"id": 1})),
            "getUpdates" => {
                is_down.store(true, std::sync::atomic::Ordering::Relaxed);
                ok(&json!([]))
            }
            _ => ok(&json!(true)),
        })
    };
    let channel = Arc::new(bench.channel_over(Arc::new(crate::channels::testing::Saying(answers, None))));
    let reader = Arc::clone(&channel);
    let reading = tokio::spawn(async move { reader.next(1).await });
    tokio::time::sleep(Duration::from_mins(30)).await;
    let status = channel.status();
    assert!(status.last_verified.unwrap() > Duration::from_mins(29), "{status:?}");
    assert_ne!(status.state, ChannelState::Running);
    reading.abort();
}
