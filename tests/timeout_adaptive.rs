//! `TimeoutLayer`: clocks that are made by the times seen, and the times that it records.

mod support;

use std::{
    future::Future,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use support::*;
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_gemini::{
    BoxError, CallContext, ClassifyLayer, ReplayLayer, RetryLayer, RetryPolicy, TimeoutLayer,
    context::Deadline,
    failure::TimeoutKind,
    retry::{Cause, Rule},
    service_times::ServiceTimes,
};

const MODEL: &str = "gemini-2.5-pro";
const COUNT: &str = "/v1beta/models/gemini-2.5-pro:countTokens";

/// Makes the times of a model whose answers, unary or streams, have taken `seconds`.
fn known(name: &str, streams: bool, seconds: u64) -> ServiceTimes {
    let times = ServiceTimes::new();
    (0..16).for_each(|_| times.record(name, streams, secs(seconds)));
    times
}

fn attempt(times: &ServiceTimes) -> TimeoutLayer {
    TimeoutLayer::attempt(secs(180)).adaptive(times.clone())
}

/// Makes a request whose attempt is told that another would follow a time-out.
fn repeated(uri: &str) -> Request<Full<Bytes>> {
    let mut request = post(uri);
    CallContext::update(request.extensions_mut(), |context| context.set_repeats_timeouts(true));
    request
}

/// Asserts that an attempt which hangs is ended by this clock, which the error names.
async fn assert_ends(layer: TimeoutLayer, request: Request<Full<Bytes>>, clock: TimeoutKind, after: u64) {
    let (began, upstream) = (Instant::now(), Upstream::hangs());
    let error = layer.layer(upstream.clone()).oneshot(request).await.unwrap_err();
    assert_eq!(began.elapsed().as_secs(), after);
    assert_eq!((find(&error).timeout_kind(), upstream.in_flight()), (Some(clock), 0));
    let message = find(&error).failure().message();
    assert!(message.contains(&format!("waited {after}s for")), "{message}");
}

// === the clock ===

#[tokio::test(start_paused = true)]
async fn a_hang_costs_a_little_more_than_a_slow_answer_takes() {
    use TimeoutKind::{Attempt, FirstContent};
    let times = known(MODEL, false, 40);
    assert_ends(attempt(&times), repeated(GENERATE), Attempt, 60).await;
    // Of streams, of another model and of another tier nothing is known.
    assert_ends(attempt(&times), repeated(STREAM), FirstContent, 180).await;
    assert_ends(attempt(&times), repeated("/v1beta/models/m:generateContent"), Attempt, 180).await;
    assert_ends(attempt(&known(MODEL, true, 40)), repeated(STREAM), FirstContent, 60).await;
    assert_ends(attempt(&known(MODEL, true, 40)), repeated(ARRAY), FirstContent, 60).await;
    // Never under the floor, never over what is set, and not at all before enough is known.
    assert_ends(attempt(&known(MODEL, false, 1)), repeated(GENERATE), Attempt, 10).await;
    assert_ends(attempt(&known(MODEL, false, 150)), repeated(GENERATE), Attempt, 180).await;
    let short = TimeoutLayer::attempt(secs(7)).adaptive(known(MODEL, false, 1));
    assert_ends(short, repeated(GENERATE), Attempt, 7).await;
    assert_ends(attempt(&ServiceTimes::new()), repeated(GENERATE), Attempt, 180).await;
    // Counting tokens says nothing of answers, and has no clock by them.
    assert_ends(attempt(&known(MODEL, false, 1)), repeated(COUNT), Attempt, 180).await;
    // Times that are only recorded change nothing.
    let fixed = TimeoutLayer::attempt(secs(180)).service_times(times);
    assert_ends(fixed, repeated(GENERATE), Attempt, 180).await;
}

#[tokio::test(start_paused = true)]
async fn the_flex_tier_has_its_own_times_and_its_own_clock_as_the_most() {
    let flex = || post_body(GENERATE, r#"{"contents":[],"serviceTier":"flex"}"#);
    for (name, expected) in [(MODEL, 900), ("gemini-2.5-pro@flex", 300)] {
        let (began, upstream) = (Instant::now(), Upstream::hangs());
        let service = ServiceBuilder::new()
            .layer(TimeoutLayer::total(secs(285)))
            .layer(ReplayLayer::new())
            .layer(RetryLayer::new(RetryPolicy::default().on(Cause::Timeout, Rule::unlimited())))
            .layer(attempt(&known(name, false, 200)))
            .service(upstream.clone());
        service.oneshot(flex()).await.map(drop).unwrap_err();
        // The second attempt tells when the first one has ended.
        let first = upstream.asked().get(1).map_or(began.elapsed(), |second| second.at - began);
        assert_eq!(first.as_secs(), expected, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_another_attempt_the_clock_is_as_it_is_set() {
    let times = known(MODEL, false, 5);
    assert_ends(attempt(&times), post(GENERATE), TimeoutKind::Attempt, 180).await;
    // An interaction that is stored cannot be sent twice.
    let times = known("m", false, 5);
    let body = r#"{"model":"m","input":"hi","store":true}"#;
    for (request, calls) in [(post_body(INTERACTIONS, body), 1), (post("/v1beta/models/m:generateContent"), 2)] {
        let upstream = Upstream::hangs();
        let service = ServiceBuilder::new()
            .layer(TimeoutLayer::total(secs(285)))
            .layer(ReplayLayer::new())
            .layer(RetryLayer::new(RetryPolicy::default().max_attempts(2)))
            .layer(attempt(&times))
            .service(upstream.clone());
        let began = Instant::now();
        let error = service.oneshot(request).await.map(drop).unwrap_err();
        assert_eq!((find(&error).timeout_kind(), upstream.calls()), (Some(TimeoutKind::Attempt), calls));
        // The last attempt has all of its time.
        let last = upstream.asked().last().unwrap().at - began;
        assert!((began.elapsed() - last).as_secs() == 180 && (calls == 1 || last < secs(11)), "{last:?}");
    }
    // A policy that never sends again, whichever way it says so, and a body that is too large to be kept.
    let times = known(MODEL, false, 5);
    let never = RetryPolicy::default().on(Cause::Timeout, Rule::never());
    for (policy, kept) in [(RetryPolicy::never(), 999), (never, 999), (RetryPolicy::default(), 1)] {
        let upstream = Upstream::hangs();
        let service = ServiceBuilder::new()
            .layer(TimeoutLayer::total(secs(285)))
            .layer(ReplayLayer::new().max_body(kept))
            .layer(RetryLayer::new(policy))
            .layer(attempt(&times))
            .service(upstream.clone());
        let began = Instant::now();
        service.oneshot(post(GENERATE)).await.map(drop).unwrap_err();
        assert_eq!((began.elapsed().as_secs(), upstream.calls()), (180, 1), "{kept}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_attempts_all_hang_has_four_of_them() {
    let upstream = Upstream::hangs();
    let policy = RetryPolicy::default().max_attempts(20).base_delay(Duration::ZERO);
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::total(secs(285)))
        .layer(RetryLayer::new(policy.on(Cause::Timeout, Rule::unlimited().base_delay(Duration::ZERO))))
        .layer(attempt(&known(MODEL, false, 5)))
        .service(upstream.clone());
    let began = Instant::now();
    let error = service.oneshot(post(GENERATE)).await.unwrap_err();
    assert_eq!(find(&error).timeout_kind(), Some(TimeoutKind::Total));
    let waits: Vec<_> = upstream.waits().iter().map(|wait| wait.as_secs()).collect();
    // When three in a row were cut, the times are in doubt, and the fourth attempt goes on.
    assert_eq!((waits, began.elapsed()), (vec![10, 30, 122], secs(285)));
    assert!(upstream.asked().iter().all(|asked| asked.headers["x-server-timeout"] == "180"));
    // The attempts are told how many clocks have run out.
    let told: Vec<_> = upstream.asked().iter().map(|asked| asked.context.as_ref().unwrap().timed_out()).collect();
    assert_eq!(told, (0..upstream.calls() as u32).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn the_clock_leaves_time_for_another_attempt_before_the_deadline() {
    let within = |seconds| {
        let mut request = repeated(GENERATE);
        CallContext::update(request.extensions_mut(), |context| {
            context.tighten_deadline(Deadline::after(secs(seconds)));
        });
        request
    };
    let times = known(MODEL, false, 100);
    assert_ends(attempt(&times), within(1_000), TimeoutKind::Attempt, 150).await;
    assert_ends(attempt(&times), within(286), TimeoutKind::Attempt, 143).await;
    assert_ends(attempt(&times), within(230), TimeoutKind::Attempt, 125).await;
    // In the rest nothing could be answered, so that this attempt gets all of it.
    assert_ends(attempt(&times), within(220), TimeoutKind::Attempt, 180).await;
}

#[tokio::test(start_paused = true)]
async fn without_classify_a_clock_adapts_until_the_head_and_then_is_as_it_is_set() {
    let times = known(MODEL, true, 20);
    assert_ends(attempt(&times), repeated(STREAM), TimeoutKind::FirstContent, 30).await;
    // The headers come after 12 s, or at once; the bytes never. Nobody can send the call again.
    for head in [12, 0] {
        let upstream = Upstream::new(move |_, _| async move {
            sleep(secs(head)).await;
            Ok(sse(any(fed_for_ever())))
        });
        let began = Instant::now();
        let response = attempt(&times).layer(upstream).oneshot(repeated(STREAM)).await.unwrap();
        let error = Box::pin(response.into_body()).frame().await.unwrap().unwrap_err();
        assert_eq!((find(&error).timeout_kind(), began.elapsed().as_secs()), (Some(TimeoutKind::FirstContent), 180));
        assert!(find(&error).failure().message().contains("waited 180s for"));
    }
    // Bytes that come after the clock which adapts would have run out are an answer, and recorded.
    let upstream = Upstream::at_once(|_| {
        let (feed, body) = fed();
        tokio::spawn(async move {
            sleep(secs(35)).await;
            feed.data(last_event("hello"));
        });
        Ok(sse(any(body)))
    });
    let response = attempt(&times).layer(upstream).oneshot(repeated(STREAM)).await.unwrap();
    let (frames, end) = frames(response.into_body()).await;
    assert_eq!((frames.len(), times.p95(MODEL, true)), (1, Some(secs(35))), "{end:?}");
}

/// Makes a body that never ends and never has anything.
fn fed_for_ever() -> impl http_body::Body<Data = Bytes, Error: Into<tower_gemini::BoxError>> + Send {
    let (feed, body) = fed();
    tokio::spawn(async move { feed.closed().await });
    body
}

// === the record ===

/// Sends a request sixteen times to an upstream that answers after 3 s, and returns what is known then.
async fn recorded(
    layer: impl Fn(&ServiceTimes) -> TimeoutLayer,
    uri: &'static str,
    answer: fn() -> Answer,
) -> [Option<Duration>; 2] {
    let times = ServiceTimes::new();
    let upstream = Upstream::new(move |_, _| async move {
        sleep(secs(3)).await;
        answer()
    });
    for _ in 0..16 {
        let service = ServiceBuilder::new().layer(layer(&times)).layer(ClassifyLayer::new()).service(upstream.clone());
        if let Ok(response) = service.oneshot(post(uri)).await {
            frames(response.into_body()).await;
        }
    }
    [false, true].map(|streams| times.p95(MODEL, streams))
}

#[tokio::test(start_paused = true)]
async fn the_times_of_answers_are_recorded_and_those_of_failures_are_not() {
    let (unary, stream) = ([Some(secs(3)), None], [None, Some(secs(3))]);
    let events: fn() -> Answer = || Ok(sse(full(last_event("hello"))));
    assert_eq!(recorded(attempt, GENERATE, || Ok(hello())).await, unary);
    assert_eq!(recorded(attempt, STREAM, events).await, stream);
    let only = |times: &ServiceTimes| TimeoutLayer::attempt(secs(180)).service_times(times.clone());
    assert_eq!(recorded(only, GENERATE, || Ok(hello())).await, unary);
    // A failure, with its status or in a 200; a call that is no answer of the model; a clock that has run out.
    assert_eq!(recorded(attempt, GENERATE, || Ok(busy())).await, [None; 2]);
    assert_eq!(recorded(attempt, GENERATE, || Ok(json(200, EMPTY))).await, [None; 2]);
    assert_eq!(recorded(attempt, GENERATE, || Err(reset().into())).await, [None; 2]);
    assert_eq!(recorded(attempt, COUNT, || Ok(json(200, r#"{"totalTokens":1}"#))).await, [None; 2]);
    let short = |times: &ServiceTimes| TimeoutLayer::attempt(secs(2)).adaptive(times.clone());
    assert_eq!(recorded(short, GENERATE, || Ok(hello())).await, [None; 2]);
    // No clock is set for an attempt.
    let total = |times: &ServiceTimes| TimeoutLayer::total(secs(100)).adaptive(times.clone());
    assert_eq!(recorded(total, GENERATE, || Ok(hello())).await, [None; 2]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_there_at_once_is_not_timed() {
    let times = ServiceTimes::new();
    let service = attempt(&times).layer(Upstream::at_once(|_| Ok(hello())));
    for _ in 0..20 {
        let call = futures_util::FutureExt::now_or_never(service.clone().oneshot(post(GENERATE)));
        call.expect("nothing pending").unwrap();
    }
    assert_eq!(times.p95(MODEL, false), None);
}

#[tokio::test(start_paused = true)]
async fn a_streams_time_ends_with_its_first_bytes_where_no_layer_holds_it() {
    let times = ServiceTimes::new();
    let upstream = Upstream::new(|_, _| async {
        sleep(secs(1)).await;
        let (feed, body) = fed();
        tokio::spawn(async move {
            for _ in 0..2 {
                sleep(secs(4)).await;
                feed.data(last_event("hello"));
            }
        });
        Ok(sse(any(body)))
    });
    for _ in 0..16 {
        let response = attempt(&times).layer(upstream.clone()).oneshot(post(STREAM)).await.unwrap();
        assert_eq!(frames(response.into_body()).await.0.len(), 2);
    }
    assert_eq!((times.quick(MODEL, true), times.p95(MODEL, true)), (Some(secs(5)), Some(secs(5))));
}

#[tokio::test(start_paused = true)]
async fn a_model_that_becomes_slower_gets_more_time() {
    let times = known(MODEL, false, 4);
    let upstream = Upstream::new(|_, _| async {
        sleep(secs(12)).await;
        Ok(hello())
    });
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::total(secs(285)))
        .layer(RetryLayer::default())
        .layer(attempt(&times))
        .service(upstream.clone());
    for _ in 0..20 {
        service.clone().oneshot(post(GENERATE)).await.unwrap();
    }
    // One answer of slower ones changes the 95th percentile of a small sample.
    assert_eq!((upstream.calls(), times.p95(MODEL, false)), (21, Some(secs(12))));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_adapts_allocates_no_more_than_one_that_does_not() {
    /// Answers at the second poll.
    fn soon(_: Request<Full<Bytes>>) -> impl Future<Output = Answered> {
        let mut is_pending = false;
        std::future::poll_fn(move |_| match std::mem::replace(&mut is_pending, true) {
            true => Poll::Ready(Ok(Response::new(Full::<Bytes>::default()))),
            false => Poll::Pending,
        })
    }
    type Answered = Result<Response<Full<Bytes>>, BoxError>;
    let times = ServiceTimes::new();
    let count = |layer: TimeoutLayer| {
        let mut service = layer.layer(service_fn(soon));
        let mut counted = 0;
        for _ in 0..100 {
            let request = repeated(GENERATE);
            let call = allocation_counter::measure(|| {
                let mut cx = Context::from_waker(Waker::noop());
                let mut call = std::pin::pin!(service.call(request));
                assert!(call.as_mut().poll(&mut cx).is_pending());
                assert!(call.poll(&mut cx).is_ready());
            });
            counted = call.count_total;
        }
        counted
    };
    let fixed = count(TimeoutLayer::attempt(secs(180)));
    assert_eq!(count(attempt(&times)), fixed);
    assert_eq!(times.p95(MODEL, false), Some(Duration::ZERO), "each was recorded");
}
