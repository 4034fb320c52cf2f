//! A service that is always ready, of whatever kind.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use http::{Request, Response};
use tower::{BoxError, Service};

/// The future of an answer.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

/// A service that is always ready. Its clones share what answers, so that one costs no more than a count: a layer clones
/// what is inside of it for its next call.
///
/// Its futures are boxed where they are made, because some are large, and all that stands around them moves a pointer.
pub(crate) struct AlwaysReady<B>(Arc<dyn Fn(Request<B>) -> Answering + Send + Sync>);

impl<B> AlwaysReady<B> {
    pub(crate) fn new<F>(answer: impl Fn(Request<B>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Response<Body>, BoxError>> + Send + 'static,
    {
        Self(Arc::new(move |request| Box::pin(answer(request))))
    }

    /// Wraps a service that is ready whenever it is asked, as layers are around one that is always ready.
    pub(crate) fn around<S>(service: S) -> Self
    where
        S: Service<Request<B>, Response = Response<Body>, Error = BoxError, Future: Send + 'static>,
        S: Clone + Send + Sync + 'static,
    {
        Self::new(move |request| service.clone().call(request))
    }
}

impl<B> Clone for AlwaysReady<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B> Service<Request<B>> for AlwaysReady<B> {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answering {
        (self.0)(request)
    }
}
