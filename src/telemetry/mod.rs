//! Telemetry: records calls and attempts as spans and metrics.
//!
//! Without this layer a program sees that calls are slow or fail, and not why. The answer came after nine seconds: was
//! it the model, the queue for its quota, or the wait after two busy answers? Each layer logs by itself at most, a
//! generic tracing layer knows a status and a path, and the path may hold a key.
//!
//! This layer reads what the other layers write about a call and hands it on: to `tracing` as one span for the call and
//! one for each attempt, to the `metrics` facade (feature `metrics`) as counters and histograms, in the terms of
//! OpenTelemetry's [conventions](#conventions) for generative AI where these have one. From there it goes to the subscriber and the
//! recorder that the program has installed: an OTLP exporter, Prometheus, a log. A record begins with the call and ends
//! with its answer's body, so that a stream is timed to its last event, and a stream that breaks after its first
//! content is seen.
//!
//! It never changes a call or an answer, never waits, never shows a key, a path, or text of a prompt or an answer, and
//! never makes a label of a name that a caller can invent. Without a subscriber and a recorder it does nothing.
//!
//! # When to use it
//!
//! In every program that someone operates; without a subscriber and a recorder it costs 50 to 100 ns a layer (see
//! [Costs](#costs)). tower-http's `TraceLayer` records one span a request, with a status and what your own callbacks
//! add; it sees neither attempts nor tokens, and takes a 200 that carries an error for a success. Programs that keep it
//! give it this crate's [`GeminiClassifier`](crate::trace::GeminiClassifier) (feature `trace`).
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
//! The metrics of calls, and of handles, whose state no call shows:
//!
//! ```
//! # #[cfg(feature = "metrics")]
//! # fn main() -> Result<(), tower_gemini::BoxError> {
//! use tower_gemini::{TelemetryLayer, circuit_breaker::CircuitBreakers, rate_limit::Limiter, telemetry};
//!
//! // Describes the metrics to the recorder that the program has installed.
//! telemetry::describe(telemetry::Conventions::default());
//! let (limiter, breakers) = (Limiter::new(), CircuitBreakers::new());
//! let layer = TelemetryLayer::call();
//! let gauges = layer.gauges().watch(limiter.clone()).watch(breakers.clone());
//! // Call it at each scrape; or spawn `gauges.report_every(Duration::from_secs(10))`.
//! gauges.report();
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "metrics"))]
//! # fn main() {}
//! ```
//!
//! # Conventions
//!
//! OpenTelemetry's conventions for generative AI have left the common repository for one of their own. The layer speaks
//! [v0.1.0](Conventions::V0_1), its first release; [`TelemetryLayer::conventions`] chooses the names of
//! [1.41](Conventions::V1_41), the last of the common one, for dashboards that were made for them. It is one or the
//! other: no metric of one has a name of the other. The environment is not read; `OTEL_SEMCONV_STABILITY_OPT_IN` is for
//! instrumentations that were published with older names. All of v0.1.0 has the status "development", and may change.
//!
//! | v0.1.0 | 1.41 | difference |
//! |---|---|---|
//! | `gen_ai.client.inference.duration`, `gen_ai.client.embeddings.duration`, `tower_gemini.call.duration` | `gen_ai.client.operation.duration` | the conventions tell answers of models and embeddings apart, and have no name for other calls |
//! | `gen_ai.client.inference.time_to_first_chunk` | `gen_ai.client.operation.time_to_first_chunk` | |
//! | `gen_ai.client.inference.usage.input_tokens` and three more counters | `gen_ai.client.token.usage` | counters in place of one histogram, by modality |
//! | operation `fetch_response` | operation `read` | an answer that is fetched by its id |
//! | an event for a failed call | none | see [Spans](#spans) |
//! | `gen_ai.request.stream` of streams only | of all calls | |
//!
//! **An answer that is fetched by its id** (`GET interactions/{id}`) spends no tokens, by neither version: none of its
//! attributes and metrics has the tokens that are in it, or an interaction in the background would be counted with each
//! poll. The answer that created such an interaction had no tokens yet. They are in `tower_gemini.background.…`: counted
//! once, with the first poll that has them, under the operation and model that created it. For that, a layer remembers
//! the last 4,096 interactions; one that was created through another process is not counted in this one.
//!
//! **A conversation** has no id in the Interactions API: each interaction names the one before it. `gen_ai.conversation.id`
//! is the id of the first interaction of the chain that this layer has seen, or that one's predecessor; the one that the
//! request names, where it names one (`conversation` of `responses`).
//!
//! **An agent** in place of a model is `invoke_agent {agent}`. It is asked by the same request as a model, and its times
//! and tokens are those of inference; in metrics, `gen_ai.request.model` is `agents/{agent}`, the name under which its
//! quota is counted.
//!
//! # Spans
//!
//! The spans are `gemini.call` and `gemini.attempt`, at the level INFO and with the target `tower_gemini::telemetry`.
//! Attributes that are not known are left out. Times are in seconds. Text of the caller's or the upstream's (a model, an
//! id, a finish reason, a host) is redacted and cut to 128 bytes.
//!
//! | attribute | call | attempt | by 1.41 | meaning |
//! |---|---|---|---|---|
//! | `otel.name` | yes | yes | yes | `generate_content gemini-2.5-pro`, `attempt gemini-2.5-pro` |
//! | `otel.kind` | yes | yes | yes | `client` |
//! | `otel.status_code` | yes | yes | yes | `ERROR` on a failure |
//! | `gen_ai.operation.name` | yes | no | yes | `generate_content` (Interactions, too), `chat` (OpenAI-compatible), `invoke_agent`, `embeddings`, `fetch_response`; else the API's: `count_tokens`, … |
//! | `gen_ai.provider.name` | yes | yes | yes | `gcp.gemini`, `gcp.vertex_ai`, or `gcp.gen_ai` for a path that is not one of the API's |
//! | `gen_ai.request.model` | yes | yes | yes | the model that was asked; for a call, the first one |
//! | `gen_ai.agent.name` | yes | no | yes | the agent that was asked, in place of a model |
//! | `gen_ai.request.stream` | yes | no | yes | `true` for a streaming call |
//! | `gen_ai.request.reasoning.level` | yes | no | no | the level of reasoning that was asked for, as the caller spells it: `thinkingLevel`, `thinking_level`, `reasoning_effort`, `reasoning.effort`. A budget of tokens is not a level |
//! | `gen_ai.request.previous_response.id` | yes | no | no | `previous_interaction_id`, `previous_response_id` |
//! | `gen_ai.conversation.id` | yes | no | yes | the conversation; see [Conventions](#conventions) |
//! | `gen_ai.response.id` | yes | no | yes | the answer's id |
//! | `gen_ai.response.model` | yes | yes | yes | the model that answered, as it calls itself |
//! | `gen_ai.response.finish_reasons` | yes | yes | yes | `["STOP"]`; by v0.1.0 `["error"]` for an answer that broke off before its reason |
//! | `gen_ai.response.time_to_first_chunk` | yes | no | yes | the time to a stream's first frame with data; with `ClassifyLayer` inside, to its first content |
//! | `gen_ai.usage.input_tokens` | yes | no | yes | input tokens, those from a cache and the results of tools included |
//! | `gen_ai.usage.output_tokens` | yes | no | yes | output tokens, thoughts included |
//! | `gen_ai.usage.cache_read.input_tokens` | yes | no | yes | input tokens that came from a cache |
//! | `gen_ai.usage.reasoning.output_tokens` | yes | no | yes | tokens of thoughts |
//! | `gen_ai.usage.text.input_tokens` | yes | no | no | of the input tokens, those of text. The conventions have no attribute for video and documents |
//! | `gen_ai.usage.image.input_tokens` | yes | no | no | of images |
//! | `gen_ai.usage.audio.input_tokens` | yes | no | no | of audio |
//! | `gen_ai.usage.text.cache_read.input_tokens` | yes | no | no | of the input tokens that came from a cache, those of text |
//! | `gen_ai.usage.image.cache_read.input_tokens` | yes | no | no | of images |
//! | `gen_ai.usage.audio.cache_read.input_tokens` | yes | no | no | of audio |
//! | `gen_ai.usage.text.output_tokens` | yes | no | no | of the output tokens, those of text; the upstream may leave thoughts out |
//! | `gen_ai.usage.image.output_tokens` | yes | no | no | of images |
//! | `gen_ai.usage.audio.output_tokens` | yes | no | no | of audio |
//! | `error.type` | yes | yes | yes | the failure's [`Kind`](crate::failure::Kind), or `cancelled_by_caller` |
//! | `http.request.method` | yes | yes | yes | `POST` |
//! | `http.request.resend_count` | no | yes | yes | the number of the resend, from 1 |
//! | `http.response.status_code` | yes | yes | yes | the status of the answer |
//! | `server.address` | yes | yes | yes | the host in the URI; requests that a server takes have none |
//! | `server.port` | yes | yes | yes | the host's port |
//! | `tower_gemini.request.service_tier` | yes | no | yes | the [service tier](crate::call::ServiceTier) that was asked for |
//! | `tower_gemini.response.service_tier` | yes | no | yes | the tier that served, as the upstream spells it |
//! | `tower_gemini.outcome` | yes | yes | yes | `ok`, `cancelled`, or the [`Fault`](crate::failure::Fault) of the failure |
//! | `tower_gemini.attempts` | yes | no | yes | the number of attempts, as `RetryLayer` counts them; without it, as `TelemetryLayer::attempt` does |
//! | `tower_gemini.key` | no | yes | yes | the key's fingerprint |
//! | `tower_gemini.project` | no | yes | yes | the key's project |
//! | `tower_gemini.queue.wait` | yes | yes | yes | the time in the queue for quota |
//! | `tower_gemini.retry.after` | no | yes | yes | the kind of the failure before, which is the reason for this attempt |
//! | `tower_gemini.retry.wait` | yes | yes | yes | the time from that failure to this attempt; for a call, the sum of these times |
//! | `tower_gemini.retry.gave_up` | yes | no | yes | the reason for which no further attempt was made: `attempts`, `budget`, `wait` |
//! | `tower_gemini.fallback.from` | no | yes | yes | the model that the attempt before has asked, if it was another one |
//!
//! By v0.1.0 a call for an answer that fails has an event within its span, `gen_ai.client.inference.exception`, at the
//! level WARN and with the target `tower_gemini::telemetry::exception`. Its `exception.type` is the failure's kind, and
//! its `exception.message` the [meaning](crate::failure::Kind::advice) of that kind, not the upstream's words, which may
//! repeat the prompt. A subscriber that prints events prints it, too; a filter can leave out the target.
//!
//! A layer inside logs within the attempt's span: a circuit breaker that opens, for example.
//!
//! # Metrics
//!
//! `gen_ai.request.model` and `gen_ai.response.model` are `other` until somebody other than the caller says that there is such
//! a model: the program ([`TelemetryLayer::name_models`]), a table ([`TelemetryLayer::list_models`]), or a good answer, of
//! which the first 64 such models count; they are empty for a call without a model. `outcome` and
//! `error.type` are as in spans. `tower_gemini.service_tier` is the tier that served, else the one that was asked for:
//! `standard`, `flex`, `priority`, `deferred`, `provisioned_throughput` or `other`.
//!
//! ## By v0.1.0
//!
//! | metric | instrument, unit | labels | meaning |
//! |---|---|---|---|
//! | `gen_ai.client.inference.duration` | histogram, s | `gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.request.model`, `gen_ai.response.model`, `tower_gemini.service_tier`, `error.type` | the time of a call for an answer of a model or an agent, to the end of its answer |
//! | `gen_ai.client.inference.time_to_first_chunk` | histogram, s | `gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.request.model`, `gen_ai.response.model`, `tower_gemini.service_tier` | the time of a streaming call, to the first chunk of its answer; of streams only |
//! | `gen_ai.client.inference.usage.input_tokens` | counter | `gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.request.model`, `gen_ai.response.model`, `tower_gemini.service_tier`, `gen_ai.token.modality` | input tokens, those from a cache and the results of tools included |
//! | `gen_ai.client.inference.usage.output_tokens` | counter | `gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.request.model`, `gen_ai.response.model`, `tower_gemini.service_tier`, `gen_ai.token.modality` | output tokens, thoughts included |
//! | `gen_ai.client.inference.usage.cache_read.input_tokens` | counter | `gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.request.model`, `gen_ai.response.model`, `tower_gemini.service_tier`, `gen_ai.token.modality` | of the input tokens, those that came from a cache: the quotient is the share of the cache |
//! | `gen_ai.client.inference.usage.reasoning.output_tokens` | counter | `gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.request.model`, `gen_ai.response.model`, `tower_gemini.service_tier`, `gen_ai.token.modality` | of the output tokens, those of thoughts |
//! | `gen_ai.client.inference.operation.input_tokens` | histogram | `gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.request.model`, `gen_ai.response.model`, `tower_gemini.service_tier` | the input tokens of a call; only where [asked for](TelemetryLayer::token_histograms) |
//! | `gen_ai.client.inference.operation.output_tokens` | histogram | `gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.request.model`, `gen_ai.response.model`, `tower_gemini.service_tier` | the output tokens of a call; only where [asked for](TelemetryLayer::token_histograms) |
//! | `gen_ai.client.embeddings.duration` | histogram, s | `gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.request.model`, `gen_ai.response.model`, `error.type` | the time of a call for embeddings |
//! | `gen_ai.client.embeddings.operation.input_tokens` | histogram | `gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.request.model`, `gen_ai.response.model` | the input tokens of a call for embeddings |
//! | `tower_gemini.tier.calls` | counter | `tower_gemini.service_tier.asked`, `tower_gemini.service_tier`, `gen_ai.request.model`, `outcome` | calls for an answer, by the tier that was asked for and the one that served: `not_said` where the answer does not say it |
//! | `tower_gemini.call.duration` | histogram, s | `gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.request.model`, `gen_ai.response.model`, `error.type` | the time of any other call: counting, lists, files, answers that are fetched |
//!
//! `gen_ai.token.modality` is `text`, `image`, `audio`, `video`, `document`, or `unknown` for tokens of which the
//! upstream does not say it: those of thoughts, and all where it gives no details. The parts of a call add up to its
//! count. A call whose answer has no count adds 0, as the conventions have it. Two metrics of the conventions are left
//! out. `gen_ai.client.inference.usage.cache_write.input_tokens` would always be 0, which is not true: the API does not
//! say what it writes to its caches. `gen_ai.client.inference.time_per_output_chunk` would be one record for each frame
//! of a body, which is neither an event nor a token, and would cost more than all others together.
//!
//! ## By 1.41
//!
//! | metric | instrument, unit | labels | meaning |
//! |---|---|---|---|
//! | `gen_ai.client.operation.duration` | histogram, s | `gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.request.model`, `gen_ai.response.model`, `error.type` | the time of a call, to the end of its answer |
//! | `gen_ai.client.operation.time_to_first_chunk` | histogram, s | `gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.request.model`, `gen_ai.response.model` | the time of a streaming call, to the first chunk of its answer |
//! | `gen_ai.client.token.usage` | histogram | `gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.request.model`, `gen_ai.response.model`, `gen_ai.token.type` | input tokens and output tokens of a call |
//!
//! ## Of this crate
//!
//! | metric | instrument, unit | labels | meaning |
//! |---|---|---|---|
//! | `tower_gemini.background.input_tokens` | counter | `gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.request.model` | input tokens of interactions that answered without their tokens, once the first poll has them; the labels are those of the call that created the interaction |
//! | `tower_gemini.background.output_tokens` | counter | `gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.request.model` | their output tokens, thoughts included |
//! | `tower_gemini.time_per_output_token` | histogram, s | `gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.request.model`, `gen_ai.response.model` | a stream's time from its first chunk to its last, divided by the output tokens after the first |
//! | `tower_gemini.calls` | counter | `gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.request.model`, `outcome` | calls that have ended |
//! | `tower_gemini.calls.active` | gauge | | calls under way |
//! | `tower_gemini.attempts` | counter | `gen_ai.request.model`, `outcome` | attempts that have ended; refusals by layers inside are included, as `local` |
//! | `tower_gemini.attempts.active` | gauge | | attempts under way |
//! | `tower_gemini.attempt.duration` | histogram, s | `gen_ai.request.model`, `outcome` | the time of an attempt, its wait in the queue included, to the end of its answer |
//! | `tower_gemini.faults` | counter | `at`, `fault`, `error.type`, `gen_ai.request.model` | failures; `at` is `attempt`, or `call` for those that the caller saw |
//! | `tower_gemini.retries` | counter | `error.type`, `gen_ai.request.model` | attempts that follow a failed one, by the kind of that failure |
//! | `tower_gemini.retries.refused` | counter | `reason`, `gen_ai.request.model` | failed calls that another attempt might have saved, by the reason why none was made: `attempts` (all were made), `budget` (it was empty), `wait` (it would have been too long) |
//! | `tower_gemini.retry.wait` | histogram, s | `error.type`, `gen_ai.request.model` | the time from a failure to the next attempt |
//! | `tower_gemini.queue.wait` | histogram, s | `gen_ai.request.model` | the time in the queue for quota, of attempts that had to wait |
//! | `tower_gemini.fallbacks` | counter | `tower_gemini.fallback.from`, `gen_ai.request.model` | attempts at another model than the attempt before |
//! | `tower_gemini.overhead` | histogram, s | | a call's time to its answer's head that neither an attempt nor a wait took: reading the request's body, checks, the layers themselves |
//! | `tower_gemini.limit.used` | gauge | `tower_gemini.project`, `gen_ai.request.model`, `dimension` | the requests or tokens that currently count against the limit |
//! | `tower_gemini.limit.max` | gauge | `tower_gemini.project`, `gen_ai.request.model`, `dimension` | the limit in force |
//! | `tower_gemini.limit.blocked` | gauge | `tower_gemini.project`, `gen_ai.request.model` | 1 while the upstream blocks the project and model |
//! | `tower_gemini.limit.waiting` | gauge | `tower_gemini.project`, `gen_ai.request.model` | calls in the queue |
//! | `tower_gemini.caller.used` | gauge | `tower_gemini.caller`, `gen_ai.request.model`, `dimension` | what a caller whom the settings name has used of a limit: requests, tokens or dollars; without a model for all calls |
//! | `tower_gemini.caller.max` | gauge | `tower_gemini.caller`, `gen_ai.request.model`, `dimension` | the limit |
//! | `tower_gemini.breaker.state` | gauge | `gen_ai.request.model`, `server.address`, `state` | 1 for the breaker's [`State`](crate::circuit_breaker::State), 0 for the others |
//! | `tower_gemini.breaker.transitions` | counter | `gen_ai.request.model`, `server.address`, `state` | the number of times that the breaker has come to that state |
//! | `tower_gemini.key.state` | gauge | `tower_gemini.key`, `tower_gemini.project`, `gen_ai.request.model`, `state` | 1 for the key's [`KeyState`](crate::key_pool::KeyState), 0 for the others: `active`, `cooling`, `exhausted`, `disabled` |
//! | `tower_gemini.key.uses` | counter | `tower_gemini.key`, `tower_gemini.project`, `gen_ai.request.model` | calls sent with the key |
//! | `tower_gemini.kept.used` | gauge, By | `gen_ai.request.model` | the bytes of requests' bodies that are kept to be sent again; the model is empty, as for the next four |
//! | `tower_gemini.kept.max` | gauge, By | `gen_ai.request.model` | the most bytes that are kept |
//! | `tower_gemini.kept.bodies` | gauge | `gen_ai.request.model` | the bodies that are kept |
//! | `tower_gemini.kept.callers` | gauge | `gen_ai.request.model` | the callers that have sent them |
//! | `tower_gemini.kept.refused` | counter | `reason`, `gen_ai.request.model` | bodies that were not kept, so that their calls had one attempt: `too_large`, `no_room` (in all), `caller_share` (there was no room in the caller's) |
//!
//! A breaker of another service tier than the standard one also has `tower_gemini.service_tier`.
//!
//! The metrics of limits, callers, breakers, keys and kept bodies come from [`Gauges`]. Values of models whose label is `other` are added up;
//! a state of a key that holds for all models has an empty model. A gauge that is gone is reported as zero once. A
//! handle of your own joins them if it is [`Observe`](crate::observe::Observe).
//!
//! # Defaults
//!
//! | setting | value | why |
//! |---|---|---|
//! | conventions | v0.1.0 | the first release of their own repository |
//! | models known by name | 64 by answers, 1,024 by the program, all of a table; up to 128 bytes | the API's list has about 50; a label is permanent |
//! | interactions that are remembered | 4,096, ids up to 256 bytes | about 2 MB at most; the API's ids have about 90 bytes |
//! | instruments that are kept | those of 256 series, for 1 s | an exporter that drops what was idle for a longer time loses nothing |
//! | foreign text in a span | 128 bytes | a name, not a message |
//! | shortest period of [`Gauges::report_every`] | 1 s | a report takes each scope's lock for a moment |
//!
//! # Costs
//!
//! Without a subscriber and a recorder, with the feature `metrics` on, a layer takes 50 to 100 ns and allocates nothing.
//! In the benchmark (`cargo bench -p benches --bench overhead -- telemetry`, on two cores) the call's and the attempt's
//! layer together take some 190 ns, around an answer in one piece that
//! `ClassifyLayer` reads. The layer learns from the gauge of calls under way whether there is a recorder: one that
//! ignores that gauge (`tower_gemini.calls.active`, `tower_gemini.attempts.active`) gets no metrics at all.
//!
//! With a subscriber or a recorder, a call with one attempt costs in the same benchmark:
//!
//! | subscriber or recorder | time | allocations |
//! |---|---|---|
//! | a subscriber that keeps no fields | 3 µs | 14 |
//! | tracing-opentelemetry, without an exporter | 10 µs | 90 |
//! | metrics-exporter-prometheus | 4 µs | 17 |
//! | the latter two | 11 µs | 93 |
//!
//! and a reading of the clock for each frame of its answer.
//!
//! metrics-exporter-prometheus 0.18 keeps each value of a histogram, 16 bytes each, until somebody renders it. A program that
//! installs its recorder without its listener calls `PrometheusHandle::run_upkeep` every few seconds.
//!
//! # Errors
//!
//! It has none of its own. An answer's body returns its errors in a box.
//!
//! # Cancellation
//!
//! A call that is dropped, before its answer or in the middle of it, is recorded as `cancelled`, with all that was
//! known by then; so is an attempt that a layer outside gave up, for example because the total deadline has passed. A
//! stream that is dropped after its finish reason is `ok`: its answer was whole. A call that failed before it was
//! dropped has failed.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's. The call is passed on at once, within its span; no lock is held while anything
//! is polled.
//!
//! # Words read and written
//!
//! Reads from [`CallContext`](crate::CallContext) the call, the attempt's number and the reason for it; from
//! [`Outcome`](crate::Outcome) the failure, attempts, model, key, project, usage and
//! [the reason for giving up](crate::Outcome::gave_up). With a subscriber or a recorder it puts a tally into a
//! `CallContext` that has none; the attempts, `ReplayLayer`, `RetryLayer` and `RateLimitLayer` add to it. Without
//! [`ClassifyLayer`](crate::ClassifyLayer) inside there are no tokens and no finish reason; without `call()` outside,
//! attempts know nothing of each other, and there are no fallbacks; without `attempt()` inside there is no overhead,
//! and the model of an OpenAI-compatible call, which stands in the body, is not known, nor the tier that was asked for;
//! without [`ReplayLayer`](crate::ReplayLayer) between the two, nothing of what stands in the body is.

