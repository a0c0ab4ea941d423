//! The profiles over a real store, with a clock that the test moves. What needs an authorization server is in
//! `__test__/unit/auth.test.mjs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::runtime::runtime;
use crate::secrets::{CredentialStore, KeySource, Secret};
use crate::{Code, Result};

const START: u64 = 1_800_000_000_000;

struct Fixture {
    profiles: AuthProfiles,
    now: Arc<AtomicU64>,
    dir: tempfile::TempDir,
}

fn run<T>(work: impl Future<Output = T>) -> T {
    runtime().unwrap().block_on(work)
}

fn store(dir: &std::path::Path) -> CredentialStore {
    CredentialStore::open(dir, &KeySource::Raw(Secret::copy_of(&[7; 32]))).unwrap()
}

async fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicU64::new(START));
    let clock: Clock = {
        let now = Arc::clone(&now);
        Arc::new(move || now.load(Ordering::SeqCst))
    };
    let options = AuthOptions { clock, ..AuthOptions::default() };
    let profiles = AuthProfiles::open(store(&dir.path().join("store")), options).await.unwrap();
    Fixture { profiles, now, dir }
}

fn profile(id: &str, kind: ProfileType, expires_ms: Option<u64>) -> AuthProfile {
    AuthProfile {
        id: id.into(),
        provider: "sim".into(),
        kind,
        expires_ms,
        email: None,
        sign_in_again: false,
        cooldown_until_ms: None,
    }
}

fn secret(text: &str) -> Secret {
    Secret::copy_of(text.as_bytes())
}

impl Fixture {
    async fn key(&self, id: &str) {
        let secrets = ProfileSecrets { api_key: Some(secret(&format!("key of {id}"))), ..Default::default() };
        self.profiles.add(profile(id, ProfileType::ApiKey, None), secrets).await.unwrap();
    }

    async fn token(&self, id: &str, expires_ms: Option<u64>) {
        let secrets =
            ProfileSecrets { access_token: Some(secret(&format!("key of {id}"))), ..Default::default() };
        self.profiles.add(profile(id, ProfileType::Token, expires_ms), secrets).await.unwrap();
    }

    async fn oauth(&self, id: &str, expires_ms: u64) {
        let secrets = ProfileSecrets {
            access_token: Some(secret(&format!("key of {id}"))),
            refresh_token: Some(secret("refresh")),
            api_key: None,
        };
        self.profiles.add(profile(id, ProfileType::OAuth, Some(expires_ms)), secrets).await.unwrap();
    }

    async fn resolve(&self, preferred: Option<&str>) -> Result<String> {
        let resolved = self.profiles.resolve("sim", preferred).await?;
        assert_eq!(resolved.key.expose_str().unwrap(), format!("key of {}", resolved.profile.id));
        Ok(resolved.profile.id)
    }

    fn wait(&self, ms: u64) {
        self.now.fetch_add(ms, Ordering::SeqCst);
    }
}

#[test]
fn oauth_comes_before_tokens_before_keys_and_the_longest_unused_first() {
    run(async {
        let f = fixture().await;
        f.key("k").await;
        assert_eq!(f.resolve(None).await.unwrap(), "k");
        f.token("t", Some(START + 1000)).await;
        assert_eq!(f.resolve(None).await.unwrap(), "t");
        f.oauth("o1", START + 3_600_000).await;
        f.oauth("o2", START + 3_600_000).await;
        assert_eq!(f.resolve(None).await.unwrap(), "o1");
        f.profiles.mark_success("o1").await.unwrap();
        assert_eq!(f.resolve(None).await.unwrap(), "o2");
        assert_eq!(f.resolve(Some("k")).await.unwrap(), "k");
        assert_eq!(f.resolve(Some("nobody")).await.unwrap(), "o2");
        f.profiles.set_order("SIM ", vec!["k".into(), "t".into()]).await.unwrap();
        assert_eq!(f.resolve(None).await.unwrap(), "k");
        f.profiles.mark_failure("k", FailureReason::Overloaded, None).await.unwrap();
        assert_eq!(f.resolve(Some("k")).await.unwrap(), "t");
        f.wait(2000);
        // The token expired, and o1 and o2 are not in the order.
        let error = f.resolve(None).await.unwrap_err();
        assert_eq!((error.code(), error.details().retry_after_ms), (Code::Limit, Some(28_000)));
        assert!(error.message().contains("sign in again"), "{error}");
        f.profiles.set_order("sim", vec![]).await.unwrap();
        assert_eq!(f.resolve(None).await.unwrap(), "o2");
    });
}

