//! A connection to one server, and the stream on it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, pull};
use async_nats::jetstream::context::{Context, ContextBuilder, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{self, DiscardPolicy, RetentionPolicy, StorageType, Stream};
use async_nats::jetstream::{self, ErrorCode, consumer};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, HeaderMap, Message, ServerAddr};
use tokio_util::sync::CancellationToken;

use super::wire::{self, Envelope};
use super::{Fault, Options};
use crate::runtime::blocking;
use crate::{Code, CoreError, Result};

/// Messages, or status lines, that may wait in a subscription. A pull asks for fewer.
const SUBSCRIPTION: usize = 1024;
/// How long the server remembers a message's id. What is sent again later is refused by its expected sequence.
const DUPLICATE_WINDOW: Duration = Duration::from_mins(2);

/// One server's address, and what is secret of it.
#[derive(Clone)]
pub(super) struct Address {
    server: ServerAddr,
    user: Option<String>,
    password: Option<String>,
}

impl Address {
    /// Reads a URL; `at` is its place in the option. No error repeats the URL: it may hold a password.
    pub(super) fn parse(url: &str, at: usize) -> Result<Self> {
        let invalid = |what: &str| {
            let message = format!(
                "`nats.servers[{at}]` {what}; it must be a URL such as nats://host:4222, nats://user:password@host or tls://host"
            );
            CoreError::new(Code::Validation, message).at_path(format!("nats.servers[{at}]"))
        };
        let given: ServerAddr = url.parse().map_err(|_| invalid("cannot be read"))?;
        if given.is_websocket() {
            return Err(invalid("names a WebSocket"));
        }
        if given.host().is_empty() {
            return Err(invalid("names no host"));
        }
        let decoded = |text: &str| {
            percent_decoded(text).ok_or_else(|| invalid("has a user or password that is no text"))
        };
        let user = given.username().map(decoded).transpose()?;
        let password = given.password().map(decoded).transpose()?;
        // The client's own log lines and errors may show an address: from here on it holds no secret.
        let mut url = given.into_inner();
        if url.set_username("").is_err() || url.set_password(None).is_err() {
            return Err(invalid("cannot be read"));
        }
        url.set_path("");
        url.set_query(None);
        url.set_fragment(None);
        let server = ServerAddr::from_url(url).map_err(|_| invalid("cannot be read"))?;
        Ok(Self { server, user, password })
    }

    fn is_local(&self) -> bool {
        let host = self.server.host();
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Host and port.
    pub(super) fn name(&self) -> String {
        let (host, port) = (self.server.host(), self.server.port());
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Whether a password or token would cross a network in the clear.
    pub(super) fn bares_secrets(&self) -> bool {
        self.user.is_some() && !self.server.tls_required() && !self.is_local()
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16));
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// The last message of a subject.
pub(super) struct Last {
    pub(super) sequence: u64,
    pub(super) envelope: Envelope,
    pub(super) bytes: usize,
}

/// What became of a message that was sent.
pub(super) enum Sent {
    /// It is in the stream, with this sequence.
    At(u64),
    /// Another message is the last of the subject than was expected.
    NotNext,
}

/// What the stream is and holds.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    /// When it was created: what tells it from another of the name.
    pub(super) created: String,
    pub(super) first: u64,
    pub(super) last: u64,
}

/// Where a message stands that was read.
pub(super) struct Place {
    /// Its sequence in the stream.
    pub(super) sequence: u64,
    /// How many were given since this reading began, with it.
    pub(super) delivered: u64,
    /// How many are to come.
    pub(super) pending: u64,
}

/// A message at a place of the stream.
pub(super) struct Stored {
    pub(super) subject: String,
    pub(super) headers: HeaderMap,
    pub(super) payload: Vec<u8>,
}

/// A live connection, with the stream checked.
pub(super) struct Server {
    client: Client,
    context: Context,
    stream: Stream,
    name: String,
    /// Bytes that one message may have, without its headers.
    pub(super) limit: usize,
    pub(super) extent: Extent,
    pub(super) address: String,
    /// Cancelled when the connection is lost.
    pub(super) lost: CancellationToken,
}

impl Server {
    /// Connects, and makes or checks the stream.
    pub(super) async fn connect(options: &Options, address: &Address, replica: &str) -> Result<Self, Fault> {
        let lost = CancellationToken::new();
        let client = open(options, address, replica, lost.clone()).await?;
        let context = ContextBuilder::new().timeout(options.pace.answer).build(client.clone());
        let stream = find_or_create(&context, &options.stream).await?;
        let info = stream.cached_info();
        check(&info.config)?;
        let largest = match usize::try_from(info.config.max_message_size) {
            Ok(bytes) if bytes > 0 => bytes.min(client.max_payload()),
            _ => client.max_payload(),
        };
        let limit = largest.saturating_sub(wire::HEADROOM);
        if limit < wire::HEADROOM {
            return Err(Fault::Refused(format!(
                "the server takes messages of {largest} bytes at most; set `max_payload` to 1 KiB or more"
            )));
        }
        let extent = Extent {
            created: info.created.to_string(),
            first: info.state.first_sequence,
            last: info.state.last_sequence,
        };
        let name = options.stream.clone();
        Ok(Self { client, context, stream, name, limit, extent, address: address.name(), lost })
    }

