//! The client, a service that sends requests to one base URL.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, Version, header::HOST};
use tower_service::Service;

use super::{ClientBuilder, DEVELOPER_API, ResponseBody, ResponseFuture, base_url::BaseUrl, pool::ConnectionPool};
use crate::context::BoxError;

/// A hyper client for one upstream. The [module's documentation](super) says what it does and why.
///
/// `B` is the request's body. Clones are cheap and share all connections.
pub struct Client<B> {
    shared: Arc<Shared<B>>,
}

pub(super) struct Shared<B> {
    pub(super) base: BaseUrl,
    pub(super) pool: ConnectionPool<B>,
}

impl Client<()> {
    /// Starts a client of the Developer API. Each setting names its default.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new(DEVELOPER_API.to_owned())
    }

    /// Starts a client of Vertex AI in a location: a region (`europe-west4`), a multi-region (`us`, `eu`) or `global`.
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
    pub(super) fn new(base: BaseUrl, pool: ConnectionPool<B>) -> Self {
        Self { shared: Arc::new(Shared { base, pool }) }
    }

    /// Returns the base URL: scheme, authority and path prefix, without a slash at the end.
    #[must_use]
    pub fn base_url(&self) -> &str {
        self.shared.base.as_str()
    }

    /// Returns the number of calls in flight: sent, with a response body that was neither read to its end nor dropped.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.pool.in_flight()
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
                return ResponseFuture::refused(error.into());
            }
        }
        // Both belong to the connection on which the request came in. Hyper sets those of the outgoing one.
        request.headers_mut().remove(HOST);
        *request.version_mut() = Version::HTTP_11;

        let (connection, in_flight) = self.shared.pool.choose();
        ResponseFuture::sent(connection.client().request(request), in_flight)
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
