//! A rate limiter that uses all of the quota and never exceeds it.
//!
//! Without this layer a program learns its quota from refusals: each 429 costs a round trip and a wait that is longer
//! than necessary, and programs that wait for the same hint come back together and are refused together. A plain
//! limiter does not help: one that counts by the clock's minute lets twice the quota through across its edge, one that
//! paces evenly leaves half of it unused after every pause, and none of them counts tokens, knows that the keys of one
//! project share a quota, or reads the 429 that names the real quota.
//!
//! This layer counts requests and input tokens in a sliding window of a minute, and requests until midnight Pacific,
//! for each project and model, whatever the service tier. A batch of embeddings counts a request for each of its items;
//! an interaction spends the quota of its model, or that of `agents/NAME`. A call that fits goes at once; a call that
//! does not waits in a queue, in which callers take turns and each caller's calls go in the order of their deadlines, and is
//! woken when its turn comes; a call that would have to wait too long is refused at once, with the wait that it would
//! have needed. Tokens are reserved before the call and settled by the usage in the answer; the reservation of a call
//! that was never sent is refunded. A 429 blocks its scope for all calls as long as it can be believed, and teaches the
//! limit where none is configured, or a lower one while other programs use the same quota.
//!
//! It never lets more than the limit into any 60 seconds, never lets a small call overtake a large one of the same caller
//! that is due no later, never charges calls that only count tokens or list models, and never waits past a deadline. It
//! cannot see the usage of other programs: it learns of that from the refusals.
//!
//! # When to use it
//!
//! Wherever more than a handful of calls a minute go to one project, and in every server. Behind a
//! [`KeyPoolLayer`](crate::KeyPoolLayer) it also tells the pool which project has room. A program whose calls never
//! come near its quota can leave it out.
//!
//! tower's `RateLimitLayer` lets a fixed number of requests through in each period, and holds all others back in
//! `poll_ready`; it is not `Clone`, has one limit for all requests, does not count tokens, has no longest wait and
//! learns nothing. This layer decides in `call`, where it can read which project and model a request is for.
//!
//! ```
//! use std::time::Duration;
//! use http::{Request, Response};
//! use http_body_util::{Empty, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_gemini::{RateLimitLayer, quota::Limits, rate_limit::Limiter};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! let limiter = Limiter::builder().limits(Limits::new().requests_per_minute(2)).max_wait(Duration::from_secs(90)).build();
//! let service = ServiceBuilder::new().layer(RateLimitLayer::new(limiter.clone())).service(service_fn(
//!     |_: Request<Full<bytes::Bytes>>| async { Ok::<_, std::io::Error>(Response::new(Empty::<bytes::Bytes>::new())) },
//! ));
//!
//! let begun = tokio::time::Instant::now();
//! for _ in 0..3 {
//!     let request = Request::post("/v1beta/models/gemini-2.5-flash:generateContent").body(Full::default())?;
//!     service.clone().oneshot(request).await?;
//! }
//! // Two go at once, the third when the first no longer counts.
//! assert!(begun.elapsed() >= Duration::from_secs(60) && begun.elapsed() < Duration::from_secs(61));
//! assert_eq!(limiter.snapshot()[0].dimensions[0].limit, Some(2));
//! # Ok(())
//! # }
//! ```
//!
//! A limiter that never waits, with limits for one model, and the error of a refusal:
//!
//! ```
//! use http::{Request, Response};
//! use http_body_util::{Empty, Full};
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_gemini::{Error, RateLimitLayer, quota::Limits, rate_limit::Limiter};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! let limiter = Limiter::builder().limits_for("gemini-2.5-pro", Limits::new().requests_per_minute(1)).reject().build();
//! let service = RateLimitLayer::new(limiter).layer(service_fn(|_: Request<Full<bytes::Bytes>>| async {
//!     Ok::<_, std::io::Error>(Response::new(Empty::<bytes::Bytes>::new()))
//! }));
//! let request = || Request::post("/v1beta/models/gemini-2.5-pro:generateContent").body(Full::default());
//! service.clone().oneshot(request()?).await?;
//! let error = service.clone().oneshot(request()?).await.unwrap_err();
//! let error = Error::find(&*error).unwrap();
//! assert!(error.is_rate_limited() && error.never_sent());
//! assert_eq!(error.retry_after().unwrap().as_secs(), 60);
//! # Ok(())
//! # }
//! ```
//!
//! # Turns
//!
//! The most urgent [`Priority`](crate::context::Priority) that waits has the turn. A less urgent one takes part once its
//! oldest call has waited for 30 s a level between the two; from then on they share the quota, interactive to normal to
//! batch as 4 to 2 to 1. So nothing starves, and nothing urgent waits for a whole backlog.
//!
//! Within a priority the turn goes to the caller that has been given least, by
//! [`CallContext::caller`](crate::CallContext::caller): each call counts as its share of the limit that it needs most of,
//! and a caller that comes back has saved nothing up (start-time fair queueing, the Virtual Token Counter of OSDI 2024).
//! Two callers that both wait are given the same but for twice the largest call. Only calls that had to queue are counted. In a test, a caller with a call of 500 tokens in each 5 s waited for 0 s at the 99th percentile beside
//! another's 200 jobs of 20,000 tokens, at 250,000 a minute, where it waits for minutes in one queue; the jobs were not
//! later for it.
//!
//! A caller's calls go by their deadline, or by the time 285 s after their arrival where that is earlier; those of one
//! second go by arrival. Without callers, priorities and deadlines, the order is that of arrival.
//!
//! # Sharing a quota
//!
//! A 429 at a usage below the limit means that other programs use the rest. The limit in force then falls to the usage
//! at that moment, but to no less than half of what it was, as a lost race for the minute says nothing of the share;
//! stays there for two minutes; and grows back along a cubic curve, slowly near the point where it failed. If it fails
//! again because it has grown, the use by others is a steady one, and each further attempt waits twice as long, up to 16
//! minutes. The refusals of one window are one event. In a scope's first minute a refusal lowers nothing, because the
//! usage before it is unknown.
//!
//! In a test (`cargo test --features emulator --test rate_limit_shared -- --nocapture`), two limiters at full load on one
//! project of 60 requests a minute used 99 % of it in an hour, and 0.6 % of their calls were refused after the first
//! minute; with three it was all of it, and 5 %. At nine tenths of that load in all, at random times, half of the calls
//! took 2.7 s or less with an answer of 2 s, and 99 % 82 s or less. Of 150 calls at once in each of two, all were answered, and
//! all but a few within the 245 s of the optimum.
//!
//! # Several processes
//!
//! Programs that can ask one another share a quota without such races: all limiters with the same
//! [`store`](LimiterBuilder::store) together stay within the limits. A [`MemoryStore`](crate::quota::MemoryStore) is for the
//! limiters of one process.
//!
//! A call that finds room here asks the store, and goes once that has granted it; while the answer is on its way, it keeps its
//! place in the order and its readiness. A call that is refused waits in this limiter's queue, whose first waiter asks again
//! when the room should be there, and each second before that, because others may give back what they do not need. What a
//! call does not need goes back to the store as well.
//!
//! The last refusal is remembered, so that the calls behind it, [`headroom`](Limiter::headroom) and the key pool know it
//! without a question. A 429 closes the scope for all, and one call of all looks; once it is served, the others go within a
//! second or so of that, or half a minute where the next look is far away. The quota of calls that search the web or maps is
//! believed by each limiter for itself.
//!
//! Turns, priorities, pacing and lowered limits are each limiter's own. With a store, a limit is lowered to the usage of all
//! who ask it, not to that of this limiter alone. The wait that is foreseen for a call is that of the queue here; the queues
//! of the others are not known.
//!
//! # How long a refusal is believed
//!
//! A minute's quota is believed until its hint, and no longer than two minutes; an unnamed one with a hint for five; a
//! day's until midnight Pacific, or until the hint and 25 hours at most. After that, one call looks while the others stay
//! out: its success ends the block, another refusal renews it. A day's quota is looked at before its time as well,
//! because quotas come back when a tier is granted: after a quarter of a minute, and then after twice the time before, up to an hour.
//! If this limiter's own count is half of the limit or more, the first look is after half an hour; for a limit of zero
//! and after that it is each hour. No call
//! waits in the queue for a block of hours: it is refused at once, with the time of the next look as the hint.
//!
//! A refusal that says neither how long nor which quota rests the scope for a second, and for twice as long each time until
//! an answer comes to any call that has passed, up to 20 minutes; one call looks first. So a 429 by mistake costs its followers a second, and a day's
//! quota that nobody names some eighty refusals.
//!
//! A day's limit that was learned and is used up counts as such a block, and is forgotten when a look succeeds. The quota
//! of calls that search the web or maps has a block of its own: plain calls go on. [`Limiter::lift`] ends all blocks of a
//! project, and [`Limiter::lift_scope`] those of one model in it.
//!
//! # Defaults
//!
//! | what | value | why |
//! |---|---|---|
//! | limits | none: learned from 429s | Google no longer publishes them for each model |
//! | [`max_wait`](LimiterBuilder::max_wait) | 60 s | one turn of the window; the two quarters of a second below are added to it |
//! | [`wait_until_deadline`](LimiterBuilder::wait_until_deadline) | off | a call of a program need not have a deadline; with it, one without waits for 285 s at most |
//! | a priority takes part in the turns of the next | after 30 s | half of what a person waits for |
//! | callers remembered without a waiter | 1,024 a scope and priority | those that are ahead of others; the least ahead are forgotten first |
//! | [`pacing`](LimiterBuilder::pacing) | [`Pacing::Burst`] | the first calls of an idle program need not wait |
//! | a charge counts for | 60.25 s | a request that is delayed on the way must not meet those of the next minute |
//! | charges share an entry within | 0.25 s | bounds a scope's memory, and costs at most 0.4 % of the limit |
//! | cost of a request | its body's bytes / 3 | unless [`CallContext::token_cost`](crate::CallContext::token_cost) has it; while there is no limit of tokens, nothing is counted for it, and its texts' bytes / 3 and its media are charged |
//! | scopes with an account of their own | 16,384, names up to 512 bytes | beyond that, and while none can be forgotten, new ones share one account, under the least limit of any project; except models that the settings name |
//!
//! # Costs
//!
//! A call that finds room allocates nothing. It takes its scope's lock twice, for one decision each: when it goes and
//! when its body has ended; once more before, where a count of its tokens would be made only for a limit of tokens; and
//! once the lock of the thread's list of recent scopes. An idle scope is 608 bytes, its names, its place in a map and
//! its first charges. A scope with charges in each quarter of a second of a minute is at most 12 KiB more: 10,000
//! scopes took 886 bytes each when idle and 12.7 KiB each when busy, and a million invented models 24 MB in all. A
//! waiter is at most 96 bytes in the queue, besides its own future; where calls of several callers wait, an index has
//! 24 bytes more for each waiter, and about 200 for each caller. It is polled when it arrives, when it is first and
//! when its time has come: 10,000 waiters of which half leave at random took fewer than three polls each.
//!
//! Of the time of a waiter, its place in the order takes 0.1 µs where all are of one caller, and 0.6 to 3 µs beside others
//! of up to 1,000 callers (on a shared machine with two cores); its future and its timer take more.
//!
//! In the benchmark (`cargo bench -p benches --bench overhead -- "rate limits"`, on a shared machine with two cores)
//! the happy path adds 0.11 to 0.15 µs to a call in three dimensions; tower-resilience's limiter, which counts one
//! dimension for all callers, adds 0.15 to 0.2 µs and two allocations in the same runs. Of this layer's time, reading
//! the clock takes 24 ns, the lock and the reference count 21 ns, and reading the path 11 ns; behind a
//! [`ReplayLayer`](crate::ReplayLayer) the path has been read.
//!
//! # Errors
//!
//! - [`Kind::RateLimited`](crate::failure::Kind::RateLimited): the call would have to wait too long, or has waited as
//!   long as it may. The wait that it needs is the hint. A wait is too long as well if no answer could come in time after
//!   it, where [`service_times`](LimiterBuilder::service_times) are known.
//! - [`Kind::LargerThanQuota`](crate::failure::Kind::LargerThanQuota), the caller's fault: the request is proven to be
//!   larger than a whole minute's tokens, or its batch has more items than a whole minute's or day's requests.
//! - [`Kind::CircuitOpen`](crate::failure::Kind::CircuitOpen): the call would have to wait, and the
//!   [`Gate`](crate::quota::Gate) is closed. Calls that are in the queue when it closes get this error from the layer
//!   inside, in their turn.
//!
//! The message names the project; [`caller_message`](crate::failure::Failure::caller_message) names the model only.
//!
//! In all three cases nothing was sent. Only the first can carry the advice to try again at once, where another project
//! may take the call. `max_wait` is the longest wait of a call, be it here or in a [`RetryLayer`](crate::RetryLayer)
//! outside, which does not wait for a call that was refused for it.
//!
//! # Cancellation
//!
//! A waiter that is dropped leaves the queue at once and wakes the next. The reservation of a call that was not sent is
//! refunded; a call that was sent stays charged. A call is in the queue from `call` on: a future that is first in the
//! queue and is not polled holds up those behind it, as with tokio's semaphore.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's. A call that has to wait gives its readiness up and regains it after the wait.
//!
//! Queued calls reach the inner service in the order of their turns, on several threads as well: the next
//! waiter is woken once the call before it is with the inner service. Where the inner service is not ready for the
//! first, the next is woken all the same, so that no call waits for another's readiness; from there on the order is the
//! inner service's, and `ConcurrencyLimit` keeps it.
//!
//! # Words read and written
//!
//! Reads from [`CallContext`](crate::CallContext) the call, the caller, the priority, the project, the token cost, the
//! deadline, and whether it may move to another project; from [`Outcome`](crate::Outcome) the failure, whether it was
//! sent, and the usage. Writes [`RetryAdvice::Now`](crate::context::RetryAdvice::Now) into the refusal of a call that
//! may move, and [`GaveUp::Wait`](crate::context::GaveUp::Wait) into that of one that would have to wait for longer
//! than it may; adds the time in the queue to the tally.

mod account;
mod asking;
mod blocks;
mod bound;
mod future;
mod joining;
mod layer;
mod limiter;
mod observe;
mod pacing;
mod queue;
mod refusal;
mod report;
mod reservation;
mod service;
mod turns;
mod waiting;

pub use self::{
    blocks::BlockReport,
    future::ResponseFuture,
    layer::RateLimitLayer,
    limiter::{Limiter, LimiterBuilder, LimiterMemory},
    pacing::Pacing,
    report::{DimensionReport, ScopeReport, SharedReport, WaitingReport},
    reservation::Settlement,
    service::RateLimit,
};
use crate::{
    body::GuardedBody,
    quota::window::{self, Amount},
};

#[cfg(gemini_loom)]
pub(crate) use self::queue::proofs::PROOFS;

/// The room's name in errors.
const NAME: &str = "rate_limit";

/// The response body of [`RateLimit`]: the reservation is settled to the real cost when it ends.
pub type RateLimitBody<R> = GuardedBody<R, Settlement>;
