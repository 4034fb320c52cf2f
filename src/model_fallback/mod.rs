//! Asks another model where one has failed for everybody.
//!
//! Without this layer a model that is overloaded for an hour is an hour's outage, while its smaller sister, which would
//! have done, has nothing to do; a day's quota that is used up at noon is an outage until midnight. A loop around the call
//! that tries one model after another makes other mistakes: it repeats a 400 at every model, takes a file or a cached
//! content to one that cannot use it, asks the one that is down before each answer of the one that is not, and spends the
//! retries of three calls on one.
//!
//! This layer has a chain of models for a model that is asked for. When retries have not helped and the failure is the
//! model's and not the request's, the same request goes to the next model: its path or its JSON body names that one, and
//! nothing else in it is changed. The attempts of all models together stay within those of one call, because each of them is
//! told what was spent before and how many are to come. Whoever has answered is named in a header, `x-gemini-model`. After
//! that, calls begin with the fallback for 30 s; then one call, and one at a time, probes the first choice again.
//!
//! It never moves a call for what the caller did wrong or the content is, for a key or a connection, which the next model
//! shares, and never once an answer has begun to be handed over. It never moves what embeds, counts or makes something, nor
//! a request that names a file or a cached content; never alters a request to fit, unless it is told to; and it never makes
//! up an answer: if nobody has one, the failure of the model that was asked for goes back.
//!
//! # When
//!
//! The table is at [`Reason`]; each row can be switched by [`FallbackChainsBuilder::on`]. Apart from it:
//!
//! | what has happened | what becomes of the call |
//! |---|---|
//! | the context is too long for the model that was asked for | it goes along [`larger`](FallbackChainsBuilder::larger), if there are any |
//! | a layer inside does not let it out to a next model: too long, not listed | that model is skipped |
//! | a next model calls it too long, or does not exist | that model is skipped |
//! | a next model calls the request wrong | the one that was asked for is asked, if it was not yet; else the first failure goes back |
//! | an answer without content, for what it would say (`SAFETY`) | an answer: it goes back |
//! | the deadline has passed | the first failure goes back |
//!
//! ```
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_gemini::{
//!     ClassifyLayer, ModelFallbackLayer, RetryLayer,
//!     emulator::{Emulator, Trouble, When},
//!     model_fallback::{FallbackChains, ModelUsed},
//! };
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! let upstream = Emulator::builder().trouble(When::always().model("gemini-2.5-pro"), Trouble::overloaded()).build();
//!
//! let chains = FallbackChains::builder().chain("gemini-2.5-pro", ["gemini-2.5-flash", "gemini-2.5-flash-lite"]).build()?;
//! let gemini = ServiceBuilder::new()
//!     .layer(ModelFallbackLayer::new(chains.clone()))
//!     .layer(RetryLayer::default())
//!     .layer(ClassifyLayer::new())
//!     .service(upstream);
//!
//! let request = Request::post("/v1beta/models/gemini-2.5-pro:generateContent")
//!     .header("x-goog-api-key", "your-key")
//!     .body(Full::<Bytes>::from(r#"{"contents": [{"parts": [{"text": "Hello!"}]}]}"#))?;
//! let response = gemini.oneshot(request).await?;
//! assert_eq!(response.status(), 200);
//! assert_eq!(response.headers()["x-gemini-model"], "gemini-2.5-flash");
//! assert!(response.extensions().get::<ModelUsed>().unwrap().is_other());
//!
//! // Who comes next begins there.
//! assert_eq!(chains.snapshot()[0].current(), "gemini-2.5-flash");
//! # Ok(())
//! # }
//! ```
//!
//! FallbackChains of your own taste:
//!
//! ```
//! use std::time::Duration;
//! use tower_gemini::{ModelFallbackLayer, model_fallback::{FallbackChains, Reason}};
//!
//! let chains = FallbackChains::builder()
//!     .chain("gemini-3-pro-preview", ["gemini-2.5-pro", "gemini-2.5-flash"])
//!     // Thoughts and levels of thinking that 2.5 does not take are left out, instead of 2.5.
//!     .strip(true)
//!     // What is too long for the small one, and nothing else, goes to the large one.
//!     .larger("gemma-3-27b-it", ["gemini-2.5-flash"])
//!     // Rather another model than a minute's wait, and rather an error than an answer to half a question.
//!     .on(Reason::QuotaMinute, true)
//!     .on(Reason::Timeout, false)
//!     .sticky(Duration::from_secs(120))
//!     .build()?;
//! let layer = ModelFallbackLayer::new(chains);
//! # drop(layer);
//! # Ok::<_, tower_gemini::ConfigError>(())
//! ```
//!
//! # What is not moved
//!
//! A request that names a file, a cached content or another resource of a project's, in its address or its JSON body, and
//! one whose body is encoded, so that nobody can see what it names. Those have all attempts at their own model.
//!
//! Models differ in what they take. Before a call moves, and only then, its body is read for what the next model rejects:
//!
//! | in the request | is rejected by | can be stripped |
//! |---|---|---|
//! | `thoughtSignature` of the generation that was asked for | any other generation | yes |
//! | `thinkingLevel` | generations before 3, which have `thinkingBudget` | yes |
//! | `thinkingBudget: 0`, `reasoning_effort: "none"` | Pro models from 2.5 on, which cannot stop thinking | yes |
//! | a function call without `thoughtSignature`, the first of its turn | generations from 3 on | no |
//!
//! Such a model is skipped; with [`strip`](FallbackChainsBuilder::strip) the member is cut out of the JSON, and every other byte stays
//! as it was. The generation is read from the name, `gemini-2.5-flash` or `gemini-4-argon`; against a model whose name does
//! not say it (`gemini-flash-latest`, `gemma-3-27b-it`) nothing is held. Both dialects are read, Gemini's and OpenAI's, in
//! camelCase and in snake_case.
//!
//! # Staying
//!
//! When the first choice has failed for everybody and another model has answered, the chain stays with that one: for
//! [`sticky`](FallbackChainsBuilder::sticky), counted from the last time that the first choice is known to have failed. A fallback
//! that fails as well moves the chain on; after the last one come those before it, the first choice too, so that a call finds
//! whoever is back. An answer of the first choice brings all calls back to it. Nobody stays anywhere for what may be one
//! request's own: too long a context, an empty answer, the same 500 twice, a time that ran out (504 and 499 included), a
//! turn at the local limiter that would come too late. If it is everybody's, the breaker opens, and that counts. A probe
//! that has not ended after another [`sticky`](FallbackChainsBuilder::sticky) is not waited for: the next call is one, too.
//!
//! # Defaults
//!
//! No chains: none can be guessed. [`FallbackChains::STICKY`], 30 s: longer than an open breaker (10 s), shorter than the minutes
//! that an overload lasts. The reasons as in the table at [`Reason`]. Nothing is stripped.
//!
//! # Costs
//!
//! In the benchmark (`cargo bench -p benches --bench overhead -- fallbacks`, two runs) a call without a chain takes
//! 45 to 56 ns longer and allocates nothing; one with a chain 1.1 µs and 16 allocations, of which a copy of the request, kept for
//! the next model, is the most. `RetryLayer`, which keeps one too, has 0.36 µs and 7 in the same run. A body is looked
//! through once for names of what belongs to a project, and read only when a call moves.
//!
//! A chain of more models than [`RetryPolicy::max_attempts`](crate::RetryPolicy::max_attempts) allows attempts makes one
//! attempt at each.
//!
//! # Errors
//!
//! None of its own. If nobody answers, the failure of the model that was asked for goes back, a response as it came or the
//! error, with the attempts of all; if that one was not asked (the chain stays elsewhere, and the failure was the key's or the
//! connection's), it is that of the first that has failed. A failed response that may go back is kept while other
//! models are asked. Behind [`ClassifyLayer`](crate::ClassifyLayer) its body has been read already, and holds no connection
//! unless it is longer than 64 KiB; without it, the connection waits.
//!
//! # Cancellation
//!
//! Dropping the future drops the attempt that is under way and the failure that is kept. A probe is handed to the next call.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's, and the first model is asked with that readiness. Before each further one the attempt
//! that failed is dropped, and the service is made ready again; no permit is held in between.
//!
//! # Words read and written
//!
//! Reads of [`CallContext`](crate::CallContext) the call, the deadline and the attempts made before; of [`Outcome`](crate::Outcome)
//! the failure, what was sent and the attempts. Writes [`CallContext::models_left`](crate::CallContext::models_left); for another
//! model it says the call and the attempts anew, and forgets what was said of the model before. Writes
//! [`Outcome::model`](crate::Outcome::model), [`Outcome::attempts`](crate::Outcome::attempts), the header `x-gemini-model`
//! and [`ModelUsed`]. The body has to be [`Resend`](crate::body::Resend), and to be made of `Bytes`: `ReplayBody` and
//! `Full<Bytes>` are. Calls without a chain, and those whose body streams, are passed on as they are.

mod chains;
mod features;
mod future;
mod kept;
mod layer;
mod members;
mod reason;
mod route;
mod service;
mod step;
mod sticky;
mod used;
mod walk;

pub use self::{
    chains::{ChainReport, FallbackChains, FallbackChainsBuilder},
    future::ResponseFuture,
    layer::ModelFallbackLayer,
    reason::Reason,
    service::ModelFallback,
    used::ModelUsed,
};

/// The room's name in errors.
const NAME: &str = "model_fallback";
