//! WhatsApp's Business Cloud API, for one business number. <https://developers.facebook.com/docs/whatsapp/cloud-api>
//!
//! Options: `token`, `app_secret`, `verify_token`, `phone_id`, `number`, `templates` (`[{name, language, parameters}]`),
//! `window_error` (`status`, the default: outside the window a message is accepted and its failure told by a status;
//! `response`: it is refused at once), `limits` (false: none), `seed`. `subscribe` names the webhook.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};

use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::platform::{Bucket, Chance, Id, Input, Now, Output, Platform, Rule};
use crate::wire::{Request, Response};

const RULES: &[Rule] = &[
    Rule {
        id: "whatsapp.verify",
        text: "The webhook answers hub.challenge to whoever has the verify token, and to nobody else.",
        source: "https://developers.facebook.com/docs/graph-api/webhooks/getting-started#verification-requests",
    },
    Rule {
        id: "whatsapp.signature",
        text: "X-Hub-Signature-256 is the HMAC of the body with the app secret; what is signed otherwise is refused.",
        source: "https://developers.facebook.com/docs/graph-api/webhooks/getting-started#validate-payloads",
    },
    Rule {
        id: "whatsapp.delivery",
        text: "A notification that is not answered with 200 comes again, less and less often, for up to 7 days.",
        source: "https://developers.facebook.com/docs/whatsapp/cloud-api/guides/set-up-webhooks",
    },
    Rule {
        id: "whatsapp.token",
        text: "Requests name a valid access token.",
        source: "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes#authorization-errors",
    },
    Rule {
        id: "whatsapp.window",
        text: "More than 24 hours after the user's last message only templates go out: 131047.",
        source: "https://developers.facebook.com/docs/whatsapp/cloud-api/guides/send-messages#customer-service-windows",
    },
    Rule {
        id: "whatsapp.pair-rate",
        text: "One message each 6 s to the same user, after a burst of 45: 131056.",
        source: "https://developers.facebook.com/docs/whatsapp/cloud-api/overview#pair-rate-limits",
    },
    Rule {
        id: "whatsapp.throughput",
        text: "80 messages a second: 130429.",
        source: "https://developers.facebook.com/docs/whatsapp/cloud-api/overview#throughput",
    },
    Rule {
        id: "whatsapp.text-length",
        text: "A text has at most 4096 characters, a caption 1024.",
        source: "https://developers.facebook.com/docs/whatsapp/cloud-api/reference/messages#text-object",
    },
    Rule {
        id: "whatsapp.parameters",
        text: "A message names messaging_product, the recipient, and the object of its type.",
        source: "https://developers.facebook.com/docs/whatsapp/cloud-api/reference/messages",
    },
    Rule {
        id: "whatsapp.template",
        text: "A template exists in its language, and has its number of parameters: 132001, 132000.",
        source: "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes#template-errors",
    },
    Rule {
        id: "whatsapp.media",
        text: "Media has a supported type and size; its URL is good for 5 minutes, with the token.",
        source: "https://developers.facebook.com/docs/whatsapp/cloud-api/reference/media",
    },
];

const DAY_MS: u64 = 86_400_000;
const MEGABYTE: usize = 1 << 20;

struct Media {
    kind: String,
    bytes: Vec<u8>,
    /// What the URL ends with, and until when.
    ticket: String,
    until: u64,
}

struct Notification {
    at: u64,
    body: Value,
    signature: Option<String>,
    attempts: u32,
    next_try: u64,
    in_flight: bool,
}

struct Webhook {
    url: String,
    verified: bool,
}

enum Purpose {
    Verify { challenge: String, expected: bool },
    Notify(u64),
}

/// One business number, and who writes to it.
pub struct WhatsApp {
    token: String,
    app_secret: String,
    verify_token: String,
    phone_id: String,
    number: String,
    templates: Vec<Value>,
    window_in_response: bool,
    limits: bool,
    chance: Chance,
    origin: String,
    webhook: Option<Webhook>,
    notifications: BTreeMap<u64, Notification>,
    notified: u64,
    order: VecDeque<u64>,
    calls: HashMap<Id, Purpose>,
    next_call: Id,
    verifications: Vec<Value>,
    /// When each user last wrote.
    heard: BTreeMap<String, u64>,
    names: BTreeMap<String, String>,
    inbound: Vec<Value>,
    sent: Vec<Value>,
    read: Vec<Value>,
    media: BTreeMap<String, Media>,
    pairs: HashMap<String, (Bucket, u64)>,
    throughput: Bucket,
}

