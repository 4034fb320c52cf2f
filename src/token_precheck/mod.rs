//! Refuses a request that the upstream would answer with 400, before it is sent.
//!
//! Without this layer a request that is too long, that was cut off half-way, or that misspells its model waits in the
//! queue, spends quota (the API charges for the requests that it refuses as too long), and comes back with a message
//! that fits every mistake. A local count with another vendor's vocabulary, or by characters, is off by a quarter in
//! the median.
//!
//! This layer reads the body once, without a copy and without a tree, and refuses what the upstream would refuse:
//! broken JSON, with line and column; contents that are missing or empty; a model that is not in a fresh list while one
//! of nearly that name is; a method that the model does not have; more input tokens than the model takes, with both
//! numbers. It labels every other request with its token cost, for the limiter.
//!
//! Interactions, decisions and OpenAI's responses are read as other calls are, as far as they are known: their `input`,
//! its steps and contents, the system instruction and the functions. What they go on from is counted by nobody here.
//!
//! It never refuses on an estimate, never judges what it does not know (other paths, other encodings, bodies that are
//! not declared as JSON in UTF-8, what only Google's own parser takes for JSON, models that no fresh list covers),
//! never checks a model's output, and never reads a body that is not in memory: put [`ReplayLayer`](crate::ReplayLayer)
//! outside.
//!
//! # When to use it
//!
//! In front of a limiter, because a refused request spends neither quota nor a place in the queue, and wherever people
//! write the requests, because its messages name the mistake. The limiter also needs it to charge input tokens before
//! an answer says what they were. Neither tower nor tower-http has such a layer; tower-http's `RequestBodyLimit` bounds
//! bytes, not tokens.
//!
//! ```
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use tower::{Layer, ServiceExt};
//! use tower_gemini::{Error, TokenPrecheckLayer, emulator::Emulator, models::ModelTable};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! # let upstream = tower::ServiceBuilder::new().map_request(|mut request: Request<Full<Bytes>>| {
//! #     request.headers_mut().insert("x-goog-api-key", http::HeaderValue::from_static("test-key"));
//! #     request
//! # }).service(Emulator::new());
//! // Misspelt models are refused only if the list of models is fresh.
//! let models = ModelTable::new();
//! models.refresh(upstream.clone()).await?;
//! let service = TokenPrecheckLayer::new(models).layer(upstream);
//!
//! let request = Request::post("/v1beta/models/gemini-2.5-flsh:generateContent")
//!     .header("content-type", "application/json")
//!     .body(Full::from(r#"{"contents": [{"parts": [{"text": "Hello!"}]}]}"#))?;
//! let error = service.clone().oneshot(request).await.unwrap_err();
//! let error = Error::find(&*error).unwrap();
//! assert!(error.failure().message().contains("Did you mean gemini-2.5-flash"));
//! assert!(!error.outcome().was_sent());
//! # Ok(())
//! # }
//! ```
//!
//! A limit of your own, and its refusal:
//!
//! ```
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use tower::{Layer, ServiceExt};
//! use tower_gemini::{Error, TokenPrecheckLayer, emulator::Emulator, failure::Kind, models::{Model, ModelTable}};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! let models = ModelTable::new();
//! models.insert(Model::new("small-model").with_input_limit(100));
//! let service = TokenPrecheckLayer::new(models).layer(Emulator::new());
//!
//! let body = format!(r#"{{"contents": [{{"parts": [{{"text": "{}"}}]}}]}}"#, "many words ".repeat(1_000));
//! let request = Request::post("/v1beta/models/small-model:generateContent")
//!     .header("content-type", "application/json")
//!     .body(Full::from(body))?;
//! let error = service.oneshot(request).await.unwrap_err();
//! let failure = Error::find(&*error).unwrap().failure();
//! assert_eq!((failure.kind(), failure.token_limit()), (Kind::ContextTooLong, Some(100)));
//! # Ok(())
//! # }
//! ```
//!
//! # How tokens are counted
//!
//! It decides in brackets. The number of bytes nearly always decides alone: a text never has more tokens than bytes.
//! Otherwise the texts are counted, exactly if the feature `tokenizer` is on, and only until the limit is decided. The
//! upstream counts (`countTokens`, which costs no quota of generating) what is too near to the limit, and media that
//! cannot be counted locally.
//!
//! # Checks
//!
//! It checks calls that generate, embed or count, on the Developer, Vertex and OpenAI-compatible surfaces, in camel
//! case and in snake case.
//!
//! | | refused when | as |
//! |---|---|---|
//! | JSON | the content type says JSON, and the body is cut off, or lacks a bracket, a comma or a colon | 400, with line and column |
//! | contents, messages, input | they are missing or empty, and there is no cached content; never for a call that counts | 400 |
//! | model | [a fresh list](crate::models::ModelTable) lacks it, and has one that differs by at most two letters ([`UnknownModel`]) | 404, with the names |
//! | method | a fresh list says that the model does not have it | 404, with the methods it has |
//! | input | it has more tokens than the model takes, by the list or by an earlier refusal of the upstream | 400, with count and limit |
//! | `maxOutputTokens` | it is out of range: warns, clamps or refuses ([`MaxOutputPolicy`]) | 400 |
//!
//! Google's own parser takes more than JSON: a comma behind the last element, single quotes, keys without quotes, line
//! breaks in strings. Such a body is sent unchecked and unchanged.
//!
//! # Defaults
//!
//! | | default | why |
//! |---|---|---|
//! | unknown model | refused | a misspelt model is never answered |
//! | output limit | a warning | not every surface refuses it |
//! | counting by the upstream | near the limit, for at most 5 s | a round trip costs less than a refused call |
//! | a request that cannot be counted | sent | the upstream judges it; [`fail_closed`](TokenPrecheckLayer::fail_closed) refuses it instead |
//! | reading inline | bodies up to 128 KiB | a larger one is read on tokio's blocking threads, so that no other call waits for it |
//! | values of a body | 1,048,576, names of members included | no model's context has room for more: such a body is sent unread, and costs as many tokens as it has bytes; [`fail_closed`](TokenPrecheckLayer::fail_closed) refuses it instead |
//! | counting inline | up to 64 KiB of text | a larger text is counted on tokio's blocking threads, and only if it may be too long |
//!
//! # Costs
//!
//! In the benchmark (`cargo bench -p benches --bench tokenizer -- checks`, on a shared machine with two cores) a
//! request of 1 KB takes 1.9 µs, 0.8 of them for walking it and the rest for estimating, and 4.4 µs if it is counted
//! exactly. Larger requests are read at 0.7 to 2.8 GB/s, images at 45 GB/s, because base64 is not read beyond its first
//! bytes.
//!
//! It keeps of a request only its hash and its count, and those only if the upstream counted it: at most 1,024 of them.
//!
//! # Errors
//!
//! It fails with an [`Error`](crate::Error) whose failure is the caller's fault:
//! [`InvalidRequest`](crate::failure::Kind::InvalidRequest), [`ModelNotFound`](crate::failure::Kind::ModelNotFound),
//! [`ContextTooLong`](crate::failure::Kind::ContextTooLong). Nothing was sent.
//! [`ErrorResponseLayer`](crate::ErrorResponseLayer) turns it into an answer in Google's shape.
//!
//! # Cancellation
//!
//! Dropping the future drops the upstream's count that is under way. Reading and counting on a blocking thread run to their
//! end, which the body's length bounds.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's. A `countTokens` call uses that readiness up, and the request itself waits for
//! the next. While a blocking thread reads or counts, the readiness is released.
//!
//! # Words read and written
//!
//! Reads from [`CallContext`](crate::CallContext) the call and the deadline, which a `countTokens` call never passes;
//! from [`Outcome`](crate::Outcome) the usage, which calibrates the estimates of each model, and the limits that the
//! upstream names in refusals. Writes the token cost into `CallContext`.

mod await_list;
mod await_read;
mod calibration;
mod check;
mod count;
mod count_cache;
mod count_tokens;
mod counting;
pub mod estimate;
mod future;
mod later;
mod layer;
mod learn;
mod question;
mod read;
mod refusal;
mod service;
mod settings;
mod upstream_count;
mod verdict;

pub use self::{
    future::ResponseFuture,
    layer::TokenPrecheckLayer,
    service::TokenPrecheck,
    settings::{AskUpstream, MaxOutputPolicy, UnknownModel},
};

/// The room's name in errors.
const NAME: &str = "token_precheck";
