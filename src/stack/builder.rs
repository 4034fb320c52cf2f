use std::time::Duration;

use super::{GeminiLayer, check, layer::Parts};
use crate::{
    circuit_breaker::CircuitBreakerLayer,
    classify::ClassifyLayer,
    context::ConfigError,
    key_pool::{Key, KeyPool, KeyPoolBuilder, KeyPoolLayer},
    model_fallback::{FallbackChains, FallbackChainsBuilder, ModelFallbackLayer},
    quota::Limits,
    rate_limit::{Limiter, LimiterBuilder, RateLimitLayer},
    replay::ReplayLayer,
    retry::{OnOpen, RetryLayer, RetryPolicy},
    telemetry::TelemetryLayer,
    timeout::TimeoutLayer,
    token_precheck::TokenPrecheckLayer,
};

/// Settings of a [`GeminiLayer`]. Each part is one layer's; `disabled()` leaves it out.
#[derive(Clone, Debug)]
#[must_use]
pub struct GeminiBuilder {
    pub(super) clocks: Clocks,
    pub(super) replay: ReplayLayer,
    pub(super) fallback: Part<FallbackChainsBuilder, ModelFallbackLayer>,
    pub(super) precheck: TokenPrecheckLayer,
    pub(super) retry: RetryLayer,
    pub(super) keys: Part<KeyPoolBuilder, KeyPoolLayer>,
    pub(super) limiter: Part<LimiterBuilder, RateLimitLayer>,
    pub(super) breaker: CircuitBreakerLayer,
    pub(super) classify: ClassifyLayer,
    pub(super) telemetry: [TelemetryLayer; 2],
}

/// A part that has to be wired to another: settings, from which the roof builds it, or a layer that is used as it is.
#[derive(Clone, Debug)]
pub(super) enum Part<B, L> {
    Settings(B),
    Layer(L),
}

/// The four clocks. `None` never runs out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    pub(super) total: Option<Duration>,
    pub(super) attempt: Option<Duration>,
    pub(super) first_content: Option<Duration>,
    pub(super) idle: Option<Duration>,
}

impl Clocks {
    const NONE: Self = Self { total: None, attempt: None, first_content: None, idle: None };

    const fn of(total: u64, attempt: u64, first_content: u64, idle: u64) -> Self {
        const fn seconds(seconds: u64) -> Option<Duration> {
            Some(Duration::from_secs(seconds))
        }
        Self {
            total: seconds(total),
            attempt: seconds(attempt),
            first_content: seconds(first_content),
            idle: seconds(idle),
        }
    }

    /// The layer that has the clocks of one attempt.
    fn of_an_attempt(self) -> TimeoutLayer {
        let mut layer = self.attempt.map_or_else(TimeoutLayer::disabled, TimeoutLayer::attempt);
        if let Some(limit) = self.first_content {
            layer = layer.first_content(limit);
        }
        if let Some(limit) = self.idle {
            layer = layer.idle(limit);
        }
        layer
    }
}

impl GeminiBuilder {
    /// A person waits: 60 s in all, 45 s an attempt, 30 s to the first words of a stream and between them, five attempts,
    /// and at most 10 s in line for quota.
    pub(super) fn interactive() -> Self {
        let retry = RetryPolicy::default().max_attempts(5).max_delay(Duration::from_secs(5));
        Self {
            clocks: Clocks::of(60, 45, 30, 30),
            retry: RetryLayer::new(retry),
            limiter: Part::Settings(Limiter::builder().max_wait(Duration::from_secs(10))),
            ..Self::relay()
        }
    }

    /// Nobody waits: an hour in all, the attempts of [`RetryPolicy::persistent`], and as long in line for quota.
    pub(super) fn batch() -> Self {
        const HOUR: u64 = 60 * 60;
        Self {
            clocks: Clocks::of(HOUR, 180, 180, 60),
            retry: RetryLayer::new(RetryPolicy::persistent()),
            limiter: Part::Settings(Limiter::builder().max_wait(Duration::from_secs(HOUR))),
            ..Self::relay()
        }
    }

