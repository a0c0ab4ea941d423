use std::collections::HashMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

/// Answers as it is told, and for every other name with a public address.
#[derive(Default)]
struct Table(HashMap<String, Vec<IpAddr>>);

impl Resolver for Table {
    fn lookup(&self, host: &str) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> {
        let public = vec![IpAddr::from([93, 184, 215, 14])];
        let found = self.0.get(host).cloned().unwrap_or(public);
        Box::pin(async move { Ok(found) })
    }
}

fn outcome(url: &str, policy: &Policy, resolver: &dyn Resolver) -> Result<Checked> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(check(url, policy, resolver))
}

fn table(host: &str, addresses: &[&str]) -> Table {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Table(HashMap::from([(host.to_owned(), addresses)]))
}

#[derive(Deserialize)]
struct Urls {
    hostile: Vec<Row>,
    good: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    url: String,
    #[serde(default)]
    why: String,
    addresses: Option<Vec<IpAddr>>,
}

/// The table that OpenClaw's guard is held against too.
fn urls() -> Urls {
    serde_json::from_str(include_str!("../../../__test__/differential/ssrf-urls.json")).unwrap()
}

/// Every name has the row's addresses.
struct Always(Vec<IpAddr>);

impl Resolver for Always {
    fn lookup(&self, _host: &str) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> {
        let found = self.0.clone();
        Box::pin(async move { Ok(found) })
    }
}

fn resolver_of(row: &Row) -> Always {
    Always(row.addresses.clone().unwrap_or_else(|| vec![IpAddr::from([93, 184, 215, 14])]))
}

#[test]
fn each_of_the_hostile_urls_is_refused() {
    let rows = urls().hostile;
    assert!(rows.len() >= 300, "{}", rows.len());
    let mut admitted = Vec::new();
    for row in &rows {
        match outcome(&row.url, &Policy::default(), &resolver_of(row)) {
            Ok(_) => admitted.push((&row.url, &row.why)),
            Err(error) => {
                assert!(matches!(error.code(), Code::SsrfBlocked | Code::Validation), "{}: {error}", row.url);
            }
        }
    }
    assert!(admitted.is_empty(), "{admitted:#?}");
}

#[test]
fn each_of_the_good_urls_is_admitted_with_its_addresses() {
    let rows = urls().good;
    assert!(rows.len() >= 100, "{}", rows.len());
    for row in &rows {
        match outcome(&row.url, &Policy::default(), &resolver_of(row)) {
            Ok(found) => assert_eq!(found.addresses, resolver_of(row).0, "{}", row.url),
            Err(error) => panic!("{}: {error}", row.url),
        }
    }
}

#[test]
fn a_policy_opens_networks_of_ones_own_and_nothing_else() {
    let open = Policy { allow_private: true, ..Policy::default() };
    for url in [
        "http://127.0.0.1:8080/",
        "http://localhost/",
        "http://10.0.0.1/",
        "http://[::1]/",
        "http://[fd12::1]/",
        "http://nas.local/",
        "http://100.64.0.1/",
    ] {
        outcome(url, &open, &table("localhost", &["127.0.0.1", "::1"])).unwrap();
    }
    for url in [
        "http://169.254.169.254/",
        "http://100.100.100.200/",
        "http://[fd00:ec2::254]/",
        "http://[::ffff:127.0.0.1]/",
        "http://0.0.0.0/",
        "http://224.0.0.1/",
        "http://[fe80::1]/",
        "http://[64:ff9b::a00:1]/",
        "http://0x7f.1/",
        "http://u@127.0.0.1/",
        "http://127.0.0.1\\@localhost/",
    ] {
        assert_eq!(outcome(url, &open, &Table::default()).unwrap_err().code(), Code::SsrfBlocked, "{url}");
    }
    let rebound = table("a.example", &["10.0.0.1", "169.254.169.254"]);
    assert_eq!(outcome("http://a.example/", &open, &rebound).unwrap_err().code(), Code::SsrfBlocked);
}

