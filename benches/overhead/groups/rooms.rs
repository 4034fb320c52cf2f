//! Each room alone, beside its peers.

use tower::{Layer, ServiceBuilder};
use tower_gemini::{
    CallerLimitLayer, CircuitBreakerLayer, ClassifyLayer, ErrorResponseLayer, KeepAliveLayer, KeyPoolLayer,
    ModelFallbackLayer, RateLimitLayer, ReplayLayer, RetryLayer, RetryPolicy, TimeoutLayer, TokenPrecheckLayer,
    caller_limit::{CallerLimits, CallerQuota},
    circuit_breaker::{CircuitBreakers, Trip, Window},
    key_pool::{ApiKey, Key, KeyPool, KeyPoolBuilder},
    model_fallback::FallbackChains,
    models::ModelTable,
};
use tower_http::timeout::TimeoutLayer as HttpTimeoutLayer;
use tower_resilience::circuitbreaker::CircuitBreakerLayer as ResilientBreakerLayer;

use super::{LIMIT, ROOM, limiter, stacks};
use crate::{
    measure::{Bench, warm},
    peers::{
        Cloned, Failsafe, Never, Reclosed, ThreeTries, belted_breaker, belted_retry, belted_timeout, resilient_limiter,
        resilient_retry, time_limiter, tower_timeout,
    },
    upstream::{Later, Upstream},
};

/// Measures an answer in one piece.
pub(super) fn unary(bench: &mut Bench<'_>) {
    let upstream = Upstream::unary();
    let mut group = bench.group("unary", &upstream);
    group.call("bare", upstream.clone());
    group.call("tower::timeout", tower_timeout().layer(upstream.clone()));
    group.call("tower_http::timeout", http_timeout().layer(upstream.clone()));
    group.call("tower_resilience::timelimiter", time_limiter(upstream.clone()));
    group.call("seatbelt::timeout", belted_timeout(upstream.clone()));
    group.call("TimeoutLayer::attempt", TimeoutLayer::attempt(LIMIT).layer(upstream.clone()));
    group.call("TimeoutLayer::total", TimeoutLayer::total(LIMIT).layer(upstream.clone()));
    group.call("tower::retry", tower::retry::RetryLayer::new(ThreeTries(3)).layer(upstream.clone()));
    group.call("tower_resilience::retry", resilient_retry().layer(upstream.clone()));
    group.call("seatbelt::retry", belted_retry(upstream.clone()));
    group.call("RetryLayer", RetryLayer::default().layer(upstream.clone()));
    group.call("ClassifyLayer", ClassifyLayer::new().layer(upstream.clone()));
    group.call("ReplayLayer", ReplayLayer::new().layer(upstream.clone()));
    group.call("ErrorResponseLayer", ErrorResponseLayer::new().layer(upstream.clone()));
    group.call("KeepAliveLayer", KeepAliveLayer::new(LIMIT).layer(upstream.clone()));
    let theirs = ServiceBuilder::new().timeout(LIMIT).retry(ThreeTries(3)).timeout(LIMIT).service(upstream.clone());
    group.call("tower: timeout, retry, timeout", theirs);
    group.call("all five rooms", stacks::five(upstream));
    group.measure();
}

/// Measures clocks over an answer that is not there at the first poll, so that a timer is set and taken back.
pub(super) fn pending(bench: &mut Bench<'_>) {
    let upstream = Upstream::unary();
    let mut group = bench.group("pending once", &upstream);
    let later = Later(upstream);
    group.call("bare", later.clone());
    group.call("tower::timeout", tower_timeout().layer(later.clone()));
    group.call("tower_http::timeout", http_timeout().layer(later.clone()));
    group.call("tower_resilience::timelimiter", time_limiter(later.clone()));
    group.call("seatbelt::timeout", belted_timeout(later.clone()));
    group.call("TimeoutLayer::attempt", TimeoutLayer::attempt(LIMIT).layer(later.clone()));
    group.call("TimeoutLayer::total", TimeoutLayer::total(LIMIT).layer(later));
    group.measure();
}

/// Makes tower-http's clock, which answers 504 by itself.
fn http_timeout() -> HttpTimeoutLayer {
    HttpTimeoutLayer::with_status_code(http::StatusCode::GATEWAY_TIMEOUT, LIMIT)
}

