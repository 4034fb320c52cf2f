//! The names, kinds and units of all metrics. The table in the documentation of `telemetry` says what they mean.

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

/// The instrument of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::telemetry) enum Instrument {
    Counter,
    Gauge,
    Histogram,
}

/// A metric as it is described to an exporter.
#[derive(Clone, Copy, Debug)]
pub(in crate::telemetry) struct Metric {
    pub(in crate::telemetry) name: &'static str,
    pub(in crate::telemetry) instrument: Instrument,
    pub(in crate::telemetry) unit: Unit,
    pub(in crate::telemetry) meaning: &'static str,
}

const fn row(name: &'static str, instrument: Instrument, unit: Unit, meaning: &'static str) -> Metric {
    Metric { name, instrument, unit, meaning }
}

/// All metrics. The last eight are those of handles, whose modules name them.
pub(in crate::telemetry) const METRICS: [Metric; 24] = {
    use Instrument::*;
    use Unit::*;
    [
        row(CALL_DURATION, Histogram, Seconds, "Time of a call, to the end of its answer."),
        row(TOKENS, Histogram, Count, "Input and output tokens of a call."),
        row(FIRST_CHUNK, Histogram, Seconds, "Time of a streaming call to the first chunk of its answer."),
        row(PER_TOKEN, Histogram, Seconds, "Time of a stream's output token after the first."),
        row(CALLS, Counter, Count, "Calls that have ended, by outcome."),
        row(CALLS_ACTIVE, Gauge, Count, "Calls under way."),
        row(ATTEMPTS, Counter, Count, "Attempts that have ended, by outcome."),
        row(ATTEMPTS_ACTIVE, Gauge, Count, "Attempts under way."),
        row(ATTEMPT_DURATION, Histogram, Seconds, "Time of an attempt, to the end of its answer."),
        row(FAULTS, Counter, Count, "Failures by kind."),
        row(RETRIES, Counter, Count, "Attempts that follow a failed one."),
        row(RETRIES_REFUSED, Counter, Count, "Calls that failed although another attempt might have helped."),
        row(RETRY_WAIT, Histogram, Seconds, "Time between a failed attempt and the next."),
        row(QUEUE_WAIT, Histogram, Seconds, "Time that an attempt waited in the queue for quota."),
        row(FALLBACKS, Counter, Count, "Attempts at another model than the attempt before."),
        row(OVERHEAD, Histogram, Seconds, "Time of a call that neither the upstream nor a wait took."),
        row("tower_gemini.limit.used", Gauge, Count, "Requests or tokens that currently count against a limit."),
        row("tower_gemini.limit.max", Gauge, Count, "The limit in force."),
        row("tower_gemini.limit.blocked", Gauge, Count, "Scopes that the upstream has blocked."),
        row("tower_gemini.limit.waiting", Gauge, Count, "Calls in the queue for quota."),
        row("tower_gemini.breaker.state", Gauge, Count, "Circuit breakers in a state."),
        row("tower_gemini.breaker.transitions", Counter, Count, "Changes of a breaker's state."),
        row("tower_gemini.key.state", Gauge, Count, "Keys in a state."),
        row("tower_gemini.key.uses", Counter, Count, "Calls sent with a key."),
    ]
};
