//! The names, kinds and units of all metrics. The table in the documentation of `telemetry` says what they mean.

use metrics::Unit;

use super::super::Conventions;

pub(super) const INFERENCE_DURATION: &str = "gen_ai.client.inference.duration";
pub(super) const INFERENCE_FIRST_CHUNK: &str = "gen_ai.client.inference.time_to_first_chunk";
pub(super) const INPUT_TOKENS: &str = "gen_ai.client.inference.usage.input_tokens";
pub(super) const OUTPUT_TOKENS: &str = "gen_ai.client.inference.usage.output_tokens";
pub(super) const CACHED_TOKENS: &str = "gen_ai.client.inference.usage.cache_read.input_tokens";
pub(super) const REASONING_TOKENS: &str = "gen_ai.client.inference.usage.reasoning.output_tokens";
pub(super) const INPUT_OF_CALL: &str = "gen_ai.client.inference.operation.input_tokens";
pub(super) const OUTPUT_OF_CALL: &str = "gen_ai.client.inference.operation.output_tokens";
pub(super) const EMBEDDINGS_DURATION: &str = "gen_ai.client.embeddings.duration";
pub(super) const EMBEDDINGS_INPUT: &str = "gen_ai.client.embeddings.operation.input_tokens";
pub(super) const CALL_DURATION: &str = "tower_gemini.call.duration";

pub(super) const OLD_DURATION: &str = "gen_ai.client.operation.duration";
pub(super) const OLD_FIRST_CHUNK: &str = "gen_ai.client.operation.time_to_first_chunk";
pub(super) const OLD_TOKENS: &str = "gen_ai.client.token.usage";

pub(super) const BACKGROUND_INPUT: &str = "tower_gemini.background.input_tokens";
pub(super) const BACKGROUND_OUTPUT: &str = "tower_gemini.background.output_tokens";
pub(super) const PER_TOKEN: &str = "tower_gemini.time_per_output_token";
pub(super) const CALLS: &str = "tower_gemini.calls";
pub(super) const TIER_CALLS: &str = "tower_gemini.tier.calls";
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

/// Times by the conventions, in seconds: 0.01, doubled 13 times.
const SECONDS: [f64; 14] = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
/// The same, and two more: a call may take the 285 s of `TimeoutLayer`'s total time.
const LONG_SECONDS: [f64; 16] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68];
/// Tokens by the conventions: powers of four.
const TOKENS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
/// Times of calls and attempts, in seconds: from a cache's answer to the total deadline.
const CALL_SECONDS: [f64; 13] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 180.0, 285.0];
/// Times of waits, for a turn or after a failure, in seconds.
const WAIT_SECONDS: [f64; 13] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0];
/// The time of one token, in seconds.
const TOKEN_SECONDS: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0];
/// The layers' own time, in seconds.
const OWN_SECONDS: [f64; 11] = [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0];

/// The instrument of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::telemetry) enum Instrument {
    Counter,
    Gauge,
    /// With the boundaries of its buckets.
    Histogram(&'static [f64]),
}

/// A metric as it is described to an exporter.
#[derive(Clone, Copy, Debug)]
pub(in crate::telemetry) struct Metric {
    pub(in crate::telemetry) name: &'static str,
    pub(in crate::telemetry) instrument: Instrument,
    pub(in crate::telemetry) unit: Unit,
    pub(in crate::telemetry) meaning: &'static str,
}

const fn counter(name: &'static str, meaning: &'static str) -> Metric {
    Metric { name, instrument: Instrument::Counter, unit: Unit::Count, meaning }
}

const fn gauge(name: &'static str, meaning: &'static str) -> Metric {
    Metric { name, instrument: Instrument::Gauge, unit: Unit::Count, meaning }
}

const fn bytes(name: &'static str, meaning: &'static str) -> Metric {
    Metric { name, instrument: Instrument::Gauge, unit: Unit::Bytes, meaning }
}

const fn seconds(name: &'static str, boundaries: &'static [f64], meaning: &'static str) -> Metric {
    Metric { name, instrument: Instrument::Histogram(boundaries), unit: Unit::Seconds, meaning }
}

const fn tokens(name: &'static str, meaning: &'static str) -> Metric {
    Metric { name, instrument: Instrument::Histogram(&TOKENS), unit: Unit::Count, meaning }
}

/// Returns all metrics that a layer with these conventions may record.
pub(in crate::telemetry) fn metrics(conventions: Conventions) -> impl Iterator<Item = Metric> {
    let of_conventions = match conventions {
        Conventions::V0_1 => &V0_1[..],
        Conventions::V1_41 => &V1_41[..],
    };
    of_conventions.iter().chain(&OWN).copied()
}

