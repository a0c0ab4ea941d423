use super::*;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound
    }
}

fn rate(count: u32, ms: u64) -> Rate {
    Rate { count, per: Duration::from_millis(ms) }
}

/// A platform that counts, and refuses what is too much in the window that begins with the first call after the last one.
struct Judge {
    limit: u64,
    window: Duration,
    begun: Option<Instant>,
    calls: u64,
    refused_in_window: u64,
    worst: u64,
    until: Option<Instant>,
    early: u64,
}

impl Judge {
    fn call(&mut self, now: Instant) -> Result<(), Duration> {
        if self.begun.is_none_or(|begun| now >= begun + self.window) {
            (self.begun, self.calls, self.refused_in_window) = (Some(now), 0, 0);
        }
        self.early += u64::from(self.until.is_some_and(|until| now < until));
        self.calls += 1;
        if self.calls <= self.limit {
            return Ok(());
        }
        self.refused_in_window += 1;
        self.worst = self.worst.max(self.refused_in_window);
        let wait = self.begun.unwrap() + self.window - now;
        self.until = self.until.max(Some(now + wait));
        Err(wait)
    }
}

#[test]
fn in_no_span_of_its_length_is_a_rate_exceeded_and_everything_goes_out() {
    let start = Instant::now();
    for seed in 1..400 {
        let mut random = Random(seed);
        let bot = rate(1 + u32::try_from(random.below(30)).unwrap(), 100 + random.below(2000));
        let chat = rate(1 + u32::try_from(random.below(5)).unwrap(), 100 + random.below(3000));
        let limits = Limits {
            bot: vec![bot],
            chat: vec![chat],
            at_once: 1 + usize::try_from(random.below(8)).unwrap(),
            group: None,
        };
        let mut governor = Governor::new(limits);
        let mut queues: HashMap<String, u64> = HashMap::new();
        for _ in 0..200 {
            *queues.entry(format!("chat{}", random.below(6))).or_default() += 1;
        }
        let mut made: Vec<(Instant, String)> = Vec::new();
        let mut running: Vec<(Instant, String)> = Vec::new();
        let mut now = start;
        while queues.values().any(|left| *left > 0) {
            let mut next = now + Duration::from_mins(1);
            let mut chats: Vec<String> = queues.keys().cloned().collect();
            chats.sort();
            for chat in chats {
                while queues[&chat] > 0 {
                    match governor.admit(now, &chat, Class::Message) {
                        Verdict::Go => {
                            *queues.get_mut(&chat).unwrap() -= 1;
                            made.push((now, chat.clone()));
                            running.push((now + Duration::from_millis(1 + random.below(80)), chat.clone()));
                        }
                        Verdict::At(at) => {
                            assert!(at > now, "a wait that is over");
                            next = next.min(at);
                            break;
                        }
                        Verdict::Busy => break,
                        Verdict::Shed => panic!("a message was shed"),
                    }
                }
            }
            if let Some(end) = running.iter().map(|(end, _)| *end).min() {
                next = next.min(end);
            }
            now = next;
            running.retain(|(end, chat)| {
                if *end <= now {
                    governor.ended(now, chat, None, false);
                }
                *end > now
            });
        }
        assert_eq!(made.len(), 200);
        let keeps = |times: &[Instant], rate: Rate| {
            let count = rate.count as usize;
            times.windows(count + 1).all(|span| span[count] - span[0] >= rate.per)
        };
        let all: Vec<_> = made.iter().map(|(at, _)| *at).collect();
        assert!(keeps(&all, bot), "seed {seed}");
        for chat_name in queues.keys() {
            let of_chat: Vec<_> =
                made.iter().filter(|(_, name)| name == chat_name).map(|(at, _)| *at).collect();
            assert!(keeps(&of_chat, chat), "seed {seed}, {chat_name}");
        }
    }
}

#[test]
fn a_burst_ten_times_the_limit_meets_one_refusal_a_window_and_loses_nothing() {
    let start = Instant::now();
    for seed in 1..200 {
        let mut random = Random(seed);
        let limit = 5 + random.below(30);
        let window = Duration::from_millis(1000 + random.below(30_000));
        // Nothing is known beforehand. Calls are made one after the other.
        let mut governor = Governor::new(Limits { at_once: 1, ..Limits::default() });
        let mut judge = Judge {
            limit,
            window,
            begun: None,
            calls: 0,
            refused_in_window: 0,
            worst: 0,
            until: None,
            early: 0,
        };
        let (mut left, mut now) = (limit * 10, start);
        while left > 0 {
            match governor.admit(now, "chat", Class::Message) {
                Verdict::Go => {
                    let outcome = judge.call(now);
                    now += Duration::from_millis(random.below(20));
                    match outcome {
                        Ok(()) => {
                            left -= 1;
                            governor.ended(now, "chat", None, false);
                        }
                        Err(wait) => governor.ended(now, "chat", Some((Scope::Bot, wait)), true),
                    }
                }
                Verdict::At(at) => now = at,
                verdict => panic!("{verdict:?}"),
            }
        }
        assert!(judge.worst <= 1, "seed {seed}: {} refusals in a window", judge.worst);
        assert_eq!(judge.early, 0, "seed {seed}: called before the wait was over");
    }
}

