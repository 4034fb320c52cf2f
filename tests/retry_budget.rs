//! `RetryLayer` under load, in virtual time: its budget delays and does not discard, no overload outlives its cause, and a
//! limiter's refusal is told at once.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Response;
use support::*;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::{
    BoxError, CallContext, GeminiLayer, Outcome, RateLimitLayer, RetryBudget, RetryLayer, RetryPolicy,
    context::{Deadline, GaveUp, RetryAdvice},
    failure::Kind,
    quota::Limits,
    rate_limit::Limiter,
};

/// The time that an answer takes.
const SERVICE: Duration = Duration::from_secs(5);
/// The time that a refusal takes.
const SHED: Duration = Duration::from_millis(200);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Makes an upstream that refuses this share of all calls, at random.
fn sheds(share: f64) -> Upstream {
    Upstream::new(move |_, _| async move {
        if fastrand::f64() < share {
            sleep(SHED).await;
            return Ok(busy());
        }
        sleep(SERVICE).await;
        Ok(hello())
    })
}

/// Makes an upstream that has room for so many calls at a time, and refuses more.
fn with_room(room: usize) -> Upstream {
    let inside = Arc::new(AtomicUsize::new(0));
    Upstream::new(move |_, _| {
        let inside = inside.clone();
        async move {
            if inside.load(Ordering::Relaxed) >= room {
                sleep(SHED).await;
                return Ok(busy());
            }
            let _place = Counted::new(inside);
            sleep(SERVICE).await;
            Ok(hello())
        }
    })
}

/// A call that is over.
#[derive(Debug)]
struct CallEnd {
    arrived: Duration,
    took: Duration,
    is_answered: bool,
    /// `false`: it took more than one attempt.
    at_first: bool,
}

/// Makes calls at these times, each of which is `allowed` so much time, and returns them by their arrival.
async fn ends(
    policy: RetryPolicy,
    allowed: Duration,
    upstream: &Upstream,
    at: impl Iterator<Item = Duration>,
) -> Vec<CallEnd> {
    // One seed for all randomness, so that a run can be repeated.
    fastrand::seed(15);
    let layer = RetryLayer::new(policy);
    let began = Instant::now();
    let mut calls = JoinSet::new();
    for arrived in at {
        let service = layer.layer(upstream.clone());
        calls.spawn(async move {
            sleep_until(began + arrived).await;
            let mut request = post(GENERATE);
            let deadline = Deadline::after(allowed);
            CallContext::update(request.extensions_mut(), |context| context.tighten_deadline(deadline));
            let since = Instant::now();
            let result = tokio::time::timeout(allowed, service.oneshot(request)).await;
            let result: Result<Response<AnyBody>, BoxError> = result.unwrap_or_else(|late| Err(late.into()));
            let is_answered = result.as_ref().is_ok_and(|response| response.status() == OK);
            // Of a first answer that needs no word, none is said.
            let at_first = is_answered && Outcome::of(&result).attempts() <= 1;
            CallEnd { arrived, took: since.elapsed(), is_answered, at_first }
        });
    }
    let mut ends = calls.join_all().await;
    ends.sort_by_key(|call| call.arrived);
    ends
}

fn share<'a>(calls: impl IntoIterator<Item = &'a CallEnd>, is_so: impl Fn(&CallEnd) -> bool) -> f64 {
    let calls: Vec<_> = calls.into_iter().collect();
    calls.iter().filter(|call| is_so(call)).count() as f64 / calls.len() as f64
}

fn answered(calls: &[CallEnd]) -> f64 {
    share(calls, |call| call.is_answered)
}

fn p99(calls: &[CallEnd]) -> Duration {
    let mut took: Vec<_> = calls.iter().map(|call| call.took).collect();
    took.sort();
    took[took.len() * 99 / 100]
}

/// Returns the times of calls that come so often a second, for so many seconds.
fn per_second(rate: f64, seconds: f64) -> impl Iterator<Item = Duration> {
    (0..(rate * seconds) as u32).map(move |nth| Duration::from_secs_f64(f64::from(nth) / rate))
}

// === the budget ===

#[tokio::test(start_paused = true)]
async fn of_a_burst_that_is_partly_refused_every_call_is_answered() {
    for (calls, refused, longest) in [(500, 0.3, 15), (2_000, 0.3, 15), (500, 0.5, 60)] {
        let at_once = std::iter::repeat_n(Duration::ZERO, calls);
        let ends = ends(RetryPolicy::persistent(), HOUR, &sheds(refused), at_once).await;
        assert_eq!(answered(&ends), 1.0, "{calls} at once, {refused} refused");
        assert!(p99(&ends) < secs(longest), "{calls} at once, {refused} refused: {:?}", p99(&ends));
    }
}

