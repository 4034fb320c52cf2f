//! An upstream that is down is left alone, except for a look now and then whether it still is.
//!
//! Without this layer an outage is answered with more calls than an ordinary day: each one is tried again, each try waits
//! for its failure, and when the upstream comes back, all that has piled up falls on it at once. The breakers at hand do
//! not help. One that counts failures in a row opens on an ordinary day of a model that sheds half of its load, and throws
//! the other half away with it; one whose window never slides sees no outage after a long time without one; one that takes
//! a late answer of before the outage for a sign of life, or waits for ever for a probe that hangs or was dropped, does
//! harm just when it is needed.
//!
//! This layer has a breaker for each model at each endpoint. It opens when nothing succeeds any more ([`Trip::Silence`]):
//! not by a rate, which says little of a model that is short of capacity every day. Open, it refuses at once and says how
//! long; whoever wants to wait has a [`RetryLayer`](crate::RetryLayer) outside. When its time is over, exactly
//! [`half_open_max_requests`](CircuitBreakersBuilder::half_open_max_requests) probes go out. One answer closes it, and then calls
//! are let in by and by, twice as many each second. If all probes fail it stays open for longer.
//!
//! It never counts what is the caller's, the key's or the quota's fault, a caller who goes away, or a refusal of a layer
//! here; never counts a request twice because it was sent twice; never sleeps; and never takes an outcome of before its
//! last change for news.
//!
//! ```
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_gemini::{CircuitBreakerLayer, Error, circuit_breaker::{CircuitBreakers, Target, State, Trip}};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! let breakers = CircuitBreakers::builder().trip(Trip::consecutive(3)).build()?;
//! let service = CircuitBreakerLayer::new(breakers.clone()).layer(service_fn(|_: Request<Full<bytes::Bytes>>| async {
//!     Response::builder().status(503).body(Full::<bytes::Bytes>::default())
//! }));
//! let request = || Request::post("/v1beta/models/gemini-2.5-flash:generateContent").body(Full::default());
//! for _ in 0..3 {
//!     assert_eq!(service.clone().oneshot(request()?).await?.status(), 503);
//! }
//! // Nothing more is sent.
//! let error = service.clone().oneshot(request()?).await.unwrap_err();
//! let error = Error::find(&*error).unwrap();
//! assert!(error.is_circuit_open() && error.never_sent());
//! assert!(error.retry_after().unwrap().as_secs() >= 2);
//! assert_eq!(breakers.state(&Target::new("gemini-2.5-flash", "")), State::Open);
//! # Ok(())
//! # }
//! ```
//!
//! With those who wait for it to close, a limiter that lets nobody queue before it, and somebody who watches:
//!
//! ```
//! use tower::ServiceBuilder;
//! use tower_gemini::{
//!     CircuitBreakerLayer, ClassifyLayer, RateLimitLayer, RetryLayer, TimeoutLayer,
//!     circuit_breaker::CircuitBreakers, rate_limit::Limiter,
//! };
//! # use {http::{Request, Response}, http_body_util::Full, tower::service_fn};
//!
//! let breakers = CircuitBreakers::new();
//! let limiter = Limiter::builder().gate(breakers.clone()).build();
//! let mut transitions = breakers.subscribe();
//! let watch = async move {
//!     while let Some(transition) = transitions.next().await {
//!         println!("{transition}");
//!     }
//! };
//! # let upstream = service_fn(|_: Request<Full<bytes::Bytes>>| async { Response::builder().body(Full::<bytes::Bytes>::default()) });
//! let service = ServiceBuilder::new()
//!     .layer(TimeoutLayer::total(TimeoutLayer::TOTAL))
//!     .layer(RetryLayer::default())
//!     .layer(RateLimitLayer::new(limiter))
//!     .layer(CircuitBreakerLayer::new(breakers))
//!     .layer(TimeoutLayer::attempt(TimeoutLayer::ATTEMPT))
//!     .layer(ClassifyLayer::new())
//!     .service(upstream);
//! # fn check<S: tower::Service<Request<Full<bytes::Bytes>>>>(_: S) {}
//! # check(service); drop(watch);
//! ```
//!
//! # What is one breaker
//!
//! A model at an endpoint, by default; what no model's capacity decides on (counting tokens, lists, files) has a breaker of
//! its endpoint's, because a model without capacity still counts tokens. [`one_for_all`](CircuitBreakersBuilder::one_for_all) and
//! [`scope_by`](CircuitBreakersBuilder::scope_by) cut it otherwise. On the OpenAI-compatible surface the model stands in the body,
//! and is known only behind a [`ReplayLayer`](crate::ReplayLayer).
//!
//! # What says what
//!
//! | outcome | says |
//! |---|---|
//! | an answer; a stream's first content, where [`ClassifyLayer`](crate::ClassifyLayer) is inside | well |
//! | a failure that [counts](crate::failure::Failure::counts_against_upstream): overloaded, 5xx, transport, an attempt's time-out | failed |
//! | the same, of a request of which an earlier attempt has failed so | nothing new, but for a probe |
//! | 4xx, a day's or a minute's quota, blocked content, an empty answer | nothing: something answers, but is the model able to? |
//! | the caller's drop, the total deadline, a refusal of a layer inside | nothing |
//! | anything of a call that was let in before it last opened, asked for probes, or closed | nothing |
//!
//! # Defaults
//!
//! | what | value | why |
//! |---|---|---|
//! | [`trip`](CircuitBreakersBuilder::trip) | [`Trip::silence`]: 10 requests, 10 s, twice the p95 of successes | a model that answers every other call is worth calling |
//! | [`open_duration`](CircuitBreakersBuilder::open_duration) | 2 s, the first time up to 4 s | most overloads are short |
//! | [`max_open_duration`](CircuitBreakersBuilder::max_open_duration) | 10 s, by chance from 5 s | what a recovery may go unnoticed |
//! | the upstream's hint | obeyed up to 300 s | it knows better |
//! | [`half_open_max_requests`](CircuitBreakersBuilder::half_open_max_requests) | 2 | one can be unlucky |
//! | [`probe_lease`](CircuitBreakersBuilder::probe_lease) | 60 s, or four times the p95 of successes | slow answers are answers |
//! | ramp | 10 s: in its first second as many as there were callers when it opened, twice as many each second | drains a queue of two minutes in six seconds or seven |
//! | scopes kept apart | 4096, names up to 512 bytes | past that, and as long as none can be forgotten, new ones share one breaker |
//!
//! In a simulation of half an hour at one call a second, with three minutes of outage and a deadline of two minutes, the
//! calls of google-genai's own policy failed 860 times in the outage, over 39 seeds in the mean, and those behind this layer
//! and `RetryLayer` 99 times; of the calls that could be answered in time 99.2 % were, and the first second after the
//! recovery saw at most two. At up to half of the calls turned away it did not open in a thousand such half hours.
//!
//! # Costs
//!
//! A call through a closed breaker allocates nothing and takes no lock of the breaker's; one in 32 is timed. A clone of the
//! service that is called more than once writes to nothing that other threads read. After a failure, and until the next
//! success, each call takes the lock, twice. A scope takes 1.2 kB; with a window by calls, up to 24 bytes more for each
//! of them. Where [`scope_by`](CircuitBreakersBuilder::scope_by) names the scope, each call pays for the name, an allocation and a
//! look into the map.
//!
//! In the benchmark (`cargo bench -p benches --bench overhead -- "circuit breakers"`, on a busy machine with two cores) a call takes 27
//! to 54 ns longer, 80 to 85 ns where each call has a fresh clone, and 125 to 150 ns by a failure rate; tower-resilience's
//! breaker, which is one for everybody, 250 to 270 ns and three allocations in the same runs. Two threads that share a
//! scope do not slow each other down.
//!
//! # Errors
//!
//! [`Kind::CircuitOpen`](crate::failure::Kind::CircuitOpen), for which [`Error::is_circuit_open`](crate::Error::is_circuit_open)
//! asks, with the wait as the hint and the reason in numbers. The inner service is not called, nothing was sent, and a limiter
//! outside takes its charge back. A refusal allocates once.
//!
//! # Cancellation
//!
//! A dropped call says nothing; a dropped probe gives its cached back at once, as does one that panics. One that hangs gives
//! it back after its lease; only an answer to it counts then, and only while the breaker still waits for one.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's. A refusal leaves the readiness unused; `RetryLayer` frees it before it waits.
//!
//! # Words read and written
//!
//! Reads of [`CallContext`](crate::CallContext) the call and whether it has failed before; of [`Outcome`](crate::Outcome) the
//! failure and its hint. Writes none but in its own refusals. Each transition is a `tracing` event: a warning when a breaker
//! opens, else an information.

mod breaker;
mod breakers;
mod future;
mod layer;
mod lookup;
mod machine;
mod observe;
mod permit;
mod refusal;
mod service;
mod state;
mod trip;

pub use self::{
    breakers::{CircuitBreakers, CircuitBreakersBuilder},
    future::ResponseFuture,
    layer::CircuitBreakerLayer,
    service::CircuitBreaker,
    state::{Reason, State, Target, Transition, Transitions},
    trip::{Trip, Window},
};

#[cfg(gemini_loom)]
pub(crate) use self::breaker::proofs::PROOFS;

/// The room's name in errors.
const NAME: &str = "circuit_breaker";
