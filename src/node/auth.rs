//! `AuthProfiles`.

use napi::bindgen_prelude::{
    ClassInstance, Either, FromNapiValue, Function, JavaScriptClassExt, JsObjectValue, JsValue, Object,
    Unknown,
};
use napi::threadsafe_function::ThreadsafeFunctionCallMode;
use napi::{Env, Status, ValueType};
use napi_derive::napi;

use super::abort::Abort;
use super::args::{checked, count, name, word};
use super::error::{reify, wrong_argument};
use super::secrets::{CredentialStore, key_object, secret_argument};
use super::settle::settle;
use crate::auth::{
    self, AuthOptions, FailureReason, LoginFlow, LoginOptions, ProfileSecrets, ProfileType, Prompt,
};
use crate::http::{HttpOptions, Proxy};
use crate::secrets::Secret;
use crate::{Code, CoreError};

const TYPES: [(&str, ProfileType); 3] =
    [("api_key", ProfileType::ApiKey), ("oauth", ProfileType::OAuth), ("token", ProfileType::Token)];

const REASONS: [(&str, FailureReason); 5] = [
    ("rate_limit", FailureReason::RateLimit),
    ("auth", FailureReason::Auth),
    ("billing", FailureReason::Billing),
    ("overloaded", FailureReason::Overloaded),
    ("timeout", FailureReason::Timeout),
];

/// An account with a provider.
#[allow(dead_code, reason = "declares the type; the object is made and read field by field")]
#[napi(object, object_from_js = false)]
pub struct AuthProfile {
    /// Such as "openai:user@example.com": 1 to 100 bytes of printable text.
    pub id: String,
    /// The provider's id, in lower case.
    pub provider: String,
    /// "oauth": tokens of a sign-in, refreshed before they expire. "token": a bearer token that nobody refreshes.
    #[napi(js_name = "type", ts_type = "'api_key' | 'oauth' | 'token'")]
    pub kind: &'static str,
    /// When the token expires, in milliseconds since 1970; absent if that is not known, or never.
    pub expires_ms: Option<f64>,
    /// Whose account it is.
    pub email: Option<String>,
    /// True if the sign-in no longer holds: the profile is not used until someone signs in again.
    pub sign_in_again: Option<bool>,
    /// Until when it is not used, in milliseconds since 1970; if that is past, one caller at a time may try.
    pub cooldown_until_ms: Option<f64>,
}

/// The secrets of a profile: `apiKey` for type `api_key`, `accessToken` for "token", and `accessToken`, `refreshToken` or
/// both for "oauth".
#[napi(object, object_to_js = false)]
pub struct AuthSecrets<'env> {
    /// The access token.
    #[napi(ts_type = "ApiKey | string | Uint8Array")]
    pub access_token: Option<Unknown<'env>>,
    /// The refresh token.
    #[napi(ts_type = "ApiKey | string | Uint8Array")]
    pub refresh_token: Option<Unknown<'env>>,
    /// The API key.
    #[napi(ts_type = "ApiKey | string | Uint8Array")]
    pub api_key: Option<Unknown<'env>>,
}

/// How authorization servers are reached.
#[napi(object, object_to_js = false)]
pub struct AuthProfilesOptions<'env> {
    /// The URL of an HTTP proxy; "" for none. Default: as `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
    /// This machine is reached directly in any case.
    #[napi(ts_type = "string")]
    pub proxy: Option<Unknown<'env>>,
    /// A PEM file of certificate authorities to trust beside those of the system.
    #[napi(ts_type = "string")]
    pub ca_file: Option<Unknown<'env>>,
}

