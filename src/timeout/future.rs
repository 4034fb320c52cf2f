use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use super::{TimeoutBody, body::First};
use crate::{
    context::{BoxError, Error, Outcome},
    failure::{Failure, TimeoutKind},
};

pin_project! {
    /// The future of [`Timeout`](super::Timeout).
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        // Dropped as soon as the clock has run out, so that the connection closes then.
        #[pin]
        inner: Option<F>,
        // Made when the inner future is first found pending: most calls to fast services need no timer.
        #[pin]
        sleep: Option<Sleep>,
        limits: Limits,
        refused: Option<Failure>,
    }
}

/// What holds for one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Which clock runs until the response is there, and how long.
    pub(super) clock: TimeoutKind,
    pub(super) limit: Option<Duration>,
    pub(super) streams: bool,
    pub(super) idle: Option<Duration>,
}

impl Limits {
    /// Nothing runs.
    pub(super) const NONE: Self = Self { clock: TimeoutKind::Total, limit: None, streams: false, idle: None };
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: F, limits: Limits) -> Self {
        Self { inner: Some(inner), sleep: None, limits, refused: None }
    }

    pub(super) fn refused(failure: Failure) -> Self {
        Self { inner: None, sleep: None, limits: Limits::NONE, refused: Some(failure) }
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
    R: Body,
{
    type Output = Result<Response<TimeoutBody<R>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(failure) = this.refused.take() {
            return Poll::Ready(Err(Error::refusal(super::NAME, failure).into()));
        }
        let inner = this.inner.as_mut().as_pin_mut().expect("polled after completion");
        // The answer first: a clock that ran out meanwhile is no reason to throw it away.
        if let Poll::Ready(result) = inner.poll(cx) {
            let limits = *this.limits;
            let runs_out = this.sleep.as_ref().as_pin_ref().map(|sleep| sleep.deadline());
            return Poll::Ready(result.map_err(Into::into).map(|response| {
                let committed = response.extensions().get().is_some_and(Outcome::is_committed);
                let awaits_content = limits.streams && !committed;
                let first =
                    limits.limit.filter(|_| awaits_content).map(|limit| First { clock: limits.clock, limit, runs_out });
                response.map(|body| TimeoutBody::new(body, first, limits.idle))
            }));
        }
        let Some(limit) = this.limits.limit else { return Poll::Pending };
        if this.sleep.is_none() {
            this.sleep.set(Some(sleep(limit)));
        }
        let Some(timer) = this.sleep.as_mut().as_pin_mut() else { return Poll::Pending };
        std::task::ready!(timer.poll(cx));
        this.inner.set(None);
        let error = Error::refusal(super::NAME, Failure::timeout(this.limits.clock, limit));
        // What was under way may have arrived.
        Poll::Ready(Err(error.map_outcome(|outcome| outcome.with_sent(true)).into()))
    }
}
