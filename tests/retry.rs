//! `RetryLayer`: the table, row by row, and everything that bounds it.

mod support;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header::RETRY_AFTER};
use http_body_util::{Empty, Full};
use support::*;
use tokio::time::Instant;
use tokio_test::{assert_pending, task};
use tower::{Layer, Service, ServiceExt};
use tower_gemini::{
    BoxError, CallContext, ClassifyLayer, Error, GeminiLayer, ModelFallbackLayer, Outcome, ReplayLayer, RetryBudget,
    RetryLayer, RetryPolicy,
    body::Resend,
    context::{Deadline, GaveUp, RetryAdvice},
    failure::{Failure, Fault, Kind, TimeoutKind},
    model_fallback::FallbackChains,
    retry::{Cause, OnOpen, Rule},
    service_times::ServiceTimes,
};

/// Makes one call and returns its result.
struct Called {
    result: Result<Response<AnyBody>, BoxError>,
    upstream: Upstream,
}

impl Called {
    fn status(&self) -> u16 {
        self.result.as_ref().unwrap().status().as_u16()
    }

    fn outcome(&self) -> Outcome {
        Outcome::of(&self.result)
    }

    fn kind(&self) -> Kind {
        self.outcome().failure().expect("a failure").kind()
    }
}

async fn call_with(policy: RetryPolicy, upstream: Upstream, request: Request<Full<Bytes>>) -> Called {
    let result = RetryLayer::new(policy).layer(upstream.clone()).oneshot(request).await;
    Called { result, upstream }
}

async fn call(upstream: Upstream) -> Called {
    call_with(RetryPolicy::default(), upstream, post(GENERATE)).await
}

/// An upstream with always the same failure, marked as `ClassifyLayer` would.
fn always(failure: Failure) -> Upstream {
    Upstream::at_once(move |_| refused_with(failure.clone(), None))
}

/// An upstream that fails `times` times, then answers.
fn at_first(times: usize, failure: Failure) -> Upstream {
    Upstream::fails(times, move || refused_with(failure.clone(), None))
}

/// Returns a failure as a response if it came as one, else as an error.
fn refused_with(failure: Failure, retry: Option<RetryAdvice>) -> Answer {
    let say = |outcome: Outcome| match retry {
        Some(retry) => outcome.with_retry(retry),
        None => outcome,
    };
    match failure.fault() {
        Fault::Transport | Fault::Local => Err(Error::refusal("inner", failure).map_outcome(say).into()),
        _ => {
            let mut response = json(failure.code().as_u16(), "{}");
            response.extensions_mut().insert(say(Outcome::default().with_failure(failure)));
            Ok(response)
        }
    }
}

fn kind(kind: Kind) -> Failure {
    Failure::local(kind, "as the test says")
}

fn with_context(change: impl FnOnce(&mut CallContext)) -> Request<Full<Bytes>> {
    let mut request = post(GENERATE);
    CallContext::update(request.extensions_mut(), change);
    request
}

fn within(deadline: Duration) -> Request<Full<Bytes>> {
    with_context(|context| context.tighten_deadline(Deadline::after(deadline)))
}

fn no_budget() -> RetryPolicy {
    RetryPolicy::default().budget(None)
}

// === the table ===

