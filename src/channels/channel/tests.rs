use super::*;
use crate::channels::log::memory::MemoryLog;
use crate::channels::log::{Line, Placed};
use crate::channels::testing::{Run, Scripted, Simulated, inbound};
use crate::secrets::Secret;

fn channel(platform: &Scripted, log: &MemoryLog, locks: &std::path::Path, seed: u64) -> Channel {
    let options = Options {
        account_id: "default".into(),
        log: Arc::new(log.clone()),
        surroundings: Simulated::surroundings(seed),
        locks: locks.to_owned(),
    };
    Channel::new(Box::new(platform.clone()), options)
}

fn script(runs: impl IntoIterator<Item = Run>) -> Scripted {
    let platform = Scripted::default();
    platform.world.lock().unwrap().runs.extend(runs);
    platform
}

#[tokio::test(start_paused = true)]
async fn messages_come_in_order_across_connections_and_once() {
    let locks = tempfile::tempdir().unwrap();
    let platform = script([
        Run::Ends(vec!["1", "2"], Some(Code::Network)),
        Run::Ends(vec!["2", "3"], None),
        Run::Panics,
        Run::Ends(vec!["3", "4"], Some(Code::Timeout)),
    ]);
    let channel = channel(&platform, &MemoryLog::default(), locks.path(), 1);
    assert_eq!(channel.status().state, ChannelState::Stopped);
    let mut ids = Vec::new();
    while ids.len() < 4 {
        for delivery in channel.next(10).await.unwrap().unwrap() {
            let message: InboundMessage = serde_json::from_str(&delivery.json).unwrap();
            let whole: serde_json::Value = serde_json::from_str(&delivery.json).unwrap();
            assert_eq!((&whole["channel"], &whole["accountId"]), (&"scripted".into(), &"default".into()));
            assert_eq!(message.text, inbound(&message.id).text);
            ids.push(message.id);
            channel.ack(&[delivery.number]).await.unwrap();
        }
    }
    assert_eq!(ids, ["1", "2", "3", "4"]);
    channel.close().await;
    assert_eq!(channel.status().state, ChannelState::Stopped);
    assert!(channel.next(1).await.unwrap().is_none());
    let error = channel.send(OutboundMessage::default(), None, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.code(), Code::ChannelClosed);
    assert_eq!(platform.world.lock().unwrap().open, 0);
}

