//! All of the quota, never more than the quota.
//!
//! Without this layer a program finds out about its quota by being refused: each 429 costs a round trip and a wait that is
//! longer than need be, and several programs that wait for the same hint come back together and are refused together. A
//! plain limiter does not help: one that counts by the clock's minute lets twice the quota through across its edge, one
//! that paces evenly leaves half of it unused after every pause, and none of them counts tokens, knows that keys of one
//! project share a quota, or reads the 429 that says what the quota really is.
//!
//! This layer counts requests and input tokens in a sliding window of a minute, and requests until midnight Pacific, for
//! each project and model. What fits goes at once; what does not waits in line, first come, first served, and is woken when
//! its turn has come; what would have to wait for too long is refused at once with the wait that it would have needed.
//! Tokens are reserved before the call and settled by what the answer says it has cost; what was never sent is given back.
//! A 429 blocks its scope for everybody until the moment that it names, and teaches the limit where none is configured, or
//! a lower one while others use the same quota.
//!
//! It never lets more than the limit into any 60 seconds, never lets a small call pass a large one, never counts what only
//! counts tokens or lists models, and never waits past a deadline. It does not pretend to know what other programs use: it
//! learns that from the refusals.
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
//! // Two at once, the third when the first no longer counts.
//! assert!(begun.elapsed() >= Duration::from_secs(60) && begun.elapsed() < Duration::from_secs(61));
//! assert_eq!(limiter.snapshot()[0].dimensions[0].limit, Some(2));
//! # Ok(())
//! # }
//! ```
//!
//! Never waiting, with limits of its own for a model, and what the refusal says:
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
//! # Sharing a quota
//!
//! A 429 while less counts here than the limit says that others use the rest. The limit in force then falls to what counted
//! at that moment, less 5 %; stays there for a minute; and grows back along a cubic curve, slowly near where it failed. If
//! it fails again soon the use by others is a steady one, and each try waits twice as long, up to 16 minutes. Calls that
//! are refused together are one event. In a scope's first minute others are not blamed: what was used before is not known.
//! In a test, two limiters at full load on one project of 60 requests a minute used 96 % of it in an hour, and 0.2 % of
//! their calls were refused after the first minute.
//!
//! # Defaults
//!
//! | what | value | why |
//! |---|---|---|
//! | limits | none: learned | Google no longer publishes them for each model |
//! | [`max_wait`](LimiterBuilder::max_wait) | 60 s | one turn of the window; the 0.5 s below are not held against it |
//! | [`pacing`](LimiterBuilder::pacing) | [`Pacing::Burst`] | an idle program's first calls need not wait |
//! | a charge counts for | 60.25 s | a request that is slow on the way must not meet the next minute's |
//! | charges share an entry within | 0.25 s | bounds a scope's memory, and costs at most 0.4 % of the limit |
//! | cost of a request | its body's bytes / 3 | unless [`CallContext::token_cost`](crate::CallContext::token_cost) says it |
//! | scopes kept apart | 16,384, names up to 512 bytes | past that, and as long as none can be forgotten, new ones share one account, under the least limit of any project; but for models that the settings name |
//!
//! # Costs
//!
//! A call that finds room allocates nothing and takes one lock, twice, for a decision each: when it goes and when its body
//! has ended. A scope is 608 bytes, its names, its places in a map and its first charges while it is idle, and at most
//! 12 KiB more while it has charges in each quarter of a second of a minute: 10,000 of them took 939 bytes each when idle
//! and 12.7 KiB each when busy, and a million invented models 25 MB in all. A waiter is at most 80 bytes in the queue,
//! besides its own future. It is looked at when it comes, when it is first and when its time has come: 10,000 waiters of
//! which half leave at random took fewer than three polls each.
//!
//! In the benchmark (`cargo bench -p benches --bench overhead -- "rate limits"`, on a shared machine with two cores) the happy path
//! adds 0.11 to 0.15 µs to a call in three dimensions; tower-resilience's limiter, which counts one dimension for everybody,
//! adds 0.15 to 0.2 µs and two allocations in the same runs. Of that, 24 ns are the clock's, 21 the lock's and the reference
//! count's, and 11 go into reading the path, which [`ReplayLayer`](crate::ReplayLayer) outside has read already.
//!
//! # Errors
//!
//! [`Kind::RateLimited`](crate::failure::Kind::RateLimited) when it would have to wait too long, with the wait as the hint;
//! [`Kind::LargerThanQuota`](crate::failure::Kind::LargerThanQuota), the caller's fault, for a request that is proven to be
//! larger than a whole minute's tokens; [`Kind::CircuitOpen`](crate::failure::Kind::CircuitOpen) where the
//! [`Gate`](crate::quota::Gate) is closed for whoever would have to wait; those who stand in line when it closes hear of it
//! from the layer inside in their turn. Nothing was sent. Only the first is ever said to be worth another try at once.
//!
//! # Cancellation
//!
//! A waiter that is dropped leaves the queue at once and wakes the next. What was taken and never sent is given back; what
//! was sent stays charged. A call stands in line from `call` on: a future that is kept and not polled, first in line, holds
//! up those behind it, as one of tokio's semaphore does.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's. A call that has to wait gives its readiness up and regains it after the wait.
//!
//! The inner service's `call`s come in the order in which this one's came, on many threads as well: the next in line is
//! woken when the call of the one before is with the inner service. Where that is not ready for the first, the next is woken
//! all the same, so that nobody waits for another's readiness; from there on the order is the inner service's, and
//! `ConcurrencyLimit` keeps it.
//!
//! # Words read and written
//!
//! Reads of [`CallContext`](crate::CallContext) the call, the project, the token cost, the deadline, and whether it may move to
//! another project; of [`Outcome`](crate::Outcome) the failure, whether it was sent, and the usage. Says
//! [`RetryAdvice::Now`](crate::context::RetryAdvice::Now) to a call that may move; adds to the tally.

mod account;
mod bound;
mod future;
mod key;
mod layer;
mod limiter;
mod observe;
mod pacing;
mod queue;
mod refusal;
mod reservation;
mod service;
mod waiting;
mod window;

pub use self::{
    future::ResponseFuture,
    layer::RateLimitLayer,
    limiter::{DimensionReport, Limiter, LimiterBuilder, ScopeReport},
    pacing::Pacing,
    reservation::Settlement,
    service::RateLimit,
};
use crate::body::GuardedBody;

#[cfg(gemini_loom)]
pub(crate) use self::queue::proofs::PROOFS;

/// The room's name in errors.
const NAME: &str = "rate_limit";

/// The response body of [`RateLimit`]: what the answer has really cost is settled when it ends.
pub type RateLimitBody<R> = GuardedBody<R, Settlement>;

/// What counts in a minute: requests and input tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    requests: u64,
    tokens: u64,
}

impl Amount {
    fn plus(self, other: Self) -> Self {
        let (requests, tokens) =
            (self.requests.saturating_add(other.requests), self.tokens.saturating_add(other.tokens));
        Self { requests, tokens }
    }

    fn minus(self, other: Self) -> Self {
        let (requests, tokens) =
            (self.requests.saturating_sub(other.requests), self.tokens.saturating_sub(other.tokens));
        Self { requests, tokens }
    }

    fn min(self, other: Self) -> Self {
        Self { requests: self.requests.min(other.requests), tokens: self.tokens.min(other.tokens) }
    }

    fn is_within(self, limit: Self) -> bool {
        self.requests <= limit.requests && self.tokens <= limit.tokens
    }
}
