//! Many keys, of many projects, as one that does not run out.
//!
//! Without this layer a program with several keys takes turns, and each key's bad day is everybody's: a project without
//! quota refuses every fifth call, a revoked key fails each call that draws it, two keys of one project are taken for twice
//! the quota, and a prompt that names a file is sent to a project that has never seen it. Behind a relay the caller's own
//! key travels beside yours, and Google refuses a request with two.
//!
//! This layer takes whatever could be a credential out of a request and signs it with one of its own. Keys belong to
//! projects; a call goes to the project in which it would wait least, the queue of the
//! [`Limiter`](crate::rate_limit::Limiter) inside included. A 429 takes that project out for that model, until the hint or
//! until midnight Pacific; a refusal of the key takes that key out; and the call is told to go elsewhere at once, which
//! [`RetryLayer`](crate::RetryLayer) outside does. What a project has made (files, cached contents, uploads under way,
//! operations, interactions) is remembered, and who names it goes there. Disabled keys are looked at again by
//! [`KeyPool::recheck`], and return.
//!
//! It never lets a caller take keys out: faults of the caller, the model, the service and the way there mark nothing, nor
//! does a refusal of something that only a project's own may touch. It never sends what belongs to one project to another,
//! never tries a disabled key with somebody's call, never waits, and never shows a key.
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
//! // It was asked once at most.
//! assert!(upstream.journal().len() <= 21);
//! # Ok(())
//! # }
//! ```
//!
//! Keys that come and go at run time, and one that is tried again when it may be good again:
//!
//! ```
//! use http_body_util::Empty;
//! use tower_gemini::emulator::Emulator;
//! use tower_gemini::key_pool::{ApiKey, Key, KeyPool, KeyState};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! let pool = KeyPool::builder().key(Key::new(ApiKey::new("AIza-nobodys")?).name("first")).build()?;
//! // Below the layer: it signs by itself.
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
//! Of the projects that have a key for the call and quota for its model, two are drawn by weight, and the one in which it
//! would wait less is taken; if it would have to wait in both, up to 64 are asked. In that project keys take turns, by
//! weight. Calls that pay no quota (counting, lists) go by weight alone. A key that has never been answered, or was refused
//! since, is used by one call at a time, as long as another can take the rest; one that takes more than 30 s is not waited for.
//!
//! In a test, five projects of 10 requests a minute under a Poisson load of 40 to 50 a minute had calls wait as behind one
//! queue for all, but for the margin that the limiter keeps: 0.25 s at 40 a minute, and no 429; a project drawn by chance
//! had the 99th percentile wait 34 to 84 s there, in place of 3 to 12 s. Strict turns do as well while projects are alike;
//! with 5, 5, 10, 10 and 20 a minute they had it wait five minutes and more, and the pool's calls waited no longer than before.
//!
//! # What takes a key out
//!
//! | failure | what follows |
//! |---|---|
//! | a minute's quota | its project rests for this model until the hint |
//! | a quota that does not say which | 1 s, doubled each time up to 60 s, until an answer comes |
//! | a day's quota, or a quota of zero | until midnight Pacific, or the hint where that is later |
//! | API_KEY_INVALID; Google's own 401 to a call that any good key may make | a strike: after 3 in a row the key is disabled |
//! | leaked; restricted, where content is generated or embedded | the key is disabled at once |
//! | suspended, banned, the API switched off, no such project, no billing for what is generated or embedded | the key is disabled at once, and this call goes to another project |
//! | 400 that asks for billing | its project rests for this model, for an hour: some models are for those who pay |
//! | on Vertex AI, where the path names a project: anything but a key that is invalid or leaked, or a token that is refused | nothing |
//! | anything else | nothing |
//!
//! # Where a call is bound to
//!
//! What names something of a project's, in its path or in its JSON body, goes to the project that made it, if this pool has
//! seen it made, and otherwise to the [default project](KeyPoolBuilder::default_project). Files, cached contents and the
//! like are made there as well, and listed, unless [creations are spread](KeyPoolBuilder::spread_creations). Such a call is
//! sent nowhere else; another key of the same project may serve it. With a single project bodies are not looked at.
//!
//! # Defaults
//!
//! | what | value | why |
//! |---|---|---|
//! | strikes | 3 in a row | good keys get API_KEY_INVALID now and then |
//! | a disabled key is looked at again | after 1 min (5 min if leaked, suspended or banned), doubling to 6 h | a quota page or a bill may be a minute's work |
//! | models out of quota, a project | 1,024, the soonest to return forgotten first | only refusals add to them |
//! | names that are remembered | 16,384, the oldest forgotten first | callers invent names; only what was made is remembered |
//! | of an answer that makes something | 64 KiB are copied as they pass | it is a few lines |
//!
//! # Costs
//!
//! In the benchmark (`cargo bench -p benches --bench overhead -- "key pools"`, two runs with little else running) one key adds three
//! allocations to a call, all for the [`CallContext`](crate::CallContext), and 0.6 to 1.1 µs; five projects add four and 0.8 to
//! 1.3 µs, the fourth to share a body that is searched for names, and five and 1.0 to 1.5 µs where a limiter is asked. A call that brings a context allocates nothing behind
//! one key. It takes the pool's lock twice, and once more where its success is news.
//!
//! # Errors
//!
//! [`Kind::KeysExhausted`](crate::failure::Kind::KeysExhausted) when all keys that could take the call are out of quota or
//! being put to the test, with the time until the first is back as the hint, and
//! [`Kind::KeysDisabled`](crate::failure::Kind::KeysDisabled) when all are disabled. The message says how each of up to 8
//! keys stands. Nothing was sent. A [`RetryLayer`](crate::RetryLayer) outside waits for the first.
//!
//! # Cancellation
//!
//! A call that is dropped marks nothing, and gives back the test that it was for a key.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's. A key is chosen in `call`, and the inner service called at once, so that what was
//! chosen is booked before anybody else chooses.
//!
//! # Words read and written
//!
//! Reads of [`CallContext`](crate::CallContext) the call, the token cost, and what was tried; without the call it reads the address,
//! and knows no model on the OpenAI-compatible surface. Writes the project, whether another could take the call, and who
//! knows whether the [choice](crate::context::Choice) is still good: a call that waited in the limiter's line is not sent with
//! a key that was refused meanwhile. Of
//! [`Outcome`](crate::Outcome) it reads the failure; it says the key and project to each failure, and to each answer of
//! which something is said; and to failures of keys and quota what was tried, and [`Retry`](crate::context::RetryAdvice): `Now`
//! where another key or project takes it without a wait, `Queued` or `After` where it waits less than this failure asks
//! for. It overrides what the limiter inside says of moving.

mod affinity;
mod api_key;
mod body;
mod feedback;
mod future;
mod health;
mod key;
mod layer;
mod observe;
mod owners;
mod pool;
mod recheck;
mod refusal;
mod registry;
mod report;
mod service;
mod strip;

pub use self::{
    api_key::{ApiKey, Fingerprint},
    body::KeyPoolBody,
    future::ResponseFuture,
    key::{Credential, Key},
    layer::KeyPoolLayer,
    pool::{KeyPool, KeyPoolBuilder},
    report::{DisabledReason, KeyModelReport, KeyReport, KeyState},
    service::KeyPoolService,
};

/// The room's name in errors.
const NAME: &str = "key_pool";
