//! Tower layers that make calls to Google's Gemini API succeed on a bad day.
//!
//! **Every failure is somebody's fault, and each layer acts on one fault only.** [`ClassifyLayer`], next to the
//! transport, reads a failure once; every other layer reads its verdict and nothing else. Without it a layer judges by
//! status and headers, so that each layer also works alone.
//!
//! ```
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_gemini::{ClassifyLayer, Outcome, RetryLayer, TimeoutLayer};
//! use tower_gemini::emulator::{Emulator, Trouble, When};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! // A Gemini that is overloaded twice, then recovered. Any service over HTTP can stand here.
//! let upstream = Emulator::builder().trouble(When::first(2), Trouble::overloaded()).build();
//!
//! let gemini = ServiceBuilder::new()
//!     .layer(TimeoutLayer::total(TimeoutLayer::TOTAL))
//!     .layer(RetryLayer::default())
//!     .layer(TimeoutLayer::attempt(TimeoutLayer::ATTEMPT))
//!     .layer(ClassifyLayer::new())
//!     .service(upstream);
//!
//! let request = Request::post("/v1beta/models/gemini-2.5-flash:generateContent")
//!     .header("x-goog-api-key", "your-key")
//!     .body(Full::<bytes::Bytes>::from(r#"{"contents": [{"parts": [{"text": "Hello!"}]}]}"#))?;
//! let response = gemini.oneshot(request).await?;
//! assert_eq!(response.status(), 200);
//! assert_eq!(response.extensions().get::<Outcome>().unwrap().attempts(), 3);
//! # Ok(())
//! # }
//! ```
//!
//! # The house
//!
//! **The ground floor** is what every layer speaks. It imports nothing above it.
//!
//! | module | contents |
//! |---|---|
//! | [`call`] | what a request is: surface, model, operation, idempotency |
//! | [`status`] | what an error body says |
//! | [`failure`] | whose fault a failure is, and what helps |
//! | [`context`] | the two words that layers talk in, and the error |
//! | [`resource`] | what belongs to one project, and where requests and answers name it |
//! | [`quota`] | limits, scopes, the price of a request, midnight Pacific |
//! | [`body`] | bodies that are kept, put back or guarded |
//! | [`models`], [`tokenizer`] | what each model takes, and how many tokens a text has |
//! | [`prices`] | what tokens cost, as data |
//! | [`service_times`] | the times that a model's answers take |
//! | [`observe`], [`clock`] | the numbers of a handle, and the time |
//!
//! Private modules beside them scan requests (`request`) and answers (`answer`), keep keys out of texts (`redact`), and
//! hold the maps that names invented by callers cannot grow (`bounded`).
//!
//! **The rooms** are the layers, each with the same plan; no room imports another. From the outside in:
//! [`keep_alive`], [`error_response`], [`telemetry`], [`timeout`], [`replay`], [`model_fallback`], [`token_precheck`],
//! [`caller_limit`], [`retry`], [`key_pool`], [`rate_limit`], [`circuit_breaker`], [`classify`]. Each module begins with what goes wrong without its
//! layer, what the layer does about it, and what it never does.
//!
//! **The roof** is [`stack`]: all layers but [`keep_alive`] and [`error_response`], which a server adds outside, in the
//! right order, by one builder.
//!
//! # Features
//!
//! The layers need none of them, and each only adds.
//!
//! | feature | adds |
//! |---|---|
//! | `client` | `client`: a hyper client with TLS, ready to be wrapped |
//! | `emulator` | `emulator`: a Gemini that misbehaves on request, for tests and demonstrations |
//! | `metrics` | counters and histograms of [`telemetry`], through the `metrics` facade |
//! | `redis` | `redis_store`: one quota for several processes, on Redis or Valkey |
//! | `tokenizer` | an exact local count in [`tokenizer`], and in [`token_precheck`] unless it is given another counter |
//! | `trace` | `trace`: a classifier for tower-http's `TraceLayer` |
//!
//! # Two words
//!
//! Layers talk in two words and know nothing else of each other. [`CallContext`] goes in with the request, as one
//! extension; [`Outcome`] comes out, as one extension of the response or inside an [`Error`]. Any program can read
//! both.
//!
//! # Guides
//!
//! - [`docs::ordering`]: the order of the layers, and the reasons for it.
//! - [`docs::errors`]: whose fault each error is, and what helps.
//! - [`docs::streaming`]: when an answer is committed.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod answer;
mod block;
pub mod body;
mod bounded;
pub mod call;
pub mod caller_limit;
pub mod circuit_breaker;
pub mod classify;
#[cfg(feature = "client")]
#[cfg_attr(docsrs, doc(cfg(feature = "client")))]
pub mod client;
pub mod clock;
pub mod context;
mod describe;
pub mod docs;
#[cfg(feature = "emulator")]
#[cfg_attr(docsrs, doc(cfg(feature = "emulator")))]
pub mod emulator;
pub mod error_response;
pub mod failure;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod keep_alive;
pub mod key_pool;
mod macros;
pub mod model_fallback;
pub mod models;
pub mod observe;
pub mod prices;
#[cfg(gemini_loom)]
#[doc(hidden)]
pub mod proofs;
pub mod quota;
pub mod rate_limit;
mod ready;
mod recent;
mod redact;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub mod redis_store;
pub mod replay;
mod request;
pub mod resource;
pub mod retry;
pub mod service_times;
pub mod stack;
pub mod status;
mod sync;
pub mod telemetry;
pub mod timeout;
pub mod token_precheck;
pub mod tokenizer;
#[cfg(feature = "trace")]
#[cfg_attr(docsrs, doc(cfg(feature = "trace")))]
pub mod trace;

pub use crate::{
    caller_limit::CallerLimitLayer,
    circuit_breaker::CircuitBreakerLayer,
    classify::ClassifyLayer,
    context::{BoxError, CallContext, ConfigError, Error, Outcome},
    error_response::ErrorResponseLayer,
    keep_alive::KeepAliveLayer,
    key_pool::KeyPoolLayer,
    model_fallback::ModelFallbackLayer,
    rate_limit::RateLimitLayer,
    replay::ReplayLayer,
    retry::{RetryBudget, RetryLayer, RetryPolicy},
    stack::GeminiLayer,
    telemetry::TelemetryLayer,
    timeout::TimeoutLayer,
    token_precheck::TokenPrecheckLayer,
};
