//! A circuit breaker: stops calling an upstream that is down, and probes it until it recovers.
//!
//! Without this layer an outage gets more calls than an ordinary day: each call is tried again, each attempt waits for
//! its failure, and when the upstream recovers, everything that has piled up reaches it at once. The common breakers do
//! not help. One that counts failures in a row opens on an ordinary day of a model that sheds half of its load, and
//! loses the other half with it. One whose window never slides sees no outage after a long time without one. One that
//! takes a late answer from before the outage for a sign of life, or waits forever for a probe that hangs or was
//! dropped, does harm when it is needed most.
//!
//! This layer has a breaker for each model at each endpoint, and another one for each of its service tiers: flex being
//! full says nothing of standard. It opens when nothing succeeds any more
//! ([`Trip::Silence`]), and not by a rate, which says little of a model that is short of capacity every day. While open
//! it refuses at once and says how long; a [`RetryLayer`](crate::RetryLayer) outside waits for those callers that want
//! to wait. When the open time is over, exactly
//! [`half_open_max_requests`](CircuitBreakersBuilder::half_open_max_requests) probes go out. One answer closes it, and
//! then each answer admits one call more than before; never is a call refused for the number of calls in a second. If
//! all probes fail, it stays open for longer.
//!
//! It never counts failures by the fault of the caller, the key or the quota, a caller that goes away, or a refusal by
//! another of these layers; never counts a request twice because it was sent twice; never opens by time-outs of this
//! program's own alone while others are answered; never sleeps; and never lets an outcome from before its last change
//! of state count.
//!
//! # When to use it
//!
//! Wherever calls are retried or many callers share an upstream: so in nearly every server, next to a
//! [`RetryLayer`](crate::RetryLayer), which must be outside of it. With a
//! [`ModelFallbackLayer`](crate::ModelFallbackLayer) outside, calls go to another model while it is open. A program
//! that makes one call at a time gains little from it.
//!
//! tower and tower-http have no circuit breaker. tower's `load_shed` refuses calls while the inner service is not
//! ready, which says nothing of an upstream that accepts calls and fails them.
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
//! // Further calls are refused and not sent.
//! let error = service.clone().oneshot(request()?).await.unwrap_err();
//! let error = Error::find(&*error).unwrap();
//! assert!(error.is_circuit_open() && error.never_sent());
//! assert!(error.retry_after().unwrap().as_secs() >= 2);
//! assert_eq!(breakers.state(&Target::new("gemini-2.5-flash", "")), State::Open);
//! # Ok(())
//! # }
//! ```
//!
//! Together with a layer that waits until it closes, a limiter that queues no call while it is open, and a subscriber:
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
//! # Scopes
//!
//! By default a breaker's scope is a model at an endpoint. A call of another service tier than the standard one has a
//! scope of its own, `gemini-2.5-pro@flex`. An interaction shares the scope of its model, or has `agents/NAME`. Calls
//! that do not depend on a model's capacity (counting tokens, lists, files) have one breaker for each endpoint, because
//! a model without capacity still counts tokens.
//! [`one_for_all`](CircuitBreakersBuilder::one_for_all) and [`scope_by`](CircuitBreakersBuilder::scope_by) change the
//! scopes. The tier, and on the OpenAI-compatible surface and of interactions also the model, are in the body, and are
//! known only behind a [`ReplayLayer`](crate::ReplayLayer).
//!
//! # Outcomes
//!
//! | outcome | counts as |
//! |---|---|
//! | an answer; a stream's first content, where [`ClassifyLayer`](crate::ClassifyLayer) is inside | a success |
//! | a failure that [counts](crate::failure::Failure::counts_against_upstream): overloaded, 5xx, transport | a failure |
//! | a time-out of this program's own, of an attempt or of a stream's first content | a failure; but where all failures are such time-outs, only if nothing has been answered since the call was sent |
//! | either, of a request of which an earlier attempt has failed in this way | no further request; an attempt of a silence, and a failed probe |
//! | 4xx, a day's or a minute's quota, blocked content, an empty answer | nothing: the upstream answers, but that does not prove that the model has capacity |
//! | a call dropped by the caller, the total deadline, a refusal by a layer inside | nothing |
//! | any outcome of a call that was admitted before it last opened, asked for probes, or closed | nothing |
//!
//! # Defaults
//!
//! | setting | value | why |
//! |---|---|---|
//! | [`trip`](CircuitBreakersBuilder::trip) | [`Trip::silence`]: 10 requests, or 3 with 20 attempts; 10 s, twice the p95 of successes | a model that answers every other call is worth calling |
//! | [`open_duration`](CircuitBreakersBuilder::open_duration) | 2 s, the first time up to 4 s | most overloads are short |
//! | [`max_open_duration`](CircuitBreakersBuilder::max_open_duration) | 10 s, at random from 5 s | the longest time that a recovery goes unnoticed |
//! | the upstream's hint | obeyed up to 300 s | the upstream knows better |
//! | [`half_open_max_requests`](CircuitBreakersBuilder::half_open_max_requests) | 2 | a single one can be unlucky |
//! | [`probe_lease`](CircuitBreakersBuilder::probe_lease) | 60 s, or four times the p95 of successes | slow answers are answers, too |
//! | ramp | as many calls in flight as came in a second when it opened, at least the probes, and one more for each that was answered since, or has been in flight for longer than the slowest failure of the outage took: for one to two times as long, at least 1 s and at most a minute | the load doubles in the time of an answer, and in two seconds where answers are slow and failures fast |
//! | end of the ramp | 10 s without a refusal | nobody is left who has waited for it |
//! | scopes with a breaker of their own | 4096, names up to 512 bytes | beyond that, and while none can be forgotten, new ones share one breaker |
//!
//! In a simulation of half an hour at one call a second, with three minutes of outage and a deadline of two minutes,
//! the calls under google-genai's own policy failed 865 times in the outage, in the mean of 39 seeds, and those behind
//! this layer and `RetryLayer` 98 times. Of the calls that could be answered in time 99.0 % were, and the first second
//! after the recovery saw at most two calls. While the upstream turned away half of the attempts, the breaker did not
//! open in a thousand half hours each at 0.02, 0.1 and 0.3 calls a second and answers of 1, 5 and 30 s, nor in three
//! hundred each at one call a second.
//!
//! In an outage of three minutes, with a deadline of 285 s and 20 attempts, 95.8 % of the calls that came in it and
//! could be answered were at 0.02 calls a second, where many a caller is alone, 99.9 % at 0.1, and all at 0.3, 1 and
//! 10.
//!
//! # Restarts and other instances
//!
//! [`CircuitBreakers::memory`] keeps the open breakers over a restart, and with the feature `redis` a
//! [`SharedNews`](crate::redis_store::SharedNews) tells other instances of them. One that opens for such a reason sends a
//! single probe first, because whoever has opened it sends some, too. Only a closed breaker does so; one that is told by another
//! instance only if none of its calls was answered in the last 5 to 10 s.
//!
//! # Costs
//!
//! A call through a closed breaker allocates nothing and does not take the breaker's lock; one call in 32 is timed. A
//! thread has a list of up to 16 requests that it has seen, and finds their breakers without reading the path. There are 16
//! lists, each with a lock: up to 16 threads find their breakers without a write to memory that another thread writes to,
//! and more threads share lists. A path of more than 512 bytes is read each time.
//!
//! After a failure, and until the next success, each call takes the breaker's lock twice. A scope takes 1.2 kB; a window by
//! calls takes up to 24 bytes more for each call. Where [`scope_by`](CircuitBreakersBuilder::scope_by) names the scope,
//! each call pays for the name, an allocation and a lookup in the map.
//!
//! On a busy machine with two cores, in turns with a service without layers, a call takes 86 to 135 ns longer, whether
//! a service is used again or cloned for each call, on one thread or two; and 216 to 294 ns by a failure rate or by
//! failures in a row. tower-resilience's breaker, which is one for all scopes, took 391 to 497 ns and three allocations
//! in the same runs (`cargo bench -p benches --bench overhead -- "circuit breakers"` compares them). Without the list
//! of recent requests each call would take 69 to 96 ns longer.
//!
//! # Errors
//!
//! [`Kind::CircuitOpen`](crate::failure::Kind::CircuitOpen), for which
//! [`Error::is_circuit_open`](crate::Error::is_circuit_open) checks, with the wait as the hint and the reason in
//! numbers. The inner service is not called, nothing was sent, and a limiter outside refunds its charge. A refusal
//! allocates once.
//!
//! # Cancellation
//!
//! A dropped call counts as nothing, and leaves its place on the ramp. A dropped probe frees its slot at once, as does
//! one that panics. A probe that hangs frees its slot after its lease; after that only its answer counts, and only
//! while the breaker still waits for one.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's. A refusal leaves the readiness unused; `RetryLayer` frees it before it waits.
//!
//! # Words read and written
//!
//! Reads from [`CallContext`](crate::CallContext) the call and whether it has failed before; from
//! [`Outcome`](crate::Outcome) the failure and its hint. Writes an outcome only into its own refusals. Each transition
//! is a `tracing` event, `circuit breaker changed state`: at the level of warnings when a breaker opens, else of
//! information.

mod breaker;
mod breakers;
mod future;
mod layer;
mod lookup;
mod machine;
mod memory;
mod observe;
mod permit;
mod ramp;
mod refusal;
mod service;
mod state;
mod tracker;
mod trip;

pub use self::{
    breakers::{CircuitBreakers, CircuitBreakersBuilder},
    future::ResponseFuture,
    layer::CircuitBreakerLayer,
    memory::CircuitBreakersMemory,
    service::CircuitBreaker,
    state::{Reason, State, Target, Transition, Transitions},
    trip::{Trip, Window},
};

#[cfg(feature = "redis")]
pub(crate) use self::memory::OpeningMemory;

#[cfg(gemini_loom)]
pub(crate) use self::breaker::proofs::PROOFS;

/// The room's name in errors.
const NAME: &str = "circuit_breaker";
