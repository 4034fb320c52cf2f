//! Tests of `CircuitBreakerLayer` on a paused clock: alone, and in its place in a stack.

mod support;

use std::{
    convert::Infallible,
    future::{Pending, pending},
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::join_all};
use http::{Request, Response};
use http_body_util::Full;
use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, advance, sleep, timeout},
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, limit::ConcurrencyLimit, service_fn};
use tower_gemini::{
    BoxError, CircuitBreakerLayer, ClassifyLayer, GeminiLayer, RateLimitLayer, ReplayLayer, RetryLayer, RetryPolicy,
    TimeoutLayer,
    circuit_breaker::{CircuitBreaker, CircuitBreakers, CircuitBreakersBuilder, Reason, State, Target, Trip, Window},
    failure::Kind,
    quota::{Gate, Limits},
    rate_limit::Limiter,
    retry::OnOpen,
};

use crate::support::{
    Answer, CHAT, GENERATE, STREAM, Strict, Upstream, busy, chunks, event, find, hello, post, post_body, secs, settle,
    sse, status,
};

const COUNT: &str = "/v1beta/models/gemini-2.5-pro:countTokens";
const FLASH: &str = "/v1beta/models/gemini-2.5-flash:generateContent";

/// The current behaviour of the upstream.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Well,
    Busy,
    Hanging,
    Panicking,
    Status(u16),
}

/// An upstream whose behaviour can be set.
#[derive(Clone)]
struct Moody {
    mood: Arc<Mutex<Mood>>,
    upstream: Upstream,
}

impl Moody {
    fn new() -> Self {
        let mood = Arc::new(Mutex::new(Mood::Well));
        let now = mood.clone();
        let upstream = Upstream::new(move |_, _| {
            let mood = *now.lock();
            async move {
                match mood {
                    Mood::Well => Ok(hello()),
                    Mood::Busy => Ok(busy()),
                    Mood::Hanging => pending().await,
                    Mood::Panicking => panic!("as it was told"),
                    Mood::Status(code) => Ok(status(code)),
                }
            }
        });
        Self { mood, upstream }
    }

