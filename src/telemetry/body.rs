//! The body of an answer: ends the record when the body ends or is dropped.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::record::Record;
use crate::context::BoxError;

pin_project! {
    /// The response body of [`Telemetry`](super::Telemetry): the inner one, whose end ends the record.
    pub struct TelemetryBody<R> {
        #[pin]
        body: R,
        record: Option<Box<Record>>,
    }
}

type FramePoll<R> = Poll<Option<Result<Frame<<R as Body>::Data>, BoxError>>>;

impl<R> TelemetryBody<R> {
    #[inline]
    pub(super) fn unrecorded(body: R) -> Self {
        Self { body, record: None }
    }
}

impl<R: Body> TelemetryBody<R> {
    pub(super) fn new(body: R, mut record: Option<Box<Record>>) -> Self {
        if body.is_end_stream()
            && let Some(record) = record.take()
        {
            record.ended();
        }
        Self { body, record }
    }
}

impl<R> fmt::Debug for TelemetryBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelemetryBody").field("recorded", &self.record.is_some()).finish_non_exhaustive()
    }
}

impl<R> TelemetryBody<R>
where
    R: Body,
    R::Error: Into<BoxError>,
{
    /// Polls a body that has a record. Not inlined, so that a body without one costs as much as a bare body.
    #[inline(never)]
    fn poll_recorded(self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll<R> {
        let mut this = self.project();
        let entered = this.record.as_ref().map(|record| record.span().enter());
        let frame = ready!(this.body.as_mut().poll_frame(cx)).map(|frame| frame.map_err(Into::into));
        drop(entered);
        match &frame {
            Some(Ok(frame)) => {
                if let Some(record) = this.record.as_mut().filter(|_| frame.is_data()) {
                    record.chunk();
                }
                // A reader need not poll once more for the `None`.
                if this.body.is_end_stream()
                    && let Some(record) = this.record.take()
                {
                    record.ended();
                }
            }
            Some(Err(error)) => {
                if let Some(record) = this.record.take() {
                    record.broke(error);
                }
            }
            None => {
                if let Some(record) = this.record.take() {
                    record.ended();
                }
            }
        }
        Poll::Ready(frame)
    }
}

impl<R> Body for TelemetryBody<R>
where
    R: Body,
    R::Error: Into<BoxError>,
{
    type Data = R::Data;
    type Error = BoxError;

    #[inline]
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll<R> {
        if self.record.is_some() {
            return self.poll_recorded(cx);
        }
        self.project().body.poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
