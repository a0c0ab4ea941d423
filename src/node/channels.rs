//! Channels: what `script.js` makes its classes of, the router, the allowlist and the splitter. The types of the classes
//! are in `header.d.ts`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use napi::bindgen_prelude::{
    Buffer, ClassInstance, Either, FnArgs, JavaScriptClassExt, JsObjectValue, Object, Uint8Array, Unknown,
};
use napi::{Env, JsString, JsValue, ValueType};
use napi_derive::napi;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::abort::Abort;
use super::args::{count, flag, name, stringify, text, word};
use super::error::{guard, reify, wrong_argument};
use super::events::EventStore;
use super::json;
use super::script::call;
use super::secrets::{is_key, secret_argument};
use super::settle::{settle, settle_in_the_end};
use crate::channels::allow::{self, Policy};
use crate::channels::channel::{self, Channel};
use crate::channels::chunk::{self, Mode, Unit};
use crate::channels::inbox::Delivery;
use crate::channels::message::{Attachment, OutboundFile, OutboundMessage, Sender};
use crate::channels::platform::{Call, PLATFORMS, Settings, Webhook};
use crate::channels::route::{self, Input};
use crate::channels::{lease, system, wire};
use crate::http::HttpOptions;
use crate::runtime::runtime;
use crate::{Code, CoreError};

/// Options that are secrets, also where they are strings.
const SECRETS: [&str; 7] =
    ["token", "appToken", "accessToken", "appSecret", "signingSecret", "verifyToken", "password"];

/// Puts the classes of `script.js` among the exports.
pub(super) fn export_classes(env: &Env, exports: &mut Object<'_>) -> napi::Result<()> {
    let native: Unknown<'_> = exports.get_named_property("__Channel")?;
    let kinds: Vec<&str> = PLATFORMS.iter().map(|platform| platform.class).collect();
    let ids: Vec<&str> = PLATFORMS.iter().map(|platform| platform.id).collect();
    let classes: Object<'_> = call(env, "channelClasses", FnArgs::from((native, kinds.clone(), ids)))?;
    for class in kinds.into_iter().chain(["Channel", "ChannelRegistry"]) {
        exports.set_named_property(class, classes.get_named_property::<Unknown<'_>>(class)?)?;
    }
    Ok(())
}

/// Present, and neither undefined nor null.
fn given<'env>(object: &Object<'env>, field: &str) -> napi::Result<Option<Unknown<'env>>> {
    let value: Unknown<'env> = object.get_named_property(field)?;
    let absent = matches!(value.get_type()?, ValueType::Undefined | ValueType::Null);
    Ok((!absent).then_some(value))
}

fn an_object<'env>(env: &'env Env, what: &str, value: &Unknown<'env>) -> napi::Result<Object<'env>> {
    if value.get_type()? != ValueType::Object {
        return Err(reify(env, &wrong_argument(what, "an object", value)));
    }
    Ok(Object::from_raw(env.raw(), value.raw()))
}

/// A value as JSON; `VALIDATION` if it has none.
fn plain(env: &Env, what: &str, value: Unknown<'_>) -> napi::Result<Value> {
    let text = stringify(env, value)?.unwrap_or_else(|| b"null".to_vec());
    guard(env, || {
        serde_json::from_slice(&text)
            .map_err(|error| CoreError::new(Code::Validation, format!("`{what}` is no JSON: {error}")))
    })
}

fn webhook(env: &Env, value: &Unknown<'_>) -> napi::Result<Webhook> {
    let object = an_object(env, "webhook", value)?;
    let host = match given(&object, "host")? {
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(host) => {
            let host = name(env, "webhook.host", host)?;
            guard(env, || {
                let wrong = || format!("`webhook.host` must be an address of this machine, not {host:?}");
                host.parse().map_err(|_| CoreError::new(Code::Validation, wrong()))
            })?
        }
    };
    let port = count(env, "webhook.port", given(&object, "port")?, 0)?;
    let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else {
        let message = "`webhook.port` must be a port: 0 to 65535";
        return Err(reify(env, &CoreError::new(Code::Validation, message)));
    };
    let path = match given(&object, "path")? {
        None => "/".to_owned(),
        Some(path) => name(env, "webhook.path", path)?,
    };
    let Some(secret) = given(&object, "secret")? else {
        let message = "`webhook.secret` must be an ApiKey or a string: without it anybody could call";
        return Err(reify(env, &CoreError::new(Code::Validation, message)));
    };
    Ok(Webhook { host, port, path, secret: secret_argument(env, "webhook.secret", secret)? })
}

