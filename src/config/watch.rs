//! A config's revisions as they come.
//!
//! # Design
//! The system's notifications only say *when* to look; what happened is found by reading. The folders of all files
//! are watched, not the files, so that a file that is replaced, removed or not there yet is still seen. After a
//! notification comes a pause that lets an editor finish, then one read. A good revision that differs from the last
//! good one is sent with what changed; a bad one, if a second read after a pause finds the same, is sent as its error,
//! once, and the last good one stays.
//!
//! While the consumer is busy one update waits for it; what happens meanwhile is found by the next read. Where there
//! is nothing to be notified by (a bad revision may depend on any file; a system may be out of watches), the watch
//! reads every second.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Config;
use super::document::same;
use super::dotpath::{push_index, push_key};
use super::value::{Node, Value};
use crate::runtime::blocking;
use crate::{Code, CoreError};

/// Quiet time after which a burst of changes counts as over, and how long one may go on.
const QUIET: Duration = Duration::from_millis(50);
const LONGEST_BURST: Duration = Duration::from_millis(500);
/// Between reads where nothing notifies.
const POLL: Duration = Duration::from_secs(1);

/// What a watch has found.
#[derive(Debug)]
pub struct Update {
    /// The new good revision, or why there is none; the last good one then stays.
    pub outcome: Result<Arc<Config>, CoreError>,
    /// The config paths whose values differ from the last good revision; none with an error.
    pub changed_paths: Vec<String>,
}

impl Config {
    /// Sends each new revision to `updates` until `stop` is cancelled or the receiver is gone.
    pub async fn watch(self: Arc<Self>, updates: mpsc::Sender<Update>, stop: CancellationToken) {
        let watched = Watched::new();
        let work = follow(self, &watched, &updates);
        tokio::select! {
            () = stop.cancelled() => {}
            () = updates.closed() => {}
            () = work => {}
        }
    }
}

async fn follow(mut good: Arc<Config>, watched: &Watched, updates: &mpsc::Sender<Update>) {
    let mut notifications = watched.follow(&good);
    // The error that was sent last, until the config is good again.
    let mut bad: Option<(Code, String)> = None;
    // The error that the last read has found, which a file that is half written gives too.
    let mut suspected: Option<(Code, String)> = None;
    loop {
        // The first read needs no notification: the config may have changed since it was loaded.
        let last = Arc::clone(&good);
        match blocking(move || last.reload()).await {
            Ok(next) => {
                let recovered = bad.take().is_some();
                suspected = None;
                if recovered || next.revision() != good.revision() {
                    let next = Arc::new(next);
                    notifications = watched.follow(&next);
                    let changed_paths = changed_paths(good.root(), next.root());
                    good = Arc::clone(&next);
                    if updates.send(Update { outcome: Ok(next), changed_paths }).await.is_err() {
                        return;
                    }
                    // A file that came with this revision may have changed before its folder was watched.
                    continue;
                }
            }
            Err(error) => {
                let seen = (error.code(), error.message().to_owned());
                if bad.as_ref() != Some(&seen) {
                    if suspected.as_ref() != Some(&seen) {
                        suspected = Some(seen);
                        watched.settle().await;
                        continue;
                    }
                    bad = Some(seen);
                    if updates.send(Update { outcome: Err(error), changed_paths: Vec::new() }).await.is_err()
                    {
                        return;
                    }
                }
                // A folder that went and came back is another one.
                notifications = watched.follow(&good);
            }
        }
        if notifications && bad.is_none() {
            watched.changed.notified().await;
        } else {
            let _ = timeout(POLL, watched.changed.notified()).await;
        }
        watched.settle().await;
    }
}

/// The folders that are watched, and the word that something happened in them.
struct Watched {
    watcher: Mutex<Option<RecommendedWatcher>>,
    folders: Mutex<HashSet<PathBuf>>,
    files: Arc<Mutex<HashSet<PathBuf>>>,
    changed: Arc<Notify>,
}