struct Failure {
    status: u16,
    code: u64,
    message: String,
    details: String,
    rule: Option<&'static str>,
}

fn failure(status: u16, code: u64, message: &str, details: &str) -> Failure {
    Failure { status, code, message: message.into(), details: details.into(), rule: None }
}

fn parameter(details: &str) -> Failure {
    failure(400, 100, "Invalid parameter", details).breaks("whatsapp.parameters")
}

impl Failure {
    fn breaks(self, rule: &'static str) -> Self {
        Self { rule: Some(rule), ..self }
    }

    fn body(&self) -> Value {
        json!({"error": {
            "message": format!("(#{}) {}", self.code, self.message), "type": "OAuthException", "code": self.code,
            "error_data": {"messaging_product": "whatsapp", "details": self.details}, "fbtrace_id": "sim",
        }})
    }
}

type Outcome = Result<Value, Failure>;

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// RFC 2104 with SHA-256.
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    const BLOCK: usize = 64;
    let mut padded = [0; BLOCK];
    if key.len() > BLOCK {
        padded[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        padded[..key.len()].copy_from_slice(key);
    }
    let keyed = |pad: u8, parts: &[&[u8]]| -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(padded.map(|byte| byte ^ pad));
        parts.iter().for_each(|part| hash.update(part));
        hash.finalize().into()
    };
    let inner = keyed(0x36, &[message]);
    keyed(0x5C, &[&inner])
}

impl WhatsApp {
    pub fn new(options: &Value) -> Result<Self, String> {
        let word = |name: &str, default: &str| options[name].as_str().unwrap_or(default).to_owned();
        let hello = json!([{"name": "hello_world", "language": "en_US", "parameters": 0}]);
        Ok(Self {
            token: word("token", "sim-token"),
            app_secret: word("app_secret", "sim-secret"),
            verify_token: word("verify_token", "sim-verify"),
            phone_id: word("phone_id", "100000000000001"),
            number: word("number", "15550000000"),
            templates: options.get("templates").unwrap_or(&hello).as_array().cloned().unwrap_or_default(),
            window_in_response: match word("window_error", "status").as_str() {
                "status" => false,
                "response" => true,
                other => return Err(format!("window_error {other:?} is neither status nor response")),
            },
            limits: options["limits"].as_bool().unwrap_or(true),
            chance: Chance(options["seed"].as_u64().unwrap_or(1)),
            origin: "http://sim".into(),
            webhook: None,
            notifications: BTreeMap::new(),
            notified: 0,
            order: VecDeque::new(),
            calls: HashMap::new(),
            next_call: 1 << 40,
            verifications: Vec::new(),
            heard: BTreeMap::new(),
            names: BTreeMap::new(),
            inbound: Vec::new(),
            sent: Vec::new(),
            read: Vec::new(),
            media: BTreeMap::new(),
            pairs: HashMap::new(),
            throughput: Bucket::new(80, 1000),
        })
    }

    fn wamid(&mut self) -> String {
        format!("wamid.{}", BASE64.encode(self.chance.hex(32).as_bytes()))
    }

    // ── the webhook ───────────────────────────────────────────────────────────────────────────────────────────────

    fn call(&mut self, request: Request, purpose: Purpose, out: &mut Vec<Output>) {
        self.next_call += 1;
        self.calls.insert(self.next_call, purpose);
        out.push(Output::Call { id: self.next_call, request });
    }

    /// Asks the webhook for the challenge: with the token that was agreed on, and with another, which must be refused.
    fn verify(&mut self, url: &str, token: &str, out: &mut Vec<Output>) {
        let challenge = self.chance.below(2_000_000_000).to_string();
        let expected = token == self.verify_token;
        let mut request = Request { method: "GET".into(), path: url.into(), ..Request::default() };
        for (name, value) in
            [("hub.mode", "subscribe"), ("hub.challenge", challenge.as_str()), ("hub.verify_token", token)]
        {
            request.query.push((name.into(), value.into()));
        }
        self.call(request, Purpose::Verify { challenge, expected }, out);
    }

