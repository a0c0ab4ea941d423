//! Against the simulated homeserver, under simulated time.

use std::collections::BTreeMap;

use openclaw_channel_sim::matrix::Matrix as SimMatrix;
use openclaw_channel_sim::sim::{Act, Event, Fault, Point};
use openclaw_channel_sim::{Net, Platform as _, Sim};
use serde_json::json;
use serde_json::value::RawValue;

use super::inbound::{Joined, Sync};
use super::sync::{ASKING, UNSURE};
use super::*;
use crate::channels::channel::{Channel, ChannelState, Options};
use crate::channels::log::memory::MemoryLog;
use crate::channels::message::{
    AttachmentKind, ChatKind, InboundKind, InboundMessage, OutboundFile, SendReceipt, SendState,
};
use crate::channels::testing::{SimWire, Simulated, Trail, USUAL_SEEDS, never, receive, seeds, text};

const TOKEN: &str = "sim-token";
const ME: &str = "@sim:sim";

struct Bench {
    net: Net<SimMatrix>,
    log: MemoryLog,
    locks: tempfile::TempDir,
    seed: u64,
}

impl Bench {
    fn new(options: &Value, seed: u64) -> Self {
        let net = Net::new(Sim::new(SimMatrix::new(options).unwrap()), 1_800_000_000_000);
        Self { net, log: MemoryLog::default(), locks: tempfile::tempdir().unwrap(), seed }
    }

    fn channel(&self, options: Value) -> Arc<Channel> {
        self.channel_over(Arc::new(SimWire(self.net.clone())), options)
    }

    fn channel_over(&self, wire: Arc<dyn Wire>, options: Value) -> Arc<Channel> {
        let Value::Object(settings) = options else { unreachable!() };
        let platform = open(Settings {
            account_id: "default".into(),
            secrets: BTreeMap::from([("token".into(), Secret::copy_of(TOKEN.as_bytes()))]),
            base_url: Some("http://sim".into()),
            webhook: None,
            options: settings,
            wire,
            surroundings: Simulated::surroundings(self.seed),
        });
        let options = Options {
            account_id: "default".into(),
            log: Arc::new(self.log.clone()),
            surroundings: Simulated::surroundings(self.seed),
            locks: self.locks.path().to_owned(),
        };
        Arc::new(Channel::new(platform.unwrap(), options))
    }

    /// A channel that has been told everything once: what is written from now on is new to it.
    async fn synced(&self, options: Value) -> Arc<Channel> {
        self.sync(self.channel(options)).await
    }

    async fn sync(&self, channel: Arc<Channel>) -> Arc<Channel> {
        let reader = Arc::clone(&channel);
        let waiting = tokio::spawn(async move { reader.next(1).await });
        self.net
            .until(|sim| {
                let since = |event: &Event| matches!(event, Event::Request { request, .. } if request.query("since").is_some());
                sim.log().any(|entry| since(&entry.event)).then_some(())
            })
            .await;
        waiting.abort();
        _ = waiting.await;
        channel
    }

    #[expect(clippy::needless_pass_by_value, reason = "it is given literals")]
    fn act(&self, action: &str, arguments: Value) -> Value {
        self.net.control(action, &arguments).unwrap()
    }

    fn state(&self) -> Value {
        self.net.with(|sim| sim.platform.state())
    }

    /// Our own events in a room.
    fn sent(&self, room: &str) -> Vec<Value> {
        let state = self.state();
        let events = state["rooms"][room]["events"].as_array().cloned().unwrap_or_default();
        let mine = |event: &Value| event["sender"] == ME && event.get("state_key").is_none();
        events.into_iter().filter(mine).collect()
    }