/// A provider's OAuth endpoints. They must be HTTPS, or on this machine. The client is a public one, without a secret.
#[allow(dead_code, reason = "declares the type; the object is read as JSON")]
#[napi(object, object_to_js = false)]
pub struct OAuthProvider {
    /// The provider's id, such as "openai".
    pub id: String,
    /// The client's id there.
    pub client_id: String,
    /// The authorization endpoint, for signing in with a browser on this machine (RFC 6749 with PKCE, RFC 7636).
    pub authorize_url: Option<String>,
    /// The token endpoint.
    pub token_url: String,
    /// The device authorization endpoint, for signing in with a browser elsewhere (RFC 8628).
    pub device_url: Option<String>,
    /// What to ask for.
    pub scopes: Vec<String>,
    /// The port of the redirect to 127.0.0.1; 0 or none for any free one.
    pub redirect_port: Option<u16>,
    /// The whole redirect URI, where the server has registered another than `http://127.0.0.1:<port>/callback`, such as
    /// `http://localhost:1455/auth/callback`.
    pub redirect_uri: Option<String>,
}

/// What a person is asked to do.
#[napi(object, object_from_js = false)]
pub struct LoginPrompt {
    /// The address to open.
    pub url: String,
    /// The code to enter there, with a device code.
    pub user_code: Option<String>,
}

/// How to sign in.
#[napi(object, object_to_js = false)]
pub struct AuthLoginOptions<'env> {
    /// Called once, with the address to open.
    #[napi(ts_type = "(prompt: LoginPrompt) => void")]
    pub on_prompt: Unknown<'env>,
    /// "browser": on this machine. "device": on any. Default: "browser" if the provider has an `authorizeUrl`.
    #[napi(ts_type = "'browser' | 'device'")]
    pub flow: Option<Unknown<'env>>,
    /// The profile to sign in. Default: `<provider>:<email>`, or `<provider>:default` if no email is known, as in OpenClaw, or
    /// if the first were too long.
    #[napi(ts_type = "string")]
    pub profile_id: Option<Unknown<'env>>,
    /// Aborts the call.
    #[napi(ts_type = "AbortSignal")]
    pub signal: Option<Unknown<'env>>,
}

/// What to prefer, and what aborts the call.
#[napi(object, object_to_js = false)]
pub struct ResolveOptions<'env> {
    /// The profile to use if it can be used.
    #[napi(ts_type = "string")]
    pub preferred: Option<Unknown<'env>>,
    /// Aborts the wait; a refresh that is under way goes on.
    #[napi(ts_type = "AbortSignal")]
    pub signal: Option<Unknown<'env>>,
}

/// The auth profiles of a credential store, which many processes may share: API keys, bearer tokens and OAuth sign-ins,
/// which of them is used when, and one refresh at a time.
#[napi]
pub struct AuthProfiles {
    pub(super) profiles: auth::AuthProfiles,
}

