//! A server, a network that fails on demand, and what is needed around them.

use std::io::Read;
use std::net::TcpStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream};
use futures_util::{StreamExt, TryStreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A folder that goes when it is dropped.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// A port on which nobody listens.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Where `nats-server` is, if anywhere: on PATH, where a package puts it, or where the set-up unpacks it.
fn binary() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/nats/usr/sbin");
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), unpacked])
        .map(|folder| folder.join("nats-server"))
        .find(|file| file.is_file())
}

/// A real server, with `JetStream`.
pub(crate) struct NatsServer {
    child: Child,
    binary: PathBuf,
    folder: Scratch,
    port: u16,
    admin: String,
}

impl NatsServer {
    /// Starts one; `config` is added to its configuration. None if the machine has none.
    pub(crate) fn start(config: &str) -> Option<Self> {
        let binary = binary()?;
        let (folder, port) = (Scratch::new(), free_port());
        let store = folder.path().join("jetstream");
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\" }}\n{config}\n",
            store.display()
        );
        std::fs::write(folder.path().join("server.conf"), text).unwrap();
        let child = run(&binary, folder.path(), port);
        let admin = format!("nats://127.0.0.1:{port}");
        Some(Self { child, binary, folder, port, admin })
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, with the same port and folder.
    pub(crate) fn restart(&mut self) {
        self.child = run(&self.binary, self.folder.path(), self.port);
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    async fn context(&self) -> jetstream::Context {
        jetstream::new(async_nats::connect(&self.admin).await.unwrap())
    }

    async fn stream(&self) -> stream::Stream {
        self.context().await.get_stream("log").await.unwrap()
    }

    /// Makes the stream before any store does.
    pub(crate) async fn create_stream(&self, change: impl FnOnce(&mut stream::Config)) {
        let subjects = vec!["openclaw.log.*.*".to_owned()];
        let mut config = stream::Config { name: "log".into(), subjects, ..stream::Config::default() };
        change(&mut config);
        self.context().await.create_stream(config).await.unwrap();
    }

    pub(crate) async fn delete_stream(&self) {
        self.context().await.delete_stream("log").await.unwrap();
    }

    pub(crate) async fn stream_config(&self) -> stream::Config {
        self.stream().await.cached_info().config.clone()
    }

    pub(crate) async fn purge(&self) {
        self.stream().await.purge().await.unwrap();
    }

    /// How many messages the stream has.
    pub(crate) async fn messages(&self) -> u64 {
        self.stream().await.cached_info().state.messages
    }

    /// Publishes as anybody could.
    pub(crate) async fn publish(&self, subject: &str, headers: &[(&str, &str)], payload: &[u8]) {
        let mut map = async_nats::HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        let context = self.context().await;
        let sent = context.publish_with_headers(subject.to_owned(), map, payload.to_vec().into()).await;
        sent.unwrap().await.unwrap();
    }

    async fn all(&self) -> Vec<jetstream::Message> {
        let stream = self.stream().await;
        let count = usize::try_from(stream.cached_info().state.messages).unwrap();
        let config = jetstream::consumer::pull::Config {
            ack_policy: jetstream::consumer::AckPolicy::None,
            ..jetstream::consumer::pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await.unwrap();
        let messages = consumer.stream().messages().await.unwrap().take(count);
        tokio::time::timeout(Duration::from_secs(10), messages.try_collect()).await.unwrap().unwrap()
    }

    /// The subject of each message.
    pub(crate) async fn subjects(&self) -> Vec<String> {
        self.all().await.into_iter().map(|message| message.subject.to_string()).collect()
    }

    /// The id of each message.
    pub(crate) async fn message_ids(&self) -> Vec<String> {
        let id = |message: &jetstream::Message| {
            let headers = message.headers.as_ref().unwrap();
            headers.get("Nats-Msg-Id").unwrap().as_str().to_owned()
        };
        self.all().await.iter().map(id).collect()
    }

    /// How many events the stream holds, each counted as often as it is there.
    pub(crate) async fn events_in_stream(&self) -> u64 {
        let mut events = 0;
        for message in self.all().await {
            let mut payload = &message.payload[..];
            while let Some((length, rest)) = payload.split_first_chunk::<4>() {
                payload = &rest[usize::try_from(u32::from_be_bytes(*length)).unwrap()..];
                events += 1;
            }
        }
        events
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(binary: &Path, folder: &Path, port: u16) -> Child {
    let log = folder.join("server.log");
    let mut child = Command::new(binary)
        .arg("-c")
        .arg(folder.join("server.conf"))
        .arg("-l")
        .arg(&log)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It is ready when it greets.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut greeting = [0; 4];
        let greeted = BlockingStream::connect(("127.0.0.1", port))
            .and_then(|mut stream| stream.read_exact(&mut greeting))
            .is_ok_and(|()| greeting == *b"INFO");
        if greeted {
            return child;
        }
        let ended = child.try_wait().unwrap();
        if ended.is_some() || Instant::now() > deadline {
            let mut said = String::new();
            if ended.is_some() {
                let _ = child.stderr.take().unwrap().read_to_string(&mut said);
            }
            panic!(
                "nats-server does not start: {said}\n{}",
                std::fs::read_to_string(&log).unwrap_or_default()
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How the network fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Well.
    Pass,
    /// Connections are closed, and new ones at once.
    Cut,
    /// Nothing passes in either direction; connections stay.
    Stall,
    /// What the server says is lost; what it is told arrives.
    Deaf,
}

/// A network between a client and a server.
pub(crate) struct Proxy {
    port: u16,
    mode: Arc<watch::Sender<Mode>>,
    /// Bytes to the server that may still pass before the network is cut.
    budget: Arc<AtomicI64>,
}

impl Proxy {
    pub(crate) async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mode = Arc::new(watch::Sender::new(Mode::Pass));
        let budget = Arc::new(AtomicI64::new(i64::MAX));
        let proxy = Self { port, mode: Arc::clone(&mode), budget: Arc::clone(&budget) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *mode.borrow() == Mode::Cut {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
                let (mode, budget) = (Arc::clone(&mode), Arc::clone(&budget));
                tokio::spawn(async move {
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    // When one direction ends, both do.
                    tokio::select! {
                        () = pump(from_client, to_server, Arc::clone(&mode), Some(budget)) => {}
                        () = pump(from_server, to_client, mode, None) => {}
                    }
                });
            }
        });
        proxy
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Cuts the network once so many bytes went to the server.
    pub(crate) fn cut_after(&self, bytes: i64) {
        self.budget.store(bytes, Ordering::SeqCst);
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mode: Arc<watch::Sender<Mode>>,
    budget: Option<Arc<AtomicI64>>,
) {
    let mut modes = mode.subscribe();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let now = *modes.borrow_and_update();
        let read = match now {
            Mode::Cut => return,
            Mode::Stall => {
                if modes.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Mode::Pass | Mode::Deaf => tokio::select! {
                changed = modes.changed() => if changed.is_ok() { continue } else { return },
                read = from.read(&mut buffer) => read,
            },
        };
        let Ok(count @ 1..) = read else { return };
        if let Some(budget) = &budget {
            let left = budget.fetch_sub(i64::try_from(count).unwrap(), Ordering::SeqCst);
            if left < i64::try_from(count).unwrap() {
                budget.store(i64::MAX, Ordering::SeqCst);
                mode.send_replace(Mode::Cut);
                return;
            }
        } else if now == Mode::Deaf {
            continue;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Makes `cert.pem` with `key.pem` for `localhost`, and `other.pem` that has nothing to do with it; false where there
/// is no `openssl`.
pub(crate) fn certificate(folder: &Path) -> bool {
    ["cert.pem", "other.pem"].iter().all(|name| {
        let key = if *name == "cert.pem" { "key.pem" } else { "other-key.pem" };
        Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(folder.join(key))
            .arg("-out")
            .arg(folder.join(name))
            .output()
            .is_ok_and(|output| output.status.success())
    })
}

/// What a credentials file holds.
pub(crate) struct Credentials {
    pub(crate) text: String,
    pub(crate) jwt: String,
    pub(crate) seed: String,
}

/// An operator, an account and a user, as `nsc` would make them: a server's configuration, and the user's file.
pub(crate) fn credentials() -> (String, Credentials) {
    let [operator, account, system, user] = [
        nkeys::KeyPair::new_operator(),
        nkeys::KeyPair::new_account(),
        nkeys::KeyPair::new_account(),
        nkeys::KeyPair::new_user(),
    ];
    let limits = r#""limits":{"subs":-1,"data":-1,"payload":-1,"imports":-1,"exports":-1,"wildcards":true,"conn":-1,"leaf":-1,"mem_storage":-1,"disk_storage":-1,"streams":-1,"consumer":-1},"default_permissions":{"pub":{},"sub":{}}"#;
    let plain = limits.replace(r#","mem_storage":-1,"disk_storage":-1,"streams":-1,"consumer":-1"#, "");
    let sys = system.public_key();
    let operator_jwt = token(&operator, &operator, "operator", &format!(r#""system_account":"{sys}""#));
    let account_jwt = token(&operator, &account, "account", limits);
    let system_jwt = token(&operator, &system, "account", &plain);
    let jwt = token(&account, &user, "user", r#""pub":{},"sub":{},"subs":-1,"data":-1,"payload":-1"#);
    let seed = user.seed().unwrap();
    let config = format!(
        "operator: {operator_jwt}\nsystem_account: {sys}\nresolver: MEMORY\nresolver_preload: {{ {}: {account_jwt}, {sys}: {system_jwt} }}",
        account.public_key()
    );
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    (config, Credentials { text, jwt, seed })
}

fn token(issuer: &nkeys::KeyPair, subject: &nkeys::KeyPair, kind: &str, claims: &str) -> String {
    let (iss, sub) = (issuer.public_key(), subject.public_key());
    let body = format!(
        r#"{{"jti":"{sub}","iat":1700000000,"iss":"{iss}","name":"{kind}","sub":"{sub}","nats":{{{claims},"type":"{kind}","version":2}}}}"#
    );
    let signed =
        format!("{}.{}", base64url(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#), base64url(body.as_bytes()));
    format!("{signed}.{}", base64url(&issuer.sign(signed.as_bytes()).unwrap()))
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize]));
        }
    }
    text
}
