//! The layers of a stack, and their description for people.

use std::fmt;

use crate::{
    caller_limit::CallerLimitLayer, circuit_breaker::CircuitBreakerLayer, classify::ClassifyLayer, describe::Describe,
    key_pool::KeyPoolLayer, model_fallback::ModelFallbackLayer, rate_limit::RateLimitLayer, replay::ReplayLayer,
    retry::RetryLayer, telemetry::TelemetryLayer, timeout::TimeoutLayer, token_precheck::TokenPrecheckLayer,
};

/// The layers, outermost first. Its [`Display`](fmt::Display) writes a line for each.
#[derive(Clone, Debug)]
pub(super) struct Layers {
    pub(super) total: TimeoutLayer,
    pub(super) replay: ReplayLayer,
    pub(super) fallback: ModelFallbackLayer,
    pub(super) precheck: TokenPrecheckLayer,
    pub(super) callers: CallerLimitLayer,
    pub(super) retry: RetryLayer,
    pub(super) keys: KeyPoolLayer,
    pub(super) limiter: RateLimitLayer,
    pub(super) breaker: CircuitBreakerLayer,
    pub(super) attempt: TimeoutLayer,
    pub(super) classify: ClassifyLayer,
    /// The telemetry of calls, outside of all; and of attempts, inside of the retries.
    pub(super) telemetry: [TelemetryLayer; 2],
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            total,
            replay,
            fallback,
            precheck,
            callers,
            retry,
            keys,
            limiter,
            breaker,
            attempt,
            classify,
            telemetry,
        } = self;
        let lines: [(&str, &dyn Describe); 13] = [
            ("telemetry", &telemetry[0]),
            ("timeout", total),
            ("replay", replay),
            ("model fallback", fallback),
            ("token precheck", precheck),
            ("caller limit", callers),
            ("retry", retry),
            ("telemetry", &telemetry[1]),
            ("key pool", keys),
            ("rate limit", limiter),
            ("circuit breaker", breaker),
            ("timeout", attempt),
            ("classify", classify),
        ];
        lines.into_iter().try_for_each(|(name, layer)| writeln!(f, "{name:<16}{}", Line(layer)))
    }
}

/// The line of one layer.
struct Line<'a>(&'a dyn Describe);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe(f)
    }
}
