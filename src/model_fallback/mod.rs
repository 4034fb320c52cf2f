//! Fallback to another model: asks the next one of a chain where a model has failed for all callers.
//!
//! Without this layer a model that is overloaded for an hour is an hour's outage, while its smaller sister, which would
//! have done, is idle; a day's quota that is used up at noon is an outage until midnight. A loop around the call that
//! tries one model after another makes other mistakes: it repeats a 400 at every model, takes a file or a cached
//! content to a model that cannot use it, asks the model that is down before each answer of the one that is not, and
//! spends the retries of three calls on one.
//!
//! This layer has a chain of models for a model that is asked for. When retries have not helped and the failure is the
//! model's and not the request's, the same request goes to the next model: its path or its JSON body names that one,
//! and nothing else in it is changed. The attempts at all models together stay within those of one call, because each
//! attempt is told what was spent before and how many models are to come. A header, `x-gemini-model`, names the model
//! that has answered. After that, calls begin with the fallback for 30 s; then one call at a time probes the first
//! choice again.
//!
//! It never falls back for a mistake of the caller or a verdict on the content, nor for a key or a connection, which
//! the next model shares, and never once an answer has begun to be handed over. It never moves calls that embed, count
//! or create a thing other than an interaction, nor a request that names a file or a cached content; never alters a request to fit, unless it
//! is told to; and it never makes up an answer: if no model has one, the failure of the model that was asked for goes
//! back.
//!
//! # When to use it
//!
//! Use it where an answer of another model is better than none: the caller can see in `x-gemini-model` which one it
//! was. Place it outside [`RetryLayer`](crate::RetryLayer), which deals with what passes in seconds. Neither tower nor
//! tower-http has such a layer; axum's `fallback` is something else, a route for paths that no other route matches.
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
//! // The next call begins there.
//! assert_eq!(chains.snapshot()[0].current(), "gemini-2.5-flash");
//! # Ok(())
//! # }
//! ```
//!
//! Chains with other settings:
//!
//! ```
//! use std::time::Duration;
//! use tower_gemini::{ModelFallbackLayer, model_fallback::{FallbackChains, FallbackReason}};
//!
//! let chains = FallbackChains::builder()
//!     .chain("gemini-3-pro-preview", ["gemini-2.5-pro", "gemini-2.5-flash"])
//!     // Thoughts and levels of thinking that 2.5 does not take are left out, instead of 2.5.
//!     .strip(true)
//!     // Only requests that are too long for the small one go to the large one.
//!     .larger("gemma-3-27b-it", ["gemini-2.5-flash"])
//!     // Another model rather than a minute's wait; an error rather than another model after a time-out.
//!     .on(FallbackReason::QuotaMinute, true)
//!     .on(FallbackReason::Timeout, false)
//!     .sticky(Duration::from_secs(120))
//!     .build()?;
//! let layer = ModelFallbackLayer::new(chains);
//! # drop(layer);
//! # Ok::<_, tower_gemini::ConfigError>(())
//! ```
//!
//! # When it falls back
//!
//! The table is at [`FallbackReason`]; each row can be switched by [`FallbackChainsBuilder::on`]. Apart from it:
//!
//! | what has happened | what becomes of the call |
//! |---|---|
//! | the context is too long for the model that was asked for | it goes along [`larger`](FallbackChainsBuilder::larger), if there are any |
//! | a layer inside refuses to send it to a next model: too long, not listed | that model is skipped |
//! | a next model calls it too long, or does not exist | that model is skipped |
//! | a next model calls the request wrong | the model that was asked for is asked, if it was not yet; else the first failure goes back |
//! | an answer without content, because of its content (`SAFETY`) | this is an answer: it goes back |
//! | the deadline has passed | the first failure goes back |
//!
//! # Service tiers
//!
//! A model that has no room in one service tier may have some in another, so that a chain can name a tier: the links of
//! `["gemini-2.5-pro@priority", "gemini-2.5-flash"]` are the same model for a higher price, and then another one in the
//! call's own tier. The body then names the tier, every other byte untouched, and `x-gemini-model` the model alone, because
//! the upstream itself says which tier it has served (`x-gemini-service-tier`). A chain of `gemini-2.5-pro@flex` is for
//! calls of that tier. The calls of each tier stay where they are for themselves: flex being full says nothing of standard.
//! The tier stands in the body, and is known where the body is in memory.
//!
//! # Interactions
//!
//! An interaction is kept upstream unless it says otherwise, so that it is asked of another model only where nothing came
//! of it: it was not sent, or an error answer says so. One that runs while its caller waits moves for any error answer with
//! a body, one that runs in the background only for a 4xx or a 503; none moves after a lost connection or a time-out, except
//! with `store: false`. One with an agent has no model to fall back from.
//!
//! # What is not moved
//!
//! A request that names a file, a cached content or another resource of a project, in its URI or its JSON body; one that
//! goes on from another answer (`previous_interaction_id`, `continuationToken`), which only the model that gave it can; and
//! one whose body is encoded, so that its names cannot be read. Those have all attempts at one model: the one that is asked
//! for, or the one of the chain that has given the answer in its place. That is known of the last 4,096 such answers, and
//! where [`ClassifyLayer`](crate::ClassifyLayer) is inside, which reads them; of a token only a hash is kept.
//!
//! Models differ in what they take. Before a call falls back, and only then, its body is searched for parts that the
//! next model rejects:
//!
//! | in the request | is rejected by | can be stripped |
//! |---|---|---|
//! | `thoughtSignature` of the generation that was asked for, in an interaction's steps `signature` | any other generation; models that are no Gemini, as Gemma | yes |
//! | `thinkingLevel` | generations before 3, which have `thinkingBudget` | yes |
//! | `thinkingBudget: 0`, `reasoning_effort: "none"` | Pro models from 2.5 on, which cannot stop thinking | yes |
//! | a function call without `thoughtSignature`, the first of its turn | generations from 3 on | no |
//!
//! Such a model is skipped; with [`strip`](FallbackChainsBuilder::strip) the member is cut out of the JSON, and every
//! other byte stays as it was. The generation is read from the name, `gemini-2.5-flash` or `gemini-4-argon`; a Gemini
//! whose name does not contain it (`gemini-flash-latest`) is taken to accept everything, and any other model
//! (`gemma-3-27b-it`) everything but signatures. The dialects of Gemini, OpenAI and Interactions are read, in camelCase and
//! in snake_case.
//!
//! # Staying
//!
//! When the first choice has failed for all callers and another model has answered, the chain stays with that model:
//! for [`sticky`](FallbackChainsBuilder::sticky), counted from the last time that the first choice is known to have
//! failed. A fallback that fails as well moves the chain on; after the last model come those before it, the first
//! choice too, so that a call finds any model that is back. An answer of the first choice brings all calls back to it.
//! The chain does not move for a failure that may be one request's own: a context that is too long, an empty answer,
//! the same 500 twice, a time-out (504 and 499 included), a turn at the local limiter that would come too late. If such
//! a failure concerns all callers, the circuit breaker opens, and that counts. A probe that has not ended after another
//! [`sticky`](FallbackChainsBuilder::sticky) is not waited for: the next call probes, too.
//!
//! # Defaults
//!
//! No chains: none can be guessed. [`FallbackChains::STICKY`], 30 s: longer than a circuit breaker stays open (10 s),
//! shorter than the minutes that an overload lasts. The reasons as in the table at [`FallbackReason`]. Nothing is
//! stripped.
//!
//! # Costs
//!
//! In the benchmark (`cargo bench -p benches --bench overhead -- fallbacks`, with little else running) a call without a
//! chain takes 60 to 85 ns longer and allocates nothing; one with a chain 1 µs and 12 allocations, for a copy of the
//! request, kept for the next model, and for the words about it. `RetryLayer`, which keeps a copy too, has 0.2 µs and 2 in the same run. A body is
//! searched once for names of resources that belong to a project, and read only when a call falls back.
//!
//! A chain of more models than [`RetryPolicy::max_attempts`](crate::RetryPolicy::max_attempts) allows attempts makes
//! one attempt at each.
//!
//! # Errors
//!
//! None of its own. If no model answers, the failure of the model that was asked for goes back, a response as it came
//! or the error, with the attempts at all models; if that model was not asked (the chain stays elsewhere, and the
//! failure was the key's or the connection's), it is the first failure. A failed response that may go back is kept
//! while other models are asked. Behind [`ClassifyLayer`](crate::ClassifyLayer) its body has been read already, and
//! holds no connection unless it is longer than 64 KiB; without that layer, the connection waits.
//!
//! # Cancellation
//!
//! Dropping the future drops the attempt that is under way and the failure that is kept. A probe is handed to the next
//! call.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's, and the first model is asked with that readiness. Before each further model the
//! attempt that failed is dropped, and the service is made ready again; no permit is held in between.
//!
//! # Words read and written
//!
//! Reads from [`CallContext`](crate::CallContext) the call, the deadline and the attempts made before; from
//! [`Outcome`](crate::Outcome) the failure, whether anything was sent, the attempts, and the names in
//! [`Usage`](crate::context::Usage) by which a call goes on. Writes
//! [`CallContext::models_left`](crate::CallContext::models_left); for another model it writes the call and the attempts
//! anew, and removes what was written for the model before. Writes [`Outcome::model`](crate::Outcome::model),
//! [`Outcome::attempts`](crate::Outcome::attempts), the header `x-gemini-model` and [`ModelUsed`]. The body has to
//! implement [`Resend`](crate::body::Resend), and to be made of `Bytes`: `ReplayBody` and `Full<Bytes>` are. Calls
//! without a chain, and calls whose body streams, are passed on as they are.

mod answerer;
mod builder;
mod chains;
mod destination;
mod features;
mod future;
mod kept;
mod layer;
mod link;
mod members;
mod origins;
mod reason;
mod route;
mod service;
mod sticky;
mod used;
mod walk;

pub use self::{
    builder::FallbackChainsBuilder,
    chains::{ChainReport, FallbackChains},
    future::ResponseFuture,
    layer::ModelFallbackLayer,
    link::FallbackModel,
    reason::FallbackReason,
    service::ModelFallback,
    used::ModelUsed,
};

/// The room's name in errors.
const NAME: &str = "model_fallback";