    /// Every layer with its own defaults.
    pub(super) fn relay() -> Self {
        Self {
            clocks: Clocks {
                total: Some(TimeoutLayer::TOTAL),
                attempt: Some(TimeoutLayer::ATTEMPT),
                first_content: Some(TimeoutLayer::FIRST_CONTENT),
                idle: Some(TimeoutLayer::IDLE),
            },
            replay: ReplayLayer::new(),
            fallback: Part::Settings(FallbackChains::builder()),
            precheck: TokenPrecheckLayer::default(),
            retry: RetryLayer::default(),
            keys: Part::Settings(KeyPool::builder()),
            limiter: Part::Settings(Limiter::builder()),
            breaker: CircuitBreakerLayer::default(),
            classify: ClassifyLayer::new(),
            telemetry: [TelemetryLayer::call(), TelemetryLayer::attempt()],
        }
    }

    // === what most programs set ===

    /// The clock of the whole call, up to its first content.
    pub fn total(mut self, limit: Duration) -> Self {
        self.clocks.total = Some(limit);
        self
    }

    /// The clock of one attempt, for unary answers.
    pub fn attempt(mut self, limit: Duration) -> Self {
        self.clocks.attempt = Some(limit);
        self
    }

    /// How long a stream may take to its first content, in one attempt.
    pub fn first_content(mut self, limit: Duration) -> Self {
        self.clocks.first_content = Some(limit);
        self
    }

    /// How long an answer that has begun may be silent.
    pub fn idle(mut self, limit: Duration) -> Self {
        self.clocks.idle = Some(limit);
        self
    }

    /// No clocks at all: some other layer has them.
    pub fn without_clocks(mut self) -> Self {
        self.clocks = Clocks::NONE;
        self
    }

    /// A key to send with, in place of whatever the caller brought. Without any, the caller's own goes on.
    ///
    /// Replaces what [`keys`](Self::keys) or [`key_pool`](Self::key_pool) had set, unless that was a builder.
    pub fn key(mut self, key: Key) -> Self {
        let keys = match self.keys {
            Part::Settings(keys) => keys,
            Part::Layer(_) => KeyPool::builder(),
        };
        self.keys = Part::Settings(keys.key(key));
        self
    }

    /// What holds for every project and model that has no limits of its own. Default: what the upstream's refusals name.
    pub fn limits(self, limits: Limits) -> Self {
        self.with_limiter(|limiter| limiter.limits(limits))
    }

    /// What holds for a model.
    pub fn limits_for(self, model: impl Into<Box<str>>, limits: Limits) -> Self {
        self.with_limiter(|limiter| limiter.limits_for(model, limits))
    }

    /// Which models are asked, in this order, where one has failed.
    pub fn fallback(mut self, model: impl Into<String>, next: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let chains = match self.fallback {
            Part::Settings(chains) => chains,
            Part::Layer(_) => FallbackChains::builder(),
        };
        self.fallback = Part::Settings(chains.chain(model, next));
        self
    }

    /// What is tried again, how often and when.
    pub fn retry(self, policy: RetryPolicy) -> Self {
        self.retry_layer(RetryLayer::new(policy))
    }

    /// Where an open circuit or a full line is given back at once, instead of waited for.
    pub fn fail_fast(self) -> Self {
        let policy = self.retry.policy().clone().on_open(OnOpen::Fail);
        self.retry(policy)
    }

    // === a part replaced, or left out ===

    /// The layer that keeps the request's body.
    pub fn replay(mut self, layer: ReplayLayer) -> Self {
        self.replay = layer;
        self
    }

    /// Settings of the chains, wired as the others.
    pub fn chains(mut self, chains: FallbackChainsBuilder) -> Self {
        self.fallback = Part::Settings(chains);
        self
    }

