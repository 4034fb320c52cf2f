//! A pool of API keys of many projects, used as one key that does not run out.
//!
//! Without this layer a program with several keys takes them in turns, and one failing key fails other callers' calls:
//! a project without quota refuses every fifth call, a revoked key fails each call that draws it, two keys of one
//! project are taken for twice the quota, and a prompt that names a file is sent to a project that has never seen it.
//! Behind a relay the caller's own key travels beside yours, and Google refuses a request with two.
//!
//! This layer removes everything that could be a credential from a request and signs it with a key of its own. Keys
//! belong to projects; a call goes to the project in which it would wait least, the queue of the
//! [`Limiter`](crate::rate_limit::Limiter) inside included. A 429 takes that project out for that model, as long as the
//! refusal can be believed; a refusal of the key takes that key out; and the call is advised to go elsewhere at once,
//! which [`RetryLayer`](crate::RetryLayer) outside does. The resources that a project has created (files, cached
//! contents, batches, interactions, agents, …) are remembered, and a call that names one goes there.
//! Disabled keys are checked by [`KeyPool::recheck`], and return.
//!
//! It never lets a caller take keys out: faults of the caller, the model, the service and the connection mark nothing,
//! nor does a refusal of a resource that only its own project may touch. It never sends a resource of one project to
//! another, never tries a disabled key with a caller's call, never waits, and never shows a key.
//!
//! # When to use it
//!
//! Use it where there is more than one key, or where callers must not see or bring their own, as in a relay. Place it
//! inside [`RetryLayer`](crate::RetryLayer) and outside [`RateLimitLayer`](crate::RateLimitLayer). tower's `balance`
//! and `steer` choose one of many services; this layer has one service, and chooses the credential that a request
//! carries.
//!
//! ```
//! use http::{Request, StatusCode};
//! use http_body_util::Full;
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_gemini::{ClassifyLayer, KeyPoolLayer, Outcome, RateLimitLayer, RetryLayer};
//! use tower_gemini::emulator::{Emulator, Trouble, When};
//! use tower_gemini::key_pool::{ApiKey, Key, KeyPool, KeyState};
//! use tower_gemini::rate_limit::Limiter;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! // The first project has used its day's quota up.
//! let upstream = Emulator::builder()
//!     .key("AIza-nobodys", "p1")
//!     .key("AIza-anybodys", "p2")
//!     .trouble(When::always().project("p1"), Trouble::day_quota())
//!     .build();
//!
//! let limiter = Limiter::new();
//! let pool = KeyPool::builder()
//!     .key(Key::new(ApiKey::new("AIza-nobodys")?).project("p1"))
//!     .key(Key::new(ApiKey::new("AIza-anybodys")?).project("p2"))
//!     .headroom(limiter.clone())
//!     .build()?;
//! let service = ServiceBuilder::new()
//!     .layer(RetryLayer::default())
//!     .layer(KeyPoolLayer::new(pool.clone()))
//!     .layer(RateLimitLayer::new(limiter))
//!     .layer(ClassifyLayer::new())
//!     .service(upstream.clone());
//!
//! for _ in 0..20 {
//!     let request = Request::post("/v1beta/models/gemini-2.5-flash:generateContent")
//!         .body(Full::<bytes::Bytes>::from(r#"{"contents": [{"parts": [{"text": "Hello!"}]}]}"#))?;
//!     let response = service.clone().oneshot(request).await?;
//!     assert_eq!(response.status(), StatusCode::OK);
//!     assert_eq!(response.extensions().get::<Outcome>().unwrap().project(), Some("p2"));
//! }
//! // The first project was asked once at most.
//! assert!(upstream.journal().len() <= 21);
//! # Ok(())
//! # }
//! ```
//!
//! Adding, disabling and removing keys at run time, with disabled keys checked in the background:
//!
//! ```
//! use http_body_util::Empty;
//! use tower_gemini::emulator::Emulator;
//! use tower_gemini::key_pool::{ApiKey, Key, KeyPool, KeyState};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! let pool = KeyPool::builder().key(Key::new(ApiKey::new("AIza-nobodys")?).name("first")).build()?;
//! // The service below the layer: `recheck` signs by itself.
//! let transport = Emulator::new();
//! let recheck = tokio::spawn(pool.recheck::<_, Empty<bytes::Bytes>, _>(transport));
//!
//! let second = ApiKey::new("AIza-anybodys")?;
//! let fingerprint = second.fingerprint();
//! pool.add(Key::new(second).project("p2").name("second"))?;
//! pool.disable(&fingerprint);
//! for report in pool.snapshot() {
//!     println!("{} of {}: {}", report.fingerprint, report.project, report.state);
//! }
//! assert!(pool.enable(&fingerprint) && pool.remove(&fingerprint));
//! # recheck.abort();
//! # Ok(())
//! # }
//! ```
//!
//! # Which key
//!
//! Of the projects that have a key for the call and quota for its model, two are drawn at random, by weight, and the
//! one in which the call would wait less is taken; if it would have to wait in both, up to 64 projects are compared. In
//! that project keys take turns, by weight. Calls that pay no quota (counting, lists) go by weight alone. A key that
//! has not been answered yet, or was refused since, is tested: one call at a time uses it, as long as another key can
//! take the rest. A call that takes more than 30 s for that is not waited for.
//!
//! Google caches the beginnings of prompts by itself, in each project, and charges less for what it finds there. So calls that
//! begin alike prefer the project that had the last of them, as long as they wait there no more than
//! [2 s longer](KeyPoolBuilder::cache_affinity) than in the best one. It is a preference: they go to no project that is out
//! or that this call has tried, and leave it for a project whose block is due for a look. Alike are calls for answers of
//! one model with the same system instruction and the same first content, compared by at most 4 KiB of each, and those with
//! the same [session header](KeyPoolBuilder::session_header). The content is looked for in the first 32 KiB of the body, and
//! an instruction that stands behind it in the last: calls whose tools stand before it and are longer are like no others,
//! unless they have the header.
//!
//! Calls that begin alike do not fill a project, either: it is preferred as long as it had, in about the last minute, at most
//! ten calls more than one and a half times its share of the pool's, by weight. The next one is then drawn as any other call
//! is, and the others follow it.
//!
//! The share of the cache is
//! `gen_ai.client.inference.usage.cache_read.input_tokens` by `gen_ai.client.inference.usage.input_tokens` in the
//! [metrics](crate::telemetry).
//!
//! In a test, five projects of 10 requests a minute under a Poisson load of 40 to 50 a minute had calls wait as behind
//! one queue for all, but for the margin that the limiter keeps: 0.25 s at 40 a minute, and no 429. A project drawn at
//! random had the 99th percentile wait 34 to 84 s there, in place of 3 to 12 s. Strict turns do as well while projects
//! are alike; with 5, 5, 10, 10 and 20 a minute they had it wait five minutes and more, and the pool's calls waited no
//! longer than before.
//!
//! # What takes a key out
//!
//! | failure | consequence |
//! |---|---|
//! | a minute's quota | its project rests for this model until the hint; after two minutes one call looks. Without a hint as below, for a minute at most |
//! | a quota that is not named | its project rests for this model for 1 s, doubled each time up to 20 minutes, until an answer comes; one call looks first |
//! | a day's quota | its project rests for this model until midnight Pacific, or until the hint, but for a day at most; one call looks after a quarter of a minute, then after twice the time before, up to an hour |
//! | a quota of zero; a 404 that says that the model is closed for this project | the same, and one call looks each hour |
//! | the quota of grounded calls | the same as a day's, for calls that search the web or maps only |
//! | spending over some minutes | its project rests for all that costs money; one call looks after the hint, or 10 minutes |
//! | 429 or 402 for want of money: credits used up, a monthly cap, billing off | the same; one call looks each hour, or after the hint where that is sooner |
//! | API_KEY_INVALID; Google's own 401 to a call that any good key may make | a strike: after 3 in a row the key is disabled |
//! | leaked; restricted, where content is generated or embedded | the key is disabled at once |
//! | suspended, banned, the API switched off, no such project, 403 for want of billing to a call that generates or embeds | the key is disabled at once, and this call goes to another project |
//! | 400 that asks for billing | its project rests for this model, and one call looks each hour: some models are for paying projects only |
//! | on Vertex AI, where the path names a project: anything but a key that is invalid or leaked, or a token that is refused | none |
//! | anything else | none |
//!
//! A project rests, and its keys stay good: a refusal for quota is a belief, and quotas come back before their time. A
//! call that looks is an ordinary call of a caller; while it is under way, for 30 s at most, the others stay out. Its
//! success ends the rest for all of them, and so do [`KeyPool::lift`], [`KeyPool::lift_project`] and
//! [`KeyPool::lift_model`], for calls that come or are tried again from then on.
//!
//! With the feature `redis` a [`SharedNews`](crate::redis_store::SharedNews) tells other instances which keys are disabled and
//! which projects rest, and takes up what they tell.
//!
//! # Where a call is bound to
//!
//! A call that names a resource of a project goes to the project that created it, if this pool has seen that. The name
//! may stand in the path, in the query of an upload, or in the JSON body: as the value of one of the API's members, in
//! both of their spellings, as an id, a full name or a URL; a full name also anywhere else. Such a call is sent to no
//! other project; another key of the same project may serve it. With a single project bodies are not searched.
//!
//! | resources | named in a body by |
//! |---|---|
//! | files, uploads under way, generated files | `fileUri`, `uri`, `fileName`, `input_file_id`, `file_id` |
//! | cached contents | `cachedContent` |
//! | tuned models | `model` |
//! | file search stores, corpora, RAG stores | `fileSearchStoreNames`, `corpus`, `rag_store` |
//! | batches, operations | `batch_id`, `operationName` |
//! | interactions, responses, videos | `previous_interaction_id`, `previous_response_id`, `video` |
//! | agents, environments, credentials, triggers, voices, webhooks | `agent`, `environment`, `credential`, `trigger`, `voice`, `webhook` |
//! | answers that go on in another call | `continuationToken` |
//!
//! Names are learned from the answers: to calls that create something, to lists, and to calls that name a resource, such
//! as the one that asks for the results of a batch. If nobody has seen who created it, the call goes to the
//! [default project](KeyPoolBuilder::default_project); but an agent, a voice, an id that may be one of the caller's own
//! functions, or a token binds it only if its owner is known: Google has public agents and voices.
//!
//! Files, cached contents and other resources are created in the default project as well, and listed there, unless
//! [creations are spread](KeyPoolBuilder::spread_creations). What is to be created goes elsewhere where the default
//! project has no key left that was not refused, or no money: nothing was made then. It is found there.
//!
//! # Defaults
//!
//! | what | value | why |
//! |---|---|---|
//! | strikes | 3 in a row | good keys get API_KEY_INVALID occasionally |
//! | checks of a disabled key | after 1 min (5 min if leaked, suspended or banned), doubling to 6 h | a setting or a bill may be a minute's work |
//! | models out of quota, for each project | 1,024, the soonest to return forgotten first | only refusals add to them |
//! | names of resources that are remembered | 16,384, and as many of interactions, responses, uploads and tokens; the oldest forgotten first | callers invent names; only what an answer describes is remembered |
//! | beginnings that are remembered | 16,384, the oldest forgotten first, for an hour after the last call | Google does not say how long it caches |
//! | longer wait for a cache | 2 s; session header `x-session-id` | less than what a long prompt takes without its cache |
//! | bytes of an answer that may describe a resource | 64 KiB are copied as they pass | such an answer is a few lines; a generated one is only searched for a token |
//!
//! # Costs
//!
//! In the benchmark (`cargo bench -p benches --bench overhead -- "key pools"`, with little else running) one
//! key adds three allocations to a call, all for the [`CallContext`](crate::CallContext), and 0.5 µs; five
//! projects add four, the fourth to share a body that is searched for names, and 0.9 µs, or 1.1 µs where a limiter is
//! asked. A call that brings a context allocates nothing behind one key. A call takes the
//! pool's lock twice, and once more where its success changes a state.
//!
//! # Errors
//!
//! [`Kind::KeysExhausted`](crate::failure::Kind::KeysExhausted) when all keys that could take the call are out of quota
//! or being tested, with the time until the first one is back, or may be looked at, as the hint (its status is 429; 503 where no project can pay, and 404 where the model is closed for
//! all of them), and
//! [`Kind::KeysDisabled`](crate::failure::Kind::KeysDisabled) when all are disabled. The message gives the state of
//! each of up to 8 keys; [`caller_message`](crate::failure::Failure::caller_message) names neither key nor project. Nothing was sent. A [`RetryLayer`](crate::RetryLayer) outside waits for the first one, unless it
//! is back tomorrow.
//!
//! # Cancellation
//!
//! A call that is dropped marks nothing, and lets the next call test the key that it tested, and look where it looked.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's. A key is chosen in `call`, and the inner service called at once, so that the
//! limiter reserves the turn before another call chooses.
//!
//! # Words read and written
//!
//! Reads from [`CallContext`](crate::CallContext) the call, the token cost, and what was tried; without the call it
//! reads the URI, and knows no model on the OpenAI-compatible surface. Writes the project, whether another project
//! could take the call, and a choice that tells whether the key is still good: a call that waited in the limiter's
//! queue is not sent with a key that was refused meanwhile.
//!
//! Reads from [`Outcome`](crate::Outcome) the failure. Writes the key and project to each failure, and to each answer
//! that has an outcome; to failures of keys and quota also what was tried, and
//! [`RetryAdvice`](crate::context::RetryAdvice): `Now` where another key or project takes the call without a wait,
//! `Queued` or `After` where it waits less than this failure asks for. It replaces the advice of the limiter inside.

mod affinity;
mod alike;
mod api_key;
mod body;
mod feedback;
mod future;
mod health;
mod key;
mod layer;
mod marks;
mod memory;
mod observe;
mod owners;
mod pool;
mod recheck;
mod refusal;
mod registry;
mod report;
mod service;
mod share;
mod strip;
#[cfg(feature = "redis")]
mod told;

pub use self::{
    api_key::{ApiKey, Fingerprint},
    body::KeyPoolBody,
    future::ResponseFuture,
    key::{Credential, Key},
    layer::KeyPoolLayer,
    memory::KeyPoolMemory,
    pool::{KeyPool, KeyPoolBuilder},
    report::{DisabledReason, KeyModelReport, KeyReport, KeySpendingReport, KeyState, Part},
    service::KeyPoolService,
};

#[cfg(feature = "redis")]
pub(crate) use self::told::{PoolSubject, Roster, Standing, StandingMemory};

/// The room's name in errors.
const NAME: &str = "key_pool";
