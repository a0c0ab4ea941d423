use std::fs;

use super::super::{ConfigOptions, MissingEnv};
use super::*;

struct Fixture(tempfile::TempDir);

impl Fixture {
    fn new(files: &[(&str, &str)]) -> Self {
        let fixture = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            let path = fixture.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self, env: &[(&str, &str)]) -> Config {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::load(ConfigOptions {
            path: Some(self.path("openclaw.json").to_str().unwrap().to_owned()),
            env: Some(env),
            include_roots: Some(vec![]),
            missing_env: MissingEnv::Warn,
            schema: crate::config::SchemaSource::None,
        })
        .unwrap()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The names in the folder, sorted.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn edit(&self, edits: &[(&str, Option<&str>)]) -> Result<Config> {
        edit(&self.load(&[]), edits, EditOptions::default())
    }
}

fn edit(config: &Config, edits: &[(&str, Option<&str>)], options: EditOptions) -> Result<Config> {
    let edits: Vec<Edit> = edits
        .iter()
        .map(|(path, value)| Edit {
            path: (*path).to_owned(),
            change: value
                .map_or(Change::Unset, |value| Change::Set(json5::parse(value.as_bytes(), 0).unwrap().value)),
        })
        .collect();
    config.edit(&edits, options, &CancellationToken::new())
}

const SHRINK: EditOptions = EditOptions { allow_shrink: true, validate: true };

#[test]
fn an_edit_changes_its_value_and_no_other_byte_and_leaves_the_old_file_as_backup() {
    let text = "// mine\n{\n  gateway: { port: 1, token: '${TOKEN}' }, // here\n  $include: './more.json5',\n  odd: 0x10,\n}\n";
    let fixture = Fixture::new(&[("openclaw.json", text), ("more.json5", "{ more: 1 }")]);
    let next = fixture.edit(&[("gateway.port", Some("18789")), ("odd", Some("17"))]).unwrap();
    let expected = text.replace("port: 1", "port: 18789").replace("0x10", "17");
    assert_eq!(fixture.read("openclaw.json"), expected);
    assert_eq!(next.get("gateway.port").unwrap().unwrap().text, "18789.0");
    assert_eq!(next.revision(), fixture.load(&[]).revision());
    assert_eq!(fixture.read("openclaw.json.bak"), text);
    assert_eq!(fixture.names(), ["more.json5", "openclaw.json", "openclaw.json.bak"]);
    #[cfg(unix)]
    for name in ["openclaw.json", "openclaw.json.bak"] {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(fixture.path(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn the_last_five_revisions_stay_as_backups() {
    let fixture = Fixture::new(&[("openclaw.json", "{n: 0}")]);
    for n in 1..=7 {
        fixture.edit(&[("n", Some(&n.to_string()))]).unwrap();
    }
    let ring = ["bak", "bak.1", "bak.2", "bak.3", "bak.4"]
        .map(|slot| fixture.read(&format!("openclaw.json.{slot}")));
    assert_eq!(ring, ["{n: 6}", "{n: 5}", "{n: 4}", "{n: 3}", "{n: 2}"]);
    assert_eq!(fixture.names().len(), 6);
}

#[test]
fn an_edit_that_changes_nothing_writes_nothing() {
    let fixture = Fixture::new(&[("openclaw.json", "{a: 0x10}")]);
    fixture.edit(&[("a", Some("16"))]).unwrap();
    fixture.edit(&[]).unwrap();
    assert_eq!(fixture.names(), ["openclaw.json"]);
}

#[test]
fn a_value_is_edited_in_the_file_where_it_lives() {
    let files = [
        (
            "openclaw.json",
            "{ agents: { $include: 'agents.json5' }, gateway: { $include: ['a.json5', 'sub/b.json5'], port: 1 }, z: 1 }",
        ),
        ("agents.json5", "// agents\n{ list: [{ $include: 'one.json5' }], x: 1 }"),
        ("one.json5", "{ id: 'one' }"),
        ("a.json5", "{ mode: 'a', port: 9, auth: { a: 1 }, tags: ['a'] }"),
        ("sub/b.json5", "{ mode: 'b', auth: { b: 1, both: 1 }, tags: ['b'] }"),
    ];
    for (path, value, file, expected) in [
        ("agents.x", Some("2"), "agents.json5", "// agents\n{ list: [{ $include: 'one.json5' }], x: 2 }"),
        ("agents.list[0].id", Some("'1'"), "one.json5", "{ id: '1' }"),
        ("agents.list[0].new", Some("1"), "one.json5", "{ id: 'one', new: 1 }"),
        ("agents.list[0]", Some("{id: 'two'}"), "one.json5", "{ id: 'two' }"),
        ("gateway.mode", Some("'c'"), "sub/b.json5", "{ mode: 'c', auth: { b: 1, both: 1 }, tags: ['b'] }"),
        ("gateway.auth.a", Some("2"), "a.json5", "{ mode: 'a', port: 9, auth: { a: 2 }, tags: ['a'] }"),
        ("gateway.auth.a", None, "a.json5", "{ mode: 'a', port: 9, auth: { }, tags: ['a'] }"),
        (
            "gateway.auth.new",
            Some("1"),
            "sub/b.json5",
            "{ mode: 'b', auth: { b: 1, both: 1, new: 1 }, tags: ['b'] }",
        ),
        (
            "gateway.port",
            Some("2"),
            "openclaw.json",
            "{ agents: { $include: 'agents.json5' }, gateway: { $include: ['a.json5', 'sub/b.json5'], port: 2 }, z: 1 }",
        ),
        (
            "gateway.new",
            Some("2"),
            "openclaw.json",
            "{ agents: { $include: 'agents.json5' }, gateway: { $include: ['a.json5', 'sub/b.json5'], port: 1, new: 2 }, z: 1 }",
        ),
        (
            "new",
            Some("2"),
            "openclaw.json",
            "{ agents: { $include: 'agents.json5' }, gateway: { $include: ['a.json5', 'sub/b.json5'], port: 1 }, z: 1, new: 2 }",
        ),
    ] {
        let fixture = Fixture::new(&files);
        let next = fixture.edit(&[(path, value)]).unwrap();
        assert_eq!(fixture.read(file), expected, "{path}");
        for (other, text) in files.iter().filter(|(name, _)| *name != file) {
            assert_eq!(fixture.read(other), *text, "{path} touched {other}");
        }
        let found = next.get(path).unwrap().map(|json| json.text);
        let wanted =
            value.map(|v| json5::stringify(&json5::parse(v.as_bytes(), 0).unwrap().value).unwrap().text);
        assert_eq!(found, wanted, "{path}");
    }
    for (path, value, named) in [
        ("gateway.mode", None, vec!["a.json5", "b.json5"]),
        ("gateway.port", None, vec!["a.json5", "openclaw.json"]),
        ("gateway.auth", Some("{}"), vec!["a.json5", "b.json5"]),
        ("gateway.tags[0]", Some("1"), vec!["a.json5", "b.json5"]),
        ("gateway.$include", Some("'x'"), vec!["$include"]),
        ("gateway.nope.x", None, vec!["nothing"]),
    ] {
        let fixture = Fixture::new(&files);
        let error = fixture.edit(&[(path, value)]).unwrap_err();
        assert_eq!(
            (error.code(), error.details().path.as_deref()),
            (Code::ConfigPath, Some(path)),
            "{error}"
        );
        assert!(named.iter().all(|name| error.message().contains(name)), "{path}: {error}");
    }
    let fixture = Fixture::new(&files);
    let error = fixture.edit(&[("z", Some("2")), ("agents.x", Some("2"))]).unwrap_err();
    assert!(error.code() == Code::ConfigPath && error.message().contains("one file at a time"), "{error}");
    let names = fixture.names();
    assert_eq!(names, ["a.json5", "agents.json5", "one.json5", "openclaw.json", "sub"]);
}

#[test]
fn a_file_that_is_included_twice_is_not_edited() {
    let fixture = Fixture::new(&[
        ("openclaw.json", "{ a: { $include: 'x.json' }, b: { $include: 'x.json' } }"),
        ("x.json", "{\"v\": 1}"),
    ]);
    let error = fixture.edit(&[("a.v", Some("2"))]).unwrap_err();
    assert!(error.code() == Code::ConfigPath && error.message().contains("2 places"), "{error}");
}

#[test]
fn a_config_that_changed_since_it_was_loaded_is_a_conflict_that_names_the_revision_on_disk() {
    let fixture = Fixture::new(&[("openclaw.json", "{n: 0, i: {$include: 'i.json'}}"), ("i.json", "{x: 1}")]);
    let stale = fixture.load(&[]);
    for (name, text) in [("openclaw.json", "{n: 1, i: {$include: 'i.json'}}"), ("i.json", "{x: 2}")] {
        fs::write(fixture.path(name), text).unwrap();
        let error = edit(&stale, &[("n", Some("9"))], EditOptions::default()).unwrap_err();
        assert_eq!(error.code(), Code::ConfigConflict);
        assert_eq!(error.details().revision.as_deref(), Some(fixture.load(&[]).revision()));
        assert_eq!(fixture.read(name), text);
    }
    assert_eq!(fixture.names(), ["i.json", "openclaw.json"]);
}

#[test]
fn what_cannot_be_read_is_not_written_over() {
    let fixture = Fixture::new(&[("openclaw.json", "{n: 0}")]);
    let config = fixture.load(&[]);
    for (text, code) in [("{n: 0", Code::ConfigParse), ("", Code::ConfigParse)] {
        fs::write(fixture.path("openclaw.json"), text).unwrap();
        assert_eq!(edit(&config, &[("n", Some("1"))], SHRINK).unwrap_err().code(), code);
        assert_eq!(fixture.read("openclaw.json"), text);
    }
    fs::remove_file(fixture.path("openclaw.json")).unwrap();
    assert_eq!(edit(&config, &[("n", Some("1"))], SHRINK).unwrap_err().code(), Code::ConfigNotFound);
    assert_eq!(fixture.names(), Vec::<String>::new());
    fs::write(fixture.path("openclaw.json"), b"{n: 0, s: '\xff'}").unwrap();
    let error = fixture.edit(&[("n", Some("1"))]).unwrap_err();
    assert_eq!((error.code(), error.details().column), (Code::ConfigParse, Some(12)));
}

#[test]
fn losing_half_of_a_file_or_a_top_level_key_must_be_allowed() {
    let text = "{keep: 1, big: 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'}";
    for edits in [&[("keep", None)][..], &[("big", Some("1"))]] {
        let fixture = Fixture::new(&[("openclaw.json", text)]);
        let error = fixture.edit(edits).unwrap_err();
        assert_eq!((error.code(), fixture.read("openclaw.json")), (Code::ConfigShrink, text.to_owned()));
        edit(&fixture.load(&[]), edits, SHRINK).unwrap();
        assert_ne!(fixture.read("openclaw.json"), text);
    }
}

#[test]
fn an_edit_that_would_break_the_config_is_refused() {
    let fixture = Fixture::new(&[("openclaw.json", "{n: 0}")]);
    let error = fixture.edit(&[("x.$include", Some("'missing.json'"))]).unwrap_err();
    assert_eq!((error.code(), fixture.read("openclaw.json")), (Code::ConfigInclude, "{n: 0}".to_owned()));
}

#[test]
fn a_read_only_config_is_not_edited() {
    let fixture = Fixture::new(&[("openclaw.json", "{n: 0}")]);
    for name in ["OPENCLAW_NIX_MODE", "OPENCLAW_CONFIG_READONLY"] {
        let error = edit(&fixture.load(&[(name, "1")]), &[("n", Some("1"))], SHRINK).unwrap_err();
        assert_eq!(error.code(), Code::ConfigReadonly);
        assert!(error.message().contains(name), "{error}");
    }
    assert_eq!(fixture.names(), ["openclaw.json"]);
}

#[cfg(unix)]
#[test]
fn a_linked_config_is_written_where_the_link_leads() {
    let fixture = Fixture::new(&[("real/oc.json", "{n: 0}")]);
    std::os::unix::fs::symlink("real/oc.json", fixture.path("openclaw.json")).unwrap();
    fixture.edit(&[("n", Some("1"))]).unwrap();
    assert!(fs::symlink_metadata(fixture.path("openclaw.json")).unwrap().is_symlink());
    assert_eq!(
        (fixture.read("real/oc.json"), fixture.read("real/oc.json.bak")),
        ("{n: 1}".into(), "{n: 0}".into())
    );
    assert_eq!(fixture.names(), ["openclaw.json", "real"]);
}
