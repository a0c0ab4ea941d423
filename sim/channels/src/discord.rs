//! Discord: the Gateway, version 10, and the HTTP API, for one bot. <https://docs.discord.com/developers/reference>
//!
//! Options: `token`, `privileged` (the privileged intents that are switched on; default all), `heartbeat_ms` (default
//! 41250), `grace_ms` (by how much a heartbeat may be late; default half of that), `resume_ms` (for how long a lost session can be resumed; default 180000), `sessions` (how many may be
//! started; default 1000), `identify_ms` (one identify in so long; default 5000), `limits` (false: no rate limits),
//! `seed`.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use data_encoding::BASE64;
use flate2::{Compress, Compression, FlushCompress};
use serde_json::{Map, Value, json};

use crate::platform::{Chance, Id, Input, Now, Output, Platform, Rule, Window, iso};
use crate::wire::{Frame, Request, Response};

const RULES: &[Rule] = &[
    Rule {
        id: "discord.heartbeat",
        text: "A heartbeat in each heartbeat_interval; a connection without them is closed.",
        source: "https://docs.discord.com/developers/events/gateway#sending-heartbeats",
    },
    Rule {
        id: "discord.identify",
        text: "First an Identify or a Resume, once, with a valid token and valid intents that are switched on.",
        source: "https://docs.discord.com/developers/events/gateway#identifying",
    },
    Rule {
        id: "discord.identify-rate",
        text: "At most max_concurrency Identifies each 5 s, and as many in a day as session_start_limit says.",
        source: "https://docs.discord.com/developers/events/gateway#session-start-limit-object",
    },
    Rule {
        id: "discord.resume",
        text: "A session is resumed at resume_gateway_url, with its id and a sequence number that was sent.",
        source: "https://docs.discord.com/developers/events/gateway#resuming",
    },
    Rule {
        id: "discord.gateway-rate",
        text: "At most 120 events a minute on a connection: 4008.",
        source: "https://docs.discord.com/developers/events/gateway#rate-limiting",
    },
    Rule {
        id: "discord.payload",
        text: "What is sent over the Gateway is JSON with a known opcode, of at most 4096 bytes.",
        source: "https://docs.discord.com/developers/events/gateway#sending-events",
    },
    Rule {
        id: "discord.rate-limit",
        text: "No request to a bucket that is used up before its reset, or before retry_after is over.",
        source: "https://docs.discord.com/developers/topics/rate-limits",
    },
    Rule {
        id: "discord.invalid-requests",
        text: "10,000 requests in 10 minutes that end in 401, 403 or 429 get the address banned.",
        source: "https://docs.discord.com/developers/topics/rate-limits#invalid-request-limit-aka-cloudflare-bans",
    },
    Rule {
        id: "discord.user-agent",
        text: "User-Agent is DiscordBot (URL, version).",
        source: "https://docs.discord.com/developers/reference#user-agent",
    },
    Rule {
        id: "discord.authentication",
        text: "Authorization is Bot and a valid token.",
        source: "https://docs.discord.com/developers/reference#authentication",
    },
    Rule {
        id: "discord.content",
        text: "A message has content, an embed, a sticker or a file; of content at most 2000 characters.",
        source: "https://docs.discord.com/developers/resources/message#create-message",
    },
    Rule {
        id: "discord.upload-size",
        text: "Files of a message have 10 MiB at most.",
        source: "https://docs.discord.com/developers/reference#uploading-files",
    },
    Rule {
        id: "discord.interaction",
        text: "An interaction is answered once, within 3 s; its token is valid for 15 minutes.",
        source: "https://docs.discord.com/developers/interactions/receiving-and-responding#responding-to-an-interaction",
    },
];

const EPOCH: u64 = 1_420_070_400_000;
const MEBIBYTE: usize = 1 << 20;
const GUILDS: u64 = 1;
const GUILD_MESSAGES: u64 = 1 << 9;
const GUILD_REACTIONS: u64 = 1 << 10;
const DIRECT_MESSAGES: u64 = 1 << 12;
const DIRECT_REACTIONS: u64 = 1 << 13;
const MESSAGE_CONTENT: u64 = 1 << 15;
/// GUILD_MEMBERS, GUILD_PRESENCES, MESSAGE_CONTENT.
const PRIVILEGED: u64 = 1 << 1 | 1 << 8 | MESSAGE_CONTENT;
/// <https://docs.discord.com/developers/events/gateway#list-of-intents>
const KNOWN: u64 = 0x0333_FFFF;

struct Socket {
    path: String,
    session: Option<String>,
    identified: bool,
    /// It had a session before, which was said to be invalid.
    again: bool,
    zlib: Option<Compress>,
    /// Of the last heartbeat, or of Hello.
    beat: u64,
    sent: Window,
}

struct Session {
    intents: u64,
    seq: u64,
    events: Vec<(u64, String, Value)>,
    socket: Option<Id>,
    lost: u64,
}

struct Interaction {
    at: u64,
    token: String,
    channel: String,
    answered: bool,
    message: Option<String>,
}

struct Nonce {
    at: u64,
    message: String,
}

/// One bot, and the guilds and conversations it is in.
pub struct Discord {
    token: String,
    bot: Value,
    privileged: u64,
    heartbeat_ms: u64,
    grace_ms: u64,
    resume_ms: u64,
    identify_ms: u64,
    limits: bool,
    chance: Chance,
    origin: String,
    count: u64,
    users: BTreeMap<String, Value>,
    guilds: BTreeMap<String, Value>,
    channels: BTreeMap<String, Value>,
    messages: BTreeMap<String, Value>,
    /// Messages in order, by channel.
    order: BTreeMap<String, Vec<String>>,
    reactions: Vec<Value>,
    typing: Vec<Value>,
    files: BTreeMap<String, (String, Vec<u8>)>,
    commands: BTreeMap<String, Value>,
    interactions: BTreeMap<String, Interaction>,
    nonces: HashMap<String, Nonce>,
    sockets: BTreeMap<Id, Socket>,
    sessions: BTreeMap<String, Session>,
    starts: Window,
    last_identify: Option<u64>,
    windows: HashMap<String, Window>,
    global: Window,
    blocked_until: HashMap<String, u64>,
    invalid: Window,
}

/// An answer that is an error.
struct Refusal {
    status: u16,
    body: Value,
    rule: Option<&'static str>,
    headers: Vec<(String, String)>,
}

type Outcome = Result<Response, Refusal>;

fn refuse(status: u16, code: u64, message: &str) -> Refusal {
    Refusal { status, body: json!({"message": message, "code": code}), rule: None, headers: Vec::new() }
}

impl Refusal {
    fn breaks(self, rule: &'static str) -> Self {
        Self { rule: Some(rule), ..self }
    }

    fn form(field: &str, code: &str, message: &str) -> Self {
        let mut refusal = refuse(400, 50035, "Invalid Form Body");
        refusal.body["errors"] = json!({field: {"_errors": [{"code": code, "message": message}]}});
        refusal
    }
}

fn unknown(code: u64, what: &str) -> Refusal {
    refuse(404, code, &format!("Unknown {what}"))
}

fn ok(value: &Value) -> Outcome {
    Ok(Response::json(200, value))
}

