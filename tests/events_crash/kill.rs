//! Death at any moment.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::model::{self, Model};
use super::{Random, Running, alone, command, folder, shim, soaking};

/// Kills of one store, before the next begins.
const KILLS_OF_A_STORE: usize = 40;

#[derive(Default)]
struct Figures {
    kills: usize,
    /// Before the store was open.
    opening: usize,
    acknowledged: u64,
    struck: BTreeMap<String, usize>,
}

#[test]
fn death_at_any_moment_loses_nothing_that_was_acknowledged() {
    let _alone = alone();
    let kills = if soaking() { 10_000 } else { 2_000 };
    let began = Instant::now();
    let peer = folder();
    model::peer(peer.path());
    let seed = Random::seeded(1).next();
    let halves: Vec<Figures> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..2)
            .map(|half| {
                let peer = peer.path();
                scope.spawn(move || kill(peer, kills / 2, Random::new(seed + half)))
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let mut all = Figures::default();
    for half in halves {
        all.kills += half.kills;
        all.opening += half.opening;
        all.acknowledged += half.acknowledged;
        for (call, count) in half.struck {
            *all.struck.entry(call).or_default() += count;
        }
    }
    println!(
        "{} kills, {} of them while the store was being opened; {} acknowledgements, none lost; {:.0} s",
        all.kills,
        all.opening,
        all.acknowledged,
        began.elapsed().as_secs_f64()
    );
    for (call, count) in &all.struck {
        println!("  {count:4}  {call}");
    }
    assert!(all.kills >= kills);
    assert!(all.acknowledged > kills as u64 * 5, "the children hardly came to work");
    for call in ["pwrite", "fdatasync", "rename", "unlink", "write", "mkdir", "fsync"] {
        assert!(all.struck.keys().any(|struck| struck.starts_with(call)), "no kill hit a {call}");
    }
}

fn kill(peer: &Path, kills: usize, mut random: Random) -> Figures {
    let mut figures = Figures::default();
    let mut run = 0;
    while figures.kills < kills {
        let home = folder();
        let base = home.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(peer, base.join("peer")).unwrap();
        let mut model = Model::default();
        let of_this_store = if soaking() { 250 } else { KILLS_OF_A_STORE };
        for nth in 1..=of_this_store {
            run += 1;
            one(&base, run, &mut model, &mut random, &mut figures);
            // Half of the stores that were killed are opened by the next child, which may be killed at that.
            if nth % 20 == 0 || random.below(2) == 0 {
                let whole = nth % 20 == 0;
                if let Err(error) = model::check(&base, &mut model, whole) {
                    let kept = home.keep();
                    panic!("after kill {nth} in run {run}: {error}\nthe store is kept in {}", kept.display());
                }
            }
        }
        figures.acknowledged += model.acknowledged;
    }
    figures
}

fn one(base: &Path, run: u64, model: &mut Model, random: &mut Random, figures: &mut Figures) {
    let plan = model.plan(random.next() | 1, 0);
    let mut command = command(&format!("work {run} {}", plan.text()), base);
    command.env("LD_PRELOAD", shim()).env("STRIKE_DIR", base.join("store")).env("STRIKE_NOW", "1");
    let by_call = random.below(2) == 0;
    if by_call {
        // Many of the strikes while the store is being opened or has just begun.
        let at = if random.below(4) == 0 { 1 + random.below(60) } else { 1 + random.below(300) };
        let what = ["kill:before", "kill:half", "kill:after"][random.below(3)];
        command.env("STRIKE_AT", at.to_string()).env("STRIKE_DO", what).env("STRIKE_FD", "1");
    }
    let mut child = Running::start(&mut command);
    let mut heard = Vec::new();
    if by_call {
        let until = Instant::now() + Duration::from_millis(400);
        while let Some(line) = child.line(until.saturating_duration_since(Instant::now())) {
            heard.push(line);
        }
    } else {
        // From the moment at which it may have opened the store.
        let pause = Duration::from_micros(random.below(60_000) as u64);
        let until = Instant::now() + Duration::from_secs(5);
        while let Some(line) = child.line(until.saturating_duration_since(Instant::now())) {
            let began = line.contains("running 1 test");
            heard.push(line);
            if began {
                break;
            }
        }
        std::thread::sleep(pause);
    }
    let errors = std::mem::replace(&mut child.errors, std::sync::mpsc::channel().1);
    let (rest, status) = {
        let _ = child.child.kill();
        let status = child.child.wait().unwrap();
        (child.lines.iter().collect::<Vec<_>>(), status)
    };
    heard.extend(rest);
    if status.signal() != Some(9) {
        let errors = errors.recv_timeout(Duration::from_secs(5)).unwrap_or_default();
        panic!(
            "run {run} ended by itself ({status}): {errors}\n{:?}",
            heard.iter().rev().take(5).collect::<Vec<_>>()
        );
    }
    figures.kills += 1;
    figures.opening += usize::from(!heard.iter().any(|line| line == ">open"));
    let mut last = None;
    for line in heard {
        match line.strip_prefix('>') {
            Some(said) => model.hear(said),
            None => last = Some(line).filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).or(last),
        }
    }
    if by_call && let Some(call) = last {
        let call = call.split(' ').skip(1).collect::<Vec<_>>().join(" ");
        let call: String = call.chars().filter(|c| !c.is_ascii_digit()).collect();
        let call = if call.contains("snap.") { call.split('.').next().unwrap().to_owned() } else { call };
        *figures.struck.entry(call).or_default() += 1;
    }
}
