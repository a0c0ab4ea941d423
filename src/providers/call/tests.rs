use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::super::anthropic::Anthropic;
use super::super::provider::{Provider, ProviderOptions};
use super::super::request::CompletionRequest;
use super::*;
use crate::secrets::Secret;

/// What the simulated network does with an attempt.
pub(crate) enum Reply {
    /// Nothing, for ever.
    Silence,
    /// No connection, after so long.
    Unreachable(Duration),
    /// A head, then pieces at their times after it; then the end, unless it is to stay open.
    Answer {
        status: u16,
        headers: Vec<(&'static str, String)>,
        pieces: Vec<(u64, Vec<u8>)>,
        stays_open: bool,
    },
}

pub(crate) fn answer(status: u16, pieces: &[(u64, &str)]) -> Reply {
    let pieces = pieces.iter().map(|(at, text)| (*at, text.as_bytes().to_vec())).collect();
    Reply::Answer { status, headers: Vec::new(), pieces, stays_open: false }
}

pub(crate) fn with(header: &'static str, value: &str, reply: Reply) -> Reply {
    match reply {
        Reply::Answer { status, mut headers, pieces, stays_open } => {
            headers.push((header, value.to_owned()));
            Reply::Answer { status, headers, pieces, stays_open }
        }
        other => other,
    }
}

fn open(reply: Reply) -> Reply {
    match reply {
        Reply::Answer { status, headers, pieces, .. } => {
            Reply::Answer { status, headers, pieces, stays_open: true }
        }
        other => other,
    }
}

/// A network on the simulated clock: replies in order, and what was asked when.
#[derive(Default)]
pub(crate) struct Simulated {
    replies: Mutex<VecDeque<Reply>>,
    pub(crate) asked: Arc<Mutex<Vec<(Instant, String)>>>,
    /// Bodies that were neither dropped nor read.
    pub(crate) open: Arc<AtomicUsize>,
}

impl Simulated {
    pub(crate) fn new(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self { replies: Mutex::new(replies.into_iter().collect()), ..Self::default() }
    }
}

struct Pieces {
    from: Instant,
    rest: VecDeque<(u64, Vec<u8>)>,
    stays_open: bool,
    open: Arc<AtomicUsize>,
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Body for Pieces {
    fn chunk(&mut self) -> Boxed<'_, Result<Option<Bytes>>> {
        Box::pin(async {
            let Some((at, _)) = self.rest.front() else {
                if self.stays_open {
                    std::future::pending::<()>().await;
                }
                return Ok(None);
            };
            sleep_until(self.from + Duration::from_millis(*at)).await;
            Ok(self.rest.pop_front().map(|(_, piece)| Bytes::from(piece)))
        })
    }
}

impl Transport for Simulated {
    fn send(&self, request: HttpRequest, _: Option<Duration>) -> Boxed<'_, Result<Answer, Unsent>> {
        let body = String::from_utf8(request.body).unwrap();
        self.asked.lock().unwrap().push((Instant::now(), body));
        let reply = self.replies.lock().unwrap().pop_front().expect("one attempt too many");
        Box::pin(async move {
            match reply {
                Reply::Silence => std::future::pending().await,
                Reply::Unreachable(after) => {
                    tokio::time::sleep(after).await;
                    Err(Unsent { error: CoreError::new(Code::Network, "refused"), retry: true })
                }
                Reply::Answer { status, headers, pieces, stays_open } => {
                    let mut head = HeaderMap::new();
                    if status == 200 {
                        head.insert("content-type", HeaderValue::from_static("text/event-stream"));
                    }
                    for (name, value) in headers {
                        head.insert(name, HeaderValue::from_str(&value).unwrap());
                    }
                    self.open.fetch_add(1, Ordering::SeqCst);
                    let rest = pieces.into();
                    let body =
                        Pieces { from: Instant::now(), rest, stays_open, open: Arc::clone(&self.open) };
                    Ok(Answer { status, headers: head, body: Box::new(body) })
                }
            }
        })
    }
}

const BEGIN: &str = "data: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"usage\":{\"input_tokens\":1}}}\n\n\
    data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
