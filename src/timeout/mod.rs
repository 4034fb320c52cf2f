//! Ends what hangs, and says which clock ran out.
//!
//! Without this layer a call waits as long as the upstream likes. One clock for everything does not help: a model that
//! thinks may need two minutes to its first word, while a minute of silence in the middle of an answer means that nothing
//! more will come; and a clock around the retries cannot end a single attempt that hangs.
//!
//! This layer has four clocks. `total` holds for the whole call up to the first content of its answer, queueing and retries
//! included, and is handed inward as the deadline. `attempt` holds for one try at a unary answer, `first_content` for one
//! try at a stream, `idle` for the silence in an answer that has begun. Whatever runs out, the inner call or body is dropped
//! at that moment, which closes its connection, and the error says which clock it was and how long it had been set. The same
//! layer is stacked twice: [`total`](TimeoutLayer::total) outside, [`attempt`](TimeoutLayer::attempt) inside of what retries.
//!
//! It never makes a timer before something is pending, never throws an answer away that is there when the clock runs out,
//! never shortens an attempt because the total is nearly over, and does not count a slow reader as silence.
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
//! Both places, and a stream's clocks for a fast model:
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
//! | idle | [60 s](TimeoutLayer::IDLE) | no healthy stream pauses for so long |
//!
//! The time to connect belongs to the client. A limit of zero ends whatever is not there at once. Without
//! [`ClassifyLayer`](crate::ClassifyLayer) inside, which holds a stream to its first content, the first bytes of a body count
//! as its content.
//!
//! # Errors
//!
//! [`Kind::Timeout`](crate::failure::Kind::Timeout) with the clock; the total clock's is nobody's fault but the call's own
//! ([`Fault::Local`](crate::failure::Fault::Local)). An `X-Server-Timeout` that is no number is
//! [`Kind::BadRequest`](crate::failure::Kind::BadRequest).
//!
//! # Cancellation
//!
//! Dropping the future or the body drops the timer with it.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's, and no clock runs meanwhile. The call is passed on at once.
//!
//! # Words read and written
//!
//! Reads [`CallContext::call`](crate::CallContext::call), else the URI; the caller's `X-Server-Timeout`; and of the outcome whether a
//! layer inside has held the answer. The total clock writes [`CallContext::deadline`](crate::CallContext::deadline), the least of
//! its own, the caller's and one that is there already. The attempt's clock sets `X-Server-Timeout` upstream: the caller's
//! own, else its own on unary calls. Either raises a caller's value under the 10 s that the API demands to 10; the clock here
//! runs as the caller set it.

mod body;
mod future;
mod layer;
mod service;

pub use self::{body::TimeoutBody, future::ResponseFuture, layer::TimeoutLayer, service::Timeout};

/// The room's name in errors.
const NAME: &str = "timeout";