#[test]
fn a_listed_host_may_be_private_and_its_neighbours_may_not() {
    let listed = Policy {
        allow_hosts: ["Gitlab.Corp.Example.", "*.lan.example", "10.0.0.1", "[fd12::1]", "nas.local"]
            .map(str::to_owned)
            .to_vec(),
        ..Policy::default()
    };
    let at =
        |host: &str, address: &str| outcome(&format!("http://{host}/"), &listed, &table(host, &[address]));
    for (host, address) in [
        ("gitlab.corp.example", "10.1.1.1"),
        ("a.lan.example", "192.168.0.7"),
        ("a.b.lan.example", "192.168.0.7"),
        ("10.0.0.1", "10.0.0.1"),
        ("[fd12::1]", "fd12::1"),
        ("nas.local", "192.168.0.8"),
    ] {
        at(host, address).unwrap();
    }
    for (host, address) in [
        ("corp.example", "10.1.1.1"),
        ("a.gitlab.corp.example", "10.1.1.1"),
        ("lan.example", "192.168.0.7"),
        ("alan.example", "192.168.0.7"),
        ("10.0.0.2", "10.0.0.2"),
        ("printer.local", "192.168.0.9"),
        // It is the network's, not this machine's.
        ("gitlab.corp.example", "127.0.0.1"),
        ("a.lan.example", "::1"),
        ("gitlab.corp.example", "169.254.169.254"),
    ] {
        assert_eq!(at(host, address).unwrap_err().code(), Code::SsrfBlocked, "{host} {address}");
    }
    let here = Policy { allow_hosts: vec!["localhost".into(), "127.0.0.1".into()], ..Policy::default() };
    outcome("http://localhost:1/", &here, &table("localhost", &["127.0.0.1", "::1"])).unwrap();
    outcome("http://127.0.0.1:1/", &here, &Table::default()).unwrap();
    assert_eq!(outcome("http://127.0.0.2/", &here, &Table::default()).unwrap_err().code(), Code::SsrfBlocked);
    // A star alone opens nothing.
    let star = Policy { allow_hosts: vec!["*".into(), "*.".into(), String::new()], ..Policy::default() };
    assert_eq!(outcome("http://127.0.0.1/", &star, &Table::default()).unwrap_err().code(), Code::SsrfBlocked);
}

#[test]
fn a_name_without_addresses_is_no_verdict() {
    let none = Always(Vec::new());
    assert_eq!(outcome("http://example.com/", &Policy::default(), &none).unwrap_err().code(), Code::Network);
}

#[test]
fn an_error_names_the_host_and_hides_the_rest_of_the_url() {
    let error =
        outcome("http://10.0.0.1/path?token=s3cret", &Policy::default(), &Table::default()).unwrap_err();
    assert!(error.message().contains("10.0.0.1") && !error.message().contains("s3cret"), "{error}");
    let error =
        outcome("http://user:s3cret@example.com/", &Policy::default(), &Table::default()).unwrap_err();
    assert!(!error.message().contains("s3cret"), "{error}");
}

proptest! {
    /// Whatever is written around a private address, it is refused or it is another host.
    #[test]
    fn no_decoration_of_a_private_address_is_admitted(
        prefix in "[a-z0-9./:@\\\\%#?&\\[\\] \t]{0,8}",
        host in prop::sample::select(vec!["127.0.0.1", "10.0.0.1", "[::1]", "169.254.169.254", "localhost", "0x7f.1"]),
        suffix in "[a-z0-9./:@\\\\%#?&\\[\\] \t]{0,8}",
    ) {
        let text = format!("http://{prefix}{host}{suffix}");
        if let Ok(found) = outcome(&text, &Policy::default(), &Table::default()) {
            for address in &found.addresses {
                prop_assert_eq!(special(*address), None, "{}", text);
            }
            // The host that was admitted is the one a reader sees: what stands before the first slash.
            let authority = text["http://".len()..].split(['/', '?', '#']).next().unwrap_or_default();
            let host = found.url.host_str().unwrap_or_default();
            prop_assert!(authority.to_lowercase().starts_with(host), "{} is {}", text, host);
        }
    }

    #[test]
    fn an_address_is_judged_alike_in_a_url_and_as_an_answer_of_dns(v4 in any::<u32>(), v6 in any::<u128>(), high in 0_usize..14) {
        let starts: [u16; 14] = [0, 0x64, 0x100, 0x2001, 0x2002, 0x3fff, 0xfc00, 0xfd00, 0xfe80, 0xfec0, 0xff02, 0x2a00, 0x2600, 0x5f00];
        let v6 = (v6 >> 16) | (u128::from(starts[high]) << 112);
        for address in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
            let url = match address {
                IpAddr::V4(address) => format!("http://{address}/"),
                IpAddr::V6(address) => format!("http://[{address}]/"),
            };
            let literal = outcome(&url, &Policy::default(), &Table::default());
            let resolved = outcome("http://a.example/", &Policy::default(), &Always(vec![address]));
            prop_assert_eq!(literal.is_ok(), special(address).is_none(), "{}", address);
            prop_assert_eq!(resolved.is_ok(), literal.is_ok(), "{}", address);
        }
    }
}
