//! The service, which cannot fail.

use std::{
    convert::Infallible,
    fmt,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{ErrorResponseBody, ResponseFuture, settings::Settings};
use crate::context::{BoxError, CallRef};

/// The service of [`ErrorResponseLayer`](super::ErrorResponseLayer).
pub struct ErrorResponse<S> {
    pub(super) inner: S,
    pub(super) settings: Settings,
    /// The error with which the inner service failed to become ready: the answer to the next call.
    pub(super) unready: Option<BoxError>,
}

crate::macros::accessors!(ErrorResponse);

impl<S, B, R> Service<Request<B>> for ErrorResponse<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Response = Response<ErrorResponseBody<R>>;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if self.unready.is_none() {
            self.unready = ready!(self.inner.poll_ready(cx)).err().map(Into::into);
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let shape = CallRef::of(&request).shape();
        match self.unready.take() {
            Some(error) => ResponseFuture::failed(error, shape, self.settings.clone()),
            None => ResponseFuture::new(self.inner.call(request), shape, self.settings.clone()),
        }
    }
}

impl<S: Clone> Clone for ErrorResponse<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), settings: self.settings.clone(), unready: None }
    }
}

impl<S: fmt::Debug> fmt::Debug for ErrorResponse<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorResponse").field("inner", &self.inner).finish_non_exhaustive()
    }
}
