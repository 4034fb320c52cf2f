//! Keeps a request's body, so that the request can be sent again, and reads from it which model the call is for.
//!
//! Without this layer a server cannot retry, because the body that its caller streams in is consumed once sent. And on
//! the OpenAI-compatible surface the model stands in that body, so that no layer would know which model a call is for.
//!
//! This layer collects the body, up to a cap for each body and a cap for all together, of which each caller has a share,
//! and passes it on as a
//! [`ReplayBody`](crate::body::ReplayBody), whose copies all share the same bytes. A larger body is not kept: it
//! streams on unchanged, and the outcome says that the request could not have been sent again; or it is refused, if you
//! choose so.
//!
//! It never reads an answer, and reads of a body no more than what the call is: model or agent, service tier, streaming,
//! grounding, the items of a batch; malformed JSON goes on to
//! the upstream, which judges it. It is the only layer that changes the type of the request's body.
//!
//! # When to use it
//!
//! In every server, outside of all layers that retry or need the model's name. A client whose bodies are `Full<Bytes>`
//! needs it only on the OpenAI-compatible surface, for the model.
//!
//! tower and tower-http have no such layer: `tower::retry` leaves the copying of requests to its policy, and
//! tower-http's `RequestBodyLimit` bounds a body without keeping it.
//!
//! ```
//! use http::{Request, Response};
//! use http_body_util::StreamBody;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_gemini::{CallContext, ReplayLayer, body::ReplayBody};
//! # use http_body::Frame;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! // A body that can be read only once.
//! let chunks = ["{\"model\": \"gemini-2.5-", "pro\", \"messages\": []}"];
//! let chunks = chunks.map(|chunk| Ok::<_, std::io::Error>(Frame::data(bytes::Bytes::from(chunk))));
//! let body = StreamBody::new(tokio_stream::iter(chunks));
//!
//! let upstream = service_fn(|request: Request<ReplayBody<_>>| async move {
//!     assert!(request.body().is_resendable());
//!     let call = CallContext::of(&request).and_then(CallContext::call).unwrap();
//!     assert_eq!(call.model(), Some("gemini-2.5-pro"));
//!     Ok::<_, std::io::Error>(Response::new(()))
//! });
//! let service = ServiceBuilder::new().layer(ReplayLayer::new()).service(upstream);
//! service.oneshot(Request::post("/v1beta/openai/chat/completions").body(body)?).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A server that refuses larger bodies, with an error that [`ErrorResponseLayer`](crate::ErrorResponseLayer) turns into
//! a 413:
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use http_body_util::Full;
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_gemini::{Error, ReplayLayer, body::ReplayBody, replay::Oversize};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! let upstream = service_fn(|_: Request<ReplayBody<Full<bytes::Bytes>>>| async {
//!     Ok::<_, std::io::Error>(Response::new(()))
//! });
//! let layer = ReplayLayer::new().max_body(4).oversize(Oversize::Refuse);
//! let request = Request::post("/v1beta/models/m:generateContent").body(Full::from("12345"))?;
//! let error = layer.layer(upstream).oneshot(request).await.unwrap_err();
//! let error = Error::find(&*error).unwrap();
//! assert_eq!(error.failure().code(), StatusCode::PAYLOAD_TOO_LARGE);
//! # Ok(())
//! # }
//! ```
//!
//! # Defaults
//!
//! | what | value | why |
//! |---|---|---|
//! | [`max_body`](ReplayLayer::max_body) | 32 MiB | inline data may be 20 MiB, a third more as base64 |
//! | [`max_total`](ReplayLayer::max_total) | 512 MiB | 16 of the largest bodies, or thousands of ordinary ones |
//! | [`max_per_caller`](ReplayLayer::max_per_caller) | none | a caller keeps no more than it leaves free, one alone half of all |
//! | [`oversize`](ReplayLayer::oversize) | [`Oversize::Stream`] | an upload may be large |
//!
//! A body of more than 128 KiB is read on tokio's blocking threads, so that no other call waits for it, on as many at a
//! time as half of the machine's cores; a smaller one takes less than a millisecond. One of more than
//! [`MAX_VALUES`](ReplayLayer::MAX_VALUES) values and names of members, 1,048,576, is kept and not read: no model's context
//! has room for them, and reading more would only cost time. The layers inside then know no more than its URI says, and
//! [`CallContext::body_is_unread`](crate::CallContext::body_is_unread) says so: refuse such a call where you judge callers
//! by what their bodies say.
//!
//! Bytes are counted as they arrive, whatever `Content-Length` says. A body that announces more than the cap is not
//! collected at all.
//!
//! [`ReplayMemory`] says how the memory is shared between callers, what is used of it, and how many bodies found no room;
//! [`Gauges`](crate::telemetry) report it. A body without room costs its call the retries, other keys and fallback
//! models, so that a warning is logged, once a minute at most.
//!
//! # Errors
//!
//! [`Kind::RequestBody`](crate::failure::Kind::RequestBody) when the caller's body breaks off, with its error as the
//! source; [`Kind::BodyTooLarge`](crate::failure::Kind::BodyTooLarge) with [`Oversize::Refuse`], except for uploads.
//! Neither was sent. A body that finds no room under the cap for all is never refused for that: it streams on, and with
//! [`Oversize::Refuse`] it fails where it passes its own cap.
//!
//! # Cancellation
//!
//! Dropping the future frees the memory of the body; so does dropping the last copy of the body. A body that another
//! thread reads at the time is freed when that ends. A body that is in memory is sent on in `call` itself: a future that is
//! dropped before its first poll counts as sent in the layers inside.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's. While a body is being collected the readiness is released, so that a slow
//! upload holds no permit of the inner service, and so it is while another thread reads the body; the service is made
//! ready again before the call.
//!
//! # Words read and written
//!
//! Reads [`CallContext::caller`](crate::CallContext::caller). Writes [`CallContext::call`](crate::CallContext::call), with which a later deadline may come into force;
//! [`Outcome::unkept`](crate::Outcome::unkept) if the body was not kept; and
//! [`Outcome::call`](crate::Outcome::call), where a layer inside has written an outcome.

mod future;
mod layer;
mod memory;
mod read;
mod report;
mod service;
mod settings;
mod shares;

pub use self::{
    future::ResponseFuture,
    layer::ReplayLayer,
    memory::ReplayMemory,
    report::{ReplayReport, UnkeptCounts},
    service::Replay,
    settings::Oversize,
};

/// The room's name in errors.
const NAME: &str = "replay";
