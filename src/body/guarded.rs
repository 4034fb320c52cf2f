//! A body with a guard that lives to its end.
//!
//! Whatever a call holds while its answer streams (a reservation, a stream of a connection) is given back when the body
//! has ended, failed or been dropped, whichever comes first.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// A body that drops its guard at its end.
    pub struct GuardedBody<B, G> {
        #[pin]
        body: B,
        guard: Option<G>,
    }
}

impl<B: Body, G> GuardedBody<B, G> {
    /// Wraps a body with a guard. A body that has ended already drops it at once.
    pub fn new(body: B, guard: G) -> Self {
        let guard = (!body.is_end_stream()).then_some(guard);
        Self { body, guard }
    }

    /// Wraps a body without a guard, where there is nothing to hold.
    #[inline]
    pub(crate) fn unguarded(body: B) -> Self {
        Self { body, guard: None }
    }
}

impl<B, G> fmt::Debug for GuardedBody<B, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedBody").field("guarded", &self.guard.is_some()).finish_non_exhaustive()
    }
}

type PolledFrame<B> = Poll<Option<Result<Frame<<B as Body>::Data>, <B as Body>::Error>>>;

impl<B: Body, G> GuardedBody<B, G> {
    /// Polls a body that has a guard. It stands apart, so that a body without one costs what a bare one does.
    #[inline(never)]
    fn poll_guarded(self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledFrame<B> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        // The caller is not obliged to poll once more for the `None`.
        if !matches!(frame, Some(Ok(_))) || this.body.is_end_stream() {
            *this.guard = None;
        }
        Poll::Ready(frame)
    }
}

impl<B: Body, G> Body for GuardedBody<B, G> {
    type Data = B::Data;
    type Error = B::Error;

    #[inline]
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledFrame<B> {
        if self.guard.is_none() {
            return self.project().body.poll_frame(cx);
        }
        self.poll_guarded(cx)
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};

    use super::*;

    #[tokio::test]
    async fn the_guard_goes_with_the_last_frame_or_with_the_body() {
        let guard = Arc::new(());
        let mut body = GuardedBody::new(Full::new(Bytes::from_static(b"x")), guard.clone());
        assert_eq!((Arc::strong_count(&guard), body.size_hint().exact()), (2, Some(1)));
        body.frame().await.unwrap().unwrap();
        assert_eq!(Arc::strong_count(&guard), 1);

        let body = GuardedBody::new(Full::new(Bytes::from_static(b"x")), guard.clone());
        drop(body);
        assert_eq!(Arc::strong_count(&guard), 1);
    }
}
