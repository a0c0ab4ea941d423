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

// ── what attacks it ──────────────────────────────────────────────────────────────────────────────────────────────

/// A small store with two entries, and its bytes.
fn small(dir: &Path) -> (CredentialStore, Vec<u8>) {
    let store = CredentialStore::open(dir, &raw()).unwrap();
    store.set("a", &secret("one")).unwrap();
    store.set("b", &secret("two")).unwrap();
    let bytes = fs::read(vault(dir)).unwrap();
    (store, bytes)
}

/// Has `bytes` in the store's place, as a new file, and expects that neither a store that is open nor a new one takes it.
fn refused(dir: &Path, open: &CredentialStore, bytes: &[u8], what: &str) {
    let other = dir.join("other");
    fs::write(&other, bytes).unwrap();
    fs::rename(&other, vault(dir)).unwrap();
    for code in [
        open.get("a").unwrap_err().code(),
        open.list().unwrap_err().code(),
        open.set("a", &secret("x")).unwrap_err().code(),
        CredentialStore::open(dir, &raw()).unwrap_err().code(),
    ] {
        assert!(matches!(code, Code::Crypto | Code::CredentialKey), "{what}: {code}");
    }
}

#[test]
fn every_flipped_bit_and_every_missing_or_additional_byte_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, bytes) = small(dir.path());
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        refused(dir.path(), &store, &flipped, &format!("bit {bit}"));
    }
    for length in 0..bytes.len() {
        refused(dir.path(), &store, &bytes[..length], &format!("cut to {length}"));
    }
    for more in [&b"\0"[..], b"x", &bytes] {
        refused(dir.path(), &store, &[&bytes, more].concat(), "longer");
        refused(dir.path(), &store, &[more, &bytes].concat(), "longer at the start");
    }
    // What was refused is not believed later either: with the file back, all is well.
    fs::write(vault(dir.path()), &bytes).unwrap();
    assert_eq!(text(&store, "a").as_deref(), Some("one"));
}

#[test]
fn an_entry_cannot_be_exchanged_removed_added_or_put_back() {
    use super::vault::Vault;
    let dir = tempfile::tempdir().unwrap();
    let (store, before) = small(dir.path());
    store.set("a", &secret("new")).unwrap();
    let now = fs::read(vault(dir.path())).unwrap();
    let (old, new) = (Vault::parse(&before).unwrap(), Vault::parse(&now).unwrap());
    let key = new.unwrap_key(&Secret::copy_of(&[7; 32])).unwrap();
    let keep_seal = |vault: &Vault| {
        // The attacker has no key: the seal at the end stays what it was.
        let mut bytes = vault.to_bytes(&Secret::copy_of(&[0; 32])).unwrap();
        let end = bytes.len() - 32;
        bytes[end..].copy_from_slice(&now[now.len() - 32..]);
        bytes
    };
    let changed = |what: &str, change: &dyn Fn(&mut Vault)| {
        let mut forged = new.clone();
        change(&mut forged);
        refused(dir.path(), &store, &keep_seal(&forged), what);
        forged
    };
    let (old_a, b) = (old.entries["a"].clone(), new.entries["b"].clone());
    let put_back = changed("put back", &|vault| drop(vault.entries.insert("a".into(), old_a.clone())));
    let exchanged = changed("exchanged", &|vault| {
        let a = vault.entries.insert("b".into(), vault.entries["a"].clone());
        vault.entries.insert("a".into(), a.unwrap());
    });
    changed("removed", &|vault| drop(vault.entries.remove("b")));
    changed("renamed", &|vault| {
        let b = vault.entries.remove("b").unwrap();
        vault.entries.insert("c".into(), b);
    });
    changed("copied", &|vault| drop(vault.entries.insert("c".into(), b.clone())));
    changed("counted on", &|vault| vault.generation += 1);

    // Each entry is bound to its place by itself, even were the seal over the file right.
    assert!(
        put_back.open_entry(&key, "a", &put_back.entries["a"]).is_some(),
        "that one the seal alone refuses"
    );
    for name in ["a", "b"] {
        assert!(exchanged.open_entry(&key, name, &exchanged.entries[name]).is_none());
    }
    let mut other = new.clone();
    other.id[0] ^= 1;
    assert!(other.open_entry(&key, "a", &other.entries["a"]).is_none(), "taken to another store");
}