const WORD: &str = "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"x\"}}\n\n";
const PING: &str = "event: ping\ndata: {\"type\":\"ping\"}\n\n: comment\n\n";
const END: &str = "data: {\"type\":\"content_block_stop\",\"index\":0}\n\n\
    data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":2}}\n\n\
    data: {\"type\":\"message_stop\"}\n\n";

pub(crate) fn good() -> Reply {
    answer(200, &[(0, BEGIN), (1, WORD), (2, END)])
}

pub(crate) fn provider(simulated: Simulated, chance: fn() -> f64) -> Provider {
    let options = ProviderOptions {
        key: Some(Secret::copy_of(b"sk-test-0123456789abcdef0123456789")),
        base_url: Some("http://simulated".into()),
        ..ProviderOptions::default()
    };
    let now = || SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
    let surroundings = Surroundings { now, chance };
    Provider::with_transport(Box::new(Anthropic), options, Box::new(simulated), surroundings).unwrap()
}

pub(crate) fn request() -> CompletionRequest {
    CompletionRequest::from_json(r#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#).unwrap()
}

async fn ask(replies: impl IntoIterator<Item = Reply>, options: &CallOptions) -> (Outcome, Duration, usize) {
    let simulated = Simulated::new(replies);
    let (asked, open) = (Arc::clone(&simulated.asked), Arc::clone(&simulated.open));
    let provider = provider(simulated, || 0.5);
    let begun = Instant::now();
    let outcome = provider.complete(&request(), options, &CancellationToken::new()).await;
    let took = begun.elapsed();
    // What is left of a good body is read in peace.
    tokio::time::sleep(DRAIN * 2).await;
    assert_eq!(open.load(Ordering::SeqCst), 0, "a body is still open");
    let attempts = asked.lock().unwrap().len();
    (outcome, took, attempts)
}

fn times(first_byte: u64, idle: u64, total: Option<u64>) -> CallOptions {
    let total = total.map(Duration::from_secs);
    let timeouts = Timeouts {
        connect: None,
        first_byte: Some(Duration::from_secs(first_byte)),
        idle: Some(Duration::from_secs(idle)),
        total,
    };
    CallOptions { timeouts, ..CallOptions::default() }
}

#[tokio::test(start_paused = true)]
async fn each_timer_ends_what_it_watches_to_the_millisecond() {
    let cases: [(Reply, CallOptions, &str, u64); 8] = [
        (Reply::Silence, times(7, 100, None), "firstByte", 7000),
        // A head is no byte of the body.
        (open(answer(200, &[])), times(7, 100, None), "firstByte", 7000),
        (open(answer(200, &[(3000, BEGIN)])), times(7, 5, None), "idle", 8000),
        (open(answer(200, &[(0, BEGIN), (4000, WORD), (8000, WORD)])), times(7, 5, None), "idle", 13_000),
        // Pings come as often as they like: the stream is dead all the same.
        (
            open(answer(200, &(0..1000).map(|at| (at * 100, PING)).collect::<Vec<_>>())),
            times(7, 5, None),
            "idle",
            5000,
        ),
        // Thinking is progress.
        (
            open(answer(
                200,
                &[
                    (
                        0,
                        "data: {\"type\":\"message_start\",\"message\":{}}\n\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"thinking\",\"thinking\":\"\"}}\n\n",
                    ),
                    (
                        4000,
                        "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"hm\"}}\n\n",
                    ),
                ],
            )),
            times(7, 5, None),
            "idle",
            9000,
        ),
        (
            open(answer(
                200,
                &(0..1000).map(|at| (at * 100, if at == 0 { BEGIN } else { WORD })).collect::<Vec<_>>(),
            )),
            times(7, 5, Some(20)),
            "total",
            20_000,
        ),
        (Reply::Silence, times(100, 100, Some(20)), "total", 20_000),
    ];
    for (reply, options, phase, at) in cases {
        let (outcome, took, attempts) = ask([reply], &options).await;
        let failure = outcome.unwrap_err();
        assert_eq!(failure.error.code(), Code::Timeout, "{}", failure.error);
        assert_eq!((failure.error.details().phase, took.as_millis()), (Some(phase), u128::from(at)));
        assert_eq!(attempts, 1);
        assert_eq!(failure.message.stop_reason, StopReason::Error);
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_in_time_is_never_cut_off() {
    let pieces: Vec<_> = std::iter::once((6900, BEGIN))
        .chain((1..100).map(|at| (6900 + at * 4900, WORD)))
        .chain([(6900 + 100 * 4900, END)])
        .collect();
    let (outcome, took, _) = ask([answer(200, &pieces)], &times(7, 5, None)).await;
    assert_eq!(outcome.unwrap().stop_reason, StopReason::Stop);
    assert_eq!(took.as_secs(), 496);
}

#[tokio::test(start_paused = true)]
async fn it_tries_again_before_the_first_token_and_only_then() {
    for status in [408, 409, 429, 500, 502, 503, 504, 529] {
        let (outcome, took, attempts) =
            ask([answer(status, &[]), answer(status, &[]), good()], &CallOptions::default()).await;
        assert_eq!(outcome.unwrap().stop_reason, StopReason::Stop);
        // Half of 500 ms, half of a second, and the answer itself.
        assert_eq!((attempts, took.as_millis()), (3, 250 + 500 + 2), "{status}");
    }
    for status in [301, 307, 400, 401, 402, 403, 404, 413, 422] {
        let (outcome, _, attempts) = ask([answer(status, &[])], &CallOptions::default()).await;
        let error = outcome.unwrap_err().error;
        assert_eq!((error.code(), error.details().status, attempts), (Code::ProviderHttp, Some(status), 1));
    }
    let unreachable = || Reply::Unreachable(Duration::ZERO);
    let (outcome, _, attempts) = ask([unreachable(), unreachable(), good()], &CallOptions::default()).await;
    assert_eq!((outcome.is_ok(), attempts), (true, 3));
    let (outcome, _, attempts) =
        ask([unreachable(), unreachable(), unreachable()], &CallOptions::default()).await;
    assert_eq!((outcome.unwrap_err().error.code(), attempts), (Code::Network, 3));
    // Once there was an answer, it is the caller's to decide.
    for cut in [BEGIN.to_owned(), format!("{BEGIN}{WORD}"), String::new()] {
        let (outcome, _, attempts) = ask([answer(200, &[(0, &cut)])], &CallOptions::default()).await;
        assert_eq!((outcome.unwrap_err().error.code(), attempts), (Code::ProviderStream, 1), "{cut:?}");
    }
    let none = CallOptions { retries: 0, ..CallOptions::default() };
    assert_eq!(ask([answer(529, &[])], &none).await.2, 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_names_a_time_is_waited_for_up_to_the_cap() {
    let wait = |name, value: &str| [with(name, value, answer(429, &[])), good()];
    // 2027-01-15T08:00:20Z is 20 s from now.
    let date = "Fri, 15 Jan 2027 08:00:20 GMT";
    for (name, value, ms) in [
        ("retry-after", "7", 7000),
        ("retry-after", "0", 0),
        ("retry-after", "60", 60_000),
        ("retry-after-ms", "1500", 1500),
        ("retry-after", date, 20_000),
        ("retry-after", "Fri, 15 Jan 2021 08:00:20 GMT", 0),
        ("retry-after", "soon", 0),
        ("retry-after", "-5", 0),
    ] {
        let (outcome, took, _) = ask(wait(name, value), &CallOptions::default()).await;
        assert!(outcome.is_ok());
        assert_eq!(took.as_millis(), ms + 250 + 2, "{name}: {value}");
    }
    let for_ever = u64::MAX;
    for (value, ms) in [
        ("61", 61_000),
        ("1e9", 1_000_000_000_000),
        ("86400", 86_400_000),
        ("99999999999999999999", for_ever),
        ("1e400", for_ever),
    ] {
        let (outcome, took, attempts) = ask(wait("retry-after", value), &CallOptions::default()).await;
        let error = outcome.unwrap_err().error;
        assert_eq!((error.details().retry_after_ms, took.as_millis(), attempts), (Some(ms), 0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_clients_do_not_come_back_together() {
    fn dice() -> f64 {
        static SEED: AtomicUsize = AtomicUsize::new(1);
        // A full-period generator, so that the test is the same each time (Knuth, TAOCP 2, 3.2.1.2).
        let next = |seed: usize| {
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
        };
        let seed = SEED.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |seed| Some(next(seed))).unwrap();
        #[expect(clippy::cast_precision_loss, reason = "32 bits")]
        let part = (next(seed) >> 32) as f64 / f64::from(u32::MAX);
        part
    }
    let mut buckets = [0; 10];
    for _ in 0..1000 {
        let simulated = Simulated::new([with("retry-after", "5", answer(429, &[])), good()]);
        let asked = Arc::clone(&simulated.asked);
        provider(simulated, dice)
            .complete(&request(), &CallOptions::default(), &CancellationToken::new())
            .await
            .unwrap();
        let asked = asked.lock().unwrap();
        let wait = (asked[1].0 - asked[0].0).as_millis() - 5000;
        buckets[usize::try_from(wait / 50).unwrap().min(9)] += 1;
    }
    assert!(buckets.iter().all(|count| (60..=140).contains(count)), "{buckets:?}");
}

#[tokio::test(start_paused = true)]
async fn an_abort_at_any_phase_ends_the_call_at_once_and_closes_what_was_open() {
    let slow: Vec<_> =
        std::iter::once((500, BEGIN)).chain((1..50).map(|at| (500 + at * 100, WORD))).collect();
    for at in [0, 1, 400, 600, 2500, 5000] {
        for reply in
            [Reply::Silence, open(answer(200, &slow)), answer(529, &[]), open(answer(529, &[(10, "x")]))]
        {
            // The next attempt, if there is one, is answered by silence.
            let simulated = Simulated::new([reply, Reply::Silence]);
            let open = Arc::clone(&simulated.open);
            let provider = provider(simulated, || 1.0);
            let (cancel, queue) = (CancellationToken::new(), EventQueue::default());
            let begun = Instant::now();
            let abort = async {
                tokio::time::sleep(Duration::from_millis(at)).await;
                cancel.cancel();
            };
            let options = times(1000, 1000, None);
            let request = request();
            tokio::join!(provider.stream(&request, &options, &cancel, &queue), abort);
            assert_eq!(begun.elapsed().as_millis(), u128::from(at));
            assert_eq!(open.load(Ordering::SeqCst), 0);
            let last = queue.take().await.unwrap();
            assert!(last.batch.is_empty(), "an event follows the abort");
            let failure = last.outcome.unwrap().unwrap_err();
            assert_eq!(failure.message.stop_reason, StopReason::Aborted);
            assert_eq!(provider.usage().requests, 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_of_tokens_crosses_at_most_sixty_times_and_the_first_ones_at_once() {
    let mut pieces = vec![(0, BEGIN)];
    pieces.extend((1..=1000).map(|at| (at, WORD)));
    pieces.push((1000, END));
    let provider = provider(Simulated::new([answer(200, &pieces)]), || 0.5);
    let (queue, cancel, request) = (EventQueue::default(), CancellationToken::new(), request());
    let begun = Instant::now();
    let read = async {
        let (mut times, mut text) = (Vec::new(), String::new());
        while let Some(handed) = queue.take().await {
            times.push(begun.elapsed().as_millis());
            text.push_str(&handed.batch.text);
        }
        (times, text)
    };
    let options = CallOptions::default();
    let ((), (times, text)) = tokio::join!(provider.stream(&request, &options, &cancel, &queue), read);
    assert_eq!(times[..2], [0, 1], "the first word waits for nothing");
    assert!(times.len() <= 2 + 60, "{}", times.len());
    assert!(times.last().is_some_and(|last| (1000..=1017).contains(last)), "{times:?}");
    assert_eq!(text, "x".repeat(1000));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_pauses_for_an_hour_ends_no_stream() {
    let big = WORD.replace("\"x\"", &format!("\"{}\"", "y".repeat(60_000)));
    let mut pieces = vec![(0, BEGIN)];
    pieces.extend((0..10).map(|_| (1, big.as_str())));
    pieces.push((2, END));
    let provider = provider(Simulated::new([answer(200, &pieces)]), || 0.5);
    let (queue, cancel, options) = (EventQueue::default(), CancellationToken::new(), times(7, 5, None));
    let request = request();
    let read = async {
        let mut bytes = 0;
        while let Some(handed) = queue.take().await {
            bytes += handed.batch.text.len();
            if let Some(outcome) = handed.outcome {
                outcome.unwrap();
            }
            tokio::time::sleep(Duration::from_hours(1)).await;
        }
        bytes
    };
    let ((), bytes) = tokio::join!(provider.stream(&request, &options, &cancel, &queue), read);
    assert_eq!(bytes, 600_000);
}

#[tokio::test(start_paused = true)]
async fn an_error_says_what_the_server_said_and_never_the_key() {
    let body = r#"{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key sk-test-0123456789abcdef0123456789 for https://u:p4ssw0rd@h/"}}"#;
    let (outcome, _, _) = ask([answer(401, &[(0, body)])], &CallOptions::default()).await;
    let failure = outcome.unwrap_err();
    let details = failure.error.details();
    assert_eq!(details.error_type.as_deref(), Some("authentication_error"));
    assert!(
        failure
            .error
            .message()
            .starts_with("anthropic answered 401 Unauthorized: authentication_error: invalid")
    );
    for text in [format!("{failure:?}"), failure.message.to_json()] {
        assert!(!text.contains("0123456789abcdef"), "{text}");
    }
    // A page instead of an API, larger than anybody wants to read.
    let page = format!("<!doctype html><title>Bad gateway</title>{}", "x".repeat(1 << 20));
    let none = CallOptions { retries: 0, ..CallOptions::default() };
    let (outcome, _, _) = ask([answer(502, &[(0, &page)])], &none).await;
    let error = outcome.unwrap_err().error;
    assert!(error.message().ends_with("502 Bad Gateway: an HTML page"), "{error}");
    assert!(error.details().body.as_ref().unwrap().len() < 5000);
    // One whose body never ends.
    let (outcome, took, _) =
        ask([open(answer(500, &[(0, "{")]))], &CallOptions { retries: 0, ..times(7, 5, None) }).await;
    assert_eq!((outcome.unwrap_err().error.details().status, took.as_secs()), (Some(500), 2));
    // Not even where nothing else has a limit.
    let never = Timeouts { connect: None, first_byte: None, idle: None, total: None };
    let none = CallOptions { retries: 0, timeouts: never, ..CallOptions::default() };
    let (outcome, took, _) = ask([open(answer(529, &[]))], &none).await;
    assert_eq!((outcome.unwrap_err().error.details().status, took.as_secs()), (Some(529), 2));
}

#[tokio::test(start_paused = true)]
async fn nothing_that_was_sent_as_a_secret_comes_back_in_an_error() {
    const KEY: &str = "zq/plain-looking-key";
    const CLIENTS: &str = "gateway words of the client";
    const CALLS: &str = "token-of-the-call";
    let secret = |text: &str| {
        let mut value = HeaderValue::from_str(text).unwrap();
        value.set_sensitive(true);
        value
    };
    let said = format!("bad {KEY}, {}, {CLIENTS} or {CALLS}: claude-beta-x", KEY.replace('/', "\\/"));
    let error = |words: &str| {
        format!("{{\"type\":\"error\",\"error\":{{\"type\":\"{words}\",\"message\":\"{words}\"}}}}")
    };
    let chunk = format!("{BEGIN}data: {}\n\n", error(&said));
    let refusal = format!(
        "{BEGIN}data: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"refusal\",\"stop_details\":{{\"explanation\":\"{said}\"}}}}}}\n\ndata: {{\"type\":\"message_stop\"}}\n\n"
    );
    let not_a_stream = with("content-type", "application/json", answer(200, &[(0, &error(&said))]));
    for reply in [
        answer(401, &[(0, &error(&said))]),
        answer(400, &[(0, &said)]),
        answer(200, &[(0, &chunk)]),
        answer(200, &[(0, &refusal)]),
        not_a_stream,
    ] {
        let mut provider = provider(Simulated::new([reply]), || 0.0);
        provider
            .set_endpoint(KEY, [("x-gateway", secret(CLIENTS)), ("anthropic-beta", secret("claude-beta-x"))]);
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, secret(&format!("Bearer {CALLS}")))]);
        let options = CallOptions { headers, ..CallOptions::default() };
        let outcome = provider.complete(&request(), &options, &CancellationToken::new()).await;
        let failure = outcome.unwrap_err();
        let told = format!("{failure:?} {}", failure.message.to_json());
        for secret in [KEY, "plain-looking-key", CLIENTS, CALLS] {
            assert!(!told.contains(secret), "{secret}: {told}");
        }
        assert!(told.contains("[REDACTED]") && told.contains("claude-beta-x"), "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_good_status_with_an_error_for_a_body_is_that_error() {
    let json = |body: &str| with("content-type", "application/json", answer(200, &[(0, body)]));
    let limited = r#"{"error":{"code":429,"message":"slow down"}}"#;
    let (outcome, _, attempts) = ask([json(limited), good()], &CallOptions::default()).await;
    assert_eq!((outcome.is_ok(), attempts), (true, 2));
    let none = CallOptions { retries: 0, ..CallOptions::default() };
    let error = ask([json(limited)], &none).await.0.unwrap_err().error;
    assert_eq!((error.code(), error.details().status), (Code::ProviderHttp, Some(429)));
    assert_eq!(error.details().body.as_deref(), Some(limited));
    let other = r#"{"error":{"type":"no_such_model","message":"there is no m"}}"#;
    let error = ask([json(other)], &none).await.0.unwrap_err().error;
    assert_eq!(
        (error.code(), error.details().error_type.as_deref()),
        (Code::ProviderStream, Some("no_such_model"))
    );
    assert!(error.message().ends_with("no_such_model: there is no m"), "{error}");
    let error = ask([json("{}")], &none).await.0.unwrap_err().error;
    assert!(error.message().contains("baseUrl"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn headers_that_belong_to_the_connection_are_refused() {
    for name in ["content-length", "transfer-encoding", "connection", "host"] {
        let headers = HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static("5"))]);
        let options = CallOptions { headers, ..CallOptions::default() };
        let (outcome, _, attempts) = ask([], &options).await;
        let error = outcome.unwrap_err().error;
        let path = format!("headers.{name}");
        assert_eq!(
            (error.code(), error.details().path.as_deref(), attempts),
            (Code::ProviderRequest, Some(path.as_str()), 0)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_good_status_with_the_wrong_content_is_an_error_that_says_so() {
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("content-type", "application/json"),
        ("content-encoding", "gzip"),
    ] {
        let (outcome, _, attempts) = ask([with(name, value, good())], &CallOptions::default()).await;
        let error = outcome.unwrap_err().error;
        assert_eq!((error.code(), attempts), (Code::ProviderStream, 1));
        assert!(error.message().contains(value.split(';').next().unwrap()), "{error}");
    }
    let (outcome, _, _) =
        ask([with("content-type", "Text/Event-Stream; charset=utf-8", good())], &CallOptions::default())
            .await;
    assert!(outcome.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_hooks_see_the_payload_once_and_each_answer() {
    let simulated = Simulated::new([answer(500, &[]), good()]);
    let asked = Arc::clone(&simulated.asked);
    let (seen, mut statuses) = mpsc::unbounded_channel();
    let payloads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&payloads);
    let options = CallOptions {
        on_payload: Some(Arc::new(move |payload| {
            counted.fetch_add(1, Ordering::SeqCst);
            assert!(payload.contains("\"model\":\"m\""));
            Box::pin(async { Ok(Some("{\"mine\":1}".to_owned())) })
        })),
        on_response: Some(Arc::new(move |status, _| seen.send(status).unwrap())),
        ..CallOptions::default()
    };
    provider(simulated, || 0.0).complete(&request(), &options, &CancellationToken::new()).await.unwrap();
    assert_eq!(payloads.load(Ordering::SeqCst), 1);
    assert_eq!((statuses.recv().await, statuses.recv().await), (Some(500), Some(200)));
    assert!(asked.lock().unwrap().iter().all(|(_, body)| body == "{\"mine\":1}"));
}

#[tokio::test(start_paused = true)]
async fn sums_hold_what_was_counted_and_nothing_else() {
    let cut = answer(200, &[(0, BEGIN)]);
    let provider = provider(Simulated::new([good(), cut, answer(400, &[])]), || 0.0);
    for _ in 0..3 {
        let _ = provider.complete(&request(), &CallOptions::default(), &CancellationToken::new()).await;
    }
    let sums = provider.usage();
    assert_eq!((sums.requests, sums.failures), (3, 2));
    assert_eq!(
        sums.to_json(),
        r#"{"requests":3,"failures":2,"byModel":{"m":{"input":2,"output":2,"totalTokens":3}}}"#
    );
}
