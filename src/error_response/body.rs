//! The body of an answer: ends a stream that breaks in an error that an SDK can read, and then breaks it.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::response::Parts;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use pin_project_lite::pin_project;

use super::{follow::Follow, items::BodyEnd, reading::AnswerBody, settings::Settings};
use crate::{body::delivery::LastWords, call::Shape, context::BoxError};

pin_project! {
    /// The response body of [`ErrorResponse`](super::ErrorResponse): an error that this layer wrote, or the upstream's
    /// bytes.
    ///
    /// An upstream's stream that breaks ends in an error event of the surface's own shape, and then in an error, unless
    /// [`StreamEnding`](super::StreamEnding) says otherwise. In the text of an error, API keys are overwritten byte for
    /// byte, so that its length stays the same.
    ///
    /// The body fails when the server has written the error event: hyper would drop it unsent with the connection. It
    /// waits for that for 30 s at most, which bounds the time of a reader that never reads. A program that reads the body
    /// itself and keeps its frames waits for a second.
    pub struct ErrorResponseBody<R> {
        #[pin]
        source: BodySource<R>,
    }
}

pin_project! {
    #[project = SourceProj]
    enum BodySource<R> {
        Rendered { #[pin] body: Full<Bytes> },
        Upstream {
            // Dropped at its end or its failure: what it holds, such as a caller's place, is free while the last words
            // are on their way.
            #[pin]
            body: Option<AnswerBody<R>>,
            follow: Follow,
            last: LastBytes,
        },
    }
}

/// The way of the last bytes out of a body.
#[derive(Default)]
struct LastBytes {
    words: LastWords,
    trailers: Option<Box<Frame<Bytes>>>,
}

impl<R> ErrorResponseBody<R> {
    /// Makes the body of an error that this layer wrote.
    pub(super) fn rendered(body: Bytes) -> Self {
        Self { source: BodySource::Rendered { body: Full::new(body) } }
    }
}

impl<R: Body<Data = Bytes>> ErrorResponseBody<R> {
    /// Makes the body of an upstream's good answer.
    pub(super) fn upstream(body: AnswerBody<R>, shape: Shape, parts: &mut Parts, settings: &Settings) -> Self {
        let follow = Follow::answer(&body, shape, parts, settings);
        Self::following(body, follow)
    }

    /// Makes the body of an upstream's failure, whose text may repeat keys.
    pub(super) fn failed(body: AnswerBody<R>, shape: Shape, parts: &mut Parts, settings: &Settings) -> Self {
        Self::following(body, Follow::failure(shape, parts, settings))
    }

    fn following(body: AnswerBody<R>, follow: Follow) -> Self {
        Self { source: BodySource::Upstream { body: Some(body), follow, last: LastBytes::default() } }
    }
}

impl<R> fmt::Debug for ErrorResponseBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorResponseBody").finish_non_exhaustive()
    }
}

impl<R> Body for ErrorResponseBody<R>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let (mut body, follow, last) = match self.project().source.project() {
            SourceProj::Rendered { body } => return body.poll_frame(cx).map_err(|never| match never {}),
            SourceProj::Upstream { body, follow, last } => (body, follow, last),
        };
        if let Some(data) = follow.next() {
            return Poll::Ready(Some(Ok(last.pass(data, follow))));
        }
        while let Some(inner) = body.as_mut().as_pin_mut() {
            let end = match ready!(inner.poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => match follow.push(data) {
                        Some(data) => return Poll::Ready(Some(Ok(last.pass(data, follow)))),
                        None => continue,
                    },
                    // The bytes held back are data, and go before trailers.
                    Err(trailers) => {
                        last.trailers = Some(trailers.into());
                        follow.end()
                    }
                },
                Some(Err(error)) => follow.broken_by(error.into()),
                None => follow.end(),
            };
            body.set(None);
            if let Some(rest) = last.end(end) {
                return Poll::Ready(Some(Ok(last.pass(rest, follow))));
            }
        }
        last.poll_end(cx)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            BodySource::Rendered { body } => body.is_end_stream(),
            BodySource::Upstream { body, follow, last } => {
                last.words.is_asked();
                let Some(body) = body else { return !follow.has_next() && last.is_over() };
                let passes = match follow {
                    Follow::Nothing => body.is_end_stream(),
                    // A server that knows the length does not poll for the end.
                    Follow::Secrets(masker) => masker.held() == 0 && body.is_end_stream(),
                    // Bytes may be held back until the end.
                    Follow::Undecided(_) | Follow::Events(_) | Follow::Elements(_) => false,
                };
                passes && last.is_over()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            BodySource::Rendered { body } => body.size_hint(),
            BodySource::Upstream { body, follow, .. } => {
                follow.size_hint(body.as_ref().map_or_else(|| SizeHint::with_exact(0), AnswerBody::size_hint))
            }
        }
    }
}

impl LastBytes {
    /// Takes the end of the body, and returns its last bytes.
    fn end(&mut self, end: BodyEnd) -> Option<Bytes> {
        if let Some(error) = end.error {
            self.trailers = None;
            self.words.break_with(error);
        }
        end.rest
    }

    /// Makes a frame of bytes to pass on. Its writing is watched if the body breaks after it.
    fn pass(&mut self, data: Bytes, follow: &Follow) -> Frame<Bytes> {
        let is_last = self.words.will_break() || follow.will_break();
        Frame::data(if is_last { self.words.track(data) } else { data })
    }

    /// Ends the body, once all of its bytes have been passed on.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let error = ready!(self.words.poll(cx));
        Poll::Ready(error.map(Err).or_else(|| self.trailers.take().map(|trailers| Ok(*trailers))))
    }

    fn is_over(&self) -> bool {
        !self.words.will_break() && self.trailers.is_none()
    }
}
