//! The order and the numbers of a stack, for people.

use std::fmt;

use super::layer::Parts;
use crate::describe::Describe;

/// A line a layer, outermost first.
pub(super) struct Described<'a>(pub(super) &'a Parts);

/// One layer's line.
struct Line<'a>(&'a dyn Describe);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe(f)
    }
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { total, replay, fallback, precheck, retry, keys, limiter, breaker, attempt, classify, telemetry } =
            self.0;
        let lines: [(&str, &dyn Describe); 12] = [
            ("telemetry", &telemetry[0]),
            ("timeout", total),
            ("replay", replay),
            ("model fallback", fallback),
            ("token precheck", precheck),
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
