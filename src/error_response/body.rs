//! The body of an answer: ends a stream that breaks in an error that an SDK can read.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{header::CONTENT_TYPE, response::Parts};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use pin_project_lite::pin_project;

use super::render;
use crate::{
    answer::{
        scan::Scanner,
        sse::{Listener, Splitter},
    },
    call::{Shape, Streaming, Surface},
    context::BoxError,
    redact::{Masker, SecretMasker, Secrets},
};

const EVENT_STREAM: &[u8] = b"text/event-stream";

pin_project! {
    /// The response body of [`ErrorResponse`](super::ErrorResponse): an error that this layer wrote, or the upstream's
    /// bytes.
    ///
    /// An upstream's stream that breaks ends in an error event of the surface's own shape. In the text of an error, API
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
            body: R,
            follow: Follow,
            surface: Surface,
            broken: Option<BoxError>,
            last: Option<Box<Frame<Bytes>>>,
            ended: bool,
        },
    }
}

/// The watch over the upstream's bytes while they pass.
enum Follow {
    Nothing,
    /// Finds the ends of events, so that one more can follow.
    Events(Box<Splitter>),
    /// Finds the ends of an array's elements, so that one more can follow.
    Elements(Box<Scanner>),
    /// Overwrites keys, which the text of an error may repeat.
    Secrets(Box<SecretMasker>),
}

impl<R> ErrorResponseBody<R> {
    /// Makes the body of an error that this layer wrote.
    pub(super) fn rendered(body: Bytes) -> Self {
        Self { source: BodySource::Rendered { body: Full::new(body) } }
    }
}

impl<R: Body<Data = Bytes>> ErrorResponseBody<R> {
    /// Makes the body of an upstream's good answer.
    pub(super) fn upstream(body: R, shape: Shape, parts: &Parts) -> Self {
        let is_sse = || {
            let essence = parts.headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().get(..EVENT_STREAM.len()));
            essence.is_some_and(|essence| essence.eq_ignore_ascii_case(EVENT_STREAM))
        };
        // A body of a known length has no room for another event.
        let follow = if body.size_hint().exact().is_some() {
            Follow::Nothing
        } else if is_sse() {
            Follow::Events(Splitter::new().into())
        } else if shape.streaming == Streaming::Array {
            Follow::Elements(Scanner::new().into())
        } else {
            Follow::Nothing
        };
        Self::following(body, shape, follow)
    }

    /// Makes the body of an upstream's failure, whose text may repeat keys.
    pub(super) fn failed(body: R, shape: Shape, secrets: Secrets) -> Self {
        Self::following(body, shape, Follow::Secrets(Box::new(SecretMasker::new(secrets))))
    }

    fn following(body: R, shape: Shape, follow: Follow) -> Self {
        Self {
            source: BodySource::Upstream {
                body,
                follow,
                surface: shape.surface,
                broken: None,
                last: None,
                ended: false,
            },
        }
    }
}

impl Follow {
    /// Takes the bytes that pass, and returns those to pass on.
    fn data(&mut self, data: Bytes) -> Bytes {
        match self {
            Self::Nothing => {}
            Self::Events(splitter) => splitter.push(&data, &mut Unheard),
            Self::Elements(scanner) => scanner.push(&data),
            Self::Secrets(masker) => {
                let mut masked = Vec::with_capacity(data.len() + Masker::MOST_HELD);
                masker.push(&data, &mut masked);
                return masked.into();
            }
        }
        data
    }

    /// Returns the bytes that are held back, once the body has ended.
    fn end(&mut self) -> Option<Bytes> {
        match self {
            Self::Secrets(masker) => {
                let mut rest = Vec::new();
                masker.finish(&mut rest);
                (!rest.is_empty()).then(|| rest.into())
            }
            _ => None,
        }
    }

    /// Writes the error as the stream's last words, if the stream can take them.
    fn last_words(&self, error: &BoxError, surface: Surface) -> Option<Bytes> {
        match self {
            Self::Events(splitter) => {
                let event = render::event(error, surface);
                // An event that was cut in the middle must not run into it.
                Some(if splitter.is_between_events() { event } else { format!("\n\n{event}") }.into())
            }
            Self::Elements(scanner) => {
                let comma = scanner.needs_comma()?;
                let element = render::element(error, surface);
                Some(format!("{}{element}\n]\n", if comma { ",\n" } else { "" }).into())
            }
            Self::Nothing | Self::Secrets(_) => None,
        }
    }
}

/// A listener that takes nothing: only the ends of events matter.
struct Unheard;

impl Listener for Unheard {
    fn data(&mut self, _: &[u8]) {}
    fn raw(&mut self, _: &[u8]) {}
    fn dispatch(&mut self) {}
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
        let (body, follow, surface, broken, last, ended) = match self.project().source.project() {
            SourceProj::Rendered { body } => return body.poll_frame(cx).map_err(|never| match never {}),
            SourceProj::Upstream { body, follow, surface, broken, last, ended } => {
                (body, follow, *surface, broken, last, ended)
            }
        };
        if let Some(error) = broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if *ended {
            return Poll::Ready(last.take().map(|last| Ok(*last)));
        }
        let frame = match ready!(body.poll_frame(cx)) {
            Some(Ok(frame)) if frame.is_data() => Some(Ok(frame.map_data(|data| follow.data(data)))),
            Some(Ok(trailers)) => {
                *ended = true;
                // The bytes held back are data, and go before trailers.
                match follow.end() {
                    Some(rest) => {
                        *last = Some(trailers.into());
                        Some(Ok(Frame::data(rest)))
                    }
                    None => Some(Ok(trailers)),
                }
            }
            Some(Err(error)) => {
                *ended = true;
                let error = error.into();
                match follow.last_words(&error, surface) {
                    Some(words) => Some(Ok(Frame::data(words))),
                    // A server that meets the error in the same poll as the bytes before it drops them unsent.
                    None => {
                        *broken = Some(error);
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
            }
            None => {
                *ended = true;
                follow.end().map(|rest| Ok(Frame::data(rest)))
            }
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            BodySource::Rendered { body } => body.is_end_stream(),
            BodySource::Upstream { body, follow: Follow::Nothing, broken: None, ended, .. } => {
                *ended || body.is_end_stream()
            }
            // Bytes may be held back until the end.
            BodySource::Upstream { ended, last, broken, .. } => *ended && last.is_none() && broken.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            BodySource::Rendered { body } => body.size_hint(),
            BodySource::Upstream { body, follow: Follow::Secrets(masker), .. } => {
                let (inner, held) = (body.size_hint(), masker.held() as u64);
                let mut hint = SizeHint::new();
                if let Some(upper) = inner.upper() {
                    hint.set_upper(upper.saturating_add(held));
                }
                hint.set_lower(inner.lower().saturating_add(held));
                hint
            }
            BodySource::Upstream { body, .. } => body.size_hint(),
        }
    }
}
