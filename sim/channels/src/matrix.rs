//! Matrix: the Client-Server API of one homeserver, for one user. <https://spec.matrix.org/latest/client-server-api/>
//!
//! Rooms are not encrypted. Options: `user` (default `@sim:sim`), `password`, `token` (an access token that is valid from
//! the beginning; default `sim-token`), `upload_bytes` (default 50 MiB), `burst`, `per_ms` (messages at once, and the
//! wait for one more; default Synapse's, 10 and 5000), `limits` (false: none), `seed`.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use crate::platform::{Bucket, Chance, Id, Input, Now, Output, Platform, Rule};
use crate::wire::{Request, Response};

const RULES: &[Rule] = &[
    Rule {
        id: "matrix.access-token",
        text: "Requests name an access token that is valid.",
        source: "https://spec.matrix.org/latest/client-server-api/#using-access-tokens",
    },
    Rule {
        id: "matrix.sync-token",
        text: "since is a next_batch that a sync gave.",
        source: "https://spec.matrix.org/latest/client-server-api/#syncing",
    },
    Rule {
        id: "matrix.transaction",
        text: "A request that is repeated with the same transaction id has the same event, and another has another id.",
        source: "https://spec.matrix.org/latest/client-server-api/#transaction-identifiers",
    },
    Rule {
        id: "matrix.rate-limit",
        text: "After M_LIMIT_EXCEEDED nothing is sent before retry_after_ms is over.",
        source: "https://spec.matrix.org/latest/client-server-api/#rate-limiting",
    },
    Rule {
        id: "matrix.event-size",
        text: "An event has at most 65536 bytes.",
        source: "https://spec.matrix.org/latest/client-server-api/#size-limits",
    },
    Rule {
        id: "matrix.media-size",
        text: "An upload has at most m.upload.size bytes.",
        source: "https://spec.matrix.org/latest/client-server-api/#get_matrixclientv1mediaconfig",
    },
    Rule {
        id: "matrix.media-authentication",
        text: "Media is fetched from the endpoints that take an access token; the older ones are frozen.",
        source: "https://spec.matrix.org/latest/client-server-api/#content-repo-client-behaviour",
    },
    Rule {
        id: "matrix.membership",
        text: "Only who has joined a room can send to it.",
        source: "https://spec.matrix.org/latest/client-server-api/#room-membership",
    },
    Rule {
        id: "matrix.canonical-json",
        text: "Numbers in events are whole.",
        source: "https://spec.matrix.org/latest/appendices/#canonical-json",
    },
];

/// <https://spec.matrix.org/latest/client-server-api/#api-versions>
const VERSIONS: [&str; 16] = [
    "r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11",
    "v1.12", "v1.13", "v1.14", "v1.15",
];

#[derive(Default)]
struct Room {
    /// With the position in the stream of each.
    timeline: Vec<(u64, Value)>,
    typing: Vec<String>,
    typing_at: u64,
    read: BTreeMap<String, String>,
    direct: bool,
}

impl Room {
    /// The state as it was at that position.
    fn state(&self, until: u64) -> BTreeMap<(String, String), Value> {
        let events =
            self.timeline.iter().filter(|(at, event)| *at <= until && event.get("state_key").is_some());
        events
            .map(|(_, event)| ((text(event, "type").into(), text(event, "state_key").into()), event.clone()))
            .collect()
    }

    fn membership(&self, user: &str, until: u64) -> String {
        let key = ("m.room.member".to_owned(), user.to_owned());
        self.state(until)
            .get(&key)
            .map(|event| text(&event["content"], "membership").to_owned())
            .unwrap_or_default()
    }
}

struct Poll {
    since: Option<u64>,
    limit: usize,
    due: u64,
    token: String,
}

struct Device {
    id: String,
}

/// A homeserver, as one user sees it.
pub struct Matrix {
    user: String,
    password: String,
    upload_bytes: usize,
    limits: bool,
    chance: Chance,
    /// By access token.
    devices: BTreeMap<String, Device>,
    rooms: BTreeMap<String, Room>,
    profiles: BTreeMap<String, Value>,
    filters: Vec<Value>,
    account_data: BTreeMap<String, (u64, Value)>,
    media: BTreeMap<String, (String, Vec<u8>)>,
    position: u64,
    polls: BTreeMap<Id, Poll>,
    /// By access token, endpoint and transaction id: the event, and what was sent.
    transactions: HashMap<String, (String, String)>,
    bucket: Bucket,
    limited_until: u64,
}

struct Refusal {
    status: u16,
    body: Value,
    rule: Option<&'static str>,
}

type Outcome = Result<Value, Refusal>;

fn refuse(status: u16, code: &str, message: &str) -> Refusal {
    Refusal { status, body: json!({"errcode": code, "error": message}), rule: None }
}

impl Refusal {
    fn breaks(self, rule: &'static str) -> Self {
        Self { rule: Some(rule), ..self }
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_i64().is_none() && number.as_u64().is_none(),
        Value::Array(list) => list.iter().any(has_fraction),
        Value::Object(map) => map.values().any(has_fraction),
        _ => false,
    }
}