    fn notify(&mut self, now: Now, value: &Value, signature: Option<String>, out: &mut Vec<Output>) {
        let mut value = value.clone();
        value["messaging_product"] = json!("whatsapp");
        value["metadata"] = json!({"display_phone_number": self.number, "phone_number_id": self.phone_id});
        let body = json!({
            "object": "whatsapp_business_account",
            "entry": [{"id": "102290129340398", "changes": [{"value": value, "field": "messages"}]}],
        });
        self.notified += 1;
        let notification =
            Notification { at: now.ms, body, signature, attempts: 0, next_try: now.ms, in_flight: false };
        self.notifications.insert(self.notified, notification);
        self.order.push_back(self.notified);
        self.deliver(now, out);
    }

    /// In order as far as nothing fails; what failed comes later, and others do not wait for it.
    fn deliver(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(webhook) = self.webhook.as_ref().filter(|webhook| webhook.verified) else { return };
        let url = webhook.url.clone();
        let mut due = Vec::new();
        for id in &self.order {
            let Some(notification) = self.notifications.get_mut(id) else { continue };
            if notification.in_flight || notification.next_try > now.ms {
                continue;
            }
            notification.in_flight = true;
            due.push((*id, notification.body.to_string(), notification.signature.clone()));
        }
        for (id, body, signature) in due {
            let digest = hmac_sha256(self.app_secret.as_bytes(), body.as_bytes());
            let signature = signature.unwrap_or_else(|| format!("sha256={}", HEXLOWER.encode(&digest)));
            let mut request = Request { method: "POST".into(), path: url.clone(), ..Request::default() }
                .header("content-type", "application/json")
                .header("user-agent", "facebookexternalua");
            if !signature.is_empty() {
                request = request.header("x-hub-signature-256", &signature);
            }
            request.body = body.into_bytes();
            self.call(request, Purpose::Notify(id), out);
        }
    }

    fn called(&mut self, now: Now, call: Id, response: Option<&Response>, out: &mut Vec<Output>) {
        let status = response.map(|response| response.status);
        match self.calls.remove(&call) {
            Some(Purpose::Verify { challenge, expected }) => {
                let answered = response
                    .is_some_and(|response| response.status == 200 && response.body == challenge.as_bytes());
                if answered != expected {
                    let what = if expected {
                        format!("hub.challenge was not given back, but {status:?}")
                    } else {
                        "hub.challenge was given to a wrong verify token".to_owned()
                    };
                    out.push(Output::Violation { rule: "whatsapp.verify", what });
                }
                self.verifications
                    .push(json!({"expected": expected, "answered": answered, "status": status}));
                if let Some(webhook) = self.webhook.as_mut().filter(|_| expected) {
                    webhook.verified = answered;
                }
            }
            Some(Purpose::Notify(id)) => {
                let Some(notification) = self.notifications.get_mut(&id) else { return };
                let forged = notification.signature.is_some();
                if forged && status == Some(200) {
                    let what = "a notification with a wrong signature was accepted".into();
                    out.push(Output::Violation { rule: "whatsapp.signature", what });
                }
                if status == Some(200) || forged {
                    self.notifications.remove(&id);
                    self.order.retain(|known| *known != id);
                } else {
                    notification.in_flight = false;
                    notification.next_try = now.ms + (1000 << notification.attempts.min(16));
                    notification.attempts += 1;
                }
            }
            None => {}
        }
        self.deliver(now, out);
    }

    fn status(
        &mut self,
        now: Now,
        id: &str,
        to: &str,
        status: &str,
        error: Option<&Failure>,
        out: &mut Vec<Output>,
    ) {
        let mut told =
            json!({"id": id, "status": status, "timestamp": now.unix_s().to_string(), "recipient_id": to});
        if let Some(error) = error {
            told["errors"] = json!([{"code": error.code, "title": error.message, "message": error.message,
                "error_data": {"details": error.details}}]);
        }
        if let Some(sent) = self.sent.iter_mut().find(|sent| sent["id"] == id) {
            sent["status"] = json!(status);
        }
        self.notify(now, &json!({"statuses": [told]}), None, out);
    }

    // ── requests ──────────────────────────────────────────────────────────────────────────────────────────────────

