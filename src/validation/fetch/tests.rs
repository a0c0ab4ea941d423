use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A server on loopback, which notes what it was asked.
struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers each request with what `answer` makes of its head, and closes.
    async fn start(at: &str, answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&requests), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                tokio::spawn(async move {
                    let (head, mut stream) = head(stream).await;
                    let answer = answer(&head);
                    seen.lock().unwrap().push(head);
                    // A client that has enough hangs up.
                    let _ = stream.write_all(&answer).await;
                });
            }
        });
        Self { address, requests }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn head(mut stream: TcpStream) -> (String, TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            break;
        }
        head.extend_from_slice(&byte);
    }
    (String::from_utf8(head).unwrap().to_lowercase(), stream)
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn redirect(to: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n").into_bytes()
}

/// Loopback, where the tests' servers are.
fn private() -> FetchOptions {
    FetchOptions { policy: Policy { allow_private: true, ..Policy::default() }, ..FetchOptions::default() }
}

/// The one server by its address, and nothing else.
fn only(server: &Server) -> FetchOptions {
    let policy = Policy { allow_hosts: vec![server.address.ip().to_string()], ..Policy::default() };
    FetchOptions { policy, ..FetchOptions::default() }
}

fn header(name: &str, value: &str) -> (String, String) {
    (name.into(), value.into())
}

/// Gives one answer after the other, the last one for ever.
struct Changing {
    answers: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
}

impl Changing {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        Arc::new(Self { answers: answers.iter().map(parse).collect(), asked: AtomicUsize::new(0) })
    }
}

impl Resolver for Changing {
    fn lookup(&self, _host: &str) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> {
        let at = self.asked.fetch_add(1, Ordering::Relaxed).min(self.answers.len() - 1);
        let answer = self.answers[at].clone();
        Box::pin(async move { Ok(answer) })
    }
}

#[tokio::test]
async fn a_resolver_that_changes_its_answer_between_check_and_connect_changes_nothing() {
    let good = Server::start("127.0.0.1:0", |_| ok("good")).await;
    let port = good.address.port();
    let evil = Server::start(&format!("127.0.0.2:{port}"), |_| ok("evil")).await;
    for second in ["127.0.0.2", "169.254.169.254"] {
        let resolver = Changing::new(&[&["127.0.0.1"], &[second]]);
        let options = FetchOptions { resolver: Arc::clone(&resolver) as _, ..private() };
        let fetched = fetch(&format!("http://rebind.example.com:{port}/"), &options).await.unwrap();
        assert_eq!(fetched.body, b"good");
        assert_eq!(resolver.asked.load(Ordering::Relaxed), 1);
    }
    assert_eq!(good.requests().len(), 2);
    assert!(good.requests()[0].contains(&format!("host: rebind.example.com:{port}\r\n")));
    assert!(evil.requests().is_empty());
}

#[tokio::test]
async fn each_hop_is_checked_and_pinned_anew() {
    let server = Server::start("127.0.0.1:0", |head| {
        let port = head.split("host: ").nth(1).unwrap().split(['\r', ':']).nth(1).unwrap().to_owned();
        if head.starts_with("get /first") {
            redirect(&format!("http://b.example.com:{port}/second"))
        } else {
            ok("second")
        }
    })
    .await;
    let port = server.address.port();
    let url = format!("http://a.example.com:{port}/first");
    // The same resolver, asked a second time, for the second hop.
    let resolver = Changing::new(&[&["127.0.0.1"], &["127.0.0.1"], &["127.0.0.2"]]);
    let options = FetchOptions { resolver: Arc::clone(&resolver) as _, ..private() };
    let fetched = fetch(&url, &options).await.unwrap();
    assert_eq!((fetched.status, fetched.body.as_slice()), (200, b"second".as_slice()));
    assert_eq!(fetched.url.as_str(), format!("http://b.example.com:{port}/second"));
    assert_eq!(resolver.asked.load(Ordering::Relaxed), 2);

    for bad in
        [&["169.254.169.254"][..], &["127.0.0.1", "169.254.169.254"], &["::ffff:127.0.0.1"], &["0.0.0.0"]]
    {
        let options = FetchOptions { resolver: Changing::new(&[&["127.0.0.1"], bad]), ..private() };
        assert_eq!(fetch(&url, &options).await.unwrap_err().code(), Code::SsrfBlocked, "{bad:?}");
    }
}