/// Measures retries that never send again: the request is not kept.
pub(super) fn never_resending(bench: &mut Bench<'_>) {
    let upstream = Upstream::unary();
    let mut group = bench.group("retries that never resend", &upstream);
    group.call("bare", upstream.clone());
    group.call("tower::retry", tower::retry::RetryLayer::new(Never).layer(upstream.clone()));
    group.call("RetryLayer", RetryLayer::new(RetryPolicy::never()).layer(upstream.clone()));
    group.call("RetryLayer::disabled", RetryLayer::disabled().layer(upstream));
    group.measure();
}

/// Measures a limiter that always has room, in three dimensions; the peer's counts one.
pub(super) fn limiting(bench: &mut Bench<'_>) {
    let upstream = Upstream::unary();
    let mut group = bench.group("rate limits", &upstream);
    group.call("bare", upstream.clone());
    group.call("tower_resilience::ratelimiter", resilient_limiter().layer(upstream.clone()));
    group.call("RateLimitLayer", RateLimitLayer::new(limiter()).layer(upstream.clone()));
    group.call("RateLimitLayer, a clone a call", Cloned(RateLimitLayer::new(limiter()).layer(upstream.clone())));
    group.call("RateLimitLayer::disabled", RateLimitLayer::disabled().layer(upstream));
    group.measure();
}

/// Measures a pool of good keys: of one, and of one for each of five projects, between which the limiter's headroom decides.
pub(super) fn pooling(bench: &mut Bench<'_>) {
    let upstream = Upstream::unary();
    let mut group = bench.group("key pools", &upstream);
    group.call("bare", upstream.clone());
    group.call("KeyPoolLayer, 1 key", KeyPoolLayer::new(proven(keys(1), &upstream)).layer(upstream.clone()));
    group.call("KeyPoolLayer, 5 projects", KeyPoolLayer::new(proven(keys(5), &upstream)).layer(upstream.clone()));
    let limiter = limiter();
    let five = proven(keys(5).headroom(limiter.clone()), &upstream);
    group.call("KeyPoolLayer, 5 projects, headroom", KeyPoolLayer::new(five.clone()).layer(upstream.clone()));
    let limited = RateLimitLayer::new(limiter).layer(upstream.clone());
    group.call("KeyPoolLayer, 5 projects, RateLimitLayer", KeyPoolLayer::new(five.clone()).layer(limited));
    group.call("ReplayLayer", ReplayLayer::new().layer(upstream.clone()));
    let inside = KeyPoolLayer::new(five).layer(upstream.clone());
    group.call("ReplayLayer, KeyPoolLayer, 5 projects, headroom", ReplayLayer::new().layer(inside));
    group.call("KeyPoolLayer::disabled", KeyPoolLayer::disabled().layer(upstream));
    group.measure();
}

/// Makes a pool of one key for each of this many projects.
fn keys(projects: usize) -> KeyPoolBuilder {
    // The calls are all alike, and would stay with the projects that had the first of them: the others' keys would not be proven.
    (0..projects).fold(KeyPool::builder().cache_affinity(None), |pool, nth| pool.key(key(nth)))
}

/// Makes the key of a project.
pub(super) fn key(nth: usize) -> Key {
    Key::new(ApiKey::new(format!("AIza-nobodys-{nth}")).expect("a good key")).project(format!("p{nth}"))
}

/// Makes a pool whose keys have all been used with success.
fn proven(pool: KeyPoolBuilder, upstream: &Upstream) -> KeyPool {
    let pool = pool.build().expect("good keys");
    warm(&mut KeyPoolLayer::new(pool.clone()).layer(upstream.clone()), upstream, 100);
    pool
}

