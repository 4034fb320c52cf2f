//! Makes connections: TCP without delay, TLS with Mozilla's roots, HTTP/2 where the upstream has it, all within a time
//! limit.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{ClientConfig, crypto::ring};
use tower_service::Service;

use crate::context::{BoxError, ConfigError};

pub(super) type Connector = Limited<HttpsConnector<HttpConnector>>;

/// Makes a connector, which gives up after `limit`.
pub(super) fn new(limit: Duration, tcp_keep_alive: Option<Duration>) -> Result<Connector, ConfigError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false); // the outer connector adds TLS
    tcp.set_nodelay(true); // a small request goes out at once
    tcp.set_keepalive(tcp_keep_alive);
    // The provider is named, because the process-wide default panics once another crate turns on a second provider.
    let tls = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::new(format!("TLS cannot be set up: {error}")))?
        .with_webpki_roots()
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_all_versions();
    Ok(Limited { connector: connector.wrap_connector(tcp), limit })
}

/// A connector with one time limit for all of its steps, on tokio's clock.
#[derive(Clone, Debug)]
pub(super) struct Limited<C> {
    connector: C,
    limit: Duration,
}

impl<C> Service<Uri> for Limited<C>
where
    C: Service<Uri>,
    C::Error: Into<BoxError>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>; // once a connection, as in hyper-rustls

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let limit = self.limit;
        let connecting = tokio::time::timeout(limit, self.connector.call(to));
        Box::pin(async move {
            connecting
                .await
                .map_err(|_| {
                    let why = format!("no connection within {limit:?}, the client's connect_timeout");
                    io::Error::new(io::ErrorKind::TimedOut, why)
                })?
                .map_err(Into::into)
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Empty;
    use hyper_util::{
        client::legacy,
        rt::{TokioExecutor, TokioIo},
    };
    use tokio::{net::TcpStream, time::Instant};

    use super::*;

    /// A network that never answers.
    #[derive(Clone)]
    struct Void;

    impl Service<Uri> for Void {
        type Response = TokioIo<TcpStream>;
        type Error = io::Error;
        type Future = std::future::Pending<io::Result<Self::Response>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Uri) -> Self::Future {
            std::future::pending()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_not_made_in_time_is_a_connect_error_that_says_so() {
        let connector = Limited { connector: Void, limit: Duration::from_secs(10) };
        let client = legacy::Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector);
        let start = Instant::now();

        let error = client.get(Uri::from_static("http://gemini.test/")).await.unwrap_err();

        assert_eq!(start.elapsed(), Duration::from_secs(10));
        assert!(error.is_connect());
        let cause = std::error::Error::source(&error).unwrap().downcast_ref::<io::Error>().unwrap();
        assert_eq!(cause.kind(), io::ErrorKind::TimedOut);
        assert_eq!(cause.to_string(), "no connection within 10s, the client's connect_timeout");
    }
}