impl Watched {
    fn new() -> Self {
        let files = Arc::<Mutex<HashSet<PathBuf>>>::default();
        let changed = Arc::new(Notify::new());
        let (wanted, tell) = (Arc::clone(&files), Arc::clone(&changed));
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if concerns(&event, &wanted.lock().unwrap_or_else(PoisonError::into_inner)) {
                tell.notify_one();
            }
        });
        let watcher = watcher.inspect_err(|error| tracing::warn!(%error, "the config is polled")).ok();
        Self { watcher: Mutex::new(watcher), folders: Mutex::default(), files, changed }
    }

    /// Watches the folders of a config's files. `false` if one of them cannot be watched.
    fn follow(&self, config: &Config) -> bool {
        let files: HashSet<PathBuf> = config.watch_paths().into_iter().map(Path::to_owned).collect();
        let wanted: HashSet<PathBuf> = files.iter().filter_map(|file| nearest_folder(file)).collect();
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(watcher) = watcher.as_mut() else { return false };
        // Where links lead is not told by the folders at either end.
        let linked =
            config.watch_paths().iter().any(|path| path.canonicalize().is_ok_and(|real| real != **path));
        for gone in folders.difference(&wanted) {
            // It fails for a folder that is no more.
            let _ = watcher.unwatch(gone);
        }
        *folders = HashSet::new();
        let mut complete = true;
        for folder in wanted {
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    folders.insert(folder);
                }
                Err(error) => {
                    tracing::warn!(%error, folder = %folder.display(), "a config's folder is polled");
                    complete = false;
                }
            }
        }
        complete && !linked
    }

    /// Waits until a burst of notifications is over.
    async fn settle(&self) {
        let end = Instant::now() + LONGEST_BURST;
        loop {
            tokio::select! {
                () = sleep_until(end) => return,
                quiet = timeout(QUIET, self.changed.notified()) => if quiet.is_err() { return },
            }
        }
    }
}

/// The folder of a file or, while that is missing, the nearest above it.
fn nearest_folder(file: &Path) -> Option<PathBuf> {
    file.ancestors().skip(1).find(|folder| folder.is_dir()).map(Path::to_owned)
}

/// Whether a notification may mean a change: of a file, of a folder on the way to it, or of the unknown. Reading,
/// which the watch does itself, is none.
fn concerns(event: &notify::Result<Event>, files: &HashSet<PathBuf>) -> bool {
    let Ok(event) = event else { return true };
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
        EventKind::Access(_) => return false,
        _ => {}
    }
    event.need_rescan() || event.paths.iter().any(|path| files.iter().any(|file| file.starts_with(path)))
}

/// The paths at which two values differ: of keys that one side lacks, the key; of lists of equal length, the element.
fn changed_paths(before: &Node, after: &Node) -> Vec<String> {
    let mut paths = Vec::new();
    collect(&before.value, &after.value, "", &mut paths);
    paths
}

