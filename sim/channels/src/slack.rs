//! Slack: Socket Mode and the Web API, for one app in one workspace. <https://docs.slack.dev/apis/events-api/using-socket-mode>
//!
//! Options: `bot_token` (default `xoxb-sim`), `app_token` (`xapp-sim`), `lifetime_ms` (of a connection; default five
//! hours), `ping_ms` (default 10000), `ack_ms` (default 3000), `retries` (the waits between tries, in milliseconds),
//! `max_sockets` (default 10), `limits` (false: none), `seed`.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use crate::platform::{Bucket, Chance, Id, Input, Now, Output, Platform, Rule};
use crate::wire::{Frame, Request, Response};

const RULES: &[Rule] = &[
    Rule {
        id: "slack.ack-deadline",
        text: "Each envelope is acknowledged within 3 s; an event that is not comes again, up to three times.",
        source: "https://docs.slack.dev/apis/events-api/#responding",
    },
    Rule {
        id: "slack.ack",
        text: "An acknowledgement names an envelope that was sent, once.",
        source: "https://docs.slack.dev/apis/events-api/using-socket-mode#acknowledge",
    },
    Rule {
        id: "slack.max-sockets",
        text: "An app has at most 10 open connections.",
        source: "https://docs.slack.dev/apis/events-api/using-socket-mode#connections",
    },
    Rule {
        id: "slack.ticket",
        text: "The URL of apps.connections.open is for one connection, and soon.",
        source: "https://docs.slack.dev/reference/methods/apps.connections.open",
    },
    Rule {
        id: "slack.refresh",
        text: "Connections are refreshed before they end: a warning comes 10 s before.",
        source: "https://docs.slack.dev/apis/events-api/using-socket-mode#disconnect",
    },
    Rule {
        id: "slack.rate-limit",
        text: "After 429 the method is not called again before Retry-After is over; messages: one a second in a channel.",
        source: "https://docs.slack.dev/apis/web-api/rate-limits",
    },
    Rule {
        id: "slack.authentication",
        text: "Methods take the token of their kind.",
        source: "https://docs.slack.dev/authentication/tokens",
    },
    Rule {
        id: "slack.text-length",
        text: "A text of more than 40,000 characters is cut off.",
        source: "https://docs.slack.dev/changelog/2018-truncating-really-long-messages",
    },
    Rule {
        id: "slack.blocks",
        text: "A message has at most 50 blocks; the text of a section has at most 3000 characters.",
        source: "https://docs.slack.dev/reference/block-kit/blocks/section-block",
    },
    Rule {
        id: "slack.upload",
        text: "A file is uploaded to the URL of files.getUploadURLExternal, with the length named there, then completed.",
        source: "https://docs.slack.dev/messaging/working-with-files#upload",
    },
    Rule {
        id: "slack.response-url",
        text: "A response_url is good for 5 uses within 30 minutes.",
        source: "https://docs.slack.dev/interactivity/handling-user-interaction#message_responses",
    },
];

const TEAM: &str = "T0SIM";
const APP: &str = "A0SIM";
const BOT_USER: &str = "U0BOT";
const BOT: &str = "B0BOT";
/// Tries after the first: at once, after a minute, after five. <https://docs.slack.dev/apis/events-api/#retries>
const RETRIES: [u64; 3] = [1000, 60_000, 300_000];

struct Socket {
    opened: u64,
    warned: bool,
    next_ping: u64,
    heard: u64,
}

struct Envelope {
    kind: &'static str,
    payload: Value,
    attempt: usize,
    socket: Option<Id>,
    /// When it must be acknowledged, or is tried again.
    due: u64,
    waiting: bool,
}

struct File {
    info: Value,
    bytes: Option<Vec<u8>>,
    length: usize,
    completed: bool,
}

struct Callback {
    at: u64,
    uses: u32,
    channel: String,
    message: Option<String>,
}

/// One app in one workspace.
pub struct Slack {
    bot_token: String,
    app_token: String,
    lifetime_ms: u64,
    ping_ms: u64,
    ack_ms: u64,
    retries: Vec<u64>,
    max_sockets: usize,
    limits: bool,
    chance: Chance,
    origin: String,
    users: BTreeMap<String, Value>,
    channels: BTreeMap<String, Value>,
    /// By channel, in order.
    messages: BTreeMap<String, Vec<Value>>,
    files: BTreeMap<String, File>,
    tickets: BTreeMap<String, u64>,
    sockets: BTreeMap<Id, Socket>,
    turn: usize,
    envelopes: BTreeMap<String, Envelope>,
    acknowledged: Vec<String>,
    callbacks: BTreeMap<String, Callback>,
    statuses: Vec<Value>,
    ephemeral: Vec<Value>,
    buckets: HashMap<String, (Bucket, u64)>,
    last_ts: u64,
    lost: Vec<Value>,
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

impl Slack {
    pub fn new(options: &Value) -> Result<Self, String> {
        let number = |name: &str, default: u64| options[name].as_u64().unwrap_or(default);
        let token = |name: &str, default: &str| options[name].as_str().unwrap_or(default).to_owned();
        let bot = json!({"id": BOT_USER, "team_id": TEAM, "name": "sim", "is_bot": true, "profile": {"bot_id": BOT}});
        Ok(Self {
            bot_token: token("bot_token", "xoxb-sim"),
            app_token: token("app_token", "xapp-sim"),
            lifetime_ms: number("lifetime_ms", 18_060_000),
            ping_ms: number("ping_ms", 10_000),
            ack_ms: number("ack_ms", 3000),
            retries: match options["retries"].as_array() {
                Some(list) => list.iter().filter_map(Value::as_u64).collect(),
                None => RETRIES.to_vec(),
            },
            max_sockets: usize::try_from(number("max_sockets", 10)).map_err(|error| error.to_string())?,
            limits: options["limits"].as_bool().unwrap_or(true),
            chance: Chance(number("seed", 1)),
            origin: "http://sim".into(),
            users: BTreeMap::from([(BOT_USER.to_owned(), bot)]),
            channels: BTreeMap::new(),
            messages: BTreeMap::new(),
            files: BTreeMap::new(),
            tickets: BTreeMap::new(),
            sockets: BTreeMap::new(),
            turn: 0,
            envelopes: BTreeMap::new(),
            acknowledged: Vec::new(),
            callbacks: BTreeMap::new(),
            statuses: Vec::new(),
            ephemeral: Vec::new(),
            buckets: HashMap::new(),
            last_ts: 0,
            lost: Vec::new(),
        })
    }

