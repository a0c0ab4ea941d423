use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::super::anthropic::Anthropic;
use super::super::builder::Op;
use super::super::call::Surroundings;
use super::super::call::tests::{Reply, Simulated, answer, good, request, with};
use super::super::provider::ProviderOptions;
use super::*;

/// The time of day, which each test sets for itself: tests run in threads of their own.
mod clock {
    use super::*;

    thread_local! {
        static NOW: AtomicU64 = const { AtomicU64::new(1_800_000_000_000) };
    }

    pub(super) fn pass(seconds: u64) {
        NOW.with(|now| now.fetch_add(seconds * 1000, Ordering::SeqCst));
    }

    pub(super) fn ms() -> u64 {
        NOW.with(|now| now.load(Ordering::SeqCst))
    }

    pub(super) fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(ms())
    }
}

type Asked = Arc<Mutex<Vec<(tokio::time::Instant, String)>>>;

fn candidate(id: &str, replies: impl IntoIterator<Item = Reply>) -> (Candidate, Asked) {
    let simulated = Simulated::new(replies);
    let asked = Arc::clone(&simulated.asked);
    let options = ProviderOptions { id: Some(id.into()), ..ProviderOptions::default() };
    let surroundings = Surroundings { now: clock::now, chance: || 0.0 };
    let provider =
        Provider::with_transport(Box::new(Anthropic), options, Box::new(simulated), surroundings).unwrap();
    (Candidate { provider: Arc::new(provider), model: format!("model-of-{id}"), profile: None }, asked)
}

fn once() -> CallOptions {
    CallOptions { retries: 0, ..CallOptions::default() }
}