mod body;
mod conventions;
mod future;
#[cfg(feature = "metrics")]
mod gauges;
mod interactions;
mod layer;
mod meter;
mod record;
mod service;
mod spans;
mod usage;

#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub use self::gauges::Gauges;
pub use self::{
    body::TelemetryBody, conventions::Conventions, future::ResponseFuture, layer::TelemetryLayer, service::Telemetry,
};

/// Describes all metrics of the tables to the recorder, with units and meanings, for exporters that show them. Call it
/// once, after the recorder is installed.
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub fn describe(conventions: Conventions) {
    use self::meter::Instrument;
    for metric in meter::metrics(conventions) {
        match metric.instrument {
            Instrument::Counter => metrics::describe_counter!(metric.name, metric.unit, metric.meaning),
            Instrument::Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.meaning),
            Instrument::Histogram(_) => metrics::describe_histogram!(metric.name, metric.unit, metric.meaning),
        }
    }
}

/// Returns the histograms of the tables, each with the boundaries of its buckets, for exporters that must be told. Those
/// of times are in seconds, and those that have names of the conventions are the conventions'.
///
/// ```
/// use tower_gemini::telemetry::{self, Conventions};
///
/// let (name, boundaries) = telemetry::histograms(Conventions::V0_1).next().unwrap();
/// assert_eq!(name, "gen_ai.client.inference.duration");
/// // 0.01, 0.02, 0.04, …: as the conventions have them, and two more, because a call may take 285 s.
/// assert_eq!((boundaries[0], boundaries[13], boundaries[15]), (0.01, 81.92, 327.68));
/// ```
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub fn histograms(conventions: Conventions) -> impl Iterator<Item = (&'static str, &'static [f64])> {
    meter::metrics(conventions).filter_map(|metric| match metric.instrument {
        self::meter::Instrument::Histogram(boundaries) => Some((metric.name, boundaries)),
        _ => None,
    })
}
