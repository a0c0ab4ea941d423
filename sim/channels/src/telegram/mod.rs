//! Telegram's Bot API, for one bot. <https://core.telegram.org/bots/api>
//!
//! Options: `token` (default `123456:sim-token`), `username`, `id`, `privacy` (default true), `flood` (false turns the
//! limits off), `chat_burst`, `callback_ms` (for how long a pressed button waits), `public_webhooks` (true: only the
//! URLs and ports that Telegram itself calls; otherwise any, as a local Bot API server does).

mod html;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use crate::platform::{Bucket, Chance, Id, Input, Now, Output, Platform, Rule};
use crate::wire::{Fields, Request, Response};

const RULES: &[Rule] = &[
    Rule {
        id: "telegram.one-poller",
        text: "One getUpdates at a time: a second one ends the first with 409.",
        source: "https://core.telegram.org/bots/api#getupdates",
    },
    Rule {
        id: "telegram.webhook-or-polling",
        text: "getUpdates does not work while a webhook is set: 409.",
        source: "https://core.telegram.org/bots/api#getting-updates",
    },
    Rule {
        id: "telegram.long-polling",
        text: "The timeout is to be positive; a repeated short poll is made to wait 3 s.",
        source: "https://core.telegram.org/bots/api#getupdates",
    },
    Rule {
        id: "telegram.flood-wait",
        text: "After 429 nothing more may be sent there before retry_after is over.",
        source: "https://core.telegram.org/bots/api#responseparameters",
    },
    Rule {
        id: "telegram.rate",
        text: "1 message a second in a chat, 20 a minute in a group, 30 a second in all, 1,000 if they are paid for.",
        source: "https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this",
    },
    Rule {
        id: "telegram.text-length",
        text: "A text has 1-4096 UTF-16 units after its entities were parsed.",
        source: "https://core.telegram.org/bots/api#sendmessage",
    },
    Rule {
        id: "telegram.caption-length",
        text: "A caption has 0-1024 UTF-16 units after its entities were parsed.",
        source: "https://core.telegram.org/bots/api#sendphoto",
    },
    Rule {
        id: "telegram.entities",
        text: "HTML must be what the Bot API reads.",
        source: "https://core.telegram.org/bots/api#html-style",
    },
    Rule {
        id: "telegram.album",
        text: "An album has 2-10 items; documents and audio are not mixed with others.",
        source: "https://core.telegram.org/bots/api#sendmediagroup",
    },
    Rule {
        id: "telegram.upload-size",
        text: "Uploads: 10 MB for photos, 50 MB for other files.",
        source: "https://core.telegram.org/bots/api#sending-files",
    },
    Rule {
        id: "telegram.download-size",
        text: "Bots can download files of up to 20 MB.",
        source: "https://core.telegram.org/bots/api#getfile",
    },
    Rule {
        id: "telegram.callback-data",
        text: "callback_data has 1-64 bytes.",
        source: "https://core.telegram.org/bots/api#inlinekeyboardbutton",
    },
    Rule {
        id: "telegram.callback-answer",
        text: "A pressed button is answered once, and soon.",
        source: "https://core.telegram.org/bots/api#answercallbackquery",
    },
    Rule {
        id: "telegram.commands",
        text: "At most 100 commands of 1-32 characters a-z, 0-9 and _, with 1-256 characters of description.",
        source: "https://core.telegram.org/bots/api#botcommand",
    },
    Rule {
        id: "telegram.token",
        text: "Every request names a valid token.",
        source: "https://core.telegram.org/bots/api#authorizing-your-bot",
    },
];

const DAY_MS: u64 = 86_400_000;
const HOUR_MS: u64 = 3_600_000;
/// For so long the answer of a webhook is waited for; Telegram documents no figure.
const CALL_MS: u64 = 60_000;
const MEGABYTE: usize = 1 << 20;
/// In place of a chat: all paid broadcasts together.
const PAID: i64 = i64::MIN;
const GONE_FROM_DEFAULT: [&str; 3] = ["chat_member", "message_reaction", "message_reaction_count"];
/// <https://core.telegram.org/bots/api#reactiontypeemoji>
const REACTIONS: &str = "❤ 👍 👎 🔥 🥰 👏 😁 🤔 🤯 😱 🤬 😢 🎉 🤩 🤮 💩 🙏 👌 🕊 🤡 🥱 🥴 😍 🐳 ❤‍🔥 🌚 🌭 💯 🤣 ⚡ 🍌 🏆 💔 🤨 😐 🍓 🍾 💋 🖕 😈 😴 😭 🤓 👻 👨‍💻 👀 🎃 🙈 😇 😨 🤝 ✍ 🤗 🫡 🎅 🎄 ☃ 💅 🤪 🗿 🆒 💘 🙉 🦄 😘 💊 🙊 😎 👾 🤷‍♂ 🤷 🤷‍♀ 😡";
const ACTIONS: [&str; 11] = [
    "typing",
    "upload_photo",
    "record_video",
    "upload_video",
    "record_voice",
    "upload_voice",
    "upload_document",
    "choose_sticker",
    "find_location",
    "record_video_note",
    "upload_video_note",
];

struct Chat {
    /// A `Chat` of the Bot API.
    info: Map<String, Value>,
    next_message: i64,
    messages: BTreeMap<i64, Value>,
    topics: BTreeMap<i64, Topic>,
    /// The bot's, by message.
    reactions: BTreeMap<i64, Value>,
    actions: Vec<Value>,
    admin: bool,
    bot_spoke_last: bool,
    migrated_to: Option<i64>,
}

struct Topic {
    name: String,
    closed: bool,
}

struct Stored {
    unique: String,
    path: String,
    bytes: Vec<u8>,
    kind: String,
    info: Map<String, Value>,
    linked_until: u64,
}

struct Update {
    at: u64,
    chat: i64,
    id: i64,
    value: Value,
    attempts: u32,
    next_try: u64,
    /// Until when an answer of the webhook is waited for.
    in_flight: Option<u64>,
}

struct Poll {
    id: Id,
    limit: usize,
    due: u64,
}

#[derive(Default)]
struct Webhook {
    url: String,
    secret: Option<String>,
    max_connections: usize,
    last_error: Option<(u64, String)>,
}

struct Callback {
    at: u64,
    answer: Option<Value>,
}

struct Flood {
    bucket: Bucket,
    until: u64,
}

/// One bot and the chats that it is in.
pub struct Telegram {
    token: String,
    bot: Value,
    privacy: bool,
    flood_on: bool,
    chat_burst: u64,
    callback_ms: u64,
    public_webhooks: bool,
    chance: Chance,
    users: BTreeMap<i64, Value>,
    blocked: HashSet<i64>,
    chats: BTreeMap<i64, Chat>,
    files: BTreeMap<String, Stored>,
    updates: VecDeque<Update>,
    next_update: i64,
    allowed: Vec<String>,
    poll: Option<Poll>,
    last_poll: Option<(i64, u64)>,
    next_conflict: u64,
    delayed: BTreeMap<(u64, Id), Response>,
    webhook: Option<Webhook>,
    next_call: Id,
    calls: HashMap<Id, i64>,
    /// By chat; 0 is all chats together, and [`PAID`] what is paid for.
    floods: HashMap<i64, Flood>,
    callbacks: BTreeMap<String, Callback>,
    commands: BTreeMap<String, Value>,
}

/// How the Bot API refuses.
#[derive(Debug)]
struct Failure {
    code: u16,
    description: String,
    parameters: Option<Value>,
    rule: Option<&'static str>,
}

fn bad(description: impl Into<String>) -> Failure {
    Failure {
        code: 400,
        description: format!("Bad Request: {}", description.into()),
        parameters: None,
        rule: None,
    }
}

impl Failure {
    fn breaks(self, rule: &'static str) -> Self {
        Self { rule: Some(rule), ..self }
    }

    fn response(&self) -> Response {
        let mut body = json!({"ok": false, "error_code": self.code, "description": self.description});
        let mut response = Response::default();
        if let Some(parameters) = &self.parameters {
            body["parameters"] = parameters.clone();
            if let Some(seconds) = parameters["retry_after"].as_u64() {
                response = response.header("retry-after", seconds);
            }
        }
        let mut whole = Response::json(self.code, &body);
        whole.headers.extend(response.headers);
        whole
    }
}

fn failure(code: u16, description: &str) -> Failure {
    Failure { code, description: description.into(), parameters: None, rule: None }
}

