//! Sends again what can be answered on another try.
//!
//! Without this layer a busy minute of the model's is the caller's error, and a loop around the call makes it worse: it
//! repeats a 400 that never changes, sleeps two seconds where 42 were asked for, hammers a day's quota until midnight, and
//! multiplies the load on an upstream that is down.
//!
//! This layer has a table. What [`ClassifyLayer`](crate::ClassifyLayer) has read decides the row; the row decides how often
//! and how soon. A hint of the upstream's is waited for exactly, a backoff has full jitter, no sleep begins that could not
//! end before the deadline, and a [`RetryBudget`] for each model, shared by all calls, sees to it that an outage is not
//! answered with a storm. The failed answer is read and dropped while the wait runs, so that its connection is free.
//!
//! It never sends again once an answer's first content was handed over, never repeats what is the caller's fault or a
//! verdict on the content, and never sleeps for a budget. Alone, without `ClassifyLayer`, it goes by status and headers.
//!
//! # The table
//!
//! | outcome | action |
//! |---|---|
//! | 429 with a hint of at most 300 s | waits for the longer of backoff and hint, 1 s more where the hint was cut to whole seconds, and up to 0.5 s of jitter; spends no budget |
//! | 429 of a day's quota, of limit 0, or with a longer hint | goes back: another key or model has to help |
//! | 429 without details | backs off from 1 s |
//! | 503, shared capacity, no connection, broken connection | full jitter from 0.5 s, doubling to 20 s; all attempts of the call, 3 while another model is left |
//! | an attempt's time-out | at most two of them |
//! | 500, 502 | 4 attempts; the same 500 twice marks [`is_content_suspected`](crate::failure::Failure::is_content_suspected) |
//! | 504, 408, 499, an empty answer | 2 attempts |
//! | refused before it was sent | once more at once, without counting; then as 503 |
//! | a layer inside says `Now` or `Queued` | at once |
//! | the circuit is open, or the limiter refuses | [`OnOpen`]: wait as long as it says (default), or fail; no attempt is counted |
//! | the caller's fault, verdicts on the content | goes back |
//! | a call that makes something | only if the upstream never got it, or said 429 or 503 in an error body |
//!
//! In all at most 8 attempts a call; two are kept for each model that is still to come.
//!
//! ```
//! use std::{sync::atomic::{AtomicU32, Ordering}, time::Duration};
//! use http::{Request, Response, StatusCode};
//! use http_body_util::Full;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_gemini::RetryLayer;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! static ASKED: AtomicU32 = AtomicU32::new(0);
//! // Overloaded twice, then well again.
//! let upstream = service_fn(|_: Request<Full<bytes::Bytes>>| async {
//!     let status = if ASKED.fetch_add(1, Ordering::Relaxed) < 2 { 503 } else { 200 };
//!     Response::builder().status(status).body(Full::<bytes::Bytes>::default())
//! });
//! let service = ServiceBuilder::new().layer(RetryLayer::default()).service(upstream);
//!
//! let request = Request::post("/v1beta/models/gemini-2.5-flash:generateContent").body(Full::default())?;
//! assert_eq!(service.oneshot(request).await?.status(), StatusCode::OK);
//! assert_eq!(ASKED.load(Ordering::Relaxed), 3);
//! # Ok(())
//! # }
//! ```
//!
//! Another table:
//!
//! ```
//! use std::time::Duration;
//! use http::StatusCode;
//! use tower_gemini::retry::{Cause, OnOpen, RetryBudget, RetryLayer, RetryPolicy, Rule};
//!
//! let policy = RetryPolicy::default()
//!     .max_attempts(5)
//!     .on(StatusCode::INTERNAL_SERVER_ERROR, Rule::attempts(2))
//!     .on(Cause::Empty, Rule::attempts(3).base_delay(Duration::ZERO))
//!     .on_open(OnOpen::Fail)
//!     .budget(RetryBudget::new(20));
//! let layer = RetryLayer::new(policy);
//! assert_eq!(layer.policy().rule(StatusCode::INTERNAL_SERVER_ERROR).max_attempts(), 2);
//! ```
//!
//! # Defaults
//!
//! The table, [`RetryPolicy::MAX_ATTEMPTS`], [`RetryPolicy::MAX_HINT`] and [`RetryBudget::CAPACITY`]. Google's own advice is
//! 1, 2, 4, 8 s with jitter for 429, 408 and 5xx; its SDKs make 5 attempts when asked to, gemini-cli 10.
//!
//! # Errors
//!
//! None of its own. When it gives up, the failure of the last attempt goes back: a response as it came, or the error. If a
//! wait would have passed the deadline, [`Outcome::retry`](crate::Outcome::retry) says how long it would have been.
//!
//! # Cancellation
//!
//! Dropping the future drops the attempt or the wait that is under way. What the budget gave is spent.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's, and the first attempt uses that readiness. Each further one is made ready after its
//! wait, so that no permit is held while it sleeps, not even one that a layer inside has left unused.
//!
//! # Words read and written
//!
//! Reads of [`CallContext`](crate::CallContext) the call, the deadline, the attempts made before and the models left; of
//! [`Outcome`](crate::Outcome) the failure and what is said of retrying. Writes [`CallContext::attempt`](crate::CallContext::attempt),
//! [`CallContext::has_failed_before`](crate::CallContext::has_failed_before),
//! [`CallContext::retried`](crate::CallContext::retried), [`Outcome::attempts`](crate::Outcome::attempts) and
//! [`Outcome::gave_up`](crate::Outcome::gave_up); adds to the [`Tally`](crate::context::Tally). The body has to be [`Resend`](crate::body::Resend).

mod attempts;
mod backoff;
mod budget;
mod decide;
mod future;
mod layer;
mod policy;
mod service;

pub use self::{
    budget::RetryBudget,
    future::ResponseFuture,
    layer::RetryLayer,
    policy::{Cause, OnOpen, RetryPolicy, Rule},
    service::Retry,
};

/// The room's name in errors.
const NAME: &str = "retry";