/// Measures a breaker that is closed, over an upstream that answers: on one thread, and on two threads that share it.
pub(super) fn breaking(bench: &mut Bench<'_>) {
    let upstream = Upstream::unary();
    let mut group = bench.group("circuit breakers", &upstream);
    group.call("bare", upstream.clone());
    let (theirs, _) = ResilientBreakerLayer::builder().build_with_handle().expect("good settings");
    let ours = CircuitBreakerLayer::new(breakers(&upstream, Trip::default()));
    group.call("tower_resilience::circuitbreaker", theirs.layer(upstream.clone()));
    group.call("recloser", Reclosed::new(upstream.clone()));
    group.call("failsafe", Failsafe::around(upstream.clone()));
    group.call("seatbelt::breaker", belted_breaker(upstream.clone()));
    group.call("CircuitBreakerLayer", ours.layer(upstream.clone()));
    group.call("CircuitBreakerLayer, a clone a call", Cloned(ours.layer(upstream.clone())));
    let by_rate = Trip::failure_rate(0.5, Window::Calls(100));
    let by_rate = CircuitBreakerLayer::new(breakers(&upstream, by_rate));
    group.call("CircuitBreakerLayer, failure rate", by_rate.layer(upstream.clone()));
    group.call("CircuitBreakerLayer::disabled", CircuitBreakerLayer::disabled().layer(upstream.clone()));
    group.measure();

    let mut group = bench.group("circuit breakers, threads", &upstream);
    let reclosed = Reclosed::new(upstream.clone());
    for (threads, [bare, resilient, recloser, own]) in [
        (
            1,
            [
                "bare, one thread",
                "tower_resilience, one thread",
                "recloser, one thread",
                "CircuitBreakerLayer, one thread",
            ],
        ),
        (
            2,
            [
                "bare, two threads",
                "tower_resilience, two threads",
                "recloser, two threads",
                "CircuitBreakerLayer, two threads",
            ],
        ),
    ] {
        group.threads(bare, threads, || upstream.apart());
        group.threads(resilient, threads, || theirs.layer(upstream.apart()));
        group.threads(recloser, threads, || reclosed.beside(upstream.apart()));
        let service = ours.layer(upstream.apart());
        group.threads(own, threads, || {
            let mut clone = service.clone();
            *clone.get_mut() = upstream.apart();
            clone
        });
    }
    group.measure();
}

/// Makes circuit breakers that have seen enough successes to be stable.
fn breakers(upstream: &Upstream, trip: Trip) -> CircuitBreakers {
    let breakers = CircuitBreakers::builder().trip(trip).build().expect("good settings");
    warm(&mut CircuitBreakerLayer::new(breakers.clone()).layer(upstream.clone()), upstream, 100);
    breakers
}

/// Measures a first choice that answers, for models without a chain and with one.
pub(super) fn falling_back(bench: &mut Bench<'_>) {
    let upstream = Upstream::unary();
    let mut group = bench.group("fallbacks", &upstream);
    let chains =
        |model| FallbackChains::builder().chain(model, ["gemini-2.5-flash-lite"]).build().expect("good settings");
    group.call("bare", upstream.clone());
    group.call(
        "ModelFallbackLayer, no chain",
        ModelFallbackLayer::new(chains("gemini-2.5-pro")).layer(upstream.clone()),
    );
    group.call("ModelFallbackLayer", ModelFallbackLayer::new(chains("gemini-2.5-flash")).layer(upstream.clone()));
    group.call("RetryLayer", RetryLayer::default().layer(upstream.clone()));
    group.call("ModelFallbackLayer::disabled", ModelFallbackLayer::disabled().layer(upstream));
    group.measure();
}

/// Measures the rooms that look at a request before it is sent.
pub(super) fn checking(bench: &mut Bench<'_>) {
    let upstream = Upstream::unary();
    let mut group = bench.group("checks", &upstream);
    group.call("bare", upstream.clone());
    // The check reads a body that the replay has.
    group.call("bare: ReplayLayer", ReplayLayer::new().layer(upstream.clone()));
    let checked = TokenPrecheckLayer::new(ModelTable::default()).layer(upstream.clone());
    group.call("TokenPrecheckLayer", ReplayLayer::new().layer(checked));
    let off = TokenPrecheckLayer::disabled().layer(upstream.clone());
    group.call("TokenPrecheckLayer::disabled", ReplayLayer::new().layer(off));
    let limits = CallerLimits::builder().others(CallerQuota::new().requests_per_minute(ROOM));
    let limited = CallerLimitLayer::new(limits.build().expect("good settings")).layer(upstream);
    group.call("CallerLimitLayer", ReplayLayer::new().layer(limited));
    group.measure();
}
