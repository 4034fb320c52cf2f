//! The wait between two attempts.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::context::Deadline;

/// The most bytes of a failed answer that are read, so that its connection can be used again.
const MAX_DRAIN: usize = 64 * 1024;

/// The longest time for which the rest of a failed answer is awaited. An error's body comes with its head, or a round
/// trip later; one that does not end by then may never end, and holds a connection and whatever a layer inside frees
/// with the answer.
pub(super) const GRACE: Duration = Duration::from_millis(100);

pin_project! {
    /// A wait at whose beginning the failed answer is read to its end, for [`GRACE`] at most. Dropping it drops the answer,
    /// read or not.
    pub(super) struct Backoff<R> {
        #[pin]
        failed: Option<R>,
        drained: usize,
        since: Instant,
        wait: Duration,
        #[pin]
        sleep: Option<Sleep>,
    }
}

impl<R> Backoff<R> {
    /// Creates a wait of `wait`, which begins now. `failed`: the body of the failed answer, where there was one.
    pub(super) fn new(wait: Duration, failed: Option<R>) -> Self {
        Self { failed, drained: 0, since: Instant::now(), wait, sleep: None }
    }
}

impl<R: Body> Backoff<R> {
    /// Waits until the time has passed.
    pub(super) fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.as_mut().drain(cx);
        let mut this = self.project();
        if this.wait.is_zero() {
            return Poll::Ready(());
        }
        loop {
            let wait = if this.failed.is_some() { GRACE.min(*this.wait) } else { *this.wait };
            let until = Deadline::counted_from(*this.since, wait).instant();
            match this.sleep.as_mut().as_pin_mut() {
                Some(timer) if timer.deadline() != until => timer.reset(until),
                Some(_) => {}
                None => this.sleep.set(Some(sleep_until(until))),
            }
            if let Some(timer) = this.sleep.as_mut().as_pin_mut() {
                ready!(timer.poll(cx));
            }
            this.failed.set(None);
            if wait == *this.wait {
                return Poll::Ready(());
            }
        }
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