    fn request(&mut self, now: Now, id: Id, request: &Request, out: &mut Vec<Output>) {
        if let Some(origin) = request.get("x-sim-origin") {
            self.origin = origin.into();
        }
        let answered = if request.bearer("Bearer") == Some(&self.token) {
            let path = request.path.clone();
            let path: Vec<&str> = path.split('/').skip(1).collect();
            match path.as_slice() {
                ["media-download", media, ticket] => {
                    let found = self
                        .media
                        .get(*media)
                        .filter(|known| known.ticket == *ticket && now.ms <= known.until);
                    match found {
                        Some(known) => {
                            let response = Response::bytes(200, &known.kind, known.bytes.clone());
                            out.push(Output::Answer { id, response });
                            return;
                        }
                        None => Err(failure(404, 100, "Not found", "The URL is not valid any more")
                            .breaks("whatsapp.media")),
                    }
                }
                [version, rest @ ..] if version.starts_with('v') => self.handle(now, request, rest, out),
                _ => Err(failure(404, 2500, "Unknown path components", "")),
            }
        } else {
            Err(failure(401, 190, "Invalid OAuth access token", "").breaks("whatsapp.token"))
        };
        let response = match answered {
            Ok(value) => Response::json(200, &value),
            Err(failed) => {
                if let Some(rule) = failed.rule {
                    let what = format!("{} {}: {}", request.method, request.path, failed.body());
                    out.push(Output::Violation { rule, what });
                }
                Response::json(failed.status, &failed.body())
            }
        };
        out.push(Output::Answer { id, response });
    }

    fn handle(&mut self, now: Now, request: &Request, path: &[&str], out: &mut Vec<Output>) -> Outcome {
        let unknown = || failure(400, 100, "Unsupported request", "Object does not exist");
        match (request.method.as_str(), path) {
            ("POST", [phone, "messages"]) if *phone == self.phone_id => {
                let body = request.fields().map_err(|why| parameter(&why))?.values;
                self.messages(now, &Value::Object(body), out)
            }
            ("POST", [phone, "media"]) if *phone == self.phone_id => {
                let fields = request.fields().map_err(|why| parameter(&why))?;
                if fields.values.get("messaging_product") != Some(&json!("whatsapp")) {
                    return Err(parameter("The parameter messaging_product is required."));
                }
                let file = fields
                    .files
                    .into_iter()
                    .next()
                    .ok_or_else(|| parameter("The parameter file is required."))?;
                let kind = fields
                    .values
                    .get("type")
                    .and_then(Value::as_str)
                    .map(str::to_owned)
                    .or(file.content_type);
                let kind = kind.unwrap_or_default();
                check_media(&kind, file.bytes.len())?;
                Ok(json!({"id": self.store(&kind, file.bytes)}))
            }
            ("GET", [phone]) if *phone == self.phone_id => Ok(json!({
                "id": self.phone_id, "display_phone_number": self.number, "verified_name": "Sim", "quality_rating": "GREEN",
            })),
            ("GET", [media]) if self.media.contains_key(*media) => {
                let ticket = self.chance.hex(24);
                let url = format!("{}/media-download/{media}/{ticket}", self.origin);
                let known = self.media.get_mut(*media).ok_or_else(unknown)?;
                known.ticket = ticket;
                known.until = now.ms + 300_000;
                Ok(json!({
                    "messaging_product": "whatsapp", "url": url, "mime_type": known.kind, "id": media,
                    "sha256": HEXLOWER.encode(&Sha256::digest(&known.bytes)), "file_size": known.bytes.len(),
                }))
            }
            ("DELETE", [media]) if self.media.remove(*media).is_some() => Ok(json!({"success": true})),
            _ => Err(unknown()),
        }
    }

    fn store(&mut self, kind: &str, bytes: Vec<u8>) -> String {
        let id = (1_000_000_000_000_000 + self.chance.below(1_000_000_000_000_000)).to_string();
        let media = Media { kind: kind.into(), bytes, ticket: String::new(), until: 0 };
        self.media.insert(id.clone(), media);
        id
    }

