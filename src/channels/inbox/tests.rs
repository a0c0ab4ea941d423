use std::collections::{HashSet, VecDeque};
use std::task::Poll;
use std::time::Duration;

use serde_json::{Value, json};

use super::queue::ALBUM;
use super::*;
use crate::channels::log::memory::MemoryLog;

fn message(id: &str) -> Incoming {
    Incoming { id: id.into(), json: json!({ "id": id, "text": format!("text of {id}") }).to_string() }
}

async fn open(log: &MemoryLog) -> Result<Inbox> {
    Inbox::open(Arc::new(log.clone()), "telegram:default").await
}

fn id(delivery: &Delivery) -> String {
    serde_json::from_str::<Value>(&delivery.json).unwrap()["id"].as_str().unwrap().to_owned()
}

/// Everything that waits.
async fn drain(inbox: &Inbox) -> Vec<Delivery> {
    let mut all = Vec::new();
    while inbox.waiting() > 0 {
        all.extend(inbox.take(3).await.unwrap());
    }
    all
}

/// What the world outside saw before the power went.
#[derive(Default)]
struct Seen {
    /// The platform was told that these have arrived.
    told: Vec<String>,
    /// The platform sent these.
    sent: Vec<String>,
    delivered: Vec<String>,
    acked: Vec<String>,
}

