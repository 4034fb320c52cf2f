//! A time-out for the body of a request: a caller that sends a head and then next to nothing would hold a place for
//! hours.

use std::{
    error::Error as StdError,
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::Request;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

/// Wraps a request's body so that it fails when nothing of it comes for `limit`.
pub(crate) fn with_timeout(request: &mut Request<Body>, limit: Duration) {
    if !request.body().is_end_stream() {
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = Body::new(TimedBody { body, limit, timer: None });
    }
}

/// Returns the limit that ran out, if that is the cause of an error.
pub(crate) fn elapsed_limit(error: &(dyn StdError + 'static)) -> Option<Duration> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(BodyTimeout(limit)) = error.downcast_ref() {
            return Some(*limit);
        }
        next = error.source();
    }
    None
}

struct TimedBody {
    body: Body,
    limit: Duration,
    /// The timer that runs while the next piece is awaited.
    timer: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for TimedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, limit, timer } = &mut *self;
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            *timer = None;
            return Poll::Ready(frame);
        }
        let timer = timer.get_or_insert_with(|| Box::pin(sleep(*limit)));
        timer.as_mut().poll(cx).map(|()| Some(Err(axum::Error::new(BodyTimeout(*limit)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Nothing of a request's body came for this time.
#[derive(Debug)]
struct BodyTimeout(Duration);

impl fmt::Display for BodyTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing of the request's body came for {:?}", self.0)
    }
}

impl StdError for BodyTimeout {}