    fn broken_rules(&self) -> Vec<(&'static str, String)> {
        self.net.with(|sim| sim.violations())
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_comes_in_and_an_answer_goes_out() {
    let bench = Bench::new(&json!({}), 1);
    bench.act("room", json!({"id": "!a:sim"}));
    bench.act("message", json!({"room": "!a:sim", "text": "history"}));
    let channel = bench.synced(json!({})).await;
    let event = bench.act("message", json!({"room": "!a:sim", "text": "hello"}))["event_id"].clone();
    let got = receive(&channel, 1).await.remove(0);
    assert_eq!(
        (got.text.as_str(), got.chat.id.as_str(), got.sender.id.as_str()),
        ("hello", "!a:sim", "@alice:sim")
    );
    assert!(got.mentions_me && got.chat.kind == ChatKind::Direct);
    assert_eq!(json!(got.message_id), event);
    let answer = OutboundMessage {
        reply_to_id: Some(got.message_id.clone()),
        ..text("!a:sim", "**hi** <there>\n@bob:sim, look")
    };
    let receipt = channel.send(answer, None, &never()).await.unwrap();
    assert_eq!((receipt.state, receipt.message_ids.len()), (SendState::Accepted, 1));
    let sent = bench.sent("!a:sim").remove(0);
    assert_eq!(sent["content"]["formatted_body"], "<b>hi</b> &lt;there&gt;<br>@bob:sim, look");
    assert_eq!(sent["content"]["m.mentions"], json!({"user_ids": ["@bob:sim"]}));
    assert_eq!(sent["content"]["m.relates_to"]["m.in_reply_to"]["event_id"], event);
    let threaded = OutboundMessage {
        thread_id: Some(got.message_id.clone()),
        silent: true,
        ..text("!a:sim", "in thread")
    };
    channel.send(threaded, None, &never()).await.unwrap();
    let sent = bench.sent("!a:sim").remove(1);
    assert_eq!(sent["content"]["msgtype"], "m.notice");
    assert_eq!(
        sent["content"]["m.relates_to"],
        json!({"rel_type": "m.thread", "event_id": event, "is_falling_back": true,
        "m.in_reply_to": {"event_id": event}})
    );
    let to = "!a:sim".to_owned();
    let edit =
        Call::Edit { to: to.clone(), message_id: receipt.message_ids[0].clone(), text: "_new_".into() };
    channel.make(edit).await.unwrap();
    assert_eq!(bench.sent("!a:sim")[2]["content"]["m.new_content"]["formatted_body"], "<i>new</i>");
    let react =
        |emoji: &str| Call::React { to: to.clone(), message_id: got.message_id.clone(), emoji: emoji.into() };
    channel.make(react("👍")).await.unwrap();
    channel.make(react("")).await.unwrap();
    let sent = bench.sent("!a:sim");
    assert_eq!((&sent[3]["type"], &sent[3]["content"]), (&json!("m.reaction"), &json!({})));
    assert_eq!(sent[4]["redacts"], sent[3]["event_id"]);
    channel.make(Call::Typing { to, thread_id: None }).await.unwrap();
    assert_eq!(bench.state()["rooms"]["!a:sim"]["typing"], json!([ME]));
    assert_eq!(channel.status().state, ChannelState::Running);
    channel.close().await;
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn rooms_mentions_threads_edits_reactions_redactions_and_media_are_read() {
    let bench = Bench::new(&json!({}), 2);
    bench.act("room", json!({"id": "!g:sim", "name": "G", "members": ["@bob:sim"]}));
    let channel = bench.synced(json!({})).await;
    let ours = channel.send(text("!g:sim", "ours"), None, &never()).await.unwrap().message_ids.remove(0);
    let say = |mut message: Value| {
        message["room"] = json!("!g:sim");
        bench.act("message", message)["event_id"].as_str().unwrap().to_owned()
    };
    let first = say(json!({"text": "just talk"}));
    // It is redacted below, and nothing of it is left then.
    let mut got = receive(&channel, 1).await;
    say(json!({"text": "hey", "mentions": [ME]}));
    say(json!({"text": "@sim:sim is named, and not mentioned", "mentions": []}));
    say(json!({"text": "old client: @sim:sim"}));
    say(json!({"text": "> <@sim:sim> ours\n\nyes", "reply_to": ours, "mentions": []}));
    say(json!({"text": "in thread", "thread": first}));
    bench.act("edit", json!({"room": "!g:sim", "event": first, "text": "better talk"}));
    bench.act("react", json!({"room": "!g:sim", "event": ours, "key": "🔥"}));
    bench.act("redact", json!({"room": "!g:sim", "event": first}));
    say(json!({"text": "beep", "msgtype": "m.notice"}));
    say(json!({"text": "look", "file": {"name": "a.png", "mime": "image/png", "base64": "iVBORw0KGgo="}}));
    got.extend(receive(&channel, 9).await);
    assert_eq!(
        (got[0].chat.kind, got[0].chat.title.as_deref(), got[0].mentions_me),
        (ChatKind::Group, Some("G"), false)
    );
    assert!(got[1].mentions_me && !got[2].mentions_me && got[3].mentions_me);
    assert_eq!(
        (got[4].text.as_str(), got[4].reply_to_id.as_deref(), got[4].mentions_me),
        ("yes", Some(ours.as_str()), true)
    );
    assert_eq!((got[5].thread_id.as_deref(), got[5].reply_to_id.as_deref()), (Some(first.as_str()), None));
    assert_eq!(
        (got[6].kind, got[6].text.as_str(), got[6].message_id.as_str()),
        (InboundKind::Edit, "better talk", first.as_str())
    );
    assert_eq!(
        (got[7].kind, got[7].text.as_str(), got[7].message_id.as_str(), got[7].mentions_me),
        (InboundKind::Reaction, "🔥", ours.as_str(), true)
    );
    assert_eq!(
        (got[8].kind, got[8].text.as_str(), got[8].message_id.as_str()),
        (InboundKind::Edit, "", first.as_str())
    );
    assert_eq!((got[9].text.as_str(), got[9].attachments[0].kind), ("look", AttachmentKind::Image));
    let file = &got[9].attachments[0];
    assert_eq!(&channel.download(file, 1000).await.unwrap()[..], b"\x89PNG\r\n\x1a\n");
    assert_eq!(channel.download(file, 4).await.unwrap_err().code(), Code::Limit);
    for handle in ["https://e.org/x", "mxc://sim/../../x", "mxc://sim", "mxc://../x"] {
        let forged = Attachment { handle: handle.into(), ..file.clone() };
        assert_eq!(channel.download(&forged, 1000).await.unwrap_err().code(), Code::Validation);
    }
    channel.close().await;
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn an_encrypted_room_is_not_read_and_nothing_goes_there_in_clear() {
    let bench = Bench::new(&json!({}), 3);
    let encrypt = |room: &str| {
        let content = json!({"algorithm": "m.megolm.v1.aes-sha2"});
        bench.act("state", json!({"room": room, "type": "m.room.encryption", "content": content}));
    };
    for room in ["!e:sim", "!later:sim", "!clear:sim"] {
        bench.act("room", json!({"id": room}));
    }
    encrypt("!e:sim");
    // Without ever having received anything.
    let channel = bench.channel(json!({}));
    let refused = async |channel: &Channel, room: &str| {
        let error = channel.send(text(room, "secret"), None, &never()).await.unwrap_err();
        assert_eq!(error.code(), Code::ChannelSend);
        assert!(error.message().contains("encrypted"), "{error}");
        let to = room.to_owned();
        let message_id = "$x".to_owned();
        for call in [
            Call::Edit { to: to.clone(), message_id: message_id.clone(), text: "secret".into() },
            Call::React { to, message_id, emoji: "👍".into() },
        ] {
            assert!(channel.make(call).await.unwrap_err().message().contains("encrypted"));
        }
    };
    refused(&channel, "!e:sim").await;
    channel.send(text("!later:sim", "still clear"), None, &never()).await.unwrap();
    encrypt("!later:sim");
    refused(&channel, "!later:sim").await;
    channel.close().await;

    // It becomes encrypted while we listen, and somebody writes there.
    let channel = bench.synced(json!({})).await;
    channel.send(text("!clear:sim", "still clear"), None, &never()).await.unwrap();
    encrypt("!clear:sim");
    bench.act("message", json!({"room": "!clear:sim", "msgtype": "m.bad.encrypted", "text": "?"}));
    receive(&channel, 1).await;
    refused(&channel, "!clear:sim").await;
    refused(&channel, "!e:sim").await;
    for room in ["!e:sim", "!later:sim", "!clear:sim"] {
        assert!(!bench.sent(room).iter().any(|event| event.to_string().contains("secret")), "{room}");
    }
    // Nobody says whether it is: nothing is sent, until somebody does.
    bench.act("room", json!({"id": "!unsure:sim"}));
    let fault =
        Fault::new(Point::Answer, "m.room.encryption", Act::Status { status: 503, retry_after_ms: None });
    bench.net.with(|sim| sim.fault(fault.times(3)));
    let receipt = channel.send(text("!unsure:sim", "in the end"), None, &never()).await.unwrap();
    assert_eq!(
        (receipt.state, receipt.attempts, bench.sent("!unsure:sim").len()),
        (SendState::Accepted, 4, 1)
    );
    channel.close().await;
    assert_eq!(bench.broken_rules(), []);
}

struct Notices(Mutex<Vec<String>>);
impl super::super::platform::Spool for Notices {
    fn spool(&self, _: Vec<InboundMessage>, _: Option<String>) -> Boxed<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }
    fn cursor(&self) -> Option<String> {
        None
    }
    fn verified(&self) {}
    fn notice(&self, notice: String) {
        self.0.lock().unwrap().push(notice);
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_encrypted_is_said_in_the_status() {
    let bench = Bench::new(&json!({}), 4);
    bench.act("room", json!({"id": "!e:sim"}));
    bench.act("room", json!({"id": "!a:sim"}));
    let matrix = Matrix {
        token: Secret::copy_of(TOKEN.as_bytes()),
        base: wire::base("http://sim").unwrap(),
        wire: Arc::new(SimWire(bench.net.clone())),
        join: Join::No,
        me: OnceCell::new(),
        upload_limit: OnceCell::new(),
        known: Mutex::default(),
    };
    let notices = Arc::new(Notices(Mutex::default()));
    let link = Link::new(Arc::clone(&notices) as Arc<dyn super::super::platform::Spool>, never());
    let event = json!({"type": "m.room.encrypted", "event_id": "$1", "sender": "@alice:sim", "content": {"ciphertext": "AwgA"}});
    let joined = || serde_json::from_value::<Joined>(json!({"timeline": {"events": [event]}})).unwrap();
    let mut messages = Vec::new();
    matrix.joined(ME, "!e:sim", joined(), Some("s1"), &link, &mut messages).await.unwrap();
    matrix.joined(ME, "!e:sim", joined(), Some("s1"), &link, &mut messages).await.unwrap();
    assert!(messages.is_empty());
    assert_eq!(notices.0.lock().unwrap().len(), 1);
    assert!(notices.0.lock().unwrap()[0].contains("!e:sim is encrypted"));
    // Somebody who writes in cipher is enough.
    assert_eq!(matrix.in_clear("!e:sim").await.unwrap_err().fate, Fate::Refused);
    assert!(matrix.in_clear("!a:sim").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_room_that_nothing_is_said_of_is_a_group_and_holds_no_other_up() {
    let bench = Bench::new(&json!({}), 21);
    bench.act("room", json!({"id": "!a:sim"}));
    bench.act("room", json!({"id": "!b:sim", "by": "@bob:sim"}));
    let channel = bench.synced(json!({})).await;
    let fail = |path: &str| {
        let fault = Fault::new(Point::Request, path, Act::Status { status: 503, retry_after_ms: None });
        bench.net.with(|sim| sim.fault(fault.times(1_000_000)));
    };
    let say = |room: &str, from: &str, text: &str| {
        bench.act("message", json!({"room": room, "from": from, "text": text}));
    };
    let kinds = async |count| {
        let got = tokio::time::timeout(Duration::from_hours(1), receive(&channel, count)).await;
        let got = got.unwrap_or_else(|_| panic!("deaf: {:?}", channel.status()));
        let kind = |message: InboundMessage| (message.text, message.chat.kind, message.mentions_me);
        got.into_iter().map(kind).collect::<Vec<_>>()
    };
    let direct = |text: &str| (text.to_owned(), ChatKind::Direct, true);
    let group = |text: &str| (text.to_owned(), ChatKind::Group, false);
    fail("!b:sim/joined_members");
    say("!b:sim", "@bob:sim", "b1");
    say("!a:sim", "@alice:sim", "a1");
    let mut got = kinds(2).await;
    got.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(got, [direct("a1"), group("b1")]);
    assert_eq!(channel.status().state, ChannelState::Running);
    assert!(channel.status().error.unwrap().contains("!b:sim"));
    // The homeserver is not asked again with each message, nor does anything wait for that.
    let asked = || {
        let of_room = |event: &Event| matches!(event, Event::Request { request, .. } if request.path.contains("!b:sim/joined_members"));
        bench.net.with(|sim| sim.log().filter(|entry| of_room(&entry.event)).count())
    };
    let before = asked();
    assert!((2..6).contains(&before), "{before}");
    let start = Instant::now();
    for n in 0..10 {
        say("!b:sim", "@bob:sim", &n.to_string());
    }
    say("!a:sim", "@alice:sim", "a2");
    assert!(kinds(11).await.contains(&direct("a2")));
    assert!(asked() == before && start.elapsed() < ASKING, "{:?}", start.elapsed());
    bench.net.with(Sim::clear_faults);
    tokio::time::sleep(UNSURE).await;
    say("!b:sim", "@bob:sim", "b2");
    assert_eq!(kinds(1).await, [direct("b2")]);
    assert_eq!(channel.status().error, None);

    // A homeserver that is not there says so of no room: nothing becomes a group's by that.
    bench.act("room", json!({"id": "!c:sim"}));
    fail("joined_members");
    fail("whoami");
    say("!c:sim", "@alice:sim", "c1");
    let nothing = tokio::time::timeout(Duration::from_mins(5), channel.next(1)).await;
    assert!(nothing.is_err() && channel.status().state != ChannelState::Running, "{:?}", channel.status());
    bench.net.with(Sim::clear_faults);
    assert_eq!(kinds(1).await, [direct("c1")]);
    channel.close().await;
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn invitations_are_accepted_only_if_they_may_be() {
    let listed = json!(["!listed:sim", "@carol:sim"]);
    for (options, joined) in [
        (json!({}), &[][..]),
        (json!({"autoJoin": "off", "autoJoinAllowlist": listed}), &[]),
        (json!({"autoJoin": "allowlist", "autoJoinAllowlist": listed}), &["!listed:sim", "!carols:sim"]),
        (json!({"autoJoin": "always"}), &["!listed:sim", "!carols:sim", "!other:sim"]),
    ] {
        let bench = Bench::new(&json!({}), 5);
        let channel = bench.synced(options.clone()).await;
        bench.act("room", json!({"id": "!listed:sim", "invite": true, "name": "L", "members": ["@bob:sim"]}));
        bench.act("room", json!({"id": "!carols:sim", "invite": true, "by": "@carol:sim", "direct": true}));
        bench.act("room", json!({"id": "!other:sim", "invite": true}));
        bench.act("message", json!({"room": "!carols:sim", "from": "@carol:sim", "text": "before you came"}));
        let reader = Arc::clone(&channel);
        let reading = tokio::spawn(async move { reader.next(1).await });
        tokio::time::sleep(Duration::from_mins(2)).await;
        let state = bench.state();
        let rooms = ["!listed:sim", "!carols:sim", "!other:sim"];
        for room in rooms {
            let wanted = if joined.contains(&room) { "join" } else { "invite" };
            assert_eq!(state["rooms"][room]["membership"], wanted, "{options} {room}");
        }
        if joined.is_empty() {
            reading.abort();
        } else {
            let first = reading.await.unwrap().unwrap().unwrap().remove(0);
            let first: InboundMessage = serde_json::from_str(&first.json).unwrap();
            assert_eq!((first.text.as_str(), first.chat.kind), ("before you came", ChatKind::Direct));
            assert_eq!(state["account_data"]["m.direct"], json!({"@carol:sim": ["!carols:sim"]}));
            // A person is written to where they wrote.
            channel.send(text("@carol:sim", "hello"), None, &never()).await.unwrap();
            assert_eq!(bench.sent("!carols:sim").len(), 1);
            let error = channel.send(text("@nobody:sim", "hello"), None, &never()).await.unwrap_err();
            assert_eq!(error.code(), Code::ChannelSend);
        }
        channel.close().await;
        assert_eq!(bench.broken_rules(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_written_meanwhile_comes_in_order_however_much_it_is() {
    let bench = Bench::new(&json!({}), 6);
    bench.act("room", json!({"id": "!a:sim"}));
    bench.act("message", json!({"room": "!a:sim", "text": "history"}));
    bench.synced(json!({})).await.close().await;
    for n in 0..450 {
        bench.act("message", json!({"room": "!a:sim", "text": n.to_string()}));
    }
    let channel = bench.channel(json!({}));
    let got: Vec<String> = receive(&channel, 450).await.into_iter().map(|message| message.text).collect();
    assert_eq!(got, (0..450).map(|n| n.to_string()).collect::<Vec<_>>());
    channel.close().await;
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn long_texts_and_files_go_out_within_the_limits_and_waits_are_kept() {
    let bench = Bench::new(&json!({"upload_bytes": 1000, "burst": 2}), 7);
    bench.act("room", json!({"id": "!a:sim"}));
    let channel = bench.channel(json!({}));
    let long = "**\"word\"** <tag> & `code` \\ (with a remark) \u{1}\n".repeat(3000);
    let receipt = channel.send(text("!a:sim", &long), None, &never()).await.unwrap();
    assert_eq!(receipt.state, SendState::Accepted);
    let sent = bench.sent("!a:sim");
    assert!(sent.len() > 10 && sent.len() == receipt.message_ids.len());
    let shown: String = sent.iter().map(|event| event["content"]["body"].as_str().unwrap()).collect();
    let bare =
        |text: &str| text.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect::<String>();
    assert_eq!(bare(&shown), bare(&long));
    let file = |data: &'static [u8], name: &str| OutboundFile {
        data: Bytes::from_static(data),
        name: name.into(),
        mime_type: None,
    };
    let files = vec![file(b"\x89PNG\r\n\x1a\n0000", "a&b=/ü.png"), file(b"text", "c.txt")];
    let receipt =
        channel.send(OutboundMessage { files, ..text("!a:sim", "caption") }, None, &never()).await.unwrap();
    assert_eq!(receipt.message_ids.len(), 3);
    let image = bench.sent("!a:sim").remove(sent.len() + 1);
    assert_eq!(
        (&image["content"]["msgtype"], &image["content"]["filename"]),
        (&json!("m.image"), &json!("a&b=/ü.png"))
    );
    let files = vec![OutboundFile { data: Bytes::from(vec![0; 1001]), name: "big".into(), mime_type: None }];
    let error =
        channel.send(OutboundMessage { files, ..text("!a:sim", "") }, None, &never()).await.unwrap_err();
    assert!(error.code() == Code::ChannelSend && error.message().contains("1000"), "{error}");
    assert_eq!(bench.broken_rules(), []);
}

#[tokio::test(start_paused = true)]
async fn a_position_that_the_homeserver_forgot_and_what_it_keeps_for_the_user_are_dealt_with() {
    let bench = Bench::new(&json!({}), 9);
    // Another client has written something that is not of its form.
    let path = "/_matrix/client/v3/user/@sim:sim/account_data/m.direct";
    let direct = json!({"@bob:sim": ["!old:sim"], "@odd:sim": "?"});
    let request = openclaw_channel_sim::Request::new("PUT", path);
    let request = request.header("authorization", &format!("Bearer {TOKEN}")).json(&direct);
    assert_eq!(bench.net.request(request).await.unwrap().status, 200);
    let channel = bench.synced(json!({"autoJoin": "always"})).await;
    bench.act("room", json!({"id": "!carols:sim", "invite": true, "by": "@carol:sim", "direct": true}));
    bench.act("message", json!({"room": "!carols:sim", "from": "@carol:sim", "text": "hello"}));
    receive(&channel, 1).await;
    let wanted = json!({"@bob:sim": ["!old:sim"], "@odd:sim": "?", "@carol:sim": ["!carols:sim"]});
    assert_eq!(bench.state()["account_data"]["m.direct"], wanted);
    channel.close().await;

    let fresh =
        Bench { net: Bench::new(&json!({}), 9).net, log: bench.log.clone(), ..Bench::new(&json!({}), 9) };
    fresh.act("room", json!({"id": "!a:sim"}));
    let channel = fresh.synced(json!({})).await;
    let reader = Arc::clone(&channel);
    let reading = tokio::spawn(async move { receive(&reader, 1).await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    fresh.act("message", json!({"room": "!a:sim", "text": "still here"}));
    assert_eq!(reading.await.unwrap()[0].text, "still here");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_revoked_ends_it() {
    let bench = Bench::new(&json!({}), 8);
    let channel = bench.synced(json!({})).await;
    let reader = Arc::clone(&channel);
    let reading = tokio::spawn(async move { reader.next(1).await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    bench.act("revoke", json!({}));
    let error = reading.await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::ChannelAuth);
    assert!(error.message().contains("M_UNKNOWN_TOKEN") && !error.message().contains(TOKEN), "{error}");
    assert_eq!(channel.status().state, ChannelState::Failed);
}

#[tokio::test(start_paused = true)]
async fn whatever_the_network_does_messages_come_once_and_in_order_and_go_out_once() {
    let seeds = seeds(&[]);
    let few = (seeds.len() as u64) < USUAL_SEEDS;
    let targets = [
        (Point::Request, "/sync"),
        (Point::Answer, "/sync"),
        (Point::Request, "/send/"),
        (Point::Answer, "/send/"),
        (Point::Answer, "whoami"),
        (Point::Answer, "/state/"),
        (Point::Answer, "joined_members"),
        (Point::Request, "m.direct"),
    ];
    let mut struck = 0;
    for &seed in &seeds {
        let bench = Bench::new(&json!({}), seed);
        let _trail = Trail(bench.net.clone());
        bench.act("room", json!({"id": "!a:sim"}));
        bench.act("room", json!({"id": "!b:sim", "by": "@bob:sim"}));
        bench.synced(json!({})).await.close().await;
        for fault in Fault::script(seed, 8, &targets) {
            bench.net.with(|sim| sim.fault(fault));
        }
        let channel = bench.channel(json!({}));
        let reader = Arc::clone(&channel);
        let reading = tokio::spawn(async move { receive(&reader, 12).await });
        let mut receipts: Vec<(i64, Result<SendReceipt>)> = Vec::new();
        for n in 0..12 {
            let (room, from) = if n % 2 == 0 { ("!a:sim", "@alice:sim") } else { ("!b:sim", "@bob:sim") };
            bench.act("message", json!({"room": room, "from": from, "text": n.to_string()}));
            if n % 2 == 0 {
                let sent = channel.send(text("!a:sim", &format!("answer {n:02}")), None, &never()).await;
                receipts.push((n, sent));
            }
            tokio::time::sleep(Duration::from_millis(700 * u64::try_from(n).unwrap())).await;
        }
        let got = tokio::time::timeout(Duration::from_hours(2), reading).await;
        let got = got.unwrap_or_else(|_| panic!("seed {seed}: deaf: {:?}", channel.status())).unwrap();
        for (chat, rest) in [("!a:sim", 0), ("!b:sim", 1)] {
            let of_chat: Vec<i64> =
                got.iter().filter(|m| m.chat.id == chat).map(|m| m.text.parse().unwrap()).collect();
            assert_eq!(of_chat, (0..12).filter(|n| n % 2 == rest).collect::<Vec<i64>>(), "seed {seed}");
        }
        // Nothing else comes.
        assert_eq!(channel.status().waiting, 0, "seed {seed}");
        let events = bench.sent("!a:sim");
        let shown: Vec<&str> =
            events.iter().map(|event| event["content"]["body"].as_str().unwrap()).collect();
        for (n, receipt) in receipts {
            let times = shown.iter().filter(|text| **text == format!("answer {n:02}")).count();
            match receipt {
                Ok(receipt) if receipt.state == SendState::Accepted => {
                    struck += u32::from(receipt.attempts > 1);
                    assert_eq!(times, 1, "seed {seed}: {n}");
                }
                Ok(_) => assert!(times <= 1, "seed {seed}: {n} was sent {times} times"),
                Err(error) => panic!("seed {seed}: {n}: {error}"),
            }
        }
        assert!(shown.is_sorted(), "seed {seed}: {shown:?}");
        channel.close().await;
        assert_eq!(bench.broken_rules(), [], "seed {seed}");
    }
    assert!(few || struck > 0, "no message was ever tried again: the faults have gone wrong");
}

#[test]
fn options_are_checked_and_the_token_is_never_said() {
    let settings = |token: &str, base: Option<&str>, options: Value| {
        let Value::Object(options) = options else { unreachable!() };
        open(Settings {
            account_id: "default".into(),
            secrets: BTreeMap::from([("token".into(), Secret::copy_of(token.as_bytes()))]),
            base_url: base.map(str::to_owned),
            webhook: None,
            options,
            wire: Arc::new(wire::Network::new(crate::http::HttpOptions::default())),
            surroundings: crate::channels::system(),
        })
    };
    let base = Some("https://matrix.example.org/");
    let good = settings(TOKEN, base, json!({"autoJoin": "off"})).unwrap();
    for wrong in [
        settings("token with spaces", base, json!({})),
        settings("", base, json!({})),
        settings(TOKEN, None, json!({})),
        settings(TOKEN, Some("matrix.example.org"), json!({})),
        settings(TOKEN, base, json!({"autoJoin": true})),
        settings(TOKEN, base, json!({"autoJoin": "allowlist", "autoJoinAllowlist": ["#alias:sim"]})),
    ] {
        let error = wrong.err().unwrap();
        assert_eq!(error.code(), Code::Validation);
        assert!(!error.message().contains(TOKEN) && !error.message().contains("spaces"), "{error}");
    }
    for message in [
        text("#alias:sim", "x"),
        text("!a:sim", " "),
        OutboundMessage { reply_to_id: Some("x".into()), ..text("!a:sim", "x") },
    ] {
        assert_eq!(good.render(&message).unwrap_err().code(), Code::Validation);
    }
}

/// The homeserver, but for requests whose path ends with `part`.
fn but(bench: &Bench, part: &'static str, status: Option<u16>) -> Arc<dyn Wire> {
    let says = move |request: &HttpRequest| {
        let body = json!({"errcode": "M_FORBIDDEN", "error": "not so"}).to_string();
        request.url.path().ends_with(part).then(|| status.map(|status| (status, "application/json", body)))
    };
    Arc::new(crate::channels::testing::Saying(says, Some(Box::new(SimWire(bench.net.clone())))))
}

#[tokio::test(start_paused = true)]
async fn a_room_that_cannot_be_joined_keeps_nothing_else_from_coming() {
    for status in [None, Some(403), Some(429), Some(502)] {
        let bench = Bench::new(&json!({}), 1);
        bench.act("room", json!({"id": "!a:sim"}));
        let options = json!({"autoJoin": "always"});
        let channel = bench.sync(bench.channel_over(but(&bench, "/join", status), options)).await;
        bench.act("room", json!({"id": "!dead:sim", "invite": true, "by": "@mallory:sim", "direct": true}));
        bench.act("message", json!({"room": "!a:sim", "text": "one"}));
        let got = tokio::time::timeout(Duration::from_mins(5), receive(&channel, 1)).await;
        assert_eq!(got.expect("deaf").remove(0).text, "one", "{status:?}");
        bench.act("message", json!({"room": "!a:sim", "text": "two"}));
        let got = tokio::time::timeout(Duration::from_mins(5), receive(&channel, 1)).await;
        assert_eq!(got.expect("deaf").remove(0).text, "two", "{status:?}");
        channel.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_the_homeserver_does_not_tell_keeps_nothing_else_from_coming() {
    for status in [None, Some(403), Some(502)] {
        let bench = Bench::new(&json!({}), 1);
        bench.act("room", json!({"id": "!a:sim"}));
        bench.synced(json!({})).await.close().await;
        for n in 0..150 {
            bench.act("message", json!({"room": "!a:sim", "text": n.to_string()}));
        }
        let channel = bench.channel_over(but(&bench, "/messages", status), json!({}));
        let last = async { while receive(&channel, 1).await.pop().unwrap().text != "149" {} };
        let limit = Duration::from_mins(if status == Some(403) { 5 } else { 30 });
        tokio::time::timeout(limit, last).await.expect("deaf");
        channel.close().await;
    }
}

#[test]
fn whatever_one_room_of_a_sync_is_the_others_are_read() {
    let event = json!({"type": "m.room.message", "event_id": "$1", "sender": "@a:b", "origin_server_ts": 1,
        "content": {"msgtype": "m.text", "body": "> <@a:b> x\n\ny", "m.mentions": {"user_ids": ["@sim:sim"]},
            "m.relates_to": {"rel_type": "m.thread", "event_id": "$0", "m.in_reply_to": {"event_id": "$0"}}}});
    let file = json!({"type": "m.room.message", "event_id": "$2", "sender": "@a:b", "content": {"msgtype": "m.image",
        "body": "b", "filename": "f", "url": "mxc://a/b", "info": {"size": 3, "mimetype": "a/b"}}});
    let room = json!({"timeline": {"events": [event, file], "limited": true, "prev_batch": "p"},
        "state": {"events": [{"type": "m.room.member", "state_key": "@a:b", "content": {"displayname": "A"}}]}});
    let chat = Chat { kind: ChatKind::Group, id: "!a:b".into(), title: None };
    for seed in 0..crate::channels::testing::MUTANTS {
        let strange = crate::channels::testing::mutated(&room, seed);
        for (kind, other) in [("join", "invite"), ("invite", "leave"), ("leave", "join")] {
            let mut rooms = json!({"join": {"!good:b": room}});
            rooms[kind]["!strange:b"] = strange.clone();
            rooms[other]["!other:b"] = json!(null);
            let sync: Sync = serde_json::from_str(&json!({"next_batch": "n", "rooms": rooms}).to_string())
                .unwrap_or_else(|error| panic!("{error}: {rooms}"));
            assert_eq!(sync.rooms.join["!good:b"].timeline.events.len(), 2);
        }
        for event in [&event, &file] {
            let strange = crate::channels::testing::mutated(event, seed);
            let raw = RawValue::from_string(strange.to_string()).unwrap();
            _ = inbound::read(&strange, &raw, ME, &chat, None, |_| false);
        }
    }
}
