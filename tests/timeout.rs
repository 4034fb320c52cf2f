//! `TimeoutLayer`: its four clocks, each of which is named in its error, and `X-Server-Timeout`.

mod support;

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::{Body, SizeHint};
use http_body_util::{BodyExt, Full};
use support::*;
use tokio::time::{Instant, sleep};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_gemini::{
    BoxError, CallContext, ClassifyLayer, ReplayLayer, RetryLayer, RetryPolicy, TimeoutLayer,
    context::Deadline,
    failure::{Fault, Kind, TimeoutKind},
    timeout::TimeoutBody,
};

/// A body behind a pin: the timer in it makes it immovable.
type Timed = std::pin::Pin<Box<TimeoutBody<AnyBody>>>;

/// Makes clocks that are all different.
fn attempt() -> TimeoutLayer {
    TimeoutLayer::attempt(secs(20)).first_content(secs(30)).idle(secs(5))
}

async fn timed(
    layer: TimeoutLayer,
    upstream: &Upstream,
    request: Request<Full<Bytes>>,
) -> (Result<Response<TimeoutBody<AnyBody>>, BoxError>, Duration) {
    let began = Instant::now();
    let result = layer.layer(upstream.clone()).oneshot(request).await;
    (result, began.elapsed())
}

/// Asserts that a time is the expected one, or at most a tenth longer.
fn on_time(took: Duration, limit: Duration) {
    assert!(took >= limit && took <= limit.mul_f64(1.1), "took {took:?} of {limit:?}");
}

fn assert_clock(error: &BoxError, clock: TimeoutKind, limit: &str) {
    let error = find(error);
    assert_eq!((error.timeout_kind(), error.layer()), (Some(clock), "timeout"));
    assert_eq!(error.failure().code(), 504);
    // The message names the clock and the time that it was set to.
    let message = error.failure().message();
    assert!(message.contains(clock.as_str()) && message.contains(limit), "{message}");
}

// === one clock after the other ===

