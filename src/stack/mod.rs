//! All layers in the right order, by one builder.
//!
//! Eleven layers have some forty million orders, and nearly all of them are wrong in a way that shows only on a bad day: an
//! attempt's clock outside of the retries, a limiter that queues calls for a model whose circuit is open, a key chosen
//! before anybody knows which model will be asked. And some of them have to know each other: the key pool asks the limiter
//! where a call would wait least, and the limiter asks the breakers before it lets anybody queue.
//!
//! [`GeminiLayer`] is the order of [the guide](crate::docs::ordering), made and wired by a [builder](GeminiBuilder) that
//! starts from one of three presets. Each part can be replaced, or left out by its `disabled()` layer, and
//! [`describe`](GeminiLayer::describe) prints what came of it. What could never work is refused when it is built; what may
//! surprise stands in [`warnings`](GeminiLayer::warnings).
//!
//! It spawns nothing, hides nothing and adds no behaviour of its own: each part is the layer that could be stacked by hand,
//! and each handle can be had. A server adds [`ErrorResponseLayer`](crate::ErrorResponseLayer) outside, because axum and
//! SDK clients want a response where others want an error.
//!
//! # A program that asks
//!
//! ```
//! use http::Request;
//! use http_body_util::Full;
//! use tower::{Layer, ServiceExt};
//! use tower_gemini::{GeminiLayer, key_pool::{ApiKey, Key}, quota::Limits};
//! use tower_gemini::emulator::{Emulator, Trouble, When};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! let gemini = GeminiLayer::interactive()
//!     .key(Key::new(ApiKey::new("a-key-of-yours")?).project("p1"))
//!     .limits_for("gemini-2.5-pro", Limits::new().requests_per_minute(150))
//!     .fallback("gemini-2.5-pro", ["gemini-2.5-flash"])
//!     .build()?;
//! println!("{}", gemini.describe());
//!
//! // Pro is down for everybody. Any service over HTTP can stand here.
//! let upstream = Emulator::builder()
//!     .key("a-key-of-yours", "p1")
//!     .trouble(When::always().model("gemini-2.5-pro"), Trouble::overloaded())
//!     .build();
//! let request = Request::post("/v1beta/models/gemini-2.5-pro:generateContent")
//!     .body(Full::<bytes::Bytes>::from(r#"{"contents": [{"parts": [{"text": "Hello!"}]}]}"#))?;
//! let response = gemini.layer(upstream).oneshot(request).await?;
//! assert_eq!((response.status().as_u16(), &response.headers()["x-gemini-model"]), (200, &"gemini-2.5-flash".parse()?));
//! # Ok(())
//! # }
//! ```
//!
//! # A server
//!
//! ```
//! use axum::{Router, body::Body};
//! use tower::{Layer, ServiceBuilder};
//! use tower_gemini::{ErrorResponseLayer, GeminiLayer, emulator::Emulator};
//!
//! # fn main() -> Result<(), tower_gemini::BoxError> {
//! let service = ServiceBuilder::new()
//!     .layer(ErrorResponseLayer::new())
//!     .layer(GeminiLayer::relay().build()?)
//!     .service(Emulator::new());
//! let app: Router = Router::new().fallback_service(service);
//! # Ok(())
//! # }
//! ```
//!
//! # Presets
//!
//! | | `interactive()` | `batch()` | `relay()` |
//! |---|---|---|---|
//! | for | a person who waits | work that may take its time | a server that answers others |
//! | total clock | 60 s | 1 h | 285 s |
//! | an attempt, unary | 45 s | 180 s | 180 s |
//! | first content of a stream | 30 s | 180 s | 180 s |
//! | silence between two events | 30 s | 60 s | 60 s |
//! | attempts, backoff up to | 5, 5 s | 60 on 503 at most 8 s apart, 8 on 429 | 8, 20 s |
//! | in line for quota | 10 s | 1 h | 60 s |
//!
//! Everything else is each layer's default. There is no fallback, no limit and no key until one is set: limits are learned
//! from the upstream's refusals, and without a key the caller's own goes on.
//!
//! # Errors
//!
//! Those of its parts: [`Error`](crate::Error) says which one refused. [`build`](GeminiBuilder::build) refuses a clock or a
//! limit of zero, an attempt that may take longer than the whole call, and what a part refuses of its settings.
//!
//! # Cancellation
//!
//! Dropping a call drops all that its parts hold for it: places in line, leases, reservations.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's.
//!
//! # Words read and written
//!
//! Those of its parts. On each answer whose call was more than plain, [`Outcome`](crate::Outcome) says the attempts, the
//! key's fingerprint and the model.
//!
//! # The type
//!
//! [`Gemini<S>`](Gemini) can be named, is `Clone` and, with its inner service, `Send`; its answers have a
//! [`GeminiBody`]. Where the type is in the way, `tower::ServiceExt::boxed_clone` forgets it for one allocation a call.

mod builder;
mod check;
mod describe;
mod layer;
mod service;

pub use self::{
    builder::GeminiBuilder,
    layer::GeminiLayer,
    service::{Gemini, GeminiBody},
};
