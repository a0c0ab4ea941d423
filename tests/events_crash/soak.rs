//! Memory over a long time.

use std::path::Path;
use std::time::{Duration, Instant};

use openclaw_core::events::{Durability, EventStore, NewEvent, Options};

use super::{Random, Running, alone, command, folder, say, soaking, wait};

const SESSIONS: usize = 200;
const BATCH: usize = 64;

/// Appends so many events of 1 KB, and tells the memory in use now and then.
pub(crate) fn work(folder: &Path, events: usize) {
    let options = Options {
        durability: Durability::Interval(Duration::from_millis(500)),
        cache_bytes: 4 << 20,
        ..Options::default()
    };
    let store = EventStore::open(&folder.join("store"), options).unwrap();
    let mut random = Random::new(9);
    let text: String = (0..900).map(|_| char::from(b'a' + random.below(26) as u8)).collect();
    let mut done = 0;
    wait(async {
        while done < events {
            let batch = (0..BATCH).map(|_| NewEvent {
                session_key: format!("session{}", random.below(SESSIONS)),
                agent_id: "main".into(),
                kind: "message_received".into(),
                data: format!(r#"{{"text":"{text}","n":{}}}"#, random.next()),
                timestamp_ms: None,
                id: None,
            });
            done += store.append_batch(batch.collect()).await.unwrap().len();
            if done % (BATCH * 16) == 0 {
                say(&format!("rss {done} {}", resident()));
            }
        }
    });
    store.close_blocking().unwrap();
    say("closed");
}

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn memory_does_not_grow_once_the_cache_is_full() {
    let _alone = alone();
    let events = if soaking() { 1_000_000 } else { 100_000 };
    let home = folder();
    let began = Instant::now();
    let mut child = Running::start(&mut command(&format!("soak {events}"), home.path()));
    let mut rss = Vec::new();
    while let Some(line) = child.said(Duration::from_secs(120)) {
        if let ["rss", _, bytes] = *line.split(' ').collect::<Vec<_>>() {
            rss.push(bytes.parse::<u64>().unwrap());
        }
    }
    assert!(child.ended && child.child.wait().unwrap().success(), "{}", child.stderr());
    let window = |from: usize, to: usize| {
        let window = &rss[rss.len() * from / 100..rss.len() * to / 100];
        window.iter().sum::<u64>() as f64 / window.len() as f64 / f64::from(1 << 20)
    };
    let windows: Vec<f64> = (0..5).map(|fifth| window(fifth * 20, fifth * 20 + 20)).collect();
    println!(
        "{events} events in {:.0} s; MB resident in each fifth: {windows:.1?}",
        began.elapsed().as_secs_f64()
    );
    let ratio = windows[4] / windows[1];
    assert!(ratio < 1.3, "memory grew by {ratio:.2} from the second fifth to the last");
}
