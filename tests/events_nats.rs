//! Several stores that share one log through a real `nats-server`.
//!
//! Each test has a server of its own, on a port and in a folder of its own. Where there is no `nats-server` the tests
//! say so and pass.

#![cfg(unix)]
// The lints are those of code that users run; here a failed step is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::format_push_string
)]

#[path = "events_nats/net.rs"]
mod net;
#[path = "events_nats/stores.rs"]
mod stores;

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream::{self, RetentionPolicy};
use net::{Mode, NatsServer, Proxy, Scratch, credentials};
use openclaw_core::events::{EventStore, nats};
use openclaw_core::log::Listener;
use stores::{
    Replica, append, contents, converge, converge_but_for_what_was_never_sent, data_of, open, options, until,
};

/// The server of a test; returns from the test where there is none.
macro_rules! server {
    ($config:expr) => {
        match NatsServer::start($config) {
            Some(server) => server,
            None => {
                eprintln!("not run: there is no nats-server on this machine; `node scripts/setup.mjs --only nats` brings it");
                return;
            }
        }
    };
}

const HOSTILE_KEYS: [&str; 8] = [
    "agent:main:telegram:group:-100*:topic:>",
    "a.b.c",
    ">",
    "*",
    " leading and trailing ",
    "ключ/会话/🦞",
    "a\\b\"c'd\u{200b}",
    "_INBOX.$JS.API.STREAM.DELETE.log",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_stores_that_write_at_once_hold_the_same_log() {
    let server = server!("");
    let mut replicas = Vec::new();
    for name in ["a", "b", "c"] {
        replicas.push(Replica::open(name, &options(&[server.url()])).await);
    }
    let writing: Vec<_> = replicas
        .iter()
        .map(|replica| {
            let store = replica.store.clone();
            tokio::spawn(async move {
                for i in 0..40 {
                    let keys = HOSTILE_KEYS.iter().cycle().skip(i).take(3).copied();
                    append(&store, keys, &format!(r#"{{"text":"{i}"}}"#)).await;
                }
            })
        })
        .collect();
    for task in writing {
        task.await.unwrap();
    }
    let stores: Vec<&EventStore> = replicas.iter().map(|replica| &replica.store).collect();
    converge(&stores).await;
    assert_eq!(contents(stores[0]).events.len(), 3 * 40 * 3);
    // One subject for each session and replica, and none that is anything else.
    let mut subjects = server.subjects().await;
    subjects.sort();
    subjects.dedup();
    assert_eq!(subjects.len(), HOSTILE_KEYS.len() * 3);
    for replica in replicas {
        replica.store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_without_a_server_waits_in_the_store_and_is_caught_up() {
    let mut server = server!("");
    server.kill();
    let options = options(&[server.url()]);
    let (a, b) = (Replica::open("a", &options).await, Replica::open("b", &options).await);
    for i in 0..300 {
        append(&a.store, [format!("s{}", i % 5).as_str()], "1").await;
        append(&b.store, ["s0"], "2").await;
    }
    until(&a.store, "the reason why it is not connected", |status| status.error.is_some()).await;
    assert_eq!(a.store.link().unwrap().status().state, nats::State::Connecting);
    server.restart();
    converge(&[&a.store, &b.store]).await;
    assert_eq!(contents(&b.store).events.len(), 600);
    // A third that comes late gets all of it.
    let c = Replica::open("c", &options).await;
    converge(&[&a.store, &b.store, &c.store]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_and_restarted_loses_nothing() {
    let mut server = server!("");
    let options = options(&[server.url()]);
    let (a, b) = (Replica::open("a", &options).await, Replica::open("b", &options).await);
    converge(&[&a.store, &b.store]).await;
    let writing: Vec<_> = [&a, &b]
        .iter()
        .map(|replica| {
            let store = replica.store.clone();
            tokio::spawn(async move {
                for i in 0..600 {
                    append(&store, [format!("s{}", i % 7).as_str()], &format!("{i}")).await;
                }
            })
        })
        .collect();
    for _ in 0..3 {
        // In the midst of traffic: some of it has come through since the last time.
        let before = b.store.link().unwrap().status().received;
        until(&b.store, "more messages", |status| status.received > before || status.sent == 600).await;
        server.kill();
        until(&a.store, "the loss of the server", |status| status.server.is_none()).await;
        server.restart();
    }
    for task in writing {
        task.await.unwrap();
    }
    converge(&[&a.store, &b.store]).await;
    assert_eq!(contents(&a.store).events.len(), 1200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_cut_stalls_or_loses_answers_neither_loses_nor_doubles() {
    let server = server!("");
    let proxy = Proxy::start(server.port()).await;
    let a = Replica::open("a", &options(&[proxy.url()])).await;
    let b = Replica::open("b", &options(&[server.url()])).await;
    let mut written = 0;
    for mode in [Mode::Cut, Mode::Stall, Mode::Deaf, Mode::Cut, Mode::Deaf] {
        converge(&[&a.store, &b.store]).await;
        proxy.set(mode);
        for i in 0..20 {
            append(&a.store, ["s", &format!("t{i}")], "1").await;
            append(&b.store, ["s"], "2").await;
            written += 3;
        }
        until(&a.store, "the loss of the connection", |status| status.server.is_none()).await;
        proxy.set(Mode::Pass);
    }
    converge(&[&a.store, &b.store]).await;
    assert_eq!(contents(&a.store).events.len(), written);
    // What was sent twice, its answer being lost, is in the stream once.
    let mut ids = server.message_ids().await;
    let messages = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), messages);
    assert_eq!(server.events_in_stream().await, written as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_goes_on_where_it_was_when_it_is_opened_again() {
    let server = server!("");
    let options = options(&[server.url()]);
    let a = Replica::open("a", &options).await;
    let mut b = Replica::open("b", &options).await;
    for round in 0..3 {
        append(&a.store, ["s", "t"], &format!("{round}")).await;
        append(&b.store, ["s"], &format!("{round}")).await;
        if round == 1 {
            // Dropped, not closed: the link does not hold the store open.
            b = b.drop_and_open(&options).await;
        } else {
            b = b.close_and_open(&options).await;
        }
        append(&a.store, ["s"], "5").await;
    }
    converge(&[&a.store, &b.store]).await;
    assert_eq!(contents(&b.store).events.len(), 12);
    assert_eq!(server.events_in_stream().await, 12);
    let before = server.messages().await;
    // The cursor was kept: nothing is sent again.
    let b = b.close_and_open(&options).await;
    converge(&[&a.store, &b.store]).await;
    assert_eq!(server.messages().await, before);
    assert_eq!(b.store.link().unwrap().status().error, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_were_sent_before_are_found_in_the_stream_without_the_servers_memory() {
    let server = server!("");
    // The server forgets ids at once, so that the expected sequences alone tell.
    server.create_stream(|config| config.duplicate_window = Duration::from_millis(100)).await;
    let options = options(&[server.url()]);
    let a = Replica::open("a", &options).await;
    for i in 0..30 {
        append(&a.store, [format!("s{}", i % 4).as_str()], "1").await;
    }
    converge(&[&a.store]).await;
    let before = server.messages().await;
    // The cursor is lost, and more is written meanwhile.
    let a = a.close_and_open_alone().await;
    a.store.set_note("nats/log/sent", b"{}".to_vec()).await.unwrap();
    append(&a.store, ["s0", "s9"], "2").await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    let a = a.close_and_open(&options).await;
    converge(&[&a.store]).await;
    assert_eq!(server.messages().await, before + 2);
    assert_eq!(server.events_in_stream().await, 32);
    let b = Replica::open("b", &options).await;
    converge(&[&a.store, &b.store]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_larger_than_a_message_arrives_whole_even_if_it_was_cut_on_its_way() {
    let server = server!("max_payload: 262144");
    let proxy = Proxy::start(server.port()).await;
    let a = Replica::open("a", &options(&[proxy.url()])).await;
    let b = Replica::open("b", &options(&[server.url()])).await;
    let large = format!("\"{}\"", "0123456789abcdef".repeat(5 << 16));
    append(&a.store, ["s"], "1").await;
    converge(&[&a.store, &b.store]).await;
    // Cut after about half of its parts.
    proxy.cut_after(2_500_000);
    append(&a.store, ["s"], &large).await;
    append(&a.store, ["s"], "3").await;
    until(&a.store, "the loss of the connection", |status| status.server.is_none()).await;
    let half = server.messages().await;
    assert!((3..19).contains(&half), "{half} messages: it was to be cut in the midst");
    proxy.set(Mode::Pass);
    converge(&[&a.store, &b.store]).await;
    assert_eq!(data_of(&b.store, "s"), ["1", large.as_str(), "3"]);
    // It was gone on with, not begun anew: 5 MiB in parts of less than 256 KiB, and two small events.
    assert_eq!(server.messages().await, 21 + 2);
    // One that joins later finds the parts as well.
    let c = Replica::open("c", &options(&[server.url()])).await;
    converge(&[&a.store, &b.store, &c.store]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_megabytes_pass_a_server_with_its_usual_limits() {
    let server = server!("");
    let options = options(&[server.url()]);
    let (a, b) = (Replica::open("a", &options).await, Replica::open("b", &options).await);
    let large = format!("[{}0]", "1.5,".repeat(5 << 18));
    append(&a.store, ["s"], &large).await;
    append(&b.store, ["s"], &large).await;
    converge(&[&a.store, &b.store]).await;
    assert_eq!(data_of(&b.store, "s"), [large.as_str(), large.as_str()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_session_is_gone_everywhere() {
    let mut server = server!("");
    let options = options(&[server.url()]);
    let (a, b) = (Replica::open("a", &options).await, Replica::open("b", &options).await);
    append(&a.store, ["s", "t"], "1").await;
    append(&b.store, ["s"], "2").await;
    converge(&[&a.store, &b.store]).await;
    assert_eq!(b.store.delete_session("s").await.unwrap(), 2);
    append(&a.store, ["t"], "3").await;
    converge(&[&a.store, &b.store]).await;
    assert_eq!(contents(&a.store).sessions, ["t"]);

    // Written and deleted before anybody else saw it.
    server.kill();
    append(&b.store, ["u"], "4").await;
    b.store.delete_session("u").await.unwrap();
    append(&b.store, ["t"], "5").await;
    server.restart();
    converge_but_for_what_was_never_sent(&[&a.store, &b.store]).await;
    assert_eq!(data_of(&a.store, "t"), ["1", "3", "5"]);
    assert_eq!(contents(&a.store).sessions, ["t"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_of_one_name_are_told_and_send_no_more() {
    let server = server!("");
    let options = options(&[server.url()]);
    let (one, other) = (Replica::open("twin", &options).await, Replica::open("twin", &options).await);
    let witness = Replica::open("witness", &options).await;
    append(&one.store, ["s"], "1").await;
    until(&witness.store, "the first event", |status| status.received == 1).await;
    append(&other.store, ["s"], "2").await;
    append(&other.store, ["elsewhere"], "3").await;
    let status = until(&other.store, "the conflict", |status| status.conflict.is_some()).await;
    assert!(!status.converged());
    let conflict = status.conflict.unwrap();
    assert!(conflict.contains("`twin`") && conflict.contains("replica"), "{conflict}");
    assert!(status.sent < 2, "{}", status.sent);
    // The others are not misled, and what they write still reaches both.
    append(&witness.store, ["s"], "4").await;
    for store in [&one.store, &other.store] {
        until(store, "what the witness wrote", |status| status.received == server_last(&witness.store)).await;
        assert!(contents(store).events.iter().any(|event| event.0 == "witness"));
    }
    let seen = contents(&witness.store).events;
    assert_eq!(seen.iter().filter(|event| event.0 == "twin").count(), 1);
}

fn server_last(store: &EventStore) -> u64 {
    store.link().unwrap().status().received.max(2)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_restored_from_an_older_copy_gets_its_own_past_back() {
    let server = server!("");
    let options = options(&[server.url()]);
    let b = Replica::open("b", &options).await;
    let a = Replica::open("a", &options).await;
    append(&a.store, ["s", "t"], "1").await;
    converge(&[&a.store, &b.store]).await;
    let older = a.close_and_copy().await;
    let a = a.open_again(&options).await;
    for i in 0..10 {
        append(&a.store, ["s", "t", "u"], &format!("{i}")).await;
    }
    converge(&[&a.store, &b.store]).await;
    a.store.close().await.unwrap();
    let a = older.open_again(&options).await;
    converge(&[&a.store, &b.store]).await;
    append(&a.store, ["s"], "9").await;
    converge(&[&a.store, &b.store]).await;
    assert_eq!(contents(&a.store).events.len(), 33);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_went_before_they_were_seen_are_a_gap_that_is_not_forgotten() {
    let server = server!("");
    let options = options(&[server.url()]);
    let a = Replica::open("a", &options).await;
    let b = Replica::open("b", &options).await;
    append(&a.store, ["s"], "1").await;
    converge(&[&a.store, &b.store]).await;
    let b = b.close_and_open_alone().await;
    for i in 0..5 {
        append(&a.store, [format!("s{i}").as_str()], "1").await;
    }
    converge(&[&a.store]).await;
    server.purge().await;
    append(&a.store, ["t"], "2").await;
    let mut b = b.close_and_open(&options).await;
    for _ in 0..2 {
        let status =
            until(&b.store, "the end of the stream", |status| status.state == nats::State::Live).await;
        let gap = status.gap.expect("a gap");
        assert_eq!((gap.first, gap.last, gap.messages), (2, 6, 5));
        assert!(!status.converged());
        b = b.close_and_open(&options).await;
    }
    assert_eq!(contents(&b.store).events.len(), 2);
    // The store that was there sees no gap.
    assert!(a.store.link().unwrap().status().converged());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_by_which_a_stream_forgets_are_named() {
    let server = server!("");
    server
        .create_stream(|config| {
            config.max_messages = 3;
            config.max_age = Duration::from_hours(1);
        })
        .await;
    let a = Replica::open("a", &options(&[server.url()])).await;
    let status = until(&a.store, "a connection", |status| status.state == nats::State::Live).await;
    assert_eq!(status.forgets.as_deref(), Some("max_age 3600 s, max_msgs 3"));
    // It forgets while nobody else looks; whoever comes then is told.
    for i in 0..8 {
        append(&a.store, [format!("s{i}").as_str()], "1").await;
        converge(&[&a.store]).await;
    }
    let b = Replica::open("b", &options(&[server.url()])).await;
    let status = until(&b.store, "the end of the stream", |status| status.state == nats::State::Live).await;
    assert_eq!(status.gap.map(|gap| gap.messages), Some(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_deleted_is_made_anew_and_filled_again() {
    let server = server!("");
    let options = options(&[server.url()]);
    let (a, b) = (Replica::open("a", &options).await, Replica::open("b", &options).await);
    append(&a.store, ["s"], "1").await;
    append(&b.store, ["s"], "2").await;
    converge(&[&a.store, &b.store]).await;
    server.delete_stream().await;
    append(&a.store, ["s"], "3").await;
    converge(&[&a.store, &b.store]).await;
    let c = Replica::open("c", &options).await;
    converge(&[&a.store, &b.store, &c.store]).await;
    assert_eq!(contents(&c.store).events.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_does_not_fit_is_refused_by_name_until_it_is_mended() {
    let server = server!("");
    server.create_stream(|config| config.retention = RetentionPolicy::WorkQueue).await;
    let a = Replica::open("a", &options(&[server.url()])).await;
    append(&a.store, ["s"], "1").await;
    let status = until(&a.store, "the reason", |status| status.error.is_some()).await;
    let error = status.error.unwrap();
    assert!(error.contains("`log`") && error.contains("retention"), "{error}");
    server.delete_stream().await;
    converge(&[&a.store]).await;
    let made = server.stream_config().await;
    assert_eq!(made.subjects, ["openclaw.log.*.*"]);
    assert_eq!(made.retention, RetentionPolicy::Limits);
    assert_eq!(made.storage, stream::StorageType::File);
    assert_eq!((made.max_age, made.duplicate_window), (Duration::ZERO, Duration::from_mins(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_no_event_is_counted_and_holds_up_nothing() {
    let server = server!("");
    let options = options(&[server.url()]);
    let (a, b) = (Replica::open("a", &options).await, Replica::open("b", &options).await);
    append(&a.store, ["s"], "1").await;
    converge(&[&a.store, &b.store]).await;
    server.publish("openclaw.log.00.evil", &[], b"hello").await;
    let hash = "0".repeat(64);
    let headers = [("Openclaw-Events", "1-1"), ("Openclaw-Hash", hash.as_str())];
    server.publish("openclaw.log.00.evil", &headers, b"\0\0\0\x05occ\x01\x09").await;
    server.publish("openclaw.log.00.evil", &headers, b"\0\0").await;
    let part = [headers[0], headers[1], ("Openclaw-Part", "99999/100000"), ("Openclaw-Previous", "1")];
    server.publish("openclaw.log.00.evil", &part, b"x").await;
    let part =
        [headers[0], headers[1], ("Openclaw-Part", "99999999998/99999999999"), ("Openclaw-Previous", "1")];
    server.publish("openclaw.log.00.evil", &part, b"x").await;
    append(&a.store, ["s"], "2").await;
    for store in [&a.store, &b.store] {
        let status = until(store, "all messages", |status| status.received == 7 && status.pending == 0).await;
        assert_eq!(status.rejected, 5);
        assert!(!status.converged());
    }
    assert_eq!(data_of(&b.store, "s"), ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_tokens_and_credentials_open_the_door_and_are_shown_nowhere() {
    let records = Listener::new(tracing::Level::TRACE, || {});
    openclaw_core::log::listen(&records);
    let secret = "s3cr3t p@ss";
    let mut shown = Vec::new();

    let server = server!(&format!("authorization {{ user: bob, password: \"{secret}\" }}"));
    let host = server.url().replace("nats://", "");
    let wrong = Replica::open("w", &options(&[format!("nats://bob:s3cr3t@{host}")])).await;
    let status = until(&wrong.store, "the refusal", |status| status.error.is_some()).await;
    assert!(status.error.as_ref().unwrap().contains("refuses the user"), "{status:?}");
    shown.push(format!("{status:?} {:?}", wrong.store.link()));
    let right = Replica::open("r", &options(&[format!("nats://bob:s3cr3t%20p%40ss@{host}")])).await;
    append(&right.store, ["s"], "1").await;
    converge(&[&right.store]).await;
    shown.push(format!(
        "{:?} {:?}",
        right.store.link(),
        options(&[format!("nats://bob:s3cr3t%20p%40ss@{host}")])
    ));

    let server = server!("authorization { token: \"s3cr3t-token\" }");
    let token =
        Replica::open("t", &options(&[server.url().replace("nats://", "nats://s3cr3t-token@")])).await;
    append(&token.store, ["s"], "1").await;
    converge(&[&token.store]).await;
    shown.push(format!("{:?}", token.store.link()));

    let scratch = Scratch::new();
    let (config, creds) = credentials();
    let server = server!(&config);
    let file = scratch.path().join("gateway.creds");
    std::fs::write(&file, &creds.text).unwrap();
    let with = |path: &std::path::Path| {
        let mut options = nats::Options::new(&[server.url()], "log", Some(path.to_owned())).unwrap();
        options.pace = stores::PACE;
        options
    };
    let known = Replica::open("k", &with(&file)).await;
    append(&known.store, ["s"], "1").await;
    converge(&[&known.store]).await;
    let broken = scratch.path().join("broken.creds");
    std::fs::write(&broken, creds.text.replace("USER NKEY", "").replace(&creds.seed, &creds.seed[..40]))
        .unwrap();
    for path in [broken, scratch.path().join("none.creds")] {
        let unknown = Replica::open("u", &with(&path)).await;
        let status = until(&unknown.store, "the refusal", |status| status.error.is_some()).await;
        assert!(status.error.as_ref().unwrap().contains(path.to_str().unwrap()), "{status:?}");
        shown.push(format!("{status:?}"));
    }

    let records = records.drain();
    assert!(records.iter().any(|record| record.target.contains("nats")), "nothing was logged");
    shown.push(format!("{records:?}"));
    let shown = shown.join("\n");
    for secret in ["s3cr3t", &creds.seed, &creds.seed[..40], &creds.jwt] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn tls_is_spoken_with_a_server_whose_certificate_is_trusted_and_with_no_other() {
    let scratch = Scratch::new();
    if !net::certificate(scratch.path()) {
        eprintln!("not run: there is no openssl on this machine to make a certificate with");
        return;
    }
    let file = |name: &str| scratch.path().join(name).display().to_string();
    let server =
        server!(&format!("tls {{ cert_file: \"{}\", key_file: \"{}\" }}", file("cert.pem"), file("key.pem")));
    // What is trusted is read from the environment, once a process.
    for (trusted, outcome) in [("cert.pem", "converged"), ("other.pem", "refused")] {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tls_child", "--ignored", "--nocapture"])
            .env("SSL_CERT_FILE", file(trusted))
            .env_remove("SSL_CERT_DIR")
            .env("TLS_CHILD_SERVER", format!("tls://localhost:{}", server.port()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(said.contains(outcome), "{trusted}: {said}{}", String::from_utf8_lossy(&child.stderr));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test of TLS, which sets what is trusted"]
async fn tls_child() {
    let Ok(server) = std::env::var("TLS_CHILD_SERVER") else { return };
    let a = Replica::open("a", &options(&[server])).await;
    append(&a.store, ["s"], "1").await;
    let status = until(&a.store, "an outcome", |status| status.sent == 1 || status.error.is_some()).await;
    match status.error {
        None => println!("converged"),
        Some(error) if error.to_lowercase().contains("certificate") => println!("refused: {error}"),
        Some(error) => println!("failed: {error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_server_of_the_list_is_tried_and_closing_needs_none() {
    let server = server!("");
    let nowhere = format!("nats://127.0.0.1:{}", net::free_port());
    let a = Replica::open("a", &options(&[nowhere.clone(), server.url()])).await;
    append(&a.store, ["s"], "1").await;
    converge(&[&a.store]).await;
    a.store.close().await.unwrap();
    assert_eq!(a.store.link().unwrap().status().state, nats::State::Stopped);

    let b = Replica::open("b", &options(&[nowhere])).await;
    append(&b.store, ["s"], "1").await;
    tokio::time::timeout(Duration::from_secs(5), b.store.close()).await.expect("closed in time").unwrap();

    let alone = Arc::new(Scratch::new());
    let store = open(alone.path(), "c", None).await;
    assert!(store.link().is_none());
}
