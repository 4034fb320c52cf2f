//! The future of a call: runs within the span of its record.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use super::{TelemetryBody, record::Record};
use crate::context::BoxError;

pin_project! {
    /// The future of [`Telemetry`](super::Telemetry).
    pub struct ResponseFuture<F> {
        #[pin]
        future: F,
        // After the future: when both are dropped, the layers inside have written all that they write. In a box: most
        // programs have no recorder and no subscriber, and a small future is faster.
        record: Option<Box<Record>>,
    }
}

impl<F> ResponseFuture<F> {
    #[inline]
    pub(super) fn new(future: F, record: Option<Box<Record>>) -> Self {
        Self { future, record }
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("recorded", &self.record.is_some()).finish_non_exhaustive()
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
    R: Body,
    R::Error: Into<BoxError>,
{
    type Output = Result<Response<TelemetryBody<R>>, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(record) = this.record else {
            let result = ready!(this.future.poll(cx));
            return Poll::Ready(result.map(unrecorded).map_err(Into::into));
        };
        let entered = record.span().enter();
        let result = ready!(this.future.poll(cx)).map_err(Into::into);
        drop(entered);
        let Some(record) = this.record.take() else { return Poll::Ready(result.map(unrecorded)) };
        Poll::Ready(match result {
            Ok(response) => {
                let record = record.answered(&response);
                Ok(response.map(|body| TelemetryBody::new(body, record)))
            }
            Err(error) => {
                record.failed(&error);
                Err(error)
            }
        })
    }
}

fn unrecorded<R>(response: Response<R>) -> Response<TelemetryBody<R>> {
    response.map(TelemetryBody::unrecorded)
}