async fn ask(failover: &FailoverProvider) -> (Outcome, Vec<(String, &'static str, Option<u64>)>) {
    let (outcome, attempts) = failover.complete(&request(), &once(), &CancellationToken::new()).await;
    let told = attempts.into_iter().map(|a| (a.provider, a.reason, a.cooldown_until_ms)).collect();
    (outcome, told)
}

fn count(asked: &Asked) -> usize {
    asked.lock().unwrap().len()
}

fn error(kind: &str) -> String {
    format!("{{\"type\":\"error\",\"error\":{{\"type\":\"{kind}\",\"message\":\"m\"}}}}")
}

#[tokio::test(start_paused = true)]
async fn the_first_that_can_answers_with_its_own_model_and_the_others_are_told() {
    let (a, asked_a) = candidate("a", [answer(529, &[(0, &error("overloaded_error"))])]);
    let (b, asked_b) = candidate("b", [good()]);
    let (c, asked_c) = candidate("c", []);
    let failover = FailoverProvider::new(vec![a, b, c], None).unwrap();
    let (outcome, attempts) = ask(&failover).await;
    let message = outcome.unwrap();
    assert_eq!((message.provider.as_str(), message.model.as_str()), ("b", "model-of-b"));
    assert_eq!(attempts, [("a".to_owned(), "overloaded", Some(clock::ms() + 30_000))]);
    assert_eq!((count(&asked_a), count(&asked_b), count(&asked_c)), (1, 1, 0));
    assert!(asked_b.lock().unwrap()[0].1.contains("model-of-b"));
}

#[tokio::test(start_paused = true)]
async fn a_window_does_not_grow_from_inside_and_lets_one_through_at_its_end() {
    let limited = || with("retry-after", "100", answer(429, &[]));
    let (a, asked) = candidate("a", [limited(), answer(500, &[]), good()]);
    let (b, _) = candidate("b", (0..30).map(|_| good()));
    let failover = FailoverProvider::new(vec![a, b], None).unwrap();
    let until = clock::ms() + 100_000;
    assert_eq!(ask(&failover).await.1, [("a".to_owned(), "rate_limit", Some(until))]);
    for _ in 0..9 {
        clock::pass(10);
        assert_eq!(ask(&failover).await.1, [("a".to_owned(), "cooldown", Some(until))]);
    }
    assert_eq!(count(&asked), 1);
    clock::pass(10);
    // One of many callers asks; it fails, and the next window begins.
    let (cancel, request, once) = (CancellationToken::new(), request(), once());
    let calls = (0..10).map(|_| failover.complete(&request, &once, &cancel));
    let outcomes = futures_util::future::join_all(calls).await;
    assert_eq!(count(&asked), 2);
    let reasons: Vec<_> = outcomes.iter().map(|(_, attempts)| attempts[0].reason).collect();
    assert_eq!(reasons.iter().filter(|reason| **reason == "server_error").count(), 1);
    assert_eq!(reasons.iter().filter(|reason| **reason == "cooldown").count(), 9);
    // The second failure in a row: a minute.
    clock::pass(59);
    assert_eq!(ask(&failover).await.1[0].1, "cooldown");
    clock::pass(1);
    assert_eq!(ask(&failover).await.0.unwrap().provider, "a");
    assert_eq!(count(&asked), 3);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_was_aborted_is_given_back() {
    let (a, asked) = candidate("a", [answer(529, &[]), Reply::Silence, good()]);
    let failover = FailoverProvider::new(vec![a], None).unwrap();
    assert!(ask(&failover).await.0.is_err());
    clock::pass(30);
    let (cancel, request, once) = (CancellationToken::new(), request(), once());
    let stop = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cancel.cancel();
    };
    let ((outcome, attempts), ()) = tokio::join!(failover.complete(&request, &once, &cancel), stop);
    assert!(outcome.unwrap_err().aborted() && attempts.is_empty());
    assert!(ask(&failover).await.0.is_ok());
    assert_eq!(count(&asked), 3);
}

#[tokio::test(start_paused = true)]
async fn one_total_holds_for_all_candidates_and_who_came_late_is_not_blamed() {
    let (a, _) = candidate("a", [answer(500, &[]), Reply::Silence]);
    let (b, asked_b) = candidate("b", [Reply::Silence]);
    let (c, asked_c) = candidate("c", []);
    let failover = FailoverProvider::new(vec![a, b, c], None).unwrap();
    let mut options = once();
    options.timeouts.total = Some(Duration::from_secs(3));
    let begun = tokio::time::Instant::now();
    let (outcome, attempts) = failover.complete(&request(), &options, &CancellationToken::new()).await;
    let error = outcome.unwrap_err().error;
    assert_eq!((error.code(), error.details().phase), (Code::Timeout, Some("total")));
    assert_eq!(begun.elapsed().as_secs(), 3);
    let told: Vec<_> = attempts.iter().map(|a| (a.reason, a.cooldown_until_ms.is_some())).collect();
    assert_eq!(told, [("server_error", true), ("timeout", false)]);
    assert_eq!((count(&asked_b), count(&asked_c)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn with_all_of_them_cooling_nobody_is_asked_and_the_wait_is_named() {
    let (a, asked_a) = candidate("a", [answer(402, &[])]);
    let (b, asked_b) = candidate("b", [answer(401, &[])]);
    let failover = FailoverProvider::new(vec![a, b], None).unwrap();
    let (outcome, attempts) = ask(&failover).await;
    assert_eq!(outcome.unwrap_err().error.details().status, Some(401));
    let (ten, half) = (clock::ms() + 600_000, clock::ms() + 30_000);
    assert_eq!(attempts, [("a".to_owned(), "billing", Some(ten)), ("b".to_owned(), "auth", Some(half))]);
    clock::pass(10);
    let (outcome, attempts) = ask(&failover).await;
    let error = outcome.unwrap_err().error;
    assert_eq!((error.code(), error.details().retry_after_ms), (Code::ProviderHttp, Some(20_000)));
    assert_eq!(attempts.iter().filter(|attempt| attempt.1 == "cooldown").count(), 2);
    assert_eq!((count(&asked_a), count(&asked_b)), (1, 1));
}

const BEGIN: &str = "data: {\"type\":\"message_start\",\"message\":{}}\n\n";
const BLOCK: &str = "data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"He\"}}\n\n";

#[tokio::test(start_paused = true)]
async fn whoever_has_begun_to_speak_has_the_last_word_and_whoever_has_not_leaves_no_trace() {
    let stream = async |replies: [Reply; 1]| {
        let (a, _) = candidate("a", replies);
        let (b, asked) = candidate("b", [good()]);
        let failover = FailoverProvider::new(vec![a, b], None).unwrap();
        let queue = EventQueue::default();
        let noted = Mutex::new(0);
        let note = |attempts: &[FailedAttempt]| *noted.lock().unwrap() = attempts.len();
        failover.stream(&request(), &once(), &CancellationToken::new(), &queue, &note).await;
        let handed = queue.take().await.unwrap();
        let ops: Vec<Op> = handed.batch.entries().map(|entry| entry.0).collect();
        (ops, handed.outcome.unwrap(), count(&asked), noted.into_inner().unwrap())
    };
    // It had begun, but said nothing.
    let (ops, outcome, asked, noted) = stream([answer(200, &[(0, BEGIN)])]).await;
    assert_eq!(outcome.unwrap().provider, "b");
    assert_eq!((ops.iter().filter(|op| **op == Op::Start).count(), asked, noted), (1, 1, 1));
    let (ops, outcome, asked, noted) = stream([answer(200, &[(0, &format!("{BEGIN}{BLOCK}"))])]).await;
    let failure = outcome.unwrap_err();
    assert_eq!((failure.message.provider.as_str(), failure.had_content), ("a", true));
    assert_eq!((ops, asked, noted), (vec![Op::Start, Op::TextStart, Op::TextDelta], 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_or_a_prompt_that_is_too_long_goes_to_nobody_else() {
    let refusal = format!(
        "{BEGIN}data: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"refusal\"}}}}\n\ndata: {{\"type\":\"message_stop\"}}\n\n"
    );
    let long = "{\"error\":{\"type\":\"invalid_request_error\",\"message\":\"prompt is too long: 1 > 0\"}}";
    for (reply, reason) in
        [(answer(200, &[(0, &refusal)]), "unclassified"), (answer(400, &[(0, long)]), "context_overflow")]
    {
        let (a, _) = candidate("a", [reply]);
        let (b, asked) = candidate("b", [good()]);
        let failover = FailoverProvider::new(vec![a, b], None).unwrap();
        let (outcome, attempts) = ask(&failover).await;
        assert!(outcome.is_err());
        assert_eq!((attempts, count(&asked)), (vec![("a".to_owned(), reason, None)], 0));
    }
}

/// `classifyFailoverReason` of OpenClaw 2026.9 gives the same for each of these.
#[test]
fn reasons_have_openclaws_names() {
    let http = |status: u16, kind: &str, words: &str| {
        CoreError::new(Code::ProviderHttp, format!("p answered {status}: {kind}: {words}"))
            .with_status(status)
            .of_type(kind)
    };
    for (status, kind, words, reason) in [
        (400, "invalid_request_error", "bad", "format"),
        (400, "invalid_request_error", "prompt is too long: 3 tokens > 2 maximum", "context_overflow"),
        (401, "authentication_error", "invalid x-api-key", "auth"),
        (402, "billing_error", "pay", "billing"),
        (403, "permission_error", "no", "auth"),
        (404, "not_found_error", "model: x", "model_not_found"),
        (408, "timeout_error", "slow", "timeout"),
        (422, "invalid_request_error", "bad", "format"),
        (429, "rate_limit_error", "slow down", "rate_limit"),
        (429, "insufficient_quota", "You exceeded your current quota", "billing"),
        (500, "api_error", "Internal", "server_error"),
        (503, "overloaded_error", "The model is overloaded", "overloaded"),
        (504, "timeout_error", "slow", "timeout"),
        (529, "overloaded_error", "Overloaded", "overloaded"),
    ] {
        assert_eq!(classify(&http(status, kind, words)).as_str(), reason, "{status} {kind} {words}");
    }
    assert_eq!(classify(&CoreError::new(Code::Timeout, "x")), Reason::Timeout);
    assert_eq!(classify(&CoreError::new(Code::Network, "refused")), Reason::Timeout);
    assert_eq!(classify(&CoreError::new(Code::Network, "invalid peer certificate")), Reason::TlsCertificate);
    assert_eq!(classify(&CoreError::new(Code::ProviderRequest, "x")), Reason::Format);
    assert_eq!(classify(&CoreError::new(Code::ProviderStream, "ended")), Reason::Timeout);
}
