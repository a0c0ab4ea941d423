//! Against the simulated Discord, under simulated time.

use std::collections::{BTreeMap, HashSet};

use openclaw_channel_sim::discord::Discord as SimDiscord;
use openclaw_channel_sim::sim::{Act, Event, Fault, Point};
use openclaw_channel_sim::{Net, Platform as _, Sim};

use super::*;
use crate::channels::channel::{Channel, ChannelState, Options};
use crate::channels::log::memory::MemoryLog;
use crate::channels::message::{AttachmentKind, ChatKind, InboundKind, SendReceipt, SendState};
use crate::channels::testing::{SimWire, Simulated, Trail, USUAL_SEEDS, never, receive, seeds, text};

struct Bench {
    net: Net<SimDiscord>,
    log: MemoryLog,
    locks: tempfile::TempDir,
    seed: u64,
}

impl Bench {
    fn new(options: &Value, seed: u64) -> Self {
        let net = Net::new(Sim::new(SimDiscord::new(options).unwrap()), 1_800_000_000_000);
        let bench = Self { net, log: MemoryLog::default(), locks: tempfile::tempdir().unwrap(), seed };
        bench.act("guild", json!({"id": "1"}));
        bench.act("channel", json!({"id": "2", "guild": "1"}));
        bench
    }

    fn channel(&self) -> Channel {
        self.channel_with(Map::new())
    }