#[tokio::test(start_paused = true)]
async fn while_most_attempts_are_refused_for_minutes_calls_are_late_and_not_lost() {
    let upstream = sheds(0.7);
    let with_budget = ends(RetryPolicy::persistent(), HOUR, &upstream, per_second(10.0, 300.0)).await;
    assert!(answered(&with_budget) >= 0.999, "{}", answered(&with_budget));
    // A policy without a budget is the fastest there is with these backoffs.
    let without = ends(RetryPolicy::persistent().budget(None), HOUR, &sheds(0.7), per_second(10.0, 300.0)).await;
    assert!(p99(&with_budget) <= 8 * p99(&without), "{:?} and {:?}", p99(&with_budget), p99(&without));
}

#[tokio::test(start_paused = true)]
async fn a_person_who_waits_is_answered_within_a_minute() {
    for (refused, at_least) in [(0.3, 0.999), (0.5, 0.995)] {
        let ends = ends(RetryPolicy::interactive(), secs(60), &sheds(refused), per_second(1.0, 2_000.0)).await;
        assert!(answered(&ends) >= at_least, "{} at {refused}", answered(&ends));
        assert!(p99(&ends) <= secs(20), "{:?} at {refused}", p99(&ends));
    }
}

#[tokio::test(start_paused = true)]
async fn an_overload_ends_with_its_cause() {
    const CAPACITY: f64 = 10.0;
    let presets: [(_, fn() -> RetryPolicy, _, _); 3] = [
        ("default", RetryPolicy::default, secs(285), RetryBudget::CAPACITY),
        ("interactive", RetryPolicy::interactive, secs(60), RetryBudget::CAPACITY),
        ("persistent", RetryPolicy::persistent, HOUR, RetryBudget::PERSISTENT_CAPACITY),
    ];
    for (name, policy, allowed, budget) in presets {
        // The upstream has room for what comes in 5 s. For two minutes there comes a fifth more, and then three tenths less.
        let upstream = with_room((CAPACITY * SERVICE.as_secs_f64()) as usize);
        let began = Instant::now();
        let after = per_second(0.7 * CAPACITY, 180.0).map(|at| at + secs(120));
        let ends = ends(policy(), allowed, &upstream, per_second(1.2 * CAPACITY, 120.0).chain(after)).await;
        assert!(answered(&ends) >= 0.97, "{name}: {}", answered(&ends));
        // During the overload, too, no retry was made without a token: the budget, what grows back, and one for a success.
        let most = ends.iter().filter(|call| call.arrived < secs(120)).count() as f64
            + CAPACITY * 120.0
            + f64::from(budget) * (1.0 + 1.2);
        let during = upstream.asked().iter().filter(|asked| asked.at < began + secs(120)).count() as f64;
        assert!(during <= most, "{name}: {during} attempts of at most {most}");
        // The backlog is 24 s of capacity, and 0.3 of the capacity is free: 80 s. Calls that come 20 s after
        // the overload are all answered meanwhile, and soon all at first.
        let from = |second| ends.iter().filter(move |call| call.arrived >= secs(second));
        assert!(share(from(140), |call| call.is_answered) == 1.0, "{name}");
        assert!(share(from(140), |call| call.took <= secs(60)) == 1.0, "{name}");
        assert!(share(from(220), |call| call.at_first) == 1.0, "{name}: still overloaded");
        // No retry was made without a token: a hundredth of the budget a second, and one for each success.
        let most = ends.len() + ends.iter().filter(|call| call.is_answered).count() + budget as usize * 4;
        assert!(upstream.calls() <= most, "{name}: {} calls", upstream.calls());
    }
}

