//! The names of all metrics. What they mean stands in the table of the room's documentation.

use metrics::Unit;

pub(super) const CALL_DURATION: &str = "gen_ai.client.operation.duration";
pub(super) const TOKENS: &str = "gen_ai.client.token.usage";
pub(super) const FIRST_CHUNK: &str = "gen_ai.client.operation.time_to_first_chunk";
pub(super) const PER_TOKEN: &str = "tower_gemini.time_per_output_token";
pub(super) const CALLS: &str = "tower_gemini.calls";
pub(super) const CALLS_ACTIVE: &str = "tower_gemini.calls.active";
pub(super) const ATTEMPTS: &str = "tower_gemini.attempts";
pub(super) const ATTEMPTS_ACTIVE: &str = "tower_gemini.attempts.active";
pub(super) const ATTEMPT_DURATION: &str = "tower_gemini.attempt.duration";
pub(super) const FAULTS: &str = "tower_gemini.faults";
pub(super) const RETRIES: &str = "tower_gemini.retries";
pub(super) const RETRIES_REFUSED: &str = "tower_gemini.retries.refused";
pub(super) const RETRY_WAIT: &str = "tower_gemini.retry.wait";
pub(super) const QUEUE_WAIT: &str = "tower_gemini.queue.wait";
pub(super) const FALLBACKS: &str = "tower_gemini.fallbacks";
pub(super) const OVERHEAD: &str = "tower_gemini.overhead";

/// How a metric is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::telemetry) enum Type {
    Counter,
    Gauge,
    Histogram,
}

/// A metric as an exporter hears of it.
#[derive(Clone, Copy, Debug)]
pub(in crate::telemetry) struct Metric {
    pub(in crate::telemetry) name: &'static str,
    pub(in crate::telemetry) kept_as: Type,
    pub(in crate::telemetry) unit: Unit,
    pub(in crate::telemetry) meaning: &'static str,
}

const fn row(name: &'static str, kept_as: Type, unit: Unit, meaning: &'static str) -> Metric {
    Metric { name, kept_as, unit, meaning }
}

/// All of them; those of handles, which the rooms name themselves, last.
pub(in crate::telemetry) const METRICS: [Metric; 24] = {
    use Type::*;
    use Unit::*;
    [
        row(CALL_DURATION, Histogram, Seconds, "Time of a call, to the end of its answer."),
        row(TOKENS, Histogram, Count, "Input and output tokens of a call."),
        row(FIRST_CHUNK, Histogram, Seconds, "Time of a streaming call to the first chunk of its answer."),
        row(PER_TOKEN, Histogram, Seconds, "Time of a stream's output token after the first."),
        row(CALLS, Counter, Count, "Calls that have ended, and whose fault it was."),
        row(CALLS_ACTIVE, Gauge, Count, "Calls under way."),
        row(ATTEMPTS, Counter, Count, "Attempts that have ended, and whose fault it was."),
        row(ATTEMPTS_ACTIVE, Gauge, Count, "Attempts under way."),
        row(ATTEMPT_DURATION, Histogram, Seconds, "Time of an attempt, to the end of its answer."),
        row(FAULTS, Counter, Count, "Failures by kind."),
        row(RETRIES, Counter, Count, "Attempts that follow a failed one."),
        row(RETRIES_REFUSED, Counter, Count, "Calls that failed because nothing more was tried."),
        row(RETRY_WAIT, Histogram, Seconds, "Time between a failed attempt and the next."),
        row(QUEUE_WAIT, Histogram, Seconds, "Time that an attempt has waited for its turn."),
        row(FALLBACKS, Counter, Count, "Attempts that ask another model than the one before."),
        row(OVERHEAD, Histogram, Seconds, "Time of a call that neither the upstream nor a wait has taken."),
        row("tower_gemini.limit.used", Gauge, Count, "What counts against a limit at the moment."),
        row("tower_gemini.limit.max", Gauge, Count, "The limit in force."),
        row("tower_gemini.limit.blocked", Gauge, Count, "Scopes that the upstream has blocked."),
        row("tower_gemini.limit.waiting", Gauge, Count, "Calls that wait for their turn."),
        row("tower_gemini.breaker.state", Gauge, Count, "CircuitBreakers in a state."),
        row("tower_gemini.breaker.transitions", Counter, Count, "Changes of a breaker's state."),
        row("tower_gemini.key.state", Gauge, Count, "Keys in a state."),
        row("tower_gemini.key.uses", Counter, Count, "Calls sent with a key."),
    ]
};