#[tokio::test(start_paused = true)]
async fn health_is_the_last_proof_and_not_an_open_connection() {
    let locks = tempfile::tempdir().unwrap();
    let platform = script([Run::Stands]);
    let channel = Arc::new(channel(&platform, &MemoryLog::default(), locks.path(), 1));
    let reader = Arc::clone(&channel);
    let reading = tokio::spawn(async move { reader.next(1).await });
    while channel.status().state != ChannelState::Running {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(777)).await;
        assert!(channel.status().last_verified.unwrap() <= Duration::from_secs(1));
    }
    let second = channel.next(1).await.unwrap_err();
    assert_eq!(second.code(), Code::Validation);
    channel.close().await;
    assert!(reading.await.unwrap().unwrap().is_none());
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(channel.status().last_verified.unwrap() >= Duration::from_secs(100));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_token_ends_the_iteration_with_the_platforms_words() {
    let locks = tempfile::tempdir().unwrap();
    let platform = script([Run::Ends(vec!["1"], Some(Code::ChannelAuth))]);
    let channel = channel(&platform, &MemoryLog::default(), locks.path(), 1);
    assert_eq!(channel.next(10).await.unwrap().unwrap().len(), 1);
    let error = channel.next(10).await.unwrap_err();
    assert_eq!(error.code(), Code::ChannelAuth);
    assert_eq!(channel.status().state, ChannelState::Failed);
    assert_eq!(channel.status().error.as_deref(), Some("the script says so"));
    tokio::time::sleep(Duration::from_hours(24)).await;
    assert_eq!(platform.world.lock().unwrap().connections.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_acknowledged_the_status_says_why_nothing_comes_and_closing_ends_the_wait() {
    for ends in [None, Some(Code::ChannelAuth)] {
        let locks = tempfile::tempdir().unwrap();
        let large: &'static str = "x".repeat(inbox::FLYING).leak();
        let platform = script([Run::Ends(vec![large, "2"], ends), Run::Stands]);
        let channel = Arc::new(channel(&platform, &MemoryLog::default(), locks.path(), 1));
        let first = channel.next(10).await.unwrap().unwrap();
        assert_eq!((first.len(), channel.status().waiting), (1, 1));
        let reader = Arc::clone(&channel);
        let reading = tokio::spawn(async move { reader.next(10).await });
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert!(!reading.is_finished());
        let said = channel.status().error.unwrap();
        assert!(
            said.contains(if ends.is_none() { "not acknowledged" } else { "the script says so" }),
            "{said}"
        );
        if ends.is_none() {
            channel.ack(&[first[0].number]).await.unwrap();
            assert_eq!(reading.await.unwrap().unwrap().unwrap().len(), 1);
            assert_eq!(channel.status().error, None);
        } else {
            channel.close().await;
            assert!(reading.await.unwrap().unwrap().is_none());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_platforms_wait_is_obeyed_exactly() {
    let locks = tempfile::tempdir().unwrap();
    let platform = script([Run::RetryAfter(98_765), Run::Ends(vec!["1"], None)]);
    let channel = channel(&platform, &MemoryLog::default(), locks.path(), 1);
    channel.next(1).await.unwrap();
    let connections = platform.world.lock().unwrap().connections.clone();
    assert_eq!((connections[1] - connections[0]).as_millis(), 98_765);
}

const IDS: [&str; 6] = ["0", "1", "2", "3", "4", "5"];

#[tokio::test(start_paused = true)]
async fn thousands_of_faults_leave_one_connection_bounded_waits_and_every_message() {
    let cases = std::env::var("OPENCLAW_CORE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    for seed in 1..=cases {
        let surroundings = Simulated::surroundings(seed);
        let below = |bound: u32| {
            let chance = surroundings.chance() * f64::from(bound);
            (0..bound).rev().find(|n| f64::from(*n) <= chance).unwrap_or(0)
        };
        let mut runs = Vec::new();
        let mut next = 0;
        while next < IDS.len() {
            let count = usize::try_from(below(3)).unwrap().min(IDS.len() - next);
            let ids: Vec<_> = IDS[next.saturating_sub(1)..next + count].to_vec();
            next += count;
            runs.push(match below(7) {
                0 => Run::Ends(ids, None),
                1 => Run::Ends(ids, Some(Code::ChannelConflict)),
                2 => Run::Ends(ids, Some(Code::ChannelRateLimited)),
                3 => Run::Ends(ids, Some(Code::Timeout)),
                4 => Run::Ends(ids, Some(Code::Internal)),
                5 => {
                    next -= count;
                    [Run::Panics, Run::RetryAfter(u64::from(below(100_000)))]
                        [usize::try_from(below(2)).unwrap()]
                    .clone()
                }
                _ => Run::Ends(ids, Some(Code::Network)),
            });
        }
        let locks = tempfile::tempdir().unwrap();
        let platform = script(runs);
        let channel = channel(&platform, &MemoryLog::default(), locks.path(), seed);
        let mut got = Vec::new();
        while got.len() < IDS.len() {
            for delivery in channel.next(10).await.unwrap().unwrap() {
                got.push(serde_json::from_str::<InboundMessage>(&delivery.json).unwrap().id);
                channel.ack(&[delivery.number]).await.unwrap();
            }
        }
        assert_eq!(got, IDS, "seed {seed}");
        channel.close().await;
        let world = platform.world.lock().unwrap();
        assert_eq!((world.open, world.most_open), (0, 1), "seed {seed}");
        let longest = LONGEST_CONFLICT.max(Duration::from_secs(100));
        assert!(world.connections.windows(2).all(|pair| pair[1] - pair[0] <= longest), "seed {seed}");
    }
}

#[tokio::test]
async fn a_second_poller_of_one_bot_waits_until_the_first_is_gone() {
    let locks = tempfile::tempdir().unwrap();
    let identity = Some(Secret::copy_of(b"123:token"));
    let platform = Scripted { identity, ..Scripted::default() };
    let first = Arc::new(channel(&platform, &MemoryLog::default(), locks.path(), 1));
    let reader = Arc::clone(&first);
    let reading = tokio::spawn(async move { reader.next(1).await });
    while first.status().state != ChannelState::Running {
        tokio::task::yield_now().await;
    }
    // The same store: nobody else may have its inbox.
    let twin = channel(&platform, &MemoryLog::default(), locks.path(), 2);
    let error = twin.next(1).await.unwrap_err();
    assert_eq!(error.code(), Code::ChannelConflict);
    assert!(error.message().contains("event store"), "{error}");
    drop(twin);
    // Another store, the same token: it waits, and says for what.
    let mut options = Options {
        account_id: "other".into(),
        log: Arc::new(MemoryLog::default()),
        surroundings: Simulated::surroundings(3),
        locks: locks.path().to_owned(),
    };
    options.account_id = "other".into();
    let second = Arc::new(Channel::new(Box::new(platform.clone()), options));
    let reader = Arc::clone(&second);
    let waiting = tokio::spawn(async move { reader.next(1).await });
    while second.status().state != ChannelState::Conflict {
        tokio::task::yield_now().await;
    }
    assert!(second.status().error.unwrap().contains("on this machine"));
    assert_eq!(platform.world.lock().unwrap().connections.len(), 1);
    first.close().await;
    reading.await.unwrap().unwrap();
    second.close().await;
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_message_that_the_adapter_gives_up_on_the_way_to_the_disk_does_not_keep_back_the_next() {
    let locks = tempfile::tempdir().unwrap();
    let platform = script([Run::GivesUp(vec!["1", "2"])]);
    let channel = channel(&platform, &MemoryLog::default(), locks.path(), 1);
    let mut ids = Vec::new();
    while ids.len() < 2 {
        let next = tokio::time::timeout(Duration::from_mins(1), channel.next(10)).await;
        for delivery in next.expect("the inbox is stuck").unwrap().unwrap() {
            ids.push(serde_json::from_str::<InboundMessage>(&delivery.json).unwrap().id);
        }
    }
    assert_eq!(ids, ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_being_sent_when_a_channel_closes_has_its_outcome_and_the_next_channel_knows_it() {
    let (locks, log) = (tempfile::tempdir().unwrap(), MemoryLog::default());
    let platform = script([]);
    platform.world.lock().unwrap().answers.extend([crate::channels::testing::Answer::Slow(2_000)]);
    let text = OutboundMessage { to: "a".into(), text: "one".into(), ..OutboundMessage::default() };
    let (first, cancel) = (channel(&platform, &log, locks.path(), 1), CancellationToken::new());
    let close = async {
        platform.called.notified().await;
        first.close().await;
        // Only now may somebody else have what is queued.
        channel(&platform, &log, locks.path(), 1).send(text.clone(), Some("key".into()), &cancel).await
    };
    let (sent, again) = tokio::join!(first.send(text.clone(), Some("key".into()), &cancel), close);
    assert_eq!(sent.unwrap().message_ids, ["id of one"]);
    let again = again.unwrap();
    assert_eq!(
        (again.state, again.message_ids),
        (crate::channels::message::SendState::Accepted, vec!["id of one".to_owned()])
    );
    assert_eq!(platform.shown(), ["one"]);
}

/// A log on a slow disk: what nobody waits for is there a second later.
struct SlowLog(MemoryLog);

impl Log for SlowLog {
    fn append(&self, session: String, lines: Vec<Line>) -> Boxed<'static, Result<Vec<String>>> {
        self.0.append(session, lines)
    }

    fn append_soon(&self, session: String, lines: Vec<Line>) -> Boxed<'static, Result<()>> {
        let log = self.0.clone();
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            log.append(session, lines).await.map(drop)
        })
    }

    fn sessions<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Result<Vec<String>>> {
        self.0.sessions(prefix)
    }

    fn read<'a>(
        &'a self,
        session: &'a str,
        after: Option<u64>,
        most: usize,
    ) -> Boxed<'a, Result<Vec<Placed>>> {
        self.0.read(session, after, most)
    }

    fn delete(&self, session: String) -> Boxed<'static, Result<()>> {
        self.0.delete(session)
    }

    fn writer(&self) -> String {
        self.0.writer()
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_released_before_a_channel_closes_is_new_to_the_next_channel() {
    let (locks, log) = (tempfile::tempdir().unwrap(), MemoryLog::default());
    let platform = script([Run::Ends(vec!["1", "2"], None)]);
    let open = || {
        let options = Options {
            account_id: "default".into(),
            log: Arc::new(SlowLog(log.clone())),
            surroundings: Simulated::surroundings(1),
            locks: locks.path().to_owned(),
        };
        Channel::new(Box::new(platform.clone()), options)
    };
    let first = open();
    let taken = first.next(10).await.unwrap().unwrap();
    assert_eq!(taken.len(), 2);
    first.release(&[taken[1].number]);
    first.close().await;
    let second = open();
    let again = second.next(10).await.unwrap().unwrap();
    assert_eq!(again.iter().map(|delivery| delivery.redelivered).collect::<Vec<_>>(), [true]);
    second.ack(&[again[0].number]).await.unwrap();
    let fresh = second.next(10).await.unwrap().unwrap();
    assert_eq!(fresh.iter().map(|delivery| delivery.redelivered).collect::<Vec<_>>(), [false]);
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_closed_while_it_opens_leaves_its_account_to_the_next() {
    let (locks, log) = (tempfile::tempdir().unwrap(), MemoryLog::default());
    let platform = script([Run::Ends(vec!["1"], None)]);
    let first = channel(&platform, &log, locks.path(), 1);
    let mut next = Box::pin(first.next(1));
    assert!(futures_util::poll!(next.as_mut()).is_pending());
    first.close().await;
    _ = next.await;
    let second = channel(&platform, &log, locks.path(), 1);
    assert_eq!(second.next(1).await.unwrap().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_answers_and_breaks_at_once_is_not_called_without_pause() {
    for code in [Code::Network, Code::StoreClosed, Code::ChannelConflict] {
        let locks = tempfile::tempdir().unwrap();
        let platform = script(std::iter::repeat_n(Run::Ends(vec!["1"], Some(code)), 10_000));
        let channel = channel(&platform, &MemoryLog::default(), locks.path(), 1);
        channel.next(1).await.unwrap();
        tokio::time::sleep(Duration::from_hours(1)).await;
        let connections = platform.world.lock().unwrap().connections.len();
        assert!((10..300).contains(&connections), "{code:?}: {connections} connections in an hour");
    }
}
