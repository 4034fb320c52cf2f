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
    /// The response body of [`ErrorResponse`](super::ErrorResponse): an error that was written here, or the upstream's
    /// bytes.
    ///
    /// A stream of the upstream's that breaks ends in an error event of the surface's own shape. An error's text has API
    /// keys overwritten, byte for byte, so that its length stays.
    pub struct ErrorResponseBody<R> {
        #[pin]
        kind: Kind<R>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<R> {
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

/// What is watched of the upstream's bytes while they pass.
enum Follow {
    Nothing,
    /// Where an event ends, so that one more can follow.
    Events(Box<Splitter>),
    /// Where an element ends, so that one more can follow.
    Elements(Box<Scanner>),
    /// An error's text, in which keys may be repeated.
    Secrets(Box<SecretMasker>),
}

impl<R> ErrorResponseBody<R> {
    pub(super) fn rendered(body: Bytes) -> Self {
        Self { kind: Kind::Rendered { body: Full::new(body) } }
    }
}

impl<R: Body<Data = Bytes>> ErrorResponseBody<R> {
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

    /// The text of a failure, in which keys may be repeated.
    pub(super) fn failed(body: R, shape: Shape, secrets: Secrets) -> Self {
        Self::following(body, shape, Follow::Secrets(Box::new(SecretMasker::new(secrets))))
    }

    fn following(body: R, shape: Shape, follow: Follow) -> Self {
        Self { kind: Kind::Upstream { body, follow, surface: shape.surface, broken: None, last: None, ended: false } }
    }
}

impl Follow {
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

    /// What is still owed at the end.
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

    /// The error as the stream's last words, where it can take them.
    fn last_words(&self, error: &BoxError, surface: Surface) -> Option<Bytes> {
        match self {
            Self::Events(splitter) => {
                let event = render::event(error, surface);
                // What was cut in the middle must not run into it.
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
        let (body, follow, surface, broken, last, ended) = match self.project().kind.project() {
            KindProj::Rendered { body } => return body.poll_frame(cx).map_err(|never| match never {}),
            KindProj::Upstream { body, follow, surface, broken, last, ended } => {
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
                // What is owed is data, and goes before them.
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
                    // A server that meets the error in the same breath as the bytes before it throws them away unsent.
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
        match &self.kind {
            Kind::Rendered { body } => body.is_end_stream(),
            Kind::Upstream { body, follow: Follow::Nothing, broken: None, ended, .. } => *ended || body.is_end_stream(),
            // Something may be owed at the end.
            Kind::Upstream { ended, last, broken, .. } => *ended && last.is_none() && broken.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Rendered { body } => body.size_hint(),
            Kind::Upstream { body, follow: Follow::Secrets(masker), .. } => {
                let (inner, held) = (body.size_hint(), masker.held() as u64);
                let mut hint = SizeHint::new();
                if let Some(upper) = inner.upper() {
                    hint.set_upper(upper.saturating_add(held));
                }
                hint.set_lower(inner.lower().saturating_add(held));
                hint
            }
            Kind::Upstream { body, .. } => body.size_hint(),
        }
    }
}
