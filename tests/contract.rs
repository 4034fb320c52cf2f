//! The ten laws of CONTRIBUTING.md, held by every room that they bind.
//!
//! A room is one entry in `rooms!` below: its name, the body that it sends inward, and a layer. Each test names the law
//! that it holds. Time is paused throughout.

mod contract {
    pub(crate) mod bounds;
    pub(crate) mod cancellation;
    pub(crate) mod clock;
    pub(crate) mod deadline;
    pub(crate) mod encoding;
    pub(crate) mod named;
    pub(crate) mod readiness;
    pub(crate) mod room;
    pub(crate) mod secrets;
    pub(crate) mod shape;
    pub(crate) mod streaming;
    pub(crate) mod tasks;
}
mod support;

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_gemini::{
    CallerLimitLayer, CircuitBreakerLayer, ClassifyLayer, ErrorResponseLayer, KeepAliveLayer, KeyPoolLayer,
    ModelFallbackLayer, RateLimitLayer, ReplayLayer, RetryLayer, RetryPolicy, TelemetryLayer, TimeoutLayer,
    TokenPrecheckLayer,
    body::ReplayBody,
    caller_limit::{CallerLimits, CallerLimitsBuilder, CallerQuota, PastLimit},
    circuit_breaker::{CircuitBreakers, Trip, Window},
    key_pool::{ApiKey, Key, KeyPool},
    model_fallback::FallbackChains,
    prices::{Money, Price, Prices},
    quota::{Closing, Correction, Limits, MemoryStore, Question, QuotaStore, Reply, Scope, StoreCharge},
    rate_limit::{Limiter, Pacing},
    replay::Oversize,
    service_times::ServiceTimes,
};

use crate::{
    contract::{named::NamedLayer, room::rooms},
    support::{KEY, Upstream, busy, post},
};

rooms! {
    classify: Full<Bytes> => ClassifyLayer::new();
    classify_without_holding: Full<Bytes> => ClassifyLayer::new().hold_answers(false);
    circuit_breaker: Full<Bytes> => CircuitBreakerLayer::default();
    circuit_breaker_counting: Full<Bytes> => CircuitBreakerLayer::new(counting());
    circuit_breaker_probing: Full<Bytes> => CircuitBreakerLayer::new(probing());
    circuit_breaker_disabled: Full<Bytes> => CircuitBreakerLayer::disabled();
    classify_disabled: Full<Bytes> => ClassifyLayer::disabled();
    replay: ReplayBody<Full<Bytes>> => ReplayLayer::new();
    replay_streaming: ReplayBody<Full<Bytes>> => ReplayLayer::new().max_body(4);
    replay_without_memory: ReplayBody<Full<Bytes>> => ReplayLayer::new().max_total(0).oversize(Oversize::Refuse);
    retry: Full<Bytes> => RetryLayer::default();
    retry_persistent: Full<Bytes> => RetryLayer::new(RetryPolicy::persistent());
    retry_disabled: Full<Bytes> => RetryLayer::disabled();
    telemetry_call: Full<Bytes> => TelemetryLayer::call();
    telemetry_attempt: Full<Bytes> => TelemetryLayer::attempt();
    telemetry_call_heard: Full<Bytes> => heard(TelemetryLayer::call());
    telemetry_attempt_heard: Full<Bytes> => heard(TelemetryLayer::attempt());
    telemetry_disabled: Full<Bytes> => TelemetryLayer::disabled();
    timeout_total: Full<Bytes> => TimeoutLayer::total(TimeoutLayer::TOTAL);
    timeout_attempt: Full<Bytes> => TimeoutLayer::attempt(TimeoutLayer::ATTEMPT);
    timeout_adaptive: Full<Bytes> => TimeoutLayer::attempt(TimeoutLayer::ATTEMPT).adaptive(ServiceTimes::new());
    timeout_disabled: Full<Bytes> => TimeoutLayer::disabled();
    rate_limit: Full<Bytes> => RateLimitLayer::new(Limiter::new());
    rate_limit_with_room: Full<Bytes> => RateLimitLayer::new(paced(1_000));
    rate_limit_queueing: Full<Bytes> => RateLimitLayer::new(paced(2));
    rate_limit_disabled: Full<Bytes> => RateLimitLayer::disabled();
    caller_limit: Full<Bytes> => CallerLimitLayer::new(CallerLimits::builder().build().unwrap());
    caller_limit_of_a_caller: Full<Bytes> => NamedLayer(callers(PastLimit::Refuse, 10_000));
    caller_limit_past: Full<Bytes> => NamedLayer(callers(PastLimit::LowestPriority, 1));
    caller_limit_shared: Full<Bytes> => NamedLayer(callers_of(10_000, |limits| limits.store(MemoryStore::new())));
    caller_limit_asking: Full<Bytes> => NamedLayer(callers_of(10_000, |limits| limits.store(Asked(MemoryStore::new()))));
    caller_limit_disabled: Full<Bytes> => CallerLimitLayer::disabled();
    error_response: Full<Bytes> => ErrorResponseLayer::new();
    keep_alive: Full<Bytes> => KeepAliveLayer::new(Duration::from_secs(15));
    keep_alive_busy: Full<Bytes> => KeepAliveLayer::new(Duration::from_millis(5));
    keep_alive_disabled: Full<Bytes> => KeepAliveLayer::disabled();
    token_precheck: Full<Bytes> => TokenPrecheckLayer::default();
    token_precheck_disabled: Full<Bytes> => TokenPrecheckLayer::disabled();
    key_pool: Full<Bytes> => KeyPoolLayer::new(keys(&["p1"]));
    key_pool_of_projects: Full<Bytes> => KeyPoolLayer::new(keys(&["p1", "p1", "p2", "p3"]));
    key_pool_disabled: Full<Bytes> => KeyPoolLayer::disabled();
    model_fallback: Full<Bytes> => ModelFallbackLayer::new(chains());
    model_fallback_disabled: Full<Bytes> => ModelFallbackLayer::disabled();
}