    fn messages(&mut self, now: Now, body: &Value, out: &mut Vec<Output>) -> Outcome {
        if body["messaging_product"] != "whatsapp" {
            return Err(parameter("The parameter messaging_product is required."));
        }
        if body["status"] == "read" {
            let id = text(body, "message_id");
            if !self.inbound.iter().any(|message| message["id"] == id) {
                return Err(parameter("Message ID does not exist"));
            }
            self.read.push(body.clone());
            return Ok(json!({"success": true}));
        }
        let to: String = text(body, "to").chars().filter(char::is_ascii_digit).collect();
        if to.len() < 7 {
            return Err(parameter("The parameter to is required."));
        }
        let kind = body["type"].as_str().unwrap_or("text");
        let content = body.get(kind).filter(|content| content.is_object() || content.is_array());
        let content = content.ok_or_else(|| parameter(&format!("Parameter {kind} is mandatory")))?;
        match kind {
            "text" => {
                let length = text(content, "body").chars().count();
                if length == 0 {
                    return Err(parameter("The parameter text['body'] is required."));
                }
                if length > 4096 {
                    let details = "Param text['body'] must be at most 4096 characters long.";
                    return Err(
                        failure(400, 100, "Invalid parameter", details).breaks("whatsapp.text-length")
                    );
                }
            }
            "image" | "audio" | "video" | "document" | "sticker" => {
                let id = text(content, "id");
                if id.is_empty() && !text(content, "link").starts_with("http") {
                    return Err(parameter("Either id or link is required."));
                }
                if !id.is_empty() && !self.media.contains_key(id) {
                    return Err(failure(400, 131_053, "Media upload error", "Media id does not exist")
                        .breaks("whatsapp.media"));
                }
                if text(content, "caption").chars().count() > 1024 {
                    let details = "Param caption must be at most 1024 characters long.";
                    return Err(
                        failure(400, 100, "Invalid parameter", details).breaks("whatsapp.text-length")
                    );
                }
            }
            "reaction" => {
                let id = text(content, "message_id");
                if !self.inbound.iter().chain(&self.sent).any(|message| message["id"] == id) {
                    return Err(failure(400, 131_009, "Parameter value is not valid", "message_id")
                        .breaks("whatsapp.parameters"));
                }
            }
            "template" => self.check_template(content)?,
            "interactive" | "location" | "contacts" => {}
            _ => {
                return Err(
                    failure(400, 131_051, "Unsupported message type", kind).breaks("whatsapp.parameters")
                );
            }
        }
        self.rate(now, &to)?;
        let open = self.heard.get(&to).is_some_and(|at| now.ms < at + DAY_MS);
        let closed = failure(
            400,
            131_047,
            "Re-engagement message",
            "Message failed to send because more than 24 hours have passed since the customer last replied to this number.",
        );
        let refused = !open && kind != "template";
        if refused {
            let what = format!("a message of type {kind} outside the window");
            out.push(Output::Violation { rule: "whatsapp.window", what });
            if self.window_in_response {
                return Err(closed);
            }
        }
        let id = self.wamid();
        let mut sent = body.clone();
        sent["id"] = json!(id);
        sent["at"] = json!(now.unix_ms);
        sent["to"] = json!(to);
        sent["status"] = json!("accepted");
        self.sent.push(sent);
        if refused {
            self.status(now, &id, &to, "failed", Some(&closed), out);
        } else {
            self.status(now, &id, &to, "sent", None, out);
            self.status(now, &id, &to, "delivered", None, out);
        }
        Ok(json!({
            "messaging_product": "whatsapp", "contacts": [{"input": body["to"], "wa_id": to}], "messages": [{"id": id}],
        }))
    }

    fn check_template(&self, content: &Value) -> Result<(), Failure> {
        let (name, language) = (text(content, "name"), text(&content["language"], "code"));
        let known = self
            .templates
            .iter()
            .find(|known| text(known, "name") == name && text(known, "language") == language);
        let Some(known) = known else {
            let details = format!("template name ({name}) does not exist in {language}");
            return Err(failure(404, 132_001, "Template name does not exist in the translation", &details)
                .breaks("whatsapp.template"));
        };
        let components = content["components"].as_array().cloned().unwrap_or_default();
        let count: usize =
            components.iter().map(|component| component["parameters"].as_array().map_or(0, Vec::len)).sum();
        if known["parameters"].as_u64() != Some(count as u64) {
            let details = format!("the template has {} parameters, {count} were given", known["parameters"]);
            return Err(failure(
                400,
                132_000,
                "Number of parameters does not match the expected number of params",
                &details,
            )
            .breaks("whatsapp.template"));
        }
        Ok(())
    }

