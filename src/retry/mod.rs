//! Sends a failed request again if another attempt can succeed.
//!
//! Without this layer a minute of overload becomes the caller's error, and a plain loop around the call makes it worse:
//! it repeats a 400 that never changes, sleeps 2 s where the upstream asked for 42 s, hammers a day's quota until
//! midnight, and multiplies the load on an upstream that is down.
//!
//! This layer has a table. The failure that [`ClassifyLayer`](crate::ClassifyLayer) has read selects the row, and the
//! row decides how often and how soon the request is sent again. A hint of the upstream is waited for exactly, a
//! backoff has full jitter, and no sleep begins that cannot end before the deadline. A [`RetryBudget`] for each model,
//! shared by all calls, keeps an outage from being answered with a storm: where it is empty, a call waits for its token,
//! in turn with other callers, or goes to the next model where one is left. The failed answer is read and dropped at the beginning of the wait, so that its connection
//! is free.
//!
//! It never sends a request again after the answer's first content was handed over, never repeats a caller's fault or a
//! verdict on the content, and never throws a call away that a token could still help, unless 16,384 calls wait for one
//! already. Without `ClassifyLayer`, it goes by status and headers.
//!
//! # When to use it
//!
//! In every client of the API, outside of the key pool and the limiter, so that each attempt chooses a key and pays
//! quota again. Turn off the retries of the caller's SDK and of the transport, or the attempts multiply.
//!
//! `tower::retry` leaves the policy, the copying of requests and the sleep to its user, knows neither hints nor a
//! deadline, and drops a failed answer unread, and with it an HTTP/1 connection. tower-http has no such layer.
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
//! // Overloaded twice, then available again.
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
//! A changed table:
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
//! # The table
//!
//! | outcome | action |
//! |---|---|
//! | 429 with a hint of at most 300 s | waits for the longer of backoff and hint, 1 s more if the hint was cut to whole seconds, and up to 0.5 s of jitter; spends no budget |
//! | 429 of a day's quota, of limit 0, of grounding, a closed model, or with a longer hint | the failure goes back, because only another key or model can help |
//! | 429 without details | backs off from 1 s |
//! | 503, shared capacity, no connection, broken connection | full jitter from 0.5 s, doubling to 20 s; all attempts of the call, 3 while another model is left |
//! | an attempt's time-out | full jitter from 0.5 s, doubling to 2 s; as many attempts as the call and its deadline have room for, 2 while another model is left |
//! | 500, 502 | 4 attempts; the same 500 twice marks [`is_content_suspected`](crate::failure::Failure::is_content_suspected) |
//! | 504, 408, 499, an empty answer | 2 attempts |
//! | refused before it was sent | one attempt more at once, which is not counted; then as 503 |
//! | a layer inside says [`Now`](crate::context::RetryAdvice::Now) or [`Queued`](crate::context::RetryAdvice::Queued) | at once |
//! | the circuit is open | [`OnOpen`]: waits as long as the refusal says (default), or fails; no attempt is counted |
//! | the limiter or the key pool refuses | waits as for a hint of the upstream's, 300 s at most; no attempt is counted. For a block of hours it fails: the hint is only the time of the next look |
//! | the limiter refuses a call that may not wait as long as it would have to | the refusal goes back, unless another project takes the call at once; no attempt is counted |
//! | the caller's fault, verdicts on the content | the failure goes back |
//! | a call that creates something | only if the upstream never got it, or answered 429 or 503 with an error body, or refused the key or for quota in one; an interaction that runs in the foreground and continues no other also after any other passing failure that came with an error body |
//!
//! A call makes at most 8 attempts in all; 2 of them are kept for each model that is still to come. An attempt that has
//! less time left until the deadline than the quickest of its model's last answers took is not sent, whatever it would follow, if
//! the layer knows these times ([`RetryLayer::service_times`]).
//!
//! # Why the budget is as it is
//!
//! Without a budget, an upstream that is overloaded gets several times the load, which it cannot answer either, and the
//! overload outlives its cause. A budget that discards answers fewer calls than no budget: of 500 at once, of which 30 %
//! are refused, 83 % instead of all. So this one delays. It is a bucket of tokens a model: a retry takes one, a success
//! gives one back, and a hundredth of its capacity grows back each second, one token at least.
//!
//! | capacity | policy | attempts against an upstream that answers nothing |
//! |---|---|---|
//! | 100 | [`default`](RetryPolicy::default), [`interactive`](RetryPolicy::interactive) | 100 retries, then 1 a second |
//! | 1,000 | [`persistent`](RetryPolicy::persistent), [`GeminiLayer::relay`](crate::GeminiLayer::relay) | 1,000 retries, then 10 a second |
//!
//! A call waits for its token after its backoff. [Callers](crate::CallContext::caller) take turns, and each one's calls
//! wait in the order of arrival, so that a caller's burst delays no other. A call gives up when a token can no longer
//! help: when less time is left until the deadline than an answer takes, 0.1 s where nobody knows, or without a deadline
//! after 285 s. While another model is left, it does not wait at all: where there is no token, the failure goes back at
//! once, and the next model has all of the time. And where there is none, no [adaptive
//! clock](crate::TimeoutLayer::adaptive) ends an attempt early for the sake of another.
//!
//! A success gives back one token and no more, and no call has a free retry: either lets the attempts grow with the load,
//! in the one moment in which they must not. A wait for one's own quota, a refusal inside and a request that was never
//! sent cost nothing, because they put no load on the upstream.
//!
//! | others | budget | when it is empty |
//! |---|---|---|
//! | Finagle | 20 % of the requests of the last 10 s, and 10 a second | the failure goes back |
//! | tower's `TpsBudget` | the same | the failure goes back |
//! | AWS's SDKs, November 2026 | 500 tokens; a retry costs 14 after a transient failure and 5 after throttling, a success gives back | the failure goes back |
//! | gRPC, `retryThrottling` | `maxTokens`; a failure costs 1, a success gives back `tokenRatio` | below half, the failure goes back |
//!
//! A budget does not end an outage in which nothing is answered at all: its tokens that grow back are load, too, where the
//! upstream's capacity is as small as they are. That is the matter of a circuit breaker.
//!
//! # Defaults
//!
//! The table, [`RetryPolicy::MAX_ATTEMPTS`], [`RetryPolicy::MAX_HINT`] and [`RetryBudget::CAPACITY`]. Google's own
//! advice is 1, 2, 4, 8 s with jitter for 429, 408 and 5xx; its SDKs make 5 attempts when asked to, gemini-cli 10.
//! [`RetryPolicy::interactive`] makes 12 attempts, 0.25 to 4 s apart, and [`RetryPolicy::persistent`] 60.
//!
//! # Errors
//!
//! It has no errors of its own. When it gives up, the last attempt's failure goes back: the unchanged response, or the
//! error. After a wait for a token it is an [`Error`](crate::Error) with the upstream's failure in either case: the answer
//! was let go before, with its connection. [`Outcome::gave_up`](crate::Outcome::gave_up) says why, and if the wait would
//! have passed the deadline, [`Outcome::retry`](crate::Outcome::retry) is the wait that would have been needed.
//!
//! # Cancellation
//!
//! Dropping the future drops the attempt or the wait that is under way, and leaves the line for a token. A retry that the
//! budget gave stays spent.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's, and the first attempt uses that readiness. For each further attempt the service
//! is made ready after the wait, so that no permit is held during the sleep, not even one that a layer inside has left
//! unused.
//!
//! # Words read and written
//!
//! Reads from [`CallContext`](crate::CallContext) the call, the deadline, the attempts made before and the models left;
//! from [`Outcome`](crate::Outcome) the failure and the advice on retrying.
//!
//! Writes [`CallContext::attempt`](crate::CallContext::attempt),
//! [`timed_out`](crate::CallContext::timed_out), [`repeats_timeouts`](crate::CallContext::repeats_timeouts),
//! whether an earlier attempt has failed,
//! the reason for the attempt, [`Outcome::attempts`](crate::Outcome::attempts) and
//! [`Outcome::gave_up`](crate::Outcome::gave_up), and adds to the tally. The request's body has to be
//! [`Resend`](crate::body::Resend).

mod attempts;
mod backoff;
mod bucket;
mod budget;
mod decide;
mod future;
mod layer;
mod policy;
mod service;
mod token_wait;

pub use self::{
    budget::RetryBudget,
    future::ResponseFuture,
    layer::RetryLayer,
    policy::{Cause, OnOpen, RetryPolicy, Rule},
    service::Retry,
};

#[cfg(gemini_loom)]
pub(crate) use self::budget::proofs::PROOFS;

/// The room's name in errors.
const NAME: &str = "retry";
