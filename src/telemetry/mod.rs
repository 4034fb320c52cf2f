//! Says what calls and attempts come to, in spans and metrics.
//!
//! Without this layer a program sees that calls are slow or fail, and not why. The answer came after nine seconds: was it
//! the model, the queue for its quota, or the wait after two busy answers? Each layer logs by itself at best, a generic
//! tracing layer knows a status and a path, and the path may hold a key.
//!
//! This layer reads what the other layers say of a call and hands it on: to `tracing` as one span for the call and one for
//! each attempt, to the `metrics` facade (feature `metrics`) as counters and histograms, in the words of OpenTelemetry's
//! conventions for generative AI where they have one. Whatever a program has installed for either takes it from there: an
//! OTLP exporter, Prometheus, a log. A record begins with the call and ends with its answer's body, so that a stream's time
//! is the stream's, and what breaks after the first content is seen.
//!
//! It never changes a call or an answer, never waits, never shows a key, a path, or a word of anybody's text, and never
//! makes a label of a name that a caller can invent. Where nobody listens it does nothing.
//!
//! ```
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_gemini::{ClassifyLayer, RetryLayer, TelemetryLayer, TimeoutLayer};
//! use tower_gemini::emulator::{Emulator, Trouble, When};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! let upstream = Emulator::builder().trouble(When::first(1), Trouble::overloaded()).build();
//! // One span for the call, and one for each of its two attempts.
//! let service = ServiceBuilder::new()
//!     .layer(TelemetryLayer::call())
//!     .layer(TimeoutLayer::total(TimeoutLayer::TOTAL))
//!     .layer(RetryLayer::default())
//!     .layer(TelemetryLayer::attempt())
//!     .layer(TimeoutLayer::attempt(TimeoutLayer::ATTEMPT))
//!     .layer(ClassifyLayer::new())
//!     .service(upstream);
//!
//! let request = Request::post("/v1beta/models/gemini-2.5-flash:generateContent")
//!     .header("x-goog-api-key", "your-key")
//!     .body(Full::<bytes::Bytes>::from(r#"{"contents": [{"parts": [{"text": "Hello!"}]}]}"#))?;
//! let response = service.oneshot(request).await?;
//! // The spans end here, with the body.
//! response.into_body().collect().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Metrics, and what stands in the handles, which no call says:
//!
//! ```
//! # #[cfg(feature = "metrics")]
//! # fn main() -> Result<(), tower_gemini::BoxError> {
//! use tower_gemini::{TelemetryLayer, circuit_breaker::CircuitBreakers, rate_limit::Limiter, telemetry};
//!
//! // With the recorder that the program has installed.
//! telemetry::describe();
//! let (limiter, breakers) = (Limiter::new(), CircuitBreakers::new());
//! let layer = TelemetryLayer::call();
//! let gauges = layer.gauges().watch(limiter.clone()).watch(breakers.clone());
//! // At a scrape; or spawn `gauges.report_every(Duration::from_secs(10))`.
//! gauges.report();
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "metrics"))]
//! # fn main() {}
//! ```
//!
//! # Spans
//!
//! `gemini.call` and `gemini.attempt`, at the level INFO, both of the target `tower_gemini::telemetry`. What is not known is
//! left out. Times are in seconds. Text of the caller's or the upstream's (a model, a finish reason, a host) is redacted and
//! cut to 128 bytes.
//!
//! | attribute | call | attempt | what it is |
//! |---|---|---|---|
//! | `otel.name` | yes | yes | `generate_content gemini-2.5-pro`, `attempt gemini-2.5-pro` |
//! | `otel.kind` | yes | yes | `client` |
//! | `otel.status_code` | yes | yes | `ERROR` where it failed |
//! | `gen_ai.operation.name` | yes | no | `generate_content`, `chat` (OpenAI-compatible), `embeddings`; else the API's: `count_tokens`, … |
//! | `gen_ai.provider.name` | yes | yes | `gcp.gemini`, `gcp.vertex_ai`, or `gcp.gen_ai` for a path that is none of the API's |
//! | `gen_ai.request.model` | yes | yes | the model that was asked; the call's is the first |
//! | `gen_ai.request.stream` | yes | no | whether the answer was to stream |
//! | `gen_ai.response.model` | yes | yes | the model that answered, as it calls itself |
//! | `gen_ai.response.finish_reasons` | yes | yes | `["STOP"]` |
//! | `gen_ai.response.time_to_first_chunk` | yes | no | of a stream, to the first frame with data: with `ClassifyLayer` inside, its first content |
//! | `gen_ai.usage.input_tokens` | yes | no | what tools have returned included |
//! | `gen_ai.usage.output_tokens` | yes | no | thoughts included |
//! | `gen_ai.usage.cache_read.input_tokens` | yes | no | the input that came from a cache |
//! | `gen_ai.usage.reasoning.output_tokens` | yes | no | thoughts |
//! | `error.type` | yes | yes | the failure's [`Kind`](crate::failure::Kind), or `cancelled_by_caller` |
//! | `http.request.method` | yes | yes | `POST` |
//! | `http.request.resend_count` | no | yes | which resend it is, from 1 |
//! | `http.response.status_code` | yes | yes | of the answer, if there was one |
//! | `server.address` | yes | yes | the host in the URI; a server's URIs have none |
//! | `server.port` | yes | yes | its port |
//! | `tower_gemini.outcome` | yes | yes | `ok`, `cancelled`, or whose [`Fault`](crate::failure::Fault) it was |
//! | `tower_gemini.attempts` | yes | no | attempts, as `RetryLayer` counts them; without it, as they were seen |
//! | `tower_gemini.key` | no | yes | the key's fingerprint |
//! | `tower_gemini.project` | no | yes | the key's project |
//! | `tower_gemini.queue.wait` | yes | yes | the wait for a turn |
//! | `tower_gemini.retry.after` | no | yes | what the attempt before failed of: that is why there is this one |
//! | `tower_gemini.retry.wait` | yes | yes | the time from that failure to this attempt; all of them together |
//! | `tower_gemini.retry.gave_up` | yes | no | why there was no further attempt: `attempts`, `budget`, `wait` |
//! | `tower_gemini.fallback.from` | no | yes | the model that the attempt before has asked, if that was another |
//!
//! Whatever logs while a layer inside is polled logs within the attempt's span: a breaker that opens, for example.
//!
//! # Metrics
//!
//! `gen_ai.request.model` and `gen_ai.response.model` are `other` until a good answer has confirmed that there is such a
//! model, and past 64 models; empty where a call has none. `outcome` and `error.type` are as in spans.
//!
//! | metric | kept as, unit | labels | what it is |
//! |---|---|---|---|
//! | `gen_ai.client.operation.duration` | histogram, s | `gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.request.model`, `gen_ai.response.model`, `error.type` | a call, to the end of its answer |
//! | `gen_ai.client.operation.time_to_first_chunk` | histogram, s | `gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.request.model`, `gen_ai.response.model` | a streaming call, to the first chunk of its answer |
//! | `gen_ai.client.token.usage` | histogram | `gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.request.model`, `gen_ai.response.model`, `gen_ai.token.type` | input tokens and output tokens of a call |
//! | `tower_gemini.time_per_output_token` | histogram, s | `gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.request.model`, `gen_ai.response.model` | a stream's time from its first chunk to its last, by output tokens after the first |
//! | `tower_gemini.calls` | counter | `gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.request.model`, `outcome` | calls that have ended |
//! | `tower_gemini.calls.active` | gauge | | calls under way |
//! | `tower_gemini.attempts` | counter | `gen_ai.request.model`, `outcome` | attempts that have ended, refusals by layers inside included (`local`) |
//! | `tower_gemini.attempts.active` | gauge | | attempts under way |
//! | `tower_gemini.attempt.duration` | histogram, s | `gen_ai.request.model`, `outcome` | an attempt, its wait in the queue included, to the end of its answer |
//! | `tower_gemini.faults` | counter | `at`, `fault`, `error.type`, `gen_ai.request.model` | failures: `at` is `attempt`, or `call` for those that the caller has seen |
//! | `tower_gemini.retries` | counter | `error.type`, `gen_ai.request.model` | attempts after a failed one, by what that failed of |
//! | `tower_gemini.retries.refused` | counter | `reason`, `gen_ai.request.model` | calls that another attempt might have saved: `attempts` (all were made), `budget` (was empty), `wait` (would have been too long) |
//! | `tower_gemini.retry.wait` | histogram, s | `error.type`, `gen_ai.request.model` | from a failure to the next attempt |
//! | `tower_gemini.queue.wait` | histogram, s | `gen_ai.request.model` | the wait for a turn, of attempts that had to |
//! | `tower_gemini.fallbacks` | counter | `tower_gemini.fallback.from`, `gen_ai.request.model` | attempts that ask another model than the one before |
//! | `tower_gemini.overhead` | histogram, s | | what of a call's time to its answer's head neither an attempt nor a wait took: reading the request's body, checks, the layers themselves |
//! | `tower_gemini.limit.used` | gauge | `tower_gemini.project`, `gen_ai.request.model`, `dimension` | what counts at the moment |
//! | `tower_gemini.limit.max` | gauge | `tower_gemini.project`, `gen_ai.request.model`, `dimension` | the limit in force |
//! | `tower_gemini.limit.blocked` | gauge | `tower_gemini.project`, `gen_ai.request.model` | 1 while the upstream has blocked it |
//! | `tower_gemini.limit.waiting` | gauge | `tower_gemini.project`, `gen_ai.request.model` | calls in the queue |
//! | `tower_gemini.breaker.state` | gauge | `gen_ai.request.model`, `server.address`, `state` | 1 for the [`State`](crate::circuit_breaker::State) that it is in, 0 for the others |
//! | `tower_gemini.breaker.transitions` | counter | `gen_ai.request.model`, `server.address`, `state` | how often it has come to that state |
//! | `tower_gemini.key.state` | gauge | `tower_gemini.key`, `tower_gemini.project`, `gen_ai.request.model`, `state` | 1 for the [`KeyState`](crate::key_pool::KeyState) that it is in, 0 for the others: `active`, `cooling`, `exhausted`, `disabled` |
//! | `tower_gemini.key.uses` | counter | `tower_gemini.key`, `tower_gemini.project`, `gen_ai.request.model` | how many calls have been sent with it |
//!
//! The gauges of limits, breakers and keys (no model's, by their fingerprints) come from [`Gauges`]; for `other` they are added up. What is gone is reported as zero
//! once. A handle of your own that is [`Observe`](crate::observe::Observe) joins them.
//!
//! The conventions' `gen_ai.client.operation.time_per_output_chunk` is left out: a frame of a body is neither an event nor a
//! token, and one record a frame is the dearest there is.
//!
//! # Defaults
//!
//! | what | value | why |
//! |---|---|---|
//! | models known by name | 64, up to 128 bytes | the API's list has about 50; a label is kept for ever |
//! | foreign text in a span | 128 bytes | a name, not a message |
//! | [`Gauges::report_every`], at least | 1 s apart | a picture of all scopes takes each one's lock for a moment |
//!
//! # Costs
//!
//! Where nobody listens, with the feature `metrics` on: 30 to 80 ns a layer, and no allocation; in the benchmark
//! (`cargo bench -p benches --bench overhead -- telemetry`, in three runs on a busy machine with two cores) 116 to 155 ns for both,
//! around an answer in one piece that `ClassifyLayer` reads. Whether there is a recorder is found out from the gauge of what is under way: a recorder
//! that ignores that gauge (`tower_gemini.calls.active`, `tower_gemini.attempts.active`) gets nothing of the layer at all.
//!
//! Where somebody listens, a call with one attempt costs in the same benchmark:
//!
//! | who listens | time | allocations |
//! |---|---|---|
//! | a subscriber that keeps no fields | 2.4 to 3.4 µs | 25 |
//! | tracing-opentelemetry, without an exporter | 9 to 11 µs | 95 |
//! | metrics-exporter-prometheus | 4.4 to 6 µs | 53 |
//! | the latter two | 11 to 14 µs | 123 |
//!
//! and a reading of the clock for each frame.
//!
//! # Errors
//!
//! None of its own. An answer's body gives its errors back in a box.
//!
//! # Cancellation
//!
//! A call that is dropped, before its answer or in the middle of it, is recorded as `cancelled`, with all that was known by
//! then; so is an attempt that a layer outside has given up, when the total deadline passes for example. A stream that is
//! dropped after its finish reason had all that matters: it is `ok`. What had failed before it was dropped has failed.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's. The call is passed on at once, within its span; no lock is held while anything is
//! polled.
//!
//! # Words read and written
//!
//! Reads of [`CallContext`](crate::CallContext) the call, the attempt's number and why it is made; of
//! [`Outcome`](crate::Outcome) the failure, attempts, model, key, project, the usage and
//! [why it gave up](crate::Outcome::gave_up). While somebody listens it puts a tally into the
//! `CallContext`, where there is none; the attempts, `RetryLayer` and `RateLimitLayer` add to it. Without
//! [`ClassifyLayer`](crate::ClassifyLayer) inside there are no tokens and no finish reason; without `call()` outside, attempts
//! know nothing of each other, and there are no fallbacks; without `attempt()` inside there is no overhead, and the model of
//! an OpenAI-compatible call, which stands in the body, is not known.

mod body;
mod future;
#[cfg(feature = "metrics")]
mod gauges;
mod layer;
mod meter;
mod record;
mod service;
mod spans;
mod words;

#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub use self::gauges::Gauges;
pub use self::{body::TelemetryBody, future::ResponseFuture, layer::TelemetryLayer, service::Telemetry};

/// Tells the recorder the units and meanings of all metrics in the table, for exporters that show them. Once, after the
/// recorder is installed.
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub fn describe() {
    use self::meter::{METRICS, Type};
    for metric in METRICS {
        match metric.kept_as {
            Type::Counter => metrics::describe_counter!(metric.name, metric.unit, metric.meaning),
            Type::Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.meaning),
            Type::Histogram => metrics::describe_histogram!(metric.name, metric.unit, metric.meaning),
        }
    }
}
