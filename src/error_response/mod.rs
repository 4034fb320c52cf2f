//! Error responses: turns an error into the answer that Google would have given.
//!
//! Without this layer a server has nothing to say when a layer refuses or the transport fails: axum and hyper want a
//! response, and an SDK at the other end wants one that it can read. A stream that breaks would reach the SDK as a
//! reset connection, which looks like a fault of its own network.
//!
//! This layer answers in Google's JSON shape and in the envelope of the caller's surface: an object, a list of one
//! where a list was asked for, an object with `message`, `type` and `code` on the OpenAI-compatible surface, a string code
//! for Interactions. An `ErrorInfo` detail of the domain `tower-gemini` names the layer, the clock, the fault and the number
//! of attempts. API keys in the text of an upstream's error are overwritten with asterisks, length for length: they are the
//! server's, not the caller's.
//!
//! Clients believe the status alone, so that a failure before any content is one: an error as the first event of a stream
//! or as a 200 in one piece gets its own status, and an answer without anything is a 502 that says what came. A verdict on
//! the content (a finish reason, a block reason, the status of an interaction, the filter's event on its stream) is an answer
//! and stays one. A 4xx or 5xx that no SDK can read (empty, cut off, a page of HTML, JSON that is no error) is written anew
//! with its status and the first words of what came. It never changes an answer whose first content was handed over, but
//! for its end, nor an error of more than 64 KiB, of another encoding than `identity`, or of a path that is not the API's.
//!
//! # When to come again
//!
//! The hints go with a status that passes with time (408, 429, 5xx), and never with 400, 403 or 404, where an upstream's
//! `Retry-After` is removed:
//!
//! | hint | said | from |
//! |---|---|---|
//! | `Retry-After` | on every 429, 503 and 504, and on the others where the time is known: 1 to 60 s | the breaker's remaining time, the limiter's window, the upstream's own words; else 30 s for a 429 and 10 s |
//! | `RetryInfo` | where the time is known, and the upstream's error has none | the true time, however long |
//! | "try again in N s" in the message | for up to 60 s; a longer time in other words, which no client takes for a short wait | as `Retry-After`, but for a 429 whose time nobody knows: LangChain would make seven requests of one. After attempts of the server's such a 429 says "it will reset at a time that the upstream does not say" |
//! | `x-should-retry: false` | where a [`RetryLayer`](crate::RetryLayer) inside has had its say, its refusals by the layers inside included; where the time is longer than 60 s; where no time helps (a limit of 0, the server's keys refused, the caller's own fault); and after the total clock | OpenAI's clients read it |
//!
//! On the surface of interactions a time of more than 60 s, or none, is said as 8 s: Google's clients retry four times there.
//! A layer used alone has tried once, so that nobody is told not to try again. An upstream's `x-should-retry` and
//! `retry-after-ms` never pass, and its `Retry-After` passes with such a status only, in whole seconds, 60 at most: Node
//! clients ignore more and come back at once. Of a longer wait the message says when it ends ("it will reset at 08:00
//! UTC"). No client waits for that, and LangChain's gives up on these words.
//!
//! # The server's own keys
//!
//! A refusal of a key that is the server's ([`Outcome::key`](crate::Outcome::key) is set) is the operator's trouble, and the
//! caller gets a 503 that says so, from the first call on; the outcome keeps the true failure for logs and pages. A
//! `PERMISSION_DENIED` that the caller may have caused goes on, without the names of the server's projects in it. A caller
//! that brings its own key gets Google's answer as it is.
//!
//! # The end of a stream
//!
//! | the stream | its end |
//! |---|---|
//! | of events, breaks or is cut | an error event, then the body fails |
//! | the same, in the middle of an event | the half event is dropped, then the same |
//! | the same, in the middle of an event of more than 64 KiB | it has passed as it came; the body fails, and nothing is said |
//! | an array, breaks or is cut | the half element is dropped; an error as one more element, which closes the array; then the body fails |
//! | the same, behind its closing bracket | the bracket has waited for the body's end, and is dropped; then the same |
//! | an array, ends without its closing bracket | the same as one that is cut |
//! | the upstream says an error in an event or an element | it passes; the body fails where the stream ends, also where that is a clean end |
//! | an answer in one piece | the body fails |
//!
//! LangChain's packages for JavaScript and genkit take an error event with a clean end for a whole answer, and only a
//! broken connection is noticed by every SDK, so both are said. [`StreamEnding`] sets another end. An array is whole
//! JSON after its last element, and a reader who ignores unknown members would take it for a whole answer, too.
//!
//! Therefore each event is held until it is whole, up to 64 KiB, and so is each element. No client can use the half of
//! one; what is whole is never delayed. The length of a stream is not said, because its end may get longer, and a server
//! that knows the length does not ask for an error behind it. A stream of a wrong type is known by its first byte. An encoded
//! stream passes untouched. The stream's failure is in the [`Usage`](crate::context::Usage), also where this layer alone has
//! seen it. What the upstream's body holds is free as soon as it has ended or failed.
//!
//! Some shapes of an upstream's error are read by no SDK: a list, a string as the code, an `error` behind other members,
//! an `event:` or `id:` line on Gemini's own surface, or bare JSON without `data:`, as Google's own servers end a stream.
//! Such an event is written anew, as `data: {"error": …}` with a number as the code, and on the Interactions surface a
//! bare line gets the frame of an event there. In an error that the upstream says after the commit, keys are overwritten and
//! projects of the server's hidden, as in one before. All other events pass untouched, comments and ids included; so do those of
//! other providers (`rawPredict`).
//!
//! The body fails only when the server has written the last words, and so all before them, however slowly the caller
//! reads. hyper drops with a failed body all that it has not written yet. This is certain for hyper's HTTP/1 server on a
//! plain socket and for its HTTP/2 server, for callers that take the words within 30 s. Where a buffer of TLS, or one of
//! hyper's own without vectored writes, stands between, it holds for callers that do not stop reading for half a second.
//! The wait needs tokio's timer (`enable_time`): in a runtime without one it panics, and outside of a runtime there is no wait.
//!
//! # When to use it
//!
//! In servers, outside of all other layers. It is the wrong layer for a client, which wants errors as errors. axum's
//! `HandleErrorLayer` turns an error into a response by a function of yours; it knows neither the caller's surface nor
//! what a stream that breaks after its head should end in. tower-http has no such layer.
//!
//! ```
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Empty};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_gemini::ErrorResponseLayer;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! let unreachable = service_fn(|_: Request<()>| async {
//!     Err::<Response<Empty<bytes::Bytes>>, _>(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))
//! });
//! let service = ServiceBuilder::new().layer(ErrorResponseLayer::new()).service(unreachable);
//!
//! let request = Request::post("/v1beta/models/gemini-2.5-flash:generateContent").body(())?;
//! let response = service.oneshot(request).await?;
//! assert_eq!(response.status(), 503);
//! let body: serde_json::Value = serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?;
//! assert_eq!(body["error"]["status"], "UNAVAILABLE");
//! # Ok(())
//! # }
//! ```
//!
//! Under axum, whose `route_service` wants a service that cannot fail:
//!
//! ```
//! use axum::{Router, body::Body};
//! use std::time::Duration;
//! use tower::ServiceBuilder;
//! use tower_gemini::{ClassifyLayer, ErrorResponseLayer, ReplayLayer, RetryLayer, TimeoutLayer, emulator::Emulator};
//!
//! let upstream = Emulator::builder().build();
//! let gemini = ServiceBuilder::new()
//!     .layer(ErrorResponseLayer::new())
//!     .layer(TimeoutLayer::total(TimeoutLayer::TOTAL))
//!     .layer(ReplayLayer::new())
//!     .layer(RetryLayer::default())
//!     .layer(ClassifyLayer::new())
//!     .service(upstream);
//! let app: Router = Router::new().route_service("/{*path}", gemini);
//! # let _ = app;
//! ```
//!
//! # Defaults
//!
//! Nothing has to be set. A stream that fails ends in [`StreamEnding::EventThenBreak`], and errors on the
//! OpenAI-compatible surface are [`OpenAiErrors::Objects`]. The status is the upstream's own if there was one; else 400
//! for a request that cannot be sent, 413 for one that is too large, 429 and 503 for refusals, 503 for an upstream that
//! cannot be reached, 504 for time-outs.
//!
//! # Errors
//!
//! There are none: the service is [`Infallible`](std::convert::Infallible). Only the body of an answer fails: a stream
//! after its last words, and an answer that can take none, because it is in one piece and breaks in the middle.
//!
//! # Cancellation
//!
//! Dropping the future or the body drops the inner one. A body whose last words nobody takes ends after 30 s. The body of a
//! failure is read in the future, at most 64 KiB of it, and its rest is waited for no longer than 10 s; a
//! [`ClassifyLayer`](crate::ClassifyLayer) inside has read it before, within the attempt's time.
//!
//! # Readiness
//!
//! `poll_ready` waits for the inner service. If that fails, the next call is answered with its error.
//!
//! # Words read and written
//!
//! Reads [`CallContext::call`](crate::CallContext::call), else the URI, and the [`Outcome`](crate::Outcome) in the
//! response or the error. The answer to an error has the error's outcome.

mod answer;
mod body;
mod ends;
mod follow;
mod framer;
mod future;
mod gate;
mod heard;
mod hide;
mod hints;
mod items;
mod layer;
mod reading;
mod render;
mod review;
mod service;
mod settings;

#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    pub(crate) use super::{framer::fuzzing::frame, gate::fuzzing::gate};
}
pub use self::{
    body::ErrorResponseBody,
    future::ResponseFuture,
    layer::ErrorResponseLayer,
    service::ErrorResponse,
    settings::{OpenAiErrors, StreamEnding},
};