    /// FallbackChains that were made already, shared with other stacks; or none.
    pub fn fallback_layer(mut self, layer: ModelFallbackLayer) -> Self {
        self.fallback = Part::Layer(layer);
        self
    }

    /// The check before anything is sent.
    pub fn precheck(mut self, layer: TokenPrecheckLayer) -> Self {
        self.precheck = layer;
        self
    }

    /// The layer that sends again.
    pub fn retry_layer(mut self, layer: RetryLayer) -> Self {
        self.retry = layer;
        self
    }

    /// Settings of the key pool. It will ask the limiter for headroom.
    pub fn keys(mut self, keys: KeyPoolBuilder) -> Self {
        self.keys = Part::Settings(keys);
        self
    }

    /// A pool that was made already, shared with other stacks; or none.
    pub fn key_pool(mut self, layer: KeyPoolLayer) -> Self {
        self.keys = Part::Layer(layer);
        self
    }

    /// Settings of the limiter. It will ask the breakers before anybody queues.
    pub fn limiter(mut self, limiter: LimiterBuilder) -> Self {
        self.limiter = Part::Settings(limiter);
        self
    }

    /// A limiter that was made already, shared with other stacks; or none. Its gate is its own.
    pub fn rate_limit(mut self, layer: RateLimitLayer) -> Self {
        self.limiter = Part::Layer(layer);
        self
    }

    /// The circuit breakers.
    pub fn breaker(mut self, layer: CircuitBreakerLayer) -> Self {
        self.breaker = layer;
        self
    }

    /// The layer that reads each failure once.
    pub fn classify(mut self, layer: ClassifyLayer) -> Self {
        self.classify = layer;
        self
    }

    /// The layers that say what a call and an attempt come to.
    pub fn telemetry(mut self, call: TelemetryLayer, attempt: TelemetryLayer) -> Self {
        self.telemetry = [call, attempt];
        self
    }

    /// The layer, its parts made and wired.
    ///
    /// # Errors
    ///
    /// What cannot work: a clock or a limit of zero, an attempt that may take longer than the whole call, and what the parts
    /// themselves refuse (a key twice, a model twice in a chain).
    pub fn build(self) -> Result<GeminiLayer, ConfigError> {
        check::refuse(&self)?;
        let warnings = check::warn(&self);
        let Self { clocks, replay, fallback, precheck, retry, keys, limiter, breaker, classify, telemetry } = self;
        let limiter = match limiter {
            Part::Layer(layer) => layer,
            Part::Settings(settings) => RateLimitLayer::new(match breaker.breakers() {
                Some(breakers) => settings.gate(breakers.clone()).build(),
                None => settings.build(),
            }),
        };
        let keys = match keys {
            Part::Layer(layer) => layer,
            Part::Settings(settings) if settings.is_empty() => KeyPoolLayer::disabled(),
            Part::Settings(settings) => KeyPoolLayer::new(match limiter.limiter() {
                Some(limiter) => settings.headroom(limiter.clone()).build()?,
                None => settings.build()?,
            }),
        };
        let fallback = match fallback {
            Part::Layer(layer) => layer,
            Part::Settings(settings) if settings.is_empty() => ModelFallbackLayer::disabled(),
            Part::Settings(settings) => ModelFallbackLayer::new(settings.build()?),
        };
        let total = clocks.total.map_or_else(TimeoutLayer::disabled, TimeoutLayer::total);
        let attempt = clocks.of_an_attempt();
        Ok(GeminiLayer::new(
            Parts { total, replay, fallback, precheck, retry, keys, limiter, breaker, attempt, classify, telemetry },
            warnings,
        ))
    }

    fn with_limiter(mut self, change: impl FnOnce(LimiterBuilder) -> LimiterBuilder) -> Self {
        let limiter = match self.limiter {
            Part::Settings(limiter) => limiter,
            Part::Layer(_) => Limiter::builder(),
        };
        self.limiter = Part::Settings(change(limiter));
        self
    }
}
