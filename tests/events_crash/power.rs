//! Power cuts: every change that a child made to its files is recorded, and replayed up to a cut.
//!
//! Of what came before the cut, the disk has for certain what was put there by `fsync` or `fdatasync`: the bytes of a
//! file by that file's, the names in a folder by the folder's. The rest is left to chance:
//!
//! * `lost`: none of it.
//! * `torn`: any of its sectors of 512 bytes, in any order, and the changes of names up to some point.
//! * `holes`: all names and lengths, none of the bytes, as on a file system that allocates late.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::model::Model;
use super::work::Plan;
use super::{Random, Running, alone, command, folder_in_memory, model, say, shim, soaking};

const SECTOR: usize = 512;

/// How long a case may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_power_cut_at_any_moment_loses_nothing_that_was_acknowledged() {
    cut_often(2, 0, if soaking() { 6000 } else { 300 });
}

#[test]
fn a_power_cut_loses_nothing_that_came_before_the_last_flush_of_an_interval() {
    cut_often(5, 150, if soaking() { 3000 } else { 100 });
}

fn cut_often(salt: u64, interval: u64, cases: usize) {
    let _alone = alone();
    let began = Instant::now();
    let home = folder_in_memory();
    let base = home.path().canonicalize().unwrap();
    model::peer(&base.join("peer"));
    let mut random = Random::seeded(salt);
    record(&base, &mut random, interval);
    let recorded = began.elapsed();
    let seed = random.next();
    let figures: Vec<BTreeMap<String, usize>> = std::thread::scope(|scope| {
        let shards: Vec<_> = (0..2)
            .map(|shard| {
                let base = &base;
                let task = format!("power {shard} 2 {} {seed} {interval}", cases / 2);
                scope.spawn(move || watch(base, &task))
            })
            .collect();
        shards.into_iter().map(|shard| shard.join().unwrap()).collect()
    });
    let mut all = BTreeMap::<String, usize>::new();
    for (outcome, count) in figures.into_iter().flatten() {
        *all.entry(outcome).or_default() += count;
    }
    println!("{cases} power cuts, nothing lost; recorded in {recorded:.1?}, all in {:.1?}", began.elapsed());
    for (outcome, count) in &all {
        println!("  {count:4}  {outcome}");
    }
    assert!(all.values().sum::<usize>() >= cases);
}

/// Runs a child whose cases say `case …`, and counts them by what they say first. The first that is `BAD`, silent for
/// long, or the child's own end, fails.
pub(crate) fn watch(base: &Path, task: &str) -> BTreeMap<String, usize> {
    let mut child = Running::start(&mut command(task, base));
    let mut counts = BTreeMap::new();
    let (mut at, mut bad) = ("the first case".to_owned(), Vec::new());
    loop {
        match child.said(PATIENCE) {
            Some(line) if line == "over" => break,
            Some(line) => match line.split_once(' ') {
                Some(("begin", case)) => at = case.to_owned(),
                Some(("case", outcome)) => *counts.entry(outcome.to_owned()).or_default() += 1,
                Some(("BAD", what)) => bad.push(format!("{at}: {what}")),
                _ => {}
            },
            None if child.ended => {
                panic!("the child died at {at} of `{task}`: {bad:?}\n{}", child.stderr());
            }
            None => panic!("no end of {at} of `{task}` within {PATIENCE:?}; {bad:?}"),
        }
    }
    if std::env::var_os("OPENCLAW_DEBUG").is_some() {
        println!("{}", child.stderr());
    }
    assert!(bad.is_empty(), "{} bad cases of `{task}`:\n{}", bad.len(), bad.join("\n"));
    counts
}

fn record(base: &Path, random: &mut Random, interval: u64) {
    // The second run opens what the first has left.
    let mut model = Model::default();
    for run in 1..=2 {
        let millis = if soaking() { 4000 } else { 700 };
        let plan = Plan { seed: random.next() | run, interval, ..model.plan(0, millis) };
        let mut child = Running::start(
            command(&format!("work {run} {}", plan.text()), base)
                .env("LD_PRELOAD", shim())
                .env("STRIKE_DIR", base)
                .env("STRIKE_RECORD", base.join("record")),
        );
        while let Some(line) = child.said(PATIENCE) {
            model.hear(&line);
        }
        assert!(child.ended && child.child.wait().unwrap().success(), "{}", child.stderr());
    }
}