    /// Of its channel, the message's name: seconds and microseconds, never twice.
    fn ts(&mut self, now: Now) -> String {
        self.last_ts = (self.last_ts + 1).max(now.unix_ms * 1000);
        format!("{}.{:06}", self.last_ts / 1_000_000, self.last_ts % 1_000_000)
    }

    // ── Socket Mode ───────────────────────────────────────────────────────────────────────────────────────────────

    fn upgrade(&mut self, now: Now, id: Id, request: &Request, out: &mut Vec<Output>) {
        let ticket = request.query("ticket").unwrap_or_default();
        // An assumption: Slack calls the URL temporary, and says nowhere for how long it is good. Clients must be content
        // with half a minute here. <https://docs.slack.dev/reference/methods/apps.connections.open>
        if self.tickets.remove(ticket).is_none_or(|at| now.ms > at + 30_000) {
            out.push(Output::Violation {
                rule: "slack.ticket",
                what: "a ticket that is not valid any more".into(),
            });
            out.push(Output::Answer {
                id,
                response: Response::json(401, &json!({"ok": false, "error": "invalid_auth"})),
            });
            return;
        }
        out.push(Output::Accept { id });
        if self.sockets.len() >= self.max_sockets {
            let what = format!("{} connections were open already", self.sockets.len());
            out.push(Output::Violation { rule: "slack.max-sockets", what });
            self.say(id, "disconnect", &json!({"type": "disconnect", "reason": "too_many_websockets"}), out);
            out.push(Output::Close { id, code: 1000, reason: String::new() });
            return;
        }
        let socket =
            Socket { opened: now.ms, warned: false, next_ping: now.ms + self.ping_ms, heard: now.ms };
        self.sockets.insert(id, socket);
        let hello = json!({
            "type": "hello", "num_connections": self.sockets.len(), "connection_info": {"app_id": APP},
            "debug_info": {"host": "sim", "started": "", "build_number": 1,
                "approximate_connection_time": self.lifetime_ms / 1000},
        });
        self.say(id, "hello", &hello, out);
    }

    #[expect(clippy::unused_self, reason = "as its neighbours")]
    fn say(&self, id: Id, label: &str, message: &Value, out: &mut Vec<Output>) {
        out.push(Output::Frame { id, label: label.into(), frame: Frame::Text(message.to_string()) });
    }

    fn frame(&mut self, now: Now, id: Id, frame: &Frame, out: &mut Vec<Output>) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        socket.heard = now.ms;
        let Frame::Text(frame) = frame else { return };
        let message: Value = serde_json::from_str(frame).unwrap_or_default();
        let envelope = text(&message, "envelope_id").to_owned();
        let Some(known) = self.envelopes.get(&envelope).filter(|known| !known.waiting) else {
            let what = format!("there is no envelope {envelope:?} to acknowledge");
            out.push(Output::Violation { rule: "slack.ack", what });
            return;
        };
        // It may come over another connection of the app's than the envelope did.
        let (kind, payload) = (known.kind, known.payload.clone());
        self.envelopes.remove(&envelope);
        self.acknowledged.push(payload["event_id"].as_str().unwrap_or(&envelope).to_owned());
        if kind == "slash_commands"
            && let Some(answer) = message.get("payload").filter(|answer| answer.is_object())
        {
            self.respond(now, text(&payload, "channel_id"), answer, None, out);
        }
    }

    fn envelope(&mut self, now: Now, kind: &'static str, payload: Value, out: &mut Vec<Output>) {
        let fresh = Envelope { kind, payload, attempt: 0, socket: None, due: now.ms, waiting: true };
        self.deliver(now, fresh, out);
    }

    /// To one of the open connections, each in its turn.
    fn deliver(&mut self, now: Now, mut envelope: Envelope, out: &mut Vec<Output>) {
        // An assumption: whether another try has another envelope_id is not documented, and both have been seen
        // (<https://github.com/slackapi/bolt-js/issues/2487>, <https://github.com/gugu91/pinet/pull/226>). A new one is
        // what clients that know envelopes again by it fail at.
        let id = format!("{}-{}", self.chance.hex(8), self.chance.hex(12));
        let ids: Vec<Id> = self.sockets.keys().copied().collect();
        let Some(socket) = ids.get(self.turn % ids.len().max(1)).copied() else {
            self.retry(now, envelope);
            return;
        };
        self.turn += 1;
        envelope.socket = Some(socket);
        envelope.due = now.ms + self.ack_ms;
        envelope.waiting = false;
        let mut message = json!({
            "envelope_id": id, "type": envelope.kind, "payload": envelope.payload,
            "accepts_response_payload": envelope.kind != "events_api",
        });
        if envelope.kind == "events_api" {
            message["retry_attempt"] = json!(envelope.attempt);
            message["retry_reason"] = json!(if envelope.attempt > 0 { "timeout" } else { "" });
        }
        let label = match envelope.payload["event"]["type"].as_str() {
            Some(event) => format!("{} {event}", envelope.kind),
            None => envelope.kind.to_owned(),
        };
        self.envelopes.insert(id, envelope);
        self.say(socket, &label, &message, out);
    }