/// Whom a request asks to open a direct chat with.
fn recipient(request: &Request) -> String {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    text(&body, "recipient_id").to_owned()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

impl Discord {
    pub fn new(options: &Value) -> Result<Self, String> {
        let number = |name: &str, default: u64| options[name].as_u64().unwrap_or(default);
        let bot = json!({
            "id": "900000000000000001", "username": "sim", "discriminator": "0", "global_name": null, "avatar": null,
            "bot": true, "mfa_enabled": false, "verified": true, "email": null, "flags": 0,
        });
        Ok(Self {
            token: options["token"].as_str().unwrap_or("sim-token").into(),
            privileged: number("privileged", PRIVILEGED) & PRIVILEGED,
            heartbeat_ms: number("heartbeat_ms", 41_250),
            grace_ms: number("grace_ms", number("heartbeat_ms", 41_250) / 2),
            resume_ms: number("resume_ms", 180_000),
            identify_ms: number("identify_ms", 5000),
            limits: options["limits"].as_bool().unwrap_or(true),
            chance: Chance(number("seed", 1)),
            origin: "http://sim".into(),
            count: 0,
            users: BTreeMap::from([(text(&bot, "id").to_owned(), bot.clone())]),
            bot,
            guilds: BTreeMap::new(),
            channels: BTreeMap::new(),
            messages: BTreeMap::new(),
            order: BTreeMap::new(),
            reactions: Vec::new(),
            typing: Vec::new(),
            files: BTreeMap::new(),
            commands: BTreeMap::new(),
            interactions: BTreeMap::new(),
            nonces: HashMap::new(),
            sockets: BTreeMap::new(),
            sessions: BTreeMap::new(),
            starts: Window::new(number("sessions", 1000), 86_400_000),
            last_identify: None,
            windows: HashMap::new(),
            global: Window::new(50, 1000),
            blocked_until: HashMap::new(),
            invalid: Window::new(10_000, 600_000),
        })
    }

    fn snowflake(&mut self, now: Now) -> String {
        self.count += 1;
        ((now.unix_ms.saturating_sub(EPOCH) << 22) | (self.count & 0x3F_FFFF)).to_string()
    }

    fn bot_id(&self) -> &str {
        text(&self.bot, "id")
    }

    // ── Gateway ───────────────────────────────────────────────────────────────────────────────────────────────────

    fn upgrade(&mut self, now: Now, id: Id, request: &Request, out: &mut Vec<Output>) {
        if let Some(host) = request.get("host") {
            self.origin = format!("http://{host}");
        }
        out.push(Output::Accept { id });
        if request.query("v").is_some_and(|version| version != "10") {
            out.push(Output::Close { id, code: 4012, reason: "Invalid API version".into() });
            return;
        }
        let zlib = (request.query("compress") == Some("zlib-stream"))
            .then(|| Compress::new(Compression::fast(), true));
        self.sockets.insert(
            id,
            Socket {
                path: request.path.clone(),
                session: None,
                identified: false,
                again: false,
                zlib,
                beat: now.ms,
                sent: Window::new(120, 60_000),
            },
        );
        let hello = json!({"t": null, "s": null, "op": 10, "d": {"heartbeat_interval": self.heartbeat_ms, "_trace": []}});
        self.say(id, "HELLO", &hello, out);
    }

    fn say(&mut self, id: Id, label: &str, payload: &Value, out: &mut Vec<Output>) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let payload = payload.to_string();
        let frame = match &mut socket.zlib {
            None => Frame::Text(payload),
            Some(zlib) => {
                let mut bytes = Vec::with_capacity(payload.len() + 64);
                let mut read = 0;
                loop {
                    let before = zlib.total_in();
                    bytes.reserve(payload.len() / 2 + 64);
                    let done =
                        zlib.compress_vec(&payload.as_bytes()[read..], &mut bytes, FlushCompress::Sync);
                    read += usize::try_from(zlib.total_in() - before).unwrap_or(0);
                    if done.is_err() || read == payload.len() && bytes.ends_with(&[0, 0, 0xFF, 0xFF]) {
                        break;
                    }
                }
                Frame::Binary(bytes)
            }
        };
        out.push(Output::Frame { id, label: label.into(), frame });
    }

    /// Closes in form. The session stays for a while, unless the code says that it does not.
    fn close(&mut self, now: Now, id: Id, code: u16, reason: &str, out: &mut Vec<Output>) {
        out.push(Output::Close { id, code, reason: reason.into() });
        self.lose(now, id, matches!(code, 4004 | 4007 | 4009..=4014));
    }

    fn lose(&mut self, now: Now, id: Id, for_good: bool) {
        let Some(socket) = self.sockets.remove(&id) else { return };
        let Some(name) = socket.session else { return };
        if let Some(session) = self.sessions.get_mut(&name).filter(|session| session.socket == Some(id)) {
            session.socket = None;
            session.lost = now.ms;
            if for_good {
                self.sessions.remove(&name);
            }
        }
    }

    fn frame(&mut self, now: Now, id: Id, frame: &Frame, out: &mut Vec<Output>) {
        let mut broken = |rule: &'static str, what: &str| {
            out.push(Output::Violation { rule, what: what.into() });
        };
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let Frame::Text(payload) = frame else { return };
        if payload.len() > 4096 {
            broken("discord.payload", "a payload of more than 4096 bytes");
            return self.close(now, id, 4002, "Error while decoding payload.", out);
        }
        let Ok(payload) = serde_json::from_str::<Value>(payload) else {
            broken("discord.payload", "a payload that is no JSON");
            return self.close(now, id, 4002, "Error while decoding payload.", out);
        };
        if socket.sent.take(now.ms).is_err() {
            broken("discord.gateway-rate", "more than 120 events in a minute");
            return self.close(now, id, 4008, "You are being rate limited.", out);
        }
        let data = &payload["d"];
        match payload["op"].as_u64() {
            Some(1) => {
                socket.beat = now.ms;
                self.say(id, "HEARTBEAT_ACK", &json!({"t": null, "s": null, "op": 11, "d": null}), out);
            }
            Some(2 | 6) if socket.identified => {
                broken("discord.identify", "an Identify or Resume after another");
                self.close(now, id, 4005, "Already authenticated.", out);
            }
            Some(2 | 6) if text(data, "token") != self.token => {
                broken("discord.identify", "a token that is not the bot's");
                self.close(now, id, 4004, "Authentication failed.", out);
            }
            Some(2) => self.identify(now, id, data, out),
            Some(6) => self.resume(now, id, data, out),
            Some(3 | 4 | 8 | 31) if !socket.identified => {
                broken("discord.identify", "an event before Identify");
                self.close(now, id, 4003, "Not authenticated.", out);
            }
            Some(3 | 4 | 8 | 31) => {}
            _ => {
                broken("discord.payload", "an unknown opcode");
                self.close(now, id, 4001, "Unknown opcode.", out);
            }
        }
    }

    /// The connection stays, and may identify or resume anew.
    fn invalid_session(&mut self, now: Now, id: Id, resumable: bool, out: &mut Vec<Output>) {
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.identified = false;
            let left = socket.session.take();
            socket.again |= left.is_some();
            if let Some(session) = left.and_then(|name| self.sessions.get_mut(&name)) {
                session.socket = None;
                session.lost = now.ms;
            }
        }
        self.say(id, "INVALID_SESSION", &json!({"t": null, "s": null, "op": 9, "d": resumable}), out);
    }

    fn identify(&mut self, now: Now, id: Id, data: &Value, out: &mut Vec<Output>) {
        let Some(intents) = data["intents"].as_u64().filter(|intents| intents & !KNOWN == 0) else {
            let what = format!("intents {}", data["intents"]);
            out.push(Output::Violation { rule: "discord.identify", what });
            return self.close(now, id, 4013, "Invalid intent(s).", out);
        };
        if intents & PRIVILEGED & !self.privileged != 0 {
            let what = "privileged intents that are not switched on".into();
            out.push(Output::Violation { rule: "discord.identify", what });
            return self.close(now, id, 4014, "Disallowed intent(s).", out);
        }
        if !data["properties"].is_object() {
            out.push(Output::Violation {
                rule: "discord.identify",
                what: "Identify without properties".into(),
            });
            return self.close(now, id, 4002, "Error while decoding payload.", out);
        }
        let soon = self.last_identify.is_some_and(|last| now.ms < last + self.identify_ms);
        self.last_identify = Some(now.ms);
        if soon {
            let what = format!("two Identifies within {} ms", self.identify_ms);
            out.push(Output::Violation { rule: "discord.identify-rate", what });
            return self.invalid_session(now, id, false, out);
        }
        if self.starts.take(now.ms).is_err() {
            let what = "more sessions in a day than session_start_limit allows".into();
            out.push(Output::Violation { rule: "discord.identify-rate", what });
            return self.close(now, id, 4004, "Authentication failed.", out);
        }
        let name = self.chance.hex(32);
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.identified = true;
            socket.session = Some(name.clone());
        }
        let session = Session { intents, seq: 0, events: Vec::new(), socket: Some(id), lost: 0 };
        self.sessions.insert(name.clone(), session);
        let guilds: Vec<Value> =
            self.guilds.keys().map(|id| json!({"id": id, "unavailable": true})).collect();
        let resume = format!("{}/resume", self.origin.replacen("http", "ws", 1));
        let ready = json!({
            "v": 10, "user": self.bot, "guilds": guilds, "session_id": name, "session_type": "normal",
            "resume_gateway_url": resume, "shard": data.get("shard").cloned().unwrap_or_else(|| json!([0, 1])),
            "application": {"id": self.bot_id(), "flags": 0}, "private_channels": [], "relationships": [],
        });
        self.dispatch_to(&name, "READY", ready, out);
        if intents & GUILDS != 0 {
            for id in self.guilds.keys().cloned().collect::<Vec<_>>() {
                let guild = self.guild(&id);
                self.dispatch_to(&name, "GUILD_CREATE", guild, out);
            }
        }
    }

    fn resume(&mut self, now: Now, id: Id, data: &Value, out: &mut Vec<Output>) {
        let name = text(data, "session_id").to_owned();
        let seq = data["seq"].as_u64().unwrap_or(u64::MAX);
        if !self.sockets.get(&id).is_some_and(|socket| socket.again || socket.path.starts_with("/resume")) {
            let what = "a Resume that did not come to resume_gateway_url".into();
            out.push(Output::Violation { rule: "discord.resume", what });
        }
        let Some(session) = self.sessions.get_mut(&name) else {
            return self.invalid_session(now, id, false, out);
        };
        if seq > session.seq {
            out.push(Output::Violation {
                rule: "discord.resume",
                what: format!("the sequence {seq} was not sent"),
            });
            self.sessions.remove(&name);
            return self.close(now, id, 4007, "Invalid seq.", out);
        }
        let old = session.socket.replace(id);
        let events: Vec<(u64, String, Value)> =
            session.events.iter().filter(|event| event.0 > seq).cloned().collect();
        if let Some(old) = old {
            out.push(Output::Close { id: old, code: 4000, reason: "Unknown error.".into() });
            self.sockets.remove(&old);
        }
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.identified = true;
            socket.session = Some(name.clone());
        }
        for (seq, label, data) in events {
            self.say(id, &label, &json!({"t": label, "s": seq, "op": 0, "d": data}), out);
        }
        self.dispatch_to(&name, "RESUMED", json!({"_trace": []}), out);
    }

    fn dispatch_to(&mut self, session: &str, label: &str, data: Value, out: &mut Vec<Output>) {
        let Some(known) = self.sessions.get_mut(session) else { return };
        known.seq += 1;
        let seq = known.seq;
        // That a session was resumed is not told again.
        if label != "RESUMED" {
            known.events.push((seq, label.into(), data.clone()));
        }
        if known.events.len() > 10_000 {
            known.events.remove(0);
        }
        if let Some(id) = known.socket {
            self.say(id, label, &json!({"t": label, "s": seq, "op": 0, "d": data}), out);
        }
    }

    /// To every session that has one of the intents (all, if `intents` is 0).
    fn dispatch(&mut self, label: &str, intents: u64, data: &Value, out: &mut Vec<Output>) {
        let names: Vec<(String, u64)> =
            self.sessions.iter().map(|(name, session)| (name.clone(), session.intents)).collect();
        for (name, has) in names {
            if intents != 0 && has & intents == 0 {
                continue;
            }
            let mut data = data.clone();
            // https://docs.discord.com/developers/events/gateway#message-content-intent
            if label.starts_with("MESSAGE_") && data.get("content").is_some() && has & MESSAGE_CONTENT == 0 {
                let bot = self.bot_id();
                let concerns = data.get("guild_id").is_none()
                    || text(&data["author"], "id") == bot
                    || data["mentions"].as_array().into_iter().flatten().any(|user| text(user, "id") == bot);
                if !concerns {
                    data["content"] = json!("");
                    data["attachments"] = json!([]);
                    data["embeds"] = json!([]);
                    data["components"] = json!([]);
                }
            }
            self.dispatch_to(&name, label, data, out);
        }
    }

    fn guild(&self, id: &str) -> Value {
        let mut guild = self.guilds.get(id).cloned().unwrap_or_default();
        let of_guild = |thread: bool| -> Vec<&Value> {
            let is_thread = |channel: &Value| matches!(channel["type"].as_u64(), Some(10..=12));
            self.channels
                .values()
                .filter(|channel| text(channel, "guild_id") == id && is_thread(channel) == thread)
                .collect()
        };
        guild["channels"] = json!(of_guild(false));
        guild["threads"] = json!(of_guild(true));
        guild
    }

    // ── HTTP ──────────────────────────────────────────────────────────────────────────────────────────────────────

    fn request(&mut self, now: Now, id: Id, request: &Request, out: &mut Vec<Output>) {
        if let Some(origin) = request.get("x-sim-origin") {
            self.origin = origin.into();
        }
        let response = match self.route(now, request, out) {
            Ok(response) => response,
            Err(refusal) => {
                if let Some(rule) = refusal.rule {
                    let what = format!("{} {}: {}", request.method, request.path, refusal.body);
                    out.push(Output::Violation { rule, what });
                }
                if matches!(refusal.status, 401 | 403 | 429) && self.invalid.take(now.ms).is_err() {
                    let what = "10,000 invalid requests in 10 minutes".into();
                    out.push(Output::Violation { rule: "discord.invalid-requests", what });
                }
                let mut response = Response::json(refusal.status, &refusal.body);
                response.headers.extend(refusal.headers);
                response
            }
        };
        out.push(Output::Answer { id, response });
    }

    fn route(&mut self, now: Now, request: &Request, out: &mut Vec<Output>) -> Outcome {
        if let Some(name) = request.path.strip_prefix("/attachments/") {
            let (kind, bytes) = self.files.get(name).ok_or_else(|| refuse(404, 0, "404: Not Found"))?;
            return Ok(Response::bytes(200, kind, bytes.clone()));
        }
        let rest = request.path.strip_prefix("/api/v10/").ok_or_else(|| refuse(404, 0, "404: Not Found"))?;
        let path: Vec<&str> = rest.split('/').collect();
        if !request.get("user-agent").is_some_and(|agent| agent.starts_with("DiscordBot (")) {
            let what = format!("User-Agent {:?}", request.get("user-agent"));
            out.push(Output::Violation { rule: "discord.user-agent", what });
        }
        // Interactions are authorized by their tokens.
        let open = matches!(path.as_slice(), ["interactions", ..] | ["webhooks", ..] | ["gateway"]);
        if !open && request.bearer("Bot") != Some(&self.token) {
            return Err(refuse(401, 0, "401: Unauthorized").breaks("discord.authentication"));
        }
        let (bucket, headers) = self.limit(now, request, &path)?;
        let answered = self.handle(now, request, &path, out);
        let add = |list: &mut Vec<(String, String)>| {
            if !bucket.is_empty() {
                list.extend(headers.clone());
            }
        };
        match answered {
            Ok(mut response) => {
                add(&mut response.headers);
                Ok(response)
            }
            Err(mut refusal) => {
                add(&mut refusal.headers);
                Err(refusal)
            }
        }
    }

    /// Counts the request in its bucket: by the route, and by the channel, guild or webhook in it.
    fn limit(
        &mut self,
        now: Now,
        request: &Request,
        path: &[&str],
    ) -> Result<(String, Vec<(String, String)>), Refusal> {
        if !self.limits {
            return Ok((String::new(), Vec::new()));
        }
        let (kind, limit, per) = match (request.method.as_str(), path) {
            ("POST", ["channels", _, "messages"]) => ("send", 5, 5000),
            ("PATCH", ["channels", _, "messages", _]) => ("edit", 5, 5000),
            ("DELETE", ["channels", _, "messages", _]) => ("delete", 5, 1000),
            ("PUT" | "DELETE", ["channels", _, "messages", _, "reactions", ..]) => ("react", 1, 250),
            ("POST", ["channels", _, "typing"]) => ("typing", 5, 5000),
            ("POST", ["channels", _, "threads"] | ["channels", _, "messages", _, "threads"]) => {
                ("thread", 50, 300_000)
            }
            // Discord publishes no figure; a chat that is open is looked up, and not opened.
            ("POST", ["users", "@me", "channels"]) if self.direct_with(&recipient(request)).is_none() => {
                ("dm", 10, 600_000)
            }
            ("POST" | "PATCH" | "DELETE", ["webhooks", ..]) => ("webhook", 5, 2000),
            ("POST", ["interactions", ..]) => return Ok((String::new(), Vec::new())),
            _ => ("other", 50, 1000),
        };
        let major = path
            .get(1)
            .copied()
            .filter(|_| matches!(path.first(), Some(&("channels" | "guilds" | "webhooks"))));
        let bucket = format!("{kind}:{}", major.unwrap_or_default());
        let mut refused = None;
        for (scope, name) in [("global", "global"), ("user", bucket.as_str())] {
            let early = self.blocked_until.get(name).is_some_and(|until| now.ms < *until);
            let window = if name == "global" {
                &mut self.global
            } else {
                self.windows.entry(bucket.clone()).or_insert_with(|| Window::new(limit, per))
            };
            // The headers tell how much is left of a bucket, and nothing of the global limit.
            let known = name != "global" && window.remaining() == 0 && window.reset_after_ms(now.ms) > 0;
            let wait = match self.blocked_until.get(name) {
                Some(until) if early => until - now.ms,
                _ => window.take(now.ms).err().unwrap_or(0),
            };
            if wait > 0 {
                refused = Some((scope, name.to_owned(), wait, early || known));
                break;
            }
        }
        let hash = format!(
            "{:016x}",
            kind.bytes().fold(7_u64, |hash, byte| hash.wrapping_mul(31) + u64::from(byte))
        );
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of minutes")]
        let seconds = |ms: u64| ms as f64 / 1000.0;
        if let Some((scope, name, wait, told)) = refused {
            self.blocked_until.insert(name.clone(), now.ms + wait);
            let global = scope == "global";
            let mut refusal = refuse(429, 0, "You are being rate limited.");
            refusal.body = json!({"message": "You are being rate limited.", "retry_after": seconds(wait), "global": global});
            refusal.rule = told.then_some("discord.rate-limit");
            refusal.headers = vec![
                ("retry-after".into(), wait.div_ceil(1000).to_string()),
                ("x-ratelimit-scope".into(), scope.into()),
            ];
            if global {
                refusal.headers.push(("x-ratelimit-global".into(), "true".into()));
            } else {
                refusal.headers.extend([
                    ("x-ratelimit-limit".into(), limit.to_string()),
                    ("x-ratelimit-remaining".into(), "0".into()),
                    ("x-ratelimit-reset-after".into(), seconds(wait).to_string()),
                    ("x-ratelimit-reset".into(), seconds(now.unix_ms + wait).to_string()),
                    ("x-ratelimit-bucket".into(), hash),
                ]);
            }
            return Err(refusal);
        }
        let window = self.windows.get(&bucket);
        let reset = window.map_or(0, |window| window.reset_after_ms(now.ms));
        let headers = vec![
            ("x-ratelimit-limit".into(), limit.to_string()),
            ("x-ratelimit-remaining".into(), window.map_or(0, Window::remaining).to_string()),
            ("x-ratelimit-reset-after".into(), seconds(reset).to_string()),
            ("x-ratelimit-reset".into(), seconds(now.unix_ms + reset).to_string()),
            ("x-ratelimit-bucket".into(), hash),
        ];
        Ok((bucket, headers))
    }

    fn handle(&mut self, now: Now, request: &Request, path: &[&str], out: &mut Vec<Output>) -> Outcome {
        let json_body = || serde_json::from_slice::<Value>(&request.body).unwrap_or_else(|_| json!({}));
        match (request.method.as_str(), path) {
            ("GET", ["gateway"]) => ok(&json!({"url": self.origin.replacen("http", "ws", 1)})),
            ("GET", ["gateway", "bot"]) => {
                let reset_after = self.starts.reset_after_ms(now.ms);
                let remaining = if reset_after == 0 { self.starts.limit } else { self.starts.remaining() };
                ok(&json!({
                    "url": self.origin.replacen("http", "ws", 1), "shards": 1,
                    "session_start_limit": {
                        "total": self.starts.limit, "remaining": remaining,
                        "reset_after": reset_after, "max_concurrency": 1,
                    },
                }))
            }
            ("GET", ["users", "@me"]) => ok(&self.bot),
            ("GET", ["applications" | "oauth2", .., "@me"]) => ok(
                &json!({"id": self.bot_id(), "name": "sim", "description": "", "bot_public": true, "flags": 0}),
            ),
            ("GET", ["users", user]) => ok(self.users.get(*user).ok_or_else(|| unknown(10013, "User"))?),
            ("POST", ["users", "@me", "channels"]) => {
                let user = recipient(request);
                if !self.users.contains_key(&user) {
                    return Err(Refusal::form("recipient_id", "INVALID_RECIPIENT", "Invalid Recipient"));
                }
                let channel = self.direct(now, &user);
                ok(self.channels.get(&channel).unwrap_or(&Value::Null))
            }
            ("GET", ["guilds", guild]) if self.guilds.contains_key(*guild) => ok(&self.guild(guild)),
            ("GET", ["guilds", guild, "channels"]) if self.guilds.contains_key(*guild) => {
                ok(&self.guild(guild)["channels"])
            }
            (_, ["guilds", ..]) => Err(unknown(10004, "Guild")),
            ("PUT", ["applications", _, "commands"] | ["applications", _, "guilds", _, "commands"]) => {
                self.set_commands(now, path.get(3).copied().unwrap_or_default(), &json_body())
            }
            ("POST", ["interactions", id, token, "callback"]) => {
                self.interaction(now, id, token, request, out)
            }
            (_, ["webhooks", _, token, rest @ ..]) => self.followup(now, request, token, rest, out),
            (_, ["channels", channel, rest @ ..]) => {
                if !self.channels.contains_key(*channel) {
                    return Err(unknown(10003, "Channel"));
                }
                self.channel(now, request, channel, rest, out)
            }
            _ => Err(refuse(404, 0, "404: Not Found")),
        }
    }

    fn channel(
        &mut self,
        now: Now,
        request: &Request,
        channel: &str,
        path: &[&str],
        out: &mut Vec<Output>,
    ) -> Outcome {
        let body = || serde_json::from_slice::<Value>(&request.body).unwrap_or_else(|_| json!({}));
        if let ["messages", message, ..] = path
            && self.messages.get(*message).is_none_or(|known| text(known, "channel_id") != channel)
        {
            return Err(unknown(10008, "Message"));
        }
        match (request.method.as_str(), path) {
            ("GET", []) => ok(self.channels.get(channel).unwrap_or(&Value::Null)),
            ("POST", ["typing"]) => {
                self.typing.push(json!({"channel": channel, "at": now.ms}));
                Ok(Response { status: 204, ..Response::default() })
            }
            ("POST", ["messages"]) => {
                let message = self.create(now, request, channel, out)?;
                ok(&message)
            }
            ("GET", ["messages"]) => {
                let limit = request.query("limit").and_then(|limit| limit.parse().ok()).unwrap_or(50);
                let ids = self.order.get(channel).cloned().unwrap_or_default();
                let list: Vec<&Value> =
                    ids.iter().rev().take(limit).filter_map(|id| self.messages.get(id)).collect();
                ok(&json!(list))
            }
            ("GET", ["messages", message]) => {
                let mut known = self.messages.get(*message).cloned().unwrap_or_default();
                let mine = self.reactions.iter().filter(|reaction| reaction["message_id"] == *message);
                known["reactions"] = json!(
                    mine.map(|reaction| json!({"emoji": {"id": null, "name": reaction["emoji"]}, "count": 1, "me": true}))
                        .collect::<Vec<_>>()
                );
                ok(&known)
            }
            ("PATCH", ["messages", message]) => {
                let mut edited = self.messages.get(*message).cloned().unwrap_or_default();
                if text(&edited["author"], "id") != self.bot_id() {
                    return Err(refuse(403, 50005, "Cannot edit a message authored by another user"));
                }
                let body = body();
                if let Some(content) = body["content"].as_str() {
                    check_length(content)?;
                    edited["content"] = json!(content);
                    edited["mentions"] = self.mentions(content);
                }
                for name in ["embeds", "components", "flags"] {
                    if let Some(value) = body.get(name) {
                        edited[name] = value.clone();
                    }
                }
                edited["edited_timestamp"] = json!(iso(now.unix_ms));
                self.messages.insert((*message).into(), edited.clone());
                self.tell("MESSAGE_UPDATE", channel, &edited, out);
                ok(&edited)
            }
            ("DELETE", ["messages", message]) => {
                self.messages.remove(*message);
                if let Some(ids) = self.order.get_mut(channel) {
                    ids.retain(|id| id != message);
                }
                self.tell("MESSAGE_DELETE", channel, &json!({"id": message, "channel_id": channel}), out);
                Ok(Response { status: 204, ..Response::default() })
            }
            ("PUT" | "DELETE", ["messages", message, "reactions", emoji, "@me"]) => {
                // A custom emoji is name:id; else it is one of Unicode's, which are not letters.
                let custom = emoji.rsplit_once(':').is_some_and(|(_, id)| id.parse::<u64>().is_ok());
                if !custom
                    && (emoji.is_empty()
                        || emoji.chars().any(char::is_alphanumeric) && !emoji.contains('\u{20E3}'))
                {
                    return Err(refuse(400, 10014, "Unknown Emoji"));
                }
                let reaction = json!({"message_id": message, "channel_id": channel, "emoji": emoji});
                self.reactions.retain(|known| *known != reaction);
                if request.method == "PUT" {
                    self.reactions.push(reaction);
                }
                Ok(Response { status: 204, ..Response::default() })
            }
            ("POST", ["threads"] | ["messages", _, "threads"]) => {
                let body = body();
                let name = text(&body, "name");
                if !(1..=100).contains(&name.chars().count()) {
                    return Err(Refusal::form(
                        "name",
                        "BASE_TYPE_BAD_LENGTH",
                        "Must be between 1 and 100 in length.",
                    ));
                }
                // A thread that begins with a message has its id.
                let id = match path {
                    ["messages", message, _] => (*message).to_owned(),
                    _ => self.snowflake(now),
                };
                if self.channels.contains_key(&id) {
                    return Err(refuse(400, 160_004, "A thread has already been created for this message"));
                }
                let guild =
                    self.channels.get(channel).map(|channel| channel["guild_id"].clone()).unwrap_or_default();
                if guild.is_null() {
                    return Err(refuse(400, 50024, "Cannot execute action on this channel type"));
                }
                let thread = self.thread(now, &id, channel, &guild, name);
                self.dispatch("THREAD_CREATE", GUILDS, &thread, out);
                Ok(Response::json(201, &thread))
            }
            _ => Err(refuse(405, 0, "405: Method Not Allowed")),
        }
    }

    fn thread(&mut self, now: Now, id: &str, parent: &str, guild: &Value, name: &str) -> Value {
        let thread = json!({
            "id": id, "type": 11, "guild_id": guild, "parent_id": parent, "owner_id": self.bot_id(), "name": name,
            "last_message_id": null, "rate_limit_per_user": 0, "message_count": 0, "member_count": 1,
            "thread_metadata": {"archived": false, "auto_archive_duration": 1440, "locked": false,
                "archive_timestamp": iso(now.unix_ms), "create_timestamp": iso(now.unix_ms)},
        });
        self.channels.insert(id.into(), thread.clone());
        thread
    }

    /// Creates a message from a request of the bot's: JSON, or multipart with `payload_json` and `files[n]`.
    fn create(
        &mut self,
        now: Now,
        request: &Request,
        channel: &str,
        out: &mut Vec<Output>,
    ) -> Result<Value, Refusal> {
        let fields =
            request.fields().map_err(|_| refuse(400, 50109, "The request body contains invalid JSON."))?;
        let mut body = Value::Object(fields.values);
        if let Some(payload) = body["payload_json"].as_str() {
            body = serde_json::from_str(payload)
                .map_err(|_| refuse(400, 50109, "The request body contains invalid JSON."))?;
        }
        let content = text(&body, "content").to_owned();
        check_length(&content)?;
        let some = |name: &str| body[name].as_array().is_some_and(|list| !list.is_empty());
        if content.trim().is_empty()
            && fields.files.is_empty()
            && !some("embeds")
            && !some("sticker_ids")
            && !some("components")
        {
            return Err(refuse(400, 50006, "Cannot send an empty message").breaks("discord.content"));
        }
        if fields.files.iter().map(|file| file.bytes.len()).sum::<usize>() > 10 * MEBIBYTE {
            return Err(refuse(413, 40005, "Request entity too large").breaks("discord.upload-size"));
        }
        if fields.files.len() > 10 {
            return Err(Refusal::form(
                "attachments",
                "BASE_TYPE_MAX_LENGTH",
                "Must be 10 or fewer in length.",
            ));
        }
        let nonce = match &body["nonce"] {
            Value::Null => None,
            Value::String(nonce) => Some(nonce.clone()),
            other => Some(other.to_string()),
        };
        if nonce.as_ref().is_some_and(|nonce| nonce.len() > 25) {
            return Err(Refusal::form("nonce", "NONCE_TYPE_TOO_LONG", "Must be between 1 and 25 in length."));
        }
        // "checked for uniqueness in the past few minutes": https://docs.discord.com/developers/resources/message#create-message
        if let Some(nonce) = nonce.as_ref().filter(|_| body["enforce_nonce"] == true) {
            let known = self.nonces.get(nonce).filter(|known| now.ms < known.at + 300_000);
            if let Some(message) = known.and_then(|known| self.messages.get(&known.message)) {
                return Ok(message.clone());
            }
        }
        let mut extra = Map::new();
        if let Some(reference) = body["message_reference"]["message_id"].as_str() {
            match self.messages.get(reference).filter(|message| text(message, "channel_id") == channel) {
                Some(message) => {
                    let mut inner = message.clone();
                    inner.as_object_mut().map(|inner| inner.shift_remove("referenced_message"));
                    extra.insert("type".into(), json!(19));
                    extra.insert(
                        "message_reference".into(),
                        json!({"message_id": reference, "channel_id": channel}),
                    );
                    extra.insert("referenced_message".into(), inner);
                }
                None if body["message_reference"]["fail_if_not_exists"] == false => {}
                None => {
                    return Err(Refusal::form(
                        "message_reference",
                        "REPLIES_UNKNOWN_MESSAGE",
                        "Unknown message",
                    ));
                }
            }
        }
        for name in ["embeds", "components", "flags", "tts"] {
            if let Some(value) = body.get(name).filter(|value| !value.is_null()) {
                extra.insert(name.into(), value.clone());
            }
        }
        if let Some(nonce) = &nonce {
            extra.insert("nonce".into(), json!(nonce));
        }
        let mut attachments = Vec::new();
        for file in fields.files {
            let kind = file.content_type.unwrap_or_else(|| "application/octet-stream".into());
            attachments.push(self.attach(now, channel, &file.name, &kind, file.bytes));
        }
        let author = self.bot.clone();
        let message = self.add(now, channel, &author, &content, attachments, extra, out);
        if let Some(nonce) = nonce {
            self.nonces.insert(nonce, Nonce { at: now.ms, message: text(&message, "id").into() });
        }
        Ok(message)
    }

    fn attach(&mut self, now: Now, channel: &str, name: &str, kind: &str, bytes: Vec<u8>) -> Value {
        let id = self.snowflake(now);
        let key = format!("{channel}/{id}/{name}");
        let url = format!("{}/attachments/{channel}/{id}/{}", self.origin, crate::wire::percent(name));
        let size = bytes.len();
        self.files.insert(key, (kind.into(), bytes));
        json!({"id": id, "filename": name, "size": size, "url": url, "proxy_url": url, "content_type": kind})
    }

    #[expect(clippy::too_many_arguments, reason = "what a message is made of")]
    fn add(
        &mut self,
        now: Now,
        channel: &str,
        author: &Value,
        content: &str,
        attachments: Vec<Value>,
        extra: Map<String, Value>,
        out: &mut Vec<Output>,
    ) -> Value {
        let id = self.snowflake(now);
        let mut message = json!({
            "id": id, "channel_id": channel, "author": author, "content": content, "timestamp": iso(now.unix_ms),
            "edited_timestamp": null, "tts": false, "mention_everyone": false, "mentions": self.mentions(content),
            "mention_roles": [], "attachments": attachments, "embeds": [], "components": [], "pinned": false, "type": 0,
            "flags": 0,
        });
        for (name, value) in extra {
            message[&name] = value;
        }
        self.messages.insert(id.clone(), message.clone());
        self.order.entry(channel.into()).or_default().push(id.clone());
        if let Some(channel) = self.channels.get_mut(channel) {
            channel["last_message_id"] = json!(id);
        }
        self.tell("MESSAGE_CREATE", channel, &message, out);
        message
    }

    fn mentions(&self, content: &str) -> Value {
        let ids = content.split("<@").skip(1).filter_map(|rest| rest.split_once('>'));
        let users = ids.filter_map(|(id, _)| self.users.get(id.trim_start_matches('!')));
        json!(users.collect::<Vec<_>>())
    }

    /// What happened to a message, to whoever has the intent for its kind of channel.
    fn tell(&mut self, label: &str, channel: &str, message: &Value, out: &mut Vec<Output>) {
        let guild = self.channels.get(channel).map(|channel| channel["guild_id"].clone()).unwrap_or_default();
        let mut data = message.clone();
        if label != "MESSAGE_DELETE" {
            let kind = self.channels.get(channel).map(|channel| channel["type"].clone());
            data["channel_type"] = kind.unwrap_or_default();
        }
        if guild.is_null() {
            self.dispatch(label, DIRECT_MESSAGES, &data, out);
        } else {
            data["guild_id"] = guild;
            if data.get("author").is_some() {
                data["member"] = json!({"roles": [], "joined_at": "2020-01-01T00:00:00.000Z", "deaf": false, "mute": false, "flags": 0});
            }
            self.dispatch(label, GUILD_MESSAGES, &data, out);
        }
    }

    fn direct_with(&self, user: &str) -> Option<&String> {
        let mut channels = self.channels.iter();
        let is_it = |channel: &Value| channel["type"] == 1 && text(&channel["recipients"][0], "id") == user;
        channels.find(|(_, channel)| is_it(channel)).map(|(id, _)| id)
    }

    fn direct(&mut self, now: Now, user: &str) -> String {
        if let Some(id) = self.direct_with(user) {
            return id.clone();
        }
        let id = self.snowflake(now);
        let recipient = self.users.get(user).cloned().unwrap_or_default();
        let channel = json!({"id": id, "type": 1, "last_message_id": null, "recipients": [recipient]});
        self.channels.insert(id.clone(), channel);
        id
    }

    fn set_commands(&mut self, now: Now, guild: &str, body: &Value) -> Outcome {
        let mut list = body.as_array().cloned().ok_or_else(|| refuse(400, 50035, "Invalid Form Body"))?;
        for command in &mut list {
            let name = text(command, "name").to_owned();
            let kind = command["type"].as_u64().unwrap_or(1);
            // https://docs.discord.com/developers/interactions/application-commands#application-command-object-application-command-naming
            let valid = (1..=32).contains(&name.chars().count())
                && (kind != 1
                    || name.chars().all(|c| (c.is_alphanumeric() || "-_'".contains(c)) && !c.is_uppercase()));
            if !valid {
                return Err(Refusal::form(
                    "name",
                    "APPLICATION_COMMAND_INVALID_NAME",
                    "Command name is invalid",
                ));
            }
            if kind == 1 && !(1..=100).contains(&text(command, "description").chars().count()) {
                return Err(Refusal::form(
                    "description",
                    "BASE_TYPE_BAD_LENGTH",
                    "Must be between 1 and 100 in length.",
                ));
            }
            command["id"] = json!(self.snowflake(now));
            command["application_id"] = json!(self.bot_id());
            command["type"] = json!(kind);
            command["version"] = json!("1");
        }
        self.commands.insert(guild.into(), json!(list));
        ok(&json!(list))
    }

    fn interaction(
        &mut self,
        now: Now,
        id: &str,
        token: &str,
        request: &Request,
        out: &mut Vec<Output>,
    ) -> Outcome {
        let gone = || unknown(10062, "interaction").breaks("discord.interaction");
        let known = self.interactions.get_mut(id).filter(|known| known.token == token).ok_or_else(gone)?;
        if now.ms > known.at + 3000 {
            return Err(gone());
        }
        if known.answered {
            let again = refuse(400, 40060, "Interaction has already been acknowledged.");
            return Err(again.breaks("discord.interaction"));
        }
        let channel = known.channel.clone();
        let fields =
            request.fields().map_err(|_| refuse(400, 50109, "The request body contains invalid JSON."))?;
        let mut body = Value::Object(fields.values);
        if let Some(payload) = body["payload_json"].as_str() {
            body = serde_json::from_str(payload).unwrap_or_default();
        }
        let message = match body["type"].as_u64() {
            // Ephemeral: seen by whoever gave the command, and not in the channel.
            Some(4) if body["data"]["flags"].as_u64().is_some_and(|flags| flags & 64 != 0) => {
                check_length(text(&body["data"], "content"))?;
                None
            }
            Some(4) => {
                let content = text(&body["data"], "content").to_owned();
                check_length(&content)?;
                let author = self.bot.clone();
                let message = self.add(now, &channel, &author, &content, Vec::new(), Map::new(), out);
                Some(text(&message, "id").to_owned())
            }
            Some(5..=8) => None,
            _ => {
                return Err(Refusal::form(
                    "type",
                    "BASE_TYPE_CHOICES",
                    "Value is not one of the interaction responses.",
                ));
            }
        };
        if let Some(known) = self.interactions.get_mut(id) {
            known.answered = true;
            known.message = message;
        }
        Ok(Response { status: 204, ..Response::default() })
    }

    fn followup(
        &mut self,
        now: Now,
        request: &Request,
        token: &str,
        path: &[&str],
        out: &mut Vec<Output>,
    ) -> Outcome {
        let invalid = || refuse(401, 50027, "Invalid Webhook Token").breaks("discord.interaction");
        let found = self.interactions.iter().find(|(_, known)| known.token == token);
        let (id, known) = found.map(|(id, known)| (id.clone(), known)).ok_or_else(invalid)?;
        if now.ms > known.at + 900_000 {
            return Err(invalid());
        }
        let (channel, original) = (known.channel.clone(), known.message.clone());
        match (request.method.as_str(), path, original) {
            ("POST", [], _) => ok(&self.create(now, request, &channel, out)?),
            ("PATCH", ["messages", "@original"], Some(message)) => {
                self.channel(now, request, &channel, &["messages", &message], out)
            }
            ("PATCH", ["messages", "@original"], None) => {
                let message = self.create(now, request, &channel, out)?;
                if let Some(known) = self.interactions.get_mut(&id) {
                    known.message = Some(text(&message, "id").into());
                }
                ok(&message)
            }
            _ => Err(unknown(10008, "Message")),
        }
    }

    // ── what people do ────────────────────────────────────────────────────────────────────────────────────────────

    fn user(&mut self, id: &str) -> Value {
        let made = || json!({"id": id, "username": format!("user{id}"), "discriminator": "0", "global_name": null, "avatar": null});
        self.users.entry(id.into()).or_insert_with(made).clone()
    }

    fn interact(
        &mut self,
        now: Now,
        arguments: &Value,
        kind: u64,
        data: &Value,
        message: Option<Value>,
        out: &mut Vec<Output>,
    ) -> Result<Value, String> {
        let user = self.user(arguments["from"].as_str().unwrap_or("1001"));
        let channel = match arguments["channel"].as_str() {
            Some(channel) => channel.to_owned(),
            None => self.direct(now, text(&user, "id")),
        };
        let info = self.channels.get(&channel).cloned().ok_or("there is no such channel")?;
        let id = self.snowflake(now);
        let token = self.chance.hex(40);
        let mut interaction = json!({
            "id": id, "application_id": self.bot_id(), "type": kind, "data": data, "channel_id": channel, "channel": info,
            "token": token, "version": 1, "locale": "en-US", "app_permissions": "0", "entitlements": [],
            "authorizing_integration_owners": {}, "context": if info["guild_id"].is_null() { 1 } else { 0 },
            "attachment_size_limit": 10 * MEBIBYTE,
        });
        if info["guild_id"].is_null() {
            interaction["user"] = user;
        } else {
            interaction["guild_id"] = info["guild_id"].clone();
            interaction["member"] = json!({"user": user, "roles": [], "joined_at": "2020-01-01T00:00:00.000Z",
                "deaf": false, "mute": false, "flags": 0, "permissions": "0"});
        }
        let original = message.as_ref().map(|message| text(message, "id").to_owned());
        if let Some(message) = message {
            interaction["message"] = message;
        }
        let known = Interaction { at: now.ms, token, channel, answered: false, message: original };
        self.interactions.insert(id.clone(), known);
        self.dispatch("INTERACTION_CREATE", 0, &interaction, out);
        Ok(json!({"id": id}))
    }
}