/// A day of a bot, until the log fails: arrivals in batches, some of them twice; deliveries; acknowledgements out of order.
async fn day(log: &MemoryLog, seen: &mut Seen) -> Result<()> {
    let inbox = open(log).await?;
    let mut unacked: VecDeque<Delivery> = VecDeque::new();
    for round in 0..6 {
        let mut batch: Vec<_> = (0..3).map(|n| message(&format!("{}", round * 3 + n))).collect();
        seen.sent.extend(batch.iter().map(|message| message.id.clone()));
        if round > 0 {
            batch.insert(0, message(&format!("{}", round * 3 - 1)));
        }
        inbox.spool(batch.clone(), Some(format!("cursor {round}"))).await?;
        seen.told.extend(batch.into_iter().map(|message| message.id));
        let taken = inbox.take(2 + round % 2).await?;
        seen.delivered.extend(taken.iter().map(id));
        unacked.extend(taken);
        if round % 2 == 1 {
            for delivery in [unacked.pop_back(), unacked.pop_front()].into_iter().flatten() {
                inbox.ack(&[delivery.number]).await?;
                seen.acked.push(id(&delivery));
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn wherever_the_power_goes_nothing_is_lost_doubled_or_out_of_order() {
    let whole = MemoryLog::default();
    day(&whole, &mut Seen::default()).await.unwrap();
    let appends = whole.appends();
    assert!(appends > 15, "{appends} appends are no matrix");
    // Each point twice: what was being written is there, or is not.
    for end in 0..=appends {
        let log = MemoryLog::default();
        log.end_after(end);
        let mut seen = Seen::default();
        let outcome = day(&log, &mut seen).await;
        assert_eq!(outcome.is_err(), end < appends);
        let rebooted = log.reboot();
        let inbox = open(&rebooted).await.unwrap();
        // The platform sends again what it was not told about, and, as it may, the latest that it was told about.
        let known: HashSet<&String> = seen.told.iter().collect();
        let mut again: Vec<_> =
            seen.sent.iter().filter(|id| !known.contains(id)).map(|id| message(id)).collect();
        again.extend(seen.told.last().map(|id| message(id)));
        inbox.spool(again, None).await.unwrap();
        let second = drain(&inbox).await;
        let ids: Vec<String> = second.iter().map(id).collect();
        let numbers: Vec<u32> = ids.iter().map(|id| id.parse().unwrap()).collect();
        assert!(numbers.is_sorted(), "{end}: out of order: {ids:?}");
        assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]), "{end}: doubled: {ids:?}");
        for sent in &seen.sent {
            let (before, after) = (seen.delivered.contains(sent), ids.contains(sent));
            assert!(before || after, "{end}: {sent} was lost");
            if seen.acked.contains(sent) {
                assert!(!after, "{end}: {sent} was acknowledged and came again");
            } else {
                assert!(after, "{end}: {sent} was not acknowledged and did not come again");
            }
        }
        for delivery in &second {
            if seen.delivered.contains(&id(delivery)) {
                assert!(
                    delivery.redelivered,
                    "{end}: {} came a second time and did not say so",
                    id(delivery)
                );
            }
        }
        // One crash after the other: what was delivered each time comes no more.
        let mut log = rebooted.reboot();
        let mut last: HashSet<_> = second.iter().map(id).collect();
        for _ in 0..DELIVERIES {
            let again = open(&log).await.unwrap();
            let delivered = drain(&again).await;
            assert!(delivered.iter().all(|d| d.redelivered && last.contains(&id(d))), "{end}");
            last = delivered.iter().map(id).collect();
            log = log.reboot();
        }
        assert!(last.is_empty(), "{end}: {last:?}");
    }
}

#[tokio::test]
async fn the_cursor_outlives_a_restart_and_the_segments() {
    let log = MemoryLog::default();
    let inbox = open(&log).await.unwrap();
    inbox.spool(vec![message("first")], Some("7".into())).await.unwrap();
    // The last volume is half full.
    let messages = u64::from(SEGMENT) * (4 * KEPT + KEPT / 2);
    for n in 0..messages {
        inbox.spool(vec![message(&n.to_string())], None).await.unwrap();
        let taken = inbox.take(10).await.unwrap();
        inbox.ack(&taken.iter().map(|d| d.number).collect::<Vec<_>>()).await.unwrap();
    }
    // The segment that is filled, and two volumes of pasts.
    assert!(log.sessions_now() <= 4, "{} sessions are left", log.sessions_now());
    let log = log.reboot();
    let again = open(&log).await.unwrap();
    assert_eq!(again.cursor().as_deref(), Some("7"));
    assert_eq!(again.waiting(), 0);
    // What came lately is known, by what was said of the segments that are gone.
    let known = u64::from(SEGMENT) * (KEPT - 1);
    let lately = (messages - known..messages).map(|n| message(&n.to_string()));
    again.spool(lately.chain([message("new")]).collect(), None).await.unwrap();
    let new = drain(&again).await;
    assert_eq!(new.iter().map(id).collect::<Vec<_>>(), ["new"]);
}

#[tokio::test]
async fn a_segment_goes_when_the_disk_takes_its_past_and_not_before_an_older_one() {
    let log = MemoryLog::default();
    let inbox = open(&log).await.unwrap();
    let mut taken = Vec::new();
    for n in 0..4 * SEGMENT {
        inbox.spool(vec![message(&n.to_string())], Some(n.to_string())).await.unwrap();
        taken.extend(inbox.take(10).await.unwrap().iter().map(|d| d.number));
    }
    assert_eq!(log.sessions_now(), 4);
    // All but the first: what says so may stand in the segments behind it.
    inbox.ack(&taken[1..]).await.unwrap();
    assert_eq!(log.sessions_now(), 4);
    log.refuse_pasts(true);
    inbox.ack(&taken[..1]).await.unwrap();
    assert_eq!(log.sessions_now(), 4);
    assert_eq!(open(&log.reboot()).await.unwrap().waiting(), 0);
    log.refuse_pasts(false);
    // The next that is done. One segment is new, and there is a volume of pasts.
    inbox.spool(vec![message("last")], None).await.unwrap();
    let last = inbox.take(1).await.unwrap();
    inbox.ack(&[last[0].number]).await.unwrap();
    assert_eq!(log.sessions_now(), 2);
    let again = open(&log.reboot()).await.unwrap();
    assert_eq!(again.cursor(), Some((4 * SEGMENT - 1).to_string()));
    again.spool((0..4 * SEGMENT).map(|n| message(&n.to_string())).collect(), None).await.unwrap();
    assert_eq!(again.waiting(), 0);
}

#[tokio::test]
async fn an_id_is_not_forgotten_for_messages_that_a_full_disk_did_not_take() {
    let log = MemoryLog::default();
    let inbox = open(&log).await.unwrap();
    inbox.spool(vec![message("first")], None).await.unwrap();
    let taken = drain(&inbox).await;
    inbox.ack(&[taken[0].number]).await.unwrap();
    log.fill(true);
    for n in 0..u64::from(SEGMENT) * 3 * KEPT {
        inbox.spool(vec![message(&n.to_string())], None).await.unwrap_err();
    }
    log.fill(false);
    for inbox in [&inbox, &open(&log.reboot()).await.unwrap()] {
        inbox.spool(vec![message("first")], None).await.unwrap();
        assert_eq!(inbox.waiting(), 0);
    }
}

#[tokio::test]
async fn whoever_ends_the_message_that_held_up_many_segments_does_not_wait_for_all_of_them() {
    let log = MemoryLog::default();
    let inbox = open(&log).await.unwrap();
    let mut taken = Vec::new();
    for n in 0..20 * SEGMENT {
        inbox.spool(vec![message(&n.to_string())], None).await.unwrap();
        taken.extend(inbox.take(10).await.unwrap().iter().map(|d| d.number));
    }
    inbox.ack(&taken[1..]).await.unwrap();
    let before = log.appends();
    inbox.ack(&taken[..1]).await.unwrap();
    let appends = log.appends() - before;
    assert!((3..20).contains(&appends), "{appends} writes for one acknowledgement");
    // What is left goes with those that come.
    for n in 0..2 * SEGMENT {
        inbox.spool(vec![message(&format!("later {n}"))], None).await.unwrap();
        let later = inbox.take(1).await.unwrap();
        inbox.ack(&[later[0].number]).await.unwrap();
    }
    // One that is filled, one that is full, and two volumes of pasts.
    assert!(log.sessions_now() <= 5, "{}", log.sessions_now());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_several_write_at_the_same_time_comes_once_while_segments_go() {
    const MESSAGES: usize = 400;
    let folder = tempfile::tempdir().unwrap();
    let store = crate::events::EventStore::open(folder.path(), crate::events::Options::default()).unwrap();
    let log: Arc<dyn Log> = Arc::new(store);
    let inbox = Arc::new(Inbox::open(Arc::clone(&log), "telegram:default").await.unwrap());
    let spooling = Arc::clone(&inbox);
    // Each message by up to three at a time.
    let writer = tokio::spawn(async move {
        for round in 0..MESSAGES / 10 {
            let calls = (0..4).map(|call| {
                let mine = (0..10).filter(|n| n % 4 == call || n / 2 % 4 == call || n / 3 == call);
                let messages = mine.map(|n| message(&(round * 10 + n).to_string())).collect();
                let inbox = Arc::clone(&spooling);
                tokio::spawn(async move { inbox.spool(messages, Some(round.to_string())).await.unwrap() })
            });
            for call in calls.collect::<Vec<_>>() {
                call.await.unwrap();
            }
        }
    });
    let mut got = Vec::new();
    let mut acks = tokio::task::JoinSet::new();
    while got.len() < MESSAGES {
        let taken = inbox.take(7).await.unwrap();
        got.extend(taken.iter().map(|delivery| id(delivery).parse::<usize>().unwrap()));
        let inbox = Arc::clone(&inbox);
        acks.spawn(async move {
            for delivery in taken.into_iter().rev() {
                inbox.ack(&[delivery.number]).await.unwrap();
            }
        });
    }
    writer.await.unwrap();
    acks.join_all().await;
    got.sort_unstable();
    assert_eq!(got, (0..MESSAGES).collect::<Vec<_>>());
    assert_eq!(inbox.waiting(), 0);
    drop(inbox);
    let prefix = format!("channel:telegram:default:in:{}:", log.writer());
    assert!(log.sessions(&prefix).await.unwrap().len() < MESSAGES / SEGMENT as usize / 2);
    let again = Inbox::open(log, "telegram:default").await.unwrap();
    assert_eq!(again.waiting(), 0);
}

#[tokio::test]
async fn numbers_and_the_cursor_go_on_where_the_disk_was_full_when_a_segment_was_begun() {
    let log = MemoryLog::default();
    let inbox = open(&log).await.unwrap();
    let mut known: Vec<_> = (0..SEGMENT).map(|n| message(&n.to_string())).collect();
    inbox.spool(known.clone(), Some("7".into())).await.unwrap();
    let taken = drain(&inbox).await;
    inbox.ack(&taken.iter().map(|d| d.number).collect::<Vec<_>>()).await.unwrap();
    log.fail_next();
    inbox.spool(vec![message("a")], None).await.unwrap_err();
    // Nothing but the past of the first segment.
    assert_eq!(log.sessions_now(), 1);
    let mut log = log.reboot();
    for round in 1..4 {
        let inbox = open(&log).await.unwrap();
        assert_eq!(inbox.cursor().as_deref(), Some("7"), "{round}");
        // What is done is known; what comes is another message than any before, also to what was acknowledged before.
        known.extend((0..=SEGMENT).map(|n| message(&format!("{round} {n}"))));
        inbox.spool(known.clone(), None).await.unwrap();
        let delivered = drain(&inbox).await;
        assert!(delivered.iter().all(|d| id(d).starts_with(&round.to_string())), "{round}");
        assert_eq!(delivered.len(), SEGMENT as usize + 1, "{round}");
        assert!(delivered.iter().all(|d| taken.iter().all(|before| before.number < d.number)), "{round}");
        inbox.ack(&delivered.iter().map(|d| d.number).collect::<Vec<_>>()).await.unwrap();
        log = log.reboot();
    }
}

#[tokio::test]
async fn the_same_message_twice_at_the_same_time_is_one_and_both_wait_for_the_disk() {
    let log = MemoryLog::default();
    let inbox = open(&log).await.unwrap();
    let twice = tokio::join!(
        inbox.spool(vec![message("a")], None),
        inbox.spool(vec![message("a"), message("b")], None)
    );
    twice.0.unwrap();
    twice.1.unwrap();
    assert_eq!(drain(&inbox).await.iter().map(id).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(open(&log.reboot()).await.unwrap().waiting(), 2);
}

#[tokio::test]
async fn what_was_taken_and_not_looked_at_comes_again_as_new() {
    let log = MemoryLog::default();
    let inbox = open(&log).await.unwrap();
    inbox.spool((0..4).map(|n| message(&n.to_string())).collect(), None).await.unwrap();
    let taken = inbox.take(3).await.unwrap();
    inbox.release(&[taken[1].number, taken[2].number]);
    let again = inbox.take(10).await.unwrap();
    assert_eq!(
        again.iter().map(|d| (id(d), d.redelivered)).collect::<Vec<_>>(),
        [("1".into(), false), ("2".into(), false), ("3".into(), false)]
    );
    tokio::task::yield_now().await;
    let after = open(&log.reboot()).await.unwrap();
    assert!(drain(&after).await.iter().all(|delivery| delivery.redelivered));
}

#[tokio::test]
async fn what_came_after_the_message_that_ended_the_process_each_time_is_not_put_aside() {
    let log = MemoryLog::default();
    let inbox = open(&log).await.unwrap();
    inbox.spool((0..4).map(|n| message(&n.to_string())).collect(), None).await.unwrap();
    assert_eq!(inbox.take(10).await.unwrap().len(), 4);
    let mut log = log.reboot();
    for _ in 1..DELIVERIES {
        let again = open(&log).await.unwrap();
        assert_eq!(again.take(10).await.unwrap().iter().map(id).collect::<Vec<_>>(), ["0"]);
        log = log.reboot();
    }
    let after = open(&log).await.unwrap();
    let left: Vec<_> = drain(&after).await.iter().map(|d| (id(d), d.redelivered)).collect();
    assert_eq!(left, ["1", "2", "3"].map(|id| (id.to_owned(), true)));
}

#[tokio::test]
async fn a_wait_that_is_dropped_takes_nothing_away() {
    let log = MemoryLog::default();
    let inbox = Arc::new(open(&log).await.unwrap());
    let (mut ids, mut dropped) = (Vec::new(), 0);
    for n in 0..50 {
        // Waits and takes; begins too late to be marked with the message; waits and is dropped before it takes.
        let mut take = Box::pin(inbox.take(1));
        let mut polled = if n % 3 == 1 { Poll::Pending } else { futures_util::poll!(take.as_mut()) };
        inbox.spool(vec![message(&n.to_string())], None).await.unwrap();
        if polled.is_pending() && n % 3 != 2 {
            polled = futures_util::poll!(take.as_mut());
        }
        match polled {
            Poll::Ready(taken) => ids.extend(taken.unwrap().iter().map(id)),
            Poll::Pending => dropped += 1,
        }
        // One caller at a time.
        drop(take);
        if n % 5 == 0 {
            ids.extend(drain(&inbox).await.iter().map(id));
        }
    }
    assert!(dropped > 10, "{dropped}");
    ids.extend(drain(&inbox).await.iter().map(id));
    assert_eq!(ids, (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn where_somebody_waits_a_message_and_its_mark_are_one_write() {
    let log = MemoryLog::default();
    let inbox = open(&log).await.unwrap();
    let take = inbox.take(2);
    tokio::pin!(take);
    assert!(futures_util::poll!(take.as_mut()).is_pending());
    let before = log.appends();
    inbox.spool(["a", "b", "c"].map(message).into(), None).await.unwrap();
    assert_eq!(take.await.unwrap().iter().map(id).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(log.appends(), before + 1);
    // What was marked has been delivered once, as far as anybody knows; what was not is new.
    let again = open(&log.reboot()).await.unwrap();
    let marks: Vec<_> = drain(&again).await.into_iter().map(|delivery| delivery.redelivered).collect();
    assert_eq!(marks, [true, true, false]);
}

#[tokio::test]
async fn a_log_that_fails_tells_the_platform_nothing() {
    let log = MemoryLog::default();
    let inbox = open(&log).await.unwrap();
    log.end_after(0);
    inbox.spool(vec![message("a")], None).await.unwrap_err();
    assert_eq!(inbox.waiting(), 0);
    log.end_after(usize::MAX);
    inbox.spool(vec![message("a")], None).await.unwrap();
    assert_eq!(drain(&inbox).await.len(), 1);
}

/// A message of so many bytes, and a little more.
fn large(id: &str, bytes: usize) -> Incoming {
    Incoming { id: id.into(), json: json!({ "id": id, "text": "x".repeat(bytes) }).to_string() }
}

#[tokio::test]
async fn what_waits_is_held_in_memory_up_to_a_bound_and_comes_all_the_same() {
    const BYTES: usize = 50 << 10;
    let most = HELD + PAGE * (BYTES + 64);
    for seed in 1..4 {
        let mut log = MemoryLog::default();
        let mut inbox = open(&log).await.unwrap();
        let mut random = seed;
        let mut below = |bound: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % bound
        };
        let (mut sent, mut got, mut spilled) = (0_u64, Vec::new(), 0);
        for _ in 0..60 {
            match below(8) {
                0..=4 => {
                    // Some of them twice, within a call and beside another.
                    let count = 1 + below(30);
                    let batch: Vec<_> = (sent.saturating_sub(2)..sent + count)
                        .map(|n| large(&n.to_string(), BYTES))
                        .collect();
                    let twin = batch.last().cloned().into_iter().collect();
                    let (one, other) = tokio::join!(inbox.spool(batch, None), inbox.spool(twin, None));
                    one.and(other).unwrap();
                    sent += count;
                }
                5 => {
                    log = log.reboot();
                    inbox = open(&log).await.unwrap();
                }
                _ if inbox.waiting() > 0 => {
                    let taken = inbox.take(1 + usize::try_from(below(40)).unwrap()).await.unwrap();
                    let (looked, left) = taken.split_at(taken.len().div_ceil(2));
                    got.extend(looked.iter().map(|delivery| id(delivery).parse::<u64>().unwrap()));
                    inbox.ack(&looked.iter().map(|d| d.number).collect::<Vec<_>>()).await.unwrap();
                    inbox.release(&left.iter().map(|d| d.number).collect::<Vec<_>>());
                    tokio::task::yield_now().await;
                }
                _ => {}
            }
            let state = inbox.lock();
            assert_eq!(state.held, state.waiting.iter().map(|waiting| waiting.json.len()).sum::<usize>());
            assert!(state.held <= most, "seed {seed}: {} bytes are held", state.held);
            spilled += usize::from(!state.spilled.is_empty());
            assert!(state.spilled.len() <= 60, "seed {seed}: {} ranges", state.spilled.len());
        }
        while inbox.waiting() > 0 {
            let taken = inbox.take(50).await.unwrap();
            got.extend(taken.iter().map(|delivery| id(delivery).parse::<u64>().unwrap()));
            inbox.ack(&taken.iter().map(|d| d.number).collect::<Vec<_>>()).await.unwrap();
        }
        assert_eq!(got, (0..sent).collect::<Vec<_>>(), "seed {seed}");
        assert!(spilled > 0, "seed {seed}: the bound was never reached");
        assert_eq!(inbox.lock().held, 0);
        assert_eq!(open(&log.reboot()).await.unwrap().waiting(), 0);
    }
}

#[tokio::test]
async fn what_nobody_acknowledges_is_delivered_up_to_a_bound_and_the_rest_waits_for_that() {
    const BYTES: usize = 100 << 10;
    let log = MemoryLog::default();
    let inbox = open(&log).await.unwrap();
    for n in 0..300 {
        inbox.spool(vec![large(&n.to_string(), BYTES)], None).await.unwrap();
    }
    let mut taken: VecDeque<Delivery> = VecDeque::new();
    let count = |taken: &VecDeque<Delivery>| taken.iter().map(|delivery| delivery.json.len()).sum::<usize>();
    while inbox.waiting() > 0 && !inbox.is_held_back() {
        taken.extend(inbox.take(50).await.unwrap());
    }
    assert!((FLYING..FLYING + BYTES + 64).contains(&count(&taken)), "{} bytes", count(&taken));
    assert!(inbox.is_held_back() && inbox.waiting() == 300 - taken.len());
    let mut take = Box::pin(inbox.take(50));
    inbox.spool(vec![message("300")], None).await.unwrap();
    for _ in 0..10 {
        assert!(futures_util::poll!(take.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    // An acknowledgement lets as much in, and what was released comes again before that.
    let (first, last) = (taken.pop_front().unwrap(), taken.pop_back().unwrap());
    let number = id(&last);
    inbox.ack(&[first.number]).await.unwrap();
    inbox.release(&[last.number]);
    let next = take.await.unwrap();
    assert_eq!((id(&next[0]), next[0].redelivered), (number, false));
    taken.extend(next);
    assert!(count(&taken) < FLYING + BYTES + 64);
    let mut got = vec![id(&first)];
    while got.len() < 301 {
        for delivery in taken.drain(..) {
            got.push(id(&delivery));
            inbox.ack(&[delivery.number]).await.unwrap();
        }
        if inbox.waiting() > 0 {
            taken.extend(inbox.take(50).await.unwrap());
        }
    }
    assert_eq!(got, (0..=300).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(inbox.lock().flown, 0);
    assert_eq!(open(&log.reboot()).await.unwrap().waiting(), 0);
}

#[tokio::test]
async fn what_the_bound_holds_back_is_not_marked_as_delivered() {
    let log = MemoryLog::default();
    let inbox = open(&log).await.unwrap();
    inbox.spool(vec![large("0", FLYING - 1000)], None).await.unwrap();
    assert_eq!(inbox.take(5).await.unwrap().len(), 1);
    let take = inbox.take(5);
    tokio::pin!(take);
    assert!(futures_util::poll!(take.as_mut()).is_pending());
    inbox.spool(["1", "2", "3"].map(|id| large(id, 600)).into(), None).await.unwrap();
    assert_eq!(take.await.unwrap().iter().map(id).collect::<Vec<_>>(), ["1", "2"]);
    let again = open(&log.reboot()).await.unwrap();
    let mut marks = Vec::new();
    while again.waiting() > 0 {
        let taken = again.take(5).await.unwrap();
        marks.extend(taken.iter().map(|delivery| delivery.redelivered));
        again.ack(&[taken[0].number]).await.unwrap();
    }
    assert_eq!(marks, [true, true, true, false]);
}

fn item(id: &str, chat: &str, album: Option<&str>) -> Incoming {
    let mut json = json!({
        "id": id, "chat": { "id": chat }, "kind": "message", "text": "", "mentionsMe": false,
        "attachments": [{ "handle": id }], "raw": { "id": 9_007_199_254_740_993_u64 },
    });
    if let Some(album) = album {
        json["albumId"] = album.into();
    }
    if id.starts_with('+') {
        json["text"] = id.into();
        json["mentionsMe"] = true.into();
    }
    Incoming { id: id.into(), json: json.to_string() }
}

/// The handles of a delivery's attachments.
fn handles(delivery: &Delivery) -> Vec<String> {
    let json: Value = serde_json::from_str(&delivery.json).unwrap();
    json["attachments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["handle"].as_str().unwrap().into())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn the_items_of_an_album_are_one_message_however_they_came() {
    let log = MemoryLog::default();
    let inbox = open(&log).await.unwrap();
    let start = Instant::now();
    inbox.spool(vec![item("1", "a", Some("x")), item("2", "b", None)], None).await.unwrap();
    // The other chat does not wait.
    let other = inbox.take(10).await.unwrap();
    assert_eq!(other.iter().map(handles).collect::<Vec<_>>(), [["2"]]);
    inbox.ack(&[other[0].number]).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    let later = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        inbox.spool(vec![item("+3", "a", Some("x")), item("4", "b", Some("x"))], None).await.unwrap();
    };
    let (taken, ()) = tokio::join!(inbox.take(10), later);
    let taken = taken.unwrap();
    assert_eq!(start.elapsed(), Duration::from_millis(900));
    assert_eq!(taken.iter().map(handles).collect::<Vec<_>>(), [vec!["1", "+3"], vec!["4"]]);
    let whole: Value = serde_json::from_str(&taken[0].json).unwrap();
    assert_eq!(
        (whole["id"].as_str(), whole["text"].as_str(), &whole["mentionsMe"]),
        (Some("1"), Some("+3"), &json!(true))
    );
    assert_eq!(whole["raw"]["id"], 9_007_199_254_740_993_u64);
    // A crash: it comes again as it was, and once it is done none of it does.
    let again = open(&log.reboot()).await.unwrap();
    let taken = again.take(10).await.unwrap();
    assert_eq!(
        (taken.len(), handles(&taken[0]), taken[0].redelivered),
        (1, vec!["1".into(), "+3".into()], true)
    );
    again.ack(&[taken[0].number]).await.unwrap();
    assert_eq!(handles(&again.take(10).await.unwrap()[0]), ["4"]);
}

#[tokio::test(start_paused = true)]
async fn an_album_ends_with_its_tenth_item_or_with_what_comes_after_it() {
    let log = MemoryLog::default();
    let inbox = open(&log).await.unwrap();
    let start = Instant::now();
    for n in 0..10 {
        assert_eq!(inbox.waiting(), n);
        inbox.spool(vec![item(&n.to_string(), "a", Some("x"))], None).await.unwrap();
    }
    assert_eq!(handles(&inbox.take(10).await.unwrap()[0]).len(), 10);
    let after = vec![item("p", "a", Some("y")), item("q", "a", Some("y")), item("r", "a", None)];
    inbox.spool(after, None).await.unwrap();
    let taken = inbox.take(10).await.unwrap();
    assert_eq!(taken.iter().map(handles).collect::<Vec<_>>(), [vec!["p", "q"], vec!["r"]]);
    assert_eq!(start.elapsed(), Duration::ZERO);
    // Put back, it is whole; what comes half a second late is a message of its own.
    inbox.release(&[taken[0].number, taken[1].number]);
    assert_eq!(inbox.take(1).await.unwrap().iter().map(handles).collect::<Vec<_>>(), [vec!["p", "q"]]);
    inbox.spool(vec![item("s", "b", Some("z"))], None).await.unwrap();
    tokio::time::sleep(ALBUM).await;
    assert_eq!(inbox.take(9).await.unwrap().iter().map(handles).collect::<Vec<_>>(), [vec!["r"], vec!["s"]]);
    inbox.spool(vec![item("t", "b", Some("z"))], None).await.unwrap();
    assert_eq!(inbox.take(9).await.unwrap().iter().map(handles).collect::<Vec<_>>(), [vec!["t"]]);
}

#[tokio::test]
async fn what_is_on_the_disk_although_it_was_said_not_to_be_comes_once_when_it_is_sent_again() {
    let log = MemoryLog::default();
    let inbox = open(&log).await.unwrap();
    log.unsure(true);
    inbox.spool(vec![message("a"), message("b")], Some("1".into())).await.unwrap_err();
    assert_eq!(inbox.waiting(), 0);
    log.unsure(false);
    inbox.spool(vec![message("a"), message("b"), message("c")], Some("2".into())).await.unwrap();
    let taken = inbox.take(10).await.unwrap();
    assert_eq!(taken.iter().map(id).collect::<Vec<_>>(), ["a", "b", "c"]);
    inbox.ack(&taken.iter().map(|d| d.number).collect::<Vec<_>>()).await.unwrap();
    inbox.spool(vec![message("b")], None).await.unwrap();
    assert_eq!(inbox.waiting(), 0);
    assert_eq!(open(&log.reboot()).await.unwrap().waiting(), 0);
}

#[tokio::test]
async fn what_two_segments_hold_comes_once_after_a_restart() {
    let log = MemoryLog::default();
    let inbox = open(&log).await.unwrap();
    let first: Vec<_> = (0..SEGMENT - 1).map(|n| message(&n.to_string())).collect();
    inbox.spool(first, None).await.unwrap();
    log.unsure(true);
    inbox.spool(vec![message("a")], None).await.unwrap_err();
    log.unsure(false);
    // The last that the segment has room for.
    inbox.spool(vec![message("b")], None).await.unwrap();
    inbox.spool(vec![message("a")], None).await.unwrap();
    assert_eq!(log.sessions_now(), 2);
    let log = log.reboot();
    let again = open(&log).await.unwrap();
    let taken = drain(&again).await;
    assert_eq!(taken.iter().filter(|delivery| id(delivery) == "a").count(), 1);
    again.ack(&taken.iter().map(|d| d.number).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(open(&log.reboot()).await.unwrap().waiting(), 0);
}

/// A message that the store refuses would come again for ever, and nothing after it.
#[tokio::test]
async fn what_a_store_takes_for_no_name_is_an_id_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let store = crate::events::EventStore::open(folder.path(), crate::events::Options::default()).unwrap();
    let log: Arc<dyn Log> = Arc::new(store);
    let inbox = Inbox::open(Arc::clone(&log), "telegram:default").await.unwrap();
    let ids = ["line\nbreak", "nul\0", "next\u{85}", &"long".repeat(500)];
    for id in ids {
        inbox.spool(vec![message(id)], None).await.unwrap();
        inbox.spool(vec![message(id)], None).await.unwrap();
    }
    assert_eq!(drain(&inbox).await.iter().map(id).collect::<Vec<_>>(), ids);
    drop(inbox);
    let again = Inbox::open(log, "telegram:default").await.unwrap();
    again.spool(ids.iter().map(|id| message(id)).collect(), None).await.unwrap();
    assert_eq!(again.waiting(), 4);
}

#[test]
fn the_platforms_own_json_is_left_out_of_what_would_not_fit() {
    let mut inbound = crate::channels::testing::inbound("1");
    inbound.raw = RawValue::from_string(json!({ "x": "y".repeat(RAW + 1) }).to_string()).unwrap();
    let encoded = encode(&inbound, "telegram", "default", None).unwrap();
    let whole: Value = serde_json::from_str(&encoded.json).unwrap();
    assert_eq!((&whole["raw"], &whole["text"]), (&Value::Null, &json!("text of 1")));
}