#[test]
fn an_older_whole_file_is_refused_by_who_saw_the_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let (store, before) = small(dir.path());
    let generation = store.generation().unwrap();
    store.delete("b").unwrap();
    refused_as_old(&store, dir.path(), &before);
    // Another history of the same length.
    CredentialStore::open(dir.path(), &raw()).unwrap().set("c", &secret("other")).unwrap();
    let error = store.get("a").unwrap_err();
    assert!(error.code() == Code::Crypto && error.message().contains("older state"), "{error}");

    // Who did not see it needs a number that was kept elsewhere.
    fs::write(vault(dir.path()), &before).unwrap();
    let open = |min_generation| {
        CredentialStore::open_with(
            dir.path(),
            &raw(),
            OpenOptions { min_generation, ..OpenOptions::default() },
        )
    };
    assert!(open(generation).is_ok());
    assert_eq!(open(generation + 1).unwrap_err().code(), Code::Crypto);
    fs::remove_file(vault(dir.path())).unwrap();
    assert_eq!(open(1).unwrap_err().code(), Code::CredentialNotFound);
    assert_eq!(store.get("a").unwrap_err().code(), Code::Io);
    assert_eq!(store.set("a", &secret("x")).unwrap_err().code(), Code::Io);
    assert!(!vault(dir.path()).exists(), "a store that went away was begun anew");
}

fn refused_as_old(store: &CredentialStore, dir: &Path, older: &[u8]) {
    fs::write(vault(dir), older).unwrap();
    let error = store.get("a").unwrap_err();
    assert!(error.code() == Code::Crypto && error.message().contains("older state"), "{error}");
    assert_eq!(store.set("a", &secret("x")).unwrap_err().code(), Code::Crypto);
}

#[test]
fn another_store_in_its_place_is_refused() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, _) = small(one.path());
    let (_, other) = small(two.path());
    fs::write(vault(one.path()), other).unwrap();
    assert_eq!(store.get("a").unwrap_err().code(), Code::Crypto);
    // Nor is a link to it, or a pipe, followed or waited for.
    #[cfg(unix)]
    {
        fs::remove_file(vault(one.path())).unwrap();
        std::os::unix::fs::symlink(vault(two.path()), vault(one.path())).unwrap();
        assert_eq!(store.get("a").unwrap_err().code(), Code::Io);
        assert_eq!(CredentialStore::open(one.path(), &raw()).unwrap_err().code(), Code::Io);
        fs::remove_file(vault(one.path())).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(vault(one.path())).status().unwrap().success());
        assert_eq!(CredentialStore::open(one.path(), &raw()).unwrap_err().code(), Code::Crypto);
    }
}

#[test]
fn aes_256_gcm_passes_the_vectors_of_wycheproof() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("testdata/wycheproof-aes-256-gcm.json")).unwrap();
    let bytes = |test: &serde_json::Value, field: &str| {
        let text = test[field].as_str().unwrap();
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect::<Vec<u8>>()
    };
    let (mut valid, mut invalid) = (0, 0);
    for test in
        vectors["testGroups"].as_array().unwrap().iter().flat_map(|group| group["tests"].as_array().unwrap())
    {
        let key = Secret::from_bytes(bytes(test, "key"));
        let nonce: [u8; 12] = bytes(test, "iv").try_into().unwrap();
        let (aad, plain) = (bytes(test, "aad"), bytes(test, "msg"));
        let sealed = [bytes(test, "ct"), bytes(test, "tag")].concat();
        let opened = super::cipher::open(&key, nonce, &aad, &sealed);
        if test["result"] == "valid" {
            valid += 1;
            assert!(opened.unwrap().is(&plain), "{test}");
            assert_eq!(super::cipher::seal(&key, nonce, &aad, &plain).unwrap(), sealed, "{test}");
        } else {
            invalid += 1;
            assert!(opened.is_none(), "{test}");
        }
    }
    assert_eq!((valid, invalid), (valid, 66 - valid));
    assert!(valid > 30 && invalid > 20, "{valid} valid, {invalid} invalid");
}

// ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn rotating_the_key_changes_every_byte_that_is_secret_and_the_key_that_opens() {
    let dir = tempfile::tempdir().unwrap();
    let (store, before) = small(dir.path());
    let other = CredentialStore::open(dir.path(), &raw()).unwrap();
    let next = KeySource::Raw(Secret::copy_of(&[9; 32]));
    let listed = store.list().unwrap();
    store.rotate_key(&next).unwrap();
    assert_eq!((text(&store, "a").as_deref(), text(&store, "b").as_deref()), (Some("one"), Some("two")));
    assert_eq!(store.list().unwrap(), listed);
    for stale in [
        other.get("a").unwrap_err(),
        other.set("a", &secret("x")).unwrap_err(),
        CredentialStore::open(dir.path(), &raw()).unwrap_err(),
    ] {
        assert_eq!(stale.code(), Code::CredentialKey, "{stale}");
    }
    let again = CredentialStore::open(dir.path(), &next).unwrap();
    assert_eq!(text(&again, "b").as_deref(), Some("two"));
    let now = fs::read(vault(dir.path())).unwrap();
    for entry in ["a", "b"] {
        let sealed =
            |bytes: &[u8]| format!("{:?}", super::vault::Vault::parse(bytes).unwrap().entries[entry]);
        assert_ne!(sealed(&before), sealed(&now));
    }
    // To a passphrase and back.
    let passphrase = KeySource::Passphrase(secret("correct horse"));
    store.rotate_key(&passphrase).unwrap();
    assert_eq!(text(&CredentialStore::open(dir.path(), &passphrase).unwrap(), "a").as_deref(), Some("one"));
    store.set("a", &secret("under a passphrase")).unwrap();
    store.rotate_key(&raw()).unwrap();
    assert_eq!(
        text(&CredentialStore::open(dir.path(), &raw()).unwrap(), "a").as_deref(),
        Some("under a passphrase")
    );
}

#[test]
fn a_key_file_is_made_once_rotated_in_place_and_shared_by_stores() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    let key = KeySource::KeyFile(file.clone());
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let first = CredentialStore::open(&one, &key).unwrap();
    let second = CredentialStore::open(&two, &key).unwrap();
    let lines = || fs::read_to_string(&file).unwrap().lines().map(ToOwned::to_owned).collect::<Vec<_>>();
    let original = lines();
    assert_eq!(original.len(), 1);
    first.set("a", &secret("1")).unwrap();
    second.set("a", &secret("2")).unwrap();
    first.rotate_key(&key).unwrap();
    assert_eq!((lines().len(), &lines()[1]), (2, &original[0]));
    second.rotate_key(&key).unwrap();
    assert_eq!(lines().len(), 3);
    for (folder, value) in [(&one, "1"), (&two, "2")] {
        assert_eq!(text(&CredentialStore::open(folder, &key).unwrap(), "a").as_deref(), Some(value));
    }
    let warned = first.audit().unwrap();
    assert!(
        warned.iter().any(|found| found.kind == FindingKind::Key && found.message.contains("older keys"))
    );
    // The newest two lines are enough for both.
    fs::write(&file, format!("{}\n{}\n", lines()[0], lines()[1])).unwrap();
    for folder in [&one, &two] {
        CredentialStore::open(folder, &key).unwrap();
    }
    fs::write(&file, "not a key").unwrap();
    assert_eq!(CredentialStore::open(&one, &key).unwrap_err().code(), Code::CredentialKey);
    fs::remove_file(&file).unwrap();
    assert_eq!(CredentialStore::open(&one, &key).unwrap_err().code(), Code::CredentialKey);
    assert!(!file.exists(), "a lost key was replaced by one that opens nothing");
}

#[test]
fn a_rotation_that_has_no_room_for_another_key_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    let key = KeySource::KeyFile(file.clone());
    let store = CredentialStore::open(&dir.path().join("one"), &key).unwrap();
    let own = fs::read_to_string(&file).unwrap();
    // The last line is the key of another store, say.
    let keys = own.clone() + &format!("{}\n", "0f".repeat(32)).repeat(251);
    fs::write(&file, &keys).unwrap();
    let error = store.rotate_key(&key).unwrap_err();
    assert!(error.code() == Code::Limit && error.message().contains("remove"), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), keys);
    fs::write(&file, own).unwrap();
    store.rotate_key(&key).unwrap();
}

#[cfg(unix)]
#[test]
fn files_are_for_their_owner_alone_and_a_key_file_that_others_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (store_dir, file) = (dir.path().join("a/store"), dir.path().join("key"));
    let key = KeySource::KeyFile(file.clone());
    let store = CredentialStore::open(&store_dir, &key).unwrap();
    store.set("a", &secret("1")).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&store_dir), mode(store_dir.parent().unwrap())), (0o700, 0o700));
    let mut names = Vec::new();
    for entry in fs::read_dir(&store_dir).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(mode(&entry.path()), 0o600, "{:?}", entry.path());
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["LOCK", "credentials.vault"]);
    assert_eq!(mode(&file), 0o600);
    for wide in [0o620, 0o602, 0o666] {
        fs::set_permissions(&file, fs::Permissions::from_mode(wide)).unwrap();
        assert_eq!(
            CredentialStore::open(&store_dir, &key).unwrap_err().code(),
            Code::CredentialKey,
            "{wide:o}"
        );
    }
    // As Docker and Kubernetes mount secrets; `audit` says so.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    let store = CredentialStore::open(&store_dir, &key).unwrap();
    fs::set_permissions(&store_dir, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(vault(&store_dir), fs::Permissions::from_mode(0o644)).unwrap();
    let wide: Vec<_> = store
        .audit()
        .unwrap()
        .into_iter()
        .filter(|found| found.kind == FindingKind::Modes)
        .filter_map(|found| found.file)
        .collect();
    assert_eq!(wide, [store_dir.clone(), vault(&store_dir), file]);
}

