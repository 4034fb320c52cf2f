//! What would be a 400 is never sent.
//!
//! Without this layer a request that is too long, that was cut off half-way, or that asks for a model with a letter missing
//! goes through the queue, spends quota (the API charges for what it refuses as too long), and comes back with a message that
//! fits every mistake. Counting with another vendor's vocabulary, or by characters, is off by a quarter in the median.
//!
//! This layer reads the body once, without a copy and without a tree, and refuses what the upstream would refuse: JSON that
//! is broken, with line and column; contents that are missing or empty; a model that is not in a fresh list while one of nearly
//! that name is; a method that the model does not have; more input tokens than it takes, with both numbers. What it lets
//! through, it labels with its cost for the limiter.
//!
//! It decides in brackets. Bytes alone decide nearly always: a text has no more tokens than bytes. Else the texts are
//! counted, exactly where the feature `tokenizer` is on, and only until it is decided. What lies too near to the limit, and
//! media that cannot be counted here, is counted by the upstream (`countTokens`, which costs no quota of generating).
//!
//! It never refuses on a guess, never judges what it does not know (other paths, other encodings, bodies that do not claim to
//! be JSON in UTF-8, what only Google's own reader takes for JSON, models of which no fresh list says anything), never checks
//! the output of a model, and never reads a body that is not in memory: put [`ReplayLayer`](crate::ReplayLayer) outside.
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
//! // Refuses misspelt models only by a list that is fresh.
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
//! A limit of your own, and what the refusal says:
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
//! # What is checked
//!
//! Calls that generate, embed or count, on the Developer, Vertex and OpenAI-compatible surfaces, in camel case and in snake
//! case.
//!
//! | | refused when | as |
//! |---|---|---|
//! | JSON | the content type says JSON, and the body is cut off, or lacks a bracket, a comma or a colon | 400, with line and column |
//! | contents, messages, input | missing, or nothing in them, and nothing is cached; never of a call that counts | 400 |
//! | model | [a fresh list](ModelTable) lacks it and has one that differs by at most two letters ([`UnknownModel`]) | 404, with the names |
//! | method | a fresh list says that the model does not have it | 404, with what it has |
//! | input | it has more tokens than the model takes, as listed or as the upstream has said in a refusal | 400, with count and limit |
//! | `maxOutputTokens` | it is out of range: warns, clamps or refuses ([`MaxOutputPolicy`]) | 400 |
//!
//! Google's own reader takes more than JSON: a comma behind the last element, single quotes, keys without quotes, line breaks in
//! strings. Such a body is sent as it is, unchecked.
//!
//! # Defaults
//!
//! | | default | why |
//! |---|---|---|
//! | unknown model | refused | a typing error is never answered |
//! | output limit | a warning | not every surface refuses it |
//! | asking the upstream | near the limit, 5 s | a round trip costs less than a refused call |
//! | what nobody can count | is sent | the upstream judges; [`fail_closed`](TokenPrecheckLayer::fail_closed) turns it round |
//! | counted at once | up to 64 KiB of text | what is larger is counted on tokio's blocking threads, and only if it may be too long |
//!
//! # Costs
//!
//! In the benchmark (`cargo bench -p benches --bench tokenizer -- checks`, on a shared machine with two cores) a request of 1 KB takes
//! 1.9 µs, of which 0.8 go into walking it and the rest into estimating; 4.4 µs where it is counted exactly. Larger
//! ones are read at 0.7 to 2.8 GB/s, images at 45 GB/s: base64 is not looked at beyond its first bytes. Up to 64 KiB of text
//! are counted exactly; what is larger is counted only if it may be too long.
//! Nothing is kept of a request but, where the upstream was asked, its hash and its count: 1,024 of them.
//!
//! # Errors
//!
//! [`Error`](crate::Error)s whose failure is the caller's: [`InvalidRequest`](crate::failure::Kind::InvalidRequest),
//! [`ModelNotFound`](crate::failure::Kind::ModelNotFound), [`ContextTooLong`](crate::failure::Kind::ContextTooLong). Nothing
//! was sent. [`ErrorResponseLayer`](crate::ErrorResponseLayer) answers them in Google's shape.
//!
//! # Cancellation
//!
//! A dropped call drops its question to the upstream. A count on a blocking thread runs to its end, which is bounded by the
//! body's length.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's. A question to the upstream uses that readiness up; the call itself waits for the next.
//! While texts are counted on another thread the readiness is given up.
//!
//! # Words read and written
//!
//! Reads of [`CallContext`](crate::CallContext) the call and the deadline, which a question to the upstream never passes; writes the
//! token cost, for the limiter. Reads of [`Outcome`](crate::Outcome) the usage, by which its estimates are calibrated model
//! by model, and limits that the upstream names in refusals.

mod await_list;
mod calibration;
mod check;
mod count;
mod count_cache;
mod count_tokens;
mod counting;
pub mod estimate;
mod future;
mod layer;
mod learn;
mod question;
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

/// The room's name, in errors and logs.
const NAME: &str = "token_precheck";