// ── the record ───────────────────────────────────────────────────────────────────────────────────────────────────

pub(crate) struct Entry<'r> {
    pub(crate) kind: u8,
    pub(crate) path: &'r str,
    pub(crate) offset: u64,
    pub(crate) data: &'r [u8],
}

pub(crate) fn entries(bytes: &[u8]) -> Vec<Entry<'_>> {
    let (mut rest, mut all) = (bytes, Vec::new());
    while let Some((head, tail)) = rest.split_first_chunk::<17>() {
        let number = |from: usize| u32::from_le_bytes(head[from..from + 4].try_into().unwrap()) as usize;
        let (path, tail) = tail.split_at(number(1));
        let (data, tail) = tail.split_at(number(5));
        let offset = u64::from_le_bytes(head[9..17].try_into().unwrap());
        all.push(Entry { kind: head[0], path: std::str::from_utf8(path).unwrap(), offset, data });
        rest = tail;
    }
    assert!(rest.is_empty(), "the record ends in the midst of an entry");
    all
}

enum Change<'r> {
    Write(u64, &'r [u8]),
    Length(u64),
}

#[derive(Default)]
struct Inode<'r> {
    /// What is on the disk for certain.
    bytes: Vec<u8>,
    pending: Vec<Change<'r>>,
    folder: bool,
}

fn write(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let offset = offset as usize;
    if bytes.len() < offset + data.len() {
        bytes.resize(offset + data.len(), 0);
    }
    bytes[offset..offset + data.len()].copy_from_slice(data);
}

impl<'r> Inode<'r> {
    fn settle(&mut self) {
        for change in self.pending.drain(..) {
            match change {
                Change::Write(offset, data) => write(&mut self.bytes, offset, data),
                Change::Length(length) => self.bytes.resize(length as usize, 0),
            }
        }
    }

    fn torn(&self, random: &mut Random, percent: usize) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for change in &self.pending {
            match change {
                Change::Write(offset, data) => {
                    let mut at = 0;
                    while at < data.len() {
                        let end = data.len().min(at + SECTOR - (*offset as usize + at) % SECTOR);
                        if random.below(100) < percent {
                            write(&mut bytes, offset + at as u64, &data[at..end]);
                        }
                        at = end;
                    }
                }
                Change::Length(length) if random.below(100) < percent => bytes.resize(*length as usize, 0),
                Change::Length(_) => {}
            }
        }
        bytes
    }

    fn holes(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for change in &self.pending {
            match change {
                Change::Write(offset, data) => {
                    let length = bytes.len().max(*offset as usize + data.len());
                    bytes.resize(length, 0);
                }
                Change::Length(length) => bytes.resize(*length as usize, 0),
            }
        }
        bytes
    }
}

/// A change of one name: what it then stands for.
struct Naming {
    path: String,
    inode: Option<usize>,
}

#[derive(Default)]
struct Disk<'r> {
    inodes: Vec<Inode<'r>>,
    /// As the program sees it.
    names: BTreeMap<String, usize>,
    /// As it is on the disk for certain.
    durable: BTreeMap<String, usize>,
    /// Changes of names since their folders were put on the disk; those of one call together.
    pending: Vec<Vec<Naming>>,
}

impl<'r> Disk<'r> {
    fn apply(&mut self, entry: &Entry<'r>) {
        let path = entry.path;
        match entry.kind {
            b'C' => drop(self.file(path)),
            b'W' => {
                if let Some(inode) = self.names.get(path) {
                    self.inodes[*inode].pending.push(Change::Write(entry.offset, entry.data));
                }
            }
            b'T' => {
                let inode = self.file(path);
                self.inodes[inode].pending.push(Change::Length(entry.offset));
            }
            b'D' => {
                self.inodes.push(Inode { folder: true, ..Inode::default() });
                self.name(vec![(path.into(), Some(self.inodes.len() - 1))]);
            }
            b'U' | b'X' => self.name(vec![(path.into(), None)]),
            b'R' => self.rename(path, std::str::from_utf8(entry.data).unwrap()),
            b'S' => self.sync(path),
            _ => {}
        }
    }