type Outcome<T = Value> = Result<T, Failure>;

/// The arguments of a method: each may come as a JSON value, or as text of a form.
struct Arguments(Fields);

impl Arguments {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.values.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Option<String> {
        match self.get(name)? {
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    fn int(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            Value::Number(number) => number.as_i64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    fn flag(&self, name: &str) -> bool {
        match self.get(name) {
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(text)) => matches!(text.to_ascii_lowercase().as_str(), "true" | "yes" | "1"),
            Some(Value::Number(number)) => number.as_i64() == Some(1),
            _ => false,
        }
    }

    /// An object or an array, which a form carries as JSON.
    fn nested(&self, name: &str) -> Outcome<Option<Value>> {
        match self.get(name) {
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => serde_json::from_str(text)
                .map(Some)
                .map_err(|_| bad(format!("can't parse {name} JSON object"))),
            other => Ok(other.cloned()),
        }
    }
}

fn utf16(text: &str) -> usize {
    text.encode_utf16().count()
}

impl Telegram {
    pub fn new(options: &Value) -> Result<Self, String> {
        let token = options["token"].as_str().unwrap_or("123456:sim-token").to_owned();
        let id =
            token.split(':').next().and_then(|id| id.parse::<i64>().ok()).ok_or("a token is ID:SECRET")?;
        let username = options["username"].as_str().unwrap_or("sim_bot");
        let bot = json!({
            "id": options["id"].as_i64().unwrap_or(id), "is_bot": true, "first_name": "Sim", "username": username,
            "can_join_groups": true, "can_read_all_group_messages": !options["privacy"].as_bool().unwrap_or(true),
            "supports_inline_queries": false, "can_connect_to_business": false, "has_main_web_app": false,
        });
        let mut chance = Chance(options["seed"].as_u64().unwrap_or(1));
        Ok(Self {
            token,
            bot,
            privacy: options["privacy"].as_bool().unwrap_or(true),
            flood_on: options["flood"].as_bool().unwrap_or(true),
            chat_burst: options["chat_burst"].as_u64().unwrap_or(5),
            callback_ms: options["callback_ms"].as_u64().unwrap_or(60_000),
            public_webhooks: options["public_webhooks"].as_bool().unwrap_or(false),
            users: BTreeMap::new(),
            blocked: HashSet::new(),
            chats: BTreeMap::new(),
            files: BTreeMap::new(),
            updates: VecDeque::new(),
            next_update: i64::try_from(100_000_000 + chance.below(800_000_000)).unwrap_or(0),
            allowed: Vec::new(),
            poll: None,
            last_poll: None,
            next_conflict: 0,
            delayed: BTreeMap::new(),
            webhook: None,
            next_call: 1 << 40,
            calls: HashMap::new(),
            floods: HashMap::new(),
            callbacks: BTreeMap::new(),
            commands: BTreeMap::new(),
            chance,
        })
    }

    // ── requests ──────────────────────────────────────────────────────────────────────────────────────────────────

    fn request(&mut self, now: Now, id: Id, request: &Request, out: &mut Vec<Output>) {
        let path = request.path.clone();
        if let Some(rest) = path.strip_prefix("/file/bot") {
            let response = self.download(now, rest);
            out.push(Output::Answer { id, response });
            return;
        }
        let named = path.strip_prefix("/bot").and_then(|rest| rest.split_once('/'));
        let Some((token, method)) = named else {
            out.push(Output::Answer { id, response: failure(404, "Not Found").response() });
            return;
        };
        if token != self.token {
            let well_formed = token.split_once(':').is_some_and(|(id, secret)| {
                !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()) && !secret.is_empty()
            });
            let refused = if well_formed { failure(401, "Unauthorized") } else { failure(404, "Not Found") };
            out.push(Output::Violation {
                rule: "telegram.token",
                what: "a token that is not the bot's".into(),
            });
            out.push(Output::Answer { id, response: refused.response() });
            return;
        }
        let mut fields = match request.fields() {
            Ok(fields) => fields,
            Err(why) => {
                out.push(Output::Answer {
                    id,
                    response: bad(format!("can't parse the body: {why}")).response(),
                });
                return;
            }
        };
        for (name, value) in &request.query {
            fields.values.entry(name.clone()).or_insert_with(|| json!(value));
        }
        let arguments = Arguments(fields);
        let method = method.to_ascii_lowercase();
        if method == "getupdates" {
            self.get_updates(now, id, &arguments, out);
            return;
        }
        match self.invoke(now, &method, &arguments, out) {
            Ok(result) => {
                out.push(Output::Answer {
                    id,
                    response: Response::json(200, &json!({"ok": true, "result": result})),
                });
            }
            Err(failed) => {
                if let Some(rule) = failed.rule {
                    out.push(Output::Violation { rule, what: format!("{method}: {}", failed.description) });
                }
                out.push(Output::Answer { id, response: failed.response() });
            }
        }
    }

    fn invoke(&mut self, now: Now, method: &str, arguments: &Arguments, out: &mut Vec<Output>) -> Outcome {
        match method {
            "getme" => Ok(self.bot.clone()),
            "setwebhook" => self.set_webhook(now, arguments, out),
            "deletewebhook" => {
                self.webhook = None;
                if arguments.flag("drop_pending_updates") {
                    self.updates.clear();
                }
                Ok(json!(true))
            }
            "getwebhookinfo" => Ok(self.webhook_info()),
            "sendmessage" => {
                let (text, entities) =
                    formatted(arguments, "text", "entities", 4096, "telegram.text-length")?;
                if text.is_empty() {
                    return Err(bad("message text is empty").breaks("telegram.text-length"));
                }
                let mut content = Map::new();
                content.insert("text".into(), json!(text));
                if !entities.is_empty() {
                    content.insert("entities".into(), json!(entities));
                }
                self.send(now, arguments, vec![content]).map(first)
            }
            "sendphoto" | "senddocument" | "sendaudio" | "sendvideo" | "sendvoice" | "sendanimation"
            | "sendsticker" | "sendvideonote" => {
                let kind = if method == "sendvideonote" { "video_note" } else { &method[4..] };
                let mut content = self.media(kind, arguments, arguments.get(kind).cloned())?;
                if kind != "sticker" && kind != "video_note" {
                    caption(arguments, &mut content)?;
                }
                self.send(now, arguments, vec![content]).map(first)
            }
            "sendmediagroup" => self.send_album(now, arguments),
            "sendlocation" => {
                let number = |name: &str| arguments.text(name).and_then(|text| text.parse::<f64>().ok());
                let (Some(latitude), Some(longitude)) = (number("latitude"), number("longitude")) else {
                    return Err(bad("wrong latitude or longitude specified"));
                };
                let mut content = Map::new();
                content.insert("location".into(), json!({"latitude": latitude, "longitude": longitude}));
                self.send(now, arguments, vec![content]).map(first)
            }
            "sendchataction" => {
                let chat = self.chat_of(arguments)?;
                let action = arguments.text("action").unwrap_or_default();
                if !ACTIONS.contains(&action.as_str()) {
                    return Err(bad("wrong parameter action in request"));
                }
                self.flood(now, 0, 1, false)?;
                if let Some(chat) = self.chats.get_mut(&chat) {
                    chat.actions.push(
                        json!({"action": action, "at": now.ms, "thread": arguments.int("message_thread_id")}),
                    );
                }
                Ok(json!(true))
            }
            "editmessagetext" | "editmessagecaption" | "editmessagereplymarkup" => {
                self.edit(now, method, arguments)
            }
            "deletemessage" => self.delete(now, arguments),
            "setmessagereaction" => self.react(now, arguments),
            "answercallbackquery" => self.answer_callback(now, arguments),
            "setmycommands" => self.set_commands(arguments),
            "getmycommands" => {
                Ok(self.commands.get(&command_scope(arguments)?).cloned().unwrap_or_else(|| json!([])))
            }
            "deletemycommands" => {
                self.commands.remove(&command_scope(arguments)?);
                Ok(json!(true))
            }
            "getfile" => self.get_file(now, arguments),
            "getchat" => {
                let id = self.chat_of(arguments)?;
                let mut info = self.chats.get(&id).map(|chat| chat.info.clone()).unwrap_or_default();
                info.insert("accent_color_id".into(), json!(0));
                info.insert("max_reaction_count".into(), json!(11));
                Ok(Value::Object(info))
            }
            "getchatmember" => {
                let chat = self.chat_of(arguments)?;
                let user = arguments.int("user_id").unwrap_or(0);
                if Some(user) == self.bot["id"].as_i64() {
                    let admin = self.chats.get(&chat).is_some_and(|chat| chat.admin);
                    let status = if admin { "administrator" } else { "member" };
                    return Ok(json!({"status": status, "user": self.bot}));
                }
                let found = self.users.get(&user).ok_or_else(|| bad("invalid user_id specified"))?;
                Ok(json!({"status": "member", "user": found}))
            }
            "createforumtopic" => {
                let id = self.forum_of(arguments)?;
                let name = arguments.text("name").unwrap_or_default();
                if name.is_empty() || name.chars().count() > 128 {
                    return Err(bad("TOPIC_TITLE_EMPTY"));
                }
                let topic = self.add_topic(now, id, &name, true).ok_or_else(|| bad("chat not found"))?;
                Ok(json!({"message_thread_id": topic, "name": name, "icon_color": 7_322_096}))
            }
            "editforumtopic" | "closeforumtopic" | "reopenforumtopic" | "deleteforumtopic" => {
                let id = self.forum_of(arguments)?;
                let thread = arguments.int("message_thread_id").unwrap_or(0);
                let missing = || bad("message thread not found");
                let topics = &mut self.chats.get_mut(&id).ok_or_else(missing)?.topics;
                let topic = topics.get_mut(&thread).ok_or_else(missing)?;
                match method {
                    "editforumtopic" => topic.name = arguments.text("name").unwrap_or_default(),
                    "deleteforumtopic" => drop(topics.remove(&thread)),
                    _ => topic.closed = method == "closeforumtopic",
                }
                Ok(json!(true))
            }
            "pinchatmessage" | "unpinchatmessage" => self.chat_of(arguments).map(|_| json!(true)),
            _ => Err(failure(404, "Not Found: method not found")),
        }
    }

