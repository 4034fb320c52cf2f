//! The body of an answer: it settles the charge of its call at its end.
//!
//! It counts the bytes that pass as well: a stream in OpenAI's dialect says no tokens unless it is asked to, and an answer
//! that is dropped may not have come to them yet. Their output would be free.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::reservation::CallerSettlement;

pin_project! {
    /// The response body of [`CallerLimit`](super::CallerLimit): the charge is settled to the real cost when it ends.
    pub struct CallerLimitBody<R> {
        #[pin]
        body: R,
        // In a box: each layer outside moves the body, and few programs have limits of callers.
        settlement: Option<Box<CallerSettlement>>,
    }
}

impl<R: Body> CallerLimitBody<R> {
    /// Wraps the body of a call with a charge, if it has one. That of a body which has ended already is settled at once.
    #[inline]
    pub(super) fn new(body: R, settlement: Option<Box<CallerSettlement>>) -> Self {
        let mut settlement = settlement.filter(|_| !body.is_end_stream());
        if let Some(settlement) = &mut settlement {
            settlement.begins(body.size_hint().lower());
        }
        Self { body, settlement }
    }

    /// Polls the body of a call with a charge. It stands apart, so that a body without one costs what a bare one does.
    #[inline(never)]
    fn poll_charged(self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledFrame<R> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        if let (Some(Ok(frame)), Some(settlement)) = (&frame, this.settlement.as_mut())
            && let Some(data) = frame.data_ref()
        {
            settlement.passed(data.remaining());
        }
        // The caller is not obliged to poll once more for the `None`.
        if !matches!(frame, Some(Ok(_))) || this.body.is_end_stream() {
            let settlement = this.settlement.take();
            if !matches!(frame, Some(Err(_))) {
                settlement.into_iter().for_each(|settlement| settlement.ends());
            }
        }
        Poll::Ready(frame)
    }
}

type PolledFrame<R> = Poll<Option<Result<Frame<<R as Body>::Data>, <R as Body>::Error>>>;

impl<R: Body> Body for CallerLimitBody<R> {
    type Data = R::Data;
    type Error = R::Error;

    #[inline]
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledFrame<R> {
        if self.settlement.is_none() {
            return self.project().body.poll_frame(cx);
        }
        self.poll_charged(cx)
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<R> fmt::Debug for CallerLimitBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerLimitBody").field("charged", &self.settlement.is_some()).finish_non_exhaustive()
    }
}
