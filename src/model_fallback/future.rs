//! The future of a call: sends the request to one model after the other, as the walk decides.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    answerer::Answerer,
    chains::Chain,
    walk::{Continuation, Walk},
};
use crate::{
    body::Resend,
    call::Shape,
    context::{BoxError, Outcome},
    ready::Readied,
};

pin_project! {
    /// The future of [`ModelFallback`](super::ModelFallback).
    pub struct ResponseFuture<S, B, R, F> {
        #[pin]
        state: State<B, F>,
        // In a box: most calls have no chain, and are smaller for it.
        onward: Option<Box<Onward<S, B, R>>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<B, F> {
        Calling { #[pin] future: F },
        // In a box, because few calls have a second request, and it is large.
        Readying { next: Option<Box<Request<B>>> },
    }
}

/// The means by which a call with a chain goes to its next model.
pub(super) struct Onward<S, B, R> {
    inner: Readied<S>,
    walk: Walk<B, R>,
}

impl<S, B, R, F> ResponseFuture<S, B, R, F> {
    /// Calls without a chain.
    pub(super) fn direct(future: F) -> Self {
        Self { state: State::Calling { future }, onward: None }
    }

    /// Calls the first model of a chain.
    pub(super) fn walking(future: F, onward: Box<Onward<S, B, R>>) -> Self {
        Self { state: State::Calling { future }, onward: Some(onward) }
    }
}

impl<S, B, R> Onward<S, B, R>
where
    S: Service<Request<B>> + Clone,
    B: Resend<Data = Bytes> + From<Bytes>,
{
    /// Makes the means for a call that has not begun.
    #[inline]
    pub(super) fn new(inner: Readied<S>, chain: Arc<Chain>, shape: Shape) -> Self {
        Self { inner, walk: Walk::of(chain, shape) }
    }

    /// Begins the call: turns its request to the model that it is sent to first, and sends it.
    pub(super) fn begin(&mut self, answerer: Answerer, mut request: Request<B>) -> S::Future {
        self.walk.begin(answerer, &mut request);
        self.inner.call(request)
    }
}

impl<S, B, R, F> fmt::Debug for ResponseFuture<S, B, R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The request is left out: it has keys in it.
        f.debug_struct("ResponseFuture").field("has_chain", &self.onward.is_some()).finish_non_exhaustive()
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
                    let mut polled = future.poll(cx);
                    let Some(Onward { inner, walk }) = this.onward.as_deref_mut() else {
                        return polled.map_err(Into::into);
                    };
                    if let Poll::Ready(Ok(response)) = &mut polled
                        && !Outcome::is_failure(response)
                    {
                        // It is changed in its place, because it is large.
                        walk.answered(response);
                        return polled.map_err(Into::into);
                    }
                    match walk.next(ready!(polled).map_err(Into::into)) {
                        Continuation::Done(result) => return Poll::Ready(result),
                        Continuation::Send(request) => {
                            // A layer inside that has refused has not used its readiness, nor what it holds for it.
                            inner.renew();
                            // The attempt that failed is dropped here, before the next one is made.
                            this.state.set(State::Readying { next: Some(Box::new(request)) });
                        }
                    }
                }
                StateProj::Readying { next } => {
                    let Some(Onward { inner, walk }) = this.onward.as_deref_mut() else { return Poll::Pending };
                    if ready!(inner.poll_ready(cx)).is_err() {
                        return Poll::Ready(walk.failed());
                    }
                    let Some(request) = next.take() else { return Poll::Ready(walk.failed()) };
                    let future = inner.call(*request);
                    this.state.set(State::Calling { future });
                }
            }
        }
    }
}