    // ── updates ───────────────────────────────────────────────────────────────────────────────────────────────────

    fn get_updates(&mut self, now: Now, id: Id, arguments: &Arguments, out: &mut Vec<Output>) {
        if self.webhook.is_some() {
            let what = "getUpdates while a webhook is set".into();
            out.push(Output::Violation { rule: "telegram.webhook-or-polling", what });
            let text = "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete \
                        the webhook first";
            self.conflict(now, id, text, out);
            return;
        }
        if let Some(other) = self.poll.take() {
            let what = format!("getUpdates {id} while {} was not over", other.id);
            out.push(Output::Violation { rule: "telegram.one-poller", what });
            let text = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is \
                        running";
            self.conflict(now, other.id, text, out);
        }
        let offset = arguments.int("offset").unwrap_or(0);
        let limit = usize::try_from(arguments.int("limit").unwrap_or(100).clamp(1, 100)).unwrap_or(100);
        let mut timeout_ms =
            1000 * u64::try_from(arguments.int("timeout").unwrap_or(0).clamp(0, 50)).unwrap_or(0);
        match arguments.nested("allowed_updates") {
            Ok(Some(list)) => self.allowed = strings(&list),
            Ok(None) => {}
            Err(failed) => {
                out.push(Output::Answer { id, response: failed.response() });
                return;
            }
        }
        if offset < 0 {
            let keep = usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX);
            let forget = self.updates.len().saturating_sub(keep);
            self.updates.drain(..forget);
        } else {
            self.updates.retain(|update| update.id >= offset);
        }
        if self.updates.is_empty() {
            let repeated = self.last_poll.is_some_and(|(last, at)| last == offset && now.ms < at + 3000);
            if repeated {
                timeout_ms = timeout_ms.max(3000);
            }
        }
        self.last_poll = Some((offset, now.ms));
        self.poll = Some(Poll { id, limit, due: now.ms + timeout_ms });
        self.feed(now, out);
    }

    /// Conflicts are told at most every 3 s; others are kept waiting that long.
    fn conflict(&mut self, now: Now, id: Id, text: &str, out: &mut Vec<Output>) {
        let response = failure(409, text).response();
        if now.ms >= self.next_conflict {
            self.next_conflict = now.ms + 3000;
            out.push(Output::Answer { id, response });
        } else {
            self.delayed.insert((now.ms + 3000, id), response);
        }
    }

    fn update(
        &mut self,
        now: Now,
        kind: &str,
        chat: i64,
        value: Value,
        out: &mut Vec<Output>,
    ) -> Option<i64> {
        let wanted = if self.allowed.is_empty() {
            !GONE_FROM_DEFAULT.contains(&kind)
        } else {
            self.allowed.iter().any(|allowed| allowed == kind)
        };
        if !wanted {
            return None;
        }
        let id = self.next_update;
        self.next_update += 1;
        let mut update = json!({"update_id": id});
        update[kind] = value;
        self.updates.push_back(Update {
            at: now.ms,
            chat,
            id,
            value: update,
            attempts: 0,
            next_try: 0,
            in_flight: None,
        });
        self.feed(now, out);
        Some(id)
    }

    fn feed(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.webhook.is_some() {
            self.call_webhook(now, out);
        } else if let Some(poll) = self.poll.take_if(|poll| !self.updates.is_empty() || poll.due <= now.ms) {
            let batch: Vec<&Value> =
                self.updates.iter().take(poll.limit).map(|update| &update.value).collect();
            let response = Response::json(200, &json!({"ok": true, "result": batch}));
            out.push(Output::Answer { id: poll.id, response });
        }
    }