#[test]
fn an_order_of_which_nothing_is_left_is_none_and_a_wrong_one_is_refused() {
    run(async {
        let f = fixture().await;
        f.key("a").await;
        f.key("b").await;
        f.profiles.set_order("sim", vec!["b".into()]).await.unwrap();
        assert!(f.profiles.remove("b").await.unwrap());
        assert!(!f.profiles.remove("b").await.unwrap());
        assert_eq!(f.resolve(None).await.unwrap(), "a");
        let unknown = f.profiles.set_order("sim", vec!["b".into()]).await.unwrap_err();
        assert_eq!(unknown.code(), Code::CredentialNotFound);
        let other = f.profiles.set_order("other", vec!["a".into()]).await.unwrap_err();
        assert_eq!(other.code(), Code::Validation);
        let none = f.profiles.resolve("other", None).await.unwrap_err();
        assert_eq!(none.code(), Code::CredentialNotFound);
    });
}

#[test]
fn after_a_cooldown_one_of_many_callers_in_two_openings_gets_the_profile() {
    run(async {
        let f = fixture().await;
        f.key("only").await;
        let until = f.profiles.mark_failure("only", FailureReason::RateLimit, None).await.unwrap();
        assert_eq!(until, START + 30_000);
        assert_eq!(f.resolve(None).await.unwrap_err().details().retry_after_ms, Some(30_000));
        f.wait(30_000);
        let other = AuthProfiles::open(store(&f.dir.path().join("store")), f.profiles.inner.options.clone())
            .await
            .unwrap();
        let mut calls = tokio::task::JoinSet::new();
        for call in 0..40 {
            let profiles = if call % 2 == 0 { f.profiles.clone() } else { other.clone() };
            calls.spawn(async move { profiles.resolve("sim", None).await.map_err(|error| error.code()) });
        }
        let outcomes = calls.join_all().await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(_) | Err(Code::Limit))));
        // Its failure opens the next window, twice as long; its success would end the matter.
        assert_eq!(
            f.profiles.mark_failure("only", FailureReason::RateLimit, None).await.unwrap(),
            START + 90_000
        );
        f.wait(60_000);
        f.resolve(None).await.unwrap();
        f.resolve(None).await.unwrap_err();
        f.profiles.mark_success("only").await.unwrap();
        for _ in 0..3 {
            f.resolve(None).await.unwrap();
        }
    });
}

#[test]
fn a_provider_that_manages_its_own_limits_does_not_cool_down() {
    run(async {
        let f = fixture().await;
        let profile =
            AuthProfile { provider: "OpenRouter".into(), ..profile("or", ProfileType::ApiKey, None) };
        let secrets = ProfileSecrets { api_key: Some(secret("key")), ..Default::default() };
        f.profiles.add(profile, secrets).await.unwrap();
        assert_eq!(f.profiles.mark_failure("or", FailureReason::RateLimit, Some(9)).await.unwrap(), START);
        f.profiles.resolve("openrouter", None).await.unwrap();
    });
}

#[test]
fn secrets_that_are_not_those_of_the_type_are_refused_and_so_are_wrong_ids() {
    run(async {
        let f = fixture().await;
        let key = || ProfileSecrets { api_key: Some(secret("k")), ..Default::default() };
        let access = || ProfileSecrets { access_token: Some(secret("k")), ..Default::default() };
        for (kind, secrets) in [
            (ProfileType::ApiKey, access()),
            (ProfileType::Token, key()),
            (ProfileType::OAuth, key()),
            (ProfileType::OAuth, ProfileSecrets::default()),
            (ProfileType::ApiKey, ProfileSecrets { refresh_token: Some(secret("r")), ..key() }),
        ] {
            let error = f.profiles.add(profile("p", kind, None), secrets).await.unwrap_err();
            assert_eq!(error.code(), Code::Validation);
        }
        let long = "x".repeat(101);
        let wide = ["é".repeat(50), "é".repeat(49)];
        for id in ["", "a\nb", &long, &"é".repeat(51)] {
            let error = f.profiles.add(profile(id, ProfileType::ApiKey, None), key()).await.unwrap_err();
            assert_eq!(error.code(), Code::Validation, "{id:?}");
        }
        for id in ["../../x", "a:b@c.example", "ä", "a_b", "a_5fb", "..", "/", &wide[0], &wide[1]] {
            f.profiles.add(profile(id, ProfileType::ApiKey, None), key()).await.unwrap();
        }
        assert_eq!(f.profiles.list(None).await.unwrap().len(), 9);
        // Each has an entry of its own.
        let kept = store(&f.dir.path().join("store")).list().unwrap();
        assert_eq!(kept.len(), 10);
    });
}

