//! The body of an answer: ends when the clock of its first content or of its silence runs out.

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

use super::adaptive::TimedAttempt;
use crate::{
    context::{BoxError, Deadline, Error, Usage},
    failure::{Failure, TimeoutKind},
};

pin_project! {
    /// The response body of [`Timeout`](super::Timeout): it ends with an error once the upstream was silent for too
    /// long.
    ///
    /// Only time in which a reader waits for the upstream counts; the time that the reader itself takes does not.
    pub struct TimeoutBody<R> {
        // Dropped as soon as the clock has run out, so that the connection closes at that moment.
        #[pin]
        body: Option<R>,
        // Armed once, and not reset for each frame: when it fires too early, it is moved on to the present deadline. In a
        // box, which is made when the body is first pending: a body is moved through many layers before.
        sleep: Option<Pin<Box<Sleep>>>,
        idle: Option<Duration>,
        // The clock that runs until the first content.
        first: Option<ContentClock>,
        // The time at which the present silence has lasted too long.
        deadline: Option<Instant>,
        // The cell in which those who record the call look for its failure.
        usage: Option<Usage>,
    }
}

/// A clock that runs until the first content, as it is set: it does not adapt, because an answer that has been handed
/// out is not asked for again.
#[derive(Debug)]
pub(super) struct ContentClock {
    pub(super) kind: TimeoutKind,
    pub(super) limit: Duration,
    /// The time at which the attempt began, if anything was pending already.
    pub(super) began: Option<Instant>,
    /// The attempt whose time is recorded. Boxed, because few bodies have one: most layers inside hold a stream until
    /// its first content.
    pub(super) timed: Option<Box<TimedAttempt>>,
}

impl ContentClock {
    /// Returns the instant at which the clock runs out. It begins here, if it has not yet.
    fn runs_out(&mut self) -> Instant {
        let began = *self.began.get_or_insert_with(Instant::now);
        Deadline::counted_from(began, self.limit).instant()
    }

    /// Records that the content has come.
    fn answered(&self) {
        if let (Some(timed), Some(began)) = (&self.timed, self.began) {
            timed.answered(began.elapsed());
        }
    }
}

impl<R> TimeoutBody<R> {
    pub(super) fn new(body: R, first: Option<ContentClock>, idle: Option<Duration>, usage: Option<Usage>) -> Self {
        Self { body: Some(body), sleep: None, idle, first, deadline: None, usage }
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
            if let Some(first) = &this.first {
                if matches!(frame, Some(Ok(_))) {
                    first.answered();
                }
                *this.first = None;
            }
            *this.deadline = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let (kind, limit, deadline) = match (this.first, *this.idle) {
            (Some(first), _) => (first.kind, first.limit, first.runs_out()),
            (None, Some(limit)) => {
                let deadline = *this.deadline.get_or_insert_with(|| Deadline::after(limit).instant());
                (TimeoutKind::Idle, limit, deadline)
            }
            (None, None) => return Poll::Pending,
        };
        let sleep = this.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        // A deadline only moves on, except once: from the first content's clock to an idle clock that is shorter.
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= deadline {
                this.body.set(None);
                let failure = Failure::timeout(kind, limit).into_after_commit();
                // The cell is let go with the body: nothing more will come.
                if let Some(usage) = this.usage.take() {
                    usage.fail(failure.clone());
                }
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