    fn set_webhook(&mut self, now: Now, arguments: &Arguments, out: &mut Vec<Output>) -> Outcome {
        let url = arguments.text("url").unwrap_or_default();
        if url.is_empty() {
            self.webhook = None;
            return Ok(json!(true));
        }
        let https = url.starts_with("https://");
        if !https && (self.public_webhooks || !url.starts_with("http://")) {
            return Err(bad("bad webhook: An HTTPS URL must be provided for webhook"));
        }
        if self.public_webhooks {
            let authority = url["https://".len()..].split('/').next().unwrap_or_default();
            let port = authority.rsplit_once(':').map_or("443", |(_, port)| port);
            if !["443", "80", "88", "8443"].contains(&port) {
                return Err(bad("bad webhook: Webhook can be set up only on ports 80, 88, 443 or 8443"));
            }
        }
        let secret = arguments.text("secret_token").filter(|secret| !secret.is_empty());
        if let Some(secret) = &secret {
            if secret.len() > 256 {
                return Err(bad("secret token is too long"));
            }
            if !secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)) {
                return Err(bad("secret token contains unallowed characters"));
            }
        }
        if let Some(list) = arguments.nested("allowed_updates")? {
            self.allowed = strings(&list);
        }
        if arguments.flag("drop_pending_updates") {
            self.updates.clear();
        }
        if let Some(poll) = self.poll.take() {
            self.conflict(now, poll.id, "Conflict: terminated by setWebhook request", out);
        }
        let max = arguments.int("max_connections").filter(|max| (1..=100).contains(max)).unwrap_or(40);
        let max_connections = usize::try_from(max).unwrap_or(40);
        self.webhook = Some(Webhook { url, secret, max_connections, last_error: None });
        for update in &mut self.updates {
            update.attempts = 0;
            update.next_try = 0;
        }
        self.call_webhook(now, out);
        Ok(json!(true))
    }

    fn webhook_info(&self) -> Value {
        let mut info =
            json!({"url": "", "has_custom_certificate": false, "pending_update_count": self.updates.len()});
        if let Some(webhook) = &self.webhook {
            info["url"] = json!(webhook.url);
            info["max_connections"] = json!(webhook.max_connections);
            if let Some((date, message)) = &webhook.last_error {
                info["last_error_date"] = json!(date);
                info["last_error_message"] = json!(message);
            }
        }
        if !self.allowed.is_empty() {
            info["allowed_updates"] = json!(self.allowed);
        }
        info
    }

    /// One call at a time for a chat, in order; others beside it.
    fn call_webhook(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(webhook) = &self.webhook else { return };
        let mut in_flight = self.updates.iter().filter(|update| update.in_flight.is_some()).count();
        let mut busy = HashSet::new();
        for update in &mut self.updates {
            let first = busy.insert(update.chat);
            if in_flight >= webhook.max_connections
                || !first
                || update.in_flight.is_some()
                || update.next_try > now.ms
            {
                continue;
            }
            self.next_call += 1;
            let mut request =
                Request { method: "POST".into(), path: webhook.url.clone(), ..Request::default() };
            if let Some((path, query)) = webhook.url.split_once('?') {
                request.path = path.into();
                request.query = crate::wire::parse_query(query);
            }
            request = request.json(&update.value);
            if let Some(secret) = &webhook.secret {
                request = request.header("x-telegram-bot-api-secret-token", secret);
            }
            update.in_flight = Some(now.ms + CALL_MS);
            in_flight += 1;
            self.calls.insert(self.next_call, update.id);
            out.push(Output::Call { id: self.next_call, request });
        }
    }

    fn called(&mut self, now: Now, call: Id, response: Option<&Response>, out: &mut Vec<Output>) {
        let Some(update) = self.calls.remove(&call) else { return };
        let done = response.is_some_and(|response| (200..300).contains(&response.status));
        let Some(position) = self.updates.iter().position(|other| other.id == update) else { return };
        if done {
            self.updates.remove(position);
            // The answer may itself call a method.
            let method = response.map(Response::value).unwrap_or_default();
            if let (Some(name), Some(values)) = (method["method"].as_str(), method.as_object()) {
                let arguments = Arguments(Fields { values: values.clone(), files: Vec::new() });
                if let Err(Failure { rule: Some(rule), description, .. }) =
                    self.invoke(now, &name.to_ascii_lowercase(), &arguments, out)
                {
                    out.push(Output::Violation { rule, what: format!("{name}: {description}") });
                }
            }
        } else {
            let what = response.map_or_else(
                || "Connection failed".to_owned(),
                |response| format!("Wrong response from the webhook: {}", response.status),
            );
            if let Some(webhook) = &mut self.webhook {
                webhook.last_error = Some((now.unix_s(), what));
            }
            if let Some(update) = self.updates.get_mut(position) {
                update.in_flight = None;
                let asked = response
                    .and_then(|response| response.get("retry-after"))
                    .and_then(|seconds| seconds.parse::<u64>().ok())
                    .unwrap_or(0);
                update.next_try = now.ms + (1000 << update.attempts.min(6)).max(asked * 1000);
                update.attempts += 1;
            }
        }
        self.call_webhook(now, out);
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Output>) {
        while let Some(entry) = self.delayed.first_entry().filter(|entry| entry.key().0 <= now.ms) {
            let id = entry.key().1;
            let response = entry.remove();
            out.push(Output::Answer { id, response });
        }
        // Who does not answer is not waited for.
        let late = |update: &&Update| update.in_flight.is_some_and(|until| until <= now.ms);
        let late: Vec<i64> = self.updates.iter().filter(late).map(|update| update.id).collect();
        let calls: Vec<Id> =
            self.calls.iter().filter(|call| late.contains(call.1)).map(|call| *call.0).collect();
        for call in calls {
            self.called(now, call, None, out);
        }
        // Kept for 24 hours: https://core.telegram.org/bots/api#getting-updates
        while self.updates.front().is_some_and(|update| update.at + DAY_MS <= now.ms) {
            self.updates.pop_front();
        }
        self.feed(now, out);
    }

    // ── sending ───────────────────────────────────────────────────────────────────────────────────────────────────

    fn chat_of(&self, arguments: &Arguments) -> Outcome<i64> {
        let name = arguments
            .text("chat_id")
            .filter(|name| !name.is_empty())
            .ok_or_else(|| bad("chat_id is empty"))?;
        let id = if let Some(username) = name.strip_prefix('@') {
            let found =
                self.chats.iter().find(|(_, chat)| chat.info.get("username") == Some(&json!(username)));
            found.map(|(id, _)| *id)
        } else {
            name.parse().ok().filter(|id| self.chats.contains_key(id))
        };
        let id = id.ok_or_else(|| bad("chat not found"))?;
        let chat = self.chats.get(&id).ok_or_else(|| bad("chat not found"))?;
        if let Some(new) = chat.migrated_to {
            let mut failed = bad("group chat was upgraded to a supergroup chat");
            failed.parameters = Some(json!({"migrate_to_chat_id": new}));
            return Err(failed);
        }
        if self.blocked.contains(&id) {
            return Err(if id > 0 {
                failure(403, "Forbidden: bot was blocked by the user")
            } else {
                failure(403, "Forbidden: bot was kicked from the supergroup chat")
            });
        }
        Ok(id)
    }

    fn forum_of(&self, arguments: &Arguments) -> Outcome<i64> {
        let id = self.chat_of(arguments)?;
        let forum = self.chats.get(&id).is_some_and(|chat| chat.info.get("is_forum") == Some(&json!(true)));
        if forum { Ok(id) } else { Err(bad("the chat is not a forum")) }
    }

    /// Takes as many tokens as there are messages, or says how long to wait.
    /// Paid broadcasts have a limit of their own: <https://core.telegram.org/bots/api#sendmessage>.
    fn flood(&mut self, now: Now, chat: i64, count: usize, paid: bool) -> Outcome<()> {
        if !self.flood_on {
            return Ok(());
        }
        let burst = self.chat_burst;
        let all = if paid { PAID } else { 0 };
        let scopes = if chat == 0 { vec![all] } else { vec![chat, all] };
        for scope in &scopes {
            let flood = self.floods.entry(*scope).or_insert_with(|| Flood {
                bucket: match *scope {
                    0 => Bucket::new(30, 1000),
                    PAID => Bucket::new(1000, 1000),
                    group if group < 0 => Bucket::new(20, 60_000),
                    _ => Bucket::with_burst(burst, 1, 1000),
                },
                until: 0,
            });
            let early = flood.until > now.ms;
            let wait = if early { flood.until - now.ms } else { flood.bucket.wait(now.ms) };
            if wait > 0 {
                let seconds = wait.div_ceil(1000);
                flood.until = flood.until.max(now.ms + seconds * 1000);
                return Err(Failure {
                    code: 429,
                    description: format!("Too Many Requests: retry after {seconds}"),
                    parameters: Some(json!({"retry_after": seconds})),
                    rule: Some(if early { "telegram.flood-wait" } else { "telegram.rate" }),
                });
            }
        }
        for scope in &scopes {
            if let Some(flood) = self.floods.get_mut(scope) {
                (0..count).for_each(|_| flood.bucket.take(now.ms));
            }
        }
        Ok(())
    }

    fn send(
        &mut self,
        now: Now,
        arguments: &Arguments,
        contents: Vec<Map<String, Value>>,
    ) -> Outcome<Vec<Value>> {
        let chat_id = self.chat_of(arguments)?;
        let thread = arguments.int("message_thread_id").filter(|thread| *thread != 0);
        let reply = match arguments.nested("reply_parameters")? {
            Some(reply) => reply,
            None => json!({
                "message_id": arguments.int("reply_to_message_id"),
                "allow_sending_without_reply": arguments.flag("allow_sending_without_reply"),
            }),
        };
        let markup = arguments.nested("reply_markup")?;
        if let Some(markup) = &markup {
            check_markup(markup)?;
        }
        let chat = self.chats.get(&chat_id).ok_or_else(|| bad("chat not found"))?;
        if let Some(thread) = thread {
            match chat.topics.get(&thread) {
                None => return Err(bad("message thread not found")),
                Some(Topic { closed: true, .. }) if !chat.admin => return Err(bad("TOPIC_CLOSED")),
                Some(_) => {}
            }
        }
        let mut reply_to = None;
        if let Some(id) = reply["message_id"].as_i64() {
            match chat.messages.get(&id) {
                Some(message) => reply_to = Some(message.clone()),
                None if reply["allow_sending_without_reply"] == true => {}
                None => return Err(bad("message to be replied not found")),
            }
        }
        let paid = arguments.get("allow_paid_broadcast").is_some_and(|paid| paid == true || paid == "true");
        self.flood(now, chat_id, contents.len(), paid)?;
        let album = (contents.len() > 1).then(|| self.chance.draw().to_string());
        let sender = json!({
            "id": self.bot["id"], "is_bot": true, "first_name": self.bot["first_name"], "username": self.bot["username"],
        });
        let mut sent = Vec::new();
        for content in contents {
            let mut extra = content;
            if let Some(album) = &album {
                extra.insert("media_group_id".into(), json!(album));
            }
            if let Some(markup) = markup.as_ref().filter(|markup| markup.get("inline_keyboard").is_some()) {
                extra.insert("reply_markup".into(), markup.clone());
            }
            if let Some(reply_to) = &reply_to {
                extra.insert("reply_to_message".into(), shallow(reply_to));
            }
            if arguments.flag("disable_notification") {
                extra.insert("sim_silent".into(), json!(true));
            }
            let message = self.add_message(now, chat_id, &sender, thread, extra);
            sent.push(message);
        }
        if let Some(chat) = self.chats.get_mut(&chat_id) {
            chat.bot_spoke_last = true;
        }
        Ok(sent)
    }

    fn add_message(
        &mut self,
        now: Now,
        chat_id: i64,
        sender: &Value,
        thread: Option<i64>,
        content: Map<String, Value>,
    ) -> Value {
        let Some(chat) = self.chats.get_mut(&chat_id) else { return Value::Null };
        let id = chat.next_message;
        chat.next_message += 1;
        let mut message = Map::new();
        message.insert("message_id".into(), json!(id));
        if let Some(thread) = thread {
            message.insert("message_thread_id".into(), json!(thread));
            message.insert("is_topic_message".into(), json!(true));
        }
        if chat.info.get("type") == Some(&json!("channel")) {
            message.insert("sender_chat".into(), json!(chat.info));
        } else {
            message.insert("from".into(), sender.clone());
        }
        message.insert("chat".into(), json!(chat.info));
        message.insert("date".into(), json!(now.unix_s()));
        message.extend(content);
        let message = Value::Object(message);
        chat.messages.insert(id, message.clone());
        message
    }

    fn add_topic(&mut self, now: Now, chat_id: i64, name: &str, by_bot: bool) -> Option<i64> {
        let sender = if by_bot { self.bot.clone() } else { self.user(1001) };
        let id = self.chats.get(&chat_id)?.next_message;
        let mut content = Map::new();
        content.insert("forum_topic_created".into(), json!({"name": name, "icon_color": 7_322_096}));
        self.add_message(now, chat_id, &sender, Some(id), content);
        self.chats.get_mut(&chat_id)?.topics.insert(id, Topic { name: name.into(), closed: false });
        Some(id)
    }

    /// A file that comes with the request (`attach://` or of the field's name), or one that is known already.
    fn media(
        &mut self,
        kind: &str,
        arguments: &Arguments,
        given: Option<Value>,
    ) -> Outcome<Map<String, Value>> {
        let named = given.as_ref().and_then(Value::as_str).unwrap_or_default();
        let field = named.strip_prefix("attach://").unwrap_or(kind);
        let mut content = Map::new();
        if named.is_empty() || named.starts_with("attach://") {
            let file = arguments.0.files.iter().find(|file| file.field == field);
            let file =
                file.ok_or_else(|| bad(format!("there is no {} in the request", kind.replace('_', " "))))?;
            let limit = if kind == "photo" { 10 * MEGABYTE } else { 50 * MEGABYTE };
            if file.bytes.len() > limit {
                return Err(if kind == "photo" {
                    bad("too big file was uploaded").breaks("telegram.upload-size")
                } else {
                    failure(413, "Request Entity Too Large").breaks("telegram.upload-size")
                });
            }
            if file.bytes.is_empty() {
                return Err(bad("file must be non-empty"));
            }
            if kind == "photo" && !is_image(&file.bytes) {
                return Err(bad("IMAGE_PROCESS_FAILED"));
            }
            let (name, mime) = (file.name.clone(), file.content_type.clone());
            let id = self.store(kind, &name, mime.as_deref(), file.bytes.clone());
            content.insert(kind.into(), self.described(&id));
        } else if named.starts_with("http://") || named.starts_with("https://") {
            return Err(bad("failed to get HTTP URL content"));
        } else {
            let known =
                self.files.get(named).ok_or_else(|| bad("wrong file identifier/HTTP URL specified"))?;
            if known.kind != kind {
                return Err(bad(format!("can't use file of type {} as {kind}", known.kind)));
            }
            content.insert(kind.into(), self.described(named));
        }
        Ok(content)
    }

    fn send_album(&mut self, now: Now, arguments: &Arguments) -> Outcome {
        let media = arguments.nested("media")?;
        let items = media.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
        if items.is_empty() {
            return Err(bad("there are no messages to send").breaks("telegram.album"));
        }
        if items.len() > 10 {
            return Err(bad("too many messages to send as an album").breaks("telegram.album"));
        }
        for alone in ["document", "audio"] {
            let count = items.iter().filter(|item| item["type"] == alone).count();
            if count > 0 && count < items.len() {
                return Err(
                    bad(format!("{alone} can't be mixed with other media types")).breaks("telegram.album")
                );
            }
        }
        let mut contents = Vec::new();
        for item in &items {
            let kind = item["type"].as_str().unwrap_or_default();
            if !["photo", "video", "document", "audio"].contains(&kind) {
                return Err(bad("can't parse InputMedia: media type is wrong").breaks("telegram.album"));
            }
            let mut content = self.media(kind, arguments, Some(item["media"].clone()))?;
            let own = Arguments(Fields {
                values: item.as_object().cloned().unwrap_or_default(),
                files: Vec::new(),
            });
            caption(&own, &mut content)?;
            contents.push(content);
        }
        self.send(now, arguments, contents).map(Value::Array)
    }

    fn edit(&mut self, now: Now, method: &str, arguments: &Arguments) -> Outcome {
        let chat_id = self.chat_of(arguments)?;
        let id = arguments.int("message_id").unwrap_or(0);
        let current = self.chats.get(&chat_id).and_then(|chat| chat.messages.get(&id)).cloned();
        let current = current.ok_or_else(|| bad("message to edit not found"))?;
        if current["from"]["id"] != self.bot["id"] && current.get("sender_chat").is_none() {
            return Err(bad("message can't be edited"));
        }
        let mut edited = current.clone();
        match method {
            "editmessagetext" => {
                if current.get("text").is_none() {
                    return Err(bad("there is no text in the message to edit"));
                }
                let (text, entities) =
                    formatted(arguments, "text", "entities", 4096, "telegram.text-length")?;
                if text.is_empty() {
                    return Err(bad("message text is empty").breaks("telegram.text-length"));
                }
                edited["text"] = json!(text);
                set_or_remove(&mut edited, "entities", (!entities.is_empty()).then(|| json!(entities)));
            }
            "editmessagecaption" => {
                if current.get("text").is_some() {
                    return Err(bad("there is no caption in the message to edit"));
                }
                let mut content = Map::new();
                caption(arguments, &mut content)?;
                set_or_remove(&mut edited, "caption", content.remove("caption"));
                set_or_remove(&mut edited, "caption_entities", content.remove("caption_entities"));
            }
            _ => {}
        }
        let markup = arguments.nested("reply_markup")?;
        if let Some(markup) = &markup {
            check_markup(markup)?;
        }
        set_or_remove(&mut edited, "reply_markup", markup);
        if edited == current {
            return Err(bad(
                "message is not modified: specified new message content and reply markup are exactly the same as a \
                 current content and reply markup of the message",
            ));
        }
        self.flood(now, chat_id, 1, false)?;
        edited["edit_date"] = json!(now.unix_s());
        if let Some(chat) = self.chats.get_mut(&chat_id) {
            chat.messages.insert(id, edited.clone());
        }
        Ok(edited)
    }

    fn delete(&mut self, now: Now, arguments: &Arguments) -> Outcome {
        let chat_id = self.chat_of(arguments)?;
        let id = arguments.int("message_id").unwrap_or(0);
        let chat = self.chats.get_mut(&chat_id).ok_or_else(|| bad("chat not found"))?;
        let message = chat.messages.get(&id).ok_or_else(|| bad("message to delete not found"))?;
        // https://core.telegram.org/bots/api#deletemessage: within 48 hours.
        let age = now.unix_s().saturating_sub(message["date"].as_u64().unwrap_or(0));
        if age > 48 * 3600 || message["from"]["id"] != self.bot["id"] && chat_id < 0 && !chat.admin {
            return Err(bad("message can't be deleted for everyone"));
        }
        chat.messages.remove(&id);
        Ok(json!(true))
    }

    fn react(&mut self, now: Now, arguments: &Arguments) -> Outcome {
        let chat_id = self.chat_of(arguments)?;
        let id = arguments.int("message_id").unwrap_or(0);
        let reaction = arguments.nested("reaction")?.unwrap_or_else(|| json!([]));
        let list = reaction.as_array().cloned().unwrap_or_default();
        // As non-premium users, bots can set up to one reaction: https://core.telegram.org/bots/api#setmessagereaction
        if list.len() > 1 {
            return Err(bad("REACTIONS_TOO_MANY"));
        }
        for one in &list {
            let emoji = one["emoji"].as_str().unwrap_or_default().trim_end_matches('\u{FE0F}');
            if one["type"] != "emoji" || emoji.is_empty() || !REACTIONS.split(' ').any(|known| known == emoji)
            {
                return Err(bad("REACTION_INVALID"));
            }
        }
        let known = self.chats.get(&chat_id).is_some_and(|chat| chat.messages.contains_key(&id));
        if !known {
            return Err(bad("message to react not found"));
        }
        self.flood(now, 0, 1, false)?;
        if let Some(chat) = self.chats.get_mut(&chat_id) {
            chat.reactions.insert(id, reaction);
        }
        Ok(json!(true))
    }

    fn answer_callback(&mut self, now: Now, arguments: &Arguments) -> Outcome {
        let id = arguments.text("callback_query_id").unwrap_or_default();
        let late = || {
            bad("query is too old and response timeout expired or query ID is invalid")
                .breaks("telegram.callback-answer")
        };
        let callback = self.callbacks.get_mut(&id).ok_or_else(late)?;
        if now.ms > callback.at + self.callback_ms {
            return Err(late());
        }
        // https://core.telegram.org/bots/api#answercallbackquery: 0-200 characters.
        if arguments.text("text").is_some_and(|text| text.chars().count() > 200) {
            return Err(bad("MESSAGE_TOO_LONG"));
        }
        callback.answer =
            Some(json!({"text": arguments.text("text"), "alert": arguments.flag("show_alert")}));
        Ok(json!(true))
    }

    fn set_commands(&mut self, arguments: &Arguments) -> Outcome {
        let commands = arguments.nested("commands")?.unwrap_or_else(|| json!([]));
        let list = commands.as_array().cloned().unwrap_or_default();
        if list.len() > 100 {
            return Err(bad("BOT_COMMANDS_TOO_MUCH").breaks("telegram.commands"));
        }
        for command in &list {
            let name = command["command"].as_str().unwrap_or_default().trim_start_matches('/');
            let valid = (1..=32).contains(&name.len())
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
            if !valid {
                return Err(bad("BOT_COMMAND_INVALID").breaks("telegram.commands"));
            }
            let description = command["description"].as_str().unwrap_or_default().chars().count();
            if !(1..=256).contains(&description) {
                return Err(bad("BOT_COMMAND_DESCRIPTION_INVALID").breaks("telegram.commands"));
            }
        }
        self.commands.insert(command_scope(arguments)?, commands);
        Ok(json!(true))
    }

    // ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────

    fn store(&mut self, kind: &str, name: &str, mime: Option<&str>, bytes: Vec<u8>) -> String {
        let number = self.files.len() + 1;
        let id = format!("AgAC{}{number}", self.chance.hex(40));
        let extension = name.rsplit_once('.').map_or("bin", |(_, extension)| extension);
        let folder = match kind {
            "photo" => "photos",
            "voice" => "voice",
            "video" | "animation" | "video_note" => "videos",
            "audio" => "music",
            "sticker" => "stickers",
            _ => "documents",
        };
        let extension = if kind == "photo" { "jpg" } else { extension };
        let mut info = Map::new();
        match kind {
            "photo" | "sticker" | "video" | "animation" => {
                info.insert("width".into(), json!(90));
                info.insert("height".into(), json!(90));
            }
            "video_note" => drop(info.insert("length".into(), json!(90))),
            _ => {}
        }
        if ["video", "animation", "audio", "voice", "video_note"].contains(&kind) {
            info.insert("duration".into(), json!(1));
        }
        if kind == "sticker" {
            info.insert("type".into(), json!("regular"));
            info.insert("is_animated".into(), json!(false));
            info.insert("is_video".into(), json!(false));
        }
        if ["document", "audio", "video", "animation"].contains(&kind) {
            info.insert("file_name".into(), json!(name));
        }
        if kind != "photo" && kind != "sticker" && kind != "video_note" {
            info.insert("mime_type".into(), json!(mime.unwrap_or("application/octet-stream")));
        }
        let stored = Stored {
            unique: self.chance.hex(16),
            path: format!("{folder}/file_{number}.{extension}"),
            bytes,
            kind: kind.into(),
            info,
            linked_until: 0,
        };
        self.files.insert(id.clone(), stored);
        id
    }

    fn described(&self, id: &str) -> Value {
        let Some(stored) = self.files.get(id) else { return Value::Null };
        let mut info = Map::new();
        info.insert("file_id".into(), json!(id));
        info.insert("file_unique_id".into(), json!(stored.unique));
        info.insert("file_size".into(), json!(stored.bytes.len()));
        info.extend(stored.info.clone());
        if stored.kind == "photo" { json!([info]) } else { Value::Object(info) }
    }

    fn get_file(&mut self, now: Now, arguments: &Arguments) -> Outcome {
        let id = arguments.text("file_id").unwrap_or_default();
        let stored = self.files.get_mut(&id).ok_or_else(|| bad("invalid file_id"))?;
        if stored.bytes.len() > 20 * MEGABYTE {
            return Err(bad("file is too big").breaks("telegram.download-size"));
        }
        // The link is valid for at least an hour: https://core.telegram.org/bots/api#getfile
        stored.linked_until = now.ms + HOUR_MS;
        Ok(json!({
            "file_id": id, "file_unique_id": stored.unique, "file_size": stored.bytes.len(), "file_path": stored.path,
        }))
    }

    fn download(&self, now: Now, rest: &str) -> Response {
        let found = rest.split_once('/').filter(|(token, _)| *token == self.token).and_then(|(_, path)| {
            self.files.values().find(|stored| stored.path == path && stored.linked_until >= now.ms)
        });
        found.map_or_else(
            || failure(404, "Not Found").response(),
            |stored| Response::bytes(200, "application/octet-stream", stored.bytes.clone()),
        )
    }

    // ── what people do ────────────────────────────────────────────────────────────────────────────────────────────

    fn user(&mut self, id: i64) -> Value {
        let made =
            || json!({"id": id, "is_bot": false, "first_name": format!("User {id}"), "language_code": "en"});
        self.users.entry(id).or_insert_with(made).clone()
    }

    fn add_chat(&mut self, info: Map<String, Value>) -> i64 {
        let id = info.get("id").and_then(Value::as_i64).unwrap_or(0);
        let chat = Chat {
            info,
            next_message: 1,
            messages: BTreeMap::new(),
            topics: BTreeMap::new(),
            reactions: BTreeMap::new(),
            actions: Vec::new(),
            admin: false,
            bot_spoke_last: false,
            migrated_to: None,
        };
        self.chats.insert(id, chat);
        id
    }

    fn incoming(&mut self, now: Now, arguments: &Value, out: &mut Vec<Output>) -> Result<Value, String> {
        let from = arguments["from"].as_i64().unwrap_or(1001);
        let chat_id = arguments["chat"].as_i64().unwrap_or(from);
        let user = self.user(from);
        if !self.chats.contains_key(&chat_id) {
            if chat_id != from {
                return Err(format!("there is no chat {chat_id}; the action \"chat\" makes one"));
            }
            let mut info = Map::new();
            for (name, value) in
                [("id", json!(from)), ("first_name", user["first_name"].clone()), ("type", json!("private"))]
            {
                info.insert(name.into(), value);
            }
            if let Some(username) = user.get("username") {
                info.insert("username".into(), username.clone());
            }
            self.add_chat(info);
        }
        let thread = arguments["thread"].as_i64();
        let mut content = Map::new();
        if let Some(reply) = arguments["reply_to"].as_i64() {
            let replied = self.chats.get(&chat_id).and_then(|chat| chat.messages.get(&reply));
            let replied = replied.ok_or_else(|| format!("there is no message {reply} to reply to"))?;
            content.insert("reply_to_message".into(), shallow(replied));
        }
        let media = &arguments["media"];
        let (text_field, entities_field) =
            if media.is_object() { ("caption", "caption_entities") } else { ("text", "entities") };
        if let Some(kind) = media["kind"].as_str() {
            let bytes = match media["base64"].as_str() {
                Some(text) => BASE64.decode(text.as_bytes()).map_err(|error| error.to_string())?,
                None => vec![0x5A; usize::try_from(media["size"].as_u64().unwrap_or(16)).unwrap_or(16)],
            };
            let id =
                self.store(kind, media["name"].as_str().unwrap_or("file.bin"), media["mime"].as_str(), bytes);
            content.insert(kind.into(), self.described(&id));
        }
        if let Some(group) = arguments.get("media_group") {
            content.insert("media_group_id".into(), group.clone());
        }
        if let Some(text) = arguments["text"].as_str() {
            content.insert(text_field.into(), json!(text));
            let entities = match arguments["entities"].as_array() {
                Some(given) => given.clone(),
                None => detected(text),
            };
            if !entities.is_empty() {
                content.insert(entities_field.into(), json!(entities));
            }
        }
        if let Some(extra) = arguments["extra"].as_object() {
            content.extend(extra.clone());
        }
        let hears = self.hears(chat_id, &content);
        let message = self.add_message(now, chat_id, &user, thread, content);
        let channel = message.get("sender_chat").is_some();
        if let Some(chat) = self.chats.get_mut(&chat_id) {
            chat.bot_spoke_last = false;
        }
        let kind = if channel { "channel_post" } else { "message" };
        let update = if hears { self.update(now, kind, chat_id, message.clone(), out) } else { None };
        Ok(json!({"message_id": message["message_id"], "update_id": update, "message": message}))
    }

    /// Privacy mode: <https://core.telegram.org/bots/features#privacy-mode>
    fn hears(&self, chat_id: i64, content: &Map<String, Value>) -> bool {
        let Some(chat) = self.chats.get(&chat_id) else { return false };
        let group = matches!(chat.info.get("type").and_then(Value::as_str), Some("group" | "supergroup"));
        if !group || !self.privacy || chat.admin {
            return true;
        }
        let text =
            ["text", "caption"].iter().find_map(|name| content.get(*name)?.as_str()).unwrap_or_default();
        let me = format!("@{}", self.bot["username"].as_str().unwrap_or_default()).to_ascii_lowercase();
        let lower = text.to_ascii_lowercase();
        if lower
            .split(|c: char| !(c.is_ascii_alphanumeric() || "@_".contains(c)))
            .any(|word| word.ends_with(&me))
        {
            return true;
        }
        let command = text.starts_with('/') && !text.split(' ').next().unwrap_or_default().contains('@');
        let service = ["new_chat_members", "left_chat_member", "pinned_message", "forum_topic_created"];
        command && chat.bot_spoke_last
            || content.get("reply_to_message").is_some_and(|reply| reply["from"]["id"] == self.bot["id"])
            || service.iter().any(|name| content.contains_key(*name))
    }
}

