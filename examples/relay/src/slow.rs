//! A caller that sends the head of a request and then next to nothing, for hours, holds a place for as long.

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

/// A request whose body fails when nothing of it comes for so long.
pub(crate) fn hurry(request: Request<Body>, limit: Duration) -> Request<Body> {
    request.map(|body| if body.is_end_stream() { body } else { Body::new(Hurried { body, limit, silent: None }) })
}

/// How long such a body was waited for, if that is why something failed.
pub(crate) fn limit(error: &(dyn StdError + 'static)) -> Option<Duration> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(Silent(limit)) = error.downcast_ref() {
            return Some(*limit);
        }
        next = error.source();
    }
    None
}

struct Hurried {
    body: Body,
    limit: Duration,
    /// Runs while the next piece is waited for.
    silent: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for Hurried {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, limit, silent } = &mut *self;
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            *silent = None;
            return Poll::Ready(frame);
        }
        let clock = silent.get_or_insert_with(|| Box::pin(sleep(*limit)));
        clock.as_mut().poll(cx).map(|()| Some(Err(axum::Error::new(Silent(*limit)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Nothing came for so long.
#[derive(Debug)]
struct Silent(Duration);

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing of the body came for {:?}", self.0)
    }
}

impl StdError for Silent {}