/// The core of `Channel`.
#[napi(js_name = "__Channel")]
pub struct NativeChannel {
    channel: Arc<Channel>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileHead {
    name: String,
    mime_type: Option<String>,
}

#[napi]
impl NativeChannel {
    /// A channel of the platform of this id.
    #[napi(catch_unwind, constructor)]
    #[allow(clippy::needless_pass_by_value, reason = "as Node-API gives them")]
    pub fn new(env: &Env, id: String, options: Unknown<'_>) -> napi::Result<Self> {
        let object = an_object(env, "options", &options)?;
        let mut settings = Settings {
            account_id: "default".into(),
            secrets: BTreeMap::new(),
            base_url: None,
            webhook: None,
            options: Map::new(),
            wire: Arc::new(wire::Network::new(HttpOptions::default())),
            surroundings: system(),
        };
        let mut store = None;
        for field in Object::keys(&object)? {
            let Some(value) = given(&object, &field)? else { continue };
            match field.as_str() {
                "store" => {
                    let given = ClassInstance::<EventStore>::from_unknown_checked(env, value);
                    store = Some(
                        given.ok_or_else(|| reify(env, &wrong_argument("store", "an EventStore", &value)))?,
                    );
                }
                "accountId" => settings.account_id = route::account_id(&name(env, "accountId", value)?),
                "baseUrl" => settings.base_url = Some(name(env, "baseUrl", value)?),
                "webhook" => settings.webhook = Some(webhook(env, &value)?),
                _ if SECRETS.contains(&field.as_str()) || is_key(&value)? => {
                    settings.secrets.insert(field.clone(), secret_argument(env, &field, value)?);
                }
                _ => _ = settings.options.insert(field.clone(), plain(env, &field, value)?),
            }
        }
        let Some(store) = store else {
            let message = "`store` must be an EventStore: what comes in and goes out is kept there";
            return Err(reify(env, &CoreError::new(Code::Validation, message)));
        };
        let log = Arc::new(store.store(env)?);
        guard(env, || {
            let kind = PLATFORMS
                .iter()
                .find(|platform| platform.id == id)
                .ok_or_else(|| CoreError::new(Code::Validation, format!("there is no platform {id:?}")))?;
            let options = channel::Options {
                account_id: settings.account_id.clone(),
                log,
                surroundings: Arc::clone(&settings.surroundings),
                locks: lease::folder(),
            };
            Ok(Self { channel: Arc::new(Channel::new((kind.open)(settings)?, options)) })
        })
    }

    /// The platform.
    #[napi(catch_unwind, getter)]
    pub fn id(&self) -> &str {
        self.channel.id()
    }

    /// The account.
    #[napi(catch_unwind, getter)]
    pub fn account_id(&self) -> &str {
        self.channel.account_id()
    }

    /// The next messages, `[[number, redelivered, message], …]` as JSON text; null once the channel is closed.
    #[napi(catch_unwind, ts_return_type = "Promise<string | null>")]
    pub fn next<'env>(&self, env: &'env Env, most: u32, signal: Unknown<'env>) -> napi::Result<Object<'env>> {
        let channel = Arc::clone(&self.channel);
        let next = |_| async move { Ok(channel.next(most as usize).await?.map(|batch| encode(&batch))) };
        settle(env, abort(env, signal)?, next, |_, text| Ok(text))
    }

    /// These messages are done.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn ack<'env>(&self, env: &'env Env, numbers: Vec<f64>) -> napi::Result<Object<'env>> {
        let channel = Arc::clone(&self.channel);
        let ack = |_| async move { channel.ack(&whole(&numbers)).await };
        settle(env, Abort::never(), ack, |_, ()| Ok(()))
    }

    /// Nobody looked at these messages.
    #[napi(catch_unwind)]
    #[allow(clippy::needless_pass_by_value, reason = "as Node-API gives them")]
    pub fn release(&self, env: &Env, numbers: Vec<f64>) -> napi::Result<()> {
        let _within = runtime().map_err(|error| reify(env, &error))?.enter();
        guard(env, || {
            self.channel.release(&whole(&numbers));
            Ok(())
        })
    }