fn collect(before: &Value, after: &Value, path: &str, paths: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let added = new.keys().filter(|key| !old.contains_key(key.as_bytes()));
            for key in old.keys().chain(added) {
                let mut inner = path.to_owned();
                push_key(&mut inner, key);
                match (old.get(key.as_bytes()), new.get(key.as_bytes())) {
                    (Some(old), Some(new)) => collect(&old.value, &new.value, &inner, paths),
                    _ => paths.push(inner),
                }
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                let mut inner = path.to_owned();
                push_index(&mut inner, index);
                collect(&old.value, &new.value, &inner, paths);
            }
        }
        _ if same(before, after) => {}
        _ => paths.push(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigOptions, json5};
    use std::fs;

    #[test]
    fn differences_are_named_where_they_are() {
        let parse = |text: &str| json5::parse(text.as_bytes(), 0).unwrap();
        for (before, after, expected) in [
            ("{a: 1, b: {c: [1, 2]}}", "{b: {c: [1, 2]}, a: 1}", &[][..]),
            ("{a: 1, b: {c: [1, 2], d: 1}}", "{a: 2, b: {c: [1, 3], d: 1}}", &["a", "b.c[1]"]),
            ("{a: {x: 1}}", "{b: {y: 1}}", &["a", "b"]),
            ("{'x y': [1]}", "{'x y': [1, 2]}", &["[\"x y\"]"]),
        ] {
            assert_eq!(changed_paths(&parse(before), &parse(after)), expected, "{before} {after}");
        }
    }

    #[test]
    fn reading_and_strangers_are_no_change() {
        let files = HashSet::from([PathBuf::from("/d/openclaw.json")]);
        let event = |kind, path: &str| Ok(Event::new(kind).add_path(path.into()));
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        assert!(concerns(&event(written, "/d/openclaw.json"), &files));
        assert!(concerns(&event(EventKind::Any, "/d"), &files));
        assert!(concerns(&Err(notify::Error::generic("lost")), &files));
        assert!(!concerns(&event(EventKind::Any, "/d/openclaw.json.bak"), &files));
        let read = EventKind::Access(AccessKind::Open(AccessMode::Read));
        assert!(!concerns(&event(read, "/d/openclaw.json"), &files));
    }

    struct Watch {
        updates: mpsc::Receiver<Update>,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
        folder: tempfile::TempDir,
    }

    impl Watch {
        fn start(text: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let config = folder.path().join("openclaw.json");
            fs::write(&config, text).unwrap();
            fs::write(folder.path().join("inc.json5"), "{ x: 1 }").unwrap();
            let options =
                ConfigOptions { path: Some(config.to_str().unwrap().to_owned()), ..ConfigOptions::default() };
            let config = Arc::new(Config::load(options).unwrap());
            let (sender, updates) = mpsc::channel(1);
            let stop = CancellationToken::new();
            let task = tokio::spawn(config.watch(sender, stop.clone()));
            Self { updates, stop, task, folder }
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.folder.path().join(name), text).unwrap();
        }

        async fn next(&mut self) -> Update {
            timeout(Duration::from_secs(20), self.updates.recv()).await.expect("no update came").unwrap()
        }

        /// Updates until one is good and has the value, past what came in between.
        async fn until(&mut self, path: &str, value: &str) -> Vec<Result<Vec<String>, Code>> {
            let mut seen = Vec::new();
            loop {
                let update = self.next().await;
                let found = update.outcome.as_ref().ok().and_then(|config| config.get(path).unwrap());
                seen.push(update.outcome.map(|_| update.changed_paths).map_err(|error| error.code()));
                if found.is_some_and(|found| found.text == value) {
                    return seen;
                }
            }
        }
    }

    impl Watch {
        /// Updates until one is this error: a read may have met a file that was half written.
        async fn until_error(&mut self, code: Code) {
            while self.next().await.outcome.err().map(|error| error.code()) != Some(code) {}
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn saves_deletions_returns_and_included_files_are_seen() {
        let mut watch = Watch::start("{ a: '1', inc: { $include: './inc.json5' } }");
        // In place.
        watch.write("openclaw.json", "{ a: '2', inc: { $include: './inc.json5' } }");
        watch.until("a", "\"2\"").await;
        // By renaming, as editors do: the old file moves aside, the new one into its place.
        let file = |name: &str| watch.folder.path().join(name);
        fs::write(file("swap"), "{ a: '3', inc: { $include: './inc.json5' } }").unwrap();
        fs::rename(file("openclaw.json"), file("openclaw.json~")).unwrap();
        fs::rename(file("swap"), file("openclaw.json")).unwrap();
        let seen = watch.until("a", "\"3\"").await;
        assert_eq!(seen.last(), Some(&Ok(vec!["a".to_owned()])));
        // In an included file.
        watch.write("inc.json5", "{ x: '2' }");
        let seen = watch.until("inc.x", "\"2\"").await;
        assert_eq!(seen.last(), Some(&Ok(vec!["inc.x".to_owned()])));
        // Bad, then good.
        watch.write("openclaw.json", "{ a: '4', ");
        watch.until_error(Code::ConfigParse).await;
        watch.write("openclaw.json", "{ a: '5', new: { $include: './later.json5' } }");
        watch.until_error(Code::ConfigInclude).await;
        watch.write("later.json5", "{ y: '1' }");
        let seen = watch.until("new.y", "\"1\"").await;
        assert_eq!(seen.last(), Some(&Ok(vec!["a".to_owned(), "inc".to_owned(), "new".to_owned()])));
        watch.write("later.json5", "{ y: '2' }");
        watch.until("new.y", "\"2\"").await;
        // Gone, then back as it was.
        let text = fs::read(watch.folder.path().join("openclaw.json")).unwrap();
        fs::remove_file(watch.folder.path().join("openclaw.json")).unwrap();
        watch.until_error(Code::ConfigNotFound).await;
        fs::write(watch.folder.path().join("openclaw.json"), text).unwrap();
        let seen = watch.until("a", "\"5\"").await;
        assert_eq!(seen.last(), Some(&Ok(vec![])));
        // The end.
        watch.stop.cancel();
        timeout(Duration::from_secs(20), watch.task).await.expect("the watch goes on").unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_slow_consumer_gets_the_latest_revision_and_not_each_one() {
        let mut watch = Watch::start("{ n: '0' }");
        for n in 1..=100 {
            watch.write("openclaw.json", &format!("{{ n: '{n}' }}"));
        }
        let seen = watch.until("n", "\"100\"").await;
        assert!(seen.len() < 100, "{} updates", seen.len());
        drop(watch.updates);
        timeout(Duration::from_secs(20), watch.task).await.expect("the watch outlives its consumer").unwrap();
    }
}