/// Makes a call with this name of the caller, and returns its end.
async fn ends_of<S, R>(service: S, caller: &'static str) -> CallEnd
where
    S: Service<http::Request<http_body_util::Full<bytes::Bytes>>, Response = Response<R>, Error = BoxError>,
{
    let mut request = post(GENERATE);
    CallContext::update(request.extensions_mut(), |context| context.set_caller(caller));
    let since = Instant::now();
    let result = service.oneshot(request).await;
    let is_answered = result.is_ok_and(|response| response.status() == OK);
    CallEnd { arrived: Duration::ZERO, took: since.elapsed(), is_answered, at_first: false }
}

fn median(calls: &[CallEnd]) -> Duration {
    let mut took: Vec<_> = calls.iter().map(|call| call.took).collect();
    took.sort();
    took[took.len() / 2]
}

#[tokio::test(start_paused = true)]
async fn a_call_with_another_model_left_goes_there_at_once_where_there_is_no_token() {
    fastrand::seed(15);
    let upstream = Upstream::new(|_, asked| async move {
        let is_first = asked.uri.path().contains("pro");
        sleep(if is_first { SHED } else { secs(2) }).await;
        Ok(if is_first { busy() } else { hello() })
    });
    for policy in [RetryPolicy::default(), RetryPolicy::interactive()] {
        let layer = GeminiLayer::relay().retry(policy).fallback("gemini-2.5-pro", ["gemini-2.5-flash"]);
        let service = layer.build().unwrap().layer(upstream.clone());
        let calls = (0..500).map(|_| ends_of(service.clone(), "caller"));
        let ends = futures_util::future::join_all(calls).await;
        assert_eq!(answered(&ends), 1.0);
        assert!(p99(&ends) <= secs(10), "{:?}", p99(&ends));
    }
}

#[tokio::test(start_paused = true)]
async fn a_callers_burst_is_answered_and_delays_no_other() {
    fastrand::seed(15);
    let service = GeminiLayer::relay().build().unwrap().layer(sheds(0.7));
    let heavy = futures_util::future::join_all((0..2_000).map(|_| ends_of(service.clone(), "heavy")));
    let light = futures_util::future::join_all((0..40).map(|nth| {
        let service = service.clone();
        async move {
            sleep(secs(2) * nth).await;
            ends_of(service, "light").await
        }
    }));
    let (heavy, light) = tokio::join!(heavy, light);
    assert!(answered(&heavy) >= 0.995, "{}", answered(&heavy));
    assert_eq!(answered(&light), 1.0);
    assert!(median(&light) <= secs(10), "{:?}", median(&light));
}

// === refusals of the limiter ===

/// Makes two calls, which use a limit of two.
async fn used_up<S>(service: &S)
where
    S: Service<http::Request<http_body_util::Full<bytes::Bytes>>, Response: std::fmt::Debug, Error: Into<BoxError>>
        + Clone,
{
    for _ in 0..2 {
        service.clone().oneshot(post(GENERATE)).await.map_err(Into::into).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_the_longest_wait_is_told_at_once() {
    let limits = Limits::new().requests_per_minute(2);
    let limiter = Limiter::builder().limits(limits).max_wait(secs(1)).build();
    for policy in [RetryPolicy::default(), RetryPolicy::persistent(), RetryPolicy::interactive()] {
        let upstream = Upstream::at_once(|_| Ok(hello()));
        let layers = ServiceBuilder::new().layer(RetryLayer::new(policy)).layer(RateLimitLayer::new(limiter.clone()));
        let service = layers.service(upstream.clone());
        used_up(&service).await;
        let began = Instant::now();
        let error = service.oneshot(post(GENERATE)).await.unwrap_err();
        assert!(began.elapsed() <= millis(50), "{:?}", began.elapsed());
        let (error, calls) = (find(&error), upstream.calls());
        assert_eq!((error.failure().kind(), error.failure().code().as_u16(), calls), (Kind::RateLimited, 429, 2));
        // With the wait that would have been needed: a whole window.
        let needed = error.retry_after().unwrap();
        assert!((secs(58)..=secs(62)).contains(&needed), "{needed:?}");
        assert_eq!(error.outcome().gave_up(), Some(GaveUp::Wait));
        assert_ne!(error.outcome().retry(), Some(RetryAdvice::Never));
        tokio::time::advance(secs(70)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_five_hundred_calls_on_a_used_window_each_refusal_is_told_at_once() {
    let upstream = Upstream::new(|_, _| async {
        sleep(millis(10)).await;
        Ok(hello())
    });
    let layer = GeminiLayer::interactive().limits(Limits::new().requests_per_minute(2)).build().unwrap();
    let service = layer.layer(upstream.clone());
    used_up(&service).await;
    let calls = (0..500).map(|_| {
        let service = service.clone();
        async move {
            let began = Instant::now();
            let result = service.oneshot(post(GENERATE)).await;
            (began.elapsed(), result.map_err(|error| find(&error).failure().kind()).err())
        }
    });
    for (took, kind) in futures_util::future::join_all(calls).await {
        assert!(took <= millis(50) && kind == Some(Kind::RateLimited), "{kind:?} after {took:?}");
    }
    assert_eq!(upstream.calls(), 2);
}
