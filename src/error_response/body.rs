//! The body of an answer: ends a stream that breaks in an error that an SDK can read, and then breaks it.

use std::{
    fmt,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::response::Parts;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use pin_project_lite::pin_project;

use super::{
    delivery::{self, Delivery, Written},
    follow::{BodyEnd, Follow},
    reading::AnswerBody,
    settings::Settings,
};
use crate::{call::Shape, context::BoxError};

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
            #[pin]
            body: AnswerBody<R>,
            follow: Follow,
            last: LastBytes,
            ended: bool,
        },
    }
}

/// The way of the last bytes out of a body.
#[derive(Default)]
struct LastBytes {
    breaking: Breaking,
    trailers: Option<Box<Frame<Bytes>>>,
    /// Ends when the last frame that was passed on is written, where an error follows it.
    written: Option<Written>,
    /// Set if the reader has asked for the end since, as servers do after each frame. No other sign tells them from a
    /// program that keeps all frames.
    is_server: AtomicBool,
}

/// The error that ends a body.
#[derive(Default)]
enum Breaking {
    #[default]
    No,
    /// It follows the bytes that have been let go.
    After(BoxError),
    /// It comes when these are written.
    Delivering(Box<Delivery>),
    /// It comes with the next poll.
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
        let follow = Follow::answer(&body, shape, parts, settings);
        Self::following(body, follow)
    }

    /// Makes the body of an upstream's failure, whose text may repeat keys.
    pub(super) fn failed(body: AnswerBody<R>, shape: Shape, parts: &mut Parts, settings: &Settings) -> Self {
        Self::following(body, Follow::failure(shape, parts, settings))
    }

    fn following(body: AnswerBody<R>, follow: Follow) -> Self {
        Self { source: BodySource::Upstream { body, follow, last: LastBytes::default(), ended: false } }
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
        let (mut body, follow, last, ended) = match self.project().source.project() {
            SourceProj::Rendered { body } => return body.poll_frame(cx).map_err(|never| match never {}),
            SourceProj::Upstream { body, follow, last, ended } => (body, follow, last, ended),
        };
        if let Some(data) = follow.next() {
            return Poll::Ready(Some(Ok(last.pass(data, follow))));
        }
        while !*ended {
            let end = match ready!(body.as_mut().poll_frame(cx)) {
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
            *ended = true;
            if let Some(rest) = last.end(end) {
                return Poll::Ready(Some(Ok(last.pass(rest, follow))));
            }
        }
        last.poll_end(cx)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            BodySource::Rendered { body } => body.is_end_stream(),
            BodySource::Upstream { body, follow, last, ended } => {
                last.is_server.store(true, Ordering::Relaxed);
                let passes = match follow {
                    _ if *ended => !follow.has_next(),
                    Follow::Nothing => body.is_end_stream(),
                    // A server that knows the length does not poll for the end.
                    Follow::Secrets(masker) => masker.held() == 0 && body.is_end_stream(),
                    // Bytes may be held back until the end.
                    Follow::Events(_) | Follow::Elements(_) => false,
                };
                passes && last.is_over()
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

impl LastBytes {
    /// Takes the end of the body, and returns its last bytes.
    fn end(&mut self, end: BodyEnd) -> Option<Bytes> {
        if let Some(error) = end.error {
            self.trailers = None;
            self.breaking = Breaking::After(error);
        }
        end.rest
    }

    /// Makes a frame of bytes to pass on. Its writing is watched if the body breaks after it.
    fn pass(&mut self, data: Bytes, follow: &Follow) -> Frame<Bytes> {
        if !matches!(self.breaking, Breaking::After(_)) && !follow.will_break() {
            return Frame::data(data);
        }
        let (data, written) = delivery::track(data);
        self.written = Some(written);
        self.is_server = AtomicBool::new(false);
        Frame::data(data)
    }

    /// Ends the body, once all of its bytes have been passed on.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Breaking::After(_) = self.breaking {
            self.breaking = match std::mem::take(&mut self.breaking) {
                Breaking::After(error) => self.deliver(error),
                other => other,
            };
            // A server flushes what it has when nothing is ready.
            if let Breaking::Now(_) = self.breaking {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        if let Breaking::Delivering(delivery) = &mut self.breaking {
            ready!(delivery.poll(cx));
        }
        Poll::Ready(match std::mem::take(&mut self.breaking) {
            Breaking::Delivering(delivery) => Some(Err(delivery.into_error())),
            Breaking::Now(error) | Breaking::After(error) => Some(Err(error)),
            Breaking::No => self.trailers.take().map(|trailers| Ok(*trailers)),
        })
    }

    /// Decides when the error comes: after the last bytes, as far as their way can be watched.
    fn deliver(&mut self, error: BoxError) -> Breaking {
        let (written, is_server) = (self.written.take(), *self.is_server.get_mut());
        if written.is_none() && !is_server {
            return Breaking::Now(error);
        }
        match Delivery::new(error, written, is_server) {
            Ok(delivery) => Breaking::Delivering(delivery.into()),
            Err(error) => Breaking::Now(error),
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.breaking, Breaking::No) && self.trailers.is_none()
    }
}
