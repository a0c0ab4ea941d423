//! What an adapter implements, and what it is given.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio_util::bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::message::{Attachment, InboundMessage, OutboundMessage, Part};
use super::wire::Wire;
use super::{Boxed, Surroundings};
use crate::secrets::Secret;
use crate::{Code, CoreError, Result};

/// The adapters.
pub const PLATFORMS: &[Adapter] = &[
    Adapter { id: "discord", class: "DiscordChannel", open: super::discord::open },
    Adapter { id: "telegram", class: "TelegramChannel", open: super::telegram::open },
    Adapter { id: "slack", class: "SlackChannel", open: super::slack::open },
    Adapter { id: "whatsapp", class: "WhatsAppChannel", open: super::whatsapp::open },
    Adapter { id: "signal", class: "SignalChannel", open: super::signal::open },
    Adapter { id: "matrix", class: "MatrixChannel", open: super::matrix::open },
];

/// An adapter.
#[derive(Clone, Copy)]
pub struct Adapter {
    /// OpenClaw's name of the platform.
    pub id: &'static str,
    /// The JavaScript class.
    pub class: &'static str,
    /// What opens it.
    pub open: Open,
}

/// Reads an adapter's options. `VALIDATION` names what is wrong with them. Connects to nothing.
pub type Open = fn(Settings) -> Result<Box<dyn Platform>>;

/// What an adapter is opened with.
#[derive(Clone)]
pub struct Settings {
    /// The account on the platform; `default` unless the caller names another.
    pub account_id: String,
    /// Secrets by the option's name: `token`, and what else the adapter takes.
    pub secrets: BTreeMap<String, Secret>,
    /// Where the platform's API is, if not where it usually is.
    pub base_url: Option<String>,
    /// Where the platform calls us.
    pub webhook: Option<Webhook>,
    /// The adapter's own options, without secrets.
    pub options: Map<String, Value>,
    /// The network.
    pub wire: Arc<dyn Wire>,
    /// Time and chance.
    pub surroundings: Arc<dyn Surroundings>,
}

impl Settings {
    /// The secret of this name; `VALIDATION` if it was not given.
    pub fn secret(&self, name: &str) -> Result<Secret> {
        self.secrets.get(name).cloned().ok_or_else(|| {
            CoreError::new(
                Code::Validation,
                format!("`{name}` must be an ApiKey or a string, and was not given"),
            )
        })
    }
}

/// Where a platform calls us.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// The address to listen at. Default: `127.0.0.1`.
    pub host: IpAddr,
    /// The port; 0 for any.
    pub port: u16,
    /// The path of the calls. Default: `/`.
    pub path: String,
    /// What proves that a call is the platform's.
    pub secret: Secret,
}

/// How often something may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So many times …
    pub count: u32,
    /// … in this span, any of it.
    pub per: Duration,
}

/// How often a platform may be called. Where it says so itself (`retry_after`), that counts.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// All calls together.
    pub bot: Vec<Rate>,
    /// Calls for one chat.
    pub chat: Vec<Rate>,
    /// Calls for one group, beside those: by its id, whether a chat is one.
    pub group: Option<(IsGroup, Vec<Rate>)>,
    /// Calls that may be under way at once, in different chats. 0 is 1.
    pub at_once: usize,
}

/// Whether a chat is a group, by its id.
pub type IsGroup = fn(&str) -> bool;

/// One call of a platform.
#[derive(Clone, Debug)]
pub enum Call {
    /// Sends a part of a message.
    Send {
        /// The whole message.
        message: Arc<OutboundMessage>,
        /// The part.
        part: Part,
        /// Which of the parts: only the first answers [`OutboundMessage::reply_to_id`].
        index: usize,
        /// The same for each attempt at the same part, and for no other: 32 hexadecimal digits. For platforms that
        /// know such keys (a transaction id, a nonce).
        key: String,
    },
    /// Changes a message.
    Edit {
        /// The chat.
        to: String,
        /// The message.
        message_id: String,
        /// Markdown.
        text: String,
    },
    /// Reacts to a message.
    React {
        /// The chat.
        to: String,
        /// The message.
        message_id: String,
        /// The emoji; empty to take it back.
        emoji: String,
    },
    /// Shows that the bot is writing.
    Typing {
        /// The chat.
        to: String,
        /// The thread.
        thread_id: Option<String>,
    },
}

impl Call {
    /// The chat that it is for.
    pub fn to(&self) -> &str {
        match self {
            Self::Send { message, .. } => &message.to,
            Self::Edit { to, .. } | Self::React { to, .. } | Self::Typing { to, .. } => to,
        }
    }
}

/// Why a call failed.
#[derive(Debug)]
pub struct Failed {
    /// `CHANNEL_AUTH`, `CHANNEL_RATE_LIMITED` (with `retryAfterMs`), `CHANNEL_SEND`, `NETWORK`, `TIMEOUT` …; without
    /// the token, also where the platform repeats it.
    pub error: CoreError,
    /// What became of the call.
    pub fate: Fate,
    /// With `CHANNEL_RATE_LIMITED`: what has to wait.
    pub scope: Scope,
}

/// What a platform's limit is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// All calls of this bot.
    #[default]
    Bot,
    /// Calls for the same chat.
    Chat,
    /// The platform does not say: the same chat, unless the bot itself has been busy, or another chat waits as well.
    Unsaid,
}

/// What became of a call that succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// For [`Call::Send`]: the platform's ids of what it made, one at least.
    pub message_ids: Vec<String>,
    /// The platform says that the next call has to wait so long.
    pub pause: Option<(Scope, Duration)>,
}