#[tokio::test(start_paused = true)]
async fn a_hung_upstream_ends_with_the_attempts_clock_and_is_let_go_then() {
    let upstream = Upstream::hangs();
    let (result, took) = timed(attempt(), &upstream, post(GENERATE)).await;
    on_time(took, secs(20));
    let error = result.unwrap_err();
    assert_clock(&error, TimeoutKind::Attempt, "20s");
    assert_eq!(find(&error).fault(), Fault::Transport);
    assert!(find(&error).outcome().was_sent(), "it may have arrived");
    assert_eq!(upstream.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_inner_future_is_dropped_the_moment_its_clock_runs_out() {
    let upstream = Upstream::hangs();
    let mut call = task::spawn(attempt().layer(upstream.clone()).oneshot(post(GENERATE)));
    assert_pending!(call.poll());
    tokio::time::advance(millis(19_990)).await;
    assert_pending!(call.poll());
    assert_eq!(upstream.in_flight(), 1);
    tokio::time::advance(millis(11)).await;
    assert!(call.is_woken());
    let result = assert_ready!(call.poll());
    // The caller still holds the future, but the upstream's was dropped.
    assert_eq!(upstream.in_flight(), 0);
    assert!(result.is_err());
    drop(call);
}

#[tokio::test(start_paused = true)]
async fn a_stream_has_the_first_contents_clock_and_the_total_its_own() {
    let (result, took) = timed(attempt(), &Upstream::hangs(), post(STREAM)).await;
    on_time(took, secs(30));
    assert_clock(&result.unwrap_err(), TimeoutKind::FirstContent, "30s");
    let (result, took) = timed(attempt(), &Upstream::hangs(), post(ARRAY)).await;
    on_time(took, secs(30));
    assert_clock(&result.unwrap_err(), TimeoutKind::FirstContent, "30s");
    for uri in [GENERATE, STREAM] {
        let upstream = Upstream::hangs();
        let (result, took) = timed(TimeoutLayer::total(secs(40)), &upstream, post(uri)).await;
        on_time(took, secs(40));
        let error = result.unwrap_err();
        assert_clock(&error, TimeoutKind::Total, "40s");
        assert_eq!(
            (find(&error).fault(), find(&error).failure().kind()),
            (Fault::Local, Kind::Timeout(TimeoutKind::Total))
        );
        assert!(!find(&error).never_sent());
        assert_eq!(upstream.in_flight(), 0);
    }
    // A stream's clock has a default of its own, not the attempt's.
    let (result, took) = timed(TimeoutLayer::attempt(secs(1)), &Upstream::hangs(), post(STREAM)).await;
    on_time(took, TimeoutLayer::FIRST_CONTENT);
    assert_clock(&result.unwrap_err(), TimeoutKind::FirstContent, "180s");
}

#[tokio::test(start_paused = true)]
async fn the_answer_that_is_there_wins_over_the_clock() {
    for late in [millis(19_999), secs(20)] {
        let upstream = Upstream::new(move |_, _| async move {
            sleep(late).await;
            Ok(hello())
        });
        assert!(timed(attempt(), &upstream, post(GENERATE)).await.0.is_ok(), "{late:?}");
    }
    // The same holds if both are noticed late.
    let (feed, body) = fed();
    let mut body = task::spawn(read_next(body_of(attempt(), GENERATE, any(body)).await));
    assert_pending!(body.poll());
    feed.data("late");
    tokio::time::advance(secs(100)).await;
    assert_eq!(assert_ready!(body.poll()).0.unwrap().unwrap(), "late");
}

async fn body_of(layer: TimeoutLayer, uri: &str, body: AnyBody) -> Timed {
    let body = parking_lot::Mutex::new(Some(body));
    let upstream = Upstream::at_once(move |_| Ok(typed(200, "text/event-stream", body.lock().take().unwrap())));
    Box::pin(layer.layer(upstream).oneshot(post(uri)).await.unwrap().into_body())
}

async fn read_next(mut body: Timed) -> (Option<Result<Bytes, BoxError>>, Timed) {
    let frame = body.frame().await;
    (frame.map(|frame| frame.map(|frame| frame.into_data().unwrap())), body)
}

#[tokio::test(start_paused = true)]
async fn a_stalled_stream_ends_with_the_idle_clock_and_its_body_is_let_go_then() {
    let (feed, body) = fed();
    let mut body = body_of(attempt(), STREAM, any(body)).await;
    for nth in 0..4 {
        feed.data(event("a"));
        body.frame().await.unwrap().unwrap();
        // The answer takes longer in all than any clock, but is never idle for as long as the idle clock.
        if nth < 3 {
            let began = Instant::now();
            let feed = feed.clone();
            tokio::spawn(async move {
                sleep(millis(4_990)).await;
                feed.data(": ping\n\n");
            });
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), ": ping\n\n");
            assert_eq!(began.elapsed(), millis(4_990));
        }
    }
    let began = Instant::now();
    let error = body.frame().await.unwrap().unwrap_err();
    on_time(began.elapsed(), secs(5));
    assert_clock(&error, TimeoutKind::Idle, "5s");
    assert!(find(&error).failure().is_after_commit());
    // The caller still holds the body, but the upstream's was dropped.
    assert!(!feed.is_live());
    assert!(body.is_end_stream() && body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_one_piece_may_not_stall_either() {
    let (feed, body) = fed();
    feed.data("{\"candidates\":");
    let mut body = body_of(attempt(), GENERATE, any(body)).await;
    body.frame().await.unwrap().unwrap();
    let began = Instant::now();
    assert_clock(&body.frame().await.unwrap().unwrap_err(), TimeoutKind::Idle, "5s");
    on_time(began.elapsed(), secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_not_silence() {
    let (feed, body) = fed();
    feed.data("one");
    feed.data("two");
    let mut body = body_of(attempt(), STREAM, any(body)).await;
    body.frame().await.unwrap().unwrap();
    tokio::time::advance(secs(1000)).await;
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "two");
    tokio::time::advance(secs(1000)).await;
    // The clock starts when a reader waits, not before.
    let began = Instant::now();
    assert_clock(&body.frame().await.unwrap().unwrap_err(), TimeoutKind::Idle, "5s");
    on_time(began.elapsed(), secs(5));
    drop(feed);
}

#[tokio::test(start_paused = true)]
async fn without_classify_the_first_bytes_are_the_first_content() {
    // The headers come after 10 s, and the clock goes on.
    let (feed, body) = fed();
    let body = parking_lot::Mutex::new(Some(body));
    let upstream = Upstream::new(move |_, _| {
        let body = body.lock().take().unwrap();
        async move {
            sleep(secs(10)).await;
            Ok(sse(any(body)))
        }
    });
    let began = Instant::now();
    let (result, _) = timed(attempt(), &upstream, post(STREAM)).await;
    let mut body = Box::pin(result.unwrap().into_body());
    let error = body.frame().await.unwrap().unwrap_err();
    on_time(began.elapsed(), secs(30));
    assert_clock(&error, TimeoutKind::FirstContent, "30s");
    assert!(!feed.is_live());
    // The headers come at once: the clock begins when a reader waits.
    let (_feed, body) = fed();
    let mut body = body_of(attempt(), STREAM, any(body)).await;
    let began = Instant::now();
    assert_clock(&body.frame().await.unwrap().unwrap_err(), TimeoutKind::FirstContent, "30s");
    on_time(began.elapsed(), secs(30));
    // After the first bytes, the idle clock runs.
    let (feed, body) = fed();
    feed.data("x");
    let mut body = body_of(attempt(), STREAM, any(body)).await;
    body.frame().await.unwrap().unwrap();
    assert_clock(&body.frame().await.unwrap().unwrap_err(), TimeoutKind::Idle, "5s");
}

#[tokio::test(start_paused = true)]
async fn the_total_holds_up_to_the_first_bytes_of_a_stream_too() {
    let (feed, body) = fed();
    let mut body = body_of(TimeoutLayer::total(secs(40)), STREAM, any(body)).await;
    let began = Instant::now();
    let error = body.frame().await.unwrap().unwrap_err();
    on_time(began.elapsed(), secs(40));
    assert_clock(&error, TimeoutKind::Total, "40s");
    assert!(!feed.is_live());
    // It runs no longer than that.
    let (feed, body) = fed();
    feed.data("x");
    let mut body = body_of(TimeoutLayer::total(secs(40)), STREAM, any(body)).await;
    body.frame().await.unwrap().unwrap();
    let mut next = task::spawn(body.frame());
    assert_pending!(next.poll());
    tokio::time::advance(secs(10_000)).await;
    assert_pending!(next.poll());
}

#[tokio::test(start_paused = true)]
async fn with_classify_inside_comments_are_no_content_and_held_streams_have_begun() {
    let layers = |hold| ServiceBuilder::new().layer(attempt()).layer(ClassifyLayer::new().hold_answers(hold));
    // The upstream sends pings for ever, and no content.
    let upstream = || {
        Upstream::new(|_, _| async {
            let (feed, body) = fed();
            tokio::spawn(async move {
                while feed.is_live() {
                    feed.data(": ping\n\n");
                    sleep(secs(1)).await;
                }
            });
            Ok(sse(any(body)))
        })
    };
    let began = Instant::now();
    let error = layers(true).service(upstream()).oneshot(post(STREAM)).await.unwrap_err();
    on_time(began.elapsed(), secs(30));
    assert_clock(&error, TimeoutKind::FirstContent, "30s");

    // The answer is held, committed, and then silent: the idle clock runs out.
    let (feed, body) = fed();
    feed.data(event("a"));
    let answer = parking_lot::Mutex::new(Some(any(body)));
    let committed = Upstream::at_once(move |_| Ok(sse(answer.lock().take().unwrap())));
    let response = layers(true).service(committed).oneshot(post(STREAM)).await.unwrap();
    let usage = outcome(&response).usage().cloned().unwrap();
    let mut body = Box::pin(response.into_body());
    body.frame().await.unwrap().unwrap();
    assert!(usage.report().failure.is_none());
    assert_clock(&body.frame().await.unwrap().unwrap_err(), TimeoutKind::Idle, "5s");
    // Whoever records the call learns of it, too.
    let failure = usage.report().failure.expect("noted");
    assert_eq!((failure.kind(), failure.is_after_commit()), (Kind::Timeout(TimeoutKind::Idle), true));

    // The answer is not held, and silent from the beginning: a model that thinks is not idle.
    let (_feed, body) = fed();
    let answer = parking_lot::Mutex::new(Some(any(body)));
    let thinking = Upstream::at_once(move |_| Ok(sse(answer.lock().take().unwrap())));
    let began = Instant::now();
    let response = layers(false).service(thinking).oneshot(post(STREAM)).await.unwrap();
    let error = Box::pin(response.into_body()).frame().await.unwrap().unwrap_err();
    assert_clock(&error, TimeoutKind::FirstContent, "30s");
    on_time(began.elapsed(), secs(30));
}

#[tokio::test(start_paused = true)]
async fn a_slow_error_is_the_attempts() {
    let (_feed, body) = fed();
    let answer = parking_lot::Mutex::new(Some(any(body)));
    let upstream = Upstream::at_once(move |_| Ok(typed(503, "application/json", answer.lock().take().unwrap())));
    let service = ServiceBuilder::new().layer(attempt()).layer(ClassifyLayer::new()).service(upstream);
    let began = Instant::now();
    let error = service.oneshot(post(GENERATE)).await.unwrap_err();
    assert_clock(&error, TimeoutKind::Attempt, "20s");
    on_time(began.elapsed(), secs(20));
}

#[tokio::test(start_paused = true)]
async fn disabled_nothing_ever_runs_out_and_nothing_is_looked_at() {
    let upstream = Upstream::new(|_, _| async {
        sleep(secs(100_000)).await;
        let (feed, body) = fed();
        tokio::spawn(async move {
            sleep(secs(100_000)).await;
            feed.data("late");
        });
        Ok(sse(any(body)))
    });
    let (result, _) = timed(TimeoutLayer::disabled(), &upstream, post(STREAM)).await;
    assert_eq!(read(result.unwrap().into_body()).await, "late");
    let mut request = post(GENERATE);
    request.headers_mut().insert("x-server-timeout", "soon".parse().unwrap());
    let upstream = Upstream::at_once(|_| Ok(hello()));
    timed(TimeoutLayer::disabled(), &upstream, request).await.0.unwrap();
    assert_eq!(upstream.asked()[0].headers["x-server-timeout"], "soon");
    assert!(upstream.asked()[0].context.is_none());
}

#[tokio::test(start_paused = true)]
async fn clocks_that_are_set_to_for_ever_are_fine() {
    let layer = TimeoutLayer::attempt(Duration::MAX).first_content(Duration::MAX).idle(Duration::MAX);
    let (feed, body) = fed();
    let mut pending = task::spawn(read_next(body_of(layer, STREAM, any(body)).await));
    assert_pending!(pending.poll());
    feed.data("x");
    assert_ready!(pending.poll());
    for layer in [TimeoutLayer::attempt(Duration::MAX), TimeoutLayer::total(Duration::MAX)] {
        let upstream = Upstream::at_once(|_| Ok(hello()));
        timed(layer, &upstream, post(GENERATE)).await.0.unwrap();
        let sent = upstream.asked()[0].headers.get("x-server-timeout").cloned();
        assert!(sent.is_none_or(|seconds| seconds.to_str().unwrap().parse::<u64>().unwrap() > 1_000_000));
    }
    let upstream = Upstream::hangs();
    let mut call = task::spawn(TimeoutLayer::total(Duration::MAX).layer(upstream).oneshot(post(GENERATE)));
    assert_pending!(call.poll());
    tokio::time::advance(secs(1_000_000)).await;
    assert_pending!(call.poll());
}

#[tokio::test(start_paused = true)]
async fn a_size_hint_is_the_inner_bodys() {
    for hint in [SizeHint::with_exact(5), SizeHint::new()] {
        let (feed, body) = fed();
        feed.data("hello");
        let mut body = body_of(attempt(), GENERATE, any(body.with_hint(hint))).await;
        assert_eq!(body.size_hint().exact(), hint.exact());
        body.frame().await.unwrap().unwrap();
        assert_eq!(body.size_hint().exact(), hint.exact().map(|_| 0));
    }
}

// === the deadline ===

async fn deadline_inside(layer: TimeoutLayer, callers: Option<&str>, set: Option<Duration>) -> Option<Duration> {
    let upstream = Upstream::at_once(|_| Ok(hello()));
    let mut request = post(GENERATE);
    if let Some(callers) = callers {
        request.headers_mut().insert("x-server-timeout", callers.parse().unwrap());
    }
    if let Some(set) = set {
        CallContext::update(request.extensions_mut(), |context| context.tighten_deadline(Deadline::after(set)));
    }
    let (result, _) = timed(layer, &upstream, request).await;
    result.unwrap();
    let context = upstream.asked()[0].context.clone()?;
    context.deadline().map(|deadline| deadline.remaining(Instant::now()))
}

#[tokio::test(start_paused = true)]
async fn the_least_of_all_deadlines_goes_inward() {
    let total = || TimeoutLayer::total(secs(100));
    assert_eq!(deadline_inside(total(), None, None).await, Some(secs(100)));
    assert_eq!(deadline_inside(total(), Some("30"), None).await, Some(secs(30)));
    assert_eq!(deadline_inside(total(), Some("300"), None).await, Some(secs(100)));
    assert_eq!(deadline_inside(total(), Some("30"), Some(secs(7))).await, Some(secs(7)));
    assert_eq!(deadline_inside(total(), None, Some(secs(700))).await, Some(secs(100)));
    // An attempt's clock sets no deadline.
    assert_eq!(deadline_inside(attempt(), None, None).await, None);
}

#[tokio::test(start_paused = true)]
async fn the_callers_own_timeout_is_a_total_clock() {
    let mut request = post(GENERATE);
    request.headers_mut().insert("x-server-timeout", "12".parse().unwrap());
    let (result, took) = timed(TimeoutLayer::total(secs(100)), &Upstream::hangs(), request).await;
    on_time(took, secs(12));
    assert_clock(&result.unwrap_err(), TimeoutKind::Total, "12s");
}

#[tokio::test(start_paused = true)]
async fn an_earlier_deadline_from_outside_does_not_make_a_false_time_out() {
    let layers = ServiceBuilder::new()
        .layer(TimeoutLayer::total(secs(25)))
        .layer(RetryLayer::new(RetryPolicy::default().base_delay(Duration::ZERO)))
        .layer(TimeoutLayer::attempt(secs(20)));
    let upstream = Upstream::hangs();
    let began = Instant::now();
    let error = layers.service(upstream.clone()).oneshot(post(GENERATE)).await.unwrap_err();
    // The second attempt has 20 s of its own, and 5 of the total were left: the total clock ran out.
    assert_clock(&error, TimeoutKind::Total, "25s");
    assert_eq!((began.elapsed().as_secs(), upstream.calls(), upstream.in_flight()), (25, 2, 0));
}

// === X-Server-Timeout ===

async fn told_upstream(layer: TimeoutLayer, request: Request<Full<Bytes>>) -> Option<String> {
    let upstream = Upstream::at_once(|_| Ok(hello()));
    timed(layer, &upstream, request).await.0.unwrap();
    upstream.asked()[0].headers.get("x-server-timeout").map(|value| value.to_str().unwrap().to_owned())
}

fn asking(uri: &str, callers: &str) -> Request<Full<Bytes>> {
    let mut request = post(uri);
    request.headers_mut().insert("x-server-timeout", callers.parse().unwrap());
    request
}

#[tokio::test(start_paused = true)]
async fn the_upstream_is_told_how_long_an_attempt_may_take() {
    let told = |uri: &'static str| told_upstream(attempt(), post(uri));
    assert_eq!(told(GENERATE).await.as_deref(), Some("20"));
    assert_eq!(told("/v1/publishers/google/models/m:generateContent").await.as_deref(), Some("20"));
    assert_eq!(told("/v1beta/models/m:countTokens").await.as_deref(), Some("20"));
    // Streams may take longer than that in all, and other surfaces do not know the header.
    for uri in [STREAM, ARRAY, CHAT, INTERACTIONS, "/elsewhere"] {
        assert_eq!(told(uri).await, None, "{uri}");
    }
    let get = Request::builder().method(Method::GET).uri("/v1beta/models").body(Full::default()).unwrap();
    assert_eq!(told_upstream(attempt(), get).await, None);
    // The header has whole seconds, rounded up, and never fewer than the 10 that the API demands.
    assert_eq!(told_upstream(TimeoutLayer::attempt(millis(12_001)), post(GENERATE)).await.as_deref(), Some("13"));
    assert_eq!(told_upstream(TimeoutLayer::attempt(secs(3)), post(GENERATE)).await.as_deref(), Some("10"));
    assert_eq!(told_upstream(TimeoutLayer::total(secs(50)), post(GENERATE)).await, None);
}

#[tokio::test(start_paused = true)]
async fn what_the_caller_asked_for_goes_upstream_as_he_asked() {
    for layer in [attempt, || TimeoutLayer::total(secs(100))] {
        assert_eq!(told_upstream(layer(), asking(GENERATE, "30")).await.as_deref(), Some("30"));
        assert_eq!(told_upstream(layer(), asking(STREAM, "600")).await.as_deref(), Some("600"));
        assert_eq!(told_upstream(layer(), asking(GENERATE, " 30 ")).await.as_deref().map(str::trim), Some("30"));
        // A value under 10 would be refused: "Minimum allowed deadline is 10s".
        assert_eq!(told_upstream(layer(), asking(GENERATE, "4")).await.as_deref(), Some("10"));
        assert_eq!(told_upstream(layer(), asking(CHAT, "4")).await.as_deref(), Some("10"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_that_is_no_number_is_the_callers_mistake() {
    for wrong in ["soon", "", "0", "+5", "1.5", "-3", "10s", "99999999999999999999999"] {
        for layer in [attempt(), TimeoutLayer::total(secs(100))] {
            let upstream = Upstream::at_once(|_| Ok(hello()));
            let error = timed(layer, &upstream, asking(GENERATE, wrong)).await.0.unwrap_err();
            let error = find(&error);
            assert_eq!((error.failure().kind(), error.failure().code().as_u16()), (Kind::BadRequest, 400), "{wrong:?}");
            assert!(error.failure().message().contains("X-Server-Timeout"), "{error}");
            assert!(error.never_sent());
            assert_eq!(upstream.calls(), 0);
        }
    }
}

// === tiers ===

const FLEX: &str = r#"{"contents":[],"serviceTier":"flex"}"#;

/// Stacks the clocks around the layer that reads the body.
fn by_tier(
    upstream: &Upstream,
) -> impl tower::Service<Request<AnyBody>, Response = Response<impl Body>, Error = BoxError> {
    ServiceBuilder::new()
        .layer(TimeoutLayer::total(secs(50)).flex(secs(200)))
        .layer(ReplayLayer::new())
        .layer(TimeoutLayer::attempt(secs(20)).first_content(secs(30)).flex(secs(150)))
        .service(upstream.clone())
}

#[tokio::test(start_paused = true)]
async fn the_tier_that_the_body_names_sets_the_clocks() {
    let flex = |uri| post_body(uri, FLEX).map(any);
    for (request, (kind, limit), deadline, told) in [
        (post(GENERATE).map(any), (TimeoutKind::Attempt, 20), 50, Some("20")),
        (post(STREAM).map(any), (TimeoutKind::FirstContent, 30), 50, None),
        (flex(GENERATE), (TimeoutKind::Attempt, 150), 200, Some("150")),
        (flex(STREAM), (TimeoutKind::FirstContent, 150), 200, None),
        // It is no call that has a tier.
        (flex("/v1beta/models/gemini-2.5-pro:countTokens"), (TimeoutKind::Attempt, 20), 50, Some("20")),
    ] {
        let (upstream, began) = (Upstream::hangs(), Instant::now());
        let error = by_tier(&upstream).oneshot(request).await.map(drop).unwrap_err();
        on_time(began.elapsed(), secs(limit));
        assert_clock(&error, kind, &format!("{limit}s"));
        let asked = &upstream.asked()[0];
        assert_eq!(asked.headers.get("x-server-timeout").map(|value| value.to_str().unwrap()), told);
        let context = asked.context.as_ref().unwrap();
        assert_eq!(context.deadline().unwrap().instant() - began, secs(deadline));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_late_names_its_tier_all_the_same() {
    for (body, total) in [(FLEX, 200), (r#"{"contents":[]}"#, 50)] {
        let upstream = Upstream::hangs();
        let service = ServiceBuilder::new()
            .layer(TimeoutLayer::total(secs(50)).flex(secs(200)))
            .layer(ReplayLayer::new())
            .service(upstream.clone());
        let (feed, streamed) = fed();
        let began = Instant::now();
        let call = tokio::spawn(service.oneshot(Request::post(GENERATE).body(any(streamed)).unwrap()));
        sleep(secs(40)).await;
        feed.data(body);
        drop(feed);
        let error = call.await.unwrap().map(drop).unwrap_err();
        on_time(began.elapsed(), secs(total));
        assert_clock(&error, TimeoutKind::Total, &format!("{total}s"));
    }
    // One that never comes has the total that holds for all.
    let upstream = Upstream::hangs();
    let service = by_tier(&upstream);
    let (_feed, streamed) = fed();
    let began = Instant::now();
    let error = service.oneshot(Request::post(GENERATE).body(any(streamed)).unwrap()).await.map(drop).unwrap_err();
    on_time(began.elapsed(), secs(50));
    assert_clock(&error, TimeoutKind::Total, "50s");
}

#[tokio::test(start_paused = true)]
async fn a_total_for_flex_may_be_shorter_and_an_earlier_deadline_stays() {
    let layer = || {
        ServiceBuilder::new()
            .layer(TimeoutLayer::total(secs(50)).flex(secs(10)))
            .layer(ReplayLayer::new())
            .service(Upstream::hangs())
    };
    let began = Instant::now();
    let error = layer().oneshot(post_body(GENERATE, FLEX)).await.map(drop).unwrap_err();
    on_time(began.elapsed(), secs(10));
    assert_clock(&error, TimeoutKind::Total, "10s");

    let upstream = Upstream::at_once(|_| Ok(hello()));
    let mut request = post_body(GENERATE, FLEX).map(any);
    let own = Deadline::after(secs(70));
    CallContext::update(request.extensions_mut(), |context| context.tighten_deadline(own));
    by_tier(&upstream).oneshot(request).await.map(drop).unwrap();
    assert_eq!(upstream.asked()[0].context.as_ref().unwrap().deadline(), Some(own));
}
