//! The governor: when a bot may call its platform.
//!
//! Two rules. A limit that is known beforehand ([`Limits`]) is kept in every span of its length, not only on average. And
//! when the platform says "wait", nothing that it meant is sent for exactly that long; after it, one call goes first, and the
//! others when it has been taken. What nobody will miss, [`Class::Typing`], is never queued: it goes at once or not at all.
//!
//! It holds no clock: who asks says when.

use std::collections::{HashMap, VecDeque};

use tokio::time::{Duration, Instant};

use super::platform::{Limits, Rate, Scope};

/// What a call is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Lost without harm.
    Typing,
    /// Waits until no message does.
    Edit,
    /// Waits for its turn.
    Message,
}

/// Whether a call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Now; [`Governor::ended`] must follow.
    Go,
    /// Not before this.
    At(Instant),
    /// Not before another call has ended.
    Busy,
    /// Not at all.
    Shed,
}

/// Chats whose windows are remembered; those that have been idle go first.
const CHATS: usize = 4096;

/// See the module.
#[derive(Debug)]
pub struct Governor {
    limits: Limits,
    bot: Line,
    chats: HashMap<String, Line>,
    running: usize,
    /// Messages that wait: an edit is behind all of them.
    waiting: usize,
}

/// What one bot, or one chat, has had.
#[derive(Debug, Default)]
struct Line {
    /// When each of the latest calls was made, for each rate.
    made: Vec<VecDeque<Instant>>,
    until: Option<Instant>,
    /// The platform asked to wait: of the next calls, one goes alone.
    probing: bool,
    running: usize,
}

impl Line {
    /// When the next call may be made, as far as this line knows.
    fn free<'r>(&mut self, rates: impl Iterator<Item = &'r Rate> + Clone, now: Instant) -> Option<Instant> {
        self.made.resize_with(rates.clone().count(), VecDeque::new);
        let mut free = self.until.filter(|&until| until > now);
        for (rate, made) in rates.zip(&mut self.made) {
            while made.front().is_some_and(|&first| now.saturating_duration_since(first) >= rate.per) {
                made.pop_front();
            }
            if made.len() >= rate.count.max(1) as usize {
                free = free.max(made.front().map(|&first| first + rate.per));
            }
        }
        free
    }

    fn count(&mut self, now: Instant) {
        self.running += 1;
        self.made.iter_mut().for_each(|made| made.push_back(now));
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.running == 0
            && !self.probing
            && self.until.is_none_or(|until| until <= now)
            && self.made.iter().all(VecDeque::is_empty)
    }
}

impl Limits {
    /// Those of a chat.
    fn of(&self, chat: &str) -> impl Iterator<Item = &Rate> + Clone {
        let group = self.group.as_ref().filter(|(is_group, _)| is_group(chat)).map(|(_, rates)| rates);
        self.chat.iter().chain(group.into_iter().flatten())
    }
}

impl Governor {
    /// With the limits of a platform.
    pub fn new(limits: Limits) -> Self {
        Self { limits, bot: Line::default(), chats: HashMap::new(), running: 0, waiting: 0 }
    }

    /// Whether a call for a chat may be made now.
    pub fn admit(&mut self, now: Instant, chat: &str, class: Class) -> Verdict {
        if self.chats.len() >= CHATS && !self.chats.contains_key(chat) {
            let limits = &self.limits;
            self.chats.retain(|chat, line| line.free(limits.of(chat), now).is_some() || !line.is_idle(now));
        }
        let line = self.chats.entry(chat.to_owned()).or_default();
        let free = line.free(self.limits.of(chat), now).max(self.bot.free(self.limits.bot.iter(), now));
        let busy = self.running >= self.limits.at_once.max(1)
            || (self.bot.probing && self.bot.running > 0)
            || (line.probing && line.running > 0);
        let behind = class < Class::Message && self.waiting > 0;
        match free {
            _ if class == Class::Typing && (free.is_some() || busy || behind) => Verdict::Shed,
            Some(at) => Verdict::At(at),
            None if busy || behind => Verdict::Busy,
            None => {
                line.count(now);
                self.bot.count(now);
                self.running += 1;
                Verdict::Go
            }
        }
    }

    /// Whether a refusal that does not say what it means concerns all chats: the bot has had half of what is known to be
    /// its own at least, or another chat was refused as well.
    fn is_the_bots(&self, now: Instant, chat: &str) -> bool {
        let busy = |(rate, made): (&Rate, &VecDeque<Instant>)| {
            let lately = made.iter().filter(|at| now.saturating_duration_since(**at) < rate.per).count();
            2 * lately >= rate.count as usize
        };
        self.limits.bot.iter().zip(&self.bot.made).any(busy)
            || self.chats.iter().any(|(name, line)| {
                name != chat && line.probing && line.until.is_some_and(|until| until > now)
            })
    }

    /// A message waits for its turn, or no longer does.
    pub fn waits(&mut self, yes: bool) {
        self.waiting = if yes { self.waiting + 1 } else { self.waiting.saturating_sub(1) };
    }

    /// A call that was admitted has ended. `pause` is what the platform asked for, from `now` on; `refused` says that it
    /// asked by refusing the call.
    pub fn ended(&mut self, now: Instant, chat: &str, pause: Option<(Scope, Duration)>, refused: bool) {
        self.running = self.running.saturating_sub(1);
        self.bot.running = self.bot.running.saturating_sub(1);
        let line = self.chats.entry(chat.to_owned()).or_default();
        line.running = line.running.saturating_sub(1);
        if !refused {
            // A call from before the pause proves nothing.
            for line in [&mut self.bot, &mut *line] {
                line.probing &= line.until.is_some_and(|until| until > now);
            }
        }
        if let Some((scope, wait)) = pause {
            let whole = match scope {
                Scope::Bot => true,
                Scope::Chat => false,
                Scope::Unsaid => self.is_the_bots(now, chat),
            };
            let line = if whole { &mut self.bot } else { self.chats.entry(chat.to_owned()).or_default() };
            line.until = line.until.max(Some(now + wait));
            line.probing |= refused;
        }
    }
}

#[cfg(test)]
mod tests;
