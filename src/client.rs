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

use std::{
    fmt, iter,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response, Version, header::HOST};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use pin_project_lite::pin_project;
use tower_service::Service;

use self::{base_url::BaseUrl, connector::Connector};
use crate::{
    body::GuardedBody,
    context::{BoxError, ConfigError},
};

pub use self::in_flight::InFlight;

mod base_url;
mod connector;
mod in_flight;

/// Where the Developer API is served.
pub const DEVELOPER_API: &str = "https://generativelanguage.googleapis.com";

/// How many calls may be in flight on one connection before another one is used, by default: 80.
///
/// Google's front ends allow 100 concurrent streams a connection, which is also the least that RFC 9113 (section 6.5.2)
/// recommends and what hyper assumes until told. A fifth is left free, because a stream that was reset still counts at
/// the server until the server has heard of it.
pub const STREAMS: usize = 80;

/// Name, TCP and TLS together: leaves room for three lost SYN packets, which are sent again after 1, 3 and 7 s (RFC
/// 6298), and is what Go's `http.DefaultTransport` gives TLS alone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What Google's own Go client does (`ReadIdleTimeout` in google-api-go-client).
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(31);

/// Go's `PingTimeout`.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(15);

/// The default of hyper-util, and of Go's `http.DefaultTransport`.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// 32 × 80 calls in flight are 2,560: at 10 s a call, 15,000 calls a minute, more than one project's quota.
const CONNECTIONS: usize = 32;

/// Each has a pool of its own, made at once though empty; 80,000 calls in flight are more than one process serves.
const MAX_CONNECTIONS: usize = 1_024;

/// A response body as hyper gives it, which holds its call's place on the connection until it ends or is dropped.
pub type ResponseBody = GuardedBody<Incoming, InFlight>;

/// A hyper client for one upstream; [its module](self) says what it does and why.
///
/// `B` is the request body. Clones are cheap and share all connections.
pub struct Client<B> {
    shared: Arc<Shared<B>>,
}

struct Shared<B> {
    base: BaseUrl,
    streams: usize,
    first: Shard<B>,
    more: Box<[Shard<B>]>,
}

/// One of hyper-util's clients, and so one HTTP/2 connection, with the number of calls in flight on it.
struct Shard<B> {
    client: legacy::Client<Connector, B>,
    in_flight: Arc<AtomicUsize>,
}

impl Client<()> {
    /// Starts from the Developer API's address and the defaults given at each knob.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new(DEVELOPER_API.to_owned())
    }

    /// Starts from Vertex AI's address for a location: a region (`europe-west4`), a multi-region (`us`, `eu`) or
    /// `global`.
    ///
    /// ```
    /// # use tower_gemini::client::Client;
    /// # type Body = http_body_util::Full<bytes::Bytes>;
    /// let client: Client<Body> = Client::vertex("europe-west4").build()?;
    /// assert_eq!(client.base_url(), "https://europe-west4-aiplatform.googleapis.com");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn vertex(location: &str) -> ClientBuilder {
        ClientBuilder::new(match location {
            "global" => "https://aiplatform.googleapis.com".to_owned(),
            "us" | "eu" => format!("https://aiplatform.{location}.rep.googleapis.com"),
            region => format!("https://{region}-aiplatform.googleapis.com"),
        })
    }
}

impl<B> Client<B> {
    /// Where requests go: scheme, authority and path prefix, without a slash at the end.
    #[must_use]
    pub fn base_url(&self) -> &str {
        self.shared.base.as_str()
    }

    /// Calls in flight now: sent, and their response bodies neither read to the end nor dropped.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.shards().map(Shard::load).sum()
    }
}