    /// Sends a message; `heads` and `files` are its attachments.
    #[napi(catch_unwind, ts_return_type = "Promise<unknown>")]
    #[allow(clippy::needless_pass_by_value, reason = "as Node-API gives them")]
    pub fn send<'env>(
        &self,
        env: &'env Env,
        message: String,
        heads: String,
        files: Vec<Uint8Array>,
        key: Option<String>,
        signal: Unknown<'env>,
    ) -> napi::Result<Object<'env>> {
        let message = guard(env, || {
            let wrong = |what: &str, error: serde_json::Error| {
                CoreError::new(Code::Validation, format!("{what} is not of its form: {error}"))
            };
            let mut message: OutboundMessage =
                serde_json::from_str(&message).map_err(|error| wrong("the message", error))?;
            let heads: Vec<FileHead> =
                serde_json::from_str(&heads).map_err(|error| wrong("an attachment", error))?;
            message.files = heads
                .into_iter()
                .zip(&files)
                .map(|(head, data)| OutboundFile {
                    data: data.to_vec().into(),
                    name: head.name,
                    mime_type: head.mime_type,
                })
                .collect();
            Ok(message)
        })?;
        let channel = Arc::clone(&self.channel);
        let send = |cancel: CancellationToken| async move {
            let receipt = channel.send(message, key, &cancel).await?;
            Ok(serde_json::to_string(&receipt).unwrap_or_default())
        };
        settle_in_the_end(env, abort(env, signal)?, send, |env, json| {
            Ok(unbound(env, &json::parse_plain(env, &json)?))
        })
    }

    /// Changes a message.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn edit<'env>(
        &self,
        env: &'env Env,
        to: Unknown<'env>,
        message_id: Unknown<'env>,
        markdown: Unknown<'env>,
    ) -> napi::Result<Object<'env>> {
        let (to, message_id) = (text(env, "to", to)?, text(env, "messageId", message_id)?);
        self.make(env, Call::Edit { to, message_id, text: text(env, "text", markdown)? })
    }

    /// Reacts to a message.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn react<'env>(
        &self,
        env: &'env Env,
        to: Unknown<'env>,
        message_id: Unknown<'env>,
        emoji: Unknown<'env>,
    ) -> napi::Result<Object<'env>> {
        let (to, message_id) = (text(env, "to", to)?, text(env, "messageId", message_id)?);
        self.make(env, Call::React { to, message_id, emoji: text(env, "emoji", emoji)? })
    }

    /// Shows that the bot is writing.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn typing<'env>(
        &self,
        env: &'env Env,
        to: Unknown<'env>,
        thread_id: Option<String>,
    ) -> napi::Result<Object<'env>> {
        self.make(env, Call::Typing { to: text(env, "to", to)?, thread_id })
    }

    /// Fetches an attachment, given as JSON.
    #[napi(catch_unwind, ts_return_type = "Promise<Buffer>")]
    #[allow(clippy::needless_pass_by_value, reason = "as Node-API gives them")]
    pub fn download<'env>(
        &self,
        env: &'env Env,
        attachment: String,
        max_bytes: Unknown<'env>,
        signal: Unknown<'env>,
    ) -> napi::Result<Object<'env>> {
        let attachment: Attachment = guard(env, || {
            serde_json::from_str(&attachment)
                .map_err(|_| CoreError::new(Code::Validation, "this is no attachment of a message"))
        })?;
        let absent = matches!(max_bytes.get_type()?, ValueType::Undefined | ValueType::Null);
        let most = count(env, "maxBytes", (!absent).then_some(max_bytes), 1)?;
        let most = most.map_or(DOWNLOAD_BYTES, |most| usize::try_from(most).unwrap_or(usize::MAX));
        let channel = Arc::clone(&self.channel);
        let fetch = |_| async move { channel.download(&attachment, most).await };
        settle(env, abort(env, signal)?, fetch, |_, data| Ok(Buffer::from(Vec::from(data))))
    }

    /// How the channel is, as JSON text.
    #[napi(catch_unwind)]
    pub fn status(&self) -> String {
        let status = self.channel.status();
        let mut out = Map::new();
        out.insert("state".into(), status.state.as_str().into());
        if let Some(ago) = status.last_verified {
            let ms = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
            out.insert("lastVerifiedMs".into(), ms.into());
        }
        if let Some(error) = status.error {
            out.insert("error".into(), error.into());
        }
        out.insert("queued".into(), status.queued.into());
        out.insert("waiting".into(), status.waiting.into());
        Value::Object(out).to_string()
    }

    /// Ends it.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn close<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let channel = Arc::clone(&self.channel);
        let close = |_| async move {
            channel.close().await;
            Ok(())
        };
        settle(env, Abort::never(), close, |_, ()| Ok(()))
    }
}

