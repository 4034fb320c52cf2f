//! Limits of callers: nobody uses up what belongs to all.
//!
//! Behind one relay many callers share the keys, and without this layer one of them can spend everybody's day: a loop that
//! has gone wrong, or a job of a million pages, uses up the project's requests by noon, and the month's money by the tenth.
//! The quota of a project does not help, because it does not know callers; and a limiter in front of the server counts
//! requests only, where what is scarce is tokens and money.
//!
//! This layer counts the calls of each caller whom the server has told from others
//! ([`CallContext::set_caller`](crate::CallContext::set_caller)): requests and input tokens in a sliding minute, requests
//! and tokens in a day, money in a day and in a month by a [list of prices](crate::prices) that the program gives. The
//! limits are those of the caller, and besides those of the caller for one model. A call that does not fit is refused at
//! once with 429 and the wait that it would need, or goes on with the lowest priority, as the caller's quota says. The input
//! is charged before the call, and the answer's own numbers in place of it when its body ends; a call that has failed costs
//! nothing.
//!
//! It never lets a call wait: a caller who is past a limit waits by itself. It never counts an attempt: what retries cost the
//! project is not the caller's. It never touches a call without a caller. It knows only what this process has seen, unless it
//! asks a store that others ask as well.
//!
//! # When to use it
//!
//! In servers that several callers share. Between [`TokenPrecheckLayer`](crate::TokenPrecheckLayer), which knows the
//! tokens, and [`RetryLayer`](crate::RetryLayer), within which calls are attempts.
//! [`RateLimitLayer`](crate::RateLimitLayer) keeps the server within its own quota.
//!
//! ```
//! use http::{Request, Response};
//! use http_body_util::{Empty, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_gemini::{CallContext, CallerLimitLayer, Error, caller_limit::{CallerLimits, CallerQuota}};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! let limits = CallerLimits::builder().others(CallerQuota::new().requests_per_minute(1)).build()?;
//! let service = ServiceBuilder::new().layer(CallerLimitLayer::new(limits)).service(service_fn(
//!     |_: Request<Full<bytes::Bytes>>| async { Ok::<_, std::io::Error>(Response::new(Empty::<bytes::Bytes>::new())) },
//! ));
//! let request = |caller: &str| -> Result<_, tower_gemini::BoxError> {
//!     let mut request = Request::post("/v1beta/models/gemini-2.5-flash:generateContent").body(Full::default())?;
//!     // A server sets the name by the token that it has checked.
//!     CallContext::update(request.extensions_mut(), |context| context.set_caller(caller));
//!     Ok(request)
//! };
//! service.clone().oneshot(request("app")?).await?;
//! let error = service.clone().oneshot(request("app")?).await.unwrap_err();
//! let error = Error::find(&*error).unwrap();
//! assert_eq!((error.failure().code().as_u16(), error.retry_after().unwrap().as_secs()), (429, 60));
//! // Nobody else is touched.
//! service.oneshot(request("job")?).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A budget of a month, and what it has come to:
//!
//! ```
//! use tower::{Layer, ServiceExt};
//! use tower_gemini::{CallContext, CallerLimitLayer, ClassifyLayer, caller_limit::{CallerDimension, CallerLimits, CallerQuota}};
//! use tower_gemini::{emulator::Emulator, prices::{Money, Price, Prices}};
//! use http_body_util::{BodyExt, Full};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! // The numbers are made up.
//! let prices = Prices::builder().model("gemini-*", Price::new(Money::dollars(1), Money::dollars(8))).build();
//! let quota = CallerQuota::new().money_per_month(Money::dollars(20));
//! let limits = CallerLimits::builder().caller("app", quota).prices(prices).build()?;
//! let upstream = ClassifyLayer::new().layer(Emulator::builder().keyless().build());
//!
//! let mut request = http::Request::post("/v1beta/models/gemini-2.5-flash:generateContent")
//!     .body(Full::<bytes::Bytes>::from(r#"{"contents": [{"parts": [{"text": "Hello!"}]}]}"#))?;
//! CallContext::update(request.extensions_mut(), |context| context.set_caller("app"));
//! let response = CallerLimitLayer::new(limits.clone()).layer(upstream).oneshot(request).await?;
//! response.into_body().collect().await?;
//!
//! let month = limits.snapshot()[0].dimensions[CallerDimension::MoneyPerMonth as usize];
//! assert_eq!(month.limit.unwrap().to_string(), "$20.00");
//! assert!(month.used.as_f64() > 0.0);
//! # Ok(())
//! # }
//! ```
//!
//! # What is counted
//!
//! | of a call | requests | tokens and money before it | when it has ended |
//! |---|---|---|---|
//! | that generates or embeds | 1; of a batch of embeddings one for each item | its input, by the [token cost](crate::CallContext::token_cost) | what the answer says: input, output with thoughts, and cached input, at the prices of the model that has answered and the tier that has served |
//! | that begins work for later: a batch, a long-running prediction, tuning | 1 | its body as input | as before: no answer says what such work costs |
//! | that only counts tokens, reads or uploads | 0 | nothing | nothing |
//!
//! A call that fails is given back, and so is one that is refused inside; of one that fails by its caller's fault, such as
//! a 400, one request stays. A verdict on the content, and any other answer whose tokens the upstream has counted, is
//! charged as counted. An answer that is cut, or that its caller drops, costs what it has said until then, and at least its
//! input. Where it has said no tokens, its output is a third of its bytes, 65,536 tokens at most: of a stream those that have
//! passed, of an answer in one piece all that are known to follow. A stream in OpenAI's dialect never says its tokens unless
//! it is asked to with `stream_options.include_usage`. All bytes count, and each piece of it repeats about 150 that are no
//! text: callers who stream short pieces pay several times too much, and have to ask for the usage.
//!
//! The output is not known before the call: a caller can be past a limit of tokens a day or of money by the output of those
//! of its calls that are under way together. A charge counts on the day and in the month in which its call began.
//!
//! Days end at midnight Pacific, as those of the API do, and months at the first midnight Pacific of the next.
//!
//! # Money
//!
//! A model without a price is charged by the dearest prices of the list; a quota that limits money and names a model without
//! one is refused when it is built. Only tokens are counted.
//!
//! # Several processes
//!
//! Instances that are given one store ([`store`](CallerLimitsBuilder::store)) keep a caller within these limits together:
//!
//! | limit | with a store |
//! |---|---|
//! | requests and input tokens a minute, requests a day; of the caller, and of the caller for one model | over all instances together, at each call |
//! | tokens a day, money a day and a month | of each instance for itself: no store counts them. Divide them by the number of instances |
//! | whose turn it is, and the lowest priority's calls past a limit | of each instance |
//!
//! A call that is within its caller's limits here asks the store before it goes, once for the caller's limits and once for those of
//! the model, and waits for the answer while the service inside stays ready for it. A refusal of the store's is believed for a
//! quarter of a second at most, for calls that need no less, so that a caller in a loop costs the store four questions a second.
//! The real cost of the answer, and all that is given back, is corrected there too. The store's minute lasts up to 0.75 s longer than
//! the one here.
//!
//! A store that is learning what was charged before, for a second after an outage or a flush, has a call wait for that; one that
//! would miss its deadline so, or would have to wait for more than 2 s, is refused.
//!
//! All instances need the same limits for the same names. Callers are counted as scopes of the projects `caller`, U+001F and the name,
//! so that the store of a [`Limiter`](crate::rate_limit::Limiter) serves both; names of more than 256 bytes go by their
//! SHA-256. Where anybody can invent callers that have limits, give them a store of their own: a store counts 16,384 scopes apart,
//! of callers and projects together. A store that cannot ask the others admits its own share of each limit. [Snapshots](CallerLimits::snapshot),
//! metrics and [memories](CallerLimits::memory) have what this instance has admitted.
//!
//! ```
//! use http::{Request, Response};
//! use http_body_util::{Empty, Full};
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_gemini::{CallContext, CallerLimitLayer, caller_limit::{CallerLimits, CallerQuota}, quota::MemoryStore};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! // With the feature `redis`, a store on Redis or Valkey in its place.
//! let store = MemoryStore::new();
//! let mut served = 0;
//! for _ in 0..4 {
//!     let quota = CallerQuota::new().requests_per_minute(3);
//!     let limits = CallerLimits::builder().others(quota).store(store.clone()).build()?;
//!     let service = CallerLimitLayer::new(limits).layer(service_fn(|_: Request<Full<bytes::Bytes>>| async {
//!         Ok::<_, std::io::Error>(Response::new(Empty::<bytes::Bytes>::new()))
//!     }));
//!     let mut request = Request::post("/v1beta/models/gemini-2.5-flash:generateContent").body(Full::default())?;
//!     CallContext::update(request.extensions_mut(), |context| context.set_caller("app"));
//!     served += usize::from(service.oneshot(request).await.is_ok());
//! }
//! assert_eq!(served, 3);
//! # Ok(())
//! # }
//! ```
//!
//! # What is not seen
//!
//! No answer tells what these cost. A server whose callers have limits keeps them from such calls, or bears the cost:
//!
//! - An interaction in the background: its first answer says no tokens, and it is charged its request and its input only.
//!   The read that fetches its result is a call of its own, which costs nothing.
//! - A batch, a long-running prediction, tuning: one request and the body that begins it; the tokens of a file that it names
//!   are nowhere in it.
//! - Searches, maps, and the storage of caches.
//! - The Live API, and the tokens of `auth_tokens`: with such a token a caller talks to the upstream itself, past all limits.
//!   It has to be refused.
//! - A model that a body names without a call of it: the one of a cached content, or the base of a tuned one.
//!
//! # Defaults
//!
//! | what | value | why |
//! |---|---|---|
//! | limits | none | they are a decision |
//! | [`past`](CallerQuota::past) | [`PastLimit::Refuse`] | a limit is one |
//! | prices | none | they change, and differ by contract |
//! | [`store`](CallerLimitsBuilder::store) | none | one process |
//! | cost of a request | its body's bytes / 3 | unless [`CallContext::token_cost`](crate::CallContext::token_cost) has it; where only requests are limited, nothing is counted for it, and the input is a guess until the answer says it |
//! | a charge counts for | 60 s; charges within 0.25 s of each other end together | bounds the memory of a caller |
//! | callers with accounts of their own | 16,384, names up to 512 bytes | beyond that, and while none can be forgotten, new ones share one account, except those that the settings name |
//! | callers in metrics | those that the settings name | others can be anybody, and each is up to twelve series, and as many a model with limits; the [snapshot](CallerLimits::snapshot) has all |
//! | [`gives_back_unsent`](CallerLimitLayer::gives_back_unsent) | no; in [`GeminiLayer`](crate::GeminiLayer) yes | takes `ClassifyLayer` inside |
//!
//! # Starting again
//!
//! The usage is in memory. [`CallerLimits::replace`] changes the settings and keeps it; a program that keeps its
//! [memory](CallerLimits::memory) gives it back with [`CallerLimits::restore`].
//!
//! # Errors
//!
//! - [`Kind::CallerLimited`](crate::failure::Kind::CallerLimited): the caller is past a limit. The wait until the call
//!   would fit is the hint: the rest of the window, of the day or of the month. No layer of this crate tries such a call
//!   again, and no fallback takes it.
//! - [`Kind::LargerThanQuota`](crate::failure::Kind::LargerThanQuota), the caller's fault: the call is proven to be larger
//!   than a whole limit. Of money nothing is proven, because cached input is cheaper: a call that may cost more than the whole
//!   limit goes while nothing is used, unless the limit is zero.
//!
//! The message names the caller; [`caller_message`](crate::failure::Failure::caller_message) says "you". In both cases
//! nothing was sent.
//!
//! # Cancellation
//!
//! A call that is dropped before its answer stays charged as it was before it, if any attempt of it has been sent. One that was
//! never sent, because it still waited for its turn, gives its charge back where
//! [`gives_back_unsent`](CallerLimitLayer::gives_back_unsent) is set; elsewhere nobody knows, and it stays charged. A call that is
//! dropped while the store is asked was not sent, and is given back here and there.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's. A call for which the store is asked takes the ready service along, and leaves a clone.
//!
//! # Words read and written
//!
//! Reads from [`CallContext`](crate::CallContext) the caller, the call, the token cost and the priority; from
//! [`Outcome`](crate::Outcome) the failure and the usage. Writes the priority of a call that is past a limit, or whose caller
//! has a lower one; a flag that [`ClassifyLayer`](crate::ClassifyLayer) sets when the call is sent; and [`GaveUp::Wait`](crate::context::GaveUp::Wait) into a refusal.

mod account;
mod accounts;
mod body;
mod dimension;
mod future;
mod inquiry;
mod layer;
mod limits;
mod observe;
mod quota;
mod refusal;
mod reservation;
mod scopes;
mod service;

pub use self::{
    body::CallerLimitBody,
    dimension::{CallerAmount, CallerDimension},
    future::ResponseFuture,
    layer::CallerLimitLayer,
    limits::{CallerDimensionReport, CallerLimits, CallerLimitsBuilder, CallerLimitsMemory, CallerReport},
    quota::{CallerQuota, PastLimit},
    service::CallerLimit,
};

/// The room's name in errors.
const NAME: &str = "caller_limit";