#[tokio::test]
async fn a_redirect_to_what_may_not_be_fetched_is_refused() {
    let hidden = Server::start("127.0.0.1:0", |_| ok("hidden")).await;
    let port = hidden.address.port();
    for target in [
        format!("http://localhost:{port}/"),
        format!("http://127.0.0.2:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://u@127.0.0.1:{port}/"),
        format!("//u:p@127.0.0.1:{port}/"),
        format!("http://b.example.com:{port}/"),
        format!("http://0.0.0.0:{port}/"),
        "http://169.254.169.254/latest/meta-data/".into(),
        "file:///etc/passwd".into(),
        "gopher://127.0.0.1/_".into(),
        "data:text/plain,x".into(),
        "javascript:1".into(),
    ] {
        let to = target.clone();
        let server = Server::start("127.0.0.1:0", move |_| redirect(&to)).await;
        let options = FetchOptions { resolver: Changing::new(&[&["127.0.0.1"]]), ..only(&server) };
        let error = fetch(&server.url("/"), &options).await.unwrap_err();
        assert_eq!(error.code(), Code::SsrfBlocked, "{target}: {error}");
    }
    assert!(hidden.requests().is_empty());
}

#[tokio::test]
async fn a_redirect_must_be_written_plainly_too() {
    let target = Server::start("127.0.0.1:0", |_| ok("reached")).await;
    let port = target.address.port();
    let follow = async |to: String| {
        let server = Server::start("127.0.0.1:0", move |_| redirect(&to)).await;
        fetch(&server.url("/a/b"), &only(&server)).await
    };
    for host in [
        "http://0x7f.1",
        "http://2130706433",
        "http://127.1",
        "http:/127.0.0.1",
        "http:127.0.0.1",
        "http:\\\\127.0.0.1",
        "/\\127.0.0.1",
        "\\/127.0.0.1",
        "\\\\127.0.0.1",
        "//0x7f.1",
        "/\t/127.0.0.1",
        "ht\ttp://127.0.0.1",
        "http://%31%32%37.0.0.1",
        "//x@127.0.0.1",
    ] {
        let error = follow(format!("{host}:{port}/")).await.unwrap_err();
        assert_eq!(error.code(), Code::SsrfBlocked, "{host}: {error}");
    }
    assert_eq!(follow(format!("///127.0.0.1:{port}/")).await.unwrap_err().code(), Code::Network);
    assert!(target.requests().is_empty());
    for host in ["http://127.0.0.1", "HTTP://127.0.0.1", "//127.0.0.1"] {
        assert_eq!(follow(format!("{host}:{port}/")).await.unwrap().body, b"reached", "{host}");
    }
    for (to, path) in [("c?d=//e", "/a/c"), ("/c:d", "/c:d"), ("../c", "/c"), ("?x", "/a/b"), (" /c ", "/c")]
    {
        let server = Server::start("127.0.0.1:0", move |head| {
            if head.starts_with("get /a/b http") { redirect(to) } else { ok("") }
        })
        .await;
        assert_eq!(fetch(&server.url("/a/b"), &only(&server)).await.unwrap().url.path(), path, "{to}");
    }
}