impl NativeChannel {
    fn make<'env>(&self, env: &'env Env, call: Call) -> napi::Result<Object<'env>> {
        let channel = Arc::clone(&self.channel);
        settle(env, Abort::never(), |_| async move { channel.make(call).await }, |_, ()| Ok(()))
    }
}

/// The most bytes of a download, unless the caller says otherwise.
const DOWNLOAD_BYTES: usize = 20 << 20;

fn encode(batch: &[Delivery]) -> String {
    let mut text = String::from("[");
    for Delivery { number, redelivered, json } in batch {
        if text.len() > 1 {
            text.push(',');
        }
        _ = write!(text, "[{number},{redelivered},{json}]");
    }
    text.push(']');
    text
}

/// Numbers that were given to JavaScript before.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, and not negative")]
fn whole(numbers: &[f64]) -> Vec<u64> {
    numbers.iter().map(|number| *number as u64).collect()
}

fn abort(env: &Env, signal: Unknown<'_>) -> napi::Result<Abort> {
    let given = !matches!(signal.get_type()?, ValueType::Undefined | ValueType::Null);
    Abort::from_signal(env, given.then_some(signal))
}

/// The handle is used before the scope of this callback closes.
fn unbound<'env>(env: &Env, value: &impl JsValue<'env>) -> Unknown<'static> {
    Object::from_raw(env.raw(), value.raw()).to_unknown()
}

trait FromChecked<'env>: Sized {
    fn from_unknown_checked(env: &Env, value: Unknown<'env>) -> Option<Self>;
}

impl<'env> FromChecked<'env> for ClassInstance<'env, EventStore> {
    /// None if it is no instance.
    fn from_unknown_checked(env: &Env, value: Unknown<'env>) -> Option<Self> {
        use napi::bindgen_prelude::FromNapiValue as _;
        if value.get_type().ok()? != ValueType::Object || !EventStore::instance_of(env, &value).ok()? {
            return None;
        }
        // SAFETY: an instance of the class, of this environment.
        unsafe { Self::from_napi_value(env.raw(), value.raw()) }.ok()
    }
}

/// OpenClaw's bindings: to which agent a message goes, and which session it belongs to. Reads a config as OpenClaw has
/// it once it is loaded; equal to OpenClaw 2026.9's `resolveAgentRoute`.
#[napi]
pub struct Router {
    router: route::Router,
}

#[napi]
impl Router {
    /// Reads `agents`, `bindings` and `session` of a config.
    #[napi(catch_unwind, constructor)]
    pub fn new(env: &Env, config: Unknown<'_>) -> napi::Result<Self> {
        let config = plain(env, "config", config)?;
        guard(env, || Ok(Self { router: route::Router::new(&config) }))
    }

    /// Where a message goes. The first binding of the most specific kind wins: the chat, its parent, all chats of the
    /// kind, guild and role, guild, team, account, channel, and then the default agent.
    ///
    /// Throws `VALIDATION` where OpenClaw throws: several agents are configured and none is named, or the one that is
    /// named does not exist.
    #[napi(
        catch_unwind,
        ts_args_type = "input: { channel: string; accountId?: string; peer?: { kind: string; id: string }; parentPeer?: { kind: string; id: string }; guildId?: string; teamId?: string; memberRoleIds?: string[]; defaultAgentId?: string; dmScope?: string; groupScope?: string }",
        ts_return_type = "{ agentId: string; channel: string; accountId: string; dmScope: string; groupScope: string; sessionKey: string; mainSessionKey: string; lastRoutePolicy: 'main' | 'session'; matchedBy: 'binding.peer' | 'binding.peer.parent' | 'binding.peer.wildcard' | 'binding.guild+roles' | 'binding.guild' | 'binding.team' | 'binding.account' | 'binding.channel' | 'default' }"
    )]
    pub fn resolve<'env>(&self, env: &'env Env, input: Unknown<'env>) -> napi::Result<Unknown<'env>> {
        let input = plain(env, "input", input)?;
        let route = guard(env, || self.router.resolve(&Input::read(&input)?))?;
        json::parse_plain(env, &serde_json::to_string(&route).unwrap_or_default())
    }
}

/// Whose direct messages count: OpenClaw's `dmPolicy` and `allowFrom`.
#[napi]
pub struct Allowlist {
    list: allow::Allowlist,
}