#[test]
fn a_wait_is_obeyed_to_the_millisecond_and_then_one_call_goes_first() {
    let now = Instant::now();
    let mut governor = Governor::new(Limits { at_once: 8, ..Limits::default() });
    for chat in ["a", "b", "c"] {
        assert_eq!(governor.admit(now, chat, Class::Message), Verdict::Go);
    }
    let wait = Duration::from_millis(7777);
    governor.ended(now, "a", Some((Scope::Bot, wait)), true);
    governor.ended(now, "b", None, false);
    governor.ended(now, "c", Some((Scope::Bot, Duration::from_millis(5))), true);
    let last = now + wait - Duration::from_millis(1);
    for chat in ["a", "b"] {
        assert_eq!(governor.admit(last, chat, Class::Message), Verdict::At(now + wait));
    }
    let then = now + wait;
    assert_eq!(governor.admit(then, "a", Class::Message), Verdict::Go);
    assert_eq!(governor.admit(then, "b", Class::Message), Verdict::Busy);
    governor.ended(then, "a", None, false);
    assert_eq!(governor.admit(then, "b", Class::Message), Verdict::Go);
    assert_eq!(governor.admit(then, "c", Class::Message), Verdict::Go);
}

#[test]
fn a_chats_wait_is_no_other_chats() {
    let now = Instant::now();
    let mut governor = Governor::new(Limits { at_once: 8, ..Limits::default() });
    assert_eq!(governor.admit(now, "a", Class::Message), Verdict::Go);
    governor.ended(now, "a", Some((Scope::Chat, Duration::from_secs(9))), true);
    assert_eq!(governor.admit(now, "a", Class::Message), Verdict::At(now + Duration::from_secs(9)));
    assert_eq!(governor.admit(now, "b", Class::Message), Verdict::Go);
}

#[test]
fn a_wait_of_unsaid_scope_is_the_chats_until_the_bot_is_the_likelier() {
    let now = Instant::now();
    let wait = Duration::from_secs(9);
    let limits = Limits { bot: vec![rate(8, 1000)], at_once: 8, ..Limits::default() };
    let mut governor = Governor::new(limits.clone());
    assert_eq!(governor.admit(now, "a", Class::Message), Verdict::Go);
    governor.ended(now, "a", Some((Scope::Unsaid, wait)), true);
    assert_eq!(governor.admit(now, "a", Class::Message), Verdict::At(now + wait));
    assert_eq!(governor.admit(now, "b", Class::Message), Verdict::Go);
    // A second chat within the wait of the first.
    governor.ended(now, "b", Some((Scope::Unsaid, wait)), true);
    assert_eq!(governor.admit(now, "c", Class::Message), Verdict::At(now + wait));

    // The bot has had half of what is its own.
    let mut governor = Governor::new(limits.clone());
    for chat in ["a", "b", "c", "d"] {
        assert_eq!(governor.admit(now, chat, Class::Message), Verdict::Go);
    }
    governor.ended(now, "a", Some((Scope::Unsaid, wait)), true);
    assert_eq!(governor.admit(now, "e", Class::Message), Verdict::At(now + wait));

    // A second chat after the wait of the first.
    let mut governor = Governor::new(limits);
    for (chat, at) in [("a", now), ("b", now + wait)] {
        assert_eq!(governor.admit(at, chat, Class::Message), Verdict::Go);
        governor.ended(at, chat, Some((Scope::Unsaid, wait)), true);
    }
    assert_eq!(governor.admit(now + wait, "c", Class::Message), Verdict::Go);
}

#[test]
fn typing_is_shed_and_edits_wait_behind_messages() {
    let now = Instant::now();
    let limits = Limits { bot: vec![rate(2, 1000)], at_once: 8, ..Limits::default() };
    let mut governor = Governor::new(limits);
    governor.waits(true);
    assert_eq!(governor.admit(now, "a", Class::Typing), Verdict::Shed);
    assert_eq!(governor.admit(now, "a", Class::Edit), Verdict::Busy);
    assert_eq!(governor.admit(now, "a", Class::Message), Verdict::Go);
    governor.waits(false);
    assert_eq!(governor.admit(now, "a", Class::Typing), Verdict::Go);
    assert_eq!(governor.admit(now, "a", Class::Typing), Verdict::Shed);
    assert!(matches!(governor.admit(now, "a", Class::Edit), Verdict::At(_)));
}

#[test]
fn idle_chats_are_forgotten() {
    let mut now = Instant::now();
    let limits = Limits { chat: vec![rate(1, 1000)], at_once: 8, ..Limits::default() };
    let mut governor = Governor::new(limits);
    for chat in 0..3 * CHATS {
        assert_eq!(governor.admit(now, &chat.to_string(), Class::Message), Verdict::Go);
        governor.ended(now, &chat.to_string(), None, false);
        now += Duration::from_millis(1);
    }
    assert!(governor.chats.len() <= CHATS + 1);
}