impl Matrix {
    pub fn new(options: &Value) -> Result<Self, String> {
        let word = |name: &str, default: &str| options[name].as_str().unwrap_or(default).to_owned();
        let number = |name: &str, default: u64| options[name].as_u64().unwrap_or(default);
        let user = word("user", "@sim:sim");
        let device = Device { id: "SIMDEVICE".into() };
        Ok(Self {
            password: word("password", "sim-password"),
            upload_bytes: usize::try_from(number("upload_bytes", 50 << 20))
                .map_err(|error| error.to_string())?,
            limits: options["limits"].as_bool().unwrap_or(true),
            chance: Chance(number("seed", 1)),
            devices: BTreeMap::from([(word("token", "sim-token"), device)]),
            rooms: BTreeMap::new(),
            profiles: BTreeMap::from([(user.clone(), json!({"displayname": "Sim"}))]),
            filters: Vec::new(),
            account_data: BTreeMap::new(),
            media: BTreeMap::new(),
            position: 1,
            polls: BTreeMap::new(),
            transactions: HashMap::new(),
            bucket: Bucket::with_burst(number("burst", 10), 1, number("per_ms", 5000)),
            limited_until: 0,
            user,
        })
    }

    fn server(&self) -> &str {
        self.user.split_once(':').map_or("sim", |(_, server)| server)
    }

    // ── requests ──────────────────────────────────────────────────────────────────────────────────────────────────

    fn request(&mut self, now: Now, id: Id, request: &Request, out: &mut Vec<Output>) {
        let path = request.path.clone();
        let path: Vec<&str> = path.split('/').skip(1).collect();
        let answered = match path.as_slice() {
            ["_matrix", "client", "versions"] => Ok(json!({"versions": VERSIONS, "unstable_features": {}})),
            ["_matrix", "client", "v3", "login"] => self.login(request),
            ["_matrix", "media", "v3" | "r0" | "v1", "download" | "thumbnail", ..] => {
                let refusal = refuse(404, "M_NOT_FOUND", "Unauthenticated media is frozen");
                Err(refusal.breaks("matrix.media-authentication"))
            }
            _ => match self.token(request) {
                Err(refusal) => Err(refusal),
                Ok(token) => match path.as_slice() {
                    ["_matrix", "client", "v3", "sync"] => match self.sync(now, id, &token, request, out) {
                        Ok(()) => return,
                        Err(refusal) => Err(refusal),
                    },
                    ["_matrix", "client", "v1", "media", "download" | "thumbnail", server, media, ..] => {
                        match self.media.get(*media).filter(|_| *server == self.server()) {
                            Some((kind, bytes)) => {
                                let response = Response::bytes(200, kind, bytes.clone());
                                out.push(Output::Answer { id, response });
                                return;
                            }
                            None => Err(refuse(404, "M_NOT_FOUND", "Media not found")),
                        }
                    }
                    ["_matrix", "media", "v3", "upload"] => self.upload(request),
                    ["_matrix", "client", "v1", "media", "config"] | ["_matrix", "media", "v3", "config"] => {
                        Ok(json!({"m.upload.size": self.upload_bytes}))
                    }
                    ["_matrix", "client", "v3" | "v1" | "r0", rest @ ..] => {
                        self.handle(now, &token, request, rest, out)
                    }
                    _ => Err(refuse(404, "M_UNRECOGNIZED", "Unrecognized request")),
                },
            },
        };
        let response = match answered {
            Ok(value) => Response::json(200, &value),
            Err(refusal) => {
                if let Some(rule) = refusal.rule {
                    let what = format!("{} {}: {}", request.method, request.path, refusal.body);
                    out.push(Output::Violation { rule, what });
                }
                let mut response = Response::json(refusal.status, &refusal.body);
                if let Some(ms) = refusal.body["retry_after_ms"].as_u64() {
                    response = response.header("retry-after", ms.div_ceil(1000));
                }
                response
            }
        };
        out.push(Output::Answer { id, response });
    }

    fn token(&self, request: &Request) -> Result<String, Refusal> {
        let Some(token) = request.bearer("Bearer").or_else(|| request.query("access_token")) else {
            return Err(refuse(401, "M_MISSING_TOKEN", "Missing access token").breaks("matrix.access-token"));
        };
        if self.devices.contains_key(token) {
            return Ok(token.into());
        }
        let mut refusal = refuse(401, "M_UNKNOWN_TOKEN", "Invalid access token passed.");
        refusal.body["soft_logout"] = json!(false);
        Err(refusal.breaks("matrix.access-token"))
    }

    fn login(&mut self, request: &Request) -> Outcome {
        if request.method == "GET" {
            return Ok(json!({"flows": [{"type": "m.login.password"}]}));
        }
        let body: Value = serde_json::from_slice(&request.body)
            .map_err(|_| refuse(400, "M_NOT_JSON", "Content not JSON."))?;
        let user = body["identifier"]["user"].as_str().or(body["user"].as_str()).unwrap_or_default();
        let local = self.user.trim_start_matches('@').split(':').next().unwrap_or_default();
        let known = user == self.user || user == local;
        if body["type"] != "m.login.password" {
            return Err(refuse(400, "M_UNKNOWN", "Unknown login type"));
        }
        if !known || text(&body, "password") != self.password {
            return Err(refuse(403, "M_FORBIDDEN", "Invalid username or password"));
        }
        let token = format!("syt_{}", self.chance.hex(32));
        let device =
            body["device_id"].as_str().map_or_else(|| self.chance.hex(10).to_uppercase(), str::to_owned);
        self.devices.insert(token.clone(), Device { id: device.clone() });
        Ok(
            json!({"user_id": self.user, "access_token": token, "device_id": device, "home_server": self.server()}),
        )
    }