    /// Sends a message and waits until the server has it.
    pub(super) async fn publish(
        &self,
        subject: String,
        envelope: &Envelope,
        expected: u64,
        payload: Vec<u8>,
    ) -> Result<Sent, Fault> {
        let headers = envelope.headers(&self.name, expected, payload.len());
        let message = PublishMessage::build().headers(headers).payload(payload.into());
        let sending = async { self.context.send_publish(subject, message).await?.await };
        match sending.await {
            Ok(ack) => Ok(Sent::At(ack.sequence)),
            Err(error) => match error.kind() {
                PublishErrorKind::WrongLastSequence => Ok(Sent::NotNext),
                _ => Err(Fault::link("send an event", &error)),
            },
        }
    }

    /// The last message of a subject, or of the subjects that a pattern names.
    pub(super) async fn last(&self, subject: &str) -> Result<Option<Last>, Fault> {
        let message = match self.stream.get_last_raw_message_by_subject(subject).await {
            Ok(message) => message,
            Err(error) if matches!(error.kind(), stream::LastRawMessageErrorKind::NoMessageFound) => {
                return Ok(None);
            }
            Err(error) => return Err(Fault::link("read the last message of a subject", &error)),
        };
        let envelope = Envelope::of(&message.headers).map_err(|what| {
            Fault::Conflict(format!(
                "message {} of the stream, on this store's own subject, is not of this store: {what}",
                message.sequence
            ))
        })?;
        Ok(Some(Last { sequence: message.sequence, envelope, bytes: message.payload.len() }))
    }

    /// The message with this sequence, if the stream still has it.
    pub(super) async fn message(&self, sequence: u64) -> Result<Option<Stored>, Fault> {
        match self.stream.get_raw_message(sequence).await {
            Ok(message) => Ok(Some(Stored {
                subject: message.subject.to_string(),
                headers: message.headers,
                payload: message.payload.into(),
            })),
            Err(error) if matches!(error.kind(), stream::LastRawMessageErrorKind::NoMessageFound) => Ok(None),
            Err(error) => Err(Fault::link("read a message of the stream", &error)),
        }
    }

    /// Begins to read the stream after this sequence.
    pub(super) async fn read_after(&self, sequence: u64, idle: Duration) -> Result<Reader, Fault> {
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: sequence.saturating_add(1) },
            ack_policy: AckPolicy::None,
            replay_policy: ReplayPolicy::Instant,
            inactive_threshold: idle,
            num_replicas: 1,
            memory_storage: true,
            ..pull::Config::default()
        };
        let consumer = self
            .stream
            .create_consumer(config)
            .await
            .map_err(|error| Fault::link("read the stream", &error))?;
        let inbox = self.client.new_inbox();
        let messages = self
            .client
            .subscribe(inbox.clone())
            .await
            .map_err(|error| Fault::link("read the stream", &error))?;
        Ok(Reader { pending: consumer.cached_info().num_pending, consumer, messages, inbox })
    }

    /// Whether the stream is the one that was created then, with the message of this id still at this sequence, as
    /// far as can be seen.
    pub(super) async fn holds(&self, created: &str, sequence: u64, id: Option<&str>) -> Result<bool, Fault> {
        if created != self.extent.created || sequence > self.extent.last {
            return Ok(false);
        }
        if sequence < self.extent.first || sequence == 0 || id.is_none() {
            return Ok(true);
        }
        // One that was deleted from the midst says nothing.
        let found = self.message(sequence).await?;
        Ok(found.is_none_or(|message| wire::message_id(&message.headers).as_deref() == id))
    }

    /// Where a message that was read stands.
    pub(super) fn place(&self, message: &Message) -> Result<Place, Fault> {
        let context = self.context.clone();
        let message = jetstream::Message { message: message.clone(), context };
        let info = message.info().map_err(|error| Fault::Link(format!("a message has no place: {error}")))?;
        Ok(Place { sequence: info.stream_sequence, delivered: info.consumer_sequence, pending: info.pending })
    }
}