/// Makes a pool with a key of each of these projects.
fn keys(projects: &[&str]) -> KeyPool {
    let key = |(nth, project): (usize, &&str)| Key::new(ApiKey::new(format!("{KEY}{nth}")).unwrap()).project(*project);
    projects.iter().enumerate().map(key).fold(KeyPool::builder(), |pool, key| pool.key(key)).build().unwrap()
}

/// Installs a subscriber and a recorder, from here on and for all tests.
fn heard(layer: TelemetryLayer) -> TelemetryLayer {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        tracing::subscriber::set_global_default(tracing_subscriber::registry()).unwrap();
        metrics_util::debugging::DebuggingRecorder::new().install().unwrap();
    });
    layer
}

/// Makes a limiter with quota for all calls of a test, and for this many at once; the others wait for 60 ms.
fn paced(burst: u32) -> Limiter {
    let limits = Limits::new().requests_per_minute(1_000).input_tokens_per_minute(100_000).requests_per_day(10_000);
    let burst = std::num::NonZeroU32::new(burst).unwrap();
    Limiter::builder().limits(limits).pacing(Pacing::Smooth { burst }).build()
}

/// A store that answers when it is polled, as one over a network does.
#[derive(Debug)]
struct Asked(MemoryStore);

impl QuotaStore for Asked {
    fn take(&self, scope: &Scope, question: Question) -> Reply {
        match self.0.take(scope, question) {
            Reply::Now(answer) => Reply::Later(Box::pin(std::future::ready(answer))),
            reply => reply,
        }
    }

    fn correct(&self, scope: &Scope, charge: StoreCharge, by: Correction) {
        self.0.correct(scope, charge, by);
    }

    fn close(&self, scope: &Scope, closing: Closing) {
        self.0.close(scope, closing);
    }

    fn open(&self, scope: &Scope) {
        self.0.open(scope);
    }
}

/// Makes limits of callers in all dimensions, of so many requests each.
fn callers(past: PastLimit, requests: u64) -> CallerLimitLayer {
    callers_with(past, requests, |limits| limits)
}

/// Makes limits of callers that are refused past one, with more settings.
fn callers_of(requests: u64, more: impl FnOnce(CallerLimitsBuilder) -> CallerLimitsBuilder) -> CallerLimitLayer {
    callers_with(PastLimit::Refuse, requests, more)
}

fn callers_with(
    past: PastLimit,
    requests: u64,
    more: impl FnOnce(CallerLimitsBuilder) -> CallerLimitsBuilder,
) -> CallerLimitLayer {
    let prices = Prices::builder().model("*", Price::new(Money::dollars(1), Money::dollars(1))).build();
    let all =
        CallerQuota::new().requests_per_minute(requests).input_tokens_per_minute(1_000_000).requests_per_day(requests);
    let all = all.tokens_per_day(9_000_000).money_per_day(Money::dollars(50)).money_per_month(Money::dollars(90));
    let of_model = all.clone().past(past);
    let quota = all.past(past).limits_for_model("gemini-2.5-pro", of_model);
    CallerLimitLayer::new(more(CallerLimits::builder().others(quota).prices(prices)).build().unwrap())
}

/// Makes circuit breakers that count each call, and never have enough of them to open.
fn counting() -> CircuitBreakers {
    let trip = Trip::failure_rate(1.0, Window::Calls(1_000)).minimum_requests(1_000);
    CircuitBreakers::builder().one_for_all().trip(trip).build().unwrap()
}

/// Makes circuit breakers that have opened and admit all calls as probes.
fn probing() -> CircuitBreakers {
    let breakers = CircuitBreakers::builder().one_for_all().trip(Trip::consecutive(1)).half_open_max_requests(1_000);
    let breakers = breakers.open_duration(Duration::ZERO).max_open_duration(Duration::ZERO).build().unwrap();
    let failing = CircuitBreakerLayer::new(breakers.clone()).layer(Upstream::at_once(|_| Ok(busy())));
    failing.oneshot(post("/")).now_or_never().unwrap().unwrap();
    breakers
}

/// Makes chains by which each call that fails is asked of another model.
fn chains() -> FallbackChains {
    FallbackChains::builder().chain("gemini-2.5-pro", ["gemini-2.5-flash"]).build().unwrap()
}
