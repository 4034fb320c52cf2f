//! The body of an answer: ends a stream that breaks in an error that an SDK can read.

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

use super::{follow::Follow, reading::AnswerBody, settings::Settings};
use crate::{
    call::{Shape, Surface},
    context::BoxError,
};

pin_project! {
    /// The response body of [`ErrorResponse`](super::ErrorResponse): an error that this layer wrote, or the upstream's
    /// bytes.
    ///
    /// An upstream's stream that breaks ends in an error event of the surface's own shape, and then in an error. In the text of an error, API
    /// keys are overwritten byte for byte, so that its length stays the same.
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
            #[pin]
            body: AnswerBody<R>,
            follow: Follow,
            surface: Surface,
            breaking: Breaking,
            last: Option<Box<Frame<Bytes>>>,
            ended: bool,
        },
    }
}

/// The error that ends a body.
#[derive(Debug, Default)]
enum Breaking {
    #[default]
    No,
    /// The error's words have been passed on. A server that meets the error in the same poll would drop them unsent.
    AfterWords(BoxError),
    Now(BoxError),
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
        let follow = Follow::answer(&body, shape, parts, &settings.secrets);
        Self::following(body, shape, follow)
    }

    /// Makes the body of an upstream's failure, whose text may repeat keys.
    pub(super) fn failed(body: AnswerBody<R>, shape: Shape, parts: &mut Parts, settings: &Settings) -> Self {
        Self::following(body, shape, Follow::failure(shape, parts, settings.secrets.clone()))
    }

    fn following(body: AnswerBody<R>, shape: Shape, follow: Follow) -> Self {
        let (breaking, last, ended) = (Breaking::No, None, false);
        Self { source: BodySource::Upstream { body, follow, surface: shape.surface, breaking, last, ended } }
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
        let (mut body, follow, surface, breaking, last, ended) = match self.project().source.project() {
            SourceProj::Rendered { body } => return body.poll_frame(cx).map_err(|never| match never {}),
            SourceProj::Upstream { body, follow, surface, breaking, last, ended } => {
                (body, follow, *surface, breaking, last, ended)
            }
        };
        match std::mem::take(breaking) {
            Breaking::No => {}
            Breaking::AfterWords(error) => return later(breaking, error, cx),
            Breaking::Now(error) => return Poll::Ready(Some(Err(error))),
        }
        if let Some(data) = follow.next() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        while !*ended {
            match ready!(body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => match follow.push(data) {
                        Some(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                        None => continue,
                    },
                    // The bytes held back are data, and go before trailers.
                    Err(trailers) => *last = Some(trailers.into()),
                },
                Some(Err(error)) => {
                    *ended = true;
                    let error = error.into();
                    let Some(words) = follow.last_words(&error, surface) else { return later(breaking, error, cx) };
                    if follow.breaks_after_its_words() {
                        *breaking = Breaking::AfterWords(error);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(words))));
                }
                None => {}
            }
            *ended = true;
            if let Some(rest) = follow.end() {
                return Poll::Ready(Some(Ok(Frame::data(rest))));
            }
        }
        Poll::Ready(last.take().map(|last| Ok(*last)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            BodySource::Rendered { body } => body.is_end_stream(),
            BodySource::Upstream { body, follow: Follow::Nothing, breaking: Breaking::No, ended, .. } => {
                *ended || body.is_end_stream()
            }
            // A server that knows the length does not poll for the end.
            BodySource::Upstream {
                body, follow: Follow::Secrets(masker), breaking: Breaking::No, last: None, ..
            } if masker.held() == 0 && body.is_end_stream() => true,
            // Bytes may be held back until the end.
            BodySource::Upstream { ended, last, breaking, follow, .. } => {
                *ended && last.is_none() && matches!(breaking, Breaking::No) && !follow.has_next()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            BodySource::Rendered { body } => body.size_hint(),
            BodySource::Upstream { body, follow, .. } => follow.size_hint(body.size_hint()),
        }
    }
}

/// Ends the body at the next poll, so that a server sends the bytes before first.
fn later<T>(breaking: &mut Breaking, error: BoxError, cx: &Context<'_>) -> Poll<T> {
    *breaking = Breaking::Now(error);
    cx.waker().wake_by_ref();
    Poll::Pending
}
