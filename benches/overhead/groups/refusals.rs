//! Calls that are refused, and calls that fail.

use tower::Layer;
use tower_gemini::{ErrorResponseLayer, GeminiLayer, RateLimitLayer, quota::Limits, rate_limit::Limiter};

use super::{ROOM, at_once, rooms::key, stacks};
use crate::{
    measure::{Bench, warm},
    peers::{Refusing, ThreeTries, Twice, governed, resilient_refusal, resilient_retry},
    upstream::Upstream,
};

/// Measures refusals of a limiter that is used up: as an error, and rendered as a 429.
pub(super) fn refusing(bench: &mut Bench<'_>) {
    let upstream = Upstream::unary();
    let mut group = bench.group("refusals", &upstream);
    group.refused("bare: an error without words", Refusing);
    let mut theirs = resilient_refusal().layer(upstream.clone());
    warm(&mut theirs, &upstream, 1);
    group.refused("tower_resilience::ratelimiter, an error", theirs);
    let mut theirs = governed(upstream.clone());
    warm(&mut theirs, &upstream, 1);
    group.refused("tower_governor, a 429", theirs);
    let mut refused = RateLimitLayer::new(used_up()).layer(upstream.clone());
    warm(&mut refused, &upstream, 1);
    group.refused("RateLimitLayer, an error", refused);
    let mut rendered = ErrorResponseLayer::new().layer(RateLimitLayer::new(used_up()).layer(upstream.clone()));
    warm(&mut rendered, &upstream, 1);
    group.refused("ErrorResponseLayer, RateLimitLayer, a 429", rendered);
    let stack = GeminiLayer::interactive().key(key(0)).limiter(Limiter::builder().limits(one()).reject());
    let stack = stack.build().expect("good settings").layer(upstream.clone());
    let mut stack = ErrorResponseLayer::new().layer(stack);
    warm(&mut stack, &upstream, 1);
    group.refused("ErrorResponseLayer, GeminiLayer, a 429", stack);
    group.measure();
}

/// Makes limits of one request a minute, and room in the other dimensions.
fn one() -> Limits {
    Limits::new().requests_per_minute(1).input_tokens_per_minute(ROOM).requests_per_day(ROOM)
}

fn used_up() -> Limiter {
    Limiter::builder().limits(one()).reject().build()
}

/// Measures a 503 that is followed by the answer, without a delay between the two.
pub(super) fn failing(bench: &mut Bench<'_>) {
    let upstream = Upstream::failing();
    let mut group = bench.group("503, then 200", &upstream);
    group.call("bare, twice", Twice(upstream.clone()));
    group.call("tower::retry", tower::retry::RetryLayer::new(ThreeTries(3)).layer(upstream.clone()));
    // Even a delay of zero is a timer, which takes at least one tick.
    group.call("tower_resilience::retry (a timer ran)", resilient_retry().layer(upstream.clone()));
    group.call("RetryLayer", at_once().layer(upstream.clone()));
    group.call("all five rooms", stacks::five(upstream));
    group.measure();
}
