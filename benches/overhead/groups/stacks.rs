//! Rooms together: the five, the four of tower-resilience's kind, and the whole stack.

use std::convert::Infallible;

use bytes::Bytes;
use http::Response;
use http_body::Body;
use tower::{Layer, Service, ServiceBuilder};
use tower_gemini::{
    BoxError, CircuitBreakerLayer, ClassifyLayer, ErrorResponseLayer, GeminiLayer, RateLimitLayer, ReplayLayer,
    RetryLayer, TimeoutLayer, circuit_breaker::CircuitBreakers, stack::GeminiBuilder,
};

use super::{LIMIT, at_once, limiter, limits, limits_of_requests, rooms::key};
use crate::{
    measure::{Bench, warm},
    peers::resilient_four,
    upstream::{Sent, Upstream},
};

/// The length of a request's body, where the whole stack is measured.
const ASKED: usize = 1024;

/// Makes the five rooms: errors as answers, the clocks of the call and of an attempt, replay, retry, and the verdict.
pub(super) fn five(upstream: Upstream) -> impl Service<Sent, Response = Response<impl Body>, Error = Infallible> {
    ServiceBuilder::new()
        .layer(ErrorResponseLayer::new())
        .layer(TimeoutLayer::total(TimeoutLayer::TOTAL))
        .layer(ReplayLayer::new())
        .layer(at_once())
        .layer(TimeoutLayer::attempt(LIMIT))
        .layer(ClassifyLayer::new())
        .service(upstream)
}

/// Measures the four rooms that tower-resilience has, too, in the same order.
pub(super) fn four(bench: &mut Bench<'_>) {
    let upstream = Upstream::unary();
    let mut group = bench.group("four: retry, rate, breaker, timeout", &upstream);
    group.call("bare", upstream.clone());
    group.call("tower_resilience", resilient_four(upstream.clone()));
    let breakers = CircuitBreakers::builder().build().expect("good settings");
    let ours = ServiceBuilder::new()
        .layer(RetryLayer::default())
        .layer(RateLimitLayer::new(limiter()))
        .layer(CircuitBreakerLayer::new(breakers))
        .layer(TimeoutLayer::attempt(LIMIT))
        .service(upstream);
    group.call("tower_gemini", ours);
    group.measure();
}

/// Measures the whole stack, with 1 KiB of request: as a preset makes it, and with a key, limits and a chain.
///
/// A limit of tokens makes the stack count those of each call, in a time that grows with the text; so rows of their own have it.
pub(super) fn gemini(bench: &mut Bench<'_>) {
    let upstream = Upstream::unary().asked(ASKED);
    let mut group = bench.group("GeminiLayer", &upstream);
    group.call("bare", upstream.clone());
    group.call("all five rooms", five(upstream.clone()));
    for (name, preset) in [("interactive", GeminiLayer::interactive()), ("relay", GeminiLayer::relay())] {
        group.call(name, gemini_of(preset, &upstream));
    }
    for (name, preset) in [
        ("interactive; key, limits of requests, chain", equipped(GeminiLayer::interactive())),
        (
            "interactive; key, limits of requests and tokens, chain",
            equipped(GeminiLayer::interactive()).limits(limits()),
        ),
        ("relay; key, limits of requests, chain", equipped(GeminiLayer::relay())),
        ("relay; key, limits of requests and tokens, chain", equipped(GeminiLayer::relay()).limits(limits())),
    ] {
        group.call(name, gemini_of(preset, &upstream));
    }
    group.call("ErrorResponseLayer; interactive; key, limits of requests, chain", outermost(upstream));
    group.measure();
}

/// Measures the whole stack on one thread, and on two threads that share its state.
pub(super) fn threads(bench: &mut Bench<'_>) {
    let upstream = Upstream::unary().asked(ASKED);
    let mut group = bench.group("GeminiLayer, threads", &upstream);
    let layer = equipped(GeminiLayer::interactive()).build().expect("good settings");
    for (threads, [bare, stack]) in [(1, ["bare, one thread", "one thread"]), (2, ["bare, two threads", "two threads"])]
    {
        group.threads(bare, threads, || upstream.apart());
        group.threads(stack, threads, || {
            let mut service = layer.layer(upstream.apart());
            warm(&mut service, &upstream, 100);
            service
        });
    }
    group.measure();
}

/// Adds a key, limits of requests, and a chain of two models.
fn equipped(preset: GeminiBuilder) -> GeminiBuilder {
    preset.key(key(0)).limits(limits_of_requests()).fallback("gemini-2.5-flash", ["gemini-2.5-flash-lite"])
}

/// Makes a stack that has answered often enough to be in its steady state.
fn gemini_of(
    preset: GeminiBuilder,
    upstream: &Upstream,
) -> impl Service<Sent, Response = Response<impl Body + use<>>> + use<> {
    let mut service = preset.build().expect("good settings").layer(upstream.clone());
    warm(&mut service, upstream, 100);
    service
}

/// Makes all rooms but `KeepAliveLayer`: the whole stack, and outside of it the one that makes answers of errors.
pub(super) fn outermost(
    upstream: Upstream,
) -> impl Service<Sent, Response = Response<impl Body<Data = Bytes, Error: Into<BoxError>>>, Error = Infallible, Future: Send>
{
    let stack = equipped(GeminiLayer::interactive()).build().expect("good settings");
    let mut service = ErrorResponseLayer::new().layer(stack.layer(upstream.clone()));
    warm(&mut service, &upstream, 100);
    service
}
