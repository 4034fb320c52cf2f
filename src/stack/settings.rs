//! The settings of a stack, and the four presets that they start from.

use std::time::Duration;

use crate::{
    caller_limit::CallerLimitLayer,
    circuit_breaker::CircuitBreakerLayer,
    classify::ClassifyLayer,
    key_pool::{KeyPool, KeyPoolBuilder, KeyPoolLayer},
    model_fallback::{FallbackChains, FallbackChainsBuilder, ModelFallbackLayer},
    rate_limit::{Limiter, LimiterBuilder, RateLimitLayer},
    replay::ReplayLayer,
    retry::{RetryBudget, RetryLayer, RetryPolicy},
    service_times::ServiceTimes,
    telemetry::TelemetryLayer,
    timeout::{Clocks, TimeoutLayer},
    token_precheck::TokenPrecheckLayer,
};

/// The settings of all layers, outermost first.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) clocks: Clocks,
    /// Set if the clocks of an attempt are made by the times that are seen.
    pub(super) adapts: bool,
    /// The times that another stack has seen, or sees. `None`: this stack's own.
    pub(super) times: Option<ServiceTimes>,
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
    /// stream and between them, twelve attempts, and at most 10 s in the queue for quota.
    pub(super) fn interactive() -> Self {
        Self {
            clocks: clocks(60, 45, 30, 30),
            retry: RetryLayer::new(RetryPolicy::interactive()),
            limiter: Wired::Settings(Limiter::builder().max_wait(Duration::from_secs(10))),
            ..Self::relay()
        }
    }

    /// Returns the settings for work without a reader: an hour in all, in the queue for quota as well, and the attempts of
    /// [`RetryPolicy::persistent`].
    pub(super) fn batch() -> Self {
        const HOUR: u64 = 60 * 60;
        Self { clocks: clocks(HOUR, 180, 180, 60), retry: RetryLayer::new(RetryPolicy::persistent()), ..Self::relay() }
    }

    /// Returns the settings for models that think for a minute or two: 12 min in all, 5 min for an attempt, 3 min until the
    /// first words of a stream, and the attempts of [`interactive`](Self::interactive).
    pub(super) fn thinking() -> Self {
        Self {
            clocks: clocks(12 * 60, 5 * 60, 3 * 60, 60),
            retry: RetryLayer::new(RetryPolicy::interactive()),
            ..Self::relay()
        }
    }

    /// Returns each layer's defaults, but for three. There are twenty attempts: a model that gets a call a minute has no
    /// other way to notice that an outage is over. The budget is that of [`RetryPolicy::persistent`], because one caller's
    /// burst of some hundred calls must not make all others wait. And calls wait for quota until their deadline, which they
    /// all have.
    pub(super) fn relay() -> Self {
        let budget = RetryBudget::new(RetryBudget::PERSISTENT_CAPACITY);
        let retry = RetryPolicy::default().max_attempts(20).budget(budget);
        Self {
            adapts: true,
            times: None,
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
            retry: RetryLayer::new(retry),
            keys: Wired::Settings(KeyPool::builder()),
            limiter: Wired::Settings(Limiter::builder().wait_until_deadline()),
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
