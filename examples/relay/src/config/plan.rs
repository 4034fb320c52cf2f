//! Settings that fit together, and the layers that they describe.

use tower_gemini::{
    ConfigError,
    caller_limit::{CallerLimitLayer, CallerLimits},
    circuit_breaker::{CircuitBreakerLayer, CircuitBreakers},
    models::ModelTable,
    replay::{Oversize, ReplayLayer, ReplayMemory},
    stack::{GeminiBuilder, GeminiLayer},
};

use crate::config::settings::Settings;

/// Settings, and the layers that come of them alone: a proof that they fit together.
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    pub(crate) layers: GeminiLayer,
}

impl Plan {
    pub(crate) fn new(settings: Settings) -> Result<Self, ConfigError> {
        let layers = builder(&settings, settings.memory.create())
            .fallback_layer(settings.fallback.clone())
            .precheck(settings.precheck.layer(ModelTable::new()))
            .callers(caller_layer(&settings, &settings.access.callers.limits(&settings.prices).build()?))
            .retry(settings.retry.policy.clone())
            .breaker(breaker_layer(settings.breaker.clone()))
            .limiter(settings.limits.clone())
            .keys(settings.keys.builder()?)
            .build()?;
        Ok(Self { settings, layers })
    }

    /// Returns everything that is not wrong but may surprise.
    pub(crate) fn remarks(&self) -> impl Iterator<Item = &String> {
        self.settings.remarks.iter().chain(self.layers.warnings())
    }
}

/// Begins the layers with those settings under which nothing is learned. Bodies are kept in `memory`.
pub(crate) fn builder(settings: &Settings, memory: ReplayMemory) -> GeminiBuilder {
    let timeout = &settings.timeout;
    let relay = GeminiLayer::relay();
    let relay = if timeout.adaptive { relay } else { relay.fixed_clocks() };
    relay
        .total(timeout.total)
        .attempt(timeout.attempt)
        .first_content(timeout.first_event)
        .idle(timeout.idle)
        .flex_total(timeout.flex_total)
        .flex_first_byte(timeout.flex_first_byte)
        .replay(ReplayLayer::new().max_body(settings.max_body).oversize(Oversize::Refuse).keep_in(memory))
}

/// Returns the layer of the callers' limits, if any caller has one.
pub(crate) fn caller_layer(settings: &Settings, limits: &CallerLimits) -> CallerLimitLayer {
    match settings.access.callers.are_limited() {
        true => CallerLimitLayer::new(limits.clone()),
        false => CallerLimitLayer::disabled(),
    }
}

pub(crate) fn breaker_layer(breakers: Option<CircuitBreakers>) -> CircuitBreakerLayer {
    breakers.map_or_else(CircuitBreakerLayer::disabled, CircuitBreakerLayer::new)
}
