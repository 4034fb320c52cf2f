//! A body that holds something until it has ended.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

/// A value that lives as long as a body.
pub(crate) trait AtEnd {
    /// Called when all of the body has been read. A value that is dropped without it belonged to a body that was not.
    fn ended(&mut self) {}
}

/// A body that holds a value.
pub(crate) struct HoldingBody<T> {
    body: Body,
    held: T,
}

impl<T: AtEnd> HoldingBody<T> {
    pub(crate) fn new(body: Body, mut held: T) -> Self {
        if body.is_end_stream() {
            held.ended();
        }
        Self { body, held }
    }
}

impl<T: AtEnd + Unpin> http_body::Body for HoldingBody<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        // A reader that knows the length does not poll again after the last frame.
        if frame.is_none() || self.body.is_end_stream() {
            self.held.ended();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