/// What reads the stream in order.
pub(super) struct Reader {
    consumer: consumer::Consumer<pull::Config>,
    pub(super) messages: async_nats::Subscriber,
    inbox: String,
    /// Messages to come, as counted at the beginning.
    pub(super) pending: u64,
}

impl Reader {
    /// Asks for messages. The server answers as they come, until the count, the bytes or the time is up.
    pub(super) async fn ask(
        &self,
        count: usize,
        bytes: usize,
        time: Duration,
        heartbeat: Duration,
    ) -> Result<(), Fault> {
        let batch = pull::BatchConfig {
            batch: count,
            max_bytes: bytes,
            expires: Some(time),
            idle_heartbeat: heartbeat,
            ..pull::BatchConfig::default()
        };
        self.consumer
            .request_batch(batch, self.inbox.clone().into())
            .await
            .map_err(|error| Fault::link("read the stream", &error))
    }
}

async fn open(
    options: &Options,
    address: &Address,
    replica: &str,
    lost: CancellationToken,
) -> Result<Client, Fault> {
    // The only provider that is compiled in; without this, rustls panics should another crate bring a second one.
    let _ = async_nats::rustls::crypto::ring::default_provider().install_default();
    let mut connect = ConnectOptions::new()
        .name(format!("openclaw-core {replica}"))
        // A password is for the servers that were named, and connections are made anew here, not in the client.
        .ignore_discovered_servers()
        .max_reconnects(1)
        .connection_timeout(options.pace.answer)
        .request_timeout(Some(options.pace.answer))
        .ping_interval(options.pace.heartbeat)
        .subscription_capacity(SUBSCRIPTION)
        .event_callback(move |event| {
            if matches!(event, Event::Disconnected | Event::Closed) {
                lost.cancel();
            }
            std::future::ready(())
        });
    if let Some(path) = &options.credentials {
        let text = read_credentials(path.clone()).await?;
        connect = connect.credentials(&text).map_err(|_| {
            // The cause is left out: it was made from the file's text.
            Fault::Refused(format!("{} is not a NATS credentials file", path.display()))
        })?;
    }
    match (&address.user, &address.password) {
        (Some(user), Some(password)) => connect = connect.user_and_password(user.clone(), password.clone()),
        (Some(token), None) => connect = connect.token(token.clone()),
        _ => {}
    }
    connect.connect(address.server.clone()).await.map_err(|error| match error.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => Fault::Refused(format!(
            "the server {} refuses the user: check `nats.credentials`, or the user and password in `nats.servers`",
            address.name()
        )),
        _ => Fault::Link(format!("cannot connect to {}: {}", address.name(), causes(&error))),
    })
}

async fn read_credentials(path: PathBuf) -> Result<String, Fault> {
    let read =
        |path: &Path| std::fs::read_to_string(path).map_err(|error| CoreError::io("read", path, error));
    blocking(move || read(&path)).await.map_err(|error| Fault::Refused(error.message().to_owned()))
}

/// An error with all that caused it.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

async fn find_or_create(context: &Context, name: &str) -> Result<Stream, Fault> {
    use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};

    match context.get_stream(name).await {
        Ok(stream) => return Ok(stream),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(cause) if cause.error_code() == ErrorCode::STREAM_NOT_FOUND => {}
            GetStreamErrorKind::JetStream(cause) => return Err(refused(name, &cause)),
            _ => return Err(Fault::link("look for the stream", &error)),
        },
    }
    let config = stream::Config {
        name: name.to_owned(),
        description: Some("OpenClaw event log".into()),
        subjects: vec![wire::subjects(name)],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        // Where a limit is set later, a full stream refuses what is new: it waits in the stores and is not lost.
        discard: DiscardPolicy::New,
        max_messages: -1,
        max_bytes: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        num_replicas: 1,
        duplicate_window: DUPLICATE_WINDOW,
        ..stream::Config::default()
    };
    // Another gateway may have made it meanwhile: the same request twice is one stream.
    let made = context.create_stream(config).await;
    made.map_err(|error| match error.kind() {
        CreateStreamErrorKind::JetStream(cause) => refused(name, &cause),
        _ => Fault::link("create the stream", &error),
    })
}

fn refused(name: &str, cause: &dyn std::error::Error) -> Fault {
    Fault::Refused(format!("the server refuses the stream `{name}`: {cause}"))
}

