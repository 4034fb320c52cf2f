//! The builder of the stack.

use std::time::Duration;

use super::{
    GeminiLayer, check,
    layers::Layers,
    settings::{Settings, Wired},
};
use crate::{
    caller_limit::CallerLimitLayer,
    circuit_breaker::CircuitBreakerLayer,
    classify::ClassifyLayer,
    context::ConfigError,
    key_pool::{Key, KeyPool, KeyPoolBuilder, KeyPoolLayer},
    model_fallback::{FallbackChains, FallbackChainsBuilder, FallbackModel, ModelFallbackLayer},
    quota::Limits,
    rate_limit::{Limiter, LimiterBuilder, RateLimitLayer},
    replay::ReplayLayer,
    retry::{OnOpen, RetryLayer, RetryPolicy},
    service_times::ServiceTimes,
    telemetry::TelemetryLayer,
    timeout::{Clocks, TimeoutLayer},
    token_precheck::TokenPrecheckLayer,
};

/// The settings of a [`GeminiLayer`]: of each layer one setter, which takes its `disabled()` layer to leave it out.
#[derive(Clone, Debug)]
#[must_use]
pub struct GeminiBuilder {
    settings: Settings,
}

/// The presets. See the [module](super) for their numbers.
impl GeminiLayer {
    /// Begins with the settings for a program in front of which a person waits.
    pub fn interactive() -> GeminiBuilder {
        GeminiBuilder { settings: Settings::interactive() }
    }

    /// Begins with the settings for work that may take its time.
    pub fn batch() -> GeminiBuilder {
        GeminiBuilder { settings: Settings::batch() }
    }

    /// Begins with the settings for models that think: a person or a program waits, and answers take a minute or two.
    ///
    /// The caller, and every proxy between, has to wait as long: stream the answers, or send pieces of a
    /// [`KeepAliveLayer`](crate::KeepAliveLayer) meanwhile.
    pub fn thinking() -> GeminiBuilder {
        GeminiBuilder { settings: Settings::thinking() }
    }

    /// Begins with the settings for a server that answers others: every layer with its own defaults, and more attempts.
    pub fn relay() -> GeminiBuilder {
        GeminiBuilder { settings: Settings::relay() }
    }
}

impl GeminiBuilder {
    // === what most programs set ===

    /// Sets the clock of the whole call, up to its answer's first content.
    pub fn total(mut self, limit: Duration) -> Self {
        self.settings.clocks.total = Some(limit);
        self
    }

    /// Sets the clock of one attempt at a unary answer.
    pub fn attempt(mut self, limit: Duration) -> Self {
        self.settings.clocks.attempt = Some(limit);
        self
    }

    /// Sets the longest time from the beginning of a stream's attempt to its first content.
    pub fn first_content(mut self, limit: Duration) -> Self {
        self.settings.clocks.first_content = Some(limit);
        self
    }

    /// Sets the longest silence in an answer that has begun.
    pub fn idle(mut self, limit: Duration) -> Self {
        self.settings.clocks.idle = Some(limit);
        self
    }

    /// Sets the clock of the whole call for the flex tier, whose calls may wait. Default:
    /// [`TimeoutLayer::FLEX_TOTAL`], or [`total`](Self::total) where that is longer.
    pub fn flex_total(mut self, limit: Duration) -> Self {
        self.settings.clocks.flex.total = Some(limit);
        self
    }

    /// Sets the clock of one attempt for the flex tier, up to a unary answer or a stream's first content. Default:
    /// [`TimeoutLayer::FLEX_FIRST_BYTE`], or the clock of other calls where that is longer.
    pub fn flex_first_byte(mut self, limit: Duration) -> Self {
        self.settings.clocks.flex.first_byte = Some(limit);
        self
    }

    /// Leaves the clocks of an attempt as they are set, also where the model is seen to be faster. Default: they
    /// [adapt](TimeoutLayer::adaptive), so that there is time for another attempt after one that hangs.
    pub fn fixed_clocks(mut self) -> Self {
        self.settings.adapts = false;
        self
    }

    /// Sets the times that other stacks have seen, or see: those of the same upstream, as before a reload.
    pub fn service_times(mut self, times: ServiceTimes) -> Self {
        self.settings.times = Some(times);
        self
    }

    /// Leaves all clocks out, for stacks in which another layer has them.
    pub fn without_clocks(mut self) -> Self {
        self.settings.clocks = Clocks::default();
        self
    }

    /// Adds a key to send with, in place of the caller's. Without any, the caller's own goes on.
    ///
    /// A pool set by [`key_pool`](Self::key_pool) is replaced; settings given to [`keys`](Self::keys) are added to.
    pub fn key(mut self, key: Key) -> Self {
        self.settings.keys = Wired::Settings(self.settings.keys.settings_or(KeyPool::builder).key(key));
        self
    }

    /// Sets the limits of every project and model that has none of its own. Default: those that the upstream's refusals
    /// name.
    pub fn limits(self, limits: Limits) -> Self {
        self.with_limiter(|limiter| limiter.limits(limits))
    }

    /// Sets the limits of a model, in every project.
    pub fn limits_for(self, model: impl Into<Box<str>>, limits: Limits) -> Self {
        self.with_limiter(|limiter| limiter.limits_for(model, limits))
    }

    /// Sets the models that are asked, in this order, when `model` has failed.
    pub fn fallback(
        mut self,
        model: impl Into<FallbackModel>,
        next: impl IntoIterator<Item = impl Into<FallbackModel>>,
    ) -> Self {
        let chains = self.settings.fallback.settings_or(FallbackChains::builder);
        self.settings.fallback = Wired::Settings(chains.chain(model, next));
        self
    }

