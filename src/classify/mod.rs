//! Reads each failure once, for every layer outside.
//!
//! Without this layer each layer would have to guess from the status alone. A 429 may be a minute's quota, a day's, a
//! limit of zero, or other callers' traffic on shared capacity; a 400 may be a bad key; a 200 may be an error that
//! comes as the first event of a stream, or an answer without a word in it. The cause stands in the body, and a body
//! can be read only once.
//!
//! This layer sits next to the transport and reads the body. Of an error it reads up to 64 KiB, and passes them on byte
//! for byte. A generated answer is held until its first content, so that an error event, a bare JSON tail, an empty end
//! or an answer without parts can still be retried. The first content commits the answer: from there on its bytes go
//! through untouched, while token counts, model version, tier and finish reason are noted as they pass. A stream that
//! ends before it had finished ends in an error; one that only thought is noted as failed. Of embeddings, predictions and
//! interactions that are read again only the cost is read. A transport error is wrapped in an [`Error`] with its meaning.
//!
//! It never retries, waits, or changes a byte of an answer, and never changes the kind of a result: an error answer
//! stays a response. An error that a proxy has compressed all the same (gzip, deflate, brotli) is read, and passed on as
//! it came. Any other answer that is compressed, or that is media or protobuf, it judges by its status. JSON and events are
//! told by their first bytes, whatever `Content-Type` says; text that is neither, such as a proxy's page, is an empty answer.
//!
//! # When to use it
//!
//! Next to the transport, inside of all other layers of this crate. They work without it, but then know only statuses
//! and headers.
//!
//! tower-http's `classify` module decides for `TraceLayer` whether a response is a failure, by its status or its gRPC
//! code. It reads no body and holds no answer.
//!
//! ```
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_gemini::{ClassifyLayer, Outcome, failure::{Fault, Kind}};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! let body = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[
//!     {"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[
//!         {"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier","quotaValue":"500"}]}]}}"#;
//! let upstream = service_fn(move |_: Request<Full<bytes::Bytes>>| async move {
//!     Response::builder().status(429).body(Full::<bytes::Bytes>::from(body))
//! });
//! let service = ServiceBuilder::new().layer(ClassifyLayer::new()).service(upstream);
//!
//! let request = Request::post("/v1beta/models/gemini-2.5-flash:generateContent").body(Full::default())?;
//! let response = service.oneshot(request).await?;
//!
//! let failure = response.extensions().get::<Outcome>().and_then(Outcome::failure).cloned().unwrap();
//! assert_eq!((failure.fault(), failure.kind()), (Fault::Quota, Kind::QuotaDay));
//! assert!(!failure.same_key_may_help() && failure.other_model_may_help());
//! // The body is unchanged.
//! assert_eq!(response.into_body().collect().await?.to_bytes(), body);
//! # Ok(())
//! # }
//! ```
//!
//! The usage is known once the body has passed:
//!
//! ```
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_gemini::{ClassifyLayer, Outcome};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! let upstream = service_fn(|_: Request<Full<bytes::Bytes>>| async {
//!     let body = r#"{"candidates":[{"content":{"parts":[{"text":"Hello."}]},"finishReason":"STOP"}],
//!         "usageMetadata":{"promptTokenCount":4,"totalTokenCount":6},"modelVersion":"gemini-2.5-flash"}"#;
//!     Ok::<_, std::convert::Infallible>(Response::new(Full::<bytes::Bytes>::from(body)))
//! });
//! let request = Request::post("/v1beta/models/gemini-2.5-flash:generateContent").body(Full::default())?;
//! let response = ClassifyLayer::new().layer(upstream).oneshot(request).await?;
//!
//! let usage = response.extensions().get::<Outcome>().and_then(Outcome::usage).cloned().unwrap();
//! response.into_body().collect().await?;
//! let report = usage.report();
//! assert_eq!((report.prompt_tokens, report.total_tokens, report.ended), (Some(4), Some(6), true));
//! assert_eq!(report.finish_reason.as_deref(), Some("STOP"));
//! # Ok(())
//! # }
//! ```
//!
//! # Defaults
//!
//! | what | value | why |
//! |---|---|---|
//! | the most that is read of an error's body | 64 KiB | one line for each violation of a schema makes tens of KiB; no larger body was seen |
//! | the most that comes out of a compressed error | 64 KiB | a few bytes may claim to hold gigabytes |
//! | the most that is held of an answer | 64 KiB | the first part comes long before; a longer answer counts as content |
//! | [`hold_answers`](ClassifyLayer::hold_answers) | yes | otherwise no failure inside a 200 can be retried |
//!
//! # Errors
//!
//! An inner error becomes an [`Error`] with the inner one as its source; one that is an `Error` already is passed on. A
//! body that breaks before the commit is such an error too. After the commit it is the body's error, marked so that no
//! layer sends the request again; so is the end of a stream that had no finish reason, or of an interaction without
//! `interaction.completed`.
//!
//! # Cancellation
//!
//! Dropping the future drops the inner call and the held part of its body. Dropping the body leaves
//! [`UsageReport::ended`](crate::context::UsageReport::ended) unset.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's. The call is passed on at once.
//!
//! # Words read and written
//!
//! Reads [`CallContext::call`](crate::CallContext::call), else the URI. Writes into [`Outcome`](crate::Outcome) the
//! failure, that the request was sent, and the [`Usage`](crate::context::Usage) cell of a generated answer. Sets the
//! header `Accept-Encoding: identity`. A `Retry-After` of an error that is neither a number nor a date is dropped.
//!
//! [`Error`]: crate::Error

mod body;
mod events;
mod form;
mod future;
mod layer;
mod service;
mod settings;
mod watch;

#[cfg(fuzzing)]
pub(crate) use self::watch::fuzzing;

pub use self::{body::ClassifyBody, future::ResponseFuture, layer::ClassifyLayer, service::Classify};

/// The room's name in errors.
const NAME: &str = "classify";
