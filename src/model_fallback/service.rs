//! The service: begins the walk of a call along its chain.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{FallbackChains, ResponseFuture, future::Onward};
use crate::{body::Resend, context::BoxError, ready::Readied};

/// The service of [`ModelFallbackLayer`](super::ModelFallbackLayer).
#[derive(Clone, Debug)]
pub struct ModelFallback<S> {
    pub(super) inner: S,
    pub(super) chains: Option<FallbackChains>,
}

crate::macros::accessors!(ModelFallback);

impl<S, B, R> Service<Request<B>> for ModelFallback<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Resend<Data = Bytes> + From<Bytes>,
    R: Body,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, R, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let chained = self.chains.as_ref().and_then(|chains| chains.of_call(&request));
        let Some(chained) = chained else { return ResponseFuture::direct(self.inner.call(request)) };
        // It is large, and does not move once it has begun.
        let mut onward = Box::new(Onward::new(Readied::take(&mut self.inner), chained.chain, chained.shape));
        let future = onward.begin(chained.answerer, request);
        ResponseFuture::walking(future, onward)
    }
}
