//! signal-cli's HTTP daemon, for one account. <https://github.com/AsamK/signal-cli/blob/master/man/signal-cli-jsonrpc.5.adoc>
//!
//! `POST /api/v1/rpc` is JSON-RPC 2.0, `GET /api/v1/events` the messages that come, as Server-Sent Events, `GET
//! /api/v1/check` says that it runs. Options: `account` (default `+15550000000`), `receive_mode` (`on-start`, the default:
//! what comes while nobody listens is gone; `on-connection`: it waits), `keep_alive_ms` (default 15000), `burst` and
//! `per_ms` (messages at once, and the wait for one more; default 50 and 1000), `limits` (false: none), `seed`.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use crate::platform::{Bucket, Chance, Id, Input, Now, Output, Platform, Rule};
use crate::wire::{Request, Response};

const RULES: &[Rule] = &[
    Rule {
        id: "signal.json-rpc",
        text: "Calls are JSON-RPC 2.0 objects, with the version, a method and named parameters.",
        source: "https://www.jsonrpc.org/specification",
    },
    Rule {
        id: "signal.method",
        text: "Methods are signal-cli's commands, parameters their options in camel case.",
        source: "https://github.com/AsamK/signal-cli/blob/master/man/signal-cli-jsonrpc.5.adoc",
    },
    Rule {
        id: "signal.http",
        text: "Calls are POSTs of application/json to /api/v1/rpc.",
        source: "https://github.com/AsamK/signal-cli/blob/master/man/signal-cli-jsonrpc.5.adoc",
    },
    Rule {
        id: "signal.listener",
        text: "In the mode on-start, what comes while nobody reads /api/v1/events is gone; in on-connection it waits.",
        source: "https://github.com/AsamK/signal-cli/blob/master/man/signal-cli.1.adoc",
    },
    Rule {
        id: "signal.recipient",
        text: "A message goes to a number, a UUID, a user name or a group that exists.",
        source: "https://github.com/AsamK/signal-cli/blob/master/man/signal-cli.1.adoc",
    },
    Rule {
        id: "signal.content",
        text: "A message has a text or attachments; an attachment is a file's path or a data URI.",
        source: "https://github.com/AsamK/signal-cli/blob/master/man/signal-cli.1.adoc",
    },
    Rule {
        id: "signal.rate-limit",
        text: "After the error -5 nothing is sent for a while.",
        source: "https://github.com/AsamK/signal-cli/wiki/FAQ",
    },
];

/// The codes of signal-cli's own errors, beside those of JSON-RPC.
const USER_ERROR: i64 = -1;
const RATE_LIMIT: i64 = -5;

/// An account, and who writes to it.
pub struct Signal {
    account: String,
    on_connection: bool,
    keep_alive_ms: u64,
    limits: bool,
    chance: Chance,
    listeners: BTreeMap<Id, u64>,
    waiting: VecDeque<Value>,
    gone: Vec<Value>,
    unregistered: BTreeSet<String>,
    groups: BTreeMap<String, Value>,
    attachments: BTreeMap<String, Vec<u8>>,
    sent: Vec<Value>,
    reactions: Vec<Value>,
    typing: Vec<Value>,
    receipts: Vec<Value>,
    last_timestamp: u64,
    bucket: Bucket,
    limited_until: u64,
}

struct Failure {
    code: i64,
    message: String,
    data: Value,
    rule: Option<&'static str>,
}

fn failure(code: i64, message: impl Into<String>) -> Failure {
    Failure { code, message: message.into(), data: Value::Null, rule: None }
}