#[test]
fn without_endpoints_or_a_refresh_token_an_expired_sign_in_says_what_to_do() {
    run(async {
        let f = fixture().await;
        f.oauth("o", START + 1000).await;
        // Five minutes before the end it is due, but it works.
        f.resolve(None).await.unwrap();
        f.wait(1000);
        let error = f.resolve(None).await.unwrap_err();
        assert_eq!(error.code(), Code::AuthRefresh);
        assert!(error.message().contains("registerProvider"), "{error}");
        let access = ProfileSecrets { access_token: Some(secret("key of o")), ..Default::default() };
        f.profiles.add(profile("o", ProfileType::OAuth, Some(START)), access).await.unwrap();
        f.profiles.register_provider(provider("http://127.0.0.1:9/token")).await.unwrap();
        for _ in 0..2 {
            let error = f.resolve(None).await.unwrap_err();
            assert_eq!(error.code(), Code::AuthExpired);
            assert!(error.message().contains("sign in again"), "{error}");
        }
        assert!(f.profiles.list(Some("sim")).await.unwrap().iter().all(|profile| profile.sign_in_again));
    });
}

fn provider(token_url: &str) -> OAuthProvider {
    OAuthProvider {
        id: "Sim".into(),
        client_id: "client".into(),
        authorize_url: None,
        token_url: token_url.into(),
        device_url: None,
        scopes: vec![],
        redirect_port: None,
        redirect_uri: None,
    }
}

#[test]
fn a_server_that_is_not_there_leaves_no_doubt_and_no_mark() {
    run(async {
        let f = fixture().await;
        // A port that was free a moment ago, and is nobody's.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        f.profiles.register_provider(provider(&format!("http://127.0.0.1:{port}/token"))).await.unwrap();
        f.oauth("o", START).await;
        let error = f.resolve(None).await.unwrap_err();
        assert_eq!(error.code(), Code::AuthRefresh);
        let state = store(&f.dir.path().join("store")).get(profile::STATE).unwrap().unwrap();
        let state = profile::State::parse(Some(&state)).unwrap();
        let record = state.record("o").unwrap();
        assert!(
            record.refreshing.is_none() && record.refresh_failure.is_some() && record.sign_in_again.is_none()
        );
    });
}

#[test]
fn endpoints_must_be_encrypted_or_on_this_machine() {
    for url in ["https://id.example/token", "http://127.0.0.1:1/t", "http://[::1]:1/t", "http://localhost/t"]
    {
        provider(url).checked().unwrap();
    }
    for url in [
        "http://id.example/token",
        "http://127.0.0.1.example/t",
        "ftp://localhost/",
        "https://user:pw@id.example/t",
        "https://id.example/t#f",
        "/token",
        "",
    ] {
        assert_eq!(provider(url).checked().unwrap_err().code(), Code::Validation, "{url}");
    }
    for (uri, good) in [
        ("http://localhost:1455/auth/callback", true),
        ("http://127.0.0.1/cb", true),
        ("http://192.168.0.1/cb", false),
        ("https://localhost/cb", false),
        ("http://localhost/cb?x=1", false),
    ] {
        let given = OAuthProvider { redirect_uri: Some(uri.into()), ..provider("https://id.example/token") };
        assert_eq!(given.checked().is_ok(), good, "{uri}");
    }
}