    fn upload(&mut self, request: &Request) -> Outcome {
        if request.body.len() > self.upload_bytes {
            return Err(
                refuse(413, "M_TOO_LARGE", "Upload request body is too large").breaks("matrix.media-size")
            );
        }
        let kind = request.get("content-type").unwrap_or("application/octet-stream").to_owned();
        let id = self.store(&kind, request.body.clone());
        Ok(json!({"content_uri": format!("mxc://{}/{id}", self.server())}))
    }

    fn store(&mut self, kind: &str, bytes: Vec<u8>) -> String {
        let id = self.chance.hex(24);
        self.media.insert(id.clone(), (kind.into(), bytes));
        id
    }

    fn handle(
        &mut self,
        now: Now,
        token: &str,
        request: &Request,
        path: &[&str],
        out: &mut Vec<Output>,
    ) -> Outcome {
        let method = request.method.as_str();
        let body: Value = if request.body.is_empty() {
            json!({})
        } else {
            serde_json::from_slice(&request.body)
                .map_err(|_| refuse(400, "M_NOT_JSON", "Content not JSON."))?
        };
        let me = self.user.clone();
        match (method, path) {
            ("GET", ["account", "whoami"]) => Ok(
                json!({"user_id": me, "device_id": self.devices.get(token).map(|device| device.id.as_str())}),
            ),
            ("POST", ["logout"]) => {
                self.devices.remove(token);
                Ok(json!({}))
            }
            ("GET", ["capabilities"]) => Ok(
                json!({"capabilities": {"m.room_versions": {"default": "11", "available": {"11": "stable"}}}}),
            ),
            ("GET", ["pushrules", ..]) => Ok(
                json!({"global": {"override": [], "content": [], "room": [], "sender": [], "underride": []}}),
            ),
            ("GET", ["voip", "turnServer"]) | ("PUT", ["presence", ..]) => Ok(json!({})),
            ("POST", ["user", _, "filter"]) => {
                self.filters.push(body);
                Ok(json!({"filter_id": (self.filters.len() - 1).to_string()}))
            }
            ("GET", ["user", _, "filter", id]) => {
                let found = id.parse::<usize>().ok().and_then(|id| self.filters.get(id)).cloned();
                found.ok_or_else(|| refuse(404, "M_NOT_FOUND", "No such filter"))
            }
            ("PUT", ["user", _, "account_data", kind]) => {
                self.position += 1;
                self.account_data.insert((*kind).into(), (self.position, body));
                self.feed(now, out);
                Ok(json!({}))
            }
            ("GET", ["user", _, "account_data", kind]) => {
                let found = self.account_data.get(*kind).map(|(_, data)| data.clone());
                found.ok_or_else(|| refuse(404, "M_NOT_FOUND", "Account data not found"))
            }
            ("GET", ["profile", user, rest @ ..]) => {
                let profile = self
                    .profiles
                    .get(*user)
                    .ok_or_else(|| refuse(404, "M_NOT_FOUND", "Profile was not found"))?;
                Ok(rest.first().map_or_else(|| profile.clone(), |field| json!({*field: profile[*field]})))
            }
            ("PUT", ["profile", user, field]) => {
                let profile = self.profiles.entry((*user).into()).or_insert_with(|| json!({}));
                profile[*field] = body[*field].clone();
                Ok(json!({}))
            }
            ("GET", ["joined_rooms"]) => {
                let rooms = self.rooms.iter().filter(|(_, room)| room.membership(&me, u64::MAX) == "join");
                Ok(json!({"joined_rooms": rooms.map(|(id, _)| id).collect::<Vec<_>>()}))
            }
            ("POST", ["createRoom"]) => {
                let id = format!("!{}:{}", self.chance.hex(18), self.server());
                let direct = body["is_direct"] == true;
                self.make_room(now, &id, &me, text(&body, "name"), direct);
                for guest in body["invite"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    self.member(now, &id, &me, guest, "invite");
                }
                self.feed(now, out);
                Ok(json!({"room_id": id}))
            }
            ("POST", ["join", room] | ["rooms", room, "join"]) => {
                let was = self.rooms.get(*room).map(|known| known.membership(&me, u64::MAX));
                match was.as_deref() {
                    Some("invite" | "join") => {
                        if was.as_deref() == Some("invite") {
                            self.member(now, room, &me, &me, "join");
                        }
                        self.feed(now, out);
                        Ok(json!({"room_id": room}))
                    }
                    Some(_) => Err(refuse(403, "M_FORBIDDEN", "You are not invited to this room.")
                        .breaks("matrix.membership")),
                    None => Err(refuse(404, "M_NOT_FOUND", "Unknown room")),
                }
            }
            (_, ["rooms", room, rest @ ..]) => {
                let membership =
                    self.rooms.get(*room).map(|known| known.membership(&me, u64::MAX)).unwrap_or_default();
                let leaving = matches!(rest, ["leave" | "forget"]) && membership == "invite";
                if membership != "join" && !leaving {
                    let refusal = refuse(403, "M_FORBIDDEN", &format!("User {me} not in room {room}"));
                    return Err(refusal.breaks("matrix.membership"));
                }
                self.room(now, token, request, room, rest, &body, out)
            }
            _ => Err(refuse(404, "M_UNRECOGNIZED", "Unrecognized request")),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a request is made of")]
    fn room(
        &mut self,
        now: Now,
        token: &str,
        request: &Request,
        room: &str,
        path: &[&str],
        body: &Value,
        out: &mut Vec<Output>,
    ) -> Outcome {
        let me = self.user.clone();
        let unknown = || refuse(404, "M_NOT_FOUND", "Event not found.");
        match (request.method.as_str(), path) {
            ("PUT", ["send", kind, transaction]) => self.send(now, token, room, kind, transaction, body, out),
            ("PUT", ["redact", target, transaction]) => {
                let key = format!("{token} redact {room} {target} {transaction}");
                if let Some((event, _)) = self.transactions.get(&key) {
                    return Ok(json!({"event_id": event}));
                }
                let redaction =
                    self.redact(now, room, &me, target, text(body, "reason")).ok_or_else(unknown)?;
                self.transactions.insert(key, (redaction.clone(), String::new()));
                self.feed(now, out);
                Ok(json!({"event_id": redaction}))
            }
            ("PUT", ["state", kind, rest @ ..]) => {
                let key = rest.first().copied().unwrap_or_default();
                let event = self.add(now, room, &me, kind, body.clone(), Some(key), None);
                self.feed(now, out);
                Ok(json!({"event_id": event}))
            }
            ("GET", ["state"]) => {
                let known = self.rooms.get(room).ok_or_else(unknown)?;
                Ok(json!(known.state(u64::MAX).into_values().collect::<Vec<_>>()))
            }
            ("GET", ["state", kind, rest @ ..]) => {
                let key = ((*kind).to_owned(), rest.first().copied().unwrap_or_default().to_owned());
                let found = self.rooms.get(room).and_then(|known| known.state(u64::MAX).remove(&key));
                found.map(|event| event["content"].clone()).ok_or_else(unknown)
            }
            ("GET", ["joined_members" | "members"]) => {
                let known = self.rooms.get(room).ok_or_else(unknown)?;
                let members: Vec<Value> = known
                    .state(u64::MAX)
                    .into_iter()
                    .filter(|(key, _)| key.0 == "m.room.member")
                    .map(|(_, event)| event)
                    .collect();
                if path == ["members"] {
                    return Ok(json!({"chunk": members}));
                }
                let joined = members.iter().filter(|event| event["content"]["membership"] == "join");
                let map: Map<String, Value> = joined
                    .map(|event| {
                        (
                            text(event, "state_key").to_owned(),
                            json!({"display_name": event["content"]["displayname"]}),
                        )
                    })
                    .collect();
                Ok(json!({"joined": map}))
            }
            ("GET", ["event", event]) => {
                let known = self.rooms.get(room).ok_or_else(unknown)?;
                let found = known.timeline.iter().find(|(_, known)| text(known, "event_id") == *event);
                let mut event = found.map(|(_, event)| event.clone()).ok_or_else(unknown)?;
                event["room_id"] = json!(room);
                Ok(event)
            }
            ("GET", ["messages"]) => {
                let known = self.rooms.get(room).ok_or_else(unknown)?;
                let at = |name: &str| request.query(name).and_then(position_of);
                let limit = request.query("limit").and_then(|limit| limit.parse().ok()).unwrap_or(10);
                let with_room = |(at, event): &(u64, Value)| {
                    let mut event = event.clone();
                    event["room_id"] = json!(room);
                    (*at, event)
                };
                let forward = request.query("dir") == Some("f");
                let (from, to) = (at("from"), at("to"));
                let chosen: Vec<(u64, Value)> = if forward {
                    let within = |at: u64| from.is_none_or(|from| at > from) && to.is_none_or(|to| at <= to);
                    known.timeline.iter().filter(|event| within(event.0)).take(limit).map(with_room).collect()
                } else {
                    let within = |at: u64| from.is_none_or(|from| at <= from) && to.is_none_or(|to| at > to);
                    known
                        .timeline
                        .iter()
                        .rev()
                        .filter(|event| within(event.0))
                        .take(limit)
                        .map(with_room)
                        .collect()
                };
                let mut answer = json!({"start": request.query("from").unwrap_or_default(), "state": [],
                    "chunk": chosen.iter().map(|event| event.1.clone()).collect::<Vec<_>>()});
                if let Some((last, _)) = chosen.last().filter(|_| chosen.len() == limit) {
                    answer["end"] = json!(token_at(if forward { *last } else { *last - 1 }));
                }
                Ok(answer)
            }
            ("GET", ["relations", event, ..]) => {
                let known = self.rooms.get(room).ok_or_else(unknown)?;
                let related = known
                    .timeline
                    .iter()
                    .rev()
                    .filter(|(_, known)| known["content"]["m.relates_to"]["event_id"] == *event);
                Ok(json!({"chunk": related.map(|(_, event)| event).collect::<Vec<_>>()}))
            }
            ("PUT", ["typing", user]) => {
                self.position += 1;
                let position = self.position;
                let known = self.rooms.get_mut(room).ok_or_else(unknown)?;
                known.typing.retain(|known| known != user);
                if body["typing"] == true {
                    known.typing.push((*user).into());
                }
                known.typing_at = position;
                self.feed(now, out);
                Ok(json!({}))
            }
            ("POST", ["receipt", _, event]) => {
                let known = self.rooms.get_mut(room).ok_or_else(unknown)?;
                known.read.insert(me, (*event).into());
                Ok(json!({}))
            }
            ("POST", ["read_markers"]) => {
                let known = self.rooms.get_mut(room).ok_or_else(unknown)?;
                if let Some(event) = body["m.read"].as_str() {
                    known.read.insert(me, event.into());
                }
                Ok(json!({}))
            }
            ("POST", ["leave"]) => {
                self.member(now, room, &me, &me, "leave");
                self.feed(now, out);
                Ok(json!({}))
            }
            ("POST", ["invite"]) => {
                self.member(now, room, &me, text(body, "user_id"), "invite");
                self.feed(now, out);
                Ok(json!({}))
            }
            _ => Err(refuse(404, "M_UNRECOGNIZED", "Unrecognized request")),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a message is made of")]
    fn send(
        &mut self,
        now: Now,
        token: &str,
        room: &str,
        kind: &str,
        transaction: &str,
        content: &Value,
        out: &mut Vec<Output>,
    ) -> Outcome {
        let key = format!("{token} send {room} {kind} {transaction}");
        let sent = content.to_string();
        if let Some((event, before)) = self.transactions.get(&key) {
            if *before != sent {
                let what = format!("the transaction id {transaction} for something else");
                out.push(Output::Violation { rule: "matrix.transaction", what });
            }
            return Ok(json!({"event_id": event}));
        }
        if self.limits {
            let early = now.ms < self.limited_until;
            let wait = if early { self.limited_until - now.ms } else { self.bucket.wait(now.ms) };
            if wait > 0 {
                self.limited_until = self.limited_until.max(now.ms + wait);
                let mut refusal = refuse(429, "M_LIMIT_EXCEEDED", "Too Many Requests");
                refusal.body["retry_after_ms"] = json!(wait);
                return Err(if early { refusal.breaks("matrix.rate-limit") } else { refusal });
            }
        }
        if has_fraction(content) {
            return Err(refuse(400, "M_BAD_JSON", "Not canonical JSON").breaks("matrix.canonical-json"));
        }
        // What the homeserver adds takes some of it.
        if sent.len() > 65_536 - 500 {
            return Err(refuse(413, "M_TOO_LARGE", "event too large").breaks("matrix.event-size"));
        }
        if self.limits {
            self.bucket.take(now.ms);
        }
        let me = self.user.clone();
        let event = self.add(now, room, &me, kind, content.clone(), None, Some((token, transaction)));
        self.transactions.insert(key, (event.clone(), sent));
        self.feed(now, out);
        Ok(json!({"event_id": event}))
    }

    // ── rooms ─────────────────────────────────────────────────────────────────────────────────────────────────────

    #[expect(clippy::too_many_arguments, reason = "what an event is made of")]
    fn add(
        &mut self,
        now: Now,
        room: &str,
        sender: &str,
        kind: &str,
        content: Value,
        state_key: Option<&str>,
        by: Option<(&str, &str)>,
    ) -> String {
        self.position += 1;
        let id = format!("${}", self.chance.hex(40));
        let mut event = json!({
            "event_id": id, "type": kind, "sender": sender, "origin_server_ts": now.unix_ms, "content": content, "unsigned": {},
        });
        if let Some(key) = state_key {
            event["state_key"] = json!(key);
        }
        if let Some((token, transaction)) = by {
            // Told to the device that sent it, and to no other.
            event["sim_by"] = json!(token);
            event["sim_transaction"] = json!(transaction);
        }
        let position = self.position;
        self.rooms.entry(room.into()).or_default().timeline.push((position, event));
        id
    }

    fn make_room(&mut self, now: Now, id: &str, creator: &str, name: &str, direct: bool) {
        self.rooms.insert(id.into(), Room { direct, ..Room::default() });
        self.add(now, id, creator, "m.room.create", json!({"room_version": "11"}), Some(""), None);
        self.member(now, id, creator, creator, "join");
        let levels =
            json!({"users": {creator: 100}, "users_default": 0, "events_default": 0, "state_default": 50});
        self.add(now, id, creator, "m.room.power_levels", levels, Some(""), None);
        self.add(now, id, creator, "m.room.join_rules", json!({"join_rule": "invite"}), Some(""), None);
        if !name.is_empty() {
            self.add(now, id, creator, "m.room.name", json!({"name": name}), Some(""), None);
        }
    }

    fn member(&mut self, now: Now, room: &str, by: &str, user: &str, membership: &str) {
        let profile = self.profiles.entry(user.into()).or_insert_with(|| json!({"displayname": user}));
        let mut content = json!({"membership": membership, "displayname": profile["displayname"]});
        if membership == "invite" && self.rooms.get(room).is_some_and(|room| room.direct) {
            content["is_direct"] = json!(true);
        }
        self.add(now, room, by, "m.room.member", content, Some(user), None);
    }

    fn redact(&mut self, now: Now, room: &str, by: &str, target: &str, reason: &str) -> Option<String> {
        let known = self.rooms.get_mut(room)?;
        let (_, event) = known.timeline.iter_mut().find(|(_, event)| text(event, "event_id") == target)?;
        event["content"] = json!({});
        let content = json!({"redacts": target, "reason": reason});
        let id = self.add(now, room, by, "m.room.redaction", content, None, None);
        let known = self.rooms.get_mut(room)?;
        let (_, redaction) = known.timeline.last_mut()?;
        redaction["redacts"] = json!(target);
        let because = redaction.clone();
        let (_, event) = known.timeline.iter_mut().find(|(_, event)| text(event, "event_id") == target)?;
        event["unsigned"]["redacted_because"] = because;
        Some(id)
    }

    // ── sync ──────────────────────────────────────────────────────────────────────────────────────────────────────

    fn sync(
        &mut self,
        now: Now,
        id: Id,
        token: &str,
        request: &Request,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let since = match request.query("since") {
            None | Some("") => None,
            Some(since) => {
                let position = position_of(since).filter(|position| *position <= self.position);
                Some(position.ok_or_else(|| {
                    refuse(400, "M_INVALID_PARAM", "Invalid stream token").breaks("matrix.sync-token")
                })?)
            }
        };
        let filter = match request.query("filter") {
            Some(inline) if inline.starts_with('{') => serde_json::from_str(inline).unwrap_or_default(),
            Some(number) => {
                let found = number.parse::<usize>().ok().and_then(|number| self.filters.get(number)).cloned();
                found.ok_or_else(|| refuse(400, "M_INVALID_PARAM", "No such filter"))?
            }
            None => Value::Null,
        };
        let limit = filter["room"]["timeline"]["limit"].as_u64().unwrap_or(20);
        let timeout = request.query("timeout").and_then(|timeout| timeout.parse::<u64>().ok()).unwrap_or(0);
        let poll = Poll {
            since,
            limit: usize::try_from(limit).unwrap_or(20),
            due: now.ms + timeout.min(600_000),
            token: token.into(),
        };
        self.polls.insert(id, poll);
        self.feed(now, out);
        Ok(())
    }

    /// Answers the syncs that have waited long enough, or have something to tell.
    fn feed(&mut self, now: Now, out: &mut Vec<Output>) {
        let position = self.position;
        let due = |poll: &Poll| poll.due <= now.ms || poll.since.is_none_or(|since| since < position);
        let ids: Vec<Id> = self.polls.iter().filter(|(_, poll)| due(poll)).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(poll) = self.polls.remove(&id) else { continue };
            let response = if self.devices.contains_key(&poll.token) {
                Response::json(200, &self.batch(&poll))
            } else {
                let body = json!({"errcode": "M_UNKNOWN_TOKEN", "error": "Access token has been revoked.", "soft_logout": false});
                Response::json(401, &body)
            };
            out.push(Output::Answer { id, response });
        }
    }

    fn batch(&self, poll: &Poll) -> Value {
        let since = poll.since.unwrap_or(0);
        let initial = poll.since.is_none();
        let (mut join, mut invite, mut leave) = (Map::new(), Map::new(), Map::new());
        for (id, room) in &self.rooms {
            let membership = room.membership(&self.user, u64::MAX);
            let before = room.membership(&self.user, since);
            let changed = room.timeline.last().is_some_and(|(at, _)| *at > since);
            let typing = room.typing_at > since;
            match membership.as_str() {
                "join" if changed || typing || initial => {
                    // Who joins anew sees the room from its beginning.
                    let from = if before == "join" { since } else { 0 };
                    let news: Vec<&(u64, Value)> =
                        room.timeline.iter().filter(|(at, _)| *at > from).collect();
                    let cut = news.len().saturating_sub(poll.limit);
                    let shown = news.get(cut..).unwrap_or_default();
                    let start = shown.first().map_or(self.position, |(at, _)| at - 1);
                    let state: Vec<Value> = room
                        .state(start)
                        .into_values()
                        .filter(|event| {
                            from == 0
                                || news
                                    .iter()
                                    .take(cut)
                                    .any(|(_, known)| known["event_id"] == event["event_id"])
                        })
                        .map(|event| told(&event, &poll.token))
                        .collect();
                    let events: Vec<Value> =
                        shown.iter().map(|(_, event)| told(event, &poll.token)).collect();
                    let mut entry = json!({
                        "timeline": {"events": events, "limited": cut > 0, "prev_batch": token_at(start)},
                        "state": {"events": state}, "account_data": {"events": []}, "ephemeral": {"events": []},
                        "unread_notifications": {"highlight_count": 0, "notification_count": 0}, "summary": {},
                    });
                    if typing {
                        entry["ephemeral"]["events"] =
                            json!([{"type": "m.typing", "content": {"user_ids": room.typing}}]);
                    }
                    join.insert(id.clone(), entry);
                }
                "invite" if before != "invite" || initial => {
                    let state = room.state(u64::MAX);
                    let shown: Vec<Value> = state
                        .into_iter()
                        .filter(|(key, _)| key.0 != "m.room.member" || key.1 == self.user)
                        .map(|(_, event)| {
                            json!({"type": event["type"], "state_key": event["state_key"], "sender": event["sender"],
                                "content": event["content"]})
                        })
                        .collect();
                    invite.insert(id.clone(), json!({"invite_state": {"events": shown}}));
                }
                "leave" | "ban" if changed && !initial && before == "join" => {
                    let news = room.timeline.iter().filter(|(at, _)| *at > since);
                    let events: Vec<Value> = news.map(|(_, event)| told(event, &poll.token)).collect();
                    leave.insert(id.clone(), json!({"timeline": {"events": events, "limited": false,
                        "prev_batch": token_at(since)}, "state": {"events": []}, "account_data": {"events": []}}));
                }
                _ => {}
            }
        }
        let account: Vec<Value> = self
            .account_data
            .iter()
            .filter(|(_, (at, _))| *at > since)
            .map(|(kind, (_, content))| json!({"type": kind, "content": content}))
            .collect();
        json!({
            "next_batch": token_at(self.position), "account_data": {"events": account}, "presence": {"events": []},
            "to_device": {"events": []}, "device_lists": {"changed": [], "left": []}, "device_one_time_keys_count": {},
            "rooms": {"join": join, "invite": invite, "leave": leave, "knock": {}},
        })
    }
}

/// An event as one device sees it.
fn told(event: &Value, token: &str) -> Value {
    let mut event = event.clone();
    let (by, transaction) = (event["sim_by"].take(), event["sim_transaction"].take());
    if by == token {
        event["unsigned"]["transaction_id"] = transaction;
    }
    if let Some(map) = event.as_object_mut() {
        map.shift_remove("sim_by");
        map.shift_remove("sim_transaction");
    }
    event
}

fn token_at(position: u64) -> String {
    format!("s{position}_sim")
}

fn position_of(token: &str) -> Option<u64> {
    token.strip_prefix('s')?.strip_suffix("_sim")?.parse().ok()
}

impl Platform for Matrix {
    fn rules(&self) -> &'static [Rule] {
        RULES
    }

    fn on(&mut self, now: Now, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Request { id, request } => self.request(now, id, &request, &mut out),
            Input::Upgrade { id, .. } => {
                let body = json!({"errcode": "M_UNRECOGNIZED", "error": "Unrecognized request"});
                out.push(Output::Answer { id, response: Response::json(404, &body) });
            }
            Input::Gone { id, .. } => drop(self.polls.remove(&id)),
            Input::Tick => self.feed(now, &mut out),
            Input::Frame { .. } | Input::Called { .. } => {}
        }
        out
    }

    fn wake(&self) -> Option<u64> {
        self.polls.values().map(|poll| poll.due).min()
    }

    /// - `user` `{id, displayname?}`
    /// - `room` `{id, by?, name?, direct?, members?, invite?}`: made by somebody else; the user joins, or is only invited
    /// - `message` `{room, from?, text?, html?, msgtype?, reply_to?, thread?, mentions?, file?: {name, mime?, base64? |
    ///   size?}}` gives `{event_id}`
    /// - `edit` `{room, event, text}`; `redact` `{room, event, from?}`; `react` `{room, event, from?, key}`
    /// - `typing` `{room, from?, typing}`; `member` `{room, user, membership, by?}`; `state` `{room, type, key?, content}`
    /// - `limit` `{ms}`: sending is refused for so long; `revoke`: all access tokens are
    fn control(
        &mut self,
        now: Now,
        action: &str,
        arguments: &Value,
        out: &mut Vec<Output>,
    ) -> Result<Value, String> {
        let from = arguments["from"].as_str().unwrap_or("@alice:sim").to_owned();
        let room = text(arguments, "room").to_owned();
        let me = self.user.clone();
        if !matches!(action, "user" | "room" | "limit" | "revoke") && !self.rooms.contains_key(&room) {
            return Err(format!("there is no room {room:?}"));
        }
        let result = match action {
            "user" => {
                let profile = json!({"displayname": arguments["displayname"]});
                self.profiles.insert(text(arguments, "id").into(), profile.clone());
                profile
            }
            "room" => {
                let id = text(arguments, "id").to_owned();
                let by = arguments["by"].as_str().unwrap_or("@alice:sim").to_owned();
                self.make_room(now, &id, &by, text(arguments, "name"), arguments["direct"] == true);
                for member in arguments["members"].as_array().into_iter().flatten().filter_map(Value::as_str)
                {
                    self.member(now, &id, &by, member, "join");
                }
                self.member(now, &id, &by, &me, "invite");
                if arguments["invite"] != true {
                    self.member(now, &id, &me, &me, "join");
                }
                json!({"id": id})
            }
            "message" => {
                let mut content = json!({"msgtype": "m.text", "body": text(arguments, "text")});
                if let Some(kind) = arguments["msgtype"].as_str() {
                    content["msgtype"] = json!(kind);
                }
                if let Some(html) = arguments["html"].as_str() {
                    content["format"] = json!("org.matrix.custom.html");
                    content["formatted_body"] = json!(html);
                }
                if let Some(mentions) = arguments.get("mentions") {
                    content["m.mentions"] = json!({"user_ids": mentions});
                }
                if let Some(reply) = arguments["reply_to"].as_str() {
                    content["m.relates_to"]["m.in_reply_to"] = json!({"event_id": reply});
                }
                if let Some(thread) = arguments["thread"].as_str() {
                    content["m.relates_to"]["rel_type"] = json!("m.thread");
                    content["m.relates_to"]["event_id"] = json!(thread);
                }
                let file = &arguments["file"];
                if file.is_object() {
                    let bytes = match file["base64"].as_str() {
                        Some(text) => BASE64.decode(text.as_bytes()).map_err(|error| error.to_string())?,
                        None => {
                            vec![0x5A; usize::try_from(file["size"].as_u64().unwrap_or(16)).unwrap_or(16)]
                        }
                    };
                    let kind = file["mime"].as_str().unwrap_or("application/octet-stream");
                    let size = bytes.len();
                    let id = self.store(kind, bytes);
                    content["msgtype"] = json!(match kind.split('/').next() {
                        Some("image") => "m.image",
                        Some("audio") => "m.audio",
                        Some("video") => "m.video",
                        _ => "m.file",
                    });
                    content["filename"] = file["name"].clone();
                    content["url"] = json!(format!("mxc://{}/{id}", self.server()));
                    content["info"] = json!({"mimetype": kind, "size": size});
                    if text(&content, "body").is_empty() {
                        content["body"] = file["name"].clone();
                    }
                }
                json!({"event_id": self.add(now, &room, &from, "m.room.message", content, None, None)})
            }
            "edit" => {
                let new = json!({"msgtype": "m.text", "body": arguments["text"]});
                let content = json!({"msgtype": "m.text", "body": format!("* {}", text(arguments, "text")), "m.new_content": new,
                    "m.relates_to": {"rel_type": "m.replace", "event_id": arguments["event"]}});
                json!({"event_id": self.add(now, &room, &from, "m.room.message", content, None, None)})
            }
            "react" => {
                let content = json!({"m.relates_to": {"rel_type": "m.annotation", "event_id": arguments["event"], "key": arguments["key"]}});
                json!({"event_id": self.add(now, &room, &from, "m.reaction", content, None, None)})
            }
            "redact" => {
                let id = self.redact(now, &room, &from, text(arguments, "event"), "");
                json!({"event_id": id.ok_or("there is no such event")?})
            }
            "typing" => {
                self.position += 1;
                let position = self.position;
                if let Some(known) = self.rooms.get_mut(&room) {
                    known.typing = if arguments["typing"] == true { vec![from] } else { Vec::new() };
                    known.typing_at = position;
                }
                json!({})
            }
            "member" => {
                let by = arguments["by"].as_str().unwrap_or("@alice:sim").to_owned();
                self.member(now, &room, &by, text(arguments, "user"), text(arguments, "membership"));
                json!({})
            }
            "state" => {
                let key = arguments["key"].as_str().unwrap_or_default();
                let content = arguments["content"].clone();
                json!({"event_id": self.add(now, &room, &from, text(arguments, "type"), content, Some(key), None)})
            }
            "limit" => {
                self.limited_until = now.ms + arguments["ms"].as_u64().ok_or("ms is missing")?;
                json!({})
            }
            "revoke" => {
                self.devices.clear();
                for poll in self.polls.values_mut() {
                    poll.due = 0;
                }
                json!({})
            }
            _ => return Err(format!("matrix cannot do {action:?}")),
        };
        self.feed(now, out);
        Ok(result)
    }

    fn refusal(&self, status: u16, retry_after_ms: Option<u64>) -> Response {
        match status {
            429 => {
                let ms = retry_after_ms.unwrap_or(1000);
                let body = json!({"errcode": "M_LIMIT_EXCEEDED", "error": "Too Many Requests", "retry_after_ms": ms});
                Response::json(429, &body).header("retry-after", ms.div_ceil(1000))
            }
            502..=504 => Response::bytes(status, "text/html", b"<html>Bad Gateway</html>".to_vec()),
            _ => Response::json(status, &json!({"errcode": "M_UNKNOWN", "error": "Internal server error"})),
        }
    }

    fn state(&self) -> Value {
        let rooms: Map<String, Value> = self
            .rooms
            .iter()
            .map(|(id, room)| {
                let events: Vec<Value> = room.timeline.iter().map(|(_, event)| told(event, "")).collect();
                (
                    id.clone(),
                    json!({"events": events, "typing": room.typing, "read": room.read,
                    "membership": room.membership(&self.user, u64::MAX)}),
                )
            })
            .collect();
        json!({"rooms": rooms, "syncing": self.polls.len(), "tokens": self.devices.len(), "position": self.position,
            "account_data": self.account_data.iter().map(|(kind, (_, data))| (kind.clone(), data.clone())).collect::<Map<_, _>>()})
    }
}
