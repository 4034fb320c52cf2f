//! A body that holds something until it has ended, and shows it what passes.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// A value that lives as long as a body.
pub(crate) trait AtEnd {
    /// Called with the data as it passes.
    fn passes(&mut self, _data: &[u8]) {}

    /// Called when all of the body has been read. A value that is dropped without it belonged to a body that was not.
    fn ended(&mut self) {}

    /// Called when the body has failed. A layer outside may hold it for seconds, until the last words are delivered.
    fn failed(&mut self) {}
}

/// A body that holds a value.
pub(crate) struct HoldingBody<R, T> {
    body: R,
    held: T,
}

impl<R: http_body::Body, T: AtEnd> HoldingBody<R, T> {
    pub(crate) fn new(body: R, mut held: T) -> Self {
        if body.is_end_stream() {
            held.ended();
        }
        Self { body, held }
    }
}

impl<R, T> http_body::Body for HoldingBody<R, T>
where
    R: http_body::Body<Data = Bytes> + Unpin,
    T: AtEnd + Unpin,
{
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.held.passes(data);
        }
        match &frame {
            Some(Err(_)) => self.held.failed(),
            // A reader that knows the length does not poll again after the last frame.
            _ if frame.is_none() || self.body.is_end_stream() => self.held.ended(),
            _ => {}
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

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use axum::body::Body;
    use futures_util::stream;
    use http_body_util::BodyExt;

    use super::*;

    /// The calls of a held value so far.
    #[derive(Clone, Default)]
    struct Told(Arc<parking_lot::Mutex<Vec<&'static str>>>);

    impl AtEnd for Told {
        fn ended(&mut self) {
            self.0.lock().push("ended");
        }

        fn failed(&mut self) {
            self.0.lock().push("failed");
        }
    }

    #[tokio::test]
    async fn a_held_value_hears_of_the_end_and_of_a_failure_while_the_body_still_lives() {
        let piece = || Ok(Bytes::from("piece"));
        let cut = || Err(io::Error::other("cut"));
        for (frames, told) in [(vec![piece()], "ended"), (vec![piece(), cut()], "failed"), (vec![cut()], "failed")] {
            let (held, polls) = (Told::default(), frames.len() + 1);
            let mut body = HoldingBody::new(Body::from_stream(stream::iter(frames)), held.clone());
            for _ in 0..polls {
                assert!(held.0.lock().is_empty());
                let frame = body.frame().await;
                if !matches!(frame, Some(Ok(_))) {
                    break;
                }
            }
            assert_eq!(*held.0.lock(), [told]);
        }
        let held = Told::default();
        let _body = HoldingBody::new(Body::empty(), held.clone());
        assert_eq!(*held.0.lock(), ["ended"]);
    }
}