    /// Sets the policy of retries: which failures are tried again, how often and when.
    pub fn retry(self, policy: RetryPolicy) -> Self {
        self.retry_layer(RetryLayer::new(policy))
    }

    /// Gives an open circuit back to the caller at once, instead of waiting for it. Quota is waited for as ever.
    pub fn fail_fast(self) -> Self {
        let policy = self.settings.retry.policy().clone().on_open(OnOpen::Fail);
        self.retry(policy)
    }

    // === a layer replaced, or left out ===

    /// Replaces the layer that keeps the request's body.
    pub fn replay(mut self, layer: ReplayLayer) -> Self {
        self.settings.replay = layer;
        self
    }

    /// Replaces the settings of the fallback chains.
    pub fn chains(mut self, chains: FallbackChainsBuilder) -> Self {
        self.settings.fallback = Wired::Settings(chains);
        self
    }

    /// Replaces the layer of the fallback chains, with chains that other stacks share; or leaves it out.
    pub fn fallback_layer(mut self, layer: ModelFallbackLayer) -> Self {
        self.settings.fallback = Wired::Layer(layer);
        self
    }

    /// Replaces the layer that checks a request before it is sent.
    pub fn precheck(mut self, layer: TokenPrecheckLayer) -> Self {
        self.settings.precheck = layer;
        self
    }

    /// Sets the layer of the callers' limits, which gives back the charge of a call that is dropped unsent. Default: none.
    pub fn callers(mut self, layer: CallerLimitLayer) -> Self {
        self.settings.callers = layer;
        self
    }

    /// Replaces the layer that tries again.
    pub fn retry_layer(mut self, layer: RetryLayer) -> Self {
        self.settings.retry = layer;
        self
    }

    /// Replaces the settings of the key pool. The pool will ask the limiter for headroom.
    pub fn keys(mut self, keys: KeyPoolBuilder) -> Self {
        self.settings.keys = Wired::Settings(keys);
        self
    }

    /// Replaces the layer of the key pool, with a pool that other stacks share; or leaves it out.
    pub fn key_pool(mut self, layer: KeyPoolLayer) -> Self {
        self.settings.keys = Wired::Layer(layer);
        self
    }

    /// Replaces the settings of the limiter. The limiter will ask the circuit breakers before a call queues.
    pub fn limiter(mut self, limiter: LimiterBuilder) -> Self {
        self.settings.limiter = Wired::Settings(limiter);
        self
    }

    /// Replaces the layer of the limiter, with a limiter that other stacks share and that has a gate of its own; or
    /// leaves it out.
    pub fn rate_limit(mut self, layer: RateLimitLayer) -> Self {
        self.settings.limiter = Wired::Layer(layer);
        self
    }

    /// Replaces the layer of the circuit breakers.
    pub fn breaker(mut self, layer: CircuitBreakerLayer) -> Self {
        self.settings.breaker = layer;
        self
    }

    /// Replaces the layer that reads each failure once.
    pub fn classify(mut self, layer: ClassifyLayer) -> Self {
        self.settings.classify = layer;
        self
    }

    /// Replaces the layers that record calls and attempts.
    pub fn telemetry(mut self, call: TelemetryLayer, attempt: TelemetryLayer) -> Self {
        self.settings.telemetry = [call, attempt];
        self
    }

    /// Makes the layers, and wires them to each other.
    ///
    /// # Errors
    ///
    /// Settings that cannot work: a clock or a limit of zero, an attempt that may take longer than the whole call, and
    /// all that the layers themselves refuse (a key twice, a model twice in a chain).
    pub fn build(self) -> Result<GeminiLayer, ConfigError> {
        check::refuse(&self.settings)?;
        let warnings = check::warn(&self.settings);
        let Settings {
            clocks,
            adapts,
            times,
            replay,
            fallback,
            precheck,
            callers,
            retry,
            keys,
            limiter,
            breaker,
            classify,
            telemetry,
        } = self.settings;
        let times = times.unwrap_or_default();
        let retry = retry.service_times(times.clone());
        let limiter = match limiter {
            Wired::Layer(layer) => layer,
            Wired::Settings(settings) => {
                let settings = settings.service_times(times.clone());
                RateLimitLayer::new(match breaker.breakers() {
                    Some(breakers) => settings.gate(breakers.clone()).build(),
                    None => settings.build(),
                })
            }
        };
        let keys = match keys {
            Wired::Layer(layer) => layer,
            Wired::Settings(settings) if settings.is_empty() => KeyPoolLayer::disabled(),
            Wired::Settings(settings) => KeyPoolLayer::new(match limiter.limiter() {
                Some(limiter) => settings.headroom(limiter.clone()).build()?,
                None => settings.build()?,
            }),
        };
        let fallback = match fallback {
            Wired::Layer(layer) => layer,
            Wired::Settings(settings) if settings.is_empty() => ModelFallbackLayer::disabled(),
            Wired::Settings(settings) => ModelFallbackLayer::new(settings.build()?),
        };
        let total = TimeoutLayer::of_the_whole(clocks);
        let attempt = TimeoutLayer::of_an_attempt(clocks);
        let attempt = if adapts { attempt.adaptive(times.clone()) } else { attempt.service_times(times.clone()) };
        Ok(GeminiLayer::new(
            Layers {
                total,
                replay,
                fallback,
                precheck,
                // `ClassifyLayer` always stands, and marks what is sent.
                callers: callers.gives_back_unsent(),
                retry,
                keys,
                limiter,
                breaker,
                attempt,
                classify,
                telemetry,
            },
            times,
            warnings,
        ))
    }

    fn with_limiter(mut self, change: impl FnOnce(LimiterBuilder) -> LimiterBuilder) -> Self {
        let limiter = self.settings.limiter.settings_or(Limiter::builder);
        self.settings.limiter = Wired::Settings(change(limiter));
        self
    }
}
