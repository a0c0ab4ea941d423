use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolving};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const TLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/__test__/sim/tls/");

fn pem(name: &str) -> PathBuf {
    Path::new(TLS).join(name)
}

/// A TLS server whose name is `pinned.example.com`, and says so.
async fn tls_server() -> SocketAddr {
    let chain = certificates(&pem("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(pem("server.key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Who does not trust us hangs up.
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let name = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    address
}

struct Here;

impl Resolve for Here {
    fn resolve(&self, _name: Name) -> Resolving {
        let here = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0);
        Box::pin(async move { Ok(Box::new(std::iter::once(here)) as Addrs) })
    }
}

fn direct(ca_file: Option<PathBuf>) -> Client {
    let resolver: Option<Arc<dyn Resolve>> = Some(Arc::new(Here));
    client(&HttpOptions { proxy: Proxy::None, ca_file, resolver, ..HttpOptions::default() }).unwrap()
}

#[tokio::test]
async fn an_authority_of_a_file_is_trusted_and_no_other_server_is() {
    let port = tls_server().await.port();
    let get = async |client: &Client, host: &str| {
        let sent = client.get(format!("https://{host}:{port}/?token=s3cret")).send().await;
        match sent {
            Ok(response) => body("the answer", response, 100).await,
            Err(error) => Err(failure("the request", error)),
        }
    };
    let trusting = direct(Some(pem("ca.pem")));
    // The name is asked for, and held against the certificate, though the address was given.
    assert_eq!(get(&trusting, "pinned.example.com").await.unwrap(), b"pinned.example.com");
    assert_eq!(get(&trusting, "127.0.0.1").await.unwrap(), b"");
    for (client, host) in [(&trusting, "other.example.com"), (&direct(None), "pinned.example.com")] {
        let error = get(client, host).await.unwrap_err();
        assert_eq!(error.code(), Code::Network);
        assert!(error.message().contains("certificate"), "{error}");
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    }
}

#[test]
fn a_ca_file_that_is_none_is_an_error_with_its_name() {
    let scratch = tempfile::tempdir().unwrap();
    for (name, text, code) in [
        ("missing", None, Code::Io),
        ("empty", Some(""), Code::Validation),
        ("text", Some("no PEM"), Code::Validation),
        ("cut", Some("-----BEGIN CERTIFICATE-----\nMIIB"), Code::Validation),
        ("key", Some("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), Code::Validation),
        ("junk", Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), Code::Validation),
    ] {
        let file = scratch.path().join(name);
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let error =
            client(&HttpOptions { ca_file: Some(file.clone()), ..HttpOptions::default() }).unwrap_err();
        assert_eq!(
            (error.code(), error.details().file.as_deref()),
            (code, Some(file.as_path())),
            "{name}: {error}"
        );
    }
}

#[tokio::test]
async fn a_proxy_is_asked_but_for_the_hosts_that_it_is_not_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let seen = String::from_utf8_lossy(&request[..read]).into_owned();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{seen}",
                seen.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let through = client(&HttpOptions {
        proxy: Proxy::Url {
            url: format!("http://user:pass@{address}"),
            no_proxy: Some("direct.example.com".into()),
        },
        resolver: Some(Arc::new(Here)),
        keep_alive: false,
        ..HttpOptions::default()
    })
    .unwrap();
    let get = async |host: &str| {
        let response = through.get(format!("http://{host}:{}/x", address.port())).send().await.unwrap();
        String::from_utf8(body("it", response, 4096).await.unwrap()).unwrap().to_lowercase()
    };
    let proxied = get("far.example.com").await;
    assert!(proxied.starts_with("get http://far.example.com:"), "{proxied}");
    assert!(proxied.contains("proxy-authorization: basic dxnlcjpwyxnz"), "{proxied}");
    let straight = get("direct.example.com").await;
    assert!(straight.starts_with("get /x http/1.1"), "{straight}");
    assert!(!straight.contains("proxy-authorization"), "{straight}");
    for host in ["localhost", "LOCALHOST", "127.0.0.1"] {
        let straight = get(host).await;
        assert!(straight.starts_with("get /x http/1.1"), "{host}: {straight}");
    }
}

#[test]
fn a_proxys_password_is_in_no_error_and_no_debug_text() {
    let proxy = Proxy::Url { url: "http://user:s3cret@[bad".into(), no_proxy: None };
    assert!(!format!("{proxy:?}").contains("s3cret"));
    let error = client(&HttpOptions { proxy, ..HttpOptions::default() }).unwrap_err();
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
}