#[test]
fn an_audit_finds_the_key_beside_the_data_and_what_does_not_authenticate() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let kinds = |store: &CredentialStore| {
        let found = store.audit().unwrap();
        found
            .into_iter()
            .map(|found| (found.kind, found.file))
            .filter(|(kind, _)| *kind != FindingKind::Memory)
            .collect::<Vec<_>>()
    };
    let data = dir.path().join("state/vault");
    let far = KeySource::KeyFile(elsewhere.path().join("key"));
    let store = CredentialStore::open(&data, &far).unwrap();
    store.set("a", &secret("1")).unwrap();
    assert_eq!(kinds(&store), []);
    // A copy of it, under any name, as digits of either case or as bytes.
    let digits = fs::read_to_string(elsewhere.path().join("key")).unwrap();
    let bytes = far.keys().unwrap().unwrap()[0].expose().to_vec();
    for (place, content) in [
        (data.join("notes"), digits.to_uppercase().into_bytes()),
        (data.join("../backup.env"), format!("KEY={digits}").into_bytes()),
        (data.join("raw"), bytes),
    ] {
        fs::write(&place, content).unwrap();
        let place = place.canonicalize().unwrap();
        assert_eq!(kinds(&store), [(FindingKind::KeyBesideData, Some(place.clone()))]);
        fs::remove_file(place).unwrap();
    }
    for near in ["state/vault/key", "state/key", "state/keys/key"] {
        let near = dir.path().join(near);
        fs::create_dir_all(near.parent().unwrap()).unwrap();
        let key = KeySource::KeyFile(near.clone());
        store.rotate_key(&key).unwrap();
        assert_eq!(kinds(&store), [(FindingKind::KeyBesideData, Some(near.canonicalize().unwrap()))]);
        let message = store.audit().unwrap().remove(0).message;
        assert!(message.contains("the key lies beside the data"), "{message}");
        store.rotate_key(&far).unwrap();
        fs::remove_file(near).unwrap();
    }
    store.rotate_key(&KeySource::Passphrase(secret("short"))).unwrap();
    assert_eq!(kinds(&store), [(FindingKind::Key, None)]);
    let mut bytes = fs::read(vault(&data)).unwrap();
    let middle = bytes.len() - 40;
    bytes[middle] ^= 1;
    fs::write(vault(&data), bytes).unwrap();
    let found = store.audit().unwrap();
    assert!(found.iter().any(|found| found.kind == FindingKind::Damaged && found.is_error), "{found:?}");
}

#[test]
fn no_error_and_no_debug_text_holds_a_secret_or_a_wrong_name() {
    let dir = tempfile::tempdir().unwrap();
    let (store, bytes) = small(dir.path());
    let canary = "sk-CANARY\u{7f}";
    let key = KeySource::Passphrase(secret(canary));
    let mut texts = vec![
        format!("{store:?} {key:?} {:?}", KeySource::Raw(secret(canary))),
        format!("{:?}", store.set(canary, &secret("x")).unwrap_err()),
        format!("{:?}", store.get(canary).unwrap_err()),
        format!("{:?}", CredentialStore::open(dir.path(), &key).unwrap_err()),
        format!("{:?}", CredentialStore::open(dir.path(), &KeySource::Raw(secret(canary))).unwrap_err()),
        format!(
            "{:?}",
            CredentialStore::open(dir.path(), &KeySource::SystemdCredential(canary.into())).unwrap_err()
        ),
    ];
    store.set("a", &secret(canary)).unwrap();
    texts.push(format!("{:?}", store.list().unwrap()));
    fs::write(vault(dir.path()), &bytes[..40]).unwrap();
    texts.push(format!("{:?} {:?}", store.get("a").unwrap_err(), store.audit().unwrap()));
    for text in texts {
        assert!(!text.contains("CANARY"), "{text}");
    }
}
