//! Each fuzz target over its kept corpus and a bounded, seeded number of mutations of it.
//!
//! `FUZZ_RUNS` and `FUZZ_SEED` change how many and which.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use openclaw_core_fuzz::{TARGETS, Target};

/// Mutations of each target, unless `FUZZ_RUNS` says otherwise.
const RUNS: u64 = 100_000;
/// The longest input that mutation makes.
const MAX_LENGTH: usize = 4096;

/// Pieces that a random byte would take long to find.
const TOKENS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"'",
    b"\"",
    b"\\",
    b"//",
    b"/*",
    b"*/",
    b"\n",
    b"\r\n",
    b"0x1F",
    b"-0",
    b"+.5e-3",
    b"Infinity",
    b"-NaN",
    b"null",
    b"true",
    b"__proto__",
    b"\\u0061",
    b"\\ud800",
    b"\\x41",
    b"\\\n",
    b"$include",
    b"${HOME}",
    b"\xEF\xBB\xBF",
    b"\xE2\x80\xA8",
    b"\xF0\x9F\x98\x80",
    b"\xED\xA0\x80",
    b"\0",
    b"token=",
    b"KEY",
    b"&",
    b"?",
    b"%74",
    b"Authorization: ",
    b"://",
    b"@",
    b"\n\n",
    b"data: ",
    b"event: ",
    b"[DONE]",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let mut inputs: Vec<_> = std::fs::read_dir(folder().join(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap()))
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "the corpus of {name} is empty");
    inputs
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// `SplitMix64`
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, or 0 if there is none.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    fn pick<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len())]
    }
}

/// One to eight small changes: bytes, tokens, cuts, repetitions and pieces of other inputs.
fn mutate(inputs: &[(String, Vec<u8>)], random: &mut Random) -> Vec<u8> {
    let mut bytes = inputs[random.below(inputs.len())].1.clone();
    for _ in 0..=random.below(8) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(16)).min(bytes.len());
        match random.below(6) {
            0 => drop(bytes.drain(at..end)),
            1 => drop(bytes.splice(at..at, random.pick(TOKENS).iter().copied())),
            2 => drop(bytes.splice(at..end, random.pick(TOKENS).iter().copied())),
            3 => {
                let piece = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, piece));
            }
            4 => {
                let other = &inputs[random.below(inputs.len())].1;
                let from = random.below(other.len());
                let to = (from + random.below(64)).min(other.len());
                drop(bytes.splice(at..at, other[from..to].iter().copied()));
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = u8::try_from(random.next() & 0xFF).unwrap();
                }
            }
        }
    }
    bytes.truncate(MAX_LENGTH);
    bytes
}

fn check(target: Target, what: &str, bytes: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| target(bytes))).is_err() {
        panic!("{what} fails on {:?}\nbytes: {bytes:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn every_target_holds_on_its_corpus_and_on_mutations_of_it() {
    let runs = from_environment("FUZZ_RUNS", RUNS);
    let seed = from_environment("FUZZ_SEED", 1);
    for (name, target) in TARGETS {
        let inputs = corpus(name);
        for (file, bytes) in &inputs {
            check(*target, &format!("{name}, corpus file {file}"), bytes);
        }
        let mut random = Random(seed);
        for run in 0..runs {
            check(*target, &format!("{name}, seed {seed}, run {run}"), &mutate(&inputs, &mut random));
        }
        println!("{name}: {} corpus files, {runs} mutations, seed {seed}", inputs.len());
    }
}

#[test]
fn each_target_has_a_corpus_and_each_corpus_a_target() {
    let folders: BTreeSet<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(folders, TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect());
}