    fn file(&mut self, path: &str) -> usize {
        if let Some(inode) = self.names.get(path) {
            return *inode;
        }
        self.inodes.push(Inode::default());
        self.name(vec![(path.into(), Some(self.inodes.len() - 1))]);
        self.inodes.len() - 1
    }

    fn name(&mut self, changes: Vec<(String, Option<usize>)>) {
        let mut namings = Vec::new();
        for (path, inode) in changes {
            match inode {
                Some(inode) => drop(self.names.insert(path.clone(), inode)),
                None => drop(self.names.remove(&path)),
            }
            namings.push(Naming { path, inode });
        }
        self.pending.push(namings);
    }

    fn rename(&mut self, from: &str, to: &str) {
        let below = format!("{from}/");
        let moved: Vec<(String, usize)> = self
            .names
            .iter()
            .filter(|(path, _)| *path == from || path.starts_with(&below))
            .map(|(path, inode)| (path.clone(), *inode))
            .collect();
        let mut changes = Vec::new();
        for (path, inode) in moved {
            changes.push((path.clone(), None));
            changes.push((format!("{to}{}", &path[from.len()..]), Some(inode)));
        }
        self.name(changes);
    }

    fn sync(&mut self, path: &str) {
        let Some(inode) = self.names.get(path).copied() else { return };
        if !self.inodes[inode].folder {
            self.inodes[inode].settle();
            return;
        }
        let within = |name: &str| name.rsplit_once('/').is_some_and(|(parent, _)| parent == path);
        let (now, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|namings| namings.iter().any(|naming| within(&naming.path)));
        self.pending = later;
        for naming in now.into_iter().flatten() {
            settle(&mut self.durable, &naming);
        }
    }

    /// Writes what a cut leaves.
    fn cut(&self, from: &str, to: &Path, how: &str, random: &mut Random) {
        let mut names = self.durable.clone();
        let survive = match how {
            "lost" => 0,
            "torn" => random.below(self.pending.len() + 1),
            _ => self.pending.len(),
        };
        for naming in self.pending[..survive].iter().flatten() {
            settle(&mut names, naming);
        }
        let percent = [5, 50, 95][random.below(3)];
        for (path, inode) in names.range(from.to_owned()..).take_while(|(path, _)| path.starts_with(from)) {
            let inode = &self.inodes[*inode];
            let target = PathBuf::from(format!("{}{}", to.display(), &path[from.len()..]));
            // A name whose folder has none is nowhere.
            if inode.folder {
                if target.parent().is_some_and(Path::exists) {
                    let _ = fs::create_dir(&target);
                }
                continue;
            }
            let bytes = match how {
                "lost" => inode.bytes.clone(),
                "torn" => inode.torn(random, percent),
                _ => inode.holes(),
            };
            if target.parent().is_some_and(Path::exists) {
                fs::write(&target, bytes).unwrap();
            }
        }
    }
}

fn settle(names: &mut BTreeMap<String, usize>, naming: &Naming) {
    match naming.inode {
        Some(inode) => drop(names.insert(naming.path.clone(), inode)),
        None => {
            names.remove(&naming.path);
            let below = format!("{}/", naming.path);
            names.retain(|path, _| !path.starts_with(&below));
        }
    }
}

// ── the child ────────────────────────────────────────────────────────────────────────────────────────────────────