/// The forms that `src/agents/auth-profiles/persisted.ts` of OpenClaw reads.
#[test]
fn the_older_files_of_openclaw_are_imported_and_what_cannot_be_is_named() {
    run(async {
        let f = fixture().await;
        f.key("mine").await;
        let fence = "openclaw-oauth-refresh-fence:v1:0:access:0";
        let json = serde_json::json!({
            "version": 1,
            "profiles": {
                "anthropic:default": { "type": "api_key", "provider": "Anthropic", "key": "sk-1" },
                "openai:a@b.example": { "type": "oauth", "provider": "openai", "access": "at", "refresh": "rt",
                    "expires": START + 9_000_000, "email": "a@b.example", "clientId": "app", "accountId": "x",
                    "tokenEndpoint": "https://id.example/token" },
                "old": { "mode": "apiKey", "provider": "x", "apiKey": " sk-2 " },
                "tok": { "type": "token", "provider": "x", "token": "t", "expires": -1 },
                "mine": { "type": "api_key", "provider": "sim", "key": "other" },
                "ref": { "type": "api_key", "provider": "x", "keyRef": { "source": "env", "id": "K" } },
                "ref2": { "type": "api_key", "provider": "x", "key": { "source": "env", "id": "K" } },
                "fenced": { "type": "oauth", "provider": "x", "access": fence, "refresh": fence, "expires": 1 },
                "empty": { "type": "oauth", "provider": "x" },
                "kind": { "type": "aws", "provider": "x" },
                "none": { "type": "api_key", "key": "k" },
                "list": [1, { "a": [] }], "number": 5, "null": null,
            },
            "order": { "X": ["tok", "gone", "old"], "sim": [], "openai": ["openai:a@b.example"] },
            "usageStats": { "old": { "cooldownUntil": START + 1_000_000 } },
        });
        let imported = f.profiles.import_legacy(secret(&json.to_string())).await.unwrap();
        assert_eq!(imported.imported, 4, "{imported:?}");
        assert_eq!(imported.skipped.len(), 10, "{imported:?}");
        assert!(!format!("{imported:?}").contains("sk-"));
        assert_eq!(f.resolve(None).await.unwrap(), "mine");
        let get = async |provider: &str| {
            let resolved = f.profiles.resolve(provider, None).await.unwrap();
            (resolved.profile.id, resolved.key.expose_str().unwrap().to_owned())
        };
        assert_eq!(get("anthropic").await, ("anthropic:default".into(), "sk-1".into()));
        assert_eq!(get("openai").await, ("openai:a@b.example".into(), "at".into()));
        // The token before it expired.
        assert_eq!(get("x").await, ("old".into(), "sk-2".into()));
        let again = f.profiles.import_legacy(secret(&json.to_string())).await.unwrap();
        assert_eq!((again.imported, again.skipped.len()), (0, 14));

        let flat = serde_json::json!({ "groq": { "type": "api_key", "key": "gk" }, "note": "x" });
        assert_eq!(f.profiles.import_legacy(secret(&flat.to_string())).await.unwrap().imported, 1);
        assert_eq!(get("groq").await, ("groq:default".into(), "gk".into()));
        for wrong in ["", "{", "[]", "{}", "{\"profiles\": 5}", "{\"key\": \"sk-canary\"}", "\"sk-canary\""] {
            let error = f.profiles.import_legacy(secret(wrong)).await.unwrap_err();
            assert_eq!(error.code(), Code::Validation);
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
    });
}

#[test]
fn a_state_of_a_newer_version_is_not_touched() {
    run(async {
        let f = fixture().await;
        let store = store(&f.dir.path().join("store"));
        store.set(profile::STATE, &secret("{\"version\":2,\"profiles\":{}}")).unwrap();
        assert_eq!(f.resolve(None).await.unwrap_err().code(), Code::Crypto);
        let secrets = ProfileSecrets { api_key: Some(secret("k")), ..Default::default() };
        f.profiles.add(profile("p", ProfileType::ApiKey, None), secrets).await.unwrap_err();
        assert!(store.get(profile::STATE).unwrap().unwrap().is(b"{\"version\":2,\"profiles\":{}}"));
    });
}

#[test]
fn what_stands_in_the_place_of_the_state_is_not_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    for wrong in [
        r#""sk-canary""#,
        r#"{"version":1,"profiles":{"a":{"provider":"sk-canary","type":"sk-canary","grant":1}}}"#,
        r#"{"version":1,"providers":{"x":{"sk-canary":5}}}"#,
    ] {
        store.set("auth.state", &secret(wrong)).unwrap();
        let Err(error) = run(AuthProfiles::open(store.clone(), AuthOptions::default())) else {
            panic!("{wrong}: opened")
        };
        assert_eq!(error.code(), Code::Crypto);
        assert!(error.message().contains("line 1, column"), "{error}");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    }
}

#[test]
fn a_file_of_profiles_has_a_limit() {
    run(async {
        let f = fixture().await;
        let json = |filling: usize| {
            let filling = " ".repeat(filling);
            secret(&format!(
                r#"{{"version":1,"profiles":{{"a":{{"type":"token","provider":"x","token":"t"}}}}{filling}}}"#
            ))
        };
        let most = (4 << 20) - json(0).len();
        let error = f.profiles.import_legacy(json(most + 1)).await.unwrap_err();
        assert_eq!(error.code(), Code::Limit);
        assert_eq!(f.profiles.import_legacy(json(most)).await.unwrap().imported, 1);
    });
}
