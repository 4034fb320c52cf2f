//! The future that asks the upstream to count a request: one `countTokens` call on the same inner service.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use super::{count_tokens, question::Question};
use crate::{
    body::{CappedRead, Extent, Resend},
    context::BoxError,
    ready::Readied,
};

pin_project! {
    pub(super) struct UpstreamCount<R, F> {
        #[pin]
        state: State<R, F>,
        #[pin]
        give_up: Sleep,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<R, F> {
        Readying,
        Calling { #[pin] future: F },
        Reading { #[pin] body: R, read: CappedRead },
    }
}

impl<R, F> UpstreamCount<R, F> {
    /// Creates a count that is abandoned at `give_up`.
    pub(super) fn new(give_up: Instant) -> Self {
        Self { state: State::Readying, give_up: sleep_until(give_up) }
    }

    /// Counts `request`. `None`: the upstream gave no count in time. Fails only if the inner service is not ready and
    /// never will be.
    pub(super) fn poll<S, B>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        inner: &mut Readied<S>,
        request: &Request<B>,
        question: &Question,
    ) -> Poll<Result<Option<u64>, BoxError>>
    where
        S: Service<Request<B>, Response = Response<R>, Future = F> + Clone,
        S::Error: Into<BoxError>,
        F: Future<Output = Result<Response<R>, S::Error>>,
        B: Resend<Data = Bytes> + From<Bytes>,
        R: Body,
    {
        // The answer first: a time-out must not hide one that has arrived.
        if let Poll::Ready(count) = self.as_mut().poll_count(cx, inner, request, question) {
            return Poll::Ready(count);
        }
        self.project().give_up.poll(cx).map(|()| Ok(None))
    }

    fn poll_count<S, B>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        inner: &mut Readied<S>,
        request: &Request<B>,
        question: &Question,
    ) -> Poll<Result<Option<u64>, BoxError>>
    where
        S: Service<Request<B>, Response = Response<R>, Future = F> + Clone,
        S::Error: Into<BoxError>,
        F: Future<Output = Result<Response<R>, S::Error>>,
        B: Resend<Data = Bytes> + From<Bytes>,
        R: Body,
    {
        loop {
            let mut this = self.as_mut().project();
            let next = match this.state.as_mut().project() {
                StateProj::Readying => {
                    ready!(inner.poll_ready(cx)).map_err(Into::into)?;
                    let Some(request) = count_tokens::request(request, question) else {
                        return Poll::Ready(Ok(None));
                    };
                    State::Calling { future: inner.call(request) }
                }
                StateProj::Calling { future } => match ready!(future.poll(cx)) {
                    Ok(response) if response.status().is_success() => {
                        State::Reading { body: response.into_body(), read: CappedRead::new(count_tokens::MAX_ANSWER) }
                    }
                    _ => return Poll::Ready(Ok(None)),
                },
                StateProj::Reading { body, read } => {
                    let tokens = match ready!(read.poll(cx, body)) {
                        Ok(Extent::Whole) => count_tokens::answer(read.bytes()),
                        Ok(Extent::Beginning) | Err(_) => None,
                    };
                    return Poll::Ready(Ok(tokens));
                }
            };
            this.state.set(next);
        }
    }
}
