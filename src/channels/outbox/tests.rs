use super::lines::FILE_BYTES;
use super::room::JOB;
use super::*;
use crate::channels::log::memory::MemoryLog;
use crate::channels::message::OutboundFile;
use crate::channels::platform::{Limits, Rate};
use crate::channels::testing::{Answer, Scripted, Simulated};

fn message(to: &str, text: &str) -> OutboundMessage {
    OutboundMessage { to: to.into(), text: text.into(), ..OutboundMessage::default() }
}

async fn open(log: &MemoryLog, platform: &Scripted) -> Result<(Arc<Outbox>, CancellationToken)> {
    let closing = CancellationToken::new();
    let (log, platform) = (Arc::new(log.clone()), Arc::new(platform.clone()));
    let (surroundings, room) = (Simulated::surroundings(7), Room::new(WAITING_BYTES));
    let outbox = Outbox::open(log, "scripted:default", platform, surroundings, closing.clone(), room).await?;
    outbox.resume();
    Ok((outbox, closing))
}

async fn settled(outbox: &Outbox) {
    while outbox.queued() > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn never() -> CancellationToken {
    CancellationToken::new()
}

#[tokio::test(start_paused = true)]
async fn parts_go_out_in_their_order_and_the_receipt_has_all_ids() {
    let platform = Scripted::default();
    let (outbox, _) = open(&MemoryLog::default(), &platform).await.unwrap();
    let receipt = outbox.send(message("a", "one|two|three"), None, &never()).await.unwrap();
    assert_eq!(receipt.state, SendState::Accepted);
    assert_eq!(receipt.message_ids, ["id of one", "id of two", "id of three"]);
    assert_eq!(platform.shown(), ["one", "two", "three"]);
    let empty = outbox.send(message("a", ""), None, &never()).await.unwrap_err();
    assert_eq!(empty.code(), Code::Validation);
}

#[tokio::test(start_paused = true)]
async fn one_key_is_one_message_also_at_the_same_time_and_after_a_restart() {
    let (log, platform) = (MemoryLog::default(), Scripted::default());
    let (outbox, closing) = open(&log, &platform).await.unwrap();
    let key = || Some("key".to_owned());
    let cancel = never();
    let (first, second) = tokio::join!(
        outbox.send(message("a", "one"), key(), &cancel),
        outbox.send(message("a", "one"), key(), &cancel)
    );
    assert_eq!(first.unwrap(), second.unwrap());
    closing.cancel();
    let (outbox, _) = open(&log.reboot(), &platform).await.unwrap();
    let third = outbox.send(message("a", "one"), key(), &cancel).await.unwrap();
    assert_eq!((third.message_ids, third.state), (vec!["id of one".to_owned()], SendState::Accepted));
    assert_eq!(platform.shown(), ["one"]);
}

#[tokio::test(start_paused = true)]
async fn how_the_latest_messages_ended_is_known_also_when_their_segments_are_gone() {
    let (log, platform) = (MemoryLog::default(), Scripted::default());
    let (outbox, closing) = open(&log, &platform).await.unwrap();
    let send = async |outbox: &Arc<Outbox>, n: u64| {
        outbox.send(message("a", &format!("{n}|{n}")), Some(n.to_string()), &never()).await
    };
    // The last volume is half full.
    let messages = (3 * KEPT + KEPT / 2) * u64::from(SEGMENT);
    let mut ended = Vec::new();
    for n in 0..messages {
        let ends = match n % 3 {
            0 => [Answer::Taken, Answer::Taken],
            1 => [Answer::Taken, Answer::Refused],
            _ => [Answer::Taken, Answer::Lost],
        };
        platform.world.lock().unwrap().answers.extend(ends);
        ended.push(send(&outbox, n).await);
        assert!(outbox.lock().keys.len() as u64 <= (KEPT + 2) * u64::from(SEGMENT));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The segment that is filled, and two volumes of pasts.
    assert!(log.sessions_now() <= 4, "{} sessions are left", log.sessions_now());
    closing.cancel();
    let called = platform.calls().len();
    let (again, _) = open(&log.reboot(), &platform).await.unwrap();
    for outbox in [&outbox, &again] {
        for n in messages - (KEPT - 1) * u64::from(SEGMENT)..messages {
            let (before, after) = (&ended[usize::try_from(n).unwrap()], send(outbox, n).await);
            match (before, after) {
                // What was in the last segment is read from its lines, which do not tell the attempts.
                (Ok(before), Ok(after)) => {
                    assert_eq!((&before.message_ids, before.state), (&after.message_ids, after.state), "{n}");
                }
                (Err(before), Err(after)) => {
                    assert_eq!((before.code(), before.message()), (after.code(), after.message()), "{n}");
                }
                other => panic!("{n}: {other:?}"),
            }
        }
    }
    assert_eq!(platform.calls().len(), called);
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_and_whose_past_is_gone_is_unknown_and_not_sent_again() {
    let (log, platform) = (MemoryLog::default(), Scripted::default());
    let (outbox, _) = open(&log, &platform).await.unwrap();
    let cancel = never();
    for n in 0..=SEGMENT {
        outbox.send(message("a", "one"), Some(n.to_string()), &cancel).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let pasts = log.sessions("channel:scripted:default:out:memory:past:").await.unwrap();
    assert_eq!(pasts.len(), 1);
    log.delete(pasts[0].clone()).await.unwrap();
    let again = outbox.send(message("a", "one"), Some("0".into()), &cancel).await.unwrap();
    assert_eq!((again.state, again.message_ids), (SendState::Unknown, Vec::new()));
    assert_eq!(platform.shown().len(), SEGMENT as usize + 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_is_not_forgotten_for_messages_that_a_full_disk_did_not_take_or_that_have_no_key() {
    let (log, platform) = (MemoryLog::default(), Scripted::default());
    let (outbox, closing) = open(&log, &platform).await.unwrap();
    let (key, cancel) = (|| Some("key".to_owned()), never());
    let first = outbox.send(message("a", "one"), key(), &cancel).await.unwrap();
    log.fill(true);
    let more = u64::from(SEGMENT) * (3 * KEPT);
    for n in 0..more {
        outbox.send(message("a", "two"), Some(n.to_string()), &cancel).await.unwrap_err();
    }
    log.fill(false);
    for outbox in [&outbox, &open(&log.reboot(), &platform).await.unwrap().0] {
        assert_eq!(outbox.send(message("a", "one"), key(), &cancel).await.unwrap().state, first.state);
    }
    assert_eq!(platform.shown(), ["one"]);
    for _ in 0..u64::from(SEGMENT) * KEPT - 1 {
        outbox.send(message("a", "two"), None, &cancel).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    closing.cancel();
    let (again, _) = open(&log.reboot(), &platform).await.unwrap();
    for outbox in [&outbox, &again] {
        assert_eq!(outbox.lock().keys.len(), 1);
        assert_eq!(outbox.send(message("a", "one"), key(), &cancel).await.unwrap().state, first.state);
    }
    assert_eq!(platform.shown().iter().filter(|text| *text == "one").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn numbers_go_on_where_the_disk_was_full_when_a_segment_was_begun() {
    let (log, platform) = (MemoryLog::default(), Scripted::default());
    let (outbox, closing) = open(&log, &platform).await.unwrap();
    let (send, cancel) = (|key: u32| Some(key.to_string()), never());
    let full = SEGMENT;
    for n in 0..full {
        platform.world.lock().unwrap().answers.extend((n + 1 == full).then_some(Answer::Slow(1000)));
        if n + 1 < full {
            outbox.send(message("a", "one"), send(n), &cancel).await.unwrap();
        }
    }
    let last = outbox.send(message("a", "one"), send(full - 1), &cancel);
    let next = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        log.fill(true);
        outbox.send(message("b", "one"), send(full), &cancel).await.unwrap_err();
        log.fill(false);
    };
    tokio::join!(last, next).0.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The past of the first, and in the second how the last of the first ended.
    assert_eq!(log.sessions_now(), 2);
    closing.cancel();
    let (again, _) = open(&log.reboot(), &platform).await.unwrap();
    assert!(again.lock().next >= u64::from(full), "{}", again.lock().next);
    assert!(again.journal.place(1).0 > 0);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_fate_is_reported_and_never_repeated_unless_the_platform_knows_keys() {
    for (answer, shown) in [(Answer::Lost, 1), (Answer::Vanished, 0)] {
        let platform = Scripted::default();
        platform.world.lock().unwrap().answers.extend([Answer::Taken, answer.clone()]);
        let (outbox, _) = open(&MemoryLog::default(), &platform).await.unwrap();
        let receipt = outbox.send(message("a", "one|two|three"), None, &never()).await.unwrap();
        assert_eq!((receipt.state, receipt.message_ids), (SendState::Unknown, vec!["id of one".to_owned()]));
        assert_eq!(platform.shown().len(), 1 + shown);
        assert_eq!(platform.calls(), ["one", "two"], "what follows an unknown part was sent");

        let platform = Scripted { keyed: true, ..Scripted::default() };
        platform.world.lock().unwrap().answers.extend([Answer::Taken, answer]);
        let (outbox, _) = open(&MemoryLog::default(), &platform).await.unwrap();
        let receipt = outbox.send(message("a", "one|two|three"), None, &never()).await.unwrap();
        assert_eq!(receipt.state, SendState::Accepted);
        assert_eq!(platform.shown(), ["one", "two", "three"]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_certainly_not_sent_is_tried_again_and_a_wait_is_obeyed_exactly() {
    let platform = Scripted::default();
    platform.world.lock().unwrap().answers.extend([Answer::Unsent, Answer::Unsent, Answer::Wait(61_234)]);
    let (outbox, _) = open(&MemoryLog::default(), &platform).await.unwrap();
    let receipt = outbox.send(message("a", "one"), None, &never()).await.unwrap();
    assert_eq!((receipt.state, receipt.attempts), (SendState::Accepted, 4));
    let calls = platform.world.lock().unwrap().calls.clone();
    assert_eq!((calls[3].0 - calls[2].0).as_millis(), 61_234);
    assert_eq!(platform.shown(), ["one"]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_error_and_the_next_message_goes_out() {
    let platform = Scripted::default();
    platform.world.lock().unwrap().answers.extend([Answer::Refused]);
    let (outbox, _) = open(&MemoryLog::default(), &platform).await.unwrap();
    let cancel = never();
    let (first, second) = tokio::join!(
        outbox.send(message("a", "one|x"), None, &cancel),
        outbox.send(message("a", "two"), None, &cancel)
    );
    assert_eq!(first.unwrap_err().code(), Code::ChannelSend);
    assert_eq!(second.unwrap().state, SendState::Accepted);
    assert_eq!(platform.shown(), ["two"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_given_for_an_hour_is_given_up() {
    let platform = Scripted::default();
    platform.world.lock().unwrap().answers.extend(std::iter::repeat_n(Answer::Unsent, 100_000));
    let (outbox, _) = open(&MemoryLog::default(), &platform).await.unwrap();
    let began = Instant::now();
    let error = outbox.send(message("a", "one"), None, &never()).await.unwrap_err();
    assert_eq!(error.code(), Code::Network);
    assert!((LONGEST..LONGEST + Duration::from_mins(1)).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_abort_takes_back_what_was_not_begun_and_nothing_else() {
    let platform = Scripted::default();
    platform.world.lock().unwrap().answers.extend([Answer::Slow(5_000)]);
    let (outbox, _) = open(&MemoryLog::default(), &platform).await.unwrap();
    let (slow, waiting) = (never(), never());
    let abort = async {
        platform.called.notified().await;
        slow.cancel();
        waiting.cancel();
    };
    let (first, second, ()) = tokio::join!(
        outbox.send(message("a", "begun"), None, &slow),
        outbox.send(message("a", "not begun"), None, &waiting),
        abort
    );
    assert!(first.is_err() && second.is_err());
    settled(&outbox).await;
    assert_eq!(platform.shown(), ["begun"]);
}

/// Sends everything, until the log fails.
async fn day(log: &MemoryLog, platform: &Scripted, texts: &[&str]) -> Vec<Result<SendReceipt>> {
    let Ok((outbox, closing)) = open(log, platform).await else { return Vec::new() };
    let cancel = never();
    let sends =
        texts.iter().map(|text| outbox.send(message(&text[..1], text), Some((*text).into()), &cancel));
    let outcomes = futures_util::future::join_all(sends).await;
    closing.cancel();
    outcomes
}

#[tokio::test(start_paused = true)]
async fn wherever_the_power_goes_nothing_queued_is_lost_and_nothing_unknown_is_repeated() {
    // More than a segment: the first goes while the second is sent.
    let texts = ["a1|a2|a3", "b1", "a4|a5", "b2|b3", "a6", "b4"];
    let whole = MemoryLog::default();
    day(&whole, &Scripted::default(), &texts).await;
    let appends = whole.appends();
    assert!(appends > 15, "{appends} appends are no matrix");
    for keyed in [false, true] {
        for end in 0..=appends {
            let (log, platform) = (MemoryLog::default(), Scripted { keyed, ..Scripted::default() });
            log.end_after(end);
            let before = day(&log, &platform, &texts).await;
            let accepted = |outcome: &Result<SendReceipt>| {
                outcome.as_ref().is_ok_and(|receipt| receipt.state == SendState::Accepted)
            };
            let told: Vec<_> = before.iter().map(accepted).collect();
            let rebooted = log.reboot();
            let (outbox, _) = open(&rebooted, &platform).await.unwrap();
            let queued = outbox.lock().keys.len();
            settled(&outbox).await;
            // Whoever sent them asks again.
            let mut outcomes = Vec::new();
            for text in texts {
                let sent = outbox.send(message(&text[..1], text), Some(text.into()), &never()).await;
                outcomes.push(sent.unwrap());
            }
            let shown = platform.shown();
            for (n, text) in texts.iter().enumerate() {
                let parts: Vec<&str> = text.split('|').collect();
                let times: Vec<usize> =
                    parts.iter().map(|part| shown.iter().filter(|text| text == part).count()).collect();
                assert!(times.iter().all(|times| *times <= 1), "{end}: doubled: {shown:?}");
                match outcomes[n].state {
                    SendState::Accepted => {
                        assert!(times.iter().all(|times| *times == 1), "{end}: {text} was lost: {shown:?}");
                        assert_eq!(outcomes[n].message_ids.len(), parts.len(), "{end}");
                    }
                    SendState::Unknown => assert!(!keyed, "{end}: {text} is unknown"),
                }
                // Also if the disk failed after it was accepted.
                if told.get(n) == Some(&true) {
                    assert!(times.iter().all(|times| *times == 1), "{end}: {text}: {shown:?}");
                }
            }
            for chat in ["a", "b"] {
                let of_chat: Vec<_> = shown.iter().filter(|text| text.starts_with(chat)).collect();
                assert!(of_chat.is_sorted(), "{end}: out of order: {shown:?}");
            }
            let unknown = outcomes.iter().filter(|outcome| outcome.state == SendState::Unknown).count();
            assert!(
                unknown <= 2,
                "{end}: of {queued} queued, {unknown} are unknown; two chats were under way"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn files_are_there_after_a_restart_and_gone_once_they_are_sent() {
    let (log, platform) = (MemoryLog::default(), Scripted::default());
    platform.world.lock().unwrap().answers.extend(std::iter::repeat_n(Answer::Unsent, 1000));
    let (outbox, closing) = open(&log, &platform).await.unwrap();
    let data: Vec<u8> = (0..FILE_BYTES * 2 + 5).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let file =
        |data: Vec<u8>| OutboundFile { data: data.into(), name: "f".into(), mime_type: Some("a/b".into()) };
    let with_files = OutboundMessage { files: vec![file(data), file(Vec::new())], ..message("a", "one") };
    let sending = outbox.send(with_files.clone(), Some("key".into()), &closing);
    // The files, the message with that it was begun, and that it was not sent.
    let written = async {
        while log.appends() < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        outcome = sending => panic!("{outcome:?}"),
        () = written => {}
    }
    closing.cancel();
    let (rebooted, platform) = (log.reboot(), Scripted::default());
    let (shared, scripted) = (Arc::new(rebooted.clone()), Arc::new(platform.clone()));
    let again = Outbox::open(
        shared,
        "scripted:default",
        scripted,
        Simulated::surroundings(7),
        CancellationToken::new(),
        Room::new(WAITING_BYTES),
    );
    let again = again.await.unwrap();
    let held = again.room.taken();
    assert!((1..FILE_BYTES).contains(&held), "{held} bytes are held before a message's turn");
    let sessions = rebooted.sessions_now();
    platform.world.lock().unwrap().answers.extend([Answer::Unsent, Answer::Wait(60_000)]);
    again.resume();
    settled(&again).await;
    again.send(with_files.clone(), Some("key".into()), &never()).await.unwrap();
    assert_eq!(platform.shown(), ["one"]);
    assert_eq!(platform.world.lock().unwrap().files, vec![with_files.files; 3]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(rebooted.sessions_now(), sessions - 1);
}

#[tokio::test(start_paused = true)]
async fn in_a_burst_messages_go_first_the_last_edit_counts_and_typing_is_dropped() {
    let limits =
        Limits { bot: vec![Rate { count: 5, per: Duration::from_secs(1) }], at_once: 4, ..Limits::default() };
    let platform = Scripted { limits, ..Scripted::default() };
    let (outbox, _) = open(&MemoryLog::default(), &platform).await.unwrap();
    let cancel = never();
    let sends = (0..50).map(|n| {
        let (outbox, cancel) = (&outbox, &cancel);
        async move {
            let chat = format!("chat{}", n % 5);
            outbox.send(message(&chat, &format!("{n:02}")), None, cancel).await.unwrap();
        }
    });
    let edits = (0..10).map(|n| {
        let outbox = &outbox;
        async move {
            tokio::time::sleep(Duration::from_millis(500 + n)).await;
            let call = Call::Edit { to: "chat0".into(), message_id: "1".into(), text: n.to_string() };
            outbox.make(call).await.unwrap();
            outbox.make(Call::Typing { to: "chat0".into(), thread_id: None }).await.unwrap();
        }
    });
    tokio::join!(futures_util::future::join_all(sends), futures_util::future::join_all(edits));
    let calls = platform.calls();
    assert_eq!(platform.shown().iter().filter(|text| text.len() == 2).count(), 50);
    let edits: Vec<_> = calls.iter().filter(|text| text.starts_with("edit")).collect();
    assert_eq!(edits, ["edit 9"]);
    let (edit, last) = (
        calls.iter().position(|text| text == "edit 9").unwrap(),
        calls.iter().rposition(|text| text.len() == 2).unwrap(),
    );
    assert!(edit > last, "an edit went before a message: {calls:?}");
    assert!(calls.iter().filter(|text| *text == "typing").count() <= 10);
    for chat in 0..5 {
        let of_chat: Vec<_> =
            platform.shown().into_iter().filter(|t| t.parse::<u32>().is_ok_and(|n| n % 5 == chat)).collect();
        assert!(of_chat.is_sorted(), "{of_chat:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_sent_an_hour_ago_is_not_repeated_even_where_the_platform_knows_keys() {
    let minutes = |minutes| tokio::time::sleep(Duration::from_mins(minutes));
    // How long the process is away after the answer to "two" was lost, and whether the message is completed then.
    for (away, completed) in [(50, true), (61, false)] {
        let (log, platform) = (MemoryLog::default(), Scripted { keyed: true, ..Scripted::default() });
        let clock = Simulated::surroundings(7);
        let open = |log: &MemoryLog, closing: &CancellationToken| {
            let (log, platform) = (Arc::new(log.clone()), Arc::new(platform.clone()));
            let room = Room::new(WAITING_BYTES);
            Outbox::open(log, "scripted:default", platform, Arc::clone(&clock), closing.clone(), room)
        };
        platform.world.lock().unwrap().answers.extend([Answer::Taken, Answer::Slow(3_600_000)]);
        let closing = CancellationToken::new();
        let outbox = open(&log, &closing).await.unwrap();
        let sending = outbox.send(message("a", "one|two|three"), Some("key".into()), &closing);
        let begun = async {
            while platform.calls().len() < 2 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            outcome = sending => panic!("{outcome:?}"),
            () = begun => {}
        }
        let rebooted = log.reboot();
        closing.cancel();
        minutes(away).await;
        let again = open(&rebooted, &CancellationToken::new()).await.unwrap();
        again.resume();
        let receipt = again.send(message("a", "one|two|three"), Some("key".into()), &never()).await.unwrap();
        let after: &[&str] = if completed { &["two", "three"] } else { &[] };
        assert_eq!(platform.calls()[2..], *after, "{away} minutes");
        let state = if completed { SendState::Accepted } else { SendState::Unknown };
        assert_eq!(receipt.state, state, "{away} minutes");
        assert_eq!(receipt.message_ids.len(), if completed { 3 } else { 1 }, "{away} minutes");
        // It stays so, whenever it is asked for.
        let last = open(&rebooted.reboot(), &CancellationToken::new()).await.unwrap();
        let known = last.send(message("a", "one|two|three"), Some("key".into()), &never()).await.unwrap();
        assert_eq!((known.state, known.message_ids), (receipt.state, receipt.message_ids));
        assert_eq!(platform.calls().len(), 2 + after.len());
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_platform_took_is_not_sent_again_because_the_disk_failed_after_it() {
    for (text, state, ids) in
        [("one", SendState::Accepted, vec!["id of one"]), ("one|two", SendState::Unknown, vec!["id of one"])]
    {
        let (log, platform) = (MemoryLog::default(), Scripted::default());
        let (outbox, _) = open(&log, &platform).await.unwrap();
        // That it was queued, and begun.
        log.end_after(1);
        let first = outbox.send(message("a", text), Some("key".into()), &never()).await.unwrap();
        assert_eq!((first.state, &first.message_ids), (state, &ids.iter().map(|id| (*id).into()).collect()));
        log.end_after(usize::MAX);
        let again = outbox.send(message("a", text), Some("key".into()), &never()).await.unwrap();
        assert_eq!(again, first);
        assert_eq!(platform.shown(), ["one"]);
        let (outbox, _) = open(&log.reboot(), &platform).await.unwrap();
        let third = outbox.send(message("a", text), Some("key".into()), &never()).await.unwrap();
        assert_eq!(third.state, SendState::Unknown);
        assert_eq!(platform.shown(), ["one"]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_may_have_succeeded_is_never_called_a_failure() {
    for last in [Answer::Refused, Answer::Wait(3_700_000)] {
        let platform = Scripted { keyed: true, ..Scripted::default() };
        platform.world.lock().unwrap().answers.extend([Answer::Lost, last.clone()]);
        let (outbox, _) = open(&MemoryLog::default(), &platform).await.unwrap();
        let receipt = outbox.send(message("a", "one"), None, &never()).await.unwrap();
        assert_eq!((receipt.state, receipt.attempts), (SendState::Unknown, 2), "{last:?}");
        assert_eq!((platform.shown().len(), platform.calls().len()), (1, 2), "{last:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_panics_leaves_a_message_unknown_and_its_chat_open() {
    let platform = Scripted::default();
    platform.world.lock().unwrap().answers.extend([Answer::Panics]);
    let (outbox, _) = open(&MemoryLog::default(), &platform).await.unwrap();
    let first = outbox.send(message("a", "one"), None, &never()).await.unwrap();
    assert_eq!(first.state, SendState::Unknown);
    let cancel = never();
    let sent = outbox.send(message("a", "two"), None, &cancel);
    let second = tokio::time::timeout(Duration::from_mins(1), sent).await.expect("the chat is dead").unwrap();
    assert_eq!(second.state, SendState::Accepted);
    assert_eq!((platform.shown(), outbox.queued()), (vec!["two".to_owned()], 0));
}

#[tokio::test(start_paused = true)]
async fn who_asks_to_wait_no_time_at_all_is_not_called_without_pause() {
    let platform = Scripted::default();
    platform.world.lock().unwrap().answers.extend(std::iter::repeat_n(Answer::Wait(0), 12));
    let (outbox, _) = open(&MemoryLog::default(), &platform).await.unwrap();
    let began = Instant::now();
    outbox.send(message("a", "one"), None, &never()).await.unwrap();
    assert!(began.elapsed() > Duration::from_secs(5), "twelve calls in {:?}", began.elapsed());
    platform.world.lock().unwrap().answers.extend(std::iter::repeat_n(Answer::Wait(0), 1000));
    let edit = outbox.make(Call::Edit { to: "a".into(), message_id: "1".into(), text: "x".into() }).await;
    assert_eq!(edit.unwrap_err().code(), Code::ChannelRateLimited);
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_back_may_be_sent_under_its_key_after_all() {
    let platform = Scripted::default();
    platform.world.lock().unwrap().answers.extend([Answer::Slow(5_000)]);
    let log = MemoryLog::default();
    let (outbox, closing) = open(&log, &platform).await.unwrap();
    let (gone, key) = (never(), Some("key".to_owned()));
    gone.cancel();
    let cancel = never();
    let (_, taken_back) = tokio::join!(
        outbox.send(message("a", "first"), None, &cancel),
        outbox.send(message("a", "second"), key.clone(), &gone)
    );
    taken_back.unwrap_err();
    settled(&outbox).await;
    assert_eq!(platform.shown(), ["first"]);
    let receipt = outbox.send(message("a", "second"), key.clone(), &cancel).await.unwrap();
    assert_eq!(receipt.state, SendState::Accepted);
    closing.cancel();
    let (outbox, _) = open(&log.reboot(), &platform).await.unwrap();
    assert_eq!(outbox.send(message("a", "second"), key, &cancel).await.unwrap().state, SendState::Accepted);
    assert_eq!(platform.shown(), ["first", "second"]);
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_memory_has_a_bound_and_what_an_earlier_process_left_does_not_count() {
    const MOST: usize = 1 << 20;
    let limits = Limits { at_once: 4, ..Limits::default() };
    let (log, platform) = (MemoryLog::default(), Scripted { limits, ..Scripted::default() });
    let open = |log: &MemoryLog, closing: &CancellationToken| {
        let (log, platform) = (Arc::new(log.clone()), Arc::new(platform.clone()));
        let (surroundings, room) = (Simulated::surroundings(7), Room::new(MOST));
        Outbox::open(log, "scripted:default", platform, surroundings, closing.clone(), room)
    };
    let with_file = |to: &str, text: &str, bytes: usize| OutboundMessage {
        files: vec![OutboundFile { data: vec![7; bytes].into(), name: "f".into(), mime_type: None }],
        ..message(to, text)
    };
    let closing = CancellationToken::new();
    let outbox = open(&log, &closing).await.unwrap();
    platform.world.lock().unwrap().answers.extend([Answer::Slow(60_000)]);
    let cancel = never();
    let first = outbox.send(with_file("a", "one", MOST / 2), None, &cancel);
    let second = outbox.send(with_file("a", "two", MOST / 2 - 8 * JOB), None, &cancel);
    let others = async {
        platform.called.notified().await;
        for (message, key) in
            [(with_file("b", "three", MOST / 4), "3"), (message("b", &"x".repeat(MOST)), "4")]
        {
            let error = outbox.send(message, Some(key.into()), &cancel).await.unwrap_err();
            assert_eq!(error.code(), Code::Limit);
            assert!(error.message().contains("await earlier sends"), "{error}");
        }
        // Edits and reactions wait in the same room.
        let edit = Call::Edit { to: "b".into(), message_id: "1".into(), text: "x".repeat(MOST) };
        assert_eq!(outbox.make(edit).await.unwrap_err().code(), Code::Limit);
        let react = Call::React { to: "b".into(), message_id: "1".into(), emoji: "x".repeat(MOST) };
        assert_eq!(outbox.make(react).await.unwrap_err().code(), Code::Limit);
        // What is small still goes out, until it is too many.
        outbox.send(message("b", "small"), None, &cancel).await.unwrap();
        let sends = (0..20).map(|n| outbox.send(message("a", &n.to_string()), None, &cancel));
        futures_util::future::join_all(sends).await
    };
    let (first, second, many) = tokio::join!(first, second, others);
    first.unwrap();
    second.unwrap();
    let refused = many.iter().filter(|sent| sent.as_ref().is_err_and(|error| error.code() == Code::Limit));
    assert!((10..20).contains(&refused.count()), "{many:?}");
    assert_eq!(outbox.room.taken(), 0);
    // There is room again, for what was refused, and for one that is too large to be there beside others.
    outbox.send(with_file("b", "three", MOST / 4), Some("3".into()), &cancel).await.unwrap();
    outbox.send(with_file("b", "large", 2 * MOST), None, &cancel).await.unwrap();

    // Three processes leave what is more than the bound, and the fourth takes all of it up.
    platform.world.lock().unwrap().answers.extend(std::iter::repeat_n(Answer::Unsent, 10_000));
    let mut log = log;
    for text in ["left 1", "left 2", "left 3"] {
        let closing = CancellationToken::new();
        log = log.reboot();
        let outbox = open(&log, &closing).await.unwrap();
        let before = log.appends();
        let sending = outbox.send(with_file("c", text, MOST / 4 * 3), None, &cancel);
        // Its files, and that it is queued; of the first, that its first attempt came to nothing. Those behind it wait.
        let appends = if text == "left 1" { 3 } else { 2 };
        let written = async {
            while log.appends() < before + appends {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            outcome = sending => panic!("{outcome:?}"),
            () = written => {}
        }
        closing.cancel();
    }
    platform.world.lock().unwrap().answers.clear();
    let outbox = open(&log.reboot(), &CancellationToken::new()).await.unwrap();
    assert_eq!(outbox.queued(), 3);
    outbox.resume();
    outbox.send(message("c", "new"), None, &cancel).await.unwrap();
    assert_eq!(platform.shown()[platform.shown().len() - 4..], ["left 1", "left 2", "left 3", "new"]);
}
