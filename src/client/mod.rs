//! A hyper client with TLS and HTTP/2, ready to be wrapped (feature `client`).
//!
//! What goes wrong without it: hyper-util's client sends a request again on its own when a pooled connection turns out
//! to be dead, so that attempts are miscounted; it waits for a connection without end; and it opens **one** HTTP/2
//! connection a host, so that the 101st call in flight queues unseen behind the upstream's limit of 100 streams, while
//! its time-out runs.
//!
//! What it does about it: hidden retries are off, connecting has a limit, a dead connection is found by pings, and a call
//! goes to the first connection with fewer than [`STREAMS`] calls in flight, so that another one is opened before any call
//! has to queue. Every request goes to one base URL (Google's Developer API, Vertex AI or a test server), whatever
//! host the request itself was sent to: a relay hands over what it got.
//!
//! What it never does: it resends nothing, follows no redirect, adds no credentials, decodes nothing and reads no proxy
//! settings from the environment.
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
//! An upstream that cannot be reached, and what the error says:
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
//! `poll_ready` is always ready: which connection serves a call is decided in `call`, and no call waits for another one
//! unless more than 100 for each of [`connections`](ClientBuilder::connections) are in flight.
//!
//! # Errors
//!
//! What hyper-util reports, as [`legacy::Error`], with hyper's, h2's, rustls's and the
//! operating system's own errors in its `source()` chain. Running out of the connect time-out is such an error whose
//! `is_connect()` holds, with a [`std::io::Error`] of kind [`TimedOut`](std::io::ErrorKind::TimedOut) below it. A pooled
//! connection that was closed under a call is an error too: sending it again is
//! the retry layer's decision, because only that one can count.
//!
//! # Cancellation
//!
//! A dropped call resets its HTTP/2 stream, or closes its HTTP/1.1 connection, and frees its place; a connection that was
//! being made for it is finished for others. The same goes for a dropped response body.

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

/// Where the Developer API is served.
pub const DEVELOPER_API: &str = "https://generativelanguage.googleapis.com";

/// How many calls may be in flight on one connection before another one is used, by default: 80.
///
/// Google's front ends allow 100 concurrent streams a connection, which is also the least that RFC 9113 (section 6.5.2)
/// recommends and what hyper assumes until told. A fifth is left free, because a stream that was reset still counts at
/// the server until the server has heard of it.
pub const STREAMS: usize = 80;

/// A response body as hyper gives it, which holds its call's place on the connection until it ends or is dropped.
pub type ResponseBody = GuardedBody<Incoming, InFlight>;
