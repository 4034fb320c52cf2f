//! The settings of a stack, and the three presets that they start from.

use std::time::Duration;

use crate::{
    caller_limit::CallerLimitLayer,
    circuit_breaker::CircuitBreakerLayer,
    classify::ClassifyLayer,
    key_pool::{KeyPool, KeyPoolBuilder, KeyPoolLayer},
    model_fallback::{FallbackChains, FallbackChainsBuilder, ModelFallbackLayer},
    rate_limit::{Limiter, LimiterBuilder, RateLimitLayer},
    replay::ReplayLayer,
    retry::{RetryLayer, RetryPolicy},
    telemetry::TelemetryLayer,
    timeout::{Clocks, TimeoutLayer},
    token_precheck::TokenPrecheckLayer,
};

/// The settings of all layers, outermost first.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) clocks: Clocks,
    pub(super) replay: ReplayLayer,
    pub(super) fallback: Wired<FallbackChainsBuilder, ModelFallbackLayer>,
    pub(super) precheck: TokenPrecheckLayer,
    pub(super) callers: CallerLimitLayer,
    pub(super) retry: RetryLayer,
    pub(super) keys: Wired<KeyPoolBuilder, KeyPoolLayer>,
    pub(super) limiter: Wired<LimiterBuilder, RateLimitLayer>,
    pub(super) breaker: CircuitBreakerLayer,
    pub(super) classify: ClassifyLayer,
    pub(super) telemetry: [TelemetryLayer; 2],
}

/// A layer whose handle is wired to another's: its settings, from which the stack makes both, or a layer made already.
#[derive(Clone, Debug)]
pub(super) enum Wired<B, L> {
    Settings(B),
    Layer(L),
}

impl<B, L> Wired<B, L> {
    /// Returns the settings; `new` ones where a layer made already stood.
    pub(super) fn settings_or(self, new: impl FnOnce() -> B) -> B {
        match self {
            Self::Settings(settings) => settings,
            Self::Layer(_) => new(),
        }
    }
}

impl Settings {
    /// Returns the settings for a person who waits: 60 s in all, 45 s for an attempt, 30 s until the first words of a
    /// stream and between them, five attempts, and at most 10 s in the queue for quota.
    pub(super) fn interactive() -> Self {
        let retry = RetryPolicy::default().max_attempts(5).max_delay(Duration::from_secs(5));
        Self {
            clocks: clocks(60, 45, 30, 30),
            retry: RetryLayer::new(retry),
            limiter: Wired::Settings(Limiter::builder().max_wait(Duration::from_secs(10))),
            ..Self::relay()
        }
    }

    /// Returns the settings for work without a reader: an hour in all, the attempts of [`RetryPolicy::persistent`], and
    /// up to an hour in the queue for quota.
    pub(super) fn batch() -> Self {
        const HOUR: u64 = 60 * 60;
        Self {
            clocks: clocks(HOUR, 180, 180, 60),
            retry: RetryLayer::new(RetryPolicy::persistent()),
            limiter: Wired::Settings(Limiter::builder().max_wait(Duration::from_secs(HOUR))),
            ..Self::relay()
        }
    }

    /// Returns each layer's defaults.
    pub(super) fn relay() -> Self {
        Self {
            clocks: Clocks {
                total: Some(TimeoutLayer::TOTAL),
                attempt: Some(TimeoutLayer::ATTEMPT),
                first_content: Some(TimeoutLayer::FIRST_CONTENT),
                idle: Some(TimeoutLayer::IDLE),
                ..Clocks::default()
            },
            replay: ReplayLayer::new(),
            fallback: Wired::Settings(FallbackChains::builder()),
            precheck: TokenPrecheckLayer::default(),
            callers: CallerLimitLayer::disabled(),
            retry: RetryLayer::default(),
            keys: Wired::Settings(KeyPool::builder()),
            limiter: Wired::Settings(Limiter::builder()),
            breaker: CircuitBreakerLayer::default(),
            classify: ClassifyLayer::new(),
            telemetry: [TelemetryLayer::call(), TelemetryLayer::attempt()],
        }
    }
}

/// Makes the four clocks from their seconds.
fn clocks(total: u64, attempt: u64, first_content: u64, idle: u64) -> Clocks {
    let [total, attempt, first_content, idle] =
        [total, attempt, first_content, idle].map(|seconds| Some(Duration::from_secs(seconds)));
    Clocks { total, attempt, first_content, idle, ..Clocks::default() }
}
