//! A Gemini that misbehaves on request: it tests your own stack against failures before they occur in production.
//!
//! The real service fails in ways that a mock does not have: a 503 for a minute and a half, a 429 whose RetryInfo is
//! cut to whole seconds, an error inside a 200 stream, an answer without parts, a stream that simply stops. A program
//! that was tested with good answers only meets these in production, where they cannot be repeated.
//!
//! [`Emulator`] answers like Gemini, on every surface that this crate's layers speak, and goes wrong as a script says:
//! [`When`] chooses the requests, and [`Trouble`] is what happens to them. It is a
//! [`tower::Service`](tower_service::Service) in process, where a paused clock makes an hour pass at once, and a
//! loopback [`Server`] for real clients and SDKs. It counts quotas for each project and model, and keeps a
//! [journal](Emulator::journal) of each request, its answer and its end. Under one [seed](EmulatorBuilder::seed), the
//! same requests get the same responses.
//!
//! It never reaches the network beyond its own socket, never keeps a key or an upload, and never compresses. It has no
//! model: answers are an echo, a fixed text, or random words. It serves generating (streamed and not), interactions,
//! decisions, counting, embedding, the lists of models, and the [things of a project](#the-things-of-a-project). Tuning
//! and the Live API are 404, unless a [`Trouble::response`] at a [path](When::path) stands in for them. It does not
//! check for JSON members that Google does not know, and of `X-Server-Timeout` it checks only the minimum.
//!
//! # When to use it
//!
//! Use it in tests of a stack, of a client or of an SDK's settings, and in demos and load tests without a key. A mock
//! of one response, such as tower's `service_fn` or `tower-test`, is enough for a test that needs one known response.
//! Neither replaces a test against the real API: the emulator repeats the behaviour that was observed, and nothing
//! newer.
//!
//! # In process
//!
//! ```
//! use std::time::Duration;
//!
//! use http::{Request, StatusCode};
//! use http_body_util::{BodyExt, Full};
//! use tower::ServiceExt;
//! use tower_gemini::emulator::{Emulator, Trouble, When};
//!
//! #[tokio::main(flavor = "current_thread", start_paused = true)]
//! async fn main() -> Result<(), tower_gemini::BoxError> {
//!     let emulator = Emulator::builder()
//!         .first_token(Duration::from_secs(20))
//!         .trouble(When::first(1), Trouble::overloaded())
//!         .build();
//!     let prompt = || {
//!         Request::post("/v1beta/models/gemini-2.5-flash:generateContent")
//!             .header("x-goog-api-key", "test-key")
//!             .body(Full::<bytes::Bytes>::from(r#"{"contents": [{"parts": [{"text": "hello"}]}]}"#))
//!     };
//!
//!     let refused = emulator.clone().oneshot(prompt()?).await?;
//!     assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
//!
//!     // Twenty seconds on the paused clock take no real time.
//!     let answered = emulator.clone().oneshot(prompt()?).await?;
//!     assert_eq!(emulator.elapsed(), Duration::from_secs(20));
//!     let body = answered.into_body().collect().await?.to_bytes();
//!     assert!(String::from_utf8_lossy(&body).contains("You said: hello"));
//!
//!     assert_eq!(emulator.journal()[0].trouble, Some("overloaded"));
//!     Ok(())
//! }
//! ```
//!
//! # On a socket
//!
//! ```
//! use tokio::{io::{AsyncReadExt, AsyncWriteExt}, net::TcpStream};
//! use tower_gemini::emulator::{Emulator, End, Trouble, When};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> std::io::Result<()> {
//!     let emulator = Emulator::builder().trouble(When::first(1), Trouble::hang()).build();
//!     // Any SDK takes `server.uri()` as its base URL.
//!     let server = emulator.serve().await?;
//!
//!     let mut client = TcpStream::connect(server.addr()).await?;
//!     let head = "POST /v1beta/models/gemini-2.5-flash:generateContent?key=test-key HTTP/1.1\r\nhost: localhost\r\n";
//!     let body = r#"{"contents": [{"parts": [{"text": "hello"}]}]}"#;
//!     client.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
//!
//!     // The request hangs until the client hangs up. The test waits for both, and never sleeps.
//!     emulator.wait_for(|journal| journal.iter().any(|visit| visit.trouble == Some("hang"))).await;
//!     drop(client);
//!     emulator.wait_for(|journal| journal[0].end == Some(End::DroppedBeforeHeaders)).await;
//!     Ok(())
//! }
//! ```
//!
//! # Troubles
//!
//! | trouble | response |
//! |---|---|
//! | [`overloaded`](Trouble::overloaded), [`high_demand`](Trouble::high_demand) | 503 UNAVAILABLE, in both wordings |
//! | [`internal`](Trouble::internal), [`deadline_exceeded`](Trouble::deadline_exceeded) | 500 INTERNAL, 504 |
//! | [`minute_quota`](Trouble::minute_quota), [`token_quota`](Trouble::token_quota) | 429 with a hint that is right |
//! | [`day_quota`](Trouble::day_quota), [`zero_quota`](Trouble::zero_quota) | 429 with a hint that is of no use |
//! | [`bare_quota`](Trouble::bare_quota), [`vertex_capacity`](Trouble::vertex_capacity) | 429 without details |
//! | [`grounding_quota`](Trouble::grounding_quota) | 429 whose only detail is Help; [`When::grounded`] chooses its calls |
//! | [`spend_limit`](Trouble::spend_limit), [`spending_cap`](Trouble::spending_cap) | 429 of the project's money: of ten minutes, of a month |
//! | [`model_closed`](Trouble::model_closed) | 404 "no longer available to new users" |
//! | [`invalid_key`](Trouble::invalid_key), [`expired_key`](Trouble::expired_key) | 400 API_KEY_INVALID |
//! | [`suspended_key`](Trouble::suspended_key), [`leaked_key`](Trouble::leaked_key), [`service_disabled`](Trouble::service_disabled) | 403 |
//! | [`empty`](Trouble::empty), [`malformed_function_call`](Trouble::malformed_function_call) | 200 without parts |
//! | [`thoughts_only`](Trouble::thoughts_only) | 200 with thoughts, and then MALFORMED_FUNCTION_CALL |
//! | [`continuation`](Trouble::continuation) | 200 with CONTINUATION and a token to go on with |
//! | [`blocked`](Trouble::blocked), [`prompt_blocked`](Trouble::prompt_blocked) | 200 without content, and with the reason |
//! | [`failed`](Trouble::failed), [`unfinished`](Trouble::unfinished) | an interaction with that status, without an answer |
//! | [`prohibited`](Trouble::prohibited) | 400 of an interaction's content filter, or its bare line in a stream |
//! | [`hang`](Trouble::hang), [`stall`](Trouble::stall) | nothing; or some chunks, and then nothing |
//! | [`reset`](Trouble::reset), [`reset_after`](Trouble::reset_after) | the connection is reset, before the answer or within it |
//! | [`cut`](Trouble::cut) | the stream ends cleanly without a finishReason |
//! | [`slow`](Trouble::slow), [`slow_first_token`](Trouble::slow_first_token) | the answer, late: headers included, or from the first chunk on |
//! | [`downgraded`](Trouble::downgraded) | the answer, from the standard tier: [`When::tier`] chooses its calls |
//! | [`html_bad_gateway`](Trouble::html_bad_gateway), [`empty_bad_gateway`](Trouble::empty_bad_gateway) | 502 of Google's front end, or of a relay |
//! | [`response`](Trouble::response) | a response of your own |
//! | an API error [`in_stream`](Trouble::in_stream) or [`as_raw_tail`](Trouble::as_raw_tail) | 200, some chunks, then the error |
//! | any trouble [`delayed`](Trouble::delayed), [`paced`](Trouble::paced), or with [`pings`](Trouble::pings) | the same later, in small pieces, or with comments |
//!
//! # Google's behaviour, and the emulator's
//!
//! Checks come in this order: path, credentials, JSON, `X-Server-Timeout`, model, key, quota, length, and only then the
//! script, so that a request that is refused anyway does not use up a trouble.
//!
//! - Minutes are counted in a sliding window or in fixed ones ([`QuotaWindow`]). A day ends at midnight Pacific, by the
//!   [wall clock at the start](EmulatorBuilder::wall_clock) and tokio's clock since. Quota is counted for each project
//!   and for the model that the requested name resolves to, prompts and interactions together; an agent has its own,
//!   as `agents/NAME`. `batchEmbedContents` costs a request for each of its texts. All else is free.
//! - A 429 for quota costs no quota. A 400 for too many tokens, a 503 and every later failure cost what an answer
//!   costs.
//! - A request larger than a whole minute's tokens is given a hint of one second, each time. The hint of a day's quota
//!   is of no use.
//! - A text is estimated at a token for every four bytes, rounded up; an image, or anything else that is not text, at
//!   258.
//! - A request that names a service tier gets it named in `x-gemini-service-tier` and in its usage (on Vertex, as
//!   `trafficType`). All tiers share the quota.
//! - Errors of the Interactions API have a code in words (`{"error": {"code": "not_found", …}}`), in an event where a
//!   stream was requested. Those of the front end, about keys and quotas, have the shape that they have everywhere: so
//!   a day's quota can be told from a minute's.
//!
//! # The things of a project
//!
//! Files, cached contents, interactions, batches, file search stores, RAG stores, agents, environments, credentials,
//! triggers, voices, webhooks, long-running operations and the tokens of a continuation belong to the project of the key
//! that made them. To another project's key they are a 403 or a 404, the same as what never existed, wherever a path or
//! a body names them: a prompt's or an interaction's files, cached content, stores, agent and environment,
//! `previous_interaction_id`, `continuationToken`, a batch's or an import's file, a video to go on with.
//!
//! - An upload continues at an absolute address on the host that the request named, without a key, or with one of the
//!   same project. A file lives for two days, a project has 20 GiB of them, and a cached content lives for its `ttl` or
//!   an hour.
//! - An interaction is kept for a day, on the [paid tier](EmulatorBuilder::paid_tier) for 55, unless `store` is false.
//!   Its stream can be read again from any event on.
//! - A batch, and an interaction in the background, take the [time](EmulatorBuilder::background_time) that was set.
//!   A batch whose requests stand in a file has as many results as that file has lines, without having read them.
//! - Names, sizes, answers, the beginnings of prompts, and small bodies of what is only kept (agents, webhooks, …) are
//!   remembered, of the latest 4,096 things; an upload's bytes never are.
//!
//! # Cancellation
//!
//! Dropping the future, or the body, stands for a peer that closes the connection. Nothing remains but the journal's
//! note.
//!
//! # Errors
//!
//! The service fails only where the script says reset, with an [`io::Error`](std::io::Error) of the kind
//! `ConnectionReset` from the future or from the body; or with the request body's own error. On a socket, the TCP
//! connection is reset; on HTTP/2, the stream.

// The folders, lowest first: `wire`, `script`, `state`, `decide`, `serve`. Each uses only those before it.
mod decide;
mod script;
mod seeded;
mod serve;
mod state;
mod wire;

pub use self::{
    script::{
        reply::Reply,
        trouble::Trouble,
        when::{Capacity, When},
    },
    serve::{body::EmulatorBody, builder::EmulatorBuilder, future::ResponseFuture, handle::Emulator, server::Server},
    state::{
        journal::{End, Visit},
        models::EmulatedModel,
        quota::QuotaWindow,
    },
};
