use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::walk::{Next, Walk};
use crate::{body::Resend, context::BoxError, ready::Readied};

pin_project! {
    /// The future of [`ModelFallback`](super::ModelFallback).
    pub struct ResponseFuture<S, B, R, F> {
        #[pin]
        state: State<B, F>,
        // In a box: most calls have no chain, and are smaller for it.
        way: Option<Box<Way<S, B, R>>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<B, F> {
        Calling { #[pin] future: F },
        Readying { next: Option<Request<B>> },
    }
}

/// What a call with a chain needs for its next model.
struct Way<S, B, R> {
    inner: Readied<S>,
    walk: Walk<B, R>,
}

impl<S, B, R, F> ResponseFuture<S, B, R, F> {
    /// A call that has no chain.
    pub(super) fn straight(future: F) -> Self {
        Self { state: State::Calling { future }, way: None }
    }
}

impl<S, B, R> ResponseFuture<S, B, R, S::Future>
where
    S: Service<Request<B>> + Clone,
{
    pub(super) fn walking(mut inner: Readied<S>, walk: Walk<B, R>, first: Request<B>) -> Self {
        let state = State::Calling { future: inner.call(first) };
        Self { state, way: Some(Box::new(Way { inner, walk })) }
    }
}

impl<S, B, R, F> fmt::Debug for ResponseFuture<S, B, R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the request, which has keys in it.
        f.debug_struct("ResponseFuture").field("has_chain", &self.way.is_some()).finish_non_exhaustive()
    }
}

impl<S, B, R> Future for ResponseFuture<S, B, R, S::Future>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Resend<Data = Bytes> + From<Bytes>,
    R: Body,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Calling { future } => {
                    let result = ready!(future.poll(cx)).map_err(Into::into);
                    let Some(Way { inner, walk }) = this.way.as_deref_mut() else { return Poll::Ready(result) };
                    match walk.next(result) {
                        Next::Over(result) => return Poll::Ready(result),
                        Next::Ask(request) => {
                            // A layer inside that has refused has left what hangs on the readiness unused.
                            inner.renew();
                            // The attempt that failed is dropped here, before the next one is made.
                            this.state.set(State::Readying { next: Some(request) });
                        }
                    }
                }
                StateProj::Readying { next } => {
                    let Some(Way { inner, walk }) = this.way.as_deref_mut() else { return Poll::Pending };
                    if ready!(inner.poll_ready(cx)).is_err() {
                        return Poll::Ready(walk.failed());
                    }
                    let Some(request) = next.take() else { return Poll::Ready(walk.failed()) };
                    let future = inner.call(request);
                    this.state.set(State::Calling { future });
                }
            }
        }
    }
}
