//! The future of a call: ends when a clock runs out.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    TimeoutBody,
    adaptive::{TimedAttempt, goes_on, running},
    body::ContentClock,
    clocks::{CallClocks, ClocksByTier},
};
use crate::{
    context::{BoxError, Deadline, Error, Outcome, polled_again},
    failure::Failure,
};

pin_project! {
    /// The future of [`Timeout`](super::Timeout).
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
        // Made when the inner future is first pending: most calls to fast services need no timer.
        #[pin]
        sleep: Option<Sleep>,
        // The time at which it was made.
        began: Option<Instant>,
        clocks: ClocksByTier,
        // The attempt whose time is recorded, if it is.
        timed: Option<TimedAttempt>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProj]
    enum State<F> {
        // Dropped as soon as the clock has run out, so that the connection closes at that moment.
        Calling { #[pin] inner: F },
        Ended { refused: Option<BoxError> },
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: F, clocks: ClocksByTier, timed: Option<TimedAttempt>) -> Self {
        Self { state: State::Calling { inner }, sleep: None, began: None, clocks, timed }
    }

    pub(super) fn refused(error: BoxError) -> Self {
        let (state, clocks) = (State::Ended { refused: Some(error) }, ClocksByTier::of(CallClocks::NONE));
        Self { state, sleep: None, began: None, clocks, timed: None }
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
        let inner = match this.state.as_mut().project() {
            StateProj::Calling { inner } => inner,
            StateProj::Ended { refused } => {
                return Poll::Ready(Err(refused.take().unwrap_or_else(|| polled_again(super::NAME))));
            }
        };
        // The answer is polled first: a clock that ran out meanwhile is not a reason to throw it away.
        if let Poll::Ready(result) = inner.poll(cx) {
            let response = match result {
                Ok(response) => response,
                Err(error) => return Poll::Ready(Err(error.into())),
            };
            let (parts, body) = response.into_parts();
            let clocks = this.clocks.now();
            let outcome = parts.extensions.get::<Outcome>();
            let usage = outcome.and_then(Outcome::usage).cloned();
            let committed = outcome.is_some_and(Outcome::is_committed);
            let is_success = || parts.status.is_success() && outcome.is_none_or(|it| it.failure().is_none());
            let timed = if this.timed.is_some() && is_success() { this.timed.take() } else { None };
            let first = if clocks.streams && !committed {
                let (kind, began, timed) = (clocks.kind, *this.began, timed.map(Box::new));
                clocks.limit.map(|limit| ContentClock { kind, limit, began, timed })
            } else {
                if let Some((timed, began)) = timed.zip(*this.began) {
                    timed.answered(began.elapsed());
                }
                None
            };
            let body = TimeoutBody::new(body, first, clocks.idle, usage);
            return Poll::Ready(Ok(Response::from_parts(parts, body)));
        }
        let clocks = this.clocks.now();
        if clocks.limit.is_none() {
            return Poll::Pending;
        }
        let began = *this.began.get_or_insert_with(Instant::now);
        loop {
            let Some((kind, limit)) = running(clocks, this.timed.as_mut(), began) else { return Poll::Pending };
            let runs_out = Deadline::counted_from(began, limit).instant();
            if this.sleep.is_none() {
                this.sleep.set(Some(sleep_until(runs_out)));
            }
            let Some(mut timer) = this.sleep.as_mut().as_pin_mut() else { return Poll::Pending };
            // The tier has become known, and with it another time; or the clock has become longer.
            if timer.deadline() != runs_out {
                timer.as_mut().reset(runs_out);
            }
            std::task::ready!(timer.poll(cx));
            if goes_on(clocks, this.timed.as_mut(), began, limit) {
                continue;
            }
            this.state.set(State::Ended { refused: None });
            let error = Error::refusal(super::NAME, Failure::timeout(kind, limit));
            // The request may have reached the upstream.
            return Poll::Ready(Err(error.map_outcome(|outcome| outcome.with_sent(true)).into()));
        }
    }
}
