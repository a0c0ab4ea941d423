//! Slash commands and buttons: <https://docs.discord.com/developers/interactions/receiving-and-responding>.
//!
//! An interaction is acknowledged once it is on the disk, which is within Discord's three seconds however long JavaScript
//! takes. What answers it later, within the 15 minutes of its token, is a follow-up to it.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::{Content, Discord, at};
use crate::channels::message::{InboundKind, InboundMessage};
use crate::channels::platform::Link;

/// The 15 minutes of a token, less what a follow-up may take.
const VALID: Duration = Duration::from_mins(14);
/// Discord waits for three seconds.
const ANSWER: Duration = Duration::from_secs(3);
/// Interactions that are remembered.
const MOST: usize = 1000;
/// Attempts at registering the commands.
const ATTEMPTS: u32 = 5;

/// An interaction that may be followed up.
pub(super) struct Interaction {
    id: String,
    application: String,
    token: String,
    until: Instant,
    /// Whether it was acknowledged, once that is known.
    acknowledged: watch::Receiver<Option<bool>>,
}

impl Interaction {
    /// False if nobody will acknowledge it any more: the connection ended first.
    fn is_live(&self) -> bool {
        self.acknowledged.borrow().is_some() || self.acknowledged.has_changed().is_ok()
    }
}

/// An interaction to acknowledge.
pub(super) struct Pending {
    id: String,
    token: String,
    is_command: bool,
    acknowledged: watch::Sender<Option<bool>>,
}

impl Discord {
    /// What is to be acknowledged, if the message is an interaction that was not seen before.
    pub(super) fn pending(&self, message: &InboundMessage) -> Option<Pending> {
        if !matches!(message.kind, InboundKind::Command | InboundKind::Callback) {
            return None;
        }
        let raw: Value = serde_json::from_str(message.raw.get()).ok()?;
        let word = |name: &str| at(&raw, name).as_str().map(str::to_owned);
        let (id, token, application) = (word("id")?, word("token")?, word("application_id")?);
        let mut known = self.interactions.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        known.retain(|one| one.until > now && (one.id != id || one.is_live()));
        if known.iter().any(|one| one.id == id) {
            return None;
        }
        while known.len() >= MOST {
            known.pop_front();
        }
        let (sender, acknowledged) = watch::channel(None);
        let is_command = message.kind == InboundKind::Command;
        known.push_back(Interaction {
            id: id.clone(),
            application,
            token: token.clone(),
            until: now + VALID,
            acknowledged,
        });
        Some(Pending { id, token, is_command, acknowledged: sender })
    }

    /// The application and the token for a follow-up, if this is an interaction that may still have one; waits until it is
    /// acknowledged, since Discord takes none before.
    pub(super) async fn follow_up(&self, id: &str) -> Option<(String, String)> {
        let (application, token, mut acknowledged) = {
            let known = self.interactions.lock().unwrap_or_else(PoisonError::into_inner);
            let one = known.iter().find(|one| one.id == id && one.until > Instant::now())?;
            (one.application.clone(), one.token.clone(), one.acknowledged.clone())
        };
        let outcome = timeout(ANSWER, acknowledged.wait_for(Option::is_some)).await;
        let accepted = outcome.ok()?.ok()?.is_some_and(|accepted| accepted);
        accepted.then_some((application, token))
    }

    /// No follow-up is taken any more.
    pub(super) fn spent(&self, id: &str) {
        self.interactions.lock().unwrap_or_else(PoisonError::into_inner).retain(|one| one.id != id);
    }
}

/// Acknowledges an interaction.
pub(super) async fn answer(discord: &Discord, pending: Pending) {
    let path = ["interactions", &pending.id, &pending.token, "callback"];
    let body = if pending.is_command {
        // Seen by that person alone.
        json!({ "type": 4, "data": { "content": "Received.", "flags": 64 } })
    } else {
        json!({ "type": 6 })
    };
    let answered = timeout(ANSWER, discord.ask(Method::POST, &path, Content::Json(body))).await;
    let taken = match answered {
        Ok(Ok(_)) => true,
        Ok(Err(failed)) => {
            tracing::warn!(error = %failed.error, "an interaction was not acknowledged");
            false
        }
        Err(_) => {
            tracing::warn!("an interaction was not acknowledged in time");
            false
        }
    };
    pending.acknowledged.send_replace(Some(taken));
}

/// Replaces the bot's commands by those of the options, if there are any, once in a process.
pub(super) async fn register(discord: &Discord, link: &Link) {
    let Some(commands) = &discord.commands else { return };
    if discord.registered.load(Ordering::Acquire) {
        return;
    }
    let put = || async {
        let me = discord.value(Method::GET, &["applications", "@me"], Content::None).await?;
        let path = ["applications", at(&me, "id").as_str().unwrap_or_default(), "commands"];
        discord.value(Method::PUT, &path, Content::Json(commands.clone())).await
    };
    for attempt in 1..=ATTEMPTS {
        let Err(error) = put().await else {
            discord.registered.store(true, Ordering::Release);
            return;
        };
        let wait = error.details().retry_after_ms.map(Duration::from_millis);
        let refused = error.details().status.is_some_and(|status| status < 500) && wait.is_none();
        if refused || attempt == ATTEMPTS {
            link.notice(format!("the slash commands were not registered: {}", error.message()));
            return;
        }
        sleep(wait.unwrap_or(ANSWER * attempt)).await;
    }
}
