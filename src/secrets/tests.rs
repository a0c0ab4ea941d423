use super::*;
use crate::Code;

use std::fs;
use std::path::Path;

fn raw() -> KeySource {
    KeySource::Raw(Secret::copy_of(&[7; 32]))
}

fn secret(text: &str) -> Secret {
    Secret::copy_of(text.as_bytes())
}

fn text(store: &CredentialStore, name: &str) -> Option<String> {
    store.get(name).unwrap().map(|secret| secret.expose_str().unwrap().to_owned())
}

fn vault(dir: &Path) -> std::path::PathBuf {
    dir.join("credentials.vault")
}

#[test]
fn what_is_set_is_there_after_opening_again_and_is_nowhere_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = CredentialStore::open(dir.path(), &raw()).unwrap();
    assert_eq!(text(&store, "a"), None);
    store.set("a", &secret("first value")).unwrap();
    store.set("b/c.d_e-f", &secret("second value")).unwrap();
    store.set("a", &secret("third value")).unwrap();
    let again = CredentialStore::open(dir.path(), &raw()).unwrap();
    for store in [&store, &again] {
        assert_eq!(text(store, "a").as_deref(), Some("third value"));
        assert_eq!(text(store, "b/c.d_e-f").as_deref(), Some("second value"));
        assert!(store.has("a").unwrap() && !store.has("c").unwrap());
        let names: Vec<_> = store.list().unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["a", "b/c.d_e-f"]);
        assert_eq!(store.generation().unwrap(), 4);
    }
    assert!(again.delete("a").unwrap() && !again.delete("a").unwrap());
    assert_eq!(text(&store, "a"), None);
    let bytes = fs::read(vault(dir.path())).unwrap();
    assert!(memchr::memmem::find(&bytes, b"value").is_none());
}

#[test]
fn names_are_of_one_form_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let store = CredentialStore::open(dir.path(), &raw()).unwrap();
    let long = "n".repeat(129);
    let bad = [
        "",
        ".",
        "..",
        "../a",
        "a/../b",
        "a/..",
        "/a",
        "a//b",
        "-a",
        "_a",
        ".a",
        "a b",
        "a\0",
        "a\n",
        "a\\b",
        "C:\\a",
        "ä",
        "a\u{202E}",
        "a%2e%2e",
        "~",
        "a:b",
        "a*",
        "$HOME",
        "`a`",
        &long,
    ];
    for name in bad {
        let codes = [
            store.get(name).unwrap_err().code(),
            store.has(name).unwrap_err().code(),
            store.set(name, &secret("x")).unwrap_err().code(),
            store.delete(name).unwrap_err().code(),
            store.update(|entries| entries.get(name)).unwrap_err().code(),
        ];
        assert_eq!(codes, [Code::CredentialName; 5], "{name:?}");
    }
    for name in ["a", "0", "auth/openai:default".replace(':', "-").as_str(), "A.b_c-d/e", &long[1..], "a."] {
        store.set(name, &secret("x")).unwrap();
        assert_eq!(text(&store, name).as_deref(), Some("x"));
    }
}

#[test]
fn an_update_is_one_write_and_a_failed_one_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let store = CredentialStore::open(dir.path(), &raw()).unwrap();
    store.set("a", &secret("1")).unwrap();
    let generation = store.generation().unwrap();
    let seen = store
        .update(|entries| {
            entries.set("b", &secret("2"))?;
            entries.set("a", &secret("3"))?;
            // Readers see the store as it was.
            assert_eq!(text(&store, "a").as_deref(), Some("1"));
            Ok(entries.get("a")?.map(|secret| secret.expose().to_vec()))
        })
        .unwrap();
    assert_eq!(seen.as_deref(), Some(&b"3"[..]));
    assert_eq!(store.generation().unwrap(), generation + 1);
    let error = store
        .update(|entries| {
            entries.delete("a")?;
            entries.set("", &secret("x"))
        })
        .unwrap_err();
    assert_eq!(error.code(), Code::CredentialName);
    assert_eq!((text(&store, "a").as_deref(), text(&store, "b").as_deref()), (Some("3"), Some("2")));
    assert_eq!(store.set("a", &secret("")).unwrap_err().code(), Code::Validation);
    assert_eq!(store.set("a", &secret(&"x".repeat((1 << 20) + 1))).unwrap_err().code(), Code::Limit);
    assert_eq!(store.generation().unwrap(), generation + 1);
}

#[test]
fn another_key_does_not_open_a_store() {
    let dir = tempfile::tempdir().unwrap();
    CredentialStore::open(dir.path(), &raw()).unwrap();
    let passphrase = KeySource::Passphrase(secret("a passphrase"));
    for other in [
        KeySource::Raw(Secret::copy_of(&[8; 32])),
        KeySource::Raw(Secret::copy_of(&[7; 31])),
        passphrase.clone(),
        KeySource::KeyFile(dir.path().join("none")),
        KeySource::SystemdCredential("../x".into()),
    ] {
        let error = CredentialStore::open(dir.path(), &other).unwrap_err();
        assert!(matches!(error.code(), Code::CredentialKey | Code::CredentialName), "{error}");
    }
    assert!(!dir.path().join("none").exists(), "a key file was made for a store that has another key");
    let other = tempfile::tempdir().unwrap();
    let store = CredentialStore::open(other.path(), &passphrase).unwrap();
    store.set("a", &secret("1")).unwrap();
    assert_eq!(text(&CredentialStore::open(other.path(), &passphrase).unwrap(), "a").as_deref(), Some("1"));
    for wrong in [KeySource::Passphrase(secret("A passphrase")), raw()] {
        assert_eq!(CredentialStore::open(other.path(), &wrong).unwrap_err().code(), Code::CredentialKey);
    }
}

#[test]
fn a_store_that_is_not_there_is_created_only_if_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("x/y");
    let options = OpenOptions { create: false, ..OpenOptions::default() };
    let error = CredentialStore::open_with(&missing, &raw(), options).unwrap_err();
    assert_eq!(error.code(), Code::CredentialNotFound);
    assert!(!dir.path().join("x").exists());
}