impl<B> Service<Request<B>> for Client<B>
where
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.shared.base.resolve(request.uri()) {
            Ok(uri) => *request.uri_mut() = uri,
            Err(error) => {
                return ResponseFuture { state: State::Refused { error: Some(error.into()) } };
            }
        }
        // Of the connection that the request came in on; hyper writes what fits the one that it goes out on.
        request.headers_mut().remove(HOST);
        *request.version_mut() = Version::HTTP_11;

        let (shard, in_flight) = self.shared.place();
        ResponseFuture { state: State::Sent { response: shard.client.request(request), in_flight: Some(in_flight) } }
    }
}

impl<B> Shared<B> {
    fn shards(&self) -> impl Iterator<Item = &Shard<B>> {
        iter::once(&self.first).chain(&self.more)
    }

    /// The first connection with room, so that a quiet hour needs only one; when all are full, the least loaded one.
    fn place(&self) -> (&Shard<B>, InFlight) {
        let with_room = |shard| Shard::place(shard, self.streams).map(|in_flight| (shard, in_flight));
        self.shards().find_map(with_room).unwrap_or_else(|| {
            let least = self.shards().min_by_key(|shard| shard.load()).unwrap_or(&self.first);
            (least, InFlight::new(&least.in_flight))
        })
    }
}

impl<B> Shard<B> {
    fn place(&self, streams: usize) -> Option<InFlight> {
        InFlight::below(streams, &self.in_flight)
    }

    fn load(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

impl<B> Clone for Client<B> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<B> fmt::Debug for Client<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base_url", &self.base_url()).field("in_flight", &self.in_flight()).finish()
    }
}

