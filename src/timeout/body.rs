use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    context::{BoxError, Deadline, Error},
    failure::{Failure, TimeoutKind},
};

pin_project! {
    /// The response body of [`Timeout`](super::Timeout): ends with an error when it has been silent for too long.
    ///
    /// Only waiting for the upstream counts. A reader that takes its time does not.
    pub struct TimeoutBody<R> {
        // Dropped as soon as the clock has run out, so that the connection closes then.
        #[pin]
        body: Option<R>,
        // Armed once, and not reset for each frame: when it fires, it is set on to where it belongs by now.
        #[pin]
        sleep: Option<Sleep>,
        idle: Option<Duration>,
        // The clock that still runs for the first content.
        first: Option<First>,
        // When the present silence has lasted too long.
        deadline: Option<Instant>,
    }
}

/// A clock that runs until the first content.
#[derive(Clone, Copy, Debug)]
pub(super) struct First {
    pub(super) clock: TimeoutKind,
    pub(super) limit: Duration,
    /// When it runs out, where it runs already.
    pub(super) runs_out: Option<Instant>,
}

impl<R> TimeoutBody<R> {
    pub(super) fn new(body: R, first: Option<First>, idle: Option<Duration>) -> Self {
        Self { body: Some(body), sleep: None, idle, first, deadline: None }
    }
}

impl<R> fmt::Debug for TimeoutBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeoutBody").field("idle", &self.idle).finish_non_exhaustive()
    }
}

impl<R> Body for TimeoutBody<R>
where
    R: Body,
    R::Error: Into<BoxError>,
{
    type Data = R::Data;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<R::Data>, BoxError>>> {
        let mut this = self.project();
        let Some(body) = this.body.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = body.poll_frame(cx) {
            *this.first = None;
            *this.deadline = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let (clock, limit, runs_out) = match (*this.first, *this.idle) {
            (Some(First { clock, limit, runs_out }), _) => (clock, limit, runs_out),
            (None, Some(limit)) => (TimeoutKind::Idle, limit, None),
            (None, None) => return Poll::Pending,
        };
        let deadline =
            *this.deadline.get_or_insert_with(|| runs_out.unwrap_or_else(|| Deadline::after(limit).instant()));
        if this.sleep.is_none() {
            this.sleep.set(Some(sleep_until(deadline)));
        }
        let Some(mut sleep) = this.sleep.as_mut().as_pin_mut() else { return Poll::Pending };
        // Later than need be is not possible: a deadline only ever moves on, but for the one of the first content.
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= deadline {
                this.body.set(None);
                let failure = Failure::timeout(clock, limit).into_after_commit();
                return Poll::Ready(Some(Err(Error::refusal(super::NAME, failure).into())));
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