    fn rate(&mut self, now: Now, to: &str) -> Result<(), Failure> {
        if !self.limits {
            return Ok(());
        }
        if self.throughput.wait(now.ms) > 0 {
            let details = "Message failed to send because there were too many messages sent from this phone number in a short period of time";
            return Err(failure(429, 130_429, "Rate limit hit", details).breaks("whatsapp.throughput"));
        }
        let (bucket, until) = self.pairs.entry(to.into()).or_insert((Bucket::with_burst(45, 1, 6000), 0));
        let wait = bucket.wait(now.ms);
        if wait > 0 {
            let early = now.ms < *until;
            *until = now.ms + wait;
            let details = "Message failed to send because there were too many messages sent from this phone number to the same recipient in a short period of time.";
            // An assumption: Meta tells clients to go by the code, and gives no status that is certain for this one; 429 has
            // been seen as well (<https://docs.ycloud.com/reference-link/whatsapp-errors>).
            let failed =
                failure(400, 131_056, "(Business Account, Consumer Account) pair rate limit hit", details);
            return Err(if early { failed.breaks("whatsapp.pair-rate") } else { failed });
        }
        bucket.take(now.ms);
        self.throughput.take(now.ms);
        Ok(())
    }
}

/// <https://developers.facebook.com/docs/whatsapp/cloud-api/reference/media#supported-media-types>
fn check_media(kind: &str, size: usize) -> Result<(), Failure> {
    let essence = kind.split(';').next().unwrap_or_default().trim();
    let limit = match essence {
        "image/jpeg" | "image/png" => 5 * MEGABYTE,
        "image/webp" => MEGABYTE / 2,
        "audio/aac" | "audio/amr" | "audio/mpeg" | "audio/mp4" | "audio/ogg" | "video/mp4" | "video/3gpp" => {
            16 * MEGABYTE
        }
        "text/plain"
        | "application/pdf"
        | "application/msword"
        | "application/vnd.ms-excel"
        | "application/vnd.ms-powerpoint"
        | "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
        | "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
        | "application/vnd.openxmlformats-officedocument.presentationml.presentation" => 100 * MEGABYTE,
        _ => {
            let details =
                format!("Param file must be a file with one of the supported types; {kind} is none");
            return Err(failure(400, 100, "Invalid parameter", &details).breaks("whatsapp.media"));
        }
    };
    if size > limit || size == 0 {
        let details = format!("{kind} has {size} bytes; at most {limit}");
        return Err(failure(400, 131_053, "Media upload error", &details).breaks("whatsapp.media"));
    }
    Ok(())
}