fn check_length(content: &str) -> Result<(), Refusal> {
    if content.chars().count() > 2000 {
        let refusal = Refusal::form("content", "BASE_TYPE_MAX_LENGTH", "Must be 2000 or fewer in length.");
        return Err(refusal.breaks("discord.content"));
    }
    Ok(())
}

impl Platform for Discord {
    fn rules(&self) -> &'static [Rule] {
        RULES
    }

    fn on(&mut self, now: Now, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Request { id, request } => self.request(now, id, &request, &mut out),
            Input::Upgrade { id, request } => self.upgrade(now, id, &request, &mut out),
            Input::Frame { id, frame } => self.frame(now, id, &frame, &mut out),
            // Who closes with 1000 or 1001 gives the session up.
            Input::Gone { id, code } => self.lose(now, id, matches!(code, Some(1000 | 1001))),
            Input::Called { .. } => {}
            Input::Tick => {
                let patience = self.heartbeat_ms + self.grace_ms;
                let silent: Vec<Id> = self
                    .sockets
                    .iter()
                    .filter(|(_, socket)| socket.beat + patience <= now.ms)
                    .map(|(id, _)| *id)
                    .collect();
                for id in silent {
                    let what = format!("no heartbeat for {patience} ms");
                    out.push(Output::Neglect { id, rule: "discord.heartbeat", what });
                    out.push(Output::Close { id, code: 4009, reason: "Session timed out.".into() });
                    self.lose(now, id, false);
                }
                let resume_ms = self.resume_ms;
                self.sessions
                    .retain(|_, session| session.socket.is_some() || session.lost + resume_ms > now.ms);
            }
        }
        out
    }

    fn wake(&self) -> Option<u64> {
        let patience = self.heartbeat_ms + self.grace_ms;
        let beats = self.sockets.values().map(|socket| socket.beat + patience);
        let lost = self.sessions.values().filter(|session| session.socket.is_none());
        beats.chain(lost.map(|session| session.lost + self.resume_ms)).min()
    }

    /// - `user` `{id, username?, bot?}`; `guild` `{id, name?}`; `channel` `{id, guild?, type?, name?, parent?}`
    /// - `message` `{channel?, from?, text?, reply_to?, files?: [{name, mime?, base64? | size?}]}`: without a channel, a
    ///   direct message; gives the message
    /// - `edit` `{message, text}`; `delete` `{message}`; `react` `{message, from?, emoji}`
    /// - `command` `{channel?, from?, name, options?}`; `press` `{message, from?, custom_id}`
    /// - `reconnect`, `invalidate` `{resumable}`, `request_heartbeat`, `close` `{code}`: to all open sockets
    /// - `forget`: all sessions are unknown from now on; `limit` `{ms}`: the global rate limit is used up
    fn control(
        &mut self,
        now: Now,
        action: &str,
        arguments: &Value,
        out: &mut Vec<Output>,
    ) -> Result<Value, String> {
        let message_of = |sim: &Self| {
            let id = text(arguments, "message");
            sim.messages.get(id).cloned().ok_or_else(|| format!("there is no message {id:?}"))
        };
        let from = arguments["from"].as_str().unwrap_or("1001");
        let ids: Vec<Id> = self.sockets.keys().copied().collect();
        match action {
            "user" => {
                let id = text(arguments, "id").to_owned();
                let mut user = self.user(&id);
                for (name, value) in arguments.as_object().into_iter().flatten() {
                    user[name] = value.clone();
                }
                self.users.insert(id, user.clone());
                Ok(user)
            }
            "guild" => {
                let id = text(arguments, "id").to_owned();
                let guild = json!({
                    "id": id, "name": arguments["name"].as_str().unwrap_or("Guild"), "icon": null, "owner_id": "1001",
                    "roles": [{"id": id, "name": "@everyone", "permissions": "2248473465835073", "position": 0, "color": 0,
                        "colors": {"primary_color": 0, "secondary_color": null, "tertiary_color": null},
                        "hoist": false, "managed": false, "mentionable": false, "flags": 0}],
                    "emojis": [], "stickers": [], "features": [], "members": [{"user": self.bot, "roles": [],
                        "joined_at": "2020-01-01T00:00:00.000Z", "deaf": false, "mute": false, "flags": 0}],
                    "member_count": 2, "large": false, "unavailable": false, "joined_at": "2020-01-01T00:00:00.000Z",
                    "voice_states": [], "presences": [], "stage_instances": [], "guild_scheduled_events": [],
                    "soundboard_sounds": [], "afk_timeout": 300, "verification_level": 0, "preferred_locale": "en-US",
                    "default_message_notifications": 0, "explicit_content_filter": 0, "mfa_level": 0, "nsfw_level": 0,
                    "premium_tier": 0, "system_channel_flags": 0, "premium_progress_bar_enabled": false,
                });
                self.guilds.insert(id.clone(), guild);
                let whole = self.guild(&id);
                self.dispatch("GUILD_CREATE", GUILDS, &whole, out);
                Ok(json!({"id": id}))
            }
            "channel" => {
                let id = text(arguments, "id").to_owned();
                let name = arguments["name"].as_str().unwrap_or("general");
                let guild = arguments["guild"].clone();
                if arguments["parent"].is_string() {
                    let thread = self.thread(now, &id, text(arguments, "parent"), &guild, name);
                    self.dispatch("THREAD_CREATE", GUILDS, &thread, out);
                    return Ok(thread);
                }
                let channel = json!({
                    "id": id, "type": arguments["type"].as_u64().unwrap_or(0), "guild_id": guild, "name": name, "position": 0,
                    "permission_overwrites": [], "nsfw": false, "parent_id": null, "topic": null, "last_message_id": null,
                    "rate_limit_per_user": 0,
                });
                self.channels.insert(id, channel.clone());
                self.dispatch("CHANNEL_CREATE", GUILDS, &channel, out);
                Ok(channel)
            }
            "message" => {
                let user = self.user(from);
                let channel = match arguments["channel"].as_str() {
                    Some(channel) => channel.to_owned(),
                    None => self.direct(now, from),
                };
                if !self.channels.contains_key(&channel) {
                    return Err(format!("there is no channel {channel:?}"));
                }
                let mut extra = Map::new();
                if let Some(replied) = arguments["reply_to"].as_str() {
                    let replied =
                        self.messages.get(replied).cloned().ok_or("there is no message to reply to")?;
                    extra.insert("type".into(), json!(19));
                    extra.insert(
                        "message_reference".into(),
                        json!({"message_id": replied["id"], "channel_id": channel}),
                    );
                    extra.insert("referenced_message".into(), replied);
                }
                let mut attachments = Vec::new();
                for file in arguments["files"].as_array().into_iter().flatten() {
                    let bytes = match file["base64"].as_str() {
                        Some(text) => BASE64.decode(text.as_bytes()).map_err(|error| error.to_string())?,
                        None => {
                            vec![0x5A; usize::try_from(file["size"].as_u64().unwrap_or(16)).unwrap_or(16)]
                        }
                    };
                    let kind = file["mime"].as_str().unwrap_or("application/octet-stream");
                    attachments.push(self.attach(now, &channel, text(file, "name"), kind, bytes));
                }
                Ok(self.add(now, &channel, &user, text(arguments, "text"), attachments, extra, out))
            }
            "edit" => {
                let mut message = message_of(self)?;
                message["content"] = arguments["text"].clone();
                message["mentions"] = self.mentions(text(arguments, "text"));
                message["edited_timestamp"] = json!(iso(now.unix_ms));
                self.messages.insert(text(&message, "id").into(), message.clone());
                self.tell("MESSAGE_UPDATE", text(&message, "channel_id"), &message, out);
                Ok(message)
            }
            "delete" => {
                let message = message_of(self)?;
                let channel = text(&message, "channel_id").to_owned();
                self.messages.remove(text(&message, "id"));
                let data = json!({"id": message["id"], "channel_id": channel});
                self.tell("MESSAGE_DELETE", &channel, &data, out);
                Ok(json!({}))
            }
            "react" => {
                let message = message_of(self)?;
                let user = self.user(from);
                let channel = text(&message, "channel_id").to_owned();
                let guild = self
                    .channels
                    .get(&channel)
                    .map(|channel| channel["guild_id"].clone())
                    .unwrap_or_default();
                let mut data = json!({
                    "user_id": user["id"], "channel_id": channel, "message_id": message["id"], "burst": false, "type": 0,
                    "message_author_id": message["author"]["id"], "emoji": {"id": null, "name": arguments["emoji"]},
                });
                let intent = if guild.is_null() { DIRECT_REACTIONS } else { GUILD_REACTIONS };
                if !guild.is_null() {
                    data["guild_id"] = guild;
                    data["member"] = json!({"user": user, "roles": [], "joined_at": "2020-01-01T00:00:00.000Z", "deaf": false, "mute": false, "flags": 0});
                }
                self.dispatch("MESSAGE_REACTION_ADD", intent, &data, out);
                Ok(json!({}))
            }
            "command" => {
                let name = text(arguments, "name");
                let list = self.commands.values().filter_map(Value::as_array).flatten();
                let found = list.into_iter().find(|command| text(command, "name") == name).cloned();
                let command = found.ok_or_else(|| format!("there is no command {name:?}"))?;
                let data = json!({"id": command["id"], "name": name, "type": 1,
                    "options": arguments.get("options").cloned().unwrap_or_else(|| json!([]))});
                self.interact(now, arguments, 2, &data, None, out)
            }
            "press" => {
                let message = message_of(self)?;
                let custom = text(arguments, "custom_id");
                if !message["components"].to_string().contains(&json!(custom).to_string()) {
                    return Err(format!("the message has no component {custom:?}"));
                }
                let data = json!({"custom_id": custom, "component_type": 2});
                let mut with = arguments.clone();
                with["channel"] = message["channel_id"].clone();
                self.interact(now, &with, 3, &data, Some(message), out)
            }
            "reconnect" => {
                for id in &ids {
                    self.say(*id, "RECONNECT", &json!({"t": null, "s": null, "op": 7, "d": null}), out);
                }
                Ok(json!({"sockets": ids.len()}))
            }
            "invalidate" => {
                let resumable = arguments["resumable"] == true;
                if !resumable {
                    self.sessions.clear();
                }
                for id in &ids {
                    self.invalid_session(now, *id, resumable, out);
                }
                Ok(json!({"sockets": ids.len()}))
            }
            "request_heartbeat" => {
                for id in &ids {
                    self.say(*id, "HEARTBEAT", &json!({"t": null, "s": null, "op": 1, "d": null}), out);
                }
                Ok(json!({"sockets": ids.len()}))
            }
            "close" => {
                let code = arguments["code"]
                    .as_u64()
                    .and_then(|code| u16::try_from(code).ok())
                    .ok_or("code is missing")?;
                for id in &ids {
                    self.close(now, *id, code, "", out);
                }
                Ok(json!({"sockets": ids.len()}))
            }
            "forget" => {
                self.sessions.clear();
                Ok(json!({}))
            }
            "limit" => {
                let ms = arguments["ms"].as_u64().ok_or("ms is missing")?;
                self.global.exhaust(now.ms, ms);
                Ok(json!({}))
            }
            _ => Err(format!("discord cannot do {action:?}")),
        }
    }

    fn refusal(&self, status: u16, retry_after_ms: Option<u64>) -> Response {
        match status {
            429 => {
                let ms = retry_after_ms.unwrap_or(1000);
                #[expect(clippy::cast_precision_loss, reason = "milliseconds of minutes")]
                let seconds = ms as f64 / 1000.0;
                let body = json!({"message": "You are being rate limited.", "retry_after": seconds, "global": false});
                Response::json(429, &body)
                    .header("retry-after", ms.div_ceil(1000))
                    .header("x-ratelimit-scope", "shared")
            }
            500.. => Response::bytes(status, "text/html", b"<html>upstream error</html>".to_vec()),
            _ => Response::json(status, &json!({"message": "refused", "code": 0})),
        }
    }

    fn state(&self) -> Value {
        let channels: Map<String, Value> = self
            .channels
            .iter()
            .map(|(id, info)| {
                let ids = self.order.get(id).cloned().unwrap_or_default();
                let messages: Vec<&Value> = ids.iter().filter_map(|id| self.messages.get(id)).collect();
                (id.clone(), json!({"info": info, "messages": messages}))
            })
            .collect();
        let sessions: Vec<Value> = self
            .sessions
            .iter()
            .map(|(id, session)| json!({"id": id, "seq": session.seq, "connected": session.socket.is_some()}))
            .collect();
        json!({
            "channels": channels, "reactions": self.reactions, "typing": self.typing, "commands": self.commands,
            "sockets": self.sockets.len(), "sessions": sessions, "started": self.starts.limit - self.starts.remaining(),
            "answered": self.interactions.iter().filter(|(_, known)| known.answered).map(|(id, _)| id).collect::<Vec<_>>(),
        })
    }
}
