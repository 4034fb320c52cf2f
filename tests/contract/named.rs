//! A layer whose calls all have a caller: without one, the room inside has nothing to do.

use std::task::{Context, Poll};

use http::Request;
use tower::{Layer, Service};
use tower_gemini::{CallContext, CallerLimitLayer, caller_limit::CallerLimit};

#[derive(Clone, Debug)]
pub(crate) struct NamedLayer(pub(crate) CallerLimitLayer);

#[derive(Clone, Debug)]
pub(crate) struct Named<S>(CallerLimit<S>);

impl<S> Layer<S> for NamedLayer {
    type Service = Named<S>;

    fn layer(&self, inner: S) -> Named<S> {
        Named(self.0.layer(inner))
    }
}

impl<S> Named<S> {
    pub(crate) fn get_ref(&self) -> &S {
        self.0.get_ref()
    }

    pub(crate) fn get_mut(&mut self) -> &mut S {
        self.0.get_mut()
    }

    pub(crate) fn into_inner(self) -> S {
        self.0.into_inner()
    }
}

impl<S, B> Service<Request<B>> for Named<S>
where
    CallerLimit<S>: Service<Request<B>>,
{
    type Response = <CallerLimit<S> as Service<Request<B>>>::Response;
    type Error = <CallerLimit<S> as Service<Request<B>>>::Error;
    type Future = <CallerLimit<S> as Service<Request<B>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        CallContext::update(request.extensions_mut(), |context| context.set_caller("app"));
        self.0.call(request)
    }
}
