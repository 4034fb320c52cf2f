//! A hyper client with TLS and HTTP/2, ready to be wrapped (feature `client`).
//!
//! Without it, hyper-util's client sends a request again on its own when a pooled connection turns out to be dead, so
//! that attempts are miscounted. It waits for a connection without end. And it opens **one** HTTP/2 connection a host,
//! so that the 101st call in flight queues unseen behind the upstream's limit of 100 streams, while its time-out runs.
//!
//! This client turns hidden retries off, limits the time to connect, finds dead connections by pings, and gives a call
//! to the first connection with fewer than [`STREAMS`] calls in flight, so that another one is opened before any call
//! has to queue. Every request goes to one base URL (Google's Developer API, Vertex AI or a test server), whatever host
//! the request was sent to, so that a relay can hand requests over as they came.
//!
//! It never resends a request, follows a redirect, adds credentials, decodes a body, or reads proxy settings from the
//! environment.
//!
//! # When to use it
//!
//! Use it as the innermost service of a stack, unless the program has an HTTP client already: any service of `http`
//! requests fits. hyper-util's client differs as described above. reqwest has one type of body of its own, and
//! redirects, cookies, decompression and proxies, which this client leaves out.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//!
//! use bytes::Bytes;
//! use http_body_util::Full;
//! use tower::{Service, ServiceBuilder};
//! use tower_gemini::client::Client;
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let client: Client<Full<Bytes>> = Client::builder().connect_timeout(Duration::from_secs(3)).build()?;
//! assert_eq!(client.base_url(), "https://generativelanguage.googleapis.com");
//!
//! // One client for the whole program: clones share its connections. Any layers go around it.
//! let service = ServiceBuilder::new().concurrency_limit(500).service(client.clone());
//! # fn assert_service<S: Service<http::Request<Full<Bytes>>>>(_: S) {}
//! # assert_service(service);
//! # Ok(())
//! # }
//! ```
//!
//! The error of an upstream that cannot be reached:
//!
//! ```
//! use bytes::Bytes;
//! use http_body_util::Full;
//! use hyper_util::client::legacy;
//! use tower::ServiceExt;
//! use tower_gemini::client::Client;
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! # let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(); // closed again: nobody listens
//! let client = Client::builder().base_url(format!("http://127.0.0.1:{port}")).build()?;
//! // A path is enough: scheme and host come from the base URL.
//! let request = http::Request::get("/v1beta/models").body(Full::<Bytes>::default())?;
//!
//! let error = client.oneshot(request).await.unwrap_err();
//! assert!(error.downcast_ref::<legacy::Error>().unwrap().is_connect());
//! # Ok(())
//! # }
//! ```
//!
//! # Readiness
//!
//! `poll_ready` is always ready, because `call` chooses the connection. A call waits for others only where more than
//! 100 calls are in flight for each of [`connections`](ClientBuilder::connections).
//!
//! # Errors
//!
//! Calls fail with hyper-util's [`legacy::Error`](hyper_util::client::legacy::Error), with the errors of hyper, h2,
//! rustls and the operating system in its `source()` chain. When the connect time-out runs out, `is_connect()` holds,
//! and a [`std::io::Error`] of kind [`TimedOut`](std::io::ErrorKind::TimedOut) is below it. A pooled connection that
//! was closed under a call is an error too: only the retry layer can count attempts, so it decides whether to send
//! again.
//!
//! # Cancellation
//!
//! A dropped call resets its HTTP/2 stream, or closes its HTTP/1.1 connection, and no longer counts as in flight. A
//! connection that was being made for it is finished for other calls. The same holds for a dropped response body.

mod base_url;
mod builder;
mod connector;
mod future;
mod in_flight;
mod pool;
mod service;

use hyper::body::Incoming;

pub use self::{builder::ClientBuilder, future::ResponseFuture, in_flight::InFlight, service::Client};
use crate::body::GuardedBody;

/// The base URL of the Developer API.
pub const DEVELOPER_API: &str = "https://generativelanguage.googleapis.com";

/// The default number of calls in flight on one connection before another one is used: 80.
///
/// Google's front ends allow 100 concurrent streams a connection, which is also the least that RFC 9113 (section 6.5.2)
/// recommends and the number that hyper assumes until told. A fifth is left free, because the server counts a stream
/// that was reset until it learns of the reset.
pub const STREAMS: usize = 80;

/// The body of a response: hyper's, whose call counts as in flight until the body ends or is dropped.
pub type ResponseBody = GuardedBody<Incoming, InFlight>;
