//! One error type for the whole core.
//!
//! A [`CoreError`] says what was wrong, where, and what to do. Its [`Code`] is stable and is what callers
//! branch on; the message is for people. Context is added once, where it is known.

use std::fmt;
use std::path::{Path, PathBuf};

/// The result of every fallible function in the core.
pub type Result<T, E = CoreError> = std::result::Result<T, E>;

macro_rules! codes {
    ($($variant:ident = $text:literal, $doc:literal;)*) => {
        /// What kind of failure it is. The text form is the `code` of the JS `Error`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code { $(#[doc = $doc] $variant,)* }

        impl Code {
            /// Every code, for tests and documentation.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// The stable text form.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $text,)* }
            }
        }
    };
}

codes! {
    ConfigNotFound = "CONFIG_NOT_FOUND", "The config file does not exist.";
    ConfigParse = "CONFIG_PARSE", "The text is not JSON5, or is nested too deep; `line` and `column` say where.";
    ConfigInclude = "CONFIG_INCLUDE", "An `$include` is wrong, unreadable, circular or outside its root.";
    ConfigEnv = "CONFIG_ENV", "A `${NAME}` is unset and `missingEnv` is `error`.";
    ConfigInvalid = "CONFIG_INVALID", "The value does not fit the schema.";
    ConfigConflict = "CONFIG_CONFLICT", "The file changed since it was read; `revision` is the one on disk.";
    ConfigShrink = "CONFIG_SHRINK", "An edit would drop half of the file or a top-level key.";
    ConfigPath = "CONFIG_PATH", "A config path cannot be read, or names what cannot be edited.";
    ConfigReadonly = "CONFIG_READONLY", "The config may not be written.";
    StoreLocked = "STORE_LOCKED", "Another process, or another opening in this one, has the event store; the message names it.";
    StoreCorrupt = "STORE_CORRUPT", "The event store is damaged; the message says where.";
    StoreClosed = "STORE_CLOSED", "The event store was closed.";
    EventInvalid = "EVENT_INVALID", "An event is malformed, names what it may not, or is nested too deep.";
    EventTooLarge = "EVENT_TOO_LARGE", "An event has more bytes than the store takes.";
    CredentialNotFound = "CREDENTIAL_NOT_FOUND", "No credential has this name, or there is no credential store.";
    CredentialName = "CREDENTIAL_NAME", "A credential's name is not one of the allowed form.";
    CredentialKey = "CREDENTIAL_KEY", "The key is missing, malformed or not the one of this credential store.";
    Crypto = "CRYPTO", "A credential store was altered, cut off or rolled back, or there is no random source.";
    AuthExpired = "AUTH_EXPIRED", "A sign-in no longer holds, or was not completed: sign in again.";
    AuthRefresh = "AUTH_REFRESH", "An authorization server gave no token now; the sign-in may still hold.";
    Validation = "VALIDATION", "An argument is of the wrong type or out of range.";
    PathEscape = "PATH_ESCAPE", "A path leads out of its root.";
    SsrfBlocked = "SSRF_BLOCKED", "A URL leads to an address that is not public, or hides where it leads.";
    ProviderHttp = "PROVIDER_HTTP", "A model provider answered with an error; `status`, `retryAfterMs` and `body` say which.";
    ProviderStream = "PROVIDER_STREAM", "The answer of a model is incomplete, malformed, refused or failed; `errorType` is the API's word.";
    ProviderRequest = "PROVIDER_REQUEST", "A request is wrong, or asks for what the API cannot express; `path` names the field.";
    ChannelAuth = "CHANNEL_AUTH", "A platform does not take the token, or the call is not signed as it should be.";
    ChannelConflict = "CHANNEL_CONFLICT", "Another program, here or elsewhere, receives for the same bot.";
    ChannelRateLimited = "CHANNEL_RATE_LIMITED", "A platform asks to wait; `retryAfterMs` says how long.";
    ChannelSend = "CHANNEL_SEND", "A platform refused a message; `status` and the message say why.";
    ChannelClosed = "CHANNEL_CLOSED", "The channel was closed.";
    Network = "NETWORK", "A server could not be reached, or broke off.";
    Timeout = "TIMEOUT", "A bounded wait ran out.";
    SandboxUnavailable = "SANDBOX_UNAVAILABLE", "Nothing here can enforce the policy; `missing` names what is missing, `remedy` what to do.";
    SandboxPolicy = "SANDBOX_POLICY", "A sandbox policy is malformed, or would undo the sandbox; `path` names the field.";
    SandboxSpawn = "SANDBOX_SPAWN", "A command did not start in the sandbox, or the sandbox was closed.";
    Limit = "LIMIT", "A stated limit was passed.";
    Io = "IO", "The operating system refused; the message holds its words.";
    Internal = "INTERNAL", "A bug in the core: please report it.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What went wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CoreError {
    code: Code,
    message: String,
    details: Box<Details>,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The typed fields of a [`CoreError`]; each is also a property of the JS `Error`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Details {
    /// The file that is at fault.
    pub file: Option<PathBuf>,
    /// 1-based line in `file`, or in the text that was given.
    pub line: Option<u32>,
    /// Column in `line`, counted as npm `json5` counts: 1-based, in UTF-16 code units.
    pub column: Option<u32>,
    /// The config path, such as `agents.list[0].id`.
    pub path: Option<String>,
    /// `CONFIG_CONFLICT`: the revision on disk.
    pub revision: Option<String>,
    /// When it is worth trying again, in milliseconds from now.
    pub retry_after_ms: Option<u64>,
    /// `PROVIDER_HTTP`: the status.
    pub status: Option<u16>,
    /// `PROVIDER_HTTP`, and `PROVIDER_STREAM` where the answer is no stream: the beginning of the body, redacted.
    pub body: Option<String>,
    /// `PROVIDER_HTTP`, `PROVIDER_STREAM`: the API's own word, such as `overloaded_error`.
    pub error_type: Option<String>,
    /// `TIMEOUT`: the timer that ran out: `connect`, `firstByte`, `idle` or `total`.
    pub phase: Option<&'static str>,
    /// `SANDBOX_UNAVAILABLE`: the primitive that is missing.
    pub missing: Option<String>,
    /// `SANDBOX_UNAVAILABLE`: what to do about it.
    pub remedy: Option<String>,
}

impl CoreError {
    /// An error of this kind, with a message for people.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Box::default(), source: None }
    }

    /// An I/O error: `action` and `path` say what was tried ("open", "rename to").
    pub fn io(action: &str, path: &Path, source: std::io::Error) -> Self {
        let message = format!("cannot {action} {}: {source}", path.display());
        Self::new(Code::Io, message).in_file(path).caused_by(source)
    }

    /// Adds the file at fault.
    pub fn in_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.details.file = Some(file.into());
        self
    }

    /// Adds a 1-based line and column.
    pub fn at(mut self, line: u32, column: u32) -> Self {
        self.details.line = Some(line);
        self.details.column = Some(column);
        self
    }

    /// Adds the config path at fault.
    pub fn at_path(mut self, path: impl Into<String>) -> Self {
        self.details.path = Some(path.into());
        self
    }

    /// Adds the revision that is on disk.
    pub fn with_revision(mut self, revision: impl Into<String>) -> Self {
        self.details.revision = Some(revision.into());
        self
    }

    /// Adds when it is worth trying again, in milliseconds from now.
    pub fn retry_after(mut self, ms: u64) -> Self {
        self.details.retry_after_ms = Some(ms);
        self
    }

    /// Adds the status of an answer.
    pub fn with_status(mut self, status: u16) -> Self {
        self.details.status = Some(status);
        self
    }

    /// Adds the beginning of an answer's body, which the caller has redacted.
    pub fn with_body(mut self, body: impl Into<String>) -> Self {
        self.details.body = Some(body.into());
        self
    }

    /// Adds the API's own word for the failure.
    pub fn of_type(mut self, word: impl Into<String>) -> Self {
        self.details.error_type = Some(word.into());
        self
    }

    /// Adds the timer that ran out.
    pub fn in_phase(mut self, phase: &'static str) -> Self {
        self.details.phase = Some(phase);
        self
    }

    /// Passes everything of it that a server may have written through `change`; what caused it goes.
    pub(crate) fn map_texts(mut self, change: impl Fn(&str) -> String) -> Self {
        self.message = change(&self.message);
        for text in [&mut self.details.body, &mut self.details.error_type].into_iter().flatten() {
            *text = change(text);
        }
        self.source = None;
        self
    }

    /// Adds the primitive that is missing, and what to do about it.
    pub fn missing(mut self, primitive: impl Into<String>, remedy: impl Into<String>) -> Self {
        self.details.missing = Some(primitive.into());
        self.details.remedy = Some(remedy.into());
        self
    }

    /// Adds the underlying error.
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure it is.
    pub const fn code(&self) -> Code {
        self.code
    }

    /// The message alone.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The typed fields.
    pub const fn details(&self) -> &Details {
        &self.details
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_its_own_upper_case_name() {
        let mut seen = std::collections::HashSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{code} is used twice");
            assert!(code.as_str().chars().all(|c| c.is_ascii_uppercase() || c == '_'), "{code}");
        }
    }

    #[test]
    fn an_io_error_names_the_action_the_path_and_the_cause() {
        let cause = std::io::Error::new(std::io::ErrorKind::PermissionDenied, "denied");
        let error = CoreError::io("open", Path::new("/x/openclaw.json"), cause);
        assert_eq!(error.to_string(), "cannot open /x/openclaw.json: denied");
        assert_eq!(error.code(), Code::Io);
        assert_eq!(error.details().file.as_deref(), Some(Path::new("/x/openclaw.json")));
    }
}
