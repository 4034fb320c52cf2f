//! Keep-alive: lets something pass while a stream is silent, so that nothing on the way cuts it.
//!
//! Without this layer a stream that waits in a queue, is tried again, or thinks, is silent for minutes, and proxies and
//! load balancers cut connections that are silent for 30 s or 60 s. Its caller gets a gateway's 504 or a reset, for a
//! call that would have succeeded. The usual cure is a comment now and then, or an event that says nothing. On Gemini's
//! surface either breaks clients: comments break six of fifteen, and each event that can be made up is handed out, kept
//! in a chat's history, or takes a turn out of it.
//!
//! This layer sends a piece after each time of silence. On Gemini's surface it opens the next event's line early:
//! `data: `, then one space at a time, and then the event's JSON on that same line. White space before JSON means
//! nothing, and no client sees it. On the OpenAI-compatible surface and in interactions it sends a comment, `: ping`,
//! which all of their clients ignore. Where the head has not come either, the layer answers 200 with
//! `text/event-stream` by itself, and the call goes on behind it: the queue, the retries, the other models. It never
//! sends a piece within an event, none after an answer has named the reason for its end, after an error or after
//! `[DONE]`, and none that nobody reads. An open line never ends the stream: a stream that ends there without another
//! event, or fails, ends in an error on that line, and then its connection breaks. A line that was opened is continued by
//! the next event's data only: comments before it are dropped, and other fields come after it.
//!
//! The price is the status. **After the first piece it is 200**, and a failure that comes later is told as in a stream
//! that is cut: an error event of the surface's own shape (`{"error": …}` on the open line), and a broken connection.
//! A failure within the first silence keeps its status. The headers of an answer whose head went out early are lost:
//! `x-gemini-model`, `Retry-After` (what the error says of it in its details stays), and also the
//! [`Outcome`](crate::Outcome), so that layers that read it belong inside of this one. The head that is sent has
//! `Cache-Control: no-cache`, and `X-Accel-Buffering: no`, because a proxy that collects the pieces cuts the connection
//! all the same.
//!
//! # When to use it
//!
//! In servers behind or before something that cuts silent connections, outside of
//! [`ErrorResponseLayer`](crate::ErrorResponseLayer); otherwise leave it out. Layers that add headers to each answer,
//! such as those of CORS, belong outside of it, and one that compresses streams belongs nowhere. It helps clients whose
//! clock is that of a read (google-genai for Python without `async`, node's `fetch`, OpenAI's); clocks that run for the
//! whole call run on.
//!
//! Answers in one piece are not kept alive: white space before their JSON would make each failure a 200, which six
//! clients take for an answer without text. An interim answer, 102 or 103, would leave the status free, and all clients
//! were seen to take it; but hyper's server, as of 1.12, cannot send one: of HTTP/1 it turns a 1xx into a 500, and of
//! HTTP/2 it keeps h2's `send_informational` to itself. 100 makes `fetch` of node fail.
//!
//! ```
//! use std::time::Duration;
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_gemini::{BoxError, KeepAliveLayer};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let thinking = service_fn(|_: Request<()>| async {
//!     tokio::time::sleep(Duration::from_secs(40)).await;
//!     let event = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Hi\"}]},\"finishReason\":\"STOP\"}]}\n\n";
//!     let response = Response::builder().header("content-type", "text/event-stream");
//!     Ok::<_, BoxError>(response.body(Full::<Bytes>::from(event))?)
//! });
//! let service = ServiceBuilder::new().layer(KeepAliveLayer::new(Duration::from_secs(15))).service(thinking);
//!
//! let request = Request::post("/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse").body(())?;
//! let response = service.oneshot(request).await?;
//! assert_eq!(response.status(), 200);
//! let stream = response.into_body().collect().await?.to_bytes();
//! // The line was opened after 15 s, and had one more space after 30 s.
//! assert!(stream.starts_with(b"data:  {\"candidates\""));
//! # Ok(())
//! # }
//! ```
//!
//! A failure behind a head that went out early is told on the open line, and then the body fails, which breaks the
//! connection:
//!
//! ```
//! use std::time::Duration;
//! use http::Request;
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_gemini::{BoxError, ErrorResponseLayer, GeminiLayer, KeepAliveLayer};
//! use tower_gemini::emulator::{Emulator, Trouble, When};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let service = ServiceBuilder::new()
//!     .layer(KeepAliveLayer::new(Duration::from_secs(1)))
//!     .layer(ErrorResponseLayer::new())
//!     .layer(GeminiLayer::relay().build()?)
//!     .service(Emulator::builder().trouble(When::always(), Trouble::overloaded()).build());
//!
//! let uri = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse";
//! let request = Request::post(uri).header("x-goog-api-key", "of the caller");
//! let body = Full::<bytes::Bytes>::from(r#"{"contents": [{"parts": [{"text": "Hello!"}]}]}"#);
//! let response = service.oneshot(request.body(body)?).await?;
//! // The first piece went out while the call was tried again.
//! assert_eq!(response.status(), 200);
//! let mut body = std::pin::pin!(response.into_body());
//! let mut said = String::new();
//! while let Some(Ok(frame)) = body.frame().await {
//!     said += std::str::from_utf8(frame.data_ref().unwrap())?;
//! }
//! assert!(said.starts_with("data: ") && said.contains("{\"error\":{\"code\":503,"), "{said}");
//! # Ok(())
//! # }
//! ```
//!
//! # Defaults
//!
//! There are none: nothing is sent without the layer, and the time of a silence is its one setting.
//!
//! A stream is known by its call: `alt=sse`, an interaction that is read again with `stream=true`, or an `Accept` of
//! `text/event-stream` alone, as Google's SDKs send it for interactions. Where the wish to stream stands in the body,
//! the layer learns of it from a [`ReplayLayer`](crate::ReplayLayer) inside, which reads the body; without one, such a
//! stream is kept alive once its head is there. Vertex AI's raw predictions, whose streams are other vendors', are left
//! alone.
//!
//! # Errors
//!
//! The service fails with the inner service's errors, as they are: over an `ErrorResponseLayer` it cannot fail. A body
//! fails after the words of an error, with a [`StreamCut`](crate::failure::Kind::StreamCut) or with the failure that it
//! has told, and where the inner body fails, with the same error.
//!
//! A stream that comes encoded (`Content-Encoding: gzip`) is passed on as it is, because its lines cannot be read, and is
//! not kept alive. Behind a head that went out early it is an error, as each other answer that is no stream of events
//! is: 502. Layers inside have seen a good answer there. Where `ClassifyLayer` reads it, its
//! [`Usage`](crate::context::Usage) says the failure, so that logs and metrics that are written at the body's end know it; of
//! HTML and of what is encoded they know the status only.
//!
//! # Cancellation
//!
//! Dropping the future or the body drops the inner call, also when that goes on behind the body.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's. The call is passed on at once. The future of a call that may stream is in a box,
//! because it has to move into the body; other calls need none.
//!
//! # Words read and written
//!
//! Reads [`CallContext::call`](crate::CallContext::call), else the URI, and learns through the context of a body that a
//! layer inside reads. It writes none.

mod body;
mod dialect;
mod error_search;
mod future;
mod layer;
mod open_line;
mod reason;
mod service;
mod stream;
mod tail;
mod words;

#[cfg(fuzzing)]
pub(crate) use self::stream::fuzzing;
pub use self::{body::KeepAliveBody, future::ResponseFuture, layer::KeepAliveLayer, service::KeepAlive};

/// The room's name in errors.
const NAME: &str = "keep_alive";