/// Replays the record in `base`, and opens what a cut would have left at some of its places.
pub(crate) fn replay(base: &Path, shard: usize, shards: usize, cases: usize, seed: u64, interval: bool) {
    let bytes = fs::read(base.join("record")).unwrap();
    let entries = entries(&bytes);
    let mut random = Random::new(seed + shard as u64);
    let marks: Vec<usize> =
        entries.iter().enumerate().filter(|(_, entry)| entry.kind == b'M').map(|(at, _)| at + 1).collect();
    let mut cuts: Vec<usize> =
        (0..cases)
            .map(|case| {
                if case % 2 == 0 { marks[random.below(marks.len())] } else { random.below(entries.len() + 1) }
            })
            .collect();
    cuts.sort_unstable();
    let root = base.join("store");
    let root = root.to_str().unwrap();
    let head = format!("{root}/head");
    let (mut disk, mut model, mut at, mut told) = (Disk::default(), Model::default(), 0, Vec::new());
    disk.inodes.push(Inode { folder: true, ..Inode::default() });
    disk.names.insert(base.to_str().unwrap().into(), 0);
    for (nth, cut) in cuts.into_iter().enumerate() {
        for entry in &entries[at..cut] {
            match entry.kind {
                b'M' => told.push(std::str::from_utf8(entry.data).unwrap()),
                _ => disk.apply(entry),
            }
            // Without an interval what is told is on the disk; with one the head is written when all before is.
            if !interval || (entry.kind == b'W' && entry.path == head) {
                told.drain(..).for_each(|line| model.hear(line));
            }
        }
        let deleting = told.iter().any(|line| line.starts_with("delet"));
        at = cut;
        let how = ["lost", "torn", "torn", "holes"][nth % 4];
        say(&format!("begin cut {shard}/{shards}:{nth} `{how}` before entry {cut} of {}", entries.len()));
        let here = base.join(format!("cut{shard}"));
        let _ = fs::remove_dir_all(&here);
        fs::create_dir_all(&here).unwrap();
        disk.cut(root, &here.join("store"), how, &mut random);
        let outcome = std::panic::catch_unwind(|| look(&here, &mut model.clone(), how, deleting));
        match outcome {
            Ok(Ok(outcome)) => say(&format!("case {how}: {outcome}")),
            Ok(Err(error)) => {
                let kept = base.parent().unwrap().join(format!("cut-{seed}-{shard}-{nth}"));
                if std::env::var_os("OPENCLAW_KEEP").is_some() {
                    disk.cut(root, &kept, how, &mut Random::new(1));
                }
                say(&format!("BAD {}", error.replace('\n', " ")));
            }
            Err(_) => say("BAD panicked"),
        }
    }
}

fn look(here: &Path, model: &mut Model, how: &str, deleting: bool) -> Result<String, String> {
    use openclaw_core::events::EventStore;
    if deleting {
        model.may_be_deleted();
    }
    let store = EventStore::open(&here.join("store"), super::options())
        .map_err(|error| format!("open: {} {error}", error.code()))?;
    let verified = store
        .verify(&tokio_util::sync::CancellationToken::new())
        .map_err(|error| format!("verify: {error}"))?;
    // What was not acknowledged as on the disk may be reported as lost; what was may not.
    for problem in &verified.problems {
        if problem.seq == 0 || model.has(&problem.session_key, problem.seq) || how == "lost" {
            return Err(format!("{problem:?}"));
        }
        model.lost.insert((problem.session_key.clone(), problem.seq));
    }
    model.check(&store, true)?;
    let salvaged = here.join("store/damaged").exists();
    let blobs = store
        .folder()
        .read_dir()
        .unwrap()
        .filter_map(|entry| fs::read_dir(entry.unwrap().path().join("blobs")).ok());
    if let Some(blob) = blobs.flatten().next() {
        // Such a file is put on the disk as well; but none should be needed.
        return Err(format!("a page of the database became a file of its own: {blob:?}"));
    }
    // It goes on as before.
    let event = super::work::event("after", "0.after.1");
    super::wait(store.append_batch(vec![event])).map_err(|error| format!("append: {error}"))?;
    store.close_blocking().map_err(|error| format!("close: {error}"))?;
    Ok(match (salvaged, verified.problems.is_empty()) {
        (false, _) => "as it was".into(),
        (true, true) => "written anew from its records".into(),
        (true, false) => "written anew, with events reported that were not acknowledged".into(),
    })
}