impl Platform for Telegram {
    fn rules(&self) -> &'static [Rule] {
        RULES
    }

    fn on(&mut self, now: Now, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Request { id, request } => self.request(now, id, &request, &mut out),
            Input::Upgrade { id, .. } => {
                out.push(Output::Answer { id, response: failure(404, "Not Found").response() });
            }
            Input::Gone { id, .. } => {
                self.poll.take_if(|poll| poll.id == id);
                self.delayed.retain(|key, _| key.1 != id);
            }
            Input::Called { id, response } => self.called(now, id, response.as_ref(), &mut out),
            Input::Tick => self.tick(now, &mut out),
            Input::Frame { .. } => {}
        }
        out
    }

    fn wake(&self) -> Option<u64> {
        let retry = self.webhook.as_ref().and_then(|_| {
            let waiting =
                self.updates.iter().filter(|update| update.in_flight.is_none() && update.next_try > 0);
            waiting.map(|update| update.next_try).min()
        });
        let late = self.updates.iter().filter_map(|update| update.in_flight).min();
        let expiry = self.updates.front().map(|update| update.at + DAY_MS);
        let delayed = self.delayed.keys().next().map(|key| key.0);
        [self.poll.as_ref().map(|poll| poll.due), delayed, retry, late, expiry].into_iter().flatten().min()
    }

    /// - `user` `{id, first_name?, username?, is_bot?}`
    /// - `chat` `{id, type, title?, username?, is_forum?, admin?}`; `topic` `{chat, name}`; `migrate` `{chat, to}`
    /// - `message` `{chat?, from?, text?, entities?, thread?, reply_to?, media?: {kind, name?, mime?, base64? | size?},
    ///   media_group?, extra?}` gives `{message_id, update_id, message}`; `update_id` is null if privacy mode hides it
    /// - `edit` `{chat, message_id, text}`; `react` `{chat, message_id, from?, emoji}`
    /// - `press` `{chat, message_id, from?, data}` gives `{id}` of the callback query
    /// - `block`, `unblock` `{chat}`; `flood` `{chat?, seconds}`: that chat, or all, refuses for so long
    fn control(
        &mut self,
        now: Now,
        action: &str,
        arguments: &Value,
        out: &mut Vec<Output>,
    ) -> Result<Value, String> {
        let chat_id = arguments["chat"].as_i64();
        let object = arguments.as_object().cloned().ok_or("the arguments are an object")?;
        let stored = |sim: &Self, chat: i64| -> Result<Value, String> {
            let id = arguments["message_id"].as_i64().ok_or("message_id is missing")?;
            let message = sim.chats.get(&chat).and_then(|chat| chat.messages.get(&id));
            message.cloned().ok_or_else(|| format!("there is no message {id} in {chat}"))
        };
        match action {
            "user" => {
                let id = arguments["id"].as_i64().ok_or("id is missing")?;
                let mut user = self.user(id);
                for (name, value) in object {
                    user[&name] = value;
                }
                self.users.insert(id, user.clone());
                Ok(user)
            }
            "chat" => {
                let mut info = object;
                let admin = info.shift_remove("admin").is_some_and(|admin| admin == true);
                if !info.contains_key("id") || !info.contains_key("type") {
                    return Err("a chat has an id and a type".into());
                }
                let id = self.add_chat(info);
                if let Some(chat) = self.chats.get_mut(&id) {
                    chat.admin = admin;
                }
                Ok(json!({"id": id}))
            }
            "topic" => {
                let name = arguments["name"].as_str().unwrap_or("Topic");
                let id = self.add_topic(now, chat_id.ok_or("chat is missing")?, name, false);
                Ok(json!({"thread": id.ok_or("there is no such chat")?}))
            }
            "migrate" => {
                let to = arguments["to"].as_i64().ok_or("to is missing")?;
                let chat =
                    self.chats.get_mut(&chat_id.ok_or("chat is missing")?).ok_or("there is no such chat")?;
                chat.migrated_to = Some(to);
                let mut info = chat.info.clone();
                info.insert("id".into(), json!(to));
                info.insert("type".into(), json!("supergroup"));
                self.add_chat(info);
                Ok(json!({"id": to}))
            }
            "message" => self.incoming(now, arguments, out),
            "edit" => {
                let chat = chat_id.ok_or("chat is missing")?;
                let mut message = stored(self, chat)?;
                let text = arguments["text"].as_str().ok_or("text is missing")?;
                message["text"] = json!(text);
                let entities = detected(text);
                set_or_remove(&mut message, "entities", (!entities.is_empty()).then(|| json!(entities)));
                message["edit_date"] = json!(now.unix_s());
                let id = message["message_id"].as_i64().unwrap_or(0);
                if let Some(known) = self.chats.get_mut(&chat) {
                    known.messages.insert(id, message.clone());
                }
                let update = self.update(now, "edited_message", chat, message, out);
                Ok(json!({"update_id": update}))
            }
            "react" => {
                let chat = chat_id.ok_or("chat is missing")?;
                let message = stored(self, chat)?;
                let user = self.user(arguments["from"].as_i64().unwrap_or(1001));
                let reaction = json!({
                    "chat": message["chat"], "message_id": message["message_id"], "user": user, "date": now.unix_s(),
                    "old_reaction": [], "new_reaction": [{"type": "emoji", "emoji": arguments["emoji"]}],
                });
                // Of groups, only administrators are told: https://core.telegram.org/bots/api#update
                let told = chat > 0 || self.chats.get(&chat).is_some_and(|chat| chat.admin);
                let update =
                    if told { self.update(now, "message_reaction", chat, reaction, out) } else { None };
                Ok(json!({"update_id": update}))
            }
            "press" => {
                let chat = chat_id.ok_or("chat is missing")?;
                let message = stored(self, chat)?;
                let data = arguments["data"].as_str().ok_or("data is missing")?;
                let rows = message["reply_markup"]["inline_keyboard"].as_array().cloned().unwrap_or_default();
                let there =
                    rows.iter().filter_map(Value::as_array).flatten().any(|key| key["callback_data"] == data);
                if !there {
                    return Err(format!("the message has no button with {data:?}"));
                }
                let id = self.chance.draw().to_string();
                let user = self.user(arguments["from"].as_i64().unwrap_or(1001));
                self.callbacks.insert(id.clone(), Callback { at: now.ms, answer: None });
                let query =
                    json!({"id": id, "from": user, "message": message, "chat_instance": "1", "data": data});
                let update = self.update(now, "callback_query", chat, query, out);
                Ok(json!({"id": id, "update_id": update}))
            }
            "block" => Ok(json!(self.blocked.insert(chat_id.ok_or("chat is missing")?))),
            "unblock" => Ok(json!(self.blocked.remove(&chat_id.ok_or("chat is missing")?))),
            "flood" => {
                let until = now.ms + 1000 * arguments["seconds"].as_u64().ok_or("seconds is missing")?;
                let flood = Flood { bucket: Bucket::new(30, 1000), until };
                self.floods.insert(chat_id.unwrap_or(0), flood);
                Ok(json!({}))
            }
            _ => Err(format!("telegram cannot do {action:?}")),
        }
    }

    fn refusal(&self, status: u16, retry_after_ms: Option<u64>) -> Response {
        match status {
            429 => {
                let seconds = retry_after_ms.unwrap_or(1000).div_ceil(1000);
                Failure {
                    code: 429,
                    description: format!("Too Many Requests: retry after {seconds}"),
                    parameters: Some(json!({"retry_after": seconds})),
                    rule: None,
                }
                .response()
            }
            // These come from in front of the Bot API.
            502..=504 => {
                Response::bytes(status, "text/html", b"<html><body>Bad Gateway</body></html>".to_vec())
            }
            500.. => failure(status, "Internal Server Error").response(),
            _ => failure(status, "refused").response(),
        }
    }

    fn state(&self) -> Value {
        let mut chats = Map::new();
        for (id, chat) in &self.chats {
            let topics: Map<String, Value> = chat
                .topics
                .iter()
                .map(|(id, topic)| (id.to_string(), json!({"name": topic.name, "closed": topic.closed})))
                .collect();
            chats.insert(
                id.to_string(),
                json!({
                    "info": chat.info, "messages": chat.messages.values().collect::<Vec<_>>(), "topics": topics,
                    "reactions": chat.reactions.iter().map(|(id, r)| (id.to_string(), r.clone())).collect::<Map<_, _>>(),
                    "actions": chat.actions,
                }),
            );
        }
        let callbacks: Map<String, Value> =
            self.callbacks.iter().map(|(id, callback)| (id.clone(), json!(callback.answer))).collect();
        json!({
            "chats": chats, "callbacks": callbacks, "commands": self.commands, "webhook": self.webhook_info(),
            "pending": self.updates.iter().map(|update| update.id).collect::<Vec<_>>(), "polling": self.poll.is_some(),
        })
    }
}