    fn channel_with(&self, options: Map<String, Value>) -> Channel {
        let platform = open(Settings {
            account_id: "default".into(),
            secrets: BTreeMap::from([("token".into(), Secret::copy_of(b"sim-token"))]),
            base_url: Some("http://sim/api/v10".into()),
            webhook: None,
            options,
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

    /// A channel that receives.
    async fn listening(&self) -> Channel {
        Self::listen(self.channel()).await
    }

    async fn listen(channel: Channel) -> Channel {
        // It connects when it is first asked for messages.
        _ = tokio::time::timeout(Duration::from_millis(1), channel.next(50)).await;
        channel
    }

    #[expect(clippy::needless_pass_by_value, reason = "shorter where it is called")]
    fn act(&self, action: &str, arguments: Value) -> Value {
        self.net.control(action, &arguments).unwrap()
    }

    fn broken_rules(&self) -> Vec<(&'static str, String)> {
        self.net.with(|sim| sim.violations())
    }

    fn state(&self) -> Value {
        self.net.with(|sim| sim.platform.state())
    }

    /// Contents of the bot's own messages in a channel.
    fn shown(&self, channel: &str) -> Vec<String> {
        let messages = self.state()["channels"][channel]["messages"].as_array().cloned().unwrap_or_default();
        let mine = messages.iter().filter(|message| message["author"]["bot"] == true);
        mine.map(|message| message["content"].as_str().unwrap().to_owned()).collect()
    }

    /// Until frames of this kind have been sent that often.
    async fn told(&self, label: &str, count: usize) {
        let told = self.net.until(|sim| {
            let seen =
                sim.log().filter(|entry| matches!(&entry.event, Event::Out { label: l, .. } if l == label));
            (seen.count() >= count).then_some(())
        });
        let told = tokio::time::timeout(Duration::from_hours(48), told).await;
        assert!(told.is_ok(), "{label} was not told {count} times");
    }

    /// How many of the bot's WebSockets were open at once, at most, as the bot saw it.
    fn most_sockets(&self) -> usize {
        self.net.with(|sim| {
            let mut open = HashSet::new();
            let (mut most, mut asked) = (0, 0);
            for entry in sim.log() {
                match &entry.event {
                    Event::Request { id, upgrade, .. } => {
                        asked = *id;
                        if *upgrade {
                            open.insert(*id);
                        }
                    }
                    // It was refused, or a fault cut it off, or it ended.
                    Event::Fault(Fault { at: Point::Request, act: Act::Drop | Act::Cut, .. }) => {
                        open.remove(&asked);
                    }
                    Event::Answer { id, .. } | Event::Gone { id, .. } | Event::Ended { id, .. } => {
                        open.remove(id);
                    }
                    _ => {}
                }
                most = most.max(open.len());
            }
            most
        })
    }
}

async fn until_running(channel: &Channel) {
    while channel.status().state != ChannelState::Running {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn messages_come_in_and_answers_go_out() {
    let bench = Bench::new(&json!({}), 1);
    let channel = bench.listening().await;
    bench.told("GUILD_CREATE", 1).await;
    bench.act("message", json!({"channel": "2", "from": "7", "text": "just talk"}));
    let asked =
        bench.act("message", json!({"channel": "2", "from": "7", "text": "<@900000000000000001> hello"}));
    bench.act("message", json!({"from": "8", "text": "psst", "files": [{"name": "a.png", "mime": "image/png", "base64": "aW4="}]}));
    let got = receive(&channel, 3).await;
    assert_eq!(got.iter().map(|message| message.mentions_me).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(got[1].chat.kind, ChatKind::Channel);
    assert_eq!(got[2].chat.kind, ChatKind::Direct);
    assert!(got[0].timestamp_ms >= 1_800_000_000_000);
    let file = channel.download(&got[2].attachments[0], 100).await.unwrap();
    assert_eq!(&*file, b"in");

    let answer = OutboundMessage {
        reply_to_id: asked["id"].as_str().map(str::to_owned),
        files: vec![OutboundFile { data: Bytes::from_static(b"x"), name: "x.txt".into(), mime_type: None }],
        ..text("2", "**hi** @everyone")
    };
    let receipt = channel.send(answer, None, &never()).await.unwrap();
    assert_eq!((receipt.state, receipt.message_ids.len()), (SendState::Accepted, 1));
    let (to, message_id) = ("2".to_owned(), receipt.message_ids[0].clone());
    channel
        .make(Call::Edit { to: to.clone(), message_id: message_id.clone(), text: "new".into() })
        .await
        .unwrap();
    channel
        .make(Call::React { to: to.clone(), message_id: message_id.clone(), emoji: "👍".into() })
        .await
        .unwrap();
    assert_eq!(bench.state()["reactions"].as_array().unwrap().len(), 1);
    channel.make(Call::React { to: to.clone(), message_id, emoji: String::new() }).await.unwrap();
    assert_eq!(bench.state()["reactions"], json!([]));
    channel.make(Call::Typing { to, thread_id: None }).await.unwrap();
    assert_eq!(bench.shown("2"), ["new"]);
    channel.send(text("user:8", "to you"), None, &never()).await.unwrap();
    // Whoever knows only a person's id.
    channel.send(text("7", "and to you"), None, &never()).await.unwrap();
    channel.send(text("7", "again"), None, &never()).await.unwrap();
    assert_eq!(bench.shown(&got[2].chat.id), ["to you"]);
    bench.act("message", json!({"from": "7", "text": "thanks"}));
    assert_eq!(bench.shown(&receive(&channel, 1).await[0].chat.id), ["and to you", "again"]);
    let error = channel.send(text("99", "to nobody"), None, &never()).await.unwrap_err();
    assert!(error.message().ends_with("Unknown Channel"), "{error}");
    assert_eq!(channel.status().state, ChannelState::Running);
    channel.close().await;
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn threads_edits_reactions_commands_and_buttons_are_read() {
    let bench = Bench::new(&json!({}), 2);
    bench.act("channel", json!({"id": "3", "guild": "1", "parent": "2", "name": "Talk"}));
    let channel = bench.listening().await;
    bench.told("GUILD_CREATE", 1).await;
    let message = bench.act("message", json!({"channel": "3", "from": "7", "text": "draft"}));
    bench.act("edit", json!({"message": message["id"], "text": "final"}));
    bench.act("react", json!({"message": message["id"], "from": "7", "emoji": "👀"}));
    let got = receive(&channel, 3).await;
    assert_eq!((got[0].chat.id.as_str(), got[0].thread_id.as_deref()), ("2", Some("3")));
    assert_eq!(got[0].chat.title.as_deref(), Some("general"));
    assert_eq!((got[2].chat.id.as_str(), got[2].thread_id.as_deref()), ("2", Some("3")));
    assert_eq!((got[1].kind, got[1].text.as_str()), (InboundKind::Edit, "final"));
    assert_eq!((got[2].kind, got[2].text.as_str()), (InboundKind::Reaction, "👀"));

    let buttons = json!({"components": [{"type": 1, "components": [{"type": 2, "style": 1, "label": "Yes", "custom_id": "yes"}]}]});
    let question =
        OutboundMessage { extra: buttons.as_object().cloned().map(Box::new), ..text("2", "choose") };
    let receipt = channel.send(question, None, &never()).await.unwrap();
    bench.act("press", json!({"message": receipt.message_ids[0], "from": "7", "custom_id": "yes"}));
    let pressed = receive(&channel, 1).await.remove(0);
    assert_eq!((pressed.kind, pressed.text.as_str()), (InboundKind::Callback, "yes"));
    assert_eq!(pressed.message_id, receipt.message_ids[0]);
    bench.net.until(|sim| (sim.platform.state()["answered"].as_array()?.len() == 1).then_some(())).await;
    channel.close().await;
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn heartbeats_go_on_for_a_day_and_a_silent_connection_is_replaced() {
    let bench = Bench::new(&json!({}), 3);
    let channel = bench.listening().await;
    bench.told("READY", 1).await;
    tokio::time::sleep(Duration::from_hours(24)).await;
    assert_eq!(bench.state()["started"], 1);
    let sockets = bench.net.with(|sim| sim.sockets());
    assert_eq!(sockets.len(), 1);
    bench.net.with(|sim| sim.half_open(sockets[0]));
    bench.act("message", json!({"channel": "2", "from": "7", "text": "unheard at first"}));
    assert_eq!(receive(&channel, 1).await[0].text, "unheard at first");
    bench.told("RESUMED", 1).await;
    assert_eq!(bench.state()["started"], 1, "it was resumed");
    channel.close().await;
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn a_session_is_resumed_by_the_next_process_and_given_up_after_three_attempts() {
    let bench = Bench::new(&json!({}), 4);
    let channel = bench.listening().await;
    bench.told("READY", 1).await;
    bench.act("message", json!({"channel": "2", "from": "7", "text": "one"}));
    assert_eq!(receive(&channel, 1).await[0].text, "one");
    channel.close().await;
    bench.act("message", json!({"channel": "2", "from": "7", "text": "while nobody ran"}));
    let channel = bench.channel();
    assert_eq!(receive(&channel, 1).await[0].text, "while nobody ran");
    bench.told("RESUMED", 1).await;
    assert_eq!(bench.state()["started"], 1);

    // Where resuming is broken, a new session begins after three attempts.
    bench.net.with(|sim| sim.fault(Fault::new(Point::Request, "/resume", Act::Drop).times(1000)));
    bench.net.cut(bench.net.with(|sim| sim.sockets())[0]);
    bench.told("READY", 2).await;
    let attempts = bench.net.with(|sim| {
        let asked = sim.log().filter(|entry| matches!(&entry.event, Event::Request { request, upgrade: true, .. } if request.path == "/resume"));
        asked.count()
    });
    assert!((1..=4).contains(&attempts), "{attempts} attempts");
    channel.close().await;
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn what_discord_asks_for_is_done() {
    let bench = Bench::new(&json!({}), 5);
    let channel = bench.listening().await;
    bench.told("READY", 1).await;
    bench.act("reconnect", json!({}));
    bench.told("RESUMED", 1).await;
    bench.act("request_heartbeat", json!({}));
    bench.told("HEARTBEAT_ACK", 1).await;
    bench.act("invalidate", json!({"resumable": true}));
    bench.told("RESUMED", 2).await;
    assert_eq!(bench.state()["started"], 1);
    bench.act("invalidate", json!({"resumable": false}));
    bench.told("READY", 2).await;
    bench.act("close", json!({"code": 4009}));
    bench.told("READY", 3).await;
    bench.act("close", json!({"code": 4000}));
    bench.told("RESUMED", 3).await;
    assert_eq!(bench.state()["started"], 3);
    assert_eq!(bench.state()["sockets"], 1);
    bench.act("close", json!({"code": 4014}));
    tokio::time::sleep(Duration::from_hours(1)).await;
    let status = channel.status();
    assert_eq!(status.state, ChannelState::Failed);
    assert!(status.error.is_some_and(|error| error.contains("Message Content Intent")));
    channel.close().await;
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn many_messages_stay_within_the_limits_and_long_ones_are_split() {
    let bench = Bench::new(&json!({}), 6);
    let channel = bench.channel();
    let receipt = channel.send(text("2", &"word ".repeat(5000)), None, &never()).await.unwrap();
    assert_eq!(receipt.message_ids.len(), 13);
    assert!(bench.shown("2").iter().all(|text| text.chars().count() <= 2000));
    bench.act("limit", json!({"ms": 30_000}));
    let before = bench.net.now();
    let receipt = channel.send(text("2", "after the limit"), None, &never()).await.unwrap();
    assert_eq!(receipt.state, SendState::Accepted);
    assert!(bench.net.now() - before >= 30_000);
    channel.close().await;
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn commands_are_registered_acknowledged_before_anybody_looks_and_followed_up() {
    let bench = Bench::new(&json!({}), 7);
    let options = json!({"commands": [{"name": "ask", "description": "Ask"}]});
    let channel = Bench::listen(bench.channel_with(options.as_object().unwrap().clone())).await;
    bench.net.until(|sim| sim.platform.state()["commands"][""].get(0).is_some().then_some(())).await;
    let ask = |value: &str| {
        let options = json!([{"name": "question", "type": 3, "value": value}]);
        bench.act("command", json!({"channel": "2", "from": "7", "name": "ask", "options": options}))
    };
    let asked = ask("why?");
    let since = bench.net.now();
    // Nobody takes the message.
    bench.net.until(|sim| (sim.platform.state()["answered"].as_array()?.len() == 1).then_some(())).await;
    assert!(bench.net.now() - since < 3000);
    let got = receive(&channel, 1).await.remove(0);
    assert_eq!((got.kind, got.text.as_str(), got.mentions_me), (InboundKind::Command, "/ask why?", true));
    assert_eq!(asked["id"], got.message_id.as_str());
    let webhooks = || {
        bench.net.with(|sim| {
            let asked = sim.log().filter(|entry| matches!(&entry.event, Event::Request { request, .. } if request.path.contains("/webhooks/")));
            asked.count()
        })
    };
    let reply =
        |reply: &str| OutboundMessage { reply_to_id: Some(got.message_id.clone()), ..text("2", reply) };
    channel.send(reply("because"), None, &never()).await.unwrap();
    assert_eq!((webhooks(), bench.shown("2")), (1, vec!["because".to_owned()]));
    tokio::time::sleep(Duration::from_mins(16)).await;
    channel.send(reply("later"), None, &never()).await.unwrap();
    assert_eq!((webhooks(), bench.shown("2").len()), (1, 2));
    channel.close().await;
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_quicker_than_the_acknowledgement_waits_for_it() {
    let bench = Bench::new(&json!({}), 8);
    let options = json!({"commands": [{"name": "ask", "description": "Ask"}]});
    let channel = Bench::listen(bench.channel_with(options.as_object().unwrap().clone())).await;
    bench.net.until(|sim| sim.platform.state()["commands"][""].get(0).is_some().then_some(())).await;
    bench.net.with(|sim| sim.fault(Fault::new(Point::Answer, "/callback", Act::Stall { ms: 1500 })));
    bench.act("command", json!({"channel": "2", "from": "7", "name": "ask"}));
    let got = receive(&channel, 1).await.remove(0);
    let reply = OutboundMessage { reply_to_id: Some(got.message_id), ..text("2", "at once") };
    channel.send(reply, None, &never()).await.unwrap();
    let paths: Vec<String> = bench.net.with(|sim| {
        let asked = sim.log().filter_map(|entry| match &entry.event {
            Event::Request { request, .. } if request.method == "POST" => Some(request.path.clone()),
            _ => None,
        });
        asked.collect()
    });
    assert!(paths[0].ends_with("/callback") && paths[1].contains("/webhooks/"), "{paths:?}");
    channel.close().await;
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn the_next_process_knows_a_threads_channel() {
    let bench = Bench::new(&json!({}), 9);
    bench.act("channel", json!({"id": "3", "guild": "1", "parent": "2", "name": "Talk"}));
    let channel = bench.listening().await;
    bench.told("GUILD_CREATE", 1).await;
    channel.close().await;
    bench.act("message", json!({"channel": "3", "from": "7", "text": "meanwhile"}));
    let channel = bench.channel();
    let got = receive(&channel, 1).await.remove(0);
    assert_eq!((got.chat.id.as_str(), got.thread_id.as_deref()), ("2", Some("3")));
    assert_eq!(bench.state()["started"], 1);
    let answer = OutboundMessage { thread_id: got.thread_id, ..text(&got.chat.id, "in the thread") };
    channel.send(answer, None, &never()).await.unwrap();
    assert_eq!(bench.shown("3"), ["in the thread"]);
    channel.close().await;
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn a_network_that_is_away_costs_no_session() {
    let bench = Bench::new(&json!({"resume_ms": 100_000_000_u64}), 10);
    let channel = bench.listening().await;
    bench.told("READY", 1).await;
    bench.net.with(|sim| sim.fault(Fault::new(Point::Request, "", Act::Drop).times(24)));
    bench.net.cut(bench.net.with(|sim| sim.sockets())[0]);
    bench.act("message", json!({"channel": "2", "from": "7", "text": "unheard at first"}));
    assert_eq!(receive(&channel, 1).await[0].text, "unheard at first");
    bench.told("RESUMED", 1).await;
    assert_eq!(bench.state()["started"], 1);
    channel.close().await;
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn no_more_sessions_are_started_than_discord_allows() {
    let bench = Bench::new(&json!({"sessions": 1}), 11);
    let channel = bench.listening().await;
    bench.told("READY", 1).await;
    bench.act("invalidate", json!({"resumable": false}));
    tokio::time::sleep(Duration::from_hours(1)).await;
    let status = channel.status();
    assert!(status.error.is_some_and(|error| error.contains("session_start_limit")));
    bench.told("READY", 2).await;
    assert!(bench.net.now() >= 1_800_000_000_000 + 86_400_000);
    channel.close().await;
    assert_eq!(bench.broken_rules(), []);
}

#[test]
fn what_people_write_is_read_and_what_discord_notes_is_not() {
    let read = |event: Value| {
        let data = serde_json::value::to_raw_value(&event).unwrap();
        inbound::read("MESSAGE_CREATE", &data, "9", "s", 1).map(|(message, _)| message)
    };
    let event = |more: Value| {
        let mut event = json!({"id": "175928847299117063", "channel_id": "2", "guild_id": "1", "type": 0, "content": "",
            "author": {"id": "7", "username": "ada", "global_name": "Ada"}});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    };
    let mentions = json!({"content": "<@9> and <@!7>", "mentions": [{"id": "9", "username": "bot"}, {"id": "7", "global_name": "Ada"}]});
    let message = read(event(mentions)).unwrap();
    assert_eq!((message.text.as_str(), message.mentions_me), ("@bot and @Ada", true));
    assert_eq!(message.timestamp_ms, 1_462_015_105_796);
    assert!(read(event(json!({"type": 7}))).is_none());
    assert!(read(event(json!({"webhook_id": "7"}))).unwrap().sender.is_bot);
    let sticker = json!({"sticker_items": [{"id": "5", "name": "Wave", "format_type": 1}]});
    let [attachment] = &read(event(sticker)).unwrap().attachments[..] else { panic!("one attachment") };
    assert_eq!(attachment.kind, AttachmentKind::Sticker);
    assert_eq!(attachment.handle, "https://cdn.discordapp.com/stickers/5.png");
    let forwarded = json!({"message_reference": {"type": 1, "message_id": "4"}, "message_snapshots": [{"message": {
        "content": "said elsewhere", "attachments": [{"url": "https://cdn.discordapp.com/a", "filename": "a"}]}}]});
    let message = read(event(forwarded)).unwrap();
    assert_eq!((message.text.as_str(), message.reply_to_id), ("said elsewhere", None));
    assert_eq!(message.attachments.len(), 1);
}

#[test]
fn plain_text_is_not_read_as_markdown() {
    assert_eq!(escape("*a* _b_ `c` |d| ~e~ \\"), "\\*a\\* \\_b\\_ \\`c\\` \\|d\\| \\~e\\~ \\\\");
    assert_eq!(escape("# a - b\n> c\n- d"), "\\# a - b\n\\> c\n\\- d");
    assert_eq!(escape("see https://e.org/a_b_c <@1>"), "see https://e.org/a_b_c \\<@1>");
}

#[test]
fn options_are_checked_and_the_token_is_never_said() {
    let opened = |token: &str, base: Option<&str>, options: Value| {
        open(Settings {
            account_id: "default".into(),
            secrets: BTreeMap::from([("token".into(), Secret::copy_of(token.as_bytes()))]),
            base_url: base.map(str::to_owned),
            webhook: None,
            options: options.as_object().unwrap().clone(),
            wire: Arc::new(wire::Network::new(crate::http::HttpOptions::default())),
            surroundings: crate::channels::system(),
        })
        .err()
    };
    assert!(opened("a.secret", None, json!({})).is_none());
    for error in [
        opened("Bot secret", None, json!({})),
        opened("secret\n", None, json!({})),
        opened("secret", Some("ftp://x"), json!({})),
        opened("secret", None, json!({"intents": "all"})),
        opened("secret", None, json!({"commands": {}})),
    ] {
        let error = error.unwrap();
        assert_eq!(error.code(), Code::Validation);
        assert!(!error.message().contains("secret"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_the_network_does_messages_come_once_and_in_order_and_go_out_at_most_once() {
    let seeds = seeds(&[1345]);
    let cases = seeds.len() as u64;
    let few = cases < USUAL_SEEDS;
    let targets = [
        (Point::Request, "/resume"),
        (Point::Request, "GET /"),
        (Point::Answer, "gateway"),
        (Point::In, ""),
        (Point::Out, "HELLO"),
        (Point::Out, "HEARTBEAT_ACK"),
        (Point::Out, "READY"),
        (Point::Out, "RESUMED"),
        (Point::Out, "MESSAGE_CREATE"),
        (Point::Request, "POST /api/v10/channels"),
        (Point::Answer, "POST /api/v10/channels"),
    ];
    let (mut unknown, mut resumed, mut renewed) = (0, 0, 0);
    for &seed in &seeds {
        // So long that no session dies of old age, as Discord would then lose messages by its own rules.
        let bench = Bench::new(&json!({"seed": seed, "resume_ms": 100_000_000_u64}), seed);
        let _trail = Trail(bench.net.clone());
        let channel = Arc::new(bench.listening().await);
        bench.told("READY", 1).await;
        for mut fault in Fault::script(seed, 8, &targets) {
            if matches!(fault.at, Point::In | Point::Out) {
                // On one TCP connection nothing is lost, doubled or overtaken.
                match fault.act {
                    Act::Drop | Act::Reorder { .. } => fault.act = Act::Cut,
                    Act::Duplicate | Act::Stall { .. } => fault.act = Act::HalfOpen,
                    _ => {}
                }
            }
            // Nothing on the way makes two requests of one that has effects, and who refuses has not done it.
            let told = matches!(fault.act, Act::Duplicate)
                || (fault.at == Point::Answer && matches!(fault.act, Act::Status { status: 429, .. }));
            if !(told && fault.matches.contains("POST")) {
                bench.net.with(|sim| sim.fault(fault));
            }
        }
        let got = Arc::new(Mutex::new(Vec::new()));
        let (reader, texts) = (Arc::clone(&channel), Arc::clone(&got));
        let mut reading = tokio::spawn(async move {
            while texts.lock().unwrap().len() < 12 {
                let messages = receive(&reader, 1).await;
                texts.lock().unwrap().extend(messages.into_iter().map(|message| message.text));
            }
        });
        let mut receipts: Vec<(u64, Result<SendReceipt>)> = Vec::new();
        let mut sessions = Vec::new();
        for n in 0..12 {
            sessions.push(bench.state()["started"].as_u64().unwrap());
            let from = if n % 2 == 0 { "7" } else { "8" };
            bench.act("message", json!({"channel": "2", "from": from, "text": n.to_string()}));
            if n % 3 == 0 {
                receipts.push((n, channel.send(text("2", &format!("answer {n:02}")), None, &never()).await));
            }
            tokio::time::sleep(Duration::from_secs(n % 11 * 7)).await;
        }
        let complete = tokio::time::timeout(Duration::from_hours(2), &mut reading).await;
        reading.abort();
        let got = got.lock().unwrap().clone();
        let started = bench.state()["started"].as_u64().unwrap();
        for (n, session) in sessions.iter().enumerate() {
            // Only a new session may begin without what the old one had not told.
            let come = got.iter().filter(|text| **text == n.to_string()).count();
            assert!(come == 1 || (come == 0 && started > *session), "seed {seed}: {n} came {come} times");
        }
        assert!(got.is_sorted_by_key(|text| text.parse::<u64>().unwrap()), "seed {seed}: {got:?}");
        renewed += u64::from(complete.is_err());
        let shown = bench.shown("2");
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
        // A fault that was left may have struck just now: it goes on all the same.
        let running = tokio::time::timeout(Duration::from_hours(1), until_running(&channel)).await;
        assert!(running.is_ok(), "seed {seed}: {:?}", channel.status());
        assert!(bench.most_sockets() <= 1, "seed {seed}: two sockets at once");
        resumed += bench.net.with(|sim| {
            sim.log()
                .filter(|entry| matches!(&entry.event, Event::Out { label, .. } if label == "RESUMED"))
                .count()
        });
        channel.close().await;
        assert_eq!(bench.broken_rules(), [], "seed {seed}");
    }
    println!(
        "{cases} scripts: {resumed} resumed, {renewed} with a new session that had missed something, {unknown} sends unknown"
    );
    assert!(few || unknown > 0, "no fate was ever unknown: the faults have gone wrong");
    assert!(few || resumed > 0, "no session was ever resumed: the faults have gone wrong");
    assert!(few || renewed * 5 < cases, "{renewed} of {cases} scripts cost a session");
}
