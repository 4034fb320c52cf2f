use std::time::Duration;

use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};

use super::{Client, STREAMS, connector, pool::ConnectionPool};
use crate::context::ConfigError;

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
    pub(super) fn new(base_url: String) -> Self {
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

        let mut client = legacy::Client::builder(TokioExecutor::new());
        client
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .retry_canceled_requests(false)
            .pool_idle_timeout(self.pool_idle_timeout)
            .pool_max_idle_per_host(self.max_idle)
            .http2_only(self.http2_prior_knowledge)
            .http2_keep_alive_interval(self.keep_alive_interval)
            .http2_keep_alive_timeout(self.keep_alive_timeout)
            .http2_keep_alive_while_idle(true);
        let connector = connector::new(self.connect_timeout, self.keep_alive_interval)?;
        let pool = ConnectionPool::new(self.connections, self.streams, || client.build(connector.clone()));
        Ok(Client::new(base, pool))
    }
}