impl Failure {
    fn breaks(self, rule: &'static str) -> Self {
        Self { rule: Some(rule), ..self }
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// One, or a list of several.
fn list(value: &Value) -> Vec<String> {
    match value {
        Value::String(one) => vec![one.clone()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

impl Signal {
    pub fn new(options: &Value) -> Result<Self, String> {
        let number = |name: &str, default: u64| options[name].as_u64().unwrap_or(default);
        let mode = options["receive_mode"].as_str().unwrap_or("on-start");
        if !["on-start", "on-connection"].contains(&mode) {
            return Err(format!("receive_mode {mode:?} is not simulated"));
        }
        Ok(Self {
            account: options["account"].as_str().unwrap_or("+15550000000").into(),
            on_connection: mode == "on-connection",
            keep_alive_ms: number("keep_alive_ms", 15_000),
            limits: options["limits"].as_bool().unwrap_or(true),
            chance: Chance(number("seed", 1)),
            listeners: BTreeMap::new(),
            waiting: VecDeque::new(),
            gone: Vec::new(),
            unregistered: BTreeSet::new(),
            groups: BTreeMap::new(),
            attachments: BTreeMap::new(),
            sent: Vec::new(),
            reactions: Vec::new(),
            typing: Vec::new(),
            receipts: Vec::new(),
            last_timestamp: 0,
            bucket: Bucket::with_burst(number("burst", 50), 1, number("per_ms", 1000)),
            limited_until: 0,
        })
    }

    /// In milliseconds; with the sender, it is a message's name.
    fn timestamp(&mut self, now: Now) -> u64 {
        self.last_timestamp = (self.last_timestamp + 1).max(now.unix_ms);
        self.last_timestamp
    }

    fn request(&mut self, now: Now, id: Id, request: &Request, out: &mut Vec<Output>) {
        let mut answer = |response: Response| out.push(Output::Answer { id, response });
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/api/v1/check") => answer(Response { status: 200, ..Response::default() }),
            ("GET", "/api/v1/events") => {
                if request.query("account").is_some_and(|account| account != self.account) {
                    return answer(Response::bytes(400, "text/plain", b"Unknown account".to_vec()));
                }
                let response = Response { status: 200, ..Response::default() };
                let response = response.header("content-type", "text/event-stream");
                out.push(Output::Stream { id, response });
                self.listeners.insert(id, now.ms + self.keep_alive_ms);
                while let Some(event) = self.waiting.pop_front() {
                    self.tell(&event, out);
                }
            }
            ("POST", "/api/v1/rpc") => {
                let kind = request.get("content-type").unwrap_or_default();
                if !kind.starts_with("application/json") {
                    let what = format!("a call of type {kind:?}");
                    out.push(Output::Violation { rule: "signal.http", what });
                    let response = Response { status: 415, ..Response::default() };
                    return out.push(Output::Answer { id, response });
                }
                let response = self.rpc(now, &request.body, out);
                out.push(Output::Answer { id, response });
            }
            (_, "/api/v1/check" | "/api/v1/events" | "/api/v1/rpc") => {
                answer(Response { status: 405, ..Response::default() });
            }
            _ => answer(Response { status: 404, ..Response::default() }),
        }
    }

    fn rpc(&mut self, now: Now, body: &[u8], out: &mut Vec<Output>) -> Response {
        let Ok(parsed) = serde_json::from_slice::<Value>(body) else {
            out.push(Output::Violation { rule: "signal.json-rpc", what: "a call that is no JSON".into() });
            let error = json!({"code": -32700, "message": "Parse error"});
            return Response::json(200, &json!({"jsonrpc": "2.0", "error": error, "id": null}));
        };
        let batch = parsed.is_array();
        let calls = if batch { parsed.as_array().cloned().unwrap_or_default() } else { vec![parsed] };
        let mut answers: Vec<Value> = calls.iter().filter_map(|call| self.one(now, call, out)).collect();
        match (batch, answers.pop()) {
            // To a notification there is no answer.
            (_, None) => Response { status: 201, ..Response::default() },
            (false, Some(answer)) => Response::json(200, &answer),
            (true, Some(last)) => {
                answers.push(last);
                Response::json(200, &json!(answers))
            }
        }
    }

    fn one(&mut self, now: Now, call: &Value, out: &mut Vec<Output>) -> Option<Value> {
        let id = call.get("id").cloned();
        let valid = call["jsonrpc"] == "2.0"
            && call["method"].is_string()
            && (call["params"].is_null() || call["params"].is_object());
        let result = if valid {
            let params = call["params"].clone();
            self.call(now, text(call, "method"), &params)
        } else {
            Err(failure(-32600, "Invalid request").breaks("signal.json-rpc"))
        };
        if let Err(Failure { rule: Some(rule), message, .. }) = &result {
            out.push(Output::Violation { rule, what: format!("{}: {message}", call["method"]) });
        }
        let id = id?;
        Some(match result {
            Ok(result) => json!({"jsonrpc": "2.0", "result": result, "id": id}),
            Err(failed) => {
                let error = json!({"code": failed.code, "message": failed.message, "data": failed.data});
                json!({"jsonrpc": "2.0", "error": error, "id": id})
            }
        })
    }

    fn call(&mut self, now: Now, method: &str, params: &Value) -> Result<Value, Failure> {
        if params["account"].as_str().is_some_and(|account| account != self.account) {
            return Err(failure(-32602, "Specified account does not exist").breaks("signal.method"));
        }
        match method {
            "version" => Ok(json!({"version": "0.13.22"})),
            "send" => self.send(now, params),
            "sendReaction" => {
                self.recipients(params)?;
                let whole = params["emoji"].is_string() && params["targetAuthor"].is_string() && params["targetTimestamp"].is_u64();
                if !whole {
                    return Err(failure(USER_ERROR, "emoji, targetAuthor and targetTimestamp are required").breaks("signal.method"));
                }
                self.reactions.push(params.clone());
                Ok(json!({"timestamp": self.timestamp(now), "results": []}))
            }
            "sendTyping" => {
                self.recipients(params)?;
                self.typing.push(params.clone());
                Ok(json!({"timestamp": self.timestamp(now), "results": []}))
            }
            "sendReceipt" => {
                self.receipts.push(params.clone());
                Ok(json!({"timestamp": self.timestamp(now), "results": []}))
            }
            "remoteDelete" => {
                let target = params["targetTimestamp"].as_u64().unwrap_or(0);
                self.sent.retain(|message| message["timestamp"] != target);
                Ok(json!({"timestamp": self.timestamp(now), "results": []}))
            }
            "getAttachment" => {
                let bytes = self.attachments.get(text(params, "id"));
                let bytes = bytes.ok_or_else(|| failure(USER_ERROR, "Could not find attachment with ID"))?;
                Ok(json!({"data": BASE64.encode(bytes)}))
            }
            "listGroups" => Ok(json!(self.groups.values().collect::<Vec<_>>())),
            "listAccounts" => Ok(json!([{"number": self.account}])),
            "getUserStatus" => Ok(json!(
                list(&params["recipient"])
                    .iter()
                    .map(|user| json!({"recipient": user, "number": user, "isRegistered": !self.unregistered.contains(user)}))
                    .collect::<Vec<_>>()
            )),
            _ => Err(failure(-32601, "Method not implemented").breaks("signal.method")),
        }
    }

    /// Those that a call is for; a group, or people.
    fn recipients(&self, params: &Value) -> Result<Vec<String>, Failure> {
        let groups = list(&params["groupId"]);
        let mut people = list(&params["recipient"]);
        people.extend(list(&params["username"]));
        if params["recipients"].is_array() {
            return Err(failure(USER_ERROR, "Unknown parameter recipients").breaks("signal.method"));
        }
        if groups.is_empty() && people.is_empty() {
            return Err(failure(USER_ERROR, "No recipients given").breaks("signal.recipient"));
        }
        for group in &groups {
            if !self.groups.contains_key(group) {
                return Err(failure(USER_ERROR, format!("Failed to send message: Group not found: {group}"))
                    .breaks("signal.recipient"));
            }
        }
        for person in &people {
            let number = person
                .strip_prefix('+')
                .is_some_and(|digits| digits.len() >= 7 && digits.bytes().all(|byte| byte.is_ascii_digit()));
            let uuid = person.len() == 36 && person.split('-').count() == 5;
            if !number && !uuid && !person.contains('.') {
                return Err(
                    failure(USER_ERROR, format!("Invalid phone number {person}")).breaks("signal.recipient")
                );
            }
        }
        Ok(groups.into_iter().chain(people).collect())
    }

    fn send(&mut self, now: Now, params: &Value) -> Result<Value, Failure> {
        let recipients = self.recipients(params)?;
        let message = text(params, "message");
        let files = list(&params["attachments"]).into_iter().chain(list(&params["attachment"]));
        let files: Vec<String> = files.collect();
        if message.is_empty() && files.is_empty() {
            return Err(
                failure(USER_ERROR, "No message text, attachment or sticker given").breaks("signal.content")
            );
        }
        for file in &files {
            let data = file
                .strip_prefix("data:")
                .and_then(|rest| rest.split_once(";base64,").or_else(|| rest.split_once(",")));
            let bytes = match data {
                Some((_, encoded)) => BASE64.decode(encoded.as_bytes()).ok(),
                // A path; what is there is not looked at.
                None => file.starts_with('/').then(Vec::new),
            };
            if bytes.is_none() {
                return Err(failure(USER_ERROR, "Failed to add attachment").breaks("signal.content"));
            }
        }
        // "START:LENGTH:STYLE", in UTF-16 units.
        let length = message.encode_utf16().count();
        for style in list(&params["textStyle"]).into_iter().chain(list(&params["textStyles"])) {
            let parts: Vec<&str> = style.split(':').collect();
            let number = |at: usize| parts.get(at).and_then(|part| part.parse::<usize>().ok());
            let known = parts.get(2).is_some_and(|style| {
                ["BOLD", "ITALIC", "SPOILER", "STRIKETHROUGH", "MONOSPACE"].contains(style)
            });
            let within = number(0).zip(number(1)).is_some_and(|(start, size)| start + size <= length);
            if parts.len() != 3 || !known || !within {
                return Err(
                    failure(USER_ERROR, format!("Invalid textStyle {style}")).breaks("signal.content")
                );
            }
        }
        if self.limits {
            let early = now.ms < self.limited_until;
            let wait = if early { self.limited_until - now.ms } else { self.bucket.wait(now.ms) };
            if wait > 0 {
                self.limited_until = self.limited_until.max(now.ms + wait);
                let mut failed = failure(RATE_LIMIT, "Failed to send message due to rate limiting");
                failed.data = json!({"response": {"results": [{"type": "RATE_LIMIT_FAILURE", "retryAfterSeconds": wait.div_ceil(1000)}]}});
                return Err(if early { failed.breaks("signal.rate-limit") } else { failed });
            }
            self.bucket.take(now.ms);
        }
        let timestamp = self.timestamp(now);
        let results: Vec<Value> = recipients
            .iter()
            .map(|recipient| {
                let kind =
                    if self.unregistered.contains(recipient) { "UNREGISTERED_FAILURE" } else { "SUCCESS" };
                json!({"recipientAddress": {"uuid": null, "number": recipient}, "type": kind})
            })
            .collect();
        if results.iter().all(|result| result["type"] != "SUCCESS") {
            let mut failed = failure(USER_ERROR, "Failed to send message");
            failed.data = json!({"response": {"timestamp": timestamp, "results": results}});
            return Err(failed);
        }
        let mut sent = params.clone();
        sent["timestamp"] = json!(timestamp);
        self.sent.push(sent);
        Ok(json!({"timestamp": timestamp, "results": results}))
    }

    /// To everybody who listens.
    fn tell(&self, event: &Value, out: &mut Vec<Output>) {
        let chunk = format!("event:receive\ndata:{event}\n\n").into_bytes();
        for id in self.listeners.keys() {
            out.push(Output::Chunk { id: *id, label: "receive".into(), bytes: chunk.clone() });
        }
    }

    fn envelope(&mut self, now: Now, from: &str, extra: Map<String, Value>, out: &mut Vec<Output>) -> u64 {
        let timestamp = self.timestamp(now);
        let digits: String = from.chars().filter(char::is_ascii_digit).collect();
        let mut envelope = json!({
            "source": from, "sourceNumber": from, "sourceUuid": format!("00000000-0000-4000-8000-{digits:0>12.12}"),
            "sourceName": format!("User {from}"), "sourceDevice": 1, "timestamp": timestamp,
            "serverReceivedTimestamp": timestamp, "serverDeliveredTimestamp": timestamp,
        });
        for (name, mut value) in extra {
            if value.get("timestamp").is_some() {
                value["timestamp"] = json!(timestamp);
            }
            envelope[&name] = value;
        }
        let event = json!({"envelope": envelope, "account": self.account});
        if !self.listeners.is_empty() {
            self.tell(&event, out);
        } else if self.on_connection {
            self.waiting.push_back(event);
        } else {
            self.gone.push(event);
        }
        timestamp
    }
}

impl Platform for Signal {
    fn rules(&self) -> &'static [Rule] {
        RULES
    }

    fn on(&mut self, now: Now, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Request { id, request } => self.request(now, id, &request, &mut out),
            Input::Upgrade { id, .. } => {
                out.push(Output::Answer { id, response: Response { status: 404, ..Response::default() } });
            }
            Input::Gone { id, .. } => drop(self.listeners.remove(&id)),
            Input::Tick => {
                for (id, next) in &mut self.listeners {
                    if *next <= now.ms {
                        *next = now.ms + self.keep_alive_ms;
                        out.push(Output::Chunk {
                            id: *id,
                            label: "keep-alive".into(),
                            bytes: b":\n".to_vec(),
                        });
                    }
                }
            }
            Input::Frame { .. } | Input::Called { .. } => {}
        }
        out
    }

    fn wake(&self) -> Option<u64> {
        self.listeners.values().min().copied()
    }

    /// - `group` `{id, name?}`; `unregister` `{number}`; `limit` `{ms}`
    /// - `message` `{from?, text?, group?, quote?: {timestamp, author}, mentions?, files?: [{name?, mime?, base64? | size?}]}`
    ///   gives `{timestamp}`
    /// - `edit` `{from?, target, text, group?}`; `react` `{from?, emoji, author, target, remove?, group?}`; `delete` `{from?, target}`
    /// - `typing` `{from?}`; `receipt` `{from?, timestamps}`
    /// - `end`: every stream of events ends
    fn control(
        &mut self,
        now: Now,
        action: &str,
        arguments: &Value,
        out: &mut Vec<Output>,
    ) -> Result<Value, String> {
        let from = arguments["from"].as_str().unwrap_or("+15551111111").to_owned();
        let mut data = json!({"timestamp": 0, "message": null, "expiresInSeconds": 0, "viewOnce": false});
        if let Some(group) = arguments["group"].as_str() {
            let known = self.groups.get(group).ok_or_else(|| format!("there is no group {group:?}"))?;
            data["groupInfo"] =
                json!({"groupId": group, "groupName": known["name"], "revision": 1, "type": "DELIVER"});
        }
        let mut extra = Map::new();
        match action {
            "group" => {
                let id = text(arguments, "id").to_owned();
                let group =
                    json!({"id": id, "name": arguments["name"], "isMember": true, "isBlocked": false});
                self.groups.insert(id, group.clone());
                return Ok(group);
            }
            "unregister" => {
                self.unregistered.insert(text(arguments, "number").into());
                return Ok(json!({}));
            }
            "limit" => {
                self.limited_until = now.ms + arguments["ms"].as_u64().ok_or("ms is missing")?;
                return Ok(json!({}));
            }
            "end" => {
                let ids: Vec<Id> = std::mem::take(&mut self.listeners).into_keys().collect();
                out.extend(ids.iter().map(|id| Output::End { id: *id }));
                return Ok(json!({"listeners": ids.len()}));
            }
            "message" => {
                data["message"] = arguments["text"].clone();
                if let Some(quote) = arguments.get("quote") {
                    data["quote"] = json!({"id": quote["timestamp"], "author": quote["author"], "authorNumber": quote["author"],
                        "text": text(quote, "text"), "attachments": []});
                }
                if let Some(mentions) = arguments.get("mentions") {
                    data["mentions"] = mentions.clone();
                }
                let mut attachments = Vec::new();
                for file in arguments["files"].as_array().into_iter().flatten() {
                    let bytes = match file["base64"].as_str() {
                        Some(text) => BASE64.decode(text.as_bytes()).map_err(|error| error.to_string())?,
                        None => {
                            vec![0x5A; usize::try_from(file["size"].as_u64().unwrap_or(16)).unwrap_or(16)]
                        }
                    };
                    let id = format!("{}.bin", self.chance.hex(20));
                    attachments.push(json!({"id": id, "filename": file["name"], "size": bytes.len(),
                        "contentType": file["mime"].as_str().unwrap_or("application/octet-stream")}));
                    self.attachments.insert(id, bytes);
                }
                if !attachments.is_empty() {
                    data["attachments"] = json!(attachments);
                }
                extra.insert("dataMessage".into(), data);
            }
            "edit" => {
                data["message"] = arguments["text"].clone();
                let edit = json!({"targetSentTimestamp": arguments["target"], "dataMessage": data});
                extra.insert("editMessage".into(), edit);
            }
            "delete" => {
                data["remoteDelete"] = json!({"timestamp": arguments["target"]});
                extra.insert("dataMessage".into(), data);
            }
            "react" => {
                data["reaction"] = json!({
                    "emoji": arguments["emoji"], "targetAuthor": arguments["author"], "targetAuthorNumber": arguments["author"],
                    "targetSentTimestamp": arguments["target"], "isRemove": arguments["remove"] == true,
                });
                extra.insert("dataMessage".into(), data);
            }
            "typing" => {
                extra.insert("typingMessage".into(), json!({"action": "STARTED", "timestamp": 0}));
            }
            "receipt" => {
                let receipt = json!({"when": now.unix_ms, "isDelivery": true, "isRead": false, "isViewed": false,
                    "timestamps": arguments["timestamps"]});
                extra.insert("receiptMessage".into(), receipt);
            }
            _ => return Err(format!("signal cannot do {action:?}")),
        }
        Ok(json!({"timestamp": self.envelope(now, &from, extra, out)}))
    }

    fn refusal(&self, status: u16, retry_after_ms: Option<u64>) -> Response {
        if status == 429 {
            let seconds = retry_after_ms.unwrap_or(1000).div_ceil(1000);
            let data = json!({"response": {"results": [{"type": "RATE_LIMIT_FAILURE", "retryAfterSeconds": seconds}]}});
            let error = json!({"code": RATE_LIMIT, "message": "Failed to send message due to rate limiting", "data": data});
            return Response::json(200, &json!({"jsonrpc": "2.0", "error": error, "id": null}));
        }
        Response { status, ..Response::default() }
    }

    fn state(&self) -> Value {
        json!({
            "sent": self.sent, "reactions": self.reactions, "typing": self.typing, "receipts": self.receipts,
            "listeners": self.listeners.len(), "waiting": self.waiting.len(), "gone": self.gone,
        })
    }
}