    fn retry(&mut self, now: Now, mut envelope: Envelope) {
        // Only events come again; to a command, Slack tells the user that it failed.
        let Some(wait) = self.retries.get(envelope.attempt).filter(|_| envelope.kind == "events_api") else {
            self.lost.push(envelope.payload);
            return;
        };
        envelope.attempt += 1;
        envelope.due = now.ms + wait;
        envelope.waiting = true;
        envelope.socket = None;
        let id = format!("waiting-{}", self.chance.hex(16));
        self.envelopes.insert(id, envelope);
    }

    fn event(&mut self, now: Now, event: &Value, out: &mut Vec<Output>) {
        let payload = json!({
            "token": "verification", "team_id": TEAM, "api_app_id": APP, "event": event, "type": "event_callback",
            "event_id": format!("Ev{}", self.chance.hex(10).to_uppercase()), "event_time": now.unix_s(),
            "authorizations": [{"enterprise_id": null, "team_id": TEAM, "user_id": BOT_USER, "is_bot": true,
                "is_enterprise_install": false}],
            "is_ext_shared_channel": false, "event_context": "sim",
        });
        self.envelope(now, "events_api", payload, out);
    }

    fn drop_socket(&mut self, id: Id) {
        self.sockets.remove(&id);
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Output>) {
        for (id, socket) in &mut self.sockets {
            if now.ms >= socket.next_ping {
                socket.next_ping = now.ms + self.ping_ms;
                let frame = Frame::Ping(b"Ping from sim".to_vec());
                out.push(Output::Frame { id: *id, label: "ping".into(), frame });
            }
            if now.ms + 10_000 >= socket.opened + self.lifetime_ms && !socket.warned {
                socket.warned = true;
                let warning =
                    json!({"type": "disconnect", "reason": "warning", "debug_info": {"host": "sim"}});
                out.push(Output::Frame {
                    id: *id,
                    label: "disconnect".into(),
                    frame: Frame::Text(warning.to_string()),
                });
            }
        }
        let ended: Vec<(Id, bool)> = self
            .sockets
            .iter()
            .filter_map(|(id, socket)| {
                let silent = now.ms >= socket.heard + 3 * self.ping_ms;
                (silent || now.ms >= socket.opened + self.lifetime_ms).then_some((*id, silent))
            })
            .collect();
        for (id, silent) in ended {
            if silent {
                out.push(Output::Cut { id });
            } else {
                let last = json!({"type": "disconnect", "reason": "refresh_requested", "debug_info": {"host": "sim"}});
                self.say(id, "disconnect", &last, out);
                out.push(Output::Close { id, code: 1000, reason: String::new() });
                if self.sockets.len() == 1 {
                    let what = "the only connection was let run to its end".into();
                    out.push(Output::Violation { rule: "slack.refresh", what });
                }
            }
            self.drop_socket(id);
        }
        let due: Vec<String> = self
            .envelopes
            .iter()
            .filter(|(_, envelope)| envelope.due <= now.ms)
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            let Some(envelope) = self.envelopes.remove(&id) else { continue };
            if envelope.waiting {
                self.deliver(now, envelope, out);
            } else {
                if let Some(socket) = envelope.socket.filter(|socket| self.sockets.contains_key(socket)) {
                    let what = format!("no acknowledgement of {id} within {} ms", self.ack_ms);
                    out.push(Output::Neglect { id: socket, rule: "slack.ack-deadline", what });
                }
                self.retry(now, envelope);
            }
        }
    }

    // ── Web API ───────────────────────────────────────────────────────────────────────────────────────────────────

    fn request(&mut self, now: Now, id: Id, request: &Request, out: &mut Vec<Output>) {
        if let Some(origin) = request.get("x-sim-origin") {
            self.origin = origin.into();
        }
        let path = request.path.clone();
        let response = if let Some(method) = path.strip_prefix("/api/") {
            self.method(now, method, request, out)
        } else if let Some(file) = path.strip_prefix("/upload/") {
            self.upload(file, request, out)
        } else if let Some(file) = path.strip_prefix("/files-pri/") {
            self.download(file.split('/').next().unwrap_or_default(), request)
        } else if let Some(callback) = path.strip_prefix("/respond/") {
            self.respond_to(now, callback, request, out)
        } else {
            Response::bytes(404, "text/html", b"not found".to_vec())
        };
        out.push(Output::Answer { id, response });
    }

    fn method(&mut self, now: Now, method: &str, request: &Request, out: &mut Vec<Output>) -> Response {
        let fields = request.fields().unwrap_or_default();
        let mut arguments = fields.values;
        for (name, value) in &request.query {
            arguments.entry(name.clone()).or_insert_with(|| json!(value));
        }
        // In a form, objects, arrays, numbers and flags are text.
        for (name, value) in &mut arguments {
            if let Value::String(source) = value {
                let structured = source.starts_with('[')
                    || source.starts_with('{')
                    || matches!(source.as_str(), "true" | "false");
                if structured
                    && name != "text"
                    && let Ok(parsed) = serde_json::from_str(source)
                {
                    *value = parsed;
                }
            }
        }
        let token = request
            .bearer("Bearer")
            .map(str::to_owned)
            .or_else(|| arguments.get("token").and_then(Value::as_str).map(str::to_owned));
        let refused = match token {
            _ if method == "api.test" => None,
            None => Some("not_authed"),
            Some(token) if method == "apps.connections.open" => match token {
                token if token == self.app_token => None,
                token if token == self.bot_token => Some("not_allowed_token_type"),
                _ => Some("invalid_auth"),
            },
            Some(token) if token == self.bot_token => None,
            Some(_) => Some("invalid_auth"),
        };
        if let Some(error) = refused {
            let what = format!("{method}: {error}");
            out.push(Output::Violation { rule: "slack.authentication", what });
            return Response::json(200, &json!({"ok": false, "error": error}));
        }
        let arguments = Value::Object(arguments);
        if let Some(seconds) = self.limited(now, method, text(&arguments, "channel"), out) {
            return Response::json(429, &json!({"ok": false, "error": "ratelimited"}))
                .header("retry-after", seconds);
        }
        match self.call(now, method, &arguments, out) {
            Ok(mut result) => {
                result["ok"] = json!(true);
                Response::json(200, &result)
            }
            Err(error) => Response::json(200, &json!({"ok": false, "error": error})),
        }
    }

    /// Seconds to wait, if the limit of the method is used up. <https://docs.slack.dev/apis/web-api/rate-limits>
    fn limited(&mut self, now: Now, method: &str, channel: &str, out: &mut Vec<Output>) -> Option<u64> {
        if !self.limits {
            return None;
        }
        let (key, bucket) = match method {
            // "Generally one message per second per channel", with short bursts.
            "chat.postMessage" => (format!("{method} {channel}"), Bucket::with_burst(5, 1, 1000)),
            "apps.connections.open" => (method.to_owned(), Bucket::with_burst(20, 1, 60_000)),
            "chat.update"
            | "chat.delete"
            | "reactions.add"
            | "reactions.remove"
            | "conversations.info"
            | "conversations.history"
            | "conversations.replies"
            | "conversations.open" => (method.to_owned(), Bucket::new(50, 60_000)),
            "conversations.list" => (method.to_owned(), Bucket::new(20, 60_000)),
            _ => (method.to_owned(), Bucket::new(100, 60_000)),
        };
        let (bucket, until) = self.buckets.entry(key).or_insert((bucket, 0));
        let early = now.ms < *until;
        let wait = if early { *until - now.ms } else { bucket.wait(now.ms) };
        if wait == 0 {
            bucket.take(now.ms);
            return None;
        }
        let seconds = wait.div_ceil(1000);
        if early {
            let what = format!("{method} {wait} ms before Retry-After was over");
            out.push(Output::Violation { rule: "slack.rate-limit", what });
        }
        *until = (*until).max(now.ms + seconds * 1000);
        Some(seconds)
    }

    fn call(
        &mut self,
        now: Now,
        method: &str,
        arguments: &Value,
        out: &mut Vec<Output>,
    ) -> Result<Value, &'static str> {
        let channel = text(arguments, "channel").to_owned();
        match method {
            "api.test" => Ok(json!({"args": arguments})),
            "auth.test" => Ok(json!({
                "url": "https://sim.slack.com/", "team": "Sim", "user": "sim", "team_id": TEAM, "user_id": BOT_USER,
                "bot_id": BOT, "is_enterprise_install": false,
            })),
            "apps.connections.open" => {
                let ticket = self.chance.hex(32);
                self.tickets.insert(ticket.clone(), now.ms);
                let origin = self.origin.replacen("http", "ws", 1);
                Ok(json!({"url": format!("{origin}/link/?ticket={ticket}&app_id={APP}")}))
            }
            "bots.info" => Ok(json!({"bot": {"id": BOT, "user_id": BOT_USER, "name": "sim", "app_id": APP}})),
            "users.info" => {
                let user = self.users.get(text(arguments, "user")).ok_or("user_not_found")?;
                Ok(json!({"user": user}))
            }
            "conversations.info" => {
                Ok(json!({"channel": self.channels.get(&channel).ok_or("channel_not_found")?}))
            }
            "conversations.list" => Ok(json!({
                "channels": self.channels.values().collect::<Vec<_>>(), "response_metadata": {"next_cursor": ""},
            })),
            "conversations.open" => {
                let users = arguments["users"].as_str().unwrap_or_default();
                if !self.users.contains_key(users) {
                    return Err("user_not_found");
                }
                let id = self.direct(users);
                Ok(json!({"channel": {"id": id}}))
            }
            "conversations.history" | "conversations.replies" => {
                let list = self.messages.get(&channel).ok_or("channel_not_found")?;
                let thread = text(arguments, "ts");
                let found: Vec<&Value> = if method == "conversations.history" {
                    list.iter()
                        .rev()
                        .filter(|message| message.get("thread_ts").is_none_or(|root| *root == message["ts"]))
                        .collect()
                } else {
                    list.iter()
                        .filter(|message| message["ts"] == thread || message["thread_ts"] == thread)
                        .collect()
                };
                if method == "conversations.replies" && found.is_empty() {
                    return Err("thread_not_found");
                }
                Ok(json!({"messages": found, "has_more": false}))
            }
            "chat.postMessage" => {
                let message = self.post(now, arguments, &Map::new(), out)?;
                Ok(json!({"channel": self.resolve(&channel)?, "ts": message["ts"], "message": message}))
            }
            "chat.postEphemeral" => {
                self.resolve(&channel)?;
                let ts = self.ts(now);
                self.ephemeral.push(arguments.clone());
                Ok(json!({"message_ts": ts}))
            }
            "chat.update" | "chat.delete" => self.change(now, method, arguments, out),
            "reactions.add" | "reactions.remove" => self.react(now, method, arguments, out),
            "assistant.threads.setStatus" => {
                self.statuses.push(arguments.clone());
                Ok(json!({}))
            }
            "files.getUploadURLExternal" => {
                let name = text(arguments, "filename");
                let length = match &arguments["length"] {
                    Value::String(length) => length.parse().ok(),
                    length => length.as_u64(),
                };
                let length =
                    length.filter(|length| *length > 0 && !name.is_empty()).ok_or("invalid_arguments")?;
                let id = format!("F{}", self.chance.hex(10).to_uppercase());
                let url = format!("{}/files-pri/{id}/{}", self.origin, crate::wire::percent(name));
                let info = json!({
                    "id": id, "name": name, "title": name, "mimetype": "application/octet-stream", "filetype": "binary",
                    "size": length, "user": BOT_USER, "url_private": url, "url_private_download": url, "mode": "hosted",
                    "created": now.unix_s(), "timestamp": now.unix_s(), "is_external": false,
                });
                let length = usize::try_from(length).unwrap_or(0);
                self.files.insert(id.clone(), File { info, bytes: None, length, completed: false });
                Ok(json!({"upload_url": format!("{}/upload/{id}", self.origin), "file_id": id}))
            }
            "files.completeUploadExternal" => self.complete(now, arguments, out),
            "files.info" => {
                let file = self
                    .files
                    .get(text(arguments, "file"))
                    .filter(|file| file.completed)
                    .ok_or("file_not_found")?;
                Ok(json!({"file": file.info}))
            }
            _ => Err("unknown_method"),
        }
    }

    /// A channel's id; that of a user stands for the conversation with them.
    fn resolve(&mut self, channel: &str) -> Result<String, &'static str> {
        if self.users.contains_key(channel) && channel != BOT_USER {
            return Ok(self.direct(channel));
        }
        let name = channel.trim_start_matches('#');
        let found = self.channels.iter().find(|(id, info)| *id == channel || text(info, "name") == name);
        let (id, info) = found.ok_or("channel_not_found")?;
        if info["is_member"] == false {
            return Err("not_in_channel");
        }
        if info["is_archived"] == true {
            return Err("is_archived");
        }
        Ok(id.clone())
    }

    fn direct(&mut self, user: &str) -> String {
        let id = format!("D{user}");
        let info = json!({"id": id, "is_im": true, "user": user, "is_member": true});
        self.channels.entry(id.clone()).or_insert(info);
        self.messages.entry(id.clone()).or_default();
        id
    }

    fn post(
        &mut self,
        now: Now,
        arguments: &Value,
        extra: &Map<String, Value>,
        out: &mut Vec<Output>,
    ) -> Result<Value, &'static str> {
        let channel = self.resolve(text(arguments, "channel"))?;
        let mut content = text(arguments, "text").to_owned();
        let some = |name: &str| arguments[name].as_array().is_some_and(|list| !list.is_empty());
        if content.is_empty() && !some("blocks") && !some("attachments") && !extra.contains_key("files") {
            return Err("no_text");
        }
        check_blocks(&arguments["blocks"], out)?;
        if content.chars().count() > 40_000 {
            out.push(Output::Violation {
                rule: "slack.text-length",
                what: "a text of more than 40,000 characters".into(),
            });
            content = content.chars().take(40_000).collect();
        }
        let thread = arguments["thread_ts"].as_str();
        if let Some(thread) = thread {
            let list = self.messages.get(&channel).ok_or("channel_not_found")?;
            if !list.iter().any(|message| message["ts"] == thread) {
                return Err("thread_not_found");
            }
        }
        let ts = self.ts(now);
        let mut message = json!({
            "type": "message", "user": BOT_USER, "bot_id": BOT, "app_id": APP, "team": TEAM, "text": content, "ts": ts,
        });
        if let Some(thread) = thread {
            message["thread_ts"] = json!(thread);
        }
        for name in ["blocks", "attachments", "metadata"] {
            if let Some(value) = arguments.get(name).filter(|value| !value.is_null()) {
                message[name] = value.clone();
            }
        }
        for (name, value) in extra {
            message[name] = value.clone();
        }
        self.add(now, &channel, &message, out);
        Ok(message)
    }

    /// Keeps a message, and tells the app of it: of its own as well.
    fn add(&mut self, now: Now, channel: &str, message: &Value, out: &mut Vec<Output>) {
        self.messages.entry(channel.into()).or_default().push(message.clone());
        let mut event = message.clone();
        event["channel"] = json!(channel);
        event["event_ts"] = message["ts"].clone();
        event["channel_type"] = json!(self.kind(channel));
        self.event(now, &event, out);
        let mentioned = text(message, "text").contains(&format!("<@{BOT_USER}>"));
        if mentioned && message["user"] != BOT_USER && self.kind(channel) != "im" {
            event["type"] = json!("app_mention");
            for name in ["channel_type", "subtype"] {
                event.as_object_mut().map(|event| event.shift_remove(name));
            }
            self.event(now, &event, out);
        }
    }

    fn kind(&self, channel: &str) -> &'static str {
        let info = self.channels.get(channel).cloned().unwrap_or_default();
        match () {
            () if info["is_im"] == true => "im",
            () if info["is_mpim"] == true => "mpim",
            () if info["is_private"] == true => "group",
            () => "channel",
        }
    }

    fn change(
        &mut self,
        now: Now,
        method: &str,
        arguments: &Value,
        out: &mut Vec<Output>,
    ) -> Result<Value, &'static str> {
        let channel = self.resolve(text(arguments, "channel"))?;
        let ts = text(arguments, "ts").to_owned();
        check_blocks(&arguments["blocks"], out)?;
        let edit_ts = self.ts(now);
        let list = self.messages.get_mut(&channel).ok_or("channel_not_found")?;
        let position = list.iter().position(|message| message["ts"] == ts).ok_or("message_not_found")?;
        let previous = list.get(position).cloned().ok_or("message_not_found")?;
        let update = method == "chat.update";
        if previous["user"] != BOT_USER {
            return Err(if update { "cant_update_message" } else { "cant_delete_message" });
        }
        let mut event = json!({
            "type": "message", "channel": channel, "ts": edit_ts, "event_ts": edit_ts, "hidden": true,
            "previous_message": previous,
        });
        if update {
            let content = arguments["text"].as_str();
            if content.is_none() && arguments["blocks"].is_null() && arguments["attachments"].is_null() {
                return Err("no_text");
            }
            // https://docs.slack.dev/reference/methods/chat.update
            if content.is_some_and(|content| content.chars().count() > 40_000) {
                return Err("msg_too_long");
            }
            let mut message = previous;
            if let Some(content) = content {
                message["text"] = json!(content);
            }
            for name in ["blocks", "attachments"] {
                if let Some(value) = arguments.get(name) {
                    message[name] = value.clone();
                }
            }
            message["edited"] = json!({"user": BOT_USER, "ts": edit_ts});
            if let Some(slot) = list.get_mut(position) {
                *slot = message.clone();
            }
            event["subtype"] = json!("message_changed");
            event["message"] = message.clone();
            event["channel_type"] = json!(self.kind(&channel));
            self.event(now, &event, out);
            return Ok(json!({"channel": channel, "ts": ts, "text": message["text"], "message": message}));
        }
        list.remove(position);
        event["subtype"] = json!("message_deleted");
        event["deleted_ts"] = json!(ts);
        event["channel_type"] = json!(self.kind(&channel));
        self.event(now, &event, out);
        Ok(json!({"channel": channel, "ts": ts}))
    }

    fn react(
        &mut self,
        now: Now,
        method: &str,
        arguments: &Value,
        out: &mut Vec<Output>,
    ) -> Result<Value, &'static str> {
        let channel = self.resolve(text(arguments, "channel"))?;
        let name = text(arguments, "name").to_owned();
        // The name of an emoji, without colons.
        if name.is_empty()
            || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-+':".contains(c))
            || name.starts_with(':')
        {
            return Err("invalid_name");
        }
        let ts = text(arguments, "timestamp").to_owned();
        self.reaction(now, &channel, &ts, &name, BOT_USER, method == "reactions.add", out)?;
        Ok(json!({}))
    }

    #[expect(clippy::too_many_arguments, reason = "what a reaction is made of")]
    fn reaction(
        &mut self,
        now: Now,
        channel: &str,
        ts: &str,
        name: &str,
        user: &str,
        add: bool,
        out: &mut Vec<Output>,
    ) -> Result<(), &'static str> {
        let list = self.messages.get_mut(channel).ok_or("channel_not_found")?;
        let message = list.iter_mut().find(|message| message["ts"] == ts).ok_or("message_not_found")?;
        let mut reactions = message["reactions"].as_array().cloned().unwrap_or_default();
        let mine =
            reactions.iter().position(|reaction| reaction["name"] == name && reaction["users"][0] == user);
        match (add, mine) {
            (true, Some(_)) => return Err("already_reacted"),
            (false, None) => return Err("no_reaction"),
            (true, None) => reactions.push(json!({"name": name, "users": [user], "count": 1})),
            (false, Some(position)) => drop(reactions.remove(position)),
        }
        message["reactions"] = json!(reactions);
        let author = message["user"].clone();
        let event_ts = self.ts(now);
        let event = json!({
            "type": if add { "reaction_added" } else { "reaction_removed" }, "user": user, "reaction": name,
            "item": {"type": "message", "channel": channel, "ts": ts}, "item_user": author, "event_ts": event_ts,
        });
        self.event(now, &event, out);
        Ok(())
    }

    // ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────

    fn upload(&mut self, id: &str, request: &Request, out: &mut Vec<Output>) -> Response {
        let bytes = match request.fields() {
            Ok(fields) if !fields.files.is_empty() => {
                fields.files.into_iter().next().map(|file| file.bytes).unwrap_or_default()
            }
            _ => request.body.clone(),
        };
        let Some(file) = self.files.get_mut(id).filter(|file| file.bytes.is_none()) else {
            out.push(Output::Violation { rule: "slack.upload", what: "an upload to no upload URL".into() });
            return Response::bytes(404, "text/plain", b"not found".to_vec());
        };
        if bytes.len() != file.length {
            let what = format!("{} bytes were announced, {} came", file.length, bytes.len());
            out.push(Output::Violation { rule: "slack.upload", what });
            return Response::bytes(400, "text/plain", b"length mismatch".to_vec());
        }
        let answer = format!("OK - {}", bytes.len());
        file.bytes = Some(bytes);
        Response::bytes(200, "text/plain", answer.into_bytes())
    }

    fn complete(
        &mut self,
        now: Now,
        arguments: &Value,
        out: &mut Vec<Output>,
    ) -> Result<Value, &'static str> {
        let mut infos = Vec::new();
        for given in arguments["files"].as_array().ok_or("invalid_arguments")? {
            let file = self.files.get_mut(text(given, "id")).filter(|file| file.bytes.is_some());
            let Some(file) = file else {
                out.push(Output::Violation {
                    rule: "slack.upload",
                    what: "completed before it was uploaded".into(),
                });
                return Err("file_not_found");
            };
            file.completed = true;
            if let Some(title) = given["title"].as_str() {
                file.info["title"] = json!(title);
            }
            infos.push(file.info.clone());
        }
        let channels =
            arguments["channels"].as_str().map(|list| list.split(',').map(str::to_owned).collect::<Vec<_>>());
        let channels =
            channels.or_else(|| Some(vec![arguments["channel_id"].as_str()?.to_owned()])).unwrap_or_default();
        for channel in channels {
            let mut extra = Map::new();
            extra.insert("files".into(), json!(infos));
            extra.insert("subtype".into(), json!("file_share"));
            let message = json!({
                "channel": channel, "text": arguments["initial_comment"].as_str().unwrap_or_default(),
                "thread_ts": arguments["thread_ts"],
            });
            self.post(now, &message, &extra, out)?;
        }
        Ok(json!({"files": infos}))
    }

    /// Without the token, Slack answers with the page for signing in.
    fn download(&self, id: &str, request: &Request) -> Response {
        let authorized = request.bearer("Bearer") == Some(&self.bot_token);
        match self.files.get(id) {
            Some(File { bytes: Some(bytes), info, .. }) if authorized => {
                Response::bytes(200, text(info, "mimetype"), bytes.clone())
            }
            Some(_) if !authorized => Response::bytes(
                200,
                "text/html; charset=utf-8",
                b"<!DOCTYPE html><html><body>Sign in</body></html>".to_vec(),
            ),
            _ => Response::bytes(404, "text/html", b"not found".to_vec()),
        }
    }

    // ── commands and buttons ──────────────────────────────────────────────────────────────────────────────────────

    fn callback(&mut self, now: Now, channel: &str, message: Option<String>) -> String {
        let id = self.chance.hex(24);
        let callback = Callback { at: now.ms, uses: 0, channel: channel.into(), message };
        self.callbacks.insert(id.clone(), callback);
        format!("{}/respond/{id}", self.origin)
    }

    fn respond_to(&mut self, now: Now, id: &str, request: &Request, out: &mut Vec<Output>) -> Response {
        let Some(callback) = self.callbacks.get_mut(id) else {
            return Response::bytes(404, "text/plain", b"no_service".to_vec());
        };
        callback.uses += 1;
        if callback.uses > 5 || now.ms > callback.at + 1_800_000 {
            let what = format!("use {} after {} ms", callback.uses, now.ms - callback.at);
            out.push(Output::Violation { rule: "slack.response-url", what });
            return Response::bytes(404, "text/plain", b"used_url".to_vec());
        }
        let (channel, original) = (callback.channel.clone(), callback.message.clone());
        let body = serde_json::from_slice(&request.body).unwrap_or_default();
        self.respond(now, &channel, &body, original, out);
        Response::bytes(200, "text/plain", b"ok".to_vec())
    }

    fn respond(
        &mut self,
        now: Now,
        channel: &str,
        answer: &Value,
        original: Option<String>,
        out: &mut Vec<Output>,
    ) {
        let mut message = answer.clone();
        message["channel"] = json!(channel);
        match (answer["replace_original"] == true, original) {
            (true, Some(ts)) => {
                message["ts"] = json!(ts);
                let _ = self.change(now, "chat.update", &message, out);
            }
            _ if answer["response_type"] == "in_channel" => drop(self.post(now, &message, &Map::new(), out)),
            _ => self.ephemeral.push(message),
        }
    }

    fn user(&mut self, id: &str) -> Value {
        let made = || {
            json!({"id": id, "team_id": TEAM, "name": id.to_lowercase(), "real_name": format!("User {id}"), "is_bot": false,
            "profile": {"display_name": id.to_lowercase(), "real_name": format!("User {id}")}})
        };
        self.users.entry(id.into()).or_insert_with(made).clone()
    }
}