impl Platform for WhatsApp {
    fn rules(&self) -> &'static [Rule] {
        RULES
    }

    fn on(&mut self, now: Now, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Request { id, request } => self.request(now, id, &request, &mut out),
            Input::Upgrade { id, .. } => {
                let response = Response::json(404, &failure(404, 2500, "Unknown path components", "").body());
                out.push(Output::Answer { id, response });
            }
            Input::Called { id, response } => self.called(now, id, response.as_ref(), &mut out),
            Input::Tick => {
                self.notifications.retain(|_, notification| {
                    notification.in_flight || notification.at + 7 * DAY_MS > now.ms
                });
                let known = &self.notifications;
                self.order.retain(|id| known.contains_key(id));
                self.deliver(now, &mut out);
            }
            Input::Gone { .. } | Input::Frame { .. } => {}
        }
        out
    }

    fn wake(&self) -> Option<u64> {
        self.webhook.as_ref().filter(|webhook| webhook.verified)?;
        self.notifications
            .values()
            .filter(|notification| !notification.in_flight)
            .map(|notification| notification.next_try)
            .min()
    }

    /// - `subscribe` `{url}`: asks for the challenge with a wrong token, then with the right one, then notifies
    /// - `message` `{from?, name?, text?, reply_to?, file?: {kind, mime, name?, caption?, base64? | size?}, extra?}` gives
    ///   `{id}`; `react` `{from?, message, emoji}`; `press` `{from?, message, id, title?}`
    /// - `forge` `{from?, text, signature?}`: a notification that is signed wrongly, or not at all (an empty signature)
    /// - `status` `{message, to, status, error?: {code, title, details}}`
    fn control(
        &mut self,
        now: Now,
        action: &str,
        arguments: &Value,
        out: &mut Vec<Output>,
    ) -> Result<Value, String> {
        let from = arguments["from"].as_str().unwrap_or("15551111111").to_owned();
        let name = arguments["name"].as_str().map(str::to_owned);
        if let Some(name) = name {
            self.names.insert(from.clone(), name);
        }
        let mut message = json!({"from": from, "id": self.wamid(), "timestamp": now.unix_s().to_string()});
        let mut signature = None;
        match action {
            "subscribe" => {
                let url = text(arguments, "url").to_owned();
                self.webhook = Some(Webhook { url: url.clone(), verified: false });
                self.verify(&url, "wrong-verify-token", out);
                let token = self.verify_token.clone();
                self.verify(&url, &token, out);
                return Ok(json!({}));
            }
            "status" => {
                let (id, to, status) =
                    (text(arguments, "message"), text(arguments, "to"), text(arguments, "status"));
                let error = &arguments["error"];
                let failed = error["code"]
                    .as_u64()
                    .map(|code| failure(400, code, text(error, "title"), text(error, "details")));
                self.status(now, id, to, status, failed.as_ref(), out);
                return Ok(json!({}));
            }
            "forge" => {
                message["type"] = json!("text");
                message["text"] = json!({"body": arguments["text"]});
                let wrong = format!("sha256={}", "0".repeat(64));
                signature = Some(arguments["signature"].as_str().unwrap_or(&wrong).to_owned());
            }
            "message" => {
                let file = &arguments["file"];
                if let Some(kind) = file["kind"].as_str() {
                    let bytes = match file["base64"].as_str() {
                        Some(text) => BASE64.decode(text.as_bytes()).map_err(|error| error.to_string())?,
                        None => {
                            vec![0x5A; usize::try_from(file["size"].as_u64().unwrap_or(16)).unwrap_or(16)]
                        }
                    };
                    let mime = file["mime"].as_str().unwrap_or("application/octet-stream");
                    let mut media =
                        json!({"mime_type": mime, "sha256": HEXLOWER.encode(&Sha256::digest(&bytes))});
                    media["id"] = json!(self.store(mime, bytes));
                    for field in ["caption", "filename"] {
                        if let Some(value) = file.get(if field == "filename" { "name" } else { field }) {
                            media[field] = value.clone();
                        }
                    }
                    message["type"] = json!(kind);
                    message[kind] = media;
                } else {
                    message["type"] = json!("text");
                    message["text"] = json!({"body": text(arguments, "text")});
                }
                if let Some(reply) = arguments.get("reply_to") {
                    message["context"] = json!({"from": self.number, "id": reply});
                }
                for (name, value) in arguments["extra"].as_object().into_iter().flatten() {
                    message[name] = value.clone();
                }
            }
            "react" => {
                message["type"] = json!("reaction");
                message["reaction"] =
                    json!({"message_id": arguments["message"], "emoji": arguments["emoji"]});
            }
            "press" => {
                message["type"] = json!("interactive");
                message["context"] = json!({"from": self.number, "id": arguments["message"]});
                message["interactive"] = json!({"type": "button_reply",
                    "button_reply": {"id": arguments["id"], "title": text(arguments, "title")}});
            }
            _ => return Err(format!("whatsapp cannot do {action:?}")),
        }
        let id = message["id"].clone();
        if signature.is_none() {
            self.heard.insert(from.clone(), now.ms);
            self.inbound.push(message.clone());
        }
        let profile = self.names.get(&from).cloned().unwrap_or_else(|| format!("User {from}"));
        let value =
            json!({"contacts": [{"profile": {"name": profile}, "wa_id": from}], "messages": [message]});
        self.notify(now, &value, signature, out);
        Ok(json!({"id": id}))
    }

    fn refusal(&self, status: u16, _retry_after_ms: Option<u64>) -> Response {
        let failed = match status {
            429 => failure(429, 130_429, "Rate limit hit", ""),
            500.. => failure(status, 131_000, "Something went wrong", ""),
            _ => failure(status, 1, "refused", ""),
        };
        Response::json(status, &failed.body())
    }

    fn state(&self) -> Value {
        let media: Map<String, Value> = self
            .media
            .iter()
            .map(|(id, known)| (id.clone(), json!({"type": known.kind, "bytes": known.bytes.len()})))
            .collect();
        json!({
            "sent": self.sent, "read": self.read, "media": media, "undelivered": self.order.len(),
            "verified": self.webhook.as_ref().is_some_and(|webhook| webhook.verified), "verifications": self.verifications,
        })
    }
}
