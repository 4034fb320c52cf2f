//! The service: begins the walk of a call along its chain.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{FallbackChains, ResponseFuture, future::Onward, spare::Spare};
use crate::{body::Resend, context::BoxError};

/// The service of [`ModelFallbackLayer`](super::ModelFallbackLayer).
#[derive(Clone, Debug)]
pub struct ModelFallback<S> {
    inner: S,
    chains: Option<FallbackChains>,
    /// `None` as long as there are no chains, and once somebody may have changed the service.
    spare: Option<Arc<Spare<S>>>,
}

crate::macros::accessors!(ModelFallback, forgets spare);

impl<S: Clone> ModelFallback<S> {
    pub(super) fn new(inner: S, chains: Option<FallbackChains>) -> Self {
        let spare = chains.is_some().then(|| Arc::new(Spare::of(&inner)));
        Self { inner, chains, spare }
    }
}

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

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let chained = self.chains.as_ref().and_then(|chains| chains.of_call(&request));
        let Some(chained) = chained else { return ResponseFuture::direct(self.inner.call(request)) };
        // It is large, and does not move once it has begun.
        let spare = self.spare.get_or_insert_with(|| Arc::new(Spare::of(&self.inner))).clone();
        let mut onward = Box::new(Onward::new(spare, chained.chain, chained.shape));
        onward.begin(chained.answerer, &mut request);
        ResponseFuture::walking(self.inner.call(request), onward)
    }
}
