//! OpenClaw's older files of auth profiles: `auth-profiles.json`, and `auth.json` before it.
//!
//! Read as `src/agents/auth-profiles/persisted.ts` reads them. What a file says of failures and cooldowns is of another
//! time and is left behind.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::oauth;
use super::profile::{self, ProfileType, Record, State};
use crate::secrets::{Entries, Secret};
use crate::{Code, CoreError, Result};

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// How many profiles were added.
    pub imported: usize,
    /// The others: id, and why not.
    pub skipped: Vec<String>,
}

/// Files of people have a few profiles, of some hundred bytes each.
const MAX_JSON: usize = 4 << 20;

/// The fields of a profile that are read.
const FIELDS: [&str; 16] = [
    "type",
    "mode",
    "provider",
    "email",
    "key",
    "keyRef",
    "apiKey",
    "token",
    "tokenRef",
    "access",
    "refresh",
    "oauthRef",
    "expires",
    "clientId",
    "tokenEndpoint",
    "deviceAuthorizationEndpoint",
];

/// Where OpenClaw's own refresh was under way: the token is not there.
const FENCE: &[u8] = b"openclaw-oauth-refresh-fence:";

/// A string that may be secret, and goes into its own memory; or something else, of which only this is kept.
#[derive(Default)]
enum Value {
    #[default]
    Absent,
    Text(Secret),
    Number(f64),
    /// An object or list, such as a `SecretRef`.
    Other,
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
                let text = text.trim();
                Ok(if text.is_empty() {
                    Value::Absent
                } else {
                    Value::Text(Secret::copy_of(text.as_bytes()))
                })
            }
            fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
                Ok(Value::Number(number))
            }
            #[expect(clippy::cast_precision_loss, reason = "a time in milliseconds")]
            fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
                Ok(Value::Number(number as f64))
            }
            #[expect(clippy::cast_precision_loss, reason = "a time in milliseconds")]
            fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
                Ok(Value::Number(number as f64))
            }
            fn visit_bool<E: Error>(self, _: bool) -> Result<Value, E> {
                Ok(Value::Other)
            }
            fn visit_unit<E: Error>(self) -> Result<Value, E> {
                Ok(Value::Absent)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Value::Other)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Value::Other)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl Value {
    fn secret(&self) -> Option<&Secret> {
        if let Self::Text(secret) = self { Some(secret) } else { None }
    }

    fn text(&self) -> Option<&str> {
        self.secret().and_then(|secret| secret.expose_str().ok())
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped by `as`")]
    fn time(&self) -> Option<u64> {
        // A time that is none counts as long past.
        match self {
            Self::Absent => None,
            Self::Number(number) => Some(*number as u64),
            _ => Some(0),
        }
    }
}

/// A profile of the file; unknown fields are left behind.
struct Credential(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Credential {
    /// What is no object has no fields, and is skipped later.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Credential;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a profile")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Credential, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if FIELDS.contains(&name.as_str()) {
                        fields.insert(name, map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Credential(fields))
            }
            fn visit_str<E: Error>(self, _: &str) -> Result<Credential, E> {
                Ok(Credential(BTreeMap::new()))
            }
            fn visit_u64<E: Error>(self, _: u64) -> Result<Credential, E> {
                Ok(Credential(BTreeMap::new()))
            }
            fn visit_i64<E: Error>(self, _: i64) -> Result<Credential, E> {
                Ok(Credential(BTreeMap::new()))
            }
            fn visit_f64<E: Error>(self, _: f64) -> Result<Credential, E> {
                Ok(Credential(BTreeMap::new()))
            }
            fn visit_bool<E: Error>(self, _: bool) -> Result<Credential, E> {
                Ok(Credential(BTreeMap::new()))
            }
            fn visit_unit<E: Error>(self) -> Result<Credential, E> {
                Ok(Credential(BTreeMap::new()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Credential, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Credential(BTreeMap::new()))
            }
        }
        deserializer.deserialize_any(Fields)
    }
}

impl Credential {
    fn get(&self, name: &str) -> &Value {
        self.0.get(name).unwrap_or(&Value::Absent)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.get(name).text()
    }
}

#[derive(Deserialize)]
struct Store {
    profiles: Option<BTreeMap<String, Credential>>,
    #[serde(default)]
    order: BTreeMap<String, Vec<String>>,
}

