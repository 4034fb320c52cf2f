use std::{fmt, sync::Arc};

use tower_layer::Layer;

use super::{Gemini, GeminiBuilder};
use crate::{
    circuit_breaker::{CircuitBreakerLayer, CircuitBreakers},
    classify::ClassifyLayer,
    key_pool::{KeyPool, KeyPoolLayer},
    model_fallback::{FallbackChains, ModelFallbackLayer},
    models::ModelTable,
    rate_limit::{Limiter, RateLimitLayer},
    replay::ReplayLayer,
    retry::RetryLayer,
    telemetry::TelemetryLayer,
    timeout::TimeoutLayer,
    token_precheck::TokenPrecheckLayer,
};

/// All layers in their order. See the [module](super) for what each preset means.
///
/// All services made from one layer, and from its clones, share all state.
#[derive(Clone)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct GeminiLayer {
    parts: Arc<Parts>,
    warnings: Arc<[String]>,
}

/// The layers, outermost first.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) total: TimeoutLayer,
    pub(super) replay: ReplayLayer,
    pub(super) fallback: ModelFallbackLayer,
    pub(super) precheck: TokenPrecheckLayer,
    pub(super) retry: RetryLayer,
    pub(super) keys: KeyPoolLayer,
    pub(super) limiter: RateLimitLayer,
    pub(super) breaker: CircuitBreakerLayer,
    pub(super) attempt: TimeoutLayer,
    pub(super) classify: ClassifyLayer,
    /// Of calls, outside of all; of attempts, inside of the retries.
    pub(super) telemetry: [TelemetryLayer; 2],
}

impl GeminiLayer {
    /// For a program in front of which a person waits. See the [module](super) for the numbers of the presets.
    pub fn interactive() -> GeminiBuilder {
        GeminiBuilder::interactive()
    }

    /// For work that may take its time.
    pub fn batch() -> GeminiBuilder {
        GeminiBuilder::batch()
    }

    /// For a server that answers others: every layer with its own defaults.
    pub fn relay() -> GeminiBuilder {
        GeminiBuilder::relay()
    }

    pub(super) fn new(parts: Parts, warnings: Vec<String>) -> Self {
        Self { parts: Arc::new(parts), warnings: warnings.into() }
    }

    /// What is not wrong, but may surprise.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The order that came of it, outermost first, with its numbers: a line a layer.
    pub fn describe(&self) -> impl fmt::Display + '_ {
        super::describe::Described(&self.parts)
    }

    /// The limiter, if there is one.
    pub fn limiter(&self) -> Option<&Limiter> {
        self.parts.limiter.limiter()
    }

    /// The circuit breakers, if there are any.
    pub fn breakers(&self) -> Option<&CircuitBreakers> {
        self.parts.breaker.breakers()
    }

    /// The keys, if there are any.
    pub fn keys(&self) -> Option<&KeyPool> {
        self.parts.keys.pool()
    }

    /// The models that the check knows, if there is a check.
    pub fn models(&self) -> Option<&ModelTable> {
        self.parts.precheck.models()
    }

    /// The chains of models, if there are any.
    pub fn chains(&self) -> Option<&FallbackChains> {
        self.parts.fallback.chains()
    }
}

impl fmt::Debug for GeminiLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeminiLayer").field("parts", &self.parts).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for GeminiLayer {
    type Service = Gemini<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let parts = &*self.parts;
        let inner = parts.classify.layer(inner);
        let inner = parts.attempt.layer(inner);
        let inner = parts.breaker.layer(inner);
        let inner = parts.limiter.layer(inner);
        let inner = parts.keys.layer(inner);
        let [call, attempt] = &parts.telemetry;
        let inner = attempt.layer(inner);
        let inner = parts.retry.layer(inner);
        let inner = parts.precheck.layer(inner);
        let inner = parts.fallback.layer(inner);
        let inner = parts.replay.layer(inner);
        Gemini { inner: call.layer(parts.total.layer(inner)) }
    }
}
