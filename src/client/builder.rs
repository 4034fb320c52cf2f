//! The builder of a client.

use std::time::Duration;

use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};

use super::{Client, STREAMS, connector, pool::ConnectionPool};
use crate::context::ConfigError;

/// The time for DNS, TCP and TLS together. It leaves room for three lost SYN packets, which are sent again after 1, 3
/// and 7 s (RFC 6298). Go's `http.DefaultTransport` gives as much to TLS alone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The interval of Google's own Go client (`ReadIdleTimeout` in google-api-go-client).
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(31);

/// Go's `PingTimeout`.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(15);

/// The default of hyper-util and of Go's `http.DefaultTransport`.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// The default number of connections. 32 × 80 calls in flight are 2,560, or 15,000 calls a minute at 10 s a call: more
/// than one project's quota.
const CONNECTIONS: usize = 32;

/// The most connections. Each has a pool of its own, which is made at once though empty; 80,000 calls in flight are
/// more than one process serves.
const MAX_CONNECTIONS: usize = 1_024;

/// The builder of a [`Client`], from [`Client::builder`] or [`Client::vertex`].
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

    /// Sets the address of the upstream: `https://` or `http://`, a host, and optionally a port and a path that is put
    /// in front of every request's own. Default: [`DEVELOPER_API`](super::DEVELOPER_API).
    ///
    /// The scheme and host of a request are replaced. A request whose scheme and host are already those of the base URL
    /// keeps its path.
    pub fn base_url(mut self, url: impl ToString) -> Self {
        self.base_url = url.to_string();
        self
    }

    /// Sets the most HTTP/2 connections, from 1 to 1,024. Default: 32.
    ///
    /// One more is opened when each has [`streams`](Self::streams) calls in flight. When all are open, calls go to the
    /// least loaded one, and past the upstream's limit they queue there. It does not limit HTTP/1.1, which has a
    /// connection for each call.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Sets the number of calls in flight on a connection at which another one is used. It should be less than the
    /// upstream's own limit. Default: [`STREAMS`], for the 100 that Google allows.
    pub fn streams(mut self, streams: usize) -> Self {
        self.streams = streams;
        self
    }

    /// Limits the time to make a connection: DNS, TCP and TLS together. Default: 10 s, which has room for three lost
    /// SYN packets.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// Sets the silence after which an HTTP/2 connection is pinged, with calls in flight or without; `None` for no
    /// pings. HTTP/1.1 connections have TCP's own keep-alive at the same interval. Default: 31 s, as in Google's Go
    /// client.
    pub fn keep_alive_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.keep_alive_interval = interval.into();
        self
    }

    /// Limits the time of the answer to a ping; past it the connection is closed and its calls fail. Default: 15 s, as
    /// in Go.
    pub fn keep_alive_timeout(mut self, limit: Duration) -> Self {
        self.keep_alive_timeout = limit;
        self
    }

    /// Sets the time for which an unused connection stays open; `None` for as long as the upstream leaves it open.
    /// Default: 90 s, as in hyper-util and Go.
    pub fn pool_idle_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.pool_idle_timeout = limit.into();
        self
    }

    /// Sets the most unused HTTP/1.1 connections that are kept for each 80 calls in flight at the peak. Default: all,
    /// until [`pool_idle_timeout`](Self::pool_idle_timeout).
    pub fn max_idle(mut self, connections: usize) -> Self {
        self.max_idle = connections;
        self
    }

    /// Speaks HTTP/2 without negotiation, for an `http://` upstream that is known to speak it: a test server, a
    /// sidecar. Over TLS, HTTP/2 is negotiated anyway. Default: off.
    pub fn http2_prior_knowledge(mut self) -> Self {
        self.http2_prior_knowledge = true;
        self
    }

    /// Builds the client. It connects to nothing yet, and needs no runtime.
    ///
    /// # Errors
    ///
    /// Fails where the base URL is not one, `connections` is out of its bounds, or `streams` or a duration is zero.
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
