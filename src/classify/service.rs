//! The service: reads the shape of a call, and passes it on.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::ACCEPT_ENCODING};
use http_body::Body;
use tower_service::Service;

use super::{body::ClassifyBody, future::ResponseFuture, settings::Settings};
use crate::context::{BoxError, CallContext, CallRef};

/// The service of [`ClassifyLayer`](super::ClassifyLayer).
#[derive(Clone, Debug)]
pub struct Classify<S> {
    pub(super) inner: S,
    pub(super) settings: Settings,
}

crate::macros::accessors!(Classify);

impl<S, B, R> Service<Request<B>> for Classify<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body<Data = Bytes> + Unpin,
    R::Error: Into<BoxError>,
{
    type Response = Response<ClassifyBody<R>>;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let context = CallContext::of(&request);
        let shape = CallRef::with(context, &request).shape();
        // Nothing stands between this room and the transport that could keep the call back.
        if let Some(context) = context {
            context.is_sent_now();
        }
        if self.settings.enabled {
            // Errors, events and usage cannot be read in an encoded body.
            request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        ResponseFuture::new(self.inner.call(request), shape, self.settings)
    }
}
