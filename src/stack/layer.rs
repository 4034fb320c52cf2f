//! The layer, and the handles of the layers in it.

use std::{fmt, sync::Arc};

use tower_layer::Layer;

use super::{Gemini, layers::Layers};
use crate::{
    caller_limit::CallerLimits, circuit_breaker::CircuitBreakers, key_pool::KeyPool, model_fallback::FallbackChains,
    models::ModelTable, rate_limit::Limiter, replay::ReplayMemory, service_times::ServiceTimes,
};

/// A layer that is all layers but [`ErrorResponseLayer`](crate::ErrorResponseLayer), in their order. See the
/// [module](super) for the numbers of each preset.
///
/// All services made from one layer, and from its clones, share all state.
#[derive(Clone)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct GeminiLayer {
    layers: Arc<Layers>,
    times: ServiceTimes,
    warnings: Arc<[String]>,
}

impl GeminiLayer {
    pub(super) fn new(layers: Layers, times: ServiceTimes, warnings: Vec<String>) -> Self {
        Self { layers: Arc::new(layers), times, warnings: warnings.into() }
    }

    /// Returns the settings that are possible, but may surprise: a sentence for each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Describes the stack, outermost layer first: a line for each, with its numbers.
    pub fn describe(&self) -> impl fmt::Display + '_ {
        &*self.layers
    }

    /// Returns the times that the answers of each model take. They are recorded while a clock of an attempt is set.
    pub fn service_times(&self) -> &ServiceTimes {
        &self.times
    }

    /// Returns the memory in which requests' bodies are kept.
    pub fn replay_memory(&self) -> &ReplayMemory {
        self.layers.replay.memory()
    }

    /// Returns the limiter, unless it is left out.
    pub fn limiter(&self) -> Option<&Limiter> {
        self.layers.limiter.limiter()
    }

    /// Returns the limits of callers, if any are set.
    pub fn callers(&self) -> Option<&CallerLimits> {
        self.layers.callers.limits()
    }

    /// Returns the circuit breakers, unless they are left out.
    pub fn breakers(&self) -> Option<&CircuitBreakers> {
        self.layers.breaker.breakers()
    }

    /// Returns the key pool, if keys are set.
    pub fn keys(&self) -> Option<&KeyPool> {
        self.layers.keys.pool()
    }

    /// Returns the models that the pre-check knows, unless it is left out.
    pub fn models(&self) -> Option<&ModelTable> {
        self.layers.precheck.models()
    }

    /// Returns the fallback chains, if any are set.
    pub fn chains(&self) -> Option<&FallbackChains> {
        self.layers.fallback.chains()
    }
}

impl fmt::Debug for GeminiLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeminiLayer").field("layers", &self.layers).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for GeminiLayer {
    type Service = Gemini<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let layers = &*self.layers;
        let inner = layers.classify.layer(inner);
        let inner = layers.attempt.layer(inner);
        let inner = layers.breaker.layer(inner);
        let inner = layers.limiter.layer(inner);
        let inner = layers.keys.layer(inner);
        let [call, attempt] = &layers.telemetry;
        let inner = attempt.layer(inner);
        let inner = layers.retry.layer(inner);
        let inner = layers.callers.layer(inner);
        let inner = layers.precheck.layer(inner);
        let inner = layers.fallback.layer(inner);
        let inner = layers.replay.layer(inner);
        Gemini { inner: call.layer(layers.total.layer(inner)) }
    }
}