/// Times and tokens by v0.1.0, and the time of calls for which it has no name.
const V0_1: [Metric; 12] = [
    counter(TIER_CALLS, "Calls for an answer, by the service tier asked for and the one that served."),
    seconds(INFERENCE_DURATION, &LONG_SECONDS, "Time of a call for an answer, to the answer's end."),
    seconds(INFERENCE_FIRST_CHUNK, &SECONDS, "Time of a streaming call to the first chunk of its answer."),
    counter(INPUT_TOKENS, "Input tokens, those from a cache included."),
    counter(OUTPUT_TOKENS, "Output tokens, those of thoughts included."),
    counter(CACHED_TOKENS, "Input tokens that came from a cache."),
    counter(REASONING_TOKENS, "Output tokens of thoughts."),
    tokens(INPUT_OF_CALL, "Input tokens of a call."),
    tokens(OUTPUT_OF_CALL, "Output tokens of a call."),
    seconds(EMBEDDINGS_DURATION, &SECONDS, "Time of a call for embeddings, to its answer's end."),
    tokens(EMBEDDINGS_INPUT, "Input tokens of a call for embeddings."),
    seconds(CALL_DURATION, &CALL_SECONDS, "Time of any other call, to its answer's end."),
];

/// Times and tokens by 1.41.
const V1_41: [Metric; 3] = [
    seconds(OLD_DURATION, &CALL_SECONDS, "Time of a call, to the end of its answer."),
    seconds(OLD_FIRST_CHUNK, &CALL_SECONDS, "Time of a streaming call to the first chunk of its answer."),
    tokens(OLD_TOKENS, "Input and output tokens of a call."),
];

/// The crate's own metrics. The last thirteen are those of handles, whose modules name them.
const OWN: [Metric; 30] = [
    counter(BACKGROUND_INPUT, "Input tokens of interactions in the background, each once."),
    counter(BACKGROUND_OUTPUT, "Output tokens of interactions in the background, each once."),
    seconds(PER_TOKEN, &TOKEN_SECONDS, "Time of a stream's output token after the first."),
    counter(CALLS, "Calls that have ended, by outcome."),
    gauge(CALLS_ACTIVE, "Calls under way."),
    counter(ATTEMPTS, "Attempts that have ended, by outcome."),
    gauge(ATTEMPTS_ACTIVE, "Attempts under way."),
    seconds(ATTEMPT_DURATION, &CALL_SECONDS, "Time of an attempt, to the end of its answer."),
    counter(FAULTS, "Failures by kind."),
    counter(RETRIES, "Attempts that follow a failed one."),
    counter(RETRIES_REFUSED, "Calls that failed although another attempt might have helped."),
    seconds(RETRY_WAIT, &WAIT_SECONDS, "Time between a failed attempt and the next."),
    seconds(QUEUE_WAIT, &WAIT_SECONDS, "Time that an attempt waited in the queue for quota."),
    counter(FALLBACKS, "Attempts at another model than the attempt before."),
    seconds(OVERHEAD, &OWN_SECONDS, "Time of a call that neither the upstream nor a wait took."),
    gauge("tower_gemini.limit.used", "Requests or tokens that currently count against a limit."),
    gauge("tower_gemini.limit.max", "The limit in force."),
    gauge("tower_gemini.limit.blocked", "Scopes that the upstream has blocked."),
    gauge("tower_gemini.limit.waiting", "Calls in the queue for quota."),
    gauge("tower_gemini.caller.used", "Requests, tokens or dollars that count against a limit of a caller's."),
    gauge("tower_gemini.caller.max", "The limit of the caller."),
    gauge("tower_gemini.breaker.state", "Circuit breakers in a state."),
    counter("tower_gemini.breaker.transitions", "Changes of a breaker's state."),
    gauge("tower_gemini.key.state", "Keys in a state."),
    counter("tower_gemini.key.uses", "Calls sent with a key."),
    bytes("tower_gemini.kept.used", "Bytes of requests' bodies that are kept."),
    bytes("tower_gemini.kept.max", "The most bytes of requests' bodies that are kept."),
    gauge("tower_gemini.kept.bodies", "Requests' bodies that are kept."),
    gauge("tower_gemini.kept.callers", "Callers whose requests' bodies are kept."),
    counter("tower_gemini.kept.refused", "Requests' bodies that were not kept."),
];