impl Done {
    /// A call that made this.
    pub fn made(message_id: impl Into<String>) -> Self {
        Self { message_ids: vec![message_id.into()], pause: None }
    }
}

/// What became of a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is certain that nothing was sent, and another attempt may fare better: no connection came about, or the
    /// platform said "later" (429, with `retryAfterMs` in the error).
    Unsent,
    /// The platform refused, and would refuse again: nothing was sent.
    Refused,
    /// Nobody knows: it broke off after something was sent, or the answer was a 5xx.
    Unknown,
}

impl Failed {
    /// With this fate.
    pub fn new(fate: Fate, error: CoreError) -> Self {
        Self { error, fate, scope: Scope::Bot }
    }

    /// The platform asks to wait so long. `what` names the call in words.
    pub fn rate_limited(what: &str, wait: Duration, scope: Scope) -> Self {
        let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let message = format!("{what}: too many calls; the platform asks to wait {ms} ms");
        let error = CoreError::new(Code::ChannelRateLimited, message).with_status(429).retry_after(ms);
        Self { error, fate: Fate::Unsent, scope }
    }
}

/// One platform, seen by one account. See [the module](super) for how to write one.
pub trait Platform: Send + Sync + 'static {
    /// OpenClaw's name of the platform, such as `telegram`.
    fn id(&self) -> &'static str;

    /// How often it may be called.
    fn limits(&self) -> Limits;

    /// Whether the platform itself makes one message of several calls with the same [`Call::Send`] `key`, so that a
    /// call whose fate is unknown may be repeated; for an hour at least.
    fn knows_keys(&self) -> bool {
        false
    }

    /// Whether the platform tells again what nobody acknowledged. Where it does not, nothing waits to be written.
    fn tells_again(&self) -> bool {
        true
    }

    /// What proves who we are, where at most one connection may use it at a time: the same for the same bot (a token),
    /// whatever it is called here. A process that has it keeps others of this user from running it.
    fn identity(&self) -> Option<Secret> {
        None
    }

    /// Connects, and receives until the connection ends.
    ///
    /// `Ok` if the platform asked for a new connection: it is made at once. Else the error says what happens:
    /// `CHANNEL_AUTH` stops the channel, which is then `failed`; `CHANNEL_CONFLICT` says that somebody else has the
    /// connection, and is tried again seldom; anything else is tried again with backoff, or after the error's
    /// `retryAfterMs` exactly.
    ///
    /// When [`Link::closing`] is cancelled, it says goodbye as the platform wants it, and returns within 5 s; after
    /// that, and only then, it is dropped. Whatever it opened is closed when it returns: tasks, sockets, listeners.
    fn run<'a>(&'a self, link: &'a Link) -> Boxed<'a, Result<()>>;

    /// The calls that a message takes, in their order, one at least. Pure. `VALIDATION` or `CHANNEL_SEND` if the
    /// platform has no way to say it; nothing is sent then.
    fn render(&self, message: &OutboundMessage) -> Result<Vec<Part>>;

    /// The album that a message is an item of, where the platform sends those one by one: the inbox makes one message of
    /// them.
    fn album(&self, _message: &InboundMessage) -> Option<String> {
        None
    }

    /// Makes a call, once.
    fn call<'a>(&'a self, call: &'a Call) -> Boxed<'a, Result<Done, Failed>>;

    /// Fetches an attachment of at most `most` bytes: `LIMIT` as soon as it has more. A URL out of a message goes
    /// through [`crate::validation::fetch`] and nothing else.
    fn download<'a>(&'a self, attachment: &'a Attachment, most: usize) -> Boxed<'a, Result<Bytes>>;
}

/// Where what is received goes.
pub trait Spool: Send + Sync + 'static {
    /// Writes messages, and where the platform's log was read to, to the disk; all or nothing.
    fn spool(&self, messages: Vec<InboundMessage>, cursor: Option<String>) -> Boxed<'_, Result<()>>;

    /// Where the platform's log was read to, by this account, whenever it last ran.
    fn cursor(&self) -> Option<String>;

    /// The platform answered.
    fn verified(&self);

    /// Something that whoever looks at the channel's status should know, though it runs; empty when that is over.
    fn notice(&self, _notice: String) {}
}

/// What connects a running [`Platform`] with everything else.
#[derive(Clone)]
pub struct Link {
    spool: Arc<dyn Spool>,
    closing: CancellationToken,
}

impl Link {
    /// With this spool; `closing` ends the run.
    pub fn new(spool: Arc<dyn Spool>, closing: CancellationToken) -> Self {
        Self { spool, closing }
    }

    /// Writes messages to the disk, in their order. The platform may be told once this has returned. Messages that were
    /// received before are dropped: to receive some twice does no harm. `cursor`, if given, is written in the same step.
    ///
    /// It takes as long as the disk does, however long JavaScript takes.
    pub async fn receive(&self, messages: Vec<InboundMessage>, cursor: Option<String>) -> Result<()> {
        self.spool.verified();
        if messages.is_empty() && cursor.is_none() {
            return Ok(());
        }
        self.spool.spool(messages, cursor).await
    }

    /// The cursor that was written last, by any run of this account.
    pub fn cursor(&self) -> Option<String> {
        self.spool.cursor()
    }

    /// The platform answered: a heartbeat's acknowledgement, an empty poll. The first time tells that the channel runs;
    /// an open socket tells nothing.
    pub fn verified(&self) {
        self.spool.verified();
    }

    /// Says in the channel's status what does not work although it runs, such as a room that cannot be read.
    pub fn notice(&self, notice: String) {
        self.spool.notice(notice);
    }

    /// Cancelled when the channel is to end.
    pub fn closing(&self) -> &CancellationToken {
        &self.closing
    }
}