pin_project! {
    /// The response of a [`Client`], once its head is there.
    #[must_use = "futures do nothing unless polled"]
    #[derive(Debug)]
    pub struct ResponseFuture {
        #[pin]
        state: State,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State {
        Refused { error: Option<BoxError> },
        Sent { #[pin] response: legacy::ResponseFuture, in_flight: Option<InFlight> },
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<ResponseBody>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // A future polled after its end has nothing more to say, and says it by never waking.
        match self.project().state.project() {
            StateProj::Refused { error } => error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
            StateProj::Sent { response, in_flight } => {
                let response = ready!(response.poll(cx));
                let Some(in_flight) = in_flight.take() else { return Poll::Pending };
                Poll::Ready(Ok(response?.map(|body| GuardedBody::new(body, in_flight))))
            }
        }
    }
}

/// Builds a [`Client`]; from [`Client::builder`] or [`Client::vertex`].
#[must_use = "nothing is built before `build`"]
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    base_url: String,
    connections: usize,
    streams: usize,
    connect_timeout: Duration,
    keep_alive_interval: Option<Duration>,
    keep_alive_timeout: Duration,
    pool_idle_timeout: Option<Duration>,
    max_idle: usize,
    http2_prior_knowledge: bool,
}

impl ClientBuilder {
    fn new(base_url: String) -> Self {
        Self {
            base_url,
            connections: CONNECTIONS,
            streams: STREAMS,
            connect_timeout: CONNECT_TIMEOUT,
            keep_alive_interval: Some(KEEP_ALIVE_INTERVAL),
            keep_alive_timeout: KEEP_ALIVE_TIMEOUT,
            pool_idle_timeout: Some(POOL_IDLE_TIMEOUT),
            max_idle: usize::MAX,
            http2_prior_knowledge: false,
        }
    }

    /// Sends everything to this address: `https://` or `http://`, a host, a port if need be, and a path to put before
    /// every request's own, if any. Default: [`DEVELOPER_API`].
    ///
    /// Scheme and host that a request came with are replaced; only a request whose scheme and host are already those of
    /// the base URL keeps its path as it stands.
    pub fn base_url(mut self, url: impl ToString) -> Self {
        self.base_url = url.to_string();
        self
    }

    /// How many HTTP/2 connections may be open, up to 1,024. One more is opened when each one has
    /// [`streams`](Self::streams) calls in flight; when all are open, calls go to the least loaded one, and past the
    /// upstream's limit they queue there. HTTP/1.1, which has a connection a call, is not limited by it. Default: 32.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// How many calls may be in flight on a connection before another one is used: less than the upstream's own limit.
    /// Default: [`STREAMS`], for the 100 that Google allows.
    pub fn streams(mut self, streams: usize) -> Self {
        self.streams = streams;
        self
    }

    /// How long a connection may take to be made: the name's address, TCP and TLS together. Default: 10 s, room for
    /// three lost SYN packets.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// After how much silence an HTTP/2 connection is pinged, while calls are in flight and while it is idle; `None`
    /// for never. Connections over HTTP/1.1 have TCP's own keep-alive, at the same interval. Default: 31 s, as in
    /// Google's Go client.
    pub fn keep_alive_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.keep_alive_interval = interval.into();
        self
    }

    /// How long the answer to a ping may take; then the connection is closed and its calls fail. Default: 15 s, as in Go.
    pub fn keep_alive_timeout(mut self, limit: Duration) -> Self {
        self.keep_alive_timeout = limit;
        self
    }

    /// How long a connection that no call uses stays open; `None` for as long as the upstream likes. Default: 90 s, as in
    /// hyper-util and Go.
    pub fn pool_idle_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.pool_idle_timeout = limit.into();
        self
    }

    /// How many unused HTTP/1.1 connections are kept for each 80 calls in flight at the peak. Default: all, until
    /// [`pool_idle_timeout`](Self::pool_idle_timeout).
    pub fn max_idle(mut self, connections: usize) -> Self {
        self.max_idle = connections;
        self
    }

    /// Speaks HTTP/2 without asking, for an `http://` upstream that is known to: a test server, a sidecar. Over TLS,
    /// HTTP/2 is agreed on anyway. Default: off.
    pub fn http2_prior_knowledge(mut self) -> Self {
        self.http2_prior_knowledge = true;
        self
    }

    /// Builds the client. Nothing is connected yet, and no runtime is needed yet.
    ///
    /// # Errors
    ///
    /// When the base URL is none, `connections` is not within its bounds, or `streams` or a duration is zero.
    pub fn build<B>(self) -> Result<Client<B>, ConfigError>
    where
        B: http_body::Body + Send,
        B::Data: Send,
    {
        let base = self.base_url.parse()?;
        let durations = [
            ("connect_timeout", Some(self.connect_timeout)),
            ("keep_alive_interval", self.keep_alive_interval),
            ("keep_alive_timeout", Some(self.keep_alive_timeout)),
            ("pool_idle_timeout", self.pool_idle_timeout),
        ];
        if let Some((knob, _)) = durations.iter().find(|(_, duration)| duration.is_some_and(|d| d.is_zero())) {
            return Err(ConfigError::new(format!(
                "{knob} is zero: nothing could ever be sent; take it out for the default"
            )));
        }
        if !(1..=MAX_CONNECTIONS).contains(&self.connections) {
            let given = self.connections;
            return Err(ConfigError::new(format!("connections is {given}; it is from 1 to {MAX_CONNECTIONS}")));
        }
        if self.streams == 0 {
            return Err(ConfigError::new("streams is 0: nothing could ever be sent; it is at least 1"));
        }

        let mut pool = legacy::Client::builder(TokioExecutor::new());
        pool.timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .retry_canceled_requests(false)
            .pool_idle_timeout(self.pool_idle_timeout)
            .pool_max_idle_per_host(self.max_idle)
            .http2_only(self.http2_prior_knowledge)
            .http2_keep_alive_interval(self.keep_alive_interval)
            .http2_keep_alive_timeout(self.keep_alive_timeout)
            .http2_keep_alive_while_idle(true);
        let connector = connector::new(self.connect_timeout, self.keep_alive_interval)?;
        let shard = || Shard { client: pool.build(connector.clone()), in_flight: Arc::default() };

        let first = shard();
        let more = iter::repeat_with(shard).take(self.connections - 1).collect();
        Ok(Client { shared: Arc::new(Shared { base, streams: self.streams, first, more }) })
    }
}