fn first(messages: Vec<Value>) -> Value {
    messages.into_iter().next().unwrap_or(Value::Null)
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn set_or_remove(message: &mut Value, name: &str, value: Option<Value>) {
    if let Some(map) = message.as_object_mut() {
        match value {
            Some(value) => drop(map.insert(name.into(), value)),
            None => drop(map.shift_remove(name)),
        }
    }
}

/// A message within another has no further one within.
fn shallow(message: &Value) -> Value {
    let mut inner = message.clone();
    set_or_remove(&mut inner, "reply_to_message", None);
    inner
}

/// A text with its entities: parsed, trimmed, and within the limit.
fn formatted(
    arguments: &Arguments,
    field: &str,
    entities_field: &str,
    limit: usize,
    rule: &'static str,
) -> Outcome<(String, Vec<Value>)> {
    let source = arguments.text(field).unwrap_or_default();
    let mode = arguments.text("parse_mode").unwrap_or_default();
    let (text, mut entities) = match mode.to_ascii_lowercase().as_str() {
        "html" => html::parse(&source)
            .map_err(|why| bad(format!("can't parse entities: {why}")).breaks("telegram.entities"))?,
        "" | "none" => {
            let given = arguments.nested(entities_field)?.unwrap_or_else(|| json!([]));
            let list = given.as_array().cloned().unwrap_or_default();
            let length = utf16(&source) as u64;
            for entity in &list {
                let number = |name: &str| entity[name].as_u64();
                let (Some(offset), Some(size)) = (number("offset"), number("length")) else {
                    return Err(bad("can't parse MessageEntity: offset and length are numbers")
                        .breaks("telegram.entities"));
                };
                if offset + size > length {
                    let why = format!(
                        "entity beginning at UTF-16 offset {offset} ends after the end of the text at UTF-16 offset {}",
                        offset + size
                    );
                    return Err(bad(why).breaks("telegram.entities"));
                }
            }
            (source, list)
        }
        // Markdown is not simulated; our own client does not use it.
        _ => return Err(bad("unsupported parse_mode").breaks("telegram.entities")),
    };
    let trimmed_end = text.trim_end();
    let start = trimmed_end.len() - trimmed_end.trim_start().len();
    let shift = utf16(&trimmed_end[..start]) as u64;
    let text = trimmed_end[start..].to_owned();
    let length = utf16(&text) as u64;
    if length > limit as u64 {
        let what = if field == "text" { "message is too long" } else { "message caption is too long" };
        return Err(bad(what).breaks(rule));
    }
    entities.retain_mut(|entity| {
        let (offset, size) = (entity["offset"].as_u64().unwrap_or(0), entity["length"].as_u64().unwrap_or(0));
        let begin = offset.saturating_sub(shift);
        let end = (offset + size).saturating_sub(shift).min(length);
        entity["offset"] = json!(begin);
        entity["length"] = json!(end.saturating_sub(begin));
        end > begin
    });
    Ok((text, entities))
}

fn caption(arguments: &Arguments, content: &mut Map<String, Value>) -> Outcome<()> {
    let (text, entities) =
        formatted(arguments, "caption", "caption_entities", 1024, "telegram.caption-length")?;
    if !text.is_empty() {
        content.insert("caption".into(), json!(text));
        if !entities.is_empty() {
            content.insert("caption_entities".into(), json!(entities));
        }
    }
    Ok(())
}

fn check_markup(markup: &Value) -> Outcome<()> {
    let rows = markup["inline_keyboard"].as_array();
    for key in rows.into_iter().flatten().filter_map(Value::as_array).flatten() {
        if key["text"].as_str().unwrap_or_default().is_empty() {
            return Err(bad("can't parse inline keyboard button: Text must be non-empty"));
        }
        if let Some(data) = key.get("callback_data") {
            let length = data.as_str().map_or(0, str::len);
            if !(1..=64).contains(&length) {
                return Err(bad("BUTTON_DATA_INVALID").breaks("telegram.callback-data"));
            }
        } else if key.as_object().is_some_and(|key| key.len() < 2) {
            return Err(bad(
                "can't parse inline keyboard button: Text buttons are unallowed in the inline keyboard",
            ));
        }
    }
    Ok(())
}

fn command_scope(arguments: &Arguments) -> Outcome<String> {
    let scope = arguments.nested("scope")?.unwrap_or_else(|| json!({"type": "default"}));
    Ok(format!("{scope} {}", arguments.text("language_code").unwrap_or_default()))
}

/// Commands, mentions and addresses, which Telegram marks by itself.
fn detected(text: &str) -> Vec<Value> {
    let mut entities = Vec::new();
    let mut offset = 0;
    for word in text.split_inclusive(char::is_whitespace) {
        let bare = word.trim_end();
        let name_end = |from: usize| {
            bare[from..]
                .find(|c: char| !(c.is_ascii_alphanumeric() || "_@".contains(c)))
                .map_or(bare.len(), |at| from + at)
        };
        let found = if bare.starts_with('/') && bare.len() > 1 {
            Some(("bot_command", name_end(1)))
        } else if bare.starts_with('@') && bare.len() > 1 {
            Some(("mention", name_end(1)))
        } else if bare.starts_with("https://") || bare.starts_with("http://") {
            Some(("url", bare.len()))
        } else {
            None
        };
        if let Some((kind, end)) = found.filter(|found| found.1 > 1) {
            entities.push(json!({"type": kind, "offset": offset, "length": utf16(&bare[..end])}));
        }
        offset += utf16(word);
    }
    entities
}

fn is_image(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\xFF\xD8\xFF")
        || bytes.starts_with(b"\x89PNG\r\n\x1a\n")
        || bytes.starts_with(b"GIF8")
        || bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP")
        || bytes.starts_with(b"BM")
}
