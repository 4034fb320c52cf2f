//! The wait between two attempts.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

/// The most bytes of a failed answer that are read, so that its connection can be used again.
const MAX_DRAIN: usize = 64 * 1024;

pin_project! {
    /// A wait during which the failed answer is read to its end. Dropping it drops the answer, read or not.
    pub(super) struct Backoff<R> {
        #[pin]
        failed: Option<R>,
        drained: usize,
        #[pin]
        sleep: Option<Sleep>,
    }
}

impl<R> Backoff<R> {
    /// Creates a wait of `wait`. `failed`: the body of the failed answer, where there was one.
    pub(super) fn new(wait: Duration, failed: Option<R>) -> Self {
        Self { failed, drained: 0, sleep: (!wait.is_zero()).then(|| sleep(wait)) }
    }
}

impl<R: Body> Backoff<R> {
    /// Waits until the time has passed, however far the answer has been read.
    pub(super) fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.as_mut().drain(cx);
        if let Some(sleep) = self.project().sleep.as_pin_mut() {
            ready!(sleep.poll(cx));
        }
        Poll::Ready(())
    }

    fn drain(self: Pin<&mut Self>, cx: &mut Context<'_>) {
        let mut this = self.project();
        while let Some(body) = this.failed.as_mut().as_pin_mut() {
            match body.poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) if *this.drained < MAX_DRAIN => {
                    *this.drained += frame.data_ref().map_or(1, bytes::Buf::remaining).max(1);
                }
                Poll::Ready(_) => this.failed.set(None),
                Poll::Pending => break,
            }
        }
    }
}