    fn is(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    fn calls(&self) -> usize {
        self.upstream.calls()
    }
}

type Breaking = CircuitBreaker<Upstream>;

/// Builds breakers that open with the second failure in a row, for 2 to 4 s at first.
fn quick() -> CircuitBreakersBuilder {
    CircuitBreakers::builder().trip(Trip::consecutive(2))
}

fn over(breakers: CircuitBreakersBuilder) -> (Moody, CircuitBreakers, Breaking) {
    let (moody, breakers) = (Moody::new(), breakers.build().unwrap());
    let service = CircuitBreakerLayer::new(breakers.clone()).layer(moody.upstream.clone());
    (moody, breakers, service)
}

fn pro() -> Target {
    Target::new("gemini-2.5-pro", "")
}

async fn call(service: &Breaking, uri: &str) -> Answer {
    service.clone().oneshot(post(uri)).await
}

async fn is_refused(service: &Breaking, uri: &str) -> bool {
    call(service, uri).await.is_err_and(|error| find(&error).is_circuit_open())
}

/// Opens the breaker, and lets its open time pass.
async fn half_open(moody: &Moody, service: &Breaking) {
    moody.is(Mood::Busy);
    while !is_refused(service, GENERATE).await {}
    advance(secs(11)).await;
}

// === open ===

#[tokio::test(start_paused = true)]
async fn an_open_breaker_refuses_at_once_says_why_and_for_how_long_and_sends_nothing() {
    let (moody, breakers, service) = over(quick());
    moody.is(Mood::Busy);
    for _ in 0..2 {
        assert_eq!(call(&service, GENERATE).await.unwrap().status(), 503);
    }
    let begun = Instant::now();
    let error = call(&service, GENERATE).await.unwrap_err();
    let error = find(&error);
    assert!(error.is_circuit_open() && error.never_sent() && !error.outcome().was_sent());
    assert_eq!((error.layer(), error.failure().kind()), ("circuit_breaker", Kind::CircuitOpen));
    let wait = error.retry_after().unwrap();
    assert!(wait >= secs(2) && wait <= secs(5), "{wait:?}");
    let text = error.to_string();
    assert!(text.contains("2 of 2 requests failed") && text.contains("model gemini-2.5-pro"), "{text}");
    assert_eq!((moody.calls(), begun.elapsed(), breakers.state(&pro())), (2, secs(0), State::Open));
    // A caller that waits that long is admitted.
    advance(wait).await;
    assert_eq!(call(&service, GENERATE).await.unwrap().status(), 503);
}

#[tokio::test(start_paused = true)]
async fn after_ten_thousand_successes_an_outage_opens_it_in_ten_seconds() {
    let (moody, breakers, service) = over(CircuitBreakers::builder());
    for _ in 0..10_000 {
        assert!(call(&service, GENERATE).await.is_ok());
    }
    moody.is(Mood::Busy);
    let begun = Instant::now();
    while breakers.state(&pro()) == State::Closed {
        assert!(begun.elapsed() <= secs(10));
        let _ = call(&service, GENERATE).await;
        sleep(secs(1)).await;
    }
    assert!(moody.calls() <= 10_011);
}

/// A few of many calls are timed, so that the breaker notices when answers take longer than they did at first.
#[tokio::test(start_paused = true)]
async fn silence_is_twice_as_long_as_the_last_answers_took() {
    let fails = Arc::new(Mutex::new(false));
    let now = fails.clone();
    let upstream = Upstream::new(move |nth, _| {
        let fails = *now.lock();
        async move {
            sleep(secs(if nth < 16 { 1 } else { 20 })).await;
            Ok(if fails { busy() } else { hello() })
        }
    });
    let breakers = CircuitBreakers::new();
    let mut service = CircuitBreakerLayer::new(breakers.clone()).layer(upstream);
    for _ in 0..200 {
        join_all((0..16).map(|_| service.call(post(GENERATE)))).await;
    }
    *fails.lock() = true;
    for (waits, state) in [(0, State::Closed), (19, State::Closed), (1, State::Open)] {
        advance(secs(waits)).await;
        // Each call takes 20 s; the failures of the first ones begin the silence.
        join_all((0..16).map(|_| service.call(post(GENERATE)))).await;
        assert_eq!(breakers.state(&pro()), state, "{waits}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_upstreams_hint_keeps_it_open() {
    let upstream = Upstream::at_once(|_| {
        let mut response = busy();
        response.headers_mut().insert("retry-after", "45".parse().unwrap());
        Ok(response)
    });
    let service = CircuitBreakerLayer::new(quick().build().unwrap()).layer(upstream.clone());
    while !is_refused(&service, GENERATE).await {}
    let error = call(&service, GENERATE).await.unwrap_err();
    assert!(find(&error).retry_after().unwrap() >= secs(45));
    advance(secs(44)).await;
    assert!(is_refused(&service, GENERATE).await);
}

#[tokio::test(start_paused = true)]
async fn only_what_speaks_of_the_upstream_counts() {
    let (moody, breakers, service) = over(quick());
    for code in [400, 401, 403, 404, 413, 429] {
        moody.is(Mood::Status(code));
        for _ in 0..50 {
            assert_eq!(call(&service, GENERATE).await.unwrap().status(), code);
        }
    }
    moody.is(Mood::Hanging);
    for _ in 0..50 {
        assert!(timeout(secs(1), call(&service, GENERATE)).await.is_err());
    }
    assert_eq!(breakers.state(&pro()), State::Closed);
    // None of these outcomes breaks a row of failures.
    for mood in [Mood::Busy, Mood::Status(400), Mood::Status(429), Mood::Status(500)] {
        moody.is(mood);
        call(&service, GENERATE).await.unwrap();
    }
    assert_eq!(breakers.state(&pro()), State::Open);
}

#[tokio::test(start_paused = true)]
async fn what_counts_can_be_chosen() {
    let (moody, breakers, service) = over(quick().counts(|failure| failure.kind() == Kind::QuotaUnknown));
    for (mood, state) in [(Mood::Busy, State::Closed), (Mood::Status(429), State::Open)] {
        moody.is(mood);
        for _ in 0..2 {
            call(&service, GENERATE).await.unwrap();
        }
        assert_eq!(breakers.state(&pro()), state);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_transport_counts() {
    let breakers = quick().build().unwrap();
    let failing = service_fn(|_: Request<Full<Bytes>>| async {
        Err::<Response<Full<Bytes>>, _>(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))
    });
    let service = CircuitBreakerLayer::new(breakers.clone()).layer(failing);
    for _ in 0..2 {
        service.clone().oneshot(post(GENERATE)).await.unwrap_err();
    }
    assert_eq!(breakers.state(&pro()), State::Open);
}

// === half-open ===

#[tokio::test(start_paused = true)]
async fn stale_answers_neither_close_it_nor_open_it_again() {
    let upstream = Upstream::new(|nth, _| async move {
        match nth {
            // Two slow calls began before the outage.
            0 => sleep(secs(15)).await,
            1 => sleep(secs(16)).await,
            _ => {}
        }
        if nth == 0 || nth >= 4 { Ok(hello()) } else { Ok(busy()) }
    });
    let breakers = quick().build().unwrap();
    let service = CircuitBreakerLayer::new(breakers.clone()).layer(upstream.clone());
    let old = join_all((0..2).map(|_| tokio::spawn(service.clone().oneshot(post(GENERATE)))));
    settle().await;
    for _ in 0..2 {
        call(&service, GENERATE).await.unwrap();
    }
    assert_eq!(breakers.state(&pro()), State::Open);
    let old: Vec<_> = old.await.into_iter().map(|old| old.unwrap().unwrap().status().as_u16()).collect();
    assert_eq!(old, [200, 503]);
    assert_eq!(breakers.state(&pro()), State::HalfOpen, "its time has passed, and that is all");
    assert!(call(&service, GENERATE).await.is_ok());
    assert_eq!(breakers.state(&pro()), State::Ramping);
}

#[tokio::test(start_paused = true)]
async fn dropped_panicked_and_hung_probes_give_their_places_back() {
    let (moody, breakers, service) = over(quick());
    half_open(&moody, &service).await;
    let calls = moody.calls();
    moody.is(Mood::Hanging);
    for _ in 0..10 {
        let probes: Vec<_> = (0..2).map(|_| Box::pin(call(&service, GENERATE))).collect();
        let mut probes = join_all(probes);
        assert!((&mut probes).now_or_never().is_none());
        assert!(is_refused(&service, GENERATE).await);
    }
    assert_eq!(moody.calls() - calls, 20, "each of them was let in");

    moody.is(Mood::Panicking);
    for _ in 0..10 {
        let probe = tokio::spawn(service.clone().oneshot(post(GENERATE))).await;
        assert!(probe.is_err_and(|error| error.is_panic()));
    }
    assert_eq!(moody.calls() - calls, 30);

    moody.is(Mood::Hanging);
    let mut hung = join_all((0..2).map(|_| Box::pin(call(&service, GENERATE))));
    assert!((&mut hung).now_or_never().is_none());
    moody.is(Mood::Well);
    advance(secs(59)).await;
    assert!(is_refused(&service, GENERATE).await);
    advance(secs(1)).await;
    assert_eq!(breakers.state(&pro()), State::HalfOpen);
    assert!(call(&service, GENERATE).await.is_ok());
    assert_eq!(breakers.state(&pro()), State::Ramping);
}

#[tokio::test(start_paused = true)]
async fn an_inner_service_that_panics_in_its_call_leaves_the_place_free() {
    let breakers = quick().build().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let asking = asked.clone();
    let panics = service_fn(move |_: Request<Full<Bytes>>| {
        let nth = asking.fetch_add(1, Ordering::SeqCst);
        assert!(!(2..12).contains(&nth), "as it was told");
        std::future::ready(Ok::<_, Infallible>(if nth < 2 { busy() } else { hello() }))
    });
    let service = CircuitBreakerLayer::new(breakers.clone()).layer(panics);
    for _ in 0..2 {
        service.clone().oneshot(post(GENERATE)).await.unwrap();
    }
    advance(secs(5)).await;
    for _ in 0..10 {
        let service = service.clone();
        assert!(tokio::spawn(async move { service.oneshot(post(GENERATE)).await.is_ok() }).await.is_err());
    }
    assert_eq!(service.clone().oneshot(post(GENERATE)).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn what_a_users_function_panics_with_leaves_nothing_behind() {
    let panics = Arc::new(Mutex::new(false));
    let (counting, scoping) = (panics.clone(), panics.clone());
    let breakers = quick().counts(move |failure| {
        assert!(!*counting.lock(), "as it was told");
        failure.counts_against_upstream()
    });
    let breakers = breakers.scope_by(move |parts| {
        assert!(!(*scoping.lock() && parts.headers.contains_key("x-scope")), "as it was told");
        pro()
    });
    let (moody, breakers, service) = over(breakers);
    half_open(&moody, &service).await;
    let calls = moody.calls();
    *panics.lock() = true;
    for _ in 0..10 {
        let mut scoped = post(GENERATE);
        scoped.headers_mut().insert("x-scope", "1".parse().unwrap());
        for request in [post(GENERATE), scoped] {
            let service = service.clone();
            assert!(tokio::spawn(async move { service.oneshot(request).await.is_ok() }).await.is_err());
        }
    }
    assert_eq!((moody.calls() - calls, breakers.state(&pro())), (10, State::HalfOpen));
    *panics.lock() = false;
    moody.is(Mood::Well);
    assert!(call(&service, GENERATE).await.is_ok());
    assert_eq!(breakers.state(&pro()), State::Ramping);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_meets_anothers_fault_says_nothing() {
    let (moody, breakers, service) = over(quick());
    half_open(&moody, &service).await;
    for code in [400, 403, 429] {
        moody.is(Mood::Status(code));
        for _ in 0..10 {
            assert_eq!(call(&service, GENERATE).await.unwrap().status(), code);
            assert_eq!(breakers.state(&pro()), State::HalfOpen);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_that_thinks_for_longer_than_a_lease_comes_back_as_well() {
    let upstream = Upstream::new(|nth, _| async move {
        if nth < 2 {
            return Ok(busy());
        }
        sleep(secs(100)).await;
        Ok(hello())
    });
    let breakers = quick().build().unwrap();
    let service = CircuitBreakerLayer::new(breakers.clone()).layer(upstream);
    let begun = Instant::now();
    while breakers.state(&pro()) != State::Ramping {
        tokio::spawn(service.clone().oneshot(post(GENERATE)));
        sleep(secs(1)).await;
        assert!(begun.elapsed() < secs(110));
    }
}

/// A service that counts its calls, and never answers.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicUsize>);

impl Service<Request<Full<Bytes>>> for Counting {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pending<Result<Response<Full<Bytes>>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        self.0.fetch_add(1, Ordering::SeqCst);
        pending()
    }
}

#[test]
fn exactly_as_many_probes_as_are_allowed_however_many_come_at_once() {
    for probes in [1, 2, 7] {
        for _ in 0..20 {
            let breakers = CircuitBreakers::builder().trip(Trip::consecutive(1)).half_open_max_requests(probes);
            let breakers = breakers.open_duration(secs(0)).max_open_duration(secs(0)).build().unwrap();
            let mut failing = CircuitBreakerLayer::new(breakers.clone())
                .layer(service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, Infallible>(busy()) }));
            failing.call(post(GENERATE)).now_or_never().unwrap().unwrap();

            let upstream = Counting::default();
            let service = CircuitBreakerLayer::new(breakers).layer(upstream.clone());
            let barrier = Barrier::new(64);
            std::thread::scope(|scope| {
                for _ in 0..64 {
                    scope.spawn(|| {
                        let mut service = service.clone();
                        barrier.wait();
                        let mut calls: Vec<_> = (0..10).map(|_| Box::pin(service.call(post(GENERATE)))).collect();
                        for call in &mut calls {
                            let _ = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                        }
                        // No thread ends its call before all have made theirs.
                        barrier.wait();
                    });
                }
            });
            assert_eq!(upstream.0.load(Ordering::SeqCst), probes as usize);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_recovery_a_caller_that_makes_one_call_after_the_other_is_never_refused() {
    for millis in [0, 20, 400, 3_000, 40_000] {
        let upstream = Upstream::new(move |nth, _| async move {
            if nth < 2 {
                return Ok(busy());
            }
            sleep(std::time::Duration::from_millis(millis)).await;
            Ok(hello())
        });
        let breakers = quick().build().unwrap();
        let service = CircuitBreakerLayer::new(breakers.clone()).layer(upstream);
        while !is_refused(&service, GENERATE).await {}
        advance(secs(5)).await;
        for nth in 0..20 {
            assert!(call(&service, GENERATE).await.is_ok(), "call {nth} of {millis} ms");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_recovery_a_crowd_is_let_in_by_its_answers() {
    let (moody, breakers, service) = over(quick());
    half_open(&moody, &service).await;
    moody.is(Mood::Well);
    call(&service, GENERATE).await.unwrap();
    let mut in_flight = Vec::new();
    moody.is(Mood::Hanging);
    for _ in 0..100 {
        let mut call = Box::pin(service.clone().oneshot(post(GENERATE)));
        if (&mut call).now_or_never().is_none() {
            in_flight.push(call);
        }
    }
    assert_eq!((in_flight.len(), breakers.state(&pro())), (2, State::Ramping), "as many as came in a second before");
    moody.is(Mood::Well);
    in_flight.clear();
    for _ in 0..8 {
        call(&service, GENERATE).await.unwrap();
    }
    moody.is(Mood::Hanging);
    let mut crowd: Vec<_> = (0..100).map(|_| Box::pin(service.clone().oneshot(post(GENERATE)))).collect();
    let refused = crowd.iter_mut().filter_map(|call| call.now_or_never()).count();
    assert_eq!(100 - refused, 2 + 8, "and one more for each answer");
}

// === time-outs of one's own ===

/// Callers that make one call after the other until they are dropped.
fn callers(count: usize, clock: u64, breakers: &CircuitBreakers, upstream: &Upstream) -> JoinSet<()> {
    let service = ServiceBuilder::new()
        .layer(CircuitBreakerLayer::new(breakers.clone()))
        .layer(TimeoutLayer::attempt(secs(clock)))
        .service(upstream.clone());
    let mut callers = JoinSet::new();
    for nth in 0..count {
        let service = service.clone();
        callers.spawn(async move {
            sleep(secs(nth as u64 % 7)).await;
            loop {
                let _ = service.clone().oneshot(post(GENERATE)).await;
                sleep(secs(1)).await;
            }
        });
    }
    callers
}

#[tokio::test(start_paused = true)]
async fn impatient_callers_alone_open_nothing_while_others_are_answered_and_when_nobody_is_they_do() {
    for trip in [
        Trip::silence(),
        Trip::failure_rate(0.2, Window::Calls(50)),
        Trip::failure_rate(0.2, Window::Time(secs(120))),
        Trip::consecutive(5),
    ] {
        let hangs = Arc::new(AtomicBool::new(false));
        let hanging = hangs.clone();
        let upstream = Upstream::new(move |nth, _| {
            let hangs = hanging.load(Ordering::SeqCst);
            async move {
                match nth {
                    _ if hangs => pending().await,
                    0..20 => {}
                    // It has begun to think.
                    _ => sleep(secs(60 + nth as u64 * 7 % 61)).await,
                }
                Ok(hello())
            }
        });
        let breakers = CircuitBreakers::builder().trip(trip).build().unwrap();
        let service = CircuitBreakerLayer::new(breakers.clone()).layer(upstream.clone());
        for _ in 0..20 {
            call(&service, GENERATE).await.unwrap();
        }
        let mut transitions = breakers.subscribe();
        let _patient = callers(30, 180, &breakers, &upstream);
        sleep(secs(120)).await;
        let _impatient = callers(10, 30, &breakers, &upstream);
        let opened = timeout(secs(1_800), transitions.next()).await;
        assert!(opened.is_err(), "{trip:?}: {opened:?}");
        hangs.store(true, Ordering::SeqCst);
        let opened = timeout(secs(600), transitions.next()).await;
        assert!(opened.is_ok_and(|change| change.unwrap().to == State::Open), "{trip:?}");
    }
}

// === streams ===

#[tokio::test(start_paused = true)]
async fn a_stream_succeeds_at_its_commit_and_what_fails_before_it_counts() {
    let upstream = Upstream::at_once(|nth| {
        let overloaded = r#"data: {"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}"#;
        Ok(sse(match nth {
            0 | 1 => chunks([format!("{overloaded}\n\n")]),
            // An outcome after the commit no longer counts.
            _ => chunks([event("a"), format!("{overloaded}\n\n")]),
        }))
    });
    let breakers = quick().build().unwrap();
    let service = ServiceBuilder::new()
        .layer(CircuitBreakerLayer::new(breakers.clone()))
        .layer(ClassifyLayer::new())
        .service(upstream.clone());
    for _ in 0..2 {
        let _ = service.clone().oneshot(post(STREAM)).await;
    }
    assert_eq!(breakers.state(&pro()), State::Open);
    advance(secs(5)).await;
    let response = service.clone().oneshot(post(STREAM)).await.unwrap();
    assert_eq!(breakers.state(&pro()), State::Ramping, "before its body is read");
    drop(response);
    assert_eq!(breakers.state(&pro()), State::Ramping);
}

// === in a stack ===

#[tokio::test(start_paused = true)]
async fn a_request_counts_once_however_often_it_is_sent() {
    let (moody, breakers, service) = over(quick());
    moody.is(Mood::Busy);
    let retrying = RetryLayer::new(RetryPolicy::default().on_open(OnOpen::Fail)).layer(service);
    assert_eq!(retrying.clone().oneshot(post(GENERATE)).await.unwrap().status(), 503);
    assert_eq!((moody.calls(), breakers.state(&pro())), (8, State::Closed));
    assert!(retrying.clone().oneshot(post(GENERATE)).await.is_err());
    assert_eq!((moody.calls(), breakers.state(&pro())), (9, State::Open));
}

#[tokio::test(start_paused = true)]
async fn whoever_wants_to_wait_waits_within_the_deadline_and_no_attempt_is_counted() {
    let (moody, breakers, service) = over(quick());
    moody.is(Mood::Busy);
    for _ in 0..2 {
        call(&service, GENERATE).await.unwrap();
    }
    let stack = |on_open| {
        let retry = RetryLayer::new(RetryPolicy::default().max_attempts(2).on_open(on_open));
        ServiceBuilder::new().layer(TimeoutLayer::total(secs(60))).layer(retry).service(service.clone())
    };
    let error = stack(OnOpen::Fail).oneshot(post(GENERATE)).await.unwrap_err();
    assert!(find(&error).is_circuit_open());
    // Two of its attempts fail as probes; the third must not be one.
    let begun = Instant::now();
    let error = stack(OnOpen::Wait).oneshot(post(GENERATE)).await;
    assert_eq!(error.unwrap().status(), 503);
    assert!(begun.elapsed() > secs(2) && begun.elapsed() < secs(10));
    assert_eq!(moody.calls(), 4);
    assert_eq!(breakers.state(&pro()), State::Open);
    moody.is(Mood::Well);
    let response = stack(OnOpen::Wait).oneshot(post(GENERATE)).await.unwrap();
    assert_eq!((response.status().as_u16(), support::outcome(&response).attempts()), (200, 1));

    breakers.force_open(&pro());
    let begun = Instant::now();
    let error = stack(OnOpen::Wait).oneshot(post(GENERATE)).await.unwrap_err();
    assert!(find(&error).is_circuit_open());
    assert!(begun.elapsed() <= secs(60));
}

#[tokio::test(start_paused = true)]
async fn no_permit_is_held_while_somebody_waits_for_it_to_close() {
    let breakers = quick().build().unwrap();
    let permits = Arc::new(Semaphore::new(1));
    let limited = ConcurrencyLimit::with_semaphore(Strict::new(Upstream::at_once(|_| Ok(hello())), 1), permits.clone());
    let service = ServiceBuilder::new()
        .layer(RetryLayer::default())
        .layer(CircuitBreakerLayer::new(breakers.clone()))
        .service(limited);
    breakers.force_open(&pro());
    let waiting = tokio::spawn(service.clone().oneshot(post(GENERATE)));
    settle().await;
    assert_eq!(permits.available_permits(), 1);
    // Another model is not held up.
    assert!(timeout(secs(1), service.oneshot(post(FLASH))).await.unwrap().is_ok());
    breakers.reset(&pro());
    assert!(waiting.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_spends_no_quota_and_nobody_queues_before_an_open_breaker() {
    let breakers = quick().build().unwrap();
    let limits = Limits::new().requests_per_minute(3);
    let limiter = Limiter::builder().limits(limits).gate(breakers.clone()).build();
    let upstream = Upstream::at_once(|_| Ok(hello()));
    let service = ServiceBuilder::new()
        .layer(RateLimitLayer::new(limiter.clone()))
        .layer(CircuitBreakerLayer::new(breakers.clone()))
        .service(upstream.clone());
    let scope = tower_gemini::quota::Scope::new("default", "gemini-2.5-pro");
    breakers.force_open(&pro());
    for _ in 0..10 {
        assert!(find(&service.clone().oneshot(post(GENERATE)).await.unwrap_err()).is_circuit_open());
    }
    assert_eq!(limiter.headroom(&scope, 1, 1), secs(0));
    breakers.reset(&pro());
    for _ in 0..3 {
        service.clone().oneshot(post(GENERATE)).await.unwrap();
    }
    assert_eq!(breakers.closed_for(&scope), None);
    breakers.force_open(&pro());
    assert!(breakers.closed_for(&scope).is_some());
    let begun = Instant::now();
    let error = service.clone().oneshot(post(GENERATE)).await.unwrap_err();
    assert!(find(&error).is_circuit_open() && find(&error).layer() == "rate_limit", "{error}");
    assert_eq!((begun.elapsed(), upstream.calls()), (secs(0), 3));
}

#[tokio::test(start_paused = true)]
async fn whoever_stands_in_line_already_is_refused_in_its_turn_and_all_behind_it_at_once() {
    let breakers = quick().build().unwrap();
    let limits = Limits::new().requests_per_minute(3);
    let limiter = Limiter::builder().limits(limits).max_wait(secs(600)).gate(breakers.clone()).build();
    let upstream = Upstream::at_once(|_| Ok(hello()));
    let service = ServiceBuilder::new()
        .layer(RateLimitLayer::new(limiter.clone()))
        .layer(CircuitBreakerLayer::new(breakers.clone()))
        .service(upstream.clone());
    let begun = Instant::now();
    let calls: Vec<_> = (0..30).map(|_| tokio::spawn(service.clone().oneshot(post(GENERATE)))).collect();
    settle().await;
    breakers.force_open(&pro());
    for (nth, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().is_ok(), nth < 3);
        assert!(begun.elapsed() < secs(61), "one turn of the window, for all of them");
    }
    assert_eq!((upstream.calls(), limiter.snapshot()[0].dimensions[0].used), (3, 0));
}

// === scopes ===

#[tokio::test(start_paused = true)]
async fn models_and_endpoints_are_kept_apart_and_so_is_what_asks_no_model() {
    let (moody, breakers, service) = over(quick());
    half_open(&moody, &service).await;
    moody.is(Mood::Busy);
    while !is_refused(&service, GENERATE).await {}
    moody.is(Mood::Well);
    for other in [COUNT, FLASH, "/v1beta/models", "https://us.example:444/v1beta/models/gemini-2.5-pro:generateContent"]
    {
        assert!(call(&service, other).await.is_ok(), "{other}");
        assert!(is_refused(&service, STREAM).await, "another way to ask the same model");
    }
    let secret = "https://user:secret@us.example:444/v1beta/models/gemini-2.5-pro:generateContent";
    assert!(call(&service, secret).await.is_ok());
    let mut scopes: Vec<_> = breakers.snapshot().into_iter().map(|(scope, _)| scope.to_string()).collect();
    scopes.sort();
    let expected = [
        "calls to no model",
        "model gemini-2.5-flash",
        "model gemini-2.5-pro",
        "model gemini-2.5-pro at us.example:444",
    ];
    assert_eq!(scopes, expected);
}

#[tokio::test(start_paused = true)]
async fn a_models_endpoints_are_found_again_in_whatever_order_they_come() {
    let (_, breakers, service) = over(quick());
    for _ in 0..2 {
        for endpoint in (0..100).map(|number| number * 37 % 100) {
            call(&service, &format!("https://e{endpoint}{GENERATE}")).await.unwrap();
        }
    }
    assert_eq!(breakers.snapshot().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn no_credentials_of_an_authority_are_kept() {
    let answer = |_: Request<Full<Bytes>>| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) };
    let mut service = CircuitBreakerLayer::new(quick().build().unwrap()).layer(service_fn(answer));
    let secret = "https://user:secret@us.example/v1beta/models/gemini-2.5-pro:generateContent";
    for uri in [GENERATE, secret] {
        for _ in 0..3 {
            service.call(post(uri)).await.unwrap();
        }
    }
    assert!(!format!("{service:?}").contains("secret"));
}

#[tokio::test(start_paused = true)]
async fn the_model_in_a_body_is_known_where_somebody_has_read_it() {
    let breakers = quick().build().unwrap();
    let upstream = Upstream::at_once(|_| Ok(busy()));
    let service = ServiceBuilder::new()
        .layer(ReplayLayer::new())
        .layer(CircuitBreakerLayer::new(breakers.clone()))
        .service(upstream);
    for (model, open) in [("a", false), ("b", false), ("a", true)] {
        let body = format!(r#"{{"model": "{model}", "messages": []}}"#);
        service.clone().oneshot(post_body(CHAT, body)).await.unwrap();
        assert_eq!(breakers.state(&Target::new(model, "")) == State::Open, open);
    }
}

#[tokio::test(start_paused = true)]
async fn one_breaker_can_stand_for_all_and_a_function_can_choose() {
    let (moody, breakers, service) = over(quick().one_for_all());
    moody.is(Mood::Busy);
    call(&service, GENERATE).await.unwrap();
    call(&service, FLASH).await.unwrap();
    assert!(is_refused(&service, COUNT).await);
    assert_eq!(breakers.state(&pro()), State::Open);
    assert!(breakers.closed_for(&tower_gemini::quota::Scope::new("p", "any")).is_some());

    let by_tenant = quick().scope_by(|parts| {
        let tenant = parts.headers.get("x-tenant").map_or("", |tenant| tenant.to_str().unwrap());
        Target::new("any", tenant)
    });
    let (moody, _, mut service) = over(by_tenant);
    moody.is(Mood::Busy);
    let mut ask = |tenant: &str| {
        let mut request = post(GENERATE);
        request.headers_mut().insert("x-tenant", tenant.parse().unwrap());
        service.call(request)
    };
    for tenant in ["a", "b", "a"] {
        ask(tenant).await.unwrap();
    }
    assert!(ask("a").await.is_err());
    assert!(ask("b").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn scopes_are_bounded_and_neither_open_nor_forced_ones_are_forgotten() {
    let (moody, breakers, mut service) = over(quick());
    let uri = |name: &str| format!("/v1beta/models/{name}:generateContent");
    let mut failing = service.clone();
    moody.is(Mood::Busy);
    for _ in 0..2 {
        failing.call(post(&uri("down"))).await.unwrap();
    }
    drop(failing);
    breakers.force_open(&Target::new("forced", ""));
    breakers.force_closed(&Target::new("held", ""));
    moody.is(Mood::Status(404));
    for number in 0..10_000 {
        service.call(post(&uri(&format!("invented-{number}")))).await.unwrap();
        // Long names have no breaker of their own.
        service.call(post(&uri(&"x".repeat(1_000 + number % 10)))).await.unwrap();
        if number % 1_000 == 0 {
            advance(secs(1)).await;
        }
    }
    assert!(breakers.snapshot().len() <= 4096);
    for (name, state) in [("down", State::Open), ("forced", State::ForcedOpen), ("held", State::ForcedClosed)] {
        let found = breakers.snapshot().into_iter().find(|(scope, _)| scope.model() == name);
        let found = found.map(|(_, state)| state);
        // It is open, or ready for its probes.
        assert!(found == Some(state) || name == "down" && found == Some(State::HalfOpen), "{name}: {found:?}");
    }
}

fn model(name: &str) -> (Target, String) {
    (Target::new(name, ""), format!("/v1beta/models/{name}:generateContent"))
}

/// Fills the map with breakers of which none can be forgotten for ten minutes.
async fn fill(moody: &Moody, service: &Breaking) {
    moody.is(Mood::Busy);
    for number in 0..4096 {
        call(service, &model(&format!("invented-{number}")).1).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_scope_that_is_forced_has_a_breaker_of_its_own_however_many_there_are() {
    let (moody, breakers, service) = over(quick());
    fill(&moody, &service).await;
    moody.is(Mood::Well);
    let long = "x".repeat(1_000);
    for name in ["late", &*long] {
        let (scope, uri) = model(name);
        breakers.force_open(&scope);
        assert_eq!(breakers.state(&scope), State::ForcedOpen);
        assert!(is_refused(&service, &uri).await);
        assert!(breakers.closed_for(&tower_gemini::quota::Scope::new("p", name)).is_some());
        assert!(!is_refused(&service, &model("another").1).await, "that is nobody else's business");
        breakers.reset(&scope);
        assert_eq!(breakers.state(&scope), State::Closed);
        assert!(!is_refused(&service, &uri).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_scope_past_the_bound_is_as_the_shared_breaker_is() {
    let (moody, breakers, service) = over(quick());
    let long = "x".repeat(1_000);
    for name in [&*long, "late"] {
        let ((scope, uri), gate) = (model(name), tower_gemini::quota::Scope::new("p", name));
        if name == "late" {
            fill(&moody, &service).await;
        }
        moody.is(Mood::Busy);
        assert_eq!((breakers.state(&scope), breakers.closed_for(&gate)), (State::Closed, None));
        while !is_refused(&service, &uri).await {}
        assert_eq!(breakers.state(&scope), State::Open);
        assert!(breakers.closed_for(&gate).is_some());
        assert!(breakers.snapshot().contains(&(Target::new("others", "others"), State::Open)));
        breakers.reset(&scope);
        assert!(!is_refused(&service, &uri).await);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_had_to_share_a_breaker_has_its_own_once_there_is_one() {
    let (moody, breakers, service) = over(quick());
    fill(&moody, &service).await;
    moody.is(Mood::Well);
    let (scope, uri) = model("late");
    let mut same = service.clone();
    for _ in 0..4 {
        same.call(post(&uri)).await.unwrap();
    }
    breakers.force_open(&scope);
    assert!(same.call(post(&uri)).await.is_err());
    assert!(is_refused(&service, &uri).await);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_a_service_holds_is_not_forgotten() {
    let (moody, breakers, mut service) = over(quick());
    let (scope, uri) = model("kept");
    for _ in 0..20 {
        service.call(post(&uri)).await.unwrap();
    }
    moody.is(Mood::Status(404));
    let others = CircuitBreakerLayer::new(breakers.clone()).layer(moody.upstream.clone());
    for number in 0..4096 {
        call(&others, &model(&format!("invented-{number}")).1).await.unwrap();
    }
    assert!(breakers.snapshot().len() < 100, "the others are");
    breakers.force_open(&scope);
    assert!(service.call(post(&uri)).await.is_err(), "it is the same breaker");
}

#[tokio::test(start_paused = true)]
async fn a_full_map_is_looked_through_once_a_second() {
    let (moody, breakers, service) = over(quick());
    moody.is(Mood::Status(404));
    let count = |from: usize, until: usize| {
        let service = &service;
        async move {
            for number in from..until {
                call(service, &model(&format!("invented-{number}")).1).await.unwrap();
            }
        }
    };
    count(0, 4097).await;
    assert!(breakers.snapshot().len() < 100, "there was nothing to remember");
    count(4097, 9_000).await;
    assert_eq!(breakers.snapshot().len(), 4096);
    advance(secs(1)).await;
    count(9_000, 9_001).await;
    assert!(breakers.snapshot().len() < 100);
}

#[tokio::test(start_paused = true)]
async fn the_gate_is_closed_where_all_endpoints_are_and_until_the_first_opens() {
    let (_, breakers, service) = over(quick());
    let scope = tower_gemini::quota::Scope::new("p", "gemini-2.5-pro");
    let at = |endpoint: &str| format!("https://{endpoint}{GENERATE}");
    for endpoint in ["a", "b"] {
        assert_eq!(breakers.closed_for(&scope), None);
        call(&service, &at(endpoint)).await.unwrap();
    }
    breakers.force_open(&Target::new("gemini-2.5-pro", "a"));
    assert_eq!(breakers.closed_for(&scope), None, "b answers");
    let upstream = Upstream::at_once(|_| Ok(busy()));
    let failing = CircuitBreakerLayer::new(breakers.clone()).layer(upstream);
    while !is_refused(&failing, &at("b")).await {}
    let open_for = breakers.closed_for(&scope).unwrap();
    assert!(open_for <= secs(4), "b's, not the ten seconds of a: {open_for:?}");
    breakers.reset(&Target::new("gemini-2.5-pro", "b"));
    breakers.reset(&Target::new("gemini-2.5-pro", "a"));
    assert_eq!(breakers.closed_for(&scope), None);
    assert!(format!("{breakers:?}").contains("open: 0"), "nobody need look any more: {breakers:?}");
}

#[tokio::test(start_paused = true)]
async fn a_forced_refusal_names_the_longest_opening() {
    let (_, breakers, service) = over(quick().max_open_duration(secs(7)));
    breakers.force_open(&pro());
    let error = call(&service, GENERATE).await.unwrap_err();
    assert_eq!(find(&error).retry_after(), Some(secs(7)));
}

// === the handle ===

#[tokio::test(start_paused = true)]
async fn the_handle_outlives_the_layer_and_tells_what_happens() {
    let breakers = quick().build().unwrap();
    let mut transitions = breakers.subscribe();
    let moody = Moody::new();
    let service = CircuitBreakerLayer::new(breakers.clone()).layer(moody.upstream.clone());
    half_open(&moody, &service).await;
    moody.is(Mood::Well);
    call(&service, GENERATE).await.unwrap();
    drop(service);
    advance(secs(10)).await;
    // A new layer over the same breakers, as after a reload.
    let service = CircuitBreakerLayer::new(breakers.clone()).layer(moody.upstream.clone());
    call(&service, GENERATE).await.unwrap();
    breakers.force_open(&pro());
    assert!(is_refused(&service, GENERATE).await);
    breakers.force_closed(&pro());
    moody.is(Mood::Busy);
    for _ in 0..10 {
        assert!(call(&service, GENERATE).await.is_ok());
    }
    breakers.reset(&pro());

    let mut seen = Vec::new();
    for _ in 0..7 {
        let transition = transitions.next().await.unwrap();
        assert_eq!(transition.scope, pro());
        assert_eq!(transition.open_for.is_some(), transition.to == State::Open);
        seen.push((transition.to, transition.reason));
    }
    assert!(matches!(seen[0], (State::Open, Reason::Tripped { failed: 2, requests: 2, .. })), "{seen:?}");
    let expected = [
        (State::HalfOpen, Reason::TimeForProbes),
        (State::Ramping, Reason::ProbeSucceeded),
        (State::Closed, Reason::Recovered),
        (State::ForcedOpen, Reason::Forced),
        (State::ForcedClosed, Reason::Forced),
        (State::Closed, Reason::Reset),
    ];
    assert_eq!(seen[1..], expected);
    drop((service, breakers));
    assert_eq!(transitions.next().await, None);
}

#[test]
fn settings_that_could_never_work_are_refused() {
    for (builder, words) in [
        (CircuitBreakers::builder().half_open_max_requests(0), "half_open_max_requests is 0"),
        (CircuitBreakers::builder().probe_lease(secs(0)), "probe_lease is 0"),
        (
            CircuitBreakers::builder().open_duration(secs(11)),
            "max_open_duration is 10s, less than open_duration, which is 11s",
        ),
        (
            CircuitBreakers::builder().trip(Trip::failure_rate(0.5, Window::Calls(5))),
            "minimum_requests is 10, and the window holds 5 calls",
        ),
        (
            CircuitBreakers::builder().trip(Trip::failure_rate(0.5, Window::Calls(20_000)).minimum_requests(10_001)),
            "the window holds 10000 calls",
        ),
        (CircuitBreakers::builder().trip(Trip::failure_rate(0.5, Window::Time(secs(0)))), "the window is 0 s"),
        (CircuitBreakers::builder().trip(Trip::failure_rate(f64::NAN, Window::Calls(20))), "threshold is NaN"),
    ] {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn for_ever_is_a_duration_too() {
    let ever = std::time::Duration::MAX;
    let (moody, breakers, service) = over(quick().max_open_duration(ever).open_duration(ever).probe_lease(ever));
    moody.is(Mood::Busy);
    while !is_refused(&service, GENERATE).await {}
    advance(secs(86_400)).await;
    assert_eq!(breakers.state(&pro()), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_disabled_one_lets_everything_through() {
    let upstream = Upstream::at_once(|_| Ok(busy()));
    let service = CircuitBreakerLayer::disabled().layer(upstream);
    for _ in 0..100 {
        assert_eq!(call(&service, GENERATE).await.unwrap().status(), 503);
    }
}

// === costs ===

#[test]
fn a_calm_breaker_allocates_nothing_and_a_refusal_once() {
    let answer =
        |_: Request<Full<Bytes>>| std::future::ready(Ok::<_, BoxError>(Response::new(Full::<Bytes>::default())));
    let breakers = CircuitBreakers::builder().build().unwrap();
    let mut service = CircuitBreakerLayer::new(breakers.clone()).layer(service_fn(answer));
    let mut ask = |uri: &str, fresh: bool| {
        let (request, mut clone) = (post(uri), service.clone());
        let service = if fresh { &mut clone } else { &mut service };
        let mut refused = false;
        let counted = allocation_counter::measure(|| refused = service.call(request).now_or_never().unwrap().is_err());
        (counted.count_total, refused)
    };
    let ways = [(GENERATE, false), (GENERATE, true), (FLASH, false), (FLASH, true), (COUNT, true)];
    for _ in 0..100 {
        assert!(ways.iter().all(|(uri, fresh)| !ask(uri, *fresh).1));
    }
    for _ in 0..1_000 {
        assert!(ways.iter().all(|(uri, fresh)| ask(uri, *fresh) == (0, false)));
    }
    breakers.force_open(&pro());
    ask(GENERATE, false);
    assert!((0..100).all(|nth| ask(GENERATE, nth % 2 == 0) == (1, true)));
}

#[tokio::test(start_paused = true)]
async fn a_window_by_calls_or_by_time_opens_by_its_rate_and_slides() {
    for window in [Window::Calls(20), Window::Time(secs(20))] {
        let trip = Trip::failure_rate(0.5, window).minimum_requests(10);
        let (moody, breakers, service) = over(CircuitBreakers::builder().trip(trip));
        for _ in 0..10_000 {
            call(&service, GENERATE).await.unwrap();
            advance(secs(1)).await;
        }
        moody.is(Mood::Busy);
        let mut failed = 0;
        while breakers.state(&pro()) == State::Closed {
            call(&service, GENERATE).await.unwrap();
            advance(secs(1)).await;
            failed += 1;
        }
        assert!((9..=10).contains(&failed), "{window:?}: {failed}");
    }
}

#[test]
fn a_scope_is_small() {
    const SCOPES: usize = 4_096;
    let answer =
        |_: Request<Full<Bytes>>| std::future::ready(Ok::<_, BoxError>(Response::new(Full::<Bytes>::default())));
    let breakers = CircuitBreakers::new();
    let mut service = CircuitBreakerLayer::new(breakers.clone()).layer(service_fn(answer));
    let counted = allocation_counter::measure(|| {
        for number in 0..SCOPES {
            service.call(post(&model(&format!("gemini-{number}")).1)).now_or_never().unwrap().unwrap();
        }
    });
    assert_eq!(breakers.snapshot().len(), SCOPES);
    let each = counted.bytes_current / SCOPES as i64;
    assert!(each < 1_250, "{each} bytes");
}

// === tiers ===

#[tokio::test(start_paused = true)]
async fn each_tier_of_a_model_has_a_breaker_of_its_own() {
    let breakers = quick().build().unwrap();
    let upstream = Upstream::new(|_, asked| async move {
        let is_flex = String::from_utf8_lossy(&asked.body).contains("flex");
        Ok(if is_flex { busy() } else { hello() })
    });
    let service = ServiceBuilder::new()
        .layer(ReplayLayer::new())
        .layer(CircuitBreakerLayer::new(breakers.clone()))
        .service(upstream.clone());
    let ask = |uri: &'static str, tier: &str| {
        let body = format!(r#"{{"model":"gemini-2.5-pro","contents":[],"service_tier":"{tier}"}}"#);
        service.clone().oneshot(post_body(uri, body))
    };
    let of = |tier: &str| Target::new(format!("gemini-2.5-pro{tier}"), "");
    while breakers.state(&of("@flex")) == State::Closed {
        let _ = ask(GENERATE, "flex").await;
        // The two are told apart although the path and the model are the same.
        for tier in ["standard", "priority"] {
            assert!(ask(GENERATE, tier).await.is_ok());
        }
    }
    let calls = upstream.calls();
    for uri in [GENERATE, STREAM, CHAT, "/v1beta/interactions"] {
        let error = ask(uri, "flex").await.unwrap_err();
        assert!(find(&error).is_circuit_open() && find(&error).failure().message().contains("gemini-2.5-pro@flex"));
    }
    assert_eq!(upstream.calls(), calls);
    for tier in ["", "@priority"] {
        assert_eq!(breakers.state(&of(tier)), State::Closed);
    }
    assert!(ask(COUNT, "flex").await.is_ok(), "what asks for no capacity has no tier");
    let gate = |name: &str| breakers.closed_for(&tower_gemini::quota::Scope::new("p", name));
    assert!(gate("gemini-2.5-pro@flex").is_some() && gate("gemini-2.5-pro").is_none());
    let mut names: Vec<_> = breakers.snapshot().iter().map(|(scope, _)| scope.model().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["", "gemini-2.5-pro", "gemini-2.5-pro@flex", "gemini-2.5-pro@priority"]);
}

#[test]
fn metrics_have_the_model_and_the_tier_apart() {
    use tower_gemini::observe::Observe;
    let breakers = CircuitBreakers::new();
    for name in ["gemini-2.5-pro", "gemini-2.5-pro@flex", "gemini-pro@001"] {
        breakers.force_open(&Target::new(name, "host"));
    }
    let mut open = Vec::new();
    breakers.observe(&mut |reading| {
        let label = |name: &str| reading.labels.iter().find(|(label, _)| *label == name).map(|(_, value)| *value);
        let is_state = reading.name == "tower_gemini.breaker.state" && label("state") == Some("forced_open");
        if is_state && label("server.address") == Some("host") {
            open.push((reading.model.to_owned(), label("tower_gemini.service_tier").map(str::to_owned)));
        }
    });
    open.sort();
    let right = [("gemini-2.5-pro", None), ("gemini-2.5-pro", Some("flex")), ("gemini-pro@001", None)];
    assert_eq!(open, right.map(|(model, tier)| (model.to_owned(), tier.map(str::to_owned))));
}

#[test]
fn a_description_names_both_numbers_by_which_a_silence_opens() {
    let described = |trip: Trip| {
        let breakers = CircuitBreakers::builder().trip(trip).build().unwrap();
        let stack = GeminiLayer::relay().breaker(CircuitBreakerLayer::new(breakers)).build().unwrap();
        stack.describe().to_string()
    };
    for (trip, words) in [
        (Trip::silence(), "opens after 10 failures, or 3 with 20 attempts, and 10s without a success, for 2s to 10s"),
        (Trip::silence().minimum_attempts(u32::MAX), "opens after 10 failures and 10s without a success"),
        (Trip::silence().minimum_requests(2), "opens after 2 failures and 10s without a success"),
    ] {
        let described = described(trip);
        assert!(described.contains(words), "{described}");
    }
}