#[napi]
impl AuthProfiles {
    /// The profiles of a store. Rejects with `CRYPTO` if what is stored of them cannot be read.
    #[napi(
        catch_unwind,
        ts_args_type = "store: CredentialStore, options?: AuthProfilesOptions",
        ts_return_type = "Promise<AuthProfiles>"
    )]
    pub fn open<'env>(
        env: &'env Env,
        store: Unknown<'env>,
        options: Option<Either<AuthProfilesOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<Object<'env>> {
        if store.get_type()? != ValueType::Object || !CredentialStore::instance_of(env, &store)? {
            return Err(reify(env, &wrong_argument("store", "a CredentialStore", &store)));
        }
        let store = ClassInstance::<CredentialStore>::from_unknown(store)?.store.clone();
        let mut how = AuthOptions::default();
        if let Some(options) = checked(env, options)? {
            let proxy = options.proxy.map(|proxy| name(env, "proxy", proxy)).transpose()?;
            let ca_file = options.ca_file.map(|file| name(env, "caFile", file)).transpose()?;
            how.http = HttpOptions {
                proxy: match proxy {
                    None => Proxy::Environment,
                    Some(url) if url.is_empty() => Proxy::None,
                    Some(url) => Proxy::Url { url, no_proxy: None },
                },
                ca_file: ca_file.map(Into::into),
                ..how.http
            };
        }
        settle(
            env,
            Abort::never(),
            |_| auth::AuthProfiles::open(store, how),
            |_, profiles| Ok(Self { profiles }),
        )
    }

    /// Every profile, or those of a provider, by id.
    #[napi(catch_unwind, ts_args_type = "provider?: string", ts_return_type = "Promise<AuthProfile[]>")]
    pub fn list<'env>(&self, env: &'env Env, provider: Option<Unknown<'env>>) -> napi::Result<Object<'env>> {
        let provider = optional_name(env, "provider", provider)?;
        let profiles = self.profiles.clone();
        settle(
            env,
            Abort::never(),
            |_| async move { profiles.list(provider.as_deref()).await },
            |_, found| Ok(found.into_iter().map(profile_object).collect::<Vec<_>>()),
        )
    }

    /// Adds a profile, or replaces the one of this id, and forgets its failures. Rejects with `VALIDATION` if the secrets
    /// are not those of its type.
    #[napi(
        catch_unwind,
        ts_args_type = "profile: AuthProfile, secrets: AuthSecrets",
        ts_return_type = "Promise<void>"
    )]
    pub fn add<'env>(
        &self,
        env: &'env Env,
        profile: Unknown<'env>,
        secrets: Either<AuthSecrets<'env>, Unknown<'env>>,
    ) -> napi::Result<Object<'env>> {
        let profile = profile_argument(env, &profile)?;
        let secrets = match secrets {
            Either::A(secrets) => secrets,
            Either::B(other) => return Err(reify(env, &wrong_argument("secrets", "an object", &other))),
        };
        let secret = |what: &str, value: Option<Unknown<'_>>| -> napi::Result<Option<Secret>> {
            value.map(|value| secret_argument(env, what, value)).transpose()
        };
        let secrets = ProfileSecrets {
            access_token: secret("accessToken", secrets.access_token)?,
            refresh_token: secret("refreshToken", secrets.refresh_token)?,
            api_key: secret("apiKey", secrets.api_key)?,
        };
        let profiles = self.profiles.clone();
        let add = |_| async move { profiles.add(profile, secrets).await };
        settle(env, Abort::never(), add, |_, ()| Ok(()))
    }

    /// Removes a profile and its secrets; false if there was none.
    #[napi(catch_unwind, ts_args_type = "id: string", ts_return_type = "Promise<boolean>")]
    pub fn remove<'env>(&self, env: &'env Env, id: Unknown<'env>) -> napi::Result<Object<'env>> {
        let id = name(env, "id", id)?;
        let profiles = self.profiles.clone();
        let remove = |_| async move { profiles.remove(&id).await };
        settle(env, Abort::never(), remove, |_, removed| Ok(removed))
    }

    /// A secret that can be used for the provider: of the preferred profile if that can be used, else of the first in order
    /// that can. An OAuth token is refreshed first if it has less than five minutes to live, once, however many tasks
    /// and processes ask. The order is OpenClaw's: `setOrder`, else OAuth before tokens before keys, the longest unused
    /// first.
    ///
    /// Rejects with `CREDENTIAL_NOT_FOUND` if the provider has no profile, `AUTH_EXPIRED` if someone must sign in again,
    /// `AUTH_REFRESH` if a token cannot be refreshed now, and `LIMIT` with `retryAfterMs` if every profile cools down.
    #[napi(
        catch_unwind,
        ts_args_type = "provider: string, options?: ResolveOptions",
        ts_return_type = "Promise<{ profile: AuthProfile, key: ApiKey }>"
    )]
    pub fn resolve<'env>(
        &self,
        env: &'env Env,
        provider: Unknown<'env>,
        options: Option<Either<ResolveOptions<'env>, Unknown<'env>>>,
    ) -> napi::Result<Object<'env>> {
        let provider = name(env, "provider", provider)?;
        let options = checked(env, options)?;
        let (preferred, signal) = options.map_or((None, None), |options| (options.preferred, options.signal));
        let preferred = optional_name(env, "preferred", preferred)?;
        let abort = Abort::from_signal(env, signal)?;
        let profiles = self.profiles.clone();
        settle(
            env,
            abort,
            |_| async move { profiles.resolve(&provider, preferred.as_deref()).await },
            |env, resolved| {
                let mut object = Object::new(env)?;
                object.set("profile", profile_object(resolved.profile))?;
                object.set("key", key_object(env, resolved.key)?)?;
                Ok(Object::from_raw(env.raw(), object.raw()).to_unknown())
            },
        )
    }

    /// Records that a call with this profile failed, and until when it is not to be used. `rate_limit`: 30 s, doubled with each
    /// failed attempt after a window, to a day at most; `billing`: 10 min; the others: 30 s, 1 min, 5 min. `retryAfterMs`, what
    /// the server asked for, counts instead, to a day at most. While a window is open, only that makes it longer.
    #[napi(
        catch_unwind,
        ts_args_type = "id: string, reason: 'rate_limit' | 'auth' | 'billing' | 'overloaded' | 'timeout', retryAfterMs?: number",
        ts_return_type = "Promise<{ cooldownUntilMs: number }>"
    )]
    pub fn mark_failure<'env>(
        &self,
        env: &'env Env,
        id: Unknown<'env>,
        reason: Unknown<'env>,
        retry_after_ms: Option<Unknown<'env>>,
    ) -> napi::Result<Object<'env>> {
        let id = name(env, "id", id)?;
        let Some(reason) = word(env, "reason", Some(reason), &REASONS)? else {
            return Err(reify(env, &CoreError::new(Code::Validation, "`reason` is missing")));
        };
        let retry_after = count(env, "retryAfterMs", retry_after_ms, 0)?;
        let profiles = self.profiles.clone();
        let mark = move |_| async move { profiles.mark_failure(&id, reason, retry_after).await };
        settle(env, Abort::never(), mark, |env, until| {
            let mut object = Object::new(env)?;
            object.set("cooldownUntilMs", ms(until))?;
            Ok(Object::from_raw(env.raw(), object.raw()).to_unknown())
        })
    }

    /// Records that a call with this profile succeeded: its failures are forgotten.
    #[napi(catch_unwind, ts_args_type = "id: string", ts_return_type = "Promise<void>")]
    pub fn mark_success<'env>(&self, env: &'env Env, id: Unknown<'env>) -> napi::Result<Object<'env>> {
        let id = name(env, "id", id)?;
        let profiles = self.profiles.clone();
        let mark = |_| async move { profiles.mark_success(&id).await };
        settle(env, Abort::never(), mark, |_, ()| Ok(()))
    }

    /// Uses these profiles of a provider, in this order, and no others; with none, all of them in OpenClaw's order.
    #[napi(catch_unwind, ts_args_type = "provider: string, ids: string[]", ts_return_type = "Promise<void>")]
    pub fn set_order<'env>(
        &self,
        env: &'env Env,
        provider: Unknown<'env>,
        ids: Unknown<'env>,
    ) -> napi::Result<Object<'env>> {
        let provider = name(env, "provider", provider)?;
        if !ids.is_array()? {
            return Err(reify(env, &wrong_argument("ids", "an array of strings", &ids)));
        }
        let ids: Vec<Unknown<'_>> = Vec::from_unknown(ids)?;
        let ids = ids.into_iter().map(|id| name(env, "ids", id)).collect::<napi::Result<Vec<_>>>()?;
        let profiles = self.profiles.clone();
        let set = |_| async move { profiles.set_order(&provider, ids).await };
        settle(env, Abort::never(), set, |_, ()| Ok(()))
    }

    /// Keeps a provider's OAuth endpoints in the store, so that every process can refresh the tokens of profiles that were added
    /// without any. Profiles that signed in, or were imported with theirs, keep those.
    #[napi(catch_unwind, ts_args_type = "provider: OAuthProvider", ts_return_type = "Promise<void>")]
    pub fn register_provider<'env>(
        &self,
        env: &'env Env,
        provider: Unknown<'env>,
    ) -> napi::Result<Object<'env>> {
        let provider = provider_argument(env, &provider)?;
        let profiles = self.profiles.clone();
        let register = |_| async move { profiles.register_provider(provider).await };
        settle(env, Abort::never(), register, |_, ()| Ok(()))
    }

    /// Imports the text of OpenClaw's older `auth-profiles.json` or `auth.json`. A profile that is here already stays, the
    /// endpoints in the text are those of its own profiles only, and cooldowns are left behind; `skipped` says which profiles
    /// were not imported, and why.
    #[napi(
        catch_unwind,
        ts_args_type = "authProfilesJson: string | Uint8Array",
        ts_return_type = "Promise<{ imported: number, skipped: string[] }>"
    )]
    pub fn import_legacy<'env>(
        &self,
        env: &'env Env,
        auth_profiles_json: Unknown<'env>,
    ) -> napi::Result<Object<'env>> {
        let json = secret_argument(env, "authProfilesJson", auth_profiles_json)?;
        let profiles = self.profiles.clone();
        let import = |_| async move { profiles.import_legacy(json).await };
        settle(env, Abort::never(), import, |env, outcome| {
            let mut object = Object::new(env)?;
            object.set("imported", u32::try_from(outcome.imported).unwrap_or(u32::MAX))?;
            object.set("skipped", outcome.skipped)?;
            Ok(Object::from_raw(env.raw(), object.raw()).to_unknown())
        })
    }

    /// Signs in, and stores the tokens as a profile, together with the `tokenUrl` and `clientId` they came from: they are
    /// refreshed there and nowhere else. With a browser on this machine: authorization code with PKCE, S256, and a redirect to
    /// 127.0.0.1 whose `state` is checked. Elsewhere: device code.
    ///
    /// Rejects with `AUTH_EXPIRED` if the person said no or took too long, `AUTH_REFRESH` if the server gave no tokens, `IO`
    /// if the redirect's port is taken, and, before anyone is asked, `VALIDATION` for a profile's id that is not 1 to 100 bytes
    /// of printable text.
    #[napi(
        catch_unwind,
        ts_args_type = "provider: OAuthProvider, options: AuthLoginOptions",
        ts_return_type = "Promise<AuthProfile>"
    )]
    pub fn login<'env>(
        &self,
        env: &'env Env,
        provider: Unknown<'env>,
        options: Either<AuthLoginOptions<'env>, Unknown<'env>>,
    ) -> napi::Result<Object<'env>> {
        let provider = provider_argument(env, &provider)?;
        let options = match options {
            Either::A(options) => options,
            Either::B(other) => return Err(reify(env, &wrong_argument("options", "an object", &other))),
        };
        if options.on_prompt.get_type()? != ValueType::Function {
            return Err(reify(env, &wrong_argument("onPrompt", "a function", &options.on_prompt)));
        }
        let how = LoginOptions {
            flow: word(
                env,
                "flow",
                options.flow,
                &[("browser", LoginFlow::Browser), ("device", LoginFlow::Device)],
            )?,
            profile_id: optional_name(env, "profileId", options.profile_id)?,
        };
        let abort = Abort::from_signal(env, options.signal)?;
        let prompt = Function::<LoginPrompt, Unknown<'_>>::from_unknown(options.on_prompt)?
            .build_threadsafe_function::<LoginPrompt>()
            .error_status::<Status>()
            .callee_handled::<false>()
            .build()?;
        let profiles = self.profiles.clone();
        let login = |_| async move {
            let tell = move |Prompt { url, user_code }| {
                prompt.call(LoginPrompt { url, user_code }, ThreadsafeFunctionCallMode::NonBlocking);
            };
            profiles.login(provider, how, tell).await
        };
        settle(env, abort, login, |_, profile| Ok(profile_object(profile)))
    }
}