#[tokio::test]
async fn without_leave_nothing_private_is_reached() {
    let server = Server::start("127.0.0.1:0", |_| ok("hidden")).await;
    let port = server.address.port();
    let options = FetchOptions { resolver: Changing::new(&[&["127.0.0.1"]]), ..FetchOptions::default() };
    for host in ["127.0.0.1", "localhost", "a.example.com", "0x7f.1", "[::ffff:127.0.0.1]", "127.0.0.1."] {
        let error = fetch(&format!("http://{host}:{port}/"), &options).await.unwrap_err();
        assert_eq!(error.code(), Code::SsrfBlocked, "{host}");
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn credentials_stay_with_their_origin() {
    let other = Server::start("127.0.0.1:0", |head| {
        let back = head.split("get /").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        if back.is_empty() { ok("other") } else { redirect(&format!("http://127.0.0.1:{back}/last")) }
    })
    .await;
    let to = other.url("/");
    let first = Server::start("127.0.0.1:0", move |head| match head.split(' ').nth(1).unwrap() {
        "/same" => redirect("/away"),
        "/away" => {
            let port = head.split("host: 127.0.0.1:").nth(1).unwrap().split('\r').next().unwrap();
            redirect(&format!("{to}{port}"))
        }
        _ => ok("first"),
    })
    .await;
    let secrets = ["authorization", "cookie", "x-api-key", "proxy", "referer"];
    let mut headers: Vec<_> = secrets[..3].iter().map(|name| header(name, "s3cret")).collect();
    headers.push(header("Accept-Language", "de"));
    let options = FetchOptions { headers, ..private() };
    fetch(&first.url("/same"), &options).await.unwrap();
    let requests = first.requests();
    let kept =
        |request: &str| request.contains("authorization: s3cret") && request.contains("x-api-key: s3cret");
    // The same origin sees them again; another one, and the first when that one sends us back, does not.
    assert!(kept(&requests[0]) && kept(&requests[1]), "{requests:?}");
    for request in other.requests().iter().chain(&requests[2..]) {
        for name in secrets {
            assert!(!request.contains(&format!("{name}:")), "{request}");
        }
        assert!(request.contains("accept-language: de"), "{request}");
    }
    assert_eq!((requests.len(), other.requests().len()), (3, 1));
}

#[tokio::test]
async fn headers_that_frame_a_request_are_not_the_callers_to_set() {
    let server = Server::start("127.0.0.1:0", |_| ok("")).await;
    for (name, value) in [
        ("Host", "internal"),
        ("host", "x"),
        ("Content-Length", "5"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "upgrade"),
        ("Upgrade", "h2c"),
        ("Proxy-Authorization", "x"),
        ("TE", "trailers"),
        ("x\r\ny", "1"),
        ("x", "1\r\nhost: internal"),
        ("", "1"),
        ("a b", "1"),
    ] {
        let options = FetchOptions { headers: vec![header(name, value)], ..private() };
        let error = fetch(&server.url("/"), &options).await.unwrap_err();
        assert_eq!(error.code(), Code::Validation, "{name:?}");
        assert!(!error.message().contains("internal"), "{error}");
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_body_is_cut_off_at_its_limit_whatever_the_server_says() {
    let endless = || {
        let mut answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..100 {
            answer.extend_from_slice(b"10\r\n0123456789abcdef\r\n");
        }
        answer
    };
    let server = Server::start("127.0.0.1:0", move |head| match head.split(' ').nth(1).unwrap() {
        "/exact" => ok(&"x".repeat(1000)),
        "/over" => ok(&"x".repeat(1001)),
        "/claims" => b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999\r\n\r\nx".to_vec(),
        "/chunked" => endless(),
        "/until-close" => [b"HTTP/1.0 200 OK\r\n\r\n".as_slice(), &[b'x'; 1001]].concat(),
        _ => b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\nx-a: 1\r\nx-a: 2\r\n\r\nno".to_vec(),
    })
    .await;
    let options = FetchOptions { max_bytes: 1000, ..private() };
    assert_eq!(fetch(&server.url("/exact"), &options).await.unwrap().body.len(), 1000);
    for path in ["/over", "/claims", "/chunked", "/until-close"] {
        assert_eq!(fetch(&server.url(path), &options).await.unwrap_err().code(), Code::Limit, "{path}");
    }
    let missing = fetch(&server.url("/missing"), &options).await.unwrap();
    assert_eq!((missing.status, missing.body.as_slice()), (404, b"no".as_slice()));
    assert_eq!(missing.headers["x-a"], "1, 2");
}

#[tokio::test]
async fn a_compressed_answer_is_neither_asked_for_nor_unpacked() {
    let server = Server::start("127.0.0.1:0", |_| {
        // Ten bytes that claim to be gzip.
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 10\r\n\r\n\x1f\x8b\x08\0\0\0\0\0\0\x03"
            .to_vec()
    })
    .await;
    let fetched = fetch(&server.url("/"), &FetchOptions { max_bytes: 10, ..private() }).await.unwrap();
    assert_eq!(fetched.body, b"\x1f\x8b\x08\0\0\0\0\0\0\x03");
    assert_eq!(fetched.headers["content-encoding"], "gzip");
    assert!(server.requests()[0].contains("accept-encoding: identity"));
}

#[tokio::test]
async fn redirects_come_to_an_end() {
    let server = Server::start("127.0.0.1:0", |_| redirect("/again")).await;
    let error = fetch(&server.url("/"), &private()).await.unwrap_err();
    assert_eq!(error.code(), Code::Limit);
    assert_eq!(server.requests().len(), 6);
    for broken in ["http://[", "http://", ""] {
        let server = Server::start("127.0.0.1:0", move |_| redirect(broken)).await;
        let error = fetch(&server.url("/"), &private()).await.unwrap_err();
        let expected = if broken.is_empty() { Code::Limit } else { Code::Network };
        assert_eq!(error.code(), expected, "{broken:?}: {error}");
    }
    // Without a target it is an answer like any other.
    let server =
        Server::start("127.0.0.1:0", |_| b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
    assert_eq!(fetch(&server.url("/"), &private()).await.unwrap().status, 302);
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/?token=s3cret", listener.local_addr().unwrap());
    let options = FetchOptions { timeout: Duration::from_millis(100), ..private() };
    assert_eq!(fetch(&url, &options).await.unwrap_err().code(), Code::Timeout);
    drop(listener);
    let error = fetch(&url, &private()).await.unwrap_err();
    assert_eq!(error.code(), Code::Network);
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
}