#[tokio::test(start_paused = true)]
async fn each_row_allows_as_many_attempts_as_it_says() {
    let table = [
        (Kind::Overloaded, 8),
        (Kind::Capacity, 8),
        (Kind::Unavailable, 8),
        (Kind::Connect, 8),
        (Kind::Reset, 8),
        (Kind::Transport, 8),
        (Kind::QuotaUnknown, 8),
        (Kind::QuotaMinute, 8),
        (Kind::QuotaTokensMinute, 8),
        (Kind::ServerError, 4),
        (Kind::BadGateway, 4),
        (Kind::DeadlineExceeded, 2),
        (Kind::Cancelled, 2),
        (Kind::EmptyResponse, 2),
        (Kind::EmptyMalformedFunctionCall, 2),
        (Kind::Timeout(TimeoutKind::Attempt), 8),
        (Kind::Timeout(TimeoutKind::FirstContent), 8),
        (Kind::QuotaDay, 1),
        (Kind::QuotaZero, 1),
        (Kind::InvalidRequest, 1),
        (Kind::ContextTooLong, 1),
        (Kind::PayloadTooLarge, 1),
        (Kind::ContentBlocked, 1),
        (Kind::ModelNotFound, 1),
        (Kind::Conflict, 1),
        (Kind::AuthKeyInvalid, 1),
        (Kind::PermissionDenied, 1),
        (Kind::BillingRequired, 1),
        (Kind::Timeout(TimeoutKind::Total), 1),
        (Kind::BadRequest, 1),
        (Kind::BodyTooLarge, 1),
        (Kind::RequestBody, 1),
        (Kind::CircuitOpen, 1),
        (Kind::RateLimited, 1),
    ];
    for (what, attempts) in table {
        let called = call(always(kind(what))).await;
        assert_eq!(called.upstream.calls(), attempts, "{what}");
        assert_eq!(called.kind(), what);
        // The last allowed failure ends the call; with one fewer, it is answered.
        if attempts > 1 {
            let called = call(at_first(attempts - 1, kind(what))).await;
            assert_eq!((called.upstream.calls(), called.status()), (attempts, 200), "{what}");
            assert_eq!(called.outcome().attempts() as usize, attempts);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn alone_it_goes_by_the_status() {
    let table = [
        (200, 1),
        (302, 1),
        (400, 1),
        (401, 1),
        (403, 1),
        (404, 1),
        (409, 1),
        (413, 1),
        (501, 1),
        (408, 2),
        (499, 2),
        (504, 2),
        (500, 4),
        (502, 4),
        (429, 8),
        (503, 8),
    ];
    for (code, attempts) in table {
        let called = call(Upstream::at_once(move |_| Ok(status(code)))).await;
        assert_eq!((called.upstream.calls(), called.status()), (attempts, code), "{code}");
    }
    let called = call(Upstream::at_once(|_| Err(reset().into()))).await;
    assert_eq!((called.upstream.calls(), called.kind()), (8, Kind::Reset));
    assert!(source::<std::io::Error>(&called.result.unwrap_err()).is_some());
}

#[tokio::test(start_paused = true)]
async fn backoffs_double_under_full_jitter() {
    // Many calls: no wait is over its ceiling, and the ceilings are nearly reached.
    for (what, base) in [(Kind::Overloaded, 500), (Kind::Reset, 500), (Kind::QuotaUnknown, 1000)] {
        let mut longest = [Duration::ZERO; 7];
        let mut shortest = [secs(100); 7];
        for _ in 0..200 {
            let called = call_with(no_budget(), always(kind(what)), post(GENERATE)).await;
            for (nth, wait) in called.upstream.waits().into_iter().enumerate() {
                longest[nth] = longest[nth].max(wait);
                shortest[nth] = shortest[nth].min(wait);
            }
        }
        for nth in 0..7 {
            let ceiling = millis(base << nth).min(secs(20));
            // Timers have a resolution of one millisecond.
            assert!(longest[nth] <= ceiling + millis(1), "wait {nth} of {what}: {:?} over {ceiling:?}", longest[nth]);
            assert!(longest[nth] > ceiling.mul_f64(0.9), "wait {nth} of {what}: {:?} of {ceiling:?}", longest[nth]);
            assert!(shortest[nth] < ceiling.mul_f64(0.1), "wait {nth} of {what}: no jitter");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_is_waited_for_and_not_much_longer() {
    for _ in 0..50 {
        let upstream = at_first(1, kind(Kind::QuotaMinute).with_hint(secs(2)));
        let called = call(upstream).await;
        let wait = called.upstream.waits()[0];
        assert!((secs(2)..=millis(2501)).contains(&wait), "{wait:?}");
    }
    // The same with a header.
    let upstream = Upstream::fails(1, || {
        let mut response = status(429);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"));
        Ok(response)
    });
    let wait = call(upstream).await.upstream.waits()[0];
    assert!((secs(2)..=millis(2501)).contains(&wait), "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn a_second_that_was_cut_off_a_hint_is_waited_for_too() {
    let said = |message: &'static str, delay: &'static str| {
        Upstream::fails(1, move || {
            let body = serde_json::json!({ "error": {
                "code": 429, "message": message, "status": "RESOURCE_EXHAUSTED",
                "details": [{ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay }],
            } });
            Ok(json(429, body.to_string()))
        })
    };
    let wait = async |upstream: Upstream| {
        let layers = tower::ServiceBuilder::new().layer(RetryLayer::default()).layer(ClassifyLayer::new());
        layers.service(upstream.clone()).oneshot(post(GENERATE)).await.unwrap();
        upstream.waits()[0]
    };
    for _ in 0..20 {
        // "2s" may have been 2.9; the wait has to be from 2 to 4 s.
        let cut = wait(said("Quota exceeded.", "2s")).await;
        assert!((secs(3)..=millis(3501)).contains(&cut), "{cut:?}");
        let exact = wait(said("Quota exceeded. Please retry in 2.25s.", "2s")).await;
        assert!((millis(2250)..=millis(2751)).contains(&exact), "{exact:?}");
        let whole = wait(said("Quota exceeded.", "2.5s")).await;
        assert!((millis(2500)..=millis(3001)).contains(&whole), "{whole:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_shorter_than_the_backoff_does_not_shorten_it() {
    let mut over = 0;
    for _ in 0..100 {
        let called = call_with(no_budget(), always(kind(Kind::Overloaded).with_hint(millis(1))), post(GENERATE)).await;
        over += called.upstream.waits().into_iter().filter(|wait| *wait > secs(2)).count();
    }
    assert!(over > 100, "{over} of 700 waits were as long as a backoff");
}

#[tokio::test(start_paused = true)]
async fn a_hint_of_five_minutes_is_the_longest() {
    let called = call(at_first(1, kind(Kind::QuotaMinute).with_hint(secs(300)))).await;
    assert_eq!(called.status(), 200);
    assert!(called.upstream.waits()[0] >= secs(300));
    for hint in [secs(300) + millis(1), secs(5000), Duration::MAX] {
        for what in [Kind::QuotaMinute, Kind::Overloaded] {
            let called = call(at_first(1, kind(what).with_hint(hint))).await;
            assert_eq!((called.upstream.calls(), called.kind()), (1, what), "{hint:?}");
        }
    }
    let patient = RetryPolicy::default().max_hint(Duration::MAX);
    let upstream = at_first(1, kind(Kind::QuotaMinute).with_hint(Duration::MAX));
    let called = call_with(patient, upstream, within(secs(100))).await;
    assert_eq!(called.upstream.calls(), 1);
    let impatient = RetryPolicy::default().max_hint(secs(1));
    let called = call_with(impatient, at_first(1, kind(Kind::QuotaMinute).with_hint(secs(2))), post(GENERATE)).await;
    assert_eq!(called.upstream.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn in_all_there_are_no_more_attempts_than_the_policy_allows() {
    let kinds = [Kind::Overloaded, Kind::ServerError, Kind::EmptyResponse, Kind::QuotaUnknown, Kind::Reset];
    let upstream = Upstream::at_once(move |nth| refused_with(kind(kinds[nth % kinds.len()]), None));
    let called = call(upstream).await;
    // The second empty answer, the last that its row allows, is the seventh attempt.
    assert_eq!((called.upstream.calls(), called.kind()), (8, Kind::EmptyResponse));
    for attempts in [0, 1, 2, 5] {
        let policy = RetryPolicy::default().max_attempts(attempts);
        let called = call_with(policy, always(kind(Kind::Overloaded)), post(GENERATE)).await;
        assert_eq!(called.upstream.calls(), attempts.max(1) as usize);
        assert_eq!(called.outcome().attempts(), attempts.max(1));
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_500_twice_is_suspected_of_its_content() {
    let called = call(always(kind(Kind::ServerError))).await;
    assert!(called.outcome().failure().unwrap().is_content_suspected());
    // The same without a layer that classifies.
    let called = call(Upstream::at_once(|_| Ok(status(500)))).await;
    assert!(called.outcome().failure().unwrap().is_content_suspected());
    // Another message, another failure, another status, or only one 500: no suspicion.
    let words = Upstream::at_once(|nth| refused_with(Failure::local(Kind::ServerError, format!("number {nth}")), None));
    assert!(!call(words).await.outcome().failure().unwrap().is_content_suspected());
    let once = call_with(RetryPolicy::never(), always(kind(Kind::ServerError)), post(GENERATE)).await;
    assert!(!once.outcome().failure().unwrap().is_content_suspected());
    assert!(!call(always(kind(Kind::BadGateway))).await.outcome().failure().unwrap().is_content_suspected());
    // With another failure in between, it is still the same 500 twice.
    let between = Upstream::at_once(|nth| match nth {
        1 => refused_with(kind(Kind::BadGateway), None),
        _ => refused_with(kind(Kind::ServerError), None),
    });
    assert!(call(between).await.outcome().failure().unwrap().is_content_suspected());
    // Answered in the end: no suspicion.
    let called = call(at_first(3, kind(Kind::ServerError))).await;
    assert!(called.outcome().failure().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_was_never_sent_is_sent_once_more_at_once_and_for_nothing() {
    let called = call(at_first(1, kind(Kind::NotSent))).await;
    assert_eq!((called.upstream.waits(), called.outcome().attempts()), (vec![Duration::ZERO], 1));
    // The second such attempt is counted.
    let called = call_with(no_budget(), always(kind(Kind::NotSent)), post(GENERATE)).await;
    assert_eq!((called.upstream.calls(), called.outcome().attempts()), (9, 8));
    assert_eq!(called.upstream.waits()[0], Duration::ZERO);
    let policy = RetryPolicy::default().max_attempts(2);
    let called = call_with(policy, always(kind(Kind::NotSent)), post(GENERATE)).await;
    assert_eq!((called.upstream.calls(), called.outcome().attempts()), (3, 2));
    let called = call_with(RetryPolicy::never(), always(kind(Kind::NotSent)), post(GENERATE)).await;
    assert_eq!(called.upstream.calls(), 1);
    // It spends no budget.
    let policy = RetryPolicy::default().budget(RetryBudget::new(0));
    let called = call_with(policy, at_first(1, kind(Kind::NotSent)), post(GENERATE)).await;
    assert_eq!(called.status(), 200);
}

// === the advice of layers inside ===

fn says(times: usize, failure: Failure, retry: RetryAdvice) -> Upstream {
    Upstream::fails(times, move || refused_with(failure.clone(), Some(retry)))
}

#[tokio::test(start_paused = true)]
async fn now_and_queued_are_at_once_and_spend_no_budget() {
    for retry in [RetryAdvice::Now, RetryAdvice::Queued] {
        for what in [Kind::QuotaDay, Kind::AuthKeyInvalid, Kind::QuotaMinute, Kind::RateLimited] {
            let policy = RetryPolicy::default().budget(RetryBudget::new(0));
            let called = call_with(policy, says(3, kind(what).with_hint(secs(50)), retry), post(GENERATE)).await;
            assert_eq!(called.upstream.waits(), [Duration::ZERO; 3], "{retry:?} {what}");
            assert_eq!(called.status(), 200);
        }
        // But not for ever.
        let called = call(says(1000, kind(Kind::QuotaDay), retry)).await;
        assert_eq!(called.upstream.calls(), 8);
        let called = call(says(1000, kind(Kind::RateLimited), retry)).await;
        assert!(called.upstream.calls() <= 9, "{}", called.upstream.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn after_and_never_are_obeyed() {
    let called = call(says(1, kind(Kind::Overloaded), RetryAdvice::After(secs(30)))).await;
    let wait = called.upstream.waits()[0];
    assert!((secs(30)..=secs(30) + millis(1)).contains(&wait), "{wait:?}");
    // The advice overrides the table, but not for ever.
    for what in [Kind::QuotaDay, Kind::AuthKeyInvalid] {
        let policy = RetryPolicy::default().budget(RetryBudget::new(0));
        let called = call_with(policy, says(2, kind(what), RetryAdvice::After(secs(200))), post(GENERATE)).await;
        assert_eq!((called.status(), called.upstream.waits()), (200, vec![secs(200); 2]), "{what}");
        // A wait until midnight is left to the caller.
        let called = call(says(1, kind(what), RetryAdvice::After(secs(40_000)))).await;
        assert_eq!(called.upstream.calls(), 1);
        assert_eq!(called.outcome().retry(), Some(RetryAdvice::After(secs(40_000))));
        let called = call(says(1000, kind(what), RetryAdvice::After(secs(1)))).await;
        assert_eq!(called.upstream.calls(), 8);
        for (wait, calls) in [(millis(9999), 2), (secs(10), 1), (secs(11), 1)] {
            let upstream = says(1, kind(what), RetryAdvice::After(wait));
            let called = call_with(RetryPolicy::default(), upstream, within(secs(10))).await;
            assert_eq!(called.upstream.calls(), calls, "{wait:?}");
        }
    }
    for what in [Kind::Overloaded, Kind::NotSent, Kind::CircuitOpen] {
        let called = call(says(1, kind(what).with_hint(secs(1)), RetryAdvice::Never)).await;
        assert_eq!(called.upstream.calls(), 1, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_inside_is_waited_for_and_no_attempt_is_counted() {
    for what in [Kind::CircuitOpen, Kind::RateLimited] {
        // More often than there are attempts: nothing was sent.
        let called = call(at_first(20, kind(what).with_hint(secs(3)))).await;
        assert_eq!(called.status(), 200, "{what}");
        assert_eq!(called.outcome().attempts(), 1);
        assert!(called.upstream.waits().iter().all(|wait| (secs(3)..=millis(3001)).contains(wait)));
        // A refusal without a time: it goes back, and no attempt is counted.
        let called = call(always(kind(what))).await;
        assert_eq!((called.upstream.calls(), called.kind()), (1, what));
        assert_eq!(called.outcome().attempts(), 0, "{what}: nothing was sent");
        assert!(find(&called.result.unwrap_err()).never_sent());
        // A single allowed attempt has not been made yet.
        let policy = RetryPolicy::default().max_attempts(1);
        let called = call_with(policy, at_first(3, kind(what).with_hint(secs(3))), post(GENERATE)).await;
        assert_eq!((called.status(), called.upstream.calls()), (200, 4));
    }
}

#[tokio::test(start_paused = true)]
async fn on_open_is_about_open_circuits_only() {
    let fail = || RetryPolicy::default().on_open(OnOpen::Fail);
    let called = call_with(fail(), always(kind(Kind::CircuitOpen).with_hint(secs(3))), post(GENERATE)).await;
    assert_eq!((called.upstream.calls(), called.outcome().attempts()), (1, 0));
    for what in [Kind::RateLimited, Kind::KeysExhausted] {
        // There is quota again at that time, whatever the circuit does.
        let called = call_with(fail(), at_first(20, kind(what).with_hint(secs(3))), post(GENERATE)).await;
        assert_eq!((called.status(), called.outcome().attempts()), (200, 1), "{what}");
        // As a hint of the upstream's: not longer than `max_hint`, and not past the deadline.
        for policy in [fail(), RetryPolicy::default()] {
            let called = call_with(policy.clone(), at_first(1, kind(what).with_hint(secs(301))), post(GENERATE)).await;
            assert_eq!((called.upstream.calls(), called.outcome().gave_up()), (1, Some(GaveUp::Wait)), "{what}");
            assert_eq!(called.outcome().retry(), Some(RetryAdvice::After(secs(301))));
            let called = call_with(policy, at_first(1, kind(what).with_hint(secs(9))), within(secs(9))).await;
            assert_eq!((called.upstream.calls(), called.outcome().gave_up()), (1, Some(GaveUp::Wait)), "{what}");
        }
        // A policy of one attempt that fails on an open circuit waits for nothing.
        for policy in [RetryPolicy::never(), fail().max_attempts(1)] {
            let called = call_with(policy, always(kind(what).with_hint(secs(1))), post(GENERATE)).await;
            assert_eq!(called.upstream.calls(), 1, "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_do_not_make_it_spin_or_wait_for_ever() {
    let began = Instant::now();
    let called = call(always(kind(Kind::CircuitOpen).with_hint(Duration::ZERO))).await;
    assert!(began.elapsed() <= secs(286), "{:?}", began.elapsed());
    // At least 10 ms apart.
    assert!(called.upstream.calls() <= 28_600, "{}", called.upstream.calls());
    let waited = called.outcome();
    assert!(matches!(waited.retry(), Some(RetryAdvice::After(_))), "{waited:?}");
    // With a deadline, the deadline bounds the wait.
    let began = Instant::now();
    let called =
        call_with(RetryPolicy::default(), always(kind(Kind::CircuitOpen).with_hint(secs(4))), within(secs(10))).await;
    assert_eq!((called.upstream.calls(), called.kind()), (3, Kind::CircuitOpen));
    assert!(began.elapsed() < secs(9));
    assert_eq!(called.outcome().retry(), Some(RetryAdvice::After(secs(4))));
}

// === the deadline ===

#[tokio::test(start_paused = true)]
async fn no_sleep_begins_that_cannot_end_before_the_deadline() {
    for (deadline, hint, calls) in [(10, 9, 2), (10, 10, 1), (10, 11, 1), (10, 200, 1), (0, 1, 1)] {
        let began = Instant::now();
        let upstream = at_first(1, kind(Kind::QuotaMinute).with_hint(secs(hint)));
        let called = call_with(RetryPolicy::default(), upstream, within(secs(deadline))).await;
        assert_eq!(called.upstream.calls(), calls, "{hint} s before {deadline} s");
        if calls == 1 {
            assert_eq!(began.elapsed(), Duration::ZERO, "it goes back at once");
            let Some(RetryAdvice::After(needed)) = called.outcome().retry() else { panic!("it does not say how long") };
            assert!((secs(hint)..=secs(hint) + millis(500)).contains(&needed), "{needed:?}");
            assert_eq!(called.kind(), Kind::QuotaMinute);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_wait_that_would_have_been_needed_is_said_without_classify_too() {
    let upstream = Upstream::at_once(|_| {
        let mut response = status(503);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("60"));
        Ok(response)
    });
    let called = call_with(RetryPolicy::default(), upstream, within(secs(10))).await;
    assert_eq!(called.upstream.calls(), 1);
    assert!(
        matches!(called.outcome().retry(), Some(RetryAdvice::After(wait)) if wait >= secs(60)),
        "{:?}",
        called.outcome()
    );
    let upstream = Upstream::at_once(|_| Err(reset().into()));
    let called = call_with(RetryPolicy::default().base_delay(secs(50)), upstream, within(Duration::ZERO)).await;
    // A backoff of its own is no such wait.
    let error = called.result.unwrap_err();
    let outcome = find(&error).outcome();
    assert_eq!((outcome.retry(), outcome.gave_up()), (None, Some(GaveUp::Wait)));
}

// === calls that may be sent twice ===

#[tokio::test(start_paused = true)]
async fn a_call_that_makes_something_is_sent_again_only_if_it_was_turned_away() {
    let unsafe_calls = [BATCH, INTERACTIONS, "/upload/v1beta/files", "/v1beta/cachedContents", "/elsewhere"];
    for uri in unsafe_calls {
        let calls = async |upstream: Upstream| {
            let layers = tower::ServiceBuilder::new().layer(RetryLayer::new(no_budget())).layer(ClassifyLayer::new());
            let _ = layers.service(upstream.clone()).oneshot(post(uri)).await;
            upstream.calls()
        };
        let refused = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let quota = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"Please retry in 1s."}}"#;
        assert_eq!(calls(Upstream::fails(2, || Ok(busy()))).await, 3, "{uri}: said so itself");
        assert_eq!(calls(Upstream::fails(2, move || Ok(json(429, quota)))).await, 3, "{uri}");
        assert_eq!(calls(Upstream::fails(2, move || Err(refused().into()))).await, 3, "{uri}: never connected");
        let key =
            r#"[{"error":{"code":403,"status":"PERMISSION_DENIED","message":"Your API key was reported as leaked."}}]"#;
        assert_eq!(calls(Upstream::fails(2, move || Ok(json(403, key)))).await, 1, "{uri}: no other key");
        assert_eq!(calls(Upstream::fails(2, || Ok(status(503)))).await, 1, "{uri}: some proxy");
        assert_eq!(calls(Upstream::fails(2, || Ok(json(503, "busy")))).await, 1, "{uri}: some proxy");
        assert_eq!(calls(Upstream::fails(2, || Err(reset().into()))).await, 1, "{uri}: may have arrived");
        let internal = r#"{"error":{"code":500,"status":"INTERNAL","message":"An internal error has occurred."}}"#;
        assert_eq!(calls(Upstream::fails(2, move || Ok(json(500, internal)))).await, 1, "{uri}");
        assert_eq!(calls(at_first(2, kind(Kind::Timeout(TimeoutKind::Attempt)))).await, 1, "{uri}");
        // Refused by a layer inside: nothing was sent.
        assert_eq!(calls(at_first(2, kind(Kind::CircuitOpen).with_hint(secs(1)))).await, 3, "{uri}");
        assert_eq!(calls(at_first(2, kind(Kind::NotSent))).await, 3, "{uri}");
    }
    // A row that the user sets does not change it.
    let policy = RetryPolicy::default().on(StatusCode::INTERNAL_SERVER_ERROR, Rule::attempts(5));
    let called = call_with(policy, Upstream::at_once(|_| Ok(status(500))), post(BATCH)).await;
    assert_eq!(called.upstream.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_interaction_is_sent_again_after_an_error_that_says_so_and_not_after_silence() {
    let internal = r#"{"error":{"code":"internal_error","message":"An internal error has occurred."}}"#;
    let stored = r#"{"model":"m","input":"hi"}"#;
    let kept = r#"{"model":"m","input":"hi","store":true}"#;
    let continued = r#"{"model":"m","input":"hi","previous_interaction_id":"x"}"#;
    let background = r#"{"model":"m","input":"hi","background":true}"#;
    for (body, calls) in [(stored, 3), (kept, 1), (continued, 1), (background, 1)] {
        let layers = tower::ServiceBuilder::new()
            .layer(ReplayLayer::default())
            .layer(RetryLayer::new(no_budget()))
            .layer(ClassifyLayer::new());
        let upstream = Upstream::fails(2, move || Ok(json(500, internal)));
        let _ = layers.clone().service(upstream.clone()).oneshot(post_body(INTERACTIONS, body)).await;
        assert_eq!(upstream.calls(), calls, "{body}");
        for failed in [|| Err(reset().into()), || Ok(status(500))] {
            let upstream = Upstream::fails(2, failed);
            let _ = layers.clone().service(upstream.clone()).oneshot(post_body(INTERACTIONS, body)).await;
            assert_eq!(upstream.calls(), 1, "{body}: it may have been made");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_the_same_request() {
    let mut request = post("/v1beta/models/m:generateContent?x=1");
    request.headers_mut().insert("x-own", HeaderValue::from_static("kept"));
    let upstream = Upstream::fails(3, || Ok(busy()));
    let called = call_with(RetryPolicy::default(), upstream, request).await;
    let asked = called.upstream.asked();
    assert_eq!(asked.len(), 4);
    for (nth, asked) in asked.iter().enumerate() {
        assert_eq!(asked.uri, "/v1beta/models/m:generateContent?x=1");
        assert_eq!((&asked.headers["x-own"], &asked.body[..]), (&HeaderValue::from_static("kept"), PROMPT.as_bytes()));
        // The first attempt of a room alone carries no `CallContext`, because there is nothing to write into it.
        let attempt = asked.context.as_ref().map(CallContext::attempt);
        assert_eq!(attempt, if nth == 0 { None } else { Some(nth as u32 + 1) });
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_in_memory_need_no_other_layer() {
    let inner = tower::service_fn(|_: Request<String>| async { Ok::<_, BoxError>(status(503)) });
    let policy = RetryPolicy::default().max_attempts(2);
    RetryLayer::new(policy.clone()).layer(inner).oneshot(post(GENERATE).map(|_| String::from("body"))).await.unwrap();
    let inner = tower::service_fn(|_: Request<Empty<Bytes>>| async { Ok::<_, BoxError>(status(503)) });
    RetryLayer::new(policy).layer(inner).oneshot(post(GENERATE).map(|_| Empty::new())).await.unwrap();
}

// === the commit ===

#[tokio::test(start_paused = true)]
async fn after_the_commit_nothing_is_sent_again() {
    let layers = tower::ServiceBuilder::new().layer(RetryLayer::default()).layer(ClassifyLayer::new());
    let upstream = Upstream::at_once(|_| Ok(sse(broken([event("a")]))));
    let response = layers.clone().service(upstream.clone()).oneshot(post(STREAM)).await.unwrap();
    let (data, error) = frames(response.into_body()).await;
    assert_eq!(data, [event("a")]);
    assert!(error.is_some());
    assert_eq!(upstream.calls(), 1);
    // Before the commit it is retried: the client never sees the first two answers.
    let upstream = Upstream::at_once(|nth| match nth {
        0 => Ok(sse(broken([": ping\n\n"]))),
        1 => Ok(sse(chunks([format!("data: {BUSY}\n\n")]))),
        2 => Ok(sse(chunks([format!("data: {EMPTY}\n\n")]))),
        _ => Ok(sse(chunks([last_event("a")]))),
    });
    let response = layers.service(upstream.clone()).oneshot(post(STREAM)).await.unwrap();
    assert_eq!(read(response.into_body()).await, last_event("a"));
    assert_eq!(upstream.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_failed_answer_is_read_and_let_go_before_the_wait_is_over() {
    let (feed, body) = fed();
    feed.data("some of the error");
    let (hung, hung_body) = fed();
    let bodies = parking_lot::Mutex::new(vec![hung_body, body]);
    let upstream = Upstream::at_once(move |_| {
        Ok(match bodies.lock().pop() {
            Some(body) => judged(typed(503, "text/plain", any(body)), kind(Kind::Overloaded).with_hint(secs(10))),
            None => hello(),
        })
    });
    let mut call = task::spawn(RetryLayer::default().layer(upstream.clone()).oneshot(post(GENERATE)));
    assert_pending!(call.poll());
    assert!(feed.is_live(), "its rest is awaited");
    drop(feed.clone());
    feed.data("and the rest");
    let live = feed.clone();
    drop(feed);
    assert!(live.is_live());
    live.fail(reset());
    assert_pending!(call.poll());
    assert!(!live.is_live(), "read to its end, while the wait runs");
    assert!(hung.is_live());
    let response = call.await.unwrap();
    assert_eq!((response.status(), upstream.calls()), (OK, 3));
    assert!(!hung.is_live());
}

#[tokio::test(start_paused = true)]
async fn a_failed_answer_that_never_ends_is_let_go_before_the_wait() {
    for (wait, let_go) in [(secs(40), millis(100)), (millis(30), millis(30)), (Duration::ZERO, Duration::ZERO)] {
        let (feed, body) = fed();
        feed.data("it begins, and never ends");
        let body = parking_lot::Mutex::new(Some(body));
        let upstream = Upstream::at_once(move |_| match body.lock().take() {
            Some(body) => {
                let mut response = typed(503, "text/plain", any(body));
                let outcome = Outcome::default().with_failure(kind(Kind::Overloaded));
                response.extensions_mut().insert(outcome.with_retry(RetryAdvice::After(wait)));
                Ok(response)
            }
            None => Ok(hello()),
        });
        let began = Instant::now();
        let call = tokio::spawn(RetryLayer::default().layer(upstream).oneshot(post(GENERATE)));
        feed.closed().await;
        let held = began.elapsed();
        assert!((let_go..=let_go + millis(1)).contains(&held), "held for {held:?} of {wait:?}");
        assert_eq!(call.await.unwrap().unwrap().status(), OK);
        assert!((wait..=wait + millis(2)).contains(&began.elapsed()), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn of_an_endless_failed_answer_not_much_is_read() {
    let (feed, body) = fed();
    for _ in 0..200 {
        feed.data(vec![0; 1024]);
    }
    let body = parking_lot::Mutex::new(Some(body));
    let upstream = Upstream::at_once(move |_| match body.lock().take() {
        Some(body) => Ok(typed(503, "text/plain", any(body))),
        None => Ok(hello()),
    });
    let mut call = task::spawn(RetryLayer::default().layer(upstream).oneshot(post(GENERATE)));
    assert_pending!(call.poll());
    assert!(!feed.is_live());
}

// === the policy ===

#[tokio::test(start_paused = true)]
async fn a_row_can_be_set() {
    let policy = no_budget()
        .on(StatusCode::SERVICE_UNAVAILABLE, Rule::attempts(3).base_delay(Duration::ZERO))
        .on(StatusCode::NOT_FOUND, Rule::attempts(2))
        .on(StatusCode::INTERNAL_SERVER_ERROR, Rule::never())
        .on(Cause::Empty, Rule::attempts(5).base_delay(millis(10)).max_delay(millis(10)))
        .on(Cause::Timeout, Rule::never())
        // Among the failures of these rows are some that no repetition changes, and that no row retries.
        .on(StatusCode::TOO_MANY_REQUESTS, Rule::attempts(6))
        .on(StatusCode::BAD_REQUEST, Rule::attempts(4))
        .on(StatusCode::GATEWAY_TIMEOUT, Rule::attempts(3))
        .on(StatusCode::PAYLOAD_TOO_LARGE, Rule::attempts(3));
    let calls = async |what: Kind| call_with(policy.clone(), always(kind(what)), post(GENERATE)).await.upstream;
    assert_eq!(calls(Kind::Overloaded).await.waits(), [Duration::ZERO; 2]);
    assert_eq!(calls(Kind::ModelNotFound).await.calls(), 2);
    assert_eq!(calls(Kind::ServerError).await.calls(), 1);
    let empty = calls(Kind::EmptyResponse).await;
    assert_eq!(empty.calls(), 5);
    assert!(empty.waits().iter().all(|wait| *wait <= millis(11)));
    assert_eq!(calls(Kind::Timeout(TimeoutKind::Attempt)).await.calls(), 1);
    assert_eq!(calls(Kind::QuotaUnknown).await.calls(), 6);
    assert_eq!(calls(Kind::QuotaDay).await.calls(), 1);
    assert_eq!(calls(Kind::QuotaZero).await.calls(), 1);
    assert_eq!(calls(Kind::InvalidRequest).await.calls(), 4);
    assert_eq!(calls(Kind::ContentBlocked).await.calls(), 1);
    // A layer that has refused will refuse again.
    assert_eq!(calls(Kind::Timeout(TimeoutKind::Total)).await.calls(), 1);
    assert_eq!(calls(Kind::BodyTooLarge).await.calls(), 1);
    assert_eq!(calls(Kind::RequestBody).await.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_persistent_policy_persists() {
    let began = Instant::now();
    let called = call_with(RetryPolicy::persistent(), at_first(59, kind(Kind::Overloaded)), post(GENERATE)).await;
    assert_eq!((called.status(), called.upstream.calls()), (200, 60));
    assert!(called.upstream.waits().iter().all(|wait| *wait <= millis(8001)));
    assert!(began.elapsed() > secs(120));
    let called = call_with(RetryPolicy::persistent(), always(kind(Kind::Overloaded)), post(GENERATE)).await;
    assert_eq!((called.status(), called.upstream.calls()), (503, 60));
    // Within the deadline, and only on these causes.
    let called = call_with(RetryPolicy::persistent(), always(kind(Kind::Overloaded)), within(secs(60))).await;
    assert!(called.upstream.calls() < 40, "{}", called.upstream.calls());
    let called = call_with(RetryPolicy::persistent(), always(kind(Kind::ServerError)), post(GENERATE)).await;
    assert_eq!(called.upstream.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_interactive_policy_makes_many_attempts_soon() {
    let waits = async |what: Kind| {
        let called = call_with(RetryPolicy::interactive().budget(None), always(kind(what)), post(GENERATE)).await;
        assert_eq!((called.upstream.calls(), called.kind()), (12, what));
        called.upstream.waits()
    };
    let (mut first, mut longest) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..50 {
        let waits = waits(Kind::Overloaded).await;
        first = first.max(waits[0]);
        longest = longest.max(waits.into_iter().max().unwrap());
    }
    assert!((millis(200)..=millis(251)).contains(&first), "{first:?}");
    assert!((millis(3800)..=millis(4001)).contains(&longest), "{longest:?}");
    // A quota does not come back in a quarter of a second.
    let rule = *RetryPolicy::interactive().rule(StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(rule, Rule::unlimited().base_delay(secs(1)).max_delay(secs(4)));
}

#[tokio::test(start_paused = true)]
async fn as_many_time_outs_as_fit_are_tried_again() {
    // A hang of 45 s each: as many as the deadline has room for, with little between them.
    let hangs = || {
        Upstream::new(|_, _| async {
            tokio::time::sleep(secs(45)).await;
            Err(Error::refusal("timeout", Failure::timeout(TimeoutKind::Attempt, secs(45))).into())
        })
    };
    for policy in [RetryPolicy::default(), RetryPolicy::persistent(), RetryPolicy::interactive()] {
        let called = call_with(policy, hangs(), within(secs(285))).await;
        // The seventh begins before the deadline, and its end is the total clock's affair.
        assert_eq!(called.upstream.calls(), 7);
        assert!(called.upstream.waits().iter().all(|wait| *wait <= secs(49)), "{:?}", called.upstream.waits());
    }
    // They are no more than the attempts of a call, and each costs a retry of the budget.
    let budget = RetryBudget::new(50);
    let called = call_with(RetryPolicy::default().budget(budget.clone()), hangs(), post(GENERATE)).await;
    assert_eq!((called.upstream.calls(), called.outcome().gave_up()), (8, Some(GaveUp::Attempts)));
    let request = with_context(|context| context.set_models_left(1));
    let called = call_with(RetryPolicy::default(), hangs(), request).await;
    assert_eq!(called.upstream.calls(), 2, "another model may be faster");
    let dry = RetryPolicy::default().budget(RetryBudget::new(0));
    let called = call_with(dry, hangs(), post(GENERATE)).await;
    assert_eq!((called.upstream.calls(), called.outcome().gave_up()), (1, Some(GaveUp::Budget)));
}

// === the times that answers take ===

fn known(quick: Duration) -> ServiceTimes {
    let times = ServiceTimes::new();
    (0..32).for_each(|_| times.record("gemini-2.5-pro", false, quick));
    times
}

#[tokio::test(start_paused = true)]
async fn a_stack_leaves_a_retry_layer_its_own_times() {
    for (own, attempts) in [(known(secs(30)), 1), (known(secs(1)), 2)] {
        let retry = RetryLayer::new(RetryPolicy::default().max_attempts(2)).service_times(own);
        // The stack's own times do not count for this layer.
        let layer = GeminiLayer::relay().service_times(known(secs(10))).retry_layer(retry).build().unwrap();
        let upstream = Upstream::at_once(|_| Ok(busy()));
        layer.layer(upstream.clone()).oneshot(within(secs(9))).await.unwrap();
        assert_eq!(upstream.calls(), attempts);
    }
}

async fn call_knowing(times: &ServiceTimes, upstream: Upstream, request: Request<Full<Bytes>>) -> Called {
    let layer = RetryLayer::default().service_times(times.clone());
    let result = layer.layer(upstream.clone()).oneshot(request).await;
    Called { result, upstream }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_cannot_finish_in_time_is_not_sent() {
    let times = known(secs(5));
    // Hints, refusals and advice: 4 s of wait and 5 s of service.
    for failure in [kind(Kind::QuotaMinute), kind(Kind::RateLimited), kind(Kind::CircuitOpen)] {
        for (allowed, calls) in [(10, 2), (8, 1)] {
            let upstream = at_first(1, failure.clone().with_hint(secs(4)));
            let called = call_knowing(&times, upstream.clone(), within(secs(allowed))).await;
            assert_eq!(called.upstream.calls(), calls, "{failure} within {allowed} s");
            if calls == 1 {
                assert_eq!((called.outcome().gave_up(), called.kind()), (Some(GaveUp::Wait), failure.kind()));
                let Some(RetryAdvice::After(needed)) = called.outcome().retry() else { panic!("{failure}") };
                assert!((secs(4)..=millis(4501)).contains(&needed), "{needed:?}");
            }
        }
    }
    // At once, where another key can take the call, or where nothing was sent.
    for (allowed, calls) in [(6, 2), (4, 1)] {
        let called = call_knowing(&times, says(1, kind(Kind::QuotaDay), RetryAdvice::Now), within(secs(allowed))).await;
        assert_eq!(called.upstream.calls(), calls);
        let refused = says(1, kind(Kind::RateLimited), RetryAdvice::Now);
        assert_eq!(call_knowing(&times, refused, within(secs(allowed))).await.upstream.calls(), calls);
        let called = call_knowing(&times, at_first(1, kind(Kind::NotSent)), within(secs(allowed))).await;
        assert_eq!(called.upstream.calls(), calls);
        assert_eq!(called.outcome().gave_up(), (calls == 1).then_some(GaveUp::Wait));
    }
    // A backoff: it goes back as soon as no attempt can be answered any more.
    let began = Instant::now();
    let called = call_knowing(&times, always(kind(Kind::Overloaded)), within(secs(8))).await;
    assert!(began.elapsed() <= secs(3) + millis(10), "{:?}", began.elapsed());
    assert_eq!((called.outcome().gave_up(), called.outcome().retry()), (Some(GaveUp::Wait), None));
    // Of streams, of other models, of calls that are no answer of a model, and without a deadline nothing is known.
    for uri in [STREAM, "/v1beta/models/gemini-2.5-flash:generateContent", "/v1beta/models/gemini-2.5-pro:countTokens"]
    {
        let mut request = post(uri);
        let deadline = Deadline::after(secs(2));
        CallContext::update(request.extensions_mut(), |context| context.tighten_deadline(deadline));
        let called = call_knowing(&times, at_first(1, kind(Kind::NotSent)), request).await;
        assert_eq!(called.upstream.calls(), 2, "{uri}");
    }
    assert_eq!(call_knowing(&times, at_first(1, kind(Kind::Overloaded)), post(GENERATE)).await.upstream.calls(), 2);
}

// === copies ===

/// A body that counts how often it was copied.
#[derive(Debug)]
struct Copied(Full<Bytes>, std::sync::Arc<std::sync::atomic::AtomicUsize>);

impl http_body::Body for Copied {
    type Data = Bytes;
    type Error = std::convert::Infallible;
    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        std::pin::Pin::new(&mut self.0).poll_frame(cx)
    }
}

impl Resend for Copied {
    fn try_clone(&self) -> Option<Self> {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Some(Self(self.0.clone(), self.1.clone()))
    }
}

#[tokio::test(start_paused = true)]
async fn no_request_is_copied_that_is_certainly_sent_for_the_last_time() {
    let copies = async |policy: RetryPolicy, failures: usize| {
        let copies = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
        let request = post(GENERATE).map(|body| Copied(body, copies.clone()));
        let upstream = at_first(failures, kind(Kind::Overloaded));
        let _ = RetryLayer::new(policy).layer(upstream.clone()).oneshot(request).await;
        (upstream.calls(), copies.load(std::sync::atomic::Ordering::Relaxed))
    };
    assert_eq!(copies(RetryPolicy::never(), 9).await, (1, 0));
    assert_eq!(copies(RetryPolicy::default().max_attempts(1).on_open(OnOpen::Fail), 9).await, (1, 0));
    // Any other attempt may turn out not to have been sent, and then it is made again: it was refused inside, or hit a
    // connection that had just been closed.
    assert_eq!(copies(RetryPolicy::default().max_attempts(1), 0).await, (1, 1));
    assert_eq!(copies(RetryPolicy::default(), 0).await, (1, 1));
    assert_eq!(copies(RetryPolicy::default().max_attempts(3), 9).await, (3, 3));
}

#[tokio::test(start_paused = true)]
async fn never_is_never() {
    for what in [Kind::Overloaded, Kind::NotSent, Kind::CircuitOpen, Kind::Reset, Kind::QuotaMinute] {
        let upstream = always(kind(what).with_hint(secs(1)));
        let called = call_with(RetryPolicy::never(), upstream, post(GENERATE)).await;
        assert_eq!((called.upstream.calls(), called.kind()), (1, what));
    }
    let called = call_with(RetryPolicy::never(), says(1, kind(Kind::QuotaDay), RetryAdvice::Now), post(GENERATE)).await;
    assert_eq!(called.upstream.calls(), 1);
    let upstream = Upstream::fails(1, || Ok(busy()));
    assert_eq!(RetryLayer::disabled().layer(upstream.clone()).oneshot(post(GENERATE)).await.unwrap().status(), 503);
    assert_eq!(upstream.calls(), 1);
}

// === other models ===

#[tokio::test(start_paused = true)]
async fn while_other_models_are_left_attempts_are_kept_for_them() {
    let calls = async |what: Kind, models_left: u32, attempts_before: u32| {
        let request = with_context(|context| {
            context.set_models_left(models_left);
            context.set_attempt(attempts_before);
        });
        call_with(no_budget(), always(kind(what)), request).await.upstream.calls()
    };
    assert_eq!(calls(Kind::Overloaded, 1, 0).await, 3, "its row says 3 while another model is left");
    assert_eq!(calls(Kind::Overloaded, 0, 3).await, 5, "the second model has what is left of 8");
    assert_eq!(calls(Kind::ServerError, 1, 0).await, 4);
    // Two are kept for each model that is left.
    assert_eq!(calls(Kind::QuotaUnknown, 1, 0).await, 6);
    assert_eq!(calls(Kind::QuotaUnknown, 2, 0).await, 4);
    assert_eq!(calls(Kind::QuotaUnknown, 3, 0).await, 2);
    assert_eq!(calls(Kind::QuotaUnknown, 100, 0).await, 1);
    assert_eq!(calls(Kind::QuotaUnknown, u32::MAX, u32::MAX).await, 1);
}

// === the budget ===

/// A policy without backoff, and with this budget.
fn at_once(budget: &RetryBudget) -> RetryPolicy {
    RetryPolicy::default().base_delay(Duration::ZERO).budget(budget.clone())
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_delays_and_does_not_discard() {
    let budget = RetryBudget::new(3);
    let layer = RetryLayer::new(at_once(&budget));
    // Clones and services of one layer share it.
    let first = Upstream::fails(6, || Ok(busy()));
    let (began, response) = (Instant::now(), layer.layer(first.clone()).oneshot(post(GENERATE)).await.unwrap());
    assert_eq!((response.status(), first.calls()), (OK, 7));
    // Three tokens at once, and three that grow back.
    assert!((secs(3)..secs(3) + millis(5)).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert!(began.elapsed() < secs(4));
    let second = Upstream::fails(2, || Ok(busy()));
    let response = layer.clone().layer(second.clone()).oneshot(post(GENERATE)).await.unwrap();
    assert_eq!((response.status(), second.calls()), (OK, 3));
    assert!(began.elapsed() >= secs(4), "one was given back, and one had to grow: {:?}", began.elapsed());
    // Another model has its own.
    let (began, other) = (Instant::now(), Upstream::fails(3, || Ok(busy())));
    let request = post("/v1beta/models/gemini-2.5-flash:generateContent");
    assert_eq!(layer.layer(other).oneshot(request).await.unwrap().status(), OK);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn tokens_go_to_those_who_wait_longest() {
    let budget = RetryBudget::new(1);
    assert!(budget.try_take("gemini-2.5-pro"));
    let layer = RetryLayer::new(at_once(&budget));
    let wait = || (Upstream::fails(1, || Ok(busy())), layer.clone());
    let calls: Vec<_> = (0..4).map(|_| wait()).collect();
    let mut tasks: Vec<_> = calls
        .iter()
        .map(|(upstream, layer)| task::spawn(layer.layer(upstream.clone()).oneshot(post(GENERATE))))
        .collect();
    tasks.iter_mut().for_each(|call| assert_pending!(call.poll()));
    assert!(calls.iter().all(|(upstream, _)| upstream.calls() == 1));
    // One token: it is the first one's, and nobody who comes later takes it.
    budget.deposit("gemini-2.5-pro");
    assert!(!budget.try_take("gemini-2.5-pro"), "others wait");
    assert!(tasks[0].is_woken() && !tasks[1].is_woken());
    // The first leaves without it: it is the second one's.
    drop(tasks.remove(0));
    assert!(tasks[0].is_woken() && !tasks[1].is_woken());
    assert!(tasks[0].poll().is_ready());
    // That success has given one back. The third knows the time of the next token, too.
    assert!(tasks[1].is_woken() && !tasks[2].is_woken());
    assert!(tasks[1].poll().is_ready());
    assert!(tasks[2].poll().is_ready());
    assert_eq!(calls.iter().map(|(upstream, _)| upstream.calls()).collect::<Vec<_>>(), [1, 2, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn callers_take_turns_for_tokens() {
    let budget = RetryBudget::new(1);
    assert!(budget.try_take("gemini-2.5-pro"));
    let layer = RetryLayer::new(at_once(&budget));
    let call = |caller: &'static str| {
        let fails = layer.layer(Upstream::fails(1, || Ok(busy())));
        let mut call = task::spawn(fails.oneshot(with_context(|context| context.set_caller(caller))));
        assert_pending!(call.poll());
        call
    };
    let mut heavy: Vec<_> = (0..50).map(|_| call("heavy")).collect();
    let mut light = [call("light"), call("light")];
    // Each success gives back the next one's token.
    budget.deposit("gemini-2.5-pro");
    fn is_answered<F: Future>(call: &mut task::Spawn<F>) -> bool {
        call.poll().is_ready()
    }
    assert!(is_answered(&mut heavy[0]) && !heavy[1].is_woken());
    assert!(light[0].is_woken() && is_answered(&mut light[0]) && !light[1].is_woken());
    assert!(heavy[1].is_woken() && is_answered(&mut heavy[1]) && !heavy[2].is_woken());
    assert!(light[1].is_woken() && is_answered(&mut light[1]));
    // Nobody else is left: all are the heavy one's.
    assert!(heavy[2..].iter_mut().all(|call| call.is_woken() && is_answered(call)));
}

#[tokio::test(start_paused = true)]
async fn a_clock_is_told_of_a_next_attempt_only_where_there_is_a_token_for_it() {
    let told = async |policy: RetryPolicy| {
        let called = call_with(policy, Upstream::fails(1, || Ok(busy())), within(secs(60))).await;
        let asked = called.upstream.asked();
        asked.iter().map(|asked| asked.context.as_ref().unwrap().repeats_timeouts()).collect::<Vec<_>>()
    };
    assert_eq!(told(no_budget()).await, [true, true]);
    assert_eq!(told(RetryPolicy::default()).await, [true, true]);
    // The second attempt takes the only one.
    assert_eq!(told(at_once(&RetryBudget::new(1))).await, [true, false]);
    assert_eq!(told(at_once(&RetryBudget::new(0))).await, [false]);
    let dry = RetryBudget::new(1);
    assert!(dry.try_take("gemini-2.5-pro"));
    assert_eq!(told(at_once(&dry)).await, [false, false]);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_token_is_over_however_often_it_is_polled() {
    let budget = RetryBudget::new(1);
    assert!(budget.try_take("gemini-2.5-pro"));
    let upstream = Upstream::at_once(|_| Ok(busy()));
    let mut call = task::spawn(RetryLayer::new(at_once(&budget)).layer(upstream.clone()).call(within(millis(50))));
    let outcome = |polled: std::task::Poll<Answer>| match polled {
        std::task::Poll::Ready(result) => Outcome::of(&result),
        std::task::Poll::Pending => panic!("it still waits"),
    };
    assert_eq!(outcome(call.poll()).gave_up(), Some(GaveUp::Budget));
    budget.deposit("gemini-2.5-pro");
    assert_eq!(outcome(call.poll()).gave_up(), None, "an error that says so");
    assert_eq!((upstream.calls(), budget.remaining("gemini-2.5-pro")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_call_gives_up_when_a_token_can_no_longer_help() {
    // The budget has none, and nine wait before this call.
    let dry = || {
        let budget = RetryBudget::new(1);
        budget.try_take("gemini-2.5-pro");
        let layer = RetryLayer::new(at_once(&budget));
        let waiting: Vec<_> = (0..9)
            .map(|_| {
                let mut call = task::spawn(layer.layer(at_first(9, kind(Kind::Overloaded))).oneshot(post(GENERATE)));
                assert_pending!(call.poll());
                call
            })
            .collect();
        (layer, waiting)
    };
    for (allowed, quick, until) in [
        (Some(secs(5)), None, millis(4900)),
        (Some(secs(5)), Some(secs(2)), secs(3)),
        (Some(millis(50)), None, Duration::ZERO),
        (None, None, secs(285)),
    ] {
        let (layer, _waiting) = dry();
        let layer = quick.map_or(layer.clone(), |quick| layer.service_times(known(quick)));
        let request = allowed.map_or_else(|| post(GENERATE), within);
        let (began, upstream) = (Instant::now(), Upstream::at_once(|_| Ok(busy())));
        let error = layer.layer(upstream.clone()).oneshot(request).await.unwrap_err();
        let took = began.elapsed();
        assert!((until..=until + millis(2)).contains(&took), "{took:?} of {allowed:?}, {quick:?}");
        // It is the upstream's own failure, with its status and without a trace of a refusal here.
        let error = find(&error);
        let (failure, outcome) = (error.failure(), error.outcome());
        assert_eq!((failure.kind(), failure.fault(), failure.code().as_u16()), (Kind::Overloaded, Fault::Model, 503));
        assert_eq!((outcome.gave_up(), outcome.attempts()), (Some(GaveUp::Budget), 1));
        assert!(outcome.was_sent() && !error.never_sent());
        assert_eq!(upstream.calls(), 1);
    }
    // An error goes back itself.
    let (layer, _waiting) = dry();
    let error = layer.layer(Upstream::at_once(|_| Err(reset().into()))).oneshot(within(secs(5))).await.unwrap_err();
    assert_eq!((find(&error).failure().kind(), find(&error).outcome().gave_up()), (Kind::Reset, Some(GaveUp::Budget)));
    assert!(source::<std::io::Error>(&error).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_failure_without_a_token_is_the_upstreams_for_every_layer_outside() {
    let budget = RetryBudget::new(1);
    assert!(budget.try_take("gemini-2.5-pro"));
    let upstream =
        Upstream::new(|_, asked| async move { Ok(if asked.uri.path().contains("flash") { hello() } else { busy() }) });
    let retry = RetryLayer::new(at_once(&budget));
    let layers = tower::ServiceBuilder::new()
        .layer(tower_gemini::ErrorResponseLayer::new())
        .layer(tower_gemini::ReplayLayer::new());
    let inner = tower::ServiceBuilder::new().layer(retry.clone()).layer(ClassifyLayer::new()).service(upstream.clone());
    let alone = layers.clone().service(inner.clone());
    let mut others: Vec<_> = (0..5).map(|_| task::spawn(inner.clone().oneshot(within(secs(500))))).collect();
    others.iter_mut().for_each(|call| assert_pending!(call.poll()));
    // A server answers with the upstream's status and words.
    let response = alone.oneshot(within(secs(2))).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(outcome(&response).gave_up(), Some(GaveUp::Budget));
    let body: serde_json::Value = serde_json::from_slice(&read(response.into_body()).await).unwrap();
    assert_eq!(body["error"]["status"], "UNAVAILABLE");
    assert!(body["error"]["message"].as_str().unwrap().starts_with("The model is overloaded"), "{body}");
    // Another model takes the call.
    let chains = FallbackChains::builder().chain("gemini-2.5-pro", ["gemini-2.5-flash"]).build().unwrap();
    let with_fallback = layers.layer(ModelFallbackLayer::new(chains)).service(inner);
    let response = with_fallback.oneshot(within(secs(2))).await.unwrap();
    assert_eq!(response.status(), OK);
}

#[tokio::test(start_paused = true)]
async fn a_budget_of_none_gives_the_upstreams_answer_back_at_once() {
    let policy = at_once(&RetryBudget::new(0));
    let began = Instant::now();
    let called = call_with(policy, Upstream::at_once(|_| Ok(busy())), post(GENERATE)).await;
    assert_eq!((called.status(), called.upstream.calls()), (503, 1));
    assert_eq!(called.outcome().gave_up(), Some(GaveUp::Budget));
    assert_eq!(read(called.result.unwrap().into_body()).await, BUSY);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_success_gives_one_retry_back() {
    let budget = RetryBudget::new(2);
    let policy = RetryPolicy::default().budget(budget.clone()).base_delay(Duration::ZERO);
    let service = RetryLayer::new(policy).layer(Upstream::fails(2, || Ok(busy())));
    assert_eq!(service.clone().oneshot(post(GENERATE)).await.unwrap().status(), OK);
    assert_eq!(budget.remaining("gemini-2.5-pro"), 1, "two taken, one given back");
    assert_eq!(service.oneshot(post(GENERATE)).await.unwrap().status(), OK);
    assert_eq!(budget.remaining("gemini-2.5-pro"), 2);
}

#[tokio::test(start_paused = true)]
async fn what_the_caller_did_wrong_gives_nothing_back() {
    let budget = RetryBudget::new(2);
    assert!(budget.try_take("gemini-2.5-pro"));
    let policy = RetryPolicy::default().budget(budget.clone());
    call_with(policy, Upstream::at_once(|_| Ok(status(400))), post(GENERATE)).await;
    assert_eq!(budget.remaining("gemini-2.5-pro"), 1);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_ones_own_quota_spends_no_budget() {
    let dry = || RetryPolicy::default().budget(RetryBudget::new(0));
    let called = call_with(dry(), at_first(3, kind(Kind::QuotaMinute).with_hint(secs(1))), post(GENERATE)).await;
    assert_eq!((called.status(), called.outcome().attempts()), (200, 4), "the attempts count");
    for failure in [kind(Kind::QuotaUnknown), kind(Kind::Overloaded).with_hint(secs(1)), kind(Kind::ServerError)] {
        let called = call_with(dry(), at_first(1, failure), post(GENERATE)).await;
        assert_eq!(called.upstream.calls(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_storm_against_a_dead_upstream_is_bounded() {
    let layer = RetryLayer::default();
    let upstream = Upstream::at_once(|_| Ok(busy()));
    let calls = (0..500).map(|_| layer.layer(upstream.clone()).oneshot(within(secs(120))));
    let began = Instant::now();
    let over = futures_util::future::join_all(calls).await;
    assert!(began.elapsed() < secs(120), "each has the upstream's failure before its clock ends it");
    let allowed = 500 + 100 + began.elapsed().as_secs() as usize + 1;
    assert!(upstream.calls() <= allowed, "{} calls, {allowed} allowed", upstream.calls());
    assert!(upstream.calls() >= 700, "{}", upstream.calls());
    assert!(over.iter().all(|result| Outcome::of(result).failure().unwrap().fault() == Fault::Model));
}

// === no cost without a retry ===

#[tokio::test(start_paused = true)]
async fn a_first_answer_goes_as_it_came() {
    for answer in [hello as fn() -> _, || status(404)] {
        let called = call(Upstream::at_once(move |_| Ok(answer()))).await;
        assert!(called.result.unwrap().extensions().is_empty());
        assert!(called.upstream.asked()[0].context.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_that_fails_between_attempts_is_an_error_that_counts_them() {
    #[derive(Clone)]
    struct Closing(Upstream);
    impl tower::Service<Request<Full<Bytes>>> for Closing {
        type Response = Response<AnyBody>;
        type Error = BoxError;
        type Future = <Upstream as tower::Service<Request<Full<Bytes>>>>::Future;
        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), BoxError>> {
            std::task::Poll::Ready(if self.0.calls() == 0 { Ok(()) } else { Err("it has closed".into()) })
        }
        fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
            tower::Service::call(&mut self.0, request)
        }
    }
    let upstream = Upstream::at_once(|_| Ok(busy()));
    let error = RetryLayer::default().layer(Closing(upstream.clone())).oneshot(post(GENERATE)).await.unwrap_err();
    assert_eq!(upstream.calls(), 1);
    assert_eq!(find(&error).outcome().attempts(), 1);
    assert!(find(&error).failure().message().contains("it has closed"));
}