fn optional_name(env: &Env, what: &str, value: Option<Unknown<'_>>) -> napi::Result<Option<String>> {
    value.map(|value| name(env, what, value)).transpose()
}

fn profile_object(profile: auth::AuthProfile) -> AuthProfile {
    AuthProfile {
        id: profile.id,
        provider: profile.provider,
        kind: profile.kind.as_str(),
        expires_ms: profile.expires_ms.map(ms),
        email: profile.email,
        sign_in_again: profile.sign_in_again.then_some(true),
        cooldown_until_ms: profile.cooldown_until_ms.map(ms),
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds fit for 285,000 years")]
fn ms(ms: u64) -> f64 {
    ms as f64
}

fn profile_argument(env: &Env, value: &Unknown<'_>) -> napi::Result<auth::AuthProfile> {
    let object = object_argument(env, "profile", value)?;
    let field = |name: &str| -> napi::Result<Option<Unknown<'_>>> {
        let value = object.get_named_property::<Unknown<'_>>(name)?;
        let absent = matches!(value.get_type()?, ValueType::Undefined | ValueType::Null);
        Ok((!absent).then_some(value))
    };
    let text = |what: &str| -> napi::Result<String> {
        name(env, &format!("profile.{what}"), object.get_named_property(what)?)
    };
    let kind = word(env, "profile.type", Some(object.get_named_property("type")?), &TYPES)?;
    Ok(auth::AuthProfile {
        id: text("id")?,
        provider: text("provider")?,
        kind: kind.unwrap_or(ProfileType::ApiKey),
        expires_ms: count(env, "profile.expiresMs", field("expiresMs")?, 0)?,
        email: optional_name(env, "profile.email", field("email")?)?,
        sign_in_again: false,
        cooldown_until_ms: None,
    })
}

fn provider_argument(env: &Env, value: &Unknown<'_>) -> napi::Result<auth::OAuthProvider> {
    let object = object_argument(env, "provider", value)?;
    let text = |what: &str| -> napi::Result<String> {
        name(env, &format!("provider.{what}"), object.get_named_property(what)?)
    };
    let field = |what: &str| -> napi::Result<Option<Unknown<'_>>> {
        let value = object.get_named_property::<Unknown<'_>>(what)?;
        let absent = matches!(value.get_type()?, ValueType::Undefined | ValueType::Null);
        Ok((!absent).then_some(value))
    };
    let optional = |what: &str| -> napi::Result<Option<String>> {
        optional_name(env, &format!("provider.{what}"), field(what)?)
    };
    let scopes = object.get_named_property::<Unknown<'_>>("scopes")?;
    if !scopes.is_array()? {
        return Err(reify(env, &wrong_argument("provider.scopes", "an array of strings", &scopes)));
    }
    let scopes: Vec<Unknown<'_>> = Vec::from_unknown(scopes)?;
    let port = count(env, "provider.redirectPort", field("redirectPort")?, 0)?;
    let redirect_port = port
        .map(u16::try_from)
        .transpose()
        .map_err(|_| reify(env, &CoreError::new(Code::Validation, "`provider.redirectPort` is no port")))?;
    Ok(auth::OAuthProvider {
        id: text("id")?,
        client_id: text("clientId")?,
        authorize_url: optional("authorizeUrl")?,
        token_url: text("tokenUrl")?,
        device_url: optional("deviceUrl")?,
        scopes: scopes
            .into_iter()
            .map(|scope| name(env, "provider.scopes", scope))
            .collect::<napi::Result<Vec<_>>>()?,
        redirect_port,
        redirect_uri: optional("redirectUri")?,
    })
}

fn object_argument<'env>(env: &Env, what: &str, value: &Unknown<'env>) -> napi::Result<Object<'env>> {
    if value.get_type()? != ValueType::Object {
        return Err(reify(env, &wrong_argument(what, "an object", value)));
    }
    Ok(Object::from_raw(env.raw(), value.raw()))
}
