//! All layers in the right order, made by one builder.
//!
//! Twelve layers have some five hundred million orders, and nearly all of them are wrong in a way that shows only on a bad
//! day: an attempt's clock outside of the retries, a limiter that queues calls for a model whose circuit is open, a key
//! chosen before the model is known. And some layers have to know each other: the key pool asks the limiter in which
//! project a call would wait least, and the limiter asks the circuit breakers before it lets a call queue.
//!
//! [`GeminiLayer`] is the order of [the guide](crate::docs::ordering), made and wired by a [builder](GeminiBuilder)
//! that starts from one of four presets. Each layer can be replaced, and all but the replay layer can be left out, by
//! their `disabled()` layer; [`describe`](GeminiLayer::describe) prints the stack with its numbers. Settings that could
//! never work are refused when the stack is built; settings that may surprise stand in
//! [`warnings`](GeminiLayer::warnings).
//!
//! It spawns nothing, hides nothing and adds no behaviour of its own: each part is the layer that could be stacked by
//! hand, and has its handle for you. A server adds [`ErrorResponseLayer`](crate::ErrorResponseLayer) outside, because
//! axum and SDK clients want a response where others want an error.
//!
//! # A client
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
//! let gemini = GeminiLayer::thinking()
//!     .key(Key::new(ApiKey::new("a-key-of-yours")?).project("p1"))
//!     .limits_for("gemini-2.5-pro", Limits::new().requests_per_minute(150))
//!     .fallback("gemini-2.5-pro", ["gemini-2.5-flash"])
//!     .build()?;
//! println!("{}", gemini.describe());
//!
//! // Pro is down for every caller. Any service over HTTP can take this place.
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
//! # When to use it
//!
//! In programs that want all of it, or most: this is the one place in which the layers' order and their wiring are kept
//! right. For one or two layers, stack them by hand with tower's `ServiceBuilder`; nothing here is needed for that.
//!
//! # Presets
//!
//! | | `interactive()` | `thinking()` | `batch()` | `relay()` |
//! |---|---|---|---|---|
//! | meant for | a person who waits | models that think for a minute or two | work that may take its time | a server that answers others |
//! | total clock | 60 s | 12 min | 1 h | 285 s |
//! | clock of a unary attempt | 45 s | 5 min | 180 s | 180 s |
//! | clock until a stream's first content | 30 s | 3 min | 180 s | 180 s |
//! | longest silence between two events | 30 s | 60 s | 60 s | 60 s |
//! | total clock for the flex tier | 16 min | 16 min | 1 h | 16 min |
//! | clock until an answer or a first content for the flex tier | 15 min | 15 min | 15 min | 15 min |
//! | attempts | 12 | 12 | 60 on 503, 8 on 429 | 20 |
//! | retries of a model at once, in all calls | 100 | 100 | 1,000 | 1,000 |
//! | backoff | 0.25 s to 4 s | 0.25 s to 4 s | up to 8 s on 503 | up to 20 s |
//! | longest wait for quota | 10 s | the deadline | the deadline | the deadline |
//!
//! The clocks of an attempt are the longest: they [adapt](crate::timeout#adaptive-clocks) to the times that each model is
//! seen to take, unless [`fixed_clocks`](GeminiBuilder::fixed_clocks) says otherwise. Pro models from 2.5 on and agents
//! think for 60 to 120 s. `interactive()` would end nearly each call of theirs, and warns where its settings name one;
//! `relay()` has time for two attempts at them, of which one call in a hundred loses both where one attempt in ten hangs.
//!
//! All other settings are the layers' own defaults. There is no fallback, no limit, of callers or of the project, and no
//! key until one is set: limits of projects are learned from the upstream's refusals, and without a key the caller's own
//! goes on.
//!
//! # Errors
//!
//! The errors of its layers: [`Error`](crate::Error) names the one that refused. [`build`](GeminiBuilder::build)
//! refuses a clock or a limit of zero, an attempt that may take longer than the whole call, and settings that a layer
//! itself refuses.
//!
//! # Cancellation
//!
//! Dropping a call drops all that its layers hold for it: places in queues, leases, reservations of quota.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's.
//!
//! # Words read and written
//!
//! The words of its layers. With an answer, [`Outcome`](crate::Outcome) has the attempts, the key's fingerprint and the
//! model, where a layer has set them.
//!
//! # The type
//!
//! [`Gemini<S>`](Gemini) can be named, is `Clone` and, with its inner service, `Send`; its answers have a
//! [`GeminiBody`]. A program that does not want to name the type boxes it with `tower::ServiceExt::boxed_clone`, for
//! one allocation a call.

mod builder;
mod check;
mod layer;
mod layers;
mod service;
mod settings;

pub use self::{
    builder::GeminiBuilder,
    layer::GeminiLayer,
    service::{Gemini, GeminiBody},
};