#[napi]
impl Allowlist {
    /// Entries are ids, or `*`. A name admits nobody, because anybody can take it, unless `matchNames` says so (OpenClaw's
    /// `dangerouslyAllowNameMatching`). Default of `policy`: `pairing`.
    #[napi(
        catch_unwind,
        constructor,
        ts_args_type = "entries: string[], options?: { policy?: 'open' | 'allowlist' | 'pairing' | 'disabled'; matchNames?: boolean }"
    )]
    pub fn new(env: &Env, entries: Unknown<'_>, options: Unknown<'_>) -> napi::Result<Self> {
        let wrong = || reify(env, &wrong_argument("entries", "an array of strings", &entries));
        let list = plain(env, "entries", entries)?;
        let list = list.as_array().ok_or_else(wrong)?;
        let list: Vec<&str> =
            list.iter().map(|entry| entry.as_str().ok_or_else(wrong)).collect::<napi::Result<_>>()?;
        let (mut policy, mut names) = (Policy::default(), false);
        if !matches!(options.get_type()?, ValueType::Undefined | ValueType::Null) {
            let options = an_object(env, "options", &options)?;
            let words = [
                ("open", Policy::Open),
                ("allowlist", Policy::Allowlist),
                ("pairing", Policy::Pairing),
                ("disabled", Policy::Disabled),
            ];
            policy = word(env, "policy", given(&options, "policy")?, &words)?.unwrap_or_default();
            names = flag(env, "matchNames", given(&options, "matchNames")?)?.unwrap_or(false);
        }
        Ok(Self { list: allow::Allowlist::new(list, policy).match_names(names) })
    }

    /// Whether a direct message of this sender counts; `reason` is OpenClaw's code.
    #[napi(
        catch_unwind,
        ts_args_type = "sender: { id: string; username?: string; name?: string }",
        ts_return_type = "{ allowed: boolean; reason: 'dm_policy_open' | 'dm_policy_allowlisted' | 'dm_policy_pairing_required' | 'dm_policy_not_allowlisted' | 'dm_policy_disabled' }"
    )]
    pub fn check<'env>(&self, env: &'env Env, sender: Unknown<'env>) -> napi::Result<Object<'env>> {
        let object = an_object(env, "sender", &sender)?;
        let field = |field: &str| given(&object, field)?.map(|value| text(env, field, value)).transpose();
        let Some(id) = field("id")? else {
            return Err(reify(env, &CoreError::new(Code::Validation, "`sender.id` must be a string")));
        };
        let sender = Sender { id, username: field("username")?, name: field("name")?, is_bot: false };
        let decision = guard(env, || Ok(self.list.check(&sender)))?;
        let mut out = Object::new(env)?;
        out.set("allowed", decision.allowed)?;
        out.set("reason", decision.reason)?;
        Ok(out)
    }
}

/// Splits a text into parts within `limit`, in the platform's unit (default: UTF-16 code units), as OpenClaw's
/// `chunkMarkdownTextWithMode` does: at line ends and spaces, not in parentheses or fenced code if it can be helped, never
/// within a code point, and within a grapheme only if that alone is too long. A fence that is split is closed and opened
/// again. With `mode: 'newline'` between paragraphs, as many as fit. A code point that is wider than `limit` is a part.
#[napi(
    catch_unwind,
    ts_args_type = "text: string, options: { limit: number; unit?: 'utf16' | 'utf8' | 'chars'; mode?: 'length' | 'newline' }",
    ts_return_type = "string[]"
)]
pub fn chunk_markdown<'env>(
    env: &'env Env,
    text: Either<JsString<'env>, Unknown<'env>>,
    options: Unknown<'env>,
) -> napi::Result<Vec<String>> {
    let text = String::from_utf8_lossy(&json::wtf8(env, "text", text)?).into_owned();
    let options = an_object(env, "options", &options)?;
    let Some(limit) = count(env, "limit", given(&options, "limit")?, 1)? else {
        return Err(reify(
            env,
            &CoreError::new(Code::Validation, "`limit` must be a whole number from 1 on"),
        ));
    };
    let units = [("utf16", Unit::Utf16), ("utf8", Unit::Utf8), ("chars", Unit::Chars)];
    let unit = word(env, "unit", given(&options, "unit")?, &units)?.unwrap_or_default();
    let modes = [("length", Mode::Length), ("newline", Mode::Newline)];
    let mode = word(env, "mode", given(&options, "mode")?, &modes)?.unwrap_or_default();
    guard(env, || Ok(chunk::split(&text, usize::try_from(limit).unwrap_or(usize::MAX), unit, mode)))
}