pub(super) fn import(entries: &mut Entries, json: &Secret) -> Result<Imported> {
    let (profiles, order) = parse(json)?;
    let mut state = State::read(entries)?;
    let mut outcome = Imported::default();
    for (id, credential) in &profiles {
        match add(entries, &mut state, id, credential) {
            Ok(()) => outcome.imported += 1,
            Err(why) if profile::entry(id).is_ok() => outcome.skipped.push(format!("{id}: {why}")),
            // Such an id may be anything.
            Err(why) => outcome.skipped.push(why),
        }
    }
    for (provider, ids) in order {
        let Ok(provider) = profile::provider_id(&provider) else { continue };
        let belongs = |id: &String| state.profiles.get(id).is_some_and(|record| record.provider == provider);
        let ids: Vec<_> = ids.into_iter().filter(belongs).collect();
        if !ids.is_empty() {
            state.order.entry(provider).or_insert(ids);
        }
    }
    state.write(entries)?;
    Ok(outcome)
}

type Parsed = (BTreeMap<String, Credential>, BTreeMap<String, Vec<String>>);

fn parse(json: &Secret) -> Result<Parsed> {
    // The parser's own words would repeat what it found.
    let wrong = |why: &str| {
        let message = format!("this is no auth-profiles.json: {why}");
        CoreError::new(Code::Validation, message)
    };
    if json.len() > MAX_JSON {
        let message = format!("an auth-profiles.json has at most {MAX_JSON} bytes, not {}", json.len());
        return Err(CoreError::new(Code::Limit, message));
    }
    let store: Store = serde_json::from_slice(json.expose()).map_err(|error| {
        wrong(&format!("it is not JSON of its form at line {}, column {}", error.line(), error.column()))
    })?;
    if let Some(profiles) = store.profiles {
        return Ok((profiles, store.order));
    }
    // auth.json: the provider is the key.
    let mut flat: BTreeMap<String, Credential> =
        serde_json::from_slice(json.expose()).map_err(|_| wrong("it holds no profiles"))?;
    flat.retain(|_, credential| credential.text("type").or(credential.text("mode")).is_some());
    if flat.is_empty() {
        return Err(wrong("it holds no profiles"));
    }
    let named = flat.into_iter().map(|(provider, mut credential)| {
        if credential.text("provider").is_none() {
            let name = Value::Text(Secret::copy_of(provider.as_bytes()));
            credential.0.insert("provider".into(), name);
        }
        // OpenClaw names such a profile `<provider>:default`.
        let id = if provider.contains(':') { provider } else { format!("{provider}:default") };
        (id, credential)
    });
    Ok((named.collect(), BTreeMap::new()))
}

/// Adds one profile, or says why not.
fn add(entries: &mut Entries, state: &mut State, id: &str, credential: &Credential) -> Result<(), String> {
    profile::entry(id).map_err(|error| error.to_string())?;
    if state.profiles.contains_key(id) {
        return Err("there is one of this id already, which stays".into());
    }
    let provider = credential.text("provider").ok_or("it names no provider")?;
    let provider = profile::provider_id(provider).map_err(|error| error.to_string())?;
    let email = credential.text("email").map(ToOwned::to_owned);
    let (kind, fields): (_, &[&str]) = match credential.text("type").or(credential.text("mode")) {
        Some("api_key" | "apiKey") => (ProfileType::ApiKey, &["key", "apiKey"]),
        Some("token") => (ProfileType::Token, &["token"]),
        Some("oauth") => (ProfileType::OAuth, &["access"]),
        _ => return Err("its type is none of api_key, token and oauth".into()),
    };
    let reference = ["key", "keyRef", "token", "tokenRef", "oauthRef"]
        .iter()
        .any(|name| matches!(credential.get(name), Value::Other));
    let key = fields.iter().find_map(|name| credential.get(name).secret());
    let mut refresh = credential.get("refresh").secret();
    if kind != ProfileType::OAuth {
        refresh = None;
    } else if [key, refresh].into_iter().flatten().any(|token| token.expose().starts_with(FENCE)) {
        return Err("OpenClaw was refreshing it, and its token is not in the file: sign in again".into());
    }
    if key.is_none() && refresh.is_none() {
        return Err(if reference {
            "its secret is a reference, which OpenClaw resolves: store the secret itself".into()
        } else {
            "it holds no secret".into()
        });
    }
    let expires = if kind == ProfileType::ApiKey { None } else { credential.get("expires").time() };
    let mut record = Record::new(provider.clone(), kind, expires, email);
    if kind == ProfileType::OAuth {
        record.stale = key.is_none();
        // OpenClaw takes an OAuth token without a time for expired.
        if expires.is_none() && refresh.is_some() {
            record.stale = true;
        }
        record.client_id = credential.text("clientId").map(ToOwned::to_owned);
        if let Some(url) = credential.text("tokenEndpoint") {
            oauth::endpoint("tokenEndpoint", url).map_err(|error| error.message().to_owned())?;
            record.token_url = Some(url.to_owned());
        }
    }
    state.put(entries, id, record, key, refresh).map_err(|error| error.to_string())
}