fn check_blocks(blocks: &Value, out: &mut Vec<Output>) -> Result<(), &'static str> {
    let list = blocks.as_array().map(Vec::as_slice).unwrap_or_default();
    let long = list
        .iter()
        .any(|block| block["type"] == "section" && text(&block["text"], "text").chars().count() > 3000);
    let untyped = list.iter().any(|block| !block["type"].is_string());
    if list.len() > 50 || long || untyped {
        let what = format!("{} blocks, or one that is too long or has no type", list.len());
        out.push(Output::Violation { rule: "slack.blocks", what });
        return Err("invalid_blocks");
    }
    Ok(())
}

impl Platform for Slack {
    fn rules(&self) -> &'static [Rule] {
        RULES
    }

    fn on(&mut self, now: Now, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Request { id, request } => self.request(now, id, &request, &mut out),
            Input::Upgrade { id, request } => {
                if let Some(host) = request.get("host") {
                    self.origin = format!("http://{host}");
                }
                self.upgrade(now, id, &request, &mut out);
            }
            Input::Frame { id, frame } => self.frame(now, id, &frame, &mut out),
            Input::Gone { id, .. } => self.drop_socket(id),
            Input::Called { .. } => {}
            Input::Tick => self.tick(now, &mut out),
        }
        out
    }

    fn wake(&self) -> Option<u64> {
        let sockets = self.sockets.values().map(|socket| {
            let end = socket.opened + self.lifetime_ms;
            let notice = if socket.warned { end } else { end.saturating_sub(10_000) };
            socket.next_ping.min(socket.heard + 3 * self.ping_ms).min(notice)
        });
        sockets.chain(self.envelopes.values().map(|envelope| envelope.due)).min()
    }

    /// - `user` `{id, …}`; `channel` `{id, name?, is_private?, is_mpim?, is_member?, is_archived?}`
    /// - `message` `{channel?, from?, text?, thread_ts?, files?: [{name, mime?, base64? | size?}]}`: without a channel, a
    ///   direct message; gives the message
    /// - `edit`, `delete` `{channel, ts, text?}`; `react`, `unreact` `{channel, ts, from?, name}`
    /// - `command` `{channel, from?, command, text?}`; `press` `{channel, ts, from?, action_id, value?}`
    /// - `disconnect` `{reason}`: to every open socket; `refresh_requested` closes it
    fn control(
        &mut self,
        now: Now,
        action: &str,
        arguments: &Value,
        out: &mut Vec<Output>,
    ) -> Result<Value, String> {
        let from = arguments["from"].as_str().unwrap_or("U1001").to_owned();
        let channel = text(arguments, "channel").to_owned();
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
            "channel" => {
                let id = text(arguments, "id").to_owned();
                let mut info = json!({"id": id, "name": id.to_lowercase(), "is_channel": true, "is_member": true, "is_archived": false});
                for (name, value) in arguments.as_object().into_iter().flatten() {
                    info[name] = value.clone();
                }
                self.channels.insert(id.clone(), info.clone());
                self.messages.entry(id).or_default();
                Ok(info)
            }
            "message" => {
                self.user(&from);
                let channel = if channel.is_empty() { self.direct(&from) } else { channel };
                if !self.channels.contains_key(&channel) {
                    return Err(format!("there is no channel {channel:?}"));
                }
                let ts = self.ts(now);
                let mut message = json!({
                    "type": "message", "user": from, "text": text(arguments, "text"), "ts": ts, "team": TEAM,
                    "client_msg_id": self.chance.hex(32),
                });
                if let Some(thread) = arguments.get("thread_ts") {
                    message["thread_ts"] = thread.clone();
                }
                let mut files = Vec::new();
                for file in arguments["files"].as_array().into_iter().flatten() {
                    let bytes = match file["base64"].as_str() {
                        Some(text) => BASE64.decode(text.as_bytes()).map_err(|error| error.to_string())?,
                        None => {
                            vec![0x5A; usize::try_from(file["size"].as_u64().unwrap_or(16)).unwrap_or(16)]
                        }
                    };
                    let id = format!("F{}", self.chance.hex(10).to_uppercase());
                    let name = text(file, "name");
                    let url = format!("{}/files-pri/{id}/{}", self.origin, crate::wire::percent(name));
                    let info = json!({
                        "id": id, "name": name, "title": name, "size": bytes.len(), "user": from, "mode": "hosted",
                        "mimetype": file["mime"].as_str().unwrap_or("application/octet-stream"), "filetype": "binary",
                        "url_private": url, "url_private_download": url, "created": now.unix_s(),
                    });
                    files.push(info.clone());
                    let length = bytes.len();
                    self.files.insert(id, File { info, bytes: Some(bytes), length, completed: true });
                }
                if !files.is_empty() {
                    message["files"] = json!(files);
                    message["subtype"] = json!("file_share");
                }
                self.add(now, &channel, &message, out);
                message["channel"] = json!(channel);
                Ok(message)
            }
            "edit" | "delete" => {
                let ts = text(arguments, "ts").to_owned();
                let event_ts = self.ts(now);
                let list = self.messages.get_mut(&channel).ok_or("there is no such channel")?;
                let position =
                    list.iter().position(|message| message["ts"] == ts).ok_or("there is no such message")?;
                let previous = list.remove(position);
                let mut event = json!({
                    "type": "message", "channel": channel, "ts": event_ts, "event_ts": event_ts, "hidden": true,
                    "previous_message": previous,
                });
                if action == "edit" {
                    let mut message = previous.clone();
                    message["text"] = arguments["text"].clone();
                    message["edited"] = json!({"user": previous["user"], "ts": event_ts});
                    list.insert(position, message.clone());
                    event["subtype"] = json!("message_changed");
                    event["message"] = message;
                } else {
                    event["subtype"] = json!("message_deleted");
                    event["deleted_ts"] = json!(ts);
                }
                event["channel_type"] = json!(self.kind(&channel));
                self.event(now, &event, out);
                Ok(json!({}))
            }
            "react" | "unreact" => {
                self.user(&from);
                let (ts, name) = (text(arguments, "ts").to_owned(), text(arguments, "name").to_owned());
                self.reaction(now, &channel, &ts, &name, &from, action == "react", out)?;
                Ok(json!({}))
            }
            "command" => {
                let user = self.user(&from);
                let response_url = self.callback(now, &channel, None);
                let payload = json!({
                    "token": "verification", "team_id": TEAM, "team_domain": "sim", "api_app_id": APP, "channel_id": channel,
                    "channel_name": channel, "user_id": from, "user_name": user["name"], "command": arguments["command"],
                    "text": text(arguments, "text"), "response_url": response_url, "trigger_id": self.chance.hex(16),
                });
                self.envelope(now, "slash_commands", payload, out);
                Ok(json!({}))
            }
            "press" => {
                let ts = text(arguments, "ts").to_owned();
                let list = self.messages.get(&channel).ok_or("there is no such channel")?;
                let message = list
                    .iter()
                    .find(|message| message["ts"] == ts)
                    .cloned()
                    .ok_or("there is no such message")?;
                let action_id = text(arguments, "action_id");
                if !message["blocks"].to_string().contains(&json!(action_id).to_string()) {
                    return Err(format!("the message has no action {action_id:?}"));
                }
                let response_url = self.callback(now, &channel, Some(ts.clone()));
                let payload = json!({
                    "type": "block_actions", "user": {"id": from, "username": from, "team_id": TEAM}, "api_app_id": APP,
                    "token": "verification", "container": {"type": "message", "message_ts": ts, "channel_id": channel},
                    "trigger_id": self.chance.hex(16), "team": {"id": TEAM, "domain": "sim"}, "channel": {"id": channel, "name": channel},
                    "message": message, "response_url": response_url, "is_enterprise_install": false, "enterprise": null,
                    "actions": [{"action_id": action_id, "block_id": "b", "type": "button", "value": arguments["value"],
                        "action_ts": ts, "text": {"type": "plain_text", "text": ""}}],
                });
                self.envelope(now, "interactive", payload, out);
                Ok(json!({}))
            }
            "disconnect" => {
                let reason = arguments["reason"].as_str().unwrap_or("refresh_requested");
                let ids: Vec<Id> = self.sockets.keys().copied().collect();
                for id in &ids {
                    let message =
                        json!({"type": "disconnect", "reason": reason, "debug_info": {"host": "sim"}});
                    self.say(*id, "disconnect", &message, out);
                    if reason != "warning" {
                        out.push(Output::Close { id: *id, code: 1000, reason: String::new() });
                        self.drop_socket(*id);
                    }
                }
                Ok(json!({"sockets": ids.len()}))
            }
            _ => Err(format!("slack cannot do {action:?}")),
        }
    }

    fn refusal(&self, status: u16, retry_after_ms: Option<u64>) -> Response {
        match status {
            429 => Response::json(429, &json!({"ok": false, "error": "ratelimited"}))
                .header("retry-after", retry_after_ms.unwrap_or(1000).div_ceil(1000)),
            500.. => Response::bytes(status, "text/html", b"<html>Server Error</html>".to_vec()),
            _ => Response::json(status, &json!({"ok": false, "error": "refused"})),
        }
    }

    fn state(&self) -> Value {
        json!({
            "channels": self.channels, "messages": self.messages, "sockets": self.sockets.len(),
            "unacknowledged": self.envelopes.values().map(|envelope| json!({"kind": envelope.kind, "attempt": envelope.attempt,
                "waiting": envelope.waiting, "payload": envelope.payload})).collect::<Vec<_>>(),
            "acknowledged": self.acknowledged, "lost": self.lost, "ephemeral": self.ephemeral, "statuses": self.statuses,
        })
    }
}
