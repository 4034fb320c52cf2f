//! The laws of DESIGN.md, held by every room they bind.
//!
//! A room is one entry in `rooms!` below: its name, the body that it sends inward, and a layer. Each test names the law
//! that it holds. Time is paused throughout.

mod contract {
    pub(crate) mod bounds;
    pub(crate) mod cancellation;
    pub(crate) mod clock;
    pub(crate) mod deadline;
    pub(crate) mod encoding;
    pub(crate) mod readiness;
    pub(crate) mod room;
    pub(crate) mod secrets;
    pub(crate) mod shape;
    pub(crate) mod streaming;
    pub(crate) mod tasks;
}
mod support;

use bytes::Bytes;
use http_body_util::Full;
use tower_gemini::{
    CircuitBreakerLayer, ClassifyLayer, ErrorResponseLayer, RateLimitLayer, ReplayLayer, RetryLayer, RetryPolicy,
    TimeoutLayer,
    body::ReplayBody,
    circuit_breaker::{Breakers, Trip},
    quota::Limits,
    rate_limit::{Limiter, Pacing},
    replay::Oversize,
};

use crate::contract::room::rooms;

rooms! {
    classify: Full<Bytes> => ClassifyLayer::new();
    classify_without_holding: Full<Bytes> => ClassifyLayer::new().hold_answers(false);
    circuit_breaker: Full<Bytes> => CircuitBreakerLayer::default();
    circuit_breaker_for_all: Full<Bytes> => CircuitBreakerLayer::new(Breakers::builder().one_for_all().trip(Trip::consecutive(1)).build().unwrap());
    circuit_breaker_disabled: Full<Bytes> => CircuitBreakerLayer::disabled();
    classify_disabled: Full<Bytes> => ClassifyLayer::disabled();
    replay: ReplayBody<Full<Bytes>> => ReplayLayer::new();
    replay_streaming: ReplayBody<Full<Bytes>> => ReplayLayer::new().max_body(4);
    replay_without_memory: ReplayBody<Full<Bytes>> => ReplayLayer::new().max_total(0).oversize(Oversize::Refuse);
    retry: Full<Bytes> => RetryLayer::default();
    retry_persistent: Full<Bytes> => RetryLayer::new(RetryPolicy::persistent());
    retry_disabled: Full<Bytes> => RetryLayer::disabled();
    timeout_total: Full<Bytes> => TimeoutLayer::total(TimeoutLayer::TOTAL);
    timeout_attempt: Full<Bytes> => TimeoutLayer::attempt(TimeoutLayer::ATTEMPT);
    timeout_disabled: Full<Bytes> => TimeoutLayer::disabled();
    rate_limit: Full<Bytes> => RateLimitLayer::new(Limiter::new());
    rate_limit_with_room: Full<Bytes> => RateLimitLayer::new(paced(1_000));
    rate_limit_queueing: Full<Bytes> => RateLimitLayer::new(paced(2));
    rate_limit_disabled: Full<Bytes> => RateLimitLayer::disabled();
    error_response: Full<Bytes> => ErrorResponseLayer::new();
}

/// Room for all that a test asks, and this many at once; the others wait for each other, for 60 ms.
fn paced(burst: u32) -> Limiter {
    let limits = Limits::new().requests_per_minute(1_000).input_tokens_per_minute(100_000).requests_per_day(10_000);
    let burst = std::num::NonZeroU32::new(burst).unwrap();
    Limiter::builder().limits(limits).pacing(Pacing::Smooth { burst }).build()
}
