//! Time-outs: ends calls, attempts and answers that hang, and says which clock ran out.
//!
//! Without this layer a call waits as long as the upstream likes. One clock for everything does not help: a model that
//! thinks may need two minutes to its first word, while a minute of silence in the middle of an answer means that
//! nothing more will come; and a clock around the retries cannot end a single attempt that hangs.
//!
//! This layer has four clocks. `total` limits the whole call up to the first content of its answer, queueing and
//! retries included, and is handed inward as the deadline. `attempt` limits one attempt at a unary answer,
//! `first_content` one attempt at a stream, and `idle` the silence in an answer that has begun. When a clock runs out,
//! the inner call or body is dropped at that moment, which closes its connection, and the error names the clock and the
//! time that it was set to. The layer is stacked twice: [`total`](TimeoutLayer::total) outside of the retries,
//! [`attempt`](TimeoutLayer::attempt) inside.
//!
//! Calls of the flex tier, whose first byte may take a quarter of an hour for half the price, have a total and an
//! attempt's clock of their own ([`flex`](TimeoutLayer::flex)). The tier stands in the body: the total clock learns of
//! it from a [`ReplayLayer`](crate::ReplayLayer) inside, which reads the body while the clock runs already.
//!
//! The clocks of an attempt can [adapt](TimeoutLayer::adaptive) to the times that are seen, so that a hang costs a
//! little more than a slow answer, and there is time for another attempt.
//!
//! It never makes a timer before something is pending, never throws away an answer that is there when the clock runs
//! out, never gives an attempt more time than is set, never shortens one that would be the last, and never counts a
//! slow reader as silence.
//!
//! # When to use it
//!
//! In every stack: it is the only layer that ends a call that hangs. tower's `Timeout` has one clock, which stops at
//! the response's head, and an error that says no more than that it has elapsed. tower-http's `TimeoutLayer` answers
//! with a status in place of an error, which a layer outside takes for the upstream's answer, and its
//! `ResponseBodyTimeoutLayer` does not tell a model that still thinks from a stream that has died.
//!
//! ```
//! use std::time::Duration;
//! use http::{Request, Response};
//! use http_body_util::Empty;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_gemini::{Error, TimeoutLayer, failure::TimeoutKind};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! let hung = service_fn(|_: Request<()>| std::future::pending::<Result<Response<Empty<&[u8]>>, std::io::Error>>());
//! let service = ServiceBuilder::new().layer(TimeoutLayer::attempt(Duration::from_secs(180))).service(hung);
//!
//! let request = Request::post("/v1beta/models/gemini-2.5-flash:generateContent").body(())?;
//! let error = service.oneshot(request).await.unwrap_err();
//! let error = Error::find(&*error).unwrap();
//! assert_eq!(error.timeout_kind(), Some(TimeoutKind::Attempt));
//! assert_eq!(error.failure().code(), 504);
//! # Ok(())
//! # }
//! ```
//!
//! The two places of the layer, and a stream's clocks for a fast model:
//!
//! ```
//! use std::time::Duration;
//! use tower::ServiceBuilder;
//! use tower_gemini::{RetryLayer, TimeoutLayer};
//!
//! let layers = ServiceBuilder::new()
//!     .layer(TimeoutLayer::total(TimeoutLayer::TOTAL))
//!     .layer(RetryLayer::default())
//!     .layer(
//!         TimeoutLayer::attempt(TimeoutLayer::ATTEMPT)
//!             .first_content(Duration::from_secs(30))
//!             .idle(Duration::from_secs(20)),
//!     );
//! # let _ = layers;
//! ```
//!
//! # Defaults
//!
//! | clock | default | why |
//! |---|---|---|
//! | total | [285 s](TimeoutLayer::TOTAL) | many clients give up on headers at 300 s |
//! | attempt | [180 s](TimeoutLayer::ATTEMPT) | a unary answer's headers come at its end |
//! | first content | [180 s](TimeoutLayer::FIRST_CONTENT) | thinking is slow; 30 s suits Flash |
//! | idle | [60 s](TimeoutLayer::IDLE) | no healthy stream pauses for a minute |
//! | total, for flex | [16 min](TimeoutLayer::FLEX_TOTAL), or the total where that is longer | one attempt, and a minute |
//! | attempt and first content, for flex | [15 min](TimeoutLayer::FLEX_FIRST_BYTE), or the clock where that is longer | the first byte may take that long |
//!
//! The time to connect belongs to the client. A limit of zero ends everything that is not ready at the first poll.
//! Without [`ClassifyLayer`](crate::ClassifyLayer) inside, which holds a stream until its first content, the first
//! bytes of a body count as its content, and a clock that adapts ends with the head: from there on it is as it is set.
//!
//! # Adaptive clocks
//!
//! A clock that suits every model is far too long for most: where answers take five seconds, one that hangs costs three
//! minutes, and 285 s have room for one attempt after it. [`adaptive`](TimeoutLayer::adaptive) sets the clock by the
//! 95th percentile (p95) of the model's last 64 answers, once 16 are known; those of streams, which end with the first
//! content, and those of each service tier count apart. `rest` is the time until the deadline.
//!
//! | attempt after | clock | no longer than |
//! |---|---|---|
//! | no time-out | 1.5 × p95, at least [10 s](TimeoutLayer::ADAPTIVE_FLOOR) | half of the rest, or 1.25 × p95 |
//! | one time-out | 6 × p95, at least 10 s | the same |
//! | more | as it is set | the same |
//! | three cuts in a row, of any calls, since an answer in time | longer by 1.5 × p95 whenever it runs out | as it is set |
//!
//! An attempt has 1.5, then 6 × p95 (10 s at least), then what is set; never more than half of the rest, never less
//! than 1.25 × p95, and all of it where nothing else would fit, by the quickest answer known. A clock that runs out is
//! made longer while its times look wrong: the p95 has grown, or three attempts in a row were cut. Where four more cuts
//! were for nothing than have found hangs, clocks are as set.
//!
//! One call whose attempts all hang, at a p95 of 5 s and with 285 s, has 10 s, 30 s, 122 s and then the rest, unless
//! others are answered meanwhile.
//!
//! In simulations of 400 calls to a model that answers in 60 to 120 s and hangs once in ten, those of
//! [`GeminiLayer::thinking`](crate::GeminiLayer::thinking) were all answered in five runs; in those of `relay()`, whose
//! 285 s are enough for two attempts, 98.8 %, and 96.1 % with clocks as they are set. A model that became three or five
//! times slower lost no call where many were under way, and the first one of a caller who calls one by one: all its
//! attempts are cut, where no other answer shows that the times have changed (`tests/stack_clocks.rs`).
//!
//! # Errors
//!
//! A clock that runs out is [`Kind::Timeout`](crate::failure::Kind::Timeout) with the clock's name; the total clock's
//! is never the upstream's fault ([`Fault::Local`](crate::failure::Fault::Local)). An `X-Server-Timeout` that is not a
//! whole number of seconds is [`Kind::BadRequest`](crate::failure::Kind::BadRequest).
//!
//! # Cancellation
//!
//! Dropping the future or the body drops the timer with it.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's, and no clock runs in it. The call is passed on at once.
//!
//! # Words read and written
//!
//! Reads [`CallContext::call`](crate::CallContext::call), else the URI; the caller's `X-Server-Timeout`; and from the
//! outcome whether a layer inside has held the answer. Adaptive clocks read the deadline,
//! [`repeats_timeouts`](crate::CallContext::repeats_timeouts) and [`timed_out`](crate::CallContext::timed_out) as well,
//! and record into their [`ServiceTimes`](crate::service_times::ServiceTimes). Writes a clock that runs out in an
//! answer's body into its [`Usage`](crate::context::Usage) cell. The total clock writes
//! [`CallContext::deadline`](crate::CallContext::deadline): the earliest of its own, the caller's and one that is set
//! already; for calls that may be of the flex tier also a later one, which holds once
//! [`CallContext::set_call`](crate::CallContext::set_call) names that tier. The attempt's clock sets `X-Server-Timeout`
//! upstream: to the caller's own, else, on unary calls, to the time that it is set to, also where it adapts. Either
//! raises a caller's value under the 10 s that the API demands to 10; the clock here runs for the time that the caller
//! set.

mod adaptive;
mod body;
mod clocks;
mod future;
mod layer;
mod service;

pub(crate) use self::clocks::Clocks;
pub use self::{body::TimeoutBody, future::ResponseFuture, layer::TimeoutLayer, service::Timeout};

/// The room's name in errors.
const NAME: &str = "timeout";