/// Refuses a stream that would lose events as a matter of course, or cannot take them.
fn check(config: &stream::Config) -> Result<(), Fault> {
    let name = &config.name;
    let ours = wire::subjects(name);
    let wrong = if config.subjects != [ours.clone()] {
        format!("its subjects must be `{ours}` alone")
    } else if config.retention != RetentionPolicy::Limits {
        "its retention must be `limits`: with another, messages go when one store has read them".into()
    } else if config.no_ack {
        "it must acknowledge (`no_ack` is set)".into()
    } else if config.sealed {
        "it is sealed".into()
    } else if config.mirror.is_some() || config.sources.as_ref().is_some_and(|sources| !sources.is_empty()) {
        "it must be no mirror and have no sources".into()
    } else {
        return Ok(());
    };
    Err(Fault::Refused(format!("the stream `{name}` does not fit: {wrong}")))
}

/// What of the stream's configuration lets messages go that a store has not seen.
pub(super) fn forgets(config: &stream::Config) -> Option<String> {
    let discards = config.discard == DiscardPolicy::Old;
    let mut limits = Vec::new();
    if config.storage == StorageType::Memory {
        limits.push("storage in memory".to_owned());
    }
    if !config.max_age.is_zero() {
        limits.push(format!("max_age {} s", config.max_age.as_secs()));
    }
    if discards && config.max_messages > 0 {
        limits.push(format!("max_msgs {}", config.max_messages));
    }
    if discards && config.max_bytes > 0 {
        limits.push(format!("max_bytes {}", config.max_bytes));
    }
    if config.max_messages_per_subject > 0 && !config.discard_new_per_subject {
        limits.push(format!("max_msgs_per_subject {}", config.max_messages_per_subject));
    }
    (!limits.is_empty()).then(|| limits.join(", "))
}

impl Server {
    /// See [`forgets`].
    pub(super) fn forgets(&self) -> Option<String> {
        forgets(&self.stream.cached_info().config)
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Address").field(&self.name()).finish()
    }
}

/// For the caller's convenience, one list.
pub(super) fn addresses(urls: &[String]) -> Result<Arc<[Address]>> {
    if urls.is_empty() {
        let message = "`nats.servers` must name at least one server, such as nats://127.0.0.1:4222";
        return Err(CoreError::new(Code::Validation, message).at_path("nats.servers"));
    }
    urls.iter().enumerate().map(|(at, url)| Address::parse(url, at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_form_of_an_address_shows_its_secrets() {
        let address = Address::parse("nats://bob:p%40ss%2fword@host.example:5000/x?y#z", 0).unwrap();
        assert_eq!((address.user.as_deref(), address.password.as_deref()), (Some("bob"), Some("p@ss/word")));
        assert_eq!(address.name(), "host.example:5000");
        for text in [format!("{address:?}"), format!("{:?}", address.server), address.name()] {
            assert!(!text.contains("bob") && !text.contains("ss/w") && !text.contains("ss%2f"), "{text}");
        }
        assert!(address.bares_secrets());
        assert!(!Address::parse("tls://bob:secret@host", 0).unwrap().bares_secrets());
        assert!(!Address::parse("nats://t0ken@127.0.0.1", 0).unwrap().bares_secrets());
        assert_eq!(Address::parse("[::1]", 0).unwrap().name(), "[::1]:4222");
    }

    #[test]
    fn an_address_that_cannot_be_used_is_refused_without_being_repeated() {
        for url in [
            "nats://u:secret@host:99999",
            "http://u:secret@host",
            "wss://u:secret@host",
            "nats://u:%ff@host",
            "",
        ] {
            let error = Address::parse(url, 2).unwrap_err();
            assert_eq!(error.code(), Code::Validation, "{url}");
            assert!(
                error.message().contains("nats.servers[2]") && !error.message().contains("secret"),
                "{error}"
            );
        }
        assert_eq!(addresses(&[]).unwrap_err().code(), Code::Validation);
    }

    #[test]
    fn a_stream_that_would_lose_events_is_refused_or_named() {
        let good = stream::Config {
            name: "log".into(),
            subjects: vec![wire::subjects("log")],
            ..stream::Config::default()
        };
        assert!(check(&good).is_ok());
        assert_eq!(forgets(&good), None);
        let bad = [
            stream::Config { subjects: vec!["openclaw.>".into()], ..good.clone() },
            stream::Config { retention: RetentionPolicy::WorkQueue, ..good.clone() },
            stream::Config { no_ack: true, ..good.clone() },
            stream::Config { sealed: true, ..good.clone() },
            stream::Config { mirror: Some(stream::Source::default()), ..good.clone() },
        ];
        for config in bad {
            assert!(matches!(check(&config), Err(Fault::Refused(_))), "{config:?}");
        }
        let ages = stream::Config { max_age: Duration::from_mins(1), max_bytes: 5, ..good };
        assert_eq!(forgets(&ages).unwrap(), "max_age 60 s, max_bytes 5");
    }
}
